//! The float types that have loops of their own.

use bytemuck::Pod;
use isotrace_tensor::{bf16, f16};

use crate::isa::Isa;
use crate::judge::FirstLook;
use crate::native::{Formula, Limits, ModerateBf16, ModerateF16, Rounding, Same, ToBf16, ToF16, by_rule};

use super::beyond::halves_beyond;
use super::look::{look_f32, look_f64};
use super::moments::{Close, Found, Kind, Known, Moments, NARROW, Number, Seen, narrow_below};
use super::word::Word;
use super::{Ahead, LONGEST, Scan};

/// Something rare that is done with the numbers of a tile.
pub(crate) trait OnNumbers {
    /// Does it.
    fn run<N: Number>(self, x: &[N], y: &[N]) -> f64;
}

/// How the sums of a tile of half-precision numbers are made.
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
    /// How close tiles are added.
    type Close: Kind;
    /// The bits of infinity; every larger magnitude is NaN.
    const INFINITY: Self::Word;
    /// The bits of the smallest normal number.
    const NORMAL: Self::Word;
    /// Bits of the significand, less the hidden one: so many halvings of a binade make a step.
    const FRACTION: u32;
    /// Whether products are exact in f32.
    const NARROW: bool;
    /// Differences of numbers fewer steps apart than this are exact in f32.
    const EXACT_STEPS: Self::Word;

    /// As f64, exactly.
    fn wide(self) -> f64;
    /// Neither NaN nor infinite.
    fn finite(self) -> bool;
    /// The float of these bits.
    fn of_word(word: Self::Word) -> Self;
    /// The bits of the largest number that is not above this one, which is not negative.
    fn word_to(x: f64) -> Self::Word;
    /// The bits of each.
    fn words(slice: &[Self]) -> &[Self::Word];
    /// A first look at a tile: distances in steps as they are between numbers of one sign, and what comes with them.
    /// `rel` is the largest relative difference so far.
    fn scan<I: Isa>(
        isa: I,
        x: &[Self],
        y: &[Self],
        rel: f64,
        distances: &mut [Self::Word],
    ) -> Scan<Self::Word>;
    /// The same for a tile that is expected to be close, of which the sums may be made at once; `ahead` is called then for
    /// every half of a line.
    #[inline(always)]
    fn look<I: Isa>(
        isa: I,
        [x, y]: [&[Self]; 2],
        rel: f64,
        distances: &mut [Self::Word],
        ahead: impl Ahead,
    ) -> Scan<Self::Word> {
        let _ = ahead;
        Self::scan(isa, x, y, rel, distances)
    }
    /// Hands a tile to something that needs numbers.
    fn with_numbers<I: Isa>(isa: I, x: &[Self], y: &[Self], job: impl OnNumbers) -> f64;
    /// Adds a tile to the sums; see [`Moments::add_wide`] and [`Moments::of_narrow`].
    fn add<I: Isa, K: Kind, const JUDGED: bool>(
        isa: I,
        to: &mut Moments,
        sides: [&[Self]; 2],
        seen: Seen,
        narrow: Narrow,
        ahead: impl FnMut(usize),
    ) -> Found;
    /// Adds a tile whose two sides are the same.
    fn add_same<I: Isa>(isa: I, to: &mut Moments, x: &[Self]);
    /// How many pairs are beyond a tolerance.
    fn beyond<I: Isa>(isa: I, look: &FirstLook, x: &[Self], y: &[Self]) -> u64;
}

// Plain loops over all, which are compiled to wide vectors more surely than others, with maxima of integers in place of
// floats: in the order of their bits magnitudes are as in their own.

#[inline(always)]
fn scan_words(x: &[f64], y: &[f64], _: f64, distances: &mut [u64]) -> Scan<u64> {
    // Instructions compare signed words.
    let (mut largest, mut farthest, mut signs) = (0i64, 0i64, 0);
    for ((out, x), y) in distances.iter_mut().zip(x).zip(y) {
        let (x, y) = (x.to_bits(), y.to_bits());
        largest = largest.max((x & u64::MAGNITUDE) as i64);
        *out = x.near(y);
        farthest = farthest.max(*out as i64);
        signs |= x ^ y;
    }
    let opposite = signs > u64::MAGNITUDE;
    Scan {
        largest: largest as u64,
        smallest: 0,
        farthest: farthest as u64,
        opposite,
        found: None,
        sums: None,
    }
}

