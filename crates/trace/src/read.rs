use std::path::Path;

use bytes::Bytes;
use isotrace_onnx::{OnnxError, file_bytes};
use isotrace_tensor::Tensor;
use rustc_hash::FxHashSet;

use crate::{TraceError, folder, npy, npz, safe};

/// Reads every tensor of a file or folder, with its name, in the file's order.
///
/// The format is told by the content: `.npz`, `.npy` (named as its file), `.safetensors`, one ONNX `TensorProto`
/// (`.pb`), or a folder of `.pb` and `.npy` files in the order of the numbers in their names. Files are mapped, and
/// tensors share their bytes wherever alignment, byte order and compression allow.
pub fn read_tensors(path: impl AsRef<Path>) -> Result<Vec<(String, Tensor)>, TraceError> {
    let path = path.as_ref();
    let tensors = read(path).map_err(|e| e.in_file(path))?;
    let mut seen = FxHashSet::default();
    if let Some((name, _)) = tensors.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(TraceError::Duplicate { name: name.clone() }.in_file(path));
    }
    Ok(tensors)
}

fn read(path: &Path) -> Result<Vec<(String, Tensor)>, TraceError> {
    if path.is_dir() {
        return folder::read(path);
    }
    let stem = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let bytes = file_bytes(path)?;
    if bytes.starts_with(b"\x93NUMPY") {
        return Ok(vec![(stem.clone(), npy::read(&stem, &bytes)?)]);
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return npz::read(&bytes);
    }
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    if extension == "safetensors" || is_safetensors(&bytes) {
        return safe::read(&bytes);
    }
    if extension == "pb" {
        return Ok(vec![folder::read_one(&stem, path)?]);
    }
    Err(unknown(extension, &bytes))
}

/// Eight bytes of length, then JSON.
fn is_safetensors(bytes: &Bytes) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*length) <= rest.len() as u64 && rest.first() == Some(&b'{')
}

fn unknown(extension: &str, bytes: &Bytes) -> TraceError {
    let (found, remedy) = match extension {
        "npz" | "npy" if bytes.is_empty() => ("an empty file", "the writer failed; write it again"),
        "npz" | "npy" => ("something else under that name", "the file is damaged; write or copy it again"),
        "pt" | "pth" | "bin" | "pkl" | "pickle" => {
            ("a pickle, which is never opened", "save the tensors as .safetensors")
        }
        "onnx" => ("an ONNX model", "give it where a model is expected"),
        _ => {
            // The reader of ONNX tensors knows what people confuse with its files.
            return match isotrace_onnx::decode_tensor_pb(bytes) {
                Err(OnnxError::NotOnnx { found, remedy, .. }) => TraceError::Format { found, remedy },
                Err(OnnxError::NotATensor { found, .. }) => TraceError::Format {
                    found: format!("an ONNX {found}"),
                    remedy: "only tensors are supported",
                },
                _ => TraceError::Format {
                    found: format!("a file named .{extension}"),
                    remedy: "name it .pb if it holds one ONNX TensorProto",
                },
            };
        }
    };
    TraceError::Format { found: found.into(), remedy }
}
