//! Whether a run that somebody else made does what its graph says: `fresh` of a recorded side, value by value.
//!
//! Each recorded value is evaluated in float64 from the recorded values nearest before it and held against what was
//! recorded of it, within what rounding allows on the way. Inputs are the recorded ones, so no value answers for
//! another, and every wrong kernel is found in one pass. Between the two there is one node as a rule; where one call of
//! the recorded program became several, what they hand on was never stored anywhere, so it is not rounded here either,
//! and the rounding that the call may have committed inside is bounded as that of a region is.
//!
//! What an operator drew at random is not judged: the recorded numbers are the truth of that call.

use isotrace_align::region::{Rounding, error};
use isotrace_align::{Region, Side};
use isotrace_graph::{NodeId, ValueId};
use isotrace_ops::budget::Unit;
use isotrace_ops::{Flow, Precision};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;

use crate::faults::Fault;
use crate::hidden::{self, Finding};
use crate::product::Product;

/// Nodes between recorded values at most; beyond, nothing is said.
const MOST_NODES: usize = 256;

/// How much more than the operators that it is made of a kernel may round that does several at once. Such kernels
/// approximate more freely inside: the error function of GELU is allowed four times that of an Erf node in the table that
/// was measured.
pub const FUSED: f64 = 4.0;

/// Values that rounding does not explain from the recorded ones before them, the first of each node.
pub fn faults(
    side: &Side<'_>,
    recorded: &FxHashMap<ValueId, Tensor>,
    is_reference: bool,
) -> Vec<(Fault, ValueId)> {
    let graph = side.graph();
    let mut found = Vec::new();
    for id in graph.node_ids() {
        for v in graph.node(id).writes() {
            let Some(output) = recorded.get(&v).filter(|t| t.dtype().is_float()) else { continue };
            let call = Call::new(side, recorded, v);
            let Some(own) = call.own() else { continue };
            let Some(excess) = call.excess(&own, output) else { continue };
            let named = (excess.share > 1.0).then(|| call.fault(output, &excess, is_reference));
            let fault = match named {
                Some(fault) if fault.proof.is_some() => Some(fault),
                found => {
                    let hidden = call.hidden(&own, output);
                    let tells = hidden.filter(|h| found.is_none() || h.class.is_some());
                    tells.map(|h| call.strange(h, &excess, is_reference)).or(found)
                }
            };
            if let Some(fault) = fault {
                found.push((fault, v));
                break;
            }
        }
    }
    found
}

/// How far a recorded output is from what its nodes compute.
struct Excess {
    difference: f64,
    /// The largest share of the allowance.
    share: f64,
}

/// A recorded value with the nodes that lead to it from other recorded values.
struct Call<'s, 'g> {
    side: &'s Side<'g>,
    region: Region,
    output: ValueId,
}

impl<'s, 'g> Call<'s, 'g> {
    fn new(side: &'s Side<'g>, recorded: &FxHashMap<ValueId, Tensor>, output: ValueId) -> Self {
        // What nobody recorded but a run of ours made ends no region, unless it was drawn.
        let stop = |v: ValueId| recorded.contains_key(&v) || draws(side, v);
        Self { side, region: Region::behind(side, &[output], stop, MOST_NODES), output }
    }

    /// In float64, from recorded values that `enters` may change.
    fn evaluate(&self, enters: &dyn Fn(Tensor) -> Tensor) -> Option<FxHashMap<ValueId, Tensor>> {
        let mut own: FxHashMap<ValueId, Tensor> = FxHashMap::default();
        for &id in &self.region.nodes {
            let node = self.side.graph().node(id);
            let read =
                |v: ValueId| own.get(&v).cloned().or_else(|| self.side.declared.get(v).cloned().map(enters));
            if !node.reads().all(|v| read(v).is_some()) {
                return None;
            }
            let decided: Vec<Option<Tensor>> =
                node.outputs.iter().map(|v| v.and_then(|v| self.side.declared.get(v).cloned())).collect();
            let outputs = self.side.plan.evaluate(id, &read, Precision::Float64, Some(&decided)).ok()?;
            own.extend(node.outputs.iter().zip(outputs).filter_map(|(v, t)| Some(((*v)?, t))));
        }
        Some(own)
    }

