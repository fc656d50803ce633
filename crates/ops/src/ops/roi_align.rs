//! RoiAlign: boxes cut out of pictures, each brought to one size by averages (or maxima) over points between elements.
//!
//! X is [N, C, H, W], the boxes [R, 4] as (x1, y1, x2, y2), each in the picture that `batch_indices`, R numbers, names; the
//! output is [R, C, height, width]. Boxes are moved by half an element from operator set 16 on, unless said otherwise.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::budget::{self, Budget, Unit};
use crate::moves::room;
use crate::{Call, Float, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct RoiAlign {
    maximum: bool,
    half_pixel: bool,
    height: usize,
    width: usize,
    samples: usize,
    scale: f32,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let maximum = match attributes::text_or(node, "mode", "avg")?.as_str() {
        "avg" => false,
        "max" => true,
        other => return Err(OpError::Setting(format!("mode {other:?} is unknown; expected avg or max"))),
    };
    let default = if node.version < 16 { "output_half_pixel" } else { "half_pixel" };
    let half_pixel = match attributes::text_or(node, "coordinate_transformation_mode", default)?.as_str() {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => {
            return Err(OpError::Setting(format!("coordinate_transformation_mode {other:?} is unknown")));
        }
    };
    let size = |name: &str, default: i64| -> Result<usize, OpError> {
        let found = attributes::int_or(node, name, default)?;
        usize::try_from(found)
            .map_err(|_| OpError::Setting(format!("{name} is {found}, it must not be negative")))
    };
    Ok(Box::new(RoiAlign {
        maximum,
        half_pixel,
        height: size("output_height", 1)?,
        width: size("output_width", 1)?,
        samples: size("sampling_ratio", 0)?,
        scale: attributes::float_or(node, "spatial_scale", 1.0)?,
    }))
}

/// More points in a cell than this are a mistake, not a box.
const MOST_SAMPLES: f64 = 4096.0;

/// Where cells of one axis begin and how wide they are, with the points in each.
struct Cells<T> {
    start: T,
    step: T,
    points: usize,
}

impl<T: Float> Cells<T> {
    /// The coordinate of a point in a cell.
    fn at(&self, cell: usize, point: usize) -> T {
        let points = T::of(self.points as f64);
        self.start + T::of(cell as f64) * self.step + (T::of(point as f64) + T::of(0.5)) * self.step / points
    }
}

/// The two elements around a coordinate with their weights; `None` where it lies outside.
fn around<T: Float>(at: T, length: usize) -> Option<[(usize, T); 2]> {
    if length == 0 || !(at >= T::of(-1.0) && at <= T::of(length as f64)) {
        return None;
    }
    let at = at.max_nan(T::ZERO);
    let low = at.wide() as usize;
    if low + 1 >= length {
        return Some([(length - 1, T::ONE), (length - 1, T::ZERO)]);
    }
    let part = at - T::of(low as f64);
    Some([(low, T::ONE - part), (low + 1, part)])
}

impl RoiAlign {
    fn cells<T: Float>(&self, low: T, high: T, out: usize) -> Result<Cells<T>, OpError> {
        let (scale, offset) = (T::of(f64::from(self.scale)), T::of(if self.half_pixel { 0.5 } else { 0.0 }));
        let (start, end) = (low * scale - offset, high * scale - offset);
        let size = if self.half_pixel { end - start } else { (end - start).max_nan(T::ONE) };
        let step = size / T::of(out.max(1) as f64);
        let points = if self.samples > 0 { self.samples as f64 } else { step.wide().ceil().max(0.0) };
        if points > MOST_SAMPLES {
            return Err(OpError::Input(format!(
                "a box of {} would need {points} points a cell",
                size.wide()
            )));
        }
        Ok(Cells { start, step, points: points as usize })
    }

    /// The output; or, for a bound, the averages of the absolute products with what a rounding of the coordinates moves.
    fn align<T: Float>(
        &self,
        x: &Tensor,
        rois: &Tensor,
        batch: &[i64],
        magnitude: bool,
    ) -> Result<Tensor, OpError> {
        let &[n, c, h, w] = x.shape() else {
            return Err(OpError::Input(format!("X {:?} must be [N, C, H, W]", x.shape())));
        };
        if rois.rank() != 2 || rois.shape()[1] != 4 || rois.shape()[0] != batch.len() {
            return Err(OpError::Input(format!(
                "rois {:?} must be [R, 4] with R batch indices, of which there are {}",
                rois.shape(),
                batch.len()
            )));
        }
        let (data, boxes) = (x.as_slice::<T>()?, rois.as_slice::<T>()?);
        let shape = [batch.len(), c, self.height, self.width];
        let mut out = room::<T>(&shape)?;
        for (r, &picture) in batch.iter().enumerate() {
            let picture = usize::try_from(picture).ok().filter(|&p| p < n).ok_or_else(|| {
                OpError::Input(format!("batch index {picture} of box {r} names none of the {n} pictures"))
            })?;
            let corners = &boxes[4 * r..4 * r + 4];
            let across = self.cells(corners[0], corners[2], self.width)?;
            let down = self.cells(corners[1], corners[3], self.height)?;
            let count = T::of((across.points * down.points).max(1) as f64);
            for channel in 0..c {
                let plane = &data[(picture * c + channel) * h * w..][..h * w];
                for row in 0..self.height {
                    for column in 0..self.width {
                        let mut sum = T::ZERO;
                        let mut largest: Option<T> = None;
                        for iy in 0..down.points {
                            let y = down.at(row, iy);
                            for ix in 0..across.points {
                                let x = across.at(column, ix);
                                let (Some(ys), Some(xs)) = (around(y, h), around(x, w)) else {
                                    largest = Some(largest.map_or(T::ZERO, |m| m.max_nan(T::ZERO)));
                                    continue;
                                };
                                let unsure = T::of((h + w) as f64) + y.abs() + x.abs();
                                for (i, wy) in ys {
                                    for (j, wx) in xs {
                                        let value = plane[i * w + j];
                                        let product = if magnitude {
                                            (wy * wx + unsure) * value.abs()
                                        } else {
                                            wy * wx * value
                                        };
                                        sum += product;
                                        largest = Some(largest.map_or(product, |m| m.max_nan(product)));
                                    }
                                }
                            }
                        }
                        out.push(if self.maximum { largest.unwrap_or(T::ZERO) } else { sum / count });
                    }
                }
            }
        }
        Ok(Tensor::from_vec(&shape, out)?)
    }

    fn evaluate(&self, call: &Call<'_>, magnitude: bool) -> Result<Tensor, OpError> {
        let (x, rois) = (call.need(0, "X")?, call.need(1, "rois")?);
        let batch = call.need(2, "batch_indices")?.to_i64()?;
        let rois = &rois.cast(x.dtype())?;
        for_float!(x.dtype(), "X", T => self.align::<T>(x, rois, &batch, magnitude))
    }
}

impl Operator for RoiAlign {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![self.evaluate(call, false)?])
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let points = if self.samples > 0 { 4 * self.samples * self.samples } else { 16 };
        budget::sum(output, &self.evaluate(call, true)?.to_f64()?, points as f64, unit)
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{counting, first, ints, node, run, tensor};

    /// Settings besides the sizes.
    type Settings<'a> = &'a [(&'a str, Attribute)];

    fn align(version: i64, more: &[(&str, Attribute)]) -> Node {
        let mut set = vec![
            ("output_height", Attribute::Int(2)),
            ("output_width", Attribute::Int(2)),
            ("sampling_ratio", Attribute::Int(1)),
        ];
        set.extend(more.iter().map(|(k, v)| (*k, v.clone())));
        node("RoiAlign", version, &set)
    }

    #[test]
    fn cells_of_a_box() {
        // 4 by 4, counting; the box covers it, so points lie at 1 and 3, half an element less where boxes are moved.
        let x = counting(&[1, 1, 4, 4]);
        let rois = tensor(&[1, 4], &[0f32, 0., 4., 4.]);
        let cases: [(i64, Settings<'_>, [f32; 4]); 3] = [
            (10, &[], [5., 7., 13., 15.]),
            (16, &[], [2.5, 4.5, 10.5, 12.5]),
            (
                16,
                &[("coordinate_transformation_mode", Attribute::Bytes("output_half_pixel".into()))],
                [5., 7., 13., 15.],
            ),
        ];
        for (version, more, expected) in cases {
            let out = first(&align(version, more), &[&x, &rois, &ints(&[0])]);
            assert_eq!(out.shape(), [1, 1, 2, 2]);
            assert_eq!(out.as_slice::<f32>().unwrap(), expected, "{version} {more:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let (x, rois) = (counting(&[1, 1, 4, 4]), tensor(&[1, 4], &[0f32, 0., 4., 4.]));
        assert!(run(&align(16, &[]), &[&x, &rois, &ints(&[1])]).is_err());
        assert!(run(&align(16, &[]), &[&x, &rois, &ints(&[0, 0])]).is_err());
        assert!(
            run(&align(16, &[("mode", Attribute::Bytes("sum".into()))]), &[&x, &rois, &ints(&[0])]).is_err()
        );
        let vast = tensor(&[1, 4], &[0f32, 0., 1e30, 4.]);
        let free = align(16, &[("sampling_ratio", Attribute::Int(0))]);
        assert!(run(&free, &[&x, &vast, &ints(&[0])]).is_err());
        let nan = tensor(&[1, 4], &[f32::NAN, 0., 4., 4.]);
        assert_eq!(first(&align(16, &[]), &[&x, &nan, &ints(&[0])]).as_slice::<f32>().unwrap(), [0f32; 4]);
    }
}
