//! What goes wrong between a trained network and the one that is deployed, as a table of names.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::{Bool, Tensor};
use net::{Net, numbers};
use table::{Case, all_named};

fn stored(n: &mut Net, name: &str, shape: &[usize], at: impl Fn(usize) -> f32) {
    let len = shape.iter().product();
    n.constant(name, Tensor::from_vec(shape, (0..len).map(at).collect()).unwrap());
}

fn plain(n: &mut Net) {
    n.node("Identity", &["h"], "z", &[]);
}

/// h and a constant, which may be another for the second of the two items.
fn met(n: &mut Net, op: &str, shape: &[usize], apart: bool) {
    let len: usize = shape.iter().product();
    let x = numbers(&[2 * len], 11);
    let x = x.as_slice::<f32>().unwrap();
    stored(n, "drawn", shape, |i| x[if apart { i } else { i % (len / 2) }]);
    n.node(op, &["h", "drawn"], "z", &[]);
}

/// What is taken of all places of h, between what is done before it and what takes that back.
fn pooled(n: &mut Net, op: &str, around: Option<(&str, &str)>) {
    n.constant("places", Tensor::vector(vec![1i64]));
    n.constant("repeats", Tensor::vector(vec![1i64, 6, 1]));
    if let Some((before, behind)) = around {
        n.node(before, &["h", "h"][..if before == "Mul" { 2 } else { 1 }], "bent", &[]);
        n.node(op, &["bent", "places"], "one", &[]);
        n.node(behind, &["one"], "back", &[]);
    } else {
        n.node(op, &["h", "places"], "back", &[]);
    }
    n.node("Tile", &["back", "repeats"], "z", &[]);
}

/// h over its root mean square, which may be that of half of its features.
fn normed(n: &mut Net, half: bool) {
    for (name, at) in [("from", 0i64), ("to", 4), ("features", 2)] {
        n.constant(name, Tensor::vector(vec![at]));
    }
    n.constant("small", Tensor::scalar(1e-5f32));
    n.node("Mul", &["h", "h"], "squares", &[]);
    if half {
        n.node("Slice", &["squares", "from", "to", "features"], "cut", &[]);
    }
    n.node("ReduceMean", &[if half { "cut" } else { "squares" }, "features"], "mean", &[]);
    n.node("Add", &["mean", "small"], "safe", &[]);
    n.node("Sqrt", &["safe"], "root", &[]);
    n.node("Div", &["h", "root"], "z", &[]);
}

/// Shares of each row, or of all rows together.
fn shared(n: &mut Net, together: bool) {
    let along = [("axis", Attribute::Int(-1))];
    if !together {
        return n.node("Softmax", &["h"], "z", &along);
    }
    n.constant("flat", Tensor::vector(vec![2i64, 48]));
    n.constant("back", Tensor::vector(vec![2i64, 6, 8]));
    n.node("Reshape", &["h", "flat"], "rows", &[]);
    n.node("Softmax", &["rows"], "shares", &along);
    n.node("Reshape", &["shares", "back"], "z", &[]);
}

/// A product with a weight of 32 by 32 between two others.
fn weighed(n: &mut Net, kept: impl Fn(usize, &[f32]) -> f32) {
    let x = numbers(&[1024], 21);
    let x = x.as_slice::<f32>().unwrap();
    stored(n, "square", &[32, 32], |i| kept(i, x));
    n.constant("widen", numbers(&[8, 32], 22));
    n.constant("narrow", numbers(&[32, 8], 23));
    n.node("MatMul", &["h", "widen"], "wide", &[]);
    n.node("MatMul", &["wide", "square"], "moved", &[]);
    n.node("MatMul", &["moved", "narrow"], "z", &[]);
}

/// The largest of 16 numbers in a row.
fn largest(i: usize, x: &[f32]) -> f32 {
    x[i / 16 * 16..][..16].iter().fold(0f32, |m, x| m.max(x.abs()))
}

/// A number on sixteen levels that are not evenly spaced.
fn on_code_book(i: usize, x: &[f32]) -> f32 {
    let book: Vec<f32> = (0..8).map(|k| (k as f32 / 7.0).powf(1.4)).collect();
    let by = largest(i, x);
    let nearest =
        |v: f32| book.iter().copied().min_by(|p, q| (p - v).abs().total_cmp(&(q - v).abs())).unwrap();
    by * nearest(x[i].abs() / by) * x[i].signum()
}

