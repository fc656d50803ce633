//! The Python module `isotrace._isotrace`: what `isotrace/__init__.py` is built on.
//!
//! Everything that takes time runs without the interpreter's lock, and asks it now and then whether Ctrl-C was pressed.

mod array;
mod compared;
mod recorder;
mod team;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Mutex;

use bytes::Bytes;
use clap::ValueEnum;
use isotrace_cli::{Level, Loaded, Runner};
use isotrace_diagnose::Detail;
use isotrace_graph::{Node, ValueId};
use isotrace_inputs::{Request, Tensors, bind_one};
use isotrace_ops::Precision;
use isotrace_report::{Report, json, text};
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
    /// The model, ready to be run by a backend, and what reports call it.
    fn load(self, backend: Option<Backend>) -> anyhow::Result<(String, Loaded)> {
        let Backend { runner, level } = backend.unwrap_or_default();
        match self {
            Self::Path(path) => Ok((
                path.display().to_string(),
                Loaded::new(&path, runner.unwrap_or(Runner::Embedded), level)?,
            )),
            Self::Bytes(bytes) => Ok((
                "a model in memory".to_owned(),
                Loaded::decode(Bytes::from(bytes), runner.unwrap_or(Runner::Embedded), level)?,
            )),
        }
    }
}

/// Who runs a model, by the names of the command line.
#[derive(Default)]
struct Backend {
    runner: Option<Runner>,
    level: Option<Level>,
}

impl Backend {
    fn parse((runner, level): (Option<String>, Option<String>)) -> PyResult<Self> {
        Ok(Self { runner: choice("backend", runner)?, level: choice("optimisation", level)? })
    }
}

/// One of the words that the command line takes.
fn choice<T: ValueEnum>(what: &str, word: Option<String>) -> PyResult<Option<T>> {
    let known = || {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        names.map(|n| format!("{:?}", n.get_name())).collect::<Vec<_>>().join(", ")
    };
    word.map(|word| {
        T::from_str(&word, false)
            .map_err(|_| IsotraceError::new_err(format!("{what} is {word:?}, expected one of {}", known())))
    })
    .transpose()
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
    backends: [(Option<String>, Option<String>); 2],
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
    let [backend_a, backend_b] = backends.map(Backend::parse);
    let (backend_a, backend_b) = (backend_a?, backend_b?);
    let interrupts = Interrupts::new();
    let report = py.detach(|| -> anyhow::Result<Report> {
        let ((path_a, mut a), (path_b, mut b)) = (a.load(Some(backend_a))?, b.load(Some(backend_b))?);
        Loaded::settle(&mut a, &mut b)?;
        let brought = isotrace_cli::brought([(&path_a, a.recorded()), (&path_b, b.recorded())])?;
        if brought.is_some() && given.is_some() {
            anyhow::bail!(
                "inputs have no effect on a trace, which was recorded on inputs of its own; leave them out"
            );
        }
        let given = brought.map(|(_, tensors)| tensors).or(given);
        let show = |_: &str, _: f64| interrupts.go_on();
        let sides = [(path_a.as_str(), &a), (path_b.as_str(), &b)];
        isotrace_cli::once(sides, &feed.request(given.as_ref()), &allowed, &show, Detail::FULL)
    });
    let report = report.map_err(|e| interrupts.or(failure(e)))?;
    let shown = text::render(&report, text::Options { width: 100, colour: false, all: false });
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
        let (_, model) = model.load(None)?;
        model.runs()?;
        let graph = model.user();
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
        let bound = bind_one(graph, &feed.request(given.as_ref()))?;
        let show = |_: usize, _: usize| interrupts.go_on();
        let options = isotrace_run::Options {
            precision: if float64 { Precision::Float64 } else { Precision::Declared },
            keep: Keep::All,
            progress: Some(&show),
            ..isotrace_run::Options::default()
        };
        let run = Plan::new(graph)?.run(&bound.a, &options)?;
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
    m.add_function(wrap_pyfunction!(compared::stats, m)?)?;
    m.add_function(wrap_pyfunction!(main, m)?)
}
