//! A fault inside of what a graph holds as one node: bodies of Loop, Scan and If, and operators that do at once what
//! others do one by one.
//!
//! **What it finds.** A node of which no setting, input or constant is wrong, because what is wrong is a node inside of
//! it: another activation in the body of a loop, a bias that one branch lacks. And the same where one side has the loop,
//! or an attention, and the other what it computes, written out.
//! **How.** The regions of both sides become networks of their own, on the inputs that they read here. Bodies are
//! written out once for each iteration that was really made, with the branch that was really taken, fused operators as
//! what they are defined as; such a definition counts only if it gives what the operator gives. These two networks
//! are held against each other as any two are: aligned, searched for the place, explained by the same causes, each
//! proven by its counterfactual.
//! **Proof.** The inner fault's own; and with all faults undone in there, the regions' outputs agree.

mod activation;
mod attention;
pub mod computed;
mod control;
mod fused;
mod norm;
mod product;
mod recurrent;
mod rotary;
mod sheet;
mod writer;

use isotrace_align::{Changes, Index, Judge, Keeps, Region, Side, State};
use isotrace_graph::{Node, NodeId, ValueId};
use isotrace_tensor::Tensor;
use rustc_hash::FxHashMap;

use crate::causes::gates;
use crate::faults::{self, Fault, Found};
use crate::site::Site;
use sheet::{Enters, Origin, Sheet};
use writer::Writer;

/// Whether a node has a written form.
fn is_written(node: &Node) -> bool {
    control::is_written(&node.op) || fused::form(node).is_some()
}

/// Writes a node out.
fn write(writer: &mut Writer<'_>) -> Option<()> {
    if control::is_written(&writer.node.op) { control::write(writer) } else { fused::write(writer) }
}

/// The first proven fault inside of a site's nodes, and whether nothing else is wrong in there; none where nothing in
/// them can be written out.
pub fn fault(site: &Site<'_, '_, '_>) -> Option<(Fault, bool)> {
    let (a, b) = (site.judge.a, site.judge.b);
    let held = |side: &Side<'_>, region: &Region| -> Vec<String> {
        let nodes = region.nodes.iter().map(|&n| side.graph().node(n));
        let mut ops: Vec<String> = nodes.filter(|n| fused::asks(n)).map(Node::qualified_op).collect();
        ops.sort_unstable();
        ops
    };
    let runs_bodies = |side: &Side<'_>, region: &Region| {
        region.nodes.iter().any(|&n| control::is_written(&side.graph().node(n).op))
    };
    // Of a fused operator that both sides have, settings, inputs and constants have been looked at already; of several
    // one after the other.
    let of_b = held(b, &site.open_b);
    if !runs_bodies(a, &site.open_a)
        && !runs_bodies(b, &site.open_b)
        && of_b.len() < 2
        && held(a, &site.open_a) == of_b
    {
        return None;
    }
    let regions = [(&site.open_a, &site.open_b), (&site.wide_a, &site.wide_b)];
    regions.into_iter().find_map(|(in_a, in_b)| inside(site, in_a, in_b))
}

/// The two regions as networks, with what enters them bound.
struct Sheets {
    a: Sheet,
    b: Sheet,
    /// Inputs of B and of A that are the same value.
    bound: Vec<(ValueId, ValueId)>,
}

