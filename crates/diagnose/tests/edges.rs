//! What reads another value than it should, where what it reads is right and has right readers of its own.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::Tensor;
use net::{Net, compare, numbers};
use table::{Case, all_named, around};

/// Two values, each divided by the root of its mean of squares, or both by that of the first.
fn both_brought(n: &mut Net, by_first: bool) {
    n.constant("features", Tensor::vector(vec![2i64]));
    n.constant("least", Tensor::scalar(1e-6f32));
    for v in ["h", "g"] {
        let [square, mean, safe, root, out] =
            ["square", "mean", "safe", "root", "brought"].map(|name| format!("{name} {v}"));
        let of_first = by_first && v == "g";
        if !of_first {
            n.node("Mul", &[v, v], &square, &[]);
            n.node("ReduceMean", &[&square, "features"], &mean, &[("keepdims", Attribute::Int(1))]);
        }
        n.node("Add", &[if of_first { "mean h" } else { &mean }, "least"], &safe, &[]);
        n.node("Sqrt", &[&safe], &root, &[]);
        n.node("Div", &[v, &root], &out, &[]);
    }
    n.constant("weight", numbers(&[8, 8], 51));
    n.node("MatMul", &["brought h", "weight"], "product", &[]);
    n.node("Add", &["product", "brought g"], "z", &[]);
}

/// A GELU whose curve is taken of its argument over the root of two, or of the argument itself.
fn bent(n: &mut Net, rooted: bool) {
    for (name, x) in [("root", 2f32.sqrt()), ("one", 1.0), ("half", 0.5)] {
        n.constant(name, Tensor::scalar(x));
    }
    if rooted {
        n.node("Div", &["h", "root"], "inner", &[]);
    }
    n.node("Erf", &[if rooted { "inner" } else { "h" }], "curve", &[]);
    n.node("Add", &["curve", "one"], "risen", &[]);
    n.node("Mul", &["h", "risen"], "gated", &[]);
    n.node("Mul", &["gated", "half"], "z", &[]);
}

/// The mean over the places that are not left out, these one place further on or not.
fn pooled(n: &mut Net, moved: bool) {
    n.constant("nought", Tensor::scalar(0f32));
    n.constant("places", Tensor::vector(vec![1i64]));
    n.constant("next", Tensor::vector(vec![1i64, 2, 3, 4, 5, 0]));
    n.node("Greater", &["g", "nought"], "seen", &[]);
    n.node("Cast", &["seen"], "stated", &[("to", Attribute::Int(1))]);
    if moved {
        n.node("Gather", &["stated", "next"], "counted", &[("axis", Attribute::Int(1))]);
    } else {
        n.node("Identity", &["stated"], "counted", &[]);
    }
    n.node("Mul", &["h", "counted"], "kept", &[]);
    let keep = [("keepdims", Attribute::Int(1))];
    n.node("ReduceSum", &["kept", "places"], "total", &keep);
    n.node("ReduceSum", &["counted", "places"], "count", &keep);
    n.constant("one", Tensor::scalar(1f32));
    n.node("Max", &["count", "one"], "safe", &[]);
    n.node("Div", &["total", "safe"], "mean", &[]);
    n.node("Add", &["h", "mean"], "z", &[]);
}

/// Shares of rows, or of all rows of an item together.
fn shared(n: &mut Net, rows: [i64; 2]) {
    n.constant("rows", Tensor::vector(rows.to_vec()));
    n.constant("shape", Tensor::vector(vec![2i64, 6, 8]));
    n.node("Reshape", &["h", "rows"], "cut", &[]);
    n.node("Softmax", &["cut"], "shares", &[("axis", Attribute::Int(-1))]);
    n.node("Reshape", &["shares", "shape"], "z", &[]);
}

