//! Sequences as the tensors they hold.
//!
//! Exporters write a list of tensors as a sequence where the list's length is no attribute of an operator: a split into
//! parts of one size, a list that a loop unrolled, a list to which a loop appends. Mostly the sequence is only a manner of
//! speaking: `SequenceAt` of a split is a slice, `ConcatFromSequence` of a list a concat, and what a loop appends once a
//! turn is one of its scan outputs, a tensor with one row for each turn. Bodies see the sequences around them.
//! A graph in which one sequence is not of these is left as it is, and its operators are named as unsupported when it
//! is run.

use isotrace_graph::{Attribute, Attributes, Graph, Node, Value, ValueId};
use isotrace_tensor::Tensor;
use rustc_hash::FxHashMap;

/// The operator set whose forms are written: the first in which a Reshape takes a zero at its word.
const WRITTEN: i64 = 14;

/// Elements that all lists of a graph may hold together: each insertion is a list of its own, and a file may have a
/// million of them.
const MOST_HELD: usize = 1 << 22;

/// What a sequence holds.
#[derive(Clone)]
enum Sequence {
    List(Vec<ValueId>),
    /// Parts of a tensor along an axis.
    Parts {
        of: ValueId,
        axis: i64,
        each: Each,
    },
}

#[derive(Clone, Copy)]
enum Each {
    /// One element along the axis, which goes.
    Element,
    /// This many elements; the last part may be shorter.
    Run(i64),
}

/// Replaces sequences by what they hold, in a graph in execution order and in its bodies.
pub fn resolve(graph: &mut Graph) {
    if speaks(graph) {
        let mut work = Work { graph: graph.clone(), ..Work::default() };
        if work.rewrite().is_some() {
            *graph = work.graph;
        }
    }
}

/// Whether a graph or a body in it works on sequences.
fn speaks(graph: &Graph) -> bool {
    let of_sequences =
        |n: &Node| n.domain.is_empty() && n.op.contains("Sequence") && n.op != "ReverseSequence";
    graph.nodes.iter().any(|n| of_sequences(n) || n.bodies().any(speaks))
}

#[derive(Default)]
struct Work {
    graph: Graph,
    sequences: FxHashMap<ValueId, Sequence>,
    /// What the graph's nodes for constants write.
    constants: FxHashMap<ValueId, Tensor>,
    /// Elements of all lists.
    held: usize,
}

impl Work {
    fn rewrite(&mut self) -> Option<()> {
        for mut node in std::mem::take(&mut self.graph.nodes) {
            if node.domain.is_empty() && node.op == "Loop" {
                self.appended(&mut node)?;
            }
            self.bodies(&mut node)?;
            if node.domain.is_empty() && self.sequence(&node)? {
                continue;
            }
            // Nobody else knows what to do with a sequence.
            if node.reads().any(|v| self.sequences.contains_key(&v)) {
                return None;
            }
            if node.op == "Constant" && node.domain.is_empty() {
                let value = node.attributes.get("value").or(node.attributes.get("value_int"));
                let tensor = match value {
                    Some(Attribute::Tensor(tensor)) => Some(tensor.clone()),
                    Some(Attribute::Int(i)) => Some(Tensor::scalar(*i)),
                    _ => None,
                };
                self.constants.extend(node.writes().next().zip(tensor));
            }
            self.graph.nodes.push(node);
        }
        self.graph.outputs.iter().all(|v| !self.sequences.contains_key(v)).then_some(())
    }

