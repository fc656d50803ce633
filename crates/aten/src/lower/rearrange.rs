//! What moves elements and is no operator of ONNX's: rolls, diagonals, sliding windows, shuffles of pixels and channels,
//! padding by what is there.

use isotrace_graph::Attribute;

use super::movement::{permuted, reshaped, sliced};
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("channel_shuffle", channels_shuffled),
    ("diag_embed", embedded_diagonal),
    ("diagonal", diagonal),
    ("im2col", windows_as_columns),
    ("native_channel_shuffle", channels_shuffled),
    ("pixel_shuffle", |c| {
        let shape = c.shape(0)?.to_vec();
        let r = usize::try_from(c.int("upscale_factor")?).ok()?;
        let (lead, [channels, height, width]) = last_three(&shape)?;
        let parts = [lead, &[channels.checked_div(r * r)?, r, r, height, width]].concat();
        let n = lead.len() as i64;
        shuffled(c, &parts, (0..n).chain([n, n + 3, n + 1, n + 4, n + 2]).collect())
    }),
    ("pixel_unshuffle", |c| {
        let shape = c.shape(0)?.to_vec();
        let r = usize::try_from(c.int("downscale_factor")?).ok()?;
        let (lead, [channels, height, width]) = last_three(&shape)?;
        let parts = [lead, &[channels, height.checked_div(r)?, r, width.checked_div(r)?, r]].concat();
        let n = lead.len() as i64;
        shuffled(c, &parts, (0..n).chain([n, n + 2, n + 4, n + 1, n + 3]).collect())
    }),
    ("reflection_pad1d", |c| padded(c, "reflect")),
    ("reflection_pad2d", |c| padded(c, "reflect")),
    ("reflection_pad3d", |c| padded(c, "reflect")),
    ("replication_pad1d", |c| padded(c, "edge")),
    ("replication_pad2d", |c| padded(c, "edge")),
    ("replication_pad3d", |c| padded(c, "edge")),
    ("roll", roll),
    ("unfold", unfold),
];

fn last_three(shape: &[usize]) -> Option<(&[usize], [usize; 3])> {
    let (lead, last) = shape.split_last_chunk::<3>()?;
    Some((lead, *last))
}

/// Looked at as `parts`, whose axes are put in another order.
fn shuffled(c: &mut Call<'_>, parts: &[usize], order: Vec<i64>) -> Results {
    let (x, (_, shape)) = (c.input(0)?, c.result(0)?);
    let x = reshaped(c, x, parts);
    let x = permuted(c, x, order);
    one(reshaped(c, x, &shape))
}

fn padded(c: &mut Call<'_>, how: &str) -> Results {
    let (x, rank) = (c.input(0)?, c.shape(0)?.len());
    let mut pads = vec![0; 2 * rank];
    for (i, pair) in c.ints("padding")?.chunks_exact(2).enumerate() {
        let axis = rank.checked_sub(i + 1)?;
        (pads[axis], pads[rank + axis]) = (pair[0], pair[1]);
    }
    let pads = c.integers(pads);
    one(c.op("Pad", &[x, pads], &[("mode", Attribute::Bytes(how.as_bytes().to_vec()))]))
}

/// Channels of the groups taken in turn.
fn channels_shuffled(c: &mut Call<'_>) -> Results {
    let shape = c.shape(0)?.to_vec();
    let groups = usize::try_from(c.int("groups")?).ok()?;
    let parts = [&shape[..1], &[groups, shape.get(1)?.checked_div(groups)?], &shape[2..]].concat();
    let order = [0, 2, 1].into_iter().chain(3..parts.len() as i64).collect();
    shuffled(c, &parts, order)
}

/// What leaves an axis at its end comes back at its beginning; without axes the tensor is rolled as one row.
fn roll(c: &mut Call<'_>) -> Results {
    let (mut x, shape) = (c.input(0)?, c.shape(0)?.to_vec());
    let shifts = c.ints("shifts")?;
    let axes = c.ints("dims").unwrap_or_default();
    let flat = [shape.iter().product()];
    let over = if axes.is_empty() { &flat[..] } else { &shape };
    if axes.is_empty() {
        x = reshaped(c, x, &flat);
    }
    let axes = if axes.is_empty() { vec![0] } else { axes };
    for (&axis, &shift) in axes.iter().zip(&shifts) {
        let axis = if axis < 0 { axis + over.len() as i64 } else { axis };
        let size = *over.get(usize::try_from(axis).ok()?)? as i64;
        let shift = shift.checked_rem_euclid(size).unwrap_or(0);
        if shift == 0 {
            continue;
        }
        let end = sliced(c, x, axis, [size - shift, size, 1]);
        let start = sliced(c, x, axis, [0, size - shift, 1]);
        x = c.op("Concat", &[end, start], &[("axis", Attribute::Int(axis))]);
    }
    one(reshaped(c, x, &shape))
}

/// The order of axes in which two come last.
fn last_two(rank: i64, first: i64, second: i64) -> Vec<i64> {
    (0..rank).filter(|&a| a != first && a != second).chain([first, second]).collect()
}

/// Row and column of the first element of a diagonal.
fn start(offset: i64) -> (i64, i64) {
    ((-offset).max(0), offset.max(0))
}

