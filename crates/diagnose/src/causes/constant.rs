//! A constant differs: `bias`, `epsilon`, `scale`, `weight_value`, `weight_layout`, `weight_swap`, `gate_order`,
//! `normalisation`, `mask`, `rope`, `index`, `axis`, `layout`, `padding`.
//!
//! **What it finds.** A node that reads a constant other than the one A reads at this place: a transposed weight, a
//! bias of zeros, another layer's weight, a scale of 1/sqrt(768) where 1/sqrt(64) is meant; one that A computes instead, or
//! leaves to the operator.
//! **Proof.** The node reads A's constant instead; the region then computes what A's computes. A weight that holds
//! A's numbers in another order is `weight_layout`, one that equals another constant of A `weight_swap`.

use isotrace_align::Region;
use isotrace_align::patch::{Patch, Source};
use isotrace_align::relation::candidates;
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::{DType, Tensor};

use super::{Cause, Proposal, label, numbers};
use crate::pool;
use crate::role::{self, quantised::Quantised};
use crate::site::Site;

/// See the module's text.
pub struct Constant;

impl Cause for Constant {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        let theirs = pool::constants(site);
        let numbers = pool::numbers(site);
        for &n in site.nodes_b() {
            let node = site.node_b(n);
            for &m in site.nodes_a().iter().filter(|&&m| site.node_a(m).op == node.op) {
                propose_all(site, n, m, out);
                propose_computed(site, n, m, out);
            }
            for (slot, v) in node.inputs.iter().enumerate() {
                let Some(v) = *v else { continue };
                if !site.judge.b.is_constant(v) {
                    continue;
                }
                let (Some(own), Some(declared)) = (site.judge.b.shadow.get(v), site.judge.b.declared.get(v))
                else {
                    continue;
                };
                for &(a, reader, their_slot) in &theirs {
                    propose_tensor(site, n, slot, own, a, reader, their_slot, out);
                }
                if own.len() == 1 && own.dtype().is_float() {
                    for &(number, from) in &numbers {
                        propose_number(site, n, slot, own, declared, number, from, out);
                    }
                }
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "a constant of either side with its reader and slot")]
fn propose_tensor(
    site: &Site<'_, '_, '_>,
    n: NodeId,
    slot: usize,
    own: &Tensor,
    a: ValueId,
    reader: NodeId,
    their_slot: usize,
    out: &mut Vec<Proposal>,
) {
    let (Some(shadow), Some(declared)) = (site.judge.a.shadow.get(a), site.judge.a.declared.get(a)) else {
        return;
    };
    let (node, other) = (site.node_b(n), site.node_a(reader));
    let kin = node.op == other.op && slot == their_slot;
    // One axis or place may stand for several; one number for a tensor of data does not.
    let lists = kin && own.dtype().is_int() && own.rank() == shadow.rank();
    if shadow.dtype() != own.dtype() || (shadow.len() == 1) != (own.len() == 1) && !lists {
        return;
    }
    // Shape arguments (reshape, axes, slices) may differ in length; tensors of data must fill the same shape.
    let layouts: Vec<(Tensor, Tensor)> = if shadow.len() == own.len() {
        let relations = candidates(shadow.shape(), own.shape());
        let few = relations.into_iter().take(if own.rank() == 2 { 3 } else { 1 });
        few.filter_map(|r| Some((r.carry(shadow, own.shape())?, r.carry(declared, own.shape())?))).collect()
    } else if kin && shadow.rank() == own.rank() || spreads(site, n, other, shadow) {
        vec![(shadow.clone(), declared.clone())]
    } else {
        return;
    };
    let v = node.inputs[slot].expect("a constant is read here");
    let (own, narrow) = alike(site, v, a, own);
    for (turned, (shadow, declared)) in layouts.into_iter().enumerate() {
        let right = pool::rounded_to(&shadow, narrow);
        if pool::same_numbers(&right, &own) && shadow.shape() == own.shape() {
            continue;
        }
        let mut sources = Patch::sources_of(node);
        sources[slot] = Source::Tensor { declared, shadow: shadow.clone() };
        let Some(patch) = Patch::new(node, sources) else { continue };
        let (class, how) = name(site, n, slot, &own, &right, a);
        let value = &site.judge.b.graph().value(v).name;
        let told = matches!(class, "quantisation" | "precision");
        let mut nodes_b = if told { unpacking(site, v, a) } else { Vec::new() };
        nodes_b.push(n);
        out.push(Proposal {
            patches: vec![(n, patch)],
            nodes_b,
            nodes_a: vec![reader],
            // A constant that B's nodes compute is named with what reads it.
            edge: Some(v).filter(|&v| site.judge.b.producer(v).is_some()),
            class,
            summary: format!("{} reads {value:?}, {how}", label(site.judge.b, n)),
            change: format!("{value:?} as A's {:?}", site.judge.a.graph().value(a).name),
            cost: if shadow.len() != own.len() && own.dtype().is_float() {
                23
            } else if kin {
                11
            } else {
                15
            } + turned as u32,
        });
    }
}

/// The nodes of B that compute a constant, where they are few: the first of them whose result A has not, if A computes
/// the constant too.
fn unpacking(site: &Site<'_, '_, '_>, v: ValueId, theirs: ValueId) -> Vec<NodeId> {
    const MOST: usize = 4;
    let (a, b) = (site.judge.a, site.judge.b);
    let [of_a, of_b] =
        [(a, theirs), (b, v)].map(|(side, v)| Region::behind(side, &[v], |_| false, 10 * MOST));
    let float = |v: ValueId| b.declared.is_float(v) && b.declared.count(v) > Some(1);
    let works = |n: &NodeId| !role::is_layout(&site.node_b(*n).op) && site.node_b(*n).writes().any(float);
    let working: Vec<NodeId> = of_b.nodes.iter().copied().filter(works).collect();
    let made: Vec<ValueId> = of_a.nodes.iter().flat_map(|&m| site.node_a(m).writes()).collect();
    let known = |w: ValueId| {
        let tensors = |x: &ValueId| a.shadow.get(*x).zip(b.shadow.get(w));
        made.iter().filter_map(tensors).any(|(x, y)| x.len() == y.len() && pool::same_numbers(x, y))
    };
    let apart = working.iter().copied().find(|&n| !made.is_empty() && !site.node_b(n).writes().any(known));
    apart.map_or_else(|| if working.len() > MOST { Vec::new() } else { working }, |n| vec![n])
}

/// Whether a constant that the same operator of A reads is spread over what a node of B writes, as its own is over
/// other axes: a gain for each channel of each head, or for each channel alone.
fn spreads(site: &Site<'_, '_, '_>, n: NodeId, other: &isotrace_graph::Node, theirs: &Tensor) -> bool {
    let node = site.node_b(n);
    let written = node.writes().next().and_then(|v| site.judge.b.declared.shape(v));
    matches!(node.op.as_str(), "Add" | "Sub" | "Mul" | "Div" | "PRelu" | "Pow")
        && node.op == other.op
        && written.is_some_and(|own| {
            theirs.rank() <= own.len()
                && theirs.shape().iter().rev().zip(own.iter().rev()).all(|(x, y)| *x == 1 || x == y)
        })
}

/// A constant of B as far as the side that rounds more can hold it, and the type of that side. Two networks of
/// different precision do not hold the same numbers; what differs otherwise is told by what both can hold.
fn alike(site: &Site<'_, '_, '_>, v: ValueId, a: ValueId, own: &Tensor) -> (Tensor, Option<DType>) {
    let types = site.judge.b.declared.dtype(v).zip(site.judge.a.declared.dtype(a));
    let narrow = types.and_then(|(b, a)| site.judge.rounds_to(b, a));
    (pool::rounded_to(own, narrow), narrow)
}

/// The cause and how the two constants differ.
fn name(
    site: &Site<'_, '_, '_>,
    n: NodeId,
    slot: usize,
    own: &Tensor,
    right: &Tensor,
    a: ValueId,
) -> (&'static str, String) {
    let general = if role::is_rotary(site.judge.a, a) && !role::transforms(site.judge.b, n) {
        "rope"
    } else {
        role::of_constant(site.judge.b, n, slot, right)
    };
    let theirs = &site.judge.a.graph().value(a).name;
    if let Some((x, y)) = whole_numbers(own).zip(whole_numbers(right)) {
        let what = slot_name(&site.node_b(n).op, slot);
        return (general, format!("{what}{x}, where A's {theirs:?} is {y}"));
    }
    if let Some((x, y)) = single(own).zip(single(right)) {
        return (
            numbers::of_number(site, n, general, (x, y)),
            format!("{}, where A's {theirs:?} is {}{}", pool::shown(x), pool::shown(y), ratio(x, y)),
        );
    }
    if numbers::is_guarded(site, (n, slot), own, right) {
        return ("epsilon", format!("which has another small number added to it than A's {theirs:?}"));
    }
    if general != "mask"
        && let Some(how) = numbers::curve(own, right)
    {
        return ("activation", format!("which is {how} A's {theirs:?}"));
    }
    if matches!(site.node_b(n).op.as_str(), "Add" | "Sub") && numbers::hides(own, right) {
        return ("mask", format!("which hides other places than A's {theirs:?}"));
    }
    let narrowed = || numbers::narrowed(site, site.node_b(n).inputs[slot]?, own, right);
    if general != "rope"
        && let Some(narrow) = narrowed()
    {
        return ("precision", format!("which goes through {narrow} on its way, as A's {theirs:?} does not"));
    }
    if let Some(by) = numbers::shifted(own, right).filter(|by| by.fract() == 0.0 && numbers::counts(right)) {
        let class = if matches!(general, "mask" | "rope") { general } else { "index" };
        return (class, format!("which counts as A's {theirs:?} does, from {by:+} on"));
    }
    if let Some(told) = super::stored::told(site, n, (own, right), a, general) {
        return told;
    }
    if general == "weight_value" && numbers::by_channel(own, right) {
        return (
            "normalisation",
            format!(
                "which is A's {theirs:?} with a factor for each channel, as a norm that was folded in leaves it"
            ),
        );
    }
    if general == "weight_value"
        && let Some(said) = super::turned::of_channels(own, right)
    {
        return (
            "weight_layout",
            format!("which is A's {theirs:?} with {said}, but for a factor for each channel"),
        );
    }
    let weighs = role::is_product(&site.node_b(n).op) && slot == 1;
    if (general == "weight_value" || weighs)
        && numbers::rounded(own, right).is_none()
        && let Some((axis, size)) = numbers::on_grids_of_blocks(own, right)
    {
        return (
            "quantisation",
            format!(
                "which lies on a grid of a few levels for each block of {size} along axis {axis}, as A's {theirs:?} does not"
            ),
        );
    }
    if general == "scale" && numbers::same_multiset(own, right) {
        return ("weight_layout", format!("which holds the numbers of A's {theirs:?} in another order"));
    }
    // Angles one place further on are another rotation; rows that are added are the wrong ones.
    if general == "rope"
        && site.node_b(n).op == "Add"
        && let Some(by) = numbers::moved_rows(own, right)
    {
        return ("index", format!("whose rows are those of A's {theirs:?}, {by} further on"));
    }
    if general != "weight_value" && general != "bias" && general != "normalisation"
        || own.len() != right.len()
    {
        return (general, format!("which differs from A's {theirs:?}"));
    }
    if let Some(swapped) = elsewhere(site, own, a) {
        let class = if general == "weight_value" { "weight_swap" } else { general };
        return (class, format!("which is A's {swapped:?}; A reads {theirs:?} here"));
    }
    if let Some(narrow) = numbers::rounded(own, right) {
        return ("precision", format!("which is A's {theirs:?} rounded to {narrow}"));
    }
    if let Some(bits) = numbers::shortened(own, right) {
        return ("precision", format!("which is A's {theirs:?} with {bits} bits of mantissa"));
    }
    if numbers::on_a_coarse_grid(own, right) {
        return ("quantisation", format!("which is A's {theirs:?} on a grid of a few levels a row"));
    }
    if let Some(levels) = numbers::on_few_levels(own, right) {
        return ("quantisation", format!("which is A's {theirs:?} on {levels} levels"));
    }
    if numbers::signs_alone(own, right) {
        return ("quantisation", format!("which has the signs of A's {theirs:?} and one size a row"));
    }
    // What is looked up in a stack of weights is a weight, whose rows are laid out.
    let of_matrices = general == "weight_value" && right.rank() > 2 && right.shape()[0] > 1;
    if general == "weight_value"
        && let Some((axis, size)) = numbers::stretched_in_blocks(own, right)
    {
        return (
            "quantisation",
            format!(
                "which is A's {theirs:?} with a step or a zero of its own for each block of {size} along axis {axis}"
            ),
        );
    }
    if let Some(by) = numbers::moved_rows(own, right).filter(|_| !of_matrices) {
        return ("index", format!("whose rows are those of A's {theirs:?}, {by} further on"));
    }
    if general == "bias" && numbers::rows_elsewhere(own, right) {
        return ("index", format!("whose rows are rows of A's {theirs:?}, some at other places"));
    }
    if numbers::same_multiset(own, right) {
        if site.node_b(n).op.starts_with("Gather") && !of_matrices {
            return (
                "index",
                format!(
                    "which holds the rows of A's {theirs:?} at other places{}",
                    numbers::shift(own, right)
                ),
            );
        }
        let recurrent = matches!(site.node_b(n).op.as_str(), "LSTM" | "GRU" | "RNN");
        let class = if recurrent {
            recurrent_class(&site.node_b(n).op, own, right)
        } else if general == "weight_value" {
            // What nodes compute for a node that has no weights is laid out, not stored, otherwise.
            let of_b = site.node_b(n).inputs[slot].and_then(|v| site.judge.b.producer(v));
            let computed = of_b.or_else(|| site.judge.a.producer(a)).is_some();
            if computed && !weighs { "layout" } else { "weight_layout" }
        } else if general == "bias" && right.shape().iter().filter(|&&d| d > 1).count() > 1 {
            // A table, of which rows and columns were exchanged.
            "weight_layout"
        } else {
            general
        };
        return (class, format!("which holds the numbers of A's {theirs:?} in another order"));
    }
    let unpacked = general == "weight_value"
        && (role::quantised::is_unpacked(site.judge.a, a)
            || site.node_b(n).inputs[slot].is_some_and(|v| role::quantised::is_unpacked(site.judge.b, v)));
    let quantised = unpacked || role::quantised::read(site.judge.b, n, slot) == Some(Quantised::Weight);
    let places = general == "bias" && site.node_b(n).op == "Add" && role::says_where(site.judge.b, n, right);
    let class = if quantised {
        "quantisation"
    } else if places {
        "rope"
    } else {
        general
    };
    (class, format!("which differs from A's {theirs:?} {}", numbers::where_differs(own, right)))
}

/// A few whole numbers as a list; the largest of all is how exporters write "to the end".
fn whole_numbers(t: &Tensor) -> Option<String> {
    if !t.dtype().is_int() || t.len() > 8 {
        return None;
    }
    let shown = |i: i64| if i == i64::MAX { "the end".to_owned() } else { i.to_string() };
    Some(format!("[{}]", t.to_i64().ok()?.iter().map(|&i| shown(i)).collect::<Vec<_>>().join(", ")))
}

/// What a slot that takes places is called in the standard, with a space behind.
fn slot_name(op: &str, slot: usize) -> &'static str {
    match (op, slot) {
        ("Loop", 0) => "a trip count of ",
        ("Slice", 1) => "starts ",
        ("Slice", 2) => "ends ",
        ("Slice", 3) => "axes ",
        ("Slice", 4) => "steps ",
        ("Pad", 1) => "pads ",
        ("Reshape" | "Expand", 1) => "shape ",
        _ => "",
    }
}

