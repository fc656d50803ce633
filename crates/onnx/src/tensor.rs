//! `TensorProto` to [`Tensor`] and back.
//!
//! Data come in one of three ways: `raw_data` (little-endian bytes), a typed list (which list serves which type is
//! fixed by the format), or a file beside the model. Counts are checked against the shape before anything is
//! allocated, so a tensor never costs more memory than a small multiple of the bytes that hold it.

use bytes::Bytes;
use isotrace_tensor::{C64, C128, DType, Tensor, element_count};

use crate::OnnxError;
use crate::external::{External, Location};
use crate::generated::onnx::TensorProto;
use crate::generated::onnx::tensor_proto::{DataLocation, DataType};
use crate::packing::{pack, per_byte, unpack};

/// The element type behind ONNX's number for it.
pub fn dtype_from_onnx(number: i32) -> Option<DType> {
    Some(match DataType::try_from(number).ok()? {
        DataType::Float => DType::F32,
        DataType::Uint8 => DType::U8,
        DataType::Int8 => DType::I8,
        DataType::Uint16 => DType::U16,
        DataType::Int16 => DType::I16,
        DataType::Int32 => DType::I32,
        DataType::Int64 => DType::I64,
        DataType::String => DType::String,
        DataType::Bool => DType::Bool,
        DataType::Float16 => DType::F16,
        DataType::Double => DType::F64,
        DataType::Uint32 => DType::U32,
        DataType::Uint64 => DType::U64,
        DataType::Complex64 => DType::C64,
        DataType::Complex128 => DType::C128,
        DataType::Bfloat16 => DType::BF16,
        DataType::Float8e4m3fn => DType::F8E4M3FN,
        DataType::Float8e4m3fnuz => DType::F8E4M3FNUZ,
        DataType::Float8e5m2 => DType::F8E5M2,
        DataType::Float8e5m2fnuz => DType::F8E5M2FNUZ,
        DataType::Uint4 => DType::U4,
        DataType::Int4 => DType::I4,
        DataType::Float4e2m1 => DType::F4E2M1,
        DataType::Float8e8m0 => DType::F8E8M0,
        DataType::Uint2 => DType::U2,
        DataType::Int2 => DType::I2,
        DataType::Undefined | DataType::Float6e2m3 | DataType::Float6e3m2 => return None,
    })
}

/// ONNX's number for an element type.
pub fn dtype_to_onnx(dtype: DType) -> i32 {
    let data_type = match dtype {
        DType::F32 => DataType::Float,
        DType::U8 => DataType::Uint8,
        DType::I8 => DataType::Int8,
        DType::U16 => DataType::Uint16,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::String => DataType::String,
        DType::Bool => DataType::Bool,
        DType::F16 => DataType::Float16,
        DType::F64 => DataType::Double,
        DType::U32 => DataType::Uint32,
        DType::U64 => DataType::Uint64,
        DType::C64 => DataType::Complex64,
        DType::C128 => DataType::Complex128,
        DType::BF16 => DataType::Bfloat16,
        DType::F8E4M3FN => DataType::Float8e4m3fn,
        DType::F8E4M3FNUZ => DataType::Float8e4m3fnuz,
        DType::F8E5M2 => DataType::Float8e5m2,
        DType::F8E5M2FNUZ => DataType::Float8e5m2fnuz,
        DType::U4 => DataType::Uint4,
        DType::I4 => DataType::Int4,
        DType::F4E2M1 => DataType::Float4e2m1,
        DType::F8E8M0 => DataType::Float8e8m0,
        DType::U2 => DataType::Uint2,
        DType::I2 => DataType::Int2,
    };
    data_type as i32
}

/// The tensor that a message holds, without copying where the bytes lie aligned. External data are not followed.
pub fn tensor_from_proto(proto: &TensorProto) -> Result<Tensor, OnnxError> {
    decode(proto, &External::default())
}

/// Bytes that a tensor's data take in a file.
pub(crate) fn stored_size(proto: &TensorProto) -> Result<usize, OnnxError> {
    let (_, _, bytes) = stored_bytes(proto.name(), proto, known_dtype(proto)?)?;
    Ok(bytes)
}

/// The element type, if it is one that tensors here can have.
fn known_dtype(proto: &TensorProto) -> Result<DType, OnnxError> {
    let number = proto.data_type();
    dtype_from_onnx(number).ok_or_else(|| OnnxError::ElementType {
        tensor: proto.name().into(),
        found: DataType::try_from(number).map_or_else(|_| number.to_string(), |d| d.as_str_name().into()),
        remedy: "isotrace knows the types up to IR version 13; export with one of them",
    })
}

