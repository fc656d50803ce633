//! com.microsoft `MatMulIntegerToFloat` and `DynamicQuantizeMatMul`: a product of 8-bit integers, scaled to floats, plus a
//! bias. The second one puts its floats A on a grid of 256 numbers first, as `DynamicQuantizeLinear` does.
//!
//! The sums are exact; they are rounded to f32, multiplied by scale A times scale B, and the bias is added. Scale, zero
//! point and bias of B are one number or one a column.
//!
//! The integers that `DynamicQuantizeMatMul` decides on do not show. A float64 run decides them in f32, from its own
//! numbers: an element within rounding of the middle between two may fall to the other side than in the declared run, so
//! the bounds allow it one step.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor};

use super::dynamic_quantize;
use super::integer::centred;
use super::matmul::matmul;
use crate::budget::{self, Budget, Unit};
use crate::{Call, Float, OpError, Operator, flow, for_float};

#[derive(Debug)]
struct IntegerProduct {
    /// Whether A is float.
    dynamic: bool,
}

/// Parses a `MatMulIntegerToFloat`.
pub fn build(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(IntegerProduct { dynamic: false }))
}

/// Parses a `DynamicQuantizeMatMul`.
pub fn dynamic(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(IntegerProduct { dynamic: true }))
}

/// The places of the inputs.
struct Places {
    b_scale: usize,
    b_zero: usize,
    bias: usize,
}

/// A call with its integers multiplied.
struct Product<T> {
    shape: Vec<usize>,
    /// A less its zero point.
    left: Tensor,
    /// B less its zero point.
    right: Tensor,
    sums: Vec<f64>,
    a_scale: T,
    /// One a column.
    b_scale: Vec<T>,
    /// One a column.
    bias: Option<Vec<T>>,
}

/// One number for every column.
fn columns<T: Float>(x: &Tensor, width: usize, name: &str) -> Result<Vec<T>, OpError> {
    let numbers = x.to_f64()?;
    match numbers.len() {
        1 => Ok(vec![T::of(numbers[0]); width]),
        n if n == width => Ok(numbers.iter().map(|&x| T::of(x)).collect()),
        _ => Err(OpError::Input(format!(
            "{name} has shape {:?}, expected one number or one for each of {width} columns",
            x.shape()
        ))),
    }
}

impl IntegerProduct {
    fn places(&self) -> Places {
        if self.dynamic {
            Places { b_scale: 2, b_zero: 3, bias: 4 }
        } else {
            Places { b_scale: 3, b_zero: 5, bias: 6 }
        }
    }

    fn multiply<T: Float>(&self, call: &Call<'_>) -> Result<Product<T>, OpError> {
        let (a, b) = (call.need(0, "A")?, call.need(1, "B")?);
        let at = self.places();
        let (left, a_scale) = if self.dynamic {
            let single = a.cast(DType::F32)?;
            let single = single.as_slice::<f32>()?;
            let grid = dynamic_quantize::grid(single);
            let steps = single.iter().map(|&x| f64::from(grid.nearest(x) - grid.zero)).collect();
            (Tensor::from_vec(a.shape(), steps)?, dynamic_quantize::scale(a.as_slice::<T>()?))
        } else {
            let scale = crate::grid::single(call, 2, "a_scale")?;
            (centred(a, call.get(4), a.rank().saturating_sub(2), "A")?, T::of(scale))
        };
        let right = centred(b, call.get(at.b_zero), b.rank().saturating_sub(1), "B")?;
        let (shape, sums) = matmul(&left.view::<f64>()?, &right.view::<f64>()?)?;
        let width = if b.rank() > 1 { b.shape()[b.rank() - 1] } else { 1 };
        Ok(Product {
            shape,
            left,
            right,
            // As 32-bit sums wrap.
            sums: sums.into_iter().map(|x| f64::from(x as i64 as i32)).collect(),
            a_scale,
            b_scale: columns(call.need(at.b_scale, "b_scale")?, width, "b_scale")?,
            bias: call.get(at.bias).map(|bias| columns(bias, width, "bias")).transpose()?,
        })
    }

    fn compute<T: Float>(&self, call: &Call<'_>) -> Result<Tensor, OpError> {
        let product = self.multiply::<T>(call)?;
        let scales: Vec<T> = product.b_scale.iter().map(|&b| product.a_scale * b).collect();
        let mut out: Vec<T> = product.sums.iter().map(|&x| T::of(x)).collect();
        for row in out.chunks_mut(scales.len().max(1)) {
            row.iter_mut().zip(&scales).for_each(|(y, &scale)| *y *= scale);
            if let Some(bias) = &product.bias {
                row.iter_mut().zip(bias).for_each(|(y, &bias)| *y += bias);
            }
        }
        Ok(Tensor::from_vec(&product.shape, out)?)
    }

    /// How far the number that each element of A is put at may move, when each moves by up to `errors` and rounding is
    /// of unit `u`: with the scale, and by a step where it is near the middle between two.
    fn steps(call: &Call<'_>, errors: &[f64], u: f64) -> Result<Tensor, OpError> {
        let a = call.need(0, "A")?;
        let x = a.to_f64()?;
        let scale = dynamic_quantize::scale(&x);
        let relative = dynamic_quantize::scale_error(&x, errors) / scale;
        let moved = x.iter().zip(errors).map(|(x, e)| {
            let steps = (x / scale).abs();
            let middle = (steps.fract() - 0.5).abs();
            // Three roundings reach a quotient: two of the scale, its own.
            let near = middle <= e / scale + steps * (relative + 4.0 * u);
            steps * relative * scale + if near { scale } else { 0.0 }
        });
        Ok(Tensor::from_vec(a.shape(), moved.collect())?)
    }

