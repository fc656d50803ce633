//! The part an input plays, told by what consumes it, for inputs whose names differ between two models.
//!
//! A role is a set of marks: each operator reached within a few steps with the slot it is entered by, and each
//! constant met on the way by a fingerprint that transposing and reshaping do not change. Weights are the best
//! witnesses: the input that indexes the same table is the same input.

use std::collections::BTreeSet;

use isotrace_graph::{Graph, NodeId, ValueId};
use isotrace_tensor::Tensor;

use crate::usage;

/// Steps followed from the input; two layers of glue around an embedding or a first product.
const STEPS: usize = 4;

/// What is seen from an input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Role {
    marks: BTreeSet<Mark>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Op(String, usize),
    Constant(usize, u64),
    Output(usize),
}

impl Role {
    /// The role of `input`.
    pub fn of(graph: &Graph, consumers: &[Vec<NodeId>], input: ValueId) -> Self {
        let mut marks = BTreeSet::new();
        let mut seen = vec![false; graph.values.len()];
        let mut front = vec![input];
        for _ in 0..STEPS {
            let mut next = Vec::new();
            for value in front {
                if std::mem::replace(&mut seen[value.index()], true) {
                    continue;
                }
                if let Some(place) = graph.outputs.iter().position(|&o| o == value) {
                    marks.insert(Mark::Output(place));
                }
                for &id in &consumers[value.index()] {
                    let node = graph.node(id);
                    for (slot, v) in node.inputs.iter().enumerate() {
                        match v {
                            // Glue differs between exporters; what it leads to does not.
                            Some(v)
                                if *v == value && (!usage::hands_on(node, slot) || node.op == "Gather") =>
                            {
                                marks.insert(Mark::Op(node.qualified_op(), slot));
                            }
                            Some(v) => {
                                if let Some(t) = usage::constant(graph, *v, 0).filter(|t| t.len() > 1) {
                                    marks.insert(Mark::Constant(t.len(), fingerprint(t)));
                                }
                            }
                            None => {}
                        }
                    }
                    next.extend(node.writes());
                }
            }
            front = next;
        }
        Self { marks }
    }

    /// How alike two roles are, 0 to 1: the share of marks they have in common, constants counted for more.
    pub fn likeness(&self, other: &Self) -> f64 {
        let weigh = |marks: &mut dyn Iterator<Item = &Mark>| -> f64 {
            marks.map(|m| if matches!(m, Mark::Constant(..)) { 4.0 } else { 1.0 }).sum()
        };
        let all = weigh(&mut self.marks.union(&other.marks));
        if all == 0.0 { 0.0 } else { weigh(&mut self.marks.intersection(&other.marks)) / all }
    }
}

/// A number that the elements determine, whatever their order.
fn fingerprint(tensor: &Tensor) -> u64 {
    let sum = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(0u64, |sum, x| {
            let mut z = x.to_bits().wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            sum.wrapping_add(z ^ z >> 31)
        })
    };
    // Tables of words are large: those of the usual type are read where they lie.
    if let Ok(values) = tensor.as_slice::<f32>() {
        return sum(&mut values.iter().map(|&x| f64::from(x)));
    }
    tensor.to_f64().map_or(0, |values| sum(&mut values.iter().copied()))
}
