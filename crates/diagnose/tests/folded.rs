//! A norm folded into the convolution before it: rounding where it is folded right, and in either order of the two.

mod common;
mod net;

use isotrace_align::{Changes, Evidence, Index, Judge, Side, State};
use isotrace_graph::{Attribute, Graph};
use isotrace_report::Verdict;
use isotrace_tensor::Tensor;
use net::{Net, compare};

const FILTERS: usize = 16;
const TERMS: usize = 6 * 3;
const EPSILON: f32 = 1e-5;

fn kernel() -> Vec<f32> {
    common::numbers(FILTERS * TERMS, 17)
}

/// Scale, shift, mean and variance.
fn norm() -> [Vec<f32>; 4] {
    [18, 19, 20, 21].map(|seed| common::numbers(FILTERS, seed).into_iter().map(|x| x.abs() + 0.5).collect())
}

fn convolution(n: &mut Net, kernel: Vec<f32>, more: &[&str], output: &str) {
    n.constant("weights", Tensor::from_vec(&[FILTERS, 6, 3], kernel).unwrap());
    n.node("Conv", &[&["x", "weights"], more].concat(), output, &[("pads", Attribute::Ints(vec![1, 1]))]);
}

fn plain() -> Net {
    let mut n = Net::default();
    convolution(&mut n, kernel(), &[], "convolved");
    for (name, tensor) in ["scale", "shift", "mean", "variance"].into_iter().zip(norm()) {
        n.constant(name, Tensor::vector(tensor));
    }
    let read = ["convolved", "scale", "shift", "mean", "variance"];
    n.node("BatchNormalization", &read, "normed", &[("epsilon", Attribute::Float(EPSILON))]);
    n.node("Tanh", &["normed"], "y", &[]);
    n
}

/// The norm as a product and a sum, as an exporter writes it that knows none.
fn written_out() -> Net {
    let [scale, shift, mean, variance] = norm();
    let by: Vec<f32> = scale.iter().zip(&variance).map(|(s, v)| s / (v + EPSILON).sqrt()).collect();
    let moved = (0..FILTERS).map(|f| shift[f] - mean[f] * by[f]).collect();
    let mut n = Net::default();
    convolution(&mut n, kernel(), &[], "convolved");
    n.constant("by", Tensor::from_vec(&[FILTERS, 1], by).unwrap());
    n.constant("moved", Tensor::from_vec(&[FILTERS, 1], moved).unwrap());
    n.node("Mul", &["convolved", "by"], "scaled", &[]);
    n.node("Add", &["scaled", "moved"], "normed", &[]);
    n.node("Tanh", &["normed"], "y", &[]);
    n
}

/// As an exporter folds the norm, in f32, whatever it takes for its epsilon.
fn folded(epsilon: f32) -> Net {
    let [scale, shift, mean, variance] = norm();
    let by: Vec<f32> = scale.iter().zip(&variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let kernel = kernel().iter().enumerate().map(|(i, w)| w * by[i / TERMS]).collect();
    let mut n = Net::default();
    n.constant(
        "bias",
        Tensor::vector((0..FILTERS).map(|f| shift[f] - mean[f] * by[f]).collect::<Vec<f32>>()),
    );
    convolution(&mut n, kernel, &["bias"], "normed");
    // An exporter gives what it folds another name.
    n.graph.values[n.names["weights"].index()].name = "weights_folded".into();
    n.node("Tanh", &["normed"], "y", &[]);
    n
}

#[test]
fn a_norm_that_was_folded_is_rounding_and_another_epsilon_is_not() {
    let pairs = [
        (plain(), folded(EPSILON)),
        (folded(EPSILON), plain()),
        (written_out(), folded(EPSILON)),
        (folded(EPSILON), written_out()),
    ];
    for (a, b) in pairs {
        let report = compare(a, b);
        assert_eq!(report.verdict, Verdict::Equivalent, "{}", report.reason);
        let normed = report.pairs.iter().find(|p| p.a.as_deref() == Some("normed")).unwrap();
        assert_eq!(normed.b.as_deref(), Some("normed"));
        let budget = normed.budget.as_ref().unwrap();
        assert!(budget.share > 0.0 && budget.share < 1.0 && budget.semantic > 0.0, "{budget:?}");
    }
    for epsilon in [1e-4, 1e-3] {
        for (a, b) in [(plain(), folded(epsilon)), (folded(epsilon), plain())] {
            let report = compare(a, b);
            assert_eq!(report.verdict, Verdict::Divergent, "{epsilon}: {}", report.reason);
        }
    }
}

/// On what ground B's normed values are A's.
fn ground(a: &Graph, b: &Graph) -> Option<Evidence> {
    let x = Tensor::from_vec(&[2, 6, 8], common::numbers(96, 3)).unwrap();
    let fed = |graph: &Graph| [(graph.inputs[0], x.clone())].into_iter().collect();
    let bound = [(b.inputs[0], a.inputs[0])];
    let side_a = Side::new(a, &fed(a), None).unwrap();
    let side_b = Side::beside(&side_a, b, &fed(b), &bound, None).unwrap();
    let index = Index::new(&side_a);
    let judge = Judge::new(&side_a, &side_b, &index, &[]);
    let state = State::execute(&judge, &bound, &Changes::default());
    let normed = b.value_ids().find(|&v| b.value(v).name == "normed").unwrap();
    let found = state.matched[normed.index()].as_ref()?;
    assert_eq!(a.value(found.a).name, "normed");
    assert!(state.own_declared(normed).is_some(), "B's own values can be had");
    Some(found.evidence)
}

#[test]
fn a_folded_norm_is_told_in_declared_precision_in_either_order() {
    for other in [plain(), written_out()] {
        let (other, folded) = (other.finish(&["x"]), folded(EPSILON).finish(&["x"]));
        for (a, b) in [(&other, &folded), (&folded, &other)] {
            let found = ground(a, b);
            assert!(matches!(found, Some(Evidence::Folded(_))), "{found:?}");
        }
    }
}
