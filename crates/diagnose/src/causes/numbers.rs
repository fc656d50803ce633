//! What the numbers of two constants say of one another: how one was made of the other, or where the two part.
//!
//! `own` is what B holds, `right` what A holds at this place, of one length unless a function says otherwise.

use isotrace_align::Region;
use isotrace_graph::{NodeId, ValueId};
use isotrace_tensor::{DType, Tensor};

use crate::pool;
use crate::role;
use crate::site::Site;

/// A function of one number.
type Curve = fn(f64) -> f64;

/// Functions that a stored parameter may have gone through, or not.
const CURVES: [(&str, Curve); 6] = [
    ("exp(x)", f64::exp),
    ("exp(-x)", |x| (-x).exp()),
    ("-exp(x)", |x| -x.exp()),
    ("sigmoid(x)", |x| 1.0 / (1.0 + (-x).exp())),
    ("tanh(x)", f64::tanh),
    ("log(1 + exp(x))", |x| x.exp().ln_1p()),
];

/// What it is called that a node reads x where y is right. Where nothing is right, a number is an epsilon only if it is as
/// small as one, or stands where one does; else it is a sum that A does not have.
pub(super) fn of_number(
    site: &Site<'_, '_, '_>,
    n: NodeId,
    general: &'static str,
    (x, y): (f64, f64),
) -> &'static str {
    if general == "epsilon" && x.abs() > role::EPSILON && !role::guards(site.judge.b, n) {
        return "bias";
    }
    of_factor(site, n, general, x / y)
}

/// A factor of which both sides have one, before or after a non-linearity, is part of it; unless it is nearly right.
fn of_factor(site: &Site<'_, '_, '_>, n: NodeId, general: &'static str, ratio: f64) -> &'static str {
    let b = site.judge.b;
    let part = general == "scale" && (role::is_beside_activation(b, n) || role::is_in_curve(b, n));
    if part && !role::is_nearly_right(ratio) { "activation" } else { general }
}

/// Whether what is divided by is A's with another small number added to all of it: an epsilon that is folded in.
pub(super) fn is_guarded(
    site: &Site<'_, '_, '_>,
    (n, slot): (NodeId, usize),
    own: &Tensor,
    right: &Tensor,
) -> bool {
    let by = || shifted(own, right).filter(|by| *by != 0.0 && by.abs() <= role::EPSILON);
    site.node_b(n).op == "Div" && slot == 1 && own.len() > 1 && by().is_some()
}

/// Where one of two constants is a curve of the other, element by element: which. Numbers that hardly vary are near too
/// many curves.
pub(super) fn curve(own: &Tensor, right: &Tensor) -> Option<String> {
    let (x, y) = (own.to_f64().ok()?, right.to_f64().ok()?);
    let range = |t: &[f64]| {
        let (low, high) =
            t.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
        high - low
    };
    let leads = |f: Curve, from: &[f64], to: &[f64]| {
        let near = |(x, y): (&f64, &f64)| (f(*x) - y).abs() <= 1e-5 * y.abs().max(1e-3);
        range(to) > 1e-2 && from.iter().zip(to).all(near)
    };
    if x.len() < 8 || x.len() != y.len() {
        return None;
    }
    CURVES.iter().find_map(|&(name, f)| {
        if leads(f, &y, &x) {
            Some(format!("{name} of"))
        } else if leads(f, &x, &y) {
            Some(format!("what lacks {name} to be"))
        } else {
            None
        }
    })
}

/// Whether two tensors differ by nothing but one number, so large that a softmax leaves nothing beside it, at some places.
pub(super) fn hides(own: &Tensor, right: &Tensor) -> bool {
    const LEAST: f64 = 20.0;
    let (Ok(x), Ok(y)) = (own.to_f64(), right.to_f64()) else { return false };
    let apart = || x.iter().zip(y.iter()).map(|(x, y)| (x - y).abs());
    let by = apart().fold(0.0, f64::max);
    let (all, moved) = (x.len(), apart().filter(|d| *d > 1e-3).count());
    // Beside what hides, what is shown on either side is small.
    let either = x.iter().zip(y.iter()).map(|(x, y)| x.max(*y));
    let shown = either.filter(|v| *v > -by / 2.0).fold(0f64, |m, v| m.max(v.abs()));
    x.len() == y.len()
        && by > LEAST.max(shown)
        && moved < all
        && apart().all(|d| d <= 1e-3 || (d - by).abs() <= 1e-3 * by)
}

