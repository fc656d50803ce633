//! Calls of operators that nobody here knows, of which there is only what was recorded.

use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::ops::opaque;
use isotrace_tensor::Tensor;

use crate::{Side, twins};

/// Whether two calls of one unknown operator are seen to differ: what they read does not explain how far apart what they
/// gave is. Where both read the same bits, nothing is to be explained but the kernel's own rounding. Else the operator may
/// be as ill conditioned as leaves half of the digits (a condition of `1/sqrt(u)`): what one would have made of the other's
/// inputs nobody can say, and nearer than that they count as one.
pub(crate) fn contradict((a, of_a): (&Side<'_>, NodeId), (b, of_b): (&Side<'_>, NodeId)) -> bool {
    let (theirs, own) = (a.graph().node(of_a), b.graph().node(of_b));
    let unit = if a.unit().u > b.unit().u { a.unit() } else { b.unit() };
    let Some(moved) = pairs(a, &theirs.inputs, b, &own.inputs).map(|(x, y)| apart(x, y)).collect() else {
        return false;
    };
    let moved: Vec<(f64, f64)> = moved;
    let shares = moved.iter().map(|(gap, size)| if *gap == 0.0 { 0.0 } else { gap / size });
    let carried = shares.fold(0.0, f64::max) / unit.u.sqrt();
    pairs(a, &theirs.outputs, b, &own.outputs).any(|(x, y)| match (apart(x, y), opaque::allowed(x, unit)) {
        (Some((gap, size)), Ok(allowed)) => gap > allowed + carried * size,
        (None, Ok(_)) => x.len() != y.len(),
        _ => false,
    })
}

/// Whether two calls read the same bits: what they gave then speaks for itself.
pub fn on_same_bits((a, of_a): (&Side<'_>, NodeId), (b, of_b): (&Side<'_>, NodeId)) -> bool {
    let (theirs, own) = (a.graph().node(of_a), b.graph().node(of_b));
    twins::same_call(own, theirs) && pairs(a, &theirs.inputs, b, &own.inputs).all(|(x, y)| x.bit_eq(y))
}

fn pairs<'x>(
    a: &'x Side<'_>,
    of_a: &'x [Option<ValueId>],
    b: &'x Side<'_>,
    of_b: &'x [Option<ValueId>],
) -> impl Iterator<Item = (&'x Tensor, &'x Tensor)> {
    of_a.iter().zip(of_b).filter_map(|(x, y)| Some((a.declared.get((*x)?)?, b.declared.get((*y)?)?)))
}

/// The largest difference of two tensors and the largest element of both; `None` where they cannot be held against each
/// other.
fn apart(x: &Tensor, y: &Tensor) -> Option<(f64, f64)> {
    let (x, y) = (x.to_f64().ok()?, y.to_f64().ok()?);
    let gap = |(x, y): (&f64, &f64)| match (x - y).abs() {
        _ if x == y || x.is_nan() && y.is_nan() => 0.0,
        gap if gap.is_nan() => f64::INFINITY,
        gap => gap,
    };
    let largest =
        |values: &[f64]| values.iter().filter(|x| x.is_finite()).fold(0.0f64, |m, x| m.max(x.abs()));
    (x.len() == y.len())
        .then(|| (x.iter().zip(y.iter()).map(gap).fold(0.0, f64::max), largest(&x).max(largest(&y))))
}
