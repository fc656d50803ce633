//! What was seen of a side: values, and the calls of modules between them.

use isotrace_align::Side;
use isotrace_graph::{Dim, Graph, TensorType, Value};
use isotrace_report::{Role, Source};
use isotrace_tensor::{DType, Tensor};
use isotrace_trace::Trace;
use isotrace_trace::trace::Digest;
use isotrace_trace::trace::record::Role as Part;
use rustc_hash::{FxHashMap, FxHashSet};

use super::pair::relative;

/// A value that somebody saw.
pub struct Seen {
    pub name: String,
    pub role: Option<Role>,
    pub op: Option<String>,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub elements: Option<Tensor>,
    pub digest: Option<Digest>,
    /// How far its run is from float64, relative to its norm.
    pub noise: Option<f64>,
}

impl Seen {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest.clone().or_else(|| self.elements.as_ref().map(Digest::of))
    }
}

/// A call of a module, by places in the list of values.
pub struct Call {
    pub id: u64,
    pub parent: Option<u64>,
    pub module: String,
    pub class: String,
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
}

/// A side as it was seen.
#[derive(Default)]
pub struct View {
    pub values: Vec<Seen>,
    pub calls: Vec<Call>,
    /// The final outputs in the network's order, as places in the list of values; `None` where one is no value there.
    pub outputs: Vec<Option<usize>>,
    /// Parameters and buffers by name, as they were first.
    pub weights: FxHashMap<String, Seen>,
    pub nodes: usize,
    pub modules: bool,
}

impl View {
    /// Of a recording of modules.
    pub fn recorded(trace: &Trace) -> anyhow::Result<Self> {
        let mut view = Self { modules: true, ..Self::default() };
        let mut places: FxHashMap<u64, usize> = FxHashMap::default();
        let listed = |of: fn(&isotrace_trace::trace::record::Graph) -> &Vec<u64>| -> FxHashSet<u64> {
            trace.graphs().iter().flat_map(of).copied().collect()
        };
        let (inputs, outputs) = (listed(|g| &g.inputs), listed(|g| &g.outputs));
        for (at, value) in trace.values().iter().enumerate() {
            let (dtype, shape) = trace.typed(value)?;
            let role = match value.role {
                _ if inputs.contains(&value.id) => Some(Role::Input),
                _ if outputs.contains(&value.id) => Some(Role::Output),
                Part::Intermediate | Part::Gradient | Part::Parameter | Part::Buffer => None,
                _ => continue,
            };
            let elements = trace.has_data(at).then(|| trace.tensor(value)).transpose()?;
            let name = value.name.clone();
            let digest = value.digest.clone();
            let seen = Seen { name, role, op: None, dtype, shape, elements, digest, noise: None };
            if role.is_none() && matches!(value.role, Part::Parameter | Part::Buffer) {
                view.weights.entry(value.name.clone()).or_insert(seen);
                continue;
            }
            places.insert(value.id, view.values.len());
            view.values.push(seen);
        }
        let given = trace.graphs().iter().flat_map(|g| &g.outputs);
        view.outputs = given.map(|id| places.get(id).copied()).collect();
        let at = |ids: &[u64]| ids.iter().filter_map(|id| places.get(id).copied()).collect();
        view.calls = trace
            .calls()
            .iter()
            .map(|c| Call {
                id: c.id,
                parent: c.parent,
                module: if c.module.is_empty() { "the whole model".into() } else { c.module.clone() },
                class: c.class.clone(),
                inputs: at(&c.inputs),
                outputs: at(&c.outputs),
            })
            .collect();
        Ok(view)
    }

    /// Of a graph that was run.
    pub fn run(side: &Side<'_>) -> Self {
        let graph = side.graph();
        let computed = graph.node_ids().flat_map(|n| graph.node(n).writes().map(move |v| (Some(n), v)));
        let mut view = Self { nodes: graph.nodes.len(), ..Self::default() };
        view.outputs = vec![None; graph.outputs.len()];
        for (node, v) in graph.inputs.iter().map(|&v| (None, v)).chain(computed) {
            let Some(tensor) = side.declared.get(v).filter(|_| node.is_none() || !side.is_constant(v)) else {
                continue;
            };
            for (place, _) in view.outputs.iter_mut().zip(&graph.outputs).filter(|(_, o)| **o == v) {
                *place = Some(view.values.len());
            }
            view.values.push(Seen {
                name: graph.value(v).name.clone(),
                role: match node {
                    None => Some(Role::Input),
                    Some(_) if side.is_output(v) => Some(Role::Output),
                    Some(_) => None,
                },
                op: node.map(|n| graph.node(n).op.clone()),
                dtype: tensor.dtype(),
                shape: tensor.shape().to_vec(),
                elements: Some(tensor.clone()),
                digest: None,
                noise: side.shadow.get(v).and_then(|exact| relative(exact, tensor)),
            });
        }
        view
    }

    /// Whether elements were kept of none.
    pub fn digests_alone(&self) -> bool {
        !self.values.is_empty() && self.values.iter().all(|v| v.elements.is_none())
    }

    pub fn side(&self, path: &str) -> isotrace_report::Side {
        let kind = if self.modules { Source::Trace } else { Source::Onnx };
        isotrace_report::Side {
            source: path.to_owned(),
            kind,
            nodes: self.nodes,
            values: self.values.len(),
            run: None,
        }
    }

    /// Values of one name are told apart by how many came before.
    pub fn names(&self) -> FxHashMap<(&str, usize), usize> {
        let mut counts: FxHashMap<&str, usize> = FxHashMap::default();
        let mut names = FxHashMap::default();
        for (at, value) in self.values.iter().enumerate() {
            let count = counts.entry(&value.name).or_default();
            names.insert((value.name.as_str(), *count), at);
            *count += 1;
        }
        names
    }
}

/// A graph of what a recording of modules was given, so that its inputs are bound like any other's.
pub fn border(trace: &Trace) -> anyhow::Result<(Graph, isotrace_inputs::Tensors)> {
    let (mut graph, mut given) = (Graph::default(), isotrace_inputs::Tensors::default());
    for id in trace.graphs().iter().flat_map(|g| &g.inputs) {
        let Some(at) = trace.values().iter().position(|v| v.id == *id) else { continue };
        let (value, name) = (&trace.values()[at], trace.names()[at].clone());
        let (dtype, shape) = trace.typed(value)?;
        if trace.has_data(at) {
            given.insert(name.clone(), trace.tensor(value)?);
        }
        let declared = Some(TensorType { dtype, shape: Some(shape.into_iter().map(Dim::Fixed).collect()) });
        let v = graph.add_value(Value { name, constant: None, declared });
        graph.inputs.push(v);
    }
    Ok((graph, given))
}
