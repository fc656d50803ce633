//! What of a value neither layout nor, hardly, rounding changes: for finding candidates without comparing all pairs.

use isotrace_tensor::{DType, Tensor};

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
    /// Of a tensor whose floats are f64.
    pub fn of(tensor: &Tensor) -> Self {
        let kind = Kind::of(tensor.dtype());
        let len = tensor.len();
        let Ok(values) = tensor.to_f64() else {
            return Self { len, kind, wild: 0, moments: [0.0; 5] };
        };
        let mut wild = 0;
        let (mut sum, mut magnitude, mut square) = (0.0, 0.0, 0.0);
        let (mut smallest, mut largest) = (f64::INFINITY, f64::NEG_INFINITY);
        for &x in values.iter() {
            if x.abs() < MODERATE {
                sum += x;
                magnitude += x.abs();
                square += x * x;
                smallest = smallest.min(x);
                largest = largest.max(x);
            } else {
                wild += 1;
            }
        }
        Self { len, kind, wild, moments: [sum, magnitude, square, smallest, largest] }
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

    /// Where to look for close signatures in a list sorted by the sum of squares.
    pub fn window(&self) -> (f64, f64) {
        let square = self.moments[2];
        (square - 2.0 * CLOSE * square, square + 2.0 * CLOSE * square)
    }
}

/// Whether equality with another value says nothing: no floats, few elements, few distinct numbers, or one number
/// nearly everywhere.
pub fn is_degenerate(tensor: &Tensor) -> bool {
    // A few thousand elements tell as much as all.
    let stride = (tensor.len() / 4096).max(1);
    let few = match tensor.dtype() {
        DType::F64 => tensor.as_slice::<f64>().map(|x| few_distinct(x.iter().copied().step_by(stride))),
        DType::F32 => {
            tensor.as_slice::<f32>().map(|x| few_distinct(x.iter().map(|&x| x.into()).step_by(stride)))
        }
        _ => tensor.to_f64().map(|x| few_distinct(x.iter().copied().step_by(stride))),
    };
    !tensor.dtype().is_float() || tensor.len() < FEW || few.unwrap_or(true)
}

/// Whether at most four different numbers occur, or one number nearly everywhere.
fn few_distinct(values: impl Iterator<Item = f64>) -> bool {
    let mut seen: Vec<(f64, usize)> = Vec::new();
    let mut looked_at = 0;
    for x in values {
        looked_at += 1;
        match seen.iter().position(|(y, _)| *y == x || y.is_nan() && x.is_nan()) {
            Some(i) => seen[i].1 += 1,
            // From the fifth number on only the shares of the first ones are counted.
            None if seen.len() < 5 => seen.push((x, 1)),
            None => {}
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
        let cases: [(Vec<f64>, bool); 5] = [
            (vec![1.0; 100], true),
            ((0..7).map(f64::from).collect(), true),
            ((0..8).map(f64::from).collect(), false),
            ((0..100).map(|i| f64::from(i % 2)).collect(), true),
            ((0..100).map(|i| if i < 99 { 0.0 } else { 1.0 }).collect(), true),
        ];
        for (values, expected) in cases {
            assert_eq!(is_degenerate(&Tensor::vector(values.clone())), expected, "{values:?}");
        }
    }
}
