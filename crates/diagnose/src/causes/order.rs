//! Operands stand in another order: `operand_order`, `rope` (halves swapped), `weight_layout` (stacked parts swapped),
//! `weight_swap` (what made them has the other's weight).
//!
//! **What it finds.** a - b for b - a, a / b for b / a, a product with its factors exchanged, parts concatenated or
//! split in another order.
//! **Proof.** The node reads its inputs in the other order.

use isotrace_align::Side;
use isotrace_align::patch::{Patch, Source};
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::DType;

use super::{Cause, Proposal, label, twin};
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Order;

/// Parts of which every exchange of two is tried; of more, only A's order.
const MOST_PARTS: usize = 4;

impl Cause for Order {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        places(site, out);
        for &n in site.nodes_b() {
            let node = site.node_b(n);
            let swaps: Vec<(usize, usize)> = match node.op.as_str() {
                "Sub" | "Div" | "MatMul" | "Pow" | "Gemm" | "FusedMatMul" | "Less" | "Greater"
                | "LessOrEqual" | "GreaterOrEqual" | "Mod" => vec![(0, 1)],
                "Where" => vec![(1, 2)],
                // Queries, keys and values; what is packed into fewer inputs has nothing to exchange here.
                op if role::is_attention(op) => vec![(0, 1), (1, 2), (0, 2)],
                "Concat" if node.inputs.len() <= MOST_PARTS => {
                    as_in_a(site, n, out);
                    let k = node.inputs.len();
                    (0..k).flat_map(|i| (i + 1..k).map(move |j| (i, j))).collect()
                }
                "If" => {
                    branches(site, n, out);
                    continue;
                }
                "Concat" => {
                    as_in_a(site, n, out);
                    continue;
                }
                _ => continue,
            };
            if prepares_shape(site, n) {
                continue;
            }
            for (i, j) in swaps {
                if j >= node.inputs.len() || node.inputs[i] == node.inputs[j] {
                    continue;
                }
                let mut sources = Patch::sources_of(node);
                sources.swap(i, j);
                let Some(patch) = Patch::new(node, sources) else { continue };
                let rotary = node.op == "Concat"
                    && (node.writes().any(|v| role::is_rotated(site.judge.b, v)) || joins_waves(site, n));
                let mut class = match node.op.as_str() {
                    "Where" => "mask",
                    _ if rotary => "rope",
                    "Concat" if turns_round(site, n) => "index",
                    _ => "operand_order",
                };
                let mut summary = format!("inputs {i} and {j} of {} are exchanged", label(site.judge.b, n));
                if class == "operand_order"
                    && let Some(weights) = weights_exchanged(site, [node.inputs[i], node.inputs[j]])
                {
                    class = "weight_swap";
                    summary = of_weights(
                        site,
                        weights,
                        &format!("behind inputs {i} and {j} of {}", label(site.judge.b, n)),
                    );
                }
                out.push(Proposal {
                    patches: vec![(n, patch)],
                    nodes_b: vec![n],
                    nodes_a: twin(site, n).into_iter().collect(),
                    edge: None,
                    class,
                    summary,
                    change: format!("inputs {i} and {j} exchanged back"),
                    cost: 16,
                });
            }
        }
    }
}

/// Whether a node joins the pieces of the very value that A has here: elements come from other places.
fn turns_round(site: &Site<'_, '_, '_>, n: NodeId) -> bool {
    let b = site.judge.b;
    let cut = |v: &Option<ValueId>| {
        let piece = b.producer((*v)?).map(|m| site.node_b(m))?;
        matches!(piece.op.as_str(), "Slice" | "Split" | "Gather").then(|| piece.inputs[0]).flatten()
    };
    let wholes: Option<Vec<ValueId>> = site.node_b(n).inputs.iter().map(cut).collect();
    let Some([whole, rest @ ..]) = wholes.as_deref() else { return false };
    let there = |a: ValueId| site.judge.index.class(a) == site.judge.index.class(site.candidate);
    rest.iter().all(|v| v == whole) && site.partner(*whole).is_some_and(there)
}

/// Whether a node joins the cosines and the sines of the same angles: how a time or a place is encoded.
fn joins_waves(site: &Site<'_, '_, '_>, n: NodeId) -> bool {
    let b = site.judge.b;
    let made: Option<Vec<NodeId>> = site.node_b(n).inputs.iter().map(|v| b.producer((*v)?)).collect();
    let Some(made) = made else { return false };
    let mut ops: Vec<&str> = made.iter().map(|&m| site.node_b(m).op.as_str()).collect();
    ops.sort_unstable();
    ops == ["Cos", "Sin"] && site.node_b(made[0]).inputs == site.node_b(made[1]).inputs
}

