//! B lacks something: nodes of A that nothing in B stands for. `residual`, `bias`, `mask`, `scale`, ...
//!
//! **What it finds.** A skip connection, a bias, a mask that was dropped, or a value read from another place than
//! in A (a skip taken before the norm instead of after it).
//! **Proof.** What reads B's value reads A's instead. Where an optimiser removed an addition that had become void,
//! nothing is left of it in B: the edge is named by what it reads and by its readers.

use isotrace_align::patch::{Patch, Source};
use isotrace_align::{Region, Relation, Side};
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::DType;

use super::chain::but_for_one_thing;
use super::extra::identity;
use super::layout::other_way;
use super::order::{exchanged_behind, rows_exchanged_behind};
use super::{Cause, Proposal, difference, label};
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Missing;

/// Nodes of A that may be missing at one place; more only where they are a branch of which B has both ends.
pub(super) const MOST_MISSING: usize = 9;
/// Nodes of a branch that are looked at.
pub(super) const LONGEST_BRANCH: usize = 400;

impl Cause for Missing {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        let theirs = values_beside(site);
        for &n in site.nodes_b() {
            let node = site.node_b(n);
            // A node whose output equals its input is what a dropped operation leaves behind.
            if site.is_void_b(n)
                && let (Some(&input), Some(Some(output))) =
                    (site.judge.b.dynamic_inputs(n).first(), node.outputs.first())
            {
                for (a, missing) in &theirs {
                    // A node of the same operator is not what is missing; what it reads is.
                    if missing.len() > MOST_MISSING
                        || missing.last().is_some_and(|&m| site.node_a(m).op == node.op) && missing.len() > 1
                    {
                        continue;
                    }
                    let Some(source) = as_source(site, *a, *output) else { continue };
                    let Some(patch) = identity(node, source) else { continue };
                    push(site, vec![(n, patch)], vec![n], input, *a, missing, 17, out);
                }
            }
        }
        for v in read_from_outside(site) {
            for (a, missing) in &theirs {
                if site.partner(v).is_some_and(|p| site.judge.index.class(p) == site.judge.index.class(*a)) {
                    continue;
                }
                let Some(source) = as_source(site, *a, v) else { continue };
                let readers: Vec<NodeId> = site
                    .nodes_b()
                    .iter()
                    .copied()
                    .filter(|&n| site.node_b(n).inputs.contains(&Some(v)))
                    .collect();
                if missing.len() > MOST_MISSING && !is_branch(site, v, &readers, *a, missing) {
                    continue;
                }
                let mut all = Vec::new();
                for &n in &readers {
                    let node = site.node_b(n);
                    let slots: Vec<usize> =
                        (0..node.inputs.len()).filter(|&i| node.inputs[i] == Some(v)).collect();
                    // A square of another value reads that twice.
                    let twice = (slots.len() > 1).then(|| slots.clone());
                    let mut each = Vec::new();
                    for read in twice.into_iter().chain(slots.into_iter().map(|slot| vec![slot])) {
                        let mut sources = Patch::sources_of(node);
                        for slot in read {
                            sources[slot] = source.clone();
                        }
                        each.extend(Patch::new(node, sources).map(|patch| (n, patch)));
                    }
                    for patch in &each {
                        push(site, vec![patch.clone()], vec![n], v, *a, missing, 21, out);
                    }
                    all.extend(each.into_iter().next());
                }
                if readers.len() > 1 {
                    push(site, all, readers, v, *a, missing, 22, out);
                }
            }
        }
    }
}

/// Values that B's region reads and that are A's already: where an edge may lead to the wrong place.
fn read_from_outside(site: &Site<'_, '_, '_>) -> Vec<ValueId> {
    let mut out: Vec<ValueId> = Vec::new();
    for &n in site.nodes_b() {
        for v in site.node_b(n).inputs.iter().flatten() {
            if !site.judge.b.is_constant(*v) && site.state.is_matched(*v) && !out.contains(v) {
                out.push(*v);
            }
        }
    }
    out
}

