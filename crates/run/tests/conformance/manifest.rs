//! Expected failures: `case: reason`, one a line, sorted; `#` begins a comment.

use std::collections::BTreeMap;
use std::path::PathBuf;

pub struct Manifest {
    path: PathBuf,
    head: String,
    reasons: BTreeMap<String, String>,
}

impl Manifest {
    pub fn read(mode: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/conformance")
            .join(format!("manifest-{mode}.txt"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut head = String::new();
        let mut reasons = BTreeMap::new();
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            if line.starts_with('#') {
                head.push_str(line);
                head.push('\n');
                continue;
            }
            let (name, reason) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("{}: expected `case: reason`, found {line:?}", path.display()));
            let twice = reasons.insert(name.to_owned(), reason.to_owned());
            assert!(twice.is_none(), "{}: {name} is listed twice", path.display());
        }
        Self { path, head, reasons }
    }

    pub fn len(&self) -> usize {
        self.reasons.len()
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.reasons.keys()
    }

    pub fn reason(&self, case: &str) -> Option<&str> {
        self.reasons.get(case).map(String::as_str)
    }

    /// The manifest as it should be: what fails now, with the known reason or the error.
    pub fn update(self, cases: &[String], run: impl Fn(&str) -> Result<(), String>) -> Self {
        let mut reasons = BTreeMap::new();
        for case in cases {
            if let Err(error) = run(case) {
                // A case whose operator was missing may fail differently once it is there.
                let known = self
                    .reason(case)
                    .filter(|r| !r.starts_with(MISSING) || short(&error).starts_with(MISSING));
                reasons.insert(case.clone(), known.map_or_else(|| short(&error), str::to_owned));
            }
        }
        Self { reasons, ..self }
    }

    pub fn write(&self) {
        let mut text = self.head.clone();
        for (name, reason) in &self.reasons {
            text += &format!("{name}: {reason}\n");
        }
        std::fs::write(&self.path, text).unwrap();
    }
}

const MISSING: &str = "no operator ";

/// An error in as many words as a manifest's line bears.
fn short(error: &str) -> String {
    let error = error.replace('\n', " ");
    if let Some((_, rest)) = error.split_once("operator ")
        && let Some((op, rest)) = rest.split_once(" of domain \"")
        && let Some((domain, rest)) = rest.split_once('"')
        && rest.contains("is not supported")
    {
        let name = if domain.is_empty() { op.to_owned() } else { format!("{domain}.{op}") };
        return format!("{MISSING}{name}");
    }
    if let Some((_, kind)) = error.split_once(" holds a ")
        && let Some((kind, _)) = kind.split_once(", which is not supported here")
    {
        return format!("holds a {kind}; only tensors are supported");
    }
    error.chars().take(200).collect()
}