/// Differences of close pairs are exact (Sterbenz).
#[inline(always)]
fn scan_f32(x: &[f32], y: &[f32], rel: f64, distances: &mut [u32]) -> Scan<u32> {
    let slope = -narrow_below(rel);
    let (mut largest, mut farthest, mut apart, mut over) = (0, 0, 0, 0);
    for ((out, &x), &y) in distances.iter_mut().zip(x).zip(y) {
        let size = x.to_bits() & u32::MAGNITUDE;
        largest = size.max(largest);
        *out = x.to_bits().near(y.to_bits());
        farthest = farthest.max(*out);
        let d = (x - y).abs();
        apart = d.to_bits().max(apart);
        over = (slope.mul_add(f32::from_bits(size), d).to_bits() as i32).max(over);
    }
    // By their bits alone words of opposite signs are near each other only where one of them is no finite number, from
    // which nothing is a finite distance apart.
    let opposite = apart >= f32::INFINITY.to_bits();
    let found = Some((f64::from(f32::from_bits(apart)), over > 0));
    Scan { largest, smallest: 0, farthest, opposite, found, sums: None }
}

macro_rules! wide {
    ($($t:ty, $word:ty, $lanes:literal, $close:ty, $scan:ident, $look:ident, $limits:ident;)*) => { $(
        impl Real<$lanes> for $t {
            type Word = $word;
            type Close = $close;
            const INFINITY: $word = <$t>::INFINITY.to_bits();
            const NORMAL: $word = <$t>::MIN_POSITIVE.to_bits();
            const FRACTION: u32 = <$t>::MANTISSA_DIGITS - 1;
            const NARROW: bool = false;
            const EXACT_STEPS: $word = 0;

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

            fn word_to(x: f64) -> $word {
                let near = x as $t;
                if f64::from(near) > x { near.next_down().to_bits() } else { near.to_bits() }
            }

            #[inline(always)]
            fn words(slice: &[Self]) -> &[$word] {
                bytemuck::cast_slice(slice)
            }

            #[inline(always)]
            fn scan<I: Isa>(_: I, x: &[Self], y: &[Self], rel: f64, distances: &mut [$word]) -> Scan<$word> {
                $scan(x, y, rel, distances)
            }

            #[inline(always)]
            fn look<I: Isa>(
                isa: I,
                sides: [&[Self]; 2],
                rel: f64,
                distances: &mut [$word],
                ahead: impl Ahead,
            ) -> Scan<$word> {
                $look(isa, sides, rel, distances, ahead)
            }

            #[inline(always)]
            fn with_numbers<I: Isa>(_: I, x: &[Self], y: &[Self], job: impl OnNumbers) -> f64 {
                job.run(x, y)
            }

            #[inline(always)]
            fn add<I: Isa, K: Kind, const JUDGED: bool>(
                isa: I,
                to: &mut Moments,
                sides: [&[Self]; 2],
                seen: Seen,
                _: Narrow,
                ahead: impl FnMut(usize),
            ) -> Found {
                to.add_wide::<I, $t, K, JUDGED>(isa, sides, seen, ahead)
            }

            #[inline(always)]
            fn add_same<I: Isa>(isa: I, to: &mut Moments, x: &[Self]) {
                to.add_same(isa, x);
            }

            #[inline(always)]
            fn beyond<I: Isa>(_: I, look: &FirstLook, x: &[Self], y: &[Self]) -> u64 {
                #[inline(always)]
                fn count<F: Formula<$t>>(limits: Limits<$t>, x: &[$t], y: &[$t]) -> u64 {
                    let mut beyond: [$word; $lanes] = [0; $lanes];
                    let (xs, x_rest) = x.as_chunks::<$lanes>();
                    let (ys, y_rest) = y.as_chunks::<$lanes>();
                    for (x, y) in xs.iter().zip(ys) {
                        for l in 0..$lanes {
                            beyond[l] += <$word>::from(!F::close::<Same>(limits, x[l], y[l]));
                        }
                    }
                    let mut total = 0;
                    for (&x, &y) in x_rest.iter().zip(y_rest) {
                        total += u64::from(!F::close::<Same>(limits, x, y));
                    }
                    for lane in beyond {
                        total += u64::from(lane);
                    }
                    total
                }
                by_rule!(look.rule(), count::<_>(look.$limits(), x, y))
            }
        }
    )* };
}

