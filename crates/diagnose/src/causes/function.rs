//! A whole function differs, no single part of it: `activation`, `rope`, `normalisation`, `quantisation`, ...
//!
//! **What it finds.** A GELU by tanh written out in eight nodes where A's is written out in five; a rotation with both
//! its tables wrong; a statistic computed by another formula. No setting, constant or operator repairs it alone.
//! **Proof.** A's nodes, run on what B's region reads, in place of B's. The name follows from what the two regions
//! have in common: a function of one input alone, angles of positions, statistics of rows, a grid.

use isotrace_align::patch::{Patch, Source};
use isotrace_align::relation::candidates;
use isotrace_align::{Region, Relation, Side};
use isotrace_graph::{Attribute, Node, NodeId, ValueId};
use isotrace_ops::{Flow, Precision};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;

use super::{Cause, Proposal, WHOLE, affine, difference, folded, label, telling};
use crate::context;
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Function;

/// Calls in a transplanted region; shared parts are called once for each use.
const MOST_CALLS: usize = 200;
/// Layouts tried where B's value is to be read as A's.
const MOST_LAYOUTS: usize = 24;
/// Nodes of A in a transplanted region; a larger one says where, and not what.
const MOST_NODES: usize = 24;

impl Cause for Function {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        let Some(n) = site.judge.b.producer(site.point) else { return };
        let Some(class) = family(site) else { return };
        if site.open_a.dynamic_nodes(site.judge.a).count() > MOST_NODES {
            return;
        }
        let transplanted = transplant(site, &site.open_a, &site.open_b, None)
            .or_else(|| transplant(site, &site.wide_a, &site.wide_b, None));
        let Some(patch) = transplanted.map(|patch| super::in_place_of(site, n, patch)) else { return };
        let names = |nodes: Vec<String>| {
            if nodes.len() > 4 { format!("{} nodes", nodes.len()) } else { nodes.join(", ") }
        };
        let nodes_b = telling(site.judge.b, &site.open_b, site.point);
        let nodes_a = telling(site.judge.a, &site.open_a, site.candidate);
        let of_a = names(nodes_a.iter().map(|&m| label(site.judge.a, m)).collect());
        let of_b = names(nodes_b.iter().map(|&m| label(site.judge.b, m)).collect());
        let folded = folded::told(site);
        let class = folded.as_ref().map_or(class, |(class, _)| *class);
        let set = if class == "normalisation" { another_setting(site) } else { None };
        let (class, summary, change) = if let Some(Reset { node, class, what, own, theirs }) = set {
            (
                class,
                format!(
                    "{of_b} computes what A would with {what} {theirs} in {}, which has {own}",
                    label(site.judge.a, node)
                ),
                format!("A's {of_a}, {what} {own}, on the same inputs"),
            )
        } else {
            let other = if class == "normalisation" { of_another_norm(site) } else { None };
            let told = other.or(folded);
            let said = told.as_ref().map(|(_, how)| format!(": {how}")).unwrap_or_default();
            let class = told.map_or(class, |(class, _)| class);
            (
                class,
                format!("{of_b} in B and {of_a} in A are {}{said}", article(class)),
                format!("A's {of_a} on the same inputs"),
            )
        };
        out.push(Proposal {
            patches: vec![(n, patch)],
            nodes_b,
            nodes_a,
            edge: None,
            class,
            summary,
            change,
            cost: WHOLE,
        });
    }
}

fn article(class: &str) -> &'static str {
    match class {
        "activation" => "different functions of one input alone",
        "bias" => "sums with different numbers",
        "scale" => "products with different factors",
        "operand_order" => "the same operators on the same values in another order",
        "rope" => "different rotations by position",
        "normalisation" => "different normalisations",
        "precision" => "the same but for numbers that the one keeps in a narrower type",
        "quantisation" => "not rounded to a grid alike",
        "gate_order" => "cells that differ in their weights or in the order of their gates",
        "mask" => "different masks",
        "mode" => "a normalisation by statistics of the batch and one by stored statistics",
        "padding" => "different paddings",
        "weight_swap" => "products with the weights of two places",
        "weight_layout" => "products with one weight in two orders",
        "weight_value" => "products with different weights",
        "index" => "different selections of elements",
        _ => "different functions of the same values",
    }
}

