//! A value is laid out otherwise than where A reads it: `layout`.
//!
//! **What it finds.** A transpose with another permutation, a reshape that groups other elements: sizes may agree,
//! so that nothing complains.
//! **Proof.** The node reads A's value in A's layout. The layout operator before it is named.

use isotrace_align::Relation;
use isotrace_align::patch::{Patch, Source};
use isotrace_graph::{NodeId, ValueId};

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
                    let culprit = layout_node(site, v).unwrap_or(n);
                    let twin = site
                        .nodes_a()
                        .iter()
                        .copied()
                        .find(|&m| site.node_a(m).op == site.node_b(culprit).op);
                    out.push(Proposal {
                        patches: vec![(n, patch)],
                        nodes_b: vec![culprit],
                        nodes_a: twin.into_iter().collect(),
                        edge: None,
                        class: "layout",
                        summary: format!(
                            "{} hands on the right numbers in another order than A reads them",
                            label(site.judge.b, culprit)
                        ),
                        change: format!("{:?} in A's layout", site.judge.b.graph().value(v).name),
                        cost: 19,
                    });
                }
            }
        }
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
