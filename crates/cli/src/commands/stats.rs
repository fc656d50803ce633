//! `isotrace stats`.

use std::path::Path;

use anstyle::Style;
use anyhow::bail;
use isotrace_compare::{Scalar, Stats, describe, first};
use isotrace_inputs::nearest;
use isotrace_report::printable;
use isotrace_tensor::{DType, Tensor};
use isotrace_trace::Source;
use serde_json::{Value, json};

use crate::args;
use crate::console::{self, Console};
use crate::load;
use crate::page::{self, BOLD, DIM, Table, YELLOW, paint, paragraph};
use crate::progress::Progress;

/// The schema of the JSON. Fields may be added under the same number.
const SCHEMA: &str = "isotrace.stats/1";
/// Bars of a histogram in a row, and on a page of its own.
const BARS: [usize; 2] = [12, 48];
/// Elements shown.
const FIRST: usize = 6;
/// The share of elements at one end from which a tensor counts as saturated.
const SATURATED: f64 = 0.01;
/// Elements other than 0 from which on their common type is no accident.
const EVIDENCE: u64 = 16;

/// A tensor and what it holds.
struct Row {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    first: Vec<Scalar>,
    stats: Stats,
    warnings: Vec<String>,
}

/// Tells what tensors hold.
pub fn run(args: &args::Stats, console: Console) -> anyhow::Result<u8> {
    let source = isotrace_trace::open(&args.file)?;
    let names = wanted(&source, &args.names)?;
    let progress = Progress::new();
    let bars = if args.names.is_empty() { BARS[0] } else { BARS[1] };
    let mut rows = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        progress.show("reading", i, names.len());
        rows.push(row(name, &source.get(name)?, bars));
    }
    progress.clear();
    for note in source.notes().iter().filter(|note| note.limits()) {
        console::complain("warning:", &format!("{}: {note}", args.file.display()));
    }
    if rows.is_empty() {
        console::complain("warning:", &format!("{} holds no tensor", args.file.display()));
    }
    match &args.json {
        Some(path) if path == Path::new("-") => console::print(&as_json(&source, &rows))?,
        path => {
            if let Some(path) = path {
                load::write_text(path, &as_json(&source, &rows))?;
            }
            let text =
                if args.names.is_empty() { table(&source, &rows, console) } else { pages(&rows, console) };
            console::print(&text)?;
        }
    }
    Ok(0)
}

/// The tensors asked for, all where none are.
fn wanted<'s>(source: &'s Source, patterns: &[String]) -> anyhow::Result<Vec<&'s str>> {
    if patterns.is_empty() {
        return Ok(source.names().collect());
    }
    for pattern in patterns {
        if !source.names().any(|name| matches(pattern, name)) {
            let hint = nearest(pattern, source.names())
                .map(|n| format!(" (did you mean {n:?}?)"))
                .unwrap_or_default();
            bail!("{pattern:?} is no tensor of {}{hint}", source.path().display());
        }
    }
    Ok(source.names().filter(|name| patterns.iter().any(|p| p == name || matches(p, name))).collect())
}

/// Whether a name is the pattern, `*` standing for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let (Some(head), Some(rest)) = (parts.next(), name.strip_prefix(pattern.split('*').next().unwrap_or("")))
    else {
        return false;
    };
    let mut rest = rest;
    let parts: Vec<&str> = parts.collect();
    let Some((tail, middle)) = parts.split_last() else { return head == name };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= tail.len() && rest.ends_with(tail)
}

fn row(name: &str, tensor: &Tensor, bars: usize) -> Row {
    let stats = describe(tensor, bars);
    let warnings = warnings(tensor.dtype(), &stats);
    Row {
        name: name.to_owned(),
        dtype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
        first: first(tensor, FIRST),
        stats,
        warnings,
    }
}

/// An element in a few digits.
fn shown(x: &Scalar) -> String {
    match x {
        Scalar::Real(x) => page::short(*x),
        Scalar::Integer(n) => n.to_string(),
        Scalar::Complex([re, im]) => {
            let sign = if im.is_sign_negative() { "" } else { "+" };
            format!("{}{sign}{}j", page::short(*re), page::short(*im))
        }
        Scalar::Text(text) => format!("{text:?}"),
    }
}

fn warnings(dtype: DType, s: &Stats) -> Vec<String> {
    let mut out = Vec::new();
    let finite = s.len - s.nan - s.inf;
    let [Some(min), Some(max)] = [s.min, s.max] else {
        if s.len > 0 && dtype != DType::String {
            out.push("no finite element".to_owned());
        }
        return out;
    };
    if s.nan > 0 {
        out.push(format!("{} NaN", page::count(s.nan)));
    }
    if s.inf > 0 {
        out.push(format!("{} infinite", page::count(s.inf)));
    }
    if min == max && finite > 1 {
        out.push(format!("constant: every element is {}", page::short(min)));
    } else if dtype != DType::Bool && finite > 1 {
        for (at, bound, end) in [(s.at[0], min, "minimum"), (s.at[1], max, "maximum")] {
            let limit = dtype.largest_finite().is_some_and(|l| bound.abs() == l);
            // Zeros at an end are what a ReLU leaves, and a few equal elements happen.
            if (limit && at > 0) || (at > 2 && at as f64 >= SATURATED * finite as f64 && bound != 0.0) {
                let share = page::percent(at, finite);
                out.push(format!("saturated: {share} of the elements are the {end}, {}", page::short(bound)));
            }
        }
    }
    // A few round numbers, or one over and over, fit every type and say nothing of where they come from.
    if let Some(fits) = s.fits
        && min < max
        && finite - s.zeros >= EVIDENCE
    {
        out.push(format!("coarser than declared: {dtype} that holds only {fits} values"));
    }
    out
}

