//! Places taken for faults that the outputs do not ask for: what B does too much may look like something that A does
//! elsewhere, and what reads the wrong value may be mended where others read it rightly, which has to be mended again.

use isotrace_align::search::failing;
use isotrace_align::{Changes, Judge, State};
use isotrace_graph::{NodeId, ValueId};

use crate::faults::Fault;

/// Values of B with their partners in A.
type Pairs<'p> = &'p [(ValueId, ValueId)];

/// What was changed for the sake of one fault.
pub struct Step {
    substitutions: Vec<ValueId>,
    patches: Vec<(NodeId, usize)>,
}

impl Step {
    /// What `after` has beyond `before`.
    pub fn between(before: &Changes, after: &Changes) -> Self {
        let made = |n: &NodeId| before.patches.get(n).map_or(0, Vec::len);
        let substitutions = after.substitutions.keys().filter(|v| !before.substitutions.contains_key(v));
        let patches = after.patches.iter().flat_map(|(n, all)| (made(n)..all.len()).map(|at| (*n, at)));
        Self { substitutions: substitutions.copied().collect(), patches: patches.collect() }
    }

    /// This alone, of all `changes`.
    fn alone(&self, changes: &Changes) -> Changes {
        let mut only = Changes::default();
        for v in &self.substitutions {
            only.substitutions.extend(changes.substitutions.get(v).map(|m| (*v, m.clone())));
        }
        for (n, at) in &self.patches {
            if let Some(patch) = changes.patches.get(n).and_then(|all| all.get(*at)) {
                only.patch(*n, patch.clone());
            }
        }
        only
    }
}

/// The one edge to a wrong value, of several faults, whose undoing alone has all outputs agree while what the others name
/// is A's as it is: then those are none. `steps` are the faults', one for each.
pub fn only_one<'s, 'g>(
    judge: &Judge<'s, 'g>,
    (inputs, outputs): (Pairs<'_>, Pairs<'_>),
    changes: &Changes,
    state: State<'s, 'g>,
    faults: Vec<Fault>,
    steps: &[Step],
) -> (Vec<Fault>, State<'s, 'g>) {
    if faults.len() < 2 || faults.len() != steps.len() {
        return (faults, state);
    }
    for (i, step) in steps.iter().enumerate() {
        // Where nodes of A had to stand in, they may bring along what other faults are about.
        let edge = faults[i].nodes_a.is_empty() && faults[i].proof.is_some();
        if !edge || faults[i].whole || !step.substitutions.is_empty() {
            continue;
        }
        let tried = State::execute(judge, inputs, &step.alone(changes));
        let others = || faults.iter().enumerate().filter(|&(j, _)| j != i).map(|(_, f)| f);
        let right = |f: &Fault| f.outputs_b.iter().all(|&v| judge.b.is_constant(v) || tried.is_matched(v));
        if others().all(right) && failing(judge, &tried, outputs).is_empty() {
            return (vec![faults[i].clone()], tried);
        }
    }
    (faults, state)
}
