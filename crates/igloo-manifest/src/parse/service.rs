//! `[services.*]`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::fields::{Context, Fields};
use super::{Places, content, header, lifecycle};
use crate::keys;
use crate::manifest::{Isolation, Limits, Network, Port, Restart, Secret, Service, Task, Volume};
use crate::node::{Entry, Node, Value};
use crate::{template, words};

/// `SIGTERM`
const STOP_SIGNAL: i32 = 15;
/// `SIGRTMIN+3`, by which systemd halts.
const STOP_SYSTEM: i32 = 37;
const STOP_GRACE: Duration = Duration::from_secs(10);

pub(super) fn service(cx: &mut Context, entry: &Entry, places: &mut Places) -> Option<Service> {
    let name = entry.key.to_string();
    // Noted even if it turns out bad, so that nobody is told that it does not exist.
    places.services.insert(name.clone(), header(entry));
    cx.good_key(entry, words::name(&name, "a service"))?;
    let mut fields = Fields::open(cx, &keys::SERVICE, &format!("services.{name}"), &entry.node, header(entry))?;
    let content = content::content(cx, &mut fields);
    let init = fields.choice(cx, "init", &[("system", true)]).unwrap_or(false);
    let run = fields.command(cx, "run");
    // Where systems have it.
    let run = run.or_else(|| (init && fields.get("run").is_none()).then(|| vec!["/sbin/init".to_owned()]));
    let setup = fields.command(cx, "setup");
    let needs = fields.get("needs").map(|node| lifecycle::needs(cx, node, &name, places)).unwrap_or_default();
    let volumes = fields.get("volumes").map(|node| volumes(cx, node)).unwrap_or_default();
    let ports = fields.get("ports").map(|node| ports(cx, node, &name, places)).unwrap_or_default();
    let ready = fields.entry("ready").and_then(|e| lifecycle::ready(cx, e, &ports));
    let ready = ready.or_else(|| init.then(lifecycle::system_ready));
    let health = fields.entry("health").and_then(|e| lifecycle::health(cx, e, &ports));
    let (restart, backoff) = lifecycle::restart(cx, fields.entry("restart"));
    let reload = fields.get("reload").and_then(|node| lifecycle::reload(cx, node));
    let profiles = fields.get("profiles").map(|node| lifecycle::profiles(cx, node)).unwrap_or_default();
    let replicas = fields.integer(cx, "replicas").and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
    let watch = fields.get("watch").map(|node| lifecycle::watch(cx, node)).unwrap_or_default();
    if replicas > 1
        && let Some(port) = ports.iter().find(|p| p.host.is_some())
    {
        let help = format!("let each take a free one: `auto:{}`", port.container);
        let span = fields.entry("replicas").map(|e| e.node.span.clone()).unwrap_or_default();
        cx.error(span, "replicas can't all have one port", "", Some(help));
    }
    let limits = fields.entry("limits").and_then(|e| limits(cx, e)).unwrap_or_default();
    let stop_signal = fields.parsed(cx, "stop-signal", words::signal);
    let stop_signal = stop_signal.unwrap_or(if init { STOP_SYSTEM } else { STOP_SIGNAL });
    let stop_grace = fields.parsed(cx, "stop-grace", words::duration).unwrap_or(STOP_GRACE);
    let isolation = fields.choice(cx, "isolation", &Isolation::NAMES).unwrap_or(Isolation::Container);
    let hostname = fields.checked(cx, "hostname", words::hostname);
    let loosen = fields.get("loosen").map(|node| cx.texts("loosen", node)).unwrap_or_default();
    for (text, node) in &loosen {
        if *text != "sandboxes" {
            let message = format!("`{text}` can't be given up");
            cx.error(node.inner_span(cx.text), message, "", Some("`sandboxes` can".to_owned()));
        }
    }
    for (name, value) in &content.env {
        if let Err(bad) = template::check(value) {
            let span = env_span(entry, name).unwrap_or_else(|| header(entry));
            cx.error(span, bad.message, "", bad.help);
        }
    }
    let env_files = fields.get("env-file").map(|node| cx.texts("env-file", node)).unwrap_or_default();
    let env_files = env_files.into_iter().filter_map(|(text, node)| cx.good(node, words::path(text))).collect();
    let secrets = fields.entry("secrets").map(|e| secrets(cx, e)).unwrap_or_default();
    let network = fields.choice(cx, "network", &Network::NAMES).unwrap_or_default();
    let host = fields.get("host").map(|node| host_ports(cx, node)).unwrap_or_default();
    if let (Network::None, Some(node)) = (network, fields.get("host").filter(|_| !host.is_empty())) {
        let help = Some("remove one of the two".to_owned());
        cx.error(node.span.clone(), "a service with `network = \"none\"` reaches no host", "", help);
    }
    let read_only = fields.flag(cx, "read-only").unwrap_or(false);
    let asked = fields.get("run").is_some();
    let image = fields.checked(cx, "image", words::foreign_image);
    let entrypoint = fields.command(cx, "entrypoint");
    let mut span_of = |name| fields.entry(name).map(|e| e.node.span.clone()).unwrap_or_else(|| header(entry));
    match &image {
        Some(_) if !content.packages.is_empty() || content.base.is_some() || content.recommends.is_some() => {
            let message = format!("service `{name}` has an image and packages");
            cx.error(span_of("image"), message, "", Some("keep one of the two".to_owned()));
        }
        None if entrypoint.is_some() => {
            let help = "write all of the command in `run`".to_owned();
            cx.error(span_of("entrypoint"), "only an image has an entry point", "", Some(help));
        }
        None if run.is_none() && !asked => {
            let help = "add `run = [\"program\", \"argument\"]`, or an `image`".to_owned();
            cx.error(header(entry), format!("service `{name}` has nothing to run"), "", Some(help));
        }
        _ => {}
    }
    Some(Service {
        content,
        // An image has a command of its own.
        run: if image.is_some() { run.unwrap_or_default() } else { run? },
        image,
        entrypoint,
        setup,
        needs,
        volumes,
        ports,
        ready,
        health,
        restart,
        backoff,
        reload,
        profiles,
        replicas,
        watch,
        task: None,
        limits,
        stop_signal,
        stop_grace,
        isolation,
        hostname,
        sandboxes: !loosen.is_empty(),
        env_files,
        secrets,
        read_only,
        init,
        network,
        host,
    })
}

