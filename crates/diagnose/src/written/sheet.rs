//! A region as a network of its own, node by node as in the file, and then written out.

use isotrace_align::{Region, Relation, Side};
use isotrace_graph::{Attribute, Attributes, Graph, Node, NodeId, Value, ValueId};
use isotrace_run::{Options, Plan};
use isotrace_tensor::Tensor;
use rustc_hash::FxHashMap;

use super::writer::{Writer, constant, layout};
use super::{is_written, write};

/// Bodies inside bodies that are written out.
const DEEPEST: usize = 4;
/// Nodes of a network that is written out; what is longer is not held against the other side node by node.
const MOST_NODES: usize = 6000;

/// Elements of a constant that may be taken for another's.
const LEAST_WEIGHT: usize = 8;

/// What a node of a sheet stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The node of the side; `None` for what only brings an input into this side's layout.
    pub node: Option<NodeId>,
    /// The place in what that node is written out as, and so on for bodies inside bodies; the same in every iteration.
    pub path: Vec<u32>,
}

/// A region as a network of its own.
pub struct Sheet {
    /// The network.
    pub graph: Graph,
    /// What each node stands for.
    pub origins: Vec<Origin>,
    /// What its inputs are fed.
    pub inputs: FxHashMap<ValueId, Tensor>,
    /// The value here, by value of the side.
    pub values: FxHashMap<ValueId, ValueId>,
}

/// How a value enters a region.
pub enum Enters {
    /// With these numbers, whatever the inputs are.
    Constant(Tensor),
    /// As this tensor.
    Input(Tensor),
    /// As this tensor, to be laid out in another way, in which it has the shape.
    LaidOut(Tensor, Relation, Vec<usize>),
}

impl Sheet {
    /// A copy of a region that ends at `end`. `None` where `enters` does not know a value.
    pub fn of(
        side: &Side<'_>,
        region: &Region,
        end: ValueId,
        enters: &dyn Fn(ValueId) -> Option<Enters>,
    ) -> Option<Self> {
        let mut sheet = Self {
            graph: Graph::default(),
            origins: Vec::new(),
            inputs: FxHashMap::default(),
            values: FxHashMap::default(),
        };
        let graph = side.graph();
        for &v in &region.constants {
            let here = constant(&mut sheet.graph, &graph.value(v).name, side.declared.get(v)?.clone());
            sheet.values.insert(v, here);
        }
        for &v in &region.boundary {
            let name = &graph.value(v).name;
            let here = match enters(v)? {
                Enters::Constant(tensor) => constant(&mut sheet.graph, name, tensor),
                Enters::Input(tensor) => sheet.input(name, tensor),
                Enters::LaidOut(tensor, relation, shape) => {
                    let read = sheet.input(name, tensor.clone());
                    let (nodes, written) =
                        layout(&mut sheet.graph, read, tensor.shape(), &relation, &shape, name)?;
                    for node in nodes {
                        sheet.push(node, Origin { node: None, path: Vec::new() });
                    }
                    written
                }
            };
            sheet.values.insert(v, here);
        }
        for &n in &region.nodes {
            for v in graph.node(n).writes() {
                let named = Value { name: graph.value(v).name.clone(), ..Value::default() };
                let here = sheet.graph.add_value(named);
                sheet.values.insert(v, here);
            }
            // What is read and neither enters nor is written here is a constant of the file.
            for v in graph.node(n).reads() {
                if !sheet.values.contains_key(&v) {
                    let tensor = side.declared.get(v).filter(|_| side.is_constant(v))?.clone();
                    let here = constant(&mut sheet.graph, &graph.value(v).name, tensor);
                    sheet.values.insert(v, here);
                }
            }
            let node = remapped(graph.node(n), &|v| sheet.values.get(&v).copied())?;
            sheet.push(node, Origin { node: Some(n), path: Vec::new() });
        }
        sheet.graph.outputs = vec![*sheet.values.get(&end)?];
        Some(sheet)
    }

    /// The weights of a side's other places too: one of them may be what the other side reads here.
    pub fn hold_weights(&mut self, side: &Side<'_>) {
        let graph = side.graph();
        let read = |v: &ValueId| !side.consumers[v.index()].is_empty();
        for v in graph.value_ids().filter(|&v| graph.value(v).constant.is_some()).filter(read) {
            let weight = side.declared.get(v).filter(|t| t.dtype().is_float() && t.len() >= LEAST_WEIGHT);
            if let (Some(tensor), false) = (weight, self.values.contains_key(&v)) {
                let here = constant(&mut self.graph, &graph.value(v).name, tensor.clone());
                self.values.insert(v, here);
            }
        }
    }

    /// One more input.
    pub fn input(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let v = self.graph.add_value(Value { name: name.to_owned(), ..Value::default() });
        self.graph.inputs.push(v);
        self.inputs.insert(v, tensor);
        v
    }

    fn push(&mut self, node: Node, origin: Origin) {
        self.graph.nodes.push(node);
        self.origins.push(origin);
    }

    /// Writes out what has a written form, on the inputs that the sheet has, and says whether there was any. `None`
    /// where the result would be too long.
    pub fn write_out(&mut self) -> Option<bool> {
        let mut written = false;
        for _ in 0..DEEPEST {
            if !self.graph.nodes.iter().any(is_written) {
                break;
            }
            let run = Plan::new(&self.graph).ok()?.run(&self.inputs, &Options::default()).ok()?;
            let nodes = std::mem::take(&mut self.graph.nodes);
            let origins = std::mem::take(&mut self.origins);
            let mut changed = false;
            for (node, origin) in nodes.into_iter().zip(origins) {
                if is_written(&node) {
                    let mut writer = Writer::new(&mut self.graph, &node, &run);
                    if let Some(nodes) = write(&mut writer).map(|()| writer.nodes) {
                        changed = true;
                        for (place, node) in nodes {
                            let path = origin.path.iter().copied().chain([place]).collect();
                            self.push(node, Origin { node: origin.node, path });
                        }
                        continue;
                    }
                }
                self.push(node, origin);
            }
            if self.graph.nodes.len() > MOST_NODES {
                return None;
            }
            written |= changed;
            if !changed {
                break;
            }
        }
        Some(written)
    }
}

/// A node that reads and writes other values, what its bodies capture included.
pub fn remapped(node: &Node, to: &dyn Fn(ValueId) -> Option<ValueId>) -> Option<Node> {
    let all = |list: &[Option<ValueId>]| -> Option<Vec<Option<ValueId>>> {
        list.iter().map(|v| v.map_or(Some(None), |v| to(v).map(Some))).collect()
    };
    let captured = |body: &Graph| -> Option<Graph> {
        let captures = body.captures.iter().map(|&(outer, inner)| Some((to(outer)?, inner)));
        Some(Graph { captures: captures.collect::<Option<_>>()?, ..body.clone() })
    };
    let mut attributes = Attributes::new();
    for (name, setting) in &node.attributes {
        let setting = match setting {
            Attribute::Graph(body) => Attribute::Graph(Box::new(captured(body)?)),
            Attribute::Graphs(bodies) => {
                Attribute::Graphs(bodies.iter().map(captured).collect::<Option<_>>()?)
            }
            other => other.clone(),
        };
        attributes.insert(name.clone(), setting);
    }
    Some(Node { inputs: all(&node.inputs)?, outputs: all(&node.outputs)?, attributes, ..node.clone() })
}
