//! A network in half precision beside one in single: what the conversion of a model does to its constants.
//!
//! Where one side as a whole computes in a narrower type, its constants are the other side's rounded to that type. They
//! are the same constants, so that what is left of a difference in float64 is not that rounding's but a fault's.

use isotrace_graph::ValueId;
use isotrace_ops::budget::Unit;
use isotrace_tensor::{DType, Tensor};

use crate::judge::{Evidence, Judge, SMALL, alike, moderate_rms, rank, samples};
use crate::relation::{Probe, candidates, cut};
use crate::signature::Kind;
use crate::state::Match;
use crate::{Relation, Side};

/// Where converters clamp what a narrower type cannot hold, if not at its largest number: onnxconverter-common and
/// ONNX Runtime's `convert_float_to_float16` take 1e4 (`max_finite_val`).
const CLAMP: f64 = 1e4;

/// The type that rounds more, where two types do not round alike.
pub fn coarser(x: DType, y: DType) -> Option<DType> {
    let (u, v) = (x.unit_roundoff()?, y.unit_roundoff()?);
    (u != v).then_some(if u > v { x } else { y })
}

/// Whether one of two numbers is too large for `narrow` and the other what a conversion makes of it.
pub fn clamped(x: f64, y: f64, narrow: DType) -> bool {
    let largest = narrow.largest_finite().unwrap_or(f64::INFINITY);
    let (small, large) = if x.abs() < y.abs() { (x, y) } else { (y, x) };
    large.abs() > largest && small.abs() >= CLAMP.min(largest) && (small < 0.0) == (large < 0.0)
}

/// Whether `narrow` is `wide` rounded to its type, element by element. Below the normal numbers a spacing to either
/// side will do: converters keep small numbers from vanishing.
pub fn is_rounding(wide: &Tensor, narrow: &Tensor) -> bool {
    let dtype = narrow.dtype();
    let unit = Unit::of(dtype);
    let Ok(rounded) = wide.cast(dtype) else { return false };
    let (Ok(wide), Ok(rounded), Ok(narrow)) = (wide.to_f64(), rounded.to_f64(), narrow.to_f64()) else {
        return false;
    };
    let same = |((&w, &r), &n): ((&f64, &f64), &f64)| {
        r == n
            || r.is_nan() && n.is_nan()
            || w.abs() < unit.tiny && (w - n).abs() <= unit.eta
            || clamped(w, n, dtype)
    };
    wide.iter().zip(rounded.iter()).zip(narrow.iter()).all(same)
}

/// Whether one of two tensors, the one of type `narrow`, is the other rounded to that type.
fn rounds(own: &Tensor, theirs: &Tensor, narrow: DType) -> bool {
    if narrow == own.dtype() { is_rounding(theirs, own) } else { is_rounding(own, theirs) }
}

/// `theirs` in the type of `own`; where that type cannot hold a number, the number that `own` has there.
pub fn cast_like(theirs: &Tensor, own: &Tensor) -> Option<Tensor> {
    let cast = theirs.cast(own.dtype()).ok()?;
    if coarser(theirs.dtype(), own.dtype()) != Some(own.dtype()) || cast.shape() != own.shape() {
        return Some(cast);
    }
    let (wide, narrow) = (theirs.to_f64().ok()?, own.to_f64().ok()?);
    if !wide.iter().zip(narrow.iter()).any(|(&x, &y)| clamped(x, y, own.dtype())) {
        return Some(cast);
    }
    let kept = wide.iter().zip(narrow.iter()).map(|(&x, &y)| if clamped(x, y, own.dtype()) { y } else { x });
    Tensor::from_vec(own.shape(), kept.collect::<Vec<f64>>()).ok()?.cast(own.dtype()).ok()
}

impl Judge<'_, '_> {
    /// The type to which one side rounds what the other keeps wider, where that is no fault: it is the one in which
    /// that side computes, or the user allows it. `own` is B's type, `theirs` is A's.
    pub fn rounds_to(&self, own: DType, theirs: DType) -> Option<DType> {
        let narrow = coarser(own, theirs)?;
        let side = if narrow == own { self.b } else { self.a };
        (narrow == side.main || self.allowed.contains(&narrow)).then_some(narrow)
    }

    /// Whether one of two constants is the other rounded to the type in which its side computes.
    pub fn rounded_alike(&self, b: ValueId, a: ValueId) -> bool {
        let (Some(own), Some(theirs)) = (self.b.declared.get(b), self.a.declared.get(a)) else {
            return false;
        };
        let narrow = self.rounds_to(own.dtype(), theirs.dtype());
        own.shape() == theirs.shape() && narrow.is_some_and(|narrow| rounds(own, theirs, narrow))
    }

    /// A's constant of the same name, where most of B's is it rounded and the rest is not: no conversion or folding leaves
    /// that, so there is nothing about it that rounding might explain.
    pub(crate) fn altered(&self, v: ValueId) -> Option<ValueId> {
        let own = self.b.declared.get(v).filter(|t| t.len() >= SMALL)?;
        let name = &self.b.graph().value(v).name;
        let candidates = self.index.alike(own.len(), Kind::of(own.dtype()), true).iter().copied();
        let mut named = candidates.filter(|&a| self.a.graph().value(a).name == *name);
        named.find(|&a| {
            let Some(theirs) = self.a.declared.get(a).filter(|t| t.shape() == own.shape()) else {
                return false;
            };
            let Some(narrow) = self.rounds_to(own.dtype(), theirs.dtype()) else { return false };
            let (wide, rounded) = if narrow == own.dtype() { (theirs, own) } else { (own, theirs) };
            let (Ok(wide), Ok(rounded)) =
                (wide.cast(narrow).and_then(|t| t.cast(DType::F64)), rounded.to_f64())
            else {
                return false;
            };
            let Ok(wide) = wide.to_f64() else { return false };
            let same = wide.iter().zip(rounded.iter()).filter(|(x, y)| x == y).count();
            same < own.len() && 2 * same > own.len()
        })
    }

