//! What a fault is called, as a table: a few nodes of A from x to y, what B has in their stead, and the cause.

mod common;
mod net;
mod table;

use isotrace_diagnose::{Detail, Options, Source};
use isotrace_graph::Attribute;
use isotrace_tensor::Tensor;
use net::{Net, diff, numbers};
use table::{Case, all_named};

fn brought_to(n: &mut Net, mean: u64, deviation: u64) {
    n.constant("mean", numbers(&[8], mean));
    n.constant("deviation", positive(deviation));
    n.node("Sub", &["x", "mean"], "centred", &[]);
    n.node("Div", &["centred", "deviation"], "z", &[]);
}

fn positive(seed: u64) -> Tensor {
    let x: Vec<f32> = numbers(&[8], seed).as_slice::<f32>().unwrap().iter().map(|x| x.abs() + 0.5).collect();
    Tensor::vector(x)
}

fn gates(n: &mut Net, first: &str, second: &str) {
    n.node(first, &["h"], "first", &[]);
    n.node(second, &["g"], "second", &[]);
    n.node("Mul", &["first", "second"], "z", &[]);
}

fn bordered(n: &mut Net, before: i64) {
    n.constant("before", Tensor::vector(vec![0i64, before, 0]));
    n.constant("after", Tensor::vector(vec![0i64, 1 - before, 0]));
    n.node("Concat", &["before", "after"], "pads", &[("axis", Attribute::Int(0))]);
    n.node("Pad", &["h", "pads"], "z", &[]);
}

fn shifted(n: &mut Net, all: bool) {
    n.constant("rows", Tensor::vector(vec![1i64]));
    n.node("ReduceMean", &["g", "rows"], "condition", &[("keepdims", Attribute::Int(1))]);
    n.node("Mul", &["h", "condition"], "stretched", &[]);
    n.node("ReduceMean", &["h", "rows"], "shift", &[("keepdims", Attribute::Int(1))]);
    if all {
        n.node("Add", &["stretched", "shift"], "z", &[]);
    } else {
        n.node("Identity", &["stretched"], "z", &[]);
    }
}

fn hidden(n: &mut Net, twice: bool) {
    n.constant("scale", Tensor::scalar(0.353_553_4f32));
    let shown = (0..48).map(|i| (i % 8 <= i / 8).into()).collect::<Vec<isotrace_tensor::Bool>>();
    n.constant("shown", Tensor::from_vec(&[1, 6, 8], shown).unwrap());
    n.constant("lowest", Tensor::scalar(-1e9f32));
    n.node("Mul", &["h", "scale"], "scaled", &[]);
    if twice {
        n.node("Mul", &["scaled", "scale"], "again", &[]);
    }
    n.node("Where", &["shown", if twice { "again" } else { "scaled" }, "lowest"], "scores", &[]);
    n.node("Softmax", &["scores"], "z", &[("axis", Attribute::Int(-1))]);
}

/// The edge of a box about g whose size is a share of what is twice a share, squared or not.
fn halved(n: &mut Net, squared: bool) {
    n.constant("two", Tensor::scalar(2f32));
    n.constant("anchors", positive(77));
    n.node("Sigmoid", &["h"], "share", &[]);
    n.node("Mul", &["share", "two"], "twice", &[]);
    if squared {
        n.node("Pow", &["twice", "two"], "size", &[]);
    } else {
        n.node("Abs", &["twice"], "size", &[]);
    }
    n.node("Mul", &["size", "anchors"], "width", &[]);
    n.node("Div", &["width", "two"], "half", &[]);
    n.node("Sub", &["g", "half"], "z", &[]);
}

/// A table of places added to h, of which the last ones may be the third.
fn placed(n: &mut Net, clamped: bool) {
    let x = numbers(&[6, 8], 76);
    let x = x.as_slice::<f32>().unwrap();
    let at = |k: usize| if clamped { x[(k / 8).min(2) * 8 + k % 8] } else { x[k] };
    n.constant("places", Tensor::from_vec(&[1, 6, 8], (0..48).map(at).collect()).unwrap());
    n.node("Add", &["h", "places"], "placed", &[]);
    n.node("Tanh", &["placed"], "z", &[]);
}

