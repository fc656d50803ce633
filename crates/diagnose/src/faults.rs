//! Fault after fault until the outputs agree: find the site, undo the fault or put A's value in, go on.

use isotrace_align::search::{Hypothesis, attempt, failing, search};
use isotrace_align::{Changes, Judge, Relation, Side, State};
use isotrace_graph::{NodeId, ValueId};

use crate::births::not_finite;
use crate::causes::{Proposal, WHOLE, proposals, telling};
use crate::context;
use crate::needless::{Step, only_one};
use crate::order::in_order;
use crate::role;
use crate::site::Site;
use crate::untold::{Calls, Untold};
use crate::written;

/// Faults looked for; beyond this two models have little in common and naming more helps no one.
const MOST_FAULTS: usize = 24;

/// Causes listed where none explains a fault.
const MOST_NEAREST: usize = 3;

/// One place where B does not compute what A computes.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The nodes to name in A.
    pub nodes_a: Vec<NodeId>,
    /// The nodes to name in B.
    pub nodes_b: Vec<NodeId>,
    /// The values that show it first.
    pub outputs_a: Vec<ValueId>,
    /// The values that show it first.
    pub outputs_b: Vec<ValueId>,
    /// The cause (`docs/causes.md`).
    pub class: String,
    /// One sentence with the numbers.
    pub summary: String,
    /// What supports it.
    pub evidence: Vec<String>,
    /// What was changed, and the largest difference before and after.
    pub proof: Option<(String, f64, f64)>,
    /// Whether one side computes too narrowly: B (true), A (false), or neither.
    pub narrow: Option<bool>,
    /// Whether nothing less undoes it than all that A computes there.
    pub whole: bool,
    /// Where nothing undoes the difference: the causes that came nearest, what was changed, and what each leaves.
    pub nearest: Nearest,
}

/// What was found on the way from B's inputs to its outputs.
pub struct Found<'s, 'g> {
    /// Every fault, in the order in which B meets them.
    pub faults: Vec<Fault>,
    /// Differences that calls of operators that nobody here knows may explain or not.
    pub untold: Vec<Untold>,
    /// B's state once all are undone.
    pub state: State<'s, 'g>,
    /// Outputs that differ still.
    pub left: Vec<(ValueId, ValueId)>,
}

/// Goes from fault to fault. `state` is B's as it is.
pub fn find<'s, 'g>(
    judge: &Judge<'s, 'g>,
    inputs: &[(ValueId, ValueId)],
    outputs: &[(ValueId, ValueId)],
    mut state: State<'s, 'g>,
) -> Found<'s, 'g> {
    let mut changes = Changes::default();
    let (mut faults, mut untold): (Vec<Fault>, Vec<Untold>) = Default::default();
    // One for each fault, as long as none of them shows in several places.
    let mut steps: Vec<Step> = Vec::new();
    let mut rounds = 0;
    loop {
        let left = failing(judge, &state, outputs);
        if left.is_empty() {
            let (faults, state) = only_one(judge, (inputs, outputs), &changes, state, faults, &steps);
            return Found { faults: in_order(judge, faults), untold, state, left };
        }
        if rounds == MOST_FAULTS || judge.interrupted() {
            return Found { faults: in_order(judge, faults), untold, state, left };
        }
        rounds += 1;
        let found = search(judge, &mut state, &left, &changes);
        let mut progressed = false;
        for hypothesis in found {
            let fresh = !changes.substitutions.contains_key(&hypothesis.point);
            if fresh {
                progressed = true;
                let calls = Calls::at(judge, &state, &hypothesis);
                let before = changes.clone();
                let fault = explain(judge, &mut state, &hypothesis, &mut changes);
                steps.push(Step::between(&before, &changes));
                match calls.stand_for(judge, fault) {
                    Ok(fault) => merge(&mut faults, fault),
                    Err(more) => untold.push(more),
                }
            }
        }
        if !progressed {
            return Found { faults: in_order(judge, faults), untold, state, left };
        }
        state = State::execute(judge, inputs, &changes);
    }
}

