//! What debuggers and runtimes leave behind: Polygraphy's outputs, PaDiff's and ONNX Runtime's dumps, raw bytes, and
//! folders of files.

mod common;

use std::fs;

use isotrace_tensor::{C64, DType, Tensor};
use isotrace_trace::{Format, Kind, TraceError, open, read_tensors, write_tensors, write_tensors_as};

use common::{differences, golden};

#[test]
fn files_of_polygraphy_are_read_as_it_reads_them() {
    for file in ["one", "several", "inputs", "torch", "old"] {
        let path = golden().join(format!("polygraphy.{file}.json"));
        let source = open(&path).unwrap();
        assert_eq!(source.kind(), Kind::Polygraphy);
        let wrong = differences(&source, &read_tensors(path.with_added_extension("expected.npz")).unwrap());
        assert!(wrong.is_empty(), "{file}: {wrong:#?}");
    }
}

/// One tensor of every type that NumPy has, with names that need care.
fn samples() -> Vec<(String, Tensor)> {
    vec![
        ("a/\"b\"\n:0".into(), Tensor::from_vec(&[2, 2], vec![1f32, f32::NAN, -0.0, 1e-40]).unwrap()),
        ("i".into(), Tensor::vector(vec![i64::MIN, 7])),
        ("b".into(), Tensor::vector(vec![1f32, 0.0]).cast(DType::Bool).unwrap()),
        ("c".into(), Tensor::vector(vec![C64([1.0, -2.0])])),
        ("empty".into(), Tensor::from_vec::<f32>(&[0, 3], vec![]).unwrap()),
        ("scalar".into(), Tensor::scalar(2.5f64)),
    ]
}

#[test]
fn what_is_written_for_polygraphy_and_as_raw_bytes_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    for (file, kind) in [("o.json", Kind::Polygraphy), ("o.bin", Kind::Raw)] {
        let path = folder.path().join(file);
        write_tensors(&path, &samples()).unwrap();
        let source = open(&path).unwrap();
        assert_eq!(source.kind(), kind);
        let wrong = differences(&source, &samples());
        assert!(wrong.is_empty(), "{file}: {wrong:#?}");
        write_tensors(&path, &samples()[..1]).unwrap();
        assert_eq!(open(&path).unwrap().len(), 1);
        write_tensors(&path, &[]).unwrap();
        assert!(open(&path).unwrap().is_empty());
    }
    let narrow = [("n".to_owned(), Tensor::vector(vec![1f32, -8.0, 7.0]).cast(DType::I4).unwrap())];
    let path = folder.path().join("narrow.bin");
    write_tensors(&path, &narrow).unwrap();
    assert!(open(&path).unwrap().get("n").unwrap().bit_eq(&narrow[0].1));
    let text = [("t".to_owned(), Tensor::from_strings(&[1], vec!["x".into()]).unwrap())];
    let error = write_tensors(folder.path().join("text.bin"), &text).unwrap_err();
    assert!(matches!(error.cause(), TraceError::Inexpressible { .. }), "{error}");
    assert!(!folder.path().join("text.bin").exists());
}

