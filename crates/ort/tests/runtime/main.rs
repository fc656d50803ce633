//! Against the real ONNX Runtime.
//!
//! Without a library to be found these tests are listed as ignored. `ORT_DYLIB_PATH`, which `tests/all` sets, says that
//! there is one, and then nothing is.

mod net;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use isotrace_graph::{Attribute, Graph};
use isotrace_onnx::Model;
use isotrace_onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use isotrace_ops::nchwc::DOMAIN;
use isotrace_ort::{Effect, Level, Prepared, Recording, Runtime};
use isotrace_run::{Options, Plan};
use isotrace_tensor::{Bool, DType, Tensor};
use libtest_mimic::{Arguments, Trial};
use net::{Net, floats, numbers};
use rustc_hash::FxHashMap;

const LEVELS: [Level; 4] = [Level::Disable, Level::Basic, Level::Extended, Level::All];

type Inputs = FxHashMap<String, Tensor>;
/// A test's name, and the test.
type Test = (&'static str, fn());

fn main() {
    let here = std::env::var_os("ORT_DYLIB_PATH").is_some() || Runtime::load().is_ok();
    let large = std::env::var_os("ISOTRACE_LARGE").is_some();
    let tests: [Test; 8] = [
        ("recorded_runs_are_to_the_bit_those_untouched", untouched),
        ("values_of_every_type_come_back", types),
        ("blocked_values_come_back_in_plain_order", blocked),
        ("what_fills_blocks_up_is_left_out", filled_up),
        ("what_cannot_be_given_out_is_counted", left_out),
        ("an_effect_of_looking_is_told", effects),
        ("errors_name_the_model_and_what_is_wrong", errors),
        ("names_of_values_are_those_of_the_file", names),
    ];
    let trial = |(name, test): Test| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let mut trials: Vec<Trial> = tests.map(trial).into_iter().map(|t| t.with_ignored_flag(!here)).collect();
    trials.push(trial(("a_model_over_2_gib_runs", over_2_gib)).with_ignored_flag(!(here && large)));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn runtime() -> &'static Runtime {
    Runtime::load().unwrap_or_else(|e| panic!("{e}"))
}

fn inputs<const N: usize>(named: [(&str, Tensor); N]) -> Inputs {
    named.into_iter().map(|(n, t)| (n.to_owned(), t)).collect()
}

fn recorded<'a>(prepared: &Prepared, recording: &'a Recording, name: &str) -> Option<&'a Tensor> {
    recording.values.get(prepared.graph().names().get(name)?)
}

/// Two convolutions with what the layout optimiser keeps between them.
fn convolutions(folder: &Path) -> PathBuf {
    let mut net = Net::default();
    let x = net.input("x", DType::F32, &[1, 3, 12, 12]);
    let pads = [("pads", Attribute::Ints(vec![1; 4]))];
    let w = net.constant("w1", floats(&[32, 3, 3, 3], 1));
    let first = net.node_with("Conv", &[x, w], "first", &pads);
    let w = net.constant("w2", floats(&[32, 32, 3, 3], 2));
    let second = net.node_with("Conv", &[first, w], "second", &pads);
    let sum = net.node("Add", &[first, second], "sum");
    let pooled = net.node("GlobalAveragePool", &[sum], "pooled");
    let y = net.node("Flatten", &[pooled], "y");
    net.write(folder, "convolutions.onnx", y, DType::F32)
}

fn half(folder: &Path) -> PathBuf {
    let mut net = Net::default();
    let x = net.input("x", DType::F16, &[4, 8]);
    let w = net.constant("w", numbers(&[8, 8], 3, f16::from_f32));
    let product = net.node("MatMul", &[x, w], "product");
    let positive = net.node("Relu", &[product], "positive");
    let y = net.node_with("Softmax", &[positive], "y", &[("axis", Attribute::Int(-1))]);
    net.write(folder, "half.onnx", y, DType::F16)
}

