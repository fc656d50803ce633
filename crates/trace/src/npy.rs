//! `.npy`: one array.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use isotrace_onnx::MappedFile;
use isotrace_tensor::{DType, Tensor, element_count};

use crate::source::{Entry, Info};
use crate::{TraceError, header};

/// The one array of a file.
pub fn entry(name: &str, file: &Arc<MappedFile>, bytes: &Bytes) -> Result<Entry, TraceError> {
    let info = info(name, bytes)?;
    let (file, kept) = (Arc::clone(file), name.to_owned());
    Ok(Entry::new(name, Some(info), move || read(&kept, &file.whole()?)))
}

/// Type and shape, from the header alone; the length of the data is checked with it.
pub fn info(name: &str, bytes: &Bytes) -> Result<Info, TraceError> {
    let header = header::parse(bytes)?;
    info_of(name, &header, bytes.len() - header.length)
}

/// Type and shape of an array of `found` bytes.
pub fn info_of(name: &str, header: &header::Header, found: usize) -> Result<Info, TraceError> {
    let kind = check(name, header, found)?;
    let dtype = match kind {
        Kind::Plain { dtype, .. } => dtype,
        Kind::Unicode { .. } | Kind::Text { .. } => DType::String,
    };
    Ok(Info::of(dtype, &header.shape))
}

/// What the elements are; how many bytes they take is checked against the bytes that are there.
fn check(name: &str, header: &header::Header, found: usize) -> Result<Kind, TraceError> {
    let refuse = |remedy| TraceError::ElementType { name: name.into(), found: header.descr.clone(), remedy };
    let kind = kind(&header.descr).map_err(refuse)?;
    let count =
        element_count(&header.shape).map_err(|cause| TraceError::Tensor { name: name.into(), cause })?;
    let needed = count.checked_mul(kind.width()).filter(|&n| n == found);
    let problem = || {
        format!(
            "array {name:?} of {} {:?} needs {count} elements of {} bytes, found {found} bytes",
            header.descr,
            header.shape,
            kind.width(),
        )
    };
    match needed {
        Some(_) => Ok(kind),
        None => Err(TraceError::Damaged { format: ".npy", problem: problem() }),
    }
}

/// Reads an array, sharing the bytes where they are little-endian, aligned and in C order.
pub fn read(name: &str, bytes: &Bytes) -> Result<Tensor, TraceError> {
    let header = header::parse(bytes)?;
    build(name, &header, &bytes.slice(header.length..))
}

/// An array from its description and its bytes.
pub fn build(name: &str, header: &header::Header, data: &Bytes) -> Result<Tensor, TraceError> {
    let refuse = |remedy| TraceError::ElementType { name: name.into(), found: header.descr.clone(), remedy };
    let kind = check(name, header, data.len())?;
    // Fortran order is C order of the axes reversed.
    let stored: Vec<usize> = if header.fortran_order {
        header.shape.iter().rev().copied().collect()
    } else {
        header.shape.clone()
    };
    let built = match kind {
        Kind::Plain { dtype, part, swapped } => {
            let data = if swapped { swap(data, part) } else { data.clone() };
            let data = if dtype == DType::Bool && data.iter().any(|&b| b > 1) {
                data.iter().map(|&b| u8::from(b != 0)).collect()
            } else {
                data
            };
            Tensor::from_bytes(dtype, &stored, data)
        }
        Kind::Unicode { characters, swapped } => {
            let texts = texts(data, 4 * characters, |element| {
                let code =
                    |c: &[u8; 4]| if swapped { u32::from_be_bytes(*c) } else { u32::from_le_bytes(*c) };
                let (codes, _) = element.as_chunks::<4>();
                let text: Option<String> = codes.iter().map(|c| char::from_u32(code(c))).collect();
                text.map(|t| t.trim_end_matches('\0').to_owned())
            });
            Tensor::from_strings(
                &stored,
                texts.ok_or_else(|| refuse("it holds codes that are no characters"))?,
            )
        }
        Kind::Text { bytes } => {
            let texts = texts(data, bytes, |element| {
                let end = element.iter().rposition(|&b| b != 0).map_or(0, |at| at + 1);
                std::str::from_utf8(&element[..end]).ok().map(str::to_owned)
            });
            Tensor::from_strings(
                &stored,
                texts.ok_or_else(|| refuse("it holds bytes that are no UTF-8 text"))?,
            )
        }
    };
    let tensor = built.map_err(|cause| TraceError::Tensor { name: name.into(), cause })?;
    if header.fortran_order && header.shape.len() > 1 {
        let reversed: Vec<usize> = (0..header.shape.len()).rev().collect();
        return tensor.permute(&reversed).map_err(|cause| TraceError::Tensor { name: name.into(), cause });
    }
    Ok(tensor)
}

enum Kind {
    Plain {
        dtype: DType,
        /// Bytes of what has a byte order: half of a complex number.
        part: usize,
        swapped: bool,
    },
    Unicode {
        characters: usize,
        swapped: bool,
    },
    Text {
        bytes: usize,
    },
}

