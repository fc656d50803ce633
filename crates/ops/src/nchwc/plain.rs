//! A network of blocked operators in plain order: its weights put in order once, and no channels that do nothing but fill
//! a block up.
//!
//! The optimiser fills channels up to whole blocks with zeros, in weights and so in values, and the file does not say how
//! many there were. All values that are read and written channel by channel together have as many channels; what is
//! known of any of them holds for all: `ReorderOutput` names the number, and what is filled up is nothing but zeros on
//! both sides, in the filters that write and in the columns that read. Values that reach an operator of which that cannot
//! be said (a view of the memory, a concatenation) keep what the block was filled up to.
//!
//! A channel that no filter writes and none reads may be taken for filling. It changes no other channel.

use isotrace_graph::{Attribute, Graph, Node, NodeId, ValueId};
use isotrace_tensor::Tensor;
use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::{BLOCK, DOMAIN, Lies, SIZES, lies, weights_in_order};
use crate::{Flow, OpError, attributes};

/// The attribute of convolutions whose weights are in plain order.
pub const PLAIN: &str = "isotrace_plain";

/// The attribute of a `ReorderInput` that says how many channels it hands on.
pub const CHANNELS: &str = "isotrace_channels";

/// For each value of a graph how many channels it has without what fills its last block up; `None` where it is not blocked or
/// keeps all of them.
pub type Channels = Vec<Option<usize>>;

/// Puts a graph whose block size is [known](super::annotate) in plain order.
pub fn plain(graph: &mut Graph) -> Result<Channels, OpError> {
    if graph.nodes.iter().all(|n| n.domain != DOMAIN) {
        return Ok(vec![None; graph.values.len()]);
    }
    let convs = convolutions(graph);
    let mut classes = Classes::new(graph, &convs);
    let channels: Channels = graph.value_ids().map(|v| classes.channels(v)).collect();
    let readers = graph.consumers();
    let mut made = FxHashMap::default();
    for (id, conv) in convs {
        let at = |slot: usize| graph.node(id).inputs.get(slot).copied().flatten();
        let (Some(weights), Some(output)) = (at(1), graph.node(id).writes().next()) else { continue };
        let (bias, read) = (at(2), at(0).and_then(|v| channels[v.index()]));
        let filters = channels[output.index()].unwrap_or(conv.filters);
        let columns = if conv.whole() { read.unwrap_or(conv.columns) } else { conv.columns };
        let cut = conv.weights.slice(0, 0, filters)?.slice(1, 0, columns)?;
        let bias = match bias {
            Some(v) => match &graph.value(v).constant {
                Some(b) => Some((v, b.slice(0, 0, filters)?)),
                None => None,
            },
            None => None,
        };
        let mut put = |graph: &mut Graph, slot: usize, v: ValueId, tensor: Tensor| {
            // A constant with other readers stays theirs.
            let own = if readers[v.index()].len() == 1 {
                v
            } else {
                *made.entry((v, filters, columns)).or_insert_with(|| {
                    let value = graph.value(v).clone();
                    graph.add_value(value)
                })
            };
            graph.values[own.index()].constant = Some(tensor);
            graph.nodes[id.index()].inputs[slot] = Some(own);
        };
        put(graph, 1, weights, cut);
        if let Some((v, bias)) = bias {
            put(graph, 2, v, bias);
        }
        let settings = &mut graph.nodes[id.index()].attributes;
        settings.insert(PLAIN.into(), Attribute::Int(1));
        if conv.by_channel() {
            settings.insert("group".into(), Attribute::Int(filters as i64));
        }
    }
    for node in graph.nodes.iter_mut().filter(|n| n.domain == DOMAIN && n.op == "ReorderInput") {
        let handed_on = node.writes().next().and_then(|v| channels[v.index()]);
        if let Some(channels) = handed_on {
            node.attributes.insert(CHANNELS.into(), Attribute::Int(channels as i64));
        }
    }
    Ok(channels)
}

/// A convolution's weights in plain order, filled up.
struct Conv {
    weights: Tensor,
    filters: usize,
    columns: usize,
    groups: usize,
    block: usize,
    /// Filters and columns up to the last that holds anything but zeros.
    used: [usize; 2],
}

