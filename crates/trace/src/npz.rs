//! `.npz`: a zip archive of `.npy` files, stored or deflated.
//!
//! Stored arrays are shared with the mapped file. Deflated ones are inflated under two bounds: an entry never yields
//! more than the archive says it does, and all of them together no more than [`most_inflated`].

use std::io::{self, Cursor, Read, Write};

use bytes::Bytes;
use isotrace_tensor::Tensor;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::{TraceError, npy};

/// Most bytes that an archive may inflate to: 100 times its size, and 4 GiB for small ones. Arrays of numbers never
/// come near it, and what does is an attack or all zeros.
fn most_inflated(archive: usize) -> u64 {
    (archive as u64).saturating_mul(100).max(4 << 30)
}

fn damaged(problem: impl std::fmt::Display) -> TraceError {
    TraceError::Damaged { format: ".npz", problem: problem.to_string() }
}

pub fn read(bytes: &Bytes) -> Result<Vec<(String, Tensor)>, TraceError> {
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
        entries.push((array.to_owned(), stored.then_some(start as usize..end as usize)));
    }
    if inflated > most_inflated(bytes.len()) {
        let problem = format!("{} bytes of archive claim to inflate to {inflated}", bytes.len());
        return Err(TraceError::Bomb { problem });
    }
    stretches.sort_unstable();
    if stretches.windows(2).any(|w| w[0].1 > w[1].0) {
        return Err(TraceError::Bomb { problem: "entries share their compressed bytes".into() });
    }
    let mut tensors = Vec::with_capacity(entries.len());
    for (index, (name, stored)) in entries.into_iter().enumerate() {
        let mut entry = archive.by_index(index).map_err(damaged)?;
        let data = match stored {
            Some(range) => {
                // Read to its end for its checksum; what is kept is the file's own bytes.
                io::copy(&mut entry, &mut io::sink()).map_err(|e| damaged(format!("entry {name:?}: {e}")))?;
                bytes.slice(range)
            }
            None => inflate(&name, &mut entry)?,
        };
        let tensor = npy::read(&name, &data)?;
        tensors.push((name, tensor));
    }
    Ok(tensors)
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

fn inflate<R: Read>(name: &str, entry: &mut zip::read::ZipFile<'_, R>) -> Result<Bytes, TraceError> {
    let size = entry.size();
    // Room grows with what really comes, not with what is claimed; the one byte more betrays a false claim.
    let mut data = Vec::with_capacity(size.min(1 << 20) as usize);
    entry
        .take(size.saturating_add(1))
        .read_to_end(&mut data)
        .map_err(|e| damaged(format!("entry {name:?}: {e}")))?;
    if data.len() as u64 != size {
        return Err(damaged(format!("entry {name:?} claims {size} bytes and has {}", data.len())));
    }
    Ok(data.into())
}

/// Writes an archive of stored arrays: what is compared is read more often than written.
pub fn write(
    file: &mut (impl Write + io::Seek),
    tensors: &[(String, Tensor)],
) -> Result<io::Result<()>, TraceError> {
    let mut pieces = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        pieces.push((name, npy::write("an .npz file", name, tensor)?));
    }
    let write = || -> io::Result<()> {
        let mut archive = ZipWriter::new(file);
        for (name, (head, data)) in &pieces {
            let options = zip::write::SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                // One time for all, so that the same tensors make the same file.
                .last_modified_time(zip::DateTime::default())
                .large_file(data.len() as u64 + head.len() as u64 >= u64::from(u32::MAX))
                .with_alignment(64);
            archive.start_file(format!("{name}.npy"), options)?;
            archive.write_all(head)?;
            archive.write_all(data)?;
        }
        archive.finish()?.flush()
    };
    Ok(write())
}
