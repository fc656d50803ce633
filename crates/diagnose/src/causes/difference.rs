//! What two regions have not in common: the parts of one that nothing in the other stands for, and what kind of fault
//! their absence or presence is.

use isotrace_align::{Region, Side};
use isotrace_graph::{Attribute, NodeId, ValueId};

use crate::role;
use crate::site::Site;

/// The kind of fault when one region's nodes stand in for the other's, where the operators tell.
pub fn kind(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region) -> Option<&'static str> {
    let (a, b) = (site.judge.a, site.judge.b);
    let (of_a, of_b) = (parts(a, in_a), parts(b, in_b));
    let only_a = without(&of_a, &of_b);
    let only_b = without(&of_b, &of_a);
    if let ([x], [y]) = (&only_a[..], &only_b[..]) {
        let class = role::of_operator(&y.0, &x.0);
        if class != "operand_order" {
            return Some(class);
        }
    }
    if only_a.is_empty() && only_b.is_empty() {
        return settings(site, in_a, in_b);
    }
    let roots = |side: &Side<'_>, parts: &[Part]| {
        parts.iter().any(|(_, _, n)| side.graph().node(*n).writes().any(|v| role::is_statistic(side, v)))
    };
    if roots(a, &only_a) || roots(b, &only_b) {
        return Some("normalisation");
    }
    let classes: Vec<&'static str> = only_a.iter().chain(&only_b).map(|p| p.1).collect();
    role::most_telling(&classes)
}

/// An operator, what its absence is called, and the node it is part of.
type Part = (String, &'static str, NodeId);

/// What a region computes, fused operators taken apart, layout aside.
fn parts(side: &Side<'_>, region: &Region) -> Vec<Part> {
    let mut out = Vec::new();
    for n in region.dynamic_nodes(side) {
        let node = side.graph().node(n);
        let op = node.op.as_str();
        if role::is_layout(op) || op == "Identity" {
            continue;
        }
        let mut push = |op: &str, class| out.push((op.to_owned(), class, n));
        match op {
            "Gemm" | "FusedGemm" => {
                push("MatMul", "weight_value");
                if node.inputs.len() > 2 {
                    push("Add", "bias");
                }
            }
            "FusedMatMul" => push("MatMul", "weight_value"),
            "BiasGelu" | "FastGelu" => {
                if node.inputs.len() > 1 {
                    push("Add", "bias");
                }
                push("Gelu", "activation");
            }
            "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => {
                push("Add", "residual");
                let rms = op.contains("Simplified");
                push(
                    if rms { "SimplifiedLayerNormalization" } else { "LayerNormalization" },
                    "normalisation",
                );
            }
            "FusedConv" | "ConvWithActivation" => push("Conv", "weight_value"),
            _ => push(op, role::of_presence(side, n)),
        }
        if let Some(Attribute::Bytes(name)) = node.attributes.get("activation")
            && !name.is_empty()
        {
            push(&String::from_utf8_lossy(name), "activation");
        }
    }
    out
}

fn without(these: &[Part], those: &[Part]) -> Vec<Part> {
    let mut left: Vec<&str> = those.iter().map(|p| p.0.as_str()).collect();
    let mut out = Vec::new();
    for part in these {
        match left.iter().position(|op| *op == part.0) {
            Some(i) => {
                left.swap_remove(i);
            }
            None => out.push(part.clone()),
        }
    }
    out
}

/// Where both regions consist of the same operators: the first setting or constant in which two differ.
fn settings(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region) -> Option<&'static str> {
    let (a, b) = (site.judge.a, site.judge.b);
    let mut rest: Vec<NodeId> = in_a.dynamic_nodes(a).collect();
    let mut found = Vec::new();
    for n in in_b.dynamic_nodes(b) {
        let node = b.graph().node(n);
        let Some(i) = rest.iter().position(|&m| a.graph().node(m).op == node.op) else { continue };
        let m = rest.remove(i);
        let other = a.graph().node(m);
        for (name, setting) in &node.attributes {
            if other.attributes.get(name).is_some_and(|theirs| !theirs.same(setting)) {
                found.push(role::of_attribute(&node.op, name));
            }
        }
        for (slot, (own, theirs)) in node.inputs.iter().zip(&other.inputs).enumerate() {
            let (Some(own), Some(theirs)) = (*own, *theirs) else { continue };
            if b.is_constant(own)
                && a.is_constant(theirs)
                && !role::is_layout(&node.op)
                && let (Some(x), Some(y)) = (b.shadow.get(own), a.shadow.get(theirs))
                && !crate::pool::same_numbers(x, y)
            {
                let class = role::of_constant(b, n, slot, y);
                // How weights differ is told apart by what they hold.
                if class != "weight_value" {
                    found.push(class);
                }
            }
        }
    }
    let normalises = in_b.dynamic_nodes(b).any(|n| role::is_normalisation(&b.graph().node(n).op));
    role::most_telling(&found).or(normalises.then_some("normalisation"))
}

/// Whether one side normalises by statistics over the batch where the other applies what it learned, or draws random
/// numbers where the other does not.
pub fn takes_batch_statistics(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region) -> bool {
    let (a, b) = (site.judge.a, site.judge.b);
    let random = |side: &Side<'_>, region: &Region| {
        region.nodes.iter().any(|&n| {
            let op = side.graph().node(n).op.as_str();
            op.starts_with("Random") || op == "Bernoulli"
        })
    };
    if random(a, in_a) != random(b, in_b) {
        return true;
    }
    let channels = |side: &Side<'_>, v: ValueId| side.declared.get(v).and_then(|t| t.shape().get(1).copied());
    let over_batch = |side: &Side<'_>, region: &Region, end: ValueId| {
        let Some(channels) = channels(side, end) else { return false };
        region.dynamic_nodes(side).any(|n| {
            let node = side.graph().node(n);
            node.op.starts_with("Reduce")
                && node.writes().any(|w| side.declared.get(w).is_some_and(|t| t.len() == channels))
        })
    };
    let learned = |side: &Side<'_>, region: &Region| {
        let mut nodes = region.dynamic_nodes(side);
        nodes.any(|n| {
            side.graph().node(n).op == "BatchNormalization" || side.graph().node(n).op.contains("Conv")
        }) && !region.dynamic_nodes(side).any(|n| side.graph().node(n).op.starts_with("Reduce"))
    };
    over_batch(b, in_b, site.point) && learned(a, in_a)
        || over_batch(a, in_a, site.candidate) && learned(b, in_b)
}