fn single(t: &Tensor) -> Option<f64> {
    (t.len() == 1).then(|| t.to_f64().ok().map(|v| v[0])).flatten()
}

fn ratio(x: f64, y: f64) -> String {
    let r = x / y;
    if r.is_finite() && r != 0.0 { format!(" (a factor of {r:.6})") } else { String::new() }
}

/// Numbers up to which two constants are near each other by chance.
const FEW: usize = 16;

/// Another constant of A that holds these numbers.
fn elsewhere(site: &Site<'_, '_, '_>, own: &Tensor, right: ValueId) -> Option<String> {
    let graph = site.judge.a.graph();
    graph.value_ids().filter(|&v| v != right && site.judge.a.is_constant(v)).find_map(|v| {
        let declared = site.judge.a.declared.get(v).filter(|t| t.len() == own.len())?;
        let narrow = site.judge.rounds_to(site.judge.b.main, declared.dtype());
        let shadow = site.judge.a.shadow.get(v)?;
        let t = &pool::rounded_to(shadow, narrow);
        let alike = t.len() == own.len() && t.dtype() == own.dtype();
        // Two exporters that fold a norm round it otherwise.
        let same = alike && (pool::same_numbers(t, own) || own.len() > FEW && super::turned::near(own, t));
        let trivial = || own.to_f64().is_ok_and(|x| x.iter().all(|y| *y == x[0]));
        let name = || graph.value(v).name.clone();
        if same && !trivial() {
            return Some(name());
        }
        // A table of words is stored the other way round than the product with it.
        let across =
            matches!((t.shape(), own.shape()), ([r, c], [q, p]) if r == p && c == q && r > &1 && c > &1);
        let turned = alike && across && t.permute(&[1, 0]).is_ok_and(|t| pool::same_numbers(&t, own));
        (turned && !trivial()).then(|| format!("{} transposed", name()))
    })
}

