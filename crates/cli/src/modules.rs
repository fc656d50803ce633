//! Recordings that hold what modules were given and gave, and no graph, as a side of `diff`.
//!
//! Nothing of such a side can be replayed, so no difference can be split into its parts: what is left is to pair values
//! and to ask how far they are apart. A value is paired with the one of the same name, final outputs by their order, the
//! rest with the value of as many elements whose content is nearest. Where the other side has a graph, how far its own
//! run is from its float64 shadow says how much rounding grows on the way to that value; that much, several times over,
//! is allowed. Between two recordings of modules calibrated distances have to do, with a range between them in which
//! nothing can be said. Digests say whether bits are equal, and how far two values are apart at least. The report says of
//! all this that it is the weaker evidence.

use isotrace_align::Side;
use isotrace_compare::compare;
use isotrace_graph::{Dim, Graph, TensorType, Value};
use isotrace_report::{
    Both, Cause, Culprit, CulpritSide, Metrics, Pair, Region, Relation, Report, Role, Source, Status,
};
use isotrace_report::{Verdict, Warning};
use isotrace_tensor::{DType, Tensor};
use isotrace_trace::Trace;
use isotrace_trace::trace::Digest;
use isotrace_trace::trace::record::Role as Part;
use rustc_hash::{FxHashMap, FxHashSet};

// Calibrated by `bench/modules.py`: BERT, Llama, ViT and ResNet of 2 to 12 layers, with ordinary and with sharp attention,
// the same network in float64, float16 and bfloat16, with attention in parts, against float32, and every
// planted fault of tests/python/models.py. Its table gives the figures below; u is the unit of the coarser type.

/// How many times the other side's own distance from float64, carried over to the coarser type, a value may lie from it:
/// another implementation rounds in other places, and each is one draw. Without a fault, 1.01 at most; with one, 220 at
/// least in float32. In half types faults begin below what rounding does, and the smaller ones pass.
const DRAWS: f64 = 4.0;
/// Rounding of single operators, in units, that such a distance may happen to lack.
const UNITS: f64 = 16.0;
/// Units allowed where nobody knows how rounding grows, and the most that this may come to. Without a fault, 23 units in
/// float32 and 6 of bfloat16 (2 %); 481 and 100 (39 %) where attention is sharp, and 2,460 and 224 (87 %) in the one
/// network of 12 layers where rounding decides what is attended to.
const BLIND: (f64, f64) = (1024.0, 0.05);
/// Units, and the least share, from which on rounding does not explain a distance though nobody knows how it grows: the
/// smallest fault comes to 1,410 units in float32 (epsilon, in a network of two layers), the next to 3,950. In between,
/// nothing can be said.
const FAULT: (f64, f64) = (3072.0, 1.0);
/// Farther apart than this, two values are not the same one with a fault. Different values of one run come as near to
/// each other as 3 %; the nearest is taken.
const FAR: f64 = 0.05;
/// Elements by which values that cannot be the same are told apart.
const SAMPLE: usize = 64;

/// A value that somebody saw.
struct Seen {
    name: String,
    role: Option<Role>,
    op: Option<String>,
    dtype: DType,
    shape: Vec<usize>,
    elements: Option<Tensor>,
    digest: Option<Digest>,
    /// How far its run is from float64, relative to its norm.
    noise: Option<f64>,
}

impl Seen {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn digest(&self) -> Option<Digest> {
        self.digest.clone().or_else(|| self.elements.as_ref().map(Digest::of))
    }
}

/// A call of a module, by places in the list of values.
struct Call {
    id: u64,
    parent: Option<u64>,
    module: String,
    class: String,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

/// A side as it was seen.
#[derive(Default)]
pub struct View {
    values: Vec<Seen>,
    calls: Vec<Call>,
    nodes: usize,
    modules: bool,
}

impl View {
    /// Of a recording of modules.
    pub fn recorded(trace: &Trace) -> anyhow::Result<Self> {
        let mut view = Self { modules: true, ..Self::default() };
        let mut places: FxHashMap<u64, usize> = FxHashMap::default();
        let listed = |of: fn(&isotrace_trace::trace::record::Graph) -> &Vec<u64>| -> FxHashSet<u64> {
            trace.graphs().iter().flat_map(of).copied().collect()
        };
        let (inputs, outputs) = (listed(|g| &g.inputs), listed(|g| &g.outputs));
        for (at, value) in trace.values().iter().enumerate() {
            let (dtype, shape) = trace.typed(value)?;
            let role = match value.role {
                _ if inputs.contains(&value.id) => Some(Role::Input),
                _ if outputs.contains(&value.id) => Some(Role::Output),
                Part::Intermediate | Part::Gradient => None,
                _ => continue,
            };
            let elements = trace.has_data(at).then(|| trace.tensor(value)).transpose()?;
            places.insert(value.id, view.values.len());
            let name = value.name.clone();
            let digest = value.digest.clone();
            view.values.push(Seen { name, role, op: None, dtype, shape, elements, digest, noise: None });
        }
        let at = |ids: &[u64]| ids.iter().filter_map(|id| places.get(id).copied()).collect();
        view.calls = trace
            .calls()
            .iter()
            .map(|c| Call {
                id: c.id,
                parent: c.parent,
                module: if c.module.is_empty() { "the whole model".into() } else { c.module.clone() },
                class: c.class.clone(),
                inputs: at(&c.inputs),
                outputs: at(&c.outputs),
            })
            .collect();
        Ok(view)
    }

