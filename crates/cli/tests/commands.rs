//! What works, as a user sees it.

mod common;

use common::{Folder, Small};
use isotrace_report::{Verdict, json};

fn pair() -> Folder {
    let folder = Folder::new();
    folder.model("a.onnx", &Small::default().graph());
    folder.model("same.onnx", &Small { input: "z", ..Small::default() }.graph());
    folder.model("other.onnx", &Small { factor: 0.25, ..Small::default() }.graph());
    folder
}

#[test]
fn the_status_is_the_verdict() {
    let folder = pair();
    let same = folder.isotrace(["diff", "a.onnx", "same.onnx"]);
    assert_eq!((same.status, same.err.as_str()), (0, ""), "{same:?}");
    assert!(same.out.starts_with("identical: "), "{same:?}");
    let other = folder.isotrace(["diff", "a.onnx", "other.onnx"]);
    assert_eq!((other.status, other.err.as_str()), (1, ""), "{other:?}");
    assert!(other.out.starts_with("divergent: "), "{other:?}");
}

#[test]
fn json_goes_to_a_file_or_to_the_output() {
    let folder = pair();
    let got = folder.isotrace(["diff", "a.onnx", "other.onnx", "--json", "-", "--seed", "5"]);
    let report = json::parse(&got.out).unwrap();
    assert_eq!((got.status, report.verdict, report.seed), (1, Verdict::Divergent, Some(5)));
    assert_eq!(report.inputs[0].made, "normal(0, 1)");
    assert_eq!(report.culprits[0].b.nodes, ["scale"]);
    let text = folder.isotrace(["diff", "a.onnx", "other.onnx", "--json", "r.json", "--seed", "5"]);
    assert!(text.out.starts_with("divergent: "), "{text:?}");
    assert_eq!(
        std::fs::read_to_string(folder.path().join("r.json")).unwrap(),
        got.out,
        "the same to the byte"
    );
}

#[test]
fn runs_of_one_seed_are_equal_and_of_another_are_not() {
    let folder = pair();
    let run = |seed: &str| folder.isotrace(["run", "a.onnx", "--seed", seed]).out;
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1").lines().last(), run("2").lines().last());
}

#[test]
fn written_values_are_those_of_the_run_and_can_be_fed() {
    let folder = pair();
    for file in ["v.npz", "v.safetensors"] {
        let got = folder.isotrace(["run", "a.onnx", "--outputs", "all", "-o", file, "--dim", "n=3"]);
        assert_eq!(got.status, 0, "{got:?}");
        let values: std::collections::BTreeMap<_, _> =
            isotrace_trace::read_tensors(folder.path().join(file)).unwrap().into_iter().collect();
        assert_eq!(values.keys().collect::<Vec<_>>(), ["positive", "product", "x", "y"]);
        assert_eq!(values["y"].shape(), [3, 3]);
        folder.tensors("x.npz", &[("x", values["x"].clone())]);
        folder.isotrace(["run", "a.onnx", "--inputs", "x.npz", "-o", "y.npz"]);
        let y: std::collections::BTreeMap<_, _> =
            isotrace_trace::read_tensors(folder.path().join("y.npz")).unwrap().into_iter().collect();
        assert!(y["y"].bit_eq(&values["y"]));
    }
    let wide = folder.isotrace(["run", "a.onnx", "--precision", "f64"]);
    assert!(wide.out.contains("output  y f64[2,3]"), "{wide:?}");
}

#[test]
fn trials_find_what_one_seed_may_miss_and_name_the_seed() {
    let folder = pair();
    let got = folder.isotrace(["diff", "a.onnx", "other.onnx", "--trials", "3", "--json", "-"]);
    assert_eq!(json::parse(&got.out).unwrap().seed, Some(0), "the first that diverges");
    let got = folder.isotrace(["diff", "a.onnx", "same.onnx", "--trials", "3", "--json", "-"]);
    assert_eq!((got.status, json::parse(&got.out).unwrap().verdict), (0, Verdict::Identical));
}

#[test]
fn colours_follow_the_flag_and_a_pipe_has_none() {
    let folder = pair();
    let plain = folder.isotrace(["diff", "a.onnx", "other.onnx"]).out;
    assert!(!plain.contains('\u{1b}'));
    let painted = folder.isotrace(["diff", "a.onnx", "other.onnx", "--color", "always"]).out;
    assert!(painted.contains("\u{1b}[31m"));
    let json = folder.isotrace(["diff", "a.onnx", "other.onnx", "--color", "always", "--json", "-"]).out;
    assert!(!json.contains('\u{1b}'));
}

#[test]
fn rows_side_by_side() {
    let folder = pair();
    let got = folder.isotrace(["diff", "a.onnx", "other.onnx", "--format", "sbs", "--column-size", "70"]);
    let matmul = got.out.lines().find(|l| l.contains("MatMul")).unwrap();
    assert!(matmul[4..].starts_with("= | RESULT float32  2:2x3 "), "{got:?}");
    let output = got.out.lines().last().unwrap();
    assert!(output[4..].starts_with("~ | OUTPUT float32  2:2x3 ") && output.contains(" | a="), "{got:?}");
}

#[test]
fn operators_and_completions_are_listed() {
    let folder = Folder::new();
    let text = folder.isotrace(["ops"]);
    assert!(text.out.starts_with("ai.onnx: ") && text.out.contains("\n  MatMul\n"), "{text:?}");
    let listed = folder.isotrace(["ops", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    assert!(listed.as_array().unwrap().iter().any(|e| e["op"] == "MatMul" && e["domain"] == "ai.onnx"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(folder.isotrace(["completions", shell]).out.contains("isotrace"), "{shell}");
    }
    let help = folder.isotrace(["--help"]);
    assert!(help.status == 0 && help.out.contains("Examples:"), "{help:?}");
    assert!(folder.isotrace(["--version"]).out.starts_with("isotrace "));
}

/// Users see the README first: its picture is what the program prints, to the letter.
#[test]
fn the_readme_shows_what_is_printed() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```console\n$ isotrace ").unwrap();
    let (command, rest) = rest.split_once('\n').unwrap();
    let (picture, _) = rest.split_once("```").unwrap();
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_isotrace"))
        .args(command.split_whitespace())
        .current_dir(root)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), picture);
}
