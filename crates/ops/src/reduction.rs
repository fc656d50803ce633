//! Folding axes of a tensor away: the layout and the loops under every reduction.

use bytemuck::Zeroable;
use isotrace_tensor::{Element, Tensor};

use crate::broadcast::GRAIN;
use crate::math::{grain, row, vectorise};
use crate::{OpError, parallel, room};

/// Runs a loop, as vector code if asked to.
#[inline(always)]
fn looped<const VECTOR: bool, R>(mut body: impl FnMut() -> R) -> R {
    if VECTOR { vectorise(body) } else { body() }
}

/// Rows folded into a running result before that joins the result of the rows before: keeps long columns of sums from
/// losing digits one by one.
const BLOCK: usize = 128;

/// A tensor seen as (outer, len, inner), whose middle axis is folded away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Number of blocks.
    pub outer: usize,
    /// Elements folded into one.
    pub len: usize,
    /// Distance of the elements that are folded into one.
    pub inner: usize,
}

/// A tensor made ready for a fold over `reduced` axes: itself where those lie together, else a copy with them last.
pub fn arrange(tensor: &Tensor, reduced: &[bool]) -> Result<(Tensor, Layout), OpError> {
    let shape = tensor.shape();
    let product = |range: std::ops::Range<usize>| shape[range].iter().product();
    // Axes of size 1 may count to either side.
    let folded = |i: usize| reduced[i] && shape[i] != 1;
    let first = (0..shape.len()).find(|&i| folded(i)).unwrap_or(shape.len());
    let end = (0..shape.len()).rev().find(|&i| folded(i)).map_or(shape.len(), |i| i + 1);
    if (first..end).all(|i| reduced[i] || shape[i] == 1) {
        let layout =
            Layout { outer: product(0..first), len: product(first..end), inner: product(end..shape.len()) };
        return Ok((tensor.clone(), layout));
    }
    let (last, mut perm): (Vec<usize>, Vec<usize>) = (0..shape.len()).partition(|&i| reduced[i]);
    let outer = perm.iter().map(|&i| shape[i]).product();
    let len = last.iter().map(|&i| shape[i]).product();
    perm.extend(last);
    Ok((tensor.permute(&perm)?, Layout { outer, len, inner: 1 }))
}

/// As [`arrange`], with the reduced axes always last: rows of `len` elements.
pub fn arrange_rows(tensor: &Tensor, reduced: &[bool]) -> Result<(Tensor, Layout), OpError> {
    let (tensor, layout) = arrange(tensor, reduced)?;
    if layout.inner == 1 {
        return Ok((tensor, layout));
    }
    let Layout { outer, len, inner } = layout;
    let tensor = tensor.reshape(&[outer, len, inner])?.permute(&[0, 2, 1])?;
    Ok((tensor, Layout { outer: outer * inner, len, inner: 1 }))
}

/// Folds the middle axis: `join` over `f` of the elements, beginning from the neutral element `start`.
///
/// The order depends on the layout alone. With `VECTOR`, which is for floats, the loops become vector code, and `f` and `join`
/// must be inlined functions.
pub fn fold<const VECTOR: bool, T: Element, A: Zeroable + Copy + Send + Sync>(
    x: &[T],
    layout: Layout,
    start: A,
    f: impl Fn(T) -> A + Sync,
    join: impl Fn(A, A) -> A + Sync,
) -> Result<Vec<A>, OpError> {
    let Layout { outer, len, inner } = layout;
    let mut out = room::zeros(&[outer, inner])?;
    if len == 0 {
        out.fill(start);
        return Ok(out);
    }
    if out.is_empty() {
        return Ok(out);
    }
    if inner == 1 {
        if len >= 2 * GRAIN {
            // Long rows: pieces of a fixed length, joined from the left.
            for (out, row) in out.iter_mut().zip(x.chunks(len)) {
                let mut pieces = vec![start; len.div_ceil(GRAIN)];
                parallel::chunks(&mut pieces, 1, &|i, piece| {
                    let end = len.min((i + 1) * GRAIN);
                    piece[0] = fold_row::<VECTOR, _, _>(&row[i * GRAIN..end], start, &f, &join);
                });
                *out = pieces.into_iter().fold(start, &join);
            }
            return Ok(out);
        }
        let rows = grain(x.len()).div_ceil(len);
        parallel::chunks(&mut out, rows, &|i, out| {
            let x = &x[i * rows * len..];
            looped::<VECTOR, _>(
                #[inline(always)]
                || {
                    for (out, x) in out.iter_mut().zip(x.chunks(len)) {
                        *out = row::fold(x, start, &f, &join);
                    }
                },
            );
        });
        return Ok(out);
    }
    // Small blocks share a task, large ones are cut into bands of columns.
    let block = len * inner;
    let blocks = (grain(x.len()) / block).max(1);
    let columns = (GRAIN / len).clamp(64.min(inner), inner);
    parallel::chunks(&mut out, blocks * inner, &|first, out| {
        for (out, x) in out.chunks_mut(inner).zip(x[first * blocks * block..].chunks(block)) {
            parallel::chunks(out, columns, &|i, out| {
                fold_columns::<VECTOR, _, _>(&x[i * columns..], out, inner, start, &f, &join);
            });
        }
    });
    Ok(out)
}

