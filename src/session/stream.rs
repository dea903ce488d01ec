//! An answer as an iterator.

use super::Session;
use super::answer::{Answer, FinishReason};
use super::turn::Turn;
use crate::error::{Error, Result};
use std::ops::ControlFlow;

/// The pieces of an answer's text as they are generated, never half a character.
///
/// Dropped before its end, it leaves the answer so far in the conversation, as if cancelled.
pub struct Stream<'s> {
    session: &'s mut Session,
    turn: Option<Turn>,
}

impl<'s> Stream<'s> {
    pub(super) fn new(session: &'s mut Session, turn: Turn) -> Self {
        Self { session, turn: Some(turn) }
    }

    /// Generates what is left and returns the whole answer.
    ///
    /// # Errors
    /// Those of generation: [`Error::OutOfMemory`], [`Error::InvalidModel`].
    pub fn finish(self) -> Result<Answer> {
        self.finish_with(|_| ControlFlow::Continue(()))
    }

    /// [`Stream::finish`] that hands out the pieces; `Break` ends the answer.
    pub(super) fn finish_with(mut self, mut on_text: impl FnMut(&str) -> ControlFlow<()>) -> Result<Answer> {
        for piece in self.by_ref() {
            if on_text(&piece?).is_break() {
                break;
            }
        }
        Ok(self.stop())
    }

    /// Ends the answer here.
    pub fn stop(mut self) -> Answer {
        let Some(mut turn) = self.turn.take() else { unreachable!("only this and drop take the turn") };
        turn.finish(self.session, FinishReason::Cancelled);
        turn.into_answer()
    }
}

impl Iterator for Stream<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        let turn = self.turn.as_mut()?;
        while !turn.is_finished() {
            let run = turn.pending.take().map_or(Ok(()), |token| self.session.advance(token));
            let step = match run {
                Ok(()) => turn.step(self.session),
                Err(Error::Cancelled) => Ok(turn.finish(self.session, FinishReason::Cancelled)),
                Err(e) => Err(e),
            };
            match step {
                Ok(None) => continue,
                Ok(Some(piece)) => return Some(Ok(piece)),
                Err(e) => {
                    turn.abandon(self.session);
                    return Some(Err(e));
                }
            }
        }
        None
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.finish(self.session, FinishReason::Cancelled);
        }
    }
}
