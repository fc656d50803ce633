//! Differences between two graphs that these inputs do not show: warnings of the class `latent`.
//!
//! A node of B that reads what a node of A reads, with another number as setting or constant, is suspicious even where
//! nothing comes of it: a bound that no element reaches, an epsilon beside a large variance, rows of a table that no
//! index asks for, a bias on keys, which a softmax takes out again. Where the node's own output differs and what
//! follows agrees all the same, the difference may belong to a rewrite (a factor moved from one product to the next);
//! it is told only if B with A's number in place agrees as well.

use isotrace_align::judge::moderate_rms;
use isotrace_align::patch::{Patch, Source};
use isotrace_align::search::failing;
use isotrace_align::{Changes, Evidence, Judge, Relation, Side, State};
use isotrace_graph::{Attribute, NodeId, ValueId};
use isotrace_report::Warning;
use isotrace_tensor::Tensor;
use rustc_hash::FxHashMap;

use crate::causes::{self, label};
use crate::role;
use crate::site::Site;

/// Suspicious nodes that are looked into; two models that differ everywhere are no question of latent faults.
const MOST: usize = 8;
/// Numbers nearer than this share of their size were computed and rounded in two ways.
const ROUNDED: f64 = 1e-5;
/// Numbers beyond hide an entry of a score, whichever they are.
const HIDES: f64 = -1e4;

/// A node of B beside the node of A that reads the same.
struct Suspect {
    b: NodeId,
    a: NodeId,
    /// B's node with A's numbers.
    mended: Patch,
    /// What of it is another number.
    differs: Differing,
}

enum Differing {
    Setting(String),
    Constant(ValueId),
}

/// A warning for every difference that changes no final output here. `inputs` and `outputs` pair values of B with
/// values of A, all outputs agree in `state`.
pub fn differences<'s, 'g>(
    judge: &Judge<'s, 'g>,
    state: &State<'s, 'g>,
    inputs: &[(ValueId, ValueId)],
    outputs: &[(ValueId, ValueId)],
) -> Vec<Warning> {
    let mut suspects = suspects(judge, state);
    suspects.truncate(MOST);
    // One at a time: with both places of a moved factor as in A, B is A.
    let agrees = |s: &&Suspect| {
        let mut changes = Changes::default();
        changes.patch(s.b, s.mended.clone());
        failing(judge, &State::execute(judge, inputs, &changes), outputs).is_empty()
    };
    let class = |v: ValueId| judge.index.class(v);
    let shows = |s: &&Suspect| {
        let (own, theirs) = (judge.b.graph().node(s.b).writes(), judge.a.graph().node(s.a).writes());
        own.zip(theirs).any(|(v, w)| state.matched[v.index()].as_ref().is_none_or(|m| class(m.a) != class(w)))
    };
    let (open, hidden): (Vec<&Suspect>, Vec<&Suspect>) = suspects.iter().partition(shows);
    let cancelled = open.into_iter().filter(agrees);
    let mut found: Vec<(&Suspect, bool)> =
        hidden.into_iter().map(|s| (s, false)).chain(cancelled.map(|s| (s, true))).collect();
    found.sort_by_key(|(s, _)| s.b);
    let mut told: Vec<Warning> =
        found.into_iter().filter_map(|(s, cancels)| warning(judge, state, s, cancels)).collect();
    if told.is_empty() {
        told.extend(unseen(judge, state));
    }
    told
}

