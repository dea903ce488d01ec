//! A spinner for what takes long.

use indicatif::ProgressBar;
use std::io::IsTerminal;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is done in less time needs no spinner.
const PATIENCE: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(120);

/// Shows what is being done on standard error, if that is a terminal, from the third second until it is dropped.
pub struct Progress(Option<(Sender<()>, JoinHandle<()>)>);

impl Progress {
    /// Begins; `doing` is the line to show.
    pub fn start(doing: impl Into<String>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let doing = doing.into();
        let (done, wait) = channel::<()>();
        let shown = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
            // An error means that the sender was dropped: the work is done.
            if wait.recv_timeout(PATIENCE) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::new_spinner().with_message(doing);
            bar.enable_steady_tick(TICK);
            let _ = wait.recv();
            bar.finish_and_clear();
        });
        Self(shown.ok().map(|thread| (done, thread)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.0.take() {
            drop(done);
            // The line is cleared before anything else is written.
            let _ = thread.join();
        }
    }
}
