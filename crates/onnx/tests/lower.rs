//! Functions, bodies and captures: what the graph says is what the file means.

mod common;

use common::{body, call, floats, function, graph, int, model, named, node, opset, reference, with};
use isotrace_graph::{Attribute, Graph, ValueId};
use isotrace_onnx::proto::attribute_proto::AttributeType;
use isotrace_onnx::proto::{ModelProto, SparseTensorProto, TensorProto};
use isotrace_onnx::{Model, OnnxError};

fn lower(proto: ModelProto) -> Graph {
    Model::from_proto(proto).graph().unwrap()
}

fn refusal(proto: ModelProto) -> String {
    Model::from_proto(proto).graph().unwrap_err().to_string()
}

/// `name: op(inputs) -> outputs`, one node a line, `-` for what is left out.
fn show(g: &Graph) -> Vec<String> {
    let list = |ids: &[Option<ValueId>]| {
        ids.iter().map(|v| v.map_or("-", |v| &g.value(v).name)).collect::<Vec<_>>().join(" ")
    };
    g.nodes
        .iter()
        .map(|n| format!("{}: {}({}) -> {}", n.name, n.qualified_op(), list(&n.inputs), list(&n.outputs)))
        .collect()
}

#[test]
fn functions_are_inlined_under_the_call() {
    let inner = function("Inner", &["x"], vec![named("relu", node("Relu", &["x"], &["y"]))], &["y"]);
    let outer = function(
        "Outer",
        &["a", "b"],
        vec![call("Inner", &["a"], &["t"]), named("add", node("Add", &["t", "b"], &["s"]))],
        &["s"],
    );
    let g = lower(model(
        graph(
            &["p", "q"],
            vec![named("one", call("Outer", &["p", "q"], &["r"])), call("Outer", &["r", "q"], &["z"])],
            &["z"],
        ),
        vec![inner, outer],
    ));
    assert_eq!(
        show(&g),
        [
            "one/t/relu: Relu(p) -> one/t",
            "one/add: Add(one/t q) -> r",
            "z/t/relu: Relu(r) -> z/t",
            "z/add: Add(z/t q) -> z"
        ]
    );
}

#[test]
fn two_calls_of_one_name_stay_apart() {
    let f = function("F", &["x"], vec![node("Relu", &["x"], &["t"]), node("Neg", &["t"], &["y"])], &["y"]);
    let calls = vec![named("c", call("F", &["p"], &["q"])), named("c", call("F", &["q"], &["r"]))];
    let g = lower(model(graph(&["p"], calls, &["r"]), vec![f]));
    assert_eq!(show(&g), [": Relu(p) -> c/t", ": Neg(c/t) -> q", ": Relu(q) -> r/t", ": Neg(r/t) -> r"]);
}

#[test]
fn attributes_reach_through_calls_and_have_defaults() {
    let leaf = |name: &str, to: &str| reference(name, to, AttributeType::Int);
    let mut inner =
        function("Inner", &["x"], vec![with(node("Softmax", &["x"], &["y"]), leaf("axis", "k"))], &["y"]);
    inner.attribute_proto = vec![int("k", 7)];
    let mut outer = function(
        "Outer",
        &["x"],
        vec![
            with(call("Inner", &["x"], &["t"]), leaf("k", "j")),
            call("Inner", &["t"], &["u"]),
            with(node("Softmax", &["u"], &["y"]), leaf("axis", "absent")),
        ],
        &["y"],
    );
    outer.attribute = vec!["j".into(), "absent".into()];
    let g = lower(model(
        graph(&["p"], vec![with(call("Outer", &["p"], &["q"]), int("j", 3))], &["q"]),
        vec![inner, outer],
    ));
    let axes: Vec<_> = g.nodes.iter().map(|n| n.attributes.get("axis").cloned()).collect();
    assert!(matches!(axes[..], [Some(Attribute::Int(3)), Some(Attribute::Int(7)), None]), "{axes:?}");
}

