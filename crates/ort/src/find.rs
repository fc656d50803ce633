//! Where ONNX Runtime's library lies.
//!
//! `ORT_DYLIB_PATH` decides where it is set. Otherwise the Python package `onnxruntime` brings the library along, under
//! `onnxruntime/capi`: looked for in the active virtual environment, then where the Python on the PATH would import the
//! package from. Python is asked for the place alone; the package is not imported, and the current folder, from which
//! `python -c` would import anything, is no place to load code from.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::OrtError;

/// The variable that names the library.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";

/// The library to load, and why this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path.
    pub path: PathBuf,
    /// How it was found, for messages.
    pub by: &'static str,
}

/// What of the process's surroundings the search looks at.
pub struct Surroundings {
    /// `ORT_DYLIB_PATH`.
    pub library: Option<PathBuf>,
    /// The active virtual environment.
    pub environment: Option<PathBuf>,
    /// The Pythons to ask, in this order.
    pub pythons: &'static [&'static str],
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let path = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self { library: path(VARIABLE), environment: path("VIRTUAL_ENV"), pythons: &["python3", "python"] }
    }

    /// Finds the library.
    pub fn find(&self) -> Result<Found, OrtError> {
        if let Some(path) = &self.library {
            // Where the user names one, no other will do: silently another version would be another run.
            return if path.is_file() {
                Ok(Found { path: path.clone(), by: VARIABLE })
            } else {
                Err(OrtError::NotFound {
                    looked: vec![format!("{VARIABLE}={} (no such file)", path.display())],
                })
            };
        }
        let mut looked = vec![format!("{VARIABLE} (not set)")];
        match &self.environment {
            None => looked.push("VIRTUAL_ENV (not set)".to_owned()),
            Some(root) => {
                let by = "the active virtual environment";
                if let Some(path) = packages(root).iter().find_map(|p| in_package(&p.join("onnxruntime"))) {
                    return Ok(Found { path, by });
                }
                looked.push(format!("VIRTUAL_ENV={} (no onnxruntime package in it)", root.display()));
            }
        }
        for &python in self.pythons {
            match ask(python) {
                Answer::Package(package) => match in_package(&package) {
                    Some(path) => return Ok(Found { path, by: "the onnxruntime package of Python" }),
                    None => looked.push(format!(
                        "{} (the package is there, its library is not: older packages have none of their own)",
                        package.display()
                    )),
                },
                Answer::NoPackage => looked.push(format!("{python} (has no onnxruntime package)")),
                Answer::NoPython => looked.push(format!("{python} (not on the PATH)")),
            }
        }
        Err(OrtError::NotFound { looked })
    }
}

/// The folders of an environment in which packages may lie.
fn packages(root: &Path) -> Vec<PathBuf> {
    let mut places = vec![root.join("Lib").join("site-packages")];
    for lib in ["lib", "lib64"] {
        let Ok(entries) = fs::read_dir(root.join(lib)) else { continue };
        let versions = entries.flatten().map(|e| e.path());
        let mut versions: Vec<PathBuf> = versions
            .filter(|p| p.file_name().and_then(OsStr::to_str).is_some_and(|n| n.starts_with("python")))
            .map(|p| p.join("site-packages"))
            .collect();
        // The same choice whatever order the file system lists them in.
        versions.sort();
        places.extend(versions);
    }
    places
}

/// The library inside the package's folder.
fn in_package(package: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(package.join("capi")).ok()?;
    let mut libraries: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name().and_then(OsStr::to_str).is_some_and(is_library))
        .collect();
    libraries.sort();
    libraries.pop()
}

/// `libonnxruntime.so.1.31.1`, `libonnxruntime.1.31.1.dylib`, `onnxruntime.dll`; not those of its execution providers.
fn is_library(name: &str) -> bool {
    let numbers = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if let Some(version) = name.strip_prefix("libonnxruntime.so") {
        return numbers(version);
    }
    if let Some(version) = name.strip_prefix("libonnxruntime").and_then(|n| n.strip_suffix("dylib")) {
        return numbers(version);
    }
    name == "onnxruntime.dll"
}

enum Answer {
    Package(PathBuf),
    NoPackage,
    NoPython,
}

/// Prints where the package would be imported from, without importing it.
const QUESTION: &str = "\
import sys
here = __import__('os').getcwd()
sys.path = [p for p in sys.path if p and p != here]
import importlib.util
spec = importlib.util.find_spec('onnxruntime')
print('\\n'.join(spec.submodule_search_locations or []) if spec else '')";

fn ask(python: &str) -> Answer {
    let asked =
        Command::new(python).args(["-c", QUESTION]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let Ok(output) = asked else { return Answer::NoPython };
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) if output.status.success() => Answer::Package(PathBuf::from(line)),
        _ => Answer::NoPackage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_from_their_neighbours() {
        let cases = [
            ("libonnxruntime.so.1.31.1", true),
            ("libonnxruntime.so", true),
            ("libonnxruntime.1.31.1.dylib", true),
            ("libonnxruntime.dylib", true),
            ("onnxruntime.dll", true),
            ("libonnxruntime_providers_shared.so", false),
            ("libonnxruntime.so.old", false),
            ("onnxruntime_pybind11_state.so", false),
            ("onnxruntime_providers_shared.dll", false),
        ];
        for (name, expected) in cases {
            assert_eq!(is_library(name), expected, "{name}");
        }
    }

    fn file(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn the_variable_decides_then_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own.so");
        let packaged =
            folder.path().join("env/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.31.1");
        file(&packaged);
        file(&packaged.with_file_name("libonnxruntime_providers_shared.so"));
        let environment = Some(folder.path().join("env"));
        let around = |library: Option<&PathBuf>| Surroundings {
            library: library.cloned(),
            environment: environment.clone(),
            pythons: &[],
        };
        assert_eq!(around(None).find().unwrap().path, packaged);
        // Named and not there: an error, and no other library in its place.
        let missing = around(Some(&own)).find().unwrap_err().to_string();
        assert!(missing.contains("own.so (no such file)"), "{missing}");
        file(&own);
        assert_eq!(around(Some(&own)).find().unwrap(), Found { path: own, by: VARIABLE });
    }

    #[test]
    fn the_message_says_what_was_looked_at_and_how_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let around = Surroundings {
            library: None,
            environment: Some(folder.path().to_path_buf()),
            pythons: &["no-python-of-this-name"],
        };
        let message = around.find().unwrap_err().to_string();
        for part in [
            "ORT_DYLIB_PATH (not set)",
            "no onnxruntime package in it",
            "no-python-of-this-name (not on the PATH)",
            "pip install onnxruntime",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
