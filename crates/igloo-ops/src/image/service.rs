//! Images of others as services: what a name leads to is written into the lock, and fetched and unpacked by that digest.

use std::path::PathBuf;

use igloo_base::System;
use igloo_base::file::{create_dirs, read_optional, write_atomic};
use igloo_container::{Attr, User};
use igloo_formats::oci::{Config, Descriptor, Digest, Platform, Reference};
use igloo_image::tree;
use igloo_image::tree::ImageTree;
use igloo_remote::registry::Choice;

use super::source::{self, Place};
use super::{kept, run, user};
use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;

/// An image that is unpacked on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Foreign {
    /// What is `/` of it.
    pub(crate) root: PathBuf,
    /// What its files can't carry.
    pub(crate) attrs: Vec<Attr>,
    /// How it is run.
    pub(crate) config: Config,
}

/// Where a service's image is; one of the project's own is none.
fn place(ctx: &Context<'_>, project: &Project, image: &str) -> Result<Place, OpsError> {
    match source::place(ctx, &project.directory, image)? {
        Place::Project(name) => Err(OpsError::NoImage { name }),
        place => Ok(place),
    }
}

/// What an image's name leads to now.
pub(crate) fn resolve(ctx: &Context<'_>, project: &Project, image: &str) -> Result<String, OpsError> {
    let digest = match place(ctx, project, image)? {
        Place::Registry(Reference { digest: Some(digest), .. }) => digest,
        Place::Registry(reference) => source::registry(ctx, &reference)?.manifest(&reference)?.2,
        _ => source::open(ctx, &project.directory, image, false, &Choice::All)?.tree.top.digest,
    };
    Ok(digest.to_string())
}

/// Brings an image here and unpacks it, by the digest that the lock has.
pub(crate) fn realise(ctx: &Context<'_>, project: &Project, image: &str) -> Result<Foreign, OpsError> {
    let _hold = super::hold(ctx)?;
    let locked = project.lock()?.and_then(|lock| lock.images.get(image)).ok_or(OpsError::LockStale)?;
    let digest: Digest = locked.parse().map_err(|_| OpsError::LockStale)?;
    let (found, tree) = match place(ctx, project, image)? {
        Place::Registry(reference) => of_registry(ctx, image, &Reference { digest: Some(digest), ..reference })?,
        _ => of_file(ctx, project, image, &digest)?,
    };
    kept::remember_foreign(ctx, project, image, &found)?;
    Ok(Foreign { root: tree.root, attrs: run::attrs(ctx, &tree.attributes), config: found.config.config })
}

fn of_registry(
    ctx: &Context<'_>,
    image: &str,
    reference: &Reference,
) -> Result<(tree::Image, igloo_image::Tree), OpsError> {
    let (blobs, trees) = (super::blobs(ctx), super::trees(ctx));
    let platform = Platform::from(System::current());
    // Which image of an index is this machine's, so that nobody is asked for what is here.
    let digest = reference.digest.map(|d| d.0.to_string()).unwrap_or_default();
    let note = ctx.dirs.oci().join("chosen").join(format!("{digest}-{}", platform.architecture));
    let known = read_optional(&note)?.and_then(|bytes| serde_json::from_slice::<Descriptor>(&bytes).ok());
    if let Some(found) = known.and_then(|descriptor| ImageTree::read(image, &blobs, &descriptor).ok())
        && let [found] = found.images.as_slice()
        && let Some(tree) = trees.find(found)?
    {
        return Ok((found.clone(), tree));
    }
    let descriptor = source::fetch(ctx, &blobs, reference, true, &Choice::Platform(platform.clone()))?;
    let found = ImageTree::read(image, &blobs, &descriptor)?;
    let found = found.for_platform(image, &platform.architecture)?.clone();
    let tree = trees.unpack(&blobs, &found, image, ctx.reporter)?;
    if let Some(parent) = note.parent() {
        create_dirs(parent)?;
    }
    write_atomic(&note, &serde_json::to_vec(&descriptor).map_err(OpsError::Json)?)?;
    Ok((found, tree))
}

fn of_file(
    ctx: &Context<'_>,
    project: &Project,
    image: &str,
    locked: &Digest,
) -> Result<(tree::Image, igloo_image::Tree), OpsError> {
    let architecture = Platform::from(System::current()).architecture;
    let opened = source::open(ctx, &project.directory, image, true, &Choice::All)?;
    if opened.tree.top.digest != *locked {
        return Err(OpsError::ImageMoved { image: image.to_owned() });
    }
    let found = opened.tree.for_platform(image, &architecture)?.clone();
    let tree = super::trees(ctx).unpack(opened.content.as_ref(), &found, image, ctx.reporter)?;
    Ok((found, tree))
}

impl Foreign {
    /// Who runs in it, by the image's own accounts.
    pub(crate) fn user(&self, image: &str, wanted: Option<&str>) -> Result<User, OpsError> {
        let wanted = wanted.or(self.config.user.as_deref()).unwrap_or_default();
        let accounts = |path: &str| run::accounts(&self.root, path);
        user::lookup(wanted, &accounts("/etc/passwd")?, &accounts("/etc/group")?)
            .filter(|u| u.uid <= run::MAX_ID && u.gid <= run::MAX_ID)
            .ok_or_else(|| OpsError::NoImageUser { image: image.to_owned(), user: wanted.to_owned() })
    }

    /// The words that it runs: what is said instead counts.
    pub(crate) fn command(
        &self,
        image: &str,
        entrypoint: Option<&[String]>,
        run: &[String],
    ) -> Result<Vec<String>, OpsError> {
        let own = self.config.entrypoint.as_deref().unwrap_or_default();
        let cmd = match (entrypoint, run) {
            // As docker has it: another entry point has nothing to do with the image's command.
            (None, []) => self.config.cmd.as_deref().unwrap_or_default(),
            (_, run) => run,
        };
        let words = [entrypoint.unwrap_or(own), cmd].concat();
        if words.is_empty() { Err(OpsError::NoImageCommand { image: image.to_owned() }) } else { Ok(words) }
    }

    /// Its variables.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let own = self.config.env.iter().flatten();
        let own = own.filter_map(|text| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
        [("PATH".to_owned(), run::PATH.to_owned())].into_iter().chain(own).collect()
    }

    /// The signal that asks it to stop.
    pub(crate) fn stop_signal(&self) -> Option<i32> {
        self.config.stop_signal.as_deref().and_then(run::signal)
    }
}
