//! com.microsoft's Attention and MultiHeadAttention: what ONNX Runtime's optimiser makes of a whole attention block.
//!
//! Attention projects its input with one stacked weight (input size, Q + K + V) and bias; MultiHeadAttention gets queries,
//! keys and values projected, apart or stacked. Both scale, add a mask and a bias, take softmax and apply the values; see
//! [`crate::attend`] for the arithmetic. A mask shuts a key off by `mask_filter_value` (-10000), which softmax turns into 0
//! but in a row whose keys are all shut off.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, View};

use crate::attend::{Scoring, Sizes, Stage, append, attend, join_heads, split_heads};
use crate::budget::{Budget, Unit};
use crate::spread::{Number, Outputs, Spread, budget_of, tensors};
use crate::{Call, Float, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct Attention {
    heads: usize,
    scale: Option<f64>,
    filter: f64,
    causal: bool,
    form: Form,
}

/// Which of the two operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Attention, with the elements of Q, K and V a position where the node says.
    Projects { sizes: Option<[usize; 3]> },
    /// MultiHeadAttention.
    Given,
}

fn parse(node: &Node, form: Form) -> Result<Box<dyn Operator>, OpError> {
    for setting in ["do_rotary", "past_present_share_buffer"] {
        if attributes::flag(node, setting, false)? {
            return Err(OpError::Setting(format!("{setting} is not supported; expected 0")));
        }
    }
    let heads = attributes::int_or(node, "num_heads", 0)?;
    let heads = usize::try_from(heads)
        .ok()
        .filter(|&h| h > 0)
        .ok_or_else(|| OpError::Setting(format!("num_heads is {heads}, expected a positive number")))?;
    Ok(Box::new(Attention {
        heads,
        scale: attributes::float(node, "scale")?.map(f64::from).filter(|&s| s != 0.0),
        filter: attributes::float_or(node, "mask_filter_value", -10000.0)?.into(),
        causal: attributes::flag(node, "unidirectional", false)?,
        form,
    }))
}

/// Parses a node of Attention.
pub fn attention(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let sizes = attributes::ints(node, "qkv_hidden_sizes")?
        .map(|sizes| {
            let found = sizes.clone();
            let sizes: Option<Vec<usize>> = sizes.iter().map(|&s| usize::try_from(s).ok()).collect();
            sizes.and_then(|s| s.try_into().ok()).ok_or_else(|| {
                OpError::Setting(format!("qkv_hidden_sizes is {found:?}, expected three sizes"))
            })
        })
        .transpose()?;
    parse(node, Form::Projects { sizes })
}

/// Parses a node of MultiHeadAttention.
pub fn multi_head(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, Form::Given)
}

/// A shape and as many elements.
type Shaped<T> = (Vec<usize>, Vec<T>);

/// Queries, keys and values: each (batch, heads, positions, size).
struct Heads<N> {
    q: Vec<N>,
    k: Vec<N>,
    v: Vec<N>,
    batch: usize,
    queries: usize,
    keys: usize,
    size: usize,
    value_size: usize,
}

fn exact<N: Number>(t: &Tensor) -> Result<Vec<N>, OpError> {
    Ok(t.as_slice::<N::Weight>()?.iter().map(|&x| N::exact(x)).collect())
}

fn shaped(t: &Tensor, name: &str, expected: &str) -> OpError {
    OpError::Input(format!("{name} has shape {:?}, expected {expected}", t.shape()))
}

/// Adds a vector to each row.
fn add_bias<N: Number>(rows: &mut [N], bias: &[N]) {
    for row in rows.chunks_mut(bias.len().max(1)) {
        for (x, &b) in row.iter_mut().zip(bias) {
            *x = x.plus(b);
        }
    }
}

impl Attention {
    fn per_head(&self, hidden: usize, name: &str) -> Result<usize, OpError> {
        if hidden.is_multiple_of(self.heads) {
            return Ok(hidden / self.heads);
        }
        Err(OpError::Input(format!(
            "{name} has {hidden} elements a position, no multiple of {} heads",
            self.heads
        )))
    }

