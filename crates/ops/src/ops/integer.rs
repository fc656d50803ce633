//! Products of 8-bit integers: `MatMulInteger` and `ConvInteger` (32-bit results), `QLinearMatMul` and `QLinearConv` (results
//! scaled back to 8 bits).
//!
//! Sums of products of 8-bit integers are exact in f64 (below 2^53 terms of 2^16), so the float kernels compute them.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor, View};

use super::conv::groups;
use super::matmul::matmul;
use crate::activation::Activation;
use crate::convolve::{Finish, Sizes, convolve};
use crate::window::Settings;
use crate::{Call, Decision, OpError, Operator};

#[derive(Debug)]
enum Kind {
    MatMul,
    Conv { settings: Settings, groups: usize },
}

#[derive(Debug)]
struct Integer {
    kind: Kind,
    /// Whether scales come with the zero points and the result is brought back to 8 bits.
    scaled: bool,
}

/// Parses a `MatMulInteger`.
pub fn matmul_integer(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Integer { kind: Kind::MatMul, scaled: false }))
}

/// Parses a `QLinearMatMul`.
pub fn qlinear_matmul(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Integer { kind: Kind::MatMul, scaled: true }))
}

/// Parses a `ConvInteger`.
pub fn conv_integer(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let kind = Kind::Conv { settings: Settings::parse(node)?, groups: groups(node)? };
    Ok(Box::new(Integer { kind, scaled: false }))
}

/// Parses a `QLinearConv`.
pub fn qlinear_conv(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let kind = Kind::Conv { settings: Settings::parse(node)?, groups: groups(node)? };
    Ok(Box::new(Integer { kind, scaled: true }))
}

/// `x` less its zero point in f64. The zero point is one number, or one an index of `axis`, or a tensor that broadcasts.
pub(super) fn centred(x: &Tensor, zero: Option<&Tensor>, axis: usize, name: &str) -> Result<Tensor, OpError> {
    let values = x.to_f64()?;
    let Some(zero) = zero else { return Ok(Tensor::from_vec(x.shape(), values.into_owned())?) };
    let z = zero.to_f64()?;
    let data = match z.len() {
        1 => values.iter().map(|v| v - z[0]).collect(),
        n if zero.rank() == 1 && axis < x.rank() && n == x.shape()[axis] => {
            let inner: usize = x.shape()[axis + 1..].iter().product();
            values.iter().enumerate().map(|(i, v)| v - z[i / inner.max(1) % n]).collect()
        }
        _ => {
            let z = View::new(&z, zero.shape()).broadcast(x.shape()).map_err(|_| {
                OpError::Input(format!(
                    "the zero point of {name} has shape {:?}, which does not fit {:?}",
                    zero.shape(),
                    x.shape()
                ))
            })?;
            values.iter().zip(z.to_vec()).map(|(v, z)| v - z).collect()
        }
    };
    Ok(Tensor::from_vec(x.shape(), data)?)
}

impl Integer {
    fn product(&self, a: &Tensor, b: &Tensor, bias: Option<&[f64]>) -> Result<Tensor, OpError> {
        match &self.kind {
            Kind::MatMul => {
                let (shape, data) = matmul(&a.view::<f64>()?, &b.view::<f64>()?)?;
                Ok(Tensor::from_vec(&shape, data)?)
            }
            Kind::Conv { settings, groups } => {
                let sizes = Sizes::new(a.shape(), b.shape(), *groups, settings)?;
                if let Some(bias) = bias.filter(|b| b.len() != sizes.filters) {
                    return Err(OpError::Input(format!(
                        "B holds {} numbers, expected {}: one a filter",
                        bias.len(),
                        sizes.filters
                    )));
                }
                let finish = Finish { bias, residual: None, activation: Activation::Identity };
                let data = convolve(a.as_slice()?, b.as_slice()?, &sizes, &finish)?;
                Ok(Tensor::from_vec(&sizes.output_shape(), data)?)
            }
        }
    }

