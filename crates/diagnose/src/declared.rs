//! `fresh`: whether each side, in declared precision and on the same inputs, does what its graph says.
//!
//! float64 does not see a tensor that is stored in f16 on its way, nor an overflow of f32. So every matched value is
//! compared in declared precision too, B's computed from A's own declared values, against the rounding that both
//! regions may commit at the precision in which their side computes as a whole.

use isotrace_align::narrow::{clamped, coarser};
use isotrace_align::region::{Rounding, Uncertainty};
use isotrace_align::{Comparison, Evidence, Judge, Region, Side, State};
use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::budget::Unit;
use isotrace_ops::{Precision, parallel};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;

use crate::faults::Fault;
use crate::level::level;
use crate::recorded::FUSED;
use crate::role;

/// Compares B's value with its partner in declared precision. `None` where they are the same bits or no floats.
pub fn compare(judge: &Judge<'_, '_>, state: &State, v: ValueId) -> Option<Comparison> {
    let m = state.matched[v.index()].as_ref()?;
    if let Evidence::Folded(found) = m.evidence {
        return Some(found);
    }
    let own = state.own_declared(v)?;
    let theirs = m.relation.carry(judge.a.declared.get(m.a)?, own.shape())?;
    if !own.dtype().is_float() || !theirs.dtype().is_float() || own.bit_eq(&theirs) {
        return None;
    }
    let (x, y) = (theirs.to_f64().ok()?, own.to_f64().ok()?);
    let behind_b = behind_b(judge, state, v, 256);
    let behind_a = behind_a(judge, state, m.a);
    let narrow = judge.narrow_at(v, m.a).or_else(|| narrow_before(judge, &behind_a, &behind_b));
    let same = |x: f64, y: f64| {
        x == y || x.is_nan() && y.is_nan() || narrow.is_some_and(|narrow| clamped(x, y, narrow))
    };
    let gap = |x: f64, y: f64| if same(x, y) { 0.0 } else { (x - y).abs() };
    let (unit_a, unit_b) = (unit(judge, judge.a), unit(judge, judge.b));
    let rounds = |_: NodeId| true;
    let never = |_: NodeId| false;
    let enters_a = |r: ValueId| half_ulp(judge.a, unit_a, r, judge.a.declared.get(r)?);
    let enters_b = |r: ValueId| {
        let own = state.own_declared(r)?.dtype();
        let theirs =
            state.matched[r.index()].as_ref().and_then(|m| judge.a.declared.get(m.a)).map(Tensor::dtype);
        // What A keeps in double precision, B's single precision rounds where it is put in.
        if theirs == Some(DType::F64) && own == DType::F32 {
            return Uncertainty::rounded(state.declared[r.index()].as_ref()?, Unit::F32);
        }
        let exact = !judge.b.is_constant(r) && own == judge.a.main;
        if exact { None } else { half_ulp(judge.b, unit_b, r, state.declared[r.index()].as_ref()?) }
    };
    let mut hidden = behind_a.nodes.iter().flat_map(|&n| judge.a.graph().node(n).writes());
    let factor = if hidden.any(|w| !judge.a.existed(w)) { FUSED } else { 1.0 };
    let allowance = |a: &Region, b: &Region, declared: bool| {
        let rounding = (
            Rounding { unit: unit_a, rounds: &rounds, scaled: &never, enters: &enters_a },
            Rounding { unit: unit_b, rounds: &rounds, scaled: &never, enters: &enters_b },
        );
        judge.allowance(state, v, b, m.a, a, &m.relation, own.len(), rounding, declared)
    };
    let worst = |allowed: &[f64]| {
        let of = |run: std::ops::Range<usize>| {
            let pairs = x[run.clone()].iter().zip(&y[run.clone()]).zip(&allowed[run]);
            pairs.fold(Comparison::NONE, |worst, ((x, y), e)| worst.with(gap(*x, *y), factor * e))
        };
        let pieces = parallel::pieces(x.len().min(y.len()).min(allowed.len()), &of);
        pieces.into_iter().fold(Comparison::NONE, Comparison::and)
    };
    let mut allowed = allowance(&behind_a, &behind_b, false)?;
    let found = worst(&allowed);
    if found.share <= 1.0 {
        return Some(found);
    }
    // What cancels in float64 and leaves nothing (a gradient that is zero) leaves rounding in f32, and what follows
    // rounds that.
    raise(&mut allowed, allowance(&behind_a, &behind_b, true)?);
    let found = worst(&allowed);
    if found.share <= 1.0 {
        return Some(found);
    }
    let ends = (m.a, v);
    if let Some((a, b)) =
        level(judge, state, ends, |r| stands_a(judge, state, r), |r| stands_b(judge, state, r), 256)
    {
        raise(&mut allowed, allowance(&a, &b, false)?);
    }
    Some(worst(&allowed))
}

