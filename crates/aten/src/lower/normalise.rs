//! Normalisations and softmax.

use isotrace_graph::Attribute;
use isotrace_tensor::DType;

use super::movement::reshaped;
use super::norm_backward::{batch_training, inverse_root};
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_fused_rms_norm", rms_norm),
    ("_log_softmax", |c| softmax(c, "LogSoftmax")),
    ("_native_batch_norm_legit", batch_norm),
    ("_native_batch_norm_legit_functional", batch_norm),
    ("_native_batch_norm_legit_no_training", batch_norm),
    ("_safe_softmax", |c| softmax(c, "Softmax")),
    ("_softmax", |c| softmax(c, "Softmax")),
    ("_weight_norm_interface", weight_norm),
    ("cudnn_batch_norm", batch_norm),
    ("native_batch_norm", batch_norm),
    ("native_group_norm", group_norm),
    ("native_layer_norm", layer_norm),
];

/// A direction times a length: g v / |v|, the norm over all axes but one.
fn weight_norm(c: &mut Call<'_>) -> Results {
    let rank = c.rank(0)?;
    let kept = c.axis("dim", rank).unwrap_or(0);
    let (v, g) = (c.wide(0)?, c.wide(1)?);
    let axes: Vec<i64> = (0..rank).filter(|&a| a != kept).collect();
    let norm = c.over("ReduceL2", v, &axes, true);
    let factor = c.div(g, norm);
    let y = c.mul(v, factor);
    Some(vec![Some(c.as_result(y, 0)?), Some(c.as_result(norm, 1)?)])
}

fn softmax(c: &mut Call<'_>, op: &str) -> Results {
    let dtype = c.result(0)?.0;
    let axis = c.axis("dim", c.rank(0)?)?;
    let x = c.input_as(0, dtype)?;
    one(c.op(op, &[x], &[("axis", Attribute::Int(axis))]))
}

fn axis_of(c: &Call<'_>) -> Option<(i64, Vec<usize>)> {
    let shape = c.shape(0)?;
    let over = c.ints("normalized_shape")?.len();
    let axis = shape.len().checked_sub(over)?;
    Some((axis as i64, shape[axis..].to_vec()))
}

/// Mean and inverse deviation are the second and third output of both.
fn layer_norm(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    let (axis, over) = axis_of(c)?;
    let dtype = c.dtype(0)?;
    let gain = match c.input(1) {
        Some(gain) => gain,
        None => c.filled(1.0, &over, dtype)?,
    };
    let settings = [
        ("axis", Attribute::Int(axis)),
        ("epsilon", Attribute::Float(c.number("eps").unwrap_or(1e-5) as f32)),
    ];
    let inputs = [Some(x), Some(gain), c.input(2)];
    let count = if inputs[2].is_some() { 3 } else { 2 };
    let made = c.several("LayerNormalization", &inputs[..count], &[dtype, DType::F32, DType::F32], &settings);
    Some(made.into_iter().map(Some).collect())
}

fn rms_norm(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    let (axis, over) = axis_of(c)?;
    let dtype = c.dtype(0)?;
    let gain = match c.input(1) {
        Some(gain) => gain,
        None => c.filled(1.0, &over, dtype)?,
    };
    let epsilon = c.number("eps").or_else(|| Some(2.0 * dtype.unit_roundoff()?))?;
    let settings = [("axis", Attribute::Int(axis)), ("epsilon", Attribute::Float(epsilon as f32))];
    let y = c.op("RMSNormalization", &[x, gain], &settings);
    let r = if c.result(1).is_some() { Some(inverse_root(c, epsilon)?) } else { None };
    Some(vec![Some(y), r])
}

/// With the running statistics, or in training those of the batch.
fn batch_norm(c: &mut Call<'_>) -> Results {
    if c.flag("training") || c.flag("train") || c.operator().contains("functional") {
        return batch_training(c);
    }
    let (x, mean, variance) = (c.input(0)?, c.input(3)?, c.input(4)?);
    let channels = [*c.shape(0)?.get(1)?];
    let dtype = c.dtype(3)?;
    let gain = match c.input(1) {
        Some(gain) => gain,
        None => c.filled(1.0, &channels, dtype)?,
    };
    let shift = match c.input(2) {
        Some(shift) => shift,
        None => c.filled(0.0, &channels, dtype)?,
    };
    let epsilon = c.number("eps").or_else(|| c.number("epsilon")).unwrap_or(1e-5) as f32;
    one(c.op(
        "BatchNormalization",
        &[x, gain, shift, mean, variance],
        &[("epsilon", Attribute::Float(epsilon))],
    ))
}

fn group_norm(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    let channels = usize::try_from(c.int("C")?).ok()?;
    let dtype = c.dtype(0)?;
    let gain = match c.input(1) {
        Some(gain) => gain,
        None => c.filled(1.0, &[channels], dtype)?,
    };
    let shift = match c.input(2) {
        Some(shift) => shift,
        None => c.filled(0.0, &[channels], dtype)?,
    };
    let settings = [
        ("num_groups", Attribute::Int(c.int("group")?)),
        ("epsilon", Attribute::Float(c.number("eps").unwrap_or(1e-5) as f32)),
    ];
    let y = c.op("GroupNormalization", &[x, gain, shift], &settings);
    let shape = c.shape(0)?.to_vec();
    one(if shape.len() < 3 { reshaped(c, y, &shape) } else { y })
}