    /// The operator's own projection.
    fn project<N: Number>(&self, call: &Call<'_>, sizes: Option<[usize; 3]>) -> Result<Heads<N>, OpError> {
        let (x, w) = (call.need(0, "input")?, call.need(1, "weights")?);
        let [batch, positions, hidden] = *x.shape() else { return Err(shaped(x, "input", "three axes")) };
        let [rows, total] = *w.shape() else { return Err(shaped(w, "weights", "two axes")) };
        let sizes = sizes.unwrap_or([total / 3; 3]);
        if rows != hidden || sizes.iter().sum::<usize>() != total || sizes[0] != sizes[1] {
            return Err(OpError::Input(format!(
                "weights {:?} do not fit input {:?} and hidden sizes {sizes:?} of Q, K and V",
                w.shape(),
                x.shape()
            )));
        }
        let mut all = Vec::new();
        N::pair(&exact(x)?, &exact(w)?, (total, 1), (batch * positions, hidden, total), &mut all);
        if let Some(bias) = call.get(2) {
            if bias.len() != total {
                return Err(shaped(bias, "bias", &format!("[{total}]")));
            }
            add_bias(&mut all, &exact::<N>(bias)?);
        }
        let part = |from: usize, width: usize| -> Result<Vec<N>, OpError> {
            let size = self.per_head(width, "the projection")?;
            let rows = all.chunks(total.max(1)).flat_map(|row| row[from..from + width].iter().copied());
            Ok(split_heads(&rows.collect::<Vec<N>>(), batch, positions, self.heads, size))
        };
        Ok(Heads {
            q: part(0, sizes[0])?,
            k: part(sizes[0], sizes[1])?,
            v: part(sizes[0] + sizes[1], sizes[2])?,
            batch,
            queries: positions,
            keys: positions,
            size: self.per_head(sizes[0], "Q")?,
            value_size: self.per_head(sizes[2], "V")?,
        })
    }

    /// Queries, keys and values as they are given: (batch, positions, hidden), stacked (batch, positions, heads, 2 or 3,
    /// size), or keys and values ready (batch, heads, positions, size).
    fn given<N: Number>(&self, call: &Call<'_>) -> Result<Heads<N>, OpError> {
        let query = call.need(0, "query")?;
        // One of the parts of a stacked tensor, as (batch, positions, heads * size).
        let unstack = |t: &Tensor, part: usize| -> Result<Tensor, OpError> {
            let &[b, s, n, parts, h] = t.shape() else {
                return Err(shaped(t, "a stacked input", "five axes"));
            };
            let moved = t.permute(&[3, 0, 1, 2, 4])?;
            let one = b * s * n * h;
            let places: Vec<N::Weight> =
                moved.as_slice::<N::Weight>()?[part * one..(part + 1) * one].to_vec();
            debug_assert!(part < parts);
            Ok(Tensor::from_vec(&[b, s, n * h], places)?)
        };
        let stacked = |t: &Tensor, parts: usize| t.rank() == 5 && t.shape()[3] == parts;
        let (query, key, value) = match (call.get(1), call.get(2)) {
            (None, None) if stacked(query, 3) => (unstack(query, 0)?, unstack(query, 1)?, unstack(query, 2)?),
            (Some(key), None) if stacked(key, 2) => (query.clone(), unstack(key, 0)?, unstack(key, 1)?),
            (Some(key), Some(value)) => (query.clone(), key.clone(), value.clone()),
            _ => return Err(shaped(query, "query", "five axes where no key is given")),
        };
        let [batch, queries, hidden] = *query.shape() else {
            return Err(shaped(&query, "query", "three axes"));
        };
        let size = self.per_head(hidden, "query")?;
        let bias = call.get(3).map(exact::<N>).transpose()?;
        let mut q = exact::<N>(&query)?;
        let mut at = 0;
        let mut with_bias = |rows: &mut [N], width: usize| -> Result<(), OpError> {
            let Some(bias) = &bias else { return Ok(()) };
            let part = bias.get(at..at + width).ok_or_else(|| {
                OpError::Input(format!("bias has {} elements, fewer than Q, K and V together", bias.len()))
            })?;
            add_bias(rows, part);
            at += width;
            Ok(())
        };
        with_bias(&mut q, hidden)?;
        let mut side = |t: &Tensor, name: &str| -> Result<(Vec<N>, usize, usize), OpError> {
            match *t.shape() {
                [b, n, positions, size] if (b, n) == (batch, self.heads) => Ok((exact(t)?, positions, size)),
                [b, positions, width] if b == batch => {
                    let size = self.per_head(width, name)?;
                    let mut rows = exact::<N>(t)?;
                    with_bias(&mut rows, width)?;
                    Ok((split_heads(&rows, batch, positions, self.heads, size), positions, size))
                }
                _ => Err(shaped(t, name, &format!("[{batch}, positions, hidden]"))),
            }
        };
        let (k, keys, key_size) = side(&key, "key")?;
        let (v, values, value_size) = side(&value, "value")?;
        if key_size != size || keys != values {
            return Err(OpError::Input(format!(
                "query {:?}, key {:?} and value {:?} contradict each other",
                query.shape(),
                key.shape(),
                value.shape()
            )));
        }
        let q = split_heads(&q, batch, queries, self.heads, size);
        Ok(Heads { q, k, v, batch, queries, keys, size, value_size })
    }

