//! Kernels for f64. See the parent module for how they are built and what they promise.

#![expect(clippy::unreadable_literal, reason = "coefficients, as the fit printed them")]

/// Horner's rule with fused steps, highest power first. Written out: a loop over so many coefficients stays a loop, and then the
/// loop over the elements is not vectorised.
macro_rules! polynomial {
    ($x:expr, $highest:expr, $($c:expr),+) => {{
        let y: f64 = $highest;
        $(let y = y.mul_add($x, $c);)+
        y
    }};
}

/// 1.5 * 2^52: adding it leaves the nearest integer in the low bits.
const MAGIC: f64 = 6_755_399_441_055_744.0;
/// ln(2) cut to 32 bits, so that its product with an exponent is exact.
const LN2_HI: f64 = 6.931_471_803_691_238e-1;
/// ln(2) - `LN2_HI`.
const LN2_LO: f64 = 1.908_214_929_270_587_7e-10;
/// (e^r - 1 - r) / r^2 for |r| <= ln(2)/2.
#[inline(always)]
fn exp_tail(r: f64) -> f64 {
    polynomial!(
        r,
        2.0826592628699204e-09,
        2.5112143848759223e-08,
        2.7557582613570906e-07,
        2.7557234561527744e-06,
        2.4801586924817075e-05,
        0.00019841269896677028,
        0.0013888888889117155,
        0.00833333333331692,
        0.04166666666666609,
        0.16666666666666682,
        0.5
    )
}
/// (2 atanh(s) / s - 2) / s^2, in powers of s^2, for s = (m - 1) / (m + 1) and m from sqrt(1/2) to sqrt(2).
#[inline(always)]
fn ln_tail(z: f64) -> f64 {
    polynomial!(
        z,
        0.14811333077908992,
        0.15312594226931445,
        0.1818361788515949,
        0.22222197611477407,
        0.2857142875104288,
        0.3999999999937922,
        0.666666666666674
    )
}
/// erf(x) / x - 1, in powers of x^2, for |x| <= 1.
#[inline(always)]
fn erf_tail(z: f64) -> f64 {
    polynomial!(
        z,
        -4.23312952867958e-12,
        8.710465336650472e-11,
        -1.216496861716556e-09,
        1.479246964452013e-08,
        -1.636464955146516e-07,
        1.646204598055763e-06,
        -1.4925647594497853e-05,
        0.000120553329038126,
        -0.0008548327021956025,
        0.005223977625423611,
        -0.026866170645129868,
        0.1128379167095512,
        -0.37612638903183754,
        0.1283791670955126
    )
}
/// -ln(erfc(x)), in powers of x - 2, for x from 1 to 5.95.
#[inline(always)]
fn minus_ln_erfc(t: f64) -> f64 {
    polynomial!(
        t,
        -1.0390755471778685e-12,
        1.0111562698625126e-11,
        -3.736555992144012e-11,
        4.3083704815658556e-11,
        2.743189473698118e-10,
        -2.5391099366122045e-09,
        1.3950638298182675e-08,
        -5.779722807326743e-08,
        1.732048762134681e-07,
        -2.0364249033748114e-07,
        -1.9521937970429293e-06,
        2.0706432542871405e-05,
        -0.0001353093347281452,
        0.0007323993857504161,
        -0.0035707563461564954,
        0.016465118136863573,
        0.9237508418238048,
        4.418160805994417,
        5.364941264616638
    )
}

