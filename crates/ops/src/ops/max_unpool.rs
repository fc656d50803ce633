//! `MaxUnpool`: what a `MaxPool` kept, put back at the places it came from, zeros elsewhere.
//!
//! X and the places are [N, C, D1, ..., Dk]. A place is linear in the whole output, whose spatial sizes are
//! `(D - 1) stride - padding + kernel`; `output_shape` may ask for a larger one, which the places do not count.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, strides};

use crate::room::zeros;
use crate::window::Settings;
use crate::{Call, Flow, OpError, Operator, arguments, for_float};

#[derive(Debug)]
struct MaxUnpool {
    settings: Settings,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(MaxUnpool { settings: Settings::parse(node)? }))
}

impl MaxUnpool {
    /// The shape that places count in, from X's.
    fn inferred(&self, shape: &[usize]) -> Result<Vec<usize>, OpError> {
        let rank = shape.len().saturating_sub(2);
        let kernel = self.settings.kernel.as_deref().unwrap_or_default();
        let strides = Settings::per_axis(&self.settings.strides, rank, 1, "strides")?;
        let pads = Settings::per_axis(&self.settings.pads, 2 * rank, 0, "pads")?;
        let along = |i: usize| {
            let steps = shape[2 + i].checked_sub(1)?.checked_mul(strides[i])?;
            steps.checked_add(*kernel.get(i)?)?.checked_sub(pads[i])?.checked_sub(pads[rank + i])
        };
        let space: Option<Vec<usize>> = (0..rank).map(along).collect();
        match space {
            Some(space) if rank > 0 && kernel.len() == rank => Ok([&shape[..2], &space].concat()),
            _ => Err(OpError::Input(format!(
                "X {shape:?} does not go with kernel_shape {kernel:?}, strides {strides:?} and pads {pads:?}"
            ))),
        }
    }
}

impl Operator for MaxUnpool {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, places) = (call.need(0, "X")?, call.need(1, "I")?);
        let inferred = self.inferred(x.shape())?;
        let asked = match call.get(2) {
            Some(_) => arguments::sizes(&arguments::need_ints(call, 2, "output_shape")?, "output_shape")?,
            None => inferred.clone(),
        };
        if asked.len() != inferred.len() || asked.iter().zip(&inferred).any(|(a, i)| a < i) {
            return Err(OpError::Input(format!(
                "output_shape {asked:?} must be at least {inferred:?}, the size that the pooling makes"
            )));
        }
        if places.shape() != x.shape() {
            return Err(OpError::Input(format!(
                "I {:?} must have the shape of X, {:?}",
                places.shape(),
                x.shape()
            )));
        }
        let count = isotrace_tensor::element_count(&inferred)?;
        let (from, to) = (strides(&inferred), strides(&asked));
        let places = places.to_i64()?;
        for_float!(x.dtype(), "X", T => {
            let mut out = zeros::<T>(&asked)?;
            for (&x, &place) in x.as_slice::<T>()?.iter().zip(places.iter()) {
                let place = usize::try_from(place).ok().filter(|&p| p < count).ok_or_else(|| {
                    OpError::Input(format!("I names place {place} of {count}"))
                })?;
                let at: usize =
                    from.iter().zip(&to).zip(&inferred).map(|((f, t), size)| place / f % size * t).sum();
                out[at] = x;
            }
            Ok(vec![Tensor::from_vec(&asked, out)?])
        })
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }

    fn keeps_half(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{counting, first, ints, node, run, tensor};

    #[test]
    fn places_and_a_larger_output() {
        let two = || Attribute::Ints(vec![2, 2]);
        let node = node("MaxUnpool", 11, &[("kernel_shape", two()), ("strides", two())]);
        let x = tensor(&[1, 1, 1, 2], &[7f32, 9.]);
        let places = ints(&[1, 6]).reshape(&[1, 1, 1, 2]).unwrap();
        assert_eq!(first(&node, &[&x, &places]).as_slice::<f32>().unwrap(), [0., 7., 0., 0., 0., 0., 9., 0.]);
        let larger = first(&node, &[&x, &places, &ints(&[1, 1, 2, 5])]);
        assert_eq!(larger.as_slice::<f32>().unwrap(), [0., 7., 0., 0., 0., 0., 0., 9., 0., 0.]);
        for (places, shape) in [([1, 8], [1, 1, 2, 4]), ([-1, 0], [1, 1, 2, 4]), ([0, 1], [1, 1, 1, 4])] {
            let places = ints(&places).reshape(&[1, 1, 1, 2]).unwrap();
            assert!(run(&node, &[&x, &places, &ints(&shape)]).is_err(), "{places:?} {shape:?}");
        }
        assert!(run(&node, &[&counting(&[1, 1]), &ints(&[0]).reshape(&[1, 1]).unwrap()]).is_err());
    }
}
