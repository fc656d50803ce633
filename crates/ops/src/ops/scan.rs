//! Scan: a body over the slices of its inputs along an axis, with states carried from step to step and outputs
//! collected along an axis.
//!
//! Version 8 has a batch axis in front of everything, scans along axis 1, and takes lengths of sequences as input 0;
//! from version 9 on there is no batch, and every axis and direction can be chosen.

use isotrace_graph::{Node, TensorType};
use isotrace_tensor::{Tensor, normalise_axis};

use super::concat::concatenate;
use super::control::{body_budget, check_held, held, output_types, stack};
use crate::budget::{Budget, Unit};
use crate::walk::{Walk, walk};
use crate::{Call, OpError, Operator, arguments, attributes};

#[derive(Debug)]
struct Scan {
    scanned: usize,
    input_axes: Vec<i64>,
    backwards: Vec<i64>,
    output_axes: Vec<i64>,
    output_backwards: Vec<i64>,
    batched: bool,
    types: Vec<Option<TensorType>>,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let batched = node.version < 9;
    let list = |name| Ok::<_, OpError>(attributes::ints(node, name)?.unwrap_or_default());
    let scanned = attributes::int(node, "num_scan_inputs")?.and_then(|n| usize::try_from(n).ok());
    let scanned = scanned
        .filter(|&n| n > 0)
        .ok_or_else(|| OpError::Setting("attribute \"num_scan_inputs\" must be a number above 0".into()))?;
    Ok(Box::new(Scan {
        scanned,
        input_axes: list("scan_input_axes")?,
        backwards: list(if batched { "directions" } else { "scan_input_directions" })?,
        output_axes: list("scan_output_axes")?,
        output_backwards: list("scan_output_directions")?,
        batched,
        types: output_types(node),
    }))
}

/// Slice `place` of a tensor along an axis, without the axis.
fn slice(tensor: &Tensor, axis: usize, place: usize) -> Result<Tensor, OpError> {
    let mut walks: Vec<Walk> = tensor.shape().iter().map(|&d| Walk::whole(d)).collect();
    walks[axis] = Walk::places([place]);
    let mut shape = tensor.shape().to_vec();
    shape.remove(axis);
    Ok(walk(tensor, &walks, None)?.reshape(&shape)?)
}

/// An entry of a list attribute, 0 where the list is left out.
fn entry(list: &[i64], index: usize) -> i64 {
    list.get(index).copied().unwrap_or(0)
}

/// Final states and collected outputs of one scan.
struct Scanned {
    states: Vec<Tensor>,
    collected: Vec<Vec<Tensor>>,
}

impl Scan {
    /// Runs the body `steps` times; `axes[i]` is the axis of scanned input i.
    fn scan(
        &self,
        call: &Call<'_>,
        mut states: Vec<Tensor>,
        scanned: &[Tensor],
        axes: &[usize],
        steps: usize,
    ) -> Result<Scanned, OpError> {
        let count = states.len();
        let mut collected: Vec<Vec<Tensor>> = vec![Vec::new(); self.types.len().saturating_sub(count)];
        let mut bytes = 0usize;
        for step in 0..steps {
            let mut inputs = std::mem::take(&mut states);
            for (i, (tensor, &axis)) in scanned.iter().zip(axes).enumerate() {
                // The sequence may be shorter than the axis; backwards starts at its end.
                let place = if entry(&self.backwards, i) == 1 { steps - 1 - step } else { step };
                inputs.push(slice(tensor, axis, place)?);
            }
            let mut outputs = call.bodies.run("body", inputs)?;
            if outputs.len() < count {
                return Err(OpError::Input(format!(
                    "the body has {} outputs, {count} states are expected first",
                    outputs.len()
                )));
            }
            let kept = outputs.split_off(count);
            collected.resize(kept.len().max(collected.len()), Vec::new());
            bytes = bytes.saturating_add(held(&kept));
            for (list, tensor) in collected.iter_mut().zip(kept) {
                list.push(tensor);
            }
            states = outputs;
            check_held(bytes.saturating_add(held(&states)), "the scan")?;
        }
        for (i, list) in collected.iter_mut().enumerate() {
            if entry(&self.output_backwards, i) == 1 {
                list.reverse();
            }
        }
        Ok(Scanned { states, collected })
    }

