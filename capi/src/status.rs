use engine::Error;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What every function that can fail returns: 0, or what went wrong. Numbers are never given a second meaning; a newer
/// library may return some that are not listed here.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum llava_status {
    /// It worked.
    Ok = 0,
    /// An argument is out of its range: NULL where something is needed, text that is no UTF-8, an unknown number.
    InvalidArgument = -1,
    /// A handle is NULL, was freed, or is of another type.
    InvalidHandle = -2,
    /// A file could not be opened, read or written.
    Io = -10,
    /// A GGUF file breaks the format, or its contents contradict each other.
    InvalidModel = -11,
    /// A GGUF file is sound, but uses something that is not implemented.
    Unsupported = -12,
    /// The language model and the mmproj do not belong together.
    PairMismatch = -13,
    /// No model was named, none is where one was named, or the model has no vision tower.
    ModelNotFound = -14,
    /// An image cannot be decoded or is over a limit.
    InvalidImage = -15,
    /// A chat template does not compile, fails, or loses an image.
    Template = -16,
    /// A model could not be had from the Hugging Face Hub.
    Download = -17,
    /// The prompt does not fit into the context.
    ContextFull = -20,
    /// More memory would be needed than there is or than is allowed.
    OutOfMemory = -21,
    /// It was cancelled.
    Cancelled = -22,
    /// The handle is in use: by a call on another thread, by the call whose callback this is, or by a batch.
    Busy = -30,
    /// An earlier call on this handle ended in LLAVA_STATUS_PANIC. It can only be freed.
    Poisoned = -31,
    /// A defect of the library. Please report it with llava_error_message().
    Panic = -32,
}

/// Why a call failed: its status and the sentence for the person.
#[derive(Debug)]
pub struct Failure {
    pub status: llava_status,
    pub message: String,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn new(status: llava_status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// An argument out of range, in the library's own words.
    pub fn argument(name: &'static str, reason: impl Into<String>) -> Self {
        Error::InvalidArgument { name, reason: reason.into() }.into()
    }

    pub fn panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        Self::new(llava_status::Panic, format!("a defect of the library: {text}"))
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let status = match &e {
            Error::Io { .. } => llava_status::Io,
            Error::InvalidModel { .. } => llava_status::InvalidModel,
            Error::Unsupported { .. } => llava_status::Unsupported,
            Error::PairMismatch { .. } => llava_status::PairMismatch,
            Error::ModelNotFound(_) => llava_status::ModelNotFound,
            Error::InvalidImage { .. } => llava_status::InvalidImage,
            Error::Template { .. } => llava_status::Template,
            Error::Download { .. } => llava_status::Download,
            Error::ContextFull { .. } => llava_status::ContextFull,
            Error::InvalidArgument { .. } => llava_status::InvalidArgument,
            Error::OutOfMemory { .. } => llava_status::OutOfMemory,
            Error::Cancelled => llava_status::Cancelled,
            // The enum may grow; a test here sees to it that none arrives at this arm.
            _ => llava_status::Panic,
        };
        Self::new(status, e.to_string())
    }
}

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
    /// Whether this thread is in a callback from the middle of a computation.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs the body of an exported function: failures become a status and a message, panics too.
pub fn guard(body: impl FnOnce() -> Result<()>) -> llava_status {
    let result = match INSIDE.get() {
        true => Err(Failure::new(
            llava_status::Busy,
            "called from a progress or log callback, in which the library can only be told to cancel",
        )),
        false => catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(Failure::panic(&*payload))),
    };
    match result {
        Ok(()) => llava_status::Ok,
        Err(failure) => {
            set_message(&failure.message);
            failure.status
        }
    }
}

/// Runs a callback from the middle of a computation, in which [`guard`] lets nothing in.
pub fn inside<T>(callback: impl FnOnce() -> T) -> T {
    let before = INSIDE.replace(true);
    let result = callback();
    INSIDE.set(before);
    result
}

fn set_message(message: &str) {
    // A thread that is ending has none any more.
    let _ = MESSAGE.try_with(|m| *m.borrow_mut() = c_string(message));
}

/// `text` for C, which ends at a NUL: others in it become U+FFFD.
pub fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_else(|_| CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default())
}

