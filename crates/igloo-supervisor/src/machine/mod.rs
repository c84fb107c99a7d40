//! What the supervisor does, without doing it: pure transitions over virtual time.
//!
//! [`service::Service`] is the life of one service, [`fleet::Fleet`] that of all of them: order, changes, waits. Both
//! take an [`Event`] and the time and give [`Effect`]s; `serve/` carries these out and reports back with events.

pub(crate) mod fleet;
pub(crate) mod service;

use std::time::Duration;

use crate::unit::UnitEvent;
use crate::wire::State;

/// The time, twice: since the supervisor started, for waiting, and since 1970, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) mono: Duration,
    pub(crate) wall_ms: u64,
}

/// Numbers everything that is started for a service, so that late news of an earlier start are told from new ones.
pub(crate) type Run = u64;

/// What happens to a service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// It shall run; why.
    Start(String),
    /// It waits for these.
    Needs { on: Vec<String>, blocked: Option<String> },
    /// It need not wait any more.
    NeedsMet,
    /// It shall end; why.
    Stop { grace: Duration, why: String },
    /// The setup step was not done yet and runs now.
    SetupStarted(Run),
    /// The setup step is done, or was done long ago, or failed.
    SetupDone(Run, Result<(), String>),
    /// News from the unit.
    Unit(Run, UnitEvent),
    /// The probe has seen what it looks for.
    Probed(Run),
    /// The probe has not; why.
    ProbeSaw(Run, String),
    /// A look at its health: well, or why not.
    Health(Run, Result<(), String>),
    /// It was frozen, or goes on.
    Pause(bool),
    /// Something was done to it that changes no state.
    Told(String),
    /// Time is up.
    Due(Run, Timer),
}

/// What time can be up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The setup step.
    Setup,
    /// Becoming ready.
    Ready,
    /// Ending when asked.
    Kill,
    /// Ending when killed.
    Dead,
    /// The pause before the next start.
    Backoff,
    /// Its own word that it is well.
    Watchdog,
    /// The next turn of what runs from time to time.
    Next,
}

/// What is to be done for a service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Run the setup step unless its marker exists; report [`Event::SetupStarted`] and [`Event::SetupDone`].
    Setup(Run),
    /// Bind its ports and start it; report [`Event::Unit`].
    Start(Run),
    /// Look whether it is ready; report [`Event::Probed`].
    Probe(Run),
    /// Look after its health; report [`Event::Health`].
    Watch,
    /// Freeze it, or let it go on.
    Pause(Run, bool),
    /// Send a signal.
    Signal(Run, i32),
    /// Kill it.
    Kill(Run),
    /// Report [`Event::Due`] at this time.
    Timer(Run, Timer, Duration),
    /// Tell everybody its new state, and what led to it; it may have another one by the time this is carried out.
    Changed(State, Option<String>),
    /// Tell everybody something that changes no state.
    Note(String),
    /// Give its ports back.
    ReleasePorts,
    /// It is gone for good.
    Forget,
}
