//! `isotrace compare` and `isotrace stats`, as a user sees them.

mod common;

use common::Folder;
use isotrace_tensor::Tensor;

fn ramp(n: usize, step: f32) -> Tensor {
    Tensor::from_vec(&[2, n / 2], (0..n).map(|i| (i as f32 * step).sin()).collect()).unwrap()
}

fn changed(tensor: &Tensor, at: usize, to: f32) -> Tensor {
    let mut data = tensor.as_slice::<f32>().unwrap().to_vec();
    data[at] = to;
    Tensor::from_vec(tensor.shape(), data).unwrap()
}

fn folder() -> Folder {
    let folder = Folder::new();
    let (a, b) = (ramp(200, 0.1), ramp(60, 0.7));
    let empty = Tensor::from_vec(&[0, 3], Vec::<f32>::new()).unwrap();
    folder.tensors("x.npz", &[("a", a.clone()), ("b", b.clone()), ("only.x", b.clone())]);
    folder.tensors("same.safetensors", &[("a", a.clone()), ("b", b.clone()), ("only.x", b.clone())]);
    folder.tensors("near.npz", &[("a", changed(&a, 3, 0.295_520_25)), ("b", b.clone())]);
    folder.tensors("far.npz", &[("a", changed(&a, 103, 7.0)), ("b", b.clone()), ("only.y", b.clone())]);
    folder.tensors("nan.npz", &[("a", changed(&a, 0, f32::NAN))]);
    folder.tensors("renamed.npz", &[("first", a), ("b", Tensor::vector(vec![1f32, 2.0]))]);
    folder.tensors("other.npz", &[("z", b)]);
    folder.tensors("empty.npz", &[("e", empty)]);
    folder
}

#[test]
fn the_status_of_compare_is_the_verdict() {
    let folder = folder();
    let cases: [(&[&str], i32, &str); 10] = [
        (&["x.npz", "same.safetensors"], 0, "identical: 3 tensors, bit for bit the same"),
        (&["x.npz", "near.npz"], 0, "equivalent: 2 tensors within tolerance"),
        (&["x.npz", "near.npz", "--rtol", "0", "--atol", "0"], 1, "divergent: 1 of 2 tensors differ: \"a\""),
        (&["x.npz", "far.npz"], 1, "divergent: 1 of 2 tensors differ: \"a\", 1 of 200 elements"),
        (&["x.npz", "far.npz", "--like", "polygraphy"], 1, "divergent: 1 of 2"),
        (&["nan.npz", "nan.npz"], 1, "divergent: 1 of 1 tensor differ"),
        (&["x.npz", "renamed.npz", "--map", "a=first"], 1, "divergent: 1 of 2 tensors differ: \"b\", shapes"),
        (&["x.npz", "other.npz"], 3, "invalid: nothing was compared"),
        (&["empty.npz", "empty.npz"], 3, "invalid: nothing was compared"),
        (&["x.npz", "other.npz", "--map", "b=z"], 0, "identical: 1 tensor"),
    ];
    for (args, status, begin) in cases {
        let got = folder.isotrace(["compare"].iter().chain(args));
        assert_eq!((got.status, got.err.as_str()), (status, ""), "{args:?} {got:?}");
        assert!(got.out.starts_with(begin), "{args:?}: {}", got.out);
    }
    for (args, says) in [
        (vec!["x.npz", "missing.npz"], "missing.npz"),
        (vec!["x.npz", "far.npz", "--rtol", "1"], "--atol"),
        (vec!["x.npz", "far.npz", "--map", "aa=a"], "did you mean \"a\"?"),
    ] {
        let got = folder.isotrace(["compare"].into_iter().chain(args.iter().copied()));
        assert!(got.status == 2 && got.out.is_empty() && got.err.contains(says), "{args:?} {got:?}");
    }
}

#[test]
fn what_differs_is_told_with_its_place() {
    let folder = folder();
    let got = folder.isotrace(["compare", "x.npz", "far.npz"]);
    assert!(
        got.out.contains("worst   [1,3]") && got.out.contains("only in x  1 tensor: only.x"),
        "{}",
        got.out
    );
    let json = folder.isotrace(["compare", "x.npz", "far.npz", "--json", "-"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (json["schema"].as_str(), json["verdict"].as_str()),
        (Some("isotrace.compare/1"), Some("divergent"))
    );
    let a = &json["tensors"][0];
    assert_eq!((a["beyond"].as_u64(), a["worst"][0]["index"][1].as_u64()), (Some(1), Some(3)));
    assert_eq!(a["axes"][0]["beyond"], serde_json::json!([0, 1]));
    assert_eq!(json["tensors"].as_array().unwrap().iter().filter(|t| t["status"] == "unmatched").count(), 2);
}

#[test]
fn stats_tell_and_warn() {
    let folder = folder();
    let flat = Tensor::vector(vec![0.5f32; 40]);
    let clipped = Tensor::vector((0..100).map(|i| (i as f32 * 0.37).sin().min(0.8)).collect::<Vec<f32>>());
    let half = Tensor::vector((0..40).map(|i| i as f32 * 0.375).collect::<Vec<f32>>());
    let few = Tensor::vector(vec![0f32, 1.0, 2.0, 0.0, 0.5]);
    let tensors =
        [("flat", flat), ("clipped", clipped), ("half", half), ("few", few), ("fine", ramp(200, 0.1))];
    folder.tensors("s.npz", &tensors);
    let got = folder.isotrace(["stats", "s.npz"]);
    assert_eq!((got.status, got.err.as_str()), (0, ""), "{got:?}");
    for says in
        ["flat: constant: every element is 0.5", "clipped: saturated: ", "half: coarser than declared"]
    {
        assert!(got.out.contains(says), "{says}: {}", got.out);
    }
    for silent in ["fine: ", "few: ", "flat: coarser"] {
        assert!(!got.out.contains(silent), "{silent}: {}", got.out);
    }
    let one = folder.isotrace(["stats", "s.npz", "fi*"]).out;
    assert!(one.starts_with("fine  f32[2,100]\n") && !one.contains("flat"), "{one}");
    let json = folder.isotrace(["stats", "s.npz", "--json", "-"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["tensors"][0]["fits"], "bf16");
    let missing = folder.isotrace(["stats", "s.npz", "fin"]);
    assert!(missing.status == 2 && missing.err.contains("did you mean \"fine\"?"), "{missing:?}");
}
