//! What goes wrong in networks that are packed, narrowed and served, as a table of names.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::{DType, Tensor};
use net::{Net, numbers};
use table::{Case, all_named};

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

const CASES: &[Case] = &[
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
