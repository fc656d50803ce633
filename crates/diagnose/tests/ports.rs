//! What faults of ported networks are called, as a table like that of `names.rs`; and what is none.

mod common;
mod net;
mod table;

use isotrace_diagnose::{Detail, Options, Source};
use isotrace_graph::Attribute;
use isotrace_report::{Report, Verdict};
use isotrace_tensor::Tensor;
use net::{Net, compare, diff, numbers};
use table::{Between, Case, all_named, around};

fn int(name: &'static str, i: i64) -> (&'static str, Attribute) {
    (name, Attribute::Int(i))
}

fn stretched(seed: u64, by: impl Fn(usize, f32) -> f32) -> Vec<f32> {
    let len = if seed >= 100 { 256 } else { 64 };
    common::numbers(len, seed).into_iter().enumerate().map(|(i, x)| by(i, x)).collect()
}

/// h and a number for each channel, added to g.
fn by_number(n: &mut Net, op: &str) {
    n.constant("by", Tensor::scalar(1.7f32));
    n.node(op, &["h", "by"], "scaled", &[]);
    n.node("Add", &["scaled", "g"], "z", &[]);
}

fn with_bias(n: &mut Net, op: &str) {
    n.constant("bias", numbers(&[8], 11));
    n.node(op, &["h", "bias"], "biased", &[]);
    n.node("Tanh", &["biased"], "z", &[]);
}

fn two(n: &mut Net, op: &str) {
    n.node(op, &["h", "g"], "z", &[]);
}

fn gained(n: &mut Net, gain: bool) {
    n.constant("gain", if gain { numbers(&[8], 12) } else { Tensor::vector(vec![1f32; 8]) });
    n.node("Mul", &["h", "gain"], "branch", &[]);
    n.node("Add", &["branch", "g"], "z", &[]);
}

/// h and another value, or h as it is.
fn unless_left_out(n: &mut Net, there: bool, op: &str, by: &str, output: &str) {
    let (op, reads) = if there { (op, vec!["h", by]) } else { ("Identity", vec!["h"]) };
    n.node(op, &reads, output, &[]);
}

/// What a row as a whole says about h.
fn gated(n: &mut Net, gate: bool) {
    n.constant("rows", Tensor::vector(vec![1i64]));
    n.node("ReduceMean", &["g", "rows"], "mean", &[int("keepdims", 1)]);
    n.node("Sigmoid", &["mean"], "gate", &[]);
    unless_left_out(n, gate, "Mul", "gate", "through");
    n.node("Add", &["through", "g"], "z", &[]);
}

fn one_plus(n: &mut Net, one: bool) {
    n.constant("rows", Tensor::vector(vec![1i64]));
    n.constant("one", Tensor::scalar(1f32));
    n.constant("ones", Tensor::vector(vec![1f32; 8]));
    n.node("ReduceMean", &["g", "rows"], "scale", &[int("keepdims", 1)]);
    n.node("LayerNormalization", &["h", "ones"], "normed", &[int("axis", -1)]);
    if one {
        n.node("Add", &["scale", "one"], "gain", &[]);
    }
    n.node("Mul", &["normed", if one { "gain" } else { "scale" }], "z", &[]);
}

fn bounded(n: &mut Net, bound: bool) {
    n.constant("least", Tensor::scalar(-0.1f32));
    unless_left_out(n, bound, "Max", "least", "held");
    n.node("Add", &["held", "g"], "z", &[]);
}

/// h times the inverse of its length.
fn of_unit_length(n: &mut Net, whole: bool) {
    n.constant("last axis", Tensor::vector(vec![-1i64]));
    n.node("Mul", &["h", "h"], "squares", &[]);
    n.node("ReduceSum", &["squares", "last axis"], "sum", &[int("keepdims", 1)]);
    n.node("Sqrt", &["sum"], "length", &[]);
    n.node("Reciprocal", &["length"], "inverse", &[]);
    unless_left_out(n, whole, "Mul", "inverse", "unit");
    n.node("Add", &["unit", "g"], "z", &[]);
}

fn summed(n: &mut Net, equation: &str) {
    n.node("Einsum", &["h", "g"], "z", &[("equation", Attribute::Bytes(equation.into()))]);
}