/// Scores of h and g through a softmax, with a term more in its denominator or without.
fn beside_one(n: &mut Net, one: bool) {
    n.constant("none", Tensor::from_vec(&[2, 6, 1], vec![0.5f32; 12]).unwrap());
    for (name, x) in [("from", 0i64), ("to", 8), ("last axis", 2)] {
        n.constant(name, Tensor::vector(vec![x]));
    }
    if one {
        n.node("Concat", &["h", "none"], "joined", &[("axis", Attribute::Int(-1))]);
        n.node("Softmax", &["joined"], "all", &[("axis", Attribute::Int(-1))]);
        n.node("Slice", &["all", "from", "to", "last axis"], "z", &[]);
    } else {
        n.node("Softmax", &["h"], "shares", &[("axis", Attribute::Int(-1))]);
        n.node("Cast", &["shares"], "z", &[("to", Attribute::Int(1))]);
    }
}

/// Exponentials divided by their sum, to which something may be added.
fn quotient(n: &mut Net, above: bool) {
    n.constant("last axis", Tensor::vector(vec![-1i64]));
    n.node("Exp", &["h"], "e", &[]);
    n.node("ReduceSum", &["e", "last axis"], "sum", &[("keepdims", Attribute::Int(1))]);
    if above {
        n.node("ReduceMax", &["g", "last axis"], "top", &[("keepdims", Attribute::Int(1))]);
        n.node("Exp", &["top"], "one more", &[]);
        n.node("Add", &["sum", "one more"], "more", &[]);
    }
    n.node("Div", &["e", if above { "more" } else { "sum" }], "z", &[]);
}

/// A branch of twelve nodes, added to h and g or not.
fn branched(n: &mut Net, added: bool) {
    let mut at = "h".to_owned();
    for i in 0..6 {
        let (product, curve) = (format!("product {i}"), format!("curve {i}"));
        n.constant(&format!("w {i}"), numbers(&[8, 8], 60 + i));
        n.node("MatMul", &[&at, &format!("w {i}")], &product, &[]);
        n.node("Tanh", &[&product], &curve, &[]);
        at = curve;
    }
    if added {
        n.node("Add", &[&at, "g"], "both", &[]);
    }
    n.node("Add", &[if added { "both" } else { "g" }, "h"], "z", &[]);
}

/// Scores, to which every row adds a number of its own, that a softmax does not see.
fn above_a_row(n: &mut Net, halved: bool) {
    n.constant("last axis", Tensor::vector(vec![-1i64]));
    n.constant("half", Tensor::scalar(0.5f32));
    n.node("ReduceSum", &["g", "last axis"], "of_row", &[("keepdims", Attribute::Int(1))]);
    if halved {
        n.node("Mul", &["h", "half"], "halved", &[]);
    }
    n.node("Add", &[if halved { "halved" } else { "h" }, "of_row"], "above", &[]);
    n.node("Add", &["above", "g"], "scores", &[]);
    n.node("Softmax", &["scores"], "p", &[("axis", Attribute::Int(-1))]);
    n.node("MatMul", &["p", "v"], "mixed", &[]);
    n.node("Tanh", &["mixed"], "z", &[]);
}

/// Three parts of what g and h hold, of which one goes through a curve.
fn parts(n: &mut Net, through: &str) {
    n.node("Concat", &["h", "g"], "both", &[("axis", Attribute::Int(2))]);
    n.constant("sizes", Tensor::vector(vec![4i64, 4, 8]));
    n.node("Split", &["both", "sizes"], "first", &[("axis", Attribute::Int(2))]);
    let more = ["second", "third"].map(|name| Some(n.value(name)));
    n.at("first").outputs.extend(more);
    n.node("Exp", &[through], "curved", &[]);
    n.node("Concat", &["curved", "curved"], "wide", &[("axis", Attribute::Int(2))]);
    n.node("Mul", &["wide", "third"], "z", &[]);
}

