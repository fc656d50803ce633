use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use isotrace_onnx::{WholePages, write_tensor_pb};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashSet;

use crate::source::Info;
use crate::trace::record::{Header, Keeps, Producer, Role, Value};
use crate::trace::{Options, Writer, write_error};
use crate::{Source, TraceError, folder, npy, npz, polygraphy, raw, safe, torch_write};

/// A format to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// One array.
    Npy,
    /// A zip archive of `.npy` files, uncompressed.
    Npz,
    /// One `.safetensors` file.
    Safetensors,
    /// A checkpoint of PyTorch: a zip archive of a dictionary of tensors.
    Torch,
    /// A file of one ONNX `TensorProto`.
    Pb,
    /// A folder with a `.npy` file for each tensor.
    NpyFolder,
    /// A folder with an ONNX `.pb` file for each tensor: holds every element type.
    PbFolder,
    /// Outputs as Polygraphy saves them: JSON with `.npy` files in base64.
    Polygraphy,
    /// The elements one after the other, and a `.json` beside them that says what they are.
    Raw,
    /// A trace: holds every element type.
    Trace,
    /// A trace of digests: statistics and signatures, no elements.
    Digest,
}

impl Format {
    /// The format that a path asks for: by its extension, and without a known one a folder of `.npy` files.
    pub fn of(path: &Path) -> Self {
        Self::by_extension(path).unwrap_or(Self::NpyFolder)
    }

    /// The format of files with this extension, if it is known.
    pub fn by_extension(path: &Path) -> Option<Self> {
        Some(match path.extension().and_then(|e| e.to_str())? {
            "npy" => Self::Npy,
            "npz" => Self::Npz,
            "safetensors" => Self::Safetensors,
            "pt" | "pth" => Self::Torch,
            "pb" => Self::Pb,
            "trace" => Self::Trace,
            "json" => Self::Polygraphy,
            "bin" | "raw" => Self::Raw,
            _ => return None,
        })
    }
}

/// Tensors to be written, one after the other.
pub trait Tensors {
    /// How many.
    fn count(&self) -> usize;
    /// The name of one.
    fn name(&self, at: usize) -> &str;
    /// Type and shape of one.
    fn info(&self, at: usize) -> Result<Info, TraceError>;
    /// One of them.
    fn get(&self, at: usize) -> Result<Tensor, TraceError>;
}

impl Tensors for [(String, Tensor)] {
    fn count(&self) -> usize {
        self.len()
    }

    fn name(&self, at: usize) -> &str {
        &self[at].0
    }

    fn info(&self, at: usize) -> Result<Info, TraceError> {
        Ok(Info::of(self[at].1.dtype(), self[at].1.shape()))
    }

    fn get(&self, at: usize) -> Result<Tensor, TraceError> {
        Ok(self[at].1.clone())
    }
}

/// Some tensors of a source, read when their turn comes.
pub struct Selection<'a> {
    /// Where they are.
    pub source: &'a Source,
    /// Which, in the order in which they are written.
    pub names: Vec<&'a str>,
    /// Whether floats narrower than f32 become f32, which holds each of their values.
    pub widen: bool,
    /// Told how many were read; says whether to go on.
    pub progress: Option<&'a dyn Fn(usize) -> bool>,
}

impl Selection<'_> {
    fn widened(&self, dtype: DType) -> DType {
        let narrow = self.widen && dtype.is_float() && dtype.size() < 4;
        if narrow { DType::F32 } else { dtype }
    }
}

impl Tensors for Selection<'_> {
    fn count(&self) -> usize {
        self.names.len()
    }

    fn name(&self, at: usize) -> &str {
        self.names[at]
    }

    fn info(&self, at: usize) -> Result<Info, TraceError> {
        let info = self.source.info(self.names[at])?;
        Ok(Info::of(self.widened(info.dtype), &info.shape))
    }

    fn get(&self, at: usize) -> Result<Tensor, TraceError> {
        if self.progress.is_some_and(|go_on| !go_on(at)) {
            return Err(TraceError::Interrupted);
        }
        let tensor = self.source.get(self.names[at])?;
        let wide = self.widened(tensor.dtype());
        if wide == tensor.dtype() {
            return Ok(tensor);
        }
        tensor.cast(wide).map_err(|cause| TraceError::Tensor { name: self.names[at].into(), cause })
    }
}

/// Writes tensors in the format that the path asks for ([`Format::of`]).
pub fn write_tensors(path: impl AsRef<Path>, tensors: &[(String, Tensor)]) -> Result<(), TraceError> {
    let path = path.as_ref();
    write_tensors_as(path, Format::of(path), tensors)
}

