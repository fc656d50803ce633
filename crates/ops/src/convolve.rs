//! Convolution over any number of spatial axes.
//!
//! Output pixels are cut into tiles; for each, the input elements under the windows are laid out as a matrix (one row
//! a weight, one column a pixel) small enough for the second-level cache, multiplied by the weights, and bias,
//! residual and activation are applied while the tile is still in cache. Where there are few pixels and many channels
//! (the late layers of a network) one such matrix serves all output channels, of which each thread takes its own. A
//! convolution of each channel with itself alone (depthwise) has no product worth the name and runs directly.
//!
//! Tiles depend on sizes alone, and among how many threads channels are shared changes the order of no sum: results do not
//! depend on the number of threads.

use std::mem::MaybeUninit;

use rayon::current_num_threads;
use rayon::prelude::*;

use crate::activation::Activation;
use crate::product::{Matrix, product, product_onto};
use crate::room::{scratch, unwritten, zeros};
use crate::window::Window;
use crate::{Float, OpError};

/// Elements of the unfolded input that a tile may take: 512 KiB in f32.
const TILE: usize = 1 << 17;

/// Tiles from which on cutting pixels alone keeps every thread busy.
const ENOUGH_TILES: usize = 8;

/// Filters that are worth a product of their own. `gemm` cuts sums of more than 512 products into pieces, otherwise where no
/// side of the result is longer than 64: what is cut must stay longer.
const FILTERS: usize = 96;

/// Multiplications below which one thread is faster than waking others.
const PARALLEL_FROM: usize = 1 << 17;

/// Sizes of a convolution: input (batch, channels, window.input...), weights (filters, channels / groups,
/// window.kernel...), output (batch, filters, window.output...).
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Images.
    pub batch: usize,
    /// Input channels.
    pub channels: usize,
    /// Output channels.
    pub filters: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Spatial geometry.
    pub window: Window,
}

/// What happens to the sums before they are written.
#[derive(Debug, Clone, Copy)]
pub struct Finish<'a, T> {
    /// Added per output channel.
    pub bias: Option<&'a [T]>,
    /// Added element by element, shaped as the output.
    pub residual: Option<&'a [T]>,
    /// Applied last.
    pub activation: Activation,
}

impl<T: Float> Finish<'_, T> {
    /// Finishes `row`, which starts at element `at` of the output and belongs to output channel `filter`.
    fn apply(&self, at: usize, filter: usize, row: &mut [T]) {
        if let Some(bias) = self.bias {
            let bias = bias[filter];
            for x in row.iter_mut() {
                *x += bias;
            }
        }
        if let Some(residual) = self.residual {
            row.iter_mut().zip(&residual[at..]).for_each(|(x, &r)| *x += r);
        }
        self.activation.apply(row);
    }
}

impl Sizes {
    /// Reads sizes off the shapes of input and weights.
    pub fn new(
        x: &[usize],
        w: &[usize],
        groups: usize,
        settings: &crate::window::Settings,
    ) -> Result<Self, OpError> {
        let (&[batch, channels, ref input @ ..], &[filters, per_group, ref kernel @ ..]) = (x, w) else {
            return Err(OpError::Input(format!(
                "input {x:?} and weights {w:?} must have batch or filters, channels and spatial axes"
            )));
        };
        if groups == 0 || per_group.checked_mul(groups) != Some(channels) || filters % groups != 0 {
            return Err(OpError::Input(format!(
                "input of {channels} channels, weights of {filters} filters by {per_group} channels and {groups} groups \
                 contradict each other: channels must be groups times the weights' channels, filters a multiple of groups"
            )));
        }
        if input.len() != kernel.len() {
            return Err(OpError::Input(format!(
                "input {x:?} and weights {w:?} differ in their number of axes"
            )));
        }
        let window = settings.window(input, Some(kernel))?;
        let sizes = Self { batch, channels, filters, groups, window };
        isotrace_tensor::element_count(&sizes.output_shape())?;
        // The unfolded input of one group: kernel sizes of a hostile file could make it huge.
        isotrace_tensor::element_count(&[per_group, sizes.window.taps(), sizes.window.pixels()])?;
        Ok(sizes)
    }

