//! com.microsoft `FusedMatMul` and its older form `TransposeMatMul`: alpha times a batched product whose operands are
//! transposed on the way.
//!
//! `transA` swaps the last two axes of A. `transBatchA` first takes A as stored with its rows' axis ahead of the
//! batch: axis 0 becomes the last but one, the axes between move one place to the front. The same holds for B.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, View};

use super::matmul::matmul;
use crate::budget::{self, Budget, Unit};
use crate::magnitude::magnitude;
use crate::{Call, Float, Flow, OpError, Operator, attributes, for_float};

#[derive(Debug, Clone, Copy)]
struct Turn {
    matrix: bool,
    batch: bool,
}

#[derive(Debug)]
struct FusedMatMul {
    alpha: f64,
    a: Turn,
    b: Turn,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let turn = |matrix: &str, batch: &str| -> Result<Turn, OpError> {
        Ok(Turn {
            matrix: attributes::flag(node, matrix, false)?,
            batch: attributes::flag(node, batch, false)?,
        })
    };
    Ok(Box::new(FusedMatMul {
        alpha: attributes::float_or(node, "alpha", 1.0)?.into(),
        a: turn("transA", "transBatchA")?,
        b: turn("transB", "transBatchB")?,
    }))
}

impl Turn {
    /// The axes of the operand in the order in which they are multiplied.
    fn order(self, rank: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..rank).collect();
        if rank < 2 {
            return order;
        }
        if self.batch {
            order[..rank - 1].rotate_left(1);
        }
        if self.matrix {
            order.swap(rank - 2, rank - 1);
        }
        order
    }

    fn apply<'a, T: Copy + Send + Sync>(self, x: &View<'a, T>) -> View<'a, T> {
        x.permute(&self.order(x.shape().len()))
    }
}

impl FusedMatMul {
    fn sizes(&self, call: &Call<'_>) -> Result<Tensor, OpError> {
        magnitude(call, |c| {
            let (a, b) = (c.need(0, "A")?, c.need(1, "B")?);
            for_float!(a.dtype(), "A", T => self.compute::<T>(a, b, self.alpha.abs()))
        })
    }

    fn compute<T: Float>(&self, a: &Tensor, b: &Tensor, alpha: f64) -> Result<Tensor, OpError> {
        let (a, b) = (self.a.apply(&a.view::<T>()?), self.b.apply(&b.view::<T>()?));
        let (shape, mut data) = matmul(&a, &b)?;
        if alpha != 1.0 {
            let alpha = T::of(alpha);
            for x in &mut data {
                *x = alpha * *x;
            }
        }
        Ok(Tensor::from_vec(&shape, data)?)
    }
}

impl Operator for FusedMatMul {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (call.need(0, "A")?, call.need(1, "B")?);
        Ok(vec![for_float!(a.dtype(), "A", T => self.compute::<T>(a, b, self.alpha))?])
    }

    fn flow(&self) -> Flow {
        Flow::Linear
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let shape = call.need(0, "A")?.shape();
        let terms = self.a.order(shape.len()).last().map_or(1, |&axis| shape[axis]);
        budget::sum_of(output, &self.sizes(call)?, terms as f64, unit)
    }

    fn magnitude(&self, call: &Call<'_>) -> Result<Option<Tensor>, OpError> {
        self.sizes(call).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_give_the_shapes_of_a_batched_product() {
        struct Case {
            shape: &'static [usize],
            matrix: bool,
            batch: bool,
            expected: &'static [usize],
        }
        let cases = [
            Case { shape: &[2, 3, 4], matrix: true, batch: false, expected: &[2, 4, 3] },
            Case { shape: &[2, 3, 4], matrix: false, batch: true, expected: &[3, 2, 4] },
            Case { shape: &[2, 3, 5, 4], matrix: false, batch: true, expected: &[3, 5, 2, 4] },
            Case { shape: &[2, 3, 5, 4], matrix: true, batch: true, expected: &[3, 5, 4, 2] },
            Case { shape: &[4], matrix: true, batch: true, expected: &[4] },
        ];
        for Case { shape, matrix, batch, expected } in cases {
            let x = vec![0f32; shape.iter().product()];
            let got = Turn { matrix, batch }.apply(&View::new(&x, shape));
            assert_eq!(got.shape(), expected, "{shape:?} {matrix} {batch}");
        }
    }

    #[test]
    fn scaled_transposed_product() {
        let a = Tensor::from_vec(&[1, 2], vec![1f32, 2.0]).unwrap();
        let b = Tensor::from_vec(&[2, 2], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
        let op = FusedMatMul {
            alpha: -0.5,
            a: Turn { matrix: false, batch: false },
            b: Turn { matrix: true, batch: false },
        };
        let inputs = [Some(&a), Some(&b)];
        let out = op.run(&Call::new(&inputs)).unwrap();
        assert_eq!(out[0].as_slice::<f32>().unwrap(), [-2.5, -5.5]);
    }
}
