//! com.microsoft.nchwc: Conv, `MaxPool`, `AveragePool`, `GlobalMaxPool`, `GlobalAveragePool`, `ReorderInput` and `ReorderOutput`.
//!
//! All tensors are held in plain (N, C, H, W) order: see [`crate::nchwc`]. Of a graph that was put in [plain
//! order](crate::nchwc::plain()) convolutions and pools are those that everybody has. Elsewhere (inside of bodies, a node on
//! its own) C is padded with zero channels to a multiple of the block, and weights are put in order as they come.

use std::sync::{Mutex, PoisonError};

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::conv::{Conv, parse_fused};
use crate::budget::{self, Budget, Unit};
use crate::moves::{Move, move_elements};
use crate::nchwc::{BLOCK, CHANNELS, PLAIN, block_of, unblock_weights, weights_in_order};
use crate::{Call, Flow, OpError, Operator, attributes};

#[derive(Debug)]
struct Blocked {
    conv: Conv,
    block: Option<usize>,
    /// The weights last seen and their plain form: a model's weights do not change from call to call, and putting
    /// them in order takes longer than many a convolution.
    last: Mutex<Option<(Tensor, Tensor)>>,
}

fn block(node: &Node) -> Result<Option<usize>, OpError> {
    match attributes::int(node, BLOCK)? {
        None => Ok(None),
        Some(b @ (8 | 16)) => Ok(Some(b as usize)),
        Some(b) => Err(OpError::Setting(format!("{BLOCK} {b} is neither 8 nor 16"))),
    }
}

/// Parses a Conv: `FusedConv`'s attributes; inputs X, W (blocked), B, and a tensor to add before the activation.
pub fn conv(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    if attributes::flag(node, PLAIN, false)? {
        return Ok(Box::new(parse_fused(node)?));
    }
    Ok(Box::new(Blocked { conv: parse_fused(node)?, block: block(node)?, last: Mutex::default() }))
}

impl Blocked {
    /// Calls `f` with the weights in plain order.
    fn with_plain<R>(
        &self,
        call: &Call<'_>,
        f: impl FnOnce(&Call<'_>) -> Result<R, OpError>,
    ) -> Result<R, OpError> {
        let w = call.need(1, "W")?;
        let plain = self.plain(w)?;
        let mut inputs = call.inputs.to_vec();
        inputs[1] = Some(&plain);
        f(&Call { inputs: &inputs, ..*call })
    }

    fn plain(&self, w: &Tensor) -> Result<Tensor, OpError> {
        // The tensor kept here keeps its memory alive, so the same place means the same weights.
        let same = |a: &Tensor| {
            a.bytes().as_ptr() == w.bytes().as_ptr() && a.dtype() == w.dtype() && a.shape() == w.shape()
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plain)) = last.as_ref().filter(|(raw, _)| same(raw)) {
            return Ok(plain.clone());
        }
        let block = self.block.map_or_else(|| block_of(w), Ok)?;
        let plain = weights_in_order(w, block)?;
        *last = Some((w.clone(), plain.clone()));
        Ok(plain)
    }
}

impl Operator for Blocked {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        self.with_plain(call, |c| self.conv.run(c))
    }

    fn flow(&self) -> Flow {
        Flow::Linear
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        self.with_plain(call, |c| self.conv.budget(c, index, output, unit))
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let mut errors = errors.to_vec();
        if let Some(Some(e)) = errors.get_mut(1) {
            // The weights' errors lie where the weights lie, and so does the block size that was found there.
            let w = call.need(1, "W")?;
            let block = self.block.map_or_else(|| block_of(w), Ok)?;
            let plain = unblock_weights(&e.to_f64()?, e.shape(), block)?;
            *e = Tensor::from_vec(e.shape(), plain)?;
        }
        self.with_plain(call, |c| self.conv.propagate(c, outputs, &errors))
    }
}

/// Which way a reordering goes.
#[derive(Debug)]
enum Way {
    /// Pads channels to a multiple of the block, or makes them as many as are known to count.
    In { block: usize, channels: Option<usize> },
    /// Drops the padding: this many channels stay.
    Out { channels: usize },
}

