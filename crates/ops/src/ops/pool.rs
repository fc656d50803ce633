//! `MaxPool`, `AveragePool` and `LpPool` over any number of spatial axes.
//!
//! X is (N, C, D1, ...), Y (N, C, windows along D1, ...). Padding never wins a maximum and never adds to a sum; an
//! average counts it only where `count_include_pad` says so, and never what a last, partial window reads beyond it.
//! NaN wins a maximum.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Element, Tensor};
use rayon::prelude::*;

use super::matmul::absolute;
use crate::budget::{self, Budget, Unit};
use crate::convolve::row_start;
use crate::moves::room;
use crate::window::{Settings, Window};
use crate::{Call, Float, Flow, OpError, Operator, attributes, flow, for_float};

/// Window elements below which one thread is faster than waking others.
const PARALLEL_FROM: usize = 1 << 16;

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Max { column_major: bool },
    Average { count_padding: bool },
    Norm { p: f64 },
}

#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) settings: Settings,
    pub(crate) kind: Kind,
}

/// Parses a `MaxPool`.
pub fn max(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let kind = Kind::Max { column_major: attributes::int_or(node, "storage_order", 0)? == 1 };
    Ok(Box::new(Pool { settings: Settings::parse(node)?, kind }))
}

/// Parses an `AveragePool`.
pub fn average(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let kind = Kind::Average { count_padding: attributes::flag(node, "count_include_pad", false)? };
    Ok(Box::new(Pool { settings: Settings::parse(node)?, kind }))
}

/// Parses an `LpPool`.
pub fn norm(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Pool { settings: Settings::parse(node)?, kind: Kind::Norm { p: exponent(node)? } }))
}

/// Attribute `p` of the Lp operators: a float in version 1, a whole number later; 2 by default.
pub(crate) fn exponent(node: &Node) -> Result<f64, OpError> {
    let p = if node.version < 2 {
        f64::from(attributes::float_or(node, "p", 2.0)?)
    } else {
        attributes::int_or(node, "p", 2)? as f64
    };
    if p > 0.0 { Ok(p) } else { Err(OpError::Setting(format!("p {p} must be positive"))) }
}

/// Folds the elements of every window into a value that starts as `start`; padding is left out.
///
/// The rows under a window's leading axes are folded whole, which the compiler makes vectors of, then `merge`d along
/// the last axis.
fn slide<T: Copy + Send + Sync>(
    x: &[T],
    planes: usize,
    window: &Window,
    start: T,
    fold: impl Fn(&mut T, T) + Sync,
    merge: impl Fn(&mut T, T) + Sync,
) -> Vec<T> {
    let pixels = window.pixels();
    let mut out = vec![start; planes * pixels];
    if out.is_empty() {
        return out;
    }
    let plane: usize = window.input.iter().product();
    let last = window.input.len() - 1;
    let (length, width, stride) = (window.input[last], window.output[last], window.strides[last]);
    let taps_last = window.kernel[last];
    let taps_outer = window.taps() / taps_last;
    let inside: Vec<(usize, usize)> = (0..taps_last).map(|k| window.inside(last, k)).collect();
    let one = |rows: &mut Vec<T>, (p, out): (usize, &mut [T])| {
        let x = &x[p * plane..(p + 1) * plane];
        for (outer, row) in out.chunks_mut(width).enumerate() {
            rows.clear();
            rows.resize(length, start);
            for tap in 0..taps_outer {
                let Some(base) = row_start(window, outer, tap) else { continue };
                rows.iter_mut().zip(&x[base..]).for_each(|(y, &x)| fold(y, x));
            }
            for (k, &(low, high)) in inside.iter().enumerate() {
                if low >= high {
                    continue;
                }
                let first = low * stride + k * window.dilations[last] - window.begin[last];
                let row = &mut row[low..high];
                if stride == 1 {
                    row.iter_mut().zip(&rows[first..]).for_each(|(y, &x)| merge(y, x));
                } else {
                    row.iter_mut().zip(rows[first..].chunks(stride)).for_each(|(y, x)| merge(y, x[0]));
                }
            }
        }
    };
    if planes * pixels * window.taps() >= PARALLEL_FROM {
        out.par_chunks_mut(pixels).enumerate().for_each_init(Vec::new, one);
    } else {
        let mut rows = Vec::new();
        for (p, out) in out.chunks_mut(pixels).enumerate() {
            one(&mut rows, (p, out));
        }
    }
    out
}

