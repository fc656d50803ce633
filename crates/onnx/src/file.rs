//! Files as shared bytes, and files written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;

use crate::{OnnxError, WholePages};

/// Files up to this size are read; mapping them would cost more than it saves.
const READ_UP_TO: u64 = 1 << 16;

/// The bytes of a file, mapped where it is large: pages are read when touched and never counted twice.
///
/// Refuses everything but regular files, so that a pipe cannot block and a device cannot feed without end.
pub fn file_bytes(path: &Path) -> Result<Bytes, OnnxError> {
    let io = |action| move |cause| OnnxError::Io { action, path: path.to_path_buf(), cause };
    let (file, length) = open_regular(path)?;
    if length <= READ_UP_TO {
        let mut data = Vec::with_capacity(length as usize);
        // The file may grow under our hands; what is read then is what was there when it was measured.
        (&file).take(READ_UP_TO).read_to_end(&mut data).map_err(io("read"))?;
        return Ok(Bytes::from(data));
    }
    map(&file).map_err(io("map"))
}

/// Opens a regular file and measures it.
fn open_regular(path: &Path) -> Result<(File, u64), OnnxError> {
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
    Ok((File::open(path).map_err(io("open"))?, kind.len()))
}

/// An open file of which stretches are mapped one by one, each for as long as somebody holds its bytes.
///
/// Pages of a map count as memory of the process until it is gone. Who goes through a file of many gigabytes tensor
/// by tensor therefore maps tensor by tensor, and never holds more than the ones at hand.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    /// `None` where the bytes were given.
    file: Option<File>,
    length: u64,
    whole: OnceLock<Bytes>,
}

impl MappedFile {
    /// Opens a regular file.
    pub fn open(path: &Path) -> Result<Self, OnnxError> {
        let (file, length) = open_regular(path)?;
        Ok(Self { path: path.to_path_buf(), file: Some(file), length, whole: OnceLock::new() })
    }

    /// Bytes that are in memory already, for readers of files that lie within other files.
    pub fn from_bytes(path: &Path, bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        Self { path: path.to_path_buf(), file: None, length, whole: OnceLock::from(bytes) }
    }

    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes when it was opened.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it was empty when it was opened.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The whole file, as [`file_bytes`] gives it.
    pub fn whole(&self) -> Result<Bytes, OnnxError> {
        self.stretch(0, self.length)
    }

    /// From now on every stretch is a slice of one map of the whole file: for readers that want everything at once,
    /// since a process may hold only so many maps.
    pub fn keep_whole(&self) -> Result<(), OnnxError> {
        if self.whole.get().is_none() {
            let whole = self.whole()?;
            self.whole.get_or_init(|| whole);
        }
        Ok(())
    }

    /// The bytes from `start` on, `length` of them: read where they are few, else mapped.
    pub fn stretch(&self, start: u64, length: u64) -> Result<Bytes, OnnxError> {
        let io = |action| move |cause| OnnxError::Io { action, path: self.path.clone(), cause };
        let end = start.checked_add(length).filter(|&end| end <= self.length);
        let end = end.ok_or_else(|| io("read")(io::ErrorKind::UnexpectedEof.into()))?;
        let file = match (self.whole.get(), &self.file) {
            (Some(whole), _) => return Ok(whole.slice(start as usize..end as usize)),
            (None, Some(file)) => file,
            (None, None) => return Ok(Bytes::new()),
        };
        // Reading a map beyond the end of a file that has shrunk would end the program.
        if file.metadata().map_err(io("read"))?.len() < end {
            return Err(io("read")(io::ErrorKind::UnexpectedEof.into()));
        }
        #[cfg(unix)]
        if length <= READ_UP_TO {
            use std::os::unix::fs::FileExt;
            let mut data = vec![0; length as usize];
            file.read_exact_at(&mut data, start).map_err(io("read"))?;
            return Ok(Bytes::from(data));
        }
        if length == 0 {
            return Ok(Bytes::new());
        }
        map_stretch(file, start, length as usize).map_err(io("map"))
    }
}

#[expect(unsafe_code, reason = "mapping a file has no safe form")]
fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: the map is private and read-only, and lives as long as the `Bytes` that own it. That nobody
    // changes the file meanwhile cannot be enforced by any program that maps weights; our own writers replace
    // files by renaming, which leaves the mapped file as it was.
    let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(file)? };
    Ok(in_large_pages(map))
}

#[expect(unsafe_code, reason = "mapping a file has no safe form")]
fn map_stretch(file: &File, start: u64, length: usize) -> io::Result<Bytes> {
    // SAFETY: as in `map`.
    let map = unsafe { memmap2::MmapOptions::new().offset(start).len(length).map_copy_read_only(file)? };
    Ok(in_large_pages(map))
}

/// Of a file that is not in memory yet, large pages are read.
fn in_large_pages(map: memmap2::Mmap) -> Bytes {
    #[cfg(target_os = "linux")]
    {
        // Where the system has none, small ones do.
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    Bytes::from_owner(map)
}

/// Writes a file through `fill` into a temporary file beside it, then renames: readers see the old file or the
/// new one, never half of one.
pub fn replace_file(
    path: &Path,
    fill: impl FnOnce(&mut io::BufWriter<WholePages>) -> io::Result<()>,
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
    let mut writer = io::BufWriter::with_capacity(1 << 16, WholePages::new(file));
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
    fn stretches_are_the_files_bytes_small_and_large_and_never_beyond_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &data).unwrap();
        let file = MappedFile::open(&path).unwrap();
        let stretches = [(0, 0), (0, 1), (4095, 2), (1, 65_536), (1, 65_537), (5000, 295_000), (300_000, 0)];
        for _ in 0..2 {
            for (start, length) in stretches {
                let expected = &data[start..start + length];
                assert_eq!(file.stretch(start as u64, length as u64).unwrap(), expected, "{start} {length}");
            }
            for (start, length) in [(0, 300_001), (300_001, 0), (299_999, 2), (u64::MAX, 1), (1, u64::MAX)] {
                assert!(file.stretch(start, length).is_err(), "{start} {length}");
            }
            file.keep_whole().unwrap();
        }
        let given = MappedFile::from_bytes(&path, data.clone().into());
        assert_eq!(given.stretch(4095, 70_000).unwrap(), &data[4095..74_095]);
        assert!(given.stretch(300_000, 1).is_err());
        let file = MappedFile::open(&path).unwrap();
        fs::write(&path, "shorter").unwrap();
        assert!(file.stretch(0, 300_000).is_err() && file.stretch(0, 8).is_err());
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
