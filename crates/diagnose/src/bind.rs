//! Which input of B is which input of A, and which outputs belong together.
//!
//! By name; where names differ, by role: what is computed from them. Two inputs of one type and shape are never
//! bound by their order.

use std::hash::{Hash, Hasher};

use isotrace_graph::{Graph, ValueId};
use isotrace_tensor::Tensor;
use rustc_hash::{FxHashMap, FxHasher};

/// How deep into the graph an input's role is read.
const DEPTH: usize = 6;

/// Inputs that cannot be told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ambiguous {
    /// B's inputs.
    pub b: Vec<String>,
    /// A's inputs that each could be.
    pub a: Vec<String>,
}

/// Pairs every input of B with an input of A: `(b, a)`.
pub fn inputs(a: &Graph, b: &Graph) -> Result<Vec<(ValueId, ValueId)>, Ambiguous> {
    let name = |g: &Graph, v: ValueId| g.value(v).name.clone();
    let mut pairs = Vec::new();
    let mut open_a: Vec<ValueId> = a.inputs.clone();
    let mut open_b = Vec::new();
    for &v in &b.inputs {
        match open_a.iter().position(|&w| a.value(w).name == b.value(v).name) {
            Some(i) => pairs.push((v, open_a.remove(i))),
            None => open_b.push(v),
        }
    }
    if open_b.is_empty() {
        return Ok(pairs);
    }
    let (roles_a, roles_b) = (Roles::new(a), Roles::new(b));
    // From coarse to fine: a type and shape that occurs once needs no role.
    for depth in 0..=DEPTH {
        let key_a = |v: ValueId| (kind(a, v), roles_a.of(v, depth));
        let key_b = |v: ValueId| (kind(b, v), roles_b.of(v, depth));
        let mut found = Vec::new();
        for &v in &open_b {
            let key = key_b(v);
            let fits: Vec<ValueId> = open_a.iter().copied().filter(|&w| key_a(w) == key).collect();
            let rivals = open_b.iter().filter(|&&w| key_b(w) == key).count();
            if let ([w], 1) = (fits.as_slice(), rivals) {
                found.push((v, *w));
            }
        }
        for (v, w) in found {
            pairs.push((v, w));
            open_a.retain(|x| *x != w);
            open_b.retain(|x| *x != v);
        }
    }
    if open_b.is_empty() {
        return Ok(pairs);
    }
    Err(Ambiguous {
        b: open_b.iter().map(|&v| name(b, v)).collect(),
        a: open_a.iter().map(|&v| name(a, v)).collect(),
    })
}

/// Pairs outputs by name, the rest in order; `(b, a)`. Also says how many have no partner.
pub fn outputs(a: &Graph, b: &Graph) -> (Vec<(ValueId, ValueId)>, usize) {
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

fn kind(graph: &Graph, v: ValueId) -> String {
    format!("{:?}", graph.value(v).declared.as_ref().map(|d| (d.dtype, d.shape.as_ref().map(Vec::len))))
}

/// Hashes of what is computed from a value, names left out.
struct Roles<'g> {
    graph: &'g Graph,
    consumers: Vec<Vec<isotrace_graph::NodeId>>,
    constants: FxHashMap<ValueId, u64>,
}

impl<'g> Roles<'g> {
    fn new(graph: &'g Graph) -> Self {
        let hash = |t: &Tensor| {
            let mut h = FxHasher::default();
            t.dtype().hash(&mut h);
            t.len().hash(&mut h);
            h.write(t.bytes());
            h.finish()
        };
        let constants =
            graph.value_ids().filter_map(|v| Some((v, hash(graph.value(v).constant.as_ref()?)))).collect();
        Self { graph, consumers: graph.consumers(), constants }
    }

    fn of(&self, v: ValueId, depth: usize) -> u64 {
        let mut hasher = FxHasher::default();
        if depth == 0 {
            return hasher.finish();
        }
        let mut readers: Vec<u64> = Vec::new();
        for &n in &self.consumers[v.index()] {
            let node = self.graph.node(n);
            let mut h = FxHasher::default();
            node.op.hash(&mut h);
            for (slot, read) in node.inputs.iter().enumerate() {
                if *read == Some(v) {
                    // In a sum or a product no operand has a place of its own.
                    if !matches!(
                        node.op.as_str(),
                        "Add" | "Mul" | "Sum" | "And" | "Or" | "Max" | "Min" | "Equal"
                    ) {
                        slot.hash(&mut h);
                    }
                } else if let Some(read) = read {
                    self.constants.get(read).hash(&mut h);
                }
            }
            for out in node.writes() {
                self.of(out, depth - 1).hash(&mut h);
            }
            readers.push(h.finish());
        }
        readers.sort_unstable();
        readers.hash(&mut hasher);
        hasher.finish()
    }
}
