//! What an image is made of: its own content, and that of what it is `of`.

use std::borrow::Cow;

use crate::manifest::{Base, Content, Image, ImageKind, Manifest, PackageSpec, SpecKind};

/// What every devcontainer has: what VS Code's server needs, a way to become root, and a hook for `cd`.
const DEVCONTAINER: [&str; 8] = ["@base", "@vscodeCompat", "git", "sudo", "libpam-runtime", "passwd", "direnv", "less"];

/// What a runtime image has unless it says `base`: directories, users and groups, `/etc/os-release`.
const RUNTIME: [&str; 2] = ["base-files", "base-passwd"];

/// What a devcontainer has where names without a prefix are nixpkgs'.
const DEVCONTAINER_OF_NIX: [&str; 3] = ["@base", "git", "direnv"];

/// What a builder has, as a service and as an image: Nix, a way to log in, and the shell that Nix's sandboxes show.
pub const BUILDER: [&str; 4] = ["base-files", "busybox-static", "nix-bin", "openssh-server"];

/// What an image of a builder has beside that: it reaches caches.
const BUILDER_IMAGE: [&str; 1] = ["ca-certificates"];

impl Manifest {
    /// Whether an image has an environment of its own in the lock, instead of that of what it is made of.
    pub fn image_is_resolved(&self, image: &str) -> bool {
        self.images.get(image).is_some_and(|image| {
            let more = !image.content.packages.is_empty()
                || image.content.base.is_some()
                || image.content.recommends.is_some()
                || image.kind != ImageKind::Runtime;
            image.of.is_none() || more
        })
    }

    /// The key of the environment that an image holds: its own, or that of what it is made of.
    pub fn image_environment(&self, image: &str) -> Option<String> {
        let of = self.images.get(image)?.of.as_ref();
        Some(of.filter(|_| !self.image_is_resolved(image)).cloned().unwrap_or_else(|| format!("images.{image}")))
    }

    /// What is in an image: what it is made of, and over that what it says itself.
    pub fn image_content(&self, image: &str) -> Option<Content> {
        let image = self.images.get(image)?;
        let mut content = match image.of.as_deref().and_then(|of| self.content(of)) {
            Some(below) => over(below, &image.content),
            None => image.content.clone(),
        };
        let debian = self.unprefixed_are_debians();
        if image.kind == ImageKind::Devcontainer {
            add(&mut content, if debian { &DEVCONTAINER[..] } else { &DEVCONTAINER_OF_NIX[..] });
        }
        if image.kind == ImageKind::Builder {
            content.base = content.base.or(Some(Base::None));
            let source = if debian { "" } else { "debian:" };
            let names = BUILDER.iter().chain(&BUILDER_IMAGE).map(|name| format!("{source}{name}"));
            add(&mut content, &names.collect::<Vec<_>>());
        }
        // Nothing that isn't asked for but the names of users and of the release, which servers and scanners look up.
        // What a service runs in is asked for by the service.
        if image.of.is_none() && image.kind == ImageKind::Runtime && content.base.is_none() {
            content.base = Some(Base::None);
            if debian {
                add(&mut content, &RUNTIME);
            }
        }
        Some(content)
    }

    /// The content of a shell, a service or an image by its key, `services.web`.
    pub fn content_of(&self, key: &str) -> Option<Cow<'_, Content>> {
        match key.strip_prefix("images.") {
            Some(image) => self.image_content(image).map(Cow::Owned),
            None => self.content(key).map(Cow::Borrowed),
        }
    }

    fn content(&self, key: &str) -> Option<&Content> {
        match key.split_once('.')? {
            ("shells", name) => self.shells.get(name).map(|s| &s.content),
            ("services" | "tasks", name) => self.services.get(name).map(|s| &s.content),
            _ => None,
        }
    }
}

/// `content` on top of `below`.
fn over(below: &Content, content: &Content) -> Content {
    let mut all = below.clone();
    all.packages.extend(content.packages.iter().filter(|p| below.packages.iter().all(|b| b.text != p.text)).cloned());
    all.env.extend(content.env.clone());
    all.user = content.user.clone().or(all.user);
    all.workdir = content.workdir.clone().or(all.workdir);
    all.copy.extend(content.copy.clone());
    all.recommends = content.recommends.or(all.recommends);
    all.base = content.base.or(all.base);
    all
}

/// Adds packages that a kind of image has, unless they are there or left out.
fn add<T: AsRef<str>>(content: &mut Content, packages: &[T]) {
    for text in packages.iter().map(AsRef::as_ref) {
        let out = format!("!{text}");
        if content.packages.iter().all(|p| p.text != text && p.text != out) {
            content.packages.push(implied(text));
        }
    }
}

fn implied(text: &str) -> PackageSpec {
    let kind = match text.strip_prefix('@') {
        Some(set) => SpecKind::Set(set.to_owned()),
        None => {
            let (source, name) = text.split_once(':').map_or((None, text), |(source, name)| (Some(source), name));
            let source = source.map(str::to_owned);
            SpecKind::Package { source, name: name.to_owned(), version: None, suite: None }
        }
    };
    PackageSpec { text: text.to_owned(), span: 0..0, kind }
}

impl Image {
    /// Who the image adds: whom it says, else `app` in a runtime image without a user and `vscode` in a devcontainer.
    pub fn account(&self, user: Option<&str>) -> Option<&str> {
        match self.kind {
            ImageKind::Runtime | ImageKind::Devcontainer if self.account.is_some() => self.account.as_deref(),
            ImageKind::Devcontainer => Some("vscode"),
            ImageKind::Runtime if user.is_none() => Some("app"),
            ImageKind::Runtime | ImageKind::Builder => None,
        }
    }
}
