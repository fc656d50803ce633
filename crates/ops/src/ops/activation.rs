//! Activations with settings: LeakyRelu, Elu, Celu, Selu, ThresholdedRelu, HardSigmoid, HardSwish, Mish, Swish, Shrink,
//! and Relu, which has none but is defined for integers too.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::arithmetic::Number;
use crate::attributes::float_or;
use crate::budget::{self, Budget, Unit};
use crate::math::{each, map};
use crate::{Call, Float, Flow, OpError, Operator, for_float, for_number};

#[derive(Debug)]
struct Relu;

/// Parses a node of Relu.
pub fn relu(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Relu))
}

impl Operator for Relu {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let y = for_number!(x.dtype(), "X", T => {
            let y = each(x.as_slice::<T>()?, |x| x.larger(T::default()));
            Ok(Tensor::from_vec(x.shape(), y)?)
        })?;
        Ok(vec![y])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, _: Unit) -> Result<Budget, OpError> {
        Ok(budget::exact(output.len()))
    }
}

/// Settings are held as the f32 the file has.
#[derive(Debug, Clone, Copy)]
enum Activation {
    /// x, or alpha x below 0.
    Leaky { alpha: f32 },
    /// gamma x, or gamma alpha (exp(x / scale) - 1) below 0: Elu, Celu and Selu.
    Elu { alpha: f32, gamma: f32, scale: f32 },
    /// x above alpha, else 0.
    Thresholded { alpha: f32 },
    /// alpha x + beta, cut to 0 to 1.
    HardSigmoid { alpha: f32, beta: f32 },
    /// x times hard sigmoid of slope 1/6 and offset 1/2.
    HardSwish,
    /// x tanh(softplus(x)).
    Mish,
    /// x sigmoid(alpha x).
    Swish { alpha: f32 },
    /// x + bias below -lambda, x - bias above lambda, else 0.
    Shrink { bias: f32, lambda: f32 },
}

macro_rules! builders {
    ($($name:ident $node:ident => $value:expr;)*) => { $(
        /// Parses a node.
        pub fn $name($node: &Node) -> Result<Box<dyn Operator>, OpError> {
            Ok(Box::new($value))
        }
    )* };
}

builders! {
    leaky_relu n => Activation::Leaky { alpha: float_or(n, "alpha", 0.01)? };
    elu n => Activation::Elu { alpha: float_or(n, "alpha", 1.0)?, gamma: 1.0, scale: 1.0 };
    thresholded_relu n => Activation::Thresholded { alpha: float_or(n, "alpha", 1.0)? };
    hard_sigmoid n => Activation::HardSigmoid { alpha: float_or(n, "alpha", 0.2)?, beta: float_or(n, "beta", 0.5)? };
    hard_swish _n => Activation::HardSwish;
    mish _n => Activation::Mish;
    swish n => Activation::Swish { alpha: float_or(n, "alpha", 1.0)? };
    shrink n => Activation::Shrink { bias: float_or(n, "bias", 0.0)?, lambda: float_or(n, "lambd", 0.5)? };
    quick_gelu n => Activation::Swish { alpha: float_or(n, "alpha", 1.702)? };
}

/// Parses a node of Celu: max(0, x) + min(0, alpha (exp(x / alpha) - 1)).
pub fn celu(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let alpha = float_or(node, "alpha", 1.0)?;
    if alpha == 0.0 {
        return Err(OpError::Setting("alpha is 0, by which Celu divides".into()));
    }
    Ok(Box::new(Activation::Elu { alpha, gamma: 1.0, scale: alpha }))
}

/// Parses a node of Selu, whose defaults had fewer digits before version 6.
pub fn selu(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let (alpha, gamma) = if node.version < 6 { (1.6732, 1.0507) } else { (1.673_263_2, 1.050_701) };
    let (alpha, gamma) = (float_or(node, "alpha", alpha)?, float_or(node, "gamma", gamma)?);
    Ok(Box::new(Activation::Elu { alpha, gamma, scale: 1.0 }))
}

