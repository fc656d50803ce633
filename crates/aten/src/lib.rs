//! A recording of PyTorch as a graph that everything else speaks.
//!
//! A trace holds the calls of ATen's operators as they ran. [`recorded`] writes each as one or a few of ONNX's operators
//! (the table is the module `lower`), so that the evaluator, its budgets and the diagnosis work on recordings as they do on
//! files. One call becomes one node wherever an operator of the same meaning exists: what was recorded is then held
//! against that node's own budget.
//!
//! - Values that nothing computed (parameters, buffers, what was there before) are constants.
//! - An operator that the table lacks is *opaque*: a node of the domain [`isotrace_ops::ops::opaque::DOMAIN`], whose
//!   outputs are what was recorded of them. It is counted; its outputs are compared, what it computes is not judged.
//! - What a call drew at random is a constant too: the recorded numbers are its truth. It is not counted.
//! - What a compiled kernel drew at random, or computed by an opaque operator, was never stored. Calls that read it are
//!   opaque as well, up to the next values that were stored.
//! - What the outputs do not depend on is left out.

mod call;
mod lower;

use std::collections::BTreeMap;

use isotrace_graph::{Attribute, Dim, Graph, GraphError, Node, TensorType, Value, ValueId};
use isotrace_tensor::Tensor;
use isotrace_trace::trace::record::{self, Role};
use isotrace_trace::{Trace, TraceError};
use rustc_hash::{FxHashMap, FxHashSet};

use call::Call;

/// The version of ONNX's operators in which calls are written.
const VERSION: i64 = 26;

/// A recording as a graph.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The graph. Values are called as the trace calls them.
    pub graph: Graph,
    /// What was recorded of the graph's inputs.
    pub inputs: FxHashMap<ValueId, Tensor>,
    /// What was recorded of computed values.
    pub values: FxHashMap<ValueId, Tensor>,
    /// Operators that the table lacks, and how many calls of each there are.
    pub opaque: BTreeMap<String, usize>,
}

/// Why a trace is no graph.
#[derive(Debug, thiserror::Error)]
pub enum AtenError {
    /// Nothing was recorded of operators.
    #[error(
        "the trace holds no calls of operators, so there is no graph to judge by; record it at the level \"operators\""
    )]
    NoNodes,
    /// Nobody knows what the network gives.
    #[error(
        "the trace does not say what the network gives; its recorder was stopped, or the model was not called inside it"
    )]
    NoOutputs,
    /// What the network gives came from nowhere.
    #[error(
        "nothing in the trace computes output {name:?}: kernels that the recorder cannot see made it, as torch.compile's \
         inductor does; record the model as it is, or compiled with backend=\"aot_eager\", which runs the same operators"
    )]
    Unseen {
        /// The output.
        name: String,
    },
    /// What the network gives hangs on numbers that nobody kept.
    #[error(
        "output {name:?} cannot be replayed: it depends on {op}, which a compiled kernel computed without storing what it \
         gave; record the model in evaluation mode, or as it is, or compiled with backend=\"aot_eager\""
    )]
    NeverStored {
        /// The output.
        name: String,
        /// The operator that drew the numbers, or that isotrace does not know.
        op: String,
    },
    /// A value that is needed was not kept.
    #[error(
        "value {name:?} was recorded without its elements, and nothing in the trace computes it; record with keeps=\"data\""
    )]
    NoData {
        /// The value.
        name: String,
    },
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The trace contradicts itself.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// ATen's operators of which the table says what they compute, without overloads, in order.
pub fn operators() -> Vec<&'static str> {
    lower::known()
}

/// The graph of a trace, with what was recorded of its values.
pub fn recorded(trace: &Trace) -> Result<Recorded, AtenError> {
    if trace.nodes().is_empty() {
        return Err(AtenError::NoNodes);
    }
    let whole: Vec<&record::Graph> = trace.graphs().iter().filter(|g| g.within.is_none()).collect();
    let outputs: Vec<u64> = whole.iter().flat_map(|g| &g.outputs).copied().collect();
    if outputs.is_empty() {
        return Err(AtenError::NoOutputs);
    }
    let mut builder = Builder::new(trace);
    for &id in whole.iter().flat_map(|g| &g.inputs) {
        builder.input(id)?;
    }
    let needed = needed(trace, &outputs);
    for (node, _) in trace.nodes().iter().zip(&needed).filter(|(_, needed)| **needed) {
        builder.node(node)?;
    }
    for id in outputs {
        builder.seen(id)?;
        let v = builder.read(id)?;
        if !builder.out.graph.outputs.contains(&v) {
            builder.out.graph.outputs.push(v);
        }
    }
    drop_unread(&mut builder.out.graph);
    builder.out.graph.sort()?;
    Ok(builder.out)
}

