//! Two networks in two precisions: what a converter to half precision does, and faults beside it.

mod block;
mod common;
mod net;

use isotrace_graph::Attribute;
use isotrace_report::Verdict;
use isotrace_tensor::{DType, Tensor};

use block::{FAULTS, masked};
use net::{Net, compare_as, insert};

/// The network as a converter to f16 leaves it: constants rounded, what does not fit clamped, casts at both ends.
fn in_half(mut n: Net) -> Net {
    let clamp = |x: &f64| if x.abs() > 65504.0 { x.signum() * 1e4 } else { *x };
    for value in &mut n.graph.values {
        if let Some(t) = value.constant.as_mut().filter(|t| t.dtype() == DType::F32) {
            let wide = t.to_f64().unwrap().iter().map(clamp).collect::<Vec<f64>>();
            *t = Tensor::from_vec(t.shape(), wide).unwrap().cast(DType::F16).unwrap();
        }
    }
    insert(&mut n, "Cast", "x", &[("to", Attribute::Int(10))], &[]);
    insert(&mut n, "Cast", "y", &[("to", Attribute::Int(1))], &[]);
    n
}

/// A value divided by its root mean square, in as many nodes as that takes, twice; in f32 where all else is not.
fn normed(mut n: Net, wide: bool) -> Net {
    n.constant("two", Tensor::scalar(2f32));
    n.constant("small", Tensor::scalar(1e-6f32));
    n.constant("last", Tensor::from_vec(&[1], vec![-1i64]).unwrap());
    for x in ["context", "narrow"] {
        let name = |part: &str| format!("{x}_{part}");
        if wide {
            insert(&mut n, "Cast", x, &[("to", Attribute::Int(1))], &[]);
        }
        let x = if wide { name("cast") } else { x.to_owned() };
        let end = format!("{x}_div");
        n.node("Pow", &[&x, "two"], &name("square"), &[]);
        n.node("ReduceMean", &[&name("square"), "last"], &name("mean"), &[]);
        n.node("Add", &[&name("mean"), "small"], &name("more"), &[]);
        n.node("Sqrt", &[&name("more")], &name("root"), &[]);
        n.node("Neg", &[&name("root")], &name("minus"), &[]);
        n.node("Abs", &[&name("minus")], &name("plus"), &[]);
        n.node("Div", &[&x, &name("plus")], &end, &[]);
        let read = n.names[&x];
        let own = [name("square"), end.clone()].map(|v| n.names[&v]);
        let to = n.names[&end];
        for node in n.graph.nodes.iter_mut().filter(|m| !own.contains(&m.outputs[0].unwrap())) {
            node.inputs.iter_mut().filter(|v| **v == Some(read)).for_each(|v| *v = Some(to));
        }
        if wide {
            insert(&mut n, "Cast", &end, &[("to", Attribute::Int(10))], &[]);
        }
    }
    n
}

/// The network with its norms, in f16 but for what those compute.
fn widened() -> Net {
    let mut n = in_half(normed(masked(), true));
    for name in ["two", "small"] {
        let value = if name == "two" { 2f32 } else { 1e-6 };
        n.constant(name, Tensor::scalar(value));
    }
    n
}

#[test]
fn half_precision_throughout_is_no_fault() {
    let whole = || normed(masked(), false);
    for (a, b) in [
        (masked(), in_half(masked())),
        (in_half(masked()), masked()),
        // Norms in f32 have more nodes than the rest.
        (whole(), widened()),
        (widened(), whole()),
    ] {
        let ends = |n: &Net| if n.names.contains_key("y_cast") { "y_cast" } else { "y" };
        let (end_a, end_b) = (ends(&a), ends(&b));
        let report = compare_as(a, b, end_a, end_b);
        assert_eq!(report.verdict, Verdict::Equivalent, "{}", report.reason);
    }
}

#[test]
fn faults_are_named_across_precisions() {
    let mut wrong = Vec::new();
    // A tensor in f16 is no fault of a network that is in f16 throughout.
    for case in FAULTS.iter().filter(|c| c.cause != "precision") {
        let mut b = masked();
        (case.plant)(&mut b);
        let report = compare_as(masked(), in_half(b), "y", "y_cast");
        let first = report.culprits.first();
        let named = first.is_some_and(|c| c.b.outputs.iter().any(|o| case.named.contains(&o.as_str())));
        let cause = first.map(|c| c.cause.class.as_str());
        if report.verdict != Verdict::Divergent || !named || cause != Some(case.cause) {
            wrong.push(format!("{}: {:?} {:?}", case.what, report.verdict, first));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_weight_that_was_altered_is_no_rounding_of_the_other() {
    // Two or three times what rounding to f16 does to one number, far less than what it may do to all of them.
    let mut b = masked();
    let v = b.names["w1"];
    let altered: Vec<f64> = b.graph.value(v).constant.as_ref().unwrap().to_f64().unwrap().into_owned();
    let altered = altered.iter().enumerate().map(|(i, x)| if i % 16 == 3 { 1.0015 * x } else { *x } as f32);
    b.constant("w1", Tensor::from_vec(&[8, 16], altered.collect()).unwrap());
    let report = compare_as(masked(), in_half(b), "y", "y_cast");
    assert_eq!(report.verdict, Verdict::Divergent, "{}", report.reason);
    assert_eq!(report.culprits[0].cause.class, "weight_value", "{}", report.reason);
}

/// A number on the border between two that half precision alone takes across it: the decision is shared, and told.
#[test]
fn a_decision_that_half_precision_tips_is_no_fault() {
    let steps = |factor: f32| {
        let mut n = masked();
        n.constant("many", Tensor::scalar(64f32));
        n.constant("step", Tensor::scalar(factor));
        n.node("Mul", &["y", "many"], "counted", &[]);
        n.node("Round", &["counted"], "whole", &[]);
        n.node("Mul", &["whole", "step"], "stepped", &[]);
        n.node("Add", &["stepped", "y"], "z", &[]);
        n
    };
    let half = |n: Net| {
        let mut n = in_half(n);
        insert(&mut n, "Cast", "z", &[("to", Attribute::Int(1))], &[]);
        n
    };
    let report = compare_as(steps(0.0625), half(steps(0.0625)), "z", "z_cast");
    let told: Vec<&str> = report.warnings.iter().map(|w| w.class.as_str()).collect();
    assert_eq!((report.verdict, &told[..]), (Verdict::Equivalent, &["discrete"][..]), "{}", report.reason);
    // What reads the decisions is judged on the shared ones.
    let report = compare_as(steps(0.0625), half(steps(0.125)), "z", "z_cast");
    assert_eq!((report.verdict, report.culprits[0].cause.class.as_str()), (Verdict::Divergent, "scale"));
}
