//! What goes wrong in networks that are no transformers, as a table of names: pictures, recurrent layers, points, graphs.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_report::Verdict;
use isotrace_tensor::Tensor;
use net::{Net, compare, numbers};
use table::{Case, all_named};

fn stored(n: &mut Net, name: &str, shape: &[usize], at: impl Fn(usize) -> f32) {
    let len = shape.iter().product();
    n.constant(name, Tensor::from_vec(shape, (0..len).map(at).collect()).unwrap());
}

fn ints(n: &mut Net, name: &str, values: &[i64]) {
    n.constant(name, Tensor::vector(values.to_vec()));
}

fn drawn(len: usize, seed: u64) -> Vec<f32> {
    numbers(&[len], seed).as_slice::<f32>().unwrap().to_vec()
}

/// A learned frame, with the unit matrix that it turns about or without.
fn framed(n: &mut Net, about: bool) {
    n.node("Transpose", &["g"], "across", &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
    n.node("MatMul", &["across", "h"], "learned", &[]);
    stored(n, "unit", &[8, 8], |i| if i % 9 == 0 { 1.0 } else { 0.0 });
    if about {
        n.node("Add", &["learned", "unit"], "frame", &[]);
    }
    n.node("MatMul", &["h", if about { "frame" } else { "learned" }], "z", &[]);
}

/// Colours brought to means far from nought, in their order or in the other.
fn centred(n: &mut Net, reversed: bool) {
    stored(n, "means", &[8], |i| [103.5, 116.3, 123.7, 120.1][if reversed { 3 - i % 4 } else { i % 4 }]);
    n.node("Sub", &["h", "means"], "z", &[]);
}

/// Places in whole steps from `first` on, by which what is there is weighed.
fn binned(n: &mut Net, first: usize) {
    stored(n, "bins", &[8], |i| (i + first) as f32);
    n.node("Mul", &["h", "bins"], "z", &[]);
}

/// Places of cells, their middles or their corners.
fn celled(n: &mut Net, middle: f32) {
    ints(n, "flat shape", &[96]);
    ints(n, "whole shape", &[2, 6, 8]);
    n.node("Reshape", &["h", "flat shape"], "flat", &[]);
    stored(n, "cells", &[96], |i| (i % 7) as f32 + middle);
    n.node("Add", &["flat", "cells"], "placed", &[]);
    n.node("Reshape", &["placed", "whole shape"], "z", &[]);
}

/// Bands of a spectrum by filters of one height or of another each, and a floor for the logarithm.
fn filtered(n: &mut Net, by_area: bool) {
    let (w, by) = (drawn(64, 31), drawn(8, 32));
    stored(n, "filters", &[8, 8], |i| w[i].abs() * if by_area { by[i % 8].abs() + 0.3 } else { 1.0 });
    n.constant("floor", Tensor::scalar(1e-3f32));
    n.node("Abs", &["h"], "power", &[]);
    n.node("MatMul", &["power", "filters"], "bands", &[]);
    n.node("Add", &["bands", "floor"], "safe", &[]);
    n.node("Log", &["safe"], "z", &[]);
}

/// How a recurrent layer is changed.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    AsItIs,
    NoLengths,
    Transposed,
    Clipped,
}

/// A recurrent layer over rows of several lengths.
fn recurrent(n: &mut Net, cell: Cell) {
    let r = drawn(256, 42);
    let turned = |i: usize| i / 64 * 64 + i % 8 * 8 + i / 8 % 8;
    n.constant("w_cell", numbers(&[1, 32, 8], 41));
    stored(n, "r_cell", &[1, 32, 8], |i| r[if cell == Cell::Transposed { turned(i) } else { i }]);
    n.constant("b_cell", numbers(&[1, 64], 43));
    n.constant("lengths", Tensor::vector(vec![2i32, 1, 2, 1, 1, 2]));
    ints(n, "whole shape", &[2, 6, 8]);
    let reads: &[&str] = if cell == Cell::NoLengths {
        &["h", "w_cell", "r_cell", "b_cell"]
    } else {
        &["h", "w_cell", "r_cell", "b_cell", "lengths"]
    };
    let mut settings = vec![("hidden_size", Attribute::Int(8))];
    if cell == Cell::Clipped {
        settings.push(("clip", Attribute::Float(0.3)));
    }
    n.node("LSTM", reads, "states", &settings);
    n.node("Reshape", &["states", "whole shape"], "z", &[]);
}

