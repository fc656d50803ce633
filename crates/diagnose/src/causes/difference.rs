//! What two regions have not in common: the parts of one that nothing in the other stands for, and what kind of fault
//! their absence or presence is.

use isotrace_align::{Region, Side};
use isotrace_graph::{Attribute, Node, NodeId, ValueId};
use isotrace_tensor::{DType, Tensor};

use super::attribute::settings_apart;
use super::layout::{lays_out_a_mask, lays_out_statistics};
use super::numbers::by_channel;
use super::stored::is_rest;
use crate::role;
use crate::site::Site;

/// The kind of fault when one region's nodes stand in for the other's, where the operators tell.
pub fn kind(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region) -> Option<&'static str> {
    let (a, b) = (site.judge.a, site.judge.b);
    let (of_a, of_b) = (parts(a, in_a), parts(b, in_b));
    let mut only_a = without(&of_a, &of_b);
    let mut only_b = without(&of_b, &of_a);
    // An attention that one side writes out scales its scores and hides some of them on both.
    match (attention(a, in_a), attention(b, in_b)) {
        (Some(masked), None) => written_out(&mut only_a, &mut only_b, masked),
        (None, Some(masked)) => written_out(&mut only_b, &mut only_a, masked),
        _ => {}
    }
    // A norm that the other side folded into its weights is there on both.
    if folded(site, in_a, in_b) {
        let norm = |p: &Part| p.0 == "BatchNormalization";
        if only_a.iter().chain(&only_b).any(|p| !norm(p)) {
            only_a.retain(|p| !norm(p));
            only_b.retain(|p| !norm(p));
        }
    }
    if let ([x], [y]) = (&only_a[..], &only_b[..]) {
        let class = role::of_operator(&y.0, &x.0);
        if class != "operand_order" {
            return Some(class);
        }
    }
    if only_a.is_empty() && only_b.is_empty() {
        return settings(site, in_a, in_b);
    }
    if only_a.is_empty() && adds_to_softmax(b, &of_b, &only_b)
        || only_b.is_empty() && adds_to_softmax(a, &of_a, &only_a)
    {
        return Some("activation");
    }
    if let Some(class) = reduced(a, &only_a, b, &only_b) {
        return Some(class);
    }
    let roots = |side: &Side<'_>, parts: &[Part]| {
        let statistic = |n: NodeId| side.graph().node(n).writes().any(|v| role::is_statistic(side, v));
        parts.iter().any(|(_, _, n)| statistic(*n) && role::normalises(side, *n))
    };
    if roots(a, &only_a) || roots(b, &only_b) {
        return Some("normalisation");
    }
    let mut classes: Vec<&'static str> = only_a.iter().chain(&only_b).map(|p| p.1).collect();
    // A sum that only one side has is told before the grids that it was brought to.
    let fused = |parts: &[Part]| parts.iter().any(|p| p.0.starts_with("QLinear"));
    if classes.contains(&"residual") && !fused(&of_a) && !fused(&of_b) {
        classes.retain(|c| *c != "quantisation");
    }
    // A factor that one side has too much is the gain of the norm that has another there.
    classes.extend(set_otherwise(site, in_a, in_b).into_iter().filter(|c| *c == "normalisation"));
    role::most_telling(&classes)
}

/// Where B ends with a value that A goes on from: what A does behind it is missing, and nothing in B stands for it.
pub fn behind(site: &Site<'_, '_, '_>) -> Option<&'static str> {
    let a = site.judge.a;
    let class = |v: ValueId| site.judge.index.class(v);
    let own = class(site.partner(site.point)?);
    let last = a.producer(site.candidate)?;
    (own != class(site.candidate) && a.dynamic_inputs(last).into_iter().any(|v| class(v) == own))
        .then(|| role::of_presence(a, last))
        .filter(|class| *class != "unknown")
}

/// `reduction` where one region takes sums or means and the other maxima, minima or products, over an axis or of several
/// values; `axis` where a softmax on one side is written out over groups of elements on the other. What takes roots or
/// exponentials of what it reduces has another name.
fn reduced(a: &Side<'_>, only_a: &[Part], b: &Side<'_>, only_b: &[Part]) -> Option<&'static str> {
    let families = |side: &Side<'_>, parts: &[Part]| {
        let mut found: Vec<&str> = parts.iter().filter_map(|(op, _, n)| takes(side, op, *n)).collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let has = |parts: &[Part], ops: &[&str]| parts.iter().any(|p| ops.contains(&p.0.as_str()));
    let groups = ["ScatterElements", "ScatterND"];
    for (one, other) in [(only_a, only_b), (only_b, only_a)] {
        if has(one, &["Softmax"]) && has(other, &["Exp"]) && has(other, &groups) {
            return Some("axis");
        }
    }
    let curved = ["Exp", "Log", "Sqrt", "Pow", "Softmax"];
    let (x, y) = (families(a, only_a), families(b, only_b));
    let apart = !x.is_empty() && !y.is_empty() && x.iter().all(|f| !y.contains(f));
    (apart && !has(only_a, &curved) && !has(only_b, &curved)).then_some("reduction")
}

