//! `isotrace ops`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use isotrace_ops::Entry;

use crate::console::{self, Console};

/// The domain of PyTorch's operators, which recordings hold.
const ATEN: &str = "aten";

/// Lists the supported operators.
pub fn run(json: bool, console: Console) -> anyhow::Result<u8> {
    let text = if json { as_json() } else { as_text(console) };
    console::print(&text)?;
    Ok(0)
}

/// The domain as files name it where they name it.
fn domain(entry: &Entry) -> &'static str {
    if entry.domain.is_empty() { "ai.onnx" } else { entry.domain }
}

fn as_json() -> String {
    let of_files = isotrace_ops::entries().iter().map(|e| {
        serde_json::json!({"domain": domain(e), "op": e.op, "since": e.since, "newest": isotrace_ops::newest(e.domain)})
    });
    let of_recordings = isotrace_aten::operators()
        .into_iter()
        .map(|op| serde_json::json!({"domain": ATEN, "op": op, "since": 1, "newest": null}));
    let entries: Vec<serde_json::Value> = of_files.chain(of_recordings).collect();
    let mut text = serde_json::to_string_pretty(&entries).expect("plain values");
    text.push('\n');
    text
}

fn as_text(console: Console) -> String {
    let mut domains: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in isotrace_ops::entries() {
        domains.entry(domain(entry)).or_default().push(entry);
    }
    let mut out = String::new();
    for (name, mut entries) in domains {
        entries.sort_by_key(|e| e.op);
        let until = isotrace_ops::newest(entries[0].domain)
            .map(|n| format!(", up to version {n}"))
            .unwrap_or_default();
        let _ = writeln!(out, "{name}: {} operators{until}", entries.len());
        let named =
            |e: &&Entry| if e.since > 1 { format!("{} (from {})", e.op, e.since) } else { e.op.to_owned() };
        listed(&mut out, &entries.iter().map(named).collect::<Vec<_>>(), console);
    }
    let aten = isotrace_aten::operators();
    let _ = writeln!(out, "{ATEN}, in recordings of PyTorch: {} operators", aten.len());
    listed(&mut out, &aten.into_iter().map(str::to_owned).collect::<Vec<_>>(), console);
    out
}

/// One a line for programs, columns for eyes.
fn listed(out: &mut String, cells: &[String], console: Console) {
    let widest = cells.iter().map(String::len).max().unwrap_or(0) + 2;
    let columns = if console.terminal { ((console.width - 2) / widest).max(1) } else { 1 };
    for line in cells.chunks(columns) {
        let padded: Vec<String> = line.iter().map(|c| format!("{c:widest$}")).collect();
        let _ = writeln!(out, "  {}", padded.concat().trim_end());
    }
}
