//! Matrix products and convolutions.

use isotrace_graph::Attribute;

use super::elementwise::scaled;
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("addmm", addmm),
    ("baddbmm", |c| biased(c)),
    ("bmm", product),
    ("convolution", convolution),
    ("dot", product),
    ("linear", linear),
    ("matmul", product),
    ("mm", product),
    ("mv", product),
];

fn product(c: &mut Call<'_>) -> Results {
    let (x, y) = (c.input(0)?, c.input(1)?);
    one(c.op("MatMul", &[x, y], &[]))
}

/// beta * C + alpha * A B, which is Gemm to the letter.
fn addmm(c: &mut Call<'_>) -> Results {
    let (bias, x, y) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let factor = |name: &str| c.number(name).unwrap_or(1.0) as f32;
    let settings = [("alpha", Attribute::Float(factor("alpha"))), ("beta", Attribute::Float(factor("beta")))];
    one(c.op("Gemm", &[x, y, bias], &settings))
}

fn biased(c: &mut Call<'_>) -> Results {
    let (bias, x, y) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let product = c.op("MatMul", &[x, y], &[]);
    let product = scaled(c, product, c.number("alpha").unwrap_or(1.0))?;
    let beta = c.number("beta").unwrap_or(1.0);
    // A factor of 0 shuts off even what is no number.
    if beta == 0.0 {
        return one(product);
    }
    let bias = scaled(c, bias, beta)?;
    one(c.op("Add", &[product, bias], &[]))
}

fn linear(c: &mut Call<'_>) -> Results {
    let (x, weight) = (c.input(0)?, c.input(1)?);
    let turned = c.op("Transpose", &[weight], &[("perm", Attribute::Ints(vec![1, 0]))]);
    let y = c.op("MatMul", &[x, turned], &[]);
    match c.input(2) {
        Some(bias) => one(c.op("Add", &[y, bias], &[])),
        None => one(y),
    }
}

fn convolution(c: &mut Call<'_>) -> Results {
    let spatial = c.shape(0)?.len().checked_sub(2)?;
    let list = |name: &str, default: i64| {
        let mut list = c.ints(name).unwrap_or_else(|| vec![default]);
        // One number stands for all axes.
        if list.len() == 1 {
            list = vec![list[0]; spatial];
        }
        list
    };
    let (strides, dilations, padding) = (list("stride", 1), list("dilation", 1), list("padding", 0));
    let pads: Vec<i64> = padding.iter().chain(&padding).copied().collect();
    let mut settings = vec![
        ("strides", Attribute::Ints(strides)),
        ("dilations", Attribute::Ints(dilations)),
        ("pads", Attribute::Ints(pads)),
        ("group", Attribute::Int(c.int("groups").unwrap_or(1))),
    ];
    let op = if c.flag("transposed") {
        settings.push(("output_padding", Attribute::Ints(list("output_padding", 0))));
        "ConvTranspose"
    } else {
        "Conv"
    };
    let inputs = [c.input(0), c.input(1), c.input(2)];
    let count = if inputs[2].is_some() { 3 } else { 2 };
    one(c.typed(c.dtype(0)?, op, &inputs[..count], &settings))
}