/// Whether what differs between two tensors are the same numbers at other places. Folding on one side rounds them once
/// more.
pub(super) fn same_multiset(x: &Tensor, y: &Tensor) -> bool {
    let (Ok(x), Ok(y)) = (x.to_f64(), y.to_f64()) else { return false };
    if x.len() != y.len() {
        return false;
    }
    let within = 1e-6 * y.iter().fold(0f64, |m, v| m.max(v.abs()));
    let near = |x: f64, y: f64| x == y || (x - y).abs() <= within;
    let (mut x, mut y): (Vec<f64>, Vec<f64>) =
        x.iter().zip(y.iter()).filter(|(x, y)| !near(**x, **y)).map(|(x, y)| (*x, *y)).unzip();
    x.sort_unstable_by(f64::total_cmp);
    y.sort_unstable_by(f64::total_cmp);
    !x.is_empty() && x.iter().zip(&y).all(|(x, y)| near(*x, *y))
}

/// How many elements of a row of `len` may share a step where weights are quantised block by block, widest first: what
/// divides the row, and powers of two, of which the last block of a row is a shorter one.
fn blocks(len: usize) -> impl Iterator<Item = usize> {
    (FEW..=len).rev().filter(move |size| len.is_multiple_of(*size) || size.is_power_of_two())
}

/// The largest number of steps that eight bits count from their zero on.
const STEPS: i32 = 255;

/// Along which axis and in blocks of how many elements `own` lies on a grid of a few levels, each block on its own, and
/// `right` does not: numbers put there with a step for each block, right or not.
pub(super) fn on_grids_of_blocks(own: &Tensor, right: &Tensor) -> Option<(usize, usize)> {
    let [rows, columns] = *own.shape() else { return None };
    let (x, y) = (own.to_f64().ok()?, right.to_f64().ok()?);
    if x.len() != y.len() || x.len() < 64 {
        return None;
    }
    let on_grid = |block: &mut dyn Iterator<Item = f64>| {
        let numbers: Vec<f64> = block.collect();
        let largest = numbers.iter().fold(0f64, |m, x| m.max(x.abs()));
        let whole = |steps: i32| {
            let step = largest / f64::from(steps);
            numbers.iter().all(|x| (x / step - (x / step).round()).abs() < 1e-3)
        };
        largest == 0.0 || (1..=STEPS).any(whole)
    };
    let all = |of: &[f64], axis: usize, size: usize| {
        let (along, across) = if axis == 0 { (rows, columns) } else { (columns, rows) };
        let at = |i: usize, j: usize| if axis == 0 { of[i * columns + j] } else { of[j * columns + i] };
        let block = |b: usize, j: usize| on_grid(&mut (b..along.min(b + size)).map(|i| at(i, j)));
        (0..across).all(|j| (0..along).step_by(size).all(|b| block(b, j)))
    };
    // The widest that fits: a part of a block lies on its grid as well.
    let sizes =
        |axis: usize, len: usize| blocks(len).filter(move |&size| size < len).map(move |size| (axis, size));
    sizes(0, rows).chain(sizes(1, columns)).find(|&(axis, size)| all(&x, axis, size) && !all(&y, axis, size))
}

/// Whether a table added as a constant holds nothing but rows of A's, not all where A has them: read at other places.
pub(super) fn rows_elsewhere(own: &Tensor, right: &Tensor) -> bool {
    let [.., rows, width] = *right.shape() else { return false };
    let (Ok(x), Ok(y)) = (own.to_f64(), right.to_f64()) else { return false };
    if own.shape() != right.shape() || rows < 4 || width < 4 || x.len() != rows * width {
        return false;
    }
    let key = |row: &[f64]| row.iter().map(|x| x.to_bits()).collect::<Vec<u64>>();
    let known: std::collections::BTreeSet<Vec<u64>> = y.chunks(width).map(key).collect();
    let kept = x.chunks(width).zip(y.chunks(width)).filter(|(x, y)| x == y).count();
    let distinct: std::collections::BTreeSet<Vec<u64>> = x.chunks(width).map(key).collect();
    known.len() > 2 && kept < rows && distinct.len() > 1 && distinct.is_subset(&known)
}