/// The larger of two allowances at each element. What overflows excuses nothing.
fn raise(allowed: &mut [f64], more: Vec<f64>) {
    for (e, more) in allowed.iter_mut().zip(more) {
        if more.is_finite() {
            *e = e.max(more);
        }
    }
}

/// The type in which one side computes and the other does not, where values in it enter a region of that side or lie in
/// it: a mask that the type could not hold stays clamped when it is widened again.
fn narrow_before(judge: &Judge<'_, '_>, behind_a: &Region, behind_b: &Region) -> Option<DType> {
    let narrow = coarser(judge.a.main, judge.b.main)?;
    let (side, region) = if judge.b.main == narrow { (judge.b, behind_b) } else { (judge.a, behind_a) };
    let written = region.nodes.iter().flat_map(|&n| side.graph().node(n).writes());
    let mut there = region.boundary.iter().chain(&region.constants).copied().chain(written);
    there.any(|v| side.declared.dtype(v) == Some(narrow)).then_some(narrow)
}

/// B's nodes behind a value, back to values in whose place stands what A's run really had.
fn behind_b(judge: &Judge<'_, '_>, state: &State<'_, '_>, v: ValueId, limit: usize) -> Region {
    Region::behind(judge.b, &[v], |r| stands_b(judge, state, r), limit)
}

/// Whether what A's run really had stands in place of a value of B.
fn stands_b(judge: &Judge<'_, '_>, state: &State<'_, '_>, r: ValueId) -> bool {
    let partner = state.matched[r.index()].as_ref();
    !state.narrowed[r.index()] && partner.is_some_and(|m| judge.a.existed(m.a))
}

/// A's nodes behind a value, back to values that have a partner and that A's run really had.
fn behind_a(judge: &Judge<'_, '_>, state: &State<'_, '_>, v: ValueId) -> Region {
    Region::behind(judge.a, &[v], |r| stands_a(judge, state, r), 256)
}

/// Whether a value of A has a partner, and A's run really had it.
fn stands_a(judge: &Judge<'_, '_>, state: &State<'_, '_>, r: ValueId) -> bool {
    state.a_matched[r.index()] && judge.a.existed(r)
}

/// How far each side's declared value lies from its region's float64 value on the same declared inputs (A's).
pub fn fresh(judge: &Judge<'_, '_>, state: &State<'_, '_>, v: ValueId) -> Option<(f64, f64)> {
    let m = state.matched[v.index()].as_ref()?;
    let own = state.own_declared(v)?;
    let behind_b = behind_b(judge, state, v, 256);
    let behind_a = behind_a(judge, state, m.a);
    let exact_b = oracle(judge.b, &behind_b, v, &|r| state.declared[r.index()].clone());
    let exact_a = oracle(judge.a, &behind_a, m.a, &|r| judge.a.declared.get(r).cloned());
    let from = |exact: Option<Tensor>, value: &Tensor| exact.and_then(|e| distance(&e, value)).unwrap_or(0.0);
    Some((from(exact_a, judge.a.declared.get(m.a)?), from(exact_b, own)))
}

