//! `MatMul`: the matrix product of `NumPy`, batched over broadcast leading axes.
//!
//! Integer products wrap, as in ONNX Runtime.

use std::mem::MaybeUninit;

use isotrace_graph::Node;
use isotrace_tensor::{DType, Odometer, Tensor, View, broadcast_shapes, element_count};
use rayon::prelude::*;

use crate::budget::{self, Budget, Unit};
use crate::magnitude::magnitude;
use crate::product::{Loose, Matrix, product_of_loose, product_onto};
use crate::room::{filled, zeros};
use crate::{Call, Float, Flow, Norms, OpError, Operator, for_float};

#[derive(Debug)]
struct MatMul;

/// Parses a node.
pub fn build(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(MatMul))
}

impl Operator for MatMul {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (call.need(0, "A")?, call.need(1, "B")?);
        let out = match a.dtype() {
            DType::I32 => whole::<i32>(a, b)?,
            DType::I64 => whole::<i64>(a, b)?,
            DType::U32 => whole::<u32>(a, b)?,
            DType::U64 => whole::<u64>(a, b)?,
            dtype => for_float!(dtype, "A", T => {
                let (shape, data) = match weights::<T>(a, b) {
                    Some(weights) => matmul_loose(&a.view::<T>()?, weights, b.shape()[1])?,
                    None => matmul(&a.view::<T>()?, &b.view::<T>()?)?,
                };
                Ok(Tensor::from_vec(&shape, data)?)
            })?,
        };
        Ok(vec![out])
    }

    fn flow(&self) -> Flow {
        Flow::Linear
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if !output.dtype().is_float() {
            return Ok(budget::exact(output.len()));
        }
        let terms = call.need(0, "A")?.shape().last().copied().unwrap_or(1) as f64;
        budget::sum_of(output, &magnitude(call, |c| Ok(self.run(c)?.remove(0)))?, terms, unit)
    }

    fn magnitude(&self, call: &Call<'_>) -> Result<Option<Tensor>, OpError> {
        if !call.need(0, "A")?.dtype().is_float() {
            return Ok(None);
        }
        magnitude(call, |c| Ok(self.run(c)?.remove(0))).map(Some)
    }

    fn norms(&self, call: &Call<'_>) -> Result<Option<Norms>, OpError> {
        Ok(Norms::of_product(call.need(0, "A")?, call.need(1, "B")?))
    }
}

/// B, where it is one matrix that fits A and lies in a file as it cannot be read in place.
fn weights<'a, T: Float>(a: &Tensor, b: &'a Tensor) -> Option<Loose<'a>> {
    let [k, _] = *b.shape() else { return None };
    let fits = a.rank() > 1 && a.shape().last() == Some(&k) && b.dtype() == T::DTYPE;
    let bytes = b.loose_bytes().filter(|_| fits)?;
    Some(Loose { bytes, transposed: false })
}

/// The product of all rows of `a` with one matrix of `n` columns, and its shape.
fn matmul_loose<T: Float>(a: &View<'_, T>, b: Loose<'_>, n: usize) -> Result<(Vec<usize>, Vec<T>), OpError> {
    let mut shape = a.shape().to_vec();
    let k = shape.pop().unwrap_or(1);
    let rows = element_count(&shape)?;
    shape.push(n);
    let mut out = zeros::<T>(&shape)?;
    product_of_loose(rows, k, n, Matrix { data: a.data(), row: k, column: 1 }, b, &mut out, true)?;
    Ok((shape, out))
}

/// The absolute values of a tensor, in f64.
pub(crate) fn absolute(tensor: &Tensor) -> Result<Tensor, OpError> {
    Ok(Tensor::from_vec(tensor.shape(), tensor.to_f64()?.iter().map(|x| x.abs()).collect())?)
}

/// Integers whose sums and products wrap.
pub(crate) trait Whole: isotrace_tensor::Element {
    /// `self + a * b`.
    fn plus(self, a: Self, b: Self) -> Self;
}

