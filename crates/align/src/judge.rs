//! Whether a value of B, computed from A's values, is a value of A: candidates for a partner, from the likeliest on.
//! When two values are the same, `agreement.rs` says.

use std::cell::{Cell, RefCell};

use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::budget::Unit;
use isotrace_ops::{Decision, parallel};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;

use crate::agreement::{Agreement, Elements};
use crate::bits::numbers_hash;
use crate::comparison::Comparison;
use crate::index::Index;
use crate::narrow::clamped;
use crate::region::{Region, Rounding, error};
use crate::relation::{Probe, candidates};
use crate::signature::{self, Kind};
use crate::state::{Match, State};
use crate::{Relation, Side, twins};

/// On what ground two values are taken for the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Evidence {
    /// Every bit of the float64 values agrees.
    Bits,
    /// Within float64 noise.
    Noise,
    /// Within what the precision of stored constants allows.
    Constants,
    /// The same, found on the declared values, rounding and all.
    Folded(Comparison),
    /// The same bits in the type that both declare, though float64 tells them apart: more than these inputs show.
    Declared,
    /// Within what a call that nobody here knows may round: it was taken as it was recorded.
    Opaque,
    /// Steps of a grid, the same but where the value lies on the border of two.
    Border,
    /// Put in by hypothesis and confirmed downstream.
    Confirmed,
}

/// Candidates compared element by element for one value.
const MOST_CANDIDATES: usize = 24;
/// Nodes of A that one node of B stands for, as far as structure is asked before values.
const MOST_STEPS: usize = 3;
/// Constants with fewer elements are numbers, not tensors to be recognised.
pub(crate) const SMALL: usize = 8;

/// Both sides and what is needed to compare their values.
pub struct Judge<'s, 'g> {
    /// The reference.
    pub a: &'s Side<'g>,
    /// The side that is executed with A's values put in.
    pub b: &'s Side<'g>,
    /// A's values by what they hold.
    pub index: &'s Index,
    /// Types the user allows B to narrow to without it being a fault.
    pub allowed: &'s [DType],
    /// Asked before each node that is executed, with its place and the number of nodes: whether to go on.
    pub progress: Option<&'s (dyn Fn(usize, usize) -> bool + Sync)>,
    interrupted: Cell<bool>,
    hashes: RefCell<FxHashMap<(bool, ValueId), u64>>,
    /// [`moderate_rms`] of A's values, each a candidate for many.
    scales: RefCell<FxHashMap<ValueId, f64>>,
}

impl<'s, 'g> Judge<'s, 'g> {
    /// A judge over two sides.
    pub fn new(a: &'s Side<'g>, b: &'s Side<'g>, index: &'s Index, allowed: &'s [DType]) -> Self {
        Self {
            a,
            b,
            index,
            allowed,
            progress: None,
            interrupted: Cell::new(false),
            hashes: RefCell::default(),
            scales: RefCell::default(),
        }
    }

    /// Whether `progress` has asked to stop: what is found from then on says nothing.
    pub fn interrupted(&self) -> bool {
        self.interrupted.get()
    }

    /// Whether to go on with node `done` of B.
    pub(crate) fn goes_on(&self, done: usize) -> bool {
        if !self.interrupted.get() && self.progress.is_some_and(|p| !p(done, self.b.graph().nodes.len())) {
            self.interrupted.set(true);
        }
        !self.interrupted.get()
    }

    /// Whether B stores a value more narrowly than A and than B itself computes.
    pub fn narrows(&self, own: DType, theirs: DType) -> bool {
        let Some(unit) = own.unit_roundoff() else { return false };
        !self.allowed.contains(&own)
            && theirs.unit_roundoff().is_some_and(|u| u < unit)
            && self.b.main.unit_roundoff().is_some_and(|u| u < unit)
    }

    /// Whether a node of B decides: its outputs, or which of its inputs they are, turn on borders.
    pub fn decides(&self, id: NodeId) -> bool {
        matches!(self.b.plan.op(id).decision(), Decision::Outputs | Decision::Picks { .. })
    }

