use std::io;
use std::path::{Path, PathBuf};

use isotrace_onnx::OnnxError;
use isotrace_tensor::{DType, TensorError};

use crate::Kind;

/// What can go wrong when tensors are read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// Something is wrong in this file.
    #[error("{}: {cause}", file.display())]
    In {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: Box<TraceError>,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// An ONNX tensor, or a file as such, that cannot be read or written.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// Not one of the formats.
    #[error("expected tensors (.npz, .npy, .safetensors, .pt, .gguf, .pb, ...), found {found}; {remedy}")]
    Format {
        /// What seems to be here.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file that breaks the rules of its format.
    #[error("damaged {format} file: {problem}; write or copy it again")]
    Damaged {
        /// The format.
        format: &'static str,
        /// Which rule, with the numbers.
        problem: String,
    },
    /// An element type that is not a tensor's.
    #[error("array {name:?} has type {found}; {remedy}")]
    ElementType {
        /// The array.
        name: String,
        /// The type as the file spells it.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Compressed data that would not stay within reason.
    #[error("{problem}; if the file is right, store it uncompressed (numpy.savez)")]
    Bomb {
        /// How it would grow.
        problem: String,
    },
    /// A name twice.
    #[error("tensor {name:?} appears twice; rename one of them")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A name that is not there.
    #[error("no tensor {name:?} in this {kind} of {count}; `isotrace stats` lists the names")]
    NoTensor {
        /// The name asked for.
        name: String,
        /// What was searched.
        kind: Kind,
        /// How many tensors it has.
        count: usize,
    },
    /// A tensor that the format to write cannot hold.
    #[error("{format} cannot hold tensor {name:?} of {dtype}{why}; write {instead} instead")]
    Inexpressible {
        /// The format.
        format: &'static str,
        /// The tensor.
        name: String,
        /// Its type.
        dtype: DType,
        /// More, where the type alone does not say it.
        why: &'static str,
        /// A format that can.
        instead: &'static str,
    },
    /// A folder to write that is there already.
    #[error("{} is there already and not empty; name a new folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// No room is left to write.
    #[error(
        "cannot write {}: {cause}; make room or write elsewhere (what was finished before is whole)",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Nothing may be written there.
    #[error("cannot write {}: {cause}; name a folder that you may write to", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A format for one tensor was given another number of them.
    #[error(
        "{format} holds one tensor, not {count}; choose one with --only, or write an .npz or .safetensors file"
    )]
    NotOne {
        /// The format.
        format: &'static str,
        /// How many there are.
        count: usize,
    },
    /// The user stopped it.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// A trace to which somebody else is writing.
    #[error("{} is being written by another program; wait for it to end, or name another folder", path.display())]
    Busy {
        /// The log.
        path: PathBuf,
    },
    /// A trace whose writer has failed before.
    #[error("writing the trace {} has failed before; nothing more is written to it", path.display())]
    Stopped {
        /// The folder.
        path: PathBuf,
    },
    /// A trace by a later version.
    #[error("the trace is of schema {found:?}, expected {expected:?}; read it with a newer isotrace")]
    Schema {
        /// What its header says.
        found: String,
        /// What this version reads.
        expected: &'static str,
    },
    /// A value of a trace whose elements are not there.
    #[error("the trace has no elements of {name:?}: {why}")]
    NoData {
        /// The value.
        name: String,
        /// Why not.
        why: String,
    },
    /// A tensor could not be built.
    #[error("tensor {name:?}: {cause}")]
    Tensor {
        /// The tensor.
        name: String,
        /// Why not.
        cause: TensorError,
    },
}

impl TraceError {
    pub(crate) fn in_file(self, file: &Path) -> Self {
        match self {
            // These name their path already.
            e @ (Self::In { .. }
            | Self::Io { .. }
            | Self::Full { .. }
            | Self::ReadOnly { .. }
            | Self::Busy { .. }
            | Self::Stopped { .. }
            | Self::Interrupted
            | Self::Occupied { .. }) => e,
            Self::Onnx(e @ (OnnxError::In { .. } | OnnxError::Io { .. } | OnnxError::NotAFile { .. })) => {
                Self::Onnx(e)
            }
            e => Self::In { file: file.to_path_buf(), cause: Box::new(e) },
        }
    }

    /// The error itself, without the file in front.
    pub fn cause(&self) -> &Self {
        match self {
            Self::In { cause, .. } => cause.cause(),
            e => e,
        }
    }
}
