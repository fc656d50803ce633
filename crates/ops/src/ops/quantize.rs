//! QuantizeLinear and DequantizeLinear, of ONNX's own domain and of com.microsoft: y = round(x / scale) + zero point
//! within the range of the narrow type, and back.
//!
//! Scale and zero point are one number for the tensor, one for each place of `axis` (1 by default), or one for each
//! block of `block_size` places along it (version 21 on).

use isotrace_graph::Node;
use isotrace_tensor::{DType, Rounding, Tensor, normalise_axis};

use crate::budget::{self, Budget, Unit};
use crate::{Call, Decision, Flow, OpError, Operator, Precision, attributes};

#[derive(Debug, Clone, Copy)]
struct Layout {
    axis: i64,
    block: i64,
}

fn layout(node: &Node) -> Result<Layout, OpError> {
    Ok(Layout {
        axis: attributes::int_or(node, "axis", 1)?,
        block: attributes::int_or(node, "block_size", 0)?,
    })
}

/// Which scale an element takes: a tensor is seen as (outer, size, inner) around the axis.
enum Scales {
    One,
    Axis { size: usize, inner: usize },
    Blocks { size: usize, inner: usize, block: usize, blocks: usize },
}

impl Scales {
    fn new(x: &Tensor, scale: &Tensor, layout: Layout) -> Result<Self, OpError> {
        if scale.len() == 1 && layout.block == 0 {
            return Ok(Self::One);
        }
        let axis = normalise_axis(layout.axis, x.rank())?;
        let size = x.shape()[axis];
        let refuse = |expected: String| {
            Err(OpError::Input(format!(
                "scale of shape {:?} for data of shape {:?} along axis {axis}: {expected} is expected",
                scale.shape(),
                x.shape()
            )))
        };
        let inner: usize = if x.is_empty() { 1 } else { x.shape()[axis + 1..].iter().product() };
        if layout.block == 0 {
            return if scale.shape() == [size] {
                Ok(Self::Axis { size, inner })
            } else {
                refuse(format!("one number or {size}"))
            };
        }
        let block = usize::try_from(layout.block)
            .map_err(|_| OpError::Setting(format!("block_size is {}, it must be 0 or more", layout.block)))?;
        let mut blocked = x.shape().to_vec();
        blocked[axis] = size.div_ceil(block);
        if scale.shape() != blocked {
            return refuse(format!("{blocked:?} for blocks of {block}"));
        }
        Ok(Self::Blocks { size, inner, block, blocks: blocked[axis] })
    }

    /// The place of an element's scale.
    fn of(&self, i: usize) -> usize {
        match *self {
            Self::One => 0,
            Self::Axis { size, inner } => i / inner % size,
            Self::Blocks { size, inner, block, blocks } => {
                (i / inner / size * blocks + i / inner % size / block) * inner + i % inner
            }
        }
    }
}

/// The zero point as numbers, 0 where left out; shaped as the scale.
fn zero_points(zero: Option<&Tensor>, scale: &Tensor) -> Result<Vec<f64>, OpError> {
    match zero {
        None => Ok(vec![0.0; scale.len()]),
        Some(zero) if zero.len() == scale.len() => Ok(zero.to_f64()?.into_owned()),
        Some(zero) => Err(OpError::Input(format!(
            "zero point of shape {:?} for a scale of shape {:?}; they must be equal",
            zero.shape(),
            scale.shape()
        ))),
    }
}

#[derive(Debug)]
struct Quantize {
    layout: Layout,
    /// Where no zero point tells the type.
    dtype: Option<DType>,
    /// The type in which the quotient is formed, where it is not the widest at hand.
    quotient: Option<DType>,
    saturate: bool,
}

/// Parses a node.
pub fn quantize(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    // 0 stands for "as the inputs say" in both attributes.
    let optional = |name| match attributes::int(node, name)? {
        None | Some(0) => Ok::<_, OpError>(None),
        Some(_) => attributes::dtype(node, name),
    };
    Ok(Box::new(Quantize {
        layout: layout(node)?,
        dtype: optional("output_dtype")?,
        quotient: optional("precision")?,
        saturate: attributes::flag(node, "saturate", true)?,
    }))
}

/// The smallest and largest number of an integer type that tensors are quantised to.
fn range(dtype: DType) -> Option<(f64, f64)> {
    let bits = match dtype {
        DType::I2 | DType::U2 => 2,
        DType::I4 | DType::U4 => 4,
        DType::I8 | DType::U8 => 8,
        DType::I16 | DType::U16 => 16,
        DType::I32 => 32,
        _ => return None,
    };
    let all = 2f64.powi(bits);
    Some(if dtype.is_signed_int() { (-all / 2.0, all / 2.0 - 1.0) } else { (0.0, all - 1.0) })
}

