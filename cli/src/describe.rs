//! `llava describe`: the same question about each image.

use crate::args::DescribeArgs;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::Progress;
use llava::{Answer, Generation, Image, Model, Stream};
use serde::Serialize;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// What `--json` prints of an image.
#[derive(Serialize)]
struct Line<'a> {
    image: &'a str,
    text: &'a str,
    token_ids: &'a [u32],
    prompt_tokens: usize,
    image_tokens: usize,
    finish_reason: &'static str,
    timing_ms: Timing,
    template: &'a str,
}

/// Milliseconds. `first_token` and `total` count from the beginning of the image's decoding.
#[derive(Serialize)]
struct Timing {
    load: f64,
    decode_image: f64,
    preprocess: f64,
    encode: f64,
    prefill: f64,
    first_token: f64,
    total: f64,
}

struct Job<'a> {
    model: Model,
    load: Duration,
    generation: Generation,
    interrupt: Interrupt,
    args: &'a DescribeArgs,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Reported`] if an image failed; everything else ends the command at once.
pub fn run(args: &DescribeArgs) -> Result<(), Failure> {
    let generation = args.answer.generation()?;
    let start = Instant::now();
    let model = args.model.load(args.answer.template.as_deref())?;
    // Without a vision tower every image would fail, for one reason.
    model.image_tokens(1, 1)?;
    let load = start.elapsed();
    let job = Job { model, load, generation, interrupt: Interrupt::install()?, args };
    let mut failed = false;
    for path in &args.images {
        match job.image(path) {
            Err(Failure::Run(reason)) => {
                output::error(&about(&path.display().to_string(), reason));
                failed = true;
            }
            other => other?,
        }
    }
    if failed { Err(Failure::Reported) } else { Ok(()) }
}

/// The library's image errors begin with the image's name, others do not.
fn about(name: &str, reason: String) -> String {
    if reason.strip_prefix(name).is_some_and(|rest| rest.starts_with(": ")) {
        return reason;
    }
    format!("{name}: {reason}")
}

impl Job<'_> {
    fn image(&self, path: &Path) -> Result<(), Failure> {
        self.interrupt.ends_program();
        let start = Instant::now();
        let image = Image::open(path)?;
        let decode = start.elapsed();
        let name = path.display().to_string();
        let answer = self.answer(&name, &image)?;
        if self.args.json {
            let t = &answer.timings;
            output::json(&Line {
                image: &name,
                text: &answer.text,
                token_ids: &answer.token_ids,
                prompt_tokens: answer.prompt_tokens,
                image_tokens: answer.image_tokens,
                finish_reason: answer.finish_reason.as_str(),
                timing_ms: Timing {
                    load: milliseconds(self.load),
                    decode_image: milliseconds(decode),
                    preprocess: milliseconds(t.preprocess),
                    encode: milliseconds(t.encode),
                    prefill: milliseconds(t.prefill),
                    first_token: milliseconds(decode + t.first_token),
                    total: milliseconds(decode + t.total),
                },
                template: self.model.template().0.name(),
            })?;
        }
        if self.interrupt.pressed() { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// The answer for one image, written as it comes unless it will be written as JSON.
    fn answer(&self, name: &str, image: &Image) -> Result<Answer, Failure> {
        let mut session = self.model.session();
        session.set_generation(self.generation.clone())?;
        self.interrupt.stops(session.control());
        let progress = Progress::start(format!("looking at {name}"));
        progress.follow(&session.control());
        let mut stream = session.stream(&self.args.prompt, &[image])?;
        if self.args.json {
            follow(&mut stream, &self.interrupt, |_| Ok(()))?;
            return Ok(stream.stop());
        }
        drop(progress);
        if self.args.images.len() > 1 {
            output::text(&format!("{} ", output::heading(&format!("{name}:"))))?;
        }
        let followed = follow(&mut stream, &self.interrupt, output::answer);
        output::text("\n")?;
        followed?;
        Ok(stream.stop())
    }
}

/// Hands out an answer as it comes, until its end or Ctrl-C. Spaces in front of its first word are left out:
/// SentencePiece models begin with one.
///
/// # Errors
/// Those of generation and of `show`.
pub fn follow(
    stream: &mut Stream<'_>,
    interrupt: &Interrupt,
    mut show: impl FnMut(&str) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut begun = false;
    for piece in stream {
        let piece = piece?;
        let piece = if begun { &piece } else { piece.trim_start() };
        begun |= !piece.is_empty();
        show(piece)?;
        if interrupt.pressed() {
            break;
        }
    }
    Ok(())
}

/// To the microsecond.
fn milliseconds(d: Duration) -> f64 {
    d.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_image_once() {
        assert_eq!(about("a.png", "a.png: is cut short".into()), "a.png: is cut short");
        assert_eq!(about("a.png", "the prompt needs 9 tokens".into()), "a.png: the prompt needs 9 tokens");
        assert_eq!(about("a", "a.png: is cut short".into()), "a: a.png: is cut short");
    }

    #[test]
    fn times_have_three_decimals() {
        assert_eq!(milliseconds(Duration::from_nanos(1_234_567_890)), 1234.567);
    }
}
