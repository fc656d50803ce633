//! The message of a model to a [`Graph`].
//!
//! Names in ONNX are lexical: a body sees the names around it, a function sees only its own. Lowering walks the
//! message once with a stack of *levels* (one for each graph under construction: the main one and the bodies around
//! the current place) and a list of *scopes* (one for each list of nodes that has its own names). A function's nodes
//! are put into the caller's level under a scope of their own, which is all that inlining takes; a body gets a level
//! and a scope. A name found in a scope of an outer level is captured through every level between.
//!
//! What is bounded, since files may be hostile: the depth of functions and bodies ([`MAX_DEPTH`]), the number of
//! nodes after inlining ([`MAX_NODES`]: thirty functions that call each other twice make a billion).

mod attribute;
mod function;
mod scope;
mod sequences;

use isotrace_graph::{Attributes, Dim, Graph, Node, TensorType, Value, ValueId};
use isotrace_tensor::Tensor;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::external::External;
use crate::generated::onnx::tensor_shape_proto::dimension::Value as DimValue;
use crate::generated::onnx::type_proto::Value as TypeValue;
use crate::generated::onnx::{
    FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TypeProto, ValueInfoProto,
};
use crate::sparse::densify;
use crate::tensor::decode;
use crate::{OnnxError, dtype_from_onnx};
use scope::{Frame, Level, Scope, Unknown};

/// Deepest nesting of functions and bodies, together.
const MAX_DEPTH: usize = 100;

/// Most nodes after inlining.
const MAX_NODES: usize = 1 << 20;

/// ONNX's own domain has two names.
fn canonical_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// The graph of a model: functions inlined, every graph in execution order.
pub fn lower(model: &ModelProto, external: &External) -> Result<Graph, OnnxError> {
    let mut functions = FxHashMap::default();
    for f in &model.functions {
        let key = (canonical_domain(f.domain()), f.name(), f.overload());
        if functions.insert(key, f).is_some() {
            return Err(OnnxError::Duplicate { what: "function", name: function::label(f) });
        }
    }
    let mut lowering = Lowering {
        external,
        functions,
        levels: vec![Level::default()],
        scopes: vec![Scope::default()],
        frames: vec![Frame { imports: imports(&model.opset_import), ..Frame::default() }],
        prefixes: FxHashSet::default(),
        depth: 0,
        nodes: 0,
    };
    let empty = GraphProto::default();
    lowering.graph(model.graph.as_ref().unwrap_or(&empty), 0)?;
    let mut graph = lowering.levels.swap_remove(0).graph;
    graph.sort()?;
    sequences::resolve(&mut graph);
    Ok(graph)
}

/// The version in force of each domain: the highest, where a file imports several.
fn imports(list: &[OperatorSetIdProto]) -> FxHashMap<&str, i64> {
    let mut imports = FxHashMap::default();
    for import in list {
        let version = imports.entry(canonical_domain(import.domain())).or_insert(import.version());
        *version = import.version().max(*version);
    }
    imports
}

struct Lowering<'m> {
    external: &'m External,
    functions: FxHashMap<(&'m str, &'m str, &'m str), &'m FunctionProto>,
    levels: Vec<Level>,
    scopes: Vec<Scope<'m>>,
    frames: Vec<Frame<'m>>,
    /// Prefixes of inlined calls, to tell calls of one name apart.
    prefixes: FxHashSet<String>,
    depth: usize,
    nodes: usize,
}

impl<'m> Lowering<'m> {
    fn here(&mut self) -> &mut Graph {
        &mut self.levels.last_mut().expect("the main level is never removed").graph
    }

    fn deeper(&mut self, what: &'static str) -> Result<(), OnnxError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(OnnxError::TooDeep { what, limit: MAX_DEPTH }) } else { Ok(()) }
    }

    /// A name as it is shown: inside an inlined function with the call in front.
    fn shown(&self, scope: usize, name: &str) -> String {
        let prefix = &self.frames[self.scopes[scope].frame].prefix;
        if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
    }

