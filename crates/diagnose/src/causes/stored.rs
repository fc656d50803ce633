//! How a stored weight differs from A's, where that says more than that it does: by one factor, by a norm multiplied in
//! twice, as what is left of a share, as another weight once a norm is folded into one of the two.

use isotrace_align::{Region, Side};
use isotrace_graph::{Attribute, NodeId, ValueId};
use isotrace_tensor::Tensor;

use super::numbers::{by_channel, factors_along, same_multiset};
use super::order::bias_after;
use crate::pool;
use crate::role;
use crate::site::Site;

/// The cause and how B's constant `own`, which `n` reads, differs from A's `right`, whose value is `theirs`. `general`
/// is what its being wrong is called.
pub fn told(
    site: &Site<'_, '_, '_>,
    n: NodeId,
    (own, right): (&Tensor, &Tensor),
    theirs: ValueId,
    general: &'static str,
) -> Option<(&'static str, String)> {
    let name = &site.judge.a.graph().value(theirs).name;
    let of = |v: &Tensor| v.to_f64().ok().map(std::borrow::Cow::into_owned);
    let (x, y) = (of(own)?, of(right)?);
    if x.len() != y.len() || x.len() < FEW || y.iter().all(|v| *v == y[0]) {
        return None;
    }
    let largest = y.iter().fold(0f64, |m, v| m.max(v.abs()));
    let near = |x: f64, y: f64| (x - y).abs() <= 1e-6 * y.abs().max(1e-3 * largest);
    // A grid of places from nought to one is its own rest, the other way round.
    if is_rest(&x, &y) && !same_multiset(own, right) {
        return Some(("gate_order", format!("which is 1 less A's {name:?}: the share of the other part")));
    }
    if !matches!(general, "weight_value" | "bias") {
        return None;
    }
    let at = (0..y.len()).max_by(|&i, &j| y[i].abs().total_cmp(&y[j].abs()))?;
    let factor = x[at] / y[at];
    let one = (factor - 1.0).abs() > 1e-4 && factor.is_finite() && factor != 0.0;
    if one
        && x.iter().zip(&y).all(|(x, y)| near(*x, factor * y))
        && (general == "weight_value" || factor > 0.0 && weight_too(site, n, theirs, factor))
    {
        return Some(("scale", format!("which is {factor:.6} times A's {name:?}")));
    }
    if general != "weight_value" {
        return None;
    }
    let node = site.node_b(n);
    if node.op.starts_with("Gather") && right.rank() >= 3 && rows_moved(&x, &y, right.shape()[0]) {
        return Some(("weight_layout", format!("which holds the matrices of A's {name:?} in another order")));
    }
    if let Some(axis) = factors_along(own, right) {
        let alone = axis == outputs(site, n) && keeps_its_bias(site, n);
        return (norm_is_there(site, n) || alone).then(|| {
            let how = "as no norm that was folded in leaves it";
            ("weight_value", format!("which has a factor for each channel against A's {name:?}, {how}"))
        });
    }
    let other = of_another(site, own, theirs)?;
    let other = &site.judge.a.graph().value(other).name;
    Some((
        "weight_swap",
        format!("which is A's {other:?} but for a factor for each channel; A reads {name:?} here"),
    ))
}

/// Whether the outputs of B's product are A's with some left out and the others made larger in return, weights and biases
/// alike, as dropout that was left on and folded in leaves them.
pub fn drops(site: &Site<'_, '_, '_>, n: NodeId, m: NodeId) -> bool {
    let weight = site.node_b(n).inputs.get(1).copied().flatten().and_then(|v| site.judge.b.shadow.get(v));
    let Some(&channels) = weight.and_then(|t| t.shape().first()) else { return false };
    if !site.node_b(n).op.ends_with("Conv") || outputs(site, n) != 0 || channels == 0 {
        return false;
    }
    let mut factors: Vec<f64> = vec![f64::NAN; channels];
    for slot in 1..3 {
        let read = |side: &Side<'_>, node: &isotrace_graph::Node| {
            let v = node.inputs.get(slot).copied().flatten().filter(|&v| side.is_constant(v))?;
            side.shadow.get(v)?.to_f64().ok().map(std::borrow::Cow::into_owned)
        };
        let (Some(x), Some(y)) = (read(site.judge.b, site.node_b(n)), read(site.judge.a, site.node_a(m)))
        else {
            return false;
        };
        if x.len() != y.len() || !x.len().is_multiple_of(channels) {
            return false;
        }
        let each = x.len() / channels;
        let largest = y.iter().fold(0f64, |m, v| m.max(v.abs()));
        for (i, (x, y)) in x.iter().zip(&y).enumerate().filter(|(_, (_, y))| y.abs() > 1e-3 * largest) {
            let factor = &mut factors[i / each];
            if factor.is_nan() {
                *factor = (x / y * 1e4).round() / 1e4;
            } else if (x / y - *factor).abs() > 1e-3 * factor.abs().max(1e-3) {
                return false;
            }
        }
    }
    Tensor::from_vec(&[channels], factors).is_ok_and(|t| role::drops(&t))
}

