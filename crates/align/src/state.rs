//! Resynchronised execution of B: a value that matches one of A is replaced by it before anything reads it.

use std::cell::OnceCell;
use std::ops::Index;
use std::rc::Rc;

use isotrace_graph::{Graph, NodeId, ValueId};
use isotrace_ops::{Decision, Precision};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;

use crate::judge::{Evidence, Judge};
use crate::narrow::cast_like;
use crate::opaque;
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

/// A float64 value of B.
#[derive(Clone)]
enum Slot {
    /// As B computed it, or not evaluated.
    Own(Option<Tensor>),
    /// A constant of B's file.
    Stored,
    /// One of the outputs of a node; evaluated where somebody asks for it.
    Later { call: Rc<Later>, output: usize },
    /// What A holds, in B's layout and type; evaluated where somebody asks for it.
    Theirs {
        a: ValueId,
        relation: Relation,
        shape: Vec<usize>,
        dtype: Option<DType>,
        value: OnceCell<Option<Tensor>>,
    },
}

/// A node of B on what stands in place of the values that it reads.
struct Later {
    node: NodeId,
    reads: Vec<(ValueId, Slot, Option<Tensor>)>,
    /// In declared precision: known, or evaluated again where somebody asks.
    declared: OnceCell<Vec<Option<Tensor>>>,
    outputs: OnceCell<Vec<Option<Tensor>>>,
}

/// float64 values by value of B.
#[derive(Clone)]
pub struct Values<'s, 'g> {
    slots: Vec<Slot>,
    a: &'s Side<'g>,
    b: &'s Side<'g>,
}

impl Index<usize> for Values<'_, '_> {
    type Output = Option<Tensor>;

    fn index(&self, i: usize) -> &Option<Tensor> {
        self.value(ValueId(i as u32), &self.slots[i])
    }
}

impl Values<'_, '_> {
    /// What a slot of `v` holds.
    #[expect(clippy::ref_option, reason = "what `Index` hands out")]
    fn value<'x>(&'x self, v: ValueId, slot: &'x Slot) -> &'x Option<Tensor> {
        match slot {
            Slot::Own(value) => value,
            Slot::Stored => self.b.shadow.slot(v),
            Slot::Later { call, output } => {
                let outputs = call.outputs.get_or_init(|| self.run(call));
                outputs.get(*output).unwrap_or(&None)
            }
            Slot::Theirs { a, relation, shape, dtype, value } => {
                value.get_or_init(|| in_type(relation.carry(self.a.shadow.get(*a)?, shape)?, *dtype))
            }
        }
    }
}

impl Values<'_, '_> {
    /// A value as an evaluation reads it: constants of the files as they were given, all else in f64.
    fn operand(&self, v: ValueId, slot: &Slot) -> Option<Tensor> {
        match slot {
            Slot::Stored => self.b.shadow.operand(v),
            Slot::Theirs { a, relation, shape, dtype, .. } if self.a.producer(*a).is_none() => {
                let theirs = relation.carry(&self.a.shadow.operand(*a)?, shape)?;
                // Floats as they were given.
                let float = theirs.dtype().is_float() && dtype.is_some_and(DType::is_float);
                if float { Some(theirs) } else { in_type(theirs, *dtype) }
            }
            _ => self.value(v, slot).clone(),
        }
    }

    fn run(&self, call: &Later) -> Vec<Option<Tensor>> {
        let read = |v: ValueId| {
            let (_, slot, _) = call.reads.iter().find(|(r, ..)| *r == v)?;
            self.operand(v, slot)
        };
        let decides = self.b.plan.op(call.node).decision() != Decision::None;
        let decided = decides.then(|| self.declared(call));
        let outputs = self.b.plan.evaluate(call.node, &read, Precision::Float64, decided.map(Vec::as_slice));
        outputs.unwrap_or_default().into_iter().map(Some).collect()
    }

