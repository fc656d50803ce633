//! Products with a matrix that one side alone holds, found without float64.
//!
//! One exporter folds a norm into a convolution and another does not: what the two compute lies apart by the rounding of
//! the folded weights, by as much as half an ulp of each, and by that of the sums. float64 takes the latter away and
//! shows the former, which allows u times the sum of absolute products on either side. Where the declared values lie
//! hardly farther apart than that, it can show nothing more: unless what lies between them follows the values
//! themselves, as another scale or another epsilon does. That stands out of rounding far below any bound of single elements.

use std::cell::OnceCell;

use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::budget::Unit;
use isotrace_ops::math::vectorise;
use isotrace_ops::{Norms, parallel};
use isotrace_tensor::{DType, Tensor};

use crate::comparison::Comparison;
use crate::judge::{Evidence, Judge};
use crate::signature::{self, Kind};
use crate::state::{Match, State};
use crate::{Relation, Side};

/// Half ulps of the bound on all its products together by which a sum may be off. Over ResNet-50's 53 folded norms the
/// largest is 5.4.
const APART: f64 = 10.0;
/// The same, root mean square over a run. The largest there is 1.2.
const SPREAD: f64 = 2.5;
/// Nodes between a product and what is recognised, both included.
const MOST_STEPS: usize = 4;
/// Half ulps by which a run may be scaled beyond what is certain. The largest there is 1.3.
const SCALED: f64 = 4.0;
/// Standard deviations beyond which a scale is no work of rounding.
const CERTAIN: f64 = 6.0;

impl Judge<'_, '_> {
    /// The partner that structure names for `value`, which a node of B makes in declared precision of values in place
    /// and of a matrix that A does not hold, by itself or together with nodes whose outputs were put off.
    pub fn find_folded(&self, state: &State, id: NodeId, v: ValueId, value: &Tensor) -> Option<Match> {
        if !self.may_fold(v, value) || signature::is_degenerate(value) {
            return None;
        }
        let product = self.product_behind(state, id)?;
        let hints = self.hints(state, self.b.graph().node(product).writes().next()?);
        let is_near = |&c: &ValueId| {
            let theirs = self.a.declared.get(c).filter(|t| t.shape() == value.shape());
            !self.a.is_constant(c) && theirs.is_some() && self.may_equal(c, value)
        };
        // The side that folded has one product, of which the sizes are.
        let (candidate, norms) = if product == id {
            // As in `find`: what is nowhere near need not be looked at, what is near has to be.
            let further = self.further(&hints, value.len());
            let candidate = hints.into_iter().chain(further).find(is_near)?;
            (candidate, norms(self.b, id, value, &|r| state.declared[r.index()].clone())?)
        } else {
            let candidate = hints.into_iter().find(is_near)?;
            let folded = self.a.producer(candidate).filter(|&n| self.same_reads(state, product, n))?;
            (candidate, norms(self.a, folded, value, &|r| self.a.declared.get(r).cloned())?)
        };
        let theirs = self.a.declared.get(candidate)?.as_slice::<f32>().ok()?;
        let found = within(value.as_slice().ok()?, theirs, &norms)?;
        Some(Match {
            a: candidate,
            relation: Relation::Same,
            evidence: Evidence::Folded(found),
            degenerate: self.index.is_degenerate(self.a, candidate),
        })
    }

    /// Whether what one node alone reads may be looked at together with what that makes of it: a product with a matrix
    /// that A does not hold, and what follows it, resemble nothing as long as A's matrix has all of it inside.
    pub(crate) fn may_put_off(&self, state: &State, id: NodeId, v: ValueId, value: &Tensor) -> bool {
        let [_] = self.b.consumers[v.index()][..] else { return false };
        if self.b.is_output(v) || !self.may_fold(v, value) {
            return false;
        }
        let Some(product) = self.product_behind(state, id) else { return false };
        let Some(made) = self.b.graph().node(product).writes().next() else { return false };
        let hints = self.hints(state, made);
        let further = self.further(&hints, value.len());
        !hints.is_empty() && !hints.into_iter().chain(further).any(|c| self.may_equal(c, value))
    }

    /// Whether declared precision may tell of a value that weights were folded.
    fn may_fold(&self, v: ValueId, value: &Tensor) -> bool {
        let plain = |side: &Side<'_>| !side.is_recorded() && side.main == DType::F32;
        plain(self.a) && plain(self.b) && value.dtype() == DType::F32 && !self.b.is_constant(v)
    }

