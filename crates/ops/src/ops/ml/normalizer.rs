//! Normalizer: each row over its largest element, the sum of its absolute values, or its length. A row whose divisor is
//! 0 stays.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::{Rows, computing, sizes};
use crate::budget::{self, Budget, Unit};
use crate::{Call, Float, OpError, Operator, attributes};

#[derive(Debug, Clone, Copy)]
enum Norm {
    /// The largest element, whatever its sign.
    Max,
    L1,
    L2,
}

#[derive(Debug)]
struct Normalizer {
    norm: Norm,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let norm = match attributes::text_or(node, "norm", "MAX")?.as_str() {
        "MAX" => Norm::Max,
        "L1" => Norm::L1,
        "L2" => Norm::L2,
        other => return Err(OpError::Setting(format!("norm is {other:?}, ONNX defines MAX, L1 and L2"))),
    };
    Ok(Box::new(Normalizer { norm }))
}

impl Normalizer {
    fn divisor<T: Float>(&self, row: &[T]) -> T {
        match self.norm {
            Norm::Max => row.iter().fold(-T::INFINITY, |a, &b| a.max_nan(b)),
            Norm::L1 => row.iter().map(|x| x.abs()).sum(),
            Norm::L2 => row.iter().map(|&x| x * x).sum::<T>().sqrt(),
        }
    }
}

impl Operator for Normalizer {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        computing!(call, T => {
            let mut rows = Rows::<T>::of(call)?;
            for row in rows.data.chunks_mut(rows.width.max(1)) {
                let divisor = self.divisor(row);
                if divisor != 0.0 {
                    for x in row {
                        *x /= divisor;
                    }
                }
            }
            Ok(vec![Tensor::from_vec(call.need(0, "X")?.shape(), rows.data)?])
        })
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        budget::rms_norm(output, sizes(call.need(0, "X")?)?.1, unit)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, node, text};
    use crate::testing::{first, run, tensor};

    #[test]
    fn rows_as_a_table() {
        let x = tensor(&[3, 3], &[-3.0f32, 1.0, 2.0, -1.0, -2.0, -4.0, 0.0, 0.0, 0.0]);
        let cases: [(&str, [f64; 9]); 3] = [
            ("MAX", [-1.5, 0.5, 1.0, 1.0, 2.0, 4.0, 0.0, 0.0, 0.0]),
            ("L1", [-0.5, 1.0 / 6.0, 1.0 / 3.0, -1.0 / 7.0, -2.0 / 7.0, -4.0 / 7.0, 0.0, 0.0, 0.0]),
            (
                "L2",
                [
                    -0.801_783_7,
                    0.267_261_24,
                    0.534_522_5,
                    -0.218_217_9,
                    -0.436_435_8,
                    -0.872_871_6,
                    0.0,
                    0.0,
                    0.0,
                ],
            ),
        ];
        for (norm, expected) in cases {
            let y = first(&node("Normalizer", 1, &[("norm", text(norm))]), &[&x]);
            assert!(close(&y, &expected), "{norm}: {y:?}");
        }
        let whole = first(&node("Normalizer", 1, &[]), &[&tensor(&[2], &[1i64, 2])]);
        assert_eq!(whole.as_slice::<f32>().unwrap(), [0.5, 1.0]);
        assert!(run(&node("Normalizer", 1, &[]), &[&tensor(&[1, 1, 1], &[1f32])]).is_err());
    }
}
