//! Sharing work among threads through one door that is compiled once.
//!
//! Every use of a parallel iterator compiles rayon's machinery anew for its closure, some hundred functions each; with kernels in
//! dozens of variants that made up most of this crate's code and of the time to build it.

use rayon::prelude::*;

/// A piece of work.
pub type Task<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs the tasks on all threads and waits for them.
pub fn run(mut tasks: Vec<Task<'_>>) {
    if tasks.len() == 1 {
        tasks.remove(0)();
    } else {
        tasks.into_par_iter().for_each(|task| task());
    }
}

/// Hands each run of `size` elements of `out`, with its number, to `f`. The last may be shorter; `size` is not 0.
pub fn chunks<T: Send>(out: &mut [T], size: usize, f: &(dyn Fn(usize, &mut [T]) + Sync)) {
    if out.len() <= size {
        if !out.is_empty() {
            f(0, out);
        }
        return;
    }
    let task = |(i, chunk)| Box::new(move || f(i, chunk)) as Task<'_>;
    run(out.chunks_mut(size).enumerate().map(task).collect());
}
