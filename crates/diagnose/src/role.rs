//! What part a node, a constant or a setting plays in a network, and ([`name`]) the cause that goes by its being wrong.

mod mask;
mod name;
mod piece;
pub mod quantised;
mod rotary;
mod statistic;

use isotrace_align::Side;
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::{DType, Tensor};

pub use mask::{feeds_mask, is_choice, is_score, masks};
pub use name::{EPSILON, most_telling, of_attribute, of_constant, of_operator, of_presence, says_where};
pub use piece::chooses_piece;
pub use rotary::{
    is_of_angles, is_rotary, is_rotated, is_turned, negates_for_rotation, transforms, turns, was_turned,
};
pub use statistic::{enters_statistic, is_statistic, normalises};

use mask::{by_distance, is_by_distance, is_identity, leaves_itself_out, leaves_out};
use statistic::{
    Divisor, adds_to_statistic, averages, centres, counts_summands, gains_follow, is_divided_out, is_gain,
    is_mean_of_input, is_of_statistic, is_share_of_group, is_shift, makes_another_mean,
};

/// Functions of one number that networks use as non-linearities.
pub fn is_activation(op: &str) -> bool {
    matches!(
        op,
        "Relu"
            | "LeakyRelu"
            | "PRelu"
            | "Elu"
            | "Celu"
            | "Selu"
            | "ThresholdedRelu"
            | "HardSigmoid"
            | "HardSwish"
            | "Sigmoid"
            | "Tanh"
            | "Softplus"
            | "Softsign"
            | "Gelu"
            | "FastGelu"
            | "BiasGelu"
            | "QuickGelu"
            | "Mish"
            | "Shrink"
            | "Swish"
            | "Erf"
            | "Clip"
            | "Exp"
            | "Sin"
            | "Cos"
            | "Abs"
            | "Hardmax"
    )
}

/// Whether an operator reduces over axes.
pub fn is_reduction(op: &str) -> bool {
    op.starts_with("Reduce") || op.starts_with("Arg") || op.starts_with("Cum") || op.contains("Pool")
}

/// Whether an operator normalises by statistics of its input.
pub fn is_normalisation(op: &str) -> bool {
    op.ends_with("Normalization") || op == "LRN" || op == "GroupNorm" || op == "SkipGroupNorm"
}

/// Whether an operator multiplies by weights.
pub fn is_product(op: &str) -> bool {
    matches!(op, "MatMul" | "Gemm" | "Einsum")
        || op.contains("Conv")
        || op.contains("MatMul")
        || op == "FusedGemm"
}

/// Whether an operator is an attention as a whole.
pub fn is_attention(op: &str) -> bool {
    op.ends_with("Attention")
}

/// Whether an operator puts numbers on a grid or takes them off it.
pub fn is_rounding(op: &str) -> bool {
    matches!(op, "Round" | "Floor" | "Ceil") || op.to_ascii_lowercase().contains("quantize")
}

/// Whether an operator only rearranges axes.
pub fn is_layout(op: &str) -> bool {
    matches!(
        op,
        "Transpose"
            | "Reshape"
            | "Squeeze"
            | "Unsqueeze"
            | "Flatten"
            | "DepthToSpace"
            | "SpaceToDepth"
            | "Expand"
            | "Tile"
            | "ReorderInput"
            | "ReorderOutput"
    )
}

fn is_recurrent(op: &str) -> bool {
    matches!(op, "LSTM" | "GRU" | "RNN")
}

fn is_truth(side: &Side<'_>, v: ValueId) -> bool {
    side.declared.dtype(v) == Some(DType::Bool)
}

