//! ArgMax, ArgMin and Hardmax: places of extrema, which are decisions. The first extremum counts unless `select_last_index`.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::softmax::split;
use crate::{Call, Decision, OpError, Operator, attributes, for_float, for_number};

#[derive(Debug)]
struct ArgReduce {
    smallest: bool,
    axis: i64,
    keep: bool,
    last: bool,
}

#[derive(Debug)]
struct Hardmax {
    axis: i64,
    flatten: bool,
}

fn parse(node: &Node, smallest: bool) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(ArgReduce {
        smallest,
        axis: attributes::int_or(node, "axis", 0)?,
        keep: attributes::flag(node, "keepdims", true)?,
        last: attributes::flag(node, "select_last_index", false)?,
    }))
}

/// Parses a node of ArgMax.
pub fn max(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, false)
}

/// Parses a node of ArgMin.
pub fn min(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, true)
}

/// Parses a node of Hardmax: 1 at the first maximum of a row, 0 elsewhere. Rows as in Softmax of the same version.
pub fn hardmax(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let flatten = node.version < 13;
    let axis = attributes::int_or(node, "axis", if flatten { 1 } else { -1 })?;
    Ok(Box::new(Hardmax { axis, flatten }))
}

/// The place of the extremum of each row of a tensor seen as (outer, len, inner); NaN is never one, unless it comes first.
fn places<T: Copy + PartialOrd>(
    x: &[T],
    [outer, len, inner]: [usize; 3],
    smallest: bool,
    last: bool,
) -> Result<Vec<i64>, OpError> {
    if len == 0 && outer * inner > 0 {
        return Err(OpError::Input("the axis is empty: there is no extremum to point at".into()));
    }
    let mut out = Vec::with_capacity(outer * inner);
    for o in 0..outer {
        for i in 0..inner {
            let at = |k: usize| x[(o * len + k) * inner + i];
            let mut best = 0;
            for k in 1..len {
                let (a, b) = (at(k), at(best));
                if if smallest { a < b } else { a > b } || last && a == b {
                    best = k;
                }
            }
            out.push(best as i64);
        }
    }
    Ok(out)
}

impl Operator for ArgReduce {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "data")?;
        let rows = split(x.shape(), self.axis, false)?;
        let mut shape = x.shape().to_vec();
        if !shape.is_empty() {
            let axis = isotrace_tensor::normalise_axis(self.axis, shape.len())?;
            if self.keep {
                shape[axis] = 1;
            } else {
                shape.remove(axis);
            }
        }
        let found = for_number!(x.dtype(), "data", T => {
            places(x.as_slice::<T>()?, rows, self.smallest, self.last)
        })?;
        Ok(vec![Tensor::from_vec(&shape, found)?])
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

impl Operator for Hardmax {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "input")?;
        let rows = split(x.shape(), self.axis, self.flatten)?;
        let [_, len, inner] = rows;
        let y = for_float!(x.dtype(), "input", T => {
            let mut y = vec![0.0 as T; x.len()];
            if !y.is_empty() {
                for (row, place) in places(x.as_slice::<T>()?, rows, false, false)?.into_iter().enumerate() {
                    y[(row / inner * len + place as usize) * inner + row % inner] = 1.0;
                }
            }
            Ok(Tensor::from_vec(x.shape(), y)?)
        })?;
        Ok(vec![y])
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{first, node, run, tensor};

    #[test]
    fn first_and_last_extrema() {
        let x = tensor(&[2, 3], &[2.0, 7.0, 7.0, -1.0, -1.0, 4.0]);
        let with = |op: &str, axis: i64, last: i64| {
            let settings = [
                ("axis", Attribute::Int(axis)),
                ("keepdims", Attribute::Int(0)),
                ("select_last_index", Attribute::Int(last)),
            ];
            first(&node(op, 13, &settings), &[&x]).as_slice::<i64>().unwrap().to_vec()
        };
        assert_eq!(with("ArgMax", 1, 0), [1, 2]);
        assert_eq!(with("ArgMax", -1, 1), [2, 2]);
        assert_eq!(with("ArgMin", 1, 0), [0, 0]);
        assert_eq!(with("ArgMin", 1, 1), [0, 1]);
        assert_eq!(with("ArgMax", 0, 0), [0, 0, 0]);
        assert_eq!(first(&node("ArgMax", 13, &[]), &[&x]).shape(), [1, 3]);
        assert!(run(&node("ArgMax", 13, &[]), &[&tensor::<f32>(&[0, 2], &[])]).is_err());
    }

    #[test]
    fn one_where_the_maximum_is() {
        let x = tensor(&[1, 2, 2], &[3.0f32, 1.0, 3.0, 5.0]);
        let new = first(&node("Hardmax", 13, &[("axis", Attribute::Int(1))]), &[&x]);
        assert_eq!(new.as_slice::<f32>().unwrap(), [1.0, 0.0, 0.0, 1.0]);
        let old = first(&node("Hardmax", 11, &[]), &[&x]);
        assert_eq!(old.as_slice::<f32>().unwrap(), [0.0, 0.0, 0.0, 1.0]);
    }
}
