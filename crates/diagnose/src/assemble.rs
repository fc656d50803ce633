//! The report from what was found.

use isotrace_align::relation::{Probe, between};
use isotrace_align::{Comparison, Judge, Relation as Layout, Side, State};
use isotrace_compare::{compare, four_letters};
use isotrace_graph::{Graph, NodeId, ValueId};
use isotrace_report::{
    Both, Budget, Cause, Counterfactual, Culprit, CulpritSide, Entry, Kind, Listing, Metrics, Nearest, Pair,
    Region, Relation, Report, Role, Status, Verdict, Warning,
};
use isotrace_tensor::{DType, Tensor, strides, unravel};
use rustc_hash::FxHashMap;

use crate::Detail;
use crate::declared;
use crate::discrete::{self, Tipped};
use crate::faults::Fault;

/// A model and where it came from.
#[derive(Clone, Copy)]
pub struct Source<'g> {
    /// The path as the user gave it.
    pub path: &'g str,
    /// The graph.
    pub graph: &'g Graph,
    /// Where somebody else ran it: what that run computed, by value of the graph. What is missing is evaluated here.
    pub recorded: Option<&'g FxHashMap<ValueId, Tensor>>,
}

impl Source<'_> {
    fn side(&self) -> isotrace_report::Side {
        let constants = self.graph.values.iter().filter(|v| v.constant.is_some()).count();
        isotrace_report::Side {
            source: self.path.to_owned(),
            kind: isotrace_report::Source::Onnx,
            nodes: self.graph.nodes.len(),
            values: self.graph.values.len() - constants,
            run: None,
        }
    }
}

/// The whole report.
#[expect(clippy::too_many_arguments, reason = "everything that was found, put together once")]
pub fn report(
    judge: &Judge<'_, '_>,
    state: &State,
    a: &Source<'_>,
    b: &Source<'_>,
    faults: Vec<Fault>,
    outputs: &[(ValueId, ValueId)],
    wrong: &[ValueId],
    compared: &Compared,
    detail: Detail,
) -> Report {
    let blamed: Vec<ValueId> =
        faults.iter().flat_map(|f| f.outputs_b.iter().copied()).chain(wrong.iter().copied()).collect();
    let (pairs, of_a, of_b) =
        pairs(judge, state, &blamed, outputs, (compared, detail, a.recorded.or(b.recorded).is_some()));
    let tipped = if faults.is_empty() { discrete::tipped(judge, state) } else { Vec::new() };
    let (verdict, reason) = verdict(judge, &faults, &tipped, outputs);
    let mut report = Report::new(verdict, reason, a.side(), b.side());
    if detail.listing {
        report.listing = listing(judge, &of_a, &of_b);
    }
    report.pairs = pairs;
    report.culprits = faults.into_iter().enumerate().map(|(i, f)| culprit(judge, i + 1, f)).collect();
    report.warnings = warnings(judge, outputs);
    report.warnings.extend(tipped.iter().map(|t| t.warning(judge)));
    if verdict == Verdict::Equivalent && tipped.is_empty() {
        report.warnings.extend(decided_by_rounding(judge, state, outputs, compared));
    }
    report
}

