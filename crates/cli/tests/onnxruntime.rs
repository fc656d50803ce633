//! The backend onnxruntime, as a user sees it.
//!
//! Tests that need the library are listed as ignored where none can be found; `ORT_DYLIB_PATH`, which `tests/all` sets,
//! says that there is one, and then nothing is. Those on larger networks need `ISOTRACE_ZOO` besides.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{Folder, Outcome, Small};
use isotrace_graph::{Graph, Node, Value};
use isotrace_ort::Runtime;
use isotrace_report::{Report, Verdict, json};
use isotrace_tensor::Tensor;
use libtest_mimic::{Arguments, Trial};

const LEVELS: [&str; 4] = ["disable", "basic", "extended", "all"];

/// What a test needs.
enum Needs {
    Nothing,
    Runtime,
    /// As a package of Python.
    Package,
    RuntimeAndZoo,
}

fn main() {
    let here = std::env::var_os("ORT_DYLIB_PATH").is_some() || Runtime::load().is_ok();
    let package = Runtime::load().is_ok_and(|r| packages(r.library()).is_some());
    let zoo = std::env::var_os("ISOTRACE_ZOO").is_some();
    let tests: [(&str, Needs, fn()); 9] = [
        ("a_missing_library_is_one_message", Needs::Nothing, missing_library),
        ("settings_that_fit_no_side_are_errors", Needs::Nothing, settings),
        ("the_library_of_the_active_environment_is_found", Needs::Package, environment),
        ("a_run_writes_what_was_computed", Needs::Runtime, run),
        ("a_planted_fault_is_found_on_either_side", Needs::Runtime, planted),
        ("the_report_says_who_ran_a_side", Needs::Runtime, who),
        ("an_effect_of_looking_is_in_the_report", Needs::Runtime, effect),
        ("models_that_it_wrote_itself_run_at_every_level", Needs::RuntimeAndZoo, own_names),
        ("real_networks_are_equivalent_at_every_level", Needs::RuntimeAndZoo, networks),
    ];
    let trials = tests.into_iter().map(|(name, needs, test)| {
        let ready = match needs {
            Needs::Nothing => true,
            Needs::Runtime => here,
            Needs::Package => package,
            Needs::RuntimeAndZoo => here && zoo,
        };
        let trial = Trial::test(name, move || {
            test();
            Ok(())
        });
        trial.with_ignored_flag(!ready)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

/// Runs the program with these variables for the search, and no others.
fn searching<const N: usize>(folder: &Folder, args: &[&str], variables: [(&str, &Path); N]) -> Outcome {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_isotrace"));
    command.args(args).current_dir(folder.path());
    for name in ["ORT_DYLIB_PATH", "VIRTUAL_ENV", "PATH"] {
        command.env_remove(name);
    }
    let output = command.envs(variables).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { status: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

fn one_message(got: &Outcome, says: &[&str]) {
    assert_eq!((got.status, got.out.as_str(), got.err.lines().count()), (2, "", 1), "{got:?}");
    assert!(got.err.starts_with("error: ") && says.iter().all(|s| got.err.contains(s)), "{says:?}: {got:?}");
}

fn missing_library() {
    let folder = Folder::new();
    folder.model("a.onnx", &Small::default().graph());
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let no_library = folder.file("libonnxruntime.so", "no library");
    let run: &[&str] = &["run", "a.onnx", "--backend", "onnxruntime", "-o", "y.npz"];
    let diff: &[&str] = &["diff", "a.onnx", "a.onnx", "--backend-b", "onnxruntime", "--json", "r.json"];
    for args in [run, diff] {
        let got = searching(&folder, args, [("PATH", &empty), ("VIRTUAL_ENV", &empty)]);
        one_message(
            &got,
            &[
                "ORT_DYLIB_PATH (not set)",
                "(no onnxruntime package in it)",
                "python3 (not on the PATH)",
                "pip install onnxruntime",
            ],
        );
        let got = searching(&folder, args, [("ORT_DYLIB_PATH", &folder.path().join("gone.so"))]);
        one_message(&got, &["gone.so (no such file)"]);
        let got = searching(&folder, args, [("ORT_DYLIB_PATH", &no_library)]);
        one_message(&got, &["libonnxruntime.so", "cannot be used", "1.17"]);
    }
    let written = ["y.npz", "r.json"].map(|name| folder.path().join(name).exists());
    assert_eq!(written, [false, false]);
}

fn settings() {
    let folder = Folder::new();
    folder.model("a.onnx", &Small::default().graph());
    let cases: [(&[&str], &str); 5] = [
        (&["run", "a.onnx", "--optimisation", "all"], "add --backend onnxruntime"),
        (&["run", "a.onnx", "--backend", "onnxruntime", "--precision", "f64"], "embedded backend alone"),
        (&["diff", "a.onnx", "a.onnx", "--optimisation", "all"], "runs neither of the two"),
        (&["diff", "a.onnx", "a.onnx", "--optimisation-b", "all"], "add --backend onnxruntime"),
        (
            &[
                "diff",
                "a.onnx",
                "a.onnx",
                "--backend",
                "onnxruntime",
                "--backend-a",
                "embedded",
                "--optimisation-a",
                "all",
            ],
            "add --backend onnxruntime",
        ),
    ];
    for (args, says) in cases {
        one_message(&folder.isotrace(args), &[says]);
    }
}

/// The folder of Python packages in which a library lies:
/// `.../lib/python3.x/site-packages/onnxruntime/capi/libonnxruntime.so.1.x.y`.
fn packages(library: &Path) -> Option<&Path> {
    library.ancestors().find(|p| p.ends_with("site-packages"))
}

fn environment() {
    let packages = packages(Runtime::load().unwrap().library()).unwrap();
    let root = packages.ancestors().nth(3).unwrap();
    let folder = Folder::new();
    folder.model("a.onnx", &Small::default().graph());
    let args = ["run", "a.onnx", "--backend", "onnxruntime"];
    let of_environment = searching(&folder, &args, [("VIRTUAL_ENV", root)]);
    let of_python = searching(&folder, &args, [("PATH", root.join("bin").as_path())]);
    assert!(of_environment.status == 0 && of_environment.out.contains("output  y f32"), "{of_environment:?}");
    assert_eq!(of_environment.out, of_python.out);
}

fn written(path: PathBuf) -> BTreeMap<String, Tensor> {
    isotrace_trace::read_tensors(path).unwrap().into_iter().collect()
}

fn run() {
    let folder = Folder::new();
    folder.model("a.onnx", &Small::default().graph());
    let with = |args: &[&str], file: &str| {
        let common = ["run", "a.onnx", "--backend", "onnxruntime", "--seed", "3", "-o", file];
        let got = folder.isotrace(common.iter().chain(args));
        assert_eq!((got.status, got.err.as_str()), (0, ""), "{got:?}");
        (got.out, written(folder.path().join(file)))
    };
    for level in LEVELS {
        let (_, untouched) = with(&["--optimisation", level], "y.npz");
        let (told, observed) = with(&["--optimisation", level, "--outputs", "all"], "all.safetensors");
        assert_eq!(untouched.keys().collect::<Vec<_>>(), ["y"]);
        assert!(untouched["y"].bit_eq(&observed["y"]), "looking changed the output at {level}");
        assert!(
            observed.contains_key("x") && told.contains(&format!("optimisation {level}, 1 thread")),
            "{told}"
        );
    }
    let (_, inner) = with(&["--optimisation", "disable", "--outputs", "product,positive"], "inner.npz");
    assert_eq!(inner.keys().collect::<Vec<_>>(), ["positive", "product"]);
    let embedded = folder.isotrace(["run", "a.onnx", "--seed", "3", "--outputs", "product", "-o", "own.npz"]);
    assert_eq!(embedded.status, 0, "{embedded:?}");
    let own = written(folder.path().join("own.npz"));
    let (ours, theirs) = (own["product"].to_f64().unwrap(), inner["product"].to_f64().unwrap());
    assert!(ours.iter().zip(theirs.iter()).all(|(x, y)| (x - y).abs() < 1e-6), "{ours:?} {theirs:?}");
    let gone = folder.isotrace(["run", "a.onnx", "--backend", "onnxruntime", "--outputs", "prodct"]);
    one_message(&gone, &["did you mean \"product\"?"]);
    let fused = "/bert/encoder/layer.0/attention/self/MatMul_output_0";
    let gone = folder.isotrace([
        "run",
        &example("bert_a.onnx"),
        "--inputs",
        &example("inputs.npz"),
        "--backend",
        "onnxruntime",
        "--outputs",
        fused,
    ]);
    one_message(&gone, &["is a value of the model", "optimiser (level all) took it away"]);
}

fn reported(args: &[&str]) -> (i32, Report) {
    let got = Folder::new().isotrace(["diff"].iter().chain(args).chain(&["--json", "-"]));
    assert!(got.err.is_empty(), "{args:?}: {got:?}");
    (got.status, json::parse(&got.out).unwrap())
}

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name).display().to_string()
}

fn planted() {
    let [a, b, inputs] = ["bert_a.onnx", "bert_b.onnx", "inputs.npz"].map(example);
    for backend in ["--backend", "--backend-a", "--backend-b"] {
        for level in ["disable", "all"] {
            let place = format!("{backend} onnxruntime, {level}");
            let settings = [backend, "onnxruntime", "--optimisation", level, "--inputs", &inputs];
            let pair = |a: &str, b: &str| reported(&[&[a, b], settings.as_slice()].concat());
            let (status, report) = pair(&a, &b);
            assert_eq!((status, report.verdict), (1, Verdict::Divergent), "{place}: {}", report.reason);
            assert_eq!(report.culprits.len(), 1, "{place}: {}", report.reason);
            let culprit = &report.culprits[0];
            assert_eq!(culprit.cause.class, "scale", "{place}: {}", report.reason);
            assert_eq!(culprit.b.outputs, ["mul"], "{place}: {}", report.reason);
            let proof = culprit.cause.counterfactual.as_ref().unwrap();
            assert!(proof.after < proof.before / 1e3, "{place}: {proof:?}");
            assert!(!report.warnings.iter().any(|w| w.class == "observer_effect"), "{place}");
            // And nothing is found where nothing is.
            let (status, report) = pair(&a, &a);
            assert_eq!(status, 0, "{place}: {}", report.reason);
        }
    }
}

fn who() {
    let [a, inputs] = ["bert_a.onnx", "inputs.npz"].map(example);
    let (status, report) = reported(&[
        &a,
        &a,
        "--inputs",
        &inputs,
        "--backend-b",
        "onnxruntime",
        "--optimisation-b",
        "extended",
    ]);
    assert_eq!(status, 0, "{}", report.reason);
    assert!(report.a.run.is_none());
    let run = report.b.run.unwrap();
    assert_eq!(
        (run.backend.as_str(), run.optimisation.as_str(), run.threads),
        ("onnxruntime", "extended", 1)
    );
    assert!(run.recorded + report.inputs.len() == report.b.values && run.left_out == 0, "{run:?}");
    assert!(report.b.nodes < report.a.nodes, "the optimiser fused something");
}

/// y = relu(x + noise), the noise made behind a node that the optimiser removes.
fn noisy() -> Graph {
    let mut graph = Small::default().graph();
    let [copy, noise] =
        ["copy", "noise"].map(|n| graph.add_value(Value { name: n.into(), ..Value::default() }));
    let input = graph.nodes[1].inputs[0];
    let node = |op: &str, inputs, output| Node {
        op: op.into(),
        name: op.into(),
        inputs,
        outputs: vec![Some(output)],
        ..graph.nodes[0].clone()
    };
    let made = [
        node("Identity", vec![input], copy),
        node("RandomNormalLike", vec![Some(copy)], noise),
        // In place of the Relu; its factor is random.
        node("Mul", vec![input, Some(noise)], graph.nodes[1].outputs[0].unwrap()),
    ];
    graph.nodes.splice(1..2, made);
    graph
}

fn effect() {
    let folder = Folder::new();
    let model = folder.model("noisy.onnx", &noisy()).display().to_string();
    let (_, report) = reported(&[&model, &model, "--backend-b", "onnxruntime", "--optimisation", "basic"]);
    let warning = report.warnings.iter().find(|w| w.class == "observer_effect");
    let warning = warning.unwrap_or_else(|| panic!("{:?}", report.warnings));
    assert!(warning.summary.contains("noisy.onnx"), "{}", warning.summary);
    let (_, report) = reported(&[&model, &model, "--backend-b", "onnxruntime", "--optimisation", "disable"]);
    assert!(!report.warnings.iter().any(|w| w.class == "observer_effect"), "{:?}", report.warnings);
}

fn networks() {
    let zoo = PathBuf::from(std::env::var_os("ISOTRACE_ZOO").unwrap()).join("models");
    let mut networks: Vec<PathBuf> = std::fs::read_dir(&zoo).unwrap().map(|e| e.unwrap().path()).collect();
    networks.sort();
    assert!(!networks.is_empty(), "{} holds no models", zoo.display());
    let mut wrong = Vec::new();
    for network in networks {
        let [model, inputs] = ["script.onnx", "inputs.npz"].map(|f| network.join(f).display().to_string());
        for level in LEVELS {
            for backend in ["--backend-a", "--backend-b"] {
                let (status, report) = reported(&[
                    &model,
                    &model,
                    "--inputs",
                    &inputs,
                    backend,
                    "onnxruntime",
                    "--optimisation",
                    level,
                ]);
                let clean = status == 0 && report.warnings.iter().all(|w| w.class != "observer_effect");
                // Final outputs of real kernels differ from ours in some bit; were they identical, ours had run twice.
                if !clean || report.verdict != Verdict::Equivalent {
                    wrong.push(format!("{model} {backend} {level}: {:?} {}", report.verdict, report.reason));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Models that ONNX Runtime wrote hold constants that its optimiser calls as it would call them again, and refuses.
fn own_names() {
    let zoo = PathBuf::from(std::env::var_os("ISOTRACE_ZOO").unwrap());
    for base in ["script", "dynamo"] {
        let network = zoo.join("models/bert");
        let case = zoo.join(format!("cases/bert-benign-ort_basic-{base}"));
        let truth: serde_json::Value =
            serde_json::from_slice(&std::fs::read(case.join("truth.json")).unwrap()).unwrap();
        let a = case.join(truth["a"].as_str().unwrap()).display().to_string();
        let b = case.join("b.onnx").display().to_string();
        let inputs = network.join("inputs.npz").display().to_string();
        let (status, report) =
            reported(&[&a, &b, "--inputs", &inputs, "--backend-b", "onnxruntime", "--optimisation", "all"]);
        assert_eq!((status, report.verdict), (0, Verdict::Equivalent), "{base}: {}", report.reason);
    }
}
