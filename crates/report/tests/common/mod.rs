//! One report that has something of everything.

use isotrace_report::{
    Both, Budget, Cause, Counterfactual, Culprit, CulpritSide, Entry, Input, Kind, Listing, Metrics, Nearest,
    Pair, Region, Relation, Report, Role, Side, Source, Status, Verdict, Warning,
};

fn side(source: &str, nodes: usize) -> Side {
    Side { source: source.into(), kind: Source::Onnx, nodes, values: nodes + 2, run: None }
}

fn pair(a: &str, b: &str, op: (&str, &str), status: Status, max_abs: f64) -> Pair {
    let name = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    let both = |v: &str| Both::new(name(a).map(|_| v.to_owned()), name(b).map(|_| v.to_owned()));
    Pair {
        a: name(a),
        b: name(b),
        status,
        op: Both::new(name(op.0), name(op.1)),
        dtype: both("f32"),
        shape: Both::new(name(a).map(|_| vec![2, 8]), name(b).map(|_| vec![2, 8])),
        metrics: Metrics {
            max_abs: Some(max_abs),
            mean_abs: Some(max_abs / 3.0),
            max_rel: Some(max_abs * 2.0),
            rel_l2: Some(max_abs / 2.0),
            cosine: Some(1.0),
            max_ulp: Some(3),
            argmax: Some(vec![1, 4]),
            nan: Both::new(0, 0),
            inf: Both::new(0, 0),
        },
        budget: Some(Budget {
            fresh_a: 3e-8,
            fresh_b: 2e-8,
            inherited: 0.0,
            semantic: max_abs,
            allowed: 1.2e-7,
            share: 0.5,
        }),
        ..Pair::default()
    }
}

fn entry(kind: Kind, summary: &str, op: &str, name: &str, pair: Option<usize>) -> Entry {
    let shape = if name == "s" { vec![] } else { vec![2, 8] };
    Entry {
        kind,
        dtype: "f32".into(),
        shape,
        summary: summary.into(),
        op: op.into(),
        name: name.into(),
        pair,
    }
}

pub fn sample() -> Report {
    let mut report = Report::new(
        Verdict::Divergent,
        "B's attention scores are divided by sqrt(768) where A's are divided by sqrt(64), the size of a head",
        side("models/bert_torchscript.onnx", 6),
        side("models/bert_dynamo.onnx", 5),
    );
    report.seed = Some(7);
    report.inputs = vec![Input {
        name: Both::new(Some("x".into()), Some("hidden_states".into())),
        dtype: "f32".into(),
        shape: vec![2, 8],
        made: "normal(0, 1)".into(),
    }];
    report.pairs = vec![
        pair("x", "hidden_states", ("", ""), Status::Identical, 0.0),
        pair("mm", "mm", ("MatMul", "MatMul"), Status::Identical, 0.0),
        pair(
            "/encoder/layer.0/attention/self/MatMul_output_0",
            "matmul_3",
            ("MatMul", "MatMul"),
            Status::Rounding,
            6e-8,
        ),
        pair("/encoder/layer.0/attention/self/Div_output_0", "mul_7", ("Div", "Mul"), Status::Culprit, 0.21),
        pair(
            "/encoder/layer.0/attention/self/Softmax_output_0",
            "softmax",
            ("Softmax", "Softmax"),
            Status::Inherited,
            0.05,
        ),
        pair("r", "r", ("Relu", "Relu"), Status::Inherited, 0.01),
        pair(
            "last_hidden_state",
            "last_hidden_state",
            ("LayerNormalization", "LayerNormalization"),
            Status::Inherited,
            0.12,
        ),
        pair("", "extra", ("", "Cast"), Status::Unmatched, 0.0),
    ];
    report.pairs[0].role = Some(Role::Input);
    report.pairs[6].role = Some(Role::Output);
    report.pairs[4].relation = Relation::Permuted;
    report.pairs[4].detail.insert("perm".into(), vec![0, 2, 1].into());
    report.pairs[7].metrics = Metrics::default();
    report.pairs[7].budget = None;
    report.pairs[5].metrics.max_abs = Some(f64::NAN);
    report.pairs[5].metrics.max_rel = Some(f64::INFINITY);
    report.pairs[5].metrics.cosine = Some(f64::NEG_INFINITY);
    report.culprits = vec![Culprit {
        rank: 1,
        side: CulpritSide::B,
        a: Region {
            nodes: vec!["/encoder/layer.0/attention/self/Div".into()],
            ops: vec!["Div".into()],
            outputs: vec!["/encoder/layer.0/attention/self/Div_output_0".into()],
        },
        b: Region {
            nodes: vec!["node_mul_7".into()],
            ops: vec!["Mul".into()],
            outputs: vec!["mul_7".into()],
        },
        cause: Cause {
            class: "scale".into(),
            summary: "B's values are 0.2887 times A's: 1/sqrt(768) where 1/sqrt(64) is meant.".into(),
            evidence: vec![
                "one ratio, 0.288675, fits all 16 elements to 3.1e-8".into(),
                "64 is the size of a head, 768 that of the model".into(),
            ],
            counterfactual: Some(Counterfactual {
                change: "the constant of node_mul_7 set to 0.125".into(),
                before: 0.21,
                after: 4e-8,
            }),
            nearest: vec![Nearest {
                class: "activation".into(),
                change: "no function fits".into(),
                left: 0.2,
            }],
        },
    }];
    report.warnings = vec![Warning {
        class: "latent".into(),
        summary: "The epsilons differ, 1e-5 and 1e-12; these inputs do not show it.".into(),
        place: vec!["/ln/LayerNormalization".into()],
    }];
    report.listing = Listing {
        a: vec![
            entry(Kind::Initializer, "AAAA", "", "s", None),
            entry(Kind::Input, "BFJN", "", "x", Some(0)),
            entry(Kind::Result, "UCPR", "MatMul", "mm", Some(1)),
            entry(Kind::Result, "KOUI", "Div", "/encoder/layer.0/attention/self/Div_output_0", Some(3)),
            entry(Kind::Result, "LTTD", "LayerNormalization", "last_hidden_state", Some(6)),
            entry(Kind::Output, "LTTD", "", "last_hidden_state", Some(6)),
        ],
        b: vec![
            entry(Kind::Input, "BFJN", "", "hidden_states", Some(0)),
            entry(Kind::Result, "UCPR", "MatMul", "mm", Some(1)),
            entry(Kind::Result, "UCPR", "Cast", "extra", None),
            entry(Kind::Result, "GYLJ", "Mul", "mul_7", Some(3)),
            entry(Kind::Result, "XMMH", "LayerNormalization", "last_hidden_state", Some(6)),
            entry(Kind::Output, "XMMH", "", "last_hidden_state", Some(6)),
        ],
    };
    report
}
