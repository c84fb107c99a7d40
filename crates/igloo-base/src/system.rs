//! The systems that igloo makes environments for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A system, in Nix's words; Debian's name of the architecture is [`System::deb_arch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum System {
    /// 64-bit ARM Linux.
    #[serde(rename = "aarch64-linux")]
    Aarch64Linux,
    /// 64-bit x86 Linux.
    #[serde(rename = "x86_64-linux")]
    X86_64Linux,
}

impl System {
    /// Every system there is.
    pub const ALL: [System; 2] = [System::Aarch64Linux, System::X86_64Linux];

    /// The system this binary was built for.
    pub const fn current() -> Self {
        if cfg!(target_arch = "aarch64") { System::Aarch64Linux } else { System::X86_64Linux }
    }

    /// Nix's name, `x86_64-linux`.
    pub const fn nix(self) -> &'static str {
        match self {
            System::Aarch64Linux => "aarch64-linux",
            System::X86_64Linux => "x86_64-linux",
        }
    }

    /// Debian's name, `amd64`.
    pub const fn deb_arch(self) -> &'static str {
        match self {
            System::Aarch64Linux => "arm64",
            System::X86_64Linux => "amd64",
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.nix())
    }
}

/// A text that names no system igloo knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no system that igloo knows (x86_64-linux or amd64, aarch64-linux or arm64)")]
pub struct UnknownSystem(pub String);

impl FromStr for System {
    type Err = UnknownSystem;

    /// Takes Nix's and Debian's names.
    fn from_str(text: &str) -> Result<Self, UnknownSystem> {
        System::ALL
            .into_iter()
            .find(|s| s.nix() == text || s.deb_arch() == text)
            .ok_or_else(|| UnknownSystem(text.to_owned()))
    }
}
