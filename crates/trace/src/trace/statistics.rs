//! The statistics of a digest, in one pass over memory.
//!
//! A block is small enough to stay in the nearest cache, where it is read three times: once by plain instructions that
//! count its numbers by sign and exponent, which are the leading bits of a number (by vectors where they can, `tally`),
//! and by vectors for sums and for extremes. Loops of their own are faster than one for all: no registers are spilled,
//! and the compiler sees what each of them reduces. Squares are of distances from the mean of what came before, which is
//! near enough to the block's own mean for hardly a digit to be lost; where it is not, they are summed again. What is
//! rare (NaN, infinities, zeros and subnormal numbers) shows in those and only then is looked for. Pieces are put
//! together in their order, whichever thread computed them.

use half::slice::HalfFloatSliceExt;
use isotrace_tensor::{C64, C128, DType, Tensor, bf16, f16};

use super::sums::{LOWEST, Sums, exponent};
use super::tally::{GROUP, Tally};
use super::team::{Team, gather};

/// Elements that are looked at together; as f64 they are half of a small first-level cache.
const BLOCK: usize = 2048;
/// Elements that one thread takes.
const PIECE: usize = 1 << 18;
/// Elements that stay in a second-level cache while one looks at them after the other; whole blocks, so that the result
/// is the same.
pub const NEAR: usize = 8 * BLOCK;
/// Partial sums, by the position of an element; the result does not depend on how wide vectors are.
const LANES: usize = 16;
/// Elements from which on it is worth emptying the counters of a tally.
const MANY: usize = 4 * BLOCK;
/// Tables in which numbers are counted in turn: neighbours are often of one size, and a single counter would have to
/// wait for itself. Those of f64 are larger, and fewer of them fit into a small cache.
const SINGLE: usize = 8;
const DOUBLE: usize = 4;

/// Who computes statistics.
pub enum By<'a> {
    /// A team, one of which does besides what is done once for all elements.
    Team(&'a dyn Team, &'a (dyn Fn() + Sync)),
    /// Whoever calls, which sees the bytes of the elements in their order, just before they are looked at.
    Caller(&'a mut dyn FnMut(&[u8])),
}

/// Of all the tensor's elements as numbers, and how many they are; of complex elements both parts. Text has none. The
/// result does not depend on who computes it.
pub fn of(tensor: &Tensor, by: By<'_>) -> (Sums, usize) {
    let smallest = smallest_normal(tensor.dtype());
    let (mut sums, count) = match tensor.dtype() {
        DType::F32 => whole(tensor.as_slice::<f32>().unwrap_or_default(), by, &Piece::f32),
        DType::BF16 => whole(tensor.as_slice::<bf16>().unwrap_or_default(), by, &|p, x| {
            // Numbers are not looked at one by one, as the library does to keep every NaN quiet: all count as one.
            p.widened(x, |from: &[bf16], to: &mut [f32]| {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = f32::from_bits(u32::from(from.to_bits()) << 16);
                }
            });
        }),
        DType::F16 => whole(tensor.as_slice::<f16>().unwrap_or_default(), by, &|p, x| {
            p.widened(x, HalfFloatSliceExt::convert_to_f32_slice);
        }),
        DType::F64 => whole(tensor.as_slice::<f64>().unwrap_or_default(), by, &Piece::f64),
        dtype => {
            let bytes = tensor.raw_bytes();
            let mut unseen = |_: &[u8]| {};
            let by = match by {
                By::Caller(see) => {
                    see(bytes);
                    By::Caller(&mut unseen)
                }
                By::Team(team, once) => By::Team(team, once),
            };
            match dtype {
                DType::C64 => {
                    let parts = tensor.as_slice::<C64>().unwrap_or_default();
                    whole(&parts.iter().flat_map(|c| c.0).collect::<Vec<_>>(), by, &Piece::f32)
                }
                DType::C128 => {
                    let parts = tensor.as_slice::<C128>().unwrap_or_default();
                    whole(&parts.iter().flat_map(|c| c.0).collect::<Vec<_>>(), by, &Piece::f64)
                }
                DType::String => (whole::<f64>(&[], by, &Piece::f64).0, tensor.len()),
                _ => tensor.to_f64().map_or_else(|_| Default::default(), |x| whole(&x, by, &Piece::f64)),
            }
        }
    };
    // The smallest normal number is a power of two.
    let normal = if smallest > 0.0 { (exponent(smallest) - LOWEST) as usize } else { 0 };
    sums.subnormal = sums.exponents.iter().map(|side| side[..normal].iter().sum::<u64>()).sum();
    (sums, count)
}

