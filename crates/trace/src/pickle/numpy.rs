//! What NumPy's functions would rebuild, from their arguments in a pickle.
//!
//! An array is `_reconstruct(ndarray, (0,), b"b")` given the state `(version, shape, dtype, fortran, bytes)`; from
//! protocol 5 on `_frombuffer(bytes, dtype, shape, order)`; a number is `scalar(dtype, bytes)`. A type is
//! `dtype("f4", align, copy)` given the state `(3, "<", ...)`.

use super::machine::{Call, Id, Object, Pickle};
use super::tensors::{Data, Kind, Recipe};
use crate::header::Header;

pub fn kind(pickle: &Pickle, call: &Call, name: &str) -> Kind {
    let arguments = pickle.sequence(call.arguments).unwrap_or_default();
    let array = match name {
        "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct" => {
            let state = call.state.and_then(|s| pickle.sequence(s)).unwrap_or_default();
            let [.., shape, dtype, fortran, data] = state else {
                return Kind::Unreadable("its description is incomplete".into());
            };
            let fortran = matches!(pickle.get(*fortran), Object::Bool(true));
            described(pickle, *dtype, pickle.sizes(*shape), fortran, *data)
        }
        "numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer" => {
            let [data, dtype, shape, order] = arguments else {
                return Kind::Unreadable("its description is incomplete".into());
            };
            let fortran = pickle.text(*order) == Some("F");
            described(pickle, *dtype, pickle.sizes(*shape), fortran, *data)
        }
        "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar" => {
            let [dtype, data] = arguments else {
                return Kind::Unreadable("its description is incomplete".into());
            };
            described(pickle, *dtype, Some(vec![]), false, *data)
        }
        _ => return Kind::Other,
    };
    match array {
        Ok(recipe) => Kind::Tensor(recipe),
        Err(reason) => Kind::Unreadable(reason),
    }
}

fn described(
    pickle: &Pickle,
    dtype: Id,
    shape: Option<Vec<usize>>,
    fortran: bool,
    data: Id,
) -> Result<Recipe, String> {
    let shape = shape.ok_or("its shape is no whole numbers")?;
    let descr = descr(pickle, dtype).ok_or("its type is not described as NumPy does")?;
    let data = bytes(pickle, data).ok_or("its elements are Python objects, or missing")?;
    Ok(Recipe::Array { header: Header { descr, fortran_order: fortran, shape, length: 0 }, data })
}

/// A type as `.npy` files spell it.
fn descr(pickle: &Pickle, id: Id) -> Option<String> {
    let Object::Call(call) = pickle.get(id) else { return None };
    if pickle.global(call.function)? != "numpy.dtype" {
        // Types of other packages (ml_dtypes) are functions without state.
        return None;
    }
    let code = pickle.text(*pickle.sequence(call.arguments)?.first()?)?;
    let order = match call.state {
        Some(state) => pickle.text(*pickle.sequence(state)?.get(1)?)?,
        None => "<",
    };
    Some(format!("{order}{code}"))
}

/// Bytes, also those that protocols before 3 write as text.
fn bytes(pickle: &Pickle, id: Id) -> Option<Data> {
    match pickle.get(id) {
        Object::Bytes(range) => Some(Data::Inside(range.clone())),
        Object::Text(text) => latin(text),
        Object::Call(call) => {
            let arguments = pickle.sequence(call.arguments)?;
            match (pickle.global(call.function)?, arguments) {
                ("_codecs.encode", [text, encoding]) if pickle.text(*encoding)?.starts_with("latin") => {
                    latin(pickle.text(*text)?)
                }
                ("builtins.bytes" | "__builtin__.bytes", []) => Some(Data::Made(bytes::Bytes::new())),
                ("builtins.bytearray" | "__builtin__.bytearray", [inner]) => bytes(pickle, *inner),
                _ => None,
            }
        }
        _ => None,
    }
}

fn latin(text: &str) -> Option<Data> {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    Some(Data::Made(bytes?.into()))
}
