//! Small models, written to files.

use std::path::{Path, PathBuf};

use isotrace_graph::{Attribute, Dim, Graph, Node, TensorType, Value, ValueId};
use isotrace_onnx::Model;
use isotrace_tensor::{DType, Element, Tensor};

/// A graph under construction.
#[derive(Default)]
pub struct Net(pub Graph);

impl Net {
    pub fn value(&mut self, name: &str) -> ValueId {
        self.0.add_value(Value { name: name.into(), ..Value::default() })
    }

    pub fn input(&mut self, name: &str, dtype: DType, shape: &[usize]) -> ValueId {
        let v = self.value(name);
        let shape = Some(shape.iter().map(|&d| Dim::Fixed(d)).collect());
        self.0.values[v.index()].declared = Some(TensorType { dtype, shape });
        self.0.inputs.push(v);
        v
    }

    pub fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        self.0.add_value(Value { name: name.into(), constant: Some(tensor), ..Value::default() })
    }

    /// A node that writes one value, named after it.
    pub fn node(&mut self, op: &str, inputs: &[ValueId], output: &str) -> ValueId {
        self.node_with(op, inputs, output, &[])
    }

    pub fn node_with(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        output: &str,
        attributes: &[(&str, Attribute)],
    ) -> ValueId {
        let out = self.value(output);
        self.0.nodes.push(Node {
            name: format!("n_{output}"),
            domain: String::new(),
            op: op.into(),
            version: 19,
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: vec![Some(out)],
            attributes: attributes.iter().map(|(n, a)| ((*n).to_owned(), a.clone())).collect(),
        });
        out
    }

    /// Writes the model with this final output.
    pub fn write(mut self, folder: &Path, name: &str, output: ValueId, dtype: DType) -> PathBuf {
        self.0.outputs = vec![output];
        self.0.values[output.index()].declared = Some(TensorType { dtype, shape: None });
        self.0.name = "net".into();
        let path = folder.join(name);
        Model::from_graph(&self.0).unwrap().write(&path).unwrap();
        path
    }
}

/// Numbers around zero that look random and are always the same.
pub fn numbers<T: Element>(shape: &[usize], seed: u64, make: impl Fn(f32) -> T) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    Tensor::from_vec(shape, (0..shape.iter().product()).map(|_| make(next())).collect()).unwrap()
}

pub fn floats(shape: &[usize], seed: u64) -> Tensor {
    numbers(shape, seed, |x| x)
}
