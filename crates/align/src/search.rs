//! Past a fault: substitute and confirm.
//!
//! From every output that differs, the values of B that match nothing lead back to where values match again. One of
//! the open values is where the fault ends; some value of A belongs there. A candidate of A is put in and B executed
//! on for a few nodes: when values further down match A again, in another class, the guess was right.
//!
//! Values alone say where B first differs, not where it is whole again; structure alone mistakes every rewrite for a
//! fault. Tried one after the other they leave few trials: constants first (they come before every node), then open
//! values in topological order, about fourteen candidates each, scored by operator, shared inputs, distance,
//! correlation and layout (one candidate finds 92 % of planted faults, three 96 %, fourteen 98.6 %).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::Tensor;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::judge::Evidence;
use crate::relation::candidates;
use crate::state::{Changes, Match, Saved, State};
use crate::{Judge, Region, Relation, Side};

/// Candidates of A tried at one point of B.
const CANDIDATES: usize = 14;
/// Points looked at behind one that is in doubt.
const FURTHER: usize = 4;
/// Open nodes that a candidate may lie deeper than its point.
const FAR: usize = 3;
/// Nodes executed in one trial.
const STEPS: usize = 30;
/// Confirmations after which a trial needs no more.
const ENOUGH: usize = 3;
/// Open values examined as points; a fault's end lies near its beginning.
const POINTS: usize = 160;
/// Open nodes behind a point or a candidate that are counted.
const DEPTH: usize = 48;

/// A guess where a fault ends: A's `candidate` belongs at B's `point`.
#[derive(Debug, Clone)]
pub struct Hypothesis {
    /// The value of B.
    pub point: ValueId,
    /// The value of A that belongs there.
    pub candidate: ValueId,
    /// How B's layout follows from A's there.
    pub relation: Relation,
    /// How many values further down match again; 0 where nothing could confirm the guess.
    pub confirmed: usize,
    /// Where the point is a constant: the first value computed from it that matches again, and its partner.
    pub site: Option<(ValueId, ValueId)>,
}

impl Hypothesis {
    /// As a partner to be put in.
    pub fn as_match(&self) -> Match {
        Match {
            a: self.candidate,
            relation: self.relation.clone(),
            evidence: Evidence::Confirmed,
            degenerate: false,
        }
    }
}

/// Where outputs of B (by role) still differ from A's.
pub fn failing(
    judge: &Judge<'_, '_>,
    state: &State,
    outputs: &[(ValueId, ValueId)],
) -> Vec<(ValueId, ValueId)> {
    outputs.iter().copied().filter(|&(b, a)| !right(judge, state, b, a)).collect()
}

/// Whether a value of B holds what A's value holds, in the same order.
fn right(judge: &Judge<'_, '_>, state: &State, b: ValueId, a: ValueId) -> bool {
    if let Some(m) = &state.matched[b.index()]
        && (m.a == a && !m.relation.is_permuted())
    {
        return true;
    }
    let Some(own) = &state.shadow[b.index()] else { return false };
    judge.compare(state, b, own, a, false, &|_, _| true).is_some_and(|(relation, _)| !relation.is_permuted())
}

/// The best-founded place where B leaves A on the way to `failing` outputs.
pub fn search<'s, 'g>(
    judge: &Judge<'s, 'g>,
    state: &mut State<'s, 'g>,
    failing: &[(ValueId, ValueId)],
    changes: &Changes,
) -> Vec<Hypothesis> {
    let mut search = Search::new(judge, state, failing, changes);
    search
        .constants()
        .or_else(|| search.values())
        .map(|h| vec![h])
        .or_else(|| search.jointly())
        .unwrap_or_else(|| search.last_resort())
}

struct Search<'x, 's, 'g> {
    judge: &'x Judge<'s, 'g>,
    state: &'x mut State<'s, 'g>,
    failing: &'x [(ValueId, ValueId)],
    changes: &'x Changes,
    /// B's open nodes behind the failing outputs.
    open_b: Region,
    /// A's open values by number of elements.
    by_len: FxHashMap<usize, Vec<ValueId>>,
    /// What enters each open value of A from matched values, as classes, and how deep it lies.
    entering_a: FxHashMap<ValueId, (Vec<ValueId>, usize)>,
}

