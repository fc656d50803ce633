//! How far two tensors are apart: every metric in one pass.
//!
//! # What the numbers mean where floats are no numbers
//!
//! - Equal values are no distance apart: equal infinities, and 0 and -0 (the bits still tell them apart).
//! - NaN on both sides is no difference either, and is counted on both sides: it is for the caller to say whether
//!   evidence is left.
//! - NaN against anything else makes every maximum, mean and norm NaN and takes away the ulp distance. It cannot
//!   hide: a maximum that skipped it would call the worst of all differences none.
//! - An infinity against another value is infinitely far away.
//! - Norms and the cosine leave out elements that are equal but not finite; they have no size.
//!
//! # Why blocks
//!
//! Elements are taken in blocks of a fixed size whose sums are combined pairwise in a fixed order, so that the
//! result has the same bits for any number of threads, and rounding grows with the logarithm of the length.
//! A tile without NaN and infinities, nearly every one, goes through loops without branches; see `kernel`.

mod accumulate;
mod blocks;
mod elements;
mod examine;
mod isa;
mod judge;
mod kernel;
mod native;
mod number;
mod scalar;
mod staged;
mod stats;
mod strided;
mod summary;
mod sums;
mod transpose;

use isotrace_tensor::{DType, Tensor, View, bf16, f16, unravel};

use accumulate::Slices;
use elements::Element;
pub use examine::{Along, Examination, Worst, examine};
use isa::Level;
use judge::Judge;
pub use judge::{Judgement, Rule, Tolerance};
pub use scalar::{Scalar, first};
pub use stats::{Stats, describe};
pub use summary::four_letters;
use sums::Sums;

/// How far B is from A. Distances are absolute values; no unit but that of the elements, unless said.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// The number of elements.
    pub len: usize,
    /// Elements whose values differ.
    pub different: u64,
    /// The largest |a - b|.
    pub max_abs: f64,
    /// The mean |a - b|; 0 for no elements.
    pub mean_abs: f64,
    /// The largest |a - b| / |a|, infinite where only a is 0.
    pub max_rel: f64,
    /// ‖a - b‖₂ / ‖a‖₂, infinite where only a is 0.
    pub rel_l2: f64,
    /// a·b / (‖a‖₂ ‖b‖₂), 1 where both are 0, 0 where one is, NaN where an infinity stands against another value.
    pub cosine: f64,
    /// The largest number of steps between neighbouring floats, in the narrower of both types (a wider value is
    /// rounded to it first), counted through zero, infinity one step beyond the largest number. None where a type
    /// is no float, and where a NaN stands against a number.
    pub max_ulp: Option<u64>,
    /// Where the first NaN that stands against a number is, else the first of the largest absolute differences.
    /// None where nothing differs.
    pub argmax: Option<Vec<usize>>,
    /// NaN elements of A and of B.
    pub nan: [u64; 2],
    /// Infinite elements of A and of B.
    pub inf: [u64; 2],
    /// Places where a NaN stands against something else.
    pub nan_against_number: u64,
    /// The largest finite magnitude of A and of B; 0 where there is none.
    pub largest: [f64; 2],
    /// Whether types, shapes and every bit agree.
    pub bits_equal: bool,
    /// How many places are 0 steps apart, 1, 2 to 3, 4 to 7 and so on by powers of two, up to the last that any is;
    /// places where a NaN stands against a number are in none. Empty where a type is no float.
    pub ulps: Vec<u64>,
}

/// Why two tensors cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// Other shapes.
    #[error("shapes {a:?} and {b:?} cannot be compared element by element; they must be equal")]
    Shapes {
        /// A's.
        a: Vec<usize>,
        /// B's.
        b: Vec<usize>,
    },
    /// Text against numbers.
    #[error("{a} and {b} cannot be compared: text only compares with text")]
    Types {
        /// A's.
        a: DType,
        /// B's.
        b: DType,
    },
}

