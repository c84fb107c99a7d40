//! Environments of Debian packages: what maintainer scripts would have done, done without running one.
//!
//! Takes unpacked packages ([`Member`]s: store objects with `data/`, `control/` and `meta.json`) and the ids that the
//! lock has assigned; gives a plan ([`plan`]), a generated top layer ([`assemble`]) and, from that, the
//! [`Environment`] that shells, containers and images realise. The output is a function of members, identities and
//! [`TRIGGERS`], byte for byte.
//!
//! Never runs anything from a package, never follows a symlink of a package on the real file system, never prints,
//! never reads the process environment.

pub mod analysis;
pub mod assemble;
pub mod environment;
pub mod error;
pub mod explain;
pub mod identity;
pub mod member;
pub mod merge;
pub mod plan;
pub mod script;

mod layer;
mod recipes;
mod triggers;
mod union;

pub use assemble::{Settings, assemble};
pub use environment::{Attr, AttrKind, Environment, Group, User};
pub use error::EnvError;
pub use explain::{MemberSize, explain};
pub use identity::Identities;
pub use member::Member;
pub use merge::{MAX_LOWERS, bundles, merge};
pub use plan::{Cover, Plan, ScriptReport, Unhandled, plan};

/// Version of everything that decides what the generated layer looks like. Part of the lock: a change of behaviour
/// that changes bytes of an environment raises it.
pub const TRIGGERS: u32 = 2;
