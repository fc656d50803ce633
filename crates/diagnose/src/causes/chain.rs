//! Two values of A made in the same way but for one thing: what is left of a fault that made two branches alike, once an
//! optimiser has merged them into one.

use isotrace_graph::{Node, NodeId, ValueId};

use super::attribute::settings_apart;
use super::missing::{LONGEST_BRANCH, MOST_MISSING, before_layout, of_edge};
use crate::role;
use crate::site::Site;

/// Where A computes what B reads and what B should read by the same operators but for one thing on the way: what that is
/// called.
pub(super) fn but_for_one_thing(site: &Site<'_, '_, '_>, read: ValueId, a: ValueId) -> Option<&'static str> {
    along_one_chain(site, read, a).or_else(|| in_front_of_both(site, read, a))
}

/// One constant, one setting or one value that is read, where each operator has one input of its own.
fn along_one_chain(site: &Site<'_, '_, '_>, read: ValueId, a: ValueId) -> Option<&'static str> {
    let side = site.judge.a;
    let (mut own, mut theirs) = (before_layout(side, site.partner(read)?), before_layout(side, a));
    // What reads the one where the other is meant, once the chains are followed to where they part.
    let mut reader = None;
    for _ in 0..MOST_MISSING {
        let part_here = || reader.and_then(|op| edge_in_a(site, op, own, theirs));
        // What B computes as well it could have read.
        if reader.is_some() && site.state.a_matched[theirs.index()] {
            return part_here();
        }
        let (Some(n), Some(m)) = (side.producer(own), side.producer(theirs)) else { return part_here() };
        let (x, y) = (site.node_a(n), site.node_a(m));
        if n == m || x.op != y.op || x.inputs.len() != y.inputs.len() {
            return part_here();
        }
        let slot = match (&inputs_apart(site, x, y)[..], &settings_apart(x, y)[..]) {
            (&[slot], []) => slot,
            ([], [setting]) => return Some(role::of_attribute(&y.op, setting)),
            // Of two things that differ neither says more.
            _ => return None,
        };
        let (v, w) = (x.inputs[slot]?, y.inputs[slot]?);
        if let (true, true, Some(right)) = (side.is_constant(v), side.is_constant(w), side.shadow.get(w)) {
            return Some(match role::of_constant(side, m, slot, right) {
                "weight_value" => "weight_swap",
                class => class,
            });
        }
        (own, theirs, reader) = (before_layout(side, v), before_layout(side, w), Some(y.op.as_str()));
    }
    None
}

/// Slots at which two nodes of A read other values.
fn inputs_apart(site: &Site<'_, '_, '_>, x: &Node, y: &Node) -> Vec<usize> {
    let side = site.judge.a;
    let class = |v: ValueId| site.judge.index.class(v);
    let stored = |v: ValueId| side.shadow.get(v).filter(|_| side.is_constant(v));
    let apart = |slot: &usize| match (x.inputs[*slot], y.inputs[*slot]) {
        (Some(v), Some(w)) if v == w => false,
        (Some(v), Some(w)) => match (stored(v), stored(w)) {
            (Some(s), Some(t)) => !s.bit_eq(t),
            _ => class(v) != class(w),
        },
        (v, w) => v != w,
    };
    (0..x.inputs.len()).filter(apart).collect()
}

/// What it is called that an operator of B reads what is A's `own`, where A reads `theirs`.
fn edge_in_a(site: &Site<'_, '_, '_>, op: &str, own: ValueId, theirs: ValueId) -> Option<&'static str> {
    let b = site.judge.b;
    let class = |v: ValueId| site.judge.index.class(v);
    let same = |v: &ValueId| site.partner(*v).is_some_and(|p| class(p) == class(own));
    b.graph().value_ids().filter(same).find_map(|v| {
        let reader = b.consumers[v.index()].iter().copied().find(|&n| site.node_b(n).op == op)?;
        Some(of_edge(site, reader, v, theirs))
    })
}

/// One value to which something was done first, whichever ways lead from it to the two. A norm that two readers share
/// where nothing is done to what one of them reads is not missing.
fn in_front_of_both(site: &Site<'_, '_, '_>, read: ValueId, a: ValueId) -> Option<&'static str> {
    let side = site.judge.a;
    let class = |v: ValueId| site.judge.index.class(v);
    let mut pairs = vec![(site.partner(read)?, a)];
    let (mut next, mut leaf) = (0, None);
    while next < pairs.len() {
        let (own, theirs) = pairs[next];
        next += 1;
        if next > LONGEST_BRANCH {
            return None;
        }
        let calls = side.producer(own).zip(side.producer(theirs));
        let alike = |&(n, m): &(NodeId, NodeId)| isotrace_align::same_call(site.node_a(n), site.node_a(m));
        let Some((n, m)) = calls.filter(alike) else {
            // Two values that differ are two faults, or none of this kind.
            if next == 1 || leaf.is_some() {
                return None;
            }
            leaf = Some((own, theirs));
            continue;
        };
        for (v, w) in site.node_a(n).inputs.iter().zip(&site.node_a(m).inputs) {
            let (Some(v), Some(w)) = (*v, *w) else { continue };
            if v != w && class(v) != class(w) && !pairs.contains(&(v, w)) {
                if side.is_constant(v) || side.is_constant(w) {
                    return None;
                }
                pairs.push((v, w));
            }
        }
    }
    let (own, theirs) = leaf?;
    let last = side.producer(theirs)?;
    let is_own = |v: &ValueId| class(*v) == class(own);
    let made_of_it = side
        .dynamic_inputs(last)
        .iter()
        .any(|v| is_own(v) || side.producer(*v).is_some_and(|n| side.dynamic_inputs(n).iter().any(is_own)));
    made_of_it.then(|| role::of_presence(side, last)).filter(|class| *class != "unknown")
}
