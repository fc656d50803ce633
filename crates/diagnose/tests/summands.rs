//! What is added and taken off: means of an input, numbers that are too large for an epsilon, epsilons folded into what is
//! divided by; and what is fetched, pooled or counted otherwise; as a table.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::Tensor;
use net::{Net, numbers};
use table::{Case, all_named};

const TO_FLOAT: [(&str, Attribute); 1] = [("to", Attribute::Int(1))];

fn positive(seed: u64) -> Tensor {
    let x: Vec<f32> = numbers(&[8], seed).as_slice::<f32>().unwrap().iter().map(|x| x.abs() + 0.5).collect();
    Tensor::vector(x)
}

/// An input less its means, over its deviations; these means may be those of other data.
fn brought(n: &mut Net, op: &str, mean: u64) {
    n.constant("byte", Tensor::scalar(0.25f32));
    n.constant("mean", numbers(&[8], mean));
    n.constant("deviation", positive(62));
    n.node("Div", &["x", "byte"], "share", &[]);
    n.node(op, &["share", "mean"], "centred", &[]);
    n.node("Div", &["centred", "deviation"], "z", &[]);
}

/// What is added to a product's rows for each channel is no mean of an input.
fn biased(n: &mut Net, seed: u64) {
    n.constant("bias", numbers(&[8], seed));
    n.constant("deviation", positive(62));
    n.node("Sub", &["h", "bias"], "sum", &[]);
    n.node("Relu", &["sum"], "z", &[]);
}

/// A difference as it is, or one more, as pixels at both ends are counted.
fn extent(n: &mut Net, more: Option<f32>) {
    n.node("Sub", &["h", "g"], "between", &[]);
    if let Some(more) = more {
        n.constant("more", Tensor::scalar(more));
        n.node("Add", &["between", "more"], "extent", &[]);
    } else {
        n.constant("more", Tensor::scalar(0f32));
        n.node("Add", &["between", "more"], "extent", &[]);
    }
    n.node("Mul", &["extent", "h"], "z", &[]);
}

/// A quotient by stored numbers, to which a small one was added.
fn folded(n: &mut Net, least: f32) {
    let x: Vec<f32> = positive(63).as_slice::<f32>().unwrap().iter().map(|x| x - 0.499 + least).collect();
    n.constant("envelope", Tensor::vector(x));
    n.node("Div", &["h", "envelope"], "z", &[]);
}

/// The same with the sum written out.
fn guarded(n: &mut Net, least: f32) {
    let x: Vec<f32> = positive(63).as_slice::<f32>().unwrap().iter().map(|x| x - 0.499).collect();
    n.constant("window", Tensor::vector(x));
    n.constant("least", Tensor::scalar(least));
    n.node("Add", &["window", "least"], "envelope", &[]);
    n.node("Div", &["h", "envelope"], "z", &[]);
}

/// Two values joined, and the halves fetched the other way round behind or not.
fn joined(n: &mut Net, turned: bool) {
    n.constant("halves", Tensor::vector((8..16).chain(0..8).collect::<Vec<i64>>()));
    n.constant("narrow", numbers(&[16, 8], 64));
    n.node("Concat", &["h", "g"], if turned { "both" } else { "turned" }, &[("axis", Attribute::Int(2))]);
    if turned {
        n.node("Gather", &["both", "halves"], "turned", &[("axis", Attribute::Int(2))]);
    }
    n.node("MatMul", &["turned", "narrow"], "z", &[]);
}

/// Rows of a table at places taken modulo a number, in whole numbers or by a quotient.
fn places(n: &mut Net, whole: bool, modulus: i64) {
    let last = [("axis", Attribute::Int(2)), ("keepdims", Attribute::Int(0))];
    n.constant("table", numbers(&[8, 8], 66));
    n.constant("eleven", Tensor::scalar(11i64));
    n.constant("many", Tensor::vector(vec![0i64, 5, 13, 2, 9, 17]));
    n.node("ArgMax", &["h"], "best", &last);
    n.node("Mul", &["best", "eleven"], "spread", &[]);
    n.node("Add", &["spread", "many"], "place", &[]);
    if whole {
        n.constant("modulus", Tensor::scalar(modulus));
        n.node("Mod", &["place", "modulus"], "at", &[]);
    } else {
        n.constant("modulus", Tensor::scalar(modulus as f32));
        n.node("Cast", &["place"], "real", &TO_FLOAT);
        n.node("Div", &["real", "modulus"], "ratio", &[]);
        n.node("Floor", &["ratio"], "turns", &[]);
        n.node("Mul", &["turns", "modulus"], "full", &[]);
        n.node("Sub", &["real", "full"], "rest", &[]);
        n.node("Cast", &["rest"], "at", &[("to", Attribute::Int(7))]);
    }
    n.node("Gather", &["table", "at"], "rows", &[("axis", Attribute::Int(0))]);
    n.node("Add", &["rows", "h"], "z", &[]);
}

/// Regions of a picture, of each bin the mean or the largest.
fn regions(n: &mut Net, mode: &str) {
    let corners = vec![0.3f32, 0.6, 5.2, 4.1, 1.0, 0.2, 6.7, 3.9];
    n.constant("picture", Tensor::vector(vec![2i64, 1, 6, 8]));
    n.constant("back", Tensor::vector(vec![2i64, 6, 8]));
    n.constant("corners", Tensor::from_vec(&[2, 4], corners).unwrap());
    n.constant("of", Tensor::vector(vec![0i64, 1]));
    n.node("Reshape", &["h", "picture"], "map", &[]);
    let settings = [
        ("mode", Attribute::Bytes(mode.into())),
        ("output_height", Attribute::Int(6)),
        ("output_width", Attribute::Int(8)),
        ("sampling_ratio", Attribute::Int(2)),
    ];
    n.node("RoiAlign", &["map", "corners", "of"], "bins", &settings);
    n.node("Reshape", &["bins", "back"], "z", &[]);
}

const CASES: [Case; 9] = [
    Case {
        what: "means of other data",
        cause: "normalisation",
        a: |n| brought(n, "Sub", 61),
        b: |n| brought(n, "Sub", 67),
    },
    Case {
        what: "means of other data, added",
        cause: "normalisation",
        a: |n| brought(n, "Add", 61),
        b: |n| brought(n, "Add", 67),
    },
    Case { what: "another bias of a product", cause: "bias", a: |n| biased(n, 61), b: |n| biased(n, 67) },
    Case {
        what: "one more, where nothing was written out",
        cause: "bias",
        a: |n| extent(n, None),
        b: |n| extent(n, Some(1.0)),
    },
    Case {
        what: "another epsilon, folded in",
        cause: "epsilon",
        a: |n| folded(n, 1e-5),
        b: |n| folded(n, 1e-2),
    },
    Case {
        what: "another epsilon, folded in on one side",
        cause: "epsilon",
        a: |n| folded(n, 1e-5),
        b: |n| guarded(n, 1e-2),
    },
    Case {
        what: "halves fetched the other way round",
        cause: "index",
        a: |n| joined(n, false),
        b: |n| joined(n, true),
    },
    Case {
        what: "another modulus, by a quotient",
        cause: "index",
        a: |n| places(n, true, 8),
        b: |n| places(n, false, 7),
    },
    Case {
        what: "the largest of a region for its mean",
        cause: "reduction",
        a: |n| regions(n, "avg"),
        b: |n| regions(n, "max"),
    },
];

#[test]
fn what_is_added_is_named() {
    all_named(&CASES);
}