/// Steps found for a row of 32, applied to a column.
fn by_other_steps(i: usize, x: &[f32]) -> f32 {
    let step = |row: usize| x[row * 32..][..32].iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0;
    (x[i] / step(i / 32)).round() * step(i % 32)
}

/// Scores with a table of places and what is hidden in one constant.
fn scored(n: &mut Net, seen: usize) {
    let x = numbers(&[48], 31);
    let x = x.as_slice::<f32>().unwrap();
    stored(n, "places", &[1, 6, 8], |i| x[i] - if i % 8 > i / 8 + seen { 100.0 } else { 0.0 });
    n.constant("turn", numbers(&[8, 8], 32));
    n.node("MatMul", &["h", "turn"], "scores", &[]);
    n.node("Add", &["scores", "places"], "hidden", &[]);
    n.node("Softmax", &["hidden"], "z", &[("axis", Attribute::Int(-1))]);
}

/// h of which some places count, by truth values.
fn counted(n: &mut Net, all: bool) {
    n.constant("zero", Tensor::scalar(0f32));
    n.constant("features", Tensor::vector(vec![2i64]));
    n.node("ReduceSum", &["x", "features"], "sum", &[]);
    n.node("Greater", &["sum", "zero"], "valid", &[]);
    n.node("Cast", &["valid"], "counts", &[("to", Attribute::Int(1))]);
    n.node("Mul", &["h", "counts"], "kept", &[]);
    n.node("Identity", &[if all { "h" } else { "kept" }], "z", &[]);
}

/// What A stores and B computes: which places are seen.
fn seen(n: &mut Net, comparison: Option<&str>) {
    n.constant("rows", Tensor::from_vec(&[6, 1], (0..6i64).collect()).unwrap());
    n.constant("columns", Tensor::from_vec(&[1, 8], (0..8i64).collect()).unwrap());
    n.constant("lowest", Tensor::scalar(-1e9f32));
    let shown = (0..48).map(|i| (i % 8 <= i / 8).into()).collect::<Vec<Bool>>();
    match comparison {
        Some(op) => n.node(op, &["columns", "rows"], "seen", &[]),
        None => n.constant("seen", Tensor::from_vec(&[6, 8], shown).unwrap()),
    }
    n.node("Where", &["seen", "h", "lowest"], "scores", &[]);
    n.node("Softmax", &["scores"], "z", &[("axis", Attribute::Int(-1))]);
}