fn verdict(
    judge: &Judge<'_, '_>,
    faults: &[Fault],
    tipped: &[Tipped],
    outputs: &[(ValueId, ValueId)],
) -> (Verdict, String) {
    if let Some(reason) = not_a_number(judge.a, outputs) {
        return (Verdict::Invalid, reason);
    }
    if let Some(first) = faults.first() {
        let more = match faults.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        return (Verdict::Divergent, format!("{}{more}", first.summary));
    }
    let mut finite = 0;
    let mut same = true;
    let mut worst: Option<(f64, &str)> = None;
    for &(vb, va) in outputs {
        let (Some(x), Some(y)) = (judge.a.declared.get(va), judge.b.declared.get(vb)) else { continue };
        let name = judge.a.graph().value(va).name.as_str();
        finite += count(x, f64::is_finite).unwrap_or(x.len());
        same &= x.bit_eq(y);
        if let Some(m) = y.reshape(x.shape()).ok().and_then(|y| compare(x, &y).ok())
            && worst.is_none_or(|(w, _)| m.max_abs > w)
        {
            worst = Some((m.max_abs, name));
        }
    }
    if finite == 0 {
        return (
            Verdict::Invalid,
            "nothing was compared: the final outputs hold no finite element".to_owned(),
        );
    }
    if same {
        let reason = match outputs.len() {
            1 => "the final output agrees bit for bit".to_owned(),
            n => format!("all {n} final outputs agree bit for bit"),
        };
        return (Verdict::Identical, reason);
    }
    let (difference, name) = worst.unwrap_or((0.0, ""));
    let decisions = match tipped.iter().map(|t| t.count).sum() {
        0 => String::new(),
        1 => " and 1 decision that it tips".to_owned(),
        n => format!(" and {n} decisions that it tips"),
    };
    (
        Verdict::Equivalent,
        format!(
            "every difference is explained by rounding{}{decisions}; the largest at a final output is {difference:.3e} ({name:?})",
            precisions(judge)
        ),
    )
}

/// The precisions whose rounding the budgets are of, where it is not that of f32 on both sides.
fn precisions(judge: &Judge<'_, '_>) -> String {
    match (judge.a.main, judge.b.main) {
        (DType::F32, DType::F32) => String::new(),
        (x, y) if x == y => format!(" in {x}"),
        (x, y) => format!(" in {x} (A) and {y} (B)"),
    }
}

/// How many elements are such; `None` of text.
fn count(tensor: &Tensor, such: fn(f64) -> bool) -> Option<usize> {
    match tensor.as_slice::<f32>() {
        Ok(values) => Some(values.iter().filter(|x| such(f64::from(**x))).count()),
        Err(_) => Some(tensor.to_f64().ok()?.iter().filter(|x| such(**x)).count()),
    }
}

/// Says so where a final output of a side holds NaN, and where it was born.
pub fn not_a_number(side: &Side<'_>, outputs: &[(ValueId, ValueId)]) -> Option<String> {
    let nans = |v: ValueId| count(side.declared.get(v)?, f64::is_nan).filter(|n| *n > 0);
    let (output, nans_of_output) = outputs.iter().find_map(|&(_, va)| Some((va, nans(va)?)))?;
    let graph = side.graph();
    let born = graph.node_ids().find(|&n| graph.node(n).writes().any(|v| nans(v).is_some()))?;
    Some(format!(
        "the reference itself is not finite: {nans_of_output} of {} elements of its output {:?} are NaN, first born in {} {:?}",
        side.declared.count(output)?,
        graph.value(output).name,
        graph.node(born).op,
        graph.label(born)
    ))
}

fn culprit(judge: &Judge<'_, '_>, rank: usize, fault: Fault) -> Culprit {
    let region = |side: &Side<'_>, nodes: &[NodeId], outputs: &[ValueId]| Region {
        nodes: nodes.iter().map(|&n| side.graph().label(n).to_owned()).collect(),
        ops: nodes.iter().map(|&n| side.graph().node(n).qualified_op()).collect(),
        outputs: outputs.iter().map(|&v| side.graph().value(v).name.clone()).collect(),
    };
    Culprit {
        rank,
        side: match fault.narrow {
            Some(true) => CulpritSide::B,
            Some(false) => CulpritSide::A,
            None => CulpritSide::Neither,
        },
        a: region(judge.a, &fault.nodes_a, &fault.outputs_a),
        b: region(judge.b, &fault.nodes_b, &fault.outputs_b),
        cause: Cause {
            class: fault.class,
            summary: fault.summary,
            evidence: fault.evidence,
            counterfactual: fault.proof.map(|(change, before, after)| Counterfactual {
                change,
                before,
                after,
            }),
            nearest: fault
                .nearest
                .into_iter()
                .map(|(class, change, left)| Nearest { class: class.to_owned(), change, left })
                .collect(),
        },
    }
}

