//! What of a value neither layout nor, hardly, rounding changes: for finding candidates without comparing all pairs.

use isotrace_ops::math::vectorise;
use isotrace_tensor::{DType, Tensor};
use rayon::prelude::*;

/// Numbers larger than this are masks, not data: they would drown every moment.
const MODERATE: f64 = 1e30;

/// Fewer elements than this can coincide by chance.
const FEW: usize = 8;

/// Relative distance up to which moments may belong to the same numbers.
const CLOSE: f64 = 1e-5;

/// What kind of elements a value has; values of different kinds never match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Floating point.
    Float,
    /// Integers.
    Int,
    /// Truth values.
    Bool,
    /// Text, complex numbers: compared bit by bit only.
    Other,
}

impl Kind {
    /// The kind of an element type.
    pub fn of(dtype: DType) -> Self {
        if dtype.is_float() {
            Self::Float
        } else if dtype.is_int() {
            Self::Int
        } else if dtype == DType::Bool {
            Self::Bool
        } else {
            Self::Other
        }
    }
}

/// The signature of one value, in f64.
#[derive(Debug, Clone)]
pub struct Signature {
    /// Number of elements.
    pub len: usize,
    /// Kind of elements.
    pub kind: Kind,
    /// Elements beyond the moderate range, NaN counted.
    pub wild: usize,
    /// Sum, sum of absolute values and sum of squares of the moderate elements, smallest and largest of them.
    pub moments: [f64; 5],
}

impl Signature {
    /// Of a tensor.
    pub fn of(tensor: &Tensor) -> Self {
        let kind = Kind::of(tensor.dtype());
        let len = tensor.len();
        let Some(all) = over(tensor, &Lanes::of, &Lanes::of) else {
            return Self { len, kind, wild: 0, moments: [0.0; 5] };
        };
        let all = all.into_iter().reduce(Lanes::and).unwrap_or_default();
        let wild = all.wild.iter().sum::<f64>() as usize;
        let sum = |lanes: [f64; LANES]| lanes.iter().sum::<f64>();
        let smallest = all.smallest.into_iter().fold(f64::INFINITY, f64::min);
        let largest = all.largest.into_iter().fold(f64::NEG_INFINITY, f64::max);
        Self {
            len,
            kind,
            wild,
            moments: [sum(all.sum), sum(all.magnitude), sum(all.square), smallest, largest],
        }
    }

    /// Whether both could hold the same numbers in some order.
    pub fn close(&self, other: &Self) -> bool {
        if self.len != other.len || self.kind != other.kind || self.wild != other.wild {
            return false;
        }
        let [sum, magnitude, square, smallest, largest] = self.moments;
        let [other_sum, other_magnitude, other_square, other_smallest, other_largest] = other.moments;
        let near = |x: f64, y: f64, scale: f64| x == y || (x - y).abs() <= CLOSE * scale;
        let reach = largest.abs().max(smallest.abs()).max(other_largest.abs());
        near(magnitude, other_magnitude, magnitude)
            && near(square, other_square, square)
            && near(sum, other_sum, magnitude)
            && near(smallest, other_smallest, reach)
            && near(largest, other_largest, reach)
    }
}

/// The sum of squares of the moderate elements, the part of a signature that tells most from each other; 0 where the
/// elements are no numbers.
pub fn square(tensor: &Tensor) -> f64 {
    fn of<T: Number>(values: &[T]) -> f64 {
        vectorise(
            #[inline(always)]
            || {
                let mut lanes = [0.0; LANES];
                let (whole, rest) = values.as_chunks::<LANES>();
                for x in whole {
                    for (lane, x) in lanes.iter_mut().zip(x) {
                        *lane += moderate_square(x.number());
                    }
                }
                for (lane, x) in lanes.iter_mut().zip(rest) {
                    *lane += moderate_square(x.number());
                }
                lanes.iter().sum()
            },
        )
    }
    over(tensor, &of, &of).map_or(0.0, |parts| parts.into_iter().sum())
}

#[inline(always)]
fn moderate_square(x: f64) -> f64 {
    if x.abs() < MODERATE { x * x } else { 0.0 }
}

/// Where the sums of squares lie of what may be close to a value that has this one.
pub fn window(square: f64) -> (f64, f64) {
    (square - 2.0 * CLOSE * square, square + 2.0 * CLOSE * square)
}

/// An element of a tensor as a number.
trait Number: Copy + Sync {
    fn number(self) -> f64;
}

impl Number for f64 {
    #[inline(always)]
    fn number(self) -> f64 {
        self
    }
}

/// f32 where a file has it, at any place.
impl Number for [u8; 4] {
    #[inline(always)]
    fn number(self) -> f64 {
        f32::from_le_bytes(self).into()
    }
}

/// What chunks of a fixed size give, in their order: the same bits for any number of threads. `None` where the elements
/// are no numbers.
fn over<R: Send>(
    tensor: &Tensor,
    narrow: &(dyn Fn(&[[u8; 4]]) -> R + Sync),
    wide: &(dyn Fn(&[f64]) -> R + Sync),
) -> Option<Vec<R>> {
    if tensor.dtype() == DType::F32 {
        return Some(tensor.raw_bytes().as_chunks::<4>().0.par_chunks(CHUNK).map(narrow).collect());
    }
    Some(tensor.to_f64().ok()?.par_chunks(CHUNK).map(wide).collect())
}

/// Elements taken by one thread at a time.
const CHUNK: usize = 1 << 14;
/// Sums kept side by side, so that they become vector instructions.
const LANES: usize = 8;

