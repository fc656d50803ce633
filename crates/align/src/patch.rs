//! A node of B with a fault undone: another operator, other settings, other things read.

use isotrace_graph::{Node, ValueId};
use isotrace_ops::{NoBodies, Operator, Precision};
use isotrace_run::{Evaluation, evaluate, evaluate_with_bodies};
use isotrace_tensor::Tensor;
use std::sync::Arc;

/// What one slot of a patched node reads.
#[derive(Debug, Clone)]
pub enum Source {
    /// A value of B.
    Value(ValueId),
    /// A tensor of A's: declared and float64.
    Tensor {
        /// As declared.
        declared: Tensor,
        /// As in the float64 shadow.
        shadow: Tensor,
    },
    /// The first output of another patched call, or the one that it takes.
    Patch(Box<Patch>),
    /// Nothing: an optional input left out.
    Absent,
}

/// A call that stands in for a node of B.
#[derive(Debug, Clone)]
pub struct Patch {
    op: Arc<dyn Operator>,
    outputs: usize,
    sources: Vec<Source>,
    only: Option<usize>,
    taken: Option<usize>,
    /// The node, where it has bodies; what they capture are values of B.
    bodies: Option<Arc<Node>>,
}

impl Patch {
    /// A call of `node`'s operator on `sources`. `None` where the operator does not exist with these settings. Bodies
    /// have to be those of a node of B, since what they capture is looked up there.
    pub fn new(node: &Node, sources: Vec<Source>) -> Option<Self> {
        let op = isotrace_ops::build(node).ok()?.into();
        let bodies = node.bodies().next().is_some().then(|| Arc::new(node.clone()));
        Some(Self { op, outputs: node.outputs.len(), sources, only: None, taken: None, bodies })
    }

    /// Its first output in place of the output at `slot` alone; the node's others stay what they are.
    #[must_use]
    pub fn at(self, slot: usize) -> Self {
        let outputs = if self.taken.is_some() { self.outputs } else { 1 };
        Self { outputs, only: Some(slot), ..self }
    }

    /// The output at `slot` alone, as the call's only one.
    #[must_use]
    pub fn taking(self, slot: usize) -> Self {
        Self { taken: (self.outputs > 1).then_some(slot), ..self }
    }

    /// The one output of the node that it stands in for, where that is not all of them.
    pub fn only(&self) -> Option<usize> {
        self.only
    }

    /// Whether two patches of one node cannot both be made.
    pub fn excludes(&self, other: &Self) -> bool {
        self.only.is_none() || other.only.is_none() || self.only == other.only
    }

    /// The node as it is, read from where it reads.
    pub fn sources_of(node: &Node) -> Vec<Source> {
        node.inputs.iter().map(|v| v.map_or(Source::Absent, Source::Value)).collect()
    }

    /// Its outputs on given values; `None` where it cannot be evaluated.
    pub fn evaluate(
        &self,
        precision: Precision,
        lookup: &dyn Fn(ValueId) -> Option<Tensor>,
        decided: Option<&[Tensor]>,
    ) -> Option<Vec<Tensor>> {
        let mut inputs = Vec::with_capacity(self.sources.len());
        for source in &self.sources {
            inputs.push(match source {
                Source::Value(v) => Some(lookup(*v)?),
                Source::Tensor { declared, .. } if precision == Precision::Declared => Some(declared.clone()),
                Source::Tensor { shadow, .. } => Some(shadow.clone()),
                Source::Patch(inner) => Some(inner.evaluate(precision, lookup, None)?.into_iter().next()?),
                Source::Absent => None,
            });
        }
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
        let decided: Option<Vec<Option<Tensor>>> = decided.map(|d| {
            let before = self.taken.unwrap_or(0);
            let mut all = vec![None; before];
            all.extend(d.iter().cloned().map(Some));
            all.resize(self.outputs.max(all.len()), None);
            all
        });
        let what = Evaluation {
            inputs: &inputs,
            outputs: self.outputs,
            precision,
            decided: decided.as_deref(),
            bodies: &NoBodies,
        };
        let outputs = match &self.bodies {
            Some(node) => evaluate_with_bodies(self.op.as_ref(), node, &what, lookup),
            None => evaluate(self.op.as_ref(), &what),
        };
        let outputs = outputs.ok()?;
        match self.taken {
            Some(slot) => Some(vec![outputs.into_iter().nth(slot)?]),
            None => Some(outputs),
        }
    }
}
