//! Tensors to the runtime's values and back.

use half::{bf16, f16};
use isotrace_tensor::{Bool, DType, Element, Tensor};
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};

use crate::OrtError;

/// The element types that the runtime's interface hands over as they are.
macro_rules! for_plain {
    ($dtype:expr, $kind:ident, $T:ident => $body:expr, else $other:expr) => {
        match $dtype {
            $kind!(F64, Float64) => {
                type $T = f64;
                $body
            }
            $kind!(F32, Float32) => {
                type $T = f32;
                $body
            }
            $kind!(F16, Float16) => {
                type $T = f16;
                $body
            }
            $kind!(BF16, Bfloat16) => {
                type $T = bf16;
                $body
            }
            $kind!(I64, Int64) => {
                type $T = i64;
                $body
            }
            $kind!(I32, Int32) => {
                type $T = i32;
                $body
            }
            $kind!(I16, Int16) => {
                type $T = i16;
                $body
            }
            $kind!(I8, Int8) => {
                type $T = i8;
                $body
            }
            $kind!(U64, Uint64) => {
                type $T = u64;
                $body
            }
            $kind!(U32, Uint32) => {
                type $T = u32;
                $body
            }
            $kind!(U16, Uint16) => {
                type $T = u16;
                $body
            }
            $kind!(U8, Uint8) => {
                type $T = u8;
                $body
            }
            _ => $other,
        }
    };
}

macro_rules! ours {
    ($name:ident, $theirs:ident) => {
        DType::$name
    };
}

macro_rules! theirs {
    ($ours:ident, $name:ident) => {
        TensorElementType::$name
    };
}

/// A tensor as the runtime reads it: in place, but for truth values and text.
pub fn input<'t>(name: &str, tensor: &'t Tensor) -> Result<SessionInputValue<'t>, OrtError> {
    let refused = |problem: ort::Error| OrtError::Runtime {
        model: name.into(),
        action: "take this input",
        problem: problem.message().to_owned(),
    };
    let unreadable = |cause| OrtError::Tensor { name: name.to_owned(), cause };
    let shape = tensor.shape();
    for_plain!(tensor.dtype(), ours, T => {
        let elements = tensor.as_slice::<T>().map_err(unreadable)?;
        Ok(TensorRef::from_array_view((shape, elements)).map_err(refused)?.into())
    }, else match tensor.dtype() {
        DType::Bool => {
            let elements = tensor.as_slice::<Bool>().map_err(unreadable)?;
            let elements: Vec<bool> = elements.iter().map(|b| b.get()).collect();
            Ok(ort::value::Tensor::from_array((shape.to_vec(), elements)).map_err(refused)?.into())
        }
        DType::String => {
            let texts = tensor.as_strings().map_err(unreadable)?;
            Ok(ort::value::Tensor::from_string_array((shape, texts)).map_err(refused)?.into())
        }
        dtype => Err(OrtError::InputType { name: name.to_owned(), dtype }),
    })
}

/// Whether values of a type can be brought back.
pub fn readable(kind: &ValueType) -> bool {
    let ValueType::Tensor { ty, .. } = kind else { return false };
    for_plain!(*ty, theirs, T => { let _: Option<T> = None; true }, else
        matches!(ty, TensorElementType::Bool | TensorElementType::String))
}

/// A value of the runtime as a tensor; `None` for what [`readable`] refuses.
pub fn output(name: &str, value: &DynValue) -> Result<Option<Tensor>, OrtError> {
    let ValueType::Tensor { ty, .. } = value.dtype() else { return Ok(None) };
    let damaged = |cause| OrtError::Tensor { name: name.to_owned(), cause };
    for_plain!(*ty, theirs, T => copied::<T>(name, value).map(Some), else match ty {
        TensorElementType::Bool => {
            let (shape, elements) = value.try_extract_tensor::<bool>().map_err(refused(name))?;
            let elements: Vec<Bool> = elements.iter().map(|&b| Bool(u8::from(b))).collect();
            Tensor::from_vec(&sizes(shape), elements).map_err(damaged).map(Some)
        }
        TensorElementType::String => {
            let (shape, texts) = value.try_extract_strings().map_err(refused(name))?;
            Tensor::from_strings(&sizes(shape), texts).map_err(damaged).map(Some)
        }
        _ => Ok(None),
    })
}

fn copied<T: Element + PrimitiveTensorElementType>(name: &str, value: &DynValue) -> Result<Tensor, OrtError> {
    let (shape, elements) = value.try_extract_tensor::<T>().map_err(refused(name))?;
    Tensor::from_vec(&sizes(shape), elements.to_vec())
        .map_err(|cause| OrtError::Tensor { name: name.to_owned(), cause })
}

fn refused(name: &str) -> impl Fn(ort::Error) -> OrtError {
    let name = name.to_owned();
    move |e| OrtError::Runtime {
        model: name.clone().into(),
        action: "hand this value over",
        problem: e.message().to_owned(),
    }
}

fn sizes(shape: &[i64]) -> Vec<usize> {
    shape.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect()
}
