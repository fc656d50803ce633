//! The library, its environment, and sessions.

use std::path::Path;
use std::sync::OnceLock;

use isotrace_tensor::Tensor;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{OutputSelector, RunOptions, Session};
use rustc_hash::FxHashMap;

use crate::find::{Found, Surroundings};
use crate::{OrtError, convert, layout};

/// Threads inside an operator, and between operators.
///
/// Sums may be cut into parts by the number of threads; one is the same everywhere.
pub const THREADS: usize = 1;

/// How much the runtime rewrites a model before it runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Nothing that can be left out.
    Disable,
    /// Constants folded, nodes that do nothing removed.
    Basic,
    /// Operators fused as well.
    Extended,
    /// Layouts changed as well: the runtime's own default.
    All,
}

impl Level {
    /// The name in reports and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Basic => "basic",
            Self::Extended => "extended",
            Self::All => "all",
        }
    }

    const fn setting(self) -> GraphOptimizationLevel {
        match self {
            Self::Disable => GraphOptimizationLevel::Disable,
            Self::Basic => GraphOptimizationLevel::Level1,
            Self::Extended => GraphOptimizationLevel::Level2,
            Self::All => GraphOptimizationLevel::All,
        }
    }
}

/// ONNX Runtime, loaded.
pub struct Runtime {
    environment: Environment,
    found: Found,
    block: OnceLock<Option<usize>>,
}

/// There is one a process: a library once loaded stays.
static LOADED: OnceLock<Result<Runtime, OrtError>> = OnceLock::new();

impl Runtime {
    /// Finds and loads the library, at the first call.
    pub fn load() -> Result<&'static Self, &'static OrtError> {
        LOADED.get_or_init(|| Self::from(Surroundings::of_process().find()?)).as_ref()
    }

    fn from(found: Found) -> Result<Self, OrtError> {
        let unusable =
            |problem: String| OrtError::Library { path: found.path.clone(), source_of: found.by, problem };
        let builder = ort::init_from(&found.path).map_err(|e| unusable(reason(&e)))?;
        let environment = builder
            .with_name("isotrace")
            .with_telemetry(false)
            .build()
            .map_err(|e| unusable(e.message().to_owned()))?;
        if std::env::var_os("ORT_LOG").is_none() {
            // What matters comes back as an error, and is said once.
            environment.set_log_level(LogLevel::Fatal);
        }
        Ok(Self { environment, found, block: OnceLock::new() })
    }

    /// Where the library lies.
    pub fn library(&self) -> &Path {
        &self.found.path
    }

    /// The version as its build or its file's name says it, such as `1.31.1`; the commit it was built from otherwise.
    pub fn version(&self) -> String {
        let file = std::fs::canonicalize(&self.found.path).unwrap_or_else(|_| self.found.path.clone());
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        let info = ort::info();
        version_in(info).or_else(|| version_in(&file)).unwrap_or_else(|| info.to_owned())
    }

    fn builder(&self, level: Level) -> Result<SessionBuilder, ort::Error> {
        let builder = Session::builder(&self.environment)?
            .with_optimization_level(level.setting())?
            .with_parallel_execution(false)?
            .with_intra_threads(THREADS)?
            .with_inter_threads(THREADS)?;
        Ok(builder)
    }

    /// A session of a model file, as any program would make it.
    pub(crate) fn session(&self, file: &Path, level: Level, user: &Path) -> Result<Session, OrtError> {
        let failed = OrtError::runtime(user, "load the model");
        self.builder(level).map_err(&failed)?.commit_from_file(file).map_err(&failed)
    }

    /// Lets the optimiser rewrite a model file, and writes what it makes of it beside `to`, weights in a file of their
    /// own: those of a large model do not fit one message.
    pub(crate) fn optimise(&self, file: &Path, level: Level, user: &Path, to: &Path) -> Result<(), OrtError> {
        let failed = OrtError::runtime(user, "load the model");
        let weights = to.with_extension("data");
        let weights = weights.file_name().unwrap_or_default().to_string_lossy();
        let prepared = |builder: SessionBuilder| -> ort::Result<SessionBuilder> {
            Ok(builder
                .with_optimized_model_path(to)?
                .with_config_entry("session.optimized_model_external_initializers_file_name", &weights)?)
        };
        let mut builder = self.builder(level).and_then(prepared).map_err(&failed)?;
        builder.commit_from_file(file).map_err(&failed)?;
        Ok(())
    }

