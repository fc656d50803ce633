use std::cell::OnceCell;

use isotrace_graph::{Graph, Node, NodeId, ValueId};
use isotrace_ops::budget::{Budget, Unit};
use isotrace_ops::{Bodies, Call, Norms, OpError, Operator, Precision};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;

use crate::{Evaluation, RunError, evaluate};

/// A graph with its operators built, ready to run any number of times.
#[derive(Debug)]
pub struct Plan<'g> {
    graph: &'g Graph,
    ops: Vec<Box<dyn Operator>>,
    /// Plans of each node's bodies by attribute name; most nodes have none.
    bodies: FxHashMap<usize, Vec<(&'g str, Plan<'g>)>>,
}

/// Which values a run keeps.
#[derive(Clone, Copy)]
pub enum Keep<'a> {
    /// All of them, constants and inputs too.
    All,
    /// The graph's outputs; the others are freed after their last use.
    Outputs,
    /// The graph's outputs and the values for which this says so, asked after their last use.
    Those(&'a dyn Fn(ValueId, &Tensor) -> bool),
}

/// How to run.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The precision.
    pub precision: Precision,
    /// What to keep.
    pub keep: Keep<'a>,
    /// Called before each node with its place and the number of nodes; false stops the run.
    pub progress: Option<&'a (dyn Fn(usize, usize) -> bool + Sync)>,
    /// Asked before each node with the values so far: its outputs, where they are known without computing them.
    pub known: Option<&'a Known<'a>>,
    /// Handed each value that was computed; what comes back is kept in its place and holds the same bits.
    pub held: Option<&'a Held<'a>>,
}

/// See [`Options::known`].
pub type Known<'a> = dyn Fn(NodeId, &[Option<Tensor>]) -> Option<Vec<Option<Tensor>>> + 'a;

/// See [`Options::held`].
pub type Held<'a> = dyn Fn(ValueId, Tensor) -> Tensor + 'a;

impl Default for Options<'_> {
    fn default() -> Self {
        Self { precision: Precision::Declared, keep: Keep::All, progress: None, known: None, held: None }
    }
}

/// What a run kept: a tensor per [`ValueId`], or none.
#[derive(Debug, Clone)]
pub struct Run {
    values: Vec<Option<Tensor>>,
}

impl Run {
    /// The tensor of a value, if it was kept.
    pub fn get(&self, id: ValueId) -> Option<&Tensor> {
        self.values[id.index()].as_ref()
    }

    /// Every value, by [`ValueId`].
    pub fn values(&self) -> &[Option<Tensor>] {
        &self.values
    }

    /// Hands over every value.
    pub fn into_values(self) -> Vec<Option<Tensor>> {
        self.values
    }
}

impl<'g> Plan<'g> {
    /// Builds the operators of a graph in execution order.
    pub fn new(graph: &'g Graph) -> Result<Self, RunError> {
        let mut bodies = FxHashMap::default();
        let mut ops = Vec::with_capacity(graph.nodes.len());
        for (i, node) in graph.nodes.iter().enumerate() {
            let id = NodeId(i as u32);
            let op = isotrace_ops::build(node)
                .map_err(|source| RunError::Build { node: graph.label(id).to_owned(), source })?;
            ops.push(op);
            let plans = plans_of(node)?;
            if !plans.is_empty() {
                bodies.insert(i, plans);
            }
        }
        Ok(Self { graph, ops, bodies })
    }

    /// The graph.
    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    /// The operator of a node.
    pub fn op(&self, id: NodeId) -> &dyn Operator {
        self.ops[id.index()].as_ref()
    }

    /// Calls one node on given values. `lookup` yields the tensor of any value of this graph (for inputs and for
    /// what bodies capture); `decided` are the node's outputs in the declared run that is shadowed.
    pub fn evaluate(
        &self,
        id: NodeId,
        lookup: &dyn Fn(ValueId) -> Option<Tensor>,
        precision: Precision,
        decided: Option<&[Option<Tensor>]>,
    ) -> Result<Vec<Tensor>, RunError> {
        let node = self.graph.node(id);
        self.with_inputs(id, lookup, |inputs| {
            let bodies = self.bodies(id, lookup, precision);
            let what =
                Evaluation { inputs, outputs: node.outputs.len(), precision, decided, bodies: &bodies };
            let outputs = evaluate(self.op(id), &what)?;
            let needed = node.outputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            if outputs.len() < needed {
                let (named, made) = (node.outputs.len(), outputs.len());
                return Err(OpError::Setting(format!("{named} outputs are named, the operator has {made}")));
            }
            Ok(outputs)
        })
    }