    fn scaled(&self, call: &Call<'_>) -> Result<Tensor, OpError> {
        let (a, b) = (call.need(0, "a")?, call.need(3, "b")?);
        // Per-row zero points of A, per-column (or per-filter) ones of B.
        let (axis_a, axis_b) = match self.kind {
            Kind::MatMul => (a.rank().saturating_sub(2), b.rank().saturating_sub(1)),
            Kind::Conv { .. } => (1, 0),
        };
        let bias = match self.kind {
            Kind::Conv { .. } => call.get(8).map(Tensor::to_f64).transpose()?,
            Kind::MatMul => None,
        };
        let left = centred(a, call.get(2), axis_a, "a")?;
        let right = centred(b, call.get(5), axis_b, "b")?;
        let sums = self.product(&left, &right, bias.as_deref())?;
        let scale =
            |index, name| -> Result<Vec<f64>, OpError> { Ok(call.need(index, name)?.to_f64()?.into_owned()) };
        let (sa, sb, sy) = (scale(1, "a_scale")?, scale(4, "b_scale")?, scale(6, "y_scale")?);
        let zero_tensor = call.need(7, "y_zero_point")?;
        let zero = zero_tensor.to_f64()?;
        let dtype = zero_tensor.dtype();
        let (low, high) = match dtype {
            DType::U8 => (0.0, 255.0),
            DType::I8 => (-128.0, 127.0),
            found => return Err(OpError::DType { what: "y_zero_point", found, supported: "u8, i8" }),
        };
        let shape = sums.shape().to_vec();
        let per = |v: &[f64], i: usize, row: bool| -> f64 {
            if v.len() == 1 {
                return v[0];
            }
            let pixels: usize = shape.iter().skip(2).product();
            let width = shape.last().copied().unwrap_or(1).max(1);
            let at = match (&self.kind, row) {
                (Kind::Conv { .. }, _) => i / pixels.max(1),
                (Kind::MatMul, true) => i / width,
                (Kind::MatMul, false) => i % width,
            };
            v[at % v.len().max(1)]
        };
        let out: Vec<f64> = sums
            .to_f64()?
            .iter()
            .enumerate()
            .map(|(i, &sum)| {
                // Runtimes form the factor and the product in f32, and a result halfway between two integers shows it.
                let factor =
                    (per(&sa, i, true) as f32 * per(&sb, i, false) as f32) / per(&sy, i, true) as f32;
                let y = f64::from(sum as f32 * factor).round_ties_even() + per(&zero, i, true);
                y.clamp(low, high)
            })
            .collect();
        Ok(Tensor::from_vec(&shape, out)?.cast(dtype)?)
    }
}

impl Operator for Integer {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        if self.scaled {
            return Ok(vec![self.scaled(call)?]);
        }
        let (a, b) = (call.need(0, "A")?, call.need(1, "B")?);
        let (axis_a, axis_b) = match self.kind {
            Kind::MatMul => (a.rank().saturating_sub(2), b.rank().saturating_sub(1)),
            Kind::Conv { .. } => (1, 0),
        };
        let left = centred(a, call.get(2), axis_a, "A")?;
        let right = centred(b, call.get(3), axis_b, "B")?;
        let sums = self.product(&left, &right, None)?;
        let wrapped = sums.to_f64()?.iter().map(|&x| x as i64 as i32).collect();
        Ok(vec![Tensor::from_vec(sums.shape(), wrapped)?])
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_points_by_row_and_column() {
        let a = Tensor::from_vec(&[2, 2], vec![1u8, 2, 3, 4]).unwrap();
        let b = Tensor::from_vec(&[2, 2], vec![1i8, -1, 2, 0]).unwrap();
        let (za, zb) = (Tensor::vector(vec![1u8, 3]), Tensor::vector(vec![0i8, 1]));
        let op = Integer { kind: Kind::MatMul, scaled: false };
        let inputs = [Some(&a), Some(&b), Some(&za), Some(&zb)];
        let out = op.run(&Call::new(&inputs)).unwrap();
        // [[0, 1], [0, 1]] times [[1, -2], [2, -1]].
        assert_eq!(out[0].as_slice::<i32>().unwrap(), [2, -1, 2, -1]);
    }

    #[test]
    fn scaled_results_round_to_even_and_saturate() {
        let a = Tensor::from_vec(&[1, 1], vec![10u8]).unwrap();
        let half = Tensor::scalar(0.5f32);
        let (one, zero) = (Tensor::scalar(1f32), Tensor::scalar(0u8));
        let op = Integer { kind: Kind::MatMul, scaled: true };
        for (b, expected) in [(1u8, 5u8), (3, 15), (255, 255)] {
            let b = Tensor::from_vec(&[1, 1], vec![b]).unwrap();
            let inputs = [&a, &half, &zero, &b, &one, &zero, &one, &zero].map(Some);
            let out = op.run(&Call::new(&inputs)).unwrap();
            assert_eq!(out[0].as_slice::<u8>().unwrap(), [expected]);
        }
        let (a, b) =
            (Tensor::from_vec(&[1, 1], vec![5u8]).unwrap(), Tensor::from_vec(&[1, 1], vec![1u8]).unwrap());
        let inputs = [&a, &half, &zero, &b, &one, &zero, &one, &zero].map(Some);
        assert_eq!(op.run(&Call::new(&inputs)).unwrap()[0].as_slice::<u8>().unwrap(), [2]);
    }
}
