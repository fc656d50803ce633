//! Which vector instructions the loops are compiled for.
//!
//! Every loop of this crate is written once, over arrays of fixed length, and compiled once for each level below;
//! the best one that the processor has is chosen when the program runs ([`Level::best`]). The loops contain no
//! operation whose result depends on the level: multiply-adds are written out as fused (processors without that
//! instruction, x86 before 2013, compute it in software), and conversions are exact. The tests hold every level
//! against the others, bit for bit.

/// As many rounds as a row number has bits, one after the other in the text, so that everything stays in registers.
macro_rules! rounds {
    ($isa:expr, $zip:ident, $rows:expr, $side:literal, [$($round:literal)+]) => {{
        let mut rows = $rows;
        $(
            let _ = $round;
            let mut next = [[0; $side]; $side];
            for r in 0..$side / 2 {
                [next[2 * r], next[2 * r + 1]] = $isa.$zip(rows[r], rows[r + $side / 2]);
            }
            rows = next;
        )+
        rows
    }};
}

/// A set of vector instructions.
pub(crate) trait Isa: Copy {
    /// Whether leading zeros are counted by one vector instruction.
    const COUNTS_ZEROS: bool;
    /// f16, given by their bits, as f32.
    #[inline(always)]
    fn widen_f16(self, bits: &[u16; 16]) -> [f32; 16] {
        let mut out = [0.0; 16];
        for (out, &bits) in out.iter_mut().zip(bits) {
            *out = f16_to_f32(bits);
        }
        out
    }

    /// f32 in registers, of which [`UNITS`](Self::UNITS) hold 16.
    type Single: Copy;
    /// Two at most.
    const UNITS: usize;

    /// The same number in all of them.
    fn splat_f32(self, x: f32) -> Self::Single;

    /// Numbers out of registers: the first of `out`.
    fn store_f32(self, x: Self::Single, out: &mut [f32]);

    /// Sums.
    fn add_f32(self, a: Self::Single, b: Self::Single) -> Self::Single;

    /// Differences.
    fn sub_f32(self, a: Self::Single, b: Self::Single) -> Self::Single;

    /// a * b + c, rounded once.
    fn mul_add_f32(self, a: Self::Single, b: Self::Single, c: Self::Single) -> Self::Single;

    /// Magnitudes.
    fn abs_f32(self, x: Self::Single) -> Self::Single;

    /// The larger of each pair of numbers, or the first where the second is NaN. Written out for sets of instructions with
    /// masks, since a compiler may make stores under a mask of it, which take a hundred cycles on some processors.
    fn larger_f32(self, a: Self::Single, b: Self::Single) -> Self::Single;

    /// Whether any of them is above a number.
    fn above(self, x: Self::Single, least: f32) -> bool;

    /// Of 32 f16 those of one unit in one half, as f32.
    fn single_f16(self, bits: &[u16; 32], half: usize, unit: usize) -> Self::Single;

    /// Of 32 bf16 those of one unit in one half, as f32: the even ones are the one half and the odd ones the other, since
    /// of a word of two the one takes a shift, and the other stands where it has to but for what is below.
    fn single_bf16(self, bits: &[u16; 32], half: usize, unit: usize) -> Self::Single;

    /// Four f64 in registers. Sums are of this type and not arrays, of which a compiler may keep halves apart, each in a
    /// register of its own.
    type Wide: Copy;

    /// The same number four times.
    fn splat(self, x: f64) -> Self::Wide;

    /// Numbers in registers.
    fn load_f64(self, numbers: [f64; 4]) -> Self::Wide;

    /// Numbers out of registers.
    fn lanes_f64(self, x: Self::Wide) -> [f64; 4];

