//! The loops over two slices of one float type.
//!
//! Elements are taken in tiles of 32 vectors (2 KiB a side): short enough that the processor fetches the next
//! tile from memory while this one, in its first-level cache, goes through several loops; long enough that what
//! happens once a tile costs nothing. The loops have no branches. What is rare is noticed in passing and looked at
//! again, tile by tile:
//!
//! - Numbers that are none: pairs with NaN or infinity are counted one by one and replaced by a pair of zeros, which
//!   leaves no trace in sums and maxima.
//! - A new largest difference: only then its place is looked for. In random data the largest so far is exceeded a
//!   number of times that grows with the logarithm of the length.
//! - A new largest relative difference: only then quotients are computed. Where the steps of a tile say that there
//!   cannot be one, not even that is looked for.
//! - Pairs that are more than a factor of two apart: only then products are summed; elsewhere the sums of squares say
//!   what the sum of products is (`moments`).
//! - Pairs that may be beyond a tolerance: only where there is such a pair is a tile judged (`allowed`).
//! - Bits that agree throughout a tile: then there is only one norm to sum.

mod allowed;
mod moments;
mod real;
mod steps;
mod word;

use crate::isa::Isa;
use crate::judge::FirstLook;
use crate::native::Limits;
use crate::sums::Sums;

pub(crate) use allowed::Bounds;
use allowed::Judging;
use moments::{Any, AnyJudged, Close, CloseJudged, Flat, FlatJudged, Seen};
pub(crate) use moments::{LANES, Moments, Number, below};
pub(crate) use real::{Narrow, OnNumbers, Real};
use steps::Steps;
use word::Word;

/// Vectors a tile.
const VECTORS: usize = 32;

/// Tiles between two additions of the lanes.
const RUN: usize = 32;

/// Cache lines of a tile on each side.
const LINES: usize = VECTORS;

/// Parts of a tile between which memory is asked for.
const PARTS: usize = 4;

/// How many bytes ahead the processor is asked for memory: two tiles.
const AHEAD: usize = 4096;

/// The largest tile, in elements.
pub(crate) const LONGEST: usize = 1024;

/// What two slices have come to so far. `L` words make a vector.
#[repr(align(64))]
pub(crate) struct Pass<'l, T: Real<L>, const L: usize> {
    steps: Steps<T::Word>,
    moments: Moments,
    largest: [T::Word; 2],
    /// Counts and maxima.
    sums: Sums,
    /// Whether sums may be made in f32.
    narrow: bool,
    /// A tolerance to judge by.
    judging: Option<Judging<'l, T::Word>>,
    /// Where a tile's distances in steps are until they are counted.
    distances: [[T::Word; L]; VECTORS],
    /// Tiles since the lanes were emptied.
    tiles: usize,
}

/// In which order places of the tensor come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    /// Every place is beyond those before.
    Grows,
    /// In any. The place of the largest finite difference is left open: among equal ones the first would have to be
    /// looked for in every tile that has one.
    Any,
}

/// Which place of the tensor a place of the slices is.
pub(crate) trait Place: Fn(usize) -> usize {}

impl<F: Fn(usize) -> usize> Place for F {}

impl<'l, T: Real<L>, const L: usize> Pass<'l, T, L> {
    /// Elements a tile.
    pub const TILE: usize = VECTORS * L;

    /// `narrow` allows sums of half types to be made in f32, a few elements at a time.
    pub fn new(narrow: bool) -> Self {
        Self {
            steps: Steps::new(),
            moments: Moments::new(),
            largest: [T::Word::ZERO; 2],
            sums: Sums::default(),
            narrow: narrow && T::NARROW,
            judging: None,
            distances: [[T::Word::ZERO; L]; VECTORS],
            tiles: 0,
        }
    }

    /// The same, and counts what is beyond a tolerance.
    pub fn judging(narrow: bool, look: Option<&'l FirstLook>) -> Self {
        Self { judging: look.map(Judging::new::<T, L>), ..Self::new(narrow) }
    }

