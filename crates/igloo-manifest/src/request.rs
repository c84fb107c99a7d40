//! From a manifest to what a resolver is asked: sets expanded, names assigned to sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

use igloo_base::Sha256;
use igloo_formats::deb::Version;

use crate::manifest::{Base, Content, Manifest, PackageSpec, Source, SourceKind, SpecKind};
use crate::sets;

/// The source of `flake:` packages in an [`EnvironmentRequest`]; no manifest can declare one of this name.
pub const FLAKES: &str = "flake";

/// The source of packages that are store paths.
pub const STORE: &str = "store";

/// What is to be resolved for one environment from one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentRequest {
    /// The environment, `shells.default`.
    pub key: String,
    /// The source's name, [`FLAKES`] or [`STORE`]; an environment of two sources has one request for each.
    pub source: String,
    /// The packages asked for: sets expanded, sorted, so that an order of writing decides nothing.
    pub roots: Vec<Root>,
    /// The packages that must not come along, sorted.
    pub excludes: Vec<String>,
    /// What the environment starts from.
    pub base: Base,
    /// Whether recommended packages come along.
    pub recommends: bool,
}

/// A package asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its name.
    pub name: String,
    /// Exactly this version.
    pub version: Option<Version>,
    /// From this suite.
    pub suite: Option<String>,
    /// Where the manifest asks for it: the name itself, or the set it is part of.
    pub span: Range<usize>,
}

/// A tool of a built-in set that the source does not have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingTool {
    /// The environment, `shells.default`.
    pub key: String,
    /// The set, without `@`.
    pub set: String,
    /// The tool.
    pub tool: String,
    /// Why it is missing, and what to do instead.
    pub why: String,
}

/// What a list of packages comes to.
#[derive(Default)]
struct Expansion {
    /// By source.
    roots: BTreeMap<String, Vec<Root>>,
    excludes: BTreeSet<String>,
    /// Set, tool, why.
    missing: BTreeSet<(String, String, String)>,
}

impl Manifest {
    /// One request for each environment and source. An image that is made `of` something and adds no package has none.
    pub fn environments(&self) -> Vec<EnvironmentRequest> {
        let keys = (self.shells.keys().map(|name| format!("shells.{name}")))
            .chain(self.services.keys().filter(|name| self.has_own_environment(name)).map(|n| self.environment_key(n)))
            .chain(self.images.keys().filter(|name| self.image_is_resolved(name)).map(|name| format!("images.{name}")));
        keys.filter_map(|key| self.content_of(&key).map(|content| self.requests(&key, &content))).flatten().collect()
    }

    /// Everything with a [`Content`] and its key: `shells.default`, `services.db`, `images.web`.
    pub fn contents(&self) -> impl Iterator<Item = (String, &Content)> {
        let shells = self.shells.iter().map(|(name, s)| (format!("shells.{name}"), &s.content));
        let own = self.services.iter().filter(|(name, _)| self.has_own_environment(name));
        let services = own.map(|(name, s)| (self.environment_key(name), &s.content));
        let images = self.images.iter().map(|(name, i)| (format!("images.{name}"), &i.content));
        shells.chain(services).chain(images)
    }

    /// False for a task that has a service's.
    fn has_own_environment(&self, service: &str) -> bool {
        let service = self.services.get(service);
        service.is_none_or(|s| s.image.is_none() && s.task.as_ref().is_none_or(|task| task.of.is_none()))
    }

    /// The images of others that services are, each once.
    pub fn foreign_images(&self) -> BTreeSet<&str> {
        self.services.values().filter_map(|s| s.image.as_deref()).collect()
    }

    /// The image that an environment's key stands for, if it stands for none of packages: `services.web`.
    pub fn foreign_image(&self, key: &str) -> Option<&str> {
        self.services.get(key.strip_prefix("services.")?)?.image.as_deref()
    }

    /// Tools that the built-in sets in use cannot give, each with the reason.
    pub fn missing_tools(&self) -> Vec<MissingTool> {
        let of_content = |(key, content): (String, &Content)| {
            let missing = self.expand(&content.packages).missing;
            missing.into_iter().map(move |(set, tool, why)| MissingTool { key: key.clone(), set, tool, why })
        };
        self.contents().flat_map(of_content).collect()
    }

    /// The source that names without a prefix belong to: the one that `project.source` says, the only one, or `debian`.
    pub fn default_source(&self) -> Option<&str> {
        match &self.project.source {
            Some(source) => Some(source),
            None if self.sources.len() > 1 && self.sources.contains_key("debian") => Some("debian"),
            None => self.sources.keys().next().map(String::as_str),
        }
    }

    /// Kind of the default source, and its suite if it has one.
    fn default_kind(&self) -> Option<(SourceKind, &str)> {
        match self.sources.get(self.default_source()?)? {
            Source::Debian(debian) => Some((SourceKind::Debian, &debian.suite)),
            Source::Nixpkgs(_) => Some((SourceKind::Nixpkgs, "")),
        }
    }

    /// Whether names without a prefix are those of Debian's packages.
    pub(crate) fn unprefixed_are_debians(&self) -> bool {
        self.default_kind().is_none_or(|(kind, _)| kind == SourceKind::Debian)
    }