impl<'x, 's, 'g> Search<'x, 's, 'g> {
    fn new(
        judge: &'x Judge<'s, 'g>,
        state: &'x mut State<'s, 'g>,
        failing: &'x [(ValueId, ValueId)],
        changes: &'x Changes,
    ) -> Self {
        let outputs_b: Vec<ValueId> = failing.iter().map(|&(b, _)| b).collect();
        let outputs_a: Vec<ValueId> = failing.iter().map(|&(_, a)| a).collect();
        let open_b = Region::behind(judge.b, &outputs_b, |v| state.is_matched(v), usize::MAX);
        let open_a = Region::behind(judge.a, &outputs_a, |v| state.a_matched[v.index()], usize::MAX);
        let mut by_len: FxHashMap<usize, Vec<ValueId>> = FxHashMap::default();
        let written = open_a.nodes.iter().flat_map(|&n| judge.a.graph().node(n).writes());
        for v in written.chain(open_a.constants.iter().copied()).chain(open_a.boundary.iter().copied()) {
            if let Some(t) = judge.a.shadow.get(v) {
                by_len.entry(t.len()).or_default().push(v);
            }
        }
        Self { judge, state, failing, changes, open_b, by_len, entering_a: FxHashMap::default() }
    }

    /// Constants of B that match nothing, with constants of A that nothing matches.
    fn constants(&mut self) -> Option<Hypothesis> {
        let written = self.open_b.nodes.iter().flat_map(|&n| self.judge.b.graph().node(n).writes());
        let computed = written.filter(|&v| self.judge.b.is_constant(v));
        let mut points: Vec<ValueId> = self.open_b.constants.iter().copied().chain(computed).collect();
        points.retain(|&v| !self.state.is_matched(v));
        points.sort_unstable_by_key(|&v| (self.first_reader(v), v));
        points.truncate(POINTS);
        for point in points {
            let Some(value) = self.state.shadow[point.index()].clone() else { continue };
            if value.len() < 8 {
                continue;
            }
            let open = self.by_len.get(&value.len()).cloned().unwrap_or_default();
            let mut candidates: Vec<ValueId> = open
                .into_iter()
                .filter(|&c| self.judge.a.is_constant(c) && !self.state.a_matched[c.index()])
                .filter(|&c| self.same_kind(&value, c))
                .collect();
            let similarity = |c: &ValueId| {
                let theirs = self.judge.a.shadow.get(*c);
                theirs.map_or(0.0, |t| {
                    f64::from(u8::from(t.shape() == value.shape())) + correlation(t, &value).abs()
                })
            };
            candidates.sort_by(|x, y| similarity(y).total_cmp(&similarity(x)));
            candidates.truncate(CANDIDATES);
            for candidate in candidates {
                let relation = self.layout(&value, candidate)?;
                let Trial { confirmed, site, .. } = self.trial(&[(point, candidate, relation.clone())]);
                if confirmed > 0 {
                    return Some(Hypothesis { point, candidate, relation, confirmed, site });
                }
            }
        }
        None
    }

    fn first_reader(&self, v: ValueId) -> NodeId {
        let readers = &self.judge.b.consumers[v.index()];
        readers
            .iter()
            .copied()
            .find(|n| self.open_b.nodes.binary_search(n).is_ok())
            .unwrap_or(NodeId(u32::MAX))
    }

    /// Open values of B in topological order, each with its likeliest candidates. Where little confirms a candidate
    /// that lies much deeper behind matched values than the point does (it went through what comes later in B), one of
    /// the next points that much more confirms is the place.
    fn values(&mut self) -> Option<Hypothesis> {
        let mut points: Vec<ValueId> = Vec::new();
        for &n in &self.open_b.nodes {
            points.extend(self.judge.b.graph().node(n).writes().filter(|v| self.is_open(*v)));
        }
        points.truncate(POINTS);
        let mut doubtful: Option<Hypothesis> = None;
        let mut further = 0;
        for point in points {
            let found = self.at(point);
            if let Some(first) = &doubtful {
                further += 1;
                match found {
                    Some(later) if later.confirmed >= ENOUGH && !self.is_far(&later) => return Some(later),
                    _ if further == FURTHER => return Some(first.clone()),
                    _ => {}
                }
            } else if let Some(found) = found {
                if found.confirmed >= ENOUGH || !self.is_far(&found) {
                    return Some(found);
                }
                doubtful = Some(found);
            }
        }
        doubtful
    }

