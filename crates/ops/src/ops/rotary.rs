//! RotaryEmbedding (ONNX from version 23, and com.microsoft's): pairs of elements turned by the angle of their position.
//!
//! X is (batch, heads, positions, size) or (batch, positions, heads * size); the caches hold cosines and sines of half
//! the turned size, one row a position (looked up by `position_ids`), or, in ONNX without ids, (batch, positions, half).
//! com.microsoft's ids may be a single number: the position of the first row.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::attend::{join_heads, split_heads};
use crate::budget::{self, Budget, Unit};
use crate::spread::Number;
use crate::{Call, Float, Flow, OpError, Operator, attributes, flow, for_float};

#[derive(Debug)]
struct Rotary {
    heads: usize,
    turned: usize,
    interleaved: bool,
    /// com.microsoft's order of inputs: ids before the caches.
    contrib: bool,
    scale: f64,
}

fn parse(node: &Node, contrib: bool) -> Result<Box<dyn Operator>, OpError> {
    let size = |name: &str| -> Result<usize, OpError> {
        let i = attributes::int_or(node, name, 0)?;
        usize::try_from(i).map_err(|_| OpError::Setting(format!("{name} {i} must not be negative")))
    };
    if attributes::flag(node, "is_packed_batching", false)? {
        return Err(OpError::Setting(
            "is_packed_batching is not supported; export the model with padded batches".into(),
        ));
    }
    Ok(Box::new(Rotary {
        heads: size("num_heads")?,
        turned: size("rotary_embedding_dim")?,
        interleaved: attributes::flag(node, "interleaved", false)?,
        scale: attributes::float_or(node, "scale", 1.0)?.into(),
        contrib,
    }))
}

/// Parses ONNX's operator.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, false)
}

/// Parses com.microsoft's operator.
pub fn build_contrib(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, true)
}

/// Turns the first elements of a row of one head: `cosines` and `sines` are half as many.
pub(crate) fn turn<N: Number>(row: &mut [N], cosines: &[N::Weight], sines: &[N::Weight], interleaved: bool) {
    let half = cosines.len();
    for i in 0..half {
        let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, half + i) };
        let (x, y) = (row[a], row[b]);
        let (c, s, minus) = (N::exact(cosines[i]), N::exact(sines[i]), N::exact(-sines[i]));
        row[a] = c.times(x).plus(minus.times(y));
        row[b] = s.times(x).plus(c.times(y));
    }
}

/// The row of a cache that each (sequence, position) uses.
pub(crate) fn rows(
    ids: Option<&Tensor>,
    batch: usize,
    positions: usize,
    available: usize,
) -> Result<Vec<usize>, OpError> {
    let n = batch * positions;
    let ids: Vec<i64> = match ids {
        None => (0..n as i64).collect(),
        Some(ids) if ids.len() == n && ids.rank() == 2 => ids.to_i64()?.into_owned(),
        Some(ids) if ids.len() == 1 => {
            let first = ids.to_i64()?[0];
            (0..n).map(|i| first.saturating_add((i % positions) as i64)).collect()
        }
        Some(ids) => {
            return Err(OpError::Input(format!(
                "position_ids has shape {:?}, expected [{batch}, {positions}] or one number",
                ids.shape()
            )));
        }
    };
    ids.iter().map(|&i| usize::try_from(i).ok().filter(|&i| i < available)).collect::<Option<_>>().ok_or_else(
        || OpError::Input(format!("position_ids reach outside the {available} rows of the caches")),
    )
}

impl Rotary {
    /// The turned tensor, or with `absolute` the sums of absolute products.
    fn compute<T: Float>(&self, call: &Call<'_>, absolute: bool) -> Result<Tensor, OpError> {
        let (cache, ids) = if self.contrib { (2, call.get(1)) } else { (1, call.get(3)) };
        let x = call.need(0, "X")?;
        let (cosines, sines) = (call.need(cache, "cos_cache")?, call.need(cache + 1, "sin_cache")?);
        let half = cosines.shape().last().copied().unwrap_or(0);
        let (batch, heads, positions, size) = match *x.shape() {
            [b, h, s, d] => (b, h, s, d),
            [b, s, hidden] => {
                // com.microsoft leaves the number of heads to the caches.
                let heads = match self.heads {
                    0 if self.contrib && half > 0 => hidden / (2 * half),
                    n => n,
                };
                if heads == 0 || hidden % heads != 0 {
                    return Err(OpError::Input(format!(
                        "{hidden} elements a position do not make {heads} heads; is num_heads right?"
                    )));
                }
                (b, heads, s, hidden / heads)
            }
            _ => return Err(OpError::Input(format!("X has shape {:?}, expected 3 or 4 axes", x.shape()))),
        };
        let turned = if self.turned == 0 { size } else { self.turned };
        if sines.shape() != cosines.shape() || 2 * half != turned || turned > size {
            return Err(OpError::Input(format!(
                "caches of shapes {:?} and {:?} do not fit {turned} turned elements of {size}; expected {} columns",
                cosines.shape(),
                sines.shape(),
                turned / 2
            )));
        }
        let rows = rows(ids, batch, positions, cosines.len().checked_div(half).unwrap_or(usize::MAX))?;
        let magnitude =
            |t: &[T]| -> Vec<T> { if absolute { t.iter().map(|x| x.abs()).collect() } else { t.to_vec() } };
        let (c, s) = (magnitude(cosines.as_slice()?), magnitude(sines.as_slice()?));
        let x = magnitude(x.as_slice()?);
        let three = call.need(0, "X")?.rank() == 3;
        let mut out = if three { split_heads(&x, batch, positions, heads, size) } else { x };
        for (i, row) in out.chunks_mut(size.max(1)).enumerate() {
            let (b, position) = (i / (heads * positions), i % positions);
            let at = rows[b * positions + position] * half;
            if absolute {
                turn_magnitudes(&mut row[..turned], &c[at..at + half], &s[at..at + half], self.interleaved);
            } else {
                turn::<T>(&mut row[..turned], &c[at..at + half], &s[at..at + half], self.interleaved);
                if self.scale != 1.0 {
                    let scale = T::of(self.scale);
                    for x in row {
                        *x *= scale;
                    }
                }
            }
        }
        let out = if three { join_heads(&out, batch, heads, positions, size) } else { out };
        Ok(Tensor::from_vec(call.need(0, "X")?.shape(), out)?)
    }
}

