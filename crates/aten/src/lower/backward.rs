//! Backward formulas, from the gradient of the output and what the forward pass kept.

use isotrace_graph::Attribute;
use isotrace_tensor::DType;

use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_log_softmax_backward_data", log_softmax),
    ("_softmax_backward_data", softmax),
    ("sigmoid_backward", sigmoid),
    ("silu_backward", silu),
    ("tanh_backward", tanh),
    ("threshold_backward", threshold),
];

/// y (g - sum(g y)).
fn softmax(c: &mut Call<'_>) -> Results {
    let (gradient, y) = (c.input(0)?, c.input(1)?);
    let axes = vec![c.int("dim")?];
    let product = c.op("Mul", &[gradient, y], &[]);
    let axes = c.integers(axes);
    let sum = c.op("ReduceSum", &[product, axes], &[("keepdims", Attribute::Int(1))]);
    let part = c.op("Mul", &[y, sum], &[]);
    one(c.op("Sub", &[product, part], &[]))
}

/// g - exp(y) sum(g).
fn log_softmax(c: &mut Call<'_>) -> Results {
    let (gradient, y) = (c.input(0)?, c.input(1)?);
    let axes = vec![c.int("dim")?];
    let axes = c.integers(axes);
    let sum = c.op("ReduceSum", &[gradient, axes], &[("keepdims", Attribute::Int(1))]);
    let p = c.op("Exp", &[y], &[]);
    let part = c.op("Mul", &[p, sum], &[]);
    one(c.op("Sub", &[gradient, part], &[]))
}

/// g (1 - y) y.
fn sigmoid(c: &mut Call<'_>) -> Results {
    let (gradient, y) = (c.input(0)?, c.input(1)?);
    let ones = c.scalar(1.0, c.dtype(1)?)?;
    let rest = c.op("Sub", &[ones, y], &[]);
    let product = c.op("Mul", &[gradient, rest], &[]);
    one(c.op("Mul", &[product, y], &[]))
}

/// g s (1 + x (1 - s)) with s the sigmoid of x.
fn silu(c: &mut Call<'_>) -> Results {
    let (gradient, x) = (c.input(0)?, c.input(1)?);
    let ones = c.scalar(1.0, c.dtype(1)?)?;
    let s = c.op("Sigmoid", &[x], &[]);
    let rest = c.op("Sub", &[ones, s], &[]);
    let inner = c.op("Mul", &[x, rest], &[]);
    let inner = c.op("Add", &[ones, inner], &[]);
    let slope = c.op("Mul", &[s, inner], &[]);
    one(c.op("Mul", &[gradient, slope], &[]))
}

/// g (1 - y y).
fn tanh(c: &mut Call<'_>) -> Results {
    let (gradient, y) = (c.input(0)?, c.input(1)?);
    let ones = c.scalar(1.0, c.dtype(1)?)?;
    let square = c.op("Mul", &[y, y], &[]);
    let slope = c.op("Sub", &[ones, square], &[]);
    one(c.op("Mul", &[gradient, slope], &[]))
}

/// g where x is above the threshold, else 0.
fn threshold(c: &mut Call<'_>) -> Results {
    let (gradient, x) = (c.input(0)?, c.input(1)?);
    let dtype = c.dtype(0)?;
    let limit = c.scalar(c.number("threshold")?, c.dtype(1)?)?;
    let above = c.typed(DType::Bool, "Greater", &[Some(x), Some(limit)], &[]);
    let zero = c.scalar(0.0, dtype)?;
    one(c.typed(dtype, "Where", &[Some(above), Some(gradient), Some(zero)], &[]))
}
