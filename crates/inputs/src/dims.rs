//! Sizes that the files leave open.
//!
//! Dimensions that have to be equal form a class: those of one name in one model, and those at one place of an
//! input that both models have. A class gets its size from a file, from a given tensor or from `--dim`; if none
//! says it, from what its name suggests. Exporters also name dimensions by sums and products of other names
//! (`past_sequence_length + 1`); such a name follows from its parts.

use isotrace_graph::Dim;
use rustc_hash::FxHashMap;

use crate::InputError;
use crate::names::{hint, listed};

/// A class of equal dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class(usize);

#[derive(Debug, Clone, Default)]
struct State {
    size: Option<(usize, String)>,
    names: Vec<String>,
    /// Where it was seen first: axis, rank, whether the elements are floats.
    place: (usize, usize, bool),
}

/// Every dimension of every input.
#[derive(Debug, Default)]
pub struct Dims {
    parent: Vec<usize>,
    states: Vec<State>,
    named: FxHashMap<(usize, String), usize>,
}

impl Dims {
    /// The class of axis `axis` of an input of model `side` with the shape `shape`.
    pub fn class(&mut self, side: usize, shape: &[Dim], axis: usize, float: bool, input: &str) -> Class {
        let place = (axis, shape.len(), float);
        Class(match &shape[axis] {
            Dim::Fixed(n) => self.add(State {
                size: Some((*n, format!("declared by input {input:?}"))),
                place,
                ..State::default()
            }),
            Dim::Unknown => self.add(State { place, ..State::default() }),
            Dim::Named(name) => {
                let key = (side, name.clone());
                if let Some(&i) = self.named.get(&key) {
                    i
                } else {
                    let i = self.add(State { names: vec![name.clone()], place, ..State::default() });
                    self.named.insert(key, i);
                    i
                }
            }
        })
    }

    fn add(&mut self, state: State) -> usize {
        self.states.push(state);
        self.parent.push(self.parent.len());
        self.parent.len() - 1
    }

    fn root(&self, Class(mut i): Class) -> usize {
        while self.parent[i] != i {
            i = self.parent[i];
        }
        i
    }

    /// Both have one size from now on.
    pub fn join(&mut self, a: Class, b: Class) -> Result<(), InputError> {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return Ok(());
        }
        let gone = std::mem::take(&mut self.states[b]);
        self.parent[b] = a;
        for name in gone.names {
            if !self.states[a].names.contains(&name) {
                self.states[a].names.push(name);
            }
        }
        match gone.size {
            Some((size, because)) => self.fix(Class(a), size, because),
            None => Ok(()),
        }
    }

    /// Gives a class its size.
    pub fn fix(&mut self, class: Class, size: usize, because: String) -> Result<(), InputError> {
        let i = self.root(class);
        let state = &mut self.states[i];
        match &state.size {
            Some((one, _)) if *one == size => Ok(()),
            Some((one, first)) => Err(InputError::Conflict {
                what: match state.names.first() {
                    Some(name) => format!("dimension {name:?}"),
                    None => format!("axis {}", state.place.0),
                },
                one: *one,
                because: first.clone(),
                other: size,
                but: because,
            }),
            None => {
                state.size = Some((size, because));
                Ok(())
            }
        }
    }

    /// Gives every class of this name its size, in whichever model.
    pub fn fix_named(&mut self, name: &str, size: usize) -> Result<(), InputError> {
        let classes: Vec<usize> =
            self.named.iter().filter(|((_, n), _)| n == name).map(|(_, &i)| i).collect();
        if classes.is_empty() {
            let mut names: Vec<&str> = self.named.keys().map(|(_, n)| n.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let hint = hint(name, names.iter().copied());
            let dims = match names.len() {
                0 => "no dimension has a name".to_owned(),
                _ => format!("the named dimensions are {}", listed(names)),
            };
            return Err(InputError::UnknownDim { name: name.to_owned(), hint, dims });
        }
        classes.into_iter().try_for_each(|i| self.fix(Class(i), size, "--dim".to_owned()))
    }

    /// Chooses a size for every class that has none, plain names first.
    pub fn choose(&mut self) {
        for expressions in [false, true] {
            for i in 0..self.states.len() {
                if self.parent[i] != i || self.states[i].size.is_some() {
                    continue;
                }
                let state = &self.states[i];
                if state.names.iter().any(|n| is_expression(n)) != expressions {
                    continue;
                }
                let size = state
                    .names
                    .iter()
                    .find_map(|n| self.evaluate(n))
                    .unwrap_or_else(|| usual(&state.names, state.place));
                self.states[i].size = Some((size, "chosen".to_owned()));
            }
        }
    }

    /// The size of a class after [`choose`](Self::choose).
    pub fn size(&self, class: Class) -> Option<usize> {
        self.states[self.root(class)].size.as_ref().map(|(n, _)| *n)
    }

    /// The chosen size of the class whose name contains `part`, if there is one.
    pub fn size_of_name(&self, part: &str) -> Option<usize> {
        let mut found: Vec<(&str, usize)> = self
            .named
            .iter()
            .filter(|((_, n), _)| n.to_lowercase().contains(part) && !is_expression(n))
            .filter_map(|((_, n), &i)| Some((n.as_str(), self.size(Class(i))?)))
            .collect();
        found.sort_unstable();
        found.first().map(|&(_, size)| size)
    }

    /// A sum of products of known names and whole numbers.
    fn evaluate(&self, text: &str) -> Option<usize> {
        if !is_expression(text) {
            return None;
        }
        text.split('+').try_fold(0usize, |sum, term| {
            let product = term.split('*').try_fold(1usize, |product, factor| {
                let factor = factor.trim().trim_matches(['(', ')']).trim();
                let size = match factor.parse() {
                    Ok(n) => n,
                    Err(_) => (0..2)
                        .find_map(|side| self.size(Class(*self.named.get(&(side, factor.to_owned()))?)))?,
                };
                product.checked_mul(size)
            })?;
            sum.checked_add(product)
        })
    }
}