    /// Sums.
    fn add_f64(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;

    /// Differences.
    fn sub_f64(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;

    /// a * b + c, rounded once.
    fn mul_add_f64(self, a: Self::Wide, b: Self::Wide, c: Self::Wide) -> Self::Wide;

    /// Magnitudes.
    fn abs_f64(self, x: Self::Wide) -> Self::Wide;

    /// The larger of each pair of numbers, or the first where the second is NaN.
    fn larger_f64(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;

    /// The largest of all, none of them NaN.
    fn most_f64(self, x: Self::Wide) -> f64;

    /// The lower half of some numbers and the upper half, exactly.
    fn widen_f32(self, numbers: [f32; 8]) -> [Self::Wide; 2];

    /// The largest of some words, the least of which is 0.
    #[inline(always)]
    fn most_i32(self, words: [i32; 8]) -> i32 {
        words.into_iter().fold(0, i32::max)
    }

    /// The same for other words.
    #[inline(always)]
    fn most_u32(self, words: [u32; 8]) -> u32 {
        words.into_iter().fold(0, u32::max)
    }

    /// Adds three bits in every place: the sum and the carry.
    #[inline(always)]
    fn add_bits(self, a: [u64; 8], b: [u64; 8], c: [u64; 8]) -> [[u64; 8]; 2] {
        let (mut sum, mut carry) = ([0; 8], [0; 8]);
        for l in 0..8 {
            let half = a[l] ^ b[l];
            sum[l] = half ^ c[l];
            // Where a and b agree the carry is either of them, else it is c.
            carry[l] = (half & c[l]) | (!half & a[l]);
        }
        [sum, carry]
    }

    /// Two vectors of words that fit into half their width as one, in whatever order is quick.
    #[inline(always)]
    fn halve_u64(self, a: [u64; 8], b: [u64; 8]) -> [u32; 16] {
        let mut out = [0; 16];
        for (out, word) in out.iter_mut().zip(a.into_iter().chain(b)) {
            *out = word as u32;
        }
        out
    }

    /// The same for other words.
    #[inline(always)]
    fn halve_u32(self, a: [u32; 16], b: [u32; 16]) -> [u16; 32] {
        let mut out = [0; 32];
        for (out, word) in out.iter_mut().zip(a.into_iter().chain(b)) {
            *out = word as u16;
        }
        out
    }

    /// The same for other words.
    #[inline(always)]
    fn halve_u16(self, a: [u16; 32], b: [u16; 32]) -> [u8; 64] {
        let mut out = [0; 64];
        for (out, word) in out.iter_mut().zip(a.into_iter().chain(b)) {
            *out = word as u8;
        }
        out
    }

    /// Adds one to each count whose word is at least `least`, which is not 0; no word is above `i8::MAX`.
    #[inline(always)]
    fn add_reaching_u8(self, mut counts: [u8; 64], words: [u8; 64], least: u8) -> [u8; 64] {
        for (count, word) in counts.iter_mut().zip(words) {
            *count = count.wrapping_add(u8::from(word >= least));
        }
        counts
    }

    /// The same for other words.
    #[inline(always)]
    fn add_reaching_u16(self, mut counts: [u16; 32], words: [u16; 32], least: u16) -> [u16; 32] {
        for (count, word) in counts.iter_mut().zip(words) {
            *count = count.wrapping_add(u16::from(word >= least));
        }
        counts
    }

    /// Asks for a cache line that will be read soon if it is there at all.
    #[inline(always)]
    fn prefetch(self, line: *const i8) {
        let _ = line;
    }

    /// The same for one that will be read a little later, and shall not push out what is read before.
    #[inline(always)]
    fn prefetch_far(self, line: *const i8) {
        let _ = line;
    }

    /// A square of 8 runs of 8 words, transposed.
    #[inline(always)]
    fn turn_u64(self, runs: &[[u64; 8]; 8], out: &mut [[u64; 8]; 8]) {
        *out = rounds!(self, zip_u64, *runs, 8, [0 1 2]);
    }

    /// The same for a square of 16.
    #[inline(always)]
    fn turn_u32(self, runs: &[[u32; 16]; 16], out: &mut [[u32; 16]; 16]) {
        *out = rounds!(self, zip_u32, *runs, 16, [0 1 2 3]);
    }

    /// The same for a square of 32. Two runs in turn are a run of wider words, each a pair, and those are transposed, of
    /// one half of the words and then of the other; a square of words of two bytes would need more registers than there
    /// are.
    #[inline(always)]
    fn turn_u16(self, runs: &[[u16; 32]; 32], out: &mut [[u16; 32]; 32]) {
        for half in 0..2 {
            let mut rows = [[0u32; 16]; 16];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = bytemuck::cast(self.zip_u16(runs[2 * r], runs[2 * r + 1])[half]);
            }
            for (c, row) in rounds!(self, zip_u32, rows, 16, [0 1 2 3]).iter().enumerate() {
                out[16 * half + c] = bytemuck::cast(*row);
            }
        }
    }

    /// The words of two vectors in turn.
    #[inline(always)]
    fn zip_u64(self, a: [u64; 8], b: [u64; 8]) -> [[u64; 8]; 2] {
        zip(&a, &b)
    }

    /// The words of two vectors in turn.
    #[inline(always)]
    fn zip_u32(self, a: [u32; 16], b: [u32; 16]) -> [[u32; 16]; 2] {
        zip(&a, &b)
    }

    /// The words of two vectors in turn.
    #[inline(always)]
    fn zip_u16(self, a: [u16; 32], b: [u16; 32]) -> [[u16; 32]; 2] {
        zip(&a, &b)
    }
}

/// Four f64 as an array.
macro_rules! wide {
    () => {
        type Wide = [f64; 4];

        #[inline(always)]
        fn splat(self, x: f64) -> [f64; 4] {
            [x; 4]
        }

        #[inline(always)]
        fn load_f64(self, numbers: [f64; 4]) -> [f64; 4] {
            numbers
        }

        #[inline(always)]
        fn lanes_f64(self, x: [f64; 4]) -> [f64; 4] {
            x
        }

        #[inline(always)]
        fn add_f64(self, a: [f64; 4], b: [f64; 4]) -> [f64; 4] {
            std::array::from_fn(|l| a[l] + b[l])
        }

        #[inline(always)]
        fn sub_f64(self, a: [f64; 4], b: [f64; 4]) -> [f64; 4] {
            std::array::from_fn(|l| a[l] - b[l])
        }

        #[inline(always)]
        fn mul_add_f64(self, a: [f64; 4], b: [f64; 4], c: [f64; 4]) -> [f64; 4] {
            std::array::from_fn(|l| a[l].mul_add(b[l], c[l]))
        }

        #[inline(always)]
        fn abs_f64(self, x: [f64; 4]) -> [f64; 4] {
            x.map(f64::abs)
        }

        #[inline(always)]
        fn larger_f64(self, a: [f64; 4], b: [f64; 4]) -> [f64; 4] {
            larger(a, b)
        }

        #[inline(always)]
        fn most_f64(self, x: [f64; 4]) -> f64 {
            let [a, b, c, d] = x;
            a.max(b).max(c.max(d))
        }

        #[inline(always)]
        fn widen_f32(self, numbers: [f32; 8]) -> [[f64; 4]; 2] {
            [0, 4].map(|from| std::array::from_fn(|l| f64::from(numbers[from + l])))
        }
    };
}

/// Sixteen f32 as an array.
macro_rules! single {
    () => {
        type Single = [f32; 16];
        const UNITS: usize = 1;

        #[inline(always)]
        fn splat_f32(self, x: f32) -> [f32; 16] {
            [x; 16]
        }

        #[inline(always)]
        fn store_f32(self, x: [f32; 16], out: &mut [f32]) {
            out[..16].copy_from_slice(&x);
        }

        #[inline(always)]
        fn add_f32(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
            std::array::from_fn(|l| a[l] + b[l])
        }

        #[inline(always)]
        fn sub_f32(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
            std::array::from_fn(|l| a[l] - b[l])
        }

        #[inline(always)]
        fn mul_add_f32(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
            std::array::from_fn(|l| a[l].mul_add(b[l], c[l]))
        }

        #[inline(always)]
        fn abs_f32(self, x: [f32; 16]) -> [f32; 16] {
            x.map(f32::abs)
        }

        #[inline(always)]
        fn larger_f32(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
            larger(a, b)
        }

        #[inline(always)]
        fn above(self, x: [f32; 16], least: f32) -> bool {
            x.into_iter().fold(false, |any, x| any | (x > least))
        }

        #[inline(always)]
        fn single_f16(self, bits: &[u16; 32], half: usize, _: usize) -> [f32; 16] {
            self.widen_f16(&bits.as_chunks().0[half])
        }

        #[inline(always)]
        fn single_bf16(self, bits: &[u16; 32], half: usize, _: usize) -> [f32; 16] {
            let words: [u32; 16] = bytemuck::cast(*bits);
            words.map(|word| f32::from_bits(if half == 0 { word << 16 } else { word & 0xffff_0000 }))
        }
    };
}

#[inline(always)]
fn larger<T: Copy + PartialOrd, const L: usize>(mut a: [T; L], b: [T; L]) -> [T; L] {
    for (a, b) in a.iter_mut().zip(b) {
        *a = if b > *a { b } else { *a };
    }
    a
}

/// The words of two vectors in turn: a0 b0 a1 b1 and so on.
#[inline(always)]
fn zip<W: Copy + Default, const L: usize>(a: &[W; L], b: &[W; L]) -> [[W; L]; 2] {
    let mut out = [[W::default(); L]; 2];
    for (half, out) in out.iter_mut().enumerate() {
        for l in 0..L / 2 {
            out[2 * l] = a[half * (L / 2) + l];
            out[2 * l + 1] = b[half * (L / 2) + l];
        }
    }
    out
}

/// The f32 of an f16's bits, without a branch.
///
/// The exponent's bits are moved into place and corrected by the difference of the biases; denormal numbers get the
/// hidden bit of 2^-14, which a subtraction takes away again, exactly.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    const BIAS: u32 = (127 - 15) << 23;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let normal = magnitude.wrapping_add(BIAS);
    let denormal = (f32::from_bits(magnitude | 113 << 23) - f32::from_bits(113 << 23)).to_bits();
    // Infinity and NaN have the largest exponent in both types.
    let special = magnitude | 0x7f80_0000;
    let finite = if magnitude < 1 << 23 { denormal } else { normal };
    let out = if magnitude >= 31 << 23 { special } else { finite };
    f32::from_bits(out | u32::from(bits & 0x8000) << 16)
}

/// Whatever the compiler takes for granted on this kind of processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Isa for Portable {
    const COUNTS_ZEROS: bool = false;

