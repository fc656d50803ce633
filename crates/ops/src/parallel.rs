//! Sharing work among threads through one door that is compiled once.
//!
//! Every use of a parallel iterator compiles rayon's machinery anew for its closure, some hundred functions each; with kernels in
//! dozens of variants that made up most of this crate's code and of the time to build it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

pub use crate::broadcast::GRAIN;

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

/// What `f` makes of each run of indices below `len`, in their order. The runs depend on `len` alone.
pub fn pieces<R: Send>(len: usize, f: &(dyn Fn(Range<usize>) -> R + Sync)) -> Vec<R> {
    let mut out: Vec<Option<R>> = (0..len.div_ceil(GRAIN)).map(|_| None).collect();
    chunks(&mut out, 1, &|i, place| place[0] = Some(f(i * GRAIN..len.min((i + 1) * GRAIN))));
    out.into_iter().flatten().collect()
}

/// Whether `f` holds for each run of indices below `len`; the others are not looked at once it fails for one.
pub fn all(len: usize, f: &(dyn Fn(Range<usize>) -> bool + Sync)) -> bool {
    let failed = AtomicBool::new(false);
    pieces(len, &|run| {
        if !failed.load(Ordering::Relaxed) && !f(run) {
            failed.store(true, Ordering::Relaxed);
        }
    });
    !failed.into_inner()
}

/// `f` of every index below `len`.
pub fn map(len: usize, f: impl Fn(usize) -> f64 + Sync) -> Vec<f64> {
    if len < 2 * GRAIN {
        return (0..len).map(f).collect();
    }
    // Each element is written once: clearing what it is collected into would take as long as most of what is computed.
    (0..len).into_par_iter().with_min_len(GRAIN).map(&f).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_order_and_cover_everything_once() {
        for len in [0, 1, GRAIN - 1, GRAIN, 3 * GRAIN + 5] {
            let runs = pieces(len, &|run| run);
            assert_eq!(runs.first().map_or(0, |r| r.start), 0);
            assert_eq!(runs.last().map_or(0, |r| r.end), len);
            assert!(runs.windows(2).all(|w| w[0].end == w[1].start && w[0].len() == GRAIN), "{len}");
            assert_eq!(map(len, |i| i as f64), (0..len).map(|i| i as f64).collect::<Vec<_>>());
            assert!(all(len, &|run| run.end <= len));
            assert_eq!(all(len, &|run| !run.contains(&(len / 2))), len == 0);
        }
    }
}