/// The smallest positive normal number of a floating-point type, 0 where there are no others.
fn smallest_normal(dtype: DType) -> f64 {
    match dtype {
        DType::F64 | DType::C128 => f64::MIN_POSITIVE,
        DType::F32 | DType::BF16 | DType::C64 => f64::from(f32::MIN_POSITIVE),
        DType::F16 | DType::F8E5M2 => 2f64.powi(-14),
        DType::F8E4M3FN => 2f64.powi(-6),
        DType::F8E4M3FNUZ => 2f64.powi(-7),
        DType::F8E5M2FNUZ => 2f64.powi(-15),
        DType::F4E2M1 => 1.0,
        _ => 0.0,
    }
}

fn whole<T: bytemuck::NoUninit + Sync>(
    values: &[T],
    by: By<'_>,
    add: &(impl Fn(&mut Piece, &[T]) + Sync),
) -> (Sums, usize) {
    let pieces: Vec<Sums> = match by {
        By::Team(team, once) => {
            let chunks: Vec<&[T]> = values.chunks(PIECE).collect();
            // First, since it cannot be shared.
            let pieces = gather(team, chunks.len() + 1, |task| {
                let Some(at) = task.checked_sub(1) else {
                    once();
                    return None;
                };
                let mut piece = Piece::default();
                add(&mut piece, chunks[at]);
                Some(piece.sums())
            });
            pieces.into_iter().flatten().collect()
        }
        By::Caller(see) => values
            .chunks(PIECE)
            .map(|values| {
                let mut piece = Piece::default();
                for near in values.chunks(NEAR) {
                    see(bytemuck::cast_slice(near));
                    add(&mut piece, near);
                }
                piece.sums()
            })
            .collect(),
    };
    let mut pieces = pieces.into_iter();
    let mut sums = pieces.next().unwrap_or_default();
    for piece in pieces {
        sums.and(&piece);
    }
    (sums, values.len())
}

struct Piece {
    sums: Sums,
    /// Counts by exponents.
    tally: Tally,
    /// Counts by leading bits, of blocks that vectors do not count.
    single: [[u32; 512]; SINGLE],
    /// Of f64, made when there are any.
    double: Vec<[u32; 4096]>,
}

impl Default for Piece {
    fn default() -> Self {
        Self { sums: Sums::default(), tally: Tally::default(), single: [[0; 512]; SINGLE], double: vec![] }
    }
}

/// What vectors find in a block.
struct Found {
    mean: f64,
    /// Sum of the squares of the distances from the mean.
    spread: f64,
    magnitude: f64,
    min: f64,
    max: f64,
    /// The smallest magnitude.
    smallest: f64,
}

/// Share of the squares around the pivot that its distance from the mean may make up.
const PIVOT: f64 = 0.99;

/// A sum over lanes. Apart from the loop before it, whose vectors the compiler would otherwise turn around, element for
/// element, into the order in which they are added up here.
#[inline(never)]
fn total(lanes: &[f64; LANES]) -> f64 {
    lanes.iter().sum()
}

/// Goes through numbers and their lanes. A macro, since what is inlined for certain is no closure.
macro_rules! each {
    ($values:expr, |$l:ident, $x:ident| $body:block) => {
        let (chunks, rest) = $values.as_chunks::<LANES>();
        for chunk in chunks {
            for $l in 0..LANES {
                let $x = chunk[$l];
                $body
            }
        }
        for $l in 0..rest.len() {
            let $x = rest[$l];
            $body
        }
    };
}

