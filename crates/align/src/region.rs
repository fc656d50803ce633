//! A piece of one network between given values: its nodes, its float64 evaluation, what rounding may do to it.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use isotrace_graph::{Attribute, NodeId, ValueId};
use isotrace_ops::Precision;
use isotrace_ops::budget::Unit;
use isotrace_ops::parallel::{self, GRAIN};
use isotrace_run::RunError;
use isotrace_tensor::{DType, Tensor};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::Side;
use crate::bounds::{Grounds, LONG, Made};
use crate::patch::Patch;

/// Nodes of one side between boundary values and an output.
#[derive(Debug, Clone, Default)]
pub struct Region {
    /// Nodes in execution order, those that work on constants alone included.
    pub nodes: Vec<NodeId>,
    /// Values that enter from outside, constants aside, in order of first use.
    pub boundary: Vec<ValueId>,
    /// Constants read: of the file, or written by a `Constant` node.
    pub constants: Vec<ValueId>,
}

impl Region {
    /// Walks back from `outputs` to values for which `stop` holds, to inputs and to constants.
    ///
    /// The outputs themselves are never stopped at. Gives up beyond `limit` nodes and returns what it has.
    pub fn behind(
        side: &Side<'_>,
        outputs: &[ValueId],
        stop: impl Fn(ValueId) -> bool,
        limit: usize,
    ) -> Self {
        let mut nodes = FxHashSet::default();
        let mut seen: FxHashSet<ValueId> = outputs.iter().copied().collect();
        let mut queue: std::collections::VecDeque<ValueId> = outputs.iter().copied().collect();
        let mut region = Self::default();
        while let Some(v) = queue.pop_front() {
            let start = outputs.contains(&v);
            match side.producer(v) {
                _ if !start && stop(v) => region.boundary.push(v),
                None if side.graph().value(v).constant.is_some() => region.constants.push(v),
                Some(node) if side.graph().node(node).reads().next().is_none() && side.is_constant(v) => {
                    region.constants.push(v);
                }
                None => region.boundary.push(v),
                Some(_) if nodes.len() >= limit => region.boundary.push(v),
                Some(node) => {
                    if nodes.insert(node) {
                        for read in side.graph().node(node).reads() {
                            if seen.insert(read) {
                                queue.push_back(read);
                            }
                        }
                    }
                }
            }
        }
        region.nodes = nodes.into_iter().collect();
        region.nodes.sort_unstable();
        region
    }

    /// The nodes that do not work on constants alone.
    pub fn dynamic_nodes<'a>(&'a self, side: &'a Side<'_>) -> impl DoubleEndedIterator<Item = NodeId> + 'a {
        self.nodes.iter().copied().filter(|&n| side.graph().node(n).writes().any(|v| !side.is_constant(v)))
    }
}

/// Which rounding counts in [`error`].
#[derive(Clone, Copy)]
pub struct Rounding<'a> {
    /// The precision whose rounding each node may commit.
    pub unit: Unit,
    /// Nodes that round; the others are exact.
    pub rounds: &'a dyn Fn(NodeId) -> bool,
    /// Nodes whose settings are numbers stored in f32: each stands for half an ulp around it, as a constant does.
    pub scaled: &'a dyn Fn(NodeId) -> bool,
    /// What is uncertain about values that enter (boundary values and constants).
    pub enters: &'a dyn Fn(ValueId) -> Option<Uncertainty>,
}

/// How far a value may be from what it stands for.
#[derive(Debug, Clone)]
pub enum Uncertainty {
    /// Every element by up to this share of itself.
    Relative(f64),
    /// Each element by up to that of this tensor, in f64.
    Each(Tensor),
}

/// Elements that are looked at to see whether a tensor is of numbers that were meant as they stand.
const SAMPLED: usize = 4096;

