//! When two values are the same: the `semantic` term of the decision rule.
//!
//! Five grounds, each a bound on every element:
//! - bits: nothing differs;
//! - noise: the difference is within float64 noise of the two regions ([`isotrace_ops::budget::NOISE`] times their f32
//!   unit);
//! - constants: the regions hold different float constants, and the difference is within what half an ulp of each
//!   stored constant, and the rounding of what was computed from constants alone, does to the output; two stored
//!   constants of different names may have been folded out of a chain of operations that no file holds any more, and a
//!   few half ulps of their size tell nothing;
//! - opaque: the difference is within what calls that nobody here knows may have rounded: they are taken as recorded;
//! - declared: both hold the same bits in the type that they declare. What differs in float64 is more than these inputs
//!   can show.
//!
//! They are tried from the cheapest on. A bound takes as long as the regions themselves, so constants go before noise
//! where the difference is far too large for noise.

use std::sync::atomic::{AtomicBool, Ordering};

use isotrace_graph::{Attribute, Node, NodeId, ValueId};
use isotrace_ops::budget::{NOISE, Unit};
use isotrace_ops::parallel::{self, GRAIN};
use isotrace_tensor::DType;
use rustc_hash::FxHashMap;

use crate::judge::{Evidence, Judge, alike};
use crate::narrow::clamped;
use crate::region::{Region, Rounding, Uncertainty};
use crate::state::State;
use crate::{Relation, Side};

/// Nodes in a region that is examined for its rounding.
const MOST_NODES: usize = 96;
/// Steps that compute floats, one after the other, in a region whose differing constants may explain a difference.
const MOST_FOLDED: usize = 16;
/// The same where constants are stored in half precision: bounds of such uncertainty grow vacuous sooner.
const MOST_FOLDED_HALF: usize = 6;
/// What rounded constants may excuse at most, as a share of the value's size: bounds through layers that mix all
/// channels grow tenfold with each, what real exporters and optimisers do does not. Over 364 harmless pairs the largest
/// share was 3.9e-7.
const WIDEST: f64 = 1.0 / (1 << 17) as f64;
/// A difference of this share of a value's size is no noise, unless nearly all of the value cancelled.
const FAR: f64 = 1.0 / (1u64 << 36) as f64;

/// A value of B beside a value of A.
pub(crate) struct Agreement<'x, 's, 'g> {
    pub judge: &'x Judge<'s, 'g>,
    pub state: &'x State<'s, 'g>,
    pub b: ValueId,
    pub a: ValueId,
    pub relation: &'x Relation,
    pub elements: Elements<'x>,
}

/// The elements of both, in B's layout.
#[derive(Clone, Copy)]
pub(crate) struct Elements<'x> {
    /// As B computed them.
    pub own: &'x [f64],
    /// As A did.
    pub theirs: &'x [f64],
    /// Root mean square of A's.
    pub scale: f64,
    /// The type to which one side rounds and the other does not.
    pub narrow: Option<DType>,
}

/// What a first look at every element shows.
#[derive(PartialEq)]
enum Look {
    Apart,
    Same,
    /// Within the least noise of any operator.
    Close,
    Near,
    /// Near, and too far for noise.
    Far,
}

impl Elements<'_> {
    fn cut(&self, x: f64, y: f64) -> bool {
        self.narrow.is_some_and(|narrow| clamped(x, y, narrow))
    }

    fn look(&self) -> Look {
        let [same, close, far] = [true, true, false].map(AtomicBool::new);
        let near = parallel::all(self.own.len().min(self.theirs.len()), &|run| {
            let (mut all_same, mut all_close, mut any_far) = (true, true, false);
            for (x, y) in self.theirs[run.clone()].iter().zip(&self.own[run]) {
                if x == y {
                    continue;
                }
                if !alike(*x, *y, self.scale, self.narrow) {
                    return false;
                }
                all_same = false;
                let d = (x - y).abs();
                // u|y| is the least that any class allows.
                all_close &= d <= NOISE * Unit::F32.u * y.abs() || self.cut(*x, *y);
                any_far |= d > FAR * self.scale;
            }
            same.fetch_and(all_same, Ordering::Relaxed);
            close.fetch_and(all_close, Ordering::Relaxed);
            far.fetch_or(any_far, Ordering::Relaxed);
            true
        });
        match (near, same.into_inner(), close.into_inner(), far.into_inner()) {
            (false, ..) => Look::Apart,
            (_, true, ..) => Look::Same,
            (_, _, true, _) => Look::Close,
            (_, _, _, true) => Look::Far,
            _ => Look::Near,
        }
    }

    /// Whether no pair is farther apart than is allowed at its place.
    fn within(&self, allowed: &(dyn Fn(usize) -> f64 + Sync)) -> bool {
        parallel::all(self.own.len().min(self.theirs.len()), &|run| {
            let pairs = self.theirs[run.clone()].iter().zip(&self.own[run.clone()]);
            pairs.zip(run).all(|((x, y), i)| x == y || (x - y).abs() <= allowed(i) || self.cut(*x, *y))
        })
    }
}

