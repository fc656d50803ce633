//! The rules of other tools in the arithmetic of the elements themselves, a vector at a time.
//!
//! Where both tensors hold one float type, every step of a rule is one operation of f32 or f64, or such an operation
//! rounded to a half type, and so are the tools' own. What is counted here is therefore exactly what
//! `judge::Steps` says element by element for any two types; the tests hold one against the other.

use crate::judge::Rule;

/// Rounds a result to the type of the elements.
pub(crate) trait Rounding<N> {
    /// The nearest number of the type, ties to even.
    fn round(x: N) -> N;
}

/// What a rule allows whose results are rounded to a half type, without the roundings.
pub(crate) trait Around {
    /// Whether it saves anything: not where a number in a hundred may lie between them.
    const BAND: bool;

    /// Between which limits, in plain f32, the rule decides by rounding; `exact` says that differences are not rounded.
    ///
    /// With u the unit roundoff and t half the smallest number of the type, what is allowed is rounded twice, to within
    /// 2u + u² of it and 2t + ut, and a difference once, to within u of it and t. One rounding in f32 is a part of u
    /// that the factor 1.02 makes room for.
    fn around(limits: Limits<f32>, exact: bool) -> [Limits<f32>; 2];
}

/// The type of the elements is that of the arithmetic.
pub(crate) struct Same;
/// f16, computed in f32.
pub(crate) struct ToF16;
/// bf16, computed in f32.
pub(crate) struct ToBf16;

impl<N> Rounding<N> for Same {
    #[inline(always)]
    fn round(x: N) -> N {
        x
    }
}

/// The f32 that is nearest with `BITS` bits fewer, a tie to the even one, where it is a normal number.
#[inline(always)]
fn shorter<const BITS: u32>(magnitude: u32) -> u32 {
    let half = (1 << (BITS - 1)) - 1;
    (magnitude + half + (magnitude >> BITS & 1)) & !((1 << BITS) - 1)
}

impl Rounding<f32> for ToF16 {
    #[inline(always)]
    fn round(x: f32) -> f32 {
        let (bits, sign) = (x.to_bits() & 0x7fff_ffff, x.to_bits() & 0x8000_0000);
        // Below 2^-14 the steps are 2^-24 all the way down, as those of f32 are from 1/2 to 1.
        let denormal = ((f32::from_bits(bits) + 0.5) - 0.5).to_bits();
        let normal = shorter::<13>(bits);
        let normal = if normal >= 65536f32.to_bits() { f32::INFINITY.to_bits() } else { normal };
        let rounded = if bits < 113 << 23 { denormal } else { normal };
        let rounded = if bits > f32::INFINITY.to_bits() { bits } else { rounded };
        f32::from_bits(rounded | sign)
    }
}

impl Rounding<f32> for ToBf16 {
    #[inline(always)]
    fn round(x: f32) -> f32 {
        let (bits, sign) = (x.to_bits() & 0x7fff_ffff, x.to_bits() & 0x8000_0000);
        // The carry out of the largest number gives infinity, and denormal numbers have the same steps.
        let rounded = if bits > f32::INFINITY.to_bits() { bits } else { shorter::<16>(bits) };
        f32::from_bits(rounded | sign)
    }
}

/// The nearest number of a type with `DROPPED` bits of significand less than f32 and no exponent below that of
/// 2^(`LEAST` - 127), of a number from 0 to 2^100, in four instructions. Larger ones stay larger than 2^100, or are NaN.
///
/// To a power of two whose neighbours are as far apart as those of the result, the number is added and taken away
/// again: the addition rounds it, ties to even. Below the least exponent the steps are the same all the way down.
#[inline(always)]
fn by_addition<const DROPPED: u32, const LEAST: u32>(x: f32) -> f32 {
    let least = f32::from_bits(LEAST << 23);
    let own = f32::from_bits(x.to_bits() & 0x7f80_0000);
    let power = if own > least { own } else { least };
    let up = f32::from_bits((127 + DROPPED) << 23);
    power.mul_add(-up, power.mul_add(up, x))
}

/// What [`by_addition`] rounds rightly.
pub(crate) const MODERATE: f64 = 1e30;

