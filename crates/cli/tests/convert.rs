//! `isotrace convert` as a user meets it.

mod common;

use common::Folder;
use isotrace_tensor::{DType, Tensor};
use isotrace_trace::{open, read_tensors};

fn numbers() -> Tensor {
    Tensor::from_vec(&[2, 3], vec![1f32, -2.5, 0.0, f32::NAN, 1e-40, f32::INFINITY]).unwrap()
}

/// What lies in the folder, so that nothing half written stays unseen.
fn listing(folder: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn every_format_to_every_other() {
    let outputs: [(&str, &[&str]); 11] = [
        ("o.npz", &[]),
        ("o.pt", &[]),
        ("o.ckpt", &["--to", "pt"]),
        ("o.safetensors", &[]),
        ("o.trace", &[]),
        ("folder", &[]),
        ("arrays", &["--to", "npy"]),
        ("messages", &["--to", "pb"]),
        ("o.dat", &["--to", "npz"]),
        ("one.npy", &["--only", "a/x"]),
        ("one.pb", &["--only", "a/x", "--to", "pb"]),
    ];
    for input in ["i.npz", "i.safetensors", "i"] {
        let folder = Folder::new();
        folder.tensors(input, &[("a/x", numbers()), ("y", Tensor::scalar(7i64))]);
        for (output, options) in outputs {
            let outcome = folder.isotrace([&["convert", input, output], options].concat());
            assert_eq!(outcome.status, 0, "{input} {output}: {}", outcome.err);
            let count = if options.contains(&"--only") { "1 tensor " } else { "2 tensors " };
            assert!(outcome.out.contains(count) && outcome.out.contains(output), "{}", outcome.out);
            let source = open(folder.path().join(output)).unwrap();
            let name = if output == "one.npy" { "one" } else { "a/x" };
            assert!(source.get(name).unwrap().bit_eq(&numbers()), "{input} {output}");
        }
        assert_eq!(listing(&folder).len(), outputs.len() + 1, "{:?}", listing(&folder));
    }
}

#[test]
fn narrow_floats_become_f32_where_the_format_has_none() {
    let folder = Folder::new();
    let half = Tensor::vector(vec![1f32, -0.5]).cast(DType::BF16).unwrap();
    folder.tensors("h.safetensors", &[("h", half.clone())]);
    let outcome = folder.isotrace(["convert", "h.safetensors", "h.npz"]);
    assert_eq!(outcome.status, 2);
    assert!(outcome.err.contains("cannot hold tensor \"h\" of bf16"), "{}", outcome.err);
    assert!(outcome.err.contains("or give --widen"), "{}", outcome.err);
    assert_eq!(listing(&folder), ["h.safetensors"]);
    assert_eq!(folder.isotrace(["convert", "h.safetensors", "h.npz", "--widen"]).status, 0);
    let read = read_tensors(folder.path().join("h.npz")).unwrap();
    assert_eq!(read[0].1.as_slice::<f32>().unwrap(), [1.0, -0.5]);
}

#[test]
fn a_digest_keeps_no_elements() {
    let folder = Folder::new();
    folder.tensors("x.npz", &[("x", numbers())]);
    assert_eq!(folder.isotrace(["convert", "x.npz", "d", "--to", "digest"]).status, 0);
    assert_eq!(std::fs::read_dir(folder.path().join("d")).unwrap().count(), 1);
    let trace = isotrace_trace::Trace::open(folder.path().join("d")).unwrap();
    let digest = trace.values()[0].digest.as_ref().unwrap();
    assert_eq!((digest.nan, digest.inf, digest.zeros, digest.subnormal), (1, 1, 1, 1));
    let outcome = folder.isotrace(["convert", "d", "y.npz"]);
    assert_eq!(outcome.status, 2);
    assert!(outcome.err.contains("without their elements"), "{}", outcome.err);
}

#[test]
fn what_goes_wrong_is_one_message_and_writes_nothing() {
    let folder = Folder::new();
    folder.tensors("x.npz", &[("x", numbers()), ("y", numbers())]);
    std::fs::create_dir(folder.path().join("full")).unwrap();
    folder.file("full/file", "");
    folder.file("old.npz", "old");
    folder.file("file", "");
    let cases: [(&[&str], &[&str]); 9] = [
        (&["none.npz", "o.npz"], &["none.npz", "No such file"]),
        (&["file", "o.npz"], &["file", "expected"]),
        (&["x.npz", "o.docx"], &["o.docx", "--to"]),
        (&["x.npz", "o.npy"], &["o.npy", "holds one tensor, not 2", "--only"]),
        (&["x.npz", "full"], &["full is there already"]),
        (&["x.npz", "file", "--to", "npy"], &["file is there already"]),
        (&["x.npz", "no/where/o.npz"], &["no/where/o.npz", "No such file"]),
        (&["x.npz", "o.npz", "--only", "xx"], &["\"xx\"", "did you mean \"x\""]),
        (&["x.npz", "o.npz", "--only", "x,x"], &["\"x\"", "twice"]),
    ];
    let before = listing(&folder);
    for (args, expected) in cases {
        let outcome = folder.isotrace([&["convert"], args].concat());
        assert_eq!(outcome.status, 2, "{args:?}");
        assert!(expected.iter().all(|e| outcome.err.contains(e)), "{args:?}: {}", outcome.err);
        assert_eq!((listing(&folder), outcome.err.lines().count()), (before.clone(), 1), "{args:?}");
    }
    assert_eq!(std::fs::read(folder.path().join("old.npz")).unwrap(), b"old");
    // A file may be replaced by what is made from it.
    assert_eq!(folder.isotrace(["convert", "x.npz", "x.npz", "--only", "y"]).status, 0);
    assert_eq!(read_tensors(folder.path().join("x.npz")).unwrap()[0].0, "y");
}
