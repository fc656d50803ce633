//! Sums and maxima of a row in a fixed order: a few dozen running results side by side, then a tree.
//!
//! The order depends on the length alone. Call these inside [`super::vectorise`].

#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "a function passed by name is called through a shim, which is not inlined for certain"
)]

use crate::Float;

/// Running results side by side: two vectors of AVX-512 in f32, four in f64. More would cost more code than time saved.
const LANES: usize = 32;

/// Folds the running results of a row in halves, so that the last step is the root of a balanced tree.
#[inline(always)]
fn tree<T: Copy>(mut lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// `join` over `f` of every element, beginning from `start`, its neutral element.
#[inline(always)]
pub fn fold<T: Copy, A: Copy>(x: &[T], start: A, f: impl Fn(T) -> A, join: impl Fn(A, A) -> A) -> A {
    let mut lanes = [start; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = join(*lane, f(x));
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = join(*lane, f(x));
    }
    tree(lanes, join)
}

/// The sum of `f` of every element.
#[inline(always)]
pub fn sum<T: Float>(x: &[T], f: impl Fn(T) -> T) -> T {
    fold(
        x,
        T::ZERO,
        f,
        #[inline(always)]
        |a, b| a + b,
    )
}

/// The largest element, NaN if there is one; minus infinity for an empty row.
#[inline(always)]
pub fn max<T: Float>(x: &[T]) -> T {
    fold(
        x,
        -T::INFINITY,
        #[inline(always)]
        |x| x,
        #[inline(always)]
        |a, b| a.max_nan(b),
    )
}
