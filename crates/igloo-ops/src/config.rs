//! `igloo config`: the project as igloo understands it.

use std::fmt::Write;

use igloo_manifest::{Port, Probe, Secret, Service, Source, Volume};
use serde_json::{Value, json};

use crate::project::Project;

/// The resolved project as JSON.
pub fn json(project: &Project) -> Value {
    let m = &project.manifest;
    let environments: serde_json::Map<String, Value> = m
        .environments()
        .into_iter()
        .map(|e| {
            let packages: Vec<&str> = e.roots.iter().map(|r| r.name.as_str()).collect();
            let value = json!({
                "source": e.source, "packages": packages, "excludes": e.excludes,
                "base": e.base.name(), "recommends": e.recommends,
            });
            (e.key, value)
        })
        .collect();
    let sources: serde_json::Map<String, Value> = m
        .sources
        .iter()
        .map(|(name, source)| {
            let value = match source {
                Source::Debian(d) => json!({
                    "suites": d.suites, "components": d.components, "url": d.url, "security-url": d.security_url,
                    "snapshot": d.snapshot, "base": d.base.name(), "recommends": d.recommends,
                }),
                Source::Nixpkgs(n) => json!({ "flake": n.flake, "overlays": n.overlays }),
            };
            (name.clone(), value)
        })
        .collect();
    let shells: serde_json::Map<String, Value> = m
        .shells
        .iter()
        .map(|(name, shell)| {
            (name.clone(), json!({ "isolation": shell.isolation.name(), "env": shell.content.env, "hook": shell.hook }))
        })
        .collect();
    let services: serde_json::Map<String, Value> =
        m.services.iter().map(|(name, s)| (name.clone(), service(s))).collect();
    json!({
        "project": {
            "name": m.project.name,
            "id": project.id.0,
            "directory": project.directory,
            "systems": m.project.systems.iter().map(|s| s.nix()).collect::<Vec<_>>(),
        },
        "sources": sources,
        "shells": shells,
        "services": services,
        "environments": environments,
        "missing": m.missing_tools().iter().map(|t| json!({
            "environment": t.key, "set": t.set, "tool": t.tool, "why": t.why,
        })).collect::<Vec<_>>(),
    })
}

fn service(s: &Service) -> Value {
    json!({
        "run": s.run,
        "setup": s.setup,
        "needs": s.needs.iter().map(|n| json!({ "service": n.service, "condition": n.condition.name() })).collect::<Vec<_>>(),
        "user": s.content.user,
        "workdir": s.content.workdir,
        "env": s.content.env,
        "env-file": s.env_files,
        // Where they come from, never what they are.
        "secrets": s.secrets.iter().map(|(name, source)| (name.clone(), secret(source))).collect::<serde_json::Map<_, _>>(),
        "read-only": s.read_only,
        "network": s.network.name(),
        "host": s.host,
        "init": s.init.then_some("system"),
        "volumes": s.volumes.iter().map(volume).collect::<Vec<_>>(),
        "ports": s.ports.iter().map(port).collect::<Vec<_>>(),
        "ready": s.ready.as_ref().map(|r| json!({
            "probe": probe(&r.probe), "timeout": r.timeout.as_secs_f64(),
        })),
        "health": s.health.as_ref().map(|h| json!({
            "probe": probe(&h.probe), "interval": h.interval.as_secs_f64(), "timeout": h.timeout.as_secs_f64(),
            "retries": h.retries,
        })),
        "restart": s.restart.name(),
        "tries": s.backoff.tries,
        "profiles": s.profiles,
        "replicas": s.replicas,
        "task": s.task.is_some(),
        "limits": { "memory": s.limits.memory, "cpus": s.limits.cpus, "pids": s.limits.pids, "shm": s.limits.shm, "nofile": s.limits.nofile },
        "stop-signal": s.stop_signal,
        "stop-grace": s.stop_grace.as_secs_f64(),
    })
}

fn secret(secret: &Secret) -> Value {
    match secret {
        Secret::File(path) => json!({ "file": path }),
        Secret::Env(name) => json!({ "env": name }),
        Secret::Command(words) => json!({ "command": words }),
    }
}

fn volume(volume: &Volume) -> Value {
    match volume {
        Volume::Named { name, target, read_only } => {
            json!({ "kind": "named", "name": name, "target": target, "read-only": read_only })
        }
        Volume::Bind { source, target, read_only } => {
            json!({ "kind": "bind", "source": source, "target": target, "read-only": read_only })
        }
        Volume::Tmpfs { target, size } => json!({ "kind": "tmpfs", "target": target, "size": size }),
    }
}

/// A published port as it is written: `127.0.0.1:8080:5000/tcp`, `auto` for a free one.
pub fn port(port: &Port) -> String {
    let host = port.host.map_or("auto".to_owned(), |p| p.to_string());
    format!("{}:{host}:{}/{}", port.address, port.container, if port.udp { "udp" } else { "tcp" })
}

/// A probe in words: `tcp 6379`, `http http://localhost/`.
pub fn probe(probe: &Probe) -> String {
    match probe {
        Probe::Exec(words) => format!("exec {}", words.join(" ")),
        Probe::Tcp { host: Some(host), port } => format!("tcp {host}:{port}"),
        Probe::Tcp { host: None, port } => format!("tcp {port}"),
        Probe::Http { url, .. } => format!("http {url}"),
        Probe::Notify => "notify".to_owned(),
        Probe::Log(pattern) => format!("log {pattern}"),
    }
}

/// The resolved project for people.
pub fn text(project: &Project) -> String {
    let m = &project.manifest;
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(text, "project {} in {}", m.project.name, project.directory.display());
    for e in m.environments() {
        let packages: Vec<&str> = e.roots.iter().map(|r| r.name.as_str()).collect();
        let _ = writeln!(text, "\n{} from {} (base {})", e.key, e.source, e.base.name());
        let _ = writeln!(text, "  packages  {}", packages.join(" "));
        if !e.excludes.is_empty() {
            let _ = writeln!(text, "  without   {}", e.excludes.join(" "));
        }
        let Some(service) = e
            .key
            .strip_prefix("services.")
            .or_else(|| e.key.strip_prefix("tasks."))
            .and_then(|name| m.services.get(name))
        else {
            continue;
        };
        let _ = writeln!(text, "  run       {}", service.run.join(" "));
        for (what, list) in [
            ("needs", service.needs.iter().map(|n| n.service.clone()).collect::<Vec<_>>()),
            ("ports", service.ports.iter().map(port).collect()),
            ("volumes", service.volumes.iter().map(|v| v.target().to_owned()).collect()),
            ("ready", service.ready.iter().map(|r| probe(&r.probe)).collect()),
        ] {
            if !list.is_empty() {
                let _ = writeln!(text, "  {what:<9} {}", list.join(" "));
            }
        }
    }
    for missing in m.missing_tools() {
        let _ = writeln!(text, "\n{}: @{} has no {}: {}", missing.key, missing.set, missing.tool, missing.why);
    }
    text
}
