//! Polygraphy's saved outputs and inputs: JSON in which an array is a `.npy` file in base64.
//!
//! `polygraphy run --save-outputs` writes a `RunResults`: for each runner a list of iterations, each with its outputs
//! by name; `--save-inputs` a list of iterations with inputs by name. Tensors of PyTorch are checkpoints in base64.
//! Files of versions before 0.30 say their types in keys of their own and may hold an `.npz` archive, or write the
//! bytes as characters of Latin-1.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use isotrace_onnx::MappedFile;
use isotrace_tensor::Tensor;

use crate::json::Json;
use crate::read::Contents;
use crate::source::{Entry, Info, unique};
use crate::write::{Tensors, write_all};
use crate::{TraceError, archive, npy, torch};

/// Characters decoded to see type and shape: enough for any header of a `.npy` file of few axes.
const HEAD: usize = 4096;

fn damaged(problem: impl Into<String>) -> TraceError {
    TraceError::Damaged { format: "Polygraphy", problem: problem.into() }
}

/// Where a text is.
#[derive(Debug, Clone)]
enum Place {
    /// In the file, where it needs no unescaping.
    File(Range<usize>),
    Text(Arc<str>),
}

/// What the text holds.
#[derive(Debug, Clone, Copy)]
enum What {
    Array,
    Checkpoint,
}

/// The arrays of a file.
pub fn contents(file: &Arc<MappedFile>, bytes: &Bytes) -> Result<Contents, TraceError> {
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no UTF-8 text"))?;
    let json: Json<'_> = serde_json::from_str(text).map_err(|e| damaged(format!("it is no JSON: {e}")))?;
    let mut found = vec![];
    if json.field("lst").is_some() && is(&json, "RunResults") {
        runs(text, &json, &mut found)?;
    } else if let Json::List(iterations) = &json {
        let several = iterations.len() > 1;
        for (at, iteration) in iterations.iter().enumerate() {
            let prefix = if several { format!("{at}/") } else { String::new() };
            arrays(text, iteration, &prefix, &mut found)?;
        }
    } else {
        return Err(TraceError::Format {
            found: "JSON that is no RunResults and no list of inputs of Polygraphy".into(),
            remedy: "write it with `polygraphy run --save-outputs` or `--save-inputs`",
        });
    }
    let entries = unique(found).map(|(name, (place, what))| entry(name, place, what, file, bytes));
    Ok((entries.collect(), vec![]))
}

/// Whether an object says that it is of a class.
fn is(json: &Json<'_>, class: &str) -> bool {
    json.field("polygraphy_class").and_then(Json::text) == Some(class)
        || json.field(&format!("__polygraphy_encoded_{class}")).is_some()
}

type Found = Vec<(String, (Place, What))>;

fn runs(text: &str, json: &Json<'_>, found: &mut Found) -> Result<(), TraceError> {
    let runners = json.field("lst").map(Json::list).unwrap_or_default();
    for runner in runners {
        let [Json::Text(name), iterations] = runner.list() else {
            return Err(damaged("a runner without name or iterations"));
        };
        let iterations = iterations.list();
        for (at, iteration) in iterations.iter().enumerate() {
            let mut prefix = String::new();
            if runners.len() > 1 {
                prefix = format!("{name}/");
            }
            if iterations.len() > 1 {
                prefix += &format!("{at}/");
            }
            let outputs =
                iteration.field("outputs").ok_or_else(|| damaged("an iteration without outputs"))?;
            arrays(text, outputs, &prefix, found)?;
        }
    }
    Ok(())
}

/// The arrays of one iteration, by name.
fn arrays(text: &str, named: &Json<'_>, prefix: &str, found: &mut Found) -> Result<(), TraceError> {
    for (name, value) in named.fields() {
        if name == "polygraphy_class" || name.starts_with("__polygraphy_encoded_") {
            continue;
        }
        let mut value = value;
        // A LazyArray holds the array, a FormattedArray an array beside its shape.
        while let Some(inner) = value
            .field("values")
            .or_else(|| value.field("array").filter(|inner| matches!(inner, Json::Object(_))))
        {
            value = inner;
        }
        let (data, what) = match (value.field("array"), value.field("tensor")) {
            (Some(Json::Text(data)), _) => (data, What::Array),
            (_, Some(Json::Text(data))) => (data, What::Checkpoint),
            _ => return Err(damaged(format!("{name:?} is neither an array nor a tensor"))),
        };
        let place = match data {
            Cow::Borrowed(borrowed) => {
                let start = borrowed.as_ptr() as usize - text.as_ptr() as usize;
                Place::File(start..start + borrowed.len())
            }
            Cow::Owned(owned) => Place::Text(owned.as_str().into()),
        };
        found.push((format!("{prefix}{name}"), (place, what)));
    }
    Ok(())
}

