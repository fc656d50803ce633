//! `isotrace compare`.

mod json;
mod judge;
mod pairs;
mod show;

use std::path::Path;

use isotrace_compare::{Examination, examine};
use isotrace_report::Verdict;
use isotrace_trace::Source;

use crate::args;
use crate::console::{self, Console};
use crate::load;
use crate::progress::Progress;

use judge::{Found, Rules, Status};
use pairs::{Pair, Pairing};

/// Tensors looked at closely unless all are asked for.
const CLOSELY: usize = 5;
/// Worst elements told of each.
const WORST: usize = 5;

/// What was compared and what came of it.
struct Comparison<'s> {
    sides: [&'s Source; 2],
    rules: Rules,
    pairing: Pairing,
    /// One for each pair.
    found: Vec<Found>,
    /// Of pairs that differ, by their number.
    closer: Vec<(usize, Examination)>,
    verdict: Verdict,
    reason: String,
}

/// Compares the tensors of two sources; the status is the verdict's.
pub fn run(args: &args::Compare, console: Console) -> anyhow::Result<u8> {
    let rules = Rules::new(args)?;
    let (x, y) = (isotrace_trace::open(&args.x)?, isotrace_trace::open(&args.y)?);
    let pairing = pairs::pair(&x, &y, &args.map)?;
    let progress = Progress::new();
    let all = pairing.pairs.len();
    let show = |done: usize| progress.show("comparing", done, all);
    let found = judge::all([&x, &y], &pairing.pairs, &rules, &show)?;
    progress.clear();
    let closer = closer([&x, &y], &pairing.pairs, &found, args)?;
    for (source, path) in [(&x, &args.x), (&y, &args.y)] {
        for note in source.notes().iter().filter(|note| note.limits()) {
            console::complain("warning:", &format!("{}: {note}", path.display()));
        }
    }
    let (verdict, reason) = conclude(&pairing.pairs, &found);
    let comparison = Comparison { sides: [&x, &y], rules, pairing, found, closer, verdict, reason };
    match &args.json {
        Some(path) if path == Path::new("-") => console::print(&json::json(&comparison))?,
        path => {
            if let Some(path) = path {
                load::write_text(path, &json::json(&comparison))?;
            }
            console::print(&show::text(&comparison, console, args.all))?;
        }
    }
    Ok(comparison.verdict.exit_code())
}

/// The pairs that deserve a closer look: beyond the tolerance, the first few of them.
fn closer(
    sides: [&Source; 2],
    pairs: &[Pair],
    found: &[Found],
    args: &args::Compare,
) -> anyhow::Result<Vec<(usize, Examination)>> {
    let many = if args.all || args.json.is_some() { usize::MAX } else { CLOSELY };
    let beyond = found.iter().enumerate().filter(|(_, f)| f.status == Status::Beyond && f.metrics.is_some());
    beyond
        .take(many)
        .map(|(i, f)| {
            let [x, y] = judge::both(sides, &pairs[i], f.broadcast.as_deref())?;
            Ok((i, examine(&x, &y, &f.tolerance, WORST)?))
        })
        .collect()
}

fn conclude(pairs: &[Pair], found: &[Found]) -> (Verdict, String) {
    let elements: u64 = found.iter().filter(|f| f.metrics.is_some()).map(|f| f.len).sum();
    let differ: Vec<usize> = (0..found.len()).filter(|&i| found[i].status >= Status::Beyond).collect();
    if let Some(&first) = differ.first() {
        // Most of all: the largest share beyond, what cannot be compared before everything else.
        let worst = differ
            .iter()
            .copied()
            .max_by(|&a, &b| found[a].badness().total_cmp(&found[b].badness()).then(b.cmp(&a)));
        let worst = worst.unwrap_or(first);
        let told = if differ.len() == 1 { "differs: " } else { "differ, most of all " };
        let (n, of) = (differ.len(), crate::page::of(found.len(), "tensor"));
        let worst = format!("{:?}, {}", pairs[worst].x, found[worst].told());
        return (Verdict::Divergent, format!("{n} of {of} {told}{worst}"));
    }
    if found.is_empty() {
        return (
            Verdict::Invalid,
            "nothing was compared: the two have no name in common; --map X=Y pairs what is named differently"
                .into(),
        );
    }
    if elements == 0 {
        return (Verdict::Invalid, "nothing was compared: every tensor in common is empty".into());
    }
    let all = crate::page::of(found.len(), "tensor");
    if found.iter().all(|f| f.status == Status::Identical) {
        return (Verdict::Identical, format!("{all}, bit for bit the same"));
    }
    let worst = found.iter().filter_map(|f| Some(f.metrics.as_ref()?.max_abs)).fold(0.0, f64::max);
    (
        Verdict::Equivalent,
        format!("{all} within tolerance; the largest difference is {}", crate::page::brief(worst)),
    )
}
