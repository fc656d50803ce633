//! Functions of each element, with PyTorch's promotion of types: operands become the type of the result first, those of
//! a comparison the wider of both.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::DType;
use isotrace_trace::trace::record;

use super::functions::{cut, floored};
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("abs", |c| unary(c, "Abs")),
    ("add", |c| sum(c, "Add")),
    ("addcdiv", |c| triple(c, "Div")),
    ("addcmul", |c| triple(c, "Mul")),
    ("bitwise_and", |c| bits(c, "And", "BitwiseAnd")),
    ("bitwise_not", not),
    ("bitwise_or", |c| bits(c, "Or", "BitwiseOr")),
    ("bitwise_xor", |c| bits(c, "Xor", "BitwiseXor")),
    ("ceil", |c| unary(c, "Ceil")),
    ("clamp", clamp),
    ("clamp_max", clamp),
    ("clamp_min", clamp),
    ("cos", |c| unary(c, "Cos")),
    ("div", divide),
    ("elu", elu),
    ("eq", |c| compare(c, "Equal", false)),
    ("erf", |c| unary(c, "Erf")),
    ("exp", |c| unary(c, "Exp")),
    ("floor", |c| unary(c, "Floor")),
    ("ge", |c| compare(c, "GreaterOrEqual", false)),
    ("gelu", gelu),
    ("gt", |c| compare(c, "Greater", false)),
    ("hardsigmoid", hard_sigmoid),
    ("hardswish", |c| unary(c, "HardSwish")),
    ("hardtanh", clamp),
    ("isinf", |c| test(c, "IsInf")),
    ("isnan", |c| test(c, "IsNaN")),
    ("le", |c| compare(c, "LessOrEqual", false)),
    ("leaky_relu", leaky),
    ("lerp", lerp),
    ("log", |c| unary(c, "Log")),
    ("logical_and", |c| logic(c, "And")),
    ("logical_not", not),
    ("logical_or", |c| logic(c, "Or")),
    ("logical_xor", |c| logic(c, "Xor")),
    ("lt", |c| compare(c, "Less", false)),
    ("masked_fill", masked_fill),
    ("maximum", |c| binary(c, "Max")),
    ("minimum", |c| binary(c, "Min")),
    ("mish", |c| unary(c, "Mish")),
    ("mul", |c| binary(c, "Mul")),
    ("ne", |c| compare(c, "Equal", true)),
    ("neg", |c| unary(c, "Neg")),
    ("pow", power),
    ("reciprocal", |c| unary(c, "Reciprocal")),
    ("relu", |c| unary(c, "Relu")),
    ("remainder", |c| binary(c, "Mod")),
    ("round", |c| unary(c, "Round")),
    ("rsqrt", rsqrt),
    ("rsub", reversed),
    ("sgn", |c| unary(c, "Sign")),
    ("sigmoid", |c| unary(c, "Sigmoid")),
    ("sign", |c| unary(c, "Sign")),
    ("silu", silu),
    ("sin", |c| unary(c, "Sin")),
    ("softplus", softplus),
    ("sqrt", |c| unary(c, "Sqrt")),
    ("sub", |c| sum(c, "Sub")),
    ("tan", |c| unary(c, "Tan")),
    ("tanh", |c| unary(c, "Tanh")),
    ("where", select),
];

fn unary(c: &mut Call<'_>, op: &str) -> Results {
    let dtype = c.result(0)?.0;
    let x = c.input_as(0, dtype)?;
    one(c.op(op, &[x], &[]))
}

fn test(c: &mut Call<'_>, op: &str) -> Results {
    let x = c.input(0)?;
    one(c.typed(DType::Bool, op, &[Some(x)], &[]))
}

/// The second operand: a tensor, or a number under one of its names.
pub fn operand(c: &mut Call<'_>, at: usize, names: &[&str], dtype: DType) -> Option<ValueId> {
    if c.input(at).is_some() {
        return c.input_as(at, dtype);
    }
    let x = names.iter().find_map(|n| c.number(n))?;
    c.scalar(x, dtype)
}

/// The type in which two operands meet: a number beside a tensor of a half type is not rounded to it, and only what comes
/// out is.
fn meeting(c: &Call<'_>) -> Option<DType> {
    let dtype = c.result(0)?.0;
    let half = matches!(dtype, DType::F16 | DType::BF16);
    Some(if half && c.input(1).is_none() { DType::F32 } else { dtype })
}

fn binary(c: &mut Call<'_>, op: &str) -> Results {
    let dtype = meeting(c)?;
    let x = c.input_as(0, dtype)?;
    let y = operand(c, 1, &["other"], dtype)?;
    if op == "Mul" && dtype == DType::Bool {
        return one(c.op("And", &[x, y], &[]));
    }
    // Python's rule of signs is that of Mod for whole numbers; floats know only that of C there.
    if op == "Mod" && dtype.is_float() {
        let quotient = c.op("Div", &[x, y], &[]);
        let whole = c.op("Floor", &[quotient], &[]);
        let part = c.op("Mul", &[whole, y], &[]);
        let rest = c.op("Sub", &[x, part], &[]);
        return one(c.as_result(rest, 0)?);
    }
    let v = c.op(op, &[x, y], &[]);
    one(c.as_result(v, 0)?)
}

