//! Backward formulas of activations and of softmax, from the gradient of the output and what the forward pass kept.
//!
//! Names in the formulas: g is the gradient of the output, x the input, y the output. Kernels compute in float32 at
//! least, and so do these.

use isotrace_graph::{Attribute, ValueId};

use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_log_softmax_backward_data", log_softmax),
    ("_prelu_kernel", |c| {
        let (x, slope) = (c.input(0)?, c.input(1)?);
        one(c.op("PRelu", &[x, slope], &[]))
    }),
    ("_prelu_kernel_backward", prelu),
    ("_softmax_backward_data", softmax),
    ("elu_backward", elu),
    ("gelu_backward", gelu),
    ("glu", |c| {
        let [x, gate] = halves(c, 0)?;
        let s = c.op("Sigmoid", &[gate], &[]);
        finish(c, |c| Some(c.mul(x, s)))
    }),
    ("glu_backward", glu),
    ("hardsigmoid_backward", hard_sigmoid),
    ("hardswish_backward", hard_swish),
    ("hardtanh_backward", hard_tanh),
    ("leaky_relu_backward", leaky),
    ("log_sigmoid_backward", log_sigmoid),
    ("log_sigmoid_forward", |c| {
        // -softplus(-x), where nothing overflows.
        let x = c.wide(0)?;
        let x = c.op("Neg", &[x], &[]);
        let y = c.op("Softplus", &[x], &[]);
        finish(c, |c| Some(c.op("Neg", &[y], &[])))
    }),
    ("mish_backward", mish),
    ("sigmoid_backward", sigmoid),
    ("silu_backward", silu),
    ("softplus_backward", softplus),
    ("tanh_backward", tanh),
    ("threshold_backward", threshold),
];

/// What a formula gives, in the type of the call's output.
pub fn finish(c: &mut Call<'_>, formula: impl FnOnce(&mut Call<'_>) -> Option<ValueId>) -> Results {
    let v = formula(c)?;
    one(c.as_result(v, 0)?)
}

/// g times the slope that a formula makes of the other input.
fn sloped(c: &mut Call<'_>, slope: impl FnOnce(&mut Call<'_>, ValueId) -> Option<ValueId>) -> Results {
    let (g, x) = (c.wide(0)?, c.wide(1)?);
    let slope = slope(c, x)?;
    finish(c, |c| Some(c.mul(g, slope)))
}

/// y (g - sum(g y)).
fn softmax(c: &mut Call<'_>) -> Results {
    let (g, y, axis) = (c.wide(0)?, c.wide(1)?, c.int("dim")?);
    let product = c.mul(g, y);
    let sum = c.over("ReduceSum", product, &[axis], true);
    let part = c.mul(y, sum);
    finish(c, |c| Some(c.sub(product, part)))
}

/// g - exp(y) sum(g).
fn log_softmax(c: &mut Call<'_>) -> Results {
    let (g, y, axis) = (c.wide(0)?, c.wide(1)?, c.int("dim")?);
    let sum = c.over("ReduceSum", g, &[axis], true);
    let p = c.op("Exp", &[y], &[]);
    let part = c.mul(p, sum);
    finish(c, |c| Some(c.sub(g, part)))
}

/// g (1 - y) y.
fn sigmoid(c: &mut Call<'_>) -> Results {
    sloped(c, |c, y| {
        let rest = c.from(1.0, y)?;
        Some(c.mul(rest, y))
    })
}

/// g s (1 + x (1 - s)) with s the sigmoid of x.
fn silu(c: &mut Call<'_>) -> Results {
    sloped(c, |c, x| {
        let s = c.op("Sigmoid", &[x], &[]);
        let rest = c.from(1.0, s)?;
        let inner = c.mul(x, rest);
        let inner = c.plus(inner, 1.0)?;
        Some(c.mul(s, inner))
    })
}

/// g (1 - y y).
fn tanh(c: &mut Call<'_>) -> Results {
    sloped(c, |c, y| {
        let square = c.mul(y, y);
        c.from(1.0, square)
    })
}

