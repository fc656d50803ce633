//! Scaled dot-product attention in its fused forms: one node, so that what was recorded is judged by the budget of the
//! whole. The operators differ in where the mask stands and in what they give besides (log-sum-exps, seeds), which is
//! opaque.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::{DType, Tensor};

use super::movement::{reshaped, sizes};
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_scaled_dot_product_attention_math", |c| attention(c, Some(3))),
    ("_scaled_dot_product_cudnn_attention", |c| attention(c, Some(3))),
    ("_scaled_dot_product_efficient_attention", |c| attention(c, Some(3))),
    ("_scaled_dot_product_efficient_attention_backward", |c| attention_backward(c, Some(4), 5)),
    ("_scaled_dot_product_flash_attention", |c| attention(c, None)),
    ("_scaled_dot_product_flash_attention_backward", |c| attention_backward(c, None, 4)),
    ("_scaled_dot_product_flash_attention_for_cpu", |c| attention(c, Some(3))),
    ("_scaled_dot_product_flash_attention_for_cpu_backward", |c| attention_backward(c, Some(6), 4)),
    ("scaled_dot_product_attention", |c| attention(c, Some(3))),
];

fn attention(c: &mut Call<'_>, mask: Option<usize>) -> Results {
    if c.number("dropout_p").unwrap_or(0.0) != 0.0 {
        return None;
    }
    // ONNX knows heads only where there are four axes.
    if (0..3).any(|at| c.rank(at) != Some(4)) {
        return None;
    }
    let mask: Option<ValueId> = mask.and_then(|at| c.input(at));
    let mut settings = vec![("is_causal", Attribute::Int(i64::from(c.flag("is_causal"))))];
    if let Some(scale) = c.number("scale") {
        settings.push(("scale", Attribute::Float(scale as f32)));
    }
    let inputs = [c.input(0), c.input(1), c.input(2), mask];
    let count = if mask.is_some() { 4 } else { 3 };
    let y = c.typed(c.dtype(0)?, "Attention", &inputs[..count], &settings);
    // Nobody needs the log-sum-exps that kernels keep for the way back; but those that were not stored have to come from
    // somewhere.
    let (queries, keys) = (c.shape(0)?[1], c.shape(1)?[1]);
    if c.result(1).is_some() && !c.keeps(1) && queries == keys {
        let (q, k) = (c.wide(0)?, c.wide(1)?);
        let scores = scores(c, q, k, mask.is_some().then_some(3), 0)?;
        let sums = c.over("ReduceLogSumExp", scores, &[-1], false);
        return Some(vec![Some(y), Some(c.as_result(sums, 1)?)]);
    }
    one(y)
}

fn turned(c: &mut Call<'_>, v: ValueId) -> ValueId {
    c.op("Transpose", &[v], &[("perm", Attribute::Ints(vec![0, 1, 3, 2]))])
}

/// s Q K^T, masked; `first` is the input that holds the queries, the keys follow.
fn scores(c: &mut Call<'_>, q: ValueId, k: ValueId, mask: Option<usize>, first: usize) -> Option<ValueId> {
    let (queries, keys) = (c.shape(first)?.to_vec(), c.shape(first + 1)?.to_vec());
    let scale = c.number("scale").unwrap_or_else(|| (queries[3] as f64).sqrt().recip());
    let kt = turned(c, k);
    let scores = c.matmul(q, kt);
    let mut scores = c.times(scores, scale)?;
    if let Some(at) = mask {
        scores = if c.dtype(at) == Some(DType::Bool) {
            let mask = c.input(at)?;
            let low = c.number_like(f64::NEG_INFINITY, scores)?;
            c.pick(mask, scores, low)
        } else {
            let mask = c.wide(at)?;
            c.add(scores, mask)
        };
    }
    if c.flag("is_causal") {
        let (rows, columns) = (queries[2], keys[2]);
        let seen = (0..rows * columns).map(|i| u8::from(i % columns <= i / columns)).collect::<Vec<_>>();
        let seen = Tensor::from_vec(&[rows, columns], seen).and_then(|t| t.cast(DType::Bool)).ok()?;
        let seen = c.constant(seen);
        let low = c.number_like(f64::NEG_INFINITY, scores)?;
        scores = c.pick(seen, scores, low);
    }
    Some(scores)
}

/// With P the softmax of the scores S = s Q K^T + mask, O = P V and g the gradient of O: dV = P^T g,
/// dS = P (g V^T - rowsum(g O)), dQ = s dS K, dK = s dS^T Q. Kernels find P anew from the log-sum-exps that they kept.
fn attention_backward(c: &mut Call<'_>, mask: Option<usize>, out: usize) -> Results {
    let plain = c.number("dropout_p").unwrap_or(0.0) == 0.0 && (0..4).all(|at| c.rank(at) == Some(4));
    let (queries, keys) = (c.shape(1)?.to_vec(), c.shape(2)?.to_vec());
    if !plain || keys[1] == 0 || queries[1] % keys[1] != 0 {
        return None;
    }
    let values = c.shape(3)?.to_vec();
    let groups = queries[1] / keys[1];
    let (g, q, k, v, o) = (c.wide(0)?, c.wide(1)?, c.wide(2)?, c.wide(3)?, c.wide(out)?);
    let (k, v) = (repeated(c, k, &keys, groups), repeated(c, v, &values, groups));
    let scale = c.number("scale").unwrap_or_else(|| (queries[3] as f64).sqrt().recip());
    let mask = mask.filter(|&at| c.input(at).is_some());
    let scores = scores(c, q, k, mask, 1)?;
    let p = c.op("Softmax", &[scores], &[("axis", Attribute::Int(-1))]);
    let pt = turned(c, p);
    let of_v = c.matmul(pt, g);
    let vt = turned(c, v);
    let of_p = c.matmul(g, vt);
    let product = c.mul(g, o);
    let rows = c.over("ReduceSum", product, &[-1], true);
    let rest = c.sub(of_p, rows);
    let of_s = c.mul(p, rest);
    let of_q = c.matmul(of_s, k);
    let of_q = c.times(of_q, scale)?;
    let st = turned(c, of_s);
    let of_k = c.matmul(st, q);
    let of_k = c.times(of_k, scale)?;
    let (of_k, of_v) = (added(c, of_k, &keys, groups), added(c, of_v, &values, groups));
    let mut out = Vec::new();
    for (at, v) in [of_q, of_k, of_v].into_iter().enumerate() {
        out.push(Some(c.as_result(v, at)?));
    }
    Some(out)
}

/// Heads that several queries share, once for each of them.
fn repeated(c: &mut Call<'_>, v: ValueId, shape: &[usize], groups: usize) -> ValueId {
    let &[n, heads, rows, width] = shape else { return v };
    if groups == 1 {
        return v;
    }
    let single = reshaped(c, v, &[n, heads, 1, rows, width]);
    let target = sizes(c, &[n, heads, groups, rows, width]);
    let many = c.op("Expand", &[single, target], &[]);
    reshaped(c, many, &[n, heads * groups, rows, width])
}

/// The gradients of shared heads added up.
fn added(c: &mut Call<'_>, v: ValueId, shape: &[usize], groups: usize) -> ValueId {
    let &[n, heads, rows, width] = shape else { return v };
    if groups == 1 {
        return v;
    }
    let many = reshaped(c, v, &[n, heads, groups, rows, width]);
    c.over("ReduceSum", many, &[2], false)
}
