//! The rounding budgets: how far a value computed at unit roundoff u may lie from its exact value.
//!
//! Every constant of the decision rule about rounding is in this file. The classes, units and factors were
//! calibrated against ONNX Runtime 1.31 and PyTorch 2.15 (see `docs/budgets.md`); `share` in
//! each text is the largest part of the budget that a real runtime used there.
//!
//! Sources: Higham and Mary 2019, 2020 (probabilistic bounds of sums: sqrt(K) for K); Blanchard, Higham and Higham
//! 2021 (softmax, log-sum-exp); Chan, Golub and LeVeque 1983 (variance); Wilkinson 1963 (running error).
//!
//! Notation: y the exact output, K the number of terms, AB the product of absolute values |A||B|.

use isotrace_tensor::{DType, Tensor};

use crate::OpError;
use crate::parallel::{self, GRAIN};

/// What a budget is asked for: a precision, and whether that counts which real runtimes need beyond its bare unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unit {
    /// Unit roundoff: 2^-24 for f32.
    pub u: f64,
    /// Smallest subnormal: 2^-149 for f32.
    pub eta: f64,
    /// Smallest normal: 2^-126 for f32.
    pub tiny: f64,
    /// Whether the unit of a class is multiplied by its calibrated factor c: what is allowed. Else c counts as 1.
    pub calibrated: bool,
}

impl Unit {
    /// binary32.
    pub const F32: Self = Self::of(DType::F32);

    /// The unit of a floating-point type; other types have no rounding.
    pub const fn of(dtype: DType) -> Self {
        match (dtype.unit_roundoff(), dtype.smallest_subnormal()) {
            (Some(u), Some(eta)) => Self { u, eta, tiny: eta / (2.0 * u), calibrated: true },
            _ => Self { u: 0.0, eta: 0.0, tiny: 0.0, calibrated: true },
        }
    }

    /// The one of two that rounds less.
    pub const fn finer(self, other: Self) -> Self {
        if other.u < self.u { other } else { self }
    }

    /// The same precision without the calibrated factors.
    pub const fn bare(self) -> Self {
        Self { calibrated: false, ..self }
    }

    /// What the unit of a class is multiplied by whose calibrated factor is `c`.
    pub const fn factor(self, c: f64) -> f64 {
        if self.calibrated { c } else { 1.0 }
    }
}

/// What rounding may do to each element of an output, in C order.
pub type Budget = Vec<f64>;

/// `units` times `factor`, the calibrated factor of their class, where `unit` asks for it.
pub fn scaled(mut units: Vec<f64>, factor: f64, unit: Unit) -> Budget {
    let c = unit.factor(factor);
    if c != 1.0 {
        parallel::chunks(&mut units, GRAIN, &|_, part| part.iter_mut().for_each(|e| *e *= c));
    }
    units
}

/// No rounding at all: outputs that are exact.
pub fn exact(len: usize) -> Budget {
    vec![0.0; len]
}

type Result = std::result::Result<Budget, OpError>;

fn each(output: &Tensor, c: f64, at: impl Fn(f64) -> f64 + Sync) -> Result {
    let y = output.to_f64()?;
    Ok(parallel::map(y.len(), |i| c * at(y[i])))
}

/// u|y| + eta/2, c = 1. Addition, subtraction, multiplication, division, negation, clip. Share 100 %.
pub fn correctly_rounded(output: &Tensor, unit: Unit) -> Result {
    if !output.dtype().is_float() {
        return Ok(exact(output.len()));
    }
    each(output, unit.factor(1.0), |y| unit.u * y.abs() + unit.eta / 2.0)
}

/// u|y| + eta/2, c = 2. sqrt, rsqrt, erf, exp, pow. Share 52 to 98 %.
pub fn library(output: &Tensor, unit: Unit) -> Result {
    each(output, unit.factor(2.0), |y| unit.u * y.abs() + unit.eta / 2.0)
}

/// u|y| + 2^-126, c = 6. sin, cos, tan, log, atan, softplus and their like. Share up to 85 %.
pub fn approximation(output: &Tensor, unit: Unit) -> Result {
    each(output, unit.factor(6.0), |y| unit.u * y.abs() + unit.tiny)
}

