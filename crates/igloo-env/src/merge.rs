//! Bundles: several packages as one layer, for environments with more packages than an overlay takes layers.

use std::collections::BTreeSet;
use std::path::Path;

use igloo_base::{At as _, PathError};
use igloo_formats::deb::meta::Kind;

use crate::union::Union;
use crate::{EnvError, Member};

/// The most layers igloo puts below the generated one; the kernel's limit is 500.
pub const MAX_LOWERS: usize = 400;

/// Most members of one bundle, so that one changed package does not copy everything anew.
const BUNDLE: usize = 50;

/// Which members to merge, by index, when there are more than [`MAX_LOWERS`]; empty if there are not. Each group
/// becomes a store object by [`merge`]; members in no group stay layers of their own.
///
/// The smallest packages are merged, in groups by name, so that as few bytes as possible are copied.
pub fn bundles(members: &[Member]) -> Result<Vec<Vec<usize>>, EnvError> {
    if members.len() <= MAX_LOWERS {
        return Ok(Vec::new());
    }
    let union = Union::new(members)?;
    let size = |m: &usize| union.metas[*m].entries.iter().map(|e| e.size).sum::<u64>();
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|m| (size(m), &members[*m].name, &members[*m].architecture));
    // A bundle of 50 saves 49 layers; what two packages fight over must stay apart.
    let disputed: BTreeSet<usize> = union.conflicts.iter().flat_map(|c| [c.first, c.second]).collect();
    order.retain(|m| !disputed.contains(m));
    let groups = (members.len() - MAX_LOWERS).div_ceil(BUNDLE - 1);
    order.truncate(groups * BUNDLE);
    order.sort_by_key(|m| (&members[*m].name, &members[*m].architecture));
    Ok(order.chunks(BUNDLE).filter(|c| c.len() > 1).map(<[usize]>::to_vec).collect())
}

/// Copies the trees of `members` to `out/data`; the object is called `env-bundle-…` and has no references.
pub fn merge(members: &[Member], out: &Path) -> Result<(), EnvError> {
    let union = Union::new(members)?;
    let data = out.join("data");
    std::fs::create_dir(&data).at("create the directory", &data)?;
    for owned in union.all() {
        let to = data.join(&owned.entry.path);
        match owned.entry.kind {
            Kind::Dir => std::fs::create_dir_all(&to).at("create the directory", &to)?,
            kind => {
                if let Some(parent) = to.parent() {
                    std::fs::create_dir_all(parent).at("create the directory", parent)?;
                }
                if kind == Kind::Link {
                    let target = owned.entry.target.as_deref().unwrap_or_default();
                    std::os::unix::fs::symlink(target, &to).at("create the link", &to)?;
                } else {
                    copy(&union, owned.member, &owned.entry.path, &to)?;
                }
            }
        }
    }
    Ok(())
}

fn copy(union: &Union<'_>, member: usize, path: &str, to: &Path) -> Result<(), PathError> {
    let mut from = union.open_entry(member, path).at("read", union.members[member].physical.join("data").join(path))?;
    let mode = from.metadata().at("read", to)?.permissions();
    let mut file = std::fs::File::create_new(to).at("create", to)?;
    std::io::copy(&mut from, &mut file).at("write", to)?;
    file.set_permissions(mode).at("change the mode of", to)
}
