//! com.microsoft's EmbedLayerNormalization: the rows of up to three tables (words, positions, segments) that ids pick, added
//! and normalised over the last axis.
//!
//! Outputs: the normalised sum (batch, positions, size), how many positions the mask keeps in each sequence, the sum itself.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor};

use super::skip_layer_norm;
use crate::budget::{self, Budget, Unit};
use crate::{Call, OpError, Operator, for_float};

#[derive(Debug)]
struct EmbedNorm {
    norm: Box<dyn Operator>,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(EmbedNorm { norm: skip_layer_norm::layer(node)? }))
}

/// Where each output stands among those of the skip normalisation that does the arithmetic.
const PLACES: [usize; 3] = [0, usize::MAX, 3];

/// Rows of a table.
fn pick(table: &Tensor, ids: &[i64], shape: &[usize], name: &str) -> Result<Tensor, OpError> {
    let [rows, size] = *table.shape() else {
        return Err(OpError::Input(format!("{name} has shape {:?}, expected two axes", table.shape())));
    };
    let mut out = shape.to_vec();
    out.push(size);
    for_float!(table.dtype(), "a table", T => {
        let data = table.as_slice::<T>()?;
        let mut picked = Vec::with_capacity(isotrace_tensor::element_count(&out)?);
        for &id in ids {
            let row = usize::try_from(id).ok().filter(|&r| r < rows).ok_or_else(|| {
                OpError::Input(format!("id {id} is outside the {rows} rows of {name}"))
            })?;
            picked.extend_from_slice(&data[row * size..(row + 1) * size]);
        }
        Ok(Tensor::from_vec(&out, picked)?)
    })
}

impl EmbedNorm {
    /// The rows that are added, from the tables given (or from errors of the tables): words, positions, segments.
    fn rows(
        call: &Call<'_>,
        table: impl Fn(usize) -> Option<Tensor>,
    ) -> Result<[Option<Tensor>; 3], OpError> {
        let words = call.need(0, "input_ids")?;
        let [batch, positions] = *words.shape() else {
            return Err(OpError::Input(format!(
                "input_ids has shape {:?}, expected two axes",
                words.shape()
            )));
        };
        let shape = [batch, positions];
        let places: Vec<i64> = match call.get(8) {
            None => (0..batch).flat_map(|_| 0..positions as i64).collect(),
            Some(ids) if ids.len() == positions => ids.to_i64()?.repeat(batch),
            Some(ids) => ids.to_i64()?.into_owned(),
        };
        let segments = call.get(1).map(Tensor::to_i64).transpose()?;
        let of = |index: usize, ids: &[i64], name: &str| -> Result<Option<Tensor>, OpError> {
            if ids.len() != batch * positions {
                return Err(OpError::Input(format!("{} ids for {name}, expected {shape:?}", ids.len())));
            }
            table(index).map(|t| pick(&t, ids, &shape, name)).transpose()
        };
        Ok([
            of(2, &words.to_i64()?, "word_embedding")?,
            of(3, &places, "position_embedding")?,
            match &segments {
                Some(ids) => of(4, ids, "segment_embedding")?,
                None => None,
            },
        ])
    }

    fn normalise<R>(
        &self,
        call: &Call<'_>,
        f: impl FnOnce(&dyn Operator, &Call<'_>) -> Result<R, OpError>,
    ) -> Result<R, OpError> {
        let [words, places, segments] = Self::rows(call, |i| call.get(i).cloned())?;
        let inputs = [words.as_ref(), places.as_ref(), call.get(5), call.get(6), segments.as_ref()];
        f(self.norm.as_ref(), &Call { outputs: 4, ..call.with_inputs(&inputs) })
    }
}

impl Operator for EmbedNorm {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let mut outputs = self.normalise(call, |norm, c| norm.run(c))?;
        let ids = call.need(0, "input_ids")?;
        let (batch, positions) = (ids.shape()[0], ids.shape()[1]);
        let kept: Vec<i32> = match call.get(7) {
            Some(mask) if mask.len() == batch * positions => {
                let ones = |row: &[i64]| row.iter().filter(|&&m| m == 1).count() as i32;
                mask.to_i64()?.chunks(positions.max(1)).map(ones).collect()
            }
            Some(mask) => {
                return Err(OpError::Input(format!(
                    "mask has shape {:?}, expected {:?}",
                    mask.shape(),
                    ids.shape()
                )));
            }
            None => vec![0; batch],
        };
        let sum = outputs.remove(3);
        Ok(vec![outputs.remove(0), Tensor::vector(kept).cast(DType::I32)?, sum])
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        match PLACES.get(index) {
            Some(&place) if place < 4 => self.normalise(call, |norm, c| norm.budget(c, place, output, unit)),
            _ => Ok(budget::exact(output.len())),
        }
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let of = |i: usize| errors.get(i).cloned().flatten();
        let [words, places, segments] = Self::rows(call, of)?;
        let moved = self.normalise(call, |norm, c| {
            let made = norm.run(c)?;
            norm.propagate(c, &made, &[words, places, of(5), of(6), segments])
        })?;
        let counted = outputs.get(1).map(|t| Tensor::full(t.shape(), 0f64)).transpose()?;
        let mut moved = moved.into_iter();
        let first = moved.next();
        Ok([first, counted, moved.nth(2)].into_iter().flatten().take(outputs.len()).collect())
    }
}
