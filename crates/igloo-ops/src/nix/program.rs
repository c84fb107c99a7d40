//! Which `nix` evaluates and builds: the machine's own, or else one from Debian, in a view of the machine in which `/nix` is
//! our store and `/usr` that Nix's environment. What it evaluates and builds is in our store right away.

use std::path::Path;

use igloo_remote::Nix;
use igloo_remote::evaluate::NixError;

use crate::context::Context;
use crate::error::OpsError;
use crate::shell;

/// Nix, and what it runs to fetch sources and to build.
const PACKAGES: [&str; 4] = ["nix-bin", "git", "ca-certificates", "busybox-static"];
/// For one user, with a shell for builds; what a configuration of the machine's says besides stays.
const CONFIG: &str = "build-users-group =\nsandbox-paths = /bin/sh=/usr/bin/busybox\n";

/// True if the machine has one.
pub(super) fn is_on_path(ctx: &Context<'_>) -> bool {
    Nix::find(&ctx.caller.environment).is_ok()
}

/// The `nix` for what is done in this directory.
pub(super) fn find(ctx: &Context<'_>, directory: &Path) -> Result<Nix, OpsError> {
    match Nix::find(&ctx.caller.environment) {
        Err(NixError::Missing) => of_debian(ctx, directory),
        other => Ok(other?),
    }
}

fn of_debian(ctx: &Context<'_>, directory: &Path) -> Result<Nix, OpsError> {
    let packages = PACKAGES.map(str::to_owned);
    let view = shell::AdHoc { packages: &packages, suite: None, isolation: "host", command: &[], directory };
    let spec = shell::view_with_nix(ctx, &view).map_err(|source| OpsError::NoNix { source: Box::new(source) })?;
    let mut environment = ctx.caller.environment.clone();
    let own = environment.iter().find(|(name, _)| name == "NIX_CONFIG").map(|(_, value)| value.clone());
    environment.retain(|(name, _)| name != "NIX_CONFIG" && name != "NIX_REMOTE");
    let mut config = std::ffi::OsString::from(CONFIG);
    config.extend(own);
    environment.extend([("NIX_CONFIG".into(), config), ("NIX_REMOTE".into(), "local".into())]);
    Ok(Nix::entered(&ctx.exe, vec!["__enter".into(), spec.into()], &environment))
}
