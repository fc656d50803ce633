//! Nodes of B that are the same call on the same bits as a node of A: they need not be run a second time.

use std::cell::RefCell;

use isotrace_graph::{Attribute, Graph, Node, NodeId, ValueId};
use isotrace_ops::ops::opaque;
use isotrace_tensor::Tensor;

use crate::Side;
use crate::parts::parts;

/// Readers of a value that are looked at.
const MOST_READERS: usize = 24;

/// What of B's run is known from A's, as B's nodes come by in execution order.
pub(crate) struct Twins<'x, 'g> {
    a: &'x Side<'g>,
    b: &'x Graph,
    producers: Vec<Option<NodeId>>,
    /// The value of A that holds the same bits, by value of B.
    partners: RefCell<Vec<Option<ValueId>>>,
    /// Values of B that were computed and hold no bits of A's.
    own: RefCell<Vec<bool>>,
}

impl<'x, 'g> Twins<'x, 'g> {
    /// `inputs` pairs inputs of B with those of A that are fed the same tensors.
    pub fn new(a: &'x Side<'g>, b: &'x Graph, inputs: &[(ValueId, ValueId)]) -> Self {
        let mut partners = vec![None; b.values.len()];
        for &(b, a) in inputs {
            partners[b.index()] = Some(a);
        }
        let own = vec![false; b.values.len()];
        Self { a, b, producers: b.producers(), partners: partners.into(), own: own.into() }
    }

    /// The outputs of a node, where it has a twin; `values` are B's so far.
    pub fn outputs(&self, id: NodeId, values: &[Option<Tensor>]) -> Option<Vec<Option<Tensor>>> {
        let node = self.b.node(id);
        let partner = |v: ValueId| self.partners.borrow()[v.index()];
        let same = |b: ValueId, a: ValueId| {
            partner(b) == Some(a)
                || matches!((&values[b.index()], self.a.declared.get(a)), (Some(x), Some(y)) if x.bit_eq(y))
        };
        let Some(twin) = find(self.a, node, &partner, &same) else {
            let made = self.apart(node, values, &same)?;
            return Some(vec![Some(made)]);
        };
        let theirs = self.a.graph().node(twin);
        let mut partners = self.partners.borrow_mut();
        for (b, a) in node.outputs.iter().zip(&theirs.outputs) {
            if let Some(b) = b {
                partners[b.index()] = *a;
            }
        }
        Some(theirs.outputs.iter().map(|a| self.a.declared.get((*a)?).cloned()).collect())
    }

    /// What a node makes, where A has the calls that it is made of as nodes of their own.
    fn apart(
        &self,
        node: &Node,
        values: &[Option<Tensor>],
        same: &dyn Fn(ValueId, ValueId) -> bool,
    ) -> Option<Tensor> {
        let parts = parts(node);
        let (x, w) = (node.inputs.first().copied()??, node.inputs.get(1).copied()??);
        let (x, w) = (values[x.index()].as_ref()?, values[w.index()].as_ref()?);
        let last = |t: &Tensor| t.shape().last().copied();
        let is_product = parts.first()?.op == "MatMul";
        self.a.holding(x).find_map(|start| {
            let theirs = self.a.declared.get(start)?;
            // Rows of a product may be counted by several axes.
            let rows = is_product && w.rank() == 2 && last(theirs) == last(x);
            if theirs.shape() != x.shape() && !rows {
                return None;
            }
            let end = parts.iter().try_fold(start, |at, part| self.next(at, part, same))?;
            let made = self.a.declared.get(end)?;
            let mut shape = if rows { x.shape() } else { made.shape() }.to_vec();
            *shape.last_mut()? = last(made)?;
            made.reshape(&shape).ok()
        })
    }

    /// What the node of A makes that is the call `part` on its value `at`.
    fn next(&self, at: ValueId, part: &Node, same: &dyn Fn(ValueId, ValueId) -> bool) -> Option<ValueId> {
        let fits = |inputs: &mut dyn Iterator<Item = &Option<ValueId>>| {
            part.inputs.iter().zip(inputs).enumerate().all(|(i, pair)| match pair {
                (Some(_), Some(a)) if i == 0 => *a == at,
                (Some(b), Some(a)) => same(*b, *a),
                (b, a) => b.is_none() && a.is_none(),
            })
        };
        self.a.consumers[at.index()].iter().take(MOST_READERS).find_map(|&reader| {
            let other = self.a.graph().node(reader);
            let call = Node { version: other.version, ..part.clone() };
            let turned = part.op == "Add" && fits(&mut other.inputs.iter().rev());
            let [made] = other.outputs[..] else { return None };
            made.filter(|_| same_call(&call, other) && (turned || fits(&mut other.inputs.iter())))
        })
    }

