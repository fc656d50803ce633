//! How wide the blocks of channels are.
//!
//! The block size follows from shapes where a size is a multiple of 8 and not of 16, where 8 channels are filled up to
//! 16, and where 8 are read that nobody brought into blocks. Otherwise the weights themselves tell: filters of a
//! trained network differ in scale (batch norms are folded into them), and only the right block size puts each filter's
//! weights together. The F statistic of one-way analysis of variance on squared weights, filter by filter, summed over
//! a graph's convolutions as a log likelihood ratio, decides; on two `ResNet` files each of 12 layers alone pointed the
//! right way (F of 2.5 to 75 against 1.6 to 36). Where filters do not differ in scale, as in networks that were never
//! trained, nothing tells, and 16 is taken, until the model that the graph is held against is known ([`settle`]): its
//! own weights are those of this graph under one block size and no other.

use isotrace_graph::{Attribute, Graph, Node};
use isotrace_tensor::Tensor;

use super::{BLOCK, DOMAIN, SIZES, asked, unblock_weights};
use crate::OpError;

/// Log likelihood ratio that filters differ in scale, under a block size; `None` where the shape rules it out.
fn evidence(w: &[f64], shape: &[usize], block: usize) -> Option<f64> {
    let plain = unblock_weights(w, shape, block).ok()?;
    let (filters, each) = (shape[0], shape[1..].iter().product::<usize>());
    if filters < 2 || each < 2 {
        return Some(0.0);
    }
    let (mut means, mut within) = (Vec::with_capacity(filters), 0.0);
    for filter in plain.chunks(each) {
        let mean = filter.iter().map(|w| w * w).sum::<f64>() / each as f64;
        within += filter.iter().map(|w| (w * w - mean).powi(2)).sum::<f64>() / (each - 1) as f64;
        means.push(mean);
    }
    let mean = means.iter().sum::<f64>() / filters as f64;
    let between = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (filters - 1) as f64;
    let f = each as f64 * between / (within / filters as f64);
    Some(if f.is_finite() && f > 0.0 { filters as f64 / 2.0 * f.ln() } else { 0.0 })
}

/// The block size that the weights of some convolutions speak for: 16 unless they clearly say 8.
fn weigh<'a>(weights: impl Iterator<Item = &'a Tensor>) -> Result<usize, OpError> {
    let mut total = [Some(0.0); 2];
    let mut filters = 0;
    for w in weights {
        let values = w.to_f64()?;
        filters += w.shape().first().copied().unwrap_or(0);
        for (total, block) in total.iter_mut().zip(SIZES) {
            *total = total.zip(evidence(&values, w.shape(), block)).map(|(a, b)| a + b);
        }
    }
    // Where filters do not differ, either sum is noise with a standard deviation of about sqrt(filters / 2).
    let noise = 3.0 * (filters as f64).sqrt();
    match total {
        [Some(wide), Some(narrow)] => Ok(SIZES[usize::from(narrow > wide + noise)]),
        [Some(_), None] => Ok(SIZES[0]),
        [None, Some(_)] => Ok(SIZES[1]),
        [None, None] => Err(OpError::Input(
            "the weights fit neither blocks of 8 nor of 16 channels: was this file written by ONNX Runtime's layout \
             optimiser? save it again at a lower optimisation level"
                .into(),
        )),
    }
}

/// Filters looked at in each convolution by [`settle`].
const FILTERS: usize = 16;

