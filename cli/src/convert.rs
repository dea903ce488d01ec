//! `llava convert`: a GGUF pair of a Hugging Face checkpoint.

use crate::args::ConvertArgs;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::Progress;
use llava::Control;
use llava_convert::hf::{Options, Report, convert};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::ControlFlow;

/// Runs the command.
///
/// # Errors
/// Those of reading the checkpoint and of writing. Nothing is written then.
pub fn run(args: &ConvertArgs) -> Result<(), Failure> {
    let default = Options::default();
    let options = Options {
        text: args.kind.unwrap_or(default.text),
        mmproj: args.mmproj_type.unwrap_or(default.mmproj),
        base: args.base.clone(),
        tower: args.tower.clone(),
        threads: args.threads.unwrap_or(default.threads),
    };
    let (interrupt, control) = (Interrupt::install()?, Control::default());
    interrupt.stops(control.clone());
    let progress = Progress::start(format!("converting {}", args.checkpoint.display()));
    let report = convert(&args.checkpoint, &args.output, &options, &mut |p| {
        progress.set(p.done, p.total);
        if control.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    drop(progress);
    Ok(output::text(&text(&report))?)
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for file in &report.files {
        let mut types = BTreeMap::new();
        for t in &file.tensors {
            *types.entry(t.to.name()).or_insert(0) += 1;
        }
        let types: Vec<_> = types.iter().map(|(name, n)| format!("{n} {name}")).collect();
        let bytes = file.tensors.iter().map(|t| t.bytes_after).sum();
        let _ = writeln!(out, "{}: {}, tensors: {}", file.path.display(), output::size(bytes), types.join(", "));
    }
    // One line for each reason, with the first of the names.
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for t in &report.ignored {
        reasons.entry(&t.reason).or_default().push(&t.name);
    }
    for (reason, names) in reasons {
        let more = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
        let _ = writeln!(out, "left out: {}{more}: {reason}", output::printable(names[0]));
    }
    out
}
