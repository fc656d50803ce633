//! Sums of one tile: of differences, of squares, of products.

use crate::isa::Isa;
use crate::native::Limits;

use super::LINES;

/// Sums kept side by side, so that additions do not wait for each other: a vector of 32 bytes.
pub(crate) const LANES: usize = 4;
/// The same for sums in f32: half of what a vector of half-precision numbers holds.
pub(crate) const NARROW: usize = 16;

/// Running sums over the places of two tensors, in lanes: of close tiles, or of any.
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
    /// Of a·b; of close tiles it is [derived](Self::derive_product) at the end.
    pub product: [f64; LANES],
}

/// What a tile is held against: the largest differences so far, absolute and relative, and what is allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub abs: f64,
    pub rel: f64,
    /// Read where a tile is judged.
    pub limits: Limits<f64>,
}

impl Seen {
    /// What an absolute difference in f32 must exceed to be looked at. Where differences are rounded, one that rounds to the largest so far may
    /// exceed it; and the largest itself may round up to one that exceeds it.
    #[inline(always)]
    fn narrow_limit(self, exact: bool) -> f32 {
        let max = self.abs as f32;
        if exact && f64::from(max) <= self.abs { max } else { max.next_down().max(0.0) }
    }
}

/// What a tile has to be looked at again for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Whether a difference exceeds the largest so far.
    pub larger: bool,
    /// Whether a difference may exceed the largest relative one so far.
    pub steeper: bool,
    /// Pairs beyond what is allowed, where the tile was judged.
    pub beyond: Option<u32>,
}

/// What sums are made of.
pub(crate) trait Number: Copy + Into<f64> {
    /// Two vectors' worth as f64, exactly.
    fn wide<I: Isa>(isa: I, numbers: &[Self; 2 * LANES]) -> [I::Wide; 2];
    /// How many pairs are farther apart than is allowed, in the arithmetic of the type. As many as make whole vectors.
    fn beyond(limits: Limits<f64>, x: &[Self], y: &[Self]) -> u32;
}

/// Counts as the rules do that add what is allowed relatively and absolutely, where nothing overflows.
macro_rules! beyond {
    ($word:ty, $limits:ident => $own:expr) => {
        #[inline(always)]
        fn beyond($limits: Limits<f64>, x: &[Self], y: &[Self]) -> u32 {
            let Limits { rtol, atol } = $own;
            // A plain loop over all, which is compiled to wide vectors more surely than one over lanes.
            let mut count: $word = 0;
            for (x, y) in x.iter().zip(y) {
                count += <$word>::from((x - y).abs() > atol + rtol * y.abs());
            }
            count as u32
        }
    };
}

impl Number for f32 {
    #[inline(always)]
    fn wide<I: Isa>(isa: I, numbers: &[Self; 2 * LANES]) -> [I::Wide; 2] {
        isa.widen_f32(*numbers)
    }

    beyond!(u32, limits => limits.single());
}

impl Number for f64 {
    #[inline(always)]
    fn wide<I: Isa>(isa: I, numbers: &[Self; 2 * LANES]) -> [I::Wide; 2] {
        let [a, b, c, d, e, f, g, h] = *numbers;
        [isa.load_f64([a, b, c, d]), isa.load_f64([e, f, g, h])]
    }

    beyond!(u64, limits => limits);
}

/// A relative difference is asked for exactly only where it may be a new largest: a division for every element would
/// take longer than all the rest. With `max` the largest so far, |a - b| / |a| rounds to more than `max` only if
/// |a - b| > max·|a|; the factor makes up for the rounding of the product.
pub(crate) fn below(max: f64) -> f64 {
    max * (1.0 - f64::EPSILON * 4.0)
}

/// What is known of a tile before its numbers are looked at, which saves work.
pub(crate) trait Kind {
    /// Pairs are of one sign and within a factor of two. Then a·b need not be summed: it is
    /// (a² + b² - (a - b)²) / 2, with as little error.
    const CLOSE: bool;
    /// No relative difference is a new largest.
    const FLAT: bool;
    /// Differences larger than any before are looked for.
    const LARGER: bool;
    /// The same where nothing is known of maxima.
    type Open: Kind;
}

macro_rules! kinds {
    ($($what:literal $name:ident: $close:literal, $flat:literal, $larger:literal, $open:ty;)*) => { $(
        #[doc = $what]
        pub(crate) struct $name;

        impl Kind for $name {
            const CLOSE: bool = $close;
            const FLAT: bool = $flat;
            const LARGER: bool = $larger;
            type Open = $open;
        }
    )* };
}

kinds! {
    "Nothing is known." Any: false, false, true, Any;
    "Pairs are close." Close: true, false, true, Close;
    "Pairs are close, and no relative difference is a new largest." Flat: true, true, true, Close;
    "Pairs are close, and no absolute difference is a new largest." Bounded: true, false, false, Close;
    "Pairs are close, and their maxima are known." Known: true, true, false, Close;
}

