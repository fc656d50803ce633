//! Resize and its older form Upsample: nearest, linear and cubic interpolation along any axes.
//!
//! Each axis is resampled by itself: an output place is a weighted sum of a few input places (see
//! `resample.rs`). Nearest picks one place, and moves elements of any type.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, element_count, normalise_axis, strides};

use super::matmul::absolute;
use super::resample::{Axis, Coordinates, Filter, Mode, Nearest, Place};
use crate::budget::{self, Budget, Unit};
use crate::moves::{Move, move_elements, room};
use crate::{Call, Float, Flow, OpError, Operator, attributes, for_float};

/// What is done about the aspect ratio when sizes are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Stretch,
    NotLarger,
    NotSmaller,
}

#[derive(Debug)]
struct Resize {
    filter: Filter,
    policy: Policy,
    axes: Option<Vec<i64>>,
    extrapolation: f64,
    /// Places of the inputs roi, scales and sizes.
    places: [Option<usize>; 3],
    /// Scales that are an attribute.
    scales: Option<Vec<f32>>,
}

/// Parses a Resize.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    if node.version < 11 {
        return upsample(node);
    }
    let unknown = |name: &str, found: &str| OpError::Setting(format!("{name} {found:?} is unknown"));
    let mode = attributes::text_or(node, "mode", "nearest")?;
    let cubic = f64::from(attributes::float_or(node, "cubic_coeff_a", -0.75)?);
    let nearest = attributes::text_or(node, "nearest_mode", "round_prefer_floor")?;
    let nearest = match nearest.as_str() {
        "round_prefer_floor" => Nearest::RoundPreferFloor,
        "round_prefer_ceil" => Nearest::RoundPreferCeil,
        "floor" => Nearest::Floor,
        "ceil" => Nearest::Ceil,
        other => return Err(unknown("nearest_mode", other)),
    };
    let mode = match mode.as_str() {
        "nearest" => Mode::Nearest(nearest),
        "linear" => Mode::Linear,
        "cubic" => Mode::Cubic(cubic),
        other => return Err(unknown("mode", other)),
    };
    let coordinates = attributes::text_or(node, "coordinate_transformation_mode", "half_pixel")?;
    let coordinates = match coordinates.as_str() {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_half_pixel_for_nn" => Coordinates::TfHalfPixelForNearest,
        "tf_crop_and_resize" => Coordinates::TfCropAndResize,
        other => return Err(unknown("coordinate_transformation_mode", other)),
    };
    let policy = match attributes::text_or(node, "keep_aspect_ratio_policy", "stretch")?.as_str() {
        "stretch" => Policy::Stretch,
        "not_larger" => Policy::NotLarger,
        "not_smaller" => Policy::NotSmaller,
        other => return Err(unknown("keep_aspect_ratio_policy", other)),
    };
    Ok(Box::new(Resize {
        filter: Filter {
            mode,
            coordinates,
            exclude_outside: attributes::flag(node, "exclude_outside", false)?,
            antialias: attributes::flag(node, "antialias", false)?,
        },
        policy,
        axes: attributes::ints(node, "axes")?,
        extrapolation: attributes::float_or(node, "extrapolation_value", 0.0)?.into(),
        places: [Some(1), Some(2), Some(3)],
        scales: None,
    }))
}

/// Parses an Upsample (scales as an attribute below version 9, as an input from then on), or a Resize of version 10.
pub fn upsample(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let mode = match attributes::text_or(node, "mode", "nearest")?.as_str() {
        "nearest" => Mode::Nearest(Nearest::Simple),
        "linear" | "bilinear" => Mode::Linear,
        other => {
            return Err(OpError::Setting(format!("mode {other:?} is unknown; expected nearest or linear")));
        }
    };
    let mut scales = attributes::floats(node, "scales")?;
    if node.version < 7 {
        let height = attributes::float_or(node, "height_scale", 1.0)?;
        scales = Some(vec![1.0, 1.0, height, attributes::float_or(node, "width_scale", 1.0)?]);
    }
    Ok(Box::new(Resize {
        filter: Filter {
            mode,
            coordinates: Coordinates::Asymmetric,
            exclude_outside: false,
            antialias: false,
        },
        policy: Policy::Stretch,
        axes: None,
        extrapolation: 0.0,
        places: [None, scales.is_none().then_some(1), None],
        scales,
    }))
}

