//! `[services.*]`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::fields::{Context, Fields};
use super::{Places, content, header};
use crate::keys;
use crate::manifest::{Isolation, Limits, Port, Probe, Ready, Restart, Secret, Service, Volume};
use crate::node::{Entry, Node, Value};
use crate::{template, words};

/// `SIGTERM`
const STOP_SIGNAL: i32 = 15;
const STOP_GRACE: Duration = Duration::from_secs(10);
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const READY_INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn service(cx: &mut Context, entry: &Entry, places: &mut Places) -> Option<Service> {
    let name = entry.key.to_string();
    // Noted even if it turns out bad, so that nobody is told that it does not exist.
    places.services.insert(name.clone(), header(entry));
    cx.good_key(entry, words::name(&name, "a service"))?;
    let mut fields = Fields::open(cx, &keys::SERVICE, &format!("services.{name}"), &entry.node, header(entry))?;
    let content = content::content(cx, &mut fields);
    let run = fields.command(cx, "run");
    let setup = fields.command(cx, "setup");
    let mut needs = Vec::new();
    if let Some(node) = fields.get("needs") {
        for (text, node) in cx.texts("needs", node) {
            places.needs.push((name.clone(), text.to_owned(), node.inner_span(cx.text)));
            if !needs.iter().any(|n| n == text) {
                needs.push(text.to_owned());
            }
        }
    }
    let volumes = fields.get("volumes").map(|node| volumes(cx, node)).unwrap_or_default();
    let ports = fields.get("ports").map(|node| ports(cx, node, &name, places)).unwrap_or_default();
    let ready = fields.entry("ready").and_then(|e| ready(cx, e, &ports));
    let restart = fields.choice(cx, "restart", &Restart::NAMES).unwrap_or_default();
    let limits = fields.entry("limits").and_then(|e| limits(cx, e)).unwrap_or_default();
    let stop_signal = fields.parsed(cx, "stop-signal", words::signal).unwrap_or(STOP_SIGNAL);
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
    let read_only = fields.flag(cx, "read-only").unwrap_or(false);
    Some(Service {
        content,
        run: run?,
        setup,
        needs,
        volumes,
        ports,
        ready,
        restart,
        limits,
        stop_signal,
        stop_grace,
        isolation,
        hostname,
        sandboxes: !loosen.is_empty(),
        env_files,
        secrets,
        read_only,
    })
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

fn ready(cx: &mut Context, entry: &Entry, ports: &[Port]) -> Option<Ready> {
    let mut fields = Fields::open(cx, &keys::READY, "ready", &entry.node, header(entry))?;
    let before = cx.diagnostics.len();
    let mut probes = Vec::new();
    probes.extend(fields.command(cx, "exec").map(Probe::Exec));
    if let Some(node) = fields.get("tcp") {
        let text = match &node.value {
            Value::Integer(number) => Some(number.to_string()),
            _ => cx.text("tcp", node).map(str::to_owned),
        };
        probes.extend(text.and_then(|text| cx.good(node, words::tcp(&text))));
    }
    probes.extend(fields.parsed(cx, "http", |text| http(text, ports)).map(|url| Probe::Http { url }));
    if let Some(node) = fields.get("notify") {
        match node.value {
            Value::Flag(true) => probes.push(Probe::Notify),
            Value::Flag(false) => {
                let help = "remove `ready`, and a started service is a ready one".to_owned();
                cx.error(node.span.clone(), "`notify = false` says nothing", "", Some(help));
            }
            _ => cx.wrong("notify", node, "true", None),
        }
    }
    if let Some((text, node)) = fields.text(cx, "log") {
        match regex::Regex::new(text) {
            _ if text.is_empty() => cx.error(node.span.clone(), "`log` is empty", "every line would match", None),
            Ok(_) => probes.push(Probe::Log(text.to_owned())),
            Err(e) => {
                // Its message is a drawing of several lines, the last of which says what is wrong.
                let why = e.to_string();
                let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
                cx.error(node.inner_span(cx.text), format!("`log` is no regular expression: {why}"), "", None);
            }
        }
    }
    let timeout = fields.parsed(cx, "timeout", words::duration).unwrap_or(READY_TIMEOUT);
    let interval = fields.parsed(cx, "interval", |text| match words::duration(text) {
        Ok(Duration::ZERO) => Err(words::BadText::new("`interval` cannot be zero", "200ms is the default")),
        other => other,
    });
    let help = || Some("exactly one of `exec`, `tcp`, `http`, `notify` and `log`".to_owned());
    match (probes.len(), cx.diagnostics.len() == before) {
        (1, _) => {
            let probe = probes.pop()?;
            Some(Ready { probe, timeout, interval: interval.unwrap_or(READY_INTERVAL) })
        }
        // Something was meant to be the probe, and was already pointed at.
        (0, false) => None,
        (0, true) => {
            cx.error(header(entry), "`ready` does not say what to try", "no probe", help());
            None
        }
        (n, _) => {
            cx.error(header(entry), format!("`ready` has {n} probes"), "more than one probe", help());
            None
        }
    }
}

/// A whole address, or a path on the service's first TCP port.
fn http(text: &str, ports: &[Port]) -> Result<String, words::BadText> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(words::BadText::new(
            format!("`{text}` is no address"),
            "`http://localhost:5000/healthz` or `/healthz`",
        ));
    }
    if text.starts_with('/') {
        return match ports.iter().find(|p| !p.udp) {
            Some(port) => Ok(format!("http://localhost:{}{text}", port.container)),
            None => Err(words::BadText::new(
                format!("`{text}` needs a port, and the service has no `ports`"),
                format!("write the whole address: `http://localhost:PORT{text}`"),
            )),
        };
    }
    match text.strip_prefix("http://") {
        Some(rest) if !rest.is_empty() && !rest.starts_with(['/', ':', '?']) => Ok(text.to_owned()),
        _ => {
            let help = match text.starts_with("https://") {
                true => {
                    "readiness is asked from inside the service, without TLS: `http://localhost:PORT/`, or use `tcp`"
                }
                false => "`http://localhost:5000/healthz`, or `/healthz` on the service's first port",
            };
            Err(words::BadText::new(format!("`{text}` is no address to ask"), help))
        }
    }
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
    Some(Limits { memory, cpus, pids })
}
