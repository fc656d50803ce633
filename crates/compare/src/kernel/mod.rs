//! The loops over two slices of one float type.
//!
//! Elements are taken in tiles of 16 vectors (1 KiB a side): short enough that the processor fetches the next
//! tile from memory while this one, in its first-level cache, goes through several loops; long enough that what
//! happens once a tile costs nothing. The loops have no branches.
//!
//! Nearly every tile is *close*: all of its numbers are finite, and its pairs have one sign each and are at most a binade
//! apart. A first look (`Real::scan`) tells by the bits alone. A close tile goes through three loops: that look, the
//! count of its steps (`steps`), and its sums (`moments`); products are not summed, since the sums of squares say what
//! theirs is. Of f32 and f64 the look and the sums are one loop (`look`) as long as the tile before was close. Any other
//! tile is looked at with more care (`Pass::any`).
//!
//! What is rare is noticed in passing and looked at again, tile by tile:
//!
//! - Numbers that are none: pairs with NaN or infinity are counted one by one and replaced by a pair of zeros, which
//!   leaves no trace in sums and maxima.
//! - A new largest magnitude of B: it is at most as many steps above A's as the largest distance, and mostly that is
//!   less than was met before.
//! - A new largest difference: only then its place is looked for. In random data the largest so far is exceeded a
//!   number of times that grows with the logarithm of the length. Where the steps of a tile of half types say that there
//!   cannot be one, not even that is looked for.
//! - A new largest relative difference: only then quotients are computed. Where the steps of a tile of half types say that
//!   there cannot be one, not even that is looked for.
//! - Pairs that may be beyond a tolerance: only where there is such a pair is a tile judged (`allowed`).
//! - Bits that agree throughout a tile: then there is only one norm to sum.

mod allowed;
mod beyond;
mod look;
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
use moments::{Any, Bounded, Flat, Found, Kind, Known, Seen};
pub(crate) use moments::{LANES, Moments, Number, below};
pub(crate) use real::{Narrow, OnNumbers, Real};
use steps::{Steps, Vector};
use word::Word;

/// Vectors a tile.
const VECTORS: usize = 16;

/// Tiles between two additions of the lanes.
const RUN: usize = 64;

/// Cache lines of a tile on each side.
const LINES: usize = VECTORS;

/// How many bytes ahead the processor is asked for memory, line by line while sums are made: two tiles. A processor has
/// some two dozen requests under way, which last it through the other loops of a short tile; with tiles twice as long, it
/// stood waiting for a tenth of the time. Not 4096, since what is a page apart shares places in the first-level cache.
const AHEAD: usize = 2048;

/// The largest tile, in elements.
pub(crate) const LONGEST: usize = 512;

/// What two slices have come to so far. `L` words make a vector.
#[repr(align(64))]
pub(crate) struct Pass<'l, T: Real<L>, const L: usize> {
    steps: Steps<T::Word>,
    /// Sums of close tiles, and of others.
    close: Moments,
    moments: Moments,
    largest: [T::Word; 2],
    /// The largest relative difference of close tiles.
    steepest: f64,
    /// Counts and maxima.
    sums: Sums,
    /// Whether sums may be made in f32.
    narrow: bool,
    /// Whether the last tile was close and not the same on both sides, as the next is expected to be.
    apart: bool,
    /// A tolerance to judge by.
    judging: Option<Judging<'l, T::Word>>,
    /// Where a tile's distances in steps are until they are counted.
    distances: Distances,
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

/// Asks for memory while half a line of the slices is worked on, given its number. Loops that go line by line leave the odd
/// ones out.
pub(crate) trait Ahead: FnMut(usize) {}

impl<F: FnMut(usize)> Ahead for F {}

impl<'l, T: Real<L>, const L: usize> Pass<'l, T, L> {
    /// Elements a tile.
    pub const TILE: usize = VECTORS * L;