/// What a signature is made of, in lanes.
#[derive(Clone, Copy)]
struct Lanes {
    wild: [f64; LANES],
    sum: [f64; LANES],
    magnitude: [f64; LANES],
    square: [f64; LANES],
    smallest: [f64; LANES],
    largest: [f64; LANES],
}

impl Default for Lanes {
    fn default() -> Self {
        let zero = [0.0; LANES];
        let (smallest, largest) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
        Self { wild: zero, sum: zero, magnitude: zero, square: zero, smallest, largest }
    }
}

impl Lanes {
    fn of<T: Number>(values: &[T]) -> Self {
        vectorise(
            #[inline(always)]
            || {
                let mut lanes = Self::default();
                let (whole, rest) = values.as_chunks::<LANES>();
                for x in whole {
                    for (i, x) in x.iter().enumerate() {
                        lanes.one(i, x.number());
                    }
                }
                for (i, x) in rest.iter().enumerate() {
                    lanes.one(i, x.number());
                }
                lanes
            },
        )
    }

    #[inline(always)]
    fn one(&mut self, i: usize, x: f64) {
        let moderate = x.abs() < MODERATE;
        let y = if moderate { x } else { 0.0 };
        self.wild[i] += if moderate { 0.0 } else { 1.0 };
        self.sum[i] += y;
        self.magnitude[i] += y.abs();
        self.square[i] += y * y;
        let (low, high) = if moderate { (x, x) } else { (f64::INFINITY, f64::NEG_INFINITY) };
        self.smallest[i] = if low < self.smallest[i] { low } else { self.smallest[i] };
        self.largest[i] = if high > self.largest[i] { high } else { self.largest[i] };
    }

    fn and(self, other: Self) -> Self {
        let mut both = self;
        for i in 0..LANES {
            both.wild[i] += other.wild[i];
            both.sum[i] += other.sum[i];
            both.magnitude[i] += other.magnitude[i];
            both.square[i] += other.square[i];
            both.smallest[i] = both.smallest[i].min(other.smallest[i]);
            both.largest[i] = both.largest[i].max(other.largest[i]);
        }
        both
    }
}

/// How far two numbers may be apart relatively that are one but for rounding: a few units of f32.
const ROUNDED: f64 = 1.0 / (1 << 20) as f64;

/// Whether equality with another value says nothing: no floats, few elements, few distinct numbers, or one number
/// nearly everywhere.
pub fn is_degenerate(tensor: &Tensor) -> bool {
    // A few thousand elements tell as much as all.
    let stride = (tensor.len() / 4096).max(1);
    let few = match tensor.dtype() {
        DType::F64 => tensor.as_slice::<f64>().map(|x| few_distinct(x.iter().copied().step_by(stride))),
        DType::F32 => {
            let (elements, _) = tensor.raw_bytes().as_chunks::<4>();
            Ok(few_distinct(elements.iter().map(|x| f32::from_le_bytes(*x).into()).step_by(stride)))
        }
        _ => tensor.to_f64().map(|x| few_distinct(x.iter().copied().step_by(stride))),
    };
    !tensor.dtype().is_float() || tensor.len() < FEW || few.unwrap_or(true)
}

/// Whether at most four different numbers occur, or one number nearly everywhere. What rounding in f32 alone tells apart
/// is one number: sums of shares are 1 in every layer, each in its own way.
fn few_distinct(values: impl Iterator<Item = f64>) -> bool {
    let mut seen: Vec<(f64, usize)> = Vec::new();
    let mut looked_at = 0;
    for x in values {
        looked_at += 1;
        let one = |y: f64| y == x || y.is_nan() && x.is_nan() || (x - y).abs() <= ROUNDED * y.abs();
        match seen.iter().position(|(y, _)| one(*y)) {
            Some(i) => seen[i].1 += 1,
            // From the fifth number on only the shares of the first ones are counted.
            None if seen.len() < 5 => seen.push((x, 1)),
            None => {}
        }
        // Nothing that follows can make one of them stand nearly everywhere.
        if seen.len() == 5 && seen.iter().all(|&(_, count)| count + FEW / 2 <= looked_at) {
            return false;
        }
    }
    seen.len() < 5 || seen.iter().any(|&(_, count)| count + FEW / 2 > looked_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_and_rounding_do_not_matter_and_masks_do_not_drown() {
        let numbers: Vec<f64> = (0..24).map(|i| (f64::from(i) * 0.7).sin()).collect();
        let mut masked = numbers.clone();
        masked[3] = -3.4e38;
        let a = Tensor::from_vec(&[4, 6], masked.clone()).unwrap();
        let b = a.permute(&[1, 0]).unwrap();
        assert!(Signature::of(&a).close(&Signature::of(&b)));
        masked[5] += 0.01;
        assert!(!Signature::of(&a).close(&Signature::of(&Tensor::vector(masked))));
    }

    #[test]
    fn degenerate_values() {
        let cases: [(Vec<f64>, bool); 7] = [
            (vec![1.0; 100], true),
            ((0..7).map(f64::from).collect(), true),
            ((0..8).map(f64::from).collect(), false),
            ((0..100).map(|i| f64::from(i % 2)).collect(), true),
            ((0..100).map(|i| if i < 99 { 0.0 } else { 1.0 }).collect(), true),
            ((0..100).map(|i| 1.0 + f64::from(i - 50) * 2f64.powi(-27)).collect(), true),
            ((0..100).map(|i| 1.0 + f64::from(i - 50) * 2f64.powi(-17)).collect(), false),
        ];
        for (values, expected) in cases {
            assert_eq!(is_degenerate(&Tensor::vector(values.clone())), expected, "{values:?}");
        }
    }
}