/// What float64 tells apart and the type that both sides declare does not: an epsilon that is there on one side only.
/// Only the first such place, from which the others follow.
fn unseen(judge: &Judge<'_, '_>, state: &State<'_, '_>) -> Option<Warning> {
    let unseen = |v: &ValueId| {
        let matched = state.matched[v.index()].as_ref();
        matched.is_some_and(|m| m.evidence == Evidence::Declared) && !judge.b.is_constant(*v)
    };
    let (n, v) =
        judge.b.graph().node_ids().find_map(|n| Some((n, judge.b.graph().node(n).writes().find(unseen)?)))?;
    let m = state.matched[v.index()].as_ref()?;
    let own = state.own_shadow[v.index()].as_ref()?;
    let theirs = m.relation.carry(judge.a.shadow.get(m.a)?, own.shape())?;
    let (x, y) = (theirs.to_f64().ok()?, own.to_f64().ok()?);
    // By how much a hidden entry is hidden is of no interest.
    let shown = x.iter().zip(y.iter()).filter(|(x, y)| **x > HIDES || **y > HIDES);
    let difference = shown.map(|(x, y)| (x - y).abs()).fold(0f64, f64::max);
    if difference == 0.0 {
        return None;
    }
    let label_a = judge.a.producer(m.a).map(|m| label(judge.a, m));
    Some(Warning {
        class: "latent".to_owned(),
        summary: format!(
            "{} in B and {} in A differ by {difference:.3e} in float64, which changes no bit of {} here; other inputs may \
             show it",
            label(judge.b, n),
            label_a.unwrap_or_default(),
            judge.b.declared.dtype(v)?,
        ),
        place: vec![judge.b.graph().label(n).to_owned()],
    })
}

fn suspects(judge: &Judge<'_, '_>, state: &State<'_, '_>) -> Vec<Suspect> {
    let (a, b) = (judge.a, judge.b);
    let class_a = |v: ValueId| judge.index.class(v);
    let class_b = |v: ValueId| Some(class_a(state.matched[v.index()].as_ref()?.a));
    let mut mates: FxHashMap<(&str, ValueId), Vec<NodeId>> = FxHashMap::default();
    for n in a.graph().node_ids() {
        if let Some(&first) = a.dynamic_inputs(n).first() {
            mates.entry((&a.graph().node(n).op, class_a(first))).or_default().push(n);
        }
    }
    let mut found = Vec::new();
    for n in b.graph().node_ids() {
        let node = b.graph().node(n);
        let first = b.dynamic_inputs(n).first().and_then(|&v| class_b(v));
        let Some(mates) = first.and_then(|class| mates.get(&(node.op.as_str(), class))) else { continue };
        // Where one of several does the same, nothing is suspicious.
        let suspicious: Option<Vec<Suspect>> = mates
            .iter()
            .filter(|&&m| reads_the_same(judge, n, m, &class_b))
            .map(|&m| {
                mended(judge, state, n, m).map(|(mended, differs)| Suspect { b: n, a: m, mended, differs })
            })
            .collect();
        found.extend(suspicious.unwrap_or_default().into_iter().next());
    }
    found
}

/// Whether two nodes read the same values at the same places, constants aside.
fn reads_the_same(
    judge: &Judge<'_, '_>,
    n: NodeId,
    m: NodeId,
    class_b: &dyn Fn(ValueId) -> Option<ValueId>,
) -> bool {
    let (node, other) = (judge.b.graph().node(n), judge.a.graph().node(m));
    node.domain == other.domain
        && node.inputs.len() == other.inputs.len()
        && node.inputs.iter().zip(&other.inputs).all(|(b, a)| match (b, a) {
            (None, None) => true,
            (Some(b), Some(a)) => match (judge.b.is_constant(*b), judge.a.is_constant(*a)) {
                (true, true) => true,
                (false, false) => class_b(*b) == Some(judge.index.class(*a)),
                _ => false,
            },
            _ => false,
        })
}

