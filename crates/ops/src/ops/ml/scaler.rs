//! Scaler: (x - offset) scale, feature by feature. Binarizer: whether x is above a threshold, as 1 or 0. Imputer: another
//! value in the place of one that stands for a missing one.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::{computing, numbers};
use crate::budget::{self, Budget, Unit};
use crate::{Call, Decision, Flow, OpError, Operator, attributes, flow};

/// The value of a list for element `i`, whose last axis has as many features as the list, or any where it holds one.
fn by_feature<T: Copy>(list: &[T], i: usize) -> T {
    list[i % list.len()]
}

/// Checks that a list holds a value for each feature, or one for all.
fn check<T>(list: &[T], name: &str, x: &Tensor) -> Result<(), OpError> {
    let width = x.shape().last().copied().unwrap_or(1);
    if list.len() == 1 || list.len() == width {
        return Ok(());
    }
    Err(OpError::Input(format!("{name} holds {} values, X has {width} features", list.len())))
}

#[derive(Debug)]
struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

/// Parses a node of Scaler.
pub fn scaler(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let list = |name, default| {
        let found = attributes::floats(node, name)?.unwrap_or_default();
        Ok::<_, OpError>(if found.is_empty() { vec![default] } else { found })
    };
    Ok(Box::new(Scaler { offset: list("offset", 0.0)?, scale: list("scale", 1.0)? }))
}

impl Operator for Scaler {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        check(&self.offset, "offset", x)?;
        check(&self.scale, "scale", x)?;
        computing!(call, T => {
            let x = numbers::<T>(x)?;
            let of = |list: &[f32], i| T::from(by_feature(list, i));
            let y = x.as_slice::<T>()?.iter().enumerate();
            let y = y.map(|(i, x)| (x - of(&self.offset, i)) * of(&self.scale, i)).collect();
            Ok(vec![Tensor::from_vec::<T>(x.shape(), y)?])
        })
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let x = numbers::<f64>(call.need(0, "X")?)?;
        let terms = x.as_slice::<f64>()?.iter().enumerate().map(|(i, x)| {
            let of = |list: &[f32]| f64::from(by_feature(list, i).abs());
            of(&self.scale) * (x.abs() + of(&self.offset))
        });
        budget::steps(output, terms, unit)
    }
}

#[derive(Debug)]
struct Binarizer {
    threshold: f32,
}

/// Parses a node of Binarizer.
pub fn binarizer(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Binarizer { threshold: attributes::float_or(node, "threshold", 0.0)? }))
}

impl Operator for Binarizer {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let threshold = f64::from(self.threshold);
        let y = x.to_f64()?.iter().map(|&x| f64::from(u8::from(x > threshold))).collect();
        Ok(vec![Tensor::from_vec::<f64>(x.shape(), y)?.cast(x.dtype())?])
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }

    fn flow(&self) -> Flow {
        Flow::Decided
    }
}

#[derive(Debug)]
struct Imputer {
    /// What stands for a missing float, and what takes its place.
    floats: (f32, Vec<f32>),
    ints: (i64, Vec<i64>),
}

/// Parses a node of Imputer.
pub fn imputer(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Imputer {
        floats: (
            attributes::float_or(node, "replaced_value_float", 0.0)?,
            attributes::floats(node, "imputed_value_floats")?.unwrap_or_default(),
        ),
        ints: (
            attributes::int_or(node, "replaced_value_int64", 0)?,
            attributes::ints(node, "imputed_value_int64s")?.unwrap_or_default(),
        ),
    }))
}

impl Imputer {
    fn missing(&self, x: f64) -> bool {
        // The value is stored in f32, and looked for among numbers that are f32 in the declared run.
        x as f32 == self.floats.0 || x.is_nan() && self.floats.0.is_nan()
    }
}

