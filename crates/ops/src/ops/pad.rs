//! Pad: more places before and after each axis, filled with a constant or from the axis itself; negative pads crop.
//! CenterCropPad: each axis cropped or padded with zeros around its middle.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::walk::{Piece, Walk, walk};
use crate::{Call, Flow, OpError, Operator, arguments, attributes, flow};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Constant,
    /// Mirrored without repeating the edge.
    Reflect,
    /// The edge over and over.
    Edge,
    /// From the other end.
    Wrap,
}

/// Pads and the constant are attributes below version 11 (`paddings` in version 1), inputs 1 and 2 from there on;
/// input 3 names the axes from version 18 on.
#[derive(Debug)]
struct Pad {
    mode: Mode,
    pads: Option<Vec<i64>>,
    value: Option<f32>,
}

/// Parses a node of ONNX's own domain or of com.microsoft.
pub fn pad(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let mode = match attributes::text_or(node, "mode", "constant")?.as_str() {
        "constant" => Mode::Constant,
        "reflect" => Mode::Reflect,
        "edge" => Mode::Edge,
        "wrap" => Mode::Wrap,
        other => {
            return Err(OpError::Setting(format!(
                "mode is {other:?}, it must be constant, reflect, edge or wrap"
            )));
        }
    };
    let pads = match attributes::ints(node, "pads")? {
        None => attributes::ints(node, "paddings")?,
        pads => pads,
    };
    Ok(Box::new(Pad { mode, pads, value: attributes::float(node, "value")? }))
}

impl Pad {
    fn padded(&self, call: &Call<'_>, value: Option<f32>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "data")?;
        let pads =
            arguments::setting(self.pads.as_deref(), call, 1, "pads")?.ok_or(OpError::Missing(1, "pads"))?;
        let axes = match arguments::ints(call, 3, "axes")? {
            Some(axes) => arguments::axes(&axes, data.rank())?,
            None => (0..data.rank()).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(OpError::Input(format!(
                "pads {pads:?} must hold two numbers for each of {} axes",
                axes.len()
            )));
        }
        let mut walks: Vec<Walk> = data.shape().iter().map(|&d| Walk::whole(d)).collect();
        for (i, &axis) in axes.iter().enumerate() {
            walks[axis] = padded_axis(data.shape()[axis], pads[i], pads[i + axes.len()], self.mode)
                .map_err(|why| OpError::Input(format!("axis {axis} of {:?}: {why}", data.shape())))?;
        }
        let fill = match (call.get(2), value) {
            (Some(fill), _) => Some(fill.clone()),
            (None, Some(value)) => Some(Tensor::scalar(value).cast(data.dtype())?),
            (None, None) => None,
        };
        Ok(vec![walk(data, &walks, fill.as_ref())?])
    }
}

impl Operator for Pad {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        self.padded(call, self.value)
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        // A constant from an attribute is exact: its places get no error.
        flow::propagate(Flow::Moves, &|c| self.padded(c, None), call, outputs, errors)
    }
}

/// Stretches of a walk that may come from the axis itself; a hostile pad must not fill the memory with them.
const MAX_STRETCHES: usize = 1 << 24;

fn padded_axis(size: usize, before: i64, after: i64, mode: Mode) -> Result<Walk, String> {
    let crop = |pad: i64| usize::try_from(-i128::from(pad.min(0))).unwrap_or(usize::MAX);
    let (low, cut) = (crop(before), crop(after));
    let Some(n) = low.checked_add(cut).and_then(|cut| size.checked_sub(cut)) else {
        return Err(format!("pads {before} and {after} take away more than the {size} places there are"));
    };
    let (before, after) = (before.max(0) as usize, after.max(0) as usize);
    let from = |start: usize, step: isize, len: usize| Piece::From { start: low + start, step, len };
    let mut walk = Walk::default();
    if mode == Mode::Constant {
        walk.push(Piece::Fill { len: before });
        walk.push(from(0, 1, n));
        walk.push(Piece::Fill { len: after });
        return Ok(walk);
    }
    if n == 0 && before + after > 0 {
        return Err("an empty axis can be padded with a constant only".into());
    }
    if mode == Mode::Edge || n == 1 {
        walk.push(from(0, 0, before));
        walk.push(from(0, 1, n));
        walk.push(from(n.saturating_sub(1), 0, after));
        return Ok(walk);
    }
    // The result is a window on an endless row with a period of `n` (wrap) or 2(n - 1) (reflect).
    let period = if mode == Mode::Wrap { n } else { 2 * (n - 1) };
    let total = before.checked_add(n).and_then(|t| t.checked_add(after));
    let total = total.filter(|t| t / period < MAX_STRETCHES);
    let Some(total) = total else { return Err("the pads are too large".into()) };
    let mut done = 0;
    while done < total {
        // Place in the period; `before` places lie ahead of 0.
        let at = (done + period - before % period) % period;
        let left = total - done;
        let len = if at < n { left.min(n - at) } else { left.min(period - at) };
        walk.push(if at < n { from(at, 1, len) } else { from(period - at, -1, len) });
        done += len;
    }
    Ok(walk)
}

#[derive(Debug)]
struct CenterCropPad {
    axes: Option<Vec<i64>>,
}

/// Parses a node.
pub fn center_crop_pad(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(CenterCropPad { axes: attributes::ints(node, "axes")? }))
}

