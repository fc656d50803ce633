//! A fault among the nodes that compute a constant, on both sides, from other constants alone: a table of relative
//! positions through a small network, the exponential of a stored logarithm.
//!
//! **What it finds.** The node that parts, where the graph as a whole shows only that what reads the constant reads
//! another than in A. What a node is for shows by what it reads that is no weight; among constants nothing is told
//! from a weight.
//! **How.** Both chains become networks of their own, fed with the constant that both begin with and that goes through
//! the most nodes; the others are weights. These networks are held against each other as any two are.
//! **Proof.** The inner fault's own.

use isotrace_align::{Changes, Index, Judge, Keeps, Region, Side, State};
use isotrace_graph::ValueId;
use rustc_hash::FxHashMap;

use super::sheet::{Enters, Sheet};
use super::{outer_nodes, outer_values};
use crate::context;
use crate::faults::{self, Fault, Found};
use crate::pool::same_numbers;
use crate::role;

/// Nodes of a chain of constants, and constants that it may begin with.
const MOST_NODES: usize = 120;
const MOST_STARTS: usize = 3;

/// The fault between the nodes that compute `b`'s constant `own` and `a`'s `theirs`.
pub fn fault(judge: &Judge<'_, '_>, own: ValueId, theirs: ValueId) -> Option<Fault> {
    let behind = |side: &Side<'_>, v| Region::behind(side, &[v], |_| false, MOST_NODES + 1);
    let (in_a, in_b) = (behind(judge.a, theirs), behind(judge.b, own));
    if in_a.nodes.len().max(in_b.nodes.len()) > MOST_NODES {
        return None;
    }
    starts(judge, &in_a, &in_b, own).into_iter().find_map(|start| {
        let fault = between(judge, (&in_a, theirs), (&in_b, own), start)?;
        Some(Fault { class: named(judge, &in_b, own, &fault).to_owned(), ..fault })
    })
}

/// Constants of B and A that hold the same numbers and from which both chains begin, those first that go through the most
/// nodes.
fn starts(judge: &Judge<'_, '_>, in_a: &Region, in_b: &Region, own: ValueId) -> Vec<(ValueId, ValueId)> {
    let (a, b) = (judge.a, judge.b);
    let same = |v: ValueId, w: ValueId| {
        let (Some(x), Some(y)) = (b.declared.get(v), a.declared.get(w)) else { return false };
        x.dtype() == y.dtype() && x.shape() == y.shape() && x.dtype().is_float() && same_numbers(x, y)
    };
    let mut depth: FxHashMap<ValueId, usize> = FxHashMap::default();
    depth.insert(own, 0);
    for &n in in_b.nodes.iter().rev() {
        let node = b.graph().node(n);
        let Some(d) = node.writes().filter_map(|v| depth.get(&v)).max().copied() else { continue };
        for v in node.reads() {
            let known = depth.entry(v).or_insert(0);
            *known = (*known).max(d + 1);
        }
    }
    let pair = |&v: &ValueId| Some((v, in_a.constants.iter().copied().find(|&w| same(v, w))?));
    let mut starts: Vec<(ValueId, ValueId)> = in_b.constants.iter().filter_map(pair).collect();
    starts.sort_by_key(|(v, _)| std::cmp::Reverse(depth.get(v).copied().unwrap_or(0)));
    starts.truncate(MOST_STARTS);
    starts
}

/// The first proven fault between two chains of which `start` is the one value that is no weight.
fn between(
    judge: &Judge<'_, '_>,
    (in_a, theirs): (&Region, ValueId),
    (in_b, own): (&Region, ValueId),
    start: (ValueId, ValueId),
) -> Option<Fault> {
    let b = sheet(judge.b, in_b, own, start.0)?;
    let mut a = sheet(judge.a, in_a, theirs, start.1)?;
    a.hold_weights(judge.a);
    let bound = [(b.graph.inputs[0], a.graph.inputs[0])];
    let side_a = Side::new(&a.graph, &a.inputs, None).ok()?;
    let side_b = Side::beside(&side_a, &b.graph, &b.inputs, &bound, Keeps::All, None).ok()?;
    let ends = [(b.graph.outputs[0], a.graph.outputs[0])];
    let index = Index::new(&side_a);
    let mut inner = Judge::new(&side_a, &side_b, &index, judge.allowed);
    inner.progress = judge.progress;
    let state = State::execute(&inner, &bound, &Changes::default());
    let Found { faults: found, left, .. } = faults::find(&inner, &bound, &ends, state);
    let mut fault = found.into_iter().next().filter(|f| f.proof.is_some() && left.is_empty())?;
    fault.evidence = vec![format!(
        "{:?} is computed from constants alone, in {} nodes of A and {} of B, which were run on what both begin with",
        judge.b.graph().value(own).name,
        in_a.nodes.len(),
        in_b.nodes.len(),
    )];
    fault.outputs_a = outer_values(judge.a, &a, &fault.outputs_a, &side_a);
    fault.outputs_b = outer_values(judge.b, &b, &fault.outputs_b, &side_b);
    fault.nodes_a = outer_nodes(&a, &fault.nodes_a);
    fault.nodes_b = outer_nodes(&b, &fault.nodes_b);
    Some(fault)
}

/// A chain that ends at `end`, of whose constants `start` is fed and the others stay.
fn sheet(side: &Side<'_>, region: &Region, end: ValueId, start: ValueId) -> Option<Sheet> {
    let mut region = region.clone();
    region.constants.retain(|&v| v != start);
    region.boundary.push(start);
    // What a node without inputs writes begins the chain as well; the node itself is left out.
    region.nodes.retain(|&n| side.graph().node(n).writes().all(|v| v != start));
    let enters = |v: ValueId| {
        let tensor = side.declared.get(v)?.clone();
        Some(if v == start { Enters::Input(tensor) } else { Enters::Constant(tensor) })
    };
    Sheet::of(side, &region, end, &enters)
}

/// The class of what was found: what the constant is for, unless it comes out of a network with weights of its own.
fn named<'f>(judge: &Judge<'_, '_>, in_b: &Region, own: ValueId, fault: &'f Fault) -> &'f str {
    let b = judge.b;
    let weighs = in_b.nodes.iter().any(|&n| role::is_product(&b.graph().node(n).op));
    let kept = ["nan", "precision", "quantisation", "mode", "mask", "rope", "epsilon"];
    if weighs || kept.contains(&fault.class.as_str()) {
        return &fault.class;
    }
    if role::is_rotary(b, own) { "rope" } else { context::purpose(b, own).unwrap_or(&fault.class) }
}
