//! com.microsoft's operators on images stored with their channels last, (N, D1, ..., C): `NhwcMaxPool`, and the settings
//! `channels_last` of `QLinearConv` and the pools of 8-bit numbers. Weights are (filters, channels, window) as ever.
//!
//! The operator for channels first does the work, on the image turned.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::{integer, pool};
use crate::{Call, Decision, Flow, OpError, Operator, attributes};

#[derive(Debug)]
struct ChannelsLast {
    inner: Box<dyn Operator>,
}

/// Parses an `NhwcMaxPool`.
pub fn max_pool(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(ChannelsLast { inner: pool::max(node)? }))
}

/// Parses a `QLinearConv` of com.microsoft.
pub fn qlinear_conv(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    where_asked(node, integer::qlinear_conv(node)?)
}

/// `inner`, on turned images where the node's attribute `channels_last` says so. Inputs and outputs that are images
/// hold integers.
pub(super) fn where_asked(node: &Node, inner: Box<dyn Operator>) -> Result<Box<dyn Operator>, OpError> {
    Ok(if attributes::flag(node, "channels_last", false)? { Box::new(ChannelsLast { inner }) } else { inner })
}

/// An image with its last axis as the second one, or back.
fn turned(x: &Tensor, back: bool) -> Result<Tensor, OpError> {
    let mut order: Vec<usize> = (0..x.rank()).collect();
    if order.len() < 2 {
        return Err(OpError::Input(format!(
            "X has shape {:?}; expected batch, spatial axes and channels",
            x.shape()
        )));
    }
    if back {
        order[1..].rotate_left(1);
    } else {
        order[1..].rotate_right(1);
    }
    Ok(x.permute(&order)?)
}

impl Operator for ChannelsLast {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = turned(call.need(0, "X")?, false)?;
        let mut inputs = call.inputs.to_vec();
        inputs[0] = Some(&x);
        let mut outputs = self.inner.run(&call.with_inputs(&inputs))?;
        outputs[0] = turned(&outputs[0], true)?;
        Ok(outputs)
    }

    fn flow(&self) -> Flow {
        Flow::Decided
    }

    fn decision(&self) -> Decision {
        self.inner.decision()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, tensor};
    use isotrace_graph::Attribute;

    #[test]
    fn the_largest_of_each_channel() {
        // Pixels (1, 2), (3, 0), (2, 9) of two channels.
        let x = tensor(&[1, 3, 2], &[1u8, 2, 3, 0, 2, 9]);
        let op = max_pool(&node("NhwcMaxPool", 1, &[("kernel_shape", Attribute::Ints(vec![2]))])).unwrap();
        let out = op.run(&Call::new(&[Some(&x)])).unwrap();
        assert!(out[0].bit_eq(&tensor(&[1, 2, 2], &[3u8, 2, 3, 9])), "{out:?}");
        assert!(op.run(&Call::new(&[Some(&tensor(&[3], &[1u8, 2, 3]))])).is_err());
    }
}
