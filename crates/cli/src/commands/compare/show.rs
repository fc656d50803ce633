//! What a comparison of tensors found, for reading.

use std::collections::BTreeMap;

use anstyle::Style;
use isotrace_compare::{Along, Examination, Metrics, Rule, Scalar, Tolerance};
use isotrace_report::{Verdict, printable};
use isotrace_tensor::DType;

use crate::console::Console;
use crate::page::{self, BOLD, DIM, GREEN, RED, Table, YELLOW, paint, paragraph};

use super::Comparison;
use super::judge::{Found, Status};

/// Rows shown unless all are asked for.
const ROWS: usize = 20;
/// Names shown of what only one side has.
const NAMES: usize = 6;

/// For reading.
pub fn text(c: &Comparison<'_>, console: Console, all: bool) -> String {
    let style = match c.verdict {
        Verdict::Identical | Verdict::Equivalent => GREEN,
        Verdict::Divergent => RED,
        Verdict::Invalid | Verdict::Inconclusive => YELLOW,
    };
    let mut out = paragraph(console, &format!("{}: ", c.verdict), style, &c.reason);
    out.push('\n');
    sides(&mut out, c, console);
    rows(&mut out, c, console, all);
    for (i, closer) in &c.closer {
        close(&mut out, c, *i, closer, console);
    }
    for (side, names) in [("x", &c.pairing.only_x), ("y", &c.pairing.only_y)] {
        if !names.is_empty() {
            let shown = if all { names.len() } else { NAMES };
            let told = format!("{}: {}", page::of(names.len(), "tensor"), page::listed(names, shown));
            out.push('\n');
            out.push_str(&paragraph(console, &format!("only in {side}  "), YELLOW, &told));
        }
    }
    out
}

fn sides(out: &mut String, c: &Comparison<'_>, console: Console) {
    let paths = c.sides.map(|s| printable(&s.path().display().to_string()).into_owned());
    let wide = paths.iter().map(|p| p.chars().count()).max().unwrap_or(0);
    for ((name, path), source) in ["x", "y"].into_iter().zip(&paths).zip(c.sides) {
        let kind = format!("{}, {}", source.kind(), page::of(source.len(), "tensor"));
        out.push_str(&format!(
            "{}  {path:wide$}  {}\n",
            paint(console, BOLD, name),
            paint(console, DIM, &kind)
        ));
    }
    if c.found.is_empty() {
        return;
    }
    out.push_str(&paragraph(console, "rule  ", DIM, &rule(c)));
}

/// The formula with its numbers, those of each type where they differ.
fn rule(c: &Comparison<'_>) -> String {
    let (formula, tool) = match c.rules.rule {
        Rule::Torch => ("|x - y| <= atol + rtol |y|", "torch.testing.assert_close"),
        Rule::Numpy => ("|x - y| <= atol + rtol |y|", "numpy.allclose"),
        Rule::Polygraphy => ("|x - y| <= atol or |x - y| / |y| <= rtol", "Polygraphy's simple comparison"),
    };
    let mut by: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for found in &c.found {
        let Tolerance { rtol, atol, .. } = found.tolerance;
        let text = match (rtol, atol) {
            (0.0, 0.0) => "equal".to_owned(),
            _ => format!("rtol {}, atol {}", page::plain(rtol), page::plain(atol)),
        };
        let types = by.entry(text).or_default();
        if !types.contains(&found.dtype[0].name()) {
            types.push(found.dtype[0].name());
        }
    }
    let given: Vec<String> = match by.len() {
        1 => by.into_keys().collect(),
        _ => by.into_iter().map(|(text, types)| format!("{}: {text}", types.join(", "))).collect(),
    };
    let decides = if c.rules.like.is_some() { "exactly as" } else { "as" };
    format!("{formula}, {decides} {tool} decides; {}", given.join("; "))
}

fn colour(status: Status) -> Style {
    match status {
        Status::Identical | Status::Within => GREEN,
        Status::Beyond | Status::Incomparable => RED,
    }
}