    /// A node of A that is the same call as `id` of B on the same values; where it decides, also on what B, which
    /// computes in a narrower type, holds of them: on a border that rounding alone decides otherwise.
    pub fn twin(&self, state: &State<'_, '_>, id: NodeId) -> Option<NodeId> {
        let opaque = self.b.plan.op(id).is_opaque();
        let decides = self.decides(id);
        let rounded = |own: Option<DType>, theirs: Option<DType>| {
            let narrow = own.zip(theirs).and_then(|(own, theirs)| self.rounds_to(own, theirs));
            decides && narrow.is_some() && narrow == own
        };
        let partner = |v: ValueId| {
            let m = state.matched[v.index()].as_ref()?;
            // A partner may be of another type, of which B rounds to its own; an unknown call is taken as it was
            // recorded all the same.
            let dtype = |t: Option<&Tensor>| t.map(Tensor::dtype);
            let (own, theirs) = (dtype(state.declared[v.index()].as_ref()), dtype(self.a.declared.get(m.a)));
            let alike = (own == theirs || rounded(own, theirs)) && !state.narrowed[v.index()];
            (m.relation == Relation::Same && (alike || opaque)).then_some(m.a)
        };
        let same = |b: ValueId, a: ValueId| {
            let stored = |side: &Side<'_>, v: ValueId| side.graph().value(v).constant.is_some();
            partner(b).is_some_and(|p| {
                p == a
                    || (stored(self.a, a) && stored(self.b, b) || self.index.class(p) == self.index.class(a))
                        && self.same_bits(b, a, state)
            }) || self.is_small(b) && (self.same_bits(b, a, state) || decides && self.rounded_alike(b, a))
        };
        twins::find(self.a, self.b.graph().node(id), &partner, &same)
    }

    /// A's constant that holds the same bits as a constant of B; the one of the same name where there are several.
    pub fn same_constant(&self, v: ValueId) -> Option<Match> {
        let tensor = self.b.declared.get(v).filter(|t| t.len() >= SMALL)?;
        let same = |a: &ValueId| self.a.declared.get(*a).is_some_and(|t| t.bit_eq(tensor));
        let name = &self.b.graph().value(v).name;
        let candidates: Vec<ValueId> = self.index.constants(tensor).collect();
        let namesake = candidates.iter().copied().find(|a| self.a.graph().value(*a).name == *name && same(a));
        let a = namesake.or_else(|| candidates.into_iter().find(same))?;
        let degenerate = self.index.is_degenerate(self.a, a);
        Some(Match { a, relation: Relation::Same, evidence: Evidence::Bits, degenerate })
    }

    fn is_small(&self, v: ValueId) -> bool {
        self.b.is_constant(v) && self.b.declared.get(v).is_some_and(|t| t.len() < SMALL)
    }

    fn same_bits(&self, b: ValueId, a: ValueId, state: &State) -> bool {
        match (state.declared[b.index()].as_ref(), self.a.declared.get(a)) {
            (Some(x), Some(y)) => x.bit_eq(y),
            _ => false,
        }
    }

