//! GridSample: an input read at places that a grid names, between its elements by interpolation.
//!
//! X is [N, C, D1, ..., Dk], the grid [N, G1, ..., Gk, k] with places from -1 to 1 along each axis, the last axis first;
//! the output is [N, C, G1, ..., Gk]. Two spatial axes before operator set 20, any number from then on.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, strides};

use crate::budget::{self, Budget, Unit};
use crate::room::zeros;
use crate::{Call, Float, OpError, Operator, attributes, for_float};

/// How elements between places are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Linear,
    Nearest,
    Cubic,
}

/// What lies beyond the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outside {
    Zeros,
    Border,
    Reflection,
}

#[derive(Debug)]
struct GridSample {
    mode: Mode,
    outside: Outside,
    align: bool,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let unknown = |name: &str, found: &str| OpError::Setting(format!("{name} {found:?} is unknown"));
    let mode = match attributes::text_or(node, "mode", "linear")?.as_str() {
        "linear" | "bilinear" => Mode::Linear,
        "nearest" => Mode::Nearest,
        "cubic" | "bicubic" => Mode::Cubic,
        other => return Err(unknown("mode", other)),
    };
    let outside = match attributes::text_or(node, "padding_mode", "zeros")?.as_str() {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        other => return Err(unknown("padding_mode", other)),
    };
    Ok(Box::new(GridSample { mode, outside, align: attributes::flag(node, "align_corners", false)? }))
}

/// One input place with its weight; `None` lies outside and counts as zero.
pub(crate) type Tap<T> = (Option<usize>, T);

/// Coefficient of the cubic kernel, as in the standard.
const CUBIC: f64 = -0.75;

impl GridSample {
    /// Where the input begins and ends along an axis of this length, in its own coordinates.
    fn ends<T: Float>(&self, length: usize) -> (T, T) {
        let length = T::of(length as f64);
        if self.align { (T::ZERO, length - T::ONE) } else { (T::of(-0.5), length - T::of(0.5)) }
    }

    /// The input coordinate that a place of the grid means, brought inside where the padding says so.
    fn coordinate<T: Float>(&self, place: T, length: usize) -> T {
        let size = T::of(length as f64);
        let (one, half) = (T::ONE, T::of(0.5));
        let mut at = if self.align {
            (place + one) * half * (size - one)
        } else {
            ((place + one) * size - one) * half
        };
        if self.mode == Mode::Nearest {
            at = T::of(at.wide().round_ties_even());
        }
        let (low, high) = self.ends::<T>(length);
        if at < low || at > high {
            at = match self.outside {
                Outside::Zeros => at,
                Outside::Border => at.max_nan(T::ZERO).min_nan(size - one),
                Outside::Reflection => T::of(reflected(at.wide(), low.wide(), high.wide())),
            };
        }
        at
    }

    /// The element that stands at a place of the input, itself or in its stead.
    fn element(&self, at: i64, length: usize) -> Option<usize> {
        if let Ok(at) = usize::try_from(at)
            && at < length
        {
            return Some(at);
        }
        match self.outside {
            _ if length == 0 => None,
            Outside::Zeros => None,
            Outside::Border => Some(at.clamp(0, length as i64 - 1) as usize),
            Outside::Reflection => {
                let (low, high) = self.ends::<f64>(length);
                let back = reflected(at as f64, low, high);
                Some((back.max(0.0) as usize).min(length - 1))
            }
        }
    }

    /// The elements along an axis from which one coordinate is made.
    fn taps<T: Float>(&self, at: T, length: usize) -> Vec<Tap<T>> {
        let floor = T::of(at.wide().floor());
        let first = floor.wide() as i64;
        let part = at - floor;
        let one = T::ONE;
        let tap = |step: i64, weight: T| (self.element(first.saturating_add(step), length), weight);
        match self.mode {
            Mode::Nearest => vec![tap(0, one)],
            Mode::Linear => vec![tap(0, one - part), tap(1, part)],
            Mode::Cubic => {
                let a = T::of(CUBIC);
                let number = T::of;
                let far = |x: T| ((a * x - number(5.0) * a) * x + number(8.0) * a) * x - number(4.0) * a;
                let near = |x: T| ((a + number(2.0)) * x - (a + number(3.0))) * x * x + one;
                vec![
                    tap(-1, far(part + one)),
                    tap(0, near(part)),
                    tap(1, near(one - part)),
                    tap(2, far(number(2.0) - part)),
                ]
            }
        }
    }

    /// The output; or, for a bound, the sum of the absolute products together with what a rounding of the coordinates
    /// moves.
    fn sample<T: Float>(&self, x: &Tensor, grid: &Tensor, magnitude: bool) -> Result<Tensor, OpError> {
        let (shape, out_shape) = shapes(x, grid)?;
        let (places, data) = (grid.as_slice::<T>()?, x.as_slice::<T>()?);
        let space = &shape[2..];
        let steps = strides(space);
        let plane: usize = space.iter().product();
        let (batch, channels) = (shape[0], shape[1]);
        let points: usize = out_shape[2..].iter().product();
        let mut out = zeros::<T>(&out_shape)?;
        let axes = space.len();
        for n in 0..batch {
            for p in 0..points {
                let place = &places[(n * points + p) * axes..][..axes];
                // The grid names the last axis first.
                let at: Vec<T> = (0..axes).map(|a| self.coordinate(place[axes - 1 - a], space[a])).collect();
                let taps: Vec<Vec<Tap<T>>> = at.iter().zip(space).map(|(&at, &l)| self.taps(at, l)).collect();
                let products = products(&taps, &steps);
                let unsure = at.iter().zip(space).fold(0.0, |sum, (at, &length)| {
                    let at = at.wide().abs();
                    sum + if at.is_finite() { at + length as f64 } else { 0.0 }
                });
                for c in 0..channels {
                    let from = &data[(n * channels + c) * plane..][..plane];
                    let mut sum = T::ZERO;
                    for &(i, weight) in &products {
                        let Some(i) = i else { continue };
                        sum += if magnitude {
                            let moved = if self.mode == Mode::Nearest { 0.0 } else { unsure };
                            (weight.abs() + T::of(moved)) * from[i].abs()
                        } else {
                            weight * from[i]
                        };
                    }
                    out[(n * channels + c) * points + p] = sum;
                }
            }
        }
        Ok(Tensor::from_vec(&out_shape, out)?)
    }
}

