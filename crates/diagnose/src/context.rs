//! What a value is for: masks and positions are not data, and what goes wrong in
//! them is called after them.
//!
//! An integer one too large is an `index` in a table of words, a `mask` in the comparison that hides the future, and a
//! `rope` in the positions from which angles are computed. The operator at fault does not tell these apart; where its
//! result goes does. So a value is followed through operators that only prepare it to the node that uses it.

use isotrace_align::Side;
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::Tensor;

use crate::role;

/// Values followed before giving up: masks and positions are prepared in a dozen nodes.
const FOLLOWED: usize = 96;
/// Operators between scores and their softmax, or between their product and the sum with a mask.
const NEAR: usize = 6;
/// Where a value ends up.
enum End {
    /// It is only prepared here: go on with what the node writes.
    Prepared,
    /// It says what is hidden, or where something stands.
    Is(&'static str),
    /// It is data like any other.
    Data,
}

/// `mask` where a value says which entries are hidden, `rope` where it says how positions enter, `padding` where it
/// says how wide a border is, `activation` where it says which piece of a function holds, and `None` where it is data or
/// serves several purposes.
pub fn purpose(side: &Side<'_>, v: ValueId) -> Option<&'static str> {
    let mut seen = vec![v];
    let mut next = 0;
    let mut found = None;
    while next < seen.len() {
        if seen.len() > FOLLOWED {
            return None;
        }
        let v = seen[next];
        next += 1;
        if side.is_output(v) {
            return None;
        }
        for &n in &side.consumers[v.index()] {
            match end(side, v, n) {
                End::Data => return None,
                End::Is(class) if found.is_some_and(|f| f != class) => return None,
                End::Is(class) => found = Some(class),
                End::Prepared => {
                    for w in side.graph().node(n).writes() {
                        if !seen.contains(&w) {
                            seen.push(w);
                        }
                    }
                }
            }
        }
    }
    found
}

fn end(side: &Side<'_>, v: ValueId, n: NodeId) -> End {
    let node = side.graph().node(n);
    let op = node.op.as_str();
    let slot = node.inputs.iter().position(|i| *i == Some(v)).unwrap_or(0);
    let value = |v: ValueId| side.declared.get(v);
    let Some(own) = value(v) else { return End::Data };
    let hides = role::masks(own) && own.dtype().is_float();
    // Truth values and integers are prepared by any operator; so is what depends on no input, and what is 0 or 1.
    let prepares = !own.dtype().is_float() || side.is_constant(v) || hides || role::is_choice(own);
    let result = node.writes().next();
    match op {
        "Cos" | "Sin" if role::is_of_angles(side, n) => End::Is("rope"),
        "Pad" if slot == 1 => End::Is("padding"),
        _ if role::is_attention(op) && slot >= 3 => {
            if role::masks(own) {
                End::Is("mask")
            } else if own.dtype().is_float() {
                End::Is("rope")
            } else {
                End::Data
            }
        }
        // A time or a place on its way to the waves that encode it.
        "Mul" | "Div" | "Add" | "Sub"
            if own.dtype().is_float() && result.is_some_and(|r| reaches(side, r, &["Cos", "Sin"], NEAR)) =>
        {
            End::Prepared
        }
        "Where" if slot == 0 && side.producer(v).is_some_and(|p| role::chooses_piece(side, p)) => {
            End::Is("activation")
        }
        "Where" if slot == 0 => {
            let chosen = result.and_then(value);
            if chosen.is_some_and(|t| !t.dtype().is_float()) { End::Prepared } else { End::Is("mask") }
        }
        // Whatever a softmax follows: what hides in front of it is a mask.
        "Add" | "Sub" | "Where"
            if hides && result.is_some_and(|r| !side.is_constant(r) && before_softmax(side, r)) =>
        {
            End::Is("mask")
        }
        "Add" | "Sub" if own.dtype().is_float() => {
            let among_scores = result.is_some_and(|r| is_scores(side, r));
            let by_place = side.is_constant(v)
                && own.shape().last().is_some_and(|&d| d > 1)
                && own.rank() >= 2
                && own.to_f64().is_ok_and(|x| x.iter().any(|y| *y != x[0]));
            if among_scores && (by_place || !side.is_constant(v) && says_places(side, v)) {
                End::Is("rope")
            } else if among_scores && !side.is_constant(v) && !hides {
                End::Data
            } else if prepares
                && result.is_some_and(|r| side.is_constant(r) || value(r).is_some_and(is_prepared))
            {
                End::Prepared
            } else {
                End::Data
            }
        }
        "Mul"
            if role::is_rotary(side, v)
                && !result.is_some_and(|r| side.is_constant(r) || role::is_rotary(side, r)) =>
        {
            End::Is("rope")
        }
        "Gather" if slot == 1 && result.is_none_or(|r| value(r).is_none_or(|t| t.dtype().is_float())) => {
            // A table by place, added to scores, or a table of angles; a table of words is data.
            if result.is_some_and(|r| leads_to_scores(side, r) || role::is_rotary(side, r)) {
                End::Is("rope")
            } else {
                End::Data
            }
        }
        // How many places there are that are not hidden.
        "ReduceSum" if own.dtype().is_float() && role::is_choice(own) => End::Is("mask"),
        "MatMul" | "Einsum" if result.is_some_and(|r| reaches(side, r, &["Cos", "Sin"], NEAR)) => {
            End::Prepared
        }
        "Softmax" | "LogSoftmax" | "TopK" | "ArgMax" | "ArgMin" => End::Data,
        "ScatterElements" | "ScatterND" if slot == 1 && !side.is_constant(v) => End::Data,
        "Concat" if role::joins_border(side, n, v) => End::Is("padding"),
        "Expand" | "Tile" if own.dtype().is_float() && role::becomes_border(side, n) => End::Prepared,
        _ if role::is_product(op) || role::is_normalisation(op) => End::Data,
        _ if role::is_layout(op) && says_places(side, v) => End::Prepared,
        _ if prepares || role::is_layout(op) && result.is_some_and(|r| value(r).is_some_and(is_prepared)) => {
            // What is prepared may still meet data: a hidden state times 0 or 1.
            match result.and_then(value) {
                Some(t)
                    if !t.dtype().is_float()
                        || is_prepared(t)
                        || result.is_some_and(|r| side.is_constant(r)) =>
                {
                    End::Prepared
                }
                _ if matches!(op, "Mul" | "And") && role::is_choice(own) => End::Is("mask"),
                _ => End::Data,
            }
        }
        _ => End::Data,
    }
}

/// Whether a value is more than a choice and is computed from whole numbers and truth values alone, without weights: how
/// far apart two positions are.
fn says_places(side: &Side<'_>, v: ValueId) -> bool {
    let varied = side.declared.get(v).and_then(|t| t.to_f64().ok()).is_some_and(|x| {
        let mut numbers = x.into_owned();
        numbers.sort_unstable_by(f64::total_cmp);
        numbers.dedup();
        numbers.len() > 2 && numbers[0] > -1e3
    });
    let mut seen = vec![v];
    let mut next = 0;
    while varied && next < seen.len() {
        let v = seen[next];
        next += 1;
        match side.producer(v) {
            None if side.declared.dtype(v).is_some_and(|d| !d.is_float()) => {}
            Some(n) if seen.len() <= FOLLOWED => {
                let op = side.graph().node(n).op.as_str();
                let reads = side.dynamic_inputs(n);
                // Rows of a table are chosen by places too, but are learned.
                if role::is_product(op) || role::is_normalisation(op) || op.starts_with("Gather") {
                    return false;
                }
                seen.extend(reads.into_iter().filter(|r| !seen.contains(r)).collect::<Vec<_>>());
            }
            _ => return false,
        }
    }
    varied
}

/// Whether a tensor is a mask on its way, or no float.
fn is_prepared(t: &Tensor) -> bool {
    !t.dtype().is_float() || role::masks(t) || role::is_choice(t)
}

/// Whether a softmax follows through operators that work element by element, and a product of two computed values
/// lies behind: scores of an attention.
fn is_scores(side: &Side<'_>, v: ValueId) -> bool {
    before_softmax(side, v) && behind_product(side, v, NEAR)
}

fn before_softmax(side: &Side<'_>, v: ValueId) -> bool {
    let mut at = vec![v];
    for _ in 0..NEAR {
        let readers: Vec<NodeId> =
            at.iter().flat_map(|v| side.consumers[v.index()].iter().copied()).collect();
        if readers.iter().any(|&n| matches!(side.graph().node(n).op.as_str(), "Softmax" | "Exp")) {
            return true;
        }
        // Sinks, which take a share of the attention, are joined to the scores.
        let on = readers.iter().filter(|&&n| is_light(side, n) || side.graph().node(n).op == "Concat");
        at = on.flat_map(|&n| side.graph().node(n).writes()).collect();
    }
    false
}

fn is_light(side: &Side<'_>, n: NodeId) -> bool {
    let op = side.graph().node(n).op.as_str();
    role::is_layout(op)
        || matches!(
            op,
            "Add" | "Sub" | "Mul" | "Div" | "Cast" | "Where" | "Identity" | "Max" | "Min" | "Tanh" | "Clip"
        )
}

fn behind_product(side: &Side<'_>, v: ValueId, steps: usize) -> bool {
    let Some(n) = side.producer(v) else { return false };
    let node = side.graph().node(n);
    if role::is_product(&node.op) {
        return side.dynamic_inputs(n).len() >= 2;
    }
    steps > 0
        && is_light(side, n)
        && side.dynamic_inputs(n).into_iter().any(|r| behind_product(side, r, steps - 1))
}

/// Whether a value is added to scores, layout operators aside.
fn leads_to_scores(side: &Side<'_>, v: ValueId) -> bool {
    let mut at = vec![v];
    for _ in 0..NEAR {
        let readers: Vec<NodeId> =
            at.iter().flat_map(|v| side.consumers[v.index()].iter().copied()).collect();
        for &n in &readers {
            let node = side.graph().node(n);
            if node.op == "Add" && node.writes().any(|w| !side.is_constant(w) && is_scores(side, w)) {
                return true;
            }
        }
        let on = readers.iter().filter(|&&n| is_light(side, n));
        at = on.flat_map(|&n| side.graph().node(n).writes()).collect();
    }
    false
}

fn reaches(side: &Side<'_>, v: ValueId, ops: &[&str], steps: usize) -> bool {
    side.consumers[v.index()].iter().any(|&n| {
        let node = side.graph().node(n);
        ops.contains(&node.op.as_str())
            || steps > 0
                && (is_light(side, n) || matches!(node.op.as_str(), "Concat" | "Slice" | "Gather"))
                && node.writes().any(|w| reaches(side, w, ops, steps - 1))
    })
}