/// g (t + x s (1 - t t)) with t the hyperbolic tangent of softplus(x) and s the sigmoid of x.
fn mish(c: &mut Call<'_>) -> Results {
    sloped(c, |c, x| {
        let plus = c.op("Softplus", &[x], &[]);
        let t = c.op("Tanh", &[plus], &[]);
        let s = c.op("Sigmoid", &[x], &[]);
        let square = c.mul(t, t);
        let rest = c.from(1.0, square)?;
        let part = c.mul(x, s);
        let part = c.mul(part, rest);
        Some(c.add(t, part))
    })
}

/// g (F(x) + x f(x)) with F and f the normal distribution and its density, or with the form that takes a hyperbolic
/// tangent for F.
fn gelu(c: &mut Call<'_>) -> Results {
    let tanh = c.text("approximate") == Some("tanh");
    sloped(c, |c, x| if tanh { gelu_by_tanh(c, x) } else { gelu_by_erf(c, x) })
}

fn gelu_by_erf(c: &mut Call<'_>, x: ValueId) -> Option<ValueId> {
    let scaled = c.times(x, std::f64::consts::FRAC_1_SQRT_2)?;
    let erf = c.op("Erf", &[scaled], &[]);
    let erf = c.plus(erf, 1.0)?;
    let distribution = c.times(erf, 0.5)?;
    let square = c.mul(x, x);
    let square = c.times(square, -0.5)?;
    let density = c.op("Exp", &[square], &[]);
    let density =
        c.times(density, 0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2)?;
    let part = c.mul(x, density);
    Some(c.add(distribution, part))
}

/// With u = k (x + 0.044715 x^3), k = sqrt(2/pi), t = tanh(u): (1 + t)/2 + x (1 - t t)/2 u'.
fn gelu_by_tanh(c: &mut Call<'_>, x: ValueId) -> Option<ValueId> {
    const CUBIC: f64 = 0.044_715;
    let k = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    let square = c.mul(x, x);
    let cube = c.mul(square, x);
    let cube = c.times(cube, CUBIC)?;
    let inner = c.add(x, cube);
    let inner = c.times(inner, k)?;
    let t = c.op("Tanh", &[inner], &[]);
    let left = c.plus(t, 1.0)?;
    let left = c.times(left, 0.5)?;
    let squared = c.mul(t, t);
    let rest = c.from(1.0, squared)?;
    let slope = c.times(square, 3.0 * CUBIC)?;
    let slope = c.plus(slope, 1.0)?;
    let slope = c.times(slope, k)?;
    let half = c.times(x, 0.5)?;
    let right = c.mul(half, rest);
    let right = c.mul(right, slope);
    Some(c.add(left, right))
}

/// g where x is above the threshold, else 0.
fn threshold(c: &mut Call<'_>) -> Results {
    let (g, x, limit) = (c.input(0)?, c.input(1)?, c.number("threshold")?);
    let zero = c.number_like(0.0, g)?;
    one(c.choose("Greater", x, limit, g, zero)?)
}

/// g strictly between the bounds, else 0.
fn hard_tanh(c: &mut Call<'_>) -> Results {
    let (g, x) = (c.input(0)?, c.input(1)?);
    let (low, high) = (c.number("min_val")?, c.number("max_val")?);
    let zero = c.number_like(0.0, g)?;
    let above = c.choose("Greater", x, low, g, zero)?;
    one(c.choose("Less", x, high, above, zero)?)
}

/// g strictly above 0, else g times the slope; the sign of the result is that of the input.
fn leaky(c: &mut Call<'_>) -> Results {
    let (g, x) = (c.wide(0)?, c.wide(1)?);
    let low = c.times(g, c.number("negative_slope")?)?;
    finish(c, |c| c.choose("Greater", x, 0.0, g, low))
}

/// With what is kept the input or the output: below 0 the slope of the exponential, above it that of the line.
fn elu(c: &mut Call<'_>) -> Results {
    let (g, x) = (c.wide(0)?, c.wide(1)?);
    let number = |name| c.number(name).unwrap_or(1.0);
    let (alpha, scale, within) = (number("alpha"), number("scale"), number("input_scale"));
    let slope = if c.flag("is_result") {
        c.plus(x, alpha * scale)?
    } else {
        let inner = c.times(x, within)?;
        let e = c.op("Exp", &[inner], &[]);
        c.times(e, alpha * scale)?
    };
    let slope = c.times(slope, within)?;
    let low = c.mul(g, slope);
    let high = c.times(g, scale)?;
    finish(c, |c| c.choose("LessOrEqual", x, 0.0, low, high))
}

