//! Holds what plans reach on a stored fleet, so that a change that makes them worse is seen.
#![allow(clippy::unwrap_used)]

#[path = "../examples/fleet/data.rs"]
#[allow(dead_code)]
mod data;

use data::{Fleet, Revision};
use igloo_image::plan::{Bytes, FleetImage, Host, Plan, PlannedLayer, Prior, VERSION};

const FLEETS: &str = include_str!("../../../bench/fleets.txt");

fn fleet(name: &str) -> Fleet {
    data::read(FLEETS).unwrap().0.into_iter().find(|fleet| fleet.name == name).unwrap()
}

/// Bytes of a pull of all images, as ratios to the least that is possible.
fn pull(host: &mut Host, images: &[FleetImage], own: u64, revision: u64, plan: &Plan) -> (f64, f64) {
    let (mut bytes, mut limit) = (Bytes::default(), Bytes::default());
    for image in images {
        bytes += host.pull(image, &plan.layers(image), own, revision);
        limit += host.limit(image, own, revision);
    }
    (bytes.blob as f64 / limit.blob as f64, bytes.chain as f64 / limit.chain as f64)
}

fn at_most((blob, chain): (f64, f64), most: (f64, f64), what: &str) {
    assert!(blob <= most.0 && chain <= most.1, "{what}: {blob:.3} and {chain:.3}, should be at most {most:?}");
}

#[test]
fn a_fleet_of_infrastructure() {
    let fleet = fleet("c");
    let first = fleet.images(Revision::First);
    let plan = Plan::fleet(&first, &Prior::shipped(), None);

    let mut host = Host::default();
    at_most(pull(&mut host, &first, 0, 0, &plan), (1.08, 1.45), "first pull");
    at_most(pull(&mut host, &fleet.images(Revision::Updated), 0, 0, &plan), (1.5, 5.0), "updates");

    let mut host = Host::default();
    pull(&mut host, &first, 1 << 20, 1, &plan);
    at_most(pull(&mut host, &fleet.images(Revision::Added), 1 << 20, 2, &plan), (1.10, 2.0), "additions");

    // Dust is rare: small layers are those that change much more often than what they could be put to.
    let (mut dust, mut all) = (0, 0);
    for image in &first {
        let layers: Vec<PlannedLayer> = plan.layers(image);
        let installed =
            |layer: &PlannedLayer| layer.packages.iter().map(|at| image.packages[*at].installed).sum::<u64>();
        dust += layers.iter().filter(|layer| installed(layer) < 1_000_000).count();
        all += layers.len();
    }
    assert!(dust * 40 < all, "{dust} of {all} layers have less than a megabyte");

    // A plan that is made again after the updates moves little of what hosts hold.
    let updated = fleet.images(Revision::Updated);
    let again = Plan::fleet(&updated, &Prior::shipped(), Some(&plan));
    let mut host = Host::default();
    pull(&mut host, &updated, 0, 0, &plan);
    let moved: u64 = updated.iter().map(|image| host.pull(image, &again.layers(image), 0, 0).blob).sum();
    let limit: u64 = updated.iter().map(|image| Host::default().limit(image, 0, 0).blob).sum();
    assert!(moved * 50 < limit, "{moved} bytes of {limit} would be pulled anew");
    assert_eq!(Plan::parse(&again.render(), "igloo.plan".as_ref()), Ok(again));
    assert_eq!(VERSION, 1);
}

#[test]
fn the_builtin_plan_serves_fleets_that_have_none() {
    let plan = Plan::builtin();
    for (name, most) in [("a", (1.2, 1.7)), ("c", (1.2, 1.7))] {
        at_most(pull(&mut Host::default(), &fleet(name).images(Revision::First), 0, 0, &plan), most, name);
    }
}
