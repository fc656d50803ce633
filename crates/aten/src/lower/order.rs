//! What orders elements, counts them, or takes those for which something holds.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::{DType, Tensor};

use super::movement::{reshaped, sizes};
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_unique2", unique),
    ("bincount", |c| {
        let bins = *c.result(0)?.1.first()?;
        let x = c.input_as(0, DType::I64)?;
        let weights = c.input(1).is_some().then_some(1);
        counted(c, x, bins, None, weights)
    }),
    ("bucketize", |c| places(c, 0, 1)),
    ("histc", histogram),
    ("kthvalue", kth),
    ("masked_scatter", masked_scatter),
    ("masked_select", masked_select),
    ("median", median),
    ("nonzero", |c| {
        let x = c.input_as(0, DType::Bool)?;
        let found = c.typed(DType::I64, "NonZero", &[Some(x)], &[]);
        one(c.op("Transpose", &[found], &[("perm", Attribute::Ints(vec![1, 0]))]))
    }),
    ("searchsorted", |c| places(c, 1, 0)),
    ("sort", sort),
    ("take", |c| {
        let (x, places) = (c.input(0)?, c.input(1)?);
        let flat = reshaped(c, x, &[c.shape(0)?.iter().product()]);
        one(c.op("Gather", &[flat, places], &[("axis", Attribute::Int(0))]))
    }),
    ("topk", |c| {
        let (k, largest) = (c.int("k")?, c.int("largest").unwrap_or(1));
        let axis = c.axis("dim", c.rank(0)?).unwrap_or(c.rank(0)? - 1);
        let [values, places] = top(c, k, axis, largest, c.int("sorted").unwrap_or(1))?;
        Some(vec![Some(values), Some(places)])
    }),
];

/// The `k` first along an axis, largest or smallest first, with their places.
fn top(c: &mut Call<'_>, k: i64, axis: i64, largest: i64, sorted: i64) -> Option<[ValueId; 2]> {
    let (x, dtype) = (c.input(0)?, c.dtype(0)?);
    let k = c.integers(vec![k]);
    let settings = [
        ("axis", Attribute::Int(axis)),
        ("largest", Attribute::Int(largest)),
        ("sorted", Attribute::Int(sorted)),
    ];
    c.several("TopK", &[Some(x), Some(k)], &[dtype, DType::I64], &settings).try_into().ok()
}

/// All of an axis, ordered: of equal elements the first comes first, as ATen's stable order has it, which is what its
/// kernels do whether asked or not.
fn sort(c: &mut Call<'_>) -> Results {
    let rank = c.rank(0)?;
    if rank == 0 {
        return None;
    }
    let axis = c.axis("dim", rank).unwrap_or(rank - 1);
    let size = *c.shape(0)?.get(usize::try_from(axis).ok()?)? as i64;
    let [values, places] = top(c, size, axis, i64::from(c.flag("descending")), 1)?;
    Some(vec![Some(values), Some(places)])
}

/// The last of `k` smallest, with its place.
fn smallest(c: &mut Call<'_>, k: i64, axis: i64) -> Results {
    let made = top(c, k, axis, 0, 1)?;
    let last = c.scalar((k - 1) as f64, DType::I64)?;
    let mut out = Vec::new();
    for (at, v) in made.into_iter().enumerate() {
        let v = c.op("Gather", &[v, last], &[("axis", Attribute::Int(axis))]);
        let Some((_, shape)) = c.result(at) else { continue };
        out.push(Some(reshaped(c, v, &shape)));
    }
    Some(out)
}

fn kth(c: &mut Call<'_>) -> Results {
    let axis = c.axis("dim", c.rank(0)?).unwrap_or(c.rank(0)? - 1);
    smallest(c, c.int("k")?, axis)
}

/// The lower of two in the middle. Its place among equals differs between kernels, so the place is opaque.
fn median(c: &mut Call<'_>) -> Results {
    let shape = c.shape(0)?.to_vec();
    let Some(axis) = c.axis("dim", shape.len() as i64) else {
        let count: usize = shape.iter().product();
        let x = c.input(0)?;
        let flat = reshaped(c, x, &[count]);
        let k = c.integers(vec![count.div_ceil(2) as i64]);
        let settings = [("largest", Attribute::Int(0))];
        let found = c.several("TopK", &[Some(flat), Some(k)], &[c.dtype(0)?, DType::I64], &settings);
        let last = c.scalar(count.div_ceil(2).checked_sub(1)? as f64, DType::I64)?;
        return one(c.op("Gather", &[found[0], last], &[("axis", Attribute::Int(0))]));
    };
    let size = *shape.get(usize::try_from(axis).ok()?)?;
    let found = smallest(c, size.div_ceil(2) as i64, axis)?;
    Some(vec![found[0], None])
}

/// Where a value belongs among rising boundaries: as many as are less, or, from the right, no more than it.
fn places(c: &mut Call<'_>, values: usize, boundaries: usize) -> Results {
    let (given, rising) = (c.shape(values).map(<[usize]>::to_vec), c.shape(boundaries)?.to_vec());
    let dtype = c.dtype(boundaries)?;
    let right = c.flag("right") || c.text("side") == Some("right");
    // An order of the boundaries that comes beside them is not looked at.
    if c.arity() > 2 && c.input(2).is_some() {
        return None;
    }
    let x = match (&given, c.number("self")) {
        (Some(_), _) => c.input_as(values, dtype)?,
        (None, Some(x)) => c.scalar(x, dtype)?,
        _ => return None,
    };
    let given = given.unwrap_or_default();
    let x = reshaped(c, x, &[given.as_slice(), &[1]].concat());
    let mut among = c.input(boundaries)?;
    if rising.len() > 1 {
        // Each row has boundaries of its own.
        let (lead, last) = rising.split_at(rising.len() - 1);
        among = reshaped(c, among, &[lead, &[1], last].concat());
    }
    let op = if right { "LessOrEqual" } else { "Less" };
    let before = c.typed(DType::Bool, op, &[Some(among), Some(x)], &[]);
    let before = c.cast(before, DType::I64)?;
    let count = c.over("ReduceSum", before, &[-1], false);
    one(c.as_result(count, 0)?)
}

