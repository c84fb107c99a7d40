//! What an image of a project is: from its manifest and lock to what `igloo-image` makes.

use std::collections::BTreeMap;
use std::path::Path;

use igloo_base::At as _;
use igloo_env::Environment;
use igloo_formats::nix::StorePath;
use igloo_formats::oci::{Config, Empty, Healthcheck};
use igloo_image::entry::Entry;
use igloo_image::{Account, Additions, Appended, ImageError};
use igloo_manifest::lock::LockedPath;
use igloo_manifest::template;
use igloo_manifest::words::signal_name;
use igloo_manifest::{Content, Image, ImageFileContent, ImageKind, Port, Probe, Service, Volume};

use crate::builder::content as builder;
use crate::error::OpsError;
use crate::project::Project;

/// Largest file that `files` copies; larger ones are for `copy`, which streams.
const MAX_FILE: u64 = 16 << 20;
/// The id of the account that an image adds.
const ACCOUNT: u32 = 1000;

/// What an image has of Nix's.
pub(super) struct OfNix<'l> {
    /// Everything, sorted.
    pub(super) closure: &'l [&'l LockedPath],
    /// What was asked for.
    pub(super) roots: Vec<StorePath>,
    /// Whether there is nothing of Debian's.
    pub(super) alone: bool,
    /// Where temporary files may be.
    pub(super) scratch: &'l Path,
}

