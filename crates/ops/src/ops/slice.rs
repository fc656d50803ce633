//! Slice: from `starts` to `ends` along `axes`, every `steps`-th element, backwards where a step is below 0.
//!
//! Settings are attributes (without steps) below version 10, inputs 1 to 4 from there on. Bounds count from the end
//! where negative and are clamped to the axis.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::walk::{Piece, Walk, walk};
use crate::{Call, Flow, OpError, Operator, arguments, attributes};

#[derive(Debug)]
struct Slice {
    starts: Option<Vec<i64>>,
    ends: Option<Vec<i64>>,
    axes: Option<Vec<i64>>,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Slice {
        starts: attributes::ints(node, "starts")?,
        ends: attributes::ints(node, "ends")?,
        axes: attributes::ints(node, "axes")?,
    }))
}

impl Operator for Slice {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "data")?;
        let starts = arguments::setting(self.starts.as_deref(), call, 1, "starts")?
            .ok_or(OpError::Missing(1, "starts"))?;
        let ends =
            arguments::setting(self.ends.as_deref(), call, 2, "ends")?.ok_or(OpError::Missing(2, "ends"))?;
        let axes = match arguments::setting(self.axes.as_deref(), call, 3, "axes")? {
            Some(axes) => arguments::axes(&axes, data.rank())?,
            None if starts.len() <= data.rank() => (0..starts.len()).collect(),
            None => {
                return Err(OpError::Input(format!(
                    "{} starts for an input of {} axes",
                    starts.len(),
                    data.rank()
                )));
            }
        };
        let steps = arguments::ints(call, 4, "steps")?;
        let same = |n: usize| n == axes.len();
        if !same(starts.len()) || !same(ends.len()) || !steps.as_ref().is_none_or(|s| same(s.len())) {
            return Err(OpError::Input(format!(
                "starts ({}), ends ({}), steps ({}) and axes ({}) must be of one length",
                starts.len(),
                ends.len(),
                steps.as_ref().map_or(0, |s| s.len()),
                axes.len()
            )));
        }
        let mut walks: Vec<Walk> = data.shape().iter().map(|&d| Walk::whole(d)).collect();
        for (i, &axis) in axes.iter().enumerate() {
            let step = steps.as_ref().map_or(1, |s| s[i]);
            walks[axis] = Walk::default();
            walks[axis].push(stretch(starts[i], ends[i], step, data.shape()[axis])?);
        }
        Ok(vec![walk(data, &walks, None)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

/// The places that `start:end:step` means on an axis.
fn stretch(start: i64, end: i64, step: i64, size: usize) -> Result<Piece, OpError> {
    if step == 0 {
        return Err(OpError::Input("a step of a slice is 0, it must go somewhere".into()));
    }
    // i128 holds every sum and difference of the bounds.
    let (n, step) = (size as i128, i128::from(step));
    let from_start = |bound: i64| if bound < 0 { i128::from(bound) + n } else { i128::from(bound) };
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let (start, end) = (from_start(start).clamp(low, high), from_start(end).clamp(low, high));
    let distance = if step > 0 { end - start } else { start - end };
    let len = if distance <= 0 { 0 } else { (distance - 1) / step.abs() + 1 };
    if len <= 1 {
        // The step beyond the only place may not fit and does not matter.
        return Ok(Piece::From { start: start.max(0) as usize, step: 1, len: len as usize });
    }
    Ok(Piece::From { start: start as usize, step: step as isize, len: len as usize })
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{counting, first, ints, node, run};

    #[test]
    fn bounds_as_a_table() {
        type Case = (i64, i64, i64, usize, &'static [f32]);
        const FAR: i64 = i64::MAX;
        let cases: [Case; 16] = [
            (0, 5, 1, 5, &[0., 1., 2., 3., 4.]),
            (1, 3, 1, 5, &[1., 2.]),
            (-3, -1, 1, 5, &[2., 3.]),
            (0, FAR, 2, 5, &[0., 2., 4.]),
            (-100, 2, 1, 5, &[0., 1.]),
            (3, 1, 1, 5, &[]),
            (7, 9, 1, 5, &[]),
            (-1, -FAR, -1, 5, &[4., 3., 2., 1., 0.]),
            (FAR, i64::MIN, -2, 5, &[4., 2., 0.]),
            (3, 0, -1, 5, &[3., 2., 1.]),
            (0, 0, -1, 5, &[]),
            (-1, -3, -1, 5, &[4., 3.]),
            (2, FAR, FAR, 5, &[2.]),
            (2, i64::MIN, i64::MIN, 5, &[2.]),
            (0, FAR, 1, 0, &[]),
            (-1, i64::MIN, -1, 0, &[]),
        ];
        for (start, end, step, size, expected) in cases {
            let inputs = [&counting(&[size]), &ints(&[start]), &ints(&[end]), &ints(&[0]), &ints(&[step])];
            let out = first(&node("Slice", 13, &[]), &inputs);
            assert_eq!(out.as_slice::<f32>().unwrap(), expected, "{start}:{end}:{step} of {size}");
        }
    }

    #[test]
    fn settings_of_both_ages() {
        let data = counting(&[3, 4]);
        let list = |v: &[i64]| Attribute::Ints(v.to_vec());
        let old = node("Slice", 1, &[("starts", list(&[1, -2])), ("ends", list(&[9, 9]))]);
        assert_eq!(first(&old, &[&data]).as_slice::<f32>().unwrap(), [6., 7., 10., 11.]);
        let new = node("Slice", 10, &[]);
        let out = first(&new, &[&data, &ints(&[1]), &ints(&[3]), &ints(&[-1])]);
        assert_eq!(out.as_slice::<f32>().unwrap(), [1., 2., 5., 6., 9., 10.]);
        for bad in [
            vec![&data, &ints(&[1]), &ints(&[3]), &ints(&[2])],
            vec![&data, &ints(&[1, 1]), &ints(&[3])],
            vec![&data, &ints(&[0, 0, 0]), &ints(&[1, 1, 1])],
            vec![&data, &ints(&[0]), &ints(&[1]), &ints(&[0]), &ints(&[0])],
            vec![&data, &ints(&[0, 0]), &ints(&[1, 1]), &ints(&[0, -2])],
        ] {
            assert!(run(&new, &bad).is_err(), "{bad:?}");
        }
    }
}