/// Values of A's region that B might have to read, each with the nodes of A between it and what B has.
fn values_beside(site: &Site<'_, '_, '_>) -> Vec<(ValueId, Vec<NodeId>)> {
    let a = site.judge.a;
    let mut values: Vec<ValueId> = site.nodes_a().iter().flat_map(|&n| site.node_a(n).writes()).collect();
    values.extend(site.wide_a.boundary.iter().copied().filter(|&v| !a.is_constant(v)));
    values.retain(|&v| v != site.candidate);
    let with_nodes = values.into_iter().map(|v| {
        if site.state.a_matched[v.index()] {
            return (v, Vec::new());
        }
        let behind = Region::behind(a, &[v], |x| site.state.a_matched[x.index()], LONGEST_BRANCH);
        let nodes: Vec<NodeId> = behind.dynamic_nodes(a).filter(|&n| !site.is_void_a(n)).collect();
        (v, nodes)
    });
    with_nodes.filter(|(_, nodes)| nodes.len() < LONGEST_BRANCH).collect()
}

/// Whether a long branch of A is what B lacks where it reads `v`: it starts from there, or is read with all else that
/// B's reader reads.
fn is_branch(site: &Site<'_, '_, '_>, v: ValueId, readers: &[NodeId], a: ValueId, nodes: &[NodeId]) -> bool {
    let (of_a, of_b) = (site.judge.a, site.judge.b);
    let class = |v: ValueId| site.judge.index.class(v);
    let own = site.partner(v).map(class);
    if nodes.iter().any(|&m| of_a.dynamic_inputs(m).iter().any(|&r| Some(class(r)) == own)) {
        return true;
    }
    let others = |side: &Side<'_>, n: NodeId, but: ValueId| -> Vec<ValueId> {
        side.dynamic_inputs(n).into_iter().filter(|&r| r != but).collect()
    };
    readers.iter().any(|&n| {
        let mine: Option<Vec<ValueId>> =
            others(of_b, n, v).into_iter().map(|r| site.partner(r).map(class)).collect();
        mine.is_some_and(|mine| {
            !mine.is_empty()
                && of_a.consumers[a.index()].iter().any(|&m| {
                    let theirs: Vec<ValueId> = others(of_a, m, a).into_iter().map(class).collect();
                    site.node_a(m).op == site.node_b(n).op && theirs == mine
                })
        })
    })
}

fn as_source(site: &Site<'_, '_, '_>, a: ValueId, like: ValueId) -> Option<Source> {
    let own = site.state.shadow[like.index()].as_ref()?;
    let theirs = site.judge.a.shadow.get(a)?;
    if theirs.len() != own.len() || theirs.dtype() != own.dtype() {
        return None;
    }
    let (declared, shadow) = if theirs.shape() == own.shape() {
        let carry = |t: &isotrace_tensor::Tensor| Relation::Same.carry(t, own.shape());
        (carry(site.judge.a.declared.get(a)?)?, carry(theirs)?)
    } else {
        site.carried(a, like)?
    };
    Some(Source::Tensor { declared, shadow })
}