/// Compares `b` with `a` element by element; `a` is the one that relative measures divide by.
///
/// Integers and bool compare by value (bool as 0 and 1); complex numbers as their real and imaginary parts;
/// texts count as 1 apart where they differ, and have no norms (a norm of 0).
pub fn compare(a: &Tensor, b: &Tensor) -> Result<Metrics, CompareError> {
    Ok(pass(a, b, None)?.0)
}

/// Compares, and counts the elements beyond a tolerance in the same pass. `b` is what the tolerance is relative to.
pub fn judge(a: &Tensor, b: &Tensor, tolerance: &Tolerance) -> Result<(Metrics, Judgement), CompareError> {
    let (metrics, beyond) = pass(a, b, Some(*tolerance))?;
    Ok((metrics, Judgement { len: a.len() as u64, beyond }))
}

/// Fails where elements cannot stand against each other.
fn comparable(a: &Tensor, b: &Tensor) -> Result<(), CompareError> {
    if a.shape() != b.shape() {
        return Err(CompareError::Shapes { a: a.shape().to_vec(), b: b.shape().to_vec() });
    }
    let (da, db) = (a.dtype(), b.dtype());
    if (da == DType::String) == (db == DType::String) {
        Ok(())
    } else {
        Err(CompareError::Types { a: da, b: db })
    }
}

fn pass(a: &Tensor, b: &Tensor, tolerance: Option<Tolerance>) -> Result<(Metrics, u64), CompareError> {
    comparable(a, b)?;
    let (da, db) = (a.dtype(), b.dtype());
    let judge = tolerance.map(|t| Judge::new(t, da, db));
    let mut sums = match (da, db) {
        (DType::F64, DType::F64) => floats::<f64>(a, b, judge.as_ref()),
        (DType::F32, DType::F32) => floats::<f32>(a, b, judge.as_ref()),
        (DType::F16, DType::F16) => floats::<f16>(a, b, judge.as_ref()),
        (DType::BF16, DType::BF16) => floats::<bf16>(a, b, judge.as_ref()),
        _ => {
            let mut sums = by_reader(a, b);
            sums.bits_differ = !a.bit_eq(b);
            if let Some(judge) = &judge {
                sums.beyond = judge.counted(&sums, a, b);
            }
            sums
        }
    };
    if !(da.is_float() && db.is_float()) {
        sums.at_least[0] = sums.different;
    }
    Ok((finish(&sums, a.shape(), da.is_float() && db.is_float()), sums.beyond))
}

/// A float type of which views can be compared without a copy: f64, f32, f16, bf16.
pub trait Real: isotrace_tensor::Element + sealed::Sealed {}

mod sealed {
    #[expect(private_bounds, reason = "nobody outside may implement it, nor call what is behind it")]
    pub trait Sealed: crate::accumulate::Slices {}
}

macro_rules! reals {
    ($($t:ty),*) => { $(
        impl sealed::Sealed for $t {}
        impl Real for $t {}
    )* };
}

reals!(f64, f32, f16, bf16);

/// Compares two views, permuted, broadcast or cut out, without copying more than a few KiB at a time.
///
/// The same metrics as for contiguous copies of both; what is a sum differs by rounding, because the order in memory
/// decides the order of summation.
pub fn compare_views<T: Real>(a: &View<'_, T>, b: &View<'_, T>) -> Result<Metrics, CompareError> {
    if a.shape() != b.shape() {
        return Err(CompareError::Shapes { a: a.shape().to_vec(), b: b.shape().to_vec() });
    }
    let sums = if a.is_empty() { Sums::default() } else { accumulate::views(Level::best(), a, b) };
    let sums = elements::rescaled(sums, |scale| {
        let (x, y) = (a.to_contiguous(), b.to_contiguous());
        elements::over(x.len(), scale, |i| Element::reals(x[i].wide(), y[i].wide(), || 0))
    });
    Ok(finish(&sums, a.shape(), true))
}

/// Two tensors of one float type with loops of its own.
fn floats<T: Slices + isotrace_tensor::Element>(a: &Tensor, b: &Tensor, judge: Option<&Judge>) -> Sums {
    let (x, y): (&[T], &[T]) = (slice(a), slice(b));
    let sums = accumulate::slices(Level::best(), x, y, judge.map(|j| &j.look));
    elements::rescaled(sums, |scale| {
        elements::over(x.len(), scale, |i| Element::reals(x[i].wide(), y[i].wide(), || 0))
    })
}

