//! Folders of tensor files: one file a tensor, as ONNX's data sets (`input_0.pb`, `output_0.pb`), ONNX Runtime's debug
//! dumps (`NAME.tensorproto`) and folders of `.npy` have it, or several tensors a file, as checkpoints in parts do.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use isotrace_onnx::{file_bytes, read_tensor_pb};
use isotrace_tensor::Tensor;
use rustc_hash::FxHashMap;

use crate::read::{Contents, opened_file};
use crate::source::{Entry, Info};
use crate::{TraceError, npy, raw, torch};

/// Files of several tensors that are kept open; a process may have only so many.
const OPEN: usize = 200;

/// What a file of a folder is, by its name; `None` where it is none of ours.
enum Content {
    Tensor,
    Tensors,
}

fn content(path: &Path) -> Option<Content> {
    match path.extension()?.to_str()? {
        "npy" | "pb" | "tensorproto" => Some(Content::Tensor),
        "safetensors" | "npz" | "pt" | "pth" | "gguf" | "pdparams" | "pdopt" | "pdtensor" => {
            Some(Content::Tensors)
        }
        "bin" | "raw" | "dat" if raw::sidecar(path).is_some() => Some(Content::Tensors),
        // Parts of PyTorch's checkpoints have the ending of everything and nothing.
        "bin" => {
            let mut head = [0; 14];
            let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
            (read.is_ok() && (head.starts_with(b"PK\x03\x04") || torch::is_legacy(&head)))
                .then_some(Content::Tensors)
        }
        _ => None,
    }
}

/// Every tensor of the files directly in the folder, `input_2` before `input_10`.
///
/// A message of ONNX is named as it names itself, or, where it does not, as its file; a `.npy` as its file; tensors of
/// other files as these name them, with the file in front where two of them share a name.
pub fn contents(folder: &Path) -> Result<Contents, TraceError> {
    let io = |cause| TraceError::Io { action: "list", path: folder.into(), cause };
    let mut files: Vec<(String, PathBuf, Content)> = vec![];
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if let (Some(stem), Some(content)) = (path.file_stem().and_then(|s| s.to_str()), content(&path)) {
            files.push((stem.to_owned(), path, content));
        }
    }
    if files.is_empty() {
        return Err(TraceError::Format {
            found: "a folder without files of tensors (.pb, .npy, .safetensors, ...)".into(),
            remedy: "name the folder that holds them, or one file",
        });
    }
    files.sort_by(|(a, x, _), (b, y, _)| natural(a).cmp(&natural(b)).then_with(|| x.cmp(y)));
    let many = files.iter().filter(|(_, _, c)| matches!(c, Content::Tensors)).count() > OPEN;
    let (mut all, mut notes) = (vec![], vec![]);
    for (stem, path, content) in files {
        match content {
            Content::Tensor => all.push((None, entry(&stem, path)?)),
            Content::Tensors => {
                let (entries, told) = opened_file(&path).map_err(|e| e.in_file(&path))?;
                notes.extend(told.into_iter().map(|note| format!("{}: {note}", path.display())));
                let found = entries.into_iter().map(|e| if many { again(e, path.clone()) } else { e });
                all.extend(found.map(|entry| (Some(stem.clone()), entry)));
            }
        }
    }
    let mut counts: FxHashMap<String, usize> = FxHashMap::default();
    for (_, entry) in &all {
        *counts.entry(entry.name.clone()).or_default() += 1;
    }
    let named = all.into_iter().map(|(stem, mut entry)| {
        if let Some(stem) = stem.filter(|_| counts[&entry.name] > 1) {
            entry.name = format!("{stem}/{}", entry.name);
        }
        entry
    });
    Ok((named.collect(), notes))
}

/// The same tensor, for which its file is opened again each time.
fn again(entry: Entry, path: PathBuf) -> Entry {
    let kept = entry.name.clone();
    Entry::new(entry.name, entry.info, move || {
        let (entries, _) = opened_file(&path).map_err(|e| e.in_file(&path))?;
        let found = entries.iter().find(|e| e.name == kept).ok_or_else(|| TraceError::NoTensor {
            name: kept.clone(),
            kind: crate::Kind::Folder,
            count: entries.len(),
        })?;
        (found.load)().map_err(|e| e.in_file(&path))
    })
}

/// A file of one tensor, opened again when it is asked for: a folder may hold more files than a process may have open.
fn entry(stem: &str, path: PathBuf) -> Result<Entry, TraceError> {
    if path.extension().is_some_and(|e| e != "npy") {
        // Its name is inside the message, so it is decoded to be listed, and again to be read.
        let (name, tensor) = read_one(stem, &path)?;
        let info = Info::of(tensor.dtype(), tensor.shape());
        let stem = stem.to_owned();
        return Ok(Entry::new(name, Some(info), move || Ok(read_one(&stem, &path)?.1)));
    }
    let stem = stem.to_owned();
    Ok(Entry::new(decode(&stem), None, move || Ok(read_one(&stem, &path)?.1)))
}

pub fn read_one(stem: &str, path: &Path) -> Result<(String, Tensor), TraceError> {
    if path.extension().is_some_and(|e| e != "npy") {
        let (name, tensor) = read_tensor_pb(path)?;
        return Ok((if name.is_empty() { stem.to_owned() } else { name }, tensor));
    }
    let name = decode(stem);
    let tensor = npy::read(&name, &file_bytes(path)?).map_err(|e| e.in_file(path))?;
    Ok((name, tensor))
}

/// A name cut into texts and numbers, so that 2 comes before 10.
fn natural(name: &str) -> Vec<(String, u128, usize)> {
    let mut parts = vec![];
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let digits = rest[text..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - text);
        let number = rest[text..text + digits].parse().unwrap_or(u128::MAX);
        parts.push((rest[..text].to_owned(), number, digits));
        rest = &rest[text + digits..];
    }
    parts
}

/// A tensor's name as a file name: everything but letters, digits, `_`, `-` and inner dots as `%XX`.
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (byte == b'.' && at > 0) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // to a string, which takes all
        }
    }
    out
}

/// The reverse of [`encode`]; a name that was not made by it stays as it is.
fn decode(stem: &str) -> String {
    let mut bytes = Vec::with_capacity(stem.len());
    let mut rest = stem;
    while let Some((plain, escaped)) = rest.split_once('%') {
        bytes.extend(plain.bytes());
        let Some(byte) = escaped.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) else {
            return stem.to_owned();
        };
        bytes.push(byte);
        rest = &escaped[2..];
    }
    bytes.extend(rest.bytes());
    String::from_utf8(bytes).ok().filter(|name| encode(name) == stem).unwrap_or_else(|| stem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_as_numbers() {
        let mut names = ["output_0", "input_10", "input_2", "input_1", "input", "a10b2", "a10b10", "a9"];
        names.sort_by_key(|n| natural(n));
        assert_eq!(names, ["a9", "a10b2", "a10b10", "input", "input_1", "input_2", "input_10", "output_0"]);
    }

    #[test]
    fn names_become_files_and_come_back() {
        for name in ["x", "/model/layer.0/MatMul:0", "..", ".hidden", "a%20b", "ü", "con trol\n", "", "a.b"]
        {
            let file = encode(name);
            assert!(
                file.bytes().all(|b| b.is_ascii_graphic() && b != b'/') && !file.starts_with('.'),
                "{file}"
            );
            assert_eq!(decode(&file), name);
        }
        for foreign in ["100%", "%zz", "50%25 off", "%FF", "a b"] {
            assert_eq!(decode(foreign), foreign);
        }
    }
}
