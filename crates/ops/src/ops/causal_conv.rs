//! `CausalConvWithState`: a convolution of each channel along time that sees the present and the past alone, with the
//! last places of the past handed on.
//!
//! The input is [N, C, L], the weights [C, 1, K], the bias `[C]`, the past [N, C, K - 1] (zeros where it is left out);
//! outputs are [N, C, L] and the past of the next step.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::activation::Activation;
use crate::budget::{self, Budget, Unit};
use crate::moves::room;
use crate::spread::{Number, Spread, budget as spread_budget};
use crate::{Call, Float, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct CausalConv {
    activation: Activation,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let activation = match attributes::text_or(node, "activation", "none")?.as_str() {
        "none" => Activation::Identity,
        "silu" | "swish" => Activation::Silu(1.0),
        other => {
            return Err(OpError::Setting(format!(
                "activation {other:?} is unknown; expected none, silu or swish"
            )));
        }
    };
    Ok(Box::new(CausalConv { activation }))
}

/// Output and handed-on past with their shapes.
struct Outputs<N: Number> {
    shape: [usize; 3],
    out: Vec<N>,
    past: [usize; 3],
    state: Vec<N::Weight>,
}

impl CausalConv {
    fn compute<N: Number>(&self, call: &Call<'_>) -> Result<Outputs<N>, OpError> {
        let (x, w) = (call.need(0, "input")?, call.need(1, "weight")?);
        let (bias, past) = (call.get(2), call.get(3));
        let misfit = || {
            OpError::Input(format!(
                "input {:?}, weight {:?}, bias {:?} and past_state {:?} do not go together; expected [N, C, L], \
                 [C, 1, K], [C] and [N, C, K - 1]",
                x.shape(),
                w.shape(),
                bias.map(Tensor::shape),
                past.map(Tensor::shape)
            ))
        };
        let (&[batch, channels, length], &[weights, 1, taps]) = (x.shape(), w.shape()) else {
            return Err(misfit());
        };
        let fits = weights == channels
            && taps > 0
            && bias.is_none_or(|b| b.shape() == [channels])
            && past.is_none_or(|p| p.shape() == [batch, channels, taps - 1]);
        if !fits {
            return Err(misfit());
        }
        let (x, w) = (x.as_slice::<N::Weight>()?, w.as_slice::<N::Weight>()?);
        let bias = bias.map(Tensor::as_slice::<N::Weight>).transpose()?;
        let past = past.map(Tensor::as_slice::<N::Weight>).transpose()?;
        // Without a single step the state may still be large.
        let mut state = room::<N::Weight>(&[batch, channels, taps - 1])?;
        let mut out = Vec::with_capacity(x.len());
        let mut line = Vec::with_capacity(taps - 1 + length);
        for i in 0..batch * channels {
            line.clear();
            match past {
                Some(past) => line.extend_from_slice(&past[i * (taps - 1)..][..taps - 1]),
                None => line.resize(taps - 1, <N::Weight as Float>::ZERO),
            }
            line.extend_from_slice(&x[i * length..][..length]);
            let kernel = &w[i % channels * taps..][..taps];
            for seen in line.windows(taps) {
                let products = seen.iter().zip(kernel).map(|(&x, &w)| N::exact(x).times(N::exact(w)));
                let sum = products.reduce(N::plus).unwrap_or_else(|| N::exact(<N::Weight as Float>::ZERO));
                let sum = bias.map_or(sum, |b| sum.plus(N::exact(b[i % channels])));
                out.push(sum.activate(self.activation));
            }
            state.extend_from_slice(&line[length..]);
        }
        Ok(Outputs { shape: [batch, channels, length], out, past: [batch, channels, taps - 1], state })
    }
}

impl Operator for CausalConv {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        for_float!(call.need(0, "input")?.dtype(), "input", T => {
            let outputs = self.compute::<T>(call)?;
            Ok(vec![Tensor::from_vec(&outputs.shape, outputs.out)?, Tensor::from_vec(&outputs.past, outputs.state)?])
        })
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if index > 0 {
            return Ok(budget::exact(output.len()));
        }
        Ok(spread_budget(&self.compute::<Spread>(call)?.out, unit))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{counting, node, run, run_optional, tensor};

    #[test]
    fn what_one_step_hands_on_the_next_goes_on_from() {
        let mut whole = node("CausalConvWithState", 27, &[]);
        whole.outputs.push(None);
        let (x, w, b) =
            (counting(&[1, 2, 4]), tensor(&[2, 1, 3], &[1f32, 2., 3., -1., 0., 1.]), counting(&[2]));
        let all = run(&whole, &[&x, &w, &b]).unwrap();
        assert_eq!(all[0].as_slice::<f32>().unwrap(), [0., 3., 8., 14., 5., 6., 3., 3.]);
        assert_eq!(all[1].as_slice::<f32>().unwrap(), [2., 3., 6., 7.]);
        let part = |places: [usize; 2]| {
            let x = x.as_slice::<f32>().unwrap();
            tensor(&[1, 2, 2], &[x[places[0]], x[places[1]], x[4 + places[0]], x[4 + places[1]]])
        };
        let early = run(&whole, &[&part([0, 1]), &w, &b]).unwrap();
        let late = run(&whole, &[&part([2, 3]), &w, &b, &early[1]]).unwrap();
        assert_eq!(late[0].as_slice::<f32>().unwrap(), [8., 14., 3., 3.]);
        assert_eq!(late[1].as_slice::<f32>().unwrap(), all[1].as_slice::<f32>().unwrap());
        assert!(run_optional(&whole, &[Some(&x), Some(&w), None, Some(&counting(&[1, 2, 3]))]).is_err());
        assert!(run(&whole, &[&x, &counting(&[2, 2, 3])]).is_err());
        assert_eq!(run(&whole, &[&counting(&[1, 2, 0]), &w]).unwrap()[1].len(), 4);
    }
}
