//! The place of a fault: what B computes there, what A computes there, and from what.

use isotrace_align::{Judge, Region, Relation, Side, State};
use isotrace_graph::{Node, NodeId, ValueId};
use isotrace_tensor::Tensor;

/// Nodes a region is widened to while its borders on the two sides do not agree.
const WIDEST: usize = 24;
/// Times the borders are moved outwards.
const ROUNDS: usize = 32;

/// A region of B that does not compute what the region of A beside it computes.
pub struct Site<'x, 's, 'g> {
    /// Both sides.
    pub judge: &'x Judge<'s, 'g>,
    /// B's execution, with A's values put in up to here.
    pub state: &'x State<'s, 'g>,
    /// The value of B that should hold A's `candidate`.
    pub point: ValueId,
    /// The value of A that belongs there.
    pub candidate: ValueId,
    /// How B's layout follows from A's at the point.
    pub relation: Relation,
    /// B's open nodes behind the point: what has to be explained.
    pub open_b: Region,
    /// A's open nodes behind the candidate.
    pub open_a: Region,
    /// `open_b` with the layout operators before it, and further where the two borders disagree.
    pub wide_b: Region,
    /// `open_a`, widened likewise.
    pub wide_a: Region,
}

impl<'x, 's, 'g> Site<'x, 's, 'g> {
    /// The site that ends at `point` and `candidate`.
    pub fn new(
        judge: &'x Judge<'s, 'g>,
        state: &'x State<'s, 'g>,
        point: ValueId,
        candidate: ValueId,
        relation: Relation,
    ) -> Self {
        let open_b = Region::behind(judge.b, &[point], |v| state.is_matched(v), usize::MAX);
        let open_a = Region::behind(judge.a, &[candidate], |v| state.a_matched[v.index()], usize::MAX);
        let (wide_a, wide_b) = widen(judge, state, point, candidate);
        Self { judge, state, point, candidate, relation, open_b, open_a, wide_b, wide_a }
    }

    /// A node of A.
    pub fn node_a(&self, n: NodeId) -> &'g Node {
        self.judge.a.graph().node(n)
    }

    /// A node of B.
    pub fn node_b(&self, n: NodeId) -> &'g Node {
        self.judge.b.graph().node(n)
    }

    /// Nodes of A's widened region in execution order.
    pub fn nodes_a(&self) -> &[NodeId] {
        &self.wide_a.nodes
    }

    /// Nodes of B's widened region in execution order.
    pub fn nodes_b(&self) -> &[NodeId] {
        &self.wide_b.nodes
    }

    /// Whether a node of B hands on what it reads: what a dropped operation leaves behind (an addition of zero).
    pub fn is_void_b(&self, n: NodeId) -> bool {
        is_void(self.judge, self.state, n)
    }

    /// Whether a node of A hands on what it reads.
    pub fn is_void_a(&self, n: NodeId) -> bool {
        let class = |v: ValueId| self.judge.index.class(v);
        let reads = self.judge.a.dynamic_inputs(n);
        self.node_a(n).writes().all(|w| reads.iter().any(|&r| class(r) == class(w)))
    }

    /// A's partner of a value of B.
    pub fn partner(&self, v: ValueId) -> Option<ValueId> {
        self.state.matched[v.index()].as_ref().map(|m| m.a)
    }

    /// A's float64 and declared value, laid out as B's `like`, if that is possible.
    pub fn carried(&self, a: ValueId, like: ValueId) -> Option<(Tensor, Tensor)> {
        let shape = self.state.shadow[like.index()].as_ref()?.shape();
        let relation = match &self.state.matched[like.index()] {
            Some(m) if self.judge.a.shadow.get(m.a)?.shape() == self.judge.a.shadow.get(a)?.shape() => {
                m.relation.clone()
            }
            _ => Relation::Reshaped,
        };
        let carry = |t: &Tensor| relation.carry(t, shape);
        Some((carry(self.judge.a.declared.get(a)?)?, carry(self.judge.a.shadow.get(a)?)?))
    }

    /// The largest difference at the point as the models are.
    pub fn before(&self) -> f64 {
        self.difference(self.state.own_shadow[self.point.index()].as_ref())
    }

    /// The largest difference between a value at the point and A's; infinite where one of them is not finite.
    pub fn difference(&self, value: Option<&Tensor>) -> f64 {
        value.map_or(f64::INFINITY, |value| self.apart(value, &self.relation))
    }

    /// The same element by element, if both have one shape; the layout in which the place was recognised may be the fault's.
    pub fn in_place(&self, value: Option<&Tensor>) -> Option<f64> {
        let value = value?;
        let same = self.judge.a.shadow.get(self.candidate)?.shape() == value.shape();
        same.then(|| self.apart(value, &Relation::Same))
    }

    fn apart(&self, value: &Tensor, relation: &Relation) -> f64 {
        let Some(theirs) = self.judge.a.shadow.get(self.candidate) else { return f64::INFINITY };
        let Some(theirs) = relation.carry(theirs, value.shape()) else { return f64::INFINITY };
        let (Ok(x), Ok(y)) = (theirs.to_f64(), value.to_f64()) else { return f64::INFINITY };
        x.iter().zip(y.iter()).filter(|(x, y)| x != y).fold(0.0, |m, (x, y)| {
            let d = (x - y).abs();
            if d.is_nan() { f64::INFINITY } else { d.max(m) }
        })
    }
}

