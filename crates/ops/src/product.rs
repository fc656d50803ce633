//! Matrix products through the `gemm` crate, behind a safe function.

use crate::Float;
use rayon::current_num_threads;

/// A matrix inside a slice: where it starts and how far its rows and columns are apart, in elements.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T> {
    /// The elements, from the matrix's first one on.
    pub data: &'a [T],
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub column: usize,
}

/// Below this many multiplications one thread is faster than waking others.
const PARALLEL_FROM: usize = 1 << 18;

/// `c = a b`, with `a` m by k, `b` k by n and `c` m by n, dense in C order, overwritten.
///
/// The order of every sum depends on k alone, never on the number of threads.
///
/// # Panics
/// If a slice is too short for its matrix.
pub fn product<T: Float>(
    m: usize,
    k: usize,
    n: usize,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    c: &mut [T],
    parallel: bool,
) {
    product_into(m, k, n, a, b, c, n, parallel);
}

/// As [`product`], with rows of `c` `c_row` elements apart.
#[expect(clippy::too_many_arguments, reason = "the sizes and strides of three matrices")]
pub fn product_into<T: Float>(
    m: usize,
    k: usize,
    n: usize,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    c: &mut [T],
    c_row: usize,
    parallel: bool,
) {
    let reach = |rows: usize, row: usize, columns: usize, column: usize| {
        if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row + (columns - 1) * column + 1 }
    };
    assert!(a.data.len() >= reach(m, a.row, k, a.column), "a is too short");
    assert!(b.data.len() >= reach(k, b.row, n, b.column), "b is too short");
    assert!(c.len() >= reach(m, c_row, n, 1), "c is too short");
    assert!(n <= c_row || m <= 1, "rows of c overlap");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        for row in c.chunks_mut(c_row.max(1)).take(m) {
            row[..n].fill(bytemuck::Zeroable::zeroed());
        }
        return;
    }
    let threads = if parallel && m * n * k >= PARALLEL_FROM {
        gemm::Parallelism::Rayon(current_num_threads())
    } else {
        gemm::Parallelism::None
    };
    #[expect(unsafe_code, reason = "gemm takes raw pointers")]
    // SAFETY: the assertions above keep every element that gemm reads or writes inside its slice; `c` is borrowed
    // mutably, so it overlaps neither `a` nor `b`, and its rows do not overlap; [`Float`] is implemented for f32 and f64 alone.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_row as isize,
            false,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            bytemuck::Zeroable::zeroed(),
            T::ONE,
            false,
            false,
            false,
            threads,
        );
    }
}
