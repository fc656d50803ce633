//! Two regions that begin at the same values.
//!
//! Either region begins where its own side has values that the other holds as well. A sum of three that B adds up in
//! another order, a + (b + c), is held against (a + b) + c. Where both sides keep a + b for somebody else to read, A's
//! region begins at it and B's at a and b: what A rounded when it made a + b lies in front of its region, but not in front
//! of B's. So that what comes in between is counted on both sides alike, the later of the two beginnings is opened, until
//! there is no other.

use isotrace_align::{Judge, Region, Side, State};
use isotrace_graph::ValueId;
use rustc_hash::FxHashSet;

/// Beginnings that are opened at most.
const OPENED: usize = 8;

/// The regions behind A's value `a` and B's value `b`, opened until both begin at the same values of A; `None` where they
/// do already or never come to.
///
/// `stops_a` and `stops_b` say at which values the regions began so far.
pub fn level(
    judge: &Judge<'_, '_>,
    state: &State<'_, '_>,
    (a, b): (ValueId, ValueId),
    stops_a: impl Fn(ValueId) -> bool,
    stops_b: impl Fn(ValueId) -> bool,
    limit: usize,
) -> Option<(Region, Region)> {
    let (mut opened_a, mut opened_b) = (FxHashSet::default(), FxHashSet::default());
    let partner = |r: ValueId| state.matched[r.index()].as_ref().map(|m| m.a);
    for round in 0..=OPENED {
        let behind_a = Region::behind(judge.a, &[a], |r| stops_a(r) && !opened_a.contains(&r), limit);
        let behind_b = Region::behind(judge.b, &[b], |r| stops_b(r) && !opened_b.contains(&r), limit);
        let begins_a: FxHashSet<ValueId> = begins(judge.a, &behind_a).collect();
        let begins_b: Option<FxHashSet<ValueId>> = begins(judge.b, &behind_b).map(partner).collect();
        let begins_b = begins_b?;
        if begins_a == begins_b {
            return (round > 0).then_some((behind_a, behind_b));
        }
        let latest = begins_a
            .symmetric_difference(&begins_b)
            .copied()
            .max_by_key(|&v| judge.a.producer(v))
            .filter(|&v| judge.a.producer(v).is_some())?;
        if begins_a.contains(&latest) {
            opened_a.insert(latest);
        } else {
            opened_b.extend(begins(judge.b, &behind_b).filter(|&r| partner(r) == Some(latest)));
        }
    }
    None
}

/// Where a region begins, constants aside.
fn begins<'a>(side: &'a Side<'_>, region: &'a Region) -> impl Iterator<Item = ValueId> + 'a {
    region.boundary.iter().copied().filter(|&r| !side.is_constant(r))
}
