//! What goes wrong in detectors, front-ends of sound, graphs and quantised networks, as a table of names.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::{DType, Tensor};
use net::{Net, numbers};
use table::{Case, all_named};

const FLAT: &[(&str, Attribute)] = &[("keepdims", Attribute::Int(0))];
const KEPT: &[(&str, Attribute)] = &[("keepdims", Attribute::Int(1))];

/// Sums along both sides of a heat map, weighed by places; or the first of them twice, as an optimiser leaves two sums that
/// a fault has made the same.
fn places(n: &mut Net, merged: bool) {
    let pair = [("axis", Attribute::Int(-1))];
    n.constant("places", numbers(&[6], 121));
    n.constant("mixed", numbers(&[2, 8], 122));
    n.constant("end", Tensor::vector(vec![-1i64]));
    n.node("Transpose", &["g"], "turned", &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
    n.node("MatMul", &["h", "turned"], "heat", &[]);
    for (axis, name) in [(1i64, "down"), (2, "across")].into_iter().take(if merged { 1 } else { 2 }) {
        let [sum, weighed, column] = ["sum", "weighed", "column"].map(|s| format!("{s} {name}"));
        n.constant(name, Tensor::vector(vec![axis]));
        n.node("ReduceSum", &["heat", name], &sum, FLAT);
        n.node("Mul", &[&sum, "places"], &weighed, &[]);
        n.node("Unsqueeze", &[&weighed, "end"], &column, &[]);
    }
    let second = if merged { "column down" } else { "column across" };
    n.node("Concat", &["column down", second], "both", &pair);
    n.node("MatMul", &["both", "mixed"], "z", &[]);
}

/// What a stored number makes of two values goes two ways; or what it makes of one goes both.
fn peephole(n: &mut Net, of_last: bool) {
    n.constant("hole", numbers(&[6, 8], 123));
    n.node("Mul", &["h", "hole"], "before", &[]);
    if !of_last {
        n.node("Mul", &["g", "hole"], "after", &[]);
    }
    n.node("Sigmoid", &["before"], "input", &[]);
    n.node("Add", &["h", if of_last { "before" } else { "after" }], "sum", &[]);
    n.node("Tanh", &["sum"], "output", &[]);
    n.node("Mul", &["input", "output"], "z", &[]);
}

/// Rows by a table of waves, the first of which may be too large.
fn transform(n: &mut Net, first: f32) {
    let wave = |i: usize| (std::f32::consts::PI / 8.0 * ((i / 8) as f32 + 0.5) * (i % 8) as f32).cos() * 0.5;
    let all = (0..64).map(|i| if i % 8 == 0 { wave(i) * first } else { wave(i) }).collect();
    n.constant("waves", Tensor::from_vec(&[8, 8], all).unwrap());
    n.node("MatMul", &["h", "waves"], "z", &[]);
}

/// By places from nought to one, or from one to nought.
fn grid(n: &mut Net, mirrored: bool) {
    let place = |i: usize| if mirrored { 7 - i } else { i } as f32 / 7.0;
    n.constant("grid", Tensor::vector((0..8).map(place).collect::<Vec<f32>>()));
    n.node("Mul", &["h", "grid"], "z", &[]);
}

/// A weight in eight bits, or what it stands for with two rows of noughts.
fn unpacked(n: &mut Net, pruned: bool) {
    let stored: Vec<i8> = (0..64).map(|i| ((i * 37 + i * i / 5) % 200) as i8).collect();
    let steps: Vec<f32> = (0..8).map(|i| 0.01 * (i + 1) as f32).collect();
    if pruned {
        let w =
            stored.iter().enumerate().map(|(i, &q)| if i < 16 { 0.0 } else { f32::from(q) * steps[i / 8] });
        n.constant("weight", Tensor::from_vec(&[8, 8], w.collect()).unwrap());
    } else {
        n.constant("stored", Tensor::from_vec(&[8, 8], stored).unwrap());
        n.constant("steps", Tensor::vector(steps));
        n.constant("zeros", Tensor::vector(vec![0i8; 8]));
        n.node("DequantizeLinear", &["stored", "steps", "zeros"], "weight", &[("axis", Attribute::Int(0))]);
    }
    n.node("MatMul", &["h", "weight"], "z", &[]);
}

/// Classes in another order: the rows of the last weight and its biases.
fn classes(n: &mut Net, by: usize) {
    let (w, bias) = (numbers(&[8, 8], 124), numbers(&[8], 125));
    let (w, bias) = (w.as_slice::<f32>().unwrap(), bias.as_slice::<f32>().unwrap());
    n.constant("weight", Tensor::from_vec(&[8, 8], (0..64).map(|i| w[(i + 8 * by) % 64]).collect()).unwrap());
    n.constant("bias", Tensor::vector((0..8).map(|i| bias[(i + by) % 8]).collect::<Vec<f32>>()));
    n.constant("to_rows", Tensor::vector(vec![12i64, 8]));
    n.constant("back", Tensor::vector(vec![2i64, 6, 8]));
    n.node("Reshape", &["h", "to_rows"], "rows", &[]);
    n.node("Gemm", &["rows", "weight", "bias"], "flat", &[("transB", Attribute::Int(1))]);
    n.node("Reshape", &["flat", "back"], "z", &[]);
}

/// The sum of what is shown, over how many that is or over the sum of their weights; or the sum alone.
fn pooled(n: &mut Net, weighed: bool, divided: bool) {
    n.constant("rows", Tensor::vector(vec![1i64]));
    n.constant("nought", Tensor::scalar(0f32));
    n.constant("least", Tensor::scalar(1e-3f32));
    if weighed {
        n.node("Sigmoid", &["g"], "shown", &[]);
    } else {
        n.node("Greater", &["g", "nought"], "positive", &[]);
        n.node("Cast", &["positive"], "shown", &[("to", Attribute::Int(1))]);
    }
    n.node("Mul", &["h", "shown"], "kept", &[]);
    n.node("ReduceSum", &["kept", "rows"], "sum", KEPT);
    n.node("ReduceSum", &["shown", "rows"], "count", KEPT);
    n.node("Add", &["count", "least"], "safe", &[]);
    if divided {
        n.node("Div", &["sum", "safe"], "mean", &[]);
    }
    n.node("Mul", &["g", if divided { "mean" } else { "sum" }], "z", &[]);
}

/// Two values on their grids added up, and the sum on its own; or the one of them alone.
fn added_on_grids(n: &mut Net, added: bool) {
    n.constant("zero", Tensor::scalar(0i8));
    for (name, step) in [("step", 0.05f32), ("wide", 0.11)] {
        n.constant(name, Tensor::scalar(step));
    }
    n.node("QuantizeLinear", &["h", "step", "zero"], "whole", &[]);
    if added {
        n.node("DequantizeLinear", &["whole", "step", "zero"], "off", &[]);
        n.node("Add", &["g", "off"], "sum", &[]);
        n.node("QuantizeLinear", &["sum", "wide", "zero"], "on", &[]);
    }
    n.node("DequantizeLinear", &[if added { "on" } else { "whole" }, "wide", "zero"], "z", &[]);
}

/// What comes in, as floats, or brought to a mean and a deviation as well.
fn brought_to(n: &mut Net, brought: bool) {
    n.constant("mixed", numbers(&[8, 8], 126));
    n.constant("mean", numbers(&[8], 127));
    n.constant("inverse", numbers(&[8], 128));
    if brought {
        n.node("Mul", &["x", "inverse"], "drawn", &[]);
        n.node("Add", &["drawn", "mean"], "entering", &[]);
    } else {
        n.node("Cast", &["x"], "entering", &[("to", Attribute::Int(1))]);
    }
    n.node("MatMul", &["entering", "mixed"], "z", &[]);
}

/// Shares of what a mask leaves, which is spelled in two ways; or of twice as much, the mask taken twice too.
fn shares(n: &mut Net, twice: bool) {
    n.constant("yes", Tensor::vector(vec![1i64]).cast(DType::Bool).unwrap());
    for (name, number) in [("nought", 0f32), ("least", f32::MIN), ("two", 2.0)] {
        n.constant(name, Tensor::scalar(number));
    }
    if twice {
        n.node("LessOrEqual", &["g", "nought"], "hidden", &[]);
        n.node("Where", &["hidden", "least", "nought"], "mask", &[]);
    } else {
        n.node("Greater", &["g", "nought"], "shown", &[]);
        n.node("And", &["yes", "shown"], "left", &[]);
        n.node("Where", &["left", "nought", "least"], "mask", &[]);
    }
    n.node("Add", &["h", "mask"], "scores", &[]);
    if twice {
        n.node("Mul", &["scores", "two"], "warm", &[]);
    }
    n.node("Softmax", &[if twice { "warm" } else { "scores" }], "z", &[("axis", Attribute::Int(-1))]);
}

/// Waves by place, which are added; from another place on.
fn placed(n: &mut Net, from: usize) {
    let wave = |i: usize| {
        ((i / 8 + from) as f32 / 10f32.powf((i % 4) as f32 / 2.0)
            + (i % 8 / 4) as f32 * std::f32::consts::FRAC_PI_2)
            .sin()
    };
    n.constant("waves", Tensor::from_vec(&[6, 8], (0..48).map(wave).collect()).unwrap());
    n.node("Add", &["h", "waves"], "z", &[]);
}

/// On a grid of steps, bounded or folded once it is past the ends.
fn levels(n: &mut Net, folded: bool) {
    for (name, number) in [("step", 0.02f32), ("low", -20.0), ("high", 20.0), ("width", 40.0)] {
        n.constant(name, Tensor::scalar(number));
    }
    n.node("Div", &["h", "step"], "steps", &[]);
    n.node("Round", &["steps"], "level", &[]);
    if folded {
        n.node("Sub", &["level", "low"], "from", &[]);
        n.node("Mod", &["from", "width"], "within", &[("fmod", Attribute::Int(1))]);
        n.node("Add", &["within", "low"], "bounded", &[]);
    } else {
        n.node("Clip", &["level", "low", "high"], "bounded", &[]);
    }
    n.node("Mul", &["bounded", "step"], "z", &[]);
}

static CASES: &[Case] = &[
    Case { what: "two sums that became one", cause: "axis", a: |n| places(n, false), b: |n| places(n, true) },
    Case {
        what: "another value by the same number",
        cause: "operand_order",
        a: |n| peephole(n, false),
        b: |n| peephole(n, true),
    },
    Case {
        what: "the first wave of a transform",
        cause: "weight_value",
        a: |n| transform(n, 0.707),
        b: |n| transform(n, 1.0),
    },
    Case { what: "a grid mirrored", cause: "weight_layout", a: |n| grid(n, false), b: |n| grid(n, true) },
    Case {
        what: "rows pruned where the other side unpacks",
        cause: "weight_value",
        a: |n| unpacked(n, false),
        b: |n| unpacked(n, true),
    },
    Case { what: "classes one further on", cause: "index", a: |n| classes(n, 0), b: |n| classes(n, 1) },
    Case {
        what: "a sum for the mean of what is shown",
        cause: "reduction",
        a: |n| pooled(n, false, true),
        b: |n| pooled(n, false, false),
    },
    Case {
        what: "a sum not divided by its weights",
        cause: "normalisation",
        a: |n| pooled(n, true, true),
        b: |n| pooled(n, true, false),
    },
    Case {
        what: "brought to other statistics once more",
        cause: "normalisation",
        a: |n| brought_to(n, false),
        b: |n| brought_to(n, true),
    },
    Case {
        what: "a sum between grids",
        cause: "residual",
        a: |n| added_on_grids(n, true),
        b: |n| added_on_grids(n, false),
    },
    Case {
        what: "scores by two, mask and all",
        cause: "scale",
        a: |n| shares(n, false),
        b: |n| shares(n, true),
    },
    Case { what: "places from the second on", cause: "index", a: |n| placed(n, 0), b: |n| placed(n, 1) },
    Case {
        what: "levels that wrap around",
        cause: "quantisation",
        a: |n| levels(n, false),
        b: |n| levels(n, true),
    },
];

#[test]
fn what_goes_wrong_every_day_has_its_name() {
    all_named(CASES);
}