fn slice<T: isotrace_tensor::Element>(tensor: &Tensor) -> &[T] {
    tensor.as_slice().expect("the type was looked at")
}

/// Pairs of types without loops of their own.
fn by_reader(a: &Tensor, b: &Tensor) -> Sums {
    if let (Ok(a), Ok(b)) = (a.as_strings(), b.as_strings()) {
        return elements::sums(a.len(), |i| Element::counted(a[i] != b[i]));
    }
    if blocks::fits_i64(a.dtype()) && blocks::fits_i64(b.dtype()) {
        return blocks::of_integers(Level::best(), a, b);
    }
    if let (Some(x), Some(y)) = (number::integers(a), number::integers(b)) {
        return elements::sums(a.len(), |i| Element::integers(x(i), y(i)));
    }
    let narrower = number::narrower(a.dtype(), b.dtype());
    let ulp = move |x: f64, y: f64| narrower.map_or(0, |dtype| number::ulps(dtype, x, y));
    if !number::is_complex(a.dtype()) && !number::is_complex(b.dtype()) {
        let sums = blocks::of_reals(a, b, 1.0, ulp);
        return elements::rescaled(sums, |scale| blocks::of_reals(a, b, scale, ulp));
    }
    let (x, y) = (number::reals(a), number::reals(b));
    elements::sums(a.len() * 2, |i| {
        let (x, y) = (x(i / 2)[i % 2], y(i / 2)[i % 2]);
        Element::reals(x, y, || ulp(x, y))
    })
    .in_groups_of(2)
}

fn finish(sums: &Sums, shape: &[usize], ulps: bool) -> Metrics {
    let len: usize = if shape.contains(&0) { 0 } else { shape.iter().product() };
    let count = len.max(1) as f64;
    let lost = sums.nan_against_number > 0;
    let or_nan = |x: f64| if lost { f64::NAN } else { x };
    let ratio = |over: f64, under: f64| match (over, under) {
        (0.0, _) => 0.0,
        // An infinite difference is infinitely large against anything, and so is any against nothing.
        (f64::INFINITY, _) | (_, 0.0) => f64::INFINITY,
        _ => over / under,
    };
    let [norm_a, norm_b] = sums.squares.map(f64::sqrt);
    let cosine = match (norm_a, norm_b) {
        _ if sums.inf_against_other > 0 => f64::NAN,
        (0.0, 0.0) => 1.0,
        (0.0, _) | (_, 0.0) => 0.0,
        _ => (sums.product / norm_a / norm_b).clamp(-1.0, 1.0),
    };
    Metrics {
        len,
        different: sums.different,
        max_abs: or_nan(sums.max_abs),
        mean_abs: or_nan(sums.sum_abs / count),
        max_rel: or_nan(sums.max_rel),
        rel_l2: or_nan(ratio(sums.sum_squares.sqrt(), norm_a)),
        cosine: or_nan(cosine),
        max_ulp: (ulps && !lost).then_some(sums.max_ulp),
        argmax: sums.first_nan.or(sums.worst).map(|i| unravel(i, shape)),
        nan: sums.nan,
        inf: sums.inf,
        nan_against_number: sums.nan_against_number,
        largest: sums.largest,
        bits_equal: !sums.bits_differ,
        ulps: if ulps { histogram(sums, len as u64) } else { Vec::new() },
    }
}

/// Places 0 apart, 1, 2 to 3, 4 to 7, ..., from those at least that far apart.
fn histogram(sums: &Sums, len: u64) -> Vec<u64> {
    let known = len - sums.nan_against_number;
    let reached = |k: usize| match k {
        0 => known,
        k => sums.at_least.get(k - 1).copied().unwrap_or(0),
    };
    let filled = sums.at_least.iter().take_while(|&&n| n > 0).count();
    (0..=filled).map(|k| reached(k) - reached(k + 1)).collect()
}
