//! What a question gives.

use crate::sample::TokenLogprob;
use std::time::Duration;

/// An answer and how it came about.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The text, without stop texts.
    pub text: String,
    /// The generated tokens, without the one that ended the answer.
    pub token_ids: Vec<u32>,
    /// Log-probabilities of the tokens, one entry each; empty unless
    /// [asked for](crate::Generation::logprobs).
    pub logprobs: Vec<TokenInfo>,
    /// Positions of the whole prompt, image tokens included.
    pub prompt_tokens: usize,
    /// How many of those are image tokens.
    pub image_tokens: usize,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// Where the time went.
    pub timings: Timings,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model or a stop text ended it.
    Stop,
    /// [`Generation::max_tokens`](crate::Generation::max_tokens) was reached.
    Length,
    /// The context is full.
    Context,
    /// It was cancelled.
    Cancelled,
}

impl FinishReason {
    /// The reason as a word: `stop`, `length`, `context`, `cancelled`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Context => "context",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A generated token with its log-probability.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenInfo {
    /// The token.
    pub token: TokenLogprob,
    /// The most likely tokens at its place, most likely first.
    pub top: Vec<TokenLogprob>,
}

/// Where the time of a turn went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Resizing and normalising images.
    pub preprocess: Duration,
    /// Vision tower and projector.
    pub encode: Duration,
    /// The prompt through the language model.
    pub prefill: Duration,
    /// From the call to the first token.
    pub first_token: Duration,
    /// The whole turn.
    pub total: Duration,
}

/// The likelihood of a choice as an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Sum of the tokens' natural log-probabilities.
    pub logprob: f32,
    /// Number of tokens; divide by it to compare choices of different lengths.
    pub tokens: usize,
}
