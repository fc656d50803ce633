//! Tensors: an element type, a shape and bytes that may be owned or mapped from a file.
//!
//! A [`Tensor`] is dense and in C order (the last axis varies fastest). It is immutable and cheap to clone:
//! clones, reshapes and slices of mapped files share one buffer. Kernels read typed slices
//! ([`Tensor::as_slice`]) or strided [`View`]s, and build new tensors from vectors ([`Tensor::from_vec`]).
//!
//! Types narrower than a byte (`i4`, `u4`, `i2`, `u2`, `f4e2m1`) are held one element a byte; packing belongs
//! to the file formats.

mod convert;
mod dtype;
mod element;
mod error;
mod halves;
mod narrow;
mod permute;
mod room;
mod shape;
mod tensor;
mod view;

pub use convert::Rounding;
pub use dtype::DType;
pub use element::{
    Bool, C64, C128, Element, F4E2M1, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, I2, I4, U2, U4,
};
pub use error::TensorError;
pub use half::{bf16, f16};
pub use halves::{nearest_bf16, nearest_f16};
pub use narrow::ScaleRounding;
pub use shape::{MAX_ELEMENTS, Odometer, broadcast_shapes, element_count, normalise_axis, strides, unravel};
pub use tensor::Tensor;
pub use view::View;
