//! PaddlePaddle's checkpoints, `.pdparams`, `.pdopt` and `.pdtensor`, and other pickles of NumPy arrays.
//!
//! A checkpoint is a pickle of a dictionary with an array for each name. bfloat16, which NumPy does not have, is saved
//! as uint16, and Paddle takes every uint16 for it when it loads; so does this reader. With pickle protocols before 4,
//! an array of more than a gigabyte is saved in pieces `NAME@@.0`, `NAME@@.1`, ..., and `UnpackBigParamInfor@@` says
//! their shape.

use std::sync::Arc;

use bytes::Bytes;
use isotrace_onnx::MappedFile;
use isotrace_tensor::{DType, element_count};

use crate::pickle::{self, Object, Pickle, Recipe};
use crate::read::Contents;
use crate::source::{Entry, Info, Kind, unique};
use crate::torch::Home;
use crate::{TraceError, torch};

/// The name under which a checkpoint keeps the names of its parameters in the program.
const NAMES: &str = "StructuredToParameterName@@";
/// The name under which it says which arrays are in pieces.
const PIECES: &str = "UnpackBigParamInfor@@";

/// The arrays of a pickle.
pub fn contents(
    name: &str,
    extension: &str,
    file: &Arc<MappedFile>,
    bytes: &Bytes,
) -> Result<(Kind, Contents), TraceError> {
    let pickle = pickle::read(bytes, 0)?;
    let home = Home::File(Arc::clone(file));
    let paddle = matches!(extension, "pdparams" | "pdopt" | "pdtensor") || has(&pickle, NAMES);
    let found = pickle::walk(&pickle, name)?;
    let mut entries = vec![];
    let mut notes = found.notes;
    for (name, recipe) in unique(found.tensors) {
        match recipe {
            Recipe::Array { header, data } => {
                let entry = torch::array(&name, header, data, &home)?;
                entries.push(if paddle { with_bfloat16(entry) } else { entry });
            }
            Recipe::View { .. } => {
                notes.push(format!("{name:?} was left aside: its elements are not in this file"));
            }
        }
    }
    if has(&pickle, PIECES) {
        entries = joined(&pickle, entries)?;
    }
    Ok((if paddle { Kind::Paddle } else { Kind::Pickle }, (entries, notes)))
}

fn items(pickle: &Pickle) -> &[(pickle::Id, pickle::Id)] {
    match pickle.get(pickle.root) {
        Object::Dict(pairs) => pairs,
        Object::Call(call) => &call.items,
        _ => &[],
    }
}

fn has(pickle: &Pickle, key: &str) -> bool {
    items(pickle).iter().any(|&(k, _)| pickle.text(k) == Some(key))
}

fn with_bfloat16(entry: Entry) -> Entry {
    match &entry.info {
        Some(info) if info.dtype == DType::U16 => {
            let info = Info::of(DType::BF16, &info.shape);
            let (name, load) = (entry.name.clone(), entry.load);
            Entry::new(entry.name, Some(info), move || {
                load()?
                    .bit_cast(DType::BF16)
                    .map_err(|cause| TraceError::Tensor { name: name.clone(), cause })
            })
        }
        _ => entry,
    }
}

/// Arrays that are in pieces, put together when they are asked for.
fn joined(pickle: &Pickle, entries: Vec<Entry>) -> Result<Vec<Entry>, TraceError> {
    let damaged = |what: &str| TraceError::Damaged { format: ".pdparams", problem: what.into() };
    let unclear = || damaged("it does not say how its pieces belong together");
    let info = items(pickle).iter().find(|&&(k, _)| pickle.text(k) == Some(PIECES)).map(|&(_, v)| v);
    let Some(Object::Dict(wholes)) = info.map(|id| pickle.get(id)) else { return Err(unclear()) };
    let mut left: Vec<(String, Option<Entry>)> =
        entries.into_iter().map(|e| (e.name.clone(), Some(e))).collect();
    let mut joined = vec![];
    for &(name, how) in wholes {
        let (Some(name), Object::Dict(how)) = (pickle.text(name), pickle.get(how)) else {
            return Err(unclear());
        };
        let part = |key: &str| how.iter().find(|&&(k, _)| pickle.text(k) == Some(key)).map(|&(_, v)| v);
        let shape = part("OriginShape").and_then(|id| pickle.sizes(id)).ok_or_else(unclear)?;
        let slices = part("slices").and_then(|id| pickle.sequence(id)).ok_or_else(unclear)?;
        let mut parts = vec![];
        for &slice in slices {
            let slice = pickle.text(slice).ok_or_else(unclear)?;
            let at = left.iter().position(|(name, entry)| name == slice && entry.is_some());
            let at = at.ok_or_else(|| damaged(&format!("piece {slice:?} of {name:?} is missing")))?;
            parts.extend(left[at].1.take());
        }
        let dtype = parts.first().and_then(|p| p.info.as_ref()).map(|i| i.dtype).ok_or_else(unclear)?;
        let (kept, info, parts) = (name.to_owned(), Info::of(dtype, &shape), Arc::new(parts));
        joined.push(Entry::new(name, Some(info), move || {
            // The pieces lie in the file, so that nothing larger than it is asked for.
            let of = |i: &Info| element_count(&i.shape).unwrap_or(0) * i.dtype.size();
            let mut bytes = Vec::with_capacity(parts.iter().filter_map(|p| p.info.as_ref()).map(of).sum());
            for part in parts.iter() {
                bytes.extend_from_slice((part.load)()?.raw_bytes());
            }
            isotrace_tensor::Tensor::from_bytes(dtype, &shape, bytes.into())
                .map_err(|cause| TraceError::Tensor { name: kept.clone(), cause })
        }));
    }
    Ok(left.into_iter().filter_map(|(_, entry)| entry).chain(joined).collect())
}
