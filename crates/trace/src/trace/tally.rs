//! How many numbers lie between each power of two and the next, at the speed of a few vector instructions.
//!
//! A counter for each exponent takes a load, an addition and a store for every number, which no vector does for several
//! at once. But of 32 exponents in a row a number's own can be told by one bit of a word, and words of bits are added up
//! by carry-save adders: three words go into a sum and a carry with a few logical operations, so 32 vectors become one
//! carry of weight 32 with 31 adders, and the counters are words themselves, one bit in each for each exponent (Harley
//! and Seal; Muła, Kurz and Lemire, "Faster population counts using AVX2 instructions", 2018).

/// Numbers a vector.
const LANES: usize = 16;
/// Vectors that are added up together.
const VECTORS: usize = 32;
/// Numbers in as many vectors.
pub const GROUP: usize = LANES * VECTORS;
/// Counters of weight 32, 64, ...
const LEVELS: usize = 12;
/// Groups after which the counters are full.
const ROOM: usize = (1 << LEVELS) - 1;
/// How many bytes ahead the processor is asked for memory: what is hashed next, all of which it would have to wait for.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4 * super::statistics::NEAR;
/// Into every level of the cache but the first.
#[cfg(target_arch = "x86_64")]
const SECOND: i32 = 2;
/// Exponents of f32 as its bits have them, the highest that of NaN and infinities.
pub const EXPONENTS: usize = 256;
/// The bits of an f32 that hold its exponent: those alone are a power of two.
#[cfg(target_arch = "x86_64")]
const POWER: i32 = 0x7f80_0000;
/// Exponents that a word tells apart.
const WORD: u32 = u32::BITS;

type Vector = [u32; LANES];

/// Counters of one sign or of both.
struct Counters {
    low: [Vector; 5],
    more: [Vector; LEVELS],
}

impl Counters {
    const EMPTY: Self = Self { low: [[0; LANES]; 5], more: [[0; LANES]; LEVELS] };

    /// Adds a carry of weight 32.
    #[inline(always)]
    fn carry(&mut self, mut carry: Vector) {
        for counter in &mut self.more {
            for (counter, carry) in counter.iter_mut().zip(&mut carry) {
                (*counter, *carry) = (*counter ^ *carry, *counter & *carry);
            }
        }
    }

    /// How many words had bit `k`.
    fn count(&self, k: usize) -> u64 {
        let levels = self.low.iter().chain(&self.more).enumerate();
        levels
            .map(|(level, counter)| counter.iter().map(|w| u64::from(w >> k & 1)).sum::<u64>() << level)
            .sum()
    }
}

/// Vector instructions for what a tally does, on some words at a time.
#[cfg(target_arch = "x86_64")]
trait Words<const W: usize>: Copy {
    /// Adds three bits in every place: the sum and the carry.
    fn add(self, a: [u32; W], b: [u32; W], c: [u32; W]) -> [[u32; W]; 2];
    /// The word of each number: the largest power of two in it, in units of `unit`'s inverse; none for zero.
    fn words(self, numbers: &[f32; W], unit: f32) -> [u32; W];
    /// Words of numbers, but for those of negative ones.
    fn positive(self, numbers: &[f32; W], words: [u32; W]) -> [u32; W];
    /// Asks for memory.
    fn ask(self, line: *const i8);
}

/// With instructions that take any function of three bits.
#[cfg(target_arch = "x86_64")]
impl Words<16> for pulp::x86::V4 {
    #[inline(always)]
    fn add(self, a: Vector, b: Vector, c: Vector) -> [Vector; 2] {
        const ODD: i32 = 0b1001_0110;
        const TWO: i32 = 0b1110_1000;
        let [a, b, c] = [a, b, c].map(pulp::cast);
        let f = self.avx512f;
        [
            pulp::cast(f._mm512_ternarylogic_epi32::<ODD>(a, b, c)),
            pulp::cast(f._mm512_ternarylogic_epi32::<TWO>(a, b, c)),
        ]
    }

    #[inline(always)]
    fn words(self, numbers: &[f32; 16], unit: f32) -> Vector {
        let f = self.avx512f;
        let powers = f._mm512_and_si512(pulp::cast(*numbers), f._mm512_set1_epi32(POWER));
        pulp::cast(f._mm512_cvttps_epi32(f._mm512_mul_ps(pulp::cast(powers), f._mm512_set1_ps(unit))))
    }

    #[inline(always)]
    fn positive(self, numbers: &[f32; 16], words: Vector) -> Vector {
        let f = self.avx512f;
        let negative = f._mm512_srai_epi32::<31>(pulp::cast(*numbers));
        pulp::cast(f._mm512_andnot_si512(negative, pulp::cast(words)))
    }