macro_rules! impl_whole {
    ($($t:ty),*) => { $(impl Whole for $t {
        fn plus(self, a: Self, b: Self) -> Self {
            self.wrapping_add(a.wrapping_mul(b))
        }
    })* };
}
impl_whole!(i32, i64, u32, u64);

fn whole<T: Whole>(a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    let (shape, data) = matmul_whole(&a.view::<T>()?, &b.view::<T>()?)?;
    Ok(Tensor::from_vec(&shape, data)?)
}

/// The integer product and its shape.
pub(crate) fn matmul_whole<T: Whole>(
    a: &View<'_, T>,
    b: &View<'_, T>,
) -> Result<(Vec<usize>, Vec<T>), OpError> {
    let plan = Plan::new(a, b)?;
    let mut out = zeros::<T>(&plan.shape)?;
    if out.is_empty() || plan.k == 0 {
        return Ok((plan.shape, out));
    }
    for (i, c) in out.chunks_mut(plan.m * plan.n).enumerate() {
        let (a, b) = (&a.data()[plan.at_a[i]..], &b.data()[plan.at_b[i]..]);
        for (row, c) in c.chunks_mut(plan.n).enumerate() {
            for k in 0..plan.k {
                let left = a[row * plan.strides_a.0 + k * plan.strides_a.1];
                for (j, c) in c.iter_mut().enumerate() {
                    *c = c.plus(left, b[k * plan.strides_b.0 + j * plan.strides_b.1]);
                }
            }
        }
    }
    Ok((plan.shape, out))
}

/// Sizes and places of a batched product. A vector counts as a row on the left, as a column on the right.
struct Plan {
    /// Shape of the result.
    shape: Vec<usize>,
    m: usize,
    k: usize,
    n: usize,
    /// First element of each batch's matrix.
    at_a: Vec<usize>,
    at_b: Vec<usize>,
    /// Distances between rows and between columns.
    strides_a: (usize, usize),
    strides_b: (usize, usize),
    /// Whether B is one matrix and A's matrices follow each other, so that they make one tall matrix.
    folds: bool,
}

impl Plan {
    fn new<T: Copy + Send + Sync>(a: &View<'_, T>, b: &View<'_, T>) -> Result<Self, OpError> {
        let mismatch = || {
            OpError::Input(format!(
                "the inner sizes of {:?} and {:?} differ; the last axis of A must be as long as the last but one of B",
                a.shape(),
                b.shape()
            ))
        };
        if a.shape().is_empty() || b.shape().is_empty() {
            return Err(OpError::Input(
                "a product of matrices needs at least one axis on either side".into(),
            ));
        }
        let (rows, columns) = (a.shape().len() > 1, b.shape().len() > 1);
        let [.., k] = *a.shape() else { return Err(mismatch()) };
        let m = if rows { a.shape()[a.shape().len() - 2] } else { 1 };
        let (kb, n) = match *b.shape() {
            [k] => (k, 1),
            [.., k, n] => (k, n),
            [] => return Err(mismatch()),
        };
        if k != kb {
            return Err(mismatch());
        }
        let lead_a = &a.shape()[..a.shape().len().saturating_sub(2)];
        let lead_b = &b.shape()[..b.shape().len().saturating_sub(2)];
        let lead = broadcast_shapes(lead_a, lead_b)?;
        let mut shape = lead.clone();
        shape.extend(rows.then_some(m));
        shape.extend(columns.then_some(n));
        element_count(&shape)?;
        let starts = |view: &View<'_, T>, own: &[usize]| -> Vec<usize> {
            let mut strides = vec![0; lead.len()];
            let skip = lead.len() - own.len();
            for (i, &d) in own.iter().enumerate() {
                strides[skip + i] = if d == 1 { 0 } else { view.strides()[i] };
            }
            Odometer::new(&lead, &strides).collect()
        };
        let matrix = |view: &View<'_, T>, two: bool, vector_is_row: bool| {
            let s = view.strides();
            match (two, vector_is_row) {
                (true, _) => (s[s.len() - 2], s[s.len() - 1]),
                (false, true) => (0, s[0]),
                (false, false) => (s[0], 0),
            }
        };
        let folds = lead_b.iter().all(|&d| d == 1)
            && rows
            && a.is_contiguous()
            && lead_a.iter().product::<usize>() == lead.iter().product::<usize>();
        Ok(Self {
            at_a: starts(a, lead_a),
            at_b: starts(b, lead_b),
            strides_a: matrix(a, rows, true),
            strides_b: matrix(b, columns, false),
            shape,
            m,
            k,
            n,
            folds,
        })
    }
}

