//! Pooling. The places of maxima are counted within each plane by ATen, over the whole tensor by ONNX.

use isotrace_graph::Attribute;
use isotrace_tensor::DType;

use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_adaptive_avg_pool2d", adaptive),
    ("_adaptive_avg_pool3d", adaptive),
    ("avg_pool1d", |c| pool(c, "AveragePool")),
    ("avg_pool2d", |c| pool(c, "AveragePool")),
    ("avg_pool3d", |c| pool(c, "AveragePool")),
    ("max_pool2d_with_indices", |c| pool(c, "MaxPool")),
    ("max_pool3d_with_indices", |c| pool(c, "MaxPool")),
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

/// To one element an axis, or by windows of one size.
fn adaptive(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    let sizes = c.shape(0)?.get(2..)?.to_vec();
    let wanted = c.ints("output_size")?;
    if wanted.iter().all(|&n| n == 1) {
        return one(c.op("GlobalAveragePool", &[x], &[]));
    }
    let windows: Option<Vec<i64>> = sizes
        .iter()
        .zip(&wanted)
        .map(|(&n, &w)| (w > 0 && n as i64 % w == 0).then(|| n as i64 / w))
        .collect();
    let windows = windows?;
    let settings =
        [("kernel_shape", Attribute::Ints(windows.clone())), ("strides", Attribute::Ints(windows))];
    one(c.op("AveragePool", &[x], &settings))
}
