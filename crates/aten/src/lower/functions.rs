//! Elementary functions that ONNX has no operator for, or has under another name.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::DType;

use super::elementwise::operand;
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("acos", |c| named(c, "Acos")),
    ("acosh", |c| named(c, "Acosh")),
    ("asin", |c| named(c, "Asin")),
    ("asinh", |c| named(c, "Asinh")),
    ("atan", |c| named(c, "Atan")),
    ("atan2", arc_tangent),
    ("atanh", |c| named(c, "Atanh")),
    ("celu", |c| {
        let x = c.input(0)?;
        let alpha = c.number("alpha").unwrap_or(1.0) as f32;
        one(c.op("Celu", &[x], &[("alpha", Attribute::Float(alpha))]))
    }),
    ("cosh", |c| named(c, "Cosh")),
    ("deg2rad", |c| times(c, std::f64::consts::PI / 180.0)),
    ("erfc", |c| {
        let x = float(c)?;
        let erf = c.op("Erf", &[x], &[]);
        let y = c.from(1.0, erf)?;
        one(c.as_result(y, 0)?)
    }),
    ("exp2", |c| {
        let x = float(c)?;
        let two = c.number_like(2.0, x)?;
        let y = c.op("Pow", &[two, x], &[]);
        one(c.as_result(y, 0)?)
    }),
    ("expm1", |c| {
        let x = float(c)?;
        let e = c.op("Exp", &[x], &[]);
        let y = c.plus(e, -1.0)?;
        one(c.as_result(y, 0)?)
    }),
    ("floor_divide", floor_divide),
    ("fmod", fmod),
    ("frac", |c| {
        let x = float(c)?;
        let whole = truncated(c, x)?;
        let y = c.sub(x, whole);
        one(c.as_result(y, 0)?)
    }),
    ("hardshrink", |c| shrink(c, 0.0)),
    ("hypot", |c| {
        let (x, y) = pair(c)?;
        let (x, y) = (c.mul(x, x), c.mul(y, y));
        let sum = c.add(x, y);
        let root = c.op("Sqrt", &[sum], &[]);
        one(c.as_result(root, 0)?)
    }),
    ("isneginf", |c| infinite(c, 1, 0)),
    ("isposinf", |c| infinite(c, 0, 1)),
    ("log10", |c| logarithm(c, std::f64::consts::LN_10)),
    ("log1p", |c| {
        let x = float(c)?;
        let x = c.plus(x, 1.0)?;
        let y = c.op("Log", &[x], &[]);
        one(c.as_result(y, 0)?)
    }),
    ("log2", |c| logarithm(c, std::f64::consts::LN_2)),
    ("logaddexp", sum_of_exponentials),
    ("linalg_cross", cross),
    ("logit", logit),
    ("nan_to_num", without_nan),
    ("rad2deg", |c| times(c, 180.0 / std::f64::consts::PI)),
    ("signbit", |c| {
        let x = c.input(0)?;
        let zero = c.number_like(0.0, x)?;
        one(c.typed(DType::Bool, "Less", &[Some(x), Some(zero)], &[]))
    }),
    ("sinh", |c| named(c, "Sinh")),
    ("softshrink", |c| shrink(c, c.number("lambd").unwrap_or(0.5))),
    ("square", |c| {
        let x = c.input_as(0, c.result(0)?.0)?;
        one(c.mul(x, x))
    }),
    ("threshold", |c| {
        let x = c.input(0)?;
        let other = c.number_like(c.number("value")?, x)?;
        one(c.choose("Greater", x, c.number("threshold")?, x, other)?)
    }),
    ("trunc", |c| {
        let x = c.input(0)?;
        if !c.dtype(0)?.is_float() {
            return one(x);
        }
        one(truncated(c, x)?)
    }),
];

/// The first input as floats in which kernels compute: whole numbers become the result's type.
fn float(c: &mut Call<'_>) -> Option<ValueId> {
    if c.dtype(0)?.is_float() { c.wide(0) } else { c.input_as(0, c.result(0)?.0) }
}

/// Both operands in the type of the result.
fn pair(c: &mut Call<'_>) -> Option<(ValueId, ValueId)> {
    let dtype = c.result(0)?.0;
    Some((c.input_as(0, dtype)?, operand(c, 1, &["other"], dtype)?))
}

fn named(c: &mut Call<'_>, op: &str) -> Results {
    let x = c.input_as(0, c.result(0)?.0)?;
    one(c.op(op, &[x], &[]))
}

fn times(c: &mut Call<'_>, factor: f64) -> Results {
    let x = float(c)?;
    let y = c.times(x, factor)?;
    one(c.as_result(y, 0)?)
}

/// Natural logarithms over that of the base.
fn logarithm(c: &mut Call<'_>, base: f64) -> Results {
    let x = float(c)?;
    let log = c.op("Log", &[x], &[]);
    let base = c.number_like(base, log)?;
    let y = c.div(log, base);
    one(c.as_result(y, 0)?)
}

/// The angle of (x, y), from -pi to pi; 0 at the origin.
fn arc_tangent(c: &mut Call<'_>) -> Results {
    let (y, x) = pair(c)?;
    let ratio = c.div(y, x);
    let angle = c.op("Atan", &[ratio], &[]);
    // Behind the y axis half a turn is missing, in the direction of y.
    let (up, down) = (c.plus(angle, std::f64::consts::PI)?, c.plus(angle, -std::f64::consts::PI)?);
    let turned = c.choose("Less", y, 0.0, down, up)?;
    let angle = c.choose("Less", x, 0.0, turned, angle)?;
    let (height, width) = (c.op("Abs", &[y], &[]), c.op("Abs", &[x], &[]));
    let both = c.add(height, width);
    let zero = c.number_like(0.0, both)?;
    one(c.choose("Equal", both, 0.0, zero, angle)?)
}

