//! TopK: the k largest or smallest elements along an axis, in order, and their places. Equal elements come in the
//! order of their places; NaN counts as larger than any number, as in PyTorch.

use std::cmp::Ordering;

use isotrace_graph::Node;
use isotrace_tensor::{Element, Tensor, normalise_axis};
use rayon::prelude::*;

use crate::budget::{self, Budget, Unit};
use crate::{Call, Decision, OpError, Operator, arguments, attributes, flow, for_number};

#[derive(Debug)]
struct TopK {
    axis: i64,
    /// An attribute in version 1, input 1 from version 10 on.
    k: Option<i64>,
    largest: bool,
}

/// Parses a node. `sorted` is not read: results in order serve those who ask for any order.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(TopK {
        axis: attributes::int_or(node, "axis", -1)?,
        k: attributes::int(node, "k")?,
        largest: attributes::flag(node, "largest", true)?,
    }))
}

fn order<T: PartialOrd>(a: &T, b: &T) -> Ordering {
    // Only NaN is not equal to itself.
    #[expect(clippy::eq_op, reason = "the test for NaN that every number type has")]
    a.partial_cmp(b).unwrap_or_else(|| (a != a).cmp(&(b != b)))
}

/// The places of the first `k` elements of each lane along the axis, lane by lane; a tensor is seen as
/// (outer, size, inner).
fn places<T: Element + PartialOrd>(
    data: &[T],
    size: usize,
    inner: usize,
    k: usize,
    largest: bool,
) -> Vec<Vec<u32>> {
    let lanes = data.len() / size.max(1);
    let lane = |lane: usize| {
        let at = |i: u32| &data[(lane / inner * size + i as usize) * inner + lane % inner];
        let compare = |a: &u32, b: &u32| {
            let order = if largest { order(at(*b), at(*a)) } else { order(at(*a), at(*b)) };
            order.then(a.cmp(b))
        };
        let mut places: Vec<u32> = (0..size as u32).collect();
        if k < size {
            places.select_nth_unstable_by(k, compare);
            places.truncate(k);
        }
        places.sort_unstable_by(compare);
        places
    };
    if data.len() > 1 << 16 {
        (0..lanes).into_par_iter().map(lane).collect()
    } else {
        (0..lanes).map(lane).collect()
    }
}