    /// The product of values in place with a matrix that A does not hold, from which `id` is reached through nothing but
    /// what was put off; `id` itself, where it is the product.
    fn product_behind(&self, state: &State, mut id: NodeId) -> Option<NodeId> {
        let graph = self.b.graph();
        let in_place =
            |r: ValueId| self.b.is_constant(r) || state.is_matched(r) && !state.narrowed[r.index()];
        // Of whatever A holds, up to layout, a partner would be known by now. What kept its name was not folded.
        let own_matrix = |r: ValueId| {
            let stored = graph.value(r).constant.as_ref();
            let matrix = stored.filter(|t| t.shape().iter().filter(|n| **n > 1).count() > 1);
            matrix.is_some_and(|t| !state.is_matched(r) && !self.has_namesake(r, t))
        };
        for _ in 0..MOST_STEPS {
            let node = graph.node(id);
            let mut open = node.reads().filter(|&r| !in_place(r));
            let Some(read) = open.next() else {
                return node.reads().any(own_matrix).then_some(id);
            };
            if open.any(|r| r != read) || !state.put_off[read.index()] {
                return None;
            }
            id = self.b.producer(read)?;
        }
        None
    }

    /// Whether A's node reads the partners of what B's reads, constants aside.
    fn same_reads(&self, state: &State, b: NodeId, a: NodeId) -> bool {
        let partner = |r: ValueId| state.matched[r.index()].as_ref().map(|m| m.a);
        let partners = self.b.dynamic_inputs(b).into_iter().map(partner);
        partners.eq(self.a.dynamic_inputs(a).into_iter().map(Some))
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

/// Bounds on the sums of absolute products that a node's output `value` is.
fn norms(
    side: &Side<'_>,
    id: NodeId,
    value: &Tensor,
    read: &dyn Fn(ValueId) -> Option<Tensor>,
) -> Option<Norms> {
    if let Some(norms) = side.plan.norms(id, read).ok()? {
        return Some(norms);
    }
    let sizes = side.plan.magnitude(id, read, &OnceCell::new()).ok()??;
    // A filter's plane, or the features of a token.
    let run = value.shape().iter().skip(2.min(value.rank().saturating_sub(1))).product();
    Norms::known(&sizes, run).ok()
}

/// Elements of a run that are summed side by side.
const LANES: usize = 8;

/// How far B's elements are from A's, where that is rounding of weights and sums and no run of them is a multiple of A's.
fn within(own: &[f32], theirs: &[f32], norms: &Norms) -> Option<Comparison> {
    let len = norms.run_len();
    if own.len() != theirs.len() || own.len() != norms.runs() * len || own.is_empty() {
        return None;
    }
    let mut found: Vec<Option<Found>> = vec![None; norms.runs()];
    let together = parallel::GRAIN.div_ceil(len);
    parallel::chunks(&mut found, together, &|i, found| {
        vectorise(
            #[inline(always)]
            || {
                for (k, found) in found.iter_mut().enumerate() {
                    let run = i * together + k;
                    let part = run * len..(run + 1) * len;
                    *found = Sums::of(&own[part.clone()], &theirs[part], norms.run(run)).found(len);
                }
            },
        );
    });
    let (mut most, mut share, mut difference) = (0, 0.0, 0.0);
    for (run, found) in found.into_iter().enumerate() {
        let found = found?;
        difference = found.difference.max(difference);
        if found.share > share {
            (most, share) = (run, found.share);
        }
    }
    let apart = |i: usize| (f64::from(theirs[i]) - f64::from(own[i])).abs();
    let (norm, added, others) = norms.run(most);
    let pairs =
        others.iter().enumerate().map(|(k, other)| (apart(most * len + k), unit(norm, added, *other)));
    let largest = pairs.fold(Comparison::NONE, |all, (apart, unit)| all.with(apart, APART * unit));
    Some(Comparison { difference, ..largest })
}

/// How far a run is apart, where that is rounding.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// The largest share of what an element may be off by.
    share: f64,
    /// The largest difference.
    difference: f64,
}

/// Half an ulp of a sum's size.
#[inline(always)]
fn unit(norm: f64, added: f64, other: f64) -> f64 {
    Unit::F32.u * (norm * other + added)
}

/// The larger of two numbers as one instruction; the second where either is NaN.
#[inline(always)]
fn larger(x: f64, y: f64) -> f64 {
    if x > y { x } else { y }
}

/// What a run comes to, a lane for every eighth element.
#[derive(Default)]
struct Sums {
    /// Differences times B's values, and the squares of these products.
    along: [f64; LANES],
    spread: [f64; LANES],
    /// Squares of B's values.
    square: [f64; LANES],
    /// Squares of the differences in half ulps of their sizes, and the largest.
    apart: [f64; LANES],
    most: [f64; LANES],
    /// The largest difference.
    difference: [f64; LANES],
}

impl Sums {
    #[inline(always)]
    fn of(own: &[f32], theirs: &[f32], (norm, added, others): (f64, f64, &[f64])) -> Self {
        let mut sums = Self::default();
        let (own, own_rest) = own.as_chunks::<LANES>();
        let (theirs, theirs_rest) = theirs.as_chunks::<LANES>();
        let (others, others_rest) = others.as_chunks::<LANES>();
        for ((own, theirs), others) in own.iter().zip(theirs).zip(others) {
            sums.add(own, theirs, norm, added, others);
        }
        let rest = own_rest.len();
        let (mut own, mut theirs, mut others) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        own[..rest].copy_from_slice(own_rest);
        theirs[..rest].copy_from_slice(theirs_rest);
        others[..rest].copy_from_slice(others_rest);
        sums.add(&own, &theirs, norm, added, &others);
        sums
    }

