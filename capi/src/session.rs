use crate::answer::{give, llava_answer};
use crate::arg;
use crate::callback::{UserData, hand_out, llava_progress_callback, llava_text_callback, watch};
use crate::embedding::llava_embedding;
use crate::generation::{generation, llava_generation_options, llava_text, texts};
use crate::handle::{free, get, handle, put};
use crate::image::{images, llava_image};
use crate::model::llava_model;
use crate::status::{Failure, Result, guard, llava_status};
use engine::prompt::Template;
use engine::{Control, Image, Session};
use std::ffi::{c_char, c_void};
use std::sync::{Arc, Mutex, TryLockError};

/// A conversation: its history, what was computed of it, and how answers are made. One call at a time may use it, from
/// any thread; a second one returns LLAVA_STATUS_BUSY. llava_session_cancel() and llava_session_free() may be called at any time.
pub struct llava_session {
    _private: [u8; 0],
}
handle!(llava_session => Shared);

/// A session and the handle that cancels it.
pub struct Shared {
    pub control: Control,
    state: Mutex<State>,
}

pub enum State {
    Ready(Box<Session>),
    /// A batch has it.
    Away,
}

impl Shared {
    fn new(session: Session) -> Self {
        Self { control: session.control(), state: Mutex::new(State::Ready(Box::new(session))) }
    }

    /// Uses the session, if nobody else does. A panic in `f` poisons it.
    fn with<T>(&self, f: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        self.state(|state| match state {
            State::Ready(session) => f(session),
            State::Away => Err(Failure::new(llava_status::Busy, "llava_session: belongs to a batch that has not run")),
        })
    }

    fn state<T>(&self, f: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        match self.state.try_lock() {
            Ok(mut state) => f(&mut state),
            Err(TryLockError::WouldBlock) => Err(Failure::new(
                llava_status::Busy,
                "llava_session: in use by a call on another thread, or by the one whose callback this is",
            )),
            Err(TryLockError::Poisoned(_)) => {
                Err(Failure::new(llava_status::Poisoned, "llava_session: an earlier call panicked; free it"))
            }
        }
    }

    /// Takes the session away.
    pub fn take(&self) -> Result<Session> {
        self.with(|_| Ok(()))?;
        self.state(|state| match std::mem::replace(state, State::Away) {
            State::Ready(session) => Ok(*session),
            State::Away => Err(Failure::new(llava_status::Busy, "llava_session: belongs to a batch that has not run")),
        })
    }

    /// Gives the session back.
    pub fn put_back(&self, session: Session) {
        // While it is away nobody holds the lock for longer than a look.
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *state = State::Ready(Box::new(session));
    }
}

/// The likelihood of a choice as an answer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct llava_score {
    /// Sum of its tokens' natural log-probabilities.
    pub logprob: f32,
    /// Number of its tokens; divide by it to compare choices of different lengths.
    pub tokens: u32,
}

/// A new conversation. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_session_new(
    model: *const llava_model,
    options: *const llava_generation_options,
    session: *mut *mut llava_session,
) -> llava_status {
    guard(|| {
        let model = get(model)?;
        // SAFETY: the caller's pointers are as the header demands.
        let (options, out) = unsafe { (generation(options)?, arg::out("session", session)?) };
        let mut session = model.model.session();
        session.set_generation(options)?;
        out.set(put(Shared::new(session)));
        Ok(())
    })
}

/// Ends the handle. A call that is running on it goes on to its end. NULL and handles that were freed already are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn llava_session_free(session: *mut llava_session) {
    free(session);
}

/// How answers are made from now on; NULL for the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_session_set_generation(
    session: *mut llava_session,
    options: *const llava_generation_options,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let options = unsafe { generation(options) }?;
        get(session)?.with(|s| Ok(s.set_generation(options)?))
    })
}

/// The instruction in front of the conversation, a text of `size` bytes, instead of the template's own. Only before the first
/// question.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_session_set_system(
    session: *mut llava_session,
    text: *const c_char,
    size: usize,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let text = unsafe { arg::text("text", text, size) }?;
        get(session)?.with(|s| Ok(s.set_system(text)?))
    })
}

/// A conversation style by name ("vicuna_v1"), instead of the model's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_session_set_template(session: *mut llava_session, name: *const c_char) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let template = Template::by_name(unsafe { arg::required("name", name) }?)?;
        get(session)?.with(|s| {
            s.set_template(template);
            Ok(())
        })
    })
}

/// From now on `on_progress` hears how far the encoding of images and the running of prompts are, and can cancel them; NULL
/// for nobody.
#[unsafe(no_mangle)]
pub extern "C" fn llava_session_set_progress(
    session: *mut llava_session,
    on_progress: llava_progress_callback,
    user_data: *mut c_void,
) -> llava_status {
    guard(|| {
        let user_data = UserData(user_data);
        get(session)?.with(|s| {
            watch(&s.control(), on_progress, user_data);
            Ok(())
        })
    })
}

/// Cancels what the session is doing, from any thread or callback, within one layer of the network; without anything to
/// cancel it does nothing. Before the first word of an answer the call that was cancelled returns LLAVA_STATUS_CANCELLED;
/// later it returns what there is, with LLAVA_FINISH_REASON_CANCELLED.
#[unsafe(no_mangle)]
pub extern "C" fn llava_session_cancel(session: *const llava_session) {
    if let Ok(session) = get(session) {
        session.control.cancel();
    }
}

