//! Views against contiguous copies of themselves.

use isotrace_compare::{Metrics, Real, compare, compare_views};
use isotrace_tensor::{Element, Tensor, View, bf16, f16};

fn same(found: &Metrics, expected: &Metrics, what: &str) {
    let close = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-6 * b.abs();
    let exact = |m: &Metrics| {
        (
            m.len,
            m.different,
            m.max_abs.to_bits(),
            m.max_rel.to_bits(),
            m.max_ulp,
            m.argmax.clone(),
            m.nan,
            m.inf,
        )
    };
    assert_eq!(exact(found), exact(expected), "{what}");
    assert_eq!((&found.ulps, found.bits_equal), (&expected.ulps, expected.bits_equal), "{what}");
    assert!(close(found.mean_abs, expected.mean_abs) && close(found.rel_l2, expected.rel_l2), "{what}");
    assert!(close(found.cosine, expected.cosine), "{what}");
}

#[test]
fn permuted_broadcast_and_cut_views_are_as_their_copies() {
    let shapes: [&[usize]; 6] = [&[300, 257], &[3, 70, 5, 64], &[1, 9], &[2, 130, 66], &[5], &[4, 0, 3]];
    for shape in shapes {
        let n: usize = shape.iter().product();
        let mut perms = vec![(0..shape.len()).collect::<Vec<_>>(), (0..shape.len()).rev().collect()];
        let mut turned: Vec<usize> = (0..shape.len()).collect();
        turned.rotate_left(1);
        perms.push(turned);
        for perm in &perms {
            // Coarse values, so that the largest difference is met many times and its first place matters.
            let a: Vec<f32> = (0..n).map(|i| ((i * 7919) % 97) as f32).collect();
            let target: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
            let view = View::new(&a, shape).permute(perm);
            let copy = Tensor::from_vec(&target, view.to_contiguous().into_owned()).unwrap();
            let mut b: Vec<f32> = copy.as_slice::<f32>().unwrap().to_vec();
            for (i, v) in b.iter_mut().enumerate() {
                match i % 11 {
                    0 => *v += 0.5,
                    1 if i % 1000 == 1 && n > 60_000 => *v = f32::NAN,
                    2 => *v = -*v,
                    _ => {}
                }
            }
            let b = Tensor::from_vec(&target, b).unwrap();
            let expected = compare(&copy, &b).unwrap();
            let found = compare_views(&view, &b.view().unwrap()).unwrap();
            same(&found, &expected, &format!("{shape:?} {perm:?}"));
            let swapped = compare_views(&b.view().unwrap(), &view).unwrap();
            same(&swapped, &compare(&b, &copy).unwrap(), &format!("{shape:?} {perm:?} swapped"));
        }
    }
    let row: Vec<f16> = (0..200).map(|i| f16::from_f32(i as f32 / 8.0)).collect();
    let wide = View::new(&row, &[1, 200]).broadcast(&[50, 200]).unwrap();
    let other: Vec<f16> = (0..10_000).map(|i| f16::from_f32((i % 211) as f32 / 8.0)).collect();
    let copy = Tensor::from_vec(&[50, 200], wide.to_vec()).unwrap();
    let other = Tensor::from_vec(&[50, 200], other).unwrap();
    same(
        &compare_views(&wide, &other.view().unwrap()).unwrap(),
        &compare(&copy, &other).unwrap(),
        "broadcast",
    );
}

fn turned<T: Real + Element>(of: impl Fn(f64) -> T) {
    // Panels of all sizes at the edges, runs through several axes, runs shorter than a cache line at the end.
    let cases: [(&[usize], &[usize]); 6] = [
        (&[517, 293], &[1, 0]),
        (&[41, 64, 12, 16], &[3, 2, 1, 0]),
        (&[70, 5, 9, 3, 11], &[4, 3, 2, 1, 0]),
        (&[3, 40, 7, 33], &[0, 3, 1, 2]),
        (&[35, 2, 8, 2, 36], &[4, 1, 2, 3, 0]),
        (&[2, 33, 32], &[0, 2, 1]),
    ];
    for (shape, perm) in cases {
        let n: usize = shape.iter().product();
        let a: Vec<T> = (0..n).map(|i| of(((i * 7919) % 997) as f64 / 64.0)).collect();
        let target: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
        let view = View::new(&a, shape).permute(perm);
        let copy = Tensor::from_vec(&target, view.to_vec()).unwrap();
        let mut b = view.to_vec();
        for i in (0..n).step_by(13) {
            b[i] = of((i % 31) as f64 / 8.0);
        }
        b[n / 3] = of(f64::NAN);
        let b = Tensor::from_vec(&target, b).unwrap();
        let found = compare_views(&view, &b.view().unwrap()).unwrap();
        same(&found, &compare(&copy, &b).unwrap(), &format!("{} {shape:?} {perm:?}", T::DTYPE));
        let swapped = compare_views(&b.view().unwrap(), &view).unwrap();
        same(&swapped, &compare(&b, &copy).unwrap(), &format!("{} {shape:?} {perm:?} swapped", T::DTYPE));
    }
}

#[test]
fn every_type_is_compared_in_runs_of_either_side() {
    turned(|x| x);
    turned(|x| x as f32);
    turned(f16::from_f64);
    turned(bf16::from_f64);
}

/// Where several differences are the largest, the first in C order is told, however axes lie and are put together.
#[test]
fn the_first_of_equal_differences_is_found_in_every_layout() {
    let shape = [3, 40, 5, 70];
    let n: usize = shape.iter().product();
    let perms = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 2, 3, 0], [0, 3, 1, 2]];
    let a: Vec<f32> = (0..n).map(|i| ((i * 7919) % 97) as f32).collect();
    for every in [1, 777, 20_011, n] {
        // Farther along for every period, so that the first in memory is not the first of the view.
        let b: Vec<f32> =
            a.iter().enumerate().map(|(i, &v)| if i % every == every / 3 { v + 0.5 } else { v }).collect();
        for (p, q) in perms.iter().flat_map(|p| perms.iter().map(move |q| (p, q))) {
            let target: Vec<usize> = p.iter().map(|&k| shape[k]).collect();
            let x = View::new(&a, &shape).permute(p);
            // The same elements, stored in the order of another permutation.
            let stored = View::new(&b, &shape).permute(q).to_vec();
            let stored_shape: Vec<usize> = q.iter().map(|&k| shape[k]).collect();
            let back: Vec<usize> = p.iter().map(|k| q.iter().position(|l| l == k).unwrap()).collect();
            let y = View::new(&stored, &stored_shape).permute(&back);
            let expected = compare(
                &Tensor::from_vec(&target, x.to_vec()).unwrap(),
                &Tensor::from_vec(&target, y.to_vec()).unwrap(),
            );
            same(&compare_views(&x, &y).unwrap(), &expected.unwrap(), &format!("{every} {p:?} {q:?}"));
        }
    }
}