impl Operator for Imputer {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let found = x.dtype();
        if found.is_float() {
            let (_, imputed) = &self.floats;
            check(imputed, "imputed_value_floats", x)?;
            let y = x.to_f64()?;
            let y = y.iter().enumerate();
            let y = y.map(|(i, &x)| if self.missing(x) { by_feature(imputed, i).into() } else { x });
            return Ok(vec![Tensor::from_vec(x.shape(), y.collect())?.cast(found)?]);
        }
        if !found.is_int() {
            return Err(OpError::DType { what: "X", found, supported: "numbers" });
        }
        let (replaced, imputed) = &self.ints;
        check(imputed, "imputed_value_int64s", x)?;
        let y = x.to_i64()?;
        let y = y.iter().enumerate();
        let y = y.map(|(i, x)| if x == replaced { by_feature(imputed, i) } else { *x });
        Ok(vec![Tensor::from_vec(x.shape(), y.collect())?.cast(found)?])
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, _: Unit) -> Result<Budget, OpError> {
        Ok(budget::exact(output.len()))
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let Some(Some(errors)) = errors.first() else { return flow::none(outputs) };
        let (x, errors) = (call.need(0, "X")?.to_f64()?, errors.to_f64()?);
        let kept = x.iter().zip(errors.iter());
        let kept = kept.map(|(&x, &e)| if self.missing(x) { 0.0 } else { e }).collect();
        Ok(vec![Tensor::from_vec(outputs[0].shape(), kept)?])
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::super::testing::{close, floats, ints, node, noise, share};
    use crate::testing::{errors, first, run, tensor};

    #[test]
    fn scaled_feature_by_feature() {
        let x = tensor(&[2, 3], &[0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let settings = [("offset", floats(&[1.0, 2.0, 3.0])), ("scale", floats(&[2.0, 1.0, 0.5]))];
        let scaler = node("Scaler", 1, &settings);
        assert!(close(&first(&scaler, &[&x]), &[-2.0, -1.0, -0.5, 4.0, 2.0, 1.0]));
        let whole = first(&node("Scaler", 1, &[("scale", floats(&[0.5]))]), &[&tensor(&[1, 2], &[1i32, 4])]);
        assert_eq!(whole.as_slice::<f32>().unwrap(), [0.5, 2.0]);
        assert!(run(&scaler, &[&tensor(&[1, 2], &[1f32, 2.0])]).is_err());
        let used = share(&scaler, &[&noise(&[100, 3], 1)], 0);
        assert!(used > 0.0 && used < 1.0, "{used}");
    }

    #[test]
    fn above_a_threshold() {
        let x = tensor(&[4], &[0.5f64, 0.500_001, -1.0, f64::NAN]);
        let y = first(&node("Binarizer", 1, &[("threshold", Attribute::Float(0.5))]), &[&x]);
        assert_eq!(y.as_slice::<f64>().unwrap(), [0.0, 1.0, 0.0, 0.0]);
        let y = first(&node("Binarizer", 1, &[]), &[&tensor(&[2], &[0i64, 3])]);
        assert_eq!(y.as_slice::<i64>().unwrap(), [0, 1]);
    }

    #[test]
    fn missing_values_are_replaced_and_carry_no_error() {
        let nan = f32::NAN;
        let imputer = |value: f32, by: &[f32]| {
            node(
                "Imputer",
                1,
                &[("replaced_value_float", Attribute::Float(value)), ("imputed_value_floats", floats(by))],
            )
        };
        let x = tensor(&[2, 2], &[nan, 1.0, 2.0, nan]);
        assert_eq!(first(&imputer(nan, &[5.0, 6.0]), &[&x]).as_slice::<f32>().unwrap(), [5.0, 1.0, 2.0, 6.0]);
        let x = tensor(&[3], &[0.1f64, 2.0, nan.into()]);
        let y = first(&imputer(0.1, &[9.0]), &[&x]);
        assert_eq!(y.as_slice::<f64>().unwrap()[..2], [9.0, 2.0], "0.1 as it is stored in f32");
        assert_eq!(errors(&imputer(0.1, &[9.0]), &[&x], &[Some(tensor(&[3], &[1f64; 3]))]), [0.0, 1.0, 1.0]);
        let settings = [("replaced_value_int64", Attribute::Int(7)), ("imputed_value_int64s", ints(&[1]))];
        let y = first(&node("Imputer", 1, &settings), &[&tensor(&[2], &[7i32, 8])]);
        assert_eq!(y.as_slice::<i32>().unwrap(), [1, 8]);
        assert!(run(&imputer(nan, &[]), &[&x]).is_err());
    }
}
