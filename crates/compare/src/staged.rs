//! Panels of which each side lies in runs of its own direction, copied a cache line at a time while the panel before
//! is compared.
//!
//! A cache line of either side is a row of a square of the panel: `L` elements along A's runs, or along B's. Squares lie
//! one after the other, so that nothing of a panel that has been copied shares places in the cache with the rest of it,
//! as its rows in the tensor do where they are a power of two apart: of those a cache keeps eight, less than are under
//! way. Therefore a line is asked for only a little before it is copied, and nothing is left to wait in the cache for a
//! whole panel. B's squares are transposed when they are compared.
//!
//! A core has some two dozen lines under way, and what takes time is to wait for them: lines are asked for all the time, a
//! few before a part is compared, half while its sums are made, the others while lines are copied.

use bytemuck::Pod;

use crate::isa::Isa;
use crate::transpose::Square;

/// Rows of squares that are compared at a time: 1 KiB a side.
const PART: usize = 16;

/// Rows that are transposed at a time: a square of words of two bytes, or some others.
const TURN: usize = 32;

/// A run of a panel that is copied: where it begins, counted from the panel's first element, and which row of the
/// squares it becomes.
#[derive(Clone, Copy)]
struct Line {
    from: u32,
    to: u32,
}

/// The lines of a panel of some size on both sides.
pub(crate) struct Layout {
    pub size: [usize; 2],
    /// Rows of squares, as many as are transposed at a time or a multiple of that.
    rows: usize,
    /// Whole lines of both sides; where one has fewer, a line that goes to a row beyond the squares.
    parts: Vec<[[Line; 2]; PART]>,
    /// Those that are shorter, and how long.
    rest: [Vec<(Line, usize)>; 2],
}

impl Layout {
    /// Of a panel of so many rows and columns, and squares of so many rows. On side 0 row `r` begins at `starts[0][r]`, on
    /// side 1 column `c` does at `starts[1][c]`, none of it farther away than a number of 32 bits says.
    pub fn new(lanes: usize, size: [usize; 2], starts: &[Vec<usize>; 2]) -> Self {
        let squares = size.map(|n| n.div_ceil(lanes));
        let mut rest = [Vec::new(), Vec::new()];
        let mut whole = [Vec::new(), Vec::new()];
        for (side, starts) in starts.iter().enumerate() {
            let length = size[1 - side];
            for (k, &from) in starts.iter().enumerate() {
                for q in 0..length.div_ceil(lanes) {
                    let square =
                        if side == 0 { k / lanes * squares[1] + q } else { q * squares[1] + k / lanes };
                    let line =
                        Line { from: (from + q * lanes) as u32, to: (square * lanes + k % lanes) as u32 };
                    if (q + 1) * lanes <= length {
                        whole[side].push(line);
                    } else {
                        rest[side].push((line, length % lanes));
                    }
                }
            }
        }
        let rows = (squares[0] * squares[1] * lanes).next_multiple_of(TURN);
        let none = Line { from: 0, to: rows as u32 };
        let parts = (0..whole[0].len().max(whole[1].len()).div_ceil(PART)).map(|part| {
            std::array::from_fn(|k| {
                whole.each_ref().map(|lines| lines.get(part * PART + k).copied().unwrap_or(none))
            })
        });
        Self { size, rows, parts: parts.collect(), rest }
    }
}

/// A panel's squares on both sides, B's not transposed, and a row for what belongs nowhere. What lies beyond the panel is
/// zeros, which leave no trace.
#[derive(Default)]
pub(crate) struct Stage<T, const L: usize> {
    size: [usize; 2],
    rows: [Vec<[T; L]>; 2],
}

impl<T: Pod + Square<L>, const L: usize> Stage<T, L> {
    fn set(&mut self, layout: &Layout) {
        if self.size != layout.size {
            self.size = layout.size;
            for side in &mut self.rows {
                side.clear();
                side.resize(layout.rows + 1, [T::zeroed(); L]);
            }
        }
    }

    /// How many parts are compared.
    pub fn parts(&self) -> usize {
        self.rows[0].len() / PART
    }

