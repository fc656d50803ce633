//! Functions of two or three broadcast tensors, element by element.
//!
//! Neighbouring axes that every operand walks through evenly are merged first, so that most calls come down to a
//! few long rows, and each row to one of three loops without an index: both operands advance, or one stands still.

use std::mem::MaybeUninit;

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, View, broadcast_shapes, element_count, normalise_axis};

use crate::{OpError, attributes, parallel, room};

/// Elements one thread takes at a time; below twice as many no other thread is woken.
pub const GRAIN: usize = 1 << 16;

/// Before version 7 the second operand was broadcast into the first only where asked, from an axis on if one was
/// named (otherwise aligned at the last axis, as now). Reads that axis.
pub(crate) fn old_axis(node: &Node) -> Result<Option<i64>, OpError> {
    if node.version >= 7 || !attributes::flag(node, "broadcast", false)? {
        return Ok(None);
    }
    attributes::int(node, "axis")
}

/// `b` with trailing axes of size 1, so that its first axis meets axis `axis` of a tensor of rank `rank`.
pub(crate) fn line_up(b: &Tensor, axis: Option<i64>, rank: usize) -> Result<Tensor, OpError> {
    let Some(axis) = axis else { return Ok(b.clone()) };
    let axis = normalise_axis(axis, rank)?;
    let mut shape = b.shape().to_vec();
    shape.resize((rank - axis).max(b.rank()), 1);
    Ok(b.reshape(&shape)?)
}

/// A broadcast shape and the strides of `N` operands in it, neighbouring axes merged, the innermost set apart.
struct Plan<const N: usize> {
    outer: Vec<(usize, [usize; N])>,
    width: usize,
    steps: [usize; N],
}

impl<const N: usize> Plan<N> {
    fn new(shape: &[usize], strides: [&[usize]; N]) -> Self {
        let mut axes: Vec<(usize, [usize; N])> = Vec::with_capacity(shape.len());
        for (i, &size) in shape.iter().enumerate().filter(|&(_, &size)| size != 1) {
            let steps: [usize; N] = std::array::from_fn(|k| strides[k][i]);
            match axes.last_mut() {
                Some((n, outer)) if (0..N).all(|k| outer[k] == steps[k] * size) => {
                    *n *= size;
                    *outer = steps;
                }
                _ => axes.push((size, steps)),
            }
        }
        let (width, steps) = axes.pop().unwrap_or((1, [0; N]));
        Self { outer: axes, width, steps }
    }

    /// Where each operand's row starts, for the rows from `first` on.
    fn rows(&self, first: usize) -> Rows<'_, N> {
        let mut index = vec![0; self.outer.len()];
        let mut at = [0; N];
        let mut rest = first;
        for (i, (size, steps)) in self.outer.iter().enumerate().rev() {
            index[i] = rest % size;
            rest /= size;
            for k in 0..N {
                at[k] += index[i] * steps[k];
            }
        }
        Rows { plan: self, index, at }
    }

    /// Fills `out` row by row, in parallel where it pays. `row` gets the operands' offsets and a part of a row.
    fn fill<O: Send>(&self, out: &mut [O], row: impl Fn([usize; N], &mut [O]) + Sync) {
        let width = self.width;
        if out.is_empty() {
            return;
        }
        // One task where there is too little to share. Most of it is the first touch of the output's pages, so that pieces are
        // worth a thread earlier than what [`GRAIN`] is for.
        let grain = if out.len() < GRAIN { out.len() } else { GRAIN / 4 };
        if self.outer.is_empty() {
            parallel::chunks(out, grain, &|i, out| row(self.steps.map(|s| s * i * grain), out));
            return;
        }
        let rows = grain.div_ceil(width);
        parallel::chunks(out, rows * width, &|i, out| {
            for (at, out) in self.rows(i * rows).zip(out.chunks_mut(width)) {
                row(at, out);
            }
        });
    }
}

/// Endless: the caller stops at its last row.
struct Rows<'a, const N: usize> {
    plan: &'a Plan<N>,
    index: Vec<usize>,
    at: [usize; N],
}