    /// The candidate at one point that most confirms; of those that enough confirms, one that lies about as deep as the
    /// point, and the first after which the fewest values match nothing. A norm of ones, or anything else that comes
    /// back layer by layer, confirms what another layer reads as well. Where a fault before the point turned what it
    /// reads, a candidate resembles it most in a layout that is the fault's, so that it is tried as it lies as well.
    fn at(&mut self, point: ValueId) -> Option<Hypothesis> {
        let value = self.state.shadow[point.index()].clone()?;
        let mut best: Option<(Hypothesis, bool, usize)> = None;
        'candidates: for (_, candidate) in self.candidates(point) {
            let Some(nearest) = self.layout(&value, candidate) else { continue };
            let theirs = self.judge.a.shadow.get(candidate).map(Tensor::shape);
            let as_it_lies =
                (nearest != Relation::Same && theirs == Some(value.shape())).then_some(Relation::Same);
            for relation in [Some(nearest), as_it_lies].into_iter().flatten() {
                let Trial { confirmed, open, .. } = self.trial(&[(point, candidate, relation.clone())]);
                if confirmed == 0 {
                    continue;
                }
                let found = Hypothesis { point, candidate, relation, confirmed, site: None };
                let far = self.is_far(&found);
                let better = best.as_ref().is_none_or(|(b, b_far, b_open)| {
                    (confirmed, !far, Reverse(open)) > (b.confirmed, !b_far, Reverse(*b_open))
                });
                if better {
                    best = Some((found, far, open));
                    if confirmed >= ENOUGH && !far && open == 0 {
                        break 'candidates;
                    }
                }
            }
        }
        best.map(|(found, ..)| found)
    }

    /// Whether a candidate has many more open nodes behind it than the point, or many fewer.
    fn is_far(&mut self, found: &Hypothesis) -> bool {
        let (_, depth) = entering_b(self.judge, self.state, found.point);
        depth.abs_diff(self.entering_a(found.candidate).1) > FAR
    }

    /// Where several branches are wrong at once no single substitution brings the join back: all frontier nodes with
    /// a candidate of the same operator together.
    fn jointly(&mut self) -> Option<Vec<Hypothesis>> {
        let mut guesses = Vec::new();
        for n in self.open_b.nodes.clone() {
            let node = self.judge.b.graph().node(n);
            let frontier = self.judge.b.dynamic_inputs(n).iter().all(|v| self.state.is_matched(*v));
            let open: Vec<ValueId> = node.writes().filter(|v| self.is_open(*v)).collect();
            let [point] = open[..] else { continue };
            if !frontier {
                continue;
            }
            let Some(value) = self.state.shadow[point.index()].clone() else { continue };
            let twin = self.candidates(point).into_iter().find(|&(_, c)| {
                self.judge.a.producer(c).is_some_and(|p| self.judge.a.graph().node(p).op == node.op)
            });
            let Some((_, candidate)) = twin else { continue };
            let Some(relation) = self.layout(&value, candidate) else { continue };
            guesses.push((point, candidate, relation));
        }
        if guesses.len() < 2 {
            return None;
        }
        let Trial { confirmed, .. } = self.trial(&guesses);
        let found = guesses.into_iter().map(|(point, candidate, relation)| Hypothesis {
            point,
            candidate,
            relation,
            confirmed,
            site: None,
        });
        (confirmed > 0).then(|| found.collect())
    }

    /// Nothing confirms: the last fault before an output has nothing behind it that could. The likeliest candidate
    /// of the same operator at the first frontier node that has one, or the output itself.
    fn last_resort(&mut self) -> Vec<Hypothesis> {
        let guess =
            |point, candidate, relation| Hypothesis { point, candidate, relation, confirmed: 0, site: None };
        // An output that its layout operators alone separate from the fault: nothing else lies behind it.
        for n in self.open_b.nodes.clone() {
            let node = self.judge.b.graph().node(n);
            for point in node.writes().filter(|v| self.is_open(*v)).collect::<Vec<_>>() {
                let Some(value) = self.state.shadow[point.index()].clone() else { continue };
                let Some((score, candidate)) = self.candidates(point).first().copied() else { continue };
                let same_op = self
                    .judge
                    .a
                    .producer(candidate)
                    .is_some_and(|p| self.judge.a.graph().node(p).op == node.op);
                if let (true, true, Some(relation)) = (same_op, score > 4.0, self.layout(&value, candidate)) {
                    return vec![guess(point, candidate, relation)];
                }
            }
        }
        let (point, candidate) = self.failing[0];
        let relation = self.state.shadow[point.index()].clone().and_then(|v| self.layout(&v, candidate));
        vec![guess(point, candidate, relation.unwrap_or(Relation::Same))]
    }

    fn is_open(&self, v: ValueId) -> bool {
        !self.judge.b.is_constant(v) && !self.state.is_matched(v)
    }

    fn same_kind(&self, value: &Tensor, candidate: ValueId) -> bool {
        self.judge.a.shadow.get(candidate).is_some_and(|t| t.dtype() == value.dtype())
    }

    /// Values of A for a point of B, likeliest first, with their scores.
    fn candidates(&mut self, point: ValueId) -> Vec<(f64, ValueId)> {
        let Some(value) = self.state.shadow[point.index()].clone() else { return Vec::new() };
        let (entering, depth) = entering_b(self.judge, self.state, point);
        let node = self.judge.b.producer(point).map(|n| self.judge.b.graph().node(n));
        let open = self.by_len.get(&value.len()).cloned().unwrap_or_default();
        let mut scored = Vec::new();
        for c in open {
            if self.judge.a.is_constant(c) || !self.same_kind(&value, c) {
                continue;
            }
            let (theirs, their_depth) = self.entering_a(c).clone();
            let shared = entering.iter().filter(|e| theirs.contains(e)).count();
            let all = entering.len() + theirs.len() - shared;
            let mut score = 4.0 * shared as f64 / all.max(1) as f64;
            if let (Some(node), Some(other)) =
                (node, self.judge.a.producer(c).map(|n| self.judge.a.graph().node(n)))
            {
                score += kinship(&node.op, &other.op);
            }
            score -= 0.3 * (depth as f64 - their_depth as f64).abs().min(8.0);
            if let Some(tensor) = self.judge.a.shadow.get(c) {
                score += if tensor.shape() == value.shape() { 1.0 } else { 0.0 };
                score += 2.0 * correlation(tensor, &value).abs();
            }
            if self.state.a_matched[c.index()] {
                score -= 1.5;
            }
            if self.judge.a.graph().value(c).name == self.judge.b.graph().value(point).name {
                score += 0.5;
            }
            scored.push((score, c));
        }
        scored.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
        scored.truncate(CANDIDATES);
        scored
    }

    fn entering_a(&mut self, c: ValueId) -> &(Vec<ValueId>, usize) {
        let (judge, state) = (self.judge, &*self.state);
        self.entering_a.entry(c).or_insert_with(|| {
            let region = Region::behind(judge.a, &[c], |v| state.a_matched[v.index()], DEPTH);
            let classes = dynamic(judge.a, &region).map(|v| judge.index.class(v)).collect();
            (classes, region.dynamic_nodes(judge.a).count())
        })
    }

    /// How a candidate would lie at a point that holds `value`: the layout in which they resemble each other most.
    fn layout(&self, value: &Tensor, candidate: ValueId) -> Option<Relation> {
        let theirs = self.judge.a.shadow.get(candidate)?;
        if theirs.len() != value.len() {
            return None;
        }
        if theirs.shape() == value.shape() && correlation(theirs, value).abs() > 0.5 {
            return Some(Relation::Same);
        }
        let mut best: Option<(f64, Relation)> = None;
        for (i, relation) in candidates(theirs.shape(), value.shape()).into_iter().take(32).enumerate() {
            let Some(carried) = relation.carry(theirs, value.shape()) else { continue };
            // Flat order unless another layout is clearly nearer.
            let score = correlation(&carried, value).abs() + if i == 0 { 0.3 } else { 0.0 };
            if best.as_ref().is_none_or(|(s, _)| score > *s) {
                best = Some((score, relation));
            }
        }
        best.map(|(_, r)| r)
    }

    /// Puts candidates in, executes on, counts the values that match again, and takes it all back.
    fn trial(&mut self, guesses: &[(ValueId, ValueId, Relation)]) -> Trial {
        let (judge, state) = (self.judge, &mut *self.state);
        let mut log = Log { a_matched: state.a_matched.clone(), ..Log::default() };
        let mut queue = BinaryHeap::new();
        let mut queued = FxHashSet::default();
        let mut guessed = FxHashSet::default();
        // What a guess is computed from cannot follow from it: such a match is an accident of the formula.
        let mut earlier = FxHashSet::default();
        for (point, candidate, relation) in guesses {
            let behind = Region::behind(judge.a, &[*candidate], |v| log.a_matched[v.index()], DEPTH);
            earlier.extend(
                behind
                    .nodes
                    .iter()
                    .flat_map(|&n| judge.a.graph().node(n).writes())
                    .map(|v| judge.index.class(v)),
            );
            log.save(state, *point);
            let shadow = state.shadow[point.index()].clone();
            if shadow.is_none() {
                continue;
            }
            let declared = state.declared[point.index()].clone();
            let m = Match {
                a: *candidate,
                relation: relation.clone(),
                evidence: Evidence::Confirmed,
                degenerate: false,
            };
            state.set(judge, *point, m, shadow, declared);
            guessed.insert(judge.index.class(*candidate));
            for &n in &judge.b.consumers[point.index()] {
                if queued.insert(n) {
                    queue.push(Reverse(n));
                }
            }
        }
        let (mut confirmed, mut open, mut site) = (0, 0, None);
        // What single numbers make of a guess alone comes back wherever A computes the same of the candidate: all of it
        // together says no more than one value that another joins, or a weight.
        let mut alone: FxHashSet<ValueId> = guesses.iter().map(|(point, ..)| *point).collect();
        let mut hollow = false;
        let mut steps = 0;
        while let Some(Reverse(n)) = queue.pop() {
            if steps == STEPS || confirmed >= ENOUGH {
                break;
            }
            steps += 1;
            let outputs: Vec<ValueId> = judge.b.graph().node(n).writes().collect();
            let follows = follows_alone(judge, n, &alone);
            if follows {
                alone.extend(outputs.iter().copied());
            }
            let before: Vec<Option<Match>> =
                outputs.iter().map(|v| state.matched[v.index()].clone()).collect();
            for &v in &outputs {
                log.save(state, v);
            }
            state.step(judge, n, self.changes);
            for (&v, before) in outputs.iter().zip(before) {
                let now = state.matched[v.index()].clone();
                open += usize::from(now.is_none());
                if let Some(m) = &now {
                    let class = judge.index.class(m.a);
                    let later = !guessed.contains(&class) && !earlier.contains(&class);
                    let fresh = before.is_none() && !m.degenerate && later;
                    if fresh && !log.a_matched[m.a.index()] {
                        confirmed += usize::from(!(follows && hollow));
                        hollow |= follows;
                        site = site.or(Some((v, m.a)));
                    }
                }
                if now.is_none() || now != before {
                    for &reader in &judge.b.consumers[v.index()] {
                        if queued.insert(reader) {
                            queue.push(Reverse(reader));
                        }
                    }
                }
            }
        }
        log.restore(state);
        Trial { confirmed, open, site }
    }
}

