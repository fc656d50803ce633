//! A norm folded into the convolution before it: rounding where it is folded right, and in either order of the two.

mod common;
mod net;

use isotrace_align::{Changes, Evidence, Index, Judge, Keeps, Side, State};
use isotrace_diagnose::{Detail, Options, Source};
use isotrace_graph::{Attribute, Graph, ValueId};
use isotrace_report::Verdict;
use isotrace_tensor::Tensor;
use net::{Net, compare, diff, numbers};
use rustc_hash::FxHashMap;

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

fn bend(n: &mut Net) {
    n.node("Tanh", &["normed"], "bent", &[]);
    n.node("Mul", &["bent", "bent"], "y", &[]);
}

fn plain() -> Net {
    let mut n = Net::default();
    convolution(&mut n, kernel(), &[], "convolved");
    for (name, tensor) in ["scale", "shift", "mean", "variance"].into_iter().zip(norm()) {
        n.constant(name, Tensor::vector(tensor));
    }
    let read = ["convolved", "scale", "shift", "mean", "variance"];
    n.node("BatchNormalization", &read, "normed", &[("epsilon", Attribute::Float(EPSILON))]);
    bend(&mut n);
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
    bend(&mut n);
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
    bend(&mut n);
    n
}

/// The convolution as a sum of products, one for two of its inputs at one place of its kernel, and the norm behind it: many
/// nodes beside each other.
fn by_places() -> Net {
    let kernel = kernel();
    let mut n = Net::default();
    n.value("x");
    n.constant("border", Tensor::vector(vec![0i64, 0, 1, 0, 0, 1]));
    n.constant("axes", Tensor::vector(vec![1i64, 2]));
    n.node("Pad", &["x", "border"], "padded", &[]);
    let mut sum = String::new();
    for (c, k) in (0..3).flat_map(|c| (0..3).map(move |k| (c, k))) {
        let name = |what: &str| format!("{what} {c} {k}");
        let weight = (0..FILTERS).flat_map(|f| (0..2).map(move |i| (f * 6 + 2 * c + i) * 3 + k));
        let weight = Tensor::from_vec(&[FILTERS, 2, 1], weight.map(|at| kernel[at]).collect()).unwrap();
        n.constant(&name("weight"), weight);
        n.constant(&name("from"), Tensor::vector(vec![2 * c as i64, k as i64]));
        n.constant(&name("to"), Tensor::vector(vec![2 * c as i64 + 2, k as i64 + 8]));
        n.node("Slice", &["padded", &name("from"), &name("to"), "axes"], &name("seen"), &[]);
        n.node("Conv", &[&name("seen"), &name("weight")], &name("product"), &[]);
        if sum.is_empty() {
            sum = name("product");
        } else {
            n.node("Add", &[&sum, &name("product")], &name("sum"), &[]);
            sum = name("sum");
        }
    }
    for (name, tensor) in ["scale", "shift", "mean", "variance"].into_iter().zip(norm()) {
        n.constant(name, Tensor::vector(tensor));
    }
    let read = [sum.as_str(), "scale", "shift", "mean", "variance"];
    n.node("BatchNormalization", &read, "normed", &[("epsilon", Attribute::Float(EPSILON))]);
    bend(&mut n);
    n
}

#[test]
fn sums_of_many_products_hold_a_folded_norm_too() {
    for (a, b) in [(by_places(), folded(EPSILON)), (folded(EPSILON), by_places())] {
        let report = compare(a, b);
        assert_eq!(report.verdict, Verdict::Equivalent, "{}", report.reason);
    }
    for (a, b) in [(by_places(), folded(1e-4)), (folded(1e-4), by_places())] {
        let report = compare(a, b);
        assert_eq!(report.verdict, Verdict::Divergent, "{}", report.reason);
    }
}

/// A convolution that is multiplied by its share of a sum, or has that share in its weights and in what it adds, which are
/// then changed.
fn shared(share: Option<f32>, change: fn(&mut Vec<f32>, &mut Vec<f32>)) -> Net {
    let (mut kernel, mut bias) = (kernel(), common::numbers(FILTERS, 22));
    if share.is_none() {
        kernel.iter_mut().chain(&mut bias).for_each(|w| *w *= 0.2);
    }
    change(&mut kernel, &mut bias);
    let mut n = Net::default();
    n.constant("bias", Tensor::vector(bias));
    convolution(&mut n, kernel, &["bias"], if share.is_some() { "convolved" } else { "normed" });
    n.graph.values[n.names["weights"].index()].name = format!("weights by {share:?}");
    if let Some(share) = share {
        n.constant("share", Tensor::scalar(share));
        n.node("Mul", &["convolved", "share"], "normed", &[]);
    }
    bend(&mut n);
    n
}

