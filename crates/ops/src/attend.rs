//! Scaled dot-product attention, written once over [`Number`]: plain floats for the values, numbers that carry their
//! spread for the budgets.
//!
//! Q is (batch, query heads, queries, head size), K (batch, key heads, keys, head size), V (batch, key heads, keys,
//! value size); each key head serves the same number of query heads. Scores are scaled, capped, masked and made
//! probabilities; a query that may look at no key gets zeros.

use isotrace_tensor::{Bool, View, element_count};
use rayon::prelude::*;

use crate::activation::Activation;
use crate::spread::Number;
use crate::{Float, OpError};

/// Sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Sequences.
    pub batch: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub key_heads: usize,
    /// Queries a sequence.
    pub queries: usize,
    /// Keys a sequence, padding included.
    pub keys: usize,
    /// Elements of a query or key.
    pub size: usize,
    /// Elements of a value.
    pub value_size: usize,
}

/// At which point scores are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// After the scale.
    Scaled,
    /// After the cap.
    Capped,
    /// After the mask.
    Masked,
    /// After softmax.
    Probabilities,
}

/// What happens to the scores.
pub struct Scoring<'a, T> {
    /// Factor on the product of query and key.
    pub scale: f64,
    /// c tanh(s / c) where c is not 0.
    pub softcap: f64,
    /// Added, broadcast to (batch, heads, queries, keys).
    pub bias: Option<View<'a, T>>,
    /// False shuts a key off, broadcast as `bias`.
    pub mask: Option<View<'a, Bool>>,
    /// The keys a query of a sequence may look at: (sequence, query) to first and one past the last.
    pub visible: &'a (dyn Fn(usize, usize) -> (usize, usize) + Sync),
    /// An extra logit a head that takes probability and gives nothing.
    pub sink: Option<&'a [T]>,
    /// Whether scores are wanted, and which.
    pub scores: Option<Stage>,
}

/// The outputs (batch, heads, queries, value size), and the scores (batch, heads, queries, keys) where asked for.
pub fn attend<N: Number>(
    q: &[N],
    k: &[N],
    v: &[N],
    sizes: Sizes,
    scoring: &Scoring<'_, N::Weight>,
) -> Result<(Vec<N>, Vec<N>), OpError> {
    let Sizes { batch, heads, key_heads, queries, keys, size, value_size } = sizes;
    if key_heads == 0 || heads % key_heads != 0 {
        return Err(OpError::Input(format!(
            "{heads} query heads cannot share {key_heads} key heads evenly; expected a multiple"
        )));
    }
    let zero = N::exact(N::Weight::ZERO);
    element_count(&[batch, heads, queries, keys])?;
    let mut out = vec![zero; element_count(&[batch, heads, queries, value_size])?];
    let wanted = if scoring.scores.is_some() { batch * heads * queries * keys } else { 0 };
    let mut handed = vec![zero; wanted];
    let shape = [batch, heads, queries, keys];
    let bias = scoring.bias.as_ref().map(|b| b.broadcast(&shape)).transpose()?;
    let mask = scoring.mask.as_ref().map(|m| m.broadcast(&shape)).transpose()?;

    let one = |head: usize, out: &mut [N], handed: Option<&mut [N]>| {
        let (b, h) = (head / heads, head % heads);
        let shared = b * key_heads + h / (heads / key_heads);
        let q = &q[head * queries * size..(head + 1) * queries * size];
        let k = &k[shared * keys * size..(shared + 1) * keys * size];
        let v = &v[shared * keys * value_size..(shared + 1) * keys * value_size];
        let mut scores = Vec::new();
        N::pair(q, k, (1, size), (queries, size, keys), &mut scores);
        let mut handed = handed;
        let mut hand = |stage: Stage, scores: &[N]| {
            if let Some(handed) = handed.as_deref_mut().filter(|_| scoring.scores == Some(stage)) {
                handed.copy_from_slice(scores);
            }
        };
        if scoring.scale != 1.0 {
            let scale = N::exact(N::Weight::of(scoring.scale));
            for s in &mut scores {
                *s = s.times(scale);
            }
        }
        hand(Stage::Scaled, &scores);
        if scoring.softcap != 0.0 {
            let cap = Activation::ScaledTanh(scoring.softcap, 1.0 / scoring.softcap);
            for s in &mut scores {
                *s = s.activate(cap);
            }
        }
        hand(Stage::Capped, &scores);
        let shut = N::exact(-N::Weight::INFINITY);
        for (i, row) in scores.chunks_mut(keys.max(1)).enumerate() {
            let at = |v: &[usize]| b * v[0] + h * v[1] + i * v[2];
            if let Some(bias) = &bias {
                let (start, step) = (at(bias.strides()), bias.strides()[3]);
                for (j, s) in row.iter_mut().enumerate() {
                    let bias = bias.data()[start + j * step];
                    // A key shut off stays so whatever its score is, NaN included.
                    *s = if bias == -N::Weight::INFINITY { shut } else { s.plus(N::exact(bias)) };
                }
            }
            if let Some(mask) = &mask {
                let (start, step) = (at(mask.strides()), mask.strides()[3]);
                for (j, s) in row.iter_mut().enumerate() {
                    if !mask.data()[start + j * step].get() {
                        *s = shut;
                    }
                }
            }
            let (low, high) = (scoring.visible)(b, i);
            let (low, high) = (low.min(keys), high.clamp(low.min(keys), keys));
            row[..low].fill(shut);
            row[high..].fill(shut);
        }
        hand(Stage::Masked, &scores);
        for row in scores.chunks_mut(keys.max(1)) {
            N::softmax(row, scoring.sink.map(|s| s[h]));
        }
        hand(Stage::Probabilities, &scores);
        let mut result = Vec::new();
        // A value that no query looks at must not reach the output, not even as 0 times NaN.
        let dead = |j: usize| scores.iter().skip(j).step_by(keys).all(|p| p.value() == N::Weight::ZERO);
        let poisoned = !v.iter().all(|x| x.value().abs() < N::Weight::INFINITY);
        if poisoned {
            let mut v = v.to_vec();
            for (j, v) in v.chunks_mut(value_size.max(1)).enumerate() {
                if dead(j) {
                    v.fill(zero);
                }
            }
            N::pair(&scores, &v, (value_size, 1), (queries, keys, value_size), &mut result);
        } else {
            N::pair(&scores, v, (value_size, 1), (queries, keys, value_size), &mut result);
        }
        out.copy_from_slice(&result);
    };
    if out.is_empty() && handed.is_empty() {
        return Ok((out, handed));
    }
    let (wide, tall) = ((queries * value_size).max(1), (queries * keys).max(1));
    // Few elements: waking threads costs more than the work.
    let parallel = batch * heads * queries * keys * (size + value_size) >= 1 << 17;
    match (parallel, wanted > 0 && !out.is_empty()) {
        (true, false) => out.par_chunks_mut(wide).enumerate().for_each(|(i, out)| one(i, out, None)),
        (true, true) => out
            .par_chunks_mut(wide)
            .zip(handed.par_chunks_mut(tall))
            .enumerate()
            .for_each(|(i, (out, handed))| one(i, out, Some(handed))),
        (false, false) => out.chunks_mut(wide).enumerate().for_each(|(i, out)| one(i, out, None)),
        (false, true) => {
            for (i, (out, handed)) in out.chunks_mut(wide).zip(handed.chunks_mut(tall)).enumerate() {
                one(i, out, Some(handed));
            }
        }
    }
    Ok((out, handed))
}

