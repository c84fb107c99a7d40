//! The blocking client of the control socket.

use std::path::Path;
use std::time::Duration;

use crate::error::ClientError;
use crate::spec::{Condition, Project};
use crate::wire::{Plan, PortStatus, ProjectStatus, Reply, Request, ServiceEvent, Settled};

/// A connection to a supervisor. One request at a time.
#[derive(Debug)]
pub struct Client {}

/// How to apply a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// Stop and forget services that are not in the project.
    pub remove_orphans: bool,
    /// Return when every service is ready, has ended well or has failed.
    pub wait: bool,
    /// Return after this long at the latest.
    pub timeout: Option<Duration>,
}

impl Client {
    /// Connects and greets.
    pub fn connect(socket: &Path) -> Result<Client, ClientError> {
        let _ = socket;
        todo!()
    }

    /// Process id of the supervisor.
    pub fn supervisor_pid(&self) -> u32 {
        todo!()
    }

    /// Sends a request; the iterator ends after the final reply.
    pub fn request(&mut self, request: &Request) -> Result<Replies<'_>, ClientError> {
        let _ = request;
        todo!()
    }

    /// [`Request::Apply`], telling events as they come.
    pub fn apply(
        &mut self,
        project: &Project,
        options: ApplyOptions,
        on_event: &mut dyn FnMut(&ServiceEvent),
    ) -> Result<Settled, ClientError> {
        let _ = (project, options, on_event);
        todo!()
    }

    /// [`Request::Plan`].
    pub fn plan(&mut self, project: &Project, remove_orphans: bool) -> Result<Plan, ClientError> {
        let _ = (project, remove_orphans);
        todo!()
    }

    /// [`Request::Down`], telling events as they come.
    pub fn down(
        &mut self,
        grace: Option<Duration>,
        on_event: &mut dyn FnMut(&ServiceEvent),
    ) -> Result<Settled, ClientError> {
        let _ = (grace, on_event);
        todo!()
    }

    /// [`Request::Stop`].
    pub fn stop(
        &mut self,
        services: &[String],
        grace: Option<Duration>,
        on_event: &mut dyn FnMut(&ServiceEvent),
    ) -> Result<Settled, ClientError> {
        let _ = (services, grace, on_event);
        todo!()
    }

    /// [`Request::Start`].
    pub fn start(
        &mut self,
        services: &[String],
        wait: bool,
        on_event: &mut dyn FnMut(&ServiceEvent),
    ) -> Result<Settled, ClientError> {
        let _ = (services, wait, on_event);
        todo!()
    }

    /// [`Request::Restart`].
    pub fn restart(
        &mut self,
        services: &[String],
        wait: bool,
        on_event: &mut dyn FnMut(&ServiceEvent),
    ) -> Result<Settled, ClientError> {
        let _ = (services, wait, on_event);
        todo!()
    }

    /// [`Request::Status`].
    pub fn status(&mut self) -> Result<ProjectStatus, ClientError> {
        todo!()
    }

    /// [`Request::Wait`], telling events as they come.
    pub fn wait(
        &mut self,
        services: &[String],
        condition: Condition,
        timeout: Option<Duration>,
        on_event: &mut dyn FnMut(&ServiceEvent),
    ) -> Result<Settled, ClientError> {
        let _ = (services, condition, timeout, on_event);
        todo!()
    }

    /// [`Request::Signal`].
    pub fn signal(&mut self, service: &str, signal: i32) -> Result<(), ClientError> {
        let _ = (service, signal);
        todo!()
    }

    /// [`Request::Ports`].
    pub fn ports(&mut self) -> Result<Vec<PortStatus>, ClientError> {
        todo!()
    }
}

/// The replies to one request.
#[derive(Debug)]
pub struct Replies<'a> {
    client: &'a mut Client,
}

impl Iterator for Replies<'_> {
    type Item = Result<Reply, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let _ = &self.client;
        todo!()
    }
}
