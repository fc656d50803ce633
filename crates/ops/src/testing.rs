//! What the operators' table tests share.

use isotrace_graph::{Attribute, Node, ValueId};
use isotrace_tensor::{Element, Tensor};

use crate::{Call, OpError, Operator, Precision};

/// A node with one output.
pub fn node(op: &str, version: i64, attributes: &[(&str, Attribute)]) -> Node {
    Node {
        name: "under_test".into(),
        domain: String::new(),
        op: op.into(),
        version,
        inputs: Vec::new(),
        outputs: vec![Some(ValueId(0))],
        attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    }
}

/// Builds a node through the registry and runs it.
pub fn run(node: &Node, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
    let inputs: Vec<Option<&Tensor>> = inputs.iter().copied().map(Some).collect();
    run_optional(node, &inputs)
}

/// As [`run`], with inputs left out.
pub fn run_optional(node: &Node, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    crate::build(node)?.run(&Call { outputs: node.outputs.len(), ..Call::new(inputs) })
}

/// Output 0 of [`run`]; panics where it fails.
pub fn first(node: &Node, inputs: &[&Tensor]) -> Tensor {
    run(node, inputs).unwrap_or_else(|e| panic!("{}: {e}", node.op)).swap_remove(0)
}

/// The errors of output 0 for errors of the inputs, as an executor asks for them.
pub fn errors(node: &Node, inputs: &[&Tensor], errors: &[Option<Tensor>]) -> Vec<f64> {
    let operator: Box<dyn Operator> = crate::build(node).unwrap();
    let inputs: Vec<Option<&Tensor>> = inputs.iter().copied().map(Some).collect();
    let call = Call { outputs: node.outputs.len(), precision: Precision::Float64, ..Call::new(&inputs) };
    let outputs = operator.run(&call).unwrap();
    operator.propagate(&call, &outputs, errors).unwrap()[0].to_f64().unwrap().into_owned()
}

/// A tensor.
pub fn tensor<T: Element>(shape: &[usize], data: &[T]) -> Tensor {
    Tensor::from_vec(shape, data.to_vec()).unwrap()
}

/// 0, 1, 2, ... in this shape.
pub fn counting(shape: &[usize]) -> Tensor {
    Tensor::from_vec(shape, (0..shape.iter().product::<usize>()).map(|i| i as f32).collect()).unwrap()
}

/// A vector of whole numbers.
pub fn ints(data: &[i64]) -> Tensor {
    Tensor::vector(data.to_vec())
}
