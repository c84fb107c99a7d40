//! Adds a directory of .debs to a fresh store and tells how long that took:
//! `cargo run --release -p igloo-store --example unpack -- DEBS ROOT [THREADS]`.
#![allow(clippy::print_stdout)] // a measurement is there to be read

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use igloo_base::Sha256;
use igloo_base::event::Silent;
use igloo_store::{DebId, DebSource, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let (debs, root) = (PathBuf::from(&args[1]), PathBuf::from(&args[2]));
    let threads = args.get(3).map_or(Ok(0), |n| n.parse())?;
    let sources = sources(&debs)?;
    let store = Store::open(&root)?;
    let (start, before) = (Instant::now(), cpu()?);
    let paths = store.add_debs(&sources, &Silent, threads)?;
    println!("{:.3} s for {} packages, {:.2} s of CPU", start.elapsed().as_secs_f64(), paths.len(), cpu()? - before);
    let start = Instant::now();
    store.add_debs(&sources, &Silent, threads)?;
    println!("{:.3} s when all are known", start.elapsed().as_secs_f64());
    Ok(())
}

/// Seconds of CPU that this process has used, by its own and the kernel's account.
fn cpu() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn sources(dir: &Path) -> Result<Vec<DebSource>, Box<dyn Error>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let fields =
            Command::new("dpkg-deb").arg("-f").arg(&path).args(["Package", "Version", "Architecture"]).output()?;
        let text = String::from_utf8(fields.stdout)?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        let id = DebId { name: field("Package"), version: field("Version"), architecture: field("Architecture") };
        let (sha256, size) = Sha256::of_reader(&mut File::open(&path)?)?;
        out.push(DebSource { path, sha256, size, id });
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(out)
}
