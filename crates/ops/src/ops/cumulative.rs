//! CumSum and CumProd: running sums and products along an axis, from either end, with or without the element itself.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, normalise_axis};

use super::arithmetic::Number;
use crate::budget::{self, Budget, Unit};
use crate::{Call, Flow, OpError, Operator, arguments, attributes, for_number};

#[derive(Debug)]
struct Cumulative {
    product: bool,
    exclusive: bool,
    reverse: bool,
}

fn parse(node: &Node, product: bool) -> Result<Box<dyn Operator>, OpError> {
    let exclusive = attributes::flag(node, "exclusive", false)?;
    Ok(Box::new(Cumulative { product, exclusive, reverse: attributes::flag(node, "reverse", false)? }))
}

/// Parses a node of CumSum.
pub fn sum(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, false)
}

/// Parses a node of CumProd.
pub fn product(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, true)
}

impl Cumulative {
    /// The tensor's shape as (axis length, distance of neighbours along it).
    fn layout(call: &Call<'_>, shape: &[usize]) -> Result<(usize, usize), OpError> {
        let Some(axis) = arguments::one_int(call, 1, "axis")? else {
            return Err(OpError::Missing(1, "axis"));
        };
        let axis = normalise_axis(axis, shape.len())?;
        Ok((shape[axis], shape[axis + 1..].iter().product()))
    }

    fn apply<T: Number>(&self, x: &[T], (len, inner): (usize, usize)) -> Vec<T> {
        let (start, join): (T, fn(T, T) -> T) =
            if self.product { (T::of_f64(1.0), T::times) } else { (T::default(), T::plus) };
        let mut out = vec![start; x.len()];
        let block = (len * inner).max(1);
        let mut running = vec![start; inner];
        for (out, x) in out.chunks_mut(block).zip(x.chunks(block)) {
            running.fill(start);
            for step in 0..len {
                let row = if self.reverse { len - 1 - step } else { step } * inner;
                for i in 0..inner {
                    let with = join(running[i], x[row + i]);
                    out[row + i] = if self.exclusive { running[i] } else { with };
                    running[i] = with;
                }
            }
        }
        out
    }
}

impl Operator for Cumulative {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "x")?;
        let layout = Self::layout(call, x.shape())?;
        let y = for_number!(x.dtype(), "x", T => {
            Ok(Tensor::from_vec(x.shape(), self.apply(x.as_slice::<T>()?, layout))?)
        })?;
        Ok(vec![y])
    }

    fn flow(&self) -> Flow {
        if self.product { Flow::General } else { Flow::Linear }
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if !output.dtype().is_float() {
            return Ok(budget::exact(output.len()));
        }
        let x = call.need(0, "x")?;
        let layout = Self::layout(call, x.shape())?;
        let count = Self { product: false, ..*self };
        let terms = count.apply(&vec![1.0; x.len()], layout);
        let sizes: Vec<f64> = x.to_f64()?.iter().map(|x| x.abs()).collect();
        // The sizes of what is added up, or the product, of which every factor rounds.
        budget::running_sum(output, &self.apply(&sizes, layout), &terms, unit)
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{first, ints, node, tensor};

    struct Case {
        op: &'static str,
        axis: i64,
        exclusive: i64,
        reverse: i64,
        expected: [i32; 6],
    }

    #[test]
    fn either_direction_with_and_without_the_element() {
        let x = tensor(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        let cases = [
            Case { op: "CumSum", axis: 1, exclusive: 0, reverse: 0, expected: [1, 3, 6, 4, 9, 15] },
            Case { op: "CumSum", axis: -1, exclusive: 1, reverse: 0, expected: [0, 1, 3, 0, 4, 9] },
            Case { op: "CumSum", axis: 1, exclusive: 0, reverse: 1, expected: [6, 5, 3, 15, 11, 6] },
            Case { op: "CumSum", axis: 1, exclusive: 1, reverse: 1, expected: [5, 3, 0, 11, 6, 0] },
            Case { op: "CumSum", axis: 0, exclusive: 0, reverse: 0, expected: [1, 2, 3, 5, 7, 9] },
            Case { op: "CumProd", axis: 1, exclusive: 0, reverse: 0, expected: [1, 2, 6, 4, 20, 120] },
            Case { op: "CumProd", axis: -2, exclusive: 1, reverse: 1, expected: [4, 5, 6, 1, 1, 1] },
        ];
        for Case { op, axis, exclusive, reverse, expected } in cases {
            let settings = [("exclusive", Attribute::Int(exclusive)), ("reverse", Attribute::Int(reverse))];
            let y = first(&node(op, 28, &settings), &[&x, &ints(&[axis])]);
            assert_eq!(y.as_slice::<i32>().unwrap(), expected, "{op} {axis} {exclusive} {reverse}");
        }
    }
}
