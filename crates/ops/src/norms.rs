//! Upper bounds on sums of absolute products that cost no product.
//!
//! By Cauchy and Schwarz, sum |x w| is at most sqrt(sum x²) sqrt(sum w²): a number for each row of one operand and one
//! for each column of the other. On numbers without order the bound lies a factor of pi/2 above the sum itself, and
//! further where one operand is mostly zeros.

use isotrace_tensor::{DType, Tensor};

use crate::OpError;
use crate::activation::Activation;
use crate::convolve::{Finish, Sizes, convolve};
use crate::math::vectorise;
use crate::parallel::{self, GRAIN};

/// Bounds on the elements of an output, cut into runs of equal length in C order.
#[derive(Debug, Clone, PartialEq)]
pub struct Norms {
    /// Elements a run.
    len: usize,
    /// For each run, the norm that its elements have in common and what is added to all of them.
    runs: Vec<(f64, f64)>,
    /// The other norms, `len` after `len`.
    others: Vec<f64>,
    /// As many runs after one another share the same others.
    sharing: usize,
}

impl Norms {
    /// Bounds that are known element by element, in runs of `len`.
    pub fn known(sizes: &Tensor, len: usize) -> Result<Self, OpError> {
        let others = sizes.to_f64()?.into_owned();
        let len = len.max(1);
        Ok(Self { len, runs: vec![(1.0, 0.0); others.len().div_ceil(len)], others, sharing: 1 })
    }

    /// Elements a run.
    pub fn run_len(&self) -> usize {
        self.len
    }

    /// Number of runs.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// What bounds run `i`: element `k` is at most `.0 * .2[k] + .1`.
    pub fn run(&self, i: usize) -> (f64, f64, &[f64]) {
        let (norm, added) = self.runs[i];
        let from = i / self.sharing * self.len;
        (norm, added, &self.others[from..self.others.len().min(from + self.len)])
    }

    /// Of a convolution: a run is one filter's plane.
    pub(crate) fn of_convolution(
        x: &Tensor,
        w: &Tensor,
        bias: Option<&Tensor>,
        sizes: &Sizes,
    ) -> Result<Option<Self>, OpError> {
        if x.dtype() != DType::F32 || w.dtype() != DType::F32 || x.is_empty() || sizes.terms() == 0 {
            return Ok(None);
        }
        let plane: usize = sizes.window.input.iter().product();
        let squares = squares_over_channels(x.as_slice()?, sizes.channels / sizes.groups, plane);
        let under = if sizes.window.is_pointwise() {
            squares
        } else {
            let planes = Sizes { channels: sizes.groups, filters: sizes.groups, ..sizes.clone() };
            let ones = vec![1.0; sizes.groups * sizes.window.taps()];
            let plain = Finish { bias: None, residual: None, activation: Activation::Identity };
            convolve(&squares, &ones, &planes, &plain)?
        };
        let bias = bias.map(Tensor::to_f64).transpose()?;
        let filters = squares_of_rows(w, sizes.terms());
        let runs = (0..sizes.batch * sizes.filters).map(|i| {
            let filter = i % sizes.filters;
            (filters[filter].sqrt(), bias.as_ref().map_or(0.0, |b| b[filter].abs()))
        });
        Ok(Some(Self {
            len: sizes.window.pixels(),
            runs: runs.collect(),
            others: roots(under),
            sharing: sizes.filters / sizes.groups,
        }))
    }

    /// Of the product of rows with one matrix of shape (k, n): a run is what becomes of one row.
    pub(crate) fn of_product(a: &Tensor, b: &Tensor) -> Option<Self> {
        let &[k, n] = b.shape() else { return None };
        let fits = a.rank() > 1 && a.shape().last() == Some(&k) && k * n > 0;
        if !fits || a.dtype() != DType::F32 || b.dtype() != DType::F32 {
            return None;
        }
        let rows = squares_of_rows(a, k);
        let columns = squares_of_columns(b, n);
        let (runs, sharing) = (rows.iter().map(|s| (s.sqrt(), 0.0)).collect(), rows.len().max(1));
        Some(Self { len: n, runs, others: roots(columns), sharing })
    }
}

fn roots(mut squares: Vec<f64>) -> Vec<f64> {
    parallel::chunks(&mut squares, GRAIN, &|_, part| part.iter_mut().for_each(|x| *x = x.sqrt()));
    squares
}

