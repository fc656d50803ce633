//! What public reports of wrong conversions tell of, as a table of names.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::Tensor;
use net::{Net, numbers};
use table::{Case, all_named};

const F32: Attribute = Attribute::Int(1);
const F16: Attribute = Attribute::Int(10);

fn stored(n: &mut Net, name: &str, shape: &[usize], at: impl Fn(usize) -> f32) {
    let len = shape.iter().product();
    n.constant(name, Tensor::from_vec(shape, (0..len).map(at).collect()).unwrap());
}

fn ints(n: &mut Net, name: &str, values: &[i64]) {
    n.constant(name, Tensor::vector(values.to_vec()));
}

/// h and what says where each row stands, as often as asked.
fn placed(n: &mut Net, times: usize) {
    n.constant("table", numbers(&[1, 6, 8], 21));
    let mut at = "h".to_owned();
    for k in 0..times {
        let next = format!("placed {k}");
        n.node("Add", &[&at, "table"], &next, &[]);
        at = next;
    }
    n.node("Tanh", &[&at], "z", &[]);
}

/// The total of the features of each row, added up one by one with the total in half precision, or at once.
fn total(n: &mut Net, of: &str, in_half: bool) {
    ints(n, "features", &[2]);
    if !in_half {
        return n.node("ReduceSum", &[of, "features"], "total", &[("keepdims", Attribute::Int(1))]);
    }
    let mut sum: Option<String> = None;
    for k in 0..8 {
        let (from, to, cut) = (format!("from {k}"), format!("to {k}"), format!("cut {k}"));
        ints(n, &from, &[k]);
        ints(n, &to, &[k + 1]);
        n.node("Slice", &[of, &from, &to, "features"], &cut, &[]);
        let whole = match &sum {
            None => cut,
            Some(sum) => {
                n.node("Add", &[sum, &cut], &format!("sum {k}"), &[]);
                format!("sum {k}")
            }
        };
        n.node("Cast", &[&whole], &format!("low {k}"), &[("to", F16)]);
        let wide = if k == 7 { "total".to_owned() } else { format!("wide {k}") };
        n.node("Cast", &[&format!("low {k}")], &wide, &[("to", F32)]);
        sum = Some(wide);
    }
}

fn averaged(n: &mut Net, in_half: bool) {
    n.constant("eight", Tensor::scalar(8f32));
    total(n, "h", in_half);
    n.node("Div", &["total", "eight"], "mean", &[]);
    n.node("Sub", &["h", "mean"], "z", &[]);
}

fn shares(n: &mut Net, in_half: bool) {
    if in_half {
        n.node("Exp", &["h"], "e", &[]);
        total(n, "e", true);
        n.node("Div", &["e", "total"], "z", &[]);
    } else {
        n.node("Softmax", &["h"], "z", &[("axis", Attribute::Int(-1))]);
    }
}

/// h over its root mean square along some axes.
fn normed(n: &mut Net, axes: &[i64]) {
    ints(n, "axes", axes);
    n.constant("small", Tensor::scalar(1e-5f32));
    n.node("Mul", &["h", "h"], "squares", &[]);
    n.node("ReduceMean", &["squares", "axes"], "mean", &[("keepdims", Attribute::Int(1))]);
    n.node("Add", &["mean", "small"], "safe", &[]);
    n.node("Sqrt", &["safe"], "root", &[]);
    n.node("Div", &["h", "root"], "z", &[]);
}

/// A squared ReLU, squared once more, in front of a norm.
fn squared(n: &mut Net, twice: bool) {
    n.constant("two", Tensor::scalar(2f32));
    n.constant("gain", numbers(&[8], 31));
    n.constant("shift", numbers(&[8], 32));
    n.node("Relu", &["h"], "r", &[]);
    if twice {
        n.node("Mul", &["r", "r"], "once", &[]);
    }
    n.node("Pow", &[if twice { "once" } else { "r" }, "two"], "square", &[]);
    n.node("LayerNormalization", &["square", "gain", "shift"], "z", &[("epsilon", Attribute::Float(1e-5))]);
}

/// Queries and keys, in one order or the other, and what is read by what they have in common.
fn asked(n: &mut Net, exchanged: bool) {
    n.constant("scale", Tensor::scalar(0.353_553_4f32));
    stored(n, "hides", &[6, 6], |i| if i % 6 > i / 6 { -1e9 } else { 0.0 });
    let turn = [("perm", Attribute::Ints(vec![0, 2, 1]))];
    n.node("Transpose", &[if exchanged { "h" } else { "g" }], "turned", &turn);
    n.node("MatMul", &[if exchanged { "g" } else { "h" }, "turned"], "scores", &[]);
    n.node("Mul", &["scores", "scale"], "scaled", &[]);
    n.node("Add", &["scaled", "hides"], "seen", &[]);
    n.node("Softmax", &["seen"], "p", &[("axis", Attribute::Int(-1))]);
    n.node("MatMul", &["p", "x"], "z", &[]);
}

