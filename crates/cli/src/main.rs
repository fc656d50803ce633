//! The program `isotrace`.
//!
//! It reads the command line, binds inputs, and hands over to the library; every error ends it with one message
//! and status 2, and nothing is written then.

mod args;
mod commands;
mod console;
mod interrupt;
mod load;
mod progress;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use console::Console;

/// Every value of a run is a new block of megabytes. The system's allocator hands such blocks back at once, and the
/// machine then clears each page anew for the next: half of a run's time went there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The status of an error.
const ERROR: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    report_panics();
    interrupt::watch();
    let console = Console::new(cli.color);
    let done = std::panic::catch_unwind(|| match &cli.command {
        Command::Diff(diff) => commands::diff::run(diff, console),
        Command::Run(run) => commands::run::run(run, console),
        Command::Convert(convert) => commands::convert::run(convert, console),
        Command::Ops { json } => commands::ops::run(*json, console),
        Command::Completions { shell } => commands::completions::run(*shell),
    });
    match done {
        Ok(Ok(status)) => ExitCode::from(status),
        Ok(Err(error)) => {
            console::complain("error:", &message(&error));
            ExitCode::from(ERROR)
        }
        // The hook has said what happened.
        Err(_) => ExitCode::from(ERROR),
    }
}

/// The error and its causes, those left out that a message before them repeats.
fn message(error: &anyhow::Error) -> String {
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
