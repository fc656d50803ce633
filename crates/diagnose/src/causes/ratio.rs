//! One ratio fits all: `scale`.
//!
//! **What it finds.** A factor that neither side spells out in the same way: 1/sqrt(768) where 1/sqrt(64) is meant,
//! applied to the query on one side and to the scores on the other.
//! **Proof.** B's value divided by that one ratio is A's value, element by element.

use isotrace_align::Side;
use isotrace_align::patch::{Patch, Source};
use isotrace_graph::{Node, NodeId, ValueId};
use isotrace_tensor::Tensor;

use super::{Cause, Proposal, label};
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Ratio;

impl Cause for Ratio {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        let Some(n) = site.judge.b.producer(site.point) else { return };
        let (Some(own), Some(theirs)) =
            (&site.state.own_shadow[site.point.index()], site.judge.a.shadow.get(site.candidate))
        else {
            return;
        };
        let Some(theirs) = site.relation.carry(theirs, own.shape()) else { return };
        let (Ok(x), Ok(y)) = (own.to_f64(), theirs.to_f64()) else { return };
        let pairs = || x.iter().zip(y.iter()).filter(|(x, y)| x.abs() < 1e30 && y.abs() < 1e30);
        let (xy, xx) = pairs().fold((0.0, 0.0), |(p, q), (x, y)| (p + x * y, q + x * x));
        let factor = xy / xx;
        if !own.dtype().is_float() || !factor.is_finite() || factor == 0.0 || (factor - 1.0).abs() < 1e-7 {
            return;
        }
        let fits = pairs().all(|(x, y)| (factor * x - y).abs() <= 1e-5 * y.abs() + 1e-30);
        if !fits {
            return;
        }
        let widths = site
            .open_b
            .boundary
            .iter()
            .chain([&site.point])
            .filter_map(|v| site.state.shadow[v.index()].as_ref());
        let unbiased = widths.flat_map(|t| t.shape().to_vec()).filter(|&n| n > 2).find(|&n| {
            let ratio = n as f64 / (n - 1) as f64;
            [ratio, ratio.sqrt()].iter().any(|r| [factor, 1.0 / factor].iter().any(|k| (k - r).abs() < 1e-6))
        });
        // Name the node that multiplies by a number, if there is one, or by anything; else what ends the region.
        let multiplies = |node: &Node| {
            matches!(node.op.as_str(), "Mul" | "Div")
                || node.attributes.contains_key("alpha")
                || node.attributes.contains_key("scale")
        };
        let (a, b) = (site.judge.a, site.judge.b);
        let factor_in = |side: &Side<'_>, nodes: &[NodeId]| {
            let node = |m: NodeId| side.graph().node(m);
            let single = |v: ValueId| side.is_constant(v) && side.declared.count(v) == Some(1);
            let set = |m: NodeId| !matches!(node(m).op.as_str(), "Mul" | "Div");
            let number = |m: NodeId| multiplies(node(m)) && (set(m) || node(m).reads().any(single));
            let first = |f: &dyn Fn(NodeId) -> bool| nodes.iter().copied().find(|&m| f(m));
            first(&number).or_else(|| first(&|m| multiplies(node(m))))
        };
        let named = factor_in(b, site.nodes_b()).unwrap_or(n);
        let twin = factor_in(a, site.nodes_a());
        let node = site.node_b(n);
        let Some(inner) = Patch::new(node, Patch::sources_of(node)) else { return };
        let mul = Node {
            name: String::new(),
            domain: String::new(),
            op: "Mul".into(),
            version: 14,
            inputs: vec![None, None],
            outputs: node.outputs.iter().take(1).copied().collect(),
            attributes: isotrace_graph::Attributes::default(),
        };
        let declared = site.state.own_declared(site.point).map_or(own.dtype(), Tensor::dtype);
        let shadow = Tensor::scalar(factor);
        let Ok(low) = shadow.cast(declared) else { return };
        let sources = vec![Source::Patch(Box::new(inner)), Source::Tensor { declared: low, shadow }];
        let Some(patch) = Patch::new(&mul, sources).map(|patch| super::in_place_of(site, n, patch)) else {
            return;
        };
        out.push(Proposal {
            patches: vec![(n, patch)],
            nodes_b: vec![named],
            nodes_a: twin.into_iter().collect(),
            edge: None,
            class: match unbiased {
                Some(_) => "normalisation",
                None if role::is_rotated(site.judge.b, site.point)
                    || twin.is_some_and(|m| role::turns(site.judge.a, m)) =>
                {
                    "rope"
                }
                // Both sides have a factor next to a curve: it is part of the curve.
                None if twin.is_some()
                    && multiplies(site.node_b(named))
                    && role::is_beside_activation(site.judge.b, n)
                    && !role::is_nearly_right(factor) =>
                {
                    "activation"
                }
                None => "scale",
            },
            summary: match unbiased {
                Some(n) => format!(
                    "{} differs as {n} - 1 does from {n}: a variance over {n} elements, unbiased on one side",
                    label(site.judge.b, named)
                ),
                None => format!(
                    "{} is {:.9} times what A computes, everywhere",
                    label(site.judge.b, named),
                    1.0 / factor
                ),
            },
            change: format!("multiplied by {factor:e}"),
            cost: 26,
        });
    }
}
