//! Small matrices, transposed in registers.
//!
//! A square of as many rows as a vector has words is transposed by shuffling words of two rows into each other: row r
//! with row r + n/2 gives rows 2r and 2r + 1. Once turns the bits of (row, column) around by one place; done as often as
//! a row number has bits, it swaps row and column. Every vector instruction moves a whole vector, so that a word costs a
//! fraction of a cycle where moving it alone costs several.

use isotrace_tensor::{bf16, f16};

use crate::isa::Isa;

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

/// As many rounds as a row number has bits, one after the other in the text, so that everything stays in registers.
macro_rules! turned {
    ($isa:expr, $zip:ident, $rows:expr, $side:literal, [$($round:literal)+]) => {{
        let mut rows = $rows;
        $(
            let _ = $round;
            let mut next = [[0; $side]; $side];
            for r in 0..$side / 2 {
                [next[2 * r], next[2 * r + 1]] = $isa.$zip(rows[r], rows[r + $side / 2]);
            }
            rows = next;
        )+
        rows
    }};
}

macro_rules! square {
    ($($t:ty as $word:ty, $side:literal, $zip:ident, $rounds:tt;)*) => { $(
        impl Square for $t {
            const SIDE: usize = $side;

            copy!($side);

            #[inline(always)]
            fn square<I: Isa>(isa: I, from: &[Self], step: usize, to: &mut [Self], width: usize) {
                let (from, to): (&[$word], &mut [$word]) =
                    (bytemuck::cast_slice(from), bytemuck::cast_slice_mut(to));
                let from = &from[..($side - 1) * step + $side];
                let to = &mut to[..($side - 1) * width + $side];
                let mut rows = [[0; $side]; $side];
                for (r, row) in rows.iter_mut().enumerate() {
                    row.copy_from_slice(&from[r * step..][..$side]);
                }
                for (c, row) in turned!(isa, $zip, rows, $side, $rounds).iter().enumerate() {
                    to[c * width..][..$side].copy_from_slice(row);
                }
            }
        }
    )* };
}

square! {
    f64 as u64, 8, zip_u64, [0 1 2];
    f32 as u32, 16, zip_u32, [0 1 2 3];
}

/// Half types: two rows in turn are a row of wider words, each a pair, and those are transposed, of one half of the
/// columns and then of the other; a square of words of two bytes would need more registers than there are.
macro_rules! half_square {
    ($($t:ty)*) => { $(
        impl Square for $t {
            const SIDE: usize = 32;

            copy!(32);

            #[inline(always)]
            fn square<I: Isa>(isa: I, from: &[Self], step: usize, to: &mut [Self], width: usize) {
                let (from, to): (&[u16], &mut [u16]) = (bytemuck::cast_slice(from), bytemuck::cast_slice_mut(to));
                let from = &from[..31 * step + 32];
                let to = &mut to[..31 * width + 32];
                for half in 0..2 {
                    let mut rows = [[0u32; 16]; 16];
                    for (r, row) in rows.iter_mut().enumerate() {
                        let (mut one, mut other) = ([0; 32], [0; 32]);
                        one.copy_from_slice(&from[2 * r * step..][..32]);
                        other.copy_from_slice(&from[(2 * r + 1) * step..][..32]);
                        *row = bytemuck::cast(isa.zip_u16(one, other)[half]);
                    }
                    for (c, row) in turned!(isa, zip_u32, rows, 16, [0 1 2 3]).iter().enumerate() {
                        to[(16 * half + c) * width..][..32].copy_from_slice(bytemuck::cast_slice(row));
                    }
                }
            }
        }
    )* };
}

half_square!(f16 bf16);

/// Transposes a matrix whose columns lie in runs: element (r, c) is `from[c * step + r]`, and goes to
/// `to[r * columns + c]`.
#[inline(always)]
pub(crate) fn transpose<I: Isa, T: Square>(
    isa: I,
    from: &[T],
    step: usize,
    to: &mut [T],
    [rows, columns]: [usize; 2],
) {
    let (whole_rows, whole_columns) = (rows / T::SIDE * T::SIDE, columns / T::SIDE * T::SIDE);
    for c in (0..whole_columns).step_by(T::SIDE) {
        for r in (0..whole_rows).step_by(T::SIDE) {
            T::square(isa, &from[c * step + r..], step, &mut to[r * columns + c..], columns);
        }
    }
    for c in 0..columns {
        let first = if c < whole_columns { whole_rows } else { 0 };
        for r in first..rows {
            to[r * columns + c] = from[c * step + r];
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
            transpose(isa, self.from, self.step, &mut to, self.size);
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