    /// Whether a node was one on sequences; `None` where what it does is not known before it is run.
    fn sequence(&mut self, node: &Node) -> Option<bool> {
        let read = |slot: usize| node.inputs.get(slot).copied().flatten();
        let of = |work: &Self| work.sequences.get(&read(0)?).cloned();
        let whole = |name: &str, default: i64| match node.attributes.get(name) {
            Some(Attribute::Int(i)) => *i,
            _ => default,
        };
        let made = match node.op.as_str() {
            "SequenceConstruct" => Sequence::List(node.reads().collect()),
            "SequenceEmpty" => Sequence::List(Vec::new()),
            "SequenceInsert" => {
                let Sequence::List(mut list) = of(self)? else { return None };
                let at = self.place(read(2), list.len() + 1)?;
                list.insert(at, read(1)?);
                Sequence::List(list)
            }
            "SequenceErase" => {
                let Sequence::List(mut list) = of(self)? else { return None };
                let at = self.place(read(1), list.len())?;
                list.remove(at);
                Sequence::List(list)
            }
            "SplitToSequence" => {
                let (tensor, axis) = (read(0)?, whole("axis", 0));
                match read(1) {
                    None if whole("keepdims", 1) == 0 => {
                        Sequence::Parts { of: tensor, axis, each: Each::Element }
                    }
                    None => Sequence::Parts { of: tensor, axis, each: Each::Run(1) },
                    Some(split) => {
                        let sizes = self.constant(split)?;
                        match (sizes.rank(), sizes.to_i64().ok()?.first()) {
                            // PyTorch writes `unbind` so, and ONNX Runtime reads it so; by the letter the axis would stay.
                            (0, Some(1)) if whole("keepdims", 1) == 0 => {
                                Sequence::Parts { of: tensor, axis, each: Each::Element }
                            }
                            (0, Some(&size)) => Sequence::Parts { of: tensor, axis, each: Each::Run(size) },
                            (1, Some(_)) => Sequence::List(self.split(node, tensor, axis, &sizes)?),
                            _ => return None,
                        }
                    }
                }
            }
            "SequenceLength" => {
                let list = match of(self)? {
                    Sequence::List(list) => list,
                    Sequence::Parts { of, axis, each: Each::Element | Each::Run(1) } => {
                        let shape = self.emit(node, "Shape", vec![of], Vec::new());
                        let axis = self.number_at(node, axis);
                        self.put(node, "Gather", vec![shape, axis], Vec::new());
                        return Some(true);
                    }
                    Sequence::Parts { .. } => return None,
                };
                let length = Tensor::scalar(list.len() as i64);
                self.constants.extend(node.writes().next().map(|v| (v, length.clone())));
                self.put(node, "Constant", Vec::new(), vec![("value", Attribute::Tensor(length))]);
                return Some(true);
            }
            "SequenceAt" => {
                self.at(node, &of(self)?, read(1)?)?;
                return Some(true);
            }
            "ConcatFromSequence" => {
                self.joined(node, of(self)?, whole("axis", 0), whole("new_axis", 0) != 0)?;
                return Some(true);
            }
            _ => return Some(false),
        };
        if let Sequence::List(list) = &made {
            self.hold(list.len())?;
        }
        self.sequences.insert(node.writes().next()?, made);
        Some(true)
    }

    /// Counts elements that are held; `None` where they become too many.
    fn hold(&mut self, more: usize) -> Option<()> {
        self.held = self.held.checked_add(more)?;
        (self.held <= MOST_HELD).then_some(())
    }

    /// One element of a sequence.
    fn at(&mut self, node: &Node, sequence: &Sequence, place: ValueId) -> Option<()> {
        match sequence {
            Sequence::List(list) => {
                let at = self.place(Some(place), list.len())?;
                self.put(node, "Identity", vec![*list.get(at)?], Vec::new());
            }
            Sequence::Parts { of, axis, each: Each::Element } => {
                self.put(node, "Gather", vec![*of, place], vec![("axis", Attribute::Int(*axis))]);
            }
            Sequence::Parts { of, axis, each: Each::Run(1) } => {
                let one = self.integers(node, &[1]);
                let places = self.emit(node, "Reshape", vec![place, one], Vec::new());
                self.put(node, "Gather", vec![*of, places], vec![("axis", Attribute::Int(*axis))]);
            }
            Sequence::Parts { of, axis, each: Each::Run(size) } => {
                // From the end on no part begins where its size says.
                let at = self.number(place)?;
                if at < 0 {
                    return None;
                }
                let (start, end) = (at.checked_mul(*size)?, (at + 1).checked_mul(*size)?);
                let bounds = [start, end, *axis].map(|i| self.integers(node, &[i]));
                self.put(node, "Slice", [&[*of][..], &bounds].concat(), Vec::new());
            }
        }
        Some(())
    }

    /// All elements of a sequence along an axis, which may be a new one.
    fn joined(&mut self, node: &Node, sequence: Sequence, axis: i64, new: bool) -> Option<()> {
        let along = vec![("axis", Attribute::Int(axis))];
        match sequence {
            Sequence::List(list) if new => {
                let axes = self.integers(node, &[axis]);
                let rows =
                    list.iter().map(|&v| self.emit(node, "Unsqueeze", vec![v, axes], Vec::new())).collect();
                self.put(node, "Concat", rows, along);
            }
            Sequence::List(list) => self.put(node, "Concat", list, along),
            Sequence::Parts { of, axis: cut, each: Each::Run(_) } if cut == axis && !new => {
                self.put(node, "Identity", vec![of], Vec::new());
            }
            Sequence::Parts { of, axis: cut, each: Each::Element } if cut == axis && new => {
                self.put(node, "Identity", vec![of], Vec::new());
            }
            Sequence::Parts { of, axis: 0, each: Each::Element } => self.merged(node, of, axis, new),
            Sequence::Parts { .. } => return None,
        }
        Some(())
    }