    /// Of a graph that was run.
    pub fn run(side: &Side<'_>) -> Self {
        let graph = side.graph();
        let computed = graph.node_ids().flat_map(|n| graph.node(n).writes().map(move |v| (Some(n), v)));
        let mut view = Self { nodes: graph.nodes.len(), ..Self::default() };
        for (node, v) in graph.inputs.iter().map(|&v| (None, v)).chain(computed) {
            let Some(tensor) = side.declared.get(v).filter(|_| node.is_none() || !side.is_constant(v)) else {
                continue;
            };
            view.values.push(Seen {
                name: graph.value(v).name.clone(),
                role: match node {
                    None => Some(Role::Input),
                    Some(_) if side.is_output(v) => Some(Role::Output),
                    Some(_) => None,
                },
                op: node.map(|n| graph.node(n).op.clone()),
                dtype: tensor.dtype(),
                shape: tensor.shape().to_vec(),
                elements: Some(tensor.clone()),
                digest: None,
                noise: side.shadow.get(v).and_then(|exact| relative(exact, tensor)),
            });
        }
        view
    }

    /// Whether elements were kept of none.
    fn digests_alone(&self) -> bool {
        self.values.iter().all(|v| v.elements.is_none())
    }

    fn side(&self, path: &str) -> isotrace_report::Side {
        let kind = if self.modules { Source::Trace } else { Source::Onnx };
        isotrace_report::Side {
            source: path.to_owned(),
            kind,
            nodes: self.nodes,
            values: self.values.len(),
            run: None,
        }
    }

    /// Values of one name are told apart by how many came before.
    fn names(&self) -> FxHashMap<(&str, usize), usize> {
        let mut counts: FxHashMap<&str, usize> = FxHashMap::default();
        let mut names = FxHashMap::default();
        for (at, value) in self.values.iter().enumerate() {
            let count = counts.entry(&value.name).or_default();
            names.insert((value.name.as_str(), *count), at);
            *count += 1;
        }
        names
    }
}

/// A graph of what a recording of modules was given, so that its inputs are bound like any other's.
pub fn border(trace: &Trace) -> anyhow::Result<(Graph, isotrace_inputs::Tensors)> {
    let (mut graph, mut given) = (Graph::default(), isotrace_inputs::Tensors::default());
    for id in trace.graphs().iter().flat_map(|g| &g.inputs) {
        let Some(at) = trace.values().iter().position(|v| v.id == *id) else { continue };
        let (value, name) = (&trace.values()[at], trace.names()[at].clone());
        let (dtype, shape) = trace.typed(value)?;
        if trace.has_data(at) {
            given.insert(name.clone(), trace.tensor(value)?);
        }
        let declared = Some(TensorType { dtype, shape: Some(shape.into_iter().map(Dim::Fixed).collect()) });
        let v = graph.add_value(Value { name, constant: None, declared });
        graph.inputs.push(v);
    }
    Ok((graph, given))
}

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

/// Pairs as places in A and in B.
fn pairs(a: &View, b: &View) -> Vec<(usize, usize)> {
    let fits = |x: &Seen, y: &Seen| x.len() == y.len() && x.dtype.is_float() == y.dtype.is_float();
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
    let roles = |view: &View, role| -> Vec<usize> {
        (0..view.values.len()).filter(|&i| view.values[i].role == Some(role)).collect()
    };
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
    for (i, j) in roles(a, Role::Output).into_iter().zip(roles(b, Role::Output)) {
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
    let metrics = Metrics {
        max_abs: Some(m.max_abs),
        mean_abs: Some(m.mean_abs),
        max_rel: Some(m.max_rel),
        rel_l2: Some(m.rel_l2),
        cosine: Some(m.cosine),
        max_ulp: m.max_ulp,
        argmax: m.argmax.clone(),
        nan: Both::new(m.nan[0], m.nan[1]),
        inf: Both::new(m.inf[0], m.inf[1]),
    };
    let found = match () {
        () if m.bits_equal && x.dtype == y.dtype => Found::Bits,
        () if m.rel_l2 <= within => Found::Within,
        () if m.rel_l2 <= beyond => Found::Unclear,
        () => Found::Beyond,
    };
    (found, metrics)
}

/// Holds two sides against each other, of which one at least is a recording of modules.
pub fn diff((path_a, a): (&str, &View), (path_b, b): (&str, &View)) -> Report {
    let mut report = Report::new(Verdict::Inconclusive, "", a.side(path_a), b.side(path_b));
    let (mut of_a, mut of_b) = (Findings::default(), Findings::default());
    let paired = pairs(a, b);
    let mut partner: FxHashMap<usize, usize> = paired.iter().copied().collect();
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
            let (found, metrics) = judge(x, y);
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
    // Arrays by name come without any call.
    let arrays = view.calls.is_empty();
    let of_calls = view.calls.iter().flat_map(|c| &c.outputs).copied();
    let by_themselves =
        (0..view.values.len()).filter(|&i| arrays && view.values[i].role != Some(Role::Input));
    let given: FxHashSet<usize> = of_calls.chain(by_themselves).collect();
    let missing: Vec<usize> = given.iter().copied().filter(|i| !of.contains_key(i)).collect();
    let count = |wanted: Found| of.values().filter(|found| **found == wanted).count();
    let judged = of.iter().filter(|(i, _)| view.values[**i].role != Some(Role::Input)).count();
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
    let (verdict, reason) = if judged == 0 {
        (Verdict::Invalid, format!("nothing could be compared; {seen}"))
    } else if finals(Found::Beyond) || lost && count(Found::Beyond) > 0 {
        (
            Verdict::Divergent,
            format!("final outputs are farther apart than rounding brings them{beside}; {seen}"),
        )
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
        let evidence =
            vec!["no operator was recorded: record operators to learn which of them and why".to_owned()];
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
