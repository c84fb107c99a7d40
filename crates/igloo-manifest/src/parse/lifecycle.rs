//! How services become ready, stay well, are started again, reload, and need each other; what tasks are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fields::{self, Context, Fields};
use super::{Places, header};
use crate::glob::Glob;
use crate::keys;
use crate::manifest::{
    Backoff, Condition, Health, Need, OnUnhealthy, Port, Probe, Ready, Reload, Restart, Service, Task, Watch,
    WatchAction,
};
use crate::node::{Entry, Node, Value};
use crate::words::{self, BadText};

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const READY_INTERVAL: Duration = Duration::from_millis(200);

/// A whole system says so itself.
pub(super) fn system_ready() -> Ready {
    Ready { probe: Probe::Notify, timeout: READY_TIMEOUT, interval: READY_INTERVAL }
}
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
const HEALTH_RETRIES: u32 = 3;

/// A duration that is one.
pub(super) fn not_zero(key: &'static str) -> impl Fn(&str) -> Result<Duration, BadText> {
    move |text| match words::duration(text) {
        Ok(Duration::ZERO) => Err(BadText::new(format!("`{key}` cannot be zero"), "`200ms`, `30s`, `5m` ...")),
        other => other,
    }
}

/// Names, or tables with a condition.
pub(super) fn needs(cx: &mut Context, node: &Node, service: &str, places: &mut Places) -> Vec<Need> {
    let mut needs: Vec<Need> = Vec::new();
    for item in cx.list("needs", node).unwrap_or_default() {
        let (name, condition, span) = match &item.value {
            Value::Table(_) => {
                let Some(mut fields) = Fields::open(cx, &keys::NEED, "needs", item, item.span.clone()) else {
                    continue;
                };
                let condition = fields.choice(cx, "condition", &Condition::NAMES).unwrap_or_default();
                let Some((name, at)) = fields.text(cx, "service") else { continue };
                (name.to_owned(), condition, at.inner_span(cx.text))
            }
            _ => match cx.text("needs", item) {
                Some(name) => (name.to_owned(), Condition::default(), item.inner_span(cx.text)),
                None => continue,
            },
        };
        places.needs.push((service.to_owned(), name.clone(), span.clone()));
        match needs.iter().find(|n| n.service == name) {
            None => needs.push(Need { service: name, condition }),
            Some(before) if before.condition == condition => {}
            Some(_) => cx.error(span, format!("`{name}` is needed in two ways"), "the second one", None),
        }
    }
    needs
}

/// The probes that a table names, and whether all that it says of them makes sense.
fn probes(cx: &mut Context, fields: &mut Fields, ports: &[Port], no_notify: &str) -> Vec<Probe> {
    let mut probes = Vec::new();
    probes.extend(fields.command(cx, "exec").map(Probe::Exec));
    if let Some(node) = fields.get("tcp") {
        let text = match &node.value {
            Value::Integer(number) => Some(number.to_string()),
            _ => cx.text("tcp", node).map(str::to_owned),
        };
        probes.extend(text.and_then(|text| cx.good(node, words::tcp(&text))));
    }
    let url = fields.parsed(cx, "http", |text| http(text, ports));
    let (status, headers) = (fields.get("status"), fields.get("headers"));
    if url.is_none() && fields.get("http").is_none() {
        for (name, node) in [("status", status), ("headers", headers)] {
            if let Some(node) = node {
                cx.error(node.span.clone(), format!("`{name}` is for `http`"), "", None);
            }
        }
    }
    if let Some(url) = url {
        let status = status.map(|node| statuses(cx, node)).unwrap_or_default();
        let headers = fields.map(cx, "headers").into_iter().filter_map(|(name, (value, span))| {
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            let taken = ["host", "connection", "content-length"].contains(&name.to_ascii_lowercase().as_str());
            if name.is_empty() || !name.chars().all(token) || value.contains(|c: char| c.is_control()) || taken {
                cx.error(span, format!("`{name}` can't be sent as a header"), "", None);
                return None;
            }
            Some((name, value))
        });
        probes.push(Probe::Http { url, headers: headers.collect(), status });
    }
    if let Some(node) = fields.get("notify") {
        match node.value {
            Value::Flag(true) => probes.push(Probe::Notify),
            Value::Flag(false) => {
                let help = no_notify.to_owned();
                cx.error(node.span.clone(), "`notify = false` says nothing", "", Some(help));
            }
            _ => cx.wrong("notify", node, "true", None),
        }
    }
    probes
}

