//! Elementary functions that vectorise: branch-free kernels of one number, and the loops that run them over slices.
//!
//! [`single`] and [`double`] hold the kernels for f32 and f64, built from argument reduction, a minimax polynomial
//! (Remez exchange in 60 digits) and a reconstruction; both sides of every case are computed and one is chosen, so
//! that LLVM turns the loop around them into vector code. Against the exact value they err by less than 1.5 ulp in f32
//! and 2 ulp in f64 (the tests hold the figure of each).
//!
//! Multiply-adds are written out as fused (`mul_add`), which rounds once on every processor: the result depends on the
//! argument alone, never on the processor, the place in the slice or the number of threads. Processors without the instruction
//! (x86 before 2013) compute it in software, slowly.

pub mod double;
pub mod row;
pub mod single;

use rayon::prelude::*;

use crate::broadcast::GRAIN;

/// Runs a loop compiled for the widest vectors this processor has.
///
/// `body` must be an `#[inline(always)]` closure and call nothing but inlined functions, else it stays scalar.
#[inline(always)]
pub fn vectorise<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

/// `f` of every element. `f` must be an `#[inline(always)]` closure. Long slices are shared among threads.
pub fn map<T, O>(x: &[T], f: impl Fn(T) -> O + Sync) -> Vec<O>
where
    T: Copy + Sync,
    O: Copy + Default + Send,
{
    let mut out = vec![O::default(); x.len()];
    let part = |(out, x): (&mut [O], &[T])| {
        vectorise(
            #[inline(always)]
            || out.iter_mut().zip(x).for_each(|(o, &x)| *o = f(x)),
        );
    };
    if x.len() < 2 * GRAIN {
        part((&mut out, x));
    } else {
        out.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(part);
    }
    out
}

#[cfg(test)]
mod tests;
