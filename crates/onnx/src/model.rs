use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use isotrace_graph::Graph;
use prost::Message;

use crate::external::External;
use crate::file::file_bytes;
use crate::generated::onnx::ModelProto;
use crate::sniff::not_onnx;
use crate::{OnnxError, lower, raise, store, wire};

/// Where protobuf messages end: sizes are signed 32-bit numbers in every implementation.
pub(crate) const LARGEST_MESSAGE: u64 = i32::MAX as u64;

/// An ONNX model: the message of its file, and where its external data are.
///
/// A model that was read and not changed is written back byte for byte. The message keeps every field of ONNX
/// up to IR version 14; fields beyond that ([`Model::unknown_fields`]) are lost once the model is changed.
#[derive(Debug, Clone)]
pub struct Model {
    proto: ModelProto,
    /// The bytes this was decoded from, until it is changed.
    source: Option<Bytes>,
    unknown: Vec<String>,
    pub(crate) external: Arc<External>,
}

impl Model {
    /// Reads a model file. External data are looked for in its folder, when they are asked for.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, OnnxError> {
        let path = path.as_ref();
        let bytes = file_bytes(path)?;
        Self::decode_with(bytes, External::around(path)).map_err(|e| e.in_file(path))
    }

    /// Decodes a model from bytes, which it shares. `folder` is where external data may be.
    pub fn decode(bytes: Bytes, folder: Option<&Path>) -> Result<Self, OnnxError> {
        Self::decode_with(bytes, folder.map_or_else(External::default, External::within))
    }

    fn decode_with(bytes: Bytes, external: External) -> Result<Self, OnnxError> {
        const EXPECTED: &str = "an ONNX model";
        if bytes.is_empty() {
            return Err(not_onnx(EXPECTED, &bytes, String::new()));
        }
        if bytes.len() as u64 > LARGEST_MESSAGE {
            return Err(OnnxError::TooLarge { bytes: bytes.len() as u64 });
        }
        let proto = ModelProto::decode(bytes.clone()).map_err(|e| damaged(EXPECTED, &bytes, &e))?;
        if proto.graph.is_none() {
            return Err(not_onnx(EXPECTED, &bytes, "a protobuf message without a graph".into()));
        }
        let unknown = wire::unknown_fields("ModelProto", &bytes);
        Ok(Self { proto, source: Some(bytes), unknown, external: Arc::new(external) })
    }

    /// A model around a message made in memory.
    pub fn from_proto(proto: ModelProto) -> Self {
        Self { proto, source: None, unknown: vec![], external: Arc::default() }
    }

    /// The model that computes what a graph does, with opset versions as its nodes name them.
    pub fn from_graph(graph: &Graph) -> Result<Self, OnnxError> {
        raise::raise(graph).map(Self::from_proto)
    }

    /// The message.
    pub fn proto(&self) -> &ModelProto {
        &self.proto
    }

    /// The message, to change it.
    pub fn proto_mut(&mut self) -> &mut ModelProto {
        self.source = None;
        &mut self.proto
    }

    /// Fields of the file that this version of isotrace does not know, each once, as `Message.number`.
    ///
    /// They are kept while the model is not changed, and lost when a changed model is written.
    pub fn unknown_fields(&self) -> &[String] {
        &self.unknown
    }

    /// The graph that the model computes: functions inlined, nodes in execution order.
    pub fn graph(&self) -> Result<Graph, OnnxError> {
        lower::lower(&self.proto, &self.external)
    }

    /// The model as the bytes of a file: those it was read from, if it was not changed. External data stay where
    /// they are.
    pub fn encode(&self) -> Result<Bytes, OnnxError> {
        if let Some(source) = &self.source {
            return Ok(source.clone());
        }
        let size = self.proto.encoded_len() as u64;
        if size > LARGEST_MESSAGE {
            return Err(OnnxError::TooLarge { bytes: size });
        }
        Ok(self.proto.encode_to_vec().into())
    }

    /// Writes the model to a file, replacing it whole.
    ///
    /// A model that does not fit one protobuf message (2 GiB), or whose external data lie in another folder, gets
    /// its large tensors written to `<file name>.data` beside it.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), OnnxError> {
        store::write(self, path.as_ref(), LARGEST_MESSAGE)
    }
}

/// The error for bytes that the decoder refused.
pub(crate) fn damaged(expected: &'static str, bytes: &[u8], error: &prost::DecodeError) -> OnnxError {
    let text = error.to_string();
    if text.contains("recursion limit") {
        return OnnxError::TooDeep { what: "messages", limit: 100 };
    }
    if text.contains("UTF-8") {
        return OnnxError::NotUtf8 { what: text };
    }
    not_onnx(expected, bytes, format!("bytes that cannot be decoded ({text})"))
}
