//! The Python module `isotrace._isotrace`: what `isotrace/__init__.py` is built on.
//!
//! Everything that takes time runs without the interpreter's lock, and asks it now and then whether Ctrl-C was pressed.

mod array;
mod compared;
mod recorder;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Mutex;

use bytes::Bytes;
use isotrace_cli::Recording;
use isotrace_diagnose::{Detail, Inputs, Options, Source};
use isotrace_graph::{Graph, Node, ValueId};
use isotrace_inputs::{Request, Tensors, bind, bind_one};
use isotrace_onnx::Model;
use isotrace_ops::Precision;
use isotrace_report::{Both, Input, Report, json, text};
use isotrace_run::{Keep, Plan};
use isotrace_tensor::DType;
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use array::{Array, Buffer};

create_exception!(isotrace, IsotraceError, PyException, "What went wrong, as the program says it.");

fn failure(error: impl Into<anyhow::Error>) -> PyErr {
    IsotraceError::new_err(isotrace_cli::message(&error.into()))
}

/// A model: the path of a file, or the file's bytes.
#[derive(FromPyObject)]
enum Given {
    Path(PathBuf),
    Bytes(Vec<u8>),
}

impl Given {
    fn graph(self) -> anyhow::Result<(String, Graph, Option<Recording>)> {
        match self {
            Self::Path(path) => {
                let (graph, recording) = isotrace_cli::model(&path)?;
                Ok((path.display().to_string(), graph, recording))
            }
            Self::Bytes(bytes) => {
                let mut graph = Model::decode(Bytes::from(bytes), None)?.graph()?;
                isotrace_ops::nchwc::annotate(&mut graph)?;
                Ok(("a model in memory".to_owned(), graph, None))
            }
        }
    }
}

/// What the inputs are made of.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Feed {
    given: Option<HashMap<String, Array>>,
    set: Vec<(String, String)>,
    dims: Vec<(String, usize)>,
    seed: u64,
}

impl Feed {
    fn tensors(&mut self) -> PyResult<Option<Tensors>> {
        let Some(given) = self.given.take() else { return Ok(None) };
        given.into_iter().map(|(name, array)| Ok((name, array.tensor()?))).collect::<PyResult<_>>().map(Some)
    }

    fn request<'a>(&'a self, given: Option<&'a Tensors>) -> Request<'a> {
        let given = given.map(|tensors| ("the inputs given", tensors));
        Request { given, set: &self.set, dims: &self.dims, seed: self.seed }
    }
}

/// Whether the interpreter wants to go on; what it raised is kept for later.
struct Interrupts(Mutex<Option<PyErr>>);

impl Interrupts {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn go_on(&self) -> bool {
        match Python::attach(|py| py.check_signals()) {
            Ok(()) => true,
            Err(raised) => {
                *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(raised);
                false
            }
        }
    }

    /// The error of an interrupted call is what the interpreter raised.
    fn or(self, error: PyErr) -> PyErr {
        self.0.into_inner().ok().flatten().unwrap_or(error)
    }
}

