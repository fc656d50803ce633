//! A side's run in declared precision, of which not every value need be held.

use std::cell::OnceCell;
use std::rc::Rc;

use isotrace_graph::{Graph, NodeId, ValueId};
use isotrace_ops::Precision;
use isotrace_run::{Plan, Run};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::bits;

/// A run, with the type and the shape of what it let go on the way: that is computed again where somebody asks for it, and
/// comes to the same bits.
pub struct Declared<'g> {
    plan: Rc<Plan<'g>>,
    producers: Rc<[Option<NodeId>]>,
    run: Run,
    gone: FxHashMap<ValueId, Gone>,
}

/// A value that was let go.
pub(crate) struct Gone {
    dtype: DType,
    shape: Vec<usize>,
    /// A few of its bits.
    sample: u64,
    again: OnceCell<Tensor>,
}

impl Gone {
    pub(crate) fn of(tensor: &Tensor) -> Self {
        Self {
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            sample: sample(tensor),
            again: OnceCell::new(),
        }
    }
}

/// See [`bits::sample`]: two values that differ in it differ.
fn sample(tensor: &Tensor) -> u64 {
    bits::sample(tensor, tensor.len() as u64)
}

impl<'g> Declared<'g> {
    pub(crate) fn new(
        plan: Rc<Plan<'g>>,
        producers: Rc<[Option<NodeId>]>,
        run: Run,
        gone: FxHashMap<ValueId, Gone>,
    ) -> Self {
        Self { plan, producers, run, gone }
    }

    /// A value, computed again where it was let go; `None` where the run did not come to it.
    pub fn get(&self, v: ValueId) -> Option<&Tensor> {
        if self.at_hand(v).is_none() && self.gone.contains_key(&v) {
            let known = |v: ValueId| self.at_hand(v).is_some();
            for node in missing(self.plan.graph(), &self.producers, v, known) {
                self.compute(node);
            }
        }
        self.at_hand(v)
    }

    /// A value that need not be computed again.
    pub fn at_hand(&self, v: ValueId) -> Option<&Tensor> {
        self.run.get(v).or_else(|| self.gone.get(&v)?.again.get())
    }

    /// Whether it is of the type and the shape of `tensor` and has its bits.
    pub fn holds(&self, v: ValueId, tensor: &Tensor) -> bool {
        let may = self.gone.get(&v).is_none_or(|gone| gone.sample == sample(tensor));
        may && self.get(v).is_some_and(|t| t.bit_eq(tensor))
    }

    /// Its type.
    pub fn dtype(&self, v: ValueId) -> Option<DType> {
        self.run.get(v).map(Tensor::dtype).or_else(|| Some(self.gone.get(&v)?.dtype))
    }

    /// Its shape.
    pub fn shape(&self, v: ValueId) -> Option<&[usize]> {
        self.run.get(v).map(Tensor::shape).or_else(|| Some(&self.gone.get(&v)?.shape))
    }

    /// Its number of elements.
    pub fn count(&self, v: ValueId) -> Option<usize> {
        Some(self.shape(v)?.iter().product())
    }

    /// Whether it is of a float type; false where there is none.
    pub fn is_float(&self, v: ValueId) -> bool {
        self.dtype(v).is_some_and(DType::is_float)
    }

    fn compute(&self, id: NodeId) {
        let read = |v: ValueId| self.at_hand(v).cloned();
        let outputs = self.plan.evaluate(id, &read, Precision::Declared, None).unwrap_or_default();
        for (v, output) in self.plan.graph().node(id).outputs.iter().zip(outputs) {
            if let Some(gone) = v.and_then(|v| self.gone.get(&v)) {
                let _ = gone.again.set(output);
            }
        }
    }
}

/// Nodes that have to run before `v` is `known`, in execution order.
pub(crate) fn missing(
    graph: &Graph,
    producers: &[Option<NodeId>],
    v: ValueId,
    known: impl Fn(ValueId) -> bool,
) -> Vec<NodeId> {
    let mut nodes = FxHashSet::default();
    let mut open = vec![v];
    while let Some(v) = open.pop() {
        if !known(v)
            && let Some(node) = producers[v.index()]
            && nodes.insert(node)
        {
            open.extend(graph.node(node).reads());
        }
    }
    let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
    nodes.sort_unstable();
    nodes
}