/// The product of two values whose makers have each other's weights, where `v` is one, in whatever layout: what it holds
/// is A's the other way round. With what is to be said of it.
pub(super) fn exchanged_behind(site: &Site<'_, '_, '_>, mut v: ValueId) -> Option<(NodeId, String)> {
    let b = site.judge.b;
    loop {
        let n = b.producer(v)?;
        let node = site.node_b(n);
        if role::is_product(&node.op) && b.dynamic_inputs(n).len() > 1 {
            let weights = weights_exchanged(site, [*node.inputs.first()?, *node.inputs.get(1)?])?;
            let place = format!("behind inputs 0 and 1 of {}", label(b, n));
            return Some((n, of_weights(site, weights, &place)));
        }
        v = b.moves(n).then(|| b.dynamic_inputs(n).first().copied())??;
    }
}

/// The products of B and A whose results are cut into pieces, of which `v` and `theirs` are one each, where both have the
/// same pieces in another order, and so not the same whole: the rows of the weight are, not who reads which piece.
pub(super) fn rows_exchanged_behind(
    site: &Site<'_, '_, '_>,
    v: ValueId,
    theirs: ValueId,
) -> Option<(NodeId, NodeId)> {
    let (a, b) = (site.judge.a, site.judge.b);
    let whole = |side: &Side<'_>, v: ValueId| {
        let n = side.producer(v)?;
        let cuts = matches!(side.graph().node(n).op.as_str(), "Slice" | "Split" | "Gather");
        cuts.then(|| side.dynamic_inputs(n).first().copied())?
    };
    let (own, of_a) = (whole(b, v)?, whole(a, theirs)?);
    let class = |v: ValueId| site.judge.index.class(v);
    let elsewhere = whole(a, site.partner(v)?) == Some(of_a);
    if !elsewhere || site.partner(own).is_some_and(|p| class(p) == class(of_a)) {
        return None;
    }
    let product = |side: &Side<'_>, mut v: ValueId| loop {
        let n = side.producer(v)?;
        if role::is_product(&side.graph().node(n).op) {
            return Some(n);
        }
        v = side.moves(n).then(|| side.dynamic_inputs(n).first().copied())??;
    };
    Some((product(b, own)?, product(a, of_a)?))
}

fn of_weights(site: &Site<'_, '_, '_>, weights: [ValueId; 2], place: &str) -> String {
    let [x, y] = weights.map(|v| &site.judge.b.graph().value(v).name);
    format!("{x:?} and {y:?}, {place}, each hold what A calls by the other's name")
}

/// Two products of the region with each other's weights and biases, where names say that they have those.
fn places(site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
    /// Products of one region of which every two are looked at.
    const MOST: usize = 8;
    let b = site.judge.b;
    let layers: Vec<(NodeId, ValueId)> = site
        .nodes_b()
        .iter()
        .filter(|&&n| role::is_product(&site.node_b(n).op) && b.dynamic_inputs(n).len() == 1)
        .filter_map(|&n| Some((n, weight_behind(b, site.node_b(n).writes().next()?)?)))
        .take(MOST)
        .collect();
    for (i, &(p, x)) in layers.iter().enumerate() {
        for &(q, y) in &layers[i + 1..] {
            if !are_exchanged(site, [x, y]) {
                continue;
            }
            let mut pairs = vec![(p, q)];
            pairs.extend(bias_after(site, p).zip(bias_after(site, q)));
            let patches: Option<Vec<_>> = pairs
                .iter()
                .flat_map(|&(p, q)| [(p, q), (q, p)])
                .map(|(n, other)| Some((n, with_constants_of(site, n, other)?)))
                .collect();
            let Some(patches) = patches else { continue };
            let theirs = |n: NodeId| {
                let name = site.node_b(n).writes().next().map(|v| &b.graph().value(v).name)?;
                let named = |m: &&NodeId| {
                    let mut written = site.node_a(**m).writes();
                    written.any(|v| site.judge.a.graph().value(v).name == *name)
                };
                site.nodes_a().iter().find(named).copied()
            };
            out.push(Proposal {
                patches,
                nodes_b: vec![p, q],
                nodes_a: [p, q].into_iter().filter_map(theirs).collect(),
                edge: None,
                class: "weight_swap",
                summary: of_weights(site, [x, y], &format!("in {} and {}", label(b, p), label(b, q))),
                change: "weights and biases of the two exchanged".to_owned(),
                cost: 17,
            });
        }
    }
}

