use std::collections::BTreeMap;

use isotrace_graph::{Dim, Graph, NodeId, TensorType, ValueId};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;

use crate::InputError;
use crate::dims::{Class, Dims};
use crate::given::{check_shape, converted, filled, shape_text};
use crate::make::{About, choose, make};
use crate::names::{hint, listed};
use crate::role::Role;
use crate::usage::{self, Use};

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// What the user said about the inputs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// A file's name and the tensors in it.
    pub given: Option<(&'a str, &'a Tensors)>,
    /// Inputs to be filled with one value.
    pub set: &'a [(String, String)],
    /// Sizes of named dimensions.
    pub dims: &'a [(String, usize)],
    /// The seed of made inputs.
    pub seed: u64,
}

/// One input as it was fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fed {
    /// A's name for it.
    pub a: Option<String>,
    /// B's name for it.
    pub b: Option<String>,
    /// A's element type, or B's where only B has it.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where its numbers come from.
    pub made: String,
}

/// A tensor for every input.
#[derive(Debug, Clone, Default)]
pub struct Bound {
    /// A's.
    pub a: FxHashMap<ValueId, Tensor>,
    /// B's.
    pub b: FxHashMap<ValueId, Tensor>,
    /// Inputs of A and of B that play the same part.
    pub pairs: Vec<(ValueId, ValueId)>,
    /// What was fed, in the order of A's inputs, then B's own.
    pub fed: Vec<Fed>,
}

/// The inputs of one model.
pub fn bind_one(graph: &Graph, request: &Request<'_>) -> Result<Bound, InputError> {
    bind_sides(&[graph], request)
}

/// The same inputs for two models.
pub fn bind(a: &Graph, b: &Graph, request: &Request<'_>) -> Result<Bound, InputError> {
    bind_sides(&[a, b], request)
}

/// One input, of one model or of both.
#[derive(Debug, Clone, Copy)]
struct Slot {
    ids: [Option<ValueId>; 2],
}

/// A model while its inputs are bound.
struct Side<'g> {
    graph: &'g Graph,
    consumers: Vec<Vec<NodeId>>,
}

impl<'g> Side<'g> {
    fn name(&self, id: ValueId) -> &'g str {
        &self.graph.value(id).name
    }

    fn declared(&self, id: ValueId) -> Option<&'g TensorType> {
        self.graph.value(id).declared.as_ref()
    }
}

fn bind_sides(graphs: &[&Graph], request: &Request<'_>) -> Result<Bound, InputError> {
    let sides: Vec<Side<'_>> =
        graphs.iter().map(|&graph| Side { graph, consumers: graph.consumers() }).collect();
    check_names(&sides, request)?;
    let slots = pair(&sides, request)?;
    let mut dims = Dims::default();
    let classes: Vec<Vec<Class>> =
        slots.iter().map(|slot| declare(&mut dims, &sides, slot)).collect::<Result<_, _>>()?;
    for (name, size) in request.dims {
        dims.fix_named(name, *size)?;
    }
    for (slot, classes) in slots.iter().zip(&classes) {
        for (side, id) in sides.iter().zip(slot.ids) {
            let Some((name, tensor)) = id.and_then(|id| given(request, side.name(id), slot, &sides)) else {
                continue;
            };
            if let Some(declared) = id.and_then(|id| side.declared(id)) {
                check_shape(tensor, declared, name)?;
            }
            for (class, &size) in classes.iter().zip(tensor.shape()) {
                dims.fix(*class, size, format!("given input {name:?}"))?;
            }
        }
    }
    dims.choose();
    let pairs = slots.iter().filter_map(|slot| Some((slot.ids[0]?, slot.ids[1]?))).collect();
    let mut bound = Bound { pairs, ..Bound::default() };
    for (slot, classes) in slots.iter().zip(&classes) {
        fill(&mut bound, &sides, slot, classes, &dims, request)?;
    }
    Ok(bound)
}