/// Whether two weights differ by one factor for each channel, nearly all of them different: what is left of a norm once
/// it is folded into the product before or behind it.
pub(super) fn by_channel(own: &Tensor, right: &Tensor) -> bool {
    factors_along(own, right).is_some()
}

/// The axis, the first or the second, along which two weights differ so.
pub(super) fn factors_along(own: &Tensor, right: &Tensor) -> Option<usize> {
    let (x, y) = (own.to_f64().ok()?, right.to_f64().ok()?);
    let [first, _, ..] = *right.shape() else { return None };
    if own.shape() != right.shape() {
        return None;
    }
    let largest = y.iter().fold(0f64, |m, v| m.max(v.abs()));
    let along = |channels: usize, channel: &dyn Fn(usize) -> usize| {
        let mut factors: Vec<Option<f64>> = vec![None; channels];
        for (i, (x, y)) in x.iter().zip(y.iter()).enumerate() {
            if y.abs() <= 1e-3 * largest {
                continue;
            }
            let factor = factors[channel(i)].get_or_insert(x / y);
            // What is all nought was made of nothing in particular.
            if *x == 0.0 || (x / y - *factor).abs() > 1e-4 * factor.abs() {
                return false;
            }
        }
        let mut told: Vec<f64> = factors.into_iter().flatten().collect();
        let moved = told.iter().filter(|f| (**f - 1.0).abs() > 1e-5).count();
        told.sort_unstable_by(f64::total_cmp);
        told.dedup_by(|p, q| (*p - *q).abs() <= 1e-4 * q.abs());
        channels >= 4 && 4 * moved >= 3 * channels && 2 * told.len() >= channels
    };
    let inner = x.len() / first.max(1);
    // Outputs of a convolution are its weight's first axis, those of one that is turned around the second, those of a
    // matrix either.
    let second = right.shape()[1];
    let within = inner / second.max(1);
    if first < 2 || second * within < 2 {
        return None;
    }
    let axes: [&dyn Fn() -> bool; 2] =
        [&|| along(first, &|i| i / inner), &|| along(second, &|i| i / within % second)];
    axes.iter().position(|along| along())
}

/// In which rows and columns two tensors of one shape differ, and by what factor.
pub(super) fn where_differs(own: &Tensor, right: &Tensor) -> String {
    let (Ok(x), Ok(y)) = (own.to_f64(), right.to_f64()) else { return String::new() };
    if own.shape() != right.shape() {
        return format!("(shape {:?} against {:?})", own.shape(), right.shape());
    }
    let width = own.shape().last().copied().unwrap_or(1).max(1);
    let places: Vec<usize> = (0..x.len()).filter(|&i| x[i] != y[i]).collect();
    let distinct =
        |f: &dyn Fn(usize) -> usize| places.iter().map(|&i| f(i)).collect::<std::collections::BTreeSet<_>>();
    let (rows, columns) = (distinct(&|i| i / width), distinct(&|i| i % width));
    let mut text = format!("in {} of {} elements", places.len(), x.len());
    if rows.len() <= 3 {
        text += &format!(", rows {rows:?}");
    }
    if columns.len() <= 3 {
        text += &format!(", columns {columns:?}");
    }
    if x.iter().all(|v| *v == 0.0) {
        return text + ": all of it is zero";
    }
    let factors: Vec<f64> = places.iter().map(|&i| x[i] / y[i]).collect();
    if let Some(&first) = factors.first()
        && factors.iter().all(|f| (f - first).abs() <= 1e-5 * first.abs())
    {
        text += &format!(", all by a factor of {first:.6}");
    }
    text
}

