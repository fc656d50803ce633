//! What a file that is not ONNX seems to be, so that the message can say what to do.

use crate::OnnxError;

/// The error for bytes that are not what was `expected`, by their first bytes.
pub fn not_onnx(expected: &'static str, bytes: &[u8], otherwise: String) -> OnnxError {
    let (found, remedy) =
        kind(bytes).unwrap_or((otherwise, "the file is damaged or of another kind; export or copy it again"));
    OnnxError::NotOnnx { expected, found, remedy }
}

/// What files that people confuse with ONNX models begin with.
fn kind(bytes: &[u8]) -> Option<(String, &'static str)> {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let (found, remedy) = if bytes.is_empty() {
        ("an empty file", "the export or the download failed; do it again")
    } else if starts(b"version https://git-lfs") {
        ("a Git LFS pointer", "fetch the real file with `git lfs pull`")
    } else if starts(b"PK\x03\x04") || starts(b"PK\x05\x06") {
        (
            "a zip archive (as PyTorch checkpoints and .npz files are)",
            "export the model to ONNX first, or hold the tensors of two such files against each other with `isotrace compare`",
        )
    } else if starts(b"\x93NUMPY") {
        ("a NumPy array", "give it where tensors are expected (two files of them: `isotrace compare`)")
    } else if starts(b"\x1f\x8b") {
        ("a gzip archive", "unpack it first")
    } else if bytes.get(4..8) == Some(b"ORTM") {
        ("an ONNX Runtime .ort model", "give the .onnx model it was made from")
    } else if bytes.get(4..8) == Some(b"TFL3") {
        ("a TensorFlow Lite model", "convert it to ONNX first")
    } else if bytes.get(8) == Some(&b'{') && bytes.get(..8).is_some_and(|n| n[5..] == [0; 3]) {
        ("a safetensors file", "give it where tensors are expected (two files of them: `isotrace compare`)")
    } else if starts(b"\x80\x02") || starts(b"\x80\x04") {
        ("a Python pickle", "export the model to ONNX; a pickle is never opened")
    } else if starts(b"<!") || starts(b"<html") || starts(b"<?xml") {
        ("a web page or XML", "the download failed or needs a login; do it again")
    } else if starts(b"{") || starts(b"[") {
        ("JSON", "give the binary .onnx file")
    } else if starts(b"ir_version:") || starts(b"graph {") || starts(b"<") {
        ("ONNX in text form", "convert it first (in Python: onnx.save(onnx.load(path, format=...), out))")
    } else if bytes.iter().take(512).all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
        ("text", "give the binary .onnx file")
    } else {
        return None;
    };
    Some((found.into(), remedy))
}
