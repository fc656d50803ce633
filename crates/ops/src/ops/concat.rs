//! Concat and Split: several tensors into one along an axis, and back.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, normalise_axis};

use crate::moves::{Move, move_elements};
use crate::walk::{Piece, Walk, walk};
use crate::{Call, Flow, OpError, Operator, arguments, attributes};

#[derive(Debug)]
struct Concat {
    axis: i64,
}

/// Parses a node.
pub fn concat(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let axis = attributes::int(node, "axis")?;
    let axis = if node.version < 4 { axis.or(Some(1)) } else { axis };
    let axis = axis.ok_or_else(|| OpError::Setting("Concat needs the attribute \"axis\"".into()))?;
    Ok(Box::new(Concat { axis }))
}

/// Copies `runs[i]` elements of each input in turn, `outer` times.
struct Interleave {
    outer: usize,
    runs: Vec<usize>,
}

impl Move for Interleave {
    fn run<T: Copy + Send + Sync>(&self, data: &[&[T]], _: T, out: &mut Vec<T>) {
        for o in 0..self.outer {
            for (data, &run) in data.iter().zip(&self.runs) {
                out.extend_from_slice(&data[o * run..(o + 1) * run]);
            }
        }
    }
}

/// Tensors of one type one after the other along `axis`; the other axes must be of equal size.
pub fn concatenate(tensors: &[&Tensor], axis: usize) -> Result<Tensor, OpError> {
    let Some((first, rest)) = tensors.split_first() else {
        return Err(OpError::Input("there is nothing to join: no input was given".into()));
    };
    let mut shape = first.shape().to_vec();
    for other in rest {
        let agree = other.rank() == shape.len()
            && (0..shape.len()).all(|i| i == axis || other.shape()[i] == shape[i]);
        if !agree {
            return Err(OpError::Input(format!(
                "{:?} and {:?} cannot be joined along axis {axis}: all other axes must have equal sizes",
                first.shape(),
                other.shape()
            )));
        }
        shape[axis] = shape[axis].saturating_add(other.shape()[axis]);
    }
    if rest.is_empty() {
        return Ok((*first).clone());
    }
    let mut kernel = Interleave { outer: 0, runs: Vec::new() };
    if isotrace_tensor::element_count(&shape)? > 0 {
        kernel.outer = shape[..axis].iter().product();
        kernel.runs = tensors.iter().map(|t| t.shape()[axis..].iter().product()).collect();
    }
    Ok(move_elements(tensors, &shape, &kernel)?)
}

impl Operator for Concat {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let first = call.need(0, "inputs")?;
        let axis = normalise_axis(self.axis, first.rank())?;
        let tensors: Vec<&Tensor> = call.inputs.iter().copied().flatten().collect();
        Ok(vec![concatenate(&tensors, axis)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

/// Sizes of the parts are attribute `split` below version 13, input 1 from there on; left out, the axis is cut into
/// equal parts (from version 18 on the last may be smaller), as many as `num_outputs` or the node's outputs.
#[derive(Debug)]
struct Split {
    axis: i64,
    sizes: Option<Vec<i64>>,
    parts: Option<i64>,
}

/// Parses a node.
pub fn split(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Split {
        axis: attributes::int_or(node, "axis", 0)?,
        sizes: attributes::ints(node, "split")?,
        parts: attributes::int(node, "num_outputs")?,
    }))
}

impl Operator for Split {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "input")?;
        let axis = normalise_axis(self.axis, data.rank())?;
        let size = data.shape()[axis];
        let sizes = match arguments::setting(self.sizes.as_deref(), call, 1, "split")? {
            Some(sizes) => given(&sizes, size, axis)?,
            None => match self.parts {
                Some(parts) => uneven(size, arguments::count(parts, "num_outputs")?, call.outputs)?,
                None => even(size, call.outputs, axis)?,
            },
        };
        let mut start = 0;
        let mut part = |len: usize| {
            let mut walks: Vec<Walk> = data.shape().iter().map(|&d| Walk::whole(d)).collect();
            walks[axis] = Walk::default();
            walks[axis].push(Piece::From { start, step: 1, len });
            start += len;
            Ok(walk(data, &walks, None)?)
        };
        sizes.into_iter().map(&mut part).collect()
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

fn given(sizes: &[i64], size: usize, axis: usize) -> Result<Vec<usize>, OpError> {
    let sizes = arguments::sizes(sizes, "split")?;
    let sum = sizes.iter().try_fold(0usize, |sum, &s| sum.checked_add(s));
    if sum == Some(size) {
        Ok(sizes)
    } else {
        Err(OpError::Input(format!("the parts {sizes:?} do not add up to axis {axis} of size {size}")))
    }
}

fn even(size: usize, parts: usize, axis: usize) -> Result<Vec<usize>, OpError> {
    if parts == 0 || !size.is_multiple_of(parts) {
        return Err(OpError::Input(format!(
            "axis {axis} of size {size} cannot be cut into {parts} equal parts"
        )));
    }
    Ok(vec![size / parts; parts])
}

fn uneven(size: usize, parts: usize, outputs: usize) -> Result<Vec<usize>, OpError> {
    if parts == 0 || parts < outputs {
        return Err(OpError::Setting(format!("num_outputs is {parts}, the node has {outputs} outputs")));
    }
    // Parts beyond the node's outputs are nobody's; a hostile count must not fill the memory.
    let chunk = size.div_ceil(parts);
    Ok((0..parts.min(outputs)).map(|i| chunk.min(size.saturating_sub(i.saturating_mul(chunk)))).collect())
}

#[cfg(test)]
mod tests {
    use isotrace_graph::{Attribute, ValueId};

