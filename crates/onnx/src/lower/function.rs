//! Calls of a model's own functions, replaced by the functions' nodes.

use isotrace_graph::{Attributes, Node, TensorType, Value, ValueId};
use rustc_hash::FxHashMap;

use super::scope::{Frame, Scope};
use super::{Lowering, imports, node_label, tensor_type};
use crate::OnnxError;
use crate::generated::onnx::{FunctionProto, NodeProto, TypeProto};

/// A function's name for messages.
pub fn label(function: &FunctionProto) -> String {
    let mut label = function.name().to_owned();
    if !function.domain().is_empty() {
        label = format!("{}.{label}", function.domain());
    }
    if !function.overload().is_empty() {
        label = format!("{label}:{}", function.overload());
    }
    label
}

impl<'m> Lowering<'m> {
    /// Puts the nodes of `function` where `call` stands.
    pub fn inline(
        &mut self,
        call: &'m NodeProto,
        function: &'m FunctionProto,
        inputs: &[Option<ValueId>],
        outputs: &[Option<ValueId>],
        scope: usize,
    ) -> Result<(), OnnxError> {
        let caller = self.scopes[scope].frame;
        self.check_call(call, function, scope)?;
        self.deeper("functions")?;

        let frame = Frame {
            imports: self.imports_of(function),
            attributes: self.bind_attributes(call, function, scope),
            prefix: self.prefix(call, scope),
            function: Some(function),
            caller: Some(caller),
        };
        self.frames.push(frame);
        let inner = self.scopes.len();
        let level = self.levels.len() - 1;
        self.scopes.push(Scope { level, frame: self.frames.len() - 1, ..Scope::default() });

        for (i, name) in function.input.iter().enumerate() {
            let value = inputs.get(i).copied().flatten();
            if self.scopes[inner].names.insert(name, value).is_some() {
                let name = format!("{name} of {}", label(function));
                return Err(OnnxError::Duplicate { what: "function input", name });
            }
        }
        // A result that a node writes gets the caller's value; one that only hands on another needs a node.
        let types: FxHashMap<&str, &TypeProto> =
            function.value_info.iter().filter_map(|v| Some((v.name(), v.r#type.as_ref()?))).collect();
        let mut handed_on = Vec::new();
        for (i, name) in function.output.iter().enumerate() {
            let target = outputs.get(i).copied().flatten();
            if self.scopes[inner].names.contains_key(name.as_str()) {
                handed_on.extend(target.map(|target| (name.as_str(), target)));
            } else {
                let value = target.unwrap_or_else(|| {
                    let value = Value { name: self.shown(inner, name), ..Value::default() };
                    self.here().add_value(value)
                });
                self.declare_type(value, types.get(name.as_str()).and_then(|t| tensor_type(t)));
                self.scopes[inner].names.insert(name, Some(value));
                self.scopes[inner].promised.insert(name);
            }
        }
        self.declare(&function.node, inner, &types)?;
        for node in &function.node {
            self.node(node, inner)?;
        }
        for (name, target) in handed_on {
            self.hand_on(inner, name, target);
        }
        self.depth -= 1;
        self.scopes.truncate(inner);
        self.frames.pop();
        Ok(())
    }

    fn declare_type(&mut self, value: ValueId, declared: Option<TensorType>) {
        let value = &mut self.here().values[value.index()];
        if value.declared.is_none() {
            value.declared = declared;
        }
    }

    fn check_call(&self, call: &NodeProto, function: &FunctionProto, scope: usize) -> Result<(), OnnxError> {
        let node = || self.shown(scope, node_label(call));
        let mut frame = Some(self.scopes[scope].frame);
        while let Some(at) = frame {
            if self.frames[at].function.is_some_and(|f| std::ptr::eq(f, function)) {
                return Err(OnnxError::Recursion { function: label(function), node: node() });
            }
            frame = self.frames[at].caller;
        }
        let counts = [
            ("inputs", call.input.len(), function.input.len()),
            ("outputs", call.output.len(), function.output.len()),
        ];
        for (what, found, expected) in counts {
            if found > expected {
                return Err(OnnxError::Call {
                    node: node(),
                    function: label(function),
                    what,
                    found,
                    expected,
                });
            }
        }
        Ok(())
    }

    /// The function's own imports; where it names none of a domain, the model's.
    fn imports_of(&self, function: &'m FunctionProto) -> FxHashMap<&'m str, i64> {
        let mut all = self.frames[0].imports.clone();
        all.extend(imports(&function.opset_import));
        all
    }

    /// What the function's attribute references will find: the call's attributes, then the function's defaults.
    fn bind_attributes(
        &self,
        call: &'m NodeProto,
        function: &'m FunctionProto,
        scope: usize,
    ) -> FxHashMap<&'m str, (&'m crate::generated::onnx::AttributeProto, usize)> {
        let mut bound = FxHashMap::default();
        for default in &function.attribute_proto {
            bound.insert(default.name(), (default, scope));
        }
        let frame = &self.frames[self.scopes[scope].frame];
        for attribute in &call.attribute {
            let value = if attribute.ref_attr_name().is_empty() {
                Some((attribute, scope))
            } else {
                frame.attributes.get(attribute.ref_attr_name()).copied()
            };
            if let Some(value) = value {
                bound.insert(attribute.name(), value);
            }
        }
        bound
    }

    /// `outer call/this call`. Node names need not be unique; where a second call has the name of a first, its
    /// output's is taken, which is.
    fn prefix(&mut self, call: &NodeProto, scope: usize) -> String {
        let mut prefix = self.shown(scope, node_label(call));
        let output = call.output.iter().find(|n| !n.is_empty());
        if let Some(output) = output.filter(|_| self.prefixes.contains(&prefix)) {
            prefix = self.shown(scope, output);
        }
        self.prefixes.insert(prefix.clone());
        prefix
    }

    fn hand_on(&mut self, scope: usize, name: &str, target: ValueId) {
        let source = self.find(scope, name).ok().flatten();
        let frame = &self.frames[self.scopes[scope].frame];
        let version = frame.imports.get("").copied().unwrap_or(1);
        let name = frame.prefix.clone();
        self.here().nodes.push(Node {
            name,
            domain: String::new(),
            op: "Identity".into(),
            version,
            inputs: vec![source],
            outputs: vec![Some(target)],
            attributes: Attributes::new(),
        });
    }
}
