//! Bytes that a host pulls and unpacks: our plan beside others', for several fleets.
//!
//!     cargo run --release -p igloo-image --example fleet -- bench/fleets.txt [FLEET ...]
//!
//! With `--builtin FILE ...` it writes the plan of all fleets together, which igloo ships as `data/builtin.txt`.

mod data;
mod peers;

use std::error::Error;
use std::io::Write;

use data::{Depends, Fleet, Revision};
use igloo_image::plan::{Bytes, FleetImage, Host, Plan, PlannedLayer, Prior};

const OWN: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let path = words.next().ok_or("usage: fleet FILE [FLEET ...]")?;
    let chosen: Vec<String> = words.collect();
    let mut out = std::io::stdout().lock();
    if path == "--builtin" {
        let mut images: Vec<FleetImage> = Vec::new();
        for path in chosen {
            let (fleets, _) = data::read(&std::fs::read_to_string(&path)?)?;
            images.extend(fleets.iter().flat_map(|fleet| fleet.images(Revision::First)));
        }
        out.write_all(Plan::fleet(&images, &Prior::shipped(), None).render_short().as_bytes())?;
        return Ok(());
    }
    let (fleets, depends) = data::read(&std::fs::read_to_string(&path)?)?;
    for fleet in &fleets {
        if !chosen.is_empty() && !chosen.contains(&fleet.name) {
            continue;
        }
        report(fleet, &fleets, &depends, &mut out)?;
    }
    Ok(())
}

fn report(fleet: &Fleet, fleets: &[Fleet], depends: &Depends, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let first = fleet.images(Revision::First);
    let (packages, changed) = fleet.count();
    writeln!(out, "fleet {}: {} images, {packages} packages, {changed} of them updated", fleet.name, first.len())?;
    writeln!(out, "{:<24} {:>15}   {:>15}   {:>15}   layers", "plan", "first pull", "updates", "addition")?;
    let start = std::time::Instant::now();
    let plan = Plan::fleet(&first, &Prior::shipped(), None);
    let took = start.elapsed();
    row(fleet, "igloo, fleet plan", &|image| plan.layers(image), out)?;
    let blind = Plan::fleet(&first, &Prior::empty(), None);
    row(fleet, "igloo, without prior", &|image| blind.layers(image), out)?;
    // The built-in plan is made of these very fleets; a project that it never saw is simulated by leaving this one out.
    let others: Vec<FleetImage> = fleets
        .iter()
        .filter(|other| other.name != fleet.name)
        .flat_map(|other| other.images(Revision::First))
        .collect();
    let mut strange = Plan::fleet(&others, &Prior::shipped(), None);
    for layer in strange.groups.iter_mut().flat_map(|group| &mut group.layers) {
        layer.images.clear();
    }
    row(fleet, "igloo, strangers' plan", &|image| strange.layers(image), out)?;
    row(fleet, "igloo, builtin plan", &|image| Plan::builtin().layers(image), out)?;
    row(fleet, "size-first, 100 layers", &|image| peers::size_first(image, depends), out)?;
    row(fleet, "origin, 40 layers", &|image| peers::origin(image, depends), out)?;
    row(fleet, "popularity, 100 layers", &|image| peers::popularity(image, depends), out)?;
    row(fleet, "one layer", &|image| peers::one_layer(image, depends), out)?;
    writeln!(out, "(planned in {:.2} s, {} groups)\n", took.as_secs_f64(), plan.groups.len())?;
    Ok(())
}

fn row(
    fleet: &Fleet,
    name: &str,
    cut: &dyn Fn(&FleetImage) -> Vec<PlannedLayer>,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let mut cells = Vec::new();
    let first = fleet.images(Revision::First);
    let most = first.iter().map(|image| cut(image).len()).max().unwrap_or(0);
    let (held, bytes, limit) = pull(Host::default(), &first, cut, 0, 0);
    cells.push((bytes, limit));
    let _ = held;
    for revision in [Revision::Updated, Revision::Added] {
        let own = if revision == Revision::Added { OWN } else { 0 };
        let (held, ..) = pull(Host::default(), &first, cut, own, 1);
        let (_, bytes, limit) = pull(held, &fleet.images(revision), cut, own, 2);
        cells.push((bytes, limit));
    }
    write!(out, "{name:<24}")?;
    for (bytes, limit) in cells {
        write!(
            out,
            " {:>7.2} {:>7.2}  ",
            bytes.blob as f64 / limit.blob as f64,
            bytes.chain as f64 / limit.chain as f64
        )?;
    }
    writeln!(out, " {most}")?;
    Ok(())
}

fn pull(
    mut host: Host,
    images: &[FleetImage],
    cut: &dyn Fn(&FleetImage) -> Vec<PlannedLayer>,
    own: u64,
    revision: u64,
) -> (Host, Bytes, Bytes) {
    let (mut bytes, mut limit) = (Bytes::default(), Bytes::default());
    for image in images {
        bytes += host.pull(image, &cut(image), own, revision);
        limit += host.limit(image, own, revision);
    }
    (host, bytes, limit)
}
