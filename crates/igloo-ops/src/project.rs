//! Finding and reading a project.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use igloo_base::dirs::ProjectId;
use igloo_base::file::{At, create_dirs, read_optional, write_atomic};
use igloo_manifest::{Lock, Manifest};

use crate::context::{Context, ManifestPlace};
use crate::error::OpsError;
use crate::nix;

/// Name of the manifest's file.
pub const MANIFEST: &str = "igloo.toml";
/// Name of the lock's file.
pub const LOCK: &str = "igloo.lock";
/// What a generated manifest counts as.
const GENERATED: &str = "flake.nix";

/// A project as it is on disk.
pub struct Project {
    /// Its name on this machine.
    pub id: ProjectId,
    /// Where relative names in its manifest start, symlinks resolved.
    pub directory: PathBuf,
    /// The directory of its manifest and lock: the same, unless the manifest was generated.
    pub files: PathBuf,
    /// What it declares.
    pub manifest: Manifest,
    /// The manifest's text.
    pub text: String,
    lock_text: Option<String>,
    lock: OnceLock<Option<Lock>>,
}

/// Finds the project of a directory by walking up, unless its manifest is said to be elsewhere, and reads it.
pub fn open(ctx: &Context<'_>, start: &Path) -> Result<Project, OpsError> {
    let project = match &ctx.manifest {
        ManifestPlace::Found => read(&find(start)?)?,
        ManifestPlace::File(file) => generated(ctx, start, file)?,
        ManifestPlace::Flake(reference) => generated(ctx, start, &nix::manifest(ctx, start, reference)?)?,
    };
    register(ctx, &project)?;
    Ok(project)
}

/// A project of this directory whose manifest was generated. It is copied, since its file may go with the next
/// collection of garbage; `gc` keeps what was used lately.
fn generated(ctx: &Context<'_>, directory: &Path, manifest: &Path) -> Result<Project, OpsError> {
    let directory = fs::canonicalize(directory).at("open", directory)?;
    let text = fs::read_to_string(manifest).at("read", manifest)?;
    let mut parsed = igloo_manifest::parse(&text, manifest)?;
    let name = &parsed.project.name;
    // Beside a project of the same name with a manifest of its own.
    let id = ProjectId::new(name, &directory.join(GENERATED));
    let files = ctx.dirs.state.join("manifests").join(&id.0);
    create_dirs(&files)?;
    if read_optional(files.join(MANIFEST))?.as_deref() != Some(text.as_bytes()) {
        write_atomic(files.join(MANIFEST), text.as_bytes())?;
    }
    let used = files.join("used");
    fs::File::create(&used).at("write", &used)?;
    // Findings in it are shown with the copy's name, which stays.
    parsed.path = files.join(MANIFEST);
    of_parsed(&directory, &files, id, parsed, text)
}

/// The nearest directory at or above `start` with a manifest, symlinks resolved.
pub fn find(start: &Path) -> Result<PathBuf, OpsError> {
    let start = fs::canonicalize(start).at("open", start)?;
    start
        .ancestors()
        .find(|d| d.join(MANIFEST).is_file())
        .map(Path::to_owned)
        .ok_or_else(|| OpsError::NoProject { start: start.clone() })
}

fn read(directory: &Path) -> Result<Project, OpsError> {
    let path = directory.join(MANIFEST);
    let text = fs::read_to_string(&path).at("read", &path)?;
    from_text(directory, text)
}

/// A project of this text in this directory, whatever its manifest's file says.
pub fn from_text(directory: &Path, text: String) -> Result<Project, OpsError> {
    let manifest = igloo_manifest::parse(&text, &directory.join(MANIFEST))?;
    let id = ProjectId::new(&manifest.project.name, directory);
    of_parsed(directory, directory, id, manifest, text)
}

fn of_parsed(
    directory: &Path,
    files: &Path,
    id: ProjectId,
    manifest: Manifest,
    text: String,
) -> Result<Project, OpsError> {
    let lock_path = files.join(LOCK);
    let lock_text = match read_optional(&lock_path)? {
        None => None,
        Some(bytes) => Some(String::from_utf8(bytes).map_err(|_| OpsError::LockNotText { path: lock_path })?),
    };
    Ok(Project {
        id,
        directory: directory.to_owned(),
        files: files.to_owned(),
        manifest,
        text,
        lock_text,
        lock: OnceLock::new(),
    })
}

/// Remembers where a project lives, so that `gc` keeps its environments while it is there.
fn register(ctx: &Context<'_>, project: &Project) -> Result<(), OpsError> {
    use std::os::unix::ffi::OsStrExt;
    let state = ctx.dirs.project_state(&project.id);
    let file = state.join("directory");
    if read_optional(&file)?.as_deref() != Some(project.files.as_os_str().as_bytes()) {
        create_dirs(&state)?;
        write_atomic(&file, project.files.as_os_str().as_bytes())?;
    }
    Ok(())
}

impl Project {
    /// Path of the lock.
    pub fn lock_path(&self) -> PathBuf {
        self.files.join(LOCK)
    }

    /// The lock's text, for digests.
    pub fn lock_text(&self) -> Option<&str> {
        self.lock_text.as_deref()
    }

    /// The lock, if there is one; read and checked for syntax at the first call.
    pub fn lock(&self) -> Result<Option<&Lock>, OpsError> {
        if let Some(lock) = self.lock.get() {
            return Ok(lock.as_ref());
        }
        let lock = match &self.lock_text {
            None => None,
            Some(text) => {
                let lock = Lock::parse(text, &self.lock_path())?;
                lock.verify().map_err(|problems| OpsError::BadLock { path: self.lock_path(), problems })?;
                Some(lock)
            }
        };
        Ok(self.lock.get_or_init(|| lock).as_ref())
    }

    /// Puts a lock in place of the present one; the file is written only if it changes. True if it did.
    pub fn set_lock(&mut self, lock: Lock) -> Result<bool, OpsError> {
        let text = lock.render();
        let written = self.lock_text.as_deref() != Some(text.as_str());
        if written {
            write_atomic(self.lock_path(), text.as_bytes())?;
            self.lock_text = Some(text);
        }
        self.lock = OnceLock::from(Some(lock));
        Ok(written)
    }
}
