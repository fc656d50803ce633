//! A tensor in chunks of a fixed size, shared among threads and put together in a fixed order.

use isotrace_tensor::{bf16, f16};

use crate::isa::{Isa, Job, Level};
use crate::kernel::{Pass, Real};
use crate::sums::Sums;

/// Tiles a chunk: a MiB a side, some 100 microseconds.
const TILES: usize = 512;
/// Below this many elements sums of half types are made in f64 throughout: few errors do not cancel each other.
const FEW: usize = 1 << 16;

/// One chunk of two slices.
struct Chunk<'t, T> {
    x: &'t [T],
    y: &'t [T],
    narrow: bool,
    /// The chunk's first place.
    from: usize,
}

macro_rules! chunk {
    ($($t:ty, $lanes:literal;)*) => { $(
        impl Job for Chunk<'_, $t> {
            type Out = Sums;

            #[inline(always)]
            fn run<I: Isa>(self, isa: I) -> Sums {
                let mut pass = Pass::<$t, $lanes>::new(self.narrow);
                pass.feed(isa, self.x, self.y, true, |i| self.from + i);
                pass.finish()
            }
        }

        impl Slices for $t {
            const CHUNK: usize = TILES * Pass::<$t, $lanes>::TILE;

            fn wide(self) -> f64 {
                Real::<$lanes>::wide(self)
            }

            fn chunk(level: Level, x: &[Self], y: &[Self], narrow: bool, from: usize) -> Sums {
                level.run(Chunk { x, y, narrow, from })
            }
        }
    )* };
}

chunk! {
    f64, 8;
    f32, 16;
    f16, 32;
    bf16, 32;
}

/// A float type with loops of its own, whatever the width of its vectors.
pub(crate) trait Slices: Copy + Sync {
    /// Elements a chunk.
    const CHUNK: usize;

    /// As f64, exactly.
    fn wide(self) -> f64;
    /// One chunk, which starts at place `from`.
    fn chunk(level: Level, x: &[Self], y: &[Self], narrow: bool, from: usize) -> Sums;
}

/// Over two slices of one length.
pub(crate) fn slices<T: Slices>(level: Level, x: &[T], y: &[T]) -> Sums {
    let narrow = x.len() >= FEW;
    tree(0, x.len().div_ceil(T::CHUNK), &|k| {
        let range = k * T::CHUNK..((k + 1) * T::CHUNK).min(x.len());
        T::chunk(level, &x[range.clone()], &y[range.clone()], narrow, range.start)
    })
}

/// The pieces `from..to`, put together as a balanced tree: the same for any number of threads.
pub(crate) fn tree(from: usize, to: usize, piece: &(impl Fn(usize) -> Sums + Sync)) -> Sums {
    match to - from {
        0 => Sums::default(),
        1 => piece(from),
        n => {
            let middle = from + n / 2;
            let (one, other) = rayon::join(|| tree(from, middle, piece), || tree(middle, to, piece));
            one.and(&other)
        }
    }
}
