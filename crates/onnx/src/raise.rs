//! A [`Graph`] to the message of a model: the way back from [`lower`](crate::lower).
//!
//! Two things a graph may hold that ONNX may not: values of one name (two inlined calls can collide), which get a
//! number behind the name; and nodes of one domain under different opset versions (functions bring their own), of
//! which the less common are wrapped into a function each, the only place where ONNX allows another version.

use std::collections::BTreeMap;

use bytes::Bytes;
use isotrace_graph::{Attribute, Dim, Graph, Node, TensorType};
use isotrace_tensor::DType;
use rustc_hash::FxHashSet;

use crate::generated::onnx::attribute_proto::AttributeType;
use crate::generated::onnx::tensor_shape_proto::{Dimension, dimension};
use crate::generated::onnx::type_proto::{Tensor as TensorTypeProto, Value as TypeValue};
use crate::generated::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};
use crate::{OnnxError, dtype_to_onnx, tensor_to_proto};

/// The domain of functions that only carry another opset version.
const VERSION_DOMAIN: &str = "isotrace.version";

/// The message of the model that computes what `graph` does.
pub fn raise(graph: &Graph) -> Result<ModelProto, OnnxError> {
    let mut counts = BTreeMap::new();
    count_versions(graph, &mut counts);
    let mut imports: BTreeMap<&str, (i64, usize)> = BTreeMap::new();
    for (&(domain, version), &count) in &counts {
        let best = imports.entry(domain).or_insert((version, count));
        // Ascending versions: at equal counts the higher wins.
        if count >= best.1 {
            *best = (version, count);
        }
    }
    // Every model imports ONNX's own operators; one without any reads under any version.
    imports.entry("").or_insert((1, 0));
    let mut raising =
        Raising { imports: imports.iter().map(|(&d, &(v, _))| (d, v)).collect(), ..Raising::default() };
    let graph = raising.graph(graph, &[])?;
    let mut opset_import: Vec<OperatorSetIdProto> =
        raising.imports.iter().map(|(&domain, &version)| opset(domain, version)).collect();
    if !raising.functions.is_empty() {
        opset_import.push(opset(VERSION_DOMAIN, 1));
    }
    Ok(ModelProto {
        ir_version: Some(raising.ir_version.max(8)),
        producer_name: Some("isotrace".into()),
        opset_import,
        graph: Some(graph),
        functions: raising.functions,
        ..ModelProto::default()
    })
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }
}

fn count_versions<'g>(graph: &'g Graph, counts: &mut BTreeMap<(&'g str, i64), usize>) {
    for node in &graph.nodes {
        *counts.entry((node.domain.as_str(), node.version)).or_default() += 1;
        for body in node.bodies() {
            count_versions(body, counts);
        }
    }
}

#[derive(Default)]
struct Raising<'g> {
    imports: BTreeMap<&'g str, i64>,
    functions: Vec<FunctionProto>,
    used: FxHashSet<String>,
    ir_version: i64,
}

