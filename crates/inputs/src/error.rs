use isotrace_tensor::{DType, TensorError};

/// Why a graph cannot be given its inputs. Each message says what was found, what was expected, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// A name that is no input.
    #[error("{what} {name:?} is no input{hint}; the inputs are {inputs}")]
    UnknownName {
        /// Where the name came from.
        what: &'static str,
        /// The name.
        name: String,
        /// The nearest name as a question, or nothing.
        hint: String,
        /// Every input.
        inputs: String,
    },
    /// A dimension that no input has.
    #[error("--dim {name:?} is no dimension of an input{hint}; {dims}")]
    UnknownDim {
        /// The name.
        name: String,
        /// The nearest name as a question, or nothing.
        hint: String,
        /// Every named dimension, as a sentence.
        dims: String,
    },
    /// An input that the given file lacks.
    #[error(
        "input {name:?} is not in {file}, which has {found}; add it to the file, or fill it with --set {name}=VALUE"
    )]
    NotGiven {
        /// The input.
        name: String,
        /// The file.
        file: String,
        /// Every name in the file.
        found: String,
    },
    /// A given tensor of another type, with values the declared type does not have.
    #[error(
        "input {name:?} is given as {found}, but the model declares {expected}, which cannot hold all its values; \
         convert it before it is saved"
    )]
    Type {
        /// The input.
        name: String,
        /// The type given.
        found: DType,
        /// The type declared.
        expected: DType,
    },
    /// A given tensor of another shape.
    #[error("input {name:?} is given with shape {found:?}, but the model declares {expected}")]
    Shape {
        /// The input.
        name: String,
        /// The shape given.
        found: Vec<usize>,
        /// The shape declared.
        expected: String,
    },
    /// Two statements about one size.
    #[error("{what} cannot be both {one} ({because}) and {other} ({but}); all inputs have to agree on it")]
    Conflict {
        /// The dimension.
        what: String,
        /// One size.
        one: usize,
        /// Who says so.
        because: String,
        /// Another size.
        other: usize,
        /// Who says so.
        but: String,
    },
    /// Inputs that have different names and play parts that cannot be told apart.
    #[error(
        "the models name their inputs differently, and what consumes them does not tell which is which: {a} in A, \
         {b} in B; rename the inputs of one model, or give them by both names with --inputs"
    )]
    Ambiguous {
        /// A's open inputs.
        a: String,
        /// B's open inputs.
        b: String,
    },
    /// An input of one pair that is declared differently.
    #[error("input {name:?} is {a} in A and {b} in B; the models cannot be given the same input")]
    Differ {
        /// The input.
        name: String,
        /// A's type and shape.
        a: String,
        /// B's type and shape.
        b: String,
    },
    /// An input whose tensor cannot be made.
    #[error("input {name:?} cannot be made: {why}; give it with --inputs")]
    NotMakeable {
        /// The input.
        name: String,
        /// Why.
        why: String,
    },
    /// A value that does not fit an input.
    #[error("--set {name}={value}: {why}")]
    Value {
        /// The input.
        name: String,
        /// The value.
        value: String,
        /// Why it does not fit.
        why: String,
    },
    /// Made inputs that would not fit into memory.
    #[error("input {name:?} of shape {shape:?} would take {bytes} bytes; choose smaller sizes with --dim")]
    TooLarge {
        /// The input.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes it takes.
        bytes: u128,
    },
    /// The tensors themselves.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
