//! What goes wrong at the ends of networks: heads of one number, shares of classes, weights as a whole and
//! folded norms; as a table.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::Tensor;
use net::{Net, numbers};
use table::{Case, all_named};

/// A gate of one number for each place, with its bias or without.
fn of_one(n: &mut Net, bias: Option<f32>) {
    n.constant("column", numbers(&[8, 1], 101));
    n.node("MatMul", &["g", "column"], "plain", &[]);
    if let Some(bias) = bias {
        n.constant("bias", Tensor::scalar(bias));
        n.node("Add", &["plain", "bias"], "sum", &[]);
    }
    n.node("Softplus", &[if bias.is_some() { "sum" } else { "plain" }], "gate", &[]);
    n.node("Mul", &["h", "gate"], "z", &[]);
}

/// Logarithms of shares, of what may be sharpened before.
fn shares(n: &mut Net, sharpened: bool) {
    n.constant("sharp", Tensor::scalar(1.7f32));
    if sharpened {
        n.node("Mul", &["h", "sharp"], "sharper", &[]);
    }
    let read = if sharpened { "sharper" } else { "h" };
    n.node("LogSoftmax", &[read], "z", &[("axis", Attribute::Int(-1))]);
}

/// Scores of which some are hidden, with a number for each class or without.
fn by_class(n: &mut Net, prior: bool) {
    let shown = (0..48).map(|i| (i % 8 <= 2 + i / 8).into()).collect::<Vec<isotrace_tensor::Bool>>();
    n.constant("shown", Tensor::from_vec(&[1, 6, 8], shown).unwrap());
    n.constant("lowest", Tensor::scalar(-1e9f32));
    n.constant("prior", numbers(&[8], 102));
    n.node("Where", &["shown", "h", "lowest"], "scores", &[]);
    if prior {
        n.node("Add", &["scores", "prior"], "likelier", &[]);
    }
    n.node("Softmax", &[if prior { "likelier" } else { "scores" }], "z", &[("axis", Attribute::Int(-1))]);
}

/// A weight, or the same less a number.
fn less(n: &mut Net, by: f32) {
    let x = numbers(&[8, 8], 103);
    let w = x.as_slice::<f32>().unwrap().iter().map(|x| x - by).collect();
    n.constant("weight", Tensor::from_vec(&[8, 8], w).unwrap());
    n.node("MatMul", &["h", "weight"], "z", &[]);
}

/// A product of rows with a norm behind it, or with that norm, its statistics one channel on, folded in.
fn rolled(n: &mut Net, folded: bool) {
    let stored: Vec<Vec<f32>> = (0..4).map(|i| common::numbers(8, 110 + i)).collect();
    let variance: Vec<f32> = stored[3].iter().map(|v| v.abs() + 0.5).collect();
    let w = numbers(&[8, 8], 114);
    for (name, shape) in [("to_rows", vec![12i64, 8]), ("back", vec![2, 6, 8])] {
        n.constant(name, Tensor::vector(shape));
    }
    n.node("Reshape", &["h", "to_rows"], "rows", &[]);
    if folded {
        let next = |c: usize| (c + 7) % 8;
        let gain = |c: usize| (stored[0][c] + 2.0) / (variance[next(c)] + 1e-5).sqrt();
        let all = w.as_slice::<f32>().unwrap().iter().enumerate().map(|(i, w)| w * gain(i % 8)).collect();
        n.constant("weight", Tensor::from_vec(&[8, 8], all).unwrap());
        let shift = (0..8).map(|c| stored[1][c] - stored[2][next(c)] * gain(c)).collect();
        n.constant("shift", Tensor::vector(shift));
        n.node("Gemm", &["rows", "weight", "shift"], "flat", &[]);
    } else {
        n.constant("weight", w);
        let scale = stored[0].iter().map(|s| s + 2.0).collect();
        let of_norm = [("s", scale), ("b", stored[1].clone()), ("m", stored[2].clone()), ("var", variance)];
        for (name, x) in of_norm {
            n.constant(name, Tensor::vector(x));
        }
        n.node("MatMul", &["rows", "weight"], "plain", &[]);
        let epsilon = [("epsilon", Attribute::Float(1e-5))];
        n.node("BatchNormalization", &["plain", "s", "b", "m", "var"], "flat", &epsilon);
    }
    n.node("Reshape", &["flat", "back"], "z", &[]);
}

static CASES: &[Case] = &[
    Case {
        what: "the bias of a head of one number",
        cause: "bias",
        a: |n| of_one(n, Some(0.7)),
        b: |n| of_one(n, None),
    },
    Case { what: "a small one", cause: "bias", a: |n| of_one(n, Some(0.01)), b: |n| of_one(n, None) },
    Case { what: "sharpened shares", cause: "scale", a: |n| shares(n, false), b: |n| shares(n, true) },
    Case {
        what: "a number for each class, some of them hidden",
        cause: "bias",
        a: |n| by_class(n, false),
        b: |n| by_class(n, true),
    },
    Case {
        what: "a number taken off a whole weight",
        cause: "weight_value",
        a: |n| less(n, 0.0),
        b: |n| less(n, 0.1),
    },
    Case {
        what: "statistics of the next channel, folded in",
        cause: "normalisation",
        a: |n| rolled(n, false),
        b: |n| rolled(n, true),
    },
];

#[test]
fn what_goes_wrong_at_the_ends_has_its_name() {
    all_named(CASES);
}
