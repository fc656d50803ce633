//! Views whose elements do not lie side by side in the same order: permuted, broadcast, cut out.
//!
//! Whatever order the elements are taken in, one side may have to jump. So they are taken in panels: along the axis in
//! which A's elements lie closest and the axis in which B's do, up to [`EDGE`] of each, copied into two buffers that
//! stay in the cache. Of every cache line that is fetched from either side, a whole panel's width is used. Nothing
//! larger than a panel is copied. Panels go through the same loops as slices; maxima, counts and places are exactly
//! those of a contiguous copy, and sums differ from its by rounding alone, since they run in another order.

use bytemuck::Pod;
use isotrace_tensor::View;

/// Elements along each of a panel's two axes.
const EDGE: usize = 64;

/// How two views of one shape are cut into panels.
pub(crate) struct Plan {
    shape: Vec<usize>,
    strides: [Vec<usize>; 2],
    /// Strides of the shape in C order.
    dense: Vec<usize>,
    /// The axis in which B's elements lie closest, then the one in which A's do.
    axes: [usize; 2],
    /// Elements of a panel along them.
    extent: [usize; 2],
    /// Panels along each axis.
    counts: Vec<usize>,
}

/// A panel: where it starts in A, in B and in C order, and its size.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    start: [usize; 2],
    place: usize,
    size: [usize; 2],
}

impl Plan {
    /// Both have one shape, of at least one element.
    pub fn new<T: Copy + Send + Sync>(a: &View<'_, T>, b: &View<'_, T>) -> Self {
        let shape = if a.shape().is_empty() { vec![1] } else { a.shape().to_vec() };
        let of = |view: &View<'_, T>| {
            if view.strides().is_empty() { vec![1] } else { view.strides().to_vec() }
        };
        let strides = [of(a), of(b)];
        let closest = |strides: &[usize]| {
            let moving = (0..shape.len()).filter(|&k| shape[k] > 1 && strides[k] > 0);
            moving.min_by_key(|&k| (strides[k], usize::MAX - k)).unwrap_or(shape.len() - 1)
        };
        let (i, mut j) = (closest(&strides[0]), closest(&strides[1]));
        if i == j {
            // Both lie closest along one axis: a panel is several rows along the next.
            j = (0..shape.len()).rev().find(|&k| k != i && shape[k] > 1).unwrap_or(i);
        }
        let extent =
            if i == j { [1, shape[i].min(EDGE * EDGE)] } else { [shape[j].min(EDGE), shape[i].min(EDGE)] };
        let counts = (0..shape.len())
            .map(|k| match k {
                k if k == i => shape[k].div_ceil(extent[1]),
                k if k == j => shape[k].div_ceil(extent[0]),
                k => shape[k],
            })
            .collect();
        let dense = isotrace_tensor::strides(&shape);
        Self { shape, strides, dense, axes: [j, i], extent, counts }
    }

    /// The number of panels.
    pub fn len(&self) -> usize {
        self.counts.iter().product()
    }

    /// Panel `n`.
    pub fn panel(&self, mut n: usize) -> Panel {
        let mut panel = Panel { start: [0; 2], place: 0, size: self.extent };
        for k in (0..self.shape.len()).rev() {
            let at = n % self.counts[k];
            n /= self.counts[k];
            // The second axis goes first: it is the only one where both are the same.
            let along = if k == self.axes[1] { Some(1) } else { (k == self.axes[0]).then_some(0) };
            let step = along.map_or(1, |d| self.extent[d]);
            let from = at * step;
            if let Some(d) = along {
                panel.size[d] = step.min(self.shape[k] - from);
            }
            panel.place += from * self.dense[k];
            panel.start[0] += from * self.strides[0][k];
            panel.start[1] += from * self.strides[1][k];
        }
        panel
    }

    /// Copies a panel of one side (0 or 1) into `out`, and says how many elements that are.
    pub fn gather<T: Pod>(&self, side: usize, data: &[T], panel: &Panel, out: &mut [T]) -> usize {
        let [rows, columns] = panel.size;
        let strides = &self.strides[side];
        let (row, column) = (strides[self.axes[0]], strides[self.axes[1]]);
        let data = &data[panel.start[side]..];
        if column == 1 {
            for (r, out) in out.chunks_exact_mut(columns).take(rows).enumerate() {
                out.copy_from_slice(&data[r * row..r * row + columns]);
            }
        } else {
            // Read in the order of this side, written across.
            for c in 0..columns {
                let source = &data[c * column..];
                for r in 0..rows {
                    out[r * columns + c] = source[r * row];
                }
            }
        }
        rows * columns
    }

    /// Which element in C order element `k` of a panel is.
    pub fn place(&self, panel: &Panel, k: usize) -> usize {
        let columns = panel.size[1];
        let (row, column) = (k / columns, k % columns);
        let rows = if self.axes[0] == self.axes[1] { 0 } else { row * self.dense[self.axes[0]] };
        panel.place + rows + column * self.dense[self.axes[1]]
    }
}

/// Elements a panel has at most.
pub(crate) const PANEL: usize = EDGE * EDGE;
