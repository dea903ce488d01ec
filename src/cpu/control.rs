//! The other end of an operation that takes long: how far it is, and how to end it.

use crate::error::{Error, Result};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cancels what is running, from any thread, and reports how far it is. Clones are the same handle.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Shared>);

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    progress: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    /// Absent while it is called.
    callback: Option<Callback>,
    running: Option<Progress>,
}

type Callback = Box<dyn FnMut(Progress) -> ControlFlow<()> + Send>;

/// How far an operation is: `done` of `total` steps, which take about the same time each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Steps done.
    pub done: usize,
    /// All steps.
    pub total: usize,
}

/// What takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Opening a model. A step is one of its parts.
    Load,
    /// The vision tower. A step is one layer on one image.
    Encode,
    /// A prompt through the language model. A step is one layer on up to 512 positions.
    Prefill,
    /// Files from the Hugging Face Hub. A step is one byte.
    Download,
}

impl Control {
    /// Cancels the operation that is running, within one layer of the network. Without one it does nothing.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the operation that is running was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed)
    }

    /// Calls `callback` at the beginning of each [`Stage`] and after each of its steps; `Break` cancels. It runs on the
    /// thread that runs the operation, and must not use the model, which waits for it.
    pub fn on_progress(&self, callback: impl FnMut(Progress) -> ControlFlow<()> + Send + 'static) {
        self.watched().callback = Some(Box::new(callback));
    }

    /// Forgets an earlier cancellation, at the start of an operation.
    pub(crate) fn arm(&self) {
        self.0.cancelled.store(false, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Begins a stage of `total` steps, which lasts until the returned value is dropped.
    pub(crate) fn begin(&self, stage: Stage, total: usize) -> Result<Running<'_>> {
        let running = Running(self);
        self.report(|now| {
            *now = Some(Progress { stage, done: 0, total });
        })?;
        Ok(running)
    }

    /// One more step of the stage is done, if there is one. An error if the operation was cancelled.
    pub(crate) fn step(&self) -> Result<()> {
        self.advance(1)
    }

    /// So many more steps of the stage are done.
    pub(crate) fn advance(&self, steps: usize) -> Result<()> {
        self.report(|now| {
            if let Some(p) = now {
                p.done = p.total.min(p.done.saturating_add(steps));
            }
        })
    }

    fn report(&self, update: impl FnOnce(&mut Option<Progress>)) -> Result<()> {
        let mut watched = self.watched();
        update(&mut watched.running);
        if let Some(progress) = watched.running
            && let Some(mut callback) = watched.callback.take()
        {
            // Unlocked, for it may use this handle.
            drop(watched);
            let flow = callback(progress);
            self.watched().callback.get_or_insert(callback);
            if flow.is_break() {
                self.cancel();
            }
        }
        self.check()
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stage that is running.
pub(crate) struct Running<'c>(&'c Control);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.watched().running = None;
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}
