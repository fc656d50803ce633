//! What a graph does with an input, as far as its values must know.

use isotrace_graph::{Attribute, Graph, Node, NodeId, ValueId};
use isotrace_tensor::Tensor;

/// A use that limits the values of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Picks rows of a table of this many.
    Index(usize),
    /// Indices, and the table's size is not known before the run.
    OpenIndex,
    /// Says how long each sequence is.
    Lengths,
}

/// Every use of `input` that limits its values, through operators that hand elements on as they are.
pub(crate) fn uses(graph: &Graph, consumers: &[Vec<NodeId>], input: ValueId) -> Vec<Use> {
    let mut found = Vec::new();
    let mut seen = vec![false; graph.values.len()];
    let mut open = vec![input];
    while let Some(value) = open.pop() {
        if std::mem::replace(&mut seen[value.index()], true) {
            continue;
        }
        for &id in &consumers[value.index()] {
            let node = graph.node(id);
            for (slot, _) in node.inputs.iter().enumerate().filter(|(_, v)| **v == Some(value)) {
                found.extend(limit(graph, node, slot));
                if hands_on(node, slot) {
                    open.extend(node.writes());
                }
            }
        }
    }
    found
}

/// Whether output elements are elements of this input, moved at most.
pub(crate) fn hands_on(node: &Node, slot: usize) -> bool {
    match node.op.as_str() {
        // An index shifted within bounds (Max, Min) still is one, roughly.
        "Cast" | "Identity" | "Transpose" | "Flatten" | "Concat" | "Max" | "Min" => true,
        "Reshape" | "Unsqueeze" | "Squeeze" | "Slice" | "Expand" | "Gather" | "Tile" | "Clip" | "Split" => {
            slot == 0
        }
        "Where" => slot > 0,
        _ => false,
    }
}

fn limit(graph: &Graph, node: &Node, slot: usize) -> Option<Use> {
    let table = |slot: usize, axis: i64| match rows(graph, node, slot, axis) {
        Some(n) => Use::Index(n),
        None => Use::OpenIndex,
    };
    match (node.op.as_str(), slot) {
        ("Gather" | "GatherElements" | "GatherBlockQuantized", 1) => Some(table(0, int(node, "axis", 0))),
        ("GatherND", 1) => Some(table(0, int(node, "batch_dims", 0))),
        ("EmbedLayerNormalization", 0) => Some(table(2, 0)),
        ("EmbedLayerNormalization", 1) => Some(table(4, 0)),
        ("OneHot", 0) => {
            let depth = constant(graph, node.inputs.get(1).copied().flatten()?, 0)?;
            let depth = depth.to_f64().ok()?.first().copied()?;
            (depth >= 1.0).then_some(Use::Index(depth as usize))
        }
        ("LSTM" | "GRU" | "RNN", 4) => Some(Use::Lengths),
        _ => None,
    }
}

fn int(node: &Node, name: &str, default: i64) -> i64 {
    match node.attributes.get(name) {
        Some(Attribute::Int(i)) => *i,
        _ => default,
    }
}

/// The size along `axis` of a node's input, if that is a constant.
fn rows(graph: &Graph, node: &Node, slot: usize, axis: i64) -> Option<usize> {
    let table = constant(graph, node.inputs.get(slot).copied().flatten()?, 0)?;
    let rank = table.rank() as i64;
    let axis = if axis < 0 { axis + rank } else { axis };
    table.shape().get(usize::try_from(axis).ok()?).copied()
}

/// The constant behind a value, through operators that keep its shape.
pub(crate) fn constant(graph: &Graph, value: ValueId, depth: usize) -> Option<&Tensor> {
    const DEEP: usize = 8;
    if let Some(tensor) = &graph.value(value).constant {
        return Some(tensor);
    }
    if depth == DEEP {
        return None;
    }
    let writer = graph.nodes.iter().find(|n| n.writes().any(|v| v == value))?;
    match writer.op.as_str() {
        "Identity" | "Cast" | "DequantizeLinear" => {
            constant(graph, writer.inputs.first().copied().flatten()?, depth + 1)
        }
        "Constant" => match writer.attributes.get("value") {
            Some(Attribute::Tensor(tensor)) => Some(tensor),
            _ => None,
        },
        _ => None,
    }
}
