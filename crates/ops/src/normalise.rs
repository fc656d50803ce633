//! Normalising rows: the kernel, the budget and the error flow that layer normalisation and its relatives share.
//!
//! y = (x - m) r g + b with m the mean of the row (0 for RMS normalisation), r = 1/sqrt(v + eps), v the mean of
//! (x - m)^2, taken in a second pass over the row: E[x^2] - m^2 loses the digits that the two have in common.

use isotrace_tensor::{Tensor, View};

use crate::broadcast::zip;
use crate::budget::{self, Budget, Unit};
use crate::math::{grain, row, vectorise};
use crate::{Float, OpError, for_float, parallel, room};

/// How rows are normalised.
#[derive(Debug, Clone, Copy)]
pub struct Norm {
    /// What is added to the variance.
    pub epsilon: f32,
    /// Whether the mean is taken off.
    pub centred: bool,
}

/// Normalised rows and their statistics, one of each a row.
pub struct Normalised<T> {
    /// The rows.
    pub y: Vec<T>,
    /// m.
    pub mean: Vec<T>,
    /// r.
    pub inverse: Vec<T>,
}

impl Norm {
    /// Normalises rows of `width`; gain and bias have `width` elements.
    pub fn rows<T: Float>(
        self,
        x: &[T],
        width: usize,
        gain: Option<&[T]>,
        bias: Option<&[T]>,
    ) -> Result<Normalised<T>, OpError> {
        let rows = x.len().checked_div(width).unwrap_or(0);
        let mut out = Normalised {
            y: room::zeros(&[x.len()])?,
            mean: vec![T::ZERO; rows],
            inverse: vec![T::ZERO; rows],
        };
        if x.is_empty() {
            return Ok(out);
        }
        let rows = grain(x.len()).div_ceil(width);
        let some = |x: &[T], y: &mut [T], mean: &mut [T], inverse: &mut [T]| {
            vectorise(
                #[inline(always)]
                || {
                    let rows = x.chunks(width).zip(y.chunks_mut(width));
                    for (((x, y), mean), inverse) in rows.zip(mean.iter_mut()).zip(inverse.iter_mut()) {
                        (*mean, *inverse) = self.row(x, y);
                        if let Some(gain) = gain {
                            for (y, &g) in y.iter_mut().zip(gain) {
                                *y *= g;
                            }
                        }
                        if let Some(bias) = bias {
                            for (y, &b) in y.iter_mut().zip(bias) {
                                *y += b;
                            }
                        }
                    }
                },
            );
        };
        let some = &some;
        let parts = x.chunks(rows * width).zip(out.y.chunks_mut(rows * width));
        let parts = parts.zip(out.mean.chunks_mut(rows)).zip(out.inverse.chunks_mut(rows));
        let task =
            |(((x, y), mean), inverse)| Box::new(move || some(x, y, mean, inverse)) as parallel::Task<'_>;
        parallel::run(parts.map(task).collect());
        Ok(out)
    }

