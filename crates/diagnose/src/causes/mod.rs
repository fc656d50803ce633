//! The causes that two graphs show by themselves: one file each.
//!
//! A cause looks at a [`Site`] and proposes changes to B, each of which would undo one kind of fault. A proposal is
//! believed only if B, so changed, computes what A computes on the same inputs: its counterfactual is its proof.
//! Where several hold, the one of least cost wins.

mod affine;
mod attention;
mod attribute;
mod chain;
mod constant;
mod difference;
mod extra;
mod folded;
mod function;
mod layout;
mod missing;
mod numbers;
mod operator;
mod order;
mod ratio;
mod stored;
mod turned;

pub(crate) use missing::gates;

use isotrace_align::patch::Patch;
use isotrace_align::{Region, Relation, Side};
use isotrace_graph::{NodeId, ValueId};

use crate::role;
use crate::site::Site;

/// A change to B that might undo the fault, and what the fault would be called.
pub struct Proposal {
    /// Nodes of B that compute something else.
    pub patches: Vec<(NodeId, Patch)>,
    /// The nodes to name on B's side.
    pub nodes_b: Vec<NodeId>,
    /// The nodes to name on A's side.
    pub nodes_a: Vec<NodeId>,
    /// The value that is read and should not be, where an edge is to blame.
    pub edge: Option<ValueId>,
    /// The cause (`docs/causes.md`).
    pub class: &'static str,
    /// One sentence with the numbers.
    pub summary: String,
    /// What is changed.
    pub change: String,
    /// The simpler a change, the cheaper.
    pub cost: u32,
}

/// The cost of putting all that A computes at a site in place of what B does.
pub const WHOLE: u32 = 60;

/// One kind of fault.
pub trait Cause: Sync {
    /// Changes to B that would undo such a fault here.
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>);
}

/// Every cause.
pub static CAUSES: &[&dyn Cause] = &[
    &attention::Attention,
    &attribute::Attribute,
    &constant::Constant,
    &operator::Operator,
    &order::Order,
    &extra::Extra,
    &missing::Missing,
    &layout::Layout,
    &turned::Turned,
    &ratio::Ratio,
    &function::Function,
];

/// Every proposal for a site, cheapest first, and of equal cost the earliest node first.
pub fn proposals(site: &Site<'_, '_, '_>) -> Vec<Proposal> {
    let mut out = Vec::new();
    for cause in CAUSES {
        cause.propose(site, &mut out);
    }
    for p in &mut out {
        if p.patches.iter().any(|(n, _)| serves_others(site, *n) || is_right_elsewhere(site, *n)) {
            p.cost += SERVES_OTHERS;
        }
    }
    out.sort_by_key(|p| (p.cost, p.patches.iter().map(|(n, _)| *n).min()));
    out
}

/// What settings and constants of the nodes at a site differ from A's, cheapest first.
pub fn of_numbers(site: &Site<'_, '_, '_>) -> Vec<Proposal> {
    let mut out = Vec::new();
    attribute::Attribute.propose(site, &mut out);
    constant::Constant.propose(site, &mut out);
    out.sort_by_key(|p| p.cost);
    out
}

/// Added to a change of a node whose output is right and is read by nodes that are right: it would break those.
const SERVES_OTHERS: u32 = 40;

/// Whether a change of a node would change what is right and what right nodes read, be it several steps on.
fn serves_others(site: &Site<'_, '_, '_>, n: NodeId) -> bool {
    let matched = |v: ValueId| site.state.is_matched(v);
    // Masks and places are few numbers each, and what they are for all the same.
    let tells = |v: &ValueId| {
        let float = site.judge.b.declared.is_float(*v);
        matched(*v) && !(float && site.state.matched[v.index()].as_ref().is_some_and(|m| m.degenerate))
    };
    // What is A's in another order only hands a wrong order on.
    let in_order = |v: ValueId| {
        let relation = site.state.matched[v.index()].as_ref().map(|m| &m.relation);
        matches!(relation, Some(Relation::Same | Relation::Reshaped))
    };
    let mut right: Vec<ValueId> = site.node_b(n).writes().filter(tells).collect();
    let mut next = 0;
    while next < right.len() {
        let v = right[next];
        next += 1;
        for &r in &site.judge.b.consumers[v.index()] {
            if !site.wide_b.nodes.contains(&r) {
                if site.node_b(r).writes().all(matched) {
                    return true;
                }
            } else if in_order(v) && site.node_b(r).writes().all(|w| tells(&w) && in_order(w)) {
                right.extend(site.node_b(r).writes().filter(|w| !right.contains(w)).collect::<Vec<_>>());
            }
        }
    }
    false
}

