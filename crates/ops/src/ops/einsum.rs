//! Einsum: sums of products over named axes, with `...` for broadcast ones and repeated letters for diagonals.
//!
//! Operands are contracted from left to right, each time as one batched matrix product: letters in both operands that
//! are still wanted are the batch, letters in both that are not are summed.

use isotrace_graph::Node;
use isotrace_tensor::{Odometer, Tensor, View, element_count, strides};

use super::matmul::{absolute, matmul};
use crate::budget::{self, Budget, Unit};
use crate::moves::room;
use crate::{Call, Float, Flow, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct Einsum {
    inputs: Vec<Term>,
    /// `None`: letters that occur once, in the order of the alphabet, after the broadcast axes.
    output: Option<Term>,
    equation: String,
}

/// The letters of one operand before and after its `...`.
#[derive(Debug, Clone)]
struct Term {
    before: Vec<char>,
    after: Vec<char>,
    ellipsis: bool,
}

/// An axis's name: a letter, or a broadcast axis counted from the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Broadcast(std::cmp::Reverse<usize>),
    Letter(char),
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let equation = attributes::text(node, "equation")?
        .ok_or_else(|| OpError::Setting("attribute equation is missing".into()))?;
    let wrong = |what: &str| OpError::Setting(format!("equation {equation:?}: {what}"));
    let term = |text: &str| -> Result<Term, OpError> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (before, after, ellipsis) = match text.split_once("...") {
            None => (text.as_str(), "", false),
            Some((before, after)) => (before, after, true),
        };
        if !before.chars().chain(after.chars()).all(|c| c.is_ascii_alphabetic()) {
            return Err(wrong("expected letters, commas, one ... a term and at most one ->"));
        }
        Ok(Term { before: before.chars().collect(), after: after.chars().collect(), ellipsis })
    };
    let (left, right) = match equation.split_once("->") {
        None => (equation.as_str(), None),
        Some((left, right)) => (left, Some(right)),
    };
    let inputs = left.split(',').map(term).collect::<Result<Vec<_>, _>>()?;
    let output = right.map(term).transpose()?;
    if let Some(output) = &output {
        let mut letters: Vec<char> = output.before.iter().chain(&output.after).copied().collect();
        if letters.iter().any(|c| !inputs.iter().any(|t| t.before.contains(c) || t.after.contains(c))) {
            return Err(wrong("a letter of the output is in no input"));
        }
        letters.sort_unstable();
        if letters.windows(2).any(|w| w[0] == w[1]) {
            return Err(wrong("a letter is twice in the output"));
        }
    }
    Ok(Box::new(Einsum { inputs, output, equation }))
}

impl Term {
    fn names(&self, rank: usize) -> Option<Vec<Name>> {
        let letters = self.before.len() + self.after.len();
        let broadcast = rank.checked_sub(letters).filter(|&b| b == 0 || self.ellipsis)?;
        let letter = |&c: &char| Name::Letter(c);
        let mut names: Vec<Name> = self.before.iter().map(letter).collect();
        names.extend((0..broadcast).rev().map(|i| Name::Broadcast(std::cmp::Reverse(i))));
        names.extend(self.after.iter().map(letter));
        Some(names)
    }
}

/// A tensor whose axes have names, each once.
struct Named<T> {
    names: Vec<Name>,
    shape: Vec<usize>,
    data: Vec<T>,
}

/// Elements in the order of `shape`, whose axes lie `steps` apart.
fn gathered<T: Float>(data: &[T], shape: &[usize], steps: &[usize]) -> Result<Vec<T>, OpError> {
    let mut out = room(shape)?;
    out.extend(Odometer::new(shape, steps).map(|i| data[i]));
    Ok(out)
}

impl<T: Float> Named<T> {
    /// Takes diagonals of repeated names.
    fn new(data: &[T], shape: &[usize], names: &[Name]) -> Result<Self, OpError> {
        let (mut own, mut sizes, mut steps): (Vec<Name>, Vec<usize>, Vec<usize>) = Default::default();
        for ((&name, &size), step) in names.iter().zip(shape).zip(strides(shape)) {
            match own.iter().position(|&n| n == name) {
                None => {
                    own.push(name);
                    sizes.push(size);
                    steps.push(step);
                }
                Some(i) if sizes[i] == size => steps[i] += step,
                Some(i) => {
                    return Err(OpError::Input(format!(
                        "one letter stands for axes of sizes {} and {size} of one operand",
                        sizes[i]
                    )));
                }
            }
        }
        let data = gathered(data, &sizes, &steps)?;
        Ok(Self { names: own, shape: sizes, data })
    }

    fn size(&self, name: Name) -> Option<usize> {
        self.names.iter().position(|&n| n == name).map(|i| self.shape[i])
    }