/// Names the cause of one fault and records in `changes` what undoes it.
fn explain<'s, 'g>(
    judge: &Judge<'s, 'g>,
    state: &mut State<'s, 'g>,
    hypothesis: &Hypothesis,
    changes: &mut Changes,
) -> Fault {
    let snapshot = state.clone();
    let own = (hypothesis.point, hypothesis.candidate, hypothesis.relation.clone());
    // A constant that nodes compute may be wrong for their sake; otherwise it shows in what is computed from it.
    let within = hypothesis.site.is_some() && judge.b.producer(own.0).is_some();
    let reader = hypothesis.site.map(|(b, a)| (b, a, Relation::Reshaped));
    if within {
        let site = Site::new(judge, &snapshot, own.0, own.1, own.2.clone());
        if let Ok(Proven { fault, undone, .. }) = prove(state, &site, hypothesis, changes) {
            *changes = undone;
            return if fault.whole { narrower(&site, hypothesis, fault) } else { fault };
        }
    }
    let settled = before_settled(judge, hypothesis);
    if let Some(candidate) = settled {
        let site = Site::new(judge, &snapshot, own.0, candidate, own.2.clone());
        if let Ok(Proven { fault: fault @ Fault { whole: false, .. }, undone, .. }) =
            prove(state, &site, hypothesis, changes)
        {
            *changes = undone;
            return fault;
        }
    }
    let (point, candidate, relation) = reader.unwrap_or(own);
    let site = Site::new(judge, &snapshot, point, candidate, relation);
    match prove(state, &site, hypothesis, changes) {
        Ok(Proven { fault, undone, .. }) if hypothesis.site.is_none() => {
            *changes = undone;
            if fault.whole { narrower(&site, hypothesis, fault) } else { fault }
        }
        found => {
            changes.substitutions.insert(hypothesis.point, hypothesis.as_match());
            match found {
                Ok(Proven { fault, .. }) if !fault.whole => fault,
                Ok(Proven { fault, .. }) => narrower(&site, hypothesis, fault),
                Err(nearest) => match inside(&site, hypothesis) {
                    Some((fault, _)) => fault,
                    None => Fault { nearest, ..unexplained(&site, hypothesis, site.before()) },
                },
            }
        }
    }
}

/// Operators that change nothing the second time.
const SETTLES: [&str; 10] =
    ["Relu", "Clip", "Where", "LogSoftmax", "LpNormalization", "Abs", "Sign", "Round", "Floor", "Ceil"];

/// Where A's candidate went through an operator that changes nothing the second time, and B's point is about to go
/// through the same: what A computes before it fits the point as well, and is nearer to what is wrong there.
fn before_settled(judge: &Judge<'_, '_>, hypothesis: &Hypothesis) -> Option<ValueId> {
    let (a, b) = (judge.a, judge.b);
    let last = a.graph().node(a.producer(hypothesis.candidate)?);
    let readers = &b.consumers[hypothesis.point.index()];
    let alike = readers.iter().all(|&n| b.graph().node(n).op == last.op);
    if !SETTLES.contains(&last.op.as_str()) || readers.is_empty() || !alike {
        return None;
    }
    let len = a.declared.count(hypothesis.candidate)?;
    let float = |v: &ValueId| a.declared.is_float(*v) && a.declared.count(*v) == Some(len);
    let fits = |v: &ValueId| !a.is_constant(*v) && float(v);
    let data: Vec<ValueId> = last.inputs.iter().flatten().copied().filter(fits).collect();
    if let [one] = data[..] {
        return Some(one);
    }
    // Of several, the one that is read as B's readers read the point.
    let slot = |&n: &NodeId| b.graph().node(n).inputs.iter().position(|i| *i == Some(hypothesis.point));
    let first = slot(&readers[0])?;
    let same = readers.iter().all(|n| slot(n) == Some(first));
    last.inputs.get(first).copied().flatten().filter(|v| same && fits(v))
}

