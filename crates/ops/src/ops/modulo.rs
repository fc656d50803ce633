//! Mod: the remainder. With `fmod` 0 it has the sign of the divisor (floored division), with 1 that of the dividend.
//!
//! Integer division by zero leaves 0.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::broadcast::zip;
use crate::{Call, Flow, OpError, Operator, attributes, for_float, for_int};

#[derive(Debug)]
struct Mod {
    truncated: bool,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Mod { truncated: attributes::flag(node, "fmod", false)? }))
}

/// The remainder of floored division of a float: the sign of `y`, also of a zero.
macro_rules! floored {
    ($x:expr, $y:expr) => {{
        let (x, y) = ($x, $y);
        let r = x % y;
        if r == 0.0 {
            r.abs().copysign(y)
        } else if (r < 0.0) != (y < 0.0) {
            // An infinite divisor of the other sign is the remainder itself.
            r + y
        } else {
            r
        }
    }};
}

impl Operator for Mod {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (call.need(0, "A")?, call.need(1, "B")?);
        let out = if a.dtype().is_float() {
            for_float!(a.dtype(), "A", T => {
                let f: fn(T, T) -> T = if self.truncated { |x, y| x % y } else { |x, y| floored!(x, y) };
                let (shape, data) = zip(&a.view::<T>()?, &b.view::<T>()?, f)?;
                Ok(Tensor::from_vec(&shape, data)?)
            })?
        } else {
            for_int!(a.dtype(), "A", T => {
                let truncated = self.truncated;
                let f = |x: T, y: T| {
                    let r = x.checked_rem(y).unwrap_or(0);
                    // The signs differ where the sum of remainder and divisor lies between them.
                    let differ = r != 0 && (r > 0) != (y > 0);
                    if differ && !truncated { r.wrapping_add(y) } else { r }
                };
                let (shape, data) = zip(&a.view::<T>()?, &b.view::<T>()?, f)?;
                Ok(Tensor::from_vec(&shape, data)?)
            })?
        };
        Ok(vec![out])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{first, node, tensor};

    #[test]
    fn signs() {
        let (floored, truncated) = (node("Mod", 13, &[]), node("Mod", 13, &[("fmod", Attribute::Int(1))]));
        let (x, y) = (tensor(&[5], &[-4i64, 7, 5, 4, i64::MIN]), tensor(&[5], &[2i64, -3, 8, 0, -1]));
        assert_eq!(first(&floored, &[&x, &y]).as_slice::<i64>().unwrap(), [0, -2, 5, 0, 0]);
        assert_eq!(first(&truncated, &[&x, &y]).as_slice::<i64>().unwrap(), [0, 1, 5, 0, 0]);
        let inf = f64::INFINITY;
        let (x, y) = (tensor(&[4], &[-4.3, 7.2, 5.0, -1.0]), tensor(&[4], &[2.1, -3.4, 8.0, inf]));
        let close = |got: &[f64], expected: [f64; 4]| {
            got.iter().zip(expected).all(|(a, b)| a == &b || (a - b).abs() < 1e-14)
        };
        assert!(close(first(&floored, &[&x, &y]).as_slice().unwrap(), [2.0, -3.0, 5.0, inf]));
        assert!(close(first(&truncated, &[&x, &y]).as_slice().unwrap(), [-0.1, 0.4, 5.0, -1.0]));
    }
}
