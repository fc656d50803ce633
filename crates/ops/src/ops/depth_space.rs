//! DepthToSpace and SpaceToDepth: blocks of channels to blocks of places and back, on [N, C, H, W].

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::{Call, Flow, OpError, Operator, attributes};

#[derive(Debug)]
struct Blocks {
    size: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Depth, column, row: the block's place varies slowest among the channels.
    DepthColumnRow,
    /// Column, row, depth: the block's place varies fastest.
    ColumnRowDepth,
    /// Back, to channels in the order depth, column, row.
    ToDepthColumnRow,
    /// Back, to channels in the order column, row, depth (from operator set 28).
    ToColumnRowDepth,
}

fn build(node: &Node, kind: Kind) -> Result<Box<dyn Operator>, OpError> {
    let size = attributes::int(node, "blocksize")?.and_then(|s| usize::try_from(s).ok()).filter(|&s| s > 0);
    let size =
        size.ok_or_else(|| OpError::Setting("attribute \"blocksize\" must be a number above 0".into()))?;
    Ok(Box::new(Blocks { size, kind }))
}

/// Parses a node.
pub fn depth_to_space(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    match attributes::text_or(node, "mode", "DCR")?.as_str() {
        "DCR" => build(node, Kind::DepthColumnRow),
        "CRD" => build(node, Kind::ColumnRowDepth),
        other => Err(OpError::Setting(format!("mode is {other:?}, it must be DCR or CRD"))),
    }
}

/// Parses a node.
pub fn space_to_depth(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    match attributes::text_or(node, "mode", "DCR")?.as_str() {
        "DCR" => build(node, Kind::ToDepthColumnRow),
        "CRD" => build(node, Kind::ToColumnRowDepth),
        other => Err(OpError::Setting(format!("mode is {other:?}, it must be DCR or CRD"))),
    }
}

impl Operator for Blocks {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "input")?;
        let b = self.size;
        let refuse = || {
            OpError::Input(format!(
                "input {:?} must be [N, C, H, W] that divides into blocks of {b}",
                data.shape()
            ))
        };
        let &[n, c, h, w] = data.shape() else { return Err(refuse()) };
        let divide = |size: usize, by: usize| {
            if size.is_multiple_of(by) { Ok(size / by) } else { Err(refuse()) }
        };
        let square = b.checked_mul(b).ok_or_else(refuse)?;
        let (apart, perm, shape) = match self.kind {
            Kind::ToDepthColumnRow | Kind::ToColumnRowDepth => {
                let (h, w) = (divide(h, b)?, divide(w, b)?);
                let perm = match self.kind {
                    Kind::ToDepthColumnRow => [0, 3, 5, 1, 2, 4],
                    _ => [0, 1, 3, 5, 2, 4],
                };
                ([n, c, h, b, w, b], perm, [n, c.checked_mul(square).ok_or_else(refuse)?, h, w])
            }
            Kind::DepthColumnRow | Kind::ColumnRowDepth => {
                let c = divide(c, square)?;
                let (high, wide) = (h.checked_mul(b), w.checked_mul(b));
                let shape = [n, c, high.ok_or_else(refuse)?, wide.ok_or_else(refuse)?];
                match self.kind {
                    Kind::DepthColumnRow => ([n, b, b, c, h, w], [0, 3, 4, 1, 5, 2], shape),
                    _ => ([n, c, b, b, h, w], [0, 1, 4, 2, 5, 3], shape),
                }
            }
        };
        Ok(vec![data.reshape(&apart)?.permute(&perm)?.reshape(&shape)?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{counting, first, node, run};

    fn blocks(op: &str, mode: &str, size: i64) -> Node {
        let mode = ("mode", Attribute::Bytes(mode.into()));
        node(op, 13, &[mode, ("blocksize", Attribute::Int(size))])
    }

    #[test]
    fn both_orders_of_channels() {
        let data = counting(&[1, 8, 1, 1]);
        let cases = [("DCR", [0., 2., 4., 6., 1., 3., 5., 7.]), ("CRD", [0., 1., 2., 3., 4., 5., 6., 7.])];
        for (mode, expected) in cases {
            let out = first(&blocks("DepthToSpace", mode, 2), &[&data]);
            assert_eq!(out.shape(), [1, 2, 2, 2]);
            assert_eq!(out.as_slice::<f32>().unwrap(), expected, "{mode}");
        }
        assert!(run(&blocks("DepthToSpace", "XYZ", 2), &[&data]).is_err());
        assert!(run(&blocks("DepthToSpace", "DCR", 3), &[&data]).is_err());
        assert!(run(&blocks("DepthToSpace", "DCR", 0), &[&data]).is_err());
        assert!(run(&blocks("DepthToSpace", "DCR", i64::MAX), &[&data]).is_err());
    }

    #[test]
    fn there_and_back() {
        let data = counting(&[2, 3, 4, 6]);
        for mode in ["DCR", "CRD"] {
            let deep = first(&blocks("SpaceToDepth", mode, 2), &[&data]);
            assert_eq!(deep.shape(), [2, 12, 2, 3]);
            assert!(first(&blocks("DepthToSpace", mode, 2), &[&deep]).bit_eq(&data), "{mode}");
        }
        assert!(run(&blocks("SpaceToDepth", "XYZ", 2), &[&data]).is_err());
        let empty = first(&blocks("SpaceToDepth", "DCR", 2), &[&counting(&[0, 3, 4, 6])]);
        assert_eq!(empty.shape(), [0, 12, 2, 3]);
    }
}
