//! Constant: a tensor in an attribute. ConstantOfShape: one value in a given shape.

use isotrace_graph::{Attribute, Node};
use isotrace_tensor::Tensor;

use crate::{Call, Flow, OpError, Operator, arguments, attributes, ops};

#[derive(Debug)]
struct Constant {
    value: Tensor,
}

/// Parses a node: the one attribute among `value`, `value_float`, `value_ints` and their kin says what it is.
pub fn constant(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let text = |b: &Vec<u8>| String::from_utf8_lossy(b).into_owned();
    let mut forms = node.attributes.iter().filter(|(name, _)| name.contains("value"));
    let value = match (forms.next(), forms.next()) {
        (Some((_, value)), None) => match value {
            Attribute::Tensor(t) => t.clone(),
            Attribute::Float(x) => Tensor::scalar(*x),
            Attribute::Int(x) => Tensor::scalar(*x),
            Attribute::Bytes(s) => Tensor::from_strings(&[], vec![text(s)])?,
            Attribute::Floats(x) => Tensor::vector(x.clone()),
            Attribute::Ints(x) => Tensor::vector(x.clone()),
            Attribute::Strings(s) => Tensor::from_strings(&[s.len()], s.iter().map(text).collect())?,
            other => {
                return Err(OpError::Setting(format!(
                    "a Constant of kind {} is not supported",
                    other.kind()
                )));
            }
        },
        (None, _) => {
            return Err(OpError::Setting("a Constant has no value: one value attribute is needed".into()));
        }
        (Some((a, _)), Some((b, _))) => {
            return Err(OpError::Setting(format!(
                "a Constant has two values, {a:?} and {b:?}; it must have one"
            )));
        }
    };
    Ok(Box::new(Constant { value }))
}

impl Operator for Constant {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![self.value.cast(call.precision.resolve(self.value.dtype()))?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[derive(Debug)]
struct ConstantOfShape {
    value: Tensor,
}

/// Parses a node: attribute `value` holds one element, f32 0 where left out.
pub fn constant_of_shape(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let value = attributes::tensor(node, "value")?.unwrap_or_else(|| Tensor::scalar(0f32));
    if value.len() != 1 {
        return Err(OpError::Setting(format!(
            "attribute \"value\" must hold one element, it holds {}",
            value.len()
        )));
    }
    Ok(Box::new(ConstantOfShape { value: value.reshape(&[])? }))
}

impl Operator for ConstantOfShape {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = arguments::sizes(&arguments::need_ints(call, 0, "input")?, "input")?;
        let value = self.value.cast(call.precision.resolve(self.value.dtype()))?;
        Ok(vec![ops::expand::broadcast(&value, &shape)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[cfg(test)]
mod tests {
    use isotrace_tensor::DType;

    use super::*;
    use crate::Precision;
    use crate::testing::{first, ints, node, run, tensor};

    #[test]
    fn every_form_of_a_constant() {
        let bytes = |s: &str| s.as_bytes().to_vec();
        let cases = [
            ("value", Attribute::Tensor(tensor(&[1, 2], &[1u8, 2])), tensor(&[1, 2], &[1u8, 2])),
            ("value_float", Attribute::Float(1.5), tensor(&[], &[1.5f32])),
            ("value_int", Attribute::Int(-3), tensor(&[], &[-3i64])),
            ("value_floats", Attribute::Floats(vec![]), tensor::<f32>(&[0], &[])),
            ("value_ints", Attribute::Ints(vec![1, 2]), ints(&[1, 2])),
            (
                "value_string",
                Attribute::Bytes(bytes("x")),
                Tensor::from_strings(&[], vec!["x".into()]).unwrap(),
            ),
            (
                "value_strings",
                Attribute::Strings(vec![bytes("x")]),
                Tensor::from_strings(&[1], vec!["x".into()]).unwrap(),
            ),
        ];
        for (name, attribute, expected) in cases {
            assert!(first(&node("Constant", 13, &[(name, attribute)]), &[]).bit_eq(&expected), "{name}");
        }
        let two = [("value_int", Attribute::Int(1)), ("value_float", Attribute::Float(1.0))];
        for bad in [&two[..], &[], &[("sparse_value", Attribute::Other("sparse tensor"))]] {
            assert!(run(&node("Constant", 13, bad), &[]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_value_in_any_shape() {
        let of = |value: Tensor| node("ConstantOfShape", 9, &[("value", Attribute::Tensor(value))]);
        assert!(first(&of(tensor(&[1], &[7i32])), &[&ints(&[2, 1])]).bit_eq(&tensor(&[2, 1], &[7i32, 7])));
        let zero = first(&node("ConstantOfShape", 9, &[]), &[&ints(&[])]);
        assert!(zero.bit_eq(&tensor(&[], &[0f32])));
        assert_eq!(first(&of(tensor(&[1], &[7i32])), &[&ints(&[3, 0])]).shape(), [3, 0]);
        assert!(run(&of(tensor(&[1], &[7i32])), &[&ints(&[-1])]).is_err());
        assert!(run(&of(tensor(&[1], &[7i32])), &[&ints(&[1 << 40, 1 << 20])]).is_err());
        assert!(run(&of(tensor(&[2], &[7i32, 8])), &[&ints(&[1])]).is_err());
    }

    #[test]
    fn in_float64_constants_are_wide() {
        let operator =
            crate::build(&node("Constant", 13, &[("value_float", Attribute::Float(0.1))])).unwrap();
        let call = Call { precision: Precision::Float64, ..Call::new(&[]) };
        let out = operator.run(&call).unwrap();
        assert_eq!(out[0].dtype(), DType::F64);
        assert_eq!(out[0].as_slice::<f64>().unwrap(), [f64::from(0.1f32)]);
    }
}
