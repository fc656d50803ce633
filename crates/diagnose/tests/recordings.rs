//! Runs that somebody else made, held against their own graphs, and calls that nobody here knows.

mod block;
mod common;
mod net;

use isotrace_diagnose::{Detail, Options, Source};
use isotrace_graph::{Graph, Node, ValueId};
use isotrace_report::Verdict;
use isotrace_tensor::Tensor;
use rustc_hash::FxHashMap;

use block::block;
use net::{diff, insert, numbers};

#[test]
fn calls_of_unknown_operators_prove_nothing() {
    let net = |known: bool| {
        let mut n = block();
        insert(&mut n, "Erf", "wide", &[], &[]);
        if !known {
            let node = n.at("wide_erf");
            (node.domain, node.op) = (isotrace_ops::ops::opaque::DOMAIN.into(), "their.function".into());
        }
        n
    };
    let (known, unknown) = (net(true), net(false));
    let [known, unknown] = [known, unknown].map(|n| n.finish(&["x"]));
    let inputs = FxHashMap::from_iter([("x".to_owned(), numbers(&[2, 6, 8], 99))]);
    let right = recording(&known, &inputs);
    let place = |name: &str| known.value_ids().find(|&v| known.value(v).name == name).unwrap();
    // What the unknown call gave in another run, and what followed.
    let edited = |by: f64| {
        let v = place("wide_erf");
        let given = right[&v].to_f64().unwrap().iter().map(|x| (x * x * by + x) as f32).collect();
        let mut run = right.clone();
        run.insert(v, Tensor::from_vec(right[&v].shape(), given).unwrap());
        let after = ["act", "narrow", "y"].map(place);
        run.retain(|v, _| !after.contains(v));
        run
    };
    let (near, far) = (edited(1e-7), edited(0.1));
    let cases = [
        ("the same", (&unknown, &right), (&unknown, &right), Verdict::Identical),
        ("another rounding", (&unknown, &right), (&unknown, &near), Verdict::Equivalent),
        ("other numbers of the same bits", (&unknown, &right), (&unknown, &far), Verdict::Divergent),
        ("known there", (&unknown, &right), (&known, &right), Verdict::Identical),
        ("what the other side knows differs", (&unknown, &far), (&known, &right), Verdict::Inconclusive),
        ("the same the other way round", (&known, &right), (&unknown, &far), Verdict::Inconclusive),
    ];
    for (what, a, b, verdict) in cases {
        let source = |path, (graph, recorded)| Source { path, graph, recorded: Some(recorded) };
        let options = Options { allowed: &[], progress: None, detail: Detail::FULL };
        let report = diff(source("a", a), source("b", b), &inputs, options);
        assert_eq!(report.verdict, verdict, "{what}: {}", report.reason);
        assert_eq!(report.culprits.len(), usize::from(verdict == Verdict::Divergent), "{what}");
        if let [only] = &report.culprits[..] {
            assert_eq!(
                (only.cause.class.as_str(), only.b.outputs[0].as_str()),
                ("unknown", "wide_erf"),
                "{what}"
            );
        }
        if verdict == Verdict::Inconclusive {
            assert!(report.reason.contains("their.function"), "{what}: {}", report.reason);
        }
    }
}

/// What A's run computes, by value, as a recorder of somebody else's run would hand it over.
fn recording(graph: &Graph, inputs: &FxHashMap<String, Tensor>) -> FxHashMap<ValueId, Tensor> {
    let fed = graph.inputs.iter().map(|&v| (v, inputs[&graph.value(v).name].clone())).collect();
    let run = isotrace_run::Plan::new(graph).unwrap().run(&fed, &isotrace_run::Options::default()).unwrap();
    graph.nodes.iter().flat_map(Node::writes).map(|v| (v, run.get(v).unwrap().clone())).collect()
}