/// How many of `x` are each of `0..bins`, those left out for which `inside` does not hold; or the sum of their weights.
fn counted(
    c: &mut Call<'_>,
    x: ValueId,
    bins: usize,
    inside: Option<ValueId>,
    weights: Option<usize>,
) -> Results {
    let count: usize = c.shape(0)?.iter().product();
    let dtype = c.result(0)?.0;
    let each = c.integers((0..bins as i64).collect());
    let x = reshaped(c, x, &[count, 1]);
    let mut is = c.typed(DType::Bool, "Equal", &[Some(x), Some(each)], &[]);
    if let Some(inside) = inside {
        let inside = reshaped(c, inside, &[count, 1]);
        is = c.op("And", &[is, inside], &[]);
    }
    let mut ones = c.cast(is, if dtype.is_float() { dtype } else { DType::I64 })?;
    if let Some(at) = weights {
        let weights = c.input_as(at, dtype)?;
        let weights = reshaped(c, weights, &[count, 1]);
        ones = c.mul(ones, weights);
    }
    let sum = c.over("ReduceSum", ones, &[0], false);
    one(c.cast(sum, dtype)?)
}

/// Bins of equal width between two numbers; the last takes its right end too.
fn histogram(c: &mut Call<'_>) -> Results {
    let bins = c.int("bins").unwrap_or(100);
    let (low, high) = (c.number("min").unwrap_or(0.0), c.number("max").unwrap_or(0.0));
    if low >= high {
        return None;
    }
    let x = c.wide(0)?;
    let from = c.plus(x, -low)?;
    let place = c.times(from, bins as f64 / (high - low))?;
    let place = c.op("Floor", &[place], &[]);
    let (least, most) = (c.number_like(0.0, place)?, c.number_like((bins - 1) as f64, place)?);
    let place = c.op("Clip", &[place, least, most], &[]);
    let place = c.cast(place, DType::I64)?;
    let (low, high) = (c.number_like(low, x)?, c.number_like(high, x)?);
    let above = c.typed(DType::Bool, "GreaterOrEqual", &[Some(x), Some(low)], &[]);
    let below = c.typed(DType::Bool, "LessOrEqual", &[Some(x), Some(high)], &[]);
    let inside = c.op("And", &[above, below], &[]);
    counted(c, place, usize::try_from(bins).ok()?, Some(inside), None)
}

/// Two tensors under the shape that they have together, flat.
fn flattened(c: &mut Call<'_>) -> Option<(ValueId, ValueId, Vec<usize>)> {
    let (x, mask) = (c.input(0)?, c.input_as(1, DType::Bool)?);
    let shape = super::index::broadcast(c.shape(0)?, c.shape(1)?)?;
    let target = sizes(c, &shape);
    let count = [shape.iter().product()];
    let x = c.op("Expand", &[x, target], &[]);
    let mask = c.op("Expand", &[mask, target], &[]);
    Some((reshaped(c, x, &count), reshaped(c, mask, &count), shape))
}

fn masked_select(c: &mut Call<'_>) -> Results {
    let (x, mask, _) = flattened(c)?;
    one(c.op("Compress", &[x, mask], &[("axis", Attribute::Int(0))]))
}

/// Elements of the source, one after the other, wherever a mask holds.
fn masked_scatter(c: &mut Call<'_>) -> Results {
    let (x, mask, shape) = flattened(c)?;
    let source = c.input_as(2, c.dtype(0)?)?;
    let source = reshaped(c, source, &[c.shape(2)?.iter().product()]);
    // The place in the source of each element for which the mask holds is how many come before it.
    let ones = c.cast(mask, DType::I64)?;
    let axis = c.scalar(0.0, DType::I64)?;
    let before = c.op("CumSum", &[ones, axis], &[("exclusive", Attribute::Int(1))]);
    let none = c.scalar(0.0, DType::I64)?;
    let before = c.pick(mask, before, none);
    if c.shape(2)?.contains(&0) {
        return one(reshaped(c, x, &shape));
    }
    let taken = c.op("Gather", &[source, before], &[("axis", Attribute::Int(0))]);
    let y = c.pick(mask, taken, x);
    one(reshaped(c, y, &shape))
}

fn unique(c: &mut Call<'_>) -> Results {
    let (x, dtype) = (c.input(0)?, c.dtype(0)?);
    let types = [dtype, DType::I64, DType::I64, DType::I64];
    let made = c.several("Unique", &[Some(x)], &types, &[("sorted", Attribute::Int(1))]);
    let mut out = vec![Some(made[0]), None, None];
    // Without being asked for, these are empty.
    for (at, v) in [(1, made[2]), (2, made[3])] {
        let asked = c.result(at).filter(|(_, shape)| !shape.contains(&0));
        if let Some((_, shape)) = asked {
            out[at] = Some(reshaped(c, v, &shape));
        } else if c.result(at).is_some() {
            out[at] = Some(c.constant(Tensor::vector(Vec::<i64>::new())));
        }
    }
    Some(out)
}
