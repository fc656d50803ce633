//! One of the two networks with what is known of it before the other is looked at.

use isotrace_graph::{Graph, NodeId, ValueId};
use isotrace_ops::Flow;
use isotrace_ops::budget::Unit;
use isotrace_ops::ops::opaque;
use isotrace_run::{Keep, Options, Plan, Run, RunError};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use crate::Declared;
use crate::bits::{self, Bits};
use crate::bounds::Bounds;
use crate::declared::Gone;
use crate::region::{Magnitudes, Uncertainty};
use crate::shadow::Shadow;
use crate::twins::Twins;

/// Values of at least as many bytes are worth letting go.
const LARGE: usize = 64 * 1024;

/// What a run beside another side's holds on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Everything.
    All,
    /// Large values that the other side has not, nor what they were computed from, only until the last node has read them:
    /// their memory is the next one's, and hardly any is asked for again.
    Needed,
}

/// A network, its runs and its edges.
pub struct Side<'g> {
    /// The network, ready to run.
    pub plan: Rc<Plan<'g>>,
    /// Its run in declared precision, free of the other side.
    pub declared: Rc<Declared<'g>>,
    /// Its float64 shadow.
    pub shadow: Shadow<'g>,
    /// Who writes each value.
    pub producers: Rc<[Option<NodeId>]>,
    /// Who reads each value.
    pub consumers: Vec<Vec<NodeId>>,
    /// Whether a value depends on constants and shapes alone.
    pub constant: Vec<bool>,
    /// The float type in which most of its operators compute.
    pub main: DType,
    /// Sums of absolute products that bounds over its nodes have in common.
    pub magnitudes: Magnitudes,
    /// Bounds of its nodes that were worked out before.
    pub(crate) bounds: Bounds,
    is_output: Vec<bool>,
    bits: OnceCell<Bits>,
    /// What is uncertain about its constants at a unit roundoff, by its bits.
    stored: RefCell<FxHashMap<(ValueId, u64), Option<Uncertainty>>>,
    /// Of a side that somebody else ran, which values that run kept.
    kept: Option<rustc_hash::FxHashSet<ValueId>>,
}

/// Is told which node of how many comes next; false stops the run.
pub type Progress<'a> = dyn Fn(usize, usize) -> bool + Sync + 'a;

impl<'g> Side<'g> {
    /// Runs a network in declared precision.
    pub fn new(
        graph: &'g Graph,
        inputs: &FxHashMap<ValueId, Tensor>,
        progress: Option<&Progress<'_>>,
    ) -> Result<Self, RunError> {
        Self::run(graph, inputs, Options { progress, ..Options::default() })
    }

    /// A network that somebody else ran: nodes whose outputs were recorded are not run again.
    pub fn recorded(
        graph: &'g Graph,
        inputs: &FxHashMap<ValueId, Tensor>,
        recorded: &FxHashMap<ValueId, Tensor>,
        progress: Option<&Progress<'_>>,
    ) -> Result<Self, RunError> {
        let known = |id: NodeId, _: &[Option<Tensor>]| {
            let node = graph.node(id);
            node.writes()
                .all(|v| recorded.contains_key(&v))
                .then(|| node.outputs.iter().map(|v| recorded.get(&(*v)?).cloned()).collect())
        };
        let options = Options { progress, known: Some(&known), ..Options::default() };
        let mut side = Self::run(graph, inputs, options)?;
        side.kept = Some(recorded.keys().copied().collect());
        side.main = side.main_type();
        Ok(side)
    }

    /// Whether a value is what the run of this side had: all are but those between the nodes that one call of a recorded
    /// program became, which nobody ever rounded as we do.
    pub fn existed(&self, v: ValueId) -> bool {
        self.kept.as_ref().is_none_or(|kept| self.producer(v).is_none() || kept.contains(&v))
    }

    /// Whether somebody else ran it.
    pub fn is_recorded(&self) -> bool {
        self.kept.is_some()
    }

    /// Its values by the bits, constants aside.
    pub(crate) fn bits(&self) -> &Bits {
        self.bits.get_or_init(|| {
            let values = self.graph().value_ids().filter(|&v| !self.is_constant(v));
            Bits::of(values.filter_map(|v| Some((v, self.declared.get(v)?))))
        })
    }

