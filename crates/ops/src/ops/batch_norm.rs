//! BatchNormalization: scale * (x - mean) / sqrt(var + epsilon) + B for each channel (axis 1). Ioffe and Szegedy 2015.
//!
//! In inference the statistics are inputs. In training (`training_mode` from version 14 on, before that more than one output)
//! they are those of the batch, and the running statistics are updated: momentum * old + (1 - momentum) * batch.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, View};
use rayon::prelude::*;

use crate::broadcast::{GRAIN, zip, zip3};
use crate::budget::{self, Budget, Unit};
use crate::reduction::{arrange, fold};
use crate::{Call, Float, OpError, Operator, attributes, flow, for_float, parallel};

#[derive(Debug)]
struct BatchNorm {
    epsilon: f32,
    momentum: f32,
    /// `None`: decided by the number of outputs, as before version 14.
    training: Option<bool>,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    if !attributes::flag(node, "spatial", true)? {
        return Err(OpError::Setting(
            "spatial is 0 (statistics for every place of a feature map), which ONNX dropped in version 9; \
             only 1 is supported"
                .into(),
        ));
    }
    let training = match node.version {
        14.. => Some(attributes::flag(node, "training_mode", false)?),
        _ => None,
    };
    let epsilon = attributes::float_or(node, "epsilon", 1e-5)?;
    Ok(Box::new(BatchNorm { epsilon, momentum: attributes::float_or(node, "momentum", 0.9)?, training }))
}

/// The shape in which a vector of channels broadcasts to a tensor of this rank.
fn along_channels(channels: usize, rank: usize) -> Vec<usize> {
    let mut shape = vec![channels];
    shape.resize(rank.max(2) - 1, 1);
    shape
}

/// The parameter vectors of a call: scale, B, mean, var.
struct Parameters<T> {
    scale: Vec<T>,
    bias: Vec<T>,
    mean: Vec<T>,
    variance: Vec<T>,
}

impl<T: Float> Parameters<T> {
    fn read(call: &Call<'_>, channels: usize) -> Result<Self, OpError> {
        let vector = |index: usize, name: &'static str| -> Result<Vec<T>, OpError> {
            let tensor = call.need(index, name)?;
            if tensor.len() != channels {
                let found = tensor.shape();
                return Err(OpError::Input(format!("{name} has shape {found:?}, X has {channels} channels")));
            }
            Ok(tensor.cast(T::DTYPE)?.as_slice::<T>()?.to_vec())
        };
        Ok(Self {
            scale: vector(1, "scale")?,
            bias: vector(2, "B")?,
            mean: vector(3, "input_mean")?,
            variance: vector(4, "input_var")?,
        })
    }

    /// scale / sqrt(var + epsilon).
    fn factors(&self, epsilon: f32) -> Vec<T> {
        let epsilon = T::of(epsilon.into());
        self.scale.iter().zip(&self.variance).map(|(&g, &v)| g / (v + epsilon).sqrt()).collect()
    }
}

fn channels(x: &Tensor) -> Result<usize, OpError> {
    match *x.shape() {
        // A vector is a batch of one channel.
        [_] => Ok(1),
        [_, channels, ..] => Ok(channels),
        [] => Err(OpError::Input("X is a scalar, it needs a batch axis".into())),
    }
}

impl BatchNorm {
    fn training(&self, call: &Call<'_>) -> bool {
        self.training.unwrap_or(call.outputs > 1)
    }

    fn apply<T: Float>(&self, call: &Call<'_>, x: &Tensor) -> Result<Vec<Tensor>, OpError> {
        let channels = channels(x)?;
        let mut p = Parameters::<T>::read(call, channels)?;
        let wide = along_channels(channels, x.rank());
        let mut outputs = vec![];
        if self.training(call) {
            let mut reduced = vec![true; x.rank()];
            if x.rank() > 1 {
                reduced[1] = false;
            }
            let average = |t: &Tensor| -> Result<Vec<T>, OpError> {
                let (t, layout) = arrange(t, &reduced)?;
                let n = T::of(layout.len as f64);
                let sums = fold::<true, _, _>(t.as_slice::<T>()?, layout, T::ZERO, |x: T| x, |a, b| a + b)?;
                Ok(sums.into_iter().map(|s| s / n).collect())
            };
            let mean = average(x)?;
            let (shape, squares) = zip(&x.view::<T>()?, &View::new(&mean, &wide), |x, m| (x - m) * (x - m))?;
            let variance = average(&Tensor::from_vec(&shape, squares)?)?;
            let momentum = T::of(self.momentum.into());
            let running = |old: &[T], new: &[T]| {
                let mix = |(&o, &n): (&T, &T)| momentum * o + (T::ONE - momentum) * n;
                Tensor::vector(old.iter().zip(new).map(mix).collect())
            };
            outputs = vec![running(&p.mean, &mean), running(&p.variance, &variance)];
            if self.training.is_none() {
                outputs.extend([Tensor::vector(mean.clone()), Tensor::vector(variance.clone())]);
            }
            (p.mean, p.variance) = (mean, variance);
        }
        // x f + (B - m f), as inference code does: one multiplication and one addition for each element.
        let factors = p.factors(self.epsilon);
        let shifts: Vec<T> =
            p.bias.iter().zip(&p.mean).zip(&factors).map(|((&b, &m), &f)| b - m * f).collect();
        let (shape, y) =
            zip3(&x.view::<T>()?, &View::new(&factors, &wide), &View::new(&shifts, &wide), |x, f, s| {
                x * f + s
            })?;
        outputs.insert(0, Tensor::from_vec(&shape, y)?);
        outputs.truncate(call.outputs.max(1));
        Ok(outputs)
    }
}

