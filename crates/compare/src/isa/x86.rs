//! Vector instructions of x86.

use super::Isa;

/// The processor sees that memory is read in order, but does not run far ahead of what it has been asked for, and a
/// tile is computed on for longer than the next takes to arrive. An address that does not exist is passed over.
#[inline(always)]
fn prefetch(sse: pulp::core_arch::x86::Sse, line: *const i8) {
    /// Into every level of the cache.
    const T0: i32 = 3;
    sse._mm_prefetch::<T0>(line);
}

/// Into the second level alone.
#[inline(always)]
fn prefetch_far(sse: pulp::core_arch::x86::Sse, line: *const i8) {
    /// Into every level but the first.
    const T1: i32 = 2;
    sse._mm_prefetch::<T1>(line);
}

/// Two vectors of 64 bytes as one, with instructions for vectors of 32.
macro_rules! halve_avx2 {
    ($name:ident, $word:ty, $lanes:literal, $half:ty, $halves:literal, $set:ident . $pack:ident $(::<$how:literal>)?) => {
        #[inline(always)]
        fn $name(self, a: [$word; $lanes], b: [$word; $lanes]) -> [$half; $halves] {
            let (a, b): ([std::arch::x86_64::__m256i; 2], [std::arch::x86_64::__m256i; 2]) =
                (pulp::cast(a), pulp::cast(b));
            pulp::cast([
                self.$set.$pack$(::<$how>)?(pulp::cast(a[0]), pulp::cast(b[0])),
                self.$set.$pack$(::<$how>)?(pulp::cast(a[1]), pulp::cast(b[1])),
            ])
        }
    };
}

/// A square transposed by vectors of 32 bytes: word c on of run r in the lower half and of run r + n in the upper, n runs
/// each, so that no round moves anything between the halves.
macro_rules! turn_avx2 {
    ($name:ident, $word:ty, $side:literal, $lanes:literal, $low:ident, $high:ident, [$($round:literal)+]) => {
        #[inline(always)]
        fn $name(self, runs: &[[$word; $side]; $side], out: &mut [[$word; $side]; $side]) {
            for r in (0..$side).step_by(2 * $lanes) {
                for c in (0..$side).step_by($lanes) {
                    let mut rows = [pulp::cast::<[u64; 4], std::arch::x86_64::__m256i>([0; 4]); $lanes];
                    for (k, row) in rows.iter_mut().enumerate() {
                        let (mut lower, mut upper) = ([0; $lanes], [0; $lanes]);
                        lower.copy_from_slice(&runs[r + k][c..c + $lanes]);
                        upper.copy_from_slice(&runs[r + k + $lanes][c..c + $lanes]);
                        *row = pulp::cast([lower, upper]);
                    }
                    $(
                        let _ = $round;
                        let mut next = rows;
                        for k in 0..$lanes / 2 {
                            next[2 * k] = self.avx2.$low(rows[k], rows[k + $lanes / 2]);
                            next[2 * k + 1] = self.avx2.$high(rows[k], rows[k + $lanes / 2]);
                        }
                        rows = next;
                    )+
                    for (k, row) in rows.into_iter().enumerate() {
                        let row: [$word; 2 * $lanes] = pulp::cast(row);
                        out[c + k][r..r + 2 * $lanes].copy_from_slice(&row);
                    }
                }
            }
        }
    };
}

/// Adds one to the words of two vectors of 32 bytes where a comparison, which makes -1 of them, holds.
macro_rules! reaching_avx2 {
    ($name:ident, $word:ty, $lanes:literal, $set:ident, $greater:ident, $subtract:ident) => {
        #[inline(always)]
        fn $name(self, counts: [$word; $lanes], words: [$word; $lanes], least: $word) -> [$word; $lanes] {
            let (counts, words): ([std::arch::x86_64::__m256i; 2], [std::arch::x86_64::__m256i; 2]) =
                (pulp::cast(counts), pulp::cast(words));
            let below = self.avx.$set((least - 1) as _);
            let [c, d] = counts;
            let [v, w] = words;
            pulp::cast([
                self.avx2.$subtract(c, self.avx2.$greater(v, below)),
                self.avx2.$subtract(d, self.avx2.$greater(w, below)),
            ])
        }
    };
}

/// The largest of a vector of 32 bytes. It is taken apart by an instruction for all of it: were it an array of two halves,
/// the loop that made it would be compiled for halves.
macro_rules! most_avx2 {
    ($name:ident, $word:ty, $max:ident) => {
        #[inline(always)]
        fn $name(self, words: [$word; 8]) -> $word {
            /// The other half of the words, and the other word of each half.
            const HALVES: i32 = 0b01_00_11_10;
            const WORDS: i32 = 0b10_11_00_01;
            let words = pulp::cast(words);
            let low = self.avx2._mm256_extracti128_si256::<0>(words);
            let most = self.sse4_1.$max(low, self.avx2._mm256_extracti128_si256::<1>(words));
            let most = self.sse4_1.$max(most, self.sse2._mm_shuffle_epi32::<HALVES>(most));
            let most = self.sse4_1.$max(most, self.sse2._mm_shuffle_epi32::<WORDS>(most));
            let most: [$word; 4] = pulp::cast(most);
            most[0]
        }
    };
}

