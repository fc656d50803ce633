//! Loop, Scan and If, written out: their bodies once for each iteration that they really made, or the branch that they
//! really took.

use isotrace_graph::{Attribute, Graph, ValueId};
use isotrace_run::{Options, Plan};
use isotrace_tensor::{Bool, Tensor, normalise_axis};
use rustc_hash::FxHashMap;

use super::sheet::remapped;
use super::writer::Writer;

/// Most iterations that are written out: each is searched for faults of its own.
const MOST_TRIPS: usize = 512;

/// Places from here on are those of a body's nodes, the same in each iteration.
const IN_BODY: u32 = 1 << 16;

/// Whether an operator runs a body that can be written out.
pub fn is_written(op: &str) -> bool {
    matches!(op, "Loop" | "Scan" | "If")
}

/// Writes a node out.
pub fn write(writer: &mut Writer<'_>) -> Option<()> {
    match writer.node.op.as_str() {
        "Loop" => repeat(writer),
        "Scan" => scan(writer),
        "If" => choose(writer),
        _ => None,
    }
}

fn body<'w>(writer: &Writer<'w>, name: &str) -> Option<&'w Graph> {
    match writer.node.attributes.get(name)? {
        Attribute::Graph(body) => Some(body),
        _ => None,
    }
}

fn choose(writer: &mut Writer<'_>) -> Option<()> {
    let condition = truth(writer.tensor(writer.read(0)?)?)?;
    let branch = body(writer, if condition { "then_branch" } else { "else_branch" })?;
    let place =
        format!("the {} of {}", if condition { "then branch" } else { "else branch" }, writer.label());
    let mut copies = Copies::new(writer, branch);
    let outputs = copies.once(Vec::new(), &place)?;
    hand_on(writer, &outputs)
}

fn repeat(writer: &mut Writer<'_>) -> Option<()> {
    let inner = body(writer, "body")?;
    let most = match writer.read(0) {
        Some(v) => *writer.tensor(v)?.to_i64().ok()?.first()?,
        None => i64::MAX,
    };
    let mut go_on = writer.read(1).is_none_or(|v| writer.tensor(v).and_then(truth) == Some(true));
    let mut carried: Vec<ValueId> =
        (2..writer.node.inputs.len()).map(|i| writer.read(i)).collect::<Option<_>>()?;
    let mut held: Vec<Tensor> = carried.iter().map(|&v| writer.tensor(v).cloned()).collect::<Option<_>>()?;
    let alone = Alone::new(inner);
    let mut collected: Vec<Vec<ValueId>> = Vec::new();
    let mut trip = 0;
    let label = writer.label();
    let mut copies = Copies::new(writer, inner);
    while go_on && trip < most {
        if trip as usize == MOST_TRIPS {
            return None;
        }
        let (count, start) = (Tensor::scalar(trip), Tensor::scalar(Bool::from(true)));
        let mut feeds = vec![copies.writer.constant(count.clone()), copies.writer.constant(start.clone())];
        feeds.append(&mut carried);
        let mut given = vec![count, start];
        given.append(&mut held);
        let states = given.len() - 2;
        let mut made = alone.run(copies.writer, given)?;
        let mut outputs = copies.once(feeds, &iteration(&label, trip as usize))?;
        if outputs.len() != made.len() || outputs.len() <= states {
            return None;
        }
        let kept = outputs.split_off(1 + states);
        collected.resize(kept.len(), Vec::new());
        collected.iter_mut().zip(kept).for_each(|(list, v)| list.push(v));
        carried = outputs.split_off(1);
        go_on = truth(&made[0])?;
        made.truncate(1 + states);
        held = made.split_off(1);
        trip += 1;
    }
    if trip == 0 {
        return None;
    }
    let mut outputs = carried;
    for list in collected {
        outputs.push(stacked(writer, &list, 0, &label));
    }
    hand_on(writer, &outputs)
}

fn scan(writer: &mut Writer<'_>) -> Option<()> {
    let node = writer.node;
    let inner = body(writer, "body")?;
    let list = |name: &str, i: usize| match node.attributes.get(name) {
        Some(Attribute::Ints(list)) => list.get(i).copied().unwrap_or(0),
        _ => 0,
    };
    let Some(Attribute::Int(scanned)) = node.attributes.get("num_scan_inputs") else { return None };
    let scanned = usize::try_from(*scanned).ok().filter(|&n| n > 0 && n <= node.inputs.len())?;
    if node.version < 9 {
        return None;
    }
    let states = node.inputs.len() - scanned;
    let mut carried: Vec<ValueId> = (0..states).map(|i| writer.read(i)).collect::<Option<_>>()?;
    let read: Vec<ValueId> = (states..node.inputs.len()).map(|i| writer.read(i)).collect::<Option<_>>()?;
    let axes: Vec<usize> = read
        .iter()
        .enumerate()
        .map(|(i, &v)| normalise_axis(list("scan_input_axes", i), writer.tensor(v)?.rank()).ok())
        .collect::<Option<_>>()?;
    let steps = writer.tensor(read[0])?.shape()[axes[0]];
    if steps == 0 || steps > MOST_TRIPS {
        return None;
    }
    let label = writer.label();
    let mut collected: Vec<Vec<ValueId>> = Vec::new();
    let mut copies = Copies::new(writer, inner);
    for step in 0..steps {
        let place = iteration(&label, step);
        let mut feeds = std::mem::take(&mut carried);
        for (i, (&v, &axis)) in read.iter().zip(&axes).enumerate() {
            let at = if list("scan_input_directions", i) == 1 { steps - 1 - step } else { step };
            let at = copies.writer.constant(Tensor::scalar(at as i64));
            let axis = Attribute::Int(axis as i64);
            feeds.push(copies.writer.call(
                "Gather",
                &[v, at],
                &[("axis", axis)],
                format!("what {place} reads"),
            ));
        }
        let mut outputs = copies.once(feeds, &place)?;
        if outputs.len() < states {
            return None;
        }
        let kept = outputs.split_off(states);
        collected.resize(kept.len(), Vec::new());
        collected.iter_mut().zip(kept).for_each(|(list, v)| list.push(v));
        carried = outputs;
    }
    let mut outputs = carried;
    for (i, mut parts) in collected.into_iter().enumerate() {
        if list("scan_output_directions", i) == 1 {
            parts.reverse();
        }
        let axis = match node.outputs.get(states + i).copied().flatten() {
            Some(v) => normalise_axis(list("scan_output_axes", i), writer.tensor(v)?.rank()).ok()?,
            None => 0,
        };
        outputs.push(stacked(writer, &parts, axis, &label));
    }
    hand_on(writer, &outputs)
}