/// The fault inside of the nodes of a site, where they can be written out, and whether it is the only one in there.
fn inside(site: &Site<'_, '_, '_>, hypothesis: &Hypothesis) -> Option<(Fault, bool)> {
    let (mut fault, alone) = written::fault(site)?;
    fault.evidence.splice(0..0, confirmation(hypothesis));
    Some((fault, alone))
}

/// What is wrong inside of a site whose nodes as a whole are `whole`. Where several things are, that is what they come
/// to together, if it has a name of its own: any two functions of one value are different activations, any two cells
/// have different gates.
fn narrower(site: &Site<'_, '_, '_>, hypothesis: &Hypothesis, whole: Fault) -> Fault {
    match inside(site, hypothesis) {
        Some((fault, alone)) if alone || matches!(whole.class.as_str(), "activation" | "gate_order") => fault,
        _ => whole,
    }
}

/// A fault whose undoing makes the site right.
struct Proven {
    fault: Fault,
    /// The changes with what undoes it.
    undone: Changes,
    /// What is put in place of a constant of B's where nodes compute it on both sides, from constants alone: B's value and
    /// A's.
    computed: Option<(ValueId, ValueId)>,
}

impl Proven {
    fn new(
        site: &Site<'_, '_, '_>,
        hypothesis: &Hypothesis,
        proposal: Proposal,
        (before, after): (f64, f64),
        undone: Changes,
    ) -> Self {
        let computed = computed(site, &proposal);
        Self { fault: proven(site, hypothesis, proposal, before, after), undone, computed }
    }
}