/// Whether a node multiplies a value by a function of the same value: the last step of SiLU, GELU and their like.
fn gates_itself(side: &Side<'_>, n: NodeId) -> bool {
    let [x, y] = side.dynamic_inputs(n)[..] else { return false };
    let leads = |from: ValueId, to: ValueId| {
        let mut at = to;
        // x / (1 - x) is a curve by itself.
        let mut curved = side.graph().node(n).op == "Div";
        for _ in 0..STEPS {
            let Some(before) = side.producer(at) else { return false };
            let op = side.graph().node(before).op.as_str();
            let [next] = side.dynamic_inputs(before)[..] else { return false };
            if !is_activation(op)
                && !matches!(op, "Add" | "Sub" | "Mul" | "Div" | "Neg" | "Reciprocal" | "Pow" | "Identity")
            {
                return false;
            }
            curved |= is_activation(op);
            if next == from {
                return curved;
            }
            at = next;
        }
        false
    };
    leads(x, y) || leads(y, x)
}

/// Whether what a node writes keeps a division, a root or a logarithm away from zero.
pub fn guards(side: &Side<'_>, n: NodeId) -> bool {
    let written: Vec<ValueId> = side.graph().node(n).writes().collect();
    written.iter().flat_map(|v| &side.consumers[v.index()]).any(|&m| {
        let node = side.graph().node(m);
        let divides =
            node.op == "Div" && node.inputs.get(1).is_some_and(|v| v.is_some_and(|v| written.contains(&v)));
        divides || matches!(node.op.as_str(), "Sqrt" | "Reciprocal" | "Log" | "Pow")
    })
}

/// Steps looked along a chain of operators of one element each.
const STEPS: usize = 8;

/// Whether a node cuts the gates of a cell out of one sum: what is cut out of it goes through sigmoids and tangents,
/// several of them.
fn cuts_gates(side: &Side<'_>, n: NodeId) -> bool {
    let Some(&whole) = side.dynamic_inputs(n).first() else { return false };
    let cuts =
        |n: &NodeId| matches!(side.graph().node(*n).op.as_str(), "Split" | "Slice" | "Gather" | "Squeeze");
    let mut curves: Vec<NodeId> = Vec::new();
    for &cut in side.consumers[whole.index()].iter().filter(|n| cuts(n)) {
        for v in side.graph().node(cut).writes() {
            let readers = side.consumers[v.index()].iter().copied();
            curves.extend(
                readers.filter(|&r| {
                    matches!(side.graph().node(r).op.as_str(), "Sigmoid" | "Tanh" | "HardSigmoid")
                }),
            );
        }
    }
    curves.sort_unstable();
    curves.dedup();
    let sigmoids = curves.iter().filter(|&&c| side.graph().node(c).op != "Tanh").count();
    sigmoids >= 2 && curves.len() >= 3
}

/// The nodes that read what a node writes.
fn readers<'s>(side: &'s Side<'_>, n: NodeId) -> impl Iterator<Item = NodeId> + 's {
    let written: Vec<ValueId> = side.graph().node(n).writes().collect();
    written.into_iter().flat_map(|v| side.consumers[v.index()].iter().copied())
}

/// Whether a node multiplies a value by itself.
fn squares(side: &Side<'_>, n: NodeId) -> bool {
    let node = side.graph().node(n);
    node.op == "Mul" && node.inputs[0] == node.inputs[1]
}

/// Whether what a node writes is read as whole numbers alone.
fn becomes_whole(side: &Side<'_>, n: NodeId) -> bool {
    let mut readers = side.graph().node(n).writes().flat_map(|v| side.consumers[v.index()].iter().copied());
    let whole = |n: NodeId| {
        let mut written = side.graph().node(n).writes().filter_map(|v| side.declared.dtype(v));
        side.graph().node(n).op == "Cast" && written.all(DType::is_int)
    };
    let first = readers.next();
    first.is_some_and(whole) && readers.all(whole)
}

/// Whether a node makes whole numbers of others that are read as they were: all that is left of it is that it rounds.
fn becomes_float(side: &Side<'_>, n: NodeId) -> bool {
    let float = |v: ValueId| side.declared.is_float(v);
    let mut back = readers(side, n).peekable();
    side.dynamic_inputs(n).into_iter().all(float)
        && back.peek().is_some()
        && back.all(|r| side.graph().node(r).op == "Cast" && side.graph().node(r).writes().all(float))
}

