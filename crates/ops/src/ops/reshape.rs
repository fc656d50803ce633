//! Reshape and Flatten: the same elements under another shape; nothing is copied.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, element_count};

use crate::{Call, Flow, OpError, Operator, arguments, attributes, nchwc};

/// Reshape. The shape is attribute `shape` below version 5, input 1 from there on. A 0 keeps the input's size unless
/// `allowzero`, one -1 takes what is left.
#[derive(Debug)]
struct Reshape {
    shape: Option<Vec<i64>>,
    allow_zero: bool,
    /// Where it shows the memory of a blocked tensor: the block.
    block: Option<i64>,
}

/// Parses a node.
pub fn reshape(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Reshape {
        shape: attributes::ints(node, "shape")?,
        allow_zero: attributes::flag(node, "allowzero", false)?,
        block: attributes::int(node, nchwc::BLOCK)?,
    }))
}

impl Operator for Reshape {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "data")?;
        if let Some(block) = self.block {
            return Ok(vec![nchwc::view(data, arguments::count(block, "the block")?)?]);
        }
        let shape = arguments::setting(self.shape.as_deref(), call, 1, "shape")?
            .ok_or(OpError::Missing(1, "shape"))?;
        Ok(vec![data.reshape(&target(data.shape(), &shape, self.allow_zero)?)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

/// The shape that `asked` means for a tensor shaped `input`.
fn target(input: &[usize], asked: &[i64], allow_zero: bool) -> Result<Vec<usize>, OpError> {
    let refuse = |why: &str| OpError::Input(format!("{input:?} cannot take the shape {asked:?}: {why}"));
    let mut open = None;
    let mut shape = Vec::with_capacity(asked.len());
    for (axis, &size) in asked.iter().enumerate() {
        shape.push(match size {
            0 if !allow_zero => {
                *input.get(axis).ok_or_else(|| refuse("a 0 keeps a size that the input does not have"))?
            }
            -1 if open.is_some() => return Err(refuse("-1 may stand only once")),
            -1 => {
                open = Some(axis);
                1
            }
            size => usize::try_from(size).map_err(|_| refuse("sizes must be -1 or more"))?,
        });
    }
    let (have, rest) = (element_count(input)?, element_count(&shape)?);
    if let Some(axis) = open {
        if rest == 0 || have % rest != 0 {
            return Err(refuse(&format!("{have} elements do not divide by the {rest} of the other axes")));
        }
        shape[axis] = have / rest;
    } else if rest != have {
        return Err(refuse(&format!("it holds {rest} elements, the input {have}")));
    }
    Ok(shape)
}

/// Flatten: two axes, those before `axis` (1 by default) and those from there on.
#[derive(Debug)]
struct Flatten {
    axis: i64,
}

/// Parses a node.
pub fn flatten(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Flatten { axis: attributes::int_or(node, "axis", 1)? }))
}

impl Operator for Flatten {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "input")?;
        // The axis may be the rank itself: everything before, nothing after.
        let rank = data.rank();
        let axis =
            if self.axis == rank as i64 { rank } else { isotrace_tensor::normalise_axis(self.axis, rank)? };
        let (before, after) = data.shape().split_at(axis);
        Ok(vec![data.reshape(&[element_count(before)?, element_count(after)?])?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{counting, first, ints, node, run};

    #[test]
    fn shapes_as_a_table() {
        struct Case {
            input: &'static [usize],
            asked: &'static [i64],
            allow_zero: bool,
            out: Option<&'static [usize]>,
        }
        let case = |input, asked, out| Case { input, asked, allow_zero: false, out };
        let cases = [
            case(&[2, 3, 4], &[4, 6], Some(&[4, 6])),
            case(&[2, 3, 4], &[0, -1], Some(&[2, 12])),
            case(&[2, 3, 4], &[-1], Some(&[24])),
            case(&[2, 3, 4], &[0, 0, -1, 1], Some(&[2, 3, 4, 1])),
            case(&[1, 1], &[], Some(&[])),
            case(&[], &[1, -1], Some(&[1, 1])),
            case(&[0, 3], &[3, 0], None),
            case(&[0, 3], &[0, -1], None),
            case(&[0, 3], &[-1, 3], Some(&[0, 3])),
            Case { input: &[0, 3], asked: &[3, 0], allow_zero: true, out: Some(&[3, 0]) },
            case(&[2, 3], &[4], None),
            case(&[2, 3], &[-1, -1], None),
            case(&[2, 3], &[-1, 4], None),
            case(&[2, 3], &[-2, 3], None),
            case(&[2, 3], &[1, 1, 0], None),
            case(&[2, 3], &[i64::MAX, i64::MAX], None),
        ];
        for Case { input, asked, allow_zero, out } in cases {
            let got = target(input, asked, allow_zero);
            assert_eq!(got.as_deref().ok(), out, "{input:?} to {asked:?}: {got:?}");
        }
    }

    #[test]
    fn the_shape_is_an_attribute_in_version_1() {
        let data = counting(&[2, 3]);
        let old = node("Reshape", 1, &[("shape", Attribute::Ints(vec![3, -1]))]);
        assert_eq!(first(&old, &[&data]).shape(), [3, 2]);
        assert_eq!(first(&node("Reshape", 14, &[]), &[&data, &ints(&[6])]).shape(), [6]);
        assert!(run(&node("Reshape", 14, &[]), &[&data]).is_err());
        assert!(run(&node("Reshape", 14, &[]), &[&data, &counting(&[1])]).is_err());
    }

    #[test]
    fn flatten_splits_at_any_axis() {
        let data = counting(&[2, 3, 4]);
        let cases: [(Option<i64>, Option<[usize; 2]>); 6] = [
            (None, Some([2, 12])),
            (Some(0), Some([1, 24])),
            (Some(3), Some([24, 1])),
            (Some(-1), Some([6, 4])),
            (Some(-3), Some([1, 24])),
            (Some(4), None),
        ];
        for (axis, shape) in cases {
            let attributes: Vec<_> = axis.map(|a| ("axis", Attribute::Int(a))).into_iter().collect();
            let got = run(&node("Flatten", 13, &attributes), &[&data]);
            assert_eq!(got.ok().map(|t| t[0].shape().to_vec()), shape.map(|s| s.to_vec()), "{axis:?}");
        }
    }
}
