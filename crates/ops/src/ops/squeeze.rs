//! Squeeze and Unsqueeze: axes of size 1 taken out or put in; nothing is copied. ExpandDims of com.microsoft is
//! Unsqueeze at one axis.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::{Call, Flow, OpError, Operator, arguments, attributes};

#[derive(Debug)]
enum Kind {
    Squeeze,
    Unsqueeze,
}

/// The axes are attribute `axes` below version 13, input 1 from there on.
#[derive(Debug)]
struct Axes {
    kind: Kind,
    axes: Option<Vec<i64>>,
}

/// Parses a node.
pub fn squeeze(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Axes { kind: Kind::Squeeze, axes: attributes::ints(node, "axes")? }))
}

/// Parses a node.
pub fn unsqueeze(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Axes { kind: Kind::Unsqueeze, axes: attributes::ints(node, "axes")? }))
}

impl Operator for Axes {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "data")?;
        let axes = arguments::setting(self.axes.as_deref(), call, 1, "axes")?;
        let shape = match self.kind {
            Kind::Squeeze => without(data.shape(), axes.as_deref())?,
            Kind::Unsqueeze => with(data.shape(), &axes.ok_or(OpError::Missing(1, "axes"))?)?,
        };
        Ok(vec![data.reshape(&shape)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

/// The shape without these axes of size 1; without any axis of size 1 where none are named.
fn without(shape: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>, OpError> {
    let Some(axes) = axes else { return Ok(shape.iter().copied().filter(|&d| d != 1).collect()) };
    let mut gone = vec![false; shape.len()];
    for axis in arguments::axes(axes, shape.len())? {
        if shape[axis] != 1 {
            return Err(OpError::Input(format!(
                "axis {axis} of {shape:?} has size {}, only axes of size 1 can be squeezed",
                shape[axis]
            )));
        }
        gone[axis] = true;
    }
    Ok(shape.iter().zip(gone).filter(|(_, gone)| !gone).map(|(&d, _)| d).collect())
}

/// The shape with axes of size 1 at these places of the result.
fn with(shape: &[usize], axes: &[i64]) -> Result<Vec<usize>, OpError> {
    let rank = shape.len() + axes.len();
    let mut new = vec![false; rank];
    for axis in arguments::axes(axes, rank)? {
        new[axis] = true;
    }
    let mut old = shape.iter().copied();
    // As many places are left for old axes as there are old axes, since the new ones differ.
    Ok(new.into_iter().map(|new| if new { 1 } else { old.next().unwrap_or(1) }).collect())
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{counting, first, ints, node, run};

    #[test]
    fn shapes_as_a_table() {
        type Case = (&'static [usize], Option<&'static [i64]>, Option<&'static [usize]>);
        let squeezed: [Case; 7] = [
            (&[1, 3, 1], None, Some(&[3])),
            (&[1, 3, 1], Some(&[-1]), Some(&[1, 3])),
            (&[1, 3, 1], Some(&[0, 2]), Some(&[3])),
            (&[1, 3, 1], Some(&[]), Some(&[1, 3, 1])),
            (&[1, 0], Some(&[0]), Some(&[0])),
            (&[1, 3, 1], Some(&[1]), None),
            (&[1, 3, 1], Some(&[0, -3]), None),
        ];
        for (shape, axes, out) in squeezed {
            assert_eq!(without(shape, axes).as_deref().ok(), out, "{shape:?} {axes:?}");
        }
        let unsqueezed: [Case; 5] = [
            (&[3, 4], Some(&[0, 3]), Some(&[1, 3, 4, 1])),
            (&[3, 4], Some(&[-1]), Some(&[3, 4, 1])),
            (&[], Some(&[0, 1]), Some(&[1, 1])),
            (&[3], Some(&[2]), None),
            (&[3], Some(&[0, 0]), None),
        ];
        for (shape, axes, out) in unsqueezed {
            assert_eq!(with(shape, axes.unwrap()).as_deref().ok(), out, "{shape:?} {axes:?}");
        }
    }

    #[test]
    fn axes_come_as_attribute_or_input() {
        let data = counting(&[1, 3]);
        let old = [("axes", Attribute::Ints(vec![0]))];
        assert_eq!(first(&node("Squeeze", 11, &old), &[&data]).shape(), [3]);
        assert_eq!(first(&node("Squeeze", 13, &[]), &[&data, &ints(&[0])]).shape(), [3]);
        assert_eq!(first(&node("Unsqueeze", 11, &old), &[&data]).shape(), [1, 1, 3]);
        assert_eq!(first(&node("Unsqueeze", 13, &[]), &[&data, &ints(&[2])]).shape(), [1, 3, 1]);
        assert!(run(&node("Unsqueeze", 13, &[]), &[&data]).is_err());
    }
}
