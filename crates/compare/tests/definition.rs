//! The one pass against the definitions, written down plainly.

use isotrace_compare::{CompareError, Metrics, compare};
use isotrace_tensor::{Bool, C64, DType, Element, F8E4M3FN, Tensor, bf16, f16};
use proptest::prelude::*;

/// The metrics by their definitions, one after the other.
struct Naive {
    max_abs: f64,
    mean_abs: f64,
    max_rel: f64,
    rel_l2: f64,
    cosine: f64,
    argmax: Option<usize>,
    different: u64,
}

fn naive(a: &[f64], b: &[f64]) -> Naive {
    let d: Vec<f64> = a
        .iter()
        .zip(b)
        .map(|(&x, &y)| if x == y || x.is_nan() && y.is_nan() { 0.0 } else { (x - y).abs() })
        .collect();
    let lost = d.iter().any(|d| d.is_nan());
    let or_nan = |x: f64| if lost { f64::NAN } else { x };
    let max_abs = d.iter().copied().fold(0.0, f64::max);
    let rel = a.iter().zip(&d).map(|(x, &d)| match d {
        0.0 => 0.0,
        f64::INFINITY => d,
        _ => d / x.abs(),
    });
    let finite: Vec<(f64, f64)> =
        a.iter().copied().zip(b.iter().copied()).filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let (na, nb) = (norm(&mut finite.iter().map(|p| p.0)), norm(&mut finite.iter().map(|p| p.1)));
    let dot: f64 = finite.iter().map(|(x, y)| x * y).sum();
    let nd = norm(&mut d.iter().copied());
    Naive {
        max_abs: or_nan(max_abs),
        mean_abs: or_nan(d.iter().sum::<f64>() / d.len().max(1) as f64),
        max_rel: or_nan(rel.fold(0.0, f64::max)),
        rel_l2: or_nan(if nd == 0.0 {
            0.0
        } else if nd.is_infinite() {
            nd
        } else {
            nd / na
        }),
        cosine: or_nan(match (na, nb) {
            _ if max_abs.is_infinite() => f64::NAN,
            (0.0, 0.0) => 1.0,
            (0.0, _) | (_, 0.0) => 0.0,
            _ => dot / na / nb,
        }),
        argmax: d
            .iter()
            .position(|d| d.is_nan())
            .or_else(|| (max_abs > 0.0).then(|| d.iter().position(|&d| d == max_abs)).flatten()),
        different: d.iter().filter(|&&d| d != 0.0).count() as u64,
    }
}

fn close(found: f64, expected: f64) -> bool {
    found == expected
        || found.is_nan() && expected.is_nan()
        || (found - expected).abs() <= 1e-12 * expected.abs().max(1e-3)
}

fn check(m: &Metrics, a: &[f64], b: &[f64]) {
    let n = naive(a, b);
    let count = |v: &[f64], f: fn(f64) -> bool| v.iter().filter(|&&x| f(x)).count() as u64;
    assert!(
        m.max_abs == n.max_abs || m.max_abs.is_nan() && n.max_abs.is_nan(),
        "{m:?} max_abs {}",
        n.max_abs
    );
    assert!(
        m.max_rel == n.max_rel || m.max_rel.is_nan() && n.max_rel.is_nan(),
        "{m:?} max_rel {}",
        n.max_rel
    );
    assert!(close(m.mean_abs, n.mean_abs), "{m:?} mean_abs {}", n.mean_abs);
    assert!(close(m.rel_l2, n.rel_l2), "{m:?} rel_l2 {}", n.rel_l2);
    assert!(close(m.cosine, n.cosine), "{m:?} cosine {}", n.cosine);
    assert_eq!(m.argmax, n.argmax.map(|i| vec![i]), "{m:?}");
    assert_eq!(m.different, n.different);
    assert_eq!(m.nan, [count(a, f64::is_nan), count(b, f64::is_nan)]);
    assert_eq!(m.inf, [count(a, f64::is_infinite), count(b, f64::is_infinite)]);
}

