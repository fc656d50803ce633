//! Zip archives of tensors, read and written: `.npz`, PyTorch's checkpoints.
//!
//! Stored entries are shared with the mapped file. Deflated ones are inflated under two bounds: an entry never yields
//! more than the archive says it does, and all of them together no more than [`most_inflated`].

use std::io::{Cursor, Read};

use bytes::Bytes;
use flate2::bufread::DeflateDecoder;
use isotrace_onnx::MappedFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive};

use crate::TraceError;

/// Where the data of an entry may begin: PyTorch aligns its own so.
const ALIGNMENT: u16 = 64;

/// Most bytes that an archive may inflate to: 100 times its size, and 4 GiB for small ones. Arrays of numbers never
/// come near it, and what does is an attack or all zeros.
fn most_inflated(archive: usize) -> u64 {
    (archive as u64).saturating_mul(100).max(4 << 30)
}

/// How an entry of `bytes` bytes is written: as it is, where a reader may map it, with one time for all, so that the same
/// tensors make the same file.
pub fn stored(bytes: u64) -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .large_file(bytes >= u64::from(u32::MAX))
        .with_alignment(ALIGNMENT)
}

/// One entry of an archive.
#[derive(Debug, Clone)]
pub struct Piece {
    pub name: String,
    pub stored: bool,
    pub start: u64,
    /// Bytes in the archive.
    pub length: u64,
    /// Bytes of what was put in.
    pub size: u64,
    crc: u32,
    format: &'static str,
}

/// The entries of an archive, in the order of its directory; `format` is what to call it in messages.
pub fn pieces(format: &'static str, bytes: &Bytes) -> Result<Vec<Piece>, TraceError> {
    let damaged = |problem: String| TraceError::Damaged { format, problem };
    let zip = |e: zip::result::ZipError| damaged(e.to_string());
    // The directory comes last: what broke off while it was written, sent or copied has none, or not all of it.
    let opened = ZipArchive::new(Cursor::new(bytes.clone()));
    let mut archive = opened.map_err(|_| {
        damaged(format!(
            "the list of what it holds, at its end, is missing or broken; it breaks off after {} bytes",
            bytes.len()
        ))
    })?;
    if listed(bytes).is_some_and(|count| count != archive.len() as u64) {
        return Err(damaged("its directory lists a name twice, or more entries than there are".into()));
    }
    let mut pieces = Vec::with_capacity(archive.len().min(1 << 16));
    let mut inflated = 0u64;
    let mut stretches = vec![];
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(zip)?;
        let name = entry.name().map_err(|e| damaged(e.to_string()))?.into_owned();
        let start = entry.data_start().ok_or_else(|| damaged(format!("entry {name:?} has no data")))?;
        let end = start.checked_add(entry.compressed_size()).filter(|&end| end <= bytes.len() as u64);
        let end = end.ok_or_else(|| damaged(format!("entry {name:?} ends after the file")))?;
        stretches.push((start, end));
        let stored = entry.compression() == CompressionMethod::Stored;
        if entry.encrypted() || !(stored || entry.compression() == CompressionMethod::Deflated) {
            return Err(TraceError::Format {
                found: format!("entry {name:?}, encrypted or compressed by {:?}", entry.compression()),
                remedy: "write it again, without encryption and stored or deflated",
            });
        }
        if stored && entry.size() != entry.compressed_size() {
            return Err(damaged(format!("entry {name:?} is stored but has two sizes")));
        }
        inflated = inflated.saturating_add(if stored { 0 } else { entry.size() });
        let (length, size, crc) = (end - start, entry.size(), entry.crc32());
        pieces.push(Piece { name, stored, start, length, size, crc, format });
    }
    if inflated > most_inflated(bytes.len()) {
        let problem = format!("{} bytes of archive claim to inflate to {inflated}", bytes.len());
        return Err(TraceError::Bomb { problem });
    }
    stretches.sort_unstable();
    if stretches.windows(2).any(|w| w[0].1 > w[1].0) {
        return Err(TraceError::Bomb { problem: "entries share their compressed bytes".into() });
    }
    Ok(pieces)
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

impl Piece {
    /// What was put in, checked against its checksum.
    pub fn bytes(&self, file: &MappedFile) -> Result<Bytes, TraceError> {
        let data = self.unchecked(file)?;
        if crc32fast::hash(&data) == self.crc {
            return Ok(data);
        }
        Err(self.damaged(format!("entry {:?}: its checksum does not fit its bytes", self.name)))
    }

    /// What was put in; the checksum, which some writers leave out, is not looked at.
    pub fn unchecked(&self, file: &MappedFile) -> Result<Bytes, TraceError> {
        let stretch = file.stretch(self.start, self.length)?;
        if self.stored { Ok(stretch) } else { self.inflate(&stretch) }
    }

    fn damaged(&self, problem: String) -> TraceError {
        TraceError::Damaged { format: self.format, problem }
    }

    fn inflate(&self, deflated: &[u8]) -> Result<Bytes, TraceError> {
        // Room grows with what really comes, not with what is claimed; the one byte more betrays a false claim.
        let mut data = Vec::with_capacity(self.size.min(1 << 20) as usize);
        DeflateDecoder::new(deflated)
            .take(self.size.saturating_add(1))
            .read_to_end(&mut data)
            .map_err(|e| self.damaged(format!("entry {:?}: {e}", self.name)))?;
        if data.len() as u64 != self.size {
            let problem = format!("entry {:?} claims {} bytes and has {}", self.name, self.size, data.len());
            return Err(self.damaged(problem));
        }
        Ok(data.into())
    }
}
