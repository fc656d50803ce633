//! RNN, GRU and LSTM: forward, reverse and bidirectional, with sequence lengths, initial states, clipping and any of
//! ONNX's activations; LSTM with peepholes and coupled gates, GRU with either place of the reset gate.
//!
//! With T steps, N sequences, I inputs, H units, G gates and D directions: X (T, N, I), W (D, G H, I), R (D, G H, H),
//! B (D, 2 G H: input biases, then recurrent ones), `sequence_lens` (N), initial states (D, N, H), peepholes P
//! (D, 3 H: input, output, forget); Y (T, D, N, H), final states (D, N, H). With `layout` 1 the sequences' axis leads:
//! X (N, T, I), Y (N, T, D, H), states (N, D, H). Gates: GRU update, reset, hidden; LSTM input, output, forget, cell.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, element_count};

use super::recurrent_cell::{Cell, Direction, States};
use crate::activation::Activation;
use crate::budget::{Budget, Unit};
use crate::spread::{Number, Outputs, Spread, budget_of, tensors};
use crate::{Call, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct Recurrent {
    cell: Cell,
    /// Whether each direction runs from the end.
    directions: Vec<bool>,
    /// Activations of each direction.
    activations: Vec<Vec<Activation>>,
    clip: Option<f64>,
    hidden: Option<usize>,
    batch_first: bool,
}

/// Parses an RNN.
pub fn rnn(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, Cell::Rnn, &["Tanh"])
}

/// Parses a GRU.
pub fn gru(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    // Version 1 has no such attribute and resets before the product.
    let reset_after = attributes::flag(node, "linear_before_reset", false)?;
    parse(node, Cell::Gru { reset_after }, &["Sigmoid", "Tanh"])
}

/// Parses an LSTM.
pub fn lstm(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let coupled = attributes::flag(node, "input_forget", false)?;
    parse(node, Cell::Lstm { coupled }, &["Sigmoid", "Tanh", "Tanh"])
}

fn parse(node: &Node, cell: Cell, defaults: &[&str]) -> Result<Box<dyn Operator>, OpError> {
    let directions = match attributes::text_or(node, "direction", "forward")?.as_str() {
        "forward" => vec![false],
        "reverse" => vec![true],
        "bidirectional" => vec![false, true],
        other => {
            return Err(OpError::Setting(format!(
                "direction {other:?} is unknown; expected forward, reverse or bidirectional"
            )));
        }
    };
    let needed = defaults.len() * directions.len();
    let names = match attributes::texts(node, "activations")? {
        None => defaults.iter().cycle().take(needed).map(|&s| s.to_owned()).collect(),
        Some(names) if names.len() == needed => names,
        Some(names) => {
            return Err(OpError::Setting(format!(
                "activations {names:?}: expected {needed}, {} for each direction",
                defaults.len()
            )));
        }
    };
    // Each activation takes as many parameters from the two lists as it has, in turn.
    let alpha = attributes::floats(node, "activation_alpha")?.unwrap_or_default();
    let beta = attributes::floats(node, "activation_beta")?.unwrap_or_default();
    let (mut alpha, mut beta) = (alpha.into_iter(), beta.into_iter());
    let mut activations = Vec::with_capacity(needed);
    for name in &names {
        let (alphas, betas) = Activation::parameters(name);
        let first: Vec<f32> = alpha.by_ref().take(alphas).collect();
        let second: Vec<f32> = beta.by_ref().take(betas).collect();
        let mut activation = Activation::named(name, &first)?;
        if let (Some(&b), [a]) = (second.first(), first.as_slice()) {
            activation = Activation::named(name, &[*a, b])?;
        }
        activations.push(activation);
    }
    let hidden = match attributes::int(node, "hidden_size")? {
        None => None,
        Some(h) => Some(
            usize::try_from(h)
                .map_err(|_| OpError::Setting(format!("hidden_size {h} must not be negative")))?,
        ),
    };
    Ok(Box::new(Recurrent {
        cell,
        activations: activations.chunks(defaults.len()).map(<[_]>::to_vec).collect(),
        directions,
        clip: attributes::float(node, "clip")?.map(f64::from),
        hidden,
        batch_first: attributes::int_or(node, "layout", 0)? == 1,
    }))
}

/// An input's elements after its shape was checked.
fn checked<'a>(
    call: &Call<'a>,
    index: usize,
    name: &str,
    expected: &[usize],
) -> Result<Option<&'a Tensor>, OpError> {
    match call.get(index) {
        Some(t) if t.shape() != expected => {
            Err(OpError::Input(format!("{name} has shape {:?}, expected {expected:?}", t.shape())))
        }
        other => Ok(other),
    }
}

/// Sizes of one call.
struct Sizes {
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
}

impl Recurrent {
    fn sizes(&self, call: &Call<'_>) -> Result<Sizes, OpError> {
        let (x, r) = (call.need(0, "X")?, call.need(2, "R")?);
        let &[first, second, inputs] = x.shape() else {
            return Err(OpError::Input(format!("X has shape {:?}, expected three axes", x.shape())));
        };
        let (steps, batch) = if self.batch_first { (second, first) } else { (first, second) };
        let &[_, _, hidden] = r.shape() else {
            return Err(OpError::Input(format!("R has shape {:?}, expected three axes", r.shape())));
        };
        if let Some(declared) = self.hidden.filter(|&h| h != hidden) {
            return Err(OpError::Input(format!("hidden_size is {declared}, but R holds {hidden} units")));
        }
        Ok(Sizes { steps, batch, inputs, hidden })
    }

