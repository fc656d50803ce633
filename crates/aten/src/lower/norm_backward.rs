//! Normalisations in training: by the statistics of the batch, and the backward formulas of all of them.
//!
//! Over the axes A that share a mean m and an inverse deviation r, with h = (x - m) r and p = g gain:
//! dx = r (p - mean_A(p) - h mean_A(p h)), and the gain's gradient is the sum of g h over the axes that share a gain.

use isotrace_graph::ValueId;
use isotrace_tensor::DType;

use super::movement::reshaped;
use super::{Results, Rule};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_fused_rms_norm_backward", |c| layer(c, false)),
    ("native_batch_norm_backward", batch_backward),
    ("native_group_norm_backward", group),
    ("native_layer_norm_backward", |c| layer(c, true)),
];

/// What a formula reads.
struct Norm {
    /// Gradient times gain.
    p: ValueId,
    /// The input, centred and scaled.
    h: ValueId,
    r: ValueId,
    axes: Vec<i64>,
    /// Whether a mean was taken off.
    centred: bool,
}

impl Norm {
    fn of_input(self, c: &mut Call<'_>) -> ValueId {
        let product = c.mul(self.p, self.h);
        let share = c.over("ReduceMean", product, &self.axes, true);
        let part = c.mul(self.h, share);
        let mut rest = self.p;
        if self.centred {
            let mean = c.over("ReduceMean", self.p, &self.axes, true);
            rest = c.sub(rest, mean);
        }
        let rest = c.sub(rest, part);
        c.mul(self.r, rest)
    }
}

/// Those of the three gradients that the call asks for; `split` where their axes are still those of groups.
///
/// A gradient that has its shape is handed on as it is: what a further node made of it would be another value, and the
/// one that the other side has a counterpart of.
fn three(c: &mut Call<'_>, gradients: [Option<ValueId>; 3], split: bool) -> Results {
    let mut out = Vec::new();
    for (at, v) in gradients.into_iter().enumerate() {
        let wanted = c.asked(at) && c.result(at).is_some();
        out.push(match v.filter(|_| wanted) {
            Some(v) => {
                let (_, shape) = c.result(at)?;
                let v = if split { reshaped(c, v, &shape) } else { v };
                Some(c.as_result(v, at)?)
            }
            None => None,
        });
    }
    Some(out)
}

/// Over the last axes; without a mean the root of the mean square.
fn layer(c: &mut Call<'_>, centred: bool) -> Results {
    let (g, x) = (c.wide(0)?, c.wide(1)?);
    let shape = c.shape(1)?;
    let first = shape.len().checked_sub(c.ints("normalized_shape")?.len())? as i64;
    let (lead, axes): (Vec<i64>, Vec<i64>) = (0..shape.len() as i64).partition(|&a| a < first);
    let (r, gain) = if centred { (c.wide(3)?, 4) } else { (c.wide(2)?, 3) };
    let h = if centred {
        let mean = c.wide(2)?;
        let centre = c.sub(x, mean);
        c.mul(centre, r)
    } else {
        c.mul(x, r)
    };
    let p = match c.input(gain) {
        Some(_) => {
            let gain = c.wide(gain)?;
            c.mul(g, gain)
        }
        None => g,
    };
    let of_input = Norm { p, h, r, axes, centred }.of_input(c);
    let moved = c.mul(g, h);
    // Without axes before the last there is nothing to add up.
    let sum = |c: &mut Call<'_>, v| if lead.is_empty() { v } else { c.over("ReduceSum", v, &lead, false) };
    let (of_gain, of_shift) = (sum(c, moved), sum(c, g));
    three(c, [Some(of_input), Some(of_gain), Some(of_shift)], false)
}

/// Groups of channels: [N, C, ...] seen as [N, groups, C/groups, positions].
fn group(c: &mut Call<'_>) -> Results {
    let [n, channels, positions, groups] =
        ["N", "C", "HxW", "group"].map(|name| c.int(name).and_then(|i| usize::try_from(i).ok()));
    let (n, channels, positions, groups) = (n?, channels?, positions?, groups?);
    let each = channels.checked_div(groups)?;
    let split = [n, groups, each, positions];
    let (g, x) = (c.wide(0)?, c.wide(1)?);
    let (g, x) = (reshaped(c, g, &split), reshaped(c, x, &split));
    let (mean, r) = (c.wide(2)?, c.wide(3)?);
    let (mean, r) = (reshaped(c, mean, &[n, groups, 1, 1]), reshaped(c, r, &[n, groups, 1, 1]));
    let centre = c.sub(x, mean);
    let h = c.mul(centre, r);
    let p = match c.input(4) {
        Some(_) => {
            let gain = c.wide(4)?;
            let gain = reshaped(c, gain, &[1, groups, each, 1]);
            c.mul(g, gain)
        }
        None => g,
    };
    let of_input = Norm { p, h, r, axes: vec![2, 3], centred: true }.of_input(c);
    let moved = c.mul(g, h);
    let of_gain = c.over("ReduceSum", moved, &[0, 3], false);
    let of_shift = c.over("ReduceSum", g, &[0, 3], false);
    three(c, [Some(of_input), Some(of_gain), Some(of_shift)], true)
}

