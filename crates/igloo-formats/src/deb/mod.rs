//! Debian: versions, relations between packages, package indexes, release files, archives.

pub mod archive;
pub mod index;
pub mod meta;
pub mod record;
pub mod relation;
pub mod release;
pub mod signature;
pub mod version;

pub use index::Index;
pub use record::{MultiArch, Priority, Record};
pub use relation::{Alternative, Clause, Op, Relations};
pub use version::Version;
