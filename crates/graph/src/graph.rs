use std::hash::{Hash, Hasher};

use isotrace_tensor::{DType, Tensor};
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHasher};

use crate::{Attribute, Attributes, NodeId, ValueId};

/// One size in a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A fixed size.
    Fixed(usize),
    /// A size known only when the graph runs; dims of one name are equal.
    Named(String),
    /// Nothing is said of it.
    Unknown,
}

/// What a file declares of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorType {
    /// The element type.
    pub dtype: DType,
    /// The shape; `None` where even the rank is open.
    pub shape: Option<Vec<Dim>>,
}

/// A value: what flows along the edges of a graph.
#[derive(Debug, Clone, Default)]
pub struct Value {
    /// The name in the user's file.
    pub name: String,
    /// The tensor of a constant (ONNX: an initializer).
    pub constant: Option<Tensor>,
    /// The declared type of an input or output, where the file says it.
    pub declared: Option<TensorType>,
}

/// One call of an operator.
#[derive(Debug, Clone)]
pub struct Node {
    /// The name in the user's file; may be empty. Nodes of an inlined function carry `call/name`.
    pub name: String,
    /// The operator's domain; empty for ONNX's own.
    pub domain: String,
    /// The operator's name.
    pub op: String,
    /// The version of the domain's operator set in force here.
    pub version: i64,
    /// What it reads; `None` for an optional input left out.
    pub inputs: Vec<Option<ValueId>>,
    /// What it writes; `None` for an optional output left out.
    pub outputs: Vec<Option<ValueId>>,
    /// Its settings.
    pub attributes: Attributes,
}

impl Node {
    /// The bodies among the settings, in the order of the settings' names.
    pub fn bodies(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.values().flat_map(|a| match a {
            Attribute::Graph(g) => std::slice::from_ref(g.as_ref()),
            Attribute::Graphs(g) => g.as_slice(),
            _ => &[],
        })
    }

    /// Every value the node depends on: its inputs and what its bodies capture.
    pub fn reads(&self) -> impl Iterator<Item = ValueId> + '_ {
        let captured = self.bodies().flat_map(|g| g.captures.iter().map(|&(outer, _)| outer));
        self.inputs.iter().flatten().copied().chain(captured)
    }

    /// Every value the node writes.
    pub fn writes(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.outputs.iter().flatten().copied()
    }

    /// `domain.op`, or `op` alone for ONNX's own domain.
    pub fn qualified_op(&self) -> String {
        if self.domain.is_empty() { self.op.clone() } else { format!("{}.{}", self.domain, self.op) }
    }
}

/// A network: nodes in execution order and the values between them.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// The name in the user's file; may be empty.
    pub name: String,
    /// Nodes; every value is written before it is read.
    pub nodes: Vec<Node>,
    /// Values, by [`ValueId`].
    pub values: Vec<Value>,
    /// Values the caller provides, in the file's order, without those that are constants.
    pub inputs: Vec<ValueId>,
    /// Values the caller gets, in the file's order.
    pub outputs: Vec<ValueId>,
    /// For a body: values of the graph around that are read here, and the value each becomes here.
    pub captures: Vec<(ValueId, ValueId)>,
}

/// Why a graph cannot be put in execution order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Some nodes wait for each other.
    #[error("the graph has a cycle through node {node:?} ({op}); it can never run")]
    Cycle {
        /// A node on the cycle.
        node: String,
        /// Its operator.
        op: String,
    },
    /// A value has two writers.
    #[error("value {value:?} is written twice (again by node {node:?}); names must be unique")]
    WrittenTwice {
        /// The value.
        value: String,
        /// The second writer.
        node: String,
    },
    /// A value is read that nothing provides.
    #[error("node {node:?} ({op}) reads {value:?}, which is no input, no constant and no node's output")]
    Missing {
        /// The value.
        value: String,
        /// Its reader.
        node: String,
        /// The reader's operator.
        op: String,
    },
}

/// Bytes of a constant that one thread compares at a time.
const PIECE: usize = 1 << 20;

