//! The table: what each ATen operator is in ONNX's.
//!
//! A rule looks at a [`Call`], adds nodes, and gives one value for each output that they compute; `None` in place of the
//! list makes the call opaque, `None` in it one output. Names are without overloads: a rule asks for the overload where
//! it matters. Meanings are those of ATen's `native_functions.yaml`.

mod attention;
mod backward;
mod elementwise;
mod index;
mod movement;
mod normalise;
mod pool;
mod product;
mod reduce;

use isotrace_graph::ValueId;
use isotrace_trace::trace::record;

use crate::call::Call;

/// A value for each output.
pub type Results = Option<Vec<Option<ValueId>>>;

type Rule = fn(&mut Call<'_>) -> Results;

const FAMILIES: &[&[(&str, Rule)]] = &[
    attention::RULES,
    backward::RULES,
    elementwise::RULES,
    index::RULES,
    movement::RULES,
    normalise::RULES,
    pool::RULES,
    product::RULES,
    reduce::RULES,
];

/// Writes a call as nodes.
pub fn lower(call: &mut Call<'_>) -> Results {
    match call.domain() {
        "" if call.operator() == "Identity" => movement::same(call),
        "isotrace" => index::memory(call),
        "aten" | "prims" => {
            let name = call.operator();
            let rule = FAMILIES.iter().flat_map(|f| f.iter()).find(|(known, _)| *known == name)?.1;
            rule(call)
        }
        _ => None,
    }
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
    const MORE: [&str; 5] = ["zero", "zeros", "zeros_like", "new_empty_strided", "lift_fresh_copy"];
    let name = node.op.split('.').next().unwrap_or_default().trim_end_matches('_');
    NAMES.contains(&name) || MORE.contains(&name)
}

/// One output.
#[expect(clippy::unnecessary_wraps, reason = "the last word of every lowering, which may fail before it")]
fn one(v: ValueId) -> Results {
    Some(vec![Some(v)])
}
