//! One service.

use std::fmt::Write as _;

use super::known::{self, Known};
use super::text::{asked, value, words};
use super::yaml::{Node, Value};
use super::{BadCompose, Import, list, quoted, slug};

/// What needs no counterpart here, or has none that matters.
const SILENT: &[&str] = &[
    "container_name",
    "expose",
    "labels",
    "logging",
    "tty",
    "stdin_open",
    "pull_policy",
    "platform",
    "networks",
    "init",
    "annotations",
];

struct Out {
    text: String,
}

impl Out {
    fn line(&mut self, key: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{key} = {value}");
    }
}

pub(super) fn service(import: &mut Import<'_>, name: &str, node: &Node, file: &Node) -> Result<String, BadCompose> {
    let called = slug(name);
    if called != name {
        import.note(node, format!("service `{name}` is called `{called}`"));
    }
    let mut out = Out { text: format!("[services.{called}]\n") };
    let image = node.get("image").and_then(Node::text).map(|image| value(import, image));
    let known = image.as_deref().and_then(known::known).filter(|_| import.options.suite.is_some());
    let own_run = node.get("command").map(|n| words(import, n)).transpose()?.filter(|words| !words.is_empty());
    let entrypoint = node.get("entrypoint").map(|n| words(import, n)).transpose()?.filter(|words| !words.is_empty());
    match (known, &image) {
        (Some(known), Some(image)) => {
            import.packages = true;
            import.note(
                node,
                format!("`{image}` is Debian's {} here: look at its version", known.packages.last().unwrap_or(&"")),
            );
            out.line("packages", list(known.packages));
            out.line("user", quoted(known.user));
            if let Some(setup) = known.setup {
                let _ = writeln!(out.text, "setup = [\"sh\", \"-ec\", '''{setup}''']");
            }
            let run = run_of(known, own_run.as_deref());
            out.line("run", list(run));
        }
        (_, Some(image)) => {
            let full = match (has_place(image), &import.options.registry) {
                (true, _) => image.clone(),
                (false, Some(registry)) => {
                    let path = if image.contains('/') { image.clone() } else { format!("library/{image}") };
                    format!("{registry}/{path}")
                }
                (false, None) => {
                    let text = format!("`{image}` names no registry: say which one by `--registry HOST`");
                    return Err(BadCompose { line: node.line, text });
                }
            };
            out.line("image", quoted(&full));
            if let Some(entrypoint) = &entrypoint {
                out.line("entrypoint", list(entrypoint));
            }
            if let Some(run) = &own_run {
                out.line("run", list(run));
            }
        }
        (_, None) => {
            let context = node.get("build").map(|build| build.get("context").unwrap_or(build)).and_then(Node::text);
            let context = context.map_or_else(|| ".".to_owned(), |context| value(import, context));
            import.note(
                node,
                format!("`{name}` is built by a Dockerfile: name its packages, and look at where its code goes"),
            );
            import.packages = import.options.suite.is_some();
            out.text.push_str("# Built by a Dockerfile: name the packages that it installs, and what it runs.\n");
            out.line("packages", list(["@base"]));
            let _ = writeln!(out.text, "copy = [{{ from = {}, to = \"/app\" }}]", quoted(&context));
            out.line("workdir", quoted("/app"));
            let run = [entrypoint.clone().unwrap_or_default(), own_run.clone().unwrap_or_default()].concat();
            out.line("run", if run.is_empty() { list(["false"]) } else { list(run) });
        }
    }
    needs(import, node, &mut out);
    environment(import, node, &mut out);
    volumes(import, &called, node, known, &mut out)?;
    ports(import, node, &mut out);
    health(import, node, known, &mut out);
    rest(import, node, known, file, &mut out);
    Ok(out.text)
}

/// A registry, or a file.
fn has_place(image: &str) -> bool {
    crate::words::foreign_image(image).is_ok()
        || image.split_once('/').is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost")
}

/// Flags that the file adds to a known program come after ours.
fn run_of(known: &Known, own: Option<&[String]>) -> Vec<String> {
    let mut run: Vec<String> = known.run.iter().map(|w| (*w).to_owned()).collect();
    let own = own.unwrap_or_default();
    let own = if own.first().is_some_and(|first| *first == run[0] || first.ends_with("-server") || *first == "mysqld") {
        &own[1..]
    } else {
        own
    };
    run.extend_from_slice(own);
    run
}

