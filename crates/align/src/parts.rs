//! Calls that one node makes together, as the nodes that another exporter writes for them.

use isotrace_graph::{Attribute, Attributes, Node, ValueId};

/// Stands for what the call before made.
pub(crate) const MADE: ValueId = ValueId(u32::MAX);

/// Two calls or more, each on what the one before made, that come to the same bits as `node`; none where it is one call.
/// Versions and names are left open.
pub(crate) fn parts(node: &Node) -> Vec<Node> {
    match (node.domain.as_str(), node.op.as_str(), &node.inputs[..]) {
        ("", "Gemm", &[x, w, c @ Some(_)]) if is_plain(node) => {
            vec![
                call("MatMul", vec![x, w], Attributes::default()),
                call("Add", vec![Some(MADE), c], Attributes::default()),
            ]
        }
        ("com.microsoft", "FusedConv", inputs) if inputs.len() < 4 && is_relu(node) => {
            let mut settings = node.attributes.clone();
            settings.retain(|name, _| !name.starts_with("activation"));
            vec![
                call("Conv", inputs.to_vec(), settings),
                call("Relu", vec![Some(MADE)], Attributes::default()),
            ]
        }
        _ => vec![],
    }
}

fn call(op: &str, inputs: Vec<Option<ValueId>>, attributes: Attributes) -> Node {
    Node {
        name: String::new(),
        domain: String::new(),
        op: op.into(),
        version: 0,
        inputs,
        outputs: vec![Some(MADE)],
        attributes,
    }
}

/// Whether a Gemm is a product and a sum, nothing transposed and nothing scaled.
fn is_plain(node: &Node) -> bool {
    node.version >= 7
        && node.attributes.iter().all(|(name, x)| match (name.as_str(), x) {
            ("alpha" | "beta", Attribute::Float(x)) => *x == 1.0,
            ("transA" | "transB", Attribute::Int(x)) => *x == 0,
            _ => false,
        })
}

fn is_relu(node: &Node) -> bool {
    matches!(node.attributes.get("activation"), Some(Attribute::Bytes(name)) if name == b"Relu")
}
