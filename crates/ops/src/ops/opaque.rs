//! A call that somebody else made and of which nobody here knows what it computes: its outputs are those that were
//! recorded.
//!
//! A recording knows what such a call read and gave. As a node it keeps its place in the network: what hangs on it is
//! still computed from what came before it, its outputs can be another side's values, and two calls of it on the same
//! values are one call.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::budget::{Budget, Unit};
use crate::{Call, Decision, Flow, OpError, Operator};

/// The domain of calls that nobody here knows.
pub const DOMAIN: &str = "isotrace.opaque";

/// How many units of its largest element a kernel that nobody can replay may be off by. Without a fault, 0.5 at most,
/// whatever the type, of single operators that were recorded as modules; the smallest fault comes to 776 in float32.
pub const UNITS: f64 = 128.0;

#[derive(Debug)]
struct Opaque {
    name: String,
}

/// How far each element of `output` may be from what the kernel means, computed at `unit`.
pub fn allowed(output: &Tensor, unit: Unit) -> Result<f64, OpError> {
    let values = output.to_f64()?;
    let largest = values.iter().filter(|x| x.is_finite()).fold(0.0f64, |m, x| m.max(x.abs()));
    Ok(UNITS * unit.u * largest + unit.eta)
}

/// Takes a node of [`DOMAIN`] for what it is.
pub fn build(node: &Node) -> Box<dyn Operator> {
    Box::new(Opaque { name: node.op.clone() })
}

impl Operator for Opaque {
    fn run(&self, _: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Setting(format!(
            "nobody here knows what {} computes; it can only be taken as it was recorded",
            self.name
        )))
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        Ok(vec![allowed(output, unit)?; output.len()])
    }

    fn flow(&self) -> Flow {
        Flow::Decided
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }

    /// As with what was drawn at random: what one run gave, no other computes again.
    fn draws(&self) -> bool {
        true
    }

    fn is_opaque(&self) -> bool {
        true
    }

    fn keeps_half(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, tensor};

    #[test]
    fn it_stands_for_a_recorded_call_and_computes_nothing() {
        let n = Node { domain: DOMAIN.into(), ..node("aten.svd.default", 1, &[]) };
        let op = crate::build(&n).unwrap();
        assert!(op.is_opaque() && op.decision() == Decision::Outputs);
        let message = op.run(&Call::new(&[])).unwrap_err().to_string();
        assert!(message.contains("aten.svd.default"), "{message}");
        let y = tensor(&[3], &[1f64, -4.0, f64::NAN]);
        let budget = op.budget(&Call::new(&[]), 0, &y, Unit::F32).unwrap();
        let each = 4.0 * UNITS * Unit::F32.u + Unit::F32.eta;
        assert_eq!(budget, [each; 3], "by the largest element");
    }
}
