//! A's values by signature, and which of them hold the same numbers.

use std::hash::Hasher;

use isotrace_graph::ValueId;
use isotrace_tensor::Tensor;
use rustc_hash::{FxHashMap, FxHasher};

use crate::Side;
use crate::signature::{Kind, Signature};

/// Every value of A that can be found by what it holds.
pub struct Index {
    signatures: Vec<Option<Signature>>,
    /// Values sorted by their sum of squares.
    buckets: FxHashMap<(usize, Kind, bool), Vec<(f64, ValueId)>>,
    /// The first value that holds the same numbers up to layout, as far as layout operators and flat order show.
    classes: Vec<ValueId>,
}

impl Index {
    /// Signs every value of a side, in its float64 shadow.
    pub fn new(side: &Side<'_>) -> Self {
        let graph = side.graph();
        let signatures: Vec<Option<Signature>> = {
            use rayon::prelude::*;
            side.shadow.values().par_iter().map(|t| t.as_ref().map(Signature::of)).collect()
        };
        let mut buckets: FxHashMap<(usize, Kind, bool), Vec<(f64, ValueId)>> = FxHashMap::default();
        for v in graph.value_ids() {
            if let Some(s) = &signatures[v.index()] {
                let key = (s.len, s.kind, side.is_constant(v));
                buckets.entry(key).or_default().push((s.moments[2], v));
            }
        }
        for bucket in buckets.values_mut() {
            bucket.sort_by(|x, y| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1)));
        }
        let mut classes: Vec<ValueId> = graph.value_ids().collect();
        let mut flat: FxHashMap<u64, ValueId> = FxHashMap::default();
        let sources = graph.value_ids().filter(|&v| side.producer(v).is_none());
        let written = graph.nodes.iter().flat_map(isotrace_graph::Node::writes);
        for v in sources.chain(written) {
            let Some(tensor) = side.shadow.get(v) else { continue };
            let moved = side.producer(v).filter(|&n| side.moves(n)).and_then(|n| {
                let from = *side.dynamic_inputs(n).first()?;
                (side.shadow.get(from)?.len() == tensor.len() && is_rearrangement(graph.node(n).op.as_str()))
                    .then(|| classes[from.index()])
            });
            let key = hash(tensor);
            let class = moved.unwrap_or_else(|| flat.get(&key).map_or(v, |&first| classes[first.index()]));
            classes[v.index()] = class;
            flat.entry(key).or_insert(v);
        }
        Self { signatures, buckets, classes }
    }

    /// The signature of a value.
    pub fn signature(&self, v: ValueId) -> Option<&Signature> {
        self.signatures[v.index()].as_ref()
    }

    /// The value that stands for all that hold the same numbers.
    pub fn class(&self, v: ValueId) -> ValueId {
        self.classes[v.index()]
    }

    /// Values that could hold the same numbers as one with this signature.
    pub fn lookup<'a>(
        &'a self,
        signature: &'a Signature,
        constant: bool,
    ) -> impl Iterator<Item = ValueId> + 'a {
        let bucket =
            self.buckets.get(&(signature.len, signature.kind, constant)).map_or(&[][..], Vec::as_slice);
        let (low, high) = signature.window();
        let start = bucket.partition_point(|(square, _)| *square < low);
        bucket[start..]
            .iter()
            .take_while(move |(square, _)| *square <= high)
            .map(|&(_, v)| v)
            .filter(|&v| self.signature(v).is_some_and(|s| s.close(signature)))
    }
}

/// Operators that keep every element once, in some order.
fn is_rearrangement(op: &str) -> bool {
    matches!(
        op,
        "Reshape"
            | "Transpose"
            | "Flatten"
            | "Squeeze"
            | "Unsqueeze"
            | "Identity"
            | "Cast"
            | "DepthToSpace"
            | "SpaceToDepth"
    )
}

/// The elements' bits in flat order, without the shape.
fn hash(tensor: &Tensor) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(tensor.bytes());
    hasher.write_usize(tensor.len());
    hasher.finish()
}
