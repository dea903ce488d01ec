//! The C ABI of llava.
//!
//! The comments on what is exported are written for C readers: cbindgen copies them into
//! include/llava.h, which is committed (`cargo xtask header` writes it, a test compares it).
//!
//! How it is built: a handle that C holds is a name in a table (`handle.rs`), never an address, so none can be stale or of
//! the wrong kind without being noticed. Every function is `guard(|| …)` (`status.rs`): first one unsafe block that turns
//! what C gave into Rust values (`arg.rs`), then safe code, and last the write to the out-parameter. Nothing is written
//! on failure, and no panic leaves.

#![expect(non_camel_case_types, reason = "names as C sees them")]

mod arg;
mod callback;
mod handle;

// The header has them in this order.
mod version;

mod status;

mod log;

mod model;

mod image;

mod embedding;

mod generation;

mod session;

mod answer;

mod batch;

mod layout;