impl Kind {
    fn width(&self) -> usize {
        match self {
            Self::Plain { dtype, .. } => dtype.size(),
            Self::Unicode { characters, .. } => 4 * characters,
            Self::Text { bytes } => *bytes,
        }
    }
}

/// What a type string means, or what to do about it.
fn kind(descr: &str) -> Result<Kind, &'static str> {
    const UNKNOWN: &str = "convert it to a plain number type before saving";
    /// Longest text element, in characters: enough for any, and far from overflow.
    const LONGEST_TEXT: usize = 1 << 28;
    if descr.starts_with('[') {
        return Err("structured arrays are no tensors; save each field on its own");
    }
    let (order, rest) = descr.split_at_checked(1).ok_or(UNKNOWN)?;
    let (letter, size) = rest.split_at_checked(1).ok_or(UNKNOWN)?;
    let swapped = match order {
        "<" | "|" | "=" => false,
        ">" => true,
        _ => return Err(UNKNOWN),
    };
    let text_size = || size.parse::<usize>().ok().filter(|&n| n <= LONGEST_TEXT).ok_or(UNKNOWN);
    let (dtype, part) = match (letter, size) {
        ("f", "2") => (DType::F16, 2),
        ("f", "4") => (DType::F32, 4),
        ("f", "8") => (DType::F64, 8),
        ("f", _) => return Err("extended precision differs between machines; save it as float64"),
        ("i", "1") => (DType::I8, 1),
        ("i", "2") => (DType::I16, 2),
        ("i", "4") => (DType::I32, 4),
        ("i", "8") => (DType::I64, 8),
        ("u", "1") => (DType::U8, 1),
        ("u", "2") => (DType::U16, 2),
        ("u", "4") => (DType::U32, 4),
        ("u", "8") => (DType::U64, 8),
        ("b", "1") => (DType::Bool, 1),
        ("c", "8") => (DType::C64, 4),
        ("c", "16") => (DType::C128, 8),
        ("U", _) => return Ok(Kind::Unicode { characters: text_size()?, swapped }),
        ("S" | "a", _) => return Ok(Kind::Text { bytes: text_size()? }),
        ("V", "1" | "2") => {
            return Err("NumPy saves bfloat16 and 8-bit floats of ml_dtypes as nameless bytes; \
                        save them as .safetensors, or as float32");
        }
        ("O", _) => return Err("it is a Python pickle, which is never opened; save it with a number type"),
        ("M" | "m", _) => return Err("times are no tensors; save them as int64"),
        _ => return Err(UNKNOWN),
    };
    Ok(Kind::Plain { dtype, part, swapped })
}

/// Bytes in the other order; `part` bytes have one.
pub fn swap(data: &[u8], part: usize) -> Bytes {
    let mut data = data.to_vec();
    data.chunks_exact_mut(part).for_each(<[u8]>::reverse);
    data.into()
}

fn texts(data: &[u8], width: usize, decode: impl Fn(&[u8]) -> Option<String>) -> Option<Vec<String>> {
    // An array of empty texts may have width 0; its count then comes from the shape, and there is nothing to read.
    if width == 0 { Some(vec![]) } else { data.chunks_exact(width).map(decode).collect() }
}

/// Header and data of a tensor as a `.npy` file; `format` is what to call it in messages.
pub fn write<'t>(
    format: &'static str,
    name: &str,
    tensor: &'t Tensor,
) -> Result<(Vec<u8>, Cow<'t, [u8]>), TraceError> {
    let refuse = |why, instead| TraceError::Inexpressible {
        format,
        name: name.into(),
        dtype: tensor.dtype(),
        why,
        instead,
    };
    let descr = match tensor.dtype() {
        DType::F64 => "<f8",
        DType::F32 => "<f4",
        DType::F16 => "<f2",
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        DType::I16 => "<i2",
        DType::I8 => "|i1",
        DType::U64 => "<u8",
        DType::U32 => "<u4",
        DType::U16 => "<u2",
        DType::U8 => "|u1",
        DType::Bool => "|b1",
        DType::C64 => "<c8",
        DType::C128 => "<c16",
        DType::String => {
            let texts =
                tensor.as_strings().map_err(|cause| TraceError::Tensor { name: name.into(), cause })?;
            if texts.iter().any(|t| t.ends_with('\0')) {
                return Err(refuse(" that ends in a NUL character", "a folder of .pb files"));
            }
            let width = texts.iter().map(|t| t.chars().count()).max().unwrap_or(0).max(1);
            let mut data = Vec::new();
            for text in texts {
                let start = data.len();
                text.chars().for_each(|c| data.extend(u32::from(c).to_le_bytes()));
                data.resize(start + 4 * width, 0);
            }
            return Ok((header::write(&format!("<U{width}"), tensor.shape()), Cow::Owned(data)));
        }
        DType::BF16
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1 => return Err(refuse("", "a .safetensors file")),
        DType::I4 | DType::I2 | DType::U4 | DType::U2 => return Err(refuse("", "a folder of .pb files")),
    };
    Ok((header::write(descr, tensor.shape()), Cow::Borrowed(tensor.raw_bytes())))
}
