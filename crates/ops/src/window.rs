//! The geometry of sliding windows: convolutions and pooling over any number of spatial axes.

use isotrace_graph::Node;
use isotrace_tensor::element_count;

use crate::{OpError, attributes};

/// Where the padding that makes sizes come out goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoPad {
    /// As attribute `pads` says.
    Explicit,
    /// None.
    Valid,
    /// Output size = input size / stride, rounded up; the odd element at the end.
    SameUpper,
    /// As `SameUpper`, the odd element at the start.
    SameLower,
}

/// The attributes that convolutions and pooling share. Empty lists stand for the defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `kernel_shape`; `None` where the weights say it.
    pub kernel: Option<Vec<usize>>,
    /// `strides`, by default 1.
    pub strides: Vec<usize>,
    /// `dilations`, by default 1.
    pub dilations: Vec<usize>,
    /// `pads`: all starts, then all ends; by default 0.
    pub pads: Vec<usize>,
    /// `auto_pad`.
    pub auto_pad: AutoPad,
    /// `ceil_mode`: a last window that only partly covers the input counts.
    pub ceil: bool,
}

/// A window's sizes along every spatial axis, for one input size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Spatial sizes of the input.
    pub input: Vec<usize>,
    /// Spatial sizes of the window.
    pub kernel: Vec<usize>,
    /// Distance between windows.
    pub strides: Vec<usize>,
    /// Distance between a window's elements.
    pub dilations: Vec<usize>,
    /// Padding before the input.
    pub begin: Vec<usize>,
    /// Padding after the input.
    pub end: Vec<usize>,
    /// Spatial sizes of the output.
    pub output: Vec<usize>,
}

/// Sizes as ONNX writes them; a negative one is an error.
pub(crate) fn sizes(node: &Node, name: &str) -> Result<Option<Vec<usize>>, OpError> {
    let Some(found) = attributes::ints(node, name)? else { return Ok(None) };
    found
        .iter()
        .map(|&i| usize::try_from(i))
        .collect::<Result<Vec<usize>, _>>()
        .map(Some)
        .map_err(|_| OpError::Setting(format!("{name} {found:?} must not hold negative numbers")))
}

impl Settings {
    /// Reads the attributes of a node.
    pub fn parse(node: &Node) -> Result<Self, OpError> {
        let auto_pad = match attributes::text_or(node, "auto_pad", "NOTSET")?.as_str() {
            "NOTSET" | "" => AutoPad::Explicit,
            "VALID" => AutoPad::Valid,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            other => {
                return Err(OpError::Setting(format!(
                    "auto_pad {other:?} is unknown; expected NOTSET, VALID, SAME_UPPER or SAME_LOWER"
                )));
            }
        };
        Ok(Self {
            kernel: sizes(node, "kernel_shape")?,
            strides: sizes(node, "strides")?.unwrap_or_default(),
            dilations: sizes(node, "dilations")?.unwrap_or_default(),
            pads: sizes(node, "pads")?.unwrap_or_default(),
            auto_pad,
            ceil: attributes::flag(node, "ceil_mode", false)?,
        })
    }

    /// One number an axis, or the default on every axis.
    pub fn per_axis(list: &[usize], rank: usize, default: usize, name: &str) -> Result<Vec<usize>, OpError> {
        match list.len() {
            0 => Ok(vec![default; rank]),
            n if n == rank => Ok(list.to_vec()),
            n => Err(OpError::Setting(format!(
                "{name} {list:?} has {n} numbers, expected {rank} for {} spatial axes",
                rank / (1 + usize::from(name == "pads"))
            ))),
        }
    }

