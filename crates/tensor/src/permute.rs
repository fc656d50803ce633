//! Copies a strided view into C order: runs where elements lie together, square tiles where axes change places.
//!
//! Reading along one axis and writing along another touches a cache line for every element on one of the sides.
//! Tiles small enough to stay in the first-level cache use every line that was fetched before it is dropped (cache
//! blocking, Lam, Rothberg and Wolf 1991). Large outputs are halved until a thread's part is worth its start; each
//! element is copied once, so the number of threads changes nothing.

use crate::Odometer;

/// Edge of a tile: elements of 4 bytes fill one cache line of 64.
const TILE: usize = 16;

/// Outputs above this many elements are shared among threads.
const PARALLEL: usize = 1 << 17;

/// Fills `out` with the elements of a view in C order. `out` is as long as the view.
pub fn copy<T: Copy + Send + Sync>(data: &[T], shape: &[usize], strides: &[usize], out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let (shape, strides) = simplify(shape, strides);
    halve(data, &shape, &strides, out);
}

/// Without axes of size 1, and with neighbours joined that walk on at one step.
fn simplify(shape: &[usize], strides: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut joined: Vec<(usize, usize)> = Vec::with_capacity(shape.len());
    for (&size, &stride) in shape.iter().zip(strides).filter(|(size, _)| **size != 1) {
        match joined.last_mut() {
            Some((before, step)) if *step == stride * size => (*before, *step) = (*before * size, stride),
            _ => joined.push((size, stride)),
        }
    }
    joined.into_iter().unzip()
}

fn halve<T: Copy + Send + Sync>(data: &[T], shape: &[usize], strides: &[usize], out: &mut [T]) {
    let Some((&size, inner)) = shape.split_first() else {
        out[0] = data[0];
        return;
    };
    if size == 1 {
        return halve(data, inner, &strides[1..], out);
    }
    if out.len() <= PARALLEL {
        return tiles(data, shape, strides, out);
    }
    let half = size / 2;
    let (mut first, mut second) = (shape.to_vec(), shape.to_vec());
    (first[0], second[0]) = (half, size - half);
    let (left, right) = out.split_at_mut(out.len() / size * half);
    rayon::join(
        || halve(data, &first, strides, left),
        || halve(&data[half * strides[0]..], &second, strides, right),
    );
}

fn tiles<T: Copy>(data: &[T], shape: &[usize], strides: &[usize], out: &mut [T]) {
    let last = shape.len() - 1;
    let (width, step) = (shape[last], strides[last]);
    if step <= 1 {
        for (row, at) in out.chunks_exact_mut(width).zip(Odometer::new(&shape[..last], &strides[..last])) {
            if step == 1 {
                row.copy_from_slice(&data[at..at + width]);
            } else {
                row.fill(data[at]);
            }
        }
        return;
    }
    // The axis along which the source lies closest together.
    let near = (0..last).filter(|&axis| strides[axis] > 0).min_by_key(|&axis| strides[axis]);
    let Some(near) = near.filter(|&axis| strides[axis] < step && shape[axis] > 1) else {
        for (row, at) in out.chunks_exact_mut(width).zip(Odometer::new(&shape[..last], &strides[..last])) {
            for (out, x) in row.iter_mut().zip(data[at..].iter().step_by(step)) {
                *out = *x;
            }
        }
        return;
    };
    let written = crate::strides(shape);
    let (rows, near_read, near_written) = (shape[near], strides[near], written[near]);
    let outer: Vec<usize> = (0..last).filter(|&axis| axis != near).collect();
    let pick = |list: &[usize]| outer.iter().map(|&axis| list[axis]).collect::<Vec<_>>();
    let sizes = pick(shape);
    let places = Odometer::new(&sizes, &pick(strides)).zip(Odometer::new(&sizes, &pick(&written)));
    for (from, to) in places {
        for r in (0..rows).step_by(TILE) {
            let tall = TILE.min(rows - r);
            for c in (0..width).step_by(TILE) {
                let wide = TILE.min(width - c);
                for i in r..r + tall {
                    let source = &data[from + i * near_read + c * step..];
                    let target = to + i * near_written + c;
                    for (out, x) in out[target..target + wide].iter_mut().zip(source.iter().step_by(step)) {
                        *out = *x;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permuted(shape: &[usize], perm: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let strides = crate::strides(shape);
        (perm.iter().map(|&p| shape[p]).collect(), perm.iter().map(|&p| strides[p]).collect())
    }

    fn check(shape: &[usize], strides: &[usize], data: &[u32]) {
        let expected: Vec<u32> = Odometer::new(shape, strides).map(|at| data[at]).collect();
        let mut out = vec![u32::MAX; expected.len()];
        copy(data, shape, strides, &mut out);
        assert!(out == expected, "{shape:?} {strides:?}");
    }

    proptest::proptest! {
        #[test]
        fn tiles_agree_with_the_odometer(
            shape in proptest::collection::vec(0usize..40, 0..4),
            swaps in proptest::collection::vec(0usize..4, 4),
            repeat in proptest::bool::ANY,
        ) {
            let data: Vec<u32> = (0..shape.iter().product::<usize>() as u32).collect();
            let mut perm: Vec<usize> = (0..shape.len()).collect();
            for (i, s) in swaps.into_iter().enumerate().take(shape.len()) {
                let n = shape.len();
                perm.swap(i, s % n);
            }
            let (shape, mut strides) = permuted(&shape, &perm);
            if repeat && !strides.is_empty() {
                strides[0] = 0;
            }
            check(&shape, &strides, &data);
        }
    }

    #[test]
    fn large_outputs_are_shared_among_threads() {
        for (shape, perm) in [
            (vec![600usize, 701], vec![1usize, 0]),
            (vec![3, 400, 301], vec![1, 2, 0]),
            (vec![2, 3, 257, 301], vec![0, 2, 3, 1]),
            (vec![12, 7, 40, 64], vec![0, 2, 1, 3]),
            (vec![1, 300_001], vec![1, 0]),
        ] {
            let data: Vec<u32> = (0..shape.iter().product::<usize>() as u32).collect();
            let (shape, strides) = permuted(&shape, &perm);
            check(&shape, &strides, &data);
        }
        check(&[500, 1000], &[0, 1], &(0..1000).collect::<Vec<_>>());
    }
}
