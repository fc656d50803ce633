//! What hides inside a budget: a recorded value that is no farther from float64 than rounding could take it, and yet
//! did not come there by rounding.
//!
//! The bound of a sum grows with the worst that its terms could do; real kernels use a few percent of it. Between the
//! two there is room for factors that were rounded to TF32, for sums kept in half precision, for a missing bias of the
//! size of a rounding, for one wrong element. Statistics over all elements see them: each error in units of the random
//! walk that the sum's rounding would be, by element, by row and column, as a mean and as a slope. Thresholds are those
//! of docs/budgets.md. Sums whose errors are large are compared with a plain loop in f32 before anything is said:
//! sorted and constant data do to an honest kernel what they do to that loop.
//!
//! A value of any operator is seen to lie on a coarser grid than its type has.

use isotrace_tensor::{Tensor, nearest_bf16, nearest_f16, unravel};

use crate::product::{Product, Residual, narrow_loop, plain_loop};
use crate::recorded::{NARROWER, rounded};

/// Elements below which statistics say nothing.
const FEWEST: usize = 64;
/// Outputs for which a plain loop is run.
const SAMPLED: usize = 256;
/// Errors of the plain loop that an honest kernel may have.
const LOOPS: f64 = 2.0;
/// Standard deviations of a mean, of a slope, and of the largest of a set of groups beyond its expectation.
const Z: f64 = 6.0;
/// The same of a sum of squares.
const CHI: f64 = 40.0;
/// The largest error in units of the random walk.
const LARGEST: f64 = 8.0;
/// A slope that the last bit of each element could make.
const SLOPE: f64 = 2.0 / (1u64 << 24) as f64;
/// Share of elements on a grid by which a value is known to have been rounded to it.
const ON_GRID: f64 = 0.9;
/// Relative error (rms) from which on a value may be on a grid: an eighth of what rounding to f16 makes.
const COARSE: f64 = 1.0 / (1u64 << 16) as f64;
/// How many times smaller an error has to become for a change to explain it.
const EXPLAINS: f64 = 2.0;
/// Share of sums that a model of an accumulator has to give to the last bit.
const REPRODUCED: f64 = 0.9;

/// What was seen, and what undoes it.
pub struct Finding {
    /// The cause, `None` where no change undid it.
    pub class: Option<&'static str>,
    /// What the run does, to be read after its name and the node's.
    pub summary: String,
    /// The statistics.
    pub evidence: String,
    /// What was changed; the measure before and after.
    pub proof: Option<(String, f64, f64)>,
}

type Round = fn(f64) -> f64;
/// The two factors of each term of a sum.
type Factors = [(f64, f64)];

/// Half types with their roundings.
const GRIDS: [(&str, Round); 2] =
    [("f16", |x| nearest_f16(x).to_f64()), ("bf16", |x| nearest_bf16(x).to_f64())];

/// Whether the recorded f32 value lies on the grid of a half type, as its float64 value does not.
pub fn on_grid(exact: &Tensor, recorded: &Tensor) -> Option<Finding> {
    let (y, r) = (exact.to_f64().ok()?, recorded.to_f64().ok()?);
    let telling: Vec<usize> =
        (0..y.len().min(r.len())).filter(|&i| y[i] != 0.0 && y[i].is_finite() && r[i].is_finite()).collect();
    if telling.len() < FEWEST {
        return None;
    }
    // The last bit of a saturated function is no rounding to a grid.
    let relative =
        telling.iter().map(|&i| ((r[i] - y[i]) / y[i]).powi(2)).sum::<f64>() / telling.len() as f64;
    if relative.sqrt() < COARSE {
        return None;
    }
    let share =
        |on: &dyn Fn(usize) -> bool| telling.iter().filter(|&&i| on(i)).count() as f64 / telling.len() as f64;
    GRIDS.iter().find_map(|&(name, round)| {
        let own = share(&|i| round(r[i]) == r[i]);
        let by_itself = share(&|i| {
            let near = f64::from(y[i] as f32);
            round(near) == near
        });
        let explained = share(&|i| round(y[i]) == r[i]);
        (own > ON_GRID && by_itself < ON_GRID / 2.0).then(|| Finding {
            class: Some("precision"),
            summary: format!("stores the result rounded to {name}, though it is f32"),
            evidence: format!(
                "{:.1} % of its elements are numbers of {name}; of the float64 result in f32, {:.1} %",
                100.0 * own,
                100.0 * by_itself
            ),
            proof: (explained > ON_GRID / 2.0).then(|| {
                let what = format!("share of elements that differ from the float64 result rounded to {name}");
                (what, share(&|i| f64::from(y[i] as f32) != r[i]), 1.0 - explained)
            }),
        })
    })
}