/// Whether a region makes whole numbers of whole numbers, none of them a byte: what is rounded on the way is brought to no
/// grid, as in a remainder that is spelled by its quotient.
fn counts(side: &Side<'_>, region: &Region, written: ValueId) -> bool {
    let whole = |v: ValueId| {
        let Some(t) = side.declared.get(v) else { return false };
        !matches!(t.dtype(), DType::I8 | DType::U8)
            && t.to_f64().is_ok_and(|x| x.iter().all(|x| x.fract() == 0.0))
    };
    let inside = |v: ValueId| side.producer(v).is_some_and(|n| region.nodes.contains(&n));
    let mut read = region.dynamic_nodes(side).flat_map(|n| side.dynamic_inputs(n)).filter(|&v| !inside(v));
    whole(written) && read.all(whole)
}

/// What the two regions have in common.
fn family(site: &Site<'_, '_, '_>) -> Option<&'static str> {
    let (a, b) = (site.judge.a, site.judge.b);
    let ops_a: Vec<&str> = site.open_a.nodes.iter().map(|&n| site.node_a(n).op.as_str()).collect();
    let ops_b: Vec<&str> = site.open_b.nodes.iter().map(|&n| site.node_b(n).op.as_str()).collect();
    let any = |f: &dyn Fn(&str) -> bool| ops_a.iter().chain(&ops_b).any(|op| f(op));
    let grid = |ops: &[&str]| ops.iter().any(|op| role::is_rounding(op));
    // What is turned afterwards may be wrong before it is.
    let moved = !prepares(a, &site.open_a) && !prepares(b, &site.open_b);
    let rotary = moved
        && (role::is_rotated(b, site.point)
            || role::is_rotated(a, site.candidate)
            || role::is_turned(b, site.point)
            || role::is_turned(a, site.candidate))
        || site.open_b.nodes.iter().any(|&n| role::turns(b, n))
        || site.open_a.nodes.iter().any(|&n| role::turns(a, n));
    let purpose = context::purpose(b, site.point).or_else(|| context::purpose(a, site.candidate));
    let on_grid = |side: &Side<'_>, region: &Region| {
        let op = |n: NodeId| side.graph().node(n).op.as_str();
        let mut nodes = region.dynamic_nodes(side).filter(|&n| !role::is_layout(op(n))).peekable();
        nodes.peek().is_some()
            && nodes.all(|n| role::is_rounding(op(n)) || role::quantised::works_on_levels(side, n))
    };
    if grid(&ops_a) != grid(&ops_b)
        && counts(a, &site.open_a, site.candidate)
        && counts(b, &site.open_b, site.point)
    {
        purpose.or(Some("index"))
    } else if grid(&ops_a) != grid(&ops_b) || on_grid(a, &site.open_a) && on_grid(b, &site.open_b) {
        Some("quantisation")
    } else if purpose.is_some() {
        purpose
    } else if rotary || angles(a, &site.open_a) || angles(b, &site.open_b) {
        Some("rope")
    } else if difference::stored_narrowly(site) {
        Some("precision")
    } else if any(&|op| matches!(op, "LSTM" | "GRU" | "RNN")) {
        Some("gate_order")
    } else if pointwise(site, &site.open_a, &site.open_b) || pointwise(site, &site.wide_a, &site.wide_b) {
        affine::kind(site)
            .or_else(|| difference::of_statistics(site))
            .or_else(|| difference::moved(site))
            .or(Some("activation"))
    } else if difference::takes_batch_statistics(site, &site.open_a, &site.open_b) {
        Some("mode")
    } else {
        difference::behind(site)
            .or_else(|| difference::moved(site))
            .or_else(|| difference::kind(site, &site.open_a, &site.open_b))
            .or_else(|| weights(site))
            .or_else(|| difference::wired(site))
    }
}

/// Epsilons that frameworks and their users give to normalisations.
const EPSILONS: [f32; 9] = [0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2];

/// A setting of a node of A, with what it would have to be for B's numbers.
struct Reset {
    node: NodeId,
    class: &'static str,
    what: &'static str,
    own: String,
    theirs: String,
}

/// What A's region computes with another epsilon in all its normalisations, or over another axis, is what B computes,
/// where folding or writing out left nothing of B's own: the node, its setting, and the one that B's numbers tell.
fn another_setting(site: &Site<'_, '_, '_>) -> Option<Reset> {
    epsilon(site).or_else(|| axis(site))
}