    /// Its values in float64, where they can be told.
    fn own(&self) -> Option<FxHashMap<ValueId, Tensor>> {
        if self.region.nodes.len() >= MOST_NODES || draws(self.side, self.output) {
            return None;
        }
        self.evaluate(&|t| t)
    }

    /// Nodes that do not just move elements.
    fn steps(&self) -> impl DoubleEndedIterator<Item = NodeId> {
        let computes = |n: &NodeId| self.side.plan.op(*n).flow() != Flow::Moves;
        self.region.nodes.iter().copied().filter(computes)
    }

    /// What the bound has room for and rounding is not.
    fn hidden(&self, own: &FxHashMap<ValueId, Tensor>, output: &Tensor) -> Option<Finding> {
        if output.dtype() != DType::F32 {
            return None;
        }
        let exact = own.get(&self.output)?;
        let mut steps = self.steps();
        let last = steps.next_back()?;
        let by_grid = hidden::on_grid(exact, output);
        let rounded = by_grid.as_ref().is_some_and(|found| found.proof.is_some());
        if rounded || steps.next().is_some() || self.side.producer(self.output) != Some(last) {
            return by_grid;
        }
        let read = |v: ValueId| own.get(&v).cloned().or_else(|| self.side.declared.get(v).cloned());
        let product = Product::new(self.side, last, &read);
        product.and_then(|product| hidden::in_product(&product, exact, output)).or(by_grid)
    }

    fn excess(&self, own: &FxHashMap<ValueId, Tensor>, output: &Tensor) -> Option<Excess> {
        let side = self.side;
        let exact = own.get(&self.output)?;
        let wide = |v: ValueId| {
            let value = own.get(&v).or_else(|| side.declared.get(v))?;
            // Weights are read as they are stored: a copy in f64 would cost twice their memory.
            let stored = side.producer(v).is_none() || !value.dtype().is_float();
            if stored { Some(value.clone()) } else { value.cast(DType::F64).ok() }
        };
        let unit = Unit::of(output.dtype());
        let rounds = |_: NodeId| true;
        // ONNX keeps settings in f32, which is not what a program that computes in f64 was told.
        let scaled = |_: NodeId| unit.u < Unit::F32.u;
        let none = |_: ValueId| None;
        let rounding = Rounding { unit, rounds: &rounds, scaled: &scaled, enters: &none };
        let mut allowed = match error(side, &self.region, self.output, &wide, rounding).ok()? {
            Some(allowed) => allowed.to_f64().ok()?.into_owned(),
            None => vec![0.0; exact.len()],
        };
        let steps = self.steps().count();
        if steps > 1 {
            for e in &mut allowed {
                *e *= FUSED;
            }
        }
        if steps == 0 {
            // What is only moved may still be stored in another type.
            for (e, x) in allowed.iter_mut().zip(exact.to_f64().ok()?.iter()) {
                *e = e.max(unit.u * x.abs() + unit.eta);
            }
        }
        Some(measure(exact, output, &allowed))
    }
}

/// Whether a value was drawn at random.
fn draws(side: &Side<'_>, v: ValueId) -> bool {
    side.producer(v).is_some_and(|n| side.plan.op(n).draws())
}

fn name(is_reference: bool) -> &'static str {
    if is_reference { "A" } else { "B" }
}

fn measure(exact: &Tensor, output: &Tensor, allowed: &[f64]) -> Excess {
    let mut worst = Excess { difference: 0.0, share: 0.0 };
    let (Ok(x), Ok(y)) = (exact.to_f64(), output.to_f64()) else { return worst };
    if x.len() != y.len() {
        return Excess { difference: f64::INFINITY, share: f64::INFINITY };
    }
    for ((x, y), e) in x.iter().zip(y.iter()).zip(allowed) {
        // What f64 holds and the type does not overflows there rightly.
        let overflows =
            y.is_infinite() && x.abs() >= output.dtype().largest_finite().unwrap_or(f64::INFINITY);
        if x == y || x.is_nan() && y.is_nan() || overflows {
            continue;
        }
        let d = (x - y).abs();
        let d = if d.is_nan() { f64::INFINITY } else { d };
        worst.difference = worst.difference.max(d);
        worst.share = worst.share.max(if *e > 0.0 { d / e } else { f64::INFINITY });
    }
    worst
}