impl Uncertainty {
    /// Half an ulp at `unit` of each element of a stored constant; below the normal numbers a whole spacing, since
    /// converters clamp tiny numbers away from zero as often as they round them.
    ///
    /// Infinities, numbers too large to have a fraction, and all of a constant that has no fractions were meant as
    /// they stand. Among fractions a whole number may be one by rounding alone.
    pub fn stored(constant: &Tensor, unit: Unit) -> Option<Self> {
        let fractional = |x: &f64| x.is_finite() && *x != x.trunc();
        if constant.dtype() == DType::F32 {
            // Weights, read where they lie.
            let (elements, _) = constant.raw_bytes().as_chunks::<4>();
            let number = |x: &[u8; 4]| f64::from(f32::from_le_bytes(*x));
            let ordinary = |x: f64| x == 0.0 || x.abs() >= unit.tiny && x.is_finite();
            let sampled = elements.iter().step_by((elements.len() / SAMPLED).max(1)).map(number);
            if sampled.filter(|x| *x != 0.0).all(|x| fractional(&x))
                && parallel::all(elements.len(), &|run| elements[run].iter().all(|x| ordinary(number(x))))
            {
                return Some(Self::Relative(unit.u));
            }
        }
        let values = constant.to_f64().ok()?;
        let every = |f: &(dyn Fn(f64) -> bool + Sync)| {
            parallel::all(values.len(), &|run| values[run].iter().all(|&x| f(x)))
        };
        let mut sampled = values.iter().step_by((values.len() / SAMPLED).max(1)).filter(|x| **x != 0.0);
        if sampled.all(fractional) && every(&|x| x == 0.0 || x.abs() >= unit.tiny && x.is_finite()) {
            return Some(Self::Relative(unit.u));
        }
        if every(&|x| !fractional(&x)) {
            return None;
        }
        let whole = unit.u.recip();
        let half = |x: &f64| if x.abs() < whole { (unit.u * x.abs()).max(unit.eta) } else { 0.0 };
        Tensor::from_vec(constant.shape(), values.iter().map(half).collect::<Vec<f64>>()).ok().map(Self::Each)
    }

    /// Half an ulp at `unit` of each element of a value that was rounded.
    pub fn rounded(value: &Tensor, unit: Unit) -> Option<Self> {
        let values = value.to_f64().ok()?;
        if values.iter().all(|x| *x == 0.0 || x.abs() >= unit.tiny) {
            return Some(Self::Relative(unit.u));
        }
        let half = |x: &f64| if x.is_finite() { (unit.u * x.abs()).max(unit.eta / 2.0) } else { 0.0 };
        Tensor::from_vec(value.shape(), values.iter().map(half).collect::<Vec<f64>>()).ok().map(Self::Each)
    }

    fn tensor(&self, value: &Tensor) -> Option<Tensor> {
        match self {
            Self::Each(tensor) => Some(tensor.clone()),
            Self::Relative(u) => {
                let values = value.to_f64().ok()?;
                Tensor::from_vec(value.shape(), parallel::map(values.len(), |i| u * values[i].abs())).ok()
            }
        }
    }
}

type Place = Rc<OnceCell<Tensor>>;

struct Known {
    inputs: Vec<Option<Tensor>>,
    place: Place,
}

/// Magnitudes of a side's nodes with the inputs that they belong to, so that several bounds over one node share them.
#[derive(Default)]
pub struct Magnitudes {
    known: RefCell<FxHashMap<NodeId, Known>>,
}

impl Magnitudes {
    fn place(&self, id: NodeId, inputs: Vec<Option<Tensor>>) -> Place {
        let mut known = self.known.borrow_mut();
        let same = |(x, y): (&Option<Tensor>, &Option<Tensor>)| match (x, y) {
            (Some(x), Some(y)) => std::ptr::eq(x.raw_bytes(), y.raw_bytes()),
            (x, y) => x.is_none() && y.is_none(),
        };
        match known.get(&id) {
            Some(k) if k.inputs.iter().zip(&inputs).all(same) => Rc::clone(&k.place),
            _ => {
                let place = Place::default();
                known.insert(id, Known { inputs, place: Rc::clone(&place) });
                place
            }
        }
    }
}

