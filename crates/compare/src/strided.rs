//! Views whose elements do not lie side by side in the same order: permuted, broadcast, cut out.
//!
//! Whatever order the elements are taken in, one side may have to jump. So they are taken in panels: along the axis in
//! which A's elements lie closest and the axis in which B's do, some [`RUN`] bytes of each. Of every cache line that is
//! fetched from either side, a whole panel's width is used. A panel is copied into a buffer that stays in the cache,
//! transposed by vectors where it has to be (`transpose`), and goes through the same loops as slices do. Nothing larger
//! than a panel is copied, and nothing at all where both sides lie in one order anyway.
//!
//! What takes time is memory, not copying: rows of a panel are pages apart, which no processor foresees. Therefore
//!
//! - axes are put into the order of memory and, where both sides allow it, merged, which makes rows as long as they get;
//! - runs are as long as several cache lines, of which the first is what takes time;
//! - panels are taken in boxes that are a few panels wide along what is close in A, and along what is close in B, so
//!   that pages are met again while the processor still knows where they are;
//! - the next panel is asked for line by line while this one is gathered and compared: all at once, requests would wait
//!   for each other and nothing else be done.
//!
//! Maxima, counts and places are exactly those of a contiguous copy, and sums differ from its by rounding alone, since
//! they run in another order: one that shapes and strides decide.

use bytemuck::Pod;
use isotrace_tensor::View;

use crate::isa::Isa;
use crate::transpose::{Square, transpose};

/// Bytes along each of a panel's two axes, where both are as long: some cache lines in a row.
const RUN: usize = 512;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Elements along each of a panel's two axes.
const fn edge_of<T>() -> usize {
    RUN / size_of::<T>()
}

/// Elements a panel has at most.
pub(crate) const fn panel_of<T>() -> usize {
    128 * RUN / size_of::<T>()
}

/// Elements a piece has at least, if there are as many.
const PIECE: usize = 1 << 18;

/// Elements along either side's closest axes that a box takes: pages of so many rows on both sides are what a processor
/// remembers.
const NEAR: usize = 1024;

/// An axis that has been put together from axes of the views: of each the size and the stride in C order, last first.
type Parts = Vec<(usize, usize)>;

/// One axis of both views.
#[derive(Clone)]
struct Axis {
    size: usize,
    strides: [usize; 2],
    parts: Parts,
    /// How many elements of it a panel takes.
    extent: usize,
    /// Panels along it.
    panels: usize,
    /// Panels of a box along it.
    near: usize,
}

/// How two views of one shape are cut into panels.
pub(crate) struct Plan {
    axes: Vec<Axis>,
    /// The axis along the rows of a panel and the one along its columns; one of them may be missing.
    across: [Option<usize>; 2],
    boxes: usize,
    /// Boxes a piece.
    group: usize,
}

/// Cache lines that will be gathered soon.
pub(crate) struct Coming<'l, I> {
    pub isa: I,
    /// Those not asked for yet.
    pub lines: &'l [*const i8],
}

impl<I: Isa> Coming<'_, I> {
    /// Asks for one line for every two that have been gathered.
    #[inline(always)]
    pub fn gathered(&mut self, lines: usize) {
        let (now, later) = self.lines.split_at(self.lines.len().min(lines / 2));
        for &line in now {
            self.isa.prefetch_far(line);
        }
        self.lines = later;
    }
}

/// A panel: the index of its first element, where that is in A and in B, and its size.
pub(crate) struct Panel {
    index: Vec<usize>,
    start: [usize; 2],
    size: [usize; 2],
}

/// Axes in the order of memory of A, those that both sides run through in one go made one.
fn axes<T: Copy + Send + Sync>(a: &View<'_, T>, b: &View<'_, T>) -> Vec<Axis> {
    let shape = a.shape();
    let dense = isotrace_tensor::strides(shape);
    let mut order: Vec<usize> = (0..shape.len()).filter(|&k| shape[k] > 1).collect();
    order.sort_by_key(|&k| std::cmp::Reverse(a.strides()[k]));
    let mut axes: Vec<Axis> = Vec::new();
    for k in order {
        let (size, strides) = (shape[k], [a.strides()[k], b.strides()[k]]);
        match axes.last_mut() {
            Some(last) if (0..2).all(|side| last.strides[side] == strides[side] * size) => {
                last.size *= size;
                last.strides = strides;
                last.parts.insert(0, (size, dense[k]));
            }
            _ => axes.push(Axis {
                size,
                strides,
                parts: vec![(size, dense[k])],
                extent: 1,
                panels: size,
                near: 1,
            }),
        }
    }
    axes
}

