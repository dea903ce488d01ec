//! What a release needs and a build does not. `cargo xtask --help` lists it.

mod header;
mod install;
mod wheel;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What can go wrong here: a sentence.
type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Makes what a release of llava needs
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Write include/llava.h anew from the comments and declarations in capi/src
    Header,
    /// Build the libraries and lay them out with the headers, llava.pc and a CMake package
    Install {
        /// The folder under which include/ and lib/ go
        #[arg(long, value_name = "DIR")]
        prefix: PathBuf,
        /// The profile to build with
        #[arg(long, value_name = "NAME", default_value = "release")]
        profile: String,
    },
    /// Write the Python wheel to dist/: the package in bindings/python with the library, built for release
    Wheel,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Header => header::write(),
        Task::Install { prefix, profile } => install::install(&prefix, &profile),
        Task::Wheel => wheel::write(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
