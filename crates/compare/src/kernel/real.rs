//! The float types that have loops of their own.

use bytemuck::Pod;
use isotrace_tensor::{bf16, f16};

use crate::isa::Isa;

use super::LONGEST;
use super::moments::{Extremes, Moments, Number};
use super::word::Word;

/// Something rare that is done with the numbers of a tile.
pub(crate) trait OnNumbers {
    /// Does it.
    fn run<N: Number>(self, x: &[N], y: &[N]) -> f64;
}

/// How a tile's sums are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Narrow {
    /// In f64.
    No,
    /// In f32, where differences may be rounded.
    Rounded,
    /// In f32, where every difference is exact.
    Exact,
}

/// A float type; `L` of them make a vector of 64 bytes.
pub(crate) trait Real<const L: usize>: Pod + Send + Sync {
    /// Its bits.
    type Word: Word;
    /// The bits of infinity; every larger magnitude is NaN.
    const INFINITY: Self::Word;
    /// Whether products are exact in f32.
    const NARROW: bool;
    /// Differences of numbers fewer steps apart than this are exact in f32.
    const EXACT_STEPS: Self::Word;

    /// Room for a tile of each side in another form.
    type Room;

    /// Empty room.
    fn room() -> Self::Room;
    /// As f64, exactly.
    fn wide(self) -> f64;
    /// Neither NaN nor infinite.
    fn finite(self) -> bool;
    /// The float of these bits.
    fn of_word(word: Self::Word) -> Self;
    /// The bits of each.
    fn words(slice: &[Self]) -> &[Self::Word];
    /// Hands a tile, added just before, to something that needs numbers.
    fn with_numbers(room: &Self::Room, x: &[Self], y: &[Self], job: impl OnNumbers) -> f64;
    /// Adds a tile to the sums; see [`Moments::add`] and [`Moments::add_narrow`].
    fn add<I: Isa>(
        isa: I,
        room: &mut Self::Room,
        to: &mut Moments,
        sides: [&[Self]; 2],
        max: [f64; 2],
        narrow: Narrow,
        ahead: impl Fn(usize),
    ) -> Extremes;
    /// Adds a tile whose two sides are the same.
    fn add_same<I: Isa>(isa: I, room: &mut Self::Room, to: &mut Moments, x: &[Self]);
}

