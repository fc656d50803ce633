//! Small matrices, transposed in registers.
//!
//! A square of as many rows as a vector has words is transposed by shuffling words of two rows into each other: row r
//! with row r + n/2 gives rows 2r and 2r + 1. Once turns the bits of (row, column) around by one place; done as often as
//! a row number has bits, it swaps row and column. Every vector instruction moves a whole vector, so that a word costs a
//! fraction of a cycle where moving it alone costs several.

use isotrace_tensor::{bf16, f16};

use crate::isa::Isa;

/// Elements of which squares are transposed, `L` on a side.
pub(crate) trait Square<const L: usize>: Copy {
    /// Transposes one.
    fn turn<I: Isa>(isa: I, rows: &[[Self; L]; L], out: &mut [[Self; L]; L]);
}

macro_rules! square {
    ($($t:ty, $side:literal, $turn:ident;)*) => { $(
        impl Square<$side> for $t {
            #[inline(always)]
            fn turn<I: Isa>(isa: I, rows: &[[Self; $side]; $side], out: &mut [[Self; $side]; $side]) {
                isa.$turn(bytemuck::cast_ref(rows), bytemuck::cast_mut(out));
            }
        }
    )* };
}

square! {
    f64, 8, turn_u64;
    f32, 16, turn_u32;
    f16, 32, turn_u16;
    bf16, 32, turn_u16;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Job, Level};

    struct Turn<'t, T, const L: usize>(&'t [[T; L]; L]);

    impl<T: Square<L>, const L: usize> Job for Turn<'_, T, L> {
        type Out = [[T; L]; L];

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Self::Out {
            let mut out = *self.0;
            T::turn(isa, self.0, &mut out);
            out
        }
    }

    fn is_transposed<T: Square<L> + PartialEq + std::fmt::Debug, const L: usize>(of: impl Fn(usize) -> T) {
        let rows = std::array::from_fn(|r| std::array::from_fn(|c| of(r * L + c)));
        let expected: [[T; L]; L] = std::array::from_fn(|r| std::array::from_fn(|c| of(c * L + r)));
        for level in Level::all() {
            assert_eq!(level.run(Turn(&rows)), expected);
        }
    }

    #[test]
    fn every_level_transposes() {
        is_transposed::<f64, 8>(|i| i as f64);
        is_transposed::<f32, 16>(|i| i as f32);
        // Numbers that stand for nothing but their bits.
        is_transposed::<f16, 32>(|i| f16::from_bits(i as u16));
        is_transposed::<bf16, 32>(|i| bf16::from_bits(i as u16));
    }
}
