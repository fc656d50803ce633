//! The bits of a float as an integer, and distances between floats in steps.

use std::ops::{BitAnd, BitOr, BitXor, Not};

use bytemuck::Pod;

use crate::isa::Isa;

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
    /// Bit `k`, as 0 or 1.
    fn bit(self, k: usize) -> u64;
}

macro_rules! word {
    ($($word:ty, $signed:ty, [$($shift:literal)+];)*) => { $(
        impl Word for $word {
            const ZERO: Self = 0;
            const MAGNITUDE: Self = Self::MAX >> 1;
            const BITS: usize = Self::BITS as usize;

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
            fn bit(self, k: usize) -> u64 {
                u64::from(self >> k & 1)
            }
        }
    )* };
}

word! {
    u16, i16, [1 2 4 8];
    u32, i32, [1 2 4 8 16];
    u64, i64, [1 2 4 8 16 32];
}
