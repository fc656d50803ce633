//! Floor, Ceil, Round (halves to even), IsNaN and IsInf: decisions about one number.

use isotrace_graph::Node;
use isotrace_tensor::{Bool, Tensor};

use crate::math::each;
use crate::{Call, Decision, Flow, OpError, Operator, attributes, for_float};

#[derive(Debug, Clone, Copy)]
enum Round {
    Floor,
    Ceil,
    Even,
    IsNan,
    IsInf { negative: bool, positive: bool },
}

/// Parses a node of Floor.
pub fn floor(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Round::Floor))
}
/// Parses a node of Ceil.
pub fn ceil(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Round::Ceil))
}
/// Parses a node of Round.
pub fn round(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Round::Even))
}
/// Parses a node of IsNaN.
pub fn is_nan(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Round::IsNan))
}
/// Parses a node of IsInf.
pub fn is_inf(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let negative = attributes::flag(node, "detect_negative", true)?;
    Ok(Box::new(Round::IsInf { negative, positive: attributes::flag(node, "detect_positive", true)? }))
}

impl Operator for Round {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let y = for_float!(x.dtype(), "X", T => {
            let (shape, x) = (x.shape(), x.as_slice::<T>()?);
            let truth = |y: bool| Bool(u8::from(y));
            match *self {
                Self::Floor => Ok(Tensor::from_vec(shape, each(x, T::floor))?),
                Self::Ceil => Ok(Tensor::from_vec(shape, each(x, T::ceil))?),
                Self::Even => Ok(Tensor::from_vec(shape, each(x, T::round_ties_even))?),
                Self::IsNan => Ok(Tensor::from_vec(shape, each(x, |x| truth(x.is_nan())))?),
                Self::IsInf { negative, positive } => Ok(Tensor::from_vec(
                    shape,
                    each(x, |x| truth(positive && x == T::INFINITY || negative && x == T::NEG_INFINITY)),
                )?),
            }
        })?;
        Ok(vec![y])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;
    use isotrace_tensor::Bool;

    use crate::testing::{first, node, tensor};

    #[test]
    fn halves_and_signs() {
        let x = tensor(&[6], &[-1.5, -0.5, 0.5, 1.5, 2.5, -0.2]);
        let cases = [
            ("Floor", [-2.0, -1.0, 0.0, 1.0, 2.0, -1.0]),
            ("Ceil", [-1.0, -0.0, 1.0, 2.0, 3.0, -0.0]),
            ("Round", [-2.0, -0.0, 0.0, 2.0, 2.0, -0.0]),
        ];
        for (op, expected) in cases {
            let y = first(&node(op, 13, &[]), &[&x]);
            assert!(y.bit_eq(&tensor(&[6], &expected)), "{op}: {y:?}");
        }
    }

    #[test]
    fn what_is_not_finite() {
        let x = tensor(&[4], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38]);
        let cases = [
            (node("IsNaN", 13, &[]), [1, 0, 0, 0]),
            (node("IsInf", 10, &[]), [0, 1, 1, 0]),
            (node("IsInf", 10, &[("detect_negative", Attribute::Int(0))]), [0, 1, 0, 0]),
            (node("IsInf", 10, &[("detect_positive", Attribute::Int(0))]), [0, 0, 1, 0]),
        ];
        for (node, expected) in cases {
            assert_eq!(first(&node, &[&x]).as_slice::<Bool>().unwrap(), expected.map(Bool), "{}", node.op);
        }
    }
}
