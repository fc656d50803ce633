//! Decisions that rounding tips, as a table: what decides, and what the report says of it.

mod common;
mod net;

use isotrace_graph::Attribute;
use isotrace_report::{Report, Verdict};
use isotrace_tensor::Tensor;
use net::{Net, compare};

const STEP: f32 = 0.013;

/// Numbers on the border between two integers, moved to a grid and back: by a division, or by the reciprocal.
fn borders(reciprocal: bool) -> Net {
    let mut net = Net::default();
    for (name, number) in [("many", 16.0), ("half", 0.5), ("step", STEP), ("inverse", 1.0 / STEP)] {
        net.constant(name, Tensor::scalar(number));
    }
    net.node("Mul", &["x", "many"], "wide", &[]);
    net.node("Floor", &["wide"], "whole", &[]);
    net.node("Add", &["whole", "half"], "border", &[]);
    net.node("Mul", &["border", "step"], "fine", &[]);
    let (op, by) = if reciprocal { ("Mul", "inverse") } else { ("Div", "step") };
    net.node(op, &["fine", by], "back", &[]);
    net
}

/// A tree of one split on each border between -3 and 3.
fn stumps() -> [(&'static str, Attribute); 11] {
    let ints = |of: &dyn Fn(i64) -> i64, len| Attribute::Ints((0..len).map(of).collect());
    let modes = ["BRANCH_LEQ", "LEAF", "LEAF"].repeat(6).iter().map(|m| m.as_bytes().to_vec()).collect();
    [
        ("nodes_treeids", ints(&|i| i / 3, 18)),
        ("nodes_nodeids", ints(&|i| i % 3, 18)),
        ("nodes_featureids", ints(&|_| 0, 18)),
        ("nodes_truenodeids", ints(&|_| 1, 18)),
        ("nodes_falsenodeids", ints(&|_| 2, 18)),
        ("nodes_modes", Attribute::Strings(modes)),
        ("nodes_values", Attribute::Floats((0..18u8).map(|i| f32::from(i / 3) - 2.5).collect())),
        ("target_treeids", ints(&|i| i / 2, 12)),
        ("target_nodeids", ints(&|i| 1 + i % 2, 12)),
        ("target_ids", ints(&|_| 0, 12)),
        ("target_weights", Attribute::Floats((0..12u8).map(|i| 0.3 * f32::from(i)).collect())),
    ]
}

fn report(finish: impl Fn(&mut Net)) -> Report {
    let [a, b] = [false, true].map(|reciprocal| {
        let mut net = borders(reciprocal);
        finish(&mut net);
        net
    });
    compare(a, b)
}

fn discrete(report: &Report) -> Vec<&str> {
    let told = report.warnings.iter().filter(|w| w.class == "discrete");
    told.flat_map(|w| w.place.iter().map(String::as_str)).collect()
}

#[test]
fn what_rounding_tips_is_told_where_it_is_decided() {
    struct Case {
        name: &'static str,
        net: fn(&mut Net),
        told: &'static [&'static str],
    }
    let cases = [
        Case { name: "nothing decides", net: |n| n.node("Neg", &["back"], "y", &[]), told: &[] },
        Case {
            name: "rounding",
            net: |n| {
                n.node("Round", &["back"], "r", &[]);
                n.node("Mul", &["r", "step"], "y", &[]);
            },
            told: &["r"],
        },
        Case {
            name: "what follows from one decision is not told again",
            net: |n| {
                n.node("Round", &["back"], "r", &[]);
                n.node("Sin", &["r"], "s", &[]);
                n.node("Round", &["s"], "q", &[]);
                n.node("Mul", &["q", "step"], "y", &[]);
            },
            told: &["r"],
        },
        Case {
            name: "a cast",
            net: |n| {
                n.node("Cast", &["back"], "i", &[("to", Attribute::Int(7))]);
                n.node("Cast", &["border"], "j", &[("to", Attribute::Int(7))]);
                n.node("Add", &["i", "j"], "k", &[]);
                n.node("Cast", &["k"], "l", &[("to", Attribute::Int(1))]);
                n.node("Add", &["l", "back"], "y", &[]);
            },
            // Truncation has its borders at the integers.
            told: &[],
        },
        Case {
            name: "the larger of two",
            net: |n| {
                n.node("Unsqueeze", &["back", "last"], "u", &[]);
                n.node("Unsqueeze", &["border", "last"], "v", &[]);
                n.constant("last", Tensor::vector(vec![-1i64]));
                n.node("Concat", &["u", "v"], "uv", &[("axis", Attribute::Int(-1))]);
                n.node("ArgMax", &["uv"], "best", &[("axis", Attribute::Int(-1))]);
                n.node("Cast", &["best"], "y", &[("to", Attribute::Int(1))]);
            },
            told: &["best"],
        },
        Case {
            name: "a comparison",
            net: |n| {
                n.node("Less", &["back", "border"], "less", &[]);
                n.node("Where", &["less", "back", "step"], "y", &[]);
            },
            told: &["less"],
        },
        Case {
            name: "the leaf of a tree",
            net: |n| {
                n.constant("column", Tensor::vector(vec![-1i64, 1]));
                n.node("Reshape", &["back", "column"], "rows", &[]);
                n.node("TreeEnsembleRegressor", &["rows"], "y", &stumps());
                let tree = n.at("y");
                (tree.domain, tree.version) = ("ai.onnx.ml".into(), 3);
            },
            told: &["y"],
        },
    ];
    for Case { name, net, told } in cases {
        let report = report(net);
        assert_eq!(report.verdict, Verdict::Equivalent, "{name}: {}", report.reason);
        assert_eq!(discrete(&report), told, "{name}");
        assert_eq!(report.reason.contains("that it tips"), !told.is_empty(), "{name}: {}", report.reason);
    }
}

