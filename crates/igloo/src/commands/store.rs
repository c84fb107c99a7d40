use std::path::PathBuf;

use igloo_formats::nix::PublicKey;
use igloo_ops::{caches, store};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui, bytes};

/// Look into igloo's store, which is a Nix store
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    PathInfo(PathArgs),
    Ls(LsArgs),
    Verify(VerifyArgs),
    Roots(RootsArgs),
    Copy(CopyArgs),
    /// Print the directory that real Nix takes as `local?root=DIR`
    Root(RootArgs),
}

/// Print what the database knows of a store path: digest, size, references
#[derive(Debug, clap::Args)]
pub struct PathArgs {
    /// Store paths, or their base names; everything if none is given
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Also everything that they refer to
    #[arg(short, long)]
    recursive: bool,
}

/// List the files of a store path
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// A store path, or its base name
    path: String,
}

/// Check that every object is there, and with --contents that it is unchanged
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Read and hash every object
    #[arg(long)]
    contents: bool,
}

/// List what keeps objects from being collected
#[derive(Debug, clap::Args)]
pub struct RootsArgs {}

/// Copy store paths and all they refer to between stores and binary caches
///
/// A binary cache is http(s)://HOST/DIR, file:///DIR or s3://BUCKET?region=…&endpoint=…; a store is a directory below
/// which nix/store lies, or `host` for the machine's own. Left out, it is igloo's store. What a cache gives must be
/// signed by a trusted key, be content-addressed, or come from an address with `?trusted=1`.
#[derive(Debug, clap::Args)]
pub struct CopyArgs {
    /// Store paths
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// A cache or store to copy from
    #[arg(long, value_name = "CACHE|STORE")]
    from: Option<String>,
    /// A cache or store to copy to; caches take `?compression=none|zstd|xz|gzip` (zstd)
    #[arg(long, value_name = "CACHE|STORE")]
    to: Option<String>,
    /// A public key whose signatures are trusted: NAME:BASE64
    #[arg(long = "trust", value_name = "KEY")]
    trusted: Vec<PublicKey>,
    /// The file of a secret key to sign with what is written to a cache
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    /// Level of compression; 0 is 1 for zstd, which is fast, and the method's default for others
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    level: i32,
}

/// Print the store's root directory
#[derive(Debug, clap::Args)]
pub struct RootArgs {}

pub fn run(command: &Command, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    match command {
        Command::PathInfo(args) => {
            let infos = store::path_info(&ctx, &args.paths, args.recursive)?;
            if ui.json() {
                return Ok(ui.print_json(&infos)?);
            }
            let mut table = Table::new(&["PATH", "NAR SIZE", "NAR HASH", "REFERENCES"]);
            for info in &infos {
                table.row([
                    info.path.clone(),
                    bytes(info.nar_size),
                    info.nar_hash.clone(),
                    info.references.len().to_string(),
                ]);
            }
            ui.print(table.render())?;
        }
        Command::Ls(args) => {
            let entries = store::ls(&ctx, &args.path)?;
            if ui.json() {
                return Ok(ui.print_json(&entries)?);
            }
            let mut text = String::new();
            for entry in &entries {
                text.push_str(&format!("{} {:>10} {}", entry.mode, entry.size, entry.path));
                if let Some(target) = &entry.target {
                    text.push_str(&format!(" -> {target}"));
                }
                text.push('\n');
            }
            ui.print(text)?;
        }
        Command::Verify(args) => {
            let report = store::verify(&ctx, args.contents)?;
            if ui.json() {
                ui.print_json(&report)?;
            }
            for problem in &report.problems {
                ui.say(format!("{} {problem}", ui.bad("bad:")));
            }
            ui.say(format!("{} objects checked, {} bad", report.checked, report.problems.len()));
            if !report.problems.is_empty() {
                return Err(CommandError::silent(1));
            }
        }
        Command::Roots(_) => {
            let roots = store::roots(&ctx)?;
            if ui.json() {
                return Ok(ui.print_json(&roots)?);
            }
            let mut table = Table::new(&["ROOT", "OBJECT"]);
            for root in &roots {
                table.row([root.root.clone(), root.path.clone()]);
            }
            ui.print(table.render())?;
        }
        Command::Copy(args) => {
            let copied = caches::copy(
                &ctx,
                &caches::Copy {
                    from: args.from.clone(),
                    to: args.to.clone(),
                    paths: args.paths.clone(),
                    trusted: args.trusted.clone(),
                    key: args.sign.clone(),
                    level: args.level,
                },
            )?;
            if ui.json() {
                return Ok(ui.print_json(&copied)?);
            }
            ui.say(format!(
                "{} store paths copied ({}), {} were there",
                copied.copied,
                bytes(copied.bytes),
                copied.present
            ));
        }
        Command::Root(_) => ui.print(format!("{}\n", store::root(&ctx).display()))?,
    }
    Ok(())
}
