//! The table: what each ATen operator is in ONNX's.
//!
//! A rule looks at a [`Call`], adds nodes, and gives one value for each output that they compute; `None` in place of the
//! list makes the call opaque, `None` in it one output. Names are without overloads: a rule asks for the overload where
//! it matters. Meanings are those of ATen's `native_functions.yaml`.

mod attention;
mod backward;
mod distance;
mod elementwise;
mod encoder;
mod functions;
mod index;
mod loss;
mod movement;
mod norm_backward;
mod normalise;
mod optimise;
mod order;
mod pool;
mod product;
mod rearrange;
mod recurrent;
mod reduce;
mod resample;
mod window_backward;

use isotrace_graph::ValueId;
use isotrace_trace::trace::record;

use crate::call::Call;

/// A value for each output.
pub type Results = Option<Vec<Option<ValueId>>>;

type Rule = fn(&mut Call<'_>) -> Results;

const FAMILIES: &[&[(&str, Rule)]] = &[
    attention::RULES,
    backward::RULES,
    distance::RULES,
    elementwise::RULES,
    encoder::RULES,
    functions::RULES,
    index::RULES,
    loss::RULES,
    movement::RULES,
    norm_backward::RULES,
    normalise::RULES,
    optimise::RULES,
    order::RULES,
    pool::RULES,
    product::RULES,
    rearrange::RULES,
    recurrent::RULES,
    reduce::RULES,
    resample::RULES,
    window_backward::RULES,
];

/// Writes a call as nodes.
pub fn lower(call: &mut Call<'_>) -> Results {
    // Nothing here computes with complex numbers.
    if call.is_complex() {
        return None;
    }
    match call.domain() {
        "" if call.operator() == "Identity" => movement::same(call),
        "isotrace" => index::memory(call),
        "aten" | "prims" => {
            let name = call.operator();
            match name.strip_prefix("_foreach_") {
                Some(plain) => optimise::each(call, plain),
                None => rule_of(name)?(call),
            }
        }
        _ => None,
    }
}

/// The operators that have a rule, in order.
pub fn known() -> Vec<&'static str> {
    let mut names: Vec<&str> = FAMILIES.iter().flat_map(|f| f.iter()).map(|(name, _)| *name).collect();
    names.sort_unstable();
    names
}

/// The rule of an operator.
fn rule_of(name: &str) -> Option<Rule> {
    FAMILIES.iter().flat_map(|f| f.iter()).find(|(known, _)| *known == name).map(|(_, rule)| *rule)
}

/// What is drawn at random: nobody else draws the same, so its elements are those that were recorded.
pub fn draws(node: &record::Node) -> bool {
    const NAMES: [&str; 23] = [
        "bernoulli",
        "cauchy",
        "exponential",
        "geometric",
        "inductor_lookup_seed",
        "inductor_random",
        "inductor_randint",
        "inductor_seeds",
        "log_normal",
        "multinomial",
        "normal",
        "normal_functional",
        "poisson",
        "rand",
        "rand_like",
        "randint",
        "randint_like",
        "randn",
        "randn_like",
        "random",
        "randperm",
        "rrelu_with_noise",
        "uniform",
    ];
    NAMES.contains(&node.op.split('.').next().unwrap_or_default().trim_end_matches('_'))
}

/// What depends on no number that the network reads: its elements are those that were recorded, and nothing is opaque.
pub fn makes_constants(node: &record::Node) -> bool {
    const NAMES: [&str; 16] = [
        "arange",
        "empty",
        "empty_like",
        "empty_strided",
        "eye",
        "fill",
        "full",
        "full_like",
        "linspace",
        "new_empty",
        "new_full",
        "new_ones",
        "new_zeros",
        "ones",
        "ones_like",
        "scalar_tensor",
    ];
    const MORE: [&str; 7] = [
        "zero",
        "zeros",
        "zeros_like",
        "new_empty_strided",
        "lift_fresh_copy",
        "tril_indices",
        "triu_indices",
    ];
    let name = node.op.split('.').next().unwrap_or_default().trim_end_matches('_');
    NAMES.contains(&name) || MORE.contains(&name)
}

/// One output.
#[expect(clippy::unnecessary_wraps, reason = "the last word of every lowering, which may fail before it")]
fn one(v: ValueId) -> Results {
    Some(vec![Some(v)])
}