impl Operator for CenterCropPad {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "input_data")?;
        let wanted = arguments::sizes(&arguments::need_ints(call, 1, "shape")?, "shape")?;
        let axes = match &self.axes {
            Some(axes) => arguments::axes(axes, data.rank())?,
            None => (0..data.rank()).collect(),
        };
        if wanted.len() != axes.len() {
            return Err(OpError::Input(format!(
                "shape {wanted:?} must hold a size for each of {} axes",
                axes.len()
            )));
        }
        let mut walks: Vec<Walk> = data.shape().iter().map(|&d| Walk::whole(d)).collect();
        for (&axis, &wanted) in axes.iter().zip(&wanted) {
            let size = data.shape()[axis];
            let mut around = Walk::default();
            // An odd place goes to the end, of the part cut off as of the part added.
            if wanted <= size {
                around.push(Piece::From { start: (size - wanted) / 2, step: 1, len: wanted });
            } else {
                let before = (wanted - size) / 2;
                around.push(Piece::Fill { len: before });
                around.push(Piece::From { start: 0, step: 1, len: size });
                around.push(Piece::Fill { len: wanted - size - before });
            }
            walks[axis] = around;
        }
        Ok(vec![walk(data, &walks, None)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{counting, errors, first, ints, node, run, run_optional, tensor};

    fn mode(name: &str) -> (&str, Attribute) {
        ("mode", Attribute::Bytes(name.into()))
    }

    #[test]
    fn modes_as_a_table() {
        type Case = (&'static str, usize, [i64; 2], Option<&'static [f32]>);
        let cases: [Case; 17] = [
            ("constant", 3, [1, 2], Some(&[0., 0., 1., 2., 0., 0.])),
            ("constant", 3, [-1, 1], Some(&[1., 2., 0.])),
            ("constant", 0, [1, 1], Some(&[0., 0.])),
            ("constant", 3, [-2, -1], Some(&[])),
            ("constant", 3, [-2, -2], None),
            ("edge", 3, [2, 1], Some(&[0., 0., 0., 1., 2., 2.])),
            ("edge", 3, [-1, 2], Some(&[1., 2., 2., 2.])),
            ("edge", 0, [1, 0], None),
            ("reflect", 3, [2, 2], Some(&[2., 1., 0., 1., 2., 1., 0.])),
            ("reflect", 3, [5, 0], Some(&[1., 0., 1., 2., 1., 0., 1., 2.])),
            ("reflect", 1, [2, 1], Some(&[0., 0., 0., 0.])),
            ("reflect", 4, [1, -1], Some(&[1., 0., 1., 2.])),
            ("wrap", 3, [1, 2], Some(&[2., 0., 1., 2., 0., 1.])),
            ("wrap", 3, [4, 0], Some(&[2., 0., 1., 2., 0., 1., 2.])),
            ("wrap", 3, [-1, 1], Some(&[1., 2., 1.])),
            ("wrap", 3, [i64::MAX, 1], None),
            ("constant", 3, [i64::MAX, i64::MAX], None),
        ];
        for (name, size, pads, expected) in cases {
            let got = run(&node("Pad", 19, &[mode(name)]), &[&counting(&[size]), &ints(&pads)]);
            let got = got.ok().map(|t| t[0].as_slice::<f32>().unwrap().to_vec());
            assert_eq!(got, expected.map(<[f32]>::to_vec), "{name} {size} {pads:?}");
        }
    }

    #[test]
    fn settings_of_every_age() {
        let data = counting(&[2, 2]);
        let expected = [9., 0., 1., 9., 2., 3.];
        let pads = Attribute::Ints(vec![0, 1, 0, 0]);
        for (version, name) in [(1, "paddings"), (2, "pads")] {
            let old = node("Pad", version, &[(name, pads.clone()), ("value", Attribute::Float(9.0))]);
            assert_eq!(first(&old, &[&data]).as_slice::<f32>().unwrap(), expected);
            let got = errors(
                &old,
                &[&data.cast(isotrace_tensor::DType::F64).unwrap()],
                &[Some(tensor(&[2, 2], &[1f64; 4]))],
            );
            assert_eq!(got, [0., 1., 1., 0., 1., 1.], "the constant is exact");
        }
        let nine = tensor(&[], &[9f32]);
        let out = first(&node("Pad", 11, &[]), &[&data, &ints(&[0, 1, 0, 0]), &nine]);
        assert_eq!(out.as_slice::<f32>().unwrap(), expected);
        let (two, axis) = (ints(&[1, 0]), ints(&[-1]));
        let inputs = [Some(&data), Some(&two), Some(&nine), Some(&axis)];
        let out = run_optional(&node("Pad", 18, &[]), &inputs).unwrap();
        assert_eq!(out[0].as_slice::<f32>().unwrap(), expected);
        assert!(run(&node("Pad", 11, &[]), &[&data, &ints(&[1, 1])]).is_err());
        assert!(run(&node("Pad", 11, &[mode("mirror")]), &[&data, &ints(&[0; 4])]).is_err());
    }

    #[test]
    fn middles() {
        let crop = |axes: Option<Vec<i64>>| {
            let axes: Vec<_> = axes.map(|a| ("axes", Attribute::Ints(a))).into_iter().collect();
            node("CenterCropPad", 18, &axes)
        };
        let cases: [(usize, i64, &[f32]); 5] = [
            (5, 2, &[1., 2.]),
            (4, 2, &[1., 2.]),
            (2, 5, &[0., 0., 1., 0., 0.]),
            (3, 3, &[0., 1., 2.]),
            (3, 0, &[]),
        ];
        for (size, wanted, expected) in cases {
            let out = first(&crop(None), &[&counting(&[size]), &ints(&[wanted])]);
            assert_eq!(out.as_slice::<f32>().unwrap(), expected, "{size} to {wanted}");
        }
        let data = counting(&[2, 3, 4]);
        assert_eq!(first(&crop(Some(vec![-1, 0])), &[&data, &ints(&[2, 3])]).shape(), [3, 3, 2]);
        assert!(run(&crop(None), &[&data, &ints(&[2])]).is_err());
    }
}
