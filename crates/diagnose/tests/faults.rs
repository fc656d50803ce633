//! Planted faults in a small transformer block, as a table: what was changed, which node must be named, which cause.

mod block;
mod common;
mod net;

use isotrace_diagnose::{Detail, Options, Source};
use isotrace_graph::Attribute;
use isotrace_report::Verdict;
use isotrace_tensor::Tensor;
use rustc_hash::FxHashMap;

use block::{FAULTS, block};
use net::{Net, compare, diff, insert, numbers};

#[test]
fn each_planted_fault_is_named_with_its_cause() {
    let mut wrong = Vec::new();
    for case in FAULTS {
        let mut b = block();
        (case.plant)(&mut b);
        let report = compare(block(), b);
        let first = report.culprits.first();
        let named = first.is_some_and(|c| c.b.outputs.iter().any(|o| case.named.contains(&o.as_str())));
        let cause = first.map(|c| c.cause.class.as_str());
        let proven = first.and_then(|c| c.cause.counterfactual.as_ref()).is_some_and(|p| p.after < p.before);
        if report.verdict != Verdict::Divergent || !named || cause != Some(case.cause) || !proven {
            wrong.push(format!("{}: {:?} {:?}", case.what, report.verdict, first));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn two_faults_are_both_found() {
    let mut b = block();
    (FAULTS[0].plant)(&mut b);
    (FAULTS[6].plant)(&mut b);
    let report = compare(block(), b);
    let causes: Vec<&str> = report.culprits.iter().map(|c| c.cause.class.as_str()).collect();
    assert_eq!(causes, ["scale", "activation"]);
}

#[test]
fn rewrites_that_change_no_function_are_no_faults() {
    assert_eq!(compare(block(), block()).verdict, Verdict::Identical);

    // x W + b as one call on rows, back in three axes.
    let mut fused = block();
    let q = fused.names["q"];
    fused.graph.nodes.retain(|n| !matches!(n.outputs[0], Some(v) if v == q || v == fused.names["q0"]));
    fused.constant("rows", Tensor::vector(vec![12i64, 8]));
    fused.constant("axes", Tensor::vector(vec![2i64, 6, 8]));
    fused.node("Reshape", &["x", "rows"], "x_rows", &[]);
    fused.node("Gemm", &["x_rows", "wq", "bq"], "q_rows", &[]);
    fused.node("Reshape", &["q_rows", "axes"], "q", &[]);
    let report = compare(block(), fused);
    assert!(matches!(report.verdict, Verdict::Equivalent | Verdict::Identical), "{}", report.reason);

    // The scale folded into the weight and bias of the query, in f32.
    let mut folded = block();
    let times = |t: &Tensor| {
        Tensor::from_vec(t.shape(), t.as_slice::<f32>().unwrap().iter().map(|x| x * 0.353_553_4).collect())
            .unwrap()
    };
    folded.constant("wq", times(&numbers(&[8, 8], 1)));
    folded.constant("bq", times(&numbers(&[8], 11)));
    folded.constant("scale", Tensor::scalar(1f32));
    let report = compare(block(), folded);
    assert_eq!(report.verdict, Verdict::Equivalent, "{}", report.reason);
    assert!(report.culprits.is_empty());
}

#[test]
fn parts_joined_in_another_order_are_put_back_as_a_has_them() {
    let joined = |order: [usize; 6]| {
        let mut n = Net::default();
        n.value("x");
        for i in 0..6 {
            n.constant(&format!("w{i}"), numbers(&[8, 8], 20 + i));
            n.node("MatMul", &["x", &format!("w{i}")], &format!("part{i}"), &[]);
        }
        let parts: Vec<String> = order.iter().map(|i| format!("part{i}")).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        n.node("Concat", &parts, "joined", &[("axis", Attribute::Int(-1))]);
        n.node("Softmax", &["joined"], "soft", &[("axis", Attribute::Int(-1))]);
        n.node("Tanh", &["soft"], "y", &[]);
        n
    };
    let report = compare(joined([0, 1, 2, 3, 4, 5]), joined([3, 1, 5, 0, 4, 2]));
    let culprit = &report.culprits[0];
    assert_eq!(
        (culprit.cause.class.as_str(), &culprit.b.outputs[..]),
        ("operand_order", &["joined".to_owned()][..])
    );
    assert!(culprit.cause.summary.contains("4 of 6 stand elsewhere"), "{}", culprit.cause.summary);
}

/// What turned scores should be resembles them most the other way round; put in so, nothing behind the mask agrees again.
#[test]
fn scores_that_were_turned_are_recognised_behind_a_mask() {
    let layers = || {
        let mut n = Net::default();
        n.value("x");
        let mask = (0..36).map(|i| if i / 6 >= i % 6 { 0f32 } else { -1e9 });
        n.constant("mask", Tensor::from_vec(&[6, 6], mask.collect()).unwrap());
        n.constant("way", numbers(&[8, 6], 42));
        n.constant("share", Tensor::scalar(0.3f32));
        n.node("MatMul", &["x", "way"], "distance", &[]);
        n.node("Mul", &["distance", "share"], "border", &[]);
        for (l, x, y) in [(0, "x", "h"), (1, "h", "y")] {
            let [w, q, t, scores, bordered, masked, p, context] =
                ["w", "q", "t", "scores", "bordered", "masked", "p", "context"]
                    .map(|name| format!("{name}{l}"));
            n.constant(&w, numbers(&[8, 8], 38 + l));
            n.node("MatMul", &[x, &w], &q, &[]);
            n.node("Transpose", &[x], &t, &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
            n.node("MatMul", &[&q, &t], &scores, &[]);
            n.node("Add", &[&scores, "border"], &bordered, &[]);
            n.node("Add", &[&bordered, "mask"], &masked, &[]);
            n.node("Softmax", &[&masked], &p, &[("axis", Attribute::Int(-1))]);
            n.node("MatMul", &[&p, x], &context, &[]);
            n.node("Add", &[x, &context], y, &[]);
        }
        n
    };
    let mut b = layers();
    insert(&mut b, "Transpose", "scores0", &[("perm", Attribute::Ints(vec![0, 2, 1]))], &[]);
    let report = compare(layers(), b);
    let culprit = &report.culprits[0];
    assert!(culprit.b.outputs.iter().any(|o| o.starts_with("scores0")), "{culprit:?}");
}

/// What nodes compute from weights alone (a table of relative positions through a norm) is no constant to blame.
#[test]
fn a_fault_among_what_is_computed_from_weights_is_named_there() {
    let positions = |gain: &str| {
        let mut n = block();
        n.constant("table", numbers(&[6, 8], 31));
        n.constant("other_gain", numbers(&[8], 32));
        n.constant("other_shift", numbers(&[8], 33));
        n.node("LayerNormalization", &["table", gain, "other_shift"], "positions", &[]);
        insert(&mut n, "Add", "skip", &[], &["positions"]);
        n
    };
    let report = compare(positions("other_gain"), positions("gain"));
    let culprit = &report.culprits[0];
    assert_eq!(culprit.b.outputs, ["positions"], "{}", culprit.cause.summary);
    assert_eq!(culprit.cause.class, "normalisation");
    assert!(culprit.cause.summary.contains("which is A's \"gain\""), "{}", culprit.cause.summary);
}

/// Operators that read their axes today had them as a setting before: the two are one thing.
#[test]
fn a_setting_of_one_version_is_held_against_an_input_of_another() {
    let summed = |read: bool, axis: i64| {
        let mut n = block();
        insert(&mut n, "Mul", "skip", &[], &["mean"]);
        if read {
            n.constant("axes", Tensor::vector(vec![axis]));
            n.node("ReduceMean", &["context", "axes"], "mean", &[]);
        } else {
            n.node("ReduceMean", &["context"], "mean", &[("axes", Attribute::Ints(vec![axis]))]);
            n.at("mean").version = 13;
        }
        n
    };
    assert_eq!(compare(summed(true, -1), summed(false, -1)).verdict, Verdict::Identical);
    for (read_by_a, read_by_b) in [(true, false), (false, true), (false, false)] {
        let report = compare(summed(read_by_a, -1), summed(read_by_b, 1));
        let culprit = &report.culprits[0];
        assert_eq!((culprit.b.outputs[0].as_str(), culprit.cause.class.as_str()), ("mean", "axis"));
    }
}

/// To undo a fault, settings are tried under which a node writes another shape than its inputs make without them.
#[test]
fn a_trial_that_changes_a_shape_ends_in_no_panic() {
    let pooled = |axes: Vec<i64>, epsilon: f32| {
        let mut n = Net::default();
        n.value("x");
        n.constant("w", numbers(&[8, 8], 81));
        n.constant("gain", numbers(&[8], 82));
        n.node("MatMul", &["x", "w"], "h", &[]);
        n.node("ReduceMean", &["h"], "mean", &[("axes", Attribute::Ints(axes))]);
        n.at("mean").version = 13;
        n.node("Sub", &["h", "mean"], "centred", &[]);
        n.node("LayerNormalization", &["centred", "gain"], "y", &[("epsilon", Attribute::Float(epsilon))]);
        n
    };
    for (axes_a, axes_b) in [(vec![-1], vec![1, 2]), (vec![1, 2], vec![-1]), (vec![0], vec![0, 1, 2])] {
        let report = compare(pooled(axes_a, 1e-5), pooled(axes_b, 1e-2));
        assert_eq!(report.verdict, Verdict::Divergent);
        assert_eq!(report.culprits[0].b.outputs[0], "mean", "{}", report.reason);
    }
}

/// Bounds grow with every layer that they pass. Beyond the size of the value they would take a fault for rounding.
#[test]
fn a_long_way_to_where_values_meet_again_excuses_nothing() {
    // No value between the weight and the output is alike: all channels are mixed again and again.
    let deep = |scale: f32| {
        let mut n = Net::default();
        n.value("x");
        n.constant("scale", Tensor::scalar(scale));
        n.node("Mul", &["x", "scale"], "h0", &[]);
        for i in 0..12 {
            n.constant(&format!("w{i}"), numbers(&[8, 8], 40 + i));
            n.constant(&format!("g{i}"), numbers(&[8], 60 + i));
            n.node("LayerNormalization", &[&format!("h{i}"), &format!("g{i}")], &format!("n{i}"), &[]);
            n.node("MatMul", &[&format!("n{i}"), &format!("w{i}")], &format!("m{i}"), &[]);
            n.node("Tanh", &[&format!("m{i}")], &format!("h{}", i + 1), &[]);
        }
        n.node("Identity", &["h12"], "y", &[]);
        n
    };
    let report = compare(deep(1e-4), deep(1.01e-4));
    assert_eq!(report.verdict, Verdict::Divergent, "{}", report.reason);
}

/// A difference that changes nothing here is told, and is no fault; a factor that moved is not even that.
#[test]
fn what_these_inputs_do_not_show_is_a_warning() {
    let bounded = |most: f32| {
        let mut n = block();
        n.constant("least", Tensor::scalar(-1f32));
        n.constant("most", Tensor::scalar(most));
        insert(&mut n, "Clip", "act", &[], &["least", "most"]);
        n
    };
    let report = compare(bounded(600.0), bounded(700.0));
    let warned: Vec<&str> = report.warnings.iter().map(|w| w.summary.as_str()).collect();
    assert_eq!(report.verdict, Verdict::Identical);
    assert_eq!(
        warned,
        [
            "Clip node_act_clip reads \"most\", 7e2, where A's \"most\" is 6e2 (a factor of 1.166667); these inputs do not show it, others may"
        ]
    );

    // A softmax takes out again what is added to all keys alike.
    let shifted = |seed: u64| {
        let mut n = block();
        n.constant("bk", numbers(&[8], seed));
        insert(&mut n, "Add", "k", &[], &["bk"]);
        n
    };
    let report = compare(shifted(71), shifted(72));
    assert_eq!(report.verdict, Verdict::Equivalent, "{}", report.reason);
    let warning = &report.warnings[0];
    assert_eq!((warning.class.as_str(), &warning.place[..]), ("latent", &["node_k_add".to_owned()][..]));
    assert!(warning.summary.contains("cancels before the final outputs"), "{}", warning.summary);

    // A factor of a half on the queries or on the keys.
    let halved = |queries: f32, keys: f32| {
        let mut n = block();
        n.constant("by_q", Tensor::scalar(queries));
        n.constant("by_k", Tensor::scalar(keys));
        insert(&mut n, "Mul", "q", &[], &["by_q"]);
        insert(&mut n, "Mul", "k", &[], &["by_k"]);
        n
    };
    let report = compare(halved(0.5, 1.0), halved(1.0, 0.5));
    assert_eq!(report.warnings, []);
    assert!(matches!(report.verdict, Verdict::Equivalent | Verdict::Identical), "{}", report.reason);
}

#[test]
fn nan_on_both_sides_is_no_agreement() {
    let mut a = block();
    a.constant("gain", Tensor::full(&[8], f32::NAN).unwrap());
    let report = compare(a.clone(), a);
    assert_eq!(report.verdict, Verdict::Invalid, "{}", report.reason);
}

#[test]
fn an_input_that_only_b_has_is_fed_too() {
    let one = |extra: bool| {
        let mut n = block();
        if extra {
            n.node("Add", &["y", "more"], "sum", &[]);
            return n.finish_as(&["x", "more"], "sum");
        }
        n.finish(&["x"])
    };
    let (a, b) = (one(false), one(true));
    let mut inputs = FxHashMap::from_iter([("x".to_owned(), numbers(&[2, 6, 8], 99))]);
    let source = |path, graph| Source { path, graph, recorded: None };
    let options = Options { allowed: &[], progress: None, detail: Detail::FULL };
    for (more, verdict) in [(0f32, Verdict::Identical), (1.0, Verdict::Divergent)] {
        inputs.insert("more".to_owned(), Tensor::full(&[2, 6, 8], more).unwrap());
        let report = diff(source("a", &a), source("b", &b), &inputs, options);
        assert_eq!(report.verdict, verdict, "{}", report.reason);
    }
}

/// Positions counted over what is positive, in a number type, and looked up in a table.
fn counted(dtype: i64) -> Net {
    let mut n = Net::default();
    n.constant("zero", Tensor::scalar(0f32));
    n.constant("axis", Tensor::scalar(1i64));
    n.constant("table", numbers(&[7, 8], 5));
    n.constant("w", numbers(&[8, 8], 6));
    n.node("ReduceMax", &["x", "last"], "top", &[("keepdims", Attribute::Int(0))]);
    n.constant("last", Tensor::vector(vec![-1i64]));
    n.node("Greater", &["top", "zero"], "there", &[]);
    n.node("Cast", &["there"], "ones", &[("to", Attribute::Int(dtype))]);
    n.node("CumSum", &["ones", "axis"], "count", &[]);
    n.node("Mul", &["count", "ones"], "place", &[]);
    n.node("Cast", &["place"], "index", &[("to", Attribute::Int(7))]);
    n.node("Gather", &["table", "index"], "row", &[("axis", Attribute::Int(0))]);
    n.node("Add", &["x", "row"], "sum", &[]);
    n.node("MatMul", &["sum", "w"], "y", &[]);
    n
}

#[test]
fn equal_numbers_may_be_counted_in_another_type() {
    // float, int32, int64
    for (a, b) in [(6, 7), (7, 6), (1, 7), (7, 1), (6, 1), (1, 6)] {
        let report = compare(counted(a), counted(b));
        assert!(
            matches!(report.verdict, Verdict::Equivalent | Verdict::Identical),
            "types {a} and {b}: {}",
            report.reason
        );
        let last = report.pairs.iter().rev().find(|p| p.a.as_deref() == Some("row"));
        assert!(last.is_some_and(|p| p.b.is_some()), "types {a} and {b}: what is looked up has no partner");
    }
}