fn table(source: &Source, rows: &[Row], console: Console) -> String {
    let path = source.path().display().to_string();
    let kind = format!("{}, {}", source.kind(), page::of(rows.len(), "tensor"));
    let mut out = format!("{}  {}\n", paint(console, BOLD, &printable(&path)), paint(console, DIM, &kind));
    if rows.is_empty() {
        return out;
    }
    out.push('\n');
    let plain = |text: String| (text, Style::new());
    let number = |x: Option<f64>| plain(x.map_or("-".to_owned(), page::short));
    let told = |n: u64, style: Style| (if n == 0 { "-".to_owned() } else { page::count(n) }, style);
    let cells = rows.iter().map(|r| {
        let s = &r.stats;
        vec![
            plain(r.name.clone()),
            plain(r.dtype.to_string()),
            plain(page::shape(&r.shape)),
            number(s.min),
            number(s.max),
            number(s.mean),
            number(s.std),
            told(s.nan, if s.nan > 0 { YELLOW } else { Style::new() }),
            told(s.inf, if s.inf > 0 { YELLOW } else { Style::new() }),
            plain(page::percent(s.zeros, s.len)),
            told(s.denormals, Style::new()),
            (page::bars(&s.histogram), DIM),
        ]
    });
    let header = vec![
        "tensor",
        "type",
        "shape",
        ">min",
        ">max",
        ">mean",
        ">std",
        ">NaN",
        ">inf",
        ">zeros",
        ">denorm",
        "min to max",
    ];
    for line in (Table { header, rows: cells.collect() }).lines(console) {
        out.push_str(&line);
        out.push('\n');
    }
    let mut gap = "\n";
    for row in rows {
        for warning in &row.warnings {
            out.push_str(gap);
            gap = "";
            let text = format!("{}: {warning}", row.name);
            out.push_str(&paragraph(console, "warning  ", YELLOW, &text));
        }
    }
    out
}

fn pages(rows: &[Row], console: Console) -> String {
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let Row { name, dtype, shape, first, stats: s, warnings } = row;
        let name = printable(name);
        out.push_str(&format!("{}  {dtype}{}\n", paint(console, BOLD, &name), page::shape(shape)));
        let mut line = |head: &str, style: Style, text: &str| {
            out.push_str(&paragraph(console, &format!("  {head:<10}"), style, text));
        };
        if let (Some(min), Some(max), Some(mean), Some(std)) = (s.min, s.max, s.mean, s.std) {
            let range = format!("{} to {}", page::short(min), page::short(max));
            line("range", DIM, &range);
            line("mean", DIM, &format!("{}, standard deviation {}", page::short(mean), page::short(std)));
        }
        let counts = [(s.nan, "NaN"), (s.inf, "infinite"), (s.zeros, "zero"), (s.denormals, "denormal")]
            .map(|(n, what)| format!("{} {what}", page::count(n)))
            .join(", ");
        line("elements", DIM, &format!("{}: {counts}", page::count(s.len)));
        if !first.is_empty() {
            let more = if s.len as usize > first.len() { " ..." } else { "" };
            let told: Vec<String> = first.iter().map(shown).collect();
            line("first", DIM, &format!("{}{more}", told.join(" ")));
        }
        if let (false, Some(min), Some(max)) = (s.histogram.is_empty(), s.min, s.max) {
            let bars = page::bars(&s.histogram);
            out.push_str(&format!(
                "  {}{} |{bars}| {}\n",
                paint(console, DIM, "histogram "),
                page::short(min),
                page::short(max)
            ));
        }
        for warning in warnings {
            out.push_str(&paragraph(console, "  warning   ", YELLOW, warning));
        }
    }
    out
}

/// What a tensor holds, as the JSON of `isotrace stats` has it of each; `bars` of a histogram.
#[must_use]
pub fn of_tensor(name: &str, tensor: &Tensor, bars: usize) -> Value {
    fields(&row(name, tensor, bars))
}

fn fields(Row { name, dtype, shape, first, stats: s, warnings }: &Row) -> Value {
    let number = |x: Option<f64>| x.map_or(Value::Null, page::json);
    let first: Vec<Value> = first.iter().map(page::scalar).collect();
    json!({
        "name": name, "dtype": dtype.name(), "shape": shape, "elements": s.len,
        "min": number(s.min), "max": number(s.max), "mean": number(s.mean), "std": number(s.std),
        "nan": s.nan, "inf": s.inf, "zeros": s.zeros, "denormals": s.denormals,
        "at_min": s.at[0], "at_max": s.at[1], "fits": s.fits, "first": first,
        "histogram": s.histogram, "warnings": warnings,
    })
}

fn as_json(source: &Source, rows: &[Row]) -> String {
    let tensors: Vec<Value> = rows.iter().map(fields).collect();
    let value = json!({
        "schema": SCHEMA,
        "source": source.path().display().to_string(),
        "kind": source.kind().name(),
        "notes": source.notes(),
        "tensors": tensors,
    });
    let mut text = serde_json::to_string_pretty(&value).expect("every key is a text");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("h.*.attn", "h.0.attn", true),
            ("h.*.attn", "h.0.attn.out", false),
            ("*attn*", "h.0.attn.out", true),
            ("*", "", true),
            ("a*a", "a", false),
            ("h.*", "g.1", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