    /// Shape of the output.
    pub fn output_shape(&self) -> Vec<usize> {
        let mut shape = vec![self.batch, self.filters];
        shape.extend(&self.window.output);
        shape
    }

    /// Products summed in an output element.
    pub fn terms(&self) -> usize {
        self.channels / self.groups * self.window.taps()
    }
}

/// One tile of one group of one image; owns its piece of every output row it writes.
struct Job<'a, T> {
    unit: usize,
    start: usize,
    rows: Vec<&'a mut [MaybeUninit<T>]>,
}

/// The convolution, in C order of [`Sizes::output_shape`].
pub fn convolve<T: Float>(
    x: &[T],
    w: &[T],
    sizes: &Sizes,
    finish: &Finish<'_, T>,
) -> Result<Vec<T>, OpError> {
    let pixels = sizes.window.pixels();
    let shape = sizes.output_shape();
    let len = isotrace_tensor::element_count(&shape)?;
    if len == 0 {
        return Ok(Vec::new());
    }
    let channels = sizes.channels / sizes.groups;
    let k = sizes.terms();
    if k == 0 || channels == 1 && sizes.groups > 1 {
        let mut out = zeros::<T>(&shape)?;
        if k == 0 {
            let rows = out.chunks_mut(pixels).enumerate();
            rows.for_each(|(i, row)| finish.apply(i * pixels, i % sizes.filters, row));
        } else {
            depthwise(x, w, sizes, finish, &mut out);
        }
        return Ok(out);
    }
    let mut made = unwritten::<T>(&shape)?;
    multiply(x, w, sizes, finish, &mut made.spare_capacity_mut()[..len])?;
    #[expect(unsafe_code, reason = "memory that need not be cleared first")]
    // SAFETY: `multiply` has written each of the `len` elements.
    unsafe {
        made.set_len(len);
    }
    Ok(made)
}