    /// The rows of a tensor side by side along one of their axes, or along a new one. How many axes they have is not known
    /// here, so those in front of it are taken together, and those behind: `[T, F, B]` becomes `[F, T, B]`.
    fn merged(&mut self, node: &Node, of: ValueId, axis: i64, new: bool) {
        let shape = self.emit(node, "Shape", vec![of], Vec::new());
        let part = |work: &mut Self, from: i64, to: i64| {
            let bounds = [from, to, 0].map(|i| work.integers(node, &[i]));
            work.emit(node, "Slice", [&[shape][..], &bounds].concat(), Vec::new())
        };
        // The axis counted among those of the whole; of a new one, the first axis behind it, of which there may be none.
        let at = match axis {
            0.. => axis + 1,
            -1 if new => i64::MAX,
            _ if new => axis + 1,
            _ => axis,
        };
        let (turns, front, back) = (part(self, 0, 1), part(self, 1, at), part(self, at, i64::MAX));
        let kept = || vec![("keepdims", Attribute::Int(1))];
        let [f, b] = [front, back].map(|part| self.emit(node, "ReduceProd", vec![part], kept()));
        let along = || vec![("axis", Attribute::Int(0))];
        let exact = || vec![("allowzero", Attribute::Int(1))];
        let grouped = self.emit(node, "Concat", vec![turns, f, b], along());
        let rows = self.emit(node, "Reshape", vec![of, grouped], exact());
        let turned = self.emit(node, "Transpose", vec![rows], vec![("perm", Attribute::Ints(vec![1, 0, 2]))]);
        let last = if new {
            vec![front, turns, back]
        } else {
            let end = if at == -1 { i64::MAX } else { at + 1 };
            let (along, behind) = (part(self, at, end), part(self, end, i64::MAX));
            vec![front, self.emit(node, "Mul", vec![turns, along], Vec::new()), behind]
        };
        let shape = self.emit(node, "Concat", last, along());
        self.put(node, "Reshape", vec![turned, shape], exact());
    }

    /// Lists that are empty before a loop and to which each turn appends one tensor, as scan outputs.
    fn appended(&mut self, node: &mut Node) -> Option<()> {
        // In front of what is carried stand the number of turns and the condition.
        for slot in (2..node.inputs.len()).rev() {
            let Some(list) = node.inputs[slot].and_then(|v| self.sequences.get(&v)) else { continue };
            if !matches!(list, Sequence::List(list) if list.is_empty()) {
                return None;
            }
            let Some(Attribute::Graph(body)) = node.attributes.get_mut("body") else { return None };
            let (before, after) = (*body.inputs.get(slot)?, *body.outputs.get(slot - 1)?);
            let appends = |n: &Node| {
                let last = n.inputs.len() < 3 || n.inputs[2].is_none();
                n.domain.is_empty() && n.op == "SequenceInsert" && last && n.writes().eq([after])
            };
            let at = body.nodes.iter().position(appends)?;
            let reads = |v: ValueId| {
                let read = body.nodes.iter().flat_map(Node::reads).chain(body.outputs.iter().copied());
                read.filter(|r| *r == v).count()
            };
            let &[Some(first), Some(tensor), ..] = &body.nodes[at].inputs[..] else { return None };
            let others = body.outputs.len() - 2;
            if first != before || reads(before) != 1 || reads(after) != 1 || node.outputs.len() > others + 1 {
                return None;
            }
            let writer = &mut body.nodes[at];
            (writer.op, writer.version, writer.inputs) = ("Identity".to_owned(), WRITTEN, vec![Some(tensor)]);
            body.inputs.remove(slot);
            body.outputs.remove(slot - 1);
            body.outputs.push(after);
            node.inputs.remove(slot);
            let list = (slot - 2 < node.outputs.len()).then(|| node.outputs.remove(slot - 2)).flatten();
            let rows = self.fresh(node);
            node.outputs.resize(others, None);
            node.outputs.push(Some(rows));
            if let Some(list) = list {
                self.sequences.insert(list, Sequence::Parts { of: rows, axis: 0, each: Each::Element });
            }
        }
        Some(())
    }