/// The sum of squares over each `channels` planes after one another, element by element.
fn squares_over_channels(x: &[f32], channels: usize, plane: usize) -> Vec<f64> {
    /// Elements of a plane that are summed together: few enough to stay in the first-level cache.
    const PART: usize = 1 << 11;
    let mut out = vec![0.0; x.len().checked_div(channels).unwrap_or(0)];
    if plane == 0 || out.is_empty() {
        return out;
    }
    let parts = out.chunks_mut(plane).enumerate().flat_map(|(i, group)| {
        group.chunks_mut(PART).enumerate().map(move |(k, part)| (i * channels * plane + k * PART, part))
    });
    let task = |(from, part): (usize, &mut [f64])| {
        for channel in 0..channels {
            let x = &x[from + channel * plane..][..part.len()];
            part.iter_mut().zip(x).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
        }
    };
    let tasks = parts.map(|part| Box::new(move || task(part)) as parallel::Task<'_>);
    parallel::run(tasks.collect());
    out
}

/// The elements of an f32 tensor, read where they lie.
fn numbers(t: &Tensor) -> &[[u8; 4]] {
    t.raw_bytes().as_chunks::<4>().0
}

#[inline(always)]
fn square(x: [u8; 4]) -> f64 {
    let x = f64::from(f32::from_le_bytes(x));
    x * x
}

/// The sum of squares of each row of `k` elements.
fn squares_of_rows(t: &Tensor, k: usize) -> Vec<f64> {
    let numbers = numbers(t);
    let mut out = vec![0.0; numbers.len().checked_div(k).unwrap_or(0)];
    let together = GRAIN.div_ceil(k.max(1));
    parallel::chunks(&mut out, together, &|i, sums| {
        vectorise(
            #[inline(always)]
            || {
                for (row, sum) in sums.iter_mut().enumerate() {
                    let row = &numbers[(i * together + row) * k..][..k];
                    // Lanes of their own: a single sum waits for each addition.
                    let (blocks, rest) = row.as_chunks::<8>();
                    let mut lanes = [0.0; 8];
                    for block in blocks {
                        for (lane, x) in lanes.iter_mut().zip(block) {
                            *lane += square(*x);
                        }
                    }
                    *sum = lanes.iter().sum::<f64>();
                    for x in rest {
                        *sum += square(*x);
                    }
                }
            },
        );
    });
    out
}

/// Pieces into which rows are cut at most: each takes room for a row of sums.
const MOST_PIECES: usize = 16;

/// The sum of squares of each of `n` columns.
fn squares_of_columns(t: &Tensor, n: usize) -> Vec<f64> {
    let numbers = numbers(t);
    let rows = numbers.len() / n;
    // Pieces of rows, then their sums: as many threads as there are pieces, in an order of their own.
    let high = GRAIN.div_ceil(n).max(rows.div_ceil(MOST_PIECES));
    let mut parts = vec![0.0; rows.div_ceil(high) * n];
    parallel::chunks(&mut parts, n, &|piece, sums| {
        for row in numbers[piece * high * n..].chunks(n).take(high) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += square(*x));
        }
    });
    let mut out = vec![0.0; n];
    for part in parts.chunks(n) {
        out.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Call, Operator, ops};

    /// Every bound of an operator lies above the sum that it bounds, all together at most `factor` times above.
    pub fn hold(operator: &dyn Operator, inputs: &[Option<&Tensor>], factor: f64) {
        let call = Call::new(inputs);
        let sizes = operator.magnitude(&call).unwrap().expect("a sum of products");
        let Some(norms) = operator.norms(&call).unwrap() else {
            return assert!(sizes.is_empty() || inputs[0].is_some_and(Tensor::is_empty), "no bounds");
        };
        let sizes = sizes.to_f64().unwrap();
        assert_eq!(sizes.len(), norms.runs() * norms.run_len());
        let bounds = (0..norms.runs()).flat_map(|r| {
            let (norm, added, others) = norms.run(r);
            others.iter().map(move |o| norm * o + added).collect::<Vec<_>>()
        });
        let (mut above, mut below) = (0.0, 0.0);
        for (bound, &size) in bounds.zip(sizes.iter()) {
            assert!(size <= bound * (1.0 + 1e-6) + 1e-12, "{size} above {bound}");
            (above, below) = (above + bound, below + size);
        }
        assert!(above <= factor * below + 1e-12, "{above} for {below}");
    }

    #[test]
    fn of_products() {
        let filled = |shape: &[usize], seed: usize| {
            let n = shape.iter().product::<usize>();
            let number = |i: usize| ((i * 2_654_435_761 + seed * 977) % 1000) as f32 / 99.0 - 5.0;
            Tensor::from_vec(shape, (0..n).map(number).collect()).unwrap()
        };
        for (rows, k, n) in
            [(&[7][..], 5, 3), (&[2, 3], 64, 1), (&[1], 1, 9), (&[300], 400, 130), (&[0], 3, 3)]
        {
            let a = filled(&[rows, &[k]].concat(), 1);
            let b = crate::product::loosened(&filled(&[k, n], 2));
            let matmul = ops::matmul::build(&crate::testing::node("MatMul", 13, &[])).unwrap();
            hold(&*matmul, &[Some(&a), Some(&b)], 2.0);
        }
    }
}
