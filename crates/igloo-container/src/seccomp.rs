//! The system calls that a payload may make.
#![allow(clippy::todo)]

use crate::ContainerError;

/// Installs the container filter in this thread; needs no_new_privs or CAP_SYS_ADMIN.
pub fn install() -> Result<(), ContainerError> {
    todo!()
}
