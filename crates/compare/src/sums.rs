//! What the metrics are made of, and how two parts of a tensor come together.

/// Sums, maxima and counts over some places of two tensors.
#[derive(Debug, Clone)]
pub(crate) struct Sums {
    /// Of |a - b|.
    pub sum_abs: f64,
    /// Of |a - b|².
    pub sum_squares: f64,
    /// Of |a|² and of |b|².
    pub squares: [f64; 2],
    /// Of a·b.
    pub product: f64,
    pub max_abs: f64,
    pub max_rel: f64,
    pub max_ulp: u64,
    /// Places at least 2^k steps apart.
    pub at_least: [u64; 64],
    /// The largest finite magnitudes.
    pub largest: [f64; 2],
    pub different: u64,
    pub nan: [u64; 2],
    pub inf: [u64; 2],
    pub nan_against_number: u64,
    pub inf_against_other: u64,
    /// Whether a bit differs anywhere; only where slices were compared.
    pub bits_differ: bool,
    /// Elements beyond a tolerance, where one was asked for.
    pub beyond: u64,
    /// The first place of a NaN against a number.
    pub first_nan: Option<usize>,
    /// The first place of the largest difference.
    pub worst: Option<usize>,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            sum_abs: 0.0,
            sum_squares: 0.0,
            squares: [0.0; 2],
            product: 0.0,
            max_abs: 0.0,
            max_rel: 0.0,
            max_ulp: 0,
            at_least: [0; 64],
            largest: [0.0; 2],
            different: 0,
            nan: [0; 2],
            inf: [0; 2],
            nan_against_number: 0,
            inf_against_other: 0,
            bits_differ: false,
            beyond: 0,
            first_nan: None,
            worst: None,
        }
    }
}

/// The smaller of two places that may be none.
fn first(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Sums {
    /// A difference of `d`, not 0, at a place, for the maximum alone.
    pub fn difference(&mut self, d: f64, at: usize) {
        if d > self.max_abs {
            (self.max_abs, self.worst) = (d, Some(at));
        } else if d == self.max_abs {
            self.worst = first(self.worst, Some(at));
        }
    }

    /// A pair of which one at least is NaN or infinite, `steps` apart.
    pub fn special(&mut self, x: f64, y: f64, steps: u64, at: usize) {
        for (side, v) in [x, y].into_iter().enumerate() {
            self.nan[side] += u64::from(v.is_nan());
            self.inf[side] += u64::from(v.is_infinite());
            if v.is_finite() {
                self.largest[side] = self.largest[side].max(v.abs());
            }
        }
        if x == y || x.is_nan() && y.is_nan() {
            return;
        }
        self.different += 1;
        if x.is_nan() || y.is_nan() {
            self.nan_against_number += 1;
            self.first_nan = first(self.first_nan, Some(at));
            return;
        }
        self.inf_against_other += 1;
        self.sum_abs = f64::INFINITY;
        self.sum_squares = f64::INFINITY;
        self.max_rel = f64::INFINITY;
        self.steps(steps);
        self.difference(f64::INFINITY, at);
    }

    /// A distance in steps.
    pub fn steps(&mut self, steps: u64) {
        self.max_ulp = self.max_ulp.max(steps);
        for count in &mut self.at_least[..(u64::BITS - steps.leading_zeros()) as usize] {
            *count += 1;
        }
    }

    /// Both together, the same bits in every order of pieces that is a fixed tree.
    pub fn and(mut self, other: &Self) -> Self {
        if other.max_abs > self.max_abs {
            self.worst = other.worst;
        } else if other.max_abs == self.max_abs {
            self.worst = first(self.worst, other.worst);
        }
        self.first_nan = first(self.first_nan, other.first_nan);
        self.sum_abs += other.sum_abs;
        self.sum_squares += other.sum_squares;
        self.product += other.product;
        self.max_abs = self.max_abs.max(other.max_abs);
        self.max_rel = self.max_rel.max(other.max_rel);
        self.max_ulp = self.max_ulp.max(other.max_ulp);
        for (all, more) in self.at_least.iter_mut().zip(&other.at_least) {
            *all += more;
        }
        self.different += other.different;
        self.bits_differ |= other.bits_differ;
        self.beyond += other.beyond;
        self.nan_against_number += other.nan_against_number;
        self.inf_against_other += other.inf_against_other;
        for side in 0..2 {
            self.squares[side] += other.squares[side];
            self.largest[side] = self.largest[side].max(other.largest[side]);
            self.nan[side] += other.nan[side];
            self.inf[side] += other.inf[side];
        }
        self
    }

    /// Whether squares of numbers this large or small left the range of f64, and the factor that brings them back.
    pub fn out_of_range(&self) -> Option<f64> {
        let largest = self.largest[0].max(self.largest[1]);
        // 2^±480: sums of 2^60 squares stay finite, and squares down to 2^-60 of the largest stay normal.
        let (low, high) = (f64::from_bits((1023 - 480) << 52), f64::from_bits((1023 + 480) << 52));
        (largest > 0.0 && !(low..=high).contains(&largest)).then(|| {
            let exponent = largest.log2().floor().clamp(-1020.0, 1020.0);
            2f64.powi(-exponent as i32)
        })
    }
}