wide! {
    f64, u64, 8, Close, scan_words, look_f64, limits_f64;
    f32, u32, 16, Known, scan_f32, look_f32, limits_f32;
}

/// A tile as f32, where a vector does not cross the border of two cache lines.
#[repr(align(64))]
struct Widened([f32; LONGEST]);

/// A half type: how its bits become f32.
trait Half: Pod {
    /// Whether squares of its numbers may leave the range of f32.
    const RANGE: bool;
    /// As f32, exactly.
    fn single(self) -> f32;
    /// One unit of one half of some, as f32.
    fn unit<I: Isa>(isa: I, bits: &[u16; 2 * NARROW], half: usize, unit: usize) -> I::Single;

    /// As many as `out` holds as f32, a multiple of [`NARROW`].
    fn widen<I: Isa>(isa: I, half: &[Self], out: &mut [f32]);

    /// A tile.
    #[inline(always)]
    fn tile<I: Isa>(isa: I, half: &[Self]) -> Widened {
        let mut out = Widened([0.0; LONGEST]);
        Self::widen(isa, half, &mut out.0);
        out
    }
}

/// Pairs that are judged at a time: both sides as f32 are a small part of the first-level cache.
const JUDGED: usize = 256;

/// How many pairs are beyond a tolerance, by a rule that rounds its results by `R`, and by `Q` where `y` is smaller than
/// `moderate`, as it nearly always is: that takes a third of the time.
#[inline(always)]
fn beyond_by_rule<F: Formula<f32>, R: Rounding<f32>, Q: Rounding<f32>, H: Half, I: Isa>(
    isa: I,
    (limits, moderate): (Limits<f32>, f32),
    x: &[H],
    y: &[H],
) -> u64 {
    let mut beyond = 0;
    let (xs, x_rest) = x.as_chunks::<JUDGED>();
    let (ys, y_rest) = y.as_chunks::<JUDGED>();
    let (mut x, mut y) = ([0.0; JUDGED], [0.0; JUDGED]);
    for (half_x, half_y) in xs.iter().zip(ys) {
        H::widen(isa, half_x, &mut x);
        H::widen(isa, half_y, &mut y);
        let (mut outside, mut largest) = (0u32, 0u32);
        for (&x, &y) in x.iter().zip(&y) {
            outside += u32::from(!F::close_to_moderate::<Q>(limits, x, y));
            // In the order of their bits magnitudes are as in their own, and NaN is above all.
            largest = largest.max(y.abs().to_bits());
        }
        if largest >= moderate.to_bits() {
            outside = 0;
            for (&x, &y) in x.iter().zip(&y) {
                outside += u32::from(!F::close::<R>(limits, x, y));
            }
        }
        beyond += u64::from(outside);
    }
    for (x, y) in x_rest.iter().zip(y_rest) {
        beyond += u64::from(!F::close::<R>(limits, x.single(), y.single()));
    }
    beyond
}

impl Half for f16 {
    const RANGE: bool = false;

    #[inline(always)]
    fn single(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn unit<I: Isa>(isa: I, bits: &[u16; 2 * NARROW], half: usize, unit: usize) -> I::Single {
        isa.single_f16(bits, half, unit)
    }

    #[inline(always)]
    fn widen<I: Isa>(isa: I, half: &[Self], out: &mut [f32]) {
        let bits: &[u16] = bytemuck::cast_slice(half);
        for (out, bits) in out.as_chunks_mut().0.iter_mut().zip(bits.as_chunks().0) {
            *out = isa.widen_f16(bits);
        }
    }
}

impl Half for bf16 {
    const RANGE: bool = true;

    #[inline(always)]
    fn single(self) -> f32 {
        self.to_f32()
    }

    /// A loop that is plain enough for vectors.
    #[inline(always)]
    fn widen<I: Isa>(_: I, half: &[Self], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(half) {
            *out = f32::from_bits(u32::from(x.to_bits()) << 16);
        }
    }