/// Parses com.microsoft.nchwc's Upsample: whole scales as an attribute.
pub fn upsample_blocked(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let mode = match attributes::text_or(node, "mode", "nearest")?.as_str() {
        "nearest" => Mode::Nearest(Nearest::Floor),
        "linear" => Mode::Linear,
        other => {
            return Err(OpError::Setting(format!("mode {other:?} is unknown; expected nearest or linear")));
        }
    };
    let coordinates =
        match attributes::text_or(node, "coordinate_transformation_mode", "asymmetric")?.as_str() {
            "half_pixel" if mode == Mode::Linear => Coordinates::HalfPixel,
            "align_corners" if mode == Mode::Linear => Coordinates::AlignCorners,
            _ => Coordinates::Asymmetric,
        };
    let scales = attributes::ints(node, "scales")?.unwrap_or_default();
    Ok(Box::new(Resize {
        filter: Filter { mode, coordinates, exclude_outside: false, antialias: false },
        policy: Policy::Stretch,
        axes: None,
        extrapolation: 0.0,
        places: [None; 3],
        scales: Some(scales.iter().map(|&s| s as f32).collect()),
    }))
}

/// Axes to resample, each with its places.
type Resampled = Vec<(usize, Axis)>;

impl Resize {
    /// The axes to resample with their weights, and the output's shape.
    fn plan(&self, call: &Call<'_>) -> Result<(Resampled, Vec<usize>), OpError> {
        let x = call.need(0, "X")?;
        let rank = x.rank();
        let axes: Vec<usize> = match &self.axes {
            None => (0..rank).collect(),
            Some(axes) => axes.iter().map(|&a| normalise_axis(a, rank)).collect::<Result<_, _>>()?,
        };
        let given = |k: usize| self.places[k].and_then(|i| call.get(i)).filter(|t| !t.is_empty());
        let fit = |name: &str, found: usize, expected: usize| {
            if found == expected {
                return Ok(());
            }
            Err(OpError::Input(format!(
                "{name} holds {found} numbers, expected {expected} for {} axes",
                axes.len()
            )))
        };
        let roi = match given(0).filter(|_| self.filter.coordinates == Coordinates::TfCropAndResize) {
            None => None,
            Some(roi) => {
                fit("roi", roi.len(), 2 * axes.len())?;
                Some(roi.to_f64()?)
            }
        };
        let scales: Option<Vec<f64>> = match (&self.scales, given(1)) {
            (Some(scales), _) => Some(scales.iter().map(|&s| f64::from(s)).collect()),
            (None, Some(scales)) => Some(scales.to_f64()?.into_owned()),
            (None, None) => None,
        };
        // (output size, scale) of each axis.
        let sizes: Vec<(usize, f64)> = match (scales, given(2)) {
            (Some(scales), _) => {
                fit("scales", scales.len(), axes.len())?;
                axes.iter()
                    .zip(scales)
                    .map(|(&a, s)| {
                        if !(s > 0.0 && s.is_finite()) {
                            return Err(OpError::Input(format!(
                                "the scale {s} of axis {a} must be positive"
                            )));
                        }
                        // Runtimes multiply in f32.
                        Ok(((x.shape()[a] as f32 * s as f32).floor() as usize, s))
                    })
                    .collect::<Result<_, _>>()?
            }
            (None, Some(sizes)) => {
                fit("sizes", sizes.len(), axes.len())?;
                self.fitted(x.shape(), &axes, &sizes.to_i64()?)?
            }
            (None, None) => return Err(OpError::Input("neither scales nor sizes were given".into())),
        };
        let mut shape = x.shape().to_vec();
        let mut planned = Vec::new();
        for (i, (&a, (size, scale))) in axes.iter().zip(sizes).enumerate() {
            shape[a] = size;
            element_count(&shape)?;
            let input = x.shape()[a];
            if input == 0 && size > 0 {
                return Err(OpError::Input(format!("axis {a} is empty and cannot become {size} long")));
            }
            let region = roi.as_ref().map(|r| (r[i], r[axes.len() + i]));
            if input != size || scale != 1.0 || region.is_some_and(|r| r != (0.0, 1.0)) {
                planned.push((a, self.filter.axis(input, size, scale, region)?));
            }
        }
        Ok((planned, shape))
    }

