//! `assemble OUT OBJECT…`: plans and assembles an environment of unpacked packages; prints what was planned.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use igloo_env::{Environment, Identities, Member, Settings, assemble, plan};
use igloo_formats::deb::{Version, meta::Meta};
use igloo_formats::nix::StorePath;

fn member(object: &Path) -> Result<Member, Box<dyn std::error::Error>> {
    let meta: Meta = serde_json::from_slice(&std::fs::read(object.join("meta.json"))?)?;
    let name = object.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    Ok(Member {
        path: StorePath::parse(name)?,
        physical: object.to_owned(),
        name: meta.name,
        version: Version::parse(&meta.version)?,
        architecture: meta.architecture,
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let out = args.next().ok_or("usage: assemble OUT OBJECT…")?;
    let members = args.map(|a| member(&a)).collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    let plan = plan(&members, &Identities::default(), &BTreeMap::new())?;
    let planned = start.elapsed();
    for s in &plan.scripts {
        println!("script {}: {}", s.package, s.cover);
    }
    for u in &plan.unhandled {
        for (line, text) in &u.lines {
            println!("UNHANDLED {}.{}:{line}: {text}", u.package, u.script);
        }
    }
    for u in &plan.identities.users {
        println!("user {} {}:{} {} {} ({})", u.name, u.uid, u.gid, u.home, u.shell, u.package);
    }
    for g in &plan.identities.groups {
        println!("group {} {} {:?} ({})", g.name, g.gid, g.members, g.package);
    }
    std::fs::create_dir_all(&out)?;
    let start = Instant::now();
    assemble("env", &members, &plan.identities, &Settings::default(), &out)?;
    println!("plan {planned:?}, assemble {:?}, {} members", start.elapsed(), members.len());
    // Only a directory that is named as an object can be loaded.
    if out.file_name().and_then(|n| n.to_str()).is_some_and(|n| StorePath::parse(n).is_ok()) {
        let start = Instant::now();
        let env = Environment::load(&out, &|p: &StorePath| PathBuf::from(p.base_name()))?;
        println!("load {:?}, {} attributes", start.elapsed(), env.attrs.len());
    }
    Ok(())
}