    /// The partner of a value that B computed as `value`.
    pub fn find(&self, state: &State, v: ValueId, value: &Tensor) -> Option<Match> {
        let constant = self.b.is_constant(v);
        if constant && value.len() < SMALL {
            return self.rounded_constant(v);
        }
        // Where structure names a candidate, try it first: it settles ties between equal values the right way, and
        // mostly nothing else need be looked at.
        let hints = self.hints(state, v);
        let mut best: Option<Match> = None;
        let mut consider = |hinted: bool, candidate: ValueId, degenerate: bool| {
            // An equal value in the same layout beats one in another, an earlier find a later one, unless the two differ
            // in declared precision and the later one is made of what this value is made of.
            let nearer = |relation: &Relation, ground: u8| {
                best.as_ref().is_none_or(|b| {
                    let (later, earlier) = (ranked(relation, ground, hinted), rank(b, hints.contains(&b.a)));
                    later < earlier
                        || later == earlier
                            && self.index.class(candidate) != self.index.class(b.a)
                            && self.shares_input(state, v, candidate)
                            && !self.shares_input(state, v, b.a)
                })
            };
            let Some((relation, evidence)) = self.compare(state, v, value, candidate, degenerate, &nearer)
            else {
                return false;
            };
            let settled = relation == Relation::Same && (hinted || self.same_op(v, candidate));
            if nearer(&relation, ground(&evidence)) {
                best = Some(Match { a: candidate, relation, evidence, degenerate });
            }
            settled
        };
        let alike = |c: &ValueId| self.a.is_constant(*c) == constant;
        let degenerate = signature::is_degenerate(value);
        let further = self.further(&hints, value.len());
        for &hint in hints.iter().chain(&further).filter(|c| alike(c)) {
            if consider(true, hint, degenerate || self.index.is_degenerate(self.a, hint)) {
                return best;
            }
        }
        let found = self.index.lookup(self.a, value, constant).take(4 * MOST_CANDIDATES);
        let mut others: Vec<ValueId> = found.filter(|c| !hints.contains(c)).collect();
        if others.len() > MOST_CANDIDATES {
            let place = |i: u32, n: usize| f64::from(i) / n.max(1) as f64;
            let here = place(v.0, self.b.graph().values.len());
            let far = |c: &ValueId| ((place(c.0, self.a.graph().values.len()) - here).abs() * 1e9) as u64;
            others.sort_by_key(far);
            others.truncate(MOST_CANDIDATES);
        }
        for candidate in others {
            if consider(false, candidate, degenerate || self.index.is_degenerate(self.a, candidate)) {
                break;
            }
        }
        if best.is_none() && constant { self.rounded_constant(v) } else { best }
    }

    pub(crate) fn same_op(&self, b: ValueId, a: ValueId) -> bool {
        match (self.b.producer(b), self.a.producer(a)) {
            (Some(b), Some(a)) => self.b.graph().node(b).op == self.a.graph().node(a).op,
            (None, None) => true,
            _ => false,
        }
    }

    /// Outputs of A's nodes that read what this value's node reads, same operator first; the name last.
    pub(crate) fn hints(&self, state: &State, v: ValueId) -> Vec<ValueId> {
        let mut hints = Vec::new();
        if let Some(id) = self.b.producer(v) {
            let node = self.b.graph().node(id);
            let slot = node.outputs.iter().position(|o| *o == Some(v)).unwrap_or(0);
            for read in node.inputs.iter().flatten() {
                let Some(m) = &state.matched[read.index()] else { continue };
                for &reader in self.a.consumers[m.a.index()].iter().take(MOST_CANDIDATES) {
                    let other = self.a.graph().node(reader);
                    if other.op == node.op
                        && let Some(Some(out)) = other.outputs.get(slot)
                        && !hints.contains(out)
                    {
                        hints.push(*out);
                    }
                }
            }
        }
        hints
    }

    /// Whether A makes `candidate` of a value of which B makes its own.
    fn shares_input(&self, state: &State, v: ValueId, candidate: ValueId) -> bool {
        let (Some(own), Some(theirs)) = (self.b.producer(v), self.a.producer(candidate)) else {
            return false;
        };
        let theirs = self.a.graph().node(theirs);
        self.b.graph().node(own).reads().filter(|&read| !self.b.is_constant(read)).any(|read| {
            let partner = state.matched[read.index()].as_ref().map(|m| m.a);
            partner.is_some_and(|a| theirs.reads().any(|r| r == a))
        })
    }