/// What each cause that undoes no more than a part of a difference would change, and what it leaves.
type Nearest = Vec<(&'static str, String, f64)>;

/// The cheapest change to B after which the site's point holds A's value, on top of `changes`. Otherwise what came
/// nearest.
fn prove<'s, 'g>(
    state: &mut State<'s, 'g>,
    site: &Site<'_, 's, 'g>,
    hypothesis: &Hypothesis,
    changes: &Changes,
) -> Result<Proven, Nearest> {
    let mut proven = prove_at(state, site, hypothesis, changes)?;
    // A constant that nodes compute is followed to the first of them that parts: what reads it is right.
    for _ in 0..MOST_CONSTANTS {
        let Some((v, a)) = proven.computed else { break };
        if let Some(mut fault) = written::computed::fault(site.judge, v, a) {
            fault.evidence.extend(confirmation(hypothesis));
            // Where only the order of its elements is wrong, the constant may show no difference by itself.
            if fault.proof.as_ref().is_none_or(|(_, before, after)| before <= after) {
                fault.proof = proven.fault.proof;
            }
            return Ok(Proven { fault, ..proven });
        }
        let at = Site::new(site.judge, site.state, v, a, Relation::Same);
        let Ok(mut earlier) = prove_at(state, &at, hypothesis, changes) else { break };
        if earlier.fault.whole {
            earlier.fault = narrower(&at, hypothesis, earlier.fault);
        }
        proven = earlier;
    }
    Ok(proven)
}

/// Constants that nodes compute of one another, at most.
const MOST_CONSTANTS: usize = 8;

/// The constants that a change exchanges, B's and A's, where nodes compute them on both sides.
fn computed(site: &Site<'_, '_, '_>, proposal: &Proposal) -> Option<(ValueId, ValueId)> {
    let (a, b) = (site.judge.a, site.judge.b);
    // That all its numbers stand elsewhere says more than what moves them.
    let own = proposal
        .edge
        .filter(|&v| proposal.class != "layout" && b.is_constant(v) && b.producer(v).is_some())?;
    let &[reader] = &proposal.nodes_a[..] else { return None };
    let fits = |v: &ValueId| {
        let float = a.is_constant(*v) && a.producer(*v).is_some() && a.declared.is_float(*v);
        float && a.declared.shape(*v) == b.declared.shape(own)
    };
    let mut read = site.node_a(reader).reads().filter(fits);
    let theirs = read.next()?;
    read.next().is_none().then_some((own, theirs))
}

/// The same at one place.
fn prove_at<'s, 'g>(
    state: &mut State<'s, 'g>,
    site: &Site<'_, 's, 'g>,
    hypothesis: &Hypothesis,
    changes: &Changes,
) -> Result<Proven, Nearest> {
    let before = site.before();
    let mut nearest = Nearest::new();
    // What makes the point hold A's numbers, but in another layout than the one in which A has them, or by chance.
    let mut elsewhere = None;
    let decided = deciding(site);
    for proposal in proposals(site) {
        if proposal.patches.iter().any(|(n, patch)| changes.exclude(*n, patch)) {
            continue;
        }
        let first = proposal.patches.iter().map(|(n, _)| *n).min().expect("a proposal changes a node");
        let mut tried = changes.clone();
        proposal.patches.iter().cloned().for_each(|(n, patch)| tried.patch(n, patch));
        let run: Vec<NodeId> = site.nodes_b().iter().copied().filter(|&n| n >= first).collect();
        let made = attempt(site.judge, state, &run, &tried, site.point, site.candidate);
        let left = site.difference(made.value.as_ref());
        // Beside infinities anything holds that is infinite elsewhere too; only a mask may hide by another number.
        let hides = proposal.class == "mask" || left.is_finite() || before.is_finite();
        if made.holds && hides {
            let (least, here) = (left.min(made.left), site.in_place(made.value.as_ref()).unwrap_or(left));
            // What is given other values to choose among chooses among A's.
            let chooses = proposal.patches.iter().any(|(n, _)| site.judge.b.producer(site.point) == Some(*n));
            let by_chance = !chooses
                && decided.is_some_and(|(v, a)| !attempt(site.judge, state, &run, &tried, v, a).holds);
            if here <= made.left && !by_chance {
                return Ok(Proven::new(site, hypothesis, proposal, (before, least), tried));
            }
            elsewhere.get_or_insert((proposal, least, tried));
            continue;
        }
        if left < before {
            nearest.push((proposal.class, proposal.change, left));
        }
    }
    if let Some((proposal, least, undone)) = elsewhere {
        return Ok(Proven::new(site, hypothesis, proposal, (before, least), undone));
    }
    nearest.sort_by(|x, y| x.2.total_cmp(&y.2));
    nearest.truncate(MOST_NEAREST);
    Err(nearest)
}

/// Where both sides choose places: the values among which they do. The same places come of many values; where these are
/// A's too, they come of the right ones.
fn deciding(site: &Site<'_, '_, '_>) -> Option<(ValueId, ValueId)> {
    let among = |side: &Side<'_>, v: ValueId| {
        let node = side.graph().node(side.producer(v)?);
        let read = node.inputs.first().copied().flatten().filter(|&v| !side.is_constant(v));
        matches!(node.op.as_str(), "TopK" | "ArgMax" | "ArgMin").then_some(read)?
    };
    let (v, a) = (among(site.judge.b, site.point)?, among(site.judge.a, site.candidate)?);
    let class = |v: ValueId| site.judge.index.class(v);
    site.partner(v).is_none_or(|p| class(p) != class(a)).then_some((v, a))
}

fn proven(
    site: &Site<'_, '_, '_>,
    hypothesis: &Hypothesis,
    proposal: Proposal,
    before: f64,
    after: f64,
) -> Fault {
    let class = refined(site, &proposal);
    let mut nodes_b = up_to_reader(site.judge.b, &proposal);
    // A shape decides what goes along an axis, if the elements are only cut into rows otherwise.
    let class = match cut_for(site.judge.b, &proposal) {
        Some(reader) => {
            nodes_b.push(reader);
            "axis"
        }
        None => class,
    };
    let mut fault = Fault {
        outputs_b: outputs(site.judge.b, &nodes_b, site.point).into_iter().chain(proposal.edge).collect(),
        outputs_a: outputs(site.judge.a, &proposal.nodes_a, site.candidate),
        nodes_a: proposal.nodes_a,
        nodes_b,
        class: class.to_owned(),
        summary: proposal.summary,
        evidence: confirmation(hypothesis),
        proof: Some((proposal.change, before, after)),
        narrow: None,
        whole: proposal.cost >= WHOLE,
        nearest: Vec::new(),
    };
    not_finite(site, &mut fault);
    fault
}

