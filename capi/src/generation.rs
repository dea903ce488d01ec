use crate::arg::{self, Options, flag};
use crate::status::{Failure, Result, guard, llava_status};
use engine::Generation;
use std::ffi::c_char;

/// A text with its size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct llava_text {
    /// UTF-8.
    pub data: *const c_char,
    /// Its bytes, or LLAVA_NUL_TERMINATED.
    pub size: usize,
}

/// What is added to the logit of a token before anything else; minus infinity forbids it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct llava_logit_bias {
    /// The token.
    pub token: u32,
    /// What is added.
    pub bias: f32,
}

/// How answers are made. Fields that are 0 or NULL have the default: greedy, the same question has the same answer.
/// Probabilities are shaped in the order of the fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct llava_generation_options {
    /// sizeof(llava_generation_options).
    pub struct_size: usize,
    /// Tokens in the answer at most; 0 is 512.
    pub max_tokens: usize,
    /// Makes tokens of the answer so far less likely: above 1 discourages, 1 and 0 do nothing.
    pub repeat_penalty: f32,
    /// Divides the logits; 0 always takes the most likely token.
    pub temperature: f32,
    /// Draw from this many of the most likely tokens; 0 is all of them.
    pub top_k: usize,
    /// Draw from the fewest most likely tokens whose probabilities sum to this; 1 and 0 are all of them.
    pub top_p: f32,
    /// Draw only from tokens at least this likely relative to the most likely one; 0 is all of them.
    pub min_p: f32,
    /// Seed of the draws, if `has_seed` is 1.
    pub seed: u64,
    /// 1 for the draws of `seed`, 0 for different ones every time.
    pub has_seed: i32,
    /// 1 to have the tokens' log-probabilities in the answer.
    pub logprobs: i32,
    /// With `logprobs`: of this many most likely tokens at each place too.
    pub top_logprobs: usize,
    /// Changes to logits.
    pub logit_bias: *const llava_logit_bias,
    /// Number of them.
    pub n_logit_bias: usize,
    /// Texts that end the answer and are not part of it, besides the template's own.
    pub stop: *const llava_text,
    /// Number of them.
    pub n_stop: usize,
    /// Tokens that end the answer, besides the model's own.
    pub stop_tokens: *const u32,
    /// Number of them.
    pub n_stop_tokens: usize,
}

// SAFETY: numbers and pointers, its size first.
unsafe impl Options for llava_generation_options {
    const NAME: &'static str = "llava_generation_options";
}

/// Writes the defaults, spelled out, to `options`, a struct of `size` bytes: pass its sizeof.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_generation_options_init(
    options: *mut llava_generation_options,
    size: usize,
) -> llava_status {
    guard(|| {
        let d = Generation::default();
        let defaults = llava_generation_options {
            struct_size: 0,
            max_tokens: d.max_tokens,
            repeat_penalty: d.repeat_penalty,
            temperature: d.temperature,
            top_k: d.top_k,
            top_p: d.top_p,
            min_p: d.min_p,
            seed: 0,
            has_seed: 0,
            logprobs: 0,
            top_logprobs: 0,
            logit_bias: std::ptr::null(),
            n_logit_bias: 0,
            stop: std::ptr::null(),
            n_stop: 0,
            stop_tokens: std::ptr::null(),
            n_stop_tokens: 0,
        };
        // SAFETY: the caller's pointers are as the header demands.
        unsafe { arg::write_struct(options, size, &defaults) }
    })
}

/// # Safety
/// As [`arg::options`], for the arrays too.
pub unsafe fn generation(options: *const llava_generation_options) -> Result<Generation> {
    // SAFETY: the caller's promise.
    let o = unsafe { arg::options(options) }?;
    // SAFETY: the caller's promise.
    let (bias, stop, stop_tokens) = unsafe {
        (
            arg::slice("logit_bias", o.logit_bias, o.n_logit_bias)?,
            texts("stop", o.stop, o.n_stop)?,
            arg::slice("stop_tokens", o.stop_tokens, o.n_stop_tokens)?,
        )
    };
    let logprobs = flag("logprobs", o.logprobs)?;
    if o.top_logprobs > 0 && !logprobs {
        return Err(Failure::argument("top_logprobs", format!("is {}, and logprobs is 0", o.top_logprobs)));
    }
    let or = |value: f32, default: f32| if value == 0.0 { default } else { value };
    let d = Generation::default();
    Ok(Generation {
        max_tokens: if o.max_tokens == 0 { d.max_tokens } else { o.max_tokens },
        temperature: o.temperature,
        top_k: o.top_k,
        top_p: or(o.top_p, d.top_p),
        min_p: o.min_p,
        repeat_penalty: or(o.repeat_penalty, d.repeat_penalty),
        seed: flag("has_seed", o.has_seed)?.then_some(o.seed),
        logit_bias: bias.iter().map(|b| (b.token, b.bias)).collect(),
        stop: stop.into_iter().map(str::to_owned).collect(),
        stop_tokens: stop_tokens.to_vec(),
        logprobs: logprobs.then_some(o.top_logprobs),
    })
}

/// # Safety
/// As [`arg::slice`] for the array, [`arg::text`] for each text.
pub unsafe fn texts<'a>(name: &'static str, data: *const llava_text, n: usize) -> Result<Vec<&'a str>> {
    // SAFETY: the caller's promise.
    let texts = unsafe { arg::slice(name, data, n) }?;
    // SAFETY: the caller's promise.
    texts.iter().map(|t| unsafe { arg::text(name, t.data, t.size) }).collect()
}
