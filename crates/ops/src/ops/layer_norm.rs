//! LayerNormalization, RMSNormalization, and SimplifiedLayerNormalization, as ONNX Runtime calls the latter.
//!
//! Over the axes from `axis` on. Ba, Kiros and Hinton 2016; Zhang and Sennrich 2019. Half types are computed in f32, which is
//! what `stash_type` asks for.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, normalise_axis};

use crate::budget::{Budget, Unit};
use crate::normalise::Norm;
use crate::{Call, OpError, Operator, attributes};

#[derive(Debug)]
struct LayerNorm {
    norm: Norm,
    axis: i64,
    /// Which of y, m and r the outputs are.
    outputs: &'static [usize],
}

fn parse(node: &Node, centred: bool, outputs: &'static [usize]) -> Result<Box<dyn Operator>, OpError> {
    let epsilon = attributes::float_or(node, "epsilon", 1e-5)?;
    let axis = attributes::int_or(node, "axis", -1)?;
    Ok(Box::new(LayerNorm { norm: Norm { epsilon, centred }, axis, outputs }))
}

/// Parses a node of LayerNormalization: Y, Mean and InvStdDev.
pub fn layer(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, true, &[0, 1, 2])
}

/// Parses a node of RMSNormalization: Y.
pub fn rms(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, false, &[0])
}

/// Parses a node of SimplifiedLayerNormalization: Y and InvStdVar.
pub fn simplified(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, false, &[0, 2])
}

impl LayerNorm {
    fn bias<'a>(&self, call: &Call<'a>) -> Option<&'a Tensor> {
        if self.norm.centred { call.get(2) } else { None }
    }
}

impl Operator for LayerNorm {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let axis = normalise_axis(self.axis, x.rank())?;
        let all = self.norm.tensor(x, axis, Some(call.need(1, "Scale")?), self.bias(call))?;
        Ok(self.outputs.iter().take(call.outputs.max(1)).map(|&i| all[i].clone()).collect())
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let x = call.need(0, "X")?;
        let axis = normalise_axis(self.axis, x.rank())?;
        let which = self.outputs.get(index).copied().unwrap_or(0);
        // ONNX Runtime's kernel takes mean and square in one pass.
        self.norm.budget(x, axis, call.get(1), output, which, true, unit)
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let axis = normalise_axis(self.axis, x.rank())?;
        let error = |i: usize| errors.get(i).and_then(Option::as_ref);
        let bias = if self.norm.centred { error(2) } else { None };
        let all = self.norm.propagate(x, axis, call.get(1), error(0), error(1), bias)?;
        Ok(self.outputs.iter().take(outputs.len()).map(|&i| all[i].clone()).collect())
    }
}
