//! A's values by signature, and which of them hold the same numbers.

use std::cell::OnceCell;
use std::hash::Hasher;

use isotrace_graph::ValueId;
use isotrace_tensor::Tensor;
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHasher};

use crate::signature::{self, Kind, Signature, is_degenerate};
use crate::{Side, bits};

type Key = (usize, Kind, bool);

/// Every value of A that can be found by what it holds. What is looked for is looked at, nothing else: where both
/// sides hold the same bits no value is signed.
pub struct Index {
    /// Values by number of elements, kind, and whether they are constants.
    buckets: FxHashMap<Key, Bucket>,
    degenerate: Vec<OnceCell<bool>>,
    signatures: Vec<OnceCell<Option<Signature>>>,
    /// Constants by a few of their bits.
    constants: FxHashMap<u64, Vec<ValueId>>,
    /// The first value that holds the same numbers up to layout, as far as layout operators and flat order show.
    classes: Vec<ValueId>,
}

#[derive(Default)]
struct Bucket {
    values: Vec<ValueId>,
    /// With their sums of squares, sorted by them.
    squares: OnceCell<Vec<(f64, ValueId)>>,
}

impl Index {
    /// Lists every value of a side.
    pub fn new(side: &Side<'_>) -> Self {
        let graph = side.graph();
        let mut buckets: FxHashMap<Key, Bucket> = FxHashMap::default();
        let mut constants: FxHashMap<u64, Vec<ValueId>> = FxHashMap::default();
        for v in graph.value_ids() {
            let Some(t) = side.declared.get(v) else { continue };
            let key = (t.len(), Kind::of(t.dtype()), side.is_constant(v));
            buckets.entry(key).or_default().values.push(v);
            if side.is_constant(v) {
                constants.entry(sample(t)).or_default().push(v);
            }
        }
        let degenerate = vec![OnceCell::new(); graph.values.len()];
        let signatures = vec![OnceCell::new(); graph.values.len()];
        Self { buckets, degenerate, signatures, constants, classes: classes(side) }
    }

    /// Whether equality with a value says nothing.
    pub fn is_degenerate(&self, side: &Side<'_>, v: ValueId) -> bool {
        *self.degenerate[v.index()].get_or_init(|| side.declared.get(v).is_none_or(is_degenerate))
    }

    /// Constants that may hold the same bits as `tensor`.
    pub fn constants(&self, tensor: &Tensor) -> impl Iterator<Item = ValueId> {
        self.constants.get(&sample(tensor)).map_or(&[][..], Vec::as_slice).iter().copied()
    }

    /// Values with that many elements of a kind, constants or not.
    pub fn alike(&self, len: usize, kind: Kind, constant: bool) -> &[ValueId] {
        self.buckets.get(&(len, kind, constant)).map_or(&[], |b| &b.values)
    }

    /// The value that stands for all that hold the same numbers.
    pub fn class(&self, v: ValueId) -> ValueId {
        self.classes[v.index()]
    }

    /// Values of `side` that could hold the same numbers as `value`. The sums of squares tell most apart.
    pub fn lookup<'a>(
        &'a self,
        side: &'a Side<'_>,
        value: &Tensor,
        constant: bool,
    ) -> impl Iterator<Item = ValueId> + 'a {
        let bucket = self.buckets.get(&(value.len(), Kind::of(value.dtype()), constant));
        let squares = bucket.map_or(&[][..], |b| b.squares.get_or_init(|| squares(side, &b.values)));
        let (low, high) =
            if squares.is_empty() { (0.0, 0.0) } else { signature::window(signature::square(value)) };
        let from = squares.partition_point(|(square, _)| *square < low);
        let to = squares.partition_point(|(square, _)| *square <= high);
        let near = squares.get(from..to).unwrap_or_default();
        let looked_for = if near.is_empty() { None } else { Some(Signature::of(value)) };
        let close = move |v: ValueId| {
            let signed =
                self.signatures[v.index()].get_or_init(|| side.shadow.operand(v).map(|t| Signature::of(&t)));
            signed.as_ref().zip(looked_for.as_ref()).is_some_and(|(x, y)| x.close(y))
        };
        near.iter().map(|&(_, v)| v).filter(move |&v| close(v))
    }
}

/// Sums of squares of values in their float64 shadow.
fn squares(side: &Side<'_>, values: &[ValueId]) -> Vec<(f64, ValueId)> {
    let shadows: Vec<(Tensor, ValueId)> =
        values.iter().filter_map(|&v| Some((side.shadow.operand(v)?, v))).collect();
    let mut squares: Vec<_> = shadows.into_par_iter().map(|(t, v)| (signature::square(&t), v)).collect();
    squares.sort_by(|(x, v), (y, w)| x.total_cmp(y).then(v.cmp(w)));
    squares
}

/// For every value the first one that holds the same declared numbers.
fn classes(side: &Side<'_>) -> Vec<ValueId> {
    let graph = side.graph();
    let mut classes: Vec<ValueId> = graph.value_ids().collect();
    // By a few of their bits: those that agree in them are compared whole.
    let mut flat: FxHashMap<u64, Vec<ValueId>> = FxHashMap::default();
    let sources = graph.value_ids().filter(|&v| side.producer(v).is_none());
    let written = graph.nodes.iter().flat_map(isotrace_graph::Node::writes);
    for v in sources.chain(written) {
        let Some(tensor) = side.declared.get(v) else { continue };
        let moved = side.producer(v).filter(|&n| side.moves(n)).and_then(|n| {
            let from = *side.dynamic_inputs(n).first()?;
            (side.declared.count(from)? == tensor.len() && is_rearrangement(graph.node(n).op.as_str()))
                .then(|| classes[from.index()])
        });
        let alike = flat.entry(bits::sample(tensor, tensor.len() as u64)).or_default();
        let first = alike.iter().find(|&&w| side.declared.get(w).is_some_and(|w| same_elements(w, tensor)));
        classes[v.index()] = moved.or(first.map(|&w| classes[w.index()])).unwrap_or(v);
        if first.is_none() {
            alike.push(v);
        }
    }
    classes
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

/// Whether two tensors hold the same bits in flat order, whatever their shapes.
fn same_elements(x: &Tensor, y: &Tensor) -> bool {
    let (a, b) = (x.raw_bytes(), y.raw_bytes());
    x.len() == y.len() && (std::ptr::eq(a, b) || a == b) && x.as_strings().ok() == y.as_strings().ok()
}

/// A few bits spread over a tensor, with its type and shape.
fn sample(tensor: &Tensor) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(format!("{}{:?}", tensor.dtype(), tensor.shape()).as_bytes());
    bits::sample(tensor, hasher.finish())
}
