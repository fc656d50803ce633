//! Statistics of numbers under way, and how those of several pieces become one.

use super::digest::Digest;
use super::number::Number;

/// Exponents of f64 from the smallest subnormal to the largest number.
pub(super) const LOWEST: i32 = -1074;
const EXPONENTS: usize = 1024 + 1074;

/// Statistics under way.
pub struct Sums {
    pub(super) nan: u64,
    pub(super) inf: u64,
    pub(super) negative_inf: u64,
    pub(super) zeros: u64,
    pub(super) subnormal: u64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) finite: f64,
    pub(super) mean: f64,
    pub(super) magnitude: f64,
    /// Sum of the squares of the distances from the mean.
    pub(super) spread: f64,
    /// Of positive numbers and of negative ones.
    pub(super) exponents: [Vec<u64>; 2],
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            nan: 0,
            inf: 0,
            negative_inf: 0,
            zeros: 0,
            subnormal: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            finite: 0.0,
            mean: 0.0,
            magnitude: 0.0,
            spread: 0.0,
            exponents: [vec![0; EXPONENTS], vec![0; EXPONENTS]],
        }
    }
}

impl Sums {
    /// Two samples into one (Chan, Golub, LeVeque 1979).
    pub(super) fn moments(&mut self, finite: f64, mean: f64, spread: f64, magnitude: f64) {
        if finite == 0.0 {
            return;
        }
        let total = self.finite + finite;
        let apart = mean - self.mean;
        self.spread += spread + apart * apart * (self.finite * finite / total);
        self.mean += apart * (finite / total);
        self.magnitude += magnitude;
        self.finite = total;
    }

    /// Numbers whose leading bits do not say how large they are.
    #[cold]
    pub(super) fn subnormal(&mut self, values: impl Iterator<Item = f64>) {
        for x in values.filter(|x| *x != 0.0 && x.abs() < f64::from(f32::MIN_POSITIVE)) {
            self.exponents[usize::from(x < 0.0)][(exponent(x) - LOWEST) as usize] += 1;
        }
    }

    /// A block in which not every number is finite, or whose sum is not.
    #[cold]
    pub(super) fn awkward<I: Iterator<Item = f64>>(&mut self, values: impl Fn() -> I) {
        let (mut sum, mut magnitude, mut finite) = (0.0, 0.0, 0.0);
        for x in values() {
            if x.is_finite() {
                finite += 1.0;
                sum += x;
                magnitude += x.abs();
                self.min = self.min.min(x);
                self.max = self.max.max(x);
            } else {
                self.nan += u64::from(x.is_nan());
                self.inf += u64::from(x == f64::INFINITY);
                self.negative_inf += u64::from(x == f64::NEG_INFINITY);
            }
        }
        let mean = if finite > 0.0 { sum / finite } else { 0.0 };
        let spread = values().filter(|x| x.is_finite()).map(|x| (x - mean) * (x - mean)).sum();
        self.moments(finite, mean, spread, magnitude);
    }

    pub(super) fn and(&mut self, other: &Self) {
        self.nan += other.nan;
        self.inf += other.inf;
        self.negative_inf += other.negative_inf;
        self.zeros += other.zeros;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.moments(other.finite, other.mean, other.spread, other.magnitude);
        for (side, others) in self.exponents.iter_mut().zip(&other.exponents) {
            side.iter_mut().zip(others).for_each(|(a, b)| *a += b);
        }
    }

    /// In the form in which they are kept.
    pub fn digest(&self, count: usize, hash: String) -> Digest {
        let known = |x: f64| (self.finite > 0.0).then_some(Number(x));
        let counts = |side: &[u64]| -> Vec<(i32, u64)> {
            let filled = side.iter().enumerate().filter(|(_, count)| **count > 0);
            filled.map(|(at, &count)| (at as i32 + LOWEST, count)).collect()
        };
        Digest {
            count: count as u64,
            nan: self.nan,
            inf: self.inf,
            negative_inf: self.negative_inf,
            zeros: self.zeros,
            subnormal: self.subnormal,
            min: known(self.min),
            max: known(self.max),
            mean: known(self.mean),
            mean_abs: known(self.magnitude / self.finite),
            std: known((self.spread / self.finite).sqrt()),
            positive: counts(&self.exponents[0]),
            negative: counts(&self.exponents[1]),
            hash: Some(hash),
            sha256: None,
        }
    }
}

/// floor(log2(|x|)) of a finite number that is not zero.
pub(super) fn exponent(x: f64) -> i32 {
    let bits = x.to_bits() & (u64::MAX >> 1);
    match (bits >> 52) as i32 {
        0 => LOWEST + 63 - bits.leading_zeros() as i32,
        biased => biased - 1023,
    }
}