/// A number added to h where nothing is divided by the sum.
fn offset(n: &mut Net, by: f32) {
    n.constant("by", Tensor::scalar(by));
    n.node("Add", &["h", "by"], "above", &[]);
    n.node("Sigmoid", &["above"], "gate", &[]);
    n.node("Mul", &["gate", "g"], "z", &[]);
}

fn halves(n: &mut Net) {
    n.constant("sizes", Tensor::vector(vec![4i64, 4]));
    n.node("Split", &["h", "sizes"], "left", &[("axis", Attribute::Int(2))]);
    let right = n.value("right");
    n.at("left").outputs.push(Some(right));
}

/// h, g and a constant joined in an order, and brought to the width of h.
fn joined(n: &mut Net, order: [&str; 3]) {
    n.constant("table", numbers(&[2, 6, 8], 81));
    n.constant("narrow", numbers(&[24, 8], 82));
    n.node("Concat", &order, "both", &[("axis", Attribute::Int(2))]);
    n.node("MatMul", &["both", "narrow"], "z", &[]);
}

/// A block added to h, and another that reads the sum, or h, added to that.
fn in_turn(n: &mut Net, second: &str) {
    for (i, name) in ["p", "q"].into_iter().enumerate() {
        n.constant(&format!("of {name}"), numbers(&[8, 8], 83 + i as u64));
    }
    n.node("MatMul", &["h", "of p"], "p", &[]);
    n.node("Add", &["h", "p"], "sum", &[]);
    n.node("MatMul", &[second, "of q"], "q", &[]);
    n.node("Tanh", &["q"], "curved", &[]);
    n.node("Add", &["sum", "curved"], "z", &[]);
}

/// A layer norm whose gain stands behind it, or in front of its statistics.
fn gain_of_norm(n: &mut Net, behind: bool) {
    n.constant("gain", numbers(&[8], 86));
    n.constant("one", Tensor::vector(vec![1f32; 8]));
    n.constant("shift", numbers(&[8], 87));
    if !behind {
        n.node("Mul", &["h", "gain"], "early", &[]);
    }
    let reads = if behind { ["h", "gain", "shift"] } else { ["early", "one", "shift"] };
    n.node("LayerNormalization", &reads, "z", &[("epsilon", Attribute::Float(1e-5))]);
}

/// A convolution with a border of noughts, or of what stands at the other end.
fn around_a_border(n: &mut Net, wrapped: bool) {
    n.constant("kernel", numbers(&[6, 6, 3], 88));
    n.constant("places", Tensor::vector(vec![7i64, 0, 1, 2, 3, 4, 5, 6, 7, 0]));
    if wrapped {
        n.node("Gather", &["h", "places"], "wider", &[("axis", Attribute::Int(2))]);
    }
    let pads = [("pads", Attribute::Ints(if wrapped { vec![0, 0] } else { vec![1, 1] }))];
    n.node("Conv", &[if wrapped { "wider" } else { "h" }, "kernel"], "z", &pads);
}

/// A curve, whose result may be read as (place, batch) and moved back.
fn mixed_up(n: &mut Net, mixed: bool) {
    n.constant("shape", Tensor::vector(vec![6i64, 2, 8]));
    n.node("Tanh", &["h"], if mixed { "t" } else { "z" }, &[]);
    if mixed {
        n.node("Reshape", &["t", "shape"], "read", &[]);
        n.node("Transpose", &["read"], "z", &[("perm", Attribute::Ints(vec![1, 0, 2]))]);
    }
}