/// What the comparison in declared precision found, by value of B.
type Compared = FxHashMap<ValueId, Comparison>;
type Places = FxHashMap<ValueId, usize>;

/// Pairs in A's order, then B's values without a partner; and where each value stands in the list.
fn pairs(
    judge: &Judge<'_, '_>,
    state: &State,
    blamed: &[ValueId],
    outputs: &[(ValueId, ValueId)],
    compared: (&Compared, Detail, bool),
) -> (Vec<Pair>, Places, Places) {
    let (a, b) = (judge.a, judge.b);
    let (mut of_a, mut of_b) = (Places::default(), Places::default());
    let mut partners: FxHashMap<ValueId, Vec<ValueId>> = FxHashMap::default();
    let shown = |side: &Side<'_>, v: ValueId| !side.is_constant(v) || side.is_output(v);
    for v in b.graph().value_ids().filter(|&v| shown(b, v)) {
        if let Some(m) = &state.matched[v.index()] {
            partners.entry(m.a).or_default().push(v);
        }
    }
    // Final outputs are paired by role, whatever else happened.
    for &(vb, va) in outputs {
        let list = partners.entry(va).or_default();
        if !list.contains(&vb) {
            list.push(vb);
        }
    }
    // What a recording calls a view, a copy or an output of its own holds the same numbers as what it was made from.
    let mut by_class: FxHashMap<ValueId, Vec<ValueId>> = FxHashMap::default();
    for vb in b.graph().value_ids().filter(|&v| shown(b, v)) {
        if let Some(m) = &state.matched[vb.index()] {
            by_class.entry(judge.index.class(m.a)).or_default().push(vb);
        }
    }
    let order = |side: &Side<'_>| -> Vec<ValueId> {
        let graph = side.graph();
        let written = graph.nodes.iter().flat_map(isotrace_graph::Node::writes);
        graph.inputs.iter().copied().chain(written).filter(|&v| shown(side, v)).collect()
    };
    let mut out = Vec::new();
    for va in order(a) {
        of_a.insert(va, out.len());
        match partners.get(&va) {
            None => {
                let twins = by_class.get(&judge.index.class(va)).map_or(&[][..], Vec::as_slice);
                let twin = twins.iter().find_map(|&vb| Some((vb, relation(judge, state, va, vb)?)));
                out.push(match twin {
                    Some((vb, layout)) => pair(judge, state, (va, vb), &layout, blamed, compared),
                    None => alone(a, Some(va), None),
                });
            }
            Some(list) => {
                // A value of B that another name of the same numbers is paired with stays A's partner too.
                let unpaired = list.iter().copied().filter(|vb| !of_b.contains_key(vb));
                let mut take: Vec<ValueId> = unpaired.collect();
                if take.is_empty() {
                    take.extend(list.first());
                }
                for vb in take {
                    of_b.entry(vb).or_insert(out.len());
                    let layout = relation(judge, state, va, vb).unwrap_or(Layout::Same);
                    out.push(pair(judge, state, (va, vb), &layout, blamed, compared));
                }
            }
        }
    }
    for vb in order(b) {
        if let std::collections::hash_map::Entry::Vacant(slot) = of_b.entry(vb) {
            slot.insert(out.len());
            out.push(alone(b, None, Some(vb)));
        }
    }
    (out, of_a, of_b)
}

/// How a value of B is laid out beside a value of A that holds the same numbers as its partner, or is it.
fn relation(judge: &Judge<'_, '_>, state: &State, va: ValueId, vb: ValueId) -> Option<Layout> {
    let m = state.matched[vb.index()].as_ref()?;
    if m.a == va {
        return Some(m.relation.clone());
    }
    if judge.index.class(m.a) != judge.index.class(va) {
        return None;
    }
    let (own, partner) = (judge.a.declared.get(va)?, judge.a.declared.get(m.a)?);
    let shape = judge.b.declared.shape(vb)?.to_vec();
    between(own, &m.relation.carry(partner, &shape)?)
}