/// A region's float64 value on the declared values that enter it.
fn oracle(
    side: &Side<'_>,
    region: &Region,
    output: ValueId,
    declared: &dyn Fn(ValueId) -> Option<Tensor>,
) -> Option<Tensor> {
    let mut own: FxHashMap<ValueId, Tensor> = FxHashMap::default();
    for &n in &region.nodes {
        let node = side.graph().node(n);
        let decided: Vec<Option<Tensor>> = node.outputs.iter().map(|w| w.and_then(declared)).collect();
        let read = |r: ValueId| own.get(&r).cloned().or_else(|| declared(r));
        let outputs = side.plan.evaluate(n, &read, Precision::Float64, Some(&decided)).ok()?;
        own.extend(node.outputs.iter().zip(outputs).filter_map(|(w, t)| Some(((*w)?, t))));
    }
    own.remove(&output)
}

/// Unit roundoff of the precision in which a side computes, or of a narrower one that the user allows.
fn unit(judge: &Judge<'_, '_>, side: &Side<'_>) -> Unit {
    let widest = judge
        .allowed
        .iter()
        .copied()
        .chain([side.main])
        .max_by(|x, y| x.unit_roundoff().unwrap_or(0.0).total_cmp(&y.unit_roundoff().unwrap_or(0.0)));
    Unit::of(widest.unwrap_or(DType::F32))
}

fn half_ulp(side: &Side<'_>, unit: Unit, v: ValueId, declared: &Tensor) -> Option<Uncertainty> {
    if !declared.dtype().is_float() {
        return None;
    }
    if !side.is_constant(v) {
        return if unit.u > Unit::F32.u { Uncertainty::rounded(declared, unit) } else { None };
    }
    // Stored more narrowly than the side computes, it is a narrowing and no excuse for one.
    side.stored(v, declared, unit.finer(Unit::of(declared.dtype())))
}

/// Pairs whose declared difference rounding does not explain, and what the comparison of every pair found.
pub fn faults(
    judge: &Judge<'_, '_>,
    state: &State<'_, '_>,
) -> (Vec<(Fault, ValueId)>, FxHashMap<ValueId, Comparison>) {
    let mut out: Vec<(Fault, ValueId)> = Vec::new();
    let mut compared = FxHashMap::default();
    for n in judge.b.graph().node_ids() {
        for v in judge.b.graph().node(n).writes() {
            if state.narrowed[v.index()] && !judge.b.is_output(v) {
                continue;
            }
            // What depends on no input is computed once, in whatever precision; unless it was narrowed on the way.
            if judge.b.is_constant(v) && !is_narrowed(judge, state, v) {
                continue;
            }
            // A value that was put in is accounted for where it was put in.
            if state.matched[v.index()].as_ref().is_some_and(|m| m.evidence == Evidence::Confirmed) {
                continue;
            }
            let Some(found) = compare(judge, state, v) else { continue };
            // What was folded with one library's functions and is computed with another's may be an ulp off; only a
            // narrower type on the way is a fault there.
            let told = |fault: &Fault| !judge.b.is_constant(v) || fault.narrow.is_some();
            if found.share > 1.0 {
                out.extend(Some((fault(judge, state, v, &found), v)).filter(|(fault, _)| told(fault)));
            }
            compared.insert(v, found);
        }
    }
    (out, compared)
}

/// Whether one of the two regions behind a value narrows floats on the way.
fn is_narrowed(judge: &Judge<'_, '_>, state: &State<'_, '_>, v: ValueId) -> bool {
    let Some(m) = &state.matched[v.index()] else { return false };
    let behind_b = behind_b(judge, state, v, 64);
    narrow_in(judge.b, &behind_b.nodes)
        .or_else(|| narrow_in(judge.a, &behind_a(judge, state, m.a).nodes))
        .is_some()
}