    /// The elements with axes in the order of `names`; names that are missing here repeat, as do axes of size 1.
    fn ordered(&self, names: &[Name], sizes: &dyn Fn(Name) -> usize) -> Result<Vec<T>, OpError> {
        let own = strides(&self.shape);
        let shape: Vec<usize> = names.iter().map(|&n| sizes(n)).collect();
        let steps: Vec<usize> = names
            .iter()
            .map(|n| {
                let i = self.names.iter().position(|m| m == n);
                i.filter(|&i| self.shape[i] != 1).map_or(0, |i| own[i])
            })
            .collect();
        gathered(&self.data, &shape, &steps)
    }

    /// Sums over the axes that `kept` does not want.
    fn summed(self, kept: &dyn Fn(Name) -> bool) -> Result<Self, OpError> {
        let (wanted, others): (Vec<Name>, Vec<Name>) = self.names.iter().partition(|&&n| kept(n));
        if others.is_empty() {
            return Ok(self);
        }
        let size = |n: Name| self.size(n).unwrap_or(1);
        let count: usize = others.iter().map(|&n| size(n)).product();
        let data = self.ordered(&[wanted.clone(), others].concat(), &size)?;
        let shape: Vec<usize> = wanted.iter().map(|&n| size(n)).collect();
        let rows: usize = shape.iter().product();
        let data = (0..rows).map(|i| data[i * count..(i + 1) * count].iter().copied().sum()).collect();
        Ok(Self { names: wanted, shape, data })
    }

    fn times(self, other: Self, kept: &dyn Fn(Name) -> bool) -> Result<Self, OpError> {
        // A letter of this operand alone that nobody wants is summed before the product.
        let (a, b) = (Self::summed_unless(self, &other.names, kept)?, other);
        let b = Self::summed_unless(b, &a.names, kept)?;
        let size = |n: Name| match (a.size(n), b.size(n)) {
            (Some(1) | None, Some(s)) | (Some(s), _) => s,
            (None, None) => 1,
        };
        let both = |n: &Name| b.names.contains(n);
        let batch: Vec<Name> = a.names.iter().copied().filter(|n| both(n) && kept(*n)).collect();
        let inner: Vec<Name> = a.names.iter().copied().filter(|n| both(n) && !kept(*n)).collect();
        let left: Vec<Name> = a.names.iter().copied().filter(|n| !both(n)).collect();
        let right: Vec<Name> = b.names.iter().copied().filter(|n| !a.names.contains(n)).collect();
        let count = |names: &[Name]| names.iter().map(|&n| size(n)).product::<usize>();
        let (g, m, k, n) = (count(&batch), count(&left), count(&inner), count(&right));
        let x = a.ordered(&[batch.clone(), left.clone(), inner.clone()].concat(), &size)?;
        let y = b.ordered(&[batch.clone(), inner, right.clone()].concat(), &size)?;
        let (_, data) = matmul(&View::new(&x, &[g, m, k]), &View::new(&y, &[g, k, n]))?;
        let names = [batch, left, right].concat();
        let shape = names.iter().map(|&n| size(n)).collect();
        Ok(Self { names, shape, data })
    }

    fn summed_unless(one: Self, other: &[Name], kept: &dyn Fn(Name) -> bool) -> Result<Self, OpError> {
        one.summed(&|n| kept(n) || other.contains(&n))
    }
}

impl Einsum {
    /// The result, and how many products are summed in an element of it.
    fn compute<T: Float>(&self, operands: &[&Tensor]) -> Result<(Tensor, usize), OpError> {
        if operands.len() != self.inputs.len() {
            return Err(OpError::Input(format!(
                "equation {:?} has {} operands, the node {}",
                self.equation,
                self.inputs.len(),
                operands.len()
            )));
        }
        let mut all: Vec<Vec<Name>> = Vec::new();
        let mut sizes: std::collections::BTreeMap<Name, usize> = std::collections::BTreeMap::new();
        for (term, operand) in self.inputs.iter().zip(operands) {
            let names = term.names(operand.rank()).ok_or_else(|| {
                OpError::Input(format!(
                    "equation {:?} does not fit an operand of shape {:?}",
                    self.equation,
                    operand.shape()
                ))
            })?;
            for (&name, &size) in names.iter().zip(operand.shape()) {
                let known = sizes.entry(name).or_insert(size);
                if *known == 1 {
                    *known = size;
                } else if *known != size && size != 1 {
                    return Err(OpError::Input(format!(
                        "equation {:?}: one letter stands for axes of sizes {known} and {size}",
                        self.equation
                    )));
                }
            }
            all.push(names);
        }
        let broadcast = sizes.keys().filter(|n| matches!(n, Name::Broadcast(_))).count();
        let output = match &self.output {
            Some(term) if term.ellipsis => term.names(term.before.len() + term.after.len() + broadcast),
            Some(term) => term.names(term.before.len() + term.after.len()),
            None => {
                let once = |n: &Name| all.iter().flatten().filter(|m| *m == n).count() == 1;
                Some(sizes.keys().filter(|n| matches!(n, Name::Broadcast(_)) || once(n)).copied().collect())
            }
        };
        let output = output.unwrap_or_default();
        let shape: Vec<usize> = output.iter().map(|n| sizes[n]).collect();
        element_count(&shape)?;
        let terms =
            sizes.iter().filter(|(n, _)| !output.contains(n)).fold(1usize, |k, (_, &s)| k.saturating_mul(s));

        let mut result: Option<Named<T>> = None;
        for (i, (operand, names)) in operands.iter().zip(&all).enumerate() {
            let next = Named::new(operand.as_slice::<T>()?, operand.shape(), names)?;
            let kept = |n: Name| output.contains(&n) || all[i + 1..].iter().any(|t| t.contains(&n));
            result = Some(match result {
                None => next.summed(&|n| output.contains(&n) || all[1..].iter().any(|t| t.contains(&n)))?,
                Some(before) => before.times(next, &kept)?,
            });
        }
        let result = result.ok_or_else(|| OpError::Input("there is no operand".into()))?;
        let data = result.ordered(&output, &|n| sizes[&n])?;
        Ok((Tensor::from_vec(&shape, data)?, terms))
    }
}