impl Agreement<'_, '_, '_> {
    /// On what ground the two are the same; `None` where they are not. Where `bounded` does not say so, only equal bits
    /// are looked for.
    pub fn ground(&self, bounded: bool) -> Option<Evidence> {
        let look = self.elements.look();
        if !bounded {
            return (look == Look::Same).then_some(Evidence::Bits);
        }
        match self.by_bounds(&look) {
            // What changes no bit of what both sides hold is no more than these inputs can show.
            None if look != Look::Apart && self.hold_the_same() => Some(Evidence::Declared),
            found => found,
        }
    }

    /// Whether both hold the same bits in the type that they declare.
    fn hold_the_same(&self) -> bool {
        let own = self.state.own_declared(self.b);
        let theirs = self.judge.a.declared.get(self.a);
        own.zip(theirs).is_some_and(|(own, theirs)| {
            own.dtype().is_float()
                && own.dtype() == theirs.dtype()
                && self.relation.carry(theirs, own.shape()).is_some_and(|theirs| theirs.bit_eq(own))
        })
    }

    fn by_bounds(&self, look: &Look) -> Option<Evidence> {
        match look {
            Look::Apart => return None,
            Look::Same => return Some(Evidence::Bits),
            _ if !self.judge.b.declared.is_float(self.b) => return None,
            Look::Close => return Some(Evidence::Noise),
            Look::Near | Look::Far => {}
        }
        let (a, b) = (self.judge.a, self.judge.b);
        // What one number for the whole of B's constant stands for was folded from A's constants by other hands: that
        // some of those on the way are B's too does not make them exact.
        let stored = b.is_constant(self.b) && b.producer(self.b).is_none();
        let stops = |x: ValueId| self.state.a_matched[x.index()] && !(stored && a.is_constant(x));
        let behind_a = Region::behind(a, &[self.a], stops, MOST_NODES);
        let behind_b = Region::behind(b, &[self.b], |x| self.state.is_matched(x), MOST_NODES);
        let nodes = behind_a.dynamic_nodes(a).count().max(behind_b.dynamic_nodes(b).count());
        // A rewrite that folds constants touches a few nodes; what moves elements or prepares a mask adds nothing to what
        // their rounding does.
        let most = if self.elements.narrow.is_some() { MOST_FOLDED_HALF } else { MOST_FOLDED };
        let folded = if computing(a, &behind_a).max(computing(b, &behind_b)) > most {
            None
        } else {
            Folded::between(self.judge, (&behind_a, &behind_b))
        };
        if *look == Look::Far
            && let Some(folded) = folded.as_ref().filter(|f| f.constants)
            && self.elements.within(&at(&self.constants(folded, false)?))
        {
            return Some(Evidence::Constants);
        }
        // Bounds take as long as the regions; what none of them can explain needs none.
        let noise = NOISE * self.most_noise(nodes);
        if folded.is_none()
            && !self.holds_unknown((&behind_a, &behind_b))
            && !self.elements.within(&|_| noise)
        {
            return None;
        }
        let mut allowed = self.noise((&behind_a, &behind_b), nodes)?;
        if self.elements.within(&at(&allowed)) {
            return Some(Evidence::Noise);
        }
        let more = |allowed: &mut Vec<f64>, more: Vec<f64>| {
            allowed.iter_mut().zip(more).for_each(|(e, i)| *e += i);
            self.elements.within(&at(allowed))
        };
        if let Some(folded) = &folded
            && more(&mut allowed, self.constants(folded, true)?)
        {
            return Some(Evidence::Constants);
        }
        let unknown = self.unknown((&behind_a, &behind_b))?;
        more(&mut allowed, unknown).then_some(Evidence::Opaque)
    }

    /// What calls that nobody here knows may have rounded, where there are any.
    fn unknown(&self, regions: (&Region, &Region)) -> Option<Vec<f64>> {
        if !self.holds_unknown(regions) {
            return None;
        }
        let (a, b) = (self.judge.a, self.judge.b);
        let [of_a, of_b]: [&dyn Fn(NodeId) -> bool; 2] = [&|n| opaque(a, n), &|n| opaque(b, n)];
        let rounding = |unit, rounds| Rounding { unit, rounds, scaled: &|_| false, enters: &|_| None };
        self.allowance(regions, (rounding(a.unit(), of_a), rounding(b.unit(), of_b)))
    }

    fn holds_unknown(&self, regions: (&Region, &Region)) -> bool {
        let holds = |side: &Side<'_>, region: &Region| region.nodes.iter().any(|&n| opaque(side, n));
        holds(self.judge.a, regions.0) || holds(self.judge.b, regions.1)
    }

    fn allowance(
        &self,
        (behind_a, behind_b): (&Region, &Region),
        rounding: (Rounding<'_>, Rounding<'_>),
    ) -> Option<Vec<f64>> {
        let len = self.elements.own.len();
        self.judge.allowance(
            self.state,
            self.b,
            behind_b,
            self.a,
            behind_a,
            self.relation,
            len,
            rounding,
            false,
        )
    }

    /// What bounds of two regions of at most `nodes` nodes may come to: to first order they grow with every layer, and
    /// beyond the size of the value they bound nothing.
    fn most_noise(&self, nodes: usize) -> f64 {
        if nodes > MOST_FOLDED { self.elements.scale } else { f64::INFINITY }
    }

    /// Float64 noise of two regions of at most `nodes` nodes.
    fn noise(&self, regions: (&Region, &Region), nodes: usize) -> Option<Vec<f64>> {
        let rounding =
            Rounding { unit: Unit::F32.bare(), rounds: &|_| true, scaled: &|_| false, enters: &|_| None };
        let mut allowed = self.allowance(regions, (rounding, rounding))?;
        let most = self.most_noise(nodes);
        parallel::chunks(&mut allowed, GRAIN, &|_, part| {
            for e in part {
                *e = NOISE * e.min(most);
            }
        });
        Some(allowed)
    }

    /// What the precision of the constants in which two regions differ may do, that of numbers among their nodes'
    /// settings included where `settings` says so.
    fn constants(&self, folded: &Folded<'_>, settings: bool) -> Option<Vec<f64>> {
        let judge = self.judge;
        // A constant stored more narrowly than its side computes is a narrowing, and no excuse for one.
        let half_ulp = |side: &Side<'_>, x: ValueId| -> Option<Uncertainty> {
            let constant = side.declared.get(x)?;
            let units = judge.allowed.iter().map(|d| Unit::of(*d)).chain([side.unit()]);
            let widest = units.max_by(|x, y| x.u.total_cmp(&y.u))?;
            side.stored(x, constant, widest.finer(Unit::of(constant.dtype())))
        };
        let enters_a = |x: ValueId| folded.only_a.contains(&x).then(|| half_ulp(judge.a, x)).flatten();
        let enters_b = |x: ValueId| folded.only_b.contains(&x).then(|| half_ulp(judge.b, x)).flatten();
        // Some runtime folded these, with functions as good as runtimes have.
        let constant =
            |side: &Side<'_>, n: NodeId| side.graph().node(n).writes().all(|v| side.is_constant(v));
        let scaled = |side: &Side<'_>, n: NodeId| settings && scales(side.graph().node(n));
        let rounding = (
            Rounding {
                unit: Unit::of(judge.a.main),
                rounds: &|n| constant(judge.a, n),
                scaled: &|n| scaled(judge.a, n),
                enters: &enters_a,
            },
            Rounding {
                unit: Unit::of(judge.b.main),
                rounds: &|n| constant(judge.b, n),
                scaled: &|n| scaled(judge.b, n),
                enters: &enters_b,
            },
        );
        let mut interval = self.allowance(folded.regions, rounding)?;
        // Two constants that two exporters folded, each with functions that are good to an ulp and not to half of one.
        let alone = folded.regions.0.nodes.is_empty() && folded.regions.1.nodes.is_empty();
        let folds = if alone { 2.0 } else { 1.0 };
        // Where they are not even called the same, each may be what a chain of operations left.
        let chain = if alone { judge.chain(self.a, self.b) } else { 0.0 };
        let Elements { own, scale, narrow, .. } = self.elements;
        let len = interval.len().min(own.len());
        parallel::chunks(&mut interval[..len], GRAIN, &|i, part| {
            for (e, y) in part.iter_mut().zip(&own[i * GRAIN..]) {
                let widest = if narrow.is_some() { f64::INFINITY } else { WIDEST * (scale + y.abs()) };
                let least = if *e > 0.0 { chain * (scale + y.abs()) } else { 0.0 };
                *e = (folds * *e).max(least).min(widest);
            }
        });
        Some(interval)
    }
}

