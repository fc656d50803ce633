//! Numbers that carry the variance of their rounding error, for operators of many steps (recurrent cells, attention)
//! whose worst case is vacuous.
//!
//! Rounding errors of single operations are taken as independent with standard deviation at most u times the result
//! (Higham and Mary 2019); a product's error follows the random walk of its partial sums. Cells are written once, over
//! [`Number`], and run on plain floats for the values and on [`Spread`] for their budgets.

use isotrace_tensor::Tensor;

use crate::activation::Activation;
use crate::budget::{self, Budget, Unit};
use crate::product::{Matrix, product};
use crate::{Float, OpError};

/// What a cell computes with.
pub trait Number: Copy + Send + Sync {
    /// The type of the weights.
    type Weight: Float;
    /// An exact number.
    #[must_use]
    fn exact(x: Self::Weight) -> Self;
    /// The number alone.
    fn value(self) -> Self::Weight;
    /// Sum.
    #[must_use]
    fn plus(self, other: Self) -> Self;
    /// Product.
    #[must_use]
    fn times(self, other: Self) -> Self;
    /// Quotient.
    #[must_use]
    fn over(self, other: Self) -> Self;
    /// 1 minus this.
    #[must_use]
    fn complement(self) -> Self;
    /// e to this power.
    #[must_use]
    fn exponential(self) -> Self;
    /// An activation's value here.
    #[must_use]
    fn activate(self, activation: Activation) -> Self;
    /// `x w^T` with `x` m by k (dense) and `w` n by k, written to `out`, m by n.
    fn product(x: &[Self], w: &[Self::Weight], sizes: (usize, usize, usize), out: &mut Vec<Self>);
    /// `x w` with `x` m by k (dense) and `w` k by n, its rows and columns `steps` apart, on one thread.
    fn pair(x: &[Self], w: &[Self], steps: (usize, usize), sizes: (usize, usize, usize), out: &mut Vec<Self>);
    /// e^(x - max) over the sum of these, and over `sink`'s e^(sink - max) too; all 0 where nothing is above -infinity.
    fn softmax(row: &mut [Self], sink: Option<Self::Weight>);
}

impl<T: Float> Number for T {
    type Weight = T;
    #[inline(always)]
    fn exact(x: T) -> T {
        x
    }
    #[inline(always)]
    fn value(self) -> T {
        self
    }
    #[inline(always)]
    fn plus(self, other: T) -> T {
        self + other
    }
    #[inline(always)]
    fn times(self, other: T) -> T {
        self * other
    }
    #[inline(always)]
    fn over(self, other: T) -> T {
        self / other
    }
    #[inline(always)]
    fn complement(self) -> T {
        T::ONE - self
    }
    #[inline(always)]
    fn exponential(self) -> T {
        self.exp()
    }
    #[inline(always)]
    fn activate(self, activation: Activation) -> T {
        activation.at(self)
    }
    fn product(x: &[T], w: &[T], (m, k, n): (usize, usize, usize), out: &mut Vec<T>) {
        out.clear();
        out.resize(m * n, T::ZERO);
        let (x, w) = (Matrix { data: x, row: k, column: 1 }, Matrix { data: w, row: 1, column: k });
        product(m, k, n, x, w, out, true);
    }
    fn pair(
        x: &[T],
        w: &[T],
        (row, column): (usize, usize),
        (m, k, n): (usize, usize, usize),
        out: &mut Vec<T>,
    ) {
        out.clear();
        out.resize(m * n, T::ZERO);
        let (x, w) = (Matrix { data: x, row: k, column: 1 }, Matrix { data: w, row, column });
        product(m, k, n, x, w, out, false);
    }
    fn softmax(row: &mut [T], sink: Option<T>) {
        let max = row.iter().fold(sink.unwrap_or(-T::INFINITY), |a, &b| a.max_nan(b));
        if max == -T::INFINITY {
            row.fill(T::ZERO);
            return;
        }
        let mut sum = T::ZERO;
        for x in row.iter_mut() {
            *x = (*x - max).exp();
            sum += *x;
        }
        sum += sink.map_or(T::ZERO, |s| (s - max).exp());
        for x in row {
            *x = *x / sum;
        }
    }
}

