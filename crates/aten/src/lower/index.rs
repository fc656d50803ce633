//! Indexing by tensors, and views that no operator made.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::DType;

use super::movement::{permuted, reshaped, sliced};
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_index_put_impl", put),
    ("_unsafe_masked_index_put_accumulate", masked_put),
    ("_embedding_bag", bags),
    ("_embedding_bag_forward_only", bags),
    ("as_strided", as_strided),
    ("_unsafe_index", index),
    ("_unsafe_index_put", put),
    ("embedding", |c| gather(c, 0, 1, 0)),
    ("embedding_dense_backward", table),
    ("gather", gather_elements),
    ("index", index),
    ("index_add", |c| at_rows(c, "add")),
    ("index_copy", |c| at_rows(c, "none")),
    ("index_put", put),
    ("index_select", |c| {
        let axis = c.axis("dim", c.rank(0)?)?;
        gather(c, 0, 1, axis)
    }),
    ("scatter", scatter),
    ("scatter_add", scatter),
    ("scatter_reduce", scatter_reduce),
    ("select_backward", |c| taken_back(c, false)),
    ("select_scatter", |c| overwritten(c, false)),
    ("slice_backward", |c| taken_back(c, true)),
    ("slice_scatter", |c| overwritten(c, true)),
];

fn gather(c: &mut Call<'_>, table: usize, places: usize, axis: i64) -> Results {
    let (table, places) = (c.input(table)?, c.input(places)?);
    one(c.op("Gather", &[table, places], &[("axis", Attribute::Int(axis))]))
}

fn gather_elements(c: &mut Call<'_>) -> Results {
    let axis = c.axis("dim", c.rank(0)?)?;
    let (x, places) = (c.input(0)?, c.input(1)?);
    one(c.op("GatherElements", &[x, places], &[("axis", Attribute::Int(axis))]))
}

fn scatter(c: &mut Call<'_>) -> Results {
    let axis = c.axis("dim", c.rank(0)?)?;
    let (dtype, shape) = (c.dtype(0)?, c.shape(1)?.to_vec());
    let (x, places) = (c.input(0)?, c.input(1)?);
    let how = match (c.operator(), c.text("reduce")) {
        ("scatter_add", _) | (_, Some("add")) => "add",
        (_, Some("multiply")) => "mul",
        (_, None) => "none",
        _ => return None,
    };
    let source = match c.input(2) {
        Some(_) => {
            let mut source = c.input_as(2, dtype)?;
            // Only as many as there are places are read.
            for (axis, (&n, &have)) in shape.iter().zip(&c.shape(2)?.to_vec()).enumerate() {
                if n != have {
                    source = sliced(c, source, axis as i64, [0, n as i64, 1]);
                }
            }
            source
        }
        None => c.filled(c.number("value")?, &shape, dtype)?,
    };
    let how = Attribute::Bytes(how.as_bytes().to_vec());
    one(c.op("ScatterElements", &[x, places, source], &[("axis", Attribute::Int(axis)), ("reduction", how)]))
}

