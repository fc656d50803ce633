//! The tensors a graph is run on: given by the user, made from a seed, or both.
//!
//! Two models are compared on the same inputs. [`bind`] pairs the inputs of both by name and, where names differ,
//! by what consumes them ([`role`]); never by position, because two inputs of one type and shape can change
//! places without anybody noticing. Sizes that the files leave open are agreed on by both sides ([`dims`]), and
//! what no file provides is made so that a network can work with it ([`make`]): indices stay inside their tables,
//! masks let everything through, positions count up.

mod bind;
pub mod dims;
mod error;
mod given;
pub mod make;
mod names;
mod random;
pub mod role;
mod usage;

pub use bind::{Bound, Fed, Request, Tensors, bind, bind_one};
pub use error::InputError;
pub use names::nearest;