/// A number and the variance of its error in units of u^2.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The number.
    pub x: f64,
    /// The variance.
    pub variance: f64,
}

impl Spread {
    /// With the rounding of one operation added.
    fn rounded(x: f64, variance: f64) -> Self {
        Self { x, variance: variance + x * x }
    }

    /// Variance of the rounding of a sum of `terms` products whose squares sum to `squares` and whose value is `y`:
    /// the random walk of the partial sums.
    pub fn walk(y: f64, squares: f64, terms: usize) -> f64 {
        terms as f64 * (y * y / 3.0 + squares / 6.0) + y * y
    }
}

impl Number for Spread {
    type Weight = f64;
    fn exact(x: f64) -> Self {
        Self { x, variance: 0.0 }
    }
    fn value(self) -> f64 {
        self.x
    }
    fn plus(self, other: Self) -> Self {
        Self::rounded(self.x + other.x, self.variance + other.variance)
    }
    fn times(self, other: Self) -> Self {
        let variance = self.x * self.x * other.variance + other.x * other.x * self.variance;
        Self::rounded(self.x * other.x, variance)
    }
    fn over(self, other: Self) -> Self {
        let (y, scale) = (self.x / other.x, 1.0 / (other.x * other.x));
        Self::rounded(y, (self.variance + y * y * other.variance) * scale)
    }
    fn complement(self) -> Self {
        Self::rounded(1.0 - self.x, self.variance)
    }
    fn exponential(self) -> Self {
        let y = self.x.exp();
        // Twice the rounding of the result: the class of library functions.
        Self { x: y, variance: y * y * (self.variance + 4.0) }
    }
    fn activate(self, activation: Activation) -> Self {
        let y = activation.at(self.x);
        let h = 1e-6 * self.x.abs().max(1.0);
        let slope = activation.change(self.x, h) / h;
        // The function's own error, at u = 1: the unit of its class.
        let own = activation.rounding(self.x, y, Unit { u: 1.0, eta: 0.0, tiny: 0.0, calibrated: false });
        Self { x: y, variance: slope * slope * self.variance + own * own }
    }
    fn product(x: &[Self], w: &[f64], (m, k, n): (usize, usize, usize), out: &mut Vec<Self>) {
        let squared: Vec<f64> = w.iter().map(|w| w * w).collect();
        let mut parts = [const { Vec::new() }; 3];
        let of: [fn(&Self) -> f64; 3] = [|x| x.x, |x| x.x * x.x, |x| x.variance];
        for (part, (of, w)) in parts.iter_mut().zip(of.into_iter().zip([w, &squared, &squared])) {
            let x: Vec<f64> = x.iter().map(of).collect();
            f64::product(&x, w, (m, k, n), part);
        }
        let [y, squares, inherited] = parts;
        out.clear();
        out.extend(
            (0..m * n).map(|i| Self { x: y[i], variance: inherited[i] + Self::walk(y[i], squares[i], k) }),
        );
    }
    fn pair(
        x: &[Self],
        w: &[Self],
        steps: (usize, usize),
        (m, k, n): (usize, usize, usize),
        out: &mut Vec<Self>,
    ) {
        let of: [fn(&Self) -> f64; 3] = [|x| x.x, |x| x.x * x.x, |x| x.variance];
        let [left, right] = [x, w].map(|t| of.map(|of| t.iter().map(of).collect::<Vec<f64>>()));
        let times = |a: &[f64], b: &[f64]| {
            let mut out = Vec::new();
            f64::pair(a, b, steps, (m, k, n), &mut out);
            out
        };
        let (y, squares) = (times(&left[0], &right[0]), times(&left[1], &right[1]));
        let (from_left, from_right) = (times(&left[2], &right[1]), times(&left[1], &right[2]));
        out.clear();
        out.extend((0..m * n).map(|i| Self {
            x: y[i],
            variance: from_left[i] + from_right[i] + Self::walk(y[i], squares[i], k),
        }));
    }
    fn softmax(row: &mut [Self], sink: Option<f64>) {
        let before: Vec<Self> = row.to_vec();
        let mut p: Vec<f64> = row.iter().map(|s| s.x).collect();
        f64::softmax(&mut p, sink);
        let max = before.iter().map(|s| s.x).chain(sink).fold(f64::NEG_INFINITY, f64::max);
        // What the class of softmax allows an element (d = max - x): d, the mean of d, sqrt(K), 4; and the errors of
        // the arguments, its own and the mean of all.
        let mut mean = 0.0;
        let mut inherited = 0.0;
        for (s, &p) in before.iter().zip(&p).filter(|(_, p)| **p > 0.0) {
            mean += p * (max - s.x);
            inherited += p * p * s.variance;
        }
        let terms = row.len() as f64;
        for ((out, s), p) in row.iter_mut().zip(&before).zip(p) {
            let own = (max - s.x).powi(2) + mean * mean + terms + 16.0;
            let variance = if p > 0.0 { p * p * (s.variance + inherited + own) } else { 0.0 };
            *out = Self { x: p, variance };
        }
    }
}