fn rows(out: &mut String, c: &Comparison<'_>, console: Console, all: bool) {
    let differ: Vec<usize> = (0..c.found.len()).filter(|&i| c.found[i].status >= Status::Beyond).collect();
    let few = c.found.len() <= ROWS;
    let shown: Vec<usize> = match (all || few, differ.is_empty()) {
        (true, _) => (0..c.found.len()).collect(),
        (false, false) => differ.into_iter().take(ROWS).collect(),
        // Where all is well, what came nearest to not being so.
        (false, true) => {
            let mut order: Vec<usize> = (0..c.found.len()).collect();
            let size = |i: usize| c.found[i].metrics.as_ref().map_or(0.0, |m| m.max_abs);
            order.sort_by(|&a, &b| size(b).total_cmp(&size(a)));
            order.retain(|&i| c.found[i].status != Status::Identical);
            order.truncate(CALM);
            order.sort_unstable();
            order
        }
    };
    let count = |status| c.found.iter().filter(|f| f.status == status).count();
    let counts: Vec<String> = [Status::Beyond, Status::Incomparable, Status::Within, Status::Identical]
        .into_iter()
        .filter(|&s| count(s) > 0)
        .map(|s| format!("{} {}", page::count(count(s) as u64), s.name()))
        .collect();
    if c.found.is_empty() {
        return;
    }
    out.push('\n');
    let more = if shown.len() < c.found.len() { " (--all shows every row)" } else { "" };
    let heading = format!("{}: {}{more}", page::of(c.found.len(), "pair"), counts.join(", "));
    out.push_str(&format!("{}\n", paint(console, BOLD, &heading)));
    if shown.is_empty() {
        return;
    }
    let rows = shown.into_iter().map(|i| row(&c.pairing.pairs[i], &c.found[i])).collect();
    let header =
        vec!["tensor", "type", "shape", ">max abs", ">max rel", ">max ulp", ">rel l2", ">beyond", "verdict"];
    for line in (Table { header, rows }).lines(console) {
        out.push_str(&line);
        out.push('\n');
    }
}

/// Rows shown where nothing differs.
const CALM: usize = 5;

fn row(pair: &super::pairs::Pair, found: &Found) -> Vec<(String, Style)> {
    let plain = |text: String| (text, Style::new());
    let either = |a: String, b: String| if a == b { a } else { format!("{a} | {b}") };
    let name = either(pair.x.clone(), pair.y.clone());
    let dtype = either(found.dtype[0].to_string(), found.dtype[1].to_string());
    let shape = either(page::shape(&found.shape[0]), page::shape(&found.shape[1]));
    let numbers = match &found.metrics {
        Some(m) => [
            page::brief(m.max_abs),
            page::brief(m.max_rel),
            m.max_ulp.map_or("-".to_owned(), steps),
            page::brief(m.rel_l2),
            page::percent(found.beyond, found.len),
        ],
        None => ["-"; 5].map(str::to_owned),
    };
    let mut row = vec![plain(name), plain(dtype), plain(shape)];
    row.extend(numbers.map(plain));
    row.push((found.status.name().to_owned(), colour(found.status)));
    row
}

/// A number of steps: whole while that is short.
fn steps(n: u64) -> String {
    if n < 1_000_000 { page::count(n) } else { format!("{:.0e}", n as f64) }
}

fn close(out: &mut String, c: &Comparison<'_>, i: usize, closer: &Examination, console: Console) {
    let (pair, found) = (&c.pairing.pairs[i], &c.found[i]);
    let Some(metrics) = &found.metrics else { return };
    let shape = found.broadcast.as_ref().unwrap_or(&found.shape[0]);
    out.push('\n');
    let name = printable(&pair.x).into_owned();
    out.push_str(&format!("{}  {}{}\n", paint(console, RED, &name), found.dtype[0], page::shape(shape)));
    let mut line =
        |head: &str, text: &str| out.push_str(&paragraph(console, &format!("  {head:<8}"), DIM, text));
    line(
        "beyond",
        &format!(
            "{} of {} elements ({}); mean difference {}, cosine {}",
            page::count(found.beyond),
            page::count(found.len),
            page::percent(found.beyond, found.len),
            page::brief(metrics.mean_abs),
            cosine(metrics.cosine),
        ),
    );
    if metrics.nan_against_number + metrics.nan[0] + metrics.nan[1] + metrics.inf[0] + metrics.inf[1] > 0 {
        let [x, y] = [0, 1].map(|s| {
            format!("{} NaN and {} infinite", page::count(metrics.nan[s]), page::count(metrics.inf[s]))
        });
        line("special", &format!("x has {x}, y {y}"));
    }
    if !metrics.ulps.is_empty() {
        line("ulps", &ulps(metrics));
    }
    for along in &closer.along {
        if let Some(text) = axis(along, found.beyond) {
            line(&format!("axis {}", along.axis), &text);
        }
    }
    for (k, worst) in closer.worst.iter().enumerate() {
        let off = if worst.difference.is_finite() {
            format!(" off by {}", page::brief(worst.difference))
        } else {
            String::new()
        };
        let at = page::shape(&worst.index);
        let [x, y] = [0, 1].map(|side| exact(&worst.values[side], found.dtype[side]));
        let text = format!("{at} x {x} y {y}{off}");
        line(if k == 0 { "worst" } else { "" }, &text);
    }
}