    /// The outputs as numbers of kind `N`: Y, final hidden state, final cell state, each in the layout asked for.
    fn compute<N: Number>(&self, call: &Call<'_>) -> Result<Outputs<N>, OpError> {
        let Sizes { steps, batch, inputs, hidden } = self.sizes(call)?;
        let (d, g) = (self.directions.len(), self.cell.gates());
        let rows = g.checked_mul(hidden).ok_or_else(|| OpError::Input("too many units".into()))?;
        let x = call.need(0, "X")?;
        let x = if self.batch_first { x.permute(&[1, 0, 2])? } else { x.clone() };
        call.need(1, "W")?;
        let w = checked(call, 1, "W", &[d, rows, inputs])?.map(Tensor::as_slice::<N::Weight>).transpose()?;
        let r = checked(call, 2, "R", &[d, rows, hidden])?.map(Tensor::as_slice::<N::Weight>).transpose()?;
        let (w, r) = (w.unwrap_or_default(), r.unwrap_or_default());
        let b = checked(call, 3, "B", &[d, 2 * rows])?.map(Tensor::as_slice::<N::Weight>).transpose()?;
        let lengths = lengths(call, steps, batch)?;
        let state = if self.batch_first { [batch, d, hidden] } else { [d, batch, hidden] };
        let initial = |index, name| -> Result<Option<Tensor>, OpError> {
            let t = checked(call, index, name, &state)?;
            Ok(t.map(|t| if self.batch_first { t.permute(&[1, 0, 2]) } else { Ok(t.clone()) }).transpose()?)
        };
        let is_lstm = matches!(self.cell, Cell::Lstm { .. });
        let h0 = initial(5, "initial_h")?;
        let c0 = if is_lstm { initial(6, "initial_c")? } else { None };
        let p = if is_lstm { checked(call, 7, "P", &[d, 3 * hidden])? } else { None };
        let p = p.map(Tensor::as_slice::<N::Weight>).transpose()?;

        let zero = N::exact(bytemuck::Zeroable::zeroed());
        let mut y = vec![zero; element_count(&[steps, d, batch, hidden])?];
        let (mut last_h, mut last_c) = (Vec::new(), Vec::new());
        let x: Vec<N> = x.as_slice::<N::Weight>()?.iter().map(|&x| N::exact(x)).collect();
        for (k, &reverse) in self.directions.iter().enumerate() {
            let part = |t: &Option<Tensor>| -> Result<Vec<N>, OpError> {
                let n = batch * hidden;
                Ok(match t {
                    None => vec![zero; n],
                    Some(t) => {
                        let t = &t.as_slice::<N::Weight>()?[k * n..(k + 1) * n];
                        t.iter().map(|&x| N::exact(x)).collect()
                    }
                })
            };
            let direction = Direction {
                cell: self.cell,
                reverse,
                activations: &self.activations[k],
                clip: self.clip,
                steps,
                batch,
                inputs,
                hidden,
                lengths: &lengths,
                w: &w[k * rows * inputs..(k + 1) * rows * inputs],
                r: &r[k * rows * hidden..(k + 1) * rows * hidden],
                b: b.map(|b| &b[2 * k * rows..2 * (k + 1) * rows]),
                p: p.map(|p| &p[3 * k * hidden..3 * (k + 1) * hidden]),
            };
            let mut states = States { h: part(&h0)?, c: part(&c0)? };
            direction.run(&x, &mut states, |t, n, row| {
                let at = ((t * d + k) * batch + n) * hidden;
                y[at..at + hidden].copy_from_slice(row);
            });
            last_h.extend(states.h);
            last_c.extend(states.c);
        }
        let mut outputs = vec![(vec![steps, d, batch, hidden], y), (vec![d, batch, hidden], last_h)];
        if is_lstm {
            outputs.push((vec![d, batch, hidden], last_c));
        }
        if self.batch_first {
            for (shape, data) in &mut outputs {
                let order: &[usize] = if shape.len() == 4 { &[2, 0, 1, 3] } else { &[1, 0, 2] };
                let moved = isotrace_tensor::View::new(data, shape).permute(order);
                (*shape, *data) = (moved.shape().to_vec(), moved.to_vec());
            }
        }
        Ok(outputs)
    }
}

fn lengths(call: &Call<'_>, steps: usize, batch: usize) -> Result<Vec<usize>, OpError> {
    let Some(lengths) = checked(call, 4, "sequence_lens", &[batch])? else {
        return Ok(vec![steps; batch]);
    };
    let lengths = lengths.to_i64()?;
    lengths
        .iter()
        .map(|&l| usize::try_from(l).ok().filter(|&l| l <= steps))
        .collect::<Option<_>>()
        .ok_or_else(|| {
            OpError::Input(format!("sequence_lens {lengths:?} must lie between 0 and the {steps} steps of X"))
        })
}

impl Operator for Recurrent {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        for_float!(x.dtype(), "X", T => tensors(self.compute::<T>(call)?))
    }

    fn budget(&self, call: &Call<'_>, index: usize, _: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        budget_of(&self.compute::<Spread>(call)?, index, unit)
    }
}

#[cfg(test)]
#[path = "recurrent_tests.rs"]
mod tests;