/// The nodes of a change. What reads another value through layout operators is the first that computes with it.
fn up_to_reader(b: &Side<'_>, proposal: &Proposal) -> Vec<NodeId> {
    let mut nodes = proposal.nodes_b.clone();
    let (Some(_), &[mut at]) = (proposal.edge, &nodes[..]) else { return nodes };
    for _ in 0..MOST_LAYOUTS {
        let mut written = b.graph().node(at).writes();
        let (Some(v), None) = (written.next(), written.next()) else { break };
        let [reader] = b.consumers[v.index()][..] else { break };
        if !role::is_layout(&b.graph().node(at).op) {
            break;
        }
        nodes.push(reader);
        at = reader;
    }
    nodes
}

/// The softmax that reads what a change only cuts into rows of another length.
fn cut_for(b: &Side<'_>, proposal: &Proposal) -> Option<NodeId> {
    let &[n] = &proposal.nodes_b[..] else { return None };
    let node = b.graph().node(n);
    let (Some(v), "Reshape", "layout") = (node.writes().next(), node.op.as_str(), proposal.class) else {
        return None;
    };
    let [reader] = b.consumers[v.index()][..] else { return None };
    b.graph().node(reader).op.ends_with("Softmax").then_some(reader)
}

/// Layout operators between what is read and what computes with it, at most.
const MOST_LAYOUTS: usize = 4;

/// The class of a proven change once it is known what the changed values are for.
fn refined(site: &Site<'_, '_, '_>, proposal: &Proposal) -> &'static str {
    let own = ["nan", "precision", "quantisation", "mode", "mask", "rope", "epsilon", "input_binding"];
    if own.contains(&proposal.class) {
        return proposal.class;
    }
    let (a, b) = (site.judge.a, site.judge.b);
    // A network may lead to a mask or to positions; its weights are weights all the same.
    let weighs = |n: NodeId| {
        let node = b.graph().node(n);
        let matrix =
            |t: &isotrace_tensor::Tensor| t.rank() >= 2 && t.shape().iter().filter(|&&d| d > 1).count() >= 2;
        let weight = node.inputs.get(1).copied().flatten().filter(|&v| b.is_constant(v));
        role::is_product(&node.op) && weight.and_then(|v| b.declared.get(v)).is_some_and(matrix)
    };
    if proposal.class.starts_with("weight_") && proposal.patches.iter().all(|(n, _)| weighs(*n)) {
        return proposal.class;
    }
    // A curve of nothing but what a statistic is taken of belongs to the statistic.
    if proposal.class == "activation"
        && (proposal.patches.iter().any(|(n, _)| role::enters_statistic(b, *n))
            || proposal.nodes_a.last().is_some_and(|&m| role::enters_statistic(a, m)))
    {
        return "normalisation";
    }
    if proposal.class == "axis" && proposal.patches.iter().any(|(n, _)| of_more_axes(site, *n, proposal)) {
        return "normalisation";
    }
    let read = proposal.edge.and_then(|v| context::purpose(b, v));
    let of_a = || {
        let mut written = proposal.nodes_a.iter().flat_map(|&n| a.graph().node(n).writes());
        written.find_map(|v| context::purpose(a, v))
    };
    let of_b = || {
        let mut written = proposal.patches.iter().flat_map(|(n, _)| b.graph().node(*n).writes());
        let found = written.find_map(|v| context::purpose(b, v));
        // A curve that leaves nothing but 0 and 1 hides nothing where A's does not.
        let bent = proposal.class == "activation" && !proposal.nodes_a.is_empty();
        found.filter(|_| !bent || of_a() == found)
    };
    // What B does too much may leave nothing of what the value is for; A shows it.
    let of_read = || {
        let nodes =
            proposal.patches.iter().filter(|_| proposal.nodes_a.is_empty() && proposal.class == "index");
        let mut read = nodes.flat_map(|(n, _)| b.dynamic_inputs(*n));
        read.find_map(|v| context::purpose(a, site.partner(v)?))
    };
    read.or_else(of_b).or_else(of_a).or_else(of_read).unwrap_or(proposal.class)
}

/// Whether a statistic that values are brought to goes over more axes than A's, or fewer: another norm, where one over
/// as many others is a slip.
fn of_more_axes(site: &Site<'_, '_, '_>, n: NodeId, proposal: &Proposal) -> bool {
    let (a, b) = (site.judge.a, site.judge.b);
    let gone = |side: &Side<'_>, n: NodeId| {
        let shape = |v: ValueId| side.declared.shape(v).map(|s| s.iter().filter(|&&d| d > 1).count());
        let read = side.graph().node(n).inputs.first().copied().flatten().and_then(shape)?;
        let written = side.graph().node(n).writes().next().and_then(shape)?;
        read.checked_sub(written)
    };
    let statistic = site.node_b(n).writes().all(|v| role::is_statistic(b, v)) && role::normalises(b, n);
    statistic && proposal.nodes_a.first().is_some_and(|&m| gone(a, m) != gone(b, n))
}