fn matrix<T>(data: &[T], at: usize, (row, column): (usize, usize)) -> Matrix<'_, T> {
    Matrix { data: &data[at..], row, column }
}

/// The product and its shape. A vector counts as a row on the left, as a column on the right.
pub fn matmul<T: Float>(a: &View<'_, T>, b: &View<'_, T>) -> Result<(Vec<usize>, Vec<T>), OpError> {
    let plan = Plan::new(a, b)?;
    let len = element_count(&plan.shape)?;
    if len == 0 || plan.k == 0 {
        let zeros = zeros::<T>(&plan.shape)?;
        return Ok((plan.shape, zeros));
    }
    let Plan { m, k, n, ref at_a, ref at_b, strides_a, strides_b, .. } = plan;
    let batches = at_a.len();
    let (a, b) = (a.data(), b.data());
    let one = |i: usize, rows: usize, c: &mut [MaybeUninit<T>], parallel: bool| {
        let (a, b) = (matrix(a, at_a[i], strides_a), matrix(b, at_b[i], strides_b));
        product_onto(rows, k, n, a, b, c, parallel);
    };
    let all = |out: &mut [MaybeUninit<T>]| {
        // Leading axes of A fold into rows where B is one matrix: one large product is faster than many small ones.
        if batches > 1 && plan.folds {
            one(0, batches * m, out, true);
        // Many batches share the threads; few large ones each use all of them.
        } else if batches >= 4 && m * n * k * batches > 1 << 18 {
            out.par_chunks_mut(m * n).enumerate().for_each(|(i, c)| one(i, m, c, false));
        } else {
            out.chunks_mut(m * n).enumerate().for_each(|(i, c)| one(i, m, c, true));
        }
    };
    #[expect(unsafe_code, reason = "memory that need not be cleared first")]
    // SAFETY: each batch is a matrix of m by n, which its product writes whole; folded they are one of all rows.
    let out = unsafe { filled(len, all)? };
    Ok((plan.shape, out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::loosened;

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
    fn weights_of_a_file_need_not_be_aligned() {
        let filled = |shape: &[usize]| {
            let data = (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.37).sin()).collect();
            Tensor::from_vec::<f32>(shape, data).unwrap()
        };
        let cases: [(&[usize], &[usize]); 8] = [
            (&[5, 40], &[40, 500]),
            (&[2, 3, 40], &[40, 500]),
            (&[0, 3], &[3, 4]),
            (&[2, 0], &[0, 4]),
            (&[40], &[40, 7]),
            (&[3, 40], &[40]),
            (&[2, 3], &[5, 3, 4]),
            (&[2, 3], &[4, 3]),
        ];
        for (a, b) in cases {
            let (a, b) = (filled(a), filled(b));
            let run = |b: &Tensor| MatMul.run(&Call::new(&[Some(&a), Some(b)])).map(|mut y| y.remove(0));
            match (run(&b), run(&loosened(&b))) {
                (Ok(x), Ok(y)) => assert!(x.bit_eq(&y), "{a:?} {b:?}"),
                (Err(x), Err(y)) => assert_eq!(x.to_string(), y.to_string()),
                (x, y) => panic!("{x:?} against {y:?}"),
            }
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
