//! GatherElements: the element at each index along `axis`, at the index's own place on the other axes. GatherND:
//! slices at tuples of indices, `batch_dims` leading axes in step.

use isotrace_graph::Node;
use isotrace_tensor::{Odometer, Tensor, element_count, normalise_axis, strides};

use crate::moves::{Runs, move_elements};
use crate::{Call, Flow, OpError, Operator, arguments, attributes};

#[derive(Debug)]
struct GatherElements {
    axis: i64,
}

/// Parses a node.
pub fn gather_elements(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(GatherElements { axis: attributes::int_or(node, "axis", 0)? }))
}

/// The offset in a tensor shaped `shape` of each index of `indices` along `axis`; on the other axes an index's own
/// place counts. Also serves ScatterElements.
pub fn element_offsets(shape: &[usize], indices: &Tensor, axis: usize) -> Result<Vec<usize>, OpError> {
    let fits = indices.rank() == shape.len()
        && indices.shape().iter().zip(shape).enumerate().all(|(i, (n, d))| i == axis || n <= d);
    if !fits {
        return Err(OpError::Input(format!(
            "indices of shape {:?} do not fit data of shape {shape:?}: the ranks must be equal and no axis but {axis} longer",
            indices.shape()
        )));
    }
    if indices.is_empty() {
        return Ok(Vec::new());
    }
    let mut steps = strides(shape);
    let step = std::mem::replace(&mut steps[axis], 0);
    let values = indices.to_i64()?;
    Odometer::new(indices.shape(), &steps)
        .zip(values.iter())
        .map(|(at, &i)| Ok(at + step * arguments::index(i, shape[axis], axis)?))
        .collect()
}

