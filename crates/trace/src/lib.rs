//! Tensors in other people's files: `.npy`, `.npz`, `.safetensors`, ONNX `.pb`, and folders of them.
//!
//! [`read_tensors`] tells the format by content, maps the file, and shares its bytes wherever they lie aligned and in
//! C order. [`write_tensors`] writes to a temporary name beside the target and renames, so that nobody ever sees half
//! a file. Nothing in any file is executed: pickles are refused, whatever they claim to hold.

mod error;
mod folder;
mod header;
mod npy;
mod npz;
mod read;
mod safe;
mod write;

pub use error::TraceError;
pub use read::read_tensors;
pub use write::{Format, write_tensors, write_tensors_as};
