//! Activations inside other operators: recurrent cells, and products and convolutions an optimiser fused.
//!
//! Names, formulas and defaults are those of ONNX's RNN operators; fused nodes use a subset of them.

use isotrace_tensor::Tensor;

use crate::budget::{Budget, Unit};
use crate::{Float, OpError};

/// A function of one number with its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// x.
    Identity,
    /// max(x, 0).
    Relu,
    /// tanh(x).
    Tanh,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// alpha x + beta.
    Affine(f64, f64),
    /// x, or alpha x below 0.
    LeakyRelu(f64),
    /// x from alpha on, 0 below.
    ThresholdedRelu(f64),
    /// alpha tanh(beta x).
    ScaledTanh(f64, f64),
    /// alpha x + beta, between 0 and 1.
    HardSigmoid(f64, f64),
    /// x, or alpha (e^x - 1) below 0.
    Elu(f64),
    /// x, or alpha (e^(x / alpha) - 1) below 0.
    Celu(f64),
    /// gamma x, or gamma alpha (e^x - 1) below 0: (alpha, gamma).
    Selu(f64, f64),
    /// x / (1 + |x|).
    Softsign,
    /// log(1 + e^x).
    Softplus,
    /// x between two bounds.
    Clip(f64, f64),
    /// x times the hard sigmoid of x, with slope alpha and offset beta.
    HardSwish(f64, f64),
    /// x times the normal distribution function at x.
    Gelu,
    /// The same with the distribution function approximated by a tanh.
    TanhGelu,
    /// x times the sigmoid of alpha x.
    Silu(f64),
    /// x tanh(softplus(x)).
    Mish,
    /// alpha log(1 + e^(beta x)).
    ParametricSoftplus(f64, f64),
}

impl Activation {
    /// The activation called `name` (in any case), its parameters taken from `parameters` as far as they go.
    pub fn named(name: &str, parameters: &[f32]) -> Result<Self, OpError> {
        let at = |i: usize, default: f64| parameters.get(i).map_or(default, |&p| f64::from(p));
        Ok(match name.to_ascii_lowercase().as_str() {
            "" | "identity" => Self::Identity,
            "relu" => Self::Relu,
            "tanh" => Self::Tanh,
            "sigmoid" => Self::Sigmoid,
            "affine" => Self::Affine(at(0, 1.0), at(1, 0.0)),
            "leakyrelu" => Self::LeakyRelu(at(0, f64::from(0.01f32))),
            "thresholdedrelu" => Self::ThresholdedRelu(at(0, 1.0)),
            "scaledtanh" => Self::ScaledTanh(at(0, 1.0), at(1, 1.0)),
            "hardsigmoid" => Self::HardSigmoid(at(0, f64::from(0.2f32)), at(1, 0.5)),
            "elu" => Self::Elu(at(0, 1.0)),
            "celu" => Self::Celu(at(0, 1.0)),
            "selu" => Self::Selu(at(0, f64::from(1.673_263_2_f32)), at(1, f64::from(1.050_701_f32))),
            "gelu" => Self::Gelu,
            "fastgelu" => Self::TanhGelu,
            "quickgelu" => Self::Silu(at(0, f64::from(1.702f32))),
            "silu" | "swish" => Self::Silu(at(0, 1.0)),
            "mish" => Self::Mish,
            "parametricsoftplus" => Self::ParametricSoftplus(at(0, 1.0), at(1, 1.0)),
            "softsign" => Self::Softsign,
            "softplus" => Self::Softplus,
            "clip" => Self::Clip(at(0, f64::from(f32::MIN)), at(1, f64::from(f32::MAX))),
            "hardswish" => Self::HardSwish(at(0, 1.0 / 6.0), at(1, 0.5)),
            _ => {
                return Err(OpError::Setting(format!(
                    "the activation {name:?} is unknown; known are Relu, Tanh, Sigmoid, Affine, LeakyRelu, \
                     ThresholdedRelu, ScaledTanh, HardSigmoid, HardSwish, Elu, Celu, Selu, Softsign, Softplus, \
                     ParametricSoftplus, Clip, Gelu, FastGelu, QuickGelu, Silu, Mish"
                )));
            }
        })
    }

    /// How many parameters the activation called `name` takes from a recurrent operator's two lists (alpha, beta).
    pub fn parameters(name: &str) -> (usize, usize) {
        match name.to_ascii_lowercase().as_str() {
            "affine" | "scaledtanh" | "hardsigmoid" => (1, 1),
            "leakyrelu" | "thresholdedrelu" | "elu" => (1, 0),
            _ => (0, 0),
        }
    }

