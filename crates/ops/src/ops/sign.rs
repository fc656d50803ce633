//! Neg, Abs and Sign, on floats and integers. Integers wrap: the smallest one is its own negative.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor};

use crate::budget::{self, Budget, Unit};
use crate::math::each;
use crate::{Call, Decision, Flow, OpError, Operator};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Neg,
    Abs,
    Sign,
}

#[derive(Debug)]
struct OfSign {
    kind: Kind,
}

/// Parses a node of Neg.
pub fn neg(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(OfSign { kind: Kind::Neg }))
}
/// Parses a node of Abs.
pub fn abs(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(OfSign { kind: Kind::Abs }))
}
/// Parses a node of Sign.
pub fn sign(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(OfSign { kind: Kind::Sign }))
}

trait Signed: Copy + Default + Send + Sync {
    fn apply(kind: Kind, x: &[Self]) -> Vec<Self>;
}

macro_rules! signed {
    ($($t:ty: $neg:expr, $abs:expr, $sign:expr;)*) => { $(impl Signed for $t {
        fn apply(kind: Kind, x: &[Self]) -> Vec<Self> {
            match kind {
                Kind::Neg => each(x, $neg),
                Kind::Abs => each(x, $abs),
                Kind::Sign => each(x, $sign),
            }
        }
    })* };
    (floats $($t:ty),*) => { signed! { $($t: |x| -x, |x| x.abs(), |x| {
        // NaN has no sign, and 0 keeps its own.
        if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x }
    };)* } };
    (ints $($t:ty),*) => { signed! { $($t: |x| x.wrapping_neg(), |x| x.wrapping_abs(), |x| x.signum();)* } };
    (unsigned $($t:ty),*) => { signed! { $($t: |x| x.wrapping_neg(), |x| x, |x| x.min(1);)* } };
}

signed!(floats f32, f64);
signed!(ints i64, i32, i16, i8);
signed!(unsigned u64, u32, u16, u8);

impl Operator for OfSign {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        if self.kind as u8 == Kind::Neg as u8
            && matches!(x.dtype(), DType::U64 | DType::U32 | DType::U16 | DType::U8)
        {
            let supported = "floats and signed integers";
            return Err(OpError::DType { what: "X of Neg", found: x.dtype(), supported });
        }
        let y = crate::for_number!(x.dtype(), "X", T => {
            Ok(Tensor::from_vec(x.shape(), <T as Signed>::apply(self.kind, x.as_slice()?))?)
        })?;
        Ok(vec![y])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, _: Unit) -> Result<Budget, OpError> {
        Ok(budget::exact(output.len()))
    }

    fn decision(&self) -> Decision {
        match self.kind {
            Kind::Sign => Decision::Outputs,
            Kind::Neg | Kind::Abs => Decision::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_values() {
        let nan = f32::NAN;
        let x = [1.5, -2.0, 0.0, -0.0, f32::INFINITY, nan, 1e-45];
        let cases = [
            (Kind::Neg, [-1.5, 2.0, -0.0, 0.0, -f32::INFINITY, -nan, -1e-45]),
            (Kind::Abs, [1.5, 2.0, 0.0, 0.0, f32::INFINITY, nan, 1e-45]),
            (Kind::Sign, [1.0, -1.0, 0.0, -0.0, 1.0, nan, 1.0]),
        ];
        for (kind, expected) in cases {
            let got = f32::apply(kind, &x);
            let same = got.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{kind:?}: {got:?}, expected {expected:?}");
        }
        assert_eq!(i8::apply(Kind::Abs, &[-128, -1]), [-128, 1]);
        assert_eq!(u8::apply(Kind::Sign, &[0, 200]), [0, 1]);
    }
}
