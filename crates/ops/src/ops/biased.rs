//! com.microsoft's BiasAdd (X + bias + skip) and BiasSoftmax (softmax of data + bias over the axes from `axis` on).

#![expect(
    clippy::redundant_closure,
    reason = "a function passed by name is called through a shim, which is not inlined for certain"
)]

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::arithmetic::{Kind, binary};
use super::softmax::{each_row, softmax_row, split};
use crate::budget::{self, Budget, Unit};
use crate::{Call, Flow, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct BiasAdd;

/// Parses a node of BiasAdd.
pub fn add(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(BiasAdd))
}

fn total(call: &Call<'_>, f: impl Fn(&Tensor) -> Result<Tensor, OpError>) -> Result<Tensor, OpError> {
    let sum = binary(Kind::Add, &f(call.need(0, "X")?)?, &f(call.need(1, "bias")?)?)?;
    binary(Kind::Add, &sum, &f(call.need(2, "skip")?)?)
}

impl Operator for BiasAdd {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![total(call, |t| Ok(t.clone()))?])
    }

    fn flow(&self) -> Flow {
        Flow::Linear
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let magnitude = total(call, super::matmul::absolute)?;
        budget::sum(output, &magnitude.to_f64()?, 3.0, unit)
    }
}

#[derive(Debug)]
struct BiasSoftmax {
    axis: i64,
}

/// Parses a node of BiasSoftmax. The bias broadcasts by its shape, whatever `is_inner_broadcast` says of it.
pub fn softmax(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(BiasSoftmax { axis: attributes::int_or(node, "axis", 1)? }))
}

impl BiasSoftmax {
    fn scores(call: &Call<'_>) -> Result<Tensor, OpError> {
        let data = call.need(0, "data")?;
        let sum = binary(Kind::Add, data, call.need(1, "bias")?)?;
        if sum.shape() == data.shape() {
            Ok(sum)
        } else {
            let (found, expected) = (sum.shape(), data.shape());
            Err(OpError::Input(format!("the bias would broaden the data from {expected:?} to {found:?}")))
        }
    }
}

impl Operator for BiasSoftmax {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let scores = Self::scores(call)?;
        let rows = split(scores.shape(), self.axis, true)?;
        let y = for_float!(scores.dtype(), "data", T => {
            let y = each_row(scores.as_slice::<T>()?, rows, #[inline(always)] |x, y| softmax_row(x, y));
            Ok(Tensor::from_vec(scores.shape(), y)?)
        })?;
        Ok(vec![y])
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let scores = Self::scores(call)?;
        let rows = split(scores.shape(), self.axis, true)?;
        let mut found = budget::softmax(&scores.reshape(&rows)?, &output.reshape(&rows)?, 1, unit)?;
        // The scores were rounded when the bias was added: p (e_i + sum p e), e = u |score|.
        let (s, p) = (scores.to_f64()?, output.to_f64()?);
        let len = rows[1].max(1);
        for (row, (s, p)) in s.chunks(len).zip(p.chunks(len)).enumerate() {
            let e = |s: f64, p: f64| if p == 0.0 { 0.0 } else { unit.u * s.abs() };
            let mean: f64 = s.iter().zip(p).map(|(&s, &p)| p * e(s, p)).sum();
            for (i, (&s, &p)) in s.iter().zip(p).enumerate() {
                let more = p * (e(s, p) + mean);
                found[row * len + i] += more;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{first, node, run, tensor};

    #[test]
    fn bias_first() {
        let x = tensor(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let mut add = node("BiasAdd", 1, &[]);
        add.domain = "com.microsoft".into();
        let y = first(&add, &[&x, &tensor(&[2], &[10.0, 20.0]), &x]);
        assert_eq!(y.as_slice::<f64>().unwrap(), [12.0, 24.0, 16.0, 28.0]);

        let mut softmax = node("BiasSoftmax", 1, &[("axis", Attribute::Int(2))]);
        softmax.domain = "com.microsoft".into();
        let mask = tensor(&[1, 1, 2], &[0.0, f64::NEG_INFINITY]);
        let y = first(&softmax, &[&x, &mask]);
        assert_eq!(y.as_slice::<f64>().unwrap(), [1.0, 0.0, 1.0, 0.0]);
        assert!(run(&softmax, &[&x, &tensor(&[3, 1, 2], &[0.0; 6])]).is_err());
    }
}
