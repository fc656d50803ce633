//! Cast, CastLike and BitCast: other element types.
//!
//! In [`Precision::Float64`] a cast to a float of any width keeps f64, so that narrowing
//! shows as a difference from float64 and not in it.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Rounding, ScaleRounding, Tensor};

use crate::budget::{self, Budget, Unit};
use crate::{Call, Decision, Flow, OpError, Operator, Precision, attributes};

#[derive(Debug)]
struct Cast {
    /// The type of input 1 where `None`.
    to: Option<DType>,
    rounding: Rounding,
}

fn rounding(node: &Node) -> Result<Rounding, OpError> {
    let scale = match attributes::text_or(node, "round_mode", "up")?.as_str() {
        "up" => ScaleRounding::Up,
        "down" => ScaleRounding::Down,
        "nearest" => ScaleRounding::Nearest,
        other => {
            return Err(OpError::Setting(format!("round_mode is {other:?}, it must be up, down or nearest")));
        }
    };
    Ok(Rounding { saturate: attributes::flag(node, "saturate", true)?, scale })
}

/// Parses a node. Version 1 names the type (`FLOAT16`), later versions number it.
pub fn cast(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let to = if node.version < 6 {
        let name = attributes::text_or(node, "to", "")?;
        DType::parse(&name.to_lowercase())
    } else {
        attributes::dtype(node, "to")?
    };
    let to = to.ok_or_else(|| OpError::Setting("Cast needs the attribute \"to\", an element type".into()))?;
    Ok(Box::new(Cast { to: Some(to), rounding: rounding(node)? }))
}

/// Parses a node.
pub fn cast_like(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Cast { to: None, rounding: rounding(node)? }))
}

impl Operator for Cast {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "input")?;
        let to = match self.to {
            Some(to) => to,
            None => call.need(1, "target_type")?.dtype(),
        };
        Ok(vec![data.cast_with(call.precision.resolve(to), self.rounding)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }

    // The rounding to a narrow type is not granted here: whether it belongs to the budget depends on the precision
    // in which the side computes as a whole, which is `unit`.
    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        budget::correctly_rounded(output, unit)
    }

    fn decision(&self) -> Decision {
        match self.to {
            Some(to) if !to.is_float() => Decision::Outputs,
            _ => Decision::None,
        }
    }
}

#[derive(Debug)]
struct BitCast {
    to: DType,
}

/// Parses a node.
pub fn bit_cast(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let to = attributes::dtype(node, "to")?
        .ok_or_else(|| OpError::Setting("BitCast needs the attribute \"to\", an element type".into()))?;
    Ok(Box::new(BitCast { to }))
}

/// Bits of one element in a file; types below a byte take a whole one in memory.
fn bits(dtype: DType) -> usize {
    match dtype {
        DType::I4 | DType::U4 | DType::F4E2M1 => 4,
        DType::I2 | DType::U2 => 2,
        other => 8 * other.size(),
    }
}

