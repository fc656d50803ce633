//! com.microsoft's GroupQueryAttention: causal attention with grouped heads, a cache and rotary embedding inside, as
//! exporters of language models write it.
//!
//! Each sequence has its own length, `seqlens_k` + 1; the cache is padded on the right to the longest.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, View};

use super::rotary::turn;
use crate::attend::{Scoring, Sizes, attend, join_heads, split_heads};
use crate::budget::{Budget, Unit};
use crate::spread::{Number, Outputs, Spread, budget_of, tensors};
use crate::{Call, Float, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct GroupQuery {
    heads: usize,
    key_heads: usize,
    scale: Option<f64>,
    softcap: f64,
    /// Most positions a query looks back, its own counted.
    window: Option<usize>,
    causal: bool,
    /// Rotary embedding inside, and whether its pairs are neighbours.
    rotary: Option<bool>,
    /// Whether a logit of 0 takes its share of every softmax.
    smooth: bool,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let count = |name: &str| -> Result<usize, OpError> {
        let n = attributes::int_or(node, name, 0)?;
        let positive = usize::try_from(n).ok().filter(|&n| n > 0);
        positive.ok_or_else(|| OpError::Setting(format!("{name} is {n}, expected a positive number")))
    };
    for (setting, name) in [("k_quant_type", "a quantised cache"), ("v_quant_type", "a quantised cache")] {
        if attributes::text(node, setting)?.is_some_and(|t| t != "NONE") {
            return Err(OpError::Setting(format!("{setting}: {name} is not supported; expected NONE")));
        }
    }
    for setting in ["qk_output", "sliding_window_cache"] {
        let found = attributes::int_or(node, setting, 0)?;
        if found != 0 {
            return Err(OpError::Setting(format!("{setting} {found} is not supported; expected 0")));
        }
    }
    let interleaved = attributes::flag(node, "rotary_interleaved", false)?;
    Ok(Box::new(GroupQuery {
        heads: count("num_heads")?,
        key_heads: count("kv_num_heads")?,
        scale: attributes::float(node, "scale")?.map(f64::from).filter(|&s| s != 0.0),
        softcap: attributes::float_or(node, "softcap", 0.0)?.into(),
        window: usize::try_from(attributes::int_or(node, "local_window_size", -1)?).ok(),
        causal: attributes::flag(node, "causal", true)?,
        rotary: attributes::flag(node, "do_rotary", false)?.then_some(interleaved),
        smooth: attributes::flag(node, "smooth_softmax", false)?,
    }))
}

impl GroupQuery {
    /// (batch, positions, size) of the queries, then queries, keys and values as (batch, heads, positions, size).
    #[expect(clippy::type_complexity, reason = "sizes and three tensors, taken apart at once")]
    fn split<N: Number>(
        &self,
        call: &Call<'_>,
    ) -> Result<((usize, usize, usize), Vec<N>, Vec<N>, Vec<N>), OpError> {
        let query = call.need(0, "query")?;
        let [batch, positions, hidden] = *query.shape() else {
            return Err(OpError::Input(format!("query has shape {:?}, expected three axes", query.shape())));
        };
        let exact = |t: &Tensor| -> Result<Vec<N>, OpError> {
            Ok(t.as_slice::<N::Weight>()?.iter().map(|&x| N::exact(x)).collect())
        };
        let all = self.heads + 2 * self.key_heads;
        let heads = if call.get(1).is_some() { self.heads } else { all };
        if hidden % heads != 0 {
            return Err(OpError::Input(format!(
                "query has {hidden} elements a position, no multiple of {heads} heads"
            )));
        }
        let size = hidden / heads;
        let part = |rows: &[N], width: usize, from: usize, n: usize| -> Vec<N> {
            let picked = rows.chunks(width.max(1)).flat_map(|row| &row[from * size..(from + n) * size]);
            split_heads(&picked.copied().collect::<Vec<N>>(), batch, positions, n, size)
        };
        let q = exact(query)?;
        match (call.get(1), call.get(2)) {
            (Some(k), Some(v)) => {
                let expected = [batch, positions, self.key_heads * size];
                for (t, name) in [(k, "key"), (v, "value")] {
                    if t.shape() != expected {
                        let found = t.shape();
                        return Err(OpError::Input(format!(
                            "{name} has shape {found:?}, expected {expected:?}"
                        )));
                    }
                }
                let width = self.key_heads * size;
                let (k, v) = (exact(k)?, exact(v)?);
                Ok((
                    (batch, positions, size),
                    part(&q, hidden, 0, self.heads),
                    part(&k, width, 0, self.key_heads),
                    part(&v, width, 0, self.key_heads),
                ))
            }
            _ => Ok((
                (batch, positions, size),
                part(&q, hidden, 0, self.heads),
                part(&q, hidden, self.heads, self.key_heads),
                part(&q, hidden, self.heads + self.key_heads, self.key_heads),
            )),
        }
    }

    fn compute<N: Number>(&self, call: &Call<'_>) -> Result<Outputs<N>, OpError> {
        for (index, name) in [(12, "k_scale"), (13, "v_scale"), (14, "q_norm_weight"), (15, "k_norm_weight")]
        {
            if call.get(index).is_some() {
                return Err(OpError::Setting(format!("the input {name} is not supported")));
            }
        }
        let ((batch, positions, size), mut q, mut k, v) = self.split::<N>(call)?;
        let lengths = call.need(5, "seqlens_k")?.to_i64()?;
        let total = call.need(6, "total_sequence_length")?.to_i64()?;
        let total = total.first().and_then(|&t| usize::try_from(t).ok()).unwrap_or(0);
        if lengths.len() != batch || total < positions {
            return Err(OpError::Input(format!(
                "seqlens_k holds {} numbers and total_sequence_length is {total}; expected {batch} numbers and at least \
                 the {positions} positions of the query",
                lengths.len()
            )));
        }
        let room = call.get(3).map_or(0, |t| t.shape().get(2).copied().unwrap_or(0));
        // A prompt starts every sequence anew, whatever its length.
        let past: Vec<usize> = lengths
            .iter()
            .map(|&n| {
                let all = usize::try_from(n.saturating_add(1)).unwrap_or(0);
                if positions == total { 0 } else { all.saturating_sub(positions) }
            })
            .collect();
        let keys = total.max(room);
        if past.iter().any(|&p| p > room || p + positions > keys) {
            return Err(OpError::Input(format!(
                "seqlens_k asks for {:?} positions of a cache of {room}; total_sequence_length is {total}",
                past.iter().max().unwrap_or(&0)
            )));
        }
        if let Some(interleaved) = self.rotary {
            let (cosines, sines) = (call.need(7, "cos_cache")?, call.need(8, "sin_cache")?);
            let ids = call.get(9).map(|t| Ok::<_, OpError>(t.to_i64()?.into_owned())).transpose()?;
            let position = |b: usize, i: usize| match &ids {
                Some(ids) => ids.get(b * positions + i).copied().unwrap_or(-1),
                None => (past[b] + i) as i64,
            };
            let half = cosines.shape().last().copied().unwrap_or(0);
            let (c, s) = (cosines.as_slice::<N::Weight>()?, sines.as_slice::<N::Weight>()?);
            if s.len() != c.len() || 2 * half > size {
                return Err(OpError::Input(format!(
                    "caches of shapes {:?} and {:?} do not fit heads of {size} elements",
                    cosines.shape(),
                    sines.shape()
                )));
            }
            for (rows, heads) in [(&mut q, self.heads), (&mut k, self.key_heads)] {
                for (at, row) in rows.chunks_mut(size.max(1)).enumerate() {
                    let (b, i) = (at / (heads * positions), at % positions);
                    let from = usize::try_from(position(b, i)).ok().and_then(|p| p.checked_mul(half));
                    let range = from.and_then(|f| Some(f..f.checked_add(half)?)).filter(|r| r.end <= c.len());
                    let Some(range) = range else {
                        return Err(OpError::Input(format!(
                            "position {} reaches outside the {} rows of the caches",
                            position(b, i),
                            cosines.shape().first().unwrap_or(&0)
                        )));
                    };
                    turn::<N>(&mut row[..2 * half], &c[range.clone()], &s[range], interleaved);
                }
            }
        }
        let cache = |index: usize, new: &[N], name: &str| -> Result<Vec<N>, OpError> {
            let zero = N::exact(N::Weight::ZERO);
            let mut out = vec![zero; isotrace_tensor::element_count(&[batch, self.key_heads, keys, size])?];
            let old = call.get(index).map(Tensor::as_slice::<N::Weight>).transpose()?.unwrap_or_default();
            if old.len() != batch * self.key_heads * room * size {
                return Err(OpError::Input(format!(
                    "{name} does not hold [{batch}, {}, {room}, {size}] numbers",
                    self.key_heads
                )));
            }
            for (plane, out) in out.chunks_mut((keys * size).max(1)).enumerate() {
                let p = past[plane / self.key_heads];
                let kept = &old[plane * room * size..][..p * size];
                out.iter_mut().zip(kept).for_each(|(o, &x)| *o = N::exact(x));
                let fresh = &new[plane * positions * size..(plane + 1) * positions * size];
                out[p * size..(p + positions) * size].copy_from_slice(fresh);
            }
            Ok(out)
        };
        let (k, v) = (cache(3, &k, "past_key")?, cache(4, &v, "past_value")?);
        let bias = call.get(10).map(Tensor::view::<N::Weight>).transpose()?;
        // The bias covers the positions in use; what the cache has beyond them is not looked at.
        let bias = bias
            .map(|b| {
                let mut shape = b.shape().to_vec();
                let Some(width) = shape.last_mut().filter(|w| **w < keys && **w > 1) else {
                    return Ok::<_, OpError>((shape, b.to_vec()));
                };
                let old = std::mem::replace(width, keys);
                let mut out = Vec::with_capacity(isotrace_tensor::element_count(&shape)?);
                for row in b.to_vec().chunks(old) {
                    out.extend_from_slice(row);
                    out.extend(std::iter::repeat_n(N::Weight::ZERO, keys - old));
                }
                Ok((shape, out))
            })
            .transpose()?;
        let sink: Option<Vec<N::Weight>> = match call.get(11) {
            Some(sink) => Some(sink.as_slice::<N::Weight>()?.to_vec()),
            None => self.smooth.then(|| vec![N::Weight::ZERO; self.heads]),
        };
        if let Some(sink) = sink.as_ref().filter(|s| s.len() != self.heads) {
            return Err(OpError::Input(format!(
                "head_sink holds {} numbers, expected {}",
                sink.len(),
                self.heads
            )));
        }
        let visible = |b: usize, i: usize| {
            if !self.causal {
                return (0, past[b] + positions);
            }
            let high = past[b] + i + 1;
            (self.window.map_or(0, |w| high.saturating_sub(w)), high)
        };
        let sizes = Sizes {
            batch,
            heads: self.heads,
            key_heads: self.key_heads,
            queries: positions,
            keys,
            size,
            value_size: size,
        };
        let scoring = Scoring {
            scale: self.scale.unwrap_or(1.0 / (size as f64).sqrt()),
            softcap: self.softcap,
            bias: bias.as_ref().map(|(shape, data)| View::new(data, shape)),
            mask: None,
            visible: &visible,
            sink: sink.as_deref(),
            scores: None,
        };
        let (out, _) = attend(&q, &k, &v, sizes, &scoring)?;
        let joined = join_heads(&out, batch, self.heads, positions, size);
        let cached = vec![batch, self.key_heads, keys, size];
        let mut outputs =
            vec![(vec![batch, positions, self.heads * size], joined), (cached.clone(), k), (cached, v)];
        outputs.truncate(call.outputs.max(1));
        Ok(outputs)
    }
}

impl Operator for GroupQuery {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let query = call.need(0, "query")?;
        for_float!(query.dtype(), "query", T => tensors(self.compute::<T>(call)?))
    }

    fn budget(&self, call: &Call<'_>, index: usize, _: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        budget_of(&self.compute::<Spread>(call)?, index, unit)
    }
}