    fn plain(
        &self,
        call: &Call<'_>,
        states: Vec<Tensor>,
        scanned: &[Tensor],
    ) -> Result<Vec<Tensor>, OpError> {
        let mut axes = Vec::with_capacity(scanned.len());
        for (i, tensor) in scanned.iter().enumerate() {
            axes.push(normalise_axis(entry(&self.input_axes, i), tensor.rank())?);
        }
        let steps = scanned[0].shape()[axes[0]];
        if let Some((tensor, axis)) = scanned.iter().zip(&axes).find(|(t, axis)| t.shape()[**axis] != steps) {
            return Err(OpError::Input(format!(
                "scanned inputs have {steps} steps and {} (axis {axis} of {:?})",
                tensor.shape()[*axis],
                tensor.shape()
            )));
        }
        let count = states.len();
        let Scanned { states: mut out, collected } = self.scan(call, states, scanned, &axes, steps)?;
        for (i, list) in collected.iter().enumerate() {
            let declared = self.types.get(count + i).and_then(Option::as_ref);
            let rank = match list.first() {
                Some(first) => first.rank(),
                None => declared.and_then(|d| d.shape.as_ref()).map_or(0, Vec::len),
            };
            let axis = normalise_axis(entry(&self.output_axes, i), rank + 1)?;
            out.push(stack(list, axis, declared, call.precision)?);
        }
        Ok(out)
    }

    /// Version 8: sample by sample, sequences of their own length.
    fn batched(
        &self,
        call: &Call<'_>,
        states: &[Tensor],
        scanned: &[Tensor],
    ) -> Result<Vec<Tensor>, OpError> {
        let &[batch, longest, ..] = scanned[0].shape() else {
            return Err(OpError::Input(format!(
                "scanned input {:?} must have axes for batch and sequence",
                scanned[0].shape()
            )));
        };
        let agree = |t: &&Tensor| t.shape().first() == Some(&batch);
        let steps_agree = |t: &Tensor| t.shape().get(1) == Some(&longest);
        if !states.iter().chain(scanned).all(|t| agree(&t)) || !scanned.iter().all(steps_agree) {
            return Err(OpError::Input(format!(
                "all inputs must have a batch of {batch}, all scanned ones {longest} steps"
            )));
        }
        let lengths = match arguments::ints(call, 0, "sequence_lens")? {
            Some(lengths) => arguments::sizes(&lengths, "sequence_lens")?,
            None => vec![longest; batch],
        };
        if lengths.len() != batch || lengths.iter().any(|&l| l > longest) {
            return Err(OpError::Input(format!(
                "sequence_lens {lengths:?} must hold {batch} lengths of at most {longest}"
            )));
        }
        let mut rows: Vec<Vec<Tensor>> = Vec::new();
        for (b, &steps) in lengths.iter().enumerate() {
            let of = |list: &[Tensor]| list.iter().map(|t| slice(t, 0, b)).collect::<Result<Vec<_>, _>>();
            let scanned = of(scanned)?;
            let found = self.scan(call, of(states)?, &scanned, &vec![0; scanned.len()], steps)?;
            let mut row = found.states;
            for (i, list) in found.collected.iter().enumerate() {
                let declared = self.types.get(states.len() + i).and_then(Option::as_ref);
                let stacked = stack(list, 0, declared, call.precision)?;
                // Zeros after the end of a sequence that is shorter than the longest.
                let mut walks: Vec<Walk> = stacked.shape().iter().map(|&d| Walk::whole(d)).collect();
                walks[0].push(crate::walk::Piece::Fill { len: longest - steps });
                row.push(walk(&stacked, &walks, None)?);
            }
            rows.resize(row.len(), Vec::new());
            rows.iter_mut().zip(row).for_each(|(list, tensor)| list.push(tensor));
        }
        rows.into_iter()
            .map(|list| {
                let apart = list.iter().map(|t| Ok(t.reshape(&[&[1], t.shape()].concat())?));
                let apart: Vec<Tensor> = apart.collect::<Result<_, OpError>>()?;
                concatenate(&apart.iter().collect::<Vec<_>>(), 0)
            })
            .collect()
    }
}