impl Operator for TopK {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "X")?;
        let axis = normalise_axis(self.axis, data.rank())?;
        let size = data.shape()[axis];
        let k = match self.k {
            Some(k) => k,
            None => arguments::one_int(call, 1, "K")?.ok_or(OpError::Missing(1, "K"))?,
        };
        let k = arguments::count(k, "K")?;
        if k > size || size > u32::MAX as usize {
            return Err(OpError::Input(format!("K is {k}, axis {axis} has {size} elements")));
        }
        let mut shape = data.shape().to_vec();
        shape[axis] = k;
        let len = isotrace_tensor::element_count(&shape)?;
        let inner = if len == 0 { 0 } else { data.shape()[axis + 1..].iter().product() };
        for_number!(data.dtype(), "X", T => {
            let elements = data.as_slice::<T>()?;
            let mut values = vec![T::default(); len];
            let mut indices = vec![0i64; len];
            if len > 0 {
                for (lane, places) in places(elements, size, inner, k, self.largest).into_iter().enumerate() {
                    for (i, place) in places.into_iter().enumerate() {
                        let to = (lane / inner * k + i) * inner + lane % inner;
                        values[to] = elements[(lane / inner * size + place as usize) * inner + lane % inner];
                        indices[to] = i64::from(place);
                    }
                }
            }
            Ok(vec![Tensor::from_vec(&shape, values)?, Tensor::from_vec(&shape, indices)?])
        })
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, _: Unit) -> Result<Budget, OpError> {
        Ok(budget::exact(output.len()))
    }

    /// The errors at the places picked.
    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let mut out = flow::none(outputs)?;
        let (Some(Some(error)), Some(places)) = (errors.first(), outputs.get(1)) else { return Ok(out) };
        let data = call.need(0, "X")?;
        let axis = normalise_axis(self.axis, data.rank())?;
        let (size, k) = (data.shape()[axis], places.shape()[axis]);
        let inner: usize = data.shape()[axis + 1..].iter().product();
        let error = error.to_f64()?;
        let places = places.to_i64()?;
        let moved = places.iter().enumerate().map(|(i, &place)| {
            let (outer, inner_place) = (i / (k * inner), i % inner);
            error[(outer * size + place as usize) * inner + inner_place]
        });
        out[0] = Tensor::from_vec(outputs[0].shape(), moved.collect())?;
        Ok(out)
    }

    fn decision(&self) -> Decision {
        Decision::Picks { axis: self.axis }
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{counting, errors, ints, node, run, tensor};

    #[test]
    fn picks_as_a_table() {
        struct Case {
            axis: i64,
            k: i64,
            largest: i64,
            places: Option<&'static [i64]>,
        }
        let data = tensor(&[2, 3], &[3f32, 1., 3., f32::NAN, -1., 7.]);
        let cases = [
            Case { axis: -1, k: 2, largest: 1, places: Some(&[0, 2, 0, 2]) },
            Case { axis: 1, k: 2, largest: 0, places: Some(&[1, 0, 1, 2]) },
            Case { axis: 0, k: 1, largest: 1, places: Some(&[1, 0, 1]) },
            Case { axis: 0, k: 2, largest: 0, places: Some(&[0, 1, 0, 1, 0, 1]) },
            Case { axis: 1, k: 0, largest: 1, places: Some(&[]) },
            Case { axis: 1, k: 4, largest: 1, places: None },
            Case { axis: 1, k: -1, largest: 1, places: None },
            Case { axis: 2, k: 1, largest: 1, places: None },
        ];
        for Case { axis, k, largest, places } in cases {
            let n = node("TopK", 11, &[("axis", Attribute::Int(axis)), ("largest", Attribute::Int(largest))]);
            let got = run(&n, &[&data, &ints(&[k])]);
            let got = got.ok().map(|t| t[1].as_slice::<i64>().unwrap().to_vec());
            assert_eq!(got, places.map(<[i64]>::to_vec), "axis {axis}, k {k}, largest {largest}");
        }
        let old = node("TopK", 1, &[("k", Attribute::Int(1))]);
        assert_eq!(run(&old, &[&counting(&[4])]).unwrap()[0].as_slice::<f32>().unwrap(), [3.0]);
        assert_eq!(
            run(&node("TopK", 11, &[]), &[&counting(&[0, 3]), &ints(&[2])]).unwrap()[1].shape(),
            [0, 2]
        );
        assert_eq!(
            run(&node("TopK", 11, &[]), &[&ints(&[5, 9, 2]), &ints(&[1])]).unwrap()[0]
                .as_slice::<i64>()
                .unwrap(),
            [9]
        );
    }

    #[test]
    fn many_lanes_agree_with_a_sort() {
        let values: Vec<f32> = (0..70_000).map(|i| ((i * 7919) % 1013) as f32).collect();
        let data = tensor(&[70, 500, 2], &values);
        let out = run(&node("TopK", 11, &[("axis", Attribute::Int(1))]), &[&data, &ints(&[5])]).unwrap();
        for lane in [0usize, 1, 77, 139] {
            let (o, i) = (lane / 2, lane % 2);
            let mut sorted: Vec<f32> = (0..500).map(|k| values[(o * 500 + k) * 2 + i]).collect();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let got: Vec<f32> =
                (0..5).map(|k| out[0].as_slice::<f32>().unwrap()[(o * 5 + k) * 2 + i]).collect();
            assert_eq!(got, sorted[..5], "lane {lane}");
        }
    }

    #[test]
    fn errors_follow_their_elements() {
        let got = errors(
            &node("TopK", 11, &[]),
            &[&tensor(&[2, 2], &[1f64, 2., 4., 3.]), &ints(&[1])],
            &[Some(tensor(&[2, 2], &[0.1f64, 0.2, 0.3, 0.4])), None],
        );
        assert_eq!(got, [0.2, 0.3]);
    }
}