impl Plan {
    /// Both have one shape, of at least one element.
    pub fn new<T: Copy + Send + Sync>(a: &View<'_, T>, b: &View<'_, T>) -> Self {
        let (edge, all) = (edge_of::<T>(), panel_of::<T>());
        let mut axes = axes(a, b);
        // Axes in the order in which a side's elements lie, the closest first; those that it repeats say nothing.
        let by_side = [0, 1].map(|side| {
            let mut order: Vec<usize> = (0..axes.len()).filter(|&k| axes[k].strides[side] > 0).collect();
            order.sort_by_key(|&k| axes[k].strides[side]);
            order
        });
        let columns = by_side[0].first().or(by_side[1].first()).copied();
        let other = |k: &usize| Some(*k) != columns;
        let rows = by_side[1].iter().copied().find(other).or_else(|| by_side[0].iter().copied().find(other));
        let both = columns.is_some() && by_side[0].first() == by_side[1].first();
        // Where both sides run along one axis, rows are as long as they get; else panels are square if they can.
        if let Some(k) = columns {
            axes[k].extent = axes[k].size.min(if both { all } else { edge });
        }
        if let Some(j) = rows {
            let room = all / columns.map_or(1, |k| axes[k].extent);
            axes[j].extent = axes[j].size.min(room);
            if let Some(k) = columns
                && !both
            {
                // A short second axis leaves more of the panel to the first.
                let most = if axes[j].extent < edge { all / axes[j].extent } else { edge };
                axes[k].extent = axes[k].size.min(most);
                axes[j].extent = axes[j].size.min(all / axes[k].extent);
            }
        }
        for axis in &mut axes {
            axis.panels = axis.size.div_ceil(axis.extent);
        }
        for order in &by_side {
            let mut room = NEAR;
            for &k in order {
                let axis = &mut axes[k];
                axis.near = axis.near.max((room / axis.extent).clamp(1, axis.panels));
                room = (room / axis.size).max(1);
            }
        }
        let boxes = axes.iter().map(|axis| axis.panels.div_ceil(axis.near)).product();
        let elements: usize = axes.iter().map(|axis| axis.near * axis.extent).product();
        Self { axes, across: [rows, columns], boxes, group: (PIECE / elements).max(1) }
    }

    /// The number of pieces, which are as many elements as are worth a beginning and an end of their own.
    pub fn len(&self) -> usize {
        self.boxes.div_ceil(self.group)
    }