macro_rules! passes {
    ($tally:ident, $find:ident, $around:ident, $extremes:ident, $t:ty, $buckets:literal, $shift:literal, $tables:ident) => {
        /// Counts numbers by their leading bits, and says how many of those are zeros or subnormal. Wide vectors would
        /// have to be taken apart again for it, so it is compiled without them.
        #[inline(never)]
        fn $tally(tables: &mut [[u32; $buckets]; $tables], values: &[$t]) -> u32 {
            let none = |tables: &[[u32; $buckets]; $tables]| {
                tables.iter().fold(0u32, |n, t| n.wrapping_add(t[0]).wrapping_add(t[$buckets / 2]))
            };
            let before = none(tables);
            let (chunks, rest) = values.as_chunks::<$tables>();
            for chunk in chunks {
                for (table, x) in tables.iter_mut().zip(chunk) {
                    table[(x.to_bits() >> $shift) as usize] += 1;
                }
            }
            for x in rest {
                tables[0][(x.to_bits() >> $shift) as usize] += 1;
            }
            none(tables).wrapping_sub(before)
        }

        /// Sums of the distances from a pivot, of their squares, and of absolute values.
        #[inline(always)]
        fn $around(values: &[$t], pivot: f64) -> [f64; 3] {
            let (mut sum, mut square, mut magnitude) = ([0f64; LANES], [0f64; LANES], [0f64; LANES]);
            each!(values, |l, x| {
                let x = f64::from(x);
                let apart = x - pivot;
                // Rounded once everywhere; a processor without an instruction for it takes its time.
                square[l] = apart.mul_add(apart, square[l]);
                sum[l] += apart;
                magnitude[l] += x.abs();
            });
            [total(&sum), total(&square), total(&magnitude)]
        }

        /// The smallest, the largest, and the smallest magnitude; anything where some are NaN.
        #[inline(always)]
        fn $extremes(values: &[$t]) -> [$t; 3] {
            let (mut min, mut max, mut small) =
                ([<$t>::INFINITY; LANES], [<$t>::NEG_INFINITY; LANES], [<$t>::INFINITY; LANES]);
            // One instruction each, unlike the methods, which have to look for NaN.
            each!(values, |l, x| {
                min[l] = if x < min[l] { x } else { min[l] };
                max[l] = if x > max[l] { x } else { max[l] };
                small[l] = if x.abs() < small[l] { x.abs() } else { small[l] };
            });
            let least = |of: [$t; LANES]| of.into_iter().fold(<$t>::INFINITY, <$t>::min);
            [least(min), max.into_iter().fold(<$t>::NEG_INFINITY, <$t>::max), least(small)]
        }

        #[inline(always)]
        fn $find(values: &[$t], pivot: f64) -> Found {
            let n = values.len() as f64;
            let [mut sum, mut square, magnitude] = $around(values, pivot);
            let mut pivot = pivot;
            if sum * sum / n > PIVOT * square {
                pivot += sum / n;
                [sum, square, _] = $around(values, pivot);
            }
            let [min, max, smallest] = $extremes(values);
            Found {
                mean: pivot + sum / n,
                spread: if square.is_finite() { (square - sum * sum / n).max(0.0) } else { square },
                magnitude,
                // No zero has a sign here.
                min: f64::from(min) + 0.0,
                max: f64::from(max) + 0.0,
                smallest: f64::from(smallest),
            }
        }
    };
}

passes!(tally_f32, find_f32, around_f32, extremes_f32, f32, 512, 23, SINGLE);
passes!(tally_f64, find_f64, around_f64, extremes_f64, f64, 4096, 52, DOUBLE);

/// Numbers on their way into a piece: `pulp` compiles what this inlines for the vectors that the processor has.
struct Singles<'a>(&'a mut Piece, &'a [f32]);

impl pulp::NullaryFnOnce for Singles<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for block in self.1.chunks(BLOCK) {
            self.0.block_f32(block, self.1.len() >= MANY);
        }
    }
}

/// The same of numbers that an f32 holds exactly, widened a block at a time.
struct Widened<'a, T, W>(&'a mut Piece, &'a [T], W);

impl<T: Copy, W: Fn(&[T], &mut [f32])> pulp::NullaryFnOnce for Widened<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let mut block = [0f32; BLOCK];
        for values in self.1.chunks(BLOCK) {
            let block = &mut block[..values.len()];
            self.2(values, block);
            self.0.block_f32(block, self.1.len() >= MANY);
        }
    }
}