    /// Values that A makes of `hints` in a few steps, nearest first, with as many elements: one node of B may do what
    /// several of A do.
    pub(crate) fn further(&self, hints: &[ValueId], len: usize) -> Vec<ValueId> {
        let mut found = hints.to_vec();
        let mut last = 0;
        for _ in 0..MOST_STEPS {
            for i in std::mem::replace(&mut last, found.len())..found.len() {
                for &reader in self.a.consumers[found[i].index()].iter().take(MOST_CANDIDATES) {
                    for v in self.a.graph().node(reader).writes() {
                        let fits = self.a.declared.get(v).is_some_and(|t| t.len() == len);
                        if fits && found.len() < MOST_CANDIDATES && !found.contains(&v) {
                            found.push(v);
                        }
                    }
                }
            }
        }
        found.split_off(hints.len().min(found.len()))
    }

    /// Whether `value`, which B computed for `v`, is A's `candidate`; under which relation and on what ground. Only what is
    /// `worth` it is looked for: a relation, with the least rank of the grounds that are left to try.
    pub fn compare(
        &self,
        state: &State,
        v: ValueId,
        value: &Tensor,
        candidate: ValueId,
        degenerate: bool,
        worth: &dyn Fn(&Relation, u8) -> bool,
    ) -> Option<(Relation, Evidence)> {
        let theirs = &self.a.shadow.operand(candidate)?;
        if theirs.len() != value.len() || Kind::of(theirs.dtype()) != Kind::of(value.dtype()) {
            return None;
        }
        if Kind::of(value.dtype()) == Kind::Other {
            let same = theirs.raw_bytes() == value.raw_bytes()
                && theirs.as_strings().ok() == value.as_strings().ok();
            return same.then_some((Relation::Reshaped, Evidence::Bits));
        }
        let (x, y) = (theirs.to_f64().ok()?, value.to_f64().ok()?);
        let scale = *self.scales.borrow_mut().entry(candidate).or_insert_with(|| moderate_rms(&x));
        let narrow = self.narrow_at(v, candidate);
        let mut relations = candidates(theirs.shape(), value.shape());
        if degenerate {
            relations.truncate(1);
        }
        for relation in relations.into_iter().filter(|r| worth(r, BITS)) {
            let probe = Probe::new(&x, theirs.shape(), value.shape(), &relation);
            if !samples(y.len()).all(|i| alike(probe.at(i), y[i], scale, narrow)) {
                continue;
            }
            let Some(carried) = relation.carry(theirs, value.shape()) else { continue };
            let Ok(carried) = carried.to_f64() else { continue };
            let pair = Agreement {
                judge: self,
                state,
                b: v,
                a: candidate,
                relation: &relation,
                elements: Elements { own: &y, theirs: &carried, scale, narrow },
            };
            if let Some(evidence) = pair.ground(worth(&relation, NOISE)) {
                return Some((relation, evidence));
            }
        }
        None
    }

    /// What the two regions' rounding allows at each element, in B's layout: on the float64 values, or, where
    /// `declared` says so, on those that each side had itself.
    #[expect(clippy::too_many_arguments, reason = "two regions with their outputs, layouts and rounding")]
    pub fn allowance(
        &self,
        state: &State,
        v: ValueId,
        behind_b: &Region,
        candidate: ValueId,
        behind_a: &Region,
        relation: &Relation,
        len: usize,
        rounding: (Rounding<'_>, Rounding<'_>),
        declared: bool,
    ) -> Option<Vec<f64>> {
        // Half precision strays from float64 so far that what it allows is a matter of the values it has itself.
        let own = |unit: Unit, value: Option<&Tensor>| {
            let there = declared || unit.u > Unit::F32.u;
            value.filter(|t| there && t.dtype().is_float())?.cast(DType::F64).ok()
        };
        let look_a =
            |x: ValueId| own(rounding.0.unit, self.a.declared.get(x)).or_else(|| self.a.shadow.operand(x));
        let look_b = |x: ValueId| {
            own(rounding.1.unit, state.declared[x.index()].as_ref()).or_else(|| state.operand(x))
        };
        let of_b = error(self.b, behind_b, v, &look_b, rounding.1).ok()?.filter(|e| e.len() == len);
        let of_a = match error(self.a, behind_a, candidate, &look_a, rounding.0).ok()? {
            Some(e) => Some(relation.carry(&e, state.shadow[v.index()].as_ref()?.shape())?),
            None => None,
        };
        Some(match (of_a, of_b) {
            (None, None) => vec![0.0; len],
            (Some(e), None) | (None, Some(e)) => e.to_f64().ok()?.into_owned(),
            (Some(x), Some(y)) => {
                let (x, y) = (x.to_f64().ok()?, y.to_f64().ok()?);
                parallel::map(x.len().min(y.len()), |i| x[i] + y[i])
            }
        })
    }

