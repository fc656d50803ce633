//! Choices between values, and what is repeated or added without a partner; as a table.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::{Bool, Tensor};
use net::{Net, numbers};
use table::{Case, all_named};

/// A softplus that goes on as a straight line from a bound on, or all the way as it is.
fn straight(n: &mut Net, from: Option<f32>) {
    let Some(from) = from else {
        return n.node("Softplus", &["h"], "z", &[]);
    };
    n.constant("from", Tensor::scalar(from));
    n.node("Softplus", &["h"], "bent", &[]);
    n.node("Greater", &["h", "from"], "beyond", &[]);
    n.node("Where", &["beyond", "h", "bent"], "z", &[]);
}

/// One of two values for each place, the first of them multiplied by a number or not.
fn one_of_two(n: &mut Net, factor: Option<f32>) {
    let first = (0..6).map(|i| (i % 3 == 0).into()).collect::<Vec<Bool>>();
    n.constant("first", Tensor::from_vec(&[1, 6, 1], first).unwrap());
    if let Some(factor) = factor {
        n.constant("factor", Tensor::scalar(factor));
        n.node("Mul", &["g", "factor"], "larger", &[]);
    }
    let read = if factor.is_some() { "larger" } else { "g" };
    n.node("Where", &["first", read, "h"], "z", &[]);
}

/// A norm by the mean square of all features, or of each half of them by itself.
fn halved(n: &mut Net, halves: bool) {
    let keep = [("keepdims", Attribute::Int(1))];
    for (name, shape) in [("cut", vec![2i64, 6, 2, 4]), ("whole", vec![2, 6, 8]), ("last", vec![-1])] {
        n.constant(&format!("to_{name}"), Tensor::vector(shape));
    }
    n.constant("small", Tensor::scalar(1e-6f32));
    n.constant("gain", numbers(&[8], 201));
    n.node("Mul", &["h", "h"], "squares", &[]);
    if halves {
        n.node("Reshape", &["squares", "to_cut"], "parts", &[]);
        n.node("ReduceMean", &["parts", "to_last"], "of_parts", &keep);
        n.node("Expand", &["of_parts", "to_cut"], "repeated", &[]);
        n.node("Reshape", &["repeated", "to_whole"], "mean", &[]);
    } else {
        n.node("ReduceMean", &["squares", "to_last"], "mean", &keep);
    }
    n.node("Add", &["mean", "small"], "safe", &[]);
    n.node("Sqrt", &["safe"], "root", &[]);
    n.node("Div", &["h", "root"], "unit", &[]);
    n.node("Mul", &["unit", "gain"], "z", &[]);
}

/// What is brought from around nought to between nought and one, or handed on.
fn brought(n: &mut Net, by: Option<f32>) {
    let Some(by) = by else {
        return n.node("Identity", &["h"], "z", &[]);
    };
    n.constant("half", Tensor::scalar(by));
    n.node("Mul", &["h", "half"], "smaller", &[]);
    n.node("Add", &["smaller", "half"], "z", &[]);
}

static CASES: &[Case] = &[
    Case {
        what: "a bound from which on a function is a straight line",
        cause: "activation",
        a: |n| straight(n, Some(20.0)),
        b: |n| straight(n, Some(0.3)),
    },
    Case {
        what: "a straight line that one side does not have",
        cause: "activation",
        a: |n| straight(n, None),
        b: |n| straight(n, Some(0.3)),
    },
    Case {
        what: "a factor of one of two values",
        cause: "scale",
        a: |n| one_of_two(n, None),
        b: |n| one_of_two(n, Some(3.0)),
    },
    Case {
        what: "a statistic of each half",
        cause: "normalisation",
        a: |n| halved(n, false),
        b: |n| halved(n, true),
    },
    Case {
        what: "an input brought elsewhere, half of it taken off by accident",
        cause: "normalisation",
        a: |n| brought(n, None),
        b: |n| brought(n, Some(0.5)),
    },
];

#[test]
fn choices_hide_nothing_and_nothing_stands_for_no_node() {
    all_named(CASES);
}
