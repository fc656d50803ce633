//! LpNormalization, MeanVarianceNormalization and LRN.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::softmax::{each_row, split};
use crate::budget::{self, Budget, Unit};
use crate::math::row;
use crate::{Call, Float, OpError, Operator, arguments, attributes, for_float};

/// x / |x|_p along an axis; a row of zeros stays.
#[derive(Debug)]
struct LpNorm {
    axis: i64,
    squares: bool,
}

/// Parses a node of LpNormalization.
pub fn lp(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let squares = match attributes::int_or(node, "p", 2)? {
        1 => false,
        2 => true,
        other => return Err(OpError::Setting(format!("p is {other}, ONNX defines 1 and 2"))),
    };
    Ok(Box::new(LpNorm { axis: attributes::int_or(node, "axis", -1)?, squares }))
}

impl Operator for LpNorm {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "input")?;
        let rows = split(x.shape(), self.axis, false)?;
        let squares = self.squares;
        let y = for_float!(x.dtype(), "input", T => {
            let y = each_row(x.as_slice::<T>()?, rows, #[inline(always)] |x: &[T], y: &mut [T]| {
                let norm = if squares {
                    row::sum(x, #[inline(always)] |x| x * x).sqrt()
                } else {
                    row::sum(x, T::abs)
                };
                let norm = if norm == 0.0 { 1.0 } else { norm };
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = x / norm;
                }
            });
            Ok(Tensor::from_vec(x.shape(), y)?)
        })?;
        Ok(vec![y])
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let [_, len, _] = split(call.need(0, "input")?.shape(), self.axis, false)?;
        budget::rms_norm(output, len, unit)
    }
}

/// (x - mean) / (deviation + 1e-9) over some axes.
#[derive(Debug)]
struct MeanVariance {
    axes: Vec<i64>,
}

/// Parses a node of MeanVarianceNormalization.
pub fn mean_variance(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(MeanVariance { axes: attributes::ints(node, "axes")?.unwrap_or_else(|| vec![0, 2, 3]) }))
}

impl MeanVariance {
    /// What ONNX's definition adds to the deviation.
    const FLOOR: f64 = 1e-9;

    /// The order of axes that puts the reduced ones last, its inverse, and the length of a row.
    fn order(&self, shape: &[usize]) -> Result<(Vec<usize>, Vec<usize>, usize), OpError> {
        let reduced = arguments::axes(&self.axes, shape.len())?;
        let mut perm: Vec<usize> = (0..shape.len()).filter(|i| !reduced.contains(i)).collect();
        perm.extend((0..shape.len()).filter(|i| reduced.contains(i)));
        let mut back = vec![0; perm.len()];
        for (to, &from) in perm.iter().enumerate() {
            back[from] = to;
        }
        Ok((perm, back, reduced.iter().map(|&i| shape[i]).product()))
    }
}

impl Operator for MeanVariance {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let (perm, back, len) = self.order(x.shape())?;
        let x = x.permute(&perm)?;
        let y = for_float!(x.dtype(), "X", T => {
            let rows = [x.len() / len.max(1), len, 1];
            let floor = <T as Float>::of(Self::FLOOR);
            let y = each_row(x.as_slice::<T>()?, rows, #[inline(always)] |x: &[T], y: &mut [T]| {
                let n = x.len() as T;
                let mean = row::sum(x, #[inline(always)] |x| x) / n;
                let variance = row::sum(x, #[inline(always)] |x| (x - mean) * (x - mean)) / n;
                let scale = variance.sqrt() + floor;
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = (x - mean) / scale;
                }
            });
            Ok(Tensor::from_vec(x.shape(), y)?)
        })?;
        Ok(vec![y.permute(&back)?])
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let x = call.need(0, "X")?;
        let (perm, back, len) = self.order(x.shape())?;
        let (x, y) = (x.permute(&perm)?, output.permute(&perm)?);
        // The definition takes E[x^2] - E[x]^2, and a deviation below the floor hides what that loses.
        let found = budget::layer_norm(&x, &[1.0], len, Self::FLOOR * Self::FLOOR, &y.to_f64()?, true, unit)?;
        Ok(Tensor::from_vec(x.shape(), found)?.permute(&back)?.to_f64()?.into_owned())
    }
}

/// x / (bias + alpha/size * s)^beta with s the sum of squares over `size` neighbouring channels. Krizhevsky and others 2012.
#[derive(Debug)]
struct Lrn {
    alpha: f32,
    beta: f32,
    bias: f32,
    size: usize,
}