#[test]
fn a_recorded_run_is_held_against_its_own_graph() {
    let net = block();
    let graph = net.clone().finish(&["x"]);
    let inputs = FxHashMap::from_iter([("x".to_owned(), numbers(&[2, 6, 8], 99))]);
    let right = recording(&graph, &inputs);
    let edited = |output: &str, edit: &dyn Fn(f64) -> f64| {
        let v = net.names[output];
        let edited = right[&v].to_f64().unwrap().iter().map(|&x| edit(x) as f32).collect();
        // Nothing else was recorded: what follows is computed from it.
        FxHashMap::from_iter([(v, Tensor::from_vec(right[&v].shape(), edited).unwrap())])
    };
    let last_bit = edited("wide", &|x| x * (1.0 + 1e-7));
    let wrong = edited("wide", &|x| x + 1e-3);
    // (A's run, B's run, verdict, side, class)
    let cases = [
        (Some(&right), Some(&right), Verdict::Identical, None),
        (None, Some(&right), Verdict::Identical, None),
        (None, Some(&last_bit), Verdict::Equivalent, None),
        (Some(&last_bit), None, Verdict::Equivalent, None),
        (None, Some(&wrong), Verdict::Divergent, Some(("b", "unknown"))),
        (Some(&wrong), None, Verdict::Divergent, Some(("a", "reference"))),
    ];
    for (i, (a, b, verdict, culprit)) in cases.into_iter().enumerate() {
        let source = |path, recorded| Source { path, graph: &graph, recorded };
        let options = Options { allowed: &[], progress: None, detail: Detail::FULL };
        let report = diff(source("a", a), source("b", b), &inputs, options);
        assert_eq!(report.verdict, verdict, "case {i}: {}", report.reason);
        if let Some((side, class)) = culprit {
            let found = &report.culprits[0];
            let region = if side == "a" { &found.a } else { &found.b };
            assert_eq!(
                (region.outputs.as_slice(), found.cause.class.as_str()),
                (&["wide".to_owned()][..], class)
            );
        }
    }
}

#[test]
fn a_product_on_rounded_inputs_is_known_by_its_format() {
    let net = block();
    let graph = net.clone().finish(&["x"]);
    let inputs = FxHashMap::from_iter([("x".to_owned(), numbers(&[2, 6, 8], 99))]);
    let recorded = recording(&graph, &inputs);
    let mut narrowed = net.clone();
    let tf32 = |t: &Tensor| {
        let cut = |x: &f32| f32::from_bits((x.to_bits() + 0x0fff + (x.to_bits() >> 13 & 1)) & !0x1fff);
        Tensor::from_vec(t.shape(), t.as_slice::<f32>().unwrap().iter().map(cut).collect()).unwrap()
    };
    let (normed, w1, wide) = (narrowed.value("normed"), narrowed.value("w1"), narrowed.value("wide"));
    let product = isotrace_run::Plan::new(&graph).unwrap();
    let node = graph.node_ids().find(|&n| graph.node(n).outputs[0] == Some(wide)).unwrap();
    let lookup = |v: ValueId| {
        let t = if v == normed { &recorded[&v] } else { graph.value(w1).constant.as_ref().unwrap() };
        Some(tf32(t))
    };
    let rounded = product.evaluate(node, &lookup, isotrace_ops::Precision::Declared, None).unwrap().remove(0);
    // What follows was not recorded, and is computed from it.
    let mut values = recorded.clone();
    values.retain(|v, _| !["act", "narrow", "y"].iter().any(|name| net.names[*name] == *v));
    values.insert(wide, rounded);
    let source = |path, recorded| Source { path, graph: &graph, recorded };
    let options = Options { allowed: &[], progress: None, detail: Detail::FULL };
    let report = diff(source("a", None), source("b", Some(&values)), &inputs, options);
    let cause = &report.culprits[0].cause;
    assert_eq!(
        (cause.class.as_str(), cause.summary.contains("tf32")),
        ("precision", true),
        "{}",
        cause.summary
    );
    assert!(cause.counterfactual.as_ref().is_some_and(|c| c.after < c.before / 16.0));
}
