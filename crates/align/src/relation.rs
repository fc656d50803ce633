//! How one tensor's layout follows from another's: flat order first, then permutations of axes.

use isotrace_tensor::{Tensor, View};

use crate::judge::samples;

/// How a value of B follows from its partner in A when both hold the same numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// Same shape, same order.
    Same,
    /// Same order under another shape.
    Reshaped,
    /// A with its axes in the order `perm`, then read under B's shape.
    PermutedA(Vec<usize>),
    /// B with its axes in the order `perm` reads as A does.
    PermutedB(Vec<usize>),
    /// A part of A: as many places as B has along an axis, from `start` on. Constants only.
    Sliced {
        /// The axis that is cut.
        axis: usize,
        /// The first place along it.
        start: usize,
    },
}

impl Relation {
    /// The word used in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Reshaped => "reshaped",
            Self::PermutedA(_) | Self::PermutedB(_) => "permuted",
            Self::Sliced { .. } => "sliced",
        }
    }

    /// Whether axes are permuted, not only regrouped.
    pub fn is_permuted(&self) -> bool {
        matches!(self, Self::PermutedA(_) | Self::PermutedB(_))
    }

    /// Whether a tensor of shape `a` can be carried to `shape`.
    pub fn fits(&self, a: &[usize], shape: &[usize]) -> bool {
        let axes = match self {
            Self::Sliced { axis, start } => {
                let cut = |(i, (a, b)): (usize, (&usize, &usize))| {
                    if i == *axis { start + b <= *a } else { a == b }
                };
                return a.len() == shape.len() && a.iter().zip(shape).enumerate().all(cut);
            }
            Self::Same | Self::Reshaped => true,
            Self::PermutedA(perm) => perm.len() == a.len(),
            Self::PermutedB(perm) => perm.len() == shape.len(),
        };
        axes && a.iter().product::<usize>() == shape.iter().product::<usize>()
    }

    /// A tensor of A's layout in B's, whose shape is `shape`. `None` where the shapes do not allow it.
    pub fn carry(&self, a: &Tensor, shape: &[usize]) -> Option<Tensor> {
        match self {
            Self::Same | Self::Reshaped => a.reshape(shape).ok(),
            Self::Sliced { axis, start } if self.fits(a.shape(), shape) => {
                a.slice(*axis, *start, shape[*axis]).ok()
            }
            Self::PermutedA(perm) if perm.len() == a.rank() => a.permute(perm).ok()?.reshape(shape).ok(),
            Self::PermutedB(perm) if perm.len() == shape.len() => {
                let permuted: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
                a.reshape(&permuted).ok()?.permute(&inverse(perm)).ok()
            }
            _ => None,
        }
    }
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    for (i, &p) in perm.iter().enumerate() {
        inverse[p] = i;
    }
    inverse
}

/// Ranks beyond this are tried in flat order only; 6! orders of axes are enough.
const MAX_RANK: usize = 6;

/// Every relation under which a tensor of shape `a` could read as one of shape `b`, likeliest first.
///
/// Axes of size 1 are never moved: that changes nothing.
pub fn candidates(a: &[usize], b: &[usize]) -> Vec<Relation> {
    let mut out = vec![if a == b { Relation::Same } else { Relation::Reshaped }];
    for perm in permutations(a) {
        out.push(Relation::PermutedA(perm));
    }
    // Where A merged axes that B keeps apart only B's axes can express the order.
    if b != a {
        for perm in permutations(b) {
            out.push(Relation::PermutedB(perm));
        }
    }
    out
}

/// The relation under which `a` holds the bits of `b`, the likeliest where there are several. A few elements tell most orders
/// of six axes apart; what they leave is carried whole.
pub fn between(a: &Tensor, b: &Tensor) -> Option<Relation> {
    let numbers = a.to_f64().ok().zip(b.to_f64().ok());
    let agrees = |relation: &Relation| {
        numbers.as_ref().is_none_or(|(x, y)| {
            let probe = Probe::new(x, a.shape(), b.shape(), relation);
            samples(y.len()).all(|i| probe.at(i).to_bits() == y[i].to_bits())
        })
    };
    let holds = |relation: &Relation| relation.carry(a, b.shape()).is_some_and(|carried| carried.bit_eq(b));
    let alike = |relation: &Relation| relation.fits(a.shape(), b.shape()) && agrees(relation);
    candidates(a.shape(), b.shape()).into_iter().find(|relation| alike(relation) && holds(relation))
}

/// The axis along which a tensor of shape `b` may be a part of one of shape `a`.
pub fn cut(a: &[usize], b: &[usize]) -> Option<usize> {
    let mut differ = (0..a.len()).filter(|&i| a.len() == b.len() && a[i] != b[i]);
    let axis = differ.next()?;
    (a[axis] > b[axis] && differ.next().is_none()).then_some(axis)
}

