//! `MelWeightMatrix`: triangles on the mel scale over the bins of a spectrum, [dft_length / 2 + 1, num_mel_bins].
//!
//! mel(f) = 2595 log10(1 + f / 700). The edges of the triangles are whole bins, so every weight is a quotient of whole
//! numbers; where an edge falls on its own centre the weight is 1.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor};

use crate::budget::{self, Budget, Unit};
use crate::room::zeros;
use crate::{Call, Decision, OpError, Operator, attributes};

#[derive(Debug)]
struct MelWeightMatrix {
    dtype: DType,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(MelWeightMatrix { dtype: attributes::dtype(node, "output_datatype")?.unwrap_or(DType::F32) }))
}

impl Operator for MelWeightMatrix {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let whole = |index, name| -> Result<usize, OpError> {
            let found = call.need(index, name)?.to_i64()?;
            let one = found.first().copied().filter(|_| found.len() == 1);
            one.and_then(|x| usize::try_from(x).ok())
                .ok_or_else(|| OpError::Input(format!("{name} {found:?} must be one number, not negative")))
        };
        let hertz = |index, name| -> Result<f64, OpError> {
            let found = call.need(index, name)?.to_f64()?;
            let one = found.first().copied().filter(|x| found.len() == 1 && *x > -700.0 && x.is_finite());
            one.ok_or_else(|| OpError::Input(format!("{name} {found:?} must be one finite frequency")))
        };
        let (bands, length) = (whole(0, "num_mel_bins")?, whole(1, "dft_length")?);
        let rate = whole(2, "sample_rate")?;
        if rate == 0 {
            return Err(OpError::Input("sample_rate is 0, it must be positive".to_owned()));
        }
        let (lower, upper) = (hertz(3, "lower_edge_hertz")?, hertz(4, "upper_edge_hertz")?);
        let shape = [length / 2 + 1, bands];
        let mut out = zeros::<f64>(&shape)?;
        let mel = |f: f64| 2595.0 * (1.0 + f / 700.0).log10();
        let step = (mel(upper) - mel(lower)) / (bands as f64 + 2.0);
        let edge = |i: usize| {
            let frequency = 700.0 * (10f64.powf((mel(lower) + i as f64 * step) / 2595.0) - 1.0);
            (((length as f64 + 1.0) * frequency) / rate as f64).floor()
        };
        for band in 0..bands {
            let [left, centre, right] = [edge(band), edge(band + 1), edge(band + 2)];
            for (bin, row) in out.chunks_mut(bands).enumerate() {
                let bin = bin as f64;
                row[band] = if bin == centre {
                    1.0
                } else if bin >= left && bin < centre {
                    (bin - left) / (centre - left)
                } else if bin > centre && bin < right {
                    (right - bin) / (right - centre)
                } else {
                    0.0
                };
            }
        }
        let dtype = call.precision.resolve(self.dtype);
        Ok(vec![Tensor::from_vec(&shape, out)?.cast(dtype)?])
    }

    /// Quotients of what was decided.
    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        budget::correctly_rounded(output, unit)
    }

    /// The edges are whole bins: a decision over frequencies.
    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}
