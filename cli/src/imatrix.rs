//! `llava imatrix`: how much each weight counts.

use crate::args::ImatrixArgs;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::Progress;
use llava::{Control, Generation, Image};
use llava_convert::quantize::Collector;
use std::fs;

/// Runs the command.
///
/// # Errors
/// Those of reading, of running the model and of writing. Nothing is written then.
pub fn run(args: &ImatrixArgs) -> Result<(), Failure> {
    let named = args.text.iter().chain(&args.images).map(|p| p.display().to_string()).collect::<Vec<_>>();
    let text = args.text.as_ref().map(|p| fs::read_to_string(p).map_err(|e| Failure::file(p, e))).transpose()?;
    let (interrupt, control) = (Interrupt::install()?, Control::default());
    interrupt.stops(control.clone());
    let mut collector = {
        let progress = Progress::start("loading the model");
        progress.follow(&control);
        let builder = args.model.builder()?;
        let builder = if args.images.is_empty() { builder.text_only() } else { builder };
        Collector::new(builder, named.join(" "), args.chunk, &control)?
    };
    if !args.images.is_empty() {
        // Without a vision tower every image would fail, for one reason.
        collector.model().image_tokens(1, 1)?;
    }
    if let Some(text) = text {
        let progress = Progress::start("reading the text");
        let chunks = args.chunks.unwrap_or(usize::MAX);
        collector.text(&text, chunks, &control, |done, total| progress.set(done as u64, total as u64))?;
    }
    let generation = Generation { max_tokens: args.max_tokens, ..Generation::default() };
    let progress = Progress::start("looking at the images");
    for (i, path) in args.images.iter().enumerate() {
        progress.set(i as u64, args.images.len() as u64);
        collector.ask(&args.prompt, &Image::open(path)?, &generation, &control)?;
    }
    drop(progress);
    let matrix = collector.finish()?;
    matrix.save(&args.output)?;
    Ok(output::text(&format!("{}: {} tensors\n", args.output.display(), matrix.len()))?)
}
