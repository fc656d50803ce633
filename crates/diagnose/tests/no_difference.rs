//! What is no difference: what f32 does not show, and what a fused operator leaves out.

mod common;
mod net;

use isotrace_graph::{Attribute, Node};
use isotrace_report::Verdict;
use isotrace_tensor::Tensor;
use net::{Net, compare, numbers};

/// What is too small for f32 to show changes no bit of any value, and nothing that these inputs could tell.
#[test]
fn what_changes_no_bit_is_no_difference() {
    let net = |epsilon: Option<f32>| {
        let mut n = Net::default();
        n.value("x");
        n.constant("w", numbers(&[8, 8], 1));
        n.constant("one", Tensor::scalar(1f32));
        n.node("Mul", &["x", "x"], "square", &[]);
        n.node("Add", &["square", "one"], "above", &[]);
        if let Some(epsilon) = epsilon {
            n.constant("epsilon", Tensor::scalar(epsilon));
            n.node("Add", &["above", "epsilon"], "guarded", &[]);
        }
        n.node("Log", &[if epsilon.is_some() { "guarded" } else { "above" }], "log", &[]);
        n.node("MatMul", &["log", "w"], "y", &[]);
        n
    };
    let report = compare(net(Some(1e-12)), net(None));
    assert_eq!(report.verdict, Verdict::Identical);
    let told: Vec<&str> = report.warnings.iter().map(|w| w.class.as_str()).collect();
    assert_eq!(told, ["latent"], "{:?}", report.warnings);
    let report = compare(net(Some(1e-3)), net(None));
    let cause = report.culprits.first().map(|c| c.cause.class.as_str());
    assert_eq!((report.verdict, cause), (Verdict::Divergent, Some("epsilon")));
}

/// A sum that a fused norm hands out beside its result rounds as any sum does, though the statistics between are left
/// out.
#[test]
fn outputs_left_out_take_no_rounding_away() {
    let start = || {
        let mut n = Net::default();
        n.value("x");
        n.constant("w", numbers(&[8, 8], 1));
        for (i, name) in ["bias", "gain", "shift"].into_iter().enumerate() {
            n.constant(name, numbers(&[8], 2 + i as u64));
        }
        n.node("MatMul", &["x", "w"], "h", &[]);
        n
    };
    let epsilon = [("epsilon", Attribute::Float(1e-5))];
    let mut a = start();
    a.node("Add", &["h", "bias"], "q", &[]);
    a.node("Add", &["x", "q"], "s", &[]);
    a.node("LayerNormalization", &["s", "gain", "shift"], "n", &epsilon);
    a.node("Add", &["s", "n"], "y", &[]);
    let mut b = start();
    let sum = b.value("s");
    b.node("SkipLayerNormalization", &["x", "h", "gain", "shift", "bias"], "n", &epsilon);
    let fused: &mut Node = b.at("n");
    fused.domain = "com.microsoft".into();
    fused.version = 1;
    fused.outputs.extend([None, None, Some(sum)]);
    b.node("Add", &["s", "n"], "y", &[]);
    let report = compare(a, b);
    assert_eq!(report.verdict, Verdict::Equivalent, "{:?}", report.culprits);
}

/// A norm over twelve numbers, its statistics merged from those of two halves; the mean square is the sum times `share`.
fn norm_by_halves(n: &mut Net, share: f32) {
    for (name, places) in [("none", 0), ("half", 6), ("all", 12), ("last", -1)] {
        n.constant(name, Tensor::vector(vec![places as i64]));
    }
    for (name, number) in [("0.5", 0.5), ("3", 3.0), ("share", share), ("epsilon", 1e-5)] {
        n.constant(name, Tensor::scalar(number));
    }
    for (k, from, to) in [("1", "none", "half"), ("2", "half", "all")] {
        let [part, mean, off, square, sum] =
            ["part", "mean", "off", "square", "sum"].map(|name| format!("{name} {k}"));
        n.node("Slice", &["h", from, to, "last"], &part, &[]);
        n.node("ReduceMean", &[&part, "last"], &mean, &[]);
        n.node("Sub", &[&part, &mean], &off, &[]);
        n.node("Mul", &[&off, &off], &square, &[]);
        n.node("ReduceSum", &[&square, "last"], &sum, &[]);
    }
    n.node("Sub", &["mean 2", "mean 1"], "apart", &[]);
    n.node("Mul", &["apart", "0.5"], "half apart", &[]);
    n.node("Add", &["mean 1", "half apart"], "mean", &[]);
    n.node("Mul", &["apart", "apart"], "apart squared", &[]);
    n.node("Mul", &["apart squared", "3"], "between", &[]);
    n.node("Add", &["sum 1", "sum 2"], "within", &[]);
    n.node("Add", &["within", "between"], "sum", &[]);
    n.node("Mul", &["sum", "share"], "variance", &[]);
    n.node("Add", &["variance", "epsilon"], "guarded", &[]);
    n.node("Sqrt", &["guarded"], "deviation", &[]);
    n.node("Sub", &["h", "mean"], "centred", &[]);
    n.node("Div", &["centred", "deviation"], "normed", &[]);
    n.node("Mul", &["normed", "gain"], "scaled", &[]);
    n.node("Add", &["scaled", "shift"], "z", &[]);
}

/// One over twelve is no number of f32, and a score of operations lie between it and what it is held against.
#[test]
fn a_number_that_is_rounded_is_none_however_much_is_written_out() {
    let net = |norm: &dyn Fn(&mut Net)| {
        let mut n = Net::default();
        n.value("x");
        n.constant("w", numbers(&[8, 12], 1));
        n.constant("v", numbers(&[12, 8], 2));
        n.constant("gain", numbers(&[12], 3));
        n.constant("shift", numbers(&[12], 4));
        n.node("MatMul", &["x", "w"], "h", &[]);
        norm(&mut n);
        n.node("MatMul", &["z", "v"], "y", &[]);
        n
    };
    let fused = |n: &mut Net| {
        n.node("LayerNormalization", &["h", "gain", "shift"], "z", &[("epsilon", Attribute::Float(1e-5))]);
    };
    for (share, verdict) in [(1.0 / 12.0, Verdict::Equivalent), (1.0 / 11.0, Verdict::Divergent)] {
        let report = compare(net(&fused), net(&|n| norm_by_halves(n, share)));
        assert_eq!(report.verdict, verdict, "{share}: {:?}", report.culprits);
    }
}