/// What is done to vectors of 32 bytes, on every processor that has them.
macro_rules! lanes_avx2 {
    () => {
        type Wide = std::arch::x86_64::__m256d;

        #[inline(always)]
        fn splat(self, x: f64) -> Self::Wide {
            self.avx._mm256_set1_pd(x)
        }

        #[inline(always)]
        fn load_f64(self, numbers: [f64; 4]) -> Self::Wide {
            pulp::cast(numbers)
        }

        #[inline(always)]
        fn lanes_f64(self, x: Self::Wide) -> [f64; 4] {
            pulp::cast(x)
        }

        #[inline(always)]
        fn add_f64(self, a: Self::Wide, b: Self::Wide) -> Self::Wide {
            self.avx._mm256_add_pd(a, b)
        }

        #[inline(always)]
        fn sub_f64(self, a: Self::Wide, b: Self::Wide) -> Self::Wide {
            self.avx._mm256_sub_pd(a, b)
        }

        #[inline(always)]
        fn mul_add_f64(self, a: Self::Wide, b: Self::Wide, c: Self::Wide) -> Self::Wide {
            self.fma._mm256_fmadd_pd(a, b, c)
        }

        #[inline(always)]
        fn abs_f64(self, x: Self::Wide) -> Self::Wide {
            self.avx._mm256_andnot_pd(self.avx._mm256_set1_pd(-0.0), x)
        }

        #[inline(always)]
        fn larger_f64(self, a: Self::Wide, b: Self::Wide) -> Self::Wide {
            // Of two of which one is NaN, the second is kept, as of two that are equal.
            self.avx._mm256_max_pd(b, a)
        }

        #[inline(always)]
        fn most_f64(self, x: Self::Wide) -> f64 {
            let low = self.avx._mm256_extractf128_pd::<0>(x);
            let high = self.avx._mm256_extractf128_pd::<1>(x);
            let [a, b]: [f64; 2] = pulp::cast(self.sse2._mm_max_pd(low, high));
            a.max(b)
        }

        #[inline(always)]
        fn widen_f32(self, numbers: [f32; 8]) -> [Self::Wide; 2] {
            let numbers = pulp::cast(numbers);
            let low = self.avx._mm256_extractf128_ps::<0>(numbers);
            let high = self.avx._mm256_extractf128_ps::<1>(numbers);
            [self.avx._mm256_cvtps_pd(low), self.avx._mm256_cvtps_pd(high)]
        }

        most_avx2!(most_i32, i32, _mm_max_epi32);
        most_avx2!(most_u32, u32, _mm_max_epu32);
    };
}

// What `pulp` calls V3, and conversions from f16, which every processor with AVX2 has.
pulp::simd_type!({
    /// Vectors of 32 bytes.
    pub(crate) struct Ymm {
        pub sse: f!("sse"),
        pub sse2: f!("sse2"),
        pub fxsr: f!("fxsr"),
        pub sse3: f!("sse3"),
        pub ssse3: f!("ssse3"),
        pub sse4_1: f!("sse4.1"),
        pub sse4_2: f!("sse4.2"),
        pub popcnt: f!("popcnt"),
        pub avx: f!("avx"),
        pub avx2: f!("avx2"),
        pub bmi1: f!("bmi1"),
        pub bmi2: f!("bmi2"),
        pub fma: f!("fma"),
        pub lzcnt: f!("lzcnt"),
        pub f16c: f!("f16c"),
    }
});

impl Ymm {
    /// Eight f16 as f32.
    #[expect(
        unsafe_code,
        reason = "`pulp` has no call for this instruction; `f16c` is the proof that it exists"
    )]
    #[expect(clippy::unused_self, reason = "that proof")]
    #[inline(always)]
    fn eight_f16(self, bits: std::arch::x86_64::__m128i) -> std::arch::x86_64::__m256 {
        // SAFETY: a value of this type exists only where the processor was found to have F16C.
        unsafe { std::arch::x86_64::_mm256_cvtph_ps(bits) }
    }
}

impl Isa for Ymm {
    const COUNTS_ZEROS: bool = false;

    #[inline(always)]
    fn widen_f16(self, bits: &[u16; 16]) -> [f32; 16] {
        let halves: [std::arch::x86_64::__m128i; 2] = pulp::cast(*bits);
        pulp::cast([self.eight_f16(halves[0]), self.eight_f16(halves[1])])
    }

