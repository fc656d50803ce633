//! Writing PyTorch's checkpoints: the zip archive that `torch.save` writes, of a dictionary from names to tensors.
//!
//! Only what `torch.load(weights_only=True)` allows is in the pickle. Each tensor has a storage of its own, in C order,
//! aligned to 64 bytes as PyTorch aligns them (`torch/csrc/jit/serialization` and `torch/serialization.py` of 2.15 were
//! read for the entries). The pickle comes first and needs types and shapes alone; tensors are read one at a time.

use std::io::{self, Write};
use std::path::Path;

use isotrace_tensor::{DType, element_count};
use zip::ZipWriter;

use crate::TraceError;
use crate::archive::stored;
use crate::source::Info;
use crate::trace::write_error;
use crate::write::{Tensors, write_all};

/// How PyTorch rebuilds a tensor of a type.
enum Rebuilt {
    /// From a storage of this class.
    Typed(&'static str),
    /// From bytes, as this type.
    Untyped(&'static str),
}

fn rebuilt(dtype: DType) -> Option<Rebuilt> {
    use Rebuilt::{Typed, Untyped};
    Some(match dtype {
        DType::F64 => Typed("DoubleStorage"),
        DType::F32 => Typed("FloatStorage"),
        DType::F16 => Typed("HalfStorage"),
        DType::BF16 => Typed("BFloat16Storage"),
        DType::I64 => Typed("LongStorage"),
        DType::I32 => Typed("IntStorage"),
        DType::I16 => Typed("ShortStorage"),
        DType::I8 => Typed("CharStorage"),
        DType::U8 => Typed("ByteStorage"),
        DType::Bool => Typed("BoolStorage"),
        DType::C64 => Typed("ComplexFloatStorage"),
        DType::C128 => Typed("ComplexDoubleStorage"),
        DType::F8E4M3FN => Untyped("float8_e4m3fn"),
        DType::F8E4M3FNUZ => Untyped("float8_e4m3fnuz"),
        DType::F8E5M2 => Untyped("float8_e5m2"),
        DType::F8E5M2FNUZ => Untyped("float8_e5m2fnuz"),
        DType::F8E8M0 => Untyped("float8_e8m0fnu"),
        DType::U16 => Untyped("uint16"),
        DType::U32 => Untyped("uint32"),
        DType::U64 => Untyped("uint64"),
        DType::String | DType::F4E2M1 | DType::I4 | DType::I2 | DType::U4 | DType::U2 => return None,
    })
}

/// A pickle of protocol 2.
struct Pickle(Vec<u8>);

impl Pickle {
    fn op(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A class or function: `module` and `name`.
    fn global(&mut self, module: &str, name: &str) {
        self.op(format!("c{module}\n{name}\n").as_bytes());
    }

    fn text(&mut self, text: &str) -> Result<(), TraceError> {
        let length = u32::try_from(text.len()).map_err(|_| TraceError::Damaged {
            format: "PyTorch",
            problem: format!("a name of {} bytes is too long for it", text.len()),
        })?;
        self.op(b"X");
        self.op(&length.to_le_bytes());
        self.op(text.as_bytes());
        Ok(())
    }

    fn number(&mut self, n: usize) {
        match n {
            0..=0xff => self.op(&[b'K', n as u8]),
            0x100..=0xffff => {
                self.op(b"M");
                self.op(&(n as u16).to_le_bytes());
            }
            0x1_0000..=0x7fff_ffff => {
                self.op(b"J");
                self.op(&(n as u32).to_le_bytes());
            }
            _ => {
                // The ninth byte keeps the sign.
                self.op(&[0x8a, 9]);
                self.op(&(n as u64).to_le_bytes());
                self.op(&[0]);
            }
        }
    }

    fn numbers(&mut self, numbers: &[usize]) {
        self.op(b"(");
        for &n in numbers {
            self.number(n);
        }
        self.op(b"t");
    }

    /// The call that rebuilds a tensor from storage `key`.
    fn tensor(&mut self, key: usize, info: &Info, how: &Rebuilt, count: usize) -> Result<(), TraceError> {
        let (function, class, length) = match how {
            Rebuilt::Typed(class) => ("_rebuild_tensor_v2", ("torch", *class), count),
            Rebuilt::Untyped(_) => {
                ("_rebuild_tensor_v3", ("torch.storage", "UntypedStorage"), count * info.dtype.size())
            }
        };
        self.global("torch._utils", function);
        self.op(b"((");
        self.text("storage")?;
        self.global(class.0, class.1);
        self.text(&key.to_string())?;
        self.text("cpu")?;
        self.number(length);
        self.op(b"tQ");
        // Where it begins, and how it lies: an axis of no elements steps as one of one does.
        self.number(0);
        self.numbers(&info.shape);
        let some: Vec<usize> = info.shape.iter().map(|&n| n.max(1)).collect();
        self.numbers(&isotrace_tensor::strides(&some));
        // No gradient, no hooks.
        self.op(b"\x89");
        self.global("collections", "OrderedDict");
        self.op(b")R");
        if let Rebuilt::Untyped(dtype) = how {
            self.global("torch", dtype);
        }
        self.op(b"tR");
        Ok(())
    }
}

/// What a tensor will be: its description, its class and its size in bytes.
fn planned(name: &str, info: &Info) -> Result<(Rebuilt, usize, u64), TraceError> {
    let how = rebuilt(info.dtype).ok_or_else(|| TraceError::Inexpressible {
        format: "a PyTorch file",
        name: name.into(),
        dtype: info.dtype,
        why: "",
        instead: match info.dtype {
            DType::String => "an .npz file",
            DType::F4E2M1 => "a .safetensors file",
            _ => "a folder of .pb files",
        },
    })?;
    let error = |cause| TraceError::Tensor { name: name.into(), cause };
    let count = element_count(&info.shape).map_err(error)?;
    Ok((how, count, (count * info.dtype.size()) as u64))
}

/// Writes a dictionary of tensors.
pub fn write<T: Tensors + ?Sized>(
    path: &Path,
    file: &mut (impl Write + io::Seek),
    tensors: &T,
) -> Result<(), TraceError> {
    // The archive's own errors are the system's: it is given nothing that it could refuse.
    let io = |cause: zip::result::ZipError| write_error("write", path, cause.into());
    let mut pickle = Pickle(b"\x80\x02}(".to_vec());
    let mut sizes = Vec::with_capacity(tensors.count());
    for at in 0..tensors.count() {
        let (name, info) = (tensors.name(at), tensors.info(at)?);
        let (how, count, bytes) = planned(name, &info)?;
        pickle.text(name)?;
        pickle.tensor(at, &info, &how, count)?;
        sizes.push((info, bytes));
    }
    pickle.op(b"u.");

    let mut archive = ZipWriter::new(file);
    let start = |archive: &mut ZipWriter<_>, name: &str, bytes: u64| {
        archive.start_file(format!("archive/{name}"), stored(bytes)).map_err(io)
    };
    let facts: [(&str, &[u8]); 5] = [
        ("data.pkl", &pickle.0),
        (".format_version", b"1"),
        (".storage_alignment", b"64"),
        ("byteorder", b"little"),
        ("version", b"3\n"),
    ];
    for (name, content) in facts {
        start(&mut archive, name, content.len() as u64)?;
        write_all(path, &mut archive, &[content])?;
    }
    for (at, (info, bytes)) in sizes.iter().enumerate() {
        let tensor = tensors.get(at)?;
        if tensor.dtype() != info.dtype || tensor.raw_bytes().len() as u64 != *bytes {
            return Err(TraceError::Damaged {
                format: "source",
                problem: format!("tensor {:?} changed while it was read", tensors.name(at)),
            });
        }
        start(&mut archive, &format!("data/{at}"), *bytes)?;
        write_all(path, &mut archive, &[tensor.raw_bytes()])?;
    }
    archive.finish().map_err(io)?;
    Ok(())
}
