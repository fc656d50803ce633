//! What is kept of a value whose elements are not: statistics, and a signature that finds its counterpart.
//!
//! The signature is what layout does not change and rounding hardly does: counts, moments, extremes, and how many
//! elements lie between each power of two and the next. That last one is the sketch of the sorted values; unlike
//! quantiles it needs neither a sort nor a copy, and merges. The hash says whether two values are the same bits.

use isotrace_tensor::{C64, C128, DType, Tensor, bf16, f16};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::number::Number;

/// Elements summed before a sum is added to the others; one block is read twice while it is in the cache.
const BLOCK: usize = 4096;

/// Statistics of a value, computed in float64 over its elements as numbers; of complex elements both parts count.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Digest {
    /// Numbers looked at.
    pub count: u64,
    /// NaN among them.
    pub nan: u64,
    /// Positive infinities.
    pub inf: u64,
    /// Negative infinities.
    pub negative_inf: u64,
    /// Zeros of either sign.
    pub zeros: u64,
    /// Numbers below the smallest normal one of the element type, zeros not counted.
    pub subnormal: u64,
    /// Smallest finite number; absent where there is none, like the next four.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Number>,
    /// Largest finite number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Number>,
    /// Mean of the finite numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Number>,
    /// Mean of their absolute values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_abs: Option<Number>,
    /// Standard deviation of the finite numbers (divided by their count).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Number>,
    /// How many positive finite numbers lie in [2^e, 2^(e+1)): pairs of e and their count, e rising.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub positive: Vec<(i32, u64)>,
    /// How many negative ones lie in (-2^(e+1), -2^e].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub negative: Vec<(i32, u64)>,
    /// SHA-256 of the elements in C order, little-endian, one a byte where they are narrower; in hexadecimal.
    pub sha256: String,
}

impl Digest {
    /// Of a tensor. Text has a count and a hash (of the JSON list of its elements) only.
    pub fn of(tensor: &Tensor) -> Self {
        let mut sums = Sums::default();
        let tiny = smallest_normal(tensor.dtype());
        let parts = match tensor.dtype() {
            DType::F32 => sums.add(tensor.as_slice::<f32>().unwrap_or_default(), tiny, |&x| f64::from(x)),
            DType::F64 => sums.add(tensor.as_slice::<f64>().unwrap_or_default(), tiny, |&x| x),
            DType::F16 => sums.add(tensor.as_slice::<f16>().unwrap_or_default(), tiny, |x| x.to_f64()),
            DType::BF16 => sums.add(tensor.as_slice::<bf16>().unwrap_or_default(), tiny, |x| x.to_f64()),
            DType::C64 => {
                let flat: Vec<f32> =
                    tensor.as_slice::<C64>().unwrap_or_default().iter().flat_map(|c| c.0).collect();
                sums.add(&flat, tiny, |&x| f64::from(x))
            }
            DType::C128 => {
                let flat: Vec<f64> =
                    tensor.as_slice::<C128>().unwrap_or_default().iter().flat_map(|c| c.0).collect();
                sums.add(&flat, tiny, |&x| x)
            }
            DType::String => tensor.len(),
            _ => tensor.to_f64().map_or(0, |values| sums.add(&values, tiny, |&x| x)),
        };
        let mut digest = sums.digest();
        digest.count = parts as u64;
        digest.sha256 = sha256(tensor);
        digest
    }
}