/// Sums while they are made, in registers.
macro_rules! running {
    ($name:ident, $numbers:ident, $splat:ident, $add:ident, $mul_add:ident) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name<I: Isa> {
            abs: I::$numbers,
            squares: I::$numbers,
            a: I::$numbers,
            b: I::$numbers,
            product: I::$numbers,
        }

        impl<I: Isa> $name<I> {
            #[inline(always)]
            pub fn new(isa: I) -> Self {
                let zero = isa.$splat(0.0);
                Self { abs: zero, squares: zero, a: zero, b: zero, product: zero }
            }

            /// Pairs, `d` apart.
            #[inline(always)]
            pub fn add<K: Kind>(&mut self, isa: I, x: I::$numbers, y: I::$numbers, d: I::$numbers) {
                self.abs = isa.$add(self.abs, d);
                self.squares = isa.$mul_add(d, d, self.squares);
                self.a = isa.$mul_add(x, x, self.a);
                self.b = isa.$mul_add(y, y, self.b);
                if !K::CLOSE {
                    self.product = isa.$mul_add(x, y, self.product);
                }
            }
        }
    };
}

running!(RunningWide, Wide, splat, add_f64, mul_add_f64);
running!(RunningSingle, Single, splat_f32, add_f32, mul_add_f32);

impl<I: Isa> RunningWide<I> {
    /// The sums of the lanes.
    #[inline(always)]
    pub fn moments(self, isa: I) -> Moments {
        Moments {
            abs: isa.lanes_f64(self.abs),
            squares: isa.lanes_f64(self.squares),
            a: isa.lanes_f64(self.a),
            b: isa.lanes_f64(self.b),
            product: isa.lanes_f64(self.product),
        }
    }
}

/// Of 16 sums four, in f64.
#[inline(always)]
fn fold<I: Isa>(isa: I, units: [I::Single; 2]) -> [f64; LANES] {
    let mut sums = [0f32; NARROW];
    for (out, unit) in sums.chunks_exact_mut(NARROW / I::UNITS).zip(units) {
        isa.store_f32(unit, out);
    }
    let pairs: [f64; 2 * LANES] =
        std::array::from_fn(|l| f64::from(sums[l]) + f64::from(sums[l + 2 * LANES]));
    std::array::from_fn(|l| pairs[l] + pairs[l + LANES])
}

impl Moments {
    pub const fn new() -> Self {
        let zero = [0.0; LANES];
        Self { abs: zero, squares: zero, a: zero, b: zero, product: zero }
    }