/// Scores of what was turned by a table, one factor with the product or behind it.
fn scored(n: &mut Net, fused: Option<f32>) {
    let angle = |i: usize| (i / 8 % 6) as f32 * 0.3f32.powi((i % 4) as i32);
    let table =
        |f: fn(f32) -> f32| Tensor::from_vec(&[6, 8], (0..48).map(|i| f(angle(i))).collect()).unwrap();
    n.constant("cosines", table(f32::cos));
    n.constant("sines", table(f32::sin));
    n.constant("halves", Tensor::vector(vec![4i64, 5, 6, 7, 0, 1, 2, 3]));
    n.node("Gather", &["g", "halves"], "other", &[("axis", Attribute::Int(2))]);
    n.node("Mul", &["g", "cosines"], "kept", &[]);
    n.node("Mul", &["other", "sines"], "turned", &[]);
    n.node("Add", &["kept", "turned"], "keys", &[]);
    n.node("Transpose", &["keys"], "columns", &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
    if let Some(alpha) = fused {
        n.node("FusedMatMul", &["h", "columns"], "scores", &[("alpha", Attribute::Float(alpha))]);
        n.at("scores").domain = "com.microsoft".into();
    } else {
        n.constant("root", Tensor::scalar(8f32.sqrt()));
        n.node("MatMul", &["h", "columns"], "product", &[]);
        n.node("Div", &["product", "root"], "scores", &[]);
    }
    n.node("Softmax", &["scores"], "shares", &[("axis", Attribute::Int(-1))]);
    n.node("MatMul", &["shares", "g"], "z", &[]);
}

/// A norm by squares, the squares those of what it brings or of what that was before a branch was added.
fn of_squares(n: &mut Net, before: bool) {
    n.constant("end", Tensor::vector(vec![-1i64]));
    n.constant("epsilon", Tensor::scalar(1e-6f32));
    n.node("Tanh", &["g"], "branch", &[]);
    n.node("Add", &["h", "branch"], "sum", &[]);
    let read = if before { "h" } else { "sum" };
    n.node("Mul", &[read, read], "squares", &[]);
    n.node("ReduceMean", &["squares", "end"], "mean", &[("keepdims", Attribute::Int(1))]);
    n.node("Add", &["mean", "epsilon"], "safe", &[]);
    n.node("Sqrt", &["safe"], "root", &[]);
    n.node("Div", &["sum", "root"], "z", &[]);
}

/// Two readers of a norm, the second of the rows one place further on; where they are not moved, both share one.
fn of_next(n: &mut Net, moved: bool) {
    n.constant("end", Tensor::vector(vec![-1i64]));
    n.constant("next", Tensor::vector(vec![1i64, 2, 3, 4, 5, 0]));
    n.constant("gain", numbers(&[8], 51));
    let normed = |n: &mut Net, x: &str| {
        let named = |part: &str| format!("{part} {x}");
        n.node("Mul", &[x, x], &named("squares"), &[]);
        n.node("ReduceMean", &[&named("squares"), "end"], &named("mean"), &[("keepdims", Attribute::Int(1))]);
        n.node("Sqrt", &[&named("mean")], &named("root"), &[]);
        n.node("Div", &[x, &named("root")], &named("normed"), &[]);
    };
    normed(n, "h");
    if moved {
        n.node("Gather", &["h", "next"], "rows", &[("axis", Attribute::Int(1))]);
        normed(n, "rows");
    }
    n.node("Mul", &[if moved { "normed rows" } else { "normed h" }, "gain"], "brought", &[]);
    n.node("MatMul", &["normed h", "w"], "first", &[]);
    n.node("Add", &["first", "brought"], "z", &[]);
}

/// A state that decays, and is asked before; each row by its number.
fn decayed(n: &mut Net, power: i32) {
    let by: Vec<f32> = (0..6).map(|i| (0.9 - 0.1 * i as f32).powi(power)).collect();
    n.constant("decay", Tensor::from_vec(&[6, 1], by).unwrap());
    n.node("Mul", &["x", "decay"], "kept", &[]);
    n.node("Add", &["kept", "h"], "z", &[]);
}

#[test]
fn a_factor_is_named_by_the_number_and_not_by_the_table_beside_it() {
    let report = compare(around(|n| scored(n, None)), around(|n| scored(n, Some(0.353_515_63))));
    let first = &report.culprits[0];
    assert_eq!(first.cause.class, "scale", "{first:?}");
    assert_eq!(first.b.outputs, ["scores"], "{first:?}");
}

/// Two shares of h, the one by what g says.
fn shared_out(n: &mut Net, turned_round: bool) {
    n.constant("most", Tensor::scalar(0.7f32));
    n.constant("least", Tensor::scalar(0.3f32));
    let [first, second] = if turned_round { ["least", "most"] } else { ["most", "least"] };
    n.node("Mul", &["h", first], "one", &[]);
    n.node("Mul", &["h", second], "other", &[]);
    n.node("Mul", &["one", "g"], "said", &[]);
    n.node("Add", &["said", "other"], "z", &[]);
}

/// Shares of g by which h is mixed, their factor in front of the softmax or fused into the product behind it.
fn mixed(n: &mut Net, behind: bool) {
    n.constant("few", Tensor::scalar(0.35f32));
    n.constant("turned", Tensor::vector(vec![2i64, 8, 6]));
    n.node("Reshape", &["h", "turned"], "columns", &[]);
    n.node("MatMul", &["g", "columns"], "product", &[]);
    if behind {
        n.node("Softmax", &["product"], "shares", &[]);
        n.node("FusedMatMul", &["shares", "h"], "z", &[("alpha", Attribute::Float(0.35))]);
        let fused = n.at("z");
        (fused.domain, fused.version) = ("com.microsoft".into(), 1);
    } else {
        n.node("Mul", &["product", "few"], "scores", &[]);
        n.node("Softmax", &["scores"], "shares", &[]);
        // Turned twice, which an optimiser leaves out.
        let turn = [("perm", Attribute::Ints(vec![0, 2, 1]))];
        n.node("Transpose", &["h"], "turned once", &turn);
        n.node("Transpose", &["turned once"], "values", &turn);
        n.node("MatMul", &["shares", "values"], "z", &[]);
    }
}

#[test]
fn what_reads_another_value_is_named_where_it_reads_it() {
    all_named(&[
        Case {
            what: "two shares of one value turned round",
            cause: "scale",
            a: |n| shared_out(n, false),
            b: |n| shared_out(n, true),
        },
        Case {
            what: "a scale fused into what comes behind the softmax",
            cause: "scale",
            a: |n| mixed(n, false),
            b: |n| mixed(n, true),
        },
        Case {
            what: "a norm by the mean of another",
            cause: "normalisation",
            a: |n| both_brought(n, false),
            b: |n| both_brought(n, true),
        },
        Case { what: "erf of the whole", cause: "activation", a: |n| bent(n, true), b: |n| bent(n, false) },
        Case { what: "counted elsewhere", cause: "mask", a: |n| pooled(n, false), b: |n| pooled(n, true) },
        Case {
            what: "shares of all rows",
            cause: "axis",
            a: |n| shared(n, [12, 8]),
            b: |n| shared(n, [2, 48]),
        },
        Case {
            what: "squares of what a branch is added to",
            cause: "residual",
            a: |n| of_squares(n, false),
            b: |n| of_squares(n, true),
        },
        Case {
            what: "rows not moved before a norm that two read",
            cause: "index",
            a: |n| of_next(n, true),
            b: |n| of_next(n, false),
        },
        Case { what: "a state's decay", cause: "scale", a: |n| decayed(n, 4), b: |n| decayed(n, 1) },
    ]);
}
