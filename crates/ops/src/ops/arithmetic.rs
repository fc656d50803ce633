//! Add, Sub, Mul, Div on floats and integers, with broadcasting.
//!
//! Integer overflow wraps, as in ONNX Runtime; integer division truncates, division by zero gives 0.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor};

use crate::broadcast::{line_up, old_axis, zip};
use crate::{Call, Flow, OpError, Operator, flow, for_int, parallel};

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

    /// To first order, of a sum what either may change by, of a product |b| e + |a| f, of a quotient e / |b|. Every
    /// attention and activation that is written out has a dozen of these, and to run each on changed inputs reads and
    /// writes memory ten times as often.
    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let error = |i: usize| errors.get(i).and_then(Option::as_ref);
        let bends = match self.kind {
            Kind::Add | Kind::Sub | Kind::Mul => false,
            Kind::Div => error(1).is_some(),
            Kind::Max | Kind::Min => true,
        };
        let (a, b, y) = (call.need(0, "A")?, call.need(1, "B")?, &outputs[0]);
        if bends || y.dtype() != DType::F64 || (error(0).is_none() && error(1).is_none()) {
            return flow::propagate(self.flow(), &|c| self.run(c), call, outputs, errors);
        }
        let beside = |error: &Tensor, other: &Tensor| -> Result<Tensor, OpError> {
            let (e, other) = (error.view::<f64>()?, other.view::<f64>()?);
            let (shape, moved) = match self.kind {
                Kind::Mul => zip(&e, &other, |e: f64, x: f64| e * x.abs()),
                Kind::Div => zip(&e, &other, |e: f64, x: f64| e / x.abs()),
                _ => zip(&e, &other, |e: f64, _| e),
            }?;
            Ok(Tensor::from_vec(&shape, moved)?)
        };
        let lined_up = |t: &Tensor| line_up(t, self.axis, a.rank());
        let of_a = error(0).map(|e| beside(e, &lined_up(b)?)).transpose()?;
        let of_b = error(1).map(|e| beside(&lined_up(e)?, a)).transpose()?;
        let moved = match (of_a, of_b) {
            (Some(x), Some(y)) => binary(Kind::Add, &x, &y)?,
            (x, y) => x.or(y).expect("one of them moves"),
        };
        // What is no finite number says so itself.
        let (moved, values) = (moved.to_f64()?, y.to_f64()?);
        let finite = |i: usize| if values[i].is_finite() { moved[i] } else { 0.0 };
        Ok(vec![Tensor::from_vec(y.shape(), parallel::map(values.len().min(moved.len()), finite))?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_move_as_running_on_changed_inputs_moves_them() {
        let numbers = |n: usize, from: f64| (0..n).map(|i| from + (i as f64 * 0.7).sin()).collect::<Vec<_>>();
        let mut first = numbers(12, 0.0);
        (first[3], first[7]) = (f64::NEG_INFINITY, 0.0);
        let a = Tensor::from_vec(&[2, 3, 2], first).unwrap();
        for (shape, axis) in [(vec![2, 3, 2], None), (vec![3, 1], None), (vec![], None), (vec![3], Some(1))] {
            let n = shape.iter().product();
            let b = Tensor::from_vec(&shape, numbers(n, 2.0)).unwrap();
            let e =
                Tensor::from_vec(&[2, 3, 2], numbers(12, 1.5).iter().map(|x| x * 1e-9).collect()).unwrap();
            let f = Tensor::from_vec(&shape, numbers(n, 1.5).iter().map(|x| x * 1e-9).collect()).unwrap();
            for kind in [Kind::Add, Kind::Sub, Kind::Mul, Kind::Div] {
                let op = Arithmetic { kind, axis };
                let inputs = [Some(&a), Some(&b)];
                let call = Call::new(&inputs);
                let outputs = op.run(&call).unwrap();
                for errors in
                    [[Some(e.clone()), None], [None, Some(f.clone())], [Some(e.clone()), Some(f.clone())]]
                {
                    let own = op.propagate(&call, &outputs, &errors).unwrap();
                    let run = flow::propagate(op.flow(), &|c| op.run(c), &call, &outputs, &errors).unwrap();
                    assert_eq!(own[0].shape(), run[0].shape());
                    let pairs = own[0].to_f64().unwrap().into_owned().into_iter();
                    for (x, y) in pairs.zip(run[0].to_f64().unwrap().iter()) {
                        assert!(
                            (x - y).abs() <= 1e-5 * y.abs() + 1e-18,
                            "{kind:?} {shape:?}: {x:e} and {y:e}"
                        );
                    }
                }
            }
        }
    }

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
