//! A whole function differs, no single part of it: `activation`, `rope`, `normalisation`, `quantisation`, ...
//!
//! **What it finds.** A GELU by tanh written out in eight nodes where A's is written out in five; a rotation with both
//! its tables wrong; a statistic computed by another formula. No setting, constant or operator repairs it alone.
//! **Proof.** A's nodes, run on what B's region reads, in place of B's. The name follows from what the two regions
//! have in common: a function of one input alone, angles of positions, statistics of rows, a grid.

use isotrace_align::Region;
use isotrace_align::patch::{Patch, Source};
use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::Flow;
use rustc_hash::FxHashMap;

use super::{Cause, Proposal, label};
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Function;

/// Calls in a transplanted region; shared parts are called once for each use.
const MOST_CALLS: usize = 200;

impl Cause for Function {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        let Some(n) = site.judge.b.producer(site.point) else { return };
        let Some(class) = family(site) else { return };
        let transplanted = transplant(site, &site.open_a, &site.open_b)
            .or_else(|| transplant(site, &site.wide_a, &site.wide_b));
        let Some(patch) = transplanted else { return };
        let names = |nodes: Vec<String>| {
            if nodes.len() > 4 { format!("{} nodes", nodes.len()) } else { nodes.join(", ") }
        };
        let nodes_b: Vec<NodeId> = site.open_b.dynamic_nodes(site.judge.b).collect();
        let nodes_a: Vec<NodeId> = site.open_a.dynamic_nodes(site.judge.a).collect();
        let of_a = names(nodes_a.iter().map(|&m| label(site.judge.a, m)).collect());
        let of_b = names(nodes_b.iter().map(|&m| label(site.judge.b, m)).collect());
        out.push(Proposal {
            patches: vec![(n, patch)],
            nodes_b,
            nodes_a,
            edge: None,
            class,
            summary: format!("{of_b} in B and {of_a} in A are {}", article(class)),
            change: format!("A's {of_a} on the same inputs"),
            cost: 60,
        });
    }
}

fn article(class: &str) -> &'static str {
    match class {
        "activation" => "different functions of one input alone",
        "rope" => "different rotations by position",
        "normalisation" => "different normalisations",
        "quantisation" => "one rounded to a grid, the other not",
        "gate_order" => "recurrent layers with different weights",
        "mask" => "different masks",
        _ => "different selections of elements",
    }
}

/// What the two regions have in common.
fn family(site: &Site<'_, '_, '_>) -> Option<&'static str> {
    let (a, b) = (site.judge.a, site.judge.b);
    let ops_a: Vec<&str> = site.open_a.nodes.iter().map(|&n| site.node_a(n).op.as_str()).collect();
    let ops_b: Vec<&str> = site.open_b.nodes.iter().map(|&n| site.node_b(n).op.as_str()).collect();
    let any = |f: &dyn Fn(&str) -> bool| ops_a.iter().chain(&ops_b).any(|op| f(op));
    let grid =
        |ops: &[&str]| ops.iter().any(|op| matches!(*op, "Round" | "Floor") || op.contains("Quantize"));
    let rotary = role::is_rotated(b, site.point)
        || role::is_rotated(a, site.candidate)
        || site
            .open_b
            .nodes
            .iter()
            .any(|&n| site.node_b(n).inputs.iter().flatten().any(|&v| role::is_rotary(b, v)))
        || site
            .open_a
            .nodes
            .iter()
            .any(|&n| site.node_a(n).inputs.iter().flatten().any(|&v| role::is_rotary(a, v)));
    if grid(&ops_a) != grid(&ops_b) {
        Some("quantisation")
    } else if rotary || any(&|op| matches!(op, "Cos" | "Sin" | "RotaryEmbedding")) {
        Some("rope")
    } else if any(&|op| matches!(op, "LSTM" | "GRU" | "RNN")) {
        Some("gate_order")
    } else if pointwise(site, &site.open_a, &site.open_b) || pointwise(site, &site.wide_a, &site.wide_b) {
        Some("activation")
    } else if any(&|op| role::is_normalisation(op) || op == "ReduceMean") {
        Some("normalisation")
    } else if any(&|op| matches!(op, "Where" | "And" | "Or" | "Not" | "Trilu")) {
        Some("mask")
    } else if any(&|op| matches!(op, "Slice" | "Gather" | "Concat" | "Split" | "GatherElements" | "GatherND"))
    {
        Some("index")
    } else {
        None
    }
}

/// Whether both regions are functions of the same one value, element by element.
fn pointwise(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region) -> bool {
    let (a, b) = (site.judge.a, site.judge.b);
    let one = |boundary: Vec<ValueId>| if let [v] = boundary[..] { Some(v) } else { None };
    let entering = |side: &isotrace_align::Side<'_>, region: &Region| -> Vec<ValueId> {
        region.boundary.iter().copied().filter(|&v| !side.is_constant(v)).collect()
    };
    let (Some(x), Some(y)) = (one(entering(a, in_a)), one(entering(b, in_b))) else {
        return false;
    };
    let elementwise_a = in_a.dynamic_nodes(a).all(|n| {
        a.plan.op(n).flow() == Flow::Elementwise
            || role::is_activation(&site.node_a(n).op)
            || site.is_void_a(n)
    });
    let elementwise_b = in_b.dynamic_nodes(b).all(|n| {
        b.plan.op(n).flow() == Flow::Elementwise
            || role::is_activation(&site.node_b(n).op)
            || site.is_void_b(n)
    });
    let same_input = site.partner(y).is_some_and(|p| site.judge.index.class(p) == site.judge.index.class(x));
    elementwise_a && elementwise_b && same_input
}

/// A's region as one call on what B's region reads, laid out as B's point.
fn transplant(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region) -> Option<Patch> {
    // B's values by what they hold in A, in A's own layout only: others would have to be carried first.
    let mut partners: FxHashMap<ValueId, ValueId> = FxHashMap::default();
    for &v in &in_b.boundary {
        if let Some(m) = &site.state.matched[v.index()]
            && m.relation == isotrace_align::Relation::Same
        {
            partners.insert(site.judge.index.class(m.a), v);
        }
    }
    let mut calls = 0;
    let patch = graft(site, in_a, site.candidate, &partners, &mut calls)?;
    let same_shape = site.judge.a.shadow.get(site.candidate)?.shape()
        == site.state.shadow[site.point.index()].as_ref()?.shape();
    same_shape.then_some(patch)
}

fn graft(
    site: &Site<'_, '_, '_>,
    in_a: &Region,
    v: ValueId,
    partners: &FxHashMap<ValueId, ValueId>,
    calls: &mut usize,
) -> Option<Patch> {
    let a = site.judge.a;
    let n = a.producer(v)?;
    *calls += 1;
    if *calls > MOST_CALLS || site.node_a(n).outputs.first().copied().flatten() != Some(v) {
        return None;
    }
    let mut sources = Vec::new();
    for read in &site.node_a(n).inputs {
        sources.push(match *read {
            None => Source::Absent,
            Some(r) => {
                if let Some(&own) = partners.get(&site.judge.index.class(r)).filter(|_| !a.is_constant(r)) {
                    Source::Value(own)
                } else if in_a.nodes.contains(&a.producer(r).unwrap_or(NodeId(u32::MAX))) && !a.is_constant(r)
                {
                    Source::Patch(Box::new(graft(site, in_a, r, partners, calls)?))
                } else {
                    Source::Tensor { declared: a.declared.get(r)?.clone(), shadow: a.shadow.get(r)?.clone() }
                }
            }
        });
    }
    Patch::new(site.node_a(n), sources)
}