    /// The width of the blocks of channels on this machine; `None` where the library has none.
    pub(crate) fn block(&self) -> Option<usize> {
        *self.block.get_or_init(|| {
            let model = layout::probe().encode().ok()?;
            let mut session = self.builder(Level::Disable).ok()?.commit_from_memory(&model).ok()?;
            let elements = (0..layout::PROBE.iter().product::<usize>()).map(|i| i as f32).collect();
            let input = Tensor::from_vec(&layout::PROBE, elements).ok()?;
            let inputs = FxHashMap::from_iter([("x".to_owned(), input)]);
            let outputs = run(&mut session, &inputs, Path::new("probe")).ok()?;
            layout::width(outputs.first()?.1.as_slice::<f32>().ok()?)
        })
    }
}

/// Why a library cannot be loaded, in the words of the system's loader where they are at hand.
fn reason(error: &ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => {
            std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
        }
        ort::LoadDynamicError::MissingApi { .. } => "it is no library of ONNX Runtime".to_owned(),
        ort::LoadDynamicError::BadVersion { version_str, .. } => format!("it is version {version_str}"),
        ort::LoadDynamicError::InvalidVersionString => error.to_string(),
    }
}

/// Runs a session; its outputs in order, without those that cannot be brought back.
pub(crate) fn run(
    session: &mut Session,
    inputs: &FxHashMap<String, Tensor>,
    user: &Path,
) -> Result<Vec<(String, Tensor)>, OrtError> {
    let failed = OrtError::runtime(user, "run the model");
    let mut fed = Vec::new();
    for name in session.inputs().iter().map(|i| i.name().to_owned()) {
        let Some(tensor) = inputs.get(&name) else {
            let needed: Vec<String> = session.inputs().iter().map(|i| format!("{:?}", i.name())).collect();
            return Err(OrtError::InputMissing { name, needed: needed.join(", ") });
        };
        let value = convert::input(&name, tensor)?;
        fed.push((name, value));
    }
    let wanted: Vec<String> = session
        .outputs()
        .iter()
        .filter(|o| convert::readable(o.dtype()))
        .map(|o| o.name().to_owned())
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let selected = wanted.iter().fold(OutputSelector::no_default(), |s, name| s.with(name.as_str()));
    let options = RunOptions::new().map_err(&failed)?.with_outputs(selected);
    let outputs = session.run_with_options(fed, &options).map_err(&failed)?;
    let mut read = Vec::with_capacity(wanted.len());
    // Each of the runtime's values is freed as soon as it is copied.
    for (name, value) in outputs {
        if let Some(tensor) = convert::output(name, &value)? {
            read.push((name.to_owned(), tensor));
        }
    }
    Ok(read)
}

/// `1.31.1` in `ORT Build Info: git-branch=rel-1.31.1, git-commit-id=...` or in `libonnxruntime.so.1.31.1`.
fn version_in(text: &str) -> Option<String> {
    text.split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .map(|s| s.trim_matches('.'))
        .find(|s| s.split('.').count() >= 3 && s.split('.').all(|n| !n.is_empty()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_where_it_is_said() {
        let cases = [
            (
                "ORT Build Info: git-branch=rel-1.19.0, git-commit-id=26250ae, build type=Release",
                Some("1.19.0"),
            ),
            ("ORT Build Info: git-branch=HEAD, git-commit-id=6af1a93, fp8-kv-cache=1", None),
            ("libonnxruntime.so.1.31.1", Some("1.31.1")),
            ("libonnxruntime.1.31.1.dylib", Some("1.31.1")),
            ("libonnxruntime.so", None),
        ];
        for (text, expected) in cases {
            assert_eq!(version_in(text).as_deref(), expected, "{text}");
        }
    }
}
