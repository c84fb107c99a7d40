mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use igloo_base::System;
use igloo_manifest::LayerCompression;
use igloo_ops::image::transfer::{self, Engine, Form};
use igloo_ops::image::{Made, build, look, plan, source};
use igloo_ops::project;

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui, bytes, plain};

/// Make OCI images of environments, and move and look into images
///
/// An IMAGE is one of `[images.*]` in igloo.toml. Where any image will do it may also be `HOST/NAME:TAG` in a registry,
/// `oci:DIR`, or an archive (`oci-archive:FILE`, `docker-archive:FILE`, or a path).
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Build(BuildArgs),
    Plan(PlanArgs),
    Push(PushArgs),
    Load(LoadArgs),
    Pull(PullArgs),
    Copy(CopyArgs),
    Inspect(InspectArgs),
    Ls(LsArgs),
    Diff(DiffArgs),
    Why(WhyArgs),
    Run(run::Args),
}

/// What of a project is built.
#[derive(Debug, clap::Args)]
struct Chosen {
    /// Images of igloo.toml; all of them unless said
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Only for this system (amd64, arm64); may be repeated. All of `systems` unless said
    #[arg(long = "system", value_name = "SYSTEM")]
    systems: Vec<System>,
    /// zstd or gzip, instead of what igloo.toml says
    #[arg(long, value_name = "HOW", value_parser = compression)]
    compression: Option<LayerCompression>,
    /// Fail instead of changing the lock
    #[arg(long)]
    locked: bool,
}

fn compression(text: &str) -> Result<LayerCompression, String> {
    let named = LayerCompression::NAMES.iter().find(|(name, _)| *name == text);
    named.map(|(_, value)| *value).ok_or_else(|| "it is zstd or gzip".to_owned())
}

impl Chosen {
    fn build(&self, ctx: &igloo_ops::context::Context<'_>, settings: &Settings) -> Result<Vec<Made>, CommandError> {
        let mut project = project::open(ctx, &settings.directory)?;
        let options = build::Options {
            names: self.images.clone(),
            systems: self.systems.clone(),
            locked: self.locked,
            compression: self.compression,
        };
        Ok(build::build(ctx, &mut project, &options)?)
    }
}

/// Build images, and print their digests
///
/// Nothing of an image is run, so that every system is built on any machine. The digest is a function of igloo.lock,
/// igloo.toml and the project's own files. Layers that were made before are not made again.
#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Also write an OCI layout to this directory
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Also write an OCI layout as one tar
    #[arg(long, value_name = "FILE")]
    oci_archive: Option<PathBuf>,
    /// Also write what `docker load` takes, for this machine's system
    #[arg(long, value_name = "FILE")]
    docker_archive: Option<PathBuf>,
    /// Tag in what is written; may be repeated
    #[arg(short, long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Build twice from nothing and compare
    #[arg(long)]
    check: bool,
}

/// Say which package lies in which layer, or plan the layers of a fleet
///
/// Without --fleet it prints the layers of this project's images, lowest first. With --fleet it plans the layers of all
/// images of the projects in these directories together and writes igloo.plan beside each igloo.toml; a project with an
/// igloo.plan follows it until it is written again. Keep it in version control.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// Images of igloo.toml; all of them unless said
    #[arg(value_name = "IMAGE", conflicts_with = "fleet")]
    images: Vec<String>,
    /// Plan for the projects in these directories
    #[arg(long, value_name = "DIR", num_args = 1..)]
    fleet: Vec<PathBuf>,
    /// With --fleet: write nothing, fail if a plan would change
    #[arg(long, requires = "fleet")]
    check: bool,
    /// Say why each package lies where it lies
    #[arg(long)]
    explain: bool,
}

/// Build images and push them to a registry
///
/// A request tells what the registry lacks, and only that is sent. Goes to `name` of the image, or to --to.
#[derive(Debug, clap::Args)]
pub struct PushArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Where to, `HOST/NAME`, instead of what igloo.toml says
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Tag; `latest` unless said; may be repeated
    #[arg(short, long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

/// Build images and give them to podman, docker or containerd
#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// podman, docker or containerd; the first that is there unless said
    #[arg(long, value_name = "ENGINE", value_parser = engine)]
    into: Option<Engine>,
    /// Tag; `latest` unless said; may be repeated
    #[arg(short, long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

fn engine(text: &str) -> Result<Engine, String> {
    match text {
        "podman" => Ok(Engine::Podman),
        "docker" => Ok(Engine::Docker),
        "containerd" | "ctr" => Ok(Engine::Containerd),
        _ => Err("it is podman, docker or containerd".to_owned()),
    }
}

/// Fetch an image, whole and verified
#[derive(Debug, clap::Args)]
pub struct PullArgs {
    /// `HOST/NAME:TAG` or `HOST/NAME@DIGEST`
    image: String,
    /// All systems of an index, and not just this machine's
    #[arg(long)]
    all: bool,
}

/// Copy an image between registries, layouts and archives
#[derive(Debug, clap::Args)]
pub struct CopyArgs {
    /// An image anywhere
    from: String,
    /// `HOST/NAME:TAG`, `oci:DIR`, `oci-archive:FILE` or `docker-archive:FILE`
    to: String,
    /// Only this machine's system of an index
    #[arg(long)]
    one: bool,
}

