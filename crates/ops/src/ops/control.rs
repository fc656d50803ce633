//! If and Loop: bodies run once, or over and over.
//!
//! A file can ask for an endless loop, or for one that keeps more than any machine holds: both end in an error at the
//! limits below.

use isotrace_graph::{Attribute, Dim, Node, TensorType};
use isotrace_tensor::{Bool, DType, Tensor};

use super::concat::concatenate;
use crate::budget::{self, Budget, Unit};
use crate::{Call, Flow, OpError, Operator, Precision, arguments, flow};

/// Most trips of one loop.
pub const MAX_TRIPS: i64 = 1_000_000;

/// Most bytes that one loop may carry and collect.
pub const MAX_BYTES: usize = 1 << 36;

/// u(|y| + max|y|) and what rounding of the inputs brings about, c = 64. Bodies have no budget of their own here: the
/// operators inside are judged where the executor can look into the body.
pub(super) fn body_budget(
    operator: &dyn Operator,
    call: &Call<'_>,
    index: usize,
    output: &Tensor,
    unit: Unit,
) -> Result<Budget, OpError> {
    if !output.dtype().is_float() {
        return Ok(budget::exact(output.len()));
    }
    let rounding = |x: &Tensor| -> Result<Tensor, OpError> {
        Ok(Tensor::from_vec(x.shape(), x.to_f64()?.iter().map(|x| unit.u * x.abs()).collect())?)
    };
    let errors: Vec<Option<Tensor>> = call
        .inputs
        .iter()
        .map(|x| x.filter(|x| x.dtype().is_float()).map(rounding).transpose())
        .collect::<Result<_, _>>()?;
    let outputs = operator.run(call)?;
    let moved = flow::propagate(Flow::General, &|c| operator.run(c), call, &outputs, &errors)?;
    let y = output.to_f64()?;
    let max = y.iter().map(|y| y.abs()).filter(|y| y.is_finite()).fold(0.0, f64::max);
    let own = y.iter().map(|y| unit.u * (y.abs() + max) + unit.eta);
    let units = match moved.get(index).filter(|m| m.len() == y.len()) {
        Some(moved) => own.zip(moved.to_f64()?.iter()).map(|(own, moved)| own + moved).collect(),
        None => own.collect(),
    };
    Ok(budget::scaled(units, 64.0, unit))
}

#[derive(Debug)]
struct If;

/// Parses a node.
pub fn if_else(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(If))
}

/// The one truth value of a tensor.
fn truth(tensor: &Tensor, name: &str) -> Result<bool, OpError> {
    match tensor.as_slice::<Bool>()? {
        [one] => Ok(one.get()),
        many => Err(OpError::Input(format!("{name} holds {} truth values, one is expected", many.len()))),
    }
}

impl Operator for If {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let branch = if truth(call.need(0, "cond")?, "cond")? { "then_branch" } else { "else_branch" };
        call.bodies.run(branch, Vec::new())
    }

    fn keeps_half(&self) -> bool {
        true
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        body_budget(self, call, index, output, unit)
    }
}

/// The declared types of a body's outputs, for loops that make no trip.
pub(super) fn output_types(node: &Node) -> Vec<Option<TensorType>> {
    match node.attributes.get("body") {
        Some(Attribute::Graph(body)) => {
            body.outputs.iter().map(|&id| body.value(id).declared.clone()).collect()
        }
        _ => Vec::new(),
    }
}

