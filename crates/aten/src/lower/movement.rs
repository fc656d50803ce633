//! What only moves elements. Shapes are those that were recorded: a recording is of one run.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::DType;

use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_conj", same),
    ("_reshape_alias", reshape),
    ("_to_copy", convert),
    ("_unsafe_view", reshape),
    ("alias", same),
    ("cat", cat),
    ("clone", same),
    ("constant_pad_nd", pad),
    ("contiguous", same),
    ("convert_element_type", convert),
    ("copy", copy),
    ("detach", same),
    ("expand", expand),
    ("flip", flip),
    ("full", filled),
    ("full_like", filled),
    ("iota", counted),
    ("lift_fresh", same),
    ("native_dropout", dropout),
    ("native_dropout_backward", |c| {
        let g = c.wide(0)?;
        let mask = c.input_as(1, c.type_of(g)?)?;
        let kept = c.mul(g, mask);
        let scaled = c.times(kept, c.number("scale")?)?;
        one(c.as_result(scaled, 0)?)
    }),
    ("ones", filled),
    ("ones_like", filled),
    ("permute", permute),
    ("repeat", repeat),
    ("reshape", reshape),
    ("scalar_tensor", filled),
    ("select", select),
    ("slice", slice),
    ("split", split),
    ("split_with_sizes", split),
    ("squeeze", reshape),
    ("stack", stack),
    ("t", transpose),
    ("transpose", transpose),
    ("tril", |c| triangle(c, 0)),
    ("triu", |c| triangle(c, 1)),
    ("unbind", unbind),
    ("unsafe_split", split),
    ("unsafe_split_with_sizes", split),
    ("unsqueeze", reshape),
    ("view", reshape),
    ("zeros", filled),
    ("zeros_like", filled),
];

/// One number everywhere: a constant as recorded, or made anew where it was never stored.
fn filled(c: &mut Call<'_>) -> Results {
    if c.keeps(0) {
        return None;
    }
    let (dtype, shape) = c.result(0)?;
    let x = match c.operator() {
        "ones" | "ones_like" => 1.0,
        "zeros" | "zeros_like" => 0.0,
        "scalar_tensor" => c.number("s")?,
        _ => c.number("fill_value")?,
    };
    one(c.filled(x, &shape, dtype)?)
}

/// Whole numbers in a row, where they were never stored.
fn counted(c: &mut Call<'_>) -> Results {
    if c.keeps(0) {
        return None;
    }
    let (dtype, shape) = c.result(0)?;
    let (start, step) = (c.int("start").unwrap_or(0), c.int("step").unwrap_or(1));
    let &[length] = shape.as_slice() else { return None };
    let row =
        (0..length as i64).map(|i| i.checked_mul(step)?.checked_add(start)).collect::<Option<Vec<_>>>()?;
    let row = isotrace_tensor::Tensor::vector(row).cast(dtype).ok()?;
    one(c.constant(row))
}

/// Its first input.
pub fn same(c: &mut Call<'_>) -> Results {
    one(c.input(0)?)
}

/// What was kept was drawn: the mask is what was recorded of it, and no output of the node.
fn dropout(c: &mut Call<'_>) -> Results {
    if !c.flag("train") {
        return Some(vec![Some(c.input(0)?), None]);
    }
    let x = c.wide(0)?;
    let mask = c.drawn(1)?;
    let mask = c.cast(mask, c.type_of(x)?)?;
    let kept = c.mul(x, mask);
    let rest = 1.0 - c.number("p")?;
    let scaled = c.times(kept, if rest == 0.0 { 0.0 } else { 1.0 / rest })?;
    Some(vec![Some(c.as_result(scaled, 0)?), None])
}

fn convert(c: &mut Call<'_>) -> Results {
    let dtype = c.result(0)?.0;
    one(c.input_as(0, dtype)?)
}

fn copy(c: &mut Call<'_>) -> Results {
    let (dtype, shape) = c.result(0)?;
    let source = c.input_as(1, dtype)?;
    if c.shape(1)? == shape {
        return one(source);
    }
    let shape = sizes(c, &shape);
    one(c.op("Expand", &[source, shape], &[]))
}

/// A shape as a constant.
pub fn sizes(c: &mut Call<'_>, shape: &[usize]) -> ValueId {
    c.integers(shape.iter().map(|&n| n as i64).collect())
}

/// A value under another shape.
pub fn reshaped(c: &mut Call<'_>, v: ValueId, shape: &[usize]) -> ValueId {
    let shape = sizes(c, shape);
    c.op("Reshape", &[v, shape], &[("allowzero", Attribute::Int(1))])
}

fn reshape(c: &mut Call<'_>) -> Results {
    let (dtype, shape) = c.result(0)?;
    // `view.dtype` reads the same bits as another type.
    let x = c.input(0).filter(|_| c.dtype(0) == Some(dtype))?;
    one(reshaped(c, x, &shape))
}

pub fn permuted(c: &mut Call<'_>, v: ValueId, order: Vec<i64>) -> ValueId {
    c.op("Transpose", &[v], &[("perm", Attribute::Ints(order))])
}

fn permute(c: &mut Call<'_>) -> Results {
    let (x, rank) = (c.input(0)?, c.rank(0)?);
    let order = c.ints("dims")?.iter().map(|&d| if d < 0 { d + rank } else { d }).collect();
    one(permuted(c, x, order))
}

fn transpose(c: &mut Call<'_>) -> Results {
    let (x, rank) = (c.input(0)?, c.rank(0)?);
    let (i, j) = match c.operator() {
        "t" if rank < 2 => return one(x),
        "t" => (0, 1),
        _ => (c.axis("dim0", rank)?, c.axis("dim1", rank)?),
    };
    if i.max(j) >= rank || i.min(j) < 0 {
        return None;
    }
    let mut order: Vec<i64> = (0..rank).collect();
    order.swap(i as usize, j as usize);
    one(permuted(c, x, order))
}

