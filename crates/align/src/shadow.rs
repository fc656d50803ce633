//! A network's float64 shadow: every value in f64, decisions taken from the declared run.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::{Decision, Precision};
use isotrace_run::{Plan, RunError};
use isotrace_tensor::{DType, Tensor};

use crate::Declared;
use crate::declared::missing;

/// The shadow, evaluated where somebody asks for it: what two networks compute alike, bit by bit, needs none.
pub struct Shadow<'g> {
    plan: Rc<Plan<'g>>,
    declared: Rc<Declared<'g>>,
    producers: Rc<[Option<NodeId>]>,
    values: Vec<OnceCell<Option<Tensor>>>,
    failure: RefCell<Option<RunError>>,
}

impl<'g> Shadow<'g> {
    pub(crate) fn new(
        plan: Rc<Plan<'g>>,
        declared: Rc<Declared<'g>>,
        producers: Rc<[Option<NodeId>]>,
    ) -> Self {
        let values = vec![OnceCell::new(); plan.graph().values.len()];
        Self { plan, declared, producers, values, failure: RefCell::default() }
    }

    /// A value in f64 (as it is where it holds no floats); `None` where it cannot be evaluated.
    pub fn get(&self, v: ValueId) -> Option<&Tensor> {
        if let Some(value) = self.values[v.index()].get() {
            return value.as_ref();
        }
        let known = |v: ValueId| self.values[v.index()].get().is_some();
        for node in missing(self.plan.graph(), &self.producers, v, known) {
            self.evaluate(node);
        }
        self.values[v.index()]
            .get_or_init(|| {
                let declared = self.declared.get(v)?;
                if declared.dtype().is_float() {
                    declared.cast(DType::F64).ok()
                } else {
                    Some(declared.clone())
                }
            })
            .as_ref()
    }

    /// A value as an evaluation reads it: what no node writes as it was given, which spares a copy of the weights in
    /// f64; everything else in f64.
    pub fn operand(&self, v: ValueId) -> Option<Tensor> {
        match self.producers[v.index()] {
            Some(_) => self.get(v).cloned(),
            None => self.declared.get(v).cloned(),
        }
    }

    /// As [`get`](Self::get), as a place.
    #[expect(clippy::ref_option, reason = "what `Index` hands out")]
    pub(crate) fn slot(&self, v: ValueId) -> &Option<Tensor> {
        self.get(v);
        self.values[v.index()].get().unwrap_or(&None)
    }

    /// Why a value could not be evaluated, where that happened.
    pub fn take_failure(&self) -> Option<RunError> {
        self.failure.borrow_mut().take()
    }

    fn evaluate(&self, id: NodeId) {
        let node = self.plan.graph().node(id);
        // What this node reads is known by now: `missing` lists nodes in execution order.
        let lookup = |v: ValueId| match self.producers[v.index()] {
            Some(_) => self.values[v.index()].get()?.clone(),
            None => self.declared.get(v).cloned(),
        };
        // What is computed with floats decides nothing, and may have been let go.
        let computes = self.plan.op(id).decision() == Decision::None;
        let decides = |v: &ValueId| !(computes && self.declared.is_float(*v));
        let decided = |v: Option<ValueId>| self.declared.get(v.filter(decides)?).cloned();
        let decided: Vec<Option<Tensor>> = node.outputs.iter().map(|v| decided(*v)).collect();
        let outputs = self.plan.evaluate(id, &lookup, Precision::Float64, Some(&decided));
        let outputs = outputs.unwrap_or_else(|error| {
            self.failure.borrow_mut().get_or_insert(error);
            Vec::new()
        });
        let mut outputs = outputs.into_iter();
        for v in &node.outputs {
            let output = outputs.next();
            if let Some(v) = v {
                let _ = self.values[v.index()].set(output);
            }
        }
    }
}