    /// Replaces the sequences in a node's bodies, which may be some of those here.
    fn bodies(&mut self, node: &mut Node) -> Option<()> {
        for attribute in node.attributes.values_mut() {
            let bodies = match attribute {
                Attribute::Graph(body) => std::slice::from_mut(&mut **body),
                Attribute::Graphs(bodies) => &mut bodies[..],
                _ => continue,
            };
            for body in bodies {
                let (sequences, constants) = self.lent(body);
                if !sequences.is_empty() || speaks(body) {
                    let mut inner =
                        Self { graph: std::mem::take(body), sequences, constants, held: self.held };
                    inner.rewrite()?;
                    (*body, self.held) = (inner.graph, inner.held);
                }
            }
        }
        Some(())
    }

    /// What a body captures of sequences and constants, as its own. It captures what a sequence holds in its place.
    fn lent(&self, body: &mut Graph) -> (FxHashMap<ValueId, Sequence>, FxHashMap<ValueId, Tensor>) {
        let (mut sequences, mut constants) = (FxHashMap::default(), FxHashMap::default());
        for (outer, inner) in std::mem::take(&mut body.captures) {
            let Some(sequence) = self.sequences.get(&outer) else {
                constants.extend(self.constant(outer).map(|tensor| (inner, tensor)));
                body.captures.push((outer, inner));
                continue;
            };
            let mut bring = |v: ValueId| {
                let copy = Value { constant: None, ..self.graph.value(v).clone() };
                let id = body.add_value(copy);
                body.captures.push((v, id));
                id
            };
            let sequence = match sequence {
                Sequence::List(list) => Sequence::List(list.iter().copied().map(&mut bring).collect()),
                Sequence::Parts { of, axis, each } => {
                    Sequence::Parts { of: bring(*of), axis: *axis, each: *each }
                }
            };
            sequences.insert(inner, sequence);
        }
        (sequences, constants)
    }

    /// A tensor's parts of known sizes.
    fn split(&mut self, node: &Node, of: ValueId, axis: i64, sizes: &Tensor) -> Option<Vec<ValueId>> {
        let sizes = sizes.to_i64().ok()?.into_owned();
        self.hold(sizes.len())?;
        let read = self.integers(node, &sizes);
        let parts: Vec<ValueId> = sizes.iter().map(|_| self.fresh(node)).collect();
        let outputs = parts.iter().copied().map(Some).collect();
        self.push(node, "Split", vec![of, read], outputs, vec![("axis", Attribute::Int(axis))]);
        Some(parts)
    }

    fn constant(&self, v: ValueId) -> Option<Tensor> {
        if let Some(constant) = &self.graph.value(v).constant {
            return Some(constant.clone());
        }
        self.constants.get(&v).cloned()
    }

    fn number(&self, v: ValueId) -> Option<i64> {
        let tensor = self.constant(v)?;
        let numbers = tensor.to_i64().ok()?;
        (numbers.len() == 1).then(|| numbers[0])
    }

    /// A place below `length`, counted from the end where it is negative; the last one where none is given.
    fn place(&self, v: Option<ValueId>, length: usize) -> Option<usize> {
        let at = v.map_or(Some(-1), |v| self.number(v))?;
        let from = if at < 0 { at.checked_add(length as i64)? } else { at };
        usize::try_from(from).ok().filter(|&at| at < length)
    }

    fn fresh(&mut self, node: &Node) -> ValueId {
        let base = node.writes().next().map_or("", |v| self.graph.value(v).name.as_str());
        let name = format!("{base}/{}", self.graph.values.len());
        self.graph.add_value(Value { name, ..Value::default() })
    }

    fn integers(&mut self, node: &Node, numbers: &[i64]) -> ValueId {
        let v = self.fresh(node);
        self.graph.values[v.index()].constant = Some(Tensor::vector(numbers.to_vec()));
        v
    }

    fn number_at(&mut self, node: &Node, number: i64) -> ValueId {
        let v = self.fresh(node);
        self.graph.values[v.index()].constant = Some(Tensor::scalar(number));
        v
    }

    /// A call beside `node` with an output of its own.
    fn emit(&mut self, node: &Node, op: &str, inputs: Vec<ValueId>, set: Vec<(&str, Attribute)>) -> ValueId {
        let v = self.fresh(node);
        self.push(node, op, inputs, vec![Some(v)], set);
        v
    }

    /// A call in the place of `node`, which writes what it wrote.
    fn put(&mut self, node: &Node, op: &str, inputs: Vec<ValueId>, set: Vec<(&str, Attribute)>) {
        self.push(node, op, inputs, node.outputs.clone(), set);
    }

