//! ONNX files to [`Graph`](isotrace_graph::Graph)s and back, and the tensors in them.
//!
//! [`Model::read`] maps a file, [`Model::graph`] lowers it to the graph that the rest of isotrace speaks: local
//! functions inlined, bodies with what they capture, initializers as constants. [`Model::from_graph`] goes the
//! other way. Weights are shared with the mapped file wherever their alignment allows.
//!
//! Files are hostile until proven otherwise: sizes are checked before memory is asked for, external data stay in the
//! model's folder, recursion is bounded, and every failure is an [`OnnxError`] that says what to do.

mod error;
mod external;
mod file;
mod generated;
mod lower;
mod model;
mod packing;
mod pages;
mod raise;
mod sniff;
mod sparse;
mod store;
mod tensor;
mod tensor_file;
mod visit;
mod wire;

pub use error::OnnxError;
pub use file::{MappedFile, file_bytes, replace_file};
pub use generated::onnx as proto;
pub use model::Model;
pub use packing::{pack, per_byte, unpack};
pub use pages::WholePages;
pub use tensor::{dtype_from_onnx, dtype_to_onnx, tensor_from_proto, tensor_to_proto};
pub use tensor_file::{decode_tensor_pb, read_tensor_pb, write_tensor_pb};
