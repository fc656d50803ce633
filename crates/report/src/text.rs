//! The report for people: the verdict first, then where the two part and why, then the values that matter.

mod alike;
mod layout;
mod table;

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::{Culprit, CulpritSide, Input, Region, Report, Side, Status, Verdict};
pub use layout::printable;
use layout::{number, shape, wrap};

/// How the text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Columns of the terminal; lines are broken and names shortened to fit, down to 60.
    pub width: usize,
    /// Whether to write ANSI colours.
    pub colour: bool,
    /// Whether to show every culprit and every pair rather than those that matter.
    pub all: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { width: 100, colour: false, all: false }
    }
}

/// Culprits shown unless all are asked for.
const CULPRITS: usize = 5;
/// Names shown of a region's nodes.
const NODES: usize = 6;

/// The report as text that ends with a newline.
pub fn render(report: &Report, options: Options) -> String {
    let mut page = Page { out: String::new(), width: options.width.max(60), colour: options.colour };
    page.verdict(report);
    page.sides(report);
    page.culprits(report, options.all);
    for warning in &report.warnings {
        let mut text = warning.summary.clone();
        if !warning.place.is_empty() {
            let _ = write!(text, " ({})", listed(&warning.place));
        }
        page.gap();
        page.paragraph(&format!("warning, {}: ", warning.class), YELLOW, 2, &text);
    }
    table::write(&mut page, report, options.all);
    page.out
}

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const RED: Style = AnsiColor::Red.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();

/// The text written so far, and how wide it may be.
struct Page {
    out: String,
    width: usize,
    colour: bool,
}

impl Page {
    fn paint(&self, style: Style, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    fn gap(&mut self) {
        self.out.push('\n');
    }

    /// A styled head and a text after it, further lines indented.
    fn paragraph(&mut self, head: &str, style: Style, indent: usize, text: &str) {
        let lines = wrap(&printable(text), self.width, head.chars().count(), indent);
        for (i, line) in lines.iter().enumerate() {
            let start = if i == 0 { self.paint(style, head) } else { " ".repeat(indent) };
            self.line(&format!("{start}{line}"));
        }
    }

    fn verdict(&mut self, report: &Report) {
        let style = match report.verdict {
            Verdict::Identical | Verdict::Equivalent => GREEN,
            Verdict::Divergent => RED,
            Verdict::Invalid | Verdict::Inconclusive => YELLOW,
        };
        self.paragraph(&format!("{}: ", report.verdict), style, 2, &report.reason);
        self.gap();
    }

    fn sides(&mut self, report: &Report) {
        let wide = report.a.source.chars().count().max(report.b.source.chars().count());
        for (name, side) in [("a", &report.a), ("b", &report.b)] {
            let Side { source, nodes, values, .. } = side;
            let source = format!("{:wide$}", printable(source));
            let size = self.paint(DIM, &format!("{nodes} nodes, {values} values"));
            self.line(&format!("{}  {source}  {size}", self.paint(BOLD, name)));
        }
        for (name, side) in [("a", &report.a), ("b", &report.b)] {
            if let Some(run) = &side.run {
                self.paragraph("run    ", DIM, 7, &format!("{name} by {run}"));
            }
        }
        for input in &report.inputs {
            let Input { name, dtype, shape: dims, made } = input;
            let name = match (&name.a, &name.b) {
                (Some(a), Some(b)) if a != b => format!("{a} | {b}"),
                (a, b) => a.as_ref().or(b.as_ref()).cloned().unwrap_or_default(),
            };
            self.paragraph("input  ", DIM, 7, &format!("{name} {dtype}{}: {made}", shape(dims)));
        }
        if let Some(seed) = report.seed {
            self.paragraph("seed   ", DIM, 7, &seed.to_string());
        }
    }

    /// Culprits that are alike as one with its places, unless all are asked for.
    fn culprits(&mut self, report: &Report, all: bool) {
        let groups = if all {
            report.culprits.iter().map(|c| (c, Vec::new())).collect()
        } else {
            alike::groups(&report.culprits)
        };
        let shown = if all { groups.len() } else { CULPRITS.min(groups.len()) };
        for (culprit, others) in &groups[..shown] {
            self.gap();
            self.culprit(culprit);
            if !others.is_empty() {
                let places: Vec<String> = others.iter().map(|c| place(c)).collect();
                self.paragraph("  same at   ", DIM, 12, &listed(&places));
            }
        }
        let left: usize = groups[shown..].iter().map(|(_, others)| 1 + others.len()).sum();
        if left > 0 {
            self.gap();
            self.line(&format!("{left} more culprit{}; --all shows them", if left == 1 { "" } else { "s" }));
        }
    }

    fn culprit(&mut self, culprit: &Culprit) {
        let Culprit { rank, side, a, b, cause } = culprit;
        let place = match side {
            CulpritSide::A => ", in a",
            CulpritSide::B => ", in b",
            CulpritSide::Both => ", in both",
            CulpritSide::Neither => "",
        };
        self.paragraph(&format!("culprit {rank}: {}{place}", printable(&cause.class)), RED, 2, "");
        self.paragraph("  ", Style::new(), 2, &cause.summary);
        for (name, region) in [("  a  ", a), ("  b  ", b)] {
            self.paragraph(name, BOLD, 5, &describe(region));
        }
        for (i, evidence) in cause.evidence.iter().enumerate() {
            self.paragraph(if i == 0 { "  evidence  " } else { "            " }, DIM, 12, evidence);
        }
        if let Some(proof) = &cause.counterfactual {
            let fall = format!(
                "{}: the largest difference goes from {} to {}",
                proof.change,
                number(proof.before),
                number(proof.after)
            );
            self.paragraph("  proof     ", GREEN, 12, &fall);
        }
        for near in &cause.nearest {
            let text = format!("{}: {}; leaves {}", near.class, near.change, number(near.left));
            self.paragraph("  tried     ", DIM, 12, &text);
        }
    }
}

/// Where a culprit is: its first node in B, else in A.
fn place(culprit: &Culprit) -> String {
    let nodes = if culprit.b.nodes.is_empty() { &culprit.a.nodes } else { &culprit.b.nodes };
    nodes.first().cloned().unwrap_or_default()
}

/// A region's operators and nodes, and what it hands on.
fn describe(region: &Region) -> String {
    if region.nodes.is_empty() && region.outputs.is_empty() {
        return "(nothing)".to_owned();
    }
    let nodes: Vec<String> = region
        .nodes
        .iter()
        .enumerate()
        .map(|(i, node)| match region.ops.get(i) {
            Some(op) => format!("{op} {node}"),
            None => node.clone(),
        })
        .collect();
    let outputs =
        if region.outputs.is_empty() { String::new() } else { format!(" -> {}", listed(&region.outputs)) };
    format!("{}{outputs}", listed(&nodes))
}

/// Names with commas, cut after a few.
fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(NODES)].join(", ");
    match names.len().saturating_sub(NODES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The colour of a status.
fn colour_of(status: Status) -> Style {
    match status {
        Status::Identical | Status::Rounding => AnsiColor::Green.on_default(),
        Status::Inherited => AnsiColor::Yellow.on_default(),
        Status::Culprit => RED,
        Status::Unmatched | Status::NotEvaluated => DIM,
    }
}