/// Means of neighbours, what lies beyond the ends as the ends are or as nought.
fn averaged(n: &mut Net, of_noughts: bool) {
    for (name, at) in [("first", 0), ("one", 1), ("seventh", 7), ("end", 8), ("features", 2)] {
        ints(n, name, &[at]);
    }
    n.node("Slice", &["h", "first", "one", "features"], "before", &[]);
    n.node("Slice", &["h", "seventh", "end", "features"], "after", &[]);
    n.constant("nought", Tensor::scalar(0f32));
    if of_noughts {
        n.node("Mul", &["before", "nought"], "void", &[]);
    }
    let before = if of_noughts { "void" } else { "before" };
    n.node("Concat", &[before, "h", "after"], "bordered", &[("axis", Attribute::Int(2))]);
    n.node("AveragePool", &["bordered"], "z", &[("kernel_shape", Attribute::Ints(vec![3]))]);
}

/// A kernel with its bias, some channels of which are left out and the others made larger in return.
fn kernel(n: &mut Net, dropped: bool) {
    let (w, b) = (drawn(36, 51), drawn(6, 52));
    let by = |c: usize| match (dropped, c % 3) {
        (false, _) => 1.0,
        (true, 0) => 0.0,
        (true, _) => 1.5,
    };
    stored(n, "kernel", &[6, 6, 1], |i| w[i] * by(i / 6));
    stored(n, "shift", &[6], |i| b[i] * by(i));
    n.node("Conv", &["h", "kernel", "shift"], "made", &[("kernel_shape", Attribute::Ints(vec![1]))]);
    n.node("Tanh", &["made"], "z", &[]);
}

/// A product and its norm, apart or folded into one, in which a part of what is added may be missing.
fn normed(n: &mut Net, folded: Option<fn(usize) -> (f32, f32)>) {
    let [w, bias, gain, shift, mean] = [61, 62, 63, 64, 65].map(|s| drawn(if s == 61 { 64 } else { 8 }, s));
    let (gain, variance) = (|i: usize| gain[i] + 2.5, |i: usize| 1.0 + i as f32 / 4.0);
    let by = |i: usize| gain(i) / (variance(i) + 1e-5).sqrt();
    ints(n, "rows shape", &[12, 8]);
    ints(n, "whole shape", &[2, 6, 8]);
    n.node("Reshape", &["h", "rows shape"], "rows", &[]);
    let turned = ("transB", Attribute::Int(1));
    if let Some(kept) = folded {
        stored(n, "weight", &[8, 8], |i| w[i] * by(i / 8));
        stored(n, "sum", &[8], |i| (bias[i] * kept(i).0 - mean[i] * kept(i).1) * by(i) + shift[i]);
        n.node("Gemm", &["rows", "weight", "sum"], "brought", &[turned]);
    } else {
        stored(n, "weight", &[8, 8], |i| w[i]);
        stored(n, "bias", &[8], |i| bias[i]);
        n.node("Gemm", &["rows", "weight", "bias"], "made", &[turned]);
        stored(n, "gain", &[8], gain);
        stored(n, "shift", &[8], |i| shift[i]);
        stored(n, "mean", &[8], |i| mean[i]);
        stored(n, "variance", &[8], variance);
        n.node("BatchNormalization", &["made", "gain", "shift", "mean", "variance"], "brought", &[]);
    }
    n.node("Reshape", &["brought", "whole shape"], "z", &[]);
}

