//! Values by the bits they hold in declared precision: what two networks compute alike is found without evaluating
//! it in float64.

use std::hash::Hasher;

use isotrace_graph::ValueId;
use isotrace_ops::parallel;
use isotrace_tensor::{DType, Tensor};
use rustc_hash::{FxHashMap, FxHasher};

use crate::judge::{Evidence, Judge, near, rank, samples};
use crate::state::{Match, State};
use crate::{Relation, signature};

/// Fewer elements may agree in every bit although the functions differ.
///
/// A function that is off by the share d changes the rounding of an element with probability d/u. That 1024 elements
/// keep all their bits leaves room for a d of 2^-34, which no budget of f32 could tell from rounding.
const MANY: usize = 1024;

/// Nodes from a value on in which bits of A's are looked for.
const MOST_STEPS: usize = 4;

/// Values of one side by a few of their bits, in flat order: shapes do not count.
#[derive(Debug, Default)]
pub(crate) struct Bits(FxHashMap<u64, Vec<ValueId>>);

impl Bits {
    /// Of the values among `values`, in their order, that are [`telling`].
    pub fn of<'t>(values: impl Iterator<Item = (ValueId, &'t Tensor)>) -> Self {
        let mut found: FxHashMap<u64, Vec<ValueId>> = FxHashMap::default();
        for (v, t) in values.filter(|(_, t)| telling(t)) {
            found.entry(sample(t, t.len() as u64)).or_default().push(v);
        }
        Self(found)
    }

    /// Those that may hold the same bits as `tensor`.
    pub fn like(&self, tensor: &Tensor) -> &[ValueId] {
        if !telling(tensor) {
            return &[];
        }
        self.0.get(&sample(tensor, tensor.len() as u64)).map_or(&[], Vec::as_slice)
    }
}

/// Whether equal bits say that two values are the same: of f32, and many.
fn telling(tensor: &Tensor) -> bool {
    tensor.dtype() == DType::F32 && tensor.len() >= MANY
}

/// Whether two tensors of one type hold the same bits in flat order, whatever their shapes.
pub(crate) fn same(x: &Tensor, y: &Tensor) -> bool {
    let (a, b) = (x.raw_bytes(), y.raw_bytes());
    x.dtype() == y.dtype() && x.len() == y.len() && (std::ptr::eq(a, b) || a == b)
}

/// A few bits spread over a tensor: equal for equal tensors, different for most others. `seed` is what else counts.
pub(crate) fn sample(tensor: &Tensor, seed: u64) -> u64 {
    const PIECES: usize = 32;
    const PIECE: usize = 8;
    let bytes = tensor.raw_bytes();
    let mut hasher = FxHasher::default();
    hasher.write_u64(seed);
    for i in 0..PIECES {
        let at = i * bytes.len().saturating_sub(PIECE) / (PIECES - 1);
        hasher.write(&bytes[at..bytes.len().min(at + PIECE)]);
    }
    hasher.finish()
}

/// The sum of the mixed bits of all numbers, in f64: equal for equal numbers in any order.
pub(crate) fn numbers_hash(tensor: &Tensor) -> u64 {
    let sum = |numbers: &mut dyn Iterator<Item = f64>| {
        numbers.fold(0u64, |sum, x| sum.wrapping_add(mixed(x.to_bits())))
    };
    let parts = if tensor.dtype() == DType::F32 {
        // Weights, read where they lie.
        let (elements, _) = tensor.raw_bytes().as_chunks::<4>();
        let number = |x: &[u8; 4]| f64::from(f32::from_le_bytes(*x));
        parallel::pieces(elements.len(), &|run| sum(&mut elements[run].iter().map(number)))
    } else {
        let Ok(values) = tensor.to_f64() else { return 0 };
        parallel::pieces(values.len(), &|run| sum(&mut values[run].iter().copied()))
    };
    parts.into_iter().fold(0, u64::wrapping_add)
}

