//! Writes the nodes that stand in for one node.

use isotrace_align::Relation;
use isotrace_graph::{Attribute, Graph, Node, Value, ValueId};
use isotrace_run::Run;
use isotrace_tensor::Tensor;

/// The operator set whose meaning written nodes have.
const VERSION: i64 = 18;

/// Writes the nodes that stand in for one node.
pub struct Writer<'w> {
    /// The network, to which values are added.
    pub graph: &'w mut Graph,
    /// The node that is written out.
    pub node: &'w Node,
    /// What has been written, each with its place, which repeats where the same is written again.
    pub nodes: Vec<(u32, Node)>,
    run: &'w Run,
}

impl<'w> Writer<'w> {
    /// Nothing written yet. `run` is a run of the network as it was before anything was written.
    pub fn new(graph: &'w mut Graph, node: &'w Node, run: &'w Run) -> Self {
        Self { graph, node, nodes: Vec::new(), run }
    }

    /// How to call the node that is written out.
    pub fn label(&self) -> String {
        if self.node.name.is_empty() {
            self.node.writes().next().map_or_else(String::new, |v| self.graph.value(v).name.clone())
        } else {
            self.node.name.clone()
        }
    }

    /// What the node reads at `slot`.
    pub fn read(&self, slot: usize) -> Option<ValueId> {
        self.node.inputs.get(slot).copied().flatten()
    }

    /// The tensor of a value that was there before anything was written.
    pub fn tensor(&self, v: ValueId) -> Option<&'w Tensor> {
        self.run.values().get(v.index())?.as_ref()
    }

    /// A constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = format!("a constant of {}", self.label());
        constant(self.graph, &name, tensor)
    }

    /// The shape of what the node reads at `slot`.
    pub fn shape(&self, slot: usize) -> Option<&'w [usize]> {
        Some(self.tensor(self.read(slot)?)?.shape())
    }

    /// A number of the type of the node's first input that holds floats.
    pub fn number(&mut self, number: f64) -> Option<ValueId> {
        let types = self.node.reads().filter_map(|v| self.tensor(v)).map(Tensor::dtype);
        let dtype = types.into_iter().find(|d| d.is_float())?;
        Some(self.constant(Tensor::scalar(number).cast(dtype).ok()?))
    }

    /// A setting that is a whole number.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.node.attributes.get(name) {
            Some(Attribute::Int(i)) => *i,
            _ => default,
        }
    }

    /// A setting that is a number.
    pub fn float(&self, name: &str) -> Option<f64> {
        match self.node.attributes.get(name) {
            Some(Attribute::Float(f)) => Some(f64::from(*f)),
            _ => None,
        }
    }

    /// Whether the node names its output at `slot`.
    pub fn named(&self, slot: usize) -> bool {
        self.node.outputs.get(slot).copied().flatten().is_some()
    }

    /// A call that is a part of the node, called `what`.
    pub fn part(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        settings: &[(&str, Attribute)],
        what: &str,
    ) -> ValueId {
        let name = format!("{what} of {}", self.label());
        self.call(op, inputs, settings, name)
    }

    /// A value in another shape.
    pub fn reshaped(&mut self, v: ValueId, shape: &[usize]) -> ValueId {
        let sizes: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
        let sizes = self.ints(&sizes);
        self.part("Reshape", &[v, sizes], &[], "layout")
    }

    /// A value with its axes in another order.
    pub fn turned(&mut self, v: ValueId, perm: &[i64]) -> ValueId {
        self.part("Transpose", &[v], &[("perm", Attribute::Ints(perm.to_vec()))], "layout")
    }

    /// Lets the node's output at `slot` be this value, where it is named.
    pub fn hand_on(&mut self, slot: usize, v: ValueId) {
        if let Some(written) = self.node.outputs.get(slot).copied().flatten() {
            let label = self.label();
            self.call_into("Identity", &[v], &[], label, written);
        }
    }

    /// Whole numbers along one axis.
    pub fn ints(&mut self, numbers: &[i64]) -> ValueId {
        self.constant(Tensor::vector(numbers.to_vec()))
    }

    /// A value called `name`.
    pub fn value(&mut self, name: String) -> ValueId {
        self.graph.add_value(Value { name, ..Value::default() })
    }

    /// A call that writes one new value; both are called `name`.
    pub fn call(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        settings: &[(&str, Attribute)],
        name: String,
    ) -> ValueId {
        let written = self.value(name.clone());
        self.call_into(op, inputs, settings, name, written);
        written
    }

    /// A call that writes `written`.
    pub fn call_into(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        settings: &[(&str, Attribute)],
        name: String,
        written: ValueId,
    ) {
        let node = call(op, inputs, settings, name, written);
        self.nodes.push((u32::try_from(self.nodes.len()).unwrap_or(u32::MAX), node));
    }
}

/// Adds a constant to a network.
pub fn constant(graph: &mut Graph, name: &str, tensor: Tensor) -> ValueId {
    graph.add_value(Value { name: name.to_owned(), constant: Some(tensor), ..Value::default() })
}

/// A call of one of ONNX's own operators.
fn call(
    op: &str,
    inputs: &[ValueId],
    settings: &[(&str, Attribute)],
    name: String,
    written: ValueId,
) -> Node {
    Node {
        name,
        domain: String::new(),
        op: op.to_owned(),
        version: VERSION,
        inputs: inputs.iter().copied().map(Some).collect(),
        outputs: vec![Some(written)],
        attributes: settings.iter().map(|(name, setting)| ((*name).to_owned(), setting.clone())).collect(),
    }
}

/// The calls that bring `read`, of shape `from`, into another layout, where it has shape `to`; and what they write.
pub fn layout(
    graph: &mut Graph,
    read: ValueId,
    from: &[usize],
    relation: &Relation,
    to: &[usize],
    name: &str,
) -> Option<(Vec<Node>, ValueId)> {
    let mut nodes = Vec::new();
    let mut at = read;
    let reshape = |graph: &mut Graph, nodes: &mut Vec<Node>, at: ValueId, shape: &[usize]| {
        let sizes = constant(graph, "", Tensor::vector(shape.iter().map(|&d| d as i64).collect::<Vec<_>>()));
        let written = graph.add_value(Value { name: name.to_owned(), ..Value::default() });
        nodes.push(call("Reshape", &[at, sizes], &[], name.to_owned(), written));
        written
    };
    let transpose = |graph: &mut Graph, nodes: &mut Vec<Node>, at: ValueId, perm: &[usize]| {
        let perm = Attribute::Ints(perm.iter().map(|&p| p as i64).collect());
        let written = graph.add_value(Value { name: name.to_owned(), ..Value::default() });
        nodes.push(call("Transpose", &[at], &[("perm", perm)], name.to_owned(), written));
        written
    };
    match relation {
        Relation::Same | Relation::Reshaped => {}
        Relation::PermutedA(perm) if perm.len() == from.len() => {
            at = transpose(graph, &mut nodes, at, perm);
        }
        Relation::PermutedB(perm) if perm.len() == to.len() => {
            let turned: Vec<usize> = perm.iter().map(|&p| to[p]).collect();
            at = reshape(graph, &mut nodes, at, &turned);
            let back: Option<Vec<usize>> =
                (0..perm.len()).map(|axis| perm.iter().position(|&p| p == axis)).collect();
            at = transpose(graph, &mut nodes, at, &back?);
        }
        _ => return None,
    }
    at = reshape(graph, &mut nodes, at, to);
    Some((nodes, at))
}
