//! Ctrl-C: stop at once, with no file half written.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a shell expects of a program that an interrupt ended: 128 and the signal's number.
const STATUS: i32 = 130;

/// Held while a file is written or renamed into its place.
static WRITING: Mutex<()> = Mutex::new(());

/// Whether an interrupt has come.
static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on an interrupt ends the program, after a write that is under way.
pub fn watch() {
    // Without a handler the system ends the program itself, which is as good except for the progress bar.
    let _ = ctrlc::set_handler(|| {
        ASKED.store(true, Ordering::Relaxed);
        let _whole = writing();
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            // The progress bar's line is cleared and its cursor shown again.
            let _ = write!(stderr, "\r\u{1b}[2K\u{1b}[?25h");
        }
        isotrace_ort::clean_up();
        std::process::exit(STATUS);
    });
}

/// Whether the user has asked to stop: a long write ends itself then, and leaves nothing behind.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Keeps an interrupt waiting until the guard is dropped.
pub fn writing() -> MutexGuard<'static, ()> {
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}
