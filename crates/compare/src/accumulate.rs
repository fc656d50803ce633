//! A tensor in chunks of a fixed size, shared among threads and put together in a fixed order.

use std::sync::atomic::{AtomicU64, Ordering};

use isotrace_tensor::{View, bf16, f16};

use crate::isa::{Isa, Job, Level};
use crate::judge::FirstLook;
use crate::kernel::{Order, Pass, Real, ahead};
use crate::staged::{Stage, Staging, Turned};
use crate::strided::{Panel, Plan, panel_of};
use crate::sums::Sums;

/// Tiles a chunk: a MiB a side, some 100 microseconds.
const TILES: usize = 1024;
/// Below this many elements sums of half types are made in f64 throughout: few errors do not cancel each other.
const FEW: usize = 1 << 16;

/// One chunk of two slices.
pub(crate) struct Chunk<'t, T> {
    x: &'t [T],
    y: &'t [T],
    narrow: bool,
    /// The chunk's first place.
    from: usize,
    /// A tolerance to judge by.
    look: Option<&'t FirstLook>,
}

macro_rules! chunk {
    ($($t:ty, $lanes:literal;)*) => { $(
        impl Job for Chunk<'_, $t> {
            type Out = Sums;

            #[inline(always)]
            fn run<I: Isa>(self, isa: I) -> Sums {
                let mut pass = Pass::<$t, $lanes>::judging(self.narrow, self.look);
                pass.feed::<I, true>(
                    isa,
                    self.x,
                    self.y,
                    Order::Grows,
                    |i| self.from + i,
                    #[inline(always)]
                    |k| ahead(isa, self.x, self.y, k),
                );
                pass.finish()
            }
        }

        impl Job for Panels<'_, '_, $t> {
            type Out = Sums;

            #[inline(always)]
            fn run<I: Isa>(self, isa: I) -> Sums {
                let mut pass = Pass::<$t, $lanes>::new(self.narrow);
                let (plan, squares) = (self.plan, self.plan.squares());
                let sides = [self.x.data(), self.y.data()];
                let mut panels = plan.panels(self.number).peekable();
                // Either a panel is copied when its turn has come, while lines of the next one are asked for,
                let room = if squares { 0 } else { panel_of::<$t>() };
                let (mut x, mut y) = (vec![<$t>::default(); room], vec![<$t>::default(); room]);
                // or it is while the one before is compared.
                let (mut now, mut next) = <(Stage<$t, $lanes>, Stage<$t, $lanes>)>::default();
                let mut turned = Turned::new();
                let from = |panel: &Panel| [0, 1].map(|side| &sides[side][panel.start[side]..]);
                let mut other = None;
                if let Some(panel) = panels.peek()
                    && let Some(layout) = plan.layout::<$lanes>(panel, &mut other)
                {
                    Staging::new(isa, layout, from(panel), &mut now).finish();
                }
                while let Some(panel) = panels.next() {
                    let mut staging = None;
                    if let Some(coming) = panels.peek()
                        && let Some(layout) = plan.layout::<$lanes>(coming, &mut other)
                    {
                        staging = Some(Staging::new(isa, layout, from(coming), &mut next));
                    }
                    for part in 0..if squares { now.parts() } else { 1 } {
                        if let Some(staging) = &staging {
                            staging.begin();
                        }
                        let mut coming = plan.coming(isa, sides, panels.peek());
                        let [x, y] = if squares {
                            now.part(isa, part, &mut turned)
                        } else {
                            [
                                plan.gather::<I, $t, $lanes>(0, sides[0], &panel, &mut x, &mut coming),
                                plan.gather::<I, $t, $lanes>(1, sides[1], &panel, &mut y, &mut coming),
                            ]
                        };
                        let columns = panel.size[1];
                        pass.feed::<I, false>(
                            isa,
                            x,
                            y,
                            Order::Any,
                            |k| {
                                let within = if squares { now.place(part, k) } else { [k / columns, k % columns] };
                                plan.place(&panel, within)
                            },
                            #[inline(always)]
                            |k| {
                                // Line by line, since half lines are looked at in order alone.
                                if let Some(staging) = &staging {
                                    staging.ask(k / 2);
                                } else {
                                    coming.ask(k / 2);
                                }
                            },
                        );
                        if let Some(staging) = &mut staging {
                            staging.copy();
                        }
                    }
                    if let Some(staging) = staging {
                        staging.finish();
                    }
                    std::mem::swap(&mut now, &mut next);
                }
                pass.finish()
            }
        }

        impl Slices for $t {
            const CHUNK: usize = TILES * Pass::<$t, $lanes>::TILE;

            fn wide(self) -> f64 {
                Real::<$lanes>::wide(self)
            }

            fn chunk(level: Level, chunk: Chunk<'_, Self>) -> Sums {
                level.run(chunk)
            }

            fn panels(level: Level, panels: Panels<'_, '_, Self>) -> Sums {
                level.run(panels)
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
pub(crate) trait Slices: Copy + Sync + 'static {
    /// Elements a chunk.
    const CHUNK: usize;

    /// As f64, exactly.
    fn wide(self) -> f64;
    /// A piece of two views.
    fn panels(level: Level, panels: Panels<'_, '_, Self>) -> Sums;
    /// One chunk.
    fn chunk(level: Level, chunk: Chunk<'_, Self>) -> Sums;
}

/// A piece of two views.
pub(crate) struct Panels<'p, 't, T> {
    x: &'p View<'t, T>,
    y: &'p View<'t, T>,
    plan: &'p Plan,
    /// Which piece.
    number: usize,
    narrow: bool,
}

/// Over two views of one shape.
pub(crate) fn views<T: Slices + Send>(level: Level, x: &View<'_, T>, y: &View<'_, T>) -> Sums {
    if x.is_contiguous() && y.is_contiguous() {
        let len = x.len();
        return slices(level, &x.data()[..len], &y.data()[..len], None);
    }
    let (plan, narrow) = (Plan::new(x, y), x.len() >= FEW);
    let largest: Vec<AtomicU64> = (0..plan.len()).map(|_| AtomicU64::new(0)).collect();
    let mut sums = tree(0, plan.len(), &|number| {
        let sums = T::panels(level, Panels { x, y, plan: &plan, number, narrow });
        largest[number].store(sums.max_abs.to_bits(), Ordering::Relaxed);
        sums
    });
    if sums.max_abs > 0.0 && sums.max_abs.is_finite() {
        let max = sums.max_abs;
        let pieces = (0..plan.len()).filter(|&n| largest[n].load(Ordering::Relaxed) == max.to_bits());
        let apart = |i: usize, j: usize| (x.data()[i].wide() - y.data()[j].wide()).abs();
        sums.worst = plan.first(pieces, |i, j| apart(i, j) == max);
    }
    sums
}

/// Over two slices of one length.
pub(crate) fn slices<T: Slices>(level: Level, x: &[T], y: &[T], look: Option<&FirstLook>) -> Sums {
    let narrow = x.len() >= FEW;
    tree(0, x.len().div_ceil(T::CHUNK), &|k| {
        let range = k * T::CHUNK..((k + 1) * T::CHUNK).min(x.len());
        let (x, y) = (&x[range.clone()], &y[range.clone()]);
        T::chunk(level, Chunk { x, y, narrow, from: range.start, look })
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

#[cfg(test)]
mod tests {
    use isotrace_tensor::Element;

    use super::*;
    use crate::judge::{Judge, Rule, Tolerance};

    /// Numbers of all sizes, with NaN, infinities, zeros of both signs, opposite signs and equal stretches.
    fn pair(len: usize) -> (Vec<f64>, Vec<f64>) {
        let mut state = 1u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut x = Vec::with_capacity(len);
        let mut y = Vec::with_capacity(len);
        for i in 0..len {
            let unit = (next() >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
            let a = unit * [1e-7, 1e-3, 1.0, 300.0][i % 4];
            let b = match next() % 64 {
                0..=20 => a,
                21 => -a,
                22 => 0.0,
                _ => a * (1.0 + 1e-3 * ((next() >> 40) as f64 / (1u64 << 24) as f64 - 0.5)),
            };
            let special = next() % 5000 == 0 && i > len / 2;
            let [a, b] = match (special, i % 4) {
                (true, 0) => [f64::NAN, f64::NAN],
                (true, 1) => [f64::INFINITY, f64::INFINITY],
                (true, 2) => [f64::NEG_INFINITY, 1.0],
                (true, _) => [0.0, -0.0],
                _ if i % 9000 < 3000 => [a, a],
                _ => [a, b],
            };
            x.push(a);
            y.push(b);
        }
        (x, y)
    }

    fn levels_agree<T: Slices + Element>(of: impl Fn(f64) -> T) {
        let judges = [Rule::Torch, Rule::Numpy, Rule::Polygraphy].map(|rule| {
            // Of a half type, so many halves of its own resolution that rounding decides about many.
            let unit = T::DTYPE.unit_roundoff().unwrap();
            Judge::new(Tolerance { rule, rtol: (6.0 * unit).max(2e-4), atol: 1e-6 }, T::DTYPE, T::DTYPE)
        });
        // Below a tile, across tiles, across chunks; long enough for sums in f32.
        for len in [0, 1, 31, 5000, FEW - 1, FEW, 3 * T::CHUNK + 77] {
            let (x, y) = pair(len);
            let (x, y): (Vec<T>, Vec<T>) =
                (x.into_iter().map(&of).collect(), y.into_iter().map(&of).collect());
            let told: Vec<String> =
                Level::all().map(|level| format!("{:?}", slices(level, &x, &y, None))).collect();
            assert!(told.iter().all(|t| *t == told[0]), "{len} of {}: {told:#?}", T::DTYPE);
            for judge in &judges {
                let beyond =
                    x.iter().zip(&y).filter(|(x, y)| judge.beyond(Slices::wide(**x), Slices::wide(**y)));
                let unjudged = slices(Level::best(), &x, &y, None);
                let expected = format!("{:?}", Sums { beyond: beyond.count() as u64, ..unjudged });
                for level in Level::all() {
                    let found = format!("{:?}", slices(level, &x, &y, Some(&judge.look)));
                    assert_eq!(found, expected, "{len} of {}", T::DTYPE);
                }
            }
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        levels_agree(|x| x);
        levels_agree(|x| x as f32);
        levels_agree(f16::from_f64);
        levels_agree(bf16::from_f64);
    }
}
