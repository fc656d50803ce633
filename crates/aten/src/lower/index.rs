//! Indexing by tensors, and views that no operator made.

use isotrace_graph::{Attribute, ValueId};
use isotrace_tensor::DType;

use super::movement::reshaped;
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("embedding", |c| gather(c, 0, 1, 0)),
    ("gather", gather_elements),
    ("index", index),
    ("index_select", |c| {
        let axis = c.axis("dim", c.rank(0)?)?;
        gather(c, 0, 1, axis)
    }),
    ("scatter", scatter),
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
    let (x, places, source) = (c.input(0)?, c.input(1)?, c.input(2)?);
    one(c.op("ScatterElements", &[x, places, source], &[("axis", Attribute::Int(axis))]))
}

/// By one tensor along one axis, or by tensors along the first axes.
fn index(c: &mut Call<'_>) -> Results {
    let x = c.input(0)?;
    let given: Vec<usize> = (1..c.arity()).filter(|&at| c.input(at).is_some()).collect();
    let whole = given.iter().all(|&at| c.dtype(at).is_some_and(|d| d.is_int()));
    if !whole {
        return None;
    }
    if let [only] = given[..] {
        return gather(c, 0, only, only as i64 - 1);
    }
    if given.iter().enumerate().any(|(i, &at)| at != i + 1) {
        return None;
    }
    // Tensors are broadcast to one shape and put side by side: one row is one place.
    let shape = given.iter().try_fold(Vec::new(), |shape, &at| broadcast(&shape, c.shape(at)?))?;
    let target = c.integers(shape.iter().map(|&n| n as i64).collect());
    let mut single = shape.clone();
    single.push(1);
    let mut columns = Vec::new();
    for at in given {
        let v = c.input_as(at, DType::I64)?;
        let v = c.op("Expand", &[v, target], &[]);
        columns.push(Some(reshaped(c, v, &single)));
    }
    let places = c.typed(DType::I64, "Concat", &columns, &[("axis", Attribute::Int(-1))]);
    one(c.op("GatherND", &[x, places], &[]))
}

fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
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
