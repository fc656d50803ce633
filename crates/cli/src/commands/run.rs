//! `isotrace run`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{anyhow, bail};
use isotrace_graph::{Graph, Node, ValueId};
use isotrace_inputs::{bind_one, nearest};
use isotrace_ops::Precision;
use isotrace_ort::Prepared;
use isotrace_run::{Keep, Options, Plan};
use isotrace_tensor::Tensor;
use rayon::prelude::*;
use rustc_hash::FxHashSet;

use crate::args;
use crate::backend::{self, Loaded, Values};
use crate::console::{self, Console};
use crate::interrupt;
use crate::load;
use crate::progress::Progress;

/// Runs a model, then writes or lists the values asked for.
pub fn run(args: &args::Run, _console: Console) -> anyhow::Result<u8> {
    if let Some(path) = &args.output {
        check_ending(path)?;
    }
    let args::Backend { backend, optimisation } = args.backend;
    if backend == args::Runner::Onnxruntime && args.precision == args::Precision::F64 {
        bail!("--precision f64 is computed by the embedded backend alone; leave --backend onnxruntime out");
    }
    let loaded = Loaded::new(&args.model, backend, optimisation)?.alone()?;
    loaded.runs()?;
    let graph = loaded.graph();
    let wanted = wanted(&loaded, &args.outputs)?;
    let given = load::given(&args.inputs)?;
    let bound = bind_one(loaded.user(), &load::request(&args.inputs, given.as_ref()))?;
    let (computed, remarks) = match loaded.prepared() {
        None => (evaluated(graph, &bound.a, args.precision, &wanted)?, Vec::new()),
        Some(prepared) => observed(&loaded, prepared, &bound.a, &wanted)?,
    };
    let mut named: Vec<(String, Tensor)> = Vec::new();
    let mut seen = FxHashSet::default();
    for id in wanted {
        let name = &graph.value(id).name;
        let tensor = match computed.get(&id) {
            Some(tensor) => tensor,
            None if args.outputs == ["all"] && loaded.prepared().is_some() => continue,
            None => bail!("value {name:?} was not computed"),
        };
        if seen.insert(name) {
            named.push((name.clone(), tensor.clone()));
        }
    }
    if let Some(path) = &args.output {
        let _whole = interrupt::writing();
        isotrace_trace::write_tensors(path, &named)?;
    }
    let mut text = String::new();
    if given.is_none() {
        for fed in &bound.fed {
            let name = isotrace_report::printable(fed.a.as_deref().unwrap_or_default());
            let _ = writeln!(text, "input   {name} {}: {}", typed(fed.dtype.name(), &fed.shape), fed.made);
        }
        let _ = writeln!(text, "seed    {}", args.inputs.seed);
    }
    text.extend(remarks);
    let lines: Vec<String> = named
        .par_iter()
        .map(|(name, tensor)| {
            let typed = typed(tensor.dtype().name(), tensor.shape());
            format!("output  {} {typed}: {}\n", isotrace_report::printable(name), described(tensor))
        })
        .collect();
    text.extend(lines);
    for (name, keys) in maps(graph) {
        if named.iter().any(|(shown, _)| shown == name) {
            let name = isotrace_report::printable(name);
            let _ = writeln!(text, "note    {name} is a map for each row: a column for each key, {keys}");
        }
    }
    if let Some(path) = &args.output {
        let _ = writeln!(text, "wrote   {}", path.display());
    }
    console::print(&text)?;
    Ok(0)
}

/// Values that are maps in the user's model and matrices here, with their keys in the order of columns.
fn maps(graph: &Graph) -> Vec<(&str, String)> {
    let zips = graph.nodes.iter().filter(|n| n.domain == "ai.onnx.ml" && n.op == "ZipMap");
    zips.filter_map(|node| {
        let keys = isotrace_ops::ops::ml::zip_map::keys(node).ok()?;
        const SHOWN: usize = 10;
        let more = if keys.len() > SHOWN { ", ..." } else { "" };
        let keys = keys[..keys.len().min(SHOWN)].join(", ");
        Some((graph.value(node.writes().next()?).name.as_str(), format!("{keys}{more}")))
    })
    .collect()
}