    /// The value at `x`.
    pub fn at<T: Float>(self, x: T) -> T {
        let (zero, one) = (T::ZERO, T::ONE);
        let relu = |x: T| if x > zero || x.is_nan() { x } else { zero };
        match self {
            Self::Identity => x,
            Self::Relu => relu(x),
            Self::Tanh => x.tanh(),
            Self::Sigmoid => sigmoid(x),
            Self::Affine(a, b) => T::of(a) * x + T::of(b),
            Self::LeakyRelu(a) => {
                if x < zero {
                    T::of(a) * x
                } else {
                    x
                }
            }
            Self::ThresholdedRelu(a) => {
                if x < T::of(a) {
                    zero
                } else {
                    x
                }
            }
            Self::ScaledTanh(a, b) => T::of(a) * (T::of(b) * x).tanh(),
            Self::HardSigmoid(a, b) => relu((T::of(a) * x + T::of(b)).min_nan(one)),
            Self::Elu(a) => {
                if x < zero {
                    T::of(a) * (x.exp() - one)
                } else {
                    x
                }
            }
            Self::Celu(a) => {
                if x < zero {
                    T::of(a) * ((x / T::of(a)).exp() - one)
                } else {
                    x
                }
            }
            Self::Selu(a, g) => {
                if x < zero {
                    T::of(g) * (T::of(a) * (x.exp() - one))
                } else {
                    T::of(g) * x
                }
            }
            Self::Gelu => T::of(0.5) * x * (one + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf()),
            Self::TanhGelu => {
                let root = T::of((2.0 / std::f64::consts::PI).sqrt());
                T::of(0.5) * x * (one + (root * (x + T::of(0.044_715) * x * x * x)).tanh())
            }
            Self::Silu(a) => x * sigmoid(T::of(a) * x),
            Self::Mish => x * Self::Softplus.at(x).tanh(),
            Self::ParametricSoftplus(a, b) => T::of(a) * Self::Softplus.at(T::of(b) * x),
            Self::Softsign => x / (one + x.abs()),
            // The larger part is taken out of the logarithm, so that e^x cannot overflow.
            Self::Softplus => relu(x) + (one + (-x.abs()).exp()).ln(),
            Self::Clip(low, high) => x.max_nan(T::of(low)).min_nan(T::of(high)),
            Self::HardSwish(a, b) => x * relu((T::of(a) * x + T::of(b)).min_nan(one)),
        }
    }

    /// Applies the function to each element.
    pub fn apply<T: Float>(self, x: &mut [T]) {
        match self {
            Self::Identity => {}
            // The one that every convolution carries gets a loop the compiler can make vectors of.
            Self::Relu => {
                for x in x {
                    *x = if *x < T::ZERO { T::ZERO } else { *x };
                }
            }
            _ => {
                for x in x {
                    *x = self.at(*x);
                }
            }
        }
    }

    /// What the function itself may add to the rounding of its argument at (z, y). The classes
    /// are those of the operators of the same names in [`budget`](crate::budget).
    pub(crate) fn rounding(self, z: f64, y: f64, at: Unit) -> f64 {
        let Unit { u, eta, tiny, .. } = at;
        let once = u * y.abs() + eta / 2.0;
        match self {
            Self::Identity | Self::Relu | Self::ThresholdedRelu(_) | Self::Clip(..) => 0.0,
            Self::LeakyRelu(_) => once,
            Self::Affine(_, b) | Self::HardSigmoid(_, b) => once + u * b.abs() + u * y.abs(),
            Self::HardSwish(_, b) => 3.0 * once + u * z.abs() * b.abs(),
            Self::Softsign => 2.0 * once,
            Self::Elu(a) | Self::Celu(a) => at.factor(2.0) * (once + u * a.abs()),
            Self::Selu(a, g) => at.factor(2.0) * (2.0 * once + u * (a * g).abs()),
            // The factor beside x is rounded to a unit of 1, however small it comes out.
            Self::Gelu | Self::TanhGelu | Self::Silu(_) | Self::Mish => {
                at.factor(8.0) * (2.0 * once + u * z.abs() + tiny)
            }
            Self::ParametricSoftplus(a, _) => at.factor(6.0) * (2.0 * once + u * a.abs() + tiny),
            Self::Sigmoid => at.factor(4.0) * u * (y.abs() + 1.0),
            Self::Tanh => at.factor(8.0) * (u * y.abs() + tiny),
            Self::ScaledTanh(a, _) => at.factor(8.0) * (u * (y.abs() + a.abs()) + tiny),
            Self::Softplus => at.factor(6.0) * (u * (y.abs() + 1.0) + tiny),
        }
    }

