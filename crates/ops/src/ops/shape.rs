//! Shape and Size: the sizes of a tensor's axes (from `start` to `end`, version 15 on), and how many elements it has.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::{Call, Flow, OpError, Operator, attributes, flow};

#[derive(Debug)]
enum Measure {
    Shape { start: i64, end: Option<i64> },
    Size,
}

/// Parses a node.
pub fn shape(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let (start, end) = (attributes::int_or(node, "start", 0)?, attributes::int(node, "end")?);
    Ok(Box::new(Measure::Shape { start, end }))
}

/// Parses a node.
pub fn size(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Measure::Size))
}

impl Operator for Measure {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "data")?;
        Ok(vec![match *self {
            Self::Size => Tensor::scalar(data.len() as i64),
            Self::Shape { start, end } => {
                let rank = data.rank() as i64;
                // Bounds count from the end where negative and are clamped.
                let bound = |b: i64| if b < 0 { b.saturating_add(rank) } else { b }.clamp(0, rank) as usize;
                let (start, end) = (bound(start), bound(end.unwrap_or(rank)));
                Tensor::vector(data.shape()[start..end.max(start)].iter().map(|&d| d as i64).collect())
            }
        }])
    }

    // Not the elements but what holds them: any type will do.
    fn flow(&self) -> Flow {
        Flow::Moves
    }

    fn propagate(
        &self,
        _: &Call<'_>,
        outputs: &[Tensor],
        _: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        flow::none(outputs)
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{counting, first, node};

    #[test]
    fn parts_of_a_shape() {
        let data = counting(&[2, 0, 4]);
        let cases: [(Option<i64>, Option<i64>, &[i64]); 8] = [
            (None, None, &[2, 0, 4]),
            (Some(1), None, &[0, 4]),
            (Some(-1), None, &[4]),
            (None, Some(-1), &[2, 0]),
            (Some(-9), Some(9), &[2, 0, 4]),
            (Some(2), Some(1), &[]),
            (Some(3), None, &[]),
            (Some(i64::MIN), Some(i64::MAX), &[2, 0, 4]),
        ];
        for (start, end, expected) in cases {
            let bounds = [("start", start), ("end", end)];
            let attributes: Vec<_> =
                bounds.iter().filter_map(|&(name, v)| v.map(|v| (name, Attribute::Int(v)))).collect();
            let out = first(&node("Shape", 15, &attributes), &[&data]);
            assert_eq!(out.as_slice::<i64>().unwrap(), expected, "{start:?} to {end:?}");
        }
        assert_eq!(first(&node("Size", 13, &[]), &[&counting(&[2, 3])]).as_slice::<i64>().unwrap(), [6]);
        assert_eq!(first(&node("Shape", 1, &[]), &[&counting(&[])]).shape(), [0]);
    }
}