    fn fitted(&self, shape: &[usize], axes: &[usize], sizes: &[i64]) -> Result<Vec<(usize, f64)>, OpError> {
        let wanted: Vec<usize> = sizes
            .iter()
            .map(|&s| usize::try_from(s))
            .collect::<Result<_, _>>()
            .map_err(|_| OpError::Input(format!("sizes {sizes:?} must not be negative")))?;
        let ratios = || axes.iter().zip(&wanted).map(|(&a, &s)| s as f64 / shape[a] as f64);
        let scale = match self.policy {
            Policy::Stretch => return Ok(wanted.iter().copied().zip(ratios()).collect()),
            Policy::NotLarger => ratios().fold(f64::INFINITY, f64::min),
            Policy::NotSmaller => ratios().fold(0.0, f64::max),
        };
        Ok(axes.iter().map(|&a| (((scale * shape[a] as f64) + 0.5).floor() as usize, scale)).collect())
    }

    fn interpolated<T: Float>(
        &self,
        x: &Tensor,
        axes: &[(usize, Axis)],
        out_shape: &[usize],
        weight: &dyn Fn(f64) -> f64,
    ) -> Result<Vec<T>, OpError> {
        let mut shape = x.shape().to_vec();
        let mut data = x.as_slice::<T>()?.to_vec();
        for (a, axis) in axes {
            data = resampled(&data, &shape, *a, axis, &|_, w| weight(w))?;
            shape[*a] = axis.places.len();
        }
        fill_outside(&mut data, axes, out_shape, T::of(self.extrapolation));
        Ok(data)
    }

    /// The sums of absolute products, and what a coordinate's rounding adds to them, to first order: a coordinate is known
    /// to a few roundings of its own size, and each weight of its axis moves as it does, however small it is.
    fn sizes(x: &Tensor, axes: &[(usize, Axis)], out_shape: &[usize]) -> Result<Vec<f64>, OpError> {
        let mut shape = x.shape().to_vec();
        let mut sums = absolute(x)?.as_slice::<f64>()?.to_vec();
        let mut moved = vec![0.0; sums.len()];
        for (a, axis) in axes {
            let by =
                |data: &[f64], weight: &dyn Fn(&Place, f64) -> f64| resampled(data, &shape, *a, axis, weight);
            moved = by(&moved, &|_, weight| weight.abs())?;
            let more = by(&sums, &|place, _| place.coordinate.abs())?;
            moved.iter_mut().zip(more).for_each(|(e, more)| *e += more);
            sums = by(&sums, &|_, weight| weight.abs())?;
            shape[*a] = axis.places.len();
        }
        sums.iter_mut().zip(moved).for_each(|(sum, moved)| *sum += moved);
        // What is put there is a constant.
        fill_outside(&mut sums, axes, out_shape, 0.0);
        Ok(sums)
    }

    fn is_pick(&self) -> bool {
        matches!(self.filter.mode, Mode::Nearest(_))
    }
}

/// Puts a number at all places outside of the region that is asked for.
fn fill_outside<T: Copy>(data: &mut [T], axes: &[(usize, Axis)], out_shape: &[usize], number: T) {
    for (a, axis) in axes {
        let inner: usize = out_shape[a + 1..].iter().product();
        if axis.places.iter().all(|p| !p.outside) || data.is_empty() {
            continue;
        }
        for (row, out) in data.chunks_mut(inner.max(1)).enumerate() {
            if axis.places[row % axis.places.len()].outside {
                out.fill(number);
            }
        }
    }
}