    /// How far the value at `z` moves when `z` moves by up to `h` either way.
    pub fn change(self, z: f64, h: f64) -> f64 {
        let y = self.at(z);
        (self.at(z + h) - y).abs().max((self.at(z - h) - y).abs())
    }

    /// The budget of the activated values from that of the arguments `z`.
    pub fn budget(self, mut before: Budget, z: &[f64], unit: Unit) -> Budget {
        if self == Self::Identity {
            return before;
        }
        for (e, &z) in before.iter_mut().zip(z) {
            *e = self.change(z, *e) + self.rounding(z, self.at(z), unit);
        }
        before
    }

    /// The first-order change of the activated values when the arguments `z` change by `errors`.
    pub fn propagate(self, z: &Tensor, errors: &Tensor) -> Result<Tensor, OpError> {
        if self == Self::Identity {
            return Ok(errors.clone());
        }
        let (z, e) = (z.to_f64()?, errors.to_f64()?);
        let change = |(&z, &e): (&f64, &f64)| {
            if e <= 0.0 {
                return 0.0;
            }
            // A step too small for f64 to resolve is made larger, and its effect smaller, by the same factor.
            let step = e.max(1e-9 * z.abs());
            self.change(z, step) * (e / step)
        };
        Ok(Tensor::from_vec(errors.shape(), z.iter().zip(e.iter()).map(change).collect())?)
    }
}

/// 1 / (1 + e^-x), without overflow on either side.
#[inline]
pub fn sigmoid<T: Float>(x: T) -> T {
    let e = (-x.abs()).exp();
    if x < T::ZERO { e / (T::ONE + e) } else { T::ONE / (T::ONE + e) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_a_table() {
        let cases: [(&str, &[f32], f64, f64); 23] = [
            ("", &[], -3.0, -3.0),
            ("Relu", &[], -3.0, 0.0),
            ("relu", &[], 3.0, 3.0),
            ("Tanh", &[], 0.5, 0.462_117_157_260_009_75),
            ("Sigmoid", &[], -800.0, 0.0),
            ("Sigmoid", &[], 1.0, 0.731_058_578_630_004_9),
            ("Affine", &[2.0, 1.0], 3.0, 7.0),
            ("LeakyRelu", &[0.5], -4.0, -2.0),
            ("ThresholdedRelu", &[2.0], 1.5, 0.0),
            ("ScaledTanh", &[2.0, 0.5], 1.0, 0.924_234_314_520_019_5),
            ("HardSigmoid", &[0.25, 0.5], 1.0, 0.75),
            ("HardSigmoid", &[0.25, 0.5], 9.0, 1.0),
            ("Elu", &[1.0], -1.0, -0.632_120_558_828_557_7),
            ("Celu", &[2.0], -2.0, -1.264_241_117_657_115_4),
            ("Selu", &[2.0, 3.0], -1.0, -3.792_723_352_971_346),
            ("Selu", &[2.0, 3.0], 2.0, 6.0),
            ("Gelu", &[], 1.0, 0.841_344_746_068_542_9),
            ("Silu", &[], 1.0, 0.731_058_578_630_004_9),
            ("QuickGelu", &[2.0], 0.5, 0.365_529_289_315_002_45),
            ("Mish", &[], 1.0, 0.865_098_388_267_310_3),
            ("Softsign", &[], -3.0, -0.75),
            ("Softplus", &[], 800.0, 800.0),
            ("Clip", &[-1.0, 6.0], 7.0, 6.0),
        ];
        for (name, parameters, x, expected) in cases {
            let got = Activation::named(name, parameters).unwrap().at(x);
            assert!((got - expected).abs() <= 1e-15, "{name}({x}) = {got}, expected {expected}");
        }
        assert!(Activation::named("Mish2", &[]).is_err());
    }

    #[test]
    fn nan_is_never_swallowed() {
        for name in
            ["Relu", "Tanh", "Sigmoid", "LeakyRelu", "HardSigmoid", "Elu", "Selu", "Gelu", "Softplus", "Clip"]
        {
            let activation = Activation::named(name, &[]).unwrap();
            let mut x = [f32::NAN];
            activation.apply(&mut x);
            assert!(x[0].is_nan() && activation.at(f64::NAN).is_nan(), "{name}");
        }
    }
}