/// Leaves out what a call gives besides and nobody reads: means and deviations of a normalisation, log-sum-exps. No
/// other implementation has a value for it.
fn drop_unread(graph: &mut Graph) {
    let mut read: FxHashSet<ValueId> = graph.outputs.iter().copied().collect();
    for node in graph.nodes.iter_mut().rev() {
        if node.outputs.iter().flatten().any(|v| read.contains(v)) {
            // The last ones are optional, but for the parts of what is split.
            while node.op != "Split"
                && node.outputs.last().is_some_and(|v| v.is_none_or(|v| !read.contains(&v)))
            {
                node.outputs.pop();
            }
            read.extend(node.reads());
        } else {
            node.outputs.clear();
        }
    }
    graph.nodes.retain(|node| !node.outputs.is_empty());
}

/// For each node whether the outputs depend on it.
fn needed(trace: &Trace, outputs: &[u64]) -> Vec<bool> {
    let mut wanted: FxHashSet<u64> = outputs.iter().copied().collect();
    let mut needed = vec![false; trace.nodes().len()];
    for (node, needed) in trace.nodes().iter().zip(&mut needed).rev() {
        if node.outputs.iter().flatten().any(|id| wanted.contains(id)) {
            *needed = true;
            wanted.extend(node.inputs.iter().flatten());
        }
    }
    needed
}

/// A graph under construction.
pub(crate) struct Builder<'t> {
    trace: &'t Trace,
    places: FxHashMap<u64, usize>,
    ids: FxHashMap<u64, ValueId>,
    /// What cannot be replayed, and the operator by which that came.
    lost: FxHashMap<u64, Lost>,
    pub(crate) out: Recorded,
}

impl<'t> Builder<'t> {
    fn new(trace: &'t Trace) -> Self {
        let places = trace.values().iter().enumerate().map(|(at, v)| (v.id, at)).collect();
        let graph = Graph { name: "main".into(), ..Graph::default() };
        let (ids, lost) = (FxHashMap::default(), FxHashMap::default());
        Self { trace, places, ids, lost, out: Recorded { graph, ..Recorded::default() } }
    }

    fn name(&self, id: u64) -> String {
        self.places.get(&id).map_or_else(|| format!("value {id}"), |&at| self.trace.names()[at].clone())
    }

    /// The elements of a value, where they were kept.
    fn elements(&self, id: u64) -> Result<Option<Tensor>, AtenError> {
        Ok(kept(self.trace, &self.places, id)?)
    }

    fn input(&mut self, id: u64) -> Result<(), AtenError> {
        if self.ids.contains_key(&id) {
            return Ok(());
        }
        let name = self.name(id);
        let tensor = self.elements(id)?.ok_or(AtenError::NoData { name: name.clone() })?;
        let shape = Some(tensor.shape().iter().map(|&n| Dim::Fixed(n)).collect());
        let declared = Some(TensorType { dtype: tensor.dtype(), shape });
        let v = self.out.graph.add_value(Value { name, constant: None, declared });
        self.ids.insert(id, v);
        self.out.graph.inputs.push(v);
        self.out.inputs.insert(v, tensor);
        Ok(())
    }

    /// A value that is read: what nothing before it computed is a constant.
    fn read(&mut self, id: u64) -> Result<ValueId, AtenError> {
        match self.ids.get(&id) {
            Some(&v) => Ok(v),
            None => self.constant(id),
        }
    }

    /// Whether nobody knows a value: a kernel had it in its registers, and what computed it cannot be replayed.
    fn never_stored(&self, id: u64) -> bool {
        !self.ids.contains_key(&id)
            && self
                .places
                .get(&id)
                .is_some_and(|&at| self.trace.values()[at].omitted.is_some() && !self.trace.has_data(at))
    }

    fn constant(&mut self, id: u64) -> Result<ValueId, AtenError> {
        let name = self.name(id);
        let tensor = self.elements(id)?.ok_or(AtenError::NoData { name: name.clone() })?;
        let v = self.out.graph.add_value(Value { name, constant: Some(tensor), declared: None });
        self.ids.insert(id, v);
        Ok(v)
    }

