//! `igloo logs`.

use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use igloo_supervisor::logs::{Query, Reader, Record, Stream};
use serde_json::json;

use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whose; everybody's if empty.
    pub services: Vec<String>,
    /// Go on as lines come.
    pub follow: bool,
    /// Only the last lines of each service.
    pub tail: Option<usize>,
    /// With times.
    pub timestamps: bool,
    /// One JSON object a line.
    pub json: bool,
}

/// Writes log lines to `out`, which fails when nobody reads any more.
pub fn show(
    ctx: &Context<'_>,
    project: &Project,
    options: &Options,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), OpsError> {
    read(ctx, project, options, out, &|| options.follow)
}

/// As [`show`], following until the other end of `stopped` is dropped.
pub(crate) fn follow_until(
    ctx: &Context<'_>,
    project: &Project,
    options: &Options,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    stopped: &Receiver<()>,
) -> Result<(), OpsError> {
    read(ctx, project, options, out, &|| stopped.try_recv() != Err(TryRecvError::Disconnected))
}

fn read(
    ctx: &Context<'_>,
    project: &Project,
    options: &Options,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    go_on: &dyn Fn() -> bool,
) -> Result<(), OpsError> {
    for service in &options.services {
        crate::services::check_name(project, service)?;
    }
    let names: Vec<&String> = match options.services.as_slice() {
        [] => project.manifest.services.keys().collect(),
        some => some.iter().collect(),
    };
    let width = if names.len() > 1 { names.iter().map(|n| n.len()).max().unwrap_or(0) } else { 0 };
    let directory = ctx.dirs.project_state(&project.id).join("logs");
    igloo_base::file::create_dirs(&directory)?;
    let query = Query { services: options.services.clone(), tail: options.tail, since_ns: None };
    let mut reader = Reader::open(&directory, &query)?;
    let mut print = |record: &Record| out(render(record, options, width).as_bytes()).map_err(OpsError::Output);
    for record in reader.by_ref() {
        print(&record?)?;
    }
    while go_on() {
        if let Some(record) = reader.follow(Duration::from_millis(200))? {
            print(&record)?;
        }
    }
    Ok(())
}

fn render(record: &Record, options: &Options, width: usize) -> String {
    let stream = match record.stream {
        Stream::Out => "out",
        Stream::Err => "err",
        Stream::Supervisor => "igloo",
    };
    let time = igloo_supervisor::time::format_ns(record.time_ns);
    if options.json {
        let line = json!({
            "service": record.service, "time": time, "stream": stream, "text": record.text,
            "continues": record.continues,
        });
        return format!("{line}\n");
    }
    let mut line = String::new();
    if width > 0 {
        line.push_str(&format!("{:<width$} | ", record.service));
    }
    if options.timestamps {
        line.push_str(&format!("{time} "));
    }
    if record.stream == Stream::Supervisor {
        line.push_str("igloo: ");
    }
    line.push_str(&record.text);
    line.push('\n');
    line
}
