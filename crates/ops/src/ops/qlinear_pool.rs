//! com.microsoft `QLinearAveragePool` and `QLinearGlobalAveragePool`: means of 8-bit numbers on the grid of the result. X is
//! (N, C, D1, ...), or (N, D1, ..., C) where `channels_last` says so.
//!
//! ONNX Runtime takes them differently. Over windows it adds dequantised numbers in f32, in the order of the window, and
//! adds the zero point before it rounds; over whole planes it adds integers, scales once, and adds the zero point last.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::channels_last::where_asked;
use crate::grid::Grid;
use crate::room::zeros;
use crate::window::{Settings, Window};
use crate::{Call, Decision, OpError, Operator, attributes};

#[derive(Debug)]
enum QLinearPool {
    Windows { settings: Settings, count_padding: bool },
    Planes,
}

/// Parses a `QLinearAveragePool`.
pub fn average(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let count_padding = attributes::flag(node, "count_include_pad", false)?;
    where_asked(node, Box::new(QLinearPool::Windows { settings: Settings::parse(node)?, count_padding }))
}

/// Parses a `QLinearGlobalAveragePool`.
pub fn global_average(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    where_asked(node, Box::new(QLinearPool::Planes))
}

/// Counts `place` up within `sizes`, the last axis fastest.
fn advance(place: &mut [usize], sizes: &[usize]) {
    for (p, &size) in place.iter_mut().zip(sizes).rev() {
        *p += 1;
        if *p < size {
            return;
        }
        *p = 0;
    }
}

/// Where the elements of the window at output place `at` lie in a plane, in the window's order.
fn sources(window: &Window, at: &[usize], found: &mut Vec<usize>) {
    found.clear();
    let mut tap = vec![0; at.len()];
    for _ in 0..window.taps() {
        let place = (0..at.len())
            .try_fold(0, |place, i| Some(place * window.input[i] + window.source(i, at[i], tap[i])?));
        found.extend(place);
        advance(&mut tap, &window.kernel);
    }
}

fn windows(
    x: &[i64],
    planes: usize,
    window: &Window,
    count_padding: bool,
    from: &Grid,
    to: &Grid,
    out: &mut [i32],
) {
    let (plane, pixels) = (window.input.iter().product::<usize>(), window.pixels());
    let (mut at, mut under) = (vec![0; window.output.len()], Vec::new());
    for pixel in 0..pixels {
        sources(window, &at, &mut under);
        let count = if count_padding { window.taps() } else { under.len() } as f32;
        for p in 0..planes {
            let sum = under.iter().fold(0f32, |sum, i| sum + from.value(x[p * plane + i] as i32));
            let shifted = sum / count / to.scale + to.zero as f32;
            out[p * pixels + pixel] = shifted.round_ties_even().clamp(to.low as f32, to.high as f32) as i32;
        }
        advance(&mut at, &window.output);
    }
}

impl Operator for QLinearPool {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let (from, to) = (Grid::read(call, 1, "X", x.dtype())?, Grid::written(call, 3, x.dtype())?);
        let &[batch, channels, ref spatial @ ..] = x.shape() else {
            return Err(OpError::Input(format!(
                "X has shape {:?}; expected batch, channels and spatial axes",
                x.shape()
            )));
        };
        let mut shape = vec![batch, channels];
        let data = x.to_i64()?;
        let out = match self {
            Self::Windows { settings, count_padding } => {
                let window = settings.window(spatial, None)?;
                shape.extend(&window.output);
                let mut out = zeros::<i32>(&shape)?;
                windows(&data, batch * channels, &window, *count_padding, &from, &to, &mut out);
                out
            }
            Self::Planes => {
                let plane: usize = spatial.iter().product();
                shape.resize(x.rank(), 1);
                let step = from.scale / (to.scale * plane as f32);
                let mean = |x: &[i64]| {
                    let sum = x.iter().map(|q| q - i64::from(from.zero)).sum::<i64>();
                    to.steps(sum as f32 * step)
                };
                (0..batch * channels).map(|p| mean(&data[p * plane..(p + 1) * plane])).collect()
            }
        };
        Ok(vec![to.tensor(&shape, out)?])
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, tensor};
    use isotrace_graph::Attribute;

    #[test]
    fn means_by_hand() {
        let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
        let x = tensor(&[1, 1, 4], &[12u8, 14, 16, 18]);
        let (half, ten, one) = (Tensor::scalar(0.5f32), Tensor::scalar(10u8), Tensor::scalar(1u8));
        let quarter = Tensor::scalar(0.25f32);
        // Values 1, 2, 3, 4 on a grid of quarters from 1.
        type Case =
            (fn(&Node) -> Result<Box<dyn Operator>, OpError>, Vec<(&'static str, Attribute)>, Vec<u8>);
        let pads = vec![("kernel_shape", ints(&[2])), ("pads", ints(&[1, 0]))];
        let mut counted = pads.clone();
        counted.push(("count_include_pad", Attribute::Int(1)));
        let cases: [Case; 4] = [
            (average, vec![("kernel_shape", ints(&[2]))], vec![7, 11, 15]),
            (average, pads, vec![5, 7, 11, 15]),
            (average, counted, vec![3, 7, 11, 15]),
            (global_average, vec![], vec![11]),
        ];
        for (row, (build, attributes, expected)) in cases.into_iter().enumerate() {
            let op = build(&node("pool", 1, &attributes)).unwrap();
            let out = op.run(&Call::new(&[&x, &half, &ten, &quarter, &one].map(Some))).unwrap();
            assert_eq!(out[0].as_slice::<u8>().unwrap(), expected, "row {row}");
        }
    }
}
