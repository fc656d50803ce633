//! Elementary functions that vectorise: branch-free kernels of one number, and the loops that run them over slices.
//!
//! [`single`] and [`double`] hold the kernels for f32 and f64, built from argument reduction, a minimax polynomial
//! (Remez exchange in 60 digits, `tools/minimax.py`) and a reconstruction; both sides of every case are computed and one is chosen, so
//! that LLVM turns the loop around them into vector code. Against the exact value they err by less than 1.5 ulp in f32
//! and 2 ulp in f64 (the tests hold the figure of each).
//!
//! Multiply-adds are written out as fused (`mul_add`), which rounds once on every processor: the result depends on the
//! argument alone, never on the processor, the place in the slice or the number of threads. Processors without the instruction
//! (x86 before 2013) compute it in software, slowly.

pub mod double;
pub mod row;
pub mod single;

use std::mem::MaybeUninit;

use crate::broadcast::GRAIN;
use crate::{parallel, room};

/// A loop on its way to [`pulp::Arch::dispatch`].
struct Loop<F>(F);

impl<R, F: FnMut() -> R> pulp::NullaryFnOnce for Loop<F> {
    type Output = R;

    #[inline(always)]
    fn call(mut self) -> R {
        // Through `FnMut`, because calling a closure by value goes through a shim, which is not inlined for certain, and
        // what is not inlined is not vectorised.
        (self.0)()
    }
}

/// Runs a loop compiled for the widest vectors this processor has.
///
/// `body` must be an `#[inline(always)]` closure and call nothing but inlined functions, else it stays scalar; so its loops are
/// `for` loops, not `for_each` with a closure of its own.
#[inline(always)]
pub fn vectorise<R>(body: impl FnMut() -> R) -> R {
    pulp::Arch::new().dispatch(Loop(body))
}

/// Elements a task takes: all where there is too little to share.
pub fn grain(len: usize) -> usize {
    if len < 2 * GRAIN { len.max(1) } else { GRAIN }
}

/// `f` of every element, without vector code: for integers, and for functions that do not inline. Each use of [`map`] is
/// compiled three times over, which only floats are worth.
pub fn each<T, O>(x: &[T], f: impl Fn(T) -> O + Sync) -> Vec<O>
where
    T: Copy + Sync,
    O: Copy + Send,
{
    let run = |x: &[T], out: &mut [MaybeUninit<O>]| {
        out.iter_mut().zip(x).for_each(|(o, &x)| _ = o.write(f(x)));
    };
    #[expect(unsafe_code, reason = "memory that need not be cleared first")]
    // SAFETY: there is an element of `x` for each of `out`.
    unsafe {
        share(x, &run)
    }
}

/// Writes what it makes of a run to a place for each element.
type Run<'f, T, O> = dyn Fn(&[T], &mut [MaybeUninit<O>]) + Sync + 'f;

/// What `f` writes for each run of `x`, in memory that is not cleared before.
///
/// # Safety
/// `f` writes every element of the run that it is handed, which is as long as that of `x`.
#[expect(unsafe_code, reason = "memory that need not be cleared first")]
unsafe fn share<T: Sync, O: Copy + Send>(x: &[T], f: &Run<'_, T, O>) -> Vec<O> {
    let grain = grain(x.len());
    let run = |i: usize, out: &mut [MaybeUninit<O>]| f(&x[i * grain..][..out.len()], out);
    // SAFETY: the runs cover everything, and `f` writes each, as whoever calls this promises.
    let made = unsafe { room::filled(x.len(), |out| parallel::chunks(out, grain, &run)) };
    made.expect("room for as many elements as there are")
}

/// `f` of every element. `f` must be an `#[inline(always)]` closure. Long slices are shared among threads.
pub fn map<T, O>(x: &[T], f: impl Fn(T) -> O + Sync) -> Vec<O>
where
    T: Copy + Sync,
    O: Copy + Send,
{
    let run = |x: &[T], out: &mut [MaybeUninit<O>]| {
        vectorise(
            #[inline(always)]
            || {
                for (out, &x) in out.iter_mut().zip(x) {
                    out.write(f(x));
                }
            },
        );
    };
    #[expect(unsafe_code, reason = "memory that need not be cleared first")]
    // SAFETY: there is an element of `x` for each of `out`.
    unsafe {
        share(x, &run)
    }
}

#[cfg(test)]
mod tests;
