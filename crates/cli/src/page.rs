//! Text for eyes: numbers in few characters, tables that fit, small charts.

use anstyle::{AnsiColor, Style};
use isotrace_compare::Scalar;
use isotrace_report::printable;

use crate::console::Console;

pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
pub const RED: Style = AnsiColor::Red.on_default().bold();
pub const GREEN: Style = AnsiColor::Green.on_default().bold();
pub const YELLOW: Style = AnsiColor::Yellow.on_default().bold();

/// The text in a style, where colours are wanted.
pub fn paint(console: Console, style: Style, text: &str) -> String {
    if console.colour && !text.trim().is_empty() {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

/// Two significant digits, small whole numbers whole: a difference.
pub fn brief(x: f64) -> String {
    match x {
        x if x.fract() == 0.0 && x.abs() < 1e5 => format!("{x}"),
        x if x.is_finite() => format!("{x:.1e}"),
        x => x.to_string().to_lowercase(),
    }
}

/// All digits, with an exponent where that is shorter.
pub fn plain(x: f64) -> String {
    let (with, without) = (format!("{x:e}"), format!("{x}"));
    if with.len() < without.len() { with } else { without }
}

/// Some four significant digits: a value.
pub fn short(x: f64) -> String {
    match x {
        _ if !x.is_finite() => x.to_string().to_lowercase(),
        0.0 => if x.is_sign_negative() { "-0" } else { "0" }.to_owned(),
        _ if x.fract() == 0.0 && x.abs() < 1e6 => format!("{x}"),
        _ if (1e-3..1e5).contains(&x.abs()) => {
            let digits = (3 - x.abs().log10().floor() as i32).max(0) as usize;
            let text = format!("{x:.digits$}");
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
        _ => format!("{x:.3e}"),
    }
}

/// A whole number with its thousands apart.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 tensor`, `2 tensors`.
pub fn of(n: usize, what: &str) -> String {
    format!("{} {what}{}", count(n as u64), if n == 1 { "" } else { "s" })
}

/// A part in percent, never rounded to none or all.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0 %".to_owned();
    }
    let share = 100.0 * part as f64 / whole as f64;
    match share {
        0.0 => "0 %".to_owned(),
        _ if part == whole => "100 %".to_owned(),
        s if s < 0.01 => "<0.01 %".to_owned(),
        s if s > 99.9 => ">99.9 %".to_owned(),
        s if s < 1.0 => format!("{s:.2} %"),
        s if s < 10.0 => format!("{s:.1} %"),
        s => format!("{s:.0} %"),
    }
}

/// `[2,3]`.
pub fn shape(dims: &[usize]) -> String {
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    format!("[{}]", dims.join(","))
}

/// Heights as a row of bars; whatever is not none has a bar.
pub fn bars(heights: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = heights.iter().copied().fold(0.0, f64::max);
    heights
        .iter()
        .map(|&h| if h <= 0.0 { ' ' } else { BARS[((h / highest * 8.0).ceil() as usize).clamp(1, 8) - 1] })
        .collect()
}

/// Names with commas, cut after `shown`.
pub fn listed<S: AsRef<str>>(names: &[S], shown: usize) -> String {
    let first: Vec<String> = names.iter().take(shown).map(|n| printable(n.as_ref()).into_owned()).collect();
    match names.len().saturating_sub(shown) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Cut in the middle to `width` columns: names share their beginnings, so the end gets two thirds.
fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let head = (width - 1) / 3;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - (width - 1 - head)).collect();
    format!("{start}…{end}")
}

/// A table whose first column is cut where the whole is too wide, and whose last may run over.
pub struct Table {
    /// The names of the columns; those that begin with `>` stand to the right.
    pub header: Vec<&'static str>,
    /// Cells, each with its style.
    pub rows: Vec<Vec<(String, Style)>>,
}

/// Least columns of a name.
const NAME: usize = 16;

impl Table {
    /// Lines, the header first.
    pub fn lines(&self, console: Console) -> Vec<String> {
        let wide = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = self.header.iter().map(|h| wide(h.trim_start_matches('>'))).collect();
        for row in &self.rows {
            for (width, (cell, _)) in widths.iter_mut().zip(row) {
                *width = (*width).max(wide(&printable(cell)));
            }
        }
        let total = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
        let over = total.saturating_sub(console.width.max(60));
        widths[0] = widths[0].saturating_sub(over).max(NAME.min(widths[0]));
        let line = |cells: &mut dyn Iterator<Item = (String, Style)>| {
            let mut out = String::new();
            for (i, (text, style)) in cells.enumerate() {
                let text = cut(&printable(&text), widths[i].max(1));
                let pad = " ".repeat(widths[i] - wide(&text));
                let painted = paint(console, style, &text);
                if self.header[i].starts_with('>') {
                    out.push_str(&pad);
                    out.push_str(&painted);
                } else {
                    out.push_str(&painted);
                    out.push_str(&pad);
                }
                out.push_str("  ");
            }
            out.trim_end().to_owned()
        };
        let header = line(&mut self.header.iter().map(|h| (h.trim_start_matches('>').to_owned(), BOLD)));
        std::iter::once(header).chain(self.rows.iter().map(|row| line(&mut row.iter().cloned()))).collect()
    }
}

/// A head and a text after it, broken at words; further lines are indented under the text.
pub fn paragraph(console: Console, head: &str, style: Style, text: &str) -> String {
    let indent = head.chars().count();
    let width = console.width.max(60);
    let mut out = paint(console, style, head);
    let mut column = indent;
    for (i, word) in printable(text).split_whitespace().enumerate() {
        let length = word.chars().count();
        if i > 0 && column + 1 + length > width {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
    out
}

/// A number for JSON: those that it cannot write are the texts `"nan"`, `"inf"` and `"-inf"`, as in the report.
pub fn json(x: f64) -> serde_json::Value {
    match x {
        x if x.is_nan() => "nan".into(),
        x if x.is_infinite() => if x > 0.0 { "inf" } else { "-inf" }.into(),
        x => x.into(),
    }
}

/// An element for JSON, every digit of it: a complex number is a list of its parts.
pub fn scalar(x: &Scalar) -> serde_json::Value {
    match x {
        Scalar::Real(x) => json(*x),
        // Every integer type fits one of both.
        Scalar::Integer(n) => match (i64::try_from(*n), u64::try_from(*n)) {
            (Ok(n), _) => n.into(),
            (_, Ok(n)) => n.into(),
            _ => json(*n as f64),
        },
        Scalar::Complex(parts) => parts.map(json).to_vec().into(),
        Scalar::Text(text) => text.clone().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_wrong() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (0.5, "0.5"),
            (1234.0, "1234"),
            (0.123_456, "0.1235"),
            (1e-9, "1.000e-9"),
        ];
        for (x, text) in cases {
            assert_eq!(short(x), text);
        }
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        let shares = [(0, 9), (1, 1_000_000), (1, 300), (1, 30), (15, 30), (999_999, 1_000_000), (7, 7)];
        let told = ["0 %", "<0.01 %", "0.33 %", "3.3 %", "50 %", ">99.9 %", "100 %"];
        assert_eq!(shares.map(|(a, b)| percent(a, b)), told);
        assert_eq!(bars(&[0.0, 1.0, 1000.0]), " ▁█");
    }
}
