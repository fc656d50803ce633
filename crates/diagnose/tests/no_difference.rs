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
