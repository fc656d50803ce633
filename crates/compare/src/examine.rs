//! A closer look at two tensors that differ: which elements are worst, and along which axis the bad ones lie.
//!
//! Elements are taken in stretches along the last axis. Of a stretch all indices but the last are one and the same, so
//! that what it comes to is added to each of the other axes once, and no element is asked for its index.

use isotrace_tensor::{DType, Tensor, bf16, f16, unravel};

use crate::judge::{Judge, Tolerance};
use crate::scalar::{Scalar, reader};
use crate::{CompareError, number};

/// Elements a piece.
const PIECE: usize = 1 << 16;
/// Elements that are judged at a time.
const BLOCK: usize = 512;
/// Places along an axis beyond which nobody asks which one it was.
const LONGEST_AXIS: usize = 1 << 16;

/// An element and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Worst {
    /// The index along each axis.
    pub index: Vec<usize>,
    /// The two elements.
    pub values: [Scalar; 2],
    /// |x - y|; infinite where a NaN stands against a number.
    pub difference: f64,
}

/// What lies along one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Along {
    /// The axis.
    pub axis: usize,
    /// Elements beyond the tolerance at each index.
    pub beyond: Vec<u64>,
    /// The largest |x - y| at each index; infinite where a NaN stands against a number.
    pub max_abs: Vec<f64>,
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
    along: Vec<Along>,
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
    let held = held(&judge, x, y);
    let shape = x.shape();
    let wanted = |&axis: &usize| (2..=LONGEST_AXIS).contains(&shape[axis]) && shape[axis] < x.len();
    let axes: Vec<usize> = (0..shape.len()).filter(wanted).collect();
    let strides = isotrace_tensor::strides(shape);
    let along_last = shape.last().copied().unwrap_or(1).max(1);
    let piece = |k: usize| {
        let none =
            |&axis: &usize| Along { axis, beyond: vec![0; shape[axis]], max_abs: vec![0.0; shape[axis]] };
        let mut part = Part { worst: Vec::new(), along: axes.iter().map(none).collect() };
        let (mut apart, mut beyond) = ([0.0; BLOCK], [0; BLOCK]);
        let end = ((k + 1) * PIECE).min(x.len());
        for from in (k * PIECE..end).step_by(BLOCK) {
            let len = BLOCK.min(end - from);
            let (apart, beyond) = (&mut apart[..len], &mut beyond[..len]);
            held(from, apart, beyond);
            part.rank(from, apart, count);
            let mut at = 0;
            while at < len {
                let place = (from + at) % along_last;
                let stretch = (along_last - place).min(len - at);
                part.place(from + at, &apart[at..at + stretch], &beyond[at..at + stretch], shape, &strides);
                at += stretch;
            }
        }
        part
    };
    let part = tree(0, x.len().div_ceil(PIECE).max(1), &piece, count);
    let (a, b) = (reader(x), reader(y));
    let told = |(difference, i)| Worst { index: unravel(i, shape), values: [a(i), b(i)], difference };
    Ok(Examination { worst: part.worst.into_iter().map(told).collect(), along: part.along })
}

/// How far elements from a place on are apart, and whether (1) or not (0) they are beyond the tolerance.
type Held<'t> = Box<dyn Fn(usize, &mut [f64], &mut [u64]) + Sync + 't>;

fn held<'t>(judge: &'t Judge, x: &'t Tensor, y: &'t Tensor) -> Held<'t> {
    macro_rules! floats {
        ($t:ty, $wide:expr) => {{
            let (x, y): (&[$t], &[$t]) = (crate::slice(x), crate::slice(y));
            Box::new(move |from, apart, beyond| {
                for (i, (apart, beyond)) in apart.iter_mut().zip(beyond).enumerate() {
                    let (p, q) = ($wide(x[from + i]), $wide(y[from + i]));
                    *apart = distance([p, 0.0], [q, 0.0]);
                    *beyond = u64::from(judge.beyond(p, q));
                }
            })
        }};
    }
    match (x.dtype(), y.dtype()) {
        (DType::F64, DType::F64) => floats!(f64, |x| x),
        (DType::F32, DType::F32) => floats!(f32, f64::from),
        (DType::F16, DType::F16) => floats!(f16, f16::to_f64),
        (DType::BF16, DType::BF16) => floats!(bf16, bf16::to_f64),
        _ => {
            let outside = judge.one_by_one(x, y);
            let distance: Box<dyn Fn(usize) -> f64 + Sync> =
                if let (Some(a), Some(b)) = (number::integers(x), number::integers(y)) {
                    Box::new(move |i| a(i).abs_diff(b(i)) as f64)
                } else {
                    let (a, b) = (number::reals(x), number::reals(y));
                    Box::new(move |i| distance(a(i), b(i)))
                };
            Box::new(move |from, apart, beyond| {
                for (i, (apart, beyond)) in apart.iter_mut().zip(beyond).enumerate() {
                    *apart = distance(from + i);
                    *beyond = u64::from(outside(from + i));
                }
            })
        }
    }
}