    /// Lowers a graph's content into the innermost level, with its names in `scope`.
    fn graph(&mut self, graph: &'m GraphProto, scope: usize) -> Result<(), OnnxError> {
        graph.name().clone_into(&mut self.here().name);
        let types: FxHashMap<&str, &TypeProto> = graph
            .value_info
            .iter()
            .chain(&graph.output)
            .chain(&graph.input)
            .filter_map(|v| Some((v.name(), v.r#type.as_ref()?)))
            .collect();
        for tensor in &graph.initializer {
            self.constant(scope, tensor.name(), decode(tensor, self.external)?, &types)?;
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |v| v.name());
            self.constant(scope, name, densify(sparse, self.external)?, &types)?;
        }
        self.inputs(&graph.input, scope, &types)?;
        self.declare(&graph.node, scope, &types)?;
        for node in &graph.node {
            self.node(node, scope)?;
        }
        for output in &graph.output {
            let name = output.name();
            let found = self.find(scope, name);
            let value = found.ok().flatten().ok_or_else(|| OnnxError::Missing {
                reader: format!("output of graph {:?}", graph.name()),
                name: name.to_owned(),
            })?;
            self.here().outputs.push(value);
        }
        Ok(())
    }

    fn constant(
        &mut self,
        scope: usize,
        name: &'m str,
        tensor: Tensor,
        types: &FxHashMap<&str, &TypeProto>,
    ) -> Result<(), OnnxError> {
        if name.is_empty() || self.scopes[scope].names.contains_key(name) {
            return Err(OnnxError::Duplicate { what: "initializer", name: name.to_owned() });
        }
        let id = self.value(scope, name, types);
        self.here().values[id.index()].constant = Some(tensor);
        Ok(())
    }

    fn inputs(
        &mut self,
        inputs: &'m [ValueInfoProto],
        scope: usize,
        types: &FxHashMap<&str, &TypeProto>,
    ) -> Result<(), OnnxError> {
        for input in inputs {
            let name = input.name();
            if let Some(&known) = self.scopes[scope].names.get(name) {
                // Before IR version 4 every initializer was listed among the inputs too; its tensor is its value.
                if known.is_some_and(|id| self.here().value(id).constant.is_some()) {
                    continue;
                }
                return Err(OnnxError::Duplicate { what: "graph input", name: name.to_owned() });
            }
            let id = self.value(scope, name, types);
            self.here().inputs.push(id);
        }
        Ok(())
    }

    /// Makes a value for everything that nodes write, before any node is lowered: files need not be in order.
    fn declare(
        &mut self,
        nodes: &'m [NodeProto],
        scope: usize,
        types: &FxHashMap<&str, &TypeProto>,
    ) -> Result<(), OnnxError> {
        let mut written: FxHashSet<&str> = FxHashSet::default();
        for node in nodes {
            for name in node.output.iter().map(String::as_str).filter(|n| !n.is_empty()) {
                // What a function returns has its value already; it may still be written once.
                let taken = self.scopes[scope].names.contains_key(name)
                    && !self.scopes[scope].promised.contains(name);
                if taken || !written.insert(name) {
                    let value = self.shown(scope, name);
                    let node = self.shown(scope, node.name());
                    return Err(isotrace_graph::GraphError::WrittenTwice { value, node }.into());
                }
                if !self.scopes[scope].promised.contains(name) {
                    self.value(scope, name, types);
                }
            }
        }
        let missing = self.scopes[scope].promised.iter().filter(|n| !written.contains(**n)).min();
        missing.map_or(Ok(()), |name| {
            let function = self.frames[self.scopes[scope].frame].function;
            Err(OnnxError::Missing {
                reader: format!(
                    "the result of function {}",
                    function.map_or_else(String::new, function::label)
                ),
                name: (*name).to_owned(),
            })
        })
    }

    fn value(&mut self, scope: usize, name: &'m str, types: &FxHashMap<&str, &TypeProto>) -> ValueId {
        let declared = types.get(name).and_then(|t| tensor_type(t));
        let value = Value { name: self.shown(scope, name), constant: None, declared };
        let id = self.here().add_value(value);
        self.scopes[scope].names.insert(name, Some(id));
        id
    }

    fn node(&mut self, node: &'m NodeProto, scope: usize) -> Result<(), OnnxError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(OnnxError::TooManyNodes { limit: MAX_NODES });
        }
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            let found = self.find(scope, name).map_err(|Unknown| OnnxError::Missing {
                reader: format!("node {:?} ({})", self.shown(scope, node_label(node)), node.op_type()),
                name: name.clone(),
            })?;
            inputs.push(found);
        }
        let outputs: Vec<Option<ValueId>> = node
            .output
            .iter()
            .map(|name| self.scopes[scope].names.get(name.as_str()).copied().flatten())
            .collect();
        let domain = canonical_domain(node.domain());
        if let Some(&function) = self.functions.get(&(domain, node.op_type(), node.overload())) {
            return self.inline(node, function, &inputs, &outputs, scope);
        }
        let mut attributes = Attributes::new();
        for attribute in &node.attribute {
            let Some((name, value)) = self.attribute(node, attribute, scope)? else { continue };
            if attributes.insert(name.clone(), value).is_some() {
                return Err(self.bad_attribute(node, &name, scope, "it is given twice".into()));
            }
        }
        let version = self.frames[self.scopes[scope].frame].imports.get(domain).copied().unwrap_or(1);
        let name = if node.name().is_empty() { String::new() } else { self.shown(scope, node.name()) };
        let (domain, op) = (domain.to_owned(), node.op_type().to_owned());
        self.here().nodes.push(Node { name, domain, op, version, inputs, outputs, attributes });
        Ok(())
    }
}

/// What a node is called in messages: its name, or its first output's.
fn node_label(node: &NodeProto) -> &str {
    if node.name().is_empty() {
        node.output.iter().map(String::as_str).find(|n| !n.is_empty()).unwrap_or("")
    } else {
        node.name()
    }
}

/// A declared type, if it is a tensor's.
fn tensor_type(proto: &TypeProto) -> Option<TensorType> {
    let Some(TypeValue::TensorType(tensor)) = &proto.value else { return None };
    let dtype = dtype_from_onnx(tensor.elem_type())?;
    let dim = |value: &Option<DimValue>| match value {
        Some(DimValue::DimValue(n)) => usize::try_from(*n).map_or(Dim::Unknown, Dim::Fixed),
        Some(DimValue::DimParam(name)) if !name.is_empty() => Dim::Named(name.clone()),
        _ => Dim::Unknown,
    };
    let shape = tensor.shape.as_ref().map(|s| s.dim.iter().map(|d| dim(&d.value)).collect());
    Some(TensorType { dtype, shape })
}