    /// Takes in two slices of one length. `place` gives the tensor's place for one of theirs. `JUDGED` says whether
    /// there may be a tolerance: the loops are compiled without it otherwise.
    #[inline(always)]
    pub fn feed<I: Isa, const JUDGED: bool>(
        &mut self,
        isa: I,
        x: &[T],
        y: &[T],
        order: Order,
        place: impl Place,
    ) {
        for at in (0..x.len()).step_by(Self::TILE) {
            // Zeros on both sides leave no trace.
            let mut padded;
            let length = Self::TILE.min(x.len() - at);
            let (x, y) = (&x[at..at + length], &y[at..at + length]);
            let [a, b] = if length == Self::TILE {
                [x, y]
            } else {
                padded = [[T::zeroed(); LONGEST]; 2];
                padded[0][..length].copy_from_slice(x);
                padded[1][..length].copy_from_slice(y);
                [&padded[0][..Self::TILE], &padded[1][..Self::TILE]]
            };
            let unsure = self.tile::<I, JUDGED>(isa, a, b, order, |i| place(at + i));
            if JUDGED
                && unsure
                && let Some(judging) = &self.judging
            {
                self.sums.beyond += T::beyond(isa, judging.look, x, y);
            }
        }
    }

    /// Takes in a tile, and says whether it remains to be judged.
    #[inline(always)]
    fn tile<I: Isa, const JUDGED: bool>(
        &mut self,
        isa: I,
        x: &[T],
        y: &[T],
        order: Order,
        place: impl Place,
    ) -> bool {
        self.tiles += 1;
        if self.tiles == RUN {
            self.empty();
        }
        for k in 0..LINES / 4 {
            ahead(isa, x, y, k);
        }
        let mut bits = Bits::of(T::words(x), T::words(y));
        self.sums.bits_differ |= !bits.differ().0;
        let mut numbers;
        let (mut a, mut b) = (x, y);
        let special = bits.exceed(T::INFINITY);
        if special {
            numbers = [[T::zeroed(); LONGEST]; 2];
            let [p, q] = &mut numbers;
            self.take_specials(x, y, [p, q], &place);
            (a, b) = (&p[..x.len()], &q[..x.len()]);
            bits = Bits::of(T::words(a), T::words(b));
        }
        self.numbers::<I, JUDGED>(isa, a, b, (&bits, special), order, place)
    }

    /// A tile without NaN and infinities; `special` says that there were some.
    #[inline(always)]
    fn numbers<I: Isa, const JUDGED: bool>(
        &mut self,
        isa: I,
        x: &[T],
        y: &[T],
        (bits, special): (&Bits<T::Word>, bool),
        order: Order,
        place: impl Place,
    ) -> bool {
        for (largest, tile) in self.largest.iter_mut().zip(&bits.largest) {
            *largest = (*largest).max(*tile);
        }
        let judging = if JUDGED { self.judging.as_ref() } else { None };
        let immoderate = judging.is_some_and(|j| special || bits.exceed(j.moderate));
        let (same, opposite) = bits.differ();
        if same {
            T::add_same(isa, &mut self.moments, x);
            return immoderate;
        }
        let mut farthest = T::Word::ZERO;
        {
            let (x, y) = (T::words(x), T::words(y));
            // Plain loops over all, which are compiled to wide vectors more surely than others.
            macro_rules! distances {
                ($distance:ident) => {
                    for ((out, &x), &y) in self.distances.as_flattened_mut().iter_mut().zip(x).zip(y) {
                        *out = x.$distance(y);
                        farthest = farthest.max(*out);
                    }
                };
            }
            if opposite {
                distances!(far);
            } else {
                distances!(near);
            }
        }
        self.steps.count(isa, self.distances.as_flattened_mut(), farthest);
        let narrow = match (self.narrow, farthest < T::EXACT_STEPS) {
            (false, _) => Narrow::No,
            (true, false) => Narrow::Rounded,
            (true, true) => Narrow::Exact,
        };
        let steps = farthest.wide();
        let close = !opposite && steps <= 1 << T::FRACTION;
        let ratio = steps as f64 / (1u64 << T::FRACTION) as f64;
        let Sums { max_abs, max_rel, .. } = self.sums;
        let (strict, bounds) = judging.map_or((false, Bounds::NONE), |j| (j.strict, j.bounds));
        let level = close
            && (ratio <= max_rel || strict && ratio <= bounds.rel)
            && (bits.normal(T::NORMAL) || Self::level(x, y));
        let flat = level && ratio <= max_rel;
        let within = level && ratio <= bounds.rel;
        let judged = strict && !within && !immoderate;
        let limits = bounds.limits.filter(|_| judged);
        let seen =
            Seen { abs: max_abs, rel: max_rel, limits: limits.unwrap_or(Limits { rtol: 0.0, atol: 0.0 }) };
        let sides = [x, y];
        // A quarter of what comes next was asked for before the bits were looked at.
        // A macro, since what is inlined for certain must be written as an argument.
        macro_rules! add {
            ($tile:ty) => {
                T::add::<I, $tile>(
                    isa,
                    &mut self.moments,
                    sides,
                    seen,
                    narrow,
                    #[inline(always)]
                    |part| {
                        const EACH: usize = (LINES - LINES / 4) / PARTS;
                        for k in 0..EACH {
                            ahead(isa, x, y, LINES / 4 + part * EACH + k);
                        }
                    },
                )
            };
        }
        let found = if JUDGED && limits.is_some() {
            if flat {
                add!(FlatJudged)
            } else if close {
                add!(CloseJudged)
            } else {
                add!(AnyJudged)
            }
        } else if flat {
            add!(Flat)
        } else if close {
            add!(Close)
        } else {
            add!(Any)
        };
        if found.steeper {
            self.sums.max_rel = T::with_numbers(isa, x, y, Steepest(max_rel));
        }
        if found.larger {
            let max = T::with_numbers(isa, x, y, Largest);
            self.take_largest(max, x, y, order, place);
        }
        let Some(judging) = &mut self.judging else { return false };
        self.sums.beyond += found.beyond.map_or(0, u64::from);
        let passed = self.sums.max_abs > bounds.abs && self.sums.max_rel > bounds.rel;
        let first = passed && !judging.strict;
        judging.strict |= passed;
        immoderate || first || judged && found.beyond.is_none()
    }

