use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use igloo_base::Reporter;
use igloo_base::event::Silent;
use igloo_ops::shell::default_suite;
use igloo_serve::registry::{AdHoc, OpsBuilder, Options, Server};

use super::{duration, size};
use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Forward, Ui};

/// How often it is looked whether the server has ended, when there is nothing to tell.
const LOOK: Duration = Duration::from_millis(200);
/// Suites that a tag may name besides the machine's own.
const SUITES: [&str; 2] = ["bookworm", "trixie"];

/// Serve images: pushed ones, and ones that are built when they are pulled
///
/// A registry for docker, podman, skopeo and `igloo image`. What is pushed is kept in igloo's data directory; see
/// `igloo registry ls` and `gc`.
///
/// A name to which nothing was pushed is a list of Debian packages: `podman pull HOST/shell/git/python3` gives an
/// image with a shell, git and python3. `shell` stands for a shell and the usual tools, `arm64` and `amd64` for an
/// architecture, `_plus` for a plus sign; the tag is a suite, or `latest`. Versions are kept until --refresh has
/// passed.
///
/// Without --tokens, clients on this machine may pull, push and (with --allow-delete) delete, others may pull.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address and port to listen on; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: Vec<SocketAddr>,
    /// Build images on pull; the default if only this machine can reach the server
    ///
    /// Whoever may pull makes this machine fetch packages and build; think of --tokens.
    #[arg(long, conflicts_with = "no_adhoc")]
    adhoc: bool,
    /// Serve only what was pushed
    #[arg(long)]
    no_adhoc: bool,
    /// Suites that tags may name, the first is `latest`; may be repeated
    ///
    /// Without it: that of the project here or of this machine, bookworm and trixie.
    #[arg(long, value_name = "SUITE")]
    suite: Vec<String>,
    /// How long versions of packages are kept for a name
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    refresh: Duration,
    /// Let in only those who have a token of this file
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Speak TLS with this certificate (and its chain), PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Allow deleting manifests, tags and blobs
    #[arg(long)]
    allow_delete: bool,
    /// The largest blob that is taken
    #[arg(long, value_name = "SIZE", default_value = "16G", value_parser = size)]
    max_upload: u64,
    /// Most uploads at the same time
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_uploads: usize,
    /// Delete garbage when it is older
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    grace: Duration,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let (forward, events) = Forward::new();
    let reporter: Arc<dyn Reporter> = Arc::new(forward);
    let ctx = settings.context(&Silent);
    let file = |path: &PathBuf| settings.directory.join(path);
    let mut options = Options::new(ctx.dirs.registry());
    options.listen = args.listen.clone();
    options.tls = args.tls_cert.as_ref().zip(args.tls_key.as_ref()).map(|(cert, key)| (file(cert), file(key)));
    options.tokens = args.tokens.as_ref().map(file);
    options.adhoc = adhoc(args, settings, &reporter)?;
    options.allow_delete = args.allow_delete;
    options.max_upload = args.max_upload;
    options.max_uploads = args.max_uploads;
    options.grace = args.grace;
    options.signals = true;
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let server = Server::bind(options, reporter)?;
    let addresses: Vec<String> = server.addresses().iter().map(|a| format!("{scheme}://{a}")).collect();
    match ui.json() {
        true => ui.print_json(&serde_json::json!({ "addresses": addresses }))?,
        false => ui.print(addresses.join("\n") + "\n")?,
    }
    std::thread::scope(|scope| {
        let running = scope.spawn(|| server.run());
        loop {
            match events.recv_timeout(LOOK) {
                Ok(event) => ui.event(event),
                Err(RecvTimeoutError::Timeout) if !running.is_finished() => {}
                Err(_) => break,
            }
        }
        running.join().map_err(|_| CommandError::internal("the server's thread panicked"))?.map_err(CommandError::from)
    })
}

fn adhoc(args: &Args, settings: &Settings, reporter: &Arc<dyn Reporter>) -> Result<Option<AdHoc>, CommandError> {
    let ctx = settings.context(&Silent);
    let is_local = args.listen.iter().all(|a| a.ip().is_loopback());
    if args.no_adhoc || !(args.adhoc || is_local) {
        return Ok(None);
    }
    let mut suites = args.suite.clone();
    if suites.is_empty() {
        match default_suite(&ctx, &settings.directory) {
            Ok(suite) => suites.push(suite),
            Err(error) if args.adhoc => return Err(error.into()),
            // Nobody asked for it, and nobody says what `latest` would be.
            Err(_) => return Ok(None),
        }
        suites.extend(SUITES.map(str::to_owned));
        let mut seen = std::collections::BTreeSet::new();
        suites.retain(|suite| seen.insert(suite.clone()));
    }
    let directory = ctx.dirs.registry_locks();
    let builder = Arc::new(OpsBuilder::new(ctx, Arc::clone(reporter)));
    Ok(Some(AdHoc { builder, directory, suites, refresh: args.refresh }))
}