    #[inline(always)]
    fn add(
        &mut self,
        own: &[f32; LANES],
        theirs: &[f32; LANES],
        norm: f64,
        added: f64,
        others: &[f64; LANES],
    ) {
        for k in 0..LANES {
            let y = f64::from(own[k]);
            let apart = f64::from(theirs[k]) - y;
            // What is not apart is so by no share, of nothing too.
            let share = apart.abs() / larger(unit(norm, added, others[k]), f64::MIN_POSITIVE);
            let product = apart * y;
            self.along[k] += product;
            self.spread[k] += product * product;
            self.square[k] += y * y;
            self.apart[k] += share * share;
            self.most[k] = larger(share, self.most[k]);
            self.difference[k] = larger(apart.abs(), self.difference[k]);
        }
    }

    /// What it comes to; `None` where that is no rounding.
    #[inline(always)]
    fn found(&self, len: usize) -> Option<Found> {
        let sum = |lanes: &[f64; LANES]| lanes.iter().sum::<f64>();
        let largest = |lanes: &[f64; LANES]| lanes.iter().copied().fold(0.0, larger);
        let (square, apart) = (sum(&self.square), sum(&self.apart));
        let share = largest(&self.most) / APART;
        let scaled =
            sum(&self.along).abs() > SCALED * Unit::F32.u * square + CERTAIN * sum(&self.spread).sqrt();
        // NaN and infinities end up in the sums.
        let finite = square.is_finite() && apart.is_finite();
        let rounding = finite && share <= 1.0 && !scaled && apart <= SPREAD * SPREAD * len as f64;
        rounding.then(|| Found { share, difference: largest(&self.difference) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values about 1, apart by `apart` half ulps of their sizes in random directions, and scaled.
    fn pair(apart: f64, scaled: f64) -> (Vec<f32>, Vec<f32>, Norms) {
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
        (own, theirs, Norms::known(&Tensor::vector(sizes), 1024).unwrap())
    }

    #[test]
    fn rounding_of_weights_is_told_from_another_scale() {
        let cases = [
            ("rounding of weights and sums", 4.0, 0.0, true),
            ("too much of it everywhere", 12.0, 0.0, false),
            ("too much of it somewhere", 30.0, 0.0, false),
            ("a norm folded by another library", 2.0, 4.0, true),
            // An epsilon of 1e-6 for 1e-5 beside a variance of 1: 75 half ulps of the value, 9 of the sum's size.
            ("another epsilon, within the bound of each element", 2.0, 40.0, false),
        ];
        for (what, apart, scaled, holds) in cases {
            let (own, theirs, sizes) = pair(apart, scaled);
            assert_eq!(within(&own, &theirs, &sizes).is_some(), holds, "{what}");
        }
        let (own, mut theirs, sizes) = pair(1.0, 0.0);
        theirs[77] = f32::NAN;
        assert_eq!(within(&own, &theirs, &sizes), None, "NaN is near nothing");
    }
}