/// Whether a node leads at a site to a mask or some other value of few numbers that A makes as well and reads elsewhere, and
/// that nothing else in B is: it is right then, and read in the wrong place.
fn is_right_elsewhere(site: &Site<'_, '_, '_>, n: NodeId) -> bool {
    let (a, b) = (site.judge.a, site.judge.b);
    let class = |v: ValueId| site.state.matched[v.index()].as_ref().map(|m| site.judge.index.class(m.a));
    let read_beyond = |side: &Side<'_>, v: ValueId, region: &Region| {
        side.consumers[v.index()].iter().any(|r| !region.nodes.contains(r))
    };
    let mut made: Vec<ValueId> = site.node_b(n).writes().collect();
    let mut next = 0;
    while next < made.len() {
        let readers = b.consumers[made[next].index()].iter().filter(|r| site.wide_b.nodes.contains(r));
        next += 1;
        for w in readers.flat_map(|&r| site.node_b(r).writes()) {
            if w != site.point && !made.contains(&w) {
                made.push(w);
            }
        }
    }
    made.iter().any(|&v| {
        let degenerate = site.state.matched[v.index()].as_ref().is_some_and(|m| m.degenerate);
        let several = b.declared.get(v).is_some_and(|t| t.len() > 1);
        let Some(theirs) = class(v).filter(|_| degenerate && several) else { return false };
        let is_other = |w: ValueId| !made.contains(&w) && class(w) == Some(theirs);
        let of_class = |w: &ValueId| site.judge.index.class(*w) == theirs;
        read_beyond(b, v, &site.wide_b)
            && a.graph().value_ids().filter(of_class).any(|w| read_beyond(a, w, &site.wide_a))
            && !b.graph().value_ids().any(is_other)
    })
}

/// A call that writes one value in place of the output of `n` that the site is about; the others stay.
pub(crate) fn in_place_of(site: &Site<'_, '_, '_>, n: NodeId, patch: Patch) -> Patch {
    let node = site.node_b(n);
    if node.writes().count() < 2 {
        return patch;
    }
    let read = |v: ValueId| site.nodes_b().iter().any(|&r| site.node_b(r).reads().any(|w| w == v));
    let place = |wanted: &dyn Fn(ValueId) -> bool| node.outputs.iter().position(|v| v.is_some_and(wanted));
    let slot = place(&|v| v == site.point).or_else(|| place(&|v| !site.state.is_matched(v) && read(v)));
    slot.map_or(patch.clone(), |slot| patch.at(slot))
}

/// The nodes that stand for a region that ends at `end`: those that do not work on constants alone; all of them where
/// there are none. A constant is what is computed last, since shapes that are asked for lead to any node.
pub(crate) fn telling(side: &Side<'_>, region: &Region, end: ValueId) -> Vec<NodeId> {
    if let Some(last) = side.producer(end).filter(|_| side.is_constant(end)) {
        return vec![last];
    }
    let dynamic: Vec<NodeId> = region.dynamic_nodes(side).collect();
    if dynamic.is_empty() { region.nodes.clone() } else { dynamic }
}

/// The node of A's region that stands where a node of B does: of the same operator, or else of its kind.
pub(crate) fn twin(site: &Site<'_, '_, '_>, n: NodeId) -> Option<NodeId> {
    const KINDS: [fn(&str) -> bool; 4] =
        [role::is_product, role::is_activation, role::is_normalisation, role::is_reduction];
    let own = site.node_b(n).op.as_str();
    let find = |fits: &dyn Fn(&str) -> bool| {
        site.nodes_a().iter().copied().find(|&m| fits(site.node_a(m).op.as_str()))
    };
    find(&|op| op == own).or_else(|| {
        let kind = KINDS.into_iter().find(|kind| kind(own))?;
        find(&|op| kind(op))
    })
}

/// A node's name as people read it.
pub(crate) fn label(side: &Side<'_>, n: NodeId) -> String {
    let node = side.graph().node(n);
    format!("{} {}", node.op, side.graph().label(n))
}