/// A product whose weights were changed.
fn weighed(n: &mut Net, change: fn(&[f32], usize) -> f32) {
    let x = numbers(&[8, 8], 41);
    let x = x.as_slice::<f32>().unwrap();
    stored(n, "weight", &[8, 8], |i| change(x, i));
    n.node("MatMul", &["h", "weight"], "z", &[]);
}

fn column(x: &[f32], i: usize) -> impl Iterator<Item = f32> + '_ {
    (0..8).map(move |r| x[r * 8 + i % 8])
}

fn by_eight_bits(x: &[f32], i: usize) -> f32 {
    let step = column(x, i).fold(0f32, |m, v| m.max(v.abs())) / 127.0;
    (x[i] / step).trunc() * step
}

fn by_four_bits(x: &[f32], i: usize) -> f32 {
    let low = column(x, i).fold(f32::INFINITY, f32::min);
    let step = (column(x, i).fold(f32::NEG_INFINITY, f32::max) - low) / 15.0;
    ((x[i] - low) / step).round() * step + low
}

fn by_sign(x: &[f32], i: usize) -> f32 {
    x[i].signum() * column(x, i).map(f32::abs).sum::<f32>() / 8.0
}

fn by_length(x: &[f32], i: usize) -> f32 {
    x[i] / column(x, i).map(|v| v * v).sum::<f32>().sqrt()
}

/// A GELU by a tangent, spelled out.
fn bent(n: &mut Net, cubes: f32) {
    for (name, x) in [("three", 3.0), ("cubes", cubes), ("root", 0.797_884_6), ("one", 1.0), ("half", 0.5f32)]
    {
        n.constant(name, Tensor::scalar(x));
    }
    n.node("Pow", &["h", "three"], "cube", &[]);
    n.node("Mul", &["cube", "cubes"], "some", &[]);
    n.node("Add", &["h", "some"], "sum", &[]);
    n.node("Mul", &["sum", "root"], "argument", &[]);
    n.node("Tanh", &["argument"], "t", &[]);
    n.node("Add", &["t", "one"], "more", &[]);
    n.node("Mul", &["h", "more"], "gated", &[]);
    n.node("Mul", &["gated", "half"], "z", &[]);
}

/// Scores that a computed mask hides, for every item or for one of the two alone.
fn hidden(n: &mut Net, for_all: bool) {
    ints(n, "first", &[0]);
    n.constant("nought", Tensor::scalar(0f32));
    n.constant("lowest", Tensor::scalar(-1e9f32));
    stored(n, "but one", &[2, 1, 1], |i| i as f32);
    n.node("Gather", &["x", "first"], "item", &[("axis", Attribute::Int(0))]);
    n.node("Greater", &["item", "nought"], "shown", &[]);
    n.node("Where", &["shown", "nought", "lowest"], "mask", &[]);
    if !for_all {
        n.node("Mul", &["mask", "but one"], "less", &[]);
    }
    n.node("Add", &["h", if for_all { "mask" } else { "less" }], "scores", &[]);
    n.node("Softmax", &["scores"], "z", &[("axis", Attribute::Int(-1))]);
}

/// A product of twice the width and its bias, which may lie on a grid of four bits.
fn biased(n: &mut Net, on_grid: bool) {
    let x = numbers(&[16], 51);
    let x = x.as_slice::<f32>().unwrap();
    let step = x.iter().fold(0f32, |m, v| m.max(v.abs())) / 7.0;
    stored(n, "bias", &[16], |i| if on_grid { (x[i] / step).round() * step } else { x[i] });
    n.constant("wide", numbers(&[8, 16], 52));
    n.constant("narrow", numbers(&[16, 8], 53));
    n.node("MatMul", &["h", "wide"], "more", &[]);
    n.node("Add", &["more", "bias"], "sum", &[]);
    n.node("MatMul", &["sum", "narrow"], "z", &[]);
}

/// A gated unit: what is bent multiplies the other.
fn gated(n: &mut Net, bent: &str, other: &str) {
    n.node("Sigmoid", &[bent], "s", &[]);
    n.node("Mul", &[bent, "s"], "gate", &[]);
    n.node("Mul", &["gate", other], "z", &[]);
}

