//! Reductions, and what finds places along an axis.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::DType;

use super::movement::reshaped;
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("all", |c| truth(c, "ReduceMin")),
    ("amax", |c| reduce(c, "ReduceMax")),
    ("amin", |c| reduce(c, "ReduceMin")),
    ("any", |c| truth(c, "ReduceMax")),
    ("argmax", |c| place(c, "ArgMax")),
    ("argmin", |c| place(c, "ArgMin")),
    ("cumsum", cumulative),
    ("logsumexp", |c| reduce(c, "ReduceLogSumExp")),
    ("max", |c| extreme(c, "ReduceMax", "ArgMax")),
    ("mean", |c| reduce(c, "ReduceMean")),
    ("min", |c| extreme(c, "ReduceMin", "ArgMin")),
    ("prod", |c| reduce(c, "ReduceProd")),
    ("sum", |c| reduce(c, "ReduceSum")),
];

/// Over the axes of `dim`, all where there are none.
fn reduced(c: &mut Call<'_>, x: ValueId, op: &str) -> ValueId {
    let axes = c.ints("dim").filter(|a| !a.is_empty()).map(|a| c.integers(a));
    let settings = [("keepdims", Attribute::Int(i64::from(c.flag("keepdim"))))];
    let dtype = c.type_of(x).unwrap_or(DType::F32);
    match axes {
        Some(axes) => c.typed(dtype, op, &[Some(x), Some(axes)], &settings),
        None => c.typed(dtype, op, &[Some(x)], &settings),
    }
}

fn reduce(c: &mut Call<'_>, op: &str) -> Results {
    let (dtype, shape) = c.result(0)?;
    let x = c.input_as(0, dtype)?;
    // ATen reduces a scalar over its axis 0; ONNX has no such axis.
    if c.rank(0)? == 0 {
        return one(reshaped(c, x, &shape));
    }
    one(reduced(c, x, op))
}

fn truth(c: &mut Call<'_>, op: &str) -> Results {
    let x = c.input_as(0, DType::Bool)?;
    let x = c.cast(x, DType::I32)?;
    let y = if c.rank(0)? == 0 { x } else { reduced(c, x, op) };
    one(c.cast(y, DType::Bool)?)
}

/// Greatest or least elements along one axis, with their places; of two tensors; of all elements.
fn extreme(c: &mut Call<'_>, op: &str, places: &str) -> Results {
    if c.arity() > 1 {
        return None;
    }
    let values = reduce(c, op)?;
    if c.int("dim").is_none() {
        return Some(values);
    }
    Some(vec![values[0], place(c, places)?[0]])
}

fn place(c: &mut Call<'_>, op: &str) -> Results {
    let x = c.input(0)?;
    let Some(axis) = c.axis("dim", c.rank(0)?) else {
        let flat = reshaped(c, x, &[c.shape(0)?.iter().product()]);
        return one(c.typed(DType::I64, op, &[Some(flat)], &[("keepdims", Attribute::Int(0))]));
    };
    let settings =
        [("axis", Attribute::Int(axis)), ("keepdims", Attribute::Int(i64::from(c.flag("keepdim"))))];
    one(c.typed(DType::I64, op, &[Some(x)], &settings))
}

fn cumulative(c: &mut Call<'_>) -> Results {
    let dtype = c.result(0)?.0;
    let axis = c.axis("dim", c.rank(0)?)?;
    let x = c.input_as(0, dtype)?;
    let axis = c.scalar(axis as f64, DType::I64)?;
    one(c.op("CumSum", &[x, axis], &[]))
}
