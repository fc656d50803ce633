//! `isotrace diff`.

use std::path::Path;

use anyhow::anyhow;
use isotrace_diagnose::{Detail, Inputs, Options, Source};
use isotrace_inputs::{Bound, InputError, Request, bind};
use isotrace_report::{Both, Input, Report, Side, Verdict, Warning, json, sbs, text};
use isotrace_tensor::DType;

use crate::args::{self, Format, Narrow};
use crate::console::{self, Console};
use crate::load;
use crate::progress::Progress;

/// Compares two models; the status is the verdict's.
pub fn run(args: &args::Diff, console: Console) -> anyhow::Result<u8> {
    let report = report(args)?;
    // The file first: where it cannot be written, no verdict is shown.
    match &args.json {
        Some(path) if path == Path::new("-") => console::print(&json::render(&report))?,
        path => {
            if let Some(path) = path {
                load::write_text(path, &json::render(&report))?;
            }
            let shown = match args.format {
                Format::Sbs => sbs::render(&report, args.column_size),
                Format::Text => {
                    let options =
                        text::Options { width: console.width, colour: console.colour, all: args.all };
                    text::render(&report, options)
                }
            };
            console::print(&shown)?;
        }
    }
    Ok(report.verdict.exit_code())
}

fn report(args: &args::Diff) -> anyhow::Result<Report> {
    let (a, b) = (load::graph(&args.a)?, load::graph(&args.b)?);
    let paths = [&args.a, &args.b].map(|p| p.display().to_string());
    let sides = [
        Source { path: &paths[0], graph: &a, recorded: None },
        Source { path: &paths[1], graph: &b, recorded: None },
    ];
    let given = load::given(&args.inputs)?;
    let progress = Progress::new();
    let detail = Detail { budgets: args.json.is_some(), listing: args.format == Format::Sbs };
    let mut weakest: Option<Report> = None;
    for seed in (args.inputs.seed..).take(args.trials as usize) {
        let request = Request { seed, ..load::request(&args.inputs, given.as_ref()) };
        let report = once(&sides, &request, &args.allow, &progress, detail)?;
        if weakest.as_ref().is_none_or(|w| strength(report.verdict) > strength(w.verdict)) {
            weakest = Some(report);
        }
        if weakest.as_ref().is_some_and(|w| w.verdict == Verdict::Divergent) {
            break;
        }
    }
    progress.clear();
    weakest.ok_or_else(|| anyhow!("no seed is left above {}; choose a smaller --seed", args.inputs.seed))
}

/// How much a verdict weighs among several trials.
fn strength(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Identical => 0,
        Verdict::Equivalent => 1,
        Verdict::Inconclusive => 2,
        Verdict::Invalid => 3,
        Verdict::Divergent => 4,
    }
}

/// One comparison.
fn once(
    [a, b]: &[Source<'_>; 2],
    request: &Request<'_>,
    allow: &[Narrow],
    progress: &Progress,
    detail: Detail,
) -> anyhow::Result<Report> {
    let bound = match bind(a.graph, b.graph, request) {
        Ok(bound) => bound,
        Err(ambiguous @ InputError::Ambiguous { .. }) => return Ok(without_conclusion(a, b, &ambiguous)),
        Err(other) => return Err(other.into()),
    };
    let allowed: Vec<DType> = allow
        .iter()
        .map(|n| match n {
            Narrow::F16 => DType::F16,
            Narrow::Bf16 => DType::BF16,
        })
        .collect();
    let show = |step: &str, share: f64| {
        progress.show(step, (share * 100.0) as usize, 100);
        true
    };
    let options = Options { allowed: &allowed, progress: Some(&show), detail };
    let inputs = Inputs { a: &bound.a, b: &bound.b, pairs: &bound.pairs };
    let mut report = isotrace_diagnose::diff(*a, *b, inputs, options)?;
    report.inputs = told(&bound);
    report.seed = request.given.is_none().then_some(request.seed);
    Ok(report)
}

/// What was fed, for the report.
fn told(bound: &Bound) -> Vec<Input> {
    bound
        .fed
        .iter()
        .map(|fed| Input {
            name: Both::new(fed.a.clone(), fed.b.clone()),
            dtype: fed.dtype.to_string(),
            shape: fed.shape.clone(),
            made: fed.made.clone(),
        })
        .collect()
}

/// Inputs that could be bound in more ways than one: whatever came out would say nothing.
pub fn without_conclusion(a: &Source<'_>, b: &Source<'_>, why: &InputError) -> Report {
    let side = |s: &Source<'_>| Side {
        source: s.path.to_owned(),
        kind: isotrace_report::Source::Onnx,
        nodes: s.graph.nodes.len(),
        values: s.graph.values.iter().filter(|v| v.constant.is_none()).count(),
    };
    let mut report = Report::new(Verdict::Invalid, why.to_string(), side(a), side(b));
    report.warnings.push(Warning {
        class: "misbound_inputs".to_owned(),
        summary: why.to_string(),
        place: a.graph.inputs.iter().map(|&id| a.graph.value(id).name.clone()).collect(),
    });
    report
}
