//! The program `isotrace`, as a library: the binary and the Python package are the same program.
//!
//! It reads the command line, binds inputs, and hands over to the library; every error ends it with one message
//! and status 2, and nothing is written then.

mod args;
mod backend;
mod commands;
mod console;
mod interrupt;
mod load;
mod modules;
mod page;
mod progress;

use std::ffi::OsString;

use clap::Parser as _;

use args::{Cli, Command};
pub use args::{Level, Runner};
pub use backend::Loaded;
pub use commands::diff::once;
pub use commands::stats::of_tensor as stats;
use console::Console;
pub use load::{brought, model};

/// The status of an error.
const ERROR: u8 = 2;

/// Runs the program on a command line, whose first word is the program's name, and returns its exit status. Ends the
/// process by itself where the command line is wrong or asks for help.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = Cli::parse_from(arguments);
    report_panics();
    interrupt::watch();
    let console = Console::new(cli.color);
    match std::panic::catch_unwind(|| among_workers(|| execute(&cli.command, console))) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            console::complain("error:", &message(&error));
            ERROR
        }
        // The hook has said what happened.
        Err(_) => ERROR,
    }
}

fn execute(command: &Command, console: Console) -> anyhow::Result<u8> {
    match command {
        Command::Diff(diff) => commands::diff::run(diff, console),
        Command::Run(run) => commands::run::run(run, console),
        Command::Compare(compare) => commands::compare::run(compare, console),
        Command::Stats(stats) => commands::stats::run(stats, console),
        Command::Convert(convert) => commands::convert::run(convert, console),
        Command::Ops { json } => commands::ops::run(*json, console),
        Command::Completions { shell } => commands::completions::run(*shell),
    }
}

/// Runs `work` on one of the threads that share it out: they need not be woken for each of its thousands of loops, of
/// which this thread would wait for every one.
fn among_workers<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    // As deep as a program's first thread may go. It fails where there are workers already, which do as well.
    let _ = rayon::ThreadPoolBuilder::new().stack_size(8 << 20).build_global();
    rayon::scope(|_| work())
}

/// An error and its causes as one line, those left out that a message before them repeats.
pub fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.is_empty() {
        true => cause,
        false if told.contains(&cause) => told,
        false => format!("{told}: {cause}"),
    })
}

/// The last resort: a panic is a fault of ours, and is told as one line.
fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line())).unwrap_or_default();
        console::complain(
            "error:",
            &format!(
                "a fault inside isotrace{place}: {message}; please report it with the models that cause it"
            ),
        );
    }));
}
