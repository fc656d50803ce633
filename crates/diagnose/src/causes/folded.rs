//! What differs between a product with its norm, or a factor, behind it and one into which that was folded.
//!
//! The two have no weight in common that could be held against each other: each filter of the one is that of the other
//! times what the norm multiplies its channel by. Divided by that, both are the same weight, and what is left says what
//! is wrong with it. Where nothing is left but a factor for each channel, it is the norm's own; where nothing is left at
//! all, what is added to each channel is wrong.

use isotrace_align::{Region, Side};
use isotrace_graph::{Attribute, NodeId};
use isotrace_ops::nchwc;
use isotrace_tensor::Tensor;

use super::{numbers, turned};
use crate::role;
use crate::site::Site;

/// The cause and how B's weight differs from A's, where one side alone keeps its norm apart and the weights differ by
/// more than the norm could make them.
pub fn told(site: &Site<'_, '_, '_>) -> Option<(&'static str, String)> {
    let (theirs, own) = (filters(site.judge.a, &site.open_a)?, filters(site.judge.b, &site.open_b)?);
    let sizes = [0, 1].map(|axis| own.weight.shape()[axis].min(theirs.weight.shape()[axis]));
    let cut = |t: &Tensor| t.slice(0, 0, sizes[0]).ok()?.slice(1, 0, sizes[1]).ok();
    let (x, y) = (cut(&own.weight)?, cut(&theirs.weight)?);
    let (x, y, added, norm) = match (&own.norm, &theirs.norm) {
        (Some(norm), None) => (x, divided(&y, &norm.gain)?, told_by_sums(&own, norm, &theirs), norm),
        (None, Some(norm)) => (divided(&x, &norm.gain)?, y, told_by_sums(&theirs, norm, &own), norm),
        _ => return None,
    };
    if x.shape() != y.shape() {
        return None;
    }
    let which = norm.told();
    if in_line(&x, &y)? {
        // One factor for all is none of the norm's.
        let own = || Some(("normalisation", format!("each output has a factor of its own, {which}")));
        return if turned::near(&x, &y) {
            added
        } else {
            own().filter(|_| !norm.is_factor() && !of_one_factor(&x, &y))
        };
    }
    if let Some(turn) = turned::lies(&x, &y) {
        return Some(("weight_layout", format!("the weight is A's with {turn}, {which}")));
    }
    for (axis, what) in [(1, "inputs"), (0, "outputs")] {
        if moved(&x, &y, axis) {
            return Some((
                "weight_layout",
                format!("the weight is A's with its {what} in another order, {which}"),
            ));
        }
    }
    if let Some(narrow) = numbers::rounded(&x, &y) {
        return Some(("precision", format!("the weight is A's rounded to {narrow}, {which}")));
    }
    if let Some(bits) = numbers::shortened(&x, &y) {
        return Some(("precision", format!("the weight is A's with {bits} bits of mantissa, {which}")));
    }
    if numbers::on_a_coarse_grid(&x, &y) {
        return Some(("quantisation", format!("the weight is A's on a grid of a few levels a row, {which}")));
    }
    Some(("weight_value", format!("the weight is not A's, {which}")))
}

/// What is wrong with what is added to each channel by a product `apart` from its norm, or by one that has it folded in.
fn told_by_sums(apart: &Filters, norm: &Norm, folded: &Filters) -> Option<(&'static str, String)> {
    let channels = norm.gain.len();
    let at = |v: &[f64], c: usize| v.get(c).copied().unwrap_or(0.0);
    let through = |c: usize, x: f64| (x - at(&norm.mean, c)) * norm.gain[c] + at(&norm.shift, c);
    let expected: Vec<f64> = (0..channels).map(|c| through(c, at(&apart.bias, c))).collect();
    let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
    let left: Vec<(usize, f64)> = (0..channels)
        .map(|c| (c, at(&folded.bias, c) - expected[c]))
        .filter(|(_, d)| d.abs() > 1e-5 * largest)
        .collect();
    let is = |part: &[f64]| {
        let near =
            |&(c, d): &(usize, f64)| (d.abs() - (at(part, c) * norm.gain[c]).abs()).abs() <= 1e-4 * largest;
        left.iter().all(near)
    };
    let places = format!("in {} of {channels} channels, the weights are alike {}", left.len(), norm.told());
    if left.is_empty() {
        None
    } else if !norm.is_factor() && is(&norm.mean) {
        Some(("normalisation", format!("the mean of the norm is missing {places}")))
    } else {
        Some(("bias", format!("what is added differs {places}")))
    }
}

