//! What is being done and how far it is, for what takes long.

use indicatif::ProgressBar;
use llava::{Control, Stage};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is done in less time needs no spinner.
const PATIENCE: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(120);

/// Shows what is being done on standard error, if that is a terminal, from the third second until it is dropped.
pub struct Progress {
    now: Now,
    shown: Option<(Sender<()>, JoinHandle<()>)>,
}

/// How far the library says that it is.
type Now = Arc<Mutex<Option<llava::Progress>>>;

impl Progress {
    /// Begins; `doing` is the line to show.
    pub fn start(doing: impl Into<String>) -> Self {
        let now = Now::default();
        if !std::io::stderr().is_terminal() {
            return Self { now, shown: None };
        }
        let (doing, seen) = (doing.into(), now.clone());
        let (done, wait) = channel::<()>();
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
            // Another error means that the sender was dropped: the work is done.
            if wait.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::new_spinner();
            while wait.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let now = *seen.lock().unwrap_or_else(PoisonError::into_inner);
                bar.set_message(line(&doing, now));
                bar.tick();
            }
            bar.finish_and_clear();
        });
        Self { now, shown: thread.ok().map(|thread| (done, thread)) }
    }

    /// Shows that `done` of `total` is done.
    pub fn set(&self, done: u64, total: u64) {
        let (done, total) = (done as usize, total as usize);
        let now = llava::Progress { stage: Stage::Load, done, total };
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Shows how far the work is that `control` belongs to.
    pub fn follow(&self, control: &Control) {
        let now = self.now.clone();
        control.on_progress(move |progress| {
            *now.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
            ControlFlow::Continue(())
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.shown.take() {
            drop(done);
            // The line is cleared before anything else is written.
            let _ = thread.join();
        }
    }
}

fn line(doing: &str, now: Option<llava::Progress>) -> String {
    match now {
        Some(llava::Progress { stage, done, total }) if total > 0 => {
            let stage = match stage {
                Stage::Load => "",
                Stage::Encode => ", the image:",
                Stage::Prefill => ", the prompt:",
                Stage::Download => ", from the hub:",
            };
            format!("{doing}{stage} {} %", 100 * done / total)
        }
        _ => doing.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is() {
        let at = |stage, done, total| Some(llava::Progress { stage, done, total });
        assert_eq!(line("looking at a.jpg", None), "looking at a.jpg");
        assert_eq!(line("looking at a.jpg", at(Stage::Encode, 5, 20)), "looking at a.jpg, the image: 25 %");
        assert_eq!(line("loading", at(Stage::Load, 4, 4)), "loading 100 %");
        assert_eq!(line("loading", at(Stage::Load, 0, 0)), "loading");
    }
}