/// The maximum of each window; `lowest` where a window lies in the padding.
pub(crate) fn maxima<T: Element + PartialOrd>(x: &[T], planes: usize, window: &Window, lowest: T) -> Vec<T> {
    #[expect(clippy::eq_op, reason = "true for NaN alone, and this serves integers too")]
    let larger = |y: &mut T, x: T| {
        *y = if x > *y || x != x { x } else { *y };
    };
    slide(x, planes, window, lowest, larger, larger)
}

/// For each window the place in the whole input of its maximum, the first where several are equal.
fn places<T: Element + PartialOrd>(x: &[T], planes: usize, window: &Window, column_major: bool) -> Vec<i64> {
    let plane: usize = window.input.iter().product();
    let last = window.input.len() - 1;
    let (width, taps_last) = (window.output[last], window.kernel[last]);
    let taps_outer = window.taps() / taps_last;
    let mut out = Vec::with_capacity(planes * window.pixels());
    for p in 0..planes {
        let x = &x[p * plane..(p + 1) * plane];
        for outer in 0..window.pixels() / width.max(1) {
            for o in 0..width {
                let mut best: Option<usize> = None;
                for tap in 0..taps_outer {
                    let Some(base) = row_start(window, outer, tap) else { continue };
                    for k in 0..taps_last {
                        let Some(i) = window.source(last, o, k) else { continue };
                        let i = base + i;
                        #[expect(clippy::eq_op, reason = "true for NaN alone, and this serves integers too")]
                        if best.is_none_or(|b| x[i] > x[b] || (x[i] != x[i] && x[b] == x[b])) {
                            best = Some(i);
                        }
                    }
                }
                let i = best.unwrap_or(0);
                let i = if column_major { transposed(i, &window.input) } else { i };
                out.push((p * plane + i) as i64);
            }
        }
    }
    out
}

/// The place of an element counted with the first axis fastest, from its place in C order.
fn transposed(mut i: usize, shape: &[usize]) -> usize {
    let (mut at, mut stride) = (0, shape.iter().product::<usize>());
    for &d in shape.iter().rev() {
        stride /= d;
        at += i % d * stride;
        i /= d;
    }
    at
}

/// How many elements each window averages over, as the product of a count an axis.
fn counts(window: &Window, count_padding: bool) -> Vec<usize> {
    let mut counts = vec![1];
    for a in 0..window.input.len() {
        let reach = window.input[a] + window.begin[a] + window.end[a];
        let axis: Vec<usize> = (0..window.output[a])
            .map(|o| {
                let counted = |k: &usize| {
                    if count_padding {
                        o * window.strides[a] + k * window.dilations[a] < reach
                    } else {
                        window.source(a, o, *k).is_some()
                    }
                };
                (0..window.kernel[a]).filter(counted).count()
            })
            .collect();
        counts = counts.iter().flat_map(|c| axis.iter().map(move |a| c * a)).collect();
    }
    counts
}

impl Pool {
    /// Output shape, window and number of planes for an input of `shape`.
    pub(crate) fn plan(&self, shape: &[usize]) -> Result<(Vec<usize>, Window, usize), OpError> {
        let &[batch, channels, ref input @ ..] = shape else {
            return Err(OpError::Input(format!(
                "X has shape {shape:?}; expected batch, channels and spatial axes"
            )));
        };
        let window = self.settings.window(input, None)?;
        let out = [&[batch, channels], window.output.as_slice()].concat();
        // Windows may be many more than the input's elements.
        room::<u64>(&out)?;
        Ok((out, window, batch * channels))
    }

    fn compute<T: Float>(&self, x: &Tensor) -> Result<Tensor, OpError> {
        let (shape, window, planes) = self.plan(x.shape())?;
        let x = x.as_slice::<T>()?;
        let data = match self.kind {
            Kind::Max { .. } => maxima(x, planes, &window, -T::INFINITY),
            Kind::Average { count_padding } => {
                let mut sums = slide(x, planes, &window, T::ZERO, |y, x| *y += x, |y, x| *y += x);
                let counts: Vec<T> =
                    counts(&window, count_padding).iter().map(|&c| T::of(c.max(1) as f64)).collect();
                for sums in sums.chunks_mut(counts.len().max(1)) {
                    sums.iter_mut().zip(&counts).for_each(|(s, &c)| *s = *s / c);
                }
                sums
            }
            Kind::Norm { p } => {
                let mut sums =
                    slide(x, planes, &window, T::ZERO, |y, x| *y += raised(x.abs(), p), |y, x| *y += x);
                for s in &mut sums {
                    *s = root(*s, p);
                }
                sums
            }
        };
        Ok(Tensor::from_vec(&shape, data)?)
    }