    /// What rounding at unit roundoff `unit` may do to output `index` of a node, `output` in f64. The node's
    /// [`magnitude`](Operator::magnitude) on these values is taken from `magnitude`, or left there.
    pub fn budget(
        &self,
        id: NodeId,
        lookup: &dyn Fn(ValueId) -> Option<Tensor>,
        index: usize,
        output: &Tensor,
        unit: Unit,
        magnitude: &OnceCell<Tensor>,
    ) -> Result<Budget, RunError> {
        let budget = |inputs: &[Option<&Tensor>]| {
            let bodies = self.bodies(id, lookup, Precision::Float64);
            let call = Call { magnitude: Some(magnitude), ..self.call(id, inputs, &bodies) };
            self.op(id).budget(&call, index, output, unit)
        };
        // Where the magnitude is known it is all that is needed of the inputs: weights are not widened for it.
        match self.magnitude(id, lookup, magnitude)? {
            Some(_) => self.with_inputs(id, lookup, budget),
            None => self.with_inputs(id, &wide(lookup), budget),
        }
    }

    /// The sum of absolute products that a node's output is, where it is such a sum.
    pub fn magnitude(
        &self,
        id: NodeId,
        lookup: &dyn Fn(ValueId) -> Option<Tensor>,
        magnitude: &OnceCell<Tensor>,
    ) -> Result<Option<Tensor>, RunError> {
        self.with_inputs(id, lookup, |inputs| {
            let bodies = self.bodies(id, lookup, Precision::Float64);
            self.op(id).magnitude(&Call { magnitude: Some(magnitude), ..self.call(id, inputs, &bodies) })
        })
    }

    /// Bounds on that sum which cost no product, where there are any.
    pub fn norms(
        &self,
        id: NodeId,
        lookup: &dyn Fn(ValueId) -> Option<Tensor>,
    ) -> Result<Option<Norms>, RunError> {
        self.with_inputs(id, lookup, |inputs| {
            let bodies = self.bodies(id, lookup, Precision::Declared);
            self.op(id).norms(&self.call(id, inputs, &bodies))
        })
    }

    /// The change of a node's outputs that changes of its inputs by up to `errors` bring about, to first order.
    /// `outputs` are the node's f64 results on them.
    pub fn propagate(
        &self,
        id: NodeId,
        lookup: &dyn Fn(ValueId) -> Option<Tensor>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, RunError> {
        self.with_inputs(id, &wide(lookup), |inputs| {
            let bodies = self.bodies(id, lookup, Precision::Float64);
            self.op(id).propagate(&self.call(id, inputs, &bodies), outputs, errors)
        })
    }

    fn call<'a>(&self, id: NodeId, inputs: &'a [Option<&'a Tensor>], bodies: &'a dyn Bodies) -> Call<'a> {
        let outputs = self.graph.node(id).outputs.len();
        Call { inputs, outputs, precision: Precision::Float64, bodies, magnitude: None }
    }

