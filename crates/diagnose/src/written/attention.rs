//! Attentions, written out: heads taken apart, scores, their scale, cap and mask, softmax, and the heads together again.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::{DType, Tensor};

use super::rotary::{self, Turn};
use super::writer::Writer;

/// A value by heads, with its shape: batch, heads, positions, size of a head.
type ByHeads = (ValueId, [usize; 4]);

/// Queries, keys and values, and what is done with their products.
struct Apart {
    q: ByHeads,
    k: ByHeads,
    v: ByHeads,
    scale: Option<f64>,
    softcap: f64,
    /// How many keys lie before the first query, where no query sees what comes after it; and how many it sees at most.
    causal: Option<(usize, Option<usize>)>,
    /// What is added to the scores; truth values hide where they are false.
    bias: Option<ValueId>,
}

/// ONNX's operator, from version 23 on.
pub fn onnx(w: &mut Writer<'_>) -> Option<()> {
    let windowed = ["left_window_size", "right_window_size"].iter().any(|name| w.int(name, -1) >= 0);
    if w.read(6).is_some() || w.named(3) || windowed {
        return None;
    }
    let count = |w: &Writer<'_>, name| usize::try_from(w.int(name, 0)).ok();
    let (heads, key_heads) = (count(w, "q_num_heads")?, count(w, "kv_num_heads")?);
    let flat = w.shape(0)?.len() == 3;
    let q = by_heads(w, 0, heads)?;
    let (mut k, mut v) = (by_heads(w, 1, key_heads)?, by_heads(w, 2, key_heads)?);
    let mut before = 0;
    if let (Some(past_k), Some(past_v)) = (w.read(4), w.read(5)) {
        let along = [("axis", Attribute::Int(2))];
        before = *w.tensor(past_k)?.shape().get(2)?;
        k.0 = w.part("Concat", &[past_k, k.0], &along, "keys");
        v.0 = w.part("Concat", &[past_v, v.0], &along, "values");
        k.1[2] += before;
        v.1[2] += before;
    }
    w.hand_on(1, k.0);
    w.hand_on(2, v.0);
    let causal = (w.int("is_causal", 0) != 0).then_some((before, None));
    let (scale, softcap) = (w.float("scale"), w.float("softcap").unwrap_or(0.0));
    let apart = Apart { q, k, v, scale, softcap, causal, bias: w.read(3) };
    let y = attended(w, &apart)?;
    let y = if flat { joined(w, y) } else { y.0 };
    w.hand_on(0, y);
    Some(())
}

/// com.microsoft's MultiHeadAttention on queries, keys and values apart, without a cache.
pub fn many_heads(w: &mut Writer<'_>) -> Option<()> {
    if (6..w.node.inputs.len()).any(|i| w.read(i).is_some()) || (1..w.node.outputs.len()).any(|i| w.named(i))
    {
        return None;
    }
    let heads = usize::try_from(w.int("num_heads", 0)).ok()?;
    let hidden = *w.shape(0)?.get(2).filter(|_| w.shape(0).is_some_and(|s| s.len() == 3))?;
    let mut parts = [w.read(0)?, w.read(1)?, w.read(2)?];
    if let Some(bias) = w.read(3) {
        let all = w.tensor(bias)?.len();
        let sizes = [hidden, hidden, all.checked_sub(2 * hidden)?];
        for (i, b) in split(w, bias, 0, &sizes).into_iter().enumerate() {
            parts[i] = w.part("Add", &[parts[i], b], &[], ["query bias", "key bias", "value bias"][i]);
        }
    }
    let lengths = [w.shape(0)?, w.shape(1)?, w.shape(2)?].map(<[usize]>::to_vec);
    let causal = (w.int("unidirectional", 0) != 0).then_some(0);
    plain(w, parts, &lengths, heads, 4, 5, causal)
}

/// com.microsoft's Attention: one product for queries, keys and values.
pub fn packed(w: &mut Writer<'_>) -> Option<()> {
    if w.read(4).is_some() || w.read(6).is_some() || (1..w.node.outputs.len()).any(|i| w.named(i)) {
        return None;
    }
    let heads = usize::try_from(w.int("num_heads", 0)).ok()?;
    let (x, weights) = (w.read(0)?, w.read(1)?);
    let [batch, positions, _] = *w.shape(0)? else { return None };
    let all = *w.shape(1)?.get(1)?;
    let sizes: Vec<usize> = match w.node.attributes.get("qkv_hidden_sizes") {
        Some(Attribute::Ints(sizes)) => {
            sizes.iter().map(|&s| usize::try_from(s).ok()).collect::<Option<_>>()?
        }
        _ => vec![all / 3; 3],
    };
    let mut joint = w.part("MatMul", &[x, weights], &[], "product");
    if let Some(bias) = w.read(2) {
        joint = w.part("Add", &[joint, bias], &[], "bias");
    }
    let parts: [ValueId; 3] = split(w, joint, 2, &sizes).try_into().ok()?;
    let lengths: Vec<Vec<usize>> = sizes.iter().map(|&s| vec![batch, positions, s]).collect();
    let causal = (w.int("unidirectional", 0) != 0).then_some(0);
    plain(w, parts, &lengths, heads, 3, 5, causal)
}

