//! DFT and STFT: discrete Fourier transforms along one axis, of a whole signal or of windows that slide over it.
//!
//! Signals are real, [..., 1], or complex, [..., 2]; what comes out has two numbers an element, the real part first.
//! One-sided transforms keep the first half of the frequencies and one more, which tells a real signal's other half; the
//! inverse of those is real again. Sums are taken as they are written, angles in f64 from exact fractions of a turn.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor, normalise_axis};

use crate::budget::{self, Budget, Unit};
use crate::moves::room;
use crate::room::zeros;
use crate::{Call, Float, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct Dft {
    inverse: bool,
    one_sided: bool,
    /// An attribute below operator set 20, an input from then on.
    axis: Option<i64>,
}

#[derive(Debug)]
struct Stft {
    one_sided: bool,
}

/// Parses a DFT.
pub fn dft(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let axis = if node.version < 20 { Some(attributes::int_or(node, "axis", 1)?) } else { None };
    let (inverse, one_sided) =
        (attributes::flag(node, "inverse", false)?, attributes::flag(node, "onesided", false)?);
    Ok(Box::new(Dft { inverse, one_sided, axis }))
}

/// Parses an STFT.
pub fn stft(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Stft { one_sided: attributes::flag(node, "onesided", true)? }))
}

/// Signals longer than this would take hours, one sum after the other.
const LONGEST: usize = 1 << 16;

/// What one transform does.
#[derive(Clone, Copy)]
struct Transform {
    /// Elements of a signal, zeros behind a shorter one included.
    length: usize,
    inverse: bool,
    one_sided: bool,
}

impl Transform {
    /// Elements that come out, and numbers in each.
    fn size(self) -> (usize, usize) {
        match (self.one_sided, self.inverse) {
            (true, false) => (self.length / 2 + 1, 2),
            (true, true) => (self.length, 1),
            _ => (self.length, 2),
        }
    }

    /// Cosines and sines of all whole fractions of a turn.
    fn angles<T: Float>(self, magnitude: bool) -> Vec<(T, T)> {
        let sign = if self.inverse { 1.0 } else { -1.0 };
        let angle = |k: usize| std::f64::consts::TAU * k as f64 / self.length as f64;
        let of = |k| {
            // A bound needs no angles: no cosine and no sine is larger than one.
            if magnitude {
                (T::ONE, T::ONE)
            } else {
                (T::of(libm::cos(angle(k))), T::of(sign * libm::sin(angle(k))))
            }
        };
        (0..self.length).map(of).collect()
    }

    /// The transform of one signal; `signal(i)` is its element i, zero where there is none.
    fn of<T: Float>(
        self,
        signal: impl Fn(usize) -> (T, T),
        angles: &[(T, T)],
        magnitude: bool,
        out: &mut Vec<T>,
    ) {
        let n = self.length;
        let (count, parts) = self.size();
        let mut elements: Vec<(T, T)> = (0..n).map(signal).collect();
        if self.one_sided && self.inverse {
            // The half that is left out mirrors the one that is there.
            for k in n / 2 + 1..n {
                let (re, im) = elements[n - k];
                elements[k] = (re, -im);
            }
        }
        let norm = T::of(if self.inverse { n as f64 } else { 1.0 });
        for k in 0..count {
            let (mut re, mut im) = (T::ZERO, T::ZERO);
            let mut turn = 0;
            for &(x, y) in &elements {
                let (cos, sin) = angles[turn];
                turn = (turn + k) % n;
                if magnitude {
                    let both = x.abs() + y.abs();
                    re += both;
                    im += both;
                } else {
                    re += x * cos - y * sin;
                    im += x * sin + y * cos;
                }
            }
            out.push(re / norm);
            if parts == 2 {
                out.push(im / norm);
            }
        }
    }
}

fn scalar(t: &Tensor, name: &str) -> Result<i64, OpError> {
    match t.to_i64()?[..] {
        [x] => Ok(x),
        _ => Err(OpError::Input(format!("{name} {:?} must be one number", t.shape()))),
    }
}