#[expect(clippy::too_many_arguments, reason = "a number of either side with where it is used")]
fn propose_number(
    site: &Site<'_, '_, '_>,
    n: NodeId,
    slot: usize,
    own: &Tensor,
    declared: &Tensor,
    number: f64,
    from: Option<NodeId>,
    out: &mut Vec<Proposal>,
) {
    let node = site.node_b(n);
    let Some(x) = single(own) else { return };
    // A divisor on one side is a factor on the other.
    let mut wanted = vec![number];
    if matches!(node.op.as_str(), "Mul" | "Div") && number != 0.0 {
        wanted.push(1.0 / number);
    }
    for y in wanted.into_iter().filter(|y| *y != x) {
        let Ok(shadow) = Tensor::full(own.shape(), y) else { continue };
        let Ok(low) = shadow.cast(declared.dtype()) else { continue };
        let mut sources = Patch::sources_of(node);
        // A factor of one is none: B has a node that A has not.
        let whole = y == 1.0 && matches!(node.op.as_str(), "Mul" | "Div");
        let general = if whole {
            role::of_presence(site.judge.b, n)
        } else {
            role::of_constant(site.judge.b, n, slot, &shadow)
        };
        let class = numbers::of_number(site, n, general, (x, y));
        sources[slot] = Source::Tensor { declared: low, shadow };
        let Some(patch) = Patch::new(node, sources) else { continue };
        out.push(Proposal {
            patches: vec![(n, patch)],
            nodes_b: vec![n],
            // The number one, wherever A has it, is no node that stands for one of B's.
            nodes_a: from.into_iter().filter(|_| !whole).collect(),
            edge: None,
            class,
            summary: format!(
                "{} reads {}, where A has {}{}",
                label(site.judge.b, n),
                pool::shown(x),
                pool::shown(y),
                ratio(x, y)
            ),
            change: format!("{} in place of {}", pool::shown(y), pool::shown(x)),
            cost: 13,
        });
    }
}