impl<const N: usize> Iterator for Rows<'_, N> {
    type Item = [usize; N];

    #[inline]
    fn next(&mut self) -> Option<[usize; N]> {
        let here = self.at;
        for (index, (size, steps)) in self.index.iter_mut().zip(&self.plan.outer).rev() {
            *index += 1;
            for (at, step) in self.at.iter_mut().zip(steps) {
                *at += step;
            }
            if *index < *size {
                break;
            }
            for (at, step) in self.at.iter_mut().zip(steps) {
                *at -= step * size;
            }
            *index = 0;
        }
        Some(here)
    }
}

/// Applies `f` to the pairs of elements of two broadcast views; returns the broadcast shape and the results.
pub fn zip<A, B, O>(
    a: &View<'_, A>,
    b: &View<'_, B>,
    f: impl Fn(A, B) -> O + Sync,
) -> Result<(Vec<usize>, Vec<O>), OpError>
where
    A: Copy + Send + Sync,
    B: Copy + Send + Sync,
    O: Copy + Send,
{
    let shape = broadcast_shapes(a.shape(), b.shape())?;
    let len = element_count(&shape)?;
    let (a, b) = (a.broadcast(&shape)?, b.broadcast(&shape)?);
    let plan = Plan::new(&shape, [a.strides(), b.strides()]);
    let [step_a, step_b] = plan.steps;
    let row = |[at_a, at_b]: [usize; 2], out: &mut [MaybeUninit<O>]| {
        let n = out.len();
        match (step_a, step_b) {
            (1, 1) => {
                let (a, b) = (&a.data()[at_a..at_a + n], &b.data()[at_b..at_b + n]);
                out.iter_mut().zip(a).zip(b).for_each(|((o, &a), &b)| _ = o.write(f(a, b)));
            }
            (1, 0) => {
                let (a, b) = (&a.data()[at_a..at_a + n], b.data()[at_b]);
                out.iter_mut().zip(a).for_each(|(o, &a)| _ = o.write(f(a, b)));
            }
            (0, 1) => {
                let (a, b) = (a.data()[at_a], &b.data()[at_b..at_b + n]);
                out.iter_mut().zip(b).for_each(|(o, &b)| _ = o.write(f(a, b)));
            }
            _ => {
                let (a, b) = (&a.data()[at_a..], &b.data()[at_b..]);
                let at = |i: usize| f(a[i * step_a], b[i * step_b]);
                out.iter_mut().enumerate().for_each(|(i, o)| _ = o.write(at(i)));
            }
        }
    };
    #[expect(unsafe_code, reason = "memory that need not be cleared first")]
    // SAFETY: rows cover everything, and each writes all of its own or panics.
    let out = unsafe { room::filled(len, |out| plan.fill(out, row))? };
    Ok((shape, out))
}

