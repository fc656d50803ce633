//! What a fault of stored numbers is called (weights in another order or on a grid, norms folded into them, a table of
//! words), as a table: a few nodes of A from x to y, what B has in their stead, and the cause.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::Tensor;
use net::{Net, compare, numbers};
use table::{Case, all_named};

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

fn rate(n: &mut Net, stored: fn(f32) -> f32) {
    let x: Vec<f32> = numbers(&[8], 41).as_slice::<f32>().unwrap().iter().map(|&x| stored(x)).collect();
    n.constant("rate", Tensor::vector(x));
    n.node("Mul", &["h", "rate"], "z", &[]);
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

fn table(n: &mut Net, narrow: bool) {
    n.constant("table", numbers(&[6, 8], 71));
    if narrow {
        n.node("Cast", &["table"], "low", &[("to", Attribute::Int(16))]);
        n.node("Cast", &["low"], "high", &[("to", Attribute::Int(1))]);
    }
    n.node("Mul", &["h", if narrow { "high" } else { "table" }], "z", &[]);
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

/// A norm by stored statistics whose shift is stored as whole numbers, which may all be nought.
fn stored_shift(n: &mut Net, missing: bool) {
    let count = |i: i32| if missing { 0 } else { 37 * i - 90 };
    n.constant("whole shift", Tensor::vector((0..6).map(count).collect::<Vec<i32>>()));
    n.constant("by", Tensor::scalar(0.004f32));
    n.node("DequantizeLinear", &["whole shift", "by"], "shift", &[]);
    for (i, name) in ["gain", "mean"].into_iter().enumerate() {
        n.constant(name, numbers(&[6], 90 + i as u64));
    }
    n.constant("variance", Tensor::vector(vec![0.5f32, 1.5, 0.8, 1.2, 2.0, 0.7]));
    n.node("BatchNormalization", &["h", "gain", "shift", "mean", "variance"], "z", &[]);
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

/// What a small network makes of a table, added to h, its curve in front of its bias or behind: nothing that comes in plays
/// a part in it.
fn from_constants(n: &mut Net, curved_first: bool) {
    n.constant("places", numbers(&[6, 4], 91));
    n.constant("in", numbers(&[4, 8], 92));
    n.constant("bias", numbers(&[8], 94));
    n.constant("out", numbers(&[8, 8], 93));
    n.node("MatMul", &["places", "in"], "wide", &[]);
    if curved_first {
        n.node("Relu", &["wide"], "curved", &[]);
        n.node("Add", &["curved", "bias"], "bent", &[]);
    } else {
        n.node("Add", &["wide", "bias"], "raised", &[]);
        n.node("Relu", &["raised"], "bent", &[]);
    }
    n.node("MatMul", &["bent", "out"], "said", &[]);
    n.node("Add", &["h", "said"], "z", &[]);
}

const CASES: &[Case] = &[
    Case {
        what: "a curve before a bias on the way from one constant to another",
        cause: "bias",
        a: |n| from_constants(n, false),
        b: |n| from_constants(n, true),
    },
    Case {
        what: "a weight on a grid that saturates",
        cause: "quantisation",
        a: |n| cut_off(n, false),
        b: |n| cut_off(n, true),
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
        what: "a norm with other statistics, folded",
        cause: "normalisation",
        a: |n| rows(n, 31),
        b: |n| rows(n, 32),
    },
    Case {
        what: "the shift of a norm, stored as whole numbers, missing",
        cause: "bias",
        a: |n| stored_shift(n, false),
        b: |n| stored_shift(n, true),
    },
    Case {
        what: "a rate stored before its exponential",
        cause: "activation",
        a: |n| rate(n, |x| (-x).exp()),
        b: |n| rate(n, |x| x),
    },
    Case {
        what: "a mirrored kernel, where A's has a gain folded in",
        cause: "weight_layout",
        a: |n| convolved(n, true),
        b: |n| convolved(n, false),
    },
    Case {
        what: "a constant rounded on its way",
        cause: "precision",
        a: |n| table(n, false),
        b: |n| table(n, true),
    },
];

#[test]
fn stored_numbers_are_named_by_how_they_differ() {
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

/// Constants that nodes compute are named by the first node that parts, not by what reads them.
#[test]
fn what_computes_a_constant_is_named_and_not_its_reader() {
    let report =
        compare(table::around(|n| from_constants(n, false)), table::around(|n| from_constants(n, true)));
    let named = &report.culprits[0].b.outputs;
    assert!(named.iter().any(|v| v == "curved") && named.iter().all(|v| v != "said"), "{named:?}");
}
