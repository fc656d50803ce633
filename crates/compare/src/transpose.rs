//! Small matrices, transposed in registers.
//!
//! A square of as many rows as a vector has words is transposed by shuffling words of two rows into each other: row r
//! with row r + n/2 gives rows 2r and 2r + 1. Once turns the bits of (row, column) around by one place; done as often as
//! a row number has bits, it swaps row and column. Every vector instruction moves a whole vector, so that a word costs a
//! fraction of a cycle where moving it alone costs several.

use isotrace_tensor::{bf16, f16};

use crate::isa::Isa;
use crate::strided::Coming;

/// Elements of which squares are transposed.
pub(crate) trait Square: Copy {
    /// Rows, and columns, of a square.
    const SIDE: usize;

    /// Transposes one: row r of it begins at `from[r * step]`, column c goes to `to[c * width]` and on.
    fn square<I: Isa>(isa: I, from: &[Self], step: usize, to: &mut [Self], width: usize);

    /// Copies a short run: a few vectors, for which a call would take longer than they do.
    fn copy(from: &[Self], to: &mut [Self]);
}

/// [`Square::copy`] for vectors of some words.
macro_rules! copy {
    ($side:literal) => {
        #[inline(always)]
        fn copy(from: &[Self], to: &mut [Self]) {
            let (from, from_rest) = from.as_chunks::<$side>();
            let (to, to_rest) = to.as_chunks_mut::<$side>();
            for (to, from) in to.iter_mut().zip(from) {
                *to = *from;
            }
            for (to, from) in to_rest.iter_mut().zip(from_rest) {
                *to = *from;
            }
        }
    };
}

macro_rules! square {
    ($($t:ty as $word:ty, $side:literal, $turn:ident;)*) => { $(
        impl Square for $t {
            const SIDE: usize = $side;

            copy!($side);

            #[inline(always)]
            fn square<I: Isa>(isa: I, from: &[Self], step: usize, to: &mut [Self], width: usize) {
                let (from, to): (&[$word], &mut [$word]) =
                    (bytemuck::cast_slice(from), bytemuck::cast_slice_mut(to));
                let from = &from[..($side - 1) * step + $side];
                let to = &mut to[..($side - 1) * width + $side];
                // Whole cache lines at once: where runs are a power of two apart, a line is soon pushed out by others.
                let mut runs = [[0; $side]; $side];
                for (r, run) in runs.iter_mut().enumerate() {
                    run.copy_from_slice(&from[r * step..][..$side]);
                }
                for (c, run) in isa.$turn(&runs).iter().enumerate() {
                    to[c * width..][..$side].copy_from_slice(run);
                }
            }
        }
    )* };
}

square! {
    f64 as u64, 8, turn_u64;
    f32 as u32, 16, turn_u32;
    f16 as u16, 32, turn_u16;
    bf16 as u16, 32, turn_u16;
}

/// Transposes a matrix whose columns lie in runs: element (r, c) is `from[c * step + r]`, and goes to
/// `to[r * columns + c]`, while `coming` is asked for.
#[inline(always)]
pub(crate) fn transpose<I: Isa, T: Square>(
    isa: I,
    from: &[T],
    step: usize,
    to: &mut [T],
    [rows, columns]: [usize; 2],
    coming: &mut Coming<'_, I>,
) {
    if rows < T::SIDE || columns < T::SIDE {
        for c in 0..columns {
            for r in 0..rows {
                to[r * columns + c] = from[c * step + r];
            }
        }
        return;
    }
    // The last square may lie over the one before.
    for c in (0..columns.div_ceil(T::SIDE)).map(|k| (k * T::SIDE).min(columns - T::SIDE)) {
        for r in (0..rows.div_ceil(T::SIDE)).map(|k| (k * T::SIDE).min(rows - T::SIDE)) {
            T::square(isa, &from[c * step + r..], step, &mut to[r * columns + c..], columns);
            coming.gathered(T::SIDE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Job, Level};

    struct Transpose<'t, T> {
        from: &'t [T],
        step: usize,
        size: [usize; 2],
    }

    impl<T: Square> Job for Transpose<'_, T> {
        type Out = Vec<T>;

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Vec<T> {
            let mut to = vec![self.from[0]; self.size[0] * self.size[1]];
            transpose(isa, self.from, self.step, &mut to, self.size, &mut Coming { isa, lines: &[] });
            to
        }
    }

    fn is_transposed<T: Square + PartialEq + std::fmt::Debug>(of: impl Fn(usize) -> T) {
        for size in [[64, 64], [1, 7], [7, 1], [33, 100], [100, 33], [16, 15], [8, 9]] {
            let step = size[0] + 3;
            let from: Vec<T> = (0..step * size[1]).map(&of).collect();
            let expected: Vec<T> =
                (0..size[0] * size[1]).map(|k| from[k % size[1] * step + k / size[1]]).collect();
            for level in Level::all() {
                assert_eq!(level.run(Transpose { from: &from, step, size }), expected, "{size:?}");
            }
        }
    }

    #[test]
    fn every_level_transposes() {
        is_transposed(|i| i as f64);
        is_transposed(|i| i as f32);
        // Numbers that stand for nothing but their bits.
        is_transposed(|i| f16::from_bits(i as u16 & 0x3fff));
        is_transposed(|i| bf16::from_bits(i as u16 & 0x3fff));
    }
}