/// By how many rows a table is shifted, if it is.
pub(super) fn shift(own: &Tensor, right: &Tensor) -> String {
    let rows = right.shape().first().copied().unwrap_or(0);
    let (Ok(x), Ok(y)) = (own.to_f64(), right.to_f64()) else { return String::new() };
    let width = y.len().checked_div(rows).unwrap_or(0);
    let by = (1..rows.min(64)).find(|k| {
        (0..rows).all(|r| {
            let from = (r + k) % rows;
            x[from * width..(from + 1) * width] == y[r * width..(r + 1) * width]
        })
    });
    by.map_or(String::new(), |k| format!(", {k} further on"))
}

/// The narrow type whose rounding of `right` is `own`, element by element.
pub(super) fn rounded(own: &Tensor, right: &Tensor) -> Option<DType> {
    let narrow = [DType::F16, DType::BF16, DType::F8E4M3FN, DType::F8E5M2];
    narrow
        .into_iter()
        .find(|&d| right.cast(d).and_then(|t| t.cast(own.dtype())).is_ok_and(|t| pool::same_numbers(&t, own)))
}

/// The axis and the size of blocks, each of which is `right` stretched and shifted by two numbers of its own: another
/// step or another zero for each. What is the same all along the axis is no block; with a shift it is a zero for each row.
pub(super) fn stretched_in_blocks(own: &Tensor, right: &Tensor) -> Option<(usize, usize)> {
    let &[rows, columns] = right.shape() else { return None };
    let (x, y) = (own.to_f64().ok()?, right.to_f64().ok()?);
    let largest = y.iter().fold(0f64, |m, v| m.max(v.abs()));
    if own.shape() != right.shape() {
        return None;
    }
    let of_block = |at: &dyn Fn(usize) -> usize, range: std::ops::Range<usize>| {
        let by = |i: &usize, j: &usize| y[at(*i)].total_cmp(&y[at(*j)]);
        let (low, high) = (at(range.clone().min_by(by)?), at(range.clone().max_by(by)?));
        let stretch = (x[high] - x[low]) / (y[high] - y[low]);
        let shift = x[low] - stretch * y[low];
        let fits = |i: usize| (x[at(i)] - stretch * y[at(i)] - shift).abs() <= 2e-6 * largest;
        (stretch > 0.0 && range.into_iter().all(fits)).then_some((stretch, shift))
    };
    let moved = |&(stretch, shift): &(f64, f64)| (stretch - 1.0).abs() > 1e-5 || shift.abs() > 1e-5 * largest;
    let same = |x: &(f64, f64), y: &(f64, f64)| {
        (x.0 - y.0).abs() <= 1e-4 * y.0 && (x.1 - y.1).abs() <= 1e-4 * largest
    };
    [(1, rows, columns), (0, columns, rows)].into_iter().find_map(|(axis, lines, len)| {
        blocks(len).find_map(|size| {
            let mut found = Vec::new();
            for line in 0..lines {
                let at = |i: usize| if axis == 1 { line * columns + i } else { i * columns + line };
                for block in (0..len).step_by(size) {
                    found.push(of_block(&at, block..len.min(block + size))?);
                }
            }
            let several =
                found.chunks(len.div_ceil(size)).any(|line| line.iter().any(|b| !same(b, &line[0])));
            let shifted = found.iter().filter(|b| b.1.abs() > 1e-4 * largest).count();
            // One shift for all of it is none of its blocks'.
            let of_rows = || 2 * shifted > found.len() && found.iter().any(|b| !same(b, &found[0]));
            let differs = if size == len { of_rows() } else { several };
            (differs && 2 * found.iter().filter(|b| moved(b)).count() > found.len()).then_some((axis, size))
        })
    })
}

/// The narrower type through which nodes of B bring a constant that they compute, where it is the other side's but for
/// what rounding to that type leaves.
pub(super) fn narrowed(site: &Site<'_, '_, '_>, v: ValueId, own: &Tensor, right: &Tensor) -> Option<DType> {
    const MOST: usize = 40;
    let b = site.judge.b;
    b.producer(v)?;
    let behind = Region::behind(b, &[v], |_| false, MOST);
    let written = behind.nodes.iter().flat_map(|&n| site.node_b(n).writes());
    let types = written.chain(behind.constants.iter().copied()).filter_map(|v| b.declared.dtype(v));
    let narrow = types.into_iter().find(|d| matches!(d, DType::F16 | DType::BF16))?;
    let (x, y) = (own.to_f64().ok()?, right.to_f64().ok()?);
    let largest = y.iter().fold(0f64, |m, v| m.max(v.abs()));
    let apart = x.iter().zip(y.iter()).fold(0f64, |m, (x, y)| m.max((x - y).abs()));
    let near = apart <= FEW_STEPS * narrow.unit_roundoff()? * largest;
    (near && x.len() == y.len() && b.declared.dtype(v)? != narrow).then_some(narrow)
}