fn unexplained(site: &Site<'_, '_, '_>, hypothesis: &Hypothesis, before: f64) -> Fault {
    let nodes_b = telling(site.judge.b, &site.open_b, site.point);
    let nodes_a = telling(site.judge.a, &site.open_a, site.candidate);
    let mut fault = Fault {
        outputs_a: vec![site.candidate],
        outputs_b: vec![site.point],
        nodes_a,
        nodes_b,
        class: "unknown".to_owned(),
        summary: format!(
            "the two regions compute different functions; the largest difference is {before:.3e}"
        ),
        evidence: confirmation(hypothesis),
        proof: None,
        narrow: None,
        whole: false,
        nearest: Vec::new(),
    };
    not_finite(site, &mut fault);
    fault
}

/// What speaks for the place.
fn confirmation(hypothesis: &Hypothesis) -> Vec<String> {
    vec![match hypothesis.confirmed {
        0 => "no value further down could confirm the place".to_owned(),
        1 => "with A's value put in here, the next value further down agrees again".to_owned(),
        n => format!("with A's value put in here, {n} or more values further down agree again"),
    }]
}

/// What the named nodes write; the end of the region where none is named.
fn outputs(side: &Side<'_>, nodes: &[NodeId], end: ValueId) -> Vec<ValueId> {
    if nodes.is_empty() {
        vec![end]
    } else {
        nodes.iter().flat_map(|&n| side.graph().node(n).writes()).collect()
    }
}

/// One fault that shows at several places (an edge with several readers, a node the optimiser duplicated) is one.
pub fn merge(faults: &mut Vec<Fault>, fault: Fault) {
    let same = faults.iter_mut().find(|f| {
        let alike = f.class == fault.class && f.class != "unknown";
        // What is rounded several times on the way to one value of A's is told by the first.
        let narrow = f.narrow.is_some() && f.narrow == fault.narrow;
        (alike || narrow) && !f.nodes_a.is_empty() && f.nodes_a == fault.nodes_a
    });
    match same {
        Some(known) => {
            if known.summary != fault.summary {
                known.evidence.push(format!("also: {}", fault.summary));
            }
            for n in fault.nodes_b {
                if !known.nodes_b.contains(&n) {
                    known.nodes_b.push(n);
                }
            }
            for v in fault.outputs_b {
                if !known.outputs_b.contains(&v) {
                    known.outputs_b.push(v);
                }
            }
        }
        None => faults.push(fault),
    }
}