    single!();
    wide!();
}

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
use x86::Ymm;

#[cfg(target_arch = "aarch64")]
impl Isa for pulp::aarch64::Neon {
    const COUNTS_ZEROS: bool = true;

    single!();
    wide!();
}

/// A loop on its way to a level.
pub(crate) trait Job {
    /// What comes of it.
    type Out;

    /// Runs it; `#[inline(always)]`, as everything that it calls, else it is not compiled for the level.
    fn run<I: Isa>(self, isa: I) -> Self::Out;
}

/// A level that this processor has.
#[derive(Clone, Copy)]
pub(crate) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Ymm),
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    #[cfg(target_arch = "aarch64")]
    Neon(pulp::aarch64::Neon),
}

/// Hands a job to `pulp`, which compiles what it inlines for the level.
struct At<I, J>(I, J);

impl<I: Isa, J: Job> pulp::NullaryFnOnce for At<I, J> {
    type Output = J::Out;

    #[inline(always)]
    fn call(self) -> J::Out {
        self.1.run(self.0)
    }
}

impl Level {
    /// Every level that this processor has, the plainest first.
    pub fn all() -> impl Iterator<Item = Self> {
        let levels = [
            Some(Self::Portable),
            #[cfg(target_arch = "x86_64")]
            Ymm::try_new().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            pulp::x86::V4::try_new().map(Self::Avx512),
            #[cfg(target_arch = "aarch64")]
            pulp::aarch64::Neon::try_new().map(Self::Neon),
        ];
        levels.into_iter().flatten()
    }

    /// The one with the widest vectors. What the processor can do is asked once and remembered by `pulp`.
    pub fn best() -> Self {
        Self::all().last().unwrap_or(Self::Portable)
    }

    /// Runs a job compiled for this level.
    #[inline]
    pub fn run<J: Job>(self, job: J) -> J::Out {
        match self {
            Self::Portable => job.run(Portable),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(isa) => isa.vectorize(At(isa, job)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(isa) => isa.vectorize(At(isa, job)),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(isa) => isa.vectorize(At(isa, job)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Widen([u16; 16]);

    impl Job for Widen {
        type Out = [f32; 16];

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> [f32; 16] {
            isa.widen_f16(&self.0)
        }
    }

    #[test]
    fn every_f16_widens_exactly_on_every_level() {
        for level in Level::all() {
            for start in (0..=u16::MAX).step_by(16) {
                let bits: [u16; 16] = std::array::from_fn(|i| start + i as u16);
                for (found, bits) in level.run(Widen(bits)).into_iter().zip(bits) {
                    let expected = isotrace_tensor::f16::from_bits(bits).to_f32();
                    assert!(
                        found == expected || found.is_nan() && expected.is_nan(),
                        "{bits:x}: {found} {expected}"
                    );
                }
            }
        }
    }
}
