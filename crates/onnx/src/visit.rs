//! Every tensor of a model, wherever it hides.

use crate::OnnxError;
use crate::generated::onnx::{GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};

type Visit<'v> = &'v mut dyn FnMut(&mut TensorProto) -> Result<(), OnnxError>;

/// Calls `visit` with every tensor: initializers, sparse ones' parts, attributes, bodies, functions, training graphs.
pub fn tensors_mut(model: &mut ModelProto, visit: Visit<'_>) -> Result<(), OnnxError> {
    if let Some(graph) = &mut model.graph {
        in_graph(graph, visit)?;
    }
    for function in &mut model.functions {
        in_nodes(&mut function.node, visit)?;
        for attribute in &mut function.attribute_proto {
            in_attribute(attribute, visit)?;
        }
    }
    for training in &mut model.training_info {
        for graph in training.initialization.iter_mut().chain(&mut training.algorithm) {
            in_graph(graph, visit)?;
        }
    }
    Ok(())
}

fn in_graph(graph: &mut GraphProto, visit: Visit<'_>) -> Result<(), OnnxError> {
    for tensor in &mut graph.initializer {
        visit(tensor)?;
    }
    for sparse in &mut graph.sparse_initializer {
        in_sparse(sparse, visit)?;
    }
    in_nodes(&mut graph.node, visit)
}

fn in_sparse(sparse: &mut SparseTensorProto, visit: Visit<'_>) -> Result<(), OnnxError> {
    sparse.values.iter_mut().chain(&mut sparse.indices).try_for_each(visit)
}

fn in_nodes(nodes: &mut [NodeProto], visit: Visit<'_>) -> Result<(), OnnxError> {
    nodes.iter_mut().flat_map(|n| &mut n.attribute).try_for_each(|a| in_attribute(a, visit))
}

fn in_attribute(
    attribute: &mut crate::generated::onnx::AttributeProto,
    visit: Visit<'_>,
) -> Result<(), OnnxError> {
    for tensor in attribute.t.iter_mut().map(Box::as_mut).chain(&mut attribute.tensors) {
        visit(tensor)?;
    }
    for sparse in attribute.sparse_tensor.iter_mut().map(Box::as_mut).chain(&mut attribute.sparse_tensors) {
        in_sparse(sparse, visit)?;
    }
    for graph in attribute.g.iter_mut().map(Box::as_mut).chain(&mut attribute.graphs) {
        in_graph(graph, visit)?;
    }
    Ok(())
}
