//! An attribute differs: `axis`, `epsilon`, `layout` (perm), `padding`, `scale` (alpha), `activation`, `reduction`.
//!
//! **What it finds.** A node whose setting differs from that of a node of A beside it: an epsilon of 1e-6 where A has
//! 1e-5, a softmax over the wrong axis, pads at the wrong end, a GELU by tanh where A's is exact.
//! **Proof.** The node is called with A's setting; the region then computes what A's computes.
//! Numbers are also taken from A's constants, because one exporter writes as an attribute what another writes as a
//! constant; an axis is tried at every place, because A may hold it inside a fused operator.

use isotrace_align::Side;
use isotrace_align::patch::{Patch, Source};
use isotrace_graph::{Attribute as Setting, Node, NodeId, ValueId};
use isotrace_tensor::{DType, Tensor};

use super::{Cause, Proposal, label, numbers};
use crate::pool;
use crate::role;
use crate::site::Site;

/// See the module's text.
pub struct Attribute;

impl Cause for Attribute {
    fn propose(&self, site: &Site<'_, '_, '_>, out: &mut Vec<Proposal>) {
        let numbers = pool::numbers(site);
        for &n in site.nodes_b() {
            let node = site.node_b(n);
            for &m in site.nodes_a() {
                let other = site.node_a(m);
                if other.op == node.op {
                    from_twin(site, n, m, out);
                }
            }
            for (name, setting) in &node.attributes {
                let Setting::Float(own) = setting else { continue };
                for (number, from) in &numbers {
                    if *number as f32 != *own {
                        let value = Setting::Float(*number as f32);
                        push(site, n, name, Some(value), from.iter().copied().collect(), 14, out);
                    }
                }
            }
            turned_around(site, n, out);
            if let Some(Setting::Int(own)) = node.attributes.get("axis").or(default_axis(node).as_ref()) {
                let rank = node
                    .inputs
                    .first()
                    .copied()
                    .flatten()
                    .and_then(|v| site.state.shadow[v.index()].as_ref())
                    .map_or(0, |t| t.rank()) as i64;
                let own = if *own < 0 { own + rank } else { *own };
                for axis in (0..rank).filter(|&a| a != own) {
                    push(site, n, "axis", Some(Setting::Int(axis)), Vec::new(), 30, out);
                }
            }
        }
    }
}

/// The other direction for what runs over a sequence: all that it reads, all that it collects, or both.
fn turned_around(site: &Site<'_, '_, '_>, n: NodeId, out: &mut Vec<Proposal>) {
    const READS: &str = "scan_input_directions";
    const COLLECTS: &str = "scan_output_directions";
    let node = site.node_b(n);
    let Some(Setting::Int(scanned)) = node.attributes.get("num_scan_inputs") else { return };
    let read = usize::try_from(*scanned).unwrap_or(0).min(node.inputs.len());
    let collected = node.outputs.len().saturating_sub(node.inputs.len() - read);
    for names in [&[READS, COLLECTS][..], &[READS], &[COLLECTS]] {
        let mut changed = node.clone();
        for &name in names {
            let own = match node.attributes.get(name) {
                Some(Setting::Ints(list)) => list.clone(),
                _ => vec![0; if name == READS { read } else { collected }],
            };
            let turned = own.iter().map(|&d| 1 - d.clamp(0, 1)).collect();
            changed.attributes.insert(name.to_owned(), Setting::Ints(turned));
        }
        let Some(patch) = Patch::new(&changed, Patch::sources_of(node)) else { continue };
        let names = names.join(", ");
        out.push(Proposal {
            patches: vec![(n, patch)],
            nodes_b: vec![n],
            nodes_a: Vec::new(),
            edge: None,
            class: "index",
            summary: format!("{} runs over its sequence in the other direction", label(site.judge.b, n)),
            change: format!("{names} turned around"),
            cost: 24,
        });
    }
}

fn default_axis(node: &Node) -> Option<Setting> {
    matches!(node.op.as_str(), "Softmax" | "LogSoftmax").then_some(Setting::Int(-1))
}

