//! What the tests of this crate share: tensors that a number describes, this test program started again as a writer, and
//! files of other packages beside what those read from them.

#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use isotrace_tensor::{C64, C128, DType, Tensor};
use isotrace_trace::trace::record::{
    Attribute, Call, Event, Flags, Graph, Header, Keeps, Node, Note, Producer, Role, Step, Value, Within,
};
use isotrace_trace::trace::{Options, Writer};
use isotrace_trace::{Source, TraceError};

/// A generator of numbers that look random and repeat (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The tensor that a writer of these tests records as its `i`th.
pub fn tensor(i: u64) -> Tensor {
    let mut random = Random(i);
    let count = random.below(3000) as usize;
    Tensor::vector((0..count).map(|_| random.next() as f32).collect())
}

pub fn header() -> Header {
    Header { producer: Producer { name: "test".into(), version: "1".into() }, ..Header::default() }
}

/// Shards of some kilobytes.
pub const SMALL: Options = Options { shard_bytes: 50_000 };

/// Records the `i`th tensor.
pub fn record(writer: &mut Writer, i: u64) -> Result<u64, TraceError> {
    writer.value(Value::new(format!("v{i}"), Role::Intermediate), &tensor(i))
}

/// This program, to run only its test `name`, with a folder to write to.
pub fn child(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("ISOTRACE_TEST_FOLDER", folder);
    command
}

/// The folder that the parent gave; `None` where nobody did.
pub fn given() -> Option<PathBuf> {
    std::env::var_os("ISOTRACE_TEST_FOLDER").map(Into::into)
}

/// A trace in which every kind of record and every field occurs.
pub fn everything(folder: &Path, keeps: Keeps) -> Vec<Tensor> {
    let header = Header {
        producer: Producer { name: "recorder".into(), version: "2.1".into() },
        created: Some("2026-11-21T05:07:00Z".into()),
        source: Some("train.py".into()),
        versions: BTreeMap::from([("torch".into(), "2.15.0".into())]),
        device: Some("cuda:0".into()),
        flags: Flags {
            tf32_matmul: Some(true),
            tf32_convolution: Some(false),
            autocast: Some("bf16".into()),
            training: Some(true),
            gradients: Some(true),
            deterministic: Some(false),
            threads: Some(4),
            more: BTreeMap::from([("flash".into(), serde_json::json!({"sdpa": 2}))]),
        },
        keeps,
        ..Header::default()
    };
    let mut writer = Writer::create(folder, &header, Options::default()).unwrap();
    let tensors: Vec<Tensor> = DType::ALL
        .iter()
        .map(|&dtype| match dtype {
            DType::String => Tensor::from_strings(&[2, 1], vec!["ä\"\n".into(), String::new()]).unwrap(),
            DType::C64 => Tensor::from_vec(&[1], vec![C64([1.0, f32::NAN])]).unwrap(),
            DType::C128 => Tensor::from_vec(&[1, 1], vec![C128([1.0, -2.0])]).unwrap(),
            _ => Tensor::from_vec(&[3, 1], vec![1f32, 0.0, 2.0]).unwrap().cast(dtype).unwrap(),
        })
        .collect();
    writer.step(Step { index: 3, event: Event::Begin, name: Some("warm".into()) }).unwrap();
    let outer = writer.reserve_call();
    let call = writer.reserve_call();
    let ids: Vec<u64> = tensors
        .iter()
        .map(|tensor| {
            let value = Value {
                step: Some(3),
                call: Some(call),
                module: Some("encoder.0".into()),
                device: Some("cpu".into()),
                ..Value::new(format!("/v.{}", tensor.dtype()), Role::Input)
            };
            writer.value(value, tensor).unwrap()
        })
        .collect();
    let out = writer.reserve();
    let attributes = [
        ("int", Attribute::Int(-1)),
        ("float", Attribute::Float(f64::NEG_INFINITY.into())),
        ("bool", Attribute::Bool(true)),
        ("string", Attribute::String("sum".into())),
        ("ints", Attribute::Ints(vec![1, 2])),
        ("floats", Attribute::Floats(vec![0.1.into(), f64::NAN.into()])),
        ("bools", Attribute::Bools(vec![false])),
        ("strings", Attribute::Strings(vec![String::new()])),
        ("tensor", Attribute::Tensor(ids[0])),
        ("tensors", Attribute::Tensors(vec![ids[1]])),
        ("body", Attribute::Body("then".into())),
        ("dtype", Attribute::Dtype("f32".into())),
        ("other", Attribute::Other(serde_json::json!(["slice", null]))),
    ];
    let node = Node {
        name: "encoder.0/mm".into(),
        op: "mm.default".into(),
        domain: "aten".into(),
        version: Some(1),
        attributes: attributes.into_iter().map(|(name, a)| (name.to_owned(), a)).collect(),
        inputs: vec![Some(ids[0]), None],
        outputs: vec![Some(out)],
        scope: vec!["encoder".into(), "encoder.0".into()],
        call: Some(call),
        step: Some(3),
        location: Some("model.py:12".into()),
        ..Node::default()
    };
    let node = writer.node(node).unwrap();
    let within = Some(Within { node, attribute: "body".into() });
    writer.node(Node { op: "Add".into(), within: within.clone(), ..Node::default() }).unwrap();
    let value = Value {
        id: out,
        node: Some(node),
        output: Some(0),
        of: Some(ids[0]),
        ..Value::new("out", Role::Gradient)
    };
    writer.value(value, &tensor(1)).unwrap();
    let value = Value {
        dtype: "f16".into(),
        shape: vec![1 << 40],
        omitted: Some("larger than --max-bytes".into()),
        ..Value::new("huge", Role::Optimizer)
    };
    writer.described(value).unwrap();
    writer
        .call(Call {
            id: call,
            module: "encoder.0".into(),
            class: "torch.nn.Linear".into(),
            index: 0,
            step: Some(3),
            parent: Some(outer),
            inputs: vec![ids[0]],
            outputs: vec![out],
        })
        .unwrap();
    writer.call(Call { id: outer, module: "encoder".into(), outputs: vec![out], ..Call::default() }).unwrap();
    let graph = Graph { name: "main".into(), inputs: ids.clone(), outputs: vec![out], within };
    writer.graph(graph).unwrap();
    let note = Note { class: "omitted".into(), text: "huge is huge".into(), places: vec!["huge".into()] };
    writer.note(note).unwrap();
    writer.step(Step { index: 3, event: Event::End, name: None }).unwrap();
    writer.finish().unwrap();
    tensors
}

/// Files that the real packages wrote.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Where a source and what its own package read from it differ.
pub fn differences(source: &Source, expected: &[(String, Tensor)]) -> Vec<String> {
    let mut wrong = vec![];
    for (name, tensor) in expected {
        match source.get(name) {
            Ok(read) if read.bit_eq(tensor) => {
                let info = source.info(name).unwrap();
                assert_eq!((info.dtype, info.shape.as_slice()), (read.dtype(), read.shape()), "{name}");
            }
            Ok(read) => wrong.push(format!("{name}: {read:?}, expected {tensor:?}")),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    if source.len() != expected.len() {
        wrong.push(format!("{:?} and no others expected", source.names().collect::<Vec<_>>()));
    }
    wrong
}
