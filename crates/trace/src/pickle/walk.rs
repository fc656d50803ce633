//! The tensors in what a pickle makes, with the path to each as its name.

use rustc_hash::FxHashSet;

use super::machine::{Id, Object, Pickle};
use super::tensors::{Kind, Recipe, kind};
use crate::TraceError;

/// Objects within objects; networks have some tens.
const DEEPEST: usize = 500;

/// Objects looked at, those that are reached twice counted twice: many times what a pickle can hold of use.
const MOST_VISITS: usize = 32 << 20;

/// Notes of one file.
const MOST_NOTES: usize = 20;

/// What a pickle holds.
#[derive(Default)]
pub struct Found {
    /// Tensors, in the order of the file.
    pub tensors: Vec<(String, Recipe)>,
    /// What could not be read, and why.
    pub notes: Vec<String>,
}

/// Finds the tensors of a pickle. A tensor by itself has the name `alone`.
pub fn walk(pickle: &Pickle, alone: &str) -> Result<Found, TraceError> {
    let mut walk = Walk { pickle, found: Found::default(), visits: 0, around: FxHashSet::default(), left: 0 };
    let mut path = vec![];
    walk.visit(pickle.root, &mut path)?;
    let Walk { mut found, left, .. } = walk;
    if left > 0 {
        found.notes.push(format!("and {left} more"));
    }
    for (name, _) in &mut found.tensors {
        if name.is_empty() {
            alone.clone_into(name);
        }
    }
    Ok(found)
}

struct Walk<'p> {
    pickle: &'p Pickle,
    found: Found,
    visits: usize,
    /// The objects around the current one: a cycle ends there.
    around: FxHashSet<Id>,
    left: usize,
}

impl Walk<'_> {
    fn visit(&mut self, id: Id, path: &mut Vec<String>) -> Result<(), TraceError> {
        self.visits += 1;
        if self.visits > MOST_VISITS || path.len() > DEEPEST {
            return Err(TraceError::Bomb {
                problem: format!(
                    "a pickle with more than {MOST_VISITS} objects, or {DEEPEST} within each other"
                ),
            });
        }
        match kind(self.pickle, id) {
            Kind::Tensor(recipe) => self.found.tensors.push((path.join("."), recipe)),
            Kind::Unreadable(reason) => {
                let place =
                    if path.is_empty() { "the tensor".into() } else { format!("{:?}", path.join(".")) };
                self.note(format!("{place} was left aside: {reason}"));
            }
            Kind::Other if self.around.insert(id) => {
                self.inside(id, path)?;
                self.around.remove(&id);
            }
            Kind::Other => {}
        }
        Ok(())
    }

    fn note(&mut self, text: String) {
        if self.found.notes.len() < MOST_NOTES {
            self.found.notes.push(text);
        } else {
            self.left += 1;
        }
    }

    fn inside(&mut self, id: Id, path: &mut Vec<String>) -> Result<(), TraceError> {
        let pickle = self.pickle;
        match pickle.get(id) {
            Object::List(elements) | Object::Tuple(elements) => self.elements(elements, path),
            Object::Dict(pairs) => self.pairs(pairs, path),
            Object::Call(call) => {
                let arguments = pickle.sequence(call.arguments).unwrap_or_default();
                // Paddle saves a tensor by itself as tuple((its name, its elements)).
                if let (Some("builtins.tuple" | "__builtin__.tuple"), [inner]) =
                    (pickle.global(call.function), arguments)
                    && let Some([name, array]) = pickle.sequence(*inner)
                    && pickle.text(*name).is_some()
                {
                    return self.visit(*array, path);
                }
                for &argument in arguments {
                    // What an object was made from: lists and dictionaries, without a name of their own.
                    if matches!(pickle.get(argument), Object::List(_) | Object::Dict(_) | Object::Tuple(_)) {
                        self.visit(argument, path)?;
                    }
                }
                if let Some(state) = call.state {
                    self.state(state, path)?;
                }
                self.pairs(&call.items, path)?;
                self.elements(&call.elements, path)
            }
            _ => Ok(()),
        }
    }

    fn elements(&mut self, elements: &[Id], path: &mut Vec<String>) -> Result<(), TraceError> {
        for (at, &element) in elements.iter().enumerate() {
            path.push(at.to_string());
            self.visit(element, path)?;
            path.pop();
        }
        Ok(())
    }

    fn pairs(&mut self, pairs: &[(Id, Id)], path: &mut Vec<String>) -> Result<(), TraceError> {
        for (at, &(key, value)) in pairs.iter().enumerate() {
            path.push(match self.pickle.get(key) {
                Object::Text(text) => text.clone(),
                Object::Int(n) => n.to_string(),
                Object::Bool(b) => b.to_string(),
                // An optimizer saved whole has its parameters for keys; by its `state_dict` it would have their numbers.
                _ => at.to_string(),
            });
            self.visit(value, path)?;
            path.pop();
        }
        Ok(())
    }

    /// The state of an object; that of a `torch.nn.Module` keeps its parameters, buffers and modules apart, and its
    /// `state_dict` does not.
    fn state(&mut self, state: Id, path: &mut Vec<String>) -> Result<(), TraceError> {
        let Object::Dict(pairs) = self.pickle.get(state) else { return self.visit(state, path) };
        for &(key, value) in pairs {
            if let Some("_parameters" | "_buffers" | "_modules") = self.pickle.text(key) {
                self.visit(value, path)?;
            } else {
                self.pairs(&[(key, value)], path)?;
            }
        }
        Ok(())
    }
}
