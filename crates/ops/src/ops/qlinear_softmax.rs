//! com.microsoft `QLinearSoftmax`: softmax of 8-bit numbers along an axis, on the grid of the result.
//!
//! ONNX Runtime keeps the 256 exponentials that can occur, as large as their sum allows, takes the row's maximum for
//! the largest integer, adds in f32 from left to right, and multiplies by the whole part of 1 / scale: not by 1 / scale. The
//! scale that calibration likes best, 1/255 in f32, has an inverse just below 255, so a certainty becomes 254 steps there,
//! which dequantised softmax, quantised again, does not give.
//! Where the result passes the range of i8 it wraps there; here it saturates.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, normalise_axis};

use crate::grid::Grid;
use crate::{Call, Decision, Float, OpError, Operator, attributes};

#[derive(Debug)]
struct QLinearSoftmax {
    axis: i64,
    /// Before version 13 of ONNX's operators softmax took all axes from `axis` on as one.
    flatten: bool,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let opset = attributes::int(node, "opset")?
        .ok_or_else(|| OpError::Setting("QLinearSoftmax needs the attribute \"opset\"".into()))?;
    let flatten = opset < 13;
    Ok(Box::new(QLinearSoftmax { axis: attributes::int_or(node, "axis", -1)?, flatten }))
}

/// The exponentials of x scale for x = 0, -1, ..., -255, all times the largest power that leaves room for `terms`.
fn exponentials(scale: f32, terms: usize) -> Vec<f32> {
    let room = (f32::MAX / terms as f32).ln();
    let shift = (f64::from(room) - 5.0).max(0.0) / f64::from(scale);
    (0..256).map(|k| Float::exp((shift - f64::from(k)) * f64::from(scale)) as f32).collect()
}

/// One row: `x` holds integers from `low` on.
fn row(x: &[i64], table: &[f32], to: &Grid, out: &mut [i32]) {
    let Some(&largest) = x.iter().max() else { return };
    let power = |x: i64| table[(largest - x) as usize];
    let sum = x.iter().fold(0f32, |sum, &x| sum + power(x));
    let factor = (1.0 / to.scale).floor();
    for (out, &x) in out.iter_mut().zip(x) {
        let steps = (power(x) * factor / sum).round_ties_even() as i32;
        *out = steps.saturating_add(to.zero).clamp(to.low, to.high);
    }
}

impl Operator for QLinearSoftmax {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let from = Grid::read(call, 1, "X", x.dtype())?;
        let to = Grid::written(call, 3, x.dtype())?;
        let axis = normalise_axis(self.axis, x.rank())?;
        let data = x.to_i64()?;
        let mut out = vec![0; x.len()];
        if out.is_empty() {
            return Ok(vec![to.tensor(x.shape(), out)?]);
        }
        let (len, inner) = if self.flatten {
            (x.shape()[axis..].iter().product(), 1)
        } else {
            (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>())
        };
        let table = exponentials(from.scale, len);
        if inner == 1 {
            data.chunks(len).zip(out.chunks_mut(len)).for_each(|(x, out)| row(x, &table, &to, out));
        } else {
            let (mut line, mut done) = (vec![0; len], vec![0; len]);
            for start in (0..x.len()).filter(|i| i / inner % len == 0) {
                line.iter_mut().enumerate().for_each(|(k, x)| *x = data[start + k * inner]);
                row(&line, &table, &to, &mut done);
                done.iter().enumerate().for_each(|(k, &y)| out[start + k * inner] = y);
            }
        }
        Ok(vec![to.tensor(x.shape(), out)?])
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_columns_and_all_at_once() {
        // ln 3 apart, thereabouts: shares of 1/4 and 3/4.
        let x = Tensor::from_vec(&[2, 2], vec![10u8, 11, 11, 10]).unwrap();
        let (scale, zero) = (Tensor::scalar(3f32.ln()), Tensor::scalar(0u8));
        let (fine, one) = (Tensor::scalar(0.01f32), Tensor::scalar(1u8));
        let inputs = [&x, &scale, &zero, &fine, &one].map(Some);
        let cases: [(i64, bool, [u8; 4]); 4] = [
            (-1, false, [26, 76, 76, 26]),
            (0, false, [26, 76, 76, 26]),
            (1, true, [26, 76, 76, 26]),
            // 12.5 and 37.5 hundredths: ties, as far as f32 sees them.
            (0, true, [13, 38, 38, 13]),
        ];
        for (axis, flatten, expected) in cases {
            let out = QLinearSoftmax { axis, flatten }.run(&Call::new(&inputs)).unwrap();
            let got: Vec<i16> = out[0].as_slice::<u8>().unwrap().iter().map(|&q| i16::from(q)).collect();
            let near = got
                .iter()
                .zip(expected)
                .all(|(g, e)| (g - i16::from(e)).abs() <= i16::from(axis == 0 && flatten));
            assert!(near, "{axis} {flatten}: {got:?} for {expected:?}");
        }
    }

    #[test]
    fn the_whole_part_of_the_inverse_scale_counts() {
        let x = Tensor::vector(vec![255u8, 0]);
        let (one, zero) = (Tensor::scalar(1f32), Tensor::scalar(0u8));
        for (scale, expected) in [(1f32 / 255.0, [254u8, 0]), (1f32 / 256.0, [255, 0])] {
            let fine = Tensor::scalar(scale);
            let inputs = [&x, &one, &zero, &fine, &zero].map(Some);
            let out = QLinearSoftmax { axis: -1, flatten: false }.run(&Call::new(&inputs)).unwrap();
            assert_eq!(out[0].as_slice::<u8>().unwrap(), expected, "{scale}");
        }
    }

    #[test]
    fn one_of_many_takes_all_and_saturates() {
        let x = Tensor::vector(vec![127i8, -128, -128]);
        let (one, zero) = (Tensor::scalar(1f32), Tensor::scalar(0i8));
        let fine = Tensor::scalar(1f32 / 256.0);
        let inputs = [&x, &one, &zero, &fine, &zero].map(Some);
        let out = QLinearSoftmax { axis: -1, flatten: false }.run(&Call::new(&inputs)).unwrap();
        assert_eq!(out[0].as_slice::<i8>().unwrap(), [127, 0, 0]);
    }
}
