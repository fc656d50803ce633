//! Executes a graph: in declared precision, in float64, or in float64 as the shadow of a declared run.
//!
//! [`Plan`] holds a graph with its operators built. [`Plan::run`] executes it whole; [`evaluate`] calls one
//! operator, which is what alignment and diagnosis do when they put other values in. Both follow the same policy:
//!
//! * Half types are widened to f32 for the kernel and rounded once at its output.
//! * In [`Precision::Float64`](isotrace_ops::Precision) every float is f64. Where the outputs of the declared call
//!   are given ([`Evaluation::decided`]), decisions (casts to integer, comparisons, rounding, top-k) are taken from
//!   it, because they belong to the declared precision: int(log(n/8)/log(16)*8) lands on an integer in f32 and just below it
//!   in f64, and the other bucket is no better answer.

mod error;
mod evaluate;
mod plan;

pub use error::RunError;
pub use evaluate::{Evaluation, evaluate};
pub use plan::{Keep, Known, Options, Plan, Run, evaluate_with_bodies};
