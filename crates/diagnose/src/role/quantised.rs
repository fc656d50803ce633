//! What the slots of operators on quantised numbers hold: the operators of ONNX and of com.microsoft alike.

use isotrace_align::{Region, Side};
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::DType;

use super::{is_layout, is_product};

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantised {
    /// The numbers themselves, stored as small integers.
    Weight,
    /// A scale, a zero point, or which block a row belongs to.
    Grid,
    /// A bias.
    Bias,
}

/// A letter a slot: w, g and b as in [`Quantised`], a point for what is none of them. The last letter stands for all
/// slots behind it too.
const SLOTS: [(&str, &str); 20] = [
    ("ConvInteger", ".wgg."),
    ("DequantizeLinear", "wgg."),
    ("DynamicQuantizeMatMul", ".wggb."),
    ("GatherBlockQuantized", "w.gg."),
    ("MatMulInteger", ".wgg."),
    ("MatMulIntegerToFloat", ".wggggb."),
    ("MatMulNBits", ".wgggb."),
    ("QAttention", ".wbgg.gg."),
    ("QGemm", ".ggwggbgg."),
    ("QLinearAdd", ".ggwgggg."),
    ("QLinearAveragePool", ".gggg."),
    ("QLinearConv", ".ggwggggb."),
    ("QLinearGlobalAveragePool", ".gggg."),
    ("QLinearLeakyRelu", ".gggg."),
    ("QLinearMatMul", ".ggwgggg."),
    ("QLinearMul", ".ggwgggg."),
    ("QLinearSigmoid", ".gggg."),
    ("QLinearSoftmax", ".gggg."),
    ("QLinearWhere", "..gg.gggg."),
    ("QuantizeLinear", ".gg."),
];

/// What `slot` of an operator holds, where the operator works on quantised numbers.
pub fn slot(op: &str, slot: usize) -> Option<Quantised> {
    if op == "QLinearConcat" {
        // Scale and zero point of the result, then each input with its own.
        return (slot < 2 || slot % 3 != 2).then_some(Quantised::Grid);
    }
    let letters = SLOTS.iter().find(|(name, _)| *name == op)?.1.as_bytes();
    match letters.get(slot).or(letters.last())? {
        b'w' => Some(Quantised::Weight),
        b'g' => Some(Quantised::Grid),
        b'b' => Some(Quantised::Bias),
        _ => None,
    }
}

/// Whether an operator works on quantised numbers.
pub fn works_on(op: &str) -> bool {
    op == "QLinearConcat" || SLOTS.iter().any(|(name, _)| *name == op)
}

/// What a node reads at `slot`; numbers that are brought off their grid to be the bias of a product or of a norm are a
/// bias.
pub fn read(side: &Side<'_>, n: NodeId, at: usize) -> Option<Quantised> {
    let node = side.graph().node(n);
    let found = slot(&node.op, at)?;
    let added = || {
        node.writes().any(|v| {
            side.consumers[v.index()].iter().map(|&c| side.graph().node(c)).any(|reader| {
                let last = match reader.op.as_str() {
                    op if is_product(op) => usize::MAX,
                    "BatchNormalization"
                    | "GroupNormalization"
                    | "InstanceNormalization"
                    | "LayerNormalization" => 2,
                    _ => return false,
                };
                reader.inputs.iter().take(last.saturating_add(1)).skip(2).any(|read| *read == Some(v))
            })
        })
    };
    Some(if node.op == "DequantizeLinear" && found == Quantised::Weight && added() {
        Quantised::Bias
    } else {
        found
    })
}

