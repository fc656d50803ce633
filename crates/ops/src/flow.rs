//! How a change of an operator's inputs reaches its outputs, without a derivative written for each operator.
//!
//! First-order bounds are got by running the operator itself in f64 on changed inputs. Changes are scaled up to a
//! relative size of about 1e-6 first (they are linear at that size), so that f64 rounding does not drown them.

use isotrace_tensor::Tensor;

use crate::{Call, OpError, parallel};

/// The way an operator passes a change of its float inputs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Elements are moved or repeated, never computed: an output's change is the change of the element it came from.
    Moves,
    /// Each output element depends on the (broadcast) elements at its place alone.
    Elementwise,
    /// A sum of products with coefficients of one sign, linear in each input: the change is at most
    /// f(|x| + e) - f(|x|).
    Linear,
    /// No small change of an input reaches an output: decisions, and what was drawn or recorded.
    Decided,
    /// Anything else: seeded random changes, the largest of a few.
    General,
}

/// Trials for [`Flow::General`].
const TRIALS: u64 = 4;

/// The largest first-order change of each output when input i changes by up to `errors[i]`, element by element.
///
/// `run` evaluates the operator; `outputs` are its results on `call.inputs`, all f64.
pub fn propagate(
    flow: Flow,
    run: &dyn Fn(&Call<'_>) -> Result<Vec<Tensor>, OpError>,
    call: &Call<'_>,
    outputs: &[Tensor],
    errors: &[Option<Tensor>],
) -> Result<Vec<Tensor>, OpError> {
    if errors.iter().all(Option::is_none) {
        return outputs.iter().map(zeros).collect();
    }
    match flow {
        Flow::Decided => none(outputs),
        Flow::Moves => {
            let moved = replace(call, |i, x| match errors.get(i).and_then(Option::as_ref) {
                Some(e) => Ok(e.clone()),
                None => zeros(x),
            })?;
            let moved = run_on(run, call, &moved)?;
            // Integers that an operator reads off its input (shapes, places) are not errors of it.
            moved
                .into_iter()
                .zip(outputs)
                .map(|(m, y)| if m.dtype().is_float() { Ok(m) } else { zeros(y) })
                .collect()
        }
        Flow::Linear => {
            let scale = upscale(call, errors)?;
            let at = |weight: f64| {
                let inputs = replace(call, |i, x| {
                    let Some(e) = errors.get(i).and_then(Option::as_ref) else { return map(x, f64::abs) };
                    let (x, e) = (x.to_f64()?, e.to_f64()?);
                    let further = |k: usize| x[k].abs() + weight * e.get(k).copied().unwrap_or(0.0);
                    let shape = call.inputs[i].expect("present").shape();
                    Ok(Tensor::from_vec(shape, parallel::map(x.len(), further))?)
                })?;
                run_on(run, call, &inputs)
            };
            let (with, without) = (at(scale)?, at(0.0)?);
            with.iter().zip(&without).map(|(a, b)| difference(a, b, scale)).collect()
        }
        Flow::Elementwise => {
            let scale = upscale(call, errors)?;
            let outputs = run(call)?;
            let mut total: Option<Vec<Tensor>> = None;
            for i in (0..errors.len()).filter(|&i| errors[i].is_some()) {
                for sign in [scale, -scale] {
                    let changed = shifted(call, errors, |k, _| if k == i { sign } else { 0.0 })?;
                    let changed = run_on(run, call, &changed)?;
                    let change: Vec<Tensor> = changed
                        .iter()
                        .zip(&outputs)
                        .map(|(a, b)| difference(a, b, scale))
                        .collect::<Result<_, _>>()?;
                    // Both signs are added and not halved: an upper bound within a factor 2 where slopes are even.
                    total = Some(match total {
                        None => change,
                        Some(t) => t
                            .iter()
                            .zip(&change)
                            .map(|(a, b)| combine(a, b, |a, b| a + b))
                            .collect::<Result<_, _>>()?,
                    });
                }
            }
            total.unwrap_or_default().iter().map(|t| map(t, |x| x / 2.0)).collect()
        }
        Flow::General => {
            let scale = upscale(call, errors)?;
            let outputs = run(call)?;
            let mut largest: Option<Vec<Tensor>> = None;
            for trial in 0..TRIALS {
                let changed = shifted(call, errors, |i, k| scale * random_sign(trial, i, k))?;
                let changed = run_on(run, call, &changed)?;
                let change: Vec<Tensor> = changed
                    .iter()
                    .zip(&outputs)
                    .map(|(a, b)| difference(a, b, scale))
                    .collect::<Result<_, _>>()?;
                largest = Some(match largest {
                    None => change,
                    Some(t) => t
                        .iter()
                        .zip(&change)
                        .map(|(a, b)| combine(a, b, f64::max))
                        .collect::<Result<_, _>>()?,
                });
            }
            largest.unwrap_or_default().iter().map(smooth).collect()
        }
    }
}

/// A chance cancellation in every trial must not leave an element without allowance: each gets at least the root
/// mean square of its row (last axis), doubled because the mean is over signs and a bound is wanted.
fn smooth(tensor: &Tensor) -> Result<Tensor, OpError> {
    let width = tensor.shape().last().copied().unwrap_or(1).max(1);
    let x = tensor.to_f64()?;
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks(width) {
        let rms = (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64).sqrt();
        out.extend(row.iter().map(|x| 2.0 * x.max(rms)));
    }
    Ok(Tensor::from_vec(tensor.shape(), out)?)
}

/// No change at all, for outputs that no float input reaches.
pub fn none(outputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
    outputs.iter().map(zeros).collect()
}

fn zeros(tensor: &Tensor) -> Result<Tensor, OpError> {
    Ok(Tensor::full(tensor.shape(), 0f64)?)
}

fn map(tensor: &Tensor, f: impl Fn(f64) -> f64 + Sync) -> Result<Tensor, OpError> {
    let x = tensor.to_f64()?;
    Ok(Tensor::from_vec(tensor.shape(), parallel::map(x.len(), |i| f(x[i])))?)
}

fn combine(a: &Tensor, b: &Tensor, f: impl Fn(f64, f64) -> f64 + Sync) -> Result<Tensor, OpError> {
    let (x, y) = (a.to_f64()?, b.to_f64()?);
    Ok(Tensor::from_vec(a.shape(), parallel::map(x.len().min(y.len()), |i| f(x[i], y[i])))?)
}

/// |a - b| / scale, 0 where neither is finite (the value itself says so already).
fn difference(a: &Tensor, b: &Tensor, scale: f64) -> Result<Tensor, OpError> {
    if !b.dtype().is_float() || a.shape() != b.shape() {
        return zeros(b);
    }
    combine(a, b, |a, b| {
        let d = (a - b).abs() / scale;
        if d.is_nan() { 0.0 } else { d }
    })
}

/// Float inputs changed by `replacement`; others as they are.
fn replace(
    call: &Call<'_>,
    replacement: impl Fn(usize, &Tensor) -> Result<Tensor, OpError>,
) -> Result<Vec<Option<Tensor>>, OpError> {
    let change = |(i, x): (usize, Option<&Tensor>)| match x {
        Some(x) if x.dtype().is_float() => replacement(i, x).map(Some),
        Some(x) => Ok(Some(x.clone())),
        None => Ok(None),
    };
    call.inputs.iter().copied().enumerate().map(change).collect()
}

/// Inputs with their errors added, weighed by input and element.
fn shifted(
    call: &Call<'_>,
    errors: &[Option<Tensor>],
    weight: impl Fn(usize, usize) -> f64 + Sync,
) -> Result<Vec<Option<Tensor>>, OpError> {
    replace(call, |i, x| {
        let Some(e) = errors.get(i).and_then(Option::as_ref) else { return Ok(x.clone()) };
        let (values, errors) = (x.to_f64()?, e.to_f64()?);
        let shifted = |k: usize| values[k] + weight(i, k) * errors[k];
        Ok(Tensor::from_vec(x.shape(), parallel::map(values.len().min(errors.len()), shifted))?)
    })
}

fn run_on(
    run: &dyn Fn(&Call<'_>) -> Result<Vec<Tensor>, OpError>,
    call: &Call<'_>,
    inputs: &[Option<Tensor>],
) -> Result<Vec<Tensor>, OpError> {
    let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
    run(&call.with_inputs(&inputs))
}

/// A power of two that brings the largest relative change to about 1e-6, and never makes it smaller.
fn upscale(call: &Call<'_>, errors: &[Option<Tensor>]) -> Result<f64, OpError> {
    let mut ratio = 0f64;
    for (i, e) in errors.iter().enumerate() {
        let (Some(e), Some(x)) = (e, call.get(i)) else { continue };
        let largest = |t: &Tensor| -> Result<f64, OpError> {
            let x = t.to_f64()?;
            let moderate = |run: std::ops::Range<usize>| {
                x[run].iter().map(|x| x.abs()).filter(|x| *x < 1e30).fold(0.0, f64::max)
            };
            Ok(parallel::pieces(x.len(), &moderate).into_iter().fold(0.0, f64::max))
        };
        let size = largest(x)?;
        if size > 0.0 {
            ratio = ratio.max(largest(e)? / size);
        }
    }
    if ratio <= 0.0 || !ratio.is_finite() {
        return Ok(1.0);
    }
    Ok(2f64.powf((1e-6 / ratio).log2().round()).max(1.0))
}

/// +1 or -1, the same for the same trial, input and element on every machine (SplitMix64).
fn random_sign(trial: u64, input: usize, element: usize) -> f64 {
    let mut z = (trial << 56 ^ (input as u64) << 48 ^ element as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    if (z ^ z >> 31) & 1 == 0 { 1.0 } else { -1.0 }
}