impl Operator for Quantize {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, scale) = (call.need(0, "x")?, call.need(1, "y_scale")?);
        let zero = call.get(2);
        let dtype = zero.map(Tensor::dtype).or(self.dtype).unwrap_or(DType::U8);
        let scales = Scales::new(x, scale, self.layout)?;
        let zeros = zero_points(zero, scale)?;
        let (numbers, scale) = (x.to_f64()?, scale.to_f64()?);
        // Halves are divided in f32, as runtimes do, unless the attribute asks for less.
        let single = call.precision == Precision::Declared && x.dtype() != DType::F64;
        let narrow = self.quotient.filter(|q| single && matches!(q, DType::F16 | DType::BF16));
        let divide = |i: usize, x: f64| {
            let at = scales.of(i);
            (if single { f64::from(x as f32 / scale[at] as f32) } else { x / scale[at] }, zeros[at])
        };
        let mut quotients: Vec<(f64, f64)> = numbers.iter().enumerate().map(|(i, &x)| divide(i, x)).collect();
        if let Some(narrow) = narrow {
            let rounded = Tensor::vector(quotients.iter().map(|q| q.0).collect::<Vec<_>>()).cast(narrow)?;
            quotients.iter_mut().zip(rounded.to_f64()?.iter()).for_each(|(q, &r)| q.0 = r);
        }
        let values: Vec<f64> = match range(dtype) {
            Some((low, high)) => {
                quotients.iter().map(|(q, zero)| (q.round_ties_even() + zero).clamp(low, high)).collect()
            }
            None if dtype.is_float() => quotients.iter().map(|(q, zero)| q + zero).collect(),
            None => {
                let supported = "integers of 2 to 32 bits, floats of 4 and 8";
                return Err(OpError::DType { what: "y_zero_point", found: dtype, supported });
            }
        };
        let rounding = Rounding { saturate: self.saturate, ..Rounding::default() };
        let out = Tensor::from_vec(x.shape(), values)?.cast_with(dtype, rounding)?;
        Ok(vec![out.cast(call.precision.resolve(dtype))?])
    }

    fn keeps_half(&self) -> bool {
        true
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, _: Unit) -> Result<Budget, OpError> {
        Ok(budget::exact(output.len()))
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[derive(Debug)]
struct Dequantize {
    layout: Layout,
    dtype: Option<DType>,
}

/// Parses a node.
pub fn dequantize(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let dtype = match attributes::int(node, "output_dtype")? {
        None | Some(0) => None,
        Some(_) => attributes::dtype(node, "output_dtype")?,
    };
    Ok(Box::new(Dequantize { layout: layout(node)?, dtype }))
}

impl Operator for Dequantize {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, scale) = (call.need(0, "x")?, call.need(1, "x_scale")?);
        let dtype = self.dtype.unwrap_or(scale.dtype());
        let scales = Scales::new(x, scale, self.layout)?;
        let zeros = zero_points(call.get(2), scale)?;
        let single = call.precision == Precision::Declared && scale.dtype() != DType::F64;
        let scale = scale.to_f64()?;
        let one = |(i, &x): (usize, &f64)| {
            let at = scales.of(i);
            let x = x - zeros[at];
            if single { f64::from(x as f32 * scale[at] as f32) } else { x * scale[at] }
        };
        let values = x.to_f64()?.iter().enumerate().map(one).collect();
        Ok(vec![Tensor::from_vec(x.shape(), values)?.cast(call.precision.resolve(dtype))?])
    }

    fn flow(&self) -> Flow {
        Flow::Linear
    }

    fn keeps_half(&self) -> bool {
        true
    }

    /// u|y| + eta/2, c = 1; c = 2 for integers of 32 bits, which are rounded before they are scaled.
    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if call.need(0, "x")?.dtype() == DType::I32 {
            budget::library(output, unit)
        } else {
            budget::correctly_rounded(output, unit)
        }
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;
    use isotrace_tensor::{F8E4M3FN, I4, f16};

    use super::*;
    use crate::testing::{errors, first, node, run, tensor};

    fn int(name: &str, value: i64) -> (&str, Attribute) {
        (name, Attribute::Int(value))
    }

    #[test]
    fn rounding_and_range() {
        let x = tensor(&[6], &[0f32, 1., 3., -5., 1000., -1000.]);
        let scale = tensor(&[], &[2f32]);
        let cases = [
            (tensor(&[], &[128u8]), tensor(&[6], &[128u8, 128, 130, 126, 255, 0])),
            (tensor(&[], &[1i8]), tensor(&[6], &[1i8, 1, 3, -1, 127, -128])),
            (tensor(&[], &[I4(0)]), tensor(&[6], &[0, 0, 2, -2, 7, -8].map(I4))),
            (tensor(&[], &[0i16]), tensor(&[6], &[0i16, 0, 2, -2, 500, -500])),
            (
                tensor(&[], &[F8E4M3FN(0)]),
                tensor(&[6], &[0., 0.5, 1.5, -2.5, 448., -448.].map(|v| F8E4M3FN::from_f64(v, true))),
            ),
        ];
        for (zero, expected) in cases {
            let out = first(&node("QuantizeLinear", 21, &[]), &[&x, &scale, &zero]);
            assert!(out.bit_eq(&expected), "{zero:?}: {out:?}");
        }
        let typed = node("QuantizeLinear", 21, &[int("output_dtype", 3)]);
        assert_eq!(first(&typed, &[&x, &scale]).dtype(), DType::I8);
        assert_eq!(first(&node("QuantizeLinear", 10, &[]), &[&x, &scale]).dtype(), DType::U8);
        assert!(run(&node("QuantizeLinear", 21, &[int("output_dtype", 7)]), &[&x, &scale]).is_err());
    }

    #[test]
    fn scales_by_axis_and_block() {
        struct Case {
            attributes: Vec<(&'static str, Attribute)>,
            scale: Tensor,
            zero: Option<Tensor>,
            out: Option<[f32; 8]>,
        }
        let x = tensor(&[2, 4], &[1i8, 2, 3, 4, 5, 6, 7, 8]);
        let cases = [
            Case {
                attributes: vec![int("axis", 0)],
                scale: tensor(&[2], &[1f32, 10.]),
                zero: Some(tensor(&[2], &[0i8, 5])),
                out: Some([1., 2., 3., 4., 0., 10., 20., 30.]),
            },
            Case {
                attributes: vec![],
                scale: tensor(&[4], &[1f32, 10., 1., 10.]),
                zero: None,
                out: Some([1., 20., 3., 40., 5., 60., 7., 80.]),
            },
            Case {
                attributes: vec![int("axis", 1), int("block_size", 3)],
                scale: tensor(&[2, 2], &[1f32, 10., 2., 100.]),
                zero: None,
                out: Some([1., 2., 3., 40., 10., 12., 14., 800.]),
            },
            Case {
                attributes: vec![int("axis", 0), int("block_size", 2)],
                scale: tensor(&[1, 4], &[1f32, 10., 1., 10.]),
                zero: None,
                out: Some([1., 20., 3., 40., 5., 60., 7., 80.]),
            },
            Case { attributes: vec![], scale: tensor(&[2], &[1f32; 2]), zero: None, out: None },
            Case {
                attributes: vec![int("block_size", 2)],
                scale: tensor(&[4], &[1f32; 4]),
                zero: None,
                out: None,
            },
            Case {
                attributes: vec![int("block_size", -2)],
                scale: tensor(&[4], &[1f32; 4]),
                zero: None,
                out: None,
            },
            Case { attributes: vec![int("axis", 2)], scale: tensor(&[4], &[1f32; 4]), zero: None, out: None },
            Case {
                attributes: vec![],
                scale: tensor(&[4], &[1f32; 4]),
                zero: Some(tensor(&[1], &[0i8])),
                out: None,
            },
        ];
        for (row, Case { attributes, scale, zero, out }) in cases.into_iter().enumerate() {
            let inputs: Vec<&Tensor> = [&x, &scale].into_iter().chain(&zero).collect();
            let got = run(&node("DequantizeLinear", 21, &attributes), &inputs);
            let got = got.ok().map(|t| t[0].as_slice::<f32>().unwrap().to_vec());
            assert_eq!(got, out.map(|o| o.to_vec()), "row {row}");
        }
    }

    #[test]
    fn types_of_the_result() {
        let (x, scale) = (tensor(&[1], &[I4(-3)]), tensor(&[], &[f16::from_f32(0.5)]));
        let out = first(&node("DequantizeLinear", 23, &[]), &[&x, &scale]);
        assert!(out.bit_eq(&tensor(&[1], &[f16::from_f32(-1.5)])), "{out:?}");
        let out = first(&node("DequantizeLinear", 23, &[int("output_dtype", 1)]), &[&x, &scale]);
        assert!(out.bit_eq(&tensor(&[1], &[-1.5f32])));
    }

    #[test]
    fn errors_of_the_scale_are_scaled() {
        let inputs = [&tensor(&[2], &[-3i8, 2]), &tensor(&[], &[0.5f64])];
        let got =
            errors(&node("DequantizeLinear", 13, &[]), &inputs, &[None, Some(tensor(&[], &[0.125f64]))]);
        assert!((got[0] - 0.375).abs() < 1e-6 && (got[1] - 0.25).abs() < 1e-6, "{got:?}");
    }
}