/// Whether a node of B reads nothing but values of a set, single numbers and sizes.
fn follows_alone(judge: &Judge<'_, '_>, n: NodeId, alone: &FxHashSet<ValueId>) -> bool {
    let b = judge.b;
    b.graph().node(n).reads().all(|v| {
        let number = |t: &Tensor| t.len() <= 1 || t.dtype().is_int();
        alone.contains(&v) || b.is_constant(v) && b.declared.get(v).is_some_and(number)
    })
}

/// What came of putting candidates in.
struct Trial {
    /// Values that match again, up to [`ENOUGH`].
    confirmed: usize,
    /// Values that still match nothing.
    open: usize,
    /// The first value computed from the candidates that matches again, with its partner.
    site: Option<(ValueId, ValueId)>,
}

/// Values that enter a region, constants aside.
fn dynamic<'a>(side: &'a Side<'_>, region: &'a Region) -> impl Iterator<Item = ValueId> + 'a {
    region.boundary.iter().copied().filter(|&v| !side.is_constant(v))
}

/// Classes of A's values that enter the open nodes behind a value of B, and how many nodes those are.
fn entering_b(judge: &Judge<'_, '_>, state: &State, point: ValueId) -> (Vec<ValueId>, usize) {
    let region = Region::behind(judge.b, &[point], |v| state.is_matched(v), DEPTH);
    let classes = dynamic(judge.b, &region)
        .filter_map(|v| state.matched[v.index()].as_ref())
        .map(|m| judge.index.class(m.a))
        .collect();
    (classes, region.dynamic_nodes(judge.b).count())
}