/// `200`, `"200-299"`, or a list of such.
fn statuses(cx: &mut Context, node: &Node) -> Vec<(u16, u16)> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|n| (100..600).contains(n));
    let mut ranges = Vec::new();
    for item in items {
        let range = match &item.value {
            Value::Integer(n) => number(&n.to_string()).map(|n| (n, n)),
            Value::Text(text) => match text.split_once('-') {
                Some((from, to)) => number(from).zip(number(to)).filter(|(from, to)| from <= to),
                None => number(text).map(|n| (n, n)),
            },
            _ => None,
        };
        match range {
            Some(range) => ranges.push(range),
            None => {
                let help = Some("`200`, `\"200-299\"`, or a list of such".to_owned());
                cx.error(item.span.clone(), "that is no status of HTTP", "", help);
            }
        }
    }
    ranges
}

/// `ready`.
pub(super) fn ready(cx: &mut Context, entry: &Entry, ports: &[Port]) -> Option<Ready> {
    let mut fields = Fields::open(cx, &keys::READY, "ready", &entry.node, header(entry))?;
    let before = cx.diagnostics.len();
    let mut probes = probes(cx, &mut fields, ports, "remove `ready`, and a started service is a ready one");
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
    let interval = fields.parsed(cx, "interval", not_zero("interval")).unwrap_or(READY_INTERVAL);
    let probe = only(cx, entry, &mut probes, before, "ready", "`exec`, `tcp`, `http`, `notify` and `log`")?;
    Some(Ready { probe, timeout, interval })
}

/// `health`.
pub(super) fn health(cx: &mut Context, entry: &Entry, ports: &[Port]) -> Option<Health> {
    let mut fields = Fields::open(cx, &keys::HEALTH, "health", &entry.node, header(entry))?;
    let before = cx.diagnostics.len();
    let mut probes = probes(cx, &mut fields, ports, "remove `health`");
    let interval = fields.parsed(cx, "interval", not_zero("interval")).unwrap_or(HEALTH_INTERVAL);
    let timeout = fields.parsed(cx, "timeout", not_zero("timeout")).unwrap_or(HEALTH_TIMEOUT);
    let retries = fields.integer(cx, "retries").and_then(|n| u32::try_from(n).ok());
    let on_unhealthy = fields.choice(cx, "on-unhealthy", &OnUnhealthy::NAMES).unwrap_or_default();
    let probe = only(cx, entry, &mut probes, before, "health", "`exec`, `tcp`, `http` and `notify`")?;
    // A word that did not come in time is missed once and for all.
    let usual = if probe == Probe::Notify { 1 } else { HEALTH_RETRIES };
    Some(Health { probe, interval, timeout, retries: retries.unwrap_or(usual), on_unhealthy })
}

/// The one probe.
fn only(
    cx: &mut Context,
    entry: &Entry,
    probes: &mut Vec<Probe>,
    before: usize,
    key: &str,
    kinds: &str,
) -> Option<Probe> {
    let help = || Some(format!("exactly one of {kinds}"));
    match (probes.len(), cx.diagnostics.len() == before) {
        (1, _) => probes.pop(),
        // Something was meant to be the probe, and was already pointed at.
        (0, false) => None,
        (0, true) => {
            cx.error(header(entry), format!("`{key}` does not say what to try"), "no probe", help());
            None
        }
        (n, _) => {
            cx.error(header(entry), format!("`{key}` has {n} probes"), "more than one probe", help());
            None
        }
    }
}

/// How a service is started again unless more is said.
pub(super) fn backoff(policy: Restart) -> Backoff {
    Backoff {
        tries: (policy == Restart::OnFailure).then_some(5),
        first: Duration::from_millis(100),
        most: Duration::from_secs(30),
        healthy: Duration::from_secs(10),
    }
}

/// A word, a word with a number, or a table.
pub(super) fn restart(cx: &mut Context, entry: Option<&Entry>) -> (Restart, Backoff) {
    let usual = (Restart::default(), backoff(Restart::default()));
    let Some(entry) = entry else { return usual };
    match &entry.node.value {
        Value::Table(_) => {
            let Some(mut fields) = Fields::open(cx, &keys::RESTART, "restart", &entry.node, header(entry)) else {
                return usual;
            };
            let policy = fields.choice(cx, "policy", &Restart::NAMES).unwrap_or_default();
            let mut how = backoff(policy);
            if let Some(tries) = fields.integer(cx, "tries").and_then(|n| u32::try_from(n).ok()) {
                how.tries = Some(tries);
            }
            how.first = fields.parsed(cx, "first", not_zero("first")).unwrap_or(how.first);
            how.most = fields.parsed(cx, "most", not_zero("most")).unwrap_or(how.most);
            how.healthy = fields.parsed(cx, "healthy", words::duration).unwrap_or(how.healthy);
            (policy, how)
        }
        Value::Text(text) if text.starts_with("on-failure:") => {
            let mut how = usual;
            match text["on-failure:".len()..].parse::<u32>() {
                // So many times again, after the first.
                Ok(again) if again > 0 => how.1.tries = Some(again.saturating_add(1)),
                _ => {
                    let message = format!("`{text}` does not say how often");
                    cx.error(entry.node.inner_span(cx.text), message, "", Some("`on-failure:3`".to_owned()));
                }
            }
            how
        }
        _ => {
            let policy = fields::choice(cx, "restart", &entry.node, &Restart::NAMES).unwrap_or_default();
            (policy, backoff(policy))
        }
    }
}

