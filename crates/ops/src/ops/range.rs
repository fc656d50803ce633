//! Range: start, start + delta, ... up to but without limit.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Element, Tensor};

use crate::budget::{self, Budget, Unit};
use crate::moves::room;
use crate::{Call, OpError, Operator, flow};

#[derive(Debug)]
struct Range;

/// Parses a node.
pub fn build(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Range))
}

/// The one element of input `index`.
fn one<'a>(call: &Call<'a>, index: usize, name: &'static str) -> Result<&'a Tensor, OpError> {
    let tensor = call.need(index, name)?;
    if tensor.len() == 1 {
        Ok(tensor)
    } else {
        Err(OpError::Input(format!("{name} has the shape {:?}, one number is expected", tensor.shape())))
    }
}

fn fill<T: Element>(len: f64, at: impl Fn(usize) -> T) -> Result<Tensor, OpError> {
    // A negative or undefined length is 0; one beyond the machine is an error.
    let len = len as usize;
    let mut out = room(&[len])?;
    out.extend((0..len).map(at));
    Ok(Tensor::vector(out))
}

impl Operator for Range {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let inputs = [one(call, 0, "start")?, one(call, 1, "limit")?, one(call, 2, "delta")?];
        let dtype = inputs[0].dtype();
        let numbers = inputs.map(Tensor::to_f64);
        let [start, limit, delta] = numbers.map(|x| x.map(|x| x[0]));
        let (start, limit, delta) = (start?, limit?, delta?);
        if delta == 0.0 {
            return Err(OpError::Input("delta is 0, a range must go somewhere".into()));
        }
        let out = match dtype {
            DType::F32 => {
                let (start, limit, delta) = (start as f32, limit as f32, delta as f32);
                fill(f64::from(((limit - start) / delta).ceil()), |i| start + i as f32 * delta)?
            }
            DType::F64 => fill(((limit - start) / delta).ceil(), |i| start + i as f64 * delta)?,
            dtype if dtype.is_int() => {
                let whole = inputs.map(Tensor::to_i64);
                let [start, limit, delta] = whole.map(|x| x.map(|x| i128::from(x[0])));
                let (start, limit, delta) = (start?, limit?, delta?);
                let distance = if delta > 0 { limit - start } else { start - limit };
                let steps = if distance <= 0 { 0 } else { (distance - 1) / delta.abs() + 1 };
                fill(steps as f64, |i| (start + i as i128 * delta) as i64)?.cast(dtype)?
            }
            found => return Err(OpError::DType { what: "start", found, supported: "floats, integers" }),
        };
        Ok(vec![out])
    }

    /// u(|y| + 2|y - start|), c = 1: a product and a sum, or a difference that was rounded before.
    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if !output.dtype().is_float() {
            return Ok(budget::exact(output.len()));
        }
        let start = one(call, 0, "start")?.to_f64()?[0];
        let units = output.to_f64()?.iter().map(|y| unit.u * (y.abs() + 2.0 * (y - start).abs())).collect();
        Ok(budget::scaled(units, 1.0, unit))
    }

    /// The start's error and the step's as often as it was made; the limit only counts.
    fn propagate(
        &self,
        _: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        if !outputs[0].dtype().is_float() {
            return flow::none(outputs);
        }
        let error = |i: usize| -> Result<f64, OpError> {
            let error = errors.get(i).and_then(Option::as_ref).map(Tensor::to_f64).transpose()?;
            Ok(error.and_then(|e| e.first().copied()).unwrap_or(0.0))
        };
        let (start, delta) = (error(0)?, error(2)?);
        let out = (0..outputs[0].len()).map(|i| start + i as f64 * delta).collect();
        Ok(vec![Tensor::from_vec(outputs[0].shape(), out)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{errors, first, node, run, tensor};

    fn scalar<T: Element>(x: T) -> Tensor {
        tensor(&[], &[x])
    }

    #[test]
    fn ranges_as_a_table() {
        let range = node("Range", 11, &[]);
        let cases: [(i64, i64, i64, Option<&[i64]>); 7] = [
            (1, 6, 2, Some(&[1, 3, 5])),
            (1, 7, 2, Some(&[1, 3, 5])),
            (5, 1, -2, Some(&[5, 3])),
            (1, 1, 1, Some(&[])),
            (5, 1, 1, Some(&[])),
            (0, 1, 0, None),
            (i64::MIN, i64::MAX, 1, None),
        ];
        for (start, limit, delta, expected) in cases {
            let got = run(&range, &[&scalar(start), &scalar(limit), &scalar(delta)]);
            let got = got.ok().map(|t| t[0].as_slice::<i64>().unwrap().to_vec());
            assert_eq!(got, expected.map(<[i64]>::to_vec), "{start} {limit} {delta}");
        }
        let floats = first(&range, &[&scalar(0f32), &scalar(0.9f32), &scalar(0.25f32)]);
        assert_eq!(floats.as_slice::<f32>().unwrap(), [0., 0.25, 0.5, 0.75]);
        let short = first(&range, &[&scalar(3i16), &scalar(0i16), &scalar(-1i16)]);
        assert_eq!(short.as_slice::<i16>().unwrap(), [3, 2, 1]);
        assert_eq!(first(&range, &[&scalar(0f32), &scalar(f32::NAN), &scalar(1f32)]).len(), 0);
        assert!(run(&range, &[&scalar(0f32), &scalar(f32::INFINITY), &scalar(1f32)]).is_err());
    }

    #[test]
    fn errors_of_the_step_add_up() {
        let inputs = [&scalar(0f64), &scalar(3f64), &scalar(1f64)];
        let given = [Some(scalar(0.5)), Some(scalar(9.0)), Some(scalar(0.25))];
        assert_eq!(errors(&node("Range", 11, &[]), &inputs, &given), [0.5, 0.75, 1.0]);
    }
}
