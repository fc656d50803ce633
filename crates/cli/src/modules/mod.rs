//! Recordings that hold what modules were given and gave, and no graph, as a side of `diff`.
//!
//! Nothing of such a side can be replayed, so no difference can be split into its parts: what is left is to pair values
//! and to ask how far they are apart. A value is paired with the one of the same name, final outputs by their order, the
//! rest with the value of as many elements whose content is nearest. Where the other side has a graph, how far its own
//! run is from its float64 shadow says how much rounding grows on the way to that value; that much, several times over,
//! is allowed. Between two recordings of modules calibrated distances have to do, with a range between them in which
//! nothing can be said, unless a single operator was given the same bits. Digests say whether bits are equal, and how far
//! two values are apart at least. The report says of all this that it is the weaker evidence.

mod view;

pub use view::{View, border};

use isotrace_compare::compare;
use isotrace_report::{
    Both, Cause, Culprit, CulpritSide, Metrics, Pair, Region, Relation, Report, Role, Status, Verdict,
    Warning,
};
use isotrace_tensor::{DType, Tensor};
use isotrace_trace::trace::Digest;
use rustc_hash::{FxHashMap, FxHashSet};

use view::{Call, Seen};

// Calibrated by `bench/modules.py`: BERT, Llama, ViT and ResNet of 2 to 12 layers, with ordinary and with sharp attention,
// the same network in float64, float16 and bfloat16, with attention in parts and compiled by inductor, against float32,
// and every planted fault of tests/python/models.py. Its table gives the figures below; u is the unit of the coarser type.

/// How many times the other side's own distance from float64, carried over to the coarser type, a value may lie from it:
/// another implementation rounds in other places, and each is one draw. Without a fault, 1.01 at most; with one, 220 at
/// least in float32. In half types faults begin below what rounding does, and the smaller ones pass.
const DRAWS: f64 = 4.0;
/// Rounding of single operators, in units, that such a distance may happen to lack.
const UNITS: f64 = 16.0;
/// Units allowed where nobody knows how rounding grows, and the most that this may come to. Without a fault, 23 units
/// in float32 and 6 of bfloat16 (2 %), 11 where torch.compile made the kernels; 481 and 100 (39 %) where attention is
/// sharp, and 2,460 and 224 (87 %) in the one network of 12 layers where rounding decides what is attended to.
const BLIND: (f64, f64) = (1024.0, 0.05);
/// Units, and the least share, from which on rounding does not explain a distance though nobody knows how it grows:
/// the smallest fault comes to 1,410 units in float32 (epsilon, in a network of two layers), the next to 2,010 and
/// 3,950. In between, nothing can be said.
const FAULT: (f64, f64) = (3072.0, 1.0);
/// Units within which one operator's rounding stays, where both sides gave it the same bits: nothing before it matters
/// then. The most is that of [`BLIND`].
const ALONE: f64 = isotrace_ops::ops::opaque::UNITS;
/// Classes that are one operator, by the beginnings of their names. What recurs rounds many times over.
const OPERATORS: [&str; 8] = [
    "torch.nn.modules.activation.",
    "torch.nn.modules.batchnorm.",
    "torch.nn.modules.conv.",
    "torch.nn.modules.instancenorm.",
    "torch.nn.modules.linear.",
    "torch.nn.modules.normalization.",
    "torch.nn.modules.pooling.",
    "torch.nn.modules.sparse.",
];
/// Farther apart than this, two values are not the same one with a fault. Different values of one run come as near to
/// each other as 3 %; the nearest is taken.
const FAR: f64 = 0.05;
/// Elements by which values that cannot be the same are told apart.
const SAMPLE: usize = 64;

/// |a - b| / |a|.
fn relative(a: &Tensor, b: &Tensor) -> Option<f64> {
    let (x, y) = (a.to_f64().ok()?, b.to_f64().ok()?);
    if x.len() != y.len() {
        return None;
    }
    let (mut apart, mut size) = (0.0, 0.0);
    for (x, y) in x.iter().zip(y.iter()) {
        apart += if x.to_bits() == y.to_bits() { 0.0 } else { (x - y) * (x - y) };
        size += x * x;
    }
    let share = (apart / size).sqrt();
    if apart == 0.0 { Some(0.0) } else { Some(if share.is_nan() { f64::INFINITY } else { share }) }
}

