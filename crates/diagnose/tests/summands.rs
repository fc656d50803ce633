//! What is added and taken off: means of an input, numbers that are too large for an epsilon, epsilons folded into what is
//! divided by; as a table.

mod common;
mod net;
mod table;

use isotrace_tensor::Tensor;
use net::{Net, numbers};
use table::{Case, all_named};

fn positive(seed: u64) -> Tensor {
    let x: Vec<f32> = numbers(&[8], seed).as_slice::<f32>().unwrap().iter().map(|x| x.abs() + 0.5).collect();
    Tensor::vector(x)
}

/// An input less its means, over its deviations; these means may be those of other data.
fn brought(n: &mut Net, op: &str, mean: u64) {
    n.constant("byte", Tensor::scalar(0.25f32));
    n.constant("mean", numbers(&[8], mean));
    n.constant("deviation", positive(62));
    n.node("Div", &["x", "byte"], "share", &[]);
    n.node(op, &["share", "mean"], "centred", &[]);
    n.node("Div", &["centred", "deviation"], "z", &[]);
}

/// What is added to a product's rows for each channel is no mean of an input.
fn biased(n: &mut Net, seed: u64) {
    n.constant("bias", numbers(&[8], seed));
    n.constant("deviation", positive(62));
    n.node("Sub", &["h", "bias"], "sum", &[]);
    n.node("Relu", &["sum"], "z", &[]);
}

/// A difference as it is, or one more, as pixels at both ends are counted.
fn extent(n: &mut Net, more: Option<f32>) {
    n.node("Sub", &["h", "g"], "between", &[]);
    if let Some(more) = more {
        n.constant("more", Tensor::scalar(more));
        n.node("Add", &["between", "more"], "extent", &[]);
    } else {
        n.constant("more", Tensor::scalar(0f32));
        n.node("Add", &["between", "more"], "extent", &[]);
    }
    n.node("Mul", &["extent", "h"], "z", &[]);
}

/// A quotient by stored numbers, to which a small one was added.
fn folded(n: &mut Net, least: f32) {
    let x: Vec<f32> = positive(63).as_slice::<f32>().unwrap().iter().map(|x| x - 0.499 + least).collect();
    n.constant("envelope", Tensor::vector(x));
    n.node("Div", &["h", "envelope"], "z", &[]);
}

/// The same with the sum written out.
fn guarded(n: &mut Net, least: f32) {
    let x: Vec<f32> = positive(63).as_slice::<f32>().unwrap().iter().map(|x| x - 0.499).collect();
    n.constant("window", Tensor::vector(x));
    n.constant("least", Tensor::scalar(least));
    n.node("Add", &["window", "least"], "envelope", &[]);
    n.node("Div", &["h", "envelope"], "z", &[]);
}

const CASES: [Case; 6] = [
    Case {
        what: "means of other data",
        cause: "normalisation",
        a: |n| brought(n, "Sub", 61),
        b: |n| brought(n, "Sub", 67),
    },
    Case {
        what: "means of other data, added",
        cause: "normalisation",
        a: |n| brought(n, "Add", 61),
        b: |n| brought(n, "Add", 67),
    },
    Case { what: "another bias of a product", cause: "bias", a: |n| biased(n, 61), b: |n| biased(n, 67) },
    Case {
        what: "one more, where nothing was written out",
        cause: "bias",
        a: |n| extent(n, None),
        b: |n| extent(n, Some(1.0)),
    },
    Case {
        what: "another epsilon, folded in",
        cause: "epsilon",
        a: |n| folded(n, 1e-5),
        b: |n| folded(n, 1e-2),
    },
    Case {
        what: "another epsilon, folded in on one side",
        cause: "epsilon",
        a: |n| folded(n, 1e-5),
        b: |n| guarded(n, 1e-2),
    },
];

#[test]
fn what_is_added_is_named() {
    all_named(&CASES);
}
