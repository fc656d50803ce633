//! Scores of a softmax, and what hides some of them.

use isotrace_align::Side;
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::{DType, Tensor};

use super::{STEPS, is_layout};

/// An additive number this far below zero hides what it is added to.
const MASKING: f64 = -1e3;

/// Whether a tensor hides some entries and lets others pass: very negative against zero, or truth values.
pub fn masks(tensor: &Tensor) -> bool {
    if tensor.dtype() == DType::Bool {
        return true;
    }
    let Ok(values) = tensor.to_f64() else { return false };
    let hides = |x: f64| x < MASKING;
    // Where nothing passes, what hides is one number: others that are as far below zero are data.
    values.iter().any(|&x| hides(x))
        && values.iter().all(|&x| hides(x) || x.abs() < 1.0)
        && (values.iter().any(|&x| !hides(x)) || values.iter().all(|&x| x == values[0]))
}

/// Whether a value is a choice that was made of whole numbers or truth values, as floats: 0 leaves out, 1 lets pass.
pub(super) fn leaves_out(side: &Side<'_>, v: ValueId) -> bool {
    let mut at = v;
    for _ in 0..STEPS {
        let Some(n) = side.producer(at) else { break };
        let op = side.graph().node(n).op.as_str();
        let [next] = side.dynamic_inputs(n)[..] else { return false };
        let chosen = |v: ValueId| side.declared.dtype(v).is_some_and(|d| !d.is_float());
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

/// Whether a node takes from running sums what was summed last: sums of all that came before.
pub(super) fn leaves_itself_out(side: &Side<'_>, n: NodeId) -> bool {
    let [Some(sums), Some(last)] = side.graph().node(n).inputs[..] else { return false };
    side.producer(sums).is_some_and(|before| {
        let node = side.graph().node(before);
        node.op == "CumSum" && node.inputs.first() == Some(&Some(last))
    })
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
pub(super) fn by_distance(tensor: &Tensor) -> bool {
    let [.., rows, columns] = *tensor.shape() else { return false };
    same_along_diagonals(tensor, rows, columns, 1)
}

/// Whether a table holds, for each channel or head, numbers that depend on the distance of two positions alone.
pub(super) fn is_by_distance(tensor: &Tensor) -> bool {
    let channels = || match *tensor.shape() {
        [.., rows, columns, width] if rows == columns => same_along_diagonals(tensor, rows, columns, width),
        _ => false,
    };
    tensor.dtype().is_float() && !is_identity(tensor) && (by_distance(tensor) || channels())
}

/// Whether a tensor is a unit matrix: what a learned frame turns about says nothing of where anything stands.
pub(super) fn is_identity(t: &Tensor) -> bool {
    let [.., rows, columns] = *t.shape() else { return false };
    let Ok(x) = t.to_f64() else { return false };
    let unit = |(i, v): (usize, &f64)| *v == f64::from(u8::from(i / columns % rows == i % columns));
    rows == columns && rows > 1 && x.iter().enumerate().all(unit)
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
