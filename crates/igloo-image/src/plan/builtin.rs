//! The plan of projects that have none.

use std::sync::OnceLock;

use super::{Group, Layer, Plan};

impl Plan {
    /// What is used when a project has no plan file, so that projects that never met have layers in common.
    ///
    /// It is the plan of the fleets of bench/fleets.txt and bench/fleets-trixie.txt, 64 images of many kinds in two releases, made by [`Plan::fleet`] with
    /// [`Prior::shipped`](super::Prior::shipped); it names no images. `bench/fleet --builtin` writes it anew.
    pub fn builtin() -> Plan {
        static BUILTIN: OnceLock<Plan> = OnceLock::new();
        BUILTIN.get_or_init(|| read(include_str!("../../data/builtin.txt"))).clone()
    }

    /// The plan in the short form of `data/builtin.txt`, which is read in a fraction of a millisecond: `g NAME` begins a
    /// group, `l PACKAGE ...` is a layer of it. Names of images and sources are left out.
    pub fn render_short(&self) -> String {
        let mut out = String::from("# Layers for projects without a plan, written by bench/fleet --builtin.\n");
        for group in &self.groups {
            out += &format!("g {}\n", group.name);
            for layer in &group.layers {
                out += &format!("l {}\n", layer.packages.join(" "));
            }
        }
        out
    }
}

fn read(text: &str) -> Plan {
    let mut plan = Plan::default();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("g ") {
            plan.groups.push(Group { name: name.to_owned(), layers: Vec::new() });
        } else if let (Some(packages), Some(group)) = (line.strip_prefix("l "), plan.groups.last_mut()) {
            let packages = packages.split(' ').map(str::to_owned).collect();
            group.layers.push(Layer { packages, images: Vec::new() });
        }
    }
    plan
}
