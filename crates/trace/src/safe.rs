//! `.safetensors`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use isotrace_onnx::{MappedFile, pack, per_byte, unpack};
use isotrace_tensor::{DType, Tensor};
use safetensors::tensor::{SafeTensors, TensorInfo, View, serialize_to_file};
use safetensors::{Dtype, SafeTensorError};

use crate::TraceError;
use crate::source::{Entry, Info};

fn damaged(problem: impl std::fmt::Display) -> TraceError {
    TraceError::Damaged { format: ".safetensors", problem: problem.to_string() }
}

fn dtype(stored: Dtype) -> Option<DType> {
    Some(match stored {
        Dtype::BOOL => DType::Bool,
        Dtype::F4 => DType::F4E2M1,
        Dtype::U8 => DType::U8,
        Dtype::I8 => DType::I8,
        Dtype::F8_E5M2 => DType::F8E5M2,
        Dtype::F8_E4M3 => DType::F8E4M3FN,
        Dtype::F8_E8M0 => DType::F8E8M0,
        Dtype::F8_E4M3FNUZ => DType::F8E4M3FNUZ,
        Dtype::F8_E5M2FNUZ => DType::F8E5M2FNUZ,
        Dtype::I16 => DType::I16,
        Dtype::U16 => DType::U16,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I32 => DType::I32,
        Dtype::U32 => DType::U32,
        Dtype::F32 => DType::F32,
        Dtype::C64 => DType::C64,
        Dtype::F64 => DType::F64,
        Dtype::I64 => DType::I64,
        Dtype::U64 => DType::U64,
        _ => return None,
    })
}

fn stored(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::Bool => Dtype::BOOL,
        DType::F4E2M1 => Dtype::F4,
        DType::U8 => Dtype::U8,
        DType::I8 => Dtype::I8,
        DType::F8E5M2 => Dtype::F8_E5M2,
        DType::F8E4M3FN => Dtype::F8_E4M3,
        DType::F8E8M0 => Dtype::F8_E8M0,
        DType::F8E4M3FNUZ => Dtype::F8_E4M3FNUZ,
        DType::F8E5M2FNUZ => Dtype::F8_E5M2FNUZ,
        DType::I16 => Dtype::I16,
        DType::U16 => Dtype::U16,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        DType::F32 => Dtype::F32,
        DType::C64 => Dtype::C64,
        DType::F64 => Dtype::F64,
        DType::I64 => Dtype::I64,
        DType::U64 => Dtype::U64,
        DType::C128 | DType::String | DType::I4 | DType::I2 | DType::U4 | DType::U2 => return None,
    })
}

/// All tensors, in the order in which their data lie, sharing the bytes.
pub fn entries(file: &Arc<MappedFile>, bytes: &Bytes) -> Result<Vec<Entry>, TraceError> {
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let mut tensors: Vec<(String, &TensorInfo)> = metadata.tensors().into_iter().collect();
    tensors.sort_by(|(a, x), (b, y)| (x.data_offsets, a).cmp(&(y.data_offsets, b)));
    let data = 8 + header as u64;
    tensors.into_iter().map(|(name, info)| entry(name, file, info, data)).collect()
}

fn entry(name: String, file: &Arc<MappedFile>, info: &TensorInfo, data: u64) -> Result<Entry, TraceError> {
    let dtype = dtype(info.dtype).ok_or_else(|| TraceError::ElementType {
        name: name.clone(),
        found: format!("{:?}", info.dtype),
        remedy: "no operator works on it; save it as a type that ONNX has",
    })?;
    let (file, kept, shape) = (Arc::clone(file), name.clone(), info.shape.clone());
    let (start, end) = info.data_offsets;
    // The reader of the header has checked that the offsets follow each other and end with the file.
    Ok(Entry::new(name, Some(Info::of(dtype, &shape)), move || {
        tensor(&kept, dtype, &shape, &file.stretch(data + start as u64, (end - start) as u64)?)
    }))
}

/// A tensor over the bytes that hold it in a file.
pub fn tensor(name: &str, dtype: DType, shape: &[usize], data: &Bytes) -> Result<Tensor, TraceError> {
    let built = if per_byte(dtype) > 1 {
        // The reader has checked that the packed bytes fill the shape.
        let count = data.len() * per_byte(dtype);
        Tensor::from_pods(dtype, shape, unpack(dtype, data.iter().copied(), count))
    } else if dtype == DType::Bool && data.iter().any(|&b| b > 1) {
        let truths = data.iter().map(|&b| u8::from(b != 0)).collect();
        Tensor::from_pods::<u8>(dtype, shape, truths)
    } else {
        Tensor::from_bytes(dtype, shape, data.clone())
    };
    built.map_err(|cause| TraceError::Tensor { name: name.into(), cause })
}

struct Stored<'t> {
    dtype: Dtype,
    shape: &'t [usize],
    data: Cow<'t, [u8]>,
}

impl View for &Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// Writes a file; the caller gives a path that nobody else sees yet.
pub fn write(path: &std::path::Path, tensors: &[(String, Tensor)]) -> Result<(), TraceError> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let refuse = |why, instead| TraceError::Inexpressible {
            format: "a .safetensors file",
            name: name.clone(),
            dtype: tensor.dtype(),
            why,
            instead,
        };
        let dtype = stored(tensor.dtype()).ok_or_else(|| match tensor.dtype() {
            DType::C128 | DType::String => refuse("", "an .npz file"),
            _ => refuse("", "a folder of .pb files"),
        })?;
        let per = per_byte(tensor.dtype());
        if !tensor.len().is_multiple_of(per) {
            return Err(refuse(" with an odd number of elements", "a folder of .pb files"));
        }
        let data = if per > 1 {
            Cow::Owned(pack(tensor.dtype(), tensor.raw_bytes()))
        } else {
            Cow::Borrowed(tensor.raw_bytes())
        };
        views.push((name, Stored { dtype, shape: tensor.shape(), data }));
    }
    serialize_to_file(views.iter().map(|(n, v)| (n.as_str(), v)), None, path).map_err(|e| match e {
        SafeTensorError::IoError(cause) => TraceError::Io { action: "write", path: path.into(), cause },
        e => damaged(e),
    })
}