impl Raising<'_> {
    /// A name that no other value of the model has: names inside bodies must not hide those around them.
    fn unique(&mut self, name: &str) -> String {
        if !name.is_empty() && self.used.insert(name.to_owned()) {
            return name.to_owned();
        }
        let base = if name.is_empty() { "value" } else { name };
        let mut number = 1u64;
        loop {
            let candidate = format!("{base}_{number}");
            if self.used.insert(candidate.clone()) {
                return candidate;
            }
            number += 1;
        }
    }

    fn note_dtype(&mut self, dtype: DType) {
        let since = match dtype {
            DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ => 9,
            DType::I4 | DType::U4 => 10,
            DType::F4E2M1 => 11,
            DType::F8E8M0 => 12,
            DType::I2 | DType::U2 => 13,
            _ => 8,
        };
        self.ir_version = self.ir_version.max(since);
    }

    fn graph(&mut self, graph: &Graph, around: &[String]) -> Result<GraphProto, OnnxError> {
        let mut names = vec![String::new(); graph.values.len()];
        for &(outer, inner) in &graph.captures {
            names[inner.index()].clone_from(&around[outer.index()]);
        }
        // Inputs and outputs choose first: their names are the model's interface.
        let chosen = graph.inputs.iter().chain(&graph.outputs).copied().chain(graph.value_ids());
        for id in chosen {
            if names[id.index()].is_empty() {
                names[id.index()] = self.unique(&graph.value(id).name);
            }
        }
        let mut proto = GraphProto {
            name: Some(if graph.name.is_empty() { "graph".into() } else { graph.name.clone() }),
            ..GraphProto::default()
        };
        let info = |raising: &mut Self, id: isotrace_graph::ValueId| {
            let declared = graph.value(id).declared.as_ref();
            if let Some(declared) = declared {
                raising.note_dtype(declared.dtype);
            }
            ValueInfoProto {
                name: Some(names[id.index()].clone()),
                r#type: declared.map(type_proto),
                ..ValueInfoProto::default()
            }
        };
        proto.input = graph.inputs.iter().map(|&id| info(self, id)).collect();
        proto.output = graph.outputs.iter().map(|&id| info(self, id)).collect();
        let mut inner = vec![true; graph.values.len()];
        let interface =
            graph.inputs.iter().chain(&graph.outputs).chain(graph.captures.iter().map(|(_, v)| v));
        for id in interface {
            inner[id.index()] = false;
        }
        for id in graph.value_ids() {
            let value = graph.value(id);
            if let Some(tensor) = &value.constant {
                self.note_dtype(tensor.dtype());
                proto.initializer.push(tensor_to_proto(&names[id.index()], tensor));
            } else if inner[id.index()] && value.declared.is_some() {
                proto.value_info.push(info(self, id));
            }
        }
        for node in &graph.nodes {
            let node = self.node(node, &names)?;
            proto.node.push(node);
        }
        Ok(proto)
    }

    fn node(&mut self, node: &Node, names: &[String]) -> Result<NodeProto, OnnxError> {
        let name = |id: &Option<isotrace_graph::ValueId>| {
            id.map_or_else(String::new, |id| names[id.index()].clone())
        };
        let inexpressible = |problem: &str| OnnxError::Inexpressible {
            node: node.name.clone(),
            op: node.qualified_op(),
            problem: problem.to_owned(),
        };
        let mut attribute = Vec::with_capacity(node.attributes.len());
        for (key, value) in &node.attributes {
            let made = self.attribute(key, value, names)?.ok_or_else(|| {
                inexpressible(&format!("its attribute {key:?} is a {}, which was not kept", value.kind()))
            })?;
            attribute.push(made);
        }
        let proto = NodeProto {
            input: node.inputs.iter().map(name).collect(),
            output: node.outputs.iter().map(name).collect(),
            name: (!node.name.is_empty()).then(|| node.name.clone()),
            op_type: Some(node.op.clone()),
            domain: (!node.domain.is_empty()).then(|| node.domain.clone()),
            attribute,
            ..NodeProto::default()
        };
        if self.imports.get(node.domain.as_str()) == Some(&node.version) {
            return Ok(proto);
        }
        if node.bodies().next().is_some() {
            return Err(inexpressible(&format!(
                "it has a body and needs version {} of domain {:?}, most nodes another",
                node.version, node.domain
            )));
        }
        Ok(self.wrap(proto, node.version))
    }

    /// Puts a node into a function of its own, which imports another version.
    fn wrap(&mut self, mut node: NodeProto, version: i64) -> NodeProto {
        let domain = node.domain().to_owned();
        let function = format!("{}_{version}_{}", node.op_type(), self.functions.len());
        let present = |names: &[String]| names.iter().filter(|n| !n.is_empty()).cloned().collect::<Vec<_>>();
        let call = NodeProto {
            input: present(&node.input),
            output: present(&node.output),
            name: node.name.take(),
            op_type: Some(function.clone()),
            domain: Some(VERSION_DOMAIN.into()),
            ..NodeProto::default()
        };
        let mut input = call.input.clone();
        input.sort_unstable();
        input.dedup();
        self.functions.push(FunctionProto {
            name: Some(function),
            domain: Some(VERSION_DOMAIN.into()),
            input: input.clone(),
            output: call.output.clone(),
            opset_import: vec![opset(&domain, version)],
            node: vec![node],
            ..FunctionProto::default()
        });
        NodeProto { input, ..call }
    }

    /// `None` for what was not kept when the file was read.
    fn attribute(
        &mut self,
        name: &str,
        value: &Attribute,
        names: &[String],
    ) -> Result<Option<AttributeProto>, OnnxError> {
        let mut proto = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
        let kind = match value {
            Attribute::Int(i) => {
                proto.i = Some(*i);
                AttributeType::Int
            }
            Attribute::Float(f) => {
                proto.f = Some(*f);
                AttributeType::Float
            }
            Attribute::Bytes(s) => {
                proto.s = Some(Bytes::copy_from_slice(s));
                AttributeType::String
            }
            Attribute::Ints(ints) => {
                proto.ints.clone_from(ints);
                AttributeType::Ints
            }
            Attribute::Floats(floats) => {
                proto.floats.clone_from(floats);
                AttributeType::Floats
            }
            Attribute::Strings(strings) => {
                proto.strings = strings.iter().map(|s| Bytes::copy_from_slice(s)).collect();
                AttributeType::Strings
            }
            Attribute::Tensor(tensor) => {
                self.note_dtype(tensor.dtype());
                proto.t = Some(Box::new(tensor_to_proto("", tensor)));
                AttributeType::Tensor
            }
            Attribute::Tensors(tensors) => {
                for tensor in tensors {
                    self.note_dtype(tensor.dtype());
                    proto.tensors.push(tensor_to_proto("", tensor));
                }
                AttributeType::Tensors
            }
            Attribute::Graph(graph) => {
                proto.g = Some(Box::new(self.graph(graph, names)?));
                AttributeType::Graph
            }
            Attribute::Graphs(graphs) => {
                proto.graphs = graphs.iter().map(|g| self.graph(g, names)).collect::<Result<_, _>>()?;
                AttributeType::Graphs
            }
            Attribute::Other(_) => return Ok(None),
        };
        proto.r#type = Some(kind as i32);
        Ok(Some(proto))
    }
}

fn type_proto(declared: &TensorType) -> TypeProto {
    let dim = |dim: &Dim| Dimension {
        value: match dim {
            Dim::Fixed(n) => Some(dimension::Value::DimValue(*n as i64)),
            Dim::Named(name) => Some(dimension::Value::DimParam(name.clone())),
            Dim::Unknown => None,
        },
        denotation: None,
    };
    let shape = declared.shape.as_ref().map(|s| TensorShapeProto { dim: s.iter().map(dim).collect() });
    let tensor = TensorTypeProto { elem_type: Some(dtype_to_onnx(declared.dtype)), shape };
    TypeProto { value: Some(TypeValue::TensorType(tensor)), denotation: None }
}
