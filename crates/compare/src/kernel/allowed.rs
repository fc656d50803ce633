//! A tolerance as the loops over one float type hold numbers against it.
//!
//! Judging costs next to nothing where it is not needed. As long as the largest difference so far is within what is
//! allowed whatever the numbers are, nothing is judged; after that, nothing in a tile whose steps say the same of its
//! relative differences. The other tiles are judged in the loop that makes their sums:
//! f32 and f64 in the steps of the rule, which are operations of these types, and half types in f32 with every result
//! rounded. NaN, infinities, and numbers so large that what is allowed may overflow are left to `Real::beyond`, and so is
//! all of Polygraphy's rule, which divides.

use crate::judge::FirstLook;
use crate::native::Limits;

use super::real::Real;

/// What is known of a tolerance before any number is seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Up to this absolute difference everything is within.
    pub abs: f64,
    /// Up to this difference relative to a everything is within.
    pub rel: f64,
    /// Numbers below this do not overflow on the way.
    pub moderate: f64,
    /// Of a rule that allows atol + rtol·|b|.
    pub limits: Option<Limits<f64>>,
}

impl Bounds {
    /// Everything is within.
    pub const NONE: Self =
        Self { abs: f64::INFINITY, rel: f64::INFINITY, moderate: f64::INFINITY, limits: None };
}

/// How the numbers of a tensor are judged.
pub(crate) struct Judging<'l, W> {
    pub look: &'l FirstLook,
    pub bounds: Bounds,
    /// The bits of [`Bounds::moderate`].
    pub moderate: W,
    /// Whether the largest differences have passed the bounds.
    pub strict: bool,
}

impl<'l, W> Judging<'l, W> {
    pub fn new<T: Real<L, Word = W>, const L: usize>(look: &'l FirstLook) -> Self {
        let bounds = look.bounds();
        Self { look, bounds, moderate: T::word_to(bounds.moderate), strict: false }
    }
}