    fn bodies<'a>(
        &'a self,
        id: NodeId,
        lookup: &'a dyn Fn(ValueId) -> Option<Tensor>,
        precision: Precision,
    ) -> NodeBodies<'a, 'g> {
        NodeBodies { plans: self.bodies.get(&id.index()).map_or(&[], Vec::as_slice), lookup, precision }
    }

    fn with_inputs<R>(
        &self,
        id: NodeId,
        lookup: &dyn Fn(ValueId) -> Option<Tensor>,
        f: impl FnOnce(&[Option<&Tensor>]) -> Result<R, OpError>,
    ) -> Result<R, RunError> {
        // Weights are copied to where a kernel can read them for one call at a time: kept, the copies would take as much
        // memory as the file.
        let read = |v: ValueId| lookup(v).map(Tensor::to_be_read);
        let inputs: Vec<Option<Tensor>> =
            self.graph.node(id).inputs.iter().map(|v| v.and_then(read)).collect();
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
        f(&inputs).map_err(|source| self.failure(id, &inputs, source))
    }

    fn failure(&self, id: NodeId, inputs: &[Option<&Tensor>], source: OpError) -> RunError {
        let described: Vec<String> = inputs
            .iter()
            .map(|t| t.map_or("none".to_owned(), |t| format!("{}{:?}", t.dtype(), t.shape())))
            .collect();
        RunError::Node {
            node: self.graph.label(id).to_owned(),
            op: self.graph.node(id).qualified_op(),
            inputs: described.join(", "),
            source,
        }
    }

    /// Runs the graph. `inputs` holds a tensor per graph input.
    pub fn run(&self, inputs: &FxHashMap<ValueId, Tensor>, options: &Options<'_>) -> Result<Run, RunError> {
        let mut values: Vec<Option<Tensor>> = vec![None; self.graph.values.len()];
        for &id in &self.graph.inputs {
            let value = self.graph.value(id);
            let Some(tensor) = inputs.get(&id) else {
                let names = self.graph.inputs.iter().map(|&i| format!("{:?}", self.graph.value(i).name));
                let needed = names.collect::<Vec<_>>().join(", ");
                return Err(RunError::MissingInput { name: value.name.clone(), needed });
            };
            if let Some(declared) = &value.declared
                && declared.dtype != tensor.dtype()
                && options.precision == Precision::Declared
            {
                let (found, expected) = (tensor.dtype(), declared.dtype);
                return Err(RunError::InputType { name: value.name.clone(), found, expected });
            }
            values[id.index()] = Some(widen(tensor, options.precision));
        }
        self.execute(values, options)
    }

    /// Runs the graph with inputs and captured values already in `values`.
    fn execute(&self, mut values: Vec<Option<Tensor>>, options: &Options<'_>) -> Result<Run, RunError> {
        for (slot, value) in values.iter_mut().zip(&self.graph.values) {
            if let Some(constant) = &value.constant {
                *slot = Some(widen(constant, options.precision));
            }
        }
        let mut uses = match options.keep {
            Keep::All => None,
            Keep::Outputs | Keep::Those(_) => Some(self.uses()),
        };
        let keeps = |v: ValueId, value: &Option<Tensor>| match (options.keep, value) {
            (Keep::Those(keeps), Some(value)) => keeps(v, value),
            _ => false,
        };
        for (i, node) in self.graph.nodes.iter().enumerate() {
            if options.progress.is_some_and(|report| !report(i, self.graph.nodes.len())) {
                return Err(RunError::Interrupted);
            }
            let id = NodeId(i as u32);
            let outputs = if let Some(known) = options.known.and_then(|known| known(id, &values)) {
                known
            } else {
                let lookup = |v: ValueId| values[v.index()].clone();
                let outputs = self.evaluate(id, &lookup, options.precision, None)?;
                let held = |(id, tensor): (&Option<ValueId>, Tensor)| match (options.held, id) {
                    (Some(held), Some(id)) => Some(held(*id, tensor)),
                    _ => Some(tensor),
                };
                node.outputs.iter().zip(outputs).map(held).collect()
            };
            for (id, tensor) in node.outputs.iter().zip(outputs) {
                if let Some(id) = id {
                    values[id.index()] = tensor;
                }
            }
            if let Some(uses) = &mut uses {
                for v in node.reads().chain(node.writes()) {
                    uses[v.index()] = uses[v.index()].saturating_sub(1);
                    let value = &mut values[v.index()];
                    if uses[v.index()] == 0 && !keeps(v, value) {
                        *value = None;
                    }
                }
            }
        }
        Ok(Run { values })
    }

    /// How often each value is touched; outputs once more than they will be.
    fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.graph.values.len()];
        for node in &self.graph.nodes {
            for v in node.reads().chain(node.writes()) {
                uses[v.index()] += 1;
            }
        }
        for v in &self.graph.outputs {
            uses[v.index()] += 1;
        }
        uses
    }
}

/// Calls an operator with the bodies of `node`, which need not be part of a plan; `lookup` yields what they capture.
pub fn evaluate_with_bodies(
    op: &dyn Operator,
    node: &Node,
    what: &Evaluation<'_>,
    lookup: &dyn Fn(ValueId) -> Option<Tensor>,
) -> Result<Vec<Tensor>, OpError> {
    let plans = plans_of(node).map_err(|e| OpError::Setting(e.to_string()))?;
    let bodies = NodeBodies { plans: &plans, lookup, precision: what.precision };
    evaluate(op, &Evaluation { bodies: &bodies, ..*what })
}

fn plans_of(node: &Node) -> Result<Vec<(&str, Plan<'_>)>, RunError> {
    bodies_of(node).map(|(name, body)| Ok((name, Plan::new(body)?))).collect()
}

fn bodies_of(node: &Node) -> impl Iterator<Item = (&str, &Graph)> {
    node.attributes.iter().filter_map(|(name, a)| match a {
        isotrace_graph::Attribute::Graph(g) => Some((name.as_str(), g.as_ref())),
        _ => None,
    })
}

/// Values in f64, as bounds are computed from.
fn wide(lookup: &dyn Fn(ValueId) -> Option<Tensor>) -> impl Fn(ValueId) -> Option<Tensor> {
    |v| lookup(v).map(|t| widen(&t, Precision::Float64))
}