/// [`ToF16`] of numbers that are not negative, and below [`MODERATE`]; it knows no overflow.
pub(crate) struct ModerateF16;
/// [`ToBf16`] of the same.
pub(crate) struct ModerateBf16;

impl Rounding<f32> for ModerateF16 {
    #[inline(always)]
    fn round(x: f32) -> f32 {
        by_addition::<13, 113>(x)
    }
}

impl Rounding<f32> for ModerateBf16 {
    #[inline(always)]
    fn round(x: f32) -> f32 {
        by_addition::<16, 1>(x)
    }
}

macro_rules! around {
    ($($name:ty: $band:literal, $unit:literal, $least:literal;)*) => { $(
        impl Around for $name {
            const BAND: bool = $band;

            #[inline(always)]
            fn around(Limits { rtol, atol }: Limits<f32>, exact: bool) -> [Limits<f32>; 2] {
                const UNIT: f64 = 1.0 / (1u64 << $unit) as f64;
                let tiny = f64::from_bits((1023 - $least) << 52);
                let (relative, absolute) = if exact { (2.0 * UNIT, tiny) } else { (3.0 * UNIT, 1.5 * tiny) };
                [-1.02, 1.02].map(|sign| {
                    let factor = 1.0 + sign * relative;
                    let atol = f64::from(atol) * factor + sign * absolute;
                    Limits { rtol: (f64::from(rtol) * factor) as f32, atol: atol as f32 }
                })
            }
        }
    )* };
}

around! {
    ModerateF16: true, 11, 24;
    ModerateBf16: false, 8, 133;
}

impl Limits<f32> {
    /// Whether what is allowed for `y` is below a difference.
    #[inline(always)]
    pub fn below(self, d: f32, y: f32) -> bool {
        d > self.rtol.mul_add(y.abs(), self.atol)
    }
}

/// A rule's tolerances in the type of the arithmetic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits<N> {
    pub rtol: N,
    pub atol: N,
}

/// A rule.
pub(crate) trait Formula<N> {
    /// Whether a pair is within, by a rule whose results are rounded by `R`.
    fn close<R: Rounding<N>>(limits: Limits<N>, x: N, y: N) -> bool;

    /// The same where y is finite and nothing that is allowed overflows.
    #[inline(always)]
    fn close_to_moderate<R: Rounding<N>>(limits: Limits<N>, x: N, y: N) -> bool {
        Self::close::<R>(limits, x, y)
    }
}

/// [`Rule::Torch`].
pub(crate) struct Torch;
/// [`Rule::Numpy`].
pub(crate) struct Numpy;
/// [`Rule::Polygraphy`].
pub(crate) struct Polygraphy;

/// Does something by a rule: `$job::<Torch>` or another, called with arguments. What is inlined for certain is not a
/// closure, therefore this is a macro.
macro_rules! by_rule {
    ($rule:expr, $job:ident::<_ $(, $more:ty)*>($($argument:expr),*)) => {
        match $rule {
            $crate::judge::Rule::Torch => $job::<$crate::native::Torch $(, $more)*>($($argument),*),
            $crate::judge::Rule::Numpy => $job::<$crate::native::Numpy $(, $more)*>($($argument),*),
            $crate::judge::Rule::Polygraphy => $job::<$crate::native::Polygraphy $(, $more)*>($($argument),*),
        }
    };
}
pub(crate) use by_rule;

