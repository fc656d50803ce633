//! Operands stand in another order: `operand_order`, `rope` (halves swapped), `weight_layout` (stacked parts swapped).
//!
//! **What it finds.** a - b for b - a, a / b for b / a, a product with its factors exchanged, parts concatenated or
//! split in another order.
//! **Proof.** The node reads its inputs in the other order.

use isotrace_align::patch::Patch;
use isotrace_graph::NodeId;

use super::{Cause, Proposal, label};
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Order;

/// Parts of which every exchange of two is tried; of more, only A's order.
const MOST_PARTS: usize = 4;

impl Cause for Order {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        for &n in site.nodes_b() {
            let node = site.node_b(n);
            let swaps: Vec<(usize, usize)> = match node.op.as_str() {
                "Sub" | "Div" | "MatMul" | "Pow" | "Gemm" | "FusedMatMul" | "Less" | "Greater"
                | "LessOrEqual" | "GreaterOrEqual" | "Mod" => vec![(0, 1)],
                "Where" => vec![(1, 2)],
                // Queries, keys and values; what is packed into fewer inputs has nothing to exchange here.
                op if role::is_attention(op) => vec![(0, 1), (1, 2), (0, 2)],
                "Concat" if node.inputs.len() <= MOST_PARTS => {
                    let k = node.inputs.len();
                    (0..k).flat_map(|i| (i + 1..k).map(move |j| (i, j))).collect()
                }
                "Concat" => {
                    as_in_a(site, n, out);
                    continue;
                }
                _ => continue,
            };
            for (i, j) in swaps {
                if j >= node.inputs.len() || node.inputs[i] == node.inputs[j] {
                    continue;
                }
                let mut sources = Patch::sources_of(node);
                sources.swap(i, j);
                let Some(patch) = Patch::new(node, sources) else { continue };
                let twin = site.nodes_a().iter().copied().find(|&m| site.node_a(m).op == node.op);
                let rotary = node.op == "Concat" && node.writes().any(|v| role::is_rotated(site.judge.b, v));
                let class = match node.op.as_str() {
                    "Where" => "mask",
                    _ if rotary => "rope",
                    _ => "operand_order",
                };
                out.push(Proposal {
                    patches: vec![(n, patch)],
                    nodes_b: vec![n],
                    nodes_a: twin.into_iter().collect(),
                    edge: None,
                    class,
                    summary: format!("inputs {i} and {j} of {} are exchanged", label(site.judge.b, n)),
                    change: format!("inputs {i} and {j} exchanged back"),
                    cost: 16,
                });
            }
        }
    }
}

/// The parts in the order in which A joins them, where B joins the same parts.
fn as_in_a(site: &Site<'_, '_, '_>, n: NodeId, out: &mut Vec<Proposal>) {
    let node = site.node_b(n);
    let class_b = |slot: usize| site.partner(node.inputs[slot]?).map(|a| site.judge.index.class(a));
    for &m in site.nodes_a() {
        let other = site.node_a(m);
        if other.op != node.op || other.inputs.len() != node.inputs.len() {
            continue;
        }
        let mut left: Vec<usize> = (0..node.inputs.len()).collect();
        let mut order = Vec::new();
        for a in &other.inputs {
            let class = a.map(|a| site.judge.index.class(a));
            let Some(at) = left.iter().position(|&slot| class_b(slot) == class) else { break };
            order.push(left.remove(at));
        }
        if !left.is_empty() || order.is_sorted() {
            continue;
        }
        let own = Patch::sources_of(node);
        let Some(patch) = Patch::new(node, order.iter().map(|&slot| own[slot].clone()).collect()) else {
            continue;
        };
        let moved = order.iter().enumerate().filter(|(i, slot)| i != *slot).count();
        out.push(Proposal {
            patches: vec![(n, patch)],
            nodes_b: vec![n],
            nodes_a: vec![m],
            edge: None,
            class: "operand_order",
            summary: format!(
                "{} joins the parts of A's {} in another order: {moved} of {} stand elsewhere",
                label(site.judge.b, n),
                label(site.judge.a, m),
                order.len()
            ),
            change: format!("parts in the order {order:?}"),
            cost: 16,
        });
    }
}