    /// One of them: both sides in one order. They are taken one after the other.
    #[inline(always)]
    pub fn part<'s, I: Isa>(&'s self, isa: I, part: usize, turned: &'s mut Turned<T, L>) -> [&'s [T]; 2] {
        let at = part * PART;
        if at.is_multiple_of(TURN) {
            for (from, to) in
                self.rows[1][at..][..TURN].as_chunks::<L>().0.iter().zip(turned.0.as_chunks_mut::<L>().0)
            {
                T::turn(isa, from, to);
            }
        }
        [&self.rows[0][at..][..PART], &turned.0[at % TURN..][..PART]].map(<[_]>::as_flattened)
    }

    /// Row and column of an element of a part.
    pub fn place(&self, part: usize, k: usize) -> [usize; 2] {
        let row = part * PART + k / L;
        let (square, across) = (row / L, self.size[1].div_ceil(L));
        [square / across * L + row % L, square % across * L + k % L]
    }
}

/// B's side of a part.
#[repr(align(64))]
pub(crate) struct Turned<T, const L: usize>([[T; L]; TURN]);

impl<T: Pod, const L: usize> Turned<T, L> {
    pub fn new() -> Self {
        Self([[T::zeroed(); L]; TURN])
    }
}

/// A panel on its way to its squares.
pub(crate) struct Staging<'s, I, T, const L: usize> {
    isa: I,
    layout: &'s Layout,
    /// Both sides from the panel's first element on.
    data: [&'s [T]; 2],
    into: &'s mut Stage<T, L>,
    /// Parts asked for.
    asked: usize,
}

impl<'s, I: Isa, T: Pod + Square<L>, const L: usize> Staging<'s, I, T, L> {
    #[inline(always)]
    pub fn new(isa: I, layout: &'s Layout, data: [&'s [T]; 2], into: &'s mut Stage<T, L>) -> Self {
        into.set(layout);
        Self { isa, layout, data, into, asked: 0 }
    }

    /// Asks for the first lines of a part.
    #[inline(always)]
    pub fn begin(&self) {
        if let Some(part) = self.layout.parts.get(self.asked) {
            for lines in &part[..PART / 4] {
                self.ask_for(lines);
            }
        }
    }

    /// Asks for a line of each side when every other line is compared, given its number.
    #[inline(always)]
    pub fn ask(&self, k: usize) {
        if k.is_multiple_of(2)
            && let Some(part) = self.layout.parts.get(self.asked)
        {
            self.ask_for(&part[PART / 4 + k / 2 % (PART / 2)]);
        }
    }

    #[inline(always)]
    fn ask_for(&self, lines: &[Line; 2]) {
        for (line, data) in lines.iter().zip(self.data) {
            let first = data.as_ptr().wrapping_add(line.from as usize);
            // It may lie across the border of two cache lines.
            self.isa.prefetch(first.cast());
            self.isa.prefetch(first.wrapping_add(L - 1).cast());
        }
    }

    /// Asks for the last lines of a part, and copies what was asked for with the part before.
    #[inline(always)]
    pub fn copy(&mut self) {
        let parts = &self.layout.parts;
        let next = parts.get(self.asked);
        let part = parts.get(self.asked.wrapping_sub(1));
        for k in 0..PART / 4 {
            if let Some(next) = next {
                self.ask_for(&next[PART / 4 * 3 + k]);
            }
            for lines in part.map_or(&[][..], |part| &part[4 * k..][..4]) {
                for ((&Line { from, to }, data), rows) in lines.iter().zip(self.data).zip(&mut self.into.rows)
                {
                    if let Some(run) = data[from as usize..].first_chunk() {
                        rows[to as usize] = *run;
                    }
                }
            }
        }
        self.asked += 1;
    }

    /// Everything that is left.
    #[inline(always)]
    pub fn finish(mut self) {
        while self.asked <= self.layout.parts.len() {
            self.begin();
            for k in 0..PART {
                self.ask(k);
            }
            self.copy();
        }
        for side in 0..2 {
            for &(line, length) in &self.layout.rest[side] {
                let run = &self.data[side][line.from as usize..][..length];
                self.into.rows[side][line.to as usize][..length].copy_from_slice(run);
            }
        }
    }
}