impl Operator for BitCast {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let to = self.to;
        let mut data = call.need(0, "input")?.clone();
        if call.precision == Precision::Float64 && data.dtype() == DType::F64 && bits(to) < 64 {
            // The bits asked for are those of the declared type. Of 32 bits there is one float, of fewer several.
            if bits(to) != 32 {
                return Err(OpError::Setting(format!(
                    "BitCast to {to} reads the bits of a narrow float, which a float64 evaluation does not have"
                )));
            }
            data = data.cast(DType::F32)?;
        }
        let from = data.dtype();
        if from == DType::String || to == DType::String || bits(from) != bits(to) {
            return Err(OpError::Input(format!(
                "BitCast needs types of equal width and no text: {from} has {} bits, {to} has {}",
                bits(from),
                bits(to)
            )));
        }
        let width = bits(to);
        let out = if width >= 8 {
            data.bit_cast(to)?
        } else {
            // The low bits hold the element; signed types extend their sign over the byte.
            let extend = |b: u8| match to {
                DType::I4 | DType::I2 => (((b << (8 - width)) as i8) >> (8 - width)) as u8,
                _ => b & ((1 << width) - 1),
            };
            let bytes: Vec<u8> = data.bytes().iter().map(|&b| extend(b)).collect();
            Tensor::from_pods(to, data.shape(), bytes)?
        };
        Ok(vec![out.cast(call.precision.resolve(to))?])
    }

    fn flow(&self) -> Flow {
        Flow::General
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, _: Unit) -> Result<Budget, OpError> {
        Ok(budget::exact(output.len()))
    }

    fn keeps_half(&self) -> bool {
        true
    }

    // Bits are no continuous function of anything.
    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;
    use isotrace_tensor::{I4, U4, f16};

    use super::*;
    use crate::testing::{errors, first, node, run, tensor};

    fn to(code: i64) -> (&'static str, Attribute) {
        ("to", Attribute::Int(code))
    }

    #[test]
    fn casts_as_a_table() {
        let floats = tensor(&[4], &[-1.5f32, 0.0, 2.5, 3e9]);
        let cases = [
            (1, floats.clone()),
            (6, tensor(&[4], &[-1, 0, 2, i32::MAX])),
            (9, tensor(&[4], &[true, false, true, true].map(isotrace_tensor::Bool::from))),
            (10, tensor(&[4], &[-1.5, 0.0, 2.5, f32::INFINITY].map(f16::from_f32))),
            (11, tensor(&[4], &[-1.5, 0.0, 2.5, 3e9])),
            (2, tensor(&[4], &[0u8, 0, 2, 255])),
        ];
        for (code, expected) in cases {
            assert!(first(&node("Cast", 13, &[to(code)]), &[&floats]).bit_eq(&expected), "to {code}");
        }
        let half = node("Cast", 1, &[("to", Attribute::Bytes(b"FLOAT16".to_vec()))]);
        assert_eq!(first(&half, &[&floats]).dtype(), DType::F16);
        assert_eq!(
            first(&node("CastLike", 15, &[]), &[&floats, &tensor::<i8>(&[0], &[])]).dtype(),
            DType::I8
        );
        for bad in
            [&[][..], &[to(0)], &[to(27)], &[to(-1)], &[to(1), ("round_mode", Attribute::Bytes(vec![]))]]
        {
            assert!(run(&node("Cast", 24, bad), &[&floats]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn saturation_follows_the_attribute() {
        let big = tensor(&[1], &[1e6f32]);
        let cast = |saturate| node("Cast", 19, &[to(17), ("saturate", Attribute::Int(saturate))]);
        let value = |n| first(&n, &[&big]).to_f64().unwrap()[0];
        assert_eq!(value(cast(1)), 448.0);
        assert!(value(cast(0)).is_nan());
    }

    #[test]
    fn float64_knows_no_narrowing_and_no_cast_is_granted_its_own() {
        let cast = crate::build(&node("Cast", 13, &[to(10)])).unwrap();
        let x = tensor(&[2], &[0.1f64, 1.0]);
        let inputs = [Some(&x)];
        let call = Call { precision: Precision::Float64, ..Call::new(&inputs) };
        let out = cast.run(&call).unwrap();
        assert!(out[0].bit_eq(&x));
        let budget = cast.budget(&call, 0, &out[0], Unit::F32).unwrap();
        let half = (f16::from_f64(0.1).to_f64() - 0.1).abs();
        assert!(half > budget[0], "{budget:?}");
        let budget = cast.budget(&call, 0, &out[0], Unit::of(DType::F16)).unwrap();
        assert!(half <= budget[0], "{budget:?}");
        assert_eq!(cast.decision(), Decision::None);
        assert_eq!(crate::build(&node("Cast", 13, &[to(7)])).unwrap().decision(), Decision::Outputs);
        let moved = errors(&node("Cast", 13, &[to(10)]), &[&x], &[Some(tensor(&[2], &[0.5f64, 0.0]))]);
        assert_eq!(moved, [0.5, 0.0]);
        let to_int = errors(&node("Cast", 13, &[to(7)]), &[&x], &[Some(tensor(&[2], &[0.5f64, 0.0]))]);
        assert_eq!(to_int, [0.0, 0.0]);
    }

    #[test]
    fn bits_keep_their_places() {
        let cases = [
            (tensor(&[1], &[1.0f32]), 6, tensor(&[1], &[0x3f80_0000i32])),
            (tensor(&[2], &[-1i8, 3]), 2, tensor(&[2], &[255u8, 3])),
            (tensor(&[2], &[U4(15), U4(7)]), 22, tensor(&[2], &[I4(-1), I4(7)])),
            (tensor(&[2], &[I4(-1), I4(7)]), 21, tensor(&[2], &[U4(15), U4(7)])),
        ];
        for (from, code, expected) in cases {
            assert!(
                first(&node("BitCast", 26, &[to(code)]), &[&from]).bit_eq(&expected),
                "{from:?} to {code}"
            );
        }
        assert!(run(&node("BitCast", 26, &[to(7)]), &[&tensor(&[1], &[1f32])]).is_err());
        assert!(run(&node("BitCast", 26, &[to(8)]), &[&tensor(&[1], &[1f32])]).is_err());
    }
}
