//! Matrix products and convolutions.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::DType;

use super::elementwise::scaled;
use super::movement::{reshaped, sliced};
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_grouped_mm", grouped),
    ("_trilinear", three),
    ("addbmm", |c| {
        let (x, y) = (c.input(1)?, c.input(2)?);
        let products = c.matmul(x, y);
        let sum = c.over("ReduceSum", products, &[0], false);
        with_bias(c, sum)
    }),
    ("addmm", addmm),
    ("addmv", |c| {
        let (x, y) = (c.input(1)?, c.input(2)?);
        let product = c.matmul(x, y);
        with_bias(c, product)
    }),
    ("addr", |c| {
        let (x, y) = (c.input(1)?, c.input(2)?);
        let x = reshaped(c, x, &[c.shape(1)?.iter().product(), 1]);
        let product = c.mul(x, y);
        with_bias(c, product)
    }),
    ("baddbmm", |c| {
        let (x, y) = (c.input(1)?, c.input(2)?);
        let product = c.matmul(x, y);
        with_bias(c, product)
    }),
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

/// beta times the first input, plus alpha times a product.
fn with_bias(c: &mut Call<'_>, product: ValueId) -> Results {
    let bias = c.input(0)?;
    let product = scaled(c, product, c.number("alpha").unwrap_or(1.0))?;
    let beta = c.number("beta").unwrap_or(1.0);
    // A factor of 0 shuts off even what is no number.
    if beta == 0.0 {
        return one(product);
    }
    let bias = scaled(c, bias, beta)?;
    one(c.op("Add", &[product, bias], &[]))
}

/// Rows of the first input in groups, each times a matrix of its own; the groups end where the third input says.
fn grouped(c: &mut Call<'_>) -> Results {
    let (rows, matrices) = (c.shape(0)?.to_vec(), c.shape(1)?.to_vec());
    let (&[count, _], &[groups, inner, columns]) = (rows.as_slice(), matrices.as_slice()) else {
        return None;
    };
    if c.input(3).is_some() {
        return None;
    }
    let (x, y) = (c.wide(0)?, c.wide(1)?);
    // Rows behind the last group are not computed: nobody can say what is there.
    if c.elements(2)?.to_i64().ok()?.last() != Some(&(count as i64)) {
        return None;
    }
    let ends = c.input_as(2, DType::I64)?;
    let (mut start, axis) = (c.integers(vec![0]), c.integers(vec![0]));
    let mut parts = Vec::new();
    for group in 0..groups as i64 {
        let end = sliced(c, ends, 0, [group, group + 1, 1]);
        let own = c.op("Slice", &[x, start, end, axis], &[]);
        let matrix = sliced(c, y, 0, [group, group + 1, 1]);
        let matrix = reshaped(c, matrix, &[inner, columns]);
        parts.push(Some(c.matmul(own, matrix)));
        start = end;
    }
    let dtype = c.type_of(x)?;
    let all = c.typed(dtype, "Concat", &parts, &[("axis", Attribute::Int(0))]);
    one(c.as_result(all, 0)?)
}

/// The products of three tensors, each with axes of size 1 put in, summed over some axes.
fn three(c: &mut Call<'_>) -> Results {
    /// Elements of the products before they are summed; beyond, the call is opaque.
    const MOST: usize = 1 << 26;
    let mut product: Option<ValueId> = None;
    let mut whole: Vec<usize> = Vec::new();
    for (at, name) in ["expand1", "expand2", "expand3"].into_iter().enumerate() {
        let (x, mut shape) = (c.wide(at)?, c.shape(at)?.to_vec());
        let mut axes = c.ints(name)?;
        axes.sort_unstable();
        for axis in axes {
            let axis = usize::try_from(axis).ok().filter(|&a| a <= shape.len())?;
            shape.insert(axis, 1);
        }
        whole = super::index::broadcast(&whole, &shape)?;
        let x = reshaped(c, x, &shape);
        product = Some(product.map_or(x, |p| c.mul(p, x)));
    }
    if whole.iter().try_fold(1usize, |n, &d| n.checked_mul(d))? > MOST {
        return None;
    }
    let sum = c.over("ReduceSum", product?, &c.ints("sumdim")?, false);
    one(c.as_result(sum, 0)?)
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
