//! ONNX Runtime as a backend: what it really ran, and every value of that run.
//!
//! The runtime rewrites a model before it runs it, and a model whose inner values are outputs is rewritten less: asking
//! for them changes what is computed. So nothing is asked of the run that counts. [`Prepared`] lets the runtime save the
//! model that its optimiser makes; that model, with all its values as outputs and the optimiser switched off, is what
//! [`Prepared::record`] runs to see inside. Beside it runs the user's model, untouched. Where the final outputs of the
//! two differ by a bit, the recording says so, and which values must not be looked at ([`Effect`]).
//!
//! Values kept in blocks of channels come back in plain order, as [`isotrace_ops::nchwc`] holds them.
//!
//! One thread and the CPU, so that a run repeats. The library is found when it is needed ([`find`]); nothing is loaded,
//! downloaded or linked before.

mod bisect;
mod convert;
mod emit;
mod error;
pub mod find;
mod folder;
mod layout;
mod names;
mod record;
mod runtime;

pub use bisect::responsible;
pub use error::OrtError;
pub use folder::clean_up;
pub use record::{Effect, Prepared, Recording};
pub use runtime::{Level, Runtime, THREADS};