/// Numbers with the odd special one, and neighbours that mostly agree.
fn pairs() -> impl Strategy<Value = Vec<(f32, f32)>> {
    let special = prop_oneof![
        Just(f32::NAN),
        Just(f32::INFINITY),
        Just(f32::NEG_INFINITY),
        Just(0.0f32),
        Just(-0.0f32),
        Just(f32::MIN_POSITIVE / 4.0),
        Just(f32::MAX),
    ];
    let number = prop_oneof![20 => -100f32..100f32, 1 => special];
    let pair = prop_oneof![
        3 => number.clone().prop_map(|x| (x, x)),
        3 => (-100f32..100f32, -1e-3f32..1e-3).prop_map(|(x, d)| (x, x + d)),
        1 => (number.clone(), number),
    ];
    // Below one group of lanes, across blocks, and enough of them for threads.
    prop_oneof![
        prop::collection::vec(pair.clone(), 0..20),
        prop::collection::vec(pair.clone(), 2040..2060),
        (prop::collection::vec(pair, 1..50), 1usize..700).prop_map(|(v, n)| v
            .iter()
            .copied()
            .cycle()
            .take(v.len() * n)
            .collect()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn as_defined(pairs in pairs()) {
        let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let (wa, wb) = (wide(&a), wide(&b));
        let (ta, tb) = (Tensor::vector(a), Tensor::vector(b));
        let m = compare(&ta, &tb).unwrap();
        check(&m, &wa, &wb);
        // The same numbers as f64, on one side or both: another way through the code, the same values.
        for (x, y) in [(&ta.cast(DType::F64).unwrap(), &tb), (&ta.cast(DType::F64).unwrap(), &tb.cast(DType::F64).unwrap())] {
            let wider = compare(x, y).unwrap();
            check(&wider, &wa, &wb);
            if y.dtype() == DType::F32 {
                prop_assert_eq!(wider.max_ulp, m.max_ulp, "steps are those of the narrower type");
            }
        }
        prop_assert!(compare(&ta, &ta).unwrap().bits_equal);
    }

    #[test]
    fn thread_count_changes_no_bit(pairs in pairs()) {
        let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let (a, b) = (Tensor::vector(a), Tensor::vector(b));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            // Through text, so that NaN agrees with itself.
            format!("{:?}", pool.install(|| compare(&a, &b)).unwrap())
        };
        prop_assert_eq!(on(1), on(3));
    }
}

/// By their bits alone NaN lies beside the zero of the other sign.
/// Tiles of close numbers, and one pair somewhere behind them that is not: the loop that expects more of the same tells.
fn behind_close_ones<T: Element>(of: impl Fn(f64) -> T, wide: impl Fn(T) -> f64, odd: &[[f64; 2]]) {
    for (k, pair) in odd.iter().enumerate() {
        let [mut a, mut b]: [Vec<f64>; 2] = [0.0, 1.0].map(|far| {
            (0..6000)
                .map(|i| wide(of((1.0 + f64::from(i % 97)) * (1.0 + far * 0.01 * f64::from(i % 3)))))
                .collect()
        });
        let place = 2500 + 131 * k;
        [a[place], b[place]] = pair.map(|x| wide(of(x)));
        let tensor = |v: &[f64]| Tensor::vector(v.iter().map(|&x| of(x)).collect::<Vec<T>>());
        check(&compare(&tensor(&a), &tensor(&b)).expect("one shape"), &a, &b);
    }
}

#[test]
fn one_odd_pair_behind_many_close_ones() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let mut odd =
        vec![[1.0, nan], [nan, 1.0], [nan, nan], [-0.0, nan], [0.0, -nan], [0.0, -0.0], [-0.0, 0.0]];
    odd.extend([
        [inf, inf],
        [inf, -inf],
        [3e4, inf],
        [-inf, 3e4],
        [0.0, inf],
        [-0.0, inf],
        [1.0, -1.0],
        [5.0, 90.0],
    ]);
    odd.extend([[0.0, 1e-7], [1e-7, 0.0], [1e-7, -1e-7], [3e4, 3e4], [0.0, 0.0]]);
    behind_close_ones(|x| x, |x| x, &odd);
    behind_close_ones(|x| x as f32, f64::from, &odd);
    behind_close_ones(f16::from_f64, f16::to_f64, &odd);
    behind_close_ones(bf16::from_f64, bf16::to_f64, &odd);
    // Squares that are no numbers any more.
    let huge = [[1e200, 1e200], [f64::MAX, f64::MAX]].map(|[x, y]| {
        let [a, b] = [vec![x; 600], vec![y.next_down(); 600]].map(Tensor::vector);
        compare(&a, &b).expect("one shape")
    });
    assert_eq!(huge.map(|m| (m.max_ulp, m.different)), [(Some(1), 600), (Some(1), 600)]);
}