fn epsilon(site: &Site<'_, '_, '_>) -> Option<Reset> {
    let set = |n: NodeId| match site.node_a(n).attributes.get("epsilon") {
        Some(Attribute::Float(e)) => Some((n, *e)),
        _ => None,
    };
    let (node, own) = site.open_a.dynamic_nodes(site.judge.a).find_map(set)?;
    let others = EPSILONS.iter().filter(|&&e| e != own).map(|&e| Attribute::Float(e));
    let Attribute::Float(theirs) = told_by_numbers(site, "epsilon", &Attribute::Float(own), others)? else {
        return None;
    };
    let [own, theirs] = [own, theirs].map(|e| format!("{e:e}"));
    Some(Reset { node, class: "epsilon", what: "an epsilon of", own, theirs })
}

fn axis(site: &Site<'_, '_, '_>) -> Option<Reset> {
    let a = site.judge.a;
    let set = |n: NodeId| match site.node_a(n).attributes.get("axis") {
        Some(Attribute::Int(axis)) => Some((n, *axis)),
        _ => None,
    };
    let (node, own) = site.open_a.dynamic_nodes(a).find_map(set)?;
    let rank = a.shadow.get(*a.dynamic_inputs(node).first()?)?.rank() as i64;
    let others = (0..rank).filter(|&x| x != own.rem_euclid(rank)).map(Attribute::Int);
    let Attribute::Int(theirs) = told_by_numbers(site, "axis", &Attribute::Int(own), others)? else {
        return None;
    };
    let [own, theirs] = [own, theirs].map(|axis| axis.to_string());
    Some(Reset { node, class: role::of_attribute(&site.node_a(node).op, "axis"), what: "axis", own, theirs })
}

/// Of other values for a setting of A's region the one with which it computes what B computes.
fn told_by_numbers(
    site: &Site<'_, '_, '_>,
    name: &'static str,
    own: &Attribute,
    others: impl Iterator<Item = Attribute>,
) -> Option<Attribute> {
    let lookup = |v: ValueId| site.state.shadow[v.index()].clone();
    let point = site.state.own_shadow[site.point.index()].as_ref()?;
    let y = point.to_f64().ok()?;
    let distance = |value: &Attribute| {
        let set = Some((name, value));
        let patch = transplant(site, &site.open_a, &site.open_b, set)
            .or_else(|| transplant(site, &site.wide_a, &site.wide_b, set))?;
        let made = patch.evaluate(Precision::Float64, &lookup, None)?.into_iter().next()?;
        let x = made.to_f64().ok().filter(|x| x.len() == y.len())?;
        Some(x.iter().zip(y.iter()).fold(0.0, |m: f64, (x, y)| m.max((x - y).abs())))
    };
    let before = distance(own)?;
    let tried = others.filter_map(|value| Some((distance(&value)?, value)));
    let (left, theirs) = tried.min_by(|x, y| x.0.total_cmp(&y.0))?;
    // Folding rounds the weights once more, which leaves a thousandth of what an epsilon changes or less.
    (left < before * 1e-2).then_some(theirs)
}

/// The gain and shift of a norm in B's region, where they are those of another norm of A.
fn of_another_norm(site: &Site<'_, '_, '_>) -> Option<(&'static str, String)> {
    let (a, b) = (site.judge.a, site.judge.b);
    let learned = |side: &Side<'_>, nodes: &mut dyn Iterator<Item = NodeId>| -> Vec<ValueId> {
        let norms = nodes.filter(|&n| role::is_normalisation(&side.graph().node(n).op));
        let read = norms.flat_map(|n| side.graph().node(n).inputs.iter().skip(1).flatten().copied());
        let wide = |v: &ValueId| side.is_constant(*v) && side.shadow.get(*v).is_some_and(|t| t.len() > 1);
        read.filter(wide).collect()
    };
    let own = learned(b, &mut site.open_b.dynamic_nodes(b));
    let theirs = learned(a, &mut site.open_a.dynamic_nodes(a));
    let others = learned(a, &mut a.graph().node_ids());
    let same = |v: ValueId, of: &[ValueId]| {
        let tensor = b.shadow.get(v);
        of.iter().any(|&w| tensor.zip(a.shadow.get(w)).is_some_and(|(x, y)| crate::pool::same_numbers(x, y)))
    };
    let exchanged = own.iter().all(|&v| !same(v, &theirs) && same(v, &others));
    (!own.is_empty() && exchanged)
        .then(|| ("weight_swap", "its gain and shift are those of another norm of A's".to_owned()))
}