fn opaque(side: &Side<'_>, n: NodeId) -> bool {
    side.plan.op(n).is_opaque()
}

/// A list of bounds by place; what it does not reach may be anything.
fn at(allowed: &[f64]) -> impl Fn(usize) -> f64 + Sync {
    |i| allowed.get(i).copied().unwrap_or(f64::INFINITY)
}

/// Nodes of a region that make floats of one another's, other than by moving them, on the longest way through it. Bounds
/// grow with every step; a sum of many terms, as a kernel whose taps are products of their own, has many beside each other.
fn computing(side: &Side<'_>, region: &Region) -> usize {
    let makes =
        |n: NodeId| !side.moves(n) && side.graph().node(n).writes().any(|v| side.declared.is_float(v));
    let mut steps: FxHashMap<NodeId, usize> = FxHashMap::default();
    for n in region.dynamic_nodes(side) {
        let read = side.graph().node(n).reads().filter_map(|v| steps.get(&side.producer(v)?));
        let before = read.copied().max().unwrap_or(0);
        steps.insert(n, before + usize::from(makes(n)));
    }
    steps.into_values().max().unwrap_or(0)
}

/// Two regions, A's first, that do not hold the same constants.
struct Folded<'x> {
    regions: (&'x Region, &'x Region),
    only_a: Vec<ValueId>,
    only_b: Vec<ValueId>,
    /// Whether they differ in more than numbers among the settings of nodes.
    constants: bool,
}