/// The coarsest type narrower than the side's own that these nodes write.
fn narrow_in(side: &Side<'_>, nodes: &[NodeId]) -> Option<DType> {
    let written = nodes.iter().flat_map(|&n| side.graph().node(n).writes());
    let types = written.filter_map(|w| side.declared.get(w)).map(Tensor::dtype).filter(|d| d.is_float());
    types
        .filter(|d| d.unit_roundoff() > side.main.unit_roundoff())
        .max_by(|x, y| x.unit_roundoff().unwrap_or(0.0).total_cmp(&y.unit_roundoff().unwrap_or(0.0)))
}

/// The nodes of a region to be named: those that no input reaches only where there are no others.
fn working(side: &Side<'_>, region: &Region) -> Vec<NodeId> {
    let dynamic: Vec<NodeId> = region.dynamic_nodes(side).collect();
    if dynamic.is_empty() { region.nodes.clone() } else { dynamic }
}

/// Of nodes that narrow on the way those that do: that write or read the narrower type, and the last.
fn narrowing_nodes(side: &Side<'_>, nodes: Vec<NodeId>, narrow: DType) -> Vec<NodeId> {
    let last = nodes.last().copied();
    let is_narrow = |v: ValueId| side.declared.dtype(v) == Some(narrow);
    let touches = |n: NodeId| {
        let node = side.graph().node(n);
        node.reads().chain(node.writes()).any(is_narrow)
    };
    nodes.into_iter().filter(|&n| Some(n) == last || touches(n)).collect()
}

/// How many of the nodes add what hides entries.
fn hiding(side: &Side<'_>, nodes: &[NodeId]) -> usize {
    let hides = |n: &&NodeId| {
        let node = side.graph().node(**n);
        matches!(node.op.as_str(), "Add" | "Sub")
            && node.reads().any(|v| side.shadow.get(v).is_some_and(|t| t.len() > 1 && role::masks(t)))
    };
    nodes.iter().filter(hides).count()
}

