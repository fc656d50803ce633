//! PyTorch's checkpoints, `.pt` and `.pth`: a pickle that describes tensors, and the bytes of their storages.
//!
//! Since 1.6 a file is a zip archive with the pickle `data.pkl` and an entry `data/KEY` for each storage; TorchScript's
//! archives are of the same form. Before, and still on request, it is four pickles (a magic number, a version, facts
//! of the system, the object), a fifth with the keys of the storages, and then for each its count and its elements.
//! Storages are read from the mapped file, only as far as a tensor looks at them.

use std::sync::Arc;

use bytes::Bytes;
use isotrace_onnx::MappedFile;
use isotrace_tensor::{C64, C128, DType, Tensor};
use rustc_hash::FxHashMap;

use crate::archive::Piece;
use crate::header::Header;
use crate::pickle::{self, Data, Object, Pickle, Recipe, Storage};
use crate::read::Contents;
use crate::source::{Entry, Info, unique};
use crate::strided::Strided;
use crate::{TraceError, npy};

/// The number that a checkpoint before 1.6 begins with, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The version of that form.
const VERSION: i64 = 1001;

fn damaged(problem: impl Into<String>) -> TraceError {
    TraceError::Damaged { format: "PyTorch", problem: problem.into() }
}

/// Whether an archive is a checkpoint: the folder of its pickle, if so. One whose pickle was never written, since saving it
/// failed, still tells its version.
pub fn folder(pieces: &[Piece]) -> Option<String> {
    let of = |entry: &str| {
        let found = pieces.iter().map(|p| p.name.as_str()).find_map(|name| name.strip_suffix(entry))?;
        (found.is_empty() || found.ends_with('/')).then(|| found.to_owned())
    };
    of("data.pkl").or_else(|| of("version"))
}

/// A zip archive.
pub fn zipped(
    name: &str,
    folder: &str,
    file: &Arc<MappedFile>,
    pieces: Vec<Piece>,
) -> Result<Contents, TraceError> {
    let mut pieces: FxHashMap<String, Piece> = pieces.into_iter().map(|p| (p.name.clone(), p)).collect();
    let mut take = |entry: &str| pieces.remove(&format!("{folder}{entry}"));
    let description =
        take("data.pkl").ok_or_else(|| damaged("it has no data.pkl: saving it failed"))?.unchecked(file)?;
    let swapped = match take("byteorder") {
        Some(order) => &*order.unchecked(file)? == b"big",
        None => false,
    };
    let pickle = pickle::read(&description, 0)?;
    let storages: FxHashMap<String, Piece> = pieces
        .into_iter()
        .filter_map(|(name, piece)| {
            Some((name.strip_prefix(folder)?.strip_prefix("data/")?.to_owned(), piece))
        })
        .collect();
    let sizes = |storage: &Storage| storages.get(&storage.key).map(|piece| piece.size);
    let file = Arc::clone(file);
    contents(name, &pickle, &Home::Bytes(description), swapped, sizes, |storage| {
        let (piece, file) = (storages[&storage.key].clone(), Arc::clone(&file));
        Box::new(move |start, length| {
            if piece.stored {
                return Ok(file.stretch(piece.start + start as u64, length as u64)?);
            }
            Ok(piece.unchecked(&file)?.slice(start..start + length))
        })
    })
}

/// Whether a file begins as a checkpoint before 1.6.
pub fn is_legacy(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x80) && bytes.get(2..4) == Some(&[0x8a, 10]) && bytes.get(4..14) == Some(&MAGIC)
}

/// A file of the form before 1.6.
pub fn legacy(name: &str, file: &Arc<MappedFile>, bytes: &Bytes) -> Result<Contents, TraceError> {
    let magic = pickle::read(bytes, 0)?;
    let version = pickle::read(bytes, magic.end)?;
    match version.get(version.root) {
        Object::Int(VERSION) => {}
        other => return Err(damaged(format!("its version is {other:?}, expected {VERSION}"))),
    }
    let system = pickle::read(bytes, version.end)?;
    let little = match system.get(system.root) {
        Object::Dict(pairs) => pairs.iter().find(|(key, _)| system.text(*key) == Some("little_endian")),
        _ => None,
    };
    let swapped = little.is_some_and(|&(_, value)| matches!(system.get(value), Object::Bool(false)));
    let pickle = pickle::read(bytes, system.end)?;
    let keys = pickle::read(bytes, pickle.end)?;
    let sizes = pickle.element_sizes();
    let mut places: FxHashMap<String, (u64, u64)> = FxHashMap::default();
    let mut at = keys.end as u64;
    let mut cut = None;
    for &key in keys.sequence(keys.root).ok_or_else(|| damaged("it has no list of storages"))? {
        let key = keys.text(key).ok_or_else(|| damaged("a storage's key is no text"))?;
        // Without the size of one element nobody knows where the next storage begins.
        let Some(&size) = sizes.get(key) else {
            cut = Some(key.to_owned());
            break;
        };
        let head = bytes.get(at as usize..).and_then(|rest| rest.first_chunk::<8>());
        let count = u64::from_le_bytes(*head.ok_or_else(|| damaged("it ends before its storages do"))?);
        let count = if swapped { count.swap_bytes() } else { count };
        let length = count.checked_mul(size as u64);
        let end = length.and_then(|l| l.checked_add(at + 8)).filter(|&end| end <= bytes.len() as u64);
        let end =
            end.ok_or_else(|| damaged(format!("storage {key:?} of {count} elements ends after the file")))?;
        places.insert(key.to_owned(), (at + 8, end - at - 8));
        at = end;
    }
    let sizes = |storage: &Storage| places.get(&storage.key).map(|&(_, length)| length);
    let home = Home::File(Arc::clone(file));
    let file = Arc::clone(file);
    let (entries, mut notes) = contents(name, &pickle, &home, swapped, sizes, |storage| {
        let (place, file) = (places[&storage.key].0, Arc::clone(&file));
        Box::new(move |start, length| Ok(file.stretch(place + start as u64, length as u64)?))
    })?;
    if let Some(key) = cut {
        notes.push(format!(
            "storages from {key:?} on were left aside: nothing tells the size of its elements"
        ));
    }
    Ok((entries, notes))
}