/// What several sources make of one place, with or without what stood there.
fn scatter_reduce(c: &mut Call<'_>) -> Results {
    let axis = c.axis("dim", c.rank(0)?)?;
    let (dtype, named) = (c.dtype(0)?, c.shape(1)?.to_vec());
    let how = c.text("reduce")?;
    let (name, neutral) = match how {
        "sum" | "mean" => ("add", 0.0),
        "prod" => ("mul", 1.0),
        "amax" => ("max", f64::NEG_INFINITY),
        "amin" => ("min", f64::INFINITY),
        _ => return None,
    };
    let (mut x, places) = (c.input(0)?, c.input(1)?);
    let mut source = c.input_as(2, dtype)?;
    for (axis, (&n, &have)) in named.iter().zip(&c.shape(2)?.to_vec()).enumerate() {
        if n != have {
            source = sliced(c, source, axis as i64, [0, n as i64, 1]);
        }
    }
    let settings = |how: &str| {
        [("axis", Attribute::Int(axis)), ("reduction", Attribute::Bytes(how.as_bytes().to_vec()))]
    };
    let included = c.int("include_self") != Some(0);
    if !included {
        if !dtype.is_float() && !neutral.is_finite() {
            return None;
        }
        let neutral = c.filled(neutral, &named, dtype)?;
        x = c.op("ScatterElements", &[x, places, neutral], &settings("none"));
    }
    let y = c.op("ScatterElements", &[x, places, source], &settings(name));
    if how != "mean" {
        return one(y);
    }
    let start = f64::from(u8::from(included));
    let shape = c.shape(0)?.to_vec();
    let (none, one_each) = (c.filled(start, &shape, dtype)?, c.filled(1.0, &named, dtype)?);
    let count = c.op("ScatterElements", &[none, places, one_each], &settings("add"));
    let least = c.number_like(1.0, count)?;
    let count = c.op("Max", &[count, least], &[]);
    if dtype.is_float() {
        return one(c.div(y, count));
    }
    one(super::functions::floored(c, y, count)?)
}

/// Rows of a table summed up, averaged, or the largest of each column, bag by bag. Where the bags begin is told by the
/// recording, as shapes are.
fn bags(c: &mut Call<'_>) -> Results {
    /// ATen's numbers of the ways to put rows together.
    const SUM: i64 = 0;
    const MEAN: i64 = 1;
    let how = c.int("mode").unwrap_or(SUM);
    let padding = c.int("padding_idx").unwrap_or(-1);
    if how > MEAN || padding >= 0 {
        return None;
    }
    let (_, wanted) = c.result(0)?;
    let &[count, width] = wanted.as_slice() else { return None };
    let rows: usize = c.shape(1)?.iter().product();
    let starts = c.elements(2)?.to_i64().ok()?.to_vec();
    let bag = |row: usize| starts.iter().take(count).rposition(|&start| start <= row as i64);
    let places = (0..rows).map(|row| bag(row).map(|b| b as i64)).collect::<Option<Vec<_>>>()?;
    let mut sizes = vec![0.0; count];
    for &bag in &places {
        sizes[bag as usize] += 1.0;
    }
    let (table, named) = (c.wide(0)?, c.input_as(1, DType::I64)?);
    let mut taken = c.op("Gather", &[table, named], &[("axis", Attribute::Int(0))]);
    if c.input(3).is_some() {
        let weights = c.input_as(3, c.type_of(taken)?)?;
        let weights = reshaped(c, weights, &[rows, 1]);
        taken = c.mul(taken, weights);
    }
    let zeros = c.filled(0.0, &[count, width], c.type_of(taken)?)?;
    let places = c.integers(places);
    let places = reshaped(c, places, &[rows, 1]);
    let mut sum =
        c.op("ScatterND", &[zeros, places, taken], &[("reduction", Attribute::Bytes(b"add".to_vec()))]);
    if how == MEAN {
        let sizes: Vec<f64> = sizes.iter().map(|n: &f64| n.max(1.0)).collect();
        let sizes = isotrace_tensor::Tensor::from_vec(&[count, 1], sizes).ok()?;
        let sizes = c.constant(sizes);
        let sizes = c.cast(sizes, c.type_of(sum)?)?;
        sum = c.div(sum, sizes);
    }
    one(c.as_result(sum, 0)?)
}

/// Tensors that stand side by side among the axes of a call's first input, and what they name together.
struct Tuples {
    /// Places, one row a tuple: [..., number of tensors].
    places: ValueId,
    /// The shape that the tensors have together.
    shape: Vec<usize>,
    /// The first axis that is indexed, and how many are.
    first: usize,
    count: usize,
}

