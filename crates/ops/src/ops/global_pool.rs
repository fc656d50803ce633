//! `GlobalAveragePool`, `GlobalMaxPool`, `GlobalLpPool`: one number a channel. X is (N, C, D1, ...), Y (N, C, 1, ...).

use isotrace_graph::Node;
use isotrace_tensor::Tensor;
use rayon::prelude::*;

use super::matmul::absolute;
use super::pool::{exponent, raised, root};
use crate::budget::{self, Budget, Unit};
use crate::{Call, Float, Flow, OpError, Operator, flow, for_float};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Average,
    Max,
    Norm(f64),
}

#[derive(Debug)]
struct GlobalPool(Kind);

/// Parses a `GlobalAveragePool`.
pub fn average(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(GlobalPool(Kind::Average)))
}

/// Parses a `GlobalMaxPool`.
pub fn max(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(GlobalPool(Kind::Max)))
}

/// Parses a `GlobalLpPool`.
pub fn norm(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(GlobalPool(Kind::Norm(exponent(node)?))))
}

/// The output's shape and the number of elements under each of its elements.
fn sizes(shape: &[usize]) -> Result<(Vec<usize>, usize), OpError> {
    let &[batch, channels, ref spatial @ ..] = shape else {
        return Err(OpError::Input(format!(
            "X has shape {shape:?}; expected batch, channels and spatial axes"
        )));
    };
    let mut out = vec![batch, channels];
    out.resize(shape.len(), 1);
    Ok((out, spatial.iter().product()))
}

/// A sum in eight interleaved parts, which is both faster and more exact than one.
fn sum<T: Float>(x: &[T], f: impl Fn(T) -> T) -> T {
    let mut parts = [T::ZERO; 8];
    let chunks = x.chunks_exact(8);
    let rest: T = chunks.remainder().iter().map(|&x| f(x)).sum();
    for chunk in chunks {
        for (part, &x) in parts.iter_mut().zip(chunk) {
            *part += f(x);
        }
    }
    parts.into_iter().sum::<T>() + rest
}

impl GlobalPool {
    fn compute<T: Float>(&self, x: &Tensor) -> Result<Tensor, OpError> {
        let (shape, plane) = sizes(x.shape())?;
        let planes: usize = shape.iter().product();
        let x = x.as_slice::<T>()?;
        let one = |i: usize| {
            let x = &x[i * plane..(i + 1) * plane];
            match self.0 {
                Kind::Average => sum(x, |x| x) / T::of(plane as f64),
                Kind::Max => x.iter().fold(-T::INFINITY, |a, &b| a.max_nan(b)),
                Kind::Norm(p) => root(sum(x, |x| raised(x.abs(), p)), p),
            }
        };
        let data = if x.len() > 1 << 16 {
            (0..planes).into_par_iter().map(one).collect()
        } else {
            (0..planes).map(one).collect()
        };
        Ok(Tensor::from_vec(&shape, data)?)
    }
}

impl Operator for GlobalPool {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        Ok(vec![for_float!(x.dtype(), "X", T => self.compute::<T>(x))?])
    }

    fn flow(&self) -> Flow {
        match self.0 {
            Kind::Average => Flow::Linear,
            Kind::Max | Kind::Norm(_) => Flow::General,
        }
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let x = call.need(0, "X")?;
        let (_, plane) = sizes(x.shape())?;
        match self.0 {
            Kind::Max => Ok(budget::exact(output.len())),
            Kind::Norm(_) => budget::rms_norm(output, plane, unit),
            Kind::Average => {
                let magnitude = self.compute::<f64>(&absolute(x)?)?;
                budget::sum(output, &magnitude.to_f64()?, plane as f64, unit)
            }
        }
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        match (self.0, errors.first()) {
            // As for windows: see `pool`.
            (Kind::Max | Kind::Norm(_), Some(Some(e))) => Ok(vec![self.compute::<f64>(&absolute(e)?)?]),
            _ => flow::propagate(Flow::Linear, &|c| self.run(c), call, outputs, errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_a_table() {
        let x = Tensor::from_vec(&[1, 2, 3], vec![3.0, -4.0, 1.0, 0.0, -2.0, 0.0]).unwrap();
        let cases: [(Kind, [f64; 2]); 4] = [
            (Kind::Average, [0.0, -2.0 / 3.0]),
            (Kind::Max, [3.0, 0.0]),
            (Kind::Norm(1.0), [8.0, 2.0]),
            (Kind::Norm(2.0), [26f64.sqrt(), 2.0]),
        ];
        for (kind, expected) in cases {
            let inputs = [Some(&x)];
            let out = GlobalPool(kind).run(&Call::new(&inputs)).unwrap();
            assert_eq!(out[0].shape(), [1, 2, 1]);
            assert_eq!(*out[0].to_f64().unwrap(), expected, "{kind:?}");
        }
    }

    #[test]
    fn long_sums_keep_every_element() {
        let x: Vec<f64> = (0..29).map(f64::from).collect();
        assert_eq!(sum(&x, |x| x), 406.0);
    }
}