/// Show an image's systems, layers and configuration
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// An image anywhere
    image: String,
}

/// List files of an image
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// An image anywhere
    image: String,
    /// Only these paths and what is below
    paths: Vec<String>,
    /// Of this system in an index
    #[arg(long, value_name = "SYSTEM", default_value_t = System::current())]
    system: System,
}

/// Compare two images: packages, layers, and what a host with the first has to pull for the second
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// An image anywhere
    old: String,
    /// Another one
    new: String,
    /// Of this system in an index
    #[arg(long, value_name = "SYSTEM", default_value_t = System::current())]
    system: System,
}

/// Say which layer and which package a path of an image comes from
#[derive(Debug, clap::Args)]
pub struct WhyArgs {
    /// An image anywhere
    image: String,
    /// A path in it
    path: String,
    /// Of this system in an index
    #[arg(long, value_name = "SYSTEM", default_value_t = System::current())]
    system: System,
}

pub fn run(command: &Command, settings: &Settings, ui: &Ui) -> Result<ExitCode, CommandError> {
    match command {
        Command::Run(args) => return run::run(args, settings, ui),
        Command::Build(args) => run_build(args, settings, ui)?,
        Command::Plan(args) => run_plan(args, settings, ui)?,
        Command::Push(args) => run_push(args, settings, ui)?,
        Command::Load(args) => run_load(args, settings, ui)?,
        Command::Pull(args) => run_pull(args, settings, ui)?,
        Command::Copy(args) => run_copy(args, settings, ui)?,
        Command::Inspect(args) => run_inspect(args, settings, ui)?,
        Command::Ls(args) => run_ls(args, settings, ui)?,
        Command::Diff(args) => run_diff(args, settings, ui)?,
        Command::Why(args) => run_why(args, settings, ui)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_build(args: &BuildArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let made = args.chosen.build(&ctx, settings)?;
    if args.check {
        let mut project = project::open(&ctx, &settings.directory)?;
        build::check(&ctx, &mut project, &made, args.chosen.compression)?;
    }
    let outputs =
        [(&args.output, Form::Oci), (&args.oci_archive, Form::OciArchive), (&args.docker_archive, Form::DockerArchive)];
    for (to, form) in outputs {
        if let Some(to) = to {
            transfer::write(&ctx, &made, &args.tags, form, &settings.directory.join(to))?;
        }
    }
    if ui.json() {
        return Ok(ui.print_json(&made.iter().map(Made::shown).collect::<Vec<_>>())?);
    }
    for one in &made {
        ui.print(format!("{}  {}\n", one.top.digest, one.image))?;
        for (system, built) in &one.images {
            let size = built.layers.iter().map(|l| l.layer.blob.size).sum();
            ui.say(format!("{} for {}: {} layers, {}", one.image, system.deb_arch(), built.layers.len(), bytes(size)));
        }
    }
    Ok(())
}

fn run_plan(args: &PlanArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    if !args.fleet.is_empty() {
        let directories: Vec<PathBuf> = args.fleet.iter().map(|d| settings.directory.join(d)).collect();
        let written = plan::write(&ctx, &directories, args.check)?;
        for (file, changed) in &written.files {
            ui.say(format!("{} {}", file.display(), if *changed { "written" } else { "unchanged" }));
        }
        ui.say(format!("{} images planned together", written.images));
        if !args.explain && !ui.json() {
            return Ok(());
        }
        let mut shown = Vec::new();
        for directory in &directories {
            shown.extend(plan::show(&ctx, directory, &[], args.explain)?);
        }
        return print_plan(&shown, args.explain, ui);
    }
    print_plan(&plan::show(&ctx, &settings.directory, &args.images, args.explain)?, args.explain, ui)
}

fn print_plan(shown: &[plan::ShownPlan], explain: bool, ui: &Ui) -> Result<(), CommandError> {
    if ui.json() {
        return Ok(ui.print_json(&shown)?);
    }
    for image in shown {
        ui.print(format!("{} ({})\n", image.image, image.architecture))?;
        if explain {
            for package in image.layers.iter().flat_map(|l| &l.packages) {
                ui.print(format!("  {}\n", package.why.as_deref().unwrap_or(&package.package)))?;
            }
            continue;
        }
        let mut table = Table::new(&["LAYER", "DOWNLOAD", "UNPACKED", "PACKAGES"]);
        for layer in &image.layers {
            let names: Vec<&str> = layer.packages.iter().map(|p| p.package.as_str()).collect();
            table.row([layer.name.clone(), bytes(layer.bytes), bytes(layer.unpacked), names.join(" ")]);
        }
        ui.print(table.render())?;
    }
    Ok(())
}

fn run_push(args: &PushArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let made = args.chosen.build(&ctx, settings)?;
    let sent = transfer::push_made(&ctx, &made, args.to.as_deref(), &args.tags)?;
    if ui.json() {
        return Ok(ui.print_json(&sent)?);
    }
    for one in &sent {
        ui.print(format!("{}\n", one.reference))?;
        ui.say(match one.unchanged {
            true => "all of it was there".to_owned(),
            false => format!(
                "{} sent: {} blobs, {} taken from another repository, {} there",
                bytes(one.bytes),
                one.uploaded,
                one.mounted,
                one.skipped
            ),
        });
    }
    Ok(())
}

fn run_load(args: &LoadArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let made = args.chosen.build(&ctx, settings)?;
    let names = transfer::load(&ctx, &made, &args.tags, args.into)?;
    if ui.json() {
        return Ok(ui.print_json(&names)?);
    }
    Ok(ui.print(names.into_iter().map(|name| name + "\n").collect::<String>())?)
}

fn run_pull(args: &PullArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let brought = transfer::pull_image(&ctx, &settings.directory, &args.image, &choice(!args.all))?;
    if ui.json() {
        return Ok(ui.print_json(&brought)?);
    }
    ui.print(format!("{}\n", brought.digest))?;
    ui.say(format!("{} layers, {}", brought.layers, bytes(brought.bytes)));
    Ok(())
}

fn choice(one: bool) -> igloo_ops::image::source::Choice {
    if one { source::Choice::Platform(source::here()) } else { source::Choice::All }
}

fn run_copy(args: &CopyArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let sent = transfer::copy(&ctx, &settings.directory, &args.from, &args.to, &choice(args.one))?;
    if ui.json() {
        return Ok(ui.print_json(&sent)?);
    }
    Ok(ui.print(format!("{}\n", sent.digest))?)
}

fn run_inspect(args: &InspectArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let inspected = look::inspect(&ctx, &settings.directory, &args.image)?;
    if ui.json() {
        return Ok(ui.print_json(&inspected)?);
    }
    ui.print(format!("{}  {}\n", inspected.digest, plain(&inspected.name)))?;
    for image in &inspected.images {
        let config = &image.config.config;
        ui.print(format!("\n{}  {}  {}\n", plain(&image.platform), image.digest, bytes(image.bytes)))?;
        let words = |words: &Option<Vec<String>>| words.clone().unwrap_or_default().join(" ");
        for (what, value) in [
            ("user", config.user.clone().unwrap_or_default()),
            ("entrypoint", words(&config.entrypoint)),
            ("command", words(&config.cmd)),
            ("workdir", config.working_dir.clone().unwrap_or_default()),
            ("created", image.config.created.clone().unwrap_or_default()),
        ] {
            if !value.is_empty() {
                ui.print(format!("{what:<11} {}\n", plain(&value)))?;
            }
        }
        let mut table = Table::new(&["LAYER", "SIZE", "NAME", "PACKAGES"]);
        for layer in &image.layers {
            let name = plain(layer.name.as_deref().unwrap_or_default());
            let packages = plain(&layer.packages.join(" "));
            table.row([layer.digest[7..19].to_owned(), bytes(layer.bytes), name, packages]);
        }
        ui.print(table.render())?;
    }
    Ok(())
}

fn run_ls(args: &LsArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let files = look::ls(&ctx, &settings.directory, &args.image, &args.paths, args.system.deb_arch())?;
    if ui.json() {
        return Ok(ui.print_json(&files)?);
    }
    let mut text = String::new();
    for file in &files {
        let target = file.target.as_ref().map(|t| format!(" -> {t}")).unwrap_or_default();
        let look::File { kind, mode, uid, gid, size, path, .. } = file;
        let named = plain(&format!("{path}{target}"));
        text.push_str(&format!("{kind}{mode} {uid:>5}:{gid:<5} {size:>10} {named}\n"));
    }
    Ok(ui.print(text)?)
}

fn run_diff(args: &DiffArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let diff = look::diff(&ctx, &settings.directory, &args.old, &args.new, args.system.deb_arch())?;
    if ui.json() {
        return Ok(ui.print_json(&diff)?);
    }
    let mut table = Table::new(&["PACKAGE", "OLD", "NEW"]);
    for (name, old, new) in &diff.packages {
        let dash = |v: &Option<String>| plain(v.as_deref().unwrap_or("-"));
        table.row([plain(name), dash(old), dash(new)]);
    }
    if !diff.packages.is_empty() {
        ui.print(table.render())?;
    }
    ui.print(format!(
        "{} -> {}; {} layers shared, {} of them in place; {} to pull in {} layers\n",
        bytes(diff.bytes.0),
        bytes(diff.bytes.1),
        diff.shared,
        diff.shared_chain,
        bytes(diff.pull),
        diff.added.len()
    ))?;
    Ok(())
}

fn run_why(args: &WhyArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let why = look::why(&ctx, &settings.directory, &args.image, &args.path, args.system.deb_arch())?;
    if ui.json() {
        return Ok(ui.print_json(&why)?);
    }
    let packages = if why.packages.is_empty() { "no package".to_owned() } else { why.packages.join(", ") };
    let name = why.layer_name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    let said = format!("{}: {packages}, in layer {} {}{name}", why.file.path, why.file.layer, why.layer_digest);
    Ok(ui.print(plain(&said) + "\n")?)
}
