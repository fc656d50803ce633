//! Normalisations over the last axes, written out: statistics, root, quotient, gain and shift.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::normalise_axis;

use super::writer::Writer;

/// `x / sqrt(mean(x^2) + epsilon) * gain`
pub fn root_mean_square(w: &mut Writer<'_>) -> Option<()> {
    let x = w.read(0)?;
    let axis = w.int("axis", -1);
    let epsilon = w.float("epsilon").unwrap_or(f64::from(1e-5f32));
    let normed = by_root(w, x, axis, epsilon)?;
    let y = gained(w, normed, 1, None);
    w.hand_on(0, y);
    only(w, &[0])
}

/// `(x - mean) / sqrt(mean((x - mean)^2) + epsilon) * gain + shift`
pub fn layer(w: &mut Writer<'_>) -> Option<()> {
    let x = w.read(0)?;
    let axis = w.int("axis", -1);
    let epsilon = w.float("epsilon").unwrap_or(f64::from(1e-5f32));
    let centred = centred(w, x, axis)?;
    let normed = by_root(w, centred, axis, epsilon)?;
    let y = gained(w, normed, 1, Some(2));
    w.hand_on(0, y);
    only(w, &[0])
}

/// [`layer`] of the sum of an input, a skip connection and a bias.
pub fn skip_layer(w: &mut Writer<'_>) -> Option<()> {
    let sum = skipped(w, 4)?;
    let epsilon = w.float("epsilon").unwrap_or(f64::from(1e-12f32));
    let centred = centred(w, sum, -1)?;
    let normed = by_root(w, centred, -1, epsilon)?;
    let y = gained(w, normed, 2, Some(3));
    w.hand_on(0, y);
    w.hand_on(3, sum);
    only(w, &[0, 3])
}

/// [`root_mean_square`] of the sum of an input, a skip connection and a bias.
pub fn skip_root_mean_square(w: &mut Writer<'_>) -> Option<()> {
    let sum = skipped(w, 3)?;
    let epsilon = w.float("epsilon").unwrap_or(f64::from(1e-12f32));
    let normed = by_root(w, sum, -1, epsilon)?;
    let y = gained(w, normed, 2, None);
    w.hand_on(0, y);
    w.hand_on(3, sum);
    only(w, &[0, 3])
}

/// Whether no output besides these is named.
fn only(w: &Writer<'_>, slots: &[usize]) -> Option<()> {
    (0..w.node.outputs.len()).all(|i| slots.contains(&i) || !w.named(i)).then_some(())
}

fn skipped(w: &mut Writer<'_>, bias: usize) -> Option<ValueId> {
    let (x, skip) = (w.read(0)?, w.read(1)?);
    let sum = w.part("Add", &[x, skip], &[], "skip connection");
    Some(match w.read(bias) {
        Some(bias) => w.part("Add", &[sum, bias], &[], "bias"),
        None => sum,
    })
}

fn mean(w: &mut Writer<'_>, x: ValueId, axis: i64, what: &str) -> Option<ValueId> {
    let rank = w.shape(0)?.len();
    let axes: Vec<i64> = (normalise_axis(axis, rank).ok()?..rank).map(|a| a as i64).collect();
    let axes = w.ints(&axes);
    Some(w.part("ReduceMean", &[x, axes], &[("keepdims", Attribute::Int(1))], what))
}

fn centred(w: &mut Writer<'_>, x: ValueId, axis: i64) -> Option<ValueId> {
    let mean = mean(w, x, axis, "mean")?;
    Some(w.part("Sub", &[x, mean], &[], "difference from the mean"))
}

fn by_root(w: &mut Writer<'_>, x: ValueId, axis: i64, epsilon: f64) -> Option<ValueId> {
    let squares = w.part("Mul", &[x, x], &[], "squares");
    let variance = mean(w, squares, axis, "mean square")?;
    let epsilon = w.number(epsilon)?;
    let above = w.part("Add", &[variance, epsilon], &[], "epsilon");
    let root = w.part("Sqrt", &[above], &[], "root");
    Some(w.part("Div", &[x, root], &[], "quotient"))
}

fn gained(w: &mut Writer<'_>, x: ValueId, gain: usize, shift: Option<usize>) -> ValueId {
    let y = match w.read(gain) {
        Some(gain) => w.part("Mul", &[x, gain], &[], "gain"),
        None => x,
    };
    match shift.and_then(|slot| w.read(slot)) {
        Some(shift) => w.part("Add", &[y, shift], &[], "shift"),
        None => y,
    }
}
