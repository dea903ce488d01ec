//! Many questions at once.

use super::Session;
use super::answer::Answer;
use super::turn::Turn;
use crate::cpu::{Control, Segment};
use crate::decoder::Row;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::model::{Input, Model};

/// Questions that are answered together: the weights are read once for all of them. Each gets exactly the answer
/// that it would get alone.
///
/// ```
/// # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/transformers")).unwrap();
/// # let model = llava::Model::open("llava")?;
/// let mut batch = llava::Batch::new(&model);
/// for path in ["images/wide.png", "images/tall.png"] {
///     batch.push(model.session(), "Describe the image.", &[&llava::Image::open(path)?])?;
/// }
/// for (_, answer) in batch.run() {
///     println!("{}", answer?.text);
/// }
/// # Ok::<(), llava::Error>(())
/// ```
pub struct Batch {
    model: Model,
    entries: Vec<Entry>,
    control: Control,
    /// `[entries, n_vocab]`.
    logits: Vec<f32>,
}

struct Entry {
    session: Session,
    /// The session's own, for when it leaves.
    control: Control,
    state: Result<Turn>,
}

impl Batch {
    /// An empty batch for sessions of `model`.
    pub fn new(model: &Model) -> Self {
        Self { model: model.clone(), entries: Vec::new(), control: Control::default(), logits: Vec::new() }
    }

    /// Adds a question. Its images are encoded and its prompt is run now; what goes wrong with it is returned by
    /// [`Batch::run`] in its place.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `session` belongs to another model.
    pub fn push(&mut self, mut session: Session, text: &str, images: &[&Image]) -> Result<()> {
        if self.model != *session.model() {
            return Err(Error::argument("session", "belongs to another model than the batch"));
        }
        let control = std::mem::replace(&mut session.control, self.control.clone());
        let state = session.begin(text, images);
        self.entries.push(Entry { session, control, state });
        Ok(())
    }

    /// A handle that cancels the whole batch, from any thread, and says how far its prompts are.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Generates all answers; returns them with their sessions, in the order they were added.
    pub fn run(mut self) -> Vec<(Session, Result<Answer>)> {
        while self.step() {}
        self.entries
            .into_iter()
            .map(|mut e| {
                e.session.control = e.control;
                (e.session, e.state.map(Turn::into_answer))
            })
            .collect()
    }

    /// Draws a token for every unfinished answer, then runs them all in one pass; false when all are finished.
    fn step(&mut self) -> bool {
        for Entry { session, state, .. } in &mut self.entries {
            let Ok(turn) = state else { continue };
            if turn.is_finished() {
                continue;
            }
            // Room for the token is made here, so that a refusal concerns this answer alone.
            let drawn = turn.step(session).and_then(|_| session.cache.reserve(1));
            if let Err(e) = drawn {
                turn.abandon(session);
                *state = Err(e);
            }
        }
        let mut waiting: Vec<_> = self.entries.iter_mut().filter_map(Entry::waiting).collect();
        if waiting.is_empty() {
            return false;
        }
        let decoder = self.model.decoder();
        for group in waiting.chunks_mut(decoder.max_rows()) {
            let rows: Vec<_> = group.iter().map(|(_, token)| Row::Token(*token)).collect();
            let wanted: Vec<usize> = (0..rows.len()).collect();
            let mut segments: Vec<_> =
                group.iter_mut().map(|(s, _)| Segment { cache: &mut s.cache, rows: 1 }).collect();
            let mut pass = self.model.cpu().enter(&self.control);
            let result = decoder.forward(&mut pass, &mut segments, &rows, &wanted, &mut self.logits);
            drop(pass);
            if result.is_err() {
                // With room made above, cancellation is all that can stop a pass; the next step ends the answers.
                continue;
            }
            for ((session, token), logits) in group.iter_mut().zip(self.logits.chunks_exact(decoder.n_vocab)) {
                session.logits.copy_from_slice(logits);
                session.cached.push(Input::Token(*token));
            }
        }
        true
    }
}

impl Entry {
    /// The parts of an entry whose token waits to be run.
    fn waiting(&mut self) -> Option<(&mut Session, u32)> {
        let turn = self.state.as_mut().ok()?;
        let token = turn.pending.take()?;
        Some((&mut self.session, token))
    }
}
