//! com.microsoft `QAttention` and `QEmbedLayerNormalization`: Attention and `EmbedLayerNormalization` whose input, weights
//! or tables are 8-bit integers with a scale and a zero point. They are dequantised here and handed to the operator on
//! floats, where ONNX Runtime scales sums of integers: equal up to rounding.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor};

use super::integer::centred;
use super::{embed_layer_norm, multi_head_attention};
use crate::budget::{Budget, Unit};
use crate::{Call, OpError, Operator};

/// A quantised input of the outer operator.
#[derive(Debug, Clone, Copy)]
struct Quantised {
    data: usize,
    scale: usize,
    zero: usize,
    name: &'static str,
}

#[derive(Debug)]
struct Dequantised {
    inner: Box<dyn Operator>,
    /// For each input of the inner operator, the outer one's.
    places: &'static [usize],
    quantised: &'static [Quantised],
}

/// Parses a `QAttention`.
pub fn attention(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Dequantised {
        inner: multi_head_attention::attention(node)?,
        places: &[0, 1, 2, 5, 8],
        quantised: &[
            Quantised { data: 0, scale: 3, zero: 6, name: "input" },
            Quantised { data: 1, scale: 4, zero: 7, name: "weight" },
        ],
    }))
}

/// Parses a `QEmbedLayerNormalization`.
pub fn embed_layer_norm(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Dequantised {
        inner: embed_layer_norm::build(node)?,
        places: &[0, 1, 2, 3, 4, 5, 6, 7],
        quantised: &[
            Quantised { data: 2, scale: 8, zero: 13, name: "word_embedding_quant" },
            Quantised { data: 3, scale: 9, zero: 14, name: "position_embedding_quant" },
            Quantised { data: 4, scale: 10, zero: 15, name: "segment_embedding" },
            Quantised { data: 5, scale: 11, zero: 16, name: "gamma_quant" },
            Quantised { data: 6, scale: 12, zero: 17, name: "beta_quant" },
        ],
    }))
}

/// The numbers that integers stand for, in the type of the scale. Scale and zero point are one number, or one for each
/// place of the last axis.
fn dequantise(x: &Tensor, scale: &Tensor, zero: Option<&Tensor>, name: &str) -> Result<Tensor, OpError> {
    let steps = centred(x, zero, x.rank().saturating_sub(1), name)?;
    let scales = scale.to_f64()?;
    let width = x.shape().last().copied().unwrap_or(1);
    if scales.len() != 1 && scales.len() != width {
        return Err(OpError::Input(format!(
            "the scale of {name} has shape {:?}, expected one number or {width}",
            scale.shape()
        )));
    }
    let numbers =
        steps.as_slice::<f64>()?.iter().enumerate().map(|(i, x)| x * scales[i % scales.len()]).collect();
    let dtype = if scale.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    Ok(Tensor::from_vec(x.shape(), numbers)?.cast(dtype)?)
}

impl Dequantised {
    fn with<R>(
        &self,
        call: &Call<'_>,
        f: impl FnOnce(&dyn Operator, &Call<'_>) -> Result<R, OpError>,
    ) -> Result<R, OpError> {
        let mut inputs: Vec<Option<Tensor>> = self.places.iter().map(|&i| call.get(i).cloned()).collect();
        for q in self.quantised {
            let Some(x) = call.get(q.data) else { continue };
            inputs[q.data] = Some(dequantise(x, call.need(q.scale, q.name)?, call.get(q.zero), q.name)?);
        }
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
        f(self.inner.as_ref(), &call.with_inputs(&inputs))
    }
}

impl Operator for Dequantised {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        self.with(call, |inner, c| inner.run(c))
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        self.with(call, |inner, c| inner.budget(c, index, output, unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tensor;

    #[test]
    fn one_scale_or_one_a_column() {
        let x = tensor(&[2, 2], &[1u8, 2, 3, 4]);
        let zeros = tensor(&[2], &[1u8, 0]);
        let got = dequantise(&x, &tensor(&[2], &[0.5f32, 2.0]), Some(&zeros), "x").unwrap();
        assert!(got.bit_eq(&tensor(&[2, 2], &[0f32, 4.0, 1.0, 8.0])), "{got:?}");
        let got = dequantise(&x, &tensor(&[], &[0.5f64]), None, "x").unwrap();
        assert!(got.bit_eq(&tensor(&[2, 2], &[0.5f64, 1.0, 1.5, 2.0])), "{got:?}");
        assert!(dequantise(&x, &tensor(&[3], &[1f32; 3]), None, "x").is_err());
    }
}
