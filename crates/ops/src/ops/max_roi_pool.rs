//! `MaxRoiPool`: boxes cut out of pictures along whole elements, the maximum of each cell of an even division.
//!
//! X is [N, C, H, W], the boxes [R, 5] as (picture, x1, y1, x2, y2), both ends inside; the output is
//! [R, C, height, width], 0 where a cell is empty (Girshick 2015, as ONNX Runtime has it).

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::budget::{self, Budget, Unit};
use crate::moves::room;
use crate::window::sizes;
use crate::{Call, Float, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct MaxRoiPool {
    pooled: [usize; 2],
    scale: f64,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let pooled = sizes(node, "pooled_shape")?.unwrap_or_default();
    let &[height, width] = pooled.as_slice() else {
        return Err(OpError::Setting(format!("pooled_shape {pooled:?} must be a height and a width")));
    };
    Ok(Box::new(MaxRoiPool {
        pooled: [height, width],
        scale: attributes::float_or(node, "spatial_scale", 1.0)?.into(),
    }))
}

/// First and last + 1 element of a cell along an axis of `length`, for a box from `low` to `high` cut into `cells`.
fn span(low: f64, high: f64, length: usize, cells: usize, cell: usize) -> (usize, usize) {
    let step = (high - low + 1.0).max(1.0) / cells as f64;
    let inside = |at: f64| (at + low).clamp(0.0, length as f64) as usize;
    (inside((cell as f64 * step).floor()), inside(((cell + 1) as f64 * step).ceil()))
}

impl Operator for MaxRoiPool {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, rois) = (call.need(0, "X")?, call.need(1, "rois")?);
        let (&[n, c, h, w], &[boxes, 5]) = (x.shape(), rois.shape()) else {
            return Err(OpError::Input(format!(
                "X {:?} and rois {:?} must be [N, C, H, W] and [R, 5]",
                x.shape(),
                rois.shape()
            )));
        };
        let rois = rois.to_f64()?;
        let shape = [boxes, c, self.pooled[0], self.pooled[1]];
        for_float!(x.dtype(), "X", T => {
            let data = x.as_slice::<T>()?;
            let mut out = room::<T>(&shape)?;
            for (r, roi) in rois.chunks(5).enumerate() {
                let picture = roi[0] as usize;
                if roi[0] < 0.0 || picture >= n || roi.iter().any(|x| !x.is_finite()) {
                    return Err(OpError::Input(format!("box {r}, {roi:?}, lies in none of the {n} pictures")));
                }
                let [x1, y1, x2, y2] = [1, 2, 3, 4].map(|i| (roi[i] * self.scale).round());
                for plane in data[picture * c * h * w..][..c * h * w].chunks((h * w).max(1)) {
                    for row in 0..self.pooled[0] {
                        let (top, bottom) = span(y1, y2, h, self.pooled[0], row);
                        for column in 0..self.pooled[1] {
                            let (left, right) = span(x1, x2, w, self.pooled[1], column);
                            let cells = (top..bottom).filter_map(|y| plane.get(y * w + left..y * w + right));
                            out.push(cells.flatten().copied().reduce(T::max_nan).unwrap_or(T::ZERO));
                        }
                    }
                }
            }
            // Planes without elements are no chunks: their cells are empty.
            out.resize(shape.iter().product(), T::ZERO);
            Ok(vec![Tensor::from_vec(&shape, out)?])
        })
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, _: Unit) -> Result<Budget, OpError> {
        Ok(budget::exact(output.len()))
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{counting, first, node, run, tensor};

    #[test]
    fn cells_of_whole_elements() {
        let node = node("MaxRoiPool", 1, &[("pooled_shape", Attribute::Ints(vec![2, 2]))]);
        let x = counting(&[1, 1, 4, 4]);
        let rois = tensor(&[3, 5], &[0f32, 0., 0., 3., 3., 0., 1., 1., 1., 1., 0., 9., 9., 9., 9.]);
        let out = first(&node, &[&x, &rois]);
        assert_eq!(out.shape(), [3, 1, 2, 2]);
        assert_eq!(out.as_slice::<f32>().unwrap(), [5., 7., 13., 15., 5., 5., 5., 5., 0., 0., 0., 0.]);
        for wrong in [[1f32, 0., 0., 1., 1.], [-1., 0., 0., 1., 1.], [0., f32::NAN, 0., 1., 1.]] {
            assert!(run(&node, &[&x, &tensor(&[1, 5], &wrong)]).is_err(), "{wrong:?}");
        }
        assert_eq!(first(&node, &[&counting(&[1, 2, 0, 4]), &rois]).len(), 24);
    }
}
