//! Distances between the rows of two tensors.

use isotrace_graph::{Attribute, ValueId};

use super::movement::reshaped;
use super::{Results, Rule, one};
use crate::call::Call;

pub const RULES: &[(&str, Rule)] = &[
    ("_cdist_forward", |c| {
        let (rows, others) = (c.shape(0)?.to_vec(), c.shape(1)?.to_vec());
        let (x, y) = (c.wide(0)?, c.wide(1)?);
        let (&[n, width], lead) = (rows.last_chunk::<2>()?, &rows[..rows.len() - 2]);
        let x = reshaped(c, x, &[lead, &[n, 1, width]].concat());
        let (&[m, width], lead) = (others.last_chunk::<2>()?, &others[..others.len() - 2]);
        let y = reshaped(c, y, &[lead, &[1, m, width]].concat());
        apart(c, x, y)
    }),
    ("_euclidean_dist", euclidean),
    ("_pdist_forward", |c| {
        let &[n, _] = c.shape(0)? else { return None };
        let x = c.wide(0)?;
        let pairs: Vec<(i64, i64)> =
            (0..n as i64).flat_map(|i| (i + 1..n as i64).map(move |j| (i, j))).collect();
        let (first, second) = pairs.into_iter().unzip();
        let [first, second] = [first, second].map(|places: Vec<i64>| {
            let places = c.integers(places);
            c.op("Gather", &[x, places], &[("axis", Attribute::Int(0))])
        });
        apart(c, first, second)
    }),
];

/// The norm of order p of the differences, along the last axis.
fn apart(c: &mut Call<'_>, x: ValueId, y: ValueId) -> Results {
    let p = c.number("p").unwrap_or(2.0);
    let difference = c.sub(x, y);
    let distance = if p == 2.0 {
        c.over("ReduceL2", difference, &[-1], false)
    } else if p == 1.0 {
        c.over("ReduceL1", difference, &[-1], false)
    } else {
        let size = c.op("Abs", &[difference], &[]);
        if p == f64::INFINITY {
            c.over("ReduceMax", size, &[-1], false)
        } else if p > 0.0 {
            let order = c.number_like(p, size)?;
            let power = c.op("Pow", &[size, order], &[]);
            let sum = c.over("ReduceSum", power, &[-1], false);
            let order = c.number_like(1.0 / p, sum)?;
            c.op("Pow", &[sum, order], &[])
        } else {
            return None;
        }
    };
    one(c.as_result(distance, 0)?)
}

/// sqrt(|x|^2 - 2 x y + |y|^2) as one product of rows made longer, which is how ATen has it: what cancels is part of what
/// was recorded.
fn euclidean(c: &mut Call<'_>) -> Results {
    let rank = c.rank(0)?;
    let (x, y) = (c.wide(0)?, c.wide(1)?);
    let squares = |c: &mut Call<'_>, v: ValueId| {
        let square = c.mul(v, v);
        c.over("ReduceSum", square, &[-1], true)
    };
    let (of_x, of_y) = (squares(c, x), squares(c, y));
    let double = c.times(x, -2.0)?;
    let mut order: Vec<i64> = (0..rank).collect();
    order.swap(usize::try_from(rank - 2).ok()?, usize::try_from(rank - 1).ok()?);
    let turn =
        |c: &mut Call<'_>, v: ValueId| c.op("Transpose", &[v], &[("perm", Attribute::Ints(order.clone()))]);
    let (ones_x, ones_y) = (ones_like(c, of_x)?, ones_like(c, of_y)?);
    let left = c.op("Concat", &[double, of_x, ones_x], &[("axis", Attribute::Int(-1))]);
    let right = c.op("Concat", &[y, ones_y, of_y], &[("axis", Attribute::Int(-1))]);
    let right = turn(c, right);
    let squared = c.matmul(left, right);
    let least = c.number_like(0.0, squared)?;
    let squared = c.op("Max", &[squared, least], &[]);
    let distance = c.op("Sqrt", &[squared], &[]);
    one(c.as_result(distance, 0)?)
}

/// A one for each element.
fn ones_like(c: &mut Call<'_>, v: ValueId) -> Option<ValueId> {
    let nothing = c.times(v, 0.0)?;
    c.plus(nothing, 1.0)
}