    fn declared<'x>(&self, call: &'x Later) -> &'x Vec<Option<Tensor>> {
        call.declared.get_or_init(|| {
            let read = |v: ValueId| call.reads.iter().find(|(r, ..)| *r == v)?.2.clone();
            let outputs = self.b.plan.evaluate(call.node, &read, Precision::Declared, None);
            outputs.unwrap_or_default().into_iter().map(Some).collect()
        })
    }

    fn put(&mut self, v: ValueId, value: Option<Tensor>) {
        self.slots[v.index()] = Slot::Own(value);
    }

    fn put_theirs(&mut self, v: ValueId, m: &Match, shape: &[usize], dtype: Option<DType>) {
        let (a, relation, shape) = (m.a, m.relation.clone(), shape.to_vec());
        self.slots[v.index()] = Slot::Theirs { a, relation, shape, dtype, value: OnceCell::new() };
    }
}

/// A value of A's shadow in the type that B's has: equal numbers may be counted in 32 bits on one side and in 64 on the
/// other, and an operator of B takes its own alone.
fn in_type(theirs: Tensor, dtype: Option<DType>) -> Option<Tensor> {
    match dtype {
        Some(dtype) if dtype != theirs.dtype() => theirs.cast(dtype).ok(),
        _ => Some(theirs),
    }
}

/// B's values during resynchronised execution.
#[derive(Clone)]
pub struct State<'s, 'g> {
    /// Partners, by value of B.
    pub matched: Vec<Option<Match>>,
    /// float64 values; A's where matched.
    pub shadow: Values<'s, 'g>,
    /// Values in declared precision; A's where matched.
    pub declared: Vec<Option<Tensor>>,
    /// float64 values as B computed them, before A's was put in.
    pub own_shadow: Values<'s, 'g>,
    /// Declared values as B computed them, before A's was put in; of what folded weights made, only what makes them.
    own_declared: Vec<Option<Tensor>>,
    /// Values whose declared form was left B's own: they are stored more narrowly than their partner.
    pub narrowed: Vec<bool>,
    /// Values of which no partner was looked for yet: what their one reader makes of them has one, or it is done then.
    pub put_off: Vec<bool>,
    /// Whether some value of B matches this value of A.
    pub a_matched: Vec<bool>,
}

/// What is put into B besides what matches.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Values of B that take A's value whatever they compute: confirmed substitutions.
    pub substitutions: FxHashMap<ValueId, Match>,
    /// Nodes of B that compute something else: faults undone.
    pub patches: FxHashMap<NodeId, Vec<Patch>>,
}

impl Changes {
    /// Has a node of B compute something else besides what was changed before.
    pub fn patch(&mut self, node: NodeId, patch: Patch) {
        self.patches.entry(node).or_default().push(patch);
    }

    /// Whether a node and what it writes are as the graph has them.
    fn is_free(&self, graph: &Graph, id: NodeId) -> bool {
        self.patches.get(&id).is_none_or(|made| made.is_empty())
            && !graph.node(id).writes().any(|v| self.substitutions.contains_key(&v))
    }

    /// Whether a change made before leaves no room for `patch`.
    pub fn exclude(&self, node: NodeId, patch: &Patch) -> bool {
        self.patches.get(&node).is_some_and(|made| made.iter().any(|p| p.excludes(patch)))
    }
}

impl<'s, 'g> State<'s, 'g> {
    /// Nothing executed yet.
    pub fn new(a: &'s Side<'g>, b: &'s Side<'g>) -> Self {
        let n = b.graph().values.len();
        let values = Values { slots: vec![Slot::Own(None); n], a, b };
        Self {
            matched: vec![None; n],
            shadow: values.clone(),
            declared: vec![None; n],
            own_shadow: values,
            own_declared: vec![None; n],
            narrowed: vec![false; n],
            put_off: vec![false; n],
            a_matched: vec![false; a.graph().values.len()],
        }
    }

    /// A declared value as B computed it, before A's was put in.
    pub fn own_declared(&self, v: ValueId) -> Option<&Tensor> {
        match (&self.own_declared[v.index()], &self.own_shadow.slots[v.index()]) {
            (None, Slot::Later { call, output }) => self.own_shadow.declared(call).get(*output)?.as_ref(),
            (known, _) => known.as_ref(),
        }
    }