/// How near two operators are: the same, or one named within the other (a fused form).
fn kinship(b: &str, a: &str) -> f64 {
    if a == b {
        3.0
    } else if a.contains(b) || b.contains(a) {
        1.5
    } else {
        0.0
    }
}

/// Correlation of two tensors in flat order, masks left out; 0 where it says nothing.
pub fn correlation(a: &Tensor, b: &Tensor) -> f64 {
    let (Ok(x), Ok(y)) = (a.to_f64(), b.to_f64()) else { return 0.0 };
    // A few thousand elements tell as much as all.
    let stride = (x.len() / 4096).max(1);
    let pairs = || {
        x.iter()
            .zip(y.iter())
            .step_by(stride)
            .filter(|(x, y)| x.abs() < 1e30 && y.abs() < 1e30)
            .map(|(x, y)| (*x, *y))
    };
    let n = pairs().count() as f64;
    if n < 2.0 {
        return 0.0;
    }
    let (mx, my) = pairs().fold((0.0, 0.0), |(s, t), (x, y)| (s + x / n, t + y / n));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs() {
        xy += (x - mx) * (y - my);
        xx += (x - mx).powi(2);
        yy += (y - my).powi(2);
    }
    let r = xy / (xx * yy).sqrt();
    if r.is_finite() { r } else { 0.0 }
}

