//! Whether two numbers are close enough: the rules of other tools, to the last bit of their arithmetic.
//!
//! A tolerance is a property of the formula and of the precision in which it is computed: an element at the border
//! passes in f32 and fails in f64. So each rule is computed here in the steps and the types of the tool it belongs to,
//! every step rounded as there. Of two steps in f32, one computed in f64 and rounded gives the same bits (a sum,
//! product or quotient has room in 2p + 2 bits; Figueroa 1995), which lets one text serve all precisions.
//!
//! Where both tensors hold one float type, elements are judged in the loop that compares them (`kernel::allowed`), and
//! those about which that loop is not sure by vectors in the arithmetic of the type (`native`).
//! Elements of other pairs of types get a first look in f64, which sorts out what is certainly within and certainly
//! beyond; what is near the border goes through the rule itself.

use isotrace_tensor::{DType, Tensor, nearest_bf16, nearest_f16};
use rayon::prelude::*;

use crate::kernel::Bounds;
use crate::native::{Limits, MODERATE};
use crate::number;
use crate::sums::Sums;

/// Whose formula decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// `torch.testing.assert_close(x, y)`: |x - y| <= atol + rtol·|y|, NaN never close.
    Torch,
    /// `numpy.allclose(x, y)`: |x - y| <= atol + rtol·|y|, NaN never close.
    Numpy,
    /// Polygraphy's `CompareFunc.simple` by elements: |x - y| <= atol, or |x - y| / |y| <= rtol. NaN and infinity are
    /// never close, not even to themselves.
    Polygraphy,
}

/// A rule and its tolerances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// The formula.
    pub rule: Rule,
    /// The relative part.
    pub rtol: f64,
    /// The absolute part.
    pub atol: f64,
}

impl Tolerance {
    /// What the rule's tool takes for tensors of these types where nothing is said.
    ///
    /// Torch's depend on the type (`torch.testing.assert_close`, the table in its documentation; the larger of both
    /// where the types differ, equality for what is no float); the others are fixed.
    pub fn default_of(rule: Rule, x: DType, y: DType) -> Self {
        let (rtol, atol) = match rule {
            Rule::Numpy => (1e-5, 1e-8),
            Rule::Polygraphy => (1e-5, 1e-5),
            Rule::Torch => {
                let (x, y) = (of_torch(x), of_torch(y));
                (x.0.max(y.0), x.1.max(y.1))
            }
        };
        Self { rule, rtol, atol }
    }
}

fn of_torch(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F16 => (1e-3, 1e-5),
        DType::BF16 => (1.6e-2, 1e-5),
        DType::F32 | DType::C64 => (1.3e-6, 1e-5),
        DType::F64 | DType::C128 => (1e-7, 1e-7),
        _ => (0.0, 0.0),
    }
}

/// A precision of floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    BF16,
    F16,
    F32,
    F64,
}

impl Precision {
    /// The nearest number of this precision.
    #[inline(always)]
    fn round(self, x: f64) -> f64 {
        match self {
            Self::F64 => x,
            Self::F32 => f64::from(x as f32),
            Self::F16 => nearest_f16(x).to_f64(),
            Self::BF16 => nearest_bf16(x).to_f64(),
        }
    }

    fn of(dtype: DType) -> Self {
        match dtype {
            DType::F64 | DType::C128 => Self::F64,
            DType::F16 => Self::F16,
            DType::BF16 => Self::BF16,
            DType::F32 | DType::C64 => Self::F32,
            // NumPy has none of the narrower floats; torch compares them as bits, which f32 does as well.
            d if d.is_float() => Self::F32,
            _ => Self::F64,
        }
    }

    fn dtype(self) -> DType {
        match self {
            Self::F64 => DType::F64,
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
        }
    }
}

/// In which precisions a rule computes for two types.
#[derive(Debug, Clone, Copy)]
struct Steps {
    rule: Rule,
    /// Of the difference.
    difference: Precision,
    /// Of what y allows.
    allowed: Precision,
    rtol: f64,
    atol: f64,
    /// Both are integers or truth values.
    integers: bool,
}

/// The type in which NumPy puts a value of this type together with a float of `precision`.
fn with_float(dtype: DType, precision: Precision) -> Precision {
    match dtype {
        DType::Bool => precision,
        DType::I8 | DType::U8 | DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
            precision.max(Precision::F16)
        }
        DType::I16 | DType::U16 => precision.max(Precision::F32),
        d if d.is_int() => Precision::F64,
        d => match (Precision::of(d), precision) {
            // Neither holds the other.
            (Precision::F16, Precision::BF16) | (Precision::BF16, Precision::F16) => Precision::F32,
            (a, b) => a.max(b),
        },
    }
}

