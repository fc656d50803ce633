//! How many places are how many steps apart: a histogram by powers of two, at the speed of a few logical operations
//! an element.
//!
//! A distance with all bits below its highest set says of every power of two whether the distance reaches it. What is
//! left is to count, for each bit, the words that have it ("positional population count"). Carry-save adders do that
//! for all bits at once: three words go into a sum and a carry with five logical operations, so 32 vectors become
//! one carry of weight 32 with 31 adders, and the counters themselves are words, one for each power of two
//! (Harley and Seal; Muła, Kurz and Lemire, "Faster population counts using AVX2 instructions", 2018).

use crate::isa::Isa;

use super::VECTORS;
use super::word::Word;

/// Carries of weight 32 that fit: the sum of the weights of `more`, in units of 32.
const ROOM: usize = (1 << LEVELS) - 1;
const LEVELS: usize = 10;

/// Parts in which distances are taken.
pub(crate) const PARTS: usize = 4;

/// Counters of one type of float; `L` words make a vector.
#[repr(C, align(64))]
pub(crate) struct Steps<W, const L: usize> {
    /// Counters of weight 1, 2, 4, 8 and 16.
    low: [[W; L]; 5],
    /// Counters of weight 32, 64, ...
    more: [[W; L]; LEVELS],
    /// Where a tile's distances are while they are counted.
    buffer: [[W; L]; VECTORS],
    /// The largest distance.
    max: W,
    /// Carries taken since the counters were emptied.
    taken: usize,
    /// What was emptied: places at least 2^k steps apart.
    at_least: [u64; 64],
}

/// Adds three bits in every place: the sum stays in `a`, the carry is returned.
#[inline(always)]
fn add<W: Word>(a: &mut W, b: W, c: W) -> W {
    let half = *a ^ b;
    // Where a and b agree the carry is either of them, else it is c.
    let carry = (half & c) | (!half & *a);
    *a = half ^ c;
    carry
}

impl<W: Word, const L: usize> Steps<W, L> {
    pub fn new() -> Self {
        Self {
            max: W::ZERO,
            low: [[W::ZERO; L]; 5],
            more: [[W::ZERO; L]; LEVELS],
            taken: 0,
            buffer: [[W::ZERO; L]; VECTORS],
            at_least: [0; 64],
        }
    }

    /// A tile of pairs; `distance` of each is counted. `ahead` is called [`PARTS`] times, with the number of the call.
    #[inline(always)]
    pub fn count<I: Isa>(&mut self, x: &[W], y: &[W], distance: impl Fn(W, W) -> W, ahead: impl Fn(usize)) {
        // First a plain loop into a buffer, which is compiled to wide vectors more surely than what follows.
        let mut max = self.max;
        // In parts, because a loop that asks for memory ahead is not compiled to vectors.
        for part in 0..PARTS {
            ahead(part);
            let from = part * VECTORS / PARTS;
            let out = &mut self.buffer[from..from + VECTORS / PARTS];
            for ((out, &x), &y) in out.as_flattened_mut().iter_mut().zip(&x[from * L..]).zip(&y[from * L..]) {
                let steps = distance(x, y);
                max = max.max(steps);
                *out = steps.smear::<I>();
            }
        }
        debug_assert_eq!(x.len(), VECTORS * L);
        let smeared = &self.buffer;
        let [ones, twos, fours, eights, sixteens] = &mut self.low;
        // One lane an iteration, which the compiler turns into one vector a step.
        for l in 0..L {
            let (mut one, mut two, mut four, mut eight, mut sixteen) =
                (ones[l], twos[l], fours[l], eights[l], sixteens[l]);
            macro_rules! twos {
                ($k:expr) => {
                    add(&mut one, smeared[$k][l], smeared[$k + 1][l])
                };
            }
            macro_rules! fours {
                ($k:expr) => {
                    add(&mut two, twos!($k), twos!($k + 2))
                };
            }
            macro_rules! eights {
                ($k:expr) => {
                    add(&mut four, fours!($k), fours!($k + 4))
                };
            }
            macro_rules! sixteens {
                ($k:expr) => {
                    add(&mut eight, eights!($k), eights!($k + 8))
                };
            }
            let mut carry = add(&mut sixteen, sixteens!(0), sixteens!(16));
            (ones[l], twos[l], fours[l], eights[l], sixteens[l]) = (one, two, four, eight, sixteen);
            for counter in &mut self.more {
                let sum = counter[l] ^ carry;
                carry = carry & counter[l];
                counter[l] = sum;
            }
        }
        self.max = max;
        self.taken += 1;
        if self.taken == ROOM {
            self.empty();
        }
    }

    /// The largest distance so far.
    pub fn max(&self) -> W {
        self.max
    }

    /// Takes the counters' contents over into plain numbers.
    #[inline(always)]
    fn empty(&mut self) {
        for k in 0..W::BITS {
            let mut total = 0;
            for (level, counter) in self.low.iter().chain(&self.more).enumerate() {
                let mut lanes = 0;
                for word in counter {
                    lanes += word.bit(k);
                }
                total += lanes << level;
            }
            self.at_least[k] += total;
        }
        self.low = [[W::ZERO; L]; 5];
        self.more = [[W::ZERO; L]; LEVELS];
        self.taken = 0;
    }

    /// The largest distance, and how many places are at least 2^k steps apart.
    #[inline(always)]
    pub fn finish(&mut self) -> (u64, [u64; 64]) {
        self.empty();
        (self.max.wide(), self.at_least)
    }
}