/// What came of a change to B.
pub struct Attempt {
    /// Whether the point holds A's candidate then.
    pub holds: bool,
    /// The point's float64 value then.
    pub value: Option<Tensor>,
    /// How far it is from the value of A's that it was recognised as, in the layout in which it was; infinite where it was
    /// not.
    pub left: f64,
}

/// Executes `nodes` (in execution order) of B under `changes` and says whether `point` then holds A's `candidate`;
/// leaves the state as it was.
pub fn attempt(
    judge: &Judge<'_, '_>,
    state: &mut State,
    nodes: &[NodeId],
    changes: &Changes,
    point: ValueId,
    candidate: ValueId,
) -> Attempt {
    let mut log = Log { a_matched: state.a_matched.clone(), ..Log::default() };
    for &n in nodes {
        for v in judge.b.graph().node(n).writes() {
            log.save(state, v);
        }
        state.step(judge, n, changes);
    }
    let value = state.own_shadow[point.index()].clone();
    let recognised = match (&state.matched[point.index()], &value) {
        (Some(m), _) if judge.index.class(m.a) == judge.index.class(candidate) => {
            Some((m.a, m.relation.clone()))
        }
        (_, Some(value)) => {
            state.show_own(point);
            judge
                .compare(state, point, value, candidate, false, &|_, _| true)
                .map(|(relation, _)| (candidate, relation))
        }
        _ => None,
    };
    log.restore(state);
    let left = recognised.as_ref().zip(value.as_ref()).and_then(|((a, relation), value)| {
        let theirs = relation.carry(judge.a.shadow.get(*a)?, value.shape())?;
        let (x, y) = (theirs.to_f64().ok()?, value.to_f64().ok()?);
        let apart = x.iter().zip(y.iter()).filter(|(x, y)| x != y).map(|(x, y)| (x - y).abs());
        Some(apart.fold(0f64, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) }))
    });
    Attempt { holds: recognised.is_some(), value, left: left.unwrap_or(f64::INFINITY) }
}

/// What a trial changed, to be put back.
#[derive(Default)]
struct Log {
    saved: Vec<(ValueId, Saved)>,
    seen: FxHashSet<ValueId>,
    a_matched: Vec<bool>,
}

impl Log {
    fn save(&mut self, state: &State<'_, '_>, v: ValueId) {
        if self.seen.insert(v) {
            self.saved.push((v, state.save(v)));
        }
    }

    fn restore(self, state: &mut State<'_, '_>) {
        for (v, saved) in self.saved {
            state.restore(v, saved);
        }
        state.a_matched = self.a_matched;
    }
}
