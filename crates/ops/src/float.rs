use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use isotrace_tensor::Element;

use crate::math;

/// The float types kernels are written for: f32 and f64.
///
/// `exp`, `exp_m1`, `ln`, `tanh` and `erf` are the branch-free kernels of [`math`]: the same bits wherever they are called, and
/// fast where the loop around them is vectorised ([`math::map`], [`math::vectorise`]).
pub trait Float:
    Element
    + PartialOrd
    + Default
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + std::iter::Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// Not a number.
    const NAN: Self;
    /// Nearest number to an f64.
    fn of(x: f64) -> Self;
    /// As f64, exactly.
    fn wide(self) -> f64;
    /// Absolute value.
    #[must_use]
    fn abs(self) -> Self;
    /// Square root, correctly rounded.
    #[must_use]
    fn sqrt(self) -> Self;
    /// This times `a` plus `b`, rounded once.
    #[must_use]
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// e to this power.
    #[must_use]
    fn exp(self) -> Self;
    /// e to this power, less 1.
    #[must_use]
    fn exp_m1(self) -> Self;
    /// Natural logarithm.
    #[must_use]
    fn ln(self) -> Self;
    /// Hyperbolic tangent.
    #[must_use]
    fn tanh(self) -> Self;
    /// Error function.
    #[must_use]
    fn erf(self) -> Self;
    /// This to the power `p`.
    #[must_use]
    fn powf(self, p: Self) -> Self;
    /// The larger; NaN if either is.
    #[must_use]
    fn max_nan(self, other: Self) -> Self;
    /// The smaller; NaN if either is.
    #[must_use]
    fn min_nan(self, other: Self) -> Self;
    /// Whether this is NaN.
    fn is_nan(self) -> bool;

    /// 1 / (1 + exp(-x)).
    #[must_use]
    #[inline(always)]
    fn sigmoid(self) -> Self {
        // exp(-|x|) never overflows, and the numerator keeps the relative accuracy of the left tail.
        let z = (-self.abs()).exp();
        let top = if self < Self::ZERO { z } else { Self::ONE };
        // The quotient once more by Newton, with what the divisor lost when it was rounded.
        let divisor = Self::ONE + z;
        let lost = z - (divisor - Self::ONE);
        let inverse = Self::ONE / divisor;
        let quotient = top * inverse;
        let rest = (-quotient).mul_add(divisor, top) - quotient * lost;
        rest.mul_add(inverse, quotient)
    }

    /// ln(1 + exp(x)).
    #[must_use]
    #[inline(always)]
    fn softplus(self) -> Self {
        // ln(1 + z) = ln(s) + (z - (s - 1)) / s with s = 1 + z as rounded: the second term gives back what s lost.
        let z = (-self.abs()).exp();
        let s = Self::ONE + z;
        self.max_nan(Self::ZERO) + (s.ln() + (z - (s - Self::ONE)) / s)
    }
}

macro_rules! float {
    ($t:ident, $math:path) => {
        impl Float for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const INFINITY: Self = $t::INFINITY;
            const NAN: Self = $t::NAN;
            #[inline(always)]
            fn of(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn wide(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $t::abs(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                $t::mul_add(self, a, b)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                use $math as m;
                m::exp(self)
            }
            #[inline(always)]
            fn exp_m1(self) -> Self {
                use $math as m;
                m::exp_m1(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                use $math as m;
                m::ln(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                use $math as m;
                m::tanh(self)
            }
            #[inline(always)]
            fn erf(self) -> Self {
                use $math as m;
                m::erf(self)
            }
            #[inline(always)]
            fn powf(self, p: Self) -> Self {
                $t::powf(self, p)
            }
            #[inline(always)]
            fn max_nan(self, other: Self) -> Self {
                if self > other || self.is_nan() { self } else { other }
            }
            #[inline(always)]
            fn min_nan(self, other: Self) -> Self {
                if self < other || self.is_nan() { self } else { other }
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                $t::is_nan(self)
            }
        }
    };
}

float!(f32, math::single);
float!(f64, math::double);