/// The plain weight of a region's one product, what it adds, and the norm behind it.
struct Filters {
    weight: Tensor,
    bias: Vec<f64>,
    norm: Option<Norm>,
}

/// What a batch norm does to each channel: the mean that it takes off, the factor, what it adds. A factor alone takes
/// nothing off.
struct Norm {
    mean: Vec<f64>,
    gain: Vec<f64>,
    shift: Vec<f64>,
}

impl Norm {
    fn is_factor(&self) -> bool {
        self.mean.is_empty()
    }

    fn told(&self) -> &'static str {
        if self.is_factor() {
            "once the factor is folded into neither"
        } else {
            "once the norm is folded into neither"
        }
    }
}

/// The numbers that a node reads as a constant.
fn numbers_at(side: &Side<'_>, n: NodeId, slot: usize) -> Option<Vec<f64>> {
    let v = side.graph().node(n).inputs.get(slot).copied().flatten().filter(|&v| side.is_constant(v))?;
    side.shadow.get(v)?.to_f64().ok().map(std::borrow::Cow::into_owned)
}

fn filters(side: &Side<'_>, region: &Region) -> Option<Filters> {
    let nodes: Vec<NodeId> = region.dynamic_nodes(side).collect();
    let of = |is: &dyn Fn(&str) -> bool| -> Vec<NodeId> {
        nodes.iter().copied().filter(|&n| is(&side.graph().node(n).op)).collect()
    };
    let [product] = of(&role::is_product)[..] else { return None };
    let norms = of(&role::is_normalisation);
    let node = side.graph().node(product);
    let v = node.inputs.get(1).copied().flatten().filter(|&v| side.is_constant(v))?;
    let mut weight = side.shadow.get(v).filter(|t| t.rank() >= 2)?.clone();
    match node.op.as_str() {
        "Gemm" | "MatMul" if weight.rank() == 2 => {
            if !matches!(node.attributes.get("transB"), Some(Attribute::Int(1))) {
                weight = weight.permute(&[1, 0]).ok()?;
            }
        }
        op if op.ends_with("Conv") => {}
        _ => return None,
    }
    if node.domain == nchwc::DOMAIN && !node.attributes.contains_key(nchwc::PLAIN) {
        return None;
    }
    let norm = match norms[..] {
        [] => factor(side, &nodes, product, weight.shape()[0]),
        [n] => Some(norm(side, n)?),
        _ => return None,
    };
    Some(Filters { weight, bias: numbers_at(side, product, 2).unwrap_or_default(), norm })
}

fn norm(side: &Side<'_>, n: NodeId) -> Option<Norm> {
    let node = side.graph().node(n);
    if node.op != "BatchNormalization" {
        return None;
    }
    let read = |slot: usize| numbers_at(side, n, slot);
    let epsilon = match node.attributes.get("epsilon") {
        Some(Attribute::Float(e)) => f64::from(*e),
        _ => f64::from(1e-5f32),
    };
    let gain =
        read(1)?.iter().zip(read(4)?).map(|(scale, variance)| scale / (variance + epsilon).sqrt()).collect();
    Some(Norm { mean: read(3)?, gain, shift: read(2)? })
}

