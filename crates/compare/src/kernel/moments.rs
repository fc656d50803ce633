//! Sums of one tile: of differences, of squares, of products.

/// Sums kept side by side, so that additions do not wait for each other.
pub(crate) const LANES: usize = 8;
/// The same for sums in f32.
const NARROW: usize = 16;

/// Running sums over the places of two tensors, in lanes.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(crate) struct Moments {
    /// Of |a - b|.
    pub abs: [f64; LANES],
    /// Of |a - b|².
    pub squares: [f64; LANES],
    /// Of a².
    pub a: [f64; LANES],
    /// Of b².
    pub b: [f64; LANES],
    /// Of a·b.
    pub product: [f64; LANES],
}

/// What a tile has to be looked at again for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extremes {
    /// Whether a difference exceeds the largest so far.
    pub larger: bool,
    /// Whether a difference may exceed the largest relative one so far.
    pub steeper: bool,
}

/// What sums are made of.
pub(crate) trait Number: Copy {
    /// As f64, exactly.
    fn wide(self) -> f64;
}

impl Number for f32 {
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Number for f64 {
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
}

/// A relative difference is asked for exactly only where it may be a new largest: a division for every element would
/// take longer than all the rest. With `max` the largest so far, |a - b| / |a| rounds to more than `max` only if
/// |a - b| > max·|a|; the factor makes up for the rounding of the product.
pub(crate) fn below(max: f64) -> f64 {
    max * (1.0 - f64::EPSILON * 4.0)
}

impl Moments {
    pub const fn new() -> Self {
        let zero = [0.0; LANES];
        Self { abs: zero, squares: zero, a: zero, b: zero, product: zero }
    }

    /// A tile of numbers. `max` and `max_rel` are the largest differences so far; `ahead` is called sixteen
    /// times, with the number of the call, to ask for what comes next.
    #[inline(always)]
    pub fn add<T: Number>(
        &mut self,
        x: &[T],
        y: &[T],
        [max, max_rel]: [f64; 2],
        ahead: impl Fn(usize),
    ) -> Extremes {
        let Self { mut abs, mut squares, mut a, mut b, mut product } = self.clone();
        let (mut larger, mut over) = ([max; LANES], [0.0; LANES]);
        let slope = -below(max_rel);
        for (k, (x, y)) in x.as_chunks::<LANES>().0.iter().zip(y.as_chunks::<LANES>().0).enumerate() {
            every(k, 32, &ahead);
            for l in 0..LANES {
                let (x, y) = (x[l].wide(), y[l].wide());
                let d = (x - y).abs();
                abs[l] += d;
                squares[l] = d.mul_add(d, squares[l]);
                a[l] = x.mul_add(x, a[l]);
                b[l] = y.mul_add(y, b[l]);
                product[l] = x.mul_add(y, product[l]);
                larger[l] = if d > larger[l] { d } else { larger[l] };
                let above = slope.mul_add(x.abs(), d);
                over[l] = if above > over[l] { above } else { over[l] };
            }
        }
        *self = Self { abs, squares, a, b, product };
        extremes(&larger, max, &over)
    }

    /// The same for f32, with the maxima in f32. `exact` says that differences are exact in it.
    #[inline(always)]
    pub fn add_f32(
        &mut self,
        x: &[f32],
        y: &[f32],
        [max, max_rel]: [f64; 2],
        exact: bool,
        ahead: impl Fn(usize),
    ) -> Extremes {
        let Self { mut abs, mut squares, mut a, mut b, mut product } = self.clone();
        let max = narrow_max(max, exact);
        let slope = -narrow_below(max_rel);
        let (mut larger, mut over) = ([max; NARROW], [0f32; NARROW]);
        for (k, (x, y)) in x.as_chunks::<NARROW>().0.iter().zip(y.as_chunks::<NARROW>().0).enumerate() {
            every(k, 32, &ahead);
            for l in 0..NARROW {
                let d = (x[l] - y[l]).abs();
                larger[l] = if d > larger[l] { d } else { larger[l] };
                let above = slope.mul_add(x[l].abs(), d);
                over[l] = if above > over[l] { above } else { over[l] };
            }
            for half in 0..NARROW / LANES {
                for l in 0..LANES {
                    let (x, y) = (f64::from(x[half * LANES + l]), f64::from(y[half * LANES + l]));
                    let d = x - y;
                    abs[l] += d.abs();
                    squares[l] = d.mul_add(d, squares[l]);
                    a[l] = x.mul_add(x, a[l]);
                    b[l] = y.mul_add(y, b[l]);
                    product[l] = x.mul_add(y, product[l]);
                }
            }
        }
        *self = Self { abs, squares, a, b, product };
        extremes(&larger, max, &over)
    }

    /// A tile whose numbers are the same on both sides.
    #[inline(always)]
    pub fn add_same<T: Number>(&mut self, x: &[T]) {
        let mut sums = [0.0; LANES];
        for x in x.as_chunks::<LANES>().0 {
            for (sum, x) in sums.iter_mut().zip(x) {
                let x = x.wide();
                *sum = x.mul_add(x, *sum);
            }
        }
        for (l, sum) in sums.into_iter().enumerate() {
            self.a[l] += sum;
            self.b[l] += sum;
            self.product[l] += sum;
        }
    }

