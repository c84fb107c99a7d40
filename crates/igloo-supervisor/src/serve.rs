//! The supervisor's main loop.

use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::error::SupervisorError;
use crate::unit::{Unit, UnitError};

/// Makes a unit of the payload in [`crate::ServiceSpec::unit`] or [`crate::Setup::unit`].
pub type MakeUnit = Box<dyn Fn(&serde_json::Value) -> Result<Box<dyn Unit>, UnitError> + Send + Sync>;

/// Supervises until a client asks for [`crate::Request::Down`], or SIGTERM or SIGINT comes; then everything is stopped.
/// Logs go to `log_dir/<service>.log`; `state_dir` holds `events.jsonl` and the remembered ports.
pub fn serve(
    listener: UnixListener,
    make_unit: MakeUnit,
    log_dir: &Path,
    state_dir: &Path,
) -> Result<(), SupervisorError> {
    let _ = (listener, make_unit, log_dir, state_dir);
    todo!()
}