    /// Whether the steps of a tile say how far apart its pairs are relatively: of those with one sign each that are at
    /// most `steps` apart, which are no more than a binade has.
    ///
    /// With p bits behind the point, n <= 2^p steps from a normal number a lead no farther than n·2^-p·|a|: down and
    /// within the binade they are units of at most 2^-p·|a|. Up from j units below the next binade they are j such
    /// units and n - j of twice the size, of a number of 2^(p+1) - j units: (2n - j) / (2^(p+1) - j), which no j > 0
    /// brings above n·2^-p. Below the normal numbers that is not so, but what is equal there is no distance apart.
    #[expect(clippy::needless_bitwise_bool, reason = "a branch would keep the loop from vector code")]
    #[inline(always)]
    fn level(x: &[T], y: &[T]) -> bool {
        let mut any = false;
        for (&x, &y) in T::words(x).iter().zip(T::words(y)) {
            any |= (x != y) & ((x & T::INFINITY) == T::Word::ZERO);
        }
        !any
    }

    /// Finds the place of the largest difference of a tile, if it is a new one.
    #[inline(always)]
    fn take_largest(&mut self, max: f64, x: &[T], y: &[T], order: Order, place: impl Place) {
        if max <= self.sums.max_abs {
            return;
        }
        self.sums.max_abs = max;
        self.sums.worst = match order {
            Order::Grows => x.iter().zip(y).position(|(x, y)| (x.wide() - y.wide()).abs() == max).map(place),
            Order::Any => None,
        };
    }

    /// Takes the pairs of a tile with NaN or infinities one by one, and hands on the others.
    #[inline(never)]
    fn take_specials(&mut self, x: &[T], y: &[T], [a, b]: [&mut [T]; 2], place: impl Place) {
        for (i, (&x, &y)) in x.iter().zip(y).enumerate() {
            if x.finite() && y.finite() {
                (a[i], b[i]) = (x, y);
            } else {
                let steps = T::words(&[x])[0].far(T::words(&[y])[0]).wide();
                self.sums.special(x.wide(), y.wide(), steps, place(i));
            }
        }
    }

    /// Takes the sums of the lanes over. Long sums of like numbers lose bits; sums of a few such sums do not.
    #[inline(always)]
    fn empty(&mut self) {
        let [abs, squares, a, b, product] = self.moments.finish();
        let sums = &mut self.sums;
        sums.sum_abs += abs;
        sums.sum_squares += squares;
        sums.squares[0] += a;
        sums.squares[1] += b;
        sums.product += product;
        self.moments = Moments::new();
        self.tiles = 0;
    }