/// Shape, number of elements and bytes in a file, checked.
fn stored_bytes(
    name: &str,
    proto: &TensorProto,
    dtype: DType,
) -> Result<(Vec<usize>, usize, usize), OnnxError> {
    let fail = |problem: &str| OnnxError::Dims {
        tensor: name.into(),
        dims: proto.dims.clone(),
        problem: problem.into(),
    };
    let shape: Vec<usize> = proto
        .dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| fail("a size is negative")))
        .collect::<Result<_, _>>()?;
    let count = element_count(&shape).map_err(|_| fail("more elements than can be addressed"))?;
    // `element_count` leaves room for 16 bytes an element, so this cannot overflow.
    Ok((shape, count, count.div_ceil(per_byte(dtype)) * dtype.size()))
}

pub(crate) fn decode(proto: &TensorProto, external: &External) -> Result<Tensor, OnnxError> {
    let name = proto.name();
    let dtype = known_dtype(proto)?;
    let encoding =
        |found: String, expected| OnnxError::Encoding { tensor: name.into(), dtype, found, expected };
    if proto.segment.is_some() {
        return Err(encoding("a segment of a larger tensor".into(), "the whole tensor"));
    }
    let (shape, count, bytes) = stored_bytes(name, proto, dtype)?;
    if proto.data_location == Some(DataLocation::External as i32) {
        if dtype == DType::String {
            return Err(encoding("external data".into(), "text in string_data"));
        }
        let at = Location::parse(name, &proto.external_data)?;
        let data = external.bytes(name, &at, bytes)?;
        return from_raw(name, dtype, &shape, count, bytes, data, "the external data");
    }
    let lists = typed_lists(proto);
    let mut filled = lists.iter().filter(|(_, length)| *length > 0);
    match (proto.raw_data.as_ref().filter(|raw| !raw.is_empty()), filled.next(), filled.next()) {
        (Some(_), Some((list, _)), _) => {
            Err(encoding(format!("data in raw_data and in {list}"), "data in one of them"))
        }
        (None, Some((a, _)), Some((b, _))) => {
            Err(encoding(format!("data in {a} and in {b}"), "data in one of them"))
        }
        (Some(_), None, _) if dtype == DType::String => {
            Err(encoding("text in raw_data".into(), "text in string_data"))
        }
        (Some(raw), None, _) => from_raw(name, dtype, &shape, count, bytes, raw.clone(), "raw_data"),
        (None, Some((list, _)), None) if *list != typed_list(dtype) => {
            Err(encoding(format!("data in {list}"), typed_list(dtype)))
        }
        (None, _, _) => from_typed(name, dtype, &shape, count, proto),
    }
}

fn typed_lists(proto: &TensorProto) -> [(&'static str, usize); 6] {
    [
        ("float_data", proto.float_data.len()),
        ("int32_data", proto.int32_data.len()),
        ("string_data", proto.string_data.len()),
        ("int64_data", proto.int64_data.len()),
        ("double_data", proto.double_data.len()),
        ("uint64_data", proto.uint64_data.len()),
    ]
}

fn typed_list(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 | DType::C64 => "float_data",
        DType::F64 | DType::C128 => "double_data",
        DType::I64 => "int64_data",
        DType::U64 | DType::U32 => "uint64_data",
        DType::String => "string_data",
        _ => "int32_data",
    }
}

fn from_raw(
    name: &str,
    dtype: DType,
    shape: &[usize],
    count: usize,
    bytes: usize,
    raw: Bytes,
    field: &'static str,
) -> Result<Tensor, OnnxError> {
    if raw.len() != bytes {
        return Err(OnnxError::Count {
            tensor: name.into(),
            dtype,
            shape: shape.to_vec(),
            field,
            expected: bytes,
            found: raw.len(),
        });
    }
    let built = if per_byte(dtype) > 1 {
        Tensor::from_pods(dtype, shape, unpack(dtype, raw.iter().copied(), count))
    } else if dtype == DType::Bool && raw.iter().any(|&b| b > 1) {
        // Any byte but 0 is true; one form for it keeps comparison by bits honest.
        Tensor::from_pods(dtype, shape, raw.iter().map(|&b| u8::from(b != 0)).collect::<Vec<_>>())
    } else {
        Tensor::from_bytes(dtype, shape, raw)
    };
    built.map_err(|cause| OnnxError::Tensor { tensor: name.into(), cause })
}

