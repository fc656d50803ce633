//! One direction of a recurrent layer, over plain floats or numbers that carry their error.

use crate::activation::Activation;
use crate::spread::Number;

/// Which cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    Rnn,
    Gru {
        /// The reset gate applies after the recurrent product.
        reset_after: bool,
    },
    Lstm {
        /// The forget gate is 1 minus the input gate.
        coupled: bool,
    },
}

impl Cell {
    /// Rows of weights a unit.
    pub(crate) fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru { .. } => 3,
            Self::Lstm { .. } => 4,
        }
    }
}

/// What a direction carries from step to step, (sequences, units) each; `c` for LSTM alone.
pub(crate) struct States<N> {
    pub(crate) h: Vec<N>,
    pub(crate) c: Vec<N>,
}

/// The weights and settings of one direction.
pub(crate) struct Direction<'a, T> {
    pub(crate) cell: Cell,
    pub(crate) reverse: bool,
    pub(crate) activations: &'a [Activation],
    pub(crate) clip: Option<f64>,
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    pub(crate) inputs: usize,
    pub(crate) hidden: usize,
    pub(crate) lengths: &'a [usize],
    /// (gates * hidden, inputs).
    pub(crate) w: &'a [T],
    /// (gates * hidden, hidden).
    pub(crate) r: &'a [T],
    /// Input biases, then recurrent biases.
    pub(crate) b: Option<&'a [T]>,
    /// Peepholes: input, output, forget.
    pub(crate) p: Option<&'a [T]>,
}

impl<T: crate::Float> Direction<'_, T> {
    /// Runs all steps on `x` (steps, sequences, inputs). `emit` gets step, sequence and hidden state of each; steps
    /// beyond a sequence's length are left out and leave its state as it is.
    pub(crate) fn run<N: Number<Weight = T>>(
        &self,
        x: &[N],
        states: &mut States<N>,
        mut emit: impl FnMut(usize, usize, &[N]),
    ) {
        let (h, rows) = (self.hidden, self.cell.gates() * self.hidden);
        // Every step's input products at once: one large product is faster than many small ones.
        let mut from_input = Vec::new();
        N::product(x, self.w, (self.steps * self.batch, self.inputs, rows), &mut from_input);
        let (mut from_state, mut second, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        let gru_before = self.cell == Cell::Gru { reset_after: false };
        // Where the reset comes before the product, the hidden gate's rows wait for it.
        let early = if gru_before { 2 * h } else { rows };
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        for step in 0..longest {
            N::product(&states.h, &self.r[..early * h], (self.batch, h, early), &mut from_state);
            let time = |n: usize| if self.reverse { self.lengths[n] - 1 - step } else { step };
            let active = |n: usize| step < self.lengths[n];
            if gru_before {
                self.reset_states(&from_input, &from_state, &states.h, &mut scratch, time, active);
                N::product(&scratch, &self.r[early * h..], (self.batch, h, h), &mut second);
            }
            for n in (0..self.batch).filter(|&n| active(n)) {
                let input = &from_input[(time(n) * self.batch + n) * rows..][..rows];
                let state = &from_state[n * early..(n + 1) * early];
                let (hs, cs) = (&mut states.h[n * h..(n + 1) * h], &mut states.c[n * h..(n + 1) * h]);
                match self.cell {
                    Cell::Rnn => self.rnn(input, state, hs),
                    Cell::Gru { reset_after } => {
                        let second = if reset_after { &[] } else { &second[n * h..(n + 1) * h] };
                        self.gru(input, state, second, hs);
                    }
                    Cell::Lstm { coupled } => self.lstm(input, state, coupled, hs, cs),
                }
                emit(time(n), n, hs);
            }
        }
    }

    /// Input product, recurrent product and both biases of row `i`.
    fn sum<N: Number<Weight = T>>(&self, input: &[N], state: &[N], i: usize) -> N {
        let sum = input[i].plus(state[i]);
        match self.b {
            None => sum,
            Some(b) => sum.plus(N::exact(b[i])).plus(N::exact(b[b.len() / 2 + i])),
        }
    }

    fn activate<N: Number<Weight = T>>(&self, which: usize, z: N) -> N {
        let z = self.clip.map_or(z, |c| z.activate(Activation::Clip(-c, c)));
        z.activate(self.activations[which])
    }

    fn rnn<N: Number<Weight = T>>(&self, input: &[N], state: &[N], h: &mut [N]) {
        for (i, h) in h.iter_mut().enumerate() {
            *h = self.activate(0, self.sum(input, state, i));
        }
    }

    /// The states of all sequences times their reset gates.
    fn reset_states<N: Number<Weight = T>>(
        &self,
        input: &[N],
        state: &[N],
        h: &[N],
        out: &mut Vec<N>,
        time: impl Fn(usize) -> usize,
        active: impl Fn(usize) -> bool,
    ) {
        out.clear();
        out.extend_from_slice(h);
        let units = self.hidden;
        for n in (0..self.batch).filter(|&n| active(n)) {
            let input = &input[(time(n) * self.batch + n) * 3 * units..][..3 * units];
            let state = &state[n * 2 * units..(n + 1) * 2 * units];
            for (i, out) in out[n * units..(n + 1) * units].iter_mut().enumerate() {
                *out = out.times(self.activate(0, self.sum(input, state, units + i)));
            }
        }
    }

    /// `second` is the recurrent product of the reset states, empty where the reset comes after the product.
    fn gru<N: Number<Weight = T>>(&self, input: &[N], state: &[N], second: &[N], h: &mut [N]) {
        let units = self.hidden;
        let rows = 3 * units;
        for (i, h) in h.iter_mut().enumerate() {
            let update = self.activate(0, self.sum(input, state, i));
            let row = 2 * units + i;
            let bias = |k: usize| self.b.map(|b| N::exact(b[k * rows + row]));
            let add = |x: N, b: Option<N>| b.map_or(x, |b| x.plus(b));
            let candidate = if second.is_empty() {
                let reset = self.activate(0, self.sum(input, state, units + i));
                add(input[row], bias(0)).plus(reset.times(add(state[row], bias(1))))
            } else {
                add(add(input[row].plus(second[i]), bias(0)), bias(1))
            };
            let candidate = self.activate(1, candidate);
            *h = update.complement().times(candidate).plus(update.times(*h));
        }
    }

    fn lstm<N: Number<Weight = T>>(&self, input: &[N], state: &[N], coupled: bool, h: &mut [N], c: &mut [N]) {
        let units = self.hidden;
        let peep = |k: usize, i: usize, z: N, c: N| {
            self.p.map_or(z, |p| z.plus(N::exact(p[k * units + i]).times(c)))
        };
        for (i, (h, c)) in h.iter_mut().zip(c).enumerate() {
            let gate = |k: usize| self.sum(input, state, k * units + i);
            let enter = self.activate(0, peep(0, i, gate(0), *c));
            let forget = if coupled { enter.complement() } else { self.activate(0, peep(2, i, gate(2), *c)) };
            let candidate = self.activate(1, gate(3));
            *c = forget.times(*c).plus(enter.times(candidate));
            let leave = self.activate(0, peep(1, i, gate(1), *c));
            *h = leave.times(c.activate(self.activations[2]));
        }
    }
}
