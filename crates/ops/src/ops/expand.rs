//! Expand and Tile: elements repeated, by broadcasting or whole axes over and over.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, broadcast_shapes, normalise_axis};

use crate::walk::{Piece, Walk, walk};
use crate::{Call, Flow, OpError, Operator, arguments};

/// Expand: broadcasting with a shape (input 1); a size of 1 in it keeps the input's.
#[derive(Debug)]
struct Expand;

/// Parses a node.
pub fn expand(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Expand))
}

/// A tensor repeated along axes of size 1, and along new leading ones, to `shape`, which it broadcasts to.
pub fn broadcast(data: &Tensor, shape: &[usize]) -> Result<Tensor, OpError> {
    let mut own = vec![1; shape.len().saturating_sub(data.rank())];
    own.extend_from_slice(data.shape());
    let walks: Vec<Walk> = own
        .iter()
        .zip(shape)
        .map(|(&size, &wanted)| {
            let mut along = Walk::default();
            along.push(Piece::From { start: 0, step: isize::from(size == wanted), len: wanted });
            along
        })
        .collect();
    Ok(walk(&data.reshape(&own)?, &walks, None)?)
}

impl Operator for Expand {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "input")?;
        let shape = arguments::sizes(&arguments::need_ints(call, 1, "shape")?, "shape")?;
        Ok(vec![broadcast(data, &broadcast_shapes(data.shape(), &shape)?)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

/// Tile: input 1 says how often each axis is repeated. In version 1 it is one count, for the axis in input 2.
#[derive(Debug)]
struct Tile {
    one_axis: bool,
}

/// Parses a node.
pub fn tile(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Tile { one_axis: node.version < 6 }))
}

impl Operator for Tile {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "input")?;
        let repeats = if self.one_axis {
            // The type of these inputs is the data's own in version 1.
            let number = |index, name| -> Result<i64, OpError> {
                let values = call.need(index, name)?.to_f64()?;
                values.first().map(|&x| x as i64).ok_or(OpError::Missing(index, name))
            };
            let axis = normalise_axis(number(2, "axis")?, data.rank())?;
            let mut repeats = vec![1; data.rank()];
            repeats[axis] = arguments::count(number(1, "tiles")?, "tiles")?;
            repeats
        } else {
            arguments::sizes(&arguments::need_ints(call, 1, "repeats")?, "repeats")?
        };
        if repeats.len() != data.rank() {
            return Err(OpError::Input(format!(
                "repeats {repeats:?} must hold a number for each axis of {:?}",
                data.shape()
            )));
        }
        // Each axis as two, the copies before the elements: repeating is broadcasting then.
        let (mut apart, mut shape) = (Vec::new(), Vec::new());
        let mut walks = Vec::new();
        for (&size, &times) in data.shape().iter().zip(&repeats) {
            let mut copies = Walk::default();
            copies.push(Piece::From { start: 0, step: 0, len: times });
            walks.extend([copies, Walk::whole(size)]);
            apart.extend([1, size]);
            shape.push(size.saturating_mul(times));
        }
        Ok(vec![walk(&data.reshape(&apart)?, &walks, None)?.reshape(&shape)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{counting, errors, first, ints, node, run, tensor};

    #[test]
    fn expansion_as_a_table() {
        type Case = (&'static [usize], &'static [i64], Option<(&'static [usize], &'static [f32])>);
        let cases: [Case; 8] = [
            (&[2, 1], &[2, 3], Some((&[2, 3], &[0., 0., 0., 1., 1., 1.]))),
            (&[2], &[2, 1], Some((&[2, 2], &[0., 1., 0., 1.]))),
            (&[2, 1], &[1, 2], Some((&[2, 2], &[0., 0., 1., 1.]))),
            (&[], &[2], Some((&[2], &[0., 0.]))),
            (&[2], &[], Some((&[2], &[0., 1.]))),
            (&[1, 2], &[0, 1], Some((&[0, 2], &[]))),
            (&[2], &[3], None),
            (&[2], &[-1], None),
        ];
        for (shape, wanted, expected) in cases {
            let got = run(&node("Expand", 13, &[]), &[&counting(shape), &ints(wanted)]);
            let got = got.ok().map(|t| (t[0].shape().to_vec(), t[0].as_slice::<f32>().unwrap().to_vec()));
            assert_eq!(got, expected.map(|(s, v)| (s.to_vec(), v.to_vec())), "{shape:?} to {wanted:?}");
        }
        let huge = run(&node("Expand", 13, &[]), &[&counting(&[1, 1]), &ints(&[1 << 30, 1 << 20])]);
        assert!(huge.is_err(), "4 PiB");
    }

    #[test]
    fn tiles_as_a_table() {
        let data = counting(&[2, 2]);
        let tile = node("Tile", 13, &[]);
        let cases: [(&[i64], &[f32]); 4] = [
            (&[1, 2], &[0., 1., 0., 1., 2., 3., 2., 3.]),
            (&[2, 1], &[0., 1., 2., 3., 0., 1., 2., 3.]),
            (&[1, 1], &[0., 1., 2., 3.]),
            (&[0, 3], &[]),
        ];
        for (repeats, expected) in cases {
            assert_eq!(first(&tile, &[&data, &ints(repeats)]).as_slice::<f32>().unwrap(), expected);
        }
        assert!(run(&tile, &[&data, &ints(&[2])]).is_err());
        assert!(run(&tile, &[&data, &ints(&[2, i64::MAX])]).is_err());
        let old = first(&node("Tile", 1, &[]), &[&data, &tensor(&[1], &[2f32]), &tensor(&[1], &[1f32])]);
        assert_eq!(old.shape(), [2, 4]);
    }

    #[test]
    fn errors_repeat_with_their_elements() {
        let got = errors(
            &node("Tile", 13, &[]),
            &[&tensor(&[1], &[3f64]), &ints(&[2])],
            &[Some(tensor(&[1], &[0.5f64])), None],
        );
        assert_eq!(got, [0.5, 0.5]);
    }
}