/// Writes tensors in a format, whole or not at all: a file replaces what was there; a folder must be new or empty.
///
/// One tensor at a time is read, so that tensors of a [`Selection`] need not fit into memory together.
pub fn write_tensors_as<T: Tensors + ?Sized>(
    path: impl AsRef<Path>,
    format: Format,
    tensors: &T,
) -> Result<(), TraceError> {
    let path = path.as_ref();
    let mut seen = FxHashSet::default();
    if let Some(at) = (0..tensors.count()).find(|&at| !seen.insert(tensors.name(at))) {
        return Err(TraceError::Duplicate { name: tensors.name(at).into() }.in_file(path));
    }
    match format {
        Format::Npy | Format::Pb if tensors.count() != 1 => Err(TraceError::NotOne {
            format: if format == Format::Npy { "a .npy file" } else { "a .pb file" },
            count: tensors.count(),
        }),
        Format::Npy => whole_file(path, |file| {
            let tensor = tensors.get(0)?;
            let (head, data) = npy::write("a .npy file", tensors.name(0), &tensor)?;
            write_all(path, file, &[&head, &data])
        }),
        Format::Pb => Ok(write_tensor_pb(path, tensors.name(0), &tensors.get(0)?)?),
        Format::Npz => whole_file(path, |file| npz::write(path, file, tensors)),
        Format::Safetensors => safetensors_file(path, tensors),
        Format::Torch => whole_file(path, |file| torch_write::write(path, file, tensors)),
        Format::Polygraphy => whole_file(path, |file| polygraphy::write(path, file, tensors)),
        Format::Raw => raw::write(path, tensors),
        Format::NpyFolder | Format::PbFolder => {
            whole_folder(path, |folder| tensor_files(folder, format, tensors))
        }
        Format::Trace | Format::Digest => whole_folder(path, |folder| trace(folder, format, tensors)),
    }
    .map_err(|e| e.in_file(path))
}

/// Bytes to a file, with the error of the system in words.
pub fn write_all(path: &Path, file: &mut impl std::io::Write, pieces: &[&[u8]]) -> Result<(), TraceError> {
    let written = pieces.iter().try_for_each(|piece| file.write_all(piece));
    written.map_err(|cause| write_error("write", path, cause))
}

fn safetensors_file<T: Tensors + ?Sized>(path: &Path, tensors: &T) -> Result<(), TraceError> {
    let pieces: Vec<safe::Piece> = (0..tensors.count())
        .map(|at| safe::piece(tensors.name(at), &tensors.info(at)?))
        .collect::<Result<_, _>>()?;
    let io = |cause| write_error("write", path, cause);
    whole_file(path, |file| {
        let (header, order) = safe::header(&pieces, &[]).map_err(io)?;
        write_all(path, file, &[&header])?;
        order.into_iter().try_for_each(|at| {
            let tensor = tensors.get(at)?;
            let content = safe::content(&tensor);
            if content.len() as u64 != pieces[at].bytes {
                return Err(safe::damaged(format!(
                    "tensor {:?} changed while it was read",
                    tensors.name(at)
                )));
            }
            write_all(path, file, &[&content])
        })
    })
}

fn trace<T: Tensors + ?Sized>(folder: &Path, format: Format, tensors: &T) -> Result<(), TraceError> {
    let producer = Producer { name: "isotrace convert".into(), version: env!("CARGO_PKG_VERSION").into() };
    let keeps = if format == Format::Digest { Keeps::Digest } else { Keeps::Data };
    let mut writer =
        Writer::create(folder, &Header { producer, keeps, ..Header::default() }, Options::default())?;
    for at in 0..tensors.count() {
        writer.value(Value::new(tensors.name(at), Role::Intermediate), &tensors.get(at)?)?;
    }
    writer.finish()
}

/// The folder around a path, on the same file system.
fn around(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// Fills a file beside the target, which goes away if that fails; then it takes the target's place.
pub fn whole_file(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<WholePages>) -> Result<(), TraceError>,
) -> Result<(), TraceError> {
    let io = |cause| write_error("write", path, cause);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".isotrace-");
    #[cfg(unix)]
    {
        // As if created by an ordinary open: readable by whom the user's umask allows.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let (file, temporary) = builder.tempfile_in(around(path)).map_err(io)?.into_parts();
    let mut writer = BufWriter::with_capacity(1 << 16, WholePages::new(file));
    fill(&mut writer)?;
    writer.flush().map_err(io)?;
    drop(writer);
    temporary.persist(path).map_err(|e| io(e.error))
}

/// Fills a folder beside the target, which goes away if that fails; then it takes the target's place.
fn whole_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<(), TraceError>) -> Result<(), TraceError> {
    let io = |cause| write_error("write", path, cause);
    if path.is_file() || std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(TraceError::Occupied { path: path.into() });
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".isotrace-");
    #[cfg(unix)]
    {
        // As if made by an ordinary mkdir: the folder itself may become the target.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o777));
    }
    let folder = builder.tempdir_in(around(path)).map_err(io)?;
    fill(folder.path())?;
    // An empty folder gives way to a rename on Unix, but not everywhere.
    if path.is_dir() {
        std::fs::remove_dir(path).map_err(io)?;
    }
    std::fs::rename(folder.path(), path).map_err(io)
}

fn tensor_files<T: Tensors + ?Sized>(folder: &Path, format: Format, tensors: &T) -> Result<(), TraceError> {
    for at in 0..tensors.count() {
        let tensor = tensors.get(at)?;
        let name = tensors.name(at);
        let file = folder.join(folder::encode(name));
        if format == Format::PbFolder {
            write_tensor_pb(file.with_added_extension("pb"), name, &tensor)?;
        } else {
            let (head, data) = npy::write("a .npy file", name, &tensor)?;
            let file = file.with_added_extension("npy");
            let mut out = File::create(&file).map_err(|cause| write_error("write", &file, cause))?;
            write_all(&file, &mut out, &[&head, &data])?;
        }
    }
    Ok(())
}