/// What A computes where B's call of the same operator reads a constant: a mask or positions that were stored.
fn propose_computed(site: &Site<'_, '_, '_>, n: NodeId, m: NodeId, out: &mut Vec<Proposal>) {
    let (a, b, node) = (site.judge.a, site.judge.b, site.node_b(n));
    for own in (0..node.inputs.len()).filter(|&i| node.inputs[i].is_some_and(|v| b.is_constant(v))) {
        for theirs in a.dynamic_inputs(m) {
            let v = node.inputs[own].expect("a constant is read here");
            let (Some(held), Some(shadow), Some(declared)) =
                (b.declared.get(v), a.shadow.get(theirs), a.declared.get(theirs))
            else {
                continue;
            };
            if held.shape() != shadow.shape() || held.dtype() != declared.dtype() || held.len() == 1 {
                continue;
            }
            let mut sources = Patch::sources_of(node);
            sources[own] = Source::Tensor { declared: declared.clone(), shadow: shadow.clone() };
            let Some(patch) = Patch::new(node, sources) else { continue };
            let names = (&b.graph().value(v).name, &a.graph().value(theirs).name);
            // What A computes is no parameter: what is missing is what A's node takes it in for.
            let class = match role::of_constant(b, n, own, shadow) {
                "bias" | "scale" | "weight_value" if !role::is_product(&node.op) => role::of_presence(a, m),
                class => class,
            };
            out.push(Proposal {
                patches: vec![(n, patch)],
                nodes_b: vec![n],
                nodes_a: vec![m],
                edge: Some(v).filter(|&v| b.producer(v).is_some()),
                class,
                summary: format!(
                    "{} reads the constant {:?}, which is not what A computes as {:?}",
                    label(b, n),
                    names.0,
                    names.1
                ),
                change: format!("{:?} as A's {:?}", names.0, names.1),
                cost: 16,
            });
        }
    }
}

