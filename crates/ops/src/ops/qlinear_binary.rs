//! com.microsoft `QLinearAdd` and `QLinearMul`: sums and products of 8-bit tensors with a scale and a zero point each,
//! broadcast, on the grid of the result.
//!
//! ONNX Runtime divides the scales first and rounds once at the end, which is not what adding the dequantised numbers
//! and quantising the sum gives: the two differ by one step where a sum lies within rounding of the middle.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, View};

use crate::broadcast::zip;
use crate::grid::Grid;
use crate::{Call, Decision, OpError, Operator};

#[derive(Debug, Clone, Copy)]
enum QLinearBinary {
    Add,
    Mul,
}

/// Parses a `QLinearAdd`.
pub fn add(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(QLinearBinary::Add))
}

/// Parses a `QLinearMul`.
pub fn mul(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(QLinearBinary::Mul))
}

/// The integers of a tensor as floats.
fn floats(x: &Tensor) -> Result<Vec<f32>, OpError> {
    Ok(x.to_i64()?.iter().map(|&q| q as f32).collect())
}

/// Rounds half to even and saturates; the zero point is in `x` already.
fn settle(x: f32, to: &Grid) -> i32 {
    x.round_ties_even().clamp(to.low as f32, to.high as f32) as i32
}

impl Operator for QLinearBinary {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (call.need(0, "A")?, call.need(3, "B")?);
        let (from_a, from_b) = (Grid::read(call, 1, "A", a.dtype())?, Grid::read(call, 4, "B", b.dtype())?);
        let to = Grid::written(call, 6, a.dtype())?;
        let (left, right) = (floats(a)?, floats(b)?);
        let (left, right) = (View::new(&left, a.shape()), View::new(&right, b.shape()));
        let (zero_a, zero_b, zero) = (from_a.zero as f32, from_b.zero as f32, to.zero as f32);
        let (shape, data) = match self {
            Self::Add => {
                let (a_step, b_step) = (from_a.scale / to.scale, from_b.scale / to.scale);
                let fixed = zero - (a_step * zero_a + b_step * zero_b);
                // An operand that stands still along the last axis goes into the fixed part.
                let still = |x: &Tensor| x.shape().last().is_none_or(|&n| n == 1);
                if still(a) && !still(b) {
                    zip(&left, &right, |a, b| settle(b.mul_add(b_step, a.mul_add(a_step, fixed)), &to))?
                } else {
                    zip(&left, &right, |a, b| settle(a.mul_add(a_step, b.mul_add(b_step, fixed)), &to))?
                }
            }
            Self::Mul => {
                let step = from_a.scale * from_b.scale / to.scale;
                zip(&left, &right, |a, b| settle((a - zero_a) * (b - zero_b) * step + zero, &to))?
            }
        };
        Ok(vec![to.tensor(&shape, data)?])
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_products_by_hand() {
        struct Case {
            op: QLinearBinary,
            a: u8,
            b: u8,
            scales: [f32; 3],
            zeros: [u8; 3],
            expected: u8,
        }
        use QLinearBinary::{Add, Mul};
        let cases = [
            // 2 + 3 = 5, ten halves above 1.
            Case { op: Add, a: 12, b: 23, scales: [1.0, 1.0, 0.5], zeros: [10, 20, 1], expected: 11 },
            // 2.5 and 3.5 go to the even neighbour.
            Case { op: Add, a: 2, b: 1, scales: [1.0, 0.5, 1.0], zeros: [0, 0, 0], expected: 2 },
            Case { op: Add, a: 3, b: 1, scales: [1.0, 0.5, 1.0], zeros: [0, 0, 0], expected: 4 },
            Case { op: Add, a: 200, b: 200, scales: [1.0, 1.0, 1.0], zeros: [0, 0, 0], expected: 255 },
            Case { op: Add, a: 0, b: 0, scales: [1.0, 1.0, 1.0], zeros: [9, 9, 0], expected: 0 },
            // (2)(3) / 4 + 1 = 2.5.
            Case { op: Mul, a: 12, b: 23, scales: [0.5, 0.5, 1.0], zeros: [10, 20, 1], expected: 2 },
            Case { op: Mul, a: 255, b: 255, scales: [1.0, 1.0, 1.0], zeros: [0, 0, 0], expected: 255 },
        ];
        for (row, Case { op, a, b, scales, zeros, expected }) in cases.into_iter().enumerate() {
            let scales = scales.map(Tensor::scalar);
            let zeros = zeros.map(Tensor::scalar);
            let (a, b) = (Tensor::vector(vec![a]), Tensor::scalar(b));
            let inputs =
                [&a, &scales[0], &zeros[0], &b, &scales[1], &zeros[1], &scales[2], &zeros[2]].map(Some);
            let out = op.run(&Call::new(&inputs)).unwrap();
            assert_eq!(out[0].as_slice::<u8>().unwrap(), [expected], "row {row}");
        }
    }
}