fn sha256(tensor: &Tensor) -> String {
    let hash = match tensor.as_strings() {
        Ok(texts) => Sha256::digest(serde_json::to_vec(texts).unwrap_or_default()),
        Err(_) => Sha256::digest(tensor.raw_bytes()),
    };
    hash.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

/// The smallest positive normal number of a floating-point type, 0 where there are no others.
fn smallest_normal(dtype: DType) -> f64 {
    match dtype {
        DType::F64 | DType::C128 => f64::MIN_POSITIVE,
        DType::F32 | DType::BF16 | DType::C64 => f64::from(f32::MIN_POSITIVE),
        DType::F16 | DType::F8E5M2 => 2f64.powi(-14),
        DType::F8E4M3FN => 2f64.powi(-6),
        DType::F8E4M3FNUZ => 2f64.powi(-7),
        DType::F8E5M2FNUZ => 2f64.powi(-15),
        DType::F4E2M1 => 1.0,
        _ => 0.0,
    }
}

/// Exponents of f64 from the smallest subnormal to the largest number.
const LOWEST: i32 = -1074;
const EXPONENTS: usize = 1024 + 1074;

struct Sums {
    nan: u64,
    inf: u64,
    negative_inf: u64,
    zeros: u64,
    subnormal: u64,
    min: f64,
    max: f64,
    finite: f64,
    mean: f64,
    magnitude: f64,
    /// Sum of the squares of the distances from the mean.
    spread: f64,
    exponents: [Vec<u64>; 2],
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            nan: 0,
            inf: 0,
            negative_inf: 0,
            zeros: 0,
            subnormal: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            finite: 0.0,
            mean: 0.0,
            magnitude: 0.0,
            spread: 0.0,
            exponents: [vec![0; EXPONENTS], vec![0; EXPONENTS]],
        }
    }
}

impl Sums {
    fn add<T>(&mut self, values: &[T], tiny: f64, number: impl Fn(&T) -> f64) -> usize {
        let mut block = Vec::with_capacity(BLOCK);
        for chunk in values.chunks(BLOCK) {
            block.clear();
            block.extend(chunk.iter().map(&number));
            self.block(&block, tiny);
        }
        values.len()
    }

    fn block(&mut self, values: &[f64], tiny: f64) {
        let (mut sum, mut magnitude, mut finite) = (0.0, 0.0, 0.0);
        for &x in values {
            if !x.is_finite() {
                self.nan += u64::from(x.is_nan());
                self.inf += u64::from(x == f64::INFINITY);
                self.negative_inf += u64::from(x == f64::NEG_INFINITY);
                continue;
            }
            finite += 1.0;
            sum += x;
            magnitude += x.abs();
            self.min = self.min.min(x);
            self.max = self.max.max(x);
            if x == 0.0 {
                self.zeros += 1;
            } else {
                self.subnormal += u64::from(x.abs() < tiny);
                self.exponents[usize::from(x < 0.0)][(exponent(x) - LOWEST) as usize] += 1;
            }
        }
        if finite == 0.0 {
            return;
        }
        let mean = sum / finite;
        let spread: f64 = values.iter().filter(|x| x.is_finite()).map(|x| (x - mean) * (x - mean)).sum();
        // Two samples into one (Chan, Golub, LeVeque 1979).
        let total = self.finite + finite;
        let apart = mean - self.mean;
        self.spread += spread + apart * apart * (self.finite * finite / total);
        self.mean += apart * (finite / total);
        self.magnitude += magnitude;
        self.finite = total;
    }

    fn digest(self) -> Digest {
        let known = |x: f64| (self.finite > 0.0).then_some(Number(x));
        let counts = |side: &[u64]| -> Vec<(i32, u64)> {
            let filled = side.iter().enumerate().filter(|(_, count)| **count > 0);
            filled.map(|(at, &count)| (at as i32 + LOWEST, count)).collect()
        };
        Digest {
            count: 0,
            nan: self.nan,
            inf: self.inf,
            negative_inf: self.negative_inf,
            zeros: self.zeros,
            subnormal: self.subnormal,
            min: known(self.min),
            max: known(self.max),
            mean: known(self.mean),
            mean_abs: known(self.magnitude / self.finite),
            std: known((self.spread / self.finite).sqrt()),
            positive: counts(&self.exponents[0]),
            negative: counts(&self.exponents[1]),
            sha256: String::new(),
        }
    }
}

