//! Softmax and LogSoftmax along an axis, the row's maximum taken off first.
//!
//! Before version 13 the axes from `axis` on (by default 1) are flattened into one row; since then `axis` is one axis,
//! by default the last. A row of minus infinity alone gives NaN, as 0/0 does.

#![expect(
    clippy::redundant_closure,
    reason = "a function passed by name is called through a shim, which is not inlined for certain"
)]

use std::mem::MaybeUninit;

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, normalise_axis};

use crate::budget::{self, Budget, Unit};
use crate::math::{grain, row, vectorise};
use crate::{Call, Float, OpError, Operator, attributes, for_float, parallel, room};

#[derive(Debug)]
struct Softmax {
    log: bool,
    axis: i64,
    /// Whether all axes from `axis` on make one row.
    flatten: bool,
}

fn parse(node: &Node, log: bool) -> Result<Box<dyn Operator>, OpError> {
    let flatten = node.version < 13;
    let axis = attributes::int_or(node, "axis", if flatten { 1 } else { -1 })?;
    Ok(Box::new(Softmax { log, axis, flatten }))
}

/// Parses a node of Softmax.
pub fn softmax(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, false)
}

/// Parses a node of LogSoftmax.
pub fn log_softmax(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, true)
}

/// The shape as (outer, row, inner) for rows along `axis`, or along all axes from there on where `flatten` says so.
pub(crate) fn split(shape: &[usize], axis: i64, flatten: bool) -> Result<[usize; 3], OpError> {
    if flatten {
        // The axis may also be the rank: rows of one element.
        let axis = if axis == shape.len() as i64 { shape.len() } else { normalise_axis(axis, shape.len())? };
        return Ok([shape[..axis].iter().product(), shape[axis..].iter().product(), 1]);
    }
    // A scalar is a row of one.
    if shape.is_empty() && (axis == 0 || axis == -1) {
        return Ok([1, 1, 1]);
    }
    let axis = normalise_axis(axis, shape.len())?;
    Ok([shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()])
}

/// One row of softmax.
#[inline(always)]
pub(crate) fn softmax_row<T: Float>(x: &[T], y: &mut [T]) {
    let max = row::max(x);
    for (y, &x) in y.iter_mut().zip(x) {
        *y = (x - max).exp();
    }
    let sum = row::sum(
        y,
        #[inline(always)]
        |y| y,
    );
    for y in y {
        *y = *y / sum;
    }
}

/// One row of log-softmax.
#[inline(always)]
pub(crate) fn log_softmax_row<T: Float>(x: &[T], y: &mut [T]) {
    let max = row::max(x);
    let sum = row::sum(
        x,
        #[inline(always)]
        |x| (x - max).exp(),
    );
    let log = sum.ln();
    for (y, &x) in y.iter_mut().zip(x) {
        // Not x - (max + log): where max is large, the sum would swallow the logarithm.
        *y = (x - max) - log;
    }
}

/// Applies `f` to each row of a tensor seen as (outer, row, inner), rows running along the middle. Many rows are
/// shared among threads. `f` must be an `#[inline(always)]` closure.
pub(crate) fn each_row<T: Float>(
    x: &[T],
    [_, len, inner]: [usize; 3],
    f: impl Fn(&[T], &mut [T]) + Sync,
) -> Vec<T> {
    if x.is_empty() {
        return Vec::new();
    }
    let block = len * inner;
    let grain = grain(x.len()).div_ceil(block) * block;
    let run = |i: usize, out: &mut [MaybeUninit<T>]| {
        let x = &x[i * grain..];
        // Cleared by whom it belongs to: rows are read while they are made.
        out.fill(MaybeUninit::new(T::ZERO));
        #[expect(unsafe_code, reason = "memory that need not be cleared first")]
        // SAFETY: all of it has just been written.
        let out = unsafe { out.assume_init_mut() };
        vectorise(
            #[inline(always)]
            || {
                if inner == 1 {
                    for (y, x) in out.chunks_mut(len).zip(x.chunks(len)) {
                        f(x, y);
                    }
                    return;
                }
                let (mut from, mut to) = (vec![T::ZERO; len], vec![T::ZERO; len]);
                for (y, x) in out.chunks_mut(block).zip(x.chunks(block)) {
                    for i in 0..inner {
                        for (k, from) in from.iter_mut().enumerate() {
                            *from = x[k * inner + i];
                        }
                        f(&from, &mut to);
                        for (k, to) in to.iter().enumerate() {
                            y[k * inner + i] = *to;
                        }
                    }
                }
            },
        );
    };
    #[expect(unsafe_code, reason = "memory that need not be cleared first")]
    // SAFETY: the runs cover everything, and each is written whole.
    let made = unsafe { room::filled(x.len(), |out| parallel::chunks(out, grain, &run)) };
    made.expect("room for as many elements as there are")
}

