//! Encodings of position by rotation: what is an angle, a cosine or sine of it, and what is turned by them.

use isotrace_align::Side;
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::Tensor;

use super::{is_layout, is_normalisation, is_product, is_recurrent};

/// Whether a value is, or is computed from, the cosines and sines of positions.
pub fn is_rotary(side: &Side<'_>, v: ValueId) -> bool {
    let mut at = v;
    let mut scaled = false;
    for _ in 0..8 {
        let Some(n) = side.producer(at) else { break };
        let node = side.graph().node(n);
        match node.op.as_str() {
            "Cos" | "Sin" => return is_of_angles(side, n),
            // Tables are cast, reshaped and scaled between the function and its use.
            op if is_layout(op)
                || matches!(op, "Cast" | "Mul" | "Slice" | "Split" | "Concat" | "Identity")
                || op.starts_with("Gather") =>
            {
                let Some(next) = node.inputs.first().copied().flatten() else { break };
                scaled |= op == "Mul";
                at = next;
            }
            _ => break,
        }
    }
    // A stored table, or rows looked up in one; a product with a table may be what was turned already.
    let table = |v: ValueId| side.is_constant(v) && side.shadow.get(v).is_some_and(is_table_of_angles);
    table(v) || !scaled && table(at) || goes_with_its_other(side, v)
}

/// Whether a constant is the cosines or the sines by which a sum of two products turns: wherever the places lie, in one
/// dimension or more, the squares of the two add up to one number.
fn goes_with_its_other(side: &Side<'_>, v: ValueId) -> bool {
    let Some(own) = side.shadow.get(v).filter(|t| side.is_constant(v) && t.rank() >= 2 && t.len() >= FEW)
    else {
        return false;
    };
    let products =
        |v: ValueId| side.consumers[v.index()].iter().filter(|n| side.graph().node(**n).op == "Mul");
    let sums = products(v).flat_map(|&n| {
        let written = side.graph().node(n).writes();
        written.flat_map(|w| side.consumers[w.index()].iter()).map(move |&sum| (n, sum))
    });
    let others = sums
        .filter(|(_, sum)| matches!(side.graph().node(*sum).op.as_str(), "Add" | "Sub"))
        .flat_map(|(n, sum)| {
            let made = side.dynamic_inputs(sum).into_iter().filter_map(|v| side.producer(v));
            let other = made.filter(|&m| m != n && side.graph().node(m).op == "Mul");
            other.flat_map(|m| side.graph().node(m).reads().collect::<Vec<_>>()).collect::<Vec<_>>()
        });
    let theirs = others.filter(|&w| w != v && side.is_constant(w)).filter_map(|w| side.shadow.get(w));
    theirs.into_iter().any(|theirs| turn(own, theirs))
}

/// Elements below which two tables go together by chance.
const FEW: usize = 16;

/// Whether the squares of two tables add up to one number everywhere, and neither is that number everywhere.
fn turn(x: &Tensor, y: &Tensor) -> bool {
    let (Ok(x), Ok(y)) = (x.to_f64(), y.to_f64()) else { return false };
    if x.len() != y.len() || x.is_empty() {
        return false;
    }
    let all = x[0] * x[0] + y[0] * y[0];
    all > 0.0
        && x.iter().any(|v| (v - x[0]).abs() > ROTATION)
        && x.iter().zip(y.iter()).all(|(x, y)| (x * x + y * y - all).abs() <= ROTATION * all)
}

/// Operators between what positions are and the angles made of them.
const TO_ANGLES: usize = 12;

/// Whether a cosine or sine is taken of angles, and not of data as a periodic activation takes it: no weights lie on
/// the way. Positions times frequencies may be a product, of inner dimension one.
pub fn is_of_angles(side: &Side<'_>, n: NodeId) -> bool {
    let mut at = n;
    for _ in 0..TO_ANGLES {
        let Some(v) = side.dynamic_inputs(at).first().copied() else { return true };
        let Some(before) = side.producer(v) else { return true };
        let node = side.graph().node(before);
        let outer = node.inputs.first().copied().flatten().and_then(|v| side.declared.get(v));
        let outer = outer.is_some_and(|t| t.shape().last() == Some(&1));
        if is_normalisation(&node.op) || is_recurrent(&node.op) || is_product(&node.op) && !outer {
            return false;
        }
        at = before;
    }
    true
}

/// Whether a node is a product with what is computed: waves that it reads are a transform, by which a row is multiplied
/// and summed up, and no places.
pub fn transforms(side: &Side<'_>, n: NodeId) -> bool {
    is_product(&side.graph().node(n).op) && !side.dynamic_inputs(n).is_empty()
}

/// Whether a node multiplies by the cosines or sines of positions.
pub fn turns(side: &Side<'_>, n: NodeId) -> bool {
    let node = side.graph().node(n);
    node.op == "Mul" && node.inputs.iter().flatten().any(|&v| is_rotary(side, v))
}

/// Whether what is computed from a value is multiplied by the cosines or sines of positions.
pub fn is_rotated(side: &Side<'_>, v: ValueId) -> bool {
    side.consumers[v.index()].iter().any(|&n| {
        let node = side.graph().node(n);
        let by_angle =
            node.op == "Mul" && node.inputs.iter().flatten().any(|&r| r != v && is_rotary(side, r));
        by_angle || is_layout(&node.op) && node.writes().any(|w| is_rotated_once(side, w))
    })
}

