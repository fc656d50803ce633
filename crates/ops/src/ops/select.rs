//! Where: X where the condition holds, else Y, all three broadcast. Any element type.

use isotrace_graph::Node;
use isotrace_tensor::{Bool, Tensor, View, broadcast_shapes};

use crate::broadcast::zip3;
use crate::moves::{Move, move_elements};
use crate::{Call, Flow, OpError, Operator};

#[derive(Debug)]
struct Where;

/// Parses a node.
pub fn build(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Where))
}

struct Select<'a> {
    condition: View<'a, Bool>,
    x: &'a [usize],
    y: &'a [usize],
}

impl Move for Select<'_> {
    fn run<T: Copy + Send + Sync>(&self, data: &[&[T]], _: T, out: &mut Vec<T>) {
        let (x, y) = (View::new(data[0], self.x), View::new(data[1], self.y));
        let picked = zip3(&self.condition, &x, &y, |c, x, y| if c.0 == 0 { y } else { x });
        *out = picked.expect("the shapes were broadcast before").1;
    }
}

impl Operator for Where {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let condition = call.need(0, "condition")?.view::<Bool>()?;
        let (x, y) = (call.need(1, "X")?, call.need(2, "Y")?);
        let shape = broadcast_shapes(&broadcast_shapes(condition.shape(), x.shape())?, y.shape())?;
        isotrace_tensor::element_count(&shape)?;
        let kernel = Select { condition, x: x.shape(), y: y.shape() };
        Ok(vec![move_elements(&[x, y], &shape, &kernel)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_type_is_picked_from() {
        let condition = Tensor::from_vec(&[2, 1], vec![Bool(1), Bool(0)]).unwrap();
        let x = Tensor::vector(vec![1i64, 2, 3]);
        let y = Tensor::scalar(-1i64);
        let out = Where.run(&Call::new(&[Some(&condition), Some(&x), Some(&y)])).unwrap();
        assert_eq!(out[0].shape(), [2, 3]);
        assert_eq!(out[0].as_slice::<i64>().unwrap(), [1, 2, 3, -1, -1, -1]);

        let x = Tensor::from_strings(&[1], vec!["x".into()]).unwrap();
        let y = Tensor::from_strings(&[1], vec!["y".into()]).unwrap();
        let out = Where.run(&Call::new(&[Some(&condition), Some(&x), Some(&y)])).unwrap();
        assert_eq!(out[0].as_strings().unwrap(), ["x", "y"]);
    }
}
