//! OneHot: a new axis of length `depth` (input 1) with the on value at each index of input 0 and the off value
//! elsewhere; input 2 holds both, off first. NonZero: the places of all elements that are not 0.

use isotrace_graph::Node;
use isotrace_tensor::{Bool, DType, Tensor, TensorError, element_count, normalise_axis, strides};

use crate::moves::{Move, move_elements};
use crate::{Call, Decision, Flow, OpError, Operator, attributes, flow};

#[derive(Debug)]
struct OneHot {
    axis: i64,
}

/// Parses a node.
pub fn one_hot(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(OneHot { axis: attributes::int_or(node, "axis", -1)? }))
}

struct Marks {
    places: Vec<usize>,
    len: usize,
}

impl Move for Marks {
    fn run<T: Copy + Send + Sync>(&self, data: &[&[T]], _: T, out: &mut Vec<T>) {
        out.resize(self.len, data[0][0]);
        for &place in &self.places {
            out[place] = data[0][1];
        }
    }
}

/// Whole numbers from a tensor of any real type; fractions are cut off.
fn whole_numbers(tensor: &Tensor) -> Result<Vec<i64>, TensorError> {
    Ok(tensor.cast(DType::I64)?.as_slice::<i64>()?.to_vec())
}

impl Operator for OneHot {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (indices, depth, values) =
            (call.need(0, "indices")?, call.need(1, "depth")?, call.need(2, "values")?);
        let depth = match whole_numbers(depth)?[..] {
            [depth] if depth >= 0 => depth,
            ref other => {
                return Err(OpError::Input(format!(
                    "depth is {other:?}, it must be one number of 0 or more"
                )));
            }
        };
        if values.len() != 2 {
            return Err(OpError::Input(format!(
                "values holds {} elements, off and on are expected",
                values.len()
            )));
        }
        let axis = normalise_axis(self.axis, indices.rank() + 1)?;
        let mut shape = indices.shape().to_vec();
        shape.insert(axis, depth as usize);
        let len = element_count(&shape)?;
        let mut places = Vec::new();
        if len > 0 {
            let inner: usize = shape[axis + 1..].iter().product();
            for (i, &index) in whole_numbers(indices)?.iter().enumerate() {
                // An index outside -depth..depth marks nothing.
                let place = if index < 0 { index.saturating_add(depth) } else { index };
                if (0..depth).contains(&place) {
                    places.push((i / inner * depth as usize + place as usize) * inner + i % inner);
                }
            }
        }
        Ok(vec![move_elements(&[values], &shape, &Marks { places, len })?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        // Indices and depth may be floats, but they are decisions: only the values carry errors on.
        match errors.get(2) {
            Some(Some(error)) => self.run(&call.with_inputs(&[call.get(0), call.get(1), Some(error)])),
            _ => flow::none(outputs),
        }
    }
}

#[derive(Debug)]
struct NonZero;

/// Parses a node.
pub fn non_zero(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(NonZero))
}

impl Operator for NonZero {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "X")?;
        let flags = data.cast(DType::Bool)?;
        let flags = flags.as_slice::<Bool>()?.iter().enumerate();
        let places: Vec<usize> = flags.filter(|(_, f)| f.get()).map(|(i, _)| i).collect();
        let mut out = Vec::with_capacity(places.len() * data.rank());
        for (&size, step) in data.shape().iter().zip(strides(data.shape())) {
            out.extend(places.iter().map(|place| (place / step % size) as i64));
        }
        Ok(vec![Tensor::from_vec(&[data.rank(), places.len()], out)?])
    }

    fn flow(&self) -> Flow {
        Flow::Decided
    }

    fn keeps_half(&self) -> bool {
        true
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{counting, errors, first, ints, node, run, tensor};

    #[test]
    fn marks_as_a_table() {
        type Case = (i64, Tensor, i64, &'static [usize], &'static [i32]);
        let values = tensor(&[2], &[2i32, 5]);
        let cases: [Case; 6] = [
            (-1, ints(&[0, 2]), 3, &[2, 3], &[5, 2, 2, 2, 2, 5]),
            (0, ints(&[0, 2]), 3, &[3, 2], &[5, 2, 2, 2, 2, 5]),
            (-1, ints(&[-1, 3, -4]), 3, &[3, 3], &[2, 2, 5, 2, 2, 2, 2, 2, 2]),
            (-1, tensor(&[], &[1.7f32]), 2, &[2], &[2, 5]),
            (1, tensor(&[1, 2], &[0u8, 1]), 2, &[1, 2, 2], &[5, 2, 2, 5]),
            (-1, ints(&[0]), 0, &[1, 0], &[]),
        ];
        for (axis, indices, depth, shape, expected) in cases {
            let n = node("OneHot", 11, &[("axis", Attribute::Int(axis))]);
            let out = first(&n, &[&indices, &ints(&[depth]), &values]);
            assert_eq!((out.shape(), out.as_slice::<i32>().unwrap()), (shape, expected), "{indices:?}");
        }
        let n = node("OneHot", 11, &[]);
        assert!(run(&n, &[&ints(&[0]), &ints(&[-1]), &values]).is_err());
        assert!(run(&n, &[&ints(&[0]), &ints(&[1]), &ints(&[1])]).is_err());
        assert!(run(&n, &[&ints(&[0]), &ints(&[i64::MAX]), &values]).is_err());
    }

    #[test]
    fn errors_of_the_values_alone_count() {
        let inputs = [tensor(&[1], &[1f64]), tensor(&[], &[2f64]), tensor(&[2], &[0f64, 1.0])];
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let n = node("OneHot", 11, &[]);
        let given = [Some(tensor(&[1], &[9f64])), None, Some(tensor(&[2], &[0.5f64, 0.25]))];
        assert_eq!(errors(&n, &inputs, &given), [0.5, 0.25]);
        assert_eq!(errors(&n, &inputs, &[Some(tensor(&[1], &[9f64])), None, None]), [0.0, 0.0]);
    }

    #[test]
    fn places_by_axis() {
        let data = tensor(&[2, 3], &[0f32, -1., 0., f32::NAN, -0.0, 2.]);
        let out = first(&node("NonZero", 13, &[]), &[&data]);
        assert!(out.bit_eq(&tensor(&[2, 3], &[0i64, 1, 1, 1, 0, 2])), "{out:?}");
        assert_eq!(first(&node("NonZero", 13, &[]), &[&counting(&[0, 2])]).shape(), [2, 0]);
        assert_eq!(first(&node("NonZero", 13, &[]), &[&tensor(&[], &[3i8])]).shape(), [0, 1]);
    }
}