/// z = x or -x, by the sign of the sum of x.
fn branches(folder: &Path) -> PathBuf {
    let body = |op: &str| {
        let mut graph = Graph { name: op.into(), ..Graph::default() };
        let mut value =
            |name: &str| graph.add_value(isotrace_graph::Value { name: name.into(), ..Default::default() });
        let (outer, inner, out) = (value("x"), value(&format!("{op}_in")), value(&format!("{op}_out")));
        let node = |op: &str, from, to| isotrace_graph::Node {
            name: format!("n_{op}"),
            domain: String::new(),
            op: op.into(),
            version: 19,
            inputs: vec![Some(from)],
            outputs: vec![Some(to)],
            attributes: isotrace_graph::Attributes::default(),
        };
        graph.nodes = vec![node("Identity", outer, inner), node(op, inner, out)];
        graph.outputs = vec![out];
        (graph, outer)
    };
    let mut net = Net::default();
    let x = net.input("x", DType::F32, &[2, 4]);
    let sum = net.node_with("ReduceSum", &[x], "sum", &[("keepdims", Attribute::Int(0))]);
    let zero = net.constant("zero", Tensor::scalar(0f32));
    let condition = net.node("Greater", &[sum, zero], "condition");
    let attributes = [("then_branch", "Abs"), ("else_branch", "Neg")].map(|(name, op)| {
        let (mut graph, inner) = body(op);
        graph.captures = vec![(x, inner)];
        (name, Attribute::Graph(Box::new(graph)))
    });
    let z = net.node_with("If", &[condition], "z", &attributes);
    let y = net.node("Tanh", &[z], "y");
    net.write(folder, "branches.onnx", y, DType::F32)
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

fn tokens() -> Inputs {
    let ids = Tensor::from_vec(&[2, 10], (0..20i64).map(|i| i * 7 % 40).collect()).unwrap();
    let mask = Tensor::from_vec(&[2, 10], (0..20i64).map(|i| i64::from(i < 17)).collect()).unwrap();
    inputs([("input_ids", ids), ("attention_mask", mask)])
}

fn untouched() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (example("bert_a.onnx"), tokens()),
        (example("bert_b.onnx"), tokens()),
        (convolutions(folder.path()), inputs([("x", floats(&[1, 3, 12, 12], 5))])),
        (half(folder.path()), inputs([("x", numbers(&[4, 8], 6, f16::from_f32))])),
        (branches(folder.path()), inputs([("x", floats(&[2, 4], 7))])),
    ];
    for (path, fed) in cases {
        let mut nodes = Vec::new();
        for level in LEVELS {
            let place = format!("{} at {}", path.display(), level.name());
            let prepared = Prepared::new(runtime(), &path, level).unwrap();
            let recording = prepared.record(&fed).unwrap();
            assert_eq!(recording.effect, None, "{place}");
            let again = prepared.run(&fed).unwrap();
            assert!(!again.is_empty(), "{place}");
            for (name, tensor) in &again {
                let seen = recorded(&prepared, &recording, name).expect("final outputs are recorded");
                assert!(tensor.bit_eq(seen), "{name} of {place}");
            }
            assert!(
                recording.outputs.iter().zip(&again).all(|(a, b)| a.0 == b.0 && a.1.bit_eq(&b.1)),
                "{place}"
            );
            let written: usize = prepared.graph().nodes.iter().map(|n| n.writes().count()).sum();
            assert!(recording.values.len() == written && written > 0, "{place}: every value of every node");
            nodes.push(prepared.graph().nodes.len());
        }
        assert!(nodes.is_sorted_by(|a, b| a >= b), "a higher level leaves no more nodes: {nodes:?}");
    }
}