/// Of reals, or of complex numbers as points; infinite for NaN against a number.
#[inline]
fn distance(p: [f64; 2], q: [f64; 2]) -> f64 {
    let nan = |v: [f64; 2]| v[0].is_nan() || v[1].is_nan();
    if p == q || nan(p) && nan(q) {
        return 0.0;
    }
    let across = p[1] - q[1];
    let d = if across == 0.0 { (p[0] - q[0]).abs() } else { (p[0] - q[0]).hypot(across) };
    if d.is_nan() { f64::INFINITY } else { d }
}

impl Part {
    /// Keeps the worst of a block.
    fn rank(&mut self, from: usize, apart: &[f64], count: usize) {
        let most = apart.iter().copied().fold(0.0, f64::max);
        if most > self.border(count) {
            for (i, &d) in apart.iter().enumerate().filter(|(_, d)| **d > 0.0) {
                self.offer(d, from + i, count);
            }
        }
    }

    /// What an element must exceed to be among the worst.
    fn border(&self, count: usize) -> f64 {
        match self.worst.last() {
            Some(last) if self.worst.len() >= count => last.0,
            _ if count == 0 => f64::INFINITY,
            _ => 0.0,
        }
    }

    /// Keeps the worst in order. Elements come in the order of their places.
    fn offer(&mut self, d: f64, i: usize, count: usize) {
        if d <= self.border(count) {
            return;
        }
        let at = self.worst.partition_point(|w| w.0 >= d);
        self.worst.insert(at, (d, i));
        self.worst.truncate(count);
    }

    /// Adds a stretch along the last axis to every axis.
    fn place(&mut self, from: usize, apart: &[f64], beyond: &[u64], shape: &[usize], strides: &[usize]) {
        let most = apart.iter().copied().fold(0.0, f64::max);
        if most == 0.0 && beyond.iter().all(|&n| n == 0) {
            return;
        }
        let total: u64 = beyond.iter().sum();
        let larger = |a: f64, b: f64| if a > b { a } else { b };
        for along in &mut self.along {
            let at = from / strides[along.axis] % shape[along.axis];
            if along.axis + 1 == shape.len() {
                let places = along.beyond[at..].iter_mut().zip(&mut along.max_abs[at..]);
                for ((n, max), (more, &d)) in places.zip(beyond.iter().zip(apart)) {
                    *n += more;
                    *max = larger(d, *max);
                }
            } else {
                along.beyond[at] += total;
                along.max_abs[at] = larger(most, along.max_abs[at]);
            }
        }
    }

    fn and(mut self, other: Self, count: usize) -> Self {
        for (d, i) in other.worst {
            self.offer(d, i, count);
        }
        for (mine, theirs) in self.along.iter_mut().zip(other.along) {
            mine.beyond.iter_mut().zip(theirs.beyond).for_each(|(a, b)| *a += b);
            mine.max_abs.iter_mut().zip(theirs.max_abs).for_each(|(a, b)| *a = a.max(b));
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
    use isotrace_tensor::C64;

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
        let most = found.worst[1].difference;
        assert_eq!([heads.max_abs[7], heads.max_abs[1], found.along[3].max_abs[1]], [most, 0.0, most]);
        assert!(heads.max_abs[0].is_infinite());
    }

    /// i64 beyond 2^53, complex numbers whose imaginary parts differ.
    #[test]
    fn no_digit_is_lost_on_the_way_to_f64() {
        let big = 1i64 << 60;
        let (a, b) = (Tensor::vector(vec![big, big, 5]), Tensor::vector(vec![big + 1, big, 5]));
        let tolerance = Tolerance::default_of(Rule::Torch, DType::I64, DType::I64);
        let found = examine(&a, &b, &tolerance, 3).unwrap();
        let values = [big, big + 1].map(|x| Scalar::Integer(x.into()));
        assert_eq!(found.worst, [Worst { index: vec![0], values, difference: 1.0 }]);
        let (a, b) = (Tensor::vector(vec![C64([1.0, 2.0])]), Tensor::vector(vec![C64([1.0, -2.0])]));
        let found = examine(&a, &b, &tolerance, 3).unwrap();
        assert_eq!(
            (found.worst[0].difference, &found.worst[0].values[1]),
            (4.0, &Scalar::Complex([1.0, -2.0]))
        );
    }
}