impl Operator for Scan {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let skip = usize::from(self.batched);
        let mut inputs = Vec::new();
        for i in skip..call.inputs.len() {
            inputs.push(call.need(i, "initial_state_and_scan_inputs")?.clone());
        }
        let Some(count) = inputs.len().checked_sub(self.scanned) else {
            return Err(OpError::Input(format!(
                "{} inputs, num_scan_inputs asks for {} at least",
                inputs.len(),
                self.scanned
            )));
        };
        let scanned = inputs.split_off(count);
        if self.batched { self.batched(call, &inputs, &scanned) } else { self.plain(call, inputs, &scanned) }
    }

    fn keeps_half(&self) -> bool {
        true
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        body_budget(self, call, index, output, unit)
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::Bodies;
    use crate::testing::{counting, node, tensor};

    /// A running sum: the state plus the slice, collected.
    struct Sum;

    impl Bodies for Sum {
        fn run(&self, _: &str, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, OpError> {
            let sum: Vec<f32> = inputs[0]
                .as_slice::<f32>()?
                .iter()
                .zip(inputs[1].as_slice::<f32>()?)
                .map(|(a, b)| a + b)
                .collect();
            let sum = Tensor::from_vec(inputs[0].shape(), sum)?;
            Ok(vec![sum.clone(), sum])
        }
    }

    fn scan(version: i64, lists: &[(&str, i64)], inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let mut attributes = vec![("num_scan_inputs", Attribute::Int(1))];
        attributes.extend(lists.iter().map(|&(name, value)| (name, Attribute::Ints(vec![value]))));
        crate::build(&node("Scan", version, &attributes))?.run(&Call { bodies: &Sum, ..Call::new(inputs) })
    }

    #[test]
    fn axes_and_directions() {
        type Case = (&'static [(&'static str, i64)], &'static [usize], &'static [f32], &'static [f32]);
        let start = tensor(&[2], &[0f32, 0.]);
        let data = tensor(&[3, 2], &[1f32, 10., 2., 20., 3., 30.]);
        let cases: [Case; 4] = [
            (&[], &[3, 2], &[6., 60.], &[1., 10., 3., 30., 6., 60.]),
            (&[("scan_input_directions", 1)], &[3, 2], &[6., 60.], &[3., 30., 5., 50., 6., 60.]),
            (&[("scan_output_directions", 1)], &[3, 2], &[6., 60.], &[6., 60., 3., 30., 1., 10.]),
            (&[("scan_output_axes", -1)], &[2, 3], &[6., 60.], &[1., 3., 6., 10., 30., 60.]),
        ];
        for (lists, shape, state, collected) in cases {
            let out = scan(11, lists, &[Some(&start), Some(&data)]).unwrap();
            assert_eq!(out[0].as_slice::<f32>().unwrap(), state, "{lists:?}");
            assert_eq!((out[1].shape(), out[1].as_slice::<f32>().unwrap()), (shape, collected), "{lists:?}");
        }
        let across = data.permute(&[1, 0]).unwrap();
        let out = scan(9, &[("scan_input_axes", 1)], &[Some(&start), Some(&across)]).unwrap();
        assert_eq!(out[0].as_slice::<f32>().unwrap(), [6., 60.]);
        assert!(scan(9, &[("scan_input_axes", 2)], &[Some(&start), Some(&data)]).is_err());
        assert!(scan(9, &[("scan_output_axes", 2)], &[Some(&start), Some(&data)]).is_err());
        assert!(scan(9, &[], &[]).is_err());
        let none = scan(9, &[], &[Some(&start), Some(&counting(&[0, 2]))]).unwrap();
        assert!(none[0].bit_eq(&start));
    }

    #[test]
    fn version_8_has_batches_and_lengths() {
        let start = tensor(&[2, 1], &[0f32, 100.]);
        let data = tensor(&[2, 3, 1], &[1f32, 2., 3., 4., 5., 6.]);
        let lengths = tensor(&[2], &[3i64, 2]);
        let out = scan(8, &[], &[Some(&lengths), Some(&start), Some(&data)]).unwrap();
        assert_eq!(out[0].as_slice::<f32>().unwrap(), [6., 109.]);
        assert_eq!(out[1].shape(), [2, 3, 1]);
        assert_eq!(out[1].as_slice::<f32>().unwrap(), [1., 3., 6., 104., 109., 0.]);
        let out = scan(8, &[("directions", 1)], &[Some(&lengths), Some(&start), Some(&data)]).unwrap();
        assert_eq!(out[1].as_slice::<f32>().unwrap(), [3., 5., 6., 105., 109., 0.]);
        assert!(scan(8, &[], &[None, Some(&start), Some(&data)]).is_ok());
        let long = tensor(&[2], &[4i64, 2]);
        assert!(scan(8, &[], &[Some(&long), Some(&start), Some(&data)]).is_err());
    }
}
