//! Which values of two sides are the same one.

use isotrace_report::Role;
use isotrace_tensor::Tensor;
use rustc_hash::FxHashSet;

use super::view::{Seen, View};

/// Farther apart than this, two values are not the same one with a fault. Different values of one run come as near to
/// each other as 3 %; the nearest is taken.
const FAR: f64 = 0.05;
/// Elements by which values that cannot be the same are told apart.
const SAMPLE: usize = 64;

/// |a - b| / |a|.
pub fn relative(a: &Tensor, b: &Tensor) -> Option<f64> {
    let (x, y) = (a.to_f64().ok()?, b.to_f64().ok()?);
    if x.len() != y.len() {
        return None;
    }
    let (mut apart, mut size) = (0.0, 0.0);
    for (x, y) in x.iter().zip(y.iter()) {
        apart += if x.to_bits() == y.to_bits() { 0.0 } else { (x - y) * (x - y) };
        size += x * x;
    }
    let share = (apart / size).sqrt();
    if apart == 0.0 { Some(0.0) } else { Some(if share.is_nan() { f64::INFINITY } else { share }) }
}

/// Whether two values could be held against each other.
fn fits(x: &Seen, y: &Seen) -> bool {
    x.len() == y.len() && x.dtype.is_float() == y.dtype.is_float()
}

/// Values that both sides call the same and that cannot be held against each other: their roles, and why.
pub fn unlike(a: &View, b: &View) -> Vec<(Option<Role>, String)> {
    let names = b.names();
    let mut found: Vec<_> = a
        .names()
        .into_iter()
        .filter_map(|(name, i)| Some((i, name.0, &b.values[*names.get(&name)?])))
        .filter(|(i, _, y)| {
            let x = &a.values[*i];
            (x.role.is_some() || a.modules && b.modules) && !fits(x, y)
        })
        .collect();
    found.sort_unstable_by_key(|(i, ..)| *i);
    let told = |(i, name, y): (usize, &str, &Seen)| {
        let x = &a.values[i];
        let text = if x.len() == y.len() {
            format!("{name} is {} in A and {} in B", x.dtype, y.dtype)
        } else {
            format!("{name} has shape {:?} in A and {:?} in B", x.shape, y.shape)
        };
        (x.role.or(y.role), text)
    };
    found.into_iter().map(told).collect()
}

/// Pairs as places in A and in B.
pub fn pairs(a: &View, b: &View) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let (mut taken_a, mut taken_b) = (FxHashSet::default(), FxHashSet::default());
    let mut take = |i: usize, j: usize, found: &mut Vec<_>| {
        if !taken_a.contains(&i) && !taken_b.contains(&j) {
            taken_a.insert(i);
            taken_b.insert(j);
            found.push((i, j));
        }
    };
    // Graphs call their values as they like; only recordings share the names of modules.
    let names = b.names();
    for (name, i) in a.names() {
        let border = a.values[i].role.is_some();
        if let Some(&j) = names.get(&name)
            && (border || a.modules && b.modules)
            && fits(&a.values[i], &b.values[j])
        {
            take(i, j, &mut found);
        }
    }
    for (i, j) in a.outputs.iter().zip(&b.outputs).filter_map(|(i, j)| Some(((*i)?, (*j)?))) {
        if fits(&a.values[i], &b.values[j]) {
            take(i, j, &mut found);
        }
    }
    let sample = |value: &Seen| -> Option<Vec<f64>> {
        let values =
            value.elements.as_ref().filter(|t| t.dtype().is_float() && t.len() > 1)?.to_f64().ok()?;
        let step = (values.len() / SAMPLE).max(1);
        let picked: Vec<f64> = values.iter().step_by(step).copied().collect();
        // A constant tells nothing.
        picked.iter().any(|x| *x != picked[0]).then_some(picked)
    };
    let samples_b: Vec<_> = b.values.iter().map(sample).collect();
    for (i, value) in a.values.iter().enumerate() {
        let Some(x) = sample(value) else { continue };
        let near = |y: &[f64]| {
            let apart: f64 = x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum();
            apart <= 16.0 * FAR * FAR * x.iter().map(|x| x * x).sum::<f64>()
        };
        let nearest = samples_b
            .iter()
            .enumerate()
            .filter(|(j, y)| fits(value, &b.values[*j]) && y.as_ref().is_some_and(|y| near(y)))
            .filter_map(|(j, _)| {
                Some((relative(value.elements.as_ref()?, b.values[j].elements.as_ref()?)?, j))
            })
            .filter(|(apart, _)| *apart <= FAR)
            .min_by(|x, y| x.0.total_cmp(&y.0));
        // Several values may hold the same numbers; one that is free comes first, and any does.
        if let Some((_, j)) = nearest
            && !found.iter().any(|(k, _)| *k == i)
        {
            found.push((i, j));
        }
    }
    found.sort_unstable();
    found
}
