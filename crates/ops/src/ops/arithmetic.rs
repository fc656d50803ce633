//! Add, Sub, Mul, Div on floats and integers, with broadcasting.
//!
//! Integer overflow wraps, as in ONNX Runtime; integer division truncates, division by zero gives 0.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor};

use crate::broadcast::{line_up, old_axis, zip};
use crate::{Call, Flow, OpError, Operator, for_int};

/// An operation on two numbers of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Add,
    Sub,
    Mul,
    Div,
    /// The larger one; NaN if either is.
    Max,
    /// The smaller one; NaN if either is.
    Min,
}

#[derive(Debug)]
struct Arithmetic {
    kind: Kind,
    /// Versions below 7 broadcast B into A from this axis on.
    axis: Option<i64>,
}

fn build(node: &Node, kind: Kind) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Arithmetic { kind, axis: old_axis(node)? }))
}

/// Parses a node.
pub fn add(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    build(node, Kind::Add)
}
/// Parses a node.
pub fn sub(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    build(node, Kind::Sub)
}
/// Parses a node.
pub fn mul(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    build(node, Kind::Mul)
}
/// Parses a node.
pub fn div(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    build(node, Kind::Div)
}

/// The four operations on one element type.
pub(crate) trait Number: isotrace_tensor::Element + Default + PartialOrd {
    /// Sum; integers wrap.
    fn plus(self, other: Self) -> Self;
    /// Difference; integers wrap.
    fn minus(self, other: Self) -> Self;
    /// Product; integers wrap.
    fn times(self, other: Self) -> Self;
    /// Quotient; integers truncate, and give 0 on division by 0.
    fn over(self, other: Self) -> Self;
    /// The larger; NaN if either is.
    fn larger(self, other: Self) -> Self;
    /// The smaller; NaN if either is.
    fn smaller(self, other: Self) -> Self;
    /// Nearest number to an f64; integers truncate and saturate.
    fn of_f64(x: f64) -> Self;
}

macro_rules! float_number {
    ($($t:ty),*) => { $(impl Number for $t {
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            self + other
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            self - other
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            self * other
        }
        #[inline(always)]
        fn over(self, other: Self) -> Self {
            self / other
        }
        #[inline(always)]
        fn larger(self, other: Self) -> Self {
            crate::Float::max_nan(self, other)
        }
        #[inline(always)]
        fn smaller(self, other: Self) -> Self {
            crate::Float::min_nan(self, other)
        }
        #[inline(always)]
        fn of_f64(x: f64) -> Self {
            x as Self
        }
    })* };
}

macro_rules! int_number {
    ($($t:ty),*) => { $(impl Number for $t {
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            self.wrapping_add(other)
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            self.wrapping_sub(other)
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            self.wrapping_mul(other)
        }
        #[inline(always)]
        fn over(self, other: Self) -> Self {
            if other == 0 { 0 } else { self.wrapping_div(other) }
        }
        #[inline(always)]
        fn larger(self, other: Self) -> Self {
            self.max(other)
        }
        #[inline(always)]
        fn smaller(self, other: Self) -> Self {
            self.min(other)
        }
        #[inline(always)]
        fn of_f64(x: f64) -> Self {
            x as Self
        }
    })* };
}

float_number!(f32, f64);
int_number!(i64, i32, i16, i8, u64, u32, u16, u8);

/// The operation on two broadcast tensors.
pub(crate) fn binary(kind: Kind, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    match a.dtype() {
        DType::F32 => apply::<f32>(kind, a, b),
        DType::F64 => apply::<f64>(kind, a, b),
        DType::I64 => apply::<i64>(kind, a, b),
        DType::I32 => apply::<i32>(kind, a, b),
        // One copy of the loops for all operations is enough for the rarer types.
        _ => for_int!(a.dtype(), "A", T => {
            let f: fn(T, T) -> T = match kind {
                Kind::Add => T::plus,
                Kind::Sub => T::minus,
                Kind::Mul => T::times,
                Kind::Div => T::over,
                Kind::Max => T::larger,
                Kind::Min => T::smaller,
            };
            let (shape, data) = zip(&a.view::<T>()?, &b.view::<T>()?, f)?;
            Ok(Tensor::from_vec(&shape, data)?)
        }),
    }
}

fn apply<T: Number>(kind: Kind, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    let (a, b) = (a.view::<T>()?, b.view::<T>()?);
    let (shape, data) = match kind {
        Kind::Add => zip(&a, &b, T::plus),
        Kind::Sub => zip(&a, &b, T::minus),
        Kind::Mul => zip(&a, &b, T::times),
        Kind::Div => zip(&a, &b, T::over),
        Kind::Max => zip(&a, &b, T::larger),
        Kind::Min => zip(&a, &b, T::smaller),
    }?;
    Ok(Tensor::from_vec(&shape, data)?)
}

impl Operator for Arithmetic {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let a = call.need(0, "A")?;
        let b = line_up(call.need(1, "B")?, self.axis, a.rank())?;
        Ok(vec![binary(self.kind, a, &b)?])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_and_types() {
        let a = Tensor::from_vec(&[2, 1], vec![10i32, 20]).unwrap();
        let b = Tensor::vector(vec![1i32, 0, 3]);
        let cases = [
            (Kind::Add, [11, 10, 13, 21, 20, 23]),
            (Kind::Sub, [9, 10, 7, 19, 20, 17]),
            (Kind::Mul, [10, 0, 30, 20, 0, 60]),
            (Kind::Div, [10, 0, 3, 20, 0, 6]),
        ];
        for (kind, expected) in cases {
            let inputs = [Some(&a), Some(&b)];
            let out = Arithmetic { kind, axis: None }.run(&Call::new(&inputs)).unwrap();
            assert_eq!(out[0].shape(), [2, 3]);
            assert_eq!(out[0].as_slice::<i32>().unwrap(), expected, "{kind:?}");
        }
    }

    #[test]
    fn integers_at_their_limits() {
        let a = Tensor::vector(vec![i32::MIN, i32::MAX, -7]);
        let b = Tensor::vector(vec![-1i32, 1, 2]);
        let cases = [
            (Kind::Add, [i32::MAX, i32::MIN, -5]),
            (Kind::Sub, [i32::MIN + 1, i32::MAX - 1, -9]),
            (Kind::Mul, [i32::MIN, i32::MAX, -14]),
            (Kind::Div, [i32::MIN, i32::MAX, -3]),
        ];
        for (kind, expected) in cases {
            let out = Arithmetic { kind, axis: None }.run(&Call::new(&[Some(&a), Some(&b)])).unwrap();
            assert_eq!(out[0].as_slice::<i32>().unwrap(), expected, "{kind:?}");
        }
    }

    #[test]
    fn an_old_axis_lines_b_up_from_the_left() {
        let a = Tensor::from_vec(&[2, 3, 2], (0..12).map(f64::from).collect()).unwrap();
        let b = Tensor::vector(vec![100.0, 200.0, 300.0]);
        let op = Arithmetic { kind: Kind::Add, axis: Some(1) };
        let out = op.run(&Call::new(&[Some(&a), Some(&b)])).unwrap();
        let expected: Vec<f64> = (0..12).map(|i| f64::from(i) + 100.0 * f64::from(i / 2 % 3 + 1)).collect();
        assert_eq!(out[0].as_slice::<f64>().unwrap(), expected);
    }
}
