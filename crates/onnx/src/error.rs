use std::io;
use std::path::{Path, PathBuf};

use isotrace_graph::GraphError;
use isotrace_tensor::{DType, TensorError};

/// What can go wrong when an ONNX file is read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// Something is wrong in this file.
    #[error("{}: {cause}", file.display())]
    In {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: Box<OnnxError>,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A path that should be a file is something else.
    #[error("{} is {found}, expected a file; {remedy}", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What lies there.
        found: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The bytes are not an ONNX model or tensor.
    #[error("expected {expected}, found {found}; {remedy}")]
    NotOnnx {
        /// What should have been here.
        expected: &'static str,
        /// What seems to be here.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A message of 2 GiB or more.
    #[error(
        "{bytes} bytes, but a protobuf message ends at 2147483647; keep the weights in external data \
         (in Python: onnx.save(model, path, save_as_external_data=True))"
    )]
    TooLarge {
        /// The size found.
        bytes: u64,
    },
    /// Messages nested too deeply, or functions calling functions without end.
    #[error(
        "{what} nested more than {limit} deep; no exporter writes that, so the file is damaged or hostile"
    )]
    TooDeep {
        /// What is nested.
        what: &'static str,
        /// How deep is allowed.
        limit: usize,
    },
    /// Inlining functions makes more nodes than can be sensible.
    #[error(
        "inlining the model's functions makes more than {limit} nodes; simplify the functions, or if the \
         model is right, export it without functions"
    )]
    TooManyNodes {
        /// How many are allowed.
        limit: usize,
    },
    /// A tensor's element type is unknown.
    #[error("tensor {tensor:?} has element type {found}; {remedy}")]
    ElementType {
        /// The tensor.
        tensor: String,
        /// The type found, by number or name.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A tensor's shape makes no sense.
    #[error("tensor {tensor:?} has dims {dims:?}: {problem}; the file is damaged, export it again")]
    Dims {
        /// The tensor.
        tensor: String,
        /// The dims as found.
        dims: Vec<i64>,
        /// What is wrong with them.
        problem: String,
    },
    /// The data do not fill the shape.
    #[error(
        "tensor {tensor:?} of {dtype} {shape:?} needs {expected} in {field}, found {found}; the file is \
         damaged or cut short, export or copy it again"
    )]
    Count {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
        /// The field that holds the data.
        field: &'static str,
        /// How many elements or bytes the shape needs there.
        expected: usize,
        /// How many are there.
        found: usize,
    },
    /// A tensor is stored in a way that its type does not allow.
    #[error("tensor {tensor:?} of {dtype}: {found}, expected {expected}; export the model again")]
    Encoding {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: DType,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// A text is not UTF-8.
    #[error("{what} is not UTF-8, which ONNX asks for; export the model again with UTF-8 text")]
    NotUtf8 {
        /// Where the text is.
        what: String,
    },
    /// External data cannot be used.
    #[error("external data of tensor {tensor:?} at {location:?}: {problem}; {remedy}")]
    External {
        /// The tensor.
        tensor: String,
        /// Where the model says its data are.
        location: String,
        /// What is wrong with that.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A sparse tensor that cannot be made dense.
    #[error("sparse tensor {tensor:?}: {problem}; {remedy}")]
    Sparse {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A value that is no tensor.
    #[error(
        "{what} holds a {found}, which is not supported here, only tensors are; compare the tensors inside \
         it one by one"
    )]
    NotATensor {
        /// The file or value.
        what: String,
        /// What it is.
        found: &'static str,
    },
    /// An attribute without a usable value.
    #[error("attribute {attribute:?} of node {node:?} ({op}): {problem}; export the model again")]
    Attribute {
        /// The attribute.
        attribute: String,
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong.
        problem: String,
    },
    /// A name used twice where it must be unique.
    #[error("{what} {name:?} appears twice; names must be unique, rename one of them")]
    Duplicate {
        /// What kind of thing.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A graph reads or returns a value that nothing provides.
    #[error(
        "{reader} needs value {name:?}, which is no input, no initializer and no node's output; the graph \
         is incomplete, export the model again"
    )]
    Missing {
        /// Who needs it.
        reader: String,
        /// The value.
        name: String,
    },
    /// A function that calls itself.
    #[error("function {function} calls itself through node {node:?}; ONNX forbids recursion")]
    Recursion {
        /// The function.
        function: String,
        /// The call that closes the circle.
        node: String,
    },
    /// A call that does not fit the function's signature.
    #[error("node {node:?} calls function {function} with {found} {what}, but it has {expected}")]
    Call {
        /// The calling node.
        node: String,
        /// The function.
        function: String,
        /// Inputs or outputs.
        what: &'static str,
        /// How many the call has.
        found: usize,
        /// How many the function has.
        expected: usize,
    },
    /// The graph cannot be put in execution order.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A tensor could not be built.
    #[error("tensor {tensor:?}: {cause}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// Why not.
        cause: TensorError,
    },
    /// A graph that ONNX cannot express.
    #[error("cannot write node {node:?} ({op}) as ONNX: {problem}")]
    Inexpressible {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// Why not.
        problem: String,
    },
}

impl OnnxError {
    /// The same error with the file it is about in front.
    pub(crate) fn in_file(self, file: &Path) -> Self {
        match self {
            // These name their path already.
            e @ (Self::In { .. } | Self::Io { .. } | Self::NotAFile { .. }) => e,
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