/// Every name the user used belongs to an input.
fn check_names(sides: &[Side<'_>], request: &Request<'_>) -> Result<(), InputError> {
    let inputs = || sides.iter().flat_map(|s| s.graph.inputs.iter().map(|&id| s.name(id)));
    let check = |what: &'static str, name: &str| {
        if inputs().any(|n| n == name) {
            return Ok(());
        }
        let mut all: Vec<&str> = Vec::new();
        inputs().for_each(|n| {
            if !all.contains(&n) {
                all.push(n);
            }
        });
        let hint = hint(name, all.iter().copied());
        Err(InputError::UnknownName { what, name: name.to_owned(), hint, inputs: listed(all) })
    };
    if let Some((_, tensors)) = request.given {
        tensors.keys().try_for_each(|name| check("the given tensor", name))?;
    }
    request.set.iter().try_for_each(|(name, _)| check("--set", name))
}

/// The given tensor of an input: by its own name, else by the name the other model has for it.
fn given<'r>(
    request: &Request<'r>,
    name: &str,
    slot: &Slot,
    sides: &[Side<'_>],
) -> Option<(&'r str, &'r Tensor)> {
    let (_, tensors) = request.given?;
    let by = |name: &str| tensors.get_key_value(name).map(|(n, t)| (n.as_str(), t));
    by(name).or_else(|| sides.iter().zip(slot.ids).find_map(|(s, id)| by(s.name(id?))))
}

/// Inputs of one name, then of names that differ in what joins their parts, then of one role; the rest stand alone. Fails
/// where a choice would be a guess.
fn pair(sides: &[Side<'_>], request: &Request<'_>) -> Result<Vec<Slot>, InputError> {
    let a = sides[0].graph;
    let mut slots: Vec<Slot> = a.inputs.iter().map(|&id| Slot { ids: [Some(id), None] }).collect();
    let Some(b) = sides.get(1) else { return Ok(slots) };
    let mut open_b: Vec<ValueId> = Vec::new();
    for &id in &b.graph.inputs {
        match slots
            .iter_mut()
            .find(|s| s.ids[1].is_none() && sides[0].name(s.ids[0].expect("A's")) == b.name(id))
        {
            Some(slot) => slot.ids[1] = Some(id),
            None => open_b.push(id),
        }
    }
    let provided = |name: &str| {
        request.given.is_some_and(|(_, t)| t.contains_key(name)) || request.set.iter().any(|(n, _)| n == name)
    };
    by_parts(sides, &mut slots, &mut open_b);
    let mut open_a: Vec<usize> = (0..slots.len()).filter(|&i| slots[i].ids[1].is_none()).collect();
    let id_a = |slots: &[Slot], i: usize| slots[i].ids[0].expect("A's");
    // Where the user gave both by name there is nothing left to find out.
    let settled = open_a.iter().all(|&i| provided(sides[0].name(id_a(&slots, i))))
        && open_b.iter().all(|&id| provided(b.name(id)));
    if !settled {
        by_role(sides, &mut slots, &mut open_a, &mut open_b)?;
    }
    slots.extend(open_b.into_iter().map(|id| Slot { ids: [None, Some(id)] }));
    Ok(slots)
}

/// Pairs inputs whose names have the same parts, where no other input of either model has them: a recording counts what
/// is in a list (`a.0`), and exporters allow themselves no dots (`a_0`).
fn by_parts(sides: &[Side<'_>], slots: &mut [Slot], open_b: &mut Vec<ValueId>) {
    fn parts(name: &str) -> Vec<&str> {
        name.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()).collect()
    }
    let alone = |side: &Side<'_>, name: &str| {
        side.graph.inputs.iter().filter(|&&id| parts(side.name(id)) == parts(name)).count() == 1
    };
    open_b.retain(|&id| {
        let name = sides[1].name(id);
        let slot = slots.iter_mut().filter(|slot| slot.ids[1].is_none()).find(|slot| {
            let theirs = slot.ids[0].expect("A's");
            parts(sides[0].name(theirs)) == parts(name)
                && compatible(sides[0].declared(theirs), sides[1].declared(id))
        });
        match slot.filter(|_| !parts(name).is_empty() && sides.iter().all(|side| alone(side, name))) {
            Some(slot) => slot.ids[1] = Some(id),
            None => return true,
        }
        false
    });
}

