//! Resynchronised execution of B: a value that matches one of A is replaced by it before anything reads it.

use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::Precision;
use isotrace_tensor::Tensor;
use rustc_hash::FxHashMap;

use crate::judge::{Evidence, Judge};
use crate::patch::Patch;
use crate::{Relation, Side};

/// The partner of a value of B.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// The value of A.
    pub a: ValueId,
    /// How B's value follows from it.
    pub relation: Relation,
    /// On what ground.
    pub evidence: Evidence,
    /// Whether the equality says nothing (constant, few distinct numbers): it may close a region, never open one.
    pub degenerate: bool,
}

/// B's values during resynchronised execution.
#[derive(Clone)]
pub struct State {
    /// Partners, by value of B.
    pub matched: Vec<Option<Match>>,
    /// float64 values; A's where matched.
    pub shadow: Vec<Option<Tensor>>,
    /// Values in declared precision; A's where matched.
    pub declared: Vec<Option<Tensor>>,
    /// float64 values as B computed them, before A's was put in.
    pub own_shadow: Vec<Option<Tensor>>,
    /// Declared values as B computed them, before A's was put in.
    pub own_declared: Vec<Option<Tensor>>,
    /// Values whose declared form was left B's own: they are stored more narrowly than their partner.
    pub narrowed: Vec<bool>,
    /// Whether some value of B matches this value of A.
    pub a_matched: Vec<bool>,
}

/// What is put into B besides what matches.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Values of B that take A's value whatever they compute: confirmed substitutions.
    pub substitutions: FxHashMap<ValueId, Match>,
    /// Nodes of B that compute something else: faults undone.
    pub patches: FxHashMap<NodeId, Patch>,
}

impl State {
    /// Nothing executed yet.
    pub fn new(a: &Side<'_>, b: &Side<'_>) -> Self {
        let n = b.graph().values.len();
        Self {
            matched: vec![None; n],
            shadow: vec![None; n],
            declared: vec![None; n],
            own_shadow: vec![None; n],
            own_declared: vec![None; n],
            narrowed: vec![false; n],
            a_matched: vec![false; a.graph().values.len()],
        }
    }

    /// Whether B's value was matched or put in.
    pub fn is_matched(&self, v: ValueId) -> bool {
        self.matched[v.index()].is_some()
    }

    /// Puts what B computed for a value in place, or A's where a partner was found.
    pub(crate) fn set(
        &mut self,
        judge: &Judge<'_, '_>,
        v: ValueId,
        found: Option<Match>,
        shadow: Tensor,
        declared: Option<Tensor>,
    ) {
        self.own_shadow[v.index()] = Some(shadow.clone());
        self.own_declared[v.index()].clone_from(&declared);
        self.narrowed[v.index()] = false;
        let (mut shadow, mut declared) = (Some(shadow), declared);
        if let Some(m) = &found {
            self.a_matched[m.a.index()] = true;
            let shape = shadow.as_ref().map(|t| t.shape().to_vec()).unwrap_or_default();
            if let Some(theirs) = judge.a.shadow.get(m.a).and_then(|t| m.relation.carry(t, &shape)) {
                shadow = Some(theirs);
            }
            let theirs = judge.a.declared.get(m.a).and_then(|t| m.relation.carry(t, &shape));
            if let (Some(theirs), Some(own)) = (theirs, &declared) {
                if judge.narrows(own.dtype(), theirs.dtype()) {
                    // Putting the wide value in would undo the rounding that has to be judged where it is widened.
                    self.narrowed[v.index()] = true;
                } else if let Ok(cast) = theirs.cast(own.dtype()) {
                    declared = Some(cast);
                }
            }
        }
        self.shadow[v.index()] = shadow;
        self.declared[v.index()] = declared;
        self.matched[v.index()] = found;
    }