/// Sums along axis `a` of a tensor of `shape`, over the taps of each place, each weighed by what `weight` makes of its place
/// and its own weight.
fn resampled<T: Float>(
    data: &[T],
    shape: &[usize],
    a: usize,
    axis: &Axis,
    weight: &dyn Fn(&Place, f64) -> f64,
) -> Result<Vec<T>, OpError> {
    let (outer, inner): (usize, usize) = (shape[..a].iter().product(), shape[a + 1..].iter().product());
    let length = shape[a];
    let made = [&shape[..a], &[axis.places.len()], &shape[a + 1..]].concat();
    let mut out = room::<T>(&made)?;
    for o in 0..outer {
        let plane = &data[o * length * inner..(o + 1) * length * inner];
        for place in &axis.places {
            let start = out.len();
            out.resize(start + inner, T::ZERO);
            for &(i, w) in &place.taps {
                let w = T::of(weight(place, w));
                let row = &plane[i * inner..(i + 1) * inner];
                out[start..].iter_mut().zip(row).for_each(|(y, &x)| *y += w * x);
            }
        }
    }
    Ok(out)
}

/// Picks one place along each resampled axis.
struct Pick<'a> {
    input: &'a [usize],
    shape: &'a [usize],
    axes: &'a [(usize, Axis)],
}

impl Move for Pick<'_> {
    fn run<T: Copy + Send + Sync>(&self, data: &[&[T]], _: T, out: &mut Vec<T>) {
        let steps = strides(self.input);
        // Offsets of every index along every axis; axes that stay are walked by their stride.
        let offsets: Vec<Vec<usize>> = (0..self.shape.len())
            .map(|a| match self.axes.iter().find(|(b, _)| *b == a) {
                None => (0..self.shape[a]).map(|i| i * steps[a]).collect(),
                Some((_, axis)) => {
                    axis.places.iter().map(|p| p.taps.first().map_or(0, |t| t.0) * steps[a]).collect()
                }
            })
            .collect();
        let Some((last, outer)) = offsets.split_last() else {
            out.extend_from_slice(data[0]);
            return;
        };
        let mut index = vec![0usize; outer.len()];
        let rows: usize = outer.iter().map(Vec::len).product();
        for _ in 0..rows {
            let base: usize = index.iter().zip(outer).map(|(&i, o)| o[i]).sum();
            out.extend(last.iter().map(|&i| data[0][base + i]));
            for a in (0..index.len()).rev() {
                index[a] += 1;
                if index[a] < outer[a].len() {
                    break;
                }
                index[a] = 0;
            }
        }
    }
}

