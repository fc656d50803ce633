//! Tensors whose data lie outside the model file.
//!
//! A model says where by a path relative to its own folder. Models come from strangers, so the path is confined:
//! no absolute path, no `..`, and a link is followed only into the model's folder or into the folder where the
//! model file itself really lies (download caches keep both as links into one store).

use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::OnnxError;
use crate::file::file_bytes;
use crate::generated::onnx::StringStringEntryProto;

/// What to do about data files that do not fit.
const DAMAGED: &str = "the data file does not belong to this model or was cut short; copy it again";

/// What to do about data that lie elsewhere.
const MOVE: &str = "put the data beside the model and name them relative to it";

/// The files around a model, each mapped once.
#[derive(Debug, Default)]
pub struct External {
    /// The model's folder as given; `None` for a model that is not from a file.
    folder: Option<PathBuf>,
    /// Real folders in which data may lie.
    roots: Vec<PathBuf>,
    maps: Mutex<FxHashMap<PathBuf, Bytes>>,
}

/// Where a tensor's data lie, as the model says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub path: String,
    pub offset: u64,
    pub length: Option<u64>,
}

impl Location {
    /// Reads the key-value pairs of `TensorProto.external_data`. Unknown keys (`checksum`) are left alone.
    pub fn parse(tensor: &str, entries: &[StringStringEntryProto]) -> Result<Self, OnnxError> {
        let fail = |problem: String| OnnxError::External {
            tensor: tensor.into(),
            location: String::new(),
            problem,
            remedy: "export the model again",
        };
        let find = |key: &str| entries.iter().find(|e| e.key() == key).map(StringStringEntryProto::value);
        let number = |key: &str| match find(key) {
            None => Ok(None),
            Some(text) => text
                .parse::<u64>()
                .map(Some)
                .map_err(|_| fail(format!("its {key} is {text:?}, expected a number of bytes"))),
        };
        let path = find("location").ok_or_else(|| fail("the model gives no location".into()))?;
        Ok(Self { path: path.into(), offset: number("offset")?.unwrap_or(0), length: number("length")? })
    }
}

impl External {
    /// The surroundings of the model file at `path`.
    pub fn around(path: &Path) -> Self {
        let folder = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let mut external = Self::within(&folder);
        external.roots.extend(path.canonicalize().ok().and_then(|p| p.parent().map(Path::to_path_buf)));
        external.roots.dedup();
        external
    }

    /// The surroundings of a model that belongs into `folder`.
    pub fn within(folder: &Path) -> Self {
        let roots = folder.canonicalize().into_iter().collect();
        Self { folder: Some(folder.to_path_buf()), roots, maps: Mutex::default() }
    }

    /// Whether `folder` is the one in which this model's data are looked for.
    pub fn is_folder(&self, folder: &Path) -> bool {
        folder.canonicalize().is_ok_and(|f| self.roots.first() == Some(&f))
    }

    /// The bytes of a tensor that needs `needed` of them.
    pub fn bytes(&self, tensor: &str, at: &Location, needed: usize) -> Result<Bytes, OnnxError> {
        let fail = |problem: String, remedy| OnnxError::External {
            tensor: tensor.into(),
            location: at.path.clone(),
            problem,
            remedy,
        };
        if let Some(length) = at.length.filter(|&l| l != needed as u64) {
            return Err(fail(
                format!("its length is {length} bytes, but type and shape need {needed}"),
                "export the model again",
            ));
        }
        let path = self.confine(tensor, at)?;
        let file = {
            let mut maps = self.maps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(file) = maps.get(&path) {
                file.clone()
            } else {
                let file = file_bytes(&path)?;
                maps.insert(path, file.clone());
                file
            }
        };
        let end = at.offset.checked_add(needed as u64).filter(|&end| end <= file.len() as u64);
        let Some(end) = end else {
            let problem =
                format!("{needed} bytes from {} on end after the file's {} bytes", at.offset, file.len());
            return Err(fail(problem, DAMAGED));
        };
        Ok(file.slice(at.offset as usize..end as usize))
    }