/// Whether a node cuts off a border: it reads what a convolution or a pool writes, or is read by one, other cuts between.
fn crops(side: &Side<'_>, n: NodeId) -> bool {
    let windows = |n: NodeId| {
        let op = side.graph().node(n).op.as_str();
        op.contains("Conv") || op.ends_with("Pool")
    };
    let len = |v: Option<ValueId>| v.and_then(|v| side.declared.count(v)).unwrap_or(0);
    // A border is less than what it is around, and something.
    let (left, whole) =
        (len(side.graph().node(n).writes().next()), len(side.dynamic_inputs(n).first().copied()));
    if 2 * left <= whole || left == whole {
        return false;
    }
    let mut at = n;
    for _ in 0..STEPS {
        let Some(before) = side.dynamic_inputs(at).first().and_then(|&v| side.producer(v)) else { break };
        if windows(before) {
            return true;
        }
        if side.graph().node(before).op != "Slice" {
            break;
        }
        at = before;
    }
    let mut readers = side.graph().node(n).writes().flat_map(|v| side.consumers[v.index()].iter().copied());
    readers.any(windows)
}

/// Whether a node makes an axis longer for a convolution or a pool to read, others that do so between: a border.
fn borders(side: &Side<'_>, n: NodeId) -> bool {
    let mut at = n;
    for _ in 0..STEPS {
        let node = side.graph().node(at);
        let (Some(&read), Some(written)) = (side.dynamic_inputs(at).first(), node.writes().next()) else {
            return false;
        };
        let size = |v: ValueId| side.declared.shape(v).map(|s| (s.len(), s.iter().product::<usize>()));
        let [reader] = side.consumers[written.index()][..] else { return false };
        let longer = size(read).zip(size(written)).is_some_and(|((r, x), (s, y))| r == s && r > 2 && x < y);
        let moved = at != n && matches!(node.op.as_str(), "ReorderInput" | "Identity");
        if !moved && (!longer || !matches!(node.op.as_str(), "Gather" | "Concat" | "Pad")) {
            return false;
        }
        let op = side.graph().node(reader).op.as_str();
        if op.contains("Conv") || op.ends_with("Pool") {
            return true;
        }
        at = reader;
    }
    false
}

/// Whether a value is a part of another, moved, repeated or weighed by one number, or a constant.
fn is_part_of(side: &Side<'_>, v: ValueId, whole: ValueId) -> bool {
    let mut at = v;
    for _ in 0..STEPS {
        if at == whole || side.is_constant(at) {
            return true;
        }
        let Some(n) = side.producer(at) else { return false };
        let op = side.graph().node(n).op.as_str();
        let [next] = side.dynamic_inputs(n)[..] else { return false };
        if !is_layout(op) && !matches!(op, "Slice" | "Gather" | "Split" | "Mul" | "Identity" | "Cast") {
            return false;
        }
        at = next;
    }
    false
}

/// Whether a node joins `v`, a part of something longer, to the ends of that, for a convolution or a pool to read.
pub fn joins_border(side: &Side<'_>, n: NodeId, v: ValueId) -> bool {
    let len = |v: ValueId| side.declared.count(v).unwrap_or(0);
    let longest = side.dynamic_inputs(n).into_iter().max_by_key(|&w| len(w));
    let longer = longest.is_some_and(|w| w != v && 2 * len(v) < len(w) && is_part_of(side, v, w));
    let mut at = n;
    for _ in 0..STEPS {
        let Some(written) = side.graph().node(at).writes().next().filter(|_| longer) else { return false };
        let [reader] = side.consumers[written.index()][..] else { return false };
        let op = side.graph().node(reader).op.as_str();
        if op.contains("Conv") || op.ends_with("Pool") {
            return true;
        }
        if !is_layout(op) && !matches!(op, "Concat" | "Identity") {
            return false;
        }
        at = reader;
    }
    false
}