impl Graph {
    /// Adds a value and returns its id. Does not check that the name is new.
    pub fn add_value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(u32::try_from(self.values.len() - 1).expect("fewer than 2^32 values"))
    }

    /// Lets constants that hold the same bits as one of `other` be that one: what is the same is seen at a glance from
    /// then on, and kept in memory once.
    pub fn share_constants(&mut self, other: &Self) {
        let mut known: FxHashMap<u64, Vec<&Tensor>> = FxHashMap::default();
        for tensor in other.values.iter().filter_map(|v| v.constant.as_ref()) {
            known.entry(ends(tensor)).or_default().push(tensor);
        }
        // Two files of weights are read from end to end here, large ones by all threads.
        let same = |x: &Tensor, y: &Tensor| {
            let (a, b) = (x.raw_bytes(), y.raw_bytes());
            let pieces = a.par_chunks(PIECE).zip(b.par_chunks(PIECE));
            let alike = x.dtype() == y.dtype() && x.shape() == y.shape() && a.len() == b.len();
            if a.len() <= PIECE { x.bit_eq(y) } else { alike && pieces.all(|(a, b)| a == b) }
        };
        self.values.par_iter_mut().filter_map(|v| v.constant.as_mut()).for_each(|own| {
            let alike = known.get(&ends(own)).map_or(&[][..], Vec::as_slice);
            if let Some(known) = alike.iter().find(|t| same(t, own)) {
                *own = (*known).clone();
            }
        });
    }

    /// The node behind an id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The value behind an id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// Every node's id in execution order.
    pub fn node_ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// Every value's id.
    pub fn value_ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.values.len() as u32).map(ValueId)
    }

    /// How to call a node where people read it: its name, or, nameless, its first output's.
    pub fn label(&self, id: NodeId) -> &str {
        let node = self.node(id);
        if node.name.is_empty() {
            node.writes().next().map_or("", |v| self.value(v).name.as_str())
        } else {
            &node.name
        }
    }

    /// For each value the node that writes it, `None` for inputs and constants.
    pub fn producers(&self) -> Vec<Option<NodeId>> {
        let mut producers = vec![None; self.values.len()];
        for id in self.node_ids() {
            for v in self.node(id).writes() {
                producers[v.index()] = Some(id);
            }
        }
        producers
    }

    /// For each value the nodes that read it, in execution order, each once.
    pub fn consumers(&self) -> Vec<Vec<NodeId>> {
        let mut consumers = vec![Vec::new(); self.values.len()];
        for id in self.node_ids() {
            for v in self.node(id).reads() {
                let list: &mut Vec<NodeId> = &mut consumers[v.index()];
                if list.last() != Some(&id) {
                    list.push(id);
                }
            }
        }
        consumers
    }

    /// Values by name, the first one where names repeat.
    pub fn names(&self) -> FxHashMap<&str, ValueId> {
        let mut names = FxHashMap::default();
        for id in self.value_ids() {
            names.entry(self.value(id).name.as_str()).or_insert(id);
        }
        names
    }

    /// Puts the nodes in execution order, keeping the file's order where it is one already.
    pub fn sort(&mut self) -> Result<(), GraphError> {
        let mut available = vec![false; self.values.len()];
        for (available, value) in available.iter_mut().zip(&self.values) {
            *available = value.constant.is_some();
        }
        for v in self.inputs.iter().copied().chain(self.captures.iter().map(|&(_, inner)| inner)) {
            available[v.index()] = true;
        }
        let mut written = available.clone();
        for node in &self.nodes {
            for v in node.writes() {
                if std::mem::replace(&mut written[v.index()], true) {
                    return Err(GraphError::WrittenTwice {
                        value: self.value(v).name.clone(),
                        node: node.name.clone(),
                    });
                }
            }
        }
        for node in &self.nodes {
            if let Some(v) = node.reads().find(|v| !written[v.index()]) {
                let (node, op) = (node.name.clone(), node.qualified_op());
                return Err(GraphError::Missing { value: self.value(v).name.clone(), node, op });
            }
        }
        // Kahn's algorithm with a heap of places in the file, so that a sorted file stays as it is.
        let consumers = self.consumers();
        let mut waiting: Vec<usize> = Vec::with_capacity(self.nodes.len());
        let mut ready = std::collections::BinaryHeap::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let mut open: Vec<ValueId> = node.reads().filter(|v| !available[v.index()]).collect();
            open.sort_unstable();
            open.dedup();
            waiting.push(open.len());
            if open.is_empty() {
                ready.push(std::cmp::Reverse(i));
            }
        }
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(std::cmp::Reverse(i)) = ready.pop() {
            order.push(i);
            for v in self.nodes[i].writes() {
                for reader in &consumers[v.index()] {
                    waiting[reader.index()] -= 1;
                    if waiting[reader.index()] == 0 {
                        ready.push(std::cmp::Reverse(reader.index()));
                    }
                }
            }
        }
        if order.len() < self.nodes.len() {
            let stuck = waiting.iter().position(|&w| w > 0).expect("some node was not placed");
            let node = &self.nodes[stuck];
            return Err(GraphError::Cycle { node: node.name.clone(), op: node.qualified_op() });
        }
        if !order.is_sorted() {
            let mut slots: Vec<Option<Node>> =
                std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
            self.nodes = order.iter().map(|&i| slots[i].take().expect("each node is placed once")).collect();
        }
        Ok(())
    }
}

/// The first and the last bytes of a tensor, with its type and shape, as a hash.
fn ends(tensor: &Tensor) -> u64 {
    const BYTES: usize = 64;
    let bytes = tensor.raw_bytes();
    let mut hasher = FxHasher::default();
    tensor.dtype().hash(&mut hasher);
    tensor.shape().hash(&mut hasher);
    bytes[..bytes.len().min(BYTES)].hash(&mut hasher);
    bytes[bytes.len().saturating_sub(BYTES)..].hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_of_the_same_bits_are_kept_once() {
        let of = |tensors: &[Tensor]| {
            let mut graph = Graph::default();
            for tensor in tensors {
                graph.add_value(Value { constant: Some(tensor.clone()), ..Value::default() });
            }
            graph
        };
        let numbers = |edit: &dyn Fn(&mut [f32])| {
            let mut numbers: Vec<f32> = (0..100u8).map(f32::from).collect();
            edit(&mut numbers);
            Tensor::vector(numbers)
        };
        let first = of(&[numbers(&|_| ())]);
        // The second differs between its ends alone, the third in the sign of its zero, the fourth in its shape.
        let others = [
            numbers(&|_| ()),
            numbers(&|x| x[50] = 1.0),
            numbers(&|x| x[0] = -0.0),
            numbers(&|_| ()).reshape(&[10, 10]).unwrap(),
        ];
        let mut second = of(&others);
        second.share_constants(&first);
        let place = |graph: &Graph, i: usize| graph.values[i].constant.as_ref().unwrap().raw_bytes().as_ptr();
        let shared: Vec<bool> = (0..4).map(|i| place(&second, i) == place(&first, 0)).collect();
        assert_eq!(shared, [true, false, false, false]);
        assert!(others.iter().zip(&second.values).all(|(t, v)| v.constant.as_ref().unwrap().bit_eq(t)));
    }
}
