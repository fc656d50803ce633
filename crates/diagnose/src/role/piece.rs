//! Functions of one number in pieces: which of them holds is decided by the number itself.

use isotrace_align::Side;
use isotrace_graph::{NodeId, ValueId};

use super::{STEPS, is_layout, is_truth, masks};

/// Whether a node decides, or helps to decide, which piece of a function holds: it compares a float, or makes one truth
/// of such comparisons, and all that comes of it is a choice between what is computed of that float, or a number. What
/// is chosen so hides nothing, as a softplus that goes on as a straight line does not.
pub fn chooses_piece(side: &Side<'_>, n: NodeId) -> bool {
    let Some(compared) = compared(side, n) else { return false };
    let (mut at, mut chosen) = (side.graph().node(n).writes().collect::<Vec<_>>(), false);
    if side.graph().node(n).op == "Where" {
        return has_pieces(side, n, compared);
    }
    for _ in 0..STEPS {
        let mut next = Vec::new();
        for &v in &at {
            for &r in &side.consumers[v.index()] {
                let node = side.graph().node(r);
                match node.op.as_str() {
                    "Where" if node.inputs.first() == Some(&Some(v)) && has_pieces(side, r, compared) => {
                        chosen = true;
                    }
                    "And" | "Or" | "Not" | "Identity" => next.extend(node.writes()),
                    op if is_layout(op) => next.extend(node.writes()),
                    _ => return false,
                }
            }
        }
        if next.is_empty() {
            break;
        }
        at = next;
    }
    chosen
}

/// The one float on which a truth, or a choice by it, depends.
fn compared(side: &Side<'_>, n: NodeId) -> Option<ValueId> {
    let mut at = n;
    for _ in 0..STEPS {
        let node = side.graph().node(at);
        let read = match node.op.as_str() {
            "Where" => node.inputs.first().copied().flatten()?,
            _ => *side.dynamic_inputs(at).first()?,
        };
        if side.declared.is_float(read) {
            let compares =
                matches!(node.op.as_str(), "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Equal");
            return (compares && side.dynamic_inputs(at).len() == 1).then_some(read);
        }
        if !is_truth(side, read) {
            return None;
        }
        at = side.producer(read)?;
    }
    None
}

/// Whether a choice is between the float, what is computed of it alone, and numbers that hide nothing; something at least
/// is computed of it.
fn has_pieces(side: &Side<'_>, n: NodeId, x: ValueId) -> bool {
    let pieces: Vec<ValueId> = side.graph().node(n).inputs.iter().skip(1).flatten().copied().collect();
    let number = |v: ValueId| side.is_constant(v) && side.shadow.get(v).is_some_and(|t| !masks(t));
    pieces.iter().all(|&v| number(v) || is_of(side, v, x)) && pieces.iter().any(|&v| is_of(side, v, x))
}

/// Whether a value is computed element by element of another one and numbers alone.
fn is_of(side: &Side<'_>, v: ValueId, x: ValueId) -> bool {
    let (mut seen, mut next) = (vec![v], 0);
    while next < seen.len() {
        let at = seen[next];
        next += 1;
        if at == x || side.is_constant(at) {
            continue;
        }
        let same = side.declared.count(at) == side.declared.count(x);
        let Some(n) = side.producer(at).filter(|_| same && seen.len() <= 4 * STEPS) else { return false };
        seen.extend(side.dynamic_inputs(n).into_iter().filter(|w| !seen.contains(w)).collect::<Vec<_>>());
    }
    seen.contains(&x)
}