/// Whether a product strays otherwise than by rounding in f32.
pub fn in_product(product: &Product<'_>, exact: &Tensor, recorded: &Tensor) -> Option<Finding> {
    let residual = product.residual(exact, recorded)?;
    if residual.error.len() < FEWEST || residual.error.iter().any(|e| !e.is_finite()) {
        return None;
    }
    let seen = strange(product, exact, &residual)?;
    let found = |class, summary: String, proof| {
        Some(Finding { class: Some(class), summary, evidence: seen.clone(), proof: Some(proof) })
    };
    let size = rms(&residual.error, |_, e| e);
    let again = |exact: &Tensor| {
        let y = exact.to_f64().ok()?;
        let r = recorded.to_f64().ok()?;
        Some(Residual {
            error: r.iter().zip(y.iter()).map(|(r, y)| r - y).collect(),
            exact: y.into_owned(),
            walk: residual.walk.clone(),
            ..residual
        })
    };
    let whole = |after: &Residual| strange(product, exact, after).is_none();
    let of = |after: &Residual| rms(&after.error, |_, e| e);
    if product.has_bias()
        && let Some(after) = product.exact(false, &Tensor::clone).as_ref().and_then(again)
        && whole(&after)
        && of(&after) < size
    {
        let summary = "does not add the bias".to_owned();
        return found("bias", summary, ("the bias left out: the error (rms)".to_owned(), size, of(&after)));
    }
    for (format, bits) in NARROWER {
        if let Some(after) = product.exact(true, &|t| rounded(t, bits)).as_ref().and_then(again)
            && whole(&after)
            && of(&after) < size / EXPLAINS
        {
            let summary = format!("computes on inputs rounded to {format}, though they are f32");
            let what = format!("evaluated on inputs rounded to {format}: the error (rms)");
            return found("precision", summary, (what, size, of(&after)));
        }
    }
    let slope = slope(&residual).0;
    let scaled = Tensor::from_vec(exact.shape(), residual.exact.iter().map(|y| y * (1.0 + slope)).collect());
    if let Some(after) = scaled.ok().as_ref().and_then(again)
        && whole(&after)
        && of(&after) < size
    {
        let summary = format!("gives {:.9} times what it should, everywhere", 1.0 + slope);
        let what = format!("multiplied by {:.9}: the error (rms)", 1.0 + slope);
        return found("scale", summary, (what, size, of(&after)));
    }
    let factors: Vec<(usize, Box<Factors>)> = sampled(residual.error.len())
        .filter_map(|i| Some((i, product.factors(exact.shape(), i)?.into_boxed_slice())))
        .collect();
    let recorded = recorded.to_f64().ok()?;
    for (name, round) in GRIDS {
        let wrong = |steps: &dyn Fn(&Factors) -> f64| {
            factors.iter().filter(|(i, f)| steps(f) != recorded[*i]).count() as f64 / factors.len() as f64
        };
        let left = wrong(&|f| narrow_loop(f, &round));
        if !factors.is_empty() && left < 1.0 - REPRODUCED {
            let what = format!("sums kept in {name}, from the first term to the last: share of sums not met");
            return found(
                "accumulation",
                format!("keeps its sums in {name}"),
                (what, wrong(&plain_loop), left),
            );
        }
    }
    Some(Finding {
        class: None,
        summary: "errs otherwise than by rounding".to_owned(),
        evidence: seen,
        proof: None,
    })
}

