//! What part a node, a constant or a setting plays in a network, and ([`name`]) the cause that goes by its being wrong.

mod name;
pub mod quantised;
mod rotary;

use isotrace_align::Side;
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::{DType, Tensor};

pub use name::{EPSILON, most_telling, of_attribute, of_constant, of_operator, of_presence};
pub use rotary::{is_of_angles, is_rotary, is_rotated, is_turned, negates_for_rotation, turns, was_turned};

/// An additive number this far below zero hides what it is added to.
const MASKING: f64 = -1e3;

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
    side.declared.get(v).is_some_and(|t| t.dtype() == DType::Bool)
}

/// Whether a tensor hides some entries and lets others pass: very negative against zero, or truth values.
pub fn masks(tensor: &Tensor) -> bool {
    if tensor.dtype() == DType::Bool {
        return true;
    }
    let Ok(values) = tensor.to_f64() else { return false };
    values.iter().any(|&x| x < MASKING) && values.iter().all(|&x| x < MASKING || x.abs() < 1.0)
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

/// A reduction over axes that are kept, seen from what is computed from it alone.
struct Statistic {
    /// Its elements, before they are repeated for all that it is about.
    len: usize,
    /// Whether a root or an inverse is taken of it.
    rooted: bool,
}

fn statistic(side: &Side<'_>, v: ValueId) -> Option<Statistic> {
    let mut at = v;
    let mut rooted = false;
    for _ in 0..STEPS {
        let n = side.producer(at)?;
        let node = side.graph().node(n);
        match node.op.as_str() {
            "ReduceMean" | "ReduceSum" | "ReduceSumSquare" | "ReduceL2" => {
                let rooted = rooted || node.op == "ReduceL2";
                return Some(Statistic { len: side.declared.get(at)?.len(), rooted });
            }
            op if is_layout(op)
                || matches!(
                    op,
                    "Cast" | "Mul" | "Div" | "Add" | "Sqrt" | "Reciprocal" | "Pow" | "Clip" | "Max"
                ) =>
            {
                rooted |= matches!(op, "Sqrt" | "Reciprocal" | "Pow");
                let [next] = side.dynamic_inputs(n)[..] else { return None };
                at = next;
            }
            _ => return None,
        }
    }
    None
}

/// Whether a value is a statistic: a reduction over axes that are kept, and what is computed from it alone.
pub fn is_statistic(side: &Side<'_>, v: ValueId) -> bool {
    statistic(side, v).is_some()
}

/// Whether what a node makes of a statistic brings values to it: subtracted, divided by, or a root taken of it.
pub fn normalises(side: &Side<'_>, n: NodeId) -> bool {
    let mut at = vec![n];
    for _ in 0..STEPS {
        let written: Vec<ValueId> = at.iter().flat_map(|&n| side.graph().node(n).writes()).collect();
        at = written.iter().flat_map(|v| side.consumers[v.index()].iter().copied()).collect();
        let takes = |n: &NodeId| {
            let node = side.graph().node(*n);
            let second = node.inputs.get(1).copied().flatten().is_some_and(|v| written.contains(&v));
            matches!(node.op.as_str(), "Sqrt" | "Reciprocal" | "Pow")
                || matches!(node.op.as_str(), "Sub" | "Div") && second
        };
        if at.iter().any(takes) {
            return true;
        }
        let light = |n: &NodeId| {
            let op = side.graph().node(*n).op.as_str();
            is_layout(op) || matches!(op, "Cast" | "Mul" | "Div" | "Add" | "Sub" | "Clip" | "Max")
        };
        at.retain(light);
    }
    false
}

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

/// Whether what a node writes, a square, becomes a statistic that brings values to it.
fn is_of_statistic(side: &Side<'_>, n: NodeId) -> bool {
    normalises(side, n) || enters_statistic(side, n)
}

/// Whether a statistic that brings values to it is taken of what a node writes, or of its square, and nothing else.
fn enters_statistic(side: &Side<'_>, n: NodeId) -> bool {
    let sums = |r: NodeId| {
        matches!(
            side.graph().node(r).op.as_str(),
            "ReduceMean" | "ReduceSum" | "ReduceSumSquare" | "ReduceL2"
        )
    };
    let power = |r: NodeId| side.graph().node(r).op == "Pow" || squares(side, r);
    let taken = |r: NodeId| sums(r) && (normalises(side, r) || side.graph().node(r).op == "ReduceL2");
    let mut all = readers(side, n).peekable();
    all.peek().is_some() && all.all(|r| taken(r) || power(r) && readers(side, r).all(taken))
}

/// Whether a node does something to what is brought down to one of many that is taken back behind it, or takes it back:
/// a root of a mean of squares in place of a mean, the least in place of the largest. What comes of it goes its own way;
/// where values are brought to it, it is a statistic.
fn makes_another_mean(side: &Side<'_>, n: NodeId) -> bool {
    let op = |n: NodeId| side.graph().node(n).op.as_str();
    let undone = |x: NodeId, y: NodeId| match op(x) {
        "Pow" | "Mul" if side.dynamic_inputs(x).len() == 1 || squares(side, x) => {
            matches!(op(y), "Sqrt" | "Pow")
        }
        "Neg" | "Reciprocal" => op(x) == op(y),
        _ => false,
    };
    let pools = |r: NodeId| op(r).starts_with("Reduce") || op(r).ends_with("Pool");
    let around = |x: NodeId| {
        let mut all = readers(side, x).peekable();
        let taken_back = |r: NodeId| readers(side, r).any(|y| undone(x, y) && !brings(side, y));
        all.peek().is_some() && all.all(|r| pools(r) && taken_back(r))
    };
    let before = |n: NodeId| side.dynamic_inputs(n).first().and_then(|&v| side.producer(v));
    around(n) || before(n).filter(|&r| pools(r)).and_then(before).is_some_and(|x| undone(x, n) && around(x))
}

/// Whether a value is a choice that was made of whole numbers or truth values, as floats: 0 leaves out, 1 lets pass.
fn leaves_out(side: &Side<'_>, v: ValueId) -> bool {
    let mut at = v;
    for _ in 0..STEPS {
        let Some(n) = side.producer(at) else { break };
        let op = side.graph().node(n).op.as_str();
        let [next] = side.dynamic_inputs(n)[..] else { return false };
        let chosen = |v: ValueId| side.declared.get(v).is_some_and(|t| !t.dtype().is_float());
        if op == "Cast" && chosen(next) {
            return side.declared.get(v).is_some_and(is_choice);
        }
        if !is_layout(op) && op != "Cast" {
            return false;
        }
        at = next;
    }
    false
}

/// Whether a tensor holds nothing but 0 and 1, and both.
pub fn is_choice(t: &Tensor) -> bool {
    t.to_f64().is_ok_and(|x| x.iter().all(|&y| y == 0.0 || y == 1.0) && x.contains(&0.0) && x.contains(&1.0))
}

/// Whether a node multiplies a value by itself.
fn squares(side: &Side<'_>, n: NodeId) -> bool {
    let node = side.graph().node(n);
    node.op == "Mul" && node.inputs[0] == node.inputs[1]
}

/// Whether other values are divided by what is made of what a node writes, or multiplied by it.
fn brings(side: &Side<'_>, n: NodeId) -> bool {
    let mut at = vec![n];
    for _ in 0..STEPS {
        let reached: Vec<NodeId> = at.iter().flat_map(|&n| readers(side, n)).collect();
        let meets = |&r: &NodeId| {
            matches!(side.graph().node(r).op.as_str(), "Sub" | "Div" | "Mul")
                && side.dynamic_inputs(r).len() > 1
        };
        if reached.iter().any(meets) {
            return true;
        }
        let light = |r: &NodeId| {
            let op = side.graph().node(*r).op.as_str();
            is_layout(op) || matches!(op, "Cast" | "Mul" | "Div" | "Add" | "Clip" | "Max" | "Reciprocal")
        };
        at = reached.into_iter().filter(light).collect();
    }
    false
}

/// Whether the second thing that a node reads is a statistic: what it subtracts or divides by.
fn centres(side: &Side<'_>, n: NodeId) -> bool {
    let [Some(all), Some(mean)] = side.graph().node(n).inputs[..] else { return false };
    let all = side.declared.get(all).map_or(0, Tensor::len);
    statistic(side, mean).is_some_and(|s| s.len < all)
}

/// Whether a product multiplies by the inverse of a statistic, which is how a division by it is written too.
fn is_divided_out(side: &Side<'_>, n: NodeId) -> bool {
    let [Some(x), Some(y)] = side.graph().node(n).inputs[..] else { return false };
    let by = |all: ValueId, v: ValueId| {
        let all = side.declared.get(all).map_or(0, Tensor::len);
        statistic(side, v).is_some_and(|s| s.rooted && s.len < all)
    };
    by(x, y) || by(y, x)
}

/// Whether a value has just been brought to its statistics: gains, shifts and layouts aside, it is what a norm writes.
fn is_normed(side: &Side<'_>, v: ValueId) -> bool {
    let mut at = v;
    for _ in 0..STEPS {
        let Some(n) = side.producer(at) else { return false };
        let node = side.graph().node(n);
        let op = node.op.as_str();
        if is_normalisation(op) || op == "Div" && centres(side, n) || op == "Mul" && is_divided_out(side, n) {
            return true;
        }
        let [next] = side.dynamic_inputs(n)[..] else { return false };
        if !is_layout(op) && !matches!(op, "Cast" | "Mul" | "Add" | "Sub" | "Div") {
            return false;
        }
        at = next;
    }
    false
}

/// Whether a product with a number for each channel is the gain of a norm: it follows one, is followed by a shift where a
/// norm has become numbers, or brings an input to its range.
fn is_gain(side: &Side<'_>, n: NodeId) -> bool {
    let [x] = side.dynamic_inputs(n)[..] else { return true };
    let shifts = |m: NodeId| {
        let node = side.graph().node(m);
        let wide = |v: &ValueId| side.is_constant(*v) && side.declared.get(*v).is_some_and(|t| t.len() > 1);
        matches!(node.op.as_str(), "Add" | "Sub") && node.inputs.iter().flatten().any(wide)
    };
    let product = |v: ValueId| side.producer(v).is_some_and(|m| is_product(&side.graph().node(m).op));
    let readers = side.graph().node(n).writes().flat_map(|v| side.consumers[v.index()].iter().copied());
    let shifted = || readers.into_iter().any(shifts);
    let before = || {
        let m = side.producer(x).filter(|&m| shifts(m))?;
        Some(!side.dynamic_inputs(m).into_iter().any(product))
    };
    is_normed(side, x) || product(x) && shifted() || before().unwrap_or(side.producer(x).is_none())
}

/// Whether all that is made of what a node writes multiplies what a norm writes: `1 + w` is its gain.
fn gains_follow(side: &Side<'_>, n: NodeId) -> bool {
    let mut at: Vec<ValueId> = side.graph().node(n).writes().collect();
    let mut found = false;
    for _ in 0..STEPS {
        let mut next = Vec::new();
        for &v in &at {
            for &r in &side.consumers[v.index()] {
                let node = side.graph().node(r);
                if is_layout(&node.op) || node.op == "Cast" {
                    next.extend(node.writes());
                } else if node.op == "Mul"
                    && node.inputs.iter().flatten().any(|&x| x != v && is_normed(side, x))
                {
                    found = true;
                } else {
                    return false;
                }
            }
        }
        if next.is_empty() {
            return found;
        }
        at = next;
    }
    false
}

/// Whether a sum adds something to a statistic by which values are divided: the denominator of a softmax, a variance.
fn adds_to_statistic(side: &Side<'_>, n: NodeId) -> bool {
    side.dynamic_inputs(n).iter().any(|&v| is_statistic(side, v)) && normalises(side, n)
}

/// Whether a sum of two computed values is no meeting of branches: one of the two is the same for many places of the
/// other, as the shift is that a condition gives each channel.
fn is_shift(side: &Side<'_>, n: NodeId) -> bool {
    let [Some(x), Some(y)] = side.graph().node(n).inputs[..] else { return false };
    let (Some(x), Some(y)) = (side.declared.get(x), side.declared.get(y)) else { return false };
    x.len() != y.len() && x.len().min(y.len()) > 1
}

/// Whether a node takes from running sums what was summed last: sums of all that came before.
fn leaves_itself_out(side: &Side<'_>, n: NodeId) -> bool {
    let [Some(sums), Some(last)] = side.graph().node(n).inputs[..] else { return false };
    side.producer(sums).is_some_and(|before| {
        let node = side.graph().node(before);
        node.op == "CumSum" && node.inputs.first() == Some(&Some(last))
    })
}

/// Whether what a node writes is read as whole numbers alone.
fn becomes_whole(side: &Side<'_>, n: NodeId) -> bool {
    let mut readers = side.graph().node(n).writes().flat_map(|v| side.consumers[v.index()].iter().copied());
    let whole = |n: NodeId| {
        let mut written = side.graph().node(n).writes().filter_map(|v| side.declared.get(v));
        side.graph().node(n).op == "Cast" && written.all(|t| t.dtype().is_int())
    };
    let first = readers.next();
    first.is_some_and(whole) && readers.all(whole)
}

/// Whether a node cuts off a border: it reads what a convolution or a pool writes, or is read by one, other cuts between.
fn crops(side: &Side<'_>, n: NodeId) -> bool {
    let windows = |n: NodeId| {
        let op = side.graph().node(n).op.as_str();
        op.contains("Conv") || op.ends_with("Pool")
    };
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
        let size = |v: ValueId| side.declared.get(v).map(|t| (t.rank(), t.len()));
        let [reader] = side.consumers[written.index()][..] else { return false };
        let longer = size(read).zip(size(written)).is_some_and(|((r, x), (s, y))| r == s && r > 2 && x < y);
        if !longer || !matches!(node.op.as_str(), "Gather" | "Concat" | "Pad") {
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

/// Whether a node gives the argument of a curve its factor, where the curve gates the very value: `x f(a x)` is another
/// activation than `x f(x)`, unless `a` is meant to be one.
fn bends(side: &Side<'_>, n: NodeId) -> bool {
    let node = side.graph().node(n);
    let number =
        node.inputs.iter().flatten().find(|&&v| side.is_constant(v)).and_then(|&v| side.shadow.get(v));
    let factor = number.filter(|t| t.len() == 1).and_then(|t| t.to_f64().ok().map(|x| x[0]));
    let [x] = side.dynamic_inputs(n)[..] else { return false };
    let readers = |n: NodeId| {
        let written = side.graph().node(n).writes();
        written.flat_map(|v| side.consumers[v.index()].iter().copied()).collect::<Vec<_>>()
    };
    let gates = |m: NodeId| {
        let node = side.graph().node(m);
        node.op == "Mul" && node.inputs.contains(&Some(x))
    };
    factor.is_some_and(|f| !is_nearly_right(f))
        && readers(n)
            .into_iter()
            .any(|c| is_activation(&side.graph().node(c).op) && readers(c).into_iter().any(gates))
}

/// Whether what is computed from a value element by element hides entries, and serves nothing else.
pub fn feeds_mask(side: &Side<'_>, v: ValueId) -> bool {
    let mut seen = vec![v];
    let mut hides = false;
    let mut at = 0;
    while at < seen.len() {
        let value = seen[at];
        at += 1;
        let tensor = side.shadow.get(value);
        if value != v && tensor.is_some_and(masks) {
            hides = true;
            continue;
        }
        if seen.len() > 4 * STEPS {
            return false;
        }
        for &n in &side.consumers[value.index()] {
            let node = side.graph().node(n);
            match node.op.as_str() {
                "Shape" | "Size" => {}
                "Where" | "And" | "Or" | "Not" if node.inputs.first() == Some(&Some(value)) => hides = true,
                op if is_layout(op)
                    || matches!(
                        op,
                        "Cast"
                            | "Slice"
                            | "Concat"
                            | "Identity"
                            | "Gather"
                            | "ScatterND"
                            | "Sub"
                            | "Mul"
                            | "Add"
                    ) && (op != "Gather" || node.inputs.first() == Some(&Some(value))) =>
                {
                    seen.extend(node.writes().filter(|w| !seen.contains(w)).collect::<Vec<_>>());
                }
                "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => hides = true,
                _ => return false,
            }
        }
    }
    hides
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
    let shape = |v: ValueId| side.declared.get(v).map(Tensor::shape);
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

/// Whether what a node writes becomes, with nothing but masks and layouts between, the argument of a softmax.
pub fn is_score(side: &Side<'_>, n: NodeId) -> bool {
    let mut at = n;
    for _ in 0..STEPS {
        let Some(v) = side.graph().node(at).writes().next() else { return false };
        let [next] = side.consumers[v.index()][..] else { return false };
        let node = side.graph().node(next);
        match node.op.as_str() {
            "Softmax" => return true,
            op if is_layout(op) || matches!(op, "Cast" | "Add" | "Where" | "Mul" | "Div") => at = next,
            _ => return false,
        }
    }
    false
}

/// Whether numbers depend on the distance of two positions alone: the same along each diagonal.
fn by_distance(tensor: &Tensor) -> bool {
    let [.., rows, columns] = *tensor.shape() else { return false };
    same_along_diagonals(tensor, rows, columns, 1)
}

/// Whether a table holds, for each channel or head, numbers that depend on the distance of two positions alone.
fn is_by_distance(tensor: &Tensor) -> bool {
    let channels = || match *tensor.shape() {
        [.., rows, columns, width] if rows == columns => same_along_diagonals(tensor, rows, columns, width),
        _ => false,
    };
    tensor.dtype().is_float() && (by_distance(tensor) || channels())
}

fn same_along_diagonals(tensor: &Tensor, rows: usize, columns: usize, width: usize) -> bool {
    let Ok(x) = tensor.to_f64() else { return false };
    let at = |m: &[f64], i: usize, j: usize, c: usize| m[(i * columns + j) * width + c];
    rows > 2
        && columns > 2
        && width > 0
        && x.iter().any(|v| *v != x[0])
        && x.chunks(rows * columns * width).all(|m| {
            (0..width).all(|c| {
                let same = |i: usize, j: usize| at(m, i, j, c) == at(m, i - 1, j - 1, c);
                (1..rows).all(|i| (1..columns).all(|j| same(i, j)))
            })
        })
}