#[test]
fn beside_a_fault_nothing_is_told_of_them() {
    let [mut a, mut b] = [false, true].map(borders);
    for (net, step) in [(&mut a, "step"), (&mut b, "half")] {
        net.node("Round", &["back"], "r", &[]);
        net.node("Mul", &["r", step], "z", &[]);
        net.node("Tanh", &["z"], "y", &[]);
    }
    let report = compare(a, b);
    assert_eq!(report.verdict, Verdict::Divergent, "{}", report.reason);
    assert_eq!(report.culprits[0].b.ops, ["Mul"]);
    assert!(discrete(&report).is_empty());
}

/// Means of four on a grid: by one operator, or off the grid and onto it again, by that step or another.
fn means(fused: bool, onto: f32) -> Net {
    let mut net = Net::default();
    net.value("x");
    for (name, number) in [("step", STEP), ("onto", onto)] {
        net.constant(name, Tensor::scalar(number));
    }
    net.constant("zero", Tensor::scalar(128u8));
    let four = [("kernel_shape", Attribute::Ints(vec![4])), ("strides", Attribute::Ints(vec![4]))];
    net.node("QuantizeLinear", &["x", "step", "zero"], "whole", &[]);
    if fused {
        net.node("QLinearAveragePool", &["whole", "step", "zero", "onto", "zero"], "means", &four);
        net.at("means").domain = "com.microsoft".into();
        net.at("means").version = 1;
    } else {
        net.node("DequantizeLinear", &["whole", "step", "zero"], "off", &[]);
        net.node("AveragePool", &["off"], "mean", &four);
        net.node("QuantizeLinear", &["mean", "onto", "zero"], "means", &[]);
    }
    net.node("DequantizeLinear", &["means", "onto", "zero"], "y", &[]);
    net
}

/// A mean of whole numbers lies between two steps as often as not, and an operator that is fused on one side alone rounds
/// on its own way there.
#[test]
fn a_step_on_its_border_is_no_difference_where_one_side_fuses_it() {
    for fused in [false, true] {
        let report = compare(means(fused, STEP), means(!fused, STEP));
        assert_eq!(report.verdict, Verdict::Equivalent, "{:?}", report.culprits);
        assert_eq!(discrete(&report).len(), 1, "{:?}", report.warnings);
        for other in [STEP * 1.02, STEP * 0.5] {
            let report = compare(means(fused, STEP), means(!fused, other));
            assert_eq!(report.verdict, Verdict::Divergent, "{other}");
        }
    }
}
