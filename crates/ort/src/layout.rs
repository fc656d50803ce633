//! Which values of an optimised graph lie in blocks of channels, and how wide the blocks are.
//!
//! The layout optimiser puts operators of `com.microsoft.nchwc` in the place of convolutions and pools, and lets the
//! operators between them that work element by element run on the blocked memory; `ReorderOutput` goes back. The width
//! of a block is that of the machine's vectors, and no interface tells it. Running one reordering does.

use isotrace_graph::{Attribute, Graph, ValueId};
use isotrace_onnx::Model;
use isotrace_onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto, type_proto,
};
use isotrace_ops::nchwc::{self, BLOCK, DOMAIN};

/// For each value whether its memory is blocked.
pub fn blocked(graph: &Graph) -> Vec<bool> {
    let mut blocked = vec![false; graph.values.len()];
    for node in &graph.nodes {
        let is = match (node.domain.as_str(), node.op.as_str()) {
            (DOMAIN, "ReorderOutput") => false,
            (DOMAIN, _) => true,
            _ => node.inputs.iter().flatten().any(|v| blocked[v.index()]),
        };
        for v in node.writes() {
            blocked[v.index()] = is;
        }
    }
    blocked
}

/// Whether a graph has blocked operators.
pub fn has_blocks(graph: &Graph) -> bool {
    graph.nodes.iter().any(|n| n.domain == DOMAIN)
}

/// Writes the width into every blocked node.
pub fn annotate(graph: &mut Graph, block: usize) {
    for node in graph.nodes.iter_mut().filter(|n| n.domain == DOMAIN) {
        node.attributes.insert(BLOCK.into(), Attribute::Int(block as i64));
    }
    nchwc::mark_views(graph, block);
}

/// Channels and columns of the probe: two blocks at most, and two columns to tell one from two.
pub const PROBE: [usize; 4] = [1, 16, 1, 2];

/// A model of one `ReorderInput`, from `x` to `y`.
pub fn probe() -> Model {
    let dim = |&size: &usize| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(size as i64)),
        ..tensor_shape_proto::Dimension::default()
    };
    let shape = TensorShapeProto { dim: PROBE.iter().map(dim).collect() };
    let kind = type_proto::Tensor { elem_type: Some(1), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(kind)), ..TypeProto::default() };
    let value = |name: &str| ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(kind.clone()),
        ..ValueInfoProto::default()
    };
    let version =
        |domain: &str, version| OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) };
    let node = NodeProto {
        op_type: Some("ReorderInput".into()),
        domain: Some(DOMAIN.into()),
        input: vec!["x".into()],
        output: vec!["y".into()],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        name: Some("probe".into()),
        node: vec![node],
        input: vec![value("x")],
        output: vec![value("y")],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![version("", 17), version(DOMAIN, 1)],
        graph: Some(graph),
        ..ModelProto::default()
    };
    Model::from_proto(model)
}

/// The width, from what the probe makes of 0, 1, 2, ...: after the channels of the first block at the first column
/// comes the second column of channel 0.
pub fn width(output: &[f32]) -> Option<usize> {
    output.iter().position(|&x| x == 1.0).filter(|&at| at > 1)
}

/// Whether a shape can lie in blocks.
pub fn fits(shape: &[usize], block: usize) -> bool {
    matches!(shape, [_, c, _, _] if c % block == 0)
}

/// The block width written into the nodes.
pub fn block(graph: &Graph) -> Option<usize> {
    graph.nodes.iter().filter(|n| n.domain == DOMAIN).find_map(|n| match n.attributes.get(BLOCK) {
        Some(Attribute::Int(b)) => usize::try_from(*b).ok(),
        _ => None,
    })
}

/// Value ids are places in the list that [`blocked`] makes.
pub fn is_blocked(blocked: &[bool], v: ValueId) -> bool {
    blocked.get(v.index()).copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use isotrace_graph::{Attributes, Node, Value};

    use super::*;

    #[test]
    fn blocks_reach_from_a_blocked_operator_to_the_reordering() {
        let mut graph = Graph::default();
        let ops = [
            ("", "Relu"),
            (DOMAIN, "ReorderInput"),
            (DOMAIN, "Conv"),
            ("", "Add"),
            (DOMAIN, "ReorderOutput"),
            ("", "Relu"),
        ];
        let mut last = graph.add_value(Value::default());
        for (domain, op) in ops {
            let next = graph.add_value(Value::default());
            graph.nodes.push(Node {
                name: String::new(),
                domain: domain.into(),
                op: op.into(),
                version: 1,
                inputs: vec![Some(last)],
                outputs: vec![Some(next)],
                attributes: Attributes::default(),
            });
            last = next;
        }
        assert_eq!(blocked(&graph), [false, false, true, true, true, false, false]);
        assert_eq!((has_blocks(&graph), block(&graph)), (true, None));
        annotate(&mut graph, 8);
        assert_eq!(block(&graph), Some(8));
    }

    #[test]
    fn the_probe_tells_the_width() {
        for (block, expected) in [(16, Some(16)), (8, Some(8)), (1, None)] {
            let [_, c, _, w] = PROBE;
            // (C/b, W, b) from (C, W)
            let mut out = Vec::new();
            for outer in 0..c / block {
                for column in 0..w {
                    for inner in 0..block {
                        out.push(((outer * block + inner) * w + column) as f32);
                    }
                }
            }
            assert_eq!(width(&out), expected);
        }
    }
}
