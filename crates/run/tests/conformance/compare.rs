//! Whether an output is what the case expects.

use isotrace_ops::Precision;
use isotrace_tensor::{C64, C128, DType, Tensor};

/// Found and expected agree where |found - expected| <= absolute + relative * |expected|.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    pub relative: f64,
    pub absolute: f64,
}

/// Compares as ONNX's own runner does, NaN equal to NaN. What a float64 run computed is rounded to the expected
/// type first: the case says nothing about digits that its type does not have.
pub fn compare(found: &Tensor, expected: &Tensor, by: Tolerance, precision: Precision) -> Result<(), String> {
    let narrowed;
    let mut found = found;
    if precision == Precision::Float64 && found.dtype() == DType::F64 && expected.dtype().is_float() {
        narrowed = found.cast(expected.dtype()).map_err(|e| e.to_string())?;
        found = &narrowed;
    }
    if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
        return Err(format!(
            "{}{:?} where {}{:?} is expected",
            found.dtype(),
            found.shape(),
            expected.dtype(),
            expected.shape()
        ));
    }
    if found.bit_eq(expected) {
        return Ok(());
    }
    if expected.dtype() == DType::String {
        return Err(format!("{found:?} where {expected:?} is expected"));
    }
    let (a, b) = (numbers(found)?, numbers(expected)?);
    let wrong: Vec<usize> = (0..b.len()).filter(|&i| !agree(a[i], b[i], by)).collect();
    let Some(&worst) = wrong.iter().max_by(|&&i, &&j| (a[i] - b[i]).abs().total_cmp(&(a[j] - b[j]).abs()))
    else {
        return Ok(());
    };
    Err(format!("{} of {} differ, worst {} for {}", wrong.len(), b.len(), a[worst], b[worst]))
}

fn agree(found: f64, expected: f64, by: Tolerance) -> bool {
    found == expected
        || (found.is_nan() && expected.is_nan())
        || (expected.is_finite() && (found - expected).abs() <= by.absolute + by.relative * expected.abs())
}

/// The elements as f64; complex ones as their parts.
fn numbers(tensor: &Tensor) -> Result<Vec<f64>, String> {
    let wrong = |e: isotrace_tensor::TensorError| e.to_string();
    Ok(match tensor.dtype() {
        DType::C64 => {
            tensor.as_slice::<C64>().map_err(wrong)?.iter().flat_map(|c| c.0).map(f64::from).collect()
        }
        DType::C128 => tensor.as_slice::<C128>().map_err(wrong)?.iter().flat_map(|c| c.0).collect(),
        _ => tensor.to_f64().map_err(wrong)?.into_owned(),
    })
}
