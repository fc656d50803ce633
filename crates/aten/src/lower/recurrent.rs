//! One layer of an LSTM in one direction, as oneDNN computes it.

use isotrace_graph::{Attribute, ValueId};

use super::movement::{reshaped, sliced};
use super::{Results, Rule};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[("mkldnn_rnn_layer", lstm)];

/// ATen's number of an LSTM among the kinds of cells.
const LSTM: i64 = 2;

/// PyTorch keeps the gates in the order input, forget, cell, output; ONNX as input, output, forget, cell.
fn gates(c: &mut Call<'_>, at: usize, hidden: i64) -> Option<ValueId> {
    let v = c.wide(at)?;
    let parts: Vec<ValueId> =
        [0, 3, 1, 2].map(|gate| sliced(c, v, 0, [gate * hidden, (gate + 1) * hidden, 1])).to_vec();
    Some(c.op("Concat", &parts, &[("axis", Attribute::Int(0))]))
}

/// Input [time, batch, width], weights, biases, and both states; gives the sequence and both last states.
fn lstm(c: &mut Call<'_>) -> Results {
    let hidden = c.int("hidden_size")?;
    let whole = c.ints("batch_sizes").is_none_or(|sizes| sizes.is_empty());
    if c.int("mode") != Some(LSTM) || !whole || c.rank(0) != Some(3) {
        return None;
    }
    let size = usize::try_from(hidden).ok()?;
    let width = *c.shape(0)?.last()?;
    let x = c.wide(0)?;
    let (w, r) = (gates(c, 1, hidden)?, gates(c, 2, hidden)?);
    let (w, r) = (reshaped(c, w, &[1, 4 * size, width]), reshaped(c, r, &[1, 4 * size, size]));
    let bias = if c.flag("has_biases") {
        let (of_input, of_state) = (gates(c, 3, hidden)?, gates(c, 4, hidden)?);
        let both = c.op("Concat", &[of_input, of_state], &[("axis", Attribute::Int(0))]);
        Some(reshaped(c, both, &[1, 8 * size]))
    } else {
        None
    };
    let batch = *c.shape(0)?.get(1)?;
    let [state, cell] = [5, 6].map(|at| {
        let v = c.wide(at)?;
        Some(reshaped(c, v, &[1, batch, size]))
    });
    let direction: &[u8] = if c.flag("reverse") { b"reverse" } else { b"forward" };
    let dtype = c.type_of(x)?;
    let made = c.several(
        "LSTM",
        &[Some(x), Some(w), Some(r), bias, None, state, cell],
        &[dtype; 3],
        &[("hidden_size", Attribute::Int(hidden)), ("direction", Attribute::Bytes(direction.to_vec()))],
    );
    let mut out = Vec::new();
    for (at, v) in made.into_iter().enumerate() {
        let (dtype, shape) = c.result(at)?;
        let v = reshaped(c, v, &shape);
        out.push(Some(c.cast(v, dtype)?));
    }
    Some(out)
}