impl Tuples {
    /// Of the inputs from 1 up to `end`. A mask of booleans stands for the places where it holds.
    fn new(c: &mut Call<'_>, end: usize, tuples: usize) -> Option<Self> {
        let given: Vec<usize> = (1..end).filter(|&at| c.input(at).is_some()).collect();
        let first = given.first()? - 1;
        if given.iter().enumerate().any(|(i, &at)| at != first + i + 1) {
            return None;
        }
        if let [only] = given[..]
            && matches!(c.dtype(only)?, DType::Bool | DType::U8)
        {
            let (mask, count) = (c.input_as(only, DType::Bool)?, c.shape(only)?.len());
            let found = c.typed(DType::I64, "NonZero", &[Some(mask)], &[]);
            let places = c.op("Transpose", &[found], &[("perm", Attribute::Ints(vec![1, 0]))]);
            return Some(Self { places, shape: vec![tuples], first, count });
        }
        // Tensors are broadcast to one shape and put side by side: one row is one place.
        let shape = given.iter().try_fold(Vec::new(), |shape, &at| broadcast(&shape, c.shape(at)?))?;
        let target = c.integers(shape.iter().map(|&n| n as i64).collect());
        let single = [shape.as_slice(), &[1]].concat();
        let mut columns = Vec::new();
        for &at in &given {
            if !c.dtype(at)?.is_int() {
                return None;
            }
            let v = c.input_as(at, DType::I64)?;
            let v = c.op("Expand", &[v, target], &[]);
            columns.push(Some(reshaped(c, v, &single)));
        }
        let places = c.typed(DType::I64, "Concat", &columns, &[("axis", Attribute::Int(-1))]);
        Some(Self { places, shape, first, count: given.len() })
    }

    /// The order of axes in which the indexed ones come first, and the order back from what `inner` axes in their place
    /// make of it.
    fn orders(&self, rank: usize, inner: usize) -> (Vec<i64>, Vec<i64>) {
        let (first, count) = (self.first, self.count);
        let front = (first..first + count).chain(0..first).chain(first + count..rank);
        let back = (inner..inner + first).chain(0..inner).chain(inner + first..inner + rank - count);
        (front.map(|a| a as i64).collect(), back.map(|a| a as i64).collect())
    }
}

/// By one tensor along one axis, or by tensors along neighbouring axes.
fn index(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    let given: Vec<usize> = (1..c.arity()).filter(|&at| c.input(at).is_some()).collect();
    if let [only] = given[..]
        && c.dtype(only)?.is_int()
        && c.dtype(only)? != DType::U8
    {
        return gather(c, 0, only, only as i64 - 1);
    }
    let (rank, (_, shape)) = (c.shape(0)?.len(), c.result(0)?);
    let found = given.first().and_then(|at| shape.get(at - 1)).copied().unwrap_or(0);
    let tuples = Tuples::new(c, c.arity(), found)?;
    let (front, back) = tuples.orders(rank, tuples.shape.len());
    let x = if tuples.first == 0 { x } else { permuted(c, x, front) };
    let y = c.op("GatherND", &[x, tuples.places], &[]);
    one(if tuples.first == 0 { y } else { permuted(c, y, back) })
}

