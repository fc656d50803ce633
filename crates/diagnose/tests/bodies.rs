//! Faults in bodies of Loop, Scan and If, as a table: what B's body has in place of A's, and the cause.

mod common;
mod net;

use isotrace_graph::{Attribute, Graph};
use isotrace_report::{Report, Verdict};
use isotrace_tensor::{Bool, Tensor};
use net::{Net, compare, numbers};

/// A body of nodes (operator, what it reads, what it writes). Of what it reads, `given` is handed in, in this order,
/// and everything else is captured from the network around, which is `outer`.
fn body(outer: &mut Net, given: &[&str], nodes: &[(&str, &[&str], &str)], outputs: &[&str]) -> Attribute {
    let mut inner = Net::default();
    for name in given {
        inner.value(name);
    }
    for (op, reads, writes) in nodes {
        inner.node(op, reads, writes, &[]);
    }
    let written: Vec<&str> = nodes.iter().map(|n| n.2).collect();
    let mut graph: Graph = inner.graph.clone();
    graph.inputs = given.iter().map(|name| inner.names[*name]).collect();
    graph.outputs = outputs.iter().map(|name| inner.names[*name]).collect();
    for (name, &v) in &inner.names {
        if !given.contains(&name.as_str()) && !written.contains(&name.as_str()) {
            graph.captures.push((outer.value(name), v));
        }
    }
    Attribute::Graph(Box::new(graph))
}

type Nodes = &'static [(&'static str, &'static [&'static str], &'static str)];

/// What differs from network to network.
#[derive(Clone, Copy)]
struct Shape {
    /// A step of the loop: from v to w.
    step: Nodes,
    /// What each step hands out.
    collected: &'static str,
    /// A step of the scan: from the state h and the row r to s.
    scan: Nodes,
    trips: i64,
    backwards: i64,
    /// The branch where x is mostly positive, and the other.
    then: Nodes,
    other: Nodes,
    comparison: &'static str,
}

const STEP: Nodes = &[
    ("MatMul", &["v", "w1"], "m"),
    ("Add", &["m", "b1"], "n"),
    ("Sigmoid", &["n"], "p"),
    ("Mul", &["p", "half"], "q"),
    ("Add", &["v", "q"], "w"),
];
const SCAN: Nodes = &[("MatMul", &["h", "w2"], "f"), ("Add", &["f", "r"], "g"), ("Tanh", &["g"], "s")];
const THEN: Nodes = &[("MatMul", &["last", "w3"], "t"), ("Tanh", &["t"], "u")];
const OTHER: Nodes = &[("MatMul", &["last", "w4"], "t"), ("Relu", &["t"], "u")];

const RIGHT: Shape = Shape {
    step: STEP,
    collected: "w",
    scan: SCAN,
    trips: 4,
    backwards: 0,
    then: THEN,
    other: OTHER,
    comparison: "Less",
};

/// The loop runs over x, the scan over the six rows of what it leaves, the choice is between two layers behind it.
fn network(shape: &Shape) -> Net {
    let mut n = Net::default();
    n.value("x");
    for (i, name) in ["w1", "w2", "w3", "w4", "w5"].into_iter().enumerate() {
        n.constant(name, numbers(&[8, 8], i as u64 + 1));
    }
    n.constant("b1", numbers(&[8], 12));
    n.constant("half", Tensor::scalar(0.5f32));
    n.constant("double", Tensor::scalar(1f32));
    n.constant("turned", numbers(&[8, 8], 1).permute(&[1, 0]).unwrap());
    n.constant("trips", Tensor::scalar(shape.trips));
    n.constant("true", Tensor::scalar(Bool::from(true)));
    let step = body(&mut n, &["i", "go", "v"], shape.step, &["go", "w", shape.collected]);
    n.node("Loop", &["trips", "true", "x"], "looped", &[("body", step)]);
    let steps = n.value("steps");
    n.at("looped").outputs.push(Some(steps));
    n.constant("first", Tensor::vector(vec![0i64]));
    n.node("ReduceMax", &["steps", "first"], "top", &[("keepdims", Attribute::Int(0))]);
    n.node("Add", &["looped", "top"], "rows", &[]);
    n.constant("state", Tensor::full(&[2, 8], 0f32).unwrap());
    let scan = body(&mut n, &["h", "r"], shape.scan, &["s", "s"]);
    let settings = [
        ("body", scan),
        ("num_scan_inputs", Attribute::Int(1)),
        ("scan_input_axes", Attribute::Ints(vec![1])),
        ("scan_output_axes", Attribute::Ints(vec![1])),
        ("scan_input_directions", Attribute::Ints(vec![shape.backwards])),
        ("scan_output_directions", Attribute::Ints(vec![shape.backwards])),
    ];
    n.node("Scan", &["state", "rows"], "end", &settings);
    let all = n.value("last");
    n.at("end").outputs.push(Some(all));
    n.node("ReduceSum", &["x"], "sum", &[("keepdims", Attribute::Int(0))]);
    n.constant("zero", Tensor::scalar(0f32));
    n.node(shape.comparison, &["zero", "sum"], "positive", &[]);
    let branches = [
        ("then_branch", body(&mut n, &[], shape.then, &["u"])),
        ("else_branch", body(&mut n, &[], shape.other, &["u"])),
    ];
    n.node("If", &["positive"], "chosen", &branches);
    n.node("MatMul", &["chosen", "w5"], "y", &[]);
    n
}

struct Case {
    what: &'static str,
    cause: &'static str,
    /// The node that is named.
    node: &'static str,
    b: Shape,
}

