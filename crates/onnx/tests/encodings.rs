//! Every way in which ONNX stores every element type.

mod common;

use bytes::Bytes;
use isotrace_onnx::proto::TensorProto;
use isotrace_onnx::proto::tensor_proto::{DataLocation, DataType, Segment};
use isotrace_onnx::{
    OnnxError, decode_tensor_pb, dtype_from_onnx, dtype_to_onnx, read_tensor_pb, tensor_from_proto,
    tensor_to_proto, write_tensor_pb,
};
use isotrace_tensor::{C64, C128, DType, Tensor, bf16, f16};
use prost::Message;

fn proto(kind: DataType, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: Some("t".into()),
        data_type: Some(kind as i32),
        dims: dims.to_vec(),
        ..TensorProto::default()
    }
}

fn raw(kind: DataType, dims: &[i64], bytes: &[u8]) -> TensorProto {
    TensorProto { raw_data: Some(Bytes::copy_from_slice(bytes)), ..proto(kind, dims) }
}

fn ints(kind: DataType, dims: &[i64], data: &[i32]) -> TensorProto {
    TensorProto { int32_data: data.to_vec(), ..proto(kind, dims) }
}

fn bytes_of(dtype: DType, data: &[u8]) -> Tensor {
    Tensor::from_pods(dtype, &[data.len()], data.to_vec()).unwrap()
}

