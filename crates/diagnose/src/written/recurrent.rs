//! RNN, GRU and LSTM written out step by step: for each gate a product with all inputs, then for each step a product
//! with the state, and what the gates make of the state.
//!
//! Gates have sums of their own, so that their order, in which frameworks differ, is none here: what a cell written out
//! by hand cuts out of one sum is found whichever place it has there. ONNX's order is, for GRU, update, reset, hidden,
//! and for LSTM input, output, forget, cell. Every step is written as the same nodes, so that a fault in a cell is one.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::Tensor;

use super::product::activated;
use super::writer::Writer;

/// Steps that are written out; a longer sequence says nothing more about the cell.
const MOST_STEPS: usize = 96;

/// Whether an operator is a layer of cells.
pub fn is_cell(op: &str) -> bool {
    matches!(op, "LSTM" | "GRU" | "RNN")
}

/// Which cell, and how many gates it has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    Rnn,
    Gru { reset_after: bool },
    Lstm { coupled: bool },
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru { .. } => 3,
            Self::Lstm { .. } => 4,
        }
    }

    fn curves(self) -> &'static [&'static str] {
        match self {
            Self::Rnn => &["Tanh"],
            Self::Gru { .. } => &["Sigmoid", "Tanh"],
            Self::Lstm { .. } => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// `h = f(x W^T + h R^T + b)`
pub fn rnn(w: &mut Writer<'_>) -> Option<()> {
    write(w, Cell::Rnn)
}

/// `h = (1 - z) n + z h`, with the reset before or after the product of the state.
pub fn gru(w: &mut Writer<'_>) -> Option<()> {
    let reset_after = w.int("linear_before_reset", 0) != 0;
    write(w, Cell::Gru { reset_after })
}

/// `c = f c + i g, h = o tanh(c)`
pub fn lstm(w: &mut Writer<'_>) -> Option<()> {
    let coupled = w.int("input_forget", 0) != 0;
    write(w, Cell::Lstm { coupled })
}

/// Sizes, and what all steps of all directions share.
struct Layer {
    cell: Cell,
    steps: usize,
    batch: usize,
    hidden: usize,
    /// The inputs, steps first.
    x: ValueId,
    batch_first: bool,
}

/// What one gate reads at each step.
#[derive(Clone, Copy)]
struct Gate {
    /// The product with all inputs, steps first.
    from_inputs: ValueId,
    /// The weights of the state, inputs first.
    weights: ValueId,
    bias: Option<ValueId>,
}

/// What one direction reads at each step.
struct Direction {
    gates: Vec<Gate>,
    curves: Vec<String>,
    peepholes: Option<[ValueId; 3]>,
}

fn write(w: &mut Writer<'_>, cell: Cell) -> Option<()> {
    let plain = ["clip", "activation_alpha", "activation_beta"];
    if plain.iter().any(|name| w.node.attributes.contains_key(*name)) {
        return None;
    }
    let batch_first = w.int("layout", 0) == 1;
    let &[first, second, _] = w.shape(0)? else { return None };
    let (steps, batch) = if batch_first { (second, first) } else { (first, second) };
    let &[directions, _, hidden] = w.shape(2)? else { return None };
    // Sequences that end earlier are another matter.
    let full = |t: &Tensor| t.to_i64().is_ok_and(|l| l.iter().all(|&l| usize::try_from(l) == Ok(steps)));
    if steps == 0 || steps > MOST_STEPS || w.read(4).is_some_and(|v| !w.tensor(v).is_some_and(full)) {
        return None;
    }
    let x = w.read(0)?;
    let x = if batch_first { w.turned(x, &[1, 0, 2]) } else { x };
    let layer = Layer { cell, steps, batch, hidden, x, batch_first };
    let reversed = reversed(w, directions)?;
    let (mut all, mut last_h, mut last_c) = (Vec::new(), Vec::new(), Vec::new());
    for (k, &backwards) in reversed.iter().enumerate() {
        let direction = direction(w, &layer, k, directions)?;
        let mut h = state(w, &layer, 5, k)?;
        let mut c = if matches!(cell, Cell::Lstm { .. }) { Some(state(w, &layer, 6, k)?) } else { None };
        let mut written = vec![None; steps];
        let start = w.nodes.len();
        for step in 0..steps {
            let t = if backwards { steps - 1 - step } else { step };
            let before = w.nodes.len();
            h = step_of(w, &layer, &direction, t, h, &mut c)?;
            written[t] = Some(h);
            for (i, (place, _)) in w.nodes[before..].iter_mut().enumerate() {
                *place = u32::try_from(start + i).ok()?;
            }
        }
        all.push(written.into_iter().collect::<Option<Vec<_>>>()?);
        last_h.push(h);
        last_c.extend(c);
    }
    hand_on(w, &layer, &all, &last_h, &last_c);
    Some(())
}

/// Whether each direction runs from the end.
fn reversed(w: &Writer<'_>, directions: usize) -> Option<Vec<bool>> {
    let name = match w.node.attributes.get("direction") {
        Some(Attribute::Bytes(name)) => name.as_slice(),
        _ => b"forward",
    };
    let reversed = match name {
        b"forward" => vec![false],
        b"reverse" => vec![true],
        b"bidirectional" => vec![false, true],
        _ => return None,
    };
    (reversed.len() == directions).then_some(reversed)
}

/// The part of a value that belongs to direction `k`.
fn of_direction(w: &mut Writer<'_>, v: ValueId, k: usize, what: &str) -> ValueId {
    let place = w.constant(Tensor::scalar(k as i64));
    w.part("Gather", &[v, place], &[("axis", Attribute::Int(0))], what)
}

fn parts(w: &mut Writer<'_>, v: ValueId, axis: i64, from: usize, to: usize, what: &str) -> ValueId {
    let (from, to, axis) = (w.ints(&[from as i64]), w.ints(&[to as i64]), w.ints(&[axis]));
    w.part("Slice", &[v, from, to, axis], &[], what)
}

fn direction(w: &mut Writer<'_>, layer: &Layer, k: usize, directions: usize) -> Option<Direction> {
    let (hidden, rows) = (layer.hidden, layer.cell.gates() * layer.hidden);
    let weights = of_direction(w, w.read(1)?, k, "input weights");
    let weights = w.turned(weights, &[1, 0]);
    let recurrent = of_direction(w, w.read(2)?, k, "recurrent weights");
    let recurrent = w.turned(recurrent, &[1, 0]);
    let biases = w.read(3).map(|b| of_direction(w, b, k, "biases"));
    let halves = biases
        .map(|b| [parts(w, b, 0, 0, rows, "input bias"), parts(w, b, 0, rows, 2 * rows, "recurrent bias")]);
    let mut gates = Vec::new();
    for g in 0..layer.cell.gates() {
        let (from, to) = (g * hidden, (g + 1) * hidden);
        let own = parts(w, weights, 1, from, to, "input weights");
        let product = w.part("MatMul", &[layer.x, own], &[], "input product");
        let halves = halves.map(|[input, recurrent]| {
            [parts(w, input, 0, from, to, "input bias"), parts(w, recurrent, 0, from, to, "recurrent bias")]
        });
        let from_inputs = match halves {
            Some([bias, _]) => w.part("Add", &[product, bias], &[], "input bias"),
            None => product,
        };
        let weights = parts(w, recurrent, 1, from, to, "recurrent weights");
        gates.push(Gate { from_inputs, weights, bias: halves.map(|[_, bias]| bias) });
    }
    let peepholes = match (layer.cell, w.read(7)) {
        (Cell::Lstm { .. }, Some(p)) => {
            let own = of_direction(w, p, k, "peepholes");
            Some([0, 1, 2].map(|i| parts(w, own, 0, i * hidden, (i + 1) * hidden, "peepholes")))
        }
        _ => None,
    };
    Some(Direction { gates, curves: curves(w, layer.cell, k, directions)?, peepholes })
}

/// The activations of direction `k`.
fn curves(w: &Writer<'_>, cell: Cell, k: usize, directions: usize) -> Option<Vec<String>> {
    let each = cell.curves().len();
    match w.node.attributes.get("activations") {
        None => Some(cell.curves().iter().map(|&c| c.to_owned()).collect()),
        Some(Attribute::Strings(names)) if names.len() == each * directions => {
            let own = names[k * each..(k + 1) * each].iter();
            Some(own.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
        }
        Some(_) => None,
    }
}

/// The state before the first step; zeros where none is given.
fn state(w: &mut Writer<'_>, layer: &Layer, slot: usize, k: usize) -> Option<ValueId> {
    let Some(given) = w.read(slot) else {
        let zeros = Tensor::full(&[layer.batch, layer.hidden], 0f64).ok()?;
        let dtype = w.tensor(w.read(0)?)?.dtype();
        return Some(w.constant(zeros.cast(dtype).ok()?));
    };
    let given = if layer.batch_first { w.turned(given, &[1, 0, 2]) } else { given };
    Some(of_direction(w, given, k, "first state"))
}

fn step_of(
    w: &mut Writer<'_>,
    layer: &Layer,
    direction: &Direction,
    t: usize,
    h: ValueId,
    c: &mut Option<ValueId>,
) -> Option<ValueId> {
    let name = format!("{}, step {t}", w.label());
    let cell = layer.cell;
    let call = |w: &mut Writer<'_>, op: &str, reads: &[ValueId], what: &str| {
        w.call(op, reads, &[], format!("{what} of {name}"))
    };
    let place = w.constant(Tensor::scalar(t as i64));
    let axis = [("axis", Attribute::Int(0))];
    let input = |w: &mut Writer<'_>, gate: Gate| {
        w.call("Gather", &[gate.from_inputs, place], &axis, format!("input of {name}"))
    };
    let product = |w: &mut Writer<'_>, gate: Gate, h: ValueId| {
        let product = call(w, "MatMul", &[h, gate.weights], "recurrent product");
        gate.bias.map_or(product, |b| call(w, "Add", &[product, b], "recurrent bias"))
    };
    let sum = |w: &mut Writer<'_>, g: usize| {
        let gate = direction.gates[g];
        let (x, h) = (input(w, gate), product(w, gate, h));
        call(w, "Add", &[x, h], "sum")
    };
    let curve = |w: &mut Writer<'_>, i: usize, x: ValueId| activated(w, x, &direction.curves[i], &[]);
    match cell {
        Cell::Rnn => {
            let sum = sum(w, 0);
            curve(w, 0, sum)
        }
        Cell::Gru { reset_after } => {
            let update = sum(w, 0);
            let update = curve(w, 0, update)?;
            let reset = sum(w, 1);
            let reset = curve(w, 0, reset)?;
            let hidden = direction.gates[2];
            let kept = if reset_after {
                let of_state = product(w, hidden, h);
                call(w, "Mul", &[reset, of_state], "reset state")
            } else {
                let kept = call(w, "Mul", &[reset, h], "reset state");
                product(w, hidden, kept)
            };
            let of_input = input(w, hidden);
            let sum = call(w, "Add", &[of_input, kept], "hidden");
            let new = curve(w, 1, sum)?;
            let one = w.number(1.0)?;
            let rest = call(w, "Sub", &[one, update], "rest");
            let fresh = call(w, "Mul", &[rest, new], "new state");
            let old = call(w, "Mul", &[update, h], "old state");
            Some(call(w, "Add", &[fresh, old], "state"))
        }
        Cell::Lstm { coupled } => {
            let before = (*c)?;
            let all = [0, 1, 2, 3].map(|g| sum(w, g));
            let peeped = |w: &mut Writer<'_>, gate: ValueId, i: usize, c: ValueId| match direction.peepholes {
                Some(p) => {
                    let seen = call(w, "Mul", &[c, p[i]], "peephole");
                    call(w, "Add", &[gate, seen], "peephole")
                }
                None => gate,
            };
            let enter = peeped(w, all[0], 0, before);
            let enter = curve(w, 0, enter)?;
            let forget = if coupled {
                let one = w.number(1.0)?;
                call(w, "Sub", &[one, enter], "forget")
            } else {
                let forget = peeped(w, all[2], 2, before);
                curve(w, 0, forget)?
            };
            let candidate = curve(w, 1, all[3])?;
            let kept = call(w, "Mul", &[forget, before], "kept");
            let entered = call(w, "Mul", &[enter, candidate], "entered");
            let now = call(w, "Add", &[kept, entered], "cell");
            let leave = peeped(w, all[1], 1, now);
            let leave = curve(w, 0, leave)?;
            let shown = curve(w, 2, now)?;
            *c = Some(now);
            Some(call(w, "Mul", &[leave, shown], "state"))
        }
    }
}