fn entry(name: String, place: Place, what: What, file: &Arc<MappedFile>, bytes: &Bytes) -> Entry {
    let info = match (&place, what) {
        (Place::File(range), What::Array) => info(&name, &bytes[range.clone()]),
        _ => None,
    };
    let (file, kept) = (Arc::clone(file), name.clone());
    Entry::new(name, info, move || {
        let text = match &place {
            Place::File(range) => file.stretch(range.start as u64, range.len() as u64)?,
            Place::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
        };
        let data = match decode(&text) {
            Some(data) => Bytes::from(data),
            // As early versions wrote it.
            None => latin(&text).ok_or_else(|| damaged(format!("{kept:?} is neither base64 nor Latin-1")))?,
        };
        match what {
            What::Array if data.starts_with(b"PK") => {
                let archive = MappedFile::from_bytes(file.path(), data.clone());
                let pieces = archive::pieces(".npz", &data)?;
                let first = pieces.first().ok_or_else(|| damaged(format!("{kept:?} is an empty archive")))?;
                npy::read(&kept, &first.bytes(&archive)?)
            }
            What::Array => npy::read(&kept, &data),
            What::Checkpoint => checkpoint(&kept, file.path(), &data),
        }
    })
}

/// A tensor that PyTorch saved by itself.
fn checkpoint(name: &str, path: &Path, data: &Bytes) -> Result<Tensor, TraceError> {
    let file = Arc::new(MappedFile::from_bytes(path, data.clone()));
    let pieces = archive::pieces("PyTorch", data)?;
    let folder = torch::folder(&pieces).ok_or_else(|| damaged(format!("{name:?} is no checkpoint")))?;
    let (entries, notes) = torch::zipped(name, &folder, &file, pieces)?;
    match entries.as_slice() {
        [one] => (one.load)(),
        _ => Err(damaged(format!(
            "{name:?} holds {} tensors, expected one {}",
            entries.len(),
            notes.join("; ")
        ))),
    }
}

/// Type and shape, from the first characters.
fn info(name: &str, text: &[u8]) -> Option<Info> {
    let head = decode(&text[..text.len().min(HEAD)])?;
    let header = crate::header::parse(&head).ok()?;
    let padding = text.iter().rev().take_while(|&&b| b == b'=').count();
    let length = (text.len() / 4 * 3).checked_sub(padding)?;
    npy::info_of(name, &header, length.checked_sub(header.length)?).ok()
}

/// Base64 (RFC 4648) with padding and nothing else.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (groups, rest) = text.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for (at, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|&&b| b == b'=').count();
        if padding > 2 || padding > 0 && at + 1 < groups.len() {
            return None;
        }
        let mut bits = 0u32;
        for &b in &group[..4 - padding] {
            let six = match b {
                b'A'..=b'Z' => b - b'A',
                b'a'..=b'z' => b - b'a' + 26,
                b'0'..=b'9' => b - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(six);
        }
        bits <<= 6 * padding;
        out.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
    }
    Some(out)
}

fn latin(text: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(text).ok()?;
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    Some(bytes?.into())
}

/// Base64 with padding.
fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let mut wide = [0; 4];
        wide[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(wide);
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { letter } else { b'=' });
        }
    }
}

/// Writes a `RunResults` of one runner and one iteration.
pub fn write<T: Tensors + ?Sized>(
    path: &Path,
    file: &mut impl std::io::Write,
    tensors: &T,
) -> Result<(), TraceError> {
    let mut between = "{\"lst\": [[\"isotrace\", [{\"outputs\": {";
    for at in 0..tensors.count() {
        let tensor = tensors.get(at)?;
        let (mut data, elements) = npy::write("a file of Polygraphy", tensors.name(at), &tensor)?;
        let name = serde_json::to_string(tensors.name(at)).unwrap_or_default();
        let mut text = vec![];
        // The header is padded to a multiple of 64 and not of 3: both are encoded as one.
        data.extend_from_slice(&elements);
        encode(&data, &mut text);
        write_all(
            path,
            file,
            &[between.as_bytes(), name.as_bytes(), b": {\"values\": {\"array\": \"", &text],
        )?;
        write_all(
            path,
            file,
            &[b"\", \"polygraphy_class\": \"ndarray\"}, \"polygraphy_class\": \"LazyArray\"}"],
        )?;
        between = ", ";
    }
    let start = if tensors.count() == 0 { between } else { "" };
    let end = "}, \"runtime\": null, \"runner_name\": \"isotrace\", \"polygraphy_class\": \"IterationResult\"}]]], \
               \"polygraphy_class\": \"RunResults\"}\n";
    write_all(path, file, &[start.as_bytes(), end.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_rfc_4648_and_nothing_else() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, text) in cases {
            let mut out = vec![];
            encode(plain.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
            assert_eq!(decode(text.as_bytes()).unwrap(), plain.as_bytes());
        }
        for wrong in ["Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Zm9v\n", "Zm9é"] {
            assert_eq!(decode(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
