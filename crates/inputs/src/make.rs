//! Tensors for inputs that nobody gave.

use isotrace_tensor::{C128, DType, Tensor, element_count};

use crate::InputError;
use crate::random::Random;
use crate::usage::Use;

/// Beyond this a made input is taken for a mistake in the sizes.
const MOST_BYTES: u128 = 1 << 32;

/// What an input is filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Filling {
    /// Independent normal numbers of mean 0 and variance 1.
    Normal,
    /// Whole numbers from 0 up to, but without, this.
    Below(u64, &'static str),
    /// One value everywhere.
    All(f64, &'static str),
    /// 0, 1, 2, ... along the last axis, from the first number on, kept below the second.
    Positions(u64, Option<u64>),
    /// 0 in the first half of the last axis and 1 in the second: two sentences.
    Halves,
}

/// What is known of an input when its filling is chosen.
pub(crate) struct About<'a> {
    /// Its names in the models.
    pub names: &'a [&'a str],
    pub dtype: DType,
    pub shape: &'a [usize],
    pub uses: &'a [Use],
    /// Length of the sequence, and of what came before it, where dimensions are named so.
    pub sequence: Option<usize>,
    pub past: Option<usize>,
}

/// The filling a network can work with, judged by uses first and names second.
pub(crate) fn choose(about: &About<'_>) -> Filling {
    let named =
        |parts: &[&str]| about.names.iter().any(|n| parts.iter().any(|p| n.to_lowercase().contains(p)));
    let table = about
        .uses
        .iter()
        .filter_map(|u| match u {
            Use::Index(n) => Some(*n as u64),
            _ => None,
        })
        .min();
    if named(&["mask"]) {
        return Filling::All(1.0, "a mask that lets everything through");
    }
    if about.dtype == DType::Bool {
        return Filling::All(1.0, "true");
    }
    if about.dtype.is_float() {
        return match about.shape.len() {
            0 | 1 if named(&["timestep"]) => Filling::All(500.0, "a time step"),
            _ => Filling::Normal,
        };
    }
    if about.dtype == DType::U8 && table.is_none() {
        return Filling::Below(256, "bytes");
    }
    if named(&["position"]) {
        return Filling::Positions(about.past.unwrap_or(0) as u64, table);
    }
    if named(&["token_type", "segment"]) && table.is_none_or(|n| n >= 2) {
        return Filling::Halves;
    }
    if about.uses.contains(&Use::Lengths) || named(&["length", "seq_len", "seqlen"]) {
        return Filling::All(about.sequence.unwrap_or(8) as f64, "the length of the sequence");
    }
    if named(&["timestep"]) {
        return Filling::All(500.0, "a time step");
    }
    match table {
        Some(rows) if rows > 0 => Filling::Below(rows, "rows of the table it indexes"),
        _ if about.uses.contains(&Use::OpenIndex) => {
            Filling::Below(4, "indices; the table's size is not known")
        }
        _ if named(&["input_ids", "token"]) => Filling::Below(100, "token ids"),
        _ => Filling::Below(10, "whole numbers"),
    }
}

/// The tensor and what to say of it.
pub(crate) fn make(
    filling: Filling,
    dtype: DType,
    shape: &[usize],
    seed: u64,
    name: &str,
) -> Result<(Tensor, String), InputError> {
    let refuse = |why: String| InputError::NotMakeable { name: name.to_owned(), why };
    check_size(dtype, shape, name)?;
    let n = element_count(shape)?;
    let last = shape.last().copied().unwrap_or(1).max(1);
    let mut random = Random::new(seed, name);
    let wide = |values: Vec<f64>| Tensor::from_vec(shape, values);
    if dtype == DType::String {
        return Err(refuse("its elements are text".to_owned()));
    }
    let (tensor, said) = match filling {
        Filling::Normal if matches!(dtype, DType::C64 | DType::C128) => {
            let values = (0..n).map(|_| C128([random.normal(), random.normal()])).collect();
            (Tensor::from_vec(shape, values)?, "normal(0, 1) in both parts".to_owned())
        }
        Filling::Normal => (wide((0..n).map(|_| random.normal()).collect())?, "normal(0, 1)".to_owned()),
        Filling::Below(limit, what) => {
            let values = (0..n).map(|_| random.below(limit) as f64).collect();
            (wide(values)?, format!("random 0 to {} ({what})", limit - 1))
        }
        Filling::All(value, what) => (wide(vec![value; n])?, format!("all {value} ({what})")),
        Filling::Positions(start, table) => {
            let bound = table.unwrap_or(u64::MAX).max(1) - 1;
            let values = (0..n).map(|i| (start + (i % last) as u64).min(bound) as f64).collect();
            (wide(values)?, format!("{start}, {}, {}, ... (positions)", start + 1, start + 2))
        }
        Filling::Halves => {
            let values = (0..n).map(|i| f64::from(u8::from(2 * (i % last) >= last && last > 1))).collect();
            (wide(values)?, "0 in the first half, 1 in the second (two segments)".to_owned())
        }
    };
    Ok((tensor.cast(dtype)?, said))
}

