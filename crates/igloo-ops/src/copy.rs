//! The project's own files as store objects: `copy` of shells and services.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use igloo_base::file::{At, create_dirs};
use igloo_formats::nix::StorePath;
use igloo_manifest::Content;
use igloo_store::Store;

use crate::error::OpsError;
use crate::project::Project;

/// Directories that are history or output, never part of a program.
const LEFT_OUT: [&str; 1] = [".git"];

/// One object with everything that `content` copies; its `data/` is a layer. Nothing if nothing is copied.
pub(crate) fn realise(
    project: &Project,
    store: &Store,
    key: &str,
    content: Option<&Content>,
) -> Result<Option<(StorePath, PathBuf)>, OpsError> {
    let Some(content) = content.filter(|c| !c.copy.is_empty()) else { return Ok(None) };
    let staged = store.stage::<OpsError>(&format!("copy-{key}"), &[], |out| {
        let data = out.join("data");
        for copy in &content.copy {
            let to = data.join(copy.to.trim_start_matches('/'));
            if let Some(parent) = to.parent() {
                create_dirs(parent)?;
            }
            tree(key, &project.directory.join(&copy.from), &to, copy.mode)?;
        }
        Ok(())
    })?;
    let path = staged.path().clone();
    store.protect(std::slice::from_ref(&path))?;
    store.commit(vec![staged])?;
    let root = format!("{key}.copy");
    if store.root_target(&project.id.0, &root)?.as_ref() != Some(&path) {
        store.add_root(&project.id.0, &root, &path)?;
    }
    let data = store.physical(&path).join("data");
    Ok(Some((path, data)))
}

fn tree(key: &str, from: &Path, to: &Path, mode: Option<u32>) -> Result<(), OpsError> {
    let mut todo = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = todo.pop() {
        let meta = fs::symlink_metadata(&from).at("read", &from)?;
        if meta.is_dir() {
            create_dirs(&to)?;
            for entry in fs::read_dir(&from).at("list", &from)? {
                let name = entry.at("list", &from)?.file_name();
                if !LEFT_OUT.iter().any(|left_out| name == OsStr::new(left_out)) {
                    todo.push((from.join(&name), to.join(&name)));
                }
            }
        } else if meta.is_symlink() {
            let target = fs::read_link(&from).at("read", &from)?;
            symlink(target, &to).at("create", &to)?;
        } else if meta.is_file() {
            let mode = mode.unwrap_or(meta.permissions().mode()) & 0o777;
            let mut source = fs::File::open(&from).at("read", &from)?;
            let mut target =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to).at("create", &to)?;
            std::io::copy(&mut source, &mut target).at("copy", &from)?;
            target.set_permissions(fs::Permissions::from_mode(mode | 0o400)).at("change the mode of", &to)?;
        } else {
            return Err(OpsError::BadCopy { key: key.to_owned(), path: from });
        }
    }
    Ok(())
}