    /// Its values, constants aside, that hold the bits of `tensor` in flat order.
    pub(crate) fn holding<'x>(&'x self, tensor: &'x Tensor) -> impl Iterator<Item = ValueId> + 'x {
        let holds = |v: &ValueId| self.declared.get(*v).is_some_and(|t| bits::same(t, tensor));
        self.bits().like(tensor).iter().copied().filter(holds)
    }

    /// Runs a network in declared precision beside `a`, from which the outputs of twin nodes are taken; what comes out with
    /// the bits of one of `a`'s values is kept once, and what does not only where `keeps` says so. `bound` pairs inputs with
    /// those of `a` that are fed the same tensors.
    pub fn beside(
        a: &Side<'g>,
        graph: &'g Graph,
        inputs: &FxHashMap<ValueId, Tensor>,
        bound: &[(ValueId, ValueId)],
        keeps: Keeps,
        progress: Option<&Progress<'_>>,
    ) -> Result<Self, RunError> {
        let twins = Twins::new(a, graph, bound);
        let gone = RefCell::new(FxHashMap::default());
        let known = |id: NodeId, values: &[Option<Tensor>]| twins.outputs(id, values);
        let held = |v: ValueId, made: Tensor| twins.held(v, made);
        let let_go = |v: ValueId, tensor: &Tensor| {
            let goes = tensor.raw_bytes().len() >= LARGE && twins.is_passing(v);
            if goes {
                gone.borrow_mut().insert(v, Gone::of(tensor));
            }
            !goes
        };
        let keep = match keeps {
            Keeps::All => Keep::All,
            Keeps::Needed => Keep::Those(&let_go),
        };
        let options =
            Options { progress, keep, known: Some(&known), held: Some(&held), ..Options::default() };
        let plan = Plan::new(graph)?;
        let run = plan.run(inputs, &options)?;
        Ok(Self::of(plan, run, gone.into_inner()))
    }

    fn run(
        graph: &'g Graph,
        inputs: &FxHashMap<ValueId, Tensor>,
        options: Options<'_>,
    ) -> Result<Self, RunError> {
        let plan = Plan::new(graph)?;
        let run = plan.run(inputs, &options)?;
        Ok(Self::of(plan, run, FxHashMap::default()))
    }

    fn of(plan: Plan<'g>, run: Run, gone: FxHashMap<ValueId, Gone>) -> Self {
        let (graph, plan) = (plan.graph(), Rc::new(plan));
        let producers: Rc<[Option<NodeId>]> = graph.producers().into();
        let declared = Rc::new(Declared::new(Rc::clone(&plan), Rc::clone(&producers), run, gone));
        let mut is_output = vec![false; graph.values.len()];
        for v in &graph.outputs {
            is_output[v.index()] = true;
        }
        let mut side = Self {
            shadow: Shadow::new(Rc::clone(&plan), Rc::clone(&declared), Rc::clone(&producers)),
            producers,
            consumers: graph.consumers(),
            constant: constant_values(graph),
            main: DType::F32,
            magnitudes: Magnitudes::default(),
            bounds: Bounds::default(),
            is_output,
            bits: OnceCell::new(),
            stored: RefCell::default(),
            kept: None,
            plan,
            declared,
        };
        side.main = side.main_type();
        side
    }

    /// The float type in which most of the learned layers compute: the operators that mix what comes with a stored
    /// matrix. A network in half precision widens its norms, its rotations and the scan of its states, each a dozen
    /// operators beside one product. Where there are no two such layers, that of most operators that compute with
    /// floats; f32 where there are none.
    fn main_type(&self) -> DType {
        let (graph, plan) = (self.graph(), &self.plan);
        let is_matrix = |v: ValueId| {
            let long = |shape: &[usize]| shape.iter().filter(|n| **n > 1).count() > 1;
            self.is_constant(v) && self.declared.is_float(v) && self.declared.shape(v).is_some_and(long)
        };
        let (mut layers, mut all) = (FxHashMap::default(), FxHashMap::default());
        for id in graph.node_ids() {
            let flow = plan.op(id).flow();
            let constant = graph.node(id).writes().all(|v| self.is_constant(v));
            if flow == Flow::Moves || graph.node(id).op == "Cast" || constant {
                continue;
            }
            let layer = flow != Flow::Elementwise && graph.node(id).reads().any(is_matrix);
            for v in graph.node(id).writes().filter_map(|v| self.handed_on(v)) {
                let Some(dtype) = self.declared.dtype(v).filter(|d| d.is_float()) else { continue };
                all.insert(v, dtype);
                if layer {
                    layers.insert(v, dtype);
                }
            }
        }
        let mut counts: FxHashMap<DType, usize> = FxHashMap::default();
        for dtype in if layers.len() < 2 { all } else { layers }.into_values() {
            *counts.entry(dtype).or_default() += 1;
        }
        // The wider type where two are as frequent; DType is ordered from wide to narrow.
        counts.into_iter().min_by_key(|&(d, n)| (std::cmp::Reverse(n), d)).map_or(DType::F32, |(d, _)| d)
    }