/// What went wrong in the last call on this thread that failed: a sentence that names the file or argument, what was found
/// and what was expected. "" if none has failed. Valid until a call on this thread fails again or the thread ends.
#[unsafe(no_mangle)]
pub extern "C" fn llava_error_message() -> *const c_char {
    MESSAGE.try_with(|m| m.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// The name of a status, like "LLAVA_STATUS_INVALID_IMAGE"; "LLAVA_STATUS_UNKNOWN" for other numbers. Static.
#[unsafe(no_mangle)]
pub extern "C" fn llava_status_name(status: i32) -> *const c_char {
    let name: &CStr = ALL.iter().find(|(s, _)| *s as i32 == status).map_or(c"LLAVA_STATUS_UNKNOWN", |(_, name)| name);
    name.as_ptr()
}

const ALL: &[(llava_status, &CStr)] = &[
    (llava_status::Ok, c"LLAVA_STATUS_OK"),
    (llava_status::InvalidArgument, c"LLAVA_STATUS_INVALID_ARGUMENT"),
    (llava_status::InvalidHandle, c"LLAVA_STATUS_INVALID_HANDLE"),
    (llava_status::Io, c"LLAVA_STATUS_IO"),
    (llava_status::InvalidModel, c"LLAVA_STATUS_INVALID_MODEL"),
    (llava_status::Unsupported, c"LLAVA_STATUS_UNSUPPORTED"),
    (llava_status::PairMismatch, c"LLAVA_STATUS_PAIR_MISMATCH"),
    (llava_status::ModelNotFound, c"LLAVA_STATUS_MODEL_NOT_FOUND"),
    (llava_status::InvalidImage, c"LLAVA_STATUS_INVALID_IMAGE"),
    (llava_status::Template, c"LLAVA_STATUS_TEMPLATE"),
    (llava_status::Download, c"LLAVA_STATUS_DOWNLOAD"),
    (llava_status::ContextFull, c"LLAVA_STATUS_CONTEXT_FULL"),
    (llava_status::OutOfMemory, c"LLAVA_STATUS_OUT_OF_MEMORY"),
    (llava_status::Cancelled, c"LLAVA_STATUS_CANCELLED"),
    (llava_status::Busy, c"LLAVA_STATUS_BUSY"),
    (llava_status::Poisoned, c"LLAVA_STATUS_POISONED"),
    (llava_status::Panic, c"LLAVA_STATUS_PANIC"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> String {
        MESSAGE.with_borrow(|m| m.to_str().unwrap().to_owned())
    }

    #[test]
    fn panics_become_a_status_and_a_message() {
        assert_eq!(guard(|| panic!("seven is {}", 8)), llava_status::Panic);
        assert!(message().ends_with("seven is 8"), "{}", message());
        assert_eq!(guard(|| Ok(())), llava_status::Ok);
        assert!(message().ends_with("seven is 8"), "a success leaves the message");
    }

    #[test]
    fn a_callback_from_within_can_call_nothing() {
        assert_eq!(inside(|| guard(|| panic!("not reached"))), llava_status::Busy);
        assert_eq!(guard(|| Ok(())), llava_status::Ok);
    }

    #[test]
    fn every_error_has_a_status() {
        // The enum is not exhaustive for other crates, so that the compiler does not tell.
        let variants =
            include_str!("../../src/error.rs").split_once("pub enum Error {").unwrap().1.split_once("\n}").unwrap().0;
        let names =
            variants.lines().filter_map(|line| line.strip_prefix("    ")).filter(|l| l.starts_with(char::is_uppercase));
        let names: Vec<_> = names.map(|l| l.split([' ', '(', ',']).next().unwrap()).collect();
        assert!(names.len() > 10 && names.contains(&"Cancelled"), "{names:?}");
        for name in names {
            let arm = [" {", "(", " =>"].map(|after| format!("            Error::{name}{after}"));
            assert!(arm.iter().any(|arm| include_str!("status.rs").contains(arm)), "{name}");
        }
    }

    #[test]
    fn messages_keep_to_c() {
        set_message("a\0b");
        assert_eq!(message(), "a\u{fffd}b");
    }
}