    /// The panels of piece `n`.
    pub fn panels(&self, n: usize) -> impl Iterator<Item = Panel> + '_ {
        let boxes = n * self.group..((n + 1) * self.group).min(self.boxes);
        boxes.flat_map(|n| self.boxed(n))
    }

    /// The panels of box `n`.
    fn boxed(&self, mut n: usize) -> impl Iterator<Item = Panel> + '_ {
        let mut ranges = vec![0..0; self.axes.len()];
        for (range, axis) in ranges.iter_mut().zip(&self.axes).rev() {
            let count = axis.panels.div_ceil(axis.near);
            let from = n % count * axis.near;
            n /= count;
            *range = from..(from + axis.near).min(axis.panels);
        }
        let count: usize = ranges.iter().map(ExactSizeIterator::len).product();
        (0..count).map(move |mut n| {
            let mut panel = Panel { index: vec![0; self.axes.len()], start: [0; 2], size: [1; 2] };
            for (k, (range, axis)) in ranges.iter().zip(&self.axes).enumerate().rev() {
                let from = (range.start + n % range.len()) * axis.extent;
                n /= range.len();
                panel.index[k] = from;
                for side in 0..2 {
                    panel.start[side] += from * axis.strides[side];
                    if self.across[side] == Some(k) {
                        panel.size[side] = axis.extent.min(axis.size - from);
                    }
                }
            }
            panel
        })
    }

    /// How far apart rows and columns of a panel are on one side (0 or 1).
    fn strides(&self, side: usize) -> [usize; 2] {
        self.across.map(|axis| axis.map_or(0, |k| self.axes[k].strides[side]))
    }

    /// A panel's elements on one side, row by row: as they lie, or copied into `out`, while `coming` is asked for.
    #[inline(always)]
    pub fn gather<'o, I: Isa, T: Pod + Square>(
        &self,
        isa: I,
        side: usize,
        data: &'o [T],
        panel: &Panel,
        out: &'o mut [T],
        coming: &mut Coming<'_, I>,
    ) -> &'o [T] {
        let [rows, columns] = panel.size;
        let [row, column] = self.strides(side);
        let data = &data[panel.start[side]..];
        if columns == 1 || column == 1 {
            if rows == 1 || row == columns {
                return &data[..rows * columns];
            }
            if column == 1 {
                for (r, out) in out.chunks_exact_mut(columns).take(rows).enumerate() {
                    T::copy(&data[r * row..][..columns], out);
                    coming.gathered(columns * size_of::<T>() / LINE);
                }
                return &out[..rows * columns];
            }
        }
        if row == 1 && column >= rows {
            transpose(isa, data, column, out, panel.size, coming);
        } else {
            for (r, out) in out.chunks_exact_mut(columns).take(rows).enumerate() {
                let from = &data[r * row..][..=(columns - 1) * column];
                for (c, out) in out.iter_mut().enumerate() {
                    *out = from[c * column];
                }
            }
        }
        &out[..rows * columns]
    }

    /// The cache lines of a panel on one side, as far as its elements lie in runs.
    #[inline(always)]
    pub fn lines<T>(&self, side: usize, data: &[T], panel: &Panel, out: &mut Vec<*const i8>) {
        let [rows, columns] = panel.size;
        let [row, column] = self.strides(side);
        let (runs, step, len) = if column == 1 { (rows, row, columns) } else { (columns, column, rows) };
        if len * size_of::<T>() < LINE || column != 1 && row != 1 {
            return;
        }
        let start = data.as_ptr().wrapping_add(panel.start[side]);
        for run in 0..runs {
            let first = start.wrapping_add(run * step).cast::<i8>();
            let within = first.addr() % LINE;
            let (first, count) = (first.wrapping_sub(within), (within + len * size_of::<T>()).div_ceil(LINE));
            out.extend((0..count).map(|k| first.wrapping_add(LINE * k)));
        }
    }

    /// Which element in C order element `k` of a panel is.
    pub fn place(&self, panel: &Panel, k: usize) -> usize {
        let columns = panel.size[1];
        let within = [k / columns, k % columns];
        let mut place = 0;
        for (k, (axis, &from)) in self.axes.iter().zip(&panel.index).enumerate() {
            let along = (0..2).find(|&side| self.across[side] == Some(k));
            let mut at = from + along.map_or(0, |side| within[side]);
            for &(size, stride) in &axis.parts {
                place += at % size * stride;
                at /= size;
            }
        }
        place
    }

    /// A place that no element of a panel is before.
    fn least(&self, panel: &Panel) -> usize {
        let mut least = 0;
        for (k, (axis, &from)) in self.axes.iter().zip(&panel.index).enumerate() {
            let along = (0..2).find(|&side| self.across[side] == Some(k));
            let mut ends = [from, from + along.map_or(1, |side| panel.size[side]) - 1];
            let mut place = 0;
            for &(size, stride) in &axis.parts {
                if ends[0] != ends[1] {
                    // What this part moves on from, those before it start anew.
                    place = 0;
                }
                let digit = ends[0] % size;
                ends = ends.map(|end| end / size);
                if ends[0] == ends[1] {
                    place += digit * stride;
                }
            }
            least += place;
        }
        least
    }

    /// The first place in C order, of elements in some pieces, for whose two sides `is` holds.
    pub fn first(
        &self,
        pieces: impl Iterator<Item = usize>,
        is: impl Fn(usize, usize) -> bool,
    ) -> Option<usize> {
        let mut panels: Vec<(usize, Panel)> =
            pieces.flat_map(|n| self.panels(n)).map(|panel| (self.least(&panel), panel)).collect();
        panels.sort_by_key(|&(least, _)| least);
        let mut first = None;
        let strides = [self.strides(0), self.strides(1)];
        // How far apart in C order rows and columns are, where that is one number.
        let apart = self.across.map(|axis| match axis.map(|k| &self.axes[k].parts[..]) {
            None => Some(0),
            Some(&[(_, stride)]) => Some(stride),
            Some(_) => None,
        });
        // What lies farther apart is gone through outside, so that places grow and most of a panel is passed over.
        let outer = usize::from(apart[1] > apart[0]);
        for (least, panel) in &panels {
            if first.is_some_and(|first| first < *least) {
                break;
            }
            for i in 0..panel.size[outer] {
                let from = if apart[1 - outer].is_some() {
                    self.place(panel, if outer == 0 { i * panel.size[1] } else { i })
                } else {
                    *least
                };
                if first.is_some_and(|first| first < from) {
                    continue;
                }
                for j in 0..panel.size[1 - outer] {
                    let [row, column] = if outer == 0 { [i, j] } else { [j, i] };
                    let at = [0, 1]
                        .map(|side| panel.start[side] + row * strides[side][0] + column * strides[side][1]);
                    if is(at[0], at[1]) {
                        let place = self.place(panel, row * panel.size[1] + column);
                        first = Some(first.map_or(place, |first: usize| first.min(place)));
                    }
                }
            }
        }
        first
    }
}
