//! Bounds of nodes that were worked out before: behind every value of one long open region lie the same nodes, on the same
//! values.

use std::cell::RefCell;

use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::budget::Unit;
use isotrace_tensor::Tensor;
use rustc_hash::FxHashMap;

use crate::region::Uncertainty;

/// Nodes of a region from which on its bounds are kept. A fault leaves longer ones than what is fused or folded, and
/// tensors that are kept take memory.
pub const LONG: usize = 32;

/// What a node's bound follows from.
#[derive(Clone)]
pub struct Grounds {
    /// The precision, and whether the node rounds and its settings do.
    pub how: (Unit, bool, bool),
    /// What it reads and writes.
    pub values: Vec<Option<Tensor>>,
    /// What is uncertain about what it reads.
    pub entering: Vec<Option<Uncertainty>>,
}

impl PartialEq for Grounds {
    fn eq(&self, other: &Self) -> bool {
        // Tensors are the same where they lie in one place: they are kept, so that no other can lie there.
        let one = |x: &Tensor, y: &Tensor| std::ptr::eq(x.raw_bytes(), y.raw_bytes());
        let value = |(x, y): (&Option<Tensor>, &Option<Tensor>)| match (x, y) {
            (Some(x), Some(y)) => one(x, y),
            (x, y) => x.is_none() && y.is_none(),
        };
        let entering = |(x, y): (&Option<Uncertainty>, &Option<Uncertainty>)| match (x, y) {
            (Some(Uncertainty::Each(x)), Some(Uncertainty::Each(y))) => one(x, y),
            (Some(Uncertainty::Relative(x)), Some(Uncertainty::Relative(y))) => x == y,
            (x, y) => x.is_none() && y.is_none(),
        };
        self.how == other.how
            && self.values.len() == other.values.len()
            && self.values.iter().zip(&other.values).all(value)
            && self.entering.iter().zip(&other.entering).all(entering)
    }
}

/// What is uncertain about what a node writes.
pub type Made = Vec<(ValueId, Uncertainty)>;

/// The last bound of each node of a side, for what rounds and for what is folded.
#[derive(Default)]
pub struct Bounds {
    known: RefCell<FxHashMap<(NodeId, bool), (Grounds, Made)>>,
}

impl Bounds {
    /// The bound of a node on these grounds, if it was the last.
    pub fn get(&self, id: NodeId, grounds: &Grounds) -> Option<Made> {
        let known = self.known.borrow();
        known.get(&(id, grounds.how.1)).filter(|(of, _)| of == grounds).map(|(_, made)| made.clone())
    }

    /// Keeps the bound of a node.
    pub fn keep(&self, id: NodeId, grounds: Grounds, made: &Made) {
        self.known.borrow_mut().insert((id, grounds.how.1), (grounds, made.clone()));
    }
}
