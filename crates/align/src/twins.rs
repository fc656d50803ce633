//! Nodes of B that are the same call on the same bits as a node of A: they need not be run a second time.

use std::cell::RefCell;

use isotrace_graph::{Graph, Node, NodeId, ValueId};
use isotrace_tensor::Tensor;

use crate::Side;

/// Readers of a value that are looked at.
const MOST_READERS: usize = 24;

/// What of B's run is known from A's, as B's nodes come by in execution order.
pub(crate) struct Twins<'x, 'g> {
    a: &'x Side<'g>,
    b: &'x Graph,
    /// The value of A that holds the same bits, by value of B.
    partners: RefCell<Vec<Option<ValueId>>>,
}

impl<'x, 'g> Twins<'x, 'g> {
    /// `inputs` pairs inputs of B with those of A that are fed the same tensors.
    pub fn new(a: &'x Side<'g>, b: &'x Graph, inputs: &[(ValueId, ValueId)]) -> Self {
        let mut partners = vec![None; b.values.len()];
        for &(b, a) in inputs {
            partners[b.index()] = Some(a);
        }
        Self { a, b, partners: RefCell::new(partners) }
    }

    /// The outputs of a node, where it has a twin; `values` are B's so far.
    pub fn outputs(&self, id: NodeId, values: &[Option<Tensor>]) -> Option<Vec<Option<Tensor>>> {
        let node = self.b.node(id);
        for v in node.reads() {
            self.recognise(v, values);
        }
        let partner = |v: ValueId| self.partners.borrow()[v.index()];
        let same = |b: ValueId, a: ValueId| {
            partner(b) == Some(a)
                || matches!((&values[b.index()], self.a.declared.get(a)), (Some(x), Some(y)) if x.bit_eq(y))
        };
        let twin = find(self.a, node, &partner, &same)?;
        let theirs = self.a.graph().node(twin);
        let mut partners = self.partners.borrow_mut();
        for (b, a) in node.outputs.iter().zip(&theirs.outputs) {
            if let Some(b) = b {
                partners[b.index()] = *a;
            }
        }
        Some(theirs.outputs.iter().map(|a| self.a.declared.get((*a)?).cloned()).collect())
    }

    /// Finds A's value of the same shape and bits for one of B's that another node computed; twins go on from there.
    fn recognise(&self, v: ValueId, values: &[Option<Tensor>]) {
        let mut partners = self.partners.borrow_mut();
        let (place, Some(value)) = (&mut partners[v.index()], &values[v.index()]) else { return };
        if place.is_some() || self.b.value(v).constant.is_some() {
            return;
        }
        let known = |a: &&ValueId| self.a.declared.get(**a).is_some_and(|t| t.bit_eq(value));
        *place = self.a.bits().like(value).iter().find(known).copied();
    }
}

/// A node of A that is the same call as `node`: found among the readers of what `node`'s inputs are paired with,
/// and accepted when every other input is the `same` too.
pub(crate) fn find(
    a: &Side<'_>,
    node: &Node,
    partner: &dyn Fn(ValueId) -> Option<ValueId>,
    same: &dyn Fn(ValueId, ValueId) -> bool,
) -> Option<NodeId> {
    if node.bodies().next().is_some() {
        return None;
    }
    let first = node.inputs.iter().flatten().find_map(|&v| partner(v))?;
    a.consumers[first.index()].iter().copied().take(MOST_READERS).find(|&c| {
        let other = a.graph().node(c);
        same_call(node, other)
            && node.inputs.iter().zip(&other.inputs).all(|(b, a)| match (b, a) {
                (None, None) => true,
                (Some(b), Some(a)) => same(*b, *a),
                _ => false,
            })
    })
}

/// Same operator with the same settings, as many inputs, and the same outputs named.
pub fn same_call(b: &Node, a: &Node) -> bool {
    b.op == a.op
        && b.domain == a.domain
        && b.version == a.version
        && b.inputs.len() == a.inputs.len()
        && b.outputs.len() == a.outputs.len()
        && b.outputs.iter().zip(&a.outputs).all(|(b, a)| b.is_some() == a.is_some())
        && b.attributes.len() == a.attributes.len()
        && b.attributes.iter().zip(&a.attributes).all(|((n, x), (m, y))| n == m && x.same(y))
}
