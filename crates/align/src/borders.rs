//! Steps of a grid that one side takes in one operator and the other off the grid and onto it again.
//!
//! A mean of four whole numbers lies on the border between two steps as often as not, and what rounding the way there has
//! decides. The same call decides alike on the same values; an operator that is fused on one side alone, on values of
//! its own, does not. Such a step is nobody's fault where the value before it lies on the border, as far as f32 can
//! tell, and the two sides took the two steps beside it.

use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::Decision;
use isotrace_ops::budget::Unit;
use isotrace_tensor::{DType, Tensor};

use crate::judge::{Evidence, Judge};
use crate::region::{Region, Rounding, error};
use crate::state::{Match, State};
use crate::{Relation, Side};

/// Nodes between values in place and a step onto a grid, both included.
const MOST_STEPS: usize = 3;
/// Values looked at on the way there.
const MOST_SEEN: usize = 48;
/// Nodes of a region that takes numbers off their grid and puts what it makes of them onto one.
const MOST_NODES: usize = 12;
/// Steps on borders among all, as one of so many: of what is mostly apart nothing is known.
const MOST_APART: usize = 4;

impl Judge<'_, '_> {
    /// The partner of integers that B computed as `value`, which differ from A's by steps that lie on their borders.
    pub(crate) fn find_on_borders(&self, state: &State, v: ValueId, value: &Tensor) -> Option<Match> {
        if !matches!(value.dtype(), DType::I8 | DType::U8) || self.b.is_constant(v) || self.b.is_recorded() {
            return None;
        }
        let id = self.b.producer(v)?;
        let fused = is_fused(self.b, id);
        if !fused && !quantises(self.b, id) {
            return None;
        }
        let behind = Region::behind(self.b, &[v], |x| state.is_matched(x), MOST_NODES);
        let entering = behind.boundary.iter().filter(|&&x| !self.b.is_constant(x));
        let partners: Option<Vec<ValueId>> =
            entering.map(|x| state.matched[x.index()].as_ref().map(|m| m.a)).collect();
        let found = self.reached(&partners?).into_iter().find(|&c| {
            let other = self.a.producer(c);
            let theirs = self.a.declared.get(c).filter(|t| t.dtype() == value.dtype());
            let theirs = theirs.filter(|t| t.shape() == value.shape());
            let (Some(other), Some(theirs)) = (other, theirs) else { return false };
            let on_border = if fused && quantises(self.a, other) {
                let stop = |x: ValueId| state.a_matched[x.index()];
                before_step(self.a, other, &stop, &|x| self.a.shadow.operand(x))
            } else if !fused && is_fused(self.a, other) {
                before_step(self.b, id, &|x| state.is_matched(x), &|x| state.operand(x))
            } else {
                None
            };
            on_border.is_some_and(|before| before.parts(value, theirs))
        })?;
        let degenerate = self.index.is_degenerate(self.a, found);
        Some(Match { a: found, relation: Relation::Same, evidence: Evidence::Border, degenerate })
    }

    /// Values that A makes of these in a few steps.
    fn reached(&self, from: &[ValueId]) -> Vec<ValueId> {
        let (mut found, mut last) = (from.to_vec(), 0);
        for _ in 0..MOST_STEPS {
            for i in std::mem::replace(&mut last, found.len())..found.len() {
                for &reader in &self.a.consumers[found[i].index()] {
                    for v in self.a.graph().node(reader).writes() {
                        if found.len() < MOST_SEEN && !found.contains(&v) {
                            found.push(v);
                        }
                    }
                }
            }
        }
        found.split_off(from.len())
    }
}

/// Whether a node computes on a grid and keeps what it rounds to itself.
fn is_fused(side: &Side<'_>, id: NodeId) -> bool {
    let node = side.graph().node(id);
    node.op.starts_with("QLinear") && side.plan.op(id).decision() == Decision::Outputs
}

fn quantises(side: &Side<'_>, id: NodeId) -> bool {
    side.graph().node(id).op == "QuantizeLinear"
}

/// Values in steps of a grid before they are brought onto it, and how far rounding may have moved them.
struct Before {
    steps: Vec<f64>,
    moved: Vec<f64>,
}

/// What a node brings onto a grid of one step for all; `stop` says which values are in place.
fn before_step(
    side: &Side<'_>,
    id: NodeId,
    stop: &dyn Fn(ValueId) -> bool,
    look: &dyn Fn(ValueId) -> Option<Tensor>,
) -> Option<Before> {
    let [x, scale, rest @ ..] = &side.graph().node(id).inputs[..] else { return None };
    let one = |v: ValueId| {
        let t = look(v)?;
        let x = t.to_f64().ok()?;
        (x.len() == 1).then(|| x[0])
    };
    let (x, scale) = ((*x)?, one((*scale)?)?);
    let zero = match rest.first().copied().flatten() {
        Some(v) => one(v)?,
        None => 0.0,
    };
    let behind = Region::behind(side, &[x], stop, MOST_NODES);
    if stop(x) || behind.nodes.len() >= MOST_NODES {
        return None;
    }
    let unit = Unit::F32;
    let rounding = Rounding { unit, rounds: &|_| true, scaled: &|_| false, enters: &|_| None };
    let error = error(side, &behind, x, look, rounding).ok()?;
    let value = look(x)?;
    let value = value.to_f64().ok()?;
    let error = error.and_then(|e| e.to_f64().ok().map(std::borrow::Cow::into_owned));
    // On either side; by the quotient and the sum that bring it onto the grid besides.
    let moved = |i: usize| {
        let of_makers = error.as_ref().and_then(|e| e.get(i)).copied().unwrap_or(0.0);
        (2.0 * of_makers + 4.0 * unit.u * value[i].abs()) / scale + 2.0 * unit.u * zero.abs()
    };
    Some(Before {
        steps: value.iter().map(|x| x / scale + zero).collect(),
        moved: (0..value.len()).map(moved).collect(),
    })
}

impl Before {
    /// Whether two sides' integers are the same but for steps on whose border the value lies.
    fn parts(&self, own: &Tensor, theirs: &Tensor) -> bool {
        let (Ok(own), Ok(theirs)) = (own.to_f64(), theirs.to_f64()) else { return false };
        if own.len() != self.steps.len() || own.len() != theirs.len() {
            return false;
        }
        let mut apart = 0;
        let fits = own.iter().zip(theirs.iter()).zip(self.steps.iter().zip(&self.moved)).all(
            |((x, y), (step, moved))| {
                apart += usize::from(x != y);
                x == y || (x - y).abs() == 1.0 && (step - x.min(*y) - 0.5).abs() <= *moved
            },
        );
        fits && apart <= own.len() / MOST_APART
    }
}