/// 0 up to -3, g (x/3 + 1/2) up to 3, g from there on.
fn hard_swish(c: &mut Call<'_>) -> Results {
    let (g, x) = (c.wide(0)?, c.wide(1)?);
    let three = c.number_like(3.0, x)?;
    let slope = c.div(x, three);
    let slope = c.plus(slope, 0.5)?;
    let middle = c.mul(g, slope);
    let zero = c.number_like(0.0, g)?;
    let below = c.choose("LessOrEqual", x, -3.0, zero, middle)?;
    finish(c, |c| c.choose("Less", x, 3.0, below, g))
}

/// g/6 strictly between -3 and 3, else 0.
fn hard_sigmoid(c: &mut Call<'_>) -> Results {
    let (g, x) = (c.wide(0)?, c.wide(1)?);
    let sixth = c.times(g, 1.0 / 6.0)?;
    let zero = c.number_like(0.0, g)?;
    let above = c.choose("Greater", x, -3.0, sixth, zero)?;
    finish(c, |c| c.choose("Less", x, 3.0, above, zero))
}

/// g above the threshold, else g e/(e + 1) with e = exp(beta x).
fn softplus(c: &mut Call<'_>) -> Results {
    let (g, x) = (c.wide(0)?, c.wide(1)?);
    let inner = c.times(x, c.number("beta").unwrap_or(1.0))?;
    let s = c.op("Sigmoid", &[inner], &[]);
    let low = c.mul(g, s);
    let limit = c.number("threshold").unwrap_or(20.0);
    finish(c, |c| c.choose("Greater", inner, limit, g, low))
}

/// g times the sigmoid of -x.
fn log_sigmoid(c: &mut Call<'_>) -> Results {
    sloped(c, |c, x| {
        let x = c.op("Neg", &[x], &[]);
        Some(c.op("Sigmoid", &[x], &[]))
    })
}

/// The halves of an input along `dim`, of which the second is the gate.
fn halves(c: &mut Call<'_>, at: usize) -> Option<[ValueId; 2]> {
    let axis = c.axis("dim", c.rank(at)?)?;
    let x = c.wide(at)?;
    let half = *c.shape(at)?.get(usize::try_from(axis).ok()?)? as i64 / 2;
    let lengths = c.integers(vec![half, half]);
    let dtype = c.type_of(x)?;
    let parts = c.several("Split", &[Some(x), Some(lengths)], &[dtype; 2], &[("axis", Attribute::Int(axis))]);
    parts.try_into().ok()
}

/// g s for the first half, g a s (1 - s) for the gate.
fn glu(c: &mut Call<'_>) -> Results {
    let axis = c.axis("dim", c.rank(1)?)?;
    let [a, gate] = halves(c, 1)?;
    let g = c.wide(0)?;
    let s = c.op("Sigmoid", &[gate], &[]);
    let first = c.mul(g, s);
    let rest = c.from(1.0, s)?;
    let second = c.mul(rest, s);
    let second = c.mul(second, g);
    let second = c.mul(second, a);
    finish(c, |c| Some(c.op("Concat", &[first, second], &[("axis", Attribute::Int(axis))])))
}

/// Above 0 g and 0, else g w and x g.
fn prelu(c: &mut Call<'_>) -> Results {
    let (g, x, weight) = (c.wide(0)?, c.wide(1)?, c.wide(2)?);
    let zero = c.number_like(0.0, x)?;
    let (low, moved) = (c.mul(g, weight), c.mul(x, g));
    let of_x = c.choose("Greater", x, 0.0, g, low)?;
    let of_weight = c.choose("Greater", x, 0.0, zero, moved)?;
    Some(vec![Some(c.as_result(of_x, 0)?), Some(c.as_result(of_weight, 1)?)])
}
