//! What one tensor holds, in one pass.

use isotrace_tensor::{DType, Tensor, bf16, f16};

use crate::number;

/// Elements a piece.
const PIECE: usize = 1 << 16;
/// Elements that are held as f64 at a time.
const TILE: usize = 1024;
/// Bits of a number's key: the sign, 11 bits of exponent and 3 of the significand of an f64.
const KEY: u32 = 15;

/// Counts, extremes and moments. Minimum, maximum, mean and deviation are of the finite elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Elements.
    pub len: u64,
    /// The smallest finite element; none where there is no finite one.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// The mean.
    pub mean: Option<f64>,
    /// The standard deviation, of the population.
    pub std: Option<f64>,
    /// NaN.
    pub nan: u64,
    /// Infinities of either sign.
    pub inf: u64,
    /// Zeros of either sign.
    pub zeros: u64,
    /// Numbers below the smallest normal one of the type.
    pub denormals: u64,
    /// Elements that equal the minimum, and the maximum.
    pub at: [u64; 2],
    /// The narrowest float type that holds every element exactly, where that is narrower than the tensor's; `tf32`
    /// where ten bits of significand do in an f32 whose range is beyond f16's.
    pub fits: Option<&'static str>,
    /// Elements in as many equal intervals from the minimum to the maximum as were asked for; from a finer count by
    /// powers of two and eighths of them, so that an element may be counted in the interval beside its own.
    pub histogram: Vec<f64>,
}

/// What one piece holds.
struct Part {
    finite: u64,
    mean: f64,
    /// The sum of squared deviations from the mean.
    deviation: f64,
    min: f64,
    max: f64,
    at: [u64; 2],
    nan: u64,
    inf: u64,
    zeros: u64,
    denormals: u64,
    /// Which of the narrower types still hold every element.
    fits: [bool; FITS.len()],
    keys: Vec<u32>,
}

/// A narrower type: its name and whether it holds a number.
type Fit = (&'static str, fn(f64) -> bool);

/// Ten bits of significand and eight of exponent.
fn tf32(x: f64) -> bool {
    (x as f32).to_bits().trailing_zeros() >= 13 && f64::from(x as f32) == x
}

const FITS: [Fit; 4] = [
    ("bf16", |x| bf16::from_f64(x).to_f64() == x),
    ("f16", |x| f16::from_f64(x).to_f64() == x),
    ("tf32", tf32),
    ("f32", |x| f64::from(x as f32) == x),
];

/// The types worth asking about for a type.
fn narrower(dtype: DType) -> &'static [&'static str] {
    match dtype {
        DType::F64 => &["bf16", "f16", "tf32", "f32"],
        DType::F32 => &["bf16", "f16", "tf32"],
        _ => &[],
    }
}

/// Looks at every element once; complex numbers count as their real parts, text as nothing.
pub fn describe(tensor: &Tensor, intervals: usize) -> Stats {
    let len = tensor.len();
    let normal = smallest_normal(tensor.dtype());
    let asked = FITS.map(|(name, _)| narrower(tensor.dtype()).contains(&name));
    macro_rules! typed {
        ($t:ty, $wide:expr) => {{
            let data = tensor.as_slice::<$t>().unwrap_or_default();
            whole(len, normal, asked, &|from, out| {
                for (out, &x) in out.iter_mut().zip(&data[from..]) {
                    *out = $wide(x);
                }
            })
        }};
    }
    let part = match tensor.dtype() {
        DType::String => Part::new(asked),
        DType::F64 => typed!(f64, |x| x),
        DType::F32 => typed!(f32, f64::from),
        DType::F16 => typed!(f16, f16::to_f64),
        DType::BF16 => typed!(bf16, bf16::to_f64),
        _ => {
            let read = number::reals(tensor);
            whole(len, normal, asked, &|from, out| {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = read(from + i)[0];
                }
            })
        }
    };
    part.finish(len as u64, intervals)
}

/// Below it a float has fewer digits; 0 for types that have no such numbers.
fn smallest_normal(dtype: DType) -> f64 {
    match (dtype.smallest_subnormal(), dtype.unit_roundoff()) {
        // The steps below the smallest normal number are that number times twice the unit.
        (Some(step), Some(unit)) if dtype != DType::F8E8M0 => step / (2.0 * unit),
        _ => 0.0,
    }
}