fn from_twin(site: &Site<'_, '_, '_>, n: NodeId, m: NodeId, out: &mut Vec<Proposal>) {
    let (node, other) = (site.node_b(n), site.node_a(m));
    let names: std::collections::BTreeSet<&String> =
        node.attributes.keys().chain(other.attributes.keys()).collect();
    let mut differing = Vec::new();
    for name in names {
        if let Some(slot) = slot_of(&node.op, name) {
            across_versions(site, n, m, name, slot, out);
            continue;
        }
        let (own, theirs) = (node.attributes.get(name), other.attributes.get(name));
        // Two bodies are compared where they are written out.
        if own.or(theirs).is_some_and(is_body) {
            continue;
        }
        let same = match (own, theirs) {
            (Some(x), Some(y)) => x.same(y),
            (None, None) => true,
            _ => false,
        };
        if !same {
            differing.push(name.clone());
            push(site, n, name, theirs.cloned(), vec![m], 10, out);
        }
    }
    if differing.len() > 1 {
        let mut changed = node.clone();
        for name in &differing {
            match other.attributes.get(name) {
                Some(theirs) => changed.attributes.insert(name.clone(), theirs.clone()),
                None => changed.attributes.remove(name),
            };
        }
        let Some(patch) = Patch::new(&changed, Patch::sources_of(node)) else { return };
        let class = role::of_attribute(&node.op, &differing[0]);
        let names = differing.join(", ");
        out.push(Proposal {
            patches: vec![(n, patch)],
            nodes_b: vec![n],
            nodes_a: vec![m],
            edge: None,
            class,
            summary: format!(
                "settings {names} of {} differ from A's {}",
                label(site.judge.b, n),
                label(site.judge.a, m)
            ),
            change: format!("settings {names} as in A"),
            cost: 18,
        });
    }
}

fn is_body(setting: &Setting) -> bool {
    matches!(setting, Setting::Graph(_) | Setting::Graphs(_))
}

/// Where later versions of an operator read what earlier ones have as a setting.
fn slot_of(op: &str, name: &str) -> Option<usize> {
    match (op, name) {
        ("Squeeze" | "Unsqueeze", "axes") | ("Split", "split") | ("Pad", "pads") | ("Slice", "starts") => {
            Some(1)
        }
        (_, "axes") if op.starts_with("Reduce") => Some(1),
        ("Slice", "ends") => Some(2),
        ("Slice", "axes") => Some(3),
        _ => None,
    }
}

/// A's list of whole numbers for B, where one of them has it as a setting and the other reads it, or both have it as
/// a setting.
fn across_versions(
    site: &Site<'_, '_, '_>,
    n: NodeId,
    m: NodeId,
    name: &str,
    slot: usize,
    out: &mut Vec<Proposal>,
) {
    let (node, other) = (site.node_b(n), site.node_a(m));
    let read = |side: &Side<'_>, node: &Node| -> Option<Setting> {
        let v = node.inputs.get(slot).copied().flatten()?;
        let tensor = side.declared.get(v).filter(|_| side.is_constant(v))?;
        Some(Setting::Ints(tensor.as_slice::<i64>().ok()?.to_vec()))
    };
    let theirs = other.attributes.get(name).cloned().or_else(|| read(site.judge.a, other));
    let own = node.attributes.get(name).cloned().or_else(|| read(site.judge.b, node));
    if own.as_ref().zip(theirs.as_ref()).is_some_and(|(x, y)| x.same(y)) {
        return;
    }
    let reads = node.inputs.get(slot).copied().flatten().is_some();
    match theirs {
        Some(Setting::Ints(list)) if reads => {
            let Ok(tensor) = Tensor::from_vec(&[list.len()], list.clone()) else { return };
            let mut sources = Patch::sources_of(node);
            sources[slot] = Source::Tensor { declared: tensor.clone(), shadow: tensor };
            let Some(patch) = Patch::new(node, sources) else { return };
            let (own, theirs) = (shown(own.as_ref()), shown(Some(&Setting::Ints(list))));
            out.push(Proposal {
                patches: vec![(n, patch)],
                nodes_b: vec![n],
                nodes_a: vec![m],
                edge: None,
                class: role::of_attribute(&node.op, name),
                summary: format!("{name} of {} is {own}, in A it is {theirs}", label(site.judge.b, n)),
                change: format!("{name} = {theirs}"),
                cost: 10,
            });
        }
        theirs => push(site, n, name, theirs, vec![m], 10, out),
    }
}

fn push(
    site: &Site<'_, '_, '_>,
    n: NodeId,
    name: &str,
    value: Option<Setting>,
    nodes_a: Vec<NodeId>,
    cost: u32,
    out: &mut Vec<Proposal>,
) {
    let node = site.node_b(n);
    let mut changed = node.clone();
    let told = told(node.attributes.get(name), value.as_ref());
    match value {
        Some(value) => changed.attributes.insert(name.to_owned(), value),
        None => changed.attributes.remove(name),
    };
    let Some(patch) = Patch::new(&changed, Patch::sources_of(node)) else { return };
    // The sigmoid's argument is scaled by what a fused node calls alpha.
    let scaled = match (node.op.as_str(), node.attributes.get(name), changed.attributes.get(name)) {
        ("QuickGelu", Some(Setting::Float(x)), Some(Setting::Float(y))) => {
            role::is_nearly_right(f64::from(*x) / f64::from(*y))
        }
        _ => false,
    };
    // Whole numbers that become others lose no precision: they are read as what they are not.
    let b = site.judge.b;
    let whole = |v: ValueId| b.declared.dtype(v).is_some_and(DType::is_int);
    let recast = name == "to" && node.reads().all(whole) && node.writes().all(whole);
    let mut readers = node.writes().flat_map(|v| &b.consumers[v.index()]).map(|&r| site.node_b(r));
    let class = match () {
        () if scaled => "scale",
        () if recast && readers.any(|r| r.op == "Cast" && !r.writes().all(whole)) => "quantisation",
        () if recast => "index",
        () => match role::of_attribute(&node.op, name) {
            "weight_value" => learned(node.attributes.get(name), changed.attributes.get(name)),
            class => class,
        },
    };
    out.push(Proposal {
        patches: vec![(n, patch)],
        nodes_b: vec![n],
        nodes_a,
        edge: None,
        class,
        summary: format!("{name} of {} {}", label(site.judge.b, n), told.difference),
        change: format!("{name} {}", told.change),
        cost,
    });
}