/// The states of all steps, and the last ones, in the layout that is asked for.
fn hand_on(w: &mut Writer<'_>, layer: &Layer, all: &[Vec<ValueId>], h: &[ValueId], c: &[ValueId]) {
    let stacked = |w: &mut Writer<'_>, values: &[ValueId], axis: i64, what: &str| {
        let place = w.ints(&[axis]);
        let each: Vec<ValueId> =
            values.iter().map(|&v| w.part("Unsqueeze", &[v, place], &[], what)).collect();
        w.part("Concat", &each, &[("axis", Attribute::Int(axis))], what)
    };
    if w.named(0) {
        // (N, D, H) of each step, then (T, D, N, H) or (N, T, D, H).
        let steps: Vec<ValueId> = (0..layer.steps)
            .map(|t| {
                let each: Vec<ValueId> = all.iter().map(|written| written[t]).collect();
                stacked(w, &each, i64::from(layer.batch_first), "directions")
            })
            .collect();
        let y = stacked(w, &steps, i64::from(layer.batch_first), "states");
        w.hand_on(0, y);
    }
    for (slot, last) in [(1, h), (2, c)] {
        if w.named(slot) && !last.is_empty() {
            let y = stacked(w, last, i64::from(layer.batch_first), "last states");
            w.hand_on(slot, y);
        }
    }
}
