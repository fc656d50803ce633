//! The causes that two graphs show by themselves: one file each.
//!
//! A cause looks at a [`Site`] and proposes changes to B, each of which would undo one kind of fault. A proposal is
//! believed only if B, so changed, computes what A computes on the same inputs: its counterfactual is its proof.
//! Where several hold, the one of least cost wins.

mod attribute;
mod constant;
mod extra;
mod layout;
mod missing;
mod operator;
mod order;
mod ratio;

use isotrace_align::patch::Patch;
use isotrace_graph::NodeId;

use crate::site::Site;

/// A change to B that might undo the fault, and what the fault would be called.
pub struct Proposal {
    /// Nodes of B that compute something else.
    pub patches: Vec<(NodeId, Patch)>,
    /// The nodes to name on B's side.
    pub nodes_b: Vec<NodeId>,
    /// The nodes to name on A's side.
    pub nodes_a: Vec<NodeId>,
    /// The cause (`docs/causes.md`).
    pub class: &'static str,
    /// One sentence with the numbers.
    pub summary: String,
    /// What is changed.
    pub change: String,
    /// The simpler a change, the cheaper.
    pub cost: u32,
}

/// One kind of fault.
pub trait Cause: Sync {
    /// Changes to B that would undo such a fault here.
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>);
}

/// Every cause.
pub static CAUSES: &[&dyn Cause] = &[
    &attribute::Attribute,
    &constant::Constant,
    &operator::Operator,
    &order::Order,
    &extra::Extra,
    &missing::Missing,
    &layout::Layout,
    &ratio::Ratio,
];

/// Every proposal for a site, cheapest first, and of equal cost the earliest node first.
pub fn proposals(site: &Site<'_, '_, '_>) -> Vec<Proposal> {
    let mut out = Vec::new();
    for cause in CAUSES {
        cause.propose(site, &mut out);
    }
    out.sort_by_key(|p| (p.cost, p.patches.iter().map(|(n, _)| *n).min()));
    out
}

/// A node's name as people read it.
pub(crate) fn label(side: &isotrace_align::Side<'_>, n: NodeId) -> String {
    let node = side.graph().node(n);
    format!("{} {}", node.op, side.graph().label(n))
}