/// What was found of a pair.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    Bits,
    Within,
    Beyond,
    /// Farther apart than rounding brings most values, nearer than what is certainly a fault.
    Unclear,
    /// Digests of other bits, or of other hashes, and of values that may be near to each other.
    Unknown,
}

/// What was found of values by their places on one side.
type Findings = FxHashMap<usize, Found>;

/// Whether two values could be held against each other.
fn fits(x: &Seen, y: &Seen) -> bool {
    x.len() == y.len() && x.dtype.is_float() == y.dtype.is_float()
}

/// Values that both sides call the same and that cannot be held against each other: their roles, and why.
fn unlike(a: &View, b: &View) -> Vec<(Option<Role>, String)> {
    let names = b.names();
    let mut found: Vec<_> = a
        .names()
        .into_iter()
        .filter_map(|(name, i)| Some((i, name.0, &b.values[*names.get(&name)?])))
        .filter(|(i, _, y)| {
            let x = &a.values[*i];
            (x.role.is_some() || a.modules && b.modules) && !fits(x, y)
        })
        .collect();
    found.sort_unstable_by_key(|(i, ..)| *i);
    let told = |(i, name, y): (usize, &str, &Seen)| {
        let x = &a.values[i];
        let text = if x.len() == y.len() {
            format!("{name} is {} in A and {} in B", x.dtype, y.dtype)
        } else {
            format!("{name} has shape {:?} in A and {:?} in B", x.shape, y.shape)
        };
        (x.role.or(y.role), text)
    };
    found.into_iter().map(told).collect()
}

/// Pairs as places in A and in B.
fn pairs(a: &View, b: &View) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let (mut taken_a, mut taken_b) = (FxHashSet::default(), FxHashSet::default());
    let mut take = |i: usize, j: usize, found: &mut Vec<_>| {
        if !taken_a.contains(&i) && !taken_b.contains(&j) {
            taken_a.insert(i);
            taken_b.insert(j);
            found.push((i, j));
        }
    };
    // Graphs call their values as they like; only recordings share the names of modules.
    let names = b.names();
    for (name, i) in a.names() {
        let border = a.values[i].role.is_some();
        if let Some(&j) = names.get(&name)
            && (border || a.modules && b.modules)
            && fits(&a.values[i], &b.values[j])
        {
            take(i, j, &mut found);
        }
    }
    for (i, j) in a.outputs.iter().zip(&b.outputs).filter_map(|(i, j)| Some(((*i)?, (*j)?))) {
        if fits(&a.values[i], &b.values[j]) {
            take(i, j, &mut found);
        }
    }
    let sample = |value: &Seen| -> Option<Vec<f64>> {
        let values =
            value.elements.as_ref().filter(|t| t.dtype().is_float() && t.len() > 1)?.to_f64().ok()?;
        let step = (values.len() / SAMPLE).max(1);
        let picked: Vec<f64> = values.iter().step_by(step).copied().collect();
        // A constant tells nothing.
        picked.iter().any(|x| *x != picked[0]).then_some(picked)
    };
    let samples_b: Vec<_> = b.values.iter().map(sample).collect();
    for (i, value) in a.values.iter().enumerate() {
        let Some(x) = sample(value) else { continue };
        let near = |y: &[f64]| {
            let apart: f64 = x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum();
            apart <= 16.0 * FAR * FAR * x.iter().map(|x| x * x).sum::<f64>()
        };
        let nearest = samples_b
            .iter()
            .enumerate()
            .filter(|(j, y)| fits(value, &b.values[*j]) && y.as_ref().is_some_and(|y| near(y)))
            .filter_map(|(j, _)| {
                Some((relative(value.elements.as_ref()?, b.values[j].elements.as_ref()?)?, j))
            })
            .filter(|(apart, _)| *apart <= FAR)
            .min_by(|x, y| x.0.total_cmp(&y.0));
        // Several values may hold the same numbers; one that is free comes first, and any does.
        if let Some((_, j)) = nearest
            && !found.iter().any(|(k, _)| *k == i)
        {
            found.push((i, j));
        }
    }
    found.sort_unstable();
    found
}