/// What the built-in evaluator computes.
fn evaluated(
    graph: &Graph,
    inputs: &Values,
    precision: args::Precision,
    wanted: &[ValueId],
) -> anyhow::Result<Values> {
    let plan = Plan::new(graph)?;
    let progress = Progress::new();
    let show = |done: usize, all: usize| {
        progress.show("running", done, all);
        true
    };
    let only_outputs = wanted.iter().all(|id| graph.outputs.contains(id));
    let options = Options {
        precision: match precision {
            args::Precision::F32 => Precision::Declared,
            args::Precision::F64 => Precision::Float64,
        },
        keep: if only_outputs { Keep::Outputs } else { Keep::All },
        progress: Some(&show),
        ..Options::default()
    };
    let run = plan.run(inputs, &options)?;
    Ok(wanted.iter().filter_map(|&id| Some((id, run.get(id)?.clone()))).collect())
}

/// What ONNX Runtime computes, and what there is to say of it. Final outputs alone are those of the model run untouched.
fn observed(
    loaded: &Loaded,
    prepared: &Prepared,
    inputs: &Values,
    wanted: &[ValueId],
) -> anyhow::Result<(Values, Vec<String>)> {
    let graph = prepared.graph();
    let progress = Progress::new();
    progress.show("running ONNX Runtime", 0, 1);
    if wanted.iter().all(|id| graph.outputs.contains(id)) {
        let names = graph.names();
        let outputs = prepared.run(&loaded.named(inputs))?;
        let values = outputs.into_iter().filter_map(|(name, t)| Some((*names.get(name.as_str())?, t)));
        return Ok((values.collect(), Vec::new()));
    }
    let mut recording = prepared.record(&loaded.named(inputs))?;
    let mut remarks = vec![format!("run     {}\n", backend::told(prepared, &recording))];
    if let Some(warning) = backend::observed("the model", &recording) {
        remarks.push(format!("warning {}: {}\n", warning.class, warning.summary));
        let names = warning.place.iter().map(|n| format!("warning   at {}\n", isotrace_report::printable(n)));
        remarks.extend(names);
    }
    let mut values = std::mem::take(&mut recording.values);
    values.extend(loaded.carry(inputs));
    Ok((values, remarks))
}

/// Fails before the run rather than after it.
fn check_ending(path: &Path) -> anyhow::Result<()> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("npz" | "safetensors") => Ok(()),
        _ => bail!(
            "{}: outputs are written as .npz or .safetensors; give the file one of these endings",
            path.display()
        ),
    }
}

/// The values of `--outputs`.
fn wanted(loaded: &Loaded, names: &[String]) -> anyhow::Result<Vec<ValueId>> {
    let graph = loaded.graph();
    if names.is_empty() {
        return Ok(graph.outputs.clone());
    }
    let computed = || graph.inputs.iter().copied().chain(graph.nodes.iter().flat_map(Node::writes));
    if names == ["all"] {
        return Ok(computed().collect());
    }
    let known = graph.names();
    names
        .iter()
        .map(|name| {
            known.get(name.as_str()).copied().ok_or_else(|| {
                if let Some(prepared) = loaded.prepared()
                    && loaded.user().names().contains_key(name.as_str())
                {
                    return anyhow!(
                        "--outputs {name:?} is a value of the model, but ONNX Runtime's optimiser (level {}) took it \
                         away; choose a lower --optimisation (`disable` takes away the least)",
                        prepared.level().name()
                    );
                }
                let hint = nearest(name, computed().map(|id| graph.value(id).name.as_str()))
                    .map(|n| format!(" (did you mean {n:?}?)"))
                    .unwrap_or_default();
                let outputs: Vec<String> =
                    graph.outputs.iter().map(|&id| format!("{:?}", graph.value(id).name)).collect();
                anyhow!(
                    "--outputs {name:?} is no value of the model{hint}; its outputs are {}, `--outputs all` gives \
                     every value",
                    outputs.join(", ")
                )
            })
        })
        .collect()
}

