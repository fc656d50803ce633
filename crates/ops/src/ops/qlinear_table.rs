//! com.microsoft's operators on single 8-bit numbers, by table: `QLinearSigmoid`, `QLinearLeakyRelu`, and the change of
//! grid in `QLinearConcat` and `QLinearWhere`. Each input comes with its scale and zero point.
//!
//! Every element is one of 256, so each is dequantised, transformed and quantised in f32, as ONNX Runtime fills its
//! tables. `QLinearSigmoid` rests on an approximation of the sigmoid there: the integers are the same unless a value lies
//! within a few ulp of the middle between two.

use isotrace_graph::Node;
use isotrace_tensor::{Bool, Tensor, View, broadcast_shapes, element_count, normalise_axis};

use super::concat::concatenate;
use crate::broadcast::zip3;
use crate::grid::Grid;
use crate::{Call, Decision, Float, OpError, Operator, attributes};

#[derive(Debug)]
enum QLinearTable {
    Sigmoid,
    LeakyRelu { alpha: f32 },
    Concat { axis: i64 },
    Where,
}

/// Parses a `QLinearSigmoid`.
pub fn sigmoid(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(QLinearTable::Sigmoid))
}

/// Parses a `QLinearLeakyRelu`.
pub fn leaky_relu(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(QLinearTable::LeakyRelu { alpha: attributes::float_or(node, "alpha", 0.01)? }))
}

/// Parses a `QLinearConcat`.
pub fn concat(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let axis = attributes::int(node, "axis")?
        .ok_or_else(|| OpError::Setting("QLinearConcat needs the attribute \"axis\"".into()))?;
    Ok(Box::new(QLinearTable::Concat { axis }))
}

/// Parses a `QLinearWhere`.
pub fn select(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(QLinearTable::Where))
}

/// Input `at`, whose scale and zero point follow, on another grid.
fn moved(call: &Call<'_>, at: usize, to: &Grid, f: impl Fn(f32) -> f32) -> Result<Tensor, OpError> {
    let x = call.need(at, "X")?;
    let from = Grid::read(call, at + 1, "X", x.dtype())?;
    to.tensor(x.shape(), from.look_up(&from.table(to, f), x)?)
}

fn join(call: &Call<'_>, axis: i64) -> Result<Tensor, OpError> {
    let to = Grid::written(call, 0, call.need(1, "Y_zero_point")?.dtype())?;
    let rest = call.inputs.len() - 2;
    if rest == 0 || !rest.is_multiple_of(3) {
        return Err(OpError::Input(format!(
            "{rest} inputs after the output's scale and zero point; each tensor needs three: itself, scale, zero point"
        )));
    }
    let parts: Vec<Tensor> =
        (0..rest / 3).map(|i| moved(call, 2 + 3 * i, &to, |x| x)).collect::<Result<_, _>>()?;
    let axis = normalise_axis(axis, parts[0].rank())?;
    concatenate(&parts.iter().collect::<Vec<_>>(), axis)
}

fn pick(call: &Call<'_>) -> Result<Tensor, OpError> {
    let condition = call.need(0, "condition")?.view::<Bool>()?;
    let to = Grid::written(call, 7, call.need(1, "X")?.dtype())?;
    let (x, y) = (moved(call, 1, &to, |x| x)?, moved(call, 4, &to, |x| x)?);
    element_count(&broadcast_shapes(&broadcast_shapes(condition.shape(), x.shape())?, y.shape())?)?;
    let (left, right) = (x.to_i64()?, y.to_i64()?);
    let (left, right) = (View::new(&left, x.shape()), View::new(&right, y.shape()));
    let (shape, data) =
        zip3(&condition, &left, &right, |c, x, y| if c.0 == 0 { y as i32 } else { x as i32 })?;
    to.tensor(&shape, data)
}

impl Operator for QLinearTable {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let written = || Grid::written(call, 3, call.need(0, "X")?.dtype());
        Ok(vec![match *self {
            Self::Sigmoid => moved(call, 0, &written()?, Float::sigmoid)?,
            Self::LeakyRelu { alpha } => {
                moved(call, 0, &written()?, |x| if x >= 0.0 { x } else { alpha * x })?
            }
            Self::Concat { axis } => join(call, axis)?,
            Self::Where => pick(call)?,
        }])
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_numbers_as_a_table() {
        let x = Tensor::vector(vec![0u8, 10, 14, 255]);
        let (half, ten, one, zero) =
            (Tensor::scalar(0.5f32), Tensor::scalar(10u8), Tensor::scalar(1f32), Tensor::scalar(1u8));
        let fine = Tensor::scalar(1f32 / 256.0);
        let cases = [
            // -5, 0, 2, 122.5
            (QLinearTable::LeakyRelu { alpha: 0.5 }, &one, [0u8, 1, 3, 123]),
            (QLinearTable::Sigmoid, &fine, [3, 129, 226, 255]),
        ];
        for (op, scale, expected) in cases {
            let inputs = [&x, &half, &ten, scale, &zero].map(Some);
            let out = op.run(&Call::new(&inputs)).unwrap();
            assert_eq!(out[0].as_slice::<u8>().unwrap(), expected, "{op:?}");
        }
    }

    #[test]
    fn joined_tensors_change_their_grids() {
        let (x, y) = (Tensor::vector(vec![1i8, -2]), Tensor::vector(vec![3i8]));
        let (one, half) = (Tensor::scalar(1f32), Tensor::scalar(0.5f32));
        let (zero, two) = (Tensor::scalar(0i8), Tensor::scalar(2i8));
        let op = QLinearTable::Concat { axis: -1 };
        let inputs = [&half, &two, &x, &one, &zero, &y, &half, &zero].map(Some);
        let out = op.run(&Call::new(&inputs)).unwrap();
        assert_eq!(out[0].as_slice::<i8>().unwrap(), [4, -2, 5]);
        assert!(op.run(&Call::new(&inputs[..7])).is_err());
    }

    #[test]
    fn picked_numbers_change_their_grids() {
        let condition = Tensor::from_vec(&[2, 1], vec![Bool(1), Bool(0)]).unwrap();
        let (x, y) = (Tensor::vector(vec![1u8, 2]), Tensor::scalar(7u8));
        let (one, half, zero) = (Tensor::scalar(1f32), Tensor::scalar(0.5f32), Tensor::scalar(0u8));
        let inputs = [&condition, &x, &one, &zero, &y, &half, &zero, &half, &zero].map(Some);
        let out = QLinearTable::Where.run(&Call::new(&inputs)).unwrap();
        assert_eq!((out[0].shape(), out[0].as_slice::<u8>().unwrap()), (&[2, 2][..], &[2u8, 4, 7, 7][..]));
    }
}
