//! Backward formulas of convolutions and pooling.
//!
//! The gradient of a convolution's input is the transposed convolution of the output's gradient. That of its weights is
//! a convolution too: of the input by the output's gradient, with the batch in the place of the channels, and with
//! strides and dilations in each other's.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::{DType, Tensor};

use super::movement::{permuted, reshaped, sizes, sliced};
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_adaptive_avg_pool2d_backward", adaptive),
    ("_adaptive_avg_pool3d_backward", adaptive),
    ("avg_pool2d_backward", average),
    ("avg_pool3d_backward", average),
    ("convolution_backward", convolution),
    ("max_pool2d_with_indices_backward", maximum),
    ("max_pool3d_with_indices_backward", maximum),
];

/// How windows lie, an entry for each spatial axis.
struct Windows {
    strides: Vec<i64>,
    padding: Vec<i64>,
    dilations: Vec<i64>,
    groups: i64,
}

fn list(c: &Call<'_>, name: &str, default: i64, spatial: usize) -> Vec<i64> {
    let list = c.ints(name).filter(|l| !l.is_empty()).unwrap_or_else(|| vec![default]);
    if list.len() == 1 { vec![list[0]; spatial] } else { list }
}

fn twice(padding: &[i64]) -> Attribute {
    Attribute::Ints(padding.iter().chain(padding).copied().collect())
}

impl Windows {
    fn settings(&self) -> Vec<(&'static str, Attribute)> {
        vec![
            ("strides", Attribute::Ints(self.strides.clone())),
            ("pads", twice(&self.padding)),
            ("dilations", Attribute::Ints(self.dilations.clone())),
            ("group", Attribute::Int(self.groups)),
        ]
    }

    /// What a transposed convolution of `small` by windows of `kernel` lacks to fill `large`.
    fn missing(&self, small: &[usize], kernel: &[usize], large: &[usize]) -> Vec<i64> {
        (0..self.strides.len())
            .map(|i| {
                let reach = (small[i] as i64 - 1) * self.strides[i] - 2 * self.padding[i];
                large[i] as i64 - (reach + self.dilations[i] * (kernel[i] as i64 - 1) + 1)
            })
            .collect()
    }

    /// The gradient of weights [out, in/groups, kernel] that took `x` to what has the gradient `g`.
    fn of_weights(
        &self,
        c: &mut Call<'_>,
        (x, x_shape): (ValueId, &[usize]),
        (g, g_shape): (ValueId, &[usize]),
        weight: &[usize],
    ) -> Option<ValueId> {
        let groups = usize::try_from(self.groups).ok()?;
        let (n, each) = (x_shape[0], weight[1]);
        let spatial = x_shape.len() - 2;
        // [N, groups, in/groups, ...] to [in/groups, groups N, ...]: the batch takes the place of a group's channels.
        let x = reshaped(c, x, &[&[n, groups, each], &x_shape[2..]].concat());
        let order = [2, 1, 0].into_iter().chain(3..3 + spatial as i64).collect();
        let x = permuted(c, x, order);
        let x = reshaped(c, x, &[&[each, groups * n], &x_shape[2..]].concat());
        let swap: Vec<i64> = [1, 0].into_iter().chain(2..2 + spatial as i64).collect();
        let g = permuted(c, g, swap.clone());
        debug_assert_eq!(g_shape.len(), x_shape.len(), "both have a batch, channels and the same space");
        let settings = [
            ("strides", Attribute::Ints(self.dilations.clone())),
            ("dilations", Attribute::Ints(self.strides.clone())),
            ("pads", twice(&self.padding)),
            ("group", Attribute::Int(self.groups)),
        ];
        let mut out = c.op("Conv", &[x, g], &settings);
        // Rows of the input that no window reached give places behind the kernel's.
        for (i, &k) in weight[2..].iter().enumerate() {
            out = sliced(c, out, i as i64 + 2, [0, k as i64, 1]);
        }
        Some(permuted(c, out, swap))
    }
}

/// Inputs: g, x, weight.
fn convolution(c: &mut Call<'_>) -> Results {
    let [g_shape, x_shape, weight] = [0, 1, 2].map(|at| c.shape(at).map(<[usize]>::to_vec));
    let (g_shape, x_shape, weight) = (g_shape?, x_shape?, weight?);
    let spatial = x_shape.len().checked_sub(2).filter(|&n| n > 0)?;
    let windows = Windows {
        strides: list(c, "stride", 1, spatial),
        padding: list(c, "padding", 0, spatial),
        dilations: list(c, "dilation", 1, spatial),
        groups: c.int("groups").unwrap_or(1),
    };
    let (g, x, w) = (c.wide(0)?, c.wide(1)?, c.wide(2)?);
    let transposed = c.flag("transposed");
    let mut out = vec![None; 3];
    if c.asked(0) {
        let mut settings = windows.settings();
        let v = if transposed {
            c.op("Conv", &[g, w], &settings)
        } else {
            let missing = windows.missing(&g_shape[2..], &weight[2..], &x_shape[2..]);
            settings.push(("output_padding", Attribute::Ints(missing)));
            c.op("ConvTranspose", &[g, w], &settings)
        };
        out[0] = Some(c.as_result(v, 0)?);
    }
    if c.asked(1) {
        let (from, to) = ((x, x_shape.as_slice()), (g, g_shape.as_slice()));
        let (from, to) = if transposed { (to, from) } else { (from, to) };
        let v = windows.of_weights(c, from, to, &weight)?;
        out[1] = Some(c.as_result(v, 1)?);
    }
    if c.asked(2) && c.result(2).is_some() {
        let axes: Vec<i64> = (0..g_shape.len() as i64).filter(|&a| a != 1).collect();
        let v = c.over("ReduceSum", g, &axes, false);
        out[2] = Some(c.as_result(v, 2)?);
    }
    Some(out)
}

