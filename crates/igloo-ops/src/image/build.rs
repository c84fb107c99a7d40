//! `igloo image build`.

use std::collections::BTreeMap;

use igloo_base::file::create_dirs;
use igloo_base::{At as _, System};
use igloo_image::plan::{FleetImage, FleetPackage};
use igloo_image::{Blobs, Compression, ImageSpec, Package, PackageKind};
use igloo_manifest::{LayerCompression, Lock};
use igloo_store::Store;

use super::{Made, annotations, blobs, chosen, kept, nix, plan, source_package, spec};
use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;
use crate::{copy, environment};

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Images by their names in the manifest; none means all.
    pub names: Vec<String>,
    /// For these systems; none means all that are locked.
    pub systems: Vec<System>,
    /// Fail instead of changing the lock.
    pub locked: bool,
    /// Instead of what the manifest says.
    pub compression: Option<LayerCompression>,
}

/// Makes images; what was made before costs one look.
pub fn build(ctx: &Context<'_>, project: &mut Project, options: &Options) -> Result<Vec<Made>, OpsError> {
    let _hold = super::hold(ctx)?;
    let made = build_in(ctx, project, options, &blobs(ctx))?;
    kept::remember(ctx, project, &made)?;
    Ok(made)
}

/// Makes images once more, from nothing, and compares.
pub fn check(
    ctx: &Context<'_>,
    project: &mut Project,
    made: &[Made],
    compression: Option<LayerCompression>,
) -> Result<(), OpsError> {
    let _hold = super::hold(ctx)?;
    let scratch = ctx.dirs.oci();
    create_dirs(&scratch)?;
    let directory =
        tempfile::Builder::new().prefix(".check-").tempdir_in(&scratch).at("create a directory in", &scratch)?;
    let blobs = Blobs::new(directory.path());
    for one in made {
        let systems = one.images.iter().map(|(system, _)| *system).collect();
        let options = Options { names: vec![one.image.clone()], systems, locked: true, compression };
        let again = build_in(ctx, project, &options, &blobs)?;
        if let Some(again) = again.first().filter(|again| again.top != one.top) {
            return Err(OpsError::NotReproducible {
                image: one.image.clone(),
                first: one.top.digest.to_string(),
                second: again.top.digest.to_string(),
            });
        }
    }
    Ok(())
}

fn build_in(ctx: &Context<'_>, project: &mut Project, options: &Options, blobs: &Blobs) -> Result<Vec<Made>, OpsError> {
    let names = chosen(project, &options.names)?;
    let specs = specs(ctx, project, &names, options)?;
    let mut made: Vec<Made> = Vec::new();
    // One run for each way of compressing, so that layers are made together.
    for compression in [Compression::Zstd, Compression::Gzip] {
        let of_this: Vec<&Planned> = specs.iter().filter(|s| s.compression == compression).collect();
        let images: Vec<ImageSpec> = of_this.iter().map(|s| s.spec.clone()).collect();
        let built = igloo_image::build(blobs, &images, compression, ctx.reporter)?;
        for (planned, built) in of_this.into_iter().zip(built) {
            match made.iter_mut().find(|m| m.image == planned.image) {
                Some(made) => made.images.push((planned.spec.system, built)),
                None => made.push(Made {
                    image: planned.image.clone(),
                    repository: project.manifest.images[&planned.image].name.clone(),
                    top: built.manifest.clone(),
                    images: vec![(planned.spec.system, built)],
                }),
            }
        }
    }
    for made in &mut made {
        let annotations = made_annotations(&specs, &made.image);
        let images: Vec<_> = made.images.iter().map(|(_, built)| built.clone()).collect();
        made.top = igloo_image::join(blobs, &images, &annotations)?;
    }
    made.sort_by_key(|m| names.iter().position(|n| *n == m.image));
    Ok(made)
}

fn made_annotations(specs: &[Planned], image: &str) -> BTreeMap<String, String> {
    specs.iter().find(|s| s.image == image).map(|s| s.spec.annotations.clone()).unwrap_or_default()
}

/// An image of one system, and how it is to be compressed.
struct Planned {
    image: String,
    compression: Compression,
    spec: ImageSpec,
}

