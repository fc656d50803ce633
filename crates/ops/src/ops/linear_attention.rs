//! `LinearAttention`: attention as a recurrence over a state of keys by values, with decay, the delta rule, or both
//! (Katharopoulos et al. 2020; Schlag et al. 2021; Yang et al. 2024).
//!
//! Queries are [B, T, Hq * dk], keys [B, T, H * dk], values [B, T, H * dv], the state [B, H, dk, dv]; the decay (in log
//! space) [B, T, H * dk] or [B, T, H], the update rate beta [B, T, H] or [B, T, 1]. With S the state:
//!
//! `S' = exp(g) S`, `S = S' + beta k (v - S'^T k)^T` by the delta rule, else `S = S' + k v^T`; `o = scale S^T q`.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::budget::{Budget, Unit};
use crate::moves::room;
use crate::spread::{Number, Outputs, Spread, budget_of, tensors};
use crate::{Call, Float, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct LinearAttention {
    heads: usize,
    key_heads: usize,
    scale: Option<f64>,
    decays: bool,
    delta: bool,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let heads = |name: &str| {
        let found = attributes::int(node, name)?;
        found
            .and_then(|h| usize::try_from(h).ok())
            .filter(|&h| h > 0)
            .ok_or_else(|| OpError::Setting(format!("{name} is {found:?}, it must be there and positive")))
    };
    let (decays, delta) = match attributes::text_or(node, "update_rule", "gated_delta")?.as_str() {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        other => {
            return Err(OpError::Setting(format!(
                "update_rule {other:?} is unknown; expected linear, gated, delta or gated_delta"
            )));
        }
    };
    let (heads, key_heads) = (heads("q_num_heads")?, heads("kv_num_heads")?);
    if heads % key_heads != 0 {
        return Err(OpError::Setting(format!(
            "q_num_heads {heads} must be a multiple of kv_num_heads {key_heads}"
        )));
    }
    let scale = attributes::float_or(node, "scale", 0.0)?;
    Ok(Box::new(LinearAttention {
        heads,
        key_heads,
        scale: (scale != 0.0).then_some(scale.into()),
        decays,
        delta,
    }))
}

impl LinearAttention {
    fn compute<N: Number>(&self, call: &Call<'_>) -> Result<Outputs<N>, OpError> {
        let (q, k, v) = (call.need(0, "query")?, call.need(1, "key")?, call.need(2, "value")?);
        let (past, decay, beta) = (call.get(3), call.get(4), call.get(5));
        let (h, hq) = (self.key_heads, self.heads);
        let misfit = || {
            OpError::Input(format!(
                "query {:?}, key {:?}, value {:?}, past_state {:?}, decay {:?} and beta {:?} do not go together with \
                 {hq} heads of queries and {h} of keys",
                q.shape(),
                k.shape(),
                v.shape(),
                past.map(Tensor::shape),
                decay.map(Tensor::shape),
                beta.map(Tensor::shape)
            ))
        };
        let (&[batch, time, wide], &[kb, kt, keys], &[vb, vt, values]) = (q.shape(), k.shape(), v.shape())
        else {
            return Err(misfit());
        };
        let (dk, dv) = (wide / hq, values / h);
        let wide_decay = decay.is_some_and(|d| d.shape() == [batch, time, keys]);
        let fits = (kb, kt) == (batch, time)
            && (vb, vt) == (batch, time)
            && (wide, keys, values) == (dk * hq, dk * h, dv * h)
            && past.is_none_or(|p| p.shape() == [batch, h, dk, dv])
            && decay.is_none_or(|d| wide_decay || d.shape() == [batch, time, h])
            && beta.is_none_or(|b| b.shape() == [batch, time, h] || b.shape() == [batch, time, 1]);
        if !fits {
            return Err(misfit());
        }
        let decay = if self.decays { Some(call.need(4, "decay")?.as_slice::<N::Weight>()?) } else { None };
        let (beta, shared) = match self.delta.then(|| call.need(5, "beta")).transpose()? {
            Some(beta) => (Some(beta.as_slice::<N::Weight>()?), beta.shape()[2] == 1),
            None => (None, true),
        };
        let (q, k, v) = (q.as_slice::<N::Weight>()?, k.as_slice::<N::Weight>()?, v.as_slice::<N::Weight>()?);
        let exact = |x: &N::Weight| N::exact(*x);
        let zero = N::exact(<N::Weight as Float>::ZERO);
        let minus = N::exact(-<N::Weight as Float>::ONE);
        let scale = N::exact(<N::Weight as Float>::of(self.scale.unwrap_or(1.0 / (dk as f64).sqrt())));
        // Without a single step both may still be large.
        let mut state = room::<N>(&[batch, h, dk, dv])?;
        match past {
            Some(past) => state.extend(past.as_slice::<N::Weight>()?.iter().map(exact)),
            None => state.resize(batch * h * dk * dv, zero),
        }
        let mut out = room::<N>(&[batch, time, hq, dv])?;
        out.resize(batch * time * hq * dv, zero);
        let (mut row, mut sum) = (vec![zero; dv], vec![zero; dv]);
        // S^T x for x over the keys.
        let read = |state: &[N], x: &dyn Fn(usize) -> N, sum: &mut [N]| {
            sum.fill(zero);
            for (i, row) in state.chunks(dv.max(1)).enumerate() {
                let x = x(i);
                sum.iter_mut().zip(row).for_each(|(sum, s)| *sum = sum.plus(s.times(x)));
            }
        };
        for b in 0..batch {
            for head in 0..h {
                let state = &mut state[(b * h + head) * dk * dv..][..dk * dv];
                for at in b * time..(b + 1) * time {
                    let key = &k[(at * h + head) * dk..][..dk];
                    if let Some(decay) = decay {
                        for (i, row) in state.chunks_mut(dv.max(1)).enumerate() {
                            let g = if wide_decay {
                                decay[(at * h + head) * dk + i]
                            } else {
                                decay[at * h + head]
                            };
                            let g = N::exact(g).exponential();
                            for s in row {
                                *s = s.times(g);
                            }
                        }
                    }
                    row.iter_mut().zip(&v[(at * h + head) * dv..]).for_each(|(row, v)| *row = exact(v));
                    if let Some(beta) = beta {
                        read(state, &|i| exact(&key[i]), &mut sum);
                        let beta = exact(&beta[if shared { at } else { at * h + head }]);
                        for (row, sum) in row.iter_mut().zip(&sum) {
                            *row = row.plus(sum.times(minus)).times(beta);
                        }
                    }
                    for (state, key) in state.chunks_mut(dv.max(1)).zip(key) {
                        let key = exact(key);
                        state.iter_mut().zip(&row).for_each(|(s, v)| *s = s.plus(key.times(*v)));
                    }
                    for query in head * (hq / h)..(head + 1) * (hq / h) {
                        let from = &q[(at * hq + query) * dk..][..dk];
                        read(state, &|i| exact(&from[i]), &mut sum);
                        let out = &mut out[(at * hq + query) * dv..][..dv];
                        out.iter_mut().zip(&sum).for_each(|(out, sum)| *out = sum.times(scale));
                    }
                }
            }
        }
        Ok(vec![(vec![batch, time, hq * dv], out), (vec![batch, h, dk, dv], state)])
    }
}

impl Operator for LinearAttention {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        for_float!(call.need(0, "query")?.dtype(), "query", T => tensors(self.compute::<T>(call)?))
    }

    fn budget(&self, call: &Call<'_>, index: usize, _: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        budget_of(&self.compute::<Spread>(call)?, index, unit)
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::{Attribute, Node};

    use crate::testing::{counting, node, run, run_optional, tensor};

    fn attention(rule: &str) -> Node {
        let text = Attribute::Bytes(rule.into());
        let heads = [("q_num_heads", Attribute::Int(2)), ("kv_num_heads", Attribute::Int(1))];
        let mut set = heads.to_vec();
        set.extend([("update_rule", text), ("scale", Attribute::Float(1.0))]);
        node("LinearAttention", 27, &set)
    }

    #[test]
    fn rules_worked_out_by_hand() {
        // One key and one value dimension, two steps: k = 2, 1; v = 3, 5; q = 1 and 10.
        let q = tensor(&[1, 2, 2], &[1f32, 10., 1., 10.]);
        let (k, v) = (tensor(&[1, 2, 1], &[2f32, 1.]), tensor(&[1, 2, 1], &[3f32, 5.]));
        let half = tensor(&[1, 2, 1], &[0.5f32.ln(); 2]);
        let beta = tensor(&[1, 2, 1], &[0.5f32; 2]);
        for (rule, states) in [
            ("linear", [6., 11.]),
            ("gated", [6., 3. + 5.]),
            // 0 + 0.5 * 2 * (3 - 0) = 3; 3 + 0.5 (5 - 3) = 4.
            ("delta", [3., 4.]),
            // 3; 1.5 + 0.5 (5 - 1.5) = 3.25.
            ("gated_delta", [3., 3.25]),
        ] {
            let out = run_optional(
                &attention(rule),
                &[Some(&q), Some(&k), Some(&v), None, Some(&half), Some(&beta)],
            )
            .unwrap();
            let expected = [states[0], 10. * states[0], states[1], 10. * states[1]];
            assert_eq!(out[0].as_slice::<f32>().unwrap(), expected, "{rule}");
            assert_eq!(out[1].as_slice::<f32>().unwrap(), [states[1]], "{rule}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (q, k) = (counting(&[1, 2, 4]), counting(&[1, 2, 2]));
        assert!(run(&attention("linear"), &[&q, &k, &k]).is_ok());
        assert!(run(&attention("gated"), &[&q, &k, &k]).is_err());
        assert!(run(&attention("linear"), &[&q, &k, &counting(&[1, 3, 2])]).is_err());
        assert!(run(&attention("linear"), &[&q, &k, &k, &counting(&[1, 1, 2, 3])]).is_err());
        assert_eq!(
            run(&attention("linear"), &[&counting(&[0, 2, 4]), &counting(&[0, 2, 2]), &counting(&[0, 2, 2])])
                .unwrap()[0]
                .len(),
            0
        );
    }
}
