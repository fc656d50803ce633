use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use isotrace_onnx::{MappedFile, OnnxError};
use isotrace_tensor::Tensor;

use crate::source::{Entry, Kind, Opened};
use crate::trace::record::Note;
use crate::{
    Source, TraceError, archive, folder, gguf, npy, npz, paddle, padiff, polygraphy, raw, safe, torch, trace,
};

/// Opens a file or folder of tensors; their elements are read when they are asked for.
///
/// The format is told by the content, and by the ending where that says nothing:
///
/// - `.npz`, `.npy` (named as its file), `.safetensors`, one ONNX `TensorProto` (`.pb`, `.tensorproto`);
/// - checkpoints of PyTorch (`.pt`, `.pth`, `.bin`) and PaddlePaddle (`.pdparams`, `.pdopt`), and pickles of NumPy
///   arrays, of which nothing is executed; names are the paths to the tensors, joined by points;
/// - GGUF weights, their blocks made f32;
/// - outputs and inputs saved by Polygraphy (`.json`);
/// - raw bytes beside which a `.json` says what they are;
/// - a folder of any of these, a dump of PaDiff, or a trace.
///
/// Tensors share the mapped bytes wherever alignment, byte order and compression allow.
pub fn open(path: impl AsRef<Path>) -> Result<Source, TraceError> {
    let path = path.as_ref();
    Source::new(path, opened(path).map_err(|e| e.in_file(path))?)
}

/// Reads every tensor of a file or folder ([`open`]), with its name, in the file's order.
pub fn read_tensors(path: impl AsRef<Path>) -> Result<Vec<(String, Tensor)>, TraceError> {
    open(path)?.read_all()
}

fn opened(path: &Path) -> Result<Opened, TraceError> {
    if path.is_dir() {
        if path.join(trace::LOG).exists() {
            return trace::opened(path);
        }
        let (kind, (entries, notes)) = match padiff::contents(path)? {
            Some(contents) => (Kind::PaDiff, contents),
            None => (Kind::Folder, folder::contents(path)?),
        };
        let notes = notes.into_iter().map(Note::of_reader).collect();
        return Ok(Opened { notes, ..Opened::new(kind, entries) });
    }
    let stem = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let file = Arc::new(MappedFile::open(path)?);
    let (kind, (entries, notes)) = from_file(path, &stem, &file)?;
    let notes = notes.into_iter().map(Note::of_reader).collect();
    Ok(Opened { file: Some(file), notes, ..Opened::new(kind, entries) })
}

/// The tensors of a file in a folder.
pub fn opened_file(path: &Path) -> Result<Contents, TraceError> {
    let opened = opened(path)?;
    Ok((opened.entries, opened.notes.into_iter().map(|note| note.text).collect()))
}

/// Tensors, and notes on what was left aside.
pub type Contents = (Vec<Entry>, Vec<String>);

fn from_file(path: &Path, stem: &str, file: &Arc<MappedFile>) -> Result<(Kind, Contents), TraceError> {
    let all = |entries| (entries, vec![]);
    // Only the pages that are looked at are read.
    let bytes = file.whole()?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    if let Some(sidecar) = raw::sidecar(path)
        && let Some(entries) = raw::entries(stem, file, &sidecar)?
    {
        return Ok((Kind::Raw, all(entries)));
    }
    if bytes.starts_with(b"\x93NUMPY") {
        return Ok((Kind::Npy, all(vec![npy::entry(stem, file, &bytes)?])));
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        let looks_like_torch = matches!(extension, "pt" | "pth" | "bin" | "ckpt");
        let pieces = archive::pieces(if looks_like_torch { "PyTorch" } else { ".npz" }, &bytes)?;
        return match torch::folder(&pieces) {
            Some(folder) => Ok((Kind::PyTorch, torch::zipped(stem, &folder, file, pieces)?)),
            None => Ok((Kind::Npz, all(npz::entries(file, &bytes, pieces)?))),
        };
    }
    if extension == "safetensors" || is_safetensors(&bytes) {
        return Ok((Kind::Safetensors, all(safe::entries(file, &bytes)?)));
    }
    if bytes.starts_with(b"GGUF") {
        return Ok((Kind::Gguf, all(gguf::entries(file, &bytes)?)));
    }
    if torch::is_legacy(&bytes) {
        return Ok((Kind::PyTorch, torch::legacy(stem, file, &bytes)?));
    }
    let pickled = matches!(extension, "pdparams" | "pdopt" | "pdtensor" | "pkl" | "pickle");
    if pickled || bytes.starts_with(b"\x80") && bytes.get(1).is_some_and(|&p| (2..=5).contains(&p)) {
        return paddle::contents(stem, extension, file, &bytes);
    }
    if extension == "json" {
        return Ok((Kind::Polygraphy, polygraphy::contents(file, &bytes)?));
    }
    if matches!(extension, "pb" | "tensorproto") {
        let (name, tensor) = folder::read_one(stem, path)?;
        return Ok((Kind::Pb, all(vec![Entry::ready(name, tensor)])));
    }
    if bytes.starts_with(b"SQLite format 3\0") {
        return Err(TraceError::Format {
            found: "an SQLite database".into(),
            remedy: "if ONNX Runtime dumped it, dump again with ORT_DEBUG_NODE_IO_DUMP_DATA_DESTINATION=files and name that \
                     folder",
        });
    }
    Err(unknown(extension, &bytes))
}

/// Eight bytes of length, then JSON.
fn is_safetensors(bytes: &Bytes) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*length) <= rest.len() as u64 && rest.first() == Some(&b'{')
}

fn unknown(extension: &str, bytes: &Bytes) -> TraceError {
    let raw = matches!(extension, "bin" | "raw" | "dat");
    let undescribed = || TraceError::Format {
        found: format!("raw bytes that no .{extension}.json beside them describes"),
        remedy: "write one, such as {\"dtype\": \"f32\", \"shape\": [2, 3]} (docs/formats.md)",
    };
    let (found, remedy) = match extension {
        "npz" | "npy" | "pt" | "pth" | "bin" if bytes.is_empty() => {
            ("an empty file", "the writer failed; write it again")
        }
        "npz" | "npy" | "pt" | "pth" => {
            ("something else under that name", "the file is damaged; write or copy it again")
        }
        "pdiparams" => (
            "the weights of a PaddlePaddle program, which carry no names",
            "load the program and paddle.save its state_dict() as .pdparams",
        ),
        "onnx" => ("an ONNX model", "give it where a model is expected"),
        _ => {
            // The reader of ONNX tensors knows what people confuse with its files.
            return match isotrace_onnx::decode_tensor_pb(bytes) {
                // It speaks of models, where text is nearly one.
                Err(OnnxError::NotOnnx { found, .. }) if found == "text" => {
                    TraceError::Format { found, remedy: "docs/formats.md lists the files that are read" }
                }
                Err(OnnxError::NotOnnx { found, .. }) if raw && found.starts_with("bytes") => undescribed(),
                Err(OnnxError::NotOnnx { found, remedy, .. }) => TraceError::Format { found, remedy },
                Err(OnnxError::NotATensor { found, .. }) => TraceError::Format {
                    found: format!("an ONNX {found}"),
                    remedy: "only tensors are supported",
                },
                _ if raw => undescribed(),
                _ => TraceError::Format {
                    found: format!("a file named .{extension}"),
                    remedy: "name it .pb if it holds one ONNX TensorProto",
                },
            };
        }
    };
    TraceError::Format { found: found.into(), remedy }
}