/// What is wrong with numbers that were learned and are kept as a setting.
fn learned(own: Option<&Setting>, theirs: Option<&Setting>) -> &'static str {
    let held = |setting: Option<&Setting>| match setting? {
        Setting::Floats(list) => Tensor::from_vec(&[list.len()], list.clone()).ok(),
        Setting::Tensor(tensor) => Some(tensor.clone()),
        _ => None,
    };
    match held(own).zip(held(theirs)) {
        Some((x, y)) if numbers::same_multiset(&x, &y) => "weight_layout",
        Some((x, y)) if x.len() == y.len() && numbers::rounded(&x, &y).is_some() => "precision",
        _ => "weight_value",
    }
}

/// How a setting is called beside A's.
struct Told {
    difference: String,
    change: String,
}

/// Elements of a list that are still read one by one.
const FEW: usize = 12;

/// Both settings, or, of long lists, how many elements differ and the first that does.
fn told(own: Option<&Setting>, theirs: Option<&Setting>) -> Told {
    if let Some((own, theirs)) = own.and_then(elements).zip(theirs.and_then(elements))
        && own.len().max(theirs.len()) > FEW
    {
        let change = "as in A".to_owned();
        if own.len() != theirs.len() {
            let difference = format!("has {} elements, in A it has {}", own.len(), theirs.len());
            return Told { difference, change };
        }
        let mut differing = (0..own.len()).filter(|&i| own[i] != theirs[i]);
        let first = differing.next().unwrap_or_default();
        let (count, all) = (1 + differing.count(), own.len());
        let (x, y) = (&own[first], &theirs[first]);
        let difference =
            format!("differs from A's in {count} of {all} elements, the first is [{first}]: {x}, in A {y}");
        return Told { difference, change };
    }
    let (own, theirs) = (shown(own), shown(theirs));
    Told { difference: format!("is {own}, in A it is {theirs}"), change: format!("= {theirs}") }
}

/// The elements of a list, as text.
fn elements(setting: &Setting) -> Option<Vec<String>> {
    Some(match setting {
        Setting::Ints(list) => list.iter().map(ToString::to_string).collect(),
        Setting::Floats(list) => list.iter().map(ToString::to_string).collect(),
        Setting::Strings(list) => list.iter().map(|b| format!("{:?}", String::from_utf8_lossy(b))).collect(),
        Setting::Tensor(tensor) if tensor.rank() == 1 => {
            tensor.to_f64().ok()?.iter().map(ToString::to_string).collect()
        }
        _ => return None,
    })
}

fn shown(setting: Option<&Setting>) -> String {
    match setting {
        None => "left at its default".to_owned(),
        Some(Setting::Int(i)) => i.to_string(),
        Some(Setting::Float(f)) => format!("{f:e}"),
        Some(Setting::Ints(i)) => format!("{i:?}"),
        Some(Setting::Floats(f)) => format!("{f:?}"),
        Some(Setting::Bytes(b)) => format!("{:?}", String::from_utf8_lossy(b)),
        Some(list @ (Setting::Strings(_) | Setting::Tensor(_))) if elements(list).is_some() => {
            format!("[{}]", elements(list).unwrap_or_default().join(", "))
        }
        Some(other) => format!("another {}", other.kind()),
    }
}

/// Names of the attributes in which two nodes differ.
pub(super) fn settings_apart<'n>(x: &'n Node, y: &'n Node) -> Vec<&'n str> {
    let only_y = y.attributes.keys().filter(|name| !x.attributes.contains_key(*name));
    let apart = |name: &&String| match (x.attributes.get(*name), y.attributes.get(*name)) {
        (Some(x), Some(y)) => !x.same(y),
        _ => true,
    };
    x.attributes.keys().chain(only_y).filter(apart).map(String::as_str).collect()
}