impl Sheets {
    fn of(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region) -> Option<Self> {
        let (a, b) = (site.judge.a, site.judge.b);
        let of_a = |v: ValueId| {
            let tensor = a.declared.get(v)?.clone();
            Some(if a.is_constant(v) { Enters::Constant(tensor) } else { Enters::Input(tensor) })
        };
        let mut sheet_a = Sheet::of(a, in_a, site.candidate, &of_a)?;
        let of_b = |v: ValueId| {
            let own = site.state.declared[v.index()].as_ref()?;
            if b.is_constant(v) {
                return Some(Enters::Constant(own.clone()));
            }
            // In A's layout and B's type: what the two read is bound as one value.
            let m = site.state.matched[v.index()].as_ref()?;
            let theirs = a.declared.get(m.a)?;
            let read =
                if theirs.dtype() == own.dtype() { theirs.clone() } else { theirs.cast(own.dtype()).ok()? };
            Some(if theirs.shape() == own.shape() && !m.relation.is_permuted() {
                Enters::Input(read)
            } else {
                Enters::LaidOut(read, m.relation.clone(), own.shape().to_vec())
            })
        };
        sheet_a.hold_weights(a);
        let sheet_b = Sheet::of(b, in_b, site.point, &of_b)?;
        let mut bound = Vec::new();
        let entering = in_b.boundary.iter().copied().filter(|&v| !b.is_constant(v));
        for (v, &input) in entering.zip(&sheet_b.graph.inputs) {
            let theirs = site.partner(v)?;
            let partner = match sheet_a.values.get(&theirs) {
                Some(&v) if sheet_a.inputs.contains_key(&v) => v,
                _ => sheet_a.input(&a.graph().value(theirs).name, a.declared.get(theirs)?.clone()),
            };
            bound.push((input, partner));
        }
        Some(Self { a: sheet_a, b: sheet_b, bound })
    }
}

/// The first proven fault between two regions that end at the site's point, written out, and whether it is the only one.
fn inside(site: &Site<'_, '_, '_>, in_a: &Region, in_b: &Region) -> Option<(Fault, bool)> {
    if in_a.nodes.len().max(in_b.nodes.len()) > MOST_NODES {
        return None;
    }
    let Sheets { mut a, mut b, bound } = Sheets::of(site, in_a, in_b)?;
    let (out_a, out_b) = (a.write_out()?, b.write_out()?);
    if !out_a && !out_b {
        return None;
    }
    let side_a = Side::new(&a.graph, &a.inputs, None).ok()?;
    let side_b = Side::beside(&side_a, &b.graph, &b.inputs, &bound, Keeps::All, None).ok()?;
    let (end_a, end_b) = (a.graph.outputs[0], b.graph.outputs[0]);
    // What was written out has to be what the region computes.
    let same =
        |written: Option<&Tensor>, real: Option<&Tensor>| written.zip(real).is_some_and(|(x, y)| near(x, y));
    if !same(side_a.declared.get(end_a), site.judge.a.declared.get(site.candidate))
        || !same(side_b.declared.get(end_b), site.state.own_declared(site.point))
    {
        return None;
    }
    let index = Index::new(&side_a);
    let mut judge = Judge::new(&side_a, &side_b, &index, site.judge.allowed);
    // Asked here too whether to go on.
    judge.progress = site.judge.progress;
    let state = State::execute(&judge, &bound, &Changes::default());
    let Found { faults: found, left, .. } = faults::find(&judge, &bound, &[(end_b, end_a)], state);
    let settled = left.is_empty() && found.iter().all(|f| f.proof.is_some());
    let written = (a.graph.nodes.len(), b.graph.nodes.len());
    let mut proven = found.into_iter().filter(|f| f.proof.is_some());
    let mut fault = proven.next()?;
    let of_a = origins(&a, &fault.nodes_a);
    let agree = if settled { "; with this undone in there, their outputs agree" } else { "" };
    fault.evidence = vec![format!(
        "both regions were written out operator by operator, {} nodes in A and {} in B, and run on what they read \
         here{agree}",
        written.0, written.1,
    )];
    let (mut again, mut besides, mut elsewhere) = (0, 0, 0);
    let mut told = vec![of_a.clone(), origins(&b, &fault.nodes_b)];
    for other in proven {
        // An iteration further on, the other of two tables, or seen from what reads it.
        let theirs = origins(&a, &other.nodes_a);
        let own = origins(&b, &other.nodes_b);
        let known = |of: &Vec<Origin>| !of.is_empty() && told.contains(of);
        let same =
            known(&own) || known(&theirs) || !theirs.is_empty() && theirs.iter().all(|o| of_a.contains(o));
        told.extend([own, theirs]);
        if same || fault.class == other.class {
            again += 1;
            elsewhere += usize::from(!same);
        } else {
            besides += 1;
            fault.evidence.push(format!("undone in there besides: {}", other.summary));
        }
    }
    if besides > MOST_BESIDES {
        return None;
    }
    // What of a cell has no name of its own goes by that of its gates.
    let cells = |side: &Side<'_>, sheet: &Sheet, nodes: &[NodeId]| {
        let mut nodes = origins(sheet, nodes).into_iter().filter_map(|o| o.node);
        nodes.any(|n| recurrent::is_cell(&side.graph().node(n).op))
    };
    let unnamed = matches!(fault.class.as_str(), "operand_order" | "layout" | "normalisation")
        || fault.whole && !matches!(fault.class.as_str(), "bias" | "index");
    if unnamed && (cells(site.judge.a, &a, &fault.nodes_a) || cells(site.judge.b, &b, &fault.nodes_b)) {
        "gate_order".clone_into(&mut fault.class);
    }
    let entering = || in_a.boundary.iter().copied().filter(|&v| !site.judge.a.is_constant(v));
    let read = outer_values(site.judge.b, &b, &fault.outputs_b, &side_b);
    // What a curve is taken of multiplies the curve further on, where nothing in here sees it.
    let lets_through =
        |p: ValueId| entering().any(|v| v != p && (gates(site.judge.a, v, p) || gates(site.judge.a, p, v)));
    if fault.class == "operand_order" && read.iter().filter_map(|&v| site.partner(v)).any(lets_through) {
        "gate_order".clone_into(&mut fault.class);
    }
    if again > 0 {
        let places =
            if again == 1 { "one further place".to_owned() } else { format!("{again} further places") };
        fault.evidence.push(format!("the same had to be undone at {places}, such as the next iteration"));
    }
    fault.outputs_a = outer_values(site.judge.a, &a, &fault.outputs_a, &side_a);
    fault.outputs_b = read;
    fault.nodes_a = outer_nodes(&a, &fault.nodes_a);
    fault.nodes_b = outer_nodes(&b, &fault.nodes_b);
    Some((fault, besides + elsewhere == 0))
}

