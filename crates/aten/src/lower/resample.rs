//! Images in another size, and images looked at through a grid.

use isotrace_graph::{Attribute, ValueId};

use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_upsample_bicubic2d_aa", |c| resize(c, &Filter { smoothed: true, ..Filter::new("cubic", -0.5) })),
    ("_upsample_bilinear2d_aa", |c| resize(c, &Filter { smoothed: true, ..Filter::new("linear", 0.0) })),
    ("_upsample_nearest_exact1d", |c| resize(c, &Filter::new("centre", 0.0))),
    ("_upsample_nearest_exact2d", |c| resize(c, &Filter::new("centre", 0.0))),
    ("_upsample_nearest_exact3d", |c| resize(c, &Filter::new("centre", 0.0))),
    ("grid_sampler_2d", grid_sample),
    ("grid_sampler_3d", grid_sample),
    ("upsample_bicubic2d", |c| resize(c, &Filter::new("cubic", -0.75))),
    ("upsample_bilinear2d", |c| resize(c, &Filter::new("linear", 0.0))),
    ("upsample_linear1d", |c| resize(c, &Filter::new("linear", 0.0))),
    ("upsample_nearest1d", |c| resize(c, &Filter::new("nearest", 0.0))),
    ("upsample_nearest2d", |c| resize(c, &Filter::new("nearest", 0.0))),
    ("upsample_nearest3d", |c| resize(c, &Filter::new("nearest", 0.0))),
    ("upsample_trilinear3d", |c| resize(c, &Filter::new("linear", 0.0))),
];

/// How neighbours are weighed.
struct Filter {
    /// `linear`, `cubic`, `nearest` (the element at the corner), `centre` (the one whose centre is nearest).
    mode: &'static str,
    /// The coefficient of cubic interpolation, in which kernels with and without smoothing differ.
    cubic: f32,
    /// Whether a smaller image takes the mean of all that it covers.
    smoothed: bool,
}

impl Filter {
    fn new(mode: &'static str, cubic: f32) -> Self {
        Self { mode, cubic, smoothed: false }
    }
}

fn text(word: &str) -> Attribute {
    Attribute::Bytes(word.as_bytes().to_vec())
}

/// ATen places elements by the factor where the user gave one, else by the two sizes; so does Resize.
fn resize(c: &mut Call<'_>, filter: &Filter) -> Results {
    let (x, shape, (_, wanted)) = (c.input(0)?, c.shape(0)?.to_vec(), c.result(0)?);
    let spatial = shape.len().checked_sub(2)?;
    let mut settings = match filter.mode {
        "nearest" => vec![
            ("mode", text("nearest")),
            ("coordinate_transformation_mode", text("asymmetric")),
            ("nearest_mode", text("floor")),
        ],
        "centre" => vec![
            ("mode", text("nearest")),
            ("coordinate_transformation_mode", text("half_pixel")),
            ("nearest_mode", text("round_prefer_ceil")),
        ],
        mode => {
            let centres = if c.flag("align_corners") { "align_corners" } else { "half_pixel" };
            vec![("mode", text(mode)), ("coordinate_transformation_mode", text(centres))]
        }
    };
    if filter.mode == "cubic" {
        settings.push(("cubic_coeff_a", Attribute::Float(filter.cubic)));
    }
    if filter.smoothed {
        // Beyond the border there is nothing: the shares of what is there are made to sum up to one.
        settings.push(("antialias", Attribute::Int(1)));
        settings.push(("exclude_outside", Attribute::Int(1)));
    }
    let names: &[&str] = match spatial {
        1 => &["scales"],
        2 => &["scales_h", "scales_w"],
        3 => &["scales_d", "scales_h", "scales_w"],
        _ => return None,
    };
    let factors: Option<Vec<f64>> = names.iter().map(|name| c.number(name)).collect();
    let reached = |f: &Vec<f64>| {
        f.iter().zip(&shape[2..]).zip(&wanted[2..]).all(|((f, &n), &w)| (n as f64 * f).floor() == w as f64)
    };
    let dtype = c.dtype(0)?;
    if let Some(factors) = factors.filter(reached) {
        let scales: Vec<f32> = [1.0, 1.0].into_iter().chain(factors.iter().map(|&f| f as f32)).collect();
        let scales = c.constant(isotrace_tensor::Tensor::vector(scales));
        return one(c.typed(dtype, "Resize", &[Some(x), None, Some(scales)], &settings));
    }
    let sizes: ValueId = super::movement::sizes(c, &wanted);
    one(c.typed(dtype, "Resize", &[Some(x), None, None, Some(sizes)], &settings))
}

fn grid_sample(c: &mut Call<'_>) -> Results {
    let (x, grid) = (c.input(0)?, c.input(1)?);
    let mode = *["linear", "nearest", "cubic"].get(usize::try_from(c.int("interpolation_mode")?).ok()?)?;
    let padding = *["zeros", "border", "reflection"].get(usize::try_from(c.int("padding_mode")?).ok()?)?;
    let settings = [
        ("mode", text(mode)),
        ("padding_mode", text(padding)),
        ("align_corners", Attribute::Int(i64::from(c.flag("align_corners")))),
    ];
    one(c.op("GridSample", &[x, grid], &settings))
}
