//! Losses and their backward formulas. `reduction` is 0 for none, 1 for the mean, 2 for the sum.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::DType;

use super::backward::finish;
use super::movement::{reshaped, sizes};
use super::{Results, Rule};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("binary_cross_entropy", entropy),
    ("binary_cross_entropy_backward", entropy_backward),
    ("binary_cross_entropy_with_logits", entropy_of_logits),
    ("huber_loss", |c| huber(c, "delta")),
    ("huber_loss_backward", |c| huber_backward(c, "delta")),
    ("mse_loss", squares),
    ("mse_loss_backward", squares_backward),
    ("nll_loss2d_backward", likelihood_backward),
    ("nll_loss2d_forward", likelihood),
    ("nll_loss_backward", likelihood_backward),
    ("nll_loss_forward", likelihood),
    ("smooth_l1_loss", |c| huber(c, "beta")),
    ("smooth_l1_loss_backward", |c| huber_backward(c, "beta")),
    ("xlogy", |c| {
        let (x, y) = (c.wide(0)?, c.wide(1)?);
        let log = c.op("Log", &[y], &[]);
        let product = c.mul(x, log);
        let zero = c.number_like(0.0, x)?;
        finish(c, |c| c.choose("Equal", x, 0.0, zero, product))
    }),
];

/// The loss of each element, reduced as the call says.
fn reduced(c: &mut Call<'_>, each: ValueId) -> Results {
    finish(c, |c| {
        Some(match c.int("reduction").unwrap_or(1) {
            0 => each,
            1 => c.over("ReduceMean", each, &[], false),
            _ => c.over("ReduceSum", each, &[], false),
        })
    })
}

/// g, divided by the number of elements of input `at` where the loss is their mean.
fn shared(c: &mut Call<'_>, at: usize) -> Option<ValueId> {
    let g = c.wide(0)?;
    if c.int("reduction").unwrap_or(1) != 1 {
        return Some(g);
    }
    let count = c.shape(at)?.iter().product::<usize>() as f64;
    let count = c.number_like(count, g)?;
    Some(c.div(g, count))
}

fn squares(c: &mut Call<'_>) -> Results {
    let (x, y) = (c.wide(0)?, c.wide(1)?);
    let difference = c.sub(x, y);
    let each = c.mul(difference, difference);
    reduced(c, each)
}

/// 2 g (x - y).
fn squares_backward(c: &mut Call<'_>) -> Results {
    let g = shared(c, 1)?;
    let (x, y) = (c.wide(1)?, c.wide(2)?);
    let difference = c.sub(x, y);
    let slope = c.times(difference, 2.0)?;
    finish(c, |c| Some(c.mul(slope, g)))
}

/// Squares up to the limit, lines beyond; `smooth_l1_loss` is divided by the limit.
fn huber(c: &mut Call<'_>, limit: &str) -> Results {
    let (x, y) = (c.wide(0)?, c.wide(1)?);
    let (limit, smooth) = (c.number(limit).unwrap_or(1.0), limit == "beta");
    let difference = c.sub(x, y);
    let z = c.op("Abs", &[difference], &[]);
    if smooth && limit == 0.0 {
        return reduced(c, z);
    }
    let square = c.mul(z, z);
    let square = c.times(square, if smooth { 0.5 / limit } else { 0.5 })?;
    let line = c.plus(z, -0.5 * limit)?;
    let line = if smooth { line } else { c.times(line, limit)? };
    let each = c.choose("Less", z, limit, square, line)?;
    reduced(c, each)
}

fn huber_backward(c: &mut Call<'_>, limit: &str) -> Results {
    let g = shared(c, 1)?;
    let (x, y) = (c.wide(1)?, c.wide(2)?);
    let (limit, smooth) = (c.number(limit).unwrap_or(1.0), limit == "beta");
    let difference = c.sub(x, y);
    if smooth && limit == 0.0 {
        let sign = c.op("Sign", &[difference], &[]);
        return finish(c, |c| Some(c.mul(sign, g)));
    }
    let (low, high) = (c.number_like(-limit, x)?, c.number_like(limit, x)?);
    let slope = c.typed(c.type_of(x)?, "Clip", &[Some(difference), Some(low), Some(high)], &[]);
    let slope = if smooth { c.times(slope, 1.0 / limit)? } else { slope };
    finish(c, |c| Some(c.mul(slope, g)))
}

/// -w (t log x + (1 - t) log(1 - x)), logarithms held at -100.
fn entropy(c: &mut Call<'_>) -> Results {
    let (x, t) = (c.wide(0)?, c.wide(1)?);
    let floor = c.number_like(-100.0, x)?;
    let log = |c: &mut Call<'_>, v| {
        let log = c.op("Log", &[v], &[]);
        c.op("Max", &[log, floor], &[])
    };
    let (rest, left) = (c.from(1.0, x)?, c.plus(t, -1.0)?);
    let (hit, miss) = (log(c, x), log(c, rest));
    let (hit, miss) = (c.mul(t, hit), c.mul(left, miss));
    let each = c.sub(miss, hit);
    let each = weighted(c, each, 2)?;
    reduced(c, each)
}

