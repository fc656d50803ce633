//! What A holds beside a fault: the numbers and tensors that B might have got wrong.

use isotrace_graph::{Attribute, NodeId, ValueId};
use isotrace_tensor::{DType, Tensor};

use crate::site::Site;

/// Single numbers of A's region, from constants and from attributes, each with the node that uses it.
pub fn numbers(site: &Site<'_, '_, '_>) -> Vec<(f64, Option<NodeId>)> {
    let mut out: Vec<(f64, Option<NodeId>)> = Vec::new();
    let mut add = |x: f64, n: NodeId| {
        if x.is_finite() && !out.iter().any(|(y, _)| *y == x) {
            out.push((x, Some(n)));
        }
    };
    for &n in site.nodes_a() {
        let node = site.node_a(n);
        for v in node.inputs.iter().flatten() {
            if site.judge.a.is_constant(*v)
                && let Some(t) = site.judge.a.shadow.get(*v)
                && t.len() == 1
                && let Ok(x) = t.to_f64()
            {
                add(x[0], n);
            }
        }
        for a in node.attributes.values() {
            match a {
                Attribute::Float(f) => add(f64::from(*f), n),
                Attribute::Floats(f) => f.iter().for_each(|f| add(f64::from(*f), n)),
                _ => {}
            }
        }
        // Settings that stand at their default are settings too.
        if crate::role::is_normalisation(&node.op) && !node.attributes.contains_key("epsilon") {
            add(f64::from(1e-5f32), n);
        }
    }
    out
}

/// Constants that A's region reads: the value, its reader and the slot, each value once.
pub fn constants(site: &Site<'_, '_, '_>) -> Vec<(ValueId, NodeId, usize)> {
    let mut out: Vec<(ValueId, NodeId, usize)> = Vec::new();
    for &n in site.nodes_a() {
        for (slot, v) in site.node_a(n).inputs.iter().enumerate() {
            let Some(v) = *v else { continue };
            if site.judge.a.is_constant(v) && !out.iter().any(|(w, _, _)| *w == v) {
                out.push((v, n, slot));
            }
        }
    }
    out
}

/// Whether two tensors hold the same numbers in the same flat order.
pub fn same_numbers(x: &Tensor, y: &Tensor) -> bool {
    match (x.to_f64(), y.to_f64()) {
        (Ok(x), Ok(y)) => x == y,
        _ => x.bit_eq(y),
    }
}

/// A number as short as the f32 it was stored as allows.
pub fn shown(x: f64) -> String {
    let narrow = x as f32;
    if f64::from(narrow) == x { format!("{narrow:e}") } else { format!("{x:.6e}") }
}

/// A tensor with its numbers rounded to a narrower type, if one is given, in the type that it has.
pub fn rounded_to(tensor: &Tensor, narrow: Option<DType>) -> Tensor {
    let rounded = narrow.and_then(|d| tensor.cast(d).and_then(|t| t.cast(tensor.dtype())).ok());
    rounded.unwrap_or_else(|| tensor.clone())
}