fn needs(import: &mut Import<'_>, node: &Node, out: &mut Out) {
    let Some(depends) = node.get("depends_on") else { return };
    let mut needs = Vec::new();
    for item in depends.items() {
        needs.extend(
            item.text().map(|name| format!("{{ service = {}, condition = \"started\" }}", quoted(&slug(name)))),
        );
    }
    for (name, how) in depends.entries() {
        let condition = match how.get("condition").and_then(Node::text) {
            Some("service_healthy") => "ready",
            Some("service_completed_successfully") => "completed",
            None | Some("service_started") => "started",
            Some(other) => {
                import.note(how, format!("the condition `{other}` is not known; `ready` is taken"));
                "ready"
            }
        };
        needs.push(format!("{{ service = {}, condition = \"{condition}\" }}", quoted(&slug(name))));
    }
    if !needs.is_empty() {
        out.line("needs", format_args!("[{}]", needs.join(", ")));
    }
}

fn environment(import: &mut Import<'_>, node: &Node, out: &mut Out) {
    if let Some(env) = node.get("environment") {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for item in env.items().iter().filter_map(Node::text) {
            match item.split_once('=') {
                Some((name, text)) => pairs.push((name.to_owned(), asked(text))),
                None => pairs.push((item.to_owned(), format!("${{{item}:-}}"))),
            }
        }
        for (name, node) in env.entries() {
            let text = node.text().map_or_else(|| format!("${{{name}:-}}"), asked);
            pairs.push((name.clone(), text));
        }
        if !pairs.is_empty() {
            let inner: Vec<String> =
                pairs.iter().map(|(name, text)| format!("{} = {}", quoted(name), quoted(text))).collect();
            out.line("env", format_args!("{{ {} }}", inner.join(", ")));
        }
    }
    if let Some(files) = node.get("env_file") {
        let path = |n: &&Node| n.get("path").and_then(Node::text).or(n.text()).map(|t| value(import, t));
        let files: Vec<String> = files.one_or_more().iter().filter_map(path).collect();
        out.line("env-file", list(files));
    }
}

fn volumes(
    import: &mut Import<'_>,
    called: &str,
    node: &Node,
    known: Option<&Known>,
    out: &mut Out,
) -> Result<(), BadCompose> {
    let mut all: Vec<String> = Vec::new();
    let anonymous = |target: &str| format!("{called}-{}", slug(target));
    for item in node.get("volumes").map(|v| v.items()).unwrap_or_default() {
        let long = |key: &str| item.get(key).and_then(Node::text).map(|t| value(import, t));
        let (kind, source, target, flags) = match item.text() {
            Some(text) => {
                let text = value(import, text);
                let parts: Vec<&str> = text.split(':').collect();
                match parts[..] {
                    [target] => ("volume".to_owned(), None, target.to_owned(), String::new()),
                    [source, target] => ("".to_owned(), Some(source.to_owned()), target.to_owned(), String::new()),
                    [source, target, flags] => {
                        ("".to_owned(), Some(source.to_owned()), target.to_owned(), flags.to_owned())
                    }
                    _ => return Err(BadCompose { line: item.line, text: format!("`{text}` is no volume") }),
                }
            }
            None => {
                let flags = if long("read_only").as_deref() == Some("true") { "ro" } else { "" };
                let target = long("target").unwrap_or_default();
                (long("type").unwrap_or_else(|| "volume".to_owned()), long("source"), target, flags.to_owned())
            }
        };
        let read_only = if flags.split(',').any(|f| f == "ro") { ":ro" } else { "" };
        match (kind.as_str(), source) {
            ("tmpfs", _) => all.push(format!("tmpfs:{target}")),
            (_, None) => all.push(format!("{}:{target}", anonymous(&target))),
            (kind, Some(source)) => {
                let source = match source.strip_prefix("~") {
                    Some(_) => {
                        import.note(item, format!("`{source}`: write out the home directory"));
                        continue;
                    }
                    None if source.starts_with(['/', '.']) => source,
                    None if kind == "bind" => format!("./{source}"),
                    None => slug(&source),
                };
                all.push(format!("{source}:{target}{read_only}"));
            }
        }
    }
    for item in node.get("tmpfs").map(Node::one_or_more).unwrap_or_default() {
        let text = item.text().map(|t| value(import, t)).unwrap_or_default();
        all.push(format!("tmpfs:{}", text.split(':').next().unwrap_or_default()));
    }
    if let Some(known) = known {
        let has = |target: &str, all: &[String]| all.iter().any(|v| v.split(':').nth(1) == Some(target));
        if let Some(data) = known.data.filter(|data| !has(data, &all)) {
            all.push(format!("{}:{data}", anonymous(data)));
        }
        all.extend(known.tmpfs.iter().map(|path| format!("tmpfs:{path}")));
    }
    if !all.is_empty() {
        out.line("volumes", list(all));
    }
    Ok(())
}