fn specs(
    ctx: &Context<'_>,
    project: &mut Project,
    names: &[String],
    options: &Options,
) -> Result<Vec<Planned>, OpsError> {
    let keys: Vec<String> = names.iter().filter_map(|name| project.manifest.image_environment(name)).collect();
    let mut unique = keys.clone();
    unique.sort();
    unique.dedup();
    let store = Store::open(ctx.dirs.store_root())?;
    let systems = match options.systems.is_empty() {
        true => project.manifest.project.systems.clone(),
        false => options.systems.clone(),
    };
    let mut copies = BTreeMap::new();
    for name in names {
        let content = project.manifest.image_content(name);
        let copied = copy::realise(ctx, project, &store, &format!("images.{name}"), content.as_ref())?;
        copies.insert(name.clone(), copied.into_iter().collect::<Vec<_>>());
    }
    let plan = plan::of(project)?;
    let scratch = ctx.dirs.oci();
    let mut specs = Vec::new();
    for system in &systems {
        let realised = environment::realise_on(ctx, project, &store, *system, &unique, options.locked)?;
        let profiles = environment::profiles(ctx, project, &store, *system, &unique, options.locked)?;
        let environments: BTreeMap<&String, _> = unique.iter().zip(realised.into_iter().zip(profiles)).collect();
        let Some(lock) = project.lock()? else { return Err(OpsError::LockStale) };
        let created = created(lock);
        for (name, key) in names.iter().zip(&keys) {
            let image = &project.manifest.images[name];
            let (environment, profile) = &environments[key];
            let content = project.manifest.image_content(name).unwrap_or_default();
            let closure = nix::closure(lock, *system, key)?;
            let of_nix = spec::OfNix {
                closure: &closure,
                roots: profile.iter().flat_map(|profile| profile.outputs.clone()).collect(),
                scratch: &scratch,
                alone: profile.is_some() && !crate::nix::has_debian(lock, *system, key),
            };
            let (additions, config) = spec::spec(project, name, image, &content, environment, &of_nix)?;
            let fleet = fleet_image(project, lock, *system, name, key)?;
            let physical: BTreeMap<_, _> = environment.members.iter().map(|(path, at)| (path, at)).collect();
            let locked = environment::packages_of(lock, environment::environment_on(lock, *system, key)?);
            let mut packages = Vec::new();
            for package in &locked {
                let path = package.store.clone().ok_or(OpsError::LockStale)?;
                packages.push(Package {
                    kind: PackageKind::Debian,
                    physical: physical.get(&path).map(|at| (*at).clone()).unwrap_or_else(|| store.physical(&path)),
                    path,
                    name: package.name.clone(),
                    version: package.version.to_string(),
                    architecture: package.architecture.clone(),
                });
            }
            packages.extend(nix::packages(&closure, *system, &store));
            let compression = match options.compression.unwrap_or(image.compression) {
                LayerCompression::Zstd => Compression::Zstd,
                LayerCompression::Gzip => Compression::Gzip,
            };
            specs.push(Planned {
                image: name.clone(),
                compression,
                spec: ImageSpec {
                    name: format!("{name} ({})", system.deb_arch()),
                    system: *system,
                    environment: environment.clone(),
                    weights: fleet.packages.iter().map(|p| p.installed).collect(),
                    packages,
                    layers: plan.layers(&fleet),
                    profile: profile.as_ref().map(|profile| (profile.path.clone(), profile.data.clone())),
                    copies: copies[name].clone(),
                    additions,
                    config,
                    annotations: annotations(image, created.as_deref()),
                    created: created.clone(),
                },
            });
        }
    }
    Ok(specs)
}

/// When the newest of what is in the lock was published.
fn created(lock: &Lock) -> Option<String> {
    let published = lock.sources.values().flat_map(|s| &s.suites).map(|s| s.date.clone()).max();
    // Of a flake alone nothing tells: the time that the image's files have.
    published.or_else(|| (!lock.paths.is_empty()).then(|| "1980-01-01T00:00:00Z".to_owned()))
}

/// An image as the plan of layers sees it. In the lock's order of packages, Debian's before Nix's.
pub(crate) fn fleet_image(
    project: &Project,
    lock: &Lock,
    system: System,
    name: &str,
    key: &str,
) -> Result<FleetImage, OpsError> {
    let locked = environment::packages_of(lock, environment::environment_on(lock, system, key)?);
    let packages = locked.into_iter().map(|p| FleetPackage {
        name: p.name.clone(),
        version: p.version.to_string(),
        architecture: p.architecture.clone(),
        source: source_package(p),
        size: p.size,
        installed: p.installed_size * 1024,
    });
    let mut packages: Vec<FleetPackage> = packages.collect();
    packages.extend(nix::fleet(&nix::closure(lock, system, key)?, system));
    Ok(FleetImage { name: format!("{}/{name}", project.manifest.project.name), packages })
}
