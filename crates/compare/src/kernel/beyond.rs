//! How many pairs of a tile of half-precision numbers, as f32, are beyond what is allowed.

use crate::native::{Around, Limits, Rounding};

use super::moments::NARROW;

/// Pairs that are decided at a time.
const BLOCK: usize = 2 * NARROW;

/// The number of pairs. `R` rounds to the type; `close` pairs are of one sign and within a factor of two. As many numbers
/// as make whole blocks.
#[inline(always)]
pub(crate) fn halves_beyond<R: Rounding<f32> + Around>(
    limits: Limits<f32>,
    close: bool,
    x: &[f32],
    y: &[f32],
) -> u32 {
    let [low, high] = R::around(limits, close);
    // Counted in floats, which are added under a mask where integers are not.
    let zero = [0f32; NARROW];
    let mut count = zero;
    for (x, y) in x.as_chunks::<BLOCK>().0.iter().zip(y.as_chunks::<BLOCK>().0) {
        let mut apart = [0f32; BLOCK];
        for l in 0..BLOCK {
            apart[l] = (x[l] - y[l]).abs();
        }
        if R::BAND {
            let (mut likely, mut surely) = (zero, zero);
            for (d, y) in apart.chunks_exact(NARROW).zip(y.chunks_exact(NARROW)) {
                for l in 0..NARROW {
                    likely[l] = if low.below(d[l], y[l]) { likely[l] + 1.0 } else { likely[l] };
                    surely[l] = if high.below(d[l], y[l]) { surely[l] + 1.0 } else { surely[l] };
                }
            }
            let mut doubt = 0;
            for (likely, surely) in likely.iter().zip(&surely) {
                doubt |= likely.to_bits() ^ surely.to_bits();
            }
            if doubt == 0 {
                for (count, surely) in count.iter_mut().zip(surely) {
                    *count += surely;
                }
                continue;
            }
        }
        for (d, y) in apart.chunks_exact(NARROW).zip(y.chunks_exact(NARROW)) {
            for l in 0..NARROW {
                // Differences of close pairs are numbers of the type as they are (Sterbenz).
                let d = if close { d[l] } else { R::round(d[l]) };
                let limit = R::round(limits.atol + R::round(limits.rtol * y[l].abs()));
                count[l] = if d > limit { count[l] + 1.0 } else { count[l] };
            }
        }
    }
    count.into_iter().sum::<f32>() as u32
}