/// Towards zero.
fn truncated(c: &mut Call<'_>, x: ValueId) -> Option<ValueId> {
    let (down, up) = (c.op("Floor", &[x], &[]), c.op("Ceil", &[x], &[]));
    c.choose("Less", x, 0.0, up, down)
}

/// Towards minus infinity, for whole numbers too.
pub fn floored(c: &mut Call<'_>, x: ValueId, y: ValueId) -> Option<ValueId> {
    if c.type_of(x)?.is_float() {
        let quotient = c.div(x, y);
        return Some(c.op("Floor", &[quotient], &[]));
    }
    // What is left has the sign of the divisor; without it the quotient is whole.
    let rest = c.op("Mod", &[x, y], &[]);
    let whole = c.sub(x, rest);
    Some(c.div(whole, y))
}

fn floor_divide(c: &mut Call<'_>) -> Results {
    let (x, y) = pair(c)?;
    one(floored(c, x, y)?)
}

/// The quotient cut towards zero: ONNX divides whole numbers so.
pub fn cut(c: &mut Call<'_>, quotient: ValueId) -> Option<ValueId> {
    if c.type_of(quotient)?.is_float() { truncated(c, quotient) } else { Some(quotient) }
}

/// What is left of a division, with the sign of the dividend.
fn fmod(c: &mut Call<'_>) -> Results {
    let (x, y) = pair(c)?;
    one(c.op("Mod", &[x, y], &[("fmod", Attribute::Int(1))]))
}

/// Zero within `lambd` of zero; elsewhere nearer to it by `bias`.
fn shrink(c: &mut Call<'_>, bias: f64) -> Results {
    let x = c.input(0)?;
    let limit = c.number("lambd").unwrap_or(0.5) as f32;
    one(c.op("Shrink", &[x], &[("lambd", Attribute::Float(limit)), ("bias", Attribute::Float(bias as f32))]))
}

fn infinite(c: &mut Call<'_>, negative: i64, positive: i64) -> Results {
    let x = c.input(0)?;
    let signs =
        [("detect_negative", Attribute::Int(negative)), ("detect_positive", Attribute::Int(positive))];
    one(c.typed(DType::Bool, "IsInf", &[Some(x)], &signs))
}

/// log(exp x + exp y) = max + log(1 + exp(-|x - y|)).
fn sum_of_exponentials(c: &mut Call<'_>) -> Results {
    let (x, y) = pair(c)?;
    let most = c.op("Max", &[x, y], &[]);
    let apart = c.sub(x, y);
    let apart = c.op("Abs", &[apart], &[]);
    let apart = c.op("Neg", &[apart], &[]);
    let small = c.op("Exp", &[apart], &[]);
    let small = c.plus(small, 1.0)?;
    let small = c.op("Log", &[small], &[]);
    one(c.add(most, small))
}

/// The products of three components with their neighbours: x1 y2 - x2 y1, and so on around.
fn cross(c: &mut Call<'_>) -> Results {
    let (_, shape) = c.result(0)?;
    let axis = c.axis("dim", shape.len() as i64).unwrap_or(shape.len() as i64 - 1);
    let (x, y) = pair(c)?;
    let turn = |c: &mut Call<'_>, v: ValueId, order: [i64; 3]| {
        let order = c.integers(order.to_vec());
        c.op("Gather", &[v, order], &[("axis", Attribute::Int(axis))])
    };
    let (next, last) = ([1, 2, 0], [2, 0, 1]);
    let (x1, y2) = (turn(c, x, next), turn(c, y, last));
    let (x2, y1) = (turn(c, x, last), turn(c, y, next));
    let (left, right) = (c.mul(x1, y2), c.mul(x2, y1));
    one(c.sub(left, right))
}

/// log(x / (1 - x)), x kept `eps` away from both ends where that is given.
fn logit(c: &mut Call<'_>) -> Results {
    let mut x = float(c)?;
    if let Some(eps) = c.number("eps") {
        let (low, high) = (c.number_like(eps, x)?, c.number_like(1.0 - eps, x)?);
        x = c.op("Clip", &[x, low, high], &[]);
    }
    let rest = c.from(1.0, x)?;
    let odds = c.div(x, rest);
    let y = c.op("Log", &[odds], &[]);
    one(c.as_result(y, 0)?)
}

/// Numbers in place of NaN and the infinities; of an infinity, where none is given, the type's largest.
fn without_nan(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    let largest = match c.dtype(0)? {
        DType::F64 => f64::MAX,
        DType::F32 => f64::from(f32::MAX),
        DType::F16 => 65504.0,
        // The largest bf16: 2^127 (2 - 2^-7).
        DType::BF16 => 3.389_531_389_251_535_5e38,
        _ => return one(x),
    };
    let mut y = x;
    for (name, otherwise, sign) in [("posinf", largest, [0, 1]), ("neginf", -largest, [1, 0])] {
        let signs =
            [("detect_negative", Attribute::Int(sign[0])), ("detect_positive", Attribute::Int(sign[1]))];
        let there = c.typed(DType::Bool, "IsInf", &[Some(x)], &signs);
        let number = c.number_like(c.number(name).unwrap_or(otherwise), x)?;
        y = c.pick(there, number, y);
    }
    let nan = c.typed(DType::Bool, "IsNaN", &[Some(x)], &[]);
    let number = c.number_like(c.number("nan").unwrap_or(0.0), x)?;
    one(c.pick(nan, number, y))
}
