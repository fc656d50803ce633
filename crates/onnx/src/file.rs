//! Files as shared bytes, and files written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::Bytes;

use crate::OnnxError;

/// Files up to this size are read; mapping them would cost more than it saves.
const READ_UP_TO: u64 = 1 << 16;

/// The bytes of a file, mapped where it is large: pages are read when touched and never counted twice.
///
/// Refuses everything but regular files, so that a pipe cannot block and a device cannot feed without end.
pub fn file_bytes(path: &Path) -> Result<Bytes, OnnxError> {
    let io = |action| move |cause| OnnxError::Io { action, path: path.to_path_buf(), cause };
    let kind = fs::metadata(path).map_err(io("read"))?;
    if !kind.is_file() {
        let (found, remedy) = if kind.is_dir() {
            ("a folder", "name the file inside it")
        } else {
            ("a pipe or device", "copy its content to a file first")
        };
        return Err(OnnxError::NotAFile { path: path.to_path_buf(), found, remedy });
    }
    let file = File::open(path).map_err(io("open"))?;
    if kind.len() <= READ_UP_TO {
        let mut data = Vec::with_capacity(kind.len() as usize);
        // The file may grow under our hands; what is read then is what was there when it was measured.
        (&file).take(READ_UP_TO).read_to_end(&mut data).map_err(io("read"))?;
        return Ok(Bytes::from(data));
    }
    map(&file).map_err(io("map"))
}

#[expect(unsafe_code, reason = "mapping a file has no safe form")]
fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: the map is private and read-only, and lives as long as the `Bytes` that own it. That nobody
    // changes the file meanwhile cannot be enforced by any program that maps weights; our own writers replace
    // files by renaming, which leaves the mapped file as it was.
    let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(file)? };
    Ok(Bytes::from_owner(map))
}

/// Writes a file through `fill` into a temporary file beside it, then renames: readers see the old file or the
/// new one, never half of one.
pub fn replace_file(
    path: &Path,
    fill: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>,
) -> Result<(), OnnxError> {
    let io = |cause| OnnxError::Io { action: "write", path: path.to_path_buf(), cause };
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".isotrace-");
    #[cfg(unix)]
    {
        // As if created by an ordinary open: readable by whom the user's umask allows.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let (file, temporary) = builder.tempfile_in(folder).map_err(io)?.into_parts();
    let mut writer = io::BufWriter::with_capacity(1 << 16, file);
    fill(&mut writer).map_err(io)?;
    writer.flush().map_err(io)?;
    drop(writer);
    temporary.persist(path).map_err(|e| io(e.error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_files_read_alike() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0usize, 1, 65_536, 65_537, 300_000] {
            let data: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let path = folder.path().join(size.to_string());
            fs::write(&path, &data).unwrap();
            assert_eq!(file_bytes(&path).unwrap(), data, "{size}");
        }
        assert!(matches!(file_bytes(folder.path()), Err(OnnxError::NotAFile { .. })));
        assert!(matches!(file_bytes(&folder.path().join("none")), Err(OnnxError::Io { .. })));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "old").unwrap();
        let failed = replace_file(&path, |w| {
            w.write_all(b"ne")?;
            Err(io::Error::other("disk full"))
        });
        assert!(matches!(failed, Err(OnnxError::Io { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        replace_file(&path, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