type Fill<'a> = &'a (dyn Fn(usize, &mut [f64]) + Sync);

fn whole(len: usize, normal: f64, asked: [bool; FITS.len()], fill: Fill<'_>) -> Part {
    let pieces = len.div_ceil(PIECE);
    if pieces == 0 { Part::new(asked) } else { tree(0, pieces, &|k| piece(k, len, normal, asked, fill)) }
}

/// Pieces put together as a balanced tree, the same for any number of threads.
fn tree(from: usize, to: usize, piece: &(impl Fn(usize) -> Part + Sync)) -> Part {
    if to - from == 1 {
        return piece(from);
    }
    let middle = from + (to - from) / 2;
    let (one, other) = rayon::join(|| tree(from, middle, piece), || tree(middle, to, piece));
    one.and(&other)
}

fn piece(k: usize, len: usize, normal: f64, asked: [bool; FITS.len()], fill: Fill<'_>) -> Part {
    let mut part = Part::new(asked);
    let mut buffer = [0.0; TILE];
    let end = ((k + 1) * PIECE).min(len);
    for from in (k * PIECE..end).step_by(TILE) {
        let tile = &mut buffer[..TILE.min(end - from)];
        fill(from, tile);
        part.take(tile, normal);
    }
    part
}

/// Numbers in their order, coarsely: neighbours by their leading bits.
fn key(x: f64) -> usize {
    let bits = x.to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    (ordered >> (64 - KEY)) as usize
}

/// The least number with this key.
fn unkey(key: usize) -> f64 {
    let ordered = (key as u64) << (64 - KEY);
    f64::from_bits(if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered })
}

impl Part {
    fn new(asked: [bool; FITS.len()]) -> Self {
        Self {
            finite: 0,
            mean: 0.0,
            deviation: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            at: [0; 2],
            nan: 0,
            inf: 0,
            zeros: 0,
            denormals: 0,
            fits: asked,
            keys: vec![0; 1 << KEY],
        }
    }

    fn take(&mut self, tile: &[f64], normal: f64) {
        let mut tile_part = (0u64, 0.0);
        for &x in tile {
            if !x.is_finite() {
                self.nan += u64::from(x.is_nan());
                self.inf += u64::from(x.is_infinite());
                continue;
            }
            tile_part.0 += 1;
            tile_part.1 += x;
            self.zeros += u64::from(x == 0.0);
            self.denormals += u64::from(x != 0.0 && x.abs() < normal);
            if x < self.min {
                (self.min, self.at[0]) = (x, 0);
            }
            if x > self.max {
                (self.max, self.at[1]) = (x, 0);
            }
            self.at[0] += u64::from(x == self.min);
            self.at[1] += u64::from(x == self.max);
            self.keys[key(x)] += 1;
        }
        for (fits, (_, holds)) in self.fits.iter_mut().zip(FITS) {
            *fits = *fits && tile.iter().all(|&x| !x.is_finite() || holds(x));
        }
        let (count, sum) = tile_part;
        if count > 0 {
            let mean = sum / count as f64;
            let deviation =
                tile.iter().filter(|x| x.is_finite()).map(|x| (x - mean) * (x - mean)).sum::<f64>();
            self.moments(count, mean, deviation);
        }
    }

    /// Moments of more elements (Chan, Golub and LeVeque 1983).
    fn moments(&mut self, count: u64, mean: f64, deviation: f64) {
        if count == 0 {
            return;
        }
        let (n, m) = (self.finite as f64, count as f64);
        let apart = mean - self.mean;
        self.finite += count;
        self.mean += apart * (m / (n + m));
        self.deviation += deviation + apart * apart * (n * m / (n + m));
    }

    fn and(mut self, other: &Self) -> Self {
        self.moments(other.finite, other.mean, other.deviation);
        self.at[0] = match self.min.total_cmp(&other.min) {
            _ if self.min == other.min => self.at[0] + other.at[0],
            std::cmp::Ordering::Less => self.at[0],
            _ => other.at[0],
        };
        self.at[1] = match self.max.total_cmp(&other.max) {
            _ if self.max == other.max => self.at[1] + other.at[1],
            std::cmp::Ordering::Greater => self.at[1],
            _ => other.at[1],
        };
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.nan += other.nan;
        self.inf += other.inf;
        self.zeros += other.zeros;
        self.denormals += other.denormals;
        self.fits.iter_mut().zip(other.fits).for_each(|(a, b)| *a &= b);
        self.keys.iter_mut().zip(&other.keys).for_each(|(a, b)| *a = a.saturating_add(*b));
        self
    }