/// Sums and differences carry a factor of their second operand.
fn sum(c: &mut Call<'_>, op: &str) -> Results {
    let dtype = meeting(c)?;
    let x = c.input_as(0, dtype)?;
    let y = operand(c, 1, &["other"], dtype)?;
    let y = scaled(c, y, c.number("alpha").unwrap_or(1.0))?;
    let v = c.op(if dtype == DType::Bool { "Or" } else { op }, &[x, y], &[]);
    one(c.as_result(v, 0)?)
}

/// A value times a number, itself where that is 1.
pub fn scaled(c: &mut Call<'_>, v: ValueId, factor: f64) -> Option<ValueId> {
    if factor == 1.0 {
        return Some(v);
    }
    let k = c.scalar(factor, c.type_of(v)?)?;
    Some(c.op("Mul", &[v, k], &[]))
}

fn reversed(c: &mut Call<'_>) -> Results {
    let dtype = c.result(0)?.0;
    let x = c.input_as(0, dtype)?;
    let x = scaled(c, x, c.number("alpha").unwrap_or(1.0))?;
    let y = operand(c, 1, &["other"], dtype)?;
    one(c.op("Sub", &[y, x], &[]))
}

fn triple(c: &mut Call<'_>, op: &str) -> Results {
    let dtype = c.result(0)?.0;
    let (x, y, z) = (c.input_as(0, dtype)?, c.input_as(1, dtype)?, c.input_as(2, dtype)?);
    let y = scaled(c, y, c.number("value").unwrap_or(1.0))?;
    let product = c.op(op, &[y, z], &[]);
    one(c.op("Add", &[x, product], &[]))
}

fn lerp(c: &mut Call<'_>) -> Results {
    let dtype = c.result(0)?.0;
    let (x, y) = (c.input_as(0, dtype)?, c.input_as(1, dtype)?);
    let weight = operand(c, 2, &["weight"], dtype)?;
    let difference = c.op("Sub", &[y, x], &[]);
    let step = c.op("Mul", &[weight, difference], &[]);
    one(c.op("Add", &[x, step], &[]))
}

fn divide(c: &mut Call<'_>) -> Results {
    let dtype = meeting(c)?;
    let x = c.input_as(0, dtype)?;
    let y = operand(c, 1, &["other"], dtype)?;
    let quotient = c.op("Div", &[x, y], &[]);
    let v = match c.text("rounding_mode") {
        None => quotient,
        Some("floor") => floored(c, x, y)?,
        Some("trunc") => cut(c, quotient)?,
        _ => return None,
    };
    one(c.as_result(v, 0)?)
}

fn power(c: &mut Call<'_>) -> Results {
    let dtype = c.result(0)?.0;
    // `Scalar` is a number to the power of a tensor.
    if c.overload() == "Scalar" {
        let base = c.scalar(c.number("self")?, dtype)?;
        let exponent = c.input_as(0, dtype)?;
        return one(c.op("Pow", &[base, exponent], &[]));
    }
    let x = c.input_as(0, dtype)?;
    if c.input(1).is_none() && c.number("exponent") == Some(2.0) {
        // ATen squares by a product.
        return one(c.op("Mul", &[x, x], &[]));
    }
    let y = operand(c, 1, &["exponent"], dtype)?;
    one(c.op("Pow", &[x, y], &[]))
}

/// One node: rounding between two would be ours, not that of what was recorded.
fn rsqrt(c: &mut Call<'_>) -> Results {
    let dtype = c.result(0)?.0;
    let x = c.input_as(0, dtype)?;
    let exponent = c.scalar(-0.5, dtype)?;
    one(c.op("Pow", &[x, exponent], &[]))
}

fn silu(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    one(c.op("Swish", &[x], &[]))
}

fn gelu(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    let form = c.text("approximate").unwrap_or("none").as_bytes().to_vec();
    one(c.op("Gelu", &[x], &[("approximate", Attribute::Bytes(form))]))
}

fn leaky(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    let slope = c.number("negative_slope").unwrap_or(0.01) as f32;
    one(c.op("LeakyRelu", &[x], &[("alpha", Attribute::Float(slope))]))
}

fn elu(c: &mut Call<'_>) -> Results {
    let x = c.input(0).filter(|_| c.number("input_scale").unwrap_or(1.0) == 1.0)?;
    let alpha = ("alpha", Attribute::Float(c.number("alpha").unwrap_or(1.0) as f32));
    let scale = c.number("scale").unwrap_or(1.0);
    if scale == 1.0 {
        return one(c.op("Elu", &[x], &[alpha]));
    }
    one(c.op("Selu", &[x], &[alpha, ("gamma", Attribute::Float(scale as f32))]))
}

