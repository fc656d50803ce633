//! Constants under other names.
//!
//! The optimiser of ONNX Runtime calls the constants that it makes by fixed names, such as `gemm_input_shape`, and does not
//! look whether the model has one of that name. A model that it wrote itself does, so it refuses its own work. Nothing is
//! computed from a name: with other ones the same model runs.

use isotrace_onnx::Model;
use isotrace_onnx::proto::{GraphProto, ValueInfoProto};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::OrtError;

/// Whether the runtime refused a model for names that its optimiser wanted for itself.
pub fn of_its_own(error: &OrtError) -> bool {
    matches!(error, OrtError::Runtime { problem, .. } if problem.contains("replace the existing tensor"))
}

/// The model with constants of its own under new names, those that are also inputs or outputs left alone, and sparse
/// ones, which the optimiser does not make. `None` where there is no graph.
pub fn renamed(model: &Model) -> Option<Model> {
    let mut model = model.clone();
    let graph = model.proto_mut().graph.as_mut()?;
    let mut taken: FxHashSet<String> = graph.initializer.iter().map(|t| t.name().to_owned()).collect();
    let sparse = graph.sparse_initializer.iter().filter_map(|t| t.values.as_ref());
    taken.extend(sparse.map(|t| t.name().to_owned()));
    taken.extend(graph.node.iter().flat_map(|n| &n.output).cloned());
    let border: FxHashSet<&str> = graph.input.iter().chain(&graph.output).map(ValueInfoProto::name).collect();
    taken.extend(border.iter().map(|name| (*name).to_owned()));
    let mut names: FxHashMap<String, String> = FxHashMap::default();
    for constant in graph.initializer.iter().filter(|t| !border.contains(t.name())) {
        let mut name = format!("{}.constant", constant.name());
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        names.insert(constant.name().to_owned(), name);
    }
    for constant in &mut graph.initializer {
        if let Some(name) = names.get(constant.name()) {
            constant.name = Some(name.clone());
        }
    }
    for info in &mut graph.value_info {
        if let Some(name) = names.get(info.name()) {
            info.name = Some(name.clone());
        }
    }
    read(graph, &names);
    Some(model)
}

/// Lets the nodes of a graph, and of bodies inside them, read by the new names.
fn read(graph: &mut GraphProto, names: &FxHashMap<String, String>) {
    for node in &mut graph.node {
        for input in &mut node.input {
            if let Some(name) = names.get(input) {
                input.clone_from(name);
            }
        }
        for attribute in &mut node.attribute {
            for body in attribute.g.iter_mut().map(Box::as_mut).chain(&mut attribute.graphs) {
                read(body, names);
            }
        }
    }
    // What a body gives may be a constant from outside.
    for output in &mut graph.output {
        if let Some(name) = names.get(output.name()) {
            output.name = Some(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use isotrace_onnx::proto::{AttributeProto, ModelProto, NodeProto, TensorProto};

    use super::*;

    #[test]
    fn constants_get_new_names_wherever_they_are_read() {
        let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
            op_type: Some(op.into()),
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        };
        let constant = |name: &str| TensorProto { name: Some(name.into()), ..TensorProto::default() };
        let named = |name: &str| ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() };
        let body = GraphProto { node: vec![node("Add", &["x", "w"], "p")], ..GraphProto::default() };
        let mut branch = node("If", &["c"], "y");
        branch.attribute = vec![AttributeProto { g: Some(Box::new(body)), ..AttributeProto::default() }];
        let graph = GraphProto {
            node: vec![node("Mul", &["w", "w.constant"], "z"), branch],
            initializer: vec![constant("w"), constant("w.constant"), constant("c"), constant("out")],
            input: vec![named("x"), named("c")],
            output: vec![named("y"), named("out")],
            ..GraphProto::default()
        };
        let model = Model::from_proto(ModelProto { graph: Some(graph), ..ModelProto::default() });
        let renamed = renamed(&model).unwrap();
        let graph = renamed.proto().graph.as_ref().unwrap();
        let constants: Vec<&str> = graph.initializer.iter().map(TensorProto::name).collect();
        assert_eq!(constants, ["w.constant_", "w.constant.constant", "c", "out"]);
        assert_eq!(graph.node[0].input, ["w.constant_", "w.constant.constant"]);
        assert_eq!(graph.node[1].input, ["c"]);
        let body = graph.node[1].attribute[0].g.as_ref().unwrap();
        assert_eq!(body.node[0].input, ["x", "w.constant_"]);
        assert_eq!(graph.output.iter().map(ValueInfoProto::name).collect::<Vec<_>>(), ["y", "out"]);
    }
}