fn ports(import: &mut Import<'_>, node: &Node, out: &mut Out) {
    let mut all = Vec::new();
    for item in node.get("ports").map(|p| p.items()).unwrap_or_default() {
        let text = match item.text() {
            Some(text) => value(import, text),
            None => {
                let long = |key: &str| item.get(key).and_then(Node::text).map(|t| value(import, t));
                let host = long("host_ip").map(|ip| format!("{ip}:")).unwrap_or_default();
                let published = long("published").map(|p| format!("{p}:")).unwrap_or_default();
                let protocol = long("protocol").filter(|p| p == "udp").map(|p| format!("/{p}")).unwrap_or_default();
                format!("{host}{published}{}{protocol}", long("target").unwrap_or_default())
            }
        };
        let (ports, protocol) = text.split_once('/').map_or((text.as_str(), ""), |(ports, protocol)| (ports, protocol));
        let suffix = if protocol == "udp" { "/udp" } else { "" };
        let mut parts: Vec<&str> = ports.split(':').collect();
        let container = parts.pop().unwrap_or_default();
        let published = parts.pop().filter(|p| !p.is_empty());
        let address = match parts[..] {
            [address] => format!("{address}:"),
            _ => String::new(),
        };
        let range = |text: &str| -> Option<Vec<u32>> {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last && last <= 65_535 && last - first < 1000).then(|| (first..=last).collect())
        };
        let (Some(inside), outside) = (range(container), published.map(range)) else {
            import.note(item, format!("the port `{text}` is left out"));
            continue;
        };
        for (at, inside) in inside.iter().enumerate() {
            match &outside {
                None => all.push(format!("{address}auto:{inside}{suffix}")),
                Some(Some(outside)) => match outside.get(at) {
                    Some(outside) => all.push(format!("{address}{outside}:{inside}{suffix}")),
                    None => import.note(item, format!("the port {inside} of `{text}` is left out")),
                },
                Some(None) => import.note(item, format!("the port `{text}` is left out")),
            }
        }
        if address.is_empty() {
            import.note(
                item,
                format!(
                    "the port `{text}` is published on 127.0.0.1, not everywhere; for that write `0.0.0.0:` before it"
                ),
            );
        }
    }
    if !all.is_empty() {
        out.line("ports", list(all));
    }
}

/// `1m30s` as igloo has it; nothing if it makes no sense.
fn duration(text: &str) -> Option<u64> {
    let mut total = 0u64;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, length) = match rest {
            r if r.starts_with("ms") => (1, 2),
            r if r.starts_with('h') => (3_600_000, 1),
            r if r.starts_with('m') => (60_000, 1),
            r if r.starts_with('s') => (1000, 1),
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[length..];
    }
    Some(total)
}

fn shown(milliseconds: u64) -> String {
    if milliseconds.is_multiple_of(1000) {
        quoted(&format!("{}s", milliseconds / 1000))
    } else {
        quoted(&format!("{milliseconds}ms"))
    }
}

fn health(import: &mut Import<'_>, node: &Node, known: Option<&Known>, out: &mut Out) {
    let check = node.get("healthcheck").filter(|c| c.get("disable").and_then(Node::text) != Some("true"));
    let test = check.and_then(|c| c.get("test"));
    let exec = test.and_then(|test| match &*test.value {
        Value::Text(Some(text)) => Some(vec!["sh".to_owned(), "-c".to_owned(), value(import, text)]),
        Value::List(items) => {
            let words: Vec<String> = items.iter().filter_map(Node::text).map(|t| value(import, t)).collect();
            match words.split_first()? {
                (first, rest) if first == "CMD" => Some(rest.to_vec()),
                (first, rest) if first == "CMD-SHELL" => Some(vec!["sh".to_owned(), "-c".to_owned(), rest.join(" ")]),
                _ => None,
            }
        }
        _ => None,
    });
    let Some((check, exec)) = check.zip(exec) else {
        if let Some(known) = known {
            out.line("ready", format_args!("{{ {} }}", known.ready));
        }
        return;
    };
    let time = |key: &str, default: u64| check.get(key).and_then(Node::text).and_then(duration).unwrap_or(default);
    let retries =
        check.get("retries").and_then(Node::text).and_then(|t| t.parse::<u64>().ok()).unwrap_or(3).clamp(1, 1000);
    let (interval, timeout) = (time("interval", 30_000).max(1), time("timeout", 30_000).max(1));
    let patience = time("start_period", 0) + (interval + timeout) * retries;
    // Asked often until it is ready: who waits for it needn't wait for the next turn.
    out.line("ready", format_args!("{{ exec = {}, timeout = {} }}", list(&exec), shown(patience)));
    out.line(
        "health",
        format_args!(
            "{{ exec = {}, interval = {}, timeout = {}, retries = {retries}, on-unhealthy = \"ignore\" }}",
            list(&exec),
            shown(interval),
            shown(timeout)
        ),
    );
}

