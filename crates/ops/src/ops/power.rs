//! Pow: X to the power Y, broadcast. The result has the type of X, whatever the type of Y.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor, View};

use crate::broadcast::{line_up, old_axis, zip};
use crate::budget::{self, Budget, Unit};
use crate::math::each;
use crate::{Call, Float, Flow, OpError, Operator, for_float, for_int};

#[derive(Debug)]
struct Pow {
    /// Versions below 7 broadcast Y into X from this axis on.
    axis: Option<i64>,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Pow { axis: old_axis(node)? }))
}

/// The exponents that exported models have nearly always, without the general function: squares in norms, cubes in
/// GELU. The results differ from it by a rounding at most.
fn by_constant<T: Float>(x: &[T], exponent: f64) -> Option<Vec<T>> {
    Some(if exponent == 1.0 {
        x.to_vec()
    } else if exponent == 2.0 {
        each(
            x,
            #[inline(always)]
            |x| x * x,
        )
    } else if exponent == 3.0 {
        each(
            x,
            #[inline(always)]
            |x| x * x * x,
        )
    } else if exponent == 0.5 {
        // The power of -0 is 0, that of minus infinity infinity; the square roots are not.
        each(
            x,
            #[inline(always)]
            |x| if x == -T::INFINITY { T::INFINITY } else { (x + T::ZERO).sqrt() },
        )
    } else if exponent == -1.0 {
        each(
            x,
            #[inline(always)]
            |x| T::ONE / x,
        )
    } else {
        return None;
    })
}

fn pow<T: Float>(x: &View<'_, T>, y: &Tensor) -> Result<Tensor, OpError> {
    let y = y.cast(T::DTYPE)?;
    let y = y.view::<T>()?;
    if y.len() == 1
        && y.shape().len() <= x.shape().len()
        && x.is_contiguous()
        && let Some(data) = by_constant(x.data(), y.data()[0].wide())
    {
        return Ok(Tensor::from_vec(x.shape(), data)?);
    }
    let (shape, data) = zip(x, &y, T::powf)?;
    Ok(Tensor::from_vec(&shape, data)?)
}

impl Operator for Pow {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let y = line_up(call.need(1, "Y")?, self.axis, x.rank())?;
        if x.dtype().is_float() {
            return Ok(vec![for_float!(x.dtype(), "X", T => pow::<T>(&x.view()?, &y))?]);
        }
        let out = for_int!(x.dtype(), "X", T => {
            let x = x.view::<T>()?;
            if y.dtype().is_float() {
                let y = y.cast(DType::F64)?;
                let (shape, data) = zip(&x, &y.view::<f64>()?, |x, y| (x as f64).powf(y) as T)?;
                Ok(Tensor::from_vec(&shape, data)?)
            } else {
                let y = y.cast(DType::I64)?;
                // Exact while it fits and wrapping beyond; below 0 a fraction, cut to an integer.
                let power = |x: T, y: i64| match u32::try_from(y) {
                    Ok(y) => x.wrapping_pow(y),
                    Err(_) => (x as f64).powf(y as f64) as T,
                };
                let (shape, data) = zip(&x, &y.view::<i64>()?, power)?;
                Ok(Tensor::from_vec(&shape, data)?)
            }
        })?;
        Ok(vec![out])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if output.dtype().is_float() {
            budget::library(output, unit)
        } else {
            Ok(budget::exact(output.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_exponents_follow_the_general_function() {
        let inf = f64::INFINITY;
        let x = [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e-160, 1e200, inf, -inf, f64::NAN, 5e-324];
        for exponent in [1.0, 2.0, 3.0, 0.5, -1.0] {
            let fast = by_constant(&x, exponent).unwrap();
            for (x, fast) in x.iter().zip(fast) {
                let slow = x.powf(exponent);
                let close = (fast - slow).abs() <= 4e-16 * slow.abs();
                let same = fast == slow && fast.is_sign_negative() == slow.is_sign_negative();
                assert!(
                    same || close || fast.is_nan() && slow.is_nan(),
                    "{x}^{exponent}: {fast}, not {slow}"
                );
            }
        }
    }

    #[test]
    fn integers_and_mixed_types() {
        let x = Tensor::vector(vec![2i64, -3, 10]);
        let y = Tensor::vector(vec![62u32, 3, 0]);
        let out = Pow { axis: None }.run(&Call::new(&[Some(&x), Some(&y)])).unwrap();
        assert_eq!(out[0].as_slice::<i64>().unwrap(), [1 << 62, -27, 1]);
        let y = Tensor::scalar(0.5f32);
        let x = Tensor::vector(vec![4i32, 9, 10]);
        let out = Pow { axis: None }.run(&Call::new(&[Some(&x), Some(&y)])).unwrap();
        assert_eq!(out[0].as_slice::<i32>().unwrap(), [2, 3, 3]);
        let x = Tensor::vector(vec![4f32, 9.0]);
        let y = Tensor::from_vec(&[2, 1], vec![2i64, -1]).unwrap();
        let out = Pow { axis: None }.run(&Call::new(&[Some(&x), Some(&y)])).unwrap();
        assert_eq!(out[0].as_slice::<f32>().unwrap(), [16.0, 81.0, 0.25, 1.0 / 9.0]);
    }
}
