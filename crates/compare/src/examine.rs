//! A closer look at two tensors that differ: which elements are worst, and along which axis the bad ones lie.

use isotrace_tensor::{DType, Tensor, unravel};

use crate::judge::{Judge, Tolerance};
use crate::{CompareError, number};

/// Elements a piece.
const PIECE: usize = 1 << 16;
/// Places along an axis beyond which nobody asks which one it was.
const LONGEST_AXIS: usize = 1 << 16;

/// An element and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Worst {
    /// The index along each axis.
    pub index: Vec<usize>,
    /// The two numbers; of complex ones the real parts.
    pub values: [f64; 2],
    /// |x - y|; infinite where a NaN stands against a number.
    pub difference: f64,
}

/// Elements beyond the tolerance along one axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Along {
    /// The axis.
    pub axis: usize,
    /// Elements beyond at each index.
    pub beyond: Vec<u64>,
}

/// What a closer look found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Examination {
    /// The elements that are farthest apart, worst first; equal ones in C order.
    pub worst: Vec<Worst>,
    /// For every axis that has more than one place and not too many.
    pub along: Vec<Along>,
}

/// What one piece found.
struct Part {
    worst: Vec<(f64, usize)>,
    along: Vec<Vec<u64>>,
}

/// Looks at every element again: the `count` worst, and how many are beyond `tolerance` at each index of each axis.
///
/// For tensors that a comparison found wanting; a pass of its own, since nobody asks this of tensors that agree.
pub fn examine(
    x: &Tensor,
    y: &Tensor,
    tolerance: &Tolerance,
    count: usize,
) -> Result<Examination, CompareError> {
    crate::comparable(x, y)?;
    if x.dtype() == DType::String {
        return Ok(Examination::default());
    }
    let judge = Judge::new(*tolerance, x.dtype(), y.dtype());
    let complex = number::is_complex(x.dtype()) || number::is_complex(y.dtype());
    let (a, b) = (number::reals(x), number::reals(y));
    let shape = x.shape();
    let axes: Vec<usize> = (0..shape.len())
        .filter(|&axis| (2..=LONGEST_AXIS).contains(&shape[axis]) && shape[axis] < x.len())
        .collect();
    let strides = isotrace_tensor::strides(shape);
    let piece = |k: usize| {
        let mut part =
            Part { worst: Vec::new(), along: axes.iter().map(|&axis| vec![0; shape[axis]]).collect() };
        for i in k * PIECE..((k + 1) * PIECE).min(x.len()) {
            let (p, q) = (a(i), b(i));
            let d = distance(p, q);
            if d > 0.0 {
                part.offer(d, i, count);
            }
            let beyond = if complex { !judge.complex(p, q) } else { judge.beyond(p[0], q[0]) };
            if beyond {
                for (counts, &axis) in part.along.iter_mut().zip(&axes) {
                    counts[i / strides[axis] % shape[axis]] += 1;
                }
            }
        }
        part
    };
    let part = tree(0, x.len().div_ceil(PIECE).max(1), &piece, count);
    Ok(Examination {
        worst: part
            .worst
            .into_iter()
            .map(|(difference, i)| Worst { index: unravel(i, shape), values: [a(i)[0], b(i)[0]], difference })
            .collect(),
        along: axes.into_iter().zip(part.along).map(|(axis, beyond)| Along { axis, beyond }).collect(),
    })
}

/// Of reals, or of complex numbers as points; infinite for NaN against a number.
fn distance(p: [f64; 2], q: [f64; 2]) -> f64 {
    let nan = |v: [f64; 2]| v[0].is_nan() || v[1].is_nan();
    if p == q || nan(p) && nan(q) {
        return 0.0;
    }
    let d = (p[0] - q[0]).hypot(p[1] - q[1]);
    if d.is_nan() { f64::INFINITY } else { d }
}

impl Part {
    /// Keeps the worst in order. Elements come in the order of their places.
    fn offer(&mut self, d: f64, i: usize, count: usize) {
        if self.worst.len() == count && self.worst.last().is_none_or(|last| d <= last.0) {
            return;
        }
        let at = self.worst.partition_point(|w| w.0 >= d);
        self.worst.insert(at, (d, i));
        self.worst.truncate(count);
    }

    fn and(mut self, other: Self, count: usize) -> Self {
        for (d, i) in other.worst {
            self.offer(d, i, count);
        }
        for (mine, theirs) in self.along.iter_mut().zip(other.along) {
            mine.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        }
        self
    }
}

fn tree(from: usize, to: usize, piece: &(impl Fn(usize) -> Part + Sync), count: usize) -> Part {
    if to - from == 1 {
        return piece(from);
    }
    let middle = from + (to - from) / 2;
    let (one, other) = rayon::join(|| tree(from, middle, piece, count), || tree(middle, to, piece, count));
    one.and(other, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Rule;

    #[test]
    fn a_wrong_head_is_found_by_its_axis() {
        let n = 2 * 12 * 50 * 60;
        let a: Vec<f32> = (0..n).map(|i| (i as f32).sin()).collect();
        let mut b = a.clone();
        for (i, v) in b.iter_mut().enumerate() {
            if i / 3000 % 12 == 7 {
                *v += 0.5;
            }
        }
        b[7 * 3000 + 61] += 1.0;
        b[5] = f32::NAN;
        let shape = [2, 12, 50, 60];
        let (a, b) = (Tensor::from_vec(&shape, a).unwrap(), Tensor::from_vec(&shape, b).unwrap());
        let tolerance = Tolerance::default_of(Rule::Torch, DType::F32, DType::F32);
        let found = examine(&a, &b, &tolerance, 3).unwrap();
        let places: Vec<_> = found.worst.iter().map(|w| w.index.clone()).collect();
        assert_eq!(places[..2], [vec![0, 0, 0, 5], vec![0, 7, 1, 1]]);
        assert_eq!(found.worst.len(), 3);
        let heads = &found.along[1];
        assert_eq!((heads.axis, heads.beyond[7], heads.beyond[0]), (1, 6000, 1));
        assert_eq!(heads.beyond.iter().sum::<u64>(), 6001);
        assert_eq!(found.along.len(), 4);
    }
}
