use isotrace_tensor::{DType, TensorError};

/// Why an operator cannot be built or run. The executor adds node, operator, dtypes and shapes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// No such operator here.
    #[error("operator {op} of domain {domain:?} (version {version}) is not supported; {remedy}")]
    Unsupported {
        /// The operator's name.
        op: String,
        /// Its domain; empty for ONNX's own.
        domain: String,
        /// The version of the domain in force.
        version: i64,
        /// What it would take.
        remedy: String,
    },
    /// The operator exists, but not for this element type.
    #[error("{what} of type {found} is not supported here; supported: {supported}")]
    DType {
        /// Which input, output or attribute.
        what: &'static str,
        /// The type found.
        found: DType,
        /// The types that would do.
        supported: &'static str,
    },
    /// The operator exists, but not with this setting.
    #[error("{0}")]
    Setting(String),
    /// Inputs that contradict each other or the operator's definition: found, expected.
    #[error("{0}")]
    Input(String),
    /// A required input is missing.
    #[error("input {0} ({1}) is required and was left out")]
    Missing(usize, &'static str),
    /// The tensors themselves do not fit.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