/// What edges weigh, as shares of what all edges of their group do, or as they are.
fn shares(n: &mut Net, of_group: bool) {
    ints(n, "flat shape", &[96]);
    ints(n, "whole shape", &[2, 6, 8]);
    ints(n, "group", &(0..96).map(|i| i % 5).collect::<Vec<_>>());
    stored(n, "noughts", &[5], |_| 0.0);
    n.node("Tanh", &["h"], "bent", &[]);
    n.node("Exp", &["bent"], "powers", &[]);
    n.node("Reshape", &["powers", "flat shape"], "edges", &[]);
    let sums = [("reduction", Attribute::Bytes(b"add".to_vec()))];
    n.node("ScatterElements", &["noughts", "group", "edges"], "sums", &sums);
    n.node("Gather", &["sums", "group"], "theirs", &[]);
    if of_group {
        n.node("Div", &["edges", "theirs"], "shares", &[]);
    }
    n.node("Reshape", &[if of_group { "shares" } else { "edges" }, "whole shape"], "z", &[]);
}

/// Numbers as they are, or as bytes hold them.
fn pictured(n: &mut Net, in_bytes: bool) {
    n.constant("range", Tensor::scalar(20f32));
    n.node("Abs", &["h"], "sizes", &[]);
    n.node("Mul", &["sizes", "range"], "picture", &[]);
    if in_bytes {
        n.node("Cast", &["picture"], "bytes", &[("to", Attribute::Int(2))]);
        n.node("Cast", &["bytes"], "read", &[("to", Attribute::Int(1))]);
    }
    n.node("Div", &[if in_bytes { "read" } else { "picture" }, "range"], "z", &[]);
}

/// The weight of the other layer, as another exporter rounded it, or the own one.
fn of_layer(n: &mut Net, other: bool) {
    let (own, theirs) = (drawn(64, 71), drawn(64, 72));
    stored(n, "first", &[8, 8], |i| own[i]);
    stored(n, "second", &[8, 8], |i| theirs[i]);
    stored(n, "held", &[8, 8], |i| if other { theirs[i] * (1.0 + 2e-7) } else { own[i] });
    n.node("MatMul", &["h", if other { "held" } else { "first" }], "one", &[]);
    n.node("Tanh", &["one"], "bent", &[]);
    n.node("MatMul", &["bent", "second"], "z", &[]);
}

/// All channels that a kernel makes, or the first half of them, which others multiply.
fn halved(n: &mut Net, late: bool) {
    n.constant("kernel", numbers(&[12, 6, 1], 81));
    n.node("Conv", &["h", "kernel"], "made", &[("kernel_shape", Attribute::Ints(vec![1]))]);
    for (name, at) in [("first", i64::from(late)), ("end", 6 + i64::from(late)), ("channels", 1)] {
        ints(n, name, &[at]);
    }
    n.node("Slice", &["made", "first", "end", "channels"], "z", &[]);
}

static CASES: &[Case] = &[
    Case {
        what: "the weight of another layer",
        cause: "weight_swap",
        a: |n| of_layer(n, false),
        b: |n| of_layer(n, true),
    },
    Case { what: "channels one further on", cause: "index", a: |n| halved(n, false), b: |n| halved(n, true) },
    Case { what: "no unit matrix", cause: "bias", a: |n| framed(n, true), b: |n| framed(n, false) },
    Case { what: "means reversed", cause: "bias", a: |n| centred(n, false), b: |n| centred(n, true) },
    Case { what: "counted from one", cause: "index", a: |n| binned(n, 0), b: |n| binned(n, 1) },
    Case { what: "corners for middles", cause: "bias", a: |n| celled(n, 0.5), b: |n| celled(n, 0.0) },
    Case {
        what: "filters by area",
        cause: "weight_value",
        a: |n| filtered(n, false),
        b: |n| filtered(n, true),
    },
    Case {
        what: "no lengths",
        cause: "mask",
        a: |n| recurrent(n, Cell::AsItIs),
        b: |n| recurrent(n, Cell::NoLengths),
    },
    Case {
        what: "weights of the state the other way round",
        cause: "weight_layout",
        a: |n| recurrent(n, Cell::AsItIs),
        b: |n| recurrent(n, Cell::Transposed),
    },
    Case {
        what: "a cell with bounds",
        cause: "activation",
        a: |n| recurrent(n, Cell::AsItIs),
        b: |n| recurrent(n, Cell::Clipped),
    },
    Case {
        what: "noughts beyond the end",
        cause: "padding",
        a: |n| averaged(n, false),
        b: |n| averaged(n, true),
    },
    Case { what: "channels left out", cause: "mode", a: |n| kernel(n, false), b: |n| kernel(n, true) },
    Case {
        what: "a bias left out of the last channels, the norm folded in",
        cause: "bias",
        a: |n| normed(n, None),
        b: |n| normed(n, Some(|i| (f32::from(u8::from(i < 5)), 1.0))),
    },
    Case {
        what: "a norm folded in without its mean",
        cause: "normalisation",
        a: |n| normed(n, None),
        b: |n| normed(n, Some(|_| (1.0, 0.0))),
    },
    Case {
        what: "no shares of a group",
        cause: "normalisation",
        a: |n| shares(n, true),
        b: |n| shares(n, false),
    },
    Case { what: "bytes", cause: "quantisation", a: |n| pictured(n, false), b: |n| pictured(n, true) },
];

