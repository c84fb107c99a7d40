//! What must hold in every identity mode.

use igloo_container::ContainerEvent;

use crate::lab::Lab;

type Case = (&'static str, fn(&Lab));

pub const ALL: &[Case] = &[("hello", hello)];

fn hello(lab: &Lab) {
    let outcome = lab.run(&lab.sh("hello", "echo $GREETING; echo oops >&2; id; exit 7"));
    println!("{}", outcome.output);
    assert!(matches!(outcome.events[0], ContainerEvent::Started { pid } if pid > 1), "{:?}", outcome.events);
    assert_eq!(*outcome.end(), ContainerEvent::Exited { code: Some(7), signal: None, oom: false });
}
