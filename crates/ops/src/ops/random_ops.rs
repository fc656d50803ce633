//! RandomNormal, RandomUniform (and their Like forms), Multinomial, Bernoulli.
//!
//! Deterministic from the attribute `seed` (0 where left out), the same on every machine and for every precision.
//! The standard leaves the generator open: the numbers are not those that ONNX Runtime or PyTorch draw.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor};

use crate::moves::room;
use crate::random::{Random, Stream};
use crate::{Call, Decision, Flow, OpError, Operator, arguments, attributes, flow};

#[derive(Debug, Clone, Copy)]
enum Law {
    Normal { mean: f64, deviation: f64 },
    Uniform { low: f64, high: f64 },
}

impl Law {
    fn draw(self, stream: &mut Stream) -> f64 {
        match self {
            Self::Normal { mean, deviation } => mean + deviation * stream.normal(),
            Self::Uniform { low, high } => low + (high - low) * stream.uniform(),
        }
    }
}

#[derive(Debug)]
struct Fill {
    law: Law,
    dtype: Option<DType>,
    /// The shape of input 0 where `None`.
    shape: Option<Vec<usize>>,
    random: Random,
}

fn normal(node: &Node) -> Result<Law, OpError> {
    let number = |name, default| attributes::float_or(node, name, default).map(f64::from);
    Ok(Law::Normal { mean: number("mean", 0.0)?, deviation: number("scale", 1.0)? })
}

fn uniform(node: &Node) -> Result<Law, OpError> {
    let number = |name, default| attributes::float_or(node, name, default).map(f64::from);
    Ok(Law::Uniform { low: number("low", 0.0)?, high: number("high", 1.0)? })
}

fn fill(node: &Node, law: Law, like: bool) -> Result<Box<dyn Operator>, OpError> {
    let dtype = attributes::dtype(node, "dtype")?;
    let shape = if like {
        None
    } else {
        let shape = attributes::ints(node, "shape")?;
        let shape =
            shape.ok_or_else(|| OpError::Setting(format!("{} needs the attribute \"shape\"", node.op)))?;
        Some(arguments::sizes(&shape, "shape")?)
    };
    let dtype = if like { dtype } else { dtype.or(Some(DType::F32)) };
    Ok(Box::new(Fill { law, dtype, shape, random: Random::of(node)? }))
}

/// Parses a node.
pub fn random_normal(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    fill(node, normal(node)?, false)
}

/// Parses a node.
pub fn random_normal_like(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    fill(node, normal(node)?, true)
}

/// Parses a node.
pub fn random_uniform(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    fill(node, uniform(node)?, false)
}

/// Parses a node.
pub fn random_uniform_like(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    fill(node, uniform(node)?, true)
}

impl Operator for Fill {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = match &self.shape {
            Some(shape) => shape,
            None => call.need(0, "input")?.shape(),
        };
        let dtype = match self.dtype {
            Some(dtype) => dtype,
            None => call.need(0, "input")?.dtype(),
        };
        if !dtype.is_float() {
            return Err(OpError::DType { what: "dtype", found: dtype, supported: "floats" });
        }
        let mut numbers = room(shape)?;
        let mut stream = self.random.stream();
        numbers.extend((0..isotrace_tensor::element_count(shape)?).map(|_| self.law.draw(&mut stream)));
        // Rounded to the declared type in either precision: a float64 run then sees the same numbers.
        let out = Tensor::from_vec(shape, numbers)?.cast(dtype)?;
        Ok(vec![out.cast(call.precision.resolve(dtype))?])
    }

    fn draws(&self) -> bool {
        true
    }

    fn keeps_half(&self) -> bool {
        true
    }

    fn propagate(
        &self,
        _: &Call<'_>,
        outputs: &[Tensor],
        _: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        flow::none(outputs)
    }
}

#[derive(Debug)]
struct Bernoulli {
    dtype: Option<DType>,
    random: Random,
}

/// Parses a node.
pub fn bernoulli(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Bernoulli { dtype: attributes::dtype(node, "dtype")?, random: Random::of(node)? }))
}

impl Operator for Bernoulli {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let chance = call.need(0, "input")?;
        let dtype = call.precision.resolve(self.dtype.unwrap_or(chance.dtype()));
        let mut stream = self.random.stream();
        let drawn = chance.to_f64()?.iter().map(|&p| u8::from(stream.uniform() < p)).collect();
        Ok(vec![Tensor::from_vec(chance.shape(), drawn)?.cast(dtype)?])
    }

    fn draws(&self) -> bool {
        true
    }

    fn keeps_half(&self) -> bool {
        true
    }

    fn flow(&self) -> Flow {
        Flow::Decided
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

/// Draws classes from rows of unnormalised log-probabilities, [batch, classes] to [batch, `sample_size`].
#[derive(Debug)]
struct Multinomial {
    samples: usize,
    dtype: DType,
    random: Random,
}

/// Parses a node.
pub fn multinomial(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Multinomial {
        samples: arguments::count(attributes::int_or(node, "sample_size", 1)?, "sample_size")?,
        dtype: attributes::dtype(node, "dtype")?.unwrap_or(DType::I32),
        random: Random::of(node)?,
    }))
}