    fn push(
        &mut self,
        node: &Node,
        op: &str,
        inputs: Vec<ValueId>,
        outputs: Vec<Option<ValueId>>,
        set: Vec<(&str, Attribute)>,
    ) {
        let attributes: Attributes = set.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        self.graph.nodes.push(Node {
            name: node.name.clone(),
            domain: String::new(),
            op: op.to_owned(),
            version: WRITTEN,
            inputs: inputs.into_iter().map(Some).collect(),
            outputs,
            attributes,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: &[(&str, &[&str], &str, i64)]) -> Graph {
        let mut graph = Graph::default();
        let mut names: FxHashMap<String, ValueId> = FxHashMap::default();
        let mut value = |graph: &mut Graph, name: &str| {
            *names.entry(name.to_owned()).or_insert_with(|| {
                let constant = name.parse().ok().map(Tensor::scalar::<i64>);
                graph.add_value(Value { name: name.to_owned(), constant, ..Value::default() })
            })
        };
        for &(op, inputs, output, axis) in nodes {
            let inputs = inputs.iter().map(|i| Some(value(&mut graph, i))).collect();
            let outputs = vec![Some(value(&mut graph, output))];
            let attributes = [("axis".to_owned(), Attribute::Int(axis))].into_iter().collect();
            let (name, domain) = (output.to_owned(), String::new());
            graph.nodes.push(Node { name, domain, op: op.into(), version: 17, inputs, outputs, attributes });
        }
        let last = value(&mut graph, nodes.last().unwrap().2);
        graph.outputs.push(last);
        graph
    }

    fn ops(nodes: &[(&str, &[&str], &str, i64)]) -> Vec<String> {
        let mut graph = graph(nodes);
        resolve(&mut graph);
        graph.nodes.iter().map(|n| n.op.clone()).collect()
    }

    #[test]
    fn what_is_known_is_no_sequence() {
        let split = ("SplitToSequence", &["x", "4"][..], "s", 1);
        assert_eq!(ops(&[split, ("SequenceAt", &["s", "2"], "y", 0)]), ["Slice"]);
        assert_eq!(ops(&[split, ("ConcatFromSequence", &["s"], "y", 1)]), ["Identity"]);
        let list = ("SequenceConstruct", &["a", "b", "c"][..], "s", 0);
        assert_eq!(ops(&[list, ("SequenceAt", &["s", "-1"], "y", 0)]), ["Identity"]);
        assert_eq!(ops(&[list, ("ConcatFromSequence", &["s"], "y", 1)]), ["Concat"]);
        assert_eq!(
            ops(&[
                ("SequenceEmpty", &[], "none", 0),
                ("SequenceInsert", &["none", "a"], "one", 0),
                ("SequenceInsert", &["one", "b", "0"], "two", 0),
                ("SequenceErase", &["two", "1"], "left", 0),
                ("SequenceLength", &["left"], "n", 0),
                ("SequenceAt", &["left", "0"], "y", 0),
            ]),
            ["Constant", "Identity"]
        );
    }

    #[test]
    fn lists_without_end_are_left_alone() {
        // Each insertion makes a list of its own: together they would hold half of the square of their number.
        let names: Vec<String> = (0..4000).map(|i| format!("s{i}")).collect();
        let mut nodes: Vec<(&str, Vec<&str>, &str, i64)> =
            vec![("SequenceConstruct", vec!["a"], &names[0], 0)];
        nodes
            .extend(names.windows(2).map(|w| ("SequenceInsert", vec![w[0].as_str(), "a"], w[1].as_str(), 0)));
        nodes.push(("ConcatFromSequence", vec![&names[3999]], "y", 0));
        let lent: Vec<(&str, &[&str], &str, i64)> = nodes.iter().map(|n| (n.0, &n.1[..], n.2, n.3)).collect();
        assert_eq!(ops(&lent).len(), lent.len());
        let short = [lent[0], ("ConcatFromSequence", &["s0"][..], "y", 0)];
        assert_eq!(ops(&short), ["Concat"]);
    }

    #[test]
    fn what_is_not_known_is_left_alone() {
        let split = ("SplitToSequence", &["x", "4"][..], "s", 1);
        for last in [
            ("SequenceAt", &["s", "i"][..], "y", 0),
            ("SequenceAt", &["s", "-1"], "y", 0),
            ("SequenceLength", &["s"], "y", 0),
            ("ConcatFromSequence", &["s"], "y", 0),
            ("SequenceMap", &["s"], "y", 0),
        ] {
            assert_eq!(ops(&[split, last]), ["SplitToSequence", last.0], "{last:?}");
        }
        assert_eq!(ops(&[split]), ["SplitToSequence"], "a sequence as an output");
        assert_eq!(ops(&[("SequenceEmpty", &[], "s", 0), ("SequenceAt", &["s", "0"], "y", 0)]).len(), 2);
    }
}