/// u|y| + 2^-126, c = 8. tanh. Share 59 %.
pub fn tanh(output: &Tensor, unit: Unit) -> Result {
    each(output, unit.factor(8.0), |y| unit.u * y.abs() + unit.tiny)
}

/// u(|y| + 1), c = 4. sigmoid, whose tails vanish in real runtimes. Share 66 to 76 %.
pub fn sigmoid(output: &Tensor, unit: Unit) -> Result {
    each(output, unit.factor(4.0), |y| unit.u * (y.abs() + 1.0))
}

/// u|x| + 2^-126 (1 + |x|), c = 4. x times a sigmoid: SiLU, quick GELU. Share 66 to 76 %.
pub fn gated(input: &Tensor, unit: Unit) -> Result {
    each(input, unit.factor(4.0), |x| unit.u * x.abs() + unit.tiny * (1.0 + x.abs()))
}

/// |x|/2 u (2|t| + 5|z|t' + 1 + t) + 2u|y|, c = 8, t the inner function (erf or tanh) at z with slope t', y = x/2 (1 + t).
/// GELU in either form. Share 68 %. The unit of one element; [`scaled`] takes those of all.
#[inline(always)]
pub fn gelu(x: f64, (z, t, slope): (f64, f64, f64), unit: Unit) -> f64 {
    let half = x.abs() / 2.0 * unit.u;
    half * (2.0 * t.abs() + 5.0 * z.abs() * slope + 1.0 + t) + 2.0 * half * (1.0 + t) + unit.eta
}

/// The factor of [`gelu`].
pub const GELU: f64 = 8.0;

/// u|y| + c sqrt(K) u AB + K eta, c = 4. Products, convolutions, sums. Share 37 %, median under 1 %.
///
/// `magnitude` is AB, shaped as the output; `terms` is K.
pub fn sum(output: &Tensor, magnitude: &[f64], terms: f64, unit: Unit) -> Result {
    if magnitude.len() != output.len() {
        return Ok(of_another_size(output));
    }
    sum_at(output, |i| magnitude[i], terms, unit)
}

/// A node that was changed to see what undoes a fault may write another shape than its inputs make without the change.
/// Nothing is known of its rounding then, so nothing is allowed for it.
fn of_another_size(output: &Tensor) -> Budget {
    exact(output.len())
}

fn sum_at(output: &Tensor, magnitude: impl Fn(usize) -> f64 + Sync, terms: f64, unit: Unit) -> Result {
    let y = output.to_f64()?;
    let inner = unit.factor(4.0) * terms.sqrt() * unit.u;
    Ok(parallel::map(y.len(), |i| unit.u * y[i].abs() + inner * magnitude(i) + terms * unit.eta))
}

/// As [`sum`], for a magnitude held in f32 or f64.
pub fn sum_of(output: &Tensor, magnitude: &Tensor, terms: f64, unit: Unit) -> Result {
    match magnitude.as_slice::<f32>() {
        Ok(narrow) if narrow.len() != output.len() => Ok(of_another_size(output)),
        Ok(narrow) => sum_at(output, |i| f64::from(narrow[i]), terms, unit),
        Err(_) => sum(output, &magnitude.to_f64()?, terms, unit),
    }
}

/// As [`sum`], each element with its own number of terms: running sums.
pub fn running_sum(output: &Tensor, magnitude: &[f64], terms: &[f64], unit: Unit) -> Result {
    let y = output.to_f64()?;
    let c = unit.factor(4.0);
    let parts = y.iter().zip(magnitude).zip(terms);
    Ok(parts.map(|((y, ab), k)| unit.u * y.abs() + c * k.sqrt() * unit.u * ab + k * unit.eta).collect())
}

/// Rows of `len` elements, `stride` apart, of a tensor seen as (outer, len, stride).
fn rows(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    let inner = shape[axis + 1..].iter().product();
    (shape[..axis].iter().product(), shape[axis], inner)
}

