use std::path::{Path, PathBuf};

use isotrace_onnx::OnnxError;
use isotrace_ops::OpError;
use isotrace_tensor::{DType, TensorError};

/// What can go wrong when ONNX Runtime runs a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrtError {
    /// Nowhere is a library of it.
    #[error(
        "the backend onnxruntime needs ONNX Runtime's library, and none was found; looked at {}; install it \
         (pip install onnxruntime) or set ORT_DYLIB_PATH to the libonnxruntime of your own",
        looked.join(", ")
    )]
    NotFound {
        /// The places looked at, and what was there.
        looked: Vec<String>,
    },
    /// There is a library, and it cannot be used.
    #[error(
        "ONNX Runtime's library {} ({source_of}) cannot be used: {problem}; it has to be version 1.17 or newer for \
         this machine", path.display()
    )]
    Library {
        /// The library.
        path: PathBuf,
        /// Why this one was taken.
        source_of: &'static str,
        /// What the loader said.
        problem: String,
    },
    /// ONNX Runtime refused.
    #[error("{}: ONNX Runtime cannot {action}: {problem}", model.display())]
    Runtime {
        /// The user's model.
        model: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What it said.
        problem: String,
    },
    /// The model that ran cannot be read.
    #[error("{}: the model that ONNX Runtime made of it cannot be used: {cause}", model.display())]
    Optimised {
        /// The user's model.
        model: PathBuf,
        /// Why.
        cause: OnnxError,
    },
    /// No place for the models in between.
    #[error(
        "cannot make a temporary folder for the model that ONNX Runtime runs: {cause}; TMPDIR says where"
    )]
    Folder {
        /// What the system said.
        cause: std::io::Error,
    },
    /// An input that ONNX Runtime's interface does not take.
    #[error("input {name:?} is {dtype}, which cannot be handed to ONNX Runtime; use the embedded backend")]
    InputType {
        /// The input.
        name: String,
        /// Its type.
        dtype: DType,
    },
    /// An input is missing.
    #[error("input {name:?} was not given; ONNX Runtime needs {needed}")]
    InputMissing {
        /// The input.
        name: String,
        /// Every input.
        needed: String,
    },
    /// A tensor came back that is not what it says.
    #[error("value {name:?} of ONNX Runtime: {cause}")]
    Tensor {
        /// The value.
        name: String,
        /// What is wrong with it.
        cause: TensorError,
    },
    /// A value in blocks of channels does not fit them.
    #[error("value {name:?} of ONNX Runtime: {cause}")]
    Layout {
        /// The value.
        name: String,
        /// What is wrong with it.
        cause: OpError,
    },
}

impl OrtError {
    /// For `map_err` on calls of the runtime.
    pub(crate) fn runtime<R>(model: &Path, action: &'static str) -> impl Fn(ort::Error<R>) -> Self {
        move |error| Self::Runtime { model: model.to_path_buf(), action, problem: error.message().to_owned() }
    }

    pub(crate) fn optimised(model: &Path) -> impl Fn(OnnxError) -> Self {
        move |cause| Self::Optimised { model: model.to_path_buf(), cause }
    }
}