/// What two products whose weights are stored in other layouts (blocked, padded) have in common.
fn weights(site: &Site<'_, '_, '_>) -> Option<&'static str> {
    let read = |side: &Side<'_>, region: &Region| -> Vec<(ValueId, Vec<f64>)> {
        let products = region.dynamic_nodes(side).filter(|&n| role::is_product(&side.graph().node(n).op));
        products.filter_map(|n| weight(side, n)).collect()
    };
    let (theirs, own) = (read(site.judge.a, &site.open_a), read(site.judge.b, &site.open_b));
    if theirs.is_empty() || theirs.len() != own.len() {
        return None;
    }
    let differs = theirs.iter().zip(&own).find(|((_, x), (_, y))| x != y);
    let Some(((right, _), (_, held))) = differs else {
        // With one weight it may be what a fused product does with its result.
        if theirs.len() > 1 {
            return Some("weight_layout");
        }
        let curve = |node: &Node| {
            role::is_activation(&node.op)
                || node.op == "Softmax"
                || node.attributes.contains_key("activation")
        };
        let curved = site.open_a.nodes.iter().any(|&n| curve(site.node_a(n)))
            || site.open_b.nodes.iter().any(|&n| curve(site.node_b(n)));
        return Some(if curved { "activation" } else { "weight_layout" });
    };
    let quantised = |side: &Side<'_>, region: &Region| {
        region.dynamic_nodes(side).any(|n| role::quantised::works_on(&side.graph().node(n).op))
    };
    let a = site.judge.a;
    let swapped = a.graph().node_ids().filter(|&n| role::is_product(&a.graph().node(n).op)).any(|n| {
        let fits = a.graph().node(n).inputs.get(1).copied().flatten().is_some_and(|v| {
            v != *right && a.is_constant(v) && a.shadow.get(v).is_some_and(|t| t.len() >= held.len())
        });
        fits && weight(a, n).is_some_and(|(_, other)| other == *held)
    });
    Some(if swapped {
        "weight_swap"
    } else if quantised(a, &site.open_a) || quantised(site.judge.b, &site.open_b) {
        "quantisation"
    } else {
        "weight_value"
    })
}

/// The weight of a product: its constant, and its numbers in ascending order without the zeros that fill blocks up.
fn weight(side: &Side<'_>, n: NodeId) -> Option<(ValueId, Vec<f64>)> {
    let v = side.graph().node(n).inputs.get(1).copied().flatten().filter(|&v| side.is_constant(v))?;
    let mut numbers: Vec<f64> =
        side.shadow.get(v)?.to_f64().ok()?.iter().copied().filter(|x| *x != 0.0).collect();
    numbers.sort_unstable_by(f64::total_cmp);
    Some((v, numbers))
}

/// Whether a region computes anything besides the moves and signs of a rotation: products, statistics, curves, gains.
fn prepares(side: &Side<'_>, region: &Region) -> bool {
    region.dynamic_nodes(side).any(|n| {
        let node = side.graph().node(n);
        let op = node.op.as_str();
        let gain = || {
            let constants = node.inputs.iter().flatten().filter(|&&v| side.is_constant(v));
            let mut wide = constants.filter(|&&v| side.declared.get(v).is_some_and(|t| t.len() > 2));
            matches!(op, "Add" | "Sub" | "Mul" | "Div") && wide.any(|&v| !role::is_rotary(side, v))
        };
        role::is_product(op)
            || role::is_normalisation(op)
            || role::is_reduction(op)
            || matches!(op, "Sqrt" | "Pow" | "Softmax")
            || role::is_activation(op) && !matches!(op, "Cos" | "Sin")
            || gain()
    })
}

/// Whether a region turns by angles.
fn angles(side: &Side<'_>, region: &Region) -> bool {
    region.nodes.iter().any(|&n| match side.graph().node(n).op.as_str() {
        "Cos" | "Sin" => role::is_of_angles(side, n),
        op => op == "RotaryEmbedding",
    })
}