fn curved(n: &mut Net, behind: bool) {
    n.constant("bias", numbers(&[8], 13));
    if behind {
        n.node("Sigmoid", &["h"], "curve", &[]);
        n.node("Add", &["curve", "bias"], "z", &[]);
    } else {
        n.node("Add", &["h", "bias"], "biased", &[]);
        n.node("Sigmoid", &["biased"], "z", &[]);
    }
}

fn shares(n: &mut Net, behind: bool) {
    n.constant("scale", Tensor::scalar(0.35f32));
    let (first, second) = if behind { ("Softmax", "Mul") } else { ("Mul", "Softmax") };
    for (op, from, to) in [(first, "h", "first"), (second, "first", "z")] {
        match op {
            "Mul" => n.node("Mul", &[from, "scale"], to, &[]),
            _ => n.node("Softmax", &[from], to, &[int("axis", -1)]),
        }
    }
}

fn weighed(n: &mut Net, by: fn(usize, f32) -> f32) {
    n.constant("weight", Tensor::from_vec(&[8, 8], stretched(14, by)).unwrap());
    n.node("MatMul", &["h", "weight"], "z", &[]);
}

/// A product with its bias, each by a factor.
fn layered(n: &mut Net, weight: f32, bias: f32) {
    n.constant("weight", Tensor::from_vec(&[8, 8], stretched(24, |_, x| x * weight)).unwrap());
    n.constant(
        "bias",
        Tensor::vector(common::numbers(8, 25).into_iter().map(|x| x * bias).collect::<Vec<f32>>()),
    );
    n.constant("to rows", Tensor::vector(vec![12i64, 8]));
    n.constant("back", Tensor::vector(vec![2i64, 6, 8]));
    n.node("Reshape", &["h", "to rows"], "rows", &[]);
    n.node("Gemm", &["rows", "weight", "bias"], "flat", &[]);
    n.node("Reshape", &["flat", "back"], "z", &[]);
}

fn mixed(n: &mut Net, exchanged: bool) {
    let share: Vec<f32> = common::numbers(8, 15).into_iter().map(|x| 0.5 + 0.4 * x).collect();
    n.constant("rest", Tensor::vector(share.iter().map(|x| 1.0 - x).collect::<Vec<f32>>()));
    n.constant("share", Tensor::vector(share));
    let [of_h, of_g] = if exchanged { ["rest", "share"] } else { ["share", "rest"] };
    n.node("Mul", &["h", of_h], "of h", &[]);
    n.node("Mul", &["g", of_g], "of g", &[]);
    n.node("Add", &["of h", "of g"], "z", &[]);
}

fn waves(n: &mut Net, parts: [&str; 2]) {
    n.constant("sizes", Tensor::vector(vec![4i64, 4]));
    n.node("Split", &["h", "sizes"], "angle", &[int("axis", 2)]);
    let rest = n.value("rest");
    n.at("angle").outputs.push(Some(rest));
    n.node("Cos", &["angle"], "cos", &[]);
    n.node("Sin", &["angle"], "sin", &[]);
    n.node("Concat", &parts, "z", &[int("axis", 2)]);
}

/// A number for each channel and each distance of two places, added to pairs of them.
fn apart(n: &mut Net, flipped: bool) {
    let by = common::numbers(11 * 8, 16);
    let at = |k: usize| {
        let (i, j) = (k / 48, k / 8 % 6);
        let distance = if flipped { j + 5 - i } else { i + 5 - j };
        by[distance * 8 + k % 8]
    };
    n.constant("table", Tensor::from_vec(&[6, 6, 8], (0..288).map(at).collect()).unwrap());
    n.constant("pairs", Tensor::vector(vec![2i64, 6, 1, 8]));
    n.constant("axes", Tensor::vector(vec![2i64]));
    n.node("Reshape", &["h", "pairs"], "each", &[]);
    n.node("Add", &["each", "table"], "placed", &[]);
    n.node("Tanh", &["placed"], "bent", &[]);
    n.node("ReduceMean", &["bent", "axes"], "z", &[int("keepdims", 0)]);
}

