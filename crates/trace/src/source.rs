//! One type for everything that holds tensors with names: files, folders, traces.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isotrace_onnx::MappedFile;
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;

use crate::trace::record::Note;
use crate::{Trace, TraceError};

/// What kind of file or folder tensors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A `.npy` file: one array.
    Npy,
    /// An `.npz` archive.
    Npz,
    /// A `.safetensors` file.
    Safetensors,
    /// A file of one ONNX `TensorProto`.
    Pb,
    /// A folder of files of tensors.
    Folder,
    /// A recording ([`Trace`]).
    Trace,
    /// A checkpoint of PyTorch.
    PyTorch,
    /// A checkpoint of PaddlePaddle.
    Paddle,
    /// Another Python pickle.
    Pickle,
    /// Weights of ggml.
    Gguf,
    /// Outputs or inputs that Polygraphy saved.
    Polygraphy,
    /// A dump of PaDiff.
    PaDiff,
    /// Raw bytes with a description beside them.
    Raw,
}

impl Kind {
    /// What to call it in messages and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Npy => ".npy file",
            Self::Npz => ".npz archive",
            Self::Safetensors => ".safetensors file",
            Self::Pb => "ONNX tensor file",
            Self::Folder => "folder of tensor files",
            Self::Trace => "trace",
            Self::PyTorch => "PyTorch checkpoint",
            Self::Paddle => "PaddlePaddle checkpoint",
            Self::Pickle => "Python pickle",
            Self::Gguf => "GGUF file",
            Self::Polygraphy => "Polygraphy file",
            Self::PaDiff => "PaDiff dump",
            Self::Raw => "raw file",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is known of a tensor without reading its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The type that [`Source::get`] gives.
    pub dtype: DType,
    /// The shape.
    pub shape: Vec<usize>,
    /// How the file stores the elements, where that is not simply `dtype`: `Q4_K`, ...
    pub stored: Option<String>,
}

impl Info {
    pub(crate) fn of(dtype: DType, shape: &[usize]) -> Self {
        Self { dtype, shape: shape.to_vec(), stored: None }
    }
}

type Load = Box<dyn Fn() -> Result<Tensor, TraceError> + Send + Sync>;

/// One tensor of a source: its name, and how to get it when somebody asks.
pub(crate) struct Entry {
    pub name: String,
    pub info: Option<Info>,
    pub load: Load,
}

impl Entry {
    pub fn new(
        name: impl Into<String>,
        info: Option<Info>,
        load: impl Fn() -> Result<Tensor, TraceError> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), info, load: Box::new(load) }
    }

    /// A tensor that had to be built to know its name.
    pub fn ready(name: impl Into<String>, tensor: Tensor) -> Self {
        let info = Info::of(tensor.dtype(), tensor.shape());
        Self::new(name, Some(info), move || Ok(tensor.clone()))
    }
}

/// Tensors whose names came from joining the parts of a path: where two are the same, the later one gets a number.
pub(crate) fn unique<T>(named: Vec<(String, T)>) -> impl Iterator<Item = (String, T)> {
    let mut seen: FxHashMap<String, usize> = FxHashMap::default();
    named.into_iter().map(move |(name, item)| {
        let mut free = name.clone();
        while seen.contains_key(&free) {
            let count = seen.entry(name.clone()).or_insert(1);
            *count += 1;
            free = format!("{name}#{count}");
        }
        seen.insert(free.clone(), 1);
        (free, item)
    })
}

/// What a reader of a format hands over.
pub(crate) struct Opened {
    pub kind: Kind,
    pub entries: Vec<Entry>,
    /// The file, where it is one.
    pub file: Option<Arc<MappedFile>>,
    /// What a user should know: what is missing, what was left aside.
    pub notes: Vec<Note>,
    /// The recording, where it is one.
    pub trace: Option<Arc<Trace>>,
}

impl Opened {
    pub fn new(kind: Kind, entries: Vec<Entry>) -> Self {
        Self { kind, entries, file: None, notes: vec![], trace: None }
    }
}

/// Tensors with names, read one at a time and only when asked for.
///
/// Opening reads what names, types and shapes need, never the elements. [`get`](Self::get) maps the elements of one
/// tensor; they stay mapped for as long as the tensor lives, and are gone with it, so that going through a source of
/// any size needs the memory of the tensors at hand. Getting a tensor twice reads it twice.
pub struct Source {
    path: PathBuf,
    kind: Kind,
    entries: Vec<Entry>,
    index: FxHashMap<String, usize>,
    file: Option<Arc<MappedFile>>,
    notes: Vec<Note>,
    trace: Option<Arc<Trace>>,
}

impl Source {
    pub(crate) fn new(path: &Path, opened: Opened) -> Result<Self, TraceError> {
        let Opened { kind, entries, file, notes, trace } = opened;
        let mut index = FxHashMap::default();
        index.reserve(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            if index.insert(entry.name.clone(), at).is_some() {
                return Err(TraceError::Duplicate { name: entry.name.clone() }.in_file(path));
            }
        }
        Ok(Self { path: path.to_path_buf(), kind, entries, index, file, notes, trace })
    }

    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The names, each once, in the order of the file.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// What a user should know about this source: what a killed recorder did not finish, what was left aside, what a
    /// recorder noted. [`Note::class`] is [`Note::READER`] where it is said of the file, and not in it.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The recording with its graph, where the source is one.
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.as_deref()
    }

    /// Type and shape of a tensor, without its elements where the format tells them.
    pub fn info(&self, name: &str) -> Result<Info, TraceError> {
        let entry = self.entry(name)?;
        if let Some(info) = &entry.info {
            return Ok(info.clone());
        }
        let tensor = self.load(entry)?;
        Ok(Info::of(tensor.dtype(), tensor.shape()))
    }

    /// A tensor by its name.
    pub fn get(&self, name: &str) -> Result<Tensor, TraceError> {
        self.load(self.entry(name)?)
    }

    /// Every tensor with its name, one after the other; each is read when the iterator comes to it.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Result<Tensor, TraceError>)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), self.load(entry)))
    }

    /// Every tensor at once. A file is mapped once and all tensors share the map.
    pub fn read_all(&self) -> Result<Vec<(String, Tensor)>, TraceError> {
        if let Some(file) = &self.file {
            file.keep_whole().map_err(|e| TraceError::Onnx(e).in_file(&self.path))?;
        }
        self.iter().map(|(name, tensor)| Ok((name.to_owned(), tensor?))).collect()
    }

    fn entry(&self, name: &str) -> Result<&Entry, TraceError> {
        self.index.get(name).map(|&at| &self.entries[at]).ok_or_else(|| {
            TraceError::NoTensor { name: name.into(), kind: self.kind, count: self.len() }.in_file(&self.path)
        })
    }

    fn load(&self, entry: &Entry) -> Result<Tensor, TraceError> {
        (entry.load)().map_err(|e| e.in_file(&self.path))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?}, {}, {} tensors)", self.path, self.kind, self.len())
    }
}