const CASES: &[Case] = &[
    Case {
        what: "another activation in each step of the loop",
        cause: "activation",
        node: "node_looped",
        b: Shape { step: &[STEP[0], STEP[1], ("Tanh", &["n"], "p"), STEP[3], STEP[4]], ..RIGHT },
    },
    Case {
        what: "a factor that each step reads from outside",
        cause: "scale",
        node: "node_looped",
        b: Shape { step: &[STEP[0], STEP[1], STEP[2], ("Mul", &["p", "double"], "q"), STEP[4]], ..RIGHT },
    },
    Case {
        what: "a transposed weight that each step reads from outside",
        cause: "weight_layout",
        node: "node_looped",
        b: Shape { step: &[("MatMul", &["v", "turned"], "m"), STEP[1], STEP[2], STEP[3], STEP[4]], ..RIGHT },
    },
    Case {
        what: "no bias in the steps",
        cause: "bias",
        node: "node_looped",
        b: Shape { step: &[STEP[0], ("Identity", &["m"], "n"), STEP[2], STEP[3], STEP[4]], ..RIGHT },
    },
    Case {
        what: "no skip connection around each step",
        cause: "residual",
        node: "node_looped",
        b: Shape { step: &[STEP[0], STEP[1], STEP[2], STEP[3], ("Identity", &["q"], "w")], ..RIGHT },
    },
    Case {
        what: "steps handed out before they are made",
        cause: "index",
        node: "node_looped",
        b: Shape { collected: "v", ..RIGHT },
    },
    Case { what: "one trip less", cause: "index", node: "node_looped", b: Shape { trips: 3, ..RIGHT } },
    Case {
        what: "another activation in the scan",
        cause: "activation",
        node: "node_end",
        b: Shape { scan: &[SCAN[0], SCAN[1], ("Relu", &["g"], "s")], ..RIGHT },
    },
    Case {
        what: "the scan from the last row on",
        cause: "index",
        node: "node_end",
        b: Shape { backwards: 1, ..RIGHT },
    },
    Case {
        what: "the branches exchanged",
        cause: "operand_order",
        node: "node_chosen",
        b: Shape { then: OTHER, other: THEN, ..RIGHT },
    },
    Case {
        what: "the condition the other way round",
        cause: "operand_order",
        node: "node_positive",
        b: Shape { comparison: "Greater", ..RIGHT },
    },
    Case {
        what: "another activation in the branches, whichever is taken",
        cause: "activation",
        node: "node_chosen",
        b: Shape {
            then: &[THEN[0], ("Sigmoid", &["t"], "u")],
            other: &[OTHER[0], ("Sigmoid", &["t"], "u")],
            ..RIGHT
        },
    },
];

/// The first culprit's cause, the nodes of B that it names, and whether it is proven.
fn first(report: &Report) -> Option<(&str, &[String], bool)> {
    let culprit = report.culprits.first()?;
    let proven = culprit.cause.counterfactual.as_ref().is_some_and(|p| p.after < p.before);
    Some((&culprit.cause.class, &culprit.b.nodes, proven))
}

#[test]
fn faults_in_bodies_are_named_with_their_cause() {
    let mut wrong = Vec::new();
    for case in CASES {
        let report = compare(network(&RIGHT), network(&case.b));
        let told = first(&report).is_some_and(|(cause, nodes, proven)| {
            cause == case.cause && nodes.iter().any(|n| n == case.node) && proven
        });
        if report.verdict != Verdict::Divergent || !told || report.culprits.len() != 1 {
            wrong.push(format!("{}: {:?} {:#?}", case.what, report.verdict, report.culprits));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_node_of_the_body_and_the_iteration_are_told() {
    let report = compare(network(&RIGHT), network(&CASES[0].b));
    let cause = &report.culprits[0].cause;
    assert_eq!(
        cause.summary,
        "node_p in the body of node_looped, iteration 0 is Tanh where A computes Sigmoid"
    );
    let told = cause.evidence.iter().find(|e| e.contains("written out")).expect("how it was found");
    assert!(told.contains("their outputs agree"), "{told}");
    assert!(cause.evidence.iter().any(|e| e.contains("3 further places")), "{:?}", cause.evidence);
}

/// What a body computes on one side and nodes on the other is one function.
#[test]
fn a_choice_and_its_branch_are_the_same() {
    let a = network(&RIGHT);
    let mut b = network(&RIGHT);
    // Whichever branch these numbers take, both have it from here on.
    for (name, nodes) in [("then", THEN), ("other", OTHER)] {
        for (op, reads, writes) in nodes {
            let reads: Vec<String> =
                reads.iter().map(|r| if *r == "t" { format!("{name}_t") } else { (*r).to_owned() }).collect();
            let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
            b.node(op, &reads, &format!("{name}_{writes}"), &[]);
        }
    }
    b.node("Where", &["positive", "then_u", "other_u"], "picked", &[]);
    b.redirect("chosen", "picked", "picked");
    assert_eq!(compare(a, b).verdict, Verdict::Identical);
}

/// More trips than faults are looked for: the first that parts is named all the same.
#[test]
fn long_loops_are_looked_into() {
    let long = |step| network(&Shape { step, trips: 40, ..RIGHT });
    let report = compare(long(STEP), long(CASES[0].b.step));
    let (cause, nodes, proven) = first(&report).expect("a culprit");
    assert_eq!((cause, nodes, proven), ("activation", &["node_looped".to_owned()][..], true));
}
