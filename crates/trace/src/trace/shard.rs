//! Files of data: `.safetensors`, written whole under another name and renamed.
//!
//! Element types that `.safetensors` does not have are kept as the bytes of one that it has; the record of the value
//! says what they really are.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use isotrace_onnx::{MappedFile, WholePages};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;
use safetensors::Dtype;
use safetensors::tensor::SafeTensors;

use crate::TraceError;
use crate::safe::{self, Piece};

/// The file of a shard.
pub fn file_name(index: u32) -> String {
    format!("data-{index:04}.safetensors")
}

/// What ends the names of files that are not finished.
pub const UNFINISHED: &str = ".tmp";

/// How a type is stored: as which type, and with which axes more.
fn stored(dtype: DType) -> (Dtype, &'static [usize]) {
    match dtype {
        DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::F4E2M1 => (Dtype::U8, &[]),
        DType::C128 => (Dtype::F64, &[2]),
        other => (safe::stored(other).unwrap_or(Dtype::U8), &[]),
    }
}

/// One tensor that waits to be written.
pub struct Waiting {
    pub key: String,
    pub tensor: Tensor,
}

/// Writes a shard whole: under another name, to the disk, then renamed. What is left of a failed one is removed.
pub fn write(folder: &Path, index: u32, waiting: &[Waiting]) -> Result<u64, (PathBuf, io::Error)> {
    let path = folder.join(file_name(index));
    let unfinished = path.with_added_extension(&UNFINISHED[1..]);
    let written = fill(&unfinished, waiting).and_then(|bytes| {
        std::fs::rename(&unfinished, &path)?;
        sync_folder(folder)?;
        Ok(bytes)
    });
    written.map_err(|error| {
        // It may not be there; the first error is the one to tell.
        let _ = std::fs::remove_file(&unfinished);
        (path, error)
    })
}

fn fill(path: &Path, waiting: &[Waiting]) -> io::Result<u64> {
    let mut file = WholePages::new(File::create(path)?);
    let contents: Vec<Cow<'_, [u8]>> = waiting.iter().map(|w| content(&w.tensor)).collect();
    let pieces: Vec<Piece> = waiting
        .iter()
        .zip(&contents)
        .map(|(w, content)| {
            let (dtype, more) = stored(w.tensor.dtype());
            let shape = if w.tensor.dtype() == DType::String {
                vec![content.len()]
            } else {
                w.tensor.shape().iter().chain(more).copied().collect()
            };
            Piece { name: w.key.clone(), dtype, shape, bytes: content.len() as u64 }
        })
        .collect();
    let (header, order) = safe::header(&pieces, &[])?;
    file.write_all(&header)?;
    for at in order {
        file.write_all(&contents[at])?;
    }
    file.file().sync_all()?;
    Ok(header.len() as u64 + pieces.iter().map(|p| p.bytes).sum::<u64>())
}

fn content(tensor: &Tensor) -> Cow<'_, [u8]> {
    match tensor.as_strings() {
        Ok(texts) => Cow::Owned(serde_json::to_vec(texts).unwrap_or_default()),
        Err(_) => Cow::Borrowed(tensor.raw_bytes()),
    }
}

/// Makes a rename survive a loss of power, where folders can be synchronised.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// The table of contents of a shard.
pub struct Contents {
    tensors: FxHashMap<String, Slot>,
}

struct Slot {
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
    length: u64,
}

impl Contents {
    pub fn read(file: &MappedFile) -> Result<Self, TraceError> {
        let bytes = file.whole()?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(safe::damaged)?;
        let tensors = metadata.tensors().into_iter().map(|(name, info)| {
            let (start, end) = info.data_offsets;
            let slot = Slot {
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: (8 + header + start) as u64,
                length: (end - start) as u64,
            };
            (name, slot)
        });
        Ok(Self { tensors: tensors.collect() })
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The bytes of a tensor of a shard, as they lie there.
    pub fn bytes(&self, file: &MappedFile, key: &str) -> Result<Bytes, TraceError> {
        let slot = self.slot(key)?;
        Ok(file.stretch(slot.start, slot.length)?)
    }

    /// A tensor as its record describes it.
    pub fn tensor(
        &self,
        file: &MappedFile,
        key: &str,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Tensor, TraceError> {
        let slot = self.slot(key)?;
        let (expected, more) = stored(dtype);
        let fits = if dtype == DType::String {
            slot.shape.len() == 1
        } else {
            let wanted = shape.iter().chain(more);
            slot.shape.len() == shape.len() + more.len() && slot.shape.iter().zip(wanted).all(|(a, b)| a == b)
        };
        if slot.dtype != expected || !fits {
            return Err(damaged(format!(
                "tensor {key:?} is {:?} {:?}, but its record says {dtype} {shape:?}",
                slot.dtype, slot.shape
            )));
        }
        let built = if dtype == DType::String {
            let texts: Vec<String> = serde_json::from_slice(&file.stretch(slot.start, slot.length)?)
                .map_err(|e| damaged(format!("tensor {key:?} is no JSON list of texts: {e}")))?;
            Tensor::from_strings(shape, texts)
        } else {
            let bytes = file.stretch(slot.start, slot.length)?;
            check_elements(key, dtype, &bytes)?;
            Tensor::from_bytes(dtype, shape, bytes)
        };
        built.map_err(|cause| TraceError::Tensor { name: key.into(), cause })
    }

    fn slot(&self, key: &str) -> Result<&Slot, TraceError> {
        self.tensors.get(key).ok_or_else(|| damaged(format!("its shard holds no tensor {key:?}")))
    }
}

/// Elements narrower than a byte must be in the form that memory holds them in.
pub fn check_elements(key: &str, dtype: DType, bytes: &[u8]) -> Result<(), TraceError> {
    let sound = |b: u8| match dtype {
        DType::Bool => b < 2,
        DType::U4 | DType::F4E2M1 => b < 16,
        DType::U2 => b < 4,
        DType::I4 => (-8..8).contains(&(b as i8)),
        DType::I2 => (-2..2).contains(&(b as i8)),
        _ => true,
    };
    let narrow = matches!(dtype, DType::Bool | DType::U4 | DType::F4E2M1 | DType::U2 | DType::I4 | DType::I2);
    match bytes.iter().find(|&&b| narrow && !sound(b)) {
        Some(b) => Err(damaged(format!("tensor {key:?} of {dtype} holds the byte {b:#04x}"))),
        None => Ok(()),
    }
}

pub fn damaged(problem: String) -> TraceError {
    TraceError::Damaged { format: "trace", problem }
}
