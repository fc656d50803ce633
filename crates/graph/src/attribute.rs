use std::collections::BTreeMap;

use isotrace_tensor::Tensor;

use crate::Graph;

/// A node's named settings, in the order of their names.
pub type Attributes = BTreeMap<String, Attribute>;

/// One setting of a node.
#[derive(Debug, Clone)]
pub enum Attribute {
    /// A whole number.
    Int(i64),
    /// A number, stored in f32 by the ONNX format.
    Float(f32),
    /// Text or bytes.
    Bytes(Vec<u8>),
    /// A tensor.
    Tensor(Tensor),
    /// The body of a control-flow operator.
    Graph(Box<Graph>),
    /// Whole numbers.
    Ints(Vec<i64>),
    /// Numbers, stored in f32 by the ONNX format.
    Floats(Vec<f32>),
    /// Texts.
    Strings(Vec<Vec<u8>>),
    /// Tensors.
    Tensors(Vec<Tensor>),
    /// Bodies.
    Graphs(Vec<Graph>),
    /// Something the evaluator has no use for (a type, a sparse tensor, ...), named.
    Other(&'static str),
}

impl Attribute {
    /// What kind of setting this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Bytes(_) => "string",
            Self::Tensor(_) => "tensor",
            Self::Graph(_) => "graph",
            Self::Ints(_) => "ints",
            Self::Floats(_) => "floats",
            Self::Strings(_) => "strings",
            Self::Tensors(_) => "tensors",
            Self::Graphs(_) => "graphs",
            Self::Other(kind) => kind,
        }
    }

    /// Whether both are the same setting, tensors compared bit by bit. Bodies are never the same.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Tensor(a), Self::Tensor(b)) => a.bit_eq(b),
            (Self::Ints(a), Self::Ints(b)) => a == b,
            (Self::Floats(a), Self::Floats(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
            }
            (Self::Strings(a), Self::Strings(b)) => a == b,
            _ => false,
        }
    }
}
