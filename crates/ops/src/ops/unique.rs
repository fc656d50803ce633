//! Unique: the different elements of a tensor, or the different slices along an axis; with the place where each
//! comes first, which of them each element is, and how often each comes. NaN equals NaN and is the largest.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor, normalise_axis};
use rustc_hash::FxHashMap;

use crate::walk::{Walk, walk};
use crate::{Call, Decision, OpError, Operator, attributes, flow};

#[derive(Debug)]
struct Unique {
    axis: Option<i64>,
    sorted: bool,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let (axis, sorted) = (attributes::int(node, "axis")?, attributes::flag(node, "sorted", true)?);
    Ok(Box::new(Unique { axis, sorted }))
}

/// Numbers that are ordered and equal as the elements are.
fn keys(tensor: &Tensor) -> Result<Vec<i128>, OpError> {
    match tensor.dtype() {
        DType::String => {
            let strings = tensor.as_strings()?;
            let mut sorted: Vec<&String> = strings.iter().collect();
            sorted.sort_unstable();
            sorted.dedup();
            let ranks: FxHashMap<&String, i128> = sorted.into_iter().zip(0..).collect();
            Ok(strings.iter().map(|s| ranks[s]).collect())
        }
        DType::U64 => Ok(tensor.as_slice::<u64>()?.iter().map(|&x| i128::from(x)).collect()),
        dtype if dtype.is_float() => Ok(tensor.to_f64()?.iter().map(|&x| float_key(x)).collect()),
        _ => Ok(tensor.to_i64()?.iter().map(|&x| i128::from(x)).collect()),
    }
}

fn float_key(x: f64) -> i128 {
    if x.is_nan() {
        return i128::MAX;
    }
    // Adding 0 makes -0 a 0; the bits of negative numbers are ordered backwards.
    let bits = (x + 0.0).to_bits() as i64;
    i128::from(if bits < 0 { !(bits & i64::MAX) } else { bits })
}

/// What was found, in the order of the output.
struct Groups {
    /// The place where each group comes first.
    first: Vec<usize>,
    /// The group of each place.
    group: Vec<usize>,
    counts: Vec<i64>,
}

fn groups(items: &[&[i128]], sorted: bool) -> Groups {
    let mut order: Vec<usize> = (0..items.len()).collect();
    // Stable: the first of equals comes first.
    order.sort_by(|&a, &b| items[a].cmp(items[b]));
    let mut found: Vec<Vec<usize>> = Vec::new();
    for place in order {
        match found.last_mut() {
            Some(group) if items[group[0]] == items[place] => group.push(place),
            _ => found.push(vec![place]),
        }
    }
    if !sorted {
        found.sort_by_key(|group| group[0]);
    }
    let mut group = vec![0; items.len()];
    for (i, places) in found.iter().enumerate() {
        for &place in places {
            group[place] = i;
        }
    }
    Groups {
        first: found.iter().map(|places| places[0]).collect(),
        group,
        counts: found.iter().map(|places| places.len() as i64).collect(),
    }
}

impl Operator for Unique {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "X")?;
        let (flat, axis) = match self.axis {
            None => (data.reshape(&[data.len()])?, 0),
            Some(axis) => (data.clone(), normalise_axis(axis, data.rank())?),
        };
        // The axis in front, so that what is compared lies together.
        let mut front: Vec<usize> = (0..flat.rank()).collect();
        front[..=axis].rotate_right(1);
        let keys = keys(&flat.permute(&front)?)?;
        let size = flat.shape()[axis];
        let width = keys.len() / size.max(1);
        let items: Vec<&[i128]> = (0..size).map(|i| &keys[i * width..(i + 1) * width]).collect();
        let Groups { first, group, counts } = groups(&items, self.sorted);
        let mut walks: Vec<Walk> = flat.shape().iter().map(|&d| Walk::whole(d)).collect();
        walks[axis] = Walk::places(first.iter().copied());
        let numbers = |v: &[usize]| Tensor::vector(v.iter().map(|&i| i as i64).collect::<Vec<_>>());
        Ok(vec![walk(&flat, &walks, None)?, numbers(&first), numbers(&group), Tensor::vector(counts)])
    }

    fn keeps_half(&self) -> bool {
        true
    }

    /// Equal elements became one, so each may carry the largest error there is.
    fn propagate(
        &self,
        _: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let mut out = flow::none(outputs)?;
        if let Some(Some(error)) = errors.first() {
            let largest = error.to_f64()?.iter().copied().fold(0.0, f64::max);
            out[0] = Tensor::full(outputs[0].shape(), largest)?;
        }
        Ok(out)
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{node, run, tensor};

    fn unique(axis: Option<i64>, sorted: i64) -> Node {
        let mut attributes = vec![("sorted", Attribute::Int(sorted))];
        attributes.extend(axis.map(|a| ("axis", Attribute::Int(a))));
        node("Unique", 11, &attributes)
    }

    #[test]
    fn elements_in_either_order() {
        let data = tensor(&[2, 3], &[2f32, -0.0, f32::NAN, 0.0, -1., f32::NAN]);
        let cases = [
            (1, [-1f32, 0., 2., f32::NAN], [4i64, 1, 0, 2], [2i64, 1, 3, 1, 0, 3], [1i64, 2, 1, 2]),
            (0, [2., 0., f32::NAN, -1.], [0, 1, 2, 4], [0, 1, 2, 1, 3, 2], [1, 2, 2, 1]),
        ];
        for (sorted, values, places, inverse, counts) in cases {
            let out = run(&unique(None, sorted), &[&data]).unwrap();
            let same = out[0]
                .as_slice::<f32>()
                .unwrap()
                .iter()
                .zip(values)
                .all(|(&a, b)| a == b || a.is_nan() && b.is_nan());
            assert!(same, "{:?}", out[0]);
            assert_eq!(out[1].as_slice::<i64>().unwrap(), places);
            assert_eq!(out[2].as_slice::<i64>().unwrap(), inverse);
            assert_eq!(out[3].as_slice::<i64>().unwrap(), counts);
        }
    }

    #[test]
    fn slices_and_other_types() {
        let data = tensor(&[2, 3], &[1i8, 0, 1, 2, 5, 2]);
        let out = run(&unique(Some(-1), 1), &[&data]).unwrap();
        assert!(out[0].bit_eq(&tensor(&[2, 2], &[0i8, 1, 5, 2])), "{:?}", out[0]);
        assert_eq!(out[2].as_slice::<i64>().unwrap(), [1, 0, 1]);
        let text = Tensor::from_strings(&[3], vec!["b".into(), "a".into(), "b".into()]).unwrap();
        assert_eq!(run(&unique(None, 1), &[&text]).unwrap()[0].as_strings().unwrap(), ["a", "b"]);
        let big = tensor(&[2], &[u64::MAX, u64::MAX - 1]);
        assert_eq!(run(&unique(None, 1), &[&big]).unwrap()[0].len(), 2);
        assert_eq!(run(&unique(None, 1), &[&tensor::<i32>(&[0], &[])]).unwrap()[0].len(), 0);
        assert!(run(&unique(Some(2), 1), &[&data]).is_err());
    }
}
