//! `DynamicQuantizeLinear`: a tensor as u8 with the scale and the zero point that its own range asks for.
//!
//! The range is made to hold 0; y scale = (max - min) / 255, zero point = round(-min / scale). The integers are decided
//! in f32. The scale is a number like any other: float64 runs compute it in f64.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor};

use crate::budget::{self, Budget, Unit};
use crate::grid::Grid;
use crate::{Call, Float, OpError, Operator, flow, for_float};

#[derive(Debug)]
struct DynamicQuantizeLinear;

/// Parses a node.
pub fn build(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(DynamicQuantizeLinear))
}

/// The scale that a range asks for; a tensor of nothing but zeros gets 1.
pub(crate) fn scale<T: Float>(x: &[T]) -> T {
    let (low, high) = range(x);
    if low == high { T::ONE } else { (high - low) / T::of(255.0) }
}

/// Smallest and largest element, or 0 where that is smaller or larger.
fn range<T: Float>(x: &[T]) -> (T, T) {
    x.iter().fold((T::ZERO, T::ZERO), |(low, high), &x| {
        (if x < low { x } else { low }, if x > high { x } else { high })
    })
}

/// The grid on which `x` is put, as f32 has it.
pub(crate) fn grid(x: &[f32]) -> Grid {
    let scale = scale(x);
    let (low, _) = range(x);
    let zero = (0.0 - low / scale).clamp(0.0, 255.0).round_ties_even() as i32;
    Grid { scale, zero, low: 0, high: 255, dtype: DType::U8 }
}

/// How far errors of up to `errors` may move the scale: by what they add to either end of the range.
pub(crate) fn scale_error(x: &[f64], errors: &[f64]) -> f64 {
    let (low, high) = range(x);
    let lower = x.iter().zip(errors).fold(low, |m, (x, e)| m.min(x - e));
    let upper = x.iter().zip(errors).fold(high, |m, (x, e)| m.max(x + e));
    ((low - lower) + (upper - high)) / 255.0
}

impl Operator for DynamicQuantizeLinear {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "x")?;
        let step = for_float!(x.dtype(), "x", T => Ok(Tensor::scalar(scale(x.as_slice::<T>()?))))?;
        let single = x.cast(DType::F32)?;
        let single = single.as_slice::<f32>()?;
        let grid = grid(single);
        let data = single.iter().map(|&x| grid.nearest(x)).collect();
        Ok(vec![grid.tensor(x.shape(), data)?, step, Tensor::scalar(grid.zero as u8)])
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if index != 1 {
            return Ok(budget::exact(output.len()));
        }
        // A difference and a quotient.
        let x = call.need(0, "x")?.to_f64()?;
        let (low, high) = range(&x);
        budget::steps(output, std::iter::once((high - low) / 255.0), unit)
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let mut out = flow::none(outputs)?;
        if let Some(Some(errors)) = errors.first() {
            out[1] = Tensor::scalar(scale_error(&call.need(0, "x")?.to_f64()?, &errors.to_f64()?));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;

    #[test]
    fn ranges_as_a_table() {
        let cases: [(&[f32], f32, u8, &[u8]); 5] = [
            (&[0.0, 255.0, 127.5], 1.0, 0, &[0, 255, 128]),
            (&[-1.0, 1.55], 0.01, 100, &[0, 255]),
            (&[1.0, 2.55], 0.01, 0, &[100, 255]),
            (&[-255.0, -128.0], 1.0, 255, &[0, 127]),
            (&[0.0, 0.0], 1.0, 0, &[0, 0]),
        ];
        for (x, scale, zero, expected) in cases {
            let x = Tensor::vector(x.to_vec());
            let out = DynamicQuantizeLinear.run(&Call::new(&[Some(&x)])).unwrap();
            assert_eq!(out[0].as_slice::<u8>().unwrap(), expected, "{x:?}");
            assert!((out[1].as_slice::<f32>().unwrap()[0] - scale).abs() <= 1e-9 + scale * 1e-7, "{out:?}");
            assert_eq!(out[2].as_slice::<u8>().unwrap(), [zero], "{x:?}");
        }
    }

    #[test]
    fn nothing_at_all_is_allowed() {
        let x = Tensor::from_vec(&[0, 3], Vec::<f32>::new()).unwrap();
        let out = DynamicQuantizeLinear.run(&Call::new(&[Some(&x)])).unwrap();
        assert_eq!((out[0].shape(), out[1].as_slice::<f32>().unwrap()), (&[0, 3][..], &[1f32][..]));
    }

    #[test]
    fn the_scale_is_f64_in_a_float64_run_and_moves_with_the_ends() {
        let x = Tensor::vector(vec![-1.0, 0.5, 1.0]);
        let inputs = [Some(&x)];
        let call = Call { outputs: 3, precision: Precision::Float64, ..Call::new(&inputs) };
        let out = DynamicQuantizeLinear.run(&call).unwrap();
        assert_eq!(out[1].as_slice::<f64>().unwrap(), [2.0 / 255.0]);
        let errors = [Some(Tensor::vector(vec![0.1, 0.4, 0.2]))];
        let got = DynamicQuantizeLinear.propagate(&call, &out, &errors).unwrap();
        assert!((got[1].to_f64().unwrap()[0] - 0.3 / 255.0).abs() < 1e-15);
        assert_eq!(*got[0].to_f64().unwrap(), [0.0; 3]);
    }
}
