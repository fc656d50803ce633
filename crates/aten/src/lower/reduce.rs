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
    ("aminmax", |c| Some(vec![reduce(c, "ReduceMin")?[0], reduce(c, "ReduceMax")?[0]])),
    ("any", |c| truth(c, "ReduceMax")),
    ("argmax", |c| place(c, "ArgMax")),
    ("argmin", |c| place(c, "ArgMin")),
    ("cumprod", |c| cumulative(c, "CumProd")),
    ("cumsum", |c| cumulative(c, "CumSum")),
    ("logcumsumexp", |c| {
        let rank = c.rank(0)?;
        let axis = c.axis("dim", rank)?;
        let x = c.wide(0)?;
        // Of numbers that are no larger than 0, so that nothing overflows.
        let most = c.over("ReduceMax", x, &[axis], true);
        let below = c.sub(x, most);
        let powers = c.op("Exp", &[below], &[]);
        let axis = c.scalar(axis as f64, DType::I64)?;
        let sums = c.op("CumSum", &[powers, axis], &[]);
        let logs = c.op("Log", &[sums], &[]);
        let y = c.add(logs, most);
        one(c.as_result(y, 0)?)
    }),
    ("logsumexp", |c| reduce(c, "ReduceLogSumExp")),
    ("max", |c| extreme(c, "ReduceMax", "ArgMax")),
    ("mean", |c| reduce(c, "ReduceMean")),
    ("min", |c| extreme(c, "ReduceMin", "ArgMin")),
    ("prod", |c| reduce(c, "ReduceProd")),
    ("linalg_vector_norm", norm),
    ("norm", norm),
    ("std", |c| spread(c, true)),
    ("std_mean", |c| spread(c, true)),
    ("sum", |c| reduce(c, "ReduceSum")),
    ("var", |c| spread(c, false)),
    ("var_mean", |c| spread(c, false)),
];

/// Of order 1, 2 or infinity, over all elements or over axes.
fn norm(c: &mut Call<'_>) -> Results {
    let order = c.number("ord").or_else(|| c.number("p")).unwrap_or(2.0);
    let x = c.wide(0)?;
    let (x, op) = if order == 1.0 {
        (x, "ReduceL1")
    } else if order == 2.0 {
        (x, "ReduceL2")
    } else if order == f64::INFINITY {
        (c.op("Abs", &[x], &[]), "ReduceMax")
    } else {
        return None;
    };
    let v = reduced(c, x, op);
    one(c.as_result(v, 0)?)
}

/// The variance, or its root, divided by the count less a correction; with the mean where the call gives that too.
fn spread(c: &mut Call<'_>, root: bool) -> Results {
    let shape = c.shape(0)?.to_vec();
    let axes: Vec<i64> = match c.ints("dim").filter(|a| !a.is_empty()) {
        Some(axes) => axes.iter().map(|&a| if a < 0 { a + shape.len() as i64 } else { a }).collect(),
        None => (0..shape.len() as i64).collect(),
    };
    let count: usize = axes.iter().map(|&a| shape[a as usize]).product();
    let unbiased = if c.setting("unbiased").is_some() { c.flag("unbiased") } else { true };
    let correction = c.number("correction").unwrap_or(f64::from(u8::from(unbiased)));
    let keep = c.flag("keepdim");
    let x = c.wide(0)?;
    let mean = c.over("ReduceMean", x, &axes, true);
    let centre = c.sub(x, mean);
    let square = c.mul(centre, centre);
    let sum = c.over("ReduceSum", square, &axes, keep);
    let divisor = c.number_like((count as f64 - correction).max(0.0), sum)?;
    let mut v = c.div(sum, divisor);
    if root {
        v = c.op("Sqrt", &[v], &[]);
    }
    let mut out = vec![Some(c.as_result(v, 0)?)];
    if let Some((_, shape)) = c.result(1) {
        let mean = reshaped(c, mean, &shape);
        out.push(Some(c.as_result(mean, 1)?));
    }
    Some(out)
}

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

fn cumulative(c: &mut Call<'_>, op: &str) -> Results {
    let dtype = c.result(0)?.0;
    let axis = c.axis("dim", c.rank(0)?)?;
    let x = c.input_as(0, dtype)?;
    let axis = c.scalar(axis as f64, DType::I64)?;
    one(c.op(op, &[x, axis], &[]))
}
