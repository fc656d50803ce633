//! B does something more: a node that A has not.
//!
//! **What it finds.** A scale applied twice, an offset added to an index, a mask where A has none, a cast, a transpose
//! behind a reshape.
//! **Proof.** The node hands its input on unchanged. What the fault is called follows from the part the node plays
//! ([`role::of_presence`]).

use isotrace_align::patch::{Patch, Source};
use isotrace_align::{Region, Side};
use isotrace_graph::{Node, NodeId, ValueId};

use super::function::{expanded, reshaped};
use super::{Cause, Proposal, label};
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Extra;

impl Cause for Extra {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        for &n in site.nodes_b() {
            let node = site.node_b(n);
            let Some(Some(output)) = node.outputs.first() else { continue };
            if node.op == "Identity" {
                continue;
            }
            let Some(shape) = site.state.own_shadow[output.index()].as_ref().map(|t| t.shape().to_vec())
            else {
                continue;
            };
            for v in site.judge.b.dynamic_inputs(n) {
                let Some(own) = site.state.shadow[v.index()].as_ref() else { continue };
                let patch = if own.shape() == shape {
                    identity(node, Source::Value(v))
                } else if spreads(own.shape(), &shape)
                    && matches!(node.op.as_str(), "Add" | "Sub" | "Mul" | "Div")
                {
                    // What it does for each head, say, or each item is too much; the rest is repeated for all.
                    expanded(Source::Value(v), &shape)
                } else if role::is_layout(&node.op) && own.len() == shape.iter().product::<usize>() {
                    // What is moved may have been given another shape before.
                    reshaped(Source::Value(v), &shape)
                } else {
                    None
                };
                let Some(patch) = patch else { continue };
                out.push(Proposal {
                    patches: vec![(n, patch)],
                    nodes_b: vec![n],
                    nodes_a: Vec::new(),
                    edge: None,
                    class: role::of_presence(site.judge.b, n),
                    summary: format!("B computes {}, which A does not have", label(site.judge.b, n)),
                    change: format!("without {}", label(site.judge.b, n)),
                    // It is all that the two have not in common: what else holds is another way to say it.
                    cost: if is_all(site, n) || is_right_before(site, n, v) { 15 } else { 20 },
                });
            }
        }
    }
}

/// Whether a node is all that one region has and the other has not, layout aside.
fn is_all(site: &Site<'_, '_, '_>, n: NodeId) -> bool {
    let of = |side: &Side<'_>, region: &Region, but: Option<NodeId>| {
        let working = region.dynamic_nodes(side).filter(|&m| Some(m) != but);
        let mut ops: Vec<String> = working
            .map(|m| side.graph().node(m).op.clone())
            .filter(|op| !role::is_layout(op) && op != "Identity")
            .collect();
        ops.sort_unstable();
        ops
    };
    let (a, b) = (site.judge.a, site.judge.b);
    of(a, &site.open_a, None) == of(b, &site.open_b, Some(n))
}

/// Whether a node puts A's value, which it reads, into another order: what made that is right, though another order of its
/// parts would undo the node as well.
fn is_right_before(site: &Site<'_, '_, '_>, n: NodeId, read: ValueId) -> bool {
    let class = |v: ValueId| site.judge.index.class(v);
    let matched = site.state.matched[read.index()].as_ref().filter(|m| !m.relation.is_permuted());
    site.judge.b.moves(n)
        && site.node_b(n).writes().any(|v| v == site.point)
        && matched.is_some_and(|m| class(m.a) == class(site.candidate))
}

/// Whether a smaller shape is repeated to fill a larger one.
fn spreads(own: &[usize], all: &[usize]) -> bool {
    let fits = |(x, y): (&usize, &usize)| *x == 1 || x == y;
    own.len() <= all.len() && own != all && own.iter().rev().zip(all.iter().rev()).all(fits)
}

/// A call that hands on what it reads, in place of `node`.
pub fn identity(node: &Node, source: Source) -> Option<Patch> {
    let identity = Node {
        op: "Identity".into(),
        domain: String::new(),
        version: 13,
        attributes: isotrace_graph::Attributes::default(),
        inputs: vec![None],
        outputs: node.outputs.iter().take(1).copied().collect(),
        name: String::new(),
    };
    Patch::new(&identity, vec![source])
}