impl Operator for Resize {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let (axes, shape) = self.plan(call)?;
        let outside = axes.iter().any(|(_, a)| a.places.iter().any(|p| p.outside));
        if self.is_pick() && !outside {
            let pick = Pick { input: x.shape(), shape: &shape, axes: &axes };
            return Ok(vec![move_elements(&[x], &shape, &pick)?]);
        }
        Ok(vec![for_float!(x.dtype(), "X", T => {
            Ok(Tensor::from_vec(&shape, self.interpolated::<T>(x, &axes, &shape, &|w| w)?)?)
        })?])
    }

    fn flow(&self) -> Flow {
        if self.is_pick() { Flow::Moves } else { Flow::Linear }
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if self.is_pick() {
            return Ok(budget::exact(output.len()));
        }
        let (axes, shape) = self.plan(call)?;
        let magnitude = Self::sizes(call.need(0, "X")?, &axes, &shape)?;
        let terms: usize =
            axes.iter().map(|(_, a)| a.places.iter().map(|p| p.taps.len()).max().unwrap_or(1)).product();
        budget::sum(output, &magnitude, terms.max(1) as f64, unit)
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let Some(Some(e)) = errors.first() else {
            return outputs.iter().map(|o| Ok(Tensor::full(o.shape(), 0f64)?)).collect();
        };
        // Sizes and places stay; only values move, each by its weights' absolute values.
        let (axes, shape) = self.plan(call)?;
        let change = self.interpolated::<f64>(&absolute(e)?, &axes, &shape, &f64::abs)?;
        Ok(vec![Tensor::from_vec(&shape, change)?])
    }

    fn keeps_half(&self) -> bool {
        self.is_pick() && self.filter.coordinates != Coordinates::TfCropAndResize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resize(mode: Mode, coordinates: Coordinates, policy: Policy) -> Resize {
        Resize {
            filter: Filter { mode, coordinates, exclude_outside: false, antialias: false },
            policy,
            axes: None,
            extrapolation: 9.0,
            places: [Some(1), Some(2), Some(3)],
            scales: None,
        }
    }

    #[test]
    fn sizes_and_policies() {
        let x = Tensor::from_vec(&[2, 4], (0..8).map(|i| i as f32).collect()).unwrap();
        let sizes = Tensor::vector(vec![3i64, 5]);
        for (policy, expected) in
            [(Policy::Stretch, [3, 5]), (Policy::NotLarger, [3, 5]), (Policy::NotSmaller, [3, 6])]
        {
            let op = resize(Mode::Nearest(Nearest::Floor), Coordinates::Asymmetric, policy);
            let inputs = [Some(&x), None, None, Some(&sizes)];
            assert_eq!(op.run(&Call::new(&inputs)).unwrap()[0].shape(), expected, "{policy:?}");
        }
        let op = resize(Mode::Linear, Coordinates::HalfPixel, Policy::Stretch);
        let bad = Tensor::vector(vec![-1i64, 5]);
        assert!(op.run(&Call::new(&[Some(&x), None, None, Some(&bad)])).is_err());
        assert!(op.run(&Call::new(&[Some(&x)])).is_err());
        let zero = Tensor::vector(vec![0f32, 1.0]);
        assert!(op.run(&Call::new(&[Some(&x), None, Some(&zero)])).is_err());
    }

    #[test]
    fn a_line_stays_a_line_and_errors_keep_their_size() {
        let x = Tensor::vector((0..5).map(f64::from).collect());
        let scales = Tensor::vector(vec![2f32]);
        let op = resize(Mode::Linear, Coordinates::Asymmetric, Policy::Stretch);
        let inputs = [Some(&x), None, Some(&scales)];
        let call = Call::new(&inputs);
        let y = op.run(&call).unwrap();
        assert_eq!(*y[0].to_f64().unwrap(), [0., 0.5, 1., 1.5, 2., 2.5, 3., 3.5, 4., 4.]);
        let e = Tensor::full(&[5], 1e-7).unwrap();
        let change = op.propagate(&call, &y, &[Some(e)]).unwrap();
        assert!(change[0].to_f64().unwrap().iter().all(|c| (c - 1e-7).abs() < 1e-12));
    }

    #[test]
    fn outside_of_the_region_lies_the_extrapolation_value() {
        let x = Tensor::vector(vec![1f32, 2.0]);
        let (roi, sizes) = (Tensor::vector(vec![0f32, 2.0]), Tensor::vector(vec![3i64]));
        let op = resize(Mode::Linear, Coordinates::TfCropAndResize, Policy::Stretch);
        let out = op.run(&Call::new(&[Some(&x), Some(&roi), None, Some(&sizes)])).unwrap();
        assert_eq!(out[0].as_slice::<f32>().unwrap(), [1.0, 2.0, 9.0]);
    }

    #[test]
    fn nearest_moves_any_type() {
        let x = Tensor::from_vec(&[1, 2], vec![3u8, 7]).unwrap();
        let scales = Tensor::vector(vec![2f32, 2.0]);
        let op = resize(Mode::Nearest(Nearest::Floor), Coordinates::Asymmetric, Policy::Stretch);
        let out = op.run(&Call::new(&[Some(&x), None, Some(&scales)])).unwrap();
        assert_eq!(out[0].as_slice::<u8>().unwrap(), [3, 3, 7, 7, 3, 3, 7, 7]);
    }
}
