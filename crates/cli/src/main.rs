//! The program `isotrace`.

use std::process::ExitCode;

/// Every value of a run is a new block of megabytes. The system's allocator hands such blocks back at once, and the
/// machine then clears each page anew for the next: half of a run's time went there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Asks Linux for small pages. A huge one is cleared whole before its first use, and where a virtual machine has handed
/// its memory back, all of it has to be found again at once: a run of ResNet-50 took twice as long, and as long as with
/// small pages where the memory was there (`bench/README.md`).
#[cfg(target_os = "linux")]
fn prefer_small_pages() {
    // A kernel that does not know the call hands out what it would.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    prefer_small_pages();
    ExitCode::from(isotrace_cli::run(std::env::args_os()))
}
