//! Operands stand in another order: `operand_order`, `rope` (halves swapped), `weight_layout` (stacked parts swapped).
//!
//! **What it finds.** a - b for b - a, a / b for b / a, a product with its factors exchanged, parts concatenated or
//! split in another order.
//! **Proof.** The node reads its inputs in the other order.

use isotrace_align::patch::Patch;

use super::{Cause, Proposal, label};
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Order;

/// Parts whose orders are tried.
const MOST_PARTS: usize = 4;

impl Cause for Order {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        for &n in site.nodes_b() {
            let node = site.node_b(n);
            let swaps: Vec<(usize, usize)> = match node.op.as_str() {
                "Sub" | "Div" | "MatMul" | "Pow" | "Gemm" | "FusedMatMul" | "Less" | "Greater"
                | "LessOrEqual" | "GreaterOrEqual" | "Mod" => vec![(0, 1)],
                "Where" => vec![(1, 2)],
                "Concat" if node.inputs.len() <= MOST_PARTS => {
                    let k = node.inputs.len();
                    (0..k).flat_map(|i| (i + 1..k).map(move |j| (i, j))).collect()
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