/// Forgets the conversation.
#[unsafe(no_mangle)]
pub extern "C" fn llava_session_reset(session: *mut llava_session) -> llava_status {
    guard(|| {
        get(session)?.with(|s| {
            s.reset();
            Ok(())
        })
    })
}

/// A second session with the same past, whose memory is shared; what follows is each one's own. The progress callback is not
/// taken over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_session_fork(
    session: *const llava_session,
    fork: *mut *mut llava_session,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let out = unsafe { arg::out("fork", fork) }?;
        out.set(put(Shared::new(get(session)?.with(|s| Ok(s.fork()))?)));
        Ok(())
    })
}

/// Adds an encoded image to the next question.
#[unsafe(no_mangle)]
pub extern "C" fn llava_session_attach(session: *mut llava_session, embedding: *const llava_embedding) -> llava_status {
    guard(|| {
        let embedding = get(embedding)?;
        get(session)?.with(|s| Ok(s.attach((*embedding).clone())?))
    })
}

/// Takes back the images that were attached to the next question.
#[unsafe(no_mangle)]
pub extern "C" fn llava_session_detach(session: *mut llava_session) -> llava_status {
    guard(|| {
        get(session)?.with(|s| {
            s.detach();
            Ok(())
        })
    })
}

/// Encodes `n_images` images, adds them to the next question, and runs the prompt up to their last token, so that forks
/// start from there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_session_prefill(
    session: *mut llava_session,
    images: *const *const llava_image,
    n_images: usize,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let images = unsafe { self::images(images, n_images) }?;
        get(session)?.with(|s| Ok(s.prefill(&references(&images))?))
    })
}

/// Asks a question of `size` bytes about `n_images` images and those attached; both become part of the conversation.
/// `on_text`, which may be NULL, receives the answer as it is made. A call that fails leaves the conversation as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_session_ask(
    session: *mut llava_session,
    text: *const c_char,
    size: usize,
    images: *const *const llava_image,
    n_images: usize,
    on_text: llava_text_callback,
    user_data: *mut c_void,
    answer: *mut *mut llava_answer,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let (text, images, out) =
            unsafe { (arg::text("text", text, size)?, self::images(images, n_images)?, arg::out("answer", answer)?) };
        let on_text = |piece: &str| hand_out(piece, on_text, user_data);
        let answer = get(session)?.with(|s| Ok(s.ask_with(text, &references(&images), on_text)?))?;
        out.set(give(Ok(answer)));
        Ok(())
    })
}

/// The log-likelihood of each of `n_choices` texts as the answer to a question, written to `scores`, `n_choices` of them. The
/// conversation is left as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_session_score(
    session: *mut llava_session,
    text: *const c_char,
    size: usize,
    images: *const *const llava_image,
    n_images: usize,
    choices: *const llava_text,
    n_choices: usize,
    scores: *mut llava_score,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let (text, images, choices, room) = unsafe {
            (
                arg::text("text", text, size)?,
                self::images(images, n_images)?,
                texts("choices", choices, n_choices)?,
                arg::room("scores", scores, n_choices)?,
            )
        };
        if room.len() < choices.len() {
            return Err(Failure::argument("scores", "is NULL"));
        }
        let scored = get(session)?.with(|s| Ok(s.score(text, &references(&images), &choices)?))?;
        for (to, s) in room.iter_mut().zip(scored) {
            to.write(llava_score { logprob: s.logprob, tokens: u32::try_from(s.tokens).unwrap_or(u32::MAX) });
        }
        Ok(())
    })
}

/// Positions of the context that are computed and kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_session_position(session: *const llava_session, position: *mut usize) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let out = unsafe { arg::out("position", position) }?;
        out.set(get(session)?.with(|s| Ok(s.position()))?);
        Ok(())
    })
}

fn references(images: &[Arc<Image>]) -> Vec<&Image> {
    images.iter().map(|image| &**image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn session() -> Shared {
        let lm = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/transformers/qwen2/lm.gguf");
        Shared::new(engine::Model::open(lm).unwrap().session())
    }

    #[test]
    fn a_panic_poisons_the_session_and_nothing_else() {
        let (s, other) = (session(), session());
        catch_unwind(AssertUnwindSafe(|| s.with::<()>(|_| panic!("seeded")))).unwrap_err();
        assert_eq!(s.with(|_| Ok(())).unwrap_err().status, llava_status::Poisoned);
        assert_eq!(s.take().err().unwrap().status, llava_status::Poisoned);
        other.with(|_| Ok(())).unwrap();
    }

    #[test]
    fn a_session_in_use_or_away_is_busy() {
        let s = session();
        s.with(|_| {
            assert_eq!(s.with(|_| Ok(())).unwrap_err().status, llava_status::Busy);
            Ok(())
        })
        .unwrap();
        let taken = s.take().unwrap();
        assert_eq!(s.with(|_| Ok(())).unwrap_err().status, llava_status::Busy);
        assert_eq!(s.take().err().unwrap().status, llava_status::Busy);
        s.put_back(taken);
        s.with(|_| Ok(())).unwrap();
    }
}
