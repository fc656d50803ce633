//! Pooling. The places of maxima are counted within each plane by ATen, over the whole tensor by ONNX.

use isotrace_graph::Attribute;
use isotrace_tensor::{DType, Tensor};

use super::movement::{permuted, reshaped};
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_adaptive_avg_pool2d", adaptive),
    ("_adaptive_avg_pool3d", adaptive),
    ("adaptive_avg_pool1d", adaptive),
    ("adaptive_max_pool1d", adaptive_max),
    ("adaptive_max_pool2d", adaptive_max),
    ("adaptive_max_pool3d", adaptive_max),
    ("avg_pool1d", |c| pool(c, "AveragePool")),
    ("avg_pool2d", |c| pool(c, "AveragePool")),
    ("avg_pool3d", |c| pool(c, "AveragePool")),
    ("col2im", columns_as_image),
    ("max_pool2d_with_indices", |c| pool(c, "MaxPool")),
    ("max_pool3d_with_indices", |c| pool(c, "MaxPool")),
    ("max_unpool2d", unpool),
    ("max_unpool3d", unpool),
    ("mkldnn_max_pool2d", |c| pool(c, "MaxPool")),
];

fn pool(c: &mut Call<'_>, op: &str) -> Results {
    let x = c.input(0)?;
    let kernel = c.ints("kernel_size")?;
    // Without the axis of the batch ONNX has no pooling.
    let spatial = c.shape(0)?.len().checked_sub(2)?;
    if c.setting("divisor_override").is_some() {
        return None;
    }
    let list = |name: &str, default: &[i64]| {
        let mut list = c.ints(name).filter(|l| !l.is_empty()).unwrap_or_else(|| default.to_vec());
        if list.len() == 1 {
            list = vec![list[0]; spatial];
        }
        list
    };
    let kernel = if kernel.len() == 1 { vec![kernel[0]; spatial] } else { kernel };
    if kernel.len() != spatial {
        return None;
    }
    let padding = list("padding", &[0]);
    let mut settings = vec![
        ("strides", Attribute::Ints(list("stride", &kernel))),
        ("pads", Attribute::Ints(padding.iter().chain(&padding).copied().collect())),
        ("ceil_mode", Attribute::Int(i64::from(c.flag("ceil_mode")))),
    ];
    if op == "MaxPool" {
        settings.push(("dilations", Attribute::Ints(list("dilation", &[1]))));
    } else {
        settings.push(("count_include_pad", Attribute::Int(c.int("count_include_pad").unwrap_or(1))));
    }
    settings.push(("kernel_shape", Attribute::Ints(kernel)));
    if op == "MaxPool" && c.result(1).is_some() {
        let types = [c.dtype(0)?, DType::I64];
        let made = c.several(op, &[Some(x)], &types, &settings);
        let plane = c.scalar(c.shape(0)?[2..].iter().product::<usize>() as f64, DType::I64)?;
        let places = c.op("Mod", &[made[1], plane], &[]);
        return Some(vec![Some(made[0]), Some(places)]);
    }
    one(c.op(op, &[x], &settings))
}

/// Windows that overlap put back where they came from, and summed up.
fn columns_as_image(c: &mut Call<'_>) -> Results {
    let x = c.input(0).filter(|_| c.rank(0) == Some(3))?;
    let (size, kernel) = (c.ints("output_size")?, c.ints("kernel_size")?);
    let padding = c.ints("padding")?;
    let settings = [
        ("dilations", Attribute::Ints(c.ints("dilation")?)),
        ("pads", Attribute::Ints(padding.iter().chain(&padding).copied().collect())),
        ("strides", Attribute::Ints(c.ints("stride")?)),
    ];
    let (size, kernel) = (c.integers(size), c.integers(kernel));
    one(c.op("Col2Im", &[x, size, kernel], &settings))
}

