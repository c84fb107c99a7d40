//! `igloo registry`: a registry of this machine's own.

mod serve;

use std::path::PathBuf;
use std::time::Duration;

use igloo_serve::registry::{Repository, Storage, gc, list, tokens};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui, bytes};

/// Serve images to docker, podman and igloo, and look after what was pushed
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Serve(Box<serve::Args>),
    Ls(LsArgs),
    Gc(GcArgs),
    Token(TokenArgs),
}

/// List what was pushed: repositories, tags, sizes
#[derive(Debug, clap::Args)]
pub struct LsArgs {}

/// Delete content that no manifest needs
///
/// Content that was uploaded, mounted or asked for within the grace period stays, so that a push that goes on
/// meanwhile does not fail. A running server does this by itself; the command may be used beside it.
#[derive(Debug, clap::Args)]
pub struct GcArgs {
    /// Keep what is younger: 24h, 30m
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    grace: Duration,
    /// Also manifests that no tag leads to
    #[arg(long)]
    untagged: bool,
    /// Delete nothing, tell what would be
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Make a token for `docker login` and `podman login`
///
/// The token is printed once and kept nowhere; its digest goes into the file that `igloo registry serve --tokens`
/// reads. Any user name goes with it. Without --push or --admin it is good for pulling.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    /// What the token is called in logs
    name: String,
    /// It may push, too
    #[arg(long)]
    push: bool,
    /// It may push and delete, too
    #[arg(long)]
    admin: bool,
    /// It is good for this repository and those below it only
    #[arg(long, value_name = "REPOSITORY")]
    prefix: Option<Repository>,
    /// Add its line to this file; without it, the line is printed
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
}

/// A duration as in igloo.toml.
fn duration(text: &str) -> Result<Duration, String> {
    igloo_manifest::words::duration(text).map_err(told)
}

/// A size as in igloo.toml.
fn size(text: &str) -> Result<u64, String> {
    igloo_manifest::words::size(text).map_err(told)
}

fn told(error: igloo_manifest::words::BadText) -> String {
    match error.help {
        Some(help) => format!("{}: {help}", error.message),
        None => error.message,
    }
}

pub fn run(command: &Command, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let storage = || Storage::open(settings.context(ui).dirs.registry());
    match command {
        Command::Serve(args) => serve::run(args, settings, ui),
        Command::Ls(_) => ls(&storage()?, ui),
        Command::Gc(args) => collect(args, &storage()?, ui),
        Command::Token(args) => token(args, settings, ui),
    }
}

fn ls(storage: &Storage, ui: &Ui) -> Result<(), CommandError> {
    let listed = list(storage)?;
    if ui.json() {
        return Ok(ui.print_json(&listed)?);
    }
    let mut table = Table::new(&["REPOSITORY", "SIZE", "MANIFESTS", "TAGS"]);
    for one in &listed {
        let tags: Vec<&str> = one.tags.keys().map(String::as_str).collect();
        table.row([one.name.clone(), bytes(one.bytes), one.manifests.to_string(), tags.join(" ")]);
    }
    Ok(ui.print(table.render())?)
}

fn collect(args: &GcArgs, storage: &Storage, ui: &Ui) -> Result<(), CommandError> {
    let options = gc::Options { grace: args.grace, untagged: args.untagged, dry_run: args.dry_run };
    let collected = gc::collect(storage, &options)?;
    if ui.json() {
        return Ok(ui.print_json(&collected)?);
    }
    let mut table = Table::new(&[if args.dry_run { "WOULD DELETE" } else { "DELETED" }, "SIZE"]);
    for manifest in &collected.manifests {
        table.row([manifest.clone(), String::new()]);
    }
    for (digest, size) in &collected.blobs {
        table.row([digest.clone(), bytes(*size)]);
    }
    ui.print(table.render())?;
    let freed = if args.dry_run { "would be freed" } else { "freed" };
    ui.say(format!(
        "{} manifests, {} blobs, {} {freed}; {} blobs kept",
        collected.manifests.len(),
        collected.blobs.len(),
        bytes(collected.freed),
        collected.kept
    ));
    Ok(())
}

fn token(args: &TokenArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let right = match (args.admin, args.push) {
        (true, _) => tokens::Right::Admin,
        (false, true) => tokens::Right::Push,
        (false, false) => tokens::Right::Pull,
    };
    let file = args.tokens.as_ref().map(|file| settings.directory.join(file));
    let made = tokens::create(&args.name, right, args.prefix.as_ref(), file.as_deref())?;
    if ui.json() {
        return Ok(ui.print_json(&made)?);
    }
    ui.print(format!("{}\n", made.token))?;
    match &file {
        Some(file) => ui.say(format!("added to {}; this is the only time that it is shown", file.display())),
        None => ui.say(format!("add this line to the file of `igloo registry serve --tokens`:\n{}", made.line)),
    }
    Ok(())
}
