//! EyeLike: ones on a diagonal. Trilu: one triangle of each matrix, zeros elsewhere.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor};

use crate::moves::{Move, move_elements};
use crate::{Call, Flow, OpError, Operator, arguments, attributes, flow};

#[derive(Debug)]
struct EyeLike {
    dtype: Option<DType>,
    diagonal: i64,
}

/// Parses a node.
pub fn eye_like(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(EyeLike {
        dtype: attributes::dtype(node, "dtype")?,
        diagonal: attributes::int_or(node, "k", 0)?,
    }))
}

impl Operator for EyeLike {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "input")?;
        let &[rows, columns] = data.shape() else {
            return Err(OpError::Input(format!("input {:?} must be a matrix", data.shape())));
        };
        let ones: Vec<u8> = (0..rows)
            .flat_map(|row| {
                let place = (row as i64).saturating_add(self.diagonal);
                (0..columns).map(move |column| u8::from(column as i64 == place))
            })
            .collect();
        let dtype = call.precision.resolve(self.dtype.unwrap_or(data.dtype()));
        Ok(vec![Tensor::from_vec(data.shape(), ones)?.cast(dtype)?])
    }

    // Not the elements but the shape and type of the input count.
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

/// Keeps the elements above and on diagonal `k` (input 1, 0 where left out), or below and on it.
#[derive(Debug)]
struct Trilu {
    upper: bool,
}

/// Parses a node.
pub fn trilu(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Trilu { upper: attributes::flag(node, "upper", true)? }))
}

struct Triangle {
    rows: usize,
    columns: usize,
    diagonal: i64,
    upper: bool,
}

impl Move for Triangle {
    fn run<T: Copy + Send + Sync>(&self, data: &[&[T]], zero: T, out: &mut Vec<T>) {
        out.extend_from_slice(data[0]);
        for (i, row) in out.chunks_mut(self.columns.max(1)).enumerate() {
            // The diagonal's place in this row, and the first place to the right of it.
            let place = ((i % self.rows) as i64).saturating_add(self.diagonal);
            if self.upper {
                row[..place.clamp(0, self.columns as i64) as usize].fill(zero);
            } else {
                row[place.saturating_add(1).clamp(0, self.columns as i64) as usize..].fill(zero);
            }
        }
    }
}

impl Operator for Trilu {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "input")?;
        let diagonal = arguments::one_int(call, 1, "k")?.unwrap_or(0);
        let &[.., rows, columns] = data.shape() else {
            return Err(OpError::Input(format!("input {:?} must hold matrices", data.shape())));
        };
        let kernel = Triangle { rows, columns, diagonal, upper: self.upper };
        Ok(vec![move_elements(&[data], data.shape(), &kernel)?])
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
    fn diagonals() {
        let data = counting(&[2, 3]);
        let cases: [(i64, [i32; 6]); 4] =
            [(0, [1, 0, 0, 0, 1, 0]), (1, [0, 1, 0, 0, 0, 1]), (-1, [0, 0, 0, 1, 0, 0]), (i64::MAX, [0; 6])];
        for (k, expected) in cases {
            let n = node("EyeLike", 9, &[("k", Attribute::Int(k)), ("dtype", Attribute::Int(6))]);
            assert_eq!(first(&n, &[&data]).as_slice::<i32>().unwrap(), expected, "k {k}");
        }
        assert_eq!(first(&node("EyeLike", 9, &[]), &[&data]).dtype(), DType::F32);
        assert!(run(&node("EyeLike", 9, &[]), &[&counting(&[2])]).is_err());
        let square = tensor(&[1, 1], &[3f64]);
        assert_eq!(errors(&node("EyeLike", 9, &[]), &[&square], &[Some(square.clone())]), [0.0]);
    }

    #[test]
    fn triangles() {
        let data = tensor(&[2, 3], &[1f32, 2., 3., 4., 5., 6.]);
        let cases: [(i64, i64, [f32; 6]); 7] = [
            (1, 0, [1., 2., 3., 0., 5., 6.]),
            (1, 1, [0., 2., 3., 0., 0., 6.]),
            (1, -5, [1., 2., 3., 4., 5., 6.]),
            (1, i64::MAX, [0.; 6]),
            (0, 0, [1., 0., 0., 4., 5., 0.]),
            (0, 1, [1., 2., 0., 4., 5., 6.]),
            (0, i64::MIN, [0.; 6]),
        ];
        for (upper, k, expected) in cases {
            let n = node("Trilu", 14, &[("upper", Attribute::Int(upper))]);
            let out = first(&n, &[&data, &ints(&[k])]);
            assert_eq!(out.as_slice::<f32>().unwrap(), expected, "upper {upper}, k {k}");
        }
        let batch = first(&node("Trilu", 14, &[]), &[&counting(&[2, 2, 2])]);
        assert_eq!(batch.as_slice::<f32>().unwrap(), [0., 1., 0., 3., 4., 5., 0., 7.]);
        assert_eq!(first(&node("Trilu", 14, &[]), &[&counting(&[3, 0])]).shape(), [3, 0]);
        assert!(run(&node("Trilu", 14, &[]), &[&counting(&[3])]).is_err());
    }
}