fn types() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = [
        numbers(&[2, 3], 1, |x| f64::from(x) * 1e-300),
        floats(&[2, 3], 2),
        numbers(&[2, 3], 3, f16::from_f32),
        numbers(&[2, 3], 4, bf16::from_f32),
        numbers(&[2, 3], 5, |x| (x * 9e18) as i64),
        numbers(&[2, 3], 5, |x| (x * 2e9) as i32),
        numbers(&[2, 3], 5, |x| (x * 3e4) as i16),
        numbers(&[2, 3], 5, |x| (x * 127.0) as i8),
        numbers(&[2, 3], 5, |x| (x.abs() * 1.8e19) as u64),
        numbers(&[2, 3], 5, |x| (x.abs() * 4e9) as u32),
        numbers(&[2, 3], 5, |x| (x.abs() * 6e4) as u16),
        numbers(&[2, 3], 5, |x| (x.abs() * 255.0) as u8),
        numbers(&[2, 3], 5, |x| Bool(u8::from(x > 0.0))),
        Tensor::from_strings(&[3], ["", "straße", "a b"].map(str::to_owned).to_vec()).unwrap(),
        Tensor::from_strings(&[], vec!["alone".to_owned()]).unwrap(),
        Tensor::scalar(f32::NAN),
        floats(&[0, 3], 6),
        Tensor::from_vec(&[2, 0], Vec::<i64>::new()).unwrap(),
        Tensor::vector(vec![f32::INFINITY, -0.0, f32::from_bits(1), f32::MAX]),
    ];
    for tensor in tensors {
        let what = format!("{}{:?}", tensor.dtype(), tensor.shape());
        let mut net = Net::default();
        let x = net.input("x", tensor.dtype(), tensor.shape());
        let inner = net.node("Identity", &[x], "inner");
        let y = net.node("Identity", &[inner], "y");
        let path = net.write(folder.path(), "identity.onnx", y, tensor.dtype());
        let prepared = Prepared::new(runtime(), &path, Level::Disable).unwrap();
        let recording = prepared.record(&inputs([("x", tensor.clone())])).unwrap();
        for name in ["inner", "y"] {
            let value = recorded(&prepared, &recording, name).unwrap_or_else(|| panic!("{name} of {what}"));
            assert_eq!((value.dtype(), value.shape()), (tensor.dtype(), tensor.shape()), "{name}");
            assert!(value.bit_eq(&tensor), "{name} of {what}");
        }
    }
}

fn blocked() {
    let folder = tempfile::tempdir().unwrap();
    let path = convolutions(folder.path());
    let found = agree(&path, floats(&[1, 3, 12, 12], 5));
    let count = found.iter().filter(|(op, _)| *op == "Conv").count();
    assert!(count == 2 || !cfg!(target_arch = "x86_64"), "the layout optimiser works on this machine");
}

/// Channels that are no multiple of a block: 12 to 20 are filled up to 16 or 32 where blocks are wide, to 16 or 24 where
/// they are narrow; through a pool, channel by channel, behind a sigmoid (which makes 0.5 of zeros), and in a sum.
fn filled_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut net = Net::default();
    let x = net.input("x", DType::F32, &[1, 3, 12, 12]);
    let mut seed = 10;
    let mut conv = |net: &mut Net, x, name: &str, shape: &[usize], group: i64| {
        seed += 2;
        let w = net.constant(&format!("{name}_w"), floats(shape, seed));
        let b = net.constant(&format!("{name}_b"), floats(&shape[..1], seed + 1));
        let around = shape[2] as i64 / 2;
        let settings = [("pads", Attribute::Ints(vec![around; 4])), ("group", Attribute::Int(group))];
        net.node_with("Conv", &[x, w, b], name, &settings)
    };
    let first = conv(&mut net, x, "first", &[12, 3, 3, 3], 1);
    let first = net.node("Relu", &[first], "positive");
    let deep = conv(&mut net, first, "deep", &[12, 1, 3, 3], 12);
    let gate = net.node("GlobalAveragePool", &[deep], "mean");
    let gate = conv(&mut net, gate, "gate", &[12, 12, 1, 1], 1);
    let gate = net.node("Sigmoid", &[gate], "open");
    let gated = net.node("Mul", &[deep, gate], "gated");
    let wide = conv(&mut net, gated, "wide", &[20, 12, 1, 1], 1);
    let short = conv(&mut net, first, "short", &[20, 12, 1, 1], 1);
    let sum = net.node("Add", &[wide, short], "sum");
    let sum = net.node("Relu", &[sum], "both");
    let window = [("kernel_shape", Attribute::Ints(vec![2, 2])), ("strides", Attribute::Ints(vec![2, 2]))];
    let pooled = net.node_with("MaxPool", &[sum], "pooled", &window);
    let last = conv(&mut net, pooled, "last", &[20, 20, 3, 3], 1);
    let path = net.write(folder.path(), "filled_up.onnx", last, DType::F32);
    let found = agree(&path, floats(&[1, 3, 12, 12], 5));
    let count = found.iter().filter(|(op, _)| *op == "Conv").count();
    assert!(count >= 5 || !cfg!(target_arch = "x86_64"), "the layout optimiser works on this machine");
    for (op, shape) in found {
        assert!([3, 12, 20].contains(&shape[1]), "{op} {shape:?}");
    }
}

