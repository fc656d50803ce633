//! The operator differs: `activation`, `reduction`, `normalisation`, `layout`.
//!
//! **What it finds.** ReLU where A has GELU, a maximum where A takes the mean, tanh where A has erf, a reshape where A
//! transposes.
//! **Proof.** The node is called with the other operator on the same inputs. The operators of A's region are tried
//! first, then the rest of the family, because A may hold the function inside a fused operator.

use isotrace_align::patch::{Patch, Source};
use isotrace_graph::{Attribute, Attributes, Node, NodeId, ValueId};

use super::{Cause, Proposal, label};
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Operator;

const ACTIVATIONS: &[&str] = &[
    "Relu",
    "Sigmoid",
    "Tanh",
    "Erf",
    "Softplus",
    "Softsign",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Celu",
    "Mish",
    "Exp",
    "Abs",
    "Identity",
];
const REDUCTIONS: &[&str] = &[
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSumExp",
];
const POOLS: &[&str] = &["MaxPool", "AveragePool"];
const GLOBAL_POOLS: &[&str] = &["GlobalAveragePool", "GlobalMaxPool"];
const ARITHMETIC: &[&str] = &["Add", "Sub", "Mul", "Div", "Max", "Min"];
const COMPARISONS: &[&str] = &["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"];

impl Cause for Operator {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        for &n in site.nodes_b() {
            let node = site.node_b(n);
            let mut tried: Vec<&str> = Vec::new();
            for &m in site.nodes_a() {
                let other = site.node_a(m);
                // What moves elements stands for nothing that computes.
                if role::is_layout(&other.op) != role::is_layout(&node.op) {
                    continue;
                }
                if role::is_layout(&node.op) && other.op != node.op && arity(other) != arity(node) {
                    laid_out(site, n, m, out);
                }
                // Nor does what runs a body.
                if node.bodies().chain(other.bodies()).next().is_some() {
                    continue;
                }
                if other.op != node.op && arity(other) == arity(node) && !tried.contains(&other.op.as_str()) {
                    tried.push(&other.op);
                    let kin = role::of_operator(&node.op, &other.op) != "operand_order"
                        || family(&node.op).is_some_and(|f| f.contains(&other.op.as_str()));
                    push(
                        site,
                        n,
                        &other.op,
                        &other.domain,
                        other.attributes.clone(),
                        Some(m),
                        if kin { 12 } else { 22 },
                        out,
                    );
                }
            }
            // Where A computes nothing, sums and products that come to what it reads are accidents.
            let others = family(&node.op).filter(|f| *f != ARITHMETIC || computes(site));
            for op in others.unwrap_or(&[]).iter().filter(|o| **o != node.op && !tried.contains(*o)) {
                push(site, n, op, "", kept(node, op), None, 24, out);
            }
            if is_unary_activation(node) {
                for approximate in ["none", "tanh"] {
                    let mut gelu = Attributes::new();
                    gelu.insert("approximate".into(), Attribute::Bytes(approximate.into()));
                    push(site, n, "Gelu", "", gelu, None, 25, out);
                }
            }
        }
    }
}

/// What a node of B lays out as A's node, with what that reads beside the data, lays it out.
fn laid_out(site: &Site<'_, '_, '_>, n: NodeId, m: NodeId, out: &mut Vec<Proposal>) {
    let (a, b) = (site.judge.a, site.judge.b);
    let ([own], [theirs]) = (&b.dynamic_inputs(n)[..], &a.dynamic_inputs(m)[..]) else { return };
    let other = site.node_a(m);
    let source = |v: &Option<ValueId>| match *v {
        None => Some(Source::Absent),
        Some(v) if v == *theirs => Some(Source::Value(*own)),
        Some(v) => {
            let (declared, shadow) = (a.declared.get(v)?.clone(), a.shadow.get(v)?.clone());
            Some(Source::Tensor { declared, shadow })
        }
    };
    let Some(sources) = other.inputs.iter().map(source).collect() else { return };
    out.extend(Patch::new(other, sources).map(|patch| Proposal {
        patches: vec![(n, patch)],
        nodes_b: vec![n],
        nodes_a: vec![m],
        edge: None,
        class: role::of_operator(&site.node_b(n).op, &other.op),
        summary: format!("{} stands where A has {}", label(b, n), label(a, m)),
        change: format!("{} in place of {}", other.op, label(b, n)),
        cost: 22,
    }));
}