#[test]
fn versions_come_from_the_nearest_import() {
    let mut f = function("F", &["x"], vec![node("Relu", &["x"], &["y"])], &["y"]);
    f.opset_import = vec![opset("ai.onnx", 13)];
    let plain = function("G", &["x"], vec![node("Relu", &["x"], &["y"])], &["y"]);
    let mut other = node("Odd", &["c"], &["d"]);
    other.domain = Some("vendor".into());
    let mut own = node("Relu", &["p"], &["a"]);
    own.domain = Some("ai.onnx".into());
    let nodes = vec![own, call("F", &["a"], &["b"]), call("G", &["b"], &["c"]), other];
    let g = lower(model(graph(&["p"], nodes, &["d"]), vec![f, plain]));
    let versions: Vec<_> = g.nodes.iter().map(|n| (n.domain.as_str(), n.version)).collect();
    assert_eq!(versions, [("", 18), ("", 13), ("", 18), ("vendor", 1)]);

    // Both versions survive the way back, the less common one inside a function.
    let back = Model::from_graph(&g).unwrap();
    let again = back.graph().unwrap();
    assert_eq!(again.nodes.iter().map(|n| n.version).collect::<Vec<_>>(), [18, 13, 18, 1]);
    assert_eq!(show(&again), show(&g));
}

#[test]
fn overloads_left_out_inputs_and_handed_on_results() {
    let mut first = function("F", &["x", "y"], vec![node("Clip", &["x", "y"], &["o"])], &["o"]);
    first.overload = Some("clip".into());
    let mut second = function("F", &["x"], vec![], &["x", "x"]);
    second.overload = Some("same".into());
    let overload = |mut n: isotrace_onnx::proto::NodeProto, o: &str| {
        n.overload = Some(o.into());
        n
    };
    let nodes = vec![
        overload(call("F", &["p"], &["a"]), "clip"),
        overload(named("s", call("F", &["a"], &["b", ""])), "same"),
    ];
    let g = lower(model(graph(&["p"], nodes, &["b"]), vec![first, second]));
    assert_eq!(show(&g), [": Clip(p -) -> a", "s: Identity(a) -> b"]);
}

#[test]
fn bodies_capture_through_every_level() {
    let innermost = graph(&[], vec![node("Add", &["w", "outer"], &["r"])], &["r"]);
    let middle =
        graph(&["i"], vec![with(node("If", &["i"], &["r2"]), body("then_branch", innermost))], &["r2"]);
    let mut main =
        graph(&["outer", "c"], vec![with(node("If", &["c"], &["z"]), body("then_branch", middle))], &["z"]);
    main.initializer = vec![floats("w", &[1], &[2.0])];
    let g = lower(model(main, vec![]));
    let middle = g.nodes[0].bodies().next().unwrap();
    let innermost = middle.nodes[0].bodies().next().unwrap();
    let names = |g: &Graph, outer: &Graph| -> Vec<(String, String)> {
        let pair = |&(o, i): &(ValueId, ValueId)| (outer.value(o).name.clone(), g.value(i).name.clone());
        g.captures.iter().map(pair).collect()
    };
    let both = [("w".to_owned(), "w".to_owned()), ("outer".into(), "outer".into())];
    assert_eq!(names(middle, &g), both);
    assert_eq!(names(innermost, middle), both);
    assert!(g.value(middle.captures[0].0).constant.is_some());
    assert_eq!(g.nodes[0].reads().count(), 3);
    let back = Model::from_graph(&g).unwrap().graph().unwrap();
    assert_eq!(show(back.nodes[0].bodies().next().unwrap()), show(middle));
}

