//! The half types nearest to a number in f64, ties to even.
//!
//! `half`'s own `from_f64` looks at the upper half of the f64 alone: what lies just beyond the middle of two neighbours
//! is taken for the middle. Of f32 numbers one in 19,000 goes to the wrong neighbour in bf16: 7 of the 65,536 patterns of
//! the bits that are dropped lie beyond the middle by no more than the three that are not looked at, and half of those
//! have the even neighbour on the wrong side.

use half::{bf16, f16};

/// The f16 nearest to `x`.
#[inline]
pub fn nearest_f16(x: f64) -> f16 {
    f16::from_f32(to_odd(x))
}

/// The bf16 nearest to `x`.
#[inline]
pub fn nearest_bf16(x: f64) -> bf16 {
    bf16::from_f32(to_odd(x))
}

/// `x` in f32, where it does not fit rounded to the neighbour whose last bit is odd: a second rounding, to a type of at
/// least two bits fewer, then gives what one alone would have (Boldo and Melquiond 2008).
#[inline]
fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    let bits = near.to_bits();
    if back == x || bits & 1 == 1 || !x.is_finite() {
        return near;
    }
    // An even neighbour of a number between two: the odd one is on the other side.
    f32::from_bits(if back.abs() > x.abs() { bits - 1 } else { bits + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: of the neighbours below and above the nearer one, the even one at the same distance.
    fn by_definition(x: f64, value: impl Fn(u16) -> f64, infinity: u16) -> u16 {
        let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
        let x = x.abs();
        // Beyond the largest number the format goes on as if its exponent did.
        let at = |code: u16| {
            if code < infinity { value(code) } else { 2.0 * value(infinity - 1) - value(infinity - 2) }
        };
        let (mut below, mut above) = (0, infinity);
        while above - below > 1 {
            let middle = below.midpoint(above);
            *if at(middle) <= x { &mut below } else { &mut above } = middle;
        }
        let (down, up) = (x - at(below), at(below + 1) - x);
        let up = down > up || down == up && below & 1 == 1;
        sign | (below + u16::from(up))
    }

    fn check(x: f64) {
        let (h, b) = (nearest_f16(x), nearest_bf16(x));
        let expected = by_definition(x, |c| f16::from_bits(c).to_f64(), 0x7c00);
        assert_eq!(h.to_bits(), expected, "f16 of {x:e}");
        let expected = by_definition(x, |c| bf16::from_bits(c).to_f64(), 0x7f80);
        assert_eq!(b.to_bits(), expected, "bf16 of {x:e}");
    }

    #[test]
    fn beside_the_middle_of_two_neighbours_the_nearer_one() {
        for code in (0..0x7c00u16).step_by(37).chain([0, 1, 2, 0x3ff, 0x400, 0x7bfe]) {
            for value in [f16::from_bits(code).to_f64(), bf16::from_bits(code).to_f64()] {
                for next in [f16::from_bits(code + 1).to_f64(), bf16::from_bits(code + 1).to_f64()] {
                    let middle = f64::midpoint(value, next);
                    for x in [value, middle, middle.next_up(), middle.next_down(), f64::from(middle as f32)] {
                        check(x);
                        check(-x);
                    }
                }
            }
        }
        for x in [65519.999, 65520.0, 1e300, 3.3895e38, 3.4e38, 1e-50, 0.0, f64::INFINITY, f64::MIN_POSITIVE]
        {
            check(x);
        }
        assert!(nearest_f16(f64::NAN).is_nan() && nearest_bf16(f64::NAN).is_nan());
    }

    proptest! {
        #[test]
        fn any_number_goes_to_the_nearest(bits: u64, exponent in -140i32..130) {
            let fraction = f64::from_bits(bits & 0x800f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
            check(fraction * 2f64.powi(exponent));
        }
    }
}
