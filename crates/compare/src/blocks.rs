//! Pairs of types without loops of their own: elements are widened a block at a time, so that what type they are is
//! asked once a block, and the loop over a block is one of plain numbers.
//!
//! Integers and truth values become i64, of which differences are exact; everything else but complex numbers becomes
//! f64, which holds every float exactly.

use isotrace_tensor::{
    Bool, DType, F4E2M1, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, I2, I4, Tensor, U2, U4, bf16, f16,
};

use crate::accumulate::tree;
use crate::elements::Element;
use crate::isa::{Isa, Job, Level};
use crate::kernel::below;
use crate::sums::Sums;

/// Elements a block: both sides stay in the first-level cache.
const BLOCK: usize = 1024;
/// Elements a piece.
const PIECE: usize = 1 << 16;
/// Sums kept side by side.
const LANES: usize = 8;

/// Whether every value of the type is an i64.
pub(crate) fn fits_i64(dtype: DType) -> bool {
    dtype == DType::Bool || dtype.is_int() && dtype != DType::U64
}

/// The elements from `from` on, as many as `out` holds. The type is one that [`fits_i64`].
#[inline(always)]
fn integers(t: &Tensor, from: usize, out: &mut [i64]) {
    macro_rules! read {
        ($t:ty, $f:expr) => {
            for (out, &x) in out.iter_mut().zip(&slice::<$t>(t)[from..]) {
                *out = i64::from($f(x));
            }
        };
    }
    match t.dtype() {
        DType::I64 => read!(i64, |x| x),
        DType::I32 => read!(i32, |x| x),
        DType::I16 => read!(i16, |x| x),
        DType::I8 => read!(i8, |x| x),
        DType::I4 => read!(I4, |x: I4| x.0),
        DType::I2 => read!(I2, |x: I2| x.0),
        DType::U32 => read!(u32, |x| x),
        DType::U16 => read!(u16, |x| x),
        DType::U8 => read!(u8, |x| x),
        DType::U4 => read!(U4, |x: U4| x.0),
        DType::U2 => read!(U2, |x: U2| x.0),
        DType::Bool => read!(Bool, |x: Bool| x.get()),
        other => unreachable!("{other} was taken for an integer that fits 64 bits"),
    }
}

/// The elements from `from` on, as many as `out` holds. The type is no text and not complex.
#[inline(always)]
fn reals(t: &Tensor, from: usize, out: &mut [f64]) {
    macro_rules! read {
        ($t:ty, $f:expr) => {
            for (out, &x) in out.iter_mut().zip(&slice::<$t>(t)[from..]) {
                *out = $f(x);
            }
        };
    }
    match t.dtype() {
        DType::F64 => read!(f64, |x| x),
        DType::F32 => read!(f32, |x| f64::from(x)),
        DType::F16 => read!(f16, |x: f16| x.to_f64()),
        DType::BF16 => read!(bf16, |x: bf16| f64::from(f32::from_bits(u32::from(x.to_bits()) << 16))),
        DType::F8E4M3FN => read!(F8E4M3FN, |x: F8E4M3FN| x.to_f64()),
        DType::F8E4M3FNUZ => read!(F8E4M3FNUZ, |x: F8E4M3FNUZ| x.to_f64()),
        DType::F8E5M2 => read!(F8E5M2, |x: F8E5M2| x.to_f64()),
        DType::F8E5M2FNUZ => read!(F8E5M2FNUZ, |x: F8E5M2FNUZ| x.to_f64()),
        DType::F8E8M0 => read!(F8E8M0, |x: F8E8M0| x.to_f64()),
        DType::F4E2M1 => read!(F4E2M1, |x: F4E2M1| x.to_f64()),
        DType::U64 => read!(u64, |x| x as f64),
        _ => {
            let mut whole = [0; BLOCK];
            let whole = &mut whole[..out.len()];
            integers(t, from, whole);
            for (out, &x) in out.iter_mut().zip(&*whole) {
                *out = x as f64;
            }
        }
    }
}

fn slice<T: isotrace_tensor::Element>(t: &Tensor) -> &[T] {
    t.as_slice().expect("the type was looked at")
}

/// A piece of two tensors of integers.
struct Integers<'t> {
    x: &'t Tensor,
    y: &'t Tensor,
    from: usize,
    to: usize,
}

/// What a block of integers comes to, in lanes.
#[derive(Default)]
struct Block {
    abs: [f64; LANES],
    squares: [[f64; LANES]; 3],
    product: [f64; LANES],
    max_abs: [f64; LANES],
    /// Above 0 where a relative difference may exceed the largest so far.
    over: [f64; LANES],
    largest: [[f64; LANES]; 2],
    different: [u64; LANES],
}

impl Block {
    /// Pads of zeros leave no trace.
    #[inline(always)]
    fn of(x: &[i64; BLOCK], y: &[i64; BLOCK], max_rel: f64) -> Self {
        let mut block = Self::default();
        let slope = -below(max_rel);
        let max = |a: f64, b: f64| if a > b { a } else { b };
        for (x, y) in x.as_chunks::<LANES>().0.iter().zip(y.as_chunks::<LANES>().0) {
            for l in 0..LANES {
                let d = x[l].abs_diff(y[l]) as f64;
                let (x, y) = (x[l] as f64, y[l] as f64);
                block.abs[l] += d;
                block.squares[0][l] += d * d;
                block.squares[1][l] += x * x;
                block.squares[2][l] += y * y;
                block.product[l] += x * y;
                block.max_abs[l] = max(d, block.max_abs[l]);
                block.over[l] = max(slope.mul_add(x.abs(), d), block.over[l]);
                block.largest[0][l] = max(x.abs(), block.largest[0][l]);
                block.largest[1][l] = max(y.abs(), block.largest[1][l]);
                block.different[l] += u64::from(d != 0.0);
            }
        }
        block
    }
}