impl Operator for Multinomial {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let input = call.need(0, "input")?;
        let &[batch, classes] = input.shape() else {
            return Err(OpError::Input(format!("input {:?} must be [batch, classes]", input.shape())));
        };
        if classes == 0 && batch * self.samples > 0 {
            return Err(OpError::Input("there is no class to draw".into()));
        }
        let shape = [batch, self.samples];
        let mut drawn: Vec<i64> = room(&shape)?;
        let mut stream = self.random.stream();
        for row in input.to_f64()?.chunks(classes.max(1)) {
            let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut sum = 0.0;
            let sums: Vec<f64> = row
                .iter()
                .map(|x| {
                    sum += libm::exp(x - max);
                    sum
                })
                .collect();
            drawn.extend((0..self.samples).map(|_| {
                let at = stream.uniform() * sum;
                sums.partition_point(|&s| s <= at).min(classes - 1) as i64
            }));
        }
        Ok(vec![Tensor::from_vec(&shape, drawn)?.cast(self.dtype)?])
    }

    fn draws(&self) -> bool {
        true
    }

    fn keeps_half(&self) -> bool {
        true
    }

    fn flow(&self) -> Flow {
        Flow::Decided
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{counting, first, node, run, tensor};

    #[test]
    fn what_draws_says_so() {
        let float = |name, x| (name, Attribute::Float(x));
        let cases = [
            (node("RandomNormal", 1, &[("shape", Attribute::Ints(vec![2]))]), true),
            (node("RandomUniformLike", 1, &[]), true),
            (node("Bernoulli", 15, &[]), true),
            (node("Multinomial", 7, &[]), true),
            // The first versions are told by a setting whether they train.
            (node("Dropout", 6, &[("is_test", Attribute::Int(0)), float("ratio", 0.5)]), true),
            (node("Dropout", 6, &[("is_test", Attribute::Int(1)), float("ratio", 0.5)]), false),
            (node("Dropout", 7, &[float("ratio", 0.5)]), false),
            (node("Identity", 13, &[]), false),
            (node("Add", 13, &[]), false),
        ];
        let mut wrong = vec![];
        for (n, expected) in cases {
            let found = crate::registry::build(&n).unwrap().draws();
            if found != expected {
                wrong.push(format!("{} {}: {found}", n.op, n.version));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn laws_have_their_moments() {
        let shape = ("shape", Attribute::Ints(vec![100, 100]));
        let float = |name, x| (name, Attribute::Float(x));
        let cases = [
            (node("RandomNormal", 1, &[shape.clone(), float("mean", 3.0), float("scale", 2.0)]), 3.0, 4.0),
            (node("RandomUniform", 1, &[shape.clone(), float("low", -1.0), float("high", 5.0)]), 2.0, 3.0),
        ];
        for (n, mean, variance) in cases {
            let out = first(&n, &[]);
            let x = out.to_f64().unwrap();
            let m = x.iter().sum::<f64>() / x.len() as f64;
            let v = x.iter().map(|x| (x - m).powi(2)).sum::<f64>() / x.len() as f64;
            assert!((m - mean).abs() < 0.1 && (v - variance).abs() < 0.2, "{}: {m} {v}", n.op);
            assert!(first(&n, &[]).bit_eq(&out), "the same again");
        }
        let seeded = node("RandomUniform", 1, &[shape.clone(), float("seed", 7.0)]);
        assert!(!first(&seeded, &[]).bit_eq(&first(&node("RandomUniform", 1, &[shape]), &[])));
        assert!(run(&node("RandomNormal", 1, &[]), &[]).is_err());
        let half =
            first(&node("RandomNormalLike", 1, &[("dtype", Attribute::Int(10))]), &[&counting(&[2, 3])]);
        assert_eq!((half.dtype(), half.shape()), (DType::F16, &[2, 3][..]));
        assert!(
            run(&node("RandomUniformLike", 1, &[("dtype", Attribute::Int(7))]), &[&counting(&[1])]).is_err()
        );
    }

    #[test]
    fn draws_follow_their_chances() {
        let chances = tensor(&[3, 4000], &[0f32, 0.25, 1.0].map(|p| vec![p; 4000]).concat());
        let out = first(&node("Bernoulli", 15, &[("dtype", Attribute::Int(7))]), &[&chances]);
        let ones: Vec<i64> = out.as_slice::<i64>().unwrap().chunks(4000).map(|c| c.iter().sum()).collect();
        assert!(ones[0] == 0 && (900..1100).contains(&ones[1]) && ones[2] == 4000, "{ones:?}");

        let logits = tensor(&[2, 3], &[0f32, f32::NEG_INFINITY, 3f32.ln(), 5., -200., -200.]);
        let out = first(&node("Multinomial", 7, &[("sample_size", Attribute::Int(4000))]), &[&logits]);
        let drawn = out.as_slice::<i32>().unwrap();
        let of =
            |row: usize, class| drawn[row * 4000..(row + 1) * 4000].iter().filter(|&&c| c == class).count();
        assert!((900..1100).contains(&of(0, 0)) && of(0, 1) == 0 && of(1, 0) == 4000);
        assert!(run(&node("Multinomial", 7, &[]), &[&counting(&[2])]).is_err());
        assert!(run(&node("Multinomial", 7, &[]), &[&counting(&[2, 0])]).is_err());
    }
}