impl Operator for BatchNorm {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        for_float!(x.dtype(), "X", T => self.apply::<T>(call, x))
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let x = call.need(0, "X")?;
        let channels = channels(x)?;
        let data = x.to_f64()?;
        let inner: usize = x.shape().iter().skip(2).product::<usize>().max(1);
        let terms = (x.len() / channels.max(1)) as f64;
        let p = Parameters::<f64>::read(call, channels)?;
        if index > 0 {
            // Statistics of the batch, and their mixture with the old ones: sums over the batch.
            let mut size = vec![0.0; channels];
            for (i, x) in data.iter().enumerate() {
                let value = if index % 2 == 1 { x.abs() } else { x * x };
                size[i / inner % channels.max(1)] += value / terms;
            }
            for (size, old) in size.iter_mut().zip(if index % 2 == 1 { &p.mean } else { &p.variance }) {
                *size += old.abs();
            }
            return budget::sum(output, &size, terms, unit);
        }
        if self.training(call) {
            // Rows of channels, normalised.
            let reduced: Vec<bool> = (0..x.rank()).map(|i| i != 1).collect();
            let (rows, layout) = crate::reduction::arrange_rows(x, &reduced)?;
            let mut gain = vec![0.0; rows.len()];
            for (row, gain) in gain.chunks_mut(layout.len.max(1)).enumerate() {
                gain.fill(p.scale.get(row).copied().unwrap_or(1.0));
            }
            let (ys, _) = crate::reduction::arrange_rows(output, &reduced)?;
            let y = ys.to_f64()?;
            let found = budget::layer_norm(&rows, &gain, layout.len, self.epsilon.into(), &y, true, unit)?;
            // Back to the order of x: channels were brought in front of the batch.
            let batch = x.shape()[0];
            let back = |v: Vec<f64>| -> Result<Vec<f64>, OpError> {
                let t = Tensor::from_vec(&[channels, batch, inner], v)?.permute(&[1, 0, 2])?;
                Ok(t.to_f64()?.into_owned())
            };
            return back(found);
        }
        let factors = p.factors(self.epsilon);
        let mut terms = vec![0.0; data.len()];
        let planes = GRAIN.div_ceil(inner.max(1));
        parallel::chunks(&mut terms, planes * inner.max(1), &|i, terms| {
            for (k, terms) in terms.chunks_mut(inner).enumerate() {
                let (plane, c) = (i * planes + k, (i * planes + k) % channels.max(1));
                let (f, fixed) = (factors[c].abs(), factors[c].abs() * p.mean[c].abs() + p.bias[c].abs());
                terms.iter_mut().zip(&data[plane * inner..]).for_each(|(t, x)| *t = f * x.abs() + fixed);
            }
        });
        budget::batch_norm(output, &terms, unit)
    }

    /// In inference, with f = scale / sqrt(var + epsilon), the total differential:
    /// |dy| <= |f| dx + |x - mean| (dscale / sqrt(var + epsilon) + |f| dvar / 2 (var + epsilon)) + |f| dmean + dB.
    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        if self.training(call) {
            return flow::propagate(self.flow(), &|c| self.run(c), call, outputs, errors);
        }
        let x = call.need(0, "X")?;
        let channels = channels(x)?;
        let p = Parameters::<f64>::read(call, channels)?;
        let of = |i: usize| -> Result<Vec<f64>, OpError> {
            match errors.get(i).and_then(Option::as_ref) {
                Some(e) => Ok(e.to_f64()?.into_owned()),
                None => Ok(vec![0.0; channels]),
            }
        };
        let (scale, bias, mean, variance) = (of(1)?, of(2)?, of(3)?, of(4)?);
        let spread: Vec<f64> = p.variance.iter().map(|v| v + f64::from(self.epsilon)).collect();
        let factors: Vec<f64> = p.factors(self.epsilon).iter().map(|f| f.abs()).collect();
        let slopes: Vec<f64> = (0..channels)
            .map(|c| scale[c] / spread[c].sqrt() + factors[c] * variance[c] / (2.0 * spread[c]))
            .collect();
        let fixed: Vec<f64> = (0..channels).map(|c| factors[c] * mean[c] + bias[c]).collect();
        let inner: usize = x.shape().iter().skip(2).product::<usize>().max(1);
        let values = x.to_f64()?;
        let entering = errors.first().and_then(Option::as_ref).map(Tensor::to_f64).transpose()?;
        let mut moved = vec![0.0; values.len()];
        moved.par_chunks_mut(inner).enumerate().for_each(|(plane, moved)| {
            let c = plane % channels.max(1);
            let at = plane * inner..plane * inner + moved.len();
            for (d, x) in moved.iter_mut().zip(&values[at.clone()]) {
                *d = (x - p.mean[c]).abs() * slopes[c] + fixed[c];
            }
            if let Some(e) = &entering {
                for (d, e) in moved.iter_mut().zip(&e[at]) {
                    *d += factors[c] * e;
                }
            }
        });
        Ok(vec![Tensor::from_vec(x.shape(), moved)?])
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::{Attribute, ValueId};

    use super::*;
    use crate::testing::{errors, first, node, run, tensor};

    fn inputs() -> [Tensor; 5] {
        let x: Vec<f64> = (0..12).map(|i| f64::from(i * 7 % 12) - 4.5).collect();
        [
            tensor(&[2, 2, 3], &x),
            tensor(&[2], &[2.0, -0.5]),
            tensor(&[2], &[0.25, 1.0]),
            tensor(&[2], &[0.5, -1.0]),
            tensor(&[2], &[4.0, 0.25]),
        ]
    }

    #[test]
    fn inference_uses_the_statistics_given() {
        let all = inputs();
        let y = first(&node("BatchNormalization", 15, &[]), &all.each_ref());
        let p: Vec<Vec<f64>> = all.iter().map(|t| t.to_f64().unwrap().into_owned()).collect();
        for (i, (y, x)) in y.to_f64().unwrap().iter().zip(&p[0]).enumerate() {
            let c = i / 3 % 2;
            let expected = (x - p[3][c]) / (p[4][c] + 1e-5f32 as f64).sqrt() * p[1][c] + p[2][c];
            assert!((y - expected).abs() < 1e-14, "{y} is not {expected}");
        }
        let e = tensor(&[2, 2, 3], &[1e-6; 12]);
        let bound = errors(&node("BatchNormalization", 15, &[]), &all.each_ref(), &[Some(e)]);
        assert!((bound[0] - 2e-6 / (4.0f64 + 1e-5f32 as f64).sqrt()).abs() < 1e-18);
        let short = tensor(&[1], &[1.0]);
        let wrong = [&all[0], &short, &all[2], &all[3], &all[4]];
        assert!(run(&node("BatchNormalization", 15, &[]), &wrong).is_err());
    }

    #[test]
    fn training_uses_those_of_the_batch() {
        let all = inputs();
        let mut node = node("BatchNormalization", 15, &[("training_mode", Attribute::Int(1))]);
        node.outputs = vec![Some(ValueId(0)), Some(ValueId(1)), Some(ValueId(2))];
        let out = run(&node, &all.each_ref()).unwrap();
        let x = all[0].to_f64().unwrap();
        for c in 0..2 {
            let own: Vec<f64> = (0..12).filter(|i| i / 3 % 2 == c).map(|i| x[i]).collect();
            let mean = own.iter().sum::<f64>() / 6.0;
            let variance = own.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 6.0;
            let momentum = f64::from(0.9f32);
            let expected = momentum * all[3].to_f64().unwrap()[c] + (1.0 - momentum) * mean;
            assert!((out[1].to_f64().unwrap()[c] - expected).abs() < 1e-14);
            let expected = momentum * all[4].to_f64().unwrap()[c] + (1.0 - momentum) * variance;
            assert!((out[2].to_f64().unwrap()[c] - expected).abs() < 1e-14);
            let y: Vec<f64> =
                (0..12).filter(|i| i / 3 % 2 == c).map(|i| out[0].to_f64().unwrap()[i]).collect();
            let shift = all[2].to_f64().unwrap()[c];
            assert!((y.iter().sum::<f64>() / 6.0 - shift).abs() < 1e-14);
        }
    }
}