/// g w (x - t) / max(x (1 - x), 1e-12).
fn entropy_backward(c: &mut Call<'_>) -> Results {
    let g = shared(c, 1)?;
    let (x, t) = (c.wide(1)?, c.wide(2)?);
    let rest = c.from(1.0, x)?;
    let spread = c.mul(rest, x);
    let least = c.number_like(1e-12, x)?;
    let spread = c.op("Max", &[spread, least], &[]);
    let difference = c.sub(x, t);
    let part = c.mul(g, difference);
    let part = weighted(c, part, 3)?;
    finish(c, |c| Some(c.div(part, spread)))
}

/// (1 - t) x + (1 + (p - 1) t) softplus(-x), weighted.
fn entropy_of_logits(c: &mut Call<'_>) -> Results {
    let (x, t) = (c.wide(0)?, c.wide(1)?);
    let turned = c.op("Neg", &[x], &[]);
    let mut soft = c.op("Softplus", &[turned], &[]);
    if c.input(3).is_some() {
        let p = c.wide(3)?;
        let p = c.plus(p, -1.0)?;
        let factor = c.mul(p, t);
        let factor = c.plus(factor, 1.0)?;
        soft = c.mul(factor, soft);
    }
    let rest = c.from(1.0, t)?;
    let line = c.mul(rest, x);
    let each = c.add(line, soft);
    let each = weighted(c, each, 2)?;
    reduced(c, each)
}

fn weighted(c: &mut Call<'_>, v: ValueId, at: usize) -> Option<ValueId> {
    if c.input(at).is_none() {
        return Some(v);
    }
    let weight = c.wide(at)?;
    Some(c.mul(v, weight))
}

/// What the negative log-likelihood reads of its targets: places along the axis of classes (with that axis), and the
/// weight of each (0 where it is ignored).
struct Targets {
    axis: i64,
    /// The targets' shape.
    shape: Vec<usize>,
    /// With the axis of classes, of size 1.
    single: Vec<usize>,
    places: ValueId,
    counted: ValueId,
    weights: ValueId,
}

impl Targets {
    /// `at` says which input holds the scores; targets and weights follow.
    fn new(c: &mut Call<'_>, at: usize) -> Option<Self> {
        let scores = c.shape(at)?.to_vec();
        let axis = usize::from(scores.len() > 1);
        let shape = c.shape(at + 1)?.to_vec();
        let mut single = scores;
        *single.get_mut(axis)? = 1;
        let targets = c.input_as(at + 1, DType::I64)?;
        let wide = if c.dtype(at)? == DType::F64 { DType::F64 } else { DType::F32 };
        let ignored = c.scalar(c.int("ignore_index").unwrap_or(-100) as f64, DType::I64)?;
        let ignored = c.typed(DType::Bool, "Equal", &[Some(targets), Some(ignored)], &[]);
        let counted = c.typed(DType::Bool, "Not", &[Some(ignored)], &[]);
        let none = c.scalar(0.0, DType::I64)?;
        let safe = c.pick(counted, targets, none);
        let weights = match c.input(at + 2) {
            Some(_) => {
                let table = c.wide(at + 2)?;
                let own = c.op("Gather", &[table, safe], &[("axis", Attribute::Int(0))]);
                let zero = c.scalar(0.0, wide)?;
                c.pick(counted, own, zero)
            }
            None => c.cast(counted, wide)?,
        };
        let places = reshaped(c, safe, &single);
        Some(Self { axis: axis as i64, shape, single, places, counted, weights })
    }
}

/// -w x at the target, over all targets; the mean divides by the sum of the weights, which is the second output.
fn likelihood(c: &mut Call<'_>) -> Results {
    let targets = Targets::new(c, 0)?;
    let x = c.wide(0)?;
    let picked = c.op("GatherElements", &[x, targets.places], &[("axis", Attribute::Int(targets.axis))]);
    let picked = reshaped(c, picked, &targets.shape);
    // The score of an ignored target may be infinite.
    let zero = c.number_like(0.0, picked)?;
    let picked = c.pick(targets.counted, picked, zero);
    let product = c.mul(picked, targets.weights);
    let each = c.op("Neg", &[product], &[]);
    let reduction = c.int("reduction").unwrap_or(1);
    if reduction == 0 {
        return finish(c, |_| Some(each));
    }
    let total = c.over("ReduceSum", targets.weights, &[], false);
    let sum = c.over("ReduceSum", each, &[], false);
    let loss = if reduction == 1 { c.div(sum, total) } else { sum };
    Some(vec![Some(c.as_result(loss, 0)?), Some(c.as_result(total, 1)?)])
}

/// -w g at the target, 0 elsewhere; of the mean, g divided by the sum of the weights.
fn likelihood_backward(c: &mut Call<'_>) -> Results {
    let targets = Targets::new(c, 1)?;
    let g = c.wide(0)?;
    let weights = c.op("Neg", &[targets.weights], &[]);
    let mut updates = c.mul(weights, g);
    if c.int("reduction").unwrap_or(1) == 1 {
        let total = c.wide(4)?;
        updates = c.div(updates, total);
    }
    let updates = reshaped(c, updates, &targets.single);
    let shape = c.shape(1)?.to_vec();
    let zero = c.number_like(0.0, updates)?;
    let shape = sizes(c, &shape);
    let zeros = c.op("Expand", &[zero, shape], &[]);
    let settings = [("axis", Attribute::Int(targets.axis))];
    finish(c, |c| Some(c.op("ScatterElements", &[zeros, targets.places, updates], &settings)))
}
