//! Attention of ONNX (from version 23 on): scaled dot-product attention with grouped heads, masks, causality, windows,
//! caps on the logits and a cache of keys and values.
//!
//! Q, K, V are (batch, heads, positions, size), or (batch, positions, heads * size) with the heads as attributes. See
//! [`crate::attend`] for the arithmetic.

use isotrace_graph::Node;
use isotrace_tensor::{Bool, DType, Tensor, View};

use crate::attend::{Scoring, Sizes, Stage, append, attend, join_heads, split_heads};
use crate::budget::{self, Budget, Unit};
use crate::moves::room;
use crate::spread::{Number, Outputs, Spread, budget_of, tensors};
use crate::{Call, Float, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct Attention {
    causal: bool,
    heads: Option<usize>,
    key_heads: Option<usize>,
    scale: Option<f64>,
    softcap: f64,
    stage: Stage,
    /// Most keys a query sees before and after its own position.
    window: (Option<usize>, Option<usize>),
    /// Whether a mask may end before the keys do, what is beyond its end being shut off (from version 24 on).
    pads: bool,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let size = |name: &str| -> Result<Option<usize>, OpError> {
        attributes::int(node, name)?
            .map(|i| {
                usize::try_from(i).map_err(|_| OpError::Setting(format!("{name} {i} must not be negative")))
            })
            .transpose()
    };
    let bound = |name: &str| -> Result<Option<usize>, OpError> {
        Ok(usize::try_from(attributes::int_or(node, name, -1)?).ok())
    };
    let stage = match attributes::int_or(node, "qk_matmul_output_mode", 0)? {
        0 => Stage::Scaled,
        1 => Stage::Capped,
        2 => Stage::Masked,
        3 => Stage::Probabilities,
        other => {
            return Err(OpError::Setting(format!(
                "qk_matmul_output_mode {other} is unknown; expected 0 to 3"
            )));
        }
    };
    Ok(Box::new(Attention {
        causal: attributes::flag(node, "is_causal", false)?,
        heads: size("q_num_heads")?,
        key_heads: size("kv_num_heads")?,
        scale: attributes::float(node, "scale")?.map(f64::from),
        softcap: attributes::float_or(node, "softcap", 0.0)?.into(),
        stage,
        window: (bound("left_window_size")?, bound("right_window_size")?),
        pads: node.version >= 24,
    }))
}

/// A tensor as (batch, heads, positions, size), and whether it came with three axes.
fn headed<N: Number>(
    x: &Tensor,
    heads: Option<usize>,
    name: &str,
) -> Result<([usize; 4], Vec<N>, bool), OpError> {
    let data: Vec<N> = x.as_slice::<N::Weight>()?.iter().map(|&x| N::exact(x)).collect();
    match *x.shape() {
        [batch, heads, positions, size] => Ok(([batch, heads, positions, size], data, false)),
        [batch, positions, hidden] => {
            let heads = heads.filter(|&h| h > 0 && hidden % h == 0).ok_or_else(|| {
                OpError::Input(format!(
                    "{name} of shape {:?} needs its number of heads as an attribute, a divisor of {hidden}; \
                     found {heads:?}",
                    x.shape()
                ))
            })?;
            let size = hidden / heads;
            let split = split_heads(&data, batch, positions, heads, size);
            Ok(([batch, heads, positions, size], split, true))
        }
        _ => Err(OpError::Input(format!("{name} has shape {:?}, expected 3 or 4 axes", x.shape()))),
    }
}

impl Attention {
    fn compute<N: Number>(&self, call: &Call<'_>) -> Result<Outputs<N>, OpError> {
        let ([batch, heads, queries, size], q, flat) = headed::<N>(call.need(0, "Q")?, self.heads, "Q")?;
        let ([kb, key_heads, new, ks], k, _) = headed::<N>(call.need(1, "K")?, self.key_heads, "K")?;
        let ([vb, vh, vn, value_size], v, _) = headed::<N>(call.need(2, "V")?, self.key_heads, "V")?;
        if (kb, ks) != (batch, size) || (vb, vh, vn) != (batch, key_heads, new) {
            return Err(OpError::Input(format!(
                "Q [{batch}, {heads}, {queries}, {size}], K [{kb}, {key_heads}, {new}, {ks}] and \
                 V [{vb}, {vh}, {vn}, {value_size}] contradict each other"
            )));
        }
        let cached = |index: usize, size: usize, name: &str| -> Result<(usize, Vec<N>), OpError> {
            let Some(past) = call.get(index) else { return Ok((0, Vec::new())) };
            match *past.shape() {
                [b, h, p, s] if (b, h, s) == (batch, key_heads, size) => {
                    Ok((p, past.as_slice::<N::Weight>()?.iter().map(|&x| N::exact(x)).collect()))
                }
                _ => Err(OpError::Input(format!(
                    "{name} has shape {:?}, expected [{batch}, {key_heads}, past, {size}]",
                    past.shape()
                ))),
            }
        };
        let (past, past_k) = cached(4, size, "past_key")?;
        let (past_v_len, past_v) = cached(5, value_size, "past_value")?;
        if past != past_v_len {
            return Err(OpError::Input(format!("past_key holds {past} positions, past_value {past_v_len}")));
        }
        let planes = batch * key_heads;
        let (k, v) = (append(&past_k, &k, planes, size), append(&past_v, &v, planes, value_size));
        let keys = past + new;
        let valid: Option<Vec<i64>> =
            call.get(6).map(|t| Ok::<_, OpError>(t.to_i64()?.into_owned())).transpose()?;
        if let Some(valid) = valid.as_ref().filter(|v| v.len() != batch) {
            return Err(OpError::Input(format!(
                "nonpad_kv_seqlen holds {} numbers, expected {batch}",
                valid.len()
            )));
        }
        let given = call.get(3);
        let bias = given
            .filter(|m| m.dtype() != DType::Bool)
            .map(|m| self.padded(&m.view()?, keys, -<N::Weight as Float>::INFINITY))
            .transpose()?;
        let mask = given
            .filter(|m| m.dtype() == DType::Bool)
            .map(|m| self.padded(&m.view()?, keys, Bool::from(false)))
            .transpose()?;
        // Position of the first query among the keys: those before it in the cache.
        let offset = |b: usize| match &valid {
            Some(valid) => valid[b].saturating_sub(queries as i64),
            None => past as i64,
        };
        let visible = |b: usize, i: usize| {
            let position = offset(b).saturating_add(i as i64);
            let mut high = keys as i64;
            if let Some(valid) = &valid {
                high = high.min(valid[b]);
            }
            if self.causal {
                high = high.min(position.saturating_add(1));
            }
            if let Some(right) = self.window.1 {
                high = high.min(position.saturating_add(right as i64).saturating_add(1));
            }
            let low = self.window.0.map_or(0, |left| position.saturating_sub(left as i64));
            (low.max(0) as usize, high.max(0) as usize)
        };
        let sizes = Sizes { batch, heads, key_heads, queries, keys, size, value_size };
        let scoring = Scoring {
            scale: self.scale.unwrap_or(1.0 / (size as f64).sqrt()),
            softcap: self.softcap,
            bias: bias.as_ref().map(|(shape, data)| View::new(data, shape)),
            mask: mask.as_ref().map(|(shape, data)| View::new(data, shape)),
            visible: &visible,
            sink: None,
            scores: (call.outputs > 3).then_some(self.stage),
        };
        let (out, scores) = attend(&q, &k, &v, sizes, &scoring)?;
        let first = if flat {
            (vec![batch, queries, heads * value_size], join_heads(&out, batch, heads, queries, value_size))
        } else {
            (vec![batch, heads, queries, value_size], out)
        };
        let mut outputs = vec![first];
        if call.outputs > 1 {
            outputs.push((vec![batch, key_heads, keys, size], k));
            outputs.push((vec![batch, key_heads, keys, value_size], v));
        }
        if call.outputs > 3 {
            outputs.push((vec![batch, heads, queries, keys], scores));
        }
        Ok(outputs)
    }

    /// A mask's shape and elements, its last axis made as long as the keys with `shut`.
    fn padded<T: Copy + Send + Sync>(
        &self,
        mask: &View<'_, T>,
        keys: usize,
        shut: T,
    ) -> Result<(Vec<usize>, Vec<T>), OpError> {
        let (mut shape, data) = (mask.shape().to_vec(), mask.to_vec());
        let Some(length) = shape.last_mut().filter(|l| self.pads && **l < keys) else {
            return Ok((shape, data));
        };
        let old = std::mem::replace(length, keys);
        let mut out = room(&shape)?;
        for row in data.chunks(old.max(1)) {
            out.extend_from_slice(row);
            out.extend(std::iter::repeat_n(shut, keys - old));
        }
        // Without a single key in the mask there are no rows to cut it into.
        out.resize(shape.iter().product(), shut);
        Ok((shape, out))
    }
}

impl Operator for Attention {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let q = call.need(0, "Q")?;
        for_float!(q.dtype(), "Q", T => tensors(self.compute::<T>(call)?))
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if index == 1 || index == 2 {
            return Ok(budget::exact(output.len()));
        }
        budget_of(&self.compute::<Spread>(call)?, index, unit)
    }
}
