//! PyTorch's fast path: attention with its projections, and a whole layer of a Transformer's encoder, as one call.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::DType;

use super::movement::{permuted, reshaped, sliced};
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_native_multi_head_attention", |c| {
        let queries = c.wide(0)?;
        let (keys, values) = (c.wide(1)?, c.wide(2)?);
        let heads = c.int("num_head")?;
        let lengths = [length(c, 0)?, length(c, 1)?, length(c, 2)?];
        let (y, weights) = attention(c, [queries, keys, values], lengths, heads, [3, 4, 5, 6], 7)?;
        let mut out = vec![Some(c.as_result(y, 0)?)];
        if c.flag("need_weights") && c.result(1).is_some() {
            let averaged = c.int("average_attn_weights") != Some(0);
            let weights = if averaged { c.over("ReduceMean", weights, &[1], false) } else { weights };
            out.push(Some(c.as_result(weights, 1)?));
        }
        Some(out)
    }),
    ("_transformer_encoder_layer_fwd", layer),
];

/// How many tokens an input holds.
fn length(c: &Call<'_>, at: usize) -> Option<usize> {
    c.shape(at)?.get(1).copied()
}

/// x W^T + b.
fn linear(c: &mut Call<'_>, x: ValueId, weight: ValueId, bias: Option<ValueId>) -> ValueId {
    let turned = permuted(c, weight, vec![1, 0]);
    let y = c.matmul(x, turned);
    bias.map_or(y, |bias| c.add(y, bias))
}

/// Queries, keys and values are projected by the thirds of one weight. `places` are the inputs of the call that hold
/// weight and bias of that projection, and of the one behind; `mask` the one that holds what is not to be seen.
fn attention(
    c: &mut Call<'_>,
    from: [ValueId; 3],
    lengths: [usize; 3],
    heads: i64,
    places: [usize; 4],
    mask: usize,
) -> Option<(ValueId, ValueId)> {
    let &[n, tokens, width] = c.shape(0)? else { return None };
    let (width_of, count) = (width as i64, usize::try_from(heads).ok()?);
    let (weight, bias) = (c.wide(places[0])?, c.wide(places[1])?);
    let mut split = Vec::new();
    for (third, x) in from.into_iter().enumerate() {
        let rows = [third as i64 * width_of, (third as i64 + 1) * width_of, 1];
        let (weight, bias) = (sliced(c, weight, 0, rows), sliced(c, bias, 0, rows));
        let y = linear(c, x, weight, Some(bias));
        let y = reshaped(c, y, &[n, lengths[third], count, width.checked_div(count)?]);
        let order = if third == 1 { vec![0, 2, 3, 1] } else { vec![0, 2, 1, 3] };
        split.push(permuted(c, y, order));
    }
    let scale = (width as f64 / heads as f64).sqrt().recip();
    let queries = c.times(split[0], scale)?;
    let mut scores = c.matmul(queries, split[1]);
    if c.input(mask).is_some() {
        // What is not zero hides: of each key (1), of each query and key (0), or of all four axes (2).
        let hidden = c.input_as(mask, DType::Bool)?;
        let shape = c.shape(mask)?.to_vec();
        let hidden = match (c.int("mask_type"), shape.as_slice()) {
            (Some(1), &[n, keys]) => reshaped(c, hidden, &[n, 1, 1, keys]),
            (Some(0), &[_, _]) | (_, &[_, _, _, _]) => hidden,
            _ => return None,
        };
        let low = c.number_like(f64::NEG_INFINITY, scores)?;
        scores = c.pick(hidden, low, scores);
    }
    let weights = c.op("Softmax", &[scores], &[("axis", Attribute::Int(-1))]);
    let y = c.matmul(weights, split[2]);
    let y = permuted(c, y, vec![0, 2, 1, 3]);
    let y = reshaped(c, y, &[n, tokens, width]);
    let (weight, bias) = (c.wide(places[2])?, c.wide(places[3])?);
    Some((linear(c, y, weight, Some(bias)), weights))
}

fn norm(c: &mut Call<'_>, x: ValueId, at: usize) -> Option<ValueId> {
    let (gain, shift) = (c.wide(at)?, c.wide(at + 1)?);
    let epsilon = c.number("eps").unwrap_or(1e-5) as f32;
    let settings = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
    Some(c.op("LayerNormalization", &[x, gain, shift], &settings))
}

/// Attention and a network of two products, each with what it read added to what it gives, and normed before or after.
fn layer(c: &mut Call<'_>) -> Results {
    let (heads, first) = (c.int("num_heads")?, c.flag("norm_first"));
    let x = c.wide(0)?;
    let read = if first { norm(c, x, 5)? } else { x };
    let tokens = length(c, 0)?;
    let (attended, _) = attention(c, [read; 3], [tokens; 3], heads, [1, 2, 3, 4], 13)?;
    let mut x = c.add(x, attended);
    if !first {
        x = norm(c, x, 5)?;
    }
    let read = if first { norm(c, x, 7)? } else { x };
    let (weight, bias) = (c.wide(9)?, c.wide(10)?);
    let inner = linear(c, read, weight, Some(bias));
    let inner = c.op(if c.flag("use_gelu") { "Gelu" } else { "Relu" }, &[inner], &[]);
    let (weight, bias) = (c.wide(11)?, c.wide(12)?);
    let outer = linear(c, inner, weight, Some(bias));
    let mut x = c.add(x, outer);
    if !first {
        x = norm(c, x, 7)?;
    }
    one(c.as_result(x, 0)?)
}