    /// One row without gain and bias; returns (m, r).
    #[inline(always)]
    fn row<T: Float>(self, x: &[T], y: &mut [T]) -> (T, T) {
        let width = T::of(x.len() as f64);
        let mean = if self.centred {
            row::sum(
                x,
                #[inline(always)]
                |x| x,
            ) / width
        } else {
            T::ZERO
        };
        let variance = row::sum(
            x,
            #[inline(always)]
            |x| (x - mean) * (x - mean),
        ) / width;
        let inverse = T::ONE / (variance + T::of(self.epsilon.into())).sqrt();
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (x - mean) * inverse;
        }
        (mean, inverse)
    }

    /// Normalises a tensor over its axes from `axis` on: y, m and r, the latter with 1 for each normalised axis.
    ///
    /// Gain and bias broadcast to the tensor.
    pub fn tensor(
        self,
        x: &Tensor,
        axis: usize,
        gain: Option<&Tensor>,
        bias: Option<&Tensor>,
    ) -> Result<[Tensor; 3], OpError> {
        let width: usize = x.shape()[axis..].iter().product();
        let mut kept = x.shape()[..axis].to_vec();
        kept.resize(x.rank(), 1);
        for_float!(x.dtype(), "X", T => {
            let data = x.as_slice::<T>()?;
            // Nearly always gain and bias are as wide as a row; anything else that broadcasts is applied afterwards.
            let whole = |t: &Tensor| t.len() == width && trailing(t.shape(), &x.shape()[axis..]);
            let fits = gain.is_none_or(whole) && bias.is_none_or(whole);
            let out = if fits {
                let slice = |t: Option<&'_ Tensor>| t.map(|t| t.as_slice::<T>().map(<[T]>::to_vec)).transpose();
                self.rows(data, width, slice(gain)?.as_deref(), slice(bias)?.as_deref())?
            } else {
                let mut out = self.rows(data, width, None, None)?;
                if let Some(gain) = gain {
                    let y = View::new(&out.y, x.shape());
                    out.y = onto(x.shape(), zip(&y, &gain.view::<T>()?, #[inline(always)] |y, g| y * g)?)?;
                }
                if let Some(bias) = bias {
                    let y = View::new(&out.y, x.shape());
                    out.y = onto(x.shape(), zip(&y, &bias.view::<T>()?, #[inline(always)] |y, b| y + b)?)?;
                }
                out
            };
            // No element, no statistics, whatever the number of rows.
            let statistics = |mut s: Vec<T>| -> Result<Tensor, OpError> {
                s.resize(isotrace_tensor::element_count(&kept)?, T::NAN);
                Ok(Tensor::from_vec(&kept, s)?)
            };
            Ok([Tensor::from_vec(x.shape(), out.y)?, statistics(out.mean)?, statistics(out.inverse)?])
        })
    }

    /// The budget of output `index` of [`Self::tensor`] on f64 tensors. Normalisations in real runtimes often take
    /// the variance in one pass; `one_pass` allows for it.
    #[expect(clippy::too_many_arguments, reason = "a call, one of its outputs, and what is asked of it")]
    pub fn budget(
        self,
        x: &Tensor,
        axis: usize,
        gain: Option<&Tensor>,
        output: &Tensor,
        index: usize,
        one_pass: bool,
        unit: Unit,
    ) -> Result<Budget, OpError> {
        let shape = x.shape();
        let width: usize = shape[axis..].iter().product();
        match index {
            0 => {
                let y = output.to_f64()?;
                // As wide as x where it varies along the leading axes, else as wide as a row.
                let gain = match gain {
                    None => vec![1.0],
                    Some(g) if g.rank() <= shape.len() - axis => g
                        .cast(isotrace_tensor::DType::F64)?
                        .view::<f64>()?
                        .broadcast(&shape[axis..])?
                        .to_vec(),
                    Some(g) => g.cast(isotrace_tensor::DType::F64)?.view::<f64>()?.broadcast(shape)?.to_vec(),
                };
                if self.centred {
                    budget::layer_norm(x, &gain, width, self.epsilon.into(), &y, one_pass, unit)
                } else {
                    budget::rms_norm(output, width, unit)
                }
            }
            1 => {
                let k = width as f64;
                let data = x.to_f64()?;
                let size = |row: &[f64]| row.iter().map(|x| x.abs()).sum::<f64>() / k;
                budget::sum(output, &data.chunks(width.max(1)).map(size).collect::<Vec<_>>(), k, unit)
            }
            _ => budget::rms_norm(output, width, unit),
        }
    }

    /// Bounds, to first order, on the changes of y, m and r for changes of x by up to `e` (f64, shaped as x), and of
    /// gain and bias by up to theirs: with h = (x - m) r,
    /// |dy| <= |g| r (e + mean(e) + |h| mean(|h| e)) + |h| |dg| + |db|, the mean(e) only where the mean is taken off.
    pub fn propagate(
        self,
        x: &Tensor,
        axis: usize,
        gain: Option<&Tensor>,
        e: Option<&Tensor>,
        gain_error: Option<&Tensor>,
        bias_error: Option<&Tensor>,
    ) -> Result<[Tensor; 3], OpError> {
        let shape = x.shape();
        let width = shape[axis..].iter().product::<usize>().max(1);
        let [h, mean, inverse] = self.tensor(x, axis, None, None)?;
        let wide = |t: Option<&Tensor>, default: f64| -> Result<Vec<f64>, OpError> {
            Ok(match t {
                None => vec![default; x.len()],
                Some(t) => t
                    .cast(isotrace_tensor::DType::F64)?
                    .view::<f64>()?
                    .broadcast(shape)?
                    .iter()
                    .map(f64::abs)
                    .collect(),
            })
        };
        let (g, dg, db) = (wide(gain, 1.0)?, wide(gain_error, 0.0)?, wide(bias_error, 0.0)?);
        let e = wide(e, 0.0)?;
        let (hs, rs) = (h.to_f64()?, inverse.to_f64()?);
        let finite = |x: f64| if x.is_finite() { x } else { 0.0 };
        let (mut dy, mut dm, mut dr) = (Vec::with_capacity(e.len()), Vec::new(), Vec::new());
        for (row, (h, e)) in hs.chunks(width).zip(e.chunks(width)).enumerate() {
            let k = width as f64;
            let r = rs[row];
            let shift = if self.centred { e.iter().map(|&e| finite(e)).sum::<f64>() / k } else { 0.0 };
            let stretch = h.iter().zip(e).map(|(h, e)| finite(h.abs() * e)).sum::<f64>() / k;
            for (i, (h, e)) in h.iter().zip(e).enumerate() {
                let at = row * width + i;
                let own = g[at] * r * (e + shift + h.abs() * stretch);
                dy.push(finite(own + h.abs() * dg[at] + db[at]));
            }
            dm.push(finite(shift));
            dr.push(finite(r * r * stretch));
        }
        dm.resize(mean.len(), 0.0);
        dr.resize(mean.len(), 0.0);
        Ok([
            Tensor::from_vec(shape, dy)?,
            Tensor::from_vec(mean.shape(), dm)?,
            Tensor::from_vec(mean.shape(), dr)?,
        ])
    }
}

/// Whether `inner` equals `shape` apart from leading axes of size 1.
fn trailing(inner: &[usize], shape: &[usize]) -> bool {
    let strip = |s: &[usize]| s.iter().copied().skip_while(|&d| d == 1).collect::<Vec<_>>();
    strip(inner) == strip(shape)
}

/// The elements, if broadcasting left the shape as it should be.
fn onto<T>(shape: &[usize], (found, data): (Vec<usize>, Vec<T>)) -> Result<Vec<T>, OpError> {
    if found == shape {
        Ok(data)
    } else {
        Err(OpError::Input(format!("scale or bias would broaden the input from {shape:?} to {found:?}")))
    }
}

#[cfg(test)]
mod tests {
    use isotrace_tensor::DType;
    use proptest::prelude::*;

    use super::*;

    fn wave(n: usize, seed: f64) -> Vec<f64> {
        (0..n).map(|i| ((i as f64 + 0.7) * seed).sin() * 3.0 + 0.5).collect()
    }

    /// The definition, row by row, with gain and bias already as large as x.
    fn defined(norm: Norm, x: &[f64], width: usize, gain: &[f64], bias: &[f64]) -> Vec<f64> {
        let mut out = Vec::new();
        for (row, x) in x.chunks(width).enumerate() {
            let k = width as f64;
            let mean = if norm.centred { x.iter().sum::<f64>() / k } else { 0.0 };
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / k;
            for (i, x) in x.iter().enumerate() {
                let at = row * width + i;
                out.push((x - mean) / (variance + f64::from(norm.epsilon)).sqrt() * gain[at] + bias[at]);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn any_shape_axis_and_gain(
            shape in prop::collection::vec(0usize..4, 1..4), axis in 0usize..3, drop in 0usize..4, one: bool,
            centred: bool, seed in 0.1f64..3.0,
        ) {
            prop_assume!(axis < shape.len());
            let n: usize = shape.iter().product();
            let width: usize = shape[axis..].iter().product();
            let x = wave(n, seed);
            let tensor = |t: &[f64], shape: &[usize]| Tensor::from_vec(shape, t.to_vec()).unwrap();
            let mut inner = shape[drop.min(shape.len())..].to_vec();
            if one && !inner.is_empty() {
                inner[0] = 1;
            }
            let (g, b) = (wave(inner.iter().product(), 1.1), wave(inner.iter().product(), 0.9));
            let wide = |t: &[f64]| View::new(t, &inner).broadcast(&shape).unwrap().to_vec();
            let norm = Norm { epsilon: 1e-3, centred };
            let expected = defined(norm, &x, width.max(1), &wide(&g), &wide(&b));
            for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
                let cast = |t: Tensor| t.cast(dtype).unwrap();
                let (x, g, b) = (cast(tensor(&x, &shape)), cast(tensor(&g, &inner)), cast(tensor(&b, &inner)));
                let [y, mean, _] = norm.tensor(&x, axis, Some(&g), Some(&b)).unwrap();
                prop_assert_eq!(mean.len(), shape[..axis].iter().product::<usize>());
                for (y, e) in y.to_f64().unwrap().iter().zip(&expected) {
                    prop_assert!((y - e).abs() <= tolerance * (1.0 + e.abs()), "{} is not {}", y, e);
                }
            }
        }
    }

    #[test]
    fn digits_in_common_do_not_spoil_the_variance() {
        let norm = Norm { epsilon: 1e-5, centred: true };
        let x: Vec<f32> = (0..768).map(|i| 1000.0 + (i % 7) as f32 * 0.125).collect();
        let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let expected = defined(norm, &wide, 768, &[1.0; 768], &[0.0; 768]);
        let y = norm.rows(&x, 768, None, None).unwrap().y;
        let worst = y.iter().zip(expected).map(|(&y, e)| (f64::from(y) - e).abs()).fold(0.0, f64::max);
        assert!(worst < 2e-4, "{worst}");
    }

    #[test]
    fn a_gain_that_broadens_the_input_is_refused() {
        let x = Tensor::from_vec(&[1, 3], vec![1f32, 2.0, 3.0]).unwrap();
        let gain = Tensor::full(&[2, 3], 1f32).unwrap();
        assert!(Norm { epsilon: 0.0, centred: true }.tensor(&x, 1, Some(&gain), None).is_err());
    }

    #[test]
    fn bounds_hold_and_are_reached() {
        let shape = [2, 5];
        let tensor = |v: Vec<f64>, s: &[usize]| Tensor::from_vec(s, v).unwrap();
        let (x, e) = (wave(10, 1.3), wave(10, 0.4).iter().map(|e| e.abs() * 1e-7).collect::<Vec<_>>());
        let (g, dg) = (wave(5, 2.1), vec![1e-7; 5]);
        for centred in [true, false] {
            let norm = Norm { epsilon: 1e-3, centred };
            let run = |x: &[f64], g: &[f64]| {
                norm.tensor(&tensor(x.to_vec(), &shape), 1, Some(&tensor(g.to_vec(), &[5])), None).unwrap()
            };
            let exact = run(&x, &g);
            let (tx, te) = (tensor(x.clone(), &shape), tensor(e.clone(), &shape));
            let (tg, tdg) = (tensor(g.clone(), &[5]), tensor(dg.clone(), &[5]));
            let bounds = norm.propagate(&tx, 1, Some(&tg), Some(&te), Some(&tdg), None).unwrap();
            let mut largest = [vec![0f64; 10], vec![0f64; 2], vec![0f64; 2]];
            for signs in 0u32..1 << 10 {
                let sign = |i: usize| if signs >> i & 1 == 0 { 1.0 } else { -1.0 };
                let moved: Vec<f64> = (0..10).map(|i| x[i] + sign(i) * e[i]).collect();
                for flip in [1.0, -1.0] {
                    let gain: Vec<f64> = (0..5).map(|i| g[i] + flip * dg[i]).collect();
                    for (k, t) in run(&moved, &gain).iter().enumerate() {
                        for (i, (a, b)) in
                            t.to_f64().unwrap().iter().zip(exact[k].to_f64().unwrap().iter()).enumerate()
                        {
                            largest[k][i] = largest[k][i].max((a - b).abs());
                        }
                    }
                }
            }
            for k in 0..3 {
                for (bound, found) in bounds[k].to_f64().unwrap().iter().zip(&largest[k]) {
                    // The three parts need not be at their worst together.
                    let reached = *found >= 0.4 * bound - 1e-15;
                    assert!(
                        *found <= bound * 1.0001 + 1e-15 && reached,
                        "output {k}: {found} against {bound}"
                    );
                }
            }
        }
    }
}
