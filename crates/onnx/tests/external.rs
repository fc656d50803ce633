//! Models with data beside them, of any size.

#![cfg(unix)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use common::{graph, model, node};
use isotrace_graph::{Graph, Value};
use isotrace_onnx::proto::tensor_proto::DataLocation;
use isotrace_onnx::proto::{StringStringEntryProto, TensorProto};
use isotrace_onnx::{Model, OnnxError};
use isotrace_tensor::Tensor;

fn outside(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
    let entry =
        |&(k, v): &(&str, &str)| StringStringEntryProto { key: Some(k.into()), value: Some(v.into()) };
    TensorProto {
        name: Some(name.into()),
        data_type: Some(1),
        dims: dims.to_vec(),
        data_location: Some(DataLocation::External as i32),
        external_data: entries.iter().map(entry).collect(),
        ..TensorProto::default()
    }
}

/// Writes a model whose tensors lie in `data`.
fn write_model(path: &Path, tensors: Vec<TensorProto>) {
    let mut main = graph(&["x"], vec![node("Relu", &["x"], &["y"])], &["y"]);
    main.initializer = tensors;
    fs::write(path, Model::from_proto(model(main, vec![])).encode().unwrap()).unwrap();
}

fn constant(graph: &Graph, name: &str) -> Tensor {
    graph.value(graph.names()[name]).constant.clone().unwrap()
}

#[test]
fn more_than_two_gibibytes_read_and_written_by_the_page() {
    const BIG: i64 = (1 << 29) + 4096; // just over 2 GiB of f32, almost all of them a hole
    let folder = tempfile::tempdir().unwrap();
    let data = File::create(folder.path().join("w.bin")).unwrap();
    data.set_len(4 * BIG as u64 + 4096).unwrap();
    data.write_all_at(&7f32.to_le_bytes(), 4 * (BIG as u64 - 1)).unwrap();
    data.write_all_at(&9f32.to_le_bytes(), 4 * BIG as u64).unwrap();
    drop(data);
    let path = folder.path().join("m.onnx");
    let after = (4 * BIG).to_string();
    write_model(
        &path,
        vec![
            outside("big", &[BIG], &[("location", "w.bin")]),
            outside("small", &[1], &[("location", "w.bin"), ("offset", &after), ("length", "4")]),
        ],
    );
    let read = Model::read(&path).unwrap();
    let graph = read.graph().unwrap();
    let (big, small) = (constant(&graph, "big"), constant(&graph, "small"));
    assert_eq!(big.as_slice::<f32>().unwrap()[BIG as usize - 1], 7.0);
    assert_eq!(small.as_slice::<f32>().unwrap(), [9.0]);
    // One map, and nothing copied out of it.
    assert_eq!(big.bytes().as_ptr().wrapping_add(4 * BIG as usize), small.bytes().as_ptr());

    // A graph of that size does not fit a message, so its data go beside the model; holes stay holes.
    let raised = Model::from_graph(&graph).unwrap();
    assert!(matches!(raised.encode(), Err(OnnxError::TooLarge { .. })));
    let copy = folder.path().join("copy.onnx");
    raised.write(&copy).unwrap();
    let written = fs::metadata(folder.path().join("copy.onnx.data")).unwrap();
    assert!(written.len() > 2 << 30 && written.blocks() * 512 < 1 << 20);
    let again = Model::read(&copy).unwrap().graph().unwrap();
    assert_eq!(constant(&again, "big").as_slice::<f32>().unwrap()[BIG as usize - 1], 7.0);
    assert_eq!(constant(&again, "small").as_slice::<f32>().unwrap(), [9.0]);
}

#[test]
fn a_model_moves_with_its_data() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("w.bin"), 1.5f32.to_le_bytes()).unwrap();
    let path = from.path().join("m.onnx");
    write_model(&path, vec![outside("w", &[1], &[("location", "w.bin")])]);
    let original = fs::read(&path).unwrap();
    let model = Model::read(&path).unwrap();

    // Beside its data it stays byte for byte what it was.
    model.write(from.path().join("same.onnx")).unwrap();
    assert_eq!(fs::read(from.path().join("same.onnx")).unwrap(), original);
    assert!(!from.path().join("same.onnx.data").exists());

    model.write(to.path().join("moved.onnx")).unwrap();
    fs::remove_file(from.path().join("w.bin")).unwrap();
    let graph = Model::read(to.path().join("moved.onnx")).unwrap().graph().unwrap();
    assert_eq!(constant(&graph, "w").as_slice::<f32>().unwrap(), [1.5]);
    assert!(to.path().join("moved.onnx.data").exists());
}

#[test]
fn a_model_from_nowhere_has_no_data_beside_it() {
    let mut main = graph(&["x"], vec![node("Relu", &["x"], &["y"])], &["y"]);
    main.initializer = vec![outside("w", &[1], &[("location", "w.bin")])];
    let model = Model::from_proto(model(main, vec![]));
    let error = model.graph().unwrap_err();
    assert!(matches!(error, OnnxError::External { .. }), "{error}");
    let folder = tempfile::tempdir().unwrap();
    assert!(model.write(folder.path().join("m.onnx")).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing half written");
}

#[test]
fn names_that_collide_are_told_apart() {
    let mut g = Graph::default();
    let value =
        |name: &str| Value { name: name.into(), constant: Some(Tensor::scalar(1f32)), declared: None };
    for name in ["w", "w", "", "w_1"] {
        let id = g.add_value(value(name));
        g.outputs.push(id);
    }
    let back = Model::from_graph(&g).unwrap().graph().unwrap();
    let names: Vec<_> = back.outputs.iter().map(|&v| back.value(v).name.as_str()).collect();
    assert_eq!(names, ["w", "w_1", "value_1", "w_1_1"]);
}
