//! Functions of one number: exponentials, roots, trigonometry and their inverses.

#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "a function passed by name is called through a shim, which is not inlined for certain"
)]

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::budget::{self, Budget, Unit};
use crate::math::{each, map};
use crate::{Call, Float, Flow, OpError, Operator, for_float};

macro_rules! functions {
    ($($variant:ident $name:ident $class:ident $loop:ident => $f:expr;)*) => {
        #[derive(Debug, Clone, Copy)]
        enum Unary {
            $($variant,)*
        }

        $(#[doc = concat!("Parses a node of ", stringify!($variant), ".")]
        pub fn $name(_: &Node) -> Result<Box<dyn Operator>, OpError> {
            Ok(Box::new(Unary::$variant))
        })*

        impl Unary {
            fn apply<T: Library>(self, x: &[T]) -> Vec<T> {
                match self {
                    $(Self::$variant => $loop(x, $f),)*
                }
            }

            fn class(self) -> fn(&Tensor, Unit) -> Result<Budget, OpError> {
                match self {
                    $(Self::$variant => budget::$class,)*
                }
            }
        }
    };
}

functions! {
    Acos acos approximation each => #[inline(always)] |x| x.acos();
    Acosh acosh approximation each => #[inline(always)] |x| x.acosh();
    Asin asin approximation each => #[inline(always)] |x| x.asin();
    Asinh asinh approximation each => #[inline(always)] |x| x.asinh();
    Atan atan approximation each => #[inline(always)] |x| x.atan();
    Atanh atanh approximation each => #[inline(always)] |x| x.atanh();
    Cos cos approximation each => #[inline(always)] |x| x.cos();
    Cosh cosh approximation each => #[inline(always)] |x| x.cosh();
    Erf erf library map => #[inline(always)] |x| x.erf();
    Exp exp library map => #[inline(always)] |x| x.exp();
    Log log approximation map => #[inline(always)] |x| x.ln();
    // 1/x is one division here, but an estimate and a Newton step in vectorised runtimes.
    Reciprocal reciprocal library map => #[inline(always)] |x| T::ONE / x;
    Sigmoid sigmoid sigmoid map => #[inline(always)] |x| x.sigmoid();
    Sin sin approximation each => #[inline(always)] |x| x.sin();
    Sinh sinh approximation each => #[inline(always)] |x| x.sinh();
    Softplus softplus approximation map => #[inline(always)] |x| x.softplus();
    Softsign softsign library map => #[inline(always)] |x| x / (T::ONE + x.abs());
    Sqrt sqrt library map => #[inline(always)] |x| x.sqrt();
    Tan tan approximation each => #[inline(always)] |x| x.tan();
    Tanh tanh tanh map => #[inline(always)] |x| x.tanh();
}

/// Functions taken from the platform's library, for want of a vectorised kernel.
trait Library: Float {
    fn sin(self) -> Self;
    fn cos(self) -> Self;
    fn tan(self) -> Self;
    fn asin(self) -> Self;
    fn acos(self) -> Self;
    fn atan(self) -> Self;
    fn sinh(self) -> Self;
    fn cosh(self) -> Self;
    fn asinh(self) -> Self;
    fn acosh(self) -> Self;
    fn atanh(self) -> Self;
}

macro_rules! library {
    ($t:ty: $($name:ident = $path:path),*) => { impl Library for $t { $(
        #[inline(always)]
        fn $name(self) -> Self {
            $path(self)
        }
    )* } };
}

// The platform's f32 functions come from its C library, Rust's own inverse hyperbolic ones lose digits near 0.
library!(f32: sin = f32::sin, cos = f32::cos, tan = f32::tan, asin = f32::asin, acos = f32::acos, atan = f32::atan,
    sinh = f32::sinh, cosh = f32::cosh, asinh = libm::asinhf, acosh = libm::acoshf, atanh = libm::atanhf);
library!(f64: sin = f64::sin, cos = f64::cos, tan = f64::tan, asin = f64::asin, acos = f64::acos, atan = f64::atan,
    sinh = f64::sinh, cosh = f64::cosh, asinh = libm::asinh, acosh = libm::acosh, atanh = libm::atanh);

impl Operator for Unary {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let y = for_float!(x.dtype(), "X", T => Ok(Tensor::from_vec(x.shape(), self.apply(x.as_slice::<T>()?))?))?;
        Ok(vec![y])
    }

    fn flow(&self) -> Flow {
        Flow::Elementwise
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        self.class()(output, unit)
    }
}