/// u p (d_i + sum p_j d_j + sqrt(K) + 4), d = max - x, c = 2. Softmax along `axis`. Share 46 %.
pub fn softmax(input: &Tensor, output: &Tensor, axis: usize, unit: Unit) -> Result {
    row_units(input, output, axis, unit.factor(2.0), |x, p, units| {
        let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // A masked entry (p = 0) weighs nothing, however far below the maximum it lies.
        let weighed: f64 = x.iter().zip(p).map(|(x, p)| if *p == 0.0 { 0.0 } else { p * (max - x) }).sum();
        let k = (x.len() as f64).sqrt();
        for ((x, p), out) in x.iter().zip(p).zip(units) {
            *out = if *p == 0.0 { unit.tiny } else { unit.u * p * (max - x + weighed + k + 4.0) + unit.tiny };
        }
    })
}

/// u(|d| + |log s| + sqrt(K) + sum p d + 2 + |y|), c = 2. Log-softmax along `axis`. Share 45 %.
pub fn log_softmax(input: &Tensor, output: &Tensor, axis: usize, unit: Unit) -> Result {
    row_units(input, output, axis, unit.factor(2.0), |x, y, units| {
        let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - max).exp()).sum();
        let weighed: f64 = x.iter().map(|x| (x - max).exp() / sum * (max - x).min(1e300)).sum();
        let k = (x.len() as f64).sqrt();
        for ((x, y), out) in x.iter().zip(y).zip(units) {
            *out = unit.u * ((max - x).abs() + sum.ln().abs() + k + weighed + 2.0 + y.abs());
        }
    })
}

/// u(|log s| + sqrt(K) + sum p d + 2 + |y|), c = 2, as [`log_softmax`] at its largest element. `input` holds a row of K
/// elements for each element of `output`.
pub fn log_sum_exp(input: &Tensor, output: &Tensor, unit: Unit) -> Result {
    let (x, y) = (input.to_f64()?, output.to_f64()?);
    let len = input.shape().last().copied().unwrap_or(1);
    let units = y.iter().enumerate().map(|(i, y)| {
        let x = &x[i * len..(i + 1) * len];
        let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - max).exp()).sum();
        let weighed: f64 = x.iter().map(|x| (x - max).exp() / sum * (max - x).min(1e300)).sum();
        unit.u * (sum.ln().abs() + (len as f64).sqrt() + weighed + 2.0 + y.abs())
    });
    Ok(scaled(units.collect(), 2.0, unit))
}

fn row_units(
    input: &Tensor,
    output: &Tensor,
    axis: usize,
    factor: f64,
    row: impl Fn(&[f64], &[f64], &mut [f64]),
) -> Result {
    let (x, y) = (input.to_f64()?, output.to_f64()?);
    let (outer, len, inner) = rows(output.shape(), axis);
    let mut units = vec![0.0; y.len()];
    let (mut xs, mut ys, mut us) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
    for o in 0..outer {
        for i in 0..inner {
            let at = |k: usize| (o * len + k) * inner + i;
            for k in 0..len {
                (xs[k], ys[k]) = (x[at(k)], y[at(k)]);
            }
            row(&xs, &ys, &mut us);
            for k in 0..len {
                units[at(k)] = us[k];
            }
        }
    }
    for e in &mut units {
        *e *= factor;
    }
    Ok(units)
}