#[test]
fn every_encoding_reads_as_the_same_tensor() {
    use DataType as D;
    let pair = TensorProto { float_data: vec![1.0, -2.0], ..proto(D::Complex64, &[1]) };
    let wide = TensorProto { double_data: vec![1.0, -2.0], ..proto(D::Complex128, &[1]) };
    let text = TensorProto { string_data: vec!["ä".into(), "".into()], ..proto(D::String, &[2]) };
    let cases: Vec<(TensorProto, Tensor)> = vec![
        (common::floats("t", &[2], &[1.0, -0.0]), Tensor::vector(vec![1f32, -0.0])),
        (raw(D::Float, &[1], &1.5f32.to_le_bytes()), Tensor::vector(vec![1.5f32])),
        (raw(D::Float, &[], &1.5f32.to_le_bytes()), Tensor::scalar(1.5f32)),
        (proto(D::Float, &[0, 3]), Tensor::from_vec::<f32>(&[0, 3], vec![]).unwrap()),
        (raw(D::Float, &[0], &[]), Tensor::vector::<f32>(vec![])),
        (TensorProto { double_data: vec![0.1], ..proto(D::Double, &[1]) }, Tensor::vector(vec![0.1f64])),
        (pair, Tensor::vector(vec![C64([1.0, -2.0])])),
        (wide, Tensor::vector(vec![C128([1.0, -2.0])])),
        (TensorProto { int64_data: vec![-1], ..proto(D::Int64, &[1]) }, Tensor::vector(vec![-1i64])),
        (
            TensorProto { uint64_data: vec![u64::MAX], ..proto(D::Uint64, &[1]) },
            Tensor::vector(vec![u64::MAX]),
        ),
        (TensorProto { uint64_data: vec![9], ..proto(D::Uint32, &[1]) }, Tensor::vector(vec![9u32])),
        (text, Tensor::from_strings(&[2], vec!["ä".into(), String::new()]).unwrap()),
        (ints(D::Int32, &[1], &[i32::MIN]), Tensor::vector(vec![i32::MIN])),
        (ints(D::Int16, &[1], &[-3]), Tensor::vector(vec![-3i16])),
        (ints(D::Uint16, &[1], &[65535]), Tensor::vector(vec![65535u16])),
        (ints(D::Int8, &[1], &[-128]), Tensor::vector(vec![-128i8])),
        (ints(D::Uint8, &[1], &[255]), Tensor::vector(vec![255u8])),
        (ints(D::Bool, &[3], &[0, 1, 7]), bytes_of(DType::Bool, &[0, 1, 1])),
        (raw(D::Bool, &[3], &[0, 1, 7]), bytes_of(DType::Bool, &[0, 1, 1])),
        (ints(D::Float16, &[1], &[0x3c00]), Tensor::vector(vec![f16::ONE])),
        (ints(D::Float16, &[1], &[-0x4400]), Tensor::vector(vec![f16::NEG_ONE])),
        (ints(D::Bfloat16, &[1], &[0x3f80]), Tensor::vector(vec![bf16::ONE])),
        (ints(D::Float8e4m3fn, &[1], &[0x38]), bytes_of(DType::F8E4M3FN, &[0x38])),
        (ints(D::Float8e4m3fnuz, &[1], &[0x80]), bytes_of(DType::F8E4M3FNUZ, &[0x80])),
        (ints(D::Float8e5m2, &[1], &[-1]), bytes_of(DType::F8E5M2, &[0xff])),
        (raw(D::Float8e5m2fnuz, &[1], &[3]), bytes_of(DType::F8E5M2FNUZ, &[3])),
        (raw(D::Float8e8m0, &[1], &[127]), bytes_of(DType::F8E8M0, &[127])),
        (ints(D::Uint4, &[3], &[0x21, 0x0f]), bytes_of(DType::U4, &[1, 2, 15])),
        (raw(D::Int4, &[3], &[0xf8, 0x07]), bytes_of(DType::I4, &[0xf8, 0xff, 7])),
        (ints(D::Float4e2m1, &[2], &[0x9f]), bytes_of(DType::F4E2M1, &[15, 9])),
        (ints(D::Uint2, &[5], &[0b1110_0100, 2]), bytes_of(DType::U2, &[0, 1, 2, 3, 2])),
        (raw(D::Int2, &[4], &[0b1110_0100]), bytes_of(DType::I2, &[0, 1, 0xfe, 0xff])),
    ];
    let mut wrong = vec![];
    let mut seen = vec![];
    for (proto, expected) in &cases {
        seen.push(expected.dtype());
        match tensor_from_proto(proto) {
            Ok(found) if found.bit_eq(expected) => {
                let again = tensor_from_proto(&tensor_to_proto("t", &found)).unwrap();
                if !again.bit_eq(expected) {
                    wrong.push(format!("{found:?} written and read is {again:?}"));
                }
            }
            other => wrong.push(format!("{expected:?} expected, found {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(DType::ALL.iter().all(|d| seen.contains(d)), "every type has a row");
    for &dtype in DType::ALL {
        assert_eq!(dtype_from_onnx(dtype_to_onnx(dtype)), Some(dtype));
    }
}

#[test]
fn wrong_tensors_are_refused() {
    use DataType as D;
    let external =
        TensorProto { data_location: Some(DataLocation::External as i32), ..proto(D::Float, &[1]) };
    let segment = TensorProto { segment: Some(Segment::default()), ..proto(D::Float, &[0]) };
    let both = TensorProto { float_data: vec![1.0], ..raw(D::Float, &[1], &[0; 4]) };
    let text = TensorProto { string_data: vec![Bytes::from_static(b"\xff")], ..proto(D::String, &[1]) };
    let cases = [
        (raw(D::Float, &[2], &[0; 7]), "needs 8 in raw_data, found 7"),
        (raw(D::Float, &[1 << 40], &[0; 4]), "needs 4398046511104 in raw_data, found 4"),
        (raw(D::Int4, &[5], &[0; 2]), "needs 3 in raw_data, found 2"),
        (raw(D::Int4, &[1 << 50], &[0; 2]), "in raw_data, found 2"),
        (proto(D::Float, &[2]), "needs 2 in float_data, found 0"),
        (proto(D::Float, &[]), "needs 1 in float_data, found 0"),
        (proto(D::Float, &[-1]), "negative"),
        (proto(D::Float, &[i64::MAX, i64::MAX]), "more elements than can be addressed"),
        (proto(D::Float, &[i64::MAX]), "more elements than can be addressed"),
        (proto(D::Undefined, &[]), "element type UNDEFINED"),
        (proto(D::Float6e2m3, &[]), "element type FLOAT6E2M3"),
        (TensorProto { data_type: Some(1000), ..proto(D::Float, &[]) }, "element type 1000"),
        (ints(D::Uint2, &[5], &[1]), "needs 2 in int32_data, found 1"),
        (ints(D::Int8, &[1], &[128]), "number 128"),
        (ints(D::Uint8, &[1], &[-1]), "number -1"),
        (ints(D::Uint16, &[1], &[65536]), "number 65536"),
        (ints(D::Float16, &[1], &[65536]), "number 65536"),
        (ints(D::Int64, &[1], &[1]), "expected int64_data"),
        (TensorProto { uint64_data: vec![1 << 32], ..proto(D::Uint32, &[1]) }, "number 4294967296"),
        (both, "raw_data and in float_data"),
        (raw(D::String, &[1], b"x"), "text in raw_data"),
        (text, "not UTF-8"),
        (external, "no location"),
        (segment, "segment"),
        (
            TensorProto { float_data: vec![1.0; 3], ..proto(D::Complex64, &[1]) },
            "needs 2 in float_data, found 3",
        ),
    ];
    let mut wrong = vec![];
    for (proto, expected) in &cases {
        match tensor_from_proto(proto) {
            Err(e) if e.to_string().contains(expected) && e.to_string().len() > 40 => {}
            other => wrong.push(format!("{expected:?} expected, found {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn weights_stay_in_the_bytes_they_came_in() {
    let tensor = Tensor::from_vec(&[64, 64], vec![1f32; 4096]).unwrap();
    let bytes = Bytes::from(tensor_to_proto("w", &tensor).encode_to_vec());
    let range = bytes.as_ptr() as usize..bytes.as_ptr() as usize + bytes.len();
    // Where the data start depends on the head; one name length in four makes them lie aligned.
    let shared = (1..=4).filter(|&n| {
        let bytes = Bytes::from(tensor_to_proto(&"w".repeat(n), &tensor).encode_to_vec());
        let range = bytes.as_ptr() as usize..bytes.as_ptr() as usize + bytes.len();
        range.contains(&(decode_tensor_pb(&bytes).unwrap().1.bytes().as_ptr() as usize))
    });
    assert_eq!(shared.count(), 1);
    let decoded = TensorProto::decode(bytes.clone()).unwrap();
    assert!(range.contains(&(decoded.raw_data.unwrap().as_ptr() as usize)));
    assert_eq!(tensor_to_proto("w", &tensor).raw_data.unwrap().as_ptr(), tensor.bytes().as_ptr());
}

#[test]
fn tensor_files_read_back_and_other_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.pb");
    let tensor = Tensor::from_vec(&[2, 2], vec![1i64, 2, 3, 4]).unwrap();
    write_tensor_pb(&path, "x", &tensor).unwrap();
    let (name, read) = read_tensor_pb(&path).unwrap();
    assert!(name == "x" && read.bit_eq(&tensor));

    let element = tensor_to_proto("", &tensor);
    let sequence = isotrace_onnx::proto::SequenceProto {
        name: Some("s".into()),
        elem_type: Some(1),
        tensor_values: vec![element.clone()],
        ..Default::default()
    };
    let optional = isotrace_onnx::proto::OptionalProto { name: Some("o".into()), ..Default::default() };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (sequence.encode_to_vec(), "sequence"),
        (optional.encode_to_vec(), "optional"),
        (vec![], "empty file"),
        (b"PK\x03\x04rest".to_vec(), "zip archive"),
        (b"\x93NUMPY\x01\x00".to_vec(), "NumPy"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git lfs pull"),
        (b"{\"a\": 1}".to_vec(), "JSON"),
        (b"hello world".to_vec(), "text"),
    ];
    for (bytes, expected) in cases {
        std::fs::write(&path, &bytes).unwrap();
        let found = read_tensor_pb(&path).unwrap_err().to_string();
        assert!(found.contains(expected) && found.contains("t.pb"), "{expected}: {found}");
    }
    assert!(matches!(read_tensor_pb(folder.path()), Err(OnnxError::NotAFile { .. })));
}
