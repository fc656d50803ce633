//! Kernels for f32. See the parent module for how they are built and what they promise.

#![expect(clippy::unreadable_literal, reason = "coefficients, as the fit printed them")]

/// Horner's rule with fused steps, highest power first. Written out: a loop over so many coefficients stays a loop, and then the
/// loop over the elements is not vectorised.
macro_rules! polynomial {
    ($x:expr, $highest:expr, $($c:expr),+) => {{
        let y: f32 = $highest;
        $(let y = y.mul_add($x, $c);)+
        y
    }};
}

/// 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
const MAGIC: f32 = 12_582_912.0;
/// ln(2) cut to 10 bits, so that its product with an exponent is exact.
const LN2_HI: f32 = 0.693_359_4;
/// ln(2) - `LN2_HI`.
const LN2_LO: f32 = -2.121_944_4e-4;
/// (e^r - 1 - r) / r^2 for |r| <= ln(2)/2.
#[inline(always)]
fn exp_tail(r: f32) -> f32 {
    polynomial!(r, 1.3836805e-03, 8.369142e-03, 4.1668106e-02, 1.6666517e-01, 4.9999994e-01)
}
/// (2 atanh(s) / s - 2) / s^2, in powers of s^2, for s = (m - 1) / (m + 1) and m from sqrt(1/2) to sqrt(2).
#[inline(always)]
fn ln_tail(z: f32) -> f32 {
    polynomial!(z, 2.4267921e-01, 2.8499177e-01, 4.000097e-01, 6.666666e-01)
}
/// (tanh(x) - x) / x^3, in powers of x^2, for |x| <= 0.625.
#[inline(always)]
fn tanh_tail(z: f32) -> f32 {
    polynomial!(z, 2.1576162e-03, -8.195074e-03, 2.1708747e-02, -5.3948462e-02, 1.3333222e-01, -3.333333e-01)
}
/// erf(x) / x - 1, in powers of x^2, for |x| <= 1.
#[inline(always)]
fn erf_tail(z: f32) -> f32 {
    polynomial!(
        z,
        7.920303e-05,
        -8.0307503e-04,
        5.1907334e-03,
        -2.6855126e-02,
        1.1283618e-01,
        -3.761263e-01,
        1.2837917e-01
    )
}
/// -ln(erfc(x)), in powers of x - 2, for x from 0.921875 to 3.93.
#[inline(always)]
fn minus_ln_erfc(t: f32) -> f32 {
    polynomial!(
        t,
        1.27985195e-05,
        -1.6273619e-04,
        7.119804e-04,
        -3.5637768e-03,
        1.6478391e-02,
        9.237545e-01,
        4.4181604e+00,
        5.364941e+00
    )
}

/// x = n ln(2) + r with |r| <= ln(2)/2, and e^r = 1 + r + t: n as a float and as an integer, r and t.
#[inline(always)]
fn reduce(x: f32) -> (f32, u32, f32, f32) {
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    // The difference is exact, so what r loses of it can go into t.
    let wide = n.mul_add(-LN2_HI, x);
    let r = n.mul_add(-LN2_LO, wide);
    let lost = n.mul_add(-LN2_LO, wide - r);
    (n, shifted.to_bits().wrapping_sub(MAGIC.to_bits()), r, (r * r).mul_add(exp_tail(r), lost))
}

/// 2^n for a normal result; `n` in two's complement.
#[inline(always)]
fn power_of_two(n: u32) -> f32 {
    f32::from_bits(n.wrapping_add(127) << 23)
}

/// e^x. Error below 1 ulp; denormal results are rounded as others are.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Beyond these limits the result is 0 or infinity anyway; NaN passes.
    let x = x.clamp(-105.0, 89.0);
    let (_, n, r, t) = reduce(x);
    // 1 + r + t, with what the first sum loses added to the second.
    let y = 1.0 + r;
    let y = y + (((1.0 - y) + r) + t);
    // In two steps, because 2^n alone may be out of range where the result is not.
    let half = ((n as i32) >> 1) as u32;
    y * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// e^x - 1. Error below 1.5 ulp.
#[inline(always)]
pub fn exp_m1(x: f32) -> f32 {
    let x_in = x.clamp(-20.0, 89.0);
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
pub fn ln(x: f32) -> f32 {
    /// Bits of sqrt(1/2): where the exponent of the reduced argument changes.
    const SPLIT: u32 = 0x3f35_04f3;
    let small = x < f32::MIN_POSITIVE;
    let scaled = if small { x * 8_388_608.0 } else { x };
    let shift = if small { -23.0 } else { 0.0 };
    let exponent = (scaled.to_bits().wrapping_sub(SPLIT) as i32) >> 23;
    let m = f32::from_bits(scaled.to_bits().wrapping_sub((exponent as u32) << 23));
    let e = exponent as f32 + shift;
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let half_square = 0.5 * f * f;
    let tail = s.mul_add(z.mul_add(ln_tail(z), half_square), e * LN2_LO);
    let y = e.mul_add(LN2_HI, f - (half_square - tail));
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    let y = if x < 0.0 { f32::NAN } else { y };
    // Infinity and NaN are their own logarithms here.
    if x < f32::INFINITY { y } else { x }
}

/// tanh(x). Error below 1.5 ulp.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = a * a;
    let small = (a * z).mul_add(tanh_tail(z), a);
    let large = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    (if a < 0.625 { small } else { large }).copysign(x)
}

/// The error function. Error below 1.5 ulp.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let small = a.mul_add(erf_tail(a * a), a);
    let t = if a > 3.93 { 3.93 } else { a } - 2.0;
    let large = 1.0 - exp(-minus_ln_erfc(t));
    (if a < 1.0 { small } else { large }).copysign(x)
}