/// Roundings that may come together in one number.
const FEW_STEPS: f64 = 8.0;

/// The bits of mantissa that are left of `right` in `own`, where fewer than a float has are (TF32 keeps 10).
pub(super) fn shortened(own: &Tensor, right: &Tensor) -> Option<u32> {
    let (x, y) = (own.to_f64().ok()?, right.to_f64().ok()?);
    let used = |t: &[f64]| {
        t.iter()
            .filter(|v| **v != 0.0 && v.is_finite())
            .map(|v| 52 - (v.to_bits() & ((1 << 52) - 1) | 1 << 52).trailing_zeros())
            .max()
    };
    let (left, before) = (used(&x)?, used(&y)?);
    let near = |(x, y): (&f64, &f64)| (x - y).abs() <= y.abs() * f64::powi(2.0, -(left as i32));
    (x.len() >= 16 && (3..20).contains(&left) && before > left + 2 && x.iter().zip(y.iter()).all(near))
        .then_some(left)
}

/// Whether `own` lies near `right`, but for what was cut off, and, as a whole or in each row or column, on at most 256
/// evenly spaced levels.
pub(super) fn on_a_coarse_grid(own: &Tensor, right: &Tensor) -> bool {
    let (Ok(x), Ok(y)) = (own.to_f64(), right.to_f64()) else { return false };
    let largest = y.iter().fold(0f64, |m, v| m.max(v.abs()));
    // What lies beyond the last level is brought to it.
    let (low, high) = x.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let saturated = |x: f64, y: f64| x == low && y < x || x == high && y > x;
    // A step that is not the one by which it was brought there leaves the sign and not much more.
    let stepped = |x: f64, y: f64| x * y > 0.0 && (0.2..5.0).contains(&(x / y));
    let width = own.shape().last().copied().unwrap_or(1).max(1);
    if x.len() != y.len() || x.len() < 2 * FEW || shifted(own, right).is_some() {
        return false;
    }
    let far = |moved: &dyn Fn(usize) -> f64| {
        let apart = |i: usize| (x[i] - y[i] - moved(i)).abs();
        (0..x.len()).any(|i| apart(i) > largest / 8.0 && !saturated(x[i], y[i]) && !stepped(x[i], y[i]))
    };
    // A zero of its own moves all of a row, and rounding to its step something of each number besides.
    let far_but_moved = |moved: &dyn Fn(usize) -> f64| {
        let rounded = |i: &usize| (x[*i] - y[*i] - moved(*i)).abs() > 1e-4 * largest;
        far(moved) || 2 * (0..x.len()).filter(rounded).count() < x.len()
    };
    let middle = |mut apart: Vec<f64>| {
        apart.sort_unstable_by(f64::total_cmp);
        apart[apart.len() / 2]
    };
    let apart = |i: usize| x[i] - y[i];
    let along = |j: usize| middle((j * width..(j + 1) * width).map(apart).collect());
    let down = |j: usize| middle((j..x.len()).step_by(width).map(apart).collect());
    if far(&|_| 0.0) {
        let rows_apart: Vec<f64> = (0..x.len() / width).map(along).collect();
        let columns_apart: Vec<f64> = (0..width).map(down).collect();
        if far_but_moved(&|i| rows_apart[i / width]) && far_but_moved(&|i| columns_apart[i % width]) {
            return false;
        }
    }
    // What was on such a grid before is not known to have been put there.
    let news = |grid: &dyn Fn(&[f64]) -> bool| grid(&x) && !grid(&y);
    if x.len() < 64 {
        return news(&|t| counted(std::iter::once(t.to_vec()), t.len()));
    }
    let rows = || x.chunks(width).all(evenly_spaced);
    let columns =
        || (0..width).all(|j| evenly_spaced(&x.iter().skip(j).step_by(width).copied().collect::<Vec<_>>()));
    let few = |t: &[f64]| counted(t.chunks(width).map(<[f64]>::to_vec), width);
    let across = |t: &[f64]| {
        let column = |j: usize| t.iter().skip(j).step_by(width).copied().collect::<Vec<_>>();
        counted((0..width).map(column), t.len() / width)
    };
    news(&|t| evenly_spaced(t))
        || width >= 16 && rows()
        || x.len() / width >= 16 && columns()
        || news(&few)
        || news(&across)
}

