//! Equal, Greater, GreaterOrEqual, Less, LessOrEqual: decisions, one per pair of broadcast elements.
//!
//! NaN compares as in IEEE 754: equal to nothing, on neither side of anything.

use isotrace_graph::Node;
use isotrace_tensor::{Bool, DType, Tensor, View};

use crate::broadcast::{line_up, old_axis, zip};
use crate::{Call, Decision, Flow, OpError, Operator, for_int};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Debug)]
struct Compare {
    kind: Kind,
    /// Versions below 7 broadcast B into A from this axis on.
    axis: Option<i64>,
}

macro_rules! builders {
    ($($name:ident $kind:ident;)*) => { $(
        #[doc = concat!("Parses a node of ", stringify!($kind), ".")]
        pub fn $name(node: &Node) -> Result<Box<dyn Operator>, OpError> {
            Ok(Box::new(Compare { kind: Kind::$kind, axis: old_axis(node)? }))
        }
    )* };
}

builders! {
    equal Equal;
    greater Greater;
    greater_or_equal GreaterOrEqual;
    less Less;
    less_or_equal LessOrEqual;
}

impl Compare {
    fn apply<T: PartialOrd + Copy + Send + Sync>(
        &self,
        a: &View<'_, T>,
        b: &View<'_, T>,
    ) -> Result<Tensor, OpError> {
        let (shape, data) = match self.kind {
            Kind::Equal => zip(
                a,
                b,
                #[inline(always)]
                |a, b| Bool(u8::from(a == b)),
            ),
            Kind::Greater => zip(
                a,
                b,
                #[inline(always)]
                |a, b| Bool(u8::from(a > b)),
            ),
            Kind::GreaterOrEqual => zip(
                a,
                b,
                #[inline(always)]
                |a, b| Bool(u8::from(a >= b)),
            ),
            Kind::Less => zip(
                a,
                b,
                #[inline(always)]
                |a, b| Bool(u8::from(a < b)),
            ),
            Kind::LessOrEqual => zip(
                a,
                b,
                #[inline(always)]
                |a, b| Bool(u8::from(a <= b)),
            ),
        }?;
        Ok(Tensor::from_vec(&shape, data)?)
    }
}

impl Operator for Compare {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let a = call.need(0, "A")?;
        let b = &line_up(call.need(1, "B")?, self.axis, a.rank())?;
        let out = match (a.dtype(), self.kind) {
            (DType::Bool, Kind::Equal) => {
                let truth = |t: &Tensor| -> Result<Vec<bool>, OpError> {
                    Ok(t.as_slice::<Bool>()?.iter().map(|b| b.0 != 0).collect())
                };
                let (x, y) = (truth(a)?, truth(b)?);
                self.apply(&View::new(&x, a.shape()), &View::new(&y, b.shape()))?
            }
            (DType::String, Kind::Equal) => {
                let texts = |t: &'_ Tensor| -> Result<Vec<usize>, OpError> {
                    Ok((0..t.as_strings()?.len()).collect())
                };
                let (x, y) = (texts(a)?, texts(b)?);
                let (of_a, of_b) = (a.as_strings()?, b.as_strings()?);
                let (shape, data) = zip(&View::new(&x, a.shape()), &View::new(&y, b.shape()), |i, k| {
                    Bool(u8::from(of_a[i] == of_b[k]))
                })?;
                Tensor::from_vec(&shape, data)?
            }
            (DType::F32, _) => self.apply(&a.view::<f32>()?, &b.view::<f32>()?)?,
            (DType::F64, _) => self.apply(&a.view::<f64>()?, &b.view::<f64>()?)?,
            (DType::I64, _) => self.apply(&a.view::<i64>()?, &b.view::<i64>()?)?,
            // One copy of the loops for the five comparisons is enough for the rarer types.
            _ => for_int!(a.dtype(), "A", T => {
                let f: fn(&T, &T) -> bool = match self.kind {
                    Kind::Equal => T::eq,
                    Kind::Greater => T::gt,
                    Kind::GreaterOrEqual => T::ge,
                    Kind::Less => T::lt,
                    Kind::LessOrEqual => T::le,
                };
                let (shape, data) = zip(&a.view()?, &b.view()?, |a: T, b: T| Bool(u8::from(f(&a, &b))))?;
                Ok(Tensor::from_vec(&shape, data)?)
            })?,
        };
        Ok(vec![out])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(kind: Kind, a: &Tensor, b: &Tensor) -> Vec<u8> {
        let out = Compare { kind, axis: None }.run(&Call::new(&[Some(a), Some(b)])).unwrap();
        out[0].as_slice::<Bool>().unwrap().iter().map(|b| b.0).collect()
    }

    #[test]
    fn floats_and_nan() {
        let a = Tensor::vector(vec![1.0f32, 2.0, 3.0, f32::NAN, 0.0]);
        let b = Tensor::vector(vec![2.0f32, 2.0, 2.0, f32::NAN, -0.0]);
        let cases = [
            (Kind::Equal, [0, 1, 0, 0, 1]),
            (Kind::Greater, [0, 0, 1, 0, 0]),
            (Kind::GreaterOrEqual, [0, 1, 1, 0, 1]),
            (Kind::Less, [1, 0, 0, 0, 0]),
            (Kind::LessOrEqual, [1, 1, 0, 0, 1]),
        ];
        for (kind, expected) in cases {
            assert_eq!(bits(kind, &a, &b), expected, "{kind:?}");
        }
    }

    #[test]
    fn truth_and_text_are_equal_by_value() {
        let a = Tensor::vector(vec![Bool(0), Bool(1), Bool(2)]);
        let b = Tensor::scalar(Bool(1));
        assert_eq!(bits(Kind::Equal, &a, &b), [0, 1, 1]);
        let a = Tensor::from_strings(&[2], vec!["a".into(), "b".into()]).unwrap();
        let b = Tensor::from_strings(&[], vec!["b".into()]).unwrap();
        assert_eq!(bits(Kind::Equal, &a, &b), [0, 1]);
    }
}