    #[inline(always)]
    fn ask(self, line: *const i8) {
        self.sse._mm_prefetch::<SECOND>(line);
    }
}

#[cfg(target_arch = "x86_64")]
impl Words<8> for pulp::x86::V3 {
    #[inline(always)]
    fn add(self, a: [u32; 8], b: [u32; 8], c: [u32; 8]) -> [[u32; 8]; 2] {
        let [a, b, c] = [a, b, c].map(pulp::cast);
        let v = self.avx2;
        let one = v._mm256_xor_si256(a, b);
        [
            pulp::cast(v._mm256_xor_si256(one, c)),
            pulp::cast(v._mm256_or_si256(v._mm256_and_si256(a, b), v._mm256_and_si256(one, c))),
        ]
    }

    #[inline(always)]
    fn words(self, numbers: &[f32; 8], unit: f32) -> [u32; 8] {
        let v = self.avx;
        let powers = v._mm256_and_ps(pulp::cast(*numbers), v._mm256_castsi256_ps(v._mm256_set1_epi32(POWER)));
        pulp::cast(v._mm256_cvttps_epi32(v._mm256_mul_ps(powers, v._mm256_set1_ps(unit))))
    }

    #[inline(always)]
    fn positive(self, numbers: &[f32; 8], words: [u32; 8]) -> [u32; 8] {
        let v = self.avx2;
        let negative = v._mm256_srai_epi32::<31>(pulp::cast(*numbers));
        pulp::cast(v._mm256_andnot_si256(negative, pulp::cast(words)))
    }

    #[inline(always)]
    fn ask(self, line: *const i8) {
        self.sse._mm_prefetch::<SECOND>(line);
    }
}

/// Adds the words `at` and those behind it of each vector of a group, `$word` giving them for a vector of numbers.
#[cfg(target_arch = "x86_64")]
macro_rules! add_group {
    ($simd:ident, $w:ident, $counters:expr, $at:ident, $word:ident) => {{
        let [mut one, mut two, mut four, mut eight, mut sixteen] =
            $counters.low.map(|low| *low[$at..].first_chunk::<$w>().expect("whole vectors"));
        macro_rules! add {
            ($a:ident, $b:expr, $c:expr) => {{
                let (b, c) = ($b, $c);
                let [sum, carry] = $simd.add($a, b, c);
                $a = sum;
                carry
            }};
        }
        macro_rules! twos {
            ($k:expr) => {
                add!(one, $word!($k), $word!($k + 1))
            };
        }
        macro_rules! fours {
            ($k:expr) => {
                add!(two, twos!($k), twos!($k + 2))
            };
        }
        macro_rules! eights {
            ($k:expr) => {
                add!(four, fours!($k), fours!($k + 4))
            };
        }
        macro_rules! sixteens {
            ($k:expr) => {
                add!(eight, eights!($k), eights!($k + 8))
            };
        }
        let carry = add!(sixteen, sixteens!(0), sixteens!(16));
        for (low, sum) in $counters.low.iter_mut().zip([one, two, four, eight, sixteen]) {
            low[$at..$at + $w].copy_from_slice(&sum);
        }
        carry
    }};
}

/// Numbers by sign and exponent.
pub struct Tally {
    all: Counters,
    positive: Counters,
    /// The exponent that the highest bit of a word tells; each bit below tells the next lower one.
    top: u32,
    /// Groups since the counters were emptied.
    taken: usize,
    /// What was emptied, negative numbers first.
    counts: [[u64; EXPONENTS]; 2],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            all: Counters::EMPTY,
            positive: Counters::EMPTY,
            top: WORD - 1,
            taken: 0,
            counts: [[0; EXPONENTS]; 2],
        }
    }
}

