use isotrace_ops::OpError;
use isotrace_tensor::DType;

/// Why a graph cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// An operator that is not supported, or a node whose settings make no sense.
    #[error("node {node:?}: {source}")]
    Build {
        /// The node.
        node: String,
        /// Why.
        source: OpError,
    },
    /// An operator that failed on its inputs.
    #[error("node {node:?} ({op}) failed on inputs {inputs}: {source}")]
    Node {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// Types and shapes of its inputs.
        inputs: String,
        /// Why.
        source: OpError,
    },
    /// An input of the graph that was not given.
    #[error("input {name:?} was not given; the model needs {needed}")]
    MissingInput {
        /// The input.
        name: String,
        /// Every input of the model.
        needed: String,
    },
    /// An input of the wrong type.
    #[error("input {name:?} has type {found}, the model declares {expected}")]
    InputType {
        /// The input.
        name: String,
        /// The type given.
        found: DType,
        /// The type declared.
        expected: DType,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}
