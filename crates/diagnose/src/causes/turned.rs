//! A weight lies the wrong way round: `weight_layout`.
//!
//! **What it finds.** A kernel mirrored or with its axes exchanged, a square matrix transposed, where A holds no weight
//! that could be put in its place: a norm is folded into it, or it is stored in blocks.
//! **Proof.** B's own weight, turned back; the region then computes what A's computes.

use isotrace_align::patch::{Patch, Source};
use isotrace_graph::NodeId;
use isotrace_tensor::Tensor;

use super::numbers::by_channel;
use super::{Cause, Proposal, label};
use crate::pool;
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Turned;

/// Products at a site whose weights are turned; in a wider one the place is in doubt, not a weight.
const MOST_PRODUCTS: usize = 6;

impl Cause for Turned {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        let products = |n: &NodeId| {
            let op = &site.node_b(*n).op;
            role::is_product(op) && op != "Einsum"
        };
        let products: Vec<NodeId> = site.nodes_b().iter().copied().filter(products).collect();
        if products.len() > MOST_PRODUCTS {
            return;
        }
        let twins: Vec<NodeId> =
            site.nodes_a().iter().copied().filter(|&m| role::is_product(&site.node_a(m).op)).collect();
        for n in products {
            propose_turns(site, n, &twins, out);
        }
    }
}

fn propose_turns(site: &Site<'_, '_, '_>, n: NodeId, twins: &[NodeId], out: &mut Vec<Proposal>) {
    let b = site.judge.b;
    let node = site.node_b(n);
    let constant = node.inputs.iter().enumerate().take(2).find_map(|(slot, v)| {
        let v = (*v).filter(|&v| b.is_constant(v))?;
        Some((slot, v, b.shadow.get(v)?, b.declared.get(v)?))
    });
    let Some((slot, v, own, declared)) = constant else { return };
    for turn in turns(own.shape()) {
        let (Some(shadow), Some(low)) = (turn.applied(own), turn.applied(declared)) else { continue };
        if pool::same_numbers(&shadow, own) {
            continue;
        }
        let mut sources = Patch::sources_of(node);
        sources[slot] = Source::Tensor { declared: low, shadow };
        let Some(patch) = Patch::new(node, sources) else { continue };
        let name = &b.graph().value(v).name;
        out.push(Proposal {
            patches: vec![(n, patch)],
            nodes_b: vec![n],
            nodes_a: twins.to_vec(),
            edge: Some(v).filter(|&v| b.producer(v).is_some()),
            class: "weight_layout",
            summary: format!(
                "{} reads {name:?}, which lies the wrong way round: {}",
                label(b, n),
                turn.said()
            ),
            change: format!("{name:?} with {}", turn.said()),
            cost: 25,
        });
    }
}

/// How `own` lies against `right`, where it holds the numbers of it turned, but for a factor for each channel: what a
/// norm that was folded into both leaves.
pub(super) fn of_channels(own: &Tensor, right: &Tensor) -> Option<String> {
    let mut all = turns(right.shape());
    let outer = (0..right.rank().min(2)).filter(|&axis| right.shape()[axis] > 1);
    all.extend(outer.map(|axis| Turn { exchanged: None, reversed: vec![axis] }));
    all.iter().find(|turn| turn.applied(right).is_some_and(|t| by_channel(own, &t))).map(Turn::said)
}

/// How `own` lies against `right`, where it is nearly it, turned.
pub(super) fn lies(own: &Tensor, right: &Tensor) -> Option<String> {
    turns(right.shape())
        .iter()
        .find(|turn| turn.applied(right).is_some_and(|t| near(own, &t)))
        .map(Turn::said)
}

/// Whether two tensors of one shape hold the same numbers but for what folding a norm rounds.
pub(super) fn near(x: &Tensor, y: &Tensor) -> bool {
    let (Ok(p), Ok(q)) = (x.to_f64(), y.to_f64()) else { return false };
    let largest = q.iter().fold(0f64, |m, v| m.max(v.abs()));
    x.shape() == y.shape() && p.iter().zip(q.iter()).all(|(p, q)| (p - q).abs() <= 1e-5 * largest)
}

/// Another way for a weight to lie.
#[derive(Clone)]
struct Turn {
    exchanged: Option<[usize; 2]>,
    reversed: Vec<usize>,
}

impl Turn {
    fn applied(&self, of: &Tensor) -> Option<Tensor> {
        let mut turned = of.clone();
        if let Some([i, j]) = self.exchanged {
            let mut order: Vec<usize> = (0..of.rank()).collect();
            order.swap(i, j);
            turned = turned.permute(&order).ok()?;
        }
        for &axis in &self.reversed {
            turned = backwards(&turned, axis)?;
        }
        Some(turned)
    }

    fn said(&self) -> String {
        let mut parts = Vec::new();
        if let Some([i, j]) = self.exchanged {
            parts.push(format!("axes {i} and {j} exchanged"));
        }
        if !self.reversed.is_empty() {
            parts.push(format!("axes {:?} reversed", self.reversed));
        }
        parts.join(", ")
    }
}

/// A tensor with one of its axes run through from the end.
fn backwards(of: &Tensor, axis: usize) -> Option<Tensor> {
    let (size, inner) = (of.shape()[axis], of.shape()[axis + 1..].iter().product::<usize>());
    let numbers = of.to_f64().ok()?;
    let slabs = numbers.chunks((size * inner).max(1)).flat_map(|slab| slab.chunks(inner).rev().flatten());
    Tensor::from_vec(of.shape(), slabs.copied().collect::<Vec<f64>>()).ok()?.cast(of.dtype()).ok()
}

/// The ways in which a weight of this shape may lie: a matrix transposed, a kernel mirrored or turned, its filters and
/// channels exchanged.
fn turns(shape: &[usize]) -> Vec<Turn> {
    let exchange = |i: usize, j: usize| (shape[i] == shape[j] && shape[i] > 1).then_some([i, j]);
    if shape.len() < 2 {
        return Vec::new();
    }
    let mut turns: Vec<Turn> =
        exchange(0, 1).into_iter().map(|e| Turn { exchanged: Some(e), reversed: Vec::new() }).collect();
    let space: Vec<usize> = (2..shape.len()).filter(|&axis| shape[axis] > 1).collect();
    let mut exchanges = vec![None];
    if let [.., i, j] = space[..] {
        exchanges.extend(exchange(i, j).map(Some));
    }
    for exchanged in exchanges {
        for mirrored in 0..1usize << space.len() {
            let reversed: Vec<usize> = space
                .iter()
                .enumerate()
                .filter(|(k, _)| mirrored >> k & 1 == 1)
                .map(|(_, &axis)| axis)
                .collect();
            if exchanged.is_some() || !reversed.is_empty() {
                turns.push(Turn { exchanged, reversed });
            }
        }
    }
    // Few changes before many.
    turns.sort_by_key(|t| usize::from(t.exchanged.is_some()) + t.reversed.len());
    turns
}
