//! Why a command ends before its time, and the exit status that says so.

use crate::args::Cli;
use crate::output;
use clap::CommandFactory;
use clap::error::ErrorKind;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// The status after Ctrl-C, as shells have it: 128 and the number of SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Why a command ends before its time.
#[derive(Debug)]
pub enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// Something went wrong.
    Run(String),
    /// Something went wrong with some of the input, and was reported where it did.
    Reported,
    /// Standard output can't be written to.
    Output(io::Error),
    /// Ctrl-C.
    Interrupted,
}

impl Failure {
    /// A file that could not be read or written.
    pub fn file(path: &Path, error: io::Error) -> Self {
        Self::Run(format!("{}: {error}", path.display()))
    }

    /// Says what went wrong in the subcommand `name`, and gives the exit status.
    pub fn report(self, name: &str) -> ExitCode {
        match self {
            Self::Usage(reason) => {
                let mut cli = Cli::command();
                cli.build();
                let command = cli.find_subcommand(name).cloned();
                let error = command.unwrap_or(cli).error(ErrorKind::ValueValidation, reason);
                // Where standard error is closed, the exit status has to do.
                let _ = error.print();
                ExitCode::from(2)
            }
            Self::Run(reason) => {
                output::error(&reason);
                ExitCode::FAILURE
            }
            Self::Reported => ExitCode::FAILURE,
            // The reader has what it wanted: `llava … | head`.
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Output(e) => {
                output::error(&format!("standard output: {e}"));
                ExitCode::FAILURE
            }
            Self::Interrupted => ExitCode::from(INTERRUPTED),
        }
    }
}

impl From<llava::Error> for Failure {
    fn from(error: llava::Error) -> Self {
        match error {
            llava::Error::InvalidArgument { .. } => Self::Usage(error.to_string()),
            llava::Error::Cancelled => Self::Interrupted,
            _ => Self::Run(error.to_string()),
        }
    }
}

/// Standard output's errors; files go through [`Failure::file`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is() {
        for (kind, status) in
            [(io::ErrorKind::BrokenPipe, ExitCode::SUCCESS), (io::ErrorKind::StorageFull, ExitCode::FAILURE)]
        {
            assert_eq!(Failure::from(io::Error::from(kind)).report("describe"), status);
        }
    }

    #[test]
    fn a_bad_argument_is_a_matter_of_usage() {
        let error = llava::Error::InvalidArgument { name: "threads", reason: "is 0".into() };
        assert!(matches!(Failure::from(error), Failure::Usage(r) if r == "threads: is 0"));
    }
}
