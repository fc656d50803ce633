//! `NegativeLogLikelihoodLoss` and `SoftmaxCrossEntropyLoss`.
//!
//! Scores are [N, C, D1, ...], targets [N, D1, ...] with classes below C or `ignore_index`, weights `[C]`. A sample's loss
//! is `-w y` with y the (log-)probability of its class and w that class's weight; 0 where the target is ignored. `mean`
//! divides by the sum of the weights of what is not ignored.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::softmax::{each_row, log_softmax_row, split};
use crate::budget::{self, Budget, Unit};
use crate::{Call, Float, OpError, Operator, attributes, for_float};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reduction {
    None,
    Sum,
    Mean,
}

#[derive(Debug)]
struct Loss {
    reduction: Reduction,
    ignored: Option<i64>,
    /// Whether the input holds scores, whose log-softmax over the classes is taken first.
    scores: bool,
}

fn parse(node: &Node, scores: bool) -> Result<Box<dyn Operator>, OpError> {
    let reduction = match attributes::text_or(node, "reduction", "mean")?.as_str() {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        "mean" => Reduction::Mean,
        other => {
            return Err(OpError::Setting(format!(
                "reduction {other:?} is unknown; expected none, sum or mean"
            )));
        }
    };
    Ok(Box::new(Loss { reduction, ignored: attributes::int(node, "ignore_index")?, scores }))
}

/// Parses a node of `NegativeLogLikelihoodLoss`.
pub fn negative_log_likelihood(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, false)
}

/// Parses a node of `SoftmaxCrossEntropyLoss`.
pub fn softmax_cross_entropy(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, true)
}

/// A sample: where its class lies in the scores, and the class's weight.
type Sample<T> = Option<(usize, T)>;

impl Loss {
    /// Log-probabilities of every class.
    fn logarithms<T: Float>(&self, x: &Tensor) -> Result<Vec<T>, OpError> {
        let data = x.as_slice::<T>()?;
        if !self.scores {
            return Ok(data.to_vec());
        }
        let rows = split(x.shape(), 1, false)?;
        Ok(each_row(
            data,
            rows,
            #[inline(always)]
            |x, y| log_softmax_row(x, y),
        ))
    }

    /// Every sample, `None` where it is ignored, in the targets' order.
    fn samples<T: Float>(&self, call: &Call<'_>) -> Result<Vec<Sample<T>>, OpError> {
        let (x, target, weight) = (call.need(0, "input")?, call.need(1, "target")?, call.get(2));
        let fits = x.rank() >= 2
            && target.shape() == [&x.shape()[..1], &x.shape()[2..]].concat()
            && weight.is_none_or(|w| w.shape() == [x.shape()[1]]);
        if !fits {
            return Err(OpError::Input(format!(
                "input {:?}, target {:?} and weight {:?} do not go together; expected [N, C, D1, ...], [N, D1, ...] \
                 and [C]",
                x.shape(),
                target.shape(),
                weight.map(Tensor::shape)
            )));
        }
        let weight = weight.map(Tensor::as_slice::<T>).transpose()?;
        let classes = x.shape()[1];
        let inner: usize = x.shape()[2..].iter().product();
        let sample = |(i, &target): (usize, &i64)| {
            if Some(target) == self.ignored {
                return Ok(None);
            }
            let class = usize::try_from(target).ok().filter(|&c| c < classes).ok_or_else(|| {
                OpError::Input(format!("target {i} is {target}, which is none of the {classes} classes"))
            })?;
            let at = (i / inner * classes + class) * inner + i % inner;
            Ok(Some((at, weight.map_or(T::ONE, |w| w[class]))))
        };
        target.to_i64()?.iter().enumerate().map(sample).collect()
    }

    /// Every sample's contribution, brought together as the reduction says: a sum, or over the weights of what counts.
    fn reduced<T: Float>(
        &self,
        target: &Tensor,
        samples: &[Sample<T>],
        each: Vec<T>,
    ) -> Result<Tensor, OpError> {
        let sum = |x: &mut dyn Iterator<Item = T>| x.fold(T::ZERO, |sum, x| sum + x);
        let total = match self.reduction {
            Reduction::None => return Ok(Tensor::from_vec(target.shape(), each)?),
            Reduction::Sum => T::ONE,
            Reduction::Mean => sum(&mut samples.iter().flatten().map(|&(_, w)| w)),
        };
        Ok(Tensor::scalar(sum(&mut each.into_iter()) / total))
    }

