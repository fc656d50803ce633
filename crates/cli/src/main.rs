//! The program `isotrace`.

use std::process::ExitCode;

/// Every value of a run is a new block of megabytes. The system's allocator hands such blocks back at once, and the
/// machine then clears each page anew for the next: half of a run's time went there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(isotrace_cli::run(std::env::args_os()))
}
