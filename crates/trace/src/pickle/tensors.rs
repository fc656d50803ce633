//! What a call in a pickle would have built, where that is a tensor.

use std::ops::Range;

use bytes::Bytes;
use isotrace_tensor::DType;

use super::machine::{Id, Object, Pickle};
use super::{numpy, torch};
use crate::header::Header;
use crate::strided::Strided;

/// How to build a tensor.
#[derive(Debug, Clone)]
pub enum Recipe {
    /// A view of a storage that lies outside the pickle.
    View {
        storage: Storage,
        view: Strided,
        /// Whether the elements are to be conjugated, or negated, when they are read.
        conjugate: bool,
        negate: bool,
    },
    /// An array of NumPy, described as in a `.npy` file.
    Array { header: Header, data: Data },
}

/// A storage of PyTorch.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Its name in the file.
    pub key: String,
    /// Its elements; `None` where it counts bytes.
    pub dtype: Option<DType>,
    /// Bytes before the first that belongs to it, for a storage that is part of another.
    pub skipped: usize,
    /// Its size.
    pub bytes: usize,
}

/// Where the elements of an array are.
#[derive(Debug, Clone)]
pub enum Data {
    /// In the pickle.
    Inside(Range<usize>),
    /// Written as text there, and made bytes again.
    Made(Bytes),
}

/// What an object is.
pub enum Kind {
    Tensor(Recipe),
    /// A tensor of a kind that cannot be read, and why.
    Unreadable(String),
    /// Something else, whose parts may be tensors.
    Other,
}

/// What an object would be, if its call were made.
pub fn kind(pickle: &Pickle, id: Id) -> Kind {
    let Object::Call(call) = pickle.get(id) else { return Kind::Other };
    let Some(name) = pickle.global(call.function) else { return Kind::Other };
    // Arrays come from `numpy.core` and, since NumPy 2, `numpy._core`.
    if name.starts_with("numpy.") {
        return numpy::kind(pickle, call, name);
    }
    if name.starts_with("torch.") { torch::kind(pickle, call, name, 0) } else { Kind::Other }
}
