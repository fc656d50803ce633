//! The blocked weights of com.microsoft.nchwc, and the size of their blocks.
//!
//! ONNX Runtime's layout optimiser cuts channels into blocks of the vector width of the machine it runs on (16 with
//! AVX-512 or NEON, 8 with AVX) and lays weights out as (O/b, I/b, H, W, b inputs, b outputs), or, where fewer than b
//! inputs meet a filter, as (O/b, I, H, W, b outputs). It keeps the declared shape (O, I, H, W), and the file does not
//! say b.
//!
//! Between the blocked operators tensors keep the shape (N, C, H, W) with blocked memory, and the operators in between
//! work element by element. So here every tensor is held in plain (N, C, H, W) order, which comes to the same; weights
//! are put in order too, and channels that only fill the last block up left out ([`plain()`]). A tensor dumped by a
//! runtime in blocked order becomes plain by [`unblock`].
//!
//! Where sizes are not known before a run, the optimiser lets two operands meet with the block as an axis of its own: it
//! puts a reshape to [0, -1, 0, 0, b] before, which shows the memory as it is, and one to [0, -1, 0, 0] behind. On plain
//! order the first is a reshape and a transposition, and [`mark_views`] says so to the two operators.

mod plain;
mod width;

use isotrace_graph::{Attribute, Graph, Node, NodeId};
use isotrace_tensor::{Element, Tensor};

use crate::{OpError, for_float};
pub use plain::{CHANNELS, Channels, PLAIN, plain};
use width::block_of_graph;
pub use width::{block_of, settle};

/// The domain of the blocked operators.
pub const DOMAIN: &str = "com.microsoft.nchwc";

/// The attribute under which [`annotate`] leaves the block size at each blocked node.
pub const BLOCK: &str = "isotrace_block";

/// The two block sizes there are.
const SIZES: [usize; 2] = [16, 8];

/// Puts blocked weights (O, I, H, W) in plain order. `O` is a multiple of `block`, and `I` too unless it is smaller.
pub fn unblock_weights<T: Element>(w: &[T], shape: &[usize], block: usize) -> Result<Vec<T>, OpError> {
    let &[o, i, h, width] = shape else {
        return Err(OpError::Input(format!("blocked weights have four axes, found {shape:?}")));
    };
    let inner = if i < block { 1 } else { block };
    if o % block != 0 || i % inner != 0 {
        return Err(OpError::Input(format!(
            "weights of shape {shape:?} are not made of blocks of {block} channels"
        )));
    }
    let taps = h * width;
    let mut out = vec![T::zeroed(); w.len()];
    let mut blocked = w.iter();
    for ob in 0..o / block {
        for ib in 0..i / inner {
            for tap in 0..taps {
                for ii in 0..inner {
                    for oo in 0..block {
                        let (o, channel) = (ob * block + oo, ib * inner + ii);
                        let Some(&x) = blocked.next() else { continue };
                        out[(o * i + channel) * taps + tap] = x;
                    }
                }
            }
        }
    }
    Ok(out)
}

/// The same of a tensor.
pub(crate) fn weights_in_order(w: &Tensor, block: usize) -> Result<Tensor, OpError> {
    for_float!(w.dtype(), "W", T => {
        Ok(Tensor::from_vec(w.shape(), unblock_weights(w.as_slice::<T>()?, w.shape(), block)?)?)
    })
}

/// Puts a tensor dumped in blocked memory order, (N, C/b, H, W, b) under the shape (N, C, H, W), in plain order.
pub fn unblock(x: &Tensor, block: usize) -> Result<Tensor, OpError> {
    let &[n, c, h, w] = x.shape() else {
        return Err(OpError::Input(format!("blocked tensors have four axes, found {:?}", x.shape())));
    };
    if block == 0 || c % block != 0 {
        return Err(OpError::Input(format!("{c} channels are not made of blocks of {block}")));
    }
    Ok(x.reshape(&[n, c / block, h, w, block])?.permute(&[0, 1, 4, 2, 3])?.reshape(&[n, c, h, w])?)
}

/// Writes the block size into every blocked node, so that each need not find it alone.
pub fn annotate(graph: &mut Graph) -> Result<(), OpError> {
    if let Some(block) = block_of_graph(graph)? {
        for node in graph.nodes.iter_mut().filter(|n| n.domain == DOMAIN) {
            node.attributes.entry(BLOCK.into()).or_insert(Attribute::Int(block as i64));
        }
        mark_views(graph, block);
    }
    Ok(())
}

/// The shape that a reshape asks for, where it is a constant.
fn asked(graph: &Graph, node: &Node) -> Option<Vec<i64>> {
    let shape = graph.value((*node.inputs.get(1)?)?).constant.as_ref()?;
    Some(shape.to_i64().ok()?.into_owned())
}

/// How a value lies in a runtime's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lies {
    Plain,
    /// In blocks, under the shape (N, C, H, W).
    Blocked,
    /// In blocks, under the shape (N, C/b, H, W, b).
    Open,
}

/// Writes the block size into reshapes that show blocked memory as it is, and into those that put it back under the plain
/// shape. Nodes are in execution order.
pub fn mark_views(graph: &mut Graph, block: usize) {
    for id in lies(graph, block).1 {
        graph.nodes[id.index()].attributes.insert(BLOCK.into(), Attribute::Int(block as i64));
    }
}

