//! Igloo's own builder: a project of one image, in a directory of igloo's state.

use std::path::Path;

use igloo_base::Reporter;
use igloo_base::file::{read_optional, write_atomic};
use igloo_formats::oci::Descriptor;
use igloo_image::Blobs;
use igloo_image::tree::ImageTree;
use igloo_ops::context::Context;
use igloo_ops::error::OpsError;
use igloo_ops::{image, lock, project};
use std::sync::Arc;

use super::adhoc::{BuildError, Builder, Request};
use crate::error::ServeError;

/// The one image of the project.
const IMAGE: &str = "image";

/// Builds with igloo's own rooms.
pub struct OpsBuilder {
    ctx: Context<'static>,
    reporter: Arc<dyn Reporter>,
}

impl OpsBuilder {
    /// In these circumstances; `reporter` is told about progress.
    pub fn new(ctx: Context<'static>, reporter: Arc<dyn Reporter>) -> Self {
        Self { ctx, reporter }
    }
}

/// The manifest of a request. Names were checked, so that quoting them is enough.
fn manifest(request: &Request) -> String {
    let base = request.shell.then(|| "@base".to_owned());
    let packages: String = base.iter().chain(&request.packages).map(|p| format!("    {p:?},\n")).collect();
    let run = if request.shell { "run = [\"bash\"]\n" } else { "" };
    let compression = if request.gzip { "compression = \"gzip\"\n" } else { "" };
    format!(
        "[project]\nname = \"registry\"\nsystems = [{:?}]\n\n[sources.debian]\nsuite = {:?}\n\n\
         [images.{IMAGE}]\nuser = \"root\"\n{run}{compression}packages = [\n{packages}]\n",
        request.system.nix(),
        request.suite
    )
}

impl Builder for OpsBuilder {
    fn build(&self, request: &Request, directory: &Path, refresh: bool) -> Result<Vec<Descriptor>, BuildError> {
        let ctx = Context { reporter: &*self.reporter, ..self.ctx.clone() };
        let text = manifest(request);
        let path = directory.join(project::MANIFEST);
        if read_optional(&path)?.as_deref() != Some(text.as_bytes()) {
            write_atomic(&path, text.as_bytes())?;
        }
        // Whoever asks for what there isn't leaves no project behind.
        let mut asked = project::from_text(directory, text).map_err(told)?;
        match refresh && asked.lock().map_err(told)?.is_some() {
            true => lock::update(&ctx, &mut asked, &[]).map_err(told)?,
            false => lock::lock(&ctx, &mut asked, lock::Options::default()).map_err(told)?,
        };
        let mut project = project::open(&ctx, directory).map_err(told)?;
        let options = image::build::Options { systems: vec![request.system], ..Default::default() };
        let made = image::build::build(&ctx, &mut project, &options).map_err(told)?;
        let mut parts = Vec::new();
        for made in &made {
            let tree = ImageTree::read(&made.image, &self.blobs(), &made.top).map_err(ServeError::from)?;
            parts.push(made.top.clone());
            parts.extend(tree.blobs().into_iter().filter(|d| d.digest != made.top.digest));
        }
        Ok(parts)
    }

    fn blobs(&self) -> Blobs {
        Blobs::new(self.ctx.dirs.oci())
    }
}

/// What the one who asks can do something about, apart from faults of ours and of the archive's.
fn told(error: OpsError) -> BuildError {
    let said = match &error {
        OpsError::Conflict(conflict) => Some(with_help(&conflict.to_string(), conflict.help.as_deref())),
        // The manifest is ours; what is wrong with it is what was asked for.
        OpsError::Manifest(e) => e.diagnostics.first().map(|d| with_help(&d.message, d.help.as_deref())),
        _ => None,
    };
    match said {
        // The project's inner name tells a client nothing.
        Some(said) => {
            BuildError::Request(said.replace(&format!("cannot choose the packages of `images.{IMAGE}`: "), ""))
        }
        None => BuildError::Fault(ServeError::Ops(Box::new(error))),
    }
}

fn with_help(message: &str, help: Option<&str>) -> String {
    match help {
        Some(help) => format!("{message}; {}", help.lines().map(str::trim).collect::<Vec<_>>().join("; ")),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_manifests() {
        for name in ["shell/git", "arm64/jq", "g_plus_plus"] {
            let request = Request::parse(&name.parse().expect(name), "trixie").expect(name);
            let text = manifest(&request);
            let parsed = igloo_manifest::parse(&text, Path::new("igloo.toml")).expect(&text);
            assert_eq!(parsed.images.len(), 1);
            assert_eq!(parsed.project.systems, [request.system]);
            let gzip = manifest(&Request { gzip: true, ..request });
            assert!(igloo_manifest::parse(&gzip, Path::new("igloo.toml")).is_ok() && gzip.contains("gzip"));
        }
    }
}
