//! Scaled dot-product attention in its fused forms: one node, so that what was recorded is judged by the budget of the
//! whole. The operators differ in where the mask stands and in what they give besides (log-sum-exps, seeds), which is
//! opaque.

use isotrace_graph::{Attribute, ValueId};

use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_scaled_dot_product_attention_math", |c| attention(c, Some(3))),
    ("_scaled_dot_product_cudnn_attention", |c| attention(c, Some(3))),
    ("_scaled_dot_product_efficient_attention", |c| attention(c, Some(3))),
    ("_scaled_dot_product_flash_attention", |c| attention(c, None)),
    ("_scaled_dot_product_flash_attention_for_cpu", |c| attention(c, Some(3))),
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
    one(c.typed(c.dtype(0)?, "Attention", &inputs[..count], &settings))
}