impl Conv {
    /// Those of a node; `None` where they are no constant or not made of blocks.
    fn of(graph: &Graph, node: &Node) -> Option<Self> {
        let number = |name: &str| usize::try_from(attributes::int(node, name).ok()??).ok();
        let constant = |slot: usize| Some(node.inputs.get(slot).copied().flatten().map(|v| graph.value(v)));
        let stored = constant(1)??.constant.as_ref()?;
        let bias = constant(2)?.map(|v| v.constant.as_ref());
        let (block, groups) = (number(BLOCK)?, number("group").unwrap_or(1));
        let &[filters, columns, ..] = stored.shape() else { return None };
        // A bias that is computed may be anything where there are no weights.
        let bias = match bias {
            Some(known) => Some(known?.to_f64().ok()?),
            None => None,
        };
        let weights = weights_in_order(stored, block).ok()?;
        let numbers = weights.to_f64().ok()?;
        let taps = numbers.len() / (filters * columns).max(1);
        let is_used = |f: usize, c: usize| {
            let at = (f * columns + c) * taps;
            numbers[at..at + taps].iter().any(|x| *x != 0.0)
        };
        let biased = |f: usize| bias.as_ref().is_some_and(|b| b.get(f).is_some_and(|x| *x != 0.0));
        let filter = (0..filters).rev().find(|&f| biased(f) || (0..columns).any(|c| is_used(f, c)));
        let column = (0..columns).rev().find(|&c| (0..filters).any(|f| is_used(f, c)));
        let used = [filter, column].map(|last| last.map_or(0, |at| at + 1));
        drop(numbers);
        Some(Self { weights, filters, columns, groups, block, used })
    }

    /// Whether each filter reads every channel.
    fn whole(&self) -> bool {
        self.groups == 1
    }

    /// Whether each filter reads the channel of its own number.
    fn by_channel(&self) -> bool {
        self.columns == 1 && self.groups == self.filters && self.groups > 1
    }
}

/// Every convolution that can be put in order.
fn convolutions(graph: &Graph) -> Vec<(NodeId, Conv)> {
    let blocked = |id: &NodeId| {
        let node = graph.node(*id);
        node.domain == DOMAIN && node.op == "Conv"
    };
    let ids: Vec<NodeId> = graph.node_ids().filter(blocked).collect();
    ids.into_par_iter().filter_map(|id| Some((id, Conv::of(graph, graph.node(id))?))).collect()
}

/// What is known of the channels of values that have as many.
#[derive(Debug, Clone, Copy)]
struct Class {
    /// What blocks were filled up to; nought where nobody says so.
    filled: usize,
    block: usize,
    /// Channels that hold something.
    used: usize,
    /// How many `ReorderOutput` keeps.
    kept: Option<usize>,
    /// Whether what fills up has to stay.
    stays: bool,
}

/// Values by classes of as many channels each: a forest whose roots tell.
struct Classes {
    parents: Vec<usize>,
    known: Vec<Class>,
    blocked: Vec<bool>,
}

impl Classes {
    fn new(graph: &Graph, convs: &[(NodeId, Conv)]) -> Self {
        let block = convs.first().map_or(SIZES[0], |(_, conv)| conv.block);
        let (lies, _) = lies(graph, block);
        let blank = Class { filled: 0, block, used: 0, kept: None, stays: false };
        let mut classes = Self {
            parents: (0..lies.len()).collect(),
            known: vec![blank; lies.len()],
            blocked: lies.iter().map(|how| *how != Lies::Plain).collect(),
        };
        let convs: FxHashMap<NodeId, &Conv> = convs.iter().map(|(id, conv)| (*id, conv)).collect();
        for id in graph.node_ids() {
            classes.read(graph, id, convs.get(&id).copied());
        }
        let captured = graph.nodes.iter().flat_map(Node::bodies).flat_map(|body| &body.captures);
        for &v in graph.outputs.iter().chain(captured.map(|(outer, _)| outer)) {
            classes.stay(v);
        }
        classes
    }

