//! Scatter, ScatterElements and ScatterND: a copy of the data with updates written, added, multiplied or compared in
//! at the places that indices name. TensorScatter: updates written along a cache's axis.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, element_count, normalise_axis};

use super::gather_elements::{Tuples, element_offsets, tuple_offsets};
use crate::budget::{self, Budget, Unit};
use crate::moves::{Move, move_elements};
use crate::ops::matmul::absolute;
use crate::{Call, Flow, OpError, Operator, arguments, attributes, for_number};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reduction {
    None,
    Add,
    Mul,
    Max,
    Min,
}

#[derive(Debug, Clone, Copy)]
enum Places {
    /// Indices along one axis, at their own place on the others.
    Elements { axis: i64 },
    /// Tuples of indices that name slices.
    Tuples,
}

#[derive(Debug)]
struct Scatter {
    places: Places,
    reduction: Reduction,
}

fn reduction(node: &Node) -> Result<Reduction, OpError> {
    Ok(match attributes::text_or(node, "reduction", "none")?.as_str() {
        "none" => Reduction::None,
        "add" => Reduction::Add,
        "mul" => Reduction::Mul,
        "max" => Reduction::Max,
        "min" => Reduction::Min,
        other => {
            return Err(OpError::Setting(format!(
                "reduction is {other:?}, it must be none, add, mul, max or min"
            )));
        }
    })
}

/// Parses a node of Scatter (versions 9 and 10) or ScatterElements.
pub fn scatter_elements(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let places = Places::Elements { axis: attributes::int_or(node, "axis", 0)? };
    Ok(Box::new(Scatter { places, reduction: reduction(node)? }))
}

/// Parses a node.
pub fn scatter_nd(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Scatter { places: Places::Tuples, reduction: reduction(node)? }))
}

/// Overwrites runs of `run` elements of input 0, at `starts`, with those of input 1.
struct Overwrite {
    starts: Vec<usize>,
    run: usize,
}

impl Move for Overwrite {
    fn run<T: Copy + Send + Sync>(&self, data: &[&[T]], _: T, out: &mut Vec<T>) {
        out.extend_from_slice(data[0]);
        if self.run > 0 {
            for (&at, update) in self.starts.iter().zip(data[1].chunks(self.run)) {
                out[at..at + self.run].copy_from_slice(update);
            }
        }
    }
}

/// How elements of one type meet.
trait Meet: Copy {
    fn meet(reduction: Reduction) -> fn(Self, Self) -> Self;
}

macro_rules! meet {
    ($add:expr, $mul:expr, $max:expr, $min:expr; $($t:ty),*) => { $(impl Meet for $t {
        fn meet(reduction: Reduction) -> fn(Self, Self) -> Self {
            match reduction {
                Reduction::None => |_, update| update,
                Reduction::Add => $add,
                Reduction::Mul => $mul,
                Reduction::Max => $max,
                Reduction::Min => $min,
            }
        }
    })* };
}

meet!(|a, b| a + b, |a, b| a * b, |a, b| if b > a || b.is_nan() { b } else { a },
      |a, b| if b < a || b.is_nan() { b } else { a }; f32, f64);
meet!(|a, b| a.wrapping_add(b), |a, b| a.wrapping_mul(b), Ord::max, Ord::min; i64, i32, i16, i8, u64, u32, u16, u8);

impl Scatter {
    /// Where the updates go, and how many elements each takes. Fails where updates and indices do not fit.
    fn overwrite(&self, data: &Tensor, indices: &Tensor, updates: &Tensor) -> Result<Overwrite, OpError> {
        let (kernel, expected) = match self.places {
            Places::Elements { axis } => {
                let axis = normalise_axis(axis, data.rank())?;
                let starts = element_offsets(data.shape(), indices, axis)?;
                (Overwrite { starts, run: 1 }, indices.shape().to_vec())
            }
            Places::Tuples => {
                let Tuples { starts, slice } = tuple_offsets(data.shape(), indices, 0)?;
                let lead = &indices.shape()[..indices.rank() - 1];
                (Overwrite { starts, run: element_count(&slice)? }, [lead, &slice].concat())
            }
        };
        if updates.shape() == expected {
            Ok(kernel)
        } else {
            Err(OpError::Input(format!(
                "updates have the shape {:?}, indices of shape {:?} ask for {expected:?}",
                updates.shape(),
                indices.shape()
            )))
        }
    }

