//! `.safetensors`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use isotrace_onnx::{MappedFile, pack, per_byte, unpack};
use isotrace_tensor::{DType, Tensor, element_count};
use safetensors::Dtype;
use safetensors::tensor::{SafeTensors, TensorInfo};

use crate::TraceError;
use crate::source::{Entry, Info};

pub fn damaged(problem: impl std::fmt::Display) -> TraceError {
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

/// The type of the format for an element type.
pub fn stored(dtype: DType) -> Option<Dtype> {
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

/// A tensor to be written: what the header says of it.
pub struct Piece {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Size of its data.
    pub bytes: u64,
}

/// What comes before the data, and the order in which the data follow: the widest types first, so that each tensor lies
/// aligned without gaps, which the format forbids.
pub fn header(pieces: &[Piece], metadata: &[(&str, &str)]) -> io::Result<(Vec<u8>, Vec<usize>)> {
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(pieces[at].dtype.bitsize()));
    let quoted = |text: &str| serde_json::to_string(text);
    let mut entries = Vec::with_capacity(pieces.len() + 1);
    if !metadata.is_empty() {
        let map: BTreeMap<_, _> = metadata.iter().copied().collect();
        entries.push(format!("\"__metadata__\":{}", serde_json::to_string(&map)?));
    }
    let mut start = 0u64;
    for &at in &order {
        let piece = &pieces[at];
        let end = start + piece.bytes;
        entries.push(format!(
            "{}:{{\"dtype\":{},\"shape\":{},\"data_offsets\":[{start},{end}]}}",
            quoted(&piece.name)?,
            serde_json::to_string(&piece.dtype)?,
            serde_json::to_string(&piece.shape)?,
        ));
        start = end;
    }
    let mut json = format!("{{{}}}", entries.join(",")).into_bytes();
    // The data start at a multiple of 64, as wide as vectors are.
    json.resize((json.len() + 8).next_multiple_of(64) - 8, b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok((header, order))
}

/// What a tensor will be in a file, if the format can hold it.
pub fn piece(name: &str, info: &Info) -> Result<Piece, TraceError> {
    let refuse = |why, instead| TraceError::Inexpressible {
        format: "a .safetensors file",
        name: name.into(),
        dtype: info.dtype,
        why,
        instead,
    };
    let dtype = stored(info.dtype).ok_or_else(|| match info.dtype {
        DType::C128 | DType::String => refuse("", "an .npz file"),
        _ => refuse("", "a folder of .pb files"),
    })?;
    if name == "__metadata__" {
        return Err(refuse(" (the format keeps this name for itself)", "an .npz file"));
    }
    let count =
        element_count(&info.shape).map_err(|cause| TraceError::Tensor { name: name.into(), cause })?;
    let per = per_byte(info.dtype);
    if !count.is_multiple_of(per) {
        return Err(refuse(" with an odd number of elements", "a folder of .pb files"));
    }
    let bytes = (count / per * info.dtype.size()) as u64;
    Ok(Piece { name: name.into(), dtype, shape: info.shape.clone(), bytes })
}

/// The bytes of a tensor in a file.
pub fn content(tensor: &Tensor) -> Cow<'_, [u8]> {
    if per_byte(tensor.dtype()) > 1 {
        Cow::Owned(pack(tensor.dtype(), tensor.raw_bytes()))
    } else {
        Cow::Borrowed(tensor.raw_bytes())
    }
}
