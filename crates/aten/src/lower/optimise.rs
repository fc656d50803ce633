//! Steps of optimisers: `_foreach_*`, which do to each tensor of a list what the plain operator does to one, and the
//! fused steps of SGD and Adam, which are one call for a whole step.
//!
//! Fused formulas are those of ATen's `FusedAdamKernel.cpp` and `FusedSGDKernel.cpp`. What counts the steps is read from
//! the recording, for its power is a number and not a tensor.

use isotrace_graph::ValueId;

use super::{Results, Rule, rule_of};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] =
    &[("_fused_adam", |c| adam(c, false)), ("_fused_adamw", |c| adam(c, true)), ("_fused_sgd", sgd)];

/// What the plain operator calls the number that `_foreach_*` calls `scalar`.
fn setting(operator: &str) -> &'static str {
    match operator {
        "addcdiv" | "addcmul" => "value",
        "lerp" => "weight",
        "pow" => "exponent",
        "clamp_max" => "max",
        "clamp_min" => "min",
        "norm" => "ord",
        _ => "other",
    }
}

/// `_foreach_<operator>`: inputs are lists of equal length, one after the other, perhaps with one tensor for all.
pub fn each(c: &mut Call<'_>, operator: &str) -> Results {
    let rule = rule_of(if operator == "norm" { "linalg_vector_norm" } else { operator })?;
    let count = c.results();
    if count == 0 {
        return None;
    }
    let name = setting(operator);
    let lists = c.arity() / count;
    // The lists' length is the number of outputs; what is left over is one tensor for all of them.
    let shared = match (c.arity() % count, c.overload()) {
        (0, "Tensor") if lists == 2 && count == 1 => None,
        (0, "List" | "Scalar" | "ScalarList" | "" | "default") => None,
        (1, "Tensor") if lists == 1 => Some(count),
        _ => return None,
    };
    let numbers = ["scalars", name].into_iter().find_map(|n| c.numbers(n));
    let number = ["scalar", name].into_iter().find_map(|n| c.number(n));
    let mut out = Vec::new();
    for i in 0..count {
        let inputs: Vec<usize> = (0..lists).map(|l| l * count + i).chain(shared).collect();
        let instead = match &numbers {
            Some(list) => Some((name, *list.get(i)?)),
            None => number.map(|x| (name, x)),
        };
        let made = c.narrowed(&inputs, i, instead, rule)?;
        out.push(made.first().copied().flatten());
    }
    Some(out)
}

/// Tensor `i` of list `l`, where lists have `count` tensors.
fn member(c: &mut Call<'_>, l: usize, i: usize, count: usize) -> Option<ValueId> {
    c.wide(l * count + i)
}

/// How many tensors each of the `lists` lists has that a call writes.
fn length(c: &Call<'_>, lists: usize) -> Option<usize> {
    let count = c.results() / lists;
    (count > 0 && c.results() == count * lists && c.arity() >= count * lists).then_some(count)
}

/// Outputs by list and place in the type of what was written.
fn gathered(c: &mut Call<'_>, lists: &[Vec<ValueId>]) -> Results {
    let mut out = Vec::new();
    for v in lists.iter().flatten() {
        out.push(Some(c.as_result(*v, out.len())?));
    }
    Some(out)
}

/// With m and v the moving averages of gradients and of their squares: p - lr/(1 - b1^t) m / (sqrt(v)/sqrt(1 - b2^t) +
/// eps). Lists: parameters, gradients, m, v, with `amsgrad` the largest v, then the counts of steps.
fn adam(c: &mut Call<'_>, decoupled: bool) -> Results {
    let amsgrad = c.flag("amsgrad");
    let number = |name| c.number(name);
    let (rate, b1, b2) = (number("lr")?, number("beta1")?, number("beta2")?);
    let (decay, epsilon) = (number("weight_decay")?, number("eps")?);
    let width = if amsgrad { 5 } else { 4 };
    let count = length(c, width)?;
    // Scaled gradients and steps that may be left out are tensors after the counts.
    if (count * (width + 1)..c.arity()).any(|at| c.input(at).is_some()) {
        return None;
    }
    let mut out = vec![Vec::new(); width];
    for i in 0..count {
        let (mut p, given) = (member(c, 0, i, count)?, member(c, 1, i, count)?);
        let (m, v) = (member(c, 2, i, count)?, member(c, 3, i, count)?);
        let step = *c.elements(width * count + i)?.to_f64().ok()?.first()?;
        let mut g = if c.flag("maximize") { c.op("Neg", &[given], &[]) } else { given };
        if decay != 0.0 {
            let pull = c.times(p, if decoupled { rate * decay } else { decay })?;
            if decoupled {
                p = c.sub(p, pull);
            } else {
                g = c.add(g, pull);
            }
        }
        let (old, new) = (c.times(m, b1)?, c.times(g, 1.0 - b1)?);
        let m = c.add(old, new);
        let square = c.mul(g, g);
        let (old, new) = (c.times(v, b2)?, c.times(square, 1.0 - b2)?);
        let v = c.add(old, new);
        let mut bound = v;
        if amsgrad {
            let largest = member(c, 4, i, count)?;
            bound = c.op("Max", &[largest, v], &[]);
            out[4].push(bound);
        }
        let root = c.op("Sqrt", &[bound], &[]);
        let correction = c.number_like((1.0 - b2.powf(step)).sqrt(), root)?;
        let root = c.div(root, correction);
        let below = c.plus(root, epsilon)?;
        let above = c.times(m, rate / (1.0 - b1.powf(step)))?;
        let change = c.div(above, below);
        let p = c.sub(p, change);
        for (list, value) in out.iter_mut().zip([p, given, m, v]) {
            list.push(value);
        }
    }
    gathered(c, &out)
}

/// Lists: parameters, gradients, with momentum the buffers.
fn sgd(c: &mut Call<'_>) -> Results {
    let number = |name| c.number(name).unwrap_or(0.0);
    let (rate, decay) = (c.number("lr")?, number("weight_decay"));
    let (momentum, dampening) = (number("momentum"), number("dampening"));
    let width = if momentum == 0.0 { 2 } else { 3 };
    let count = length(c, width)?;
    if (count * width..c.arity()).any(|at| c.input(at).is_some()) {
        return None;
    }
    let mut out = vec![Vec::new(); width];
    for i in 0..count {
        let (p, given) = (member(c, 0, i, count)?, member(c, 1, i, count)?);
        let mut g = if c.flag("maximize") { c.op("Neg", &[given], &[]) } else { given };
        if decay != 0.0 {
            let pull = c.times(p, decay)?;
            g = c.add(g, pull);
        }
        if momentum != 0.0 {
            let buffer = if c.flag("is_first_step") {
                g
            } else {
                let old = member(c, 2, i, count)?;
                let (old, new) = (c.times(old, momentum)?, c.times(g, 1.0 - dampening)?);
                c.add(old, new)
            };
            out[2].push(buffer);
            g = if c.flag("nesterov") {
                let ahead = c.times(buffer, momentum)?;
                c.add(g, ahead)
            } else {
                buffer
            };
        }
        let change = c.times(g, rate)?;
        let p = c.sub(p, change);
        out[0].push(p);
        out[1].push(given);
    }
    gathered(c, &out)
}
