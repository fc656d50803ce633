//! Normalisations over the last axes, written out: statistics, root, quotient, gain and shift.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::{Tensor, normalise_axis};

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

/// [`layer`] of the sum of the rows of up to three tables that words, positions and segments pick.
pub fn embedded(w: &mut Writer<'_>) -> Option<()> {
    let &[batch, places] = w.shape(0)? else { return None };
    let ids = w.read(0)?;
    let words = w.part("Gather", &[w.read(2)?, ids], &[], "rows of words");
    let positions = match w.read(8) {
        Some(given) => given,
        None => w.ints(&(0..places as i64).collect::<Vec<_>>()),
    };
    let positions = w.part("Gather", &[w.read(3)?, positions], &[], "rows of positions");
    let mut sum = w.part("Add", &[words, positions], &[], "sum with positions");
    if let (Some(ids), Some(table)) = (w.read(1), w.read(4)) {
        let segments = w.part("Gather", &[table, ids], &[], "rows of segments");
        sum = w.part("Add", &[sum, segments], &[], "sum with segments");
    }
    let epsilon = w.float("epsilon").unwrap_or(f64::from(1e-12f32));
    let centred = centred(w, sum, -1)?;
    let normed = by_root(w, centred, -1, epsilon)?;
    let y = gained(w, normed, 5, Some(6));
    w.hand_on(0, y);
    if w.named(1) {
        let kept = match w.read(7) {
            Some(mask) => {
                let axes = w.ints(&[1]);
                let counted = w.part("Cast", &[mask], &[("to", Attribute::Int(INT32))], "mask");
                w.part("ReduceSum", &[counted, axes], &[("keepdims", Attribute::Int(0))], "kept positions")
            }
            None => w.constant(Tensor::full(&[batch], 0i32).ok()?),
        };
        w.hand_on(1, kept);
    }
    w.hand_on(2, sum);
    Some(())
}

/// ONNX's number of 32-bit integers.
const INT32: i64 = 6;

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
    // The first input may be ids, of another rank than what is normalised.
    let axes: Vec<i64> = if axis == -1 {
        vec![-1]
    } else {
        let rank = w.shape(0)?.len();
        (normalise_axis(axis, rank).ok()?..rank).map(|a| a as i64).collect()
    };
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
