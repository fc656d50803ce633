//! What is kept of a value whose elements are not: statistics, and a signature that finds its counterpart.
//!
//! The signature is what layout does not change and rounding hardly does: counts, moments, extremes, and how many
//! elements lie between each power of two and the next. That last one is the sketch of the sorted values; unlike
//! quantiles it needs neither a sort nor a copy, and merges. The hash says whether two values are the same bits: it
//! guards against accident, not against somebody who wants two values to look the same, so it need not be cryptographic;
//! those are several times slower, and what a recording costs is mostly its digests.

use std::sync::OnceLock;

use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use super::number::Number;
use super::statistics::{self, By};
use super::team::{Pool, Team, gather};

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
    /// A hash of the elements in C order, little-endian, one a byte where they are narrower: the name of the algorithm,
    /// a colon, and its result in hexadecimal. [`Digest::of`] takes XXH3 of 128 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// SHA-256 of the same, in hexadecimal, as older traces have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Digest {
    /// Of a tensor, with all threads where it is large. Text has a count and a hash (of the JSON list of its elements)
    /// only.
    pub fn of(tensor: &Tensor) -> Self {
        Self::by(tensor, &Pool)
    }

    /// The same by a team, where the tensor is large.
    pub fn by(tensor: &Tensor, team: &dyn Team) -> Self {
        if tensor.raw_bytes().len() < LARGE {
            return Self::alone(tensor);
        }
        let hash = OnceLock::new();
        let (sums, count) = statistics::of(tensor, By::Team(team, &|| _ = hash.set(whole(tensor))));
        sums.digest(count, named(hash.into_inner().unwrap_or_else(|| whole(tensor))))
    }

    /// The same by the calling thread alone: for whoever would otherwise take the processor from somebody else.
    pub fn alone(tensor: &Tensor) -> Self {
        let mut hasher = XxHash3_128::new();
        let (sums, count) = statistics::of(tensor, By::Caller(&mut |bytes| hasher.write(bytes)));
        let hash = tensor.as_strings().map_or_else(|_| hasher.finish_128(), text);
        sums.digest(count, named(hash))
    }

    /// Whether two values are the same bits, given that they are of one type and shape; `None` where that cannot be
    /// known, since their hashes are of different algorithms.
    pub fn same_bits(&self, other: &Self) -> Option<bool> {
        let (one, two) = (self.hashes(), other.hashes());
        one.iter().find_map(|(name, hash)| {
            two.iter()
                .find(|(other, _)| name.eq_ignore_ascii_case(other))
                .map(|(_, other)| hash.eq_ignore_ascii_case(other))
        })
    }

    /// Hashes by the names of their algorithms.
    fn hashes(&self) -> Vec<(&str, &str)> {
        let named = self.hash.as_deref().and_then(|hash| hash.split_once(':'));
        named.into_iter().chain(self.sha256.as_deref().map(|hash| ("sha256", hash))).collect()
    }
}

/// Digests of values that are seen again and again and seldom change, such as weights: their hash is taken each time,
/// several times faster than their statistics, which are looked up by it.
#[derive(Debug, Default)]
pub struct Digests(FxHashMap<(DType, usize, u128), Digest>);

impl Digests {
    /// Digests remembered at most, each of a few kilobytes; with one more all are forgotten.
    const MOST: usize = 4096;

    /// What [`Digest::of`] gives of each, by a team.
    pub fn of(&mut self, tensors: &[Tensor], team: &dyn Team) -> Vec<Digest> {
        let keys = gather(team, tensors.len(), |at| {
            let tensor = &tensors[at];
            let texts = tensor.dtype() == DType::String;
            (!texts).then(|| (tensor.dtype(), tensor.len(), whole(tensor)))
        });
        let mut digest = |(tensor, key): (&Tensor, Option<_>)| {
            let Some(key) = key else { return Digest::by(tensor, team) };
            if let Some(known) = self.0.get(&key) {
                return known.clone();
            }
            if self.0.len() >= Self::MOST {
                self.0.clear();
            }
            let digest = Digest::by(tensor, team);
            self.0.insert(key, digest.clone());
            digest
        };
        tensors.iter().zip(keys).map(|pair| digest(pair)).collect()
    }
}

