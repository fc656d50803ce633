//! Traces on disk (schema `isotrace.trace/1`): what a run or a recorder kept.
//!
//! A folder holds `trace.jsonl`, to which one record a line is appended, and `data-NNNN.safetensors` shards, which are
//! written under another name, synchronised and renamed. Killed at any moment, a writer leaves a folder that reads:
//! every shard that has its name is whole, every line that ends is a record, and what the records speak of and the
//! shards lack is what is [`Missing`]. A table of contents at the end of one file, as archives have it, would be lost
//! with the process; a data base would need a program to read it. docs/trace-format.md is the specification.

mod digest;
mod number;
mod reader;
pub mod record;
mod shard;
mod statistics;
mod sums;
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "numbers are counted one by one there"))]
mod tally;
mod team;
mod writer;

pub use digest::{Digest, Digests};
pub use number::Number;
pub use reader::{LOG, Missing, Trace};
pub(crate) use shard::check_elements;
pub use team::{Pool, Team};
pub(crate) use writer::write_error;
pub use writer::{Options, Writer};

use std::path::Path;
use std::sync::Arc;

use crate::TraceError;
use crate::source::{Entry, Info, Kind, Opened};
use record::Note;

/// The values of a trace whose elements are there, by [`Trace::names`].
pub(crate) fn opened(folder: &Path) -> Result<Opened, TraceError> {
    let trace = Arc::new(Trace::open(folder)?);
    let mut entries = vec![];
    for (at, name) in trace.names().iter().enumerate().filter(|(at, _)| trace.has_data(*at)) {
        let (dtype, shape) = trace.typed(&trace.values()[at])?;
        let kept = Arc::clone(&trace);
        entries
            .push(Entry::new(name, Some(Info::of(dtype, &shape)), move || kept.tensor(&kept.values()[at])));
    }
    let mut notes = trace.told();
    let without = trace.values().len() - entries.len() - trace.missing().values.len();
    if without > 0 {
        // What a reader found stands before what the recorder noted.
        let at = usize::from(!trace.missing().is_empty());
        let all = trace.values().len();
        let text = format!("{without} of {all} values were recorded without their elements");
        notes.insert(at, Note::of_reader(text));
    }
    Ok(Opened { notes, trace: Some(trace), ..Opened::new(Kind::Trace, entries) })
}