/// The same of f64.
struct Doubles<'a>(&'a mut Piece, &'a [f64]);

impl pulp::NullaryFnOnce for Doubles<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for block in self.1.chunks(BLOCK) {
            self.0.block_f64(block);
        }
    }
}

impl Piece {
    fn f32(&mut self, values: &[f32]) {
        pulp::Arch::new().dispatch(Singles(self, values));
    }

    fn widened<T: Copy>(&mut self, values: &[T], wide: impl Fn(&[T], &mut [f32])) {
        pulp::Arch::new().dispatch(Widened(self, values, wide));
    }

    fn f64(&mut self, values: &[f64]) {
        self.double.resize(DOUBLE, [0; 4096]);
        pulp::Arch::new().dispatch(Doubles(self, values));
    }

    #[inline(always)]
    fn block_f64(&mut self, block: &[f64]) {
        let tables = self.double.first_chunk_mut::<DOUBLE>();
        let small = tables.map_or(0, |tables| tally_f64(tables, block));
        if small > 0 {
            self.small(small, block.iter().map(|x| u32::from(*x == 0.0)).sum(), block.iter().copied());
        }
        let pivot = if self.sums.finite > 0.0 { self.sums.mean } else { block[0] };
        let found = find_f64(block, pivot);
        self.found(block.len(), &found, || block.iter().copied());
    }

    #[inline(always)]
    fn block_f32(&mut self, block: &[f32], many: bool) {
        let pivot = if self.sums.finite > 0.0 { self.sums.mean } else { f64::from(block[0]) };
        let found = find_f32(block, pivot);
        self.found(block.len(), &found, || block.iter().map(|&x| f64::from(x)));
        // Else some are NaN or infinite, of which the smallest and the largest say nothing.
        let finite = found.magnitude.is_finite();
        let whole = if many && finite { block.len() / GROUP * GROUP } else { 0 };
        let largest = (-found.min).max(found.max) as f32;
        let (zeros, rest) = match self.tally.add(&block[..whole], found.smallest as f32, largest) {
            Some(zeros) => (zeros, &block[whole..]),
            None => (0, block),
        };
        self.sums.zeros += u64::from(zeros);
        let small = tally_f32(&mut self.single, rest);
        if small > 0 {
            let zeros = rest.iter().map(|x| u32::from(*x == 0.0)).sum();
            self.small(small, zeros, rest.iter().map(|&x| f64::from(x)));
        }
    }

    /// A block in which so many numbers have no leading bits.
    fn small(&mut self, small: u32, zeros: u32, values: impl Iterator<Item = f64>) {
        self.sums.zeros += u64::from(zeros);
        if small > zeros {
            self.sums.subnormal(values);
        }
    }

    fn found<I: Iterator<Item = f64>>(&mut self, len: usize, found: &Found, values: impl Fn() -> I) {
        // One that is not finite would show here.
        if found.magnitude.is_finite() {
            self.sums.min = self.sums.min.min(found.min);
            self.sums.max = self.sums.max.max(found.max);
            self.sums.moments(len as f64, found.mean, found.spread, found.magnitude);
        } else {
            self.sums.awkward(values);
        }
    }

