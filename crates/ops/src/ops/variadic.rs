//! Sum, Mean, Max and Min of any number of broadcast tensors, joined from the left.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, View};

use super::arithmetic::{Kind, binary};
use crate::budget::{self, Budget, Unit};
use crate::math::map;
use crate::{Call, Flow, OpError, Operator, for_float};

#[derive(Debug)]
struct Variadic {
    kind: Kind,
    /// Whether the sum is divided by the number of inputs.
    mean: bool,
}

/// Parses a node of Sum.
pub fn sum(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Variadic { kind: Kind::Add, mean: false }))
}
/// Parses a node of Mean.
pub fn mean(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Variadic { kind: Kind::Add, mean: true }))
}
/// Parses a node of Max.
pub fn max(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Variadic { kind: Kind::Max, mean: false }))
}
/// Parses a node of Min.
pub fn min(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Variadic { kind: Kind::Min, mean: false }))
}

impl Operator for Variadic {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let mut out = call.need(0, "data_0")?.clone();
        for i in 1..call.inputs.len() {
            out = binary(self.kind, &out, call.need(i, "data")?)?;
        }
        if self.mean {
            let n = call.inputs.len();
            out = for_float!(out.dtype(), "data", T => {
                let n = n as T;
                Ok(Tensor::from_vec(out.shape(), map(out.as_slice::<T>()?, #[inline(always)] |x| x / n))?)
            })?;
        }
        Ok(vec![out])
    }

    fn flow(&self) -> Flow {
        if self.kind == Kind::Add { Flow::Linear } else { Flow::Elementwise }
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if self.kind != Kind::Add {
            return Ok(budget::exact(output.len()));
        }
        let n = call.inputs.len() as f64;
        let mut magnitude = vec![0.0; output.len()];
        for i in 0..call.inputs.len() {
            let x = call.need(i, "data")?;
            let values = x.to_f64()?;
            let view = View::new(&values, x.shape()).broadcast(output.shape())?;
            for (m, x) in magnitude.iter_mut().zip(view.iter()) {
                *m += if self.mean { x.abs() / n } else { x.abs() };
            }
        }
        budget::sum(output, &magnitude, n, unit)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{first, node, run, tensor};

    #[test]
    fn joins_broadcast_tensors() {
        let (a, b, c) = (tensor(&[2, 1], &[1.0, 5.0]), tensor(&[2], &[2.0, -3.0]), tensor(&[], &[3.0]));
        let cases = [
            ("Sum", [6.0, 1.0, 10.0, 5.0]),
            ("Mean", [2.0, 1.0 / 3.0, 10.0 / 3.0, 5.0 / 3.0]),
            ("Max", [3.0, 3.0, 5.0, 5.0]),
            ("Min", [1.0, -3.0, 2.0, -3.0]),
        ];
        for (op, expected) in cases {
            let y = first(&node(op, 13, &[]), &[&a, &b, &c]);
            assert_eq!(y.as_slice::<f64>().unwrap(), expected, "{op}");
            assert!(first(&node(op, 13, &[]), &[&a]).bit_eq(&a), "{op} of one");
            assert!(run(&node(op, 13, &[]), &[]).is_err(), "{op} of none");
        }
    }

    #[test]
    fn nan_wins_on_either_side() {
        let (a, b) = (tensor(&[2], &[f32::NAN, 1.0]), tensor(&[2], &[1.0, f32::NAN]));
        for op in ["Max", "Min"] {
            assert!(
                first(&node(op, 13, &[]), &[&a, &b]).as_slice::<f32>().unwrap().iter().all(|x| x.is_nan())
            );
        }
        let (a, b) = (tensor(&[2], &[3u8, 200]), tensor(&[2], &[7u8, 100]));
        assert_eq!(first(&node("Max", 13, &[]), &[&a, &b]).as_slice::<u8>().unwrap(), [7, 200]);
    }
}
