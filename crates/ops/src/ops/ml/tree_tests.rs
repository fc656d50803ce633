use isotrace_graph::Attribute;
use isotrace_tensor::Tensor;

use super::super::testing::{close, floats, ints, node, noise, share, text, texts};
use crate::testing::{errors, first, run, tensor};
use crate::{Call, Precision};

type Settings = Vec<(&'static str, Attribute)>;

/// A tree of one split of feature 0 at 0.5.
fn stump() -> Settings {
    vec![
        ("nodes_treeids", ints(&[0, 0, 0])),
        ("nodes_nodeids", ints(&[0, 1, 2])),
        ("nodes_featureids", ints(&[0, 0, 0])),
        ("nodes_modes", texts(&["BRANCH_LEQ", "LEAF", "LEAF"])),
        ("nodes_values", floats(&[0.5, 0.0, 0.0])),
        ("nodes_truenodeids", ints(&[1, 0, 0])),
        ("nodes_falsenodeids", ints(&[2, 0, 0])),
    ]
}

/// The votes of a stump's leaves: node, class, weight.
fn votes(kind: &str, list: &[(i64, i64, f32)]) -> Settings {
    let names: [&'static str; 4] = match kind {
        "class" => ["class_treeids", "class_nodeids", "class_ids", "class_weights"],
        _ => ["target_treeids", "target_nodeids", "target_ids", "target_weights"],
    };
    vec![
        (names[0], ints(&vec![0; list.len()])),
        (names[1], ints(&list.iter().map(|v| v.0).collect::<Vec<_>>())),
        (names[2], ints(&list.iter().map(|v| v.1).collect::<Vec<_>>())),
        (names[3], floats(&list.iter().map(|v| v.2).collect::<Vec<_>>())),
    ]
}

/// What ONNX Runtime 1.31 answers for x = 0 and x = 1, two classes named 10 and 20.
#[test]
fn two_classes_as_a_table() {
    type Case = (&'static [(i64, i64, f32)], &'static [f32], &'static str, [i64; 2], [f64; 4]);
    let (low, mixed) = (&[(1, 0, 0.3), (2, 0, 0.7)][..], &[(1, 0, -0.3), (2, 0, 0.7)][..]);
    let high = &[(1, 1, 0.3), (2, 1, 0.7)][..];
    let both = &[(1, 0, 0.6), (1, 1, 0.4), (2, 0, 0.2), (2, 1, 0.8)][..];
    let sparse = &[(1, 0, 1.0), (2, 1, 1.0)][..];
    let cases: [Case; 14] = [
        (low, &[], "NONE", [10, 20], [0.7, 0.3, 0.3, 0.7]),
        (low, &[], "SOFTMAX", [10, 20], [0.7, 0.3, 0.3, 0.7]),
        (low, &[], "LOGISTIC", [10, 20], [0.425_558, 0.574_442, 0.331_812, 0.668_188]),
        (low, &[0.25], "NONE", [20, 20], [0.45, 0.55, 0.05, 0.95]),
        (low, &[0.25, 0.5], "NONE", [20, 20], [0.55, 0.0, 0.95, 0.0]),
        (mixed, &[], "NONE", [10, 20], [0.3, -0.3, -0.7, 0.7]),
        (mixed, &[], "LOGISTIC", [10, 20], [0.574_442, 0.425_558, 0.331_812, 0.668_188]),
        (high, &[], "NONE", [10, 20], [0.0, 0.3, 0.0, 0.7]),
        (high, &[0.25, 0.5], "NONE", [10, 10], [0.0, 0.5, 0.0, 0.5]),
        (both, &[], "NONE", [1, 1], [0.6, 0.4, 0.2, 0.8]),
        (both, &[], "SOFTMAX", [1, 1], [0.549_834, 0.450_166, 0.354_344, 0.645_656]),
        (both, &[0.25, 0.5], "NONE", [1, 1], [-1.1, 1.1, -0.7, 0.7]),
        (sparse, &[], "NONE", [1, 1], [-1.0, 1.0, 0.0, 1.0]),
        (sparse, &[0.25, 0.5], "NONE", [1, 1], [1.25, 0.0, 0.0, 0.5]),
    ];
    let x = tensor(&[2, 1], &[0.0f32, 1.0]);
    for (list, base, transform, labels, expected) in cases {
        let mut settings = [stump(), votes("class", list)].concat();
        settings.push(("classlabels_int64s", ints(&[10, 20])));
        settings.push(("base_values", floats(base)));
        settings.push(("post_transform", text(transform)));
        let y = run(&node("TreeEnsembleClassifier", 3, &settings), &[&x]).unwrap();
        assert_eq!(y[0].as_slice::<i64>().unwrap(), labels, "{list:?} {base:?} {transform}");
        // Six digits of what the runtime printed.
        let close = y[1].to_f64().unwrap().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close, "{list:?} {base:?} {transform}: {:?}", y[1]);
    }
}

#[test]
fn three_classes_and_texts() {
    let list = [(1, 0, -0.3), (2, 0, 0.7), (1, 1, 0.1), (2, 1, 0.9)];
    let settings =
        [stump(), votes("class", &list), vec![("classlabels_strings", texts(&["a", "b", "c"]))]].concat();
    let y = run(&node("TreeEnsembleClassifier", 1, &settings), &[&tensor(&[2, 1], &[0i64, 1])]).unwrap();
    assert_eq!(y[0].as_strings().unwrap(), ["b", "b"]);
    assert!(close(&y[1], &[-0.3, 0.1, 0.0, 0.7, 0.9, 0.0]));
}

/// Two stumps, the second with other votes.
fn regressor(aggregate: &str, transform: &str) -> Settings {
    let twice = |list: &[i64], add: i64| {
        Attribute::Ints(list.iter().copied().chain(list.iter().map(|x| x + add)).collect())
    };
    vec![
        ("nodes_treeids", twice(&[0, 0, 0], 1)),
        ("nodes_nodeids", twice(&[0, 1, 2], 0)),
        ("nodes_featureids", twice(&[0, 0, 0], 0)),
        ("nodes_modes", texts(&["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"])),
        ("nodes_values", floats(&[0.5, 0.0, 0.0, 0.5, 0.0, 0.0])),
        ("nodes_truenodeids", twice(&[1, 0, 0], 0)),
        ("nodes_falsenodeids", twice(&[2, 0, 0], 0)),
        ("target_treeids", ints(&[0, 0, 1, 1])),
        ("target_nodeids", ints(&[1, 2, 1, 2])),
        ("target_ids", ints(&[0; 4])),
        ("target_weights", floats(&[0.3, 0.5, 0.2, 0.7])),
        ("base_values", floats(&[0.1])),
        ("aggregate_function", text(aggregate)),
        ("post_transform", text(transform)),
    ]
}

#[test]
fn votes_become_one_number() {
    let x = tensor(&[2, 1], &[0.0f32, 1.0]);
    for (aggregate, expected) in
        [("SUM", [0.6, 1.3]), ("AVERAGE", [0.35, 0.7]), ("MIN", [0.3, 0.6]), ("MAX", [0.4, 0.8])]
    {
        // A single target is handed on without a transform, as runtimes have it.
        for transform in ["NONE", "LOGISTIC"] {
            let y = first(&node("TreeEnsembleRegressor", 3, &regressor(aggregate, transform)), &[&x]);
            assert_eq!(y.shape(), [2, 1]);
            assert!(close(&y, &expected), "{aggregate}: {y:?}");
        }
    }
}

#[test]
fn nan_goes_where_it_is_told() {
    let nan = tensor(&[1, 1], &[f32::NAN]);
    let settings = [stump(), votes("target", &[(1, 0, 0.3), (2, 0, 0.5)])].concat();
    assert!(close(&first(&node("TreeEnsembleRegressor", 1, &settings), &[&nan]), &[0.5]));
    let tracked = [settings, vec![("nodes_missing_value_tracks_true", ints(&[1, 0, 0]))]].concat();
    assert!(close(&first(&node("TreeEnsembleRegressor", 1, &tracked), &[&nan]), &[0.3]));
}

/// TreeEnsemble with a split by membership before one by size.
fn places() -> Settings {
    let bytes = |list: &[u8]| Attribute::Tensor(tensor(&[list.len()], list));
    vec![
        ("tree_roots", ints(&[0])),
        ("nodes_featureids", ints(&[0, 1])),
        ("nodes_modes", bytes(&[6, 0])),
        ("nodes_splits", Attribute::Tensor(tensor(&[2], &[0.0f32, 0.5]))),
        ("nodes_truenodeids", ints(&[0, 1])),
        ("nodes_trueleafs", ints(&[1, 1])),
        ("nodes_falsenodeids", ints(&[1, 2])),
        ("nodes_falseleafs", ints(&[0, 1])),
        ("leaf_weights", Attribute::Tensor(tensor(&[3], &[1.0f32, 10.0, 100.0]))),
        ("leaf_targetids", ints(&[0, 1, 1])),
        ("n_targets", Attribute::Int(2)),
        ("membership_values", Attribute::Tensor(tensor(&[3], &[2.0f32, 4.0, f32::NAN]))),
    ]
}

#[test]
fn leaves_by_their_places() {
    let x = tensor(&[3, 2], &[4.0f32, 0.0, 3.0, 0.5, 3.0, 0.6]);
    let y = first(&node("TreeEnsemble", 5, &places()), &[&x]);
    assert!(close(&y, &[1.0, 0.0, 0.0, 10.0, 0.0, 100.0]), "{y:?}");
}

#[test]
fn rounding_near_a_split_allows_the_step_between_its_leaves() {
    let settings = [stump(), votes("target", &[(1, 0, 0.25), (2, 0, 4.25)])].concat();
    let tree = node("TreeEnsembleRegressor", 3, &settings);
    let x = tensor(&[4, 1], &[0.5f64, 0.499_999, 0.4, 0.500_002]);
    let near = Some(tensor(&[4, 1], &[1e-9f64, 1e-5, 1e-5, 1e-6]));
    assert_eq!(errors(&tree, &[&x], &[near]), [4.0, 4.0, 0.0, 0.0]);
    assert_eq!(errors(&tree, &[&x], &[None]), [0.0; 4]);
    // Halves of one score for two classes both step; probabilities never by more than a logistic function does.
    let settings =
        [stump(), votes("class", &[(1, 0, -0.5), (2, 0, 0.5)]), vec![("classlabels_int64s", ints(&[0, 1]))]];
    let classes = settings.concat();
    let exact = tensor(&[1, 1], &[0.5f64]);
    let step = |transform: &str| {
        let settings = [classes.clone(), vec![("post_transform", text(transform))]].concat();
        let op = crate::build(&node("TreeEnsembleClassifier", 3, &settings)).unwrap();
        let inputs = [Some(&exact)];
        let call = Call { outputs: 2, precision: Precision::Float64, ..Call::new(&inputs) };
        let outputs = op.run(&call).unwrap();
        let steps = op.propagate(&call, &outputs, &[Some(tensor(&[1, 1], &[1e-6f64]))]).unwrap();
        [steps[0].to_f64().unwrap().into_owned(), steps[1].to_f64().unwrap().into_owned()]
    };
    assert_eq!(step("NONE"), [vec![0.0], vec![1.0, 1.0]]);
    assert_eq!(step("LOGISTIC"), [vec![0.0], vec![0.25, 0.25]]);
}

#[test]
fn a_shadow_decides_as_f32_does() {
    let settings = [stump(), votes("target", &[(1, 0, 0.25), (2, 0, 4.25)])].concat();
    let op = crate::build(&node("TreeEnsembleRegressor", 3, &settings)).unwrap();
    let x = tensor(&[1, 1], &[0.5f64 + 1e-12]);
    let inputs = [Some(&x)];
    let at = |precision| op.run(&Call { precision, ..Call::new(&inputs) }).unwrap()[0].to_f64().unwrap()[0];
    assert_eq!(at(Precision::Float64), 0.25);
    assert_eq!(at(Precision::Declared), 4.25, "features that are declared in f64 are compared in f64");
}

#[test]
fn sums_stay_inside_of_their_budget() {
    let weights = noise(&[100], 3);
    let mut settings: Settings = Vec::new();
    let many = |of: &dyn Fn(i64) -> i64| Attribute::Ints((0..150).map(of).collect());
    settings.push(("nodes_treeids", many(&|i| i / 3)));
    settings.push(("nodes_nodeids", many(&|i| i % 3)));
    settings.push(("nodes_featureids", many(&|i| i % 8)));
    settings.push(("nodes_truenodeids", many(&|_| 1)));
    settings.push(("nodes_falsenodeids", many(&|_| 2)));
    settings.push(("nodes_modes", texts(&["BRANCH_GT", "LEAF", "LEAF"].repeat(50))));
    settings.push(("nodes_values", floats(noise(&[150], 9).as_slice().unwrap())));
    settings.push(("target_treeids", Attribute::Ints((0..100).map(|i| i / 2).collect())));
    settings.push(("target_nodeids", Attribute::Ints((0..100).map(|i| 1 + i % 2).collect())));
    settings.push(("target_ids", ints(&[0; 100])));
    settings.push(("target_weights", floats(weights.as_slice().unwrap())));
    let used = share(&node("TreeEnsembleRegressor", 1, &settings), &[&noise(&[64, 8], 2)], 0);
    assert!(used > 0.0 && used < 1.0, "{used}");
}

#[test]
fn lists_that_are_no_trees() {
    let x = tensor(&[1, 1], &[0.0f32]);
    let with = |changes: &[(&'static str, Attribute)]| {
        let mut settings = [stump(), votes("target", &[(1, 0, 0.25)])].concat();
        for (name, value) in changes {
            settings.retain(|s| s.0 != *name);
            settings.push((name, value.clone()));
        }
        run(&node("TreeEnsembleRegressor", 3, &settings), &[&x])
    };
    assert!(with(&[]).is_ok());
    let cases: [&[(&'static str, Attribute)]; 11] = [
        &[("nodes_truenodeids", ints(&[0, 0, 0]))],
        &[("nodes_truenodeids", ints(&[2, 0, 0])), ("nodes_falsenodeids", ints(&[2, 0, 0]))],
        &[("nodes_truenodeids", ints(&[7, 0, 0]))],
        &[("nodes_truenodeids", ints(&[1, 0]))],
        &[("nodes_nodeids", ints(&[0, 1, 1]))],
        &[("nodes_modes", texts(&["BRANCH_NOT", "LEAF", "LEAF"]))],
        &[("nodes_featureids", ints(&[1, 0, 0]))],
        &[("nodes_featureids", ints(&[-1, 0, 0]))],
        &[("target_ids", ints(&[1]))],
        &[("n_targets", Attribute::Int(1 << 60))],
        &[("base_values", floats(&[1.0, 2.0]))],
    ];
    for case in cases {
        assert!(with(case).is_err(), "{case:?}");
    }
    let mut cycle = places();
    cycle.retain(|s| s.0 != "nodes_falsenodeids");
    cycle.push(("nodes_falsenodeids", ints(&[0, 2])));
    let x = tensor(&[1, 2], &[0.0f32; 2]);
    assert!(run(&node("TreeEnsemble", 5, &cycle), &[&x as &Tensor]).is_err());
}