/// What nodes of a sheet stand for, each once.
fn origins(sheet: &Sheet, nodes: &[NodeId]) -> Vec<Origin> {
    let mut origins: Vec<Origin> = Vec::new();
    for n in nodes {
        let origin = &sheet.origins[n.index()];
        if origin.node.is_some() && !origins.contains(origin) {
            origins.push(origin.clone());
        }
    }
    origins
}

/// Nodes of a region that is written out: a larger one is no place, but what is left of a network that is not aligned.
const MOST_NODES: usize = 2000;

/// Further faults that two regions may have; with more they are not what belongs together.
const MOST_BESIDES: usize = 4;

/// How far what was written out may be from what the region computes, as a share of its largest element: both were
/// computed in declared precision, and in another order.
const REWRITTEN: f64 = 1e-2;

fn near(x: &Tensor, y: &Tensor) -> bool {
    let (Ok(x), Ok(y)) = (x.to_f64(), y.to_f64()) else { return false };
    let largest = y.iter().filter(|y| y.is_finite()).fold(0f64, |m, y| m.max(y.abs()));
    x.len() == y.len()
        && x.iter()
            .zip(y.iter())
            .all(|(x, y)| x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= REWRITTEN * largest)
}

/// The side's nodes that nodes of a sheet stand for, each once.
fn outer_nodes(sheet: &Sheet, nodes: &[NodeId]) -> Vec<NodeId> {
    let mut outer: Vec<NodeId> = origins(sheet, nodes).into_iter().filter_map(|o| o.node).collect();
    outer.dedup();
    outer
}

/// The side's values that values of a sheet are; what is inside of a node shows at that node's outputs.
fn outer_values(side: &Side<'_>, sheet: &Sheet, values: &[ValueId], here: &Side<'_>) -> Vec<ValueId> {
    let outer: FxHashMap<ValueId, ValueId> = sheet.values.iter().map(|(&outer, &v)| (v, outer)).collect();
    let mut out = Vec::new();
    for v in values {
        let of_node = || {
            let node = sheet.origins[here.producer(*v)?.index()].node?;
            Some(side.graph().node(node).writes().collect::<Vec<_>>())
        };
        let found = outer.get(v).map(|&v| vec![v]).or_else(of_node).unwrap_or_default();
        out.extend(found.into_iter().filter(|v| !out.contains(v)).collect::<Vec<_>>());
    }
    out
}
