//! What is to run: plain values that travel as JSON from the supervisor to the shim.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::harden::Locks;

/// One container: a service of a project.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Name of the container, unique in its sandbox: `[a-zA-Z0-9_.+-]`.
    pub id: String,
    /// Host name that it sees.
    pub hostname: String,
    /// Lower layers of its root, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Owners and modes that the lower layers can't carry.
    pub attrs: Vec<Attr>,
    /// Directory of this container alone; `upper` and `work` in it are emptied at each start.
    pub state_dir: PathBuf,
    /// Program and arguments; the program is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory; empty is `/`. Created if missing.
    pub workdir: String,
    /// Who runs it.
    pub user: User,
    /// Volumes, binds and memory file systems, mounted in this order.
    pub mounts: Vec<Mount>,
    /// Address on the project's bridge; none is a network of loopback alone.
    pub address: Option<Ipv4Addr>,
    /// Length of the bridge's network prefix.
    pub prefix: u8,
    /// Address of the bridge, for the default route.
    pub gateway: Option<Ipv4Addr>,
    /// Names and addresses of its neighbours, for `/etc/hosts`.
    pub hosts: Vec<(String, Ipv4Addr)>,
    /// Name servers for `/etc/resolv.conf`.
    pub nameservers: Vec<String>,
    /// Its way out of the project's network; none has none. Needs an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// What it may use.
    pub limits: Limits,
    /// Open files, soft and hard; clamped to what the caller may have.
    pub nofile: Option<u64>,
    /// Other limits of each process, by the kernel's names in small letters; clamped, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Bytes of `/dev/shm`; none is 64 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm: Option<u64>,
    /// Devices of the host that it may use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Its program is the init of a whole system, with control groups, mounts and a message bus of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// Root file system read-only (volumes and `/tmp`-like mounts stay writable).
    pub read_only: bool,
    /// Its programs may make sandboxes of their own: namespaces and mounts, as builders do. Takes away the cover of `/proc`,
    /// and gives root CAP_SYS_ADMIN in the container's own user namespace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sandboxes: bool,
    /// It may tell about itself on [`crate::NOTIFY_SOCKET`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// Input and output are a terminal of the container's own, with so many rows and columns;
    /// [`crate::Container::terminal`] is its other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<(u16, u16)>,
}

/// Owner and mode of a path in the root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    /// Path, absolute or relative to the root.
    pub path: String,
    /// What it is.
    pub kind: AttrKind,
    /// Permission bits, setuid and friends included; none leaves them.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What an [`Attr`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttrKind {
    /// A directory, created if missing.
    Dir,
    /// Anything else; skipped if missing.
    File,
}

/// Identity of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// Something mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Absolute path inside; missing directories and files are created.
    pub target: String,
    /// Nothing below it can be written, nested mounts included.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A directory or file of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
    },
    /// A directory that igloo owns: created on first use for the container's user and, as long as it is
    /// empty, filled with what the image has at the target.
    Volume {
        /// Absolute path on the host.
        source: PathBuf,
    },
    /// Memory.
    Tmpfs {
        /// Largest size in bytes.
        size: Option<u64>,
    },
    /// Files in memory that the container's user alone may read.
    Secrets {
        /// Name and content.
        files: Vec<(String, Secret)>,
    },
}

/// What nobody is to see: it is not shown for debugging either.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl ContainerSpec {
    /// How tightly it is locked.
    pub fn locks(&self) -> Locks {
        match (self.init, self.sandboxes) {
            (true, _) => Locks::Init,
            (false, true) => Locks::Sandboxes,
            (false, false) => Locks::Service,
        }
    }
}

/// What a container may reach beyond its project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Every other machine, by TCP, and names.
    pub open: bool,
    /// Ports of the host's 127.0.0.1, at the address of the bridge.
    pub host: Vec<u16>,
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it is seen, below `/dev`.
    pub target: String,
}

/// A limit of each process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, `nproc`, `core`, `memlock`, …
    pub name: String,
    /// What it starts with.
    pub soft: u64,
    /// What it may raise that to.
    pub hard: u64,
}

/// What a container may use; none is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processors, fractions allowed.
    pub cpus: Option<f64>,
    /// Number of processes and threads.
    pub pids: Option<u64>,
}

/// An IPv4 network: the bridge's own address and the length of the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv4Net {
    /// An address in the network; for a sandbox, that of its bridge.
    pub address: Ipv4Addr,
    /// Length of the network prefix.
    pub prefix: u8,
}

/// How ids inside a sandbox relate to ids outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// Started by root: ids 0 to 65535 are a range of the project's own, files are shown through idmapped mounts.
    Root,
    /// 0 is the caller, the rest is the caller's range in `/etc/subuid`.
    Subuid,
    /// Only the caller exists; each container's user is the caller under another number.
    SingleUid,
}

/// Where and how a project's sandbox runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// The binary that answers to `__sandbox` and `__shim`.
    pub exe: PathBuf,
    /// Root of the store (the directory that holds `nix/store`); lower layers are usually below it.
    pub store_root: PathBuf,
    /// A private directory of this project, for mount points.
    pub run_dir: PathBuf,
    /// Id of the project: from it comes the range of ids that [`Identity::Root`] uses.
    pub project: String,
    /// The bridge; its address and prefix. None is no bridge: each container has loopback alone.
    pub subnet: Option<Ipv4Net>,
    /// Wanted identity mode; none picks the best that the machine allows.
    pub identity: Option<Identity>,
}

/// What happened to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerEvent {
    /// The program runs.
    Started {
        /// Its id as the host sees it; 0 if it has ended before that could be looked up.
        pid: u32,
    },
    /// Something in it told about it, as `sd_notify` does.
    Notified(Notified),
    /// It could not be started; nothing is left of it.
    Failed {
        /// Why, with all causes.
        message: String,
        /// What the kernel said to running the program, if all else was well.
        errno: Option<i32>,
    },
    /// The program ended and everything in the container with it.
    Exited {
        /// Exit code, if it exited.
        code: Option<i32>,
        /// Signal, if one killed it.
        signal: Option<i32>,
        /// True if the kernel killed something in it for lack of memory.
        oom: bool,
    },
}

/// One message of `sd_notify`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notified {
    /// `READY=1`.
    pub ready: bool,
    /// `RELOADING=1`.
    pub reloading: bool,
    /// `STOPPING=1`.
    pub stopping: bool,
    /// `WATCHDOG=1`.
    pub watchdog: bool,
    /// `STATUS=`, one line without control characters.
    pub status: Option<String>,
}

/// Sockets that [`crate::Container::socket`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
}