impl Steps {
    fn new(tolerance: &Tolerance, x: DType, y: DType) -> Self {
        let Tolerance { rule, rtol, atol } = *tolerance;
        let integers = !Self::inexact(x) && !Self::inexact(y);
        let allowed = match rule {
            // Torch computes with integers in f32, its default.
            Rule::Torch if integers => Precision::F32,
            // Polygraphy widens f16.
            Rule::Polygraphy if y == DType::F16 => Precision::F32,
            _ => Precision::of(y),
        };
        let difference = match rule {
            Rule::Torch if integers => Precision::F32,
            Rule::Polygraphy if x == DType::F16 => with_float(DType::F32, allowed),
            _ => with_float(x, allowed),
        };
        let allowed = if rule == Rule::Torch { difference } else { allowed };
        // NumPy takes a Python number in the type of the array it meets; torch does so in sums, and takes f32 at least
        // in products; Polygraphy compares with it in f64.
        let (rtol, atol) = match rule {
            Rule::Numpy => (allowed.round(rtol), allowed.round(atol)),
            Rule::Torch => (allowed.max(Precision::F32).round(rtol), allowed.round(atol)),
            Rule::Polygraphy => (rtol, atol),
        };
        Self { rule, difference, allowed, rtol, atol, integers }
    }

    fn inexact(dtype: DType) -> bool {
        dtype.is_float() || number::is_complex(dtype)
    }

    /// Two numbers; `equal` where they are the same in their own types.
    fn close(&self, x: f64, y: f64, equal: bool) -> bool {
        self.apart(x, y, x - y, equal)
    }

    /// The same with the difference, which may be known better than the numbers.
    fn apart(&self, x: f64, y: f64, d: f64, equal: bool) -> bool {
        let Self { difference, allowed, rtol, atol, .. } = *self;
        match self.rule {
            Rule::Torch => {
                if equal || (rtol == 0.0 && atol == 0.0) {
                    return equal;
                }
                let (x, y) = (difference.round(x), difference.round(y));
                let d = difference.round(x - y).abs();
                // A half type's operations are computed in f32 and rounded then.
                let wide = difference.max(Precision::F32);
                let relative = difference.round(wide.round(rtol * y)).abs();
                let limit = difference.round(wide.round(atol + relative));
                d.is_finite() && d <= limit
            }
            Rule::Numpy => {
                let (px, py) = (difference.round(x), allowed.round(y));
                let d = difference.round(px - difference.round(py)).abs();
                let relative = allowed.round(allowed.max(Precision::F32).round(rtol * py.abs()));
                let limit = allowed.round(atol + relative);
                (d <= limit && py.is_finite()) || px == difference.round(py)
            }
            Rule::Polygraphy => {
                let d = difference.round(d).abs();
                let y = if y == 0.0 && !self.integers { f64::EPSILON } else { y };
                let rel = difference.max(allowed).round(d / y.abs());
                // NaN is never within.
                d <= atol || rel <= rtol
            }
        }
    }
}

/// An integer difference as NumPy has it in the type to which Polygraphy widens `dtype`.
fn wrapped(dtype: DType, d: i128) -> f64 {
    match dtype {
        DType::I64 | DType::U32 => (d as i64).wrapping_abs() as f64,
        DType::U64 => d as u64 as f64,
        _ => f64::from((d as i32).wrapping_abs()),
    }
}

/// What a judgement counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Judgement {
    /// Elements looked at.
    pub len: u64,
    /// Elements beyond the tolerance.
    pub beyond: u64,
}

/// How a first look in f64 decides, without the steps of the rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstLook {
    rtol: f64,
    atol: f64,
    /// Of Polygraphy's form: the larger of both parts, else their sum.
    larger: bool,
    /// The margin in which the rule itself decides: relative, absolute, and where its numbers may overflow.
    margin: f64,
    tiny: f64,
    huge: f64,
    steps: Steps,
}