fn is_expression(name: &str) -> bool {
    name.contains(['+', '*'])
}

/// What a dimension usually is, by its name, else by its place. Sizes differ from each other, so that a mix-up of
/// axes does not go unnoticed, and are above 1, so that broadcasting does not hide one.
fn usual(names: &[String], (axis, rank, float): (usize, usize, bool)) -> usize {
    const BATCH: usize = 2;
    const SEQUENCE: usize = 8;
    const PAST: usize = 4;
    const SIDE: usize = 64;
    let rules: [(&[&str], usize); 6] = [
        (&["past", "cache"], PAST),
        (&["batch"], BATCH),
        (&["channel"], 3),
        (&["height", "width"], SIDE),
        (&["beam", "num_images", "num_logits"], 1),
        (&["seq", "len", "time", "frame", "token"], SEQUENCE),
    ];
    let lower: Vec<String> = names.iter().map(|n| n.to_lowercase()).collect();
    for (parts, size) in rules {
        if lower.iter().any(|n| parts.iter().any(|p| n.contains(p))) {
            return size;
        }
    }
    match (axis, rank, float) {
        (0, ..) => BATCH,
        // Images: NCHW.
        (1, 4, true) => 3,
        (2 | 3, 4, true) => SIDE,
        _ => SEQUENCE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Vec<Dim> {
        vec![Dim::Named(name.to_owned())]
    }

    #[test]
    fn names_are_shared_within_a_model_and_joined_across() {
        let mut dims = Dims::default();
        let batch = dims.class(0, &named("batch"), 0, true, "x");
        let again = dims.class(0, &named("batch"), 0, true, "y");
        let other = dims.class(1, &named("s0"), 0, true, "x");
        assert_eq!(batch, again);
        dims.join(batch, other).unwrap();
        dims.fix_named("s0", 5).unwrap();
        dims.choose();
        assert_eq!(dims.size(batch), Some(5));
        let error = dims.fix(again, 6, "given".into()).unwrap_err().to_string();
        assert_eq!(
            error,
            "dimension \"batch\" cannot be both 5 (--dim) and 6 (given); all inputs have to agree on it"
        );
        let error = dims.fix_named("bach", 5).unwrap_err().to_string();
        assert!(error.contains("did you mean \"batch\"?") && error.contains("\"batch\", \"s0\""), "{error}");
    }

    #[test]
    fn sums_follow_from_their_parts() {
        let cases =
            [("past + seq", 12), ("seq + 1", 9), ("2*seq", 16), ("(past) + 2*seq + 1", 21), ("other + 1", 8)];
        for (text, expected) in cases {
            let mut dims = Dims::default();
            let sum = dims.class(0, &[Dim::Unknown, Dim::Named(text.into())], 1, false, "mask");
            dims.class(0, &named("past"), 0, true, "p");
            dims.class(0, &named("seq"), 0, true, "x");
            dims.choose();
            assert_eq!(dims.size(sum), Some(expected), "{text}");
        }
    }
}
