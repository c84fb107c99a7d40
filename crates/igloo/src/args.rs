//! What can be typed. The doc comments of the argument structs are the manual.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser};

use crate::commands::Command;

/// Reproducible environments and containers from one igloo.toml and one igloo.lock
///
/// An igloo.toml declares packages for shells, services and images. `igloo lock` decides on versions,
/// `igloo shell` gives a shell with them, `igloo up` runs the services in isolated containers.
/// Commands find the project by walking up from the working directory.
#[derive(Debug, Parser)]
#[command(name = "igloo", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, ClapArgs)]
pub struct Global {
    /// Act as if started in DIR
    #[arg(short = 'C', long = "directory", value_name = "DIR", global = true, help_heading = "Global options")]
    pub directory: Option<PathBuf>,
    /// Take this file for the project's igloo.toml; its relative names start at the working directory, its lock is kept
    /// in igloo's state
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "flake", help_heading = "Global options")]
    pub manifest: Option<PathBuf>,
    /// Take what this output of a flake describes (mkRuntime, mkDevContainer, containers) for the project's igloo.toml
    #[arg(long, value_name = "REF", global = true, help_heading = "Global options")]
    pub flake: Option<String>,
    /// Print data as JSON
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Say nothing but errors and data
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub verbose: bool,
    /// Use no network; what isn't on this machine is an error
    #[arg(long, global = true, help_heading = "Global options")]
    pub offline: bool,
}