fn fault(judge: &Judge<'_, '_>, state: &State, v: ValueId, found: &Comparison) -> Fault {
    let m = state.matched[v.index()].as_ref().expect("only matched values are compared");
    let behind_b = behind_b(judge, state, v, 256);
    let behind_a = Region::behind(judge.a, &[m.a], |r| state.a_matched[r.index()], 64);
    let (nodes_b, nodes_a) = (working(judge.b, &behind_b), working(judge.a, &behind_a));
    let (narrow_b, narrow_a) = (narrow_in(judge.b, &nodes_b), narrow_in(judge.a, &nodes_a));
    let lost = |t: Option<&Tensor>| {
        t.and_then(|t| t.to_f64().ok()).is_some_and(|x| x.iter().any(|x| !x.is_finite()))
    };
    let (own, theirs) = (state.own_declared(v), judge.a.declared.get(m.a));
    let overflow = lost(own) != lost(theirs);
    let (who, name, narrow) = match (narrow_b, narrow_a) {
        (Some(d), _) => (judge.b, "B", Some((true, d))),
        (None, Some(d)) => (judge.a, "A", Some((false, d))),
        (None, None) => (judge.b, "B", None),
    };
    let (narrowing, other, wide) = match narrow {
        Some((false, _)) => (&nodes_a, judge.b, &nodes_b),
        _ => (&nodes_b, judge.a, &nodes_a),
    };
    let largest = |side: &Side<'_>, w: ValueId| {
        side.shadow
            .get(w)
            .and_then(|t| t.to_f64().ok())
            .map_or(0.0, |x| x.iter().fold(0f64, |m, x| m.max(x.abs())))
    };
    let (class, summary) = match narrow {
        Some((_, d)) if overflow => (
            "overflow",
            format!(
                "{name} computes in {d}, whose largest number is {}, where values reach {:.6e}",
                d.largest_finite().unwrap_or(0.0),
                largest(judge.a, m.a)
            ),
        ),
        Some((_, d)) => (
            if turns_by(who, narrowing, d) {
                "rope"
            } else if sums_in_parts(who, narrowing) && !sums_in_parts(other, wide)
                || (sums_one_by_one(who, narrowing) || keeps_total(who, narrowing, d))
                    && wide.iter().any(|&n| sums(&other.graph().node(n).op))
            {
                "accumulation"
            } else if of_statistics(who, narrowing, d) {
                "normalisation"
            } else {
                "precision"
            },
            format!(
                "{name} rounds to {d} here while it computes in {}; the difference {:.3e} is {:.0} times what {} allows",
                who.main, found.difference, found.share, who.main
            ),
        ),
        None if overflow => ("overflow", format!("values leave the range of {}", who.main)),
        None if hiding(judge.b, &nodes_b) != hiding(judge.a, &nodes_a) => (
            "mask",
            format!(
                "what one side alone adds to hide entries is so large that those of whole rows drown in {}; the \
                 difference {:.3e} is {:.1} times what its rounding allows",
                who.main, found.difference, found.share
            ),
        ),
        None => (
            "accumulation",
            format!(
                "the difference {:.3e} is {:.1} times what rounding in {} allows",
                found.difference, found.share, who.main
            ),
        ),
    };
    let proof = narrow.and_then(|(_, d)| {
        let after = if narrow_b.is_some() {
            let wide = widened(judge.b, &nodes_b, v, d, &|r| state.declared[r.index()].clone())?;
            distance(&m.relation.carry(theirs?, wide.shape())?, &wide)?
        } else {
            let wide = widened(judge.a, &nodes_a, m.a, d, &|r| judge.a.declared.get(r).cloned())?;
            distance(&m.relation.carry(&wide, own?.shape())?, own?)?
        };
        Some((format!("{} kept in place of {d}", who.main), found.difference, after))
    });
    let (nodes_b, nodes_a) = match narrow {
        Some((true, d)) => (narrowing_nodes(judge.b, nodes_b, d), nodes_a),
        Some((false, d)) => (nodes_b, narrowing_nodes(judge.a, nodes_a, d)),
        None => (nodes_b, nodes_a),
    };
    let fresh = fresh(judge, state, v).unwrap_or_default();
    Fault {
        outputs_a: vec![m.a],
        outputs_b: nodes_b
            .iter()
            .flat_map(|&n| judge.b.graph().node(n).writes())
            .filter(|w| !judge.b.is_constant(*w) || judge.b.is_constant(v))
            .collect(),
        nodes_a,
        nodes_b,
        class: class.to_owned(),
        summary,
        evidence: vec![format!(
            "in float64 the two sides agree here; on the same inputs A is {:.3e} and B {:.3e} away from it",
            fresh.0, fresh.1
        )],
        proof,
        narrow: narrow.map(|(b, _)| b),
        whole: false,
        nearest: Vec::new(),
    }
}

/// Whether what nodes narrow to a type are the positions or angles themselves, of which cosines and sines are taken.
fn turns_by(side: &Side<'_>, nodes: &[NodeId], narrow: DType) -> bool {
    let narrowed = |v: &ValueId| side.declared.dtype(*v) == Some(narrow);
    let mut at: Vec<ValueId> =
        nodes.iter().flat_map(|&n| side.graph().node(n).writes()).filter(narrowed).collect();
    for _ in 0..TO_ANGLES {
        let readers: Vec<NodeId> =
            at.iter().flat_map(|v| side.consumers[v.index()].iter().copied()).collect();
        let curve = |n: &NodeId| matches!(side.graph().node(*n).op.as_str(), "Cos" | "Sin");
        if readers.iter().any(|n| curve(n) && role::is_of_angles(side, *n)) {
            return true;
        }
        let on = |n: &NodeId| {
            let op = side.graph().node(*n).op.as_str();
            role::is_layout(op) || matches!(op, "Cast" | "Concat" | "Mul" | "MatMul" | "Einsum")
        };
        at = readers.iter().filter(|n| on(n)).flat_map(|&n| side.graph().node(n).writes()).collect();
    }
    false
}

/// Whether these nodes add up a product in parts: several products meet in sums.
fn sums_in_parts(side: &Side<'_>, nodes: &[NodeId]) -> bool {
    let count = |is: &dyn Fn(&str) -> bool| nodes.iter().filter(|&&n| is(&side.graph().node(n).op)).count();
    let added = nodes.iter().any(|&n| side.graph().node(n).op == "Add" && side.dynamic_inputs(n).len() > 1);
    added && count(&role::is_product) > 1
}