fn length_of(found: i64, name: &str) -> Result<usize, OpError> {
    usize::try_from(found)
        .ok()
        .filter(|&n| (1..=LONGEST).contains(&n))
        .ok_or_else(|| OpError::Input(format!("{name} is {found}, it must lie between 1 and {LONGEST}")))
}

/// Numbers an element of a signal has: one or two.
fn parts(shape: &[usize]) -> Result<usize, OpError> {
    match shape.last() {
        Some(&n @ (1 | 2)) if shape.len() >= 2 => Ok(n),
        _ => Err(OpError::Input(format!(
            "the signal {shape:?} must end in an axis of 1 (real) or 2 (complex)"
        ))),
    }
}

impl Dft {
    fn evaluate(&self, call: &Call<'_>, magnitude: bool) -> Result<Tensor, OpError> {
        let x = call.need(0, "input")?;
        for_float!(x.dtype(), "input", T => self.transform::<T>(call, magnitude))
    }

    /// The axis along which a call transforms, and how.
    fn what(&self, call: &Call<'_>) -> Result<(usize, Transform), OpError> {
        let x = call.need(0, "input")?;
        let axis = match (self.axis, call.get(2)) {
            (Some(axis), _) => axis,
            (None, Some(axis)) => scalar(axis, "axis")?,
            (None, None) => -2,
        };
        let axis = normalise_axis(axis, x.rank())?;
        if axis + 1 == x.rank() {
            return Err(OpError::Input("the last axis holds real and imaginary parts, and no signal".into()));
        }
        let given = x.shape()[axis];
        let length = match call.get(1).filter(|t| !t.is_empty()) {
            Some(t) => length_of(scalar(t, "dft_length")?, "dft_length")?,
            None if self.one_sided && self.inverse => {
                length_of(2 * (given as i64 - 1), "the signal's length")?
            }
            None => length_of(given as i64, "the signal's length")?,
        };
        Ok((axis, Transform { length, inverse: self.inverse, one_sided: self.one_sided }))
    }

    fn transform<T: Float>(&self, call: &Call<'_>, magnitude: bool) -> Result<Tensor, OpError> {
        let x = call.need(0, "input")?;
        let width = parts(x.shape())?;
        let (axis, what) = self.what(call)?;
        let given = x.shape()[axis];
        let (count, out_width) = what.size();
        let mut shape = x.shape().to_vec();
        shape[axis] = count;
        shape[x.rank() - 1] = out_width;
        let outer: usize = x.shape()[..axis].iter().product();
        let inner: usize = x.shape()[axis + 1..x.rank() - 1].iter().product();
        let data = x.as_slice::<T>()?;
        let angles = what.angles::<T>(magnitude);
        let mut out = zeros::<T>(&shape)?;
        let mut one = Vec::with_capacity(count * out_width);
        for o in 0..outer {
            for i in 0..inner {
                let at = |k: usize| ((o * given + k) * inner + i) * width;
                let signal = |k: usize| {
                    if k >= given {
                        return (T::ZERO, T::ZERO);
                    }
                    (data[at(k)], if width == 2 { data[at(k) + 1] } else { T::ZERO })
                };
                one.clear();
                what.of(signal, &angles, magnitude, &mut one);
                for (k, values) in one.chunks(out_width).enumerate() {
                    let to = ((o * count + k) * inner + i) * out_width;
                    out[to..to + out_width].copy_from_slice(values);
                }
            }
        }
        Ok(Tensor::from_vec(&shape, out)?)
    }
}

impl Stft {
    fn evaluate(&self, call: &Call<'_>, magnitude: bool) -> Result<Tensor, OpError> {
        let x = call.need(0, "signal")?;
        for_float!(x.dtype(), "signal", T => self.transform::<T>(call, magnitude))
    }

