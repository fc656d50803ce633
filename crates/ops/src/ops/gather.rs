//! Gather: slices of input 0 along `axis` (0 by default) at the indices of input 1, in the indices' shape.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, element_count, normalise_axis};

use crate::moves::{Move, move_elements};
use crate::{Call, Flow, OpError, Operator, arguments, attributes};

#[derive(Debug)]
struct Gather {
    axis: i64,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Gather { axis: attributes::int_or(node, "axis", 0)? }))
}

struct Kernel {
    outer: usize,
    size: usize,
    inner: usize,
    indices: Vec<usize>,
}

impl Move for Kernel {
    fn run<T: Copy + Send + Sync>(&self, data: &[&[T]], _: T, out: &mut Vec<T>) {
        let inner = self.inner;
        for o in 0..self.outer {
            let rows = &data[0][o * self.size * inner..(o + 1) * self.size * inner];
            if inner == 1 {
                out.extend(self.indices.iter().map(|&i| rows[i]));
            } else {
                for &i in &self.indices {
                    out.extend_from_slice(&rows[i * inner..(i + 1) * inner]);
                }
            }
        }
    }
}

impl Operator for Gather {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (data, indices) = (call.need(0, "data")?, call.need(1, "indices")?);
        let axis = normalise_axis(self.axis, data.rank())?;
        let size = data.shape()[axis];
        let (before, after) = (&data.shape()[..axis], &data.shape()[axis + 1..]);
        let shape = [before, indices.shape(), after].concat();
        let mut kernel =
            Kernel { outer: 0, size, inner: 0, indices: arguments::indices(indices, size, axis)? };
        if element_count(&shape)? > 0 {
            kernel.outer = before.iter().product();
            kernel.inner = after.iter().product();
        }
        Ok(vec![move_elements(&[data], &shape, &kernel)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{counting, errors, first, ints, node, run, tensor};

    #[test]
    fn picks_along_an_axis() {
        struct Case {
            axis: i64,
            indices: Tensor,
            shape: &'static [usize],
            out: &'static [f32],
        }
        let data = counting(&[2, 3, 2]);
        let cases = [
            Case { axis: 0, indices: tensor(&[], &[1i64]), shape: &[3, 2], out: &[6., 7., 8., 9., 10., 11.] },
            Case { axis: 1, indices: ints(&[-1]), shape: &[2, 1, 2], out: &[4., 5., 10., 11.] },
            Case {
                axis: -1,
                indices: tensor(&[1, 1], &[0i32]),
                shape: &[2, 3, 1, 1],
                out: &[0., 2., 4., 6., 8., 10.],
            },
            Case { axis: 1, indices: tensor::<i64>(&[0], &[]), shape: &[2, 0, 2], out: &[] },
        ];
        for Case { axis, indices, shape, out } in cases {
            let got = first(&node("Gather", 13, &[("axis", Attribute::Int(axis))]), &[&data, &indices]);
            assert_eq!((got.shape(), got.as_slice::<f32>().unwrap()), (shape, out), "axis {axis}");
        }
    }

    #[test]
    fn a_place_that_is_not_there_is_named() {
        let gather = node("Gather", 13, &[("axis", Attribute::Int(1))]);
        let message = run(&gather, &[&counting(&[2, 3]), &ints(&[0, 5])]).unwrap_err().to_string();
        assert!(["5", "axis 1", "size 3"].iter().all(|part| message.contains(part)), "{message}");
        assert!(run(&gather, &[&counting(&[2, 0]), &ints(&[0])]).is_err());
        assert!(run(&gather, &[&counting(&[2, 3]), &counting(&[1])]).is_err(), "float indices");
        assert!(run(&gather, &[&counting(&[2]), &ints(&[0])]).is_err());
    }

    #[test]
    fn text_and_errors_move_alike() {
        let text = Tensor::from_strings(&[2], vec!["a".into(), "b".into()]).unwrap();
        let gather = node("Gather", 1, &[]);
        assert_eq!(first(&gather, &[&text, &ints(&[1, 1])]).as_strings().unwrap(), ["b", "b"]);
        let got = errors(
            &gather,
            &[&tensor(&[2], &[1f64, 2.0]), &ints(&[1, 0])],
            &[Some(tensor(&[2], &[0.5f64, 0.25])), None],
        );
        assert_eq!(got, [0.25, 0.5]);
    }
}