    /// The window over an input of spatial sizes `input`; `weights` are the kernel sizes that weights imply.
    pub fn window(&self, input: &[usize], weights: Option<&[usize]>) -> Result<Window, OpError> {
        let rank = input.len();
        if rank == 0 {
            return Err(OpError::Input(
                "a window needs at least one spatial axis after batch and channels".into(),
            ));
        }
        let kernel = match (&self.kernel, weights) {
            (Some(k), Some(w)) if k.as_slice() != w && !k.is_empty() => {
                return Err(OpError::Setting(format!(
                    "kernel_shape {k:?} contradicts weights of spatial shape {w:?}"
                )));
            }
            (_, Some(w)) => w.to_vec(),
            (Some(k), None) => k.clone(),
            (None, None) => return Err(OpError::Setting("attribute kernel_shape is missing".into())),
        };
        if kernel.len() != rank {
            return Err(OpError::Setting(format!("kernel {kernel:?} does not fit {rank} spatial axes")));
        }
        let strides = Self::per_axis(&self.strides, rank, 1, "strides")?;
        let dilations = Self::per_axis(&self.dilations, rank, 1, "dilations")?;
        let pads = Self::per_axis(&self.pads, 2 * rank, 0, "pads")?;
        if strides.contains(&0) || dilations.contains(&0) || kernel.contains(&0) {
            return Err(OpError::Setting(format!(
                "kernel {kernel:?}, strides {strides:?} and dilations {dilations:?} must be at least 1"
            )));
        }
        let mut window = Window {
            input: input.to_vec(),
            begin: vec![0; rank],
            end: vec![0; rank],
            output: vec![0; rank],
            kernel,
            strides,
            dilations,
        };
        for i in 0..rank {
            window.place(i, self.auto_pad, (pads[i], pads[rank + i]), self.ceil).ok_or_else(|| {
                OpError::Input(format!(
                    "a window of {} elements, {} apart, does not fit an input of {} with padding {} and {}",
                    window.kernel[i],
                    window.dilations[i],
                    input[i],
                    pads[i],
                    pads[rank + i]
                ))
            })?;
        }
        element_count(&window.output)?;
        Ok(window)
    }
}

impl Window {
    /// Padding and output size along axis `i`; `None` where the window does not fit or sizes overflow.
    fn place(&mut self, i: usize, auto: AutoPad, pads: (usize, usize), ceil: bool) -> Option<()> {
        let (input, stride) = (self.input[i], self.strides[i]);
        let extent = (self.kernel[i] - 1).checked_mul(self.dilations[i])?.checked_add(1)?;
        match auto {
            AutoPad::SameUpper | AutoPad::SameLower => {
                self.output[i] = input.div_ceil(stride);
                let needed = (self.output[i].max(1) - 1).checked_mul(stride)?.checked_add(extent)?;
                let total = needed.saturating_sub(input);
                self.begin[i] = if auto == AutoPad::SameLower { total.div_ceil(2) } else { total / 2 };
                self.end[i] = total - self.begin[i];
                return Some(());
            }
            AutoPad::Explicit => (self.begin[i], self.end[i]) = pads,
            AutoPad::Valid => {}
        }
        let padded = input.checked_add(self.begin[i])?.checked_add(self.end[i])?;
        // Rounded up, a window that reaches beyond the end by less than a stride is one all the same.
        if ceil && padded < extent && extent - padded < stride && padded > 0 {
            self.output[i] = 1;
            return Some(());
        }
        let room = padded.checked_sub(extent)?;
        self.output[i] = room / stride + 1;
        // A window that would start in the padding after the input does not count.
        if ceil && room % stride != 0 && self.output[i] * stride < input + self.begin[i] {
            self.output[i] += 1;
        }
        Some(())
    }

    /// Elements of one output channel.
    pub fn pixels(&self) -> usize {
        self.output.iter().product()
    }

    /// Elements of one window.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Whether each window is one element and windows follow each other without padding.
    pub fn is_pointwise(&self) -> bool {
        let all = |v: &[usize], x: usize| v.iter().all(|&e| e == x);
        all(&self.kernel, 1) && all(&self.strides, 1) && all(&self.begin, 0) && all(&self.end, 0)
    }