    /// A value of B that was computed: A's memory where A has the same bits, and twins go on from there if it has the same
    /// shape. What is let go lies in the cache, and the next value can have its place: a page that nobody used before costs
    /// more than to look through it.
    pub fn held(&self, v: ValueId, made: Tensor) -> Tensor {
        let value = |a: ValueId| self.a.declared.get(a);
        let shaped = |a: &ValueId| value(*a).is_some_and(|t| t.shape() == made.shape());
        let partner = self.a.holding(&made).find(shaped);
        self.partners.borrow_mut()[v.index()] = partner;
        let theirs = partner.or_else(|| self.a.holding(&made).next()).and_then(value);
        let theirs = theirs.and_then(|t| t.reshape(made.shape()).ok());
        self.own.borrow_mut()[v.index()] = theirs.is_none();
        theirs.unwrap_or(made)
    }

    /// Whether A has neither the bits of a value nor those of what it was computed from. On A's values, where they are put
    /// in, it is another one; what is the first to differ is computed there on the same bits.
    pub fn is_passing(&self, v: ValueId) -> bool {
        let own = self.own.borrow();
        let reads = self.producers[v.index()].map(|n| self.b.node(n).reads());
        own[v.index()] && reads.is_some_and(|mut reads| reads.any(|r| own[r.index()]))
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
        && same_settings(b, a)
}

/// Whether two nodes of one operator mean the same by their attributes: one exporter writes down what is the default
/// and another leaves it out.
fn same_settings(b: &Node, a: &Node) -> bool {
    let differs = |(name, x): (&String, &Attribute), other: &Node| match other.attributes.get(name) {
        Some(y) if x.same(y) => None,
        _ => Some(matches!(
            x,
            Attribute::Tensor(_)
                | Attribute::Graph(_)
                | Attribute::Tensors(_)
                | Attribute::Graphs(_)
                | Attribute::Other(_)
        )),
    };
    let of_b = b.attributes.iter().filter_map(|x| differs(x, a));
    let mut whole = of_b.chain(a.attributes.iter().filter_map(|x| differs(x, b))).peekable();
    if whole.peek().is_none() {
        return true;
    }
    // What an operator was built from shows in what it is; numbers and names are all there is to it.
    let built = |node: &Node| Some(format!("{:?}", isotrace_ops::build(node).ok()?));
    a.domain != opaque::DOMAIN && !whole.any(|whole| whole) && built(b).is_some_and(|b| built(a) == Some(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotrace_graph::Attributes;

    type Settings<'a> = &'a [(&'a str, Attribute)];

    fn node(op: &str, attributes: Settings<'_>) -> Node {
        Node {
            name: String::new(),
            domain: String::new(),
            op: op.into(),
            version: 18,
            inputs: vec![Some(ValueId(0)), Some(ValueId(1))],
            outputs: vec![Some(ValueId(2))],
            attributes: attributes
                .iter()
                .map(|(name, x)| ((*name).to_owned(), x.clone()))
                .collect::<Attributes>(),
        }
    }

    #[test]
    fn defaults_may_be_written_down_or_left_out() {
        use Attribute::{Float, Int, Ints};
        let cases: [(&str, Settings<'_>, Settings<'_>, bool); 6] = [
            (
                "Gemm",
                &[("transB", Int(1))],
                &[("transB", Int(1)), ("alpha", Float(1.0)), ("transA", Int(0))],
                true,
            ),
            ("Gemm", &[("transB", Int(1))], &[("transB", Int(1)), ("alpha", Float(0.5))], false),
            ("Gemm", &[], &[("transB", Int(1))], false),
            ("Softmax", &[], &[("axis", Int(-1))], true),
            ("Conv", &[("pads", Ints(vec![1; 4]))], &[("pads", Ints(vec![1; 4])), ("group", Int(1))], true),
            ("Conv", &[("pads", Ints(vec![1; 4]))], &[], false),
        ];
        for (op, b, a, same) in cases {
            let (b, a) = (node(op, b), node(op, a));
            assert_eq!(
                (same_call(&b, &a), same_call(&a, &b)),
                (same, same),
                "{op} {:?} {:?}",
                b.attributes,
                a.attributes
            );
        }
    }
}
