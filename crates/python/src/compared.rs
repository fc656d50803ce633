//! Tensors without a model: files of them, and the distance of two.

use std::path::PathBuf;

use isotrace_compare::{Rule, Tolerance, judge};
use isotrace_trace::Source;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::{Array, Buffer};
use crate::failure;

/// A file or folder of tensors, each read when it is asked for.
#[pyclass(frozen, module = "isotrace._isotrace")]
pub struct File(Source);

#[pymethods]
impl File {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| isotrace_trace::open(path)).map(Self).map_err(failure)
    }

    /// What kind of file it is.
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind().name()
    }

    /// The names of its tensors.
    fn names(&self) -> Vec<String> {
        self.0.names().map(str::to_owned).collect()
    }

    /// What a reader should know, each as its class, a sentence, and names.
    fn notes(&self) -> Vec<(String, String, Vec<String>)> {
        self.0.notes().iter().map(|n| (n.class.clone(), n.text.clone(), n.places.clone())).collect()
    }

    /// One tensor, its bytes shared with the file where they lie as they should.
    fn get(&self, py: Python<'_>, name: &str) -> PyResult<Buffer> {
        py.detach(|| self.0.get(name)).map(Buffer).map_err(failure)
    }
}

/// Every metric of two arrays, and whether they are close by the rule of `like` (torch, numpy or polygraphy).
#[pyfunction]
pub fn compare<'py>(
    py: Python<'py>,
    x: Array,
    y: Array,
    like: &str,
    rtol: Option<f64>,
    atol: Option<f64>,
) -> PyResult<Bound<'py, PyDict>> {
    let (x, y) = (x.tensor()?, y.tensor()?);
    let rule = match like {
        "torch" => Rule::Torch,
        "numpy" => Rule::Numpy,
        "polygraphy" => Rule::Polygraphy,
        other => {
            let known = "expected \"torch\", \"numpy\" or \"polygraphy\"";
            return Err(crate::IsotraceError::new_err(format!("like is {other:?}, {known}")));
        }
    };
    let default = Tolerance::default_of(rule, x.dtype(), y.dtype());
    let tolerance =
        Tolerance { rule, rtol: rtol.unwrap_or(default.rtol), atol: atol.unwrap_or(default.atol) };
    let (m, judgement) = py.detach(|| judge(&x, &y, &tolerance)).map_err(failure)?;
    let out = PyDict::new(py);
    out.set_item("close", judgement.beyond == 0)?;
    out.set_item("beyond", judgement.beyond)?;
    out.set_item("rtol", tolerance.rtol)?;
    out.set_item("atol", tolerance.atol)?;
    out.set_item("len", m.len)?;
    out.set_item("different", m.different)?;
    out.set_item("max_abs", m.max_abs)?;
    out.set_item("mean_abs", m.mean_abs)?;
    out.set_item("max_rel", m.max_rel)?;
    out.set_item("rel_l2", m.rel_l2)?;
    out.set_item("cosine", m.cosine)?;
    out.set_item("max_ulp", m.max_ulp)?;
    out.set_item("argmax", m.argmax)?;
    out.set_item("nan", m.nan)?;
    out.set_item("inf", m.inf)?;
    out.set_item("identical", m.bits_equal)?;
    Ok(out)
}

/// What an array holds, as the JSON of `isotrace stats` has it.
#[pyfunction]
pub fn stats(py: Python<'_>, name: &str, x: Array, intervals: usize) -> PyResult<String> {
    let x = x.tensor()?;
    Ok(py.detach(|| isotrace_cli::stats(name, &x, intervals)).to_string())
}