fn operands<'a>(call: &Call<'a>) -> Vec<&'a Tensor> {
    call.inputs.iter().copied().flatten().collect()
}

impl Operator for Einsum {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let first = call.need(0, "Inputs")?;
        Ok(vec![for_float!(first.dtype(), "Inputs", T => Ok(self.compute::<T>(&operands(call))?.0))?])
    }

    fn flow(&self) -> Flow {
        Flow::Linear
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let magnitudes = operands(call).into_iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
        let (magnitude, terms) = self.compute::<f64>(&magnitudes.iter().collect::<Vec<_>>())?;
        let terms = terms.saturating_add(magnitudes.len());
        budget::sum(output, &magnitude.to_f64()?, terms as f64, unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn einsum(equation: &str, operands: &[&Tensor]) -> Result<Tensor, OpError> {
        let mut node = Node {
            name: String::new(),
            domain: String::new(),
            op: "Einsum".into(),
            version: 12,
            inputs: vec![],
            outputs: vec![],
            attributes: isotrace_graph::Attributes::default(),
        };
        let text = isotrace_graph::Attribute::Bytes(equation.as_bytes().to_vec());
        node.attributes.insert("equation".into(), text);
        let inputs: Vec<Option<&Tensor>> = operands.iter().map(|&t| Some(t)).collect();
        Ok(build(&node)?.run(&Call::new(&inputs))?.remove(0))
    }

    fn counting(shape: &[usize]) -> Tensor {
        Tensor::from_vec(shape, (0..shape.iter().product::<usize>()).map(|i| i as f64 + 1.0).collect())
            .unwrap()
    }

    #[test]
    fn values_as_a_table() {
        let (a, b, v) = (counting(&[2, 2]), counting(&[2, 2]), counting(&[2]));
        let (batch, wide) = (counting(&[2, 1, 2]), counting(&[2, 3]));
        type Case<'a> = (&'a str, Vec<&'a Tensor>, &'a [usize], Vec<f64>);
        let cases: [Case<'_>; 12] = [
            ("ij,jk->ik", vec![&a, &b], &[2, 2], vec![7., 10., 15., 22.]),
            ("ij, jk", vec![&a, &b], &[2, 2], vec![7., 10., 15., 22.]),
            ("ji", vec![&wide], &[3, 2], vec![1., 4., 2., 5., 3., 6.]),
            ("ij->", vec![&a], &[], vec![10.]),
            ("ii->i", vec![&a], &[2], vec![1., 4.]),
            ("ii", vec![&a], &[], vec![5.]),
            ("i,j->ji", vec![&v, &v], &[2, 2], vec![1., 2., 2., 4.]),
            ("i,i,i->", vec![&v, &v, &v], &[], vec![9.]),
            ("...ij,...jk->...ik", vec![&batch, &b], &[2, 1, 2], vec![7., 10., 15., 22.]),
            ("...i->...", vec![&batch], &[2, 1], vec![3., 7.]),
            ("ij,kl->", vec![&a, &b], &[], vec![100.]),
            ("i...,i...->...", vec![&a, &b], &[2], vec![10., 20.]),
        ];
        for (equation, operands, shape, expected) in cases {
            let got = einsum(equation, &operands).unwrap();
            assert_eq!(got.shape(), shape, "{equation}");
            assert_eq!(*got.to_f64().unwrap(), expected, "{equation}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let (a, wide) = (counting(&[2, 2]), counting(&[2, 3]));
        for (equation, operands) in [
            ("ij,jk->iz", vec![&a, &a]),
            ("ij->ii", vec![&a]),
            ("i?->i", vec![&a]),
            ("ijk->i", vec![&a]),
            ("i->i", vec![&a]),
            ("ij,kj->ik", vec![&a, &wide]),
            ("ii->i", vec![&wide]),
            ("ij,jk->ik", vec![&a]),
        ] {
            assert!(einsum(equation, &operands).is_err(), "{equation}");
        }
    }
}
