//! What goes wrong in networks that are packed, narrowed and served, as a table of names.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::{DType, Tensor};
use net::{Net, compare, numbers};
use table::{Case, all_named, around};

const F32: Attribute = Attribute::Int(1);
const F16: Attribute = Attribute::Int(10);

/// Three branches added one after the other, and what follows reads the stream behind so many of them.
fn layers(n: &mut Net, read: usize) {
    for k in 0..3 {
        let [sum, bent, branch, next] =
            [format!("sum {k}"), format!("bent {k}"), format!("branch {k}"), format!("sum {}", k + 1)];
        if k == 0 {
            n.node("Identity", &["h"], &sum, &[]);
        }
        n.constant(&format!("weight {k}"), numbers(&[8, 8], 31 + k as u64));
        n.node("Tanh", &[&sum], &bent, &[]);
        n.node("MatMul", &[&bent, &format!("weight {k}")], &branch, &[]);
        n.node("Add", &[&sum, &branch], &next, &[]);
    }
    n.constant("head", numbers(&[8, 8], 37));
    n.node("MatMul", &[&format!("sum {read}"), "head"], "heads", &[]);
    n.node("Add", &["heads", "sum 3"], "z", &[]);
}

/// Divided by the root of the mean of squares, or by the mean of magnitudes.
fn brought(n: &mut Net, magnitudes: bool) {
    n.constant("features", Tensor::vector(vec![2i64]));
    n.constant("least", Tensor::scalar(1e-6f32));
    if magnitudes {
        n.node("Abs", &["h"], "size", &[]);
    } else {
        n.node("Mul", &["h", "h"], "size", &[]);
    }
    n.node("ReduceMean", &["size", "features"], "mean", &[("keepdims", Attribute::Int(1))]);
    n.node("Add", &["mean", "least"], "safe", &[]);
    n.node(if magnitudes { "Identity" } else { "Sqrt" }, &["safe"], "root", &[]);
    n.node("Div", &["h", "root"], "z", &[]);
}

/// A product, its bias and what bends it, in half precision or not.
fn block(n: &mut Net, narrow: bool) {
    let (weight, bias) = (numbers(&[8, 8], 41), numbers(&[8], 42));
    if !narrow {
        n.constant("weight", weight);
        n.constant("bias", bias);
        n.node("MatMul", &["h", "weight"], "product", &[]);
        n.node("Add", &["product", "bias"], "sum", &[]);
        return n.node("Tanh", &["sum"], "z", &[]);
    }
    n.constant("weight", weight.cast(DType::F16).unwrap());
    n.constant("bias", bias.cast(DType::F16).unwrap());
    n.node("Cast", &["h"], "low", &[("to", F16)]);
    n.node("MatMul", &["low", "weight"], "product", &[]);
    n.node("Add", &["product", "bias"], "sum", &[]);
    n.node("Cast", &["sum"], "wide", &[("to", F32)]);
    n.node("Tanh", &["wide"], "z", &[]);
}

/// A weight of whole numbers in groups of eight, each with a step and a zero.
fn unpacked(n: &mut Net, moved: usize, folded: bool) {
    let (stored, zero, step) = (
        |i: usize| (i * 7 + i / 8) % 16,
        |g: usize| 5 + (g + moved) % 7,
        |g: usize| 0.02 * (1 + g % 5) as f32,
    );
    if folded {
        let w = (0..64).map(|i| (stored(i) as f32 - zero(i / 8) as f32) * step(i / 8)).collect();
        n.constant("w4", Tensor::from_vec(&[8, 8], w).unwrap());
    } else {
        n.constant("stored", Tensor::from_vec(&[8, 8], (0..64).map(|i| stored(i) as i32).collect()).unwrap());
        n.constant("zero", Tensor::from_vec(&[8, 1], (0..8).map(|g| zero(g) as f32).collect()).unwrap());
        n.constant("step", Tensor::from_vec(&[8, 1], (0..8).map(step).collect()).unwrap());
        n.node("Cast", &["stored"], "whole", &[("to", F32)]);
        n.node("Sub", &["whole", "zero"], "centred", &[]);
        n.node("Mul", &["centred", "step"], "w4", &[]);
    }
    n.node("MatMul", &["h", "w4"], "z", &[]);
}