impl Tally {
    /// Adds numbers, whole groups of them, none of a magnitude below `smallest` or above `largest`, and says how many of
    /// them are zero; `None` where not all can be told apart by their exponents: some are subnormal, or less than 2^-30
    /// of the largest, or the processor has no vectors for it. Then none was added.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub fn add(&mut self, values: &[f32], smallest: f32, largest: f32) -> Option<u32> {
        let wide = pulp::x86::V4::try_new();
        let narrow = pulp::x86::V3::try_new()?;
        let exponent = largest.to_bits() >> 23;
        if exponent >= EXPONENTS as u32 - 1 {
            return None;
        }
        if exponent > self.top || self.taken + values.len() / GROUP > ROOM {
            self.empty();
            // A little more, since the next may be a little larger.
            self.top = (exponent + 1).max(WORD - 1);
        }
        let lowest = f32::from_bits((self.top - (WORD - 1)).max(1) << 23);
        let (mut outside, mut zeros) = (0u32, 0u32);
        if smallest < lowest {
            for x in values {
                outside += u32::from(x.abs() < lowest);
                zeros += u32::from(*x == 0.0);
            }
        }
        if outside != zeros {
            return None;
        }
        for group in values.as_chunks::<GROUP>().0 {
            match wide {
                Some(simd) => self.group::<_, 16>(simd, group),
                None => self.group::<_, 8>(narrow, group),
            }
        }
        Some(zeros)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn group<I: Words<W>, const W: usize>(&mut self, simd: I, group: &[f32; GROUP]) {
        let unit = f32::from_bits((2 * 127 + WORD - 1 - self.top) << 23);
        let mut carries = [[0; LANES]; 2];
        for at in (0..LANES).step_by(W) {
            // Macros, since what is inlined for certain is no closure.
            macro_rules! numbers {
                ($k:expr) => {
                    group[LANES * ($k) + at..].first_chunk::<W>().expect("whole vectors")
                };
            }
            macro_rules! word {
                ($k:expr) => {
                    simd.words(numbers!($k), unit)
                };
            }
            macro_rules! positive {
                ($k:expr) => {{
                    let numbers = numbers!($k);
                    if at == 0 {
                        simd.ask(numbers.as_ptr().cast::<i8>().wrapping_add(AHEAD));
                    }
                    simd.positive(numbers, word!($k))
                }};
            }
            carries[0][at..at + W].copy_from_slice(&add_group!(simd, W, self.all, at, word));
            carries[1][at..at + W].copy_from_slice(&add_group!(simd, W, self.positive, at, positive));
        }
        self.all.carry(carries[0]);
        self.positive.carry(carries[1]);
        self.taken += 1;
    }

    /// Numbers are counted one by one on other processors.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn add(&mut self, _: &[f32], _: f32, _: f32) -> Option<u32> {
        None
    }

    /// Takes the counters' contents over into plain numbers. Zeros may be among those of exponent 0.
    fn empty(&mut self) {
        if self.taken == 0 {
            return;
        }
        for bit in 0..WORD as usize {
            let (all, positive) = (self.all.count(bit), self.positive.count(bit));
            let exponent = self.top as usize + bit + 1 - WORD as usize;
            self.counts[0][exponent] += all - positive;
            self.counts[1][exponent] += positive;
        }
        (self.all, self.positive, self.taken) = (Counters::EMPTY, Counters::EMPTY, 0);
    }

    /// Negative numbers by their exponent as f32 has it in its bits, and positive ones. Zeros may be among those of
    /// exponent 0, where there are no others.
    pub fn finish(mut self) -> [[u64; EXPONENTS]; 2] {
        self.empty();
        self.counts
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// Counted one by one.
    fn plain(values: &[f32]) -> [[u64; EXPONENTS]; 2] {
        let mut counts = [[0; EXPONENTS]; 2];
        for x in values {
            counts[usize::from(x.is_sign_positive())][(x.to_bits() << 1 >> 24) as usize] += 1;
        }
        counts
    }

    #[test]
    fn groups_are_counted_as_their_numbers_are() {
        // Processors without these instructions count one by one.
        if pulp::x86::V3::try_new().is_none() {
            return;
        }
        let mut tally = Tally::default();
        let mut expected = [[0u64; EXPONENTS]; 2];
        // Parts in which numbers become larger, and are zero here and there; enough for the counters to fill.
        for part in 0..4400usize {
            let size = 2f32.powi((part / 1500) as i32 * 3 - 20);
            let values: Vec<f32> = (0..GROUP)
                .map(|i| if i % 97 == part % 97 { 0.0 } else { ((i * 31 + part) % 2001) as f32 - 1000.5 })
                .map(|x| x * size)
                .collect();
            let largest = values.iter().fold(0f32, |m, x| m.max(x.abs()));
            let smallest = values.iter().fold(largest, |m, x| m.min(x.abs()));
            let zeros = values.iter().filter(|x| **x == 0.0).count() as u32;
            assert_eq!(tally.add(&values, smallest, largest), Some(zeros));
            for (all, here) in expected.as_flattened_mut().iter_mut().zip(plain(&values).as_flattened()) {
                *all += here;
            }
        }
        // Nothing is added of what cannot be told apart.
        let mut one = vec![1f32; GROUP];
        for odd in [1e-40, 2f32.powi(-40)] {
            one[17] = odd;
            assert_eq!(tally.add(&one, odd, 1.0), None);
        }
        one[17] = f32::INFINITY;
        assert_eq!(tally.add(&one, 1.0, f32::INFINITY), None);
        let mut found = tally.finish();
        for side in 0..2 {
            (found[side][0], expected[side][0]) = (0, 0);
        }
        assert_eq!(found, expected);
    }
}