/// A signal, or a command.
pub(super) fn reload(cx: &mut Context, node: &Node) -> Option<Reload> {
    match &node.value {
        Value::Text(text) => cx.good(node, words::signal(text)).map(Reload::Signal),
        _ => {
            let words: Vec<String> = cx.texts("reload", node).into_iter().map(|(text, _)| text.to_owned()).collect();
            if words.first().is_none_or(String::is_empty) {
                cx.error(node.span.clone(), "`reload` has no command", "a signal, or a list of words", None);
                return None;
            }
            Some(Reload::Exec(words))
        }
    }
}

/// Names of profiles.
pub(super) fn profiles(cx: &mut Context, node: &Node) -> Vec<String> {
    let texts = cx.texts("profiles", node);
    let good = |(text, node)| cx.good(node, words::name(text, "a profile")).map(|()| text.to_owned());
    texts.into_iter().filter_map(good).collect()
}

/// What is done when files change.
pub(super) fn watch(cx: &mut Context, node: &Node) -> Vec<Watch> {
    let mut all = Vec::new();
    for item in cx.list("watch", node).unwrap_or_default() {
        let Some(mut fields) = Fields::open(cx, &keys::WATCH, "watch", item, item.span.clone()) else { continue };
        let path = fields.parsed(cx, "path", words::inner_path);
        let action = fields.choice(cx, "action", &WatchAction::NAMES).unwrap_or_default();
        let to = fields.parsed(cx, "to", words::absolute);
        let run = fields.get("run").is_some().then(|| fields.command(cx, "run")).flatten();
        let ignore = fields.get("ignore").map(|node| cx.texts("ignore", node)).unwrap_or_default();
        let ignore = ignore.into_iter().filter_map(|(text, node)| cx.good(node, Glob::parse(text))).collect();
        if (action == WatchAction::Sync) != to.is_some() || (run.is_some() && action != WatchAction::Sync) {
            let help = Some("`sync` has `to` and may have `run`, the others have neither".to_owned());
            cx.error(item.span.clone(), "that watch does not say what is copied where", "", help);
        }
        if let Some(path) = path {
            all.push(Watch { path, action, to, run, ignore });
        }
    }
    all
}

/// Puts the tasks among the services, and gives them what they have of theirs.
pub(super) fn join(
    cx: &mut Context,
    services: &mut BTreeMap<String, Service>,
    tasks: BTreeMap<String, Service>,
    places: &Places,
) {
    for (name, mut task) in tasks {
        let (header, of_span) = places.tasks.get(&name).cloned().unwrap_or_default();
        if places.services.contains_key(&name) {
            cx.error(header, format!("there is a service `{name}`, too"), "tasks and services share their names", None);
            continue;
        }
        if let Some(Task { of: Some(of), .. }) = &task.task {
            match services.get(of).filter(|s| s.task.is_none()) {
                Some(service) => {
                    let own = std::mem::take(&mut task.content);
                    task.content = service.content.clone();
                    task.content.env.extend(own.env);
                    task.content.user = own.user.or_else(|| task.content.user.take());
                    task.content.workdir = own.workdir.or_else(|| task.content.workdir.take());
                    task.image.clone_from(&service.image);
                    task.entrypoint.clone_from(&service.entrypoint);
                    task.env_files.clone_from(&service.env_files);
                    task.secrets.clone_from(&service.secrets);
                    for volume in &service.volumes {
                        if !task.volumes.iter().any(|v| v.target() == volume.target()) {
                            task.volumes.push(volume.clone());
                        }
                    }
                }
                None if places.services.contains_key(of) => {}
                None => {
                    let names = places.services.keys().map(String::as_str);
                    let help = fields::similar(of, names).map(|word| format!("did you mean `{word}`?"));
                    cx.error(of_span, format!("there is no service `{of}`"), "not a service", help);
                }
            }
        }
        services.insert(name, task);
    }
}

/// A whole address, or a path on the service's first TCP port.
fn http(text: &str, ports: &[Port]) -> Result<String, BadText> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(BadText::new(format!("`{text}` is no address"), "`http://localhost:5000/healthz` or `/healthz`"));
    }
    if text.starts_with('/') {
        return match ports.iter().find(|p| !p.udp) {
            Some(port) => Ok(format!("http://localhost:{}{text}", port.container)),
            None => Err(BadText::new(
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
            Err(BadText::new(format!("`{text}` is no address to ask"), help))
        }
    }
}