/// Gates exchanged, each as a whole, are a matter of their order; anything else of the weights' layout.
fn recurrent_class(op: &str, own: &Tensor, right: &Tensor) -> &'static str {
    let (Ok(x), Ok(y)) = (own.to_f64(), right.to_f64()) else { return "gate_order" };
    let directions = right.shape().first().copied().unwrap_or(1).max(1);
    let gates = match op {
        "LSTM" => 4,
        "GRU" => 3,
        _ => 1,
    };
    // The bias holds those of what comes in and of the state.
    let gates = if right.rank() == 2 { 2 * gates } else { gates };
    let (each, size) = (y.len() / directions, y.len() / directions / gates);
    let within = |(x, y): (&[f64], &[f64])| {
        x.chunks(size.max(1)).all(|gate| y.chunks(size.max(1)).any(|other| other == gate))
    };
    let whole = x.chunks(each.max(1)).zip(y.chunks(each.max(1))).all(within);
    if whole { "gate_order" } else { "weight_layout" }
}

/// All constants of a call of A in place of those of B's call of the same operator.
fn propose_all(site: &Site<'_, '_, '_>, n: NodeId, m: NodeId, out: &mut Vec<Proposal>) {
    let (node, other) = (site.node_b(n), site.node_a(m));
    let mut sources = Patch::sources_of(node);
    let mut classes = Vec::new();
    let mut how = Vec::new();
    let (mut optional, mut reordered) = (false, true);
    // Of operators that read as many values as there are, none is left out.
    let variadic =
        matches!(node.op.as_str(), "Concat" | "Sum" | "Max" | "Min" | "Mean" | "Einsum" | "Loop" | "Scan");
    for slot in 0..node.inputs.len().max(other.inputs.len()) {
        let read = |node: &isotrace_graph::Node| node.inputs.get(slot).copied().flatten();
        let (b, a) = match (read(node), read(other)) {
            (Some(b), Some(a)) => (b, a),
            // What one side says and the other leaves to the operator.
            (Some(b), None) if !variadic => {
                let Some(own) = site.judge.b.shadow.get(b) else { continue };
                classes.push(role::of_constant(site.judge.b, n, slot, own));
                how.push(format!("{:?}, which A leaves out", site.judge.b.graph().value(b).name));
                sources[slot] = Source::Absent;
                optional = true;
                continue;
            }
            (None, Some(a)) if !variadic => {
                let read = site.judge.a.shadow.get(a).zip(site.judge.a.declared.get(a));
                let Some((shadow, declared)) = read else { continue };
                classes.push(role::of_constant(site.judge.a, m, slot, shadow));
                how.push(format!("A's {:?}, which B leaves out", site.judge.a.graph().value(a).name));
                while sources.len() <= slot {
                    sources.push(Source::Absent);
                }
                sources[slot] = Source::Tensor { declared: declared.clone(), shadow: shadow.clone() };
                optional = true;
                continue;
            }
            _ => continue,
        };
        if !site.judge.b.is_constant(b) || !site.judge.a.is_constant(a) {
            continue;
        }
        let (Some(own), Some(shadow), Some(declared)) =
            (site.judge.b.shadow.get(b), site.judge.a.shadow.get(a), site.judge.a.declared.get(a))
        else {
            continue;
        };
        if own.dtype() != shadow.dtype() || own.shape() != shadow.shape() || pool::same_numbers(own, shadow) {
            continue;
        }
        let (own, narrow) = alike(site, b, a, own);
        let right = pool::rounded_to(shadow, narrow);
        if pool::same_numbers(&own, &right) {
            continue;
        }
        let (class, text) = name(site, n, slot, &own, &right, a);
        reordered &= numbers::same_multiset(&own, &right);
        classes.push(class);
        how.push(text);
        sources[slot] = Source::Tensor { declared: declared.clone(), shadow: shadow.clone() };
    }
    if classes.len() < 2 && !optional {
        return;
    }
    let Some(patch) = Patch::new(node, sources) else { return };
    // Outputs in another order bring their biases along: the weight tells.
    if reordered && classes.iter().any(|c| *c != "bias") {
        classes.retain(|c| *c != "bias");
    }
    let dropped = super::stored::drops(site, n, m);
    let swapped = how.iter().all(|t| t.starts_with("which is A's"));
    out.push(Proposal {
        patches: vec![(n, patch)],
        nodes_b: vec![n],
        nodes_a: vec![m],
        edge: None,
        class: if dropped {
            "mode"
        } else if swapped && !classes.contains(&"precision") {
            "weight_swap"
        } else {
            role::most_telling(&classes).unwrap_or(classes[0])
        },
        summary: match &how[..] {
            [one] => format!("{} differs in what it reads: {one}", label(site.judge.b, n)),
            _ => format!(
                "{} differs in {} things that it reads: {}",
                label(site.judge.b, n),
                how.len(),
                how.join("; ")
            ),
        },
        change: format!("its constants as those of A's {}", label(site.judge.a, m)),
        cost: 18,
    });
}
