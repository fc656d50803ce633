//! Traces written from Python: records come as JSON, elements as arrays.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use isotrace_tensor::Tensor;
use isotrace_trace::trace::{Options, record};
use pyo3::prelude::*;

use crate::array::Array;
use crate::failure;

/// A trace under way.
#[pyclass(frozen, module = "isotrace._isotrace")]
pub struct Writer(Mutex<Option<isotrace_trace::Writer>>);

impl Writer {
    fn with<R: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&mut isotrace_trace::Writer) -> anyhow::Result<R> + Send,
    ) -> PyResult<R> {
        py.detach(|| {
            let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match writer.as_mut() {
                Some(writer) => f(writer),
                None => Err(anyhow::anyhow!("this trace is finished; nothing can be added to it")),
            }
        })
        .map_err(failure)
    }
}

fn parsed<T: serde::de::DeserializeOwned>(json: &str) -> anyhow::Result<T> {
    serde_json::from_str(json).map_err(|e| anyhow::anyhow!("a record that cannot be read: {e}"))
}

/// What Python may overwrite before it is written is copied now.
fn copied(array: Array) -> PyResult<Tensor> {
    let tensor = array.tensor()?;
    let bytes = Bytes::copy_from_slice(tensor.raw_bytes());
    Tensor::from_bytes(tensor.dtype(), tensor.shape(), bytes).map_err(failure)
}

#[pymethods]
impl Writer {
    /// Begins a trace in a new or empty folder; `header` is the first record, as JSON.
    #[new]
    fn new(py: Python<'_>, folder: PathBuf, header: &str, shard_bytes: u64) -> PyResult<Self> {
        let header: record::Header = parsed(header).map_err(failure)?;
        let writer = py
            .detach(|| isotrace_trace::Writer::create(folder, &header, Options { shard_bytes }))
            .map_err(failure)?;
        Ok(Self(Mutex::new(Some(writer))))
    }

    /// A number for a value that is written later.
    fn reserve(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |w| Ok(w.reserve()))
    }

    /// A number for a call that is written later.
    fn reserve_call(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |w| Ok(w.reserve_call()))
    }

    /// Adds a value with its elements; gives its number.
    fn value(&self, py: Python<'_>, json: &str, array: Array) -> PyResult<u64> {
        let tensor = copied(array)?;
        self.with(py, |w| Ok(w.value(parsed(json)?, &tensor)?))
    }

    /// Adds a value without elements; gives its number.
    fn described(&self, py: Python<'_>, json: &str) -> PyResult<u64> {
        self.with(py, |w| Ok(w.described(parsed(json)?)?))
    }

    /// Adds a call of an operator; gives its number.
    fn node(&self, py: Python<'_>, json: &str) -> PyResult<u64> {
        self.with(py, |w| Ok(w.node(parsed(json)?)?))
    }

    /// Adds a call of a module; gives its number.
    fn call(&self, py: Python<'_>, json: &str) -> PyResult<u64> {
        self.with(py, |w| Ok(w.call(parsed(json)?)?))
    }

    /// Adds what a graph reads and gives.
    fn graph(&self, py: Python<'_>, json: &str) -> PyResult<()> {
        self.with(py, |w| Ok(w.graph(parsed(json)?)?))
    }

    /// Says that a step begins or ends.
    fn step(&self, py: Python<'_>, json: &str) -> PyResult<()> {
        self.with(py, |w| Ok(w.step(parsed(json)?)?))
    }

    /// Says something a reader should know.
    fn note(&self, py: Python<'_>, json: &str) -> PyResult<()> {
        self.with(py, |w| Ok(w.note(parsed(json)?)?))
    }

    /// Writes what waits: from now on it survives whatever happens to the program.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |w| Ok(w.flush()?))
    }

    /// Ends the trace.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            let writer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            writer.map_or(Ok(()), isotrace_trace::Writer::finish)
        })
        .map_err(failure)
    }
}
