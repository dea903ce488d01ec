use crate::answer::{llava_answer, llava_token_logprob};
use crate::arg;
use crate::generation::{llava_generation_options, llava_logit_bias, llava_text};
use crate::model::{llava_input, llava_model_info, llava_model_options};
use crate::session::llava_score;
use crate::status::{guard, llava_status};
use std::ffi::{CStr, c_char};

/// Where a field of a struct lies, for bindings that declare the structs anew. The field "" is the whole struct.
#[repr(C)]
pub struct llava_field {
    /// Name of the struct.
    pub structure: *const c_char,
    /// Name of the field.
    pub field: *const c_char,
    /// Bytes in front of it.
    pub offset: usize,
    /// Its bytes.
    pub size: usize,
}

// SAFETY: it points to static texts.
unsafe impl Sync for llava_field {}

const fn text(s: &'static str) -> *const c_char {
    match CStr::from_bytes_with_nul(s.as_bytes()) {
        Ok(s) => s.as_ptr(),
        Err(_) => panic!("no NUL at its end"),
    }
}

macro_rules! layout {
    ($($name:ident { $($field:ident),* })*) => {
        &[$(
            llava_field {
                structure: text(concat!(stringify!($name), "\0")),
                field: text("\0"),
                offset: 0,
                size: size_of::<$name>(),
            },
            $(llava_field {
                structure: text(concat!(stringify!($name), "\0")),
                field: text(concat!(stringify!($field), "\0")),
                offset: std::mem::offset_of!($name, $field),
                size: {
                    // A reference to a field that is never read.
                    const fn size<T>(_: fn(&$name) -> &T) -> usize { size_of::<T>() }
                    size(|s: &$name| &s.$field)
                },
            }),*
        ),*]
    };
}

static FIELDS: &[llava_field] = layout! {
    llava_answer {
        struct_size, status, finish_reason, error, text, text_size, token_ids, n_tokens, logprobs, top_logprobs, n_top,
        prompt_tokens, image_tokens, preprocess_ms, encode_ms, prefill_ms, first_token_ms, total_ms
    }
    llava_generation_options {
        struct_size, max_tokens, repeat_penalty, temperature, top_k, top_p, min_p, seed, has_seed, logprobs, top_logprobs,
        logit_bias, n_logit_bias, stop, n_stop, stop_tokens, n_stop_tokens
    }
    llava_input { image, token }
    llava_logit_bias { token, bias }
    llava_model_info {
        struct_size, name, mmproj, template_name, template_reason, kernels, threads, context, trained_context, vocab_size,
        d_model, n_layer, kv_bytes, image_size, patch_size
    }
    llava_model_options {
        struct_size, mmproj, threads, context, kv_type, exact, template_name, kernels, on_progress, progress_data
    }
    llava_score { logprob, tokens }
    llava_text { data, size }
    llava_token_logprob { id, logprob }
};

/// The layout of every struct in this header: `n` fields. Static.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_struct_layout(fields: *mut *const llava_field, n: *mut usize) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let (fields, n) = unsafe { (arg::out("fields", fields)?, arg::out("n", n)?) };
        fields.set(FIELDS.as_ptr());
        n.set(FIELDS.len());
        Ok(())
    })
}
