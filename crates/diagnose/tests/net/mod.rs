//! Small graphs built by names, and the report on two of them.

#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;

use isotrace_diagnose::{Detail, Inputs, Options, Source};
use isotrace_graph::{Attribute, Attributes, Dim, Graph, Node, TensorType, Value, ValueId};
use isotrace_report::Report;
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;

use crate::common;

/// Builds graphs by names.
#[derive(Default, Clone)]
pub struct Net {
    pub graph: Graph,
    pub names: BTreeMap<String, ValueId>,
}

impl Net {
    pub fn value(&mut self, name: &str) -> ValueId {
        if let Some(&v) = self.names.get(name) {
            return v;
        }
        let v = self.graph.add_value(Value { name: name.into(), ..Value::default() });
        self.names.insert(name.into(), v);
        v
    }

    pub fn constant(&mut self, name: &str, tensor: Tensor) {
        let v = self.value(name);
        self.graph.values[v.index()].constant = Some(tensor);
    }

    pub fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) {
        let inputs = inputs.iter().map(|i| Some(self.value(i))).collect();
        let outputs = vec![Some(self.value(output))];
        self.graph.nodes.push(Node {
            name: format!("node_{output}"),
            domain: String::new(),
            op: op.into(),
            version: 18,
            inputs,
            outputs,
            attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect::<Attributes>(),
        });
    }

    /// The node that writes `output`.
    pub fn at(&mut self, output: &str) -> &mut Node {
        let v = self.names[output];
        self.graph.nodes.iter_mut().find(|n| n.outputs[0] == Some(v)).expect("some node writes it")
    }

    /// Lets every reader of `from` but `except` read `to`.
    pub fn redirect(&mut self, from: &str, to: &str, except: &str) {
        let (from, to, except) = (self.names[from], self.value(to), self.names[except]);
        for node in self.graph.nodes.iter_mut().filter(|n| n.outputs[0] != Some(except)) {
            for slot in node.inputs.iter_mut().filter(|v| **v == Some(from)) {
                *slot = Some(to);
            }
        }
    }

    pub fn finish(self, inputs: &[&str]) -> Graph {
        self.finish_as(inputs, "y")
    }

    pub fn finish_as(mut self, inputs: &[&str], output: &str) -> Graph {
        for name in inputs {
            let v = self.names[*name];
            let shape = Some(vec![Dim::Fixed(2), Dim::Fixed(6), Dim::Fixed(8)]);
            self.graph.values[v.index()].declared = Some(TensorType { dtype: DType::F32, shape });
            self.graph.inputs.push(v);
        }
        self.graph.outputs = vec![self.names[output]];
        self.graph.sort().expect("the nets of these tests have no cycles");
        self.graph
    }
}

pub fn numbers(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(shape, common::numbers(shape.iter().product(), seed)).unwrap()
}

/// Both sides on the same numbers, by name.
pub fn diff(
    a: Source<'_>,
    b: Source<'_>,
    inputs: &FxHashMap<String, Tensor>,
    options: Options<'_>,
) -> Report {
    let fed = |graph: &Graph| -> FxHashMap<ValueId, Tensor> {
        graph.inputs.iter().map(|&v| (v, inputs[&graph.value(v).name].clone())).collect()
    };
    let named =
        |graph: &Graph, name: &str| graph.inputs.iter().copied().find(|&v| graph.value(v).name == name);
    let pairs: Vec<(ValueId, ValueId)> =
        inputs.keys().filter_map(|name| Some((named(a.graph, name)?, named(b.graph, name)?))).collect();
    let (fed_a, fed_b) = (fed(a.graph), fed(b.graph));
    isotrace_diagnose::diff(a, b, Inputs { a: &fed_a, b: &fed_b, pairs: &pairs }, options).unwrap()
}

pub fn compare(a: Net, b: Net) -> Report {
    compare_as(a, b, "y", "y")
}

/// Puts a call between a value and its readers.
pub fn insert(n: &mut Net, op: &str, after: &str, attributes: &[(&str, Attribute)], more: &[&str]) {
    let new = format!("{after}_{}", op.to_lowercase());
    n.node(op, &[&[after], more].concat(), &new, attributes);
    n.redirect(after, &new, &new);
}

pub fn compare_as(a: Net, b: Net, output_a: &str, output_b: &str) -> Report {
    let (a, b) = (a.finish_as(&["x"], output_a), b.finish_as(&["x"], output_b));
    let inputs = FxHashMap::from_iter([("x".to_owned(), numbers(&[2, 6, 8], 99))]);
    let source = |path, graph| Source { path, graph, recorded: None };
    let options = Options { allowed: &[], progress: None, detail: Detail::FULL };
    diff(source("a", &a), source("b", &b), &inputs, options)
}