impl Operator for GatherElements {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (data, indices) = (call.need(0, "data")?, call.need(1, "indices")?);
        let axis = normalise_axis(self.axis, data.rank())?;
        let starts = element_offsets(data.shape(), indices, axis)?;
        Ok(vec![move_elements(&[data], indices.shape(), &Runs { starts, run: 1 })?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[derive(Debug)]
struct GatherNd {
    batch_dims: i64,
}

/// Parses a node.
pub fn gather_nd(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(GatherNd { batch_dims: attributes::int_or(node, "batch_dims", 0)? }))
}

/// The slices that tuples of indices name.
pub struct Tuples {
    /// Where each slice starts.
    pub starts: Vec<usize>,
    /// The shape of one slice.
    pub slice: Vec<usize>,
}

/// Reads the last axis of `indices` as tuples that name slices of a tensor shaped `shape`, after `batch` leading
/// axes that both share. Also serves ScatterND.
pub fn tuple_offsets(shape: &[usize], indices: &Tensor, batch: usize) -> Result<Tuples, OpError> {
    let Some((&width, lead)) = indices.shape().split_last() else {
        return Err(OpError::Input("indices must have at least one axis, the last one holds a tuple".into()));
    };
    if batch > lead.len() || batch.saturating_add(width) > shape.len() || lead[..batch] != shape[..batch] {
        return Err(OpError::Input(format!(
            "indices of shape {:?} hold tuples of {width} numbers after {batch} batch axes, which data of shape {shape:?} does not have",
            indices.shape()
        )));
    }
    let slice = shape[batch + width..].to_vec();
    if indices.is_empty() && width > 0 {
        return Ok(Tuples { starts: Vec::new(), slice });
    }
    let steps = strides(shape);
    let tuples = element_count(lead)?;
    let batches: usize = lead[..batch].iter().product();
    let batch_step = if batch > 0 { steps[batch - 1] } else { 0 };
    let values = indices.to_i64()?;
    let starts = (0..tuples).map(|t| {
        let mut at = t / (tuples / batches.max(1)).max(1) * batch_step;
        for (k, &i) in values[t * width..(t + 1) * width].iter().enumerate() {
            at += steps[batch + k] * arguments::index(i, shape[batch + k], batch + k)?;
        }
        Ok(at)
    });
    Ok(Tuples { starts: starts.collect::<Result<_, OpError>>()?, slice })
}

impl Operator for GatherNd {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (data, indices) = (call.need(0, "data")?, call.need(1, "indices")?);
        let batch = arguments::count(self.batch_dims, "batch_dims")?;
        let Tuples { mut starts, slice } = tuple_offsets(data.shape(), indices, batch)?;
        let lead = &indices.shape()[..indices.rank() - 1];
        let shape = [lead, &slice].concat();
        let run = element_count(&slice)?;
        if run == 0 {
            starts.clear();
        }
        Ok(vec![move_elements(&[data], &shape, &Runs { starts, run })?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{counting, first, ints, node, run, tensor};

    #[test]
    fn elements_keep_their_place_on_other_axes() {
        type Case = (i64, &'static [usize], &'static [i64], Option<&'static [f32]>);
        let gather = |axis| node("GatherElements", 13, &[("axis", Attribute::Int(axis))]);
        let data = counting(&[3, 3]);
        let cases: [Case; 7] = [
            (1, &[3, 1], &[2, 0, -1], Some(&[2., 3., 8.])),
            (0, &[2, 3], &[1, 2, 0, 2, 0, 0], Some(&[3., 7., 2., 6., 1., 2.])),
            (-1, &[1, 4], &[0, 0, 1, 2], Some(&[0., 0., 1., 2.])),
            (0, &[0, 3], &[], Some(&[])),
            (0, &[2, 4], &[0; 8], None),
            (0, &[3], &[0; 3], None),
            (0, &[1, 1], &[3], None),
        ];
        for (axis, shape, indices, expected) in cases {
            let got = run(&gather(axis), &[&data, &tensor(shape, indices)]);
            let got = got.ok().map(|t| t[0].as_slice::<f32>().unwrap().to_vec());
            assert_eq!(got, expected.map(<[f32]>::to_vec), "axis {axis}, {indices:?}");
        }
    }

    #[test]
    fn tuples_name_slices() {
        struct Case {
            data: &'static [usize],
            indices: Tensor,
            batch: i64,
            out: Option<(&'static [usize], &'static [f32])>,
        }
        let cases = [
            Case {
                data: &[2, 2],
                indices: tensor(&[2, 2], &[0i64, 0, 1, 1]),
                batch: 0,
                out: Some((&[2], &[0., 3.])),
            },
            Case {
                data: &[2, 2],
                indices: tensor(&[2, 1], &[1i64, 0]),
                batch: 0,
                out: Some((&[2, 2], &[2., 3., 0., 1.])),
            },
            Case {
                data: &[2, 2, 2],
                indices: tensor(&[2, 1], &[1i64, 0]),
                batch: 1,
                out: Some((&[2, 2], &[2., 3., 4., 5.])),
            },
            Case {
                data: &[2, 3],
                indices: tensor(&[2, 2, 1], &[0i64, -1, 1, 0]),
                batch: 1,
                out: Some((&[2, 2], &[0., 2., 4., 3.])),
            },
            Case {
                data: &[2, 2],
                indices: tensor::<i64>(&[1, 0], &[]),
                batch: 0,
                out: Some((&[1, 2, 2], &[0., 1., 2., 3.])),
            },
            Case { data: &[2, 0], indices: ints(&[1]), batch: 0, out: Some((&[0], &[])) },
            Case { data: &[2, 2], indices: ints(&[0, 2]), batch: 0, out: None },
            Case { data: &[2], indices: ints(&[0, 0]), batch: 0, out: None },
            Case { data: &[2, 2], indices: tensor(&[3, 1], &[0i64; 3]), batch: 1, out: None },
            Case { data: &[2], indices: tensor(&[], &[0i64]), batch: 0, out: None },
        ];
        for (row, Case { data, indices, batch, out }) in cases.into_iter().enumerate() {
            let gather = node("GatherND", 13, &[("batch_dims", Attribute::Int(batch))]);
            let got = run(&gather, &[&counting(data), &indices]);
            let got = got.ok().map(|t| (t[0].shape().to_vec(), t[0].as_slice::<f32>().unwrap().to_vec()));
            assert_eq!(got, out.map(|(s, v)| (s.to_vec(), v.to_vec())), "row {row}");
        }
        assert_eq!(first(&node("GatherND", 11, &[]), &[&counting(&[3]), &ints(&[1])]).shape(), [0usize; 0]);
    }
}
