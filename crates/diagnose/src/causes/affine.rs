//! Two regions that only shift and stretch one value.

use isotrace_align::{Region, Side};

use crate::role;
use crate::site::Site;

/// Where neither region does more than shift and stretch one value: `bias` where they shift otherwise, `scale` where
/// they stretch otherwise, `normalisation` where both, as an input brought to other means and deviations is.
pub fn kind(site: &Site<'_, '_, '_>) -> Option<&'static str> {
    let (theirs, own) = (shifts(site.judge.a, &site.open_a)?, shifts(site.judge.b, &site.open_b)?);
    let same = |x: &[Vec<f64>], y: &[Vec<f64>]| {
        x.len() == y.len()
            && x.iter().zip(y).all(|(x, y)| {
                x.len() == y.len() && x.iter().zip(y).all(|(x, y)| (x - y).abs() <= 1e-6 * y.abs())
            })
    };
    match (same(&theirs.0, &own.0), same(&theirs.1, &own.1)) {
        (false, false) => Some("normalisation"),
        (false, true) => Some("bias"),
        (true, false) => Some("scale"),
        (true, true) => None,
    }
}

/// The elements of several constants.
type Numbers = Vec<Vec<f64>>;

/// What a region adds to the one value it reads, and by what it multiplies; `None` where it does anything else.
fn shifts(side: &Side<'_>, region: &Region) -> Option<(Numbers, Numbers)> {
    let (mut added, mut factors) = (Vec::new(), Vec::new());
    for n in region.dynamic_nodes(side) {
        let node = side.graph().node(n);
        let floats = || node.reads().chain(node.writes()).all(|v| side.declared.is_float(v));
        if role::is_layout(&node.op) || node.op == "Identity" || node.op == "Cast" && floats() {
            continue;
        }
        let constant = node.inputs.iter().position(|v| v.is_some_and(|v| side.is_constant(v)))?;
        let x = side.shadow.get(node.inputs[constant]?)?.to_f64().ok()?.into_owned();
        match (node.op.as_str(), constant) {
            ("Add", _) => added.push(x),
            ("Sub", 1) => added.push(x.iter().map(|v| -v).collect()),
            ("Mul", _) => factors.push(x),
            ("Div", 1) => factors.push(x.iter().map(|v| 1.0 / v).collect()),
            _ => return None,
        }
    }
    Some((added, factors))
}