    fn read(&mut self, graph: &Graph, id: NodeId, conv: Option<&Conv>) {
        let node = graph.node(id);
        let at = |slot: usize| node.inputs.get(slot).copied().flatten();
        let blocked = |v: &ValueId| self.blocked[v.index()];
        let all: Vec<ValueId> = node.reads().chain(node.writes()).filter(blocked).collect();
        match (node.domain.as_str(), node.op.as_str(), conv) {
            (DOMAIN, "Conv", Some(conv)) => {
                let Some(y) = node.writes().next() else { return };
                let [filters, columns] = conv.used;
                let filters = if conv.whole() || conv.by_channel() { filters } else { conv.filters };
                self.tell(y, conv.filters, filters);
                if let Some(sum) = at(3) {
                    self.join(y, sum);
                }
                match at(0).filter(|x| self.blocked[x.index()]) {
                    Some(x) if conv.by_channel() => self.join(x, y),
                    Some(x) if conv.whole() => self.tell(x, conv.columns, columns),
                    Some(x) => self.tell(x, conv.columns * conv.groups, conv.columns * conv.groups),
                    None => {}
                }
            }
            (DOMAIN, "Conv", None) => all.into_iter().for_each(|v| self.stay(v)),
            (DOMAIN, "ReorderInput", _) => {}
            (DOMAIN, "ReorderOutput", _) => {
                let channels = attributes::int(node, "channels").ok().flatten();
                match (at(0), channels.and_then(|c| usize::try_from(c).ok())) {
                    (Some(x), Some(channels)) => self.keep(x, channels),
                    (Some(x), None) => self.stay(x),
                    _ => {}
                }
            }
            _ if all.is_empty() => {}
            _ => {
                // Pools and what works element by element treat every channel alike.
                let alike = node.domain == DOMAIN
                    || crate::build(node).is_ok_and(|op| op.flow() == Flow::Elementwise);
                let scalar = |v: ValueId| {
                    graph.value(v).constant.as_ref().is_some_and(|t| t.len() == 1 && t.rank() <= 1)
                };
                let known =
                    node.reads().all(|v| self.blocked[v.index()] || scalar(v) || node.domain == DOMAIN);
                for &v in &all {
                    self.join(all[0], v);
                }
                if !alike || !known {
                    self.stay(all[0]);
                }
            }
        }
    }

    fn root(&mut self, v: ValueId) -> usize {
        let mut at = v.index();
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }

    fn join(&mut self, x: ValueId, y: ValueId) {
        let (into, from) = (self.root(x), self.root(y));
        if into == from {
            return;
        }
        self.parents[from] = into;
        let Class { filled, used, kept, stays, .. } = self.known[from];
        self.known[into].stays |= stays;
        if filled > 0 {
            self.tell(x, filled, used);
        }
        if let Some(kept) = kept {
            self.keep(x, kept);
        }
    }

    /// A convolution writes or reads `used` channels that were filled up to `filled`.
    fn tell(&mut self, v: ValueId, filled: usize, used: usize) {
        let at = self.root(v);
        let known = &mut self.known[at];
        known.stays |= known.filled != 0 && known.filled != filled;
        (known.filled, known.used) = (filled, known.used.max(used));
    }

    fn keep(&mut self, v: ValueId, kept: usize) {
        let at = self.root(v);
        let known = &mut self.known[at];
        known.stays |= known.kept.is_some_and(|other| other != kept);
        known.kept = Some(kept);
    }

    fn stay(&mut self, v: ValueId) {
        let at = self.root(v);
        self.known[at].stays = true;
    }