#[test]
fn a_body_given_to_a_function_sees_the_callers_names() {
    let mut f = function(
        "F",
        &["c"],
        vec![with(node("If", &["c"], &["y"]), reference("then_branch", "b", AttributeType::Graph))],
        &["y"],
    );
    f.attribute = vec!["b".into()];
    // "c" inside the body is the caller's, not the function's input of that name.
    let given = graph(&[], vec![node("Relu", &["c"], &["r"])], &["r"]);
    let main = graph(&["c", "d"], vec![with(call("F", &["d"], &["z"]), body("b", given))], &["z"]);
    let g = lower(model(main, vec![f]));
    let inner = g.nodes[0].bodies().next().unwrap();
    assert_eq!(g.value(inner.captures[0].0).name, "c");
    assert_eq!(g.value(g.nodes[0].inputs[0].unwrap()).name, "d");
}

#[test]
fn initializers_are_constants_even_where_they_are_inputs_too() {
    let mut main = graph(&["x", "w"], vec![node("Add", &["x", "w"], &["y"])], &["y"]);
    main.initializer = vec![floats("w", &[2], &[1.0, 2.0])];
    main.sparse_initializer = vec![SparseTensorProto {
        values: Some(floats("s", &[1], &[5.0])),
        indices: Some(TensorProto {
            data_type: Some(7),
            dims: vec![1],
            int64_data: vec![1],
            ..TensorProto::default()
        }),
        dims: vec![2],
    }];
    main.node.push(node("Add", &["y", "s"], &["z"]));
    main.output = vec![common::value("z")];
    let g = lower(model(main, vec![]));
    assert_eq!(g.inputs.len(), 1);
    let constant = |name: &str| g.value(g.names()[name]).constant.clone().unwrap();
    assert_eq!(constant("w").as_slice::<f32>().unwrap(), [1.0, 2.0]);
    assert_eq!(constant("s").as_slice::<f32>().unwrap(), [0.0, 5.0]);
}