/// Writes values, or adds them, at the places that tensors name; the values come last.
fn put(c: &mut Call<'_>) -> Results {
    let (x, last, shape) = (c.input(0)?, c.arity().checked_sub(1)?, c.shape(0)?.to_vec());
    let values = c.input_as(last, c.dtype(0)?)?;
    let add = c.flag("accumulate");
    let given: Vec<usize> = (1..last).filter(|&at| c.input(at).is_some()).collect();
    if let [only] = given[..]
        && c.dtype(only)? == DType::Bool
    {
        // One number wherever a mask holds.
        if c.shape(last)?.iter().product::<usize>() == 1 && !add {
            let mask = c.input(only)?;
            let mut seen = vec![1; only - 1];
            seen.extend(c.shape(only)?);
            seen.resize(shape.len(), 1);
            let mask = reshaped(c, mask, &seen);
            let one_number = reshaped(c, values, &[]);
            return one(c.pick(mask, one_number, x));
        }
    }
    let counted = c.elements(given.first().copied()?)?;
    let holds = counted.to_i64().map_or(0, |m| m.iter().filter(|&&b| b != 0).count());
    let tuples = Tuples::new(c, last, holds)?;
    let (front, _) = tuples.orders(shape.len(), 0);
    let rest: Vec<usize> = front[tuples.count..].iter().map(|&a| shape[a as usize]).collect();
    let inner = tuples.shape.len();
    // Values have the axes before the indexed ones first; updates have them after.
    let lead = tuples.first;
    let full = [&rest[..lead], tuples.shape.as_slice(), &rest[lead..]].concat();
    let target = super::movement::sizes(c, &full);
    let mut updates = c.op("Expand", &[values, target], &[]);
    let turned = lead > 0;
    if turned {
        let order = (lead..lead + inner).chain(0..lead).chain(lead + inner..full.len());
        updates = permuted(c, updates, order.map(|a| a as i64).collect());
    }
    let x = if turned { permuted(c, x, front.clone()) } else { x };
    let how: &[u8] = if add { b"add" } else { b"none" };
    let y = c.op("ScatterND", &[x, tuples.places, updates], &[("reduction", Attribute::Bytes(how.to_vec()))]);
    let mut back = vec![0; front.len()];
    for (i, &a) in front.iter().enumerate() {
        back[a as usize] = i as i64;
    }
    one(if turned { permuted(c, y, back) } else { y })
}

/// Adds values along the first axis at the places that a tensor names, where a mask of the same shape holds.
fn masked_put(c: &mut Call<'_>) -> Results {
    let [mask_at, places_at, last] = [1, 2, 3];
    if c.arity() != 4 {
        return None;
    }
    let (x, mask) = (c.input(0)?, c.input_as(mask_at, DType::Bool)?);
    let (places, values) = (c.input_as(places_at, DType::I64)?, c.input_as(last, c.dtype(0)?)?);
    let (mut seen, named) = (c.shape(mask_at)?.to_vec(), c.shape(places_at)?.to_vec());
    let shape = c.shape(0)?.to_vec();
    let full = [named.as_slice(), shape.get(1..)?].concat();
    // A mask stands for the places, or for the elements of what they name.
    seen.resize(full.len().max(seen.len()), 1);
    if c.shape(last)? != full || broadcast(&seen, &full)? != full {
        return None;
    }
    let mask = reshaped(c, mask, &seen);
    let zero = c.number_like(0.0, values)?;
    let values = c.pick(mask, values, zero);
    // Where the mask does not hold, the place may be none; nothing is added at the one that stands for it.
    let count = c.scalar(*shape.first()? as f64, DType::I64)?;
    let below = c.typed(DType::Bool, "Less", &[Some(places), Some(count)], &[]);
    let least = c.scalar(-(*shape.first()? as f64), DType::I64)?;
    let above = c.typed(DType::Bool, "GreaterOrEqual", &[Some(places), Some(least)], &[]);
    let inside = c.typed(DType::Bool, "And", &[Some(below), Some(above)], &[]);
    let none = c.scalar(0.0, DType::I64)?;
    let places = c.pick(inside, places, none);
    let places = reshaped(c, places, &[named.as_slice(), &[1]].concat());
    let how = [("reduction", Attribute::Bytes(b"add".to_vec()))];
    one(c.op("ScatterND", &[x, places, values], &how))
}

/// Adds, or writes, slices along an axis at the places that a vector names.
fn at_rows(c: &mut Call<'_>, how: &str) -> Results {
    let rank = c.rank(0)?;
    let axis = c.axis("dim", rank)?;
    let (x, places) = (c.input(0)?, c.input_as(1, DType::I64)?);
    let mut source = c.input_as(2, c.dtype(0)?)?;
    source = super::elementwise::scaled(c, source, c.number("alpha").unwrap_or(1.0))?;
    let mut order: Vec<i64> = (0..rank).collect();
    order.swap(0, axis as usize);
    let count = c.shape(1)?.iter().product();
    let places = reshaped(c, places, &[count, 1]);
    let (x, source) = (permuted(c, x, order.clone()), permuted(c, source, order.clone()));
    let how = [("reduction", Attribute::Bytes(how.as_bytes().to_vec()))];
    let y = c.op("ScatterND", &[x, places, source], &how);
    one(permuted(c, y, order))
}