    /// The real path of a location, if it stays where it may.
    fn confine(&self, tensor: &str, at: &Location) -> Result<PathBuf, OnnxError> {
        let fail = |problem: &str, remedy| OnnxError::External {
            tensor: tensor.into(),
            location: at.path.clone(),
            problem: problem.into(),
            remedy,
        };
        let Some(folder) = &self.folder else {
            return Err(fail("the model was not read from a file, so there is no folder to look in", MOVE));
        };
        if at.path.is_empty() || at.path.contains('\0') {
            return Err(fail("this is no file name", MOVE));
        }
        let relative = Path::new(&at.path);
        if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(fail("the path leaves the model's folder", MOVE));
        }
        let real = folder.join(relative).canonicalize().map_err(|e| {
            let problem = format!("no such file in {} ({e})", folder.display());
            fail(&problem, "copy the data file there too, or download the whole model")
        })?;
        if !self.roots.iter().any(|root| real.starts_with(root)) {
            return Err(fail("a symbolic link leads out of the model's folder", MOVE));
        }
        Ok(real)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn at(path: &str, offset: u64, length: Option<u64>) -> Location {
        Location { path: path.into(), offset, length }
    }

    struct Case<'a>(Location, usize, Result<&'a [u8], &'a str>);

    #[test]
    fn data_come_from_the_folder_and_nowhere_else() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("model");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(outer.path().join("secret"), [7; 8]).unwrap();
        fs::write(folder.join("w"), (0..16).collect::<Vec<u8>>()).unwrap();
        fs::write(folder.join("sub/w"), [1; 4]).unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(outer.path().join("secret"), folder.join("link")).unwrap();
            std::os::unix::fs::symlink(outer.path(), folder.join("up")).unwrap();
            std::os::unix::fs::symlink(folder.join("w"), folder.join("inside")).unwrap();
        }
        let absolute = outer.path().join("secret").display().to_string();
        let e = External::within(&folder);
        let cases = [
            Case(at("w", 4, Some(4)), 4, Ok(&[4, 5, 6, 7])),
            Case(at("./w", 12, None), 4, Ok(&[12, 13, 14, 15])),
            Case(at("sub/w", 0, None), 4, Ok(&[1; 4])),
            Case(at("w", 16, None), 0, Ok(&[])),
            Case(at("w", 13, None), 4, Err("end after")),
            Case(at("w", u64::MAX, None), 4, Err("end after")),
            Case(at("w", 0, Some(8)), 4, Err("need 4")),
            Case(at("../secret", 0, None), 8, Err("leaves")),
            Case(at("sub/../../secret", 0, None), 8, Err("leaves")),
            Case(at(&absolute, 0, None), 8, Err("leaves")),
            Case(at("", 0, None), 8, Err("no file name")),
            Case(at("none", 0, None), 8, Err("no such file")),
            Case(at("sub", 0, None), 8, Err("is a folder")),
            #[cfg(unix)]
            Case(at("inside", 0, None), 2, Ok(&[0, 1])),
            #[cfg(unix)]
            Case(at("link", 0, None), 8, Err("link leads out")),
            #[cfg(unix)]
            Case(at("up/secret", 0, None), 8, Err("link leads out")),
        ];
        let mut wrong = vec![];
        for Case(location, needed, expected) in &cases {
            let found = e.bytes("t", location, *needed);
            let fits = match (&found, expected) {
                (Ok(found), Ok(expected)) => found == expected,
                (Err(found), Err(expected)) => found.to_string().contains(expected),
                _ => false,
            };
            if !fits {
                wrong.push(format!("{location:?}: {found:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_cache_of_links_into_one_store_works() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir_all(cache.path().join("store")).unwrap();
        fs::create_dir_all(cache.path().join("snapshot")).unwrap();
        for (name, target) in [("m.onnx", "aaa"), ("m.onnx_data", "bbb")] {
            fs::write(cache.path().join("store").join(target), [3; 4]).unwrap();
            let link = cache.path().join("snapshot").join(name);
            std::os::unix::fs::symlink(Path::new("../store").join(target), link).unwrap();
        }
        let e = External::around(&cache.path().join("snapshot/m.onnx"));
        assert_eq!(e.bytes("t", &at("m.onnx_data", 0, None), 4).unwrap(), vec![3; 4]);
    }

    #[test]
    fn one_map_a_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("w"), vec![1u8; 1 << 17]).unwrap();
        let e = External::within(folder.path());
        let a = e.bytes("a", &at("w", 0, None), 8).unwrap();
        let b = e.bytes("b", &at("w", 8, None), 8).unwrap();
        assert_eq!(a.as_ptr().wrapping_add(8), b.as_ptr());
    }
}