/// Whether these nodes add up products of numbers, one after the other.
fn sums_one_by_one(side: &Side<'_>, nodes: &[NodeId]) -> bool {
    let met = |op: &str| {
        nodes.iter().filter(|&&n| side.graph().node(n).op == op && side.dynamic_inputs(n).len() > 1).count()
    };
    met("Add") > 1 && met("Mul") > 2 && !nodes.iter().any(|&n| role::is_product(&side.graph().node(n).op))
}

/// Whether these nodes add to a total that they keep in a narrow type from one addition to the next.
fn keeps_total(side: &Side<'_>, nodes: &[NodeId], narrow: DType) -> bool {
    let adds = |n: NodeId| side.graph().node(n).op == "Add" && side.dynamic_inputs(n).len() > 1;
    let total = |mut v: ValueId| {
        let mut kept = false;
        while let Some(n) = side.producer(v).filter(|n| nodes.contains(n)) {
            kept |= side.declared.dtype(v) == Some(narrow);
            if side.graph().node(n).op != "Cast" {
                return kept && adds(n);
            }
            let Some(&read) = side.dynamic_inputs(n).first() else { break };
            v = read;
        }
        false
    };
    let carried = nodes.iter().filter(|&&n| adds(n) && side.dynamic_inputs(n).into_iter().any(total));
    carried.count() > 1
}

/// Whether an operator sums many terms.
fn sums(op: &str) -> bool {
    role::is_product(op) || role::is_reduction(op) || role::is_normalisation(op) || op.ends_with("Softmax")
}

/// Whether all that these nodes narrow to a type are statistics, to which values are brought.
fn of_statistics(side: &Side<'_>, nodes: &[NodeId], narrow: DType) -> bool {
    let narrows = |n: &&NodeId| {
        let node = side.graph().node(**n);
        node.op == "Cast" && node.writes().any(|v| side.declared.dtype(v) == Some(narrow))
    };
    let statistic = |n: &NodeId| {
        side.dynamic_inputs(*n).into_iter().all(|v| role::is_statistic(side, v)) && role::normalises(side, *n)
    };
    let mut narrowed = nodes.iter().filter(narrows).peekable();
    narrowed.peek().is_some() && narrowed.all(statistic)
}

/// Steps from narrowed positions to the cosines of their angles.
const TO_ANGLES: usize = 6;

/// What a region computes when nothing in it is narrowed to `narrow`: the side's own precision kept throughout.
fn widened(
    side: &Side<'_>,
    nodes: &[NodeId],
    output: ValueId,
    narrow: DType,
    lookup: &dyn Fn(ValueId) -> Option<Tensor>,
) -> Option<Tensor> {
    let mut own: FxHashMap<ValueId, Tensor> = FxHashMap::default();
    for &n in nodes {
        let node = side.graph().node(n);
        let read = |r: ValueId| {
            let t = own.get(&r).cloned().or_else(|| lookup(r))?;
            if t.dtype() == narrow { t.cast(side.main).ok() } else { Some(t) }
        };
        let outputs = if node.op == "Cast" && node.writes().all(|w| side.declared.dtype(w) == Some(narrow)) {
            vec![read(node.inputs.first().copied().flatten()?)?.cast(side.main).ok()?]
        } else {
            side.plan.evaluate(n, &read, Precision::Declared, None).ok()?
        };
        own.extend(node.outputs.iter().zip(outputs).filter_map(|(w, t)| Some(((*w)?, t))));
    }
    own.remove(&output)
}

/// The largest difference of two tensors of one shape; infinite where NaN stands against a number.
fn distance(x: &Tensor, y: &Tensor) -> Option<f64> {
    let m = isotrace_compare::compare(x, y).ok()?;
    Some(if m.max_abs.is_nan() { f64::INFINITY } else { m.max_abs })
}
