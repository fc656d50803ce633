//! Pickles, of which nothing is executed: what they hold, and the tensors in it.

mod machine;
mod numpy;
mod tensors;
mod torch;
mod walk;

pub use machine::{Id, Object, Pickle, read};
pub use tensors::{Data, Recipe, Storage};
pub use walk::walk;
