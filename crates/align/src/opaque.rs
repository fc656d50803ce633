//! Calls of operators that nobody here knows, of which there is only what was recorded.

use isotrace_graph::NodeId;
use isotrace_ops::ops::opaque;

use crate::Side;

/// Whether two calls of one unknown operator are seen to differ: they read the same bits and gave other numbers. Where
/// they read what only corresponds, nobody can say what the one would have made of the other's, and they count as one.
pub(crate) fn contradict((a, of_a): (&Side<'_>, NodeId), (b, of_b): (&Side<'_>, NodeId)) -> bool {
    if !b.plan.op(of_b).is_opaque() {
        return false;
    }
    let (theirs, own) = (a.graph().node(of_a), b.graph().node(of_b));
    let told = |x, y| Some((a.declared.get(x)?, b.declared.get(y)?));
    let pairs = |x: &[Option<_>], y: &[Option<_>]| {
        let both = x.iter().zip(y).filter_map(|(x, y)| told((*x)?, (*y)?));
        both.map(|(x, y)| (x.clone(), y.clone())).collect::<Vec<_>>()
    };
    let differs = |(x, y): &(isotrace_tensor::Tensor, isotrace_tensor::Tensor)| {
        let (Ok(allowed), Ok(x), Ok(y)) = (opaque::allowed(x, b.unit()), x.to_f64(), y.to_f64()) else {
            return false;
        };
        x.len() != y.len()
            || x.iter()
                .zip(y.iter())
                .any(|(x, y)| !(x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= allowed))
    };
    pairs(&theirs.inputs, &own.inputs).iter().all(|(x, y)| x.bit_eq(y))
        && pairs(&theirs.outputs, &own.outputs).iter().any(differs)
}
