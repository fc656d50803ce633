//! Products with a matrix that one side alone holds, found without float64.
//!
//! One exporter folds a norm into a convolution and another does not: what the two compute lies apart by the rounding of
//! the folded weights, by as much as half an ulp of each, and by that of the sums. float64 takes the latter away and
//! shows the former, which allows u times the sum of absolute products on either side. Where the declared values lie
//! hardly farther apart than that, it can show nothing more: unless what lies between them follows the values
//! themselves, as another scale or another epsilon does. That stands out of rounding far below any bound of single elements.

use std::ops::Range;

use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::budget::Unit;
use isotrace_ops::parallel;
use isotrace_tensor::{DType, Tensor};

use crate::comparison::Comparison;
use crate::judge::{Evidence, Judge};
use crate::signature::{self, Kind};
use crate::state::{Match, State};
use crate::{Relation, Side};

/// Half ulps of all its products together by which a sum may be off. Over ResNet-50's 53 folded norms the largest is 8.3.
const APART: f64 = 16.0;
/// The same, root mean square over a group. The largest there is 2.
const SPREAD: f64 = 4.0;
/// Half ulps by which a group may be scaled beyond what is certain. The largest there is 1.3.
const SCALED: f64 = 4.0;
/// Standard deviations beyond which a scale is no work of rounding.
const CERTAIN: f64 = 6.0;

impl Judge<'_, '_> {
    /// The partner that structure names for what a node of B makes of values in place and a matrix that A does not
    /// hold; `value` in declared precision.
    pub fn find_folded(&self, state: &State, id: NodeId, v: ValueId, value: &Tensor) -> Option<Match> {
        let plain = |side: &Side<'_>| !side.is_recorded() && side.main == DType::F32;
        let in_place =
            |r: ValueId| self.b.is_constant(r) || state.is_matched(r) && !state.narrowed[r.index()];
        // Of whatever A holds, up to layout, a partner would be known by now. What kept its name was not folded.
        let own_matrix = |r: ValueId| {
            let stored = self.b.graph().value(r).constant.as_ref();
            let matrix = stored.filter(|t| t.shape().iter().filter(|n| **n > 1).count() > 1);
            matrix.is_some_and(|t| !state.is_matched(r) && !self.has_namesake(r, t))
        };
        if self.b.is_constant(v)
            || !plain(self.a)
            || !plain(self.b)
            || value.dtype() != DType::F32
            || !self.b.graph().node(id).reads().all(in_place)
            || !self.b.graph().node(id).reads().any(own_matrix)
            || signature::is_degenerate(value)
        {
            return None;
        }
        let hints = self.hints(state, v);
        let further = self.further(&hints, value.len());
        // As in `find`: what is nowhere near need not be looked at, what is near has to be.
        let candidate = hints.into_iter().chain(further).find(|&c| {
            let theirs = self.a.declared.get(c).filter(|t| t.shape() == value.shape());
            !self.a.is_constant(c) && theirs.is_some() && self.may_equal(c, value)
        })?;
        let read = |r: ValueId| state.declared[r.index()].clone();
        let sizes = self.b.plan.magnitude(id, &read, &std::cell::OnceCell::new()).ok()??;
        let theirs = self.a.declared.get(candidate)?.as_slice::<f32>().ok()?;
        // A filter's plane, or the features of a token.
        let group = value.shape().iter().skip(2.min(value.rank().saturating_sub(1))).product();
        let found = within(value.as_slice().ok()?, theirs, sizes.as_slice().ok()?, group)?;
        Some(Match {
            a: candidate,
            relation: Relation::Same,
            evidence: Evidence::Folded(found),
            degenerate: self.index.is_degenerate(self.a, candidate),
        })
    }

    /// Whether A has a constant of this name and shape.
    fn has_namesake(&self, v: ValueId, tensor: &Tensor) -> bool {
        let name = &self.b.graph().value(v).name;
        let alike = self.index.alike(tensor.len(), Kind::of(tensor.dtype()), true);
        alike.iter().any(|&a| {
            let theirs = self.a.graph().value(a);
            theirs.name == *name && theirs.constant.as_ref().is_some_and(|t| t.shape() == tensor.shape())
        })
    }
}

/// How far B's elements are from A's, where that is rounding of weights and sums and no group of `group` elements is a
/// multiple of A's. `sizes` are the sums of absolute products.
fn within(own: &[f32], theirs: &[f32], sizes: &[f32], group: usize) -> Option<Comparison> {
    if own.len() != theirs.len() || own.len() != sizes.len() || group == 0 {
        return None;
    }
    let look = |run: Range<usize>| {
        let (mut along, mut square, mut spread, mut shares) = (0.0, 0.0, 0.0, 0.0);
        let mut found = Comparison::NONE;
        let len = run.len() as f64;
        for ((x, y), size) in theirs[run.clone()].iter().zip(&own[run.clone()]).zip(&sizes[run]) {
            let y = f64::from(*y);
            let apart = f64::from(*x) - y;
            let unit = Unit::F32.u * f64::from(*size);
            found = found.with(apart.abs(), APART * unit);
            shares += if apart == 0.0 { 0.0 } else { (apart / unit).powi(2) };
            let product = apart * y;
            along += product;
            square += y * y;
            spread += product * product;
        }
        let scaled = along.abs() > SCALED * Unit::F32.u * square + CERTAIN * spread.sqrt();
        let holds = found.share <= 1.0 && !scaled && shares <= SPREAD * SPREAD * len;
        holds.then_some(found)
    };
    let groups = own.len().div_ceil(group);
    let mut found: Vec<Option<Comparison>> = vec![None; groups];
    let together = parallel::GRAIN.div_ceil(group);
    parallel::chunks(&mut found, together, &|i, found| {
        for (k, place) in found.iter_mut().enumerate() {
            let from = (i * together + k) * group;
            *place = look(from..own.len().min(from + group));
        }
    });
    found.into_iter().try_fold(Comparison::NONE, |all, one| Some(all.and(one?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values about 1, apart by `apart` half ulps of their sizes in random directions, and scaled.
    fn pair(apart: f64, scaled: f64) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let (mut own, mut theirs, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        let mut seed = 7u64;
        for _ in 0..4096 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = (seed >> 33) as f64 / f64::from(1u32 << 30) - 1.0;
            let y = (random * 1000.0).sin() * 3.0;
            let size = 24.0;
            own.push(y as f32);
            theirs.push((y * (1.0 + scaled * Unit::F32.u) + apart * random * Unit::F32.u * size) as f32);
            sizes.push(size as f32);
        }
        (own, theirs, sizes)
    }

    #[test]
    fn rounding_of_weights_is_told_from_another_scale() {
        let cases = [
            ("rounding of weights and sums", 5.0, 0.0, true),
            ("too much of it everywhere", 12.0, 0.0, false),
            ("too much of it somewhere", 30.0, 0.0, false),
            ("a norm folded by another library", 2.0, 4.0, true),
            // An epsilon of 1e-6 for 1e-5 beside a variance of 1: 75 half ulps of the value, 9 of the sum's size.
            ("another epsilon, within the bound of each element", 2.0, 40.0, false),
        ];
        for (what, apart, scaled, holds) in cases {
            let (own, theirs, sizes) = pair(apart, scaled);
            assert_eq!(within(&own, &theirs, &sizes, 1024).is_some(), holds, "{what}");
        }
        let (own, mut theirs, sizes) = pair(1.0, 0.0);
        theirs[77] = f32::NAN;
        assert_eq!(within(&own, &theirs, &sizes, 1024), None, "NaN is near nothing");
    }
}