/// Writes every element of the output, each group's as products of its weights with what lies under windows.
fn multiply<T: Float>(
    x: &[T],
    w: &[T],
    sizes: &Sizes,
    finish: &Finish<'_, T>,
    out: &mut [MaybeUninit<T>],
) -> Result<(), OpError> {
    let pixels = sizes.window.pixels();
    let (filters, channels) = (sizes.filters / sizes.groups, sizes.channels / sizes.groups);
    let k = sizes.terms();
    let plane: usize = sizes.window.input.iter().product();
    let pointwise = sizes.window.is_pointwise();
    // Wide enough for the product to be efficient, even where a column is long.
    let width = (TILE / k).next_multiple_of(16).clamp(64, 1024).min(pixels);
    let tiles = pixels.div_ceil(width);
    let image = |unit: usize| &x[unit * channels * plane..(unit + 1) * channels * plane];
    let weights = |unit: usize| {
        let group = unit % sizes.groups;
        Matrix { data: &w[group * filters * k..(group + 1) * filters * k], row: k, column: 1 }
    };
    let parallel = out.len() * k >= PARALLEL_FROM;
    if tiles * sizes.batch * sizes.groups < ENOUGH_TILES && parallel {
        let columns = if pointwise { 0 } else { isotrace_tensor::element_count(&[k, pixels])? };
        // Each thread multiplies filters of its own: waiting for each other at every piece of one product took a fifth of the
        // time. Where there are too few of them, all work on the same.
        let pieces = (filters / FILTERS).min(2 * current_num_threads()).clamp(1, FILTERS / 6);
        let alone = pieces >= current_num_threads() && pixels > 1;
        let together = if alone { filters.div_ceil(pieces) } else { filters };
        scratch(columns, |columns| {
            for (unit, out) in out.chunks_mut(filters * pixels).enumerate() {
                let right = if pointwise {
                    Matrix { data: image(unit), row: plane, column: 1 }
                } else {
                    unfold(image(unit), sizes, 0..pixels, columns, true);
                    Matrix { data: &*columns, row: pixels, column: 1 }
                };
                out.par_chunks_mut(together * pixels).enumerate().for_each(|(piece, out)| {
                    let left = weights(unit);
                    let left = Matrix { data: &left.data[piece * together * k..], ..left };
                    let out = product_onto(out.len() / pixels, k, pixels, left, right, out, !alone);
                    for (f, row) in out.chunks_mut(pixels).enumerate() {
                        let f = piece * together + f;
                        let filter = unit % sizes.groups * filters + f;
                        finish.apply((unit * filters + f) * pixels, filter, row);
                    }
                });
            }
        })?;
        return Ok(());
    }
    let mut jobs: Vec<Job<'_, T>> = Vec::with_capacity(tiles * sizes.batch * sizes.groups);
    for (unit, out) in out.chunks_mut(filters * pixels).enumerate() {
        let first = jobs.len();
        jobs.extend((0..tiles).map(|t| Job { unit, start: t * width, rows: Vec::with_capacity(filters) }));
        for row in out.chunks_mut(pixels) {
            for (job, piece) in jobs[first..].iter_mut().zip(row.chunks_mut(width)) {
                job.rows.push(piece);
            }
        }
    }
    let columns = if pointwise { 0 } else { k * width };
    let run = |job: Job<'_, T>| {
        scratch(columns + filters * width, |room| {
            let (columns, sums) = room.split_at_mut(columns);
            let n = job.rows[0].len();
            let right = if pointwise {
                Matrix { data: &image(job.unit)[job.start..], row: plane, column: 1 }
            } else {
                unfold(image(job.unit), sizes, job.start..job.start + n, columns, false);
                Matrix { data: &*columns, row: n, column: 1 }
            };
            product(filters, k, n, weights(job.unit), right, &mut sums[..filters * n], false);
            for (f, (row, sums)) in job.rows.into_iter().zip(sums.chunks(n)).enumerate() {
                let row = row.write_copy_of_slice(sums);
                let filter = job.unit % sizes.groups * filters + f;
                finish.apply((job.unit * filters + f) * pixels + job.start, filter, row);
            }
        })
    };
    if parallel {
        jobs.into_par_iter().try_for_each(run)?;
    } else {
        jobs.into_iter().try_for_each(run)?;
    }
    Ok(())
}

/// A run of output pixels that share all spatial indices but the last.
struct Segment {
    /// The leading spatial indices as one number.
    outer: usize,
    /// First and one past the last index along the last axis.
    from: usize,
    to: usize,
    /// Where the run starts in the tile.
    at: usize,
}

/// Lays out the input elements under the windows of `pixels`: row (channel, window element), column pixel.
fn unfold<T: Float>(
    image: &[T],
    sizes: &Sizes,
    pixels: std::ops::Range<usize>,
    out: &mut [T],
    parallel: bool,
) {
    let w = &sizes.window;
    let n = pixels.len();
    let last = w.input.len() - 1;
    let width = w.output[last];
    let segments: Vec<Segment> = (pixels.start / width..=(pixels.end - 1) / width)
        .map(|outer| {
            let from = pixels.start.max(outer * width);
            let to = pixels.end.min((outer + 1) * width);
            Segment { outer, from: from - outer * width, to: to - outer * width, at: from - pixels.start }
        })
        .collect();
    let taps_outer: usize = w.kernel[..last].iter().product();
    let taps_last = w.kernel[last];
    let plane: usize = w.input.iter().product();
    // For every leading window index: where each segment's input row starts, if inside.
    let bases: Vec<Vec<Option<usize>>> =
        (0..taps_outer).map(|tap| segments.iter().map(|s| row_start(w, s.outer, tap)).collect()).collect();
    let inside: Vec<(usize, usize)> = (0..taps_last).map(|k| w.inside(last, k)).collect();
    let stride = w.strides[last];
    let fill = |row: usize, out: &mut [T]| {
        let (channel, tap) = (row / (taps_outer * taps_last), row % (taps_outer * taps_last));
        let (tap_outer, k) = (tap / taps_last, tap % taps_last);
        let image = &image[channel * plane..(channel + 1) * plane];
        let (low, high) = inside[k];
        for (s, base) in segments.iter().zip(&bases[tap_outer]) {
            let out = &mut out[s.at..s.at + s.to - s.from];
            let Some(base) = base else {
                out.fill(T::ZERO);
                continue;
            };
            let (low, high) = (low.clamp(s.from, s.to), high.clamp(s.from, s.to));
            if low >= high {
                out.fill(T::ZERO);
                continue;
            }
            out[..low - s.from].fill(T::ZERO);
            out[high - s.from..].fill(T::ZERO);
            let first = base + low * stride + k * w.dilations[last] - w.begin[last];
            let middle = &mut out[low - s.from..high - s.from];
            if stride == 1 {
                middle.copy_from_slice(&image[first..first + middle.len()]);
            } else {
                for (out, &x) in middle.iter_mut().zip(image[first..].iter().step_by(stride)) {
                    *out = x;
                }
            }
        }
    };
    let rows = sizes.terms();
    if parallel {
        out[..rows * n].par_chunks_mut(n).enumerate().for_each(|(row, out)| fill(row, out));
    } else {
        out[..rows * n].chunks_mut(n).enumerate().for_each(|(row, out)| fill(row, out));
    }
}