impl Activation {
    fn apply<T: Float>(self, x: &[T]) -> Vec<T> {
        let of = |x: f32| T::of(x.into());
        match self {
            Self::Leaky { alpha } => {
                let alpha = of(alpha);
                map(
                    x,
                    #[inline(always)]
                    |x| if x < T::ZERO { alpha * x } else { x },
                )
            }
            Self::Elu { alpha, gamma, scale } => {
                let (alpha, gamma, scale) = (of(alpha), of(gamma), of(scale));
                map(
                    x,
                    #[inline(always)]
                    |x| gamma * if x < T::ZERO { alpha * (x / scale).exp_m1() } else { x },
                )
            }
            Self::Thresholded { alpha } => {
                let alpha = of(alpha);
                map(
                    x,
                    #[inline(always)]
                    |x| if x > alpha || x.is_nan() { x } else { T::ZERO },
                )
            }
            Self::HardSigmoid { alpha, beta } => {
                let (alpha, beta) = (of(alpha), of(beta));
                map(
                    x,
                    #[inline(always)]
                    |x| (alpha * x + beta).max_nan(T::ZERO).min_nan(T::ONE),
                )
            }
            Self::HardSwish => {
                let (alpha, beta) = (T::ONE / T::of(6.0), T::of(0.5));
                map(
                    x,
                    #[inline(always)]
                    |x| x * (alpha * x + beta).max_nan(T::ZERO).min_nan(T::ONE),
                )
            }
            Self::Mish => map(
                x,
                #[inline(always)]
                |x| x * x.softplus().tanh(),
            ),
            Self::Shrink { bias, lambda } => {
                let (bias, lambda) = (of(bias), of(lambda));
                map(
                    x,
                    #[inline(always)]
                    |x| {
                        let y = if x > lambda { x - bias } else { T::ZERO };
                        if x < -lambda { x + bias } else { y }
                    },
                )
            }
            Self::Swish { alpha } => {
                let alpha = of(alpha);
                map(
                    x,
                    #[inline(always)]
                    |x| x * (alpha * x).sigmoid(),
                )
            }
        }
    }
}

impl Operator for Activation {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let y = for_float!(x.dtype(), "X", T => Ok(Tensor::from_vec(x.shape(), self.apply(x.as_slice::<T>()?))?))?;
        Ok(vec![y])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let input = call.need(0, "X")?;
        let x = input.to_f64()?;
        match *self {
            Self::Thresholded { .. } => Ok(budget::exact(output.len())),
            Self::Leaky { .. } | Self::Shrink { .. } => budget::correctly_rounded(output, unit),
            // ONNX Runtime rounds the exponential, which is at most 1 there, before it takes 1 off: however small the
            // result, it is off by that. Share 27 %.
            Self::Elu { alpha, gamma, .. } => {
                let most = f64::from(alpha * gamma).abs();
                budget::steps(output, x.iter().map(|&x| if x < 0.0 { most } else { 0.0 }), unit)
            }
            Self::HardSigmoid { alpha, beta } => {
                let (alpha, beta) = (f64::from(alpha), f64::from(beta));
                // Where the cut decides, the result is exact, however large the line is there.
                let line = |x: f64| ((alpha * x).abs() + beta.abs()).min(2.0 + 2.0 * beta.abs());
                budget::steps(output, x.iter().map(|&x| line(x)), unit)
            }
            Self::HardSwish => budget::steps(output, x.iter().map(|x| x.abs().min(16.0)), unit),
            Self::Mish | Self::Swish { .. } => budget::gated(input, unit),
        }
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::Call;
    use crate::budget::Unit;
    use crate::testing::{first, node, run, tensor};