fn widen(tensor: &Tensor, precision: Precision) -> Tensor {
    match precision {
        Precision::Float64 if tensor.dtype().is_float() => {
            tensor.cast(DType::F64).expect("every float type converts to f64")
        }
        _ => tensor.clone(),
    }
}

struct NodeBodies<'a, 'g> {
    plans: &'a [(&'g str, Plan<'g>)],
    lookup: &'a dyn Fn(ValueId) -> Option<Tensor>,
    precision: Precision,
}

impl Bodies for NodeBodies<'_, '_> {
    fn run(&self, name: &str, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, OpError> {
        let (_, plan) = self
            .plans
            .iter()
            .find(|(n, _)| *n == name)
            .ok_or_else(|| OpError::Setting(format!("the body {name:?} is missing")))?;
        let body = plan.graph;
        if inputs.len() != body.inputs.len() {
            let (found, expected) = (inputs.len(), body.inputs.len());
            return Err(OpError::Input(format!(
                "the body {name:?} takes {expected} inputs, {found} were given"
            )));
        }
        let mut values = vec![None; body.values.len()];
        for &(outer, inner) in &body.captures {
            values[inner.index()] = (self.lookup)(outer).map(|t| widen(&t, self.precision));
        }
        for (&id, tensor) in body.inputs.iter().zip(inputs) {
            values[id.index()] = Some(tensor);
        }
        let options = Options { precision: self.precision, keep: Keep::Outputs, ..Options::default() };
        // An error inside a body names the node there; it travels as a message.
        let run =
            plan.execute(values, &options).map_err(|e| OpError::Input(format!("in body {name:?}: {e}")))?;
        body.outputs
            .iter()
            .map(|&id| {
                run.get(id).cloned().ok_or_else(|| {
                    OpError::Input(format!(
                        "output {:?} of body {name:?} was not computed",
                        body.value(id).name
                    ))
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotrace_graph::Value;

    fn node(op: &str, inputs: &[u32], output: u32) -> Node {
        Node {
            name: String::new(),
            domain: String::new(),
            op: op.into(),
            version: 18,
            inputs: inputs.iter().map(|&i| Some(ValueId(i))).collect(),
            outputs: vec![Some(ValueId(output))],
            attributes: isotrace_graph::Attributes::default(),
        }
    }

    /// y = (x + c) * x with c = 1
    fn graph() -> Graph {
        let mut graph = Graph::default();
        for name in ["x", "c", "s", "y"] {
            graph.add_value(Value { name: name.into(), ..Value::default() });
        }
        graph.values[1].constant = Some(Tensor::scalar(1f32));
        graph.inputs = vec![ValueId(0)];
        graph.outputs = vec![ValueId(3)];
        graph.nodes = vec![node("Mul", &[2, 0], 3), node("Add", &[0, 1], 2)];
        graph.sort().unwrap();
        graph
    }

    #[test]
    fn runs_in_both_precisions_and_frees_what_is_not_kept() {
        let graph = graph();
        let plan = Plan::new(&graph).unwrap();
        let inputs = FxHashMap::from_iter([(ValueId(0), Tensor::vector(vec![2f32, 3.0]))]);
        let run = plan.run(&inputs, &Options { keep: Keep::Outputs, ..Options::default() }).unwrap();
        assert_eq!(run.get(ValueId(3)).unwrap().as_slice::<f32>().unwrap(), [6.0, 12.0]);
        assert!(run.get(ValueId(2)).is_none());
        let run =
            plan.run(&inputs, &Options { precision: Precision::Float64, ..Options::default() }).unwrap();
        assert_eq!(run.get(ValueId(3)).unwrap().as_slice::<f64>().unwrap(), [6.0, 12.0]);
    }

    #[test]
    fn errors_name_the_node_and_what_it_was_given() {
        let graph = graph();
        let plan = Plan::new(&graph).unwrap();
        let error = plan.run(&FxHashMap::default(), &Options::default()).unwrap_err();
        assert_eq!(error.to_string(), "input \"x\" was not given; the model needs \"x\"");
        let mut wrong = graph.clone();
        wrong.values[1].constant = Some(Tensor::from_vec(&[3], vec![1f32; 3]).unwrap());
        let inputs = FxHashMap::from_iter([(ValueId(0), Tensor::vector(vec![2f32, 3.0]))]);
        let error = Plan::new(&wrong).unwrap().run(&inputs, &Options::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "node \"s\" (Add) failed on inputs f32[2], f32[3]: shapes [2] and [3] cannot be broadcast together"
        );
    }
}
