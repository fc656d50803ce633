//! PRelu: x, or slope times x below 0. The slope broadcasts to x; before version 7 a vector of slopes ran along axis 1.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::arithmetic::Number;
use crate::broadcast::{line_up, zip};
use crate::{Call, Flow, OpError, Operator, for_number};

#[derive(Debug)]
struct PRelu {
    channels: bool,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(PRelu { channels: node.version < 7 }))
}

impl Operator for PRelu {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, slope) = (call.need(0, "X")?, call.need(1, "slope")?);
        let along = (self.channels && slope.rank() == 1 && slope.len() > 1 && x.rank() > 1).then_some(1);
        let slope = line_up(slope, along, x.rank())?;
        let y = for_number!(x.dtype(), "X", T => {
            let f = |x: T, s: T| if x < T::default() { s.times(x) } else { x };
            let (shape, data) = zip(&x.view::<T>()?, &slope.view::<T>()?, f)?;
            Ok(Tensor::from_vec(&shape, data)?)
        })?;
        if y.shape() != x.shape() {
            let (found, expected) = (slope.shape(), x.shape());
            return Err(OpError::Input(format!(
                "slope of shape {found:?} does not broadcast to {expected:?}"
            )));
        }
        Ok(vec![y])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{first, node, run, tensor};

    #[test]
    fn slopes_of_either_kind() {
        let x = tensor(&[1, 2, 2], &[-1.0, 2.0, -3.0, -4.0]);
        let slope = tensor(&[2], &[0.5, 0.25]);
        let new = first(&node("PRelu", 16, &[]), &[&x, &slope]);
        assert_eq!(new.as_slice::<f64>().unwrap(), [-0.5, 2.0, -1.5, -1.0]);
        let old = first(&node("PRelu", 6, &[]), &[&x, &slope]);
        assert_eq!(old.as_slice::<f64>().unwrap(), [-0.5, 2.0, -0.75, -1.0]);
        assert!(run(&node("PRelu", 16, &[]), &[&slope, &x]).is_err());
    }
}