impl FirstLook {
    fn new(tolerance: &Tolerance, x: DType, y: DType) -> Self {
        let steps = Steps::new(tolerance, x, y);
        let narrowest = steps.difference.min(steps.allowed);
        let narrow = if narrowest == Precision::BF16 || steps.difference == Precision::BF16 {
            DType::BF16
        } else {
            narrowest.dtype()
        };
        let unit = narrow.unit_roundoff().unwrap_or(f64::EPSILON);
        Self {
            rtol: steps.rtol,
            atol: steps.atol,
            larger: tolerance.rule == Rule::Polygraphy,
            margin: 16.0 * unit,
            // A rounding among denormal numbers may be off by one of them in each step.
            tiny: 8.0
                * narrow
                    .smallest_subnormal()
                    .unwrap_or(0.0)
                    .max(narrowest.dtype().smallest_subnormal().unwrap_or(0.0)),
            huge: 0.25
                * narrow
                    .largest_finite()
                    .unwrap_or(f64::MAX)
                    .min(narrowest.dtype().largest_finite().unwrap_or(f64::MAX)),
            steps,
        }
    }

    /// What the loops over one float type go by.
    pub fn bounds(&self) -> Bounds {
        let usual = (0.0..self.huge).contains(&self.rtol) && (0.0..self.huge).contains(&self.atol);
        // What allows for numbers that round to nothing: all of the absolute part where that is added, of the larger
        // part what the margin leaves.
        let floor = if self.larger { self.atol * self.margin } else { self.atol * (1.0 - self.margin) };
        // Differences are known relative to x; with a ratio of r, |y| is at least 1 - r of it.
        let rtol = self.rtol * (1.0 - 2.0 * self.margin);
        let rel = (rtol / (1.0 + rtol) * (1.0 - 1e-12)).min(0.5);
        Bounds {
            abs: self.atol * (1.0 - self.margin) - self.tiny,
            rel: if floor >= self.tiny { rel } else { -1.0 },
            moderate: if usual { self.huge.min((self.huge - self.atol) / self.rtol) } else { 0.0 },
            limits: (!self.larger).then_some(Limits { rtol: self.rtol, atol: self.atol }),
        }
    }

    /// The rule for two tensors of one type that computes in f64.
    pub fn limits_f64(&self) -> Limits<f64> {
        Limits::<f64>::new(self.steps.rule, self.rtol, self.atol)
    }

    /// The rule for two tensors of one type that computes in f32.
    pub fn limits_f32(&self) -> Limits<f32> {
        Limits::<f32>::new(self.steps.rule, self.rtol, self.atol)
    }

    /// A size of y below which nothing that the rule allows overflows, so that quick rounding does.
    pub fn moderate(&self) -> f32 {
        let most = self.huge.min(MODERATE);
        let usual = (0.0..most).contains(&self.rtol) && (0.0..most).contains(&self.atol);
        if usual { ((most - self.atol) / self.rtol) as f32 } else { 0.0 }
    }

    /// Whose formula it is.
    pub fn rule(&self) -> Rule {
        self.steps.rule
    }

    /// Whether results are rounded to a half type.
    pub fn rounds(&self) -> bool {
        self.steps.difference < Precision::F32
    }

    /// Whether a pair is certainly within, and certainly beyond; neither for NaN and two equal infinities.
    fn sure(&self, x: f64, y: f64) -> (bool, bool) {
        self.sure_by((x - y).abs(), y.abs())
    }

    /// The same of two complex numbers, of which absolute values are taken by squares: where these may have left the
    /// range, nothing is sure.
    fn sure_complex(&self, [xr, xi]: [f64; 2], [yr, yi]: [f64; 2]) -> (bool, bool) {
        let (re, im) = (xr - yr, xi - yi);
        let squares = [re * re + im * im, yr * yr + yi * yi];
        let exact = [re == 0.0 && im == 0.0, yr == 0.0 && yi == 0.0];
        let known = |k: usize| exact[k] || (1e-280..1e280).contains(&squares[k]);
        if known(0) && known(1) { self.sure_by(squares[0].sqrt(), squares[1].sqrt()) } else { (false, false) }
    }

    /// Of a difference, and the size of y.
    fn sure_by(&self, d: f64, y: f64) -> (bool, bool) {
        // What Polygraphy divides by where y is 0.
        let size = if self.larger && y == 0.0 && !self.steps.integers { f64::EPSILON } else { y };
        let relative = self.rtol * size;
        let limit = if self.larger {
            if relative > self.atol { relative } else { self.atol }
        } else {
            relative + self.atol
        };
        let slack = limit * self.margin + self.tiny;
        let inside = d == 0.0 || d <= limit - slack && d < self.huge && limit < self.huge;
        (inside, d > limit + slack)
    }
}