fn expand(c: &mut Call<'_>) -> Results {
    let (x, (_, shape)) = (c.input(0)?, c.result(0)?);
    let shape = sizes(c, &shape);
    one(c.op("Expand", &[x, shape], &[]))
}

fn repeat(c: &mut Call<'_>) -> Results {
    let (x, times) = (c.input(0)?, c.ints("repeats")?);
    let mut shape = vec![1; times.len().checked_sub(c.shape(0)?.len())?];
    shape.extend(c.shape(0)?);
    let x = reshaped(c, x, &shape);
    let times = c.integers(times);
    one(c.op("Tile", &[x, times], &[]))
}

fn cat(c: &mut Call<'_>) -> Results {
    let (dtype, shape) = c.result(0)?;
    let axis = c.axis("dim", shape.len() as i64).unwrap_or(0);
    let mut parts = Vec::new();
    for at in 0..c.arity() {
        // Old code joins an empty vector to anything; it adds nothing.
        if c.shape(at) != Some(&[0]) || shape.len() == 1 {
            parts.push(Some(c.input_as(at, dtype)?));
        }
    }
    one(c.typed(dtype, "Concat", &parts, &[("axis", Attribute::Int(axis))]))
}

fn stack(c: &mut Call<'_>) -> Results {
    let (dtype, shape) = c.result(0)?;
    let axis = c.axis("dim", shape.len() as i64).unwrap_or(0);
    let mut each = shape.clone();
    *each.get_mut(usize::try_from(axis).ok()?)? = 1;
    let mut parts = Vec::new();
    for at in 0..c.arity() {
        let part = c.input_as(at, dtype)?;
        parts.push(Some(reshaped(c, part, &each)));
    }
    one(c.typed(dtype, "Concat", &parts, &[("axis", Attribute::Int(axis))]))
}

pub fn sliced(c: &mut Call<'_>, v: ValueId, axis: i64, [start, end, step]: [i64; 3]) -> ValueId {
    let [start, end, axis, step] = [start, end, axis, step].map(|i| c.integers(vec![i]));
    c.op("Slice", &[v, start, end, axis, step], &[])
}

fn slice(c: &mut Call<'_>) -> Results {
    let (x, rank) = (c.input(0)?, c.rank(0)?);
    let axis = c.axis("dim", rank).unwrap_or(0);
    let (start, end) = (c.int("start").unwrap_or(0), c.int("end").unwrap_or(i64::MAX));
    if start == 0 && c.result(0)?.1 == c.shape(0)? {
        return one(x);
    }
    one(sliced(c, x, axis, [start, end, c.int("step").unwrap_or(1)]))
}

fn select(c: &mut Call<'_>) -> Results {
    let (x, rank) = (c.input(0)?, c.rank(0)?);
    let axis = c.axis("dim", rank)?;
    let place = c.scalar(c.int("index")? as f64, DType::I64)?;
    one(c.op("Gather", &[x, place], &[("axis", Attribute::Int(axis))]))
}

fn split(c: &mut Call<'_>) -> Results {
    let (x, rank) = (c.input(0)?, c.rank(0)?);
    let axis = c.axis("dim", rank).unwrap_or(0);
    let mut lengths = Vec::new();
    while let Some((_, shape)) = c.result(lengths.len()) {
        lengths.push(*shape.get(usize::try_from(axis).ok()?)? as i64);
    }
    let types = vec![c.dtype(0)?; lengths.len()];
    let lengths = c.integers(lengths);
    let parts = c.several("Split", &[Some(x), Some(lengths)], &types, &[("axis", Attribute::Int(axis))]);
    Some(parts.into_iter().map(Some).collect())
}

fn unbind(c: &mut Call<'_>) -> Results {
    let (x, rank) = (c.input(0)?, c.rank(0)?);
    let axis = c.axis("dim", rank).unwrap_or(0);
    let mut parts = Vec::new();
    while c.result(parts.len()).is_some() {
        let place = c.scalar(parts.len() as f64, DType::I64)?;
        parts.push(Some(c.op("Gather", &[x, place], &[("axis", Attribute::Int(axis))])));
    }
    Some(parts)
}

fn flip(c: &mut Call<'_>) -> Results {
    let (mut x, rank) = (c.input(0)?, c.rank(0)?);
    for axis in c.ints("dims")? {
        let axis = if axis < 0 { axis + rank } else { axis };
        x = sliced(c, x, axis, [-1, i64::MIN + 1, -1]);
    }
    one(x)
}

fn pad(c: &mut Call<'_>) -> Results {
    let (x, rank) = (c.input(0)?, c.shape(0)?.len());
    // Pairs from the last axis on, against all beginnings and then all ends.
    let mut pads = vec![0; 2 * rank];
    for (i, pair) in c.ints("pad")?.chunks_exact(2).enumerate() {
        let axis = rank.checked_sub(i + 1)?;
        (pads[axis], pads[rank + axis]) = (pair[0], pair[1]);
    }
    let pads = c.integers(pads);
    let fill = c.scalar(c.number("value").unwrap_or(0.0), c.dtype(0)?)?;
    one(c.op("Pad", &[x, pads, fill], &[]))
}

fn triangle(c: &mut Call<'_>, upper: i64) -> Results {
    let x = c.input(0)?;
    let diagonal = c.scalar(c.int("diagonal").unwrap_or(0) as f64, DType::I64)?;
    one(c.op("Trilu", &[x, diagonal], &[("upper", Attribute::Int(upper))]))
}
