//! Side by side in the form of onnx-array-api's `compare`, for those who know it.
//!
//! A row is `NNN s | left | right`, with s `=` for values that are the same, `~` for paired ones that are not, `-`
//! for A's alone and `+` for B's alone; then, where both were compared, the largest absolute and relative
//! difference. A cell holds the kind in 6 characters, the element type in 8, rank and dimensions, four letters
//! that stand for the elements, the operator in 15, and the name. The form is theirs and so are the letters; the
//! pairs and the signs are ours: `=` means identical or explained by rounding, not that the letters agree.

use std::fmt::Write as _;

use crate::{Entry, Kind, Report, Status, printable};

/// The width of a cell that onnx-array-api takes unless told otherwise.
pub const CELL: usize = 60;

/// The report's listing, a row a line, with cells `cell` characters wide.
pub fn render(report: &Report, cell: usize) -> String {
    let mut out = String::new();
    for (i, row) in report.listing.rows().into_iter().enumerate() {
        let pair = |e: &Entry| e.pair.and_then(|p| report.pairs.get(p));
        let found = row.a.zip(row.b).and_then(|(a, _)| pair(a));
        let sign = match (row.a, row.b, found) {
            (Some(_), Some(_), Some(p)) if matches!(p.status, Status::Identical | Status::Rounding) => '=',
            (Some(_), Some(_), _) => '~',
            (_, None, _) => '-',
            (None, ..) => '+',
        };
        let left = fit(&row.a.map(describe).unwrap_or_default(), cell);
        let right = fit(&row.b.map(describe).unwrap_or_default(), cell);
        let mut line = format!("{:03} {sign} | {left} | {right}", i + 1);
        if let Some((a, r)) = found.and_then(|p| p.metrics.max_abs.zip(p.metrics.max_rel)) {
            let _ = write!(line, " | a={} r={}", five(a), five(r));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// One cell, as long as it comes out.
fn describe(entry: &Entry) -> String {
    let kind = match entry.kind {
        Kind::Initializer => "INITIA",
        Kind::Sparse => "SPARSE",
        Kind::Input => "INPUT",
        Kind::Result => "RESULT",
        Kind::Output => "OUTPUT",
    };
    let dims: Vec<String> = entry.shape.iter().map(usize::to_string).collect();
    let rank = if dims.is_empty() { "  ".to_owned() } else { format!("{}:", dims.len()) };
    format!(
        "{} {} {rank}{} {} {} {}",
        fit(kind, 6),
        fit(numpy_name(&entry.dtype), 8),
        fit(&dims.join("x"), 18),
        entry.summary,
        fit(&printable(&entry.op), 15),
        printable(&entry.name)
    )
}

/// The name of an element type as numpy spells it.
fn numpy_name(dtype: &str) -> &str {
    match dtype {
        "f64" => "float64",
        "f32" => "float32",
        "f16" => "float16",
        "bf16" => "bfloat16",
        "i64" => "int64",
        "i32" => "int32",
        "i16" => "int16",
        "i8" => "int8",
        "u64" => "uint64",
        "u32" => "uint32",
        "u16" => "uint16",
        "u8" => "uint8",
        "c64" => "complex64",
        "c128" => "complex128",
        "string" => "object",
        other => other,
    }
}

/// Cut or padded to `width` characters.
fn fit(text: &str, width: usize) -> String {
    let cut: String = text.chars().take(width).collect();
    format!("{cut:width$}")
}

/// Five significant digits in C's `%.5g`.
fn five(x: f64) -> String {
    if !x.is_finite() || x == 0.0 {
        return if x == 0.0 { "0".to_owned() } else { x.to_string().to_lowercase() };
    }
    let scientific = format!("{x:.4e}");
    let (digits, exponent) = scientific.split_once('e').expect("the form of {:e}");
    let exponent: i32 = exponent.parse().expect("an integer");
    let trim = |s: &str| {
        if s.contains('.') { s.trim_end_matches('0').trim_end_matches('.').to_owned() } else { s.to_owned() }
    };
    if (-4..5).contains(&exponent) {
        trim(&format!("{x:.*}", (4 - exponent) as usize))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim(digits), exponent.abs())
    }
}
