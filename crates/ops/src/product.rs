//! Matrix products through the `gemm` crate, behind a safe function.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::OnceLock;

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
/// The order of every sum depends on sizes alone, never on the number of threads.
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
    let threads = if parallel && m * n * k >= PARALLEL_FROM { current_num_threads() } else { 1 };
    #[expect(unsafe_code, reason = "gemm takes raw pointers")]
    // SAFETY: `c` is borrowed mutably, so it overlaps neither `a` nor `b`; the assertions above keep what is written inside
    // of it, and its rows do not overlap.
    unsafe {
        at(m, k, n, a, b, c.as_mut_ptr().cast::<T>(), c_row, threads);
    }
}

/// How many elements a matrix reaches over.
fn reach(rows: usize, row: usize, columns: usize, column: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row + (columns - 1) * column + 1 }
}

/// Writes `m` rows of `n` elements, `c_row` elements apart, from `c` on, without reading any. No size is 0.
///
/// # Safety
/// Those elements, and no others, may be written as long as this lasts: nobody else may read or write them.
#[expect(clippy::too_many_arguments, reason = "the sizes and strides of three matrices")]
#[expect(unsafe_code, reason = "gemm takes raw pointers")]
unsafe fn at<T: Float>(
    m: usize,
    k: usize,
    n: usize,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    c: *mut T,
    c_row: usize,
    threads: usize,
) {
    assert!(a.data.len() >= reach(m, a.row, k, a.column), "a is too short");
    assert!(b.data.len() >= reach(k, b.row, n, b.column), "b is too short");
    let threads = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    // SAFETY: the assertions keep every element that gemm reads inside its slice, the caller answers for those that it
    // writes; [`Float`] is implemented for f32 and f64 alone.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
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

impl Loose<'_> {
    /// Brings `columns` of this matrix, `k` by `n`, into place.
    fn place<T: Float>(
        self,
        (k, n): (usize, usize),
        columns: Range<usize>,
        room: &mut [T],
        parallel: bool,
    ) -> Matrix<'_, T> {
        let (size, width) = (size_of::<T>(), columns.len());
        let copy = |part: &mut [T], bytes: &[u8]| bytemuck::cast_slice_mut(part).copy_from_slice(bytes);
        let all = room.len();
        let grain = |grain: usize| if parallel { grain } else { all };
        if self.transposed {
            let bytes = &self.bytes[columns.start * k * size..][..all * size];
            let grain = grain(GRAIN);
            parallel::chunks(room, grain, &|i, part| {
                copy(part, &bytes[i * grain * size..][..size_of_val(part)]);
            });
            return Matrix { data: room, row: 1, column: k };
        }
        let grain = grain(GRAIN.div_ceil(width) * width);
        parallel::chunks(room, grain, &|i, part| {
            for (r, part) in part.chunks_mut(width).enumerate() {
                let row = i * grain / width + r;
                copy(part, &self.bytes[(row * n + columns.start) * size..][..width * size]);
            }
        });
        Matrix { data: room, row: width, column: 1 }
    }
}

/// Bytes of `b` that are brought into place at a time: they stay in a core's own cache until they are used.
const ROOM: usize = 2 << 20;

/// Bytes of `b` that a thread may bring into place for itself; where columns are longer, all threads share one room.
const ALONE: usize = 32 << 20;

/// Columns that the kernels take together, of f32 and f64 and with either operand in front: of so many, with `m` rows, the
/// `gemm` crate adds as it does of more. Results of up to 256 elements may be made by other kernels.
const fn columns_of(m: usize) -> usize {
    if m > 1 { 192 } else { 384 }
}

/// As [`product`], with the same bits, a few columns of `b` at a time: of many columns each thread takes some for itself,
/// of few all threads work on the same.
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
    let threads = current_num_threads();
    let few = columns_of(m);
    let small = k.saturating_mul(few * size_of::<T>()) <= ALONE;
    if parallel && small && threads > 1 && m * n * k >= PARALLEL_FROM && n / few >= threads {
        return by_threads((m, k, n), a, b, c);
    }
    let columns = ROOM / size_of::<T>() / k.max(1) / few * few;
    by_columns(columns.max(few), (m, k, n), a, b, c, parallel)
}

/// Runs of `columns` of the `n` there are. What is left over goes with the last: a product with a vector takes another way
/// through the kernels.
fn runs(n: usize, columns: usize) -> impl Iterator<Item = Range<usize>> {
    let count = (n / columns).max(usize::from(n > 0));
    (0..count).map(move |i| i * columns..if i + 1 == count { n } else { (i + 1) * columns })
}

fn by_columns<T: Float>(
    columns: usize,
    (m, k, n): (usize, usize, usize),
    a: Matrix<'_, T>,
    b: Loose<'_>,
    c: &mut [T],
    parallel: bool,
) -> Result<(), TensorError> {
    runs(n, columns).try_for_each(|run| {
        scratch(k * run.len(), |room| {
            let part = b.place((k, n), run.clone(), room, parallel);
            product_into(m, k, run.len(), a, part, &mut c[run.start..], n, parallel);
        })
    })
}

/// Where every task writes columns of its own.
#[derive(Clone, Copy)]
struct Output<T>(*mut T);

#[expect(unsafe_code, reason = "columns of one matrix lie between each other, which no slice can say")]
// SAFETY: whoever takes it to another thread writes no column there that anybody else writes or reads.
unsafe impl<T: Send> Sync for Output<T> {}

fn by_threads<T: Float>(
    (m, k, n): (usize, usize, usize),
    a: Matrix<'_, T>,
    b: Loose<'_>,
    c: &mut [T],
) -> Result<(), TensorError> {
    assert!(c.len() >= m * n, "c is too short");
    let (out, failed) = (&Output(c.as_mut_ptr()), &OnceLock::new());
    let task = |run: Range<usize>| {
        let width = run.len();
        let work = move |room: &mut [T]| {
            let part = b.place((k, n), run.clone(), room, false);
            #[expect(
                unsafe_code,
                reason = "columns of one matrix lie between each other, which no slice can say"
            )]
            // SAFETY: of `c`, which is borrowed mutably and holds m by n elements, these columns are this task's alone.
            unsafe {
                at(m, k, width, a, part, out.0.add(run.start), n, 1);
            }
        };
        Box::new(move || {
            if let Err(e) = scratch(k * width, work) {
                let _ = failed.set(e);
            }
        }) as parallel::Task<'_>
    };
    parallel::run(runs(n, columns_of(m)).map(task).collect());
    failed.get().map_or(Ok(()), |e| Err(e.clone()))
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
        for (m, k, n) in [
            (1, 7, 5),
            (3, 1, 400),
            (5, 300, 577),
            (1, 700, 500),
            (1, 1100, 800),
            (2, 600, 400),
            (64, 33, 1),
            (128, 96, 1000),
            (2, 0, 9),
        ] {
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
                for columns in [1, 2, 10].map(|few| few * columns_of(m)) {
                    let mut parts = vec![1f32; m * n];
                    by_columns(columns, (m, k, n), a, loose, &mut parts, true).unwrap();
                    assert_eq!(parts, whole, "{m} {k} {n} {transposed} {columns}");
                }
                if k > 0 {
                    let mut parts = vec![1f32; m * n];
                    by_threads((m, k, n), a, loose, &mut parts).unwrap();
                    assert_eq!(parts, whole, "{m} {k} {n} {transposed}");
                }
            }
        }
    }
}