    fn inputs<'a>(call: &Call<'a>) -> Result<(&'a Tensor, &'a Tensor, &'a Tensor), OpError> {
        Ok((call.need(0, "data")?, call.need(1, "indices")?, call.need(2, "updates")?))
    }
}

impl Operator for Scatter {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (data, indices, updates) = Self::inputs(call)?;
        let places = self.overwrite(data, indices, updates)?;
        if self.reduction == Reduction::None {
            return Ok(vec![move_elements(&[data, updates], data.shape(), &places)?]);
        }
        let out = for_number!(data.dtype(), "data", T => {
            let meet = <T as Meet>::meet(self.reduction);
            let mut out = data.as_slice::<T>()?.to_vec();
            let updates = updates.as_slice::<T>()?;
            for (&at, update) in places.starts.iter().zip(updates.chunks(places.run.max(1))) {
                for (out, &update) in out[at..].iter_mut().zip(update) {
                    *out = meet(*out, update);
                }
            }
            Ok(Tensor::from_vec(data.shape(), out)?)
        })?;
        Ok(vec![out])
    }

    fn flow(&self) -> Flow {
        match self.reduction {
            Reduction::None => Flow::Moves,
            Reduction::Add => Flow::Linear,
            _ => Flow::General,
        }
    }

    /// Where nothing meets: exact, as are the larger and the smaller. A sum of K elements: u|y| + c sqrt(K) u AB,
    /// c = 4, with AB the sum of absolute values. A product of K: K u |y| + K eta, c = 1.
    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if !matches!(self.reduction, Reduction::Add | Reduction::Mul) || !output.dtype().is_float() {
            return Ok(budget::exact(output.len()));
        }
        let (data, indices, updates) = Self::inputs(call)?;
        let places = self.overwrite(data, indices, updates)?;
        let mut terms = vec![0f64; output.len()];
        for &at in &places.starts {
            terms[at..at + places.run].iter_mut().for_each(|t| *t += 1.0);
        }
        let y = output.to_f64()?;
        if self.reduction == Reduction::Mul {
            let units = y.iter().zip(terms).map(|(y, k)| k * (unit.u * y.abs() + unit.eta)).collect();
            return Ok(budget::scaled(units, 1.0, unit));
        }
        let (data, updates) = (absolute(data)?, absolute(updates)?);
        let inputs = [Some(&data), Some(indices), Some(&updates)];
        let magnitude = self.run(&call.with_inputs(&inputs))?.swap_remove(0);
        let magnitude = magnitude.to_f64()?;
        let c = unit.factor(4.0);
        let one = |((y, k), ab): ((&f64, &f64), &f64)| {
            if *k == 0.0 { 0.0 } else { unit.u * y.abs() + c * k.sqrt() * unit.u * ab + k * unit.eta }
        };
        Ok(y.iter().zip(&terms).zip(magnitude.iter()).map(one).collect())
    }
}

#[derive(Debug)]
struct TensorScatter {
    axis: i64,
    circular: bool,
}

/// Parses a node.
pub fn tensor_scatter(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let circular = match attributes::text_or(node, "mode", "linear")?.as_str() {
        "linear" => false,
        "circular" => true,
        other => return Err(OpError::Setting(format!("mode is {other:?}, it must be linear or circular"))),
    };
    Ok(Box::new(TensorScatter { axis: attributes::int_or(node, "axis", -2)?, circular }))
}

