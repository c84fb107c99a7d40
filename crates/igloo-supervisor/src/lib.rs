//! Keeps a project's services alive: order, readiness, restarts, logs, published ports.
//!
//! Takes a [`Project`] (the desired state, over a Unix socket), makes [`Unit`]s of its opaque payloads and drives
//! them until the state is reached; tells the truth about it. Gives [`serve`] for the process that supervises,
//! [`Client`] for everybody who talks to it, [`daemon`] to start it, [`logs`] to read what services wrote.
//! Knows nothing of containers, packages or manifests, never prints, never exits the process.
//!
//! Liveness is a lock that the kernel releases; there is no pid file, and nothing on disk has to be believed after
//! a `kill -9`: the next supervisor starts from nothing and converges.

pub mod client;
pub mod daemon;
mod error;
pub mod journal;
pub mod logs;
mod machine;
mod ports;
mod serve;
mod spec;
pub mod time;
mod unit;
mod wire;

pub use client::Client;
pub use error::{ClientError, SupervisorError};
pub use serve::{MakeUnit, serve, serve_owned};
pub use spec::{
    Backoff, BadProject, Condition, Health, LogLimits, Need, OnUnhealthy, Policy, Probe, Project, Protocol,
    PublishedPort, Readiness, Reload, Restart, ServiceSpec, Setup,
};
pub use unit::{ExecResult, Exit, Notice, Running, Unit, UnitError, UnitEvent, UnitIo};
pub use wire::{
    Change, Plan, PlannedChange, PortStatus, ProjectStatus, Reply, Request, ServiceEvent, ServiceStatus, Settled, State,
};