/// Two rounds of shares, each with a mask of its own; the second may read the first one's.
fn two_masks(n: &mut Net, second: &str) {
    n.constant("nought", Tensor::scalar(0f32));
    n.constant("some", Tensor::scalar(0.4f32));
    n.constant("lowest", Tensor::scalar(-1e9f32));
    n.node("Greater", &["x", "nought"], "shown", &[]);
    n.node("Less", &["x", "some"], "low", &[]);
    n.node("Where", &["shown", "nought", "lowest"], "one", &[]);
    n.node("Where", &["low", "nought", "lowest"], "two", &[]);
    n.constant("between", numbers(&[8, 8], 61));
    n.node("Add", &["h", "one"], "first", &[]);
    n.node("Softmax", &["first"], "p", &[("axis", Attribute::Int(-1))]);
    n.node("MatMul", &["p", "between"], "mixed", &[]);
    n.node("Add", &["mixed", second], "second", &[]);
    n.node("Softmax", &["second"], "z", &[("axis", Attribute::Int(-1))]);
}

/// Three rounds of shares with two masks, of which the second round's may be read by the first as well.
fn layers(n: &mut Net, first: &str) {
    n.constant("nought", Tensor::scalar(0f32));
    n.constant("lowest", Tensor::scalar(-1e9f32));
    n.constant("between", numbers(&[8, 8], 61));
    for (k, mask, least) in [(1, "one", -0.6f32), (2, "two", 0.1)] {
        n.constant(&format!("least {k}"), Tensor::scalar(least));
        n.node("Greater", &["x", &format!("least {k}")], &format!("shown {k}"), &[]);
        n.node("Where", &[&format!("shown {k}"), "nought", "lowest"], mask, &[]);
    }
    let mut at = "h".to_owned();
    for (k, mask) in [(1, first), (2, "two"), (3, "one")] {
        let [scores, shares, mixed] = ["scores", "shares", "mixed"].map(|name| format!("{name} {k}"));
        n.node("Add", &[&at, mask], &scores, &[]);
        n.node("Softmax", &[&scores], &shares, &[("axis", Attribute::Int(-1))]);
        n.node("MatMul", &[&shares, "between"], &mixed, &[]);
        at = mixed;
    }
    n.node("Tanh", &[&at], "z", &[]);
}

const CASES: &[Case] = &[
    Case { what: "places not added", cause: "rope", a: |n| placed(n, 1), b: |n| placed(n, 0) },
    Case { what: "places added twice", cause: "rope", a: |n| placed(n, 1), b: |n| placed(n, 2) },
    Case {
        what: "a mean with a total in half precision",
        cause: "accumulation",
        a: |n| averaged(n, false),
        b: |n| averaged(n, true),
    },
    Case {
        what: "shares of a total in half precision",
        cause: "accumulation",
        a: |n| shares(n, false),
        b: |n| shares(n, true),
    },
    Case {
        what: "a statistic over one axis more",
        cause: "normalisation",
        a: |n| normed(n, &[2]),
        b: |n| normed(n, &[1, 2]),
    },
    Case {
        what: "a statistic over another axis",
        cause: "axis",
        a: |n| normed(n, &[2]),
        b: |n| normed(n, &[1]),
    },
    Case {
        what: "a square in front of a square",
        cause: "activation",
        a: |n| squared(n, false),
        b: |n| squared(n, true),
    },
    Case { what: "keys that ask", cause: "operand_order", a: |n| asked(n, false), b: |n| asked(n, true) },
    Case {
        what: "eight bits cut off, in short columns",
        cause: "quantisation",
        a: |n| weighed(n, |x, i| x[i]),
        b: |n| weighed(n, by_eight_bits),
    },
    Case {
        what: "four bits with an offset, in short columns",
        cause: "quantisation",
        a: |n| weighed(n, |x, i| x[i]),
        b: |n| weighed(n, by_four_bits),
    },
    Case {
        what: "one bit",
        cause: "quantisation",
        a: |n| weighed(n, |x, i| x[i]),
        b: |n| weighed(n, by_sign),
    },
    Case {
        what: "directions without their lengths",
        cause: "weight_value",
        a: |n| weighed(n, |x, i| x[i]),
        b: |n| weighed(n, by_length),
    },
    Case {
        what: "another number in the argument of a curve",
        cause: "activation",
        a: |n| bent(n, 0.044715),
        b: |n| bent(n, 0.0461),
    },
    Case {
        what: "a mask for one of two items",
        cause: "mask",
        a: |n| hidden(n, true),
        b: |n| hidden(n, false),
    },
    Case {
        what: "a bias of four bits",
        cause: "quantisation",
        a: |n| biased(n, false),
        b: |n| biased(n, true),
    },
    Case {
        what: "the value bent in place of the gate",
        cause: "gate_order",
        a: |n| gated(n, "h", "x"),
        b: |n| gated(n, "x", "h"),
    },
    Case {
        what: "the mask of another layer",
        cause: "mask",
        a: |n| two_masks(n, "two"),
        b: |n| two_masks(n, "one"),
    },
    Case {
        what: "the mask of the next layer, which others read",
        cause: "mask",
        a: |n| layers(n, "one"),
        b: |n| layers(n, "two"),
    },
];

#[test]
fn what_is_reported_has_its_name() {
    all_named(CASES);
}