fn fold_row<const VECTOR: bool, T: Copy, A: Copy>(
    x: &[T],
    start: A,
    f: &impl Fn(T) -> A,
    join: &impl Fn(A, A) -> A,
) -> A {
    looped::<VECTOR, _>(
        #[inline(always)]
        || row::fold(x, start, f, join),
    )
}

/// Folds columns `step` apart, as many as `out` has, in blocks of rows.
fn fold_columns<const VECTOR: bool, T: Copy, A: Copy>(
    x: &[T],
    out: &mut [A],
    step: usize,
    start: A,
    f: &impl Fn(T) -> A,
    join: &impl Fn(A, A) -> A,
) {
    let mut partial = vec![start; out.len()];
    out.fill(start);
    looped::<VECTOR, _>(
        #[inline(always)]
        || {
            for block in x.chunks(BLOCK * step) {
                partial.fill(start);
                for row in block.chunks(step) {
                    for (partial, &x) in partial.iter_mut().zip(row) {
                        *partial = join(*partial, f(x));
                    }
                }
                for (out, &partial) in out.iter_mut().zip(&partial) {
                    *out = join(*out, partial);
                }
            }
        },
    );
}

/// The output's shape: reduced axes of size 1, or gone.
pub fn reduced_shape(shape: &[usize], reduced: &[bool], keep: bool) -> Vec<usize> {
    let sizes = shape.iter().zip(reduced);
    if keep {
        sizes.map(|(&size, &gone)| if gone { 1 } else { size }).collect()
    } else {
        sizes.filter(|&(_, &gone)| !gone).map(|(&size, _)| size).collect()
    }
}

#[cfg(test)]
mod tests {
    use isotrace_tensor::View;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_layout_folds_what_belongs_together(
            axes in prop::collection::vec((0usize..4, any::<bool>()), 0..5), keep: bool, rows: bool,
        ) {
            let (shape, reduced): (Vec<usize>, Vec<bool>) = axes.into_iter().unzip();
            let n: usize = shape.iter().product();
            let data: Vec<i64> = (0..n as i64).map(|i| i * i % 97 - 20).collect();
            let tensor = Tensor::from_vec(&shape, data.clone()).unwrap();
            let arranged = if rows { arrange_rows(&tensor, &reduced) } else { arrange(&tensor, &reduced) };
            let (tensor, layout) = arranged.unwrap();
            let got = fold::<false, _, _>(tensor.as_slice::<i64>().unwrap(), layout, 0, |x| x, |a, b| a + b).unwrap();
            let out = reduced_shape(&shape, &reduced, true);
            let mut expected = vec![0; out.iter().product()];
            let places: Vec<usize> = (0..expected.len()).collect();
            if n > 0 {
                for (place, x) in View::new(&places, &out).broadcast(&shape).unwrap().to_vec().into_iter().zip(data) {
                    expected[place] += x;
                }
            }
            prop_assert_eq!(&got, &expected);
            prop_assert_eq!(reduced_shape(&shape, &reduced, keep).iter().product::<usize>(), expected.len());
        }
    }

    #[test]
    fn large_folds_are_shared_out_without_a_trace() {
        let data: Vec<u64> = (0..600_000).map(|i| i * i % 1009).collect();
        for (outer, len, inner) in
            [(1, 600_000, 1), (600, 1000, 1), (1, 1000, 600), (3, 2, 100_000), (2, 300_000, 1)]
        {
            let layout = Layout { outer, len, inner };
            let got = fold::<false, _, _>(&data, layout, 0, |x| x, |a, b| a + b).unwrap();
            for o in 0..outer {
                for i in (0..inner).step_by(37) {
                    let expected: u64 = (0..len).map(|k| data[(o * len + k) * inner + i]).sum();
                    assert_eq!(got[o * inner + i], expected, "{layout:?} at {o}, {i}");
                }
            }
        }
    }
}