    /// The first value from `v` on that the run had: what becomes of it in the call that it is inside of.
    fn handed_on(&self, mut v: ValueId) -> Option<ValueId> {
        while !self.existed(v) {
            let reader = *self.consumers[v.index()].first()?;
            v = self.graph().node(reader).writes().next()?;
        }
        Some(v)
    }

    /// The graph.
    pub fn graph(&self) -> &'g Graph {
        self.plan.graph()
    }

    /// Who writes a value.
    pub fn producer(&self, v: ValueId) -> Option<NodeId> {
        self.producers[v.index()]
    }

    /// Whether a value depends on constants and shapes alone.
    pub fn is_constant(&self, v: ValueId) -> bool {
        self.constant[v.index()]
    }

    /// Whether its run wrote some value of this type.
    pub fn holds(&self, dtype: DType) -> bool {
        let mut written = self.graph().nodes.iter().flat_map(isotrace_graph::Node::writes);
        written.any(|v| self.declared.dtype(v) == Some(dtype))
    }

    /// Whether a value is one of the graph's outputs.
    pub fn is_output(&self, v: ValueId) -> bool {
        self.is_output[v.index()]
    }

    /// Whether a node only moves elements (of its first input, constants aside).
    pub fn moves(&self, n: NodeId) -> bool {
        self.plan.op(n).flow() == Flow::Moves
            && self.graph().node(n).inputs.iter().flatten().filter(|v| !self.is_constant(**v)).count() <= 1
    }

    /// Inputs of a node that are not constants, each once, in order.
    pub fn dynamic_inputs(&self, n: NodeId) -> Vec<ValueId> {
        let mut out = Vec::new();
        for v in self.graph().node(n).reads() {
            if !self.is_constant(v) && !out.contains(&v) {
                out.push(v);
            }
        }
        out
    }

    /// [`Uncertainty::stored`] of `constant` in the place of a value; known for the one that the value has.
    pub fn stored(&self, v: ValueId, constant: &Tensor, unit: Unit) -> Option<Uncertainty> {
        let own = self.declared.get(v).is_some_and(|t| std::ptr::eq(t.raw_bytes(), constant.raw_bytes()));
        if !own {
            return Uncertainty::stored(constant, unit);
        }
        let place = (v, unit.u.to_bits());
        if let Some(known) = self.stored.borrow().get(&place) {
            return known.clone();
        }
        let found = Uncertainty::stored(constant, unit);
        self.stored.borrow_mut().insert(place, found.clone());
        found
    }

    /// Unit roundoff of the precision in which this side computes.
    pub fn unit(&self) -> Unit {
        Unit::of(self.main)
    }
}

/// Values that no input reaches. A shape is a constant too: the inputs' shapes are fixed for the comparison. What an
/// unknown call read and nobody kept may have been anything.
fn constant_values(graph: &Graph) -> Vec<bool> {
    let mut constant: Vec<bool> = graph.values.iter().map(|v| v.constant.is_some()).collect();
    for node in &graph.nodes {
        let shape_only = node.domain.is_empty() && matches!(node.op.as_str(), "Shape" | "Size");
        let lost = node.domain == opaque::DOMAIN && node.inputs.iter().any(Option::is_none);
        if shape_only || !lost && node.reads().all(|v| constant[v.index()]) {
            for v in node.writes() {
                constant[v.index()] = true;
            }
        }
    }
    constant
}
