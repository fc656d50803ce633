//! `isotrace diff`.

use std::path::Path;

use anyhow::{anyhow, bail};
use isotrace_diagnose::{Detail, Inputs, Options, Source};
use isotrace_inputs::{Bound, InputError, Request, bind};
use isotrace_report::{Both, Input, Report, Side, Verdict, Warning, json, sbs, text};
use isotrace_tensor::DType;

use crate::args::{self, Format, Narrow, Runner};
use crate::backend::{self, Loaded};
use crate::console::{self, Console};
use crate::load;
use crate::modules::{self, View};
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
    let (a, b) = loaded(args)?;
    let paths = [&args.a, &args.b].map(|p| p.display().to_string());
    let sides = [(paths[0].as_str(), &a), (paths[1].as_str(), &b)];
    let given = match load::brought([(&paths[0], a.recorded()), (&paths[1], b.recorded())])? {
        None => load::given(&args.inputs)?,
        Some(_) if args.inputs.file.is_some() => {
            bail!("--inputs has no effect on a trace, which was recorded on inputs of its own; leave it out")
        }
        brought => brought,
    };
    let progress = Progress::new();
    let show = |step: &str, share: f64| {
        progress.show(step, (share * 100.0) as usize, 100);
        true
    };
    let allowed: Vec<DType> = args
        .allow
        .iter()
        .map(|n| match n {
            Narrow::F16 => DType::F16,
            Narrow::Bf16 => DType::BF16,
        })
        .collect();
    let detail = Detail {
        pairs: args.json.is_some() || args.all,
        budgets: args.json.is_some(),
        listing: args.format == Format::Sbs,
    };
    let mut weakest: Option<Report> = None;
    for seed in (args.inputs.seed..).take(args.trials as usize) {
        let request = Request { seed, ..load::request(&args.inputs, given.as_ref()) };
        let report = once(sides, &request, &allowed, &show, detail)?;
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

/// Both models, each with who runs it.
fn loaded(args: &args::Diff) -> anyhow::Result<(Loaded, Loaded)> {
    let args::Backend { backend, optimisation } = args.backend;
    let runners = [args.backend_a, args.backend_b].map(|r| r.unwrap_or(backend));
    if optimisation.is_some() && !runners.contains(&Runner::Onnxruntime) {
        bail!(
            "--optimisation is about ONNX Runtime, which runs neither of the two; add --backend onnxruntime"
        );
    }
    // What is said of both is said of those that it is about.
    let level = |runner, own: Option<_>| own.or(optimisation.filter(|_| runner == Runner::Onnxruntime));
    let [a, b] = runners;
    let mut a = Loaded::new(&args.a, a, level(a, args.optimisation_a))?;
    let mut b = Loaded::new(&args.b, b, level(b, args.optimisation_b))?;
    Loaded::settle(&mut a, &mut b)?;
    Ok((a, b))
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

/// One comparison of two models, each under the name that the report calls it. `allowed` are types to which one side
/// alone may round; `show` is told how far it is, and whether to go on is its answer.
pub fn once(
    [(path_a, a), (path_b, b)]: [(&str, &Loaded); 2],
    request: &Request<'_>,
    allowed: &[DType],
    show: &(dyn Fn(&str, f64) -> bool + Sync),
    detail: Detail,
) -> anyhow::Result<Report> {
    if a.modules().is_some() || b.modules().is_some() {
        return seen([(path_a, a), (path_b, b)], request, show);
    }
    let (mut source_a, mut source_b) = (
        Source { path: path_a, graph: a.graph(), recorded: a.recorded().map(|r| &r.values) },
        Source { path: path_b, graph: b.graph(), recorded: b.recorded().map(|r| &r.values) },
    );
    let bound = match bind(a.user(), b.user(), request) {
        Ok(bound) => bound,
        Err(ambiguous @ InputError::Ambiguous { .. }) => {
            return Ok(without_conclusion(&source_a, &source_b, &ambiguous));
        }
        Err(other) => return Err(other.into()),
    };
    let options = Options { allowed, progress: Some(show), detail };
    if a.prepared().is_some() || b.prepared().is_some() {
        show("running ONNX Runtime", 0.0);
    }
    let (run_a, run_b) = (a.record(&bound.a)?, b.record(&bound.b)?);
    source_a.recorded = source_a.recorded.or(run_a.as_ref().map(|r| &r.values));
    source_b.recorded = source_b.recorded.or(run_b.as_ref().map(|r| &r.values));
    let (fed_a, fed_b) = (a.carry(&bound.a), b.carry(&bound.b));
    let pairs: Vec<_> =
        bound.pairs.iter().filter_map(|&(va, vb)| Some((a.carried(va)?, b.carried(vb)?))).collect();
    let inputs = Inputs { a: &fed_a, b: &fed_b, pairs: &pairs };
    let mut report = isotrace_diagnose::diff(source_a, source_b, inputs, options)?;
    for (path, loaded, recording, side) in
        [(path_a, a, &run_a, &mut report.a), (path_b, b, &run_b, &mut report.b)]
    {
        if let (Some(prepared), Some(recording)) = (loaded.prepared(), recording) {
            side.run = Some(backend::told(prepared, recording));
            report.warnings.extend(backend::observed(path, recording));
        }
    }
    for (path, loaded, side) in [(path_a, a, &mut report.a), (path_b, b, &mut report.b)] {
        if let Some(recorded) = loaded.recorded() {
            side.kind = isotrace_report::Source::Trace;
            report.warnings.extend(recorded.warnings(path));
        }
    }
    report.inputs = told(&bound);
    report.seed = request.given.is_none().then_some(request.seed);
    Ok(report)
}

/// The report where one side at least is a recording of modules.
fn seen(
    sides: [(&str, &Loaded); 2],
    request: &Request<'_>,
    show: &(dyn Fn(&str, f64) -> bool + Sync),
) -> anyhow::Result<Report> {
    let told_of = |i: usize, n: usize| show("running the other side", i as f64 / n.max(1) as f64);
    let mut bound = Bound::default();
    let mut views = [None, None];
    if let Some(at) = sides.iter().position(|(_, side)| side.modules().is_none()) {
        let (path, side) = sides[at];
        // Whoever kept digests of the inputs alone cannot have others run on them.
        if request.given.is_none_or(|(_, given)| given.is_empty()) {
            bail!(
                "{path} cannot be run on what the recording was made of, since its elements were not kept; record with \
                 keeps=\"both\""
            );
        }
        bound = bind(sides[0].1.user(), sides[1].1.user(), request)?;
        let inputs = if at == 0 { &bound.a } else { &bound.b };
        let run = side.record(inputs)?;
        let known = side.recorded().map(|r| &r.values).or(run.as_ref().map(|r| &r.values));
        let fed = side.carry(inputs);
        let ran = match known {
            Some(known) => isotrace_align::Side::recorded(side.graph(), &fed, known, Some(&told_of)),
            None => isotrace_align::Side::new(side.graph(), &fed, Some(&told_of)),
        };
        views[at] = Some(View::run(&ran.map_err(|e| anyhow!("{path}: {e}"))?));
    }
    let view =
        |at: usize| sides[at].1.modules().or(views[at].as_ref()).expect("made above where it was not there");
    let mut report = modules::diff((sides[0].0, view(0)), (sides[1].0, view(1)));
    for (path, side) in sides {
        report.warnings.extend(side.recorded().iter().flat_map(|recorded| recorded.warnings(path)));
    }
    report.inputs = told(&bound);
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
        run: None,
    };
    let mut report = Report::new(Verdict::Invalid, why.to_string(), side(a), side(b));
    report.warnings.push(Warning {
        class: "misbound_inputs".to_owned(),
        summary: why.to_string(),
        place: a.graph.inputs.iter().map(|&id| a.graph.value(id).name.clone()).collect(),
    });
    report
}