/// Parses a node of LRN.
pub fn lrn(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let size = attributes::int_or(node, "size", 0)?;
    let Some(size) = usize::try_from(size).ok().filter(|&s| s > 0) else {
        return Err(OpError::Setting(format!("size is {size}, the number of channels must be above 0")));
    };
    Ok(Box::new(Lrn {
        alpha: attributes::float_or(node, "alpha", 1e-4)?,
        beta: attributes::float_or(node, "beta", 0.75)?,
        bias: attributes::float_or(node, "bias", 1.0)?,
        size,
    }))
}

impl Lrn {
    fn apply<T: Float>(&self, x: &[T], channels: usize, inner: usize) -> Vec<T> {
        let of = |x: f32| T::of(x.into());
        let (below, above) = ((self.size - 1) / 2, self.size / 2);
        let factor = of(self.alpha) / T::of(self.size as f64);
        let mut out = Vec::with_capacity(x.len());
        let mut sums = vec![T::ZERO; inner];
        for x in x.chunks((channels * inner).max(1)) {
            for c in 0..channels {
                sums.fill(T::ZERO);
                for i in c.saturating_sub(below)..=(c.saturating_add(above)).min(channels - 1) {
                    for (sum, &x) in sums.iter_mut().zip(&x[i * inner..]) {
                        *sum += x * x;
                    }
                }
                for (&sum, &x) in sums.iter().zip(&x[c * inner..]) {
                    out.push(x / (of(self.bias) + factor * sum).powf(of(self.beta)));
                }
            }
        }
        out
    }
}

impl Operator for Lrn {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let [_, channels, ref rest @ ..] = *x.shape() else {
            let found = x.shape();
            return Err(OpError::Input(format!(
                "X has shape {found:?}, it needs axes for batch and channels"
            )));
        };
        let inner = rest.iter().product();
        let y = for_float!(x.dtype(), "X", T => {
            Ok(Tensor::from_vec(x.shape(), self.apply(x.as_slice::<T>()?, channels, inner))?)
        })?;
        Ok(vec![y])
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        budget::rms_norm(output, self.size, unit)
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{first, node, run, tensor};

    fn close(op: &str, got: &[f64], expected: &[f64]) {
        for (y, e) in got.iter().zip(expected) {
            assert!((y - e).abs() < 1e-12, "{op}: {y} is not {e}");
        }
    }

    #[test]
    fn rows_of_length_one() {
        let x = tensor(&[2, 2], &[3.0, -4.0, 0.0, 0.0]);
        let y = first(&node("LpNormalization", 22, &[]), &[&x]);
        close("L2", &y.to_f64().unwrap(), &[0.6, -0.8, 0.0, 0.0]);
        let one = [("p", Attribute::Int(1)), ("axis", Attribute::Int(0))];
        let y = first(&node("LpNormalization", 22, &one), &[&x]);
        close("L1", &y.to_f64().unwrap(), &[1.0, -1.0, 0.0, 0.0]);
        assert!(run(&node("LpNormalization", 22, &[("p", Attribute::Int(3))]), &[&x]).is_err());
    }

    #[test]
    fn channels_of_mean_0_and_deviation_1() {
        let data: Vec<f64> = (0..16).map(|i| f64::from(i * 5 % 16)).collect();
        let y = first(&node("MeanVarianceNormalization", 13, &[]), &[&tensor(&[2, 2, 2, 2], &data)]);
        let y = y.to_f64().unwrap();
        for c in 0..2 {
            let own = |v: &[f64]| (0..16).filter(|i| i / 4 % 2 == c).map(|i| v[i]).collect::<Vec<_>>();
            let (x, y) = (own(&data), own(&y));
            let mean = x.iter().sum::<f64>() / 8.0;
            let deviation = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 8.0).sqrt();
            close("MVN", &y, &x.iter().map(|x| (x - mean) / (deviation + 1e-9)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn neighbouring_channels() {
        let data = [1.0, 2.0, 3.0, 4.0, 5.0];
        for (size, below, above) in [(1usize, 0usize, 0usize), (2, 0, 1), (3, 1, 1), (4, 1, 2), (9, 4, 4)] {
            let settings = [("size", Attribute::Int(size as i64)), ("alpha", Attribute::Float(0.5))];
            let y = first(&node("LRN", 13, &settings), &[&tensor(&[1, 5, 1], &data)]);
            let expected: Vec<f64> = (0..5)
                .map(|c: usize| {
                    let near = c.saturating_sub(below)..=(c + above).min(4);
                    let sum: f64 = near.map(|i| data[i] * data[i]).sum();
                    data[c] / (1.0 + 0.5 / size as f64 * sum).powf(0.75)
                })
                .collect();
            close(&format!("LRN {size}"), &y.to_f64().unwrap(), &expected);
        }
    }
}
