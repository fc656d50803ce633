//! Rotary position encodings, written out: tables looked up, halves or pairs taken apart, turned and put together.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::Tensor;

use super::writer::Writer;

/// What is turned, and how.
pub struct Turn {
    /// (batch, heads, positions, size), or (batch, positions, heads, size).
    pub x: ValueId,
    /// The shape of `x`.
    pub shape: [usize; 4],
    /// The axis of heads: 1 or 2.
    pub heads: usize,
    /// Cosines and sines, (batch, positions, half).
    pub tables: (ValueId, ValueId),
    /// Half the elements of each head that are turned.
    pub half: usize,
    /// Pairs beside each other rather than halves.
    pub interleaved: bool,
}

/// ONNX's operator: X, cosines, sines, and the positions if the tables are to be looked up.
pub fn onnx(w: &mut Writer<'_>) -> Option<()> {
    let (cosines, sines) = (w.read(1)?, w.read(2)?);
    let ids = w.read(3);
    write(w, cosines, sines, ids)
}

/// com.microsoft's operator: X, positions, cosines, sines.
pub fn contrib(w: &mut Writer<'_>) -> Option<()> {
    if w.float("scale").is_some_and(|s| s != 1.0) {
        return None;
    }
    let (ids, cosines, sines) = (w.read(1)?, w.read(2)?, w.read(3)?);
    write(w, cosines, sines, Some(ids))
}

fn write(w: &mut Writer<'_>, cosines: ValueId, sines: ValueId, ids: Option<ValueId>) -> Option<()> {
    let x = w.read(0)?;
    let half = *w.tensor(cosines)?.shape().last()?;
    let (shape, heads) = match *w.shape(0)? {
        [b, h, s, d] => ([b, h, s, d], 1),
        [b, s, hidden] => {
            let heads = match usize::try_from(w.int("num_heads", 0)).ok()? {
                0 => hidden.checked_div(2 * half)?,
                n => n,
            };
            ([b, s, heads, hidden.checked_div(heads)?], 2)
        }
        _ => return None,
    };
    let positions = shape[3 - heads];
    let tables = match ids {
        Some(ids) => {
            let ids = match w.tensor(ids)? {
                t if t.rank() == 2 => ids,
                t => {
                    let first = *t.to_i64().ok()?.first()?;
                    let all = (0..shape[0] * positions)
                        .map(|i| first.saturating_add((i % positions) as i64))
                        .collect();
                    w.constant(Tensor::from_vec(&[shape[0], positions], all).ok()?)
                }
            };
            let rows = [("axis", Attribute::Int(0))];
            (
                w.part("Gather", &[cosines, ids], &rows, "cosines"),
                w.part("Gather", &[sines, ids], &rows, "sines"),
            )
        }
        None => (cosines, sines),
    };
    let split = w.reshaped(x, &shape);
    let turn = Turn { x: split, shape, heads, tables, half, interleaved: w.int("interleaved", 0) != 0 };
    let y = turned(w, &turn)?;
    let whole = w.shape(0)?.to_vec();
    let y = w.reshaped(y, &whole);
    w.hand_on(0, y);
    Some(())
}

/// Each pair (x, y) as (cos x - sin y, sin x + cos y); what is beyond the turned elements stays.
pub fn turned(w: &mut Writer<'_>, turn: &Turn) -> Option<ValueId> {
    let &Turn { x, shape, heads, half, interleaved, .. } = turn;
    let place = w.ints(&[heads as i64]);
    let cosines = w.part("Unsqueeze", &[turn.tables.0, place], &[], "cosines");
    let sines = w.part("Unsqueeze", &[turn.tables.1, place], &[], "sines");
    let last = [("axis", Attribute::Int(-1))];
    let rest = shape[3].checked_sub(2 * half)?;
    let part = |w: &mut Writer<'_>, v: ValueId, from: usize, to: usize, step: i64, what: &str| {
        let (from, to) = (w.ints(&[from as i64]), w.ints(&[to as i64]));
        let (axis, step) = (w.ints(&[3]), w.ints(&[step]));
        w.part("Slice", &[v, from, to, axis, step], &[], what)
    };
    let (first, second) = if interleaved {
        (part(w, x, 0, 2 * half, 2, "even elements"), part(w, x, 1, 2 * half, 2, "odd elements"))
    } else {
        (part(w, x, 0, half, 1, "first half"), part(w, x, half, 2 * half, 1, "second half"))
    };
    let product = |w: &mut Writer<'_>, t: ValueId, v: ValueId| w.part("Mul", &[t, v], &[], "turned part");
    let (cx, sy) = (product(w, cosines, first), product(w, sines, second));
    let real = w.part("Sub", &[cx, sy], &[], "turned first part");
    let (sx, cy) = (product(w, sines, first), product(w, cosines, second));
    let imaginary = w.part("Add", &[sx, cy], &[], "turned second part");
    let y = if interleaved {
        let end = w.ints(&[4]);
        let real = w.part("Unsqueeze", &[real, end], &[], "layout");
        let imaginary = w.part("Unsqueeze", &[imaginary, end], &[], "layout");
        let pairs = w.part("Concat", &[real, imaginary], &last, "turned elements");
        let [b, h, s, _] = shape;
        w.reshaped(pairs, &[b, h, s, 2 * half])
    } else {
        w.part("Concat", &[real, imaginary], &last, "turned elements")
    };
    Some(if rest == 0 {
        y
    } else {
        let left = part(w, x, 2 * half, shape[3], 1, "elements left as they are");
        w.part("Concat", &[y, left], &last, "elements")
    })
}