fn iteration(label: &str, trip: usize) -> String {
    format!("the body of {label}, iteration {trip}")
}

fn truth(tensor: &Tensor) -> Option<bool> {
    match tensor.as_slice::<Bool>().ok()? {
        [one] => Some(one.get()),
        _ => None,
    }
}

/// Parts along a new axis.
fn stacked(writer: &mut Writer<'_>, parts: &[ValueId], axis: usize, label: &str) -> ValueId {
    let name = format!("what {label} collects");
    let place = writer.ints(&[axis as i64]);
    let apart: Vec<ValueId> =
        parts.iter().map(|&v| writer.call("Unsqueeze", &[v, place], &[], name.clone())).collect();
    writer.call("Concat", &apart, &[("axis", Attribute::Int(axis as i64))], name)
}

/// Lets the node's outputs be these values.
fn hand_on(writer: &mut Writer<'_>, values: &[ValueId]) -> Option<()> {
    if values.len() < writer.node.outputs.len() {
        return None;
    }
    values.iter().enumerate().for_each(|(slot, &v)| writer.hand_on(slot, v));
    Some(())
}

/// Copies of one body; its constants are there once.
struct Copies<'x, 'w> {
    writer: &'x mut Writer<'w>,
    body: &'w Graph,
    constants: FxHashMap<ValueId, ValueId>,
}

impl<'x, 'w> Copies<'x, 'w> {
    fn new(writer: &'x mut Writer<'w>, body: &'w Graph) -> Self {
        let mut constants = FxHashMap::default();
        for v in body.value_ids() {
            if let Some(tensor) = &body.value(v).constant {
                let here = super::writer::constant(writer.graph, &body.value(v).name, tensor.clone());
                constants.insert(v, here);
            }
        }
        Self { writer, body, constants }
    }

    /// The body once more, at a place that its nodes are named by, on `feeds`; its outputs.
    fn once(&mut self, feeds: Vec<ValueId>, place: &str) -> Option<Vec<ValueId>> {
        let body = self.body;
        if feeds.len() != body.inputs.len() {
            return None;
        }
        let mut map = self.constants.clone();
        map.extend(body.captures.iter().map(|&(outer, inner)| (inner, outer)));
        map.extend(body.inputs.iter().copied().zip(feeds));
        for (i, n) in body.node_ids().enumerate() {
            let node = body.node(n);
            for v in node.writes() {
                let here = self.writer.value(format!("{} in {place}", body.value(v).name));
                map.insert(v, here);
            }
            let mut copy = remapped(node, &|v| map.get(&v).copied())?;
            copy.name = format!("{} in {place}", body.label(n));
            self.writer.nodes.push((IN_BODY + i as u32, copy));
        }
        body.outputs.iter().map(|v| map.get(v).copied()).collect()
    }
}

/// A body as a network of its own, whose condition says how often a loop runs it.
struct Alone {
    graph: Graph,
    captured: Vec<ValueId>,
}

impl Alone {
    fn new(body: &Graph) -> Self {
        let mut graph = body.clone();
        let captures = std::mem::take(&mut graph.captures);
        graph.inputs.splice(0..0, captures.iter().map(|&(_, inner)| inner));
        // What a file declares of them is looked at where the body itself is run.
        graph.values.iter_mut().for_each(|v| v.declared = None);
        Self { graph, captured: captures.iter().map(|&(outer, _)| outer).collect() }
    }

    fn run(&self, writer: &Writer<'_>, given: Vec<Tensor>) -> Option<Vec<Tensor>> {
        let captured: Vec<Tensor> =
            self.captured.iter().map(|&v| writer.tensor(v).cloned()).collect::<Option<_>>()?;
        let inputs = self.graph.inputs.iter().copied().zip(captured.into_iter().chain(given)).collect();
        let run = Plan::new(&self.graph).ok()?.run(&inputs, &Options::default()).ok()?;
        self.graph.outputs.iter().map(|&v| run.get(v).cloned()).collect()
    }
}