    fn transform<T: Float>(&self, call: &Call<'_>, magnitude: bool) -> Result<Tensor, OpError> {
        let x = call.need(0, "signal")?;
        let width = parts(x.shape())?;
        let &[batch, total, _] = x.shape() else {
            return Err(OpError::Input(format!(
                "the signal {:?} must be [batch, length, 1 or 2]",
                x.shape()
            )));
        };
        let step = length_of(scalar(call.need(1, "frame_step")?, "frame_step")?, "frame_step")?;
        let window = call.get(2).map(|w| w.cast(x.dtype())).transpose()?;
        let length = match (call.get(3), &window) {
            (Some(t), _) => length_of(scalar(t, "frame_length")?, "frame_length")?,
            (None, Some(w)) => length_of(w.len() as i64, "the window's length")?,
            (None, None) => length_of(total as i64, "the signal's length")?,
        };
        if window.as_ref().is_some_and(|w| w.len() != length) || length > total {
            return Err(OpError::Input(format!(
                "a frame of {length} fits neither window nor signal ({} and {total} elements)",
                window.as_ref().map_or(length, Tensor::len)
            )));
        }
        let what = Transform { length, inverse: false, one_sided: self.one_sided };
        let (count, out_width) = what.size();
        let frames = (total - length) / step + 1;
        let shape = [batch, frames, count, out_width];
        let data = x.as_slice::<T>()?;
        let weights = window.as_ref().map(Tensor::as_slice::<T>).transpose()?;
        let angles = what.angles::<T>(magnitude);
        let mut out = room::<T>(&shape)?;
        for b in 0..batch {
            for frame in 0..frames {
                let signal = |k: usize| {
                    let at = (b * total + frame * step + k) * width;
                    let weight = weights.map_or(T::ONE, |w| w[k]);
                    (weight * data[at], if width == 2 { weight * data[at + 1] } else { T::ZERO })
                };
                what.of(signal, &angles, magnitude, &mut out);
            }
        }
        Ok(Tensor::from_vec(&shape, out)?)
    }
}

/// Roundings on the way of one element into a sum: of the angle, of the product, of the sum.
fn bound(output: &Tensor, magnitude: &Tensor, length: usize, unit: Unit) -> Result<Budget, OpError> {
    budget::sum(output, &magnitude.to_f64()?, 2.0 * length as f64, unit)
}

impl Operator for Dft {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![self.evaluate(call, false)?])
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let (_, what) = self.what(call)?;
        bound(output, &self.evaluate(call, true)?, what.length, unit)
    }
}

impl Operator for Stft {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![self.evaluate(call, false)?])
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let length = 2 * output.shape()[2];
        bound(output, &self.evaluate(call, true)?, length, unit)
    }
}

#[derive(Debug)]
struct Window {
    /// Coefficients of 1, cos(t) and cos(2t), t running from 0 to a whole turn.
    terms: [f64; 3],
    periodic: bool,
    dtype: DType,
}

fn window(node: &Node, terms: [f64; 3]) -> Result<Box<dyn Operator>, OpError> {
    let periodic = attributes::flag(node, "periodic", true)?;
    let dtype = attributes::dtype(node, "output_datatype")?.unwrap_or(DType::F32);
    Ok(Box::new(Window { terms, periodic, dtype }))
}

/// Parses a HannWindow.
pub fn hann(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    window(node, [0.5, -0.5, 0.0])
}

/// Parses a HammingWindow.
pub fn hamming(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    window(node, [25.0 / 46.0, -21.0 / 46.0, 0.0])
}

/// Parses a BlackmanWindow.
pub fn blackman(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    window(node, [0.42, -0.5, 0.08])
}

impl Operator for Window {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let size = scalar(call.need(0, "size")?, "size")?;
        let size = usize::try_from(size)
            .ok()
            .filter(|&n| n <= LONGEST)
            .ok_or_else(|| OpError::Input(format!("size is {size}, it must lie between 0 and {LONGEST}")))?;
        let turn = if self.periodic { size } else { size.saturating_sub(1) }.max(1) as f64;
        let [one, first, second] = self.terms;
        let at = |k: usize| {
            let t = std::f64::consts::TAU * k as f64 / turn;
            one + first * libm::cos(t) + second * libm::cos(2.0 * t)
        };
        let values = Tensor::vector((0..size).map(at).collect::<Vec<f64>>());
        let wide = call.precision == crate::Precision::Float64 && self.dtype.is_float();
        Ok(vec![if wide { values } else { values.cast(self.dtype)? }])
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let ones = vec![1.0; output.len()];
        budget::sum(output, &ones, 4.0, unit)
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{first, ints, node, run, tensor};