fn size(text: &str) -> Option<String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let bytes = match text[digits..].to_ascii_lowercase().trim_end_matches('b') {
        "" => number,
        "k" => number.checked_mul(1 << 10)?,
        "m" => number.checked_mul(1 << 20)?,
        "g" => number.checked_mul(1 << 30)?,
        _ => return None,
    };
    Some(format!("{}M", bytes.div_ceil(1 << 20).max(1)))
}

/// Everything that is one key for one key.
fn rest(import: &mut Import<'_>, node: &Node, known: Option<&Known>, file: &Node, out: &mut Out) {
    let limits_of = node.get("deploy").and_then(|d| d.get("resources")).and_then(|r| r.get("limits"));
    let mut limits: Vec<String> = Vec::new();
    for (key, node) in node.entries() {
        let text = node.text().map(|t| value(import, t));
        match (key.as_str(), text) {
            (
                "image" | "build" | "command" | "entrypoint" | "depends_on" | "environment" | "env_file" | "volumes"
                | "tmpfs" | "ports" | "healthcheck",
                _,
            ) => {}
            ("user", Some(_)) if known.is_some() => {}
            ("user", Some(text)) => out.line("user", quoted(&text)),
            ("working_dir", Some(text)) => out.line("workdir", quoted(&text)),
            ("hostname", Some(text)) => out.line("hostname", quoted(&text)),
            ("stop_signal", Some(text)) => out.line("stop-signal", quoted(&text)),
            ("stop_grace_period", Some(text)) => match duration(&text) {
                Some(time) => out.line("stop-grace", shown(time)),
                None => import.note(node, format!("`stop_grace_period: {text}` is left out")),
            },
            ("restart", Some(text)) => out.line("restart", quoted(&text)),
            ("read_only", Some(text)) => out.line("read-only", text == "true"),
            ("scale", Some(text)) => out.line("replicas", text),
            ("mem_limit", Some(text)) => limits.extend(size(&text).map(|s| format!("memory = {}", quoted(&s)))),
            ("cpus", Some(text)) => limits.push(format!("cpus = {text}")),
            ("pids_limit", Some(text)) if text != "-1" => limits.push(format!("pids = {text}")),
            ("profiles", _) => {
                out.line("profiles", list(node.one_or_more().iter().filter_map(|n| n.text()).map(slug)));
            }
            ("secrets", _) => secrets(import, node, file, out),
            ("deploy", _) => {
                if let Some(replicas) = node.get("replicas").and_then(Node::text) {
                    out.line("replicas", replicas);
                }
            }
            (key, _) if SILENT.contains(&key) || key.starts_with("x-") => {}
            (_, Some(text)) if text == "false" => {}
            (key, _) => import.note(node, format!("`{key}` is left out")),
        }
    }
    if let Some(signal) = known.and_then(|known| known.stop_signal)
        && node.get("stop_signal").is_none()
    {
        out.line("stop-signal", quoted(signal));
    }
    if !node.entries().iter().any(|(key, _)| key == "restart") {
        // Compose's own default; igloo's is on-failure.
        out.line("restart", quoted("no"));
    }
    if let Some(deploy) = limits_of {
        let of = |key: &str| deploy.get(key).and_then(Node::text).map(|t| value(import, t));
        limits.extend(of("memory").and_then(|t| size(&t)).map(|s| format!("memory = {}", quoted(&s))));
        limits.extend(of("cpus").map(|cpus| format!("cpus = {cpus}")));
        limits.extend(of("pids").map(|pids| format!("pids = {pids}")));
    }
    if !limits.is_empty() {
        out.line("limits", format_args!("{{ {} }}", limits.join(", ")));
    }
}

fn secrets(import: &mut Import<'_>, node: &Node, file: &Node, out: &mut Out) {
    let mut all = Vec::new();
    for item in node.one_or_more() {
        let Some(name) = item.get("source").unwrap_or(item).text() else { continue };
        let target = item.get("target").and_then(Node::text).unwrap_or(name);
        let declared = file.get("secrets").and_then(|s| s.get(name));
        let of = |key: &str| declared.and_then(|d| d.get(key)).and_then(Node::text).map(|t| value(import, t));
        match (of("file"), of("environment")) {
            (Some(path), _) => all.push(format!("{} = {{ file = {} }}", quoted(target), quoted(&path))),
            (_, Some(variable)) => all.push(format!("{} = {{ env = {} }}", quoted(target), quoted(&variable))),
            _ => import.note(item, format!("the secret `{name}` is neither a file nor a variable, and left out")),
        }
    }
    if !all.is_empty() {
        out.line("secrets", format_args!("{{ {} }}", all.join(", ")));
    }
}