fn by_role(
    sides: &[Side<'_>],
    slots: &mut [Slot],
    open_a: &mut Vec<usize>,
    open_b: &mut Vec<ValueId>,
) -> Result<(), InputError> {
    let id_a = |slots: &[Slot], i: usize| slots[i].ids[0].expect("A's");
    let role = |side: &Side<'_>, id| Role::of(side.graph, &side.consumers, id);
    let roles_a: FxHashMap<usize, Role> =
        open_a.iter().map(|&i| (i, role(&sides[0], id_a(slots, i)))).collect();
    let roles_b: FxHashMap<ValueId, Role> = open_b.iter().map(|&id| (id, role(&sides[1], id))).collect();
    loop {
        let fits = |slots: &[Slot], i: usize, id: ValueId| {
            compatible(sides[0].declared(id_a(slots, i)), sides[1].declared(id))
        };
        let score = |slots: &[Slot], i: usize, id: ValueId| {
            if fits(slots, i, id) { roles_a[&i].likeness(&roles_b[&id]) } else { -1.0 }
        };
        // A pair is taken if neither side has another candidate as good: alone of its kind, or most alike.
        let best = open_a.iter().flat_map(|&i| open_b.iter().map(move |&id| (i, id))).find(|&(i, id)| {
            let here = score(slots, i, id);
            here >= 0.0
                && open_a.iter().all(|&k| k == i || score(slots, k, id) < here)
                && open_b.iter().all(|&k| k == id || score(slots, i, k) < here)
        });
        let Some((i, id)) = best else { break };
        slots[i].ids[1] = Some(id);
        open_a.retain(|&k| k != i);
        open_b.retain(|&k| k != id);
    }
    let unclear_a: Vec<usize> = open_a
        .iter()
        .copied()
        .filter(|&i| {
            open_b.iter().any(|&id| compatible(sides[0].declared(id_a(slots, i)), sides[1].declared(id)))
        })
        .collect();
    if unclear_a.is_empty() {
        return Ok(());
    }
    let unclear_b = open_b.iter().filter(|&&id| {
        unclear_a.iter().any(|&i| compatible(sides[0].declared(id_a(slots, i)), sides[1].declared(id)))
    });
    Err(InputError::Ambiguous {
        a: listed(unclear_a.iter().map(|&i| sides[0].name(id_a(slots, i)))),
        b: listed(unclear_b.map(|&id| sides[1].name(id))),
    })
}

/// Whether one tensor can be both.
fn compatible(a: Option<&TensorType>, b: Option<&TensorType>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return true };
    let kind = |d: DType| (d.is_float(), d.is_int(), (!d.is_float() && !d.is_int()).then_some(d));
    let shapes = match (&a.shape, &b.shape) {
        (Some(a), Some(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|pair| !matches!(pair, (Dim::Fixed(n), Dim::Fixed(m)) if n != m))
        }
        _ => true,
    };
    kind(a.dtype) == kind(b.dtype) && shapes
}

