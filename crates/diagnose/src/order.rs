//! Faults as they are told: in the order in which B meets them, those of which others come before these, and one seen
//! from two places once.

use isotrace_align::{Judge, Region, Side};
use isotrace_graph::{NodeId, ValueId};

use crate::births::births_first;
use crate::faults::Fault;
use crate::role;

/// Faults as they are told: in the order in which B meets them, but for those of which others come.
pub fn in_order(judge: &Judge<'_, '_>, faults: Vec<Fault>) -> Vec<Fault> {
    births_first(judge.b, slight_last(judge.a, absorb(moved_on(judge, faults))))
}

/// A node of B that A has not, and one of its kind that A has further on: it stands at another point of the way, and what
/// is between the two, a number added or multiplied or a norm, is what reads the wrong thing.
fn moved_on(judge: &Judge<'_, '_>, mut faults: Vec<Fault>) -> Vec<Fault> {
    let (a, b) = (judge.a, judge.b);
    let pair = (0..faults.len()).find_map(|i| {
        let [n] = faults[i].nodes_b[..] else { return None };
        let op = &b.graph().node(n).op;
        let j = (0..faults.len()).find(|&j| {
            let lacks = |&m: &NodeId| a.graph().node(m).op == *op;
            j != i && faults[j].nodes_a.len() == 1 && faults[j].nodes_a.iter().all(lacks)
        })?;
        let extra = faults[i].nodes_a.is_empty() && faults[i].proof.is_some() && faults[j].proof.is_some();
        let between = faults[j].outputs_b.iter().find_map(|&end| between(b, n, end))?;
        extra.then_some((i, j, between))
    });
    let Some((i, j, passed)) = pair else { return faults };
    let class = role::of_presence(b, passed);
    if !matches!(class, "bias" | "scale" | "normalisation" | "rope" | "mask") {
        return faults;
    }
    let other = faults[j].clone();
    let fault = &mut faults[i];
    let end = b.graph().node(passed).writes();
    fault
        .outputs_b
        .extend(end.filter(|v| !other.outputs_b.contains(v)).chain(other.outputs_b.iter().copied()));
    fault.outputs_b.dedup();
    fault.nodes_b.push(passed);
    fault.nodes_a.clone_from(&other.nodes_a);
    fault.evidence.insert(0, fault.summary.clone());
    fault.evidence.insert(1, other.summary);
    class.clone_into(&mut fault.class);
    fault.summary = format!(
        "{} stands behind {}, in A before it",
        crate::causes::label(b, passed),
        crate::causes::label(b, fault.nodes_b[0])
    );
    faults.remove(j);
    faults
}

/// The one node that adds a number, multiplies by it or brings to a norm between what `n` writes and `end`, layout aside.
fn between(b: &Side<'_>, n: NodeId, end: ValueId) -> Option<NodeId> {
    let starts: Vec<ValueId> = b.graph().node(n).writes().collect();
    let region = Region::behind(b, &[end], |v| starts.contains(&v), FEW);
    if starts.contains(&end) || !region.boundary.iter().any(|v| starts.contains(v)) {
        return None;
    }
    let mut working = region.dynamic_nodes(b).filter(|&m| !role::is_layout(&b.graph().node(m).op));
    let passed = working.next()?;
    let node = b.graph().node(passed);
    let number =
        matches!(node.op.as_str(), "Add" | "Sub" | "Mul" | "Div") && b.dynamic_inputs(passed).len() == 1;
    (working.next().is_none() && (number || role::is_normalisation(&node.op))).then_some(passed)
}

/// Nodes between two places that are one fault.
const FEW: usize = 4;

/// A share of a value that a few roundings of its makers' constants come to, and one that none of them do.
const SLIGHT: f64 = 1e-5;
const LARGE: f64 = 1e-3;

/// What no single part of a region explains, and is hardly more than rounding, comes behind a fault that shows.
fn slight_last(a: &Side<'_>, faults: Vec<Fault>) -> Vec<Fault> {
    let share = |f: &Fault| {
        let largest = |t: &isotrace_tensor::Tensor| {
            t.to_f64().ok().map(|x| x.iter().filter(|x| x.is_finite()).fold(0f64, |m, x| m.max(x.abs())))
        };
        let of = f.outputs_a.iter().filter_map(|&v| largest(a.shadow.get(v)?)).fold(0.0, f64::max);
        f.proof.as_ref().filter(|_| of > 0.0).map(|(_, before, _)| before / of)
    };
    if !faults.iter().any(|f| share(f).is_some_and(|s| s > LARGE)) {
        return faults;
    }
    let (slight, mut first): (Vec<Fault>, Vec<Fault>) =
        faults.into_iter().partition(|f| f.whole && share(f).is_some_and(|s| s < SLIGHT));
    first.extend(slight);
    first
}

/// A wide region that holds all nodes of A which another, proven fault names is that fault, seen from further on.
fn absorb(faults: Vec<Fault>) -> Vec<Fault> {
    let mut kept: Vec<Fault> = Vec::new();
    let (wide, narrow): (Vec<Fault>, Vec<Fault>) =
        faults.iter().cloned().partition(|f| f.nodes_a.len() > WIDE && faults.iter().any(|g| holds(f, g)));
    if narrow.is_empty() {
        return faults;
    }
    kept.extend(narrow);
    for fault in wide {
        let Some(root) = kept.iter_mut().find(|g| holds(&fault, g)) else { continue };
        if fault.class == "nan" && root.class != "nan" {
            root.evidence.push(root.summary.clone());
            root.class.clone_from(&fault.class);
            root.summary.clone_from(&fault.summary);
        }
        root.evidence.push(format!("it also shows in: {}", fault.summary));
        root.outputs_b.extend(
            fault.outputs_b.iter().filter(|v| !root.outputs_b.contains(v)).copied().collect::<Vec<_>>(),
        );
    }
    kept
}

/// Regions of up to this many nodes stand for themselves.
const WIDE: usize = 3;

fn holds(wide: &Fault, narrow: &Fault) -> bool {
    narrow.proof.is_some()
        && !narrow.nodes_a.is_empty()
        && narrow.nodes_a.len() < wide.nodes_a.len()
        && narrow.nodes_a.iter().all(|n| wide.nodes_a.contains(n))
}