fn unit(dtype: DType) -> f64 {
    dtype.unit_roundoff().unwrap_or(0.0)
}

/// Distances within which rounding explains a difference, and beyond which it does not; relative to the norm.
fn allowed(x: &Seen, y: &Seen) -> (f64, f64) {
    let u = unit(x.dtype).max(unit(y.dtype));
    // What one type's rounding grows to, another's grows to in proportion.
    let noise = |side: &Seen| side.noise.map(|noise| noise * (u / unit(side.dtype)).max(1.0));
    match (noise(x), noise(y)) {
        (None, None) => ((BLIND.0 * u).min(BLIND.1), (FAULT.0 * u).min(FAULT.1)),
        (p, q) => {
            let allowed = DRAWS * p.unwrap_or(0.0).max(q.unwrap_or(0.0)) + UNITS * u;
            (allowed, allowed)
        }
    }
}

/// How far two values are apart at least, relative to the first one's norm: the mean square of differences is the square
/// of the difference of means and a variance, which is no less than the square of the difference of deviations.
fn least(p: &Digest, q: &Digest) -> f64 {
    let moments = |d: &Digest| Some((d.mean?.0, d.std?.0)).filter(|_| d.nan + d.inf + d.negative_inf == 0);
    let (Some((mean, std)), Some((other, deviation))) = (moments(p), moments(q)) else { return 0.0 };
    let apart = (mean - other).hypot(std - deviation) / mean.hypot(std);
    if apart.is_nan() { 0.0 } else { apart }
}

fn judge(x: &Seen, y: &Seen) -> (Found, Metrics) {
    let (within, beyond) = allowed(x, y);
    let (Some(p), Some(q)) = (&x.elements, &y.elements) else {
        let Some((p, q)) = x.digest().zip(y.digest()) else { return (Found::Unknown, Metrics::default()) };
        let found = match p.same_bits(&q).filter(|_| x.dtype == y.dtype) {
            Some(true) => Found::Bits,
            _ if x.dtype.is_float() && least(&p, &q) > beyond => Found::Beyond,
            _ => Found::Unknown,
        };
        return (found, Metrics::default());
    };
    let reshaped = q.reshape(p.shape());
    let Some(m) = reshaped.ok().and_then(|q| compare(p, &q).ok()) else {
        return (Found::Beyond, Metrics::default());
    };
    let metrics = isotrace_diagnose::metrics(&m);
    let found = match () {
        () if m.bits_equal && x.dtype == y.dtype => Found::Bits,
        () if m.rel_l2 <= within => Found::Within,
        () if m.rel_l2 <= beyond => Found::Unclear,
        () => Found::Beyond,
    };
    (found, metrics)
}

/// What was found of A's values, by their places.
type Judged = FxHashMap<usize, (Found, Metrics)>;

/// Holds single operators to their own rounding, where both sides gave them the same bits. Whether one fails.
fn alone(a: &View, b: &View, partner: &FxHashMap<usize, usize>, judged: &mut Judged) -> bool {
    let above: FxHashSet<u64> = a.calls.iter().filter_map(|c| c.parent).collect();
    // Attention rounds many times over, and a rectifier may draw its slope anew each time.
    let one = |class: &str| {
        let others = ["MultiheadAttention", "RReLU"].iter().any(|o| class.ends_with(o));
        OPERATORS.iter().any(|o| class.starts_with(o)) && !others
    };
    let mut fails = false;
    for call in a.calls.iter().filter(|c| !above.contains(&c.id) && one(&c.class)) {
        let bits = |i: &usize| judged.get(i).is_some_and(|(found, _)| *found == Found::Bits);
        if call.inputs.is_empty() || !call.inputs.iter().all(bits) {
            continue;
        }
        for i in &call.outputs {
            let (Some(&j), Some((found, metrics))) = (partner.get(i), judged.get_mut(i)) else { continue };
            let u = unit(a.values[*i].dtype).max(unit(b.values[j].dtype));
            if metrics.rel_l2.is_some_and(|apart| apart > (ALONE * u).min(BLIND.1)) {
                *found = Found::Beyond;
                fails = true;
            }
        }
    }
    fails
}