macro_rules! formulas {
    ($($n:ty)*) => { $(
        impl Limits<$n> {
            /// Tolerances as the rule's own tool holds them, in f64.
            pub fn new(rule: Rule, rtol: f64, atol: f64) -> Self {
                // Polygraphy compares with f64: that is to compare with the number below.
                let of = |x: f64| {
                    let near = x as $n;
                    if rule == Rule::Polygraphy && f64::from(near) > x { near.next_down() } else { near }
                };
                Self { rtol: of(rtol), atol: of(atol) }
            }
        }

        impl Formula<$n> for Torch {
            #[inline(always)]
            fn close<R: Rounding<$n>>(Limits { rtol, atol }: Limits<$n>, x: $n, y: $n) -> bool {
                let d = R::round((x - y).abs());
                let limit = R::round(atol + R::round((rtol * y).abs()));
                (x == y) | ((d < <$n>::INFINITY) & (d <= limit))
            }

            /// Equal numbers are 0 apart, and an infinite difference is beyond a finite limit.
            #[inline(always)]
            fn close_to_moderate<R: Rounding<$n>>(Limits { rtol, atol }: Limits<$n>, x: $n, y: $n) -> bool {
                R::round((x - y).abs()) <= R::round(atol + R::round(rtol * y.abs()))
            }
        }

        impl Formula<$n> for Numpy {
            #[inline(always)]
            fn close<R: Rounding<$n>>(Limits { rtol, atol }: Limits<$n>, x: $n, y: $n) -> bool {
                let d = R::round((x - y).abs());
                let limit = R::round(atol + R::round(rtol * y.abs()));
                (x == y) | ((y.abs() < <$n>::INFINITY) & (d <= limit))
            }

            /// Equal numbers are 0 apart, and an infinite difference is beyond a finite limit.
            #[inline(always)]
            fn close_to_moderate<R: Rounding<$n>>(Limits { rtol, atol }: Limits<$n>, x: $n, y: $n) -> bool {
                R::round((x - y).abs()) <= R::round(atol + R::round(rtol * y.abs()))
            }
        }

        impl Formula<$n> for Polygraphy {
            #[inline(always)]
            fn close<R: Rounding<$n>>(Limits { rtol, atol }: Limits<$n>, x: $n, y: $n) -> bool {
                let d = R::round((x - y).abs());
                let size = if y == 0.0 { f64::EPSILON as $n } else { y.abs() };
                (d <= atol) | (R::round(d / size) <= rtol)
            }
        }
    )* };
}

formulas!(f32 f64);

impl Limits<f64> {
    /// The same in f32, where they are numbers of it, or nearly.
    #[inline(always)]
    pub fn single(self) -> Limits<f32> {
        Limits { rtol: self.rtol as f32, atol: self.atol as f32 }
    }
}

#[cfg(test)]
mod tests {
    use isotrace_tensor::{bf16, f16};

    use super::*;

    /// What is rounded quickly is rounded rightly, or is far beyond what anything is held against.
    fn agrees(x: f32, quick: f32, right: f32) {
        if x >= 0.0 && f64::from(x) < MODERATE && right.is_finite() {
            assert!(quick == right, "{x:e}: {quick:e} {right:e}");
        } else if x >= 0.0 {
            assert!(quick.is_nan() || quick >= 65504.0 && quick >= x / 2.0, "{x:e}: {quick:e}");
        }
    }

    /// Every f16 and every bf16, the middles between neighbours, and what lies next to those.
    #[test]
    fn rounding_is_that_of_the_types() {
        for bits in 0..=u16::MAX {
            for low in [0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(bits) << 16 | low);
                let (half, brain) = (f16::from_f32(x).to_f32(), bf16::from_f32(x).to_f32());
                let (a, b) = (ToF16::round(x), ToBf16::round(x));
                agrees(x, ModerateF16::round(x), a);
                agrees(x, ModerateBf16::round(x), b);
                assert!(
                    a.to_bits() == half.to_bits() || x.is_nan() && a.is_nan(),
                    "f16 {x:e}: {a:e} {half:e}"
                );
                assert!(
                    b.to_bits() == brain.to_bits() || x.is_nan() && b.is_nan(),
                    "bf16 {x:e}: {b:e} {brain:e}"
                );
            }
        }
        for bits in 0..=u16::MAX {
            let x = f16::from_bits(bits).to_f32();
            for x in [x, x.next_up(), x.next_down(), x * (1.0 + 1.0 / 4096.0), x * (1.0 + 1.0 / 2048.0)] {
                let half = f16::from_f32(x).to_f32();
                let a = ToF16::round(x);
                agrees(x, ModerateF16::round(x), a);
                assert!(
                    a.to_bits() == half.to_bits() || x.is_nan() && a.is_nan(),
                    "f16 {x:e}: {a:e} {half:e}"
                );
            }
        }
    }
}
