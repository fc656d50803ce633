//! A value is laid out otherwise than where A reads it: `layout`.
//!
//! **What it finds.** A transpose with another permutation, a reshape that groups other elements: sizes may agree,
//! so that nothing complains.
//! **Proof.** The node reads A's value in A's layout. The layout operator before it is named.

use isotrace_align::patch::{Patch, Source};
use isotrace_align::{Region, Relation, Side};
use isotrace_graph::{NodeId, ValueId};

use super::order::exchanged_behind;
use super::{Cause, Proposal, label};
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Layout;

impl Cause for Layout {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        for &n in site.nodes_b() {
            let node = site.node_b(n);
            for (slot, v) in node.inputs.iter().enumerate() {
                let Some(v) = *v else { continue };
                let Some(m) = &site.state.matched[v.index()] else { continue };
                if site.judge.b.is_constant(v) {
                    continue;
                }
                let Some(own) = &site.state.shadow[v.index()] else { continue };
                // Every value of A that holds these numbers, in the layouts in which A reads them here.
                let class = site.judge.index.class(m.a);
                let read: Vec<ValueId> = site
                    .nodes_a()
                    .iter()
                    .flat_map(|&m| site.node_a(m).inputs.iter().flatten().copied().collect::<Vec<_>>())
                    .filter(|&a| site.judge.index.class(a) == class)
                    .collect();
                for a in read.into_iter().chain([m.a]) {
                    let (Some(shadow), Some(declared)) =
                        (site.judge.a.shadow.get(a), site.judge.a.declared.get(a))
                    else {
                        continue;
                    };
                    let carry = |t| Relation::Reshaped.carry(t, own.shape());
                    let (Some(shadow), Some(declared)) = (carry(shadow), carry(declared)) else { continue };
                    if shadow.bit_eq(own) {
                        continue;
                    }
                    let mut sources = Patch::sources_of(node);
                    sources[slot] = Source::Tensor { declared, shadow };
                    let Some(patch) = Patch::new(node, sources) else { continue };
                    let change = format!("{:?} in A's layout", site.judge.b.graph().value(v).name);
                    if let Some((product, summary)) = exchanged_behind(site, v) {
                        let nodes_a = site.judge.a.producer(a).into_iter().collect();
                        let (patches, nodes_b) = (vec![(n, patch)], vec![product]);
                        let class = "weight_swap";
                        out.push(Proposal {
                            patches,
                            nodes_b,
                            nodes_a,
                            edge: None,
                            class,
                            summary,
                            change,
                            cost: 19,
                        });
                        continue;
                    }
                    if let Some((product, theirs)) = other_way(site, v, a) {
                        out.push(Proposal {
                            patches: vec![(n, patch)],
                            nodes_b: vec![product],
                            nodes_a: vec![theirs],
                            edge: None,
                            class: "operand_order",
                            summary: format!(
                                "{} multiplies the other way round: what it writes is A's transposed",
                                label(site.judge.b, product)
                            ),
                            change,
                            cost: 19,
                        });
                        continue;
                    }
                    let turned = layout_node(site, v);
                    let culprit = turned.unwrap_or(n);
                    let twin = site
                        .nodes_a()
                        .iter()
                        .copied()
                        .find(|&m| site.node_a(m).op == site.node_b(culprit).op);
                    out.push(Proposal {
                        patches: vec![(n, patch)],
                        nodes_b: vec![culprit],
                        nodes_a: twin.into_iter().collect(),
                        // Where nothing near turned it, the value itself is to blame.
                        edge: turned.is_none().then_some(v),
                        class: "layout",
                        summary: format!(
                            "{} hands on the right numbers in another order than A reads them",
                            label(site.judge.b, culprit)
                        ),
                        change,
                        cost: 19,
                    });
                }
            }
        }
    }
}

/// Where a value of B and the one of A that it should be are products of two computed values, and of one shape: the
/// products. The numbers of the one are the other's in another order then because its operands were exchanged.
pub(super) fn other_way(site: &Site<'_, '_, '_>, v: ValueId, a: ValueId) -> Option<(NodeId, NodeId)> {
    let (own, theirs) = (product_behind(site.judge.b, v)?, product_behind(site.judge.a, a)?);
    let shape = |side: &Side<'_>, n: NodeId| {
        let written = side.graph().node(n).writes().next().and_then(|v| side.declared.get(v));
        written.map(|t| t.shape().to_vec())
    };
    (shape(site.judge.b, own) == shape(site.judge.a, theirs)).then_some((own, theirs))
}

/// The product of two computed values that a value is but for a factor.
fn product_behind(side: &Side<'_>, mut v: ValueId) -> Option<NodeId> {
    loop {
        let n = side.producer(v)?;
        let node = side.graph().node(n);
        if role::is_product(&node.op) {
            return (side.dynamic_inputs(n).len() > 1).then_some(n);
        }
        let number = |v: ValueId| side.is_constant(v) && side.declared.get(v).is_some_and(|t| t.len() == 1);
        let [read] = side.dynamic_inputs(n)[..] else { return None };
        let scales =
            matches!(node.op.as_str(), "Mul" | "Div") && node.inputs.iter().flatten().any(|&v| number(v));
        if !scales {
            return None;
        }
        v = read;
    }
}

/// The layout operator that gave a value its order.
fn layout_node(site: &Site<'_, '_, '_>, mut v: ValueId) -> Option<NodeId> {
    let mut found = None;
    for _ in 0..6 {
        let n = site.judge.b.producer(v)?;
        if !role::is_layout(&site.node_b(n).op) {
            break;
        }
        if site.node_b(n).op == "Transpose" {
            return Some(n);
        }
        found = found.or(Some(n));
        v = site.node_b(n).inputs.first().copied().flatten()?;
    }
    found
}

/// Whether an operator of a region moves the elements of what hides scores, and none moves other elements.
pub(super) fn lays_out_a_mask(side: &Side<'_>, region: &Region) -> bool {
    let moves = |n: &NodeId| side.graph().node(*n).op == "Transpose";
    let mut written =
        region.dynamic_nodes(side).filter(moves).flat_map(|n| side.graph().node(n).writes()).peekable();
    written.peek().is_some() && written.all(|v| side.shadow.get(v).is_some_and(role::masks))
}

/// Whether a region repeats or moves statistics to which values are brought, and nothing else.
pub(super) fn lays_out_statistics(side: &Side<'_>, region: &Region) -> bool {
    let moves = |n: &NodeId| matches!(side.graph().node(*n).op.as_str(), "Transpose" | "Expand" | "Tile");
    let mut moving = region.dynamic_nodes(side).filter(moves).peekable();
    let brings = |n: NodeId| {
        side.graph().node(n).writes().all(|v| role::is_statistic(side, v)) && role::normalises(side, n)
    };
    moving.peek().is_some() && moving.all(brings)
}