/// Orders of the axes that are longer than 1, the identity left out; fewest moved axes first.
fn permutations(shape: &[usize]) -> Vec<Vec<usize>> {
    let axes: Vec<usize> = (0..shape.len()).filter(|&i| shape[i] != 1).collect();
    if axes.len() < 2 || axes.len() > MAX_RANK {
        return Vec::new();
    }
    let mut orders = Vec::new();
    let mut order = axes.clone();
    permute(&mut order, 0, &mut |order| {
        if order != axes.as_slice() {
            // The axes of size 1 stay where they are.
            let mut perm: Vec<usize> = (0..shape.len()).collect();
            for (&at, &from) in axes.iter().zip(order) {
                perm[at] = from;
            }
            orders.push(perm);
        }
    });
    orders.sort_by_key(|perm| (perm.iter().enumerate().filter(|&(i, &p)| i != p).count(), perm.clone()));
    orders
}

fn permute(order: &mut Vec<usize>, from: usize, visit: &mut impl FnMut(&[usize])) {
    if from == order.len() {
        return visit(order);
    }
    for i in from..order.len() {
        order.swap(from, i);
        permute(order, from + 1, visit);
        order.swap(from, i);
    }
}

/// Reads single elements of a tensor under a relation, without carrying all of it.
pub struct Probe<'a> {
    view: View<'a, f64>,
    /// Shape in which a flat place of B is counted.
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl<'a> Probe<'a> {
    /// A reader of `a` (f64, of shape `a_shape`) in the order of B, whose shape is `b_shape`.
    pub fn new(a: &'a [f64], a_shape: &[usize], b_shape: &[usize], relation: &Relation) -> Self {
        let (view, shape) = match relation {
            Relation::Same | Relation::Reshaped => (View::new(a, a_shape), a_shape.to_vec()),
            Relation::PermutedA(perm) => {
                let view = View::new(a, a_shape).permute(perm);
                let shape = view.shape().to_vec();
                (view, shape)
            }
            Relation::PermutedB(perm) => {
                let permuted: Vec<usize> = perm.iter().map(|&p| b_shape[p]).collect();
                (View::new(a, &permuted).permute(&inverse(perm)), b_shape.to_vec())
            }
            Relation::Sliced { axis, start } => {
                let strides = isotrace_tensor::strides(a_shape);
                let from = start * strides.get(*axis).copied().unwrap_or(0);
                (View::new(&a[from.min(a.len())..], a_shape), b_shape.to_vec())
            }
        };
        let strides = isotrace_tensor::strides(&shape);
        Self { view, shape, strides }
    }

    /// The element that stands at flat place `i` of B.
    pub fn at(&self, i: usize) -> f64 {
        self.view.data()[self.place(i)]
    }

    /// The flat place in A of the element that stands at flat place `i` of B.
    pub fn place(&self, i: usize) -> usize {
        let axes = self.shape.iter().zip(&self.strides).zip(self.view.strides());
        axes.map(|((&d, &s), &to)| i / s % d * to).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relation_between_two_tensors_is_found_by_their_bits() {
        let a = Tensor::from_vec(&[2, 3, 4], (0..24).map(f64::from).collect()).unwrap();
        for relation in candidates(&[2, 3, 4], &[4, 3, 2]) {
            let b = relation.carry(&a, &[4, 3, 2]).unwrap();
            let found = between(&a, &b).unwrap();
            assert!(found.carry(&a, &[4, 3, 2]).unwrap().bit_eq(&b), "{relation:?} {found:?}");
        }
        assert_eq!(between(&a, &Tensor::from_vec(&[24], vec![0.5; 24]).unwrap()), None);
        assert_eq!(between(&a, &Tensor::from_vec(&[2], vec![0.0; 2]).unwrap()), None);
    }

    #[test]
    fn every_relation_carries_as_its_probe_reads() {
        let a = Tensor::from_vec(&[2, 3, 4], (0..24).map(f64::from).collect()).unwrap();
        for b_shape in [vec![2, 3, 4], vec![3, 8], vec![4, 3, 2], vec![3, 2, 2, 2]] {
            for relation in candidates(a.shape(), &b_shape) {
                let carried = relation.carry(&a, &b_shape).unwrap();
                let probe = Probe::new(a.as_slice().unwrap(), a.shape(), &b_shape, &relation);
                let probed: Vec<f64> = (0..24).map(|i| probe.at(i)).collect();
                assert_eq!(carried.as_slice::<f64>().unwrap(), probed, "{relation:?} to {b_shape:?}");
            }
        }
    }

    #[test]
    fn heads_split_out_of_a_merged_axis_are_found() {
        // B = A [2, 6] seen as [2, 3, 2] with axes 1 and 2 swapped.
        let a = Tensor::from_vec(&[2, 6], (0..12).map(f64::from).collect()).unwrap();
        let b = a.reshape(&[2, 3, 2]).unwrap().permute(&[0, 2, 1]).unwrap();
        let found =
            candidates(a.shape(), b.shape()).into_iter().find(|r| r.carry(&a, b.shape()).unwrap().bit_eq(&b));
        assert_eq!(found, Some(Relation::PermutedB(vec![0, 2, 1])));
    }
}