/// Whether both regions are functions of the same one value, element by element.
fn pointwise(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region) -> bool {
    let (a, b) = (site.judge.a, site.judge.b);
    let one = |boundary: Vec<ValueId>| if let [v] = boundary[..] { Some(v) } else { None };
    let entering = |side: &Side<'_>, region: &Region| -> Vec<ValueId> {
        region.boundary.iter().copied().filter(|&v| !side.is_constant(v)).collect()
    };
    let (Some(x), Some(y)) = (one(entering(a, in_a)), one(entering(b, in_b))) else {
        return false;
    };
    let gathers = |op: &str| {
        role::is_product(op)
            || role::is_reduction(op)
            || role::is_normalisation(op)
            || matches!(op, "Softmax" | "LogSoftmax" | "TopK")
            || op.starts_with("Scatter")
            || op.starts_with("Gather")
    };
    if in_a.dynamic_nodes(a).any(|n| gathers(&site.node_a(n).op))
        || in_b.dynamic_nodes(b).any(|n| gathers(&site.node_b(n).op))
    {
        return false;
    }
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

/// A setting of A's nodes, by name, and what it is to be.
type Set<'x> = Option<(&'static str, &'x Attribute)>;

/// A's region as one call on what B's region reads, laid out as B's point; with another setting, if one is given.
fn transplant(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region, set: Set<'_>) -> Option<Patch> {
    let mut partners: FxHashMap<ValueId, ValueId> = FxHashMap::default();
    for &v in &in_b.boundary {
        if let Some(m) = &site.state.matched[v.index()] {
            let same = m.relation == Relation::Same;
            let known = partners.entry(site.judge.index.class(m.a)).or_insert(v);
            if same {
                *known = v;
            }
        }
    }
    let mut calls = 0;
    let theirs = site.judge.a.shadow.get(site.candidate)?.shape();
    // Where A does nothing, B hands on what it reads.
    let idle =
        if in_a.nodes.is_empty() { partners.get(&site.judge.index.class(site.candidate)) } else { None };
    let patch = match idle {
        Some(&own) => reshaped(carried(site, own, site.candidate)?, theirs)?,
        None => graft(site, in_a, site.candidate, &partners, &mut (&mut calls, set))?,
    };
    let own = site.state.shadow[site.point.index()].as_ref()?.shape();
    laid_out(patch, theirs, own, &site.relation)
}

/// What `patch` computes in A's layout, of shape `theirs`, in B's, of shape `own`.
fn laid_out(patch: Patch, theirs: &[usize], own: &[usize], relation: &Relation) -> Option<Patch> {
    match relation {
        Relation::Sliced { .. } => None,
        Relation::Same | Relation::Reshaped if theirs == own => Some(patch),
        Relation::Same | Relation::Reshaped => reshaped(whole(patch), own),
        Relation::PermutedA(perm) => reshaped(whole(transposed(whole(patch), perm)?), own),
        Relation::PermutedB(perm) => {
            let read: Vec<usize> = perm.iter().map(|&p| own.get(p).copied()).collect::<Option<_>>()?;
            transposed(whole(reshaped(whole(patch), &read)?), &backwards(perm)?)
        }
    }
}

fn whole(patch: Patch) -> Source {
    Source::Patch(Box::new(patch))
}

/// What regroups the elements of `of` into `shape`.
pub(super) fn reshaped(of: Source, shape: &[usize]) -> Option<Patch> {
    let sizes = Tensor::from_vec(&[shape.len()], shape.iter().map(|&d| d as i64).collect()).ok()?;
    let sources = vec![of, Source::Tensor { declared: sizes.clone(), shadow: sizes }];
    Patch::new(&layout_node("Reshape", None), sources)
}

/// What repeats `of` to fill `shape`.
pub(super) fn expanded(of: Source, shape: &[usize]) -> Option<Patch> {
    let sizes = Tensor::from_vec(&[shape.len()], shape.iter().map(|&d| d as i64).collect()).ok()?;
    let mut node = layout_node("Expand", None);
    node.inputs.push(None);
    Patch::new(&node, vec![of, Source::Tensor { declared: sizes.clone(), shadow: sizes }])
}