/// Compares two models; the report as (exit status, JSON, text).
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "Python's arguments are extracted, not borrowed")]
fn diff(
    py: Python<'_>,
    a: Given,
    b: Given,
    mut feed: Feed,
    allow: Vec<String>,
    colour: bool,
) -> PyResult<(u8, String, String)> {
    let given = feed.tensors()?;
    let allowed: Vec<DType> = allow
        .iter()
        .map(|name| {
            DType::parse(name).filter(|d| matches!(d, DType::F16 | DType::BF16)).ok_or_else(|| {
                IsotraceError::new_err(format!("allow holds {name:?}, expected \"f16\" or \"bf16\""))
            })
        })
        .collect::<PyResult<_>>()?;
    let interrupts = Interrupts::new();
    let report = py.detach(|| -> anyhow::Result<Report> {
        let ((path_a, graph_a, taken_a), (path_b, graph_b, taken_b)) = (a.graph()?, b.graph()?);
        let source_a =
            Source { path: &path_a, graph: &graph_a, recorded: taken_a.as_ref().map(|r| &r.values) };
        let source_b =
            Source { path: &path_b, graph: &graph_b, recorded: taken_b.as_ref().map(|r| &r.values) };
        let brought = isotrace_cli::brought([(&path_a, taken_a.as_ref()), (&path_b, taken_b.as_ref())])?;
        if brought.is_some() && given.is_some() {
            anyhow::bail!(
                "inputs have no effect on a trace, which was recorded on inputs of its own; leave them out"
            );
        }
        let given = brought.map(|(_, tensors)| tensors).or(given);
        let bound = match bind(&graph_a, &graph_b, &feed.request(given.as_ref())) {
            Ok(bound) => bound,
            Err(e @ isotrace_inputs::InputError::Ambiguous { .. }) => {
                return Ok(isotrace_cli::without_conclusion(&source_a, &source_b, &e));
            }
            Err(other) => return Err(other.into()),
        };
        let show = |_: &str, _: f64| interrupts.go_on();
        let options = Options { allowed: &allowed, progress: Some(&show), detail: Detail::FULL };
        let inputs = Inputs { a: &bound.a, b: &bound.b, pairs: &bound.pairs };
        let mut report = isotrace_diagnose::diff(source_a, source_b, inputs, options)?;
        report.inputs = bound
            .fed
            .iter()
            .map(|fed| Input {
                name: Both::new(fed.a.clone(), fed.b.clone()),
                dtype: fed.dtype.to_string(),
                shape: fed.shape.clone(),
                made: fed.made.clone(),
            })
            .collect();
        for (path, taken, side) in [(&path_a, &taken_a, &mut report.a), (&path_b, &taken_b, &mut report.b)] {
            if let Some(taken) = taken {
                side.kind = isotrace_report::Source::Trace;
                report.warnings.extend(taken.warning(path));
            }
        }
        report.seed = given.is_none().then_some(feed.seed);
        Ok(report)
    });
    let report = report.map_err(|e| interrupts.or(failure(e)))?;
    let shown = text::render(&report, text::Options { width: 100, colour, all: false });
    Ok((report.verdict.exit_code(), json::render(&report), shown))
}

/// Runs a model; the values asked for by name (all of them for `["all"]`, the outputs for none).
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "Python's arguments are extracted, not borrowed")]
fn run(
    py: Python<'_>,
    model: Given,
    mut feed: Feed,
    outputs: Vec<String>,
    float64: bool,
) -> PyResult<Vec<(String, Buffer)>> {
    let given = feed.tensors()?;
    let interrupts = Interrupts::new();
    let named = py.detach(|| -> anyhow::Result<_> {
        let (_, graph, _) = model.graph()?;
        let wanted: Vec<ValueId> = if outputs.iter().any(|n| n == "all") {
            graph.inputs.iter().copied().chain(graph.nodes.iter().flat_map(Node::writes)).collect()
        } else if outputs.is_empty() {
            graph.outputs.clone()
        } else {
            let known = graph.names();
            let find = |name: &String| {
                known
                    .get(name.as_str())
                    .copied()
                    .ok_or_else(|| anyhow::anyhow!("{name:?} is no value of the model"))
            };
            outputs.iter().map(find).collect::<anyhow::Result<_>>()?
        };
        let bound = bind_one(&graph, &feed.request(given.as_ref()))?;
        let show = |_: usize, _: usize| interrupts.go_on();
        let options = isotrace_run::Options {
            precision: if float64 { Precision::Float64 } else { Precision::Declared },
            keep: Keep::All,
            progress: Some(&show),
            ..isotrace_run::Options::default()
        };
        let run = Plan::new(&graph)?.run(&bound.a, &options)?;
        let value = |id: ValueId| Some((graph.value(id).name.clone(), Buffer(run.get(id)?.clone())));
        Ok(wanted.into_iter().filter_map(value).collect::<Vec<_>>())
    });
    named.map_err(|e| interrupts.or(failure(e)))
}

/// Runs the program on a command line (the program's name first) and returns its exit status.
#[pyfunction]
fn main(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| isotrace_cli::run(arguments))
}

/// The module.
#[pymodule]
fn _isotrace(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add("IsotraceError", m.py().get_type::<IsotraceError>())?;
    m.add_class::<Buffer>()?;
    m.add_class::<compared::File>()?;
    m.add_class::<recorder::Writer>()?;
    m.add_function(wrap_pyfunction!(diff, m)?)?;
    m.add_function(wrap_pyfunction!(run, m)?)?;
    m.add_function(wrap_pyfunction!(compared::compare, m)?)?;
    m.add_function(wrap_pyfunction!(main, m)?)
}
