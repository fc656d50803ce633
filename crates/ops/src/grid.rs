//! Tensors of 8-bit integers on an even grid: the number that q stands for is scale (q - zero point).
//!
//! The steps are those of ONNX Runtime's kernels, which round in f32 wherever a scale comes in. What comes out of them
//! is an integer, so they are taken in f32 in a float64 run too: that integer is a decision of the declared precision.

use isotrace_tensor::{DType, Tensor};

use crate::{Call, OpError};

/// A scale and a zero point, with the range of the integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Grid {
    pub(crate) scale: f32,
    pub(crate) zero: i32,
    pub(crate) low: i32,
    pub(crate) high: i32,
    pub(crate) dtype: DType,
}

/// The range of an 8-bit integer.
pub(crate) fn range(what: &'static str, dtype: DType) -> Result<(i32, i32), OpError> {
    match dtype {
        DType::U8 => Ok((0, 255)),
        DType::I8 => Ok((-128, 127)),
        found => Err(OpError::DType { what, found, supported: "u8, i8" }),
    }
}

/// The one number of required input `index`.
pub(crate) fn single(call: &Call<'_>, index: usize, name: &'static str) -> Result<f64, OpError> {
    one(call.need(index, name)?, name)
}

/// The one number of a tensor.
pub(crate) fn one(tensor: &Tensor, name: &'static str) -> Result<f64, OpError> {
    match *tensor.to_f64()? {
        [number] => Ok(number),
        _ => Err(OpError::Input(format!(
            "{name} has shape {:?}; one number for the whole tensor is expected",
            tensor.shape()
        ))),
    }
}

impl Grid {
    /// The grid of elements of type `dtype` whose scale is input `at` and whose zero point, 0 where left out, comes
    /// next.
    pub(crate) fn read(
        call: &Call<'_>,
        at: usize,
        name: &'static str,
        dtype: DType,
    ) -> Result<Self, OpError> {
        let (low, high) = range(name, dtype)?;
        let zero = match call.get(at + 1) {
            None => 0,
            Some(zero) if zero.dtype() == dtype => one(zero, name)? as i32,
            Some(zero) => {
                return Err(OpError::Input(format!(
                    "the zero point of {name} is of type {}, its elements of {dtype}; they must be equal",
                    zero.dtype()
                )));
            }
        };
        Ok(Self { scale: single(call, at, name)? as f32, zero, low, high, dtype })
    }

    /// The grid of what an operator writes: its type is that of the zero point, or `otherwise` where that is left out.
    pub(crate) fn written(call: &Call<'_>, at: usize, otherwise: DType) -> Result<Self, OpError> {
        let dtype = call.get(at + 1).map_or(otherwise, Tensor::dtype);
        Self::read(call, at, "the output", dtype)
    }

    /// The number that `q` stands for.
    pub(crate) fn value(&self, q: i32) -> f32 {
        self.scale * (q - self.zero) as f32
    }

    /// The integer nearest to a number.
    pub(crate) fn nearest(&self, x: f32) -> i32 {
        self.steps(x / self.scale)
    }

    /// The integer this many steps from zero, rounded half to even.
    pub(crate) fn steps(&self, steps: f32) -> i32 {
        steps.clamp((self.low - self.zero) as f32, (self.high - self.zero) as f32).round_ties_even() as i32
            + self.zero
    }

    /// Whole numbers within the range as a tensor.
    pub(crate) fn tensor(&self, shape: &[usize], data: Vec<i32>) -> Result<Tensor, OpError> {
        narrow(self.dtype, shape, data)
    }

    /// What `f` makes of every number that elements of this grid can stand for, on another grid: by `q - low`.
    pub(crate) fn table(&self, to: &Self, f: impl Fn(f32) -> f32) -> Vec<i32> {
        (self.low..=self.high).map(|q| to.nearest(f(self.value(q)))).collect()
    }

    /// An element's place in a table that [`table`](Self::table) made, looked up.
    pub(crate) fn look_up(&self, table: &[i32], x: &Tensor) -> Result<Vec<i32>, OpError> {
        Ok(x.to_i64()?.iter().map(|&q| table[(q as i32 - self.low) as usize]).collect())
    }
}

/// Whole numbers within the range of `dtype` as a tensor of 8-bit integers.
pub(crate) fn narrow(dtype: DType, shape: &[usize], data: Vec<i32>) -> Result<Tensor, OpError> {
    Ok(match dtype {
        DType::U8 => Tensor::from_vec(shape, data.into_iter().map(|q| q as u8).collect())?,
        DType::I8 => Tensor::from_vec(shape, data.into_iter().map(|q| q as i8).collect())?,
        found => return Err(OpError::DType { what: "the output", found, supported: "u8, i8" }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_half_to_even_before_the_zero_point_and_saturates() {
        let grid = |scale, zero, low, high| Grid { scale, zero, low, high, dtype: DType::U8 };
        let cases = [
            (grid(0.5, 3, 0, 255), 0.25, 3),
            (grid(0.5, 3, 0, 255), 0.75, 5),
            (grid(0.5, 3, 0, 255), -0.25, 3),
            (grid(0.5, 3, 0, 255), -9.0, 0),
            (grid(0.5, 3, 0, 255), f32::INFINITY, 255),
            (grid(2.0, -128, -128, 127), 3.0, -126),
            (grid(2.0, -128, -128, 127), -1e9, -128),
        ];
        for (row, (grid, x, expected)) in cases.into_iter().enumerate() {
            assert_eq!(grid.nearest(x), expected, "row {row}");
        }
    }

    #[test]
    fn a_grid_is_read_with_its_type() {
        let (scale, zero) = (Tensor::scalar(0.25f32), Tensor::vector(vec![-3i8]));
        let inputs = [Some(&scale), Some(&zero)];
        let call = Call::new(&inputs);
        let grid = Grid::read(&call, 0, "x", DType::I8).unwrap();
        assert_eq!((grid.value(1), grid.low, grid.high), (1.0, -128, 127));
        assert_eq!(Grid::written(&call, 0, DType::U8).unwrap().dtype, DType::I8);
        let message = Grid::read(&call, 0, "x", DType::U8).unwrap_err().to_string();
        assert!(message.contains("i8") && message.contains("u8"), "{message}");
        let two = Tensor::vector(vec![1f32, 2.0]);
        assert!(Grid::read(&Call::new(&[Some(&two), None]), 0, "x", DType::U8).is_err());
        assert!(Grid::read(&Call::new(&[Some(&scale), None]), 0, "x", DType::F32).is_err());
    }
}