    fn finish(self, len: u64, intervals: usize) -> Stats {
        let some = |x: f64| (self.finite > 0).then_some(x);
        // All zero fits everywhere and says nothing.
        let told = self.finite > self.zeros;
        let fits = FITS.iter().zip(self.fits).find(|(_, fits)| *fits && told).map(|((name, _), _)| *name);
        Stats {
            len,
            min: some(self.min),
            max: some(self.max),
            mean: some(self.mean),
            std: some((self.deviation / self.finite.max(1) as f64).sqrt()),
            nan: self.nan,
            inf: self.inf,
            zeros: self.zeros,
            denormals: self.denormals,
            at: self.at,
            fits,
            histogram: self.histogram(intervals),
        }
    }

    /// The keys' counts in equal intervals: a key's count is shared out over what it covers.
    fn histogram(&self, intervals: usize) -> Vec<f64> {
        let span = self.max - self.min;
        if self.finite == 0 || !(span > 0.0 && span.is_finite()) || intervals == 0 {
            return Vec::new();
        }
        let mut out = vec![0.0; intervals];
        let place = |x: f64| ((x - self.min) / span * intervals as f64).clamp(0.0, intervals as f64);
        for (k, &count) in self.keys.iter().enumerate().filter(|(_, n)| **n > 0) {
            let (a, b) = (unkey(k), unkey(k + 1));
            let (from, to) = (place(a.min(b)), place(a.max(b)));
            let first = (from as usize).min(intervals - 1);
            let last = (to.ceil() as usize).clamp(first + 1, intervals);
            let width = to - from;
            for (i, bar) in out.iter_mut().enumerate().take(last).skip(first) {
                let part = (to.min(i as f64 + 1.0) - from.max(i as f64)).max(0.0);
                *bar +=
                    f64::from(count) * if width > 0.0 { part / width } else { 1.0 / (last - first) as f64 };
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_moments_as_defined() {
        let mut data: Vec<f32> = (0..200_000).map(|i| (i as f32 * 0.37).sin() * 3.0 + 1.0).collect();
        data[17] = f32::NAN;
        data[70_000] = f32::NEG_INFINITY;
        data[5] = 0.0;
        data[6] = 1e-40;
        let s = describe(&Tensor::vector(data.clone()), 10);
        let finite: Vec<f64> = data.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x)).collect();
        let mean = finite.iter().sum::<f64>() / finite.len() as f64;
        let std = (finite.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / finite.len() as f64).sqrt();
        assert_eq!((s.nan, s.inf, s.zeros, s.denormals, s.fits), (1, 1, 1, 1, None));
        assert!((s.mean.unwrap() - mean).abs() < 1e-12 && (s.std.unwrap() - std).abs() < 1e-12);
        assert_eq!(s.min, finite.iter().copied().reduce(f64::min));
        assert_eq!(s.max, finite.iter().copied().reduce(f64::max));
        let total: f64 = s.histogram.iter().sum();
        assert!(
            (total - finite.len() as f64).abs() < 1e-6 && s.histogram[0] > s.histogram[4],
            "{:?}",
            s.histogram
        );
    }

    #[test]
    fn what_is_coarser_than_declared_is_found() {
        let of = |f: fn(f64) -> f64| {
            let data: Vec<f32> = (1..5000).map(|i| f(f64::from(i).sin() * 10.0) as f32).collect();
            describe(&Tensor::vector(data), 0).fits
        };
        assert_eq!(of(|x| f16::from_f64(x).to_f64()), Some("f16"));
        assert_eq!(of(|x| bf16::from_f64(x).to_f64()), Some("bf16"));
        assert_eq!(of(|x| f16::from_f64(x).to_f64() * 1e6f64.exp2().min(1_048_576.0)), Some("tf32"));
        assert_eq!(of(|x| x), None);
        assert_eq!(describe(&Tensor::vector(vec![0f32; 9]), 4).fits, None);
        let flat = describe(&Tensor::vector(vec![2.5f64; 9]), 4);
        assert_eq!((flat.at, flat.std, flat.histogram.len()), ([9, 9], Some(0.0), 0));
    }
}
