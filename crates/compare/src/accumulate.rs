//! Sums, maxima and counts over all elements, block by block.

use rayon::prelude::*;

use crate::number::Real;

/// Elements a block: both sides of f32 stay in the first-level cache through the loops over it.
const BLOCK: usize = 2048;
/// Sums kept side by side, so that additions do not wait for each other.
const LANES: usize = 8;
/// Blocks that one thread takes at once; fewer cost less than handing them out.
const ALONE: usize = 8;

/// What the metrics are made of.
#[derive(Debug, Clone, Default)]
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
    pub largest: [f64; 2],
    pub different: u64,
    pub nan: [u64; 2],
    pub inf: [u64; 2],
    pub nan_against_number: u64,
    pub inf_against_other: u64,
    /// The first place of a NaN against a number, else of the largest difference.
    pub worst: Option<usize>,
}

impl Sums {
    /// Both together; `other` comes after `self`.
    fn and(mut self, other: &Self) -> Self {
        // A NaN against a number is worse than any difference.
        let worse = match (self.nan_against_number, other.nan_against_number) {
            (0, 0) => other.max_abs > self.max_abs,
            (mine, theirs) => mine == 0 && theirs > 0,
        };
        if worse || self.worst.is_none() {
            self.worst = other.worst;
        }
        self.sum_abs += other.sum_abs;
        self.sum_squares += other.sum_squares;
        self.product += other.product;
        self.max_abs = self.max_abs.max(other.max_abs);
        self.max_rel = self.max_rel.max(other.max_rel);
        self.max_ulp = self.max_ulp.max(other.max_ulp);
        self.different += other.different;
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

    /// For elements that are groups of `parts` numbers: the worst element rather than the worst number.
    pub(crate) fn in_groups_of(mut self, parts: usize) -> Self {
        self.worst = self.worst.map(|i| i / parts);
        self
    }

    fn add(&mut self, i: usize, e: &Element, scale: f64) {
        let Element { x, y, d, rel, ulp } = *e;
        self.nan[0] += u64::from(x.is_nan());
        self.nan[1] += u64::from(y.is_nan());
        self.inf[0] += u64::from(x.is_infinite());
        self.inf[1] += u64::from(y.is_infinite());
        self.different += u64::from(d != 0.0);
        if d.is_nan() {
            if self.nan_against_number == 0 {
                self.worst = Some(i);
            }
            self.nan_against_number += 1;
            return;
        }
        if d > self.max_abs && self.nan_against_number == 0 {
            self.worst = Some(i);
        }
        self.sum_abs += d;
        self.sum_squares += (d * scale) * (d * scale);
        self.max_abs = self.max_abs.max(d);
        self.max_rel = self.max_rel.max(rel);
        self.max_ulp = self.max_ulp.max(ulp);
        if x.is_finite() && y.is_finite() {
            let (x, y) = (x * scale, y * scale);
            self.squares[0] += x * x;
            self.squares[1] += y * y;
            self.product += x * y;
        } else {
            self.inf_against_other += u64::from(d != 0.0);
        }
        for (largest, v) in self.largest.iter_mut().zip([x, y]) {
            if v.is_finite() {
                *largest = largest.max(v.abs());
            }
        }
    }

    /// Whether squares of numbers this large or small left the range of f64, and the factor that brings them back.
    fn out_of_range(&self) -> Option<f64> {
        let largest = self.largest[0].max(self.largest[1]);
        // 2^±480: sums of 2^60 squares stay finite, and squares down to 2^-60 of the largest stay normal.
        let (low, high) = (f64::from_bits((1023 - 480) << 52), f64::from_bits((1023 + 480) << 52));
        (largest > 0.0 && !(low..=high).contains(&largest)).then(|| {
            let exponent = largest.log2().floor().clamp(-1020.0, 1020.0);
            2f64.powi(-exponent as i32)
        })
    }
}

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
    pub(crate) fn reals(x: f64, y: f64, ulp: impl FnOnce() -> u64) -> Self {
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
    pub(crate) fn integers(x: i128, y: i128) -> Self {
        let d = x.abs_diff(y) as f64;
        let rel = if x == y { 0.0 } else { d / (x as f64).abs() };
        Self { x: x as f64, y: y as f64, d, rel, ulp: 0 }
    }

    /// Two things that are the same or not.
    pub(crate) fn counted(differ: bool) -> Self {
        let d = f64::from(u8::from(differ));
        Self { x: 0.0, y: 0.0, d, rel: if differ { f64::INFINITY } else { 0.0 }, ulp: 0 }
    }
}

/// Over the places `0..len`, read one by one.
pub(crate) fn elements(len: usize, read: impl Fn(usize) -> Element + Sync) -> Sums {
    let pass = |scale: f64| {
        in_blocks(len, |from, to| {
            let mut sums = Sums::default();
            for i in from..to {
                sums.add(i, &read(i), scale);
            }
            sums
        })
    };
    rescaled(pass(1.0), pass)
}

/// Over two slices of one float type and length.
pub(crate) fn slices<T: Real>(a: &[T], b: &[T]) -> Sums {
    let read = |i: usize| {
        let (x, y) = (a[i], b[i]);
        Element::reals(x.wide(), y.wide(), || x.place().abs_diff(y.place()))
    };
    let careful = |from: usize, to: usize, scale: f64| {
        let mut sums = Sums::default();
        for i in from..to {
            sums.add(i, &read(i), scale);
        }
        sums
    };
    let sums = in_blocks(a.len(), |from, to| {
        let (x, y) = (&a[from..to], &b[from..to]);
        if finite(x) & finite(y) { plain(x, y, from) } else { careful(from, to, 1.0) }
    });
    rescaled(sums, |scale| in_blocks(a.len(), |from, to| careful(from, to, scale)))
}

/// Runs `block` on `0..len` in pieces and puts their sums together pairwise, the same way for any thread count.
fn in_blocks(len: usize, block: impl Fn(usize, usize) -> Sums + Sync) -> Sums {
    let piece = |k: usize| block(k * BLOCK, ((k + 1) * BLOCK).min(len));
    let count = len.div_ceil(BLOCK);
    let mut sums: Vec<Sums> = if count <= ALONE {
        (0..count).map(piece).collect()
    } else {
        (0..count).into_par_iter().with_min_len(ALONE).map(piece).collect()
    };
    while sums.len() > 1 {
        sums = sums
            .chunks(2)
            .map(|pair| match pair {
                [one, other] => one.clone().and(other),
                rest => rest[0].clone(),
            })
            .collect();
    }
    sums.pop().unwrap_or_default()
}

/// Norms again with scaled elements where squares overflowed or vanished.
fn rescaled(sums: Sums, again: impl Fn(f64) -> Sums) -> Sums {
    match sums.out_of_range() {
        None => sums,
        // The scale cancels in the cosine and in a ratio of norms; nothing else is taken from the second pass.
        Some(scale) => {
            let scaled = again(scale);
            Sums { sum_squares: scaled.sum_squares, squares: scaled.squares, product: scaled.product, ..sums }
        }
    }
}

/// Whether every element is a number; without a branch in the loop.
fn finite<T: Real>(x: &[T]) -> bool {
    x.iter().fold(true, |all, x| all & x.finite())
}

/// A block of numbers only. `from` is its first place.
fn plain<T: Real>(a: &[T], b: &[T], from: usize) -> Sums {
    let mut abs = [0.0; LANES];
    let mut d2 = [0.0; LANES];
    let mut a2 = [0.0; LANES];
    let mut b2 = [0.0; LANES];
    let mut ab = [0.0; LANES];
    for (x, y) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for (l, (x, y)) in x.iter().zip(y).enumerate() {
            let (x, y) = (x.wide(), y.wide());
            let d = (x - y).abs();
            abs[l] += d;
            d2[l] += d * d;
            a2[l] += x * x;
            b2[l] += y * y;
            ab[l] += x * y;
        }
    }
    let mut max = [0f64; LANES];
    let mut rel = [0f64; LANES];
    let mut max_a = [0f64; LANES];
    let mut max_b = [0f64; LANES];
    for (x, y) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for (l, (x, y)) in x.iter().zip(y).enumerate() {
            let (x, y) = (x.wide(), y.wide());
            let d = (x - y).abs();
            // 0/0 is NaN, which the comparison passes over: equal zeros are no distance apart.
            let r = d / x.abs();
            max[l] = if d > max[l] { d } else { max[l] };
            rel[l] = if r > rel[l] { r } else { rel[l] };
            max_a[l] = if x.abs() > max_a[l] { x.abs() } else { max_a[l] };
            max_b[l] = if y.abs() > max_b[l] { y.abs() } else { max_b[l] };
        }
    }
    let largest = |lanes: [f64; LANES]| lanes.into_iter().fold(0.0, f64::max);
    let max_abs = largest(max);
    let mut sums = Sums {
        sum_abs: total(abs),
        sum_squares: total(d2),
        squares: [total(a2), total(b2)],
        product: total(ab),
        max_abs,
        max_rel: largest(rel),
        largest: [largest(max_a), largest(max_b)],
        ..Sums::default()
    };
    if max_abs > 0.0 {
        for (x, y) in a.iter().zip(b) {
            sums.max_ulp = sums.max_ulp.max(x.place().abs_diff(y.place()));
            sums.different += u64::from(x.wide() != y.wide());
        }
        sums.worst =
            a.iter().zip(b).position(|(x, y)| (x.wide() - y.wide()).abs() == max_abs).map(|i| from + i);
    }
    sums
}

/// The lanes added pairwise.
fn total(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}
