//! `init = "system"`: a container whose program is the init of a whole system, as systemd's container interface wants it.

use igloo_base::Sha256;
use igloo_base::dirs::ProjectId;
use igloo_container::{Attr, AttrKind, ContainerSpec, Mount, MountKind, User};

/// Wide enough that lines of a journal stay whole.
const CONSOLE: (u16, u16) = (50, 500);

/// Words that systemd reads from its own command line in a container, as it does from the kernel's elsewhere: the journal
/// goes to the console, nobody is asked anything there, and nobody logs in there.
const WORDS: &[&str] = &[
    "systemd.journald.forward_to_console=1",
    "systemd.show_status=0",
    "systemd.firstboot=0",
    "systemd.getty_auto=0",
    "systemd.log_color=0",
];

/// The container of a service as that of a system.
pub(super) fn of(mut container: ContainerSpec, project: &ProjectId) -> ContainerSpec {
    container.init = true;
    container.terminal = Some(CONSOLE);
    // Services choose users of their own; this is who begins.
    container.user = User { uid: 0, gid: 0, groups: Vec::new(), home: "/root".to_owned() };
    container.args.extend(WORDS.iter().map(|word| (*word).to_owned()));
    let id = Sha256::of(format!("{}/{}", project.0, container.id).as_bytes());
    let id: String = id.0.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let set = [("container", "igloo"), ("container_uuid", &id), ("TERM", "dumb"), ("HOME", "/root"), ("USER", "root")];
    container.env.retain(|(name, _)| !set.iter().any(|(own, _)| own == name));
    container.env.extend(set.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // What it finds mounted it leaves alone; volumes of the service come on top.
    let memory =
        ["/run", "/run/lock", "/tmp"].into_iter().filter(|path| container.mounts.iter().all(|m| m.target != *path));
    let memory = memory.map(|target| Mount {
        kind: MountKind::Tmpfs { size: None },
        target: target.to_owned(),
        read_only: false,
    });
    let memory: Vec<_> = memory.collect();
    // Their modes are those of the directories below.
    container.attrs.extend([("/run", 0o755), ("/run/lock", 0o1777), ("/tmp", 0o1777)].map(|(path, mode)| Attr {
        path: path.to_owned(),
        kind: AttrKind::Dir,
        mode: Some(mode),
        uid: 0,
        gid: 0,
    }));
    container.mounts.splice(0..0, memory);
    container
}