/// Whether nodes of the graph itself take a weight off its grid: what it is made of was stored in whole numbers, as
/// integers that may hold several each, or as floats where an exporter has cast them already.
pub fn is_unpacked(side: &Side<'_>, v: ValueId) -> bool {
    let size = |v: ValueId| side.declared.count(v).unwrap_or(0);
    let Some(all) = side.is_constant(v).then(|| size(v)).filter(|&all| all >= FEW) else { return false };
    let behind = Region::behind(side, &[v], |_| false, MOST_UNPACKING);
    let works = |n: &NodeId| {
        let node = side.graph().node(*n);
        matches!(node.op.as_str(), "Mul" | "Div") && node.writes().any(|w| size(w) >= all)
    };
    let whole = |v: &ValueId| {
        let Some(t) = side.declared.get(*v) else { return false };
        if t.dtype().is_int() {
            return t.len() * PACKED >= all;
        }
        let on_a_grid = |x: &[f64]| {
            x.iter().all(|x| x.fract() == 0.0) && x.iter().any(|y| *y != x[0] && *y != 0.0 && *y != 1.0)
        };
        t.len() >= all && t.to_f64().is_ok_and(|x| on_a_grid(&x))
    };
    behind.nodes.iter().any(works) && behind.constants.iter().any(whole)
}

/// Whether a node brings numbers off their grid as they come: a cache or an activation kept in a few bits, cast to a float
/// and multiplied by its step. Unsigned bytes may be an image.
pub fn steps(side: &Side<'_>, n: NodeId) -> bool {
    let narrow = |v: ValueId| {
        side.declared.get(v).is_some_and(|t| matches!(t.dtype(), DType::I8 | DType::I4 | DType::U4))
    };
    let mut at = n;
    for _ in 0..MOST_STEPS {
        let node = side.graph().node(at);
        let [v] = side.dynamic_inputs(at)[..] else { return false };
        let passes = match node.op.as_str() {
            "Cast" if narrow(v) => return at != n,
            "Cast" | "Add" | "Sub" => true,
            op => at == n || is_layout(op),
        };
        let Some(before) = side.producer(v).filter(|_| passes) else { return false };
        at = before;
    }
    false
}

/// Whether a node works on numbers that were rounded and not yet taken off their grid: it bounds, shifts or folds levels.
pub fn works_on_levels(side: &Side<'_>, n: NodeId) -> bool {
    let keeps_levels = |op: &str| {
        is_layout(op) || matches!(op, "Clip" | "Max" | "Min" | "Mod" | "Add" | "Sub" | "Cast" | "Identity")
    };
    let mut at = n;
    for _ in 0..MOST_STEPS {
        if !keeps_levels(&side.graph().node(at).op) {
            return false;
        }
        let [v] = side.dynamic_inputs(at)[..] else { return false };
        let Some(before) = side.producer(v) else { return false };
        if side.graph().node(before).op == "Round" {
            return true;
        }
        at = before;
    }
    false
}

/// Nodes between a cast and the product with a step, at most.
const MOST_STEPS: usize = 5;

/// Whether a node that works on constants alone is one of those that take a weight off its grid.
pub fn unpacks(side: &Side<'_>, n: NodeId) -> bool {
    let mut at = n;
    for _ in 0..MOST_UNPACKING {
        let Some(v) = side.graph().node(at).writes().next().filter(|&v| side.is_constant(v)) else {
            return false;
        };
        let Some(&next) = side.consumers[v.index()].first() else { return false };
        if is_product(&side.graph().node(next).op) {
            return is_unpacked(side, v);
        }
        at = next;
    }
    false
}

/// Nodes that unpack a weight, at most.
const MOST_UNPACKING: usize = 40;
/// Numbers in one stored integer, at most.
const PACKED: usize = 8;
/// Elements below which a constant is a shape or a few settings.
const FEW: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_as_the_standard_has_them() {
        use Quantised::{Bias, Grid, Weight};
        let table: [(&str, &[Option<Quantised>]); 5] = [
            ("QuantizeLinear", &[None, Some(Grid), Some(Grid), None]),
            ("DequantizeLinear", &[Some(Weight), Some(Grid), Some(Grid), None]),
            ("MatMulNBits", &[None, Some(Weight), Some(Grid), Some(Grid), Some(Grid), Some(Bias), None]),
            ("QLinearConcat", &[Some(Grid), Some(Grid), None, Some(Grid), Some(Grid), None, Some(Grid)]),
            ("MatMul", &[None, None, None]),
        ];
        for (op, slots) in table {
            for (i, expected) in slots.iter().enumerate() {
                assert_eq!(slot(op, i), *expected, "{op} {i}");
            }
        }
    }
}