/// B's node with the numbers of A's, where one of them is another number, and the first that is.
fn mended(judge: &Judge<'_, '_>, state: &State<'_, '_>, n: NodeId, m: NodeId) -> Option<(Patch, Differing)> {
    let (node, other) = (judge.b.graph().node(n), judge.a.graph().node(m));
    let mut changed = node.clone();
    let mut sources = Patch::sources_of(node);
    let mut first = None;
    for name in node.attributes.keys().chain(other.attributes.keys()) {
        let (own, theirs) = (node.attributes.get(name), other.attributes.get(name));
        if own.zip(theirs).is_some_and(|(x, y)| x.same(y)) {
            continue;
        }
        if !is_number(&node.op, name) {
            // Written in another way: what the numbers mean differs as well.
            return None;
        }
        if let (Some(_), Some(theirs)) = (own, theirs) {
            changed.attributes.insert(name.clone(), theirs.clone());
            first.get_or_insert(Differing::Setting(name.clone()));
        }
    }
    if role::is_normalisation(&node.op) {
        let given = |attributes: &isotrace_graph::Attributes| match attributes.get("epsilon") {
            Some(Attribute::Float(f)) => *f,
            _ => 1e-5,
        };
        let theirs = given(&other.attributes);
        if given(&node.attributes) != theirs {
            changed.attributes.insert("epsilon".to_owned(), Attribute::Float(theirs));
            first.get_or_insert(Differing::Setting("epsilon".to_owned()));
        }
    }
    for (slot, (b, a)) in node.inputs.iter().zip(&other.inputs).enumerate() {
        let (Some(b), Some(a)) = (*b, *a) else { continue };
        if !judge.b.is_constant(b) {
            continue;
        }
        // The same bits need no copies in f64, which weigh twice what the weights do.
        let stored = judge.b.declared.get(b).zip(judge.a.declared.get(a));
        if stored.is_some_and(|(own, theirs)| own.bit_eq(theirs)) || judge.rounded_alike(b, a) {
            continue;
        }
        // With A's constants in the place of those that are theirs, converted: what a half network computed from them
        // alone is no other number.
        let (own, theirs) = (state.shadow[b.index()].as_ref()?, judge.a.shadow.get(a)?);
        if own.dtype().is_float() && theirs.dtype().is_float() && !nearly(own, theirs) {
            // Another layout or shape is a rewrite's affair.
            if own.shape() != theirs.shape() {
                return None;
            }
            let declared = judge.a.declared.get(a)?.clone();
            sources[slot] = Source::Tensor { declared, shadow: theirs.clone() };
            first.get_or_insert(Differing::Constant(b));
        }
    }
    first.and_then(|first| Some((Patch::new(&changed, sources)?, first)))
}

/// Whether a setting is a number that the operator computes with, and not about places and shapes.
fn is_number(op: &str, name: &str) -> bool {
    matches!(
        role::of_attribute(op, name),
        "epsilon" | "scale" | "activation" | "mask" | "rope" | "weight_value" | "bias"
    )
}

/// Whether two constants differ by no more than how they were rounded or by how they say "hidden".
fn nearly(x: &Tensor, y: &Tensor) -> bool {
    let (Ok(x), Ok(y)) = (x.to_f64(), y.to_f64()) else { return true };
    let scale = if x.len() > 1 { moderate_rms(&y) } else { 0.0 };
    let near = |(x, y): (&f64, &f64)| {
        x == y || (x - y).abs() <= ROUNDED * (scale + x.abs().max(y.abs())) || *x <= HIDES && *y <= HIDES
    };
    x.len() == y.len() && x.iter().zip(y.iter()).all(near)
}

fn warning(
    judge: &Judge<'_, '_>,
    state: &State<'_, '_>,
    suspect: &Suspect,
    cancels: bool,
) -> Option<Warning> {
    let end = |side: &Side<'_>, n: NodeId| side.graph().node(n).writes().next();
    let site = Site::new(judge, state, end(judge.b, suspect.b)?, end(judge.a, suspect.a)?, Relation::Same);
    let about = match &suspect.differs {
        Differing::Setting(name) => format!("{name} of "),
        Differing::Constant(v) => format!("reads {:?}", judge.b.graph().value(*v).name),
    };
    let told = causes::of_numbers(&site)
        .into_iter()
        .find(|p| p.nodes_b == [suspect.b] && p.nodes_a == [suspect.a] && p.summary.contains(&about))
        .map_or_else(
            || format!("{} computes with other numbers than A's", label(judge.b, suspect.b)),
            |p| p.summary,
        );
    let why = if cancels {
        "what it changes cancels before the final outputs, on these inputs at least"
    } else {
        "these inputs do not show it, others may"
    };
    Some(Warning {
        class: "latent".to_owned(),
        summary: format!("{told}; {why}"),
        place: vec![judge.b.graph().label(suspect.b).to_owned()],
    })
}
