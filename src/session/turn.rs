//! The generation of one answer, token by token.

use super::answer::{Answer, FinishReason, TokenInfo};
use super::{Before, Prompt, Session};
use crate::error::{Error, Result};
use crate::prompt::{Message, Role};
use crate::sample::{Sampler, TokenLogprob, log_sum_exp, top_logprobs};
use crate::tokenizer::TextStream;
use std::time::Instant;

/// An answer in the making. A token is drawn by [`Turn::step`]; it then waits in [`Turn::pending`] until somebody
/// runs it through the decoder.
pub(super) struct Turn {
    sampler: Sampler,
    text: TextStream,
    stops: Vec<String>,
    answer: Answer,
    /// Bytes of `answer.text` handed out.
    emitted: usize,
    /// Drawn, and not yet run.
    pub(super) pending: Option<u32>,
    finished: bool,
    before: Before,
    /// A stop text was found and cut off.
    cut: bool,
    start: Instant,
}

impl Turn {
    pub(super) fn new(
        session: &Session,
        prompt: Prompt,
        before: Before,
        template_stops: &[&str],
        start: Instant,
    ) -> Self {
        let generation = session.generation.clone();
        let own = generation.stop.iter().cloned();
        let stops = own.chain(template_stops.iter().map(ToString::to_string)).filter(|s| !s.is_empty()).collect();
        let answer = Answer {
            text: String::new(),
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            prompt_tokens: prompt.tokens,
            image_tokens: prompt.image_tokens,
            finish_reason: FinishReason::Cancelled,
            timings: prompt.timings,
        };
        Self {
            text: TextStream::new(session.model.tokenizer()),
            sampler: Sampler::new(generation),
            stops,
            answer,
            emitted: 0,
            pending: None,
            finished: false,
            before,
            cut: false,
            start,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Draws a token from the session's logits; returns new text that no stop text can take back, if there is any.
    pub(super) fn step(&mut self, session: &mut Session) -> Result<Option<String>> {
        let generation = &session.generation;
        if session.control.is_cancelled() {
            return Ok(self.finish(session, FinishReason::Cancelled));
        }
        if self.answer.token_ids.len() >= generation.max_tokens {
            return Ok(self.finish(session, FinishReason::Length));
        }
        if self.answer.prompt_tokens + self.answer.token_ids.len() >= session.model.context() {
            return Ok(self.finish(session, FinishReason::Context));
        }
        let tokenizer = session.model.tokenizer();
        // Rows beyond the vocabulary are padding of the matrix and never tokens.
        let logits = &mut session.logits[..tokenizer.vocab_size()];
        let before = generation.logprobs.map(|n| (log_sum_exp(logits), top_logprobs(logits, n), logits.to_vec()));
        let Some(id) = self.sampler.next(logits) else {
            let reason = "the output is not a number for any token: weights or an embedding are damaged, or logit_bias \
                          forbids every token";
            return Err(Error::invalid(session.model.name(), "logits", reason));
        };
        if self.answer.token_ids.is_empty() {
            self.answer.timings.first_token = self.start.elapsed();
        }
        if tokenizer.is_stop(id) || generation.stop_tokens.contains(&id) {
            return Ok(self.finish(session, FinishReason::Stop));
        }
        self.answer.token_ids.push(id);
        if let Some((total, top, logits)) = before {
            let logprob = logits[id as usize] - total;
            self.answer.logprobs.push(TokenInfo { token: TokenLogprob { id, logprob }, top });
        }
        let piece = self.text.push(tokenizer, id);
        if self.append(&piece) {
            return Ok(self.finish(session, FinishReason::Stop));
        }
        self.pending = Some(id);
        Ok(self.emit(self.safe_len()))
    }

    /// Ends the turn: the answer becomes part of the conversation. Returns the text not handed out so far.
    pub(super) fn finish(&mut self, session: &mut Session, reason: FinishReason) -> Option<String> {
        if self.finished {
            return None;
        }
        self.finished = true;
        self.pending = None;
        self.answer.finish_reason = reason;
        let rest = self.text.finish();
        if !self.cut {
            self.append(&rest);
        }
        self.answer.timings.total = self.start.elapsed();
        let text = self.answer.text.clone();
        session.messages.push(Message::text(Role::Assistant, text));
        self.emit(self.answer.text.len())
    }

    /// Ends a turn that failed: the conversation is as it was before.
    pub(super) fn abandon(&mut self, session: &mut Session) {
        self.finished = true;
        self.pending = None;
        session.messages.truncate(self.before.messages);
        session.images.truncate(self.before.images);
        session.attached = std::mem::take(&mut self.before.attached);
    }

    pub(super) fn into_answer(self) -> Answer {
        self.answer
    }

    /// Adds text; true if a stop text is complete, which is then cut off with all that follows.
    fn append(&mut self, piece: &str) -> bool {
        let text = &mut self.answer.text;
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let mut from = text.len().saturating_sub(longest).max(self.emitted);
        text.push_str(piece);
        while !text.is_char_boundary(from) {
            from -= 1;
        }
        let found = self.stops.iter().filter_map(|stop| text[from..].find(stop.as_str())).min();
        if let Some(at) = found {
            text.truncate(from + at);
            self.cut = true;
        }
        self.cut
    }

    /// Length of the text that is not the beginning of a stop text.
    fn safe_len(&self) -> usize {
        let text = &self.answer.text;
        let starts = text[self.emitted..].char_indices().map(|(i, _)| self.emitted + i);
        let mut unsafe_from = starts.filter(|&i| self.stops.iter().any(|s| s.starts_with(&text[i..])));
        unsafe_from.next().unwrap_or(text.len())
    }

    fn emit(&mut self, end: usize) -> Option<String> {
        let piece = self.answer.text.get(self.emitted..end).filter(|p| !p.is_empty())?.to_owned();
        self.emitted = end;
        Some(piece)
    }
}