fn is_unary_activation(node: &Node) -> bool {
    role::is_activation(&node.op) && arity(node) == 1
}

/// Whether one operator takes back what the other does.
fn undoes(x: &str, y: &str) -> bool {
    matches!((x, y), ("Add", "Sub") | ("Sub", "Add") | ("Mul", "Div") | ("Div", "Mul"))
}

/// Whether anything in A's region makes other numbers of what it reads.
fn computes(site: &Site<'_, '_, '_>) -> bool {
    let moves = |op: &str| role::is_layout(op) || matches!(op, "Cast" | "Identity");
    site.nodes_a().iter().any(|&n| !moves(&site.node_a(n).op))
}

fn arity(node: &Node) -> usize {
    node.inputs.iter().flatten().count()
}

fn family(op: &str) -> Option<&'static [&'static str]> {
    if role::is_activation(op) {
        return Some(ACTIVATIONS);
    }
    [REDUCTIONS, POOLS, GLOBAL_POOLS, ARITHMETIC, COMPARISONS].into_iter().find(|f| f.contains(&op))
}

/// Settings that mean the same to the other operator.
fn kept(node: &Node, op: &str) -> Attributes {
    let mut attributes = Attributes::new();
    if REDUCTIONS.contains(&op) || POOLS.contains(&op) {
        attributes = node.attributes.clone();
        if op == "MaxPool" {
            attributes.remove("count_include_pad");
        }
        if op == "AveragePool" {
            attributes.remove("storage_order");
        }
    }
    attributes
}

#[expect(clippy::too_many_arguments, reason = "a call with where it comes from")]
fn push(
    site: &Site<'_, '_, '_>,
    n: NodeId,
    op: &str,
    domain: &str,
    attributes: Attributes,
    from: Option<NodeId>,
    cost: u32,
    out: &mut Vec<Proposal>,
) {
    let node = site.node_b(n);
    let mut changed = node.clone();
    op.clone_into(&mut changed.op);
    domain.clone_into(&mut changed.domain);
    changed.attributes = attributes;
    // Gelu came with version 20; the call is ours, so the newest meaning may be asked for.
    changed.version = from.map_or(node.version.max(20), |m| site.node_a(m).version);
    if from.is_none() && REDUCTIONS.contains(&op) {
        changed.version = node.version.max(18);
    }
    let Some(patch) = Patch::new(&changed, Patch::sources_of(node)) else { return };
    // Where it writes several values, a call that writes one belongs in place of one of them.
    let one = |node: &Node| node.writes().count() == 1;
    let patch =
        if from.is_none_or(|m| one(site.node_a(m))) { super::in_place_of(site, n, patch) } else { patch };
    out.push(Proposal {
        patches: vec![(n, patch)],
        nodes_b: vec![n],
        nodes_a: from.into_iter().collect(),
        edge: None,
        class: match role::of_operator(&node.op, op) {
            // Two products on the same inputs: one has a factor, or turns what it reads.
            "operand_order" if role::is_product(&node.op) && role::is_product(op) => {
                let scaled = [&node.attributes, &changed.attributes]
                    .into_iter()
                    .any(|a| matches!(a.get("alpha"), Some(Attribute::Float(alpha)) if *alpha != 1.0));
                let curved = |node: &Node| node.attributes.contains_key("activation");
                if curved(node) != curved(&changed) {
                    "activation"
                } else if scaled {
                    "scale"
                } else {
                    "weight_layout"
                }
            }
            // A sum for a difference, a product for a quotient: what the node is there for goes wrong.
            "operand_order" if undoes(&node.op, op) => from
                .map_or_else(|| role::of_presence(site.judge.b, n), |m| role::of_presence(site.judge.a, m)),
            // Whole numbers choose elements.
            "operand_order"
                if site.state.shadow[site.point.index()].as_ref().is_some_and(|t| t.dtype().is_int()) =>
            {
                "index"
            }
            // What chooses a branch or ends a loop hides nothing.
            "mask" if role::steers(site.judge.b, n) => "operand_order",
            // What decides which piece of a function holds hides nothing either.
            "mask" if role::chooses_piece(site.judge.b, n) => "activation",
            class => class,
        },
        summary: format!("{} is {} where A computes {op}", site.judge.b.graph().label(n), node.op),
        change: format!("{op} in place of {}", label(site.judge.b, n)),
        cost,
    });
}
