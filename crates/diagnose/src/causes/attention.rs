//! Attention fused on one side and written out on the other: `scale`, `mask`.
//!
//! **What it finds.** A fused attention whose scores are scaled otherwise than those that the other side computes from
//! the same queries and keys, step by step. No number of the one stands beside a number of the other: exporters split
//! a scale into two roots, or leave it out where it is the default. A fusion that does not know what A's mask hides: the
//! keys behind each query.
//! **Proof.** B's scores times the one ratio that fits everywhere (B's `scale` times it, where B is fused); B's attention
//! with its setting for causal masks the other way round.

use isotrace_align::patch::{Patch, Source};
use isotrace_align::{Region, Side};
use isotrace_graph::{Attribute as Setting, Node, NodeId, ValueId};
use isotrace_ops::Precision;
use isotrace_tensor::{DType, Tensor};

use super::{Cause, Proposal, label};
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Attention;

/// Masks and the like between a product and its softmax.
const MOST_STEPS: usize = 8;

impl Cause for Attention {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        let (a, b) = (site.judge.a, site.judge.b);
        let of_b = |v: ValueId| site.state.shadow[v.index()].clone();
        let of_a = |v: ValueId| a.shadow.get(v).cloned();
        if scores(a, &site.open_a).is_some() {
            out.extend(site.nodes_b().iter().filter_map(|&n| causal(site, n)));
        }
        if let (Some(m), Some(s)) = (fused(a, &site.open_a), scores(b, &site.open_b)) {
            let Some(own) = site.state.own_shadow[s.index()].clone() else { return };
            let Some((theirs, scale)) = products(site.node_a(m), &of_a) else { return };
            let Some(ratio) = ratio(&own, &theirs) else { return };
            out.extend(scaled(site, m, s, (scale, ratio)));
        } else if let (Some(n), Some(s)) = (fused(b, &site.open_b), scores(a, &site.open_a)) {
            let Some(theirs) = of_a(s) else { return };
            let Some((own, scale)) = products(site.node_b(n), &of_b) else { return };
            let Some(ratio) = ratio(&own, &theirs) else { return };
            out.extend(reset(site, n, s, (scale, ratio)));
        }
    }
}

/// The fused attention of a region, if there is just one.
fn fused(side: &Side<'_>, region: &Region) -> Option<NodeId> {
    let mut found = region.nodes.iter().copied().filter(|&n| {
        let node = side.graph().node(n);
        node.op == "Attention" && node.domain.is_empty()
    });
    found.next().filter(|_| found.next().is_none())
}

/// What the softmax of a region reads, masks taken off.
fn scores(side: &Side<'_>, region: &Region) -> Option<ValueId> {
    let graph = side.graph();
    let softmax = region.dynamic_nodes(side).find(|&n| graph.node(n).op == "Softmax")?;
    let mut v = graph.node(softmax).inputs.first().copied().flatten()?;
    for _ in 0..MOST_STEPS {
        let node = graph.node(side.producer(v)?);
        if !matches!(node.op.as_str(), "Add" | "Sub" | "Where") {
            return Some(v);
        }
        // What is as large as the sum and itself computed; a mask stands for many rows.
        let shape = side.declared.shape(v)?;
        let full = |r: ValueId| {
            !side.is_constant(r) && side.declared.shape(r) == Some(shape) && side.declared.is_float(r)
        };
        v = node.reads().find(|&r| full(r))?;
    }
    None
}

