#![expect(
    clippy::redundant_closure,
    reason = "a function passed by name is called through a shim, which is not inlined for certain"
)]
use std::fmt::Write;

use super::*;
use crate::Float;

/// Distance in units in the last place of the f32 nearest to `exact`.
fn ulps_single(got: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    if nearest.is_nan() || got.is_nan() || nearest.is_infinite() || got.is_infinite() {
        let same = nearest.is_nan() && got.is_nan() || nearest == got;
        return if same { 0.0 } else { f64::INFINITY };
    }
    let exponent = exact.abs().log2().floor().clamp(-126.0, 127.0);
    (f64::from(got) - exact).abs() / (exponent - 23.0).exp2()
}

/// Distance in representable numbers.
fn ulps_double(got: f64, expected: f64) -> f64 {
    if got.is_nan() && expected.is_nan() || got == expected {
        return 0.0;
    }
    let line = |x: f64| {
        let bits = x.to_bits() as i64;
        if bits < 0 { i64::MIN.wrapping_sub(bits) } else { bits }
    };
    if got.is_nan() || expected.is_nan() { f64::INFINITY } else { line(got).abs_diff(line(expected)) as f64 }
}

struct Case {
    name: &'static str,
    single: fn(f32) -> f32,
    double: fn(f64) -> f64,
    /// A reference in f64, taken as exact for f32 and as within one or two ulps for f64.
    exact: fn(f64) -> f64,
    /// Most ulps allowed: f32, f64.
    most: (f64, f64),
}

const CASES: [Case; 7] = [
    Case { name: "exp", single: Float::exp, double: Float::exp, exact: f64::exp, most: (1.0, 1.0) },
    Case {
        name: "exp_m1",
        single: Float::exp_m1,
        double: Float::exp_m1,
        exact: f64::exp_m1,
        most: (1.5, 2.0),
    },
    Case { name: "ln", single: Float::ln, double: Float::ln, exact: f64::ln, most: (1.0, 1.0) },
    Case { name: "tanh", single: Float::tanh, double: Float::tanh, exact: libm::tanh, most: (1.5, 3.0) },
    Case { name: "erf", single: Float::erf, double: Float::erf, exact: libm::erf, most: (1.5, 2.0) },
    Case {
        name: "sigmoid",
        single: Float::sigmoid,
        double: Float::sigmoid,
        exact: |x| {
            if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
        },
        most: (1.5, 3.0),
    },
    Case {
        name: "softplus",
        single: Float::softplus,
        double: Float::softplus,
        exact: |x| x.max(0.0) + (-x.abs()).exp().ln_1p(),
        most: (2.0, 3.0),
    },
];

const SPECIAL: [f64; 20] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    0.625,
    -0.625,
    0.921_875,
    f64::INFINITY,
    f64::NEG_INFINITY,
    88.72283,
    88.7229,
    -87.34,
    -103.9,
    -104.1,
    709.782,
    709.79,
    -745.1,
    -745.2,
    1e30,
];

/// Every exponent and sign, denormals and NaN among them.
fn singles() -> impl Iterator<Item = f32> {
    let stride = 1009;
    (0..=u32::MAX / stride).map(move |i| f32::from_bits(i * stride)).chain(SPECIAL.map(|x| x as f32))
}

/// As [`singles`], with the exponents where something happens more densely.
fn doubles() -> impl Iterator<Item = f64> {
    let all = (0..200_000u64).map(|i| f64::from_bits(i.wrapping_mul(0x0000_5432_1fed_cba9)));
    let dense = (-400_000..400_000).map(|i| f64::from(i) * 0.000_051_234_567_891);
    let wide = (-100_000..100_000).map(|i| f64::from(i) * 0.007_612_345_678_9);
    all.chain(dense).chain(wide).chain(SPECIAL).chain([f64::NAN, 5e-324, f64::MIN_POSITIVE, f64::MAX])
}

#[test]
fn single_against_double() {
    let mut report = String::new();
    let mut failed = false;
    for Case { name, single, exact, most, .. } in &CASES {
        let (mut worst, mut at) = (0.0, 0.0);
        for x in singles() {
            let d = ulps_single(single(x), exact(f64::from(x)));
            if d > worst {
                (worst, at) = (d, x);
            }
        }
        failed |= worst > most.0;
        writeln!(report, "{name}: {worst:.3} ulp at {at:e}, allowed {}", most.0).unwrap();
    }
    assert!(!failed, "{report}");
}

#[test]
fn double_against_the_library() {
    let mut report = String::new();
    let mut failed = false;
    for Case { name, double, exact, most, .. } in &CASES {
        let (mut worst, mut at) = (0.0, 0.0);
        for x in doubles() {
            let d = ulps_double(double(x), exact(x));
            if d > worst {
                (worst, at) = (d, x);
            }
        }
        failed |= worst > most.1;
        writeln!(report, "{name}: {worst} ulp at {at:e}, allowed {}", most.1).unwrap();
    }
    assert!(!failed, "{report}");
}

#[test]
fn the_place_in_a_slice_does_not_matter() {
    let x: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) * 0.03).collect();
    let whole = [
        map(
            &x,
            #[inline(always)]
            |x| Float::exp(x),
        ),
        map(
            &x,
            #[inline(always)]
            |x| Float::tanh(x),
        ),
        map(
            &x,
            #[inline(always)]
            |x| Float::erf(x),
        ),
        map(
            &x,
            #[inline(always)]
            |x| Float::softplus(x),
        ),
    ];
    for start in [0, 1, 3, 17, 991, 999] {
        let part = &x[start..];
        let parts = [
            map(
                part,
                #[inline(always)]
                |x| Float::exp(x),
            ),
            map(
                part,
                #[inline(always)]
                |x| Float::tanh(x),
            ),
            map(
                part,
                #[inline(always)]
                |x| Float::erf(x),
            ),
            map(
                part,
                #[inline(always)]
                |x| Float::softplus(x),
            ),
        ];
        for (whole, part) in whole.iter().zip(parts) {
            assert_eq!(whole[start..], part);
        }
        // Outside vector code the bits are the same.
        assert_eq!(part.iter().map(|&x| Float::exp(x)).collect::<Vec<f32>>(), whole[0][start..]);
    }
}

#[test]
fn rows_are_summed_in_one_order() {
    let x: Vec<f32> = (0..5000).map(|i| (i as f32 * 0.7).sin()).collect();
    for len in [0, 1, 31, 32, 33, 4999] {
        let exact: f64 = x[..len].iter().map(|&x| f64::from(x)).sum();
        let inside = vectorise(
            #[inline(always)]
            || {
                row::sum(
                    &x[..len],
                    #[inline(always)]
                    |x| x,
                )
            },
        );
        assert_eq!(inside.to_bits(), row::sum(&x[..len], |x| x).to_bits());
        assert!((f64::from(inside) - exact).abs() < 1e-4, "{len}");
        let largest = x[..len].iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(row::max(&x[..len]), largest);
    }
    assert!(row::max(&[1.0, f32::NAN, 2.0]).is_nan());
}