impl Operator for Softmax {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "input")?;
        let rows = split(x.shape(), self.axis, self.flatten)?;
        let y = for_float!(x.dtype(), "input", T => {
            let data = x.as_slice::<T>()?;
            let y = if self.log {
                each_row(data, rows, #[inline(always)] |x, y| log_softmax_row(x, y))
            } else {
                each_row(data, rows, #[inline(always)] |x, y| softmax_row(x, y))
            };
            Ok(Tensor::from_vec(x.shape(), y)?)
        })?;
        Ok(vec![y])
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let x = call.need(0, "input")?;
        let rows = split(x.shape(), self.axis, self.flatten)?;
        let (x, y) = (x.reshape(&rows)?, output.reshape(&rows)?);
        if self.log { budget::log_softmax(&x, &y, 1, unit) } else { budget::softmax(&x, &y, 1, unit) }
    }

    /// |dy_i| <= p_i s for softmax and s for its logarithm, s = e_i (1 - 2 p_i) + sum p e, from the derivative
    /// p_i (delta_ij - p_j).
    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let [outer, len, inner] = split(outputs[0].shape(), self.axis, self.flatten)?;
        let Some(e) = errors.first().and_then(Option::as_ref) else {
            return crate::flow::propagate(self.flow(), &|c| self.run(c), call, outputs, errors);
        };
        let (e, y) = (e.to_f64()?, outputs[0].to_f64()?);
        let mut out = vec![0.0; y.len()];
        for o in 0..outer {
            for i in 0..inner {
                let places = || (0..len).map(|k| (o * len + k) * inner + i);
                let p = |at: usize| if self.log { y[at].exp() } else { y[at] };
                let finite = |x: f64| if x.is_nan() { 0.0 } else { x };
                let mean: f64 = places().map(|at| finite(p(at) * e[at])).sum();
                for at in places() {
                    let weight = if self.log { 1.0 } else { p(at) };
                    // (1 - p) e of its own, and p e of every other.
                    out[at] = finite(weight * (finite(e[at]) * (1.0 - 2.0 * finite(p(at))) + mean));
                }
            }
        }
        Ok(vec![Tensor::from_vec(outputs[0].shape(), out)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(op: &Softmax, x: &Tensor) -> Tensor {
        op.run(&Call::new(&[Some(x)])).unwrap().remove(0)
    }

    proptest! {
        #[test]
        fn rows_against_the_definition(
            shape in prop::collection::vec(0usize..5, 1..4), seed in 0u64..1000, axis in -3i64..3,
            flatten: bool, log: bool,
        ) {
            prop_assume!((-(shape.len() as i64)..shape.len() as i64).contains(&axis));
            let n: usize = shape.iter().product();
            let x: Vec<f64> = (0..n).map(|i| ((i as f64 + 1.3) * (seed as f64 + 0.7)).sin() * 40.0).collect();
            let [outer, len, inner] = split(&shape, axis, flatten).unwrap();
            let mut expected = vec![0.0; n];
            for o in 0..outer {
                for i in 0..inner {
                    let at = |k: usize| (o * len + k) * inner + i;
                    let max = (0..len).map(|k| x[at(k)]).fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = (0..len).map(|k| (x[at(k)] - max).exp()).sum();
                    for k in 0..len {
                        let d = x[at(k)] - max;
                        expected[at(k)] = if log { d - sum.ln() } else { d.exp() / sum };
                    }
                }
            }
            let op = Softmax { log, axis, flatten };
            let x = Tensor::from_vec(&shape, x).unwrap();
            for (dtype, tolerance) in [(isotrace_tensor::DType::F64, 1e-14), (isotrace_tensor::DType::F32, 1e-5)] {
                let y = run(&op, &x.cast(dtype).unwrap());
                for (y, e) in y.to_f64().unwrap().iter().zip(&expected) {
                    prop_assert!((y - e).abs() <= tolerance * (1.0 + e.abs()), "{} is not {}", y, e);
                }
            }
        }
    }

    #[test]
    fn masks_infinities_and_huge_scores() {
        let op = Softmax { log: false, axis: -1, flatten: false };
        let inf = f32::INFINITY;
        let x = Tensor::from_vec(&[3, 2], vec![1e38, 1e38, 0.0, -inf, -inf, -inf]).unwrap();
        let y = run(&op, &x);
        let y = y.as_slice::<f32>().unwrap();
        assert_eq!(y[..4], [0.5, 0.5, 1.0, 0.0]);
        assert!(y[4].is_nan() && y[5].is_nan());
    }

    #[test]
    fn the_bound_holds_to_first_order() {
        let op = Softmax { log: false, axis: -1, flatten: false };
        let x = Tensor::from_vec(&[1, 4], vec![0.3, -1.0, 2.0, 0.1]).unwrap();
        let e = Tensor::from_vec(&[1, 4], vec![1e-7, 3e-7, 2e-7, 1e-7]).unwrap();
        let y = run(&op, &x);
        let bound =
            op.propagate(&Call::new(&[Some(&x)]), std::slice::from_ref(&y), &[Some(e.clone())]).unwrap();
        let (x, e, y) = (x.to_f64().unwrap(), e.to_f64().unwrap(), y.to_f64().unwrap());
        let mut largest = [0f64; 4];
        for signs in 0..16 {
            let moved = (0..4).map(|i| x[i] + if signs >> i & 1 == 0 { e[i] } else { -e[i] }).collect();
            let moved = run(&op, &Tensor::from_vec(&[1, 4], moved).unwrap());
            for (i, m) in moved.to_f64().unwrap().iter().enumerate() {
                largest[i] = largest[i].max((m - y[i]).abs());
            }
        }
        for (bound, largest) in bound[0].to_f64().unwrap().iter().zip(largest) {
            assert!(largest <= bound * 1.00001 && largest > bound * 0.99, "{largest} against {bound}");
        }
    }
}
