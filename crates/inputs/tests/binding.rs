//! Two models, their inputs, and what is fed to them.

use std::collections::BTreeMap;

use isotrace_graph::{Dim, Graph, Node, TensorType, Value, ValueId};
use isotrace_inputs::{Bound, InputError, Request, Tensors, bind, bind_one};
use isotrace_tensor::{DType, Tensor};

#[derive(Default)]
struct Builder(Graph);

impl Builder {
    fn input(&mut self, name: &str, dtype: DType, dims: &[&str]) -> ValueId {
        let dim = |d: &&str| match d.parse() {
            Ok(n) => Dim::Fixed(n),
            Err(_) if *d == "?" => Dim::Unknown,
            Err(_) => Dim::Named((*d).to_owned()),
        };
        let shape = Some(dims.iter().map(dim).collect());
        let id = self.0.add_value(Value {
            name: name.into(),
            declared: Some(TensorType { dtype, shape }),
            ..Value::default()
        });
        self.0.inputs.push(id);
        id
    }

    fn table(&mut self, shape: &[usize], first: f32) -> ValueId {
        let n = shape.iter().product::<usize>();
        let data = (0..n).map(|i| first + i as f32).collect::<Vec<_>>();
        let constant = Some(Tensor::from_vec(shape, data).unwrap());
        self.0.add_value(Value { name: format!("table{first}"), constant, ..Value::default() })
    }

    fn node(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        let out = self.0.add_value(Value { name: format!("out{}", self.0.values.len()), ..Value::default() });
        self.0.nodes.push(Node {
            name: String::new(),
            domain: String::new(),
            op: op.into(),
            version: 18,
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: vec![Some(out)],
            attributes: BTreeMap::new(),
        });
        out
    }
}

/// Words and positions looked up in two tables, and a mask; `cast` puts glue before the tables.
fn bert(names: [&str; 3], order: [usize; 3], cast: bool) -> Graph {
    let mut g = Builder::default();
    let mut ids = [ValueId(0); 3];
    for k in order {
        ids[k] = g.input(names[k], DType::I64, &["batch", "sequence"]);
    }
    let words = g.table(&[50, 4], 0.0);
    let positions = g.table(&[16, 4], 500.0);
    let mut looked = Vec::new();
    for (id, table) in [(ids[0], words), (ids[1], positions)] {
        let id = if cast { g.node("Cast", &[id]) } else { id };
        looked.push(g.node("Gather", &[table, id]));
    }
    let sum = g.node("Add", &looked);
    let mask = g.node("Cast", &[ids[2]]);
    let out = g.node("Mul", &[sum, mask]);
    g.0.outputs.push(out);
    g.0
}

const NAMES: [&str; 3] = ["input_ids", "position_ids", "attention_mask"];

fn by_name(graph: &Graph, bound: &rustc_hash::FxHashMap<ValueId, Tensor>) -> BTreeMap<String, Vec<f64>> {
    bound.iter().map(|(&id, t)| (graph.value(id).name.clone(), t.to_f64().unwrap().to_vec())).collect()
}

fn said(bound: &Bound) -> Vec<String> {
    let name = |n: &Option<String>| n.clone().unwrap_or_else(|| "-".into());
    bound
        .fed
        .iter()
        .map(|f| format!("{} | {} {}{:?}: {}", name(&f.a), name(&f.b), f.dtype, f.shape, f.made))
        .collect()
}

#[test]
fn made_inputs_suit_the_graph_and_are_equal_on_both_sides() {
    let (a, b) = (bert(NAMES, [0, 1, 2], false), bert(NAMES, [2, 0, 1], true));
    let bound = bind(&a, &b, &Request { seed: 3, ..Request::default() }).unwrap();
    let (ta, tb) = (by_name(&a, &bound.a), by_name(&b, &bound.b));
    assert_eq!(ta, tb);
    assert!(ta["input_ids"].iter().all(|&i| (0.0..50.0).contains(&i)));
    assert!(ta["input_ids"].iter().any(|&i| i >= 16.0), "the whole table is used");
    assert_eq!(ta["position_ids"], [0., 1., 2., 3., 4., 5., 6., 7., 0., 1., 2., 3., 4., 5., 6., 7.]);
    assert!(ta["attention_mask"].iter().all(|&x| x == 1.0));
    let again = bind(&a, &b, &Request { seed: 4, ..Request::default() }).unwrap();
    assert_ne!(by_name(&a, &again.a)["input_ids"], ta["input_ids"]);
    assert_eq!(
        said(&bound)[0],
        "input_ids | input_ids i64[2, 8]: random 0 to 49 (rows of the table it indexes)"
    );
}