    /// Whether all numbers are finite, and no square too large for f64.
    #[inline(always)]
    pub fn finite(&self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.a, self.b);
        (a + e) + (b + f) + ((c + g) + (d + h)) < f64::INFINITY
    }

    /// A tile of numbers, everything in f64; `ahead` is called for each line of the tile, to ask for what comes later.
    #[inline(always)]
    pub fn add_wide<I: Isa, T: Number, K: Kind, const JUDGED: bool>(
        &mut self,
        isa: I,
        [x, y]: [&[T]; 2],
        seen: Seen,
        mut ahead: impl FnMut(usize),
    ) -> Found {
        // Two, so that additions wait half as long for each other.
        let mut tiles = [RunningWide::new(isa); 2];
        let max = seen.abs;
        let (mut larger, mut over) = (isa.splat(max), isa.splat(0.0));
        let slope = isa.splat(-below(seen.rel));
        let length = x.len() / LINES;
        let beyond = if JUDGED { T::beyond(seen.limits, x, y) } else { 0 };
        for (line, (x, y)) in x.chunks_exact(length).zip(y.chunks_exact(length)).enumerate() {
            ahead(2 * line);
            for (x, y) in x.as_chunks().0.iter().zip(y.as_chunks().0) {
                let (x, y) = (T::wide(isa, x), T::wide(isa, y));
                for (half, tile) in tiles.iter_mut().enumerate() {
                    let (x, y) = (x[half], y[half]);
                    let d = isa.abs_f64(isa.sub_f64(x, y));
                    tile.add::<K>(isa, x, y, d);
                    if K::LARGER {
                        larger = isa.larger_f64(larger, d);
                    }
                    if !K::FLAT {
                        over = isa.larger_f64(over, isa.mul_add_f64(slope, isa.abs_f64(x), d));
                    }
                }
            }
        }
        for tile in tiles {
            self.join::<K>(&tile.moments(isa));
        }
        let beyond = JUDGED.then_some(beyond);
        Found { larger: isa.most_f64(larger) > max, steeper: isa.most_f64(over) > 0.0, beyond }
    }

    /// A tile whose numbers are the same on both sides.
    #[inline(always)]
    pub fn add_same<I: Isa, T: Number>(&mut self, isa: I, x: &[T]) {
        let mut sum = isa.splat(0.0);
        for x in x.as_chunks().0 {
            for x in T::wide(isa, x) {
                sum = isa.mul_add_f64(x, x, sum);
            }
        }
        for (l, sum) in isa.lanes_f64(sum).into_iter().enumerate() {
            self.a[l] += sum;
            self.b[l] += sum;
            self.product[l] += sum;
        }
    }

    /// A tile of half-precision numbers, of which `load` gives one unit of one half in f32: products are exact there,
    /// and sums of a few of them lose no more than 2^-19 of their value before they go on in f64. `exact` says that
    /// differences are exact in f32.
    #[inline(always)]
    pub fn of_narrow<I: Isa, K: Kind>(
        isa: I,
        [x, y]: [&[u16]; 2],
        load: impl Fn(&[u16; 2 * NARROW], usize, usize) -> I::Single,
        seen: Seen,
        exact: bool,
        mut ahead: impl FnMut(usize),
    ) -> (Self, Found) {
        let max = seen.narrow_limit(exact);
        // With p bits in a number, two ratios of a difference and a number that are not the same are at least 2^-2p of them
        // apart, 2^-22 or more, where differences are numbers of the type as well, as of close pairs (Sterbenz). So the next
        // f32 above the largest of those lies below every larger one, and one that is the same, as among numbers of few
        // bits many are, is not looked at again.
        let slope = if K::CLOSE { (seen.rel as f32).next_up().min(f32::MAX) } else { narrow_below(seen.rel) };
        let slope = isa.splat_f32(-slope);
        let (mut larger, mut over) = (isa.splat_f32(max), isa.splat_f32(0.0));
        let mut sums = [RunningSingle::new(isa); 2];
        for (line, (x, y)) in x.as_chunks().0.iter().zip(y.as_chunks().0).enumerate() {
            ahead(2 * line);
            for (unit, sums) in sums.iter_mut().take(I::UNITS).enumerate() {
                for half in 0..2 {
                    let (x, y) = (load(x, half, unit), load(y, half, unit));
                    let d = isa.abs_f32(isa.sub_f32(x, y));
                    sums.add::<K>(isa, x, y, d);
                    if K::LARGER {
                        larger = isa.larger_f32(larger, d);
                    }
                    if !K::FLAT {
                        over = isa.larger_f32(over, isa.mul_add_f32(slope, isa.abs_f32(x), d));
                    }
                }
            }
        }
        let sums = Self {
            abs: fold(isa, sums.map(|sums| sums.abs)),
            squares: fold(isa, sums.map(|sums| sums.squares)),
            a: fold(isa, sums.map(|sums| sums.a)),
            b: fold(isa, sums.map(|sums| sums.b)),
            product: if K::CLOSE { [0.0; LANES] } else { fold(isa, sums.map(|sums| sums.product)) },
        };
        (sums, Found { larger: isa.above(larger, max), steeper: isa.above(over, 0.0), beyond: None })
    }

    /// Whether the squares were neither too large for f32 nor so small that bits of them were lost.
    #[inline(always)]
    pub fn within_f32(&self) -> bool {
        // 2^-80 leaves 46 bits above the smallest normal number, 2^120 a factor of 256 below the largest.
        let range = f64::from_bits((1023 - 80) << 52)..f64::from_bits((1023 + 120) << 52);
        let mut within = true;
        for lanes in [&self.squares, &self.a, &self.b] {
            // One lane that is large enough vouches for the others: they add less than is lost.
            let mut reaches = false;
            for &lane in lanes {
                reaches |= lane >= range.start;
                within &= lane < range.end;
            }
            within &= reaches;
        }
        within
    }

    /// The sum of a·b of close tiles, from those of a², b² and (a - b)².
    #[inline(always)]
    pub fn derive_product(&mut self) {
        for l in 0..LANES {
            self.product[l] = 0.5 * ((self.a[l] + self.b[l]) - self.squares[l]);
        }
    }

    /// Both together.
    #[inline(always)]
    pub fn join<K: Kind>(&mut self, other: &Self) {
        for l in 0..LANES {
            self.abs[l] += other.abs[l];
            self.squares[l] += other.squares[l];
            self.a[l] += other.a[l];
            self.b[l] += other.b[l];
            if !K::CLOSE {
                self.product[l] += other.product[l];
            }
        }
    }

    /// The sums of the lanes, pairwise: of |a - b|, |a - b|², a², b², a·b.
    pub fn finish(&self) -> [f64; 5] {
        [&self.abs, &self.squares, &self.a, &self.b, &self.product].map(|lanes| {
            let [a, b, c, d] = *lanes;
            (a + b) + (c + d)
        })
    }
}

/// An f32 below `x` by a little more than the rounding of differences and products in f32.
pub(crate) fn narrow_below(x: f64) -> f32 {
    ((x * (1.0 - 1.0 / 1_048_576.0)) as f32).min(f32::MAX)
}
