//! A model that gives out more of its values.

use isotrace_onnx::Model;
use isotrace_onnx::proto::{GraphProto, ValueInfoProto};
use rustc_hash::FxHashSet;

/// The values that nodes of the outermost graph write and that are not given out yet, in the order of the nodes.
pub fn inner_values(graph: &GraphProto) -> Vec<String> {
    let mut seen: FxHashSet<&str> = graph.output.iter().map(ValueInfoProto::name).collect();
    let written = graph.node.iter().flat_map(|n| &n.output);
    written.filter(|name| !name.is_empty() && seen.insert(name)).cloned().collect()
}

/// How many values nodes inside bodies write: no model can give those out.
pub fn values_in_bodies(graph: &GraphProto) -> usize {
    let attributes = graph.node.iter().flat_map(|n| &n.attribute);
    attributes
        .flat_map(|a| a.g.iter().map(Box::as_ref).chain(&a.graphs))
        .map(|body| {
            let written = body.node.iter().flat_map(|n| &n.output).filter(|o| !o.is_empty()).count();
            written + values_in_bodies(body)
        })
        .sum()
}

/// The model with these values as further outputs. Their types are left for the reader to infer: a type that was
/// declared wrongly would be an error.
pub fn with_outputs<'n>(model: &Model, names: impl IntoIterator<Item = &'n str>) -> Model {
    let mut model = model.clone();
    if let Some(graph) = &mut model.proto_mut().graph {
        let named = |name: &str| ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() };
        graph.output.extend(names.into_iter().map(named));
    }
    model
}

#[cfg(test)]
mod tests {
    use isotrace_onnx::proto::{AttributeProto, ModelProto, NodeProto};

    use super::*;

    fn node(op: &str, outputs: &[&str]) -> NodeProto {
        NodeProto {
            op_type: Some(op.into()),
            output: outputs.iter().map(|&o| o.to_owned()).collect(),
            ..NodeProto::default()
        }
    }

    #[test]
    fn what_nodes_write_is_given_out_once_and_bodies_are_counted() {
        let body =
            GraphProto { node: vec![node("Add", &["p"]), node("Mul", &["q", ""])], ..GraphProto::default() };
        let mut branch = node("If", &["y"]);
        branch.attribute = ["then_branch", "else_branch"]
            .map(|name| AttributeProto {
                name: Some(name.into()),
                g: Some(Box::new(body.clone())),
                ..AttributeProto::default()
            })
            .to_vec();
        let output = ValueInfoProto { name: Some("y".into()), ..ValueInfoProto::default() };
        let graph = GraphProto {
            node: vec![node("Split", &["a", "", "b"]), branch, node("Relu", &["c"])],
            output: vec![output],
            ..GraphProto::default()
        };
        assert_eq!(inner_values(&graph), ["a", "b", "c"]);
        assert_eq!(values_in_bodies(&graph), 4);
        let model = Model::from_proto(ModelProto { graph: Some(graph), ..ModelProto::default() });
        let more = with_outputs(&model, ["a", "c"]);
        let names: Vec<&str> =
            more.proto().graph.iter().flat_map(|g| &g.output).map(ValueInfoProto::name).collect();
        assert_eq!(names, ["y", "a", "c"]);
    }
}