/// Bytes from which on more than one thread is worth waking.
const LARGE: usize = 1 << 20;

/// The hash of all elements.
fn whole(tensor: &Tensor) -> u128 {
    tensor.as_strings().map_or_else(|_| XxHash3_128::oneshot(tensor.raw_bytes()), text)
}

fn text(texts: &[String]) -> u128 {
    XxHash3_128::oneshot(&serde_json::to_vec(texts).unwrap_or_default())
}

/// As `xxhsum -H128` writes it.
fn named(hash: u128) -> String {
    format!("xxh3-128:{hash:032x}")
}

#[cfg(test)]
mod tests {
    use isotrace_tensor::{C64, C128};

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
        assert_eq!((a.same_bits(&b), a.same_bits(&a)), (Some(false), Some(true)));
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
            assert_eq!(digest.hash.as_ref().map(String::len), Some(9 + 32));
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
        // As the package xxhash of Python has it.
        let cases = [
            (Tensor::scalar(1f32), "xxh3-128:e6f9acca6893caeb591ef4e963e120d4"),
            (
                Tensor::vector((0..1000u16).map(f32::from).collect()),
                "xxh3-128:dde64c6ec859caa6ab408abd5a63f694",
            ),
        ];
        for (tensor, hash) in cases {
            assert_eq!(Digest::of(&tensor).hash.unwrap(), hash);
        }
    }

    #[test]
    fn threads_change_nothing() {
        for len in [1, 2049, (1 << 18) + 5, 700_001] {
            for dtype in [DType::F32, DType::F16, DType::F64, DType::I32, DType::I4] {
                let values: Vec<f32> =
                    (0..len).map(|i| ((i % 1009) * 7919 % 1009) as f32 / 128.0 - 3.0).collect();
                let tensor = Tensor::vector(values).cast(dtype).unwrap();
                assert_eq!(Digest::alone(&tensor), Digest::of(&tensor), "{dtype} of {len}");
            }
        }
    }

    #[test]
    fn what_is_remembered_is_what_would_be_computed() {
        let mut known = Digests::default();
        let one = Tensor::vector((0..5000i16).map(f32::from).collect::<Vec<f32>>());
        let other = Tensor::vector((0..5000i16).map(|i| f32::from(i) + 1.0).collect::<Vec<f32>>());
        // The same bytes are other numbers in another type.
        let bits = Tensor::from_bytes(DType::I32, &[5000], bytes::Bytes::copy_from_slice(one.raw_bytes()));
        let text = Tensor::from_strings(&[1], vec!["a".into()]).unwrap();
        let tensors = [one.clone(), other, one.clone(), bits.unwrap(), text, one];
        let digests: Vec<Digest> = tensors.iter().map(Digest::of).collect();
        assert_eq!(known.of(&tensors, &Pool), digests);
        assert_eq!(known.of(&tensors[1..], &Pool), digests[1..]);
        assert_eq!(known.0.len(), 3);
    }

    #[test]
    fn hashes_of_one_algorithm_are_held_against_each_other() {
        let digest = |hash: Option<&str>, sha256: Option<&str>| Digest {
            hash: hash.map(Into::into),
            sha256: sha256.map(Into::into),
            ..Digest::default()
        };
        let cases = [
            (digest(Some("blake3:00"), None), digest(Some("blake3:00"), None), Some(true)),
            (digest(Some("blake3:00"), None), digest(Some("blake3:01"), None), Some(false)),
            (digest(Some("blake3:00"), None), digest(None, Some("00")), None),
            (digest(Some("sha256:0a"), None), digest(None, Some("0A")), Some(true)),
            (digest(Some("blake3:00"), Some("11")), digest(None, Some("12")), Some(false)),
            (digest(None, None), digest(None, None), None),
        ];
        for (a, b, expected) in cases {
            assert_eq!((a.same_bits(&b), b.same_bits(&a)), (expected, expected), "{a:?} {b:?}");
        }
        let old: Digest = serde_json::from_str(r#"{"count": 3, "sha256": "0a"}"#).unwrap();
        assert_eq!(old.hashes(), [("sha256", "0a")]);
    }
}