/// The sum that adds a constant to what a product wrote.
pub(super) fn bias_after(site: &Site<'_, '_, '_>, product: NodeId) -> Option<NodeId> {
    let b = site.judge.b;
    let mut v = site.node_b(product).writes().next()?;
    loop {
        let [reader] = b.consumers[v.index()][..] else { return None };
        if b.moves(reader) {
            v = site.node_b(reader).writes().next()?;
            continue;
        }
        let adds = site.node_b(reader).op == "Add" && b.dynamic_inputs(reader).len() == 1;
        return adds.then_some(reader);
    }
}

/// A node with another's constants in place of its own; `None` where they are of other shapes.
fn with_constants_of(site: &Site<'_, '_, '_>, n: NodeId, other: NodeId) -> Option<Patch> {
    let (b, node) = (site.judge.b, site.node_b(n));
    let constants = |n: NodeId| {
        let inputs = site.node_b(n).inputs.iter().enumerate();
        inputs.filter_map(|(i, v)| Some((i, (*v)?))).filter(|(_, v)| b.is_constant(*v)).collect::<Vec<_>>()
    };
    let (own, theirs) = (constants(n), constants(other));
    let mut sources = Patch::sources_of(node);
    for (&(slot, v), &(_, w)) in own.iter().zip(&theirs) {
        let declared = b.declared.get(w)?;
        if declared.shape() != b.declared.shape(v)? {
            return None;
        }
        let shadow = site.state.operand(w)?;
        sources[slot] = Source::Tensor { declared: declared.clone(), shadow };
    }
    (own.len() == theirs.len()).then(|| Patch::new(node, sources))?
}

/// The weights of the products that made two values, where each holds what A has under the other's name. Names decide
/// nothing else: that the two are exchanged is proven, and only whether by whom they were made or by who reads them is
/// the question.
fn weights_exchanged(site: &Site<'_, '_, '_>, made: [Option<ValueId>; 2]) -> Option<[ValueId; 2]> {
    let b = site.judge.b;
    let weights = [weight_behind(b, made[0]?)?, weight_behind(b, made[1]?)?];
    are_exchanged(site, weights).then_some(weights)
}

/// Whether each of two constants holds what A has under the other's name, rounded to B's type where that is another.
fn are_exchanged(site: &Site<'_, '_, '_>, [x, y]: [ValueId; 2]) -> bool {
    let (a, b) = (site.judge.a, site.judge.b);
    let namesake = |v: ValueId| {
        let name = &b.graph().value(v).name;
        let stored = |&c: &ValueId| a.graph().value(c).constant.is_some() && a.graph().value(c).name == *name;
        a.graph().value_ids().find(stored)
    };
    let same = |v: ValueId, theirs: ValueId| {
        let stored = b.declared.get(v).zip(a.declared.get(theirs));
        stored.is_some_and(|(own, theirs)| own.bit_eq(theirs)) || site.judge.rounded_alike(v, theirs)
    };
    let (Some(of_x), Some(of_y)) = (namesake(x), namesake(y)) else { return false };
    x != y && same(x, of_y) && same(y, of_x) && !same(x, of_x)
}

/// The stored matrix of the product that made a value, through what moves, shifts or scales it afterwards.
fn weight_behind(side: &Side<'_>, mut v: ValueId) -> Option<ValueId> {
    /// Operators between a projection and the attention that reads it, those aside that only move elements.
    const STEPS: usize = 8;
    let mut steps = 0;
    while steps < STEPS {
        let n = side.producer(v)?;
        let node = side.graph().node(n);
        steps += usize::from(!side.moves(n));
        if role::is_product(&node.op) {
            let constant = node.inputs.iter().flatten().find(|&&v| side.is_constant(v))?;
            return stored_behind(side, *constant);
        }
        v = *node.inputs.iter().flatten().find(|&&v| !side.is_constant(v))?;
    }
    None
}

/// A constant of the file, through what only moves it.
fn stored_behind(side: &Side<'_>, mut v: ValueId) -> Option<ValueId> {
    while let Some(n) = side.producer(v) {
        v = side.graph().node(n).inputs.first().copied().flatten()?;
    }
    side.graph().value(v).constant.is_some().then_some(v)
}

/// Whether a node works on whole numbers that depend on shapes alone, while nothing in A's region does so by the same
/// operator: a size made for an `Expand` or a `Reshape` is no twin of data.
fn prepares_shape(site: &Site<'_, '_, '_>, n: NodeId) -> bool {
    let (a, b) = (site.judge.a, site.judge.b);
    let whole = |side: &Side<'_>, v: ValueId| {
        side.is_constant(v) && side.declared.dtype(v).is_some_and(DType::is_int)
    };
    let op = &site.node_b(n).op;
    site.node_b(n).writes().all(|v| whole(b, v))
        && !site
            .nodes_a()
            .iter()
            .any(|&m| site.node_a(m).op == *op && site.node_a(m).writes().all(|v| whole(a, v)))
}