/// Formats to which hardware rounds the factors of a product on its way: name and bits of the significand kept.
pub const NARROWER: [(&str, u32); 3] = [("tf32", 11), ("bf16", 8), ("f16", 11)];

impl Call<'_, '_> {
    fn label(&self) -> String {
        let graph = self.side.graph();
        match self.side.producer(self.output) {
            Some(id) => format!("{} {:?}", graph.node(id).qualified_op(), graph.label(id)),
            None => format!("{:?}", graph.value(self.output).name),
        }
    }

    fn fault(&self, output: &Tensor, excess: &Excess, is_reference: bool) -> Fault {
        let (name, label) = (name(is_reference), self.label());
        let narrowed = NARROWER.iter().find_map(|&(format, bits)| {
            let own = self.evaluate(&|t| rounded(&t, bits))?;
            let exact = own.get(&self.output)?;
            let left = measure(exact, output, &vec![f64::INFINITY; exact.len()]).difference;
            // Rounding the inputs in this way has to explain nearly all of it, or it explains nothing.
            (left < excess.difference / 16.0).then_some((format, left))
        });
        let (class, summary, proof) = match narrowed {
            Some((format, left)) => (
                "precision",
                format!(
                    "{name} computes {label} on inputs rounded to {format}, though they are {}",
                    output.dtype()
                ),
                Some((format!("the node evaluated on inputs rounded to {format}"), excess.difference, left)),
            ),
            None => (
                if is_reference { "reference" } else { "unknown" },
                format!(
                    "{name}'s run does not compute what {label} says: on its own recorded inputs it is {:.3e} away \
                     from it, {:.1} times what rounding in {} allows",
                    excess.difference,
                    excess.share,
                    output.dtype()
                ),
                None,
            ),
        };
        self.named(class, summary, Vec::new(), proof, is_reference)
    }

    /// A fault that the bound has room for.
    fn strange(&self, finding: Finding, excess: &Excess, is_reference: bool) -> Fault {
        let class = finding.class.unwrap_or(if is_reference { "reference" } else { "unknown" });
        let summary = format!("{}'s {} {}", name(is_reference), self.label(), finding.summary);
        let evidence =
            vec![format!("{:.2} times what rounding allows at most; {}", excess.share, finding.evidence)];
        self.named(class, summary, evidence, finding.proof, is_reference)
    }

    fn named(
        &self,
        class: &str,
        summary: String,
        mut evidence: Vec<String>,
        proof: Option<(String, f64, f64)>,
        is_reference: bool,
    ) -> Fault {
        let mut nodes: Vec<NodeId> = self.region.dynamic_nodes(self.side).collect();
        if nodes.is_empty() {
            nodes.clone_from(&self.region.nodes);
        }
        let (none, nothing) = (Vec::new(), Vec::new());
        let outputs = vec![self.output];
        evidence
            .push("found on the recorded values of this run alone; the other side plays no part".to_owned());
        let (nodes_a, outputs_a, nodes_b, outputs_b) =
            if is_reference { (nodes, outputs, none, nothing) } else { (none, nothing, nodes, outputs) };
        Fault {
            nodes_a,
            nodes_b,
            outputs_a,
            outputs_b,
            class: class.to_owned(),
            summary,
            evidence,
            proof,
            narrow: Some(!is_reference),
            whole: false,
            nearest: Vec::new(),
        }
    }
}

/// A float tensor with significands of `bits` bits (to nearest even); others as they are.
pub fn rounded(tensor: &Tensor, bits: u32) -> Tensor {
    let Ok(values) = tensor.to_f64() else { return tensor.clone() };
    if !tensor.dtype().is_float() {
        return tensor.clone();
    }
    let drop = 53 - bits;
    let round = |x: f64| {
        if !x.is_finite() {
            return x;
        }
        let raw = x.to_bits();
        let odd = raw >> drop & 1;
        f64::from_bits((raw + (1u64 << (drop - 1)) - 1 + odd) >> drop << drop)
    };
    Tensor::from_vec(tensor.shape(), values.iter().map(|&x| round(x)).collect())
        .unwrap_or_else(|_| tensor.clone())
}
