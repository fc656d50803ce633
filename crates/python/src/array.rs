//! Tensors across the border: what Python holds is read in place, what isotrace computed is shown in place.

use bytes::Bytes;
use isotrace_tensor::{DType, Tensor};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// An array that Python owns, as `isotrace._array.border` describes it: C order, native bytes.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Array {
    dtype: String,
    shape: Vec<usize>,
    address: usize,
    bytes: usize,
    owner: Py<PyAny>,
}

/// Memory that lives as long as its owner in Python.
struct Foreign {
    address: usize,
    bytes: usize,
    _owner: Py<PyAny>,
}

impl AsRef<[u8]> for Foreign {
    #[expect(
        unsafe_code,
        reason = "Python's memory is reached by its address; there is no other way without a copy"
    )]
    fn as_ref(&self) -> &[u8] {
        if self.bytes == 0 {
            return &[];
        }
        // SAFETY: `border` takes address and length from a NumPy array in C order and hands that array over as the
        // owner, which is kept alive here and keeps its memory where it is.
        unsafe { std::slice::from_raw_parts(self.address as *const u8, self.bytes) }
    }
}

impl Array {
    /// The array as a tensor that shares its memory.
    pub fn tensor(self) -> PyResult<Tensor> {
        let Self { dtype, shape, address, bytes, owner } = self;
        let dtype = DType::parse(&dtype)
            .ok_or_else(|| PyValueError::new_err(format!("elements of type {dtype} are not supported")))?;
        let shared = Bytes::from_owner(Foreign { address, bytes, _owner: owner });
        Tensor::from_bytes(dtype, &shape, shared).map_err(|e| PyValueError::new_err(e.to_string()))
    }
}

/// A tensor of isotrace's, shown to NumPy through `__array_interface__` as plain bytes; `isotrace._array.array` gives
/// them their type and shape.
#[pyclass(frozen, module = "isotrace._isotrace")]
pub struct Buffer(pub Tensor);

#[pymethods]
impl Buffer {
    /// The element type's name: `f32`, `bf16`, `i64`.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.0.dtype().name()
    }

    /// The shape.
    #[getter]
    fn shape(&self) -> Vec<usize> {
        self.0.shape().to_vec()
    }

    /// The elements of a tensor of text, in C order.
    fn strings(&self) -> Option<Vec<String>> {
        self.0.as_strings().ok().map(<[String]>::to_vec)
    }

    /// NumPy's protocol: the elements' bytes, read-only.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let bytes = self.0.bytes();
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("typestr", "|u1")?;
        interface.set_item("shape", (bytes.len(),))?;
        interface.set_item("data", (bytes.as_ptr() as usize, true))?;
        Ok(interface)
    }
}