/// So many that sums are made in f32: close numbers of few bits, among whose ratios the largest comes again and again, and
/// here and there a pair that is not close.
fn largest_of_few_bits<T: Element>(of: impl Fn(f64) -> T, wide: impl Fn(T) -> f64, unit: f64) {
    for seed in 0..40u64 {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let spread = 1 << (seed % 5);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for i in 0..70_000 {
            let x = wide(of((1.0 + (next() % 1000) as f64 / 1000.0) * 2f64.powi((next() % 9) as i32 - 4)));
            let steps = (next() % (2 * spread + 1)) as f64 - spread as f64;
            let far = if seed % 3 == 0 && i % 9973 == 0 { -1.5 } else { steps * unit };
            a.push(x);
            b.push(wide(of(x * (1.0 + far))));
        }
        let tensor = |v: &[f64]| Tensor::vector(v.iter().map(|&x| of(x)).collect::<Vec<T>>());
        let (found, expected) = (compare(&tensor(&a), &tensor(&b)).expect("one shape"), naive(&a, &b));
        assert_eq!((found.max_rel, found.max_abs), (expected.max_rel, expected.max_abs), "seed {seed}");
    }
}

#[test]
fn the_largest_ratio_of_few_bits() {
    largest_of_few_bits(f16::from_f64, f16::to_f64, 1.0 / 1024.0);
    largest_of_few_bits(bf16::from_f64, bf16::to_f64, 1.0 / 128.0);
}

#[test]
fn what_is_no_number_is_near_none() {
    let awkward = [0.0, 1e-42, 6e-8, 1.0, 65504.0, f64::INFINITY, f64::NAN];
    let awkward: Vec<f64> = awkward.into_iter().flat_map(|x| [x, -x]).collect();
    for (&x, &y) in awkward.iter().flat_map(|x| awkward.iter().map(move |y| (x, y))) {
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            // Alone, and among numbers that agree.
            for (len, at) in [(1, 0), (3000, 2311)] {
                let side = |special: f64| {
                    let mut numbers = vec![1.0; len];
                    numbers[at] = special;
                    let tensor = Tensor::vector(numbers).cast(dtype).unwrap();
                    let wide = tensor.to_f64().unwrap().into_owned();
                    (tensor, wide)
                };
                let ((a, wa), (b, wb)) = (side(x), side(y));
                check(&compare(&a, &b).unwrap(), &wa, &wb);
            }
        }
    }
}

#[test]
fn ulps_as_a_table() {
    fn ulp<T: Element>(a: T, b: T) -> Option<u64> {
        compare(&Tensor::scalar(a), &Tensor::scalar(b)).unwrap().max_ulp
    }
    let h = f16::from_f32;
    assert_eq!(ulp(1f32, 1.0f32.next_up()), Some(1));
    assert_eq!(ulp(0f32, -0.0f32), Some(0));
    assert_eq!(ulp(f32::from_bits(1), -f32::from_bits(2)), Some(3), "counted through zero");
    assert_eq!(ulp(f32::MAX, f32::INFINITY), Some(1));
    assert_eq!(ulp(f32::NAN, 1.0), None);
    assert_eq!(ulp(f32::NAN, f32::NAN), Some(0));
    assert_eq!(ulp(f64::MAX, f64::MIN), Some(2 * f64::MAX.to_bits()));
    assert_eq!(ulp(1f64, -1f64), Some(2 * 1f64.to_bits()), "as far on the other side of zero");
    assert_eq!(ulp(1f32, -1f32), Some(2 * u64::from(1f32.to_bits())));
    assert_eq!(ulp(h(1.0), h(-1.0)), Some(2 * u64::from(h(1.0).to_bits())));
    assert_eq!(ulp(h(1.0), h(1.002)), Some(2));
    assert_eq!(ulp(bf16::from_f32(1.0), bf16::from_f32(1.007_812_5)), Some(1));
    assert_eq!(ulp(F8E4M3FN::from_f64(1.0, true), F8E4M3FN::from_f64(1.25, true)), Some(2));
    assert_eq!(ulp(3i32, 4), None);
    let mixed = |a: Tensor, b: Tensor| compare(&a, &b).unwrap();
    assert_eq!(
        mixed(Tensor::scalar(1.0004f32), Tensor::scalar(h(1.0))).max_ulp,
        Some(0),
        "rounded to f16 first"
    );
    assert_eq!(mixed(Tensor::scalar(1.0f32), Tensor::scalar(1.0f64)).max_ulp, Some(0));
    assert!(!mixed(Tensor::scalar(1.0f32), Tensor::scalar(1.0f64)).bits_equal);
    assert_eq!(mixed(Tensor::scalar(1f32), Tensor::scalar(1i64)).max_ulp, None);
}