/// Bits spread over the whole word (SplitMix64), so that sums of them tell multisets apart.
fn mixed(bits: u64) -> u64 {
    let z = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Judge<'_, '_> {
    /// The partner of a value of B in declared precision, where one holds the same bits: what two regions make of the
    /// same bits without differing in one of a thousand elements needs no float64.
    pub fn find_bits(&self, state: &State, v: ValueId, value: &Tensor) -> Option<Match> {
        if self.b.is_constant(v) || self.a.is_recorded() || self.b.is_recorded() {
            return None;
        }
        let holds = |c: ValueId| self.a.declared.get(c).is_some_and(|t| same(t, value));
        let candidates = self.a.bits().like(value);
        if !candidates.iter().any(|&c| holds(c)) || signature::is_degenerate(value) {
            return None;
        }
        let relation = |c: ValueId| match self.a.declared.get(c) {
            Some(t) if t.shape() == value.shape() => Relation::Same,
            _ => Relation::Reshaped,
        };
        let found = |c: ValueId| Match {
            a: c,
            relation: relation(c),
            evidence: Evidence::Bits,
            degenerate: self.index.is_degenerate(self.a, c),
        };
        // As in `find`: structure settles ties. What structure names and is nearly the same has to be looked at there.
        let hints = self.hints(state, v);
        let mut best: Option<Match> = None;
        for &hint in hints.iter().filter(|&&c| !self.a.is_constant(c)) {
            if !holds(hint) {
                if self.may_equal(hint, value) {
                    return None;
                }
                continue;
            }
            let m = found(hint);
            if m.relation == Relation::Same {
                return Some(m);
            }
            if best.as_ref().is_none_or(|b| rank(&m, true) < rank(b, true)) {
                best = Some(m);
            }
        }
        for &c in candidates.iter().filter(|&&c| !hints.contains(&c) && holds(c)) {
            let m = found(c);
            let settled = m.relation == Relation::Same && self.same_op(v, c);
            if best.as_ref().is_none_or(|b| rank(&m, false) < rank(b, hints.contains(&b.a))) {
                best = Some(m);
            }
            if settled {
                break;
            }
        }
        best
    }

    /// Whether a value that resembles nothing where structure looks is on the way to bits of A's: B's own run had them in
    /// what a few nodes, each of which alone reads what the one before wrote, make of it. Float64 need not be asked what
    /// lies between.
    pub(crate) fn comes_to_bits(&self, state: &State, v: ValueId, value: &Tensor) -> bool {
        if self.a.is_recorded() || self.b.is_recorded() {
            return false;
        }
        let graph = self.b.graph();
        let held =
            |v: ValueId| self.b.declared.at_hand(v).is_some_and(|t| self.a.holding(t).next().is_some());
        let next = |v: ValueId| {
            let [reader] = self.b.consumers[v.index()][..] else { return None };
            let mut writes = graph.node(reader).writes().filter(|_| !self.b.is_output(v));
            writes.next().filter(|_| writes.next().is_none())
        };
        let comes = std::iter::successors(next(v), |&v| next(v)).take(MOST_STEPS).any(held);
        comes && !self.hints(state, v).into_iter().any(|c| self.may_equal(c, value))
    }

    /// Whether a few elements of A's value and of B's are near each other, in flat order.
    pub(crate) fn may_equal(&self, candidate: ValueId, value: &Tensor) -> bool {
        let Some(theirs) = self.a.declared.get(candidate) else { return false };
        match (theirs.as_slice::<f32>(), value.as_slice::<f32>()) {
            (Ok(x), Ok(y)) if x.len() == y.len() => {
                let scale = samples(y.len()).map(|i| f64::from(y[i].abs())).fold(0.0, f64::max);
                samples(y.len()).all(|i| near(f64::from(x[i]), f64::from(y[i]), scale))
            }
            (Ok(_), Ok(_)) => false,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bits_are_found_in_any_shape_and_few_say_nothing() {
        let numbers = |n: usize, bent: Option<usize>| {
            (0..n).map(|i| (i as f32).sin() + if bent == Some(i) { 1.0 } else { 0.0 }).collect::<Vec<f32>>()
        };
        let values = [
            Tensor::from_vec(&[64, 32], numbers(2048, None)).unwrap(),
            Tensor::from_vec(&[2048], numbers(2048, Some(1001))).unwrap(),
            Tensor::vector(numbers(100, None)),
        ];
        let bits = Bits::of(values.iter().enumerate().map(|(i, t)| (ValueId(i as u32), t)));
        let flat = Tensor::vector(numbers(2048, None));
        let found: Vec<ValueId> =
            bits.like(&flat).iter().copied().filter(|v| same(&values[v.index()], &flat)).collect();
        assert_eq!(found, [ValueId(0)]);
        assert!(bits.like(&values[2]).is_empty(), "too few");
        assert!(bits.like(&flat.cast(DType::F16).unwrap()).is_empty(), "too coarse");
    }
}
