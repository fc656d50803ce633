//! Recordings that hold what modules were given and gave, and no graph, as a side of `diff`.
//!
//! Nothing of such a side can be replayed, so no difference can be split into its parts: what is left is to pair values
//! and to ask how far they are apart. A value is paired with the one of the same name, final outputs by their order, the
//! rest with the value of as many elements whose content is nearest. Where the other side has a graph, how far its own
//! run is from its float64 shadow says how much rounding grows on the way to that value; that much, several times over,
//! is allowed. Between two recordings of modules calibrated distances have to do, with a range between them in which
//! nothing can be said, unless a single operator was given the same bits. Digests say whether bits are equal, and how far
//! two values are apart at least. The report says of all this that it is the weaker evidence.

mod conclude;
mod culprit;
mod judge;
mod pair;
mod view;

pub use view::{View, border};

use isotrace_report::{Both, Pair, Relation, Report, Status, Verdict, Warning};
use rustc_hash::{FxHashMap, FxHashSet};

use conclude::Recorded;
use judge::{Findings, Found, Judged, alone, judge};
use pair::pairs;
use view::Seen;

/// Holds two sides against each other, of which one at least is a recording of modules.
pub fn diff((path_a, a): (&str, &View), (path_b, b): (&str, &View)) -> Report {
    let partner: FxHashMap<usize, usize> = pairs(a, b).into_iter().collect();
    let mut judged: Judged = partner.iter().map(|(&i, &j)| (i, judge(&a.values[i], &b.values[j]))).collect();
    let alone = a.modules && b.modules && alone(a, b, &partner, &mut judged);
    let of_a: Findings = judged.iter().map(|(&i, (found, _))| (i, *found)).collect();
    // Several values of A may have one partner, whose finding is that of the last.
    let of_b: Findings =
        (0..a.values.len()).filter_map(|i| Some((*partner.get(&i)?, *of_a.get(&i)?))).collect();
    let mut report = Report::new(Verdict::Inconclusive, "", a.side(path_a), b.side(path_b));
    report.pairs = rows(a, b, &partner, judged);
    let is_a = a.modules;
    let recorded = if is_a { Recorded::new(a, of_a) } else { Recorded::new(b, of_b) };
    (report.verdict, report.reason) = recorded.conclude(a, b, alone);
    if report.verdict == Verdict::Divergent
        && let Some(call) = recorded.parted
    {
        culprit::blame(&mut report, call, (a, b), is_a);
    }
    let mut warn = |summary: &str, place: Vec<String>| {
        report.warnings.push(Warning { class: "latent".into(), summary: summary.into(), place });
    };
    let unjudged = if recorded.arrays {
        "what the arrays were computed by is not known and was not judged"
    } else {
        "what happens inside of modules was not recorded and not judged"
    };
    warn(unjudged, recorded.missing());
    if a.digests_alone() || b.digests_alone() {
        let summary = "digests were kept in place of elements: equal bits are known, and of others how far they are apart at least";
        warn(summary, vec![]);
    }
    report
}

/// A row for each value of A, with its partner, and for each value of B that has none.
fn rows(a: &View, b: &View, partner: &FxHashMap<usize, usize>, mut judged: Judged) -> Vec<Pair> {
    let taken: FxHashSet<usize> = partner.values().copied().collect();
    let of_a = a.values.iter().enumerate().map(|(i, x)| {
        let y = partner.get(&i).map(|&j| &b.values[j]);
        let mut row = row(Some(x), y);
        if let (Some(y), Some((found, metrics))) = (y, judged.remove(&i)) {
            row.relation = if x.shape == y.shape { Relation::Same } else { Relation::Reshaped };
            row.status = match found {
                Found::Bits => Status::Identical,
                Found::Within => Status::Rounding,
                Found::Beyond => Status::Inherited,
                Found::Unclear | Found::Unknown => Status::NotEvaluated,
            };
            row.metrics = metrics;
        }
        row
    });
    let left = b.values.iter().enumerate().filter(|(j, _)| !taken.contains(j));
    let of_b = left.map(|(_, y)| row(None, Some(y)));
    of_a.chain(of_b).collect()
}

fn row(a: Option<&Seen>, b: Option<&Seen>) -> Pair {
    Pair {
        a: a.map(|x| x.name.clone()),
        b: b.map(|y| y.name.clone()),
        role: a.and_then(|x| x.role).or_else(|| b.and_then(|y| y.role)),
        op: Both::new(a.and_then(|x| x.op.clone()), b.and_then(|y| y.op.clone())),
        dtype: Both::new(a.map(|x| x.dtype.to_string()), b.map(|y| y.dtype.to_string())),
        shape: Both::new(a.map(|x| x.shape.clone()), b.map(|y| y.shape.clone())),
        ..Pair::default()
    }
}
