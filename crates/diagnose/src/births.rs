//! NaN and infinities: what they are born from says more than what undoes them.

use isotrace_align::{Region, Side};
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::Tensor;

use crate::faults::Fault;
use crate::site::Site;

/// What NaN or an infinity is born from says more than what undoes it.
pub fn not_finite(site: &Site<'_, '_, '_>, fault: &mut Fault) {
    let finite = |t: Option<&Tensor>| t.and_then(|t| t.to_f64().ok().map(|v| v.iter().all(|x| !x.is_nan())));
    if finite(site.judge.a.shadow.get(site.candidate)) != Some(true) {
        return;
    }
    let after = &site.judge.b.consumers[site.point.index()];
    for &n in site.open_b.nodes.iter().chain(after) {
        for v in site.node_b(n).writes() {
            let Some(own) = &site.state.own_shadow[v.index()] else { continue };
            // What undoing another fault brings about is none of B's.
            // Of no elements there is no mean: NaN is not born of numbers then.
            let of_nothing =
                site.judge.b.dynamic_inputs(n).iter().any(|&r| site.judge.b.declared.count(r) == Some(0));
            if finite(Some(own)) == Some(false)
                && finite(site.judge.b.shadow.get(v)) != Some(true)
                && !of_nothing
            {
                let count = own.to_f64().map_or(0, |x| x.iter().filter(|x| x.is_nan()).count());
                let read: Vec<String> =
                    site.judge.b.dynamic_inputs(n).iter().filter_map(|&r| range(site, r)).collect();
                "nan".clone_into(&mut fault.class);
                fault.evidence.insert(0, fault.summary.clone());
                fault.summary = format!(
                    "{} of {} elements of {} become NaN; it reads {}",
                    count,
                    own.len(),
                    crate::causes::label(site.judge.b, n),
                    read.join(", ")
                );
                if !fault.nodes_b.contains(&n) {
                    fault.nodes_b.push(n);
                }
                for out in site.node_b(n).writes() {
                    if !fault.outputs_b.contains(&out) {
                        fault.outputs_b.push(out);
                    }
                }
                return;
            }
        }
    }
    infinite(site, fault);
}

fn range(site: &Site<'_, '_, '_>, v: ValueId) -> Option<String> {
    let values = site.state.shadow[v.index()].as_ref()?.to_f64().ok()?.into_owned();
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
    Some(format!("{:?} in [{low:.6e}, {high:.6e}]", site.judge.b.graph().value(v).name))
}

/// Steps from what a region writes to what is born from it.
const NEAR: usize = 3;

/// Where no single part explains a difference and the first infinity of B's run is born of it: `overflow` where float64
/// holds the number, `nan` where a logarithm or a quotient is taken of nought. What is born in the region itself gives
/// any fault its name; what is born behind it only one whose own name says little.
fn infinite(site: &Site<'_, '_, '_>, fault: &mut Fault) {
    if !fault.whole {
        return;
    }
    let vague = matches!(fault.class.as_str(), "residual" | "operand_order" | "bias" | "scale" | "unknown");
    let (a, b) = (site.judge.a, site.judge.b);
    let all = |side: &Side<'_>, v: ValueId| {
        side.declared.get(v).and_then(|t| t.to_f64().ok().map(|x| x.iter().all(|x| x.is_finite())))
    };
    let bursts = |side: &Side<'_>, n: NodeId| {
        let node = side.graph().node(n);
        let born = matches!(
            node.op.as_str(),
            "Exp" | "Pow" | "Log" | "Div" | "Reciprocal" | "Mul" | "Softplus" | "ReduceSum"
        );
        let out = node
            .writes()
            .next()
            .filter(|_| born && side.dynamic_inputs(n).iter().all(|&v| all(side, v) == Some(true)))?;
        (all(side, out) == Some(false)).then_some(out)
    };
    let first = |side: &Side<'_>, region: &Region, from: ValueId| {
        let born = region.dynamic_nodes(side).find_map(|n| bursts(side, n).map(|v| (n, v)));
        if born.is_some() || !vague {
            return born;
        }
        let mut at = vec![from];
        for _ in 0..NEAR {
            let nodes: Vec<NodeId> =
                at.iter().flat_map(|v| side.consumers[v.index()].iter().copied()).collect();
            if let Some(found) = nodes.iter().find_map(|&n| bursts(side, n).map(|v| (n, v))) {
                return Some(found);
            }
            at = nodes.iter().flat_map(|&n| side.graph().node(n).writes()).collect();
        }
        None
    };
    let Some((n, v)) =
        first(b, &site.open_b, site.point).filter(|_| first(a, &site.open_a, site.candidate).is_none())
    else {
        return;
    };
    let held = b.shadow.get(v).and_then(|t| t.to_f64().ok()).is_some_and(|x| x.iter().all(|x| x.is_finite()));
    let class = if held { "overflow" } else { "nan" };
    class.clone_into(&mut fault.class);
    fault.evidence.insert(0, fault.summary.clone());
    fault.summary = format!(
        "{} is the first to write an infinity, of what comes of this place",
        crate::causes::label(b, n)
    );
    if !fault.nodes_b.contains(&n) {
        fault.nodes_b.push(n);
        fault.outputs_b.push(v);
    }
}

/// Where NaN is born comes before what only reads it.
pub fn births_first(b: &Side<'_>, faults: Vec<Fault>) -> Vec<Fault> {
    if faults.iter().all(|f| f.class != "nan") {
        return faults;
    }
    let spoilt = |v: &ValueId| {
        b.shadow.get(*v).is_some_and(|t| t.to_f64().is_ok_and(|x| x.iter().any(|x| x.is_nan())))
    };
    let (fed, mut first): (Vec<Fault>, Vec<Fault>) = faults
        .into_iter()
        .partition(|f| f.class != "nan" && f.nodes_b.iter().any(|&n| b.dynamic_inputs(n).iter().any(spoilt)));
    first.extend(fed);
    first
}
