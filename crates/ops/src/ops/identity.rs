//! Identity, and Dropout, which is the identity when a network is used.
//!
//! Dropout in training mode (version 12 on: input 2 is true; version 6 and below: `is_test` is 0) zeroes elements at
//! random with probability `ratio` and scales the rest by 1/(1 - ratio). It is deterministic here, from attribute
//! `seed`; the elements are not those that ONNX Runtime or PyTorch would drop.

use isotrace_graph::Node;
use isotrace_tensor::{Bool, DType, Tensor};

use crate::random::Random;
use crate::{Call, Flow, OpError, Operator, attributes, flow, for_float};

#[derive(Debug)]
struct Identity;

/// Parses a node.
pub fn identity(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Identity))
}

impl Operator for Identity {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![call.need(0, "input")?.clone()])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[derive(Debug)]
struct Dropout {
    ratio: f64,
    /// Whether elements are dropped, where an attribute says so.
    training: bool,
    /// The mask is of the data's type below version 10.
    typed_mask: bool,
    /// Whether the node says whether elements are dropped.
    told: bool,
    random: Random,
}

/// Parses a node.
pub fn dropout(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Dropout {
        ratio: f64::from(attributes::float_or(node, "ratio", 0.5)?),
        training: node.version <= 6 && !attributes::flag(node, "is_test", false)?,
        typed_mask: node.version < 10,
        told: node.inputs.get(2).is_some_and(Option::is_some),
        random: Random::of(node)?,
    }))
}

impl Dropout {
    /// The share of elements dropped: 0 when the network is used.
    fn ratio(&self, call: &Call<'_>) -> Result<f64, OpError> {
        let training = match call.get(2) {
            Some(mode) => mode.to_i64()?.first().is_some_and(|&m| m != 0),
            None => self.training,
        };
        if !training {
            return Ok(0.0);
        }
        let ratio = match call.get(1) {
            Some(ratio) => ratio.to_f64()?.first().copied().unwrap_or(0.5),
            None => self.ratio,
        };
        if (0.0..1.0).contains(&ratio) {
            Ok(ratio)
        } else {
            Err(OpError::Input(format!("ratio is {ratio}, it must lie in 0..1")))
        }
    }
}

impl Operator for Dropout {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "data")?;
        let ratio = self.ratio(call)?;
        let mut random = self.random.stream();
        let kept: Vec<bool> = if ratio == 0.0 {
            if call.outputs < 2 {
                return Ok(vec![data.clone()]);
            }
            vec![true; data.len()]
        } else {
            (0..data.len()).map(|_| random.uniform() >= ratio).collect()
        };
        let out = if ratio == 0.0 {
            data.clone()
        } else {
            for_float!(data.dtype(), "data", T => {
                let scale = 1.0 / (1.0 - ratio) as T;
                let elements = data.as_slice::<T>()?.iter();
                let out = elements.zip(&kept).map(|(&x, &kept)| if kept { x * scale } else { 0.0 });
                Ok(Tensor::from_vec(data.shape(), out.collect())?)
            })?
        };
        let mask = Tensor::from_vec(data.shape(), kept.into_iter().map(Bool::from).collect())?;
        let mask = mask.cast(if self.typed_mask { data.dtype() } else { DType::Bool })?;
        Ok(vec![out, mask])
    }

    fn draws(&self) -> bool {
        self.training || self.told
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        // The mask does not depend on the data, and the ratio is a setting.
        let mut out = flow::none(outputs)?;
        if let Some(Some(error)) = errors.first() {
            let inputs = [Some(error), call.get(1), call.get(2)];
            out[0] = self.run(&call.with_inputs(&inputs))?.swap_remove(0);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{counting, errors, first, node, run_optional, tensor};

    #[test]
    fn any_type_passes_through() {
        let text = Tensor::from_strings(&[2], vec!["a".into(), String::new()]).unwrap();
        for data in [&text, &counting(&[0, 2]), &counting(&[])] {
            assert!(first(&node("Identity", 16, &[]), &[data]).bit_eq(data));
            assert!(first(&node("Dropout", 13, &[]), &[data]).bit_eq(data));
        }
    }

    #[test]
    fn dropout_drops_in_training_only() {
        let data = tensor(&[4000], &[3f32; 4000]);
        let (ratio, on) = (tensor(&[], &[0.25f32]), tensor(&[], &[Bool::from(true)]));
        let mut n = node("Dropout", 13, &[]);
        n.outputs.push(None);
        let out = run_optional(&n, &[Some(&data), Some(&ratio), Some(&on)]).unwrap();
        let (values, mask) = (out[0].as_slice::<f32>().unwrap(), out[1].as_slice::<Bool>().unwrap());
        assert!(values.iter().zip(mask).all(|(&v, m)| v == if m.get() { 4.0 } else { 0.0 }));
        let dropped = mask.iter().filter(|m| !m.get()).count();
        assert!((900..1100).contains(&dropped), "{dropped} of 4000 at ratio 0.25");
        let again = run_optional(&n, &[Some(&data), Some(&ratio), Some(&on)]).unwrap();
        assert!(again[0].bit_eq(&out[0]));

        let out = run_optional(&n, &[Some(&data), Some(&ratio), None]).unwrap();
        assert!(out[0].bit_eq(&data) && out[1].as_slice::<Bool>().unwrap().iter().all(|m| m.get()));
    }

    #[test]
    fn errors_pass_as_they_are_when_nothing_is_dropped() {
        let data = tensor(&[2], &[1f64, 2.0]);
        let got = errors(&node("Dropout", 13, &[]), &[&data], &[Some(tensor(&[2], &[0.5f64, 0.25]))]);
        assert_eq!(got, [0.5, 0.25]);
    }
}