#[expect(clippy::too_many_arguments, reason = "an edge with both its ends and what is missing on it")]
fn push(
    site: &Site<'_, '_, '_>,
    patches: Vec<(NodeId, Patch)>,
    nodes_b: Vec<NodeId>,
    read: ValueId,
    a: ValueId,
    missing: &[NodeId],
    cost: u32,
    out: &mut Vec<Proposal>,
) {
    let reader = label(site.judge.b, nodes_b[0]);
    let (own, theirs) = (&site.judge.b.graph().value(read).name, &site.judge.a.graph().value(a).name);
    // Layout operators on the way are not what is missing.
    let working: Vec<NodeId> =
        missing.iter().copied().filter(|&m| !role::is_layout(&site.node_a(m).op)).collect();
    let named = if working.is_empty() { missing.to_vec() } else { working };
    let exchanged = if named.is_empty() { exchanged_behind(site, read) } else { None };
    let (mut nodes_b, mut nodes_a, mut edge) = (nodes_b, Vec::new(), Some(read));
    let (class, summary) = match named.as_slice() {
        [] if let Some((product, summary)) = exchanged => {
            (nodes_b, edge) = (vec![product], None);
            ("weight_swap", summary)
        }
        [] if !role::is_layout(&site.node_b(nodes_b[0]).op)
            && let Some((product, theirs)) = turned(site, read, a) =>
        {
            (nodes_b, edge, nodes_a) = (vec![product], None, vec![theirs]);
            (
                "operand_order",
                format!(
                    "{} multiplies the other way round: what it writes is A's transposed",
                    label(site.judge.b, product)
                ),
            )
        }
        [] if let Some((product, theirs)) = rows_exchanged_behind(site, read, a) => {
            let class = match of_edge(site, nodes_b[0], read, a) {
                "gate_order" => "gate_order",
                _ => "weight_layout",
            };
            (nodes_b, edge, nodes_a) = (vec![product], None, vec![theirs]);
            let names = (label(site.judge.b, product), label(site.judge.a, theirs));
            (class, format!("{} writes the pieces that A's {} writes, in another order", names.0, names.1))
        }
        [] => (
            of_edge(site, nodes_b[0], read, a),
            format!("{reader} reads {own:?}; in A {theirs:?} is read here"),
        ),
        // Of operators that B has as well, in another order, none is missing.
        [_, _, ..] if difference::same_parts(site) => return,
        [.., last] => {
            // Steps onto a grid and off it are not what is missing, where there is anything else.
            let rounds = |m: &&NodeId| role::is_rounding(&site.node_a(**m).op);
            let last = named.iter().rev().find(|m| !rounds(m)).unwrap_or(last);
            let classes: Vec<&str> = named.iter().map(|&m| role::of_presence(site.judge.a, m)).collect();
            let whole = role::of_presence(site.judge.a, *last);
            // A branch that is added as a whole keeps the name of the sum, whatever it is made of.
            let branch = named.iter().any(|&m| role::is_product(&site.node_a(m).op));
            // A norm's statistic ends in a mean or in a quotient.
            let divided = ["normalisation"].into_iter().filter(|_| matches!(whole, "scale" | "reduction"));
            let telling =
                ["mask", "rope", "activation"].into_iter().chain(divided).find(|c| classes.contains(c));
            let class = if let Some(class) = but_for_one_thing(site, read, a) {
                class
            } else if branch && (whole == "residual" || joined(site, &named, read)) {
                "residual"
            } else if branch && (named.len() > MOST_MISSING || whole == "unknown") {
                of_edge(site, nodes_b[0], read, a)
            } else {
                let told = telling.or(Some(whole).filter(|class| *class != "unknown"));
                told.unwrap_or_else(|| of_edge(site, nodes_b[0], read, a))
            };
            let what: Vec<String> = named.iter().map(|&m| label(site.judge.a, m)).collect();
            let what = match &what[..] {
                [.., last] if what.len() > MOST_MISSING => format!("{} nodes up to {last}", what.len()),
                _ => what.join(", "),
            };
            (class, format!("{reader} reads {own:?}: A's {what} is missing in B"))
        }
    };
    // Of a long branch the end is what is read.
    nodes_a.extend(if named.len() > MOST_MISSING { named[named.len() - 1..].to_vec() } else { named });
    out.push(Proposal {
        patches,
        nodes_b,
        nodes_a,
        edge,
        class,
        summary,
        change: format!("read A's {theirs:?} in place of {own:?}"),
        cost: cost + 2 * missing.len().min(MOST_MISSING + 1) as u32,
    });
}

/// The products of B and A behind two values of the same numbers in two orders, where their operands are exchanged.
fn turned(site: &Site<'_, '_, '_>, read: ValueId, a: ValueId) -> Option<(NodeId, NodeId)> {
    let class = |v: ValueId| site.judge.index.class(v);
    let same = site.partner(read).is_some_and(|p| class(p) == class(a));
    same.then(|| other_way(site, read, a)).flatten()
}

