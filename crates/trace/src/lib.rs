//! Tensors in other people's files: `.npy`, `.npz`, `.safetensors`, ONNX `.pb`, and folders of them.
//!
//! [`open`] tells the format by content and gives a [`Source`]: names at once, each tensor when it is asked for, its
//! bytes shared with the mapped file wherever they lie aligned and in C order. [`read_tensors`] gives all of them. [`write_tensors`] writes to a temporary name beside the target and renames, so that nobody ever sees half
//! a file. Nothing in any file is executed: pickles are refused, whatever they claim to hold.

mod archive;
mod error;
mod folder;
mod gguf;
mod header;
mod json;
mod npy;
mod npz;
mod paddle;
mod padiff;
mod pickle;
mod polygraphy;
mod raw;
mod read;
mod safe;
mod source;
mod strided;
mod torch;
mod torch_write;
pub mod trace;
mod write;

pub use error::TraceError;
pub use read::{open, read_tensors};
pub use source::{Info, Kind, Source};
pub use trace::{Trace, Writer};
pub use write::{Format, Selection, Tensors, write_tensors, write_tensors_as};