fn best(n: &mut Net, op: &str) {
    n.node(op, &["h"], "place", &[int("axis", 2), int("keepdims", 1)]);
    n.node("GatherElements", &["g", "place"], "taken", &[int("axis", 2)]);
    n.constant("repeats", Tensor::vector(vec![1i64, 1, 8]));
    n.node("Tile", &["taken", "repeats"], "z", &[]);
}

/// A convolution and its norm; the kernel may have each filter by a factor of its own.
fn convolved(n: &mut Net, by: fn(usize) -> f32) {
    let kernel = common::numbers(108, 17).into_iter().enumerate().map(|(k, x)| x * by(k / 18)).collect();
    n.constant("kernel", Tensor::from_vec(&[6, 6, 3], kernel).unwrap());
    n.node("Conv", &["h", "kernel"], "plain", &[("pads", Attribute::Ints(vec![1, 1]))]);
    for (i, name) in ["s", "b", "m", "var"].into_iter().enumerate() {
        let of = common::numbers(6, 18 + i as u64).into_iter().map(|x| x.abs() + 0.5).collect::<Vec<f32>>();
        n.constant(name, Tensor::vector(of));
    }
    n.node("BatchNormalization", &["plain", "s", "b", "m", "var"], "z", &[]);
}

fn of_experts(n: &mut Net, first: usize) {
    let all = stretched(101, |_, x| x);
    let table = (0..4).flat_map(|e| all[(e + first) % 4 * 64..][..64].to_vec()).collect();
    n.constant("table", Tensor::from_vec(&[4, 8, 8], table).unwrap());
    n.constant("rows", Tensor::vector(vec![1i64, 2]));
    n.node("ReduceMean", &["x", "rows"], "of all", &[int("keepdims", 0)]);
    n.constant("none", Tensor::scalar(0f32));
    n.node("Greater", &["of all", "none"], "positive", &[]);
    n.node("Cast", &["positive"], "which", &[int("to", 7)]);
    n.node("Gather", &["table", "which"], "chosen", &[int("axis", 0)]);
    n.node("MatMul", &["h", "chosen"], "z", &[]);
}

fn by_statistics(n: &mut Net, narrow: bool) {
    n.constant("last axis", Tensor::vector(vec![-1i64]));
    n.constant("epsilon", Tensor::scalar(1e-5f32));
    n.node("Mul", &["h", "h"], "squares", &[]);
    n.node("ReduceMean", &["squares", "last axis"], "mean", &[int("keepdims", 1)]);
    if narrow {
        n.node("Cast", &["mean"], "low", &[int("to", 10)]);
        n.node("Cast", &["low"], "high", &[int("to", 1)]);
    }
    n.node("Add", &[if narrow { "high" } else { "mean" }, "epsilon"], "above", &[]);
    n.node("Sqrt", &["above"], "root", &[]);
    n.node("Div", &["h", "root"], "z", &[]);
}

fn in_parts(n: &mut Net, parts: bool) {
    let weight = common::numbers(64, 23);
    if !parts {
        n.constant("weight", Tensor::from_vec(&[8, 8], weight).unwrap());
        return n.node("MatMul", &["h", "weight"], "z", &[]);
    }
    n.constant("sizes", Tensor::vector(vec![4i64, 4]));
    n.node("Split", &["h", "sizes"], "left", &[int("axis", 2)]);
    let right = n.value("right");
    n.at("left").outputs.push(Some(right));
    n.constant("above", Tensor::from_vec(&[4, 8], weight[..32].to_vec()).unwrap());
    n.constant("below", Tensor::from_vec(&[4, 8], weight[32..].to_vec()).unwrap());
    n.node("MatMul", &["left", "above"], "first", &[]);
    n.node("Cast", &["first"], "low", &[int("to", 10)]);
    n.node("Cast", &["low"], "high", &[int("to", 1)]);
    n.node("MatMul", &["right", "below"], "second", &[]);
    n.node("Add", &["high", "second"], "z", &[]);
}