    fn requests(&self, key: &str, content: &Content) -> Vec<EnvironmentRequest> {
        let mut expansion = self.expand(&content.packages);
        if expansion.roots.is_empty()
            && let Some(source) = self.default_source()
        {
            expansion.roots.insert(source.to_owned(), Vec::new());
        }
        let excludes: Vec<String> = expansion.excludes.into_iter().collect();
        let request = |(source, mut roots): (String, Vec<Root>)| {
            roots.retain(|root| !excludes.contains(&root.name));
            roots.sort_by(|a, b| root_order(a).cmp(&root_order(b)));
            roots.dedup_by(|a, b| root_order(a) == root_order(b));
            let (base, recommends) = match self.sources.get(&source) {
                Some(Source::Debian(debian)) => {
                    (content.base.unwrap_or(debian.base), content.recommends.unwrap_or(debian.recommends))
                }
                _ => (Base::None, false),
            };
            EnvironmentRequest { key: key.to_owned(), source, roots, excludes: excludes.clone(), base, recommends }
        };
        expansion.roots.into_iter().map(request).collect()
    }

    fn expand(&self, packages: &[PackageSpec]) -> Expansion {
        let mut expansion = Expansion::default();
        self.expand_into(packages, None, &mut Vec::new(), &mut expansion);
        expansion
    }

    /// `span` is where the manifest asks for the set being expanded.
    fn expand_into<'m>(
        &'m self,
        packages: &'m [PackageSpec],
        span: Option<&Range<usize>>,
        open: &mut Vec<&'m str>,
        into: &mut Expansion,
    ) {
        for spec in packages {
            let span = span.unwrap_or(&spec.span);
            match &spec.kind {
                SpecKind::Exclude(name) => drop(into.excludes.insert(name.clone())),
                SpecKind::Flake(reference) => into.add(FLAKES, reference, None, None, span),
                SpecKind::StorePath(path) => into.add(STORE, path, None, None, span),
                SpecKind::Package { source, name, version, suite } => {
                    if let Some(source) = source.as_deref().or_else(|| self.default_source()) {
                        into.add(source, name, version.clone(), suite.clone(), span);
                    }
                }
                SpecKind::Set(name) => match self.sets.get(name) {
                    // A set that is being expanded stands for the built-in one of its name.
                    Some(set) if !open.contains(&name.as_str()) => {
                        open.push(name);
                        self.expand_into(&set.packages, Some(span), open, into);
                        open.pop();
                    }
                    _ => self.expand_built_in(name, span, into),
                },
            }
        }
    }

    fn expand_built_in(&self, name: &str, span: &Range<usize>, into: &mut Expansion) {
        let Some(source) = self.default_source() else { return };
        let Some(set) = self.default_kind().and_then(|(kind, suite)| sets::get(name, kind, suite)) else { return };
        for package in set.packages {
            into.add(source, package, None, None, span);
        }
        for (tool, why) in set.missing {
            into.missing.insert((name.to_owned(), tool.to_owned(), why.to_owned()));
        }
    }
}

impl Expansion {
    fn add(&mut self, source: &str, name: &str, version: Option<Version>, suite: Option<String>, span: &Range<usize>) {
        let root = Root { name: name.to_owned(), version, suite, span: span.clone() };
        self.roots.entry(source.to_owned()).or_default().push(root);
    }
}

/// By text, since versions that are equal by dpkg's rules may be written differently.
fn root_order(root: &Root) -> (&str, Option<&str>, Option<&str>) {
    (&root.name, root.version.as_ref().map(Version::as_str), root.suite.as_deref())
}

/// Digest of everything in the manifest that resolution depends on, and of nothing else: systems, sources (but not
/// where they are), and for every environment its packages with all sets expanded, exclusions, base, recommends.
pub fn request_digest(manifest: &Manifest) -> Sha256 {
    // Lines of fields between tabs; neither can be in a field, as `words` lets through.
    let mut text = String::from("igloo request 1\n");
    for system in &manifest.project.systems {
        line(&mut text, &["system", system.nix()]);
    }
    for (name, source) in &manifest.sources {
        match source {
            Source::Debian(debian) => {
                let snapshot = debian.snapshot.as_deref().unwrap_or_default();
                let suites = debian.suites.join(" ");
                line(&mut text, &["debian", name, &suites, &debian.components.join(" "), snapshot]);
            }
            Source::Nixpkgs(nixpkgs) => {
                let unfree = if nixpkgs.allow_unfree { "unfree" } else { "" };
                line(&mut text, &["nixpkgs", name, &nixpkgs.flake, unfree]);
                for insecure in &nixpkgs.permitted_insecure {
                    line(&mut text, &["insecure", insecure]);
                }
                for overlay in &nixpkgs.overlays {
                    line(&mut text, &["overlay", &format!("{overlay:?}")]);
                }
            }
        }
    }
    for request in manifest.environments() {
        let recommends = if request.recommends { "recommends" } else { "" };
        line(&mut text, &["environment", &request.key, &request.source, request.base.name(), recommends]);
        for root in &request.roots {
            let (name, version, suite) = root_order(root);
            line(&mut text, &["root", name, version.unwrap_or_default(), suite.unwrap_or_default()]);
        }
        for excluded in &request.excludes {
            line(&mut text, &["exclude", excluded]);
        }
    }
    for image in manifest.foreign_images() {
        line(&mut text, &["image", image]);
    }
    Sha256::of(text.as_bytes())
}

fn line(text: &mut String, fields: &[&str]) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", fields.join("\t"));
}
