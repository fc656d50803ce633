//! Which vector instructions the loops are compiled for.
//!
//! Every loop of this crate is written once, over arrays of fixed length, and compiled once for each level below;
//! the best one that the processor has is chosen when the program runs ([`Level::best`]). The loops contain no
//! operation whose result depends on the level: multiply-adds are written out as fused (processors without that
//! instruction, x86 before 2013, compute it in software), and conversions are exact. The tests hold every level
//! against the others, bit for bit.

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

    /// Asks for a cache line that will be read soon if it is there at all.
    #[inline(always)]
    fn prefetch(self, line: *const i8) {
        let _ = line;
    }
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
}

/// The processor sees that memory is read in order, but does not run far ahead of what it has been asked for, and a
/// tile is computed on for longer than the next takes to arrive. An address that does not exist is passed over.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch(sse: pulp::core_arch::x86::Sse, line: *const i8) {
    /// Into every level of the cache.
    const T0: i32 = 3;
    sse._mm_prefetch::<T0>(line);
}

#[cfg(target_arch = "x86_64")]
impl Isa for pulp::x86::V3 {
    const COUNTS_ZEROS: bool = false;

    #[inline(always)]
    fn prefetch(self, line: *const i8) {
        prefetch(self.sse, line);
    }
}

#[cfg(target_arch = "x86_64")]
impl Isa for pulp::x86::V4 {
    const COUNTS_ZEROS: bool = true;

    #[inline(always)]
    fn widen_f16(self, bits: &[u16; 16]) -> [f32; 16] {
        pulp::cast(self.avx512f._mm512_cvtph_ps(pulp::cast(*bits)))
    }

    /// Two instructions, each of which takes any function of three bits.
    #[inline(always)]
    fn add_bits(self, a: [u64; 8], b: [u64; 8], c: [u64; 8]) -> [[u64; 8]; 2] {
        const ODD: i32 = 0b1001_0110;
        const TWO: i32 = 0b1110_1000;
        let [a, b, c] = [a, b, c].map(pulp::cast);
        let f = self.avx512f;
        [
            pulp::cast(f._mm512_ternarylogic_epi64::<ODD>(a, b, c)),
            pulp::cast(f._mm512_ternarylogic_epi64::<TWO>(a, b, c)),
        ]
    }

    #[inline(always)]
    fn prefetch(self, line: *const i8) {
        prefetch(self.sse, line);
    }
}

#[cfg(target_arch = "aarch64")]
impl Isa for pulp::aarch64::Neon {
    const COUNTS_ZEROS: bool = true;
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
    Avx2(pulp::x86::V3),
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
            pulp::x86::V3::try_new().map(Self::Avx2),
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
