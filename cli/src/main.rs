//! The `llava` command.
//!
//! Results go to standard output and nothing else does. Exit status: 0, 1 for an error while running, 2 for a command
//! line that makes no sense, 130 after Ctrl-C.

mod args;
mod bench;
mod chat;
mod convert;
mod describe;
mod failure;
mod hooks;
mod imatrix;
mod inspect;
mod interrupt;
mod output;
mod progress;
mod pull;
mod quantize;
mod transcript;

use args::{Cli, Command};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    let (name, result) = match &cli.command {
        Command::Describe(args) => ("describe", describe::run(args)),
        Command::Chat(args) => ("chat", chat::run(args)),
        Command::Inspect(args) => ("inspect", inspect::run(args)),
        Command::Pull(args) => ("pull", pull::run(args)),
        Command::Convert(args) => ("convert", convert::run(args)),
        Command::Quantize(args) => ("quantize", quantize::run(args)),
        Command::Imatrix(args) => ("imatrix", imatrix::run(args)),
        Command::Bench(args) => ("bench", bench::run(args)),
        Command::Tokenize(args) => ("tokenize", hooks::tokenize(args)),
        Command::Encode(args) => ("encode", hooks::encode(args)),
        Command::Logits(args) => ("logits", hooks::logits(args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(name),
    }
}

/// Warnings of the library, one line each; `RUST_LOG` asks for more or less.
fn start_log() {
    let default = env_logger::Env::default().default_filter_or("warn");
    env_logger::Builder::from_env(default)
        .format(|out, record| writeln!(out, "{}: {}", record.level().as_str().to_lowercase(), record.args()))
        .init();
}