    /// Whether B computed the bits of `theirs`, which its partner holds in its layout.
    pub fn made_bits(&self, v: ValueId, theirs: &Tensor) -> bool {
        match self.matched[v.index()].as_ref().map(|m| m.evidence) {
            Some(Evidence::Folded(found)) => found.difference == 0.0,
            _ => self.own_declared(v).is_some_and(|own| own.bit_eq(theirs)),
        }
    }

    /// Whether B's value was matched or put in.
    pub fn is_matched(&self, v: ValueId) -> bool {
        self.matched[v.index()].is_some()
    }

    /// Puts what B computed for a value in place, where nothing of A's belongs there.
    fn put(&mut self, v: ValueId, shadow: Option<Tensor>, declared: Option<Tensor>) {
        self.matched[v.index()] = None;
        self.narrowed[v.index()] = false;
        self.put_off[v.index()] = false;
        self.shadow.put(v, shadow.clone());
        self.own_shadow.put(v, shadow);
        self.declared[v.index()].clone_from(&declared);
        self.own_declared[v.index()] = declared;
    }

    /// Takes A's float64 value out again.
    pub(crate) fn show_own(&mut self, v: ValueId) {
        self.shadow.slots[v.index()] = self.own_shadow.slots[v.index()].clone();
    }

    /// Puts A's value in place of what B computed (`None`: the same as A, bit by bit).
    pub(crate) fn set(
        &mut self,
        judge: &Judge<'_, '_>,
        v: ValueId,
        m: Match,
        shadow: Option<Tensor>,
        declared: Option<Tensor>,
    ) {
        let i = v.index();
        let shape = shadow.as_ref().or(declared.as_ref()).map(|t| t.shape().to_vec()).unwrap_or_default();
        let dtype = shadow.as_ref().or(declared.as_ref()).map(|t| Precision::Float64.resolve(t.dtype()));
        let fits = judge.a.declared.get(m.a).is_some_and(|t| m.relation.fits(t.shape(), &shape));
        match &shadow {
            _ if fits => self.shadow.put_theirs(v, &m, &shape, dtype),
            Some(own) => self.shadow.put(v, Some(own.clone())),
            None => {}
        }
        match shadow {
            Some(own) => self.own_shadow.put(v, Some(own)),
            None => self.own_shadow.put_theirs(v, &m, &shape, dtype),
        }
        self.own_declared[i].clone_from(&declared);
        self.declared[i] = declared;
        self.narrowed[i] = false;
        self.put_off[i] = false;
        self.a_matched[m.a.index()] = true;
        let theirs = judge.a.declared.get(m.a).and_then(|t| m.relation.carry(t, &shape));
        if let (Some(theirs), Some(own)) = (theirs, &self.own_declared[i]) {
            if judge.narrows(own.dtype(), theirs.dtype()) {
                // Putting the wide value in would undo the rounding that has to be judged where it is widened.
                self.narrowed[i] = true;
            } else if let Some(cast) = cast_like(&theirs, own) {
                self.declared[i] = Some(cast);
            }
        }
        self.matched[i] = Some(m);
    }

    /// Executes B from its inputs and constants on. `inputs` pairs values of B with values of A.
    pub fn execute(judge: &Judge<'s, 'g>, inputs: &[(ValueId, ValueId)], changes: &Changes) -> Self {
        let mut state = Self::new(judge.a, judge.b);
        let graph = judge.b.graph();
        for &(b, a) in inputs {
            let declared = judge.b.declared.get(b).cloned();
            let found = Match { a, relation: Relation::Same, evidence: Evidence::Bits, degenerate: false };
            state.set(judge, b, found, None, declared);
        }
        // What only B is given has no partner.
        for &v in graph.inputs.iter().filter(|&v| !inputs.iter().any(|(b, _)| b == v)) {
            state.put(v, judge.b.shadow.get(v).cloned(), judge.b.declared.get(v).cloned());
        }
        for v in graph.value_ids().filter(|&v| graph.value(v).constant.is_some()) {
            let declared = judge.b.declared.get(v).cloned();
            let found = changes.substitutions.get(&v).cloned();
            let found = found.or_else(|| judge.same_constant(v));
            state.put(v, None, declared.clone());
            state.shadow.slots[v.index()] = Slot::Stored;
            let found = found.or_else(|| judge.find(&state, v, &judge.b.shadow.operand(v)?));
            if let Some(m) = found {
                state.set(judge, v, m, None, declared);
            }
            state.own_shadow.slots[v.index()] = Slot::Stored;
        }
        for id in graph.node_ids() {
            if !judge.goes_on(id.index()) {
                break;
            }
            state.step(judge, id, changes);
        }
        state
    }

