//! Statistics, and what is brought to them: the parts of a normalisation, its gain and its shift.

use isotrace_align::Side;
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::Tensor;

use super::{STEPS, is_layout, is_normalisation, is_product, readers, squares};

/// A reduction over axes that are kept, seen from what is computed from it alone.
struct Statistic {
    /// Its elements, before they are repeated for all that it is about.
    len: usize,
    /// Whether a root or an inverse is taken of it.
    rooted: bool,
    /// Whether it is a mean.
    mean: bool,
}

fn statistic(side: &Side<'_>, v: ValueId) -> Option<Statistic> {
    let mut at = v;
    let (mut rooted, mut scaled) = (false, false);
    for _ in 0..STEPS {
        let n = side.producer(at)?;
        let node = side.graph().node(n);
        match node.op.as_str() {
            "ReduceMean" | "ReduceSum" | "ReduceSumSquare" | "ReduceL2" => {
                let rooted = rooted || node.op == "ReduceL2";
                let mean = scaled || node.op == "ReduceMean";
                return Some(Statistic { len: side.declared.count(at)?, rooted, mean });
            }
            op if is_layout(op)
                || matches!(
                    op,
                    "Cast" | "Mul" | "Div" | "Add" | "Sqrt" | "Reciprocal" | "Pow" | "Clip" | "Max"
                ) =>
            {
                rooted |= is_root(side, n);
                scaled |= matches!(node.op.as_str(), "Mul" | "Div");
                let [next] = side.dynamic_inputs(n)[..] else { return None };
                at = next;
            }
            _ => return None,
        }
    }
    None
}

