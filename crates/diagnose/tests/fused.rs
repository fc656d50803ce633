//! Faults inside of an attention that B holds as one operator and A written out, as a table.

mod common;
mod net;

use isotrace_graph::Attribute;
use isotrace_report::Verdict;
use isotrace_tensor::Tensor;
use net::{Net, compare, numbers};

fn start() -> Net {
    let mut n = Net::default();
    n.value("x");
    for (i, name) in ["wq", "wk", "wv", "wo"].into_iter().enumerate() {
        n.constant(name, numbers(&[8, 8], i as u64 + 1));
    }
    n.node("MatMul", &["x", "wq"], "q", &[]);
    n.node("MatMul", &["x", "wk"], "k", &[]);
    n.node("MatMul", &["x", "wv"], "v", &[]);
    n
}

/// Two heads of four; the scores of a query to keys after it are hidden; capped at 3. Scaled by parts, as an exporter
/// does that takes the root of the scale to queries and keys.
fn written_out() -> Net {
    written(true)
}

fn written(capped: bool) -> Net {
    let mut n = start();
    n.constant("apart", Tensor::vector(vec![2i64, 6, 2, 4]));
    n.constant("joined", Tensor::vector(vec![2i64, 6, 8]));
    n.constant("root", Tensor::scalar(0.5f32.sqrt()));
    n.constant("cap", Tensor::scalar(3f32));
    let hidden = (0..36).map(|i| if i % 6 > i / 6 { f32::NEG_INFINITY } else { 0.0 }).collect();
    n.constant("mask", Tensor::from_vec(&[6, 6], hidden).unwrap());
    let heads = [("perm", Attribute::Ints(vec![0, 2, 1, 3]))];
    for (name, factor) in [("q", true), ("k", true), ("v", false)] {
        let at = |what: &str| format!("{name}_{what}");
        n.node("Reshape", &[name, "apart"], &at("apart"), &[]);
        n.node("Transpose", &[&at("apart")], &at("heads"), &heads);
        if factor {
            n.node("Mul", &[&at("heads"), "root"], &at("scaled"), &[]);
        }
    }
    n.node("Transpose", &["k_scaled"], "kt", &[("perm", Attribute::Ints(vec![0, 1, 3, 2]))]);
    n.node("MatMul", &["q_scaled", "kt"], "scores", &[]);
    if capped {
        n.node("Div", &["scores", "cap"], "share", &[]);
        n.node("Tanh", &["share"], "bent", &[]);
        n.node("Mul", &["bent", "cap"], "capped", &[]);
    }
    n.node("Add", &[if capped { "capped" } else { "scores" }, "mask"], "masked", &[]);
    n.node("Softmax", &["masked"], "p", &[("axis", Attribute::Int(-1))]);
    n.node("MatMul", &["p", "v_heads"], "sum", &[]);
    n.node("Transpose", &["sum"], "sum_apart", &heads);
    n.node("Reshape", &["sum_apart", "joined"], "a", &[]);
    n.node("MatMul", &["a", "wo"], "y", &[]);
    n
}

/// The same as one operator, with settings that may be wrong.
fn fused(scale: Option<f32>, softcap: f32, causal: i64, mask: Option<Tensor>) -> Net {
    let mut n = start();
    let mut settings = vec![
        ("q_num_heads", Attribute::Int(2)),
        ("kv_num_heads", Attribute::Int(2)),
        ("softcap", Attribute::Float(softcap)),
        ("is_causal", Attribute::Int(causal)),
    ];
    settings.extend(scale.map(|s| ("scale", Attribute::Float(s))));
    let mut inputs = vec!["q", "k", "v"];
    if let Some(mask) = mask {
        n.constant("more", mask);
        inputs.push("more");
    }
    n.node("Attention", &inputs, "a", &settings);
    n.at("a").version = 23;
    n.node("MatMul", &["a", "wo"], "y", &[]);
    n
}

/// No query sees more than three keys.
fn window() -> Tensor {
    let hidden = (0..36).map(|i: i32| if i % 6 + 2 < i / 6 { f32::NEG_INFINITY } else { 0.0 }).collect();
    Tensor::from_vec(&[6, 6], hidden).unwrap()
}

struct Case {
    what: &'static str,
    cause: &'static str,
    b: fn() -> Net,
}

const CASES: &[Case] = &[
    Case { what: "scaled by the hidden size", cause: "scale", b: || fused(Some(0.25), 3.0, 1, None) },
    Case { what: "another cap", cause: "activation", b: || fused(None, 1.0, 1, None) },
    Case { what: "every query sees every key", cause: "mask", b: || fused(None, 3.0, 0, None) },
    Case { what: "a window", cause: "mask", b: || fused(None, 3.0, 1, Some(window())) },
];

#[test]
fn a_fused_attention_is_what_it_does() {
    assert_eq!(compare(written_out(), fused(None, 3.0, 1, None)).verdict, Verdict::Equivalent);
}

#[test]
fn faults_in_a_fused_attention_are_named_with_their_cause() {
    let mut wrong = Vec::new();
    for case in CASES {
        let report = compare(written_out(), (case.b)());
        let told = report.culprits.first().is_some_and(|c| {
            c.cause.class == case.cause
                && c.b.nodes == ["node_a"]
                && c.cause.counterfactual.as_ref().is_some_and(|p| p.after < p.before)
        });
        if !told || report.culprits.len() != 1 {
            wrong.push(format!("{}: {:#?}", case.what, report.culprits));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Projections and attention as one operator of ONNX Runtime's.
fn packed(causal: i64) -> Net {
    let mut n = start();
    let weights = [1, 2, 3].map(|seed| numbers(&[8, 8], seed));
    let columns = (0..8 * 24).map(|i| weights[i % 24 / 8].as_slice::<f32>().unwrap()[i / 24 * 8 + i % 8]);
    n.constant("packed", Tensor::from_vec(&[8, 24], columns.collect()).unwrap());
    n.constant("none", Tensor::vector(vec![0f32; 24]));
    let settings = [("num_heads", Attribute::Int(2)), ("unidirectional", Attribute::Int(causal))];
    n.node("Attention", &["x", "packed", "none"], "a", &settings);
    let node = n.at("a");
    (node.domain, node.version) = ("com.microsoft".into(), 1);
    n.node("MatMul", &["a", "wo"], "y", &[]);
    n
}

#[test]
fn a_fusion_that_forgets_what_comes_later_is_told_by_its_mask() {
    assert_eq!(compare(written(false), packed(1)).verdict, Verdict::Equivalent);
    let report = compare(written(false), packed(0));
    let cause = &report.culprits[0].cause;
    assert_eq!(cause.class, "mask", "{cause:#?}");
    assert_eq!(cause.counterfactual.as_ref().map(|c| c.change.as_str()), Some("unidirectional 1"));
}