    /// A tile of half-precision numbers, given as f32: products are exact there, and sums of a few of them lose no
    /// more than 2^-20 of their value before they go on in f64. `exact` says that differences are exact in f32.
    #[inline(always)]
    pub fn add_narrow(
        &mut self,
        x: &[f32],
        y: &[f32],
        [max, max_rel]: [f64; 2],
        exact: bool,
        ahead: impl Fn(usize),
    ) -> Extremes {
        let max = narrow_max(max, exact);
        let slope = -narrow_below(max_rel);
        let (mut larger, mut over) = ([max; NARROW], [0f32; NARROW]);
        /// Elements between two roundings to f64.
        const RUN: usize = 16 * NARROW;
        for (run, (x, y)) in x.as_chunks::<RUN>().0.iter().zip(y.as_chunks::<RUN>().0).enumerate() {
            let zero = [0f32; NARROW];
            let (mut abs, mut squares, mut a, mut b, mut product) = (zero, zero, zero, zero, zero);
            for (k, (x, y)) in x.as_chunks::<NARROW>().0.iter().zip(y.as_chunks::<NARROW>().0).enumerate() {
                every(run * RUN / NARROW + k, 64, &ahead);
                for l in 0..NARROW {
                    let (x, y) = (x[l], y[l]);
                    let d = (x - y).abs();
                    abs[l] += d;
                    squares[l] = d.mul_add(d, squares[l]);
                    a[l] = x.mul_add(x, a[l]);
                    b[l] = y.mul_add(y, b[l]);
                    product[l] = x.mul_add(y, product[l]);
                    larger[l] = if d > larger[l] { d } else { larger[l] };
                    let above = slope.mul_add(x.abs(), d);
                    over[l] = if above > over[l] { above } else { over[l] };
                }
            }
            for l in 0..LANES {
                self.abs[l] += f64::from(abs[l]) + f64::from(abs[l + LANES]);
                self.squares[l] += f64::from(squares[l]) + f64::from(squares[l + LANES]);
                self.a[l] += f64::from(a[l]) + f64::from(a[l + LANES]);
                self.b[l] += f64::from(b[l]) + f64::from(b[l + LANES]);
                self.product[l] += f64::from(product[l]) + f64::from(product[l + LANES]);
            }
        }
        extremes(&larger, max, &over)
    }

    /// Whether the squares were neither too large for f32 nor so small that bits of them were lost.
    #[inline(always)]
    pub fn within_f32(&self) -> bool {
        // 2^-80 leaves 46 bits above the smallest normal number, 2^120 a factor of 256 below the largest.
        let range = f64::from_bits((1023 - 80) << 52)..f64::from_bits((1023 + 120) << 52);
        let mut within = true;
        for lanes in [&self.squares, &self.a, &self.b] {
            let mut sum = 0.0;
            for lane in lanes {
                sum += lane;
            }
            within &= range.contains(&sum);
        }
        within
    }

    /// Both together.
    #[inline(always)]
    pub fn join(&mut self, other: &Self) {
        for l in 0..LANES {
            self.abs[l] += other.abs[l];
            self.squares[l] += other.squares[l];
            self.a[l] += other.a[l];
            self.b[l] += other.b[l];
            self.product[l] += other.product[l];
        }
    }

    /// The sums of the lanes, pairwise: of |a - b|, |a - b|², a², b², a·b.
    pub fn finish(&self) -> [f64; 5] {
        [&self.abs, &self.squares, &self.a, &self.b, &self.product].map(|lanes| {
            let [a, b, c, d, e, f, g, h] = *lanes;
            ((a + b) + (c + d)) + ((e + f) + (g + h))
        })
    }
}

/// Calls `ahead` 16 times in `steps` steps, with the number of the call.
#[inline(always)]
fn every(step: usize, steps: usize, ahead: &impl Fn(usize)) {
    let apart = steps / 16;
    if step.is_multiple_of(apart) && step < steps {
        ahead(step / apart);
    }
}

/// What a difference in f32 must exceed to be looked at. Where differences are rounded, one that rounds to the
/// largest so far may exceed it.
fn narrow_max(max: f64, exact: bool) -> f32 {
    if exact { max as f32 } else { (max as f32).next_down().max(0.0) }
}

/// An f32 below `x` by a little more than the rounding of differences and products in f32.
fn narrow_below(x: f64) -> f32 {
    ((x * (1.0 - 1.0 / 1_048_576.0)) as f32).min(f32::MAX)
}

#[inline(always)]
fn extremes<T: Copy + PartialOrd + Default, const L: usize>(
    larger: &[T; L],
    max: T,
    over: &[T; L],
) -> Extremes {
    let mut found = Extremes { larger: false, steeper: false };
    for l in 0..L {
        found.larger |= larger[l] > max;
        found.steeper |= over[l] > T::default();
    }
    found
}
