use crate::handle::{Handle, Table, free, put_as};
use crate::status::{Failure, c_string, llava_status};
use engine::{Answer, FinishReason, TokenLogprob};
use std::ffi::{CString, c_char};
use std::sync::Arc;
use std::time::Duration;

/// Why an answer ended.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum llava_finish_reason {
    /// There is no answer: see `status`.
    None = 0,
    /// The model or a stop text ended it.
    Stop = 1,
    /// `max_tokens` was reached.
    Length = 2,
    /// The context is full.
    Context = 3,
    /// It was cancelled, or the text callback returned false.
    Cancelled = 4,
}

/// A token and its natural log-probability under the model, before temperature and the like.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct llava_token_logprob {
    /// The token.
    pub id: u32,
    /// Its log-probability.
    pub logprob: f32,
}

impl From<&TokenLogprob> for llava_token_logprob {
    fn from(t: &TokenLogprob) -> Self {
        Self { id: t.id, logprob: t.logprob }
    }
}

/// An answer. The library allocates it and llava_answer_free() frees it; all of it is read-only, and any number of threads
/// may read it. Newer libraries add fields at the end.
#[repr(C)]
pub struct llava_answer {
    /// Bytes of this struct in the library that made it.
    pub struct_size: usize,
    /// LLAVA_STATUS_OK, or in a batch why there is no answer.
    pub status: i32,
    /// A llava_finish_reason.
    pub finish_reason: i32,
    /// What went wrong, or "".
    pub error: *const c_char,
    /// The text in UTF-8, without stop texts. A NUL follows it.
    pub text: *const c_char,
    /// Bytes of the text, without that NUL.
    pub text_size: usize,
    /// The generated tokens, without the one that ended the answer.
    pub token_ids: *const u32,
    /// Number of generated tokens.
    pub n_tokens: usize,
    /// The tokens' log-probabilities, `n_tokens`; NULL unless asked for.
    pub logprobs: *const llava_token_logprob,
    /// The most likely tokens at each place, most likely first: `n_tokens` rows of `n_top`; NULL unless asked for.
    pub top_logprobs: *const llava_token_logprob,
    /// Entries in a row of `top_logprobs`.
    pub n_top: usize,
    /// Positions of the whole prompt, image tokens included.
    pub prompt_tokens: usize,
    /// How many of those are image tokens.
    pub image_tokens: usize,
    /// Milliseconds for resizing and normalising images.
    pub preprocess_ms: f64,
    /// Milliseconds in the vision tower and projector.
    pub encode_ms: f64,
    /// Milliseconds for the prompt in the language model.
    pub prefill_ms: f64,
    /// Milliseconds from the call to the first token.
    pub first_token_ms: f64,
    /// Milliseconds of the whole turn.
    pub total_ms: f64,
}

/// A [`llava_answer`] and what it points to.
pub struct Owned {
    c: llava_answer,
    _error: CString,
    _text: Vec<u8>,
    _token_ids: Vec<u32>,
    _logprobs: Vec<llava_token_logprob>,
    _top: Vec<llava_token_logprob>,
}

// SAFETY: its pointers go to memory that it owns and never writes to.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl Handle for llava_answer {
    type Value = Owned;
    const NAME: &'static str = "llava_answer";
    fn table() -> &'static Table<Owned> {
        static TABLE: Table<Owned> = Table::new();
        &TABLE
    }
}

/// An answer for C, or the reason why there is none.
pub fn give(result: Result<Answer, Failure>) -> *mut llava_answer {
    let (status, error, answer) = match result {
        Ok(answer) => (llava_status::Ok, CString::default(), Some(answer)),
        Err(failure) => (failure.status, c_string(&failure.message), None),
    };
    let finish_reason = match answer.as_ref().map(|a| a.finish_reason) {
        None => llava_finish_reason::None,
        Some(FinishReason::Stop) => llava_finish_reason::Stop,
        Some(FinishReason::Length) => llava_finish_reason::Length,
        Some(FinishReason::Context) => llava_finish_reason::Context,
        Some(FinishReason::Cancelled) => llava_finish_reason::Cancelled,
    };
    let a = answer.unwrap_or_else(nothing);
    let n_top = a.logprobs.first().map_or(0, |t| t.top.len());
    let logprobs: Vec<llava_token_logprob> = a.logprobs.iter().map(|t| (&t.token).into()).collect();
    let top: Vec<llava_token_logprob> = a.logprobs.iter().flat_map(|t| &t.top).map(Into::into).collect();
    let text_size = a.text.len();
    let mut text = a.text.into_bytes();
    text.push(0);
    let owned = Arc::new(Owned {
        c: llava_answer {
            struct_size: size_of::<llava_answer>(),
            status: status as i32,
            finish_reason: finish_reason as i32,
            error: error.as_ptr(),
            text: text.as_ptr().cast(),
            text_size,
            token_ids: a.token_ids.as_ptr(),
            n_tokens: a.token_ids.len(),
            logprobs: pointer(&logprobs),
            top_logprobs: pointer(&top),
            n_top,
            prompt_tokens: a.prompt_tokens,
            image_tokens: a.image_tokens,
            preprocess_ms: milliseconds(a.timings.preprocess),
            encode_ms: milliseconds(a.timings.encode),
            prefill_ms: milliseconds(a.timings.prefill),
            first_token_ms: milliseconds(a.timings.first_token),
            total_ms: milliseconds(a.timings.total),
        },
        _error: error,
        _text: text,
        _token_ids: a.token_ids,
        _logprobs: logprobs,
        _top: top,
    });
    let address = &raw const owned.c;
    put_as(address, owned);
    address.cast_mut()
}

fn nothing() -> Answer {
    Answer {
        text: String::new(),
        token_ids: Vec::new(),
        logprobs: Vec::new(),
        prompt_tokens: 0,
        image_tokens: 0,
        finish_reason: FinishReason::Cancelled,
        timings: engine::Timings::default(),
    }
}

fn pointer<T>(values: &[T]) -> *const T {
    if values.is_empty() { std::ptr::null() } else { values.as_ptr() }
}

fn milliseconds(time: Duration) -> f64 {
    1000.0 * time.as_secs_f64()
}

/// Frees an answer. NULL and answers that were freed already are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn llava_answer_free(answer: *mut llava_answer) {
    free(answer);
}