/// How far rounding inside a region may move `output`, to first order, element by element.
///
/// `lookup` yields the f64 value of anything in or at the region.
pub fn error(
    side: &Side<'_>,
    region: &Region,
    output: ValueId,
    lookup: &dyn Fn(ValueId) -> Option<Tensor>,
    rounding: Rounding<'_>,
) -> Result<Option<Tensor>, RunError> {
    let mut errors: FxHashMap<ValueId, Uncertainty> = FxHashMap::default();
    for &v in region.boundary.iter().chain(&region.constants) {
        if let Some(e) = (rounding.enters)(v) {
            errors.insert(v, e);
        }
    }
    for &id in &region.nodes {
        // A node with an output that was not evaluated carries no error of its own.
        let Some(outputs) = outputs_of(side, id, lookup)? else { continue };
        let grounds = (region.nodes.len() >= LONG).then(|| {
            let node = side.graph().node(id);
            let values = node.inputs.iter().map(|v| v.and_then(lookup));
            Grounds {
                how: (rounding.unit, (rounding.rounds)(id), (rounding.scaled)(id)),
                values: values.chain(outputs.iter().cloned().map(Some)).collect(),
                entering: node.inputs.iter().map(|v| errors.get(&(*v)?).cloned()).collect(),
            }
        });
        let known = grounds.as_ref().and_then(|grounds| side.bounds.get(id, grounds));
        let made = if let Some(made) = known {
            made
        } else {
            let made = made(side, id, lookup, &outputs, &errors, rounding)?;
            if let Some(grounds) = grounds {
                side.bounds.keep(id, grounds, &made);
            }
            made
        };
        errors.extend(made);
    }
    Ok(errors.remove(&output).and_then(|e| e.tensor(&lookup(output)?)))
}

/// What is uncertain about what a node writes: what it rounds itself, and what is uncertain about what it reads.
fn made(
    side: &Side<'_>,
    id: NodeId,
    lookup: &dyn Fn(ValueId) -> Option<Tensor>,
    outputs: &[Tensor],
    errors: &FxHashMap<ValueId, Uncertainty>,
    rounding: Rounding<'_>,
) -> Result<Made, RunError> {
    let node = side.graph().node(id);
    let mut made = Made::new();
    let inputs = node.inputs.iter().map(|v| v.and_then(lookup)).collect();
    let magnitude = side.magnitudes.place(id, inputs);
    let carried = carried(side, id, lookup, outputs, errors, &magnitude)?;
    for (index, (v, out)) in node.outputs.iter().zip(outputs).enumerate() {
        let Some(v) = *v else { continue };
        if !out.dtype().is_float() {
            continue;
        }
        let carried = carried.as_ref().and_then(|c| c.get(index));
        let own = if (rounding.rounds)(id) {
            Some(side.plan.budget(id, lookup, index, out, rounding.unit, &magnitude)?)
        } else {
            None
        };
        let moved = if (rounding.scaled)(id) { settings_error(side, id, lookup, index, out) } else { None };
        let of_node = match (own, moved) {
            (Some(mut own), Some(moved)) => {
                add(&mut own, &moved);
                Some(own)
            }
            (own, moved) => own.or(moved),
        };
        let total = match (of_node, carried) {
            (None, None) => continue,
            (None, Some(carried)) => carried.clone(),
            (Some(mut total), carried) => {
                if let Some(carried) = carried {
                    let carried = carried.to_f64().unwrap_or_default();
                    total.truncate(carried.len());
                    add(&mut total, &carried);
                }
                let Ok(total) = Tensor::from_vec(out.shape(), total) else { continue };
                total
            }
        };
        let none = |e: &[f64]| parallel::all(e.len(), &|run| e[run].iter().all(|&e| e == 0.0));
        if !total.to_f64().is_ok_and(|e| none(&e)) {
            made.push((v, Uncertainty::Each(total)));
        }
    }
    Ok(made)
}

fn add(total: &mut [f64], more: &[f64]) {
    let len = total.len().min(more.len());
    parallel::chunks(&mut total[..len], GRAIN, &|i, part| {
        part.iter_mut().zip(&more[i * GRAIN..]).for_each(|(t, m)| *t += m);
    });
}