/// Layer normalisation, c = 2, share 50 %. With m the mean, v the variance, r = 1/sqrt(v + eps), g the gain,
/// dm = u(sqrt(K) mean|x| + |m|) and dv = u(sqrt(K) + 2)v + dm^2 for two passes
/// (u(sqrt(K) + 2)(E[x^2] + m^2) for one): |g| r (dm + u|x - m| + |x - m|(dv/(2(v + eps)) + 3u)) + 2u|g x r| + u|y|.
///
/// `input` is seen as rows of `gain.len()` elements (a gain of one element serves all); statistics are per row.
pub fn layer_norm(
    input: &Tensor,
    gain: &[f64],
    width: usize,
    epsilon: f64,
    output: &[f64],
    one_pass: bool,
    unit: Unit,
) -> Result {
    let x = input.to_f64()?;
    let u = unit.u;
    let mut units = Vec::with_capacity(x.len());
    let k = width as f64;
    for (row, y) in x.chunks(width.max(1)).zip(output.chunks(width.max(1))) {
        let mean = row.iter().sum::<f64>() / k;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / k;
        let r = 1.0 / (variance + epsilon).sqrt();
        let dm = u * (k.sqrt() * row.iter().map(|x| x.abs()).sum::<f64>() / k + mean.abs());
        let square = row.iter().map(|x| x * x).sum::<f64>() / k;
        let dv = if one_pass {
            u * (k.sqrt() + 2.0) * (square + mean * mean)
        } else {
            u * (k.sqrt() + 2.0) * variance + dm * dm
        };
        for (i, (x, y)) in row.iter().zip(y).enumerate() {
            let g = gain[i % gain.len().max(1)].abs();
            let centred = (x - mean).abs();
            units.push(
                g * r * (dm + u * centred + centred * (dv / (2.0 * (variance + epsilon)) + 3.0 * u))
                    + 2.0 * u * (g * x * r).abs()
                    + u * y.abs()
                    + unit.eta,
            );
        }
    }
    Ok(scaled(units, 2.0, unit))
}

/// u|y|(sqrt(K)/2 + 6), c = 2. RMS normalisation over rows of K elements. Share 35 %.
pub fn rms_norm(output: &Tensor, width: usize, unit: Unit) -> Result {
    let factor = (width as f64).sqrt() / 2.0 + 6.0;
    each(output, unit.factor(2.0), |y| unit.u * y.abs() * factor + unit.eta)
}

/// u(|g| r (|x| + |m|) + |beta|) + u|y|, c = 4. Batch normalisation in inference. Share 78 %.
///
/// `terms` holds, for each element, |g| r (|x| + |m|) + |beta|.
pub fn batch_norm(output: &Tensor, terms: &[f64], unit: Unit) -> Result {
    let y = output.to_f64()?;
    let c = unit.factor(4.0);
    Ok(parallel::map(y.len().min(terms.len()), |i| c * (unit.u * (terms[i] + y[i].abs()) + unit.eta)))
}

/// u(t + |y|), c = 4, as for [`batch_norm`]: a handful of steps whose intermediate results have magnitude t in all.
/// Hard sigmoid, Elu and their like. `magnitude` yields t for each element.
pub fn steps(output: &Tensor, magnitude: impl Iterator<Item = f64>, unit: Unit) -> Result {
    batch_norm(output, &magnitude.collect::<Vec<f64>>(), unit)
}

/// Adds u|x| times 1.13, the steepest slope of GELU, for an input that was itself rounded (a bias added to it).
pub fn add_input_rounding(
    budget: &mut Budget,
    input: &Tensor,
    unit: Unit,
) -> std::result::Result<(), OpError> {
    for (i, x) in input.to_f64()?.iter().enumerate() {
        let more = 1.13 * unit.u * x.abs();
        budget[i] += more;
    }
    Ok(())
}

/// 8 times the root mean square of `spread`, per element: attention, LSTM and GRU, whose worst case is vacuous.
/// `spread` is the standard deviation of the output under rounding of every step. Share 31 to 35 %.
pub fn propagated(spread: Vec<f64>, unit: Unit) -> Budget {
    scaled(spread, 8.0, unit)
}

/// float64 noise of a region: 8 times 2^-29 times its f32 unit; its arithmetic is 2^29 times finer than f32.
pub const NOISE: f64 = 8.0 / (1u64 << 29) as f64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_types() {
        assert_eq!(Unit::F32.u, 2f64.powi(-24));
        assert_eq!(Unit::F32.tiny, 2f64.powi(-126));
        assert_eq!(Unit::of(DType::F16).tiny, 2f64.powi(-14));
        assert_eq!(Unit::of(DType::I32).u, 0.0);
    }

    #[test]
    fn masked_entries_get_no_vacuous_budget() {
        let x = Tensor::vector(vec![1.0, 2.0, -3.4e38]);
        let p = Tensor::vector(vec![0.268_941_421_369_995_16, 0.731_058_578_630_004_9, 0.0]);
        let budget = softmax(&x, &p, 0, Unit::F32).unwrap();
        assert!(budget.iter().all(|&a| a < 1e-5), "{budget:?}");
    }
}
