//! From two graphs and their inputs to a report: budgets, culprits, causes.

mod assemble;
mod binding;
mod births;
mod causes;
mod context;
mod declared;
mod discrete;
mod faults;
mod hidden;
mod latent;
mod level;
mod needless;
mod order;
mod outputs;
mod pool;
mod product;
mod recorded;
mod role;
mod site;
mod untold;
mod written;

use faults::Found;
use isotrace_align::{Changes, Index, Judge, Keeps, Side, State};
use isotrace_graph::ValueId;
use isotrace_report::{Report, Verdict, Warning};
use isotrace_run::RunError;
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;
use untold::Untold;

pub use assemble::{Source, metrics};

/// Is told what is being done and how far it is, in [0, 1]; answers whether to go on.
pub type Progress<'a> = dyn Fn(&str, f64) -> bool + Sync + 'a;

/// How to compare.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Types that B may narrow to without it being a fault (`--allow f16`).
    pub allowed: &'a [DType],
    /// Called with what is being done and how far it is, in [0, 1]; false stops the comparison.
    pub progress: Option<&'a Progress<'a>>,
    /// What of the report is wanted besides verdict, culprits and the distance of each pair.
    pub detail: Detail,
}

/// Parts of a report that cost time and that not every form of it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detail {
    /// How far the values of each pair are from each other; else of what a short report shows, and of what is at hand.
    pub pairs: bool,
    /// The four parts of each pair's difference: each region evaluated once more, in float64 on declared values.
    pub budgets: bool,
    /// Every value of both sides with a summary of what it holds.
    pub listing: bool,
}

impl Detail {
    /// All of it.
    pub const FULL: Self = Self { pairs: true, budgets: true, listing: true };

    /// Whether every value of both runs is needed for it.
    fn whole(self) -> bool {
        self.pairs || self.budgets || self.listing
    }
}

/// Why no report could be made.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// One of the two does not run.
    #[error("{side}: {source}")]
    Run {
        /// The path of the model.
        side: String,
        /// Why.
        source: RunError,
    },
}

/// What both sides are run on.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// A's inputs.
    pub a: &'a FxHashMap<ValueId, Tensor>,
    /// B's inputs.
    pub b: &'a FxHashMap<ValueId, Tensor>,
    /// Inputs of A and of B that play the same part and hold the same numbers.
    pub pairs: &'a [(ValueId, ValueId)],
}

/// Holds B against A.
pub fn diff(
    a: Source<'_>,
    b: Source<'_>,
    inputs: Inputs<'_>,
    options: Options<'_>,
) -> Result<Report, DiffError> {
    let (fed_a, fed_b) = (inputs.a, inputs.b);
    let bound: Vec<(ValueId, ValueId)> = inputs.pairs.iter().map(|&(a, b)| (b, a)).collect();
    let step = |what: &'static str, from: f64, to: f64| {
        move |i: usize, n: usize| {
            options.progress.is_none_or(|p| p(what, from + (to - from) * i as f64 / n.max(1) as f64))
        }
    };
    let failed = |source: &Source<'_>| {
        let side = source.path.to_owned();
        |source| DiffError::Run { side, source }
    };
    let told = step("running A", 0.0, 0.15);
    let side_a = match a.recorded {
        Some(recorded) => Side::recorded(a.graph, fed_a, recorded, Some(&told)),
        None => Side::new(a.graph, fed_a, Some(&told)),
    }
    .map_err(failed(&a))?;
    let told = step("running B", 0.15, 0.3);
    let keeps = if options.detail.whole() { Keeps::All } else { Keeps::Needed };
    let side_b = match (a.recorded, b.recorded) {
        (_, Some(recorded)) => Side::recorded(b.graph, fed_b, recorded, Some(&told)),
        // Other kernels than ours made A's values; B's have to come from ours.
        (Some(_), None) => Side::new(b.graph, fed_b, Some(&told)),
        (None, None) => Side::beside(&side_a, b.graph, fed_b, &bound, keeps, Some(&told)),
    }
    .map_err(failed(&b))?;
    let index = Index::new(&side_a);
    let told = step("aligning", 0.3, 0.9);
    // Rounding to the type in which the reference as a whole computes is no narrowing of B's.
    let mut allowed = options.allowed.to_vec();
    if side_b.holds(side_a.main) && !allowed.contains(&side_a.main) {
        allowed.push(side_a.main);
    }
    let mut judge = Judge::new(&side_a, &side_b, &index, &allowed);
    judge.progress = Some(&told);
    let (outputs, unpaired) = outputs::pair(a.graph, b.graph);
    // Against a reference that is not a number nothing can be found: the search would blame B for it.
    let state = State::execute(&judge, &bound, &Changes::default());
    let Found { faults: mut found, untold, state, left } =
        if assemble::not_a_number(&side_a, &outputs).is_some() {
            Found { faults: Vec::new(), untold: Vec::new(), state, left: Vec::new() }
        } else {
            let as_named = state.clone();
            let (settled, state, exchanged) = binding::settle(&judge, bound.clone(), &outputs, state);
            let mut found = faults::find(&judge, &settled, &outputs, state);
            found.faults.splice(0..0, exchanged);
            // One reader that reads the other input looks like an exchange from all that comes behind it.
            let exchanges = settled != bound && found.faults.len() > 1;
            let plain = exchanges.then(|| faults::find(&judge, &bound, &outputs, as_named));
            match plain {
                Some(plain)
                    if plain.left.len() <= found.left.len() && plain.faults.len() < found.faults.len() =>
                {
                    plain
                }
                _ => found,
            }
        };
    if judge.interrupted() {
        return Err(failed(&a)(RunError::Interrupted));
    }
    if let Some(error) = side_a.shadow.take_failure() {
        return Err(failed(&a)(error));
    }
    let (mut narrow, compared) = if assemble::not_a_number(&side_a, &outputs).is_some() {
        Default::default()
    } else {
        declared::faults(&judge, &state)
    };
    if let Some(recorded) = a.recorded {
        found.extend(recorded::faults(&side_a, recorded, true).into_iter().map(|(f, _)| f));
    }
    if let Some(recorded) = b.recorded {
        narrow.extend(recorded::faults(&side_b, recorded, false));
    }
    let culprit_values: Vec<ValueId> = narrow.iter().map(|(_, v)| *v).collect();
    narrow.drain(..).for_each(|(f, _)| faults::merge(&mut found, f));
    if let Some(progress) = options.progress {
        progress("reporting", 0.9);
    }
    let mut report =
        assemble::report(&judge, &state, &a, &b, found, &outputs, &culprit_values, &compared, options.detail);
    if matches!(report.verdict, Verdict::Equivalent | Verdict::Identical) {
        report.warnings.extend(latent::differences(&judge, &state, &bound, &outputs));
    }
    if unpaired > 0 {
        report.warnings.push(Warning {
            class: "degenerate".into(),
            summary: format!("{unpaired} final outputs have no counterpart on the other side"),
            place: Vec::new(),
        });
    }
    // Where something is proven, what runs through unknown calls may follow from it.
    if report.culprits.is_empty() && !(left.is_empty() && untold.is_empty()) {
        report.verdict = Verdict::Inconclusive;
        if let [first, others @ ..] = &untold[..] {
            report.reason = first.told(&judge);
            let warn = |u: &Untold| {
                let (class, summary, place) = ("degenerate".into(), u.told(&judge), u.nodes.clone());
                Warning { class, summary, place }
            };
            report.warnings.extend(others.iter().map(warn));
        }
    }
    Ok(report)
}