/// Takes the other block size where the shapes allow it and the weights of `other`, the model that `graph` is held
/// against, say so: filters that point where its own point, whatever factor a norm that was folded in gave each.
pub fn settle(graph: &mut Graph, other: &Graph) -> Result<(), OpError> {
    let convs = blocked_weights(graph);
    let mut votes = [Some(0usize); 2];
    for (w, _) in &convs {
        for (votes, block) in votes.iter_mut().zip(SIZES) {
            *votes = votes.filter(|_| fits(w.shape(), block));
        }
    }
    if convs.is_empty() || votes.contains(&None) || shown(graph).is_some() {
        return Ok(());
    }
    // What is blocked on the other side is put in order by the size that was found there.
    let mut theirs = Vec::new();
    let blocked = blocked_weights(other);
    for constant in other.values.iter().filter_map(|v| v.constant.as_ref()) {
        if constant.rank() != 4 || !constant.dtype().is_float() {
            continue;
        }
        let found = blocked.iter().find(|(w, _)| w.bytes().as_ptr() == constant.bytes().as_ptr());
        theirs.push((constant, found.and_then(|(_, block)| *block)));
    }
    for (w, _) in &convs {
        let alike = |t: &Tensor| {
            let (own, theirs) = (w.shape(), t.shape());
            own[2..] == theirs[2..] && own.iter().zip(theirs).take(2).all(|(x, y)| x >= y && x - y < SIZES[0])
        };
        let near: Vec<_> = theirs.iter().filter(|(t, _)| alike(t)).collect();
        if near.is_empty() {
            continue;
        }
        let own = w.to_f64()?;
        let mut best = [0; 2];
        for (t, block) in near {
            let right = t.to_f64()?;
            for (best, size) in best.iter_mut().zip(SIZES) {
                *best = (*best).max(in_line(&own, w.shape(), size, &right, t.shape(), *block));
            }
        }
        for (votes, best) in votes.iter_mut().zip(best) {
            *votes = votes.map(|v| v + best);
        }
        // No layer speaks louder than its filters: this far apart, those that are left hardly turn it.
        if let [Some(wide), Some(narrow)] = votes
            && wide.abs_diff(narrow) >= 4 * FILTERS
        {
            break;
        }
    }
    let [Some(wide), Some(narrow)] = votes else { return Ok(()) };
    if wide != narrow {
        let block = SIZES[usize::from(narrow > wide)];
        for node in graph.nodes.iter_mut().filter(|n| n.domain == DOMAIN) {
            node.attributes.insert(BLOCK.into(), Attribute::Int(block as i64));
        }
    }
    Ok(())
}

/// The weights of a graph's blocked convolutions, and the block size that was found for each.
fn blocked_weights(graph: &Graph) -> Vec<(Tensor, Option<usize>)> {
    let convs = graph.nodes.iter().filter(|n| n.domain == DOMAIN && n.op == "Conv");
    let weight = |n: &Node| {
        let w = graph.value((*n.inputs.get(1)?)?).constant.as_ref().filter(|w| w.rank() == 4)?;
        let block = match n.attributes.get(BLOCK) {
            Some(Attribute::Int(b)) => usize::try_from(*b).ok(),
            _ => None,
        };
        Some((w.clone(), block))
    };
    convs.filter_map(weight).collect()
}

/// Whether weights may be made of blocks of this size.
fn fits(shape: &[usize], block: usize) -> bool {
    matches!(*shape, [o, i, _, _] if o % block == 0 && (i < block || i % block == 0))
}

/// Where weights of a shape hold one number, in blocks or, without a size, in plain order.
fn place(shape: &[usize], block: Option<usize>, filter: usize, channel: usize, tap: usize) -> usize {
    let (channels, taps) = (shape[1], shape[2] * shape[3]);
    let Some(block) = block else { return (filter * channels + channel) * taps + tap };
    let inner = if channels < block { 1 } else { block };
    let (outside, within) = (filter / block * (channels / inner) + channel / inner, channel % inner);
    ((outside * taps + tap) * inner + within) * block + filter % block
}

/// How many of the first filters of `own`, in blocks of `block`, are those of `right` but for a factor. Those of one
/// number always are, and do not count.
fn in_line(
    own: &[f64],
    shape: &[usize],
    block: usize,
    right: &[f64],
    plain: &[usize],
    theirs: Option<usize>,
) -> usize {
    let (channels, taps) = (plain[1], plain[2] * plain[3]);
    let mut count = 0;
    for filter in 0..plain[0].min(FILTERS) {
        let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
        for channel in 0..channels {
            for tap in 0..taps {
                let x = own[place(shape, Some(block), filter, channel, tap)];
                let y = right[place(plain, theirs, filter, channel, tap)];
                (xx, yy, xy) = (xx + x * x, yy + y * y, xy + x * y);
            }
        }
        count += usize::from(channels * taps > 1 && xy * xy > 0.999 * xx * yy);
    }
    count
}

/// The block size of one convolution's weights alone.
pub fn block_of(weights: &Tensor) -> Result<usize, OpError> {
    weigh(std::iter::once(weights))
}