#[test]
fn inputs_of_other_names_are_paired_by_what_consumes_them_whatever_their_order() {
    let a = bert(NAMES, [0, 1, 2], false);
    for order in [[0, 1, 2], [1, 2, 0], [2, 1, 0]] {
        let b = bert(["arg0", "arg1", "arg2"], order, true);
        let bound = bind(&a, &b, &Request::default()).unwrap();
        let (ta, tb) = (by_name(&a, &bound.a), by_name(&b, &bound.b));
        for k in 0..3 {
            assert_eq!(ta[NAMES[k]], tb[["arg0", "arg1", "arg2"][k]], "{order:?} {k}");
        }
    }
}

#[test]
fn twins_are_never_bound_by_position() {
    let twins = |names: [&str; 2]| {
        let mut g = Builder::default();
        let ids = names.map(|n| g.input(n, DType::F32, &["2", "4"]));
        let one = g.node("Relu", &[ids[0]]);
        let two = g.node("Relu", &[ids[1]]);
        g.node("Concat", &[one, two]);
        g.0
    };
    let (a, b) = (twins(["x", "y"]), twins(["u", "v"]));
    let error = bind(&a, &b, &Request::default()).unwrap_err();
    assert_eq!(error, InputError::Ambiguous { a: "\"x\", \"y\"".into(), b: "\"u\", \"v\"".into() });
    // By both names there is nothing to guess.
    let one = Tensor::from_vec(&[2, 4], vec![1f32; 8]).unwrap();
    let given: Tensors = ["x", "y", "u", "v"].iter().map(|n| ((*n).to_owned(), one.clone())).collect();
    let bound = bind(&a, &b, &Request { given: Some(("f.npz", &given)), ..Request::default() }).unwrap();
    assert_eq!((bound.a.len(), bound.b.len()), (2, 2));
}

#[test]
fn names_of_the_same_parts_are_one_name_where_no_other_has_them() {
    let twins = |names: [&str; 2], width: &str| {
        let mut g = Builder::default();
        let ids = [g.input(names[0], DType::F32, &["2", "4"]), g.input(names[1], DType::F32, &["2", width])];
        let made = ids.map(|id| g.node("Relu", &[id]));
        g.node("Concat", &made);
        g.0
    };
    for (a, b, width, expected) in [
        (["a.0", "a.1"], ["a_1", "a_0"], "4", Some([("a.0", "a_0"), ("a.1", "a_1")])),
        (
            ["past/key", "past/value"],
            ["past.key", "past.value"],
            "4",
            Some([("past/key", "past.key"), ("past/value", "past.value")]),
        ),
        // A name of its own goes before one of the same parts.
        (["a.0", "a_0"], ["a_0", "a.0"], "4", Some([("a.0", "a.0"), ("a_0", "a_0")])),
        // Two inputs of the same parts.
        (["a.0", "a-0"], ["a_0", "a/0"], "4", None),
        (["a0", "a1"], ["a_0", "a_1"], "4", None),
        // Names alone say nothing where the shapes cannot be one.
        (["a.0", "a.1"], ["a_1", "a_0"], "7", Some([("a.0", "a_1"), ("a.1", "a_0")])),
    ] {
        let (a, b) = (twins(a, width), twins(b, width));
        let bound = bind(&a, &b, &Request::default());
        let found = bound.ok().map(|bound| {
            let mut names: Vec<(String, String)> = bound
                .pairs
                .iter()
                .map(|&(x, y)| (a.value(x).name.clone(), b.value(y).name.clone()))
                .collect();
            names.sort();
            names
        });
        let expected = expected.map(|pairs| pairs.map(|(x, y)| (x.to_owned(), y.to_owned())).to_vec());
        assert_eq!(found, expected);
    }
}