    /// Executes one node and looks for partners of its outputs.
    pub(crate) fn step(&mut self, judge: &Judge<'_, '_>, id: NodeId, changes: &Changes) {
        let graph = judge.b.graph();
        if graph.node(id).reads().any(|v| self.put_off[v.index()]) {
            if changes.is_free(graph, id)
                && let Some(known) = self.declared_outputs(judge, id)
                && (self.match_bits(judge, id, &known)
                    || self.match_folded(judge, id, &known)
                    || self.put_off(judge, id, &known))
            {
                return;
            }
            self.make_up(judge, id, changes);
        }
        self.settle(judge, id, changes, true);
    }

    /// Looks for partners of what was put off and `id` reads.
    fn make_up(&mut self, judge: &Judge<'_, '_>, id: NodeId, changes: &Changes) {
        let graph = judge.b.graph();
        let behind = graph.node(id).reads().filter(|v| self.put_off[v.index()]);
        let behind: Vec<NodeId> = behind.filter_map(|v| judge.b.producer(v)).collect();
        for id in behind {
            self.make_up(judge, id, changes);
            self.settle(judge, id, changes, false);
        }
    }

    /// Executes one node on values that were settled before; `may_wait` says whether its outputs need not be.
    fn settle(&mut self, judge: &Judge<'_, '_>, id: NodeId, changes: &Changes, may_wait: bool) {
        let node = judge.b.graph().node(id);
        let patches = changes.patches.get(&id).map_or(&[][..], Vec::as_slice);
        let free = changes.is_free(judge.b.graph(), id);
        let unknown = judge.b.plan.op(id).is_opaque();
        let decides = judge.decides(id);
        if free
            && let Some(twin) = judge.twin(self, id)
            && !(unknown && opaque::contradict((judge.a, twin), (judge.b, id)))
        {
            // The same call on the same bits: computing it again would show nothing.
            let theirs = judge.a.graph().node(twin);
            for (b, a) in node.outputs.iter().zip(&theirs.outputs) {
                let (Some(b), Some(a)) = (*b, *a) else { continue };
                let degenerate = judge.index.is_degenerate(judge.a, a);
                let found = Match { a, relation: Relation::Same, evidence: Evidence::Bits, degenerate };
                let theirs = judge.a.declared.get(a);
                // What decides reads B's narrower copies of A's values; all else of A's stays as wide as A has it.
                // B's own is asked for nowhere else: where it was let go it would be computed again.
                let own = if unknown || decides { judge.b.declared.get(b) } else { None };
                let declared = own.and_then(|own| cast_like(theirs?, own)).or_else(|| theirs.cloned());
                self.set(judge, b, found, None, declared);
            }
            return;
        }
        let known = if patches.is_empty() { self.declared_outputs(judge, id) } else { None };
        if free
            && let Some(known) = &known
            && (self.match_bits(judge, id, known)
                || self.match_folded(judge, id, known)
                || may_wait && self.put_off(judge, id, known))
        {
            return;
        }
        let (shadow, declared) = self.compute(judge, id, patches, known);
        for (i, v) in node.outputs.iter().enumerate() {
            let Some(v) = *v else { continue };
            let declared = declared.as_ref().and_then(|d| d.get(i).cloned());
            let Some(value) = shadow.as_ref().and_then(|s| s.get(i).cloned()) else {
                self.own_declared[v.index()].clone_from(&declared);
                self.declared[v.index()] = declared;
                continue;
            };
            // What this node computed must be in place for the judgement of its own region.
            self.put(v, Some(value.clone()), declared.clone());
            let found = match changes.substitutions.get(&v) {
                Some(m) => Some(m.clone()),
                None => judge.find(self, v, &value).or_else(|| judge.find_on_borders(self, v, &value)),
            };
            if let Some(m) = found {
                self.set(judge, v, m, Some(value), declared);
            }
        }
    }

