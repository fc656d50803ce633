use crate::DType;

/// What can go wrong when a tensor is built, reshaped or read as another type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The number of elements does not fit the shape.
    #[error("{found} elements do not fill shape {shape:?}, which holds {expected}")]
    Length {
        /// Elements found.
        found: usize,
        /// Elements the shape holds.
        expected: usize,
        /// The shape asked for.
        shape: Vec<usize>,
    },
    /// The shape holds more elements than this machine can address.
    #[error("shape {shape:?} holds more elements than can be addressed")]
    TooLarge {
        /// The shape asked for.
        shape: Vec<usize>,
    },
    /// A tensor of one type was read as another.
    #[error("expected a tensor of {expected}, found {found}")]
    DType {
        /// The type found.
        found: DType,
        /// The type expected.
        expected: DType,
    },
    /// Two shapes cannot be broadcast together.
    #[error("shapes {a:?} and {b:?} cannot be broadcast together")]
    Broadcast {
        /// One shape.
        a: Vec<usize>,
        /// The other.
        b: Vec<usize>,
    },
    /// An axis is outside the tensor's rank.
    #[error("axis {axis} is outside a tensor of rank {rank}")]
    Axis {
        /// The axis as given, possibly negative.
        axis: i64,
        /// The rank.
        rank: usize,
    },
    /// No conversion exists between the two types.
    #[error("no conversion from {from} to {to}")]
    Convert {
        /// The type found.
        from: DType,
        /// The type asked for.
        to: DType,
    },
}