#[test]
fn half_and_single_precision_get_the_same_numbers() {
    let model = |dtype| {
        let mut g = Builder::default();
        let x = g.input("x", dtype, &["batch", "16"]);
        g.node("Relu", &[x]);
        g.0
    };
    let (a, b) = (model(DType::F32), model(DType::F16));
    let bound = bind(&a, &b, &Request::default()).unwrap();
    assert_eq!(by_name(&a, &bound.a), by_name(&b, &bound.b));
    assert_eq!(bound.a.values().next().unwrap().dtype(), DType::F32);
}

#[test]
fn given_sizes_reach_made_inputs_and_dims_are_obeyed() {
    let a = bert(NAMES, [0, 1, 2], false);
    let set = [("attention_mask".to_owned(), "0".to_owned())];
    let dims = [("sequence".to_owned(), 3)];
    let bound = bind_one(&a, &Request { set: &set, dims: &dims, ..Request::default() }).unwrap();
    let t = by_name(&a, &bound.a);
    assert_eq!(t["attention_mask"], [0.0; 6]);
    assert_eq!(t["position_ids"], [0., 1., 2., 0., 1., 2.]);
    assert_eq!(said(&bound)[2], "attention_mask | - i64[2, 3]: all 0 (--set)");
}

#[test]
fn what_does_not_fit_is_said() {
    type Case<'a> = (Tensors, &'a [(String, usize)], &'a str);
    let a = bert(NAMES, [0, 1, 2], false);
    let ids = |shape: &[usize]| Tensor::from_vec(shape, vec![1i64; shape.iter().product()]).unwrap();
    let all = |t: &Tensor| -> Tensors { NAMES.iter().map(|n| ((*n).to_owned(), t.clone())).collect() };
    let with = |name: &str, t: Option<Tensor>| {
        let mut tensors = all(&ids(&[1, 5]));
        match t {
            Some(t) => tensors.insert(name.to_owned(), t),
            None => tensors.remove(name),
        };
        tensors
    };
    let none: [(String, usize); 0] = [];
    let seven = [("sequence".to_owned(), 7)];
    let cases: [Case<'_>; 6] = [
        (
            with("inputs_ids", Some(ids(&[1, 5]))),
            &none,
            "the given tensor \"inputs_ids\" is no input (did you mean \"input_ids\"?); the inputs are \"input_ids\", \
             \"position_ids\", \"attention_mask\"",
        ),
        (
            with("position_ids", None),
            &none,
            "input \"position_ids\" is not in f.npz, which has \"attention_mask\", \"input_ids\"; add it to the file, or \
             fill it with --set position_ids=VALUE",
        ),
        (
            with("input_ids", Some(Tensor::from_vec(&[1, 5], vec![0.5f32; 5]).unwrap())),
            &none,
            "input \"input_ids\" is given as f32, but the model declares i64, which cannot hold all its values; convert it \
             before it is saved",
        ),
        (
            with("input_ids", Some(ids(&[5]))),
            &none,
            "input \"input_ids\" is given with shape [5], but the model declares [batch, sequence]",
        ),
        (
            with("attention_mask", Some(ids(&[1, 6]))),
            &none,
            "dimension \"sequence\" cannot be both 5 (given input \"input_ids\") and 6 (given input \"attention_mask\"); all \
             inputs have to agree on it",
        ),
        (
            all(&ids(&[1, 5])),
            &seven,
            "dimension \"sequence\" cannot be both 7 (--dim) and 5 (given input \"input_ids\"); all inputs have to agree on it",
        ),
    ];
    for (given, dims, expected) in cases {
        let request = Request { given: Some(("f.npz", &given)), dims, ..Request::default() };
        assert_eq!(bind_one(&a, &request).unwrap_err().to_string(), expected);
    }
    let fine = all(&ids(&[1, 5]).cast(DType::I32).unwrap());
    let bound = bind_one(&a, &Request { given: Some(("f.npz", &fine)), ..Request::default() }).unwrap();
    assert_eq!(said(&bound)[0], "input_ids | - i64[1, 5]: from f.npz, converted from i32");
}
