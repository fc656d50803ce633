//! The values side by side: culprits, their neighbours and the final outputs, or all.

use crate::{Pair, Report, Role, Status};

use super::layout::{column, number};
use super::{BOLD, DIM, Page, colour_of};

/// Rows shown before and after a culprit.
const AROUND: usize = 1;

pub(super) fn write(page: &mut Page, report: &Report, all: bool) {
    if report.pairs.is_empty() {
        return;
    }
    let shown = choose(report, all);
    page.gap();
    page.paragraph("", BOLD, 2, &heading(report, shown.len()));
    if shown.is_empty() {
        return;
    }
    let columns = Columns::new(page.width, &shown.iter().map(|&i| &report.pairs[i]));
    let header = page.paint(BOLD, &columns.header());
    page.line(&header);
    let mut last = None;
    for &i in &shown {
        if last.is_some_and(|l| l + 1 < i) {
            let dots = page.paint(DIM, "...");
            page.line(&dots);
        }
        last = Some(i);
        let pair = &report.pairs[i];
        let status = page.paint(colour_of(pair.status), pair.status.name());
        page.line(&format!("{}{status}{}", columns.row(pair), role(pair)));
    }
}

fn role(pair: &Pair) -> &'static str {
    match pair.role {
        Some(Role::Output) => ", output",
        Some(Role::Input) => ", input",
        None => "",
    }
}

/// The rows that matter: culprits, what stands around them, final outputs.
fn choose(report: &Report, all: bool) -> Vec<usize> {
    let n = report.pairs.len();
    if all {
        return (0..n).collect();
    }
    let mut wanted = vec![false; n];
    for (i, pair) in report.pairs.iter().enumerate() {
        wanted[i] |= pair.role == Some(Role::Output);
        if pair.status == Status::Culprit {
            wanted[i.saturating_sub(AROUND)..(i + AROUND + 1).min(n)].fill(true);
        }
    }
    (0..n).filter(|&i| wanted[i]).collect()
}

/// `42 pairs: 30 identical, 11 rounding, 1 culprit; 3 values unmatched (--all shows every row)`.
fn heading(report: &Report, shown: usize) -> String {
    let count = |s: Status| report.pairs.iter().filter(|p| p.status == s).count();
    let counted = |statuses: &[Status]| -> Vec<String> {
        let parts = statuses.iter().map(|&s| (count(s), s.name())).filter(|(n, _)| *n > 0);
        parts.map(|(n, name)| format!("{n} {name}")).collect()
    };
    let paired = counted(&[
        Status::Identical,
        Status::Rounding,
        Status::Inherited,
        Status::Culprit,
        Status::NotEvaluated,
    ]);
    let unmatched = count(Status::Unmatched);
    let total = report.pairs.len() - unmatched;
    let mut text = format!("{total} {}", if total == 1 { "pair" } else { "pairs" });
    if !paired.is_empty() {
        text = format!("{text}: {}", paired.join(", "));
    }
    if unmatched > 0 {
        let values = if unmatched == 1 { "value" } else { "values" };
        text = format!("{text}; {unmatched} {values} without a partner");
    }
    if shown < report.pairs.len() {
        text.push_str(" (--all shows every row)");
    }
    text
}

/// Widths of the columns; a column that would say nothing is left out.
struct Columns {
    a: usize,
    /// None where every shown pair has one name.
    b: Option<usize>,
    op: Option<usize>,
}

const NUMBER: usize = 8;
const GAP: &str = "  ";
/// Narrower terminals do without the operators.
const WITH_OPS: usize = 100;

impl Columns {
    fn new<'a>(width: usize, pairs: &(impl Iterator<Item = &'a Pair> + Clone)) -> Self {
        let longest =
            |f: &dyn Fn(&Pair) -> String| pairs.clone().map(|p| f(p).chars().count()).max().unwrap_or(0);
        let op = (width >= WITH_OPS).then(|| longest(&ops).clamp(2, 24));
        let status = longest(&|p| format!("{}{}", p.status.name(), role(p)));
        let fixed = 2 * (NUMBER + GAP.len()) + GAP.len() + status;
        let left = width.saturating_sub(fixed + op.map_or(0, |op| op + GAP.len()));
        let one_name = pairs.clone().all(|p| p.a == p.b);
        let longest_a = longest(&|p| p.a.clone().unwrap_or_default()).max(5);
        if one_name {
            return Self { a: longest_a.min(left), b: None, op };
        }
        let longest_b = longest(&|p| p.b.clone().unwrap_or_default()).max(1);
        let left = left.saturating_sub(GAP.len());
        // Each side gets what it needs, and half where both need more.
        let a = longest_a.min((left / 2).max(left.saturating_sub(longest_b)));
        Self { a, b: Some(longest_b.min(left - a)), op }
    }

    fn header(&self) -> String {
        let names = match self.b {
            None => column("value", self.a),
            Some(b) => format!("{}{GAP}{}", column("a", self.a), column("b", b)),
        };
        let op = self.op.map(|w| format!("{GAP}{}", column("op", w))).unwrap_or_default();
        format!("{names}{op}{GAP}{:>NUMBER$}{GAP}{:>NUMBER$}{GAP}status", "max abs", "allowed")
    }

    fn row(&self, pair: &Pair) -> String {
        let name = |name: &Option<String>, width| column(name.as_deref().unwrap_or("-"), width);
        let names = match self.b {
            None => name(&pair.a, self.a),
            Some(b) => format!("{}{GAP}{}", name(&pair.a, self.a), name(&pair.b, b)),
        };
        let op = self.op.map(|w| format!("{GAP}{}", column(&ops(pair), w))).unwrap_or_default();
        let figure = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), number);
        let found = figure(pair.metrics.max_abs);
        let allowed = figure(pair.budget.map(|b| b.allowed).or(pair.allowed));
        format!("{names}{op}{GAP}{found:>NUMBER$}{GAP}{allowed:>NUMBER$}{GAP}")
    }
}

/// The operators that write the pair's values.
fn ops(pair: &Pair) -> String {
    match (&pair.op.a, &pair.op.b) {
        (Some(a), Some(b)) if a != b => format!("{a} | {b}"),
        (a, b) => a.as_ref().or(b.as_ref()).cloned().unwrap_or_default(),
    }
}