/// floor(log2(|x|)) of a finite number that is not zero.
fn exponent(x: f64) -> i32 {
    let bits = x.to_bits() & (u64::MAX >> 1);
    match (bits >> 52) as i32 {
        0 => LOWEST + 63 - bits.leading_zeros() as i32,
        biased => biased - 1023,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_awkward_numbers() {
        let values =
            vec![1.0f32, -3.0, 0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, 2.0, 0.75];
        let digest = Digest::of(&Tensor::vector(values));
        assert_eq!(
            (digest.count, digest.nan, digest.inf, digest.negative_inf, digest.zeros, digest.subnormal),
            (10, 1, 1, 1, 2, 1)
        );
        assert_eq!((digest.min, digest.max), (Some(Number(-3.0)), Some(Number(2.0))));
        assert_eq!(digest.positive, [(-133, 1), (-1, 1), (0, 1), (1, 1)]);
        assert_eq!(digest.negative, [(1, 1)]);
        let tiny = f64::from(1e-40f32);
        let mean = (0.75 + tiny) / 7.0;
        assert!((digest.mean.unwrap().0 - mean).abs() < 1e-15);
        assert!((digest.mean_abs.unwrap().0 - 6.75 / 7.0).abs() < 1e-15);
        let square = (1.0 + 9.0 + 4.0 + 0.5625) / 7.0 - mean * mean;
        assert!((digest.std.unwrap().0 - square.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn blocks_add_up_and_order_changes_nothing_but_the_hash() {
        let values: Vec<f64> = (0..20_000).map(|i| f64::from(i % 977) * 0.37 + 1e6).collect();
        let mut turned = values.clone();
        turned.reverse();
        let (a, b) = (Digest::of(&Tensor::vector(values.clone())), Digest::of(&Tensor::vector(turned)));
        assert_eq!((&a.positive, a.min, a.max, a.count), (&b.positive, b.min, b.max, b.count));
        assert_ne!(a.sha256, b.sha256);
        let mean = values.iter().sum::<f64>() / 20_000.0;
        let spread = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        for digest in [a, b] {
            assert!((digest.mean.unwrap().0 - mean).abs() < 1e-9 * mean);
            assert!((digest.std.unwrap().0 - spread.sqrt()).abs() < 1e-9 * spread.sqrt());
        }
    }

    #[test]
    fn every_type_has_a_digest() {
        for &dtype in DType::ALL {
            let tensor = match dtype {
                DType::String => Tensor::from_strings(&[1], vec!["ä".into()]).unwrap(),
                DType::C64 => Tensor::vector(vec![C64([1.0, 0.0])]),
                DType::C128 => Tensor::vector(vec![C128([1.0, 0.0])]),
                _ => Tensor::vector(vec![1f32]).cast(dtype).unwrap(),
            };
            let digest = Digest::of(&tensor);
            assert_eq!(digest.sha256.len(), 64);
            if dtype != DType::String {
                assert_eq!(
                    (digest.max, digest.positive.as_slice()),
                    (Some(Number(1.0)), &[(0, 1)][..]),
                    "{dtype}"
                );
            }
            let empty = if dtype == DType::String {
                Tensor::from_strings(&[0], vec![]).unwrap()
            } else {
                Tensor::from_bytes(dtype, &[0], bytes::Bytes::new()).unwrap()
            };
            let digest = Digest::of(&empty);
            assert_eq!((digest.count, digest.min, digest.mean), (0, None, None), "{dtype}");
        }
        // As `printf '\000\000\200\077' | sha256sum` has it.
        assert_eq!(
            Digest::of(&Tensor::scalar(1f32)).sha256,
            "e00e5eb9444182f352323374ef4e08ebcb784725fdd4fd612d7730540b3e0c8c"
        );
    }

    #[test]
    fn exponents_at_the_borders() {
        for (x, e) in [(1.0, 0), (0.999, -1), (f64::MIN_POSITIVE, -1022), (5e-324, -1074), (f64::MAX, 1023)] {
            assert_eq!((exponent(x), exponent(-x)), (e, e));
        }
        assert_eq!(exponent(f64::MIN_POSITIVE / 2.0), -1023);
    }
}