    /// A value in place as an evaluation reads it: constants of the files as they were given, all else in f64.
    pub fn operand(&self, v: ValueId) -> Option<Tensor> {
        self.shadow.operand(v, &self.shadow.slots[v.index()])
    }

    /// A value's state, to be put back by [`restore`](Self::restore).
    pub(crate) fn save(&self, v: ValueId) -> Saved {
        let i = v.index();
        Saved {
            matched: self.matched[i].clone(),
            shadow: self.shadow.slots[i].clone(),
            own_shadow: self.own_shadow.slots[i].clone(),
            declared: self.declared[i].clone(),
            own_declared: self.own_declared[i].clone(),
            narrowed: self.narrowed[i],
            put_off: self.put_off[i],
        }
    }

    /// Puts a value's state back.
    pub(crate) fn restore(&mut self, v: ValueId, saved: Saved) {
        let i = v.index();
        self.matched[i] = saved.matched;
        self.shadow.slots[i] = saved.shadow;
        self.own_shadow.slots[i] = saved.own_shadow;
        self.declared[i] = saved.declared;
        self.own_declared[i] = saved.own_declared;
        self.narrowed[i] = saved.narrowed;
        self.put_off[i] = saved.put_off;
    }

    /// Puts partners in place of all that a node writes, where all are told by their declared bits alone.
    fn match_bits(&mut self, judge: &Judge<'_, '_>, id: NodeId, declared: &[Tensor]) -> bool {
        let named =
            judge.b.graph().node(id).outputs.iter().zip(declared).filter_map(|(v, t)| Some(((*v)?, t)));
        let found = named.map(|(v, t)| Some((v, judge.find_bits(self, v, t)?, t.clone())));
        let Some(found) = found.collect::<Option<Vec<_>>>() else { return false };
        for (v, m, declared) in found {
            self.set(judge, v, m, None, Some(declared));
        }
        true
    }

