use std::cell::OnceCell;

use isotrace_tensor::{DType, Tensor};

use crate::OpError;

/// In which precision a graph is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// In the types the graph declares.
    Declared,
    /// Every float in f64, narrowing casts without effect.
    Float64,
}

impl Precision {
    /// The type in which a float declared as `dtype` is held; other types stay.
    pub fn resolve(self, dtype: DType) -> DType {
        match self {
            Self::Float64 if dtype.is_float() => DType::F64,
            _ => dtype,
        }
    }
}

/// Runs the bodies (subgraphs) of a control-flow operator.
pub trait Bodies {
    /// Runs the body under attribute `name` on `inputs` and returns its outputs.
    fn run(&self, name: &str, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, OpError>;
}

/// For operators without bodies.
#[derive(Debug, Clone, Copy)]
pub struct NoBodies;

impl Bodies for NoBodies {
    fn run(&self, name: &str, _: Vec<Tensor>) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Setting(format!("the body {name:?} is missing")))
    }
}

/// What an operator is called with.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Inputs, `None` where an optional one is left out; trailing ones may be absent altogether.
    pub inputs: &'a [Option<&'a Tensor>],
    /// How many outputs the node names (left-out ones inside the list counted).
    pub outputs: usize,
    /// The precision of this evaluation.
    pub precision: Precision,
    /// The node's bodies.
    pub bodies: &'a dyn Bodies,
    /// Where [`Operator::magnitude`](crate::Operator::magnitude) on these inputs is kept once it is known.
    pub magnitude: Option<&'a OnceCell<Tensor>>,
}

impl<'a> Call<'a> {
    /// A call without bodies in declared precision.
    pub fn new(inputs: &'a [Option<&'a Tensor>]) -> Self {
        Self { inputs, outputs: 1, precision: Precision::Declared, bodies: &NoBodies, magnitude: None }
    }

    /// Optional input `index`.
    pub fn get(&self, index: usize) -> Option<&'a Tensor> {
        self.inputs.get(index).copied().flatten()
    }

    /// Required input `index`, called `name` in messages.
    pub fn need(&self, index: usize, name: &'static str) -> Result<&'a Tensor, OpError> {
        self.get(index).ok_or(OpError::Missing(index, name))
    }

    /// The same call on other inputs.
    pub fn with_inputs<'b>(&self, inputs: &'b [Option<&'b Tensor>]) -> Call<'b>
    where
        'a: 'b,
    {
        Call { inputs, magnitude: None, ..*self }
    }
}