fn turn_magnitudes<T: Float>(row: &mut [T], cosines: &[T], sines: &[T], interleaved: bool) {
    let half = cosines.len();
    for i in 0..half {
        let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, half + i) };
        let (x, y) = (row[a], row[b]);
        row[a] = cosines[i] * x + sines[i] * y;
        row[b] = sines[i] * x + cosines[i] * y;
    }
}

impl Operator for Rotary {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        Ok(vec![for_float!(x.dtype(), "X", T => self.compute::<T>(call, false))?])
    }

    fn flow(&self) -> Flow {
        // Signs differ between the products: `propagate` below takes magnitudes itself.
        Flow::Linear
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let magnitude = self.compute::<f64>(call, true)?;
        let scale = self.scale.abs();
        let magnitude: Vec<f64> = magnitude.to_f64()?.iter().map(|m| m * scale).collect();
        budget::sum(output, &magnitude, 2.0, unit)
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let run = |c: &Call<'_>| Ok(vec![self.compute::<f64>(c, true)?]);
        flow::propagate(Flow::Linear, &run, call, outputs, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarter_turns_in_both_orders() {
        // Position 0 stays, position 1 turns by a right angle.
        let cosines = Tensor::from_vec(&[2, 2], vec![1.0, 1.0, 0.0, 0.0]).unwrap();
        let sines = Tensor::from_vec(&[2, 2], vec![0.0, 0.0, 1.0, 1.0]).unwrap();
        let x = Tensor::from_vec(&[1, 1, 2, 5], vec![1., 2., 3., 4., 9., 1., 2., 3., 4., 9.]).unwrap();
        let ids = Tensor::from_vec(&[1, 2], vec![0i64, 1]).unwrap();
        for (interleaved, expected) in [(false, [-3., -4., 1., 2., 9.]), (true, [-2., 1., -4., 3., 9.])] {
            let op = Rotary { heads: 0, turned: 4, interleaved, contrib: false, scale: 1.0 };
            let inputs = [Some(&x), Some(&cosines), Some(&sines), Some(&ids)];
            let out = op.run(&Call::new(&inputs)).unwrap();
            let out = out[0].to_f64().unwrap();
            assert_eq!(out[..5], [1., 2., 3., 4., 9.]);
            assert_eq!(out[5..], expected, "interleaved {interleaved}");
        }
        let far = Tensor::from_vec(&[1, 2], vec![0i64, 2]).unwrap();
        let op = Rotary { heads: 0, turned: 4, interleaved: false, contrib: false, scale: 1.0 };
        assert!(op.run(&Call::new(&[Some(&x), Some(&cosines), Some(&sines), Some(&far)])).is_err());
    }

    #[test]
    fn opposite_terms_do_not_hide_each_others_errors() {
        let (c, s) = (Tensor::full(&[1, 1, 1], 0.6).unwrap(), Tensor::full(&[1, 1, 1], 0.8).unwrap());
        let x = Tensor::from_vec(&[1, 1, 1, 2], vec![0.8, 0.6]).unwrap();
        let op = Rotary { heads: 0, turned: 0, interleaved: false, contrib: false, scale: 1.0 };
        let inputs = [Some(&x), Some(&c), Some(&s)];
        let call = Call::new(&inputs);
        let y = op.run(&call).unwrap();
        assert!(y[0].to_f64().unwrap()[0].abs() < 1e-15);
        let e = Tensor::full(&[1, 1, 1, 2], 1e-7).unwrap();
        let change = op.propagate(&call, &y, &[Some(e), None, None]).unwrap();
        assert!((change[0].to_f64().unwrap()[0] - 1.4e-7).abs() < 1e-12);
        assert!(op.budget(&call, 0, &y[0], Unit::F32).unwrap()[0] > 1e-8);
    }
}
