//! Writes the generated layer of an environment and its `env.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use igloo_base::At as _;
use igloo_formats::nix::StorePath;

use crate::analysis::{Analysis, analyse};
use crate::environment::{FORMAT, Manifest};
use crate::triggers::{accounts, alternatives, certificates, diversions, dpkg, etc, ldcache, pam, tmpfiles, units};
use crate::union::Union;
use crate::{EnvError, Identities, Member, TRIGGERS, recipes};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games";

/// What an environment is beside its packages.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Variables beside `PATH` and `LANG`; they win.
    pub env: BTreeMap<String, String>,
    /// What lies below the generated layer in place of the members, top first: bundles made with [`crate::merge`] and
    /// members in no bundle. Empty: the members.
    pub layers: Vec<StorePath>,
}

/// Writes `out/root/**` and `out/env.json`. `out` is an empty directory. The order of `members` does not matter.
///
/// `identities` are those of the lock, [`crate::plan`]'s answer; those that these members do not ask for are left out.
pub fn assemble(
    name: &str,
    members: &[Member],
    identities: &Identities,
    settings: &Settings,
    out: &Path,
) -> Result<(), EnvError> {
    debug_assert!(!name.is_empty(), "an environment has a name");
    let mut members = members.to_vec();
    members.sort_by(|a, b| (&a.name, &a.architecture, &a.path).cmp(&(&b.name, &b.architecture, &b.path)));
    let union = Union::new(&members)?;
    let Analysis { mut layer, registry, findings, .. } = analyse(&union, identities, false)?;
    diversions::run(&mut layer, &findings)?;
    tmpfiles::run(&mut layer, &registry)?;
    units::directories(&mut layer, &registry)?;
    alternatives::run(&mut layer, &findings);
    etc::run(&mut layer, &findings)?;
    certificates::run(&mut layer)?;
    pam::run(&mut layer)?;
    units::enable(&mut layer, &findings.units)?;
    recipes::run(&mut layer, &registry)?;
    dpkg::run(&mut layer)?;
    // After everything that makes libraries' directories and links.
    ldcache::run(&mut layer)?;
    accounts::write(&mut layer, &registry);

    let root = out.join("root");
    std::fs::create_dir(&root).at("create the directory", &root)?;
    layer.write(&root)?;

    let mut env =
        BTreeMap::from([("PATH".to_owned(), search_path(&members)), ("LANG".to_owned(), "C.UTF-8".to_owned())]);
    env.extend(settings.env.clone());
    let (users, groups) = registry.table();
    let attrs = layer.attrs(
        &|name, id| if name.is_empty() { id } else { registry.user(name).map_or(id, |u| u.0) },
        &|name, id| {
            if name.is_empty() { id } else { registry.group(name).unwrap_or(id) }
        },
    );
    let manifest = Manifest {
        format: FORMAT,
        triggers: TRIGGERS,
        members: members.iter().map(|m| m.path.clone()).collect(),
        layers: settings.layers.clone(),
        env,
        users,
        groups,
        attrs,
    };
    let file = out.join("env.json");
    let bytes = serde_json::to_vec(&manifest).map_err(|source| EnvError::Manifest { path: file.clone(), source })?;
    std::fs::write(&file, bytes).at("write", &file)?;
    Ok(())
}

/// The usual directories, and behind them those of PostgreSQL's versions, newest first: Debian keeps `initdb`, `postgres`
/// and friends out of `/usr/bin` so that versions can live side by side.
fn search_path(members: &[Member]) -> String {
    let version = |name: &str| name.strip_prefix("postgresql-")?.trim_start_matches("client-").parse::<u32>().ok();
    let versions: BTreeSet<u32> = members.iter().filter_map(|m| version(&m.name)).collect();
    let own = versions.iter().rev().map(|v| format!(":/usr/lib/postgresql/{v}/bin"));
    std::iter::once(PATH.to_owned()).chain(own).collect()
}
