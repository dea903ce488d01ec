use crate::arg;
use crate::handle::{free, get, handle, put};
use crate::status::{Failure, guard, llava_status};
use engine::Embedding;
use std::ffi::c_char;

/// An image as the language model sees it: image tokens, rows of float. Never changes: any number of threads and sessions
/// may use it at once.
pub struct llava_embedding {
    _private: [u8; 0],
}
handle!(llava_embedding => Embedding);

/// An embedding from its values, `tokens` rows of `width`, row by row. They are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_embedding_new(
    values: *const f32,
    tokens: usize,
    width: usize,
    embedding: *mut *mut llava_embedding,
) -> llava_status {
    guard(|| {
        let n = tokens.checked_mul(width).ok_or_else(|| {
            Failure::argument("values", format!("{tokens} rows of {width} are more than memory can hold"))
        })?;
        // SAFETY: the caller's pointers are as the header demands.
        let (values, out) = unsafe { (arg::slice("values", values, n)?, arg::out("embedding", embedding)?) };
        out.set(put(Embedding::new(values.to_vec(), width)?));
        Ok(())
    })
}

/// Reads a NumPy file of float32 `[tokens, width]`, as llava_embedding_save() writes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_embedding_load(
    path: *const c_char,
    embedding: *mut *mut llava_embedding,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let (path, out) = unsafe { (arg::required("path", path)?, arg::out("embedding", embedding)?) };
        out.set(put(Embedding::load(path)?));
        Ok(())
    })
}

/// Writes a NumPy file of float32 `[tokens, width]`. A file of that name is replaced when all is written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_embedding_save(embedding: *const llava_embedding, path: *const c_char) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let path = unsafe { arg::required("path", path)? };
        Ok(get(embedding)?.save(path)?)
    })
}

/// The values, `tokens` rows of `width`, row by row. They are the library's, and valid until the embedding is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_embedding_values(
    embedding: *const llava_embedding,
    values: *mut *const f32,
    tokens: *mut usize,
    width: *mut usize,
) -> llava_status {
    guard(|| {
        let e = get(embedding)?;
        // SAFETY: the caller's pointers are as the header demands.
        let (values, tokens, width) =
            unsafe { (arg::out("values", values)?, arg::out("tokens", tokens)?, arg::out("width", width)?) };
        values.set(e.values().as_ptr());
        tokens.set(e.tokens());
        width.set(e.width());
        Ok(())
    })
}

/// Ends the handle, and with it what llava_embedding_values() gave. Sessions that it was attached to keep what they need.
/// NULL and handles that were freed already are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn llava_embedding_free(embedding: *mut llava_embedding) {
    free(embedding);
}
