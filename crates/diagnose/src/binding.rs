//! Inputs of B that play each other's part: bound by their names, which a file may have exchanged.
//!
//! **What it finds.** Two inputs of one type and shape whose readers compute nothing that A computes.
//! **Proof.** With the two exchanged the outputs agree, or far more of what lies between does.

use isotrace_align::search::failing;
use isotrace_align::{Changes, Judge, Side, State};
use isotrace_graph::{NodeId, ValueId};

use crate::faults::Fault;

/// Pairs of inputs that are tried; a network with more suspicious ones has another fault.
const MOST_PAIRS: usize = 8;

/// An input of B and the one of A that is bound to it.
type Bound = (ValueId, ValueId);

/// B's inputs as they have to be bound, its state then, and what had to be exchanged.
pub fn settle<'s, 'g>(
    judge: &Judge<'s, 'g>,
    mut bound: Vec<Bound>,
    outputs: &[(ValueId, ValueId)],
    mut state: State<'s, 'g>,
) -> (Vec<Bound>, State<'s, 'g>, Vec<Fault>) {
    let mut exchanged = Vec::new();
    let mut failed = failing(judge, &state, outputs).len();
    while failed > 0 && exchanged.len() < bound.len() && !judge.interrupted() {
        let tried = pairs(judge, &state, &bound).into_iter().find_map(|(i, j)| {
            let mut other = bound.clone();
            (other[i].1, other[j].1) = (bound[j].1, bound[i].1);
            let then = State::execute(judge, &other, &Changes::default());
            let left = failing(judge, &then, outputs).len();
            let better =
                left == 0 || left <= failed && 2 * strangers(judge, &then) < strangers(judge, &state);
            better.then_some((i, j, other, then, left))
        });
        let Some((i, j, other, then, left)) = tried else { break };
        exchanged.push(fault(judge, (&state, &then), (bound[i], bound[j]), outputs));
        (bound, state, failed) = (other, then, left);
    }
    (bound, state, exchanged)
}

/// B's values without a partner.
fn strangers(judge: &Judge<'_, '_>, state: &State<'_, '_>) -> usize {
    let graph = judge.b.graph();
    graph.value_ids().filter(|&v| !judge.b.is_constant(v) && !state.is_matched(v)).count()
}

/// Pairs of inputs that may stand for each other, one of which somebody reads in vain; first those where somebody reads
/// the other in vain too (a sum of both does not mind). One node that reads both has its operands exchanged, which is
/// another fault.
fn pairs(judge: &Judge<'_, '_>, state: &State<'_, '_>, bound: &[Bound]) -> Vec<(usize, usize)> {
    let (a, b) = (judge.a, judge.b);
    let told = |v: ValueId| state.matched[v.index()].as_ref().is_some_and(|m| !m.degenerate);
    let in_vain = |n: &NodeId| b.graph().node(*n).writes().any(|w| !told(w));
    let suspicious: Vec<bool> =
        bound.iter().map(|(v, _)| b.consumers[v.index()].iter().any(in_vain)).collect();
    let alike = |i: usize, j: usize| {
        let held =
            |side: &Side<'_>, v: ValueId| Some((side.declared.dtype(v)?, side.declared.shape(v)?.to_vec()));
        held(b, bound[i].0) == held(b, bound[j].0)
            && held(b, bound[i].0) == held(a, bound[j].1)
            && held(b, bound[j].0) == held(a, bound[i].1)
            && b.consumers[bound[i].0.index()] != b.consumers[bound[j].0.index()]
            && judge.index.class(bound[i].1) != judge.index.class(bound[j].1)
    };
    let all = (0..bound.len()).flat_map(|j| (0..j).map(move |i| (i, j)));
    let mut pairs: Vec<(usize, usize)> =
        all.filter(|&(i, j)| (suspicious[i] || suspicious[j]) && alike(i, j)).collect();
    pairs.sort_by_key(|&(i, j)| !(suspicious[i] && suspicious[j]));
    pairs.truncate(MOST_PAIRS);
    pairs
}

fn fault(
    judge: &Judge<'_, '_>,
    (before, after): (&State<'_, '_>, &State<'_, '_>),
    (first, second): (Bound, Bound),
    outputs: &[(ValueId, ValueId)],
) -> Fault {
    let (a, b) = (judge.a, judge.b);
    let name = |side: &Side<'_>, v: ValueId| format!("{:?}", side.graph().value(v).name);
    let [x, y] = [first.0, second.0].map(|v| name(b, v));
    let apart = |state: &State<'_, '_>| {
        let distance = |&(of_b, of_a): &(ValueId, ValueId)| {
            let own = state.own_shadow[of_b.index()].as_ref()?;
            let m = isotrace_compare::compare(a.shadow.get(of_a)?, own).ok()?;
            Some(if m.max_abs.is_nan() { f64::INFINITY } else { m.max_abs })
        };
        outputs.iter().filter_map(distance).fold(0f64, f64::max)
    };
    Fault {
        nodes_a: Vec::new(),
        nodes_b: Vec::new(),
        outputs_a: vec![first.1, second.1],
        outputs_b: vec![first.0, second.0],
        class: "input_binding".to_owned(),
        summary: format!("inputs {x} and {y} of B play each other's part"),
        evidence: vec![format!(
            "{} of B's values have a partner in A with the two exchanged, {} without",
            partners(judge, after),
            partners(judge, before),
        )],
        proof: Some((
            format!(
                "{x} given what A's {} is given, and {y} what {} is",
                name(a, second.1),
                name(a, first.1)
            ),
            apart(before),
            apart(after),
        )),
        narrow: None,
        whole: false,
        nearest: Vec::new(),
    }
}

fn partners(judge: &Judge<'_, '_>, state: &State<'_, '_>) -> usize {
    let graph = judge.b.graph();
    graph.value_ids().filter(|&v| !judge.b.is_constant(v) && state.is_matched(v)).count()
}
