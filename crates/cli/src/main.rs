//! The program `isotrace`.

use std::io::Write;

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

/// Ends the process at once. The allocator's farewell hands back hundreds of megabytes page by page, which took a twentieth
/// of a diff of two ResNet-50; the system takes them all together.
#[cfg(unix)]
fn leave(status: u8) -> ! {
    #[expect(unsafe_code, reason = "the standard library has no exit without farewells")]
    // SAFETY: no memory is touched. What nobody calls any more are destructors of libraries and of threads, which would
    // hand back what the system takes anyway; files are closed, and standard output has been written out.
    unsafe {
        libc::_exit(status.into())
    }
}

#[cfg(not(unix))]
fn leave(status: u8) -> ! {
    std::process::exit(status.into())
}

fn main() {
    #[cfg(target_os = "linux")]
    prefer_small_pages();
    let status = isotrace_cli::run(std::env::args_os());
    // What cannot be written now could not be written later either.
    let _ = std::io::stdout().flush();
    leave(status)
}