/// As [`zip`], for three views.
pub fn zip3<A, B, C, O>(
    a: &View<'_, A>,
    b: &View<'_, B>,
    c: &View<'_, C>,
    f: impl Fn(A, B, C) -> O + Sync,
) -> Result<(Vec<usize>, Vec<O>), OpError>
where
    A: Copy + Send + Sync,
    B: Copy + Send + Sync,
    C: Copy + Send + Sync,
    O: Copy + Send,
{
    let shape = broadcast_shapes(&broadcast_shapes(a.shape(), b.shape())?, c.shape())?;
    let len = element_count(&shape)?;
    let (a, b, c) = (a.broadcast(&shape)?, b.broadcast(&shape)?, c.broadcast(&shape)?);
    let plan = Plan::new(&shape, [a.strides(), b.strides(), c.strides()]);
    let [step_a, step_b, step_c] = plan.steps;
    let row = |[at_a, at_b, at_c]: [usize; 3], out: &mut [MaybeUninit<O>]| {
        let n = out.len();
        let (a, b, c) = (&a.data()[at_a..], &b.data()[at_b..], &c.data()[at_c..]);
        match (step_a, step_b, step_c) {
            (1, 1, 1) => {
                let all = out.iter_mut().zip(&a[..n]).zip(&b[..n]).zip(&c[..n]);
                all.for_each(|(((o, &a), &b), &c)| _ = o.write(f(a, b, c)));
            }
            (1, 1, 0) => {
                let c = c[0];
                out.iter_mut().zip(&a[..n]).zip(&b[..n]).for_each(|((o, &a), &b)| _ = o.write(f(a, b, c)));
            }
            (1, 0, 1) => {
                let b = b[0];
                out.iter_mut().zip(&a[..n]).zip(&c[..n]).for_each(|((o, &a), &c)| _ = o.write(f(a, b, c)));
            }
            (1, 0, 0) => {
                let (b, c) = (b[0], c[0]);
                out.iter_mut().zip(&a[..n]).for_each(|(o, &a)| _ = o.write(f(a, b, c)));
            }
            _ => {
                let at = |i: usize| f(a[i * step_a], b[i * step_b], c[i * step_c]);
                out.iter_mut().enumerate().for_each(|(i, o)| _ = o.write(at(i)));
            }
        }
    };
    #[expect(unsafe_code, reason = "memory that need not be cleared first")]
    // SAFETY: rows cover everything, and each writes all of its own or panics.
    let out = unsafe { room::filled(len, |out| plan.fill(out, row))? };
    Ok((shape, out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A shape, and three that broadcast to it.
    fn shapes() -> impl Strategy<Value = [Vec<usize>; 3]> {
        prop::collection::vec((0usize..4, any::<[bool; 3]>()), 0..5).prop_flat_map(|axes| {
            let rank = axes.len();
            [0..=rank, 0..=rank, 0..=rank].prop_map(move |cut| {
                std::array::from_fn(|k| {
                    let sizes = axes.iter().map(|(size, one)| if one[k] { 1 } else { *size });
                    sizes.skip(cut[k]).collect()
                })
            })
        })
    }

    proptest! {
        #[test]
        fn every_element_meets_its_partners(shapes in shapes()) {
            let data: Vec<u64> = (0..256).collect();
            let views = shapes.each_ref().map(|s| View::new(&data[..s.iter().product()], s));
            let [a, b, c] = &views;
            let (shape, got) = zip3(a, b, c, |a, b, c| a + 1000 * b + 1_000_000 * c).unwrap();
            let [wide_a, wide_b, wide_c] = views.each_ref().map(|v| v.broadcast(&shape).unwrap().to_vec());
            let expected: Vec<u64> = (0..got.len())
                .map(|i| wide_a[i] + 1000 * wide_b[i] + 1_000_000 * wide_c[i])
                .collect();
            prop_assert_eq!(got, expected);
            let (shape, got) = zip(a, b, |a, b| a + 1000 * b).unwrap();
            let [wide_a, wide_b] = [a, b].map(|v| v.broadcast(&shape).unwrap().to_vec());
            let expected: Vec<u64> = (0..got.len()).map(|i| wide_a[i] + 1000 * wide_b[i]).collect();
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn large_operands_are_shared_out_without_a_trace() {
        let cases: [[&[usize]; 3]; 4] = [
            [&[300_001], &[300_001], &[]],
            [&[700, 600], &[600], &[700, 1]],
            [&[3, 150_000], &[3, 1], &[1]],
            [&[50_000, 1, 3], &[1, 2, 1], &[3]],
        ];
        let data: Vec<u64> = (0..500_000).collect();
        for shapes in cases {
            let [a, b, c] = shapes.map(|s| View::new(&data[..s.iter().product()], s));
            let (shape, got) = zip3(&a, &b, &c, |a, b, c| a ^ b << 20 ^ c << 40).unwrap();
            let [a, b, c] = [a, b, c].map(|v| v.broadcast(&shape).unwrap().to_vec());
            let wrong = (0..got.len()).find(|&i| got[i] != a[i] ^ b[i] << 20 ^ c[i] << 40);
            assert_eq!(wrong, None, "{shapes:?}");
        }
    }
}