    /// Everything, with the sums of all lanes.
    #[inline(always)]
    pub fn finish(mut self) -> Sums {
        self.empty();
        let largest = self.largest();
        let (max_ulp, at_least) = self.steps.finish();
        let mut sums = self.sums;
        sums.max_ulp = sums.max_ulp.max(max_ulp);
        for (all, &here) in sums.at_least.iter_mut().zip(&at_least) {
            *all += here;
        }
        sums.different += at_least[0];
        sums.largest = largest;
        sums
    }

    /// The largest finite magnitudes so far.
    #[inline(always)]
    fn largest(&self) -> [f64; 2] {
        [0, 1].map(|side| self.sums.largest[side].max(T::of_word(self.largest[side]).wide()))
    }
}

/// Asks for line `k` of what comes [`AHEAD`] of this tile on both sides, if there is such a thing.
#[inline(always)]
fn ahead<I: Isa, T>(isa: I, x: &[T], y: &[T], k: usize) {
    for side in [x, y] {
        isa.prefetch(side.as_ptr().cast::<i8>().wrapping_add(AHEAD + 64 * k));
    }
}

/// The largest difference of a tile of numbers.
struct Largest;

impl OnNumbers for Largest {
    #[inline(always)]
    fn run<N: Number>(self, x: &[N], y: &[N]) -> f64 {
        let mut lanes = [0.0; LANES];
        for (x, y) in x.as_chunks::<LANES>().0.iter().zip(y.as_chunks::<LANES>().0) {
            for l in 0..LANES {
                let d = (x[l].wide() - y[l].wide()).abs();
                lanes[l] = if d > lanes[l] { d } else { lanes[l] };
            }
        }
        lanes.into_iter().fold(0.0, f64::max)
    }
}

/// The largest relative difference of a tile of numbers, and the largest before it.
struct Steepest(f64);

impl OnNumbers for Steepest {
    #[inline(always)]
    fn run<N: Number>(self, x: &[N], y: &[N]) -> f64 {
        let mut max = self.0;
        let slope = -below(max);
        for (x, y) in x.as_chunks::<LANES>().0.iter().zip(y.as_chunks::<LANES>().0) {
            let mut over = false;
            for l in 0..LANES {
                let (x, y) = (x[l].wide(), y[l].wide());
                over |= slope.mul_add(x.abs(), (x - y).abs()) > 0.0;
            }
            if over {
                for l in 0..LANES {
                    let (x, y) = (x[l].wide(), y[l].wide());
                    // 0/0 is NaN, which the comparison passes over: equal zeros are no distance apart.
                    let rel = (x - y).abs() / x.abs();
                    max = if rel > max { rel } else { max };
                }
            }
        }
        max
    }
}

/// What the bits of a tile say before any number is computed.
struct Bits<W> {
    /// The bits in which any two differ.
    differ: W,
    /// The largest magnitude of either side.
    largest: [W; 2],
    /// The smallest magnitude of A.
    smallest: W,
}

impl<W: Word> Bits<W> {
    /// A plain loop over all, which is compiled to wide vectors more surely than one over lanes: most instruction sets
    /// lack the maximum of some word.
    #[inline(always)]
    fn of(x: &[W], y: &[W]) -> Self {
        let (mut differ, mut a, mut b, mut least) = (W::ZERO, W::ZERO, W::ZERO, W::MAGNITUDE);
        for (&x, &y) in x.iter().zip(y) {
            differ = differ | (x ^ y);
            let magnitude = x & W::MAGNITUDE;
            a = a.max(magnitude);
            least = least.min(magnitude);
            b = b.max(y & W::MAGNITUDE);
        }
        Self { differ, largest: [a, b], smallest: least }
    }

    /// Whether a magnitude reaches `limit`.
    #[inline(always)]
    fn exceed(&self, limit: W) -> bool {
        self.largest[0].max(self.largest[1]) >= limit
    }

    /// Whether all of A reach `least`.
    #[inline(always)]
    fn normal(&self, least: W) -> bool {
        self.smallest >= least
    }

    /// Whether all bits agree, and whether a pair may have opposite signs.
    #[inline(always)]
    fn differ(&self) -> (bool, bool) {
        (self.differ == W::ZERO, self.differ > W::MAGNITUDE)
    }
}