/// Both regions with layout operators before them, and beyond where one side reads what the other does not.
fn widen(judge: &Judge<'_, '_>, state: &State, point: ValueId, candidate: ValueId) -> (Region, Region) {
    let mut through_a: Vec<ValueId> = Vec::new();
    let mut through_b: Vec<ValueId> = Vec::new();
    let class_b = |v: ValueId| state.matched[v.index()].as_ref().map(|m| judge.index.class(m.a));
    let behind_a = |through: &[ValueId]| {
        Region::behind(judge.a, &[candidate], |v| state.a_matched[v.index()] && !through.contains(&v), WIDEST)
    };
    let behind_b = |through: &[ValueId]| {
        Region::behind(judge.b, &[point], |v| state.is_matched(v) && !through.contains(&v), WIDEST)
    };
    let (mut a, mut b) = (behind_a(&through_a), behind_b(&through_b));
    for _ in 0..ROUNDS {
        let border_a: Vec<ValueId> = dynamic(judge.a, &a);
        let border_b: Vec<ValueId> = dynamic(judge.b, &b);
        let classes_a: Vec<ValueId> = border_a.iter().map(|&v| judge.index.class(v)).collect();
        let classes_b: Vec<ValueId> = border_b.iter().filter_map(|&v| class_b(v)).collect();
        let mut grown = false;
        // Of the values that one side alone reads, the latest in A's order: where it came from may be read by both.
        let place = |a: Option<ValueId>| a.and_then(|a| judge.a.producer(a));
        let mut foreign: Vec<(Option<NodeId>, bool, ValueId)> = Vec::new();
        for &v in &border_b {
            let permuted = state.matched[v.index()].as_ref().is_some_and(|m| m.relation.is_permuted());
            let void = judge.b.producer(v).is_some_and(|n| is_void(judge, state, n));
            let moved = judge.b.producer(v).is_some_and(|n| judge.b.moves(n));
            if b.nodes.len() < WIDEST && judge.b.producer(v).is_some() {
                if permuted || void || moved {
                    through_b.push(v);
                    grown = true;
                } else if class_b(v).is_none_or(|c| !classes_a.contains(&c)) {
                    foreign.push((place(state.matched[v.index()].as_ref().map(|m| m.a)), false, v));
                }
            }
        }
        for &v in &border_a {
            if let Some(n) = judge.a.producer(v).filter(|_| a.nodes.len() < WIDEST) {
                if judge.a.moves(n) {
                    through_a.push(v);
                    grown = true;
                } else if !classes_b.contains(&judge.index.class(v)) {
                    foreign.push((place(Some(v)), true, v));
                }
            }
        }
        if !grown && let Some(&(_, of_a, v)) = foreign.iter().max() {
            // Where B made what it reads of that very value, it may have made the wrong thing of it.
            let made = if of_a { made_of(judge, state, &border_b, judge.index.class(v)) } else { Vec::new() };
            if !made.is_empty() && b.nodes.len() < WIDEST {
                through_b.extend(made);
            } else if of_a {
                through_a.push(v);
            } else {
                through_b.push(v);
            }
            grown = true;
        }
        if !grown {
            break;
        }
        (a, b) = (behind_a(&through_a), behind_b(&through_b));
    }
    (a, b)
}

/// Steps from a value to what is made of it.
const NEAR: usize = 6;

/// Those of B's values that are made, in a few steps, of one that stands for A's `class`, and that B makes more often
/// than A does: in place of something else.
fn made_of(judge: &Judge<'_, '_>, state: &State, values: &[ValueId], class: ValueId) -> Vec<ValueId> {
    let of = |v: ValueId| state.matched[v.index()].as_ref().map(|m| judge.index.class(m.a));
    let is = |v: ValueId| of(v) == Some(class);
    let surplus = |v: ValueId| {
        let own = of(v);
        let made = judge.b.graph().value_ids().filter(|&w| of(w) == own).count();
        let theirs = judge.a.graph().value_ids().filter(|&w| Some(judge.index.class(w)) == own).count();
        own.is_some() && made > theirs
    };
    let behind = |v: ValueId| Region::behind(judge.b, &[v], is, NEAR).boundary.into_iter().any(is);
    values.iter().copied().filter(|&v| !is(v) && behind(v) && surplus(v)).collect()
}

fn is_void(judge: &Judge<'_, '_>, state: &State, n: NodeId) -> bool {
    let class = |v: ValueId| state.matched[v.index()].as_ref().map(|m| judge.index.class(m.a));
    let reads = judge.b.dynamic_inputs(n);
    let mut writes = judge.b.graph().node(n).writes().peekable();
    writes.peek().is_some()
        && writes.all(|w| class(w).is_some_and(|c| reads.iter().any(|&r| class(r) == Some(c))))
}

fn dynamic(side: &Side<'_>, region: &Region) -> Vec<ValueId> {
    region.boundary.iter().copied().filter(|&v| !side.is_constant(v)).collect()
}