/// Optimises a model, runs it there and here, and holds every value against the other; what its blocked nodes write.
///
/// Our own evaluator holds everything in plain order; in another order hardly an element would agree.
fn agree(path: &Path, x: Tensor) -> Vec<(String, Vec<usize>)> {
    let fed = inputs([("x", x)]);
    let prepared = Prepared::new(runtime(), path, Level::All).unwrap();
    let graph = prepared.graph();
    let recording = prepared.record(&fed).unwrap();
    let ours = Plan::new(graph).unwrap();
    let ours =
        ours.run(&FxHashMap::from_iter([(graph.inputs[0], fed["x"].clone())]), &Options::default()).unwrap();
    let mut blocked = Vec::new();
    for node in &graph.nodes {
        let v = node.outputs[0].unwrap();
        let (x, y) = (ours.get(v).unwrap(), &recording.values[&v]);
        assert_eq!(x.shape(), y.shape(), "{}", node.qualified_op());
        for (x, y) in x.to_f64().unwrap().iter().zip(y.to_f64().unwrap().iter()) {
            assert!((x - y).abs() <= 1e-4 * (1.0 + x.abs()), "{}: {x} and {y}", node.qualified_op());
        }
        if node.domain == DOMAIN {
            blocked.push((node.op.clone(), x.shape().to_vec()));
        }
    }
    blocked
}

fn left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut net = Net::default();
    let x = net.input("x", DType::F32, &[2, 4]);
    let positive = net.node("Relu", &[x], "positive");
    let sequence = net.node("SequenceConstruct", &[positive, x], "sequence");
    // Read at a place that only the run tells: otherwise it is known for the tensors it holds.
    let [all, rest] = [(x, "all"), (positive, "rest")].map(|(v, name)| net.node("Size", &[v], name));
    let place = net.node("Sub", &[all, rest], "place");
    let element = net.node("SequenceAt", &[sequence, place], "element");
    let y = net.node("Tanh", &[element], "y");
    let sequences = net.write(folder.path(), "sequences.onnx", y, DType::F32);
    // (model, recorded, left out)
    for (path, kept, left) in [(sequences, 6, 1), (branches(folder.path()), 4, 4)] {
        let prepared = Prepared::new(runtime(), &path, Level::Disable).unwrap();
        let recording = prepared.record(&inputs([("x", floats(&[2, 4], 7))])).unwrap();
        assert_eq!((recording.values.len(), recording.left_out), (kept, left), "{}", path.display());
    }
}

fn effects() {
    let folder = tempfile::tempdir().unwrap();
    // Without a seed the runtime takes one from a node's place, which moves when the node before it is removed and
    // the optimised model is loaded from its file.
    let mut net = Net::default();
    let x = net.input("x", DType::F32, &[4, 8]);
    let copy = net.node("Identity", &[x], "copy");
    let noise = net.node("RandomNormalLike", &[copy], "noise");
    let sum = net.node("Add", &[x, noise], "sum");
    let y = net.node("Relu", &[sum], "y");
    let noise = net.write(folder.path(), "noise.onnx", y, DType::F32);
    let mut net = Net::default();
    let x = net.input("x", DType::F32, &[4, 8]);
    let ratio = net.constant("ratio", Tensor::scalar(0.5f32));
    let training = net.constant("training", Tensor::scalar(Bool(1)));
    let dropped = net.node("Dropout", &[x, ratio, training], "dropped");
    let y = net.node("Tanh", &[dropped], "y");
    let dropout = net.write(folder.path(), "dropout.onnx", y, DType::F32);
    let cases = [
        (&noise, Level::Disable, None),
        (&noise, Level::Basic, Some(Effect::Loading)),
        (&dropout, Level::Disable, Some(Effect::Unsteady)),
    ];
    for (path, level, expected) in cases {
        let prepared = Prepared::new(runtime(), path, level).unwrap();
        let recording = prepared.record(&inputs([("x", floats(&[4, 8], 8))])).unwrap();
        assert_eq!(recording.effect, expected, "{} at {}", path.display(), level.name());
    }
}