/// Refuses tensors that no machine would be asked to hold on purpose.
pub(crate) fn check_size(dtype: DType, shape: &[usize], name: &str) -> Result<(), InputError> {
    // f64 on the way, or the elements themselves.
    let element = dtype.size().max(8) as u128;
    let bytes = shape.iter().fold(element, |bytes, &n| bytes.saturating_mul(n as u128));
    if bytes > MOST_BYTES {
        return Err(InputError::TooLarge { name: name.to_owned(), shape: shape.to_vec(), bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fillings_as_a_table() {
        use Filling::{All, Below, Halves, Normal, Positions};
        type Case<'a> = (&'a str, DType, &'a [usize], &'a [Use], Filling);
        let index = [Use::Index(30)];
        let cases: [Case<'_>; 11] = [
            ("x", DType::F32, &[2, 8], &[], Normal),
            ("pixel_values", DType::F16, &[2, 3, 64, 64], &[], Normal),
            ("attention_mask", DType::I64, &[2, 8], &[], All(1.0, "a mask that lets everything through")),
            ("input_ids", DType::I64, &[2, 8], &index, Below(30, "rows of the table it indexes")),
            ("input_ids", DType::I64, &[2, 8], &[], Below(100, "token ids")),
            ("position_ids", DType::I64, &[2, 8], &index, Positions(4, Some(30))),
            ("token_type_ids", DType::I64, &[2, 8], &[Use::Index(2)], Halves),
            (
                "token_type_ids",
                DType::I64,
                &[2, 8],
                &[Use::Index(1)],
                Below(1, "rows of the table it indexes"),
            ),
            ("image", DType::U8, &[8, 8, 3], &[], Below(256, "bytes")),
            ("lens", DType::I32, &[2], &[Use::Lengths], All(8.0, "the length of the sequence")),
            ("use_cache_branch", DType::Bool, &[1], &[], All(1.0, "true")),
        ];
        for (name, dtype, shape, uses, expected) in cases {
            let about = About { names: &[name], dtype, shape, uses, sequence: Some(8), past: Some(4) };
            assert_eq!(choose(&about), expected, "{name}");
        }
    }

    #[test]
    fn tensors_hold_what_is_said() {
        let ints = |f, shape: &[usize]| {
            make(f, DType::I64, shape, 1, "x").unwrap().0.as_slice::<i64>().unwrap().to_vec()
        };
        assert_eq!(ints(Filling::Positions(2, Some(4)), &[2, 3]), [2, 3, 3, 2, 3, 3]);
        assert_eq!(ints(Filling::Halves, &[1, 5]), [0, 0, 0, 1, 1]);
        assert_eq!(ints(Filling::Halves, &[3, 1]), [0, 0, 0]);
        let ids = ints(Filling::Below(7, ""), &[1000]);
        assert!((0..7).all(|k| ids.contains(&k)) && ids.iter().all(|k| (0..7).contains(k)));
        assert_eq!(ints(Filling::Normal, &[0, 4]), [0; 0]);
        let error = make(Filling::Normal, DType::F32, &[1 << 20, 1 << 20], 1, "x").unwrap_err();
        assert!(matches!(error, InputError::TooLarge { .. }));
    }
}