    /// The output places `low..high` along axis `i` whose window element `k` lies inside the input.
    pub fn inside(&self, i: usize, k: usize) -> (usize, usize) {
        let (stride, offset) = (self.strides[i], k * self.dilations[i]);
        // Place o reads o * stride + offset - begin.
        let low = self.begin[i].saturating_sub(offset).div_ceil(stride);
        let high = (self.input[i] + self.begin[i]).saturating_sub(offset).div_ceil(stride);
        let low = low.min(self.output[i]);
        (low, high.clamp(low, self.output[i]))
    }

    /// Where output place `o`'s window element `k` lies along axis `i`, if inside the input.
    pub fn source(&self, i: usize, o: usize, k: usize) -> Option<usize> {
        (o * self.strides[i] + k * self.dilations[i])
            .checked_sub(self.begin[i])
            .filter(|&x| x < self.input[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_sizes_and_padding() {
        struct Case {
            input: usize,
            kernel: usize,
            stride: usize,
            dilation: usize,
            pads: [usize; 2],
            auto_pad: AutoPad,
            ceil: bool,
            expected: Option<(usize, usize, usize)>,
        }
        let base = Case {
            input: 5,
            kernel: 3,
            stride: 1,
            dilation: 1,
            pads: [0, 0],
            auto_pad: AutoPad::Explicit,
            ceil: false,
            expected: Some((3, 0, 0)),
        };
        let cases = [
            Case { ..base },
            Case { pads: [1, 2], expected: Some((6, 1, 2)), ..base },
            Case { stride: 2, dilation: 2, expected: Some((1, 0, 0)), ..base },
            Case { dilation: 3, expected: None, ..base },
            Case { input: 6, stride: 2, ceil: true, expected: Some((3, 0, 0)), ..base },
            // Stepping by 2 from 4 on would start the last window beyond the input.
            Case { input: 2, kernel: 1, stride: 2, ceil: true, expected: Some((1, 0, 0)), ..base },
            // Rounded up, a window may reach beyond the end of all there is, by less than a step.
            Case { input: 4, kernel: 9, stride: 9, ceil: true, expected: Some((1, 0, 0)), ..base },
            Case { input: 4, kernel: 9, stride: 2, ceil: true, expected: None, ..base },
            Case { stride: 2, auto_pad: AutoPad::SameUpper, kernel: 2, expected: Some((3, 0, 1)), ..base },
            Case { stride: 2, auto_pad: AutoPad::SameLower, kernel: 2, expected: Some((3, 1, 0)), ..base },
            Case { auto_pad: AutoPad::Valid, pads: [9, 9], ..base },
            Case { dilation: usize::MAX, expected: None, ..base },
        ];
        for (i, c) in cases.iter().enumerate() {
            let settings = Settings {
                kernel: Some(vec![c.kernel]),
                strides: vec![c.stride],
                dilations: vec![c.dilation],
                pads: c.pads.to_vec(),
                auto_pad: c.auto_pad,
                ceil: c.ceil,
            };
            let got = settings.window(&[c.input], None).ok();
            assert_eq!(got.map(|w| (w.output[0], w.begin[0], w.end[0])), c.expected, "case {i}");
        }
    }

    #[test]
    fn inside_agrees_with_source() {
        for (stride, dilation, begin) in [(1, 1, 0), (2, 1, 1), (3, 2, 4), (1, 5, 2)] {
            let settings = Settings {
                kernel: Some(vec![3]),
                strides: vec![stride],
                dilations: vec![dilation],
                pads: vec![begin, 7],
                auto_pad: AutoPad::Explicit,
                ceil: false,
            };
            let w = settings.window(&[9], None).unwrap();
            for k in 0..3 {
                let (low, high) = w.inside(0, k);
                for o in 0..w.output[0] {
                    assert_eq!(w.source(0, o, k).is_some(), (low..high).contains(&o), "{w:?} at {o}, {k}");
                }
            }
        }
    }
}