    /// Float constants of each region that the other region does not hold, up to layout.
    pub(crate) fn unshared(&self, a: &Region, b: &Region) -> (Vec<ValueId>, Vec<ValueId>) {
        let floats = |side: &Side<'_>, region: &Region| -> Vec<ValueId> {
            let is_float = |v: &ValueId| side.declared.is_float(*v);
            region.constants.iter().copied().filter(is_float).collect()
        };
        let mut left_a = floats(self.a, a);
        let mut left_b = Vec::new();
        for v in floats(self.b, b) {
            let hash = self.hash(false, v);
            match left_a.iter().position(|&x| self.hash(true, x) == hash) {
                Some(i) => {
                    left_a.swap_remove(i);
                }
                None => left_b.push(v),
            }
        }
        (left_a, left_b)
    }

    /// A hash of a constant's numbers in any order: equal for equal numbers in any layout.
    fn hash(&self, of_a: bool, v: ValueId) -> u64 {
        if let Some(&known) = self.hashes.borrow().get(&(of_a, v)) {
            return known;
        }
        let side = if of_a { self.a } else { self.b };
        let hash = side.shadow.operand(v).map_or(0, |t| numbers_hash(&t));
        self.hashes.borrow_mut().insert((of_a, v), hash);
        hash
    }
}

/// How good a ground is, the best first: bits, noise, and any other.
pub(crate) fn ground(evidence: &Evidence) -> u8 {
    match evidence {
        Evidence::Bits => BITS,
        Evidence::Noise => NOISE,
        _ => NOISE + 1,
    }
}

const BITS: u8 = 0;
const NOISE: u8 = 1;

/// How good a match is, the best first.
pub(crate) fn rank(m: &Match, hinted: bool) -> (bool, u8, bool, u8) {
    ranked(&m.relation, ground(&m.evidence), hinted)
}

fn ranked(relation: &Relation, ground: u8, hinted: bool) -> (bool, u8, bool, u8) {
    let layout = match relation {
        Relation::Same => 0,
        Relation::Reshaped => 1,
        _ => 2,
    };
    (layout == 2, ground, !hinted, layout)
}

/// Root mean square of the elements that are no masks.
pub fn moderate_rms(values: &[f64]) -> f64 {
    let part = |run: std::ops::Range<usize>| {
        let moderate = values[run].iter().filter(|x| x.abs() < 1e30);
        moderate.fold((0.0, 0usize), |(s, n), x| (s + x * x, n + 1))
    };
    // Summed piece by piece in their order: the same bits for any number of threads.
    let parts = parallel::pieces(values.len(), &part);
    let (sum, n) = parts.into_iter().fold((0.0, 0), |(s, n), (t, m)| (s + t, n + m));
    if n == 0 { 0.0 } else { (sum / n as f64).sqrt() }
}

/// Whether two elements are near enough to be worth a closer look.
pub(crate) fn near(x: f64, y: f64, scale: f64) -> bool {
    x == y || (x - y).abs() <= 1e-2 * x.abs() + 1e-3 * scale
}

/// As [`near`], or one is the other as far as a type can hold it.
pub(crate) fn alike(x: f64, y: f64, scale: f64, narrow: Option<DType>) -> bool {
    near(x, y, scale) || narrow.is_some_and(|narrow| clamped(x, y, narrow))
}

/// A few places spread over a tensor, the first and last among them.
pub(crate) fn samples(len: usize) -> impl Iterator<Item = usize> {
    let count = len.min(12);
    (0..count).map(move |i| i * (len - 1) / (count - 1).max(1))
}
