//! Where names are looked up, and what each graph under construction captures.

use isotrace_graph::{Graph, Value, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Lowering;
use crate::generated::onnx::{AttributeProto, FunctionProto};

/// A graph under construction.
#[derive(Default)]
pub struct Level {
    pub graph: Graph,
    /// Values of the level around, and the value each has become here.
    captured: FxHashMap<ValueId, ValueId>,
}

/// The names of one list of nodes.
#[derive(Default)]
pub struct Scope<'m> {
    /// `None` for a function's input that the call leaves out.
    pub names: FxHashMap<&'m str, Option<ValueId>>,
    /// For a function: results that have a value before a node writes them.
    pub promised: FxHashSet<&'m str>,
    /// The level in which the names have their values.
    pub level: usize,
    /// For a body: the scope around.
    pub parent: Option<usize>,
    /// The function this is in.
    pub frame: usize,
}

/// What a function's nodes depend on besides names.
#[derive(Default)]
pub struct Frame<'m> {
    pub imports: FxHashMap<&'m str, i64>,
    /// Attributes of the call, or the function's defaults: the message and the scope it was written in.
    pub attributes: FxHashMap<&'m str, (&'m AttributeProto, usize)>,
    /// What inlined names carry in front.
    pub prefix: String,
    /// `None` for the model's own graph.
    pub function: Option<&'m FunctionProto>,
    /// The frame of the call.
    pub caller: Option<usize>,
}

/// No scope has the name.
pub struct Unknown;

impl Lowering<'_> {
    /// The value that a name has in a scope, brought into the innermost level; `None` for an input of a
    /// function that the call leaves out.
    pub fn find(&mut self, scope: usize, name: &str) -> Result<Option<ValueId>, Unknown> {
        let mut at = scope;
        let (found, level) = loop {
            let scope = &self.scopes[at];
            if let Some(&found) = scope.names.get(name) {
                break (found, scope.level);
            }
            at = scope.parent.ok_or(Unknown)?;
        };
        Ok(found.map(|mut value| {
            for depth in level + 1..self.levels.len() {
                let (outer, inner) = self.levels.split_at_mut(depth);
                let (outer, inner) = (&outer[depth - 1].graph, &mut inner[0]);
                value = *inner.captured.entry(value).or_insert_with(|| {
                    let source = outer.value(value);
                    let copy = Value {
                        name: source.name.clone(),
                        constant: None,
                        declared: source.declared.clone(),
                    };
                    let id = inner.graph.add_value(copy);
                    inner.graph.captures.push((value, id));
                    id
                });
            }
            value
        }))
    }
}
