//! `llava bench`: how fast a model runs here, beside what the machine can do.

mod report;
mod text;

use crate::args::{BenchArgs, Stage};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::Progress;
use llava::bench::{self, Machine, Picture, Sequences};
use llava::{Error, Model};
use report::{Batch, Decode, Encode, Prefill, Report, Spread, gigas};
use std::time::{Duration, Instant};

/// Tokens of each sequence in a batch: less than alone, where they must last for a while.
const BATCH_TOKENS: usize = 16;
/// Rows of the prompt that brings all weights into memory before anything is timed.
const WARM_UP: usize = 16;

/// Runs the command.
///
/// # Errors
/// Those of loading the model and of running it; [`Failure::Usage`] for a batch that is too large.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    // Ends the program, and with the status that the other commands have.
    let _interrupt = Interrupt::install()?;
    let (model, load) = load(args)?;
    let mut report = Report::new(&model, load);
    let job = Job { model: &model, args, context: model.context() };
    if job.does(Stage::Encode) {
        job.encode(&mut report)?;
    }
    job.language(&mut report)?;
    // Before the probe, which takes memory of its own.
    report.peak_rss_bytes = bench::peak_rss_bytes();
    let progress = Progress::start("measuring the machine's limits");
    report.machine = Some(Machine::measure(report.threads).into());
    drop(progress);
    if args.json { Ok(output::json(&report)?) } else { Ok(output::text(&text::table(&report))?) }
}

/// Loads the model as often as everything is measured. Text needs none of several mmprojs that lie beside it.
fn load(args: &BenchArgs) -> Result<(Model, Spread), Failure> {
    let mut times = Vec::new();
    let mut text_only = None;
    let needs_mmproj = args.model.mmproj.is_some() || args.only.contains(&Stage::Encode);
    loop {
        let progress = Progress::start("loading the model");
        let start = Instant::now();
        let builder = args.model.builder()?;
        let builder = if text_only.is_some() { builder.text_only() } else { builder };
        let model = match builder.load() {
            Err(Error::ModelNotFound(reason)) if text_only.is_none() && !needs_mmproj => {
                text_only = Some(reason);
                continue;
            }
            loaded => loaded?,
        };
        times.push(milliseconds(start.elapsed()));
        drop(progress);
        if times.len() == args.reps {
            if let Some(reason) = text_only {
                output::note(&format!("{reason}; without one, text alone is measured"));
            }
            return Ok((model, Spread::of(times)));
        }
    }
}

struct Job<'a> {
    model: &'a Model,
    args: &'a BenchArgs,
    context: usize,
}

impl Job<'_> {
    fn does(&self, stage: Stage) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&stage)
    }

    fn encode(&self, report: &mut Report) -> Result<(), Failure> {
        let Some(vision) = self.model.vision_config() else { return Ok(()) };
        let side = vision.image_size as u32;
        report.encode = Some(self.picture((side, side))?);
        if let Some(size) = bench::largest_picture(self.model) {
            report.encode_tiles = Some(self.picture(size)?);
        }
        Ok(())
    }

    fn picture(&self, size: (u32, u32)) -> Result<Encode, Failure> {
        let picture = Picture::new(self.model, size)?;
        let what = format!("encoding an image of {} tiles", picture.tiles());
        let work = picture.work();
        {
            let _progress = Progress::start("warming up");
            picture.encode()?;
        }
        let ms = self.repeat(&what, || Ok(milliseconds(picture.encode()?)))?;
        Ok(Encode {
            tiles: picture.tiles(),
            gop_s: gigas(work.ops, ms.median / 1e3),
            limit: work.arithmetic.into(),
            ms,
        })
    }

    /// Prefill, decode and batches, as far as they fit into the context.
    fn language(&self, report: &mut Report) -> Result<(), Failure> {
        let model = self.model;
        if [Stage::Prefill, Stage::Decode, Stage::Batch].into_iter().any(|stage| self.does(stage)) {
            let _progress = Progress::start("warming up");
            bench::prefill(model, WARM_UP.min(self.context - 1).max(1))?;
        }
        for &tokens in self.sizes(Stage::Prefill, &self.args.prefill, 0) {
            let work = bench::prefill_work(model, tokens);
            let what = format!("prefill of {tokens} tokens");
            let tokens_per_s =
                self.repeat(&what, || Ok(tokens as f64 / bench::prefill(model, tokens)?.as_secs_f64()))?;
            let gop_s = gigas(work.ops, tokens as f64 / tokens_per_s.median);
            report.prefill.push(Prefill { tokens, gop_s, limit: work.arithmetic.into(), tokens_per_s });
        }
        let after = self.args.after.unwrap_or(64.min(self.context / 2).max(1));
        if after >= self.context {
            let reason = format!("--after is {after}, and the model's context has {} positions", self.context);
            return Err(Failure::Usage(reason));
        }
        let decode: Vec<_> = self.sizes(Stage::Decode, &self.args.decode, after).copied().collect();
        let batch: &[usize] = if self.does(Stage::Batch) { &self.args.batch } else { &[] };
        let each = BATCH_TOKENS.min(self.context.saturating_sub(after));
        if batch.iter().chain(&decode).count() == 0 {
            return Ok(());
        }
        let most = batch.iter().copied().max().unwrap_or(1);
        let mut sequences = {
            let _progress = Progress::start(format!("running the prompts of {most} sequences"));
            Sequences::new(model, most, after)?
        };
        let mut rate = |n: usize, tokens: usize, what: &str| {
            self.repeat(what, || Ok((n * tokens) as f64 / sequences.decode(n, tokens)?.as_secs_f64()))
        };
        for tokens in decode {
            let tokens_per_s = rate(1, tokens, &format!("decoding {tokens} tokens"))?;
            let gb_s = gigas(bench::decode_work(model, 1).bytes, 1.0 / tokens_per_s.median);
            report.decode.push(Decode { tokens, after, gb_s, tokens_per_s });
        }
        for &n in batch {
            let tokens_per_s = rate(n, each, &format!("a batch of {n}"))?;
            let (work, seconds) = (bench::decode_work(model, n), n as f64 / tokens_per_s.median);
            let (gb_s, gop_s) = (gigas(work.bytes, seconds), gigas(work.ops, seconds));
            report.batch.push(Batch {
                n,
                tokens: each,
                after,
                gb_s,
                gop_s,
                limit: work.arithmetic.into(),
                tokens_per_s,
            });
        }
        Ok(())
    }

    /// Those of `sizes` that fit into the context after `before` tokens; says which don't.
    fn sizes<'s>(&self, stage: Stage, sizes: &'s [usize], before: usize) -> impl Iterator<Item = &'s usize> {
        let (context, wanted) = (self.context, self.does(stage));
        sizes.iter().filter(move |&&n| {
            let fits = before.saturating_add(n) <= context.saturating_sub(usize::from(before == 0));
            if wanted && !fits {
                let after = if before > 0 { format!(" after {before}") } else { String::new() };
                output::note(&format!("{n} tokens{after} skipped: the context has {context} positions"));
            }
            wanted && fits
        })
    }

    /// Measures as often as was asked for.
    fn repeat(&self, what: &str, mut measure: impl FnMut() -> Result<f64, Failure>) -> Result<Spread, Failure> {
        let mut values = Vec::with_capacity(self.args.reps);
        for i in 1..=self.args.reps {
            let _progress = Progress::start(format!("{what}, {i} of {}", self.args.reps));
            values.push(measure()?);
        }
        Ok(Spread::of(values))
    }
}

fn milliseconds(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}