/// Whether a node takes a root or an inverse; a power of more than one is neither.
fn is_root(side: &Side<'_>, n: NodeId) -> bool {
    let node = side.graph().node(n);
    let power = || {
        let exponent = node.inputs.get(1).copied().flatten().and_then(|v| side.shadow.get(v))?;
        exponent.to_f64().ok()?.first().copied()
    };
    matches!(node.op.as_str(), "Sqrt" | "Reciprocal") || node.op == "Pow" && power().is_none_or(|e| e < 1.0)
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
            let second = node.inputs.get(1).copied().flatten().filter(|v| written.contains(v));
            // What is taken off is a mean; a sum that is taken off is a part of a distance.
            let taken = |v| node.op == "Div" || node.op == "Sub" && statistic(side, v).is_none_or(|s| s.mean);
            is_root(side, *n) || second.is_some_and(taken)
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

/// Whether what a node writes, a power, is a statistic or becomes one that brings values to it. A power of anything else
/// that is taken off or divided by, as half the width of a box is of its centre, is none.
pub(super) fn is_of_statistic(side: &Side<'_>, n: NodeId) -> bool {
    let of_one = || side.dynamic_inputs(n).into_iter().any(|v| is_statistic(side, v));
    normalises(side, n) && of_one() || enters_statistic(side, n)
}

/// Whether a statistic that brings values to it is taken of what a node writes, or of its square, and nothing else.
pub fn enters_statistic(side: &Side<'_>, n: NodeId) -> bool {
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

/// Whether a node makes a mean of a sum, or a sum of a mean: it divides by how many there were, or multiplies by it.
pub(super) fn counts_summands(side: &Side<'_>, n: NodeId, number: &Tensor) -> bool {
    let len = |v: ValueId| side.declared.count(v);
    let summed = |v: ValueId| {
        let r = side.producer(v)?;
        let node = side.graph().node(r);
        let sums = matches!(node.op.as_str(), "ReduceSum" | "ReduceMean" | "GlobalAveragePool");
        let read = *side.dynamic_inputs(r).first()?;
        Some(len(read)? as f64 / len(v)?.max(1) as f64).filter(|count| sums && *count > 1.0)
    };
    let Some(count) = side.dynamic_inputs(n).first().and_then(|&v| summed(v)) else { return false };
    let by = number.to_f64().ok().filter(|x| x.len() == 1).map_or(0.0, |x| x[0]);
    [by / count, by * count].into_iter().any(|x| (x - 1.0).abs() < 1e-5)
}

/// Whether a node does something to what is brought down to one of many that is taken back behind it, or takes it back:
/// a root of a mean of squares in place of a mean, the least in place of the largest. What comes of it goes its own way;
/// where values are brought to it, it is a statistic.
pub(super) fn makes_another_mean(side: &Side<'_>, n: NodeId) -> bool {
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
pub(super) fn centres(side: &Side<'_>, n: NodeId) -> bool {
    let [Some(all), Some(mean)] = side.graph().node(n).inputs[..] else { return false };
    let all = side.declared.count(all).unwrap_or(0);
    statistic(side, mean).is_some_and(|s| s.len < all)
}

/// Whether a node divides by sums of the very value that it divides, each fetched from the group that it was added to: the
/// last step of a softmax over edges.
pub(super) fn is_share_of_group(side: &Side<'_>, n: NodeId) -> bool {
    let [Some(x), Some(mut at)] = side.graph().node(n).inputs[..] else { return false };
    let mut fetched = false;
    for _ in 0..STEPS {
        let Some(before) = side.producer(at) else { return false };
        let node = side.graph().node(before);
        let op = node.op.as_str();
        let reads = &node.inputs;
        let next = match op {
            "ScatterElements" | "ScatterND" => return fetched && reads.get(2) == Some(&Some(x)),
            "GatherElements" | "Gather" | "GatherND" => {
                fetched = true;
                reads.first()
            }
            op if is_layout(op) || matches!(op, "Add" | "Cast" | "Max" | "Clip") => reads.first(),
            _ => return false,
        };
        let Some(Some(next)) = next else { return false };
        at = *next;
    }
    false
}

/// What sums are divided by.
pub(super) enum Divisor {
    /// How many there were: a mean of what is there.
    Count,
    /// The sum of the weights that they were summed with.
    Weights,
}

/// What a node divides sums by, where it makes means of them. Sums over groups, and of what a mask leaves, have as many
/// summands as the data say.
pub(super) fn averages(side: &Side<'_>, n: NodeId) -> Option<Divisor> {
    let [Some(x), Some(by)] = side.graph().node(n).inputs[..] else { return None };
    let (summed, counted) = (summands(side, x)?, summands(side, by)?);
    let truths = side.declared.get(counted).and_then(|t| t.to_f64().ok());
    if truths.is_some_and(|t| t.iter().all(|x| *x == 0.0 || *x == 1.0)) {
        return Some(Divisor::Count);
    }
    let product = side.producer(summed).map(|p| side.graph().node(p)).filter(|p| p.op == "Mul")?;
    product.reads().any(|v| v == counted).then_some(Divisor::Weights)
}

/// What a value is the sums of, over an axis or over groups; small numbers that are added and bounds aside.
fn summands(side: &Side<'_>, v: ValueId) -> Option<ValueId> {
    let mut at = v;
    for _ in 0..STEPS {
        let node = side.graph().node(side.producer(at)?);
        let next = match node.op.as_str() {
            "ReduceSum" => return node.inputs.first().copied().flatten(),
            "ScatterElements" | "ScatterND" => return node.inputs.get(2).copied().flatten(),
            op if is_layout(op) || matches!(op, "Add" | "Cast" | "Max" | "Clip" | "Identity") => {
                node.inputs.first()
            }
            _ => return None,
        };
        at = next.copied().flatten()?;
    }
    None
}

/// Whether a product multiplies by the inverse of a statistic, which is how a division by it is written too.
pub(super) fn is_divided_out(side: &Side<'_>, n: NodeId) -> bool {
    let [Some(x), Some(y)] = side.graph().node(n).inputs[..] else { return false };
    let by = |all: ValueId, v: ValueId| {
        let all = side.declared.count(all).unwrap_or(0);
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
/// norm has become numbers, or brings an input to its range. An input that something else reads as it comes is brought to
/// none: a state decays, and is asked before.
pub(super) fn is_gain(side: &Side<'_>, n: NodeId) -> bool {
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
    let input = || side.producer(x).is_none() && side.consumers[x.index()].iter().all(|&m| m == n);
    is_normed(side, x) || product(x) && shifted() || before().unwrap_or_else(input)
}

/// Whether a node takes from an input of the network a mean for each channel: what is taken off it before any weight meets
/// it; a sum only where a deviation stands beside it, since what is added to an input may as well say where it stands.
pub(super) fn is_mean_of_input(side: &Side<'_>, n: NodeId) -> bool {
    let spread = |m: NodeId| {
        let node = side.graph().node(m);
        let wide = |v: &ValueId| side.is_constant(*v) && side.declared.get(*v).is_some_and(|t| t.len() > 1);
        matches!(node.op.as_str(), "Mul" | "Div") && node.inputs.iter().flatten().any(wide)
    };
    let mut brought = side.graph().node(n).op == "Sub" || readers(side, n).any(spread);
    let mut at = n;
    for _ in 0..STEPS {
        let [x] = side.dynamic_inputs(at)[..] else { return false };
        let Some(before) = side.producer(x) else { return brought };
        let op = side.graph().node(before).op.as_str();
        if !is_layout(op) && !matches!(op, "Cast" | "Mul" | "Div" | "Add" | "Sub") {
            return false;
        }
        brought |= spread(before);
        at = before;
    }
    false
}

/// Whether all that is made of what a node writes multiplies what a norm writes: `1 + w` is its gain.
pub(super) fn gains_follow(side: &Side<'_>, n: NodeId) -> bool {
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
pub(super) fn adds_to_statistic(side: &Side<'_>, n: NodeId) -> bool {
    side.dynamic_inputs(n).iter().any(|&v| is_statistic(side, v)) && normalises(side, n)
}

/// Whether a sum of two computed values is no meeting of branches: one of the two is the same for many places of the
/// other, as the shift is that a condition gives each channel.
pub(super) fn is_shift(side: &Side<'_>, n: NodeId) -> bool {
    let [Some(x), Some(y)] = side.graph().node(n).inputs[..] else { return false };
    let (Some(x), Some(y)) = (side.declared.get(x), side.declared.get(y)) else { return false };
    x.len() != y.len() && x.len().min(y.len()) > 1
}
