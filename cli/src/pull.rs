//! `llava pull`: models from the Hugging Face Hub.

use crate::args::PullArgs;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::Progress;
use llava::Control;
use llava::hub::{Hub, Offer, Pair};
use std::fmt::Write;
use std::path::Path;

/// Runs the command.
///
/// # Errors
/// Those of the hub.
pub fn run(args: &PullArgs) -> Result<(), Failure> {
    let spec = args.model.strip_prefix("hf:").unwrap_or(&args.model);
    if args.list {
        return Ok(output::text(&table(&Hub::from_env()?.list(spec)?))?);
    }
    let (interrupt, control) = (Interrupt::install()?, Control::default());
    interrupt.stops(control.clone());
    let pair = pull(spec, &control)?;
    let paths = std::iter::once(&pair.model).chain(&pair.mmproj);
    Ok(output::text(&paths.map(|p| format!("{}\n", p.display())).collect::<String>())?)
}

/// The files of a model that is named `hf:OWNER/REPO…`; `None` for a path.
///
/// # Errors
/// Those of the hub.
pub fn resolve(model: &Path) -> Result<Option<Pair>, Failure> {
    match model.to_str().and_then(|name| name.strip_prefix("hf:")) {
        Some(spec) => pull(spec, &Control::default()).map(Some),
        None => Ok(None),
    }
}

fn pull(spec: &str, control: &Control) -> Result<Pair, Failure> {
    let progress = Progress::start(format!("pulling {spec}"));
    progress.follow(control);
    Ok(Hub::from_env()?.pull(spec, control)?)
}

fn table(offers: &[Offer]) -> String {
    let mut out = String::new();
    for o in offers {
        let parts = if o.parts.len() > 1 { format!(" and {} more parts", o.parts.len() - 1) } else { String::new() };
        let mmproj = o.mmproj.as_deref().unwrap_or("none");
        let kind = o.kind.unwrap_or("");
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{kind:8}{:>10}  {}{parts}  (mmproj: {})",
            output::size(o.bytes),
            output::printable(&o.parts[0]),
            output::printable(mmproj)
        );
    }
    out
}
