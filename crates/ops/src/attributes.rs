//! Reading a node's attributes with their defaults; a wrong kind is an error, never a default.

use isotrace_graph::{Attribute, Node};
use isotrace_tensor::{DType, Tensor};

use crate::OpError;

fn wrong(node: &Node, name: &str, found: &Attribute, expected: &str) -> OpError {
    OpError::Setting(format!(
        "attribute {name:?} of {} is of kind {}, expected {expected}",
        node.qualified_op(),
        found.kind()
    ))
}

macro_rules! reader {
    ($(#[$m:meta])* $name:ident -> $t:ty, $kind:literal, $pattern:pat => $value:expr) => {
        $(#[$m])*
        pub fn $name(node: &Node, name: &str) -> Result<Option<$t>, OpError> {
            match node.attributes.get(name) {
                None => Ok(None),
                Some($pattern) => Ok(Some($value)),
                Some(other) => Err(wrong(node, name, other, $kind)),
            }
        }
    };
}

reader! { /** A whole number. */ int -> i64, "int", Attribute::Int(i) => *i }
reader! { /** A number. */ float -> f32, "float", Attribute::Float(f) => *f }
reader! { /** Whole numbers. */ ints -> Vec<i64>, "ints", Attribute::Ints(i) => i.clone() }
reader! { /** Numbers. */ floats -> Vec<f32>, "floats", Attribute::Floats(f) => f.clone() }
reader! { /** A tensor. */ tensor -> Tensor, "tensor", Attribute::Tensor(t) => t.clone() }
reader! { /** Text. */ text -> String, "string", Attribute::Bytes(b) => String::from_utf8_lossy(b).into_owned() }
reader! {
    /** Texts. */
    texts -> Vec<String>, "strings",
    Attribute::Strings(s) => s.iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect()
}

/// A whole number with a default.
pub fn int_or(node: &Node, name: &str, default: i64) -> Result<i64, OpError> {
    Ok(int(node, name)?.unwrap_or(default))
}

/// A number with a default.
pub fn float_or(node: &Node, name: &str, default: f32) -> Result<f32, OpError> {
    Ok(float(node, name)?.unwrap_or(default))
}

/// A truth value, stored as a whole number.
pub fn flag(node: &Node, name: &str, default: bool) -> Result<bool, OpError> {
    Ok(int(node, name)?.map_or(default, |i| i != 0))
}

/// Text with a default.
pub fn text_or(node: &Node, name: &str, default: &str) -> Result<String, OpError> {
    Ok(text(node, name)?.unwrap_or_else(|| default.to_owned()))
}

/// An element type, stored as its number in ONNX's `TensorProto.DataType`.
pub fn dtype(node: &Node, name: &str) -> Result<Option<DType>, OpError> {
    let Some(code) = int(node, name)? else { return Ok(None) };
    let found = usize::try_from(code).ok().and_then(|code| ONNX_TYPES.get(code).copied().flatten());
    found.map(Some).ok_or_else(|| {
        OpError::Setting(format!(
            "attribute {name:?} of {} is {code}, which is no element type supported here (1 to 26 are)",
            node.qualified_op()
        ))
    })
}

/// `TensorProto.DataType` by number.
const ONNX_TYPES: [Option<DType>; 27] = {
    use DType as D;
    [
        None,
        Some(D::F32),
        Some(D::U8),
        Some(D::I8),
        Some(D::U16),
        Some(D::I16),
        Some(D::I32),
        Some(D::I64),
        Some(D::String),
        Some(D::Bool),
        Some(D::F16),
        Some(D::F64),
        Some(D::U32),
        Some(D::U64),
        Some(D::C64),
        Some(D::C128),
        Some(D::BF16),
        Some(D::F8E4M3FN),
        Some(D::F8E4M3FNUZ),
        Some(D::F8E5M2),
        Some(D::F8E5M2FNUZ),
        Some(D::U4),
        Some(D::I4),
        Some(D::F4E2M1),
        Some(D::F8E8M0),
        Some(D::U2),
        Some(D::I2),
    ]
};
