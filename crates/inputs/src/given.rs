//! Tensors and values that the user gave, brought to the type a model declares.

use isotrace_graph::{Dim, TensorType};
use isotrace_tensor::{DType, Tensor};

use crate::InputError;
use crate::make::check_size;

/// The tensor as the declared type, if that holds all its values; else why not.
pub(crate) fn converted(tensor: &Tensor, declared: DType, name: &str) -> Result<Tensor, InputError> {
    let found = tensor.dtype();
    if found == declared {
        return Ok(tensor.clone());
    }
    let refuse = || InputError::Type { name: name.to_owned(), found, expected: declared };
    // Numbers only: text would be parsed, and bool would swallow every other number.
    let numeric = |d: DType| d.is_float() || d.is_int();
    let allowed = numeric(declared) && (numeric(found) || found == DType::Bool)
        || declared == DType::Bool && found.is_int();
    if !allowed {
        return Err(refuse());
    }
    let there = tensor.cast(declared)?;
    let (before, after) = (tensor.to_f64()?, there.to_f64()?);
    let same = before.iter().zip(after.iter()).all(|(x, y)| x == y || x.is_nan() && y.is_nan());
    // Beyond 2^53 f64 would call different integers the same.
    let back = !found.is_int() || there.cast(found)?.bit_eq(tensor);
    if same && back { Ok(there) } else { Err(refuse()) }
}

/// Checks a given shape against the declared one.
pub(crate) fn check_shape(tensor: &Tensor, declared: &TensorType, name: &str) -> Result<(), InputError> {
    let Some(dims) = &declared.shape else { return Ok(()) };
    let fits = dims.len() == tensor.rank()
        && dims.iter().zip(tensor.shape()).all(|(d, &n)| !matches!(d, Dim::Fixed(m) if *m != n));
    if fits {
        return Ok(());
    }
    Err(InputError::Shape {
        name: name.to_owned(),
        found: tensor.shape().to_vec(),
        expected: shape_text(dims),
    })
}

/// A declared shape for people: `[batch, 8, ?]`.
pub(crate) fn shape_text(dims: &[Dim]) -> String {
    let dims: Vec<String> = dims
        .iter()
        .map(|d| match d {
            Dim::Fixed(n) => n.to_string(),
            Dim::Named(name) => name.clone(),
            Dim::Unknown => "?".to_owned(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}

/// A tensor of one value, written as the user wrote it.
pub(crate) fn filled(value: &str, dtype: DType, shape: &[usize], name: &str) -> Result<Tensor, InputError> {
    let refuse = |why: String| InputError::Value { name: name.to_owned(), value: value.to_owned(), why };
    check_size(dtype, shape, name)?;
    let scalar = match (value, dtype) {
        (_, DType::String) => {
            let n = isotrace_tensor::element_count(shape)?;
            return Ok(Tensor::from_strings(shape, vec![value.to_owned(); n])?);
        }
        ("true", DType::Bool) => Tensor::scalar(1i64),
        ("false", DType::Bool) => Tensor::scalar(0i64),
        _ if dtype.is_int() || dtype == DType::Bool => {
            let whole: i64 = value
                .parse()
                .map_err(|_| refuse(format!("the input has type {dtype}; give a whole number")))?;
            Tensor::scalar(whole)
        }
        _ => {
            let number: f64 = value
                .parse()
                .map_err(|_| refuse(format!("the input has type {dtype}; give a number, inf or nan")))?;
            Tensor::scalar(number)
        }
    };
    let one = scalar.cast(dtype)?;
    if !dtype.is_float() && one.to_f64()?[0] != scalar.to_f64()?[0] {
        return Err(refuse(format!("{dtype} cannot hold it")));
    }
    let n = isotrace_tensor::element_count(shape)?;
    let bytes = one.bytes().repeat(n);
    Ok(Tensor::from_bytes(dtype, shape, bytes.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_that_lose_nothing_are_made_and_others_refused() {
        let cases: [(Tensor, DType, bool); 12] = [
            (Tensor::vector(vec![1i32, -2]), DType::I64, true),
            (Tensor::vector(vec![1i64, -2]), DType::I32, true),
            (Tensor::vector(vec![1i64 << 40]), DType::I32, false),
            (Tensor::vector(vec![(1i64 << 53) + 1]), DType::F64, false),
            (Tensor::vector(vec![0.5f64, f64::NAN, f64::INFINITY]), DType::F32, true),
            (Tensor::vector(vec![0.1f64]), DType::F32, false),
            (Tensor::vector(vec![0.1f32]), DType::F64, true),
            (Tensor::vector(vec![2.0f32]), DType::I64, true),
            (Tensor::vector(vec![2.5f32]), DType::I64, false),
            (Tensor::vector(vec![0u8, 1]), DType::Bool, true),
            (Tensor::vector(vec![0u8, 2]), DType::Bool, false),
            (Tensor::from_strings(&[1], vec!["1".into()]).unwrap(), DType::I64, false),
        ];
        for (tensor, dtype, possible) in cases {
            let got = converted(&tensor, dtype, "x");
            assert_eq!(got.is_ok(), possible, "{tensor:?} as {dtype}: {got:?}");
        }
    }

    #[test]
    fn values_are_parsed_by_the_type_of_the_input() {
        let cases = [
            ("1", DType::Bool, "[1.0, 1.0]"),
            ("true", DType::Bool, "[1.0, 1.0]"),
            ("0.1", DType::F16, "[0.0999755859375, 0.0999755859375]"),
            ("-inf", DType::F32, "[-inf, -inf]"),
            ("7", DType::I64, "[7.0, 7.0]"),
        ];
        for (value, dtype, expected) in cases {
            let t = filled(value, dtype, &[2], "x").unwrap();
            assert_eq!(
                (t.dtype(), format!("{:?}", t.to_f64().unwrap())),
                (dtype, expected.to_owned()),
                "{value}"
            );
        }
        let wrong = [
            ("x", DType::F32, "give a number"),
            ("1.5", DType::I64, "give a whole number"),
            ("300", DType::U8, "u8 cannot hold it"),
            ("2", DType::Bool, "bool cannot hold it"),
        ];
        for (value, dtype, expected) in wrong {
            let error = filled(value, dtype, &[2], "x").unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(&format!("--set x={value}")), "{error}");
        }
    }
}