/// Whether what B reads is, in A, added to a branch.
fn joined(site: &Site<'_, '_, '_>, missing: &[NodeId], read: ValueId) -> bool {
    let a = site.judge.a;
    let class = |v: ValueId| site.judge.index.class(v);
    let Some(own) = site.partner(read).map(class) else { return false };
    missing.iter().any(|&m| {
        let reads = a.dynamic_inputs(m);
        site.node_a(m).op == "Add" && reads.len() > 1 && reads.iter().any(|&v| class(v) == own)
    })
}

/// The input of a network that a value is, but for its type and layout; none, as in [`only_input`], where it enters a
/// region.
fn entered(side: &Side<'_>, mut v: ValueId) -> Option<ValueId> {
    while let Some(n) = side.producer(v) {
        let node = side.graph().node(n);
        if !role::is_layout(&node.op) && !matches!(node.op.as_str(), "Cast" | "Identity") {
            return None;
        }
        v = node.inputs.first().copied().flatten()?;
    }
    let graph = side.graph();
    (graph.inputs.contains(&v) && graph.value(v).declared.is_some()).then_some(v)
}

/// What a value was before it was laid out.
pub(super) fn before_layout(side: &Side<'_>, mut v: ValueId) -> ValueId {
    while let Some(n) = side.producer(v).filter(|&n| role::is_layout(&side.graph().node(n).op)) {
        let Some(&read) = side.dynamic_inputs(n).first() else { break };
        v = read;
    }
    v
}

/// The one input of a network from which a value is computed; `None` where it is computed from several or none.
fn only_input(side: &Side<'_>, v: ValueId) -> Option<ValueId> {
    let (mut seen, mut next, mut found) = (vec![v], 0, None);
    while next < seen.len() && seen.len() < LONGEST_BRANCH {
        let v = seen[next];
        next += 1;
        match side.producer(v) {
            Some(n) => {
                for read in side.dynamic_inputs(n) {
                    if !seen.contains(&read) {
                        seen.push(read);
                    }
                }
            }
            None if found.is_some_and(|f| f != v) => return None,
            None => found = Some(v),
        }
    }
    // What enters a region that became a network of its own is none: no file declares its type.
    found.filter(|&v| next == seen.len() && side.graph().value(v).declared.is_some())
}

/// Whether what B reads comes from another input than what A reads, each from one alone.
fn from_another_input(site: &Site<'_, '_, '_>, read: ValueId, a: ValueId) -> bool {
    let inputs = only_input(site.judge.b, read).zip(only_input(site.judge.a, a));
    inputs.is_some_and(|(own, theirs)| site.partner(own).is_some_and(|p| p != theirs))
}