/// What an operator brings several elements or values down to one by, if it does.
fn takes(side: &Side<'_>, op: &str, n: NodeId) -> Option<&'static str> {
    let several = side.dynamic_inputs(n).len() > 1;
    match op {
        "ReduceSum" | "ReduceMean" | "AveragePool" | "GlobalAveragePool" => Some("sum"),
        "ReduceMax" | "MaxPool" | "GlobalMaxPool" => Some("maximum"),
        "ReduceMin" => Some("minimum"),
        "ReduceProd" => Some("product"),
        "Add" | "Sum" | "Mean" if several => Some("sum"),
        "Max" if several => Some("maximum"),
        "Min" if several => Some("minimum"),
        _ => None,
    }
}

/// Where both regions hold the same operators and numbers, and a number is added or multiplied at another point of the
/// way: what it is there for.
pub fn moved(site: &Site<'_, '_, '_>) -> Option<&'static str> {
    let (a, b) = (site.judge.a, site.judge.b);
    let (of_a, of_b) = (parts(a, &site.open_a), parts(b, &site.open_b));
    if !are_same(&of_a, &of_b) {
        return None;
    }
    let theirs = placed(a, &site.open_a, &of_a)?;
    let mut own = placed(b, &site.open_b, &of_b)?;
    let (mut still, mut rest) = (0, Vec::new());
    for x in &theirs {
        match own.iter().position(|y| y == x) {
            Some(at) => {
                own.swap_remove(at);
                still += 1;
            }
            None => rest.push(x),
        }
    }
    // The same numbers, elsewhere.
    let number = |p: &Placed| (p.op.clone(), p.number.clone());
    let mut left: Vec<_> = own.iter().map(number).collect();
    for x in rest.iter().map(|p| number(p)) {
        left.swap_remove(left.iter().position(|y| *y == x)?);
    }
    let classes: Vec<&'static str> = own.iter().map(|p| p.class).collect();
    (left.is_empty() && still < theirs.len()).then(|| role::most_telling(&classes)).flatten()
}

/// A node that adds a number or multiplies by it, and where on the way it does.
struct Placed {
    op: String,
    number: Vec<u64>,
    class: &'static str,
    /// What works on its result, in alphabetical order.
    behind: Vec<String>,
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.number == other.number && self.behind == other.behind
    }
}

fn placed(side: &Side<'_>, region: &Region, parts: &[Part]) -> Option<Vec<Placed>> {
    let mut out = Vec::new();
    for (op, class, n) in parts {
        let node = side.graph().node(*n);
        let constant = node.inputs.iter().flatten().copied().find(|&v| side.is_constant(v));
        let number = match (node.op.as_str(), node.attributes.get("alpha"), constant) {
            // A product that its factor was fused into.
            ("FusedMatMul", Some(Attribute::Float(alpha)), _) if op == "Mul" => {
                vec![f64::from(*alpha).to_bits()]
            }
            ("Add" | "Sub" | "Mul" | "Div", _, Some(v)) => {
                side.shadow.get(v)?.to_f64().ok()?.iter().map(|x| x.to_bits()).collect()
            }
            _ => continue,
        };
        let mut reached = vec![*n];
        for &m in region.nodes.iter().filter(|m| *m > n) {
            let reads = |v: ValueId| side.producer(v).is_some_and(|p| reached.contains(&p));
            if side.graph().node(m).reads().any(reads) {
                reached.push(m);
            }
        }
        let on = |p: &&Part| p.2 != *n && reached.contains(&p.2);
        let mut behind: Vec<String> = parts.iter().filter(on).map(|p| p.0.clone()).collect();
        behind.sort_unstable();
        out.push(Placed { op: op.clone(), number, class, behind });
    }
    Some(out)
}

/// Whether two regions consist of the same operators, more than one each: nothing is missing in either.
pub fn same_parts(site: &Site<'_, '_, '_>) -> bool {
    are_same(&parts(site.judge.a, &site.open_a), &parts(site.judge.b, &site.open_b))
}

fn are_same(of_a: &[Part], of_b: &[Part]) -> bool {
    of_b.len() > 1 && without(of_a, of_b).is_empty() && without(of_b, of_a).is_empty()
}

/// Where both regions work on a statistic, element by element: the small number that is added, or the formula.
pub fn of_statistics(site: &Site<'_, '_, '_>) -> Option<&'static str> {
    let (a, b) = (site.judge.a, site.judge.b);
    if !role::is_statistic(b, site.point) || !role::is_statistic(a, site.candidate) {
        return None;
    }
    let small = |side: &Side<'_>, region: &Region| parts(side, region).iter().any(|p| p.1 == "epsilon");
    Some(if small(a, &site.open_a) || small(b, &site.open_b) { "epsilon" } else { "normalisation" })
}

/// Whether two regions move elements in the same ways, regrouping aside.
fn laid_out_alike(a: (&Side<'_>, &Region), b: (&Side<'_>, &Region)) -> bool {
    fn moves<'s>((side, region): (&'s Side<'_>, &Region)) -> Vec<&'s Node> {
        let nodes = region.dynamic_nodes(side).map(|n| side.graph().node(n));
        nodes.filter(|node| MOVES.contains(&node.op.as_str())).collect()
    }
    let (of_a, mut of_b) = (moves(a), moves(b));
    let mut taken = |x: &Node| {
        let same = |y: &&Node| x.op == y.op && settings_apart(x, y).is_empty();
        of_b.iter().position(same).map(|i| of_b.swap_remove(i)).is_some()
    };
    of_a.into_iter().all(&mut taken) && of_b.is_empty()
}

/// Operators that move elements and do not only regroup them.
const MOVES: &[&str] = &["Transpose", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"];

/// Where both regions hold the same operators, settings and numbers: elements are laid out otherwise on the way, what goes
/// along an axis goes along another of the same elements, or values go to one another's places. Sigmoids and tangents of several values are the gates of a cell.
pub fn wired(site: &Site<'_, '_, '_>) -> Option<&'static str> {
    let (a, b) = (site.judge.a, site.judge.b);
    let (of_a, of_b) = (parts(a, &site.open_a), parts(b, &site.open_b));
    let entering =
        |side: &Side<'_>, region: &Region| region.boundary.iter().filter(|&&v| !side.is_constant(v)).count();
    let fused = attention(a, &site.open_a).is_some() != attention(b, &site.open_b).is_some();
    let same = without(&of_a, &of_b).is_empty() && without(&of_b, &of_a).is_empty();
    if !same && !fused {
        return None;
    }
    if !laid_out_alike((a, &site.wide_a), (b, &site.wide_b)) {
        // What hides keys the one way hides queries the other.
        let hides = lays_out_a_mask(a, &site.wide_a) || lays_out_a_mask(b, &site.wide_b);
        // Statistics that are repeated otherwise are about other elements.
        let shares = lays_out_statistics(a, &site.wide_a) || lays_out_statistics(b, &site.wide_b);
        return Some(if hides {
            "mask"
        } else if shares {
            "normalisation"
        } else {
            "layout"
        });
    }
    let along = |p: &Part| role::is_reduction(&p.0) || p.0.ends_with("Softmax");
    if same
        && entering(b, &site.open_b) == 1
        && of_b.iter().any(along)
        && of_b.iter().all(|p| !role::is_product(&p.0))
    {
        return Some("axis");
    }
    if !same || entering(b, &site.open_b) < 2 || of_b.iter().any(|p| role::is_product(&p.0)) {
        return None;
    }
    let gates = of_b.iter().filter(|p| matches!(p.0.as_str(), "Sigmoid" | "Tanh" | "HardSigmoid")).count();
    let gated = gates >= 2 || complements(site) || halves(site);
    Some(if gated {
        "gate_order"
    } else if multiples(site) {
        "scale"
    } else {
        "operand_order"
    })
}

/// Whether two of the values that enter B's region are one and the same, by two numbers: these changed places.
fn multiples(site: &Site<'_, '_, '_>) -> bool {
    let b = site.judge.b;
    let of = |&v: &ValueId| {
        let n = b.producer(v)?;
        let node = site.node_b(n);
        let number = |v: ValueId| b.is_constant(v) && b.declared.count(v) == Some(1);
        let [read] = b.dynamic_inputs(n)[..] else { return None };
        (matches!(node.op.as_str(), "Mul" | "Div") && node.reads().any(number)).then_some(read)
    };
    let read: Vec<ValueId> = site.open_b.boundary.iter().filter_map(of).collect();
    read.iter().enumerate().any(|(i, v)| read[i + 1..].contains(v))
}

/// Whether among the values that enter B's region two are a share and what is left of it, as a gate lets one thing
/// through and keeps another.
fn complements(site: &Site<'_, '_, '_>) -> bool {
    let enters = site.open_b.boundary.iter().filter(|&&v| !site.judge.b.is_constant(v));
    let values: Vec<_> = enters.filter_map(|v| site.state.shadow[v.index()].as_ref()).collect();
    let sum_to_one = |x: &Tensor, y: &Tensor| {
        let (Ok(x), Ok(y)) = (x.to_f64(), y.to_f64()) else { return false };
        x.len() == y.len()
            && !x.is_empty()
            && x.iter().zip(y.iter()).all(|(x, y)| (x + y - 1.0).abs() < 1e-12)
    };
    values.iter().enumerate().any(|(i, x)| values[i + 1..].iter().any(|y| sum_to_one(x, y)))
}

/// Whether a gated unit takes the two halves of one value: one is bent, and multiplies the other.
fn halves(site: &Site<'_, '_, '_>) -> bool {
    let b = site.judge.b;
    let op = |f: &dyn Fn(&str) -> bool| site.open_b.nodes.iter().any(|&n| f(&site.node_b(n).op));
    let whole = |v: ValueId| {
        let node = b.graph().node(b.producer(v)?);
        matches!(node.op.as_str(), "Split" | "Slice").then(|| node.inputs.first().copied().flatten())?
    };
    let cut: Vec<ValueId> = site.open_b.boundary.iter().filter_map(|&v| whole(v)).collect();
    op(&role::is_activation) && op(&|op| op == "Mul") && cut.len() == 2 && cut[0] == cut[1]
}

/// Whether a region holds an attention as one operator, and whether that hides anything.
fn attention(side: &Side<'_>, region: &Region) -> Option<bool> {
    let mut nodes = region.dynamic_nodes(side).map(|n| side.graph().node(n));
    nodes.find(|node| role::is_attention(&node.op)).map(|node| {
        let causal = matches!(node.attributes.get("is_causal"), Some(Attribute::Int(1)));
        causal || node.inputs.iter().skip(3).any(Option::is_some)
    })
}

/// Takes out of two lists of parts what the operator in the one and the nodes in the other both do.
fn written_out(fused: &mut Vec<Part>, apart: &mut Vec<Part>, masked: bool) {
    fused.retain(|p| !role::is_attention(&p.0));
    let does =
        |p: &Part| matches!(p.0.as_str(), "MatMul" | "Softmax") || p.1 == "scale" || masked && p.1 == "mask";
    apart.retain(|p| !does(p));
}

/// Whether the products of two regions have weights that a norm tells apart, and nothing else.
fn folded(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region) -> bool {
    let (a, b) = (site.judge.a, site.judge.b);
    let weight = |side: &Side<'_>, n: NodeId| {
        let node = side.graph().node(n);
        let v = node.inputs.get(1).copied().flatten()?;
        (role::is_product(&node.op) && side.is_constant(v)).then(|| side.shadow.get(v).cloned()).flatten()
    };
    let theirs: Vec<_> = in_a.dynamic_nodes(a).filter_map(|n| weight(a, n)).collect();
    in_b.dynamic_nodes(b).filter_map(|n| weight(b, n)).any(|w| theirs.iter().any(|t| by_channel(&w, t)))
}

/// An operator, what its absence is called, and the node it is part of.
type Part = (String, &'static str, NodeId);

/// What a region computes, fused operators taken apart, layout aside.
fn parts(side: &Side<'_>, region: &Region) -> Vec<Part> {
    let mut out = Vec::new();
    for n in region.dynamic_nodes(side) {
        let node = side.graph().node(n);
        let op = node.op.as_str();
        if role::is_layout(op) || op == "Identity" || casts_nothing(side, n) || adds_nothing(side, n) {
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
            "FusedMatMul" => {
                push("MatMul", "weight_value");
                if matches!(node.attributes.get("alpha"), Some(Attribute::Float(alpha)) if *alpha != 1.0) {
                    push("Mul", "scale");
                }
            }
            // A quotient by a number is a product.
            "Div"
                if side.dynamic_inputs(n).len() == 1
                    && node.reads().last().is_some_and(|v| side.is_constant(v)) =>
            {
                push("Mul", role::of_presence(side, n));
            }
            op if role::is_attention(op) => {
                push(op, "unknown");
                if node.inputs.iter().skip(3).any(Option::is_some) {
                    push("mask of an attention", "mask");
                }
            }
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
            "QuickGelu" => {
                push("Sigmoid", "activation");
                push("Mul", "activation");
                let plain = matches!(node.attributes.get("alpha"), Some(Attribute::Float(a)) if *a == 1.0);
                if !plain {
                    push("Mul", "activation");
                }
            }
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

/// Whether a node casts to the type that is there already.
fn casts_nothing(side: &Side<'_>, n: NodeId) -> bool {
    let node = side.graph().node(n);
    let dtype = |v: ValueId| side.declared.dtype(v);
    let read = node.inputs.first().copied().flatten().and_then(dtype);
    matches!(node.op.as_str(), "Cast" | "CastLike")
        && read.is_some()
        && node.writes().all(|v| dtype(v) == read)
}

/// Whether a node adds a constant that is 0 everywhere, as a mask that hides nothing.
fn adds_nothing(side: &Side<'_>, n: NodeId) -> bool {
    let node = side.graph().node(n);
    let nought = |v: ValueId| side.is_constant(v) && side.shadow.get(v).is_some_and(|t| is_nought(t));
    node.op == "Add" && node.inputs.iter().flatten().any(|&v| nought(v))
}

fn is_nought(t: &Tensor) -> bool {
    t.dtype().is_float() && t.to_f64().is_ok_and(|x| x.iter().all(|x| *x == 0.0))
}

/// Whether all that one region has beside the other's softmax is a constant joined to the scores, and cut off the
/// result: a term more in the denominator.
fn adds_to_softmax(side: &Side<'_>, all: &[Part], only: &[Part]) -> bool {
    let softmax = |n: NodeId| side.graph().node(n).op == "Softmax";
    let read_by = |n: NodeId| {
        let mut readers =
            side.graph().node(n).writes().flat_map(|v| side.consumers[v.index()].iter().copied());
        readers.any(softmax)
    };
    let reads =
        |n: NodeId| side.dynamic_inputs(n).first().and_then(|&v| side.producer(v)).is_some_and(softmax);
    let one_more = |n: NodeId| side.graph().node(n).inputs.iter().flatten().any(|&v| side.is_constant(v));
    let joins = |p: &Part| p.0 == "Concat" && read_by(p.2) && one_more(p.2);
    let cuts = |p: &Part| matches!(p.0.as_str(), "Slice" | "Split" | "Gather") && reads(p.2);
    all.iter().any(|p| p.0 == "Softmax")
        && only.iter().any(joins)
        && only.iter().any(cuts)
        && only.iter().all(|p| joins(p) || cuts(p))
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

/// Where both regions consist of the same operators: the most telling setting or constant in which two differ.
fn settings(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region) -> Option<&'static str> {
    let b = site.judge.b;
    let normalises = in_b.dynamic_nodes(b).any(|n| role::is_normalisation(&b.graph().node(n).op));
    // What a norm that both have reads may come by other ways.
    let gates = || wired(site).filter(|class| *class == "gate_order");
    set_otherwise(site, in_a, in_b).or_else(|| normalises.then(|| gates().unwrap_or("normalisation")))
}

/// Whether two constants are the same numbers, as far as one that an exporter or optimiser computed ahead can be.
fn alike(x: &Tensor, y: &Tensor) -> bool {
    let (Ok(p), Ok(q)) = (x.to_f64(), y.to_f64()) else { return crate::pool::same_numbers(x, y) };
    let near = |(p, q): (&f64, &f64)| p == q || (p - q).abs() <= 1e-6 * q.abs();
    p.len() == q.len() && p.iter().zip(q.iter()).all(near)
}

/// The most telling setting or constant in which two nodes of one operator differ.
fn set_otherwise(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region) -> Option<&'static str> {
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
            // What is filled up to whole blocks is told apart by what it holds.
            if b.is_constant(own)
                && a.is_constant(theirs)
                && !role::is_layout(&node.op)
                && let (Some(x), Some(y)) = (b.shadow.get(own), a.shadow.get(theirs))
                && (x.len() == y.len() || !role::is_product(&node.op) && node.op != "Add")
                && !alike(x, y)
            {
                if x.to_f64().ok().zip(y.to_f64().ok()).is_some_and(|(x, y)| is_rest(&x, &y)) {
                    return Some("gate_order");
                }
                let class = role::of_constant(b, n, slot, y);
                // How weights differ is told apart by what they hold.
                if class != "weight_value" {
                    found.push(class);
                }
            }
        }
    }
    role::most_telling(&found)
}

/// Whether all that B's region keeps in constants is what A's keeps there, some of it rounded to a narrower type: a block
/// of a network that was converted to half precision, weights and biases together.
pub fn stored_narrowly(site: &Site<'_, '_, '_>) -> bool {
    let numbers = |side: &Side<'_>, region: &Region| -> Vec<Vec<f64>> {
        let read = region.dynamic_nodes(side).flat_map(|n| side.graph().node(n).reads());
        let constants = read.filter(|&v| {
            side.is_constant(v) && side.declared.get(v).is_some_and(|t| t.dtype().is_float() && t.len() > 1)
        });
        let sorted = |v: ValueId| {
            let mut x = side.shadow.get(v)?.to_f64().ok()?.into_owned();
            x.sort_unstable_by(f64::total_cmp);
            Some(x)
        };
        constants.filter_map(sorted).collect()
    };
    let theirs = numbers(site.judge.a, &site.open_a);
    let own = numbers(site.judge.b, &site.open_b);
    let near = |x: &[f64], y: &[f64]| x.iter().zip(y).all(|(x, y)| (x - y).abs() <= 1e-7 * y.abs());
    // Rounding keeps numbers in order.
    let rounded = |x: &[f64], y: &[f64], dtype: DType| {
        let tensor = Tensor::vector(y.to_vec()).cast(dtype).and_then(|t| t.cast(DType::F64));
        tensor.is_ok_and(|t| t.to_f64().is_ok_and(|y| *x == *y))
    };
    let same = |x: &&Vec<f64>| theirs.iter().any(|y| x.len() == y.len() && near(x, y));
    let (kept, narrow): (Vec<_>, Vec<_>) = own.iter().partition(same);
    let of_type = |dtype: DType| {
        narrow.iter().all(|x| theirs.iter().any(|y| x.len() == y.len() && rounded(x, y, dtype)))
    };
    kept.len() + narrow.len() == theirs.len()
        && !narrow.is_empty()
        && [DType::F16, DType::BF16].into_iter().any(of_type)
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
    let channels = |side: &Side<'_>, v: ValueId| side.declared.shape(v).and_then(|s| s.get(1).copied());
    let over_batch = |side: &Side<'_>, region: &Region, end: ValueId| {
        let Some(channels) = channels(side, end) else { return false };
        region.dynamic_nodes(side).any(|n| {
            let node = side.graph().node(n);
            node.op.starts_with("Reduce") && node.writes().any(|w| side.declared.count(w) == Some(channels))
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