/// Where the input row under leading output index `outer` and leading window index `tap` starts in a plane.
pub(crate) fn row_start(w: &Window, mut outer: usize, mut tap: usize) -> Option<usize> {
    let last = w.input.len() - 1;
    let mut start = 0;
    let mut stride = w.input[last];
    for axis in (0..last).rev() {
        let (o, k) = (outer % w.output[axis], tap % w.kernel[axis]);
        (outer, tap) = (outer / w.output[axis], tap / w.kernel[axis]);
        start += w.source(axis, o, k)? * stride;
        stride *= w.input[axis];
    }
    Some(start)
}

/// One input channel a group: each output row is a sum of a few shifted input rows.
fn depthwise<T: Float>(x: &[T], w: &[T], sizes: &Sizes, finish: &Finish<'_, T>, out: &mut [T]) {
    let window = &sizes.window;
    let (pixels, taps) = (window.pixels(), window.taps());
    let plane: usize = window.input.iter().product();
    let last = window.input.len() - 1;
    let (width, taps_last, stride) = (window.output[last], window.kernel[last], window.strides[last]);
    let multiplier = sizes.filters / sizes.groups;
    let inside: Vec<(usize, usize)> = (0..taps_last).map(|k| window.inside(last, k)).collect();
    let one = |i: usize, out: &mut [T]| {
        let (image, filter) = (i / sizes.filters, i % sizes.filters);
        let channel = image * sizes.channels + filter / multiplier;
        let x = &x[channel * plane..(channel + 1) * plane];
        let w = &w[filter * taps..(filter + 1) * taps];
        for (outer, row) in out.chunks_mut(width).enumerate() {
            for (tap, w) in w.chunks(taps_last).enumerate() {
                let Some(base) = row_start(window, outer, tap) else { continue };
                for (k, &w) in w.iter().enumerate() {
                    let (low, high) = inside[k];
                    if low >= high {
                        continue;
                    }
                    let first = base + low * stride + k * window.dilations[last] - window.begin[last];
                    let row = &mut row[low..high];
                    if stride == 1 {
                        row.iter_mut().zip(&x[first..]).for_each(|(y, &x)| *y += w * x);
                    } else {
                        row.iter_mut().zip(x[first..].iter().step_by(stride)).for_each(|(y, &x)| *y += w * x);
                    }
                }
            }
        }
        finish.apply(i * pixels, filter, out);
    };
    if out.len() * taps >= PARALLEL_FROM {
        out.par_chunks_mut(pixels).enumerate().for_each(|(i, out)| one(i, out));
    } else {
        out.chunks_mut(pixels).enumerate().for_each(|(i, out)| one(i, out));
    }
}