/// com.microsoft's GroupQueryAttention on queries, keys and values apart, without a cache, of sequences without padding.
pub fn grouped(w: &mut Writer<'_>) -> Option<()> {
    let cached = |w: &Writer<'_>, i| w.read(i).and_then(|v| w.tensor(v)).is_some_and(|t| !t.is_empty());
    let unknown = (9..w.node.inputs.len()).any(|i| w.read(i).is_some())
        || ["smooth_softmax", "qk_output"].iter().any(|name| w.int(name, 0) != 0);
    if cached(w, 3) || cached(w, 4) || unknown || w.named(3) {
        return None;
    }
    let (heads, key_heads) =
        (usize::try_from(w.int("num_heads", 0)).ok()?, usize::try_from(w.int("kv_num_heads", 0)).ok()?);
    let [batch, queries, _] = *w.shape(0)? else { return None };
    let lengths = w.tensor(w.read(5)?)?.to_i64().ok()?;
    if lengths.iter().any(|&l| l.saturating_add(1) != queries as i64) {
        return None;
    }
    let (mut q, mut k) = (by_heads(w, 0, heads)?, by_heads(w, 1, key_heads)?);
    let v = by_heads(w, 2, key_heads)?;
    if w.int("do_rotary", 0) != 0 {
        let (cosines, sines) = (w.read(7)?, w.read(8)?);
        let half = *w.tensor(cosines)?.shape().last()?;
        let ids = (0..batch * queries).map(|i| (i % queries) as i64).collect();
        let ids = w.constant(Tensor::from_vec(&[batch, queries], ids).ok()?);
        let rows = [("axis", Attribute::Int(0))];
        let tables = (
            w.part("Gather", &[cosines, ids], &rows, "cosines"),
            w.part("Gather", &[sines, ids], &rows, "sines"),
        );
        let interleaved = w.int("rotary_interleaved", 0) != 0;
        for (x, shape) in [&mut q, &mut k] {
            let turn = Turn { x: *x, shape: *shape, heads: 1, tables, half, interleaved };
            *x = rotary::turned(w, &turn)?;
        }
    }
    w.hand_on(1, k.0);
    w.hand_on(2, v.0);
    let window = usize::try_from(w.int("local_window_size", -1)).ok();
    let (scale, softcap) = (w.float("scale").filter(|&s| s != 0.0), w.float("softcap").unwrap_or(0.0));
    let causal = (w.int("causal", 1) != 0).then_some((0, window));
    let y = attended(w, &Apart { q, k, v, scale, softcap, causal, bias: None })?;
    let y = joined(w, y);
    w.hand_on(0, y);
    Some(())
}

/// com.microsoft's attentions once queries, keys and values are there, (batch, positions, hidden) each; `padding` and
/// `bias` are the slots of the mask of keys and of what is added to the scores.
fn plain(
    w: &mut Writer<'_>,
    parts: [ValueId; 3],
    shapes: &[Vec<usize>],
    heads: usize,
    padding: usize,
    bias: usize,
    causal: Option<usize>,
) -> Option<()> {
    let mut apart = Vec::new();
    for (&part, shape) in parts.iter().zip(shapes) {
        apart.push(taken_apart(w, part, shape, heads)?);
    }
    let [q, k, v] = apart[..] else { return None };
    let mut added = w.read(bias);
    if let Some(padding) = w.read(padding) {
        let [_, _] = *w.tensor(padding)?.shape() else { return None };
        let shown = w.part("Cast", &[padding], &[("to", Attribute::Int(BOOL))], "mask");
        let axes = w.ints(&[1, 2]);
        let shown = w.part("Unsqueeze", &[shown, axes], &[], "mask");
        let zero = w.number(0.0)?;
        let hidden = w.number(w.float("mask_filter_value").unwrap_or(-10000.0))?;
        let mask = w.part("Where", &[shown, zero, hidden], &[], "mask");
        added = Some(match added {
            Some(bias) => w.part("Add", &[mask, bias], &[], "mask"),
            None => mask,
        });
    }
    let (scale, causal) = (w.float("scale").filter(|&s| s != 0.0), causal.map(|past| (past, None)));
    let y = attended(w, &Apart { q, k, v, scale, softcap: 0.0, causal, bias: added })?;
    let y = joined(w, y);
    w.hand_on(0, y);
    Some(())
}

/// ONNX's number for truth values.
const BOOL: i64 = 9;