    #[inline(always)]
    fn unit<I: Isa>(isa: I, bits: &[u16; 2 * NARROW], half: usize, unit: usize) -> I::Single {
        isa.single_bf16(bits, half, unit)
    }
}

macro_rules! half {
    ($($t:ty, $rounding:ty, $quick:ty;)*) => { $(
        impl Real<32> for $t {
            type Word = u16;
            type Close = Close;
            const INFINITY: u16 = <$t>::INFINITY.to_bits();
            const NORMAL: u16 = <$t>::MIN_POSITIVE.to_bits();
            const FRACTION: u32 = <$t>::MANTISSA_DIGITS - 1;
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

            fn word_to(x: f64) -> u16 {
                let near = <$t>::from_f64(x);
                // The bits of numbers that are not negative are in their order.
                if near.to_f64() > x { near.to_bits() - 1 } else { near.to_bits() }
            }

            #[inline(always)]
            fn words(slice: &[Self]) -> &[u16] {
                bytemuck::cast_slice(slice)
            }

            #[inline(always)]
            fn scan<I: Isa>(_: I, x: &[Self], y: &[Self], _: f64, distances: &mut [u16]) -> Scan<u16> {
                let (x, y) = (Self::words(x), Self::words(y));
                let (mut largest, mut smallest, mut farthest) = (0u16, u16::MAGNITUDE, 0u16);
                for ((out, &x), &y) in distances.iter_mut().zip(x).zip(y) {
                    let size = x & u16::MAGNITUDE;
                    largest = largest.max(size);
                    smallest = smallest.min(size);
                    *out = x.near(y);
                    farthest = farthest.max(*out);
                }
                // Words of opposite signs are within a binade of each other only where their magnitudes are as far apart
                // as infinity is from zero: one is NaN or infinite, which `largest` says of A's, and the other below the
                // normal numbers.
                let opposite = smallest < Self::NORMAL
                    && x.iter().zip(y).fold(0, |signs, (x, y)| signs | (x ^ y)) > u16::MAGNITUDE;
                Scan { largest, smallest, farthest, opposite, found: None, sums: None }
            }

            #[inline(always)]
            fn with_numbers<I: Isa>(isa: I, x: &[Self], y: &[Self], job: impl OnNumbers) -> f64 {
                job.run(&Half::tile(isa, x).0, &Half::tile(isa, y).0)
            }

            #[inline(always)]
            fn add<I: Isa, K: Kind, const JUDGED: bool>(
                isa: I,
                to: &mut Moments,
                [x, y]: [&[Self]; 2],
                seen: Seen,
                narrow: Narrow,
                mut ahead: impl FnMut(usize),
            ) -> Found {
                if narrow != Narrow::No {
                    let (tile, mut found) = Moments::of_narrow::<I, K>(
                        isa,
                        [Self::words(x), Self::words(y)],
                        #[inline(always)]
                        |bits, half, unit| <$t as Half>::unit(isa, bits, half, unit),
                        seen,
                        narrow == Narrow::Exact,
                        #[inline(always)]
                        |k| ahead(k),
                    );
                    if !<$t as Half>::RANGE || tile.within_f32() {
                        to.join::<K>(&tile);
                        if JUDGED {
                            let (x, y) = (Half::tile(isa, x), Half::tile(isa, y));
                            let limits = seen.limits.single();
                            found.beyond = Some(halves_beyond::<$quick>(limits, K::CLOSE, &x.0, &y.0));
                        }
                        return found;
                    }
                }
                let (x, y) = (Half::tile(isa, x), Half::tile(isa, y));
                to.add_wide::<I, f32, K::Open, false>(isa, [&x.0, &y.0], seen, ahead)
            }

            #[inline(always)]
            fn add_same<I: Isa>(isa: I, to: &mut Moments, x: &[Self]) {
                to.add_same(isa, &Half::tile(isa, x).0);
            }

            #[inline(always)]
            fn beyond<I: Isa>(isa: I, look: &FirstLook, x: &[Self], y: &[Self]) -> u64 {
                let limits = (look.limits_f32(), look.moderate());
                if look.rounds() {
                    by_rule!(look.rule(), beyond_by_rule::<_, $rounding, $quick, $t, I>(isa, limits, x, y))
                } else {
                    by_rule!(look.rule(), beyond_by_rule::<_, Same, Same, $t, I>(isa, limits, x, y))
                }
            }
        }
    )* };
}

half! {
    f16, ToF16, ModerateF16;
    bf16, ToBf16, ModerateBf16;
}