    type Single = std::arch::x86_64::__m256;
    const UNITS: usize = 2;

    #[inline(always)]
    fn splat_f32(self, x: f32) -> Self::Single {
        self.avx._mm256_set1_ps(x)
    }

    #[inline(always)]
    fn store_f32(self, x: Self::Single, out: &mut [f32]) {
        let x: [f32; 8] = pulp::cast(x);
        out[..8].copy_from_slice(&x);
    }

    #[inline(always)]
    fn add_f32(self, a: Self::Single, b: Self::Single) -> Self::Single {
        self.avx._mm256_add_ps(a, b)
    }

    #[inline(always)]
    fn sub_f32(self, a: Self::Single, b: Self::Single) -> Self::Single {
        self.avx._mm256_sub_ps(a, b)
    }

    #[inline(always)]
    fn mul_add_f32(self, a: Self::Single, b: Self::Single, c: Self::Single) -> Self::Single {
        self.fma._mm256_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn abs_f32(self, x: Self::Single) -> Self::Single {
        self.avx._mm256_andnot_ps(self.avx._mm256_set1_ps(-0.0), x)
    }

    #[inline(always)]
    fn larger_f32(self, a: Self::Single, b: Self::Single) -> Self::Single {
        // Of two of which one is NaN, the second is kept, as of two that are equal.
        self.avx._mm256_max_ps(b, a)
    }

    #[inline(always)]
    fn above(self, x: Self::Single, least: f32) -> bool {
        const GREATER: i32 = 0x1e;
        let above = self.avx._mm256_cmp_ps::<GREATER>(x, self.avx._mm256_set1_ps(least));
        self.avx._mm256_movemask_ps(above) != 0
    }

    #[inline(always)]
    fn single_f16(self, bits: &[u16; 32], half: usize, unit: usize) -> Self::Single {
        let bits: [u16; 8] = bits.as_chunks().0[2 * half + unit];
        self.eight_f16(pulp::cast(bits))
    }

    #[inline(always)]
    fn single_bf16(self, bits: &[u16; 32], half: usize, unit: usize) -> Self::Single {
        let bits: [u16; 16] = bits.as_chunks().0[unit];
        let words = pulp::cast(bits);
        pulp::cast(if half == 0 {
            self.avx2._mm256_slli_epi32::<16>(words)
        } else {
            self.avx2._mm256_and_si256(words, self.avx._mm256_set1_epi32(-0x1_0000))
        })
    }

    lanes_avx2!();

    #[inline(always)]
    fn prefetch(self, line: *const i8) {
        prefetch(self.sse, line);
    }

    #[inline(always)]
    fn prefetch_far(self, line: *const i8) {
        prefetch_far(self.sse, line);
    }

    // The lower half of each word of two; signed numbers are cut off where these are too large.
    halve_avx2!(halve_u64, u64, 8, u32, 16, avx._mm256_shuffle_ps::<0x88>);
    halve_avx2!(halve_u32, u32, 16, u16, 32, avx2._mm256_packus_epi32);
    halve_avx2!(halve_u16, u16, 32, u8, 64, avx2._mm256_packus_epi16);

    reaching_avx2!(add_reaching_u8, u8, 64, _mm256_set1_epi8, _mm256_cmpgt_epi8, _mm256_sub_epi8);
    reaching_avx2!(add_reaching_u16, u16, 32, _mm256_set1_epi16, _mm256_cmpgt_epi16, _mm256_sub_epi16);

    turn_avx2!(turn_u64, u64, 8, 2, _mm256_unpacklo_epi64, _mm256_unpackhi_epi64, [0]);
    turn_avx2!(turn_u32, u32, 16, 4, _mm256_unpacklo_epi32, _mm256_unpackhi_epi32, [0 1]);
    turn_avx2!(turn_u16, u16, 32, 8, _mm256_unpacklo_epi16, _mm256_unpackhi_epi16, [0 1 2]);
}

/// Which words of two vectors of `L` follow each other in half `half` of both in turn.
const fn in_turn<const L: usize>(half: usize) -> [usize; L] {
    let mut index = [0; L];
    let mut l = 0;
    while l < L {
        index[l] = half * (L / 2) + l / 2 + l % 2 * L;
        l += 1;
    }
    index
}

/// Two vectors in turn, with the instruction that takes any words of two vectors.
macro_rules! zip_avx512 {
    ($name:ident, $word:ty, $lanes:literal, $set:ident . $permute:ident) => {
        #[inline(always)]
        fn $name(self, a: [$word; $lanes], b: [$word; $lanes]) -> [[$word; $lanes]; 2] {
            const LOW: [$word; $lanes] = narrowed!($word, $lanes, in_turn::<$lanes>(0));
            const HIGH: [$word; $lanes] = narrowed!($word, $lanes, in_turn::<$lanes>(1));
            let (a, b) = (pulp::cast(a), pulp::cast(b));
            [
                pulp::cast(self.$set.$permute(a, pulp::cast(LOW), b)),
                pulp::cast(self.$set.$permute(a, pulp::cast(HIGH), b)),
            ]
        }
    };
}

/// Two vectors as one of words half as wide, with one instruction.
macro_rules! halve_avx512 {
    ($name:ident, $word:ty, $lanes:literal, $half:ty, $halves:literal, $set:ident . $pack:ident $(::<$how:literal>)?) => {
        #[inline(always)]
        fn $name(self, a: [$word; $lanes], b: [$word; $lanes]) -> [$half; $halves] {
            pulp::cast(self.$set.$pack$(::<$how>)?(pulp::cast(a), pulp::cast(b)))
        }
    };
}

/// The same numbers in a narrower type.
macro_rules! narrowed {
    ($word:ty, $lanes:literal, $index:expr) => {{
        let index = $index;
        let mut out: [$word; $lanes] = [0; $lanes];
        let mut l = 0;
        while l < $lanes {
            out[l] = index[l] as $word;
            l += 1;
        }
        out
    }};
}

impl Isa for pulp::x86::V4 {
    const COUNTS_ZEROS: bool = true;

