//! Ctrl-C.

use crate::failure::{Failure, INTERRUPTED};
use llava::Control;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What Ctrl-C does: it stops the answer that is [being made](Interrupt::stops), once; otherwise it ends the program.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    target: Target,
    /// Whether it was pressed since the target was set.
    pressed: bool,
}

#[derive(Default)]
enum Target {
    #[default]
    Program,
    Answer(Control),
    Prompt,
}

impl Interrupt {
    /// Takes Ctrl-C over from the system.
    ///
    /// # Errors
    /// [`Failure::Run`] if the system refuses.
    pub fn install() -> Result<Self, Failure> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || handler.press()).map_err(|e| Failure::Run(format!("Ctrl-C: {e}")))?;
        Ok(interrupt)
    }

    /// From now on the first Ctrl-C stops an answer.
    pub fn stops(&self, answer: Control) {
        *self.state() = State { target: Target::Answer(answer), pressed: false };
    }

    /// From now on the first Ctrl-C says how to leave.
    pub fn prompts(&self) {
        *self.state() = State { target: Target::Prompt, pressed: false };
    }

    /// From now on Ctrl-C ends the program.
    pub fn ends_program(&self) {
        *self.state() = State::default();
    }

    /// Whether Ctrl-C was pressed during the answer. A press between [`Interrupt::stops`] and the answer's start is
    /// forgotten by its control, but not here.
    pub fn pressed(&self) -> bool {
        self.state().pressed
    }

    fn press(&self) {
        let mut state = self.state();
        let again = std::mem::replace(&mut state.pressed, true);
        match &state.target {
            Target::Answer(control) if !again => control.cancel(),
            Target::Prompt if !again => crate::output::note("\nCtrl-C again or Ctrl-D to leave"),
            _ => std::process::exit(INTERRUPTED.into()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