    /// Executes B from its inputs and constants on. `inputs` pairs values of B with values of A.
    pub fn execute(judge: &Judge<'_, '_>, inputs: &[(ValueId, ValueId)], changes: &Changes) -> Self {
        let mut state = Self::new(judge.a, judge.b);
        let graph = judge.b.graph();
        for &(b, a) in inputs {
            let Some(theirs) = judge.a.shadow.get(a).cloned() else { continue };
            let declared = judge.b.declared.get(b).cloned();
            let found = Match { a, relation: Relation::Same, evidence: Evidence::Bits, degenerate: false };
            state.set(judge, b, Some(found), theirs, declared);
        }
        for v in graph.value_ids().filter(|&v| graph.value(v).constant.is_some()) {
            let Some(shadow) = judge.b.shadow.get(v).cloned() else { continue };
            let found = match changes.substitutions.get(&v) {
                Some(m) => Some(m.clone()),
                None => judge.find(&state, v, &shadow),
            };
            state.set(judge, v, found, shadow, judge.b.declared.get(v).cloned());
        }
        for id in graph.node_ids() {
            state.step(judge, id, changes);
        }
        state
    }

    /// Executes one node and looks for partners of its outputs.
    pub(crate) fn step(&mut self, judge: &Judge<'_, '_>, id: NodeId, changes: &Changes) {
        let node = judge.b.graph().node(id);
        let patch = changes.patches.get(&id);
        if patch.is_none()
            && !node.writes().any(|v| changes.substitutions.contains_key(&v))
            && let Some(twin) = judge.twin(self, id)
        {
            // The same call on the same bits: computing it again would show nothing.
            let theirs = judge.a.graph().node(twin);
            for (b, a) in node.outputs.iter().zip(&theirs.outputs) {
                let (Some(b), Some(a)) = (*b, *a) else { continue };
                let Some(shadow) = judge.a.shadow.get(a).cloned() else { continue };
                let degenerate = judge.index.signature(a).is_none_or(|s| s.degenerate);
                let found = Match { a, relation: Relation::Same, evidence: Evidence::Bits, degenerate };
                self.set(judge, b, Some(found), shadow, judge.a.declared.get(a).cloned());
            }
            return;
        }
        let (shadow, declared) = self.compute(judge, id, patch);
        for (i, v) in node.outputs.iter().enumerate() {
            let Some(v) = *v else { continue };
            let declared = declared.as_ref().and_then(|d| d.get(i).cloned());
            let Some(value) = shadow.as_ref().and_then(|s| s.get(i).cloned()) else {
                self.own_declared[v.index()].clone_from(&declared);
                self.declared[v.index()] = declared;
                continue;
            };
            // What this node computed must be in place for the judgement of its own region.
            self.shadow[v.index()] = Some(value.clone());
            self.declared[v.index()].clone_from(&declared);
            let found = match changes.substitutions.get(&v) {
                Some(m) => Some(m.clone()),
                None => judge.find(self, v, &value),
            };
            self.set(judge, v, found, value, declared);
        }
    }

    /// A node's outputs on the values in place, in float64 and declared; `None` where an input was not evaluated
    /// or the operator cannot work on what a fault left (NaN cast to an index).
    pub fn compute(
        &self,
        judge: &Judge<'_, '_>,
        id: NodeId,
        patch: Option<&Patch>,
    ) -> (Option<Vec<Tensor>>, Option<Vec<Tensor>>) {
        let declared = |v: ValueId| self.declared[v.index()].clone();
        let shadow = |v: ValueId| self.shadow[v.index()].clone();
        compute(judge.b, id, patch, &declared, &shadow)
    }
}

/// A node's outputs in float64 and in declared precision on given values.
pub fn compute(
    side: &Side<'_>,
    id: NodeId,
    patch: Option<&Patch>,
    declared: &dyn Fn(ValueId) -> Option<Tensor>,
    shadow: &dyn Fn(ValueId) -> Option<Tensor>,
) -> (Option<Vec<Tensor>>, Option<Vec<Tensor>>) {
    if let Some(patch) = patch {
        let low = patch.evaluate(Precision::Declared, declared, None);
        let high = patch.evaluate(Precision::Float64, shadow, low.as_deref());
        return (high, low);
    }
    let node = side.graph().node(id);
    let present = |lookup: &dyn Fn(ValueId) -> Option<Tensor>| node.reads().all(|v| lookup(v).is_some());
    let low = if present(declared) {
        side.plan.evaluate(id, declared, Precision::Declared, None).ok()
    } else {
        None
    };
    let decided: Vec<Option<Tensor>> =
        (0..node.outputs.len()).map(|i| low.as_ref().and_then(|l| l.get(i).cloned())).collect();
    let high = if present(shadow) {
        side.plan.evaluate(id, shadow, Precision::Float64, Some(&decided)).ok()
    } else {
        None
    };
    (high, low)
}