fn is_rotated_once(side: &Side<'_>, v: ValueId) -> bool {
    side.consumers[v.index()].iter().any(|&n| {
        let node = side.graph().node(n);
        node.op == "Mul" && node.inputs.iter().flatten().any(|&r| r != v && is_rotary(side, r))
    })
}

/// Operators between a half of what is rotated and its product with the sines.
const TURNING_STEPS: usize = 6;

/// Whether a value is a half, or every other element, of what is turned for a rotation by position: negated or not and
/// put together anew, it is multiplied by cosines or sines.
pub fn is_turned(side: &Side<'_>, v: ValueId) -> bool {
    let mut at = vec![v];
    for _ in 0..TURNING_STEPS {
        if at.iter().any(|&v| is_rotated_once(side, v)) {
            return true;
        }
        let readers = at.iter().flat_map(|v| side.consumers[v.index()].iter().copied());
        let joins = |n: &NodeId| {
            let op = side.graph().node(*n).op.as_str();
            is_layout(op) || matches!(op, "Neg" | "Concat" | "Identity")
        };
        at = readers.filter(joins).flat_map(|n| side.graph().node(n).writes().collect::<Vec<_>>()).collect();
    }
    false
}

/// Whether a value has just been rotated by position: put together of products with cosines or sines.
pub fn was_turned(side: &Side<'_>, v: ValueId) -> bool {
    let mut at = vec![v];
    for _ in 0..TURNING_STEPS {
        let before: Vec<NodeId> = at.iter().filter_map(|&v| side.producer(v)).collect();
        let turns = |n: &NodeId| {
            let node = side.graph().node(*n);
            node.op == "RotaryEmbedding"
                || node.op == "Mul" && node.inputs.iter().flatten().any(|&r| is_rotary(side, r))
        };
        if before.iter().any(turns) {
            return true;
        }
        let joins = |n: &NodeId| {
            let op = side.graph().node(*n).op.as_str();
            is_layout(op) || matches!(op, "Add" | "Sub" | "Concat" | "Cast" | "Identity")
        };
        at = before.into_iter().filter(joins).flat_map(|n| side.dynamic_inputs(n)).collect();
    }
    false
}

/// Whether a node turns the sign of a half that is turned for a rotation, or of its product with the sines.
pub fn negates_for_rotation(side: &Side<'_>, n: NodeId) -> bool {
    let node = side.graph().node(n);
    let by_sines = |v: ValueId| {
        side.producer(v).is_some_and(|p| {
            let before = side.graph().node(p);
            before.op == "Mul" && before.inputs.iter().flatten().any(|&r| is_rotary(side, r))
        })
    };
    node.writes().any(|v| is_turned(side, v)) || side.dynamic_inputs(n).into_iter().any(by_sines)
}

/// How far a table's rows may be from those of a rotation.
const ROTATION: f64 = 2e-3;
/// The largest number in a table of cosines that were stretched for a long context.
const LARGEST: f64 = 2.0;

/// Whether the rows are cosines or sines of angles that grow evenly from row to row, each column at its own pace: then
/// `t[p + 1] + t[p - 1] = 2 cos(w) t[p]` in every column. Where rows do not follow each other (positions were chosen
/// from a table), the first is of position 0 and both halves of a row are the same. Long contexts make the whole table
/// a little larger.
fn is_table_of_angles(tensor: &Tensor) -> bool {
    let (Ok(values), [.., rows, width]) = (tensor.to_f64(), tensor.shape()) else { return false };
    let (rows, width) = (*rows, *width);
    let largest = values.iter().fold(0f64, |m, x| m.max(x.abs()));
    if !tensor.dtype().is_float()
        || width < 2
        || rows < 2
        || largest > LARGEST
        || values.iter().any(|x| x.is_nan())
    {
        return false;
    }
    let table = &values[..rows * width];
    let at = |p: usize, c: usize| table[p * width + c];
    if table.iter().all(|&x| x == table[0]) {
        return false;
    }
    let turns = |c: usize| {
        let inner = || 1..rows - 1;
        let (xy, xx) = inner().fold((0.0, 0.0), |(xy, xx), p| {
            (xy + (at(p - 1, c) + at(p + 1, c)) * at(p, c), xx + at(p, c) * at(p, c))
        });
        let k = if xx == 0.0 { 2.0 } else { xy / xx };
        let even = k.abs() <= 2.0 + ROTATION
            && inner().all(|p| (at(p - 1, c) + at(p + 1, c) - k * at(p, c)).abs() <= ROTATION);
        even.then_some(k)
    };
    // A grid of places grows evenly too, along straight lines.
    let paces: Option<Vec<f64>> = if rows >= 4 { (0..width).map(turns).collect() } else { None };
    if paces.is_some_and(|k| largest <= 1.0 + 1e-3 || k.iter().any(|k| *k < 2.0 - ROTATION)) {
        return true;
    }
    let first = (0..width).all(|c| at(0, c) == 0.0) || (0..width).all(|c| at(0, c) == largest);
    let half = width / 2;
    let halves = (0..rows).all(|p| (0..half).all(|c| at(p, c) == at(p, c + half)));
    let pairs = (0..rows).all(|p| (0..half).all(|c| at(p, 2 * c) == at(p, 2 * c + 1)));
    first && width % 2 == 0 && (halves || pairs)
}