/// Enters an input's axes into the dimensions, those of both models as one.
fn declare(dims: &mut Dims, sides: &[Side<'_>], slot: &Slot) -> Result<Vec<Class>, InputError> {
    let types: Vec<(usize, &str, &TensorType)> = sides
        .iter()
        .zip(slot.ids)
        .enumerate()
        .filter_map(|(k, (side, id))| Some((k, side.name(id?), side.declared(id?)?)))
        .collect();
    if let [(_, name, a), (_, _, b)] = types[..]
        && !compatible(Some(a), Some(b))
    {
        let text =
            |t: &TensorType| format!("{}{}", t.dtype, t.shape.as_deref().map(shape_text).unwrap_or_default());
        return Err(InputError::Differ { name: name.to_owned(), a: text(a), b: text(b) });
    }
    let mut joined: Vec<Class> = Vec::new();
    for (side, name, declared) in types {
        let Some(shape) = &declared.shape else { continue };
        let classes: Vec<Class> = (0..shape.len())
            .map(|axis| dims.class(side, shape, axis, declared.dtype.is_float(), name))
            .collect();
        for (one, other) in joined.iter().zip(&classes) {
            dims.join(*one, *other)?;
        }
        joined = classes;
    }
    Ok(joined)
}

/// Puts an input's tensor into `bound`, for each model in the type it declares.
fn fill(
    bound: &mut Bound,
    sides: &[Side<'_>],
    slot: &Slot,
    classes: &[Class],
    dims: &Dims,
    request: &Request<'_>,
) -> Result<(), InputError> {
    let here: Vec<(usize, ValueId)> =
        slot.ids.iter().enumerate().filter_map(|(k, id)| Some((k, (*id)?))).collect();
    let names: Vec<&str> = here.iter().map(|&(k, id)| sides[k].name(id)).collect();
    let name = names[0];
    let shape: Vec<usize> =
        classes.iter().map(|&c| dims.size(c).expect("every class has a size now")).collect();
    let mut tensors: Vec<Tensor> = Vec::new();
    let mut made = String::new();
    let set = request.set.iter().rev().find(|(n, _)| names.contains(&n.as_str()));
    let declared = |&(k, id): &(usize, ValueId)| sides[k].declared(id);
    if let Some((_, value)) = set {
        for place in &here {
            let Some(t) = declared(place).filter(|t| t.shape.is_some()) else {
                return Err(unknown_type(name));
            };
            tensors.push(filled(value, t.dtype, &shape, name)?);
        }
        made = format!("all {value} (--set)");
    } else if let Some((file, content)) = request.given {
        for place @ &(k, id) in &here {
            let Some((given_name, tensor)) = given(request, sides[k].name(id), slot, sides) else {
                let found = listed(content.keys());
                return Err(InputError::NotGiven { name: name.to_owned(), file: file.to_owned(), found });
            };
            let wanted = declared(place).map_or(tensor.dtype(), |t| t.dtype);
            tensors.push(converted(tensor, wanted, given_name)?);
            if made.is_empty() {
                made = format!("from {file}");
                if tensor.dtype() != wanted {
                    made = format!("{made}, converted from {}", tensor.dtype());
                }
            }
        }
    } else {
        let types: Vec<&TensorType> = here.iter().filter_map(declared).collect();
        // In the narrowest of the declared types, so that every model gets the same numbers.
        let narrow = types.iter().map(|t| t.dtype).max_by(|a, b| {
            let width = |d: &DType| (d.unit_roundoff().unwrap_or(0.0), std::cmp::Reverse(d.size()));
            width(a).partial_cmp(&width(b)).expect("unit roundoffs are numbers")
        });
        let Some(dtype) = narrow.filter(|_| types.len() == here.len()) else {
            return Err(unknown_type(name));
        };
        if types.iter().all(|t| t.shape.is_none()) {
            return Err(InputError::NotMakeable {
                name: name.to_owned(),
                why: "its rank is not declared".into(),
            });
        }
        let uses: Vec<Use> =
            here.iter().flat_map(|&(k, id)| usage::uses(sides[k].graph, &sides[k].consumers, id)).collect();
        let (sequence, past) = (dims.size_of_name("seq"), dims.size_of_name("past"));
        let filling = choose(&About { names: &names, dtype, shape: &shape, uses: &uses, sequence, past });
        let (tensor, said) = make(filling, dtype, &shape, request.seed, name)?;
        for t in types {
            tensors.push(tensor.cast(t.dtype)?);
        }
        made = said;
    }
    bound.fed.push(Fed {
        a: slot.ids[0].map(|id| sides[0].name(id).to_owned()),
        b: slot.ids[1].map(|id| sides[1].name(id).to_owned()),
        dtype: tensors[0].dtype(),
        shape: tensors[0].shape().to_vec(),
        made,
    });
    for (&(k, id), tensor) in here.iter().zip(tensors) {
        if k == 0 {
            bound.a.insert(id, tensor)
        } else {
            bound.b.insert(id, tensor)
        };
    }
    Ok(())
}

fn unknown_type(name: &str) -> InputError {
    InputError::NotMakeable {
        name: name.to_owned(),
        why: "the model does not declare its type and rank".to_owned(),
    }
}