#[test]
fn layers_of_other_networks_have_their_names() {
    all_named(CASES);
}

/// x W + h, brought back to a size at the very end, or not.
fn ended(brought_back: bool) -> Net {
    let mut n = Net::default();
    n.value("x");
    n.constant("w", numbers(&[8, 8], 1));
    ints(&mut n, "rows", &[1]);
    n.node("ReduceMax", &["x", "rows"], "size", &[("keepdims", Attribute::Int(1))]);
    n.node("MatMul", &["x", "w"], "h", &[]);
    n.node("Add", &["h", "x"], if brought_back { "sum" } else { "y" }, &[]);
    if brought_back {
        n.node("Mul", &["sum", "size"], "y", &[]);
    }
    n
}

#[test]
fn what_is_missing_at_the_end_is_named_and_not_what_is_left() {
    let report = compare(ended(true), ended(false));
    assert_eq!(report.verdict, Verdict::Divergent);
    assert_eq!(report.culprits[0].cause.class, "scale", "{:?}", report.culprits[0]);
}

/// Which of several vectors is nearest, by their distances or by the product alone.
fn nearest(squares: bool) -> Net {
    let mut n = Net::default();
    n.value("x");
    n.constant("w", numbers(&[8, 8], 1));
    ints(&mut n, "features", &[2]);
    n.constant("two", Tensor::scalar(-2f32));
    n.node("MatMul", &["x", "w"], "h", &[]);
    n.node("Mul", &["h", "h"], "squared", &[]);
    n.node("ReduceSum", &["squared", "features"], "sizes", &[("keepdims", Attribute::Int(0))]);
    for (name, axis) in [("of rows", 2), ("of columns", 1)] {
        ints(&mut n, &format!("axis {name}"), &[axis]);
        n.node("Unsqueeze", &["sizes", &format!("axis {name}")], name, &[]);
    }
    n.node("Transpose", &["h"], "turned", &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
    n.node("MatMul", &["h", "turned"], "products", &[]);
    n.node("Mul", &["products", "two"], "doubled", &[]);
    n.node("Add", &["doubled", "of rows"], "half", &[]);
    if squares {
        n.node("Add", &["half", "of columns"], "distances", &[]);
    }
    let among = if squares { "distances" } else { "half" };
    n.node("ArgMin", &[among], "chosen", &[("axis", Attribute::Int(2)), ("keepdims", Attribute::Int(0))]);
    n.node("Gather", &["w", "chosen"], "y", &[]);
    n
}

#[test]
fn a_choice_is_mended_by_what_it_is_made_among() {
    let report = compare(nearest(true), nearest(false));
    assert_eq!(report.verdict, Verdict::Divergent);
    let first = &report.culprits[0];
    assert_ne!(first.cause.class, "layout", "{first:?}");
}