fn from_typed(
    name: &str,
    dtype: DType,
    shape: &[usize],
    count: usize,
    proto: &TensorProto,
) -> Result<Tensor, OnnxError> {
    let needs = |expected: usize, found: usize| {
        if expected == found {
            return Ok(());
        }
        let (field, shape) = (typed_list(dtype), shape.to_vec());
        Err(OnnxError::Count { tensor: name.into(), dtype, shape, field, expected, found })
    };
    let built = match dtype {
        DType::F32 => {
            needs(count, proto.float_data.len())?;
            Tensor::from_vec(shape, proto.float_data.clone())
        }
        DType::F64 => {
            needs(count, proto.double_data.len())?;
            Tensor::from_vec(shape, proto.double_data.clone())
        }
        DType::C64 => {
            needs(2 * count, proto.float_data.len())?;
            let pairs = proto.float_data.chunks_exact(2).map(|p| C64([p[0], p[1]]));
            Tensor::from_vec(shape, pairs.collect())
        }
        DType::C128 => {
            needs(2 * count, proto.double_data.len())?;
            let pairs = proto.double_data.chunks_exact(2).map(|p| C128([p[0], p[1]]));
            Tensor::from_vec(shape, pairs.collect())
        }
        DType::I64 => {
            needs(count, proto.int64_data.len())?;
            Tensor::from_vec(shape, proto.int64_data.clone())
        }
        DType::U64 => {
            needs(count, proto.uint64_data.len())?;
            Tensor::from_vec(shape, proto.uint64_data.clone())
        }
        DType::U32 => {
            needs(count, proto.uint64_data.len())?;
            let narrow = |&v: &u64| u32::try_from(v).map_err(|_| out_of_range(name, dtype, v));
            Tensor::from_vec(shape, proto.uint64_data.iter().map(narrow).collect::<Result<Vec<u32>, _>>()?)
        }
        DType::String => {
            needs(count, proto.string_data.len())?;
            let text = |(i, s): (usize, &Bytes)| {
                std::str::from_utf8(s)
                    .map(str::to_owned)
                    .map_err(|_| OnnxError::NotUtf8 { what: format!("element {i} of tensor {name:?}") })
            };
            let texts = proto.string_data.iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?;
            Tensor::from_strings(shape, texts)
        }
        _ => {
            needs(count.div_ceil(per_byte(dtype)), proto.int32_data.len())?;
            return from_int32(name, dtype, shape, count, &proto.int32_data);
        }
    };
    built.map_err(|cause| OnnxError::Tensor { tensor: name.into(), cause })
}

fn out_of_range(name: &str, dtype: DType, value: impl std::fmt::Display) -> OnnxError {
    OnnxError::Encoding {
        tensor: name.into(),
        dtype,
        found: format!("the number {value} in {}", typed_list(dtype)),
        expected: "numbers that the type can hold",
    }
}

/// Everything that shares `int32_data`: integers up to 32 bits, bool, and the bits of narrow floats.
fn from_int32(
    name: &str,
    dtype: DType,
    shape: &[usize],
    count: usize,
    data: &[i32],
) -> Result<Tensor, OnnxError> {
    let check = |low: i32, high: i32| {
        let outside = data.iter().find(|&&v| v < low || v > high);
        outside.map_or(Ok(()), |v| Err(out_of_range(name, dtype, v)))
    };
    let built = match dtype {
        DType::I32 => Tensor::from_vec(shape, data.to_vec()),
        DType::I16 => {
            check(i16::MIN.into(), i16::MAX.into())?;
            Tensor::from_vec(shape, data.iter().map(|&v| v as i16).collect())
        }
        DType::Bool => Tensor::from_pods(dtype, shape, data.iter().map(|&v| u8::from(v != 0)).collect()),
        DType::U16 => {
            check(0, u16::MAX.into())?;
            Tensor::from_vec(shape, data.iter().map(|&v| v as u16).collect())
        }
        // Bits, which writers fill with zeros or with the sign.
        DType::F16 | DType::BF16 => {
            check(i16::MIN.into(), u16::MAX.into())?;
            Tensor::from_pods(dtype, shape, data.iter().map(|&v| v as u16).collect())
        }
        DType::I8 => {
            check(i8::MIN.into(), i8::MAX.into())?;
            Tensor::from_vec(shape, data.iter().map(|&v| v as i8).collect())
        }
        DType::U8 => {
            check(0, u8::MAX.into())?;
            Tensor::from_vec(shape, data.iter().map(|&v| v as u8).collect())
        }
        _ => {
            check(i8::MIN.into(), u8::MAX.into())?;
            let bytes = data.iter().map(|&v| v as u8);
            let elements = if per_byte(dtype) > 1 { unpack(dtype, bytes, count) } else { bytes.collect() };
            Tensor::from_pods(dtype, shape, elements)
        }
    };
    built.map_err(|cause| OnnxError::Tensor { tensor: name.into(), cause })
}

/// Lets a tensor own the bytes of a message, so that writing a model does not copy its weights.
struct Owner(Tensor);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.raw_bytes()
    }
}

/// The message that holds a tensor: `raw_data`, or `string_data` for text. Bytes are shared, not copied.
pub fn tensor_to_proto(name: &str, tensor: &Tensor) -> TensorProto {
    let dtype = tensor.dtype();
    let mut proto = TensorProto {
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        data_type: Some(dtype_to_onnx(dtype)),
        name: (!name.is_empty()).then(|| name.into()),
        ..TensorProto::default()
    };
    if let Ok(strings) = tensor.as_strings() {
        proto.string_data = strings.iter().map(|s| Bytes::copy_from_slice(s.as_bytes())).collect();
    } else if per_byte(dtype) > 1 {
        proto.raw_data = Some(pack(dtype, tensor.raw_bytes()).into());
    } else {
        proto.raw_data = Some(Bytes::from_owner(Owner(tensor.clone())));
    }
    proto
}