/// Whether all that a node writes is joined so.
pub fn becomes_border(side: &Side<'_>, n: NodeId) -> bool {
    let mut all = side
        .graph()
        .node(n)
        .writes()
        .flat_map(|v| side.consumers[v.index()].iter().map(move |&r| (v, r)))
        .peekable();
    all.peek().is_some() && all.all(|(v, r)| side.graph().node(r).op == "Concat" && joins_border(side, r, v))
}

/// Whether a value is what a non-linearity is computed from, or what it gave, with nothing but a factor between.
pub fn is_beside_activation(side: &Side<'_>, n: NodeId) -> bool {
    let curve = |op: &str| matches!(op, "Sigmoid" | "Tanh" | "Erf" | "Softplus");
    let after = side
        .graph()
        .node(n)
        .writes()
        .any(|v| side.consumers[v.index()].iter().any(|&m| curve(&side.graph().node(m).op)));
    let before = side
        .dynamic_inputs(n)
        .iter()
        .any(|&v| side.producer(v).is_some_and(|m| side.graph().node(m).op == "Tanh"));
    after || before
}

/// Whether a node works on the argument of a curve that is more than a multiple of one value: the polynomial inside of a
/// GELU by tanh.
pub fn is_in_curve(side: &Side<'_>, n: NodeId) -> bool {
    let op = |n: NodeId| side.graph().node(n).op.as_str();
    let pointwise = |n: NodeId| matches!(op(n), "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Neg");
    let mut at = n;
    for _ in 0..STEPS {
        let Some(reader) = readers(side, at).next() else { return false };
        if matches!(op(reader), "Tanh" | "Erf" | "Sigmoid") {
            break;
        }
        if !pointwise(reader) {
            return false;
        }
        at = reader;
    }
    let (mut seen, mut next, mut leaves, mut bent) = (vec![at], 0, Vec::new(), false);
    while next < seen.len() && seen.len() < 4 * STEPS {
        let m = seen[next];
        next += 1;
        bent |= op(m) == "Pow" || op(m) == "Mul" && side.dynamic_inputs(m).len() > 1 || squares(side, m);
        for v in side.dynamic_inputs(m) {
            match side.producer(v).filter(|&p| pointwise(p)) {
                Some(p) if !seen.contains(&p) => seen.push(p),
                Some(_) => {}
                None => leaves.push(v),
            }
        }
    }
    leaves.sort_unstable();
    leaves.dedup();
    bent && leaves.len() <= 1
}

/// Whether a value is a factor of a product of two computed values once its layout and size are settled, as queries,
/// keys and values are.
pub fn is_factor(side: &Side<'_>, v: ValueId) -> bool {
    let mut at = vec![v];
    for _ in 0..STEPS {
        let readers: Vec<NodeId> =
            at.iter().flat_map(|v| side.consumers[v.index()].iter().copied()).collect();
        let op = |n: NodeId| side.graph().node(n).op.as_str();
        if readers
            .iter()
            .any(|&n| is_attention(op(n)) || is_product(op(n)) && side.dynamic_inputs(n).len() > 1)
        {
            return true;
        }
        let light = |n: &NodeId| {
            is_layout(op(*n))
                || matches!(op(*n), "Cast" | "Mul" | "Div" | "Add" | "Concat" | "RotaryEmbedding")
        };
        at = readers
            .into_iter()
            .filter(light)
            .flat_map(|n| side.graph().node(n).writes().collect::<Vec<_>>())
            .collect();
    }
    false
}