    fn flags(op: &str, version: i64, flags: &[(&str, i64)]) -> Node {
        let set: Vec<(&str, Attribute)> = flags.iter().map(|&(k, v)| (k, Attribute::Int(v))).collect();
        node(op, version, &set)
    }

    fn near(t: &Tensor, expected: &[f32]) {
        let found = t.as_slice::<f32>().unwrap();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-6), "{found:?} {expected:?}");
    }

    #[test]
    fn a_transform_and_its_inverse() {
        let x = tensor(&[1, 4, 1], &[1f32, 2., 3., 5.]);
        let y = first(&flags("DFT", 20, &[]), &[&x]);
        near(&y, &[11., 0., -2., 3., -3., 0., -2., -3.]);
        near(&first(&flags("DFT", 17, &[("axis", 1)]), &[&x]), y.as_slice::<f32>().unwrap());
        near(&first(&flags("DFT", 20, &[("inverse", 1)]), &[&y]), &[1., 0., 2., 0., 3., 0., 5., 0.]);
        let half = first(&flags("DFT", 20, &[("onesided", 1)]), &[&x]);
        assert_eq!(half.shape(), [1, 3, 2]);
        let back = first(&flags("DFT", 20, &[("onesided", 1), ("inverse", 1)]), &[&half]);
        assert_eq!(back.shape(), [1, 4, 1]);
        near(&back, &[1., 2., 3., 5.]);
        // Zeros behind, and no more than asked for.
        near(&first(&flags("DFT", 20, &[]), &[&x, &ints(&[2])]), &[3., 0., -1., 0.]);
        assert_eq!(first(&flags("DFT", 20, &[]), &[&x, &ints(&[8])]).shape(), [1, 8, 2]);
    }

    #[test]
    fn windows_slide() {
        let x = tensor(&[1, 6, 1], &[1f32, 2., 3., 4., 5., 6.]);
        let window = tensor(&[4], &[0f32, 1., 1., 0.]);
        let y = first(&flags("STFT", 17, &[]), &[&x, &ints(&[2]), &window]);
        assert_eq!(y.shape(), [1, 2, 3, 2]);
        near(&y, &[5., 0., -3., -2., 1., 0., 9., 0., -5., -4., 1., 0.]);
    }

    #[test]
    fn shapes_of_windows() {
        near(&first(&flags("HannWindow", 17, &[]), &[&ints(&[4])]), &[0., 0.5, 1., 0.5]);
        near(&first(&flags("HannWindow", 17, &[("periodic", 0)]), &[&ints(&[3])]), &[0., 1., 0.]);
        near(&first(&flags("BlackmanWindow", 17, &[]), &[&ints(&[2])]), &[0., 1.]);
        near(&first(&flags("HammingWindow", 17, &[]), &[&ints(&[2])]), &[4. / 46., 1.]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let x = tensor(&[1, 4, 1], &[1f32, 2., 3., 5.]);
        assert!(run(&flags("DFT", 20, &[]), &[&x, &ints(&[0])]).is_err());
        assert!(run(&flags("DFT", 20, &[]), &[&x, &ints(&[i64::MAX])]).is_err());
        assert!(run(&flags("DFT", 20, &[]), &[&x, &ints(&[4]), &ints(&[2])]).is_err());
        assert!(run(&flags("DFT", 20, &[]), &[&tensor(&[1, 3], &[1f32, 2., 3.])]).is_err());
        assert!(run(&flags("STFT", 17, &[]), &[&x, &ints(&[0])]).is_err());
        assert!(run(&flags("STFT", 17, &[]), &[&x, &ints(&[1]), &tensor(&[8], &[1f32; 8])]).is_err());
        assert!(run(&flags("HannWindow", 17, &[]), &[&ints(&[-1])]).is_err());
    }
}
