//! Files of one `TensorProto`, as in the data sets of ONNX's backend tests.

use std::path::Path;

use bytes::Bytes;
use isotrace_tensor::Tensor;
use prost::Message;

use crate::external::External;
use crate::file::{file_bytes, replace_file};
use crate::generated::onnx::{MapProto, OptionalProto, SequenceProto, TensorProto};
use crate::model::{LARGEST_MESSAGE, damaged};
use crate::sniff::not_onnx;
use crate::tensor::{decode, tensor_to_proto};
use crate::{OnnxError, dtype_from_onnx};

/// Reads a file of one `TensorProto`: its name (empty where it has none) and its tensor.
pub fn read_tensor_pb(path: impl AsRef<Path>) -> Result<(String, Tensor), OnnxError> {
    let path = path.as_ref();
    let bytes = file_bytes(path)?;
    decode_in(&bytes, &External::around(path)).map_err(|e| e.in_file(path))
}

/// Decodes one `TensorProto`, sharing the bytes where alignment allows.
pub fn decode_tensor_pb(bytes: &Bytes) -> Result<(String, Tensor), OnnxError> {
    decode_in(bytes, &External::default())
}

/// Writes a file of one `TensorProto`, replacing it whole.
pub fn write_tensor_pb(path: impl AsRef<Path>, name: &str, tensor: &Tensor) -> Result<(), OnnxError> {
    let path = path.as_ref();
    let proto = tensor_to_proto(name, tensor);
    let size = proto.encoded_len() as u64;
    if size > LARGEST_MESSAGE {
        return Err(OnnxError::TooLarge { bytes: size }.in_file(path));
    }
    replace_file(path, |file| std::io::Write::write_all(file, &proto.encode_to_vec()))
}

fn decode_in(bytes: &Bytes, external: &External) -> Result<(String, Tensor), OnnxError> {
    const EXPECTED: &str = "an ONNX TensorProto";
    if bytes.is_empty() {
        return Err(not_onnx(EXPECTED, bytes, String::new()));
    }
    if bytes.len() as u64 > LARGEST_MESSAGE {
        return Err(OnnxError::TooLarge { bytes: bytes.len() as u64 });
    }
    let found = match TensorProto::decode(bytes.clone()) {
        Ok(proto) => match decode(&proto, external) {
            Ok(tensor) => return Ok((proto.name().to_owned(), tensor)),
            // A sequence may decode as a strange tensor: its name as dims, its elements as a segment.
            Err(error) => match other_kind(bytes) {
                None if dtype_from_onnx(proto.data_type()).is_none() && proto.data_type.is_none() => {
                    return Err(not_onnx(EXPECTED, bytes, "a message without an element type".into()));
                }
                None => return Err(error),
                Some(kind) => kind,
            },
        },
        Err(error) => match other_kind(bytes) {
            None => return Err(damaged(EXPECTED, bytes, &error)),
            Some(kind) => kind,
        },
    };
    Err(OnnxError::NotATensor { what: "the message".into(), found })
}

/// Which of the other messages of ONNX data sets this is, if it is sound as one.
fn other_kind(bytes: &Bytes) -> Option<&'static str> {
    // All of them begin with a name or a kind of element and hold nothing this crate does not know.
    let known = |message| crate::wire::unknown_fields(message, bytes).is_empty();
    if OptionalProto::decode(bytes.clone()).is_ok_and(|o| known("OptionalProto") && o.elem_type() == 0) {
        return Some("optional value");
    }
    if SequenceProto::decode(bytes.clone())
        .is_ok_and(|s| known("SequenceProto") && (1..=5).contains(&s.elem_type()))
    {
        return Some("sequence or optional value");
    }
    MapProto::decode(bytes.clone()).is_ok_and(|m| known("MapProto") && m.values.is_some()).then_some("map")
}