/// What is added to an environment, and how the image is run.
pub(super) fn spec(
    project: &Project,
    name: &str,
    image: &Image,
    content: &Content,
    environment: &Environment,
    of_nix: &OfNix<'_>,
) -> Result<(Additions, Config), OpsError> {
    let service = image.of.as_deref().and_then(|of| of.strip_prefix("services."));
    let service = service.and_then(|service| project.manifest.services.get(service));
    let account = image.account(content.user.as_deref()).map(|login| account(image, login, environment));
    let person = match (&content.user, &account) {
        (Some(user), _) => Some(owner(name, user, environment, account.as_ref())?),
        (None, Some(account)) => Some((account.id, account.id)),
        (None, None) => None,
    };
    let (uid, gid) = person.unwrap_or((0, 0));
    let mut additions = Additions { account: account.clone(), ..Additions::default() };
    if of_nix.alone {
        super::nix::skeleton(&mut additions);
    }
    let is_builder = image.kind == ImageKind::Builder;
    if image.nix_db || (is_builder && !of_nix.closure.is_empty()) {
        super::nix::database(&mut additions, of_nix, (uid, gid))?;
    }
    if is_builder {
        super::nix::builder(&mut additions);
    }
    for file in &image.files {
        let (uid, gid) = match &file.owner {
            Some(text) => owner(name, text, environment, account.as_ref())?,
            None => (0, 0),
        };
        let path = file.path.trim_matches('/').to_owned();
        let entry = match &file.content {
            ImageFileContent::Text(text) => Entry::bytes(path, text.as_bytes()),
            ImageFileContent::From(from) => {
                let from = project.directory.join(from);
                let size = std::fs::metadata(&from).at("read", &from)?.len();
                if size > MAX_FILE {
                    return Err(OpsError::FileTooLarge { image: name.to_owned(), path: from });
                }
                Entry::bytes(path, std::fs::read(&from).at("read", &from)?)
            }
            ImageFileContent::Link(target) => Entry::link(path, target.as_str()),
            ImageFileContent::Directory => Entry::dir(path),
        };
        let mode = file.mode.unwrap_or(entry.mode);
        additions.entries.push(entry.with(mode, uid, gid));
    }
    let of_kind = if is_builder { builder::VOLUMES.map(str::to_owned).to_vec() } else { Vec::new() };
    let of_service = || service.map(named_volumes).unwrap_or(of_kind);
    let volumes = image.volumes.clone().unwrap_or_else(of_service);
    additions.directories.extend(volumes.iter().map(|path| (path.clone(), uid, gid)));
    additions.directories.extend(content.workdir.iter().map(|path| (path.clone(), uid, gid)));
    let mut env = environment.env.clone();
    let mut labels = image.labels.clone();
    if let (ImageKind::Devcontainer, Some(account)) = (image.kind, &account) {
        devcontainer(account, environment, &mut additions);
        env.insert("SHELL".to_owned(), account.shell.clone());
        labels.entry("devcontainer.metadata".to_owned()).or_insert_with(|| metadata(&account.name));
    }
    // A value that asks the machine is its default in an image: images are for other machines, and hold no secrets.
    let values = content.env.iter().filter_map(|(name, value)| {
        let value = if service.is_some() { template::expand(value, &|_| None).ok()? } else { value.clone() };
        Some((name.clone(), value))
    });
    env.extend(values);
    let set = |paths: Vec<String>| paths.into_iter().map(|path| (path, Empty {})).collect::<BTreeMap<_, _>>();
    let ports = image.ports.as_ref().or(service.map(|s| &s.ports)).map(|p| p.iter().map(port).collect());
    let ports = ports.or_else(|| is_builder.then(|| vec!["22/tcp".to_owned()]));
    let entrypoint = is_builder.then(|| builder::COMMAND.map(str::to_owned).to_vec());
    let config = Config {
        user: person.map(|(uid, gid)| format!("{uid}:{gid}")),
        exposed_ports: ports.filter(|p: &Vec<String>| !p.is_empty()).map(set),
        env: Some(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
        entrypoint: image.entrypoint.clone().or(entrypoint),
        cmd: image.run.clone().or_else(|| service.map(|s| s.run.clone())).or_else(|| default_command(image.kind)),
        volumes: Some(volumes).filter(|v| !v.is_empty()).map(set),
        working_dir: content.workdir.clone().or_else(|| home(image.kind, account.as_ref())),
        labels: Some(labels).filter(|l| !l.is_empty()),
        stop_signal: image.stop_signal.or(service.map(|s| s.stop_signal)).map(|n| signal_name(n).to_owned()),
        healthcheck: healthcheck(image, service),
    };
    Ok((additions, config))
}

fn account(image: &Image, login: &str, environment: &Environment) -> Account {
    let shell = match image.kind {
        ImageKind::Devcontainer => "/bin/bash",
        _ => "/usr/sbin/nologin",
    };
    match environment.users.iter().find(|u| u.name == login || u.uid == ACCOUNT) {
        Some(user) => {
            Account { name: user.name.clone(), id: user.uid, home: user.home.clone(), shell: user.shell.clone() }
        }
        None => {
            Account { name: login.to_owned(), id: ACCOUNT, home: format!("/home/{login}"), shell: shell.to_owned() }
        }
    }
}

/// User and group ids of a text such as `postgres`, `app:www-data` or `1000:1000`.
fn owner(
    image: &str,
    text: &str,
    environment: &Environment,
    account: Option<&Account>,
) -> Result<(u32, u32), OpsError> {
    let (who, group) = text.split_once(':').map_or((text, None), |(who, group)| (who, Some(group)));
    let ours = account.filter(|a| a.name == who);
    let gid = match group {
        Some(group) if account.is_some_and(|a| a.name == group) => ours.map(|a| a.id),
        _ => None,
    };
    let lookup = match (ours, group) {
        (Some(account), None) => return Ok((account.id, account.id)),
        (Some(account), Some(group)) => environment.lookup_user(&format!("{}:{group}", account.id)),
        (None, _) => environment.lookup_user(text),
    };
    match (lookup, gid, ours) {
        (_, Some(gid), Some(account)) => Ok((account.id, gid)),
        (Some(user), _, _) => Ok((user.uid, user.gid)),
        _ => Err(ImageError::NoUser { image: image.to_owned(), name: text.to_owned() }.into()),
    }
}

fn named_volumes(service: &Service) -> Vec<String> {
    let named = service.volumes.iter().filter(|v| matches!(v, Volume::Named { .. }));
    named.map(|v| v.target().to_owned()).collect()
}

fn port(port: &Port) -> String {
    format!("{}/{}", port.container, if port.udp { "udp" } else { "tcp" })
}

fn default_command(kind: ImageKind) -> Option<Vec<String>> {
    (kind == ImageKind::Devcontainer).then(|| vec!["/bin/bash".to_owned()])
}

fn home(kind: ImageKind, account: Option<&Account>) -> Option<String> {
    account.filter(|_| kind == ImageKind::Devcontainer).map(|a| a.home.clone())
}

fn healthcheck(image: &Image, service: Option<&Service>) -> Option<Healthcheck> {
    let nanoseconds = |d: std::time::Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let test = |words: &[String]| Some([&["CMD".to_owned()][..], words].concat());
    match (&image.healthcheck, service.and_then(|s| s.ready.as_ref())) {
        (Some(check), _) => Some(Healthcheck {
            test: test(&check.exec),
            interval: check.interval.map(nanoseconds),
            timeout: check.timeout.map(nanoseconds),
            start_period: check.start_period.map(nanoseconds),
            retries: check.retries,
        }),
        // Only a command can be told to docker; for the other probes an image would need a client of its own.
        (None, Some(ready)) => match &ready.probe {
            Probe::Exec(words) => Some(Healthcheck {
                test: test(words),
                start_period: Some(nanoseconds(ready.timeout)),
                ..Default::default()
            }),
            _ => None,
        },
        (None, None) => None,
    }
}

/// What an editor's tools read from a prebuilt image: who works in it, and that ids follow those of the machine.
fn metadata(user: &str) -> String {
    let value = serde_json::json!([{ "remoteUser": user, "containerUser": user, "updateRemoteUserUID": true }]);
    value.to_string()
}

const HOOK: &str = r#"
# Where you are, and on which branch.
__igloo_branch() { git symbolic-ref --short HEAD 2>/dev/null | sed 's/.*/ (&)/'; }
PS1='\[\e[32m\]\u\[\e[0m\]:\[\e[34m\]\w\[\e[33m\]$(__igloo_branch)\[\e[0m\]\$ '
command -v direnv >/dev/null && eval "$(direnv hook bash)"
"#;
const ZSH_HOOK: &str = "autoload -Uz compinit && compinit\nPROMPT='%F{green}%n%f:%F{blue}%~%f%# '\n\
                        command -v direnv >/dev/null && eval \"$(direnv hook zsh)\"\n";
const FISH_HOOK: &str = "command -q direnv; and direnv hook fish | source\n";

/// What a person and an editor expect to find: a home, a prompt, `sudo` without a password, a place for the code.
fn devcontainer(account: &Account, environment: &Environment, additions: &mut Additions) {
    let Account { name, id, home, .. } = account;
    let home = home.trim_matches('/');
    let sudoers = Entry::bytes(format!("etc/sudoers.d/{name}"), format!("{name} ALL=(ALL:ALL) NOPASSWD:ALL\n"));
    additions.entries.push(sudoers.with(0o440, 0, 0));
    let has = |package: &str| {
        let prefix = format!("deb-{package}-");
        environment.members.iter().any(|(path, _)| path.to_string().get(33..).is_some_and(|n| n.starts_with(&prefix)))
    };
    if !has("base-files") {
        // VS Code looks for the C library where others have it, unless this says that it isn't there.
        additions.entries.push(Entry::bytes("etc/os-release".to_owned(), b"ID=nixos\nNAME=\"NixOS\"\n"));
    }
    let appended = |path: &str, from: &str, text: &str| Appended {
        path: format!("{home}/{path}"),
        from: from.to_owned(),
        text: text.to_owned(),
        owner: *id,
    };
    additions.appended.push(appended(".bashrc", "etc/skel/.bashrc", HOOK));
    additions.appended.push(appended(".profile", "etc/skel/.profile", ""));
    if has("zsh") {
        additions.appended.push(appended(".zshrc", "", ZSH_HOOK));
    }
    if has("fish") {
        for directory in [".config", ".config/fish"] {
            additions.directories.push((format!("/{home}/{directory}"), *id, *id));
        }
        additions.appended.push(appended(".config/fish/config.fish", "", FISH_HOOK));
    }
    for directory in ["/workspaces".to_owned(), format!("/{home}/.vscode-server"), format!("/{home}/.cache")] {
        additions.directories.push((directory, *id, *id));
    }
}
