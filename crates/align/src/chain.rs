//! Constants that other hands folded out of one chain of operations, which no file holds any more.

use isotrace_graph::ValueId;
use isotrace_ops::budget::Unit;
use isotrace_tensor::{DType, Tensor};

use crate::Relation;
use crate::judge::{Evidence, Judge, moderate_rms};
use crate::signature::Kind;
use crate::state::Match;

/// Half ulps of its size by which two such constants may be apart: half an ulp for each of as many operations as a norm has
/// that is folded into a matrix, on either side.
const CHAIN: f64 = 2.0 * 8.0;

impl Judge<'_, '_> {
    /// By which share of its size a constant of B may differ from one of A since nobody knows what each was folded of: by
    /// none where they are called the same, and so are a parameter.
    pub(crate) fn chain(&self, a: ValueId, b: ValueId) -> f64 {
        let named_alike = self.a.graph().value(a).name == self.b.graph().value(b).name;
        let single = [self.a.main, self.b.main].iter().all(|main| *main == DType::F32);
        if single && !named_alike { CHAIN * Unit::F32.u } else { 0.0 }
    }

    /// A's constant that was folded of the same chain as a handful of B's numbers. So few tell nothing, but numbers that
    /// near each other are one, whichever they were: 1 less a share has lost more than half an ulp.
    pub(crate) fn chained_constant(&self, b: ValueId) -> Option<Match> {
        let number = |t: &&Tensor| t.dtype() == DType::F32;
        let value = &self.b.graph().value(b);
        let own = value.constant.as_ref().filter(number)?;
        let y = own.to_f64().ok()?;
        let mut nearest = None;
        for &a in self.index.alike(own.len(), Kind::of(own.dtype()), true) {
            let of_a = self.a.graph().value(a);
            let stored = of_a.constant.as_ref().filter(number);
            let Some(theirs) = stored.filter(|t| t.shape() == own.shape()) else { continue };
            // A's own, as it stands or with another number.
            if of_a.name == value.name || theirs.bit_eq(own) {
                return None;
            }
            let x = theirs.to_f64().ok()?;
            let (share, scale) = (self.chain(a, b), moderate_rms(&x));
            let near = |(x, y): (&f64, &f64)| y.is_finite() && (x - y).abs() <= share * (scale + y.abs());
            if nearest.is_none() && x.iter().zip(y.iter()).all(near) {
                nearest = Some(a);
            }
        }
        let found =
            |a| Match { a, relation: Relation::Same, evidence: Evidence::Constants, degenerate: true };
        nearest.map(found)
    }
}
