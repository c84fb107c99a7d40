//! Files that one package moves out of the way of its own (`dpkg-divert`), and files that several packages hold.
//!
//! A layer cannot take a file away from a layer below, so the moved file is copied to its new place and the one that
//! stays is copied on top.

use igloo_formats::deb::meta::usrmerge;

use crate::EnvError;
use crate::layer::Layer;
use crate::script::Findings;

pub(crate) fn run(layer: &mut Layer<'_>, findings: &Findings) -> Result<(), EnvError> {
    let union = layer.union;
    let relative = |path: &str| usrmerge(path.trim_start_matches('/').to_owned());
    let mut settled = Vec::new();
    for (path, to, package) in &findings.diversions {
        let (path, to) = (relative(path), relative(to));
        let holders: Vec<usize> = holders(layer, &path);
        let owns = |m: &usize| package.as_deref() == Some(union.members[*m].name.as_str());
        let keeper = holders.iter().copied().find(owns);
        for member in holders.into_iter().filter(|m| !owns(m)) {
            layer.prefer(member, &path, &to);
        }
        if let Some(keeper) = keeper {
            layer.prefer(keeper, &path, &path);
        }
        settled.push(path);
    }
    for conflict in &union.conflicts {
        if settled.contains(&conflict.path) {
            continue;
        }
        match conflict.winner {
            Some(winner) => {
                layer.prefer(winner, &conflict.path, &conflict.path);
            }
            None => {
                return Err(EnvError::Collision {
                    path: conflict.path.clone(),
                    first: union.members[conflict.first].name.clone(),
                    second: union.members[conflict.second].name.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Members that hold a path.
fn holders(layer: &Layer<'_>, path: &str) -> Vec<usize> {
    let metas = layer.union.metas.iter().enumerate();
    metas.filter(|(_, m)| m.entries.binary_search_by(|e| e.path.as_str().cmp(path)).is_ok()).map(|(i, _)| i).collect()
}