const CASES: &[Case] = &[
    Case { what: "a bias taken off", cause: "bias", a: |n| with_bias(n, "Add"), b: |n| with_bias(n, "Sub") },
    Case {
        what: "divided by a number",
        cause: "scale",
        a: |n| by_number(n, "Mul"),
        b: |n| by_number(n, "Div"),
    },
    Case { what: "a branch taken off", cause: "residual", a: |n| two(n, "Add"), b: |n| two(n, "Sub") },
    Case { what: "the smaller of two", cause: "reduction", a: |n| two(n, "Max"), b: |n| two(n, "Min") },
    Case { what: "no gain on a branch", cause: "scale", a: |n| gained(n, true), b: |n| gained(n, false) },
    Case { what: "no gate of channels", cause: "scale", a: |n| gated(n, true), b: |n| gated(n, false) },
    Case { what: "w for 1 + w", cause: "normalisation", a: |n| one_plus(n, true), b: |n| one_plus(n, false) },
    Case { what: "no lower bound", cause: "activation", a: |n| bounded(n, true), b: |n| bounded(n, false) },
    Case {
        what: "not divided by the length, written as a product",
        cause: "normalisation",
        a: |n| of_unit_length(n, true),
        b: |n| of_unit_length(n, false),
    },
    Case {
        what: "axes exchanged in a sum",
        cause: "axis",
        a: |n| summed(n, "bij,bik->bjk"),
        b: |n| summed(n, "bij,bik->bkj"),
    },
    Case { what: "a bias behind the curve", cause: "bias", a: |n| curved(n, false), b: |n| curved(n, true) },
    Case {
        what: "a scale behind the softmax",
        cause: "scale",
        a: |n| shares(n, false),
        b: |n| shares(n, true),
    },
    Case {
        what: "a weight by one factor",
        cause: "scale",
        a: |n| weighed(n, |_, x| x),
        b: |n| weighed(n, |_, x| x / 0.9),
    },
    Case {
        what: "a weight and its bias by one factor",
        cause: "scale",
        a: |n| layered(n, 1.0, 1.0),
        b: |n| layered(n, 1.0 / 0.9, 1.0 / 0.9),
    },
    Case {
        what: "a bias of the other sign",
        cause: "bias",
        a: |n| layered(n, 1.0, 1.0),
        b: |n| layered(n, 1.0, -1.0),
    },
    Case { what: "shares exchanged", cause: "gate_order", a: |n| mixed(n, false), b: |n| mixed(n, true) },
    Case {
        what: "sines in front of cosines",
        cause: "rope",
        a: |n| waves(n, ["cos", "sin"]),
        b: |n| waves(n, ["sin", "cos"]),
    },
    Case { what: "distances the other way", cause: "rope", a: |n| apart(n, false), b: |n| apart(n, true) },
    Case { what: "the least", cause: "index", a: |n| best(n, "ArgMax"), b: |n| best(n, "ArgMin") },
    Case {
        what: "a norm multiplied in and kept",
        cause: "weight_value",
        a: |n| convolved(n, |_| 1.0),
        b: |n| convolved(n, |c| 0.7 + 0.13 * c as f32),
    },
    Case {
        what: "experts in another order",
        cause: "weight_layout",
        a: |n| of_experts(n, 0),
        b: |n| of_experts(n, 1),
    },
    Case {
        what: "statistics in half precision",
        cause: "normalisation",
        a: |n| by_statistics(n, false),
        b: |n| by_statistics(n, true),
    },
    Case {
        what: "a sum kept in half precision on its way",
        cause: "accumulation",
        a: |n| in_parts(n, false),
        b: |n| in_parts(n, true),
    },
];

#[test]
fn names_follow_from_what_the_parts_are_for() {
    all_named(CASES);
}

/// A reader of x at the head of a long way, a reader of c beside it.
fn readers(first: &str, second: &str) -> Net {
    let mut n = Net::default();
    n.value("x");
    n.value("c");
    let mut at = first.to_owned();
    for i in 0..6 {
        let (product, curve) = (format!("product {i}"), format!("curve {i}"));
        n.constant(&format!("w {i}"), numbers(&[8, 8], 60 + i));
        n.node("MatMul", &[&at, &format!("w {i}")], &product, &[]);
        n.node("Tanh", &[&product], &curve, &[]);
        at = curve;
    }
    n.node("Sigmoid", &[second], "gate", &[]);
    n.node("Mul", &[&at, "gate"], "both", &[]);
    n.node("MatMul", &["both", "w 0"], "y", &[]);
    n
}