/// Whether numbers are what is left of shares, for each channel: a gate lets the one part through and keeps the other.
pub fn is_rest(x: &[f64], y: &[f64]) -> bool {
    x.len() == y.len()
        && x.len() >= FEW
        && y.iter().any(|v| *v != y[0] && *v != 0.0 && *v != 1.0)
        && x.iter().zip(y).all(|(x, y)| (x - (1.0 - y)).abs() <= 1e-6)
}

/// Elements below which numbers are alike by chance.
const FEW: usize = 8;

/// Nodes by which a weight is taken off its grid, joined or turned.
const NEAR: usize = 20;

/// Whether the parts of a table along its first axis are the same ones at other places.
fn rows_moved(x: &[f64], y: &[f64], rows: usize) -> bool {
    let width = y.len() / rows.max(1);
    let parts: Vec<&[f64]> = y.chunks(width.max(1)).collect();
    let mut left = parts.clone();
    x != y
        && x.chunks(width.max(1)).all(|row| {
            let at = left.iter().position(|part| *part == row);
            at.is_some_and(|at| {
                left.swap_remove(at);
                true
            })
        })
}

/// Whether the weight beside a bias is A's by the same factor.
fn weight_too(site: &Site<'_, '_, '_>, n: NodeId, bias: ValueId, factor: f64) -> bool {
    let (a, b) = (site.judge.a, site.judge.b);
    let weight = |side: &Side<'_>, n: NodeId| {
        let node = side.graph().node(n);
        let v = node.inputs.get(1).copied().flatten().filter(|&v| side.is_constant(v))?;
        role::is_product(&node.op)
            .then(|| side.shadow.get(v)?.to_f64().ok().map(std::borrow::Cow::into_owned))?
    };
    let Some(x) = weight(b, n) else { return false };
    let size = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    a.consumers[bias.index()]
        .iter()
        .filter_map(|&m| weight(a, m))
        .any(|y| x.len() == y.len() && (size(&x) - factor * size(&y)).abs() <= 1e-5 * size(&x))
}

/// The axis of the weight of a product along which its outputs lie.
fn outputs(site: &Site<'_, '_, '_>, n: NodeId) -> usize {
    let node = site.node_b(n);
    let turned = matches!(node.attributes.get("transB"), Some(Attribute::Int(1)));
    let first = node.inputs.first().copied().flatten().is_some_and(|v| site.judge.b.is_constant(v));
    match node.op.as_str() {
        "ConvTranspose" => 1,
        op if op.contains("Conv") => 0,
        _ => usize::from(!turned && !first),
    }
}

/// Whether a product has A's own bias, or none: a norm behind it that was folded in would have left one of its own.
fn keeps_its_bias(site: &Site<'_, '_, '_>, n: NodeId) -> bool {
    let b = site.judge.b;
    let added = |sum: NodeId| {
        let inputs = site.node_b(sum).inputs.iter().flatten().copied();
        inputs.into_iter().find(|&v| b.is_constant(v))
    };
    let bias =
        site.node_b(n).inputs.get(2).copied().flatten().or_else(|| bias_after(site, n).and_then(added));
    // One number for all channels is no bias.
    let several = |v: &ValueId| b.declared.get(*v).is_some_and(|t| t.len() > 1);
    let Some(bias) = bias.filter(several) else { return true };
    let Some(own) = b.shadow.get(bias).and_then(|t| t.to_f64().ok()) else { return false };
    let largest = own.iter().fold(0f64, |m, v| m.max(v.abs()));
    let same = |v: ValueId| {
        let theirs = site.judge.a.shadow.get(v).and_then(|t| t.to_f64().ok());
        theirs.is_some_and(|x| {
            x.len() == own.len() && x.iter().zip(own.iter()).all(|(x, y)| (x - y).abs() <= 1e-6 * largest)
        })
    };
    site.partner(bias).is_some_and(same) || pool::constants(site).into_iter().any(|(v, ..)| same(v))
}

/// Whether a norm reads what a product of B writes: a factor for each channel is then none that was folded in.
fn norm_is_there(site: &Site<'_, '_, '_>, n: NodeId) -> bool {
    let b = site.judge.b;
    let mut at = vec![n];
    for _ in 0..2 {
        let written = at.iter().flat_map(|&n| b.graph().node(n).writes());
        let readers: Vec<NodeId> = written.flat_map(|v| b.consumers[v.index()].iter().copied()).collect();
        if readers.iter().any(|&r| role::is_normalisation(&b.graph().node(r).op)) {
            return true;
        }
        at = readers.into_iter().filter(|&r| role::is_layout(&b.graph().node(r).op)).collect();
    }
    false
}

/// Another weight of A of which `own` is what folding a norm leaves.
fn of_another(site: &Site<'_, '_, '_>, own: &Tensor, theirs: ValueId) -> Option<ValueId> {
    let a = site.judge.a;
    // What a weight is unpacked from is no other weight.
    let made_of = Region::behind(a, &[theirs], |_| false, NEAR);
    let other = |v: &ValueId| *v != theirs && a.is_constant(*v) && !made_of.constants.contains(v);
    a.graph().value_ids().filter(other).find(|&v| {
        let shape = a.declared.get(v).is_some_and(|t| t.rank() >= 2 && t.shape() == own.shape());
        shape && a.shadow.get(v).is_some_and(|t| by_channel(own, t) || pool::same_numbers(own, t))
    })
}
