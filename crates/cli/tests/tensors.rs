//! `isotrace compare` and `isotrace stats`, as a user sees them.

mod common;
#[path = "../../../tests/schema.rs"]
mod schema;

use common::Folder;
use isotrace_tensor::{C64, Tensor};
use schema::{Findings, check, published};
use serde_json::{Value, json};

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
        (&["x.npz", "near.npz", "--rtol", "0", "--atol", "0"], 1, "divergent: 1 of 2 tensors differs: \"a\""),
        (&["x.npz", "far.npz"], 1, "divergent: 1 of 2 tensors differs: \"a\", 1 of 200 elements"),
        (&["x.npz", "far.npz", "--like", "polygraphy"], 1, "divergent: 1 of 2"),
        (&["nan.npz", "nan.npz"], 1, "divergent: 1 of 1 tensor differs"),
        (
            &["x.npz", "renamed.npz", "--map", "a=first"],
            1,
            "divergent: 1 of 2 tensors differs: \"b\", shapes",
        ),
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
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (json["schema"].as_str(), json["verdict"].as_str()),
        (Some("isotrace.compare/1"), Some("divergent"))
    );
    let a = &json["tensors"][0];
    assert_eq!((a["beyond"].as_u64(), a["worst"][0]["index"][1].as_u64()), (Some(1), Some(3)));
    assert_eq!(a["axes"][0]["beyond"], json!([0, 1]));
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
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["tensors"][0]["fits"], "bf16");
    let missing = folder.isotrace(["stats", "s.npz", "fin"]);
    assert!(missing.status == 2 && missing.err.contains("did you mean \"fine\"?"), "{missing:?}");
}

/// Every type of element, every status, and numbers that JSON does not have.
fn all_sorts(folder: &Folder) {
    let big = 1i64 << 60;
    let texts = |last: &str| Tensor::from_strings(&[2], vec!["nan".into(), last.into()]).unwrap();
    let near = ramp(200, 0.1);
    let wide = |last: f64| Tensor::vector(vec![1e300, -1e300, last]);
    let side = |k: i64, last: &str, im: f32, end: f64| {
        [
            ("ids", Tensor::vector(vec![big, big + k])),
            ("words", texts(last)),
            ("waves", Tensor::vector(vec![C64([1.0, im]), C64([f32::INFINITY, 0.0])])),
            ("wide", wide(end)),
            ("same", near.clone()),
        ]
    };
    let (mut x, mut y) = (side(0, "a", 0.5, 1e300).to_vec(), side(1, "b", -0.5, f64::NAN).to_vec());
    x.extend([("near", near.clone()), ("shape", near.clone()), ("only.x", near.clone())]);
    y.extend([("near", changed(&near, 3, 0.295_520_25)), ("shape", ramp(60, 0.7)), ("only.y", near.clone())]);
    folder.tensors("all-x.npz", &x);
    folder.tensors("all-y.npz", &y);
}

/// A trace with something to say of itself.
fn noted(folder: &Folder) {
    folder.tensors("noted.trace", &[("a", ramp(200, 0.1))]);
    let log = folder.path().join("noted.trace/trace.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    let before_end = text.trim_end().rsplit_once('\n').unwrap().0;
    let note = r#"{"record":"note","class":"uncalled","text":"a module was never called","where":["m"]}"#;
    std::fs::write(&log, format!("{before_end}\n{note}\n")).unwrap();
}

#[test]
fn what_compare_writes_is_what_the_schema_says() {
    let folder = folder();
    all_sorts(&folder);
    noted(&folder);
    let runs: [&[&str]; 6] = [
        &["all-x.npz", "all-y.npz"],
        &["all-x.npz", "all-y.npz", "--like", "numpy"],
        &["x.npz", "far.npz", "--like", "torch"],
        &["x.npz", "same.safetensors", "--like", "polygraphy"],
        &["x.npz", "other.npz"],
        &["noted.trace", "near.npz"],
    ];
    let (schema, mut findings) = (published("compare"), Findings::default());
    let written = runs.map(|args| {
        let got = folder.isotrace(["compare", "--json", "-"].iter().chain(args));
        let json: Value = serde_json::from_str(&got.out).unwrap_or_else(|e| panic!("{args:?} {e} {got:?}"));
        check(&schema, &json, &mut findings);
        json
    });
    findings.assert_all_of(&schema);
    assert_eq!(written[5]["x"]["notes"][1]["where"], json!(["m"]), "{:#}", written[5]["x"]);
    let of = |name: &str| written[0]["tensors"].as_array().unwrap().iter().find(|t| t["x"] == name).unwrap();
    // No digit is lost, and nothing is lost to a form that JSON does not have.
    let big = 1i64 << 60;
    assert_eq!(of("ids")["worst"][0], json!({"index": [1], "x": big, "y": big + 1, "difference": 1.0}));
    assert_eq!(of("waves")["worst"][0]["x"], json!([1.0, 0.5]));
    assert_eq!((&of("wide")["max_abs"], &of("wide")["worst"][0]["y"]), (&json!("nan"), &json!("nan")));
    assert_eq!(of("wide")["worst"][0]["difference"], "inf");
    assert_eq!(of("words")["beyond"], 1);

    let mut broken = written[0].clone();
    broken["tensors"][0]["elements"] = Value::Null;
    broken["tensors"][1]["max_abs"] = json!("many");
    broken["tensors"][2].as_object_mut().unwrap().remove("rtol");
    let mut findings = Findings::default();
    check(&schema, &broken, &mut findings);
    assert_eq!(findings.wrong.len(), 3, "{:#?}", findings.wrong);
}

#[test]
fn what_stats_write_is_what_the_schema_says() {
    let folder = folder();
    all_sorts(&folder);
    let (schema, mut findings) = (published("stats"), Findings::default());
    noted(&folder);
    let [x, y, ..] = ["all-x.npz", "all-y.npz", "empty.npz", "noted.trace"].map(|file| {
        let got = folder.isotrace(["stats", file, "--json", "-"]);
        let json: Value = serde_json::from_str(&got.out).unwrap_or_else(|e| panic!("{file} {e} {got:?}"));
        check(&schema, &json, &mut findings);
        json
    });
    findings.assert_all_of(&schema);
    let of = |json: &Value, name: &str| -> Value {
        let tensors = json["tensors"].as_array().unwrap();
        tensors.iter().find(|t| t["name"] == name).unwrap().clone()
    };
    let big = 1i64 << 60;
    assert_eq!(of(&y, "ids")["first"], json!([big, big + 1]));
    assert_eq!(of(&y, "waves")["first"], json!([[1.0, -0.5], ["inf", 0.0]]));
    assert_eq!(of(&x, "words")["first"], json!(["nan", "a"]));
    assert_eq!((&of(&y, "wide")["first"][2], &of(&y, "wide")["std"]), (&json!("nan"), &json!("inf")));
    let mut broken = x.clone();
    (broken["tensors"][0]["fits"], broken["tensors"][1]["nan"]) = (json!("f12"), json!(-1));
    let mut findings = Findings::default();
    check(&schema, &broken, &mut findings);
    assert_eq!(findings.wrong.len(), 2, "{:#?}", findings.wrong);
}
