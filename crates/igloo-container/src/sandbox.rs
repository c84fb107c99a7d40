//! The sandbox of a project: its handle, and the process that is its PID 1.
#![allow(clippy::todo)]
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use crate::spec::{ContainerEvent, ContainerSpec, Identity, SandboxConfig, SocketKind};
use crate::ContainerError;

/// A running sandbox; ends with everything in it when dropped.
#[derive(Debug)]
pub struct Sandbox {
}

impl Sandbox {
    /// Starts the sandbox of a project.
    pub fn start(config: &SandboxConfig) -> Result<Self, ContainerError> { todo!("{config:?}") }
    /// The identity mode in force.
    pub fn mode(&self) -> Identity { todo!() }
    /// What is special about the identity mode, for people; empty if nothing.
    pub fn mode_detail(&self) -> &str { todo!() }
    /// Starts a container; what becomes of it is told to `on_event`, from a thread of its own.
    pub fn spawn(&self, spec: &ContainerSpec, stdout: OwnedFd, stderr: OwnedFd, on_event: Box<dyn Fn(ContainerEvent) + Send>) -> Result<Container, ContainerError> {
        let _ = (stdout, stderr, on_event); todo!("{spec:?}")
    }
}

/// Handle of a container; it is killed when the handle is dropped.
#[derive(Debug)]
pub struct Container {}

impl Container {
    /// Sends a signal to the program.
    pub fn signal(&self, signal: i32) -> io::Result<()> { todo!("{signal}") }
    /// Kills everything in the container.
    pub fn kill(&self) -> io::Result<()> { todo!() }
    /// Host pid of the program once it runs.
    pub fn pid(&self) -> Option<u32> { todo!() }
    /// A fresh socket in the container's network.
    pub fn socket(&self, kind: SocketKind) -> io::Result<OwnedFd> { todo!("{kind:?}") }
    /// Runs a command in the container, hardened as the service is.
    pub fn exec(&self, args: &[String], stdout: OwnedFd, stderr: OwnedFd) -> io::Result<ExecHandle> { let _ = (args, stdout, stderr); todo!() }
}

/// A command running in a container.
#[derive(Debug)]
pub struct ExecHandle {}

impl ExecHandle {
    /// Waits for its end: exit code, or 128 + signal. `None` if `timeout` passed; it is then killed.
    pub fn wait(self, timeout: std::time::Duration) -> io::Result<Option<i32>> { todo!("{timeout:?}") }
}

/// Body of `igloo __sandbox`: run it before any thread exists.
pub fn sandbox_main() -> ExitCode { todo!() }