    /// Puts partners in place of all that a node writes, where folded weights alone keep the declared values apart.
    fn match_folded(&mut self, judge: &Judge<'_, '_>, id: NodeId, declared: &[Tensor]) -> bool {
        let node = judge.b.graph().node(id);
        let named: Vec<(usize, ValueId)> =
            node.outputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))).collect();
        let found = named.iter().map(|&(i, v)| judge.find_folded(self, id, v, declared.get(i)?));
        let Some(found) = found.collect::<Option<Vec<Match>>>() else { return false };
        let call = self.later(judge, id);
        for ((output, v), m) in named.into_iter().zip(found) {
            self.set(judge, v, m, None, Some(declared[output].clone()));
            self.own_shadow.slots[v.index()] = Slot::Later { call: Rc::clone(&call), output };
            // Hardly ever asked for again: its memory is the next value's.
            self.own_declared[v.index()] = None;
        }
        true
    }

    /// Leaves what a node writes without a partner until its reader is executed, where that has one or folded weights may be
    /// why it resembles nothing.
    fn put_off(&mut self, judge: &Judge<'_, '_>, id: NodeId, declared: &[Tensor]) -> bool {
        let ([Some(v)], [own]) = (&judge.b.graph().node(id).outputs[..], declared) else { return false };
        if !judge.may_put_off(self, id, *v, own) && !judge.comes_to_bits(self, *v, own) {
            return false;
        }
        let call = self.later(judge, id);
        let _ = call.declared.set(vec![Some(own.clone())]);
        self.put(*v, None, Some(own.clone()));
        for shadow in [&mut self.shadow, &mut self.own_shadow] {
            shadow.slots[v.index()] = Slot::Later { call: Rc::clone(&call), output: 0 };
        }
        self.put_off[v.index()] = true;
        true
    }

    /// A node on what stands in place now, to be evaluated where somebody asks.
    fn later(&self, judge: &Judge<'_, '_>, id: NodeId) -> Rc<Later> {
        let held = |v: ValueId| (v, self.shadow.slots[v.index()].clone(), self.declared[v.index()].clone());
        Rc::new(Later {
            node: id,
            reads: judge.b.graph().node(id).reads().map(held).collect(),
            declared: OnceCell::new(),
            outputs: OnceCell::new(),
        })
    }

    /// A node's outputs on the values in place, in declared precision; `None` where that cannot be.
    fn declared_outputs(&self, judge: &Judge<'_, '_>, id: NodeId) -> Option<Vec<Tensor>> {
        let node = judge.b.graph().node(id);
        // What nobody here knows gave what was recorded, whatever takes the place of what it read. Else it does on the
        // bits of B's free run what it did there.
        let ran = |v: ValueId| judge.b.declared.at_hand(v);
        let free =
            |v: ValueId| matches!((&self.declared[v.index()], ran(v)), (Some(x), Some(y)) if x.bit_eq(y));
        if judge.b.plan.op(id).is_opaque() || node.reads().all(free) {
            let ran = node.outputs.iter().map(|v| v.and_then(|v| judge.b.declared.get(v).cloned()));
            if let Some(ran) = ran.collect() {
                return Some(ran);
            }
        }
        let declared = |v: ValueId| self.declared[v.index()].clone();
        if !node.reads().all(|v| declared(v).is_some()) {
            return None;
        }
        judge.b.plan.evaluate(id, &declared, Precision::Declared, None).ok()
    }

    /// A node's outputs on the values in place, in float64 and declared (which may be `known`); `None` where an input
    /// was not evaluated or the operator cannot work on what a fault left (NaN cast to an index).
    fn compute(
        &self,
        judge: &Judge<'_, '_>,
        id: NodeId,
        patches: &[Patch],
        known: Option<Vec<Tensor>>,
    ) -> (Option<Vec<Tensor>>, Option<Vec<Tensor>>) {
        let declared = |v: ValueId| self.declared[v.index()].clone();
        let shadow = |v: ValueId| self.operand(v);
        compute(judge.b, id, patches, &declared, &shadow, known)
    }
}

/// Everything a [`State`] holds of one value.
pub(crate) struct Saved {
    matched: Option<Match>,
    shadow: Slot,
    own_shadow: Slot,
    declared: Option<Tensor>,
    own_declared: Option<Tensor>,
    narrowed: bool,
    put_off: bool,
}

/// A node's outputs in float64 and in declared precision on given values; the latter may be `known`.
fn compute(
    side: &Side<'_>,
    id: NodeId,
    patches: &[Patch],
    declared: &dyn Fn(ValueId) -> Option<Tensor>,
    shadow: &dyn Fn(ValueId) -> Option<Tensor>,
    known: Option<Vec<Tensor>>,
) -> (Option<Vec<Tensor>>, Option<Vec<Tensor>>) {
    let call = |patch: &Patch| {
        let low = patch.evaluate(Precision::Declared, declared, None);
        let high = patch.evaluate(Precision::Float64, shadow, low.as_deref());
        (high, low)
    };
    if let [patch] = patches
        && patch.only().is_none()
    {
        return call(patch);
    }
    let node = side.graph().node(id);
    let present = |lookup: &dyn Fn(ValueId) -> Option<Tensor>| node.reads().all(|v| lookup(v).is_some());
    let low = if known.is_some() {
        known
    } else if present(declared) {
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
    let mut all = (high, low);
    for patch in patches {
        let slot = patch.only().unwrap_or(0);
        let (high, low) = call(patch);
        for (all, one) in [(&mut all.0, high), (&mut all.1, low)] {
            let first = one.and_then(|outputs| outputs.into_iter().next());
            match (all.as_mut().and_then(|all| all.get_mut(slot)), first) {
                (Some(place), Some(first)) => *place = first,
                _ => *all = None,
            }
        }
    }
    all
}