/// Whether a node gives the argument of a curve its factor, where the curve gates the very value, or the factor is taken
/// back behind it: `x f(a x)` and `f(a x) / a` are other activations than `x f(x)` and `f(x)`, unless `a` is meant to be
/// one.
fn bends(side: &Side<'_>, n: NodeId) -> bool {
    let factor = |n: NodeId| {
        let node = side.graph().node(n);
        let number = node.inputs.iter().flatten().find(|&&v| side.is_constant(v))?;
        let x = side.shadow.get(*number).filter(|t| t.len() == 1)?.to_f64().ok()?[0];
        match node.op.as_str() {
            "Mul" => Some(x),
            "Div" => Some(1.0 / x),
            _ => None,
        }
    };
    let [x] = side.dynamic_inputs(n)[..] else { return false };
    let Some(own) = factor(n).filter(|f| !is_nearly_right(*f)) else { return false };
    let gates = |m: NodeId| {
        let node = side.graph().node(m);
        node.op == "Mul" && node.inputs.contains(&Some(x))
            || factor(m).is_some_and(|f| (f * own - 1.0).abs() <= 1e-6)
    };
    let shifts = |m: NodeId| {
        matches!(side.graph().node(m).op.as_str(), "Add" | "Mul") && side.dynamic_inputs(m).len() == 1
    };
    // 1 + erf(a x), or half of it, gates as erf(a x) does.
    let leads = |m: NodeId| gates(m) || shifts(m) && readers(side, m).any(gates);
    readers(side, n).any(|c| is_activation(&side.graph().node(c).op) && readers(side, c).any(leads))
}

/// Whether what a node writes does nothing but choose a branch or say whether a loop goes on.
pub fn steers(side: &Side<'_>, n: NodeId) -> bool {
    let mut at = side.graph().node(n).writes().collect::<Vec<_>>();
    for _ in 0..STEPS {
        let mut next = Vec::new();
        let mut steered = 0;
        for &v in &at {
            for &r in &side.consumers[v.index()] {
                let node = side.graph().node(r);
                let slot = node.inputs.iter().position(|i| *i == Some(v));
                match (node.op.as_str(), slot) {
                    ("If", Some(0)) | ("Loop", Some(1)) => steered += 1,
                    ("And" | "Or" | "Not" | "Xor" | "Cast" | "Identity", _) => next.extend(node.writes()),
                    (op, _) if is_layout(op) => next.extend(node.writes()),
                    _ => return false,
                }
            }
        }
        if next.is_empty() {
            return steered > 0;
        }
        at = next;
    }
    false
}

/// Whether a factor is off by so little that the function is meant to be the same.
pub fn is_nearly_right(ratio: f64) -> bool {
    (ratio - 1.0).abs() < 0.02
}

/// Whether numbers leave some elements out and make the others larger in return, as dropout does.
pub fn drops(tensor: &Tensor) -> bool {
    let Ok(x) = tensor.to_f64() else { return false };
    let kept = x.iter().copied().fold(0.0, f64::max);
    kept > 1.0 && x.len() > 2 && x.contains(&0.0) && x.iter().all(|v| *v == 0.0 || *v == kept)
}

/// Whether a constant that a node adds or multiplies by is another for each item of the batch: no parameter knows how many
/// there are, so it was drawn.
pub fn is_drawn(side: &Side<'_>, n: NodeId, tensor: &Tensor) -> bool {
    let shape = |v: ValueId| side.declared.shape(v);
    let mut fed = side.graph().inputs.iter().filter_map(|&v| shape(v)?.first().copied());
    let (Some(batch), Some(&first)) = (fed.next(), tensor.shape().first()) else { return false };
    let all = |v: ValueId| shape(v).is_some_and(|s| s.len() == tensor.rank() && s[0] == first);
    // Heads of one item may be counted with it.
    let counts = batch > 1 && first.is_multiple_of(batch) && fed.all(|d| d == batch);
    let Ok(x) = tensor.to_f64() else { return false };
    let mut items = x.chunks((x.len() / batch.max(1)).max(1));
    let one = items.next();
    counts
        && tensor.dtype().is_float()
        && tensor.rank() >= 3
        && side.graph().node(n).writes().all(all)
        && side.dynamic_inputs(n).into_iter().any(all)
        && items.any(|other| Some(other) != one)
}