/// The block size of a graph, from all its blocked convolutions; `None` where it has no blocked operator.
pub fn block_of_graph(graph: &Graph) -> Result<Option<usize>, OpError> {
    if graph.nodes.iter().all(|n| n.domain != DOMAIN) {
        return Ok(None);
    }
    if let Some(block) = shown(graph) {
        return Ok(Some(block));
    }
    weigh(blocked_weights(graph).iter().map(|(w, _)| w)).map(Some)
}

/// The block size that the graph shows, whatever its weights are.
fn shown(graph: &Graph) -> Option<usize> {
    named(graph).or_else(|| are_wide(graph).then_some(SIZES[0]))
}

/// Whether blocks must be the wider ones: more channels are in memory than a narrow block fills up, or a convolution reads
/// as many as a narrow block holds in plain order, which it does with fewer than a block has alone. Nodes are in execution
/// order.
fn are_wide(graph: &Graph) -> bool {
    let [_, narrow] = SIZES;
    let number = |node: &Node, name: &str| match node.attributes.get(name) {
        Some(Attribute::Int(n)) => usize::try_from(*n).ok(),
        _ => None,
    };
    // Channels of blocked values as they are in memory; nought where that is not known.
    let mut blocked: Vec<Option<usize>> = vec![None; graph.values.len()];
    for node in &graph.nodes {
        let read = node.inputs.iter().flatten().find_map(|v| blocked[v.index()]);
        let written = match (node.domain.as_str(), node.op.as_str()) {
            (DOMAIN, "Conv") => {
                let input = node.inputs.first().copied().flatten();
                let weights = node.inputs.get(1).copied().flatten();
                let shape =
                    weights.and_then(|w| graph.value(w).constant.as_ref()).map_or(&[][..], Tensor::shape);
                let plain = input.is_some_and(|v| blocked[v.index()].is_none());
                if plain
                    && number(node, "group").unwrap_or(1) == 1
                    && shape.get(1).is_some_and(|&i| i >= narrow)
                {
                    return true;
                }
                Some(shape.first().copied().unwrap_or(0))
            }
            (DOMAIN, "ReorderOutput") => {
                let kept = number(node, "channels");
                if kept.zip(read).is_some_and(|(kept, held)| held >= kept + narrow) {
                    return true;
                }
                None
            }
            (DOMAIN, _) => Some(read.unwrap_or(0)),
            _ => read,
        };
        for v in node.outputs.iter().flatten() {
            blocked[v.index()] = written;
        }
    }
    false
}

