//! How many places are how many steps apart: a histogram by powers of two, at the speed of a few logical operations
//! an element.
//!
//! A distance with all bits below its highest set says of every power of two whether the distance reaches it. What is
//! left is to count, for each bit, the words that have it ("positional population count"). Carry-save adders do that
//! for all bits at once: three words go into a sum and a carry with five logical operations, so 32 vectors become
//! one carry of weight 32 with 31 adders, and the counters themselves are words, one for each power of two
//! (Harley and Seal; Muła, Kurz and Lemire, "Faster population counts using AVX2 instructions", 2018).

use crate::isa::Isa;

use super::word::Word;

/// Carries of weight 32 that fit: the sum of the weights of `more`, in units of 32.
const ROOM: usize = (1 << LEVELS) - 1;
const LEVELS: usize = 10;

/// Counters of one type of float.
#[repr(C, align(64))]
pub(crate) struct Steps<W> {
    /// Counters of weight 1, 2, 4, 8 and 16.
    low: [Vector; 5],
    /// Counters of weight 32, 64, ...
    more: [Vector; LEVELS],
    /// The largest distance.
    max: W,
    /// Carries taken since the counters were emptied.
    taken: usize,
    /// What was emptied: places at least 2^k steps apart.
    at_least: [u64; 64],
}

/// A vector as it is counted, whatever the width of its words.
type Vector = [u64; 8];

/// Adds three bits in every place: the sum stays in `a`, the carry is returned.
#[inline(always)]
fn add<I: Isa>(isa: I, a: &mut Vector, b: Vector, c: Vector) -> Vector {
    let [sum, carry] = isa.add_bits(*a, b, c);
    *a = sum;
    carry
}

impl<W: Word> Steps<W> {
    pub fn new() -> Self {
        Self { max: W::ZERO, low: [[0; 8]; 5], more: [[0; 8]; LEVELS], taken: 0, at_least: [0; 64] }
    }

    /// A tile of distances, the largest of which is `max`.
    ///
    /// Steps are mostly few, and the fewer bits the largest has, the fewer shifts fill every bit below the highest.
    #[inline(always)]
    pub fn count<I: Isa>(&mut self, isa: I, distances: &mut [W], max: W) {
        self.max = self.max.max(max);
        let bits = W::BITS - max.leading_zeros();
        // A plain loop in place, which is compiled to wide vectors more surely than in one with what follows.
        macro_rules! smear {
            ($bits:expr) => {
                for word in distances.iter_mut() {
                    *word = word.smear::<I>($bits);
                }
            };
        }
        match bits {
            0..=1 => {}
            2 => smear!(2),
            3..=4 => smear!(4),
            5..=8 => smear!(8),
            _ => smear!(W::BITS),
        }
        let smeared: &[Vector] = bytemuck::cast_slice(distances);
        let [mut one, mut two, mut four, mut eight, mut sixteen] = self.low;
        macro_rules! twos {
            ($k:expr) => {
                add(isa, &mut one, smeared[$k], smeared[$k + 1])
            };
        }
        macro_rules! fours {
            ($k:expr) => {
                add(isa, &mut two, twos!($k), twos!($k + 2))
            };
        }
        macro_rules! eights {
            ($k:expr) => {
                add(isa, &mut four, fours!($k), fours!($k + 4))
            };
        }
        macro_rules! sixteens {
            ($k:expr) => {
                add(isa, &mut eight, eights!($k), eights!($k + 8))
            };
        }
        let mut carry = add(isa, &mut sixteen, sixteens!(0), sixteens!(16));
        self.low = [one, two, four, eight, sixteen];
        for counter in &mut self.more {
            for (counter, carry) in counter.iter_mut().zip(&mut carry) {
                (*counter, *carry) = (*counter ^ *carry, *counter & *carry);
            }
        }
        self.taken += 1;
        if self.taken == ROOM {
            self.empty();
        }
    }

    /// Takes the counters' contents over into plain numbers.
    #[inline(always)]
    fn empty(&mut self) {
        for k in 0..W::BITS {
            let mut total = 0;
            for (level, counter) in self.low.iter().chain(&self.more).enumerate() {
                let mut lanes = 0;
                for word in bytemuck::cast_slice::<u64, W>(counter) {
                    lanes += word.bit(k);
                }
                total += lanes << level;
            }
            self.at_least[k] += total;
        }
        self.low = [[0; 8]; 5];
        self.more = [[0; 8]; LEVELS];
        self.taken = 0;
    }

    /// The largest distance, and how many places are at least 2^k steps apart.
    #[inline(always)]
    pub fn finish(&mut self) -> (u64, [u64; 64]) {
        self.empty();
        (self.max.wide(), self.at_least)
    }
}