/// An operator's outputs, each as its shape and its elements.
pub type Outputs<N> = Vec<(Vec<usize>, Vec<N>)>;

/// Outputs that were computed on plain floats, as tensors.
pub fn tensors<T: Float>(outputs: Outputs<T>) -> Result<Vec<Tensor>, OpError> {
    outputs.into_iter().map(|(shape, data)| Ok(Tensor::from_vec(&shape, data)?)).collect()
}

/// The budget of output `index` of several, at unit roundoff `unit`.
pub fn budget_of(outputs: &[(Vec<usize>, Vec<Spread>)], index: usize, unit: Unit) -> Result<Budget, OpError> {
    let found = outputs.get(index).ok_or_else(|| OpError::Input(format!("there is no output {index}")))?;
    Ok(budget(&found.1, unit))
}

/// The budget of outputs that carry their spread, at unit roundoff `unit`.
pub fn budget(outputs: &[Spread], unit: Unit) -> Budget {
    let spread = |s: &Spread| {
        let deviation = unit.u * s.variance.max(0.0).sqrt();
        // Where the value itself is not finite nothing can be said of its error, and nothing has to be.
        (if deviation.is_finite() { deviation } else { 0.0 }) + unit.tiny
    };
    budget::propagated(outputs.iter().map(spread).collect(), unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_operations() {
        let a = Spread { x: 2.0, variance: 1.0 };
        let b = Spread { x: -3.0, variance: 4.0 };
        assert_eq!(a.plus(b).variance, 1.0 + 4.0 + 1.0);
        assert_eq!(a.times(b).variance, 4.0 * 4.0 + 9.0 * 1.0 + 36.0);
        assert_eq!(a.over(b).variance, (1.0 + 4.0 / 9.0 * 4.0) / 9.0 + 4.0 / 9.0);
        assert_eq!(a.complement().variance, 1.0 + 1.0);
        assert_eq!(a.activate(Activation::Relu).variance.round(), 1.0);
        assert_eq!(b.activate(Activation::Relu).variance, 0.0);
    }

    #[test]
    fn spread_predicts_the_error_of_f32() {
        // A product of 64 terms in f32 against f64, many times: the rms error over the predicted spread is about 1.
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
        };
        let (m, k, n) = (16, 64, 16);
        let x: Vec<f32> = (0..m * k).map(|_| next()).collect();
        let w: Vec<f32> = (0..n * k).map(|_| next()).collect();
        let mut narrow = Vec::new();
        f32::product(&x, &w, (m, k, n), &mut narrow);
        let wide: Vec<Spread> = x.iter().map(|&x| Spread::exact(x.into())).collect();
        let mut spread = Vec::new();
        Spread::product(&wide, &w.iter().map(|&w| w.into()).collect::<Vec<f64>>(), (m, k, n), &mut spread);
        let ratio: f64 = narrow
            .iter()
            .zip(&spread)
            .map(|(&y, s)| (f64::from(y) - s.x).powi(2) / (Unit::F32.u.powi(2) * s.variance))
            .sum::<f64>()
            / narrow.len() as f64;
        assert!((0.001..1.0).contains(&ratio), "{ratio}");
    }
}
