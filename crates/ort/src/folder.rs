//! Temporary folders, which go away even where an interrupt ends the program.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use crate::OrtError;

static ALIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A folder that is removed when this is dropped.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Result<Self, OrtError> {
        let made = tempfile::Builder::new().prefix("isotrace-").tempdir();
        let folder = made.map_err(|cause| OrtError::Folder { cause })?;
        alive(|paths| paths.push(folder.path().to_path_buf()));
        Ok(Self(folder))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        alive(|paths| paths.retain(|p| p != self.0.path()));
    }
}

fn alive(change: impl FnOnce(&mut Vec<PathBuf>)) {
    change(&mut ALIVE.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Removes the folders of this process that hold models made by the runtime: for a program that ends without returning.
/// They can be as large as the models.
pub fn clean_up() {
    alive(|paths| {
        for path in paths.drain(..) {
            // Nobody is left to be told.
            let _ = std::fs::remove_dir_all(path);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_go_when_dropped_or_cleaned_up() {
        let dropped = Folder::new().unwrap();
        let (first, kept) = (dropped.path().to_path_buf(), Folder::new().unwrap());
        std::fs::write(kept.path().join("model.onnx"), "x").unwrap();
        drop(dropped);
        assert!(!first.exists() && kept.path().exists());
        clean_up();
        assert!(!kept.path().exists());
    }
}
