//! Which outputs belong together.

use isotrace_graph::{Graph, ValueId};

/// Pairs outputs by name, the rest in order; `(b, a)`. Also says how many have no partner.
pub fn pair(a: &Graph, b: &Graph) -> (Vec<(ValueId, ValueId)>, usize) {
    let mut pairs = Vec::new();
    let mut open_a = a.outputs.clone();
    let mut open_b = Vec::new();
    for &v in &b.outputs {
        match open_a.iter().position(|&w| a.value(w).name == b.value(v).name) {
            Some(i) => pairs.push((v, open_a.remove(i))),
            None => open_b.push(v),
        }
    }
    let unpaired = open_a.len().abs_diff(open_b.len());
    pairs.extend(open_b.into_iter().zip(open_a));
    (pairs, unpaired)
}