    /// What such moves do to the sums, scaled.
    fn through(product: &Product<f64>, moved: &Tensor) -> Result<Vec<f64>, OpError> {
        let weights = super::matmul::absolute(&product.right)?;
        let (_, mut out) = matmul(&moved.view::<f64>()?, &weights.view::<f64>()?)?;
        for row in out.chunks_mut(product.b_scale.len().max(1)) {
            row.iter_mut().zip(&product.b_scale).for_each(|(y, b)| *y *= b.abs());
        }
        Ok(out)
    }
}

impl Operator for IntegerProduct {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let floats = call.need(self.places().b_scale, "b_scale")?.dtype();
        Ok(vec![for_float!(floats, "b_scale", T => self.compute::<T>(call))?])
    }

    /// Four to six roundings of the product, one of the sum with the bias.
    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let product = self.multiply::<f64>(call)?;
        let width = product.b_scale.len().max(1);
        let terms = product.sums.iter().enumerate().map(|(i, sum)| {
            let column = i % width;
            let bias = product.bias.as_ref().map_or(0.0, |b| b[column].abs());
            2.0 * (sum * product.a_scale * product.b_scale[column]).abs() + bias
        });
        let mut budget = budget::steps(output, terms, unit)?;
        if self.dynamic {
            let moved = Self::steps(call, &vec![0.0; product.left.len()], unit.u)?;
            for (i, more) in Self::through(&product, &moved)?.into_iter().enumerate() {
                budget[i] += more;
            }
        }
        Ok(budget)
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        if errors.iter().all(Option::is_none) {
            return flow::none(outputs);
        }
        let product = self.multiply::<f64>(call)?;
        let at = self.places();
        let width = product.b_scale.len();
        let error = |i: usize, name| -> Result<Vec<f64>, OpError> {
            match errors.get(i).and_then(Option::as_ref) {
                Some(e) => columns(e, width, name),
                None => Ok(vec![0.0; width]),
            }
        };
        let (of_b, of_bias) = (error(at.b_scale, "b_scale")?, error(at.bias, "bias")?);
        let of_a = if self.dynamic { vec![0.0; width] } else { error(2, "a_scale")? };
        let mut out: Vec<f64> = product
            .sums
            .iter()
            .enumerate()
            .map(|(i, sum)| {
                let j = i % width.max(1);
                sum.abs() * (of_a[j] * product.b_scale[j].abs() + product.a_scale.abs() * of_b[j])
                    + of_bias[j]
            })
            .collect();
        if let (true, Some(Some(e))) = (self.dynamic, errors.first()) {
            let moved = Self::through(&product, &Self::steps(call, &e.to_f64()?, 0.0)?)?;
            out.iter_mut().zip(moved).for_each(|(y, more)| *y += more);
        }
        Ok(vec![Tensor::from_vec(&product.shape, out)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tensor;

    #[test]
    fn products_by_hand() {
        let (a, b) = (tensor(&[1, 2], &[3u8, 5]), tensor(&[2, 2], &[1i8, 2, -1, 4]));
        let (scale, scales) = (Tensor::scalar(0.5f32), Tensor::vector(vec![1f32, 2.0]));
        let (zero, zeros) = (Tensor::scalar(1u8), Tensor::vector(vec![0i8, 2]));
        let bias = Tensor::vector(vec![10f32, 20.0]);
        // (2, 4) times ((1, 0), (-1, 2)) is (-2, 8).
        let inputs = [&a, &b, &scale, &scales, &zero, &zeros, &bias].map(Some);
        let op = IntegerProduct { dynamic: false };
        let out = op.run(&Call::new(&inputs)).unwrap();
        assert_eq!(out[0].as_slice::<f32>().unwrap(), [9.0, 28.0]);
        let out = op.run(&Call::new(&inputs[..4])).unwrap();
        // (3, 5) times B is (-2, 26).
        assert_eq!(out[0].as_slice::<f32>().unwrap(), [-1.0, 26.0]);
    }

    #[test]
    fn floats_are_put_on_their_own_grid() {
        // Steps of 1 from -55 to 200: 0.4 falls to 0, 7.6 to 8.
        let a = tensor(&[2, 2], &[-55f32, 200.0, 0.4, 7.6]);
        let (b, one) = (tensor(&[2, 1], &[1u8, 10]), Tensor::scalar(1f32));
        let inputs = [&a, &b, &one].map(Some);
        let out = IntegerProduct { dynamic: true }.run(&Call::new(&inputs)).unwrap();
        assert_eq!(out[0].as_slice::<f32>().unwrap(), [1945.0, 80.0]);
    }

    #[test]
    fn an_element_near_the_middle_may_fall_to_either_side() {
        let a = tensor(&[2, 2], &[-55.0, 200.0, 0.25, 7.501]);
        let (b, half) = (tensor(&[2, 1], &[1i8, -10]), tensor(&[], &[0.5f64]));
        let inputs = [&a, &b, &half].map(Some);
        let call = Call { precision: crate::Precision::Float64, ..Call::new(&inputs) };
        let op = IntegerProduct { dynamic: true };
        let outputs = op.run(&call).unwrap();
        let errors = |e: f64| {
            let errors = [Some(tensor(&[2, 2], &[0.0, 0.0, e, e]))];
            op.propagate(&call, &outputs, &errors).unwrap()[0].to_f64().unwrap().into_owned()
        };
        // A step of 1 in the second element, times 10, times the scale of B.
        assert_eq!(errors(0.002), [0.0, 5.0]);
        assert_eq!(errors(0.0005), [0.0, 0.0]);
        let budget = op.budget(&call, 0, &outputs[0], Unit::F32).unwrap();
        assert!(budget.iter().all(|&x| x > 0.0 && x < 1e-2), "{budget:?}");
    }
}
