use crate::answer::{give, llava_answer};
use crate::arg;
use crate::callback::{UserData, llava_progress_callback, watch};
use crate::handle::{free, get, handle, put};
use crate::image::{images, llava_image};
use crate::model::llava_model;
use crate::session::{Shared as SharedSession, llava_session};
use crate::status::{Failure, Result, guard, llava_status};
use engine::{Batch, Control, Image, Model};
use std::ffi::{c_char, c_void};
use std::sync::{Arc, Mutex, TryLockError};

/// Questions that are answered together: the weights are read once for all of them, and each gets exactly the answer that it
/// would get alone. One call at a time may use it, as with sessions; llava_batch_cancel() and llava_batch_free() may be called
/// at any time.
pub struct llava_batch {
    _private: [u8; 0],
}
handle!(llava_batch => Shared);

pub struct Shared {
    control: Control,
    state: Mutex<State>,
}

struct State {
    model: Model,
    /// Absent when it has run.
    batch: Option<Batch>,
    /// Whose sessions it has, in their order.
    sessions: Vec<Arc<SharedSession>>,
}

impl Shared {
    /// Uses the batch, if nobody else does and it has not run. A panic in `f` poisons it.
    fn with<T>(&self, f: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        match self.state.try_lock() {
            Ok(mut state) => f(&mut state),
            Err(TryLockError::WouldBlock) => Err(Failure::new(
                llava_status::Busy,
                "llava_batch: in use by a call on another thread, or by the one whose callback this is",
            )),
            Err(TryLockError::Poisoned(_)) => {
                Err(Failure::new(llava_status::Poisoned, "llava_batch: an earlier call panicked; free it"))
            }
        }
    }
}

impl State {
    /// Answers everything, and gives the sessions back.
    fn run(&mut self) -> Vec<Result<engine::Answer, engine::Error>> {
        let Some(batch) = self.batch.take() else { return Vec::new() };
        let mut results = Vec::with_capacity(self.sessions.len());
        for ((session, result), shared) in batch.run().into_iter().zip(self.sessions.drain(..)) {
            shared.put_back(session);
            results.push(result);
        }
        results
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Sessions of a batch that never ran go back, cancelled.
        if let Some(batch) = &self.batch {
            batch.control().cancel();
            self.run();
        }
    }
}

/// An empty batch for sessions of `model`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_batch_new(model: *const llava_model, batch: *mut *mut llava_batch) -> llava_status {
    guard(|| {
        let model = get(model)?.model.clone();
        // SAFETY: the caller's pointers are as the header demands.
        let out = unsafe { arg::out("batch", batch) }?;
        let batch = Batch::new(&model);
        let control = batch.control();
        let state = State { model, batch: Some(batch), sessions: Vec::new() };
        out.set(put(Shared { control, state: Mutex::new(state) }));
        Ok(())
    })
}

/// Ends the handle. If it has not run, its sessions can be used again, the questions forgotten unless they were answered. NULL
/// and handles that were freed already are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn llava_batch_free(batch: *mut llava_batch) {
    free(batch);
}

/// From now on `on_progress` hears how far the images and prompts of llava_batch_push() are, and can cancel the batch; NULL for
/// nobody.
#[unsafe(no_mangle)]
pub extern "C" fn llava_batch_set_progress(
    batch: *mut llava_batch,
    on_progress: llava_progress_callback,
    user_data: *mut c_void,
) -> llava_status {
    guard(|| {
        let (batch, user_data) = (get(batch)?, UserData(user_data));
        batch.with(|_| {
            watch(&batch.control, on_progress, user_data);
            Ok(())
        })
    })
}

/// Adds a question, as in llava_session_ask(). Its images are encoded and its prompt is run now; what goes wrong with those is
/// in the answer that llava_batch_run() gives in its place. The session belongs to the batch until that has run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_batch_push(
    batch: *mut llava_batch,
    session: *mut llava_session,
    text: *const c_char,
    size: usize,
    images: *const *const llava_image,
    n_images: usize,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let (text, images) = unsafe { (arg::text("text", text, size)?, self::images(images, n_images)?) };
        let images: Vec<&Image> = images.iter().map(|image| &**image).collect();
        let (batch, shared) = (get(batch)?, get(session)?);
        batch.with(|state| {
            let Some(batch) = &mut state.batch else {
                return Err(Failure::argument("batch", "has run; make a new one"));
            };
            let session = shared.take()?;
            if state.model != *session.model() {
                shared.put_back(session);
                return Err(Failure::argument("session", "belongs to another model than the batch"));
            }
            state.sessions.push(shared.clone());
            Ok(batch.push(session, text, &images)?)
        })
    })
}

/// Cancels the whole batch, from any thread or callback: answers end with what there is.
#[unsafe(no_mangle)]
pub extern "C" fn llava_batch_cancel(batch: *const llava_batch) {
    if let Ok(batch) = get(batch) {
        batch.control.cancel();
    }
}

/// Generates all answers, and writes them to `answers` in the order in which they were added; `n` must be their number. Each
/// has a status of its own, and is freed with llava_answer_free(). The sessions can be used again; the batch cannot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_batch_run(
    batch: *mut llava_batch,
    answers: *mut *mut llava_answer,
    n: usize,
) -> llava_status {
    guard(|| {
        let batch = get(batch)?;
        // SAFETY: the caller's pointers are as the header demands.
        let room = unsafe { arg::room("answers", answers, n) }?;
        batch.with(|state| {
            if state.batch.is_none() {
                return Err(Failure::argument("batch", "has run; make a new one"));
            }
            let expected = state.sessions.len();
            if n != expected || room.len() != expected {
                let found = if answers.is_null() { "is NULL".to_owned() } else { format!("has room for {n}") };
                return Err(Failure::argument("answers", format!("{found}, expected room for {expected}")));
            }
            for (to, result) in room.iter_mut().zip(state.run()) {
                to.write(give(result.map_err(Failure::from)));
            }
            Ok(())
        })
    })
}
