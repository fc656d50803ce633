//! ZipMap: for each row a map from the classes' names to its numbers.
//!
//! Exporters of classifiers put it behind the probabilities. The keys are settings of the node, so the numbers are all that
//! a run adds: here the value is the matrix of them, a row for each map and a column for each key, in ascending order of
//! keys (a map has no order of its own). That is how the same classifier exported without ZipMap answers, so the two can be
//! held against each other.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::scores::Labels;
use super::sizes;
use crate::moves::{Runs, move_elements};
use crate::{Call, Flow, OpError, Operator};

#[derive(Debug)]
struct ZipMap {
    /// Which column is the place of each key, keys in order.
    columns: Vec<usize>,
}

/// The keys, in ascending order, as text.
pub fn keys(node: &Node) -> Result<Vec<String>, OpError> {
    let (labels, columns) = parsed(node)?;
    Ok(match labels {
        Labels::Numbers(keys) => columns.iter().map(|&i| keys[i].to_string()).collect(),
        Labels::Texts(keys) => columns.iter().map(|&i| format!("{:?}", keys[i])).collect(),
    })
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(ZipMap { columns: parsed(node)?.1 }))
}

/// The keys as they are given, and their places in ascending order.
fn parsed(node: &Node) -> Result<(Labels, Vec<usize>), OpError> {
    let labels = Labels::of(node, "classlabels_int64s")?;
    let mut columns: Vec<usize> = (0..labels.len()).collect();
    let twice = match &labels {
        Labels::Numbers(keys) => {
            columns.sort_by_key(|&i| keys[i]);
            columns.windows(2).any(|w| keys[w[0]] == keys[w[1]])
        }
        Labels::Texts(keys) => {
            columns.sort_by_key(|&i| &keys[i]);
            columns.windows(2).any(|w| keys[w[0]] == keys[w[1]])
        }
    };
    if twice {
        return Err(OpError::Setting("a key of ZipMap is there twice, a map holds it once".into()));
    }
    Ok((labels, columns))
}

impl Operator for ZipMap {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let (count, width) = sizes(x)?;
        if width != self.columns.len() {
            let keys = self.columns.len();
            return Err(OpError::Input(format!("X has {width} columns, there are {keys} keys")));
        }
        let starts = (0..count).flat_map(|row| self.columns.iter().map(move |c| row * width + c)).collect();
        Ok(vec![move_elements(&[x], &[count, width], &Runs { starts, run: 1 })?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ints, node, texts};
    use crate::testing::{counting, first, run};

    #[test]
    fn columns_come_in_the_order_of_keys() {
        let x = counting(&[2, 3]);
        let cases = [
            ("classlabels_int64s", ints(&[0, 1, 2]), [0., 1., 2., 3., 4., 5.]),
            ("classlabels_int64s", ints(&[30, -1, 2]), [1., 2., 0., 4., 5., 3.]),
            ("classlabels_strings", texts(&["b", "c", "a"]), [2., 0., 1., 5., 3., 4.]),
        ];
        for (name, keys, expected) in cases {
            let y = first(&node("ZipMap", 1, &[(name, keys)]), &[&x]);
            assert_eq!(y.as_slice::<f32>().unwrap(), expected, "{name}");
        }
        let named = node("ZipMap", 1, &[("classlabels_int64s", ints(&[30, -1, 2]))]);
        assert_eq!(super::keys(&named).unwrap(), ["-1", "2", "30"]);
        for keys in [ints(&[1, 2]), ints(&[1, 1, 2]), ints(&[])] {
            assert!(run(&node("ZipMap", 1, &[("classlabels_int64s", keys)]), &[&x]).is_err());
        }
    }
}
