//! How many places are how many steps apart: a histogram by powers of two, at the speed of a few logical operations
//! an element.
//!
//! A distance with all bits below its highest set says of every power of two whether the distance reaches it. What is
//! left is to count, for each bit, the words that have it ("positional population count"). Carry-save adders do that
//! for all bits at once: three words go into a sum and a carry with five logical operations, so four vectors become
//! one carry of weight 4 with three adders, and the counters themselves are words, one for each power of two
//! (Harley and Seal; Muła, Kurz and Lemire, "Faster population counts using AVX2 instructions", 2018).
//!
//! Distances of at most four bits are cheaper: each power of two is compared with and counted by itself, in bytes.
//!
//! Steps are mostly few, so words are made as short as the largest of a tile allows: a quarter of the width is a quarter
//! of the vectors.

use std::marker::PhantomData;

use crate::isa::Isa;

use super::word::Word;

/// Vectors that become one carry.
const GROUP: usize = 4;
const LEVELS: usize = 11;
/// Up to so many bits each power of two is counted by itself.
const FEW: usize = 4;
/// Carries that fit.
const ROOM: usize = (1 << LEVELS) - 1;

/// Counters of one type of float.
pub(crate) struct Steps<W: Word> {
    own: Counters<W>,
    half: Counters<W::Half>,
    quarter: Counters<<W::Half as Word>::Half>,
    few: Few<W>,
    /// The largest distance.
    max: W,
    /// What was emptied: places at least 2^k steps apart.
    at_least: [u64; 64],
}

/// Counters of words of one width.
#[repr(C, align(64))]
struct Counters<W> {
    /// Of weight 1 and 2.
    low: [Vector; 2],
    /// Of weight 4, 8, ...
    more: [Vector; LEVELS],
    /// Carries of these weights that wait for another: those of which `taken` has the bit.
    waiting: [Vector; LEVELS],
    /// Carries of weight 4 taken since the counters were emptied.
    taken: usize,
    words: PhantomData<W>,
}

/// A vector as it is counted, whatever the width of its words.
pub(crate) type Vector = [u64; 8];

/// Adds three bits in every place: the sum stays in `a`, the carry is returned.
#[inline(always)]
fn add<I: Isa>(isa: I, a: &mut Vector, b: Vector, c: Vector) -> Vector {
    let [sum, carry] = isa.add_bits(*a, b, c);
    *a = sum;
    carry
}

/// Two vectors in one, in place.
#[inline(always)]
fn halve<I: Isa, W: Word>(isa: I, vectors: &mut [Vector]) -> &mut [Vector] {
    let half = vectors.len() / 2;
    for k in 0..half {
        vectors[k] = W::halve(isa, vectors[2 * k], vectors[2 * k + 1]);
    }
    &mut vectors[..half]
}

impl<W: Word> Steps<W> {
    pub fn new() -> Self {
        Self {
            own: Counters::new(),
            half: Counters::new(),
            quarter: Counters::new(),
            few: Few::new(),
            max: W::ZERO,
            at_least: [0; 64],
        }
    }

    /// A tile of distances, the largest of which is `max`.
    #[inline(always)]
    pub fn count<I: Isa>(&mut self, isa: I, distances: &mut [Vector], max: W) {
        self.max = self.max.max(max);
        let bits = W::BITS - max.leading_zeros();
        if bits <= FEW {
            return self.few.count(isa, distances, bits, &mut self.at_least);
        }
        if bits > W::Half::BITS || W::Half::BITS == W::BITS {
            return self.own.count(isa, distances, bits, &mut self.at_least);
        }
        let distances = halve::<I, W>(isa, distances);
        if bits > <W::Half as Word>::Half::BITS || <W::Half as Word>::Half::BITS == W::Half::BITS {
            return self.half.count(isa, distances, bits, &mut self.at_least);
        }
        let distances = halve::<I, W::Half>(isa, distances);
        self.quarter.count(isa, distances, bits, &mut self.at_least);
    }

    /// The largest distance, and how many places are at least 2^k steps apart.
    #[inline(always)]
    pub fn finish(&mut self) -> (u64, [u64; 64]) {
        self.own.empty(&mut self.at_least);
        self.half.empty(&mut self.at_least);
        self.quarter.empty(&mut self.at_least);
        self.few.empty(&mut self.at_least);
        (self.max.wide(), self.at_least)
    }
}

/// Counters of distances so short that a comparison for each power of two takes less than the adders do.
#[repr(C, align(64))]
struct Few<W> {
    /// How many words have reached 2^k, in words of the shortest kind.
    reached: [Vector; FEW],
    /// The most that a word of them may have come to.
    taken: usize,
    words: PhantomData<W>,
}

impl<W: Word> Few<W> {
    fn new() -> Self {
        Self { reached: [[0; 8]; FEW], taken: 0, words: PhantomData }
    }

    /// Words of at most `bits` bits.
    #[inline(always)]
    fn count<I: Isa>(&mut self, isa: I, distances: &[Vector], bits: usize, at_least: &mut [u64; 64]) {
        let vectors = distances.len() / W::PACKED;
        if self.taken + vectors > usize::from(u8::MAX) {
            self.empty(at_least);
        }
        self.taken += vectors;
        // As many counters as are needed stay in registers.
        macro_rules! reached {
            ($bits:literal) => {{
                let mut reached = [[0; 8]; $bits];
                reached.copy_from_slice(&self.reached[..$bits]);
                for words in distances.chunks_exact(W::PACKED) {
                    let words = W::pack(isa, words);
                    for (k, reached) in reached.iter_mut().enumerate() {
                        *reached = W::add_reaching(isa, *reached, words, 1 << k);
                    }
                }
                self.reached[..$bits].copy_from_slice(&reached);
            }};
        }
        match bits {
            0 => {}
            1 => reached!(1),
            2 => reached!(2),
            3 => reached!(3),
            _ => reached!(4),
        }
    }