/// The two branches of a choice exchanged.
fn branches(site: &Site<'_, '_, '_>, n: NodeId, out: &mut Vec<Proposal>) {
    const BRANCHES: [&str; 2] = ["then_branch", "else_branch"];
    let node = site.node_b(n);
    let mut changed = node.clone();
    let [Some(then), Some(other)] = BRANCHES.map(|name| changed.attributes.remove(name)) else { return };
    changed.attributes.insert(BRANCHES[0].to_owned(), other);
    changed.attributes.insert(BRANCHES[1].to_owned(), then);
    let Some(patch) = Patch::new(&changed, Patch::sources_of(node)) else { return };
    out.push(Proposal {
        patches: vec![(n, patch)],
        nodes_b: vec![n],
        nodes_a: twin(site, n).into_iter().collect(),
        edge: None,
        class: "operand_order",
        summary: format!("{} takes the one branch where A takes the other", label(site.judge.b, n)),
        change: "the branches exchanged".to_owned(),
        cost: 16,
    });
}

/// The parts in the order in which A joins them, where B joins the same parts.
fn as_in_a(site: &Site<'_, '_, '_>, n: NodeId, out: &mut Vec<Proposal>) {
    let node = site.node_b(n);
    let class_b = |slot: usize| site.partner(node.inputs[slot]?).map(|a| site.judge.index.class(a));
    for &m in site.nodes_a() {
        let other = site.node_a(m);
        if other.op != node.op || other.inputs.len() != node.inputs.len() {
            continue;
        }
        let mut left: Vec<usize> = (0..node.inputs.len()).collect();
        let mut order = Vec::new();
        for a in &other.inputs {
            let class = a.map(|a| site.judge.index.class(a));
            let Some(at) = left.iter().position(|&slot| class_b(slot) == class) else { break };
            order.push(left.remove(at));
        }
        if !left.is_empty() || order.is_sorted() {
            out.extend(moved_on(site, n, m));
            continue;
        }
        let own = Patch::sources_of(node);
        let Some(patch) = Patch::new(node, order.iter().map(|&slot| own[slot].clone()).collect()) else {
            continue;
        };
        let moved = order.iter().enumerate().filter(|(i, slot)| i != *slot).count();
        out.push(Proposal {
            patches: vec![(n, patch)],
            nodes_b: vec![n],
            nodes_a: vec![m],
            edge: None,
            class: if joins_waves(site, n) { "rope" } else { "operand_order" },
            summary: format!(
                "{} joins the parts of A's {} in another order: {moved} of {} stand elsewhere",
                label(site.judge.b, n),
                label(site.judge.a, m),
                order.len()
            ),
            change: format!("parts in the order {order:?}"),
            cost: 16,
        });
    }
}

/// Parts that are those of A one place further on, as where steps are collected before they are made instead of
/// afterwards: all but the last are A's parts, elsewhere.
fn moved_on(site: &Site<'_, '_, '_>, n: NodeId, m: NodeId) -> Option<Proposal> {
    let (node, other) = (site.node_b(n), site.node_a(m));
    let class_b = |slot: usize| site.partner(node.inputs[slot]?).map(|a| site.judge.index.class(a));
    let theirs: Vec<ValueId> =
        other.inputs.iter().map(|v| v.map(|v| site.judge.index.class(v))).collect::<Option<_>>()?;
    let count = theirs.len();
    let along = |by: i64| {
        let mut pairs = (0..count).filter_map(|i| Some((i, usize::try_from(i as i64 + by).ok()?)));
        count > 2 && pairs.all(|(i, j)| j >= count || class_b(i) == Some(theirs[j]))
    };
    let by = [1, -1].into_iter().find(|&by| !along(0) && along(by))?;
    let sources = other.inputs.iter().enumerate().map(|(i, a)| {
        let a = (*a)?;
        let own = usize::try_from(i as i64 - by).ok().filter(|&j| j < count);
        if let Some(j) = own {
            return Some(Source::Value(node.inputs[j]?));
        }
        let (declared, shadow) = (site.judge.a.declared.get(a)?, site.judge.a.shadow.get(a)?);
        Some(Source::Tensor { declared: declared.clone(), shadow: shadow.clone() })
    });
    let patch = Patch::new(node, sources.collect::<Option<_>>()?)?;
    let place = if by == 1 { "later" } else { "earlier" };
    Some(Proposal {
        patches: vec![(n, patch)],
        nodes_b: vec![n],
        nodes_a: vec![m],
        edge: None,
        class: "index",
        summary: format!(
            "the parts that {} joins stand one place {place} than in A's {}",
            label(site.judge.b, n),
            label(site.judge.a, m)
        ),
        change: "each part where A has it".to_owned(),
        cost: 16,
    })
}