    fn whole<T: Element + PartialOrd>(&self, x: &Tensor, lowest: T) -> Result<Tensor, OpError> {
        let (shape, window, planes) = self.plan(x.shape())?;
        Ok(Tensor::from_vec(&shape, maxima(x.as_slice::<T>()?, planes, &window, lowest))?)
    }
}

/// x^p for x >= 0, without a call for the two usual p.
pub(crate) fn raised<T: Float>(x: T, p: f64) -> T {
    if p == 1.0 {
        x
    } else if p == 2.0 {
        x * x
    } else {
        x.powf(T::of(p))
    }
}

/// x^(1/p) for x >= 0.
pub(crate) fn root<T: Float>(x: T, p: f64) -> T {
    if p == 1.0 {
        x
    } else if p == 2.0 {
        x.sqrt()
    } else {
        x.powf(T::of(1.0 / p))
    }
}

impl Operator for Pool {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let Kind::Max { column_major } = self.kind else {
            return Ok(vec![for_float!(x.dtype(), "X", T => self.compute::<T>(x))?]);
        };
        let y = match x.dtype() {
            DType::I8 => self.whole::<i8>(x, i8::MIN),
            DType::U8 => self.whole::<u8>(x, u8::MIN),
            dtype => for_float!(dtype, "X", T => self.compute::<T>(x)),
        }?;
        if call.outputs < 2 {
            return Ok(vec![y]);
        }
        let (shape, window, planes) = self.plan(x.shape())?;
        let places = match x.dtype() {
            DType::I8 => places(x.as_slice::<i8>()?, planes, &window, column_major),
            DType::U8 => places(x.as_slice::<u8>()?, planes, &window, column_major),
            dtype => {
                for_float!(dtype, "X", T => Ok(places(x.as_slice::<T>()?, planes, &window, column_major)))?
            }
        };
        Ok(vec![y, Tensor::from_vec(&shape, places)?])
    }

    fn flow(&self) -> Flow {
        match self.kind {
            Kind::Average { .. } => Flow::Linear,
            Kind::Max { .. } | Kind::Norm { .. } => Flow::General,
        }
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let x = call.need(0, "X")?;
        match self.kind {
            Kind::Max { .. } => Ok(budget::exact(output.len())),
            Kind::Average { .. } => {
                let (_, window, _) = self.plan(x.shape())?;
                let magnitude = self.compute::<f64>(&absolute(x)?)?;
                budget::sum(output, &magnitude.to_f64()?, window.taps() as f64, unit)
            }
            Kind::Norm { .. } => {
                let (_, window, _) = self.plan(x.shape())?;
                budget::rms_norm(output, window.taps(), unit)
            }
        }
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let Some(Some(e)) = errors.first() else {
            return outputs.iter().map(|o| Ok(Tensor::full(o.shape(), 0f64)?)).collect();
        };
        match self.kind {
            Kind::Average { .. } => flow::propagate(Flow::Linear, &|c| self.run(c), call, outputs, errors),
            // A maximum moves by no more than the largest change in its window; a norm, by the triangle
            // inequality, by no more than the norm of the changes.
            Kind::Max { .. } | Kind::Norm { .. } => {
                let change = self.compute::<f64>(&absolute(e)?)?;
                // A window wholly in the padding holds no change.
                let change = change.to_f64()?.iter().map(|x| x.max(0.0)).collect();
                let mut out = vec![Tensor::from_vec(outputs[0].shape(), change)?];
                for places in &outputs[1..] {
                    out.push(Tensor::full(places.shape(), 0f64)?);
                }
                Ok(out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::AutoPad;

    fn settings(kernel: &[usize], strides: &[usize], pads: &[usize], ceil: bool) -> Settings {
        Settings {
            kernel: Some(kernel.to_vec()),
            strides: strides.to_vec(),
            dilations: vec![],
            pads: pads.to_vec(),
            auto_pad: AutoPad::Explicit,
            ceil,
        }
    }

    fn run(pool: &Pool, x: &Tensor, outputs: usize) -> Vec<Tensor> {
        let inputs = [Some(x)];
        pool.run(&Call { outputs, ..Call::new(&inputs) }).unwrap()
    }

    #[test]
    fn values_as_a_table() {
        struct Case {
            kind: Kind,
            settings: Settings,
            expected: &'static [f64],
        }
        // 0 1 2 / 3 4 5 / 6 7 8, shifted down by 4.
        let x =
            Tensor::from_vec(&[1, 1, 3, 3], (0..9).map(|i| f64::from(i) - 4.0).collect::<Vec<_>>()).unwrap();
        let max = || Kind::Max { column_major: false };
        let average = |count_padding| Kind::Average { count_padding };
        let cases = [
            Case { kind: max(), settings: settings(&[2, 2], &[], &[], false), expected: &[0., 1., 3., 4.] },
            Case {
                kind: max(),
                settings: settings(&[2, 2], &[2, 2], &[1, 1, 0, 0], false),
                expected: &[-4., -2., 2., 4.],
            },
            Case {
                kind: max(),
                settings: settings(&[2, 2], &[2, 2], &[], true),
                expected: &[0., 1., 3., 4.],
            },
            Case {
                kind: average(false),
                settings: settings(&[2, 2], &[2, 2], &[1, 1, 0, 0], false),
                expected: &[-4., -2.5, 0.5, 2.],
            },
            Case {
                kind: average(true),
                settings: settings(&[2, 2], &[2, 2], &[1, 1, 0, 0], false),
                expected: &[-1., -1.25, 0.25, 2.],
            },
            Case {
                kind: average(true),
                settings: settings(&[2, 2], &[2, 2], &[], true),
                expected: &[-2., -0.5, 2.5, 4.],
            },
            Case {
                kind: Kind::Norm { p: 1.0 },
                settings: settings(&[3, 3], &[], &[], false),
                expected: &[20.],
            },
            Case {
                kind: Kind::Norm { p: 2.0 },
                settings: settings(&[1, 2], &[1, 2], &[], false),
                expected: &[5., 1., 3.605_551_275_463_989],
            },
        ];
        for (i, Case { kind, settings, expected }) in cases.into_iter().enumerate() {
            let got = run(&Pool { settings, kind }, &x, 1);
            assert_eq!(*got[0].to_f64().unwrap(), *expected, "case {i}");
        }
    }

    #[test]
    fn places_in_both_orders() {
        let x = Tensor::from_vec(&[1, 2, 2, 3], vec![1u8, 9, 9, 2, 3, 4, 0, 0, 0, 0, 0, 7]).unwrap();
        let of = |column_major| Pool {
            settings: settings(&[2, 2], &[], &[], false),
            kind: Kind::Max { column_major },
        };
        let got = run(&of(false), &x, 2);
        assert_eq!(got[0].as_slice::<u8>().unwrap(), [9, 9, 0, 7]);
        assert_eq!(got[1].as_slice::<i64>().unwrap(), [1, 1, 6, 11]);
        assert_eq!(run(&of(true), &x, 2)[1].as_slice::<i64>().unwrap(), [2, 2, 6, 11]);
    }

    #[test]
    fn nan_wins_and_changes_stay_within_their_window() {
        let pool =
            Pool { settings: settings(&[2], &[], &[], false), kind: Kind::Max { column_major: false } };
        let x = Tensor::from_vec(&[1, 1, 4], vec![1.0, f64::NAN, 3.0, 2.0]).unwrap();
        let got = run(&pool, &x, 2);
        let y = got[0].to_f64().unwrap().into_owned();
        assert!(y[0].is_nan() && y[1].is_nan() && y[2] == 3.0, "{y:?}");
        assert_eq!(got[1].as_slice::<i64>().unwrap(), [1, 1, 2]);
        let e = Tensor::from_vec(&[1, 1, 4], vec![1e-8, 0.0, 0.0, 3e-8]).unwrap();
        let inputs = [Some(&x)];
        let change = pool.propagate(&Call::new(&inputs), &got, &[Some(e)]).unwrap();
        assert_eq!(*change[0].to_f64().unwrap(), [1e-8, 0.0, 3e-8]);
    }
}
