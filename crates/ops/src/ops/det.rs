//! `Det`: determinants of square matrices, [*, M, M] to `[*]`, by elimination with the largest pivot of each column.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::budget::{Budget, Unit};
use crate::moves::room;
use crate::spread::{Number, Spread, budget as spread_budget};
use crate::{Call, Float, OpError, Operator, for_float};

#[derive(Debug)]
struct Det;

/// Parses a node.
pub fn build(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Det))
}

/// The determinant of an `m` by `m` matrix, which is destroyed.
fn determinant<N: Number>(a: &mut [N], m: usize) -> N {
    let mut product = N::exact(<N::Weight as Float>::ONE);
    let minus = N::exact(-<N::Weight as Float>::ONE);
    for k in 0..m {
        let size = |row: usize| a[row * m + k].value().abs();
        let pivot = (k..m).fold(k, |best, row| if size(row) > size(best) { row } else { best });
        if pivot != k {
            (k..m).for_each(|column| a.swap(k * m + column, pivot * m + column));
            product = product.times(minus);
        }
        let at = a[k * m + k];
        product = product.times(at);
        if at.value() == <N::Weight as Float>::ZERO {
            return product;
        }
        for row in k + 1..m {
            let factor = a[row * m + k].over(at).times(minus);
            for column in k + 1..m {
                a[row * m + column] = a[row * m + column].plus(factor.times(a[k * m + column]));
            }
        }
    }
    product
}

fn compute<N: Number>(call: &Call<'_>) -> Result<(Vec<usize>, Vec<N>), OpError> {
    let x = call.need(0, "X")?;
    let &[ref batch @ .., m, columns] = x.shape() else {
        return Err(OpError::Input(format!("X {:?} must have at least two axes", x.shape())));
    };
    if m != columns {
        return Err(OpError::Input(format!("X {:?} must hold square matrices", x.shape())));
    }
    let mut a: Vec<N> = x.as_slice::<N::Weight>()?.iter().map(|&x| N::exact(x)).collect();
    // The determinant of a matrix without elements is the empty product.
    let mut out = room::<N>(batch)?;
    if m == 0 {
        out.resize(batch.iter().product(), N::exact(<N::Weight as Float>::ONE));
    } else {
        out.extend(a.chunks_mut(m * m).map(|a| determinant(a, m)));
    }
    Ok((batch.to_vec(), out))
}

impl Operator for Det {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        for_float!(call.need(0, "X")?.dtype(), "X", T => {
            let (shape, out) = compute::<T>(call)?;
            Ok(vec![Tensor::from_vec(&shape, out)?])
        })
    }

    fn budget(&self, call: &Call<'_>, _: usize, _: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        Ok(spread_budget(&compute::<Spread>(call)?.1, unit))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{counting, first, node, run, tensor};

    #[test]
    fn known_determinants() {
        let cases: [(&[usize], &[f32], &[f32]); 5] = [
            (&[2, 2], &[0., 2., 3., 4.], &[-6.]),
            (&[3, 3], &[2., 0., 0., 0., 3., 0., 0., 0., 4.], &[24.]),
            (&[2, 2, 2], &[1., 2., 2., 4., 1., 2., 3., 4.], &[0., -2.]),
            (&[2, 0, 0], &[], &[1., 1.]),
            (&[0, 3, 3], &[], &[]),
        ];
        for (shape, x, expected) in cases {
            let out = first(&node("Det", 11, &[]), &[&tensor(shape, x)]);
            assert_eq!(out.shape(), &shape[..shape.len() - 2]);
            for (y, e) in out.as_slice::<f32>().unwrap().iter().zip(expected) {
                assert!((y - e).abs() < 1e-5, "{y} is not {e}");
            }
        }
        assert!(run(&node("Det", 11, &[]), &[&counting(&[2, 3])]).is_err());
        assert!(run(&node("Det", 11, &[]), &[&counting(&[2])]).is_err());
    }
}
