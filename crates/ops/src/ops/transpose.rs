//! Transpose: reorders the axes. Attribute `perm`, by default all axes reversed.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::{Call, Flow, OpError, Operator, attributes};

#[derive(Debug)]
struct Transpose {
    perm: Option<Vec<i64>>,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Transpose { perm: attributes::ints(node, "perm")? }))
}

impl Operator for Transpose {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "data")?;
        let perm = match &self.perm {
            None => (0..data.rank()).rev().collect(),
            Some(perm) => permutation(perm, data.rank())?,
        };
        Ok(vec![data.permute(&perm)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

/// Checks that `perm` names each of `rank` axes once.
fn permutation(perm: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
    let axes: Vec<usize> = perm.iter().filter_map(|&p| usize::try_from(p).ok()).collect();
    let mut seen = axes.clone();
    seen.sort_unstable();
    if perm.len() == rank && seen.iter().copied().eq(0..rank) {
        Ok(axes)
    } else {
        Err(OpError::Setting(format!("perm {perm:?} is no permutation of the {rank} axes of the input")))
    }
}