/// The gradient of a table: each row's gradients added up; the row of padding has none.
fn table(c: &mut Call<'_>) -> Results {
    if c.flag("scale_grad_by_freq") {
        return None;
    }
    let (dtype, shape) = c.result(0)?;
    let [_, width] = shape[..] else { return None };
    let (g, places) = (c.wide(0)?, c.input_as(1, DType::I64)?);
    let count: usize = c.shape(1)?.iter().product();
    let places = reshaped(c, places, &[count, 1]);
    let mut g = reshaped(c, g, &[count, width]);
    if let Some(padding) = c.int("padding_idx").filter(|&p| p >= 0) {
        let padding = c.scalar(padding as f64, DType::I64)?;
        let ignored = c.typed(DType::Bool, "Equal", &[Some(places), Some(padding)], &[]);
        let zero = c.number_like(0.0, g)?;
        g = c.pick(ignored, zero, g);
    }
    let zeros = c.filled(0.0, &shape, c.type_of(g)?)?;
    let sum = c.op("ScatterND", &[zeros, places, g], &[("reduction", Attribute::Bytes(b"add".to_vec()))]);
    one(c.cast(sum, dtype)?)
}

/// A gradient put back where `select` or `slice` took from, zeros around it.
fn taken_back(c: &mut Call<'_>, slice: bool) -> Results {
    let (dtype, shape) = c.result(0)?;
    let axis = usize::try_from(c.axis("dim", shape.len() as i64)?).ok()?;
    let size = *shape.get(axis)? as i64;
    let g = c.input_as(0, dtype)?;
    let counted = |i: i64| if i < 0 { i + size } else { i }.clamp(0, size);
    let mut single = shape.clone();
    let (start, step, count) = if slice {
        let count = *c.shape(0)?.get(axis)?;
        (counted(c.int("start").unwrap_or(0)), c.int("step").unwrap_or(1), count)
    } else {
        (counted(c.int("index")?), 1, 1)
    };
    single[axis] = count;
    let g = reshaped(c, g, &single);
    let zero = c.number_like(0.0, g)?;
    if step == 1 {
        let mut pads = vec![0; 2 * shape.len()];
        (pads[axis], pads[shape.len() + axis]) = (start, size - start - count as i64);
        let pads = c.integers(pads);
        return one(c.op("Pad", &[g, pads, zero], &[]));
    }
    let zeros = c.filled(0.0, &shape, dtype)?;
    one(written(c, zeros, g, axis, &(0..count as i64).map(|i| start + i * step).collect::<Vec<_>>()))
}

/// `source` written over rows `rows` of an axis.
fn written(c: &mut Call<'_>, x: ValueId, source: ValueId, axis: usize, rows: &[i64]) -> ValueId {
    let order = |rank: usize| {
        let mut order: Vec<i64> = (0..rank as i64).collect();
        order.swap(0, axis);
        order
    };
    let rank = c.result(0).map_or(axis + 1, |(_, shape)| shape.len());
    let places = c.integers(rows.to_vec());
    let places = reshaped(c, places, &[rows.len(), 1]);
    let (x, source) = (permuted(c, x, order(rank)), permuted(c, source, order(rank)));
    let y = c.op("ScatterND", &[x, places, source], &[]);
    permuted(c, y, order(rank))
}

