//! How many places are how many steps apart: a histogram by powers of two, at the speed of a few logical operations
//! an element.
//!
//! A distance with all bits below its highest set says of every power of two whether the distance reaches it. What is
//! left is to count, for each bit, the words that have it ("positional population count"). Carry-save adders do that
//! for all bits at once: three words go into a sum and a carry with five logical operations, so eight vectors become
//! one carry of weight 8 with seven adders, and the counters themselves are words, one for each power of two
//! (Harley and Seal; Muła, Kurz and Lemire, "Faster population counts using AVX2 instructions", 2018).
//!
//! Steps are mostly few, so words are made as short as the largest of a tile allows: a quarter of the width is a quarter
//! of the vectors.

use std::marker::PhantomData;

use crate::isa::Isa;

use super::word::Word;

/// Vectors that become one carry.
const GROUP: usize = 8;
const LEVELS: usize = 10;
/// Carries that fit.
const ROOM: usize = (1 << LEVELS) - 1;

/// Counters of one type of float.
pub(crate) struct Steps<W: Word> {
    own: Counters<W>,
    half: Counters<W::Half>,
    quarter: Counters<<W::Half as Word>::Half>,
    /// The largest distance.
    max: W,
    /// What was emptied: places at least 2^k steps apart.
    at_least: [u64; 64],
}

/// Counters of words of one width.
#[repr(C, align(64))]
struct Counters<W> {
    /// Of weight 1, 2 and 4.
    low: [Vector; 3],
    /// Of weight 8, 16, ...
    more: [Vector; LEVELS],
    /// Carries of these weights that wait for another: those of which `taken` has the bit.
    waiting: [Vector; LEVELS],
    /// Carries of weight 8 taken since the counters were emptied.
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
            max: W::ZERO,
            at_least: [0; 64],
        }
    }

    /// A tile of distances, the largest of which is `max`.
    #[inline(always)]
    pub fn count<I: Isa>(&mut self, isa: I, distances: &mut [Vector], max: W) {
        self.max = self.max.max(max);
        let bits = W::BITS - max.leading_zeros();
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
        (self.max.wide(), self.at_least)
    }
}

impl<W: Word> Counters<W> {
    fn new() -> Self {
        Self {
            low: [[0; 8]; 3],
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
            let [mut one, mut two, mut four] = self.low;
            macro_rules! twos {
                ($k:expr) => {
                    add(isa, &mut one, group[$k], group[$k + 1])
                };
            }
            macro_rules! fours {
                ($k:expr) => {
                    add(isa, &mut two, twos!($k), twos!($k + 2))
                };
            }
            let carry = add(isa, &mut four, fours!(0), fours!(4));
            self.low = [one, two, four];
            self.carry(isa, carry, at_least);
        }
    }

    /// Takes a carry of weight 8. At every level one waits until another comes, so that few levels are touched.
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
            let weighed = low.iter().zip(0..).chain(more.iter().zip(3..)).chain(waiting.iter().zip(3..));
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
