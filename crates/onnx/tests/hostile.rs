//! Damaged and malicious files: an error or a graph, never a panic, never memory out of proportion.

mod common;

use std::fs;

use bytes::Bytes;
use common::{body, call, floats, function, graph, int, model, named, node, with};
use isotrace_onnx::proto::{SparseTensorProto, TensorProto};
use isotrace_onnx::{Model, OnnxError, decode_tensor_pb, tensor_to_proto};
use isotrace_tensor::Tensor;
use prost::Message;

/// A small model with everything in it.
fn rich() -> Vec<u8> {
    let branch = graph(&[], vec![node("Add", &["w", "x"], &["r"])], &["r"]);
    let mut main = graph(
        &["x", "c"],
        vec![
            with(named("call", call("F", &["x"], &["a"])), int("k", 1)),
            with(node("If", &["c"], &["b"]), body("then_branch", branch)),
            node("Add", &["a", "b"], &["y"]),
        ],
        &["y"],
    );
    let indices = Tensor::vector(vec![1i64]);
    main.initializer =
        vec![tensor_to_proto("w", &Tensor::vector(vec![1f32, 2.0])), floats("v", &[2], &[3.0, 4.0])];
    main.sparse_initializer = vec![SparseTensorProto {
        values: Some(floats("s", &[1], &[5.0])),
        indices: Some(tensor_to_proto("", &indices)),
        dims: vec![2],
    }];
    let f = function("F", &["x"], vec![node("Relu", &["x"], &["t"]), node("Neg", &["t"], &["y"])], &["y"]);
    model(main, vec![f]).encode_to_vec()
}

fn digest(bytes: Vec<u8>) {
    if let Ok(model) = Model::decode(Bytes::from(bytes), None)
        && let Ok(graph) = model.graph()
        && let Ok(back) = Model::from_graph(&graph)
    {
        let _ = back.encode();
    }
}

#[test]
fn truncated_anywhere() {
    let whole = rich();
    Model::decode(Bytes::from(whole.clone()), None).unwrap().graph().unwrap();
    for end in 0..whole.len() {
        digest(whole[..end].to_vec());
    }
}

#[test]
fn every_single_bit_flipped() {
    let whole = rich();
    for bit in 0..8 * whole.len() {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        digest(bytes);
    }
}

#[test]
fn bytes_changed_at_random() {
    let whole = rich();
    let tensor = tensor_to_proto("t", &Tensor::vector(vec![1f32; 9])).encode_to_vec();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        // xorshift64*, Vigna 2016: the same bytes on every machine.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) as usize >> 8
    };
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=random() % 8 {
            let at = random() % bytes.len();
            match random() % 3 {
                0 => bytes[at] = random() as u8,
                1 => drop(bytes.drain(at..(at + random() % 16).min(bytes.len()))),
                _ => bytes.insert(at, random() as u8),
            }
        }
        digest(bytes);
        let mut bytes = tensor.clone();
        let at = random() % bytes.len();
        bytes[at] = random() as u8;
        let _ = decode_tensor_pb(&Bytes::from(bytes));
    }
}

#[test]
fn a_length_that_lies_asks_for_no_memory() {
    // graph { initializer { raw_data of 2^62 bytes } }, and a packed list that claims as much.
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
    for tag in [0x4au8, 0x22, 0x2a, 0x3a, 0x32] {
        let mut tensor = vec![tag];
        tensor.extend(huge);
        let mut bytes = vec![0x3a, tensor.len() as u8 + 2, 0x2a, tensor.len() as u8];
        bytes.extend(tensor);
        assert!(Model::decode(Bytes::from(bytes), None).is_err());
    }
    let claim = |dims: Vec<i64>| TensorProto { data_type: Some(1), dims, ..TensorProto::default() };
    for dims in [vec![i64::MAX], vec![-1], vec![1 << 40], vec![1 << 31, 1 << 31, 1 << 31], vec![0, -5]] {
        let mut main = graph(&["x"], vec![], &["x"]);
        main.initializer = vec![TensorProto { name: Some("w".into()), ..claim(dims) }];
        assert!(Model::from_proto(model(main, vec![])).graph().is_err());
    }
}

#[test]
fn files_of_other_kinds_are_named_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let mut safetensors = vec![2, 0, 0, 0, 0, 0, 0, 0];
    safetensors.extend(b"{}");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "an empty file"),
        ("lfs", b"version https://git-lfs.github.com/spec/v1\noid".to_vec(), "git lfs pull"),
        ("zip", b"PK\x03\x04........".to_vec(), "zip archive"),
        ("npy", b"\x93NUMPY\x01\0v\0{}".to_vec(), "NumPy"),
        ("gzip", b"\x1f\x8b\x08\0".to_vec(), "unpack"),
        ("ort", b"\x1c\0\0\0ORTM\0\0".to_vec(), ".ort"),
        ("tflite", b"\x1c\0\0\0TFL3\0\0".to_vec(), "TensorFlow Lite"),
        ("pickle", b"\x80\x04\x95....".to_vec(), "never opened"),
        ("html", b"<!DOCTYPE html>".to_vec(), "download failed"),
        ("json", b"{\"graph\": {}}".to_vec(), "binary .onnx"),
        ("text", b"Not a model at all.\n".to_vec(), "text"),
        ("safetensors", safetensors, "safetensors"),
        ("graphless", vec![0x08, 0x08], "without a graph"),
        ("noise", vec![0xff; 100], "cannot be decoded"),
    ];
    for (name, bytes, expected) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = Model::read(&path).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains(name), "{name}: {text}");
        assert!(matches!(error.cause(), OnnxError::NotOnnx { .. }), "{name}: {error:?}");
    }
    assert!(matches!(Model::read(folder.path()), Err(OnnxError::NotAFile { .. })));
    assert!(matches!(Model::read(folder.path().join("none")), Err(OnnxError::Io { .. })));
    #[cfg(unix)]
    assert!(matches!(Model::read("/dev/zero"), Err(OnnxError::NotAFile { .. })));
}

#[test]
fn a_file_beyond_protobuf_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.onnx");
    fs::File::create(&path).unwrap().set_len(3 << 30).unwrap();
    let error = Model::read(&path).unwrap_err();
    assert!(matches!(error.cause(), OnnxError::TooLarge { bytes } if *bytes == 3 << 30), "{error}");
    assert!(error.to_string().contains("save_as_external_data"));
}
