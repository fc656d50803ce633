//! Faults in an LSTM that one side holds as one operator and the other written out step by step, as a table.

mod common;
mod net;

use isotrace_graph::Attribute;
use isotrace_report::Verdict;
use isotrace_tensor::Tensor;
use net::{Net, compare, numbers};

const UNITS: usize = 4;

/// The rows of some gates of `tensor`, whose second axis holds one gate after the other.
fn gates(tensor: &Tensor, order: &[usize]) -> Tensor {
    let parts: Vec<Tensor> = order.iter().map(|&g| tensor.slice(1, g * UNITS, UNITS).unwrap()).collect();
    let all: Vec<f32> = parts.iter().flat_map(|p| p.as_slice::<f32>().unwrap().to_vec()).collect();
    let shape = [&[1, order.len() * UNITS][..], &tensor.shape()[2..]].concat();
    Tensor::from_vec(&shape, all).unwrap()
}

/// Weights, recurrent weights, and the two halves of the biases.
fn weights() -> [Tensor; 4] {
    let rows = 4 * UNITS;
    [numbers(&[1, rows, 8], 1), numbers(&[1, rows, UNITS], 2), numbers(&[1, rows], 3), numbers(&[1, rows], 4)]
}

fn both(x: &Tensor, y: &Tensor) -> Tensor {
    let all = [x.as_slice::<f32>().unwrap(), y.as_slice::<f32>().unwrap()].concat();
    Tensor::from_vec(&[1, all.len()], all).unwrap()
}

/// x [2, 6, 8] as two steps of six sequences, through one operator, and a product behind it.
fn fused(order: &[usize], settings: &[(&str, Attribute)]) -> Net {
    let [w, r, input, recurrent] = weights();
    let mut n = Net::default();
    n.value("x");
    n.constant("w", gates(&w, order));
    n.constant("r", gates(&r, order));
    n.constant("b", both(&gates(&input, order), &gates(&recurrent, order)));
    n.node("LSTM", &["x", "w", "r", "b"], "states", settings);
    n.constant("axis", Tensor::vector(vec![1i64]));
    n.node("Squeeze", &["states", "axis"], "s", &[]);
    behind(&mut n);
    n
}

fn behind(n: &mut Net) {
    n.constant("last", numbers(&[UNITS, 8], 9));
    n.node("MatMul", &["s", "last"], "p", &[]);
    n.node("Tanh", &["p"], "q", &[]);
    n.constant("after", numbers(&[8, 8], 10));
    n.node("MatMul", &["q", "after"], "y", &[]);
}

/// The same, operator by operator, gates cut out of one sum in an order of their own: input, forget, cell, output.
fn lstm_by_hand() -> Net {
    let [w, r, input, recurrent] = weights();
    let order = [0, 2, 3, 1];
    let mut n = Net::default();
    n.value("x");
    let turned = |t: &Tensor| {
        let t = gates(t, &order);
        t.reshape(&t.shape()[1..]).unwrap().permute(&[1, 0]).unwrap()
    };
    let flat = |t: &Tensor| gates(t, &order).reshape(&[4 * UNITS]).unwrap();
    n.constant("w", turned(&w));
    n.constant("r", turned(&r));
    n.constant("b", flat(&input));
    n.constant("c", flat(&recurrent));
    n.constant("zeros", Tensor::full(&[6, UNITS], 0f32).unwrap());
    n.constant("axis", Tensor::vector(vec![0i64]));
    n.constant("sizes", Tensor::vector(vec![UNITS as i64; 4]));
    let (mut h, mut c) = ("zeros".to_owned(), "zeros".to_owned());
    for t in 0..2 {
        let at = |what: &str| format!("{what} {t}");
        n.constant(&at("place"), Tensor::scalar(t as i64));
        n.node("Gather", &["x", &at("place")], &at("x"), &[]);
        n.node("MatMul", &[&at("x"), "w"], &at("xw"), &[]);
        n.node("Add", &[&at("xw"), "b"], &at("xwb"), &[]);
        n.node("MatMul", &[&h, "r"], &at("hr"), &[]);
        n.node("Add", &[&at("hr"), "c"], &at("hrc"), &[]);
        n.node("Add", &[&at("xwb"), &at("hrc")], &at("sum"), &[]);
        n.node("Split", &[&at("sum"), "sizes"], &at("i"), &[("axis", Attribute::Int(1))]);
        let more = ["f", "g", "o"].map(|name| Some(n.value(&at(name))));
        n.at(&at("i")).outputs.extend(more);
        for (gate, curve) in [("i", "Sigmoid"), ("f", "Sigmoid"), ("g", "Tanh"), ("o", "Sigmoid")] {
            n.node(curve, &[&at(gate)], &at(&format!("{gate} bent")), &[]);
        }
        n.node("Mul", &[&at("f bent"), &c], &at("kept"), &[]);
        n.node("Mul", &[&at("i bent"), &at("g bent")], &at("entered"), &[]);
        n.node("Add", &[&at("kept"), &at("entered")], &at("cell"), &[]);
        n.node("Tanh", &[&at("cell")], &at("shown"), &[]);
        n.node("Mul", &[&at("o bent"), &at("shown")], &at("h"), &[]);
        n.node("Unsqueeze", &[&at("h"), "axis"], &at("row"), &[]);
        (h, c) = (at("h"), at("cell"));
    }
    n.node("Concat", &["row 0", "row 1"], "s", &[("axis", Attribute::Int(0))]);
    behind(&mut n);
    n
}

const RIGHT: &[usize] = &[0, 1, 2, 3];
const EXCHANGED: &[usize] = &[0, 2, 1, 3];

#[test]
fn a_layer_is_what_its_cells_do() {
    let report = compare(lstm_by_hand(), fused(RIGHT, &[]));
    assert_eq!(report.verdict, Verdict::Equivalent);
}

#[test]
fn faults_in_a_layer_are_named_with_their_cause() {
    let reverse = [("direction", Attribute::Bytes(b"reverse".to_vec()))];
    let relu = ["Sigmoid", "Relu", "Tanh"].map(|name| name.as_bytes().to_vec()).to_vec();
    let cases = [
        ("output and forget gate exchanged", "gate_order", fused(EXCHANGED, &[])),
        ("from the end", "index", fused(RIGHT, &reverse)),
        (
            "another function of the cell's gate",
            "activation",
            fused(RIGHT, &[("activations", Attribute::Strings(relu))]),
        ),
    ];
    let mut wrong = Vec::new();
    for (what, cause, b) in cases {
        let report = compare(lstm_by_hand(), b);
        let told = report.culprits.first().is_some_and(|c| {
            c.cause.class == cause
                && c.b.nodes == ["node_states"]
                && c.cause.counterfactual.as_ref().is_some_and(|p| p.after < p.before)
        });
        if !told {
            wrong.push(format!("{what}: {:?} {:#?}", report.verdict, report.culprits.first()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