    fn compute<T: Float>(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let samples = self.samples::<T>(call)?;
        let (x, target) = (call.need(0, "input")?, call.need(1, "target")?);
        let logs = self.logarithms::<T>(x)?;
        let each = samples.iter().map(|s| s.map_or(T::ZERO, |(at, w)| -logs[at] * w)).collect();
        let mut outputs = vec![self.reduced(target, &samples, each)?];
        if self.scores && call.outputs > 1 {
            outputs.push(Tensor::from_vec(x.shape(), logs)?);
        }
        Ok(outputs)
    }
}

impl Operator for Loss {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        for_float!(call.need(0, "input")?.dtype(), "input", T => self.compute::<T>(call))
    }

    /// Each sample as its logarithm and one product allow, a sum of these as sums do, what the samples are off added up.
    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let (x, target) = (call.need(0, "input")?, call.need(1, "target")?);
        let samples = self.samples::<f64>(call)?;
        let logs = self.logarithms::<f64>(x)?;
        let of_logs = if self.scores {
            budget::log_softmax(x, &Tensor::from_vec(x.shape(), logs.clone())?, 1, unit)?
        } else {
            budget::exact(x.len())
        };
        if index > 0 {
            return Ok(of_logs);
        }
        let each = |f: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            samples.iter().map(|s| s.map_or(0.0, |(at, w)| f(at, w))).collect()
        };
        let off = each(&|at, w| w.abs() * (of_logs[at] + unit.u * logs[at].abs()) + unit.eta);
        let off = self.reduced(target, &samples, off)?.to_f64()?.into_owned();
        if self.reduction == Reduction::None {
            return Ok(off);
        }
        let magnitude = each(&|at, w| (w * logs[at]).abs());
        let magnitude = self.reduced(target, &samples, magnitude)?.to_f64()?.into_owned();
        // The weights are summed too where the mean is taken, and divided by.
        let sum = budget::sum(output, &magnitude, 2.0 * samples.len() as f64 + 1.0, unit)?;
        Ok(sum.iter().zip(&off).map(|(sum, off)| sum + off.abs()).collect())
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{first, ints, node, run, tensor};

    fn loss(op: &str, reduction: &str, ignored: Option<i64>) -> Node {
        let mut set = vec![("reduction", Attribute::Bytes(reduction.into()))];
        set.extend(ignored.map(|i| ("ignore_index", Attribute::Int(i))));
        node(op, 13, &set)
    }

    #[test]
    fn reductions_weights_and_what_is_ignored() {
        let x = tensor(&[3, 2], &[-1f32, -2., -3., -4., -5., -6.]);
        let (target, weight) = (ints(&[0, 1, 1]), tensor(&[2], &[1f32, 0.5]));
        let cases: [(&str, Option<i64>, &[f32]); 6] = [
            ("none", None, &[1., 2., 3.]),
            ("none", Some(0), &[0., 2., 3.]),
            ("sum", None, &[6.]),
            ("mean", None, &[3.]),
            ("mean", Some(0), &[5.]),
            ("mean", Some(1), &[1.]),
        ];
        for (reduction, ignored, expected) in cases {
            let out = first(&loss("NegativeLogLikelihoodLoss", reduction, ignored), &[&x, &target, &weight]);
            assert_eq!(out.as_slice::<f32>().unwrap(), expected, "{reduction} {ignored:?}");
        }
        // A target beyond the classes is one only where it is ignored.
        let wild = ints(&[0, -7, 1]);
        assert!(run(&loss("NegativeLogLikelihoodLoss", "sum", None), &[&x, &wild]).is_err());
        let out = first(&loss("NegativeLogLikelihoodLoss", "sum", Some(-7)), &[&x, &wild]);
        assert_eq!(out.as_slice::<f32>().unwrap(), [7.]);
        assert!(run(&loss("NegativeLogLikelihoodLoss", "sum", None), &[&x, &ints(&[0, 1])]).is_err());
    }

    #[test]
    fn the_softmax_comes_first_and_its_logarithm_second() {
        let mut node = loss("SoftmaxCrossEntropyLoss", "mean", None);
        node.outputs.push(None);
        let x = tensor(&[1, 2, 2], &[0f32, 1., 0., 1.]);
        let target = ints(&[1, 0]).reshape(&[1, 2]).unwrap();
        let out = run(&node, &[&x, &target]).unwrap();
        assert!((out[0].as_slice::<f32>().unwrap()[0] - 2f32.ln()).abs() < 1e-6);
        assert_eq!(out[1].shape(), [1, 2, 2]);
        assert!(out[1].as_slice::<f32>().unwrap().iter().all(|y| (y + 2f32.ln()).abs() < 1e-6));
    }
}