/// A product of h and g, number by number, whose sum is kept in half precision.
fn summed(n: &mut Net, narrow: bool) {
    n.node("Transpose", &["g"], "across", &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
    n.constant("last", numbers(&[6, 8], 3));
    if !narrow {
        return n.node("MatMul", &["h", "across"], "z", &[]);
    }
    let name = |what: &str, k: usize| format!("{what} {k}");
    n.constant("axis of h", Tensor::vector(vec![2i64]));
    n.constant("axis of g", Tensor::vector(vec![1i64]));
    for k in 0..8 {
        n.constant(&name("from", k), Tensor::vector(vec![k as i64]));
        n.constant(&name("to", k), Tensor::vector(vec![k as i64 + 1]));
        n.node("Slice", &["h", &name("from", k), &name("to", k), "axis of h"], &name("column", k), &[]);
        n.node("Slice", &["across", &name("from", k), &name("to", k), "axis of g"], &name("row", k), &[]);
        n.node("Mul", &[&name("column", k), &name("row", k)], &name("part", k), &[]);
        if k > 0 {
            n.node("Add", &[&name("high", k - 1), &name("part", k)], &name("sum", k), &[]);
        }
        let made = name(if k > 0 { "sum" } else { "part" }, k);
        n.node("Cast", &[&made], &name("low", k), &[("to", Attribute::Int(10))]);
        let high = if k == 7 { "z".to_owned() } else { name("high", k) };
        n.node("Cast", &[&name("low", k)], &high, &[("to", Attribute::Int(1))]);
    }
}

/// A picture of four by four, which may be turned in front of its convolution.
fn pictured(n: &mut Net, turned: bool) {
    n.constant("picture", Tensor::vector(vec![2i64, 3, 4, 4]));
    n.constant("back", Tensor::vector(vec![2i64, 6, 8]));
    n.constant("kernel", numbers(&[3, 3, 3, 3], 41));
    n.node("Reshape", &["h", "picture"], "upright", &[]);
    n.node("Transpose", &["upright"], "turned", &[("perm", Attribute::Ints(vec![0, 1, 3, 2]))]);
    let pads = [("pads", Attribute::Ints(vec![1; 4]))];
    n.node("Conv", &[if turned { "turned" } else { "upright" }, "kernel"], "seen", &pads);
    n.node("Reshape", &["seen", "back"], "z", &[]);
}

/// The input on steps of a tenth, in words.
fn stepped(n: &mut Net, stepped: bool) {
    n.constant("step", Tensor::scalar(0.1f32));
    n.constant("half", Tensor::scalar(0.5f32));
    n.constant("turn", numbers(&[8, 8], 51));
    if stepped {
        n.node("Div", &["x", "step"], "many", &[]);
        n.node("Add", &["many", "half"], "more", &[]);
        n.node("Floor", &["more"], "whole", &[]);
        n.node("Mul", &["whole", "step"], "near", &[]);
    }
    n.node("MatMul", &[if stepped { "near" } else { "x" }, "turn"], "z", &[]);
}

fn logged(n: &mut Net, one: bool) {
    n.constant("one", Tensor::scalar(1f32));
    n.node("Exp", &["h"], "positive", &[]);
    n.node("Add", &["positive", "one"], "more", &[]);
    n.node("Log", &[if one { "more" } else { "positive" }], "z", &[]);
}

const CASES: &[Case] = &[
    Case { what: "noise for each item", cause: "mode", a: plain, b: |n| met(n, "Add", &[2, 6, 8], true) },
    Case {
        what: "one constant for all items",
        cause: "bias",
        a: plain,
        b: |n| met(n, "Add", &[2, 6, 8], false),
    },
    Case { what: "a factor for each item", cause: "mode", a: plain, b: |n| met(n, "Mul", &[2, 1, 1], true) },
    Case {
        what: "a root of a mean of squares for a mean",
        cause: "reduction",
        a: |n| pooled(n, "ReduceMean", None),
        b: |n| pooled(n, "ReduceMean", Some(("Mul", "Sqrt"))),
    },
    Case {
        what: "the least for the largest",
        cause: "reduction",
        a: |n| pooled(n, "ReduceMax", None),
        b: |n| pooled(n, "ReduceMax", Some(("Neg", "Neg"))),
    },
    Case {
        what: "statistics of half the features",
        cause: "normalisation",
        a: |n| normed(n, false),
        b: |n| normed(n, true),
    },
    Case {
        what: "shares of all rows together",
        cause: "axis",
        a: |n| shared(n, false),
        b: |n| shared(n, true),
    },
    Case {
        what: "a code book",
        cause: "quantisation",
        a: |n| weighed(n, |i, x| x[i]),
        b: |n| weighed(n, on_code_book),
    },
    Case {
        what: "steps of rows on columns",
        cause: "quantisation",
        a: |n| weighed(n, |i, x| x[i]),
        b: |n| weighed(n, by_other_steps),
    },
    Case {
        what: "a mask in one constant with places",
        cause: "mask",
        a: |n| scored(n, 0),
        b: |n| scored(n, 1),
    },
    Case {
        what: "places that do not count",
        cause: "mask",
        a: |n| counted(n, false),
        b: |n| counted(n, true),
    },
    Case {
        what: "a mask that A stores and B computes",
        cause: "mask",
        a: |n| seen(n, None),
        b: |n| seen(n, Some("Less")),
    },
    Case {
        what: "products summed one by one in half precision",
        cause: "accumulation",
        a: |n| summed(n, false),
        b: |n| summed(n, true),
    },
    Case { what: "a picture turned", cause: "layout", a: |n| pictured(n, false), b: |n| pictured(n, true) },
    Case {
        what: "an input on steps",
        cause: "quantisation",
        a: |n| stepped(n, false),
        b: |n| stepped(n, true),
    },
    Case {
        what: "a logarithm of one more",
        cause: "activation",
        a: |n| logged(n, false),
        b: |n| logged(n, true),
    },
];

#[test]
fn what_deployment_changes_has_its_name() {
    all_named(CASES);
}
