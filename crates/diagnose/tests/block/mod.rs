//! A small transformer block, and faults to be planted in it.

#![allow(dead_code, reason = "each test program uses a part")]

use isotrace_graph::Attribute;
use isotrace_tensor::Tensor;

use crate::net::{Net, insert, numbers};

/// y = LN(x + softmax(q k^T / sqrt(8)) v); then a feed-forward layer with its own skip connection.
pub fn block() -> Net {
    let mut n = Net::default();
    n.value("x");
    for (i, name) in ["wq", "wk", "wv"].into_iter().enumerate() {
        n.constant(name, numbers(&[8, 8], i as u64 + 1));
    }
    n.constant("bq", numbers(&[8], 11));
    n.constant("w1", numbers(&[8, 16], 12));
    n.constant("w2", numbers(&[16, 8], 13));
    n.constant("gain", numbers(&[8], 14));
    n.constant("shift", numbers(&[8], 15));
    n.constant("scale", Tensor::scalar(0.353_553_4f32));
    n.node("MatMul", &["x", "wq"], "q0", &[]);
    n.node("Add", &["q0", "bq"], "q", &[]);
    n.node("MatMul", &["x", "wk"], "k", &[]);
    n.node("MatMul", &["x", "wv"], "v", &[]);
    n.node("Transpose", &["k"], "kt", &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
    n.node("MatMul", &["q", "kt"], "scores", &[]);
    n.node("Mul", &["scores", "scale"], "scaled", &[]);
    n.node("Softmax", &["scaled"], "p", &[("axis", Attribute::Int(-1))]);
    n.node("MatMul", &["p", "v"], "context", &[]);
    n.node("Add", &["x", "context"], "skip", &[]);
    n.node(
        "LayerNormalization",
        &["skip", "gain", "shift"],
        "normed",
        &[("epsilon", Attribute::Float(1e-5))],
    );
    n.node("MatMul", &["normed", "w1"], "wide", &[]);
    n.node("Relu", &["wide"], "act", &[]);
    n.node("MatMul", &["act", "w2"], "narrow", &[]);
    n.node("Add", &["normed", "narrow"], "y", &[]);
    n
}

/// A causal mask as exporters write it: the lowest number of f32 where nobody may look.
pub fn masked() -> Net {
    let mut n = block();
    let mask = (0..36).map(|i| if i % 6 > i / 6 { f32::MIN } else { 0.0 }).collect();
    n.constant("mask", Tensor::from_vec(&[6, 6], mask).unwrap());
    insert(&mut n, "Add", "scaled", &[], &["mask"]);
    n
}

/// What is changed in the block.
pub struct Case {
    pub what: &'static str,
    pub plant: fn(&mut Net),
    /// Any of these among the outputs named on B's side.
    pub named: &'static [&'static str],
    pub cause: &'static str,
}

/// Faults, the nodes that must be named, and their causes.
pub const FAULTS: &[Case] = &[
    Case {
        what: "1/sqrt(768) for 1/sqrt(8)",
        plant: |n| n.constant("scale", Tensor::scalar(0.036_084_39f32)),
        named: &["scaled"],
        cause: "scale",
    },
    Case {
        what: "square weight transposed",
        plant: |n| n.constant("wk", numbers(&[8, 8], 2).permute(&[1, 0]).unwrap()),
        named: &["k"],
        cause: "weight_layout",
    },
    Case {
        what: "another projection's weight",
        plant: |n| n.constant("wv", numbers(&[8, 8], 2)),
        named: &["v"],
        cause: "weight_swap",
    },
    Case {
        what: "bias of zeros",
        plant: |n| n.constant("bq", Tensor::full(&[8], 0f32).unwrap()),
        named: &["q"],
        cause: "bias",
    },
    Case {
        what: "softmax over the wrong axis",
        plant: |n| {
            n.at("p").attributes.insert("axis".into(), Attribute::Int(1));
        },
        named: &["p"],
        cause: "axis",
    },
    Case {
        what: "epsilon of 1e-12",
        plant: |n| {
            n.at("normed").attributes.insert("epsilon".into(), Attribute::Float(1e-12));
        },
        named: &["normed"],
        cause: "epsilon",
    },
    Case {
        what: "another activation",
        plant: |n| n.at("act").op = "Sigmoid".into(),
        named: &["act"],
        cause: "activation",
    },
    Case {
        what: "skip connection dropped, a void addition left",
        plant: |n| {
            n.constant("zero", Tensor::scalar(0f32));
            let zero = n.names["zero"];
            n.at("skip").inputs[0] = Some(zero);
        },
        named: &["skip"],
        cause: "residual",
    },
    Case {
        what: "skip taken after the norm's input is scaled twice",
        plant: |n| insert(n, "Mul", "context", &[], &["scale"]),
        named: &["context_mul"],
        cause: "scale",
    },
    Case {
        what: "one tensor through f16 and back",
        plant: |n| {
            insert(n, "Cast", "context", &[("to", Attribute::Int(10))], &[]);
            insert(n, "Cast", "context_cast", &[("to", Attribute::Int(1))], &[]);
        },
        named: &["context_cast", "context_cast_cast"],
        cause: "precision",
    },
];
