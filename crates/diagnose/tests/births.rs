//! What NaN and infinities are born of says more than what undoes them; as a table.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::Tensor;
use net::Net;
use table::{Case, all_named};

/// A root of something, or of its absolute value.
fn root(n: &mut Net, guarded: bool) {
    if guarded {
        n.node("Abs", &["h"], "positive", &[]);
    }
    n.node("Sqrt", &[if guarded { "positive" } else { "h" }], "root", &[]);
    n.node("Mul", &["root", "g"], "z", &[]);
}

/// The mean of the rows from one on, added to all of them; of six rows.
fn mean_from(n: &mut Net, start: i64) {
    for (name, x) in [("start", start), ("end", i64::MAX), ("axis", 1)] {
        n.constant(name, Tensor::vector(vec![x]));
    }
    n.node("Slice", &["h", "start", "end", "axis"], "rows", &[]);
    n.node("ReduceMean", &["rows", "axis"], "mean", &[("keepdims", Attribute::Int(1))]);
    n.node("Add", &["mean", "g"], "z", &[]);
}

/// Another function of large numbers, by an operator or with an exponential written out.
fn steep(n: &mut Net, written: bool) {
    n.constant("sharp", Tensor::scalar(90f32));
    n.constant("one", Tensor::scalar(1f32));
    n.node("Mul", &["h", "sharp"], "steep", &[]);
    if written {
        n.node("Exp", &["steep"], "power", &[]);
        n.node("Add", &["power", "one"], "above", &[]);
        n.node("Reciprocal", &["above"], "share", &[]);
        n.node("Sub", &["one", "share"], "z", &[]);
    } else {
        n.node("Softplus", &["steep"], "smooth", &[]);
        n.node("Sqrt", &["smooth"], "z", &[]);
    }
}

const CASES: [Case; 3] = [
    Case { what: "roots of what is below nought", cause: "nan", a: |n| root(n, true), b: |n| root(n, false) },
    Case {
        what: "a mean of no rows at all, whose NaN is not born of numbers",
        cause: "index",
        a: |n| mean_from(n, 3),
        b: |n| mean_from(n, 6),
    },
    Case {
        what: "an exponential that only float64 holds, in what is another function as well",
        cause: "overflow",
        a: |n| steep(n, false),
        b: |n| steep(n, true),
    },
];

#[test]
fn births_are_named() {
    all_named(&CASES);
}