/// Each gradient goes to the place from which its maximum came; inputs: g, x, places in a plane.
fn maximum(c: &mut Call<'_>) -> Results {
    let (g, places, shape) = (c.input(0)?, c.input(2)?, c.shape(1)?.to_vec());
    let space = if c.operator().starts_with("max_pool3d") { 3 } else { 2 };
    let at = shape.len().checked_sub(space)?;
    let (planes, size): (usize, usize) = (shape[..at].iter().product(), shape[at..].iter().product());
    let windows = c.shape(0)?[at..].iter().product();
    let g = reshaped(c, g, &[planes, windows]);
    let places = reshaped(c, places, &[planes, windows]);
    let zero = c.number_like(0.0, g)?;
    let target = sizes(c, &[planes, size]);
    let zeros = c.op("Expand", &[zero, target], &[]);
    let settings = [("axis", Attribute::Int(1)), ("reduction", Attribute::Bytes(b"add".to_vec()))];
    let sum = c.op("ScatterElements", &[zeros, places, g], &settings);
    one(reshaped(c, sum, &shape))
}

/// Each gradient, divided by the size of its window, goes to all of the window.
fn average(c: &mut Call<'_>) -> Results {
    let shape = c.shape(1)?.to_vec();
    let space = if c.operator().starts_with("avg_pool3d") { 3 } else { 2 };
    let kernel: Vec<usize> =
        list(c, "kernel_size", 1, space).iter().map(|&k| usize::try_from(k).ok()).collect::<Option<_>>()?;
    let mut strides = list(c, "stride", 0, space);
    for (s, &k) in strides.iter_mut().zip(&kernel) {
        *s = if *s == 0 { k as i64 } else { *s };
    }
    let padding = list(c, "padding", 0, space);
    let whole = c.int("count_include_pad").unwrap_or(1) == 1;
    let divisor = c.number("divisor_override");
    let windows = Windows { strides, padding, dilations: vec![1; space], groups: 1 };
    spread(c, &shape, &kernel, &windows, whole, divisor)
}

/// Windows of one size that share nothing; others stay opaque.
fn adaptive(c: &mut Call<'_>) -> Results {
    let shape = c.shape(1)?.to_vec();
    let space = if c.operator().starts_with("_adaptive_avg_pool3d") { 3 } else { 2 };
    let at = shape.len().checked_sub(space)?;
    let small = c.shape(0)?[at..].to_vec();
    let fits = shape[at..].iter().zip(&small).all(|(n, &w)| w > 0 && n % w == 0);
    let kernel: Vec<usize> = shape[at..].iter().zip(&small).map(|(n, &w)| n / w.max(1)).collect();
    let strides = kernel.iter().map(|&k| k as i64).collect();
    let windows = Windows { strides, padding: vec![0; space], dilations: vec![1; space], groups: 1 };
    if fits { spread(c, &shape, &kernel, &windows, true, None) } else { None }
}

fn spread(
    c: &mut Call<'_>,
    shape: &[usize],
    kernel: &[usize],
    windows: &Windows,
    whole: bool,
    divisor: Option<f64>,
) -> Results {
    let space = kernel.len();
    let at = shape.len().checked_sub(space)?;
    let small = c.shape(0)?[at..].to_vec();
    let planes = shape[..at].iter().product();
    let g = c.wide(0)?;
    let g = reshaped(c, g, &[&[planes, 1], small.as_slice()].concat());
    // How many elements each window has, the product of those along each axis.
    let along = |i: usize| -> Vec<f64> {
        let (n, k, s, p) = (shape[at + i] as i64, kernel[i] as i64, windows.strides[i], windows.padding[i]);
        let size = |o: i64| {
            let start = o * s - p;
            let end = (start + k).min(n + p);
            if whole { end - start } else { end.min(n) - start.max(0) }
        };
        (0..small[i] as i64).map(|o| size(o) as f64).collect()
    };
    let mut counts = vec![1.0];
    for i in 0..space {
        let line = along(i);
        counts = counts.iter().flat_map(|c| line.iter().map(move |n| c * n)).collect();
    }
    if let Some(divisor) = divisor {
        counts.fill(divisor);
    }
    let counts = Tensor::from_vec(&[&[1, 1], small.as_slice()].concat(), counts).ok()?;
    let counts = c.constant(counts.cast(c.type_of(g).unwrap_or(DType::F32)).ok()?);
    let g = c.div(g, counts);
    let ones = c.filled(1.0, &[&[1, 1], kernel].concat(), c.type_of(g)?)?;
    let missing = windows.missing(&small, kernel, &shape[at..]);
    // Windows that hang over the end are cut, rows behind the last window are 0.
    let ends = windows.padding.iter().zip(&missing).map(|(p, m)| p - m.min(&0));
    let settings = [
        ("strides", Attribute::Ints(windows.strides.clone())),
        ("pads", Attribute::Ints(windows.padding.iter().copied().chain(ends).collect())),
        ("output_padding", Attribute::Ints(missing.iter().map(|m| *m.max(&0)).collect())),
    ];
    let sum = c.op("ConvTranspose", &[g, ones], &settings);
    let sum = reshaped(c, sum, shape);
    one(c.as_result(sum, 0)?)
}
