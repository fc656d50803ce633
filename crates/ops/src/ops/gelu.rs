//! Gelu in both forms: x/2 (1 + erf(x / sqrt(2))), and x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
//!
//! ONNX's own (attribute `approximate`), com.microsoft's Gelu and BiasGelu (erf) and FastGelu (tanh), the latter two with a
//! bias over the last axis that is added first. Hendrycks and Gimpel 2016.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, FRAC_2_SQRT_PI};

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::broadcast::zip;
use crate::budget::{self, Budget, Unit};
use crate::math::map;
use crate::{Call, Float, Flow, OpError, Operator, attributes, for_float};

/// The cubic coefficient of the tanh form.
const CUBIC: f64 = 0.044_715;

#[derive(Debug, Clone, Copy)]
enum Form {
    Erf,
    Tanh,
}

#[derive(Debug)]
struct Gelu {
    form: Form,
}

/// Parses a node of ONNX's Gelu.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let form = match attributes::text_or(node, "approximate", "none")?.as_str() {
        "none" => Form::Erf,
        "tanh" => Form::Tanh,
        other => {
            return Err(OpError::Setting(format!("approximate is {other:?}, expected \"none\" or \"tanh\"")));
        }
    };
    Ok(Box::new(Gelu { form }))
}

/// Parses a node of com.microsoft's Gelu or BiasGelu.
pub fn erf(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Gelu { form: Form::Erf }))
}

/// Parses a node of com.microsoft's FastGelu.
pub fn tanh(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Gelu { form: Form::Tanh }))
}

impl Gelu {
    fn apply<T: Float>(&self, x: &[T]) -> Vec<T> {
        let half = T::of(0.5);
        match self.form {
            Form::Erf => {
                let scale = T::of(FRAC_1_SQRT_2);
                map(
                    x,
                    #[inline(always)]
                    |x| half * x * (T::ONE + (x * scale).erf()),
                )
            }
            Form::Tanh => {
                let (scale, cubic) = (T::of(FRAC_2_PI.sqrt()), T::of(CUBIC));
                map(
                    x,
                    #[inline(always)]
                    |x| half * x * (T::ONE + (scale * (x + cubic * (x * x * x))).tanh()),
                )
            }
        }
    }
}

/// X plus the bias, if there is one.
fn biased(call: &Call<'_>) -> Result<Tensor, OpError> {
    let x = call.need(0, "X")?;
    let Some(bias) = call.get(1) else { return Ok(x.clone()) };
    for_float!(x.dtype(), "X", T => {
        let (shape, data) = zip(&x.view::<T>()?, &bias.view::<T>()?, #[inline(always)] |x, b| x + b)?;
        Ok(Tensor::from_vec(&shape, data)?)
    })
}

impl Operator for Gelu {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = biased(call)?;
        let y = for_float!(x.dtype(), "X", T => Ok(Tensor::from_vec(x.shape(), self.apply(x.as_slice::<T>()?))?))?;
        Ok(vec![y])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }

    fn budget(&self, call: &Call<'_>, _: usize, _: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let x = biased(call)?;
        let numbers = x.to_f64()?;
        let units = match self.form {
            Form::Erf => map(
                &numbers,
                #[inline(always)]
                |x| {
                    let z = x * FRAC_1_SQRT_2;
                    budget::gelu(x, (z, Float::erf(z), FRAC_2_SQRT_PI * Float::exp(-z * z)), unit)
                },
            ),
            Form::Tanh => map(
                &numbers,
                #[inline(always)]
                |x| {
                    let z = FRAC_2_PI.sqrt() * (x + CUBIC * x * x * x);
                    let t = Float::tanh(z);
                    budget::gelu(x, (z, t, 1.0 - t * t), unit)
                },
            ),
        };
        let mut budget = budget::scaled(units, budget::GELU, unit);
        if call.get(1).is_some() {
            budget::add_input_rounding(&mut budget, &x, unit)?;
        }
        Ok(budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_against_their_definitions() {
        // Values from the definitions in 50 digits.
        let cases = [
            (0.0, 0.0, 0.0),
            (1.0, 0.841_344_746_068_542_9, 0.841_191_990_608_276_4),
            (-1.0, -0.158_655_253_931_457_05, -0.158_808_009_391_723_6),
            (3.0, 2.995_950_305_905_11, 2.996_362_607_918_227),
        ];
        for (x, erf, tanh) in cases {
            for (form, expected) in [(Form::Erf, erf), (Form::Tanh, tanh)] {
                let y = Gelu { form }.apply(&[x])[0];
                assert!((y - expected).abs() <= 1e-15, "{form:?}({x}) is {y}, expected {expected}");
                let y = f64::from(Gelu { form }.apply(&[x as f32])[0]);
                assert!((y - expected).abs() <= 2e-7, "{form:?}({x}) in f32 is {y}, expected {expected}");
            }
        }
    }

    #[test]
    fn a_bias_is_added_first() {
        let x = Tensor::from_vec(&[2, 2], vec![0.5, -1.0, 2.0, 0.0]).unwrap();
        let bias = Tensor::vector(vec![0.5, 1.0]);
        let sum = Tensor::from_vec(&[2, 2], vec![1.0, 0.0, 2.5, 1.0]).unwrap();
        for form in [Form::Erf, Form::Tanh] {
            let with = Gelu { form }.run(&Call::new(&[Some(&x), Some(&bias)])).unwrap();
            let without = Gelu { form }.run(&Call::new(&[Some(&sum)])).unwrap();
            assert!(with[0].bit_eq(&without[0]));
        }
    }
}