#[test]
fn what_is_wrong_with_weights_is_told_though_a_factor_is_folded_into_them() {
    type Change = fn(&mut Vec<f32>, &mut Vec<f32>);
    let cases: [(&str, Change); 4] = [
        ("bias", |_, bias| bias[8..].fill(0.0)),
        ("weight_layout", |kernel, _| kernel.rotate_left(TERMS)),
        ("weight_layout", |kernel, _| kernel.chunks_mut(3).for_each(<[f32]>::reverse)),
        ("scale", |kernel, bias| kernel.iter_mut().chain(bias).for_each(|w| *w *= 1.5)),
    ];
    for (cause, change) in cases {
        for (a, b) in [(Some(0.2), None), (None, Some(0.2))] {
            let report = compare(shared(a, |_, _| {}), shared(b, change));
            let told = report.culprits.first().map(|c| c.cause.class.as_str());
            assert_eq!(told, Some(cause), "{:?}", report.culprits);
        }
    }
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
    let side_b = Side::beside(&side_a, b, &fed(b), &bound, Keeps::All, None).unwrap();
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

/// Inputs of which every value is large enough to be let go.
fn long() -> Tensor {
    Tensor::from_vec(&[2, 6, 2048], common::numbers(2 * 6 * 2048, 4)).unwrap()
}

#[test]
fn what_is_let_go_is_computed_again_with_the_same_bits() {
    let (a, b) = (plain().finish(&["x"]), folded(EPSILON).finish(&["x"]));
    let fed = |graph: &Graph| FxHashMap::from_iter([(graph.inputs[0], long())]);
    let bound = [(b.inputs[0], a.inputs[0])];
    let side_a = Side::new(&a, &fed(&a), None).unwrap();
    let [all, needed] =
        [Keeps::All, Keeps::Needed].map(|k| Side::beside(&side_a, &b, &fed(&b), &bound, k, None).unwrap());
    let gone = |v: &ValueId| needed.declared.at_hand(*v).is_none();
    let names: Vec<&str> = b.value_ids().filter(gone).map(|v| b.value(v).name.as_str()).collect();
    // What is first to differ is asked for again, and an output is shown.
    assert_eq!(names, ["bent"]);
    for v in b.value_ids() {
        let kept = all.declared.get(v).unwrap();
        assert_eq!(needed.declared.dtype(v), Some(kept.dtype()));
        assert_eq!(needed.declared.shape(v), Some(kept.shape()));
        let other = Tensor::from_vec(&[1], vec![0f32]).unwrap();
        assert!(!needed.declared.holds(v, &other));
        assert!(needed.declared.holds(v, kept), "{}", b.value(v).name);
        assert!(needed.declared.get(v).unwrap().bit_eq(kept));
    }
}

#[test]
fn what_is_let_go_stays_so_while_b_is_executed() {
    let (a, b) = (plain().finish(&["x"]), folded(EPSILON).finish(&["x"]));
    let fed = |graph: &Graph| FxHashMap::from_iter([(graph.inputs[0], long())]);
    let bound = [(b.inputs[0], a.inputs[0])];
    let side_a = Side::new(&a, &fed(&a), None).unwrap();
    let side_b = Side::beside(&side_a, &b, &fed(&b), &bound, Keeps::Needed, None).unwrap();
    let index = Index::new(&side_a);
    let state = State::execute(&Judge::new(&side_a, &side_b, &index, &[]), &bound, &Changes::default());
    let bent = b.value_ids().find(|&v| b.value(v).name == "bent").unwrap();
    assert!(state.is_matched(bent) && side_b.declared.at_hand(bent).is_none());
}

#[test]
fn a_short_report_concludes_as_the_full_one() {
    let short = Detail { pairs: false, budgets: false, listing: false };
    for (a, b) in [
        (plain(), folded(EPSILON)),
        (folded(EPSILON), plain()),
        (written_out(), folded(1e-3)),
        (folded(1e-3), plain()),
    ] {
        let (a, b) = (a.finish(&["x"]), b.finish(&["x"]));
        let inputs = FxHashMap::from_iter([("x".to_owned(), long())]);
        let source = |path, graph| Source { path, graph, recorded: None };
        let [full, short] = [Detail::FULL, short].map(|detail| {
            let options = Options { allowed: &[], progress: None, detail };
            diff(source("a", &a), source("b", &b), &inputs, options)
        });
        assert_eq!((short.verdict, short.reason), (full.verdict, full.reason));
        assert_eq!(format!("{:?}", short.culprits), format!("{:?}", full.culprits));
        for (short, full) in short.pairs.iter().zip(&full.pairs) {
            assert_eq!((&short.a, &short.b, short.status), (&full.a, &full.b, full.status));
            assert_eq!((&short.dtype, &short.shape), (&full.dtype, &full.shape));
        }
    }
}

/// Scores by a number that is stored in two parts, or at once; hidden by truth values that go a long way as integers, or
/// by their contraries.
fn hidden(at_once: bool) -> Net {
    let mut n = Net::default();
    n.value("x");
    for (i, name) in ["w", "v", "last"].into_iter().enumerate() {
        n.constant(name, numbers(&[8, 8], i as u64 + 1));
    }
    let scale = 12f32.sqrt().recip();
    for (name, number) in
        [("nought", 0f32), ("low", f32::NEG_INFINITY), ("root", scale.sqrt()), ("scale", scale)]
    {
        n.constant(name, Tensor::scalar(number));
    }
    n.node("MatMul", &["x", "w"], "h", &[]);
    n.node("MatMul", &["x", "v"], "g", &[]);
    if at_once {
        n.node("LessOrEqual", &["g", "nought"], "out", &[]);
        n.node("Where", &["out", "low", "h"], "left", &[]);
        n.node("Mul", &["left", "scale"], "scores", &[]);
    } else {
        n.node("Greater", &["g", "nought"], "in 0", &[]);
        for i in 0..10 {
            n.node("Cast", &[&format!("in {i}")], &format!("count {i}"), &[("to", Attribute::Int(7))]);
            n.node("Cast", &[&format!("count {i}")], &format!("in {}", i + 1), &[("to", Attribute::Int(9))]);
        }
        n.node("Mul", &["h", "root"], "half", &[]);
        n.node("Mul", &["half", "root"], "whole", &[]);
        n.node("Where", &["in 10", "whole", "low"], "scores", &[]);
    }
    n.node("Softmax", &["scores"], "z", &[("axis", Attribute::Int(-1))]);
    n.node("MatMul", &["z", "last"], "y", &[]);
    n
}

#[test]
fn what_prepares_a_mask_does_not_count_among_what_rounds() {
    assert_eq!(compare(hidden(false), hidden(true)).verdict, Verdict::Equivalent);
}