    /// Takes the counters' contents over into plain numbers.
    fn empty(&mut self, at_least: &mut [u64; 64]) {
        for (reached, at_least) in self.reached.iter().zip(at_least) {
            *at_least += W::total(reached);
        }
        *self = Self::new();
    }
}

impl<W: Word> Counters<W> {
    fn new() -> Self {
        Self {
            low: [[0; 8]; 2],
            more: [[0; 8]; LEVELS],
            waiting: [[0; 8]; LEVELS],
            taken: 0,
            words: PhantomData,
        }
    }

    /// Words of at most `bits` bits: the fewer there are, the fewer shifts fill every bit below the highest.
    #[inline(always)]
    fn count<I: Isa>(&mut self, isa: I, vectors: &mut [Vector], bits: usize, at_least: &mut [u64; 64]) {
        // A plain loop in place, which is compiled to wide vectors more surely than in one with what follows.
        macro_rules! smear {
            ($bits:expr) => {
                for word in bytemuck::cast_slice_mut::<Vector, W>(vectors) {
                    *word = word.smear::<I>($bits);
                }
            };
        }
        match bits {
            0..=1 => {}
            2 => smear!(2),
            3..=4 => smear!(4),
            5..=8 => smear!(8),
            9..=16 => smear!(16),
            _ => smear!(W::BITS),
        }
        for group in vectors.as_chunks::<GROUP>().0 {
            let [mut one, mut two] = self.low;
            let twos = add(isa, &mut one, group[0], group[1]);
            let more = add(isa, &mut one, group[2], group[3]);
            let carry = add(isa, &mut two, twos, more);
            self.low = [one, two];
            self.carry(isa, carry, at_least);
        }
    }

    /// Takes a carry of weight 4. At every level one waits until another comes, so that few levels are touched.
    #[inline(always)]
    fn carry<I: Isa>(&mut self, isa: I, mut carry: Vector, at_least: &mut [u64; 64]) {
        let level = self.taken.trailing_ones() as usize;
        for (counter, waiting) in self.more.iter_mut().zip(&self.waiting).take(level) {
            carry = add(isa, counter, *waiting, carry);
        }
        self.waiting[level] = carry;
        self.taken += 1;
        if self.taken == ROOM {
            self.empty(at_least);
        }
    }

    /// Takes the counters' contents over into plain numbers.
    #[inline(always)]
    fn empty(&mut self, at_least: &mut [u64; 64]) {
        let Self { low, more, waiting, taken, .. } = self;
        if *taken == 0 {
            return;
        }
        for (level, waiting) in waiting.iter_mut().enumerate() {
            if *taken >> level & 1 == 0 {
                *waiting = [0; 8];
            }
        }
        // The lowest bit of every word of a u64.
        let lowest = u64::MAX / (u64::MAX >> (64 - W::BITS));
        for (k, at_least) in at_least[..W::BITS].iter_mut().enumerate() {
            let weighed = low.iter().zip(0..).chain(more.iter().zip(2..)).chain(waiting.iter().zip(2..));
            for (counter, weight) in weighed {
                let mut count = 0;
                for lane in counter {
                    count += u64::from((lane & lowest << k).count_ones());
                }
                *at_least += count << weight;
            }
        }
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Job, Level};
    use crate::kernel::VECTORS;

    struct Count<'t, W: Word>(&'t [([Vector; VECTORS], W)]);

    impl<W: Word> Job for Count<'_, W> {
        type Out = (u64, [u64; 64]);

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Self::Out {
            let mut steps = Steps::<W>::new();
            for &(mut tile, max) in self.0 {
                steps.count(isa, &mut tile, max);
            }
            steps.finish()
        }
    }

    /// Tiles of distances of every number of bits, alone, a few, and more than counters hold.
    fn counts<W: Word>() {
        let lowest = u64::MAX / (u64::MAX >> (64 - W::BITS));
        let mut state = 1u64;
        for bits in 1..W::BITS {
            for tiles in [1, 3, 40] {
                let tiles: Vec<([Vector; VECTORS], W)> = (0..tiles)
                    .map(|_| {
                        let mut tile = [[0; 8]; VECTORS];
                        for word in tile.iter_mut().flatten() {
                            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                            *word = (state ^ (state >> 29)) & (lowest * ((1 << bits) - 1));
                        }
                        let words: &[W] = bytemuck::cast_slice(&tile);
                        (tile, words.iter().copied().fold(W::ZERO, W::max))
                    })
                    .collect();
                let mut expected = (0, [0; 64]);
                for word in tiles.iter().flat_map(|(tile, _)| bytemuck::cast_slice::<Vector, W>(tile)) {
                    expected.0 = expected.0.max(word.wide());
                    for (k, count) in expected.1.iter_mut().enumerate() {
                        *count += u64::from(word.wide() >> k > 0);
                    }
                }
                for level in Level::all() {
                    assert_eq!(level.run(Count(&tiles)), expected, "{bits} of {} bits", W::BITS);
                }
            }
        }
    }

    #[test]
    fn every_distance_is_counted() {
        counts::<u16>();
        counts::<u32>();
        counts::<u64>();
    }
}