/// The scores of a fused attention on its float64 inputs, and its scale.
fn products(node: &Node, lookup: &dyn Fn(ValueId) -> Option<Tensor>) -> Option<(Tensor, f64)> {
    let (q, k) =
        (lookup(node.inputs.first().copied().flatten()?)?, lookup(node.inputs.get(1).copied().flatten()?)?);
    let ([_, heads, _, size], [_, groups, _, _]) = (q.shape(), k.shape()) else { return None };
    if heads != groups {
        return None;
    }
    let scale = match node.attributes.get("scale") {
        Some(Setting::Float(scale)) => f64::from(*scale),
        _ => (*size as f64).sqrt().recip(),
    };
    let call = |op: &str, settings: &[(&str, Setting)], sources: Vec<Source>| {
        let attributes = settings.iter().map(|(name, s)| ((*name).to_owned(), s.clone())).collect();
        let node = Node {
            name: String::new(),
            domain: String::new(),
            op: op.into(),
            version: 13,
            inputs: vec![None; sources.len()],
            // One output; which value it would be is never asked.
            outputs: vec![Some(ValueId(0))],
            attributes,
        };
        Patch::new(&node, sources)
    };
    let tensor = |t: Tensor| Source::Tensor { declared: t.clone(), shadow: t };
    let turned = call("Transpose", &[("perm", Setting::Ints(vec![0, 1, 3, 2]))], vec![tensor(k)])?;
    let product = call("MatMul", &[], vec![tensor(q), Source::Patch(Box::new(turned))])?;
    let scores = call("Mul", &[], vec![Source::Patch(Box::new(product)), tensor(Tensor::scalar(scale))])?;
    Some((scores.evaluate(Precision::Float64, &|_| None, None)?.into_iter().next()?, scale))
}

/// The one number by which `own` is to be multiplied to be `theirs`, where there is one and it is not 1.
fn ratio(own: &Tensor, theirs: &Tensor) -> Option<f64> {
    if own.len() != theirs.len() {
        return None;
    }
    let (x, y) = (own.to_f64().ok()?, theirs.to_f64().ok()?);
    let (xy, xx) = x.iter().zip(y.iter()).fold((0.0, 0.0), |(p, q), (x, y)| (p + x * y, q + x * x));
    let ratio = xy / xx;
    let largest = y.iter().fold(0.0, |m: f64, y| m.max(y.abs()));
    // Sums that cancel are as exact as what was summed.
    let fits = x.iter().zip(y.iter()).all(|(x, y)| (ratio * x - y).abs() <= 1e-5 * y.abs() + 1e-6 * largest);
    (ratio.is_finite() && ratio != 0.0 && (ratio - 1.0).abs() > 1e-7 && fits).then_some(ratio)
}

/// B's scores, written out, times the ratio.
fn scaled(site: &Site<'_, '_, '_>, m: NodeId, s: ValueId, (scale, ratio): (f64, f64)) -> Option<Proposal> {
    let n = site.judge.b.producer(s)?;
    let node = site.node_b(n);
    let inner = Patch::new(node, Patch::sources_of(node))?;
    let mul = Node {
        name: String::new(),
        domain: String::new(),
        op: "Mul".into(),
        version: 14,
        inputs: vec![None, None],
        outputs: node.outputs.iter().take(1).copied().collect(),
        attributes: isotrace_graph::Attributes::default(),
    };
    let shadow = Tensor::scalar(ratio);
    let declared = site.state.own_declared(s).map_or(DType::F32, Tensor::dtype);
    let factor = Source::Tensor { declared: shadow.cast(declared).ok()?, shadow };
    let patch = Patch::new(&mul, vec![Source::Patch(Box::new(inner)), factor])?;
    // The factors lie before the product, if they are not part of it.
    let product = site.open_b.nodes.iter().copied().filter(|&k| k <= n);
    let factors: Vec<NodeId> = product.filter(|&k| k == n || is_factor(site.judge.b, k)).collect();
    let named = factors.iter().copied().find(|&k| is_factor(site.judge.b, k)).unwrap_or(n);
    Some(Proposal {
        patches: vec![(n, patch)],
        nodes_b: if factors.is_empty() { vec![n] } else { factors },
        nodes_a: vec![m],
        edge: None,
        class: "scale",
        summary: summary(&label(site.judge.b, named), scale / ratio, &label(site.judge.a, m), scale),
        change: format!("scores multiplied by {ratio:e}"),
        cost: 12,
    })
}

/// B's setting times the ratio.
fn reset(site: &Site<'_, '_, '_>, n: NodeId, s: ValueId, (scale, ratio): (f64, f64)) -> Option<Proposal> {
    let node = site.node_b(n);
    let mut changed = node.clone();
    changed.attributes.insert("scale".into(), Setting::Float((scale * ratio) as f32));
    let patch = Patch::new(&changed, Patch::sources_of(node))?;
    let twin = site.judge.a.producer(s)?;
    Some(Proposal {
        patches: vec![(n, patch)],
        nodes_b: vec![n],
        nodes_a: vec![twin],
        edge: None,
        class: "scale",
        summary: summary(&label(site.judge.b, n), scale, &label(site.judge.a, twin), scale * ratio),
        change: format!("scale {:e}", scale * ratio),
        cost: 12,
    })
}