    use super::*;
    use crate::testing::{counting, errors, first, ints, node, run, tensor};

    #[test]
    fn joining_follows_the_axis() {
        let (a, b) = (counting(&[2, 2]), counting(&[2, 1]));
        let concat = |axis| node("Concat", 13, &[("axis", Attribute::Int(axis))]);
        for axis in [1, -1] {
            let out = first(&concat(axis), &[&a, &b]);
            assert_eq!(out.as_slice::<f32>().unwrap(), [0., 1., 0., 2., 3., 1.]);
            assert_eq!(out.shape(), [2, 3]);
        }
        assert!(run(&concat(0), &[&a, &b]).is_err());
        assert!(run(&concat(2), &[&a]).is_err());
        assert!(run(&concat(0), &[&a, &ints(&[1])]).is_err());
        assert!(run(&concat(0), &[&ints(&[1]), &counting(&[1])]).is_err(), "two types");
        assert!(run(&concat(0), &[]).is_err());
        assert_eq!(first(&concat(0), &[&counting(&[0]), &counting(&[2])]).shape(), [2]);
        let text = |s: &str| Tensor::from_strings(&[1], vec![s.into()]).unwrap();
        let out = first(&concat(0), &[&text("a"), &text("b")]);
        assert_eq!(out.as_strings().unwrap(), ["a", "b"]);
        assert_eq!(first(&node("Concat", 1, &[]), &[&a, &b]).shape(), [2, 3]);
        assert!(run(&node("Concat", 4, &[]), &[&a, &b]).is_err());
    }

    #[test]
    fn exact_inputs_bring_no_error() {
        let (a, b) = (tensor(&[1], &[5f64]), tensor(&[2], &[1f64, 2.0]));
        let concat = node("Concat", 13, &[("axis", Attribute::Int(0))]);
        assert_eq!(
            errors(&concat, &[&a, &b], &[None, Some(tensor(&[2], &[0.5f64, 0.25]))]),
            [0.0, 0.5, 0.25]
        );
    }

    #[test]
    fn parts_of_every_version() {
        struct Case {
            version: i64,
            attributes: Vec<(&'static str, Attribute)>,
            sizes: Option<Vec<i64>>,
            outputs: usize,
            parts: Option<Vec<usize>>,
        }
        let split = |s: &[i64]| vec![("split", Attribute::Ints(s.to_vec()))];
        let many = |n| vec![("num_outputs", Attribute::Int(n))];
        let cases = [
            Case { version: 2, attributes: split(&[3, 4]), sizes: None, outputs: 2, parts: Some(vec![3, 4]) },
            Case { version: 11, attributes: vec![], sizes: None, outputs: 7, parts: Some(vec![1; 7]) },
            Case { version: 11, attributes: vec![], sizes: None, outputs: 2, parts: None },
            Case {
                version: 13,
                attributes: vec![],
                sizes: Some(vec![0, 7]),
                outputs: 2,
                parts: Some(vec![0, 7]),
            },
            Case { version: 13, attributes: vec![], sizes: Some(vec![3, 3]), outputs: 2, parts: None },
            Case { version: 13, attributes: vec![], sizes: Some(vec![-1, 8]), outputs: 2, parts: None },
            Case { version: 18, attributes: many(3), sizes: None, outputs: 3, parts: Some(vec![3, 3, 1]) },
            Case {
                version: 18,
                attributes: many(5),
                sizes: None,
                outputs: 5,
                parts: Some(vec![2, 2, 2, 1, 0]),
            },
            Case { version: 18, attributes: many(0), sizes: None, outputs: 1, parts: None },
            Case { version: 18, attributes: many(i64::MAX), sizes: None, outputs: 1, parts: Some(vec![1]) },
        ];
        let data = counting(&[7, 2]);
        for (row, Case { version, attributes, sizes, outputs, parts }) in cases.into_iter().enumerate() {
            let mut n = node("Split", version, &attributes);
            n.outputs = vec![Some(ValueId(0)); outputs];
            let sizes = sizes.map(|s| ints(&s));
            let inputs: Vec<&Tensor> = std::iter::once(&data).chain(&sizes).collect();
            let got = run(&n, &inputs);
            let shapes = got.as_ref().ok().map(|g| g.iter().map(|t| t.shape()[0]).collect::<Vec<_>>());
            assert_eq!(shapes, parts, "row {row}: {got:?}");
        }
    }

    #[test]
    fn split_and_concat_are_inverse() {
        let data = counting(&[3, 5, 2]);
        for axis in [0i64, 1, -1] {
            let size = data.shape()[axis.rem_euclid(3) as usize] as i64;
            let mut n = node("Split", 13, &[("axis", Attribute::Int(axis))]);
            n.outputs.push(None);
            let parts = run(&n, &[&data, &ints(&[1, size - 1])]).unwrap();
            let joined = first(
                &node("Concat", 13, &[("axis", Attribute::Int(axis))]),
                &parts.iter().collect::<Vec<_>>(),
            );
            assert!(joined.bit_eq(&data), "axis {axis}");
        }
    }
}