/// What `steps` collected outputs of one kind become: stacked along a new axis.
pub(super) fn stack(
    steps: &[Tensor],
    axis: usize,
    declared: Option<&TensorType>,
    precision: Precision,
) -> Result<Tensor, OpError> {
    if steps.is_empty() {
        // No trip: sizes that the file leaves open are 0.
        let dtype = precision.resolve(declared.map_or(DType::F32, |d| d.dtype));
        let dims = declared.and_then(|d| d.shape.as_deref()).unwrap_or_default();
        let mut shape: Vec<usize> =
            dims.iter().map(|d| if let Dim::Fixed(size) = d { *size } else { 0 }).collect();
        shape.insert(axis.min(shape.len()), 0);
        return Ok(if dtype == DType::String {
            Tensor::from_strings(&shape, Vec::new())?
        } else {
            Tensor::from_vec::<f32>(&shape, Vec::new())?.cast(dtype)?
        });
    }
    let apart: Vec<Tensor> = steps
        .iter()
        .map(|step| {
            let mut shape = step.shape().to_vec();
            shape.insert(axis.min(shape.len()), 1);
            Ok(step.reshape(&shape)?)
        })
        .collect::<Result<_, OpError>>()?;
    let axis = axis.min(apart[0].rank() - 1);
    concatenate(&apart.iter().collect::<Vec<_>>(), axis)
}

/// Bytes that tensors hold.
pub(super) fn held(tensors: &[Tensor]) -> usize {
    tensors.iter().map(|t| t.raw_bytes().len().max(t.len())).fold(0, usize::saturating_add)
}

pub(super) fn check_held(bytes: usize, what: &str) -> Result<(), OpError> {
    if bytes > MAX_BYTES {
        return Err(OpError::Input(format!("{what} holds {bytes} bytes, more than the {MAX_BYTES} allowed")));
    }
    Ok(())
}

#[derive(Debug)]
struct Loop {
    types: Vec<Option<TensorType>>,
}

/// Parses a node.
pub fn repeat(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Loop { types: output_types(node) }))
}

impl Operator for Loop {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let most = arguments::one_int(call, 0, "M")?.unwrap_or(i64::MAX);
        let mut go_on = call.get(1).map_or(Ok(true), |cond| truth(cond, "cond"))?;
        let mut carried: Vec<Tensor> = Vec::new();
        for i in 2..call.inputs.len() {
            carried.push(call.need(i, "v_initial")?.clone());
        }
        let mut collected: Vec<Vec<Tensor>> =
            vec![Vec::new(); self.types.len().saturating_sub(1 + carried.len())];
        let mut bytes = 0usize;
        let mut trip = 0;
        while go_on && trip < most {
            if trip == MAX_TRIPS {
                return Err(OpError::Input(format!(
                    "the loop was still running after {MAX_TRIPS} trips, the most allowed"
                )));
            }
            let mut inputs = vec![Tensor::scalar(trip), Tensor::scalar(Bool::from(true))];
            let count = carried.len();
            inputs.append(&mut carried);
            let mut outputs = call.bodies.run("body", inputs)?;
            if outputs.len() != 1 + count + collected.len() && !self.types.is_empty()
                || outputs.len() <= count
            {
                return Err(OpError::Input(format!(
                    "the body has {} outputs; a condition and {count} carried values are expected first",
                    outputs.len()
                )));
            }
            let kept = outputs.split_off(1 + count);
            collected.resize(kept.len().max(collected.len()), Vec::new());
            bytes = bytes.saturating_add(held(&kept));
            for (list, tensor) in collected.iter_mut().zip(kept) {
                list.push(tensor);
            }
            carried = outputs.split_off(1);
            go_on = truth(&outputs[0], "the body's condition")?;
            check_held(bytes.saturating_add(held(&carried)), "the loop")?;
            trip += 1;
        }
        let first = 1 + carried.len();
        for (i, list) in collected.iter().enumerate() {
            let declared = self.types.get(first + i).and_then(Option::as_ref);
            carried.push(stack(list, 0, declared, call.precision)?);
        }
        Ok(carried)
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
    use super::*;
    use crate::Bodies;
    use crate::testing::{counting, node, tensor};

    /// A body from a closure.
    pub(crate) struct Body<F>(pub F);

    impl<F: Fn(&str, Vec<Tensor>) -> Result<Vec<Tensor>, OpError>> Bodies for Body<F> {
        fn run(&self, name: &str, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, OpError> {
            self.0(name, inputs)
        }
    }

    fn call(
        op: &str,
        inputs: &[Option<&Tensor>],
        body: impl Fn(&str, Vec<Tensor>) -> Result<Vec<Tensor>, OpError>,
    ) -> Result<Vec<Tensor>, OpError> {
        let body = Body(body);
        crate::build(&node(op, 16, &[]))?.run(&Call { bodies: &body, ..Call::new(inputs) })
    }