    /// An output is computed by a call, or handed through from what the model was given or owns.
    fn seen(&self, id: u64) -> Result<(), AtenError> {
        let computes = |id: u64| {
            let found = |n: &&record::Node| n.outputs.contains(&Some(id));
            self.trace.nodes().iter().rev().find(found)
        };
        let Some(source) = computes(id).filter(|n| n.domain.is_empty()).and_then(|n| *n.inputs.first()?)
        else {
            return Ok(());
        };
        let role = self.trace.by_id(source).map(|v| v.role);
        if role == Some(Role::Constant) && computes(source).is_none() {
            return Err(AtenError::Unseen { name: self.name(id) });
        }
        let reads = |n: &record::Node| n.inputs.iter().flatten().any(|id| self.never_stored(*id));
        if let Some(op) = self.lost.get(&source)
            && computes(source).is_some_and(reads)
        {
            return Err(AtenError::NeverStored { name: self.name(id), op: op.op.clone() });
        }
        Ok(())
    }

    /// One call: lowered by the table, or opaque.
    fn node(&mut self, node: &record::Node) -> Result<(), AtenError> {
        if let Some(unknown) = node.inputs.iter().flatten().find(|id| self.never_stored(**id)) {
            let op = self.lost.get(unknown).map_or_else(|| node.op.clone(), |lost| lost.op.clone());
            *self.out.opaque.entry(format!("{}.{}", node.domain, node.op)).or_default() += 1;
            let mut inputs = Vec::new();
            let mut behind = Vec::new();
            for id in &node.inputs {
                match *id {
                    Some(id) if self.never_stored(id) => {
                        inputs.push(None);
                        behind.extend(self.lost.get(&id).into_iter().flat_map(|lost| &lost.read).copied());
                    }
                    id => inputs.push(id.map(|id| self.read(id)).transpose()?),
                }
            }
            behind.retain(|&v| !inputs.contains(&Some(v)));
            behind.sort_unstable();
            behind.dedup();
            inputs.extend(behind.into_iter().map(Some));
            let read: Vec<ValueId> = inputs.iter().copied().flatten().collect();
            self.opaque(node, inputs)?;
            for id in node.outputs.iter().flatten() {
                self.lost.insert(*id, Lost { op: op.clone(), read: read.clone() });
            }
            return Ok(());
        }
        let inputs: Vec<Option<ValueId>> =
            node.inputs.iter().map(|id| id.map(|id| self.read(id)).transpose()).collect::<Result<_, _>>()?;
        let typed = |id: u64| {
            let value = self.trace.by_id(id)?;
            self.trace.typed(value).ok()
        };
        let given = node.inputs.iter().map(|id| id.and_then(typed)).collect();
        let wanted: Vec<_> = node.outputs.iter().map(|id| id.and_then(typed)).collect();
        let told = Values { trace: self.trace, places: &self.places };
        let mut call = Call::new(&mut self.out.graph, node, inputs, given, wanted, &told);
        let results = lower::lower(&mut call).unwrap_or_default();
        let read = call.inputs().to_vec();
        let (nodes, made) = call.finish();
        let kept = results.iter().any(Option::is_some);
        if !kept && !lower::makes_constants(node) && !lower::draws(node) {
            *self.out.opaque.entry(format!("{}.{}", node.domain, node.op)).or_default() += 1;
            return self.opaque(node, read);
        }
        let mut renamed: FxHashMap<ValueId, ValueId> = FxHashMap::default();
        let mut identities = Vec::new();
        for (at, id) in node.outputs.iter().enumerate() {
            let Some(id) = *id else { continue };
            let Some(result) = results.get(at).copied().flatten() else {
                // Read later, if at all: then it is a constant.
                self.ids.remove(&id);
                self.lost.insert(id, Lost::of(node, &read));
                continue;
            };
            let name = self.name(id);
            let v = self.out.graph.add_value(Value { name, constant: None, declared: None });
            if let Some(tensor) = self.elements(id)? {
                self.out.values.insert(v, tensor);
            }
            self.ids.insert(id, v);
            if made.contains(&result) && !renamed.contains_key(&result) {
                renamed.insert(result, v);
            } else {
                identities.push((result, v));
            }
        }
        if !kept {
            return Ok(());
        }
        let place = |v: ValueId| renamed.get(&v).copied().unwrap_or(v);
        let label = label(node, &self.name(node.outputs.iter().flatten().next().copied().unwrap_or(0)));
        let several = nodes.len() > 1;
        for mut lowered in nodes {
            for v in lowered.inputs.iter_mut().chain(&mut lowered.outputs).flatten() {
                *v = place(*v);
            }
            lowered.name = if several { format!("{label}/{}", lowered.op) } else { label.clone() };
            self.out.graph.nodes.push(lowered);
        }
        for (from, to) in identities {
            self.out.graph.nodes.push(Node {
                name: label.clone(),
                domain: String::new(),
                op: "Identity".into(),
                version: VERSION,
                inputs: vec![Some(place(from))],
                outputs: vec![Some(to)],
                attributes: BTreeMap::default(),
            });
        }
        Ok(())
    }

