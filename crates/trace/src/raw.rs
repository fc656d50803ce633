//! Raw bytes with a small file beside them that says what they are.
//!
//! Beside `x.bin` lies `x.bin.json` or `x.json`, for one tensor
//!
//! ```json
//! {"dtype": "f32", "shape": [2, 3]}
//! ```
//!
//! and for several `{"tensors": [{"name": "w", "dtype": "f32", "shape": [2, 3], "offset": 0}, ...]}`, or the same with
//! an object of names in place of the list. Types have the names that isotrace prints, or NumPy's (`float32`). `offset`
//! counts bytes and is 0 where it is absent, `order` is `C` or `F`, `byte_order` is `little` or `big`. Elements
//! narrower than a byte take one each.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isotrace_onnx::{MappedFile, file_bytes};
use isotrace_tensor::{DType, Tensor, element_count};

use crate::json::Json;
use crate::source::{Entry, Info};
use crate::write::{Tensors, whole_file, write_all};
use crate::{TraceError, npy};

/// Largest description that is read: of some hundred thousand tensors.
const LARGEST: u64 = 64 << 20;

/// Where the tensors of a written file begin: at multiples of this.
const ALIGNMENT: u64 = 64;

fn damaged(problem: impl Into<String>) -> TraceError {
    TraceError::Damaged { format: "raw", problem: problem.into() }
}

/// The description beside a file.
pub fn sidecar(path: &Path) -> Option<PathBuf> {
    let appended = path.with_added_extension("json");
    if appended.is_file() {
        return Some(appended);
    }
    let replaced = path.with_extension("json");
    let raw = path.extension().is_some_and(|e| e == "bin" || e == "raw" || e == "dat");
    (raw && replaced.is_file()).then_some(replaced)
}

/// The tensors of a file; `None` where the description is of something else.
pub fn entries(stem: &str, file: &Arc<MappedFile>, sidecar: &Path) -> Result<Option<Vec<Entry>>, TraceError> {
    if std::fs::metadata(sidecar).is_ok_and(|m| m.len() > LARGEST) {
        return Ok(None);
    }
    let text = file_bytes(sidecar)?;
    let Ok(json) = serde_json::from_slice::<Json<'_>>(&text) else { return Ok(None) };
    let build =
        |name: &str, json: &Json<'_>, alone| entry(name, json, alone, file).map_err(|e| e.in_file(sidecar));
    if json.field("dtype").is_some() {
        return Ok(Some(vec![build(json.field("name").and_then(Json::text).unwrap_or(stem), &json, true)?]));
    }
    let named: Vec<(&str, &Json<'_>)> = match json.field("tensors") {
        Some(Json::List(list)) => {
            list.iter().map(|t| (t.field("name").and_then(Json::text).unwrap_or(""), t)).collect()
        }
        Some(Json::Object(fields)) => fields.iter().map(|(name, t)| (name.as_ref(), t)).collect(),
        _ => return Ok(None),
    };
    named.into_iter().map(|(name, json)| build(name, json, false)).collect::<Result<_, _>>().map(Some)
}