fn role(side: &Side<'_>, v: ValueId) -> Option<Role> {
    if side.is_output(v) {
        Some(Role::Output)
    } else {
        side.graph().inputs.contains(&v).then_some(Role::Input)
    }
}

fn op(side: &Side<'_>, v: ValueId) -> Option<String> {
    side.producer(v).map(|n| side.graph().node(n).qualified_op())
}

fn alone(side: &Side<'_>, a: Option<ValueId>, b: Option<ValueId>) -> Pair {
    let v = a.or(b).expect("one of the two");
    let both = |x: Option<String>| if a.is_some() { Both::new(x, None) } else { Both::new(None, x) };
    let dtype = side.declared.dtype(v);
    let shape = side.declared.shape(v).map(<[usize]>::to_vec);
    Pair {
        a: a.map(|v| side.graph().value(v).name.clone()),
        b: b.map(|v| side.graph().value(v).name.clone()),
        status: if dtype.is_some() { Status::Unmatched } else { Status::NotEvaluated },
        role: role(side, v),
        op: both(op(side, v)),
        dtype: both(dtype.map(|d| d.to_string())),
        shape: if a.is_some() { Both::new(shape, None) } else { Both::new(None, shape) },
        ..Pair::default()
    }
}

fn pair(
    judge: &Judge<'_, '_>,
    state: &State<'_, '_>,
    (va, vb): (ValueId, ValueId),
    layout: &Layout,
    blamed: &[ValueId],
    (compared, detail, recorded): (&Compared, Detail, bool),
) -> Pair {
    let (a, b) = (judge.a, judge.b);
    let x = a.declared.get(va);
    let (dtype, shape) = (b.declared.dtype(vb), b.declared.shape(vb));
    let mut out = Pair {
        a: Some(a.graph().value(va).name.clone()),
        b: Some(b.graph().value(vb).name.clone()),
        relation: match layout {
            Layout::Same => Relation::Same,
            Layout::Reshaped => Relation::Reshaped,
            Layout::PermutedA(_) | Layout::PermutedB(_) => Relation::Permuted,
            Layout::Sliced { .. } => Relation::Sliced,
        },
        role: role(a, va).or_else(|| role(b, vb)),
        op: Both::new(op(a, va), op(b, vb)),
        dtype: Both::new(x.map(|t| t.dtype().to_string()), dtype.map(|d| d.to_string())),
        shape: Both::new(x.map(|t| t.shape().to_vec()), shape.map(<[usize]>::to_vec)),
        ..Pair::default()
    };
    match layout {
        Layout::PermutedA(perm) => {
            out.detail.insert("perm".into(), perm.clone().into());
        }
        Layout::PermutedB(perm) => {
            out.detail.insert("perm_b".into(), perm.clone().into());
        }
        Layout::Sliced { axis, start } => {
            out.detail.insert("axis".into(), (*axis).into());
            out.detail.insert("start".into(), (*start).into());
        }
        _ => {}
    }
    let (Some(x), Some(shape)) = (x, shape) else {
        out.status = Status::NotEvaluated;
        return out;
    };
    let Some(carried) = layout.carry(x, shape) else { return out };
    // What a short report does not show is not computed again for it.
    let shown = detail.pairs || !blamed.is_empty();
    let y = if shown { b.declared.get(vb) } else { b.declared.at_hand(vb) };
    let found = y.and_then(|y| Some((y, compare(&carried, y).ok()?)));
    let identical = match &found {
        Some((_, m)) => m.bits_equal,
        None => b.declared.holds(vb, &carried),
    };
    if found.is_some() || y.is_none() {
        out.status = match () {
            () if blamed.contains(&vb) => Status::Culprit,
            () if identical => Status::Identical,
            () if state.made_bits(vb, &carried) => Status::Inherited,
            // Two runs by other programs never share their rounding, so it is the greater part that names the pair.
            () if recorded
                && state
                    .own_declared(vb)
                    .zip(y)
                    .is_some_and(|(own, y)| mostly_inherited(own, &carried, y)) =>
            {
                Status::Inherited
            }
            () => Status::Rounding,
        };
    }
    if let Some((y, m)) = found {
        let place = m.argmax.as_ref().map(|index| {
            let strides = strides(y.shape());
            let flat: usize = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
            unravel(place_in_a(x, y, layout, flat), x.shape())
        });
        out.metrics = Metrics { argmax: place, ..metrics(&m) };
    }
    if state.is_matched(vb) && x.dtype().is_float() {
        out.allowed = if state.made_bits(vb, &carried) {
            Some(0.0)
        } else {
            let known = compared.get(&vb).copied().or_else(|| declared::compare(judge, state, vb));
            known.map(|found| found.allowed)
        };
        if detail.budgets {
            out.budget = y.and_then(|y| budget(judge, state, vb, &carried, y, compared));
        }
    }
    out
}

