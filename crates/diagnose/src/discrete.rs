//! Decisions that rounding tips: the same operator on inputs that only rounding has moved apart rounds up on one side
//! and down on the other, picks another arg-max, sends a token to another expert.
//!
//! Nobody is at fault, and B is judged with A's decision in place; yet what follows is apart by a whole step, which no
//! budget of rounding explains. So it is told where the two free runs part, once for each decision that nothing tipped
//! before it.

use std::cell::OnceCell;

use isotrace_align::narrow::cast_like;
use isotrace_align::{Evidence, Judge, State};
use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::Decision;
use isotrace_report::Warning;
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashSet;

/// Decisions of one node of B that fell otherwise than those of its partner in A.
pub struct Tipped {
    /// How many.
    pub count: usize,
    of: usize,
    node: NodeId,
    value: ValueId,
    /// The largest difference of the inputs.
    margin: f64,
}

/// The first decisions that fall otherwise in B's free run than in A's, and alike on the same inputs.
pub fn tipped(judge: &Judge<'_, '_>, state: &State<'_, '_>) -> Vec<Tipped> {
    let graph = judge.b.graph();
    let mut behind: FxHashSet<ValueId> = FxHashSet::default();
    let mut found = Vec::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        let mut follows = node.reads().any(|v| behind.contains(&v));
        // What is no float is decided, whichever operator made it.
        let whole = |v: &ValueId| judge.b.declared.dtype(*v).is_some_and(|d| !d.is_float());
        let op = judge.b.plan.op(id);
        // An unknown call is taken as it was recorded, which decides nothing.
        let decision = if op.is_opaque() { Decision::None } else { op.decision() };
        let decided: Vec<ValueId> = match decision {
            Decision::None => node.writes().filter(whole).collect(),
            Decision::Outputs => node.outputs.first().copied().flatten().into_iter().collect(),
            Decision::Picks { .. } => node.outputs.get(1).copied().flatten().into_iter().collect(),
            Decision::Inside => node.writes().collect(),
        };
        let tips = || decided.iter().find_map(|&v| differing(judge, state, id, v).map(|found| (v, found)));
        if !follows
            && let Some((value, (count, of))) = tips()
            && let Some(margin) = margin(judge, state, id, value)
        {
            follows = true;
            found.push(Tipped { count, of, node: id, value, margin });
        }
        if follows {
            behind.extend(node.writes());
        }
    }
    found
}

/// How many elements of a decision differ between the free runs, and of how many, where B decides as A on A's inputs.
fn differing(judge: &Judge<'_, '_>, state: &State<'_, '_>, id: NodeId, v: ValueId) -> Option<(usize, usize)> {
    let m = state.matched[v.index()].as_ref()?;
    let free = judge.b.declared.get(v)?;
    let theirs = m.relation.carry(judge.a.declared.get(m.a)?, free.shape())?;
    let theirs = cast_like(&theirs, free)?;
    let alike = state.made_bits(v, &theirs) || m.evidence == Evidence::Border;
    if !alike || free.bit_eq(&theirs) {
        return None;
    }
    if judge.b.plan.op(id).decision() == Decision::Inside && free.dtype().is_float() {
        return stepped(judge, id, v, free, &theirs);
    }
    if let (Ok(free), Ok(theirs)) = (free.as_strings(), theirs.as_strings()) {
        return Some((free.iter().zip(theirs).filter(|(x, y)| x != y).count(), free.len()));
    }
    let size = free.dtype().size();
    let elements = |t: &Tensor| t.raw_bytes().len().checked_div(size);
    let of = elements(free).filter(|n| *n > 0 && elements(&theirs) == Some(*n))?;
    let pairs = free.raw_bytes().chunks(size).zip(theirs.raw_bytes().chunks(size));
    Some((pairs.filter(|(x, y)| x != y).count(), of))
}

/// As [`differing`], of what follows from decisions that the operator keeps to itself: elements that are further apart than
/// its own rounding takes them.
fn stepped(
    judge: &Judge<'_, '_>,
    id: NodeId,
    v: ValueId,
    free: &Tensor,
    theirs: &Tensor,
) -> Option<(usize, usize)> {
    let index = judge.b.graph().node(id).outputs.iter().position(|&o| o == Some(v))?;
    let lookup = |v: ValueId| judge.b.declared.get(v).cloned();
    let (unit, wide) = (judge.b.unit(), free.cast(DType::F64).ok()?);
    let allowed = judge.b.plan.budget(id, &lookup, index, &wide, unit, &OnceCell::new()).ok()?;
    let (x, y) = (wide.to_f64().ok()?, theirs.to_f64().ok()?);
    let apart = x.iter().zip(y.iter()).zip(&allowed).filter(|((x, y), e)| (*x - *y).abs() > 2.0 * **e);
    Some((apart.count(), x.len())).filter(|found| found.0 > 0)
}

/// How far apart the free runs are at the float inputs of a node of B; `None` where one has no partner. What was found to
/// lie on a border was made of the same integers.
fn margin(judge: &Judge<'_, '_>, state: &State<'_, '_>, id: NodeId, decided: ValueId) -> Option<f64> {
    if state.matched[decided.index()].as_ref().is_some_and(|m| m.evidence == Evidence::Border) {
        return Some(0.0);
    }
    let mut largest = 0f64;
    for v in judge.b.dynamic_inputs(id) {
        let m = state.matched[v.index()].as_ref()?;
        let own = judge.b.declared.get(v)?;
        if own.dtype().is_float() {
            let theirs = m.relation.carry(judge.a.declared.get(m.a)?, own.shape())?;
            largest = largest.max(isotrace_compare::compare(&theirs, own).ok()?.max_abs);
        }
    }
    Some(largest)
}

impl Tipped {
    /// As the report tells it.
    pub fn warning(&self, judge: &Judge<'_, '_>) -> Warning {
        let graph = judge.b.graph();
        let (node, label) = (graph.node(self.node), graph.label(self.node));
        let Self { count, of, margin, .. } = self;
        let falls = if *count == 1 { "decision falls" } else { "decisions fall" };
        Warning {
            class: "discrete".into(),
            summary: format!(
                "{count} of the {of} {falls} otherwise at {} {label:?}: the inputs of the two sides are {margin:.1e} apart, \
                 which rounding explains, and lie on the border; what follows was judged with A's decisions, and on \
                 B's own it is apart by more than rounding",
                node.qualified_op()
            ),
            place: vec![graph.value(self.value).name.clone()],
        }
    }
}