fn typed(dtype: &str, shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("{dtype}[{}]", dims.join(","))
}

/// A few elements, or range and mean of many.
fn described(tensor: &Tensor) -> String {
    const FEW: usize = 6;
    if let Ok(texts) = tensor.as_strings() {
        let shown: Vec<String> = texts.iter().take(FEW).map(|t| format!("{t:?}")).collect();
        return format!("{}{}", shown.join(" "), if texts.len() > FEW { " ..." } else { "" });
    }
    if tensor.len() > FEW {
        // With every value asked for, this reads the whole run again: the type of most is read in place.
        return match tensor.as_slice::<f32>() {
            Ok(values) => Summary::of(values).to_string(),
            Err(_) => tensor.to_f64().map_or_else(|_| format!("{tensor:?}"), |v| Summary::of(&v).to_string()),
        };
    }
    let Ok(values) = tensor.to_f64() else { return format!("{tensor:?}") };
    values.iter().map(|x| short(*x)).collect::<Vec<_>>().join(" ")
}

/// Range and mean of the finite elements, and how many are not.
struct Summary {
    low: f64,
    high: f64,
    sum: f64,
    finite: usize,
    nan: usize,
    infinite: usize,
}

impl Summary {
    /// Sums run in lanes, so that the loop needs no element to wait for the one before.
    fn of<T: Copy + Into<f64>>(values: &[T]) -> Self {
        const LANES: usize = 8;
        let (mut low, mut high, mut sum) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES], [0.0; LANES]);
        let (mut finite, mut nan) = ([0usize; LANES], [0usize; LANES]);
        let mut take = |lane: usize, x: T| {
            let x: f64 = x.into();
            let counts = x.is_finite();
            finite[lane] += usize::from(counts);
            nan[lane] += usize::from(x.is_nan());
            sum[lane] += if counts { x } else { 0.0 };
            low[lane] = if counts && x < low[lane] { x } else { low[lane] };
            high[lane] = if counts && x > high[lane] { x } else { high[lane] };
        };
        let (whole, rest) = values.as_chunks::<LANES>();
        for chunk in whole {
            (0..LANES).for_each(|lane| take(lane, chunk[lane]));
        }
        rest.iter().enumerate().for_each(|(lane, &x)| take(lane, x));
        let (finite, nan) = (finite.iter().sum(), nan.iter().sum());
        Self {
            low: low.into_iter().fold(f64::INFINITY, f64::min),
            high: high.into_iter().fold(f64::NEG_INFINITY, f64::max),
            sum: sum.iter().sum(),
            finite,
            nan,
            infinite: values.len() - finite - nan,
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if self.finite > 0 {
            let mean = self.sum / self.finite as f64;
            parts.push(format!("{} to {}, mean {}", short(self.low), short(self.high), short(mean)));
        }
        for (count, what) in [(self.nan, "NaN"), (self.infinite, "infinite")] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        f.write_str(&parts.join(", "))
    }
}

/// Five significant digits; whole numbers whole.
fn short(x: f64) -> String {
    match x {
        _ if !x.is_finite() => x.to_string().to_lowercase(),
        _ if x.fract() == 0.0 && x.abs() < 1e9 => format!("{x}"),
        _ if (1e-3..1e5).contains(&x.abs()) => {
            let digits = (4 - x.abs().log10().floor() as i32).max(0) as usize;
            format!("{x:.digits$}")
        }
        _ => format!("{x:.4e}"),
    }
}