/// Every product of one tap along each axis: where it lies in a plane, and its weight.
pub(crate) fn products<T: Float>(taps: &[Vec<Tap<T>>], steps: &[usize]) -> Vec<Tap<T>> {
    let mut all = vec![(Some(0), T::ONE)];
    for (taps, step) in taps.iter().zip(steps) {
        all = all
            .iter()
            .flat_map(|&(at, weight)| {
                taps.iter().map(move |&(i, w)| (at.zip(i).map(|(at, i)| at + i * step), weight * w))
            })
            .collect();
    }
    all
}

/// A coordinate thrown back at both ends until it lies between them.
fn reflected(at: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 || !at.is_finite() {
        return low.max(0.0);
    }
    let beyond = if at < low { low - at } else { at - high };
    if beyond <= 0.0 {
        return at;
    }
    let times = (beyond / range).floor();
    let rest = beyond - times * range;
    if (at < low) == (times % 2.0 == 0.0) { low + rest } else { high - rest }
}

/// The input's shape and the output's.
fn shapes(x: &Tensor, grid: &Tensor) -> Result<(Vec<usize>, Vec<usize>), OpError> {
    let (x, grid) = (x.shape(), grid.shape());
    let fits = x.len() >= 3 && grid.len() == x.len() && grid[0] == x[0] && grid[x.len() - 1] == x.len() - 2;
    if !fits {
        return Err(OpError::Input(format!(
            "X {x:?} and grid {grid:?} do not go together; expected [N, C, D1, ..., Dk] and [N, G1, ..., Gk, k]"
        )));
    }
    let mut out = vec![x[0], x[1]];
    out.extend_from_slice(&grid[1..grid.len() - 1]);
    Ok((x.to_vec(), out))
}

impl Operator for GridSample {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, grid) = (call.need(0, "X")?, call.need(1, "grid")?);
        let grid = &grid.cast(x.dtype())?;
        Ok(vec![for_float!(x.dtype(), "X", T => self.sample::<T>(x, grid, false))?])
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if self.mode == Mode::Nearest {
            return Ok(budget::exact(output.len()));
        }
        let (x, grid) = (call.need(0, "X")?, call.need(1, "grid")?);
        let magnitude = self.sample::<f64>(x, grid, true)?;
        let taps = if self.mode == Mode::Cubic { 4.0 } else { 2.0f64 };
        budget::sum(output, &magnitude.to_f64()?, taps.powi(x.rank() as i32 - 2), unit)
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{counting, first, node, run, tensor};

    fn sample(mode: &str, outside: &str, align: i64) -> Node {
        let text = |t: &str| Attribute::Bytes(t.into());
        let set =
            [("mode", text(mode)), ("padding_mode", text(outside)), ("align_corners", Attribute::Int(align))];
        node("GridSample", 20, &set)
    }

    #[test]
    fn places_between_and_beyond() {
        // 0 1 / 2 3; the corner, the middle, half a step to the right of the middle, and far outside.
        let x = counting(&[1, 1, 2, 2]);
        let grid = tensor(&[1, 1, 4, 2], &[-1f32, -1., 0., 0., 0.5, 0., 3., 0.]);
        let cases: [(&str, &str, i64, [f32; 4]); 6] = [
            ("linear", "zeros", 1, [0., 1.5, 1.75, 0.]),
            ("linear", "zeros", 0, [0., 1.5, 2., 0.]),
            ("linear", "border", 0, [0., 1.5, 2., 2.]),
            ("linear", "border", 1, [0., 1.5, 1.75, 2.]),
            ("linear", "reflection", 1, [0., 1.5, 1.75, 1.]),
            ("nearest", "border", 0, [0., 0., 1., 1.]),
        ];
        for (mode, outside, align, expected) in cases {
            let out = first(&sample(mode, outside, align), &[&x, &grid]);
            assert_eq!(out.shape(), [1, 1, 1, 4]);
            assert_eq!(out.as_slice::<f32>().unwrap(), expected, "{mode} {outside} {align}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_no_number_panics() {
        let x = counting(&[1, 1, 2, 2]);
        assert!(run(&sample("linear", "zeros", 0), &[&x, &counting(&[1, 1, 4, 3])]).is_err());
        assert!(run(&sample("linear", "zeros", 0), &[&x, &counting(&[2, 1, 4, 2])]).is_err());
        assert!(run(&sample("lanczos", "zeros", 0), &[&x, &counting(&[1, 1, 1, 2])]).is_err());
        let wild = tensor(&[1, 1, 3, 2], &[f32::NAN, 0., f32::INFINITY, 1., f32::NEG_INFINITY, 1e30]);
        for outside in ["zeros", "border", "reflection"] {
            for mode in ["linear", "nearest", "cubic"] {
                assert_eq!(first(&sample(mode, outside, 0), &[&x, &wild]).len(), 3, "{mode} {outside}");
            }
        }
    }
}