macro_rules! wide {
    ($($t:ty, $word:ty, $lanes:literal, $exact:expr, $add:expr;)*) => { $(
        impl Real<$lanes> for $t {
            type Word = $word;
            const INFINITY: $word = <$t>::INFINITY.to_bits();
            type Room = ();
            const NARROW: bool = false;
            const EXACT_STEPS: $word = $exact;

            #[inline(always)]
            fn wide(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn finite(self) -> bool {
                self.is_finite()
            }

            #[inline(always)]
            fn of_word(word: $word) -> Self {
                Self::from_bits(word)
            }

            #[inline(always)]
            fn words(slice: &[Self]) -> &[$word] {
                bytemuck::cast_slice(slice)
            }

            #[inline(always)]
            fn room() -> Self::Room {}

            #[inline(always)]
            fn with_numbers((): &Self::Room, x: &[Self], y: &[Self], job: impl OnNumbers) -> f64 {
                job.run(x, y)
            }

            #[inline(always)]
            fn add<I: Isa>(
                _: I,
                (): &mut Self::Room,
                to: &mut Moments,
                [x, y]: [&[Self]; 2],
                max: [f64; 2],
                narrow: Narrow,
                ahead: impl Fn(usize),
            ) -> Extremes {
                $add(to, x, y, max, narrow, ahead)
            }

            #[inline(always)]
            fn add_same<I: Isa>(_: I, (): &mut Self::Room, to: &mut Moments, x: &[Self]) {
                to.add_same(x);
            }
        }
    )* };
}

#[inline(always)]
fn add_f64(
    to: &mut Moments,
    x: &[f64],
    y: &[f64],
    max: [f64; 2],
    _: Narrow,
    ahead: impl Fn(usize),
) -> Extremes {
    to.add(x, y, max, ahead)
}

#[inline(always)]
fn add_f32(
    to: &mut Moments,
    x: &[f32],
    y: &[f32],
    max: [f64; 2],
    narrow: Narrow,
    ahead: impl Fn(usize),
) -> Extremes {
    to.add_f32(x, y, max, narrow == Narrow::Exact, ahead)
}

wide! {
    f64, u64, 8, 0, add_f64;
    // A binade: within it differences are exact (Sterbenz).
    f32, u32, 16, 1 << 23, add_f32;
}

/// A tile of either side as f32, where a vector does not cross the border of two cache lines.
#[repr(align(64))]
pub(crate) struct Halves([[f32; LONGEST]; 2]);

/// A half type: how its bits become f32.
trait Half: Pod {
    /// Whether squares of its numbers may leave the range of f32.
    const RANGE: bool;
    /// A tile.
    fn widen<I: Isa>(isa: I, bits: &[u16], out: &mut [f32]);
}

impl Half for f16 {
    const RANGE: bool = false;

    #[inline(always)]
    fn widen<I: Isa>(isa: I, bits: &[u16], out: &mut [f32]) {
        isa.widen_f16(bits, out);
    }
}

impl Half for bf16 {
    const RANGE: bool = true;

    #[inline(always)]
    fn widen<I: Isa>(_: I, bits: &[u16], out: &mut [f32]) {
        for (out, &bits) in out.iter_mut().zip(bits) {
            *out = f32::from_bits(u32::from(bits) << 16);
        }
    }
}

macro_rules! half {
    ($($t:ty;)*) => { $(
        impl Real<32> for $t {
            type Word = u16;
            const INFINITY: u16 = <$t>::INFINITY.to_bits();
            type Room = Halves;
            const NARROW: bool = true;
            // As many binades as make up the 24 bits of an f32, less one for the carry.
            const EXACT_STEPS: u16 = (24 - <$t>::MANTISSA_DIGITS as u16) << (<$t>::MANTISSA_DIGITS - 1);

            #[inline(always)]
            fn wide(self) -> f64 {
                self.to_f64()
            }

            #[inline(always)]
            fn finite(self) -> bool {
                self.is_finite()
            }

            #[inline(always)]
            fn of_word(word: u16) -> Self {
                Self::from_bits(word)
            }

            #[inline(always)]
            fn words(slice: &[Self]) -> &[u16] {
                bytemuck::cast_slice(slice)
            }

            #[inline(always)]
            fn room() -> Self::Room {
                Halves([[0.0; LONGEST]; 2])
            }

            #[inline(always)]
            fn with_numbers(Halves([a, b]): &Self::Room, _: &[Self], _: &[Self], job: impl OnNumbers) -> f64 {
                job.run(a, b)
            }

            #[inline(always)]
            fn add<I: Isa>(
                isa: I,
                Halves([a, b]): &mut Self::Room,
                to: &mut Moments,
                [x, y]: [&[Self]; 2],
                max: [f64; 2],
                narrow: Narrow,
                ahead: impl Fn(usize),
            ) -> Extremes {
                <$t as Half>::widen(isa, bytemuck::cast_slice(x), a);
                <$t as Half>::widen(isa, bytemuck::cast_slice(y), b);
                let exact = match narrow {
                    Narrow::No => return to.add(a, b, max, ahead),
                    Narrow::Rounded => false,
                    Narrow::Exact => true,
                };
                let mut tile = Moments::new();
                let found = tile.add_narrow(a, b, max, exact, &ahead);
                if <$t as Half>::RANGE && !tile.within_f32() {
                    return to.add(a, b, max, ahead);
                }
                to.join(&tile);
                found
            }

            #[inline(always)]
            fn add_same<I: Isa>(isa: I, Halves([a, _]): &mut Self::Room, to: &mut Moments, x: &[Self]) {
                <$t as Half>::widen(isa, bytemuck::cast_slice(x), a);
                to.add_same(a);
            }
        }
    )* };
}

half! {
    f16;
    bf16;
}