fn errors() {
    let folder = tempfile::tempdir().unwrap();
    let mut net = Net::default();
    let x = net.input("x", DType::F32, &[4, 8]);
    let y = net.node("Sharpen", &[x], "y");
    let unknown = net.write(folder.path(), "unknown.onnx", y, DType::F32);
    let message = Prepared::new(runtime(), &unknown, Level::All).err().unwrap().to_string();
    assert!(message.contains("unknown.onnx") && message.contains("Sharpen"), "{message}");
    let prepared = Prepared::new(runtime(), &convolutions(folder.path()), Level::All).unwrap();
    // (fed, what the message says)
    let cases = [
        (Inputs::default(), "input \"x\" was not given"),
        (inputs([("x", floats(&[1, 4, 12, 12], 1))]), "convolutions.onnx: ONNX Runtime cannot run the model"),
        (inputs([("x", Tensor::full(&[1, 3, 12, 12], 1f64).unwrap())]), "convolutions.onnx"),
    ];
    for (fed, says) in cases {
        let message = prepared.record(&fed).err().unwrap().to_string();
        assert!(message.contains(says), "{says}: {message}");
    }
}

fn names() {
    let prepared = Prepared::new(runtime(), &example("bert_a.onnx"), Level::Disable).unwrap();
    let known = prepared.graph().names();
    for name in ["/bert/encoder/layer.0/attention/self/Mul_output_0", "last_hidden_state", "pooler_output"] {
        assert!(known.contains_key(name), "{name}");
    }
    let version = runtime().version();
    assert!(version.split('.').count() >= 3, "{version}");
}

/// A table of 2.5 GiB, all holes but for its first rows, looked up and multiplied.
fn over_2_gib() {
    const ROWS: usize = 640 * 1024;
    const WIDTH: usize = 1024;
    let folder = tempfile::tempdir().unwrap();
    let row_bytes = WIDTH * size_of::<f32>();
    let mut data = File::create(folder.path().join("table.data")).unwrap();
    data.set_len((ROWS * row_bytes) as u64).unwrap();
    let last = floats(&[WIDTH], 9);
    data.seek(SeekFrom::Start(((ROWS - 1) * row_bytes) as u64)).unwrap();
    data.write_all(last.bytes()).unwrap();
    let text = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    let table = TensorProto {
        name: Some("table".into()),
        data_type: Some(1),
        dims: vec![ROWS as i64, WIDTH as i64],
        data_location: Some(1),
        external_data: vec![text("location", "table.data")],
        ..TensorProto::default()
    };
    let kind = |elem_type, shape| TypeProto {
        value: Some(type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(elem_type), shape })),
        ..TypeProto::default()
    };
    let two = tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(2)),
        ..Default::default()
    };
    let shape = TensorShapeProto { dim: vec![two] };
    let value = |name: &str, kind| ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(kind),
        ..ValueInfoProto::default()
    };
    let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
        op_type: Some(op.to_owned()),
        input: inputs.iter().map(|&i| i.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        name: Some("large".into()),
        node: vec![node("Gather", &["table", "rows"], "found"), node("Tanh", &["found"], "y")],
        initializer: vec![table],
        input: vec![value("rows", kind(7, Some(shape)))],
        output: vec![value("y", kind(1, None))],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(9),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    let path = folder.path().join("large.onnx");
    std::fs::write(&path, Model::from_proto(model).encode().unwrap()).unwrap();
    let prepared = Prepared::new(runtime(), &path, Level::All).unwrap();
    let recording =
        prepared.record(&inputs([("rows", Tensor::vector(vec![0i64, ROWS as i64 - 1]))])).unwrap();
    assert_eq!(recording.effect, None);
    let found = recorded(&prepared, &recording, "found").unwrap().as_slice::<f32>().unwrap();
    assert!(found[..WIDTH].iter().all(|&x| x == 0.0));
    assert_eq!(&found[WIDTH..], last.as_slice::<f32>().unwrap());
}