#[test]
fn raw_bytes_as_people_describe_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.bin");
    let numbers: Vec<u8> = [1f32, 2., 3., 4., 5., 6.].iter().flat_map(|x| x.to_le_bytes()).collect();
    fs::write(&path, &numbers).unwrap();
    let big: Vec<u8> = numbers.chunks(4).flat_map(|c| c.iter().rev().copied().collect::<Vec<_>>()).collect();
    fs::write(folder.path().join("y.dat"), &big).unwrap();
    struct Case(&'static str, &'static str, &'static str, Result<&'static [f32], &'static str>);
    let ordered: &[f32] = &[1., 2., 3., 4., 5., 6.];
    let cases = [
        Case("x.bin", "x.json", r#"{"dtype": "f32", "shape": [2, 3]}"#, Ok(ordered)),
        Case(
            "x.bin",
            "x.bin.json",
            r#"{"dtype": "float32", "shape": [6], "name": "x", "note": 1}"#,
            Ok(ordered),
        ),
        Case(
            "x.bin",
            "x.json",
            r#"{"dtype": "f32", "shape": [2, 3], "order": "F"}"#,
            Ok(&[1., 3., 5., 2., 4., 6.]),
        ),
        Case("y.dat", "y.json", r#"{"dtype": "f32", "shape": [6], "byte_order": "big"}"#, Ok(ordered)),
        Case("x.bin", "x.json", r#"{"dtype": "f32", "shape": [2], "offset": 8}"#, Ok(&[3., 4.])),
        Case(
            "x.bin",
            "x.json",
            r#"{"tensors": {"x": {"dtype": "f32", "shape": [1], "offset": 4}}}"#,
            Ok(&[2.]),
        ),
        Case("x.bin", "x.json", r#"{"tensors": [{"name": "x", "dtype": "f32", "shape": [1]}]}"#, Ok(&[1.])),
        Case("x.bin", "x.json", r#"{"dtype": "f32", "shape": [2]}"#, Err("the file has 24")),
        Case("x.bin", "x.json", r#"{"dtype": "f32", "shape": [7]}"#, Err("the file has 24")),
        Case("x.bin", "x.json", r#"{"dtype": "f32", "shape": [1], "offset": 24}"#, Err("the file has 24")),
        Case("x.bin", "x.json", r#"{"dtype": "f32", "shape": [1], "offset": -4}"#, Err("offset")),
        Case("x.bin", "x.json", r#"{"dtype": "f32", "shape": [1], "offset": 8e15}"#, Err("the file has 24")),
        Case("x.bin", "x.json", r#"{"dtype": "f32", "shape": [4611686018427387904, 4]}"#, Err("no sizes")),
        Case(
            "x.bin",
            "x.json",
            r#"{"dtype": "f32", "shape": [4503599627370496, 4503599627370496]}"#,
            Err("more elements"),
        ),
        Case("x.bin", "x.json", r#"{"dtype": "f32"}"#, Err("no list \"shape\"")),
        Case("x.bin", "x.json", r#"{"dtype": "f33", "shape": [1]}"#, Err("\"f33\"")),
        Case("x.bin", "x.json", r#"{"dtype": "string", "shape": [1]}"#, Err("\"string\"")),
        Case("x.bin", "x.json", r#"{"dtype": 1, "shape": [1]}"#, Err("is no text")),
        Case("x.bin", "x.json", r#"{"dtype": "f32", "shape": [6], "order": "A"}"#, Err("\"A\"")),
        Case("x.bin", "x.json", r#"{"dtype": "bool", "shape": [24]}"#, Err("holds the byte")),
        Case(
            "x.bin",
            "x.json",
            r#"{"tensors": [{"dtype":"i8","shape":[1]},{"dtype":"i8","shape":[1]}]}"#,
            Err("twice"),
        ),
        Case("x.bin", "x.json", "not json", Err(".bin")),
    ];
    for Case(file, sidecar, text, expected) in cases {
        let sidecar = folder.path().join(sidecar);
        fs::write(&sidecar, text).unwrap();
        let read = read_tensors(folder.path().join(file));
        match (read, expected) {
            (Ok(read), Ok(expected)) => assert_eq!(read[0].1.as_slice::<f32>().unwrap(), expected, "{text}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{text}: {error}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
        fs::remove_file(sidecar).unwrap();
    }
}

#[test]
fn polygraphy_that_lies_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.json");
    let array = |data: &str| format!(r#"[{{"x": {{"array": "{data}", "polygraphy_class": "ndarray"}}}}]"#);
    let cases = [
        ("{}".to_owned(), "no RunResults"),
        ("[".into(), "no JSON"),
        ("[".repeat(100_000), "no JSON"),
        (r#"{"lst": [["r"]], "polygraphy_class": "RunResults"}"#.into(), "without name or iterations"),
        (r#"{"lst": [["r", [{}]]], "polygraphy_class": "RunResults"}"#.into(), "without outputs"),
        (r#"[{"x": 1}]"#.into(), "neither an array nor a tensor"),
        (array(""), "NUMPY"),
        (array("AAAA"), "NUMPY"),
        (array("k05VTVBZ"), "ends in its version"),
        (array("k05VTVBZAQD//w=="), "header"),
        (array("UEsDBAAA"), ".npz"),
        (array("\u{4e2d}"), "neither base64 nor Latin-1"),
        (r#"[{"x": {"tensor": "AAAA", "polygraphy_class": "Tensor"}}]"#.into(), "PyTorch"),
    ];
    for (text, expected) in cases {
        fs::write(&path, &text).unwrap();
        let error = read_tensors(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("p.json"), "{text:.80}: {error}");
    }
    let whole = fs::read(golden().join("polygraphy.one.json")).unwrap();
    for end in (0..whole.len() - 2).step_by(31) {
        fs::write(&path, &whole[..end]).unwrap();
        assert!(read_tensors(&path).is_err(), "cut at {end}");
    }
    for at in (0..whole.len()).step_by(5) {
        let mut changed = whole.clone();
        changed[at] ^= 0x11;
        fs::write(&path, &changed).unwrap();
        let _ = read_tensors(&path);
    }
}

#[test]
fn dumps_of_padiff() {
    let source = open(golden().join("padiff")).unwrap();
    assert_eq!((source.kind(), source.notes().len()), (Kind::PaDiff, 0));
    let names: Vec<&str> = source.names().collect();
    assert!(
        names.contains(&"Sequential.0:output.0") && names.contains(&"Sequential.2.weight:grad"),
        "{names:?}"
    );
    let expected = read_tensors(golden().join("padiff.expected.npz")).unwrap();
    let pairs = [
        ("output", "Sequential:output.0"),
        ("parameter0", "Sequential.0.weight"),
        ("parameter1", "Sequential.0.bias"),
        ("parameter2", "Sequential.2.weight"),
        ("parameter3", "Sequential.2.bias"),
    ];
    for (theirs, ours) in pairs {
        let (_, tensor) = expected.iter().find(|(name, _)| name == theirs).unwrap();
        assert!(source.get(ours).unwrap().bit_eq(tensor), "{ours}");
    }
    // Paths are names, not ways out.
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("dump");
    fs::create_dir(&inside).unwrap();
    fs::copy(golden().join("padiff/weights/weights_0.npy"), folder.path().join("secret.npy")).unwrap();
    for path in ["../secret.npy", "/etc/hostname", "tensors/../../secret.npy", "", "..", "secret.npy"] {
        let json = format!(
            r#"{{"framework": "torch", "tree": [{{"name": "n", "fwd_outputs": [{{"path": "{path}"}}]}}]}}"#
        );
        fs::write(inside.join("report.json"), json).unwrap();
        let source = open(&inside).unwrap();
        assert!(source.is_empty() && source.notes()[0].text.contains("missing"), "{path}: {source:?}");
    }
    let deep = r#"{"name": "n", "children": ["#.repeat(60) + &"]}".repeat(60);
    fs::write(inside.join("report.json"), format!(r#"{{"framework": "torch", "tree": {deep}}}"#)).unwrap();
    assert!(open(&inside).unwrap().is_empty());
}

#[test]
fn dumps_of_onnx_runtime() {
    // As `ORT_DEBUG_NODE_IO_DUMP_DATA_DESTINATION=files` names them: the tensor's name with everything but letters and
    // digits replaced, the name itself inside.
    let folder = tempfile::tempdir().unwrap();
    for (file, name) in [("_model_MatMul_output_0", "/model/MatMul_output_0"), ("x_rank_0", "x")] {
        let path = folder.path().join(file).with_added_extension("tensorproto");
        isotrace_onnx::write_tensor_pb(path, name, &Tensor::scalar(name.len() as f32)).unwrap();
    }
    let source = open(folder.path()).unwrap();
    assert_eq!(source.names().collect::<Vec<_>>(), ["/model/MatMul_output_0", "x"]);
    assert_eq!(source.get("x").unwrap().as_slice::<f32>().unwrap(), [1.0]);
    let one = read_tensors(folder.path().join("x_rank_0.tensorproto")).unwrap();
    assert_eq!(one[0].0, "x");
}

#[test]
fn folders_of_parts() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = |x: f32| Tensor::vector(vec![x]);
    let parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "more.npz"];
    for (at, part) in parts.iter().enumerate() {
        let named = [(format!("w{at}"), tensor(at as f32)), ("shared".to_owned(), tensor(10.0 + at as f32))];
        write_tensors(folder.path().join(part), if at < 2 { &named[..1] } else { &named[..] }).unwrap();
    }
    write_tensors_as(
        folder.path().join("shared.npy"),
        Format::Npy,
        &[("shared".to_owned(), tensor(-1.0))][..],
    )
    .unwrap();
    fs::copy(golden().join("alone.zip.pt"), folder.path().join("pytorch_model.bin")).unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    fs::write(folder.path().join("tokenizer.bin"), "whatever it is").unwrap();
    let source = open(folder.path()).unwrap();
    let names: Vec<&str> = source.names().collect();
    assert_eq!(names, ["w0", "w1", "w2", "more/shared", "pytorch_model", "shared"]);
    assert_eq!(source.get("more/shared").unwrap().as_slice::<f32>().unwrap(), [12.0]);
    // More files than may be open at a time.
    let many = folder.path().join("many");
    fs::create_dir(&many).unwrap();
    for i in 0..300 {
        write_tensors(many.join(format!("{i}.safetensors")), &[(format!("t{i}"), tensor(i as f32))]).unwrap();
    }
    let source = open(&many).unwrap();
    assert_eq!((source.len(), source.names().nth(299)), (300, Some("t299")));
    assert!(source.iter().enumerate().all(|(i, (_, t))| t.unwrap().as_slice::<f32>().unwrap() == [i as f32]));
}
