//! NaN and infinities: what they are born from says more than what undoes them.

use isotrace_align::{Region, Side};
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::Tensor;

use crate::faults::Fault;
use crate::site::Site;

/// What NaN or an infinity is born from says more than what undoes it.
pub fn not_finite(site: &Site<'_, '_, '_>, fault: &mut Fault) {
    if nans(site.judge.a.shadow.get(site.candidate)) != Some(0) {
        return;
    }
    let Some((n, v, count, all)) = born(site) else {
        return infinite(site, fault);
    };
    let read: Vec<String> = site.judge.b.dynamic_inputs(n).iter().filter_map(|&r| range(site, r)).collect();
    let told = format!(
        "{count} of {all} elements of {} become NaN; it reads {}",
        crate::causes::label(site.judge.b, n),
        read.join(", ")
    );
    tell(fault, "nan", told, n, v);
}

/// How many elements are NaN.
fn nans(t: Option<&Tensor>) -> Option<usize> {
    Some(t?.to_f64().ok()?.iter().filter(|x| x.is_nan()).count())
}

/// The first node of a site, or behind it, of whose finite numbers NaN are born, what it writes, how many they are and of
/// how many. What undoing another fault brings about is none of B's, and a mean of no elements is not born of numbers.
fn born(site: &Site<'_, '_, '_>) -> Option<(NodeId, ValueId, usize, usize)> {
    let b = site.judge.b;
    let own = |v: ValueId| site.state.own_shadow[v.index()].as_ref();
    let numbers = |n: NodeId| {
        b.dynamic_inputs(n).iter().all(|&r| b.declared.count(r) != Some(0) && nans(own(r)).unwrap_or(0) == 0)
    };
    let nodes = site.open_b.nodes.iter().chain(&b.consumers[site.point.index()]);
    nodes.copied().filter(|&n| numbers(n)).find_map(|n| {
        let of_b = |&v: &ValueId| nans(b.shadow.get(v)) != Some(0);
        let mut written = site.node_b(n).writes().filter(of_b);
        written
            .find_map(|v| nans(own(v)).filter(|&c| c > 0).map(|c| (n, v, c, own(v).map_or(0, Tensor::len))))
    })
}

/// Names a fault by the node in which something is born, and puts what was said of it behind as evidence.
fn tell(fault: &mut Fault, class: &'static str, told: String, n: NodeId, v: ValueId) {
    class.clone_into(&mut fault.class);
    let undone = std::mem::replace(&mut fault.summary, told);
    fault.evidence.insert(0, undone);
    if !fault.nodes_b.contains(&n) {
        fault.nodes_b.push(n);
    }
    if !fault.outputs_b.contains(&v) {
        fault.outputs_b.push(v);
    }
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
    let told = format!(
        "{} is the first to write an infinity, of what comes of this place",
        crate::causes::label(b, n)
    );
    tell(fault, class, told, n, v);
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
