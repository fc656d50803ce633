//! Code made from the ONNX project's protobuf definitions; see the head of each file.

#[rustfmt::skip]
pub mod fields;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; the fields are documented in onnx.proto")]
pub mod onnx;