/// What the node reads at `slot` by heads, with its shape.
fn by_heads(w: &mut Writer<'_>, slot: usize, heads: usize) -> Option<ByHeads> {
    let v = w.read(slot)?;
    match *w.shape(slot)? {
        [b, h, s, d] => Some((v, [b, h, s, d])),
        ref shape => taken_apart(w, v, shape, heads),
    }
}

fn taken_apart(w: &mut Writer<'_>, v: ValueId, shape: &[usize], heads: usize) -> Option<ByHeads> {
    let [batch, positions, hidden] = *shape else { return None };
    let size = hidden.checked_div(heads)?;
    let split = w.reshaped(v, &[batch, positions, heads, size]);
    Some((w.turned(split, &[0, 2, 1, 3]), [batch, heads, positions, size]))
}

/// Heads beside each other again: (batch, positions, hidden).
fn joined(w: &mut Writer<'_>, (y, [batch, heads, positions, size]): ByHeads) -> ValueId {
    let y = w.turned(y, &[0, 2, 1, 3]);
    w.reshaped(y, &[batch, positions, heads * size])
}

fn split(w: &mut Writer<'_>, v: ValueId, axis: i64, sizes: &[usize]) -> Vec<ValueId> {
    let mut from = 0;
    let mut parts = Vec::new();
    for &size in sizes {
        let (start, end) = (w.ints(&[from]), w.ints(&[from + size as i64]));
        let along = w.ints(&[axis]);
        parts.push(w.part("Slice", &[v, start, end, along], &[], "part"));
        from += size as i64;
    }
    parts
}

/// `softmax(cap(scale q k^T) + mask) v`, with as many heads and positions as the queries.
fn attended(w: &mut Writer<'_>, h: &Apart) -> Option<ByHeads> {
    let (q, [batch, heads, queries, size]) = h.q;
    let ((mut k, [_, key_heads, keys, _]), (mut v, [.., value_size])) = (h.k, h.v);
    if key_heads != heads {
        let shared = heads.checked_div(key_heads)?;
        let repeat = |w: &mut Writer<'_>, x: ValueId, size: usize| {
            let axis = w.ints(&[2]);
            let x = w.part("Unsqueeze", &[x, axis], &[], "heads");
            let to = [batch, key_heads, shared, keys, size].map(|d| d as i64);
            let to = w.ints(&to);
            let x = w.part("Expand", &[x, to], &[], "heads");
            w.reshaped(x, &[batch, heads, keys, size])
        };
        (k, v) = (repeat(w, k, size), repeat(w, v, value_size));
    }
    let kt = w.turned(k, &[0, 1, 3, 2]);
    let scores = w.part("MatMul", &[q, kt], &[], "scores");
    let scale = w.number(h.scale.unwrap_or(1.0 / (size as f64).sqrt()))?;
    let mut scores = w.part("Mul", &[scores, scale], &[], "scale");
    if h.softcap != 0.0 {
        let cap = w.number(h.softcap)?;
        let share = w.part("Div", &[scores, cap], &[], "softcap");
        let bent = w.part("Tanh", &[share], &[], "softcap");
        scores = w.part("Mul", &[bent, cap], &[], "softcap");
    }
    let scores = masked(w, h, scores)?;
    let shares = w.part("Softmax", &[scores], &[("axis", Attribute::Int(-1))], "softmax");
    let y = w.part("MatMul", &[shares, v], &[], "sum of values");
    Some((y, [batch, heads, queries, value_size]))
}

/// The scores with what is added to them, if anything is.
fn masked(w: &mut Writer<'_>, h: &Apart, scores: ValueId) -> Option<ValueId> {
    let mut mask = match h.bias {
        Some(v) if w.tensor(v).is_some_and(|t| t.dtype() == DType::Bool) => {
            let (zero, hidden) = (w.number(0.0)?, w.number(f64::NEG_INFINITY)?);
            Some(w.part("Where", &[v, zero, hidden], &[], "mask"))
        }
        other => other,
    };
    if let Some((past, window)) = h.causal {
        let (queries, keys) = (h.q.1[2], h.k.1[2]);
        let hidden = |i: usize| {
            let (query, key) = (past + i / keys, i % keys);
            let seen = key <= query && window.is_none_or(|most| query - key < most);
            if seen { 0.0 } else { f64::NEG_INFINITY }
        };
        let all: Vec<f64> = (0..queries * keys).map(hidden).collect();
        let dtype = w.tensor(w.read(0)?)?.dtype();
        let causal = w.constant(Tensor::from_vec(&[queries, keys], all).ok()?.cast(dtype).ok()?);
        mask = Some(match mask {
            Some(given) => w.part("Add", &[given, causal], &[], "mask"),
            None => causal,
        });
    }
    Some(match mask {
        Some(mask) => w.part("Add", &[scores, mask], &[], "mask"),
        None => scores,
    })
}