/// B's attention with the keys behind each query hidden, or shown, whichever it does not do.
fn causal(site: &Site<'_, '_, '_>, n: NodeId) -> Option<Proposal> {
    let node = site.node_b(n);
    let name = match (node.domain.as_str(), node.op.as_str()) {
        ("", "Attention") => "is_causal",
        ("com.microsoft", "Attention" | "MultiHeadAttention") => "unidirectional",
        _ => return None,
    };
    let hides = matches!(node.attributes.get(name), Some(Setting::Int(i)) if *i != 0);
    let mut changed = node.clone();
    changed.attributes.insert(name.into(), Setting::Int(i64::from(!hides)));
    let patch = Patch::new(&changed, Patch::sources_of(node))?;
    let (own, theirs) = if hides { ("hides", "shows") } else { ("shows", "hides") };
    Some(Proposal {
        patches: vec![(n, patch)],
        nodes_b: vec![n],
        nodes_a: Vec::new(),
        edge: None,
        class: "mask",
        summary: format!(
            "{} {own} the keys behind each query, which A, written out, {theirs}",
            label(site.judge.b, n)
        ),
        change: format!("{name} {}", i64::from(!hides)),
        cost: 12,
    })
}

fn is_factor(side: &Side<'_>, n: NodeId) -> bool {
    let node = side.graph().node(n);
    matches!(node.op.as_str(), "Mul" | "Div")
        && node.reads().any(|v| side.is_constant(v) && side.declared.get(v).is_some_and(|t| t.len() == 1))
        && !role::is_layout(&node.op)
}

fn summary(own: &str, scale: f64, theirs: &str, other: f64) -> String {
    format!("the scores of attention at {own} are scaled by {scale:.9}, in A ({theirs}) by {other:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_has_to_fit_everywhere() {
        let x = |values: &[f64]| Tensor::vector(values.to_vec());
        let cases: [(&[f64], &[f64], Option<f64>); 6] = [
            (&[1.0, -2.0, 3.0], &[2.0, -4.0, 6.0], Some(2.0)),
            (&[8.0, 4.0], &[1.0, 0.5], Some(0.125)),
            // The same is no other scale, and neither is what one element denies.
            (&[1.0, -2.0, 3.0], &[1.0, -2.0, 3.0], None),
            (&[1.0, -2.0, 3.0], &[2.0, -4.0, 6.1], None),
            (&[1.0, 2.0], &[0.0, 0.0], None),
            (&[1.0, 2.0], &[2.0, 4.0, 6.0], None),
        ];
        for (own, theirs, expected) in cases {
            assert_eq!(ratio(&x(own), &x(theirs)), expected, "{own:?} {theirs:?}");
        }
    }

    #[test]
    fn scores_are_queries_times_keys_times_the_scale() {
        let mut node = Node {
            name: String::new(),
            domain: String::new(),
            op: "Attention".into(),
            version: 23,
            inputs: vec![Some(ValueId(0)), Some(ValueId(1)), None],
            outputs: vec![Some(ValueId(2))],
            attributes: std::collections::BTreeMap::default(),
        };
        let q = Tensor::from_vec(&[1, 1, 1, 4], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let k = Tensor::from_vec(&[1, 1, 2, 4], vec![1.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0]).unwrap();
        let look = |v: ValueId| Some(if v.0 == 0 { q.clone() } else { k.clone() });
        // Without a setting it is the inverse root of the size of a head.
        let (scores, scale) = products(&node, &look).unwrap();
        assert_eq!((scores.to_f64().unwrap().to_vec(), scale), (vec![2.5, 2.0], 0.5));
        node.attributes.insert("scale".into(), Setting::Float(0.25));
        let (scores, scale) = products(&node, &look).unwrap();
        assert_eq!((scores.to_f64().unwrap().to_vec(), scale), (vec![1.25, 1.0], 0.25));
        // Heads that share keys are left to others.
        let shared = Tensor::from_vec(&[1, 2, 1, 4], vec![1.0; 8]).unwrap();
        assert!(products(&node, &|v| Some(if v.0 == 0 { shared.clone() } else { k.clone() })).is_none());
    }
}