fn host_ports(cx: &mut Context, node: &Node) -> Vec<u16> {
    let mut ports = Vec::new();
    for node in cx.list("host", node).unwrap_or_default() {
        match node.value {
            Value::Integer(number) => match u16::try_from(number) {
                Ok(port) if port > 0 => ports.push(port),
                _ => cx.error(node.span.clone(), format!("`{number}` is no port from 1 to 65535"), "", None),
            },
            _ => cx.wrong("host", node, "a list of ports", Some("`host = [5432]`".to_owned())),
        }
    }
    ports
}

/// Where a value of `env` is written.
fn env_span(service: &Entry, name: &str) -> Option<Range<usize>> {
    let below = |node: &Node, key: &str| match &node.value {
        Value::Table(entries) => entries.iter().position(|e| e.key == key),
        _ => None,
    };
    let Value::Table(entries) = &service.node.value else { return None };
    let env = &entries[below(&service.node, "env")?].node;
    let Value::Table(entries) = &env.value else { return None };
    Some(entries[below(env, name)?].node.span.clone())
}

fn secrets(cx: &mut Context, entry: &Entry) -> BTreeMap<String, Secret> {
    let mut secrets = BTreeMap::new();
    for entry in cx.entries("secrets", &entry.node).unwrap_or_default() {
        let name = entry.key.to_string();
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > 127 || name.starts_with('.') || !name.chars().all(good) {
            let help = "letters, digits, `_`, `-` and `.`, no dot first".to_owned();
            cx.error(entry.key_span.clone(), format!("`{name}` can't name a secret"), "", Some(help));
            continue;
        }
        let what = format!("secrets.{name}");
        let Some(mut fields) = Fields::open(cx, &keys::SECRET, &what, &entry.node, entry.key_span.clone()) else {
            continue;
        };
        let before = cx.diagnostics.len();
        let mut sources = Vec::new();
        sources.extend(fields.parsed(cx, "file", words::path).map(Secret::File));
        sources.extend(fields.checked(cx, "env", words::variable).map(Secret::Env));
        sources.extend(fields.command(cx, "command").map(Secret::Command));
        match (sources.len(), sources.pop()) {
            (1, Some(source)) => drop(secrets.insert(name, source)),
            _ if cx.diagnostics.len() > before => {}
            (n, _) => {
                let help = "exactly one of `file`, `env` and `command`".to_owned();
                cx.error(entry.key_span.clone(), format!("the secret `{name}` has {n} sources"), "", Some(help));
            }
        }
    }
    secrets
}