/// Whether B's value is farther from what B's nodes compute of A's inputs than that is from A's value.
fn mostly_inherited(own: &Tensor, theirs: &Tensor, free: &Tensor) -> bool {
    let gap = |x: &Tensor, y: &Tensor| compare(x, y).map_or(0.0, |m| m.max_abs);
    gap(own, free) > gap(own, theirs)
}

fn place_in_a(x: &Tensor, y: &Tensor, layout: &Layout, flat: usize) -> usize {
    if *layout == Layout::Same {
        return flat;
    }
    match x.to_f64() {
        Ok(values) => Probe::new(&values, x.shape(), y.shape(), layout).place(flat),
        Err(_) => flat,
    }
}

/// The four parts: own rounding on A's inputs, what B's own inputs change, what differs in float64.
fn budget(
    judge: &Judge<'_, '_>,
    state: &State,
    vb: ValueId,
    theirs: &Tensor,
    free: &Tensor,
    compared: &Compared,
) -> Option<Budget> {
    let largest = |x: &Tensor, y: &Tensor| -> Option<f64> { Some(compare(x, y).ok()?.max_abs) };
    let own = state.own_declared(vb)?;
    let inherited = if own.bit_eq(free) { 0.0 } else { largest(own, free)? };
    let exact = state.own_shadow[vb.index()].as_ref()?;
    let m = state.matched[vb.index()].as_ref()?;
    let semantic = largest(&m.relation.carry(judge.a.shadow.get(m.a)?, exact.shape())?, exact)?;
    if own.bit_eq(theirs) {
        return Some(Budget { fresh_a: 0.0, fresh_b: 0.0, inherited, semantic, allowed: 0.0, share: 0.0 });
    }
    let Comparison { allowed, share, .. } =
        compared.get(&vb).copied().or_else(|| declared::compare(judge, state, vb))?;
    let (fresh_a, fresh_b) = declared::fresh(judge, state, vb)?;
    Some(Budget { fresh_a, fresh_b, inherited, semantic, allowed, share })
}

fn listing(judge: &Judge<'_, '_>, of_a: &Places, of_b: &Places) -> Listing {
    let side = |side: &Side<'_>, places: &Places| {
        let graph = side.graph();
        let mut out = Vec::new();
        let mut push = |v: ValueId, kind: Kind| {
            let Some(t) = side.declared.get(v) else { return };
            out.push(Entry {
                kind,
                dtype: t.dtype().to_string(),
                shape: t.shape().to_vec(),
                summary: four_letters(t),
                op: if kind == Kind::Result { op(side, v).unwrap_or_default() } else { String::new() },
                name: graph.value(v).name.clone(),
                pair: places.get(&v).copied(),
            });
        };
        for v in graph.value_ids().filter(|&v| graph.value(v).constant.is_some()) {
            push(v, Kind::Initializer);
        }
        for &v in &graph.inputs {
            push(v, Kind::Input);
        }
        for node in &graph.nodes {
            for v in node.writes() {
                push(v, Kind::Result);
            }
        }
        for &v in &graph.outputs {
            push(v, Kind::Output);
        }
        out
    };
    Listing { a: side(judge.a, of_a), b: side(judge.b, of_b) }
}

