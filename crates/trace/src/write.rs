use std::io::Write as _;
use std::path::Path;

use isotrace_onnx::{OnnxError, replace_file, write_tensor_pb};
use isotrace_tensor::Tensor;
use rustc_hash::FxHashSet;

use crate::source::Info;
use crate::{TraceError, folder, npy, npz, safe};

/// A format to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A zip archive of `.npy` files, uncompressed.
    Npz,
    /// One `.safetensors` file.
    Safetensors,
    /// A folder with a `.npy` file for each tensor.
    NpyFolder,
    /// A folder with an ONNX `.pb` file for each tensor: holds every element type.
    PbFolder,
}

impl Format {
    /// The format that a path asks for: by its extension, and without a known one a folder of `.npy` files.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some("npz") => Self::Npz,
            Some("safetensors") => Self::Safetensors,
            _ => Self::NpyFolder,
        }
    }
}

/// Writes tensors in the format that the path asks for ([`Format::of`]).
pub fn write_tensors(path: impl AsRef<Path>, tensors: &[(String, Tensor)]) -> Result<(), TraceError> {
    let path = path.as_ref();
    write_tensors_as(path, Format::of(path), tensors)
}

/// Writes tensors in a format, whole or not at all: a file replaces what was there; a folder must be new or empty.
pub fn write_tensors_as(
    path: impl AsRef<Path>,
    format: Format,
    tensors: &[(String, Tensor)],
) -> Result<(), TraceError> {
    let path = path.as_ref();
    let mut seen = FxHashSet::default();
    if let Some((name, _)) = tensors.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(TraceError::Duplicate { name: name.clone() }.in_file(path));
    }
    match format {
        Format::Npz => npz_file(path, tensors),
        Format::Safetensors => safetensors_file(path, tensors),
        Format::NpyFolder | Format::PbFolder => whole_folder(path, format, tensors),
    }
    .map_err(|e| e.in_file(path))
}

fn npz_file(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), TraceError> {
    let mut refused = None;
    let written = replace_file(path, |file| match npz::write(file, tensors) {
        Ok(written) => written,
        Err(error) => {
            refused = Some(error);
            Err(std::io::Error::other("refused"))
        }
    });
    match refused {
        Some(error) => Err(error),
        None => Ok(written?),
    }
}

fn safetensors_file(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), TraceError> {
    let pieces: Vec<safe::Piece> = tensors
        .iter()
        .map(|(name, tensor)| safe::piece(name, &Info::of(tensor.dtype(), tensor.shape())))
        .collect::<Result<_, _>>()?;
    replace_file(path, |file| {
        let (header, order) = safe::header(&pieces, &[])?;
        file.write_all(&header)?;
        order.into_iter().try_for_each(|at| file.write_all(&safe::content(&tensors[at].1)))
    })?;
    Ok(())
}

/// A folder beside the target, on the same file system, that goes away with whatever is left in it.
fn temporary(path: &Path) -> Result<tempfile::TempDir, TraceError> {
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".isotrace-");
    #[cfg(unix)]
    {
        // As if made by an ordinary mkdir: the folder itself may become the target.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o777));
    }
    builder.tempdir_in(parent).map_err(|cause| TraceError::Io { action: "write", path: path.into(), cause })
}

fn whole_folder(path: &Path, format: Format, tensors: &[(String, Tensor)]) -> Result<(), TraceError> {
    if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(TraceError::Occupied { path: path.into() });
    }
    let folder = temporary(path)?;
    for (name, tensor) in tensors {
        let file = folder.path().join(folder::encode(name));
        if format == Format::PbFolder {
            let file = file.with_added_extension("pb");
            write_tensor_pb(&file, name, tensor)?;
        } else {
            let (head, data) = npy::write("a .npy file", name, tensor)?;
            replace_file(&file.with_added_extension("npy"), |out| {
                out.write_all(&head)?;
                out.write_all(&data)
            })?;
        }
    }
    let io = |cause| TraceError::Onnx(OnnxError::Io { action: "write", path: path.into(), cause });
    // An empty folder gives way to a rename on Unix, but not everywhere.
    if path.is_dir() {
        std::fs::remove_dir(path).map_err(io)?;
    }
    std::fs::rename(folder.path(), path).map_err(io)
}
