//! Whether a run that somebody else made does what its graph says: `fresh` of a recorded side, node by node.
//!
//! Each node is evaluated in float64 on the values that were recorded as its inputs and held against the value that
//! was recorded as its output, within what rounding in the output's type allows. Inputs are the recorded ones, so no
//! node answers for another, and every wrong kernel is found in one pass.

use isotrace_align::Side;
use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::budget::Unit;
use isotrace_ops::{Flow, Precision};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;
use std::cell::OnceCell;

use crate::faults::Fault;

/// Nodes whose recorded outputs rounding does not explain, with the first such output.
pub fn faults(
    side: &Side<'_>,
    recorded: &FxHashMap<ValueId, Tensor>,
    is_reference: bool,
) -> Vec<(Fault, ValueId)> {
    let graph = side.graph();
    let mut found = Vec::new();
    for id in graph.node_ids() {
        for (index, v) in graph.node(id).outputs.iter().enumerate() {
            let Some(v) = *v else { continue };
            let Some(output) = recorded.get(&v).filter(|t| t.dtype().is_float()) else { continue };
            let Some(excess) = excess(side, id, index, output) else { continue };
            if excess.share > 1.0 {
                found.push((fault(side, id, (index, v), output, &excess, is_reference), v));
                break;
            }
        }
    }
    found
}

/// How far a recorded output is from what its node computes.
struct Excess {
    difference: f64,
    /// The largest share of the allowance.
    share: f64,
}

fn excess(side: &Side<'_>, id: NodeId, index: usize, output: &Tensor) -> Option<Excess> {
    let lookup = |v: ValueId| side.declared.get(v).cloned();
    let exact = evaluate(side, id, &lookup)?.into_iter().nth(index)?;
    let wide = |v: ValueId| {
        lookup(v).and_then(|t| if t.dtype().is_float() { t.cast(DType::F64).ok() } else { Some(t) })
    };
    let unit = Unit::of(output.dtype());
    let mut allowed = side.plan.budget(id, &wide, index, &exact, unit, &OnceCell::new()).ok()?.allowed;
    if side.plan.op(id).flow() == Flow::Moves {
        // What is only moved may still be stored in another type.
        for (e, x) in allowed.iter_mut().zip(exact.to_f64().ok()?.iter()) {
            *e = e.max(unit.u * x.abs() + unit.eta);
        }
    }
    Some(measure(&exact, output, &allowed))
}

fn measure(exact: &Tensor, output: &Tensor, allowed: &[f64]) -> Excess {
    let mut worst = Excess { difference: 0.0, share: 0.0 };
    let (Ok(x), Ok(y)) = (exact.to_f64(), output.to_f64()) else { return worst };
    if x.len() != y.len() {
        return Excess { difference: f64::INFINITY, share: f64::INFINITY };
    }
    for ((x, y), e) in x.iter().zip(y.iter()).zip(allowed) {
        // What f64 holds and the type does not overflows there rightly.
        let overflows =
            y.is_infinite() && x.abs() >= output.dtype().largest_finite().unwrap_or(f64::INFINITY);
        if x == y || x.is_nan() && y.is_nan() || overflows {
            continue;
        }
        let d = (x - y).abs();
        let d = if d.is_nan() { f64::INFINITY } else { d };
        worst.difference = worst.difference.max(d);
        worst.share = worst.share.max(if *e > 0.0 { d / e } else { f64::INFINITY });
    }
    worst
}

fn evaluate(side: &Side<'_>, id: NodeId, lookup: &dyn Fn(ValueId) -> Option<Tensor>) -> Option<Vec<Tensor>> {
    let node = side.graph().node(id);
    if !node.reads().all(|v| lookup(v).is_some()) {
        return None;
    }
    let decided: Vec<Option<Tensor>> =
        node.outputs.iter().map(|v| v.and_then(|v| side.declared.get(v).cloned())).collect();
    side.plan.evaluate(id, lookup, Precision::Float64, Some(&decided)).ok()
}

/// Formats to which hardware rounds the factors of a product on its way: name and bits of the significand kept.
const NARROWER: [(&str, u32); 3] = [("tf32", 11), ("bf16", 8), ("f16", 11)];

fn fault(
    side: &Side<'_>,
    id: NodeId,
    (index, v): (usize, ValueId),
    output: &Tensor,
    excess: &Excess,
    is_reference: bool,
) -> Fault {
    let name = if is_reference { "A" } else { "B" };
    let graph = side.graph();
    let label = format!("{} {:?}", graph.node(id).qualified_op(), graph.label(id));
    let recorded = |v: ValueId| side.declared.get(v).cloned();
    let narrowed = NARROWER.iter().find_map(|&(format, bits)| {
        let lookup = |v: ValueId| recorded(v).map(|t| rounded(&t, bits));
        let exact = evaluate(side, id, &lookup)?.into_iter().nth(index)?;
        let left = measure(&exact, output, &vec![f64::INFINITY; exact.len()]).difference;
        // Rounding the inputs in this way has to explain nearly all of it, or it explains nothing.
        (left < excess.difference / 16.0).then_some((format, left))
    });
    let (class, summary, proof) = match narrowed {
        Some((format, left)) => (
            "precision",
            format!(
                "{name} computes {label} on inputs rounded to {format}, though they are {}",
                output.dtype()
            ),
            Some((format!("the node evaluated on inputs rounded to {format}"), excess.difference, left)),
        ),
        None => (
            if is_reference { "reference" } else { "unknown" },
            format!(
                "{name}'s run does not compute what {label} says: on its own recorded inputs it is {:.3e} away from \
                 it, {:.1} times what rounding in {} allows",
                excess.difference,
                excess.share,
                output.dtype()
            ),
            None,
        ),
    };
    let (nodes, outputs) = (vec![id], vec![v]);
    let (none, nothing) = (Vec::new(), Vec::new());
    let (nodes_a, outputs_a, nodes_b, outputs_b) =
        if is_reference { (nodes, outputs, none, nothing) } else { (none, nothing, nodes, outputs) };
    Fault {
        nodes_a,
        nodes_b,
        outputs_a,
        outputs_b,
        class: class.to_owned(),
        summary,
        evidence: vec![
            "found on the recorded values of this run alone; the other side plays no part".to_owned(),
        ],
        proof,
        narrow: Some(!is_reference),
        nearest: Vec::new(),
    }
}

/// A float tensor with significands of `bits` bits (to nearest even); others as they are.
fn rounded(tensor: &Tensor, bits: u32) -> Tensor {
    let Ok(values) = tensor.to_f64() else { return tensor.clone() };
    if !tensor.dtype().is_float() {
        return tensor.clone();
    }
    let drop = 53 - bits;
    let round = |x: f64| {
        if !x.is_finite() {
            return x;
        }
        let raw = x.to_bits();
        let odd = raw >> drop & 1;
        f64::from_bits((raw + (1u64 << (drop - 1)) - 1 + odd) >> drop << drop)
    };
    Tensor::from_vec(tensor.shape(), values.iter().map(|&x| round(x)).collect())
        .unwrap_or_else(|_| tensor.clone())
}
