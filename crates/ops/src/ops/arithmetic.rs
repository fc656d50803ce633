//! Add, Sub, Mul, Div on floats and integers, with broadcasting.
//!
//! Integer overflow wraps, as in ONNX Runtime; integer division truncates, division by zero gives 0.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, View, broadcast_shapes};

use crate::{Call, Flow, OpError, Operator, attributes, for_number};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Add,
    Sub,
    Mul,
    Div,
}

#[derive(Debug)]
struct Arithmetic {
    kind: Kind,
    /// Versions below 7 broadcast B into A from this axis on, and only where asked.
    axis: Option<i64>,
}

fn build(node: &Node, kind: Kind) -> Result<Box<dyn Operator>, OpError> {
    let axis = if node.version < 7 { attributes::int(node, "axis")? } else { None };
    Ok(Box::new(Arithmetic { kind, axis }))
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
trait Number: Copy + Send + Sync {
    fn apply(kind: Kind) -> fn(Self, Self) -> Self;
}

macro_rules! float_number {
    ($($t:ty),*) => { $(impl Number for $t {
        fn apply(kind: Kind) -> fn(Self, Self) -> Self {
            match kind {
                Kind::Add => |a, b| a + b,
                Kind::Sub => |a, b| a - b,
                Kind::Mul => |a, b| a * b,
                Kind::Div => |a, b| a / b,
            }
        }
    })* };
}

macro_rules! int_number {
    ($($t:ty),*) => { $(impl Number for $t {
        fn apply(kind: Kind) -> fn(Self, Self) -> Self {
            match kind {
                Kind::Add => |a, b| a.wrapping_add(b),
                Kind::Sub => |a, b| a.wrapping_sub(b),
                Kind::Mul => |a, b| a.wrapping_mul(b),
                Kind::Div => |a, b| if b == 0 { 0 } else { a.wrapping_div(b) },
            }
        }
    })* };
}

float_number!(f32, f64);
int_number!(i64, i32, i16, i8, u64, u32, u16, u8);

impl Operator for Arithmetic {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, mut b) = (call.need(0, "A")?, call.need(1, "B")?.clone());
        if let Some(axis) = self.axis {
            // Pad B's shape with trailing axes of 1, so that it lines up at `axis`.
            let axis = isotrace_tensor::normalise_axis(axis, a.rank())?;
            let mut shape = b.shape().to_vec();
            shape.resize((a.rank() - axis).max(b.rank()), 1);
            b = b.reshape(&shape)?;
        }
        let out = for_number!(a.dtype(), "A", T => {
            let (shape, data) = zip(&a.view::<T>()?, &b.view::<T>()?, <T as Number>::apply(self.kind))?;
            Ok(Tensor::from_vec(&shape, data)?)
        })?;
        Ok(vec![out])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }

    fn keeps_half(&self) -> bool {
        false
    }
}

/// Applies `f` to the pairs of elements of two broadcast views; returns the broadcast shape and the results.
pub fn zip<A, B, O>(
    a: &View<'_, A>,
    b: &View<'_, B>,
    f: impl Fn(A, B) -> O,
) -> Result<(Vec<usize>, Vec<O>), OpError>
where
    A: Copy + Send + Sync,
    B: Copy + Send + Sync,
{
    let shape = broadcast_shapes(a.shape(), b.shape())?;
    let len = shape.iter().product();
    let mut out = Vec::with_capacity(len);
    if len == 0 {
        return Ok((shape, out));
    }
    let (a, b) = (a.broadcast(&shape)?, b.broadcast(&shape)?);
    if a.is_contiguous() && b.is_contiguous() {
        out.extend(a.data().iter().zip(b.data()).take(len).map(|(&a, &b)| f(a, b)));
        return Ok((shape, out));
    }
    let Some((&width, outer)) = shape.split_last() else {
        out.push(f(a.data()[0], b.data()[0]));
        return Ok((shape, out));
    };
    let inner = |v: &[usize]| v[v.len() - 1];
    let (step_a, step_b) = (inner(a.strides()), inner(b.strides()));
    let rows = |s: &[usize]| isotrace_tensor::Odometer::new(outer, &s[..outer.len()]);
    for (at_a, at_b) in rows(a.strides()).zip(rows(b.strides())) {
        let (row_a, row_b) = (&a.data()[at_a..], &b.data()[at_b..]);
        match (step_a, step_b) {
            (1, 1) => out.extend(row_a.iter().zip(row_b).take(width).map(|(&a, &b)| f(a, b))),
            (1, 0) => out.extend(row_a[..width].iter().map(|&a| f(a, row_b[0]))),
            (0, 1) => out.extend(row_b[..width].iter().map(|&b| f(row_a[0], b))),
            _ => out.extend((0..width).map(|i| f(row_a[i * step_a], row_b[i * step_b]))),
        }
    }
    Ok((shape, out))
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
}
