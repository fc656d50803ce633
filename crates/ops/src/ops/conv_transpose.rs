//! `ConvTranspose`: the transpose of a convolution's matrix, over any number of spatial axes.
//!
//! X is (N, C, D1, ...), W (C, M / group, k1, ...), B (M). Each input element adds its multiple of the kernel to the
//! output at stride steps; padding cuts the output's ends off.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, element_count};
use rayon::prelude::*;

use super::conv::groups;
use crate::budget::{self, Budget, Unit};
use crate::convolve::row_start;
use crate::magnitude::magnitude;
use crate::product::{Matrix, product};
use crate::room::zeros;
use crate::window::{AutoPad, Settings, Window, sizes};
use crate::{Call, Float, Flow, OpError, Operator, for_float};

#[derive(Debug)]
struct ConvTranspose {
    settings: Settings,
    groups: usize,
    output_padding: Vec<usize>,
    output_shape: Option<Vec<usize>>,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(ConvTranspose {
        settings: Settings::parse(node)?,
        groups: groups(node)?,
        output_padding: sizes(node, "output_padding")?.unwrap_or_default(),
        output_shape: sizes(node, "output_shape")?.filter(|s| !s.is_empty()),
    }))
}

/// Sizes of one call. The window is that of the convolution this transposes: its input is our output.
struct Plan {
    batch: usize,
    channels: usize,
    filters: usize,
    window: Window,
}