/// A copy with a slice, or one place of an axis, overwritten.
fn overwritten(c: &mut Call<'_>, slice: bool) -> Results {
    let shape = c.shape(0)?.to_vec();
    let axis = usize::try_from(c.axis("dim", shape.len() as i64).unwrap_or(0)).ok()?;
    let size = *shape.get(axis)? as i64;
    let counted = |i: i64| if i < 0 { i + size } else { i }.clamp(0, size);
    let (x, source) = (c.input(0)?, c.input_as(1, c.dtype(0)?)?);
    let (start, step, count) = if slice {
        (counted(c.int("start").unwrap_or(0)), c.int("step").unwrap_or(1), *c.shape(1)?.get(axis)?)
    } else {
        (counted(c.int("index")?), 1, 1)
    };
    let mut single = shape;
    single[axis] = count;
    let source = reshaped(c, source, &single);
    one(written(c, x, source, axis, &(0..count as i64).map(|i| start + i * step).collect::<Vec<_>>()))
}

pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, n) | (n, 1) => Some(n),
            _ => None,
        })
        .collect()
}

/// A view by strides of the storage, of which a tensor holds as much as it looks at.
fn as_strided(c: &mut Call<'_>) -> Results {
    let base = c.input(0)?;
    let (strides, offset) = c.layout(0)?;
    let held: Vec<i64> = c.shape(0)?.iter().map(|&n| n as i64).collect();
    let from = places(&held, &strides, offset)?;
    let to = places(&c.ints("size")?, &c.ints("stride")?, c.int("storage_offset").unwrap_or(offset))?;
    let at: rustc_hash::FxHashMap<i64, i64> = from.iter().enumerate().map(|(i, &p)| (p, i as i64)).collect();
    let order: Option<Vec<i64>> = to.iter().map(|p| at.get(p).copied()).collect();
    let order = c.integers(order?);
    let flat = reshaped(c, base, &[from.len()]);
    let picked = c.op("Gather", &[flat, order], &[("axis", Attribute::Int(0))]);
    let (_, shape) = c.result(0)?;
    one(reshaped(c, picked, &shape))
}

/// `isotrace.view` and `isotrace.write`: a tensor looked at, or written to, through another view of its memory.
pub fn memory(c: &mut Call<'_>) -> Results {
    let base = c.input(0)?;
    let size = c.ints("size")?;
    let looked = places(&size, &c.ints("stride")?, c.int("offset")?)?;
    let base_size = c.ints("base_size")?;
    let held = places(&base_size, &c.ints("base_stride")?, c.int("base_offset")?)?;
    let at: rustc_hash::FxHashMap<i64, i64> = held.iter().enumerate().map(|(i, &p)| (p, i as i64)).collect();
    let order: Option<Vec<i64>> = looked.iter().map(|p| at.get(p).copied()).collect();
    let order: ValueId = c.integers(order?);
    let flat = reshaped(c, base, &[held.len()]);
    let (_, shape) = c.result(0)?;
    match c.operator() {
        "view" => {
            let picked = c.op("Gather", &[flat, order], &[("axis", Attribute::Int(0))]);
            one(reshaped(c, picked, &shape))
        }
        "write" => {
            let source = c.input(1)?;
            let source = reshaped(c, source, &[looked.len()]);
            let settings = [("axis", Attribute::Int(0))];
            let written = c.op("ScatterElements", &[flat, order, source], &settings);
            one(reshaped(c, written, &shape))
        }
        _ => None,
    }
}

/// Where in its storage each element of a view lies, in C order of the view.
fn places(size: &[i64], stride: &[i64], offset: i64) -> Option<Vec<i64>> {
    /// More than any tensor that fits into memory beside its places.
    const MOST: i64 = 1 << 32;
    let count = size.iter().try_fold(1i64, |n, &d| n.checked_mul(d.max(0)))?;
    if count > MOST || size.len() != stride.len() {
        return None;
    }
    let mut places = vec![offset];
    for (&n, &s) in size.iter().zip(stride) {
        let mut next = Vec::new();
        for &p in &places {
            for i in 0..n {
                next.push(p.checked_add(i.checked_mul(s)?)?);
            }
        }
        places = next;
    }
    Some(places)
}
