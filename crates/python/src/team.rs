//! The threads of the model's own kernels.
//!
//! PyTorch's kernels share their work by OpenMP, whose threads spin for a while after each kernel and wait for the next.
//! Other threads would have to wait until they stop; asked through OpenMP itself they are there at once. Where PyTorch
//! is built otherwise, the calling thread computes alone.

use std::ffi::{c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use isotrace_trace::trace::Team;
use libloading::Library;

/// `GOMP_parallel` of GCC's run-time library, which LLVM's and Intel's have too: a function that every thread of the
/// caller's team calls, what it is given, how many threads (0: as many as were set), flags.
type Parallel = unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

/// The team of the thread that asks.
pub enum Threads {
    /// The calling thread.
    Alone,
    /// Those of OpenMP; the library stays where it is.
    OpenMp(Parallel, #[expect(dead_code, reason = "what the function lies in")] Library),
}

impl Threads {
    /// Those of the run-time library that is loaded; of several, of the one that PyTorch brings.
    pub fn find() -> Self {
        let mut found = loaded();
        if found.len() > 1 {
            found.retain(|path| path.components().any(|part| part.as_os_str() == "torch"));
        }
        match found.as_slice() {
            [path] => Self::of(path).unwrap_or(Self::Alone),
            _ => Self::Alone,
        }
    }

    #[expect(unsafe_code, reason = "a function of a library has the type that its documentation says")]
    fn of(path: &Path) -> Option<Self> {
        // SAFETY: the library is loaded, so that nothing of it runs now. GCC's and LLVM's manuals of their run-time
        // libraries give the function this type; the pointer lives no longer than the library beside it.
        unsafe {
            let library = Library::new(path).ok()?;
            let parallel = *library.get::<Parallel>(b"GOMP_parallel\0").ok()?;
            Some(Self::OpenMp(parallel, library))
        }
    }

    /// Whether there is more than the calling thread.
    pub fn many(&self) -> bool {
        matches!(self, Self::OpenMp(..))
    }
}

/// Run-time libraries of OpenMP in this process.
fn loaded() -> Vec<PathBuf> {
    const NAMES: [&str; 3] = ["libgomp", "libomp", "libiomp5"];
    // Linux alone tells; address, rights, offset, device and number stand before the path.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let named = paths.filter(|path| {
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        NAMES.iter().any(|name| file.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '-'])))
    });
    let mut found: Vec<PathBuf> = named.map(Path::to_path_buf).collect();
    found.sort();
    found.dedup();
    found
}

/// Tasks that the threads of a team take one after the other.
struct Tasks<'a> {
    next: AtomicUsize,
    count: usize,
    task: &'a (dyn Fn(usize) + Sync),
    failed: AtomicBool,
}

impl Tasks<'_> {
    fn work(&self) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= self.count {
                return;
            }
            // No panic may pass through a function of C.
            if catch_unwind(AssertUnwindSafe(|| (self.task)(task))).is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl Team for Threads {
    #[expect(unsafe_code, reason = "a library of C is called")]
    fn share(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        let Self::OpenMp(parallel, _) = self else { return (0..count).for_each(task) };
        unsafe extern "C" fn work(tasks: *mut c_void) {
            // SAFETY: the pointer is the one below.
            unsafe { &*tasks.cast::<Tasks<'_>>() }.work();
        }
        let tasks = Tasks { next: AtomicUsize::new(0), count, task, failed: AtomicBool::new(false) };
        // SAFETY: the call returns when every thread has returned from `work`, so that the tasks, which threads may
        // share, outlive their use; they are not written to but through atomics.
        unsafe { parallel(work, std::ptr::from_ref(&tasks).cast_mut().cast(), 0, 0) };
        assert!(!tasks.failed.load(Ordering::Relaxed), "a digest could not be computed");
    }
}
