//! The first look at a tile together with the sums of a close one, in a single loop.
//!
//! Whether a tile is close is known before it is seen where the tile before it was: nearly always. Then every pair is
//! loaded once, and memory is asked for evenly, not in bursts between which nothing is under way. Each sum has one vector
//! of 32 bytes: with two of them everything would no longer fit into sixteen registers. Half types gain nothing by it:
//! what their first look finds saves more of the sums than a second loop costs.

use crate::isa::Isa;

use super::moments::{Close, LANES, RunningWide, below, narrow_below};
use super::word::Word;
use super::{Ahead, Scan};

/// Lanes of f32.
const SINGLE: usize = 2 * LANES;

/// A tile of f32, whose differences are exact where pairs are close (Sterbenz).
#[inline(always)]
pub(crate) fn look_f32<I: Isa>(
    isa: I,
    [x, y]: [&[f32]; 2],
    rel: f64,
    distances: &mut [u32],
    mut ahead: impl Ahead,
) -> Scan<u32> {
    let slope = -narrow_below(rel);
    let mut sums = RunningWide::new(isa);
    let (mut largest, mut farthest) = ([0i32; SINGLE], [0u32; SINGLE]);
    let (mut apart, mut over) = ([0i32; SINGLE], [0i32; SINGLE]);
    let blocks = x.as_chunks::<SINGLE>().0.iter().zip(y.as_chunks::<SINGLE>().0);
    for (block, ((x, y), out)) in blocks.zip(distances.as_chunks_mut::<SINGLE>().0).enumerate() {
        ahead(block);
        let (x, y, mut steps) = (*x, *y, [0; SINGLE]);
        for l in 0..SINGLE {
            steps[l] = x[l].to_bits().near(y[l].to_bits());
            farthest[l] = steps[l].max(farthest[l]);
        }
        *out = steps;
        for l in 0..SINGLE {
            let size = x[l].abs();
            largest[l] = (size.to_bits() as i32).max(largest[l]);
            let d = (x[l] - y[l]).abs();
            apart[l] = (d.to_bits() as i32).max(apart[l]);
            over[l] = (slope.mul_add(size, d).to_bits() as i32).max(over[l]);
        }
        // Widening takes longer than to subtract once more.
        for (x, y) in isa.widen_f32(x).into_iter().zip(isa.widen_f32(y)) {
            sums.add::<Close>(isa, x, y, isa.abs_f64(isa.sub_f64(x, y)));
        }
    }
    let apart = isa.most_i32(apart);
    // By their bits alone words of opposite signs are near each other only where one of them is no finite number, from
    // which nothing is a finite distance apart.
    let opposite = apart >= f32::INFINITY.to_bits() as i32;
    Scan {
        largest: isa.most_i32(largest) as u32,
        smallest: 0,
        farthest: isa.most_u32(farthest),
        opposite,
        found: Some((f64::from(f32::from_bits(apart as u32)), isa.most_i32(over) > 0)),
        sums: Some(sums.moments(isa)),
    }
}

/// A tile of f64.
#[inline(always)]
pub(crate) fn look_f64<I: Isa>(
    isa: I,
    [x, y]: [&[f64]; 2],
    rel: f64,
    distances: &mut [u64],
    mut ahead: impl Ahead,
) -> Scan<u64> {
    let slope = isa.splat(-below(rel));
    let mut sums = RunningWide::new(isa);
    let zero = isa.splat(0.0);
    let (mut largest, mut apart, mut over) = (zero, zero, zero);
    let (mut farthest, mut bits) = ([0i64; LANES], [0u64; LANES]);
    let blocks = x.as_chunks::<LANES>().0.iter().zip(y.as_chunks::<LANES>().0);
    for (block, ((x, y), out)) in blocks.zip(distances.as_chunks_mut::<LANES>().0).enumerate() {
        ahead(block);
        let mut steps = [0; LANES];
        for l in 0..LANES {
            steps[l] = x[l].to_bits().near(y[l].to_bits());
            farthest[l] = (steps[l] as i64).max(farthest[l]);
            bits[l] |= steps[l];
        }
        *out = steps;
        let (x, y) = (isa.load_f64(*x), isa.load_f64(*y));
        let (size, d) = (isa.abs_f64(x), isa.abs_f64(isa.sub_f64(x, y)));
        sums.add::<Close>(isa, x, y, d);
        largest = isa.larger_f64(largest, size);
        apart = isa.larger_f64(apart, d);
        over = isa.larger_f64(over, isa.mul_add_f64(slope, size, d));
    }
    let (largest, apart, over) = (isa.most_f64(largest), isa.most_f64(apart), isa.most_f64(over));
    let sums = sums.moments(isa);
    // Words of opposite signs are near each other only where one of them is no finite number, which shows in the sum of
    // squares, or where they are the two zeros, whose distance is that of the sign.
    let opposite = !sums.finite() || bits.into_iter().fold(0, |all, bits| all | bits) > u64::MAGNITUDE;
    Scan {
        largest: largest.to_bits(),
        smallest: 0,
        farthest: farthest.into_iter().fold(0, i64::max) as u64,
        opposite,
        found: Some((apart, over > 0.0)),
        sums: Some(sums),
    }
}
