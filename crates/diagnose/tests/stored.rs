//! What is stored and told by its numbers: tables, lists of settings, and what is no parameter at all.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::Tensor;
use net::{Net, numbers};
use table::{Case, all_named};

fn ints(n: &mut Net, name: &str, values: &[i64]) {
    n.constant(name, Tensor::vector(values.to_vec()));
}

/// A table of numbers added to each row, its columns in some order.
fn anchored(n: &mut Net, exchanged: bool) {
    let x = numbers(&[6, 8], 91);
    let x = x.as_slice::<f32>().unwrap();
    let read = |i: usize| if exchanged { x[i ^ 1] } else { x[i] };
    n.constant("anchors", Tensor::from_vec(&[6, 8], (0..48).map(read).collect()).unwrap());
    n.node("Add", &["h", "anchors"], "z", &[]);
}

/// Some function of 1 and more.
fn curved(n: &mut Net, op: &str) {
    n.constant("one", Tensor::scalar(1f32));
    n.node("Mul", &["h", "h"], "square", &[]);
    n.node("Add", &["square", "one"], "more", &[]);
    n.node(op, &["more"], "z", &[]);
}

/// A likelihood far below nought, and what is added to it.
fn likely(n: &mut Net, op: &str) {
    n.constant("far", Tensor::scalar(-5e4f32));
    n.constant("wide", Tensor::scalar(1e3f32));
    n.node("Mul", &["h", "wide"], "spread", &[]);
    n.node("Add", &["spread", "far"], "low", &[]);
    n.node("Mul", &["g", "wide"], "volume", &[]);
    n.node(op, &["low", "volume"], "likelihood", &[]);
    n.node("Div", &["likelihood", "wide"], "z", &[]);
}

/// What is computed, or numbers that were computed once.
fn frozen(n: &mut Net, once: bool) {
    n.constant("then", numbers(&[2, 6, 8], 93));
    n.node("Tanh", &["g"], "now", &[]);
    n.node("Add", &["h", if once { "then" } else { "now" }], "sum", &[]);
    n.node("Sigmoid", &["sum"], "z", &[]);
}

/// A linear model that keeps its coefficients as a setting.
fn learned(n: &mut Net, turned: bool) {
    let x = numbers(&[8, 8], 95);
    let x = x.as_slice::<f32>().unwrap();
    let held = (0..64).map(|i| if turned { x[i % 8 * 8 + i / 8] } else { x[i] }).collect();
    ints(n, "flat", &[12, 8]);
    ints(n, "deep", &[2, 6, 8]);
    n.node("Reshape", &["h", "flat"], "rows", &[]);
    let settings = [("coefficients", Attribute::Floats(held)), ("targets", Attribute::Int(8))];
    n.node("LinearRegressor", &["rows"], "model", &settings);
    let node = n.at("model");
    node.domain = "ai.onnx.ml".into();
    node.version = 1;
    n.node("Reshape", &["model", "deep"], "z", &[]);
}

/// Four bits whose zeros are one step off, in a small weight.
fn weighed(n: &mut Net, off: bool) {
    let x = numbers(&[8, 8], 97);
    let x = x.as_slice::<f32>().unwrap();
    let read = |i: usize| {
        let column = || (0..8).map(move |r| x[r * 8 + i % 8]);
        let (low, high) =
            (column().fold(f32::INFINITY, f32::min), column().fold(f32::NEG_INFINITY, f32::max));
        let step = (high - low) / 15.0;
        let zero = (-low / step).round();
        if off { ((x[i] / step).round() - 1.0).clamp(-zero - 1.0, 14.0 - zero) * step } else { x[i] }
    };
    n.constant("weight", Tensor::from_vec(&[8, 8], (0..64).map(read).collect()).unwrap());
    n.node("MatMul", &["h", "weight"], "z", &[]);
}

static CASES: &[Case] = &[
    Case {
        what: "columns of a table exchanged",
        cause: "weight_layout",
        a: |n| anchored(n, false),
        b: |n| anchored(n, true),
    },
    Case {
        what: "a root for a logarithm",
        cause: "activation",
        a: |n| curved(n, "Log"),
        b: |n| curved(n, "Sqrt"),
    },
    Case {
        what: "taken off a likelihood",
        cause: "residual",
        a: |n| likely(n, "Add"),
        b: |n| likely(n, "Sub"),
    },
    Case { what: "computed once", cause: "residual", a: |n| frozen(n, false), b: |n| frozen(n, true) },
    Case {
        what: "coefficients the other way round",
        cause: "weight_layout",
        a: |n| learned(n, false),
        b: |n| learned(n, true),
    },
    Case {
        what: "four bits with other zeros",
        cause: "quantisation",
        a: |n| weighed(n, false),
        b: |n| weighed(n, true),
    },
];

#[test]
fn what_is_stored_has_its_name() {
    all_named(CASES);
}