type Read = Box<dyn Fn(usize, usize) -> Result<Bytes, TraceError> + Send + Sync>;

/// The tensors of a pickle whose storages lie outside it.
fn contents(
    name: &str,
    pickle: &Pickle,
    home: &Home,
    swapped: bool,
    size: impl Fn(&Storage) -> Option<u64>,
    reader: impl Fn(&Storage) -> Read,
) -> Result<Contents, TraceError> {
    let mut found = pickle::walk(pickle, name)?;
    let mut entries = Vec::with_capacity(found.tensors.len());
    for (name, recipe) in unique(found.tensors) {
        match recipe {
            Recipe::Array { header, data } => entries.push(array(&name, header, data, home)?),
            Recipe::View { storage, view, conjugate, negate } => {
                let Some(there) = size(&storage) else {
                    found
                        .notes
                        .push(format!("{name:?} was left aside: its storage {:?} is missing", storage.key));
                    continue;
                };
                let needed = storage.skipped.checked_add(storage.bytes);
                if needed.is_none_or(|n| n as u64 > there) {
                    return Err(damaged(format!(
                        "storage {:?} has {there} bytes, and tensor {name:?} says {} from {} on",
                        storage.key, storage.bytes, storage.skipped
                    )));
                }
                let span = view.span(&name, storage.bytes)?;
                let read = reader(&storage);
                let (kept, info) = (name.clone(), Info::of(view.dtype, &view.shape));
                entries.push(Entry::new(name, Some(info), move || {
                    let bytes = read(storage.skipped + span.start, span.len())?;
                    finished(&kept, &view, bytes, swapped, conjugate, negate)
                }));
            }
        }
    }
    Ok((entries, found.notes))
}

fn finished(
    name: &str,
    view: &Strided,
    mut bytes: Bytes,
    swapped: bool,
    conjugate: bool,
    negate: bool,
) -> Result<Tensor, TraceError> {
    let error = |cause| TraceError::Tensor { name: name.into(), cause };
    if swapped {
        let part = if matches!(view.dtype, DType::C64 | DType::C128) {
            view.dtype.size() / 2
        } else {
            view.dtype.size()
        };
        bytes = npy::swap(&bytes, part);
    }
    let tensor = view.dense(name, &bytes)?;
    if view.dtype == DType::Bool && tensor.raw_bytes().iter().any(|&b| b > 1) {
        let truths = tensor.raw_bytes().iter().map(|&b| u8::from(b != 0)).collect::<Vec<u8>>();
        return Tensor::from_pods(DType::Bool, &view.shape, truths).map_err(error);
    }
    if !conjugate && !negate {
        return Ok(tensor);
    }
    // PyTorch marks such tensors and changes their elements when they are read.
    let (re, im) = (negate, negate != conjugate);
    let turn = |x: f64, turned: bool| if turned { -x } else { x };
    match view.dtype {
        DType::C64 => {
            let parts = tensor.as_slice::<C64>().map_err(error)?.iter();
            let turned = parts.map(|c| C64([turn(c.0[0].into(), re) as f32, turn(c.0[1].into(), im) as f32]));
            Tensor::from_vec(&view.shape, turned.collect()).map_err(error)
        }
        DType::C128 => {
            let parts = tensor.as_slice::<C128>().map_err(error)?.iter();
            Tensor::from_vec(&view.shape, parts.map(|c| C128([turn(c.0[0], re), turn(c.0[1], im)])).collect())
                .map_err(error)
        }
        DType::F32 => {
            let values = tensor.as_slice::<f32>().map_err(error)?.iter();
            Tensor::from_vec(&view.shape, values.map(|&x| if re { -x } else { x }).collect()).map_err(error)
        }
        DType::F64 => {
            let values = tensor.as_slice::<f64>().map_err(error)?.iter();
            Tensor::from_vec(&view.shape, values.map(|&x| turn(x, re)).collect()).map_err(error)
        }
        other => Err(damaged(format!("tensor {name:?} of {other} is marked as negated; save a clone of it"))),
    }
}

/// Where a pickle is.
#[derive(Clone)]
pub enum Home {
    /// The file is the pickle, or begins with it.
    File(Arc<MappedFile>),
    /// It was taken out of an archive.
    Bytes(Bytes),
}

/// An array of NumPy inside the pickle.
pub fn array(name: &str, header: Header, data: Data, home: &Home) -> Result<Entry, TraceError> {
    let length = match &data {
        Data::Inside(range) => range.len(),
        Data::Made(made) => made.len(),
    };
    let info = npy::info_of(name, &header, length)?;
    let (kept, home) = (name.to_owned(), home.clone());
    Ok(Entry::new(name, Some(info), move || {
        let bytes = match (&data, &home) {
            (Data::Inside(range), Home::File(file)) => {
                file.stretch(range.start as u64, range.len() as u64)?
            }
            (Data::Inside(range), Home::Bytes(bytes)) => bytes.slice(range.clone()),
            (Data::Made(made), _) => made.clone(),
        };
        npy::build(&kept, &header, &bytes)
    }))
}