impl<'x> Folded<'x> {
    fn between(judge: &Judge<'_, '_>, (a, b): (&'x Region, &'x Region)) -> Option<Self> {
        let (mut only_a, mut only_b) = judge.unshared(a, b);
        only_b.retain(|&v| {
            let namesake = judge.altered(v);
            only_a.retain(|&a| Some(a) != namesake);
            namesake.is_none()
        });
        let folds = |side: &Side<'_>, region: &Region| {
            region.nodes.iter().any(|&n| {
                side.graph().node(n).writes().any(|v| side.is_constant(v) && side.declared.is_float(v))
            })
        };
        let constants = !only_a.is_empty() || !only_b.is_empty() || folds(judge.a, a) || folds(judge.b, b);
        let settings =
            |side: &Side<'_>, region: &Region| region.nodes.iter().any(|&n| scales(side.graph().node(n)));
        (constants || settings(judge.a, a) || settings(judge.b, b)).then_some(Self {
            regions: (a, b),
            only_a,
            only_b,
            constants,
        })
    }
}

/// Whether a node has a setting that is a number and no whole one.
fn scales(node: &Node) -> bool {
    node.attributes.values().any(|a| match a {
        Attribute::Float(f) => f.fract() != 0.0,
        Attribute::Floats(f) => f.iter().any(|f| f.fract() != 0.0),
        _ => false,
    })
}
