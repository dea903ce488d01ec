//! `llava quantize`: a smaller file of a model.

use crate::args::QuantizeArgs;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::Progress;
use llava::gguf::File;
use llava::quant::BlockType;
use llava::{Control, Model};
use llava_convert::quantize::{ImportanceMatrix, Options, Report, compare, quantize};
use std::fmt::Write;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

/// Runs the command.
///
/// # Errors
/// [`Failure::Usage`] for input and output that are one file; those of reading, of quantising and of writing.
pub fn run(args: &QuantizeArgs) -> Result<(), Failure> {
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same(&args.input, &args.output) {
        // It is read while the other is written.
        return Err(Failure::Usage("OUT is the file IN: name another".to_owned()));
    }
    let file = File::open(&args.input)?;
    let options = Options {
        tensors: args.tensors.clone(),
        importance: args.imatrix.as_ref().map(ImportanceMatrix::open).transpose()?,
        requantize: args.requantize,
        threads: args.threads.unwrap_or_else(|| Options::new(args.mixture).threads),
        ..Options::new(args.mixture)
    };
    let check = args.check.as_deref().map(|text| Check::new(text, args)).transpose()?;
    let (interrupt, control) = (Interrupt::install()?, Control::default());
    interrupt.stops(control.clone());
    let progress = Progress::start(format!("quantising to {}", args.mixture.name()));
    let report = quantize(&file, &args.output, &options, &mut |p| {
        progress.set(p.done, p.total);
        if control.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    drop(progress);
    output::text(&table(&report, &args.output.display().to_string()))?;
    if let Some(check) = check {
        output::text(&check.run(&control)?)?;
    }
    Ok(())
}

/// Both models on a text.
struct Check<'a> {
    args: &'a QuantizeArgs,
    text: String,
    before: Model,
}

impl<'a> Check<'a> {
    /// Before the new file is written, to fail early.
    fn new(text: &Path, args: &'a QuantizeArgs) -> Result<Self, Failure> {
        let text = fs::read_to_string(text).map_err(|e| Failure::file(text, e))?;
        Ok(Self { text, before: Self::load(args, &args.input)?, args })
    }

    fn load(args: &QuantizeArgs, path: &Path) -> Result<Model, Failure> {
        let builder = Model::builder(path).text_only();
        Ok(if let Some(n) = args.threads { builder.threads(n) } else { builder }.load()?)
    }

    fn run(&self, control: &Control) -> Result<String, Failure> {
        let progress = Progress::start("reading the text with both");
        let after = Self::load(self.args, &self.args.output)?;
        let on_chunk = |done, total| progress.set(done as u64, total as u64);
        let c = compare(&self.before, &after, &self.text, self.args.chunks, control, on_chunk)?;
        Ok(format!(
            "perplexity {:.4} from {:.4} ({:+.2} %), the same token the most likely at {:.1} % of {} positions\n",
            c.after,
            c.before,
            100.0 * (c.after / c.before - 1.0),
            100.0 * c.agreement,
            c.positions
        ))
    }
}

fn table(report: &Report, output: &str) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:<32} {:>20} {:>6} {:>6} {:>9} {:>9}", "tensor", "shape", "from", "to", "size", "error");
    for t in &report.tensors {
        let shape = t.dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let error = if t.from == t.to { String::new() } else { format!("{:.2} %", 100.0 * t.error) };
        let (name, size) = (output::printable(&t.name), output::size(t.bytes_after));
        let _ = writeln!(text, "{name:<32} {shape:>20} {:>6} {:>6} {size:>9} {error:>9}", t.from.name(), t.to.name());
    }
    let values: f64 = report.tensors.iter().map(|t| t.dims.iter().product::<usize>() as f64).sum();
    let (before, after) = (report.bytes_before(), report.bytes_after());
    let _ = writeln!(
        text,
        "{output}: {} from {}, {:.2} bits a weight",
        output::size(after),
        output::size(before),
        8.0 * after as f64 / values.max(1.0)
    );
    text
}

/// A `REGEX=TYPE` of the command line.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn tensor(text: &str) -> Result<(regex::Regex, BlockType), String> {
    let (pattern, name) = text.rsplit_once('=').ok_or("expected REGEX=TYPE")?;
    let kind = BlockType::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(name));
    let kind = kind.ok_or_else(|| {
        let all: Vec<_> = BlockType::ALL.iter().map(|t| t.name()).collect();
        format!("there is no type {name:?}, there are {}", all.join(", "))
    })?;
    Ok((regex::Regex::new(pattern).map_err(|e| e.to_string())?, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensors_type_is_named_after_the_last_equals_sign() {
        let (pattern, kind) = tensor("attn_(q|k)=.*=q8_0").unwrap();
        assert_eq!((pattern.as_str(), kind), ("attn_(q|k)=.*", BlockType::Q8_0));
        assert!(tensor("q8_0").is_err() && tensor("x=q9").is_err() && tensor("(=q8_0").is_err());
    }
}