    fn channels(&mut self, v: ValueId) -> Option<usize> {
        if !self.blocked[v.index()] {
            return None;
        }
        let at = self.root(v);
        let Class { filled, block, used, kept, stays } = self.known[at];
        // No block is without a channel of its own.
        let fewest = filled.saturating_sub(block - 1).max(used).max(1);
        match kept {
            _ if stays => None,
            Some(kept) => (kept >= used && (filled == 0 || kept <= filled)).then_some(kept),
            None => (filled > 0).then_some(fewest),
        }
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::{Attributes, Value};

    use super::super::annotate;
    use super::super::tests::block_weights;
    use super::*;

    /// `ReorderInput`, a convolution of 16 by 16 of which `used` filters and columns are no zeros, `between`, `ReorderOutput`.
    fn network(used: [usize; 2], between: &str, kept: i64) -> Graph {
        let mut graph = Graph::default();
        let [x, inside, y, z, out] = [0; 5].map(|_| graph.add_value(Value::default()));
        let plain: Vec<f32> = (0..256)
            .map(|i| if i / 16 < used[0] && i % 16 < used[1] { 1.0 + i as f32 } else { 0.0 })
            .collect();
        let constant = |data: Vec<f32>, shape: &[usize]| Value {
            constant: Some(Tensor::from_vec(shape, data).unwrap()),
            ..Value::default()
        };
        let w = graph.add_value(constant(block_weights(&plain, [16, 16, 1, 1], 16), &[16, 16, 1, 1]));
        let b = graph.add_value(constant(vec![0.0; 16], &[16]));
        let joined: &[ValueId] = if between == "Concat" { &[y, y] } else { &[y] };
        for (domain, op, inputs, output, setting) in [
            (DOMAIN, "ReorderInput", &[x][..], inside, None),
            (DOMAIN, "Conv", &[inside, w, b], y, None),
            ("", between, joined, z, (between == "Concat").then_some(("axis", 1))),
            (DOMAIN, "ReorderOutput", &[z], out, Some(("channels", kept))),
        ] {
            let settings = setting.into_iter().chain([(BLOCK, 16)]);
            let attributes: Attributes =
                settings.map(|(name, n)| (name.to_owned(), Attribute::Int(n))).collect();
            graph.nodes.push(Node {
                name: String::new(),
                domain: domain.into(),
                op: op.into(),
                version: 18,
                inputs: inputs.iter().copied().map(Some).collect(),
                outputs: vec![Some(output)],
                attributes,
            });
        }
        graph
    }

    #[test]
    fn channels_that_only_fill_up_are_left_out() {
        // What is used of filters and columns, what follows, how many are kept; then the channels read and written.
        let cases = [
            ("as many as are used", [12, 10], "Relu", 12, Some(10), Some(12)),
            ("one that nothing writes is kept all the same", [12, 10], "Sigmoid", 13, Some(10), Some(13)),
            ("whole blocks", [16, 16], "Relu", 16, Some(16), Some(16)),
            ("no block is all filling", [12, 0], "Relu", 12, Some(1), Some(12)),
            ("fewer are kept than are written", [12, 10], "Relu", 9, Some(10), None),
            ("they are joined with others", [12, 10], "Concat", 32, Some(10), None),
        ];
        for (what, used, between, kept, read, written) in cases {
            let mut graph = network(used, between, kept);
            annotate(&mut graph).unwrap();
            let channels = plain(&mut graph).unwrap();
            assert_eq!((channels[1], channels[2]), (read, written), "{what}");
            let conv = &graph.nodes[1];
            let shape = |slot: usize| {
                graph.value(conv.inputs[slot].unwrap()).constant.as_ref().unwrap().shape().to_vec()
            };
            assert_eq!(shape(1), [written.unwrap_or(16), read.unwrap_or(16), 1, 1], "{what}");
            assert_eq!(shape(2), [written.unwrap_or(16)], "{what}");
            assert!(conv.attributes.contains_key(PLAIN));
            let w = graph
                .value(conv.inputs[1].unwrap())
                .constant
                .as_ref()
                .unwrap()
                .to_f64()
                .unwrap()
                .into_owned();
            assert_eq!(w[0], if used[1] > 0 { 1.0 } else { 0.0 }, "{what}");
        }
    }

    #[test]
    fn what_bodies_and_callers_see_keeps_its_filling() {
        let mut graph = network([12, 10], "Relu", 12);
        graph.outputs = vec![ValueId(2)];
        assert_eq!(plain(&mut graph).unwrap()[2], None);
        let mut graph = network([12, 10], "Relu", 12);
        let body = Graph { captures: vec![(ValueId(1), ValueId(0))], ..Graph::default() };
        let reader = Node {
            attributes: [("body".to_owned(), Attribute::Graph(Box::new(body)))].into_iter().collect(),
            domain: String::new(),
            op: "Loop".into(),
            ..graph.nodes[0].clone()
        };
        graph.nodes.push(Node { inputs: vec![], outputs: vec![], ..reader });
        let channels = plain(&mut graph).unwrap();
        assert_eq!((channels[1], channels[2]), (None, Some(12)));
    }
}