impl ConvTranspose {
    fn plan(&self, x: &[usize], w: &[usize]) -> Result<Plan, OpError> {
        let (&[batch, channels, ref input @ ..], &[wc, per_group, ref kernel @ ..]) = (x, w) else {
            return Err(OpError::Input(format!(
                "X {x:?} and W {w:?} must have spatial axes after the first two"
            )));
        };
        let rank = input.len();
        if rank == 0 || kernel.len() != rank || wc != channels || channels % self.groups != 0 {
            return Err(OpError::Input(format!(
                "X {x:?}, W {w:?} and {} groups contradict each other: W must be (channels of X, filters / groups, \
                 kernel), channels a multiple of groups",
                self.groups
            )));
        }
        if self.settings.kernel.as_ref().is_some_and(|k| k.as_slice() != kernel) || kernel.contains(&0) {
            return Err(OpError::Setting(format!(
                "kernel_shape {:?} contradicts weights of spatial shape {kernel:?}",
                self.settings.kernel
            )));
        }
        let strides = Settings::per_axis(&self.settings.strides, rank, 1, "strides")?;
        let dilations = Settings::per_axis(&self.settings.dilations, rank, 1, "dilations")?;
        let pads = Settings::per_axis(&self.settings.pads, 2 * rank, 0, "pads")?;
        let extra = Settings::per_axis(&self.output_padding, rank, 0, "output_padding")?;
        // Older files name the whole shape, batch and filters included.
        let given = self.output_shape.as_ref().map(|s| s[s.len().saturating_sub(rank)..].to_vec());
        if let Some(given) = given.as_ref().filter(|s| s.len() != rank) {
            return Err(OpError::Setting(format!("output_shape {given:?} does not fit {rank} spatial axes")));
        }
        if strides.contains(&0) || dilations.contains(&0) {
            return Err(OpError::Setting(format!(
                "strides {strides:?} and dilations {dilations:?} must be at least 1"
            )));
        }
        let (mut begin, mut end, mut output) = (vec![0; rank], vec![0; rank], vec![0; rank]);
        for i in 0..rank {
            let place = || -> Option<(usize, usize, usize)> {
                let extent = (kernel[i] - 1).checked_mul(dilations[i])?.checked_add(1)?;
                let steps = input[i].checked_sub(1)?.checked_mul(strides[i])?;
                let full = steps.checked_add(extra[i])?.checked_add(extent)?;
                let same = matches!(self.settings.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
                let wanted = match &given {
                    Some(given) => Some(given[i]),
                    None if same => Some(input[i].checked_mul(strides[i])?),
                    None => None,
                };
                let Some(wanted) = wanted else {
                    let (b, e) = match self.settings.auto_pad {
                        AutoPad::Explicit => (pads[i], pads[rank + i]),
                        _ => (0, 0),
                    };
                    return Some((b, e, full.checked_sub(b)?.checked_sub(e)?));
                };
                let total = full.saturating_sub(wanted);
                let less = total / 2;
                Some(if self.settings.auto_pad == AutoPad::SameUpper {
                    (less, total - less, wanted)
                } else {
                    (total - less, less, wanted)
                })
            };
            (begin[i], end[i], output[i]) = place().ok_or_else(|| {
                OpError::Input(format!(
                    "padding {} and {} leave nothing of the output along spatial axis {i}",
                    pads[i],
                    pads[rank + i]
                ))
            })?;
        }
        let filters = per_group
            .checked_mul(self.groups)
            .ok_or_else(|| OpError::Input(format!("W {w:?} has too many filters")))?;
        element_count(&[&[batch, filters], output.as_slice()].concat())?;
        let window = Window {
            input: output,
            kernel: kernel.to_vec(),
            strides,
            dilations,
            begin,
            end,
            output: input.to_vec(),
        };
        element_count(&[per_group, window.taps(), window.pixels()])?;
        Ok(Plan { batch, channels, filters, window })
    }

    fn compute<T: Float>(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, OpError> {
        let Plan { batch, channels, filters, window } = self.plan(x.shape(), w.shape())?;
        if let Some(b) = bias.filter(|b| b.shape() != [filters]) {
            return Err(OpError::Input(format!("B has shape {:?}, expected [{filters}]", b.shape())));
        }
        let shape = [&[batch, filters], window.input.as_slice()].concat();
        let (x, w) = (x.as_slice::<T>()?, w.as_slice::<T>()?);
        let bias = bias.map(Tensor::as_slice::<T>).transpose()?;
        let mut out = zeros::<T>(&shape)?;
        let plane: usize = window.input.iter().product();
        let (pixels, taps) = (window.pixels(), window.taps());
        let (per_channel, per_filter) = (channels / self.groups, filters / self.groups);
        if out.is_empty() {
            return Ok(Tensor::from_vec(&shape, out)?);
        }
        let mut columns = zeros::<T>(&[per_filter, taps, pixels])?;
        for (unit, out) in out.chunks_mut(per_filter * plane).enumerate() {
            let group = unit % self.groups;
            let rows = per_filter * taps;
            // W^T x: what each input pixel adds under each kernel element.
            product(
                rows,
                per_channel,
                pixels,
                Matrix { data: &w[group * per_channel * rows..], row: 1, column: rows },
                Matrix { data: &x[unit * per_channel * pixels..], row: pixels, column: 1 },
                &mut columns,
                true,
            );
            let columns = &columns;
            out.par_chunks_mut(plane).enumerate().for_each(|(f, out)| {
                out.fill(bias.map_or(T::ZERO, |b| b[group * per_filter + f]));
                fold(&columns[f * taps * pixels..(f + 1) * taps * pixels], &window, out);
            });
        }
        Ok(Tensor::from_vec(&shape, out)?)
    }
}

/// Adds the columns of one filter to the places they belong to.
fn fold<T: Float>(columns: &[T], window: &Window, out: &mut [T]) {
    let last = window.input.len() - 1;
    let (width, taps_last, stride) = (window.output[last], window.kernel[last], window.strides[last]);
    if width == 0 {
        return;
    }
    for (tap, columns) in columns.chunks(window.pixels()).enumerate() {
        let k = tap % taps_last;
        let (low, high) = window.inside(last, k);
        if low >= high {
            continue;
        }
        for (outer, row) in columns.chunks(width).enumerate() {
            let Some(base) = row_start(window, outer, tap / taps_last) else { continue };
            let first = base + low * stride + k * window.dilations[last] - window.begin[last];
            for (y, &x) in out[first..].iter_mut().step_by(stride).zip(&row[low..high]) {
                *y += x;
            }
        }
    }
}

impl Operator for ConvTranspose {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, w) = (call.need(0, "X")?, call.need(1, "W")?);
        Ok(vec![for_float!(x.dtype(), "X", T => self.compute::<T>(x, w, call.get(2)))?])
    }

    fn flow(&self) -> Flow {
        Flow::Linear
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let (x, w) = (call.need(0, "X")?, call.need(1, "W")?);
        let plan = self.plan(x.shape(), w.shape())?;
        let terms = plan.channels / self.groups * plan.window.taps() + 1;
        let magnitude = magnitude(call, |c| Ok(self.run(c)?.remove(0)))?;
        budget::sum_of(output, &magnitude, terms as f64, unit)
    }