    fn yes(value: bool) -> Tensor {
        tensor(&[], &[Bool::from(value)])
    }

    #[test]
    fn the_condition_picks_a_branch() {
        for (condition, branch) in [(true, "then_branch"), (false, "else_branch")] {
            let out = call("If", &[Some(&yes(condition))], |name, _| {
                Ok(vec![Tensor::from_strings(&[], vec![name.to_owned()])?])
            });
            assert_eq!(out.unwrap()[0].as_strings().unwrap(), [branch]);
        }
        let two = tensor(&[2], &[Bool(1), Bool(1)]);
        assert!(call("If", &[Some(&two)], |_, _| Ok(vec![])).is_err());
        assert!(call("If", &[Some(&counting(&[1]))], |_, _| Ok(vec![])).is_err());
    }

    /// Doubles its one carried value, collects it, and stops once it exceeds 20.
    #[expect(clippy::needless_pass_by_value, reason = "the form of a body")]
    fn doubling(_: &str, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs[2].as_slice::<i64>()?[0] * 2;
        Ok(vec![yes(x <= 20), Tensor::scalar(x), Tensor::scalar(x)])
    }

    #[test]
    fn loops_end_by_count_or_condition() {
        let one = Tensor::scalar(1i64);
        let cases: [(Option<i64>, Option<bool>, &[i64]); 5] = [
            (Some(3), None, &[2, 4, 8]),
            (None, Some(true), &[2, 4, 8, 16, 32]),
            (Some(2), Some(true), &[2, 4]),
            (Some(9), Some(true), &[2, 4, 8, 16, 32]),
            (None, None, &[2, 4, 8, 16, 32]),
        ];
        for (most, condition, expected) in cases {
            let (most, condition) = (most.map(Tensor::scalar), condition.map(yes));
            let out = call("Loop", &[most.as_ref(), condition.as_ref(), Some(&one)], doubling).unwrap();
            assert_eq!(out[0].as_slice::<i64>().unwrap(), &expected[expected.len() - 1..]);
            assert_eq!(out[1].as_slice::<i64>().unwrap(), expected);
        }
    }

    #[test]
    fn loops_without_a_trip_have_outputs_of_the_declared_type() {
        let mut n = node("Loop", 16, &[]);
        let mut body = isotrace_graph::Graph::default();
        let declared = |dims: &[Dim]| TensorType { dtype: DType::I8, shape: Some(dims.to_vec()) };
        for dims in [&[][..], &[], &[Dim::Fixed(3), Dim::Unknown]] {
            let value = isotrace_graph::Value { declared: Some(declared(dims)), ..Default::default() };
            let id = body.add_value(value);
            body.outputs.push(id);
        }
        n.attributes.insert("body".into(), Attribute::Graph(Box::new(body)));
        let (none, start) = (Tensor::scalar(0i64), Tensor::scalar(7i8));
        let inputs = [Some(&none), None, Some(&start)];
        let out = crate::build(&n).unwrap().run(&Call::new(&inputs)).unwrap();
        assert!(out[0].bit_eq(&start));
        assert_eq!((out[1].dtype(), out[1].shape()), (DType::I8, &[0, 3, 0][..]));
    }

    #[test]
    fn hostile_loops_end() {
        let endless = call("Loop", &[None, None], |_, _| Ok(vec![yes(true)]));
        assert!(endless.unwrap_err().to_string().contains("trips"));
        let start = counting(&[1 << 20]);
        let hoard = call("Loop", &[None, None, Some(&start)], |_, inputs| {
            // Shared, not copied: what counts is what the stack would take.
            Ok(vec![yes(true), inputs[2].clone(), inputs[2].clone()])
        });
        assert!(hoard.unwrap_err().to_string().contains("bytes"));
        let short = call("Loop", &[None, None, Some(&start)], |_, _| Ok(vec![yes(true)]));
        assert!(short.is_err());
    }
}