/// x = n ln(2) + r with |r| <= ln(2)/2, and e^r = 1 + r + t: n as a float and as an integer, r and t.
#[inline(always)]
fn reduce(x: f64) -> (f64, u64, f64, f64) {
    let shifted = x.mul_add(std::f64::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    // The difference is exact, so what r loses of it can go into t.
    let wide = n.mul_add(-LN2_HI, x);
    let r = n.mul_add(-LN2_LO, wide);
    let lost = n.mul_add(-LN2_LO, wide - r);
    (n, shifted.to_bits().wrapping_sub(MAGIC.to_bits()), r, (r * r).mul_add(exp_tail(r), lost))
}

/// 2^n for a normal result; `n` in two's complement.
#[inline(always)]
fn power_of_two(n: u64) -> f64 {
    f64::from_bits(n.wrapping_add(1023) << 52)
}

/// e^x. Error below 1 ulp; denormal results are rounded as others are.
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    // Beyond these limits the result is 0 or infinity anyway; NaN passes.
    let x = x.clamp(-746.0, 710.0);
    let (_, n, r, t) = reduce(x);
    // 1 + r + t, with what the first sum loses added to the second.
    let y = 1.0 + r;
    let y = y + (((1.0 - y) + r) + t);
    // In two steps, because 2^n alone may be out of range where the result is not. Biased and shifted as unsigned,
    // for want of an arithmetic shift of 64 bits in AVX2.
    let half = (n.wrapping_add(2048) >> 1).wrapping_sub(1024);
    y * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// e^x - 1. Error below 1.5 ulp.
#[inline(always)]
pub fn exp_m1(x: f64) -> f64 {
    let x_in = x.clamp(-40.0, 710.0);
    let (n, bits, r, t) = reduce(x_in);
    // 2^(n-1) instead of 2^n, which overflows before the result does. The sum of (2^n - 1) / 2 and 2^(n-1) r is
    // taken with what it loses, since the two may nearly cancel; the first is 0 or the larger.
    let half = power_of_two(bits.wrapping_sub(1));
    let (a, b) = (half - 0.5, half * r);
    let sum = a + b;
    let y = 2.0 * (sum + half.mul_add(t, (a - sum) + b));
    // Denormal arguments would lose a bit to the halving.
    let y = if n == 0.0 { r + t } else { y };
    y.copysign(x)
}

/// ln(x); NaN below 0. Error below 1 ulp.
#[inline(always)]
pub fn ln(x: f64) -> f64 {
    /// Bits of sqrt(1/2): where the exponent of the reduced argument changes.
    const SPLIT: u64 = 0x3fe6_a09e_667f_3bcd;
    /// Bits of 2^52, whose low bits hold an integer as they are.
    const INTEGER: u64 = 0x4330_0000_0000_0000;
    let small = x < f64::MIN_POSITIVE;
    let scaled = if small { x * 4_503_599_627_370_496.0 } else { x };
    let shift = if small { -52.0 } else { 0.0 };
    // Biased by 1024 to stay positive: AVX2 has neither an arithmetic shift of 64 bits nor their conversion.
    let exponent = scaled.to_bits().wrapping_sub(SPLIT).wrapping_add(1024 << 52) >> 52;
    let m = f64::from_bits(scaled.to_bits().wrapping_sub(exponent.wrapping_sub(1024) << 52));
    let e = f64::from_bits(exponent | INTEGER) - (4_503_599_627_370_496.0 + 1024.0) + shift;
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let half_square = 0.5 * f * f;
    let tail = s.mul_add(z.mul_add(ln_tail(z), half_square), e * LN2_LO);
    let y = e.mul_add(LN2_HI, f - (half_square - tail));
    let y = if x == 0.0 { f64::NEG_INFINITY } else { y };
    let y = if x < 0.0 { f64::NAN } else { y };
    // Infinity and NaN are their own logarithms here.
    if x < f64::INFINITY { y } else { x }
}

/// tanh(x). Error below 2 ulp.
#[inline(always)]
pub fn tanh(x: f64) -> f64 {
    let a = x.abs();
    let t = exp_m1(2.0 * if a > 22.0 { 22.0 } else { a });
    // t / (t + 2), once more by Newton, with what the divisor lost when it was rounded.
    let divisor = t + 2.0;
    let lost = t - (divisor - 2.0);
    let inverse = 1.0 / divisor;
    let quotient = t * inverse;
    let rest = (-quotient).mul_add(divisor, t) - quotient * lost;
    rest.mul_add(inverse, quotient).copysign(x)
}

/// The error function. Error below 2 ulp.
#[inline(always)]
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    let small = a.mul_add(erf_tail(a * a), a);
    let t = if a > 5.95 { 5.95 } else { a } - 2.0;
    let large = 1.0 - exp(-minus_ln_erfc(t));
    (if a < 1.0 { small } else { large }).copysign(x)
}