/// The one number that `own` has more than `right` everywhere.
pub(super) fn shifted(own: &Tensor, right: &Tensor) -> Option<f64> {
    let (x, y) = (own.to_f64().ok()?, right.to_f64().ok()?);
    let by = x.first()? - y.first()?;
    let near = |(x, y): (&f64, &f64)| (x - y - by).abs() <= 1e-6 * by.abs().max(y.abs());
    let varied = y.iter().any(|v| *v != y[0]);
    (by != 0.0 && varied && x.len() == y.len() && x.iter().zip(y.iter()).all(near)).then_some(by)
}

/// Whether a tensor holds whole numbers that are counted up by one, in whatever pattern they are repeated.
pub(super) fn counts(t: &Tensor) -> bool {
    let Ok(x) = t.to_f64() else { return false };
    let mut numbers = x.into_owned();
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.dedup();
    numbers.len() > 3
        && numbers.iter().all(|v| v.fract() == 0.0)
        && numbers.windows(2).all(|w| w[1] - w[0] == 1.0)
}

/// Numbers of one step below which they say nothing of it.
const FEW: usize = 6;

/// Whether numbers lie on the steps that eight bits or fewer count, from nought or from the least of them: rows of `size`
/// that are too short to tell a step by their gaps tell it together.
fn counted(rows: impl Iterator<Item = Vec<f64>>, size: usize) -> bool {
    let mut told = 0;
    for mut row in rows {
        let on = |low: f64, range: f64, steps: i32| {
            let step = range / f64::from(steps);
            row.iter().all(|v| ((v - low) / step - ((v - low) / step).round()).abs() < 0.01)
        };
        let (low, high) =
            row.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
        let (range, largest) = (high - low, high.max(-low));
        let bits = || (1..16).chain([31, 63, 127, 255]);
        if size < FEW
            || range > 0.0 && !bits().any(|n| on(low, range, n)) && !(1..256).any(|n| on(0.0, largest, n))
        {
            return false;
        }
        row.sort_unstable_by(f64::total_cmp);
        row.dedup_by(|p, q| (*p - *q).abs() <= 1e-6 * range);
        told += row.len().saturating_sub(2);
    }
    told >= FEW
}

/// Whether each row or column of a matrix, or all of it, is A's signs times one number.
pub(super) fn signs_alone(own: &Tensor, right: &Tensor) -> bool {
    let (Ok(x), Ok(y)) = (own.to_f64(), right.to_f64()) else { return false };
    let [rows, columns] = *own.shape() else { return false };
    let one = |at: &dyn Fn(usize) -> usize, len: usize| {
        let first = x[at(0)].abs();
        (1..len).all(|i| (x[at(i)].abs() - first).abs() <= 1e-6 * first)
    };
    let signs = || x.iter().zip(y.iter()).all(|(x, y)| x * y >= 0.0);
    x.len() == y.len()
        && rows.min(columns) >= FEW
        && x[0] != 0.0
        && signs()
        && ((0..rows).all(|r| one(&|i| r * columns + i, columns))
            || (0..columns).all(|c| one(&|i| i * columns + c, rows)))
}