fn transposed(of: Source, perm: &[usize]) -> Option<Patch> {
    Patch::new(&layout_node("Transpose", Some(perm)), vec![of])
}

fn layout_node(op: &str, perm: Option<&[usize]>) -> Node {
    let mut attributes = isotrace_graph::Attributes::default();
    if let Some(perm) = perm {
        attributes.insert("perm".into(), Attribute::Ints(perm.iter().map(|&p| p as i64).collect()));
    }
    Node {
        name: String::new(),
        domain: String::new(),
        op: op.into(),
        version: 13,
        inputs: vec![None; 1 + usize::from(op == "Reshape")],
        // One output; which value it would be is never asked.
        outputs: vec![Some(ValueId(0))],
        attributes,
    }
}

fn graft(
    site: &Site<'_, '_, '_>,
    in_a: &Region,
    v: ValueId,
    partners: &FxHashMap<ValueId, ValueId>,
    how: &mut (&mut usize, Set<'_>),
) -> Option<Patch> {
    let a = site.judge.a;
    let n = a.producer(v)?;
    *how.0 += 1;
    // A body reads values of A that nothing stands for in B.
    if *how.0 > MOST_CALLS || site.node_a(n).bodies().next().is_some() {
        return None;
    }
    let slot = site.node_a(n).outputs.iter().position(|w| *w == Some(v))?;
    let mut sources = Vec::new();
    for read in &site.node_a(n).inputs {
        sources.push(match *read {
            None => Source::Absent,
            Some(r) => {
                if let Some(&own) = partners.get(&site.judge.index.class(r)).filter(|_| !a.is_constant(r)) {
                    carried(site, own, r)?
                } else if in_a.nodes.contains(&a.producer(r).unwrap_or(NodeId(u32::MAX))) && !a.is_constant(r)
                {
                    Source::Patch(Box::new(graft(site, in_a, r, partners, how)?))
                } else {
                    Source::Tensor { declared: a.declared.get(r)?.clone(), shadow: a.shadow.get(r)?.clone() }
                }
            }
        });
    }
    match how.1.filter(|(name, _)| site.node_a(n).attributes.contains_key(*name)) {
        Some((name, value)) => {
            let mut changed = site.node_a(n).clone();
            changed.attributes.insert(name.into(), value.clone());
            Patch::new(&changed, sources)
        }
        None => Patch::new(site.node_a(n), sources),
    }
    .map(|patch| patch.taking(slot))
}

/// B's value `own` as A's `wanted`, which holds the same numbers, is laid out.
fn carried(site: &Site<'_, '_, '_>, own: ValueId, wanted: ValueId) -> Option<Source> {
    let theirs = site.judge.a.shadow.get(wanted)?;
    let value = site.state.shadow[own.index()].as_ref()?;
    if theirs.len() != value.len() {
        return None;
    }
    let (x, largest) = {
        let x = value.to_f64().ok()?.into_owned();
        let largest = x.iter().fold(0f64, |m, v| m.max(v.abs()));
        (x, largest)
    };
    let near = |t: Tensor| {
        let close =
            |(x, y): (&f64, &f64)| x == y || (x - y).abs() <= 1e-6 * largest || x.is_nan() && y.is_nan();
        t.to_f64().is_ok_and(|y| x.iter().zip(y.iter()).all(close))
    };
    let relations = candidates(theirs.shape(), value.shape());
    let fits = |r: &Relation| r.carry(theirs, value.shape()).is_some_and(near);
    let shape = theirs.shape();
    let read = || Source::Value(own);
    match relations.into_iter().take(MOST_LAYOUTS).find(fits)? {
        Relation::Same => Some(read()),
        Relation::Reshaped => Some(whole(reshaped(read(), shape)?)),
        Relation::PermutedA(perm) => {
            let turned: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
            let flat = whole(reshaped(read(), &turned)?);
            Some(whole(transposed(flat, &backwards(&perm)?)?))
        }
        Relation::PermutedB(perm) => {
            let turned = whole(transposed(read(), &perm)?);
            Some(whole(reshaped(turned, shape)?))
        }
        Relation::Sliced { .. } => None,
    }
}

fn backwards(perm: &[usize]) -> Option<Vec<usize>> {
    (0..perm.len()).map(|axis| perm.iter().position(|&p| p == axis)).collect()
}