#[test]
fn integers_bool_complex_and_text_compare_by_value() {
    let big = compare(&Tensor::scalar(i64::MAX), &Tensor::scalar(i64::MAX - 1)).unwrap();
    assert_eq!((big.max_abs, big.different), (1.0, 1), "not lost in the rounding to f64");
    let far = compare(&Tensor::scalar(u64::MAX), &Tensor::scalar(-1i64)).unwrap();
    assert_eq!(far.max_abs, 18_446_744_073_709_551_616.0);
    let truth =
        compare(&Tensor::vector(vec![Bool(2), Bool(0)]), &Tensor::vector(vec![Bool(1), Bool(1)])).unwrap();
    assert_eq!((truth.max_abs, truth.different, truth.argmax), (1.0, 1, Some(vec![1])));
    let complex = |im: f32| Tensor::from_vec(&[1, 2], vec![C64([1.0, 2.0]), C64([3.0, im])]).unwrap();
    let c = compare(&complex(4.0), &complex(4.5)).unwrap();
    assert_eq!((c.max_abs, c.argmax, c.different), (0.5, Some(vec![0, 1]), 1));
    let text = |s: &str| Tensor::from_strings(&[2], vec!["x".into(), s.into()]).unwrap();
    let t = compare(&text("y"), &text("z")).unwrap();
    assert_eq!((t.max_abs, t.different, t.argmax, t.bits_equal), (1.0, 1, Some(vec![1]), false));
    assert!(compare(&text("y"), &text("y")).unwrap().bits_equal);
    assert_eq!(
        compare(&text("y"), &Tensor::vector(vec![1i64, 2])),
        Err(CompareError::Types { a: DType::String, b: DType::I64 })
    );
}

#[test]
fn the_odd_cases() {
    let t = |v: Vec<f64>| Tensor::vector(v);
    let m = compare(&t(vec![]), &t(vec![])).unwrap();
    assert_eq!(
        (m.max_abs, m.mean_abs, m.rel_l2, m.cosine, m.argmax, m.bits_equal),
        (0.0, 0.0, 0.0, 1.0, None, true)
    );
    let m = compare(&t(vec![0.0, 1.0]), &t(vec![-0.0, 1.0])).unwrap();
    assert_eq!((m.max_abs, m.max_ulp, m.bits_equal), (0.0, Some(0), false));
    let m = compare(&t(vec![1e200, -1e200]), &t(vec![2e200, -2e200])).unwrap();
    assert!((m.rel_l2 - 1.0).abs() < 1e-15 && (m.cosine - 1.0).abs() < 1e-15, "squares overflow: {m:?}");
    let m = compare(&t(vec![1e-200, 0.0]), &t(vec![0.0, 1e-200])).unwrap();
    assert!((m.rel_l2 - 2f64.sqrt()).abs() < 1e-15 && m.cosine == 0.0, "squares vanish: {m:?}");
    let m = compare(&t(vec![f64::INFINITY, 3.0]), &t(vec![f64::INFINITY, 4.0])).unwrap();
    assert_eq!((m.max_abs, m.rel_l2, m.cosine), (1.0, 1.0 / 3.0, 1.0), "equal infinities have no size");
    let m = compare(&t(vec![f64::INFINITY; 2]), &t(vec![1.0, f64::INFINITY])).unwrap();
    assert!(m.max_abs.is_infinite() && m.rel_l2.is_infinite() && m.cosine.is_nan());
    let grid = |v: f32| Tensor::from_vec(&[2, 3], vec![0.0, 0.0, 0.0, 0.0, v, 0.0]).unwrap();
    assert_eq!(compare(&grid(0.0), &grid(1.0)).unwrap().argmax, Some(vec![1, 1]));
    assert!(matches!(compare(&grid(0.0), &t(vec![0.0; 6])), Err(CompareError::Shapes { .. })));
}