/// Holds two sides against each other, of which one at least is a recording of modules.
pub fn diff((path_a, a): (&str, &View), (path_b, b): (&str, &View)) -> Report {
    let mut report = Report::new(Verdict::Inconclusive, "", a.side(path_a), b.side(path_b));
    let (mut of_a, mut of_b) = (Findings::default(), Findings::default());
    let mut partner: FxHashMap<usize, usize> = pairs(a, b).into_iter().collect();
    let mut judged: Judged = partner.iter().map(|(&i, &j)| (i, judge(&a.values[i], &b.values[j]))).collect();
    let alone = a.modules && b.modules && alone(a, b, &partner, &mut judged);
    for (i, x) in a.values.iter().enumerate() {
        let mut pair = Pair {
            a: Some(x.name.clone()),
            role: x.role,
            op: Both::new(x.op.clone(), None),
            dtype: Both::new(Some(x.dtype.to_string()), None),
            shape: Both::new(Some(x.shape.clone()), None),
            ..Pair::default()
        };
        if let Some(j) = partner.remove(&i) {
            let y = &b.values[j];
            let (found, metrics) = judged.remove(&i).unwrap_or((Found::Unknown, Metrics::default()));
            of_a.insert(i, found);
            of_b.insert(j, found);
            pair.b = Some(y.name.clone());
            pair.role = x.role.or(y.role);
            pair.op.b.clone_from(&y.op);
            pair.dtype.b = Some(y.dtype.to_string());
            pair.shape.b = Some(y.shape.clone());
            pair.relation = if x.shape == y.shape { Relation::Same } else { Relation::Reshaped };
            pair.status = match found {
                Found::Bits => Status::Identical,
                Found::Within => Status::Rounding,
                Found::Beyond => Status::Inherited,
                Found::Unclear | Found::Unknown => Status::NotEvaluated,
            };
            pair.metrics = metrics;
        }
        report.pairs.push(pair);
    }
    for (_, y) in b.values.iter().enumerate().filter(|(j, _)| !of_b.contains_key(j)) {
        report.pairs.push(Pair {
            b: Some(y.name.clone()),
            role: y.role,
            op: Both::new(None, y.op.clone()),
            dtype: Both::new(None, Some(y.dtype.to_string())),
            shape: Both::new(None, Some(y.shape.clone())),
            ..Pair::default()
        });
    }
    let (view, of, is_a) = if a.modules { (a, &of_a, true) } else { (b, &of_b, false) };
    // Arrays by name were given by whoever called, not by modules.
    let arrays = view.calls.iter().all(|c| c.class == "mapping");
    let of_calls = view.calls.iter().flat_map(|c| &c.outputs).copied();
    let by_themselves =
        (0..view.values.len()).filter(|&i| arrays && view.values[i].role != Some(Role::Input));
    let given: FxHashSet<usize> = of_calls.chain(by_themselves).collect();
    let missing: Vec<usize> = given.iter().copied().filter(|i| !of.contains_key(i)).collect();
    let count = |wanted: Found| of.values().filter(|found| **found == wanted).count();
    let compared = of.iter().filter(|(i, _)| view.values[**i].role != Some(Role::Input)).count();
    let finals =
        |found: Found| of.iter().any(|(i, f)| view.values[*i].role == Some(Role::Output) && *f == found);
    let seen = format!(
        "{} of {}: {} of {} have a partner, and no operator could be replayed",
        if arrays { "arrays alone were given" } else { "outputs of modules alone were recorded" },
        match (a.modules, b.modules) {
            (true, true) => "both",
            (true, false) => "A",
            _ => "B",
        },
        given.len() - missing.len(),
        given.len()
    );
    let parted = parting(view, of);
    let outputs = view.values.iter().enumerate().filter(|(_, v)| v.role == Some(Role::Output));
    let lost = outputs.clone().any(|(i, _)| !of.contains_key(&i)) || outputs.count() == 0;
    let place = parted.map(|c| format!("{} ({})", c.module, c.class));
    let beside = place.as_ref().map_or(String::new(), |p| format!("; {p} is the first whose outputs part"));
    let unlike = unlike(a, b);
    // Where the inputs are no match, outputs say nothing.
    let fed = unlike.iter().all(|(role, _)| *role != Some(Role::Input));
    let shapes = unlike.iter().any(|(role, _)| *role == Some(Role::Output)) && fed;
    let seen = match unlike.as_slice() {
        [] => seen,
        [(_, one)] => format!("{one}; {seen}"),
        [(_, one), more @ ..] => format!("{one}, and {} more do not fit; {seen}", more.len()),
    };
    let (verdict, reason) = if shapes {
        (Verdict::Divergent, format!("a final output cannot be held against its partner: {seen}"))
    } else if compared == 0 {
        (Verdict::Invalid, format!("nothing could be compared; {seen}"))
    } else if finals(Found::Beyond) || lost && count(Found::Beyond) > 0 {
        (
            Verdict::Divergent,
            format!("final outputs are farther apart than rounding brings them{beside}; {seen}"),
        )
    } else if alone {
        let by = "a module that both sides gave the same bits gives values that are farther apart than one operator's rounding brings them";
        (Verdict::Divergent, format!("{by}{beside}; {seen}"))
    } else if count(Found::Beyond) > 0 {
        let by = "final outputs agree, but values on the way are farther apart than rounding brings them";
        (Verdict::Divergent, format!("{by}{beside}; {seen}"))
    } else if count(Found::Unknown) > 0 {
        let by = "bits differ, and digests do not say by how much; record both with keeps=\"both\" to know";
        (Verdict::Inconclusive, format!("{by}{beside}; {seen}"))
    } else if count(Found::Unclear) > 0 {
        let by = "values are farther apart than rounding brings most networks, and nearer than a fault certainly does; record operators of one side to know";
        (Verdict::Inconclusive, format!("{by}{beside}; {seen}"))
    } else if lost {
        (Verdict::Inconclusive, format!("a final output has no partner{beside}; {seen}"))
    } else if count(Found::Within) == 0 && missing.is_empty() {
        (Verdict::Identical, format!("every value that has a partner is the same bits; {seen}"))
    } else {
        let by = "every value that has a partner is as near to it as rounding explains, which is the weaker evidence";
        (Verdict::Equivalent, format!("{by}; {seen}"))
    };
    if verdict == Verdict::Divergent
        && let Some(call) = parted
    {
        let mut evidence = weights(&call.module, a, b);
        evidence.push("no operator was recorded: record operators to learn which of them and why".to_owned());
        let names = call.outputs.iter().map(|&i| view.values[i].name.clone()).collect();
        let region =
            Region { nodes: vec![call.module.clone()], ops: vec![call.class.clone()], outputs: names };
        for pair in &mut report.pairs {
            let name = if is_a { &pair.a } else { &pair.b };
            if name.as_ref().is_some_and(|name| region.outputs.contains(name))
                && pair.status == Status::Inherited
            {
                pair.status = Status::Culprit;
            }
        }
        let (a, b) = if is_a { (region, Region::default()) } else { (Region::default(), region) };
        let summary = format!(
            "{} is given the same as on the other side, but for rounding, and gives something else",
            place.unwrap_or_default()
        );
        let cause =
            Cause { class: "unknown".into(), summary, evidence, counterfactual: None, nearest: vec![] };
        report.culprits.push(Culprit { rank: 1, side: CulpritSide::Neither, a, b, cause });
    }
    report.warnings.push(Warning {
        class: "latent".into(),
        summary: if arrays {
            "what the arrays were computed by is not known and was not judged".into()
        } else {
            "what happens inside of modules was not recorded and not judged".into()
        },
        place: missing.iter().map(|&i| view.values[i].name.clone()).collect(),
    });
    if a.digests_alone() || b.digests_alone() {
        report.warnings.push(Warning {
            class: "latent".into(),
            summary: "digests were kept in place of elements: equal bits are known, and of others how far they are apart at least".into(),
            place: vec![],
        });
    }
    report.verdict = verdict;
    report.reason = reason;
    report
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

/// The first call, of the inner ones, that gives something else than the other side though it was given the same.
fn parting<'v>(view: &'v View, of: &Findings) -> Option<&'v Call> {
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
