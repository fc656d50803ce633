//! What a fault is called, as a table: a few nodes of A from x to y, what B has in their stead, and the cause.

mod common;
mod net;
mod table;

use isotrace_diagnose::{Detail, Options, Source};
use isotrace_graph::{Attribute, Node};
use isotrace_report::Verdict;
use isotrace_tensor::Tensor;
use net::{Net, compare, diff, numbers};
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

/// A product into which a norm was folded: each column by its factor, and a bias.
fn folded(n: &mut Net, factors: u64) {
    let (w, by) = (numbers(&[8, 8], 5), positive(factors));
    let by = by.as_slice::<f32>().unwrap();
    let w: Vec<f32> = w.as_slice::<f32>().unwrap().iter().enumerate().map(|(i, w)| w * by[i % 8]).collect();
    n.constant("folded", Tensor::from_vec(&[8, 8], w).unwrap());
    n.constant("bias", numbers(&[8], factors));
    n.node("Gemm", &["rows", "folded", "bias"], "flat", &[]);
}

fn rows(n: &mut Net, factors: u64) {
    n.constant("to_rows", Tensor::vector(vec![12i64, 8]));
    n.constant("back", Tensor::vector(vec![2i64, 6, 8]));
    n.node("Reshape", &["h", "to_rows"], "rows", &[]);
    folded(n, factors);
    n.node("Reshape", &["flat", "back"], "z", &[]);
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

fn rate(n: &mut Net, stored: fn(f32) -> f32) {
    let x: Vec<f32> = numbers(&[8], 41).as_slice::<f32>().unwrap().iter().map(|&x| stored(x)).collect();
    n.constant("rate", Tensor::vector(x));
    n.node("Mul", &["h", "rate"], "z", &[]);
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

/// A convolution, a gain and a shift: folded into its weights, or behind weights that are mirrored.
fn convolved(n: &mut Net, folded: bool) {
    let (w, gain) = (numbers(&[6, 6, 3], 51), numbers(&[6], 52));
    let gains = gain.as_slice::<f32>().unwrap();
    let all = w.as_slice::<f32>().unwrap();
    let at = |i: usize| if folded { all[i] * gains[i / 18] } else { all[i / 3 * 3 + 2 - i % 3] };
    n.constant("kernel", Tensor::from_vec(&[6, 6, 3], (0..108).map(at).collect()).unwrap());
    let pads = [("pads", Attribute::Ints(vec![1, 1]))];
    n.constant("shift", numbers(&[6], 53));
    if folded {
        n.node("Conv", &["h", "kernel", "shift"], "z", &pads);
    } else {
        n.node("Conv", &["h", "kernel"], "plain", &pads);
        n.constant("gain", gain.reshape(&[6, 1]).unwrap());
        n.constant("shifts", numbers(&[6, 1], 53));
        n.node("Mul", &["plain", "gain"], "stretched", &[]);
        n.node("Add", &["stretched", "shifts"], "z", &[]);
    }
}

/// Weights in blocks of eight rows, each on a grid of its own, or as they were.
fn in_blocks(n: &mut Net, rounded: bool) {
    let x = numbers(&[8, 16], 71);
    let x = x.as_slice::<f32>().unwrap();
    let step = |j: usize| (0..8).map(|i| x[i * 16 + j].abs()).fold(0f32, f32::max) / 5.0;
    let put =
        |(k, x): (usize, &f32)| if rounded { (x / step(k % 16)).round() * step(k % 16) * 1.3 } else { *x };
    let w = x.iter().enumerate().map(put).collect();
    n.constant("weight", Tensor::from_vec(&[8, 16], w).unwrap());
    n.constant("narrow", numbers(&[16, 8], 72));
    n.node("MatMul", &["h", "weight"], "wide", &[]);
    n.node("MatMul", &["wide", "narrow"], "z", &[]);
}

/// A table of words and a product with a matrix of its size: the matrix's own, or the table's.
fn words(n: &mut Net, of_table: bool) {
    let (table, own) = (numbers(&[12, 8], 73), numbers(&[8, 12], 74));
    n.constant("ids", Tensor::from_vec(&[1, 6], vec![3i64, 1, 4, 1, 5, 9]).unwrap());
    n.constant("table", table.clone());
    n.constant("head", if of_table { table.permute(&[1, 0]).unwrap() } else { own });
    n.node("Gather", &["table", "ids"], "words", &[]);
    n.node("Add", &["h", "words"], "named", &[]);
    n.node("MatMul", &["named", "head"], "told", &[]);
    n.constant("narrow", numbers(&[12, 8], 75));
    n.node("MatMul", &["told", "narrow"], "z", &[]);
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

/// A convolution and a batch norm, kept or folded, over weights that may be changed before.
fn normed(n: &mut Net, folded: bool, weight: fn(usize) -> f32) {
    let stored: Vec<Vec<f32>> = (0..4).map(|i| common::numbers(6, 80 + i)).collect();
    let variance: Vec<f32> = stored[3].iter().map(|v| v.abs() + 0.5).collect();
    let gain: Vec<f32> = (0..6).map(|c| (stored[0][c] + 2.0) / (variance[c] + 1e-5).sqrt()).collect();
    let kernel = |k: usize| if folded { weight(k) * gain[k / 18] } else { weight(k) };
    n.constant("kernel", Tensor::from_vec(&[6, 6, 3], (0..108).map(kernel).collect()).unwrap());
    let pads = [("pads", Attribute::Ints(vec![1, 1]))];
    if folded {
        let shift = (0..6).map(|c| stored[1][c] - stored[2][c] * gain[c]).collect();
        n.constant("shift", Tensor::vector(shift));
        n.node("Conv", &["h", "kernel", "shift"], "z", &pads);
    } else {
        let scale = stored[0].iter().map(|s| s + 2.0).collect();
        let of_norm = [("s", scale), ("b", stored[1].clone()), ("m", stored[2].clone()), ("var", variance)];
        for (name, x) in of_norm {
            n.constant(name, Tensor::vector(x));
        }
        n.node("Conv", &["h", "kernel"], "plain", &pads);
        let epsilon = [("epsilon", Attribute::Float(1e-5))];
        n.node("BatchNormalization", &["plain", "s", "b", "m", "var"], "z", &epsilon);
    }
}

fn kernel(k: usize) -> f32 {
    ((k * 37 % 108) as f32 - 53.5) / 40.0 + ((k * 11 % 29) as f32) / 77.0
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

fn table(n: &mut Net, narrow: bool) {
    n.constant("table", numbers(&[6, 8], 71));
    if narrow {
        n.node("Cast", &["table"], "low", &[("to", Attribute::Int(16))]);
        n.node("Cast", &["low"], "high", &[("to", Attribute::Int(1))]);
    }
    n.node("Mul", &["h", if narrow { "high" } else { "table" }], "z", &[]);
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

/// h onto a grid and off it: by one scale and zero point or, off it, by others.
fn on_a_grid(n: &mut Net, onto: (f32, u8), off: (f32, u8)) {
    for (name, (scale, zero)) in [("onto", onto), ("off", off)] {
        n.constant(name, Tensor::scalar(scale));
        n.constant(&format!("{name} zero"), Tensor::scalar(zero));
    }
    n.node("QuantizeLinear", &["h", "onto", "onto zero"], "q", &[]);
    n.node("DequantizeLinear", &["q", "off", "off zero"], "z", &[]);
}

/// A product with weights that are stored as small integers, one of which may be another.
fn stored(n: &mut Net, other: bool) {
    let x = numbers(&[8, 8], 77);
    let mut q: Vec<i8> = x.as_slice::<f32>().unwrap().iter().map(|x| (x * 50.0) as i8).collect();
    if other {
        q[5] = -q[5] - 9;
    }
    n.constant("stored", Tensor::from_vec(&[8, 8], q).unwrap());
    n.constant("by", Tensor::scalar(0.02f32));
    n.node("DequantizeLinear", &["stored", "by"], "weight", &[]);
    n.node("MatMul", &["h", "weight"], "z", &[]);
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

/// A weight on thirty-two levels, the largest cut off, or as it was.
fn cut_off(n: &mut Net, cut: bool) {
    let x = numbers(&[8, 16], 91);
    let x = x.as_slice::<f32>().unwrap();
    let step = x.iter().fold(0f32, |m, x| m.max(x.abs())) / 31.0;
    let put = |x: &f32| if cut { (x / step).round().clamp(-16.0, 15.0) * step } else { *x };
    n.constant("weight", Tensor::from_vec(&[8, 16], x.iter().map(put).collect()).unwrap());
    n.constant("narrow", numbers(&[16, 8], 92));
    n.node("MatMul", &["h", "weight"], "wide", &[]);
    n.node("MatMul", &["wide", "narrow"], "z", &[]);
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

/// A product of h in four parts, whose sum may be kept in half precision.
fn in_parts(n: &mut Net, narrow: bool) {
    n.constant("axis", Tensor::vector(vec![2i64]));
    let w = numbers(&[8, 8], 89);
    n.constant("whole", w.clone());
    if !narrow {
        return n.node("MatMul", &["h", "whole"], "z", &[]);
    }
    let mut sum = String::new();
    for k in 0..4 {
        let name = |what: &str| format!("{what} {k}");
        n.constant(&name("from"), Tensor::vector(vec![2 * k]));
        n.constant(&name("to"), Tensor::vector(vec![2 * k + 2]));
        let rows = w.as_slice::<f32>().unwrap()[16 * k as usize..16 * (k as usize + 1)].to_vec();
        n.constant(&name("rows"), Tensor::from_vec(&[2, 8], rows).unwrap());
        n.node("Slice", &["h", &name("from"), &name("to"), "axis"], &name("cut"), &[]);
        n.node("MatMul", &[&name("cut"), &name("rows")], &name("part"), &[]);
        if k > 0 {
            n.node("Add", &[&sum, &name("part")], &name("sum"), &[]);
        }
        let made = name(if k > 0 { "sum" } else { "part" });
        n.node("Cast", &[&made], &name("low"), &[("to", Attribute::Int(10))]);
        sum = if k == 3 { "z".to_owned() } else { name("high") };
        n.node("Cast", &[&name("low")], &sum, &[("to", Attribute::Int(1))]);
    }
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
        what: "a weight on a grid that saturates",
        cause: "quantisation",
        a: |n| cut_off(n, false),
        b: |n| cut_off(n, true),
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
        what: "weights on grids of blocks, by steps that are too wide",
        cause: "quantisation",
        a: |n| in_blocks(n, false),
        b: |n| in_blocks(n, true),
    },
    Case {
        what: "the table of words in place of the last matrix",
        cause: "weight_swap",
        a: |n| words(n, false),
        b: |n| words(n, true),
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
        what: "inputs reversed in a convolution whose norm A folded",
        cause: "weight_layout",
        a: |n| normed(n, true, kernel),
        b: |n| normed(n, false, |k| kernel(k / 18 * 18 + (5 - k % 18 / 3) * 3 + k % 3)),
    },
    Case {
        what: "a filter that is another, in a convolution whose norm B folded",
        cause: "weight_value",
        a: |n| normed(n, false, kernel),
        b: |n| normed(n, true, |k| if k / 18 == 2 { kernel(k + 40) } else { kernel(k) }),
    },
    Case {
        what: "half the mantissa in a convolution whose norm A folded",
        cause: "precision",
        a: |n| normed(n, true, kernel),
        b: |n| normed(n, false, |k| f32::from_bits(kernel(k).to_bits() & 0xffff_0000)),
    },
    Case {
        what: "another zero point off a grid than onto it",
        cause: "quantisation",
        a: |n| on_a_grid(n, (0.05, 128), (0.05, 128)),
        b: |n| on_a_grid(n, (0.05, 128), (0.05, 123)),
    },
    Case {
        what: "another grid altogether, which saturates",
        cause: "quantisation",
        a: |n| on_a_grid(n, (0.05, 128), (0.05, 128)),
        b: |n| on_a_grid(n, (0.004, 100), (0.004, 100)),
    },
    Case {
        what: "a weight of small integers, one of them another",
        cause: "quantisation",
        a: |n| stored(n, false),
        b: |n| stored(n, true),
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
        what: "a norm with other statistics, folded",
        cause: "normalisation",
        a: |n| rows(n, 31),
        b: |n| rows(n, 32),
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
        what: "a rate stored before its exponential",
        cause: "activation",
        a: |n| rate(n, |x| (-x).exp()),
        b: |n| rate(n, |x| x),
    },
    Case {
        what: "a scale applied twice before entries are hidden",
        cause: "scale",
        a: |n| hidden(n, false),
        b: |n| hidden(n, true),
    },
    Case {
        what: "a mirrored kernel, where A's has a gain folded in",
        cause: "weight_layout",
        a: |n| convolved(n, true),
        b: |n| convolved(n, false),
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
        what: "a constant rounded on its way",
        cause: "precision",
        a: |n| table(n, false),
        b: |n| table(n, true),
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
        what: "the second output of a choice, another number chosen",
        cause: "index",
        a: |n| chosen(n, 2, false),
        b: |n| chosen(n, 3, true),
    },
];

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

/// Where only sums are narrowed, cuts and products are not named.
#[test]
fn what_narrows_is_named_and_not_what_it_stands_between() {
    let report = compare(table::around(|n| in_parts(n, false)), table::around(|n| in_parts(n, true)));
    let first = &report.culprits[0];
    assert_eq!(first.cause.class, "accumulation");
    assert!(
        !first.b.ops.is_empty() && first.b.ops.iter().all(|op| op == "Cast" || op == "Add"),
        "{:?}",
        first.b
    );
}

/// What is too small for f32 to show changes no bit of any value, and nothing that these inputs could tell.
#[test]
fn what_changes_no_bit_is_no_difference() {
    let net = |epsilon: Option<f32>| {
        let mut n = Net::default();
        n.value("x");
        n.constant("w", numbers(&[8, 8], 1));
        n.constant("one", Tensor::scalar(1f32));
        n.node("Mul", &["x", "x"], "square", &[]);
        n.node("Add", &["square", "one"], "above", &[]);
        if let Some(epsilon) = epsilon {
            n.constant("epsilon", Tensor::scalar(epsilon));
            n.node("Add", &["above", "epsilon"], "guarded", &[]);
        }
        n.node("Log", &[if epsilon.is_some() { "guarded" } else { "above" }], "log", &[]);
        n.node("MatMul", &["log", "w"], "y", &[]);
        n
    };
    let report = compare(net(Some(1e-12)), net(None));
    assert_eq!(report.verdict, Verdict::Identical);
    let told: Vec<&str> = report.warnings.iter().map(|w| w.class.as_str()).collect();
    assert_eq!(told, ["latent"], "{:?}", report.warnings);
    let report = compare(net(Some(1e-3)), net(None));
    let cause = report.culprits.first().map(|c| c.cause.class.as_str());
    assert_eq!((report.verdict, cause), (Verdict::Divergent, Some("epsilon")));
}

/// A sum that a fused norm hands out beside its result rounds as any sum does, though the statistics between are left
/// out.
#[test]
fn outputs_left_out_take_no_rounding_away() {
    let start = || {
        let mut n = Net::default();
        n.value("x");
        n.constant("w", numbers(&[8, 8], 1));
        for (i, name) in ["bias", "gain", "shift"].into_iter().enumerate() {
            n.constant(name, numbers(&[8], 2 + i as u64));
        }
        n.node("MatMul", &["x", "w"], "h", &[]);
        n
    };
    let epsilon = [("epsilon", Attribute::Float(1e-5))];
    let mut a = start();
    a.node("Add", &["h", "bias"], "q", &[]);
    a.node("Add", &["x", "q"], "s", &[]);
    a.node("LayerNormalization", &["s", "gain", "shift"], "n", &epsilon);
    a.node("Add", &["s", "n"], "y", &[]);
    let mut b = start();
    let sum = b.value("s");
    b.node("SkipLayerNormalization", &["x", "h", "gain", "shift", "bias"], "n", &epsilon);
    let fused: &mut Node = b.at("n");
    fused.domain = "com.microsoft".into();
    fused.version = 1;
    fused.outputs.extend([None, None, Some(sum)]);
    b.node("Add", &["s", "n"], "y", &[]);
    let report = compare(a, b);
    assert_eq!(report.verdict, Verdict::Equivalent, "{:?}", report.culprits);
}
