//! Matrix products through the `gemm` crate, behind a safe function.

use std::mem::MaybeUninit;

use isotrace_tensor::TensorError;
use rayon::current_num_threads;

use crate::Float;
use crate::parallel::{self, GRAIN};
use crate::room::scratch;

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
    #[expect(unsafe_code, reason = "the standard library lends no written memory to be overwritten")]
    // SAFETY: elements of one layout, of which none is read and only written ones are left behind.
    let c = unsafe { std::slice::from_raw_parts_mut(c.as_mut_ptr().cast::<MaybeUninit<T>>(), c.len()) };
    written(m, k, n, a, b, c, c_row, parallel);
}

/// As [`product`], in memory where nothing was written before.
pub fn product_onto<'c, T: Float>(
    m: usize,
    k: usize,
    n: usize,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    c: &'c mut [MaybeUninit<T>],
    parallel: bool,
) -> &'c mut [T] {
    let c = &mut c[..m * n];
    written(m, k, n, a, b, c, n, parallel);
    #[expect(unsafe_code, reason = "what gemm has written")]
    // SAFETY: all m by n elements have just been written, row after row.
    unsafe {
        c.assume_init_mut()
    }
}

/// Writes every element of `c`, whose rows are `c_row` elements apart, without reading any.
#[expect(clippy::too_many_arguments, reason = "the sizes and strides of three matrices")]
fn written<T: Float>(
    m: usize,
    k: usize,
    n: usize,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    c: &mut [MaybeUninit<T>],
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
            row[..n].fill(MaybeUninit::new(bytemuck::Zeroable::zeroed()));
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
            c.as_mut_ptr().cast::<T>(),
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

/// A dense matrix of a file, whose elements cannot be read in place.
#[derive(Debug, Clone, Copy)]
pub struct Loose<'a> {
    /// The elements in C order, little-endian.
    pub bytes: &'a [u8],
    /// Whether the file holds the transpose.
    pub transposed: bool,
}

/// Bytes of `b` that are brought into place at a time: they stay in a core's own cache until they are used.
const ROOM: usize = 2 << 20;

/// Columns that the kernels take together, of f32 and f64 and with either operand in front.
const COLUMNS: usize = 192;

/// As [`product`], with the same bits, a few columns of `b` at a time.
///
/// # Panics
/// If a slice is too short for its matrix.
pub fn product_of_loose<T: Float>(
    m: usize,
    k: usize,
    n: usize,
    a: Matrix<'_, T>,
    b: Loose<'_>,
    c: &mut [T],
    parallel: bool,
) -> Result<(), TensorError> {
    let columns = ROOM / size_of::<T>() / k.max(1) / COLUMNS * COLUMNS;
    by_columns(columns.max(COLUMNS), (m, k, n), a, b, c, parallel)
}

fn by_columns<T: Float>(
    columns: usize,
    (m, k, n): (usize, usize, usize),
    a: Matrix<'_, T>,
    b: Loose<'_>,
    c: &mut [T],
    parallel: bool,
) -> Result<(), TensorError> {
    let size = size_of::<T>();
    // What is left over goes with the last: a product with a vector takes another way through the kernels.
    let widest = if n < 2 * columns { n } else { 2 * columns - 1 };
    scratch(k * widest, |room| {
        let mut from = 0;
        while from < n {
            let width = if n - from < 2 * columns { n - from } else { columns };
            let room = &mut room[..k * width];
            let (row, column) = if b.transposed {
                let bytes = &b.bytes[from * k * size..];
                parallel::chunks(room, GRAIN, &|i, part| {
                    let bytes = &bytes[i * GRAIN * size..][..size_of_val(part)];
                    bytemuck::cast_slice_mut(part).copy_from_slice(bytes);
                });
                (1, k)
            } else {
                let rows = GRAIN.div_ceil(width);
                parallel::chunks(room, rows * width, &|i, part| {
                    for (r, part) in part.chunks_mut(width).enumerate() {
                        let bytes = &b.bytes[((i * rows + r) * n + from) * size..][..width * size];
                        bytemuck::cast_slice_mut(part).copy_from_slice(bytes);
                    }
                });
                (width, 1)
            };
            let part = Matrix { data: &*room, row, column };
            product_into(m, k, width, a, part, &mut c[from..], n, parallel);
            from += width;
        }
    })
}

/// The tensor as a file may hold it: no element lies where it could be read in place.
#[cfg(test)]
pub(crate) fn loosened(tensor: &isotrace_tensor::Tensor) -> isotrace_tensor::Tensor {
    let bytes: Vec<u8> = std::iter::once(0).chain(tensor.bytes().iter().copied()).collect();
    let bytes = bytes::Bytes::from(bytes).slice(1..);
    isotrace_tensor::Tensor::from_bytes(tensor.dtype(), tensor.shape(), bytes).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_file_make_the_bits_of_a_whole_product() {
        let number = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 99.0 - 5.0;
        for (m, k, n) in [(1, 7, 5), (3, 1, 400), (5, 300, 577), (64, 33, 1), (128, 96, 1000), (2, 0, 9)] {
            let a: Vec<f32> = (0..m * k).map(number).collect();
            let b: Vec<f32> = (0..k * n).map(|i| number(i + 17)).collect();
            let a = Matrix { data: &a[..], row: k, column: 1 };
            for transposed in [false, true] {
                let (row, column) = if transposed { (1, k) } else { (n, 1) };
                let mut whole = vec![0f32; m * n];
                product(m, k, n, a, Matrix { data: &b[..], row, column }, &mut whole, true);
                let bytes: Vec<u8> =
                    std::iter::once(0).chain(bytemuck::cast_slice(&b).iter().copied()).collect();
                let loose = Loose { bytes: &bytes[1..], transposed };
                for columns in [COLUMNS, 2 * COLUMNS, 10 * COLUMNS] {
                    let mut parts = vec![1f32; m * n];
                    by_columns(columns, (m, k, n), a, loose, &mut parts, true).unwrap();
                    assert_eq!(parts, whole, "{m} {k} {n} {transposed} {columns}");
                }
            }
        }
    }
}