#[test]
fn files_out_of_order_are_sorted() {
    let nodes = vec![node("Neg", &["a"], &["b"]), node("Relu", &["x"], &["a"])];
    assert_eq!(
        show(&lower(model(graph(&["x"], nodes, &["b"]), vec![]))),
        [": Relu(x) -> a", ": Neg(a) -> b"]
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_names() {
    let f = |nodes| function("F", &["x"], nodes, &["y"]);
    let relu = || node("Relu", &["x"], &["y"]);
    let main = || graph(&["x"], vec![relu()], &["y"]);
    let calling = || graph(&["x"], vec![call("F", &["x"], &["y"])], &["y"]);
    let of = |nodes: Vec<_>| model(graph(&["x"], nodes, &["y"]), vec![]);
    let mut twice = main();
    twice.initializer = vec![floats("w", &[0], &[]), floats("w", &[0], &[])];
    let wrong_kind = |change: &dyn Fn(&mut isotrace_onnx::proto::AttributeProto)| {
        let mut attribute = int("axis", 1);
        change(&mut attribute);
        of(vec![with(relu(), attribute)])
    };
    let cases = [
        (model(calling(), vec![f(vec![call("F", &["x"], &["y"])])]), "calls itself"),
        (
            model(
                calling(),
                vec![
                    f(vec![call("G", &["x"], &["y"])]),
                    function("G", &["x"], vec![call("F", &["x"], &["y"])], &["y"]),
                ],
            ),
            "local.F calls itself",
        ),
        (model(calling(), vec![f(vec![])]), "needs value \"y\""),
        (model(calling(), vec![f(vec![relu()]), f(vec![relu()])]), "appears twice"),
        (
            model(graph(&["x"], vec![call("F", &["x", "x"], &["y"])], &["y"]), vec![f(vec![relu()])]),
            "2 inputs",
        ),
        (
            model(graph(&["x"], vec![call("F", &["x"], &["y", "z"])], &["y"]), vec![f(vec![relu()])]),
            "2 outputs",
        ),
        (model(calling(), vec![f(vec![node("Relu", &["x"], &["x"]), relu()])]), "written twice"),
        (of(vec![relu(), relu()]), "written twice"),
        (of(vec![node("Relu", &["x"], &["x"])]), "written twice"),
        (of(vec![node("Add", &["x", "b"], &["a"]), node("Neg", &["a"], &["b"]), relu()]), "cycle"),
        (of(vec![node("Relu", &["nowhere"], &["y"])]), "node \"y\" (Relu) needs value \"nowhere\""),
        (of(vec![]), "output of graph \"g\" needs value \"y\""),
        (model(graph(&["x", "x"], vec![relu()], &["y"]), vec![]), "graph input \"x\" appears twice"),
        (model(twice, vec![]), "initializer \"w\" appears twice"),
        (of(vec![with(with(relu(), int("axis", 1)), int("axis", 2))]), "given twice"),
        (of(vec![with(relu(), reference("axis", "k", AttributeType::Int))]), "in none"),
        (wrong_kind(&|a| a.r#type = Some(AttributeType::Float as i32)), "declared FLOAT but holds INT"),
        (wrong_kind(&|a| a.f = Some(1.0)), "declared INT but holds FLOAT"),
        (wrong_kind(&|a| a.r#type = Some(99)), "type 99 is unknown"),
        (
            wrong_kind(&|a| (a.i, a.r#type) = (None, Some(AttributeType::Tensor as i32))),
            "declared TENSOR but holds nothing",
        ),
        (wrong_kind(&|a| (a.i, a.r#type) = (None, None)), "no value"),
        (wrong_kind(&|a| a.name = None), "no name"),
    ];
    let mut wrong = vec![];
    for (proto, expected) in cases {
        let found = refusal(proto);
        if !found.contains(expected) {
            wrong.push(format!("{expected:?} expected, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn functions_cannot_multiply_without_end() {
    // Each calls the next twice: 2^30 nodes if nobody counts.
    let functions: Vec<_> = (0..30)
        .map(|i| {
            let next = format!("F{}", i + 1);
            let twice = vec![call(&next, &["x"], &["t"]), call(&next, &["t"], &["y"])];
            function(&format!("F{i}"), &["x"], twice, &["y"])
        })
        .chain([function("F30", &["x"], vec![node("Relu", &["x"], &["y"])], &["y"])])
        .collect();
    let main = graph(&["x"], vec![call("F0", &["x"], &["y"])], &["y"]);
    let error = Model::from_proto(model(main, functions)).graph().unwrap_err();
    assert!(matches!(error, OnnxError::TooManyNodes { .. }), "{error}");

    // A chain of thousands would overflow the stack if nobody counts.
    let chain = |n: usize| {
        (0..n)
            .map(|i| {
                function(&format!("F{i}"), &["x"], vec![call(&format!("F{}", i + 1), &["x"], &["y"])], &["y"])
            })
            .chain([function(&format!("F{n}"), &["x"], vec![node("Relu", &["x"], &["y"])], &["y"])])
            .collect::<Vec<_>>()
    };
    let main = || graph(&["x"], vec![call("F0", &["x"], &["y"])], &["y"]);
    let error = Model::from_proto(model(main(), chain(5000))).graph().unwrap_err();
    assert!(matches!(error, OnnxError::TooDeep { .. }), "{error}");
    assert_eq!(lower(model(main(), chain(90))).nodes.len(), 1);
}

#[test]
fn deep_bodies_are_refused_and_shallow_ones_are_not() {
    let nest = |depth: usize| {
        let mut inner = graph(&[], vec![node("Relu", &["x"], &["y0"])], &["y0"]);
        for i in 1..depth {
            let out = format!("y{i}");
            inner = graph(&[], vec![with(node("If", &["x"], &[&out]), body("then_branch", inner))], &[&out]);
        }
        let main = graph(&["x"], vec![with(node("If", &["x"], &["y"]), body("then_branch", inner))], &["y"]);
        model(main, vec![])
    };
    assert_eq!(lower(nest(20)).nodes.len(), 1);
    assert!(refusal(nest(150)).contains("nested more than"));
    let bytes = Model::from_proto(nest(150)).encode().unwrap();
    let error = Model::decode(bytes, None).unwrap_err();
    assert!(matches!(error, OnnxError::TooDeep { .. }), "{error}");
}