    /// What the mask and the bias add to the scores, as (batch, 1 or heads, queries, keys).
    fn additive<T: Float>(
        &self,
        mask: Option<&Tensor>,
        bias: Option<&Tensor>,
        (batch, queries, past, keys): (usize, usize, usize, usize),
    ) -> Result<Option<Shaped<T>>, OpError> {
        let filter = T::of(self.filter);
        let masked = mask
            .map(|mask| {
                let values = mask.to_i64()?;
                let at = |open: &dyn Fn(usize, usize, usize) -> bool| {
                    let mut out = Vec::with_capacity(batch * queries * keys);
                    for b in 0..batch {
                        for i in 0..queries {
                            out.extend((0..keys).map(|j| if open(b, i, j) { T::ZERO } else { filter }));
                        }
                    }
                    out
                };
                Ok::<_, OpError>(match *mask.shape() {
                    [n] if n == batch => at(&|b, _, j| (j as i64) < values[b]),
                    [n] if n == 2 * batch => {
                        at(&|b, _, j| (j as i64) < values[b] && (j as i64) >= values[batch + b])
                    }
                    [b, n] if (b, n) == (batch, keys) => at(&|b, _, j| values[b * keys + j] > 0),
                    [b, q, n] if (b, q, n) == (batch, queries, keys) => {
                        at(&|b, i, j| values[(b * queries + i) * keys + j] > 0)
                    }
                    [b, 1, m, n] if b == batch && m >= past + queries && n >= keys => {
                        at(&|b, i, j| values[(b * m + past + i) * n + j] > 0)
                    }
                    _ => {
                        return Err(shaped(
                            mask,
                            "the mask",
                            &format!(
                                "[{batch}], [{}], [{batch}, {keys}] or [{batch}, {queries}, {keys}]",
                                2 * batch
                            ),
                        ));
                    }
                })
            })
            .transpose()?
            .map(|data| (vec![batch, 1, queries, keys], data));
        let Some(bias) = bias else { return Ok(masked) };
        let given = bias.view::<T>()?;
        let Some((shape, mask)) = masked else { return Ok(Some((bias.shape().to_vec(), given.to_vec()))) };
        let (shape, both) = crate::broadcast::zip(&View::new(&mask, &shape), &given, |m, b| m + b)?;
        Ok(Some((shape, both)))
    }

    fn compute<N: Number>(&self, call: &Call<'_>) -> Result<Outputs<N>, OpError> {
        let heads = match self.form {
            Form::Projects { sizes } => self.project::<N>(call, sizes)?,
            Form::Given => self.given::<N>(call)?,
        };
        let projects = self.form != Form::Given;
        let Heads { q, mut k, mut v, batch, queries, keys: new, size, value_size } = heads;
        let planes = batch * self.heads;
        let mut past = 0;
        let mut join = |given: Option<(&Tensor, std::ops::Range<usize>)>, new: &mut Vec<N>, size: usize| {
            let Some((t, part)) = given.filter(|(t, _)| !t.is_empty()) else { return Ok::<_, OpError>(()) };
            let data = exact::<N>(t)?;
            let data = data.get(part).unwrap_or_default();
            past = data.len() / (planes * size).max(1);
            *new = append(data, new, planes, size);
            Ok(())
        };
        let (mask, bias) = if projects {
            // One tensor holds both: (2, batch, heads, past, size).
            let both = call.get(4);
            let half = both.map_or(0, |t| t.len() / 2);
            join(both.map(|t| (t, 0..half)), &mut k, size)?;
            join(both.map(|t| (t, half..2 * half)), &mut v, value_size)?;
            (call.get(3), call.get(5))
        } else {
            join(call.get(6).map(|t| (t, 0..t.len())), &mut k, size)?;
            join(call.get(7).map(|t| (t, 0..t.len())), &mut v, value_size)?;
            (call.get(4), call.get(5))
        };
        let keys = past + new;
        let added = self.additive::<N::Weight>(mask, bias, (batch, queries, past, keys))?;
        let visible = |_: usize, i: usize| (0, if self.causal { past + i + 1 } else { keys });
        let sizes =
            Sizes { batch, heads: self.heads, key_heads: self.heads, queries, keys, size, value_size };
        let scoring = Scoring {
            scale: self.scale.unwrap_or(1.0 / (size as f64).sqrt()),
            softcap: 0.0,
            bias: added.as_ref().map(|(shape, data)| View::new(data, shape)),
            mask: None,
            visible: &visible,
            sink: None,
            scores: (call.outputs > 3).then_some(Stage::Masked),
        };
        let (out, scores) = attend(&q, &k, &v, sizes, &scoring)?;
        let joined = join_heads(&out, batch, self.heads, queries, value_size);
        let mut outputs = vec![(vec![batch, queries, self.heads * value_size], joined)];
        if call.outputs > 1 && projects {
            k.extend(v);
            outputs.push((vec![2, batch, self.heads, keys, size], k));
        } else if call.outputs > 1 {
            outputs.push((vec![batch, self.heads, keys, size], k));
            outputs.push((vec![batch, self.heads, keys, value_size], v));
        }
        if call.outputs > 3 {
            outputs.push((vec![batch, self.heads, queries, keys], scores));
        }
        Ok(outputs)
    }
}

impl Operator for Attention {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let first = call.need(0, "query")?;
        for_float!(first.dtype(), "query", T => tensors(self.compute::<T>(call)?))
    }

    fn budget(&self, call: &Call<'_>, index: usize, _: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        budget_of(&self.compute::<Spread>(call)?, index, unit)
    }
}
