//! Compress: the slices along an axis whose condition (input 1) is true; without an axis, elements of the flat
//! tensor. ReverseSequence: the first elements of each sequence in a batch backwards.

use isotrace_graph::Node;
use isotrace_tensor::{Bool, Tensor, normalise_axis};

use crate::moves::{Runs, move_elements};
use crate::walk::{Walk, walk};
use crate::{Call, Flow, OpError, Operator, arguments, attributes};

#[derive(Debug)]
struct Compress {
    axis: Option<i64>,
}

/// Parses a node.
pub fn compress(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Compress { axis: attributes::int(node, "axis")? }))
}

impl Operator for Compress {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "input")?;
        let (data, axis) = match self.axis {
            None => (data.reshape(&[data.len()])?, 0),
            Some(axis) => (data.clone(), normalise_axis(axis, data.rank())?),
        };
        let condition = call.need(1, "condition")?.as_slice::<Bool>()?;
        let size = data.shape()[axis];
        // Places beyond the condition's end are not taken.
        if condition.len() > size && condition[size..].iter().any(|c| c.get()) {
            return Err(OpError::Input(format!(
                "a condition of {} elements takes places beyond axis {axis} of size {size}",
                condition.len()
            )));
        }
        let mut walks: Vec<Walk> = data.shape().iter().map(|&d| Walk::whole(d)).collect();
        let taken = condition.iter().take(size).enumerate().filter(|(_, c)| c.get());
        walks[axis] = Walk::places(taken.map(|(i, _)| i));
        Ok(vec![walk(&data, &walks, None)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[derive(Debug)]
struct ReverseSequence {
    time: i64,
    batch: i64,
}

/// Parses a node.
pub fn reverse_sequence(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let (time, batch) =
        (attributes::int_or(node, "time_axis", 0)?, attributes::int_or(node, "batch_axis", 1)?);
    if (time, batch) == (0, 1) || (time, batch) == (1, 0) {
        Ok(Box::new(ReverseSequence { time, batch }))
    } else {
        Err(OpError::Setting(format!("time_axis is {time}, batch_axis {batch}: one must be 0, the other 1")))
    }
}

impl Operator for ReverseSequence {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "input")?;
        let lengths = arguments::need_ints(call, 1, "sequence_lens")?;
        let &[rows, columns, ref inner @ ..] = data.shape() else {
            return Err(OpError::Input(format!("input {:?} must have time and batch axes", data.shape())));
        };
        let (steps, batch) = if self.time == 0 { (rows, columns) } else { (columns, rows) };
        if lengths.len() != batch {
            return Err(OpError::Input(format!("{} sequence_lens for a batch of {batch}", lengths.len())));
        }
        let lengths = arguments::sizes(&lengths, "sequence_lens")?;
        if let Some(length) = lengths.iter().find(|&&l| l > steps) {
            return Err(OpError::Input(format!("a sequence of length {length} in an axis of {steps} steps")));
        }
        let mut kernel = Runs { starts: Vec::new(), run: 0 };
        if !data.is_empty() {
            kernel.run = inner.iter().product();
            for row in 0..rows {
                for column in 0..columns {
                    let (t, b) = if self.batch == 1 { (row, column) } else { (column, row) };
                    let from = if t < lengths[b] { lengths[b] - 1 - t } else { t };
                    let place = if self.batch == 1 { from * columns + b } else { b * columns + from };
                    kernel.starts.push(place * kernel.run);
                }
            }
        }
        Ok(vec![move_elements(&[data], data.shape(), &kernel)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{counting, first, ints, node, run, tensor};

    #[test]
    fn conditions_as_a_table() {
        type Case = (Option<i64>, &'static [u8], Option<&'static [f32]>);
        let data = counting(&[2, 3]);
        let cases: [Case; 6] = [
            (None, &[1, 0, 0, 0, 1], Some(&[0., 4.])),
            (Some(0), &[0, 1], Some(&[3., 4., 5.])),
            (Some(-1), &[1, 0, 1], Some(&[0., 2., 3., 5.])),
            (Some(1), &[0, 0, 0, 0], Some(&[])),
            (Some(1), &[0, 0, 0, 1], None),
            (Some(2), &[1], None),
        ];
        for (axis, condition, expected) in cases {
            let axis: Vec<_> = axis.map(|a| ("axis", Attribute::Int(a))).into_iter().collect();
            let condition: Vec<Bool> = condition.iter().map(|&c| Bool(c)).collect();
            let got = run(&node("Compress", 11, &axis), &[&data, &Tensor::vector(condition.clone())]);
            let got = got.ok().map(|t| t[0].as_slice::<f32>().unwrap().to_vec());
            assert_eq!(got, expected.map(<[f32]>::to_vec), "{axis:?} {condition:?}");
        }
    }

    #[test]
    fn sequences_turn_around() {
        let data = counting(&[3, 2]);
        let out = first(&node("ReverseSequence", 10, &[]), &[&data, &ints(&[3, 2])]);
        assert_eq!(out.as_slice::<f32>().unwrap(), [4., 3., 2., 1., 0., 5.]);
        let turned = [("time_axis", Attribute::Int(1)), ("batch_axis", Attribute::Int(0))];
        let out = first(&node("ReverseSequence", 10, &turned), &[&counting(&[2, 2, 2]), &ints(&[2, 1])]);
        assert_eq!(out.as_slice::<f32>().unwrap(), [2., 3., 0., 1., 4., 5., 6., 7.]);
        assert!(run(&node("ReverseSequence", 10, &[]), &[&data, &ints(&[4, 2])]).is_err());
        assert!(run(&node("ReverseSequence", 10, &[]), &[&data, &ints(&[1])]).is_err());
        assert!(run(&node("ReverseSequence", 10, &turned[..1]), &[&data, &ints(&[1, 1])]).is_err());
        assert_eq!(
            first(&node("ReverseSequence", 10, &[]), &[&tensor::<f32>(&[0, 2], &[]), &ints(&[0, 0])]).len(),
            0
        );
    }
}