fn entry(name: &str, json: &Json<'_>, alone: bool, file: &Arc<MappedFile>) -> Result<Entry, TraceError> {
    let text = |field: &str, default: &'static str| match json.field(field) {
        None => Ok(default.to_owned()),
        Some(Json::Text(text)) => Ok(text.clone().into_owned()),
        Some(_) => Err(damaged(format!("{field:?} of tensor {name:?} is no text"))),
    };
    let spelled = text("dtype", "")?;
    let dtype = DType::parse(&spelled).filter(|d| d.size() > 0).ok_or_else(|| TraceError::ElementType {
        name: name.into(),
        found: format!("{spelled:?}"),
        remedy: "write one such as f32, bf16 or i64 (or float32, ...)",
    })?;
    let Some(Json::List(sizes)) = json.field("shape") else {
        return Err(damaged(format!("tensor {name:?} has no list \"shape\"")));
    };
    let shape: Option<Vec<usize>> = sizes.iter().map(Json::size).collect();
    let shape = shape.ok_or_else(|| damaged(format!("the shape of tensor {name:?} holds no sizes")))?;
    let count = element_count(&shape).map_err(|cause| TraceError::Tensor { name: name.into(), cause })?;
    let offset = match json.field("offset") {
        None => 0,
        Some(offset) => offset
            .size()
            .ok_or_else(|| damaged(format!("the offset of tensor {name:?} is no count of bytes")))?
            as u64,
    };
    let one_of = |field: &str, default, other| match text(field, default)?.as_str() {
        found if found == default => Ok(false),
        found if found == other => Ok(true),
        found => Err(damaged(format!(
            "{field:?} of tensor {name:?} is {found:?}, expected {default:?} or {other:?}"
        ))),
    };
    let fortran = one_of("order", "C", "F")?;
    let swapped = one_of("byte_order", "little", "big")?;
    let length = (count * dtype.size()) as u64;
    let end = offset.checked_add(length).filter(|&end| end <= file.len());
    if end.is_none() || alone && json.field("offset").is_none() && length != file.len() {
        return Err(damaged(format!(
            "tensor {name:?} of {dtype} {shape:?} takes {length} bytes from {offset} on, and the file has {}",
            file.len()
        )));
    }
    let (file, kept) = (Arc::clone(file), name.to_owned());
    Ok(Entry::new(name, Some(Info::of(dtype, &shape)), move || {
        let error = |cause| TraceError::Tensor { name: kept.clone(), cause };
        let mut bytes = file.stretch(offset, length)?;
        if swapped {
            let parts = if matches!(dtype, DType::C64 | DType::C128) { 2 } else { 1 };
            bytes = npy::swap(&bytes, dtype.size() / parts);
        }
        crate::trace::check_elements(&kept, dtype, &bytes)?;
        if !fortran || shape.len() < 2 {
            return Tensor::from_bytes(dtype, &shape, bytes).map_err(error);
        }
        let reversed: Vec<usize> = shape.iter().rev().copied().collect();
        let axes: Vec<usize> = (0..shape.len()).rev().collect();
        Tensor::from_bytes(dtype, &reversed, bytes).and_then(|t| t.permute(&axes)).map_err(error)
    }))
}

/// Writes all tensors into one file, and what they are beside it. The description goes first and comes last: without
/// it nobody mistakes the bytes of one for those of another.
pub fn write<T: Tensors + ?Sized>(path: &Path, tensors: &T) -> Result<(), TraceError> {
    let beside = path.with_added_extension("json");
    let mut described = Vec::with_capacity(tensors.count());
    let mut start = 0u64;
    for at in 0..tensors.count() {
        let (name, info) = (tensors.name(at), tensors.info(at)?);
        if info.dtype == DType::String {
            return Err(TraceError::Inexpressible {
                format: "a raw file",
                name: name.into(),
                dtype: info.dtype,
                why: "",
                instead: "an .npz file",
            });
        }
        let count =
            element_count(&info.shape).map_err(|cause| TraceError::Tensor { name: name.into(), cause })?;
        described.push(serde_json::json!({
            "name": name, "dtype": info.dtype.name(), "shape": info.shape, "offset": start,
        }));
        start = (start + (count * info.dtype.size()) as u64).next_multiple_of(ALIGNMENT);
    }
    let remove = |cause| crate::trace::write_error("replace", &beside, cause);
    let mut offsets = described.iter().map(|d| d["offset"].as_u64().unwrap_or(0));
    // What a failed write leaves is the old pair, or bytes without a description.
    whole_file(path, |file| {
        let mut written = 0u64;
        for at in 0..tensors.count() {
            let tensor = tensors.get(at)?;
            let start = offsets.next().unwrap_or(0);
            let gap = vec![0; (start - written) as usize];
            write_all(path, file, &[&gap, tensor.raw_bytes()])?;
            written = start + tensor.raw_bytes().len() as u64;
        }
        if beside.exists() {
            std::fs::remove_file(&beside).map_err(remove)?;
        }
        Ok(())
    })?;
    let text = serde_json::json!({"byte_order": "little", "order": "C", "tensors": described});
    whole_file(&beside, |file| {
        let text = format!("{text:#}\n");
        file.write_all(text.as_bytes()).map_err(|cause| crate::trace::write_error("write", &beside, cause))
    })
}