/// How each value lies, and the nodes that view it another way.
fn lies(graph: &Graph, block: usize) -> (Vec<Lies>, Vec<NodeId>) {
    let mut lies = vec![Lies::Plain; graph.values.len()];
    let mut views = Vec::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        let reads = |how: Lies| node.reads().any(|v| lies[v.index()] == how);
        let (after, is_view) = match (node.domain.as_str(), node.op.as_str()) {
            (DOMAIN, "ReorderOutput") => (Lies::Plain, false),
            (DOMAIN, _) => (Lies::Blocked, false),
            ("", "Reshape") if reads(Lies::Open) || reads(Lies::Blocked) => {
                match (asked(graph, node).as_deref(), reads(Lies::Open)) {
                    (Some([0, -1, 0, 0, last]), false) if usize::try_from(*last) == Ok(block) => {
                        (Lies::Open, true)
                    }
                    (Some([0, -1, 0, 0]), true) => (Lies::Blocked, true),
                    _ => (Lies::Plain, false),
                }
            }
            _ if reads(Lies::Open) => (Lies::Open, false),
            _ if reads(Lies::Blocked) => (Lies::Blocked, false),
            _ => (Lies::Plain, false),
        };
        for v in node.writes() {
            lies[v.index()] = after;
        }
        if is_view {
            views.push(id);
        }
    }
    (lies, views)
}

/// What a marked reshape makes of a tensor in plain order: (N, C, H, W) with the block as an axis of its own, or back.
pub fn view(x: &Tensor, block: usize) -> Result<Tensor, OpError> {
    match *x.shape() {
        [n, c, h, w] if block > 0 && c % block == 0 => {
            Ok(x.reshape(&[n, c / block, block, h, w])?.permute(&[0, 1, 3, 4, 2])?)
        }
        [n, c, h, w, b] if b == block => Ok(x.permute(&[0, 1, 4, 2, 3])?.reshape(&[n, c * b, h, w])?),
        ref other => Err(OpError::Input(format!("{other:?} is not made of blocks of {block} channels"))),
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::{Attributes, Value, ValueId};

    use super::*;

    /// The blocked form of plain weights, written from the layout's definition.
    pub(super) fn block_weights(w: &[f32], shape: [usize; 4], block: usize) -> Vec<f32> {
        let [o, i, h, width] = shape;
        let inner = if i < block { 1 } else { block };
        let view = isotrace_tensor::View::new(w, &[o / block, block, i / inner, inner, h, width]);
        view.permute(&[0, 2, 4, 5, 3, 1]).to_vec()
    }

    #[test]
    fn weights_come_back_in_order() {
        for block in SIZES {
            for shape in [[32, 16, 3, 3], [16, 3, 7, 7], [48, 32, 1, 1], [16, 1, 3, 3]] {
                let plain: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
                let blocked = block_weights(&plain, shape, block);
                assert_eq!(unblock_weights(&blocked, &shape, block).unwrap(), plain, "{shape:?} {block}");
            }
        }
        assert!(unblock_weights(&[0f32; 24], &[24, 1, 1, 1], 16).is_err());
    }

    #[test]
    fn activations_come_back_in_order() {
        let x = Tensor::from_vec(&[1, 4, 1, 2], vec![0f32, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]).unwrap();
        let plain = unblock(&x, 2).unwrap();
        assert_eq!(plain.as_slice::<f32>().unwrap(), [0., 1., 2., 3., 4., 5., 6., 7.]);
        assert!(unblock(&x, 3).is_err());
    }

    #[test]
    fn a_view_of_the_memory_lies_as_the_memory_does() {
        // Channels 0 to 3 of two pixels, in blocks of two.
        let plain = Tensor::from_vec(&[1, 4, 1, 2], vec![0., 1., 2., 3., 4., 5., 6., 7f32]).unwrap();
        let open = view(&plain, 2).unwrap();
        assert_eq!(open.shape(), [1, 2, 1, 2, 2]);
        let memory = open.reshape(&[1, 4, 1, 2]).unwrap();
        assert!(unblock(&memory, 2).unwrap().bit_eq(&plain));
        assert!(view(&open, 2).unwrap().bit_eq(&plain));
        assert!(view(&plain, 3).is_err() && view(&open, 4).is_err());
    }

    #[test]
    fn views_are_marked_where_memory_is_blocked() {
        let mut graph = Graph::default();
        for _ in 0..8 {
            graph.add_value(Value::default());
        }
        for shape in [vec![0i64, -1, 0, 0, 8], vec![0, -1, 0, 0], vec![0, -1, 0, 0, 16]] {
            graph.add_value(Value { constant: Some(Tensor::vector(shape)), ..Value::default() });
        }
        let (open, back, other) = (8, 9, 10);
        let nodes: [(&str, &str, &[u32], u32, bool); 7] = [
            (DOMAIN, "Conv", &[0], 1, false),
            ("", "Reshape", &[1, open], 2, true),
            ("", "Add", &[2, 2], 3, false),
            ("", "Reshape", &[3, back], 4, true),
            ("", "Reshape", &[4, other], 5, false),
            (DOMAIN, "ReorderOutput", &[4], 6, false),
            ("", "Reshape", &[6, open], 7, false),
        ];
        for (domain, op, inputs, output, _) in nodes {
            graph.nodes.push(Node {
                name: String::new(),
                domain: domain.into(),
                op: op.into(),
                version: 18,
                inputs: inputs.iter().map(|&i| Some(ValueId(i))).collect(),
                outputs: vec![Some(ValueId(output))],
                attributes: Attributes::default(),
            });
        }
        mark_views(&mut graph, 8);
        let marked: Vec<bool> = graph.nodes.iter().map(|n| n.attributes.contains_key(BLOCK)).collect();
        assert_eq!(marked, nodes.map(|n| n.4));
    }
}
