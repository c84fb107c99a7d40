//! Environment -> running container. Takes a [`ContainerSpec`], gives processes in namespaces; the only room that
//! uses libcontainer.
//!
//! Every project has one [`Sandbox`]: a process that is PID 1 of a pid namespace of its own, in its own user, mount
//! and network namespace. When it dies, the kernel ends every process, mount and interface of the project with it,
//! so there are no pid files and nothing to clean up. It starts one shim per container; the shim mounts the root,
//! runs libcontainer and stays to serve the [`Container`] handle.
//!
//! Never prints, never reads `HOME` or other variables.

pub mod audit;
pub mod cgroup;
pub mod console;
pub mod copy;
pub mod egress;
pub mod enter;
mod error;
pub mod exec;
pub mod foreground;
pub mod harden;
pub mod keep;
pub mod network;
pub mod probe;
mod protocol;
pub mod rootfs;
pub mod sandbox;
pub mod seccomp;
mod shim;
pub mod spec;
mod sys;
pub mod userns;

pub use error::ContainerError;
pub use sandbox::{Container, ExecHandle, Sandbox, pack_volume, sandbox_main, unpack_volume};
pub use shim::NOTIFY_SOCKET;
pub use spec::{
    Attr, AttrKind, ContainerEvent, ContainerSpec, Device, Egress, Identity, Ipv4Net, Limits, Mount, MountKind,
    Notified, SandboxConfig, Secret, SocketKind, Ulimit, User,
};