    struct Case<'a> {
        op: &'a str,
        version: i64,
        settings: &'a [(&'a str, Attribute)],
        f: &'a dyn Fn(f64) -> f64,
    }

    #[test]
    fn against_their_definitions() {
        let elu = |x: f64| if x < 0.0 { x.exp_m1() } else { x };
        let hard = |x: f64| (x / 6.0 + 0.5).clamp(0.0, 1.0);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let number = |x: f32| Attribute::Float(x);
        let cases = [
            Case { op: "Relu", version: 14, settings: &[], f: &|x| x.max(0.0) },
            Case {
                op: "LeakyRelu",
                version: 16,
                settings: &[("alpha", number(0.25))],
                f: &|x| x.max(0.25 * x),
            },
            Case { op: "Elu", version: 6, settings: &[], f: &elu },
            Case {
                op: "Celu",
                version: 12,
                settings: &[("alpha", number(2.0))],
                f: &|x| x.max(0.0) + (2.0 * (x / 2.0).exp_m1()).min(0.0),
            },
            Case {
                op: "Selu",
                version: 6,
                settings: &[("alpha", number(2.0)), ("gamma", number(3.0))],
                f: &|x| 3.0 * if x < 0.0 { 2.0 * x.exp_m1() } else { x },
            },
            Case { op: "ThresholdedRelu", version: 10, settings: &[], f: &|x| if x > 1.0 { x } else { 0.0 } },
            Case {
                op: "HardSigmoid",
                version: 6,
                settings: &[("alpha", number(0.5)), ("beta", number(0.25))],
                f: &|x| (0.5 * x + 0.25).clamp(0.0, 1.0),
            },
            Case { op: "HardSwish", version: 14, settings: &[], f: &|x| x * hard(x) },
            Case { op: "Mish", version: 18, settings: &[], f: &|x| x * x.exp().ln_1p().tanh() },
            Case {
                op: "Swish",
                version: 24,
                settings: &[("alpha", number(0.5))],
                f: &|x| x * sigmoid(0.5 * x),
            },
            Case {
                op: "Shrink",
                version: 9,
                settings: &[("bias", number(1.5)), ("lambd", number(1.0))],
                f: &|x| {
                    if x < -1.0 {
                        x + 1.5
                    } else if x > 1.0 {
                        x - 1.5
                    } else {
                        0.0
                    }
                },
            },
            Case { op: "Sigmoid", version: 13, settings: &[], f: &sigmoid },
            Case { op: "Softplus", version: 1, settings: &[], f: &|x| x.exp().ln_1p() },
            Case { op: "Softsign", version: 1, settings: &[], f: &|x| x / (1.0 + x.abs()) },
        ];
        let data: Vec<f64> = (-80..80).map(|i| f64::from(i) / 8.0).collect();
        for Case { op, version, settings, f } in cases {
            let node = node(op, version, settings);
            let wide = first(&node, &[&tensor(&[160], &data)]);
            let single: Vec<f32> = data.iter().map(|&x| x as f32).collect();
            let narrow = first(&node, &[&tensor(&[160], &single)]);
            for (i, &x) in data.iter().enumerate() {
                let (y, n, e) = (wide.to_f64().unwrap()[i], narrow.to_f64().unwrap()[i], f(x));
                assert!((y - e).abs() <= 4e-15 * (1.0 + e.abs()), "{op}({x}) is {y}, expected {e}");
                assert!((n - e).abs() <= 1e-6 * (1.0 + e.abs()), "{op}({x}) in f32 is {n}, expected {e}");
            }
            let nan = first(&node, &[&tensor(&[1], &[f64::NAN])]).to_f64().unwrap()[0];
            // Comparisons with NaN are false, and Shrink is defined by comparisons.
            assert!(nan.is_nan() || op == "Shrink", "{op}(NaN) is {nan}");
        }
        assert!(run(&node("Celu", 12, &[("alpha", number(0.0))]), &[&tensor(&[1], &[1.0])]).is_err());
    }

    #[test]
    fn an_exponential_that_is_rounded_before_1_is_taken_off_is_within_the_budget() {
        let x: Vec<f32> = (0..400).map(|i| -(10f32.powf(i as f32 / 40.0 - 8.0))).collect();
        let (op, x64) = (node("Elu", 6, &[]), x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        let input = tensor(&[x.len()], &x64);
        let exact = first(&op, &[&input]);
        let inputs = [Some(&input)];
        let budget = crate::build(&op).unwrap().budget(&Call::new(&inputs), 0, &exact, Unit::F32).unwrap();
        let exact = exact.to_f64().unwrap();
        for (i, x) in x.iter().enumerate() {
            let off = (f64::from(x.exp() - 1.0) - exact[i]).abs();
            assert!(off <= budget[i], "{x}: off by {off}, {} allowed", budget[i]);
            // A wrong alpha of one in ten thousand is still seen wherever the result is of any size.
            assert!(exact[i].abs() < 1e-2 || exact[i].abs() * 1e-4 > budget[i], "{x}");
        }
    }
}