/// The cause when a node reads another value than in A, with nothing missing between the two.
pub(super) fn of_edge(site: &Site<'_, '_, '_>, reader: NodeId, read: ValueId, a: ValueId) -> &'static str {
    let producer = site.judge.a.producer(a).map(|n| site.node_a(n));
    let own = site.judge.b.producer(read).map(|n| site.node_b(n));
    let class = |v: ValueId| site.judge.index.class(v);
    if let (Some(x), Some(y)) = (entered(site.judge.b, read), entered(site.judge.a, a))
        && site.partner(x).is_some_and(|p| p != y)
    {
        return "input_binding";
    }
    // The same numbers, read in another order. What is another value altogether has a layout too.
    let same = site.partner(read).is_some_and(|p| class(p) == class(a));
    let (under, of_a) = (before_layout(site.judge.b, read), before_layout(site.judge.a, a));
    if same || of_a != a && site.partner(under).is_some_and(|p| class(p) == class(of_a)) {
        return "layout";
    }
    if of_a != a {
        return of_edge(site, reader, under, of_a);
    }
    let of_one = |p: ValueId| is_further_on(site, TURNS, a, p) || is_further_on(site, TURNS, p, a);
    if role::was_turned(site.judge.a, a) != role::was_turned(site.judge.b, read)
        && site.partner(read).is_none_or(of_one)
    {
        return "rope";
    }
    // Whole numbers choose elements.
    if site.judge.b.declared.dtype(read).is_some_and(DType::is_int) {
        return "index";
    }
    let part = |op: &str| matches!(op, "Split" | "Slice" | "Gather");
    if let (Some(x), Some(y)) = (own, producer)
        && part(&x.op)
        && part(&y.op)
    {
        let gate = matches!(site.node_b(reader).op.as_str(), "Sigmoid" | "Tanh" | "HardSigmoid");
        // Queries for keys is how a stacked weight is laid out; parts that are used one by one have changed places.
        return match gate {
            true => "gate_order",
            false if role::is_factor(site.judge.b, read) => "weight_layout",
            false => "operand_order",
        };
    }
    let curve = |op: &str| matches!(op, "Sigmoid" | "Tanh" | "HardSigmoid");
    let read_by_curve = |side: &Side<'_>, v: ValueId| {
        side.consumers[v.index()].iter().any(|&n| curve(&side.graph().node(n).op))
    };
    // The sum of one gate for that of another.
    if curve(&site.node_b(reader).op)
        && read_by_curve(site.judge.a, a)
        && site.partner(read).is_some_and(|p| read_by_curve(site.judge.a, p))
    {
        return "gate_order";
    }
    // A factor in front of a curve is part of the curve, not what the curve lets through.
    let factor = |side: &Side<'_>, n: NodeId| {
        matches!(side.graph().node(n).op.as_str(), "Mul" | "Div") && side.dynamic_inputs(n).len() == 1
    };
    if role::is_activation(&site.node_b(reader).op)
        && passed_by(site, read, a).is_some_and(|(side, n)| factor(side, n))
    {
        return "activation";
    }
    if site.partner(read).is_some_and(|p| gates(site.judge.a, a, p) || gates(site.judge.a, p, a)) {
        return "gate_order";
    }
    match site.node_b(reader).op.as_str() {
        "Add" | "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => "residual",
        _ => of_passed_by(site, read, a).unwrap_or_else(|| {
            if from_another_input(site, read, a) {
                "input_binding"
            } else if site
                .partner(read)
                .is_some_and(|p| is_further_on(site, ADDS, a, p) || is_further_on(site, ADDS, p, a))
            {
                "residual"
            } else {
                "operand_order"
            }
        }),
    }
}

/// Operators by which a stream goes on from branch to branch.
const ADDS: &[&str] = &["Add"];
/// Operators of which a rotation is made.
const TURNS: &[&str] =
    &["Add", "Sub", "Mul", "Neg", "Concat", "Slice", "Split", "Gather", "MatMul", "RotaryEmbedding"];

/// Whether a value of A is another gone through some operators. With branches added to it, one after the other: what reads
/// the one for the other reads the stream of residuals at another layer.
fn is_further_on(site: &Site<'_, '_, '_>, by: &[&str], later: ValueId, earlier: ValueId) -> bool {
    let a = site.judge.a;
    let class = |v: ValueId| site.judge.index.class(v);
    let (mut seen, mut next) = (vec![later], 0);
    while next < seen.len() && seen.len() < LONGEST_BRANCH {
        let v = seen[next];
        next += 1;
        if next > 1 && class(v) == class(earlier) {
            return true;
        }
        let Some(n) = a.producer(v) else { continue };
        let op = site.node_a(n).op.as_str();
        let reads = a.dynamic_inputs(n);
        // A product with a weight makes something else, a bias a part of a branch.
        let joins = op != "Add" && op != "MatMul" || reads.len() > 1;
        let signs = op == "MatMul" && role::was_turned(a, v);
        if matches!(op, "Cast" | "Identity")
            || role::is_layout(op)
            || by.contains(&op) && (joins && op != "MatMul" || signs)
        {
            seen.extend(reads.into_iter().filter(|r| !seen.contains(r)).collect::<Vec<_>>());
        }
    }
    false
}