    /// `narrow` allows sums of half types to be made in f32, a few elements at a time.
    pub fn new(narrow: bool) -> Self {
        Self {
            steps: Steps::new(),
            close: Moments::new(),
            moments: Moments::new(),
            largest: [T::Word::ZERO; 2],
            steepest: 0.0,
            sums: Sums::default(),
            narrow: narrow && T::NARROW,
            apart: true,
            judging: None,
            distances: Distances([[0; 8]; VECTORS]),
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
        mut ahead: impl Ahead,
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
            let half = 2 * at / L;
            let unsure = self.tile::<I, JUDGED>(
                isa,
                a,
                b,
                order,
                |i| place(at + i),
                #[inline(always)]
                |k| ahead(half + k),
            );
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
        mut ahead: impl Ahead,
    ) -> bool {
        self.tiles += 1;
        if self.tiles == RUN {
            self.empty();
        }
        let distances = self.distances.words();
        let strict = JUDGED && self.judging.as_ref().is_some_and(|judging| judging.strict);
        // What comes in panels asks for memory in ways that leave such a loop too few registers.
        let in_order = matches!(order, Order::Grows);
        let scan = if self.apart && in_order && !strict {
            T::look(
                isa,
                [x, y],
                self.steepest,
                distances,
                #[inline(always)]
                |k| ahead(k),
            )
        } else {
            T::scan(isa, x, y, self.steepest, distances)
        };
        // No number of B is larger than that where signs agree, so none of them is NaN or infinite. By their bits alone
        // NaN lies beside the zero of the other sign.
        let reach = scan.largest.wide().saturating_add(scan.farthest.wide());
        let close = !scan.opposite && scan.farthest.wide() <= 1 << T::FRACTION && reach < T::INFINITY.wide();
        self.apart = close && scan.farthest != T::Word::ZERO;
        if close {
            self.close::<I, JUDGED>(isa, [x, y], &scan, order, place, ahead)
        } else {
            self.any::<I, JUDGED>(isa, x, y, order, place, ahead)
        }
    }

    /// A tile of finite numbers whose pairs have one sign each and are at most a binade apart.
    #[inline(always)]
    fn close<I: Isa, const JUDGED: bool>(
        &mut self,
        isa: I,
        [x, y]: [&[T]; 2],
        scan: &Scan<T::Word>,
        order: Order,
        place: impl Place,
        mut ahead: impl Ahead,
    ) -> bool {
        let &Scan { largest, farthest, .. } = scan;
        let reach = largest.wide() + farthest.wide();
        self.largest[0] = self.largest[0].max(largest);
        // No number of B is larger than that; mostly it is known to be none.
        if reach > self.largest[1].wide() {
            self.largest[1] = self.largest[1].max(magnitude::<T, L>(y));
        }
        let reach_word = largest.plus(farthest);
        let judging = if JUDGED { self.judging.as_ref() } else { None };
        let immoderate = judging.is_some_and(|j| reach >= j.moderate.wide());
        if farthest == T::Word::ZERO {
            for line in 0..LINES {
                ahead(2 * line);
            }
            T::add_same(isa, &mut self.moments, x);
            return immoderate;
        }
        self.sums.bits_differ = true;
        self.steps.count(isa, &mut self.distances.0, farthest);
        let ratio = farthest.wide() as f64 / (1u64 << T::FRACTION) as f64;
        let max_rel = self.sums.max_rel;
        let (strict, bounds) = judging.map_or((false, Bounds::NONE), |j| (j.strict, j.bounds));
        let level = (T::NARROW && ratio <= max_rel || strict && ratio <= bounds.rel)
            && (scan.smallest >= T::NORMAL || Self::level(x, y));
        let flat = T::NARROW && level && ratio <= max_rel;
        // No gap between numbers is wider than the one below the largest. Differences of half types are mostly a few
        // gaps, and the largest so far as many where gaps are widest.
        let gap = T::of_word(reach_word).wide() - T::of_word(reach_word.before()).wide();
        let known = T::NARROW && farthest.wide() as f64 * gap <= self.sums.max_abs;
        let within = level && ratio <= bounds.rel;
        let judged = strict && !within && !immoderate;
        let limits = bounds.limits.filter(|_| judged);
        let mut found = match (flat, known) {
            _ if let Some(sums) = &scan.sums => {
                self.close.join::<T::Close>(sums);
                Found { larger: false, steeper: false, beyond: None }
            }
            (true, true) => self.add::<I, Known, JUDGED>(isa, [x, y], limits, farthest, ahead),
            (true, false) => self.add::<I, Flat, JUDGED>(isa, [x, y], limits, farthest, ahead),
            (false, true) => self.add::<I, Bounded, JUDGED>(isa, [x, y], limits, farthest, ahead),
            (false, false) => self.add::<I, T::Close, JUDGED>(isa, [x, y], limits, farthest, ahead),
        };
        if let Some((apart, steeper)) = scan.found {
            found.steeper = steeper;
            self.take_largest(apart, x, y, order, &place);
        }
        self.take_maxima(isa, [x, y], &found, true, order, place);
        self.judge(bounds, judged, &found) || immoderate
    }

    /// Any other tile.
    #[inline(always)]
    fn any<I: Isa, const JUDGED: bool>(
        &mut self,
        isa: I,
        x: &[T],
        y: &[T],
        order: Order,
        place: impl Place,
        ahead: impl Ahead,
    ) -> bool {
        let mut numbers;
        let (mut x, mut y) = (x, y);
        let mut largest = [x, y].map(magnitude::<T, L>);
        self.sums.bits_differ |= T::words(x) != T::words(y);
        let special = largest[0].max(largest[1]) >= T::INFINITY;
        if special {
            numbers = [[T::zeroed(); LONGEST]; 2];
            let [p, q] = &mut numbers;
            self.take_specials(x, y, [p, q], &place);
            (x, y) = (&p[..x.len()], &q[..x.len()]);
            largest = [x, y].map(magnitude::<T, L>);
        }
        for (all, tile) in self.largest.iter_mut().zip(largest) {
            *all = (*all).max(tile);
        }
        let mut farthest = T::Word::ZERO;
        for ((out, &x), &y) in self.distances.words().iter_mut().zip(T::words(x)).zip(T::words(y)) {
            *out = x.far(y);
            farthest = farthest.max(*out);
        }
        self.steps.count(isa, &mut self.distances.0, farthest);
        let judging = if JUDGED { self.judging.as_ref() } else { None };
        let immoderate = judging.is_some_and(|j| special || largest[0].max(largest[1]) >= j.moderate);
        let (strict, bounds) = judging.map_or((false, Bounds::NONE), |j| (j.strict, j.bounds));
        let judged = strict && !immoderate;
        let limits = bounds.limits.filter(|_| judged);
        let found = self.add::<I, Any, JUDGED>(isa, [x, y], limits, farthest, ahead);
        self.take_maxima(isa, [x, y], &found, false, order, place);
        self.judge(bounds, judged, &found) || immoderate
    }

    /// Adds a tile whose pairs are at most `farthest` steps apart to the sums.
    #[inline(always)]
    fn add<I: Isa, K: Kind, const JUDGED: bool>(
        &mut self,
        isa: I,
        [x, y]: [&[T]; 2],
        limits: Option<Limits<f64>>,
        farthest: T::Word,
        ahead: impl Ahead,
    ) -> Found {
        let narrow = match (self.narrow, farthest < T::EXACT_STEPS) {
            (false, _) => Narrow::No,
            (true, false) => Narrow::Rounded,
            (true, true) => Narrow::Exact,
        };
        let seen = Seen {
            abs: self.sums.max_abs,
            rel: if K::CLOSE { self.steepest } else { self.sums.max_rel },
            limits: limits.unwrap_or(Limits { rtol: 0.0, atol: 0.0 }),
        };
        let to = if K::CLOSE { &mut self.close } else { &mut self.moments };
        // A macro, since what is inlined for certain must be written as an argument.
        macro_rules! add {
            ($judged:literal) => {
                T::add::<I, K, $judged>(isa, to, [x, y], seen, narrow, ahead)
            };
        }
        if JUDGED && limits.is_some() { add!(true) } else { add!(false) }
    }

    /// Takes in what is beyond the tolerance, and says whether the tile remains to be judged.
    #[inline(always)]
    fn judge(&mut self, bounds: Bounds, judged: bool, found: &Found) -> bool {
        let Some(judging) = &mut self.judging else { return false };
        self.sums.beyond += found.beyond.map_or(0, u64::from);
        let passed = self.sums.max_abs > bounds.abs && self.sums.max_rel > bounds.rel;
        let first = passed && !judging.strict;
        judging.strict |= passed;
        first || judged && found.beyond.is_none()
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

    /// Looks again for maxima of which a loop saw that they may be new; `close` says of which tiles.
    #[inline(always)]
    fn take_maxima<I: Isa>(
        &mut self,
        isa: I,
        [x, y]: [&[T]; 2],
        found: &Found,
        close: bool,
        order: Order,
        place: impl Place,
    ) {
        if found.larger {
            let max = T::with_numbers(isa, x, y, Largest);
            self.take_largest(max, x, y, order, place);
        }
        if found.steeper {
            let before = if close { self.steepest } else { self.sums.max_rel };
            let max = T::with_numbers(isa, x, y, Steepest(before));
            self.sums.max_rel = self.sums.max_rel.max(max);
            if close {
                self.steepest = max;
            }
        }
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
        self.close.derive_product();
        for moments in [&mut self.close, &mut self.moments] {
            let [abs, squares, a, b, product] = std::mem::replace(moments, Moments::new()).finish();
            let sums = &mut self.sums;
            sums.sum_abs += abs;
            sums.sum_squares += squares;
            sums.squares[0] += a;
            sums.squares[1] += b;
            sums.product += product;
        }
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

/// Asks for half-line `k` of what comes [`AHEAD`] of two slices, if there is such a thing.
#[inline(always)]
pub(crate) fn ahead<I: Isa, T>(isa: I, x: &[T], y: &[T], k: usize) {
    for side in [x, y] {
        isa.prefetch(side.as_ptr().cast::<i8>().wrapping_add(AHEAD + 32 * k));
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
                let (x, y): (f64, f64) = (x[l].into(), y[l].into());
                let d = (x - y).abs();
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
                let (x, y): (f64, f64) = (x[l].into(), y[l].into());
                over |= slope.mul_add(x.abs(), (x - y).abs()) > 0.0;
            }
            if over {
                for l in 0..LANES {
                    let (x, y): (f64, f64) = (x[l].into(), y[l].into());
                    // 0/0 is NaN, which the comparison passes over: equal zeros are no distance apart.
                    let rel = (x - y).abs() / x.abs();
                    max = if rel > max { rel } else { max };
                }
            }
        }
        max
    }
}

/// The largest magnitude of a tile, by its bits. A plain loop over all, which is compiled to wide vectors more surely than
/// one over lanes: most instruction sets lack the maximum of some word.
#[inline(always)]
fn magnitude<T: Real<L>, const L: usize>(tile: &[T]) -> T::Word {
    T::words(tile).iter().fold(T::Word::ZERO, |most, &x| most.max(x & T::Word::MAGNITUDE))
}

/// What a first look at a tile finds, as far as its pairs have one sign each.
pub(crate) struct Scan<W> {
    /// The largest magnitude of A.
    pub largest: W,
    /// The smallest magnitude of A, where somebody asks; else 0.
    pub smallest: W,
    /// The largest distance in steps.
    pub farthest: W,
    /// Whether a pair may have opposite signs, where its distance in steps does not show it.
    pub opposite: bool,
    /// The largest difference, and whether a relative one may exceed the largest so far, where they are found in
    /// passing.
    pub found: Option<(f64, bool)>,
    /// The sums of a close tile, where they were made at once.
    pub sums: Option<Moments>,
}

/// A tile's distances in steps.
#[repr(align(64))]
struct Distances([Vector; VECTORS]);

impl Distances {
    #[inline(always)]
    fn words<W: Word>(&mut self) -> &mut [W] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}
