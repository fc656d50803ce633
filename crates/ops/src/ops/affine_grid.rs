//! `AffineGrid`: the places that affine matrices send the points of an even grid to, as `GridSample` reads them.
//!
//! theta is [N, k, k + 1], `size` holds N, C and the k spatial sizes, k 2 or 3; the grid is [N, D1, ..., Dk, k] with
//! coordinates from -1 to 1, the last axis first.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::budget::{Budget, Unit};
use crate::moves::room;
use crate::spread::{Number, Spread, budget as spread_budget};
use crate::{Call, Float, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct AffineGrid {
    align: bool,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(AffineGrid { align: attributes::flag(node, "align_corners", false)? }))
}

impl AffineGrid {
    /// Where point `i` of `length` lies between -1 and 1: at the centres of an even grid, the outermost of which are
    /// the ends where corners are aligned. A single point is the middle, as PyTorch has it.
    fn place<N: Number>(&self, i: usize, length: usize) -> N {
        let number = |x: f64| N::exact(<N::Weight as Float>::of(x));
        let parts = if self.align { length - 1 } else { length };
        if parts == 0 {
            return number(0.0);
        }
        // 2 i + 1 - length: a whole number, so that the one rounding is the quotient's.
        number((2 * i + 1) as f64 - length as f64).over(number(parts as f64))
    }

    fn compute<N: Number>(&self, call: &Call<'_>) -> Result<(Vec<usize>, Vec<N>), OpError> {
        let (theta, size) = (call.need(0, "theta")?, call.need(1, "size")?.to_i64()?);
        let sizes = size.iter().map(|&s| usize::try_from(s)).collect::<Result<Vec<_>, _>>();
        let (batch, space, axes) = match (theta.shape(), &sizes) {
            (&[n, k @ (2 | 3), wide], Ok(sizes))
                if wide == k + 1 && sizes.len() == k + 2 && sizes[0] == n =>
            {
                (n, sizes[2..].to_vec(), k)
            }
            (found, _) => {
                return Err(OpError::Input(format!(
                    "theta {found:?} and size {size:?} do not go together; expected [N, 2, 3] with (N, C, H, W), or \
                     [N, 3, 4] with (N, C, D, H, W)"
                )));
            }
        };
        let mut shape = vec![batch];
        shape.extend_from_slice(&space);
        shape.push(axes);
        let mut out = room::<N>(&shape)?;
        let theta: Vec<N> = theta.as_slice::<N::Weight>()?.iter().map(|&x| N::exact(x)).collect();
        let points: usize = space.iter().product();
        let mut at = vec![N::exact(<N::Weight as Float>::ZERO); axes];
        for matrix in theta.chunks(axes * (axes + 1)) {
            for p in 0..points {
                let mut rest = p;
                // The matrix names the last axis first.
                for (at, &length) in at.iter_mut().zip(space.iter().rev()) {
                    *at = self.place(rest % length, length);
                    rest /= length;
                }
                for row in matrix.chunks(axes + 1) {
                    let products = row.iter().zip(&at).map(|(m, x)| m.times(*x));
                    out.push(products.reduce(N::plus).map_or(row[axes], |sum| sum.plus(row[axes])));
                }
            }
        }
        Ok((shape, out))
    }
}

impl Operator for AffineGrid {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        for_float!(call.need(0, "theta")?.dtype(), "theta", T => {
            let (shape, grid) = self.compute::<T>(call)?;
            Ok(vec![Tensor::from_vec(&shape, grid)?])
        })
    }

    fn budget(&self, call: &Call<'_>, _: usize, _: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        Ok(spread_budget(&self.compute::<Spread>(call)?.1, unit))
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{first, ints, node, run, tensor};

    #[test]
    fn an_even_grid_moved_and_turned() {
        // x' = y + 1, y' = 2 x
        let theta = tensor(&[1, 2, 3], &[0f32, 1., 1., 2., 0., 0.]);
        for (align, expected) in [
            (1, [0., -2., 0., 0., 0., 2., 2., -2., 2., 0., 2., 2.]),
            (0, [0.5, -4. / 3., 0.5, 0., 0.5, 4. / 3., 1.5, -4. / 3., 1.5, 0., 1.5, 4. / 3.]),
        ] {
            let node = node("AffineGrid", 20, &[("align_corners", Attribute::Int(align))]);
            let grid = first(&node, &[&theta, &ints(&[1, 1, 2, 3])]);
            assert_eq!(grid.shape(), [1, 2, 3, 2]);
            assert_eq!(grid.as_slice::<f32>().unwrap(), expected, "align_corners {align}");
        }
    }

    #[test]
    fn empty_single_and_ill_fitting_grids() {
        let node = node("AffineGrid", 20, &[("align_corners", Attribute::Int(1))]);
        let theta = tensor(&[1, 2, 3], &[1f32, 0., 0.25, 0., 1., 0.5]);
        assert_eq!(first(&node, &[&theta, &ints(&[1, 3, 1, 1])]).as_slice::<f32>().unwrap(), [0.25, 0.5]);
        assert_eq!(first(&node, &[&theta, &ints(&[1, 3, 0, 4])]).len(), 0);
        for size in [&[2, 3, 1, 1][..], &[1, 3, 1], &[1, 3, -1, 1], &[1, 3, 2, 2, 2]] {
            assert!(run(&node, &[&theta, &ints(size)]).is_err(), "{size:?}");
        }
    }
}