/// Maxima put back at their places, counted within each plane, zeros around them.
fn unpool(c: &mut Call<'_>) -> Results {
    let (shape, (dtype, wanted)) = (c.shape(0)?.to_vec(), c.result(0)?);
    let spatial = if c.operator().ends_with("3d") { 3 } else { 2 };
    let planes: usize = shape[..shape.len().checked_sub(spatial)?].iter().product();
    let flat = |shape: &[usize]| shape[shape.len() - spatial..].iter().product::<usize>();
    let (x, places) = (c.input(0)?, c.input(1)?);
    let x = reshaped(c, x, &[planes, flat(&shape)]);
    let places = reshaped(c, places, &[planes, flat(&shape)]);
    let zeros = c.filled(0.0, &[planes, flat(&wanted)], dtype)?;
    let y = c.op("ScatterElements", &[zeros, places, x], &[("axis", Attribute::Int(1))]);
    one(reshaped(c, y, &wanted))
}

/// The windows of an adaptive pool along one axis: window i of n begins at floor(i size / n) and ends before
/// ceil((i + 1) size / n).
fn adaptive_windows(size: usize, n: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..n).map(move |i| i * size / n..((i + 1) * size).div_ceil(n))
}

/// Axis after axis: windows of one length, their last element repeated, which changes no maximum. Places are opaque.
fn adaptive_max(c: &mut Call<'_>) -> Results {
    let (mut x, shape) = (c.input(0)?, c.shape(0)?.to_vec());
    let wanted = c.ints("output_size")?;
    let first = shape.len().checked_sub(wanted.len())?;
    for (axis, &n) in (first..).zip(&wanted) {
        let n = usize::try_from(n).ok()?;
        let windows: Vec<_> = adaptive_windows(shape[axis], n).collect();
        let length = windows.iter().map(ExactSizeIterator::len).max()?;
        let places = windows.iter().flat_map(|w| (0..length).map(|i| (w.start + i).min(w.end - 1) as i64));
        let places = c.integers(places.collect());
        let places = reshaped(c, places, &[n, length]);
        let taken = c.op("Gather", &[x, places], &[("axis", Attribute::Int(axis as i64))]);
        x = c.over("ReduceMax", taken, &[axis as i64 + 1], false);
    }
    Some(vec![Some(x), None])
}

/// Axis after axis: the product with a matrix that holds each window's share of its elements.
fn adaptive_mean(c: &mut Call<'_>, wanted: &[i64]) -> Results {
    let shape = c.shape(0)?.to_vec();
    let rank = shape.len();
    let mut x = c.wide(0)?;
    for (axis, &n) in (rank.checked_sub(wanted.len())?..).zip(wanted) {
        let n = usize::try_from(n).ok()?;
        let mut shares = vec![0.0; shape[axis] * n];
        for (i, window) in adaptive_windows(shape[axis], n).enumerate() {
            let share = (window.len() as f64).recip();
            window.for_each(|at| shares[at * n + i] = share);
        }
        let shares = c.constant(Tensor::from_vec(&[shape[axis], n], shares).ok()?);
        let shares = c.cast(shares, c.type_of(x)?)?;
        let mut order: Vec<i64> = (0..rank as i64).collect();
        order.swap(axis, rank - 1);
        let turned = permuted(c, x, order.clone());
        let pooled = c.matmul(turned, shares);
        x = permuted(c, pooled, order);
    }
    one(c.as_result(x, 0)?)
}

/// To one element an axis, or by windows.
fn adaptive(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    let wanted = c.ints("output_size")?;
    // Without the axis of the batch ONNX has no pooling.
    if c.shape(0)?.len() != wanted.len() + 2 {
        return adaptive_mean(c, &wanted);
    }
    let sizes = c.shape(0)?[2..].to_vec();
    if wanted.iter().all(|&n| n == 1) {
        return one(c.op("GlobalAveragePool", &[x], &[]));
    }
    let windows: Option<Vec<i64>> = sizes
        .iter()
        .zip(&wanted)
        .map(|(&n, &w)| (w > 0 && n as i64 % w == 0).then(|| n as i64 / w))
        .collect();
    let Some(windows) = windows else { return adaptive_mean(c, &wanted) };
    let settings =
        [("kernel_shape", Attribute::Ints(windows.clone())), ("strides", Attribute::Ints(windows))];
    one(c.op("AveragePool", &[x], &settings))
}
