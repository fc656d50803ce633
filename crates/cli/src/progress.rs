//! A progress bar for steps that last.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Nothing is shown of what takes less.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the display is looked after: one node can take long, and must not leave it empty meanwhile.
const BEAT: Duration = Duration::from_millis(200);

/// Shows how far the current step is, on a terminal only.
pub struct Progress {
    state: Option<Arc<Mutex<State>>>,
}

struct State {
    step: String,
    began: Instant,
    done: usize,
    all: usize,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A display on the standard error.
    pub fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { state: None };
        }
        let state = State { step: String::new(), began: Instant::now(), done: 0, all: 0, bar: None };
        let state = Arc::new(Mutex::new(state));
        let watched = Arc::downgrade(&state);
        std::thread::spawn(move || watch(&watched));
        Self { state: Some(state) }
    }

    /// `done` of `all` parts of `step` are done.
    pub fn show(&self, step: &str, done: usize, all: usize) {
        let Some(mut state) = self.state.as_ref().and_then(|s| s.lock().ok()) else { return };
        if state.step != step {
            state.end();
            step.clone_into(&mut state.step);
            state.began = Instant::now();
        }
        (state.done, state.all) = (done, all);
    }

    /// Takes the display away.
    pub fn clear(&self) {
        if let Some(mut state) = self.state.as_ref().and_then(|s| s.lock().ok()) {
            state.end();
        }
    }
}

impl Drop for Progress {
    /// An error ends a step too, and its message needs the line.
    fn drop(&mut self) {
        self.clear();
    }
}

impl State {
    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.step.clear();
    }

    fn draw(&mut self) {
        if self.step.is_empty() || self.began.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            // Narrower than the terminal: the `^C` of an interrupt must not wrap to a line that stays.
            let style = ProgressStyle::with_template("{msg} {bar:32} {pos}/{len} {elapsed}");
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.with_style(style.expect("a valid template")).with_elapsed(PATIENCE)
        });
        bar.set_length(self.all as u64);
        bar.set_message(self.step.clone());
        bar.set_position(self.done as u64);
        bar.tick();
    }
}

/// Draws until nobody shows anything any more.
fn watch(state: &Weak<Mutex<State>>) {
    loop {
        std::thread::sleep(BEAT);
        let Some(state) = state.upgrade() else { return };
        match state.lock() {
            Ok(mut state) => state.draw(),
            Err(_) => return,
        }
    }
}
