//! Clip: min(max(x, lowest), highest). The limits are attributes before version 11, inputs since; where they cross, the
//! upper one wins. NaN passes.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::arithmetic::{Kind, binary};
use crate::budget::{self, Budget, Unit};
use crate::{Call, Flow, OpError, Operator, attributes};

#[derive(Debug)]
struct Clip {
    /// Limits of the old form, as the f32 the file has.
    limits: [Option<f32>; 2],
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let limits = if node.version < 11 {
        [attributes::float(node, "min")?, attributes::float(node, "max")?]
    } else {
        [None, None]
    };
    Ok(Box::new(Clip { limits }))
}

impl Operator for Clip {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let mut y = call.need(0, "input")?.clone();
        for (k, kind) in [Kind::Max, Kind::Min].into_iter().enumerate() {
            let limit = match self.limits[k] {
                Some(limit) => Some(Tensor::scalar(f64::from(limit)).cast(y.dtype())?),
                None => call.get(k + 1).cloned(),
            };
            if let Some(limit) = limit {
                if limit.len() != 1 {
                    let found = limit.shape();
                    return Err(OpError::Input(format!(
                        "a limit has shape {found:?}, it must be one number"
                    )));
                }
                y = binary(kind, &y, &limit.reshape(&[])?)?;
            }
        }
        Ok(vec![y])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, _: Unit) -> Result<Budget, OpError> {
        Ok(budget::exact(output.len()))
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{first, node, run_optional, tensor};

    #[test]
    fn limits_old_and_new() {
        let x = tensor(&[4], &[-2.0f32, 0.5, 7.0, f32::NAN]);
        let old = node("Clip", 6, &[("min", Attribute::Float(-1.0)), ("max", Attribute::Float(1.0))]);
        let y = first(&old, &[&x]);
        assert_eq!(y.as_slice::<f32>().unwrap()[..3], [-1.0, 0.5, 1.0]);
        assert!(y.as_slice::<f32>().unwrap()[3].is_nan());
        let (low, high) = (tensor(&[], &[3.0f32]), tensor(&[1], &[1.0f32]));
        let new = node("Clip", 13, &[]);
        assert_eq!(first(&new, &[&x, &low, &high]).as_slice::<f32>().unwrap()[..3], [1.0; 3]);
        let upper = run_optional(&new, &[Some(&x), None, Some(&high)]).unwrap();
        assert_eq!(upper[0].as_slice::<f32>().unwrap()[..3], [-2.0, 0.5, 1.0]);
        let x = tensor(&[3], &[-5i8, 0, 5]);
        let y = first(&new, &[&x, &tensor(&[], &[-1i8]), &tensor(&[], &[1i8])]);
        assert_eq!(y.as_slice::<i8>().unwrap(), [-1, 0, 1]);
    }
}