fn hard_sigmoid(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    let settings = [("alpha", Attribute::Float(1.0 / 6.0)), ("beta", Attribute::Float(0.5))];
    one(c.op("HardSigmoid", &[x], &settings))
}

/// log(1 + exp(beta x)) / beta, and x itself above the threshold.
fn softplus(c: &mut Call<'_>) -> Results {
    let (beta, limit) = (c.number("beta").unwrap_or(1.0), c.number("threshold").unwrap_or(20.0));
    let x = c.wide(0)?;
    // Above 20 the two are one number in f32.
    if beta == 1.0 && limit >= 20.0 && c.type_of(x) != Some(DType::F64) {
        let y = c.op("Softplus", &[x], &[]);
        return one(c.as_result(y, 0)?);
    }
    let inner = c.times(x, beta)?;
    let soft = c.op("Softplus", &[inner], &[]);
    let soft = c.times(soft, 1.0 / beta)?;
    let y = c.choose("Greater", inner, limit, x, soft)?;
    one(c.as_result(y, 0)?)
}

/// Bounds are numbers, or tensors of any shape, which Clip does not take.
fn clamp(c: &mut Call<'_>) -> Results {
    let dtype = c.result(0)?.0;
    let x = c.input_as(0, dtype)?;
    let one_sided = |side| c.operator() == side;
    let places = if one_sided("clamp_max") { [usize::MAX, 1] } else { [1, 2] };
    let tensors = c.input(1).is_some() || c.input(2).is_some();
    let mut bounds = [None, None];
    for (bound, (at, names)) in
        bounds.iter_mut().zip([(places[0], ["min", "min_val"]), (places[1], ["max", "max_val"])])
    {
        let stated = c.input(at).is_some() || names.iter().any(|n| c.number(n).is_some());
        if stated {
            *bound = Some(operand(c, at, &names, dtype)?);
        }
    }
    let [low, high] = bounds;
    if tensors {
        let x = low.map_or(x, |low| c.op("Max", &[x, low], &[]));
        return one(high.map_or(x, |high| c.op("Min", &[x, high], &[])));
    }
    one(c.typed(dtype, "Clip", &[Some(x), low, high], &[]))
}

fn wider(x: DType, y: DType) -> DType {
    let rank = |d: DType| (d.is_float(), d != DType::Bool, d.size());
    if rank(x) >= rank(y) { x } else { y }
}

fn compare(c: &mut Call<'_>, op: &str, negated: bool) -> Results {
    let mine = c.dtype(0)?;
    let fraction = matches!(c.setting("other"), Some(record::Attribute::Float(_)));
    let dtype = match c.dtype(1) {
        Some(other) => wider(mine, other),
        None if fraction && !mine.is_float() => DType::F32,
        None if mine == DType::Bool => DType::I64,
        None => mine,
    };
    let x = c.input_as(0, dtype)?;
    let y = operand(c, 1, &["other"], dtype)?;
    let result = c.typed(DType::Bool, op, &[Some(x), Some(y)], &[]);
    one(if negated { c.typed(DType::Bool, "Not", &[Some(result)], &[]) } else { result })
}

fn logic(c: &mut Call<'_>, op: &str) -> Results {
    let (x, y) = (c.input_as(0, DType::Bool)?, c.input_as(1, DType::Bool)?);
    one(c.op(op, &[x, y], &[]))
}

fn not(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    match c.dtype(0)? {
        DType::Bool => one(c.op("Not", &[x], &[])),
        _ if c.operator() == "logical_not" => {
            let truth = c.cast(x, DType::Bool)?;
            one(c.op("Not", &[truth], &[]))
        }
        _ => one(c.op("BitwiseNot", &[x], &[])),
    }
}

fn bits(c: &mut Call<'_>, logical: &str, bitwise: &str) -> Results {
    let dtype = c.result(0)?.0;
    let x = c.input_as(0, dtype)?;
    let y = operand(c, 1, &["other"], dtype)?;
    one(c.op(if dtype == DType::Bool { logical } else { bitwise }, &[x, y], &[]))
}

fn select(c: &mut Call<'_>) -> Results {
    let dtype = c.result(0)?.0;
    let condition = c.input_as(0, DType::Bool)?;
    let x = operand(c, 1, &["self"], dtype)?;
    let y = operand(c, 2, &["other"], dtype)?;
    one(c.typed(dtype, "Where", &[Some(condition), Some(x), Some(y)], &[]))
}

fn masked_fill(c: &mut Call<'_>) -> Results {
    let dtype = c.result(0)?.0;
    let x = c.input_as(0, dtype)?;
    let mask = c.input_as(1, DType::Bool)?;
    let fill = operand(c, 2, &["value"], dtype)?;
    one(c.typed(dtype, "Where", &[Some(mask), Some(fill), Some(x)], &[]))
}
