//! `containers speed [N]`: how long a container takes from request to end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use igloo_container::Identity;

use crate::lab::Lab;

pub fn measure(args: &[String]) -> ExitCode {
    let n: usize = args.first().and_then(|n| n.parse().ok()).unwrap_or(30);
    let root = rustix::process::geteuid().is_root();
    let modes: &[Identity] = if root { &[Identity::Root] } else { &[Identity::Subuid, Identity::SingleUid] };
    for mode in modes {
        let begun = Instant::now();
        let lab = Lab::new(*mode).unwrap();
        println!("{mode:?}: image and sandbox {:.1?}", begun.elapsed());
        for (what, address) in [("loopback only", None), ("on the bridge", Some([10, 99, 7, 9].into()))] {
            let mut spec = lab.sh("speed", "");
            spec.args = vec!["/bin/true".into()];
            spec.address = address;
            let mut started = Vec::new();
            let mut ended: Vec<Duration> = Vec::new();
            for _ in 0..n {
                let begun = Instant::now();
                let running = lab.start(&spec);
                running.started();
                started.push(begun.elapsed());
                running.finish().ok();
                ended.push(begun.elapsed());
            }
            started.sort();
            ended.sort();
            println!(
                "{mode:?}, {what}: started {:.2?}, ended {:.2?} (median of {n}; least {:.2?})",
                started[n / 2],
                ended[n / 2],
                ended[0]
            );
        }
    }
    ExitCode::SUCCESS
}
