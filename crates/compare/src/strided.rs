//! Views whose elements do not lie side by side in the same order: permuted, broadcast, cut out.
//!
//! Whatever order the elements are taken in, one side may have to jump. So they are taken in panels: along the axis in
//! which A's elements lie closest and the axis in which B's do, some [`RUN`] bytes of each. Of every cache line that is
//! fetched from either side, a whole panel's width is used. A panel is copied into a buffer that stays in the cache,
//! transposed by vectors where it has to be, and goes through the same loops as slices do. Nothing larger than a panel or
//! two is copied, and nothing at all where both sides lie in one order anyway.
//!
//! What takes time is memory, not copying: rows of a panel are pages apart, which no processor foresees. Therefore
//!
//! - axes are put into the order of memory and, where both sides allow it, merged, which makes rows as long as they get;
//! - runs are as long as several cache lines, of which the first is what takes time: where an axis is too short for that
//!   and one side goes on with the next, a panel takes both;
//! - panels are taken in boxes that are a few panels wide along what is close in A, and along what is close in B, so
//!   that pages are met again while the processor still knows where they are;
//! - the next panel is asked for line by line while this one is compared: all at once, requests would wait for each other
//!   and nothing else be done. Where A lies in runs along rows and B along columns, it is copied as well (`staged`).
//!
//! Maxima, counts and places are exactly those of a contiguous copy, and sums differ from its by rounding alone, since
//! they run in another order: one that shapes and strides decide.

use bytemuck::Pod;
use isotrace_tensor::View;

use crate::isa::Isa;
use crate::staged::Layout;

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

/// Bytes along either side's closest axes that a box takes: whole pages, so that none is met in two boxes, of as few rows
/// on both sides as a processor remembers.
const NEAR: usize = 4096;

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
    /// The axes along the rows of a panel and those along its columns, the closest first: one or none each, or several
    /// where a side runs through them in one go.
    across: [Vec<usize>; 2],
    /// How the first panel is copied, where panels are copied square by square (`staged`).
    layout: Option<Layout>,
    /// The cache lines of the first panel, where panels are not; others have theirs in the same places, nearly.
    lines: Vec<Line>,
    /// On how many sides panels are gathered, one at least.
    gathered: usize,
    boxes: usize,
    /// Boxes a piece.
    group: usize,
}

/// A cache line of a panel: of which side, and how many bytes from the panel's first element.
type Line = (usize, usize);

/// Cache lines that will be read soon, with the panel after this one.
pub(crate) struct Coming<'l, I> {
    isa: I,
    /// Where that panel begins on each side.
    starts: [*const i8; 2],
    /// Those not asked for yet.
    lines: &'l [Line],
    /// How many lines are gathered while one is asked for: half of all are while a panel is gathered, on one side or
    /// on both, and half while it is compared.
    every: usize,
}

impl<I: Isa> Coming<'_, I> {
    /// Asks for as many lines as are to be while so many are gathered.
    #[inline(always)]
    fn gathered(&mut self, lines: usize) {
        let (now, later) = self.lines.split_at(self.lines.len().min(lines / self.every));
        for &line in now {
            self.ask_for(line);
        }
        self.lines = later;
    }

    /// Asks for line `k` of those that are left.
    #[inline(always)]
    pub fn ask(&self, k: usize) {
        if let Some(&line) = self.lines.get(k) {
            self.ask_for(line);
        }
    }

    #[inline(always)]
    fn ask_for(&self, (side, offset): Line) {
        self.isa.prefetch_far(self.starts[side].wrapping_add(offset));
    }
}

/// A panel: the index of its first element, how many it takes along each axis, where the first is in A and in B, and
/// its size.
pub(crate) struct Panel {
    index: Vec<usize>,
    length: Vec<usize>,
    pub start: [usize; 2],
    pub size: [usize; 2],
}

