//! The module whose outputs part, and what its weights say.

use isotrace_report::{Cause, Culprit, CulpritSide, Region, Report, Status};
use rustc_hash::FxHashSet;

use super::judge::{Findings, Found, judge, unit};
use super::view::{Call, View};

/// Blames a call of the recorded side, which is A where `is_a` says so.
pub fn blame(report: &mut Report, call: &Call, (a, b): (&View, &View), is_a: bool) {
    let view = if is_a { a } else { b };
    let mut evidence = weights(&call.module, a, b);
    evidence.push("no operator was recorded: record operators to learn which of them and why".to_owned());
    let region = Region {
        nodes: vec![call.module.clone()],
        ops: vec![call.class.clone()],
        outputs: call.outputs.iter().map(|&i| view.values[i].name.clone()).collect(),
    };
    for pair in &mut report.pairs {
        let name = if is_a { &pair.a } else { &pair.b };
        let named = name.as_ref().is_some_and(|name| region.outputs.contains(name));
        if named && pair.status == Status::Inherited {
            pair.status = Status::Culprit;
        }
    }
    let (a, b) = if is_a { (region, Region::default()) } else { (Region::default(), region) };
    let summary = format!(
        "{} is given the same as on the other side, but for rounding, and gives something else",
        place(call)
    );
    let cause = Cause { class: "unknown".into(), summary, evidence, counterfactual: None, nearest: vec![] };
    report.culprits.push(Culprit { rank: 1, side: CulpritSide::Neither, a, b, cause });
}

/// How to call a call.
pub fn place(call: &Call) -> String {
    format!("{} ({})", call.module, call.class)
}

/// The first call, of the inner ones, that gives something else than the other side though it was given the same.
pub fn parting<'v>(view: &'v View, of: &Findings) -> Option<&'v Call> {
    let good = |i: &usize| of.get(i).is_some_and(|f| matches!(f, Found::Bits | Found::Within));
    let bad =
        |i: &usize| of.get(i).is_some_and(|f| matches!(f, Found::Beyond | Found::Unclear | Found::Unknown));
    let sound = |c: &&Call| !c.inputs.is_empty() && c.inputs.iter().all(good);
    let inner = |calls: &[&'v Call], first: bool| {
        let above: FxHashSet<u64> = calls.iter().filter_map(|c| c.parent).collect();
        let mut inner = calls.iter().filter(|c| !above.contains(&c.id)).copied();
        if first { inner.next() } else { inner.next_back() }
    };
    let parted: Vec<&Call> = view.calls.iter().filter(sound).filter(|c| c.outputs.iter().any(bad)).collect();
    // Where nothing that is near enough to be compared parts, what has no partner at all does: the last, since what comes
    // after the fault was not given the same any more, and what comes before may be fused on the other side.
    let lost: Vec<&Call> =
        view.calls.iter().filter(sound).filter(|c| c.outputs.iter().any(|i| !of.contains_key(i))).collect();
    inner(&parted, true)
        .filter(|c| c.parent.is_some())
        .or_else(|| inner(&lost, false))
        .or_else(|| inner(&parted, true))
}

/// What the parameters and buffers of a module say about why it parts, where both recordings kept them.
fn weights(module: &str, a: &View, b: &View) -> Vec<String> {
    if a.weights.is_empty() || b.weights.is_empty() {
        return vec![];
    }
    let own = |view: &View| -> Vec<String> {
        let of = |name: &&String| name.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'));
        view.weights.keys().filter(of).cloned().collect()
    };
    let mut names = own(a);
    names.extend(own(b));
    names.sort_unstable();
    names.dedup();
    let mut told = vec![];
    for name in &names {
        let (Some(x), Some(y)) = (a.weights.get(name), b.weights.get(name)) else {
            let side = if a.weights.contains_key(name) { "A" } else { "B" };
            told.push(format!("{name} is there in {side} alone"));
            continue;
        };
        if x.shape != y.shape {
            told.push(format!("{name} is {:?} in A and {:?} in B", x.shape, y.shape));
            continue;
        }
        let (found, metrics) = judge(x, y);
        let u = unit(x.dtype).max(unit(y.dtype));
        // Nothing was computed: a weight is at most rounded to the coarser type.
        if metrics.rel_l2.is_some_and(|apart| apart > u) || found == Found::Beyond {
            let far = metrics.rel_l2.map_or(String::new(), |apart| format!(" by {apart:.1e} of its norm"));
            told.push(format!("{name} differs{far}"));
        } else if found == Found::Unknown {
            told.push(format!("{name} is not the same bits"));
        }
    }
    if told.is_empty() && !names.is_empty() {
        let (n, are) = (names.len(), if names.len() == 1 { "is" } else { "are" });
        told.push(format!(
            "{} {are} the same on both sides",
            if n == 1 { names[0].clone() } else { format!("its {n} parameters and buffers") }
        ));
    }
    told
}