/// The axes besides that of the channels, and a channel's number seen beside all others.
fn channelled(c: &Call<'_>, at: usize) -> Option<(Vec<i64>, Vec<usize>)> {
    let shape = c.shape(at)?;
    let axes = (0..shape.len() as i64).filter(|&a| a != 1).collect();
    let mut single = vec![1; shape.len()];
    *single.get_mut(1)? = shape[1];
    Some((axes, single))
}

/// By the statistics of the batch. Outputs: y, the mean, the inverse deviation, then the running statistics as they
/// become, of which the variance is that of a sample.
pub fn batch_training(c: &mut Call<'_>) -> Results {
    let (axes, single) = channelled(c, 0)?;
    let shape = c.shape(0)?;
    let count = shape.iter().product::<usize>() as f64 / *shape.get(1)? as f64;
    let x = c.wide(0)?;
    let mean = c.over("ReduceMean", x, &axes, true);
    let centre = c.sub(x, mean);
    let square = c.mul(centre, centre);
    let variance = c.over("ReduceMean", square, &axes, true);
    let raised = c.plus(variance, c.number("eps").or_else(|| c.number("epsilon"))?)?;
    let power = c.number_like(-0.5, x)?;
    let r = c.op("Pow", &[raised, power], &[]);
    let mut y = c.mul(centre, r);
    if c.input(1).is_some() {
        let gain = c.wide(1)?;
        let gain = reshaped(c, gain, &single);
        y = c.mul(y, gain);
    }
    if c.input(2).is_some() {
        let shift = c.wide(2)?;
        let shift = reshaped(c, shift, &single);
        y = c.add(y, shift);
    }
    let unbiased = c.times(variance, count / (count - 1.0))?;
    let momentum = c.number("momentum").unwrap_or(0.1);
    let mut out = vec![Some(c.as_result(y, 0)?)];
    for (at, v) in [(1, mean), (2, r)] {
        let flat = reshaped(c, v, &[single[1]]);
        out.push(match c.result(at) {
            Some((_, shape)) if shape == [single[1]] => Some(c.as_result(flat, at)?),
            _ => None,
        });
    }
    for (at, running, new) in [(3, 3, mean), (4, 4, unbiased)] {
        if c.result(at).is_none() || c.input(running).is_none() {
            break;
        }
        let old = c.input_as(running, c.type_of(new)?)?;
        let old = c.times(old, 1.0 - momentum)?;
        let new = reshaped(c, new, &[single[1]]);
        let new = c.times(new, momentum)?;
        let sum = c.add(old, new);
        out.push(Some(c.as_result(sum, at)?));
    }
    Some(out)
}

/// Inputs: g, x, gain, running mean and variance, mean and inverse deviation of the batch.
fn batch_backward(c: &mut Call<'_>) -> Results {
    let (axes, single) = channelled(c, 1)?;
    let (g, x) = (c.wide(0)?, c.wide(1)?);
    let training = c.flag("train");
    let (mean, r) = if training {
        (c.wide(5)?, c.wide(6)?)
    } else {
        let variance = c.wide(4)?;
        let raised = c.plus(variance, c.number("eps")?)?;
        let power = c.number_like(-0.5, raised)?;
        (c.wide(3)?, c.op("Pow", &[raised, power], &[]))
    };
    let (mean, r) = (reshaped(c, mean, &single), reshaped(c, r, &single));
    let centre = c.sub(x, mean);
    let h = c.mul(centre, r);
    let p = match c.input(2) {
        Some(_) => {
            let gain = c.wide(2)?;
            let gain = reshaped(c, gain, &single);
            c.mul(g, gain)
        }
        None => g,
    };
    let of_input =
        if training { Norm { p, h, r, axes: axes.clone(), centred: true }.of_input(c) } else { c.mul(p, r) };
    let moved = c.mul(g, h);
    let of_gain = c.over("ReduceSum", moved, &axes, false);
    let of_shift = c.over("ReduceSum", g, &axes, false);
    three(c, [Some(of_input), Some(of_gain), Some(of_shift)], false)
}

/// The inverse root of the mean square over the last axes, which the fused normalisation gives besides.
pub fn inverse_root(c: &mut Call<'_>, epsilon: f64) -> Option<ValueId> {
    let x = c.wide(0)?;
    let rank = c.rank(0)?;
    let over = c.ints("normalized_shape")?.len() as i64;
    let square = c.mul(x, x);
    let mean = c.over("ReduceMean", square, &(rank - over..rank).collect::<Vec<_>>(), true);
    let raised = c.plus(mean, epsilon)?;
    let power = c.number_like(-0.5, raised)?;
    let r = c.op("Pow", &[raised, power], &[]);
    let r = if c.type_of(r) == Some(DType::F64) { r } else { c.cast(r, DType::F32)? };
    c.as_result(r, 1)
}
