//! Differences that run through calls of operators that nobody here knows, and what may be said of them.
//!
//! Such a call is taken as it was recorded. Two of one operator that read the same bits and gave other numbers differ, and
//! that is a fault. What else runs through them may be their rounding, what upstream makes of them, or a fault: unless a
//! change beside them proves itself, nothing can be told.

use isotrace_align::search::Hypothesis;
use isotrace_align::{Judge, Region, Side, State, opaque};
use isotrace_graph::{NodeId, ValueId};

use crate::causes::label;
use crate::faults::Fault;
use crate::site::Site;

/// A difference that runs through calls of operators that nobody here knows, where nothing else is proven to be wrong.
pub struct Untold {
    /// The values at which it shows, A's and B's.
    pub at: (ValueId, ValueId),
    /// The largest difference.
    pub difference: f64,
    /// The operators.
    pub operators: Vec<String>,
    /// The nodes of both sides on the way, by their names.
    pub nodes: Vec<String>,
}

/// Calls of unknown operators on the way to a place where B leaves A.
pub struct Calls {
    of_a: Vec<NodeId>,
    of_b: Vec<NodeId>,
    at: (ValueId, ValueId),
    difference: f64,
    /// Whether it is one call on each side, and both read the same bits: they do not compute the same.
    contradict: bool,
}

impl Calls {
    pub fn at(judge: &Judge<'_, '_>, state: &State<'_, '_>, found: &Hypothesis) -> Self {
        let (point, candidate) = found.site.unwrap_or((found.point, found.candidate));
        let any = |side: &Side<'_>| side.graph().node_ids().any(|n| side.plan.op(n).is_opaque());
        if !any(judge.a) && !any(judge.b) {
            return Self {
                of_a: Vec::new(),
                of_b: Vec::new(),
                at: (candidate, point),
                difference: 0.0,
                contradict: false,
            };
        }
        let site = Site::new(judge, state, point, candidate, found.relation.clone());
        let of = |side: &Side<'_>, region: &Region| {
            let unknown = |n: &NodeId| side.plan.op(*n).is_opaque();
            region.nodes.iter().copied().filter(unknown).collect::<Vec<NodeId>>()
        };
        let (of_a, of_b) = (of(judge.a, &site.open_a), of(judge.b, &site.open_b));
        let contradict = matches!((&of_a[..], &of_b[..]), (&[a], &[b])
            if judge.a.producer(candidate) == Some(a)
                && judge.b.producer(point) == Some(b)
                && opaque::on_same_bits((judge.a, a), (judge.b, b)));
        Self { of_a, of_b, at: (candidate, point), difference: site.before(), contradict }
    }

    /// `fault`, where something of it is proven or these calls themselves are seen to differ; else what nobody can tell.
    pub fn stand_for(self, judge: &Judge<'_, '_>, mut fault: Fault) -> Result<Fault, Untold> {
        let name = |side: &Side<'_>, n: NodeId| side.graph().node(n).op.clone();
        if self.contradict {
            let (b, n) = (judge.b, self.of_b[0]);
            "unknown".clone_into(&mut fault.class);
            fault.summary = format!(
                "{} gives other numbers than A's {} on the same inputs, bit by bit; the largest difference is {:.3e}",
                label(b, n),
                label(judge.a, self.of_a[0]),
                self.difference
            );
            fault.evidence.push(
                "isotrace does not know what it computes; both were taken as they were recorded".to_owned(),
            );
            (fault.nodes_a, fault.nodes_b) = (self.of_a, self.of_b);
            (fault.outputs_a, fault.outputs_b) = (vec![self.at.0], vec![self.at.1]);
            (fault.proof, fault.nearest) = (None, Vec::new());
            return Ok(fault);
        }
        let through = fault.nodes_a.iter().any(|n| self.of_a.contains(n))
            || fault.nodes_b.iter().any(|n| self.of_b.contains(n));
        let proven = fault.proof.is_some() && !fault.whole && !through;
        if self.of_a.is_empty() && self.of_b.is_empty() || proven {
            return Ok(fault);
        }
        let of = |side: &Side<'_>, nodes: &[NodeId]| nodes.iter().map(|&n| name(side, n)).collect::<Vec<_>>();
        let mut operators = [of(judge.a, &self.of_a), of(judge.b, &self.of_b)].concat();
        operators.sort_unstable();
        operators.dedup();
        let labels = |side: &Side<'_>, nodes: &[NodeId]| {
            nodes.iter().map(|&n| side.graph().label(n).to_owned()).collect::<Vec<_>>()
        };
        let nodes = [labels(judge.a, &self.of_a), labels(judge.b, &self.of_b)].concat();
        Err(Untold { at: self.at, difference: self.difference, operators, nodes })
    }
}

impl Untold {
    /// One sentence, and what would settle it.
    pub fn told(&self, judge: &Judge<'_, '_>) -> String {
        format!(
            "{:?} and A's {:?} are {:.3e} apart, and what lies before them runs through {}, which isotrace does not know: \
             nobody can say from these recordings whether that is rounding or a fault; recordings of both sides in which \
             these calls read the same bits would settle it",
            judge.b.graph().value(self.at.1).name,
            judge.a.graph().value(self.at.0).name,
            self.difference,
            self.operators.join(", ")
        )
    }
}