/// Elements that a thread judges at a time where they are judged one by one.
const PIECE: usize = 1 << 14;

/// A judge for tensors of two types.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judge {
    pub look: FirstLook,
    tolerance: Tolerance,
}

impl Judge {
    pub fn new(tolerance: Tolerance, x: DType, y: DType) -> Self {
        Self { look: FirstLook::new(&tolerance, x, y), tolerance }
    }

    /// Whether two real numbers are beyond the tolerance.
    pub fn beyond(&self, x: f64, y: f64) -> bool {
        let (inside, outside) = self.look.sure(x, y);
        outside || !inside && !self.look.steps.close(x, y, x == y)
    }

    /// Whole tensors of any types, of which `sums` are known: mostly they say enough where both hold integers.
    pub fn counted(&self, sums: &Sums, x: &Tensor, y: &Tensor) -> u64 {
        let Steps { integers, rtol, atol, .. } = self.look.steps;
        let whole = integers && x.dtype() != DType::String;
        if whole && sums.different == 0 && rtol >= 0.0 && atol >= 0.0 {
            return 0;
        }
        if whole && self.tolerance.rule == Rule::Torch && rtol == 0.0 && atol == 0.0 {
            return sums.different;
        }
        self.elements(x, y)
    }

    /// Whole tensors of any types, element by element.
    pub fn elements(&self, x: &Tensor, y: &Tensor) -> u64 {
        if let (Ok(x), Ok(y)) = (x.as_strings(), y.as_strings()) {
            return x.iter().zip(y).filter(|(x, y)| x != y).count() as u64;
        }
        let beyond = self.one_by_one(x, y);
        let piece =
            |k: usize| (k * PIECE..((k + 1) * PIECE).min(x.len())).filter(|&i| beyond(i)).count() as u64;
        (0..x.len().div_ceil(PIECE)).into_par_iter().map(piece).sum()
    }

    /// Whether element `i` of two tensors, neither of texts, is beyond the tolerance.
    pub fn one_by_one<'t>(&'t self, x: &'t Tensor, y: &'t Tensor) -> Box<dyn Fn(usize) -> bool + Sync + 't> {
        let steps = &self.look.steps;
        if let (Some(a), Some(b)) = (number::integers(x), number::integers(y)) {
            let wraps =
                (x.dtype() == y.dtype() && self.tolerance.rule == Rule::Polygraphy).then(|| x.dtype());
            return Box::new(move |i| {
                let (a, b) = (a(i), b(i));
                let d = wraps.map_or((a - b) as f64, |dtype| wrapped(dtype, a - b));
                !steps.apart(a as f64, b as f64, d, a == b)
            });
        }
        let (a, b) = (number::reals(x), number::reals(y));
        if number::is_complex(x.dtype()) || number::is_complex(y.dtype()) {
            return Box::new(move |i| {
                let (a, b) = (a(i), b(i));
                let (inside, outside) = self.look.sure_complex(a, b);
                outside || !inside && !self.complex(a, b)
            });
        }
        Box::new(move |i| {
            let ([a, _], [b, _]) = (a(i), b(i));
            !steps.close(a, b, a == b)
        })
    }

    /// Two complex numbers: the same formulas on absolute values.
    pub fn complex(&self, [xr, xi]: [f64; 2], [yr, yi]: [f64; 2]) -> bool {
        let Steps { difference: p, rtol, atol, .. } = self.look.steps;
        let equal = xr == yr && xi == yi;
        let d = p.round(p.round(xr - yr).hypot(p.round(xi - yi)));
        let size = p.round(yr.hypot(yi));
        match self.tolerance.rule {
            Rule::Torch if equal || (rtol == 0.0 && atol == 0.0) => equal,
            Rule::Torch => {
                let relative = p.round(p.round(rtol * yr).hypot(p.round(rtol * yi)));
                d.is_finite() && d <= p.round(atol + relative)
            }
            Rule::Numpy => {
                equal || d <= p.round(atol + p.round(rtol * size)) && yr.is_finite() && yi.is_finite()
            }
            Rule::Polygraphy => {
                let size = if size == 0.0 { f64::EPSILON } else { size };
                d <= atol || p.round(d / size) <= rtol
            }
        }
    }
}