    #[inline(always)]
    fn widen_f16(self, bits: &[u16; 16]) -> [f32; 16] {
        pulp::cast(self.avx512f._mm512_cvtph_ps(pulp::cast(*bits)))
    }

    type Single = std::arch::x86_64::__m512;
    const UNITS: usize = 1;

    #[inline(always)]
    fn splat_f32(self, x: f32) -> Self::Single {
        self.avx512f._mm512_set1_ps(x)
    }

    #[inline(always)]
    fn store_f32(self, x: Self::Single, out: &mut [f32]) {
        let x: [f32; 16] = pulp::cast(x);
        out[..16].copy_from_slice(&x);
    }

    #[inline(always)]
    fn add_f32(self, a: Self::Single, b: Self::Single) -> Self::Single {
        self.avx512f._mm512_add_ps(a, b)
    }

    #[inline(always)]
    fn sub_f32(self, a: Self::Single, b: Self::Single) -> Self::Single {
        self.avx512f._mm512_sub_ps(a, b)
    }

    #[inline(always)]
    fn mul_add_f32(self, a: Self::Single, b: Self::Single, c: Self::Single) -> Self::Single {
        self.avx512f._mm512_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn abs_f32(self, x: Self::Single) -> Self::Single {
        self.avx512f._mm512_abs_ps(x)
    }

    #[inline(always)]
    fn larger_f32(self, a: Self::Single, b: Self::Single) -> Self::Single {
        self.avx512f._mm512_max_ps(b, a)
    }

    #[inline(always)]
    fn above(self, x: Self::Single, least: f32) -> bool {
        const GREATER: i32 = 0x1e;
        self.avx512f._mm512_cmp_ps_mask::<GREATER>(x, self.avx512f._mm512_set1_ps(least)) != 0
    }

    #[inline(always)]
    fn single_f16(self, bits: &[u16; 32], half: usize, _: usize) -> Self::Single {
        let bits: [u16; 16] = bits.as_chunks().0[half];
        self.avx512f._mm512_cvtph_ps(pulp::cast(bits))
    }

    #[inline(always)]
    fn single_bf16(self, bits: &[u16; 32], half: usize, _: usize) -> Self::Single {
        let words = pulp::cast(*bits);
        pulp::cast(if half == 0 {
            self.avx512f._mm512_slli_epi32::<16>(words)
        } else {
            self.avx512f._mm512_and_si512(words, self.avx512f._mm512_set1_epi32(-0x1_0000))
        })
    }

    lanes_avx2!();

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

    #[inline(always)]
    fn prefetch_far(self, line: *const i8) {
        prefetch_far(self.sse, line);
    }

    halve_avx512!(halve_u64, u64, 8, u32, 16, avx512f._mm512_shuffle_ps::<0x88>);
    halve_avx512!(halve_u32, u32, 16, u16, 32, avx512bw._mm512_packus_epi32);
    halve_avx512!(halve_u16, u16, 32, u8, 64, avx512bw._mm512_packus_epi16);

    zip_avx512!(zip_u64, u64, 8, avx512f._mm512_permutex2var_epi64);
    zip_avx512!(zip_u32, u32, 16, avx512f._mm512_permutex2var_epi32);
    zip_avx512!(zip_u16, u16, 32, avx512bw._mm512_permutex2var_epi16);
}
