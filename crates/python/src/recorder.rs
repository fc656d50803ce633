//! Traces written from Python: records come as dictionaries, elements as arrays.
//!
//! What is recorded computes while this writes: records go to a thread of their own in the order in which they came, and
//! only the elements are copied before a call returns, since Python may overwrite them. What waits is bounded, so that
//! memory is. An error of the thread is raised by the next call.
//!
//! Where digests alone are kept there is no such thread: digests are computed at once, by the model's own threads
//! (`team`), which takes no longer than a copy would, and to write a record takes less than to wake somebody.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::anyhow;
use bytes::Bytes;
use isotrace_tensor::Tensor;
use isotrace_trace::trace::{Digest, Digests, Options, Pool, Team, record};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::array::Array;
use crate::failure;
use crate::team::Threads;

/// Records that wait at most.
const QUEUE: usize = 4096;

/// Bytes that are digested together at most, but for one tensor.
const TOGETHER: usize = 1 << 28;

/// Digests of parameters, which every recording of a model sees again.
static KNOWN: LazyLock<Mutex<Digests>> = LazyLock::new(Mutex::default);

/// What is to be written.
enum Job {
    Value(u64, Json, Content),
    Node(Json),
    Call(Json),
    Graph(Json),
    Step(Json),
    Note(Json),
    Flush(SyncSender<()>),
}

/// What is known of a value's elements.
enum Content {
    Tensor(Tensor),
    Digest(Box<Digest>),
    Nothing,
}

/// A record as Python gave it.
struct Json(serde_json::Value);

impl<'a, 'py> FromPyObject<'a, 'py> for Json {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        json(&object).map(Self)
    }
}

fn json(object: &Bound<'_, PyAny>) -> PyResult<serde_json::Value> {
    use serde_json::Value;
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(Value::String(text.to_string_lossy().into_owned()));
    }
    // A bool is an int to Python too.
    if let Ok(truth) = object.cast::<PyBool>() {
        return Ok(Value::Bool(truth.is_true()));
    }
    if object.is_instance_of::<PyInt>() {
        return match object.extract::<u64>() {
            Ok(number) => Ok(number.into()),
            Err(_) => Ok(object.extract::<i64>()?.into()),
        };
    }
    if let Ok(number) = object.cast::<PyFloat>() {
        return Ok(number.value().into());
    }
    if let Ok(map) = object.cast::<PyDict>() {
        return map.iter().map(|(key, item)| Ok((key.extract::<String>()?, json(&item)?))).collect();
    }
    if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        return object.try_iter()?.map(|item| json(&item?)).collect();
    }
    if object.is_none() {
        return Ok(Value::Null);
    }
    let kind = object.get_type().name()?;
    Err(PyTypeError::new_err(format!("a {kind} cannot be part of a record; expected what JSON has")))
}

/// Bytes that wait, and who waits for them to become fewer.
#[derive(Default)]
struct Gauge {
    bytes: Mutex<u64>,
    fewer: Condvar,
}

impl Gauge {
    fn enter(&self, bytes: u64, most: u64) {
        let mut waiting = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        // A tensor larger than all that may wait enters alone.
        while *waiting > 0 && *waiting + bytes > most {
            waiting = self.fewer.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        *waiting += bytes;
    }

    fn leave(&self, bytes: u64) {
        let mut waiting = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting = waiting.saturating_sub(bytes);
        drop(waiting);
        self.fewer.notify_all();
    }
}

/// Who writes.
enum Scribe {
    /// Whoever calls.
    Caller(isotrace_trace::Writer),
    /// A thread, by way of a queue.
    Thread { jobs: SyncSender<Job>, thread: JoinHandle<anyhow::Result<()>> },
}

/// A trace under way.
#[pyclass(frozen, module = "isotrace._isotrace")]
pub struct Writer {
    scribe: Mutex<Option<Scribe>>,
    gauge: Arc<Gauge>,
    most: u64,
    /// Who digests, where digests are all that is kept.
    team: Option<Threads>,
    /// Values that are digested together.
    waiting: Mutex<Vec<(u64, Json, Tensor)>>,
    next_value: AtomicU64,
    next_call: AtomicU64,
}

impl Scribe {
    /// A thread, for which at most so much waits as the gauge lets in.
    fn behind(writer: isotrace_trace::Writer, gauge: &Arc<Gauge>) -> std::io::Result<Self> {
        let (jobs, received) = sync_channel(QUEUE);
        let gauge = Arc::clone(gauge);
        let thread = std::thread::Builder::new().name("isotrace writer".into()).spawn(move || {
            let result = work(writer, &received, &gauge);
            // What still waits is not written; nobody may wait for it.
            drop(received);
            *gauge.bytes.lock().unwrap_or_else(PoisonError::into_inner) = 0;
            gauge.fewer.notify_all();
            result
        })?;
        Ok(Self::Thread { jobs, thread })
    }