#[derive(Debug)]
struct Reorder {
    way: Way,
    channels_last: bool,
}

/// Parses a `ReorderInput`.
pub fn reorder_input(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let channels_last = attributes::flag(node, "channels_last", false)?;
    // Where nothing tells, 16: what ONNX Runtime uses on current x86 servers and on Arm.
    let channels = attributes::int(node, CHANNELS)?.and_then(|c| usize::try_from(c).ok());
    let way = Way::In { block: block(node)?.unwrap_or(16), channels };
    Ok(Box::new(Reorder { way, channels_last }))
}

/// Parses a `ReorderOutput`.
pub fn reorder_output(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let channels = attributes::int_or(node, "channels", 0)?;
    let channels = usize::try_from(channels)
        .ok()
        .filter(|&c| c > 0)
        .ok_or_else(|| OpError::Setting(format!("channels {channels} must be at least 1")))?;
    let channels_last = attributes::flag(node, "channels_last", false)?;
    Ok(Box::new(Reorder { way: Way::Out { channels }, channels_last }))
}

/// Makes `to` channels of `from`, dropping the last ones or adding zeros, for `n` images of `plane` elements each.
struct Recount {
    n: usize,
    from: usize,
    to: usize,
    plane: usize,
}

impl Move for Recount {
    fn run<T: Copy + Send + Sync>(&self, data: &[&[T]], zero: T, out: &mut Vec<T>) {
        let kept = self.from.min(self.to) * self.plane;
        for i in 0..self.n {
            let image = &data[0][i * self.from * self.plane..];
            out.extend_from_slice(&image[..kept]);
            out.resize((i + 1) * self.to * self.plane, zero);
        }
    }
}

impl Operator for Reorder {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        if x.rank() != 4 {
            return Err(OpError::Input(format!(
                "X has shape {:?}; blocked tensors have four axes",
                x.shape()
            )));
        }
        let recount = |x: &Tensor, to: usize| -> Result<Tensor, OpError> {
            let &[n, from, h, w] = x.shape() else { unreachable!("four axes, checked above") };
            if from == to {
                return Ok(x.clone());
            }
            Ok(move_elements(&[x], &[n, to, h, w], &Recount { n, from, to, plane: h * w })?)
        };
        let out = match self.way {
            Way::In { block, channels } => {
                let x = if self.channels_last { x.permute(&[0, 3, 1, 2])? } else { x.clone() };
                recount(&x, channels.unwrap_or_else(|| x.shape()[1].next_multiple_of(block)))?
            }
            Way::Out { channels } => {
                if channels > x.shape()[1] {
                    return Err(OpError::Input(format!(
                        "channels {channels} exceeds the {} of the input",
                        x.shape()[1]
                    )));
                }
                let x = recount(x, channels)?;
                if self.channels_last { x.permute(&[0, 2, 3, 1])? } else { x }
            }
        };
        Ok(vec![out])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, _: Unit) -> Result<Budget, OpError> {
        Ok(budget::exact(output.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reordering_there_and_back() {
        let x = Tensor::from_vec(&[2, 3, 1, 2], (0..12).map(|i| i as f32).collect()).unwrap();
        for channels_last in [false, true] {
            let given = if channels_last { x.permute(&[0, 2, 3, 1]).unwrap() } else { x.clone() };
            let inputs = [Some(&given)];
            let enter = Reorder { way: Way::In { block: 8, channels: None }, channels_last };
            let inside = enter.run(&Call::new(&inputs)).unwrap().remove(0);
            assert_eq!(inside.shape(), [2, 8, 1, 2]);
            assert_eq!(inside.as_slice::<f32>().unwrap()[..8], [0., 1., 2., 3., 4., 5., 0., 0.]);
            let leave = Reorder { way: Way::Out { channels: 3 }, channels_last };
            let inputs = [Some(&inside)];
            assert!(leave.run(&Call::new(&inputs)).unwrap()[0].bit_eq(&given));
        }
    }
}
