//! The bits of a float as an integer, and distances between floats in steps.

use std::ops::{BitAnd, BitOr, BitXor, Not};

use bytemuck::Pod;

use crate::isa::Isa;

use super::steps::Vector;

/// An unsigned integer that holds the bits of a float: sign, then magnitude.
pub(crate) trait Word:
    Pod
    + Ord
    + Send
    + Sync
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + BitXor<Output = Self>
    + Not<Output = Self>
{
    /// No bit.
    const ZERO: Self;
    /// Every bit but the sign.
    const MAGNITUDE: Self;
    /// The number of bits.
    const BITS: usize;
    /// A word of half the width, if there is one.
    type Half: Word;

    /// Two vectors whose words have no more bits than a half as one, in whatever order is quick.
    fn halve<I: Isa>(isa: I, a: Vector, b: Vector) -> Vector;

    /// Vectors that make one of words as short as they get.
    const PACKED: usize;

    /// So many vectors, whose words have no more than seven bits, as one, in whatever order is quick.
    fn pack<I: Isa>(isa: I, vectors: &[Vector]) -> Vector;
    /// Adds one to those words of `counts` whose partners in `words` are at least `least`; both are as short as
    /// words get, and neither number is above seven bits.
    fn add_reaching<I: Isa>(isa: I, counts: Vector, words: Vector, least: u8) -> Vector;
    /// The sum of the shortest words.
    fn total(counts: &Vector) -> u64;

    /// Steps between two floats of the same sign, by their bits.
    fn near(self, other: Self) -> Self;
    /// Steps between two floats, counted through zero, both zeros one place.
    fn far(self, other: Self) -> Self;
    /// All bits from the highest that is set on down: bit k says whether the number is at least 2^k. The number has
    /// no more than `bits` bits, a power of two.
    fn smear<I: Isa>(self, bits: usize) -> Self;
    /// Bits above the highest that is set.
    fn leading_zeros(self) -> usize;
    /// As a wide number.
    fn wide(self) -> u64;
    /// The sum of two, which fits.
    fn plus(self, other: Self) -> Self;
    /// One less than this, which is not 0.
    fn before(self) -> Self;
}

macro_rules! word {
    ($($word:ty, $signed:ty, $half:ty, $halve:ident, [$($shift:literal)+], $packed:literal, $pack:ident, $short:ty, $reaching:ident;)*) => { $(
        impl Word for $word {
            const ZERO: Self = 0;
            const MAGNITUDE: Self = Self::MAX >> 1;
            const BITS: usize = Self::BITS as usize;
            type Half = $half;

            #[inline(always)]
            fn halve<I: Isa>(isa: I, a: Vector, b: Vector) -> Vector {
                $halve(isa, a, b)
            }

            const PACKED: usize = $packed;

            #[inline(always)]
            fn pack<I: Isa>(isa: I, vectors: &[Vector]) -> Vector {
                $pack(isa, vectors)
            }

            #[inline(always)]
            fn add_reaching<I: Isa>(isa: I, counts: Vector, words: Vector, least: u8) -> Vector {
                pulp::cast(isa.$reaching(pulp::cast(counts), pulp::cast(words), <$short>::from(least)))
            }

            fn total(counts: &Vector) -> u64 {
                bytemuck::cast_slice::<u64, $short>(counts).iter().map(|&n| u64::from(n)).sum()
            }

            #[inline(always)]
            fn near(self, other: Self) -> Self {
                (self as $signed).wrapping_sub(other as $signed).wrapping_abs() as Self
            }

            #[inline(always)]
            fn far(self, other: Self) -> Self {
                let (x, y) = (self & Self::MAGNITUDE, other & Self::MAGNITUDE);
                let same = x.max(y) - x.min(y);
                let through_zero = x.wrapping_add(y);
                let opposite = ((self ^ other) as $signed >> (Self::BITS - 1)) as Self;
                (through_zero & opposite) | (same & !opposite)
            }

            #[inline(always)]
            fn smear<I: Isa>(self, bits: usize) -> Self {
                if bits > 4 && I::COUNTS_ZEROS && Self::BITS >= 32 {
                    return if self == 0 { 0 } else { Self::MAX >> Self::leading_zeros(self) };
                }
                let mut x = self;
                $(
                    if $shift < bits {
                        x |= x >> $shift;
                    }
                )+
                x
            }

            #[inline(always)]
            fn leading_zeros(self) -> usize {
                self.leading_zeros() as usize
            }

            #[inline(always)]
            fn wide(self) -> u64 {
                u64::from(self)
            }

            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn before(self) -> Self {
                self.wrapping_sub(1)
            }
        }
    )* };
}

word! {
    u8, i8, u8, not, [1 2 4], 1, one, u8, add_reaching_u8;
    u16, i16, u8, halve_u16, [1 2 4 8], 2, two_u16, u8, add_reaching_u8;
    u32, i32, u16, halve_u32, [1 2 4 8 16], 4, four_u32, u8, add_reaching_u8;
    u64, i64, u32, halve_u64, [1 2 4 8 16 32], 4, four_u64, u16, add_reaching_u16;
}

#[inline(always)]
fn one<I: Isa>(_: I, vectors: &[Vector]) -> Vector {
    vectors[0]
}

#[inline(always)]
fn two_u16<I: Isa>(isa: I, vectors: &[Vector]) -> Vector {
    halve_u16(isa, vectors[0], vectors[1])
}

#[inline(always)]
fn four_u32<I: Isa>(isa: I, vectors: &[Vector]) -> Vector {
    let (one, other) = (halve_u32(isa, vectors[0], vectors[1]), halve_u32(isa, vectors[2], vectors[3]));
    halve_u16(isa, one, other)
}

#[inline(always)]
fn four_u64<I: Isa>(isa: I, vectors: &[Vector]) -> Vector {
    let (one, other) = (halve_u64(isa, vectors[0], vectors[1]), halve_u64(isa, vectors[2], vectors[3]));
    halve_u32(isa, one, other)
}

fn not<I: Isa>(_: I, _: Vector, _: Vector) -> Vector {
    unreachable!("there is no shorter word")
}

#[inline(always)]
fn halve_u16<I: Isa>(isa: I, a: Vector, b: Vector) -> Vector {
    pulp::cast(isa.halve_u16(pulp::cast(a), pulp::cast(b)))
}

#[inline(always)]
fn halve_u32<I: Isa>(isa: I, a: Vector, b: Vector) -> Vector {
    pulp::cast(isa.halve_u32(pulp::cast(a), pulp::cast(b)))
}

#[inline(always)]
fn halve_u64<I: Isa>(isa: I, a: Vector, b: Vector) -> Vector {
    pulp::cast(isa.halve_u64(a, b))
}