    /// Ends the trace.
    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Caller(writer) => Ok(writer.finish()?),
            Self::Thread { jobs, thread } => {
                drop(jobs);
                thread.join().unwrap_or_else(|_| Err(anyhow!("the thread that writes this trace failed")))
            }
        }
    }
}

/// Does one job after the other, up to the first error: the next call finds nobody at work, and asks why.
fn work(
    mut writer: isotrace_trace::Writer,
    jobs: &std::sync::mpsc::Receiver<Job>,
    gauge: &Gauge,
) -> anyhow::Result<()> {
    for job in jobs {
        let bytes = match &job {
            Job::Value(_, _, Content::Tensor(tensor)) => tensor.raw_bytes().len() as u64,
            _ => 0,
        };
        write(&mut writer, job)?;
        gauge.leave(bytes);
    }
    Ok(writer.finish()?)
}

fn write(writer: &mut isotrace_trace::Writer, job: Job) -> anyhow::Result<()> {
    match job {
        Job::Value(id, json, content) => {
            let record = record::Value { id, ..parsed(json)? };
            match content {
                Content::Tensor(tensor) => writer.value(record, &tensor)?,
                Content::Digest(digest) => {
                    writer.described(record::Value { digest: Some(*digest), ..record })?
                }
                Content::Nothing => writer.described(record)?,
            };
        }
        Job::Node(json) => {
            writer.node(parsed(json)?)?;
        }
        Job::Call(json) => {
            writer.call(parsed(json)?)?;
        }
        Job::Graph(json) => writer.graph(parsed(json)?)?,
        Job::Step(json) => writer.step(parsed(json)?)?,
        Job::Note(json) => writer.note(parsed(json)?)?,
        Job::Flush(done) => {
            writer.flush()?;
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }
    Ok(())
}

impl Writer {
    fn send(&self, py: Python<'_>, job: Job) -> PyResult<()> {
        py.detach(|| {
            let mut scribe = self.scribe.lock().unwrap_or_else(PoisonError::into_inner);
            match scribe.as_mut() {
                None => return Err(anyhow!("this trace is finished; nothing can be added to it")),
                Some(Scribe::Caller(writer)) => {
                    return write(writer, job).inspect_err(|_| *scribe = None);
                }
                Some(Scribe::Thread { jobs, .. }) if jobs.send(job).is_ok() => return Ok(()),
                Some(Scribe::Thread { .. }) => {}
            }
            scribe.take().map_or(Ok(()), Scribe::finish)?;
            Err(anyhow!("the thread that writes this trace has ended"))
        })
        .map_err(failure)
    }
}

fn parsed<T: serde::de::DeserializeOwned>(json: Json) -> anyhow::Result<T> {
    serde_json::from_value(json.0).map_err(|e| anyhow!("a record that cannot be read: {e}"))
}

/// What Python may overwrite before it is written is copied now.
fn copied(array: Array) -> PyResult<Tensor> {
    let tensor = array.tensor()?;
    let bytes = Bytes::copy_from_slice(tensor.raw_bytes());
    Tensor::from_bytes(tensor.dtype(), tensor.shape(), bytes).map_err(failure)
}

#[pymethods]
impl Writer {
    /// Begins a trace in a new or empty folder; `header` is the first record.
    #[new]
    fn new(py: Python<'_>, folder: PathBuf, header: Json, shard_bytes: u64) -> PyResult<Self> {
        let header: record::Header = parsed(header).map_err(failure)?;
        let writer = py
            .detach(|| isotrace_trace::Writer::create(folder, &header, Options { shard_bytes }))
            .map_err(failure)?;
        let team = (header.keeps == record::Keeps::Digest).then(Threads::find);
        let gauge = Arc::new(Gauge::default());
        let scribe = match team {
            Some(_) => Scribe::Caller(writer),
            None => Scribe::behind(writer, &gauge).map_err(failure)?,
        };
        Ok(Self {
            scribe: Mutex::new(Some(scribe)),
            gauge,
            most: shard_bytes.max(1),
            team,
            waiting: Mutex::default(),
            next_value: AtomicU64::new(1),
            next_call: AtomicU64::new(1),
        })
    }

    /// A number for a value that is written later.
    fn reserve(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a call that is written later.
    fn reserve_call(&self) -> u64 {
        self.next_call.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a value with its elements; gives its number. What is to be digested `later` waits for [`Writer::settle`].
    #[pyo3(signature = (json, array, later = false))]
    fn value(&self, py: Python<'_>, json: Json, array: Array, later: bool) -> PyResult<u64> {
        if let Some(team) = &self.team {
            let tensor = array.tensor()?;
            let id = self.reserve();
            if later {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.push((id, json, tensor));
                let bytes: usize = waiting.iter().map(|(_, _, tensor)| tensor.raw_bytes().len()).sum();
                drop(waiting);
                // They may be copies, of what lies on another device.
                if bytes > TOGETHER {
                    self.settle(py)?;
                }
            } else {
                let digest = py
                    .detach(|| if team.many() { Digest::by(&tensor, team) } else { Digest::alone(&tensor) });
                self.send(py, Job::Value(id, json, Content::Digest(Box::new(digest))))?;
            }
            return Ok(id);
        }
        let tensor = copied(array)?;
        let bytes = tensor.raw_bytes().len() as u64;
        py.detach(|| self.gauge.enter(bytes, self.most));
        let id = self.reserve();
        self.send(py, Job::Value(id, json, Content::Tensor(tensor)))
            .inspect_err(|_| self.gauge.leave(bytes))?;
        Ok(id)
    }

    /// Digests what waits together, before anything is overwritten, and remembers what was found: parameters change
    /// seldom.
    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut records = Vec::with_capacity(waiting.len());
        let mut tensors = Vec::with_capacity(waiting.len());
        for (id, json, tensor) in waiting {
            records.push((id, json));
            tensors.push(tensor);
        }
        // Where the model's threads cannot be asked: nothing else computes now.
        let team: &dyn Team = self.team.as_ref().filter(|team| team.many()).map_or(&Pool, |team| team);
        let digests = py.detach(|| KNOWN.lock().unwrap_or_else(PoisonError::into_inner).of(&tensors, team));
        for ((id, json), digest) in records.into_iter().zip(digests) {
            self.send(py, Job::Value(id, json, Content::Digest(Box::new(digest))))?;
        }
        Ok(())
    }

    /// Adds a value without elements; gives its number.
    fn described(&self, py: Python<'_>, json: Json) -> PyResult<u64> {
        let id = self.reserve();
        self.send(py, Job::Value(id, json, Content::Nothing))?;
        Ok(id)
    }

    /// Adds a call of an operator.
    fn node(&self, py: Python<'_>, json: Json) -> PyResult<()> {
        self.send(py, Job::Node(json))
    }

    /// Adds a call of a module, under a number that was reserved.
    fn call(&self, py: Python<'_>, json: Json) -> PyResult<()> {
        self.send(py, Job::Call(json))
    }

    /// Adds what a graph reads and gives.
    fn graph(&self, py: Python<'_>, json: Json) -> PyResult<()> {
        self.send(py, Job::Graph(json))
    }

    /// Says that a step begins or ends.
    fn step(&self, py: Python<'_>, json: Json) -> PyResult<()> {
        self.send(py, Job::Step(json))
    }

    /// Says something a reader should know.
    fn note(&self, py: Python<'_>, json: Json) -> PyResult<()> {
        self.send(py, Job::Note(json))
    }

    /// Writes what waits: from now on it survives whatever happens to the program.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let (done, asked) = sync_channel(1);
        self.send(py, Job::Flush(done))?;
        // An error ends the thread, and the next call tells of it.
        py.detach(move || asked.recv().unwrap_or_default());
        Ok(())
    }

    /// Ends the trace.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            let scribe = self.scribe.lock().unwrap_or_else(PoisonError::into_inner).take();
            scribe.map_or(Ok(()), Scribe::finish)
        })
        .map_err(failure)
    }
}
