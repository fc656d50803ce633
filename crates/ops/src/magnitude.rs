//! Sums of absolute products, the size against which the rounding of products and convolutions is measured.

use isotrace_tensor::{DType, Tensor};

use crate::broadcast::GRAIN;
use crate::{Call, OpError, parallel};

/// Below this f32 may lose terms that f64 keeps.
const SMALLEST: f64 = 1e-20;

/// What `run` makes of the absolute values of the call's inputs; kept in the call's place for it.
///
/// A bound needs few digits, so f32 does, at half the cost, wherever its range does.
pub(crate) fn magnitude(
    call: &Call<'_>,
    run: impl Fn(&Call<'_>) -> Result<Tensor, OpError>,
) -> Result<Tensor, OpError> {
    if let Some(known) = call.magnitude.and_then(std::cell::OnceCell::get) {
        return Ok(known.clone());
    }
    let at = |dtype: DType| {
        let inputs: Vec<Option<Tensor>> = call
            .inputs
            .iter()
            .map(|t| t.map(|t| absolute(t, dtype)).transpose())
            .collect::<Result<_, _>>()?;
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
        run(&call.with_inputs(&inputs))
    };
    let narrow = at(DType::F32)?;
    let sizes = narrow.as_slice::<f32>()?;
    let at_most =
        |run: std::ops::Range<usize>| sizes[run].iter().fold(0f32, |m, &x| if x <= m { m } else { x });
    let largest =
        parallel::pieces(sizes.len(), &at_most).into_iter().fold(0f32, |m, x| if x <= m { m } else { x });
    let value = if largest.is_finite() && f64::from(largest) > SMALLEST { narrow } else { at(DType::F64)? };
    if let Some(place) = call.magnitude {
        let _ = place.set(value.clone());
    }
    Ok(value)
}

/// The absolute values of a float tensor as `dtype` (f32 or f64); others as they are.
fn absolute(tensor: &Tensor, dtype: DType) -> Result<Tensor, OpError> {
    let shape = tensor.shape();
    Ok(match (tensor.dtype(), dtype) {
        (DType::F32, DType::F32) => Tensor::from_vec(shape, narrowed(tensor.as_slice::<f32>()?, f32::abs))?,
        (DType::F64, DType::F32) => {
            Tensor::from_vec(shape, narrowed(tensor.as_slice::<f64>()?, |x| x.abs() as f32))?
        }
        (from, _) if from.is_float() => {
            let wide = tensor.to_f64()?.iter().map(|x| x.abs()).collect::<Vec<f64>>();
            Tensor::from_vec(shape, wide)?.cast(dtype)?
        }
        _ => tensor.clone(),
    })
}

fn narrowed<T: Copy + Sync>(values: &[T], f: impl Fn(T) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![0f32; values.len()];
    parallel::chunks(&mut out, GRAIN, &|i, out| {
        for (out, &x) in out.iter_mut().zip(&values[i * GRAIN..]) {
            *out = f(x);
        }
    });
    out
}