fn volumes(cx: &mut Context, node: &Node) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::new();
    for (text, node) in cx.texts("volumes", node) {
        let Some(volume) = cx.good(node, words::volume(text)) else { continue };
        if volumes.iter().any(|v| v.target() == volume.target()) {
            let message = format!("two volumes are mounted at `{}`", volume.target());
            cx.error(node.inner_span(cx.text), message, "the second one", None);
        }
        volumes.push(volume);
    }
    volumes
}

fn ports(cx: &mut Context, node: &Node, service: &str, places: &mut Places) -> Vec<Port> {
    let mut ports = Vec::new();
    for node in cx.list("ports", node).unwrap_or_default() {
        let text = match &node.value {
            Value::Integer(number) => number.to_string(),
            _ => match cx.text("ports", node) {
                Some(text) => text.to_owned(),
                None => continue,
            },
        };
        if let Some(port) = cx.good(node, words::port(&text)) {
            places.ports.push((service.to_owned(), port.clone(), node.inner_span(cx.text)));
            ports.push(port);
        }
    }
    ports
}

/// `[tasks.*]`: a service that ends.
pub(super) fn task(cx: &mut Context, entry: &Entry, places: &mut Places) -> Option<Service> {
    let name = entry.key.to_string();
    places.tasks.insert(name.clone(), (header(entry), header(entry)));
    cx.good_key(entry, words::name(&name, "a task"))?;
    let mut fields = Fields::open(cx, &keys::TASK, &format!("tasks.{name}"), &entry.node, header(entry))?;
    let content = content::content(cx, &mut fields);
    let run = fields.command(cx, "run");
    let of = fields.checked(cx, "of", |of| words::name(of, "a service"));
    if let Some(node) = fields.get("of") {
        places.tasks.insert(name.clone(), (header(entry), node.inner_span(cx.text)));
        if !content.packages.is_empty() || !content.copy.is_empty() || content.base.is_some() {
            let message = format!("task `{name}` is `of` a service and has packages or files of its own");
            cx.error(node.inner_span(cx.text), message, "", Some("keep one of the two".to_owned()));
        }
    }
    let needs = fields.get("needs").map(|node| lifecycle::needs(cx, node, &name, places)).unwrap_or_default();
    let volumes = fields.get("volumes").map(|node| volumes(cx, node)).unwrap_or_default();
    let limits = fields.entry("limits").and_then(|e| limits(cx, e)).unwrap_or_default();
    let every = fields.parsed(cx, "every", lifecycle::not_zero("every"));
    Some(Service {
        content,
        image: None,
        entrypoint: None,
        run: run?,
        setup: None,
        needs,
        volumes,
        ports: Vec::new(),
        ready: None,
        health: None,
        restart: Restart::No,
        backoff: lifecycle::backoff(Restart::No),
        reload: None,
        profiles: Vec::new(),
        replicas: 1,
        watch: Vec::new(),
        task: Some(Task { of, every }),
        env_files: Vec::new(),
        secrets: Default::default(),
        read_only: false,
        init: false,
        network: Network::default(),
        host: Vec::new(),
        limits,
        stop_signal: STOP_SIGNAL,
        stop_grace: STOP_GRACE,
        isolation: Isolation::Container,
        hostname: None,
        sandboxes: false,
    })
}

fn limits(cx: &mut Context, entry: &Entry) -> Option<Limits> {
    let mut fields = Fields::open(cx, &keys::LIMITS, "limits", &entry.node, header(entry))?;
    let memory = fields.parsed(cx, "memory", words::size);
    let cpus = fields.get("cpus").and_then(|node| {
        let number = match node.value {
            Value::Integer(number) => number as f64,
            Value::Float(number) => number,
            _ => {
                cx.wrong("cpus", node, "a number", None);
                return None;
            }
        };
        // The kernel takes no quota below a millisecond in 100.
        if number.is_finite() && (0.01..=4096.0).contains(&number) {
            return Some(number);
        }
        cx.error(node.span.clone(), "`cpus` must be from 0.01 to 4096", "", None);
        None
    });
    let pids = fields.integer(cx, "pids").and_then(|n| u64::try_from(n).ok());
    let shm = fields.parsed(cx, "shm", words::size);
    let nofile = fields.integer(cx, "nofile").and_then(|n| u64::try_from(n).ok());
    Some(Limits { memory, cpus, pids, shm, nofile })
}