/// Scores with a mask that is worked out from g, or was stored, one row late.
fn stored_mask(n: &mut Net, stored: bool) {
    let shown = |i: usize| if i % 6 <= i / 6 { 0f32 } else { -1e9 };
    let late = (0..72).map(|i| shown((i % 36 + 6) % 36)).collect();
    n.constant("late", Tensor::from_vec(&[2, 6, 6], late).unwrap());
    let all = (0..72).map(|i| shown(i % 36)).collect();
    n.constant("mask", Tensor::from_vec(&[2, 6, 6], all).unwrap());
    n.constant("nothing", Tensor::vector(vec![0f32]));
    n.node("Transpose", &["g"], "keys", &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
    n.node("MatMul", &["h", "keys"], "scores", &[]);
    if !stored {
        n.node("Mul", &["scores", "nothing"], "none", &[]);
        n.node("Add", &["mask", "none"], "worked out", &[]);
    }
    n.node("Add", &["scores", if stored { "late" } else { "worked out" }], "hidden", &[]);
    n.node("Softmax", &["hidden"], "p", &[("axis", Attribute::Int(-1))]);
    n.node("MatMul", &["p", "g"], "z", &[]);
}

/// A border of the operator's own number, or of another.
fn bordered_by(n: &mut Net, number: Option<f32>) {
    n.constant("pads", Tensor::vector(vec![0i64, 1, 0, 0, 0, 0]));
    n.constant("number", Tensor::scalar(number.unwrap_or_default()));
    n.node("Pad", &["h", "pads", "number"][..if number.is_some() { 3 } else { 2 }], "z", &[]);
}

/// Two sums of one kind, of which a norm reads one, gated by a share and by what is left of it.
fn gated_by_a_share(n: &mut Net, exchanged: bool) {
    n.constant("one", Tensor::scalar(1f32));
    n.constant("gain", numbers(&[8], 93));
    n.constant("shift", numbers(&[8], 94));
    n.node("Sigmoid", &["g"], "share", &[]);
    n.node("Sub", &["one", "share"], "rest", &[]);
    n.node("Tanh", &["h"], "new", &[]);
    let (of_new, of_old) = if exchanged { ("rest", "share") } else { ("share", "rest") };
    n.node("Mul", &["new", of_new], "taken", &[]);
    n.node("Mul", &["h", of_old], "kept", &[]);
    n.node("Add", &["taken", "kept"], "both", &[]);
    n.node("LayerNormalization", &["both", "gain", "shift"], "z", &[("epsilon", Attribute::Float(1e-5))]);
}

/// The places of the largest numbers of each row, the largest itself left out or not, as what is added.
fn chosen(n: &mut Net, count: i64, but_first: bool) {
    n.constant("count", Tensor::vector(vec![count]));
    let places = n.value("places");
    n.node("TopK", &["h", "count"], "largest", &[]);
    n.at("largest").outputs.push(Some(places));
    for (name, at) in [("from", 1i64), ("to", 3), ("axis", 2)] {
        n.constant(name, Tensor::vector(vec![at]));
    }
    let taken = if but_first {
        n.node("Slice", &["places", "from", "to", "axis"], "rest", &[]);
        "rest"
    } else {
        "places"
    };
    n.node("GatherElements", &["g", taken], "taken", &[("axis", Attribute::Int(2))]);
    n.constant("repeats", Tensor::vector(vec![1i64, 1, 4]));
    n.node("Tile", &["taken", "repeats"], "z", &[]);
}

const CASES: &[Case] = &[
    Case {
        what: "a mask that was stored, one row late",
        cause: "mask",
        a: |n| stored_mask(n, false),
        b: |n| stored_mask(n, true),
    },
    Case {
        what: "a border of a number where A leaves it to the operator",
        cause: "padding",
        a: |n| bordered_by(n, None),
        b: |n| bordered_by(n, Some(1.0)),
    },
    Case {
        what: "a border of nothing where A says a number",
        cause: "padding",
        a: |n| bordered_by(n, Some(1.0)),
        b: |n| bordered_by(n, None),
    },
    Case {
        what: "shares exchanged before a norm",
        cause: "gate_order",
        a: |n| gated_by_a_share(n, false),
        b: |n| gated_by_a_share(n, true),
    },
    Case {
        what: "three parts turned round",
        cause: "operand_order",
        a: |n| joined(n, ["h", "g", "table"]),
        b: |n| joined(n, ["g", "table", "h"]),
    },
    Case {
        what: "blocks side by side that are meant in turn",
        cause: "residual",
        a: |n| in_turn(n, "sum"),
        b: |n| in_turn(n, "h"),
    },
    Case {
        what: "the gain of a norm in front of its statistics",
        cause: "normalisation",
        a: |n| gain_of_norm(n, true),
        b: |n| gain_of_norm(n, false),
    },
    Case {
        what: "a border from the other end",
        cause: "padding",
        a: |n| around_a_border(n, false),
        b: |n| around_a_border(n, true),
    },
    Case {
        what: "batch and places given each other's shape",
        cause: "layout",
        a: |n| mixed_up(n, false),
        b: |n| mixed_up(n, true),
    },
    Case {
        what: "places beyond the third as the third",
        cause: "index",
        a: |n| placed(n, false),
        b: |n| placed(n, true),
    },
    Case {
        what: "a softmax with a term more",
        cause: "activation",
        a: |n| beside_one(n, false),
        b: |n| beside_one(n, true),
    },
    Case {
        what: "a number added before a curve, where A adds 0",
        cause: "bias",
        a: |n| offset(n, 0.0),
        b: |n| offset(n, 1.0),
    },
    Case {
        what: "an input brought to other means, in other words",
        cause: "normalisation",
        a: |n| brought_to(n, 21, 22),
        b: |n| {
            n.constant("factor", positive(24));
            n.constant("shift", numbers(&[8], 23));
            n.node("Mul", &["x", "factor"], "stretched", &[]);
            n.node("Add", &["stretched", "shift"], "z", &[]);
        },
    },
    Case {
        what: "an input with another mean alone",
        cause: "normalisation",
        a: |n| brought_to(n, 21, 22),
        b: |n| brought_to(n, 23, 22),
    },
    Case {
        what: "two gates exchanged",
        cause: "gate_order",
        a: |n| gates(n, "Tanh", "Sigmoid"),
        b: |n| gates(n, "Sigmoid", "Tanh"),
    },
    Case {
        what: "a SiLU of which the sigmoid alone is left",
        cause: "activation",
        a: |n| {
            n.node("Sigmoid", &["h"], "s", &[]);
            n.node("Mul", &["h", "s"], "z", &[]);
        },
        b: |n| n.node("Sigmoid", &["h"], "z", &[]),
    },
    Case {
        what: "a periodic activation without its square",
        cause: "activation",
        a: |n| {
            n.constant("two", Tensor::scalar(2f32));
            n.node("Sin", &["h"], "s", &[]);
            n.node("Pow", &["s", "two"], "p", &[]);
            n.node("Add", &["h", "p"], "z", &[]);
        },
        b: |n| {
            n.node("Sin", &["h"], "s", &[]);
            n.node("Add", &["h", "s"], "z", &[]);
        },
    },
    Case {
        what: "a border on the other side",
        cause: "padding",
        a: |n| bordered(n, 0),
        b: |n| bordered(n, 1),
    },
    Case {
        what: "probabilities for their logarithms",
        cause: "activation",
        a: |n| n.node("LogSoftmax", &["h"], "z", &[("axis", Attribute::Int(-1))]),
        b: |n| n.node("Softmax", &["h"], "z", &[("axis", Attribute::Int(-1))]),
    },
    Case {
        what: "no shift by what a row as a whole says",
        cause: "bias",
        a: |n| shifted(n, true),
        b: |n| shifted(n, false),
    },
    Case {
        what: "sums of all that came before, for sums up to here",
        cause: "index",
        a: |n| {
            n.constant("places", Tensor::scalar(1i64));
            n.node("CumSum", &["h", "places"], "z", &[]);
        },
        b: |n| {
            n.constant("places", Tensor::scalar(1i64));
            n.node("CumSum", &["h", "places"], "sums", &[]);
            n.node("Sub", &["sums", "h"], "z", &[]);
        },
    },
    Case {
        what: "a scale applied twice before entries are hidden",
        cause: "scale",
        a: |n| hidden(n, false),
        b: |n| hidden(n, true),
    },
    Case {
        what: "more in the denominator of a softmax",
        cause: "normalisation",
        a: |n| quotient(n, false),
        b: |n| quotient(n, true),
    },
    Case {
        what: "the larger of two values for their mean",
        cause: "reduction",
        a: |n| {
            n.constant("half", Tensor::scalar(0.5f32));
            n.node("Add", &["h", "g"], "sum", &[]);
            n.node("Mul", &["sum", "half"], "z", &[]);
        },
        b: |n| n.node("Max", &["h", "g"], "z", &[]),
    },
    Case {
        what: "a long branch that is not added",
        cause: "residual",
        a: |n| branched(n, true),
        b: |n| branched(n, false),
    },
    Case {
        what: "a factor before what a softmax does not see",
        cause: "scale",
        a: |n| above_a_row(n, false),
        b: |n| above_a_row(n, true),
    },
    Case {
        what: "a sigmoid's argument with a factor, where it gates that very value",
        cause: "activation",
        a: |n| {
            n.node("Sigmoid", &["h"], "s", &[]);
            n.node("Mul", &["h", "s"], "z", &[]);
        },
        b: |n| {
            n.constant("steep", Tensor::scalar(1.702f32));
            n.node("Mul", &["h", "steep"], "t", &[]);
            n.node("Sigmoid", &["t"], "s", &[]);
            n.node("Mul", &["h", "s"], "z", &[]);
        },
    },
    Case {
        what: "another part of three",
        cause: "operand_order",
        a: |n| parts(n, "first"),
        b: |n| parts(n, "second"),
    },
    Case {
        what: "the gate of the other half, fused",
        cause: "operand_order",
        a: |n| {
            halves(n);
            n.constant("root", Tensor::scalar(std::f32::consts::SQRT_2));
            n.constant("one", Tensor::scalar(1f32));
            n.constant("half", Tensor::scalar(0.5f32));
            n.node("Div", &["right", "root"], "d", &[]);
            n.node("Erf", &["d"], "e", &[]);
            n.node("Add", &["e", "one"], "f", &[]);
            n.node("Mul", &["right", "f"], "t", &[]);
            n.node("Mul", &["t", "half"], "gate", &[]);
            n.node("Mul", &["left", "gate"], "m", &[]);
            n.node("Concat", &["m", "m"], "z", &[("axis", Attribute::Int(2))]);
        },
        b: |n| {
            halves(n);
            n.node("Gelu", &["left"], "gate", &[]);
            n.at("gate").version = 20;
            n.node("Mul", &["right", "gate"], "m", &[]);
            n.node("Concat", &["m", "m"], "z", &[("axis", Attribute::Int(2))]);
        },
    },
    Case {
        what: "a size that is no square, half of which is taken off its centre",
        cause: "activation",
        a: |n| halved(n, true),
        b: |n| halved(n, false),
    },
    Case {
        what: "the second output of a choice, another number chosen",
        cause: "index",
        a: |n| chosen(n, 2, false),
        b: |n| chosen(n, 3, true),
    },
];

#[test]
fn exchanged_inputs_are_a_binding() {
    let net = |first: &str, second: &str| {
        let mut n = Net::default();
        n.value("x");
        n.value("c");
        n.constant("w", numbers(&[8, 8], 1));
        n.node("Tanh", &[first], "t", &[]);
        n.node("MatMul", &["t", "w"], "m", &[]);
        n.node("Sigmoid", &[second], "s", &[]);
        n.node("Mul", &["m", "s"], "p", &[]);
        n.node("MatMul", &["p", "w"], "y", &[]);
        n.finish(&["x", "c"])
    };
    let (a, b) = (net("x", "c"), net("c", "x"));
    let inputs = [("x", 98), ("c", 99)].map(|(name, seed)| (name.to_owned(), numbers(&[2, 6, 8], seed)));
    let source = |path, graph| Source { path, graph, recorded: None };
    let options = Options { allowed: &[], progress: None, detail: Detail::FULL };
    let report = diff(source("a", &a), source("b", &b), &inputs.into_iter().collect(), options);
    let classes: Vec<&str> = report.culprits.iter().map(|c| c.cause.class.as_str()).collect();
    assert!(!classes.is_empty() && classes.iter().all(|c| *c == "input_binding"), "{classes:?}");
}

#[test]
fn names_follow_from_what_the_parts_are_for() {
    all_named(CASES);
}