/// What limits the conclusion.
fn warnings(judge: &Judge<'_, '_>, outputs: &[(ValueId, ValueId)]) -> Vec<Warning> {
    let mut out = Vec::new();
    for &(_, va) in outputs {
        let Some(Ok(values)) = judge.a.declared.get(va).map(Tensor::to_f64) else { continue };
        let name = &judge.a.graph().value(va).name;
        if values.len() > 1 && values.iter().all(|x| *x == values[0]) {
            out.push(Warning {
                class: "vacuous".into(),
                summary: format!(
                    "output {name:?} is {:e} everywhere: it would agree with almost any computation; use inputs that vary",
                    values[0]
                ),
                place: vec![name.clone()],
            });
        }
    }
    out
}

/// A difference of this share of the largest number, or of so many units where that is more, is no longer small.
const FELT: (f64, f64) = (0.01, 64.0);

/// Final outputs that rounding explains and all but decides: a sum that drowns one side's numbers leaves both within what
/// is allowed, whatever they are.
fn decided_by_rounding(
    judge: &Judge<'_, '_>,
    state: &State<'_, '_>,
    outputs: &[(ValueId, ValueId)],
    compared: &Compared,
) -> Vec<Warning> {
    let felt = |apart: f64, va: ValueId| {
        let values = judge.a.declared.get(va)?.to_f64().ok()?;
        let size = values.iter().filter(|x| x.is_finite()).fold(0f64, |m, x| m.max(x.abs()));
        let unit = judge.a.unit().u.max(judge.b.unit().u);
        (apart > FELT.0.max(FELT.1 * unit) * size).then_some(size)
    };
    let mut by_rounding: Vec<(ValueId, f64)> = compared.iter().map(|(&v, c)| (v, c.difference)).collect();
    by_rounding.sort_unstable_by_key(|(v, _)| *v);
    let first = || {
        let mut places = by_rounding
            .iter()
            .filter_map(|&(v, apart)| Some((v, state.matched[v.index()].as_ref()?.a, apart)));
        places.find(|&(_, va, apart)| felt(apart, va).is_some()).and_then(|(v, ..)| judge.b.producer(v))
    };
    let warn = |&(vb, va): &(ValueId, ValueId)| {
        let (x, y) = (judge.a.declared.get(va)?, judge.b.declared.get(vb)?);
        let apart = compare(x, &y.reshape(x.shape()).ok()?).ok().filter(|_| x.dtype().is_float())?.max_abs;
        let size = felt(apart, va)?;
        let name = &judge.a.graph().value(va).name;
        let born = first().map(|n| judge.b.graph().label(n).to_owned());
        let at = born.as_ref().map_or(String::new(), |n| format!(", first in {n} of B"));
        let summary = format!(
            "rounding alone takes output {name:?} {apart:.3e} from A's, whose largest number is {size:.3e}{at}: on these \
             inputs it decides what comes out, and that it is allowed says little; look for numbers that are added to much \
             larger ones"
        );
        let place = born.into_iter().chain([name.clone()]).collect();
        Some(Warning { class: "vacuous".into(), summary, place })
    };
    outputs.iter().filter_map(warn).collect()
}

/// What a comparison measured, as reports hold it.
pub fn metrics(m: &isotrace_compare::Metrics) -> Metrics {
    Metrics {
        max_abs: Some(m.max_abs),
        mean_abs: Some(m.mean_abs),
        max_rel: Some(m.max_rel),
        rel_l2: Some(m.rel_l2),
        cosine: Some(m.cosine),
        max_ulp: m.max_ulp,
        argmax: m.argmax.clone(),
        nan: Both::new(m.nan[0], m.nan[1]),
        inf: Both::new(m.inf[0], m.inf[1]),
    }
}