    fn magnitude(&self, call: &Call<'_>) -> Result<Option<Tensor>, OpError> {
        magnitude(call, |c| Ok(self.run(c)?.remove(0))).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::convolve::{Finish, Sizes, convolve};

    fn filled(n: usize, seed: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 31 + seed) % 13) as f64 - 6.0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// The defining property: <conv(u), x> = <u, conv_transpose(x)> for every u and x.
        #[test]
        fn is_the_transpose_of_a_convolution(
            rank in 1usize..=3,
            sizes in proptest::collection::vec(1usize..7, 3),
            kernel in proptest::collection::vec(1usize..4, 3),
            stride in proptest::collection::vec(1usize..4, 3),
            dilation in proptest::collection::vec(1usize..3, 3),
            pads in proptest::collection::vec(0usize..2, 6),
            (groups, per_channel, per_filter, batch) in (1usize..3, 1usize..3, 1usize..3, 1usize..3),
        ) {
            let settings = Settings {
                kernel: None,
                strides: stride[..rank].to_vec(),
                dilations: dilation[..rank].to_vec(),
                pads: pads[..2 * rank].to_vec(),
                auto_pad: AutoPad::Explicit,
                ceil: false,
            };
            let u_shape = [&[batch, groups * per_filter], &sizes[..rank]].concat();
            let w_shape = [&[groups * per_channel, per_filter], &kernel[..rank]].concat();
            let Ok(forward) = Sizes::new(&u_shape, &w_shape, groups, &settings) else { return Ok(()) };
            let x_shape = forward.output_shape();
            let (u, w) = (filled(u_shape.iter().product(), 1), filled(w_shape.iter().product(), 2));
            let x = filled(x_shape.iter().product(), 3);
            let finish = Finish { bias: None, residual: None, activation: crate::activation::Activation::Identity };
            let y = convolve(&u, &w, &forward, &finish).unwrap();
            let left: f64 = y.iter().zip(&x).map(|(a, b)| a * b).sum();
            let op = ConvTranspose {
                settings,
                groups,
                // What the windows leave over at the end.
                output_padding: (0..rank)
                    .map(|i| {
                        let w = &forward.window;
                        let full = (w.output[i] - 1) * w.strides[i] + (w.kernel[i] - 1) * w.dilations[i] + 1;
                        w.input[i] + w.begin[i] + w.end[i] - full
                    })
                    .collect(),
                output_shape: None,
            };
            let (xt, wt) = (Tensor::from_vec(&x_shape, x).unwrap(), Tensor::from_vec(&w_shape, w).unwrap());
            let back = op.compute::<f64>(&xt, &wt, None).unwrap();
            prop_assert_eq!(back.shape(), &u_shape[..]);
            let right: f64 = back.as_slice::<f64>().unwrap().iter().zip(&u).map(|(a, b)| a * b).sum();
            prop_assert_eq!(left, right);
        }
    }

    #[test]
    fn output_sizes() {
        let op = |auto_pad, pads: &[usize], output_padding: &[usize], output_shape: Option<Vec<usize>>| {
            ConvTranspose {
                settings: Settings {
                    kernel: None,
                    strides: vec![2],
                    dilations: vec![],
                    pads: pads.to_vec(),
                    auto_pad,
                    ceil: false,
                },
                groups: 1,
                output_padding: output_padding.to_vec(),
                output_shape,
            }
        };
        let cases = [
            (op(AutoPad::Explicit, &[], &[], None), Some((7, 0))),
            (op(AutoPad::Explicit, &[1, 1], &[1], None), Some((6, 1))),
            (op(AutoPad::SameUpper, &[], &[], None), Some((6, 0))),
            (op(AutoPad::SameLower, &[], &[], None), Some((6, 1))),
            (op(AutoPad::Explicit, &[], &[], Some(vec![5])), Some((5, 1))),
            (op(AutoPad::Explicit, &[], &[], Some(vec![9])), Some((9, 0))),
            (op(AutoPad::Explicit, &[4, 4], &[], None), None),
        ];
        for (i, (op, expected)) in cases.into_iter().enumerate() {
            let got = op.plan(&[1, 1, 3], &[1, 1, 3]).ok().map(|p| (p.window.input[0], p.window.begin[0]));
            assert_eq!(got, expected, "case {i}");
        }
    }
}
