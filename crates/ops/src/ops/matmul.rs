//! MatMul: the matrix product of NumPy, batched over broadcast leading axes.

use isotrace_graph::Node;
use isotrace_tensor::{Odometer, Tensor, View, broadcast_shapes};
use rayon::prelude::*;

use crate::budget::{self, Budget, Unit};
use crate::product::{Matrix, product};
use crate::{Call, Float, Flow, OpError, Operator, for_float};

#[derive(Debug)]
struct MatMul;

/// Parses a node.
pub fn build(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(MatMul))
}

impl Operator for MatMul {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (call.need(0, "A")?, call.need(1, "B")?);
        let out = for_float!(a.dtype(), "A", T => {
            let (shape, data) = matmul(&a.view::<T>()?, &b.view::<T>()?)?;
            Ok(Tensor::from_vec(&shape, data)?)
        })?;
        Ok(vec![out])
    }

    fn flow(&self) -> Flow {
        Flow::Linear
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let (a, b) = (call.need(0, "A")?, call.need(1, "B")?);
        let terms = a.shape().last().copied().unwrap_or(1) as f64;
        let (a, b) = (absolute(a)?, absolute(b)?);
        let (_, magnitude) = matmul(&a.view::<f64>()?, &b.view::<f64>()?)?;
        budget::sum(output, &magnitude, terms, unit)
    }
}

/// The absolute values of a tensor, in f64.
pub(crate) fn absolute(tensor: &Tensor) -> Result<Tensor, OpError> {
    Ok(Tensor::from_vec(tensor.shape(), tensor.to_f64()?.iter().map(|x| x.abs()).collect())?)
}

/// The product and its shape. A vector counts as a row on the left, as a column on the right.
pub fn matmul<T: Float>(a: &View<'_, T>, b: &View<'_, T>) -> Result<(Vec<usize>, Vec<T>), OpError> {
    let mismatch = || {
        OpError::Input(format!(
            "the inner sizes of {:?} and {:?} differ; the last axis of A must be as long as the last but one of B",
            a.shape(),
            b.shape()
        ))
    };
    if a.shape().is_empty() || b.shape().is_empty() {
        return Err(OpError::Input("a product of matrices needs at least one axis on either side".into()));
    }
    let (rows, columns) = (a.shape().len() > 1, b.shape().len() > 1);
    let [.., ka] = *a.shape() else { return Err(mismatch()) };
    let m = if rows { a.shape()[a.shape().len() - 2] } else { 1 };
    let (kb, n) = match *b.shape() {
        [k] => (k, 1),
        [.., k, n] => (k, n),
        [] => return Err(mismatch()),
    };
    if ka != kb {
        return Err(mismatch());
    }
    let lead_a = &a.shape()[..a.shape().len().saturating_sub(2)];
    let lead_b = &b.shape()[..b.shape().len().saturating_sub(2)];
    let lead = broadcast_shapes(lead_a, lead_b)?;
    let mut shape = lead.clone();
    shape.extend(rows.then_some(m));
    shape.extend(columns.then_some(n));

    let batches: usize = lead.iter().product();
    let starts = |view: &View<'_, T>, lead_own: &[usize]| -> Vec<usize> {
        let mut strides = vec![0; lead.len()];
        let skip = lead.len() - lead_own.len();
        for (i, &d) in lead_own.iter().enumerate() {
            strides[skip + i] = if d == 1 { 0 } else { view.strides()[i] };
        }
        Odometer::new(&lead, &strides).collect()
    };
    let (at_a, at_b) = (starts(a, lead_a), starts(b, lead_b));
    let matrix = |view: &View<'_, T>, two: bool, vector_is_row: bool| {
        let s = view.strides();
        match (two, vector_is_row) {
            (true, _) => (s[s.len() - 2], s[s.len() - 1]),
            (false, true) => (0, s[0]),
            (false, false) => (s[0], 0),
        }
    };
    let ((row_a, column_a), (row_b, column_b)) = (matrix(a, rows, true), matrix(b, columns, false));
    let mut out = vec![T::ZERO; batches * m * n];
    if out.is_empty() {
        return Ok((shape, out));
    }
    // Leading axes of A fold into rows where B is one matrix: one large product is faster than many small ones.
    if batches > 1 && lead_b.iter().all(|&d| d == 1) && rows && a.is_contiguous() && lead_a == lead.as_slice()
    {
        let a = Matrix { data: a.data(), row: row_a, column: column_a };
        product(
            batches * m,
            ka,
            n,
            a,
            Matrix { data: b.data(), row: row_b, column: column_b },
            &mut out,
            true,
        );
        return Ok((shape, out));
    }
    let one = |i: usize, c: &mut [T], parallel: bool| {
        let a = Matrix { data: &a.data()[at_a[i].min(a.data().len())..], row: row_a, column: column_a };
        let b = Matrix { data: &b.data()[at_b[i].min(b.data().len())..], row: row_b, column: column_b };
        product(m, ka, n, a, b, c, parallel);
    };
    // Many batches share the threads; few large ones each use all of them.
    if batches >= 4 && m * n * ka * batches > 1 << 18 {
        out.par_chunks_mut(m * n).enumerate().for_each(|(i, c)| one(i, c, false));
    } else {
        out.chunks_mut(m * n).enumerate().for_each(|(i, c)| one(i, c, true));
    }
    Ok((shape, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_numpy() {
        struct Case {
            a: &'static [usize],
            b: &'static [usize],
            out: Option<&'static [usize]>,
        }
        let cases = [
            Case { a: &[2, 3], b: &[3, 4], out: Some(&[2, 4]) },
            Case { a: &[3], b: &[3, 4], out: Some(&[4]) },
            Case { a: &[2, 3], b: &[3], out: Some(&[2]) },
            Case { a: &[3], b: &[3], out: Some(&[]) },
            Case { a: &[5, 1, 2, 3], b: &[7, 3, 4], out: Some(&[5, 7, 2, 4]) },
            Case { a: &[5, 2, 3], b: &[3, 4], out: Some(&[5, 2, 4]) },
            Case { a: &[2, 0], b: &[0, 4], out: Some(&[2, 4]) },
            Case { a: &[0, 3], b: &[3, 4], out: Some(&[0, 4]) },
            Case { a: &[2, 3], b: &[4, 3], out: None },
        ];
        for Case { a, b, out } in cases {
            let x: Vec<f64> = (0..a.iter().product::<usize>()).map(|i| i as f64).collect();
            let y: Vec<f64> = (0..b.iter().product::<usize>()).map(|i| (i % 7) as f64).collect();
            let got = matmul(&View::new(&x, a), &View::new(&y, b));
            assert_eq!(got.as_ref().ok().map(|(s, _)| s.as_slice()), out, "{a:?} x {b:?}");
        }
    }

    #[test]
    fn batches_agree_with_single_products() {
        let a: Vec<f32> = (0..60).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..12).map(|i| (i as f32 * 0.73).cos()).collect();
        let (_, all) = matmul(&View::new(&a, &[5, 4, 3]), &View::new(&b, &[3, 4])).unwrap();
        for i in 0..5 {
            let (_, one) =
                matmul(&View::new(&a[i * 12..(i + 1) * 12], &[4, 3]), &View::new(&b, &[3, 4])).unwrap();
            assert_eq!(all[i * 16..(i + 1) * 16], one);
        }
    }
}