impl Operator for TensorScatter {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (past, update) = (call.need(0, "past_cache")?, call.need(1, "update")?);
        let axis = normalise_axis(self.axis, past.rank())?;
        if axis == 0 {
            return Err(OpError::Setting("axis is 0, which is the batch".into()));
        }
        let (room, len) = (past.shape()[axis], update.shape().get(axis).copied().unwrap_or(0));
        let fits = update.rank() == past.rank()
            && len <= room
            && (0..past.rank()).all(|i| i == axis || past.shape()[i] == update.shape()[i]);
        if !fits {
            return Err(OpError::Input(format!(
                "an update of shape {:?} does not fit a cache of shape {:?} along axis {axis}",
                update.shape(),
                past.shape()
            )));
        }
        let batch = past.shape()[0];
        let starts = arguments::ints(call, 2, "write_indices")?.unwrap_or_else(|| vec![0; batch].into());
        if starts.len() != batch {
            return Err(OpError::Input(format!("{} write_indices for a batch of {batch}", starts.len())));
        }
        let mut kernel = Overwrite { starts: Vec::new(), run: 0 };
        if !past.is_empty() && len > 0 {
            kernel.run = past.shape()[axis + 1..].iter().product();
            let rows: usize = past.shape()[1..axis].iter().product();
            for (b, &start) in starts.iter().enumerate() {
                let start = arguments::count(start, "a write index")?;
                if !self.circular && start > room - len {
                    return Err(OpError::Input(format!(
                        "write index {start} of sample {b} and {len} updates go beyond axis {axis} of size {room}"
                    )));
                }
                for row in b * rows..(b + 1) * rows {
                    let place = |s: usize| row * room + (start % room + s) % room;
                    let places =
                        (0..len).map(|s| if self.circular { place(s) } else { row * room + start + s });
                    kernel.starts.extend(places.map(|p| p * kernel.run));
                }
            }
        }
        Ok(vec![move_elements(&[past, update], past.shape(), &kernel)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{counting, errors, first, ints, node, run, tensor};

    fn how(name: &str) -> (&str, Attribute) {
        ("reduction", Attribute::Bytes(name.into()))
    }

    #[test]
    fn elements_as_a_table() {
        let data = tensor(&[2, 3], &[1f32, 2., 3., 4., 5., 6.]);
        let (indices, updates) =
            (tensor(&[2, 2], &[1i64, 1, -1, 0]), tensor(&[2, 2], &[10f32, 20., 0.5, f32::NAN]));
        let cases: [(&str, &[f32]); 5] = [
            ("none", &[1., 20., 3., f32::NAN, 5., 0.5]),
            ("add", &[1., 32., 3., f32::NAN, 5., 6.5]),
            ("mul", &[1., 400., 3., f32::NAN, 5., 3.]),
            ("max", &[1., 20., 3., f32::NAN, 5., 6.]),
            ("min", &[1., 2., 3., f32::NAN, 5., 0.5]),
        ];
        for (name, expected) in cases {
            let n = node("ScatterElements", 18, &[how(name), ("axis", Attribute::Int(1))]);
            let out = first(&n, &[&data, &indices, &updates]);
            let same = out
                .as_slice::<f32>()
                .unwrap()
                .iter()
                .zip(expected)
                .all(|(a, b)| a == b || a.is_nan() && b.is_nan());
            assert!(same, "{name}: {out:?}");
        }
        let old = node("Scatter", 9, &[("axis", Attribute::Int(1))]);
        assert_eq!(first(&old, &[&data, &indices, &updates]).as_slice::<f32>().unwrap()[1], 20.0);
        let bad = node("ScatterElements", 18, &[how("mean")]);
        assert!(run(&bad, &[&data, &indices, &updates]).is_err());
        let n = node("ScatterElements", 18, &[]);
        assert!(run(&n, &[&data, &indices, &tensor(&[2, 1], &[0f32; 2])]).is_err());
        let out = run(&n, &[&data, &tensor(&[1, 1], &[2i64]), &tensor(&[1, 1], &[0f32])]);
        assert!(out.unwrap_err().to_string().contains("axis 0 of size 2"));
    }

    #[test]
    fn tuples_as_a_table() {
        let data = counting(&[3, 2]);
        let cases: [(Tensor, Tensor, &[f32]); 4] = [
            (tensor(&[1, 1], &[1i64]), tensor(&[1, 2], &[8f32, 9.]), &[0., 1., 8., 9., 4., 5.]),
            (tensor(&[2, 2], &[0i64, 1, -1, 0]), tensor(&[2], &[8f32, 9.]), &[0., 8., 2., 3., 9., 5.]),
            (tensor::<i64>(&[0, 2], &[]), tensor::<f32>(&[0], &[]), &[0., 1., 2., 3., 4., 5.]),
            (ints(&[2, 1]), tensor(&[], &[7f32]), &[0., 1., 2., 3., 4., 7.]),
        ];
        for (indices, updates, expected) in cases {
            let out = first(&node("ScatterND", 16, &[]), &[&data, &indices, &updates]);
            assert_eq!(out.as_slice::<f32>().unwrap(), expected, "{indices:?}");
        }
        let twice = [tensor(&[2, 1], &[1i64, 1]), tensor(&[2, 2], &[1f32, 2., 3., 4.])];
        let out = first(&node("ScatterND", 16, &[how("add")]), &[&data, &twice[0], &twice[1]]);
        assert_eq!(out.as_slice::<f32>().unwrap(), [0., 1., 6., 9., 4., 5.]);
        let text = Tensor::from_strings(&[1], vec!["a".into()]).unwrap();
        let b = Tensor::from_strings(&[1], vec!["b".into()]).unwrap();
        let out = first(&node("ScatterND", 11, &[]), &[&text, &tensor(&[1, 1], &[0i64]), &b]);
        assert_eq!(out.as_strings().unwrap(), ["b"]);
        assert!(run(&node("ScatterND", 16, &[]), &[&data, &twice[0], &counting(&[2, 3])]).is_err());
    }

    #[test]
    fn errors_are_overwritten_or_summed() {
        let inputs = [tensor(&[2], &[1f64, 2.]), ints(&[1, 1]), tensor(&[2], &[3f64, 4.])];
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let given = [Some(tensor(&[2], &[0.5f64, 0.25])), None, Some(tensor(&[2], &[0.125f64, 1.0]))];
        let n = |name| node("ScatterElements", 18, &[how(name)]);
        assert_eq!(errors(&n("none"), &inputs, &given), [0.5, 1.0]);
        let sum = errors(&n("add"), &inputs, &given);
        assert!((sum[0] - 0.5).abs() < 1e-6 && (sum[1] - 1.375).abs() < 1e-6, "{sum:?}");
    }

    #[test]
    fn the_budget_of_a_sum_is_where_elements_meet() {
        let inputs = [tensor(&[2], &[1f64, 2.]), ints(&[1]), tensor(&[1], &[3f64])];
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Some).collect();
        let add = crate::build(&node("ScatterElements", 18, &[how("add")])).unwrap();
        let call = Call::new(&inputs);
        let out = add.run(&call).unwrap().swap_remove(0);
        let budget = add.budget(&call, 0, &out, Unit::F32).unwrap();
        assert_eq!(budget[0], 0.0);
        assert!(budget[1] >= 5.0 * Unit::F32.u && budget[1] < 50.0 * Unit::F32.u);
    }

    #[test]
    fn caches_are_written_in_place_or_around() {
        let past = counting(&[2, 3, 1]);
        let update = tensor(&[2, 2, 1], &[10f32, 11., 20., 21.]);
        let n = |mode: &str| node("TensorScatter", 24, &[("mode", Attribute::Bytes(mode.into()))]);
        let out = first(&n("linear"), &[&past, &update, &ints(&[1, 0])]);
        assert_eq!(out.as_slice::<f32>().unwrap(), [0., 10., 11., 20., 21., 5.]);
        let out = first(&n("circular"), &[&past, &update, &ints(&[2, 4])]);
        assert_eq!(out.as_slice::<f32>().unwrap(), [11., 1., 10., 3., 20., 21.]);
        assert_eq!(first(&n("linear"), &[&past, &update]).as_slice::<f32>().unwrap()[..2], [10., 11.]);
        assert!(run(&n("linear"), &[&past, &update, &ints(&[2, 0])]).is_err());
        assert!(run(&n("linear"), &[&past, &update, &ints(&[-1, 0])]).is_err());
        assert!(run(&n("linear"), &[&past, &counting(&[2, 4, 1])]).is_err());
    }
}
