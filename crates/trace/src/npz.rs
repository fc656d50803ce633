//! `.npz`: a zip archive of `.npy` files, stored or deflated.
//!
//! Stored arrays are shared with the mapped file. Deflated ones are inflated under two bounds: an entry never yields
//! more than the archive says it does, and all of them together no more than [`most_inflated`].

use std::io::{self, Cursor, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flate2::bufread::DeflateDecoder;
use isotrace_onnx::MappedFile;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::source::Entry;
use crate::trace::write_error;
use crate::write::{Tensors, write_all};
use crate::{TraceError, npy};

/// Most bytes that an archive may inflate to: 100 times its size, and 4 GiB for small ones. Arrays of numbers never
/// come near it, and what does is an attack or all zeros.
fn most_inflated(archive: usize) -> u64 {
    (archive as u64).saturating_mul(100).max(4 << 30)
}

fn damaged(problem: impl std::fmt::Display) -> TraceError {
    TraceError::Damaged { format: ".npz", problem: problem.to_string() }
}

/// The arrays, in the order of the directory; a deflated one is inflated each time it is asked for.
pub fn entries(file: &Arc<MappedFile>, bytes: &Bytes) -> Result<Vec<Entry>, TraceError> {
    let mut archive = ZipArchive::new(Cursor::new(bytes.clone())).map_err(damaged)?;
    if listed(bytes).is_some_and(|count| count != archive.len() as u64) {
        return Err(damaged("its directory lists a name twice, or more entries than there are"));
    }
    let mut entries = Vec::with_capacity(archive.len().min(1 << 16));
    let mut inflated = 0u64;
    let mut stretches = vec![];
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(damaged)?;
        let name = entry.name().map_err(damaged)?.into_owned();
        let Some(array) = name.strip_suffix(".npy") else {
            let pytorch = name.ends_with("data.pkl");
            return Err(TraceError::Format {
                found: if pytorch {
                    "a PyTorch checkpoint".into()
                } else {
                    format!("a zip archive with {name:?}")
                },
                remedy: if pytorch {
                    "it is a pickle, which is never opened; save the tensors as .safetensors"
                } else {
                    "an .npz holds nothing but .npy files; write it again with numpy.savez"
                },
            });
        };
        let start = entry.data_start().ok_or_else(|| damaged(format!("entry {name:?} has no data")))?;
        let end = start.checked_add(entry.compressed_size()).filter(|&end| end <= bytes.len() as u64);
        let end = end.ok_or_else(|| damaged(format!("entry {name:?} ends after the file")))?;
        stretches.push((start, end));
        let stored = entry.compression() == CompressionMethod::Stored;
        if entry.encrypted() || !(stored || entry.compression() == CompressionMethod::Deflated) {
            return Err(TraceError::Format {
                found: format!("entry {name:?}, encrypted or compressed by {:?}", entry.compression()),
                remedy: "write it again with numpy.savez or numpy.savez_compressed",
            });
        }
        if stored && entry.size() != entry.compressed_size() {
            return Err(damaged(format!("entry {name:?} is stored but has two sizes")));
        }
        inflated = inflated.saturating_add(if stored { 0 } else { entry.size() });
        entries.push(Piece {
            name: array.to_owned(),
            stored,
            start,
            length: end - start,
            size: entry.size(),
            crc: entry.crc32(),
        });
    }
    if inflated > most_inflated(bytes.len()) {
        let problem = format!("{} bytes of archive claim to inflate to {inflated}", bytes.len());
        return Err(TraceError::Bomb { problem });
    }
    stretches.sort_unstable();
    if stretches.windows(2).any(|w| w[0].1 > w[1].0) {
        return Err(TraceError::Bomb { problem: "entries share their compressed bytes".into() });
    }
    let mut arrays = Vec::with_capacity(entries.len());
    for piece in entries {
        let info = if piece.stored {
            let (start, end) = (piece.start as usize, (piece.start + piece.length) as usize);
            Some(npy::info(&piece.name, &bytes.slice(start..end))?)
        } else {
            None
        };
        let file = Arc::clone(file);
        arrays
            .push(Entry::new(piece.name.clone(), info, move || npy::read(&piece.name, &piece.bytes(&file)?)));
    }
    Ok(arrays)
}

/// One entry of the archive.
struct Piece {
    name: String,
    stored: bool,
    start: u64,
    /// Bytes in the archive.
    length: u64,
    /// Bytes of the array.
    size: u64,
    crc: u32,
}

impl Piece {
    /// The array's bytes, checked against their checksum.
    fn bytes(&self, file: &MappedFile) -> Result<Bytes, TraceError> {
        let stretch = file.stretch(self.start, self.length)?;
        let data = if self.stored { stretch } else { self.inflate(&stretch)? };
        if crc32fast::hash(&data) == self.crc {
            return Ok(data);
        }
        Err(damaged(format!("entry {:?}: its checksum does not fit its bytes", self.name)))
    }

    fn inflate(&self, deflated: &[u8]) -> Result<Bytes, TraceError> {
        // Room grows with what really comes, not with what is claimed; the one byte more betrays a false claim.
        let mut data = Vec::with_capacity(self.size.min(1 << 20) as usize);
        DeflateDecoder::new(deflated)
            .take(self.size.saturating_add(1))
            .read_to_end(&mut data)
            .map_err(|e| damaged(format!("entry {:?}: {e}", self.name)))?;
        if data.len() as u64 != self.size {
            let problem = format!("entry {:?} claims {} bytes and has {}", self.name, self.size, data.len());
            return Err(damaged(problem));
        }
        Ok(data.into())
    }
}

/// How many entries the archive's last record claims. The reader keeps one of those that share a name and says
/// nothing; which array was meant is not for it to decide.
fn listed(bytes: &[u8]) -> Option<u64> {
    let tail = bytes.len().saturating_sub(22 + usize::from(u16::MAX));
    let record = tail + bytes[tail..].windows(4).rposition(|w| w == b"PK\x05\x06")?;
    let count = u16::from_le_bytes(*bytes.get(record + 10..)?.first_chunk()?);
    if count < u16::MAX {
        return Some(u64::from(count));
    }
    // Too many for that field: a 64-bit record stands before it, found through its locator.
    let locator = bytes.get(record.checked_sub(20)?..)?;
    let at = locator.strip_prefix(b"PK\x06\x07")?.get(4..)?.first_chunk()?;
    let wide = bytes.get(usize::try_from(u64::from_le_bytes(*at)).ok()?..)?;
    Some(u64::from_le_bytes(*wide.get(32..)?.first_chunk()?))
}

/// Writes an archive of stored arrays: what is compared is read more often than written.
pub fn write<T: Tensors + ?Sized>(
    path: &Path,
    file: &mut (impl Write + io::Seek),
    tensors: &T,
) -> Result<(), TraceError> {
    // The archive's own errors are the system's: it is given nothing that it could refuse.
    let io = |cause: zip::result::ZipError| write_error("write", path, cause.into());
    let mut archive = ZipWriter::new(file);
    for at in 0..tensors.count() {
        let tensor = tensors.get(at)?;
        let (head, data) = npy::write("an .npz file", tensors.name(at), &tensor)?;
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            // One time for all, so that the same tensors make the same file.
            .last_modified_time(zip::DateTime::default())
            .large_file(data.len() as u64 + head.len() as u64 >= u64::from(u32::MAX))
            .with_alignment(64);
        archive.start_file(format!("{}.npy", tensors.name(at)), options).map_err(io)?;
        write_all(path, &mut archive, &[&head, &data])?;
    }
    archive.finish().map_err(io)?;
    Ok(())
}
