//! GGUF: the weights of ggml and llama.cpp, every block type to float.
//!
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 1 to 3, little-endian. Types that are plain
//! (F32, F16, BF16, F64, integers) are shared with the mapped file; blocks are made f32 when their tensor is asked for.

mod blocks;
mod codebook;

use std::sync::Arc;

use bytes::Bytes;
use isotrace_onnx::MappedFile;
use isotrace_tensor::{DType, Tensor, element_count};

use crate::TraceError;
use crate::source::{Entry, Info};
use blocks::Block;

/// Longest name of a tensor or of a setting that is read; ggml allows 64 bytes for the first and 65535 for the second.
const LONGEST_NAME: u64 = 65_535;

/// Lists of lists of settings, at most.
const DEEPEST: usize = 8;

/// Most axes of a tensor; ggml has four.
const MOST_AXES: u32 = 16;

fn damaged(problem: impl Into<String>) -> TraceError {
    TraceError::Damaged { format: "GGUF", problem: problem.into() }
}

/// How the elements are stored.
#[derive(Clone, Copy)]
enum Stored {
    Plain(DType),
    Blocks(Block),
}

fn stored(number: u32) -> Option<Stored> {
    Some(Stored::Plain(match number {
        0 => DType::F32,
        1 => DType::F16,
        24 => DType::I8,
        25 => DType::I16,
        26 => DType::I32,
        27 => DType::I64,
        28 => DType::F64,
        30 => DType::BF16,
        _ => return blocks::by_number(number).map(Stored::Blocks),
    }))
}

/// The tensors of a file.
pub fn entries(file: &Arc<MappedFile>, bytes: &Bytes) -> Result<Vec<Entry>, TraceError> {
    let mut reader = Reader { bytes, at: 4, narrow: false };
    let version = reader.u32()?;
    if !(1..=3).contains(&version) {
        return Err(TraceError::Format {
            found: match version.swap_bytes() {
                1..=3 => "a big-endian GGUF file".into(),
                _ => format!("a GGUF file of version {version}"),
            },
            remedy: "only little-endian files of versions 1 to 3 are read; convert it with llama.cpp's tools",
        });
    }
    reader.narrow = version == 1;
    let (tensors, settings) = (reader.count()?, reader.count()?);
    let mut alignment = 32u64;
    for _ in 0..settings {
        let name = reader.text()?;
        let kind = reader.u32()?;
        if name == "general.alignment" && kind == 4 {
            alignment = reader.u32()?.into();
            if !alignment.is_power_of_two() {
                return Err(damaged(format!("its alignment is {alignment}, expected a power of two")));
            }
        } else {
            reader.skip(kind, 0)?;
        }
    }
    let mut described = vec![];
    for _ in 0..tensors {
        described.push(reader.tensor()?);
    }
    let data = (reader.at as u64).next_multiple_of(alignment);
    described.into_iter().map(|tensor| entry(tensor, file, data)).collect()
}

/// What the header says of a tensor.
struct Described {
    name: String,
    shape: Vec<usize>,
    number: u32,
    offset: u64,
}

fn entry(tensor: Described, file: &Arc<MappedFile>, data: u64) -> Result<Entry, TraceError> {
    let Described { name, shape, number, offset } = tensor;
    let stored = stored(number).ok_or_else(|| TraceError::ElementType {
        name: name.clone(),
        found: format!("number {number} of GGUF's list"),
        remedy: "convert the file with a current llama.cpp",
    })?;
    let count = element_count(&shape).map_err(|cause| TraceError::Tensor { name: name.clone(), cause })?;
    let row = shape.last().copied().unwrap_or(1);
    let length = match stored {
        Stored::Plain(dtype) => count * dtype.size(),
        Stored::Blocks(block) if row.is_multiple_of(block.elements) => count / block.elements * block.bytes,
        Stored::Blocks(block) => {
            return Err(damaged(format!(
                "rows of tensor {name:?} have {row} elements, which blocks of {} ({}) do not fill",
                block.elements, block.name
            )));
        }
    };
    let start = offset.checked_add(data);
    let fits = start.and_then(|s| s.checked_add(length as u64)).is_some_and(|end| end <= file.len());
    let (Some(start), true) = (start, fits) else {
        return Err(damaged(format!(
            "tensor {name:?} of {length} bytes at {offset} ends after the file; it was cut short, or is a part of more"
        )));
    };
    let (dtype, label) = match stored {
        Stored::Plain(dtype) => (dtype, None),
        Stored::Blocks(block) => (DType::F32, Some(block.name.to_owned())),
    };
    let info = Info { dtype, shape: shape.clone(), stored: label };
    let (file, kept) = (Arc::clone(file), name.clone());
    Ok(Entry::new(name, Some(info), move || {
        let bytes = file.stretch(start, length as u64)?;
        let built = match stored {
            Stored::Plain(dtype) => Tensor::from_bytes(dtype, &shape, bytes),
            Stored::Blocks(block) => {
                let mut values = vec![0f32; count];
                let blocks = bytes.chunks_exact(block.bytes);
                for (block_bytes, out) in blocks.zip(values.chunks_exact_mut(block.elements)) {
                    (block.read)(block_bytes, out);
                }
                Tensor::from_vec(&shape, values)
            }
        };
        built.map_err(|cause| TraceError::Tensor { name: kept.clone(), cause })
    }))
}

/// The header, number by number.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Whether lengths are of 32 bits, as in version 1.
    narrow: bool,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], TraceError> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| damaged("it ends in its header"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, TraceError> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn u64(&mut self) -> Result<u64, TraceError> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    fn count(&mut self) -> Result<u64, TraceError> {
        if self.narrow { Ok(self.u32()?.into()) } else { self.u64() }
    }

    fn text(&mut self) -> Result<String, TraceError> {
        let length = self.count()?;
        if length > LONGEST_NAME {
            return Err(damaged(format!("a name of {length} bytes")));
        }
        let text = self.take(length as usize)?.to_vec();
        String::from_utf8(text).map_err(|_| damaged("a name that is no UTF-8"))
    }

    /// Passes over the value of a setting.
    fn skip(&mut self, kind: u32, depth: usize) -> Result<(), TraceError> {
        let length = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => self.count()?,
            9 if depth < DEEPEST => {
                let (kind, count) = (self.u32()?, self.count()?);
                let width = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    10..=12 => 8,
                    _ => {
                        // Each takes bytes of the file, so a false count ends with it.
                        for _ in 0..count {
                            self.skip(kind, depth + 1)?;
                        }
                        return Ok(());
                    }
                };
                count.checked_mul(width).ok_or_else(|| damaged("a list without end"))?
            }
            _ => return Err(damaged(format!("a setting of unknown type {kind}"))),
        };
        let length = usize::try_from(length).map_err(|_| damaged("a text without end"))?;
        self.take(length).map(drop)
    }

    fn tensor(&mut self) -> Result<Described, TraceError> {
        let name = self.text()?;
        let axes = self.u32()?;
        if axes > MOST_AXES {
            return Err(damaged(format!("tensor {name:?} has {axes} axes")));
        }
        let mut shape = vec![];
        for _ in 0..axes {
            let size = self.count()?;
            let size = usize::try_from(size);
            shape.push(size.map_err(|_| damaged(format!("tensor {name:?} is larger than all memory")))?);
        }
        // The fastest axis comes first in the file.
        shape.reverse();
        let number = self.u32()?;
        let offset = self.u64()?;
        Ok(Described { name, shape, number, offset })
    }
}