    /// A call that the table lacks, as a node of its own with those outputs of which elements were kept.
    fn opaque(&mut self, node: &record::Node, inputs: Vec<Option<ValueId>>) -> Result<(), AtenError> {
        let mut outputs = Vec::new();
        for id in node.outputs.iter().flatten() {
            let Some(tensor) = self.elements(*id)? else {
                self.ids.remove(id);
                self.lost.insert(*id, Lost::of(node, &inputs));
                continue;
            };
            let v = self.out.graph.add_value(Value { name: self.name(*id), constant: None, declared: None });
            self.out.values.insert(v, tensor);
            self.ids.insert(*id, v);
            outputs.push(Some(v));
        }
        if outputs.is_empty() {
            return Ok(());
        }
        let first = node.outputs.iter().flatten().next().copied().unwrap_or(0);
        self.out.graph.nodes.push(Node {
            name: label(node, &self.name(first)),
            domain: isotrace_ops::ops::opaque::DOMAIN.into(),
            op: format!("{}.{}", node.domain, node.op),
            version: VERSION,
            inputs,
            outputs,
            attributes: node
                .attributes
                .iter()
                .filter_map(|(name, a)| Some((name.clone(), setting(a)?)))
                .collect(),
        });
        Ok(())
    }
}

/// What there is to know of a value of which no elements were kept.
struct Lost {
    /// The operator that computed it, or the first of those before it that cannot be replayed.
    op: String,
    /// The known values that it was computed from.
    read: Vec<ValueId>,
}

impl Lost {
    fn of(node: &record::Node, read: &[Option<ValueId>]) -> Self {
        Self { op: format!("{}.{}", node.domain, node.op), read: read.iter().copied().flatten().collect() }
    }
}

/// A setting of a call that nobody here knows, so that two such calls can be told apart. Tensors among the settings go by
/// numbers that mean nothing in another recording.
fn setting(attribute: &record::Attribute) -> Option<Attribute> {
    Some(match attribute {
        record::Attribute::Int(i) => Attribute::Int(*i),
        record::Attribute::Bool(b) => Attribute::Int(i64::from(*b)),
        record::Attribute::Ints(list) => Attribute::Ints(list.clone()),
        record::Attribute::String(text) => Attribute::Bytes(text.clone().into_bytes()),
        record::Attribute::Tensor(_) | record::Attribute::Tensors(_) => return None,
        other => Attribute::Bytes(serde_json::to_vec(other).unwrap_or_default()),
    })
}

struct Values<'t> {
    trace: &'t Trace,
    places: &'t FxHashMap<u64, usize>,
}

impl call::Told for Values<'_> {
    fn elements(&self, id: u64) -> Option<Tensor> {
        kept(self.trace, self.places, id).ok().flatten()
    }

    fn layout(&self, id: u64) -> Option<(Vec<i64>, i64)> {
        let value = self.trace.by_id(id)?;
        let offset = value.storage.as_ref().map_or(0, |s| s.offset);
        let strides = if let Some(strides) = &value.strides {
            strides.iter().map(|&s| i64::try_from(s).ok()).collect::<Option<_>>()?
        } else {
            let shape: Option<Vec<usize>> = value.shape.iter().map(|&n| usize::try_from(n).ok()).collect();
            isotrace_tensor::strides(&shape?).iter().map(|&s| s as i64).collect()
        };
        Some((strides, i64::try_from(offset).ok()?))
    }
}

fn kept(trace: &Trace, places: &FxHashMap<u64, usize>, id: u64) -> Result<Option<Tensor>, TraceError> {
    match places.get(&id) {
        Some(&at) if trace.has_data(at) => Ok(Some(trace.tensor(&trace.values()[at])?)),
        _ => Ok(None),
    }
}

/// What a node is called: the name of what it computes says module and operator.
fn label(node: &record::Node, output: &str) -> String {
    if node.name.is_empty() { output.to_owned() } else { node.name.clone() }
}

/// Whether a value is part of the network rather than of one run.
#[must_use]
pub fn belongs_to_network(role: Role) -> bool {
    matches!(role, Role::Parameter | Role::Buffer | Role::Constant)
}
