//! A progress bar for steps that last.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Nothing is shown of what takes less.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows how far the current step is, on a terminal only.
pub struct Progress {
    state: Option<Mutex<State>>,
}

struct State {
    step: String,
    began: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A display on the standard error.
    pub fn new() -> Self {
        let state = || Mutex::new(State { step: String::new(), began: Instant::now(), bar: None });
        Self { state: std::io::stderr().is_terminal().then(state) }
    }

    /// `done` of `all` parts of `step` are done.
    pub fn show(&self, step: &str, done: usize, all: usize) {
        let Some(mut state) = self.state.as_ref().and_then(|s| s.lock().ok()) else { return };
        if state.step != step {
            step.clone_into(&mut state.step);
            state.began = Instant::now();
            if let Some(bar) = state.bar.take() {
                bar.finish_and_clear();
            }
        }
        if state.bar.is_none() && state.began.elapsed() > PATIENCE {
            let style =
                ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}").expect("a valid template");
            // Ten times a second: a terminal far away must not slow the work down.
            let target = ProgressDrawTarget::stderr_with_hz(10);
            let bar = ProgressBar::with_draw_target(Some(all as u64), target).with_style(style);
            bar.set_message(step.to_owned());
            state.bar = Some(bar);
        }
        if let Some(bar) = &state.bar {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }
    }

    /// Takes the display away.
    pub fn clear(&self) {
        let Some(mut state) = self.state.as_ref().and_then(|s| s.lock().ok()) else { return };
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        state.step.clear();
    }
}
