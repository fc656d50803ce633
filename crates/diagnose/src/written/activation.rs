//! Activations that exporters write in many ways, written out in one.

use isotrace_graph::ValueId;

use super::writer::Writer;

/// `x (1 + erf(x / sqrt(2))) / 2`, of a sum with a bias where there is one; by tanh where the node says so.
pub fn gelu(w: &mut Writer<'_>) -> Option<()> {
    if w.node.attributes.contains_key("approximate") {
        return None;
    }
    let x = biased(w)?;
    let root = w.number(std::f64::consts::SQRT_2)?;
    let share = w.part("Div", &[x, root], &[], "argument");
    let curve = w.part("Erf", &[share], &[], "error function");
    gated(w, x, curve)
}

/// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`, of a sum with a bias where there is one.
pub fn fast_gelu(w: &mut Writer<'_>) -> Option<()> {
    let x = biased(w)?;
    let three = w.number(3.0)?;
    let cube = w.part("Pow", &[x, three], &[], "cube");
    let small = w.number(0.044_715)?;
    let small = w.part("Mul", &[cube, small], &[], "cubic part");
    let sum = w.part("Add", &[x, small], &[], "polynomial");
    let factor = w.number((2.0 / std::f64::consts::PI).sqrt())?;
    let argument = w.part("Mul", &[sum, factor], &[], "argument");
    let curve = w.part("Tanh", &[argument], &[], "tangent");
    gated(w, x, curve)
}

/// `x sigmoid(alpha x)`
pub fn quick_gelu(w: &mut Writer<'_>) -> Option<()> {
    let x = w.read(0)?;
    let alpha = w.number(w.float("alpha").unwrap_or(f64::from(1.702f32)))?;
    let argument = w.part("Mul", &[x, alpha], &[], "argument");
    let curve = w.part("Sigmoid", &[argument], &[], "sigmoid");
    let y = w.part("Mul", &[x, curve], &[], "gate");
    w.hand_on(0, y);
    Some(())
}

fn biased(w: &mut Writer<'_>) -> Option<ValueId> {
    let x = w.read(0)?;
    Some(match w.read(1) {
        Some(bias) => w.part("Add", &[x, bias], &[], "bias"),
        None => x,
    })
}

/// `x (1 + curve) / 2`
fn gated(w: &mut Writer<'_>, x: ValueId, curve: ValueId) -> Option<()> {
    let (one, half) = (w.number(1.0)?, w.number(0.5)?);
    let above = w.part("Add", &[curve, one], &[], "sum with one");
    let whole = w.part("Mul", &[x, above], &[], "gate");
    let y = w.part("Mul", &[whole, half], &[], "half");
    w.hand_on(0, y);
    Some(())
}
