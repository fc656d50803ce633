//! BitShift, BitwiseAnd, BitwiseOr, BitwiseXor and BitwiseNot on integers.
//!
//! Shifts by the width of the type or more leave 0, or the sign where a negative number moves right.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::broadcast::zip;
use crate::math::each;
use crate::{Call, OpError, Operator, attributes, for_int};

#[derive(Debug, Clone, Copy)]
enum Kind {
    And,
    Or,
    Xor,
    Left,
    Right,
}

#[derive(Debug)]
struct Bits {
    kind: Kind,
}

#[derive(Debug)]
struct Not;

/// Parses a node of BitwiseAnd.
pub fn and(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Bits { kind: Kind::And }))
}
/// Parses a node of BitwiseOr.
pub fn or(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Bits { kind: Kind::Or }))
}
/// Parses a node of BitwiseXor.
pub fn xor(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Bits { kind: Kind::Xor }))
}
/// Parses a node of BitwiseNot.
pub fn not(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Not))
}
/// Parses a node of BitShift.
pub fn shift(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let kind = match attributes::text_or(node, "direction", "")?.as_str() {
        "LEFT" => Kind::Left,
        "RIGHT" => Kind::Right,
        other => {
            return Err(OpError::Setting(format!("direction is {other:?}, expected \"LEFT\" or \"RIGHT\"")));
        }
    };
    Ok(Box::new(Bits { kind }))
}

impl Operator for Bits {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (call.need(0, "A")?, call.need(1, "B")?);
        #[expect(clippy::unnecessary_cast, reason = "one of the types is u64 itself")]
        let out = for_int!(a.dtype(), "A", T => {
            // Negative places of signed types, which ONNX leaves undefined, count as too many.
            let places = |y: T| (y as u64).min(64) as u32;
            let f: &(dyn Fn(T, T) -> T + Sync) = match self.kind {
                Kind::And => &|x, y| x & y,
                Kind::Or => &|x, y| x | y,
                Kind::Xor => &|x, y| x ^ y,
                Kind::Left => &|x, y| x.checked_shl(places(y)).unwrap_or(0),
                // All bits but the sign are gone after one place less than the width.
                Kind::Right => &|x, y| x.checked_shr(places(y)).unwrap_or(x >> (T::BITS - 1) >> 1u32),
            };
            let (shape, data) = zip(&a.view::<T>()?, &b.view::<T>()?, f)?;
            Ok(Tensor::from_vec(&shape, data)?)
        })?;
        Ok(vec![out])
    }
}

impl Operator for Not {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let y = for_int!(x.dtype(), "X", T => Ok(Tensor::from_vec(x.shape(), each(x.as_slice::<T>()?, |x| !x))?))?;
        Ok(vec![y])
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{first, node, run, tensor};

    #[test]
    fn by_bit() {
        let (a, b) = (tensor(&[3], &[0b1100u8, 255, 1]), tensor(&[3], &[0b1010u8, 1, 0]));
        let direction = |d: &str| node("BitShift", 11, &[("direction", Attribute::Bytes(d.into()))]);
        let cases = [
            (node("BitwiseAnd", 18, &[]), [0b1000, 1, 0]),
            (node("BitwiseOr", 18, &[]), [0b1110, 255, 1]),
            (node("BitwiseXor", 18, &[]), [0b0110, 254, 1]),
            (direction("LEFT"), [0, 254, 1]),
            (direction("RIGHT"), [0, 127, 1]),
        ];
        for (node, expected) in cases {
            assert_eq!(first(&node, &[&a, &b]).as_slice::<u8>().unwrap(), expected, "{}", node.op);
        }
        assert_eq!(first(&node("BitwiseNot", 18, &[]), &[&a]).as_slice::<u8>().unwrap(), [0xf3, 0, 254]);
        let (a, b) = (tensor(&[3], &[-8i32, -8, 8]), tensor(&[3], &[1i32, 40, 40]));
        assert_eq!(first(&direction("RIGHT"), &[&a, &b]).as_slice::<i32>().unwrap(), [-4, -1, 0]);
        assert!(run(&direction("UP"), &[&a, &b]).is_err());
    }
}
