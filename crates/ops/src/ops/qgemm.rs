//! com.microsoft `QGemm`: alpha op(A) op(B) + C of 8-bit integers, op a transpose where asked. C holds 32-bit integers on
//! the grid of the product (scale alpha times scale A times scale B) and broadcasts.
//!
//! The sums are exact, rounded to f32 and scaled once. Without a scale of the output that is the result; with one, it is
//! an 8-bit integer.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, View};

use super::integer::centred;
use super::matmul::matmul;
use crate::budget::{self, Budget, Unit};
use crate::grid::{Grid, single};
use crate::{Call, Decision, Float, Flow, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct QGemm {
    alpha: f32,
    trans_a: bool,
    trans_b: bool,
    /// Whether the output is an integer.
    integer: bool,
}

/// Where the output's scale is.
const Y_SCALE: usize = 7;

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(QGemm {
        alpha: attributes::float_or(node, "alpha", 1.0)?,
        trans_a: attributes::flag(node, "transA", false)?,
        trans_b: attributes::flag(node, "transB", false)?,
        integer: node.inputs.get(Y_SCALE).is_some_and(Option::is_some),
    }))
}

fn transposed(x: &Tensor, transpose: bool, name: &str) -> Result<Tensor, OpError> {
    match x.rank() {
        2 if transpose => Ok(x.permute(&[1, 0])?),
        2 => Ok(x.clone()),
        _ => {
            Err(OpError::Input(format!("{name} has shape {:?}; QGemm takes matrices (two axes)", x.shape())))
        }
    }
}

impl QGemm {
    fn sums(&self, call: &Call<'_>) -> Result<(Vec<usize>, Vec<f64>), OpError> {
        let a = transposed(call.need(0, "A")?, self.trans_a, "A")?;
        let b = transposed(call.need(3, "B")?, self.trans_b, "B")?;
        let (left, right) = (centred(&a, call.get(2), 0, "A")?, centred(&b, call.get(5), 1, "B")?);
        let (shape, mut sums) = matmul(&left.view::<f64>()?, &right.view::<f64>()?)?;
        if let Some(c) = call.get(6) {
            let bias = c.to_f64()?;
            let bias = View::new(&bias, c.shape()).broadcast(&shape)?;
            sums.iter_mut().zip(bias.iter()).for_each(|(sum, c)| *sum += c);
        }
        // As 32-bit sums wrap.
        for x in &mut sums {
            *x = f64::from(*x as i64 as i32);
        }
        Ok((shape, sums))
    }

    /// alpha times scale A times scale B, for each column.
    fn scales<T: Float>(&self, call: &Call<'_>, width: usize) -> Result<Vec<T>, OpError> {
        let a = T::of(self.alpha.into()) * T::of(single(call, 1, "a_scale")?);
        let scales = call.need(4, "b_scale")?;
        let b = scales.to_f64()?;
        match b.len() {
            1 => Ok(vec![a * T::of(b[0]); width]),
            n if n == width => Ok(b.iter().map(|&b| a * T::of(b)).collect()),
            _ => Err(OpError::Input(format!(
                "b_scale has shape {:?}, expected one number or one for each of {width} columns",
                scales.shape()
            ))),
        }
    }

    fn floats<T: Float>(&self, call: &Call<'_>) -> Result<Tensor, OpError> {
        let (shape, sums) = self.sums(call)?;
        let scales = self.scales::<T>(call, shape[1])?;
        let out = sums.iter().enumerate().map(|(i, &sum)| T::of(sum) * scales[i % shape[1]]).collect();
        Ok(Tensor::from_vec(&shape, out)?)
    }

    fn integers(&self, call: &Call<'_>) -> Result<Tensor, OpError> {
        let to = Grid::written(call, Y_SCALE, call.need(0, "A")?.dtype())?;
        let (shape, sums) = self.sums(call)?;
        let scales: Vec<f32> = self.scales::<f32>(call, shape[1])?.iter().map(|x| x / to.scale).collect();
        let out =
            sums.iter().enumerate().map(|(i, &sum)| to.steps(sum as f32 * scales[i % shape[1]])).collect();
        to.tensor(&shape, out)
    }
}

impl Operator for QGemm {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        if call.get(Y_SCALE).is_some() {
            return Ok(vec![self.integers(call)?]);
        }
        let floats = call.need(1, "a_scale")?.dtype();
        Ok(vec![for_float!(floats, "a_scale", T => self.floats::<T>(call))?])
    }

    fn flow(&self) -> Flow {
        Flow::General
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if !output.dtype().is_float() {
            return Ok(budget::exact(output.len()));
        }
        // Two roundings of the scale, one of the sum, one of their product.
        let y = output.to_f64()?.into_owned();
        budget::steps(output, y.into_iter().map(f64::abs), unit)
    }

    fn decision(&self) -> Decision {
        if self.integer { Decision::Outputs } else { Decision::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tensor;

    #[test]
    fn floats_and_integers_by_hand() {
        // op(A) - 1 = (1, 2), op(B) = ((1, 3), (2, 4)): (5, 11), with C (6, 10).
        let (a, b) = (tensor(&[2, 1], &[2u8, 3]), tensor(&[2, 2], &[1i8, 2, 3, 4]));
        let (half, scales) = (Tensor::scalar(0.5f32), Tensor::vector(vec![1f32, 2.0]));
        let (one, zeros) = (Tensor::scalar(1u8), Tensor::vector(vec![0i8, 0]));
        let c = Tensor::vector(vec![1i32, -1]);
        let fine = Tensor::scalar(0.25f32);
        let inputs = [&a, &half, &one, &b, &scales, &zeros, &c, &fine, &one].map(Some);
        let op = QGemm { alpha: 0.5, trans_a: true, trans_b: true, integer: true };
        let out = op.run(&Call::new(&inputs[..7])).unwrap();
        assert_eq!(out[0].as_slice::<f32>().unwrap(), [1.5, 5.0]);
        let out = op.run(&Call::new(&inputs)).unwrap();
        assert_eq!(out[0].as_slice::<u8>().unwrap(), [7, 21]);
    }
}