/// What a node writes; `None` where a value is missing. What the graph leaves out between others that it names (the
/// statistics of a norm whose sum is read, the sequence of a recurrent layer whose last state is) is computed here: the
/// other outputs round all the same.
fn outputs_of(
    side: &Side<'_>,
    id: NodeId,
    lookup: &dyn Fn(ValueId) -> Option<Tensor>,
) -> Result<Option<Vec<Tensor>>, RunError> {
    let node = side.graph().node(id);
    let known: Vec<Option<Tensor>> = node.outputs.iter().map(|v| v.and_then(lookup)).collect();
    if known.iter().all(Option::is_some) {
        return Ok(known.into_iter().collect());
    }
    if node.outputs.iter().zip(&known).any(|(v, t)| v.is_some() && t.is_none()) {
        return Ok(None);
    }
    let all = side.plan.evaluate(id, lookup, Precision::Float64, Some(&known))?;
    let outputs = all.into_iter().zip(known).map(|(own, known)| known.unwrap_or(own));
    Ok(Some(outputs.collect()))
}

/// What is uncertain about a node's inputs, carried to its outputs.
fn carried(
    side: &Side<'_>,
    id: NodeId,
    lookup: &dyn Fn(ValueId) -> Option<Tensor>,
    outputs: &[Tensor],
    errors: &FxHashMap<ValueId, Uncertainty>,
    magnitude: &OnceCell<Tensor>,
) -> Result<Option<Vec<Tensor>>, RunError> {
    let node = side.graph().node(id);
    let entering: Vec<Option<&Uncertainty>> =
        node.inputs.iter().map(|v| v.and_then(|v| errors.get(&v))).collect();
    if entering.iter().all(Option::is_none) {
        return Ok(None);
    }
    // A sum of products moves by at most the same share of its magnitude as its factors together.
    let share: Option<f64> = entering
        .iter()
        .flatten()
        .map(|e| match e {
            Uncertainty::Relative(u) => Some(*u),
            Uncertainty::Each(_) => None,
        })
        .sum();
    if let Some(share) = share
        && let Some(sizes) = side.plan.magnitude(id, lookup, magnitude)?
        && let Ok(sizes) = sizes.to_f64()
        && let Ok(moved) =
            Tensor::from_vec(outputs[0].shape(), parallel::map(sizes.len(), |i| share * sizes[i]))
    {
        return Ok(Some(vec![moved]));
    }
    let tensors: Vec<Option<Tensor>> = node
        .inputs
        .iter()
        .zip(entering)
        .map(|(v, e)| e.and_then(|e| e.tensor(&v.and_then(lookup)?)))
        .collect();
    Ok(Some(side.plan.propagate(id, lookup, outputs, &tensors)?))
}

/// What half an ulp of each fractional setting of a node does to an output: a difference quotient over 2^-10.
fn settings_error(
    side: &Side<'_>,
    id: NodeId,
    lookup: &dyn Fn(ValueId) -> Option<Tensor>,
    index: usize,
    output: &Tensor,
) -> Option<Vec<f64>> {
    const STEP: f32 = 1.0 / 1024.0;
    let node = side.graph().node(id);
    let exact = output.to_f64().ok()?;
    let mut total = vec![0.0; exact.len()];
    for (name, setting) in &node.attributes {
        let moved = match setting {
            Attribute::Float(f) if f.fract() != 0.0 => Attribute::Float(f * (1.0 + STEP)),
            Attribute::Floats(f) if f.iter().any(|f| f.fract() != 0.0) => {
                Attribute::Floats(f.iter().map(|f| f * (1.0 + STEP)).collect())
            }
            _ => continue,
        };
        let mut changed = node.clone();
        changed.attributes.insert(name.clone(), moved);
        let patch = Patch::new(&changed, Patch::sources_of(node))?;
        let outputs = patch.evaluate(Precision::Float64, lookup, None)?;
        for ((t, x), y) in total.iter_mut().zip(outputs.get(index)?.to_f64().ok()?.iter()).zip(exact.iter()) {
            let d = (x - y).abs() / f64::from(STEP) * Unit::F32.u;
            *t += if d.is_finite() { d } else { 0.0 };
        }
    }
    Some(total)
}
