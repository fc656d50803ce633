//! `.npz`: a zip archive of `.npy` files, stored or deflated.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use isotrace_onnx::MappedFile;
use zip::ZipWriter;

use crate::archive::{Piece, stored};
use crate::source::Entry;
use crate::trace::write_error;
use crate::write::{Tensors, write_all};
use crate::{TraceError, npy};

/// The arrays, in the order of the directory; a deflated one is inflated each time it is asked for.
pub fn entries(file: &Arc<MappedFile>, bytes: &Bytes, pieces: Vec<Piece>) -> Result<Vec<Entry>, TraceError> {
    let mut arrays = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let Some(name) = piece.name.strip_suffix(".npy").map(str::to_owned) else {
            return Err(TraceError::Format {
                found: format!("a zip archive with {:?}", piece.name),
                remedy: "an .npz holds nothing but .npy files; write it again with numpy.savez",
            });
        };
        let info = if piece.stored {
            let (start, end) = (piece.start as usize, (piece.start + piece.length) as usize);
            Some(npy::info(&name, &bytes.slice(start..end))?)
        } else {
            None
        };
        let (file, kept) = (Arc::clone(file), name.clone());
        arrays.push(Entry::new(name, info, move || npy::read(&kept, &piece.bytes(&file)?)));
    }
    Ok(arrays)
}

/// Writes an archive of stored arrays: what is compared is read more often than written.
pub fn write<T: Tensors + ?Sized>(
    path: &Path,
    file: &mut (impl Write + io::Seek),
    tensors: &T,
) -> Result<(), TraceError> {
    // The archive's own errors are the system's: it is given nothing that it could refuse.
    let io = |cause: zip::result::ZipError| write_error("write", path, cause.into());
    let mut archive = ZipWriter::new(file);
    for at in 0..tensors.count() {
        let tensor = tensors.get(at)?;
        let (head, data) = npy::write("an .npz file", tensors.name(at), &tensor)?;
        let options = stored(data.len() as u64 + head.len() as u64);
        archive.start_file(format!("{}.npy", tensors.name(at)), options).map_err(io)?;
        write_all(path, &mut archive, &[&head, &data])?;
    }
    archive.finish().map_err(io)?;
    Ok(())
}