/// The levels that all elements of `own` lie on, evenly spaced or not, once each block is brought to its largest element:
/// the code book of a few bits, where `right`, near by, is not on one.
pub(super) fn on_few_levels(own: &Tensor, right: &Tensor) -> Option<usize> {
    let (x, y) = (own.to_f64().ok()?, right.to_f64().ok()?);
    let (first, len) = (*own.shape().first()?, x.len());
    let largest = y.iter().fold(0f64, |m, v| m.max(v.abs()));
    let near =
        |(x, y): (&f64, &f64)| (x - y).abs() <= largest / 8.0 || x * y > 0.0 && (0.5..2.0).contains(&(x / y));
    if own.rank() < 2 || len < 64 || len != y.len() || !x.iter().zip(y.iter()).all(near) {
        return None;
    }
    let inner = len / first;
    let turned = |t: &[f64]| (0..len).map(|i| t[i % first * inner + i / first]).collect::<Vec<f64>>();
    let most = (len / 4).min(MOST_LEVELS);
    let levels = |t: &[f64], size: usize| {
        let mut brought = t.chunks(size).flat_map(|block| {
            let largest = block.iter().fold(0f64, |m, v| m.max(v.abs())).max(f64::MIN_POSITIVE);
            block.iter().map(move |v| (v / largest * 1e4).round() as i64)
        });
        let mut found = std::collections::BTreeSet::new();
        let few = brought.all(|level| {
            found.insert(level);
            found.len() <= most
        });
        few.then_some(found.len())
    };
    let (across, theirs) = (turned(&x), turned(&y));
    let sizes = |width: usize| blocks(width).filter(move |size| width.is_multiple_of(*size)).chain([len]);
    let news =
        |own: &[f64], right: &[f64], size: usize| levels(own, size).filter(|_| levels(right, size).is_none());
    let along = sizes(inner).find_map(|size| news(&x, &y, size));
    along.or_else(|| sizes(first).find_map(|size| news(&across, &theirs, size)))
}

/// Levels that four bits tell apart, with either sign and a few that rounding of a step adds.
const MOST_LEVELS: usize = 40;

/// Whether numbers are whole multiples of a step that is at least a 256th of their range, and more where they are few.
///
/// The step is the one that the numbers themselves suggest: from the smallest gap between two of them, refined on
/// ever larger gaps, so that neither rounding of the numbers nor levels that none of them takes mislead.
fn evenly_spaced(x: &[f64]) -> bool {
    let mut levels = x.to_vec();
    levels.sort_unstable_by(f64::total_cmp);
    let (Some(&low), Some(&high)) = (levels.first(), levels.last()) else { return false };
    let range = high - low;
    levels.dedup_by(|p, q| (*p - *q).abs() <= 1e-6 * range);
    if range <= 0.0 || levels.len() < 3 || levels.len() > 256 {
        return false;
    }
    let gap = levels.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
    // Numbers that happen to lie so are few against the levels they could take.
    let most = if x.len() < MANY { x.len() as f64 / 2.0 } else { 256.0 };
    let fits = |mut step: f64| {
        for l in &levels[1..] {
            let steps = ((l - low) / step).round();
            if ((l - low) / step - steps).abs() > 0.1 {
                return false;
            }
            step = (l - low) / steps;
        }
        let on = |l: &f64| ((l - low) / step - ((l - low) / step).round()).abs() < 0.01;
        (range / step).round() <= most && levels.iter().all(on)
    };
    // Of few numbers no two need be neighbours.
    [1.0, 2.0, 3.0].into_iter().any(|steps| fits(gap / steps))
}

/// Numbers that do not lie on a grid of 256 levels by chance.
const MANY: usize = 32;

/// By how many rows `own` is `right` moved along the last axis but one (what runs over the end aside).
pub(super) fn moved_rows(own: &Tensor, right: &Tensor) -> Option<i64> {
    let [.., rows, width] = *right.shape() else { return None };
    if own.shape() != right.shape() || rows < 4 {
        return None;
    }
    let (x, y) = (own.to_f64().ok()?, right.to_f64().ok()?);
    let row = |t: &[f64], i: usize| t[i * width..(i + 1) * width].to_vec();
    [1i64, -1, 2, -2].into_iter().find(|&by| {
        let within = (0..rows).filter(|&r| usize::try_from(r as i64 + by).is_ok_and(|q| q < rows));
        within.clone().count() > 2 && within.clone().all(|r| row(&x, r) == row(&y, (r as i64 + by) as usize))
    })
}
