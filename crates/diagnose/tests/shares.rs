//! What is taken of a whole: the share of the other part, and the pieces of a value put together in another order; as a
//! table.

mod common;
mod net;
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::Tensor;
use net::Net;
use table::{Case, all_named};

/// A gate lets a share of each channel through, or all but that share.
fn gated(n: &mut Net, other: bool) {
    n.node("Sigmoid", &["g"], "share", &[]);
    if other {
        n.constant("one", Tensor::scalar(1f32));
        n.node("Sub", &["one", "share"], "rest", &[]);
    }
    n.node("Mul", &[if other { "rest" } else { "share" }, "h"], "z", &[]);
}

/// Elements of a sequence as they come, or the last in front of the others.
fn turned_round(n: &mut Net, last_first: bool) {
    let ends = [("zero", 0i64), ("five", 5), ("six", 6), ("axis", 1)];
    for (name, at) in ends {
        n.constant(name, Tensor::vector(vec![at]));
    }
    if last_first {
        n.node("Slice", &["h", "five", "six", "axis"], "last_one", &[]);
        n.node("Slice", &["h", "zero", "five", "axis"], "others", &[]);
        n.node("Concat", &["last_one", "others"], "turned", &[("axis", Attribute::Int(1))]);
    }
    n.node("Mul", &[if last_first { "turned" } else { "h" }, "g"], "z", &[]);
}

#[test]
fn causes_are_named_and_proven() {
    all_named(&[
        Case {
            what: "the share of the other part",
            cause: "gate_order",
            a: |n| gated(n, false),
            b: |n| gated(n, true),
        },
        Case {
            what: "a share in place of the other part's",
            cause: "gate_order",
            a: |n| gated(n, true),
            b: |n| gated(n, false),
        },
        Case {
            what: "the last element of a sequence in front",
            cause: "index",
            a: |n| turned_round(n, false),
            b: |n| turned_round(n, true),
        },
    ]);
}