fn diagonal(c: &mut Call<'_>) -> Results {
    let (x, shape) = (c.input(0)?, c.shape(0)?.to_vec());
    let rank = shape.len() as i64;
    let (first, second) = (c.axis("dim1", rank).unwrap_or(0), c.axis("dim2", rank).unwrap_or(1));
    let order = last_two(rank, first, second);
    let sizes: Vec<usize> = order.iter().map(|&a| shape[a as usize]).collect();
    let (lead, &[rows, columns]) = sizes.split_last_chunk::<2>()?;
    let (row, column) = start(c.int("offset").unwrap_or(0));
    let count = (rows as i64 - row).min(columns as i64 - column).max(0);
    let places = (0..count).map(|i| (row + i) * columns as i64 + column + i).collect();
    let x = permuted(c, x, order);
    let x = reshaped(c, x, &[lead, &[rows * columns]].concat());
    let places = c.integers(places);
    one(c.op("Gather", &[x, places], &[("axis", Attribute::Int(-1))]))
}

/// The last axis as the diagonal of a matrix of zeros.
fn embedded_diagonal(c: &mut Call<'_>) -> Results {
    let (dtype, wanted) = c.result(0)?;
    let (x, shape) = (c.input_as(0, dtype)?, c.shape(0)?.to_vec());
    let rank = wanted.len() as i64;
    let (first, second) =
        (c.axis("dim1", rank).unwrap_or(rank - 2), c.axis("dim2", rank).unwrap_or(rank - 1));
    let order = last_two(rank, first, second);
    let sizes: Vec<usize> = order.iter().map(|&a| wanted[a as usize]).collect();
    let (lead, &[rows, columns]) = sizes.split_last_chunk::<2>()?;
    let (row, column) = start(c.int("offset").unwrap_or(0));
    let held = *shape.last()? as i64;
    // Each place of the matrix takes the element that belongs there, or a zero that is put behind the last.
    let at = |i: i64| {
        let (r, k) = (i / columns as i64 - row, i % columns as i64 - column);
        if r == k && (0..held).contains(&r) { r } else { held }
    };
    let places = (0..(rows * columns) as i64).map(at).collect();
    let mut single = shape.clone();
    *single.last_mut()? = 1;
    let zero = c.filled(0.0, &single, dtype)?;
    let x = c.op("Concat", &[x, zero], &[("axis", Attribute::Int(-1))]);
    let places = c.integers(places);
    let y = c.op("Gather", &[x, places], &[("axis", Attribute::Int(-1))]);
    let y = reshaped(c, y, &[lead, &[rows, columns]].concat());
    let mut back = vec![0; order.len()];
    for (i, &a) in order.iter().enumerate() {
        back[a as usize] = i as i64;
    }
    one(permuted(c, y, back))
}

/// Windows of `size` along an axis, `step` apart; the places within a window become the last axis.
fn unfold(c: &mut Call<'_>) -> Results {
    let (x, shape) = (c.input(0)?, c.shape(0)?.to_vec());
    let rank = shape.len() as i64;
    let axis = c.axis("dimension", rank)?;
    let (size, step) = (c.int("size")?, c.int("step")?);
    let count = *c.result(0)?.1.get(usize::try_from(axis).ok()?)? as i64;
    let places = (0..count).flat_map(|w| (0..size).map(move |i| w * step + i)).collect();
    let places = c.integers(places);
    let places = reshaped(c, places, &[usize::try_from(count).ok()?, usize::try_from(size).ok()?]);
    let x = c.op("Gather", &[x, places], &[("axis", Attribute::Int(axis))]);
    let order = (0..=rank).filter(|&a| a != axis + 1).chain([axis + 1]).collect();
    one(permuted(c, x, order))
}

/// Each window of an image as a column: [n, channels * window, windows].
fn windows_as_columns(c: &mut Call<'_>) -> Results {
    let (x, shape) = (c.input(0)?, c.shape(0)?.to_vec());
    let &[n, channels, height, width] = shape.as_slice() else { return None };
    let two = |name: &str, otherwise: i64| {
        let list = c.ints(name).unwrap_or_else(|| vec![otherwise]);
        Some((*list.first()?, *list.last()?))
    };
    let (kernel, dilation) = (two("kernel_size", 1)?, two("dilation", 1)?);
    let (padding, stride) = (two("padding", 0)?, two("stride", 1)?);
    let pads = c.integers(vec![0, 0, padding.0, padding.1, 0, 0, padding.0, padding.1]);
    let zero = c.scalar(0.0, c.dtype(0)?)?;
    let x = c.op("Pad", &[x, pads, zero], &[]);
    let (height, width) = (height as i64 + 2 * padding.0, width as i64 + 2 * padding.1);
    let windows = |size: i64, kernel: i64, dilation: i64, stride: i64| {
        (size - dilation * (kernel - 1) - 1).checked_div(stride).map_or(0, |n| n + 1).max(0)
    };
    let rows = windows(height, kernel.0, dilation.0, stride.0);
    let columns = windows(width, kernel.1, dilation.1, stride.1);
    let mut places = Vec::new();
    for (i, j) in (0..kernel.0).flat_map(|i| (0..kernel.1).map(move |j| (i, j))) {
        for (r, k) in (0..rows).flat_map(|r| (0..columns).map(move |k| (r, k))) {
            places.push((r * stride.0 + i * dilation.0) * width + k * stride.1 + j * dilation.1);
        }
    }
    let places = c.integers(places);
    let x = reshaped(c, x, &[n, channels, usize::try_from(height * width).ok()?]);
    let x = c.op("Gather", &[x, places], &[("axis", Attribute::Int(-1))]);
    let (_, shape) = c.result(0)?;
    one(reshaped(c, x, &shape))
}