#[test]
fn one_reader_of_the_wrong_input_is_no_exchange() {
    let (a, b) = (readers("x", "c").finish(&["x", "c"]), readers("c", "c").finish(&["x", "c"]));
    let inputs = [("x", 98), ("c", 99)].map(|(name, seed)| (name.to_owned(), numbers(&[2, 6, 8], seed)));
    let source = |path, graph| Source { path, graph, recorded: None };
    let options = Options { allowed: &[], progress: None, detail: Detail::FULL };
    let report: Report = diff(source("a", &a), source("b", &b), &inputs.into_iter().collect(), options);
    let told: Vec<&str> = report.culprits.iter().map(|c| c.cause.summary.as_str()).collect();
    assert!(told.len() == 1 && !told[0].contains("each other's part"), "{told:?}");
}

/// h and a constant that several operations made of a weight: stored as somebody folded it, or computed.
fn folded(n: &mut Net, name: &str, off: f32) {
    let made = |x: f32| ((x.mul_add(0.5, 0.9)).ln() * 0.7).tanh() * (1.0 + off);
    let x: Vec<f32> = common::numbers(8, 31).into_iter().map(made).collect();
    n.constant(name, Tensor::vector(x));
    n.node("Add", &["h", name], "z", &[]);
}

/// h by one number that several operations made, 1 less a share at last.
fn lacking(n: &mut Net, name: &str, off: f32) {
    n.constant(name, Tensor::from_vec(&[1], vec![0.273_774_62 * (1.0 + off)]).unwrap());
    n.node("Mul", &["h", name], "z", &[]);
}

/// Means of h, whose layout changes behind them: in double precision or not.
fn averaged(n: &mut Net, double: bool) {
    n.constant("last axis", Tensor::vector(vec![-1i64]));
    if double {
        n.node("Cast", &["h"], "wide", &[int("to", 11)]);
    }
    n.node("ReduceMean", &[if double { "wide" } else { "h" }, "last axis"], "mean", &[int("keepdims", 0)]);
    n.node("Unsqueeze", &["mean", "last axis"], "column", &[]);
    if double {
        n.node("Cast", &["column"], "narrow", &[int("to", 1)]);
    }
    n.node("Mul", &["g", if double { "narrow" } else { "column" }], "z", &[]);
}

#[test]
fn what_other_hands_folded_or_kept_wider_is_no_fault() {
    /// A few half ulps, as a chain of operations leaves them.
    const FOLDED: f32 = 6e-7;
    /// Half an ulp of a share, in what it lacks to 1.
    const LOST: f32 = 3.3e-7;
    let cases: [(&str, Verdict, Between, Between); 7] = [
        ("folded twice", Verdict::Equivalent, |n| folded(n, "made", 0.0), |n| folded(n, "folded", FOLDED)),
        ("another number", Verdict::Divergent, |n| folded(n, "made", 0.0), |n| folded(n, "folded", 3e-5)),
        ("a parameter", Verdict::Divergent, |n| folded(n, "made", 0.0), |n| folded(n, "made", FOLDED)),
        (
            "few, folded twice",
            Verdict::Equivalent,
            |n| lacking(n, "made", 0.0),
            |n| lacking(n, "folded", LOST),
        ),
        (
            "few, another number",
            Verdict::Divergent,
            |n| lacking(n, "made", 0.0),
            |n| lacking(n, "folded", 3e-5),
        ),
        ("a parameter of few", Verdict::Divergent, |n| lacking(n, "made", 0.0), |n| lacking(n, "made", LOST)),
        ("in double precision", Verdict::Equivalent, |n| averaged(n, true), |n| averaged(n, false)),
    ];
    for (what, verdict, a, b) in cases {
        let report = compare(around(a), around(b));
        assert_eq!(report.verdict, verdict, "{what}: {:?}", report.culprits);
    }
}
