//! com.microsoft's SkipLayerNormalization and SkipSimplifiedLayerNormalization: layer or RMS normalisation, over the last axis, of
//! input + skip (+ bias). What ONNX Runtime's optimiser makes of a residual connection and the norm after it.
//!
//! Outputs: the normalised sum, mean, inverse deviation, and the sum itself.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::broadcast::zip;
use crate::budget::{self, Budget, Unit};
use crate::normalise::Norm;
use crate::{Call, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct SkipNorm {
    norm: Norm,
    /// Which inputs are beta and bias.
    beta: Option<usize>,
    bias: usize,
}

/// Parses a node of SkipLayerNormalization.
pub fn layer(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let epsilon = attributes::float_or(node, "epsilon", 1e-12)?;
    Ok(Box::new(SkipNorm { norm: Norm { epsilon, centred: true }, beta: Some(3), bias: 4 }))
}

/// Parses a node of SkipSimplifiedLayerNormalization.
pub fn simplified(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let epsilon = attributes::float_or(node, "epsilon", 1e-12)?;
    Ok(Box::new(SkipNorm { norm: Norm { epsilon, centred: false }, beta: None, bias: 3 }))
}

impl SkipNorm {
    fn beta<T>(&self, of: impl Fn(usize) -> Option<T>) -> Option<T> {
        self.beta.and_then(of)
    }

    /// The tensors that are added up.
    fn terms<'a>(&self, call: &Call<'a>) -> Result<Vec<&'a Tensor>, OpError> {
        let mut terms = vec![call.need(0, "input")?, call.need(1, "skip")?];
        terms.extend(call.get(self.bias));
        if terms[0].rank() == 0 {
            return Err(OpError::Input("input is a scalar; it needs an axis to be normalised over".into()));
        }
        Ok(terms)
    }
}

/// The sum of tensors, of which each after the first broadcasts to the first.
fn total(terms: &[&Tensor]) -> Result<Tensor, OpError> {
    let mut sum = terms[0].clone();
    for term in &terms[1..] {
        sum = for_float!(sum.dtype(), "input", T => {
            let (shape, data) = zip(&sum.view::<T>()?, &term.view::<T>()?, #[inline(always)] |a, b| a + b)?;
            if shape != sum.shape() {
                let (found, expected) = (term.shape(), sum.shape());
                return Err(OpError::Input(format!("skip or bias of shape {found:?} does not fit input {expected:?}")));
            }
            Ok(Tensor::from_vec(&shape, data)?)
        })?;
    }
    Ok(sum)
}

fn absolute(tensor: &Tensor) -> Result<Tensor, OpError> {
    Ok(Tensor::from_vec(tensor.shape(), tensor.to_f64()?.iter().map(|x| x.abs()).collect())?)
}

impl Operator for SkipNorm {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let sum = total(&self.terms(call)?)?;
        let beta = self.beta(|i| call.get(i));
        let [y, mean, inverse] =
            self.norm.tensor(&sum, sum.rank() - 1, Some(call.need(2, "gamma")?), beta)?;
        let mut out = vec![y, mean, inverse, sum];
        out.truncate(call.outputs.max(1));
        Ok(out)
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let terms = self.terms(call)?;
        let sizes: Vec<Tensor> = terms.iter().map(|t| absolute(t)).collect::<Result<_, _>>()?;
        let magnitude = total(&sizes.iter().collect::<Vec<_>>())?;
        if index == 3 {
            return budget::sum(output, &magnitude.to_f64()?, (terms.len() - 1) as f64, unit);
        }
        let (sum, axis) = (total(&terms)?, magnitude.rank() - 1);
        let gain = call.get(2);
        let mut out = self.norm.budget(&sum, axis, gain, output, index, true, unit)?;
        // The sum was rounded before it was normalised.
        let rounding = magnitude.to_f64()?.iter().map(|m| unit.u * m).collect();
        let rounding = Tensor::from_vec(sum.shape(), rounding)?;
        let more = self.norm.propagate(&sum, axis, gain, Some(&rounding), None, None)?;
        for (i, more) in more[index].to_f64()?.iter().enumerate() {
            out[i] += more;
        }
        Ok(out)
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let terms = self.terms(call)?;
        let sum = total(&terms)?;
        let error = |i: usize| errors.get(i).and_then(Option::as_ref);
        let zero = Tensor::full(sum.shape(), 0f64)?;
        let mut own = vec![&zero];
        own.extend([0, 1, self.bias].into_iter().filter_map(error));
        let e = total(&own)?;
        let beta = self.beta(error);
        let [y, mean, inverse] =
            self.norm.propagate(&sum, sum.rank() - 1, call.get(2), Some(&e), error(2), beta)?;
        let mut out = vec![y, mean, inverse, e];
        out.truncate(outputs.len());
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_norm_of_the_sum() {
        let tensor = |shape: &[usize], seed: f64| {
            let n: usize = shape.iter().product();
            Tensor::from_vec(shape, (0..n).map(|i| (i as f64 * seed).cos()).collect()).unwrap()
        };
        let (input, skip) = (tensor(&[2, 3, 4], 0.7), tensor(&[1, 3, 4], 1.9));
        let (gamma, beta, bias) = (tensor(&[4], 0.3), tensor(&[4], 0.2), tensor(&[4], 0.9));
        let sum = total(&[&input, &skip, &bias]).unwrap();
        for centred in [true, false] {
            let norm = Norm { epsilon: 1e-5, centred };
            let op = SkipNorm { norm, beta: centred.then_some(3), bias: if centred { 4 } else { 3 } };
            let mut inputs = vec![Some(&input), Some(&skip), Some(&gamma)];
            inputs.extend(centred.then_some(Some(&beta)));
            inputs.push(Some(&bias));
            let call = Call { outputs: 4, ..Call::new(&inputs) };
            let out = op.run(&call).unwrap();
            let expected = norm.tensor(&sum, 2, Some(&gamma), centred.then_some(&beta)).unwrap();
            assert!(out[..3].iter().zip(&expected).all(|(a, b)| a.bit_eq(b)));
            assert!(out[3].bit_eq(&sum));
            let one = op.run(&Call { outputs: 1, ..call }).unwrap();
            assert_eq!(one.len(), 1);
        }
    }

    #[test]
    fn a_skip_that_broadens_the_input_is_refused() {
        let small = Tensor::full(&[1, 2], 1f32).unwrap();
        let large = Tensor::full(&[3, 2], 1f32).unwrap();
        assert!(total(&[&small, &large]).is_err());
    }
}
