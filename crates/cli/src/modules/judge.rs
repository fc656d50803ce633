//! How far two values may be apart, and how far they are.

use isotrace_compare::compare;
use isotrace_report::Metrics;
use isotrace_tensor::DType;
use isotrace_trace::trace::Digest;
use rustc_hash::{FxHashMap, FxHashSet};

use super::view::{Seen, View};

// Calibrated by `bench/modules.py`: BERT, Llama, ViT and ResNet of 2 to 12 layers, with ordinary and with sharp attention,
// the same network in float64, float16 and bfloat16, with attention in parts and compiled by inductor, against float32,
// and every planted fault of tests/python/models.py. Its table gives the figures below; u is the unit of the coarser type.

/// How many times the other side's own distance from float64, carried over to the coarser type, a value may lie from it:
/// another implementation rounds in other places, and each is one draw. Without a fault, 1.01 at most; with one, 220 at
/// least in float32. In half types faults begin below what rounding does, and the smaller ones pass.
const DRAWS: f64 = 4.0;
/// Rounding of single operators, in units, that such a distance may happen to lack.
const UNITS: f64 = 16.0;
/// Units allowed where nobody knows how rounding grows, and the most that this may come to. Without a fault, 23 units
/// in float32 and 6 of bfloat16 (2 %), 11 where torch.compile made the kernels; 481 and 100 (39 %) where attention is
/// sharp, and 2,460 and 224 (87 %) in the one network of 12 layers where rounding decides what is attended to.
const BLIND: (f64, f64) = (1024.0, 0.05);
/// Units, and the least share, from which on rounding does not explain a distance though nobody knows how it grows:
/// the smallest fault comes to 1,410 units in float32 (epsilon, in a network of two layers), the next to 2,010 and
/// 3,950. In between, nothing can be said.
const FAULT: (f64, f64) = (3072.0, 1.0);
/// Units within which one operator's rounding stays, where both sides gave it the same bits: nothing before it matters
/// then. The most is that of [`BLIND`].
const ALONE: f64 = isotrace_ops::ops::opaque::UNITS;
/// Classes that are one operator, by the beginnings of their names. What recurs rounds many times over.
const OPERATORS: [&str; 8] = [
    "torch.nn.modules.activation.",
    "torch.nn.modules.batchnorm.",
    "torch.nn.modules.conv.",
    "torch.nn.modules.instancenorm.",
    "torch.nn.modules.linear.",
    "torch.nn.modules.normalization.",
    "torch.nn.modules.pooling.",
    "torch.nn.modules.sparse.",
];
/// What was found of a pair.
#[derive(Clone, Copy, PartialEq)]
pub enum Found {
    Bits,
    Within,
    Beyond,
    /// Farther apart than rounding brings most values, nearer than what is certainly a fault.
    Unclear,
    /// Digests of other bits, or of other hashes, and of values that may be near to each other.
    Unknown,
}

/// What was found of values by their places on one side.
pub type Findings = FxHashMap<usize, Found>;

pub fn unit(dtype: DType) -> f64 {
    dtype.unit_roundoff().unwrap_or(0.0)
}

/// Distances within which rounding explains a difference, and beyond which it does not; relative to the norm.
fn allowed(x: &Seen, y: &Seen) -> (f64, f64) {
    let u = unit(x.dtype).max(unit(y.dtype));
    // What one type's rounding grows to, another's grows to in proportion.
    let noise = |side: &Seen| side.noise.map(|noise| noise * (u / unit(side.dtype)).max(1.0));
    match (noise(x), noise(y)) {
        (None, None) => ((BLIND.0 * u).min(BLIND.1), (FAULT.0 * u).min(FAULT.1)),
        (p, q) => {
            let allowed = DRAWS * p.unwrap_or(0.0).max(q.unwrap_or(0.0)) + UNITS * u;
            (allowed, allowed)
        }
    }
}

/// How far two values are apart at least, relative to the first one's norm: the mean square of differences is the square
/// of the difference of means and a variance, which is no less than the square of the difference of deviations.
fn least(p: &Digest, q: &Digest) -> f64 {
    let moments = |d: &Digest| Some((d.mean?.0, d.std?.0)).filter(|_| d.nan + d.inf + d.negative_inf == 0);
    let (Some((mean, std)), Some((other, deviation))) = (moments(p), moments(q)) else { return 0.0 };
    let apart = (mean - other).hypot(std - deviation) / mean.hypot(std);
    if apart.is_nan() { 0.0 } else { apart }
}

pub fn judge(x: &Seen, y: &Seen) -> (Found, Metrics) {
    let (within, beyond) = allowed(x, y);
    let (Some(p), Some(q)) = (&x.elements, &y.elements) else {
        let Some((p, q)) = x.digest().zip(y.digest()) else { return (Found::Unknown, Metrics::default()) };
        let found = match p.same_bits(&q).filter(|_| x.dtype == y.dtype) {
            Some(true) => Found::Bits,
            _ if x.dtype.is_float() && least(&p, &q) > beyond => Found::Beyond,
            _ => Found::Unknown,
        };
        return (found, Metrics::default());
    };
    let reshaped = q.reshape(p.shape());
    let Some(m) = reshaped.ok().and_then(|q| compare(p, &q).ok()) else {
        return (Found::Beyond, Metrics::default());
    };
    let metrics = isotrace_diagnose::metrics(&m);
    let found = match () {
        () if m.bits_equal && x.dtype == y.dtype => Found::Bits,
        () if m.rel_l2 <= within => Found::Within,
        () if m.rel_l2 <= beyond => Found::Unclear,
        () => Found::Beyond,
    };
    (found, metrics)
}

/// What was found of A's values, by their places.
pub type Judged = FxHashMap<usize, (Found, Metrics)>;

/// Holds single operators to their own rounding, where both sides gave them the same bits. Whether one fails.
pub fn alone(a: &View, b: &View, partner: &FxHashMap<usize, usize>, judged: &mut Judged) -> bool {
    let above: FxHashSet<u64> = a.calls.iter().filter_map(|c| c.parent).collect();
    // Attention rounds many times over, and a rectifier may draw its slope anew each time.
    let one = |class: &str| {
        let others = ["MultiheadAttention", "RReLU"].iter().any(|o| class.ends_with(o));
        OPERATORS.iter().any(|o| class.starts_with(o)) && !others
    };
    let mut fails = false;
    for call in a.calls.iter().filter(|c| !above.contains(&c.id) && one(&c.class)) {
        let bits = |i: &usize| judged.get(i).is_some_and(|(found, _)| *found == Found::Bits);
        if call.inputs.is_empty() || !call.inputs.iter().all(bits) {
            continue;
        }
        for i in &call.outputs {
            let (Some(&j), Some((found, metrics))) = (partner.get(i), judged.get_mut(i)) else { continue };
            let u = unit(a.values[*i].dtype).max(unit(b.values[j].dtype));
            if metrics.rel_l2.is_some_and(|apart| apart > (ALONE * u).min(BLIND.1)) {
                *found = Found::Beyond;
                fails = true;
            }
        }
    }
    fails
}