    /// A's constant of which B's is the rounding, or the other way round; the one of the same name where there are
    /// several, else one of which it is a part. A handful of numbers is recognised by the name alone.
    pub(crate) fn rounded_constant(&self, v: ValueId) -> Option<Match> {
        let own = self.b.declared.get(v).filter(|t| t.dtype().is_float())?;
        let kind = Kind::of(own.dtype());
        let name = &self.b.graph().value(v).name;
        if own.len() < SMALL {
            let stored = |side: &Side<'_>, v: ValueId| side.graph().value(v).constant.is_some();
            let namesake = |a: &ValueId| stored(self.a, *a) && self.a.graph().value(*a).name == *name;
            let a = self.index.alike(own.len(), kind, true).iter().copied().find(namesake);
            let same = |_: &[usize], _: &[usize]| vec![Relation::Same];
            let rounded = a.filter(|a| stored(self.b, v) && self.rounded_alike(v, *a));
            let rounding = rounded.and_then(|a| self.rounding(own, a, same));
            return rounding.or_else(|| self.chained_constant(v));
        }
        let mut best: Option<Match> = None;
        for &a in self.index.alike(own.len(), kind, true) {
            let Some(found) = self.rounding(own, a, candidates) else { continue };
            let namesake = self.a.graph().value(a).name == *name;
            if best.as_ref().is_none_or(|b| rank(&found, namesake) < rank(b, false)) {
                best = Some(found);
            }
            if namesake {
                break;
            }
        }
        best.or_else(|| {
            let cuts = |a: &[usize], b: &[usize]| {
                let starts =
                    cut(a, b).into_iter().flat_map(|axis| (0..=a[axis] - b[axis]).map(move |s| (axis, s)));
                starts.map(|(axis, start)| Relation::Sliced { axis, start }).collect()
            };
            let mut larger = self.a.graph().value_ids().filter(|&a| {
                let shape = self.a.declared.shape(a);
                self.a.is_constant(a) && shape.is_some_and(|shape| cut(shape, own.shape()).is_some())
            });
            larger.find_map(|a| self.rounding(own, a, cuts).filter(|m| !m.degenerate))
        })
    }

    /// A constant of A of which `own` is the rounding under one of the `relations` that their shapes allow.
    fn rounding(
        &self,
        own: &Tensor,
        a: ValueId,
        relations: impl Fn(&[usize], &[usize]) -> Vec<Relation>,
    ) -> Option<Match> {
        let theirs = self.a.declared.get(a)?;
        let narrow = self.rounds_to(own.dtype(), theirs.dtype())?;
        let (x, y) = (theirs.to_f64().ok()?, own.to_f64().ok()?);
        let scale = moderate_rms(&x);
        let degenerate = self.index.is_degenerate(self.a, a);
        let mut relations = relations(theirs.shape(), own.shape());
        if degenerate {
            relations.truncate(1);
        }
        let fits = |relation: &Relation| {
            let probe = Probe::new(&x, theirs.shape(), own.shape(), relation);
            samples(y.len()).all(|i| alike(probe.at(i), y[i], scale, Some(narrow)))
                && relation.carry(theirs, own.shape()).is_some_and(|theirs| rounds(own, &theirs, narrow))
        };
        let relation = relations.into_iter().find(fits)?;
        Some(Match { a, relation, evidence: Evidence::Constants, degenerate })
    }

    /// The type to which one side rounds this value, see [`rounds_to`](Self::rounds_to).
    pub fn narrow_at(&self, v: ValueId, candidate: ValueId) -> Option<DType> {
        self.rounds_to(self.b.declared.dtype(v)?, self.a.declared.dtype(candidate)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Tensor {
        Tensor::from_vec(&[values.len()], values.to_vec()).unwrap()
    }

    fn halves(values: &[f32]) -> Tensor {
        f32s(values).cast(DType::F16).unwrap()
    }

    #[test]
    fn a_converted_constant_is_its_rounding() {
        for (wide, narrow, expected) in [
            (&[0.1f32, -3.0][..], &[0.099_975_586, -3.0][..], true),
            (&[0.1, -3.0], &[0.1001, -3.0], false),
            // Kept from vanishing.
            (&[1e-9, 1.0], &[5.96e-8, 1.0], true),
            (&[1e-9, 1.0], &[2e-7, 1.0], false),
            // Clamped, whichever way the converter does it.
            (&[f32::MIN, 1.0], &[-1e4, 1.0], true),
            (&[f32::MIN, 1.0], &[-65504.0, 1.0], true),
            (&[f32::MIN, 1.0], &[1e4, 1.0], false),
            (&[-2e4, 1.0], &[-1e4, 1.0], false),
        ] {
            assert_eq!(is_rounding(&f32s(wide), &halves(narrow)), expected, "{wide:?} {narrow:?}");
        }
    }

    #[test]
    fn a_cast_keeps_what_was_clamped() {
        let cast = cast_like(&f32s(&[f32::MIN, 0.5]), &halves(&[-1e4, 0.25])).unwrap();
        assert!(cast.bit_eq(&halves(&[-1e4, 0.5])));
    }
}