/// As many digits as tell the number from its neighbours in its own type.
fn exact(x: &Scalar, dtype: DType) -> String {
    let real = |x: f64| {
        let text = match dtype {
            DType::F64 | DType::C128 => format!("{x:?}"),
            _ => format!("{:?}", x as f32),
        };
        text.to_lowercase()
    };
    match x {
        Scalar::Real(x) => real(*x),
        Scalar::Integer(n) => n.to_string(),
        Scalar::Complex([re, im]) => {
            format!("{}{}{}j", real(*re), if im.is_sign_negative() { "" } else { "+" }, real(*im))
        }
        Scalar::Text(text) => format!("{text:?}"),
    }
}

/// So many digits that what is missing to 1 shows.
fn cosine(x: f64) -> String {
    let missing = 1.0 - x;
    if missing > 0.0 && missing < 1e-3 { format!("1 - {missing:.1e}") } else { page::short(x) }
}

/// The histogram as bars, and where half and nearly all of the elements are.
fn ulps(metrics: &Metrics) -> String {
    let counts = &metrics.ulps;
    let total: u64 = counts.iter().sum();
    let within = |share: f64| {
        let mut seen = 0;
        let place = counts.iter().position(|&n| {
            seen += n;
            seen as f64 >= share * total as f64
        });
        // Places in bin k are below 2^k steps apart.
        let k = place.unwrap_or(counts.len() - 1).min(63);
        if k == 0 { "the same".to_owned() } else { format!("within {}", steps((1 << k) - 1)) }
    };
    // A bar for every power of two would be high at one place and flat elsewhere: heights are logarithms.
    let heights: Vec<f64> = counts.iter().map(|&n| (n as f64 + 1.0).log2()).collect();
    let largest = metrics.max_ulp.map(|m| format!("; at most {}", steps(m))).unwrap_or_default();
    let last = counts.len() - 1;
    let end = if last == 0 { String::new() } else { format!(" 2^{}", last - 1) };
    format!("0 |{}|{end} half {}, 99 % {}{largest}", page::bars(&heights), within(0.5), within(0.99))
}

/// Where along an axis the elements beyond the tolerance are; nothing where they are spread as chance would.
fn axis(along: &Along, beyond: u64) -> Option<String> {
    let places = along.beyond.len();
    let hit: Vec<usize> = (0..places).filter(|&k| along.beyond[k] > 0).collect();
    if hit.is_empty() || beyond < 2 {
        return None;
    }
    let (most, &worst) = along.beyond.iter().enumerate().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(&a.0)))?;
    let bars = if places <= 64 {
        let heights: Vec<f64> = along.beyond.iter().map(|&n| n as f64).collect();
        format!(" |{}|", page::bars(&heights))
    } else {
        String::new()
    };
    let head = format!("{} places:", page::count(places as u64));
    let text = if hit.len() == 1 {
        format!("all at {}{bars}", hit[0])
    } else if hit.len() * 4 <= places {
        format!("all at {} of them: {}{bars}", hit.len(), ranges(&hit))
    } else if worst as f64 > 4.0 * beyond as f64 / places as f64 {
        format!("most at {most} ({}){bars}", page::percent(worst, beyond))
    } else {
        "spread".to_owned()
    };
    Some(format!("{head} {text}"))
}

/// `0, 4-7, 9`, cut after some.
fn ranges(places: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &k in places {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == k => *last = k,
            _ => runs.push((k, k)),
        }
    }
    let told: Vec<String> =
        runs.iter().map(|&(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    page::listed(&told, NAMES)
}
