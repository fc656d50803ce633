//! And, Or, Xor and Not on truth values.

use isotrace_graph::Node;
use isotrace_tensor::{Bool, Tensor};

use crate::broadcast::{line_up, old_axis, zip};
use crate::math::each;
use crate::{Call, Flow, OpError, Operator};

#[derive(Debug, Clone, Copy)]
enum Kind {
    And,
    Or,
    Xor,
}

#[derive(Debug)]
struct Logic {
    kind: Kind,
    /// Versions below 7 broadcast B into A from this axis on.
    axis: Option<i64>,
}

#[derive(Debug)]
struct Not;

macro_rules! builders {
    ($($name:ident $kind:ident;)*) => { $(
        #[doc = concat!("Parses a node of ", stringify!($kind), ".")]
        pub fn $name(node: &Node) -> Result<Box<dyn Operator>, OpError> {
            Ok(Box::new(Logic { kind: Kind::$kind, axis: old_axis(node)? }))
        }
    )* };
}

builders! {
    and And;
    or Or;
    xor Xor;
}

/// Parses a node of Not.
pub fn not(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Not))
}

impl Operator for Logic {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let a = call.need(0, "A")?;
        let b = line_up(call.need(1, "B")?, self.axis, a.rank())?;
        let (a, b) = (a.view::<Bool>()?, b.view::<Bool>()?);
        let (shape, data) = match self.kind {
            Kind::And => zip(
                &a,
                &b,
                #[inline(always)]
                |a, b| Bool(u8::from(a.0 != 0) & u8::from(b.0 != 0)),
            ),
            Kind::Or => zip(
                &a,
                &b,
                #[inline(always)]
                |a, b| Bool(u8::from(a.0 | b.0 != 0)),
            ),
            Kind::Xor => zip(
                &a,
                &b,
                #[inline(always)]
                |a, b| Bool(u8::from(a.0 != 0) ^ u8::from(b.0 != 0)),
            ),
        }?;
        Ok(vec![Tensor::from_vec(&shape, data)?])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }
}

impl Operator for Not {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let y = each(
            x.as_slice::<Bool>()?,
            #[inline(always)]
            |x| Bool(u8::from(x.0 == 0)),
        );
        Ok(vec![Tensor::from_vec(x.shape(), y)?])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_tables() {
        let a = Tensor::from_vec(&[2, 1], vec![Bool(0), Bool(3)]).unwrap();
        let b = Tensor::vector(vec![Bool(0), Bool(1), Bool(4)]);
        let cases = [
            (Kind::And, [0, 0, 0, 0, 1, 1]),
            (Kind::Or, [0, 1, 1, 1, 1, 1]),
            (Kind::Xor, [0, 1, 1, 1, 0, 0]),
        ];
        for (kind, expected) in cases {
            let out = Logic { kind, axis: None }.run(&Call::new(&[Some(&a), Some(&b)])).unwrap();
            assert_eq!(out[0].as_slice::<Bool>().unwrap(), expected.map(Bool), "{kind:?}");
        }
        let out = Not.run(&Call::new(&[Some(&b)])).unwrap();
        assert_eq!(out[0].as_slice::<Bool>().unwrap(), [1, 0, 0].map(Bool));
    }
}