/// Cuts axes that one side runs through in one go, the closest first, none of them in `taken`, so that no more than
/// `room` elements are in a panel. Says which they are, and how many elements that makes.
fn cut(axes: &mut [Axis], side: usize, order: &[usize], taken: &[usize], room: usize) -> (Vec<usize>, usize) {
    let (mut group, mut run) = (Vec::new(), 1);
    for &k in order {
        let axis = &mut axes[k];
        if taken.contains(&k) || axis.strides[side] != run || run > 1 && room < 2 * run {
            break;
        }
        axis.extent = axis.size.min(room / run);
        run *= axis.extent;
        group.push(k);
        if axis.extent < axis.size {
            break;
        }
    }
    (group, run)
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
        let mut across = [rows, columns].map(|axis| axis.into_iter().collect::<Vec<_>>());
        let mut squares = false;
        if let (Some(columns), Some(rows), false) = (columns, rows, both) {
            let (mut one, mut width) = cut(&mut axes, 0, &by_side[0], &[rows], edge);
            let (other, height) = cut(&mut axes, 1, &by_side[1], &one, all / width);
            if height < edge {
                // Short columns leave more of the panel to the rows.
                (one, width) = cut(&mut axes, 0, &by_side[0], &other, all / height);
            }
            let line = LINE / size_of::<T>();
            let near = |side: usize| {
                let far = other.iter().chain(&one).map(|&k| (axes[k].extent - 1) * axes[k].strides[side]);
                far.sum::<usize>() < u32::MAX as usize
            };
            squares = one.first() == Some(&columns) && width >= line && height >= line && near(0) && near(1);
            if squares {
                across = [other, one];
            } else {
                for axis in &mut axes {
                    axis.extent = 1;
                }
            }
        }
        if !squares {
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
        }
        for axis in &mut axes {
            axis.panels = axis.size.div_ceil(axis.extent);
        }
        for order in &by_side {
            let mut room = NEAR / size_of::<T>();
            for &k in order {
                let axis = &mut axes[k];
                axis.near = axis.near.max((room / axis.extent).clamp(1, axis.panels));
                room = (room / axis.size).max(1);
            }
        }
        let boxes = axes.iter().map(|axis| axis.panels.div_ceil(axis.near)).product();
        let elements: usize = axes.iter().map(|axis| axis.near * axis.extent).product();
        let (layout, lines, group) = (None, Vec::new(), (PIECE / elements).max(1));
        let mut plan = Self { axes, across, layout, lines, gathered: 1, boxes, group };
        let first = plan.boxed(0).next();
        if squares {
            plan.layout = first.map(|panel| plan.lay_out(&panel, LINE / size_of::<T>()));
        } else if let Some(panel) = first {
            plan.lines = [(0, a.data()), (1, b.data())]
                .into_iter()
                .flat_map(|(side, data)| plan.lines(side, data, &panel).map(move |offset| (side, offset)))
                .collect();
            plan.gathered = (0..2).filter(|&side| !plan.lies(side, &panel)).count().max(1);
        }
        plan
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
            let index = vec![0; self.axes.len()];
            let mut panel = Panel { length: index.clone(), index, start: [0; 2], size: [1; 2] };
            for (k, (range, axis)) in ranges.iter().zip(&self.axes).enumerate().rev() {
                let from = (range.start + n % range.len()) * axis.extent;
                n /= range.len();
                panel.index[k] = from;
                panel.length[k] = axis.extent.min(axis.size - from);
                for side in 0..2 {
                    panel.start[side] += from * axis.strides[side];
                    if self.across[side].contains(&k) {
                        panel.size[side] *= panel.length[k];
                    }
                }
            }
            panel
        })
    }

    /// Whether panels are copied square by square: those of which A lies in runs along rows, and B along columns.
    pub fn squares(&self) -> bool {
        self.layout.is_some()
    }

    /// How a panel is copied square by square: mostly as the first one is, else as `other` says, made here if need be.
    pub fn layout<'l, const L: usize>(
        &'l self,
        panel: &Panel,
        other: &'l mut Option<Layout>,
    ) -> Option<&'l Layout> {
        let first = self.layout.as_ref()?;
        if first.size == panel.size {
            return Some(first);
        }
        if other.as_ref().is_none_or(|other| other.size != panel.size) {
            *other = Some(self.lay_out(panel, L));
        }
        other.as_ref()
    }

    /// How a panel is copied by squares of `lanes` rows.
    fn lay_out(&self, panel: &Panel, lanes: usize) -> Layout {
        Layout::new(lanes, panel.size, &[0, 1].map(|side| self.offsets(panel, side, side)))
    }

    /// Where on one side (0 or 1) the rows of a panel begin (0), or its columns (1).
    fn offsets(&self, panel: &Panel, side: usize, across: usize) -> Vec<usize> {
        self.across[across].iter().fold(vec![0], |starts, &k| {
            let stride = self.axes[k].strides[side];
            (0..panel.length[k]).flat_map(|n| starts.iter().map(move |start| start + n * stride)).collect()
        })
    }

    /// How far apart rows and columns of a panel are on one side (0 or 1), where they are along one axis each.
    fn strides(&self, side: usize) -> [usize; 2] {
        self.across.each_ref().map(|axes| axes.first().map_or(0, |&k| self.axes[k].strides[side]))
    }

    /// What of a panel after this one is to be asked for.
    #[inline(always)]
    pub fn coming<I: Isa, T>(&self, isa: I, data: [&[T]; 2], panel: Option<&Panel>) -> Coming<'_, I> {
        let start = |side: usize, panel: &Panel| data[side].as_ptr().wrapping_add(panel.start[side]).cast();
        let starts = panel.map_or([std::ptr::null(); 2], |panel| [0, 1].map(|side| start(side, panel)));
        Coming { isa, starts, lines: panel.map_or(&[], |_| &self.lines), every: self.gathered }
    }

    /// Whether a panel's elements lie row by row on one side.
    fn lies(&self, side: usize, panel: &Panel) -> bool {
        let [rows, columns] = panel.size;
        let [row, column] = self.strides(side);
        (columns == 1 || column == 1) && (rows == 1 || row == columns)
    }

    /// A panel's elements on one side, row by row: as they lie, or copied into `out`, while `coming` is asked for.
    #[inline(always)]
    pub fn gather<'o, I: Isa, T: Pod, const L: usize>(
        &self,
        side: usize,
        data: &'o [T],
        panel: &Panel,
        out: &'o mut [T],
        coming: &mut Coming<'_, I>,
    ) -> &'o [T] {
        let [rows, columns] = panel.size;
        let [row, column] = self.strides(side);
        let data = &data[panel.start[side]..];
        if self.lies(side, panel) {
            return &data[..rows * columns];
        }
        if column == 1 {
            for (r, out) in out.chunks_exact_mut(columns).take(rows).enumerate() {
                copy::<T, L>(&data[r * row..][..columns], out);
                coming.gathered(columns * size_of::<T>() / LINE);
            }
            return &out[..rows * columns];
        }
        if row == 1 && column >= rows {
            for c in 0..columns {
                for r in 0..rows {
                    out[r * columns + c] = data[c * column + r];
                }
            }
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

    /// The cache lines of a panel on one side, as far as its elements lie in runs: each in bytes from its first element.
    fn lines<T>(&self, side: usize, data: &[T], panel: &Panel) -> impl Iterator<Item = usize> + use<T> {
        let [rows, columns] = panel.size;
        let [row, column] = self.strides(side);
        let (runs, step, len) = if column == 1 { (rows, row, columns) } else { (columns, column, rows) };
        let in_runs = len * size_of::<T>() >= LINE && (column == 1 || row == 1);
        let start = data.as_ptr().wrapping_add(panel.start[side]).addr();
        (0..if in_runs { runs } else { 0 }).flat_map(move |run| {
            let first = start + run * step * size_of::<T>();
            let within = first % LINE;
            let count = (within + len * size_of::<T>()).div_ceil(LINE);
            (0..count).map(move |k| (first - within + LINE * k).wrapping_sub(start))
        })
    }

    /// Which element in C order the one in a row and a column of a panel is.
    pub fn place(&self, panel: &Panel, within: [usize; 2]) -> usize {
        let mut place = 0;
        for (k, (axis, &from)) in self.axes.iter().zip(&panel.index).enumerate() {
            let mut at = from;
            for (group, mut within) in self.across.iter().zip(within) {
                for &along in group {
                    let length = panel.length[along];
                    at += if along == k { within % length } else { 0 };
                    within /= length;
                }
            }
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
        for (axis, (&from, length)) in self.axes.iter().zip(panel.index.iter().zip(&panel.length)) {
            let mut ends = [from, from + length - 1];
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
        // How far apart in C order rows and columns are, where places grow along them.
        let apart = self.across.each_ref().map(|group| {
            let strides: Option<Vec<usize>> = group
                .iter()
                .map(|&k| match self.axes[k].parts[..] {
                    [(_, stride)] => Some(stride),
                    _ => None,
                })
                .collect();
            strides.map(|strides| strides.first().copied().unwrap_or(0))
        });
        // What lies farther apart is gone through outside, so that places grow and most of a panel is passed over.
        let outer = usize::from(apart[1] > apart[0]);
        for (least, panel) in &panels {
            if first.is_some_and(|first| first < *least) {
                break;
            }
            let offsets = [0, 1].map(|side| [0, 1].map(|across| self.offsets(panel, side, across)));
            for i in 0..panel.size[outer] {
                let from = if apart[1 - outer].is_some() {
                    self.place(panel, if outer == 0 { [i, 0] } else { [0, i] })
                } else {
                    *least
                };
                if first.is_some_and(|first| first < from) {
                    continue;
                }
                for j in 0..panel.size[1 - outer] {
                    let [row, column] = if outer == 0 { [i, j] } else { [j, i] };
                    let at = [0, 1]
                        .map(|side| panel.start[side] + offsets[side][0][row] + offsets[side][1][column]);
                    if is(at[0], at[1]) {
                        let place = self.place(panel, [row, column]);
                        first = Some(first.map_or(place, |first: usize| first.min(place)));
                    }
                }
            }
        }
        first
    }
}

/// Copies a short run: a few vectors, for which a call would take longer than they do.
#[inline(always)]
fn copy<T: Copy, const L: usize>(from: &[T], to: &mut [T]) {
    let (from, from_rest) = from.as_chunks::<L>();
    let (to, to_rest) = to.as_chunks_mut::<L>();
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
    for (to, from) in to_rest.iter_mut().zip(from_rest) {
        *to = *from;
    }
}