/// The constant by which a product of `channels` is multiplied, one number or one for each, where a region does that to
/// the product and nothing else.
fn factor(side: &Side<'_>, nodes: &[NodeId], product: NodeId, channels: usize) -> Option<Norm> {
    let others = |&&n: &&NodeId| n != product && !role::is_layout(&side.graph().node(n).op);
    let mut behind = nodes.iter().filter(others);
    let (&n, None) = (behind.next()?, behind.next()) else { return None };
    let slot = side.graph().node(n).inputs.iter().position(|v| v.is_some_and(|v| side.is_constant(v)))?;
    let v = side.graph().node(n).inputs[slot]?;
    let mut gain = numbers_at(side, n, slot)?;
    match (side.graph().node(n).op.as_str(), slot) {
        ("Mul", _) => {}
        ("Div", 1) => gain.iter_mut().for_each(|x| *x = x.recip()),
        _ => return None,
    }
    // Numbers that lie along the channels: the second axis of an image, the last of features.
    let image = side.graph().node(product).op.ends_with("Conv");
    let rank = side.declared.shape(side.graph().node(n).writes().next()?)?.len();
    let shape = side.declared.shape(v)?;
    let at = (shape.iter().rposition(|size| *size > 1)).map_or(rank, |i| i + rank - shape.len());
    match gain.len() {
        1 => gain = vec![gain[0]; channels],
        n if n == channels && at == if image { 1 } else { rank - 1 } => {}
        _ => return None,
    }
    Some(Norm { mean: Vec::new(), gain, shift: Vec::new() })
}

/// A weight with each filter divided by a number of its own.
fn divided(weight: &Tensor, by: &[f64]) -> Option<Tensor> {
    let x = weight.to_f64().ok()?;
    let each = x.len() / weight.shape()[0].max(1);
    if by.len() < weight.shape()[0] || by.contains(&0.0) {
        return None;
    }
    let divided: Vec<f64> = x.iter().enumerate().map(|(i, x)| x / by[i / each.max(1)]).collect();
    Tensor::from_vec(weight.shape(), divided).ok()
}

/// Whether each filter is the other side's but for a factor.
fn in_line(x: &Tensor, y: &Tensor) -> Option<bool> {
    let each = y.len() / y.shape()[0].max(1);
    let (x, y) = (x.to_f64().ok()?, y.to_f64().ok()?);
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    Some(x.chunks(each.max(1)).zip(y.chunks(each.max(1))).all(|(x, y)| {
        let (own, theirs) = (dot(x, x), dot(y, y));
        dot(x, y).powi(2) >= (1.0 - 1e-8) * own * theirs && (own > 0.0) == (theirs > 0.0)
    }))
}

/// Whether `x` is `y` times a number.
fn of_one_factor(x: &Tensor, y: &Tensor) -> bool {
    let (Ok(x), Ok(y)) = (x.to_f64(), y.to_f64()) else { return false };
    let (xy, yy) = x.iter().zip(y.iter()).fold((0.0, 0.0), |(p, q), (x, y)| (p + x * y, q + y * y));
    let largest = x.iter().fold(0f64, |m, v| m.max(v.abs()));
    x.iter().zip(y.iter()).all(|(x, y)| (x - xy / yy * y).abs() <= 1e-5 * largest)
}

/// Whether `x` is `y` with what lies along an axis in another order.
fn moved(x: &Tensor, y: &Tensor, axis: usize) -> bool {
    let size = y.shape()[axis];
    let part = |t: &Tensor, i: usize| t.slice(axis, i, 1).ok();
    let mut left: Vec<usize> = (0..size).collect();
    // More would take longer than an answer is worth.
    size > 1
        && size <= 512
        && (0..size).all(|i| {
            let Some(own) = part(x, i) else { return false };
            let at = left.iter().position(|&j| part(y, j).is_some_and(|t| turned::near(&own, &t)));
            at.is_some_and(|at| {
                left.remove(at);
                true
            })
        })
}
