//! The operators: what each computes, how its rounding is bounded, how errors pass through it.
//!
//! An operator is one file under `ops/`: a struct with its parsed attributes that implements [`Operator`], a kernel
//! that is a free function over slices or views (generic over [`Float`], so that one text serves f32 and f64),
//! a rounding unit from [`budget`], and a table test. One line in `registry.rs` makes it known.
//!
//! Half-precision tensors never reach a kernel: the executor widens them to f32 and rounds the result once, unless
//! the operator only moves elements or converts them ([`Operator::keeps_half`]).

pub mod activation;
pub mod arguments;
pub mod attend;
pub mod attributes;
mod broadcast;
pub mod budget;
mod call;
pub mod convolve;
pub mod dispatch;
mod error;
mod float;
pub mod flow;
mod grid;
mod magnitude;
pub mod math;
pub mod moves;
pub mod nchwc;
mod normalise;
mod norms;
pub mod ops;
pub mod parallel;
pub mod product;
pub mod random;
mod reduction;
mod registry;
pub mod room;
pub mod spread;
#[cfg(test)]
pub(crate) mod testing;
pub mod walk;
pub mod window;

pub use call::{Bodies, Call, NoBodies, Precision};
pub use error::OpError;
pub use float::Float;
pub use flow::Flow;
pub use norms::Norms;
pub use registry::{Entry, build, entries, newest};

use isotrace_tensor::Tensor;

use budget::{Budget, Unit};

/// Where an operator turns numbers into decisions, which a float64 shadow of a run must not decide anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It does not: outputs vary continuously with float inputs.
    None,
    /// All outputs are decisions (a cast to integer, a comparison, rounding, arg-max): the shadow takes the
    /// outputs of the declared run.
    Outputs,
    /// Output 0 holds values of input 0 picked along this axis at the places output 1 names (top-k): the shadow
    /// takes the places from the declared run and the values from its own input.
    Picks {
        /// The axis; may be negative.
        axis: i64,
    },
    /// It decides on the way (which leaf of a tree counts) and hands on what follows from it. The shadow decides on its own
    /// inputs, rounded as the declared run has them; where rounding tips a decision, the outputs differ by a whole step.
    Inside,
}

/// One operator with its attributes parsed, ready to be called any number of times.
pub trait Operator: Send + Sync + std::fmt::Debug {
    /// Computes the outputs. In [`Precision::Float64`] every float input is f64 and every float output should be.
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError>;

    /// How a small change of the inputs reaches the outputs.
    fn flow(&self) -> Flow {
        Flow::General
    }

    /// For a sum of products: the sum of the products' absolute values, shaped as the output, and as [`run`](Self::run)
    /// on the absolute values of the inputs would give it. `None` for other operators.
    fn magnitude(&self, call: &Call<'_>) -> Result<Option<Tensor>, OpError> {
        let _ = call;
        Ok(None)
    }

    /// Upper bounds on [`magnitude`](Self::magnitude) that cost no product. `None` where there are none.
    fn norms(&self, call: &Call<'_>) -> Result<Option<Norms>, OpError> {
        let _ = call;
        Ok(None)
    }

    /// How far output `index` may lie from its exact value when computed at unit roundoff `unit`, element by
    /// element. `call` holds the inputs in f64 and `output` the f64 result. The default suits an operator that
    /// moves elements, decides, or is correctly rounded.
    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let _ = (call, index);
        match (self.flow(), self.decision()) {
            (Flow::Moves | Flow::Decided, _) | (_, Decision::Outputs) => Ok(budget::exact(output.len())),
            _ => budget::correctly_rounded(output, unit),
        }
    }

    /// The largest change of the outputs that changes of the inputs by up to `errors` (f64, shaped as the inputs;
    /// `None` for an exact input) bring about, to first order. `outputs` is the f64 result.
    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        flow::propagate(self.flow(), &|c| self.run(c), call, outputs, errors)
    }

    /// Which outputs are decisions.
    fn decision(&self) -> Decision {
        Decision::None
    }

    /// Whether it may draw its outputs at random: what one run drew, no other computes again.
    fn draws(&self) -> bool {
        false
    }

    /// Whether nobody here knows what it computes: its outputs are those that were recorded.
    fn is_opaque(&self) -> bool {
        false
    }

    /// Whether f16 and bf16 tensors are handed over as they are rather than widened to f32.
    fn keeps_half(&self) -> bool {
        self.flow() == Flow::Moves
    }
}
