//! `SwiGLU`: Swish of a gate times a value, `A sigmoid(alpha A) B`, all of one shape.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::activation::Activation;
use crate::budget::{Budget, Unit};
use crate::spread::{Number, Spread, budget as spread_budget};
use crate::{Call, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct SwiGlu {
    swish: Activation,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(SwiGlu { swish: Activation::Silu(attributes::float_or(node, "alpha", 1.0)?.into()) }))
}

impl SwiGlu {
    fn compute<N: Number>(&self, call: &Call<'_>) -> Result<Vec<N>, OpError> {
        let (gate, value) = (call.need(0, "A")?, call.need(1, "B")?);
        if gate.shape() != value.shape() {
            return Err(OpError::Input(format!(
                "A {:?} and B {:?} must have one shape",
                gate.shape(),
                value.shape()
            )));
        }
        let (gate, value) = (gate.as_slice::<N::Weight>()?, value.as_slice::<N::Weight>()?);
        let pair = |(&a, &b)| N::exact(a).activate(self.swish).times(N::exact(b));
        Ok(gate.iter().zip(value).map(pair).collect())
    }
}

impl Operator for SwiGlu {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let gate = call.need(0, "A")?;
        for_float!(gate.dtype(), "A", T => Ok(vec![Tensor::from_vec(gate.shape(), self.compute::<T>(call)?)?]))
    }

    fn budget(&self, call: &Call<'_>, _: usize, _: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        Ok(spread_budget(&self.compute::<Spread>(call)?, unit))
    }
}