/// The block size that a view of the memory names.
fn named(graph: &Graph) -> Option<usize> {
    let views = graph.nodes.iter().filter(|n| n.domain.is_empty() && n.op == "Reshape");
    views.filter_map(|n| asked(graph, n)).find_map(|shape| match *shape {
        [0, -1, 0, 0, last] => SIZES.into_iter().find(|&size| usize::try_from(last) == Ok(size)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use isotrace_graph::{Attributes, Value};

    use super::super::annotate;
    use super::super::tests::block_weights;
    use super::*;

    /// Weights whose filters differ in scale by up to a factor 4, from a small generator.
    fn weights(shape: [usize; 4], seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let scales: Vec<f32> = (0..shape[0]).map(|_| 0.25 + 0.75 * next()).collect();
        let each = shape[1..].iter().product::<usize>();
        (0..shape.iter().product()).map(|k| (next() - 0.5) * scales[k / each]).collect()
    }

    #[test]
    fn weights_tell_the_block_size() {
        for block in SIZES {
            let mut graph = Graph::default();
            for (i, shape) in [[32, 16, 3, 3], [16, 3, 7, 7], [64, 32, 1, 1]].into_iter().enumerate() {
                let blocked = block_weights(&weights(shape, i as u64 + 1), shape, block);
                let constant = Some(Tensor::from_vec(&shape, blocked).unwrap());
                let w = graph.add_value(Value { constant, ..Value::default() });
                graph.nodes.push(Node {
                    name: String::new(),
                    domain: DOMAIN.into(),
                    op: "Conv".into(),
                    version: 1,
                    inputs: vec![None, Some(w)],
                    outputs: vec![],
                    attributes: Attributes::default(),
                });
            }
            annotate(&mut graph).unwrap();
            for node in &graph.nodes {
                let found = crate::attributes::int(node, BLOCK).unwrap();
                assert_eq!(found, Some(block as i64));
            }
        }
    }

    /// A network of one convolution.
    fn network(domain: &str, w: Vec<f32>, shape: [usize; 4]) -> Graph {
        let mut graph = Graph::default();
        let constant = Some(Tensor::from_vec(&shape, w).unwrap());
        let w = graph.add_value(Value { constant, ..Value::default() });
        graph.nodes.push(Node {
            name: String::new(),
            domain: domain.into(),
            op: "Conv".into(),
            version: 1,
            inputs: vec![None, Some(w)],
            outputs: vec![],
            attributes: Attributes::default(),
        });
        graph
    }

    #[test]
    fn the_other_model_tells_the_block_size_where_nothing_else_does() {
        for (block, shape) in
            SIZES.into_iter().flat_map(|b| [[48, 3, 4, 4], [32, 16, 3, 3], [16, 1, 3, 3]].map(|s| (b, s)))
        {
            let plain = weights([1, shape[0] * shape[1], shape[2], shape[3]], 5);
            let each = shape[1..].iter().product::<usize>();
            // A norm folded into the one, and in one case channels that fill the last block up.
            let folded =
                plain.iter().enumerate().map(|(i, w)| w * (1.0 + (i / each) as f32)).collect::<Vec<_>>();
            let mut kept = shape;
            kept[0] -= 4;
            let other = network("", plain[..kept.iter().product()].to_vec(), kept);
            for stored in [block_weights(&plain, shape, block), block_weights(&folded, shape, block)] {
                let mut graph = network(DOMAIN, stored, shape);
                annotate(&mut graph).unwrap();
                settle(&mut graph, &other).unwrap();
                let found = crate::attributes::int(&graph.nodes[0], BLOCK).unwrap();
                assert_eq!(found, Some(block as i64), "{shape:?}");
                // Blocked on both sides: what is known of the one holds for the other.
                let mut again = network(DOMAIN, block_weights(&plain, shape, block), shape);
                settle(&mut again, &graph).unwrap();
                let found = crate::attributes::int(&again.nodes[0], BLOCK).unwrap();
                assert_eq!(found, Some(block as i64), "{shape:?} beside another");
            }
        }
    }

    #[test]
    fn channels_tell_that_blocks_are_wide() {
        // What a convolution reads (plain, or put into blocks), its weights, how many channels are kept of what it writes.
        let cases = [
            (false, [16, 16, 1, 1], 8, true),
            (false, [16, 16, 1, 1], 16, false),
            (false, [16, 16, 1, 1], 9, false),
            (true, [16, 8, 3, 3], 16, true),
            (true, [16, 3, 7, 7], 16, false),
            (false, [32, 32, 1, 1], 20, true),
        ];
        for (plain, shape, channels, wide) in cases {
            let mut graph = network(DOMAIN, weights(shape, 3), shape);
            let [x, inside, y, out] = [0; 4].map(|_| graph.add_value(Value::default()));
            let conv = &mut graph.nodes[0];
            conv.inputs[0] = Some(if plain { x } else { inside });
            conv.outputs = vec![Some(y)];
            let reorder = |op: &str, from, to, channels: i64| Node {
                op: op.into(),
                inputs: vec![Some(from)],
                outputs: vec![Some(to)],
                attributes: [("channels".to_owned(), Attribute::Int(channels))].into_iter().collect(),
                ..conv.clone()
            };
            let (before, behind) =
                (reorder("ReorderInput", x, inside, 0), reorder("ReorderOutput", y, out, channels));
            graph.nodes.insert(0, before);
            graph.nodes.push(behind);
            assert_eq!(are_wide(&graph), wide, "{plain} {shape:?} {channels}");
        }
    }

    #[test]
    fn weights_of_one_scale_mean_16() {
        for (i, shape) in [[64, 64, 3, 3], [256, 64, 1, 1], [512, 512, 1, 1]].into_iter().enumerate() {
            let flat = weights([1, shape[0] * shape[1], shape[2], shape[3]], i as u64 + 9);
            assert_eq!(block_of(&Tensor::from_vec(&shape, flat).unwrap()).unwrap(), 16, "{shape:?}");
        }
    }

    #[test]
    fn shapes_that_are_no_multiple_of_16_mean_8() {
        let w = Tensor::full(&[24, 8, 1, 1], 1f32).unwrap();
        assert_eq!(block_of(&w).unwrap(), 8);
        assert!(block_of(&Tensor::full(&[20, 8, 1, 1], 1f32).unwrap()).is_err());
    }
}