/// The largest relative difference of a block, and of what came before it.
#[inline(always)]
fn steepest(x: &[i64; BLOCK], y: &[i64; BLOCK], before: f64) -> f64 {
    let mut lanes = [before; LANES];
    for (x, y) in x.as_chunks::<LANES>().0.iter().zip(y.as_chunks::<LANES>().0) {
        for l in 0..LANES {
            // 0/0 is NaN, which the comparison passes over.
            let rel = x[l].abs_diff(y[l]) as f64 / (x[l] as f64).abs();
            lanes[l] = if rel > lanes[l] { rel } else { lanes[l] };
        }
    }
    lanes.into_iter().fold(before, f64::max)
}

impl Job for Integers<'_> {
    type Out = Sums;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Sums {
        let mut sums = Sums::default();
        let total = |lanes: &[f64; LANES]| {
            let [a, b, c, d, e, f, g, h] = *lanes;
            ((a + b) + (c + d)) + ((e + f) + (g + h))
        };
        let most = |lanes: &[f64; LANES]| lanes.iter().copied().fold(0.0, f64::max);
        let (mut x, mut y) = ([0; BLOCK], [0; BLOCK]);
        for from in (self.from..self.to).step_by(BLOCK) {
            let len = BLOCK.min(self.to - from);
            integers(self.x, from, &mut x[..len]);
            integers(self.y, from, &mut y[..len]);
            x[len..].fill(0);
            y[len..].fill(0);
            let block = Block::of(&x, &y, sums.max_rel);
            sums.sum_abs += total(&block.abs);
            sums.sum_squares += total(&block.squares[0]);
            sums.product += total(&block.product);
            for side in 0..2 {
                sums.squares[side] += total(&block.squares[1 + side]);
                sums.largest[side] = sums.largest[side].max(most(&block.largest[side]));
            }
            sums.different += block.different.iter().sum::<u64>();
            if most(&block.over) > 0.0 {
                sums.max_rel = steepest(&x, &y, sums.max_rel);
            }
            let max = most(&block.max_abs);
            if max > sums.max_abs {
                let at = x.iter().zip(&y).position(|(&x, &y)| x.abs_diff(y) as f64 == max);
                (sums.max_abs, sums.worst) = (max, at.map(|at| from + at));
            }
        }
        sums
    }
}

/// Over two tensors of integers that [`fits_i64`] says fit.
pub(crate) fn of_integers(level: Level, x: &Tensor, y: &Tensor) -> Sums {
    tree(0, x.len().div_ceil(PIECE), &|k| {
        level.run(Integers { x, y, from: k * PIECE, to: ((k + 1) * PIECE).min(x.len()) })
    })
}

/// Over two tensors of real numbers, `scale` times as large in sums of squares and products; `ulp` is asked where both
/// are numbers that differ.
pub(crate) fn of_reals(x: &Tensor, y: &Tensor, scale: f64, ulp: impl Fn(f64, f64) -> u64 + Sync) -> Sums {
    tree(0, x.len().div_ceil(PIECE), &|k| {
        let mut sums = Sums::default();
        let (mut a, mut b) = ([0.0; BLOCK], [0.0; BLOCK]);
        let to = ((k + 1) * PIECE).min(x.len());
        for from in (k * PIECE..to).step_by(BLOCK) {
            let len = BLOCK.min(to - from);
            reals(x, from, &mut a[..len]);
            reals(y, from, &mut b[..len]);
            for (i, (&p, &q)) in a[..len].iter().zip(&b[..len]).enumerate() {
                sums.add(from + i, &Element::reals(p, q, || ulp(p, q)), scale);
            }
        }
        sums
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_as_one_by_one_on_every_level() {
        let x: Vec<i64> = (0..200_003_i64).map(|i| (i * 7919) % 1001 - 500).collect();
        let mut y = x.clone();
        (y[70_000], y[150_000], y[150_001]) = (x[70_000] + 3, x[150_000] - 9, x[150_001] + 9);
        let (a, b) = (Tensor::vector(x.clone()), Tensor::vector(y.clone()));
        for level in Level::all() {
            let found = of_integers(level, &a, &b);
            let expected = crate::elements::sums(x.len(), |i| Element::integers(x[i].into(), y[i].into()));
            let of =
                |s: &Sums| (s.sum_abs, s.sum_squares, s.squares, s.product, s.max_abs, s.max_rel, s.worst);
            // Every sum is a whole number below 2^53, so that no order of summation rounds.
            assert_eq!(of(&found), of(&expected));
            assert_eq!((found.different, found.largest), (expected.different, expected.largest));
        }
        // The extremes of the type: the difference is one that i64 does not hold.
        let far =
            of_integers(Level::best(), &Tensor::vector(vec![i64::MIN]), &Tensor::vector(vec![i64::MAX]));
        assert_eq!(far.max_abs, u64::MAX as f64);
    }
}
