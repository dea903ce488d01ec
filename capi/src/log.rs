use crate::arg;
use crate::callback::UserData;
use crate::status::{guard, inside, llava_status};
use log::{LevelFilter, Log, Metadata, Record};
use std::ffi::{c_char, c_void};
use std::sync::{Mutex, PoisonError};

/// How much is logged: a level and all above it.
#[repr(i32)]
pub enum llava_log_level {
    /// Nothing.
    Off = 0,
    /// What failed though no call did.
    Error = 1,
    /// Files that had to be guessed at.
    Warn = 2,
    /// Nothing so far.
    Info = 3,
    /// What was chosen.
    Debug = 4,
}

/// Receives a line of the log: a llava_log_level and `size` bytes of UTF-8, not NUL-terminated, valid during the call. Called on
/// whichever thread has something to say, one at a time. It may call nothing of the library.
pub type llava_log_callback =
    Option<unsafe extern "C" fn(level: i32, text: *const c_char, size: usize, user_data: *mut c_void)>;

struct Logger(Mutex<Option<Sink>>);

#[derive(Clone, Copy)]
struct Sink {
    callback: unsafe extern "C" fn(i32, *const c_char, usize, *mut c_void),
    user_data: UserData,
}

static LOGGER: Logger = Logger(Mutex::new(None));

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        let level = record.level() as i32;
        let sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Sink { callback, user_data }) = *sink {
            // SAFETY: the caller gave the function and the pointer for this.
            inside(|| unsafe { callback(level, text.as_ptr().cast(), text.len(), user_data.get()) });
        }
    }

    fn flush(&self) {}
}

/// Has `callback` receive the log up to `level`, a llava_log_level, of all of the process; NULL for nobody, which is how it
/// begins. When it returns, the callback of before is not running any more.
#[unsafe(no_mangle)]
pub extern "C" fn llava_set_log(level: i32, callback: llava_log_callback, user_data: *mut c_void) -> llava_status {
    guard(|| {
        let levels = [
            (llava_log_level::Off as i32, LevelFilter::Off),
            (llava_log_level::Error as i32, LevelFilter::Error),
            (llava_log_level::Warn as i32, LevelFilter::Warn),
            (llava_log_level::Info as i32, LevelFilter::Info),
            (llava_log_level::Debug as i32, LevelFilter::Debug),
        ];
        let filter = arg::choice("level", level, &levels, "llava_log_level")?;
        let sink = callback.map(|callback| Sink { callback, user_data: UserData(user_data) });
        *LOGGER.0.lock().unwrap_or_else(PoisonError::into_inner) = sink;
        // Only the first time has an effect, and there is no other logger in this library.
        let _ = log::set_logger(&LOGGER);
        log::set_max_level(if sink.is_some() { filter } else { LevelFilter::Off });
        Ok(())
    })
}
