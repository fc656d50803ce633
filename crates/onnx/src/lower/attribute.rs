//! Attributes, and the bodies among them.

use isotrace_graph::{Attribute, Graph};

use super::scope::{Level, Scope};
use super::{Lowering, node_label};
use crate::OnnxError;
use crate::generated::onnx::attribute_proto::AttributeType;
use crate::generated::onnx::{AttributeProto, GraphProto, NodeProto};
use crate::sparse::densify;
use crate::tensor::decode;

impl<'m> Lowering<'m> {
    /// An attribute's name and value; `None` for a reference to something that the call leaves out.
    pub fn attribute(
        &mut self,
        node: &NodeProto,
        attribute: &'m AttributeProto,
        scope: usize,
    ) -> Result<Option<(String, Attribute)>, OnnxError> {
        let name = attribute.name();
        let reference = attribute.ref_attr_name();
        let (source, source_scope) = if reference.is_empty() {
            (attribute, scope)
        } else {
            let frame = &self.frames[self.scopes[scope].frame];
            if frame.function.is_none() {
                let problem = format!("it refers to {reference:?} of a function, but is in none");
                return Err(self.bad_attribute(node, name, scope, problem));
            }
            match frame.attributes.get(reference) {
                Some(&found) => found,
                None => return Ok(None),
            }
        };
        let kind = match kind(source) {
            Ok(kind) => kind,
            Err(problem) => return Err(self.bad_attribute(node, name, scope, problem)),
        };
        if !reference.is_empty()
            && attribute.r#type() != AttributeType::Undefined
            && attribute.r#type() != kind
        {
            let (expected, found) = (attribute.r#type().as_str_name(), kind.as_str_name());
            let problem = format!("it refers to {reference:?}, which is {found}, expected {expected}");
            return Err(self.bad_attribute(node, name, scope, problem));
        }
        let value = self.value_of(source, kind, source_scope)?;
        // Made dense, a Constant's sparse_value is its value.
        let dense =
            kind == AttributeType::SparseTensor && name == "sparse_value" && node.op_type() == "Constant";
        let name = if dense { "value" } else { name };
        if name.is_empty() {
            return Err(self.bad_attribute(node, name, scope, "it has no name".into()));
        }
        Ok(Some((name.to_owned(), value)))
    }

    fn value_of(
        &mut self,
        attribute: &'m AttributeProto,
        kind: AttributeType,
        scope: usize,
    ) -> Result<Attribute, OnnxError> {
        Ok(match kind {
            AttributeType::Float => Attribute::Float(attribute.f()),
            AttributeType::Int => Attribute::Int(attribute.i()),
            AttributeType::String => Attribute::Bytes(attribute.s().to_vec()),
            AttributeType::Floats => Attribute::Floats(attribute.floats.clone()),
            AttributeType::Ints => Attribute::Ints(attribute.ints.clone()),
            AttributeType::Strings => {
                Attribute::Strings(attribute.strings.iter().map(|s| s.to_vec()).collect())
            }
            AttributeType::Tensor => match &attribute.t {
                Some(tensor) => Attribute::Tensor(decode(tensor, self.external)?),
                None => Attribute::Other("missing tensor"),
            },
            AttributeType::Tensors => Attribute::Tensors(
                attribute.tensors.iter().map(|t| decode(t, self.external)).collect::<Result<_, _>>()?,
            ),
            AttributeType::Graph => match &attribute.g {
                Some(graph) => Attribute::Graph(Box::new(self.body(graph, scope)?)),
                None => Attribute::Other("missing graph"),
            },
            AttributeType::Graphs => Attribute::Graphs(
                attribute.graphs.iter().map(|g| self.body(g, scope)).collect::<Result<_, _>>()?,
            ),
            AttributeType::SparseTensor => match &attribute.sparse_tensor {
                Some(sparse) => Attribute::Tensor(densify(sparse, self.external)?),
                None => Attribute::Other("missing sparse tensor"),
            },
            AttributeType::SparseTensors => Attribute::Tensors(
                attribute
                    .sparse_tensors
                    .iter()
                    .map(|s| densify(s, self.external))
                    .collect::<Result<_, _>>()?,
            ),
            AttributeType::TypeProto => Attribute::Other("type"),
            AttributeType::TypeProtos => Attribute::Other("types"),
            AttributeType::Undefined => Attribute::Other("nothing"),
        })
    }

    /// Lowers a body whose names around are those of `scope`.
    fn body(&mut self, graph: &'m GraphProto, scope: usize) -> Result<Graph, OnnxError> {
        self.deeper("bodies")?;
        self.levels.push(Level::default());
        let inner = self.scopes.len();
        let (level, frame) = (self.levels.len() - 1, self.scopes[scope].frame);
        self.scopes.push(Scope { level, frame, parent: Some(scope), ..Scope::default() });
        self.graph(graph, inner)?;
        self.scopes.truncate(inner);
        self.depth -= 1;
        let mut body = self.levels.pop().expect("pushed above").graph;
        body.sort()?;
        Ok(body)
    }

    pub fn bad_attribute(
        &self,
        node: &NodeProto,
        attribute: &str,
        scope: usize,
        problem: String,
    ) -> OnnxError {
        OnnxError::Attribute {
            attribute: attribute.to_owned(),
            node: self.shown(scope, node_label(node)),
            op: node.op_type().to_owned(),
            problem,
        }
    }
}

/// The kind of an attribute: as declared, and nothing else may be filled; undeclared (IR version 1), whatever is
/// filled. Writers that follow proto3 leave out numbers that are 0, so an empty number or list is one.
fn kind(attribute: &AttributeProto) -> Result<AttributeType, String> {
    use AttributeType as T;
    let filled: Vec<T> = [
        (attribute.f.is_some(), T::Float),
        (attribute.i.is_some(), T::Int),
        (attribute.s.is_some(), T::String),
        (attribute.t.is_some(), T::Tensor),
        (attribute.g.is_some(), T::Graph),
        (attribute.sparse_tensor.is_some(), T::SparseTensor),
        (attribute.tp.is_some(), T::TypeProto),
        (!attribute.floats.is_empty(), T::Floats),
        (!attribute.ints.is_empty(), T::Ints),
        (!attribute.strings.is_empty(), T::Strings),
        (!attribute.tensors.is_empty(), T::Tensors),
        (!attribute.graphs.is_empty(), T::Graphs),
        (!attribute.sparse_tensors.is_empty(), T::SparseTensors),
        (!attribute.type_protos.is_empty(), T::TypeProtos),
    ]
    .into_iter()
    .filter_map(|(is, kind)| is.then_some(kind))
    .collect();
    let number = attribute.r#type.unwrap_or(0);
    let declared = T::try_from(number).map_err(|_| format!("its type {number} is unknown"))?;
    let declared = match (declared, filled.as_slice()) {
        (T::Undefined, [one]) => *one,
        (T::Undefined, []) => return Err("it has no value".into()),
        (T::Undefined, [a, b, ..]) => {
            return Err(format!("it holds {} and {}, expected one value", a.as_str_name(), b.as_str_name()));
        }
        (declared, _) => declared,
    };
    if let Some(other) = filled.iter().find(|&&f| f != declared) {
        return Err(format!("it is declared {} but holds {}", declared.as_str_name(), other.as_str_name()));
    }
    let needs_message = matches!(declared, T::Tensor | T::Graph | T::SparseTensor | T::TypeProto);
    if needs_message && filled.is_empty() {
        return Err(format!("it is declared {} but holds nothing", declared.as_str_name()));
    }
    Ok(declared)
}
