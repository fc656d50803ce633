//! Places taken one by one: for pairs of types that no network spends its time on, and for what is rare in others.

use crate::accumulate::tree;
use crate::sums::Sums;

/// Elements a piece.
const PIECE: usize = 1 << 14;

/// One place of both tensors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element {
    x: f64,
    y: f64,
    /// |x - y| as the crate's text defines it; NaN for NaN against a number.
    d: f64,
    rel: f64,
    ulp: u64,
}

impl Element {
    /// Two floats; `ulp` is asked only where both are numbers that differ.
    pub fn reals(x: f64, y: f64, ulp: impl FnOnce() -> u64) -> Self {
        if x == y || x.is_nan() && y.is_nan() {
            return Self { x, y, d: 0.0, rel: 0.0, ulp: 0 };
        }
        let d = (x - y).abs();
        if d.is_nan() {
            return Self { x, y, d, rel: d, ulp: 0 };
        }
        // Infinity over infinity is an infinite difference too.
        let rel = if d.is_infinite() { d } else { d / x.abs() };
        Self { x, y, d, rel, ulp: ulp() }
    }

    /// Two integers: the difference is taken before it is rounded.
    pub fn integers(x: i128, y: i128) -> Self {
        let d = x.abs_diff(y) as f64;
        let rel = if x == y { 0.0 } else { d / (x as f64).abs() };
        Self { x: x as f64, y: y as f64, d, rel, ulp: 0 }
    }

    /// Two things that are the same or not.
    pub fn counted(differ: bool) -> Self {
        let d = f64::from(u8::from(differ));
        Self { x: 0.0, y: 0.0, d, rel: if differ { f64::INFINITY } else { 0.0 }, ulp: 0 }
    }
}

impl Sums {
    /// Takes in place `i`.
    pub fn add(&mut self, i: usize, e: &Element, scale: f64) {
        let Element { x, y, d, rel, ulp } = *e;
        if !(x.is_finite() && y.is_finite()) {
            return self.special(x, y, ulp, i);
        }
        self.different += u64::from(d != 0.0);
        if d != 0.0 {
            self.difference(d, i);
        }
        self.sum_abs += d;
        self.sum_squares += (d * scale) * (d * scale);
        self.max_rel = self.max_rel.max(rel);
        self.steps(ulp);
        for (largest, v) in self.largest.iter_mut().zip([x, y]) {
            *largest = largest.max(v.abs());
        }
        let (x, y) = (x * scale, y * scale);
        self.squares[0] += x * x;
        self.squares[1] += y * y;
        self.product += x * y;
    }
}

/// Over the places `0..len`, read one by one.
pub(crate) fn sums(len: usize, read: impl Fn(usize) -> Element + Sync) -> Sums {
    rescaled(over(len, 1.0, &read), |scale| over(len, scale, &read))
}

/// The same with every number times `scale` in sums of squares and products.
pub(crate) fn over(len: usize, scale: f64, read: impl Fn(usize) -> Element + Sync) -> Sums {
    tree(0, len.div_ceil(PIECE), &|k| {
        let mut sums = Sums::default();
        for i in k * PIECE..((k + 1) * PIECE).min(len) {
            sums.add(i, &read(i), scale);
        }
        sums
    })
}

/// Norms again with scaled elements where squares overflowed or vanished.
pub(crate) fn rescaled(sums: Sums, again: impl Fn(f64) -> Sums) -> Sums {
    match sums.out_of_range() {
        None => sums,
        // The scale cancels in the cosine and in a ratio of norms; nothing else is taken from the second pass.
        Some(scale) => {
            let scaled = again(scale);
            Sums { sum_squares: scaled.sum_squares, squares: scaled.squares, product: scaled.product, ..sums }
        }
    }
}

impl Sums {
    /// For elements that are groups of `parts` numbers: the worst element rather than the worst number.
    pub fn in_groups_of(mut self, parts: usize) -> Self {
        self.worst = self.worst.map(|i| i / parts);
        self.first_nan = self.first_nan.map(|i| i / parts);
        self
    }
}