/// Why errors are none of rounding in f32, if they are not.
fn strange(product: &Product<'_>, exact: &Tensor, residual: &Residual) -> Option<String> {
    let Residual { error, walk, layout: [outer, channels, inner], .. } = residual;
    let z = |i: usize, e: f64| if walk[i] > 0.0 { e / walk[i] } else { 0.0 };
    let size = rms(error, z);
    let (worst, largest) = error
        .iter()
        .enumerate()
        .map(|(i, &e)| (i, z(i, e).abs()))
        .fold((0, 0.0), |x, y| if y.1 > x.1 { y } else { x });
    if size > 1.0 || largest > LARGEST {
        // What a plain loop does as well is the data's doing.
        let sums = exact.as_slice::<f64>().ok()?;
        let looped = |i: usize| Some(plain_loop(&product.factors(exact.shape(), i)?) - sums[i]);
        let pairs: Vec<(f64, f64)> =
            sampled(error.len()).filter_map(|i| Some((error[i], looped(i)?))).collect();
        let square = |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(|p| f(p).powi(2)).sum::<f64>().sqrt();
        let (own, plain) = (square(&|p| p.0), square(&|p| p.1));
        if size > 1.0 && !pairs.is_empty() && own > LOOPS * plain {
            return Some(format!(
                "its errors are {size:.1} times the random walk of {} terms (rms), and {:.1} times those of a plain loop \
                 in f32",
                product.terms,
                own / plain
            ));
        }
        if largest > LARGEST && error[worst].abs() > LOOPS * looped(worst)?.abs().max(LARGEST * walk[worst]) {
            return Some(format!(
                "element {:?} is {:.3e} off, {largest:.0} times the random walk of {} terms; all together (rms) are {size:.2}",
                unravel(worst, exact.shape()),
                error[worst],
                product.terms
            ));
        }
        return None;
    }
    let (slope, slope_z) = slope(residual);
    let mean = error.iter().enumerate().map(|(i, &e)| z(i, e)).sum::<f64>() / (error.len() as f64).sqrt();
    let seen = if mean.abs() > Z {
        format!("the mean of its errors is {mean:.0} standard deviations from 0")
    } else if slope_z.abs() > Z {
        format!("its errors follow the result, by {slope:.2e} of it, {slope_z:.0} standard deviations from 0")
    } else {
        let column = |i: usize| i / inner % channels;
        let row = |i: usize| i / (channels * inner) * inner + i % inner;
        let by_column = groups(error, &z, *channels, &column);
        let by_row = groups(error, &z, outer * inner, &row);
        [("channel", by_column), ("row", by_row)].into_iter().find_map(|(name, found)| {
            let (at, mean, square) = found?;
            if mean > Z {
                return Some(format!(
                    "the errors of {name} {at} are off to one side, {mean:.0} standard deviations"
                ));
            }
            (square > CHI).then(|| {
                format!("the errors of {name} {at} are too large, by {square:.0} standard deviations")
            })
        })?
    };
    // A sum of terms of one sign drifts by the last bit of its steps.
    let drifts = slope.abs() <= SLOPE && product.hardly_cancels(exact)?;
    (!drifts).then_some(seen)
}

/// The group whose mean is farthest out, how far beyond the largest expected of so many groups, and the largest sum of
/// squares; `None` where there is one group, or one element in each.
fn groups(
    error: &[f64],
    z: &dyn Fn(usize, f64) -> f64,
    count: usize,
    group: &dyn Fn(usize) -> usize,
) -> Option<(usize, f64, f64)> {
    if count < 2 || error.len() < 2 * count {
        return None;
    }
    let mut sums = vec![(0.0, 0.0, 0.0); count];
    for (i, &e) in error.iter().enumerate() {
        let (sum, square, n) = &mut sums[group(i)];
        let z = z(i, e);
        *sum += z;
        *square += z * z;
        *n += 1.0;
    }
    let expected = (2.0 * (2.0 * count as f64).ln()).sqrt();
    let mean = |s: &(f64, f64, f64)| s.0.abs() / s.2.sqrt() - expected;
    let square = |s: &(f64, f64, f64)| (s.1 - s.2) / (2.0 * s.2).sqrt();
    let (at, first) = sums.iter().enumerate().max_by(|x, y| {
        mean(x.1).max(square(x.1) * Z / CHI).total_cmp(&mean(y.1).max(square(y.1) * Z / CHI))
    })?;
    Some((at, mean(first), square(first)))
}

/// How the errors follow the result: the share of it, and that in standard deviations.
fn slope(residual: &Residual) -> (f64, f64) {
    let weighed = residual.error.iter().zip(&residual.exact).zip(&residual.walk).filter(|(_, w)| **w > 0.0);
    let (mut along, mut size) = (0.0, 0.0);
    for ((e, y), w) in weighed {
        along += e * y / (w * w);
        size += y * y / (w * w);
    }
    if size > 0.0 { (along / size, along / size.sqrt()) } else { (0.0, 0.0) }
}

fn rms(error: &[f64], unit: impl Fn(usize, f64) -> f64) -> f64 {
    let sum: f64 = error.iter().enumerate().map(|(i, &e)| unit(i, e).powi(2)).sum();
    (sum / error.len().max(1) as f64).sqrt()
}

/// Places spread over so many elements.
fn sampled(len: usize) -> impl Iterator<Item = usize> {
    let count = len.min(SAMPLED);
    (0..count).map(move |i| i * (len - 1) / count.saturating_sub(1).max(1))
}