    /// What the tables counted is put where its exponent belongs.
    fn sums(mut self) -> Sums {
        let count = |tables: &[u32], at: usize| u64::from(tables[at]);
        let counted = self.tally.finish();
        // Leading bits of zero are no exponent, and the highest are NaN and infinities.
        for negative in 0..2 {
            let side = &mut self.sums.exponents[negative];
            for biased in 1..255 {
                let total: u64 = counted[1 - negative][biased]
                    + self.single.iter().map(|t| count(t, negative * 256 + biased)).sum::<u64>();
                side[(biased as i32 - 127 - LOWEST) as usize] += total;
            }
            for biased in 1..2047 {
                let total: u64 = self.double.iter().map(|t| count(t, negative * 2048 + biased)).sum();
                side[(biased as i32 - 1023 - LOWEST) as usize] += total;
            }
        }
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest::Digest;
    use super::super::number::Number;
    use super::super::team::Pool;
    use super::*;

    #[test]
    fn exponents_at_the_borders() {
        for (x, e) in [(1.0, 0), (0.999, -1), (f64::MIN_POSITIVE, -1022), (5e-324, -1074), (f64::MAX, 1023)] {
            assert_eq!((exponent(x), exponent(-x)), (e, e));
        }
        assert_eq!(exponent(f64::MIN_POSITIVE / 2.0), -1023);
    }

    /// What the text of the format says, one element after the other.
    fn plain(values: &[f64], tiny: f64) -> Digest {
        let finite: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
        let count = |f: &dyn Fn(f64) -> bool| values.iter().filter(|x| f(**x)).count() as u64;
        let sizes = |f: &dyn Fn(f64) -> bool| {
            let mut map = std::collections::BTreeMap::new();
            for &x in finite.iter().filter(|x| **x != 0.0 && f(**x)) {
                *map.entry(exponent(x)).or_insert(0) += 1;
            }
            map.into_iter().collect()
        };
        let n = finite.len() as f64;
        let known = |x: f64| (n > 0.0).then_some(Number(x));
        let mean = finite.iter().sum::<f64>() / n;
        Digest {
            count: values.len() as u64,
            nan: count(&f64::is_nan),
            inf: count(&|x| x == f64::INFINITY),
            negative_inf: count(&|x| x == f64::NEG_INFINITY),
            zeros: count(&|x| x == 0.0),
            subnormal: count(&|x| x != 0.0 && x.abs() < tiny),
            min: known(finite.iter().copied().fold(f64::INFINITY, f64::min)),
            max: known(finite.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            mean: known(mean),
            mean_abs: known(finite.iter().map(|x| x.abs()).sum::<f64>() / n),
            std: known((finite.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt()),
            positive: sizes(&|x| x > 0.0),
            negative: sizes(&|x| x < 0.0),
            hash: None,
            sha256: None,
        }
    }

    fn close(a: Option<Number>, b: Option<Number>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => (a.0 - b.0).abs() <= 1e-12 * (a.0.abs() + b.0.abs()),
            (a, b) => a == b,
        }
    }

    #[test]
    fn the_passes_find_what_the_definition_says() {
        // A period that no block's length is a multiple of, with something rare in some blocks alone.
        let number = |i: usize| {
            let x = ((i * 7919 % 10_007) as f64 - 5000.0) * 0.37 * 2f64.powi((i % 41) as i32 - 20);
            match i {
                4_500 | 300_000 => f64::NAN,
                9_000 => f64::INFINITY,
                9_001 => f64::NEG_INFINITY,
                20_000 => 1e-40,
                20_001 => -3e-42,
                30_000 => -0.0,
                40_000 => 2e-6,
                _ => x,
            }
        };
        // So few exponents in each block that vectors count them, larger numbers as one goes, and zeros.
        let counted = |i: usize| match i {
            5_000 => f64::NAN,
            50_000 => 1e-40,
            _ if i % 3000 < 7 => 0.0,
            _ => ((i * 7919 % 10_007) as f64 - 5000.0) * 0.37 * 2f64.powi((i / 40_000) as i32 - 12),
        };
        let mut wrong = vec![];
        let lengths = [0, 1, 15, 17, 2048, 2049, 5000, 60_000, PIECE + 1, 2 * PIECE + 12_345];
        for (len, few) in lengths.into_iter().flat_map(|len| [(len, false), (len, true)]) {
            let values: Vec<f64> = (0..len).map(|i| if few { counted(i) } else { number(i) }).collect();
            for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
                let tensor = Tensor::vector(values.clone()).cast(dtype).unwrap();
                let expected = plain(&tensor.to_f64().unwrap(), smallest_normal(dtype));
                let (sums, count) = of(&tensor, By::Team(&Pool, &|| {}));
                let found = sums.digest(count, String::new());
                let same = close(found.mean, expected.mean)
                    && close(found.mean_abs, expected.mean_abs)
                    && close(found.std, expected.std);
                let rest = Digest {
                    mean: expected.mean,
                    mean_abs: expected.mean_abs,
                    std: expected.std,
                    hash: None,
                    ..found.clone()
                };
                if !same || rest != expected {
                    wrong.push(format!("{dtype} of {len}: {found:?}, expected {expected:?}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
