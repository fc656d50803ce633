//! ONNX's backend node tests, and cases that ONNX Runtime wrote for com.microsoft's operators
//! (`tests/runtime_cases.py`), in declared precision and in float64.
//!
//! `tests/onnx_node_tests.py OUT` writes the cases as files; `ISOTRACE_NODE_TESTS=OUT cargo test -p isotrace-run
//! --test conformance` runs them, and without the variable says that it ran none. Each precision has a manifest of
//! expected failures beside this file, one `case: reason` a line. A case in it that passes fails the suite until
//! its line is removed, so the manifests always say what is missing and nothing else.
//!
//! `ISOTRACE_CONFORMANCE_WRITE=1` rewrites the manifests from what happens: new failures get the error as their
//! reason, known ones keep theirs. Read the difference before committing it.

#![expect(clippy::print_stderr, reason = "a suite that did not run has to say so")]

mod case;
mod compare;
mod manifest;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use isotrace_ops::Precision;
use libtest_mimic::{Arguments, Failed, Trial};
use manifest::Manifest;

/// The two ways to run a case, and the names of their trials and manifests.
const MODES: [(&str, Precision); 2] = [("declared", Precision::Declared), ("float64", Precision::Float64)];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // com.microsoft's operators: what ONNX Runtime made of them is kept beside this suite; all of it has to agree.
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtime");
    let mut trials: Vec<Trial> = vec![];
    for (mode, precision) in MODES {
        for name in case_names(&own) {
            let folder = own.join(&name);
            trials.push(Trial::test(format!("runtime::{mode}::{name}"), move || {
                Ok(case::run(&folder, precision)?)
            }));
        }
    }
    let Some(root) = std::env::var_os("ISOTRACE_NODE_TESTS").map(PathBuf::from) else {
        eprintln!("SKIPPED: set ISOTRACE_NODE_TESTS to the folder that tests/onnx_node_tests.py wrote");
        let skipped = Trial::test("ISOTRACE_NODE_TESTS is not set", || Ok(())).with_ignored_flag(true);
        trials.push(skipped);
        return libtest_mimic::run(&arguments, trials).exit_code();
    };
    let cases = case_names(&root);
    if std::env::var_os("ISOTRACE_CONFORMANCE_WRITE").is_some() {
        for (mode, precision) in MODES {
            Manifest::read(mode).update(&cases, |name| case::run(&root.join(name), precision)).write();
        }
        return ExitCode::SUCCESS;
    }
    for (mode, precision) in MODES {
        let manifest = Manifest::read(mode);
        eprintln!("{mode}: {} of {} cases are expected to pass", cases.len() - manifest.len(), cases.len());
        let stale: Vec<String> = manifest.names().filter(|n| !cases.contains(n)).cloned().collect();
        trials.push(Trial::test(format!("{mode}::the_manifest_names_only_cases"), move || {
            if stale.is_empty() { Ok(()) } else { Err(format!("no such cases: {}", stale.join(", ")).into()) }
        }));
        for name in &cases {
            let folder = root.join(name);
            let expected = manifest.reason(name).map(str::to_owned);
            trials.push(Trial::test(format!("{mode}::{name}"), move || {
                judge(case::run(&folder, precision), expected.as_deref(), mode)
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn judge(outcome: Result<(), String>, expected: Option<&str>, mode: &str) -> Result<(), Failed> {
    match (outcome, expected) {
        (Ok(()), Some(reason)) => {
            Err(format!("passes now; remove its line ({reason}) from manifest-{mode}.txt").into())
        }
        (Err(error), None) => Err(error.into()),
        _ => Ok(()),
    }
}

fn case_names(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).unwrap_or_else(|e| panic!("cannot list {}: {e}", root.display()));
    let mut names: Vec<String> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.join("model.onnx").is_file())
        .filter_map(|p| p.file_name()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{} holds no cases; run tests/onnx_node_tests.py", root.display());
    names
}
