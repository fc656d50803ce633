//! Judgements of whole tensors against the formula, element by element.

use isotrace_compare::{Rule, Tolerance, examine, judge};
use isotrace_tensor::{Element, Tensor, bf16, f16};

/// From -0.5 to 0.5, by a hash of the place.
fn noise(i: usize) -> f64 {
    ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / f64::from(1 << 24) - 0.5
}

fn held<T: Element>(n: usize, unit: f64, of: impl Fn(f64) -> T) {
    let shape = |v: Vec<T>| Tensor::vector(v);
    // Differences of all relative sizes around what is allowed, in long and in short tensors.
    for (apart, atol) in [(0.2, 1e-5), (1.0, 1e-5), (2.2, 0.0), (1.0, 0.0), (1.9, 1e-9)] {
        for rule in [Rule::Torch, Rule::Numpy, Rule::Polygraphy] {
            let rtol = 8.0 * unit;
            let value = |i: usize| 4.0 * noise(i * 7 + 1) + 2.5;
            let a: Vec<T> = (0..n).map(|i| of(value(i))).collect();
            let b: Vec<T> =
                (0..n).map(|i| of(value(i) * (1.0 + apart * rtol * 2.0 * noise(i + 3)))).collect();
            let tolerance = Tolerance { rule, rtol, atol };
            let (_, whole) = judge(&shape(a.clone()), &shape(b.clone()), &tolerance).unwrap();
            // A single element decides by itself: the rule has no other way.
            let wide = |v: &[T]| shape(v.to_vec()).to_f64().unwrap().into_owned();
            let (wa, wb) = (wide(&a), wide(&b));
            let sure = |i: usize, slack: f64| {
                let (x, y) = (wa[i], wb[i]);
                let limit =
                    if rule == Rule::Polygraphy { atol.max(rtol * y.abs()) } else { atol + rtol * y.abs() };
                (x - y).abs() > limit * slack
            };
            let least = (0..n).filter(|&i| sure(i, 1.0 + 20.0 * unit)).count() as u64;
            let most = (0..n).filter(|&i| sure(i, 1.0 - 20.0 * unit)).count() as u64;
            let what = format!("{} of {n}, {rule:?}, {apart}, {atol}", T::DTYPE);
            assert!(
                (least..=most).contains(&whole.beyond),
                "{what}: {} not in {least}..={most}",
                whole.beyond
            );
            let single: u64 = (0..n.min(3000))
                .map(|i| judge(&shape(vec![a[i]]), &shape(vec![b[i]]), &tolerance).unwrap().1.beyond)
                .sum();
            let (_, short) =
                judge(&shape(a[..n.min(3000)].to_vec()), &shape(b[..n.min(3000)].to_vec()), &tolerance)
                    .unwrap();
            assert_eq!(short.beyond, single, "{what}");
        }
    }
}

#[test]
fn whole_tensors_are_judged_as_their_elements() {
    for n in [1, 300, 5000, 40_000] {
        held(n, f64::EPSILON / 2.0, |x| x);
        held(n, f64::from(f32::EPSILON) / 2.0, |x| x as f32);
        held(n, f64::from(f16::EPSILON.to_f32()) / 2.0, f16::from_f64);
        held(n, f64::from(bf16::EPSILON.to_f32()) / 2.0, bf16::from_f64);
    }
}

/// NaN, infinities, zeros of both signs, denormal and huge numbers, and what lies about as far apart as is allowed:
/// whole tensors are judged by vectors, and a closer look at them takes the rule step by step.
fn special<T: Element>(n: usize, unit: f64, of: impl Fn(f64) -> T) {
    const SPECIALS: [f64; 11] =
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1e-310, -1e-42, 6e-8, 65504.0, -3e38, 1e308];
    const SIZES: [f64; 5] = [1.0, 1e-6, 3e4, 1e-3, 1e-30];
    for rule in [Rule::Torch, Rule::Numpy, Rule::Polygraphy] {
        for (rtol, atol) in
            [(0.0, 0.0), (8.0 * unit, 1e-5), (0.0, 1e-3), (1e-2, 0.0), (0.5, 2.0), (3e-6, 4e-9)]
        {
            // One part of many has specials, so that others are judged by what their extremes say.
            let pair = |i: usize| {
                let pick = |k: usize| SPECIALS[(i / 37 * k + i) % SPECIALS.len()];
                let y = noise(i * 5) * SIZES[i / 1000 % SIZES.len()];
                match i % 37 {
                    0 if i > n / 3 => [pick(5), pick(3)],
                    1 if i > n / 3 => [y, pick(3)],
                    _ => {
                        let away = (atol + rtol * y.abs()) * (1.0 + 32.0 * unit * noise(i + 17));
                        [y + away * [1.0, -1.0, 0.0][i % 3], y]
                    }
                }
            };
            let side =
                |k: usize| Tensor::from_vec(&[2, n / 2], (0..n).map(|i| of(pair(i)[k])).collect()).unwrap();
            let (x, y, tolerance) = (side(0), side(1), Tolerance { rule, rtol, atol });
            let whole = judge(&x, &y, &tolerance).unwrap().1.beyond;
            let stepwise: u64 = examine(&x, &y, &tolerance, 1).unwrap().along[0].beyond.iter().sum();
            assert_eq!(whole, stepwise, "{} {rule:?} {rtol:e} {atol:e}", T::DTYPE);
            assert!(whole > 0, "{} {rule:?} {rtol:e} {atol:e} judges nothing", T::DTYPE);
        }
    }
}

#[test]
fn vectors_judge_as_the_rule_does_step_by_step() {
    special(40_000, f64::EPSILON / 2.0, |x| x);
    special(40_000, f64::from(f32::EPSILON) / 2.0, |x| x as f32);
    // As many as are summed in f32.
    special(100_000, f64::from(f16::EPSILON.to_f32()) / 2.0, f16::from_f64);
    special(100_000, f64::from(bf16::EPSILON.to_f32()) / 2.0, bf16::from_f64);
}
