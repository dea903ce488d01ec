use crate::status::inside;
use engine::{Control, Progress, Stage};
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;

/// Receives a piece of an answer: `size` bytes of whole UTF-8 characters, not NUL-terminated, valid during the call. Returns
/// true to go on and false to end the answer here. Called on the thread that asks; it may use the library, except for the
/// session or batch that calls it, of which it may call the cancel function only.
pub type llava_text_callback =
    Option<unsafe extern "C" fn(text: *const c_char, size: usize, user_data: *mut c_void) -> bool>;

/// Hears how far something is: `done` of `total` steps of a stage (llava_stage), first with 0 done, then after each step.
/// Returns true to go on and false to cancel. Called on the thread that called the library; the model waits for it, and
/// the cancel functions are all it may call: others return LLAVA_STATUS_BUSY.
pub type llava_progress_callback =
    Option<unsafe extern "C" fn(stage: i32, done: usize, total: usize, user_data: *mut c_void) -> bool>;

/// What a progress callback hears of.
#[repr(i32)]
pub enum llava_stage {
    /// Opening a model. A step is one of its parts.
    Load = 1,
    /// The vision tower. A step is one layer on one image.
    Encode = 2,
    /// A prompt through the language model. A step is one layer on up to 512 positions.
    Prefill = 3,
    /// Files from the Hugging Face Hub. A step is one byte.
    Download = 4,
}

/// A pointer of the caller's, handed back to the caller's callback.
#[derive(Clone, Copy)]
pub struct UserData(pub *mut c_void);

// SAFETY: it is never used but to be handed back, on the thread that made the call; the header says so.
unsafe impl Send for UserData {}

impl UserData {
    /// The pointer; a method, so that closures capture all of `self`.
    pub fn get(self) -> *mut c_void {
        self.0
    }
}

/// Has `control` report to `callback`, or to nobody.
pub fn watch(control: &Control, callback: llava_progress_callback, user_data: UserData) {
    control.on_progress(move |Progress { stage, done, total }| {
        let stage = match stage {
            Stage::Load => llava_stage::Load,
            Stage::Encode => llava_stage::Encode,
            Stage::Prefill => llava_stage::Prefill,
            Stage::Download => llava_stage::Download,
        };
        let Some(callback) = callback else { return ControlFlow::Continue(()) };
        // SAFETY: the caller gave the function and the pointer for this.
        flow(inside(|| unsafe { callback(stage as i32, done, total, user_data.get()) }))
    });
}

/// Gives a piece of an answer to `callback`, or to nobody.
pub fn hand_out(piece: &str, callback: llava_text_callback, user_data: *mut c_void) -> ControlFlow<()> {
    match callback {
        // SAFETY: the caller gave the function and the pointer for this.
        Some(callback) => flow(unsafe { callback(piece.as_ptr().cast(), piece.len(), user_data) }),
        None => ControlFlow::Continue(()),
    }
}

/// What a callback's answer means.
fn flow(go_on: bool) -> ControlFlow<()> {
    if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}