/// Moves a tensor (batch, positions, heads * size) to (batch, heads, positions, size).
pub fn split_heads<N: Copy + Send + Sync>(
    x: &[N],
    batch: usize,
    positions: usize,
    heads: usize,
    size: usize,
) -> Vec<N> {
    View::new(x, &[batch, positions, heads, size]).permute(&[0, 2, 1, 3]).to_vec()
}

/// Moves a tensor (batch, heads, positions, size) to (batch, positions, heads * size).
pub fn join_heads<N: Copy + Send + Sync>(
    x: &[N],
    batch: usize,
    heads: usize,
    positions: usize,
    size: usize,
) -> Vec<N> {
    View::new(x, &[batch, heads, positions, size]).permute(&[0, 2, 1, 3]).to_vec()
}

/// Joins past (planes, past, size) and new (planes, new, size) along the positions.
pub fn append<N: Copy>(past: &[N], new: &[N], planes: usize, size: usize) -> Vec<N> {
    if planes == 0 || past.is_empty() {
        return new.to_vec();
    }
    let (p, n) = (past.len() / planes, new.len() / planes);
    debug_assert_eq!((p + n) % size.max(1), 0);
    let mut out = Vec::with_capacity(past.len() + new.len());
    for i in 0..planes {
        out.extend_from_slice(&past[i * p..(i + 1) * p]);
        out.extend_from_slice(&new[i * n..(i + 1) * n]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes =
        Sizes { batch: 1, heads: 2, key_heads: 1, queries: 2, keys: 3, size: 1, value_size: 1 };

    fn scoring(visible: &(dyn Fn(usize, usize) -> (usize, usize) + Sync)) -> Scoring<'_, f64> {
        Scoring { scale: 1.0, softcap: 0.0, bias: None, mask: None, visible, sink: None, scores: None }
    }

    #[test]
    fn equal_scores_average_the_visible_values() {
        let (q, k, v) = ([0.0; 4], [1.0, 2.0, 3.0], [3.0, 5.0, f64::NAN]);
        let visible = |_: usize, i: usize| (0, i + 1);
        let (out, _) = attend::<f64>(&q, &k, &v, SIZES, &scoring(&visible)).unwrap();
        assert_eq!(out, [3.0, 4.0, 3.0, 4.0]);
    }

    #[test]
    fn a_query_without_keys_gets_zeros_and_a_sink_takes_its_share() {
        let (q, k, v) = ([0.0; 4], [0.0; 3], [1.0, 1.0, 1.0]);
        let visible = |_: usize, i: usize| if i == 0 { (2, 1) } else { (0, 3) };
        let mut s = scoring(&visible);
        s.scores = Some(Stage::Probabilities);
        let (out, p) = attend::<f64>(&q, &k, &v, SIZES, &s).unwrap();
        assert_eq!(out[0], 0.0);
        assert!(p[..3].iter().all(|&p| p == 0.0) && (out[1] - 1.0).abs() < 1e-15);
        let sink = [0.0, f64::NEG_INFINITY];
        s.sink = Some(&sink);
        let (out, _) = attend::<f64>(&q, &k, &v, SIZES, &s).unwrap();
        assert!((out[1] - 0.75).abs() < 1e-15 && (out[3] - 1.0).abs() < 1e-15, "{out:?}");
    }

    #[test]
    fn heads_must_share_evenly() {
        let visible = |_: usize, _: usize| (0, 3);
        let sizes = Sizes { heads: 3, key_heads: 2, ..SIZES };
        assert!(attend::<f64>(&[0.0; 6], &[0.0; 6], &[0.0; 6], sizes, &scoring(&visible)).is_err());
    }

    #[test]
    fn pasts_come_first_in_every_plane() {
        assert_eq!(append(&[1, 2], &[5, 6, 7, 8], 2, 1), [1, 5, 6, 2, 7, 8]);
        assert_eq!(append(&[], &[5, 6], 2, 1), [5, 6]);
    }
}