/// A factor for each item behind a norm or in front of it.
fn modulated(n: &mut Net, before: bool) {
    n.constant("gain", numbers(&[8], 51));
    n.constant("shift", numbers(&[8], 52));
    let (read, written) = if before { ("much", "z") } else { ("h", "normed") };
    if before {
        n.node("Mul", &["h", "g"], "much", &[]);
    }
    n.node("LayerNormalization", &[read, "gain", "shift"], written, &[("axis", Attribute::Int(-1))]);
    if !before {
        n.node("Mul", &["normed", "g"], "z", &[]);
    }
}

/// A gate that lets a value through, its curve written out or as one operator.
fn gated(n: &mut Net, gate: &str, value: &str, fused: bool) {
    if fused {
        n.node("QuickGelu", &[gate], "bent", &[("alpha", Attribute::Float(1.0))]);
        n.at("bent").domain = "com.microsoft".into();
    } else {
        n.node("Sigmoid", &[gate], "share", &[]);
        n.node("Mul", &[gate, "share"], "bent", &[]);
    }
    n.node("Mul", &["bent", value], "z", &[]);
}

/// A head of keys that is turned by places, read as values or not.
fn turned_or_not(n: &mut Net, values: &str) {
    n.constant("cos", table_of(f32::cos));
    n.constant("sin", table_of(f32::sin));
    n.constant("first", Tensor::vector(vec![0i64]));
    n.constant("half", Tensor::vector(vec![4i64]));
    n.constant("end", Tensor::vector(vec![8i64]));
    n.constant("features", Tensor::vector(vec![2i64]));
    n.node("Slice", &["h", "first", "half", "features"], "low", &[]);
    n.node("Slice", &["h", "half", "end", "features"], "high", &[]);
    n.node("Neg", &["high"], "negated", &[]);
    n.node("Concat", &["negated", "low"], "rotated", &[("axis", Attribute::Int(-1))]);
    n.node("Mul", &["h", "cos"], "by cosines", &[]);
    n.node("Mul", &["rotated", "sin"], "by sines", &[]);
    n.node("Add", &["by cosines", "by sines"], "turned", &[]);
    n.node("Transpose", &["turned"], "keys", &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
    n.node("MatMul", &["turned", "keys"], "scores", &[]);
    n.node("Softmax", &["scores"], "shares", &[("axis", Attribute::Int(-1))]);
    n.node("MatMul", &["shares", values], "z", &[]);
}

fn table_of(f: fn(f32) -> f32) -> Tensor {
    let angle = |i: usize| (i / 8) as f32 * 0.3f32.powi((i % 4) as i32);
    Tensor::from_vec(&[6, 8], (0..48).map(|i| f(angle(i))).collect()).unwrap()
}

/// Keys of what a norm, written out, makes of h, or of h itself.
fn of_normed(n: &mut Net, normed: bool) {
    n.constant("gain", numbers(&[8], 61));
    n.constant("weight one", numbers(&[8, 8], 62));
    n.constant("weight two", numbers(&[8, 8], 63));
    brought(n, false);
    n.names.insert("unit".into(), n.names["z"]);
    n.names.remove("z");
    n.node("Mul", &["unit", "gain"], "scaled", &[]);
    n.node("MatMul", &["scaled", "weight one"], "one", &[]);
    n.node("MatMul", &[if normed { "scaled" } else { "h" }, "weight two"], "two", &[]);
    n.node("Sub", &["one", "two"], "z", &[]);
}

/// A weight in numbers, with a step and a zero of another group or its own.
fn folded(n: &mut Net, other: bool) {
    let own = |i: usize| ((i * 37 + i / 7) % 101) as f32 * 0.02 - 1.0;
    let w = |i: usize| {
        if other { own(i) * (1.0 + 0.01 * (i / 8 % 3) as f32) + 0.05 * (i / 8 % 2) as f32 } else { own(i) }
    };
    n.constant("w8", Tensor::from_vec(&[8, 16], (0..128).map(w).collect()).unwrap());
    n.constant("back", numbers(&[16, 8], 64));
    n.node("MatMul", &["h", "w8"], "wide", &[]);
    n.node("MatMul", &["wide", "back"], "z", &[]);
}

/// Two matrices, one of which is looked up, with the halves of each exchanged or not.
fn looked_up(n: &mut Net, exchanged: bool) {
    let stack = numbers(&[2, 8, 8], 65);
    let x = stack.as_slice::<f32>().unwrap();
    let at = |i: usize| if exchanged { i / 64 * 64 + (i % 64 + 32) % 64 } else { i };
    n.constant("stack", Tensor::from_vec(&[2, 8, 8], (0..128).map(|i| x[at(i)]).collect()).unwrap());
    n.constant("rows", Tensor::vector(vec![1i64, 2]));
    n.node("ReduceSum", &["h", "rows"], "sums", &[("keepdims", Attribute::Int(0))]);
    n.constant("nought", Tensor::scalar(0f32));
    n.node("Greater", &["sums", "nought"], "above", &[]);
    n.node("Cast", &["above"], "chosen", &[("to", Attribute::Int(7))]);
    n.node("Gather", &["stack", "chosen"], "weights", &[]);
    n.node("MatMul", &["h", "weights"], "z", &[]);
}

/// What was kept in eight bits, with a step for each feature, read as what it is or as unsigned.
fn kept_in_bytes(n: &mut Net, steps: u64, unsigned: bool) {
    let step = numbers(&[8], steps).as_slice::<f32>().unwrap().iter().map(|x| 0.02 + x.abs() * 0.1).collect();
    n.constant("many", Tensor::scalar(20f32));
    n.constant("step", Tensor::vector::<f32>(step));
    n.node("Mul", &["h", "many"], "large", &[]);
    n.node("Cast", &["large"], "bytes", &[("to", Attribute::Int(3))]);
    if unsigned {
        n.node("Cast", &["bytes"], "unsigned", &[("to", Attribute::Int(2))]);
    }
    n.node("Cast", &[if unsigned { "unsigned" } else { "bytes" }], "wide", &[("to", F32)]);
    n.node("Mul", &["wide", "step"], "z", &[]);
}

/// A weight in three blocks a row, and what becomes of a number in a block whose largest is known.
fn in_thirds(n: &mut Net, becomes: fn(f32, f32, usize) -> f32) {
    let own = |i: usize| ((i * i) as f32 * 0.37).sin();
    let largest = |block: usize| (0..8).fold(0f32, |m, i| m.max(own(block * 8 + i).abs()));
    let number = |i: usize| becomes(own(i), largest(i / 8), i / 8 % 3);
    n.constant("w24", Tensor::from_vec(&[8, 24], (0..192).map(number).collect()).unwrap());
    n.constant("back", numbers(&[24, 8], 66));
    n.node("MatMul", &["h", "w24"], "wide", &[]);
    n.node("MatMul", &["wide", "back"], "z", &[]);
}

/// A number on a grid of so many steps up to the largest.
fn on_steps(x: f32, largest: f32, steps: f32) -> f32 {
    (x / largest * steps).round() * largest / steps
}

/// Scores, and what hides some of their columns, or of their rows.
fn hiding(n: &mut Net, rows: bool) {
    n.constant("features", Tensor::vector(vec![2i64]));
    n.constant("second", Tensor::vector(vec![1i64]));
    n.constant("nought", Tensor::scalar(0f32));
    n.constant("little", Tensor::scalar(-1e9f32));
    let turned = [("perm", Attribute::Ints(vec![0, 2, 1]))];
    n.node("Transpose", &["g"], "keys", &turned);
    n.node("MatMul", &["h", "keys"], "scores", &[]);
    n.node("ReduceSum", &["h", "features"], "sums", &[("keepdims", Attribute::Int(0))]);
    n.node("Greater", &["sums", "nought"], "above", &[]);
    n.node("Cast", &["above"], "hidden", &[("to", F32)]);
    n.node("Unsqueeze", &["hidden", "second"], "each", &[]);
    n.node("Mul", &["each", "little"], "columns", &[]);
    if rows {
        n.node("Transpose", &["columns"], "rows", &turned);
    }
    n.node("Add", &["scores", if rows { "rows" } else { "columns" }], "seen", &[]);
    n.node("Softmax", &["seen"], "shares", &[("axis", Attribute::Int(-1))]);
    n.node("MatMul", &["shares", "g"], "z", &[]);
}

/// Straight lines of places that say where something is sampled, the two halves of them exchanged or not.
fn sampled(n: &mut Net, exchanged: bool) {
    let at = |i: usize| if exchanged { i / 8 * 8 + (i % 8 + 4) % 8 } else { i };
    let line = |i: usize| if i % 8 < 4 { (i / 8) as f32 * 0.4 - 1.1 } else { (i % 4) as f32 * 0.5 - 1.2 };
    n.constant("grid", Tensor::from_vec(&[6, 8], (0..48).map(|i| line(at(i))).collect()).unwrap());
    n.node("Mul", &["h", "grid"], "z", &[]);
}

/// A product of what is bent, or of what is not, laid out for it.
fn laid_out(n: &mut Net, read: &str) {
    n.constant("as rows", Tensor::vector(vec![12i64, 8]));
    n.constant("as it was", Tensor::vector(vec![2i64, 6, 8]));
    n.constant("weight", numbers(&[8, 8], 70));
    n.node("Tanh", &["h"], "bent", &[]);
    n.node("Reshape", &[read, "as rows"], "rows", &[]);
    n.node("MatMul", &["rows", "weight"], "product", &[]);
    n.node("Reshape", &["product", "as it was"], "back", &[]);
    n.node("Add", &["back", "bent"], "z", &[]);
}

/// A table of places, its numbers row by row or column by column.
fn placed(n: &mut Net, across: bool) {
    let table = numbers(&[6, 8], 67);
    let x = table.as_slice::<f32>().unwrap();
    let at = |i: usize| if across { i % 6 * 8 + i / 6 } else { i };
    n.constant("places", Tensor::from_vec(&[6, 8], (0..48).map(|i| x[at(i)]).collect()).unwrap());
    n.node("Add", &["h", "places"], "z", &[]);
}

/// A share of the one taken off the other, the share computed or stored.
fn difference(n: &mut Net, from: &str, off: &str, stored: bool) {
    if stored {
        n.constant("share", Tensor::scalar(0.3f32.exp()));
    } else {
        n.constant("exponent", Tensor::scalar(0.3f32));
        n.node("Exp", &["exponent"], "share", &[]);
    }
    n.node("Mul", &["share", off], "part", &[]);
    n.node("Sub", &[from, "part"], "z", &[]);
}

/// Turned by tables that are made a little larger, as for a long context, of places in two dimensions around a middle.
fn turned_in_a_plane(n: &mut Net, places: [f32; 6]) {
    let angle = |i: usize| places[i / 8] * if i % 4 < 2 { 1.0 } else { 0.3 } + 0.2 * (i % 2) as f32;
    let table =
        |f: fn(f32) -> f32| Tensor::from_vec(&[6, 8], (0..48).map(|i| 1.2 * f(angle(i))).collect()).unwrap();
    n.constant("cos", table(f32::cos));
    n.constant("sin", table(f32::sin));
    n.node("Mul", &["h", "cos"], "by cosines", &[]);
    n.node("Mul", &["g", "sin"], "by sines", &[]);
    n.node("Add", &["by cosines", "by sines"], "z", &[]);
}

/// A curve of its argument or, as steep as that makes it, of five times its argument.
fn bent(n: &mut Net, sharp: bool) {
    n.constant("five", Tensor::scalar(5f32));
    if sharp {
        n.node("Mul", &["h", "five"], "argument", &[]);
    }
    n.node("Softplus", &[if sharp { "argument" } else { "h" }], if sharp { "curve" } else { "z" }, &[]);
    if sharp {
        n.node("Div", &["curve", "five"], "z", &[]);
    }
}

const CASES: &[Case] = &[
    Case { what: "a curve made sharper", cause: "activation", a: |n| bent(n, false), b: |n| bent(n, true) },
    Case {
        what: "other steps of what is kept in bytes",
        cause: "quantisation",
        a: |n| kept_in_bytes(n, 68, false),
        b: |n| kept_in_bytes(n, 69, false),
    },
    Case {
        what: "signed bytes as unsigned ones",
        cause: "quantisation",
        a: |n| kept_in_bytes(n, 68, false),
        b: |n| kept_in_bytes(n, 68, true),
    },
    Case {
        what: "steps of other thirds",
        cause: "quantisation",
        a: |n| in_thirds(n, |x, _, _| x),
        b: |n| in_thirds(n, |x, _, third| x * (1.0 + 0.1 * third as f32)),
    },
    Case {
        what: "a grid for each third",
        cause: "quantisation",
        a: |n| in_thirds(n, |x, _, _| x),
        b: |n| in_thirds(n, |x, largest, _| on_steps(x, largest, 7.0)),
    },
    Case {
        what: "a grid of more bits for each third",
        cause: "quantisation",
        a: |n| in_thirds(n, |x, _, _| x),
        b: |n| in_thirds(n, |x, largest, _| on_steps(x, largest, 31.0)),
    },
    Case { what: "a mask that hides rows", cause: "mask", a: |n| hiding(n, false), b: |n| hiding(n, true) },
    Case {
        what: "lines of a grid are no rotation",
        cause: "weight_layout",
        a: |n| sampled(n, false),
        b: |n| sampled(n, true),
    },
    Case {
        what: "places column by column",
        cause: "weight_layout",
        a: |n| placed(n, false),
        b: |n| placed(n, true),
    },
    Case {
        what: "the second less the first",
        cause: "operand_order",
        a: |n| difference(n, "h", "g", false),
        b: |n| difference(n, "g", "h", true),
    },
    Case {
        what: "places of a ring, in a plane",
        cause: "rope",
        a: |n| turned_in_a_plane(n, [0.7, -0.3, 1.9, -1.1, 0.4, 2.3]),
        b: |n| turned_in_a_plane(n, [0.7, -0.3, 1.9, 0.7, -0.3, 1.9]),
    },
    Case {
        what: "turned keys as values",
        cause: "operand_order",
        a: |n| turned_or_not(n, "g"),
        b: |n| turned_or_not(n, "turned"),
    },
    Case {
        what: "what a norm reads in place of what it writes",
        cause: "normalisation",
        a: |n| of_normed(n, true),
        b: |n| of_normed(n, false),
    },
    Case {
        what: "steps and zeros of another group",
        cause: "quantisation",
        a: |n| folded(n, false),
        b: |n| folded(n, true),
    },
    Case {
        what: "halves of stacked weights",
        cause: "weight_layout",
        a: |n| looked_up(n, false),
        b: |n| looked_up(n, true),
    },
    Case {
        what: "the stream two layers before",
        cause: "residual",
        a: |n| layers(n, 3),
        b: |n| layers(n, 1),
    },
    Case {
        what: "the stream two layers further on",
        cause: "residual",
        a: |n| layers(n, 1),
        b: |n| layers(n, 3),
    },
    Case {
        what: "a norm by magnitudes",
        cause: "normalisation",
        a: |n| brought(n, false),
        b: |n| brought(n, true),
    },
    Case {
        what: "a block in half precision",
        cause: "precision",
        a: |n| block(n, false),
        b: |n| block(n, true),
    },
    Case {
        what: "zeros of the next group",
        cause: "quantisation",
        a: |n| unpacked(n, 0, false),
        b: |n| unpacked(n, 1, false),
    },
    Case {
        what: "zeros of the next group, against numbers",
        cause: "quantisation",
        a: |n| unpacked(n, 0, true),
        b: |n| unpacked(n, 1, false),
    },
    Case {
        what: "a factor in front of a norm",
        cause: "normalisation",
        a: |n| modulated(n, false),
        b: |n| modulated(n, true),
    },
    Case {
        what: "the value bent, in one operator",
        cause: "gate_order",
        a: |n| gated(n, "h", "g", false),
        b: |n| gated(n, "g", "h", true),
    },
];

#[test]
fn what_is_served_has_its_name() {
    all_named(CASES);
}

#[test]
fn what_reads_through_a_layout_is_what_computes() {
    let report = compare(around(|n| laid_out(n, "bent")), around(|n| laid_out(n, "h")));
    let nodes = &report.culprits[0].b.nodes;
    assert!(nodes.iter().any(|n| n == "node_product"), "{nodes:?}");
}