/// Whether what a curve makes of one value multiplies another: its gate, and what it lets through.
pub(crate) fn gates(side: &Side<'_>, gate: ValueId, through: ValueId) -> bool {
    let leads = |mut v: ValueId| {
        let mut curved = false;
        for _ in 0..3 {
            let Some(n) = side.producer(v) else { return false };
            curved |= role::is_activation(&side.graph().node(n).op);
            let reads = side.dynamic_inputs(n);
            if reads.contains(&gate) {
                return curved || reads.iter().any(|&r| is_curve_of(side, r, gate));
            }
            let [next] = reads[..] else { return false };
            v = next;
        }
        false
    };
    gate != through
        && side.consumers[through.index()].iter().any(|&n| {
            let node = side.graph().node(n);
            let others = node.inputs.iter().flatten().copied().filter(|&v| v != through && v != gate);
            node.op == "Mul" && others.into_iter().any(leads)
        })
}

/// Whether a value is a curve of another.
fn is_curve_of(side: &Side<'_>, v: ValueId, of: ValueId) -> bool {
    side.producer(v).is_some_and(|n| {
        role::is_activation(&side.graph().node(n).op) && side.dynamic_inputs(n).contains(&of)
    })
}

/// The cause when one of the two values is computed from the other by a single node, or by a step onto a grid and off
/// it, which is there on both sides for other readers: what that node does is passed by, or done where it should not be.
/// What mixes values keeps the name of the edge.
fn of_passed_by(site: &Site<'_, '_, '_>, read: ValueId, a: ValueId) -> Option<&'static str> {
    let (of_a, of_b) = (site.judge.a, site.judge.b);
    let class = |v: ValueId| site.judge.index.class(v);
    let single = || passed_by(site, read, a).map(|(side, n)| role::of_presence(side, n));
    let telling = |class| {
        matches!(
            class,
            "activation" | "normalisation" | "mask" | "rope" | "quantisation" | "residual" | "epsilon"
        )
        .then_some(class)
    };
    // A norm that is written out.
    let several = || {
        let p = site.partner(read)?;
        between(of_a, a, &|v| class(v) == class(p))
            .or_else(|| between(of_b, read, &|v| site.partner(v).is_some_and(|p| class(p) == class(a))))
    };
    single().or_else(several).and_then(telling)
}

/// The single step by which one of the two values is computed from the other, and the side on which it is.
fn passed_by<'x, 'g>(
    site: &'x Site<'_, '_, 'g>,
    read: ValueId,
    a: ValueId,
) -> Option<(&'x Side<'g>, NodeId)> {
    let (of_a, of_b) = (site.judge.a, site.judge.b);
    let class = |v: ValueId| site.judge.index.class(v);
    let theirs = || {
        let own = class(site.partner(read)?);
        Some((of_a, last_step(of_a, a, &|v| class(v) == own)?))
    };
    let own = || {
        let from = |v: ValueId| site.partner(v).is_some_and(|p| class(p) == class(a));
        Some((of_b, last_step(of_b, read, &from)?))
    };
    theirs().or_else(own)
}

/// What the nodes do, none of them a product, that make `v` of a value for which `from` holds and of nothing else.
fn between(side: &Side<'_>, v: ValueId, from: &dyn Fn(ValueId) -> bool) -> Option<&'static str> {
    let region = Region::behind(side, &[v], from, 2 * MOST_MISSING);
    let mut entering = region.boundary.iter().copied().filter(|&v| !side.is_constant(v)).peekable();
    entering.peek()?;
    let mut nodes = region.dynamic_nodes(side);
    if !entering.all(from) || nodes.any(|n| role::is_product(&side.graph().node(n).op)) {
        return None;
    }
    let classes: Vec<&str> = region.dynamic_nodes(side).map(|n| role::of_presence(side, n)).collect();
    role::most_telling(&classes)
}

/// The node that makes `v` of a value for which `from` holds, by itself or with the node that puts what it takes off a
/// grid onto it.
fn last_step(side: &Side<'_>, v: ValueId, from: &dyn Fn(ValueId) -> bool) -> Option<NodeId> {
    let last = side.producer(v)?;
    let reads = side.dynamic_inputs(last);
    if reads.iter().any(|&v| from(v)) {
        return Some(last);
    }
    let rounds = |n: NodeId| role::is_rounding(&side.graph().node(n).op);
    let before = side.producer(*reads.first()?).filter(|&n| rounds(n) && rounds(last))?;
    side.dynamic_inputs(before).into_iter().any(from).then_some(last)
}
